// One connection between the two nodes, plain or encrypted (TLS 1.3 with a secret that both derive from the key of the module).
// One thread receives, any thread sends while no other does, any thread may break it.
#pragma once
#include "common.h"
#include "tls.h"

struct link;

struct link *link_open(int fd); // takes the descriptor over
void link_close(struct link *link); // NULL: nothing
void link_break(struct link *link); // whoever sends or receives notices
void link_break_reading(struct link *link); // what is sent still goes out
void link_limit(struct link *link, int milliseconds); // for one step of sending or receiving; 0: as long as it takes
enum agreement link_encrypt(struct link *link, bool accepts, char *why, size_t why_size); // after the greeting
const char *link_cipher(const struct link *link); // "" for a plain one
ssize_t link_send(struct link *link, const void *bytes, size_t size);    // how many went, or -1
ssize_t link_receive(struct link *link, void *bytes, size_t size); // 0: closed; -1 with errno, EAGAIN: the limit has passed
bool link_put(struct link *link, const void *bytes, size_t size);
bool link_get(struct link *link, void *bytes, size_t size);

// Connects. Returns the descriptor, or -1 with errno and a sentence in `why`.
int link_dial(const char *host, const char *port, int milliseconds, char *why, size_t why_size);
