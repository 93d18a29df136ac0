// One ordered stream to the secondary.
//
// Order: an operation takes its place in the queue under the lock of its object, so two operations on one object arrive as they were applied here.
// Safety: in ANSWER_PEER nothing is answered before the peer has it. When the peer is lost there, whatever waits is marked dirty and held; only
// stream_alone(), stream_enter_mirror() or the end of the mount lets it go.
// Locks, outermost first: gate, inode lock, namespace_lock, stream.lock, the lock of the dirty set.
#include "stream_inside.h"
#include "activity.h"
#include "local.h"
#include "metrics.h"
#include "operations.h"
#include "resync.h"
#include "select.h"
#include "throttle.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stream stream = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER, .unsent = PTHREAD_COND_INITIALIZER, .gate = PTHREAD_RWLOCK_INITIALIZER, .bindings = 1};

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
    bool heard = true;
    if (error) {
        reply_error(request, error);
        heard = false;
    } else {
        switch (operation->kind) {
        case REPLY_STATUS: reply_error(request, 0); break;
        case REPLY_WRITE: reply_write(request, operation->written); break;
        case REPLY_ENTRY: heard = reply_entry(request, &operation->entry); break;
        case REPLY_CREATE: heard = reply_create(request, &operation->entry, &operation->file); break;
        case REPLY_ATTR: reply_attr(request, &operation->entry.attr); break;
        }
    }
    if (!heard) entry_unheard(&operation->entry, operation->opened ? &operation->file : NULL);
    free(operation);
}

void stream_settle(struct operation *operation) {
    if (atomic_fetch_sub(&operation->waits, 1) == 1) answer(operation);
}

void stream_settle_all(struct operation *list) {
    while (list) {
        struct operation *next = list->next;
        stream_settle(list);
        list = next;
    }
}

struct operation *stream_take_held(void) {
    struct operation *list = stream.held;
    stream.held = NULL;
    stream.held_last = &stream.held;
    stream.held_count = 0;
    return list;
}

// With stream.lock held. An operation wakes nobody but its own application.
void stream_tell(void) {
    if (stream.waiting) pthread_cond_broadcast(&stream.changed);
}

void stream_wait(void) {
    stream.waiting++;
    pthread_cond_wait(&stream.changed, &stream.lock);
    stream.waiting--;
}

// ---- the ring ----

void stream_append(const struct message *message) { ring_append(stream.ring, message, stream.sending); }

// With stream.lock held. The connection is made again by the thread that reads.
void stream_broke(void) {
    stream.broken = true;
    if (stream.link) link_break(stream.link);
}

// Whoever finds nobody sending sends, and goes on with what others append meanwhile: no thread stands between an operation and the wire.
void stream_flush(void) {
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
                stream_broke();
                break;
            }
            metrics_count(COUNT_SENT, (uint64_t)sent);
            ring_sent(stream.ring, (size_t)sent);
            ring_release(stream.ring, stream.applied); // it may have been answered before we came back
        }
        stream.sending = false;
        stream_tell();
    }
    pthread_mutex_unlock(&stream.lock);
}

// A resync fills the wire for minutes: whoever began to send would send for it, and an application's thread has an answer to give. Nor does
// anybody send under the lock of a file. So while one runs this thread does.
void *stream_sends(void *unused) {
    (void)unused;
    pthread_mutex_lock(&stream.lock);
    while (stream.up) {
        if (stream.sending || stream.broken || !ring_queued(stream.ring)) {
            pthread_cond_wait(&stream.unsent, &stream.lock);
            continue;
        }
        pthread_mutex_unlock(&stream.lock);
        stream_flush();
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
    while (stream.up && ring_used(stream.ring) > window) stream_wait();
    pthread_mutex_unlock(&stream.lock);
}

// With stream.lock held, before and after.
void stream_make_room(void) {
    while (stream.up && !ring_fits(stream.ring, RING_RESERVE)) {
        if (!stream.sending && !stream.broken && ring_queued(stream.ring)) {
            pthread_mutex_unlock(&stream.lock);
            stream_flush();
            pthread_mutex_lock(&stream.lock);
        } else {
            stream_wait();
        }
    }
}

_Thread_local bool stream_reading;
static _Thread_local bool tentative;

void stream_tentative(bool on) { tentative = on; }

static void append_binding(struct inode *inode, const char *path, uint16_t flags) {
    if (stream.next_id >= stream.objects) {
        struct message none = {.frame = {.op = OP_UNBIND_ALL, .seq = ++stream.seq}};
        stream_append(&none);
        stream.bindings++;
        stream.next_id = 0;
    }
    inode->remote_id = ++stream.next_id;
    inode->bound = stream.bindings;
    struct message message = {.frame = {.op = OP_BIND, .flags = flags, .seq = ++stream.seq, .id = inode->remote_id, .valid = inode->directory->index}, .name = path};
    stream_append(&message);
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
    stream_make_room();
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
    stream_make_room();
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
        stream_make_room();
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
        stream_append(message);
        metrics_count(message->frame.op == OP_WRITE ? COUNT_REPLICATED : COUNT_RESYNC, message_size(message));
    }
    // The entries of a listing travel together, and the pieces of a file go while the next one is read.
    bool piece = message->frame.op >= OP_FILE_META && message->frame.op <= OP_LIST_ENTRIES;
    bool wait = piece || (message->frame.op == OP_LIST_ENTRY && stream.up && ring_queued(stream.ring) < (256u << 10));
    if (piece) let_send();
    pthread_mutex_unlock(&stream.lock);
    if (!wait) stream_flush();
    return seq;
}

void stream_unbind(struct inode *inode) {
    pthread_mutex_lock(&stream.lock);
    // Nobody makes room for the thread that reads what makes room: the peer then keeps the object until all are unbound.
    if (inode->bound == stream.bindings && !stream_reading) stream_make_room();
    if (stream.up && inode->bound == stream.bindings && ring_fits(stream.ring, RING_RESERVE)) {
        struct message message = {.frame = {.op = OP_UNBIND, .seq = ++stream.seq, .id = inode->remote_id}};
        stream_append(&message);
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
void stream_doubt(const struct operation *operation) {
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
    if ((operation->untracked || operation->turn != stream.turns) && stream.answers != ANSWER_PEER) stream_doubt(operation);
    if (!reserved && !stream.up && stream.answers != ANSWER_HELD) {
        pthread_mutex_unlock(&stream.lock);
        return;
    }
    operation->sync = (message->frame.flags & FRAME_SYNC) != 0;
    // Whoever is no mirror yet syncs everything before it becomes one (resync.c, enter_mirror): until then nobody needs a single file on its disk.
    bool waits = stream.answers == ANSWER_PEER || stream.answers == ANSWER_SWITCHING;
    if (!waits) message->frame.flags &= (uint16_t)~FRAME_SYNC;
    bool sends = reserved && (waits || message->frame.op != OP_FSYNC);
    if (sends) {
        operation->seq = message->frame.seq = ++stream.seq;
        if (object) message->frame.id = object->remote_id;
        if (second) message->frame.id2 = second->remote_id;
        if (operation->made && message->frame.op == OP_MAKE) name_made(operation->made, message);
        stream_append(message);
        operation->since = metrics_now_us();
        metrics_count(COUNT_REPLICATED, message_size(message));
    }
    if (stream.answers == ANSWER_HELD && stream.refusing) {
        operation->refused = true;
    } else if (stream.answers == ANSWER_HELD) {
        atomic_fetch_add(&operation->waits, 1);
        *stream.held_last = operation;
        stream.held_last = &operation->next;
        stream.held_count++;
    } else if (reserved && waits) {
        atomic_fetch_add(&operation->waits, 1);
        *stream.last = operation;
        stream.last = &operation->next;
        stream.pending_count++;
    }
    bool another_sends = resync_active();
    if (sends && another_sends) let_send();
    pthread_mutex_unlock(&stream.lock);
    if (sends && !another_sends) stream_flush();
}

void operation_end(struct operation *operation, int error) {
    operation->error = error;
    activity_leave(operation->epoch);
    pthread_rwlock_unlock(&stream.gate);
    metrics_time(TIME_LOCAL, (operation->since ? operation->since : metrics_now_us()) - operation->began);
    metrics_count(COUNT_OPERATIONS, 1);
    stream_settle(operation);
}
