// What the secondary says. Whoever finds nobody sending sends, and goes on with what others add meanwhile; acknowledgements are cumulative, so
// those that meet become one.
#include "receive.h"
#include "metrics.h"
#include "workers.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PENDING (64u << 10)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t room;
    int fd;
    bool sending, broken;
    uint64_t acknowledged;
    size_t used;
    unsigned char pending[PENDING], out[PENDING + sizeof(struct frame)];
    atomic_ullong work;
} answers = {.lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER, .fd = -1};

void receive_worked(void) { atomic_fetch_add_explicit(&answers.work, 1, memory_order_relaxed); }

void answers_begin(int fd) {
    pthread_mutex_lock(&answers.lock);
    answers.fd = fd;
    answers.broken = false;
    answers.acknowledged = 0;
    answers.used = 0;
    pthread_mutex_unlock(&answers.lock);
}

static bool send_all(int fd, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false; // the receiving side notices
        metrics_count(COUNT_SENT, (uint64_t)n);
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

// With the lock held.
static void flush(void) {
    if (answers.sending) return;
    answers.sending = true;
    while (!answers.broken) {
        // In this order: what was said about a frame before it counted as applied goes out before its acknowledgement.
        uint64_t applied = durable_applied();
        if (workers_failed()) applied = answers.acknowledged;
        size_t size = answers.used;
        memcpy(answers.out, answers.pending, size);
        answers.used = 0;
        if (applied > answers.acknowledged) {
            struct message message = {.frame = {.op = OP_APPLIED, .seq = applied}};
            message_write(&message, answers.out + size);
            size += message_size(&message);
            answers.acknowledged = applied;
        }
        if (!size) break;
        int fd = answers.fd;
        pthread_mutex_unlock(&answers.lock);
        bool sent = send_all(fd, answers.out, size);
        pthread_mutex_lock(&answers.lock);
        if (!sent) answers.broken = true;
        pthread_cond_broadcast(&answers.room);
    }
    answers.sending = false;
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

void receive_send(const struct message *answer) {
    struct message message = *answer;
    size_t size = message_size(&message);
    if (size > PENDING) return;
    pthread_mutex_lock(&answers.lock);
    while (answers.used + size > PENDING && !answers.broken) pthread_cond_wait(&answers.room, &answers.lock);
    if (!answers.broken) {
        message_write(&message, answers.pending + answers.used);
        answers.used += size;
        flush();
    }
    pthread_mutex_unlock(&answers.lock);
}
