// What must be on the disk of the secondary before it is answered: handed to helpers, and the stream goes on behind it. Beside them one thread
// writes back all the time, so that little is lost with the power and a barrier is short, and beats.
#include "receive.h"
#include "events.h"
#include "metrics.h"
#include "state.h"
#include "workers.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEARTBEAT_MS 400
#define FLUSH_MS 1000
#define FLUSH_BYTES (64u << 20)
#define HELPERS 4

struct synced {
    struct synced *next;                 // of those that nobody works at
    struct synced *later, **earlier_next; // of all that are not answered
    uint64_t seq;
    int file; // own descriptor; -1: everything
    bool data_only;
    uint32_t barrier; // enum barrier, 0: none
    char *text;
    struct moment moment; // of a barrier: everything before it was applied
    int64_t at;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed; // the end, and for who looks at the clock
    pthread_cond_t work;    // for one helper
    struct synced *first, **last, *unanswered;
    unsigned helpers, idle;
    bool ending, mirror, handover;
    pthread_t helper[HELPERS], flusher, committer;
    atomic_ullong durable, committed, unflushed;
} durable = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .last = &durable.first};

int sync_everything(void) {
    int error = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        if (syncfs(options.directory[i].root)) error = errno;
    }
    return error;
}

void receive_wrote(uint64_t bytes) { atomic_fetch_add_explicit(&durable.unflushed, bytes, memory_order_relaxed); }

static int reach_barrier(const struct synced *synced) {
    int error = 0;
    pthread_mutex_lock(&state_lock);
    if (synced->barrier == BARRIER_MIRROR) {
        snprintf(state.base, sizeof state.base, "%.32s", synced->text);
        state.mirrored = synced->moment;
        state.inconsistent = state.partial = state.lost = state.logged = false;
        state.exact = true;
        state.copy[0] = 0;
        error = state_save();
    } else if (synced->barrier == BARRIER_PUBLISH) {
        snprintf(state.published, sizeof state.published, "%s", synced->text);
        error = state_save();
    }
    pthread_mutex_unlock(&state_lock);
    if (error) return error;
    pthread_mutex_lock(&durable.lock);
    if (synced->barrier == BARRIER_MIRROR) durable.mirror = true;
    if (synced->barrier == BARRIER_HANDOVER) durable.handover = true;
    pthread_mutex_unlock(&durable.lock);
    if (synced->barrier == BARRIER_MIRROR) event_send("resync_ended", (char *)NULL);
    if (synced->barrier == BARRIER_PUBLISH) event_send("published", "generation", synced->text, (char *)NULL);
    return 0;
}

static void sync_one(const struct synced *one) {
    int error = 0;
    if (one->file < 0) error = sync_everything();
    else if (one->data_only ? fdatasync(one->file) : fsync(one->file)) error = errno;
    if (!error && one->barrier) error = reach_barrier(one);
    metrics_time(TIME_SYNC, metrics_now_us() - one->at);
    if (error) {
        receive_answer(OP_TROUBLE, one->seq, strerror(error));
    } else if (one->file < 0 && !one->barrier) {
        atomic_store(&durable.durable, one->seq);
        receive_answer(OP_DURABLE, one->seq, NULL);
    } else {
        receive_answer(OP_DONE, one->seq, NULL);
    }
}

static void *helper_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&durable.lock);
    for (;;) {
        durable.idle++;
        while (!durable.first && !durable.ending) pthread_cond_wait(&durable.work, &durable.lock);
        durable.idle--;
        struct synced *one = durable.first;
        if (!one) break;
        durable.first = one->next;
        if (!durable.first) durable.last = &durable.first;
        pthread_mutex_unlock(&durable.lock);
        sync_one(one);
        if (one->file >= 0) close(one->file);
        pthread_mutex_lock(&durable.lock);
        *one->earlier_next = one->later;
        if (one->later) one->later->earlier_next = one->earlier_next;
        free(one->text);
        free(one);
    }
    pthread_mutex_unlock(&durable.lock);
    return NULL;
}

static void sync_later(struct synced synced) {
    struct synced *one = must(malloc(sizeof *one));
    *one = synced;
    one->at = metrics_now_us();
    pthread_mutex_lock(&durable.lock);
    one->later = durable.unanswered;
    one->earlier_next = &durable.unanswered;
    if (one->later) one->later->earlier_next = &one->later;
    durable.unanswered = one;
    *durable.last = one;
    durable.last = &one->next;
    if (!durable.idle && durable.helpers < HELPERS) {
        if (pthread_create(&durable.helper[durable.helpers++], NULL, helper_main, NULL)) abort();
    }
    bool waits = durable.idle > 0;
    pthread_mutex_unlock(&durable.lock);
    // Behind the lock: who is woken takes it at once.
    if (waits) pthread_cond_signal(&durable.work);
}

void receive_sync(uint64_t seq, int file, bool data_only) { sync_later((struct synced){.seq = seq, .file = file, .data_only = data_only}); }

void receive_ask(uint64_t seq) {
    pthread_mutex_lock(&durable.lock);
    const struct synced *one = durable.unanswered;
    while (one && (one->seq != seq || (one->file < 0 && !one->barrier))) one = one->later;
    pthread_mutex_unlock(&durable.lock);
    if (!one) receive_answer(OP_DONE, seq, NULL); // it was answered, into a connection that broke
}

void receive_barrier(const struct message *message) {
    sync_later((struct synced){.seq = message->frame.seq, .file = -1, .barrier = message->frame.valid, .text = must(strdup(message->name ? message->name : "")), .moment = moment_now()});
}

int receive_resync_begins(const struct message *message) {
    pthread_mutex_lock(&state_lock);
    // Of what changed since the base: if it is interrupted the next one can go on from there.
    state.partial = !(message->frame.flags & FRAME_FULL) && (!state.inconsistent || state.partial);
    state.inconsistent = true;
    const char *copy = message->frame.flags & FRAME_FULL && message->name ? message->name : "";
    state.resumed = *copy && strcmp(state.copy, copy) == 0;
    snprintf(state.copy, sizeof state.copy, "%.32s", copy);
    if (!state.partial) state.exact = state.lost = state.logged = false;
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    reconcile_end();
    event_send("resync_started", "incremental", message->frame.flags & FRAME_FULL ? "no" : "yes", (char *)NULL);
    return error;
}

static void wait_ms(long milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    if (!durable.ending) pthread_cond_timedwait(&durable.changed, &durable.lock, &until);
}

static void *flusher_main(void *unused) {
    (void)unused;
    uint64_t flushed = 0;
    int64_t flushed_at = now_ms(), beaten = 0;
    for (;;) {
        metrics_sample();
        pthread_mutex_lock(&durable.lock);
        wait_ms(100);
        bool ending = durable.ending;
        pthread_mutex_unlock(&durable.lock);
        if (ending) return NULL;
        int64_t now = now_ms();
        if (now - beaten >= HEARTBEAT_MS) {
            receive_answer(OP_PING, 0, NULL);
            beaten = now;
        }
        uint64_t applied = workers_applied();
        if (applied != flushed && (now - flushed_at >= FLUSH_MS || atomic_load(&durable.unflushed) > FLUSH_BYTES)) {
            atomic_store(&durable.unflushed, 0);
            flushed = applied;
            flushed_at = now;
            sync_later((struct synced){.seq = applied, .file = -1});
        }
    }
}

// async="none": an acknowledgement means that the data are on the disk. One sync answers all that was applied before it began.
static void *committer_main(void *unused) {
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&durable.lock);
        while (!durable.ending && workers_applied() <= atomic_load(&durable.committed)) wait_ms(100);
        bool ending = durable.ending;
        pthread_mutex_unlock(&durable.lock);
        if (ending) return NULL;
        uint64_t applied = workers_applied();
        int error = sync_everything();
        if (error) {
            receive_answer(OP_TROUBLE, applied, strerror(error));
            return NULL;
        }
        atomic_store(&durable.committed, applied);
        receive_acknowledge();
    }
}

uint64_t durable_applied(void) { return options.durable_ack ? atomic_load(&durable.committed) : workers_applied(); }

void durable_wanted(void) {
    if (!options.durable_ack) return;
    pthread_mutex_lock(&durable.lock);
    pthread_cond_broadcast(&durable.changed);
    pthread_mutex_unlock(&durable.lock);
}

bool durable_is_mirror(void) {
    pthread_mutex_lock(&durable.lock);
    bool mirror = durable.mirror;
    pthread_mutex_unlock(&durable.lock);
    return mirror;
}

bool durable_is_handover(void) {
    pthread_mutex_lock(&durable.lock);
    bool handover = durable.handover;
    pthread_mutex_unlock(&durable.lock);
    return handover;
}

uint64_t durable_reached(void) { return atomic_load(&durable.durable); }

void durable_begin(void) {
    durable.ending = durable.handover = durable.mirror = false;
    durable.helpers = durable.idle = 0;
    atomic_store(&durable.durable, 0);
    atomic_store(&durable.committed, 0);
    if (pthread_create(&durable.flusher, NULL, flusher_main, NULL)) abort();
    if (options.durable_ack && pthread_create(&durable.committer, NULL, committer_main, NULL)) abort();
}

void durable_end(void) {
    pthread_mutex_lock(&durable.lock);
    durable.ending = true;
    pthread_cond_broadcast(&durable.changed);
    pthread_cond_broadcast(&durable.work);
    pthread_mutex_unlock(&durable.lock);
    pthread_join(durable.flusher, NULL);
    if (options.durable_ack) pthread_join(durable.committer, NULL);
    for (unsigned i = 0; i < durable.helpers; i++) pthread_join(durable.helper[i], NULL);
}
