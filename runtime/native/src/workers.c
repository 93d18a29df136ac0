// Threads are made when the first frame is handed out, so an idle secondary has none. Locks: the one of this file, outside of it none.
#include "workers.h"
#include "apply.h"
#include "metrics.h"
#include "receive.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 4
#define BLOCKS 8
#define BEHIND (128u << 10) // bytes behind a frame that make a hand-off worth it
#define HEAVY (128u << 10)  // bytes of a frame that do

struct block {
    atomic_uint references;
    unsigned char bytes[BLOCK_SIZE];
};

struct job {
    struct job *next;            // of its worker
    struct job *earlier, *later; // of all that are handed out, by sequence
    struct message message;
    struct object *object;
    struct block *block;
    int64_t read_at;
};

struct worker {
    pthread_t thread;
    pthread_cond_t wake;
    struct job *first, **last;
    atomic_uint queued;
    bool runs, sleeps;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed; // a job ended
    pthread_cond_t freed;   // a block
    struct worker worker[WORKERS];
    struct job *oldest, *youngest;
    atomic_uint queued;
    atomic_ullong read; // applied by the reading thread, or handed out
    bool ending;
    atomic_bool failed;
    unsigned blocks;
    struct block *spare;
} workers = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .freed = PTHREAD_COND_INITIALIZER};

static _Thread_local unsigned char *scratch;

unsigned char *workers_scratch(void) {
    if (!scratch) scratch = must(malloc(ZONE_SIZE));
    return scratch;
}

static void scratch_free(void) {
    free(scratch);
    scratch = NULL;
}

// ---- blocks ----

struct block *block_take(void) {
    pthread_mutex_lock(&workers.lock);
    while (workers.blocks == BLOCKS) pthread_cond_wait(&workers.freed, &workers.lock);
    workers.blocks++;
    struct block *block = workers.spare;
    workers.spare = NULL;
    pthread_mutex_unlock(&workers.lock);
    if (!block) block = must(malloc(sizeof *block));
    atomic_init(&block->references, 1);
    return block;
}

static void block_free(struct block *block) {
    pthread_mutex_lock(&workers.lock);
    workers.blocks--;
    struct block *surplus = workers.spare ? block : NULL;
    if (!surplus) workers.spare = block;
    pthread_cond_signal(&workers.freed);
    pthread_mutex_unlock(&workers.lock);
    free(surplus);
}

void block_release(struct block *block) {
    if (atomic_fetch_sub(&block->references, 1) == 1) block_free(block);
}

bool block_is_shared(const struct block *block) { return atomic_load(&block->references) > 1; }

unsigned char *block_bytes(struct block *block) { return block->bytes; }

// ---- one frame ----

static void fail(const struct message *message, int error) {
    if (!atomic_exchange(&workers.failed, true)) receive_failed(message, error);
}

// Space on this disk may come from a frame before this one that another thread still applies.
static bool is_out_of_space(int error) { return error == ENOSPC || error == EDQUOT; }

static void run(struct job *job) {
    int error = apply(&job->message, job->object);
    if (is_out_of_space(error)) {
        pthread_mutex_lock(&workers.lock);
        while (workers.oldest != job) pthread_cond_wait(&workers.changed, &workers.lock);
        pthread_mutex_unlock(&workers.lock);
        error = apply(&job->message, job->object);
    }
    if (error) fail(&job->message, error);
    else receive_worked();
    metrics_time(TIME_PEER, metrics_now_us() - job->read_at);
}

// With the lock held.
static void finish(struct job *job) {
    if (job->earlier) job->earlier->later = job->later;
    else workers.oldest = job->later;
    if (job->later) job->later->earlier = job->earlier;
    else workers.youngest = job->earlier;
    atomic_fetch_sub(&workers.queued, 1);
    pthread_cond_broadcast(&workers.changed);
}

static void *worker_main(void *argument) {
    struct worker *worker = argument;
    unsigned unanswered = 0;
    pthread_mutex_lock(&workers.lock);
    for (;;) {
        while (!worker->first && !workers.ending) {
            worker->sleeps = true;
            pthread_cond_wait(&worker->wake, &workers.lock);
            worker->sleeps = false;
        }
        struct job *job = worker->first;
        if (!job) break;
        worker->first = job->next;
        if (!worker->first) worker->last = &worker->first;
        pthread_mutex_unlock(&workers.lock);
        if (!atomic_load(&workers.failed)) run(job);
        object_release(job->object);
        block_release(job->block);
        pthread_mutex_lock(&workers.lock);
        finish(job);
        bool answer = !worker->first || ++unanswered == 8;
        atomic_fetch_sub(&worker->queued, 1);
        pthread_mutex_unlock(&workers.lock);
        free(job);
        if (answer) {
            receive_acknowledge();
            unanswered = 0;
        }
        pthread_mutex_lock(&workers.lock);
    }
    pthread_mutex_unlock(&workers.lock);
    scratch_free();
    return NULL;
}

static struct worker *worker_of(const struct object *object) {
    return &workers.worker[(((uint64_t)object->ino + (uint64_t)object->dev) * 0x9E3779B97F4A7C15u >> 32) % WORKERS];
}

static void hand_out(struct worker *worker, const struct message *message, struct object *object, struct block *block, int64_t read_at) {
    struct job *job = must(malloc(sizeof *job));
    *job = (struct job){.message = *message, .object = object_keep(object), .block = block, .read_at = read_at};
    atomic_fetch_add(&block->references, 1);
    pthread_mutex_lock(&workers.lock);
    job->earlier = workers.youngest;
    if (job->earlier) job->earlier->later = job;
    else workers.oldest = job;
    workers.youngest = job;
    *worker->last = job;
    worker->last = &job->next;
    atomic_fetch_add(&worker->queued, 1);
    atomic_fetch_add(&workers.queued, 1);
    atomic_store(&workers.read, message->frame.seq);
    if (!worker->runs) {
        if (pthread_create(&worker->thread, NULL, worker_main, worker)) abort();
        worker->runs = true;
    } else if (worker->sleeps) {
        pthread_cond_signal(&worker->wake);
    }
    pthread_mutex_unlock(&workers.lock);
}

bool workers_apply(const struct message *message, struct block *block, size_t behind, int64_t read_at) {
    const struct frame *frame = &message->frame;
    if (frame->op == OP_PING || frame->op == OP_ASK) {
        if (frame->op == OP_PING) answers_heard(frame->id);
        else receive_ask(frame->id);
        return !atomic_load(&workers.failed);
    }
    if (frame->seq != atomic_load(&workers.read) + 1) {
        fail(message, EPROTO); // a gap, or what is here already
        return false;
    }
    struct object *object = object_find(frame->id);
    if (apply_is_of_one_file(message, object)) {
        struct worker *worker = worker_of(object);
        if (atomic_load(&worker->queued) || behind > BEHIND || frame->data_size >= HEAVY || frame->op == OP_ZONE_CHECK || frame->op == OP_VERIFY_ZONE || frame->op == OP_VERIFY_HOLE) {
            hand_out(worker, message, object, block, read_at);
            return !atomic_load(&workers.failed);
        }
    } else if (frame->op == OP_BARRIER || frame->op == OP_RESYNC_BEGIN || frame->op == OP_VERIFY_END || frame->flags & FRAME_REPLACE) {
        workers_drain(); // what takes a name in one step takes it whole
    }
    int error = apply(message, NULL);
    if (is_out_of_space(error) && !workers_idle()) {
        workers_drain();
        error = apply(message, NULL);
    }
    if (error) {
        fail(message, error);
        return false;
    }
    receive_worked();
    metrics_time(TIME_PEER, metrics_now_us() - read_at);
    if (!atomic_load(&workers.queued)) {
        atomic_store(&workers.read, frame->seq);
    } else {
        pthread_mutex_lock(&workers.lock);
        atomic_store(&workers.read, frame->seq);
        pthread_mutex_unlock(&workers.lock);
    }
    return !atomic_load(&workers.failed);
}

// ---- the whole ----

void workers_drain(void) {
    pthread_mutex_lock(&workers.lock);
    while (workers.oldest) pthread_cond_wait(&workers.changed, &workers.lock);
    pthread_mutex_unlock(&workers.lock);
}

uint64_t workers_applied(void) {
    if (!atomic_load(&workers.queued)) {
        // Whoever hands out raises `read` after `queued`: a number read while nothing is handed out has no gap before it.
        uint64_t read = atomic_load(&workers.read);
        if (!atomic_load(&workers.queued)) return read;
    }
    pthread_mutex_lock(&workers.lock);
    uint64_t applied = workers.oldest ? workers.oldest->message.frame.seq - 1 : atomic_load(&workers.read);
    pthread_mutex_unlock(&workers.lock);
    return applied;
}

bool workers_failed(void) { return atomic_load(&workers.failed); }

bool workers_idle(void) { return !atomic_load(&workers.queued); }

unsigned workers_queued(void) { return atomic_load(&workers.queued); }

void workers_resume(uint64_t applied) { atomic_store(&workers.read, applied); }

void workers_start(void) {
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *worker = &workers.worker[i];
        *worker = (struct worker){.last = &worker->first};
        pthread_cond_init(&worker->wake, NULL);
    }
    workers.ending = false;
    atomic_store(&workers.failed, false);
    atomic_store(&workers.read, 0);
}

void workers_stop(void) {
    pthread_mutex_lock(&workers.lock);
    workers.ending = true;
    for (unsigned i = 0; i < WORKERS; i++) pthread_cond_signal(&workers.worker[i].wake);
    pthread_mutex_unlock(&workers.lock);
    for (unsigned i = 0; i < WORKERS; i++) {
        if (workers.worker[i].runs) pthread_join(workers.worker[i].thread, NULL);
        workers.worker[i].runs = false;
        pthread_cond_destroy(&workers.worker[i].wake);
    }
    free(workers.spare);
    workers.spare = NULL;
    scratch_free();
}
