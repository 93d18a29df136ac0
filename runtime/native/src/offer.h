// The log of a former primary that comes back as secondary, told to its source in the handshake: paths on its disk and what may differ there.
// Bounded, in small records, ended by one that says whether it is whole.
#pragma once
#include "dirty.h"
#include "link.h"

// False: the connection is lost.
bool offer_send(struct link *link);
// What the target named, as objects of this node. False: the connection is lost. *whole false: something cannot be named, compare everything.
bool offer_receive(struct link *link, struct dirty_set *set, bool *whole);
