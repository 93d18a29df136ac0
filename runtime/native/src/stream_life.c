// When a stream begins and ends, who is answered by whom then, and what waits for a place in it.
#include "stream_inside.h"
#include "activity.h"
#include "events.h"
#include "resync.h"
#include "takeover.h"
#include "verify.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define RING_SIZE (16u << 20)
#define GOODBYE_BEHIND 8192u
#define BINDING_LIMIT 16384u

bool stream_connected(void) {
    pthread_mutex_lock(&stream.lock);
    bool up = stream.up;
    pthread_mutex_unlock(&stream.lock);
    return up;
}

enum answers stream_answers(void) {
    pthread_mutex_lock(&stream.lock);
    enum answers answers = stream.answers;
    pthread_mutex_unlock(&stream.lock);
    return answers;
}

int stream_start(struct link *link, const char *host, const char *port, const struct peer *peer) {
    pthread_rwlock_wrlock(&stream.gate);
    pthread_mutex_lock(&stream.lock);
    stream.link = link;
    stream.broken = false;
    if (!stream.ring) stream.ring = ring_create(RING_SIZE);
    ring_reset(stream.ring);
    snprintf(stream.host, sizeof stream.host, "%s", host);
    snprintf(stream.port, sizeof stream.port, "%s", port);
    snprintf(stream.session, sizeof stream.session, "%s", peer->session);
    stream.objects = peer->objects < 16 ? 16 : peer->objects > BINDING_LIMIT ? BINDING_LIMIT : peer->objects;
    stream.seq = stream.applied = stream.durable = stream.next_id = stream.work = 0;
    stream.bindings++;
    stream.received_at = stream.progress_at = now_ms();
    snprintf(stream.address, sizeof stream.address, "%.64s:%.16s", host, port);
    snprintf(stream.peer_generation, sizeof stream.peer_generation, "%s", peer->generation);
    takeover_note_connected(true);
    stream.up = stream.threads = true;
    pthread_mutex_unlock(&stream.lock);
    resync_arm();
    pthread_rwlock_unlock(&stream.gate);
    if (pthread_create(&stream.reader, NULL, stream_reads, NULL) || pthread_create(&stream.watch, NULL, stream_watches, NULL) ||
        pthread_create(&stream.sender, NULL, stream_sends, NULL))
        abort();
    return 0;
}

static void lose(const char *reason, bool on_purpose) {
    pthread_mutex_lock(&stream.lock);
    if (!stream.up) {
        pthread_mutex_unlock(&stream.lock);
        return;
    }
    takeover_note_connected(false);
    stream.up = false;
    if (stream.link) link_break(stream.link);
    if (stream.next) link_break(stream.next);
    bool was_mirror = stream.answers == ANSWER_PEER;
    if (was_mirror) stream.answers = ANSWER_HELD;
    if (stream.answers == ANSWER_SWITCHING) stream.answers = stream.switching_from;
    // What waited for the peer may be there or not: it differs until it was compared.
    struct operation *waiting = stream.first, *released = NULL;
    if (stream.answers != ANSWER_PEER) activity_mode(ACTIVITY_ALONE);
    if (was_mirror) {
        dirty_track();
        activity_doubt();
    }
    for (struct operation *operation = waiting; operation; operation = operation->next) stream_doubt(operation);
    for (struct operation *operation = waiting; stream.refusing && operation; operation = operation->next) operation->refused = stream.answers == ANSWER_HELD;
    if (waiting && stream.answers == ANSWER_HELD && !stream.refusing) {
        *stream.held_last = waiting;
        stream.held_last = stream.last;
        stream.held_count += stream.pending_count;
    } else {
        released = waiting;
    }
    stream.first = NULL;
    stream.last = &stream.first;
    stream.pending_count = 0;
    bool held = stream.answers == ANSWER_HELD;
    stream_tell();
    pthread_cond_broadcast(&stream.ended);
    pthread_cond_broadcast(&stream.unsent);
    pthread_mutex_unlock(&stream.lock);
    resync_cancel();
    verify_lost();
    stream_settle_all(released);
    if (on_purpose) return;
    say("peer lost: %s%s", reason, held ? "; answers are held" : "");
    event_send("peer_lost", "reason", reason, "held", held ? "yes" : "no", (char *)NULL);
}

void stream_lose(const char *reason) { lose(reason, false); }

// So that the secondary does not wait for another connection.
static void say_goodbye(void) {
    pthread_mutex_lock(&stream.lock);
    bool says = stream.up && !stream.broken && ring_used(stream.ring) < GOODBYE_BEHIND; // else it might wait for a peer that does not listen
    if (says) {
        struct message goodbye = {.frame = {.op = OP_GOODBYE, .seq = stream.seq}};
        stream_append(&goodbye);
    }
    pthread_mutex_unlock(&stream.lock);
    if (says) stream_flush();
}

void stream_leave(void) {
    say_goodbye();
    lose("", true);
}

void stream_dismiss(const char *reason) {
    say_goodbye();
    lose(reason, false);
}

void stream_stop(void) {
    if (!stream.threads) return;
    pthread_join(stream.reader, NULL);
    pthread_join(stream.watch, NULL);
    pthread_join(stream.sender, NULL);
    resync_join();
    verify_join();
    pthread_mutex_lock(&stream.lock);
    while (stream.sending) stream_wait();
    link_close(stream.link);
    stream.link = NULL;
    stream.threads = false;
    pthread_mutex_unlock(&stream.lock);
}

bool stream_switch(void) {
    pthread_mutex_lock(&stream.lock);
    bool up = stream.up;
    if (up) {
        stream.switching_from = stream.answers;
        stream.answers = ANSWER_SWITCHING;
        activity_mode(ACTIVITY_SWITCHING);
    }
    pthread_mutex_unlock(&stream.lock);
    return up;
}

bool stream_enter_mirror(void) {
    pthread_mutex_lock(&stream.lock);
    bool up = stream.up;
    struct operation *held = NULL;
    if (up) {
        takeover_note_mirror(true);
        stream.answers = ANSWER_PEER;
        held = stream_take_held();
        dirty_restart();
        stream.turns++;
        activity_mode(ACTIVITY_MIRROR);
    }
    pthread_mutex_unlock(&stream.lock);
    stream_settle_all(held);
    return up;
}

bool stream_between_operations(void (*work)(void)) {
    pthread_rwlock_wrlock(&stream.gate);
    pthread_mutex_lock(&stream.lock);
    bool idle = !stream.up && stream.answers == ANSWER_LOCAL;
    pthread_mutex_unlock(&stream.lock);
    if (idle) work();
    pthread_rwlock_unlock(&stream.gate);
    return idle;
}

int stream_alone(void) {
    pthread_mutex_lock(&stream.lock);
    struct operation *held = NULL;
    int error = 0;
    if (stream.answers == ANSWER_PEER) {
        error = EBUSY;
    } else {
        takeover_note_mirror(false);
        if (stream.answers == ANSWER_HELD) stream.answers = ANSWER_LOCAL;
        else stream.switching_from = ANSWER_LOCAL;
        held = stream_take_held();
    }
    pthread_mutex_unlock(&stream.lock);
    stream_settle_all(held);
    return error;
}

void stream_take_over(bool held) {
    pthread_mutex_lock(&stream.lock);
    if (held) stream.answers = ANSWER_HELD;
    pthread_mutex_unlock(&stream.lock);
}

void stream_refuse(void) {
    pthread_mutex_lock(&stream.lock);
    stream.refusing = true;
    struct operation *held = stream_take_held();
    for (struct operation *operation = held; operation; operation = operation->next) operation->refused = true;
    pthread_mutex_unlock(&stream.lock);
    stream_settle_all(held);
}

void stream_abandon(void) {
    pthread_mutex_lock(&stream.lock);
    struct operation *held = stream_take_held();
    takeover_note_mirror(false);
    stream.answers = ANSWER_LOCAL;
    pthread_mutex_unlock(&stream.lock);
    while (held) {
        struct operation *next = held->next;
        held->error = EIO;
        stream_settle(held);
        held = next;
    }
}

void stream_get_status(struct stream_status *status) {
    pthread_mutex_lock(&stream.lock);
    status->peer = stream.up ? (stream.answers == ANSWER_PEER ? "mirror" : "resync") : (stream.answers == ANSWER_HELD ? "lost" : "none");
    snprintf(status->address, sizeof status->address, "%s", stream.up ? stream.address : "");
    snprintf(status->peer_generation, sizeof status->peer_generation, "%s", stream.up ? stream.peer_generation : "");
    status->held = stream.held_count;
    status->pending = stream.pending_count;
    status->queued = stream.ring ? ring_used(stream.ring) : 0;
    status->applied = stream.applied;
    status->durable = stream.durable;
    pthread_mutex_unlock(&stream.lock);
}

bool stream_wait_applied(uint64_t seq, int timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (timeout_ms % 1000) * 1000000L;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&stream.lock);
    int error = 0;
    stream.waiting++;
    while (stream.up && stream.applied < seq && !resync_has_answers() && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&stream.changed, &stream.lock, &until);
    stream.waiting--;
    bool applied = stream.up && stream.applied >= seq;
    pthread_mutex_unlock(&stream.lock);
    return applied;
}

int stream_barrier(enum barrier barrier, const char *text) {
    struct waiter waiter = {0};
    struct message message = {.frame = {.op = OP_BARRIER, .flags = FRAME_SYNC, .valid = barrier}, .name = text};
    pthread_mutex_lock(&stream.lock);
    if (!stream.up) {
        pthread_mutex_unlock(&stream.lock);
        return ENOTCONN;
    }
    stream_make_room();
    waiter.seq = message.frame.seq = ++stream.seq;
    waiter.next = stream.waiters;
    stream.waiters = &waiter;
    stream_append(&message);
    pthread_mutex_unlock(&stream.lock);
    stream_flush();
    pthread_mutex_lock(&stream.lock);
    while (stream.up && !waiter.done) stream_wait();
    struct waiter **link = &stream.waiters;
    while (*link != &waiter) link = &(*link)->next;
    *link = waiter.next;
    pthread_mutex_unlock(&stream.lock);
    return waiter.done ? 0 : ENOTCONN;
}

uint64_t stream_sequence(void) {
    pthread_mutex_lock(&stream.lock);
    uint64_t seq = stream.seq;
    pthread_mutex_unlock(&stream.lock);
    return seq;
}
