// The role of this process, and the commands that change it. One command at a time.
#pragma once
#include "common.h"

struct failure {
    char code[24], message[512];
};

// Every command returns 0, or -1 with *failure filled.
int module_primary(const char *generation, bool force, struct failure *failure);
int module_connect(const char *host, const char *port, const char *generation, bool full, bool *incremental, char *reason, size_t reason_size,
                   char *peer_generation, size_t peer_size, struct failure *failure);
int module_disconnect(struct failure *failure);
int module_alone(const char *generation, bool leaves, struct failure *failure); // leaves: a peer that is still connected, as one that is known to be gone
int module_publish(const char *generation, struct failure *failure);
int module_secondary(const char *address, unsigned port, const char *generation, bool clean, struct failure *failure);
int module_handover(int timeout_ms, struct failure *failure);
int module_take_over(void); // goes on as the primary whose worker died. 0 or errno
int module_idle(bool force, struct failure *failure);
void module_keeps_protection(void); // at start
void module_with_directories(void (*work)(void)); // while a role holds them open; not at all while a command runs
const char *module_role(void);
