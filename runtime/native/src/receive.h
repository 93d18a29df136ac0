// The secondary: listens, lets a primary in that knows the key, applies its stream, and answers.
#pragma once
#include "frame.h"
#include "link.h"

struct receive_status {
    const char *peer; // none | listening | resync | mirror
    char address[96], peer_generation[GENERATION_SIZE];
    uint64_t applied, durable;
    unsigned queued;
};

int receive_start(const char *address, unsigned port, char *why, size_t why_size);
void receive_stop(void); // what was received is applied and durable after it
void receive_get_status(struct receive_status *status);

// ---- apply.c, for reconcile.c ----
int receive_object(uint64_t id);              // O_PATH descriptor, -1 when unknown
int receive_file(uint64_t id, int *error);    // readable and writable descriptor of a regular file
struct extent *receive_extent(uint64_t id);   // of an object that is known; in the order of its frames
void receive_cut(uint64_t id);                // something of it may become a hole

// ---- answers.c: what goes back to the primary ----
void answers_begin(struct link *link, bool resumes, uint64_t heard); // heard: the last acknowledgement that the primary has
void answers_suspend(void);                   // the connection is broken (link_break); its link is not used any more when this returns
void answers_heard(uint64_t heard);
void receive_answer(enum frame_op op, uint64_t seq, const char *text);
void receive_send(const struct message *answer);
void receive_acknowledge(void);               // everything that is applied by now, in one answer
void receive_worked(void);                    // something was done: the primary sees that we are alive

// ---- durable.c: what must be on the disk before it is answered ----
void durable_begin(void);                     // of a new session
void durable_end(void);                       // everything asked for is done when it returns
uint64_t durable_applied(void);               // up to here it may be acknowledged
void durable_wanted(void);                    // async="none": something was applied
bool durable_is_mirror(void);
bool durable_is_handover(void);
uint64_t durable_reached(void);
void receive_wrote(uint64_t bytes);
void receive_sync(uint64_t seq, int file, bool data_only); // takes `file` over; answers OP_DONE
void receive_ask(uint64_t seq);               // answers OP_DONE once the frame is synced
void receive_barrier(const struct message *message);
int receive_resync_begins(const struct message *message);
int sync_everything(void);

void receive_failed(const struct message *message, int error); // a frame could not be applied: the session ends

int reconcile(const struct message *message); // a frame of the resync
void reconcile_end(void);
