// What the secondary says. Whoever finds nobody sending sends, and goes on with what others add meanwhile; acknowledgements are cumulative, so
// those that meet become one.
#include "receive.h"
#include "link.h"
#include "metrics.h"
#include "workers.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PENDING (64u << 10)

// Answers about a frame that the primary may not have heard when its connection breaks: said again on the next one.
struct kept {
    struct kept *next;
    uint64_t seq;
    size_t size;
    unsigned char bytes[];
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t room;
    struct link *link; // NULL: the connection is broken
    struct kept *kept, **kept_last;
    bool sending, broken;
    uint64_t acknowledged;
    struct kept *again; // the next one to say again
    size_t used;
    unsigned char pending[PENDING], out[2 * PENDING + sizeof(struct frame)];
    atomic_ullong work;
} answers = {.lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER, .kept_last = &answers.kept, .broken = true};

void receive_worked(void) { atomic_fetch_add_explicit(&answers.work, 1, memory_order_relaxed); }

// With the lock held.
static void forget_kept(uint64_t heard) {
    while (answers.kept && answers.kept->seq <= heard) {
        struct kept *kept = answers.kept;
        answers.kept = kept->next;
        free(kept);
    }
    if (!answers.kept) answers.kept_last = &answers.kept;
}

void answers_heard(uint64_t heard) {
    pthread_mutex_lock(&answers.lock);
    forget_kept(heard);
    pthread_mutex_unlock(&answers.lock);
}

void answers_suspend(void) {
    pthread_mutex_lock(&answers.lock);
    answers.broken = true;
    pthread_cond_broadcast(&answers.room);
    while (answers.sending) pthread_cond_wait(&answers.room, &answers.lock);
    answers.link = NULL;
    pthread_mutex_unlock(&answers.lock);
}

static void flush(void);

void answers_begin(struct link *link, bool resumes, uint64_t heard) {
    pthread_mutex_lock(&answers.lock);
    answers.link = link;
    answers.broken = false;
    answers.acknowledged = heard;
    answers.used = 0;
    forget_kept(resumes ? heard : UINT64_MAX);
    answers.again = answers.kept;
    flush();
    pthread_mutex_unlock(&answers.lock);
}

// With the lock held.
static void flush(void) {
    if (answers.sending) return;
    answers.sending = true;
    while (!answers.broken) {
        // In this order: what was said about a frame before it counted as applied goes out before its acknowledgement.
        uint64_t applied = durable_applied();
        if (workers_failed()) applied = answers.acknowledged;
        size_t size = 0;
        for (; answers.again && size + answers.again->size <= PENDING; answers.again = answers.again->next) {
            memcpy(answers.out + size, answers.again->bytes, answers.again->size);
            size += answers.again->size;
        }
        if (answers.again) applied = answers.acknowledged;
        memcpy(answers.out + size, answers.pending, answers.used);
        size += answers.used;
        answers.used = 0;
        if (applied > answers.acknowledged) {
            struct message message = {.frame = {.op = OP_APPLIED, .seq = applied}};
            message_write(&message, answers.out + size);
            size += message_size(&message);
            answers.acknowledged = applied;
        }
        if (!size) break;
        struct link *link = answers.link;
        pthread_mutex_unlock(&answers.lock);
        bool sent = link_put(link, answers.out, size);
        metrics_count(COUNT_SENT, size);
        pthread_mutex_lock(&answers.lock);
        if (!sent) answers.broken = true; // the receiving side notices
        pthread_cond_broadcast(&answers.room);
    }
    answers.sending = false;
    pthread_cond_broadcast(&answers.room);
}

void receive_acknowledge(void) {
    pthread_mutex_lock(&answers.lock);
    flush();
    pthread_mutex_unlock(&answers.lock);
}

void receive_answer(enum frame_op op, uint64_t seq, const char *text) {
    struct message message = {.frame = {.op = (uint16_t)op, .seq = seq, .size = atomic_load(&answers.work)}, .name = text};
    if (op == OP_PING) {
        message.frame.offset = metrics_percentile(TIME_PEER, 50);
        message.frame.rdev = metrics_percentile(TIME_PEER, 99);
    }
    receive_send(&message);
}

// What is cumulative, asked for again, or of no use later is not.
static bool is_kept(unsigned op) { return op != OP_APPLIED && op != OP_DONE && op != OP_DURABLE && op != OP_PING && op != OP_TROUBLE && op != OP_GOODBYE; }

void receive_send(const struct message *answer) {
    struct message message = *answer;
    size_t size = message_size(&message);
    if (size > PENDING) return;
    pthread_mutex_lock(&answers.lock);
    if (is_kept(message.frame.op)) {
        struct kept *kept = must(malloc(sizeof *kept + size));
        *kept = (struct kept){.seq = message.frame.seq, .size = size};
        message_write(&message, kept->bytes);
        *answers.kept_last = kept;
        answers.kept_last = &kept->next;
    }
    while (answers.used + size > PENDING && !answers.broken) pthread_cond_wait(&answers.room, &answers.lock);
    if (!answers.broken) {
        message_write(&message, answers.pending + answers.used);
        answers.used += size;
        flush();
    }
    pthread_mutex_unlock(&answers.lock);
}
