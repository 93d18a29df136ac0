// One connection at a time; one thread applies, so that the order of the stream is the order of the tree. What must be durable before it is
// answered is handed to helpers, and the stream goes on behind it.
#include "receive.h"
#include "crossing.h"
#include "events.h"
#include "handshake.h"
#include "local.h"
#include "select.h"
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OBJECTS 16385
#define BUFFER_SIZE (4u << 20)
#define HEARTBEAT_MS 400
#define FLUSH_MS 1000
#define FLUSH_BYTES (64u << 20)
#define ACK_EVERY 32
#define HELPERS 2

struct object {
    int path, file; // descriptors, 0: none
    unsigned directory;
};

struct synced {
    struct synced *next;
    uint64_t seq;
    int file;         // own descriptor; -1: everything
    bool data_only;
    uint32_t barrier; // enum barrier, 0: none
    char text[GENERATION_SIZE];
};

static struct {
    pthread_mutex_t lock; // sync queue, session flags
    pthread_cond_t changed;
    pthread_mutex_t send_lock;
    bool running, connected, ending, handover, mirror, reset;
    int listener, fd, wake[2];
    char address[96], peer_generation[GENERATION_SIZE];
    struct object object[OBJECTS];
    struct synced *synced, **synced_last;
    unsigned syncing;
    atomic_ullong applied, durable, work, unflushed;
    pthread_t acceptor;
} receive = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .send_lock = PTHREAD_MUTEX_INITIALIZER, .listener = -1, .fd = -1, .synced_last = &receive.synced};

void receive_worked(void) { atomic_fetch_add(&receive.work, 1); }

void receive_answer(enum frame_op op, uint64_t seq, const char *text) {
    struct message message = {.frame = {.op = (uint16_t)op, .seq = seq, .size = atomic_load(&receive.work)}, .name = text};
    unsigned char bytes[sizeof(struct frame) + 600];
    size_t size = message_size(&message);
    if (size > sizeof bytes) return;
    message_write(&message, bytes);
    pthread_mutex_lock(&receive.send_lock);
    for (size_t at = 0; at < size;) {
        ssize_t n = send(receive.fd, bytes + at, size - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break; // the receiving side notices
        at += (size_t)n;
    }
    pthread_mutex_unlock(&receive.send_lock);
}

// ---- objects ----

static void object_drop(uint64_t id) {
    if (!id || id >= OBJECTS) return;
    struct object *object = &receive.object[id];
    if (object->path) close(object->path);
    if (object->file) close(object->file);
    *object = (struct object){0};
}

int receive_object(uint64_t id) { return id && id < OBJECTS && receive.object[id].path ? receive.object[id].path : -1; }

int receive_file(uint64_t id, int *error) {
    int path = receive_object(id);
    if (path < 0) {
        *error = ESTALE;
        return -1;
    }
    struct object *object = &receive.object[id];
    if (!object->file) {
        int file = local_reopen(path, O_RDWR | O_NOATIME);
        if (file < 0) {
            *error = errno;
            return -1;
        }
        object->file = file;
    }
    return object->file;
}

// Component by component: no symbolic link on the way is followed.
static int bind_object(const struct message *message) {
    const struct frame *frame = &message->frame;
    if (!frame->id || frame->id >= OBJECTS || frame->valid >= options.directories) return EPROTO;
    if (message->name && !path_is_inside(message->name)) return EPROTO;
    object_drop(frame->id);
    const struct directory *directory = &options.directory[frame->valid];
    bool unnamed = frame->flags & FRAME_UNNAMED;
    int at = unnamed ? crossing_open_unnamed(directory) : openat(directory->root, ".", O_PATH | O_CLOEXEC);
    const char *path = message->name ? message->name : "";
    while (at >= 0 && *path) {
        char name[256];
        size_t size = strcspn(path, "/");
        if (size >= sizeof name) {
            close(at);
            return ENAMETOOLONG;
        }
        memcpy(name, path, size);
        name[size] = 0;
        path += size + (path[size] == '/');
        int below = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(at);
        at = below;
        errno = error;
    }
    struct stat st;
    if (at < 0) return errno;
    if (message->name && select_configured(directory) && (local_stat(at, &st) || select_excludes_path(directory, message->name, st.st_mode))) {
        close(at); // ours alone
        return EXDEV;
    }
    receive.object[frame->id] = (struct object){.path = at, .directory = frame->valid};
    return 0;
}

// ---- durability ----

static void sync_later(struct synced synced) {
    struct synced *one = must(malloc(sizeof *one));
    *one = synced;
    pthread_mutex_lock(&receive.lock);
    *receive.synced_last = one;
    receive.synced_last = &one->next;
    pthread_cond_broadcast(&receive.changed);
    pthread_mutex_unlock(&receive.lock);
}

static int sync_everything(void) {
    int error = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        if (syncfs(options.directory[i].root)) error = errno;
    }
    return error;
}

static int reach_barrier(const struct synced *synced) {
    int error = 0;
    pthread_mutex_lock(&state_lock);
    if (synced->barrier == BARRIER_MIRROR) {
        snprintf(state.base, sizeof state.base, "%.32s", synced->text);
        state.inconsistent = false;
        state.exact = true;
        error = state_save();
    } else if (synced->barrier == BARRIER_PUBLISH) {
        snprintf(state.published, sizeof state.published, "%s", synced->text);
        error = state_save();
    }
    pthread_mutex_unlock(&state_lock);
    if (error) return error;
    if (synced->barrier == BARRIER_MIRROR) {
        pthread_mutex_lock(&receive.lock);
        receive.mirror = true;
        pthread_mutex_unlock(&receive.lock);
        event_send("resync_ended", (char *)NULL);
    } else if (synced->barrier == BARRIER_PUBLISH) {
        event_send("published", "generation", synced->text, (char *)NULL);
    } else if (synced->barrier == BARRIER_HANDOVER) {
        pthread_mutex_lock(&receive.lock);
        receive.handover = true;
        pthread_mutex_unlock(&receive.lock);
    }
    return 0;
}

static void receive_durable(uint64_t seq) {
    atomic_store(&receive.durable, seq);
    receive_answer(OP_DURABLE, seq, NULL);
}

static void *helper_main(void *unused) {
    (void)unused;
    pthread_mutex_lock(&receive.lock);
    for (;;) {
        while (!receive.synced && !receive.ending) pthread_cond_wait(&receive.changed, &receive.lock);
        struct synced *one = receive.synced;
        if (!one) break;
        receive.synced = one->next;
        if (!receive.synced) receive.synced_last = &receive.synced;
        pthread_mutex_unlock(&receive.lock);
        int error = 0;
        if (one->file < 0) error = sync_everything();
        else if (one->data_only ? fdatasync(one->file) : fsync(one->file)) error = errno;
        if (!error && one->barrier) error = reach_barrier(one);
        if (error) receive_answer(OP_TROUBLE, one->seq, strerror(error));
        else if (one->file < 0 && !one->barrier) receive_durable(one->seq);
        else receive_answer(OP_DONE, one->seq, NULL);
        if (one->file >= 0) close(one->file);
        free(one);
        pthread_mutex_lock(&receive.lock);
    }
    pthread_mutex_unlock(&receive.lock);
    return NULL;
}

// Writes back all the time, so that little is lost with the power and a barrier is short; and beats.
static void *flusher_main(void *unused) {
    (void)unused;
    uint64_t flushed = 0;
    int64_t flushed_at = now_ms(), beaten = 0;
    for (;;) {
        pthread_mutex_lock(&receive.lock);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000000;
        if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
        if (!receive.ending) pthread_cond_timedwait(&receive.changed, &receive.lock, &until);
        bool ending = receive.ending;
        pthread_mutex_unlock(&receive.lock);
        if (ending) return NULL;
        int64_t now = now_ms();
        if (now - beaten >= HEARTBEAT_MS) {
            receive_answer(OP_PING, 0, NULL);
            beaten = now;
        }
        // A flush of its own thread must not delay the beat: started in the kernel, waited for at the next barrier.
        uint64_t applied = atomic_load(&receive.applied);
        if (applied != flushed && (now - flushed_at >= FLUSH_MS || atomic_load(&receive.unflushed) > FLUSH_BYTES)) {
            atomic_store(&receive.unflushed, 0);
            flushed = applied;
            flushed_at = now;
            sync_later((struct synced){.seq = applied, .file = -1});
        }
    }
}

// ---- the stream ----

static const struct directory *directory_of(uint64_t id) { return &options.directory[receive.object[id].directory]; }

static int set_parent(uint64_t id, int64_t seconds, uint32_t nanoseconds) {
    int object = receive_object(id);
    return object < 0 ? ESTALE : local_set_times(object, seconds, nanoseconds);
}

static int set_entry_times(int parent, const char *name, const struct frame *frame) {
    struct timespec times[2] = {{0, UTIME_OMIT}, {frame->mtime_s, frame->mtime_n}};
    return utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

static int apply_setattr(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id);
    if (object < 0) return ESTALE;
    struct attributes attributes = {f->valid, f->mode, f->uid, f->gid, (off_t)f->size, {f->atime_s, f->atime_n}, {f->mtime_s, f->mtime_n}};
    return local_setattr(object, &attributes);
}

static int apply_make(const struct message *message) {
    const struct frame *f = &message->frame;
    int parent = receive_object(f->id);
    if (parent < 0 || !name_is_entry(message->name)) return ESTALE;
    struct make make = {f->mode, f->umask, f->uid, f->gid, f->rdev, message->name2 ? message->name2 : ""};
    char temporary[TEMPORARY_SIZE];
    const char *name = f->flags & FRAME_REPLACE ? crossing_temporary(temporary) : message->name;
    int error = local_make(parent, name, &make);
    if (!error) error = set_entry_times(parent, name, f);
    if (!error && name != message->name && renameat(parent, name, parent, message->name)) error = errno;
    return error ? error : set_parent(f->id, f->parent_s, f->parent_n);
}

static int apply_remove(const struct message *message, int flags) {
    const struct frame *f = &message->frame;
    int parent = receive_object(f->id);
    if (parent < 0 || !name_is_entry(message->name)) return ESTALE;
    if (unlinkat(parent, message->name, flags)) {
        if (errno != ENOTEMPTY || !crossing_empty(directory_of(f->id), parent, message->name)) return errno;
        if (unlinkat(parent, message->name, flags)) return errno;
    }
    return set_parent(f->id, f->parent_s, f->parent_n);
}

static int apply_rename(const struct message *message) {
    const struct frame *f = &message->frame;
    int from = receive_object(f->id), to = receive_object(f->id2);
    if (from < 0 || to < 0 || !name_is_entry(message->name) || !name_is_entry(message->name2)) return ESTALE;
    if (renameat2(from, message->name, to, message->name2, f->valid)) {
        if ((errno != ENOTEMPTY && errno != EEXIST) || !crossing_empty(directory_of(f->id2), to, message->name2)) return errno;
        if (renameat2(from, message->name, to, message->name2, f->valid)) return errno;
    }
    int error = set_parent(f->id, f->parent_s, f->parent_n);
    return error ? error : set_parent(f->id2, f->parent2_s, f->parent2_n);
}

static int apply_link(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id), parent = receive_object(f->id2);
    if (object < 0 || parent < 0 || !name_is_entry(message->name)) return ESTALE;
    int error = f->flags & FRAME_REPLACE ? crossing_link_over(directory_of(f->id2), object, parent, message->name) : local_link(object, parent, message->name);
    return error ? error : set_parent(f->id2, f->parent_s, f->parent_n);
}

static int apply_write(const struct message *message) {
    const struct frame *f = &message->frame;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    for (size_t done = 0; done < f->data_size;) {
        ssize_t n = pwrite(file, (const char *)message->data + done, f->data_size - done, (off_t)(f->offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n ? errno : EIO;
        done += (size_t)n;
    }
    atomic_fetch_add(&receive.unflushed, f->data_size);
    if (f->valid & SET_MODE && fchmod(file, f->mode & 07777)) return errno;
    struct timespec times[2] = {{0, UTIME_OMIT}, {f->mtime_s, f->mtime_n}};
    return futimens(file, times) ? errno : 0;
}

static int apply_fallocate(const struct message *message) {
    const struct frame *f = &message->frame;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    if (fallocate(file, (int)f->mode, (off_t)f->offset, (off_t)f->size)) return errno;
    struct timespec times[2] = {{0, UTIME_OMIT}, {f->mtime_s, f->mtime_n}};
    return futimens(file, times) ? errno : 0;
}

static int apply_xattr(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id);
    if (object < 0 || !message->name) return ESTALE;
    if (f->op == OP_REMOVEXATTR) {
        // While a resync runs the attributes of the object may not have been compared yet: what matters is that this one is gone.
        int error = local_removexattr(object, message->name);
        return error == ENODATA ? 0 : error;
    }
    return local_setxattr(object, message->name, message->data, f->data_size, 0);
}

static int sync_object(const struct message *message) {
    int object = receive_object(message->frame.id);
    if (object < 0) return ESTALE;
    int file = local_reopen(object, O_RDONLY | O_NONBLOCK);
    if (file < 0) return errno;
    sync_later((struct synced){.seq = message->frame.seq, .file = file, .data_only = message->frame.flags & FRAME_DATASYNC});
    return 0;
}

static int begin_resync(const struct message *message) {
    pthread_mutex_lock(&state_lock);
    state.inconsistent = true;
    state.exact = false;
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    reconcile_end();
    event_send("resync_started", "incremental", message->frame.flags & FRAME_FULL ? "no" : "yes", (char *)NULL);
    return error;
}

static int apply(const struct message *message) {
    const struct frame *frame = &message->frame;
    switch (frame->op) {
    case OP_BIND: return bind_object(message);
    case OP_UNBIND: object_drop(frame->id); return 0;
    case OP_UNBIND_ALL:
        for (uint64_t id = 1; id < OBJECTS; id++) object_drop(id);
        return 0;
    case OP_SETATTR: return apply_setattr(message);
    case OP_MAKE: return apply_make(message);
    case OP_UNLINK: return apply_remove(message, 0);
    case OP_RMDIR: return apply_remove(message, AT_REMOVEDIR);
    case OP_RENAME: return apply_rename(message);
    case OP_LINK: return apply_link(message);
    case OP_WRITE: {
        int error = apply_write(message);
        return error || !(frame->flags & FRAME_SYNC) ? error : sync_object(message);
    }
    case OP_FSYNC: return sync_object(message);
    case OP_SETXATTR:
    case OP_REMOVEXATTR: return apply_xattr(message);
    case OP_FALLOCATE: return apply_fallocate(message);
    case OP_RESYNC_BEGIN: return begin_resync(message);
    case OP_LIST_BEGIN:
    case OP_LIST_ENTRY:
    case OP_LIST_END:
    case OP_FILE_META:
    case OP_ZONE_CHECK:
    case OP_ZONE_DATA:
    case OP_ZONE_HOLE: return reconcile(message);
    case OP_BARRIER: {
        struct synced synced = {.seq = frame->seq, .file = -1, .barrier = frame->valid};
        snprintf(synced.text, sizeof synced.text, "%s", message->name ? message->name : "");
        sync_later(synced);
        return 0;
    }
    case OP_PING: return 0;
    default: return EPROTO;
    }
}

static const char *operation_name(unsigned op) {
    static const char *const names[] = {[OP_BIND] = "bind", [OP_SETATTR] = "setattr", [OP_MAKE] = "create", [OP_UNLINK] = "unlink", [OP_RMDIR] = "rmdir",
                                        [OP_RENAME] = "rename", [OP_LINK] = "link", [OP_WRITE] = "write", [OP_FSYNC] = "fsync", [OP_SETXATTR] = "setxattr",
                                        [OP_REMOVEXATTR] = "removexattr", [OP_FALLOCATE] = "fallocate", [OP_LIST_ENTRY] = "listing entry",
                                        [OP_LIST_END] = "listing", [OP_FILE_META] = "file attributes", [OP_ZONE_DATA] = "zone", [OP_ZONE_CHECK] = "digest"};
    return op < sizeof names / sizeof *names && names[op] ? names[op] : "frame";
}

static void acknowledge(uint64_t seq) {
    if (options.durable_ack) sync_everything();
    atomic_store(&receive.applied, seq);
    receive_answer(OP_APPLIED, seq, NULL);
}

// Applies every complete frame. Returns what is left over, or -1 when the session must end (`why` says so).
static ssize_t apply_all(unsigned char *bytes, size_t used, char *why, size_t why_size) {
    size_t at = 0;
    ssize_t size;
    struct message message;
    unsigned unanswered = 0;
    uint64_t seq = 0;
    while ((size = message_read(bytes + at, used - at, &message)) > 0) {
        int error = apply(&message);
        if (error) {
            snprintf(why, why_size, "%s %s%s: %s", operation_name(message.frame.op), message.name ? message.name : "", message.name2 ? " ..." : "", strerror(error));
            pthread_mutex_lock(&state_lock);
            state.exact = false;
            state_save();
            pthread_mutex_unlock(&state_lock);
            receive_answer(OP_TROUBLE, message.frame.seq, why);
            return -1;
        }
        receive_worked();
        if (message.frame.op != OP_PING) {
            seq = message.frame.seq;
            if (++unanswered == ACK_EVERY && !options.durable_ack) {
                acknowledge(seq);
                unanswered = 0;
            }
        }
        at += (size_t)size;
    }
    if (unanswered) acknowledge(seq);
    if (size < 0) {
        snprintf(why, why_size, "the primary sent a malformed frame");
        return -1;
    }
    memmove(bytes, bytes + at, used - at);
    return (ssize_t)(used - at);
}

static void receive_stream(int fd, char *why, size_t why_size) {
    unsigned char *bytes = must(malloc(BUFFER_SIZE));
    size_t used = 0;
    for (;;) {
        struct pollfd wait[2] = {{fd, POLLIN, 0}, {receive.wake[0], POLLIN, 0}};
        int ready = poll(wait, 2, options.silence_timeout_ms * 2);
        if (ready < 0 && errno == EINTR) continue;
        if (wait[0].revents) {
            ssize_t n = recv(fd, bytes + used, BUFFER_SIZE - used, 0);
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                snprintf(why, why_size, "%s", n ? strerror(errno) : "the primary closed the connection");
                break;
            }
            ssize_t left = apply_all(bytes, used + (size_t)n, why, why_size);
            if (left < 0) break;
            used = (size_t)left;
        } else if (ready == 0) {
            snprintf(why, why_size, "nothing heard from the primary for %d ms", options.silence_timeout_ms * 2);
            break;
        } else if (wait[1].revents) {
            snprintf(why, why_size, "this node stops being a secondary");
            break;
        }
    }
    free(bytes);
}

static void serve(int fd, const char *address, const char *peer_generation) {
    char why[512] = "";
    pthread_t flusher, helper[HELPERS];
    pthread_mutex_lock(&receive.lock);
    receive.fd = fd;
    receive.connected = true;
    receive.ending = receive.handover = receive.mirror = false;
    snprintf(receive.address, sizeof receive.address, "%s", address);
    snprintf(receive.peer_generation, sizeof receive.peer_generation, "%s", peer_generation);
    pthread_mutex_unlock(&receive.lock);
    atomic_store(&receive.applied, 0);
    event_send("primary_connected", "peer_generation", peer_generation, (char *)NULL);
    if (pthread_create(&flusher, NULL, flusher_main, NULL)) abort();
    for (int i = 0; i < HELPERS; i++) {
        if (pthread_create(&helper[i], NULL, helper_main, NULL)) abort();
    }
    receive_stream(fd, why, sizeof why);
    shutdown(fd, SHUT_RDWR);
    pthread_mutex_lock(&receive.lock);
    receive.ending = true;
    pthread_cond_broadcast(&receive.changed);
    pthread_mutex_unlock(&receive.lock);
    pthread_join(flusher, NULL);
    for (int i = 0; i < HELPERS; i++) pthread_join(helper[i], NULL);
    for (uint64_t id = 1; id < OBJECTS; id++) object_drop(id);
    reconcile_end();
    pthread_mutex_lock(&receive.lock);
    receive.connected = false;
    bool handover = receive.handover;
    pthread_mutex_unlock(&receive.lock);
    say("primary lost: %s%s", why, handover ? " (after its handover)" : "");
    event_send("primary_lost", "reason", why, "handover", handover ? "yes" : "no", (char *)NULL);
}

static void *acceptor_main(void *unused) {
    (void)unused;
    local_thread_begin();
    for (;;) {
        struct pollfd wait[2] = {{receive.listener, POLLIN, 0}, {receive.wake[0], POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) abort();
        if (wait[1].revents) return NULL;
        if (!wait[0].revents) continue;
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int fd = accept4(receive.listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
        if (fd < 0) continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        char address[96] = "?";
        getnameinfo((struct sockaddr *)&from, size, address, sizeof address, NULL, 0, NI_NUMERICHOST);
        struct peer peer;
        if (handshake_accept(fd, &peer)) say("%s: refused: %s", address, peer.why);
        else serve(fd, address, peer.generation);
        close(fd);
    }
}

int receive_start(const char *address, unsigned port, char *why, size_t why_size) {
    char service[16];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int error = getaddrinfo(address, service, &hints, &found);
    if (error) {
        snprintf(why, why_size, "%s: %s", address, gai_strerror(error));
        return EINVAL;
    }
    int one = 1;
    receive.listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(receive.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    error = receive.listener < 0 || bind(receive.listener, found->ai_addr, found->ai_addrlen) || listen(receive.listener, 4) ? errno : 0;
    freeaddrinfo(found);
    if (!error && pipe2(receive.wake, O_CLOEXEC)) error = errno;
    if (error) {
        snprintf(why, why_size, "cannot listen on %s port %u: %s", address, port, strerror(error));
        if (receive.listener >= 0) close(receive.listener);
        return error;
    }
    receive.running = true;
    if (pthread_create(&receive.acceptor, NULL, acceptor_main, NULL)) abort();
    return 0;
}

void receive_stop(void) {
    if (!receive.running) return;
    if (write(receive.wake[1], "", 1) != 1) abort();
    pthread_join(receive.acceptor, NULL);
    close(receive.listener);
    close(receive.wake[0]);
    close(receive.wake[1]);
    receive.running = false;
    sync_everything();
}

void receive_get_status(struct receive_status *status) {
    pthread_mutex_lock(&receive.lock);
    status->peer = !receive.running ? "none" : !receive.connected ? "listening" : receive.mirror ? "mirror" : "resync";
    snprintf(status->address, sizeof status->address, "%s", receive.connected ? receive.address : "");
    snprintf(status->peer_generation, sizeof status->peer_generation, "%s", receive.peer_generation);
    status->applied = atomic_load(&receive.applied);
    status->durable = atomic_load(&receive.durable);
    pthread_mutex_unlock(&receive.lock);
}
