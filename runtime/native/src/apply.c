// Applies frames. Names change only in the thread that reads the stream, in the order of the stream; what concerns one regular file may be
// applied by any thread, as long as the frames of one file follow each other (workers.c sees to it).
#include "apply.h"
#include "crossing.h"
#include "local.h"
#include "receive.h"
#include "select.h"
#include "verify.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct object *table[OBJECTS];
static _Thread_local struct object *applying;

// ---- objects ----

struct object *object_find(uint64_t id) { return id && id < OBJECTS ? table[id] : NULL; }

struct object *object_keep(struct object *object) {
    if (object) atomic_fetch_add(&object->references, 1);
    return object;
}

void object_release(struct object *object) {
    if (!object || atomic_fetch_sub(&object->references, 1) != 1) return;
    close(object->path);
    free(object);
}

static void drop(uint64_t id) {
    if (!id || id >= OBJECTS) return;
    object_release(table[id]);
    table[id] = NULL;
}

void objects_forget(void) {
    for (uint64_t id = 1; id < OBJECTS; id++) drop(id);
}

// Every object has a descriptor; half of what this process may open is enough for them.
unsigned objects_limit(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur / 2 >= OBJECTS - 1) return OBJECTS - 1;
    return (unsigned)files.rlim_cur / 2;
}

static struct object *object_of(uint64_t id) { return applying ? applying : object_find(id); }

int receive_object(uint64_t id) {
    struct object *object = object_of(id);
    return object ? object->path : -1;
}

int receive_file(uint64_t id, int *error) {
    struct object *object = object_of(id);
    if (!object) {
        *error = ESTALE;
        return -1;
    }
    if (object->file < 0) {
        int file = local_reopen(object->path, O_RDWR | O_NOATIME);
        // One descriptor for each object: the opened one takes the number of the other, in one step.
        if (file < 0 || dup3(file, object->path, O_CLOEXEC) < 0) *error = errno;
        else object->file = object->path;
        if (file >= 0) close(file);
    }
    return object->file;
}

struct extent *receive_extent(uint64_t id) { return &object_of(id)->known; }

void receive_cut(uint64_t id) {
    const struct object *object = object_of(id);
    if (S_ISREG(object->type)) extent_cut(object->dev, object->ino);
}

static void keep(uint64_t id, const struct directory *directory, int path, int file, const struct stat *st) {
    drop(id);
    struct object *object = must(calloc(1, sizeof *object));
    *object = (struct object){.directory = directory, .path = path, .file = file, .dev = st->st_dev, .ino = st->st_ino, .type = st->st_mode & S_IFMT, .known = {.dev = st->st_dev, .ino = st->st_ino}};
    atomic_init(&object->references, 1);
    table[id] = object;
}

// Component by component: no symbolic link on the way is followed.
static int bind_object(const struct message *message) {
    const struct frame *frame = &message->frame;
    if (!frame->id || frame->id >= OBJECTS || frame->valid >= options.directories) return EPROTO;
    if (message->name && !path_is_inside(message->name)) return EPROTO;
    drop(frame->id);
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
    if (at < 0) return frame->flags & FRAME_TENTATIVE && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) ? 0 : errno;
    int error = local_stat(at, &st);
    if (!error && message->name && select_configured(directory) && select_excludes_path(directory, message->name, st.st_mode)) error = EXDEV; // ours alone
    if (error) {
        close(at);
        return error;
    }
    keep(frame->id, directory, at, -1, &st);
    return 0;
}

// ---- modifications ----

static const struct directory *directory_of(uint64_t id) { return object_of(id)->directory; }

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
    if (f->valid & SET_SIZE) receive_cut(f->id);
    struct attributes attributes = {f->valid, f->mode, f->uid, f->gid, (off_t)f->size, {f->atime_s, f->atime_n}, {f->mtime_s, f->mtime_n}};
    return local_setattr(object, &attributes);
}

// What is made is kept open: a file is about to be written, a folder to be filled.
static int make_and_keep(const struct frame *f, int parent, const char *name, const struct make *make) {
    bool regular = S_ISREG(make->mode);
    int error = regular ? 0 : local_make(parent, name, make);
    if (error) return error;
    int made = regular ? local_create(parent, name, make, O_RDWR | O_NOATIME) : openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (made < 0) return errno;
    error = local_stat(made, &st);
    if (!error) error = local_set_times(made, f->mtime_s, f->mtime_n);
    if (error) close(made);
    else keep(f->id2, directory_of(f->id), made, regular ? made : -1, &st);
    return error;
}

static int apply_make(const struct message *message) {
    const struct frame *f = &message->frame;
    int parent = receive_object(f->id);
    if (parent < 0 || !name_is_entry(message->name)) return ESTALE;
    struct make make = {f->mode, f->umask, f->uid, f->gid, f->rdev, message->name2 ? message->name2 : ""};
    if (f->id2) {
        if (f->id2 >= OBJECTS || f->id2 == f->id || f->flags & FRAME_REPLACE) return EPROTO;
        int error = make_and_keep(f, parent, message->name, &make);
        return error ? error : set_parent(f->id, f->parent_s, f->parent_n);
    }
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
    receive_wrote(f->data_size);
    if (f->valid & SET_MODE && fchmod(file, f->mode & 07777)) return errno;
    struct timespec times[2] = {{0, UTIME_OMIT}, {f->mtime_s, f->mtime_n}};
    return futimens(file, times) ? errno : 0;
}

static int apply_fallocate(const struct message *message) {
    const struct frame *f = &message->frame;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    receive_cut(f->id);
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
    struct object *object = object_of(message->frame.id);
    if (!object) return ESTALE;
    // One of its own: the object may be forgotten before it is synced.
    int file = object->file >= 0 ? fcntl(object->file, F_DUPFD_CLOEXEC, 0) : local_reopen(object->path, O_RDONLY | O_NONBLOCK);
    if (file < 0) return errno;
    receive_sync(message->frame.seq, file, message->frame.flags & FRAME_DATASYNC);
    return 0;
}

bool apply_is_of_one_file(const struct message *message, const struct object *object) {
    if (!object || !S_ISREG(object->type)) return false;
    switch (message->frame.op) {
    case OP_SETATTR:
    case OP_WRITE:
    case OP_FSYNC:
    case OP_SETXATTR:
    case OP_REMOVEXATTR:
    case OP_FALLOCATE:
    case OP_FILE_META:
    case OP_ZONE_CHECK:
    case OP_ZONE_DATA:
    case OP_ZONE_HOLE:
    case OP_VERIFY_FILE:
    case OP_VERIFY_ZONE:
    case OP_VERIFY_HOLE: return true;
    default: return false;
    }
}

static int apply_one(const struct message *message) {
    const struct frame *frame = &message->frame;
    switch (frame->op) {
    case OP_BIND: return bind_object(message);
    case OP_UNBIND: drop(frame->id); return 0;
    case OP_UNBIND_ALL: objects_forget(); return 0;
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
    case OP_RESYNC_BEGIN: return receive_resync_begins(message);
    case OP_LIST_BEGIN:
    case OP_LIST_ENTRY:
    case OP_LIST_ENTRIES:
    case OP_LIST_END:
    case OP_FILE_META:
    case OP_ZONE_CHECK:
    case OP_ZONE_DATA:
    case OP_ZONE_HOLE: return reconcile(message);
    case OP_VERIFY_BEGIN:
    case OP_VERIFY_NAMES:
    case OP_VERIFY_ABSENT:
    case OP_VERIFY_FILE:
    case OP_VERIFY_ZONE:
    case OP_VERIFY_HOLE:
    case OP_VERIFY_END: return verify_apply(message);
    case OP_BARRIER: receive_barrier(message); return 0;
    case OP_PING: return 0;
    default: return EPROTO;
    }
}

int apply(const struct message *message, struct object *object) {
    applying = object;
    int error = apply_one(message);
    applying = NULL;
    return error;
}

const char *operation_name(unsigned op) {
    static const char *const names[] = {[OP_BIND] = "bind", [OP_SETATTR] = "setattr", [OP_MAKE] = "create", [OP_UNLINK] = "unlink", [OP_RMDIR] = "rmdir",
                                        [OP_RENAME] = "rename", [OP_LINK] = "link", [OP_WRITE] = "write", [OP_FSYNC] = "fsync", [OP_SETXATTR] = "setxattr",
                                        [OP_REMOVEXATTR] = "removexattr", [OP_FALLOCATE] = "fallocate", [OP_LIST_ENTRY] = "listing entry", [OP_LIST_ENTRIES] = "listing entries",
                                        [OP_LIST_END] = "listing", [OP_FILE_META] = "file attributes", [OP_ZONE_DATA] = "zone", [OP_ZONE_CHECK] = "digest"};
    return op < sizeof names / sizeof *names && names[op] ? names[op] : "frame";
}
