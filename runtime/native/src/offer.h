// The log of a former primary that comes back as secondary, told to its source in the handshake: paths on its disk and what may differ there.
// Bounded, in small records, ended by one that says whether it is whole.
#pragma once
#include "dirty.h"

// How the handshake writes and reads; false: the connection is lost.
typedef bool offer_put(int fd, const void *bytes, size_t size);
typedef bool offer_get(int fd, void *bytes, size_t size);

bool offer_send(int fd, offer_put *put);
// What the target named, as objects of this node. False: the connection is lost. *whole false: something cannot be named, compare everything.
bool offer_receive(int fd, offer_get *get, struct dirty_set *set, bool *whole);
