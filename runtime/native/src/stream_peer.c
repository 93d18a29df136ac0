// What comes back: answers, over a connection that is made again when it breaks, and how long nothing may come.
#include "stream_inside.h"
#include "activity.h"
#include "handshake.h"
#include "metrics.h"
#include "receive.h"
#include "resync.h"
#include "verify.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIAL_MS 500
#define REDIAL_MS 50
#define HEARTBEAT_MS 400
#define WORRY_MS 900 // two beats are missing

static void acknowledge(uint64_t seq, bool alone) {
    int64_t now = metrics_now_us();
    struct operation *done = NULL, **done_last = &done;
    pthread_mutex_lock(&stream.lock);
    struct operation **link = &stream.first;
    while (*link && (*link)->seq <= seq) {
        struct operation *operation = *link;
        if (alone ? operation->seq != seq : operation->sync) {
            link = &operation->next;
            continue;
        }
        metrics_time(TIME_WIRE, now - operation->since);
        *link = operation->next;
        if (stream.last == &operation->next) stream.last = link;
        operation->next = NULL;
        *done_last = operation;
        done_last = &operation->next;
        stream.pending_count--;
    }
    if (alone) {
        for (struct waiter *waiter = stream.waiters; waiter; waiter = waiter->next) {
            if (waiter->seq == seq) waiter->done = true;
        }
    } else if (seq > stream.applied) {
        stream.applied = seq;
        ring_release(stream.ring, seq);
    }
    stream.progress_at = now / 1000;
    metrics_count(COUNT_ACKNOWLEDGEMENTS, 1);
    stream_tell();
    pthread_mutex_unlock(&stream.lock);
    stream_settle_all(done);
}

static bool take_answer(const struct message *message) {
    switch (message->frame.op) {
    case OP_APPLIED: acknowledge(message->frame.seq, false); return true;
    case OP_DONE: acknowledge(message->frame.seq, true); return true;
    case OP_DURABLE:
        pthread_mutex_lock(&stream.lock);
        stream.durable = message->frame.seq;
        stream.progress_at = now_ms();
        pthread_mutex_unlock(&stream.lock);
        activity_durable(message->frame.seq);
        return true;
    case OP_PING:
        pthread_mutex_lock(&stream.lock);
        if (stream.work != message->frame.size) stream.progress_at = now_ms();
        stream.work = message->frame.size;
        metrics_peer_said(message->frame.offset, message->frame.rdev);
        pthread_mutex_unlock(&stream.lock);
        return true;
    case OP_ZONE_DIFFERS:
    case OP_LIST_DIFFERS:
    case OP_CREATED: resync_answer(message); return true;
    case OP_VERIFY_ASK:
    case OP_VERIFY_DIFFERS:
    case OP_VERIFY_SUSPECT: verify_answer(message); return true;
    case OP_GOODBYE: stream_lose("the secondary closed the connection"); return false;
    case OP_TROUBLE: {
        char reason[512];
        snprintf(reason, sizeof reason, "the secondary left: %s", message->name ? message->name : "no reason given");
        stream_lose(reason);
        return false;
    }
    default: stream_lose("the secondary sent what is no answer"); return false;
    }
}

// What is to be synced, was applied, and is not answered yet: the answer may have been lost with the connection.
static unsigned char *questions(uint64_t applied, size_t *size) {
    size_t room = 0;
    unsigned char *bytes = NULL;
    *size = 0;
    for (struct operation *operation = stream.first; operation; operation = operation->next) room += operation->sync && operation->seq <= applied;
    for (struct waiter *waiter = stream.waiters; waiter; waiter = waiter->next) room += waiter->seq <= applied;
    if (!room) return NULL;
    bytes = must(malloc(room * sizeof(struct frame)));
    struct message ask = {.frame = {.op = OP_ASK, .seq = applied}};
    for (struct operation *operation = stream.first; operation; operation = operation->next) {
        if (!operation->sync || operation->seq > applied) continue;
        ask.frame.id = operation->seq;
        message_write(&ask, bytes + *size);
        *size += sizeof ask.frame;
    }
    for (struct waiter *waiter = stream.waiters; waiter; waiter = waiter->next) {
        if (waiter->seq > applied) continue;
        ask.frame.id = waiter->seq;
        message_write(&ask, bytes + *size);
        *size += sizeof ask.frame;
    }
    return bytes;
}

// The peer goes on behind frame `applied`: everything after it is sent again.
static bool go_on(struct link *link, uint64_t applied) {
    pthread_mutex_lock(&stream.lock);
    if (!stream.up) {
        pthread_mutex_unlock(&stream.lock);
        link_close(link);
        return false;
    }
    size_t size;
    unsigned char *asked = questions(applied, &size);
    stream.link = link;
    ring_rewind(stream.ring, applied);
    stream.sending = true;
    pthread_mutex_unlock(&stream.lock);
    bool sent = link_put(link, asked, size);
    free(asked);
    pthread_mutex_lock(&stream.lock);
    stream.sending = false;
    stream.broken = !sent;
    __atomic_store_n(&stream.received_at, now_ms(), __ATOMIC_RELAXED);
    stream_tell();
    pthread_mutex_unlock(&stream.lock);
    if (sent) stream_flush();
    return true;
}

// What is made is known to whoever loses the peer, so that nobody waits for it then. False: it is lost already.
static bool making(struct link *link) {
    pthread_mutex_lock(&stream.lock);
    stream.next = link;
    bool up = stream.up;
    pthread_mutex_unlock(&stream.lock);
    return up;
}

// The connection broke: the same stream goes on over another one, as long as the silence lasts no longer than the limit (stream_watches). False: the
// peer is lost.
static bool resume(void) {
    pthread_mutex_lock(&stream.lock);
    bool up = stream.up;
    if (up) stream_broke();
    while (stream.sending) stream_wait();
    uint64_t applied = stream.applied;
    if (up) {
        link_close(stream.link);
        stream.link = NULL;
    }
    pthread_mutex_unlock(&stream.lock);
    int64_t began = now_ms();
    while (up && stream_connected()) {
        char why[256] = "";
        int fd = link_dial(stream.host, stream.port, DIAL_MS, why, sizeof why);
        if (fd < 0 && errno == ECONNREFUSED) {
            stream_lose("the secondary closed the connection");
            return false;
        }
        struct link *link = fd < 0 ? NULL : link_open(fd);
        struct peer peer = {0};
        bool resumes = link && making(link) && handshake_resume(link, stream.session, applied, &applied, &peer) == 0;
        if (link) making(NULL);
        if (resumes) {
            if (!go_on(link, applied)) return false;
            metrics_count(COUNT_RESUMED, 1);
            say("the connection to the secondary was made again after %lld ms: the stream goes on", (long long)(now_ms() - began));
            return true;
        }
        link_close(link);
        if (*peer.code && strcmp(peer.code, "unreachable") != 0) {
            stream_lose(peer.why);
            return false;
        }
        struct timespec pause = {.tv_nsec = REDIAL_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
    return false;
}

void *stream_reads(void *unused) {
    (void)unused;
    stream_reading = true;
    static unsigned char bytes[1 << 18];
    size_t used = 0;
    for (;;) {
        ssize_t n = link_receive(stream.link, bytes + used, sizeof bytes - used); // the link is changed by this thread only
        if (n <= 0) {
            if (!resume()) return NULL;
            used = 0;
            continue;
        }
        used += (size_t)n;
        metrics_count(COUNT_RECEIVED, (uint64_t)n);
        __atomic_store_n(&stream.received_at, now_ms(), __ATOMIC_RELAXED);
        size_t at = 0;
        struct message message;
        ssize_t size;
        while ((size = message_read(bytes + at, used - at, &message)) > 0) {
            if (!take_answer(&message)) return NULL;
            at += (size_t)size;
        }
        if (size < 0 || used - at == sizeof bytes) {
            stream_lose("the secondary sent a malformed frame");
            return NULL;
        }
        memmove(bytes, bytes + at, used - at);
        used -= at;
    }
}

static void *sync_main(void *unused) {
    sync_everything();
    return unused;
}

// Notices silence, and breaks it. Who goes alone has everything on this disk first, so that begins while the silence may still end: applications
// wait for the longer of the two, not for both.
void *stream_watches(void *unused) {
    (void)unused;
    int64_t beaten = 0, synced_for = 0;
    bool syncs = false;
    pthread_t sync;
    for (;;) {
        char reason[128] = "";
        metrics_sample();
        pthread_mutex_lock(&stream.lock);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        if (stream.up) pthread_cond_timedwait(&stream.ended, &stream.lock, &until);
        if (!stream.up) {
            pthread_mutex_unlock(&stream.lock);
            if (syncs) pthread_join(sync, NULL);
            return NULL;
        }
        int64_t now = now_ms(), heard = __atomic_load_n(&stream.received_at, __ATOMIC_RELAXED);
        if (stream.applied == stream.seq && !stream.waiters) stream.progress_at = now; // nothing is awaited
        if (now - heard > options.silence_timeout_ms) {
            snprintf(reason, sizeof reason, "nothing heard for %lld ms", (long long)(now - heard));
        } else if (stream.first && now - stream.first->since / 1000 > options.ack_timeout_ms) {
            snprintf(reason, sizeof reason, "no acknowledgement within %d ms", options.ack_timeout_ms);
        } else if (stream.answers != ANSWER_PEER && now - stream.progress_at > options.resync_timeout_s * 1000ll) {
            snprintf(reason, sizeof reason, "the resynchronisation made no progress for %u s", options.resync_timeout_s);
        }
        bool worries = now - heard > WORRY_MS && heard != synced_for && stream.answers == ANSWER_PEER;
        bool beat = now - beaten >= HEARTBEAT_MS && !stream.broken && ring_fits(stream.ring, RING_RESERVE);
        if (beat && !*reason) {
            struct message ping = {.frame = {.op = OP_PING, .seq = stream.seq, .id = stream.applied}};
            stream_append(&ping);
            beaten = now;
        }
        pthread_mutex_unlock(&stream.lock);
        if (*reason) stream_lose(reason);
        else if (beat) stream_flush();
        if (worries) {
            if (syncs && pthread_tryjoin_np(sync, NULL) == 0) syncs = false;
            if (!syncs) syncs = pthread_create(&sync, NULL, sync_main, NULL) == 0;
            synced_for = heard;
        }
    }
}
