// The secondary: listens, lets a primary in that knows the key, applies its stream in order, and answers.
#pragma once
#include "frame.h"

struct receive_status {
    const char *peer; // none | listening | resync | mirror
    char address[96], peer_generation[GENERATION_SIZE];
    uint64_t applied, durable;
};

int receive_start(const char *address, unsigned port, char *why, size_t why_size);
void receive_stop(void); // what was received is applied and durable after it
void receive_get_status(struct receive_status *status);

// ---- between receive.c and reconcile.c ----
int receive_object(uint64_t id);              // O_PATH descriptor, -1 when unknown
int receive_file(uint64_t id, int *error);    // readable and writable descriptor of a regular file
void receive_answer(enum frame_op op, uint64_t seq, const char *text);
void receive_worked(void);                    // something was done: the primary sees that we are alive

int reconcile(const struct message *message); // a frame of the resync
void reconcile_end(void);
