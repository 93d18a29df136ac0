// What the three files of the stream share: its state, and the steps that more than one of them takes. For nobody else.
// stream.c orders and ships, stream_peer.c hears the peer, stream_life.c begins and ends a stream and decides who is answered.
#pragma once
#include "link.h"
#include "ring.h"
#include "stream.h"

struct waiter {
    struct waiter *next;
    uint64_t seq;
    bool done;
};

extern struct stream {
    pthread_mutex_t lock;
    pthread_cond_t changed; // space, answers, loss; nobody is woken who does not wait
    pthread_cond_t ended;   // loss: what the watch waits for
    pthread_cond_t unsent;  // what the sender waits for
    unsigned waiting;
    unsigned turns;         // how often a mirror emptied the dirty set
    pthread_rwlock_t gate;  // operations hold it for reading; a stream begins between operations
    bool up, threads, refusing;
    struct link *link, *next; // NULL while it is made again; what is made
    bool broken;
    char host[256], port[32], session[SESSION_SIZE];
    unsigned objects; // that the secondary can keep
    enum answers answers, switching_from;
    char address[96], peer_generation[GENERATION_SIZE];
    struct ring *ring; // what the peer has not acknowledged
    bool sending;
    uint64_t seq, applied, durable, bindings, next_id;
    struct operation *first, **last; // wait for the peer, by sequence
    struct operation *held, **held_last;
    unsigned pending_count, held_count;
    struct waiter *waiters;
    int64_t received_at, progress_at;
    uint64_t work;
    pthread_t reader, watch, sender;
} stream;

// ---- stream.c ----
void stream_settle(struct operation *operation); // one of what it waits for is there
void stream_settle_all(struct operation *list);

// With stream.lock held, before and after:
struct operation *stream_take_held(void);
void stream_tell(void); // whoever waits in stream_wait(). An operation wakes nobody but its own application
void stream_wait(void);
void stream_append(const struct message *message);
void stream_make_room(void);
void stream_broke(void); // the connection; it is made again by the thread that reads
void stream_doubt(const struct operation *operation);

void stream_flush(void); // without it
void *stream_sends(void *unused);

// ---- stream_peer.c: threads of a stream ----
extern _Thread_local bool stream_reading; // this thread: it may not wait for room
void *stream_reads(void *unused);
void *stream_watches(void *unused);
