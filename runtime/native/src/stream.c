// One ordered stream to the secondary.
//
// Order: an operation takes its place in the queue under the lock of its object, so two operations on one object arrive as they were applied here.
// Safety: in ANSWER_PEER nothing is answered before the peer has it. When the peer is lost there, whatever waits is marked dirty and held; only
// stream_alone(), stream_enter_mirror() or the end of the mount lets it go.
// Locks, outermost first: gate, inode lock, namespace_lock, stream.lock, the lock of the dirty set.
#include "stream.h"
#include "activity.h"
#include "events.h"
#include "handshake.h"
#include "link.h"
#include "local.h"
#include "metrics.h"
#include "receive.h"
#include "resync.h"
#include "ring.h"
#include "select.h"
#include "state.h"
#include "takeover.h"
#include "throttle.h"
#include "verify.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RING_SIZE (16u << 20)
#define DIAL_MS 500
#define REDIAL_MS 50
#define GOODBYE_BEHIND 8192u
#define BINDING_LIMIT 16384u
#define HEARTBEAT_MS 400
#define WORRY_MS 900 // two beats are missing
#define RESYNC_SILENCE_MS 60000

struct waiter {
    struct waiter *next;
    uint64_t seq;
    bool done;
};

static struct {
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
} stream = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER, .unsent = PTHREAD_COND_INITIALIZER, .gate = PTHREAD_RWLOCK_INITIALIZER, .bindings = 1};

__attribute__((constructor)) static void stream_prepare(void) {
    stream.last = &stream.first;
    stream.held_last = &stream.held;
    pthread_rwlockattr_t fair;
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&stream.gate, &fair);
    pthread_rwlockattr_destroy(&fair);
}

// ---- answers to applications ----

static void answer(struct operation *operation) {
    int error = operation->refused ? EIO : operation->error;
    throttle_latency(metrics_now_us() - operation->began, operation->sync);
    const struct fuse_request *request = &operation->request;
    if (error) {
        reply_error(request, error);
    } else {
        switch (operation->kind) {
        case REPLY_STATUS: reply_error(request, 0); break;
        case REPLY_WRITE: reply_write(request, operation->written); break;
        case REPLY_ENTRY: reply_entry(request, &operation->entry); break;
        case REPLY_CREATE: reply_create(request, &operation->entry, &operation->file); break;
        case REPLY_ATTR: reply_attr(request, &operation->entry.attr); break;
        }
    }
    free(operation);
}

static void settle(struct operation *operation) {
    if (atomic_fetch_sub(&operation->waits, 1) == 1) answer(operation);
}

static void settle_list(struct operation *list) {
    while (list) {
        struct operation *next = list->next;
        settle(list);
        list = next;
    }
}

static struct operation *take_held(void) {
    struct operation *list = stream.held;
    stream.held = NULL;
    stream.held_last = &stream.held;
    stream.held_count = 0;
    return list;
}

// With stream.lock held. An operation wakes nobody but its own application.
static void tell_waiting(void) {
    if (stream.waiting) pthread_cond_broadcast(&stream.changed);
}

static void wait_changed(void) {
    stream.waiting++;
    pthread_cond_wait(&stream.changed, &stream.lock);
    stream.waiting--;
}

// ---- the ring ----

static void append(const struct message *message) { ring_append(stream.ring, message, stream.sending); }

// With stream.lock held. The connection is made again by the thread that reads.
static void connection_broke(void) {
    stream.broken = true;
    if (stream.link) link_break(stream.link);
}

// Whoever finds nobody sending sends, and goes on with what others append meanwhile: no thread stands between an operation and the wire.
static void flush_queue(void) {
    pthread_mutex_lock(&stream.lock);
    if (!stream.sending && stream.up && !stream.broken) {
        const unsigned char *bytes;
        size_t size;
        stream.sending = true;
        while (stream.up && !stream.broken && (size = ring_unsent(stream.ring, &bytes)) > 0) {
            struct link *link = stream.link;
            pthread_mutex_unlock(&stream.lock);
            ssize_t sent = link_send(link, bytes, size);
            pthread_mutex_lock(&stream.lock);
            if (sent < 0) {
                connection_broke();
                break;
            }
            metrics_count(COUNT_SENT, (uint64_t)sent);
            ring_sent(stream.ring, (size_t)sent);
            ring_release(stream.ring, stream.applied); // it may have been answered before we came back
        }
        stream.sending = false;
        tell_waiting();
    }
    pthread_mutex_unlock(&stream.lock);
}

// A resync fills the wire for minutes: whoever began to send would send for it, and an application's thread has an answer to give. Nor does
// anybody send under the lock of a file. So while one runs this thread does.
static void *sender_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&stream.lock);
    while (stream.up) {
        if (stream.sending || stream.broken || !ring_queued(stream.ring)) {
            pthread_cond_wait(&stream.unsent, &stream.lock);
            continue;
        }
        pthread_mutex_unlock(&stream.lock);
        flush_queue();
        pthread_mutex_lock(&stream.lock);
    }
    pthread_mutex_unlock(&stream.lock);
    return NULL;
}

// With stream.lock held. Whoever sends already goes on with what was appended.
static void let_send(void) {
    if (!stream.sending) pthread_cond_signal(&stream.unsent);
}

void stream_wait_window(size_t window) {
    pthread_mutex_lock(&stream.lock);
    while (stream.up && ring_used(stream.ring) > window) wait_changed();
    pthread_mutex_unlock(&stream.lock);
}

// With stream.lock held, before and after.
static void make_room(void) {
    while (stream.up && !ring_fits(stream.ring, RING_RESERVE)) {
        if (!stream.sending && !stream.broken && ring_queued(stream.ring)) {
            pthread_mutex_unlock(&stream.lock);
            flush_queue();
            pthread_mutex_lock(&stream.lock);
        } else {
            wait_changed();
        }
    }
}

static _Thread_local bool tentative;

void stream_tentative(bool on) { tentative = on; }

static void append_binding(struct inode *inode, const char *path, uint16_t flags) {
    if (stream.next_id >= stream.objects) {
        struct message none = {.frame = {.op = OP_UNBIND_ALL, .seq = ++stream.seq}};
        append(&none);
        stream.bindings++;
        stream.next_id = 0;
    }
    inode->remote_id = ++stream.next_id;
    inode->bound = stream.bindings;
    struct message message = {.frame = {.op = OP_BIND, .flags = flags, .seq = ++stream.seq, .id = inode->remote_id, .valid = inode->directory->index}, .name = path};
    append(&message);
}

// With stream.lock held. What is made has its number from the beginning: its first write need not look for its path.
static void name_made(struct inode *made, struct message *message) {
    if (stream.next_id >= stream.objects) return; // the next one who binds begins again
    message->frame.id2 = made->remote_id = ++stream.next_id;
    made->bound = stream.bindings;
}

bool stream_bind_unnamed(struct inode *inode) {
    pthread_rwlock_rdlock(&namespace_lock);
    pthread_mutex_lock(&stream.lock);
    make_room();
    bool up = stream.up;
    if (up) append_binding(inode, NULL, FRAME_UNNAMED);
    pthread_mutex_unlock(&stream.lock);
    pthread_rwlock_unlock(&namespace_lock);
    return up;
}

bool stream_is_bound(struct inode *inode) {
    pthread_mutex_lock(&stream.lock);
    bool bound = inode->bound == stream.bindings;
    pthread_mutex_unlock(&stream.lock);
    return bound;
}

static void bind_object(struct inode *inode, bool named) {
    bool resync = resync_active();
    if (!named) {
        if (resync) pthread_rwlock_wrlock(&namespace_lock);
        else pthread_rwlock_rdlock(&namespace_lock);
    }
    char *path = inode_path(inode);
    int error = errno;
    if (path && resync) resync_ensure_parents(inode->directory, path);
    pthread_mutex_lock(&stream.lock);
    make_room();
    if (path && stream.up && inode->bound != stream.bindings) {
        append_binding(inode, path, tentative ? FRAME_TENTATIVE : 0);
    }
    pthread_mutex_unlock(&stream.lock);
    if (!named) pthread_rwlock_unlock(&namespace_lock);
    struct stat st;
    if (!path && (error != ENOENT || (local_stat(inode->fd, &st) == 0 && st.st_nlink > 0 && !select_orphan(inode)))) {
        // Only what has no name any more may be left out. In doubt the peer is out, not the data.
        say("an object cannot be named to the peer: %s", strerror(error));
        stream_lose("an object cannot be named to it");
    }
    free(path);
}

// With stream.lock held when it returns true. False (unlocked): no peer, or the object has no name any more and matters to nobody else.
static bool reserve(struct inode *object, struct inode *second, bool named) {
    bool excluded = (object && select_inode(object)) || (second && select_inode(second));
    for (int attempts = 0;; attempts++) {
        pthread_mutex_lock(&stream.lock);
        make_room();
        if (!stream.up || excluded) return false;
        bool first_bound = !object || object->bound == stream.bindings;
        if (first_bound && (!second || second->bound == stream.bindings)) return true;
        if (attempts > 4) return false;
        pthread_mutex_unlock(&stream.lock);
        if (!first_bound) bind_object(object, named);
        else bind_object(second, named);
    }
}

uint64_t stream_send(struct message *message, struct inode *object, bool named) {
    uint64_t seq = 0;
    if (reserve(object, NULL, named)) {
        seq = message->frame.seq = ++stream.seq;
        if (object) message->frame.id = object->remote_id;
        append(message);
        metrics_count(message->frame.op == OP_WRITE ? COUNT_REPLICATED : COUNT_RESYNC, message_size(message));
    }
    // The entries of a listing travel together, and the pieces of a file go while the next one is read.
    bool piece = message->frame.op >= OP_FILE_META && message->frame.op <= OP_LIST_ENTRIES;
    bool wait = piece || (message->frame.op == OP_LIST_ENTRY && stream.up && ring_queued(stream.ring) < (256u << 10));
    if (piece) let_send();
    pthread_mutex_unlock(&stream.lock);
    if (!wait) flush_queue();
    return seq;
}

void stream_unbind(struct inode *inode) {
    pthread_mutex_lock(&stream.lock);
    if (inode->bound == stream.bindings) make_room();
    if (stream.up && inode->bound == stream.bindings) {
        struct message message = {.frame = {.op = OP_UNBIND, .seq = ++stream.seq, .id = inode->remote_id}};
        append(&message);
        inode->bound = 0;
    }
    pthread_mutex_unlock(&stream.lock);
}

// ---- operations ----

struct operation *operation_begin(const struct fuse_request *request, enum reply_kind kind) {
    struct operation *operation = must(calloc(1, sizeof *operation));
    operation->request = *request;
    operation->kind = kind;
    operation->began = metrics_now_us();
    atomic_init(&operation->waits, 1);
    pthread_rwlock_rdlock(&stream.gate);
    operation->epoch = activity_enter();
    return operation;
}

// `at`: the object, or with `inside` the directory that holds it. Before the modification begins it is in the activity log, and out of the mirror in
// the dirty set.
static void touches(struct operation *operation, struct touch touch, struct inode *at, bool inside) {
    if (operation->marks < OPERATION_MARKS) operation->touch[operation->marks++] = touch;
    // What is excluded is not marked, but the operation remembers it: it may be moved to what is replicated before the operation gets its lock.
    if (!inside && select_inode(at)) return;
    bool hot = activity_is_hot(&touch, operation->epoch), mirror;
    pthread_mutex_lock(&stream.lock);
    mirror = stream.answers == ANSWER_PEER;
    unsigned turn = stream.turns;
    pthread_mutex_unlock(&stream.lock);
    bool unknown = !mirror && dirty_touch(&touch);
    operation->untracked = operation->untracked || mirror;
    if (operation->marks == 1) operation->turn = turn;
    if (hot && !unknown) return;
    struct place place;
    int error = inode_place(at, &place);
    struct place *known = error ? NULL : &place;
    if (unknown && error != ENOENT) dirty_place(known);
    if (!hot) activity_heat(&touch, operation->epoch, inside, error == ENOENT ? &(struct place){.size = HANDLE_LIMIT + 1} : known);
}

void operation_touches_inode(struct operation *operation, struct inode *inode, uint32_t flags) {
    touches(operation, (struct touch){inode->directory->index, flags, inode_key(inode), 0, 0}, inode, false);
}

void operation_touches_range(struct operation *operation, struct inode *inode, off_t offset, off_t size) {
    struct touch touch = {inode->directory->index, MARK_META, inode_key(inode), (uint64_t)offset, size > 0 ? (uint64_t)size : UINT64_MAX - (uint64_t)offset};
    touches(operation, touch, inode, false);
}

void operation_touches_entry(struct operation *operation, struct inode *parent, uint64_t key, uint32_t flags) {
    touches(operation, (struct touch){parent->directory->index, flags, key, 0, 0}, parent, true);
}

// Remembers what an operation touched, of which the peer may have seen all or nothing. Where it lies the activity log has said.
static void doubt(const struct operation *operation) {
    bool unknown = false;
    for (unsigned i = 0; i < operation->marks; i++) unknown = dirty_touch(&operation->touch[i]) || unknown;
    if (unknown) dirty_admit_places();
}

void operation_changes_list(struct operation *operation, struct inode *parent) {
    operation_touches_inode(operation, parent, MARK_LIST | MARK_META);
    operation_lists(parent);
}

// Binding lists the directories above, and only then it is known whether this one must be listed.
void operation_lists(struct inode *directory) {
    if (!resync_active() || select_inode(directory)) return;
    operation_binds(directory, NULL);
    resync_ensure_listed(directory);
}

// With namespace_lock held for writing nobody else can bind, so what is bound here stays so until the change was shipped.
void operation_binds(struct inode *object, struct inode *second) {
    reserve(object, second, true);
    pthread_mutex_unlock(&stream.lock);
}

void operation_ship(struct operation *operation, struct message *message, struct inode *object, struct inode *second, bool named) {
    if (!select_ships(message, &object, &second)) return;
    bool reserved = reserve(object, second, named);
    // It began in mirror, and the mirror has ended since.
    if ((operation->untracked || operation->turn != stream.turns) && stream.answers != ANSWER_PEER) doubt(operation);
    if (!reserved && !stream.up && stream.answers != ANSWER_HELD) {
        pthread_mutex_unlock(&stream.lock);
        return;
    }
    if (reserved) {
        operation->seq = message->frame.seq = ++stream.seq;
        if (object) message->frame.id = object->remote_id;
        if (second) message->frame.id2 = second->remote_id;
        if (operation->made && message->frame.op == OP_MAKE) name_made(operation->made, message);
        append(message);
        operation->since = metrics_now_us();
        metrics_count(COUNT_REPLICATED, message_size(message));
    }
    operation->sync = (message->frame.flags & FRAME_SYNC) != 0;
    if (stream.answers == ANSWER_HELD && stream.refusing) {
        operation->refused = true;
    } else if (stream.answers == ANSWER_HELD) {
        atomic_fetch_add(&operation->waits, 1);
        *stream.held_last = operation;
        stream.held_last = &operation->next;
        stream.held_count++;
    } else if (reserved && (stream.answers == ANSWER_PEER || stream.answers == ANSWER_SWITCHING)) {
        atomic_fetch_add(&operation->waits, 1);
        *stream.last = operation;
        stream.last = &operation->next;
        stream.pending_count++;
    }
    bool another_sends = resync_active();
    if (reserved && another_sends) let_send();
    pthread_mutex_unlock(&stream.lock);
    if (reserved && !another_sends) flush_queue();
}

void operation_end(struct operation *operation, int error) {
    operation->error = error;
    activity_leave(operation->epoch);
    pthread_rwlock_unlock(&stream.gate);
    metrics_time(TIME_LOCAL, (operation->since ? operation->since : metrics_now_us()) - operation->began);
    metrics_count(COUNT_OPERATIONS, 1);
    settle(operation);
}

// ---- answers of the peer ----

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
    tell_waiting();
    pthread_mutex_unlock(&stream.lock);
    settle_list(done);
}

static bool take_answer(const struct message *message) {
    switch (message->frame.op) {
    case OP_APPLIED: acknowledge(message->frame.seq, false); return true;
    case OP_DONE: acknowledge(message->frame.seq, true); return true;
    case OP_DURABLE:
        pthread_mutex_lock(&stream.lock);
        stream.durable = message->frame.seq;
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
    tell_waiting();
    pthread_mutex_unlock(&stream.lock);
    if (sent) flush_queue();
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

// The connection broke: the same stream goes on over another one, as long as the silence lasts no longer than the limit (watch_main). False: the
// peer is lost.
static bool resume(void) {
    pthread_mutex_lock(&stream.lock);
    bool up = stream.up;
    if (up) connection_broke();
    while (stream.sending) wait_changed();
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

static void *reader_main(void *unused) {
    (void)unused;
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
static void *watch_main(void *unused) {
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
        if (now - heard > options.silence_timeout_ms) {
            snprintf(reason, sizeof reason, "nothing heard for %lld ms", (long long)(now - heard));
        } else if (stream.first && now - stream.first->since / 1000 > options.ack_timeout_ms) {
            snprintf(reason, sizeof reason, "no acknowledgement within %d ms", options.ack_timeout_ms);
        } else if (stream.applied < stream.seq && resync_active() && now - stream.progress_at > RESYNC_SILENCE_MS) {
            snprintf(reason, sizeof reason, "the resynchronisation made no progress for %d s", RESYNC_SILENCE_MS / 1000);
        }
        bool worries = now - heard > WORRY_MS && heard != synced_for && stream.answers == ANSWER_PEER;
        bool beat = now - beaten >= HEARTBEAT_MS && !stream.broken && ring_fits(stream.ring, RING_RESERVE);
        if (beat && !*reason) {
            struct message ping = {.frame = {.op = OP_PING, .seq = stream.seq, .id = stream.applied}};
            append(&ping);
            beaten = now;
        }
        pthread_mutex_unlock(&stream.lock);
        if (*reason) stream_lose(reason);
        else if (beat) flush_queue();
        if (worries) {
            if (syncs && pthread_tryjoin_np(sync, NULL) == 0) syncs = false;
            if (!syncs) syncs = pthread_create(&sync, NULL, sync_main, NULL) == 0;
            synced_for = heard;
        }
    }
}

// ---- the life of a connection ----

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
    if (pthread_create(&stream.reader, NULL, reader_main, NULL) || pthread_create(&stream.watch, NULL, watch_main, NULL) ||
        pthread_create(&stream.sender, NULL, sender_main, NULL))
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
    for (struct operation *operation = waiting; operation; operation = operation->next) doubt(operation);
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
    tell_waiting();
    pthread_cond_broadcast(&stream.ended);
    pthread_cond_broadcast(&stream.unsent);
    pthread_mutex_unlock(&stream.lock);
    resync_cancel();
    verify_lost();
    settle_list(released);
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
        append(&goodbye);
    }
    pthread_mutex_unlock(&stream.lock);
    if (says) flush_queue();
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
    while (stream.sending) wait_changed();
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
        held = take_held();
        dirty_restart();
        stream.turns++;
        activity_mode(ACTIVITY_MIRROR);
    }
    pthread_mutex_unlock(&stream.lock);
    settle_list(held);
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
        held = take_held();
    }
    pthread_mutex_unlock(&stream.lock);
    settle_list(held);
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
    struct operation *held = take_held();
    for (struct operation *operation = held; operation; operation = operation->next) operation->refused = true;
    pthread_mutex_unlock(&stream.lock);
    settle_list(held);
}

void stream_abandon(void) {
    pthread_mutex_lock(&stream.lock);
    struct operation *held = take_held();
    takeover_note_mirror(false);
    stream.answers = ANSWER_LOCAL;
    pthread_mutex_unlock(&stream.lock);
    while (held) {
        struct operation *next = held->next;
        held->error = EIO;
        settle(held);
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
    make_room();
    waiter.seq = message.frame.seq = ++stream.seq;
    waiter.next = stream.waiters;
    stream.waiters = &waiter;
    append(&message);
    pthread_mutex_unlock(&stream.lock);
    flush_queue();
    pthread_mutex_lock(&stream.lock);
    while (stream.up && !waiter.done) wait_changed();
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
