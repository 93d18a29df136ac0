// One function per operation, in the order of libfuse's table. A reading one asks the underlying tree and answers. A modifying one has always the
// same shape: begin, say what it touches, lock, apply here, ship the result, unlock, end; the answer goes out when nobody is awaited any more.
#include "fuse_ops.h"
#include "inode.h"
#include "local.h"
#include "resync.h"
#include "stream.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FOREVER 86400.0 // we are the only writer
#define UNUSED(x) (void)(x)

static struct directory *directory_of(fuse_req_t request) { return fuse_req_userdata(request); }

static struct inode *inode_of(fuse_req_t request, fuse_ino_t ino) {
    return ino == FUSE_ROOT_ID ? inode_root(directory_of(request)->index) : (struct inode *)(uintptr_t)ino;
}

// Counts a reference of the kernel when it returns 0.
static int look_up(fuse_req_t request, int parent, const char *name, struct fuse_entry_param *entry) {
    memset(entry, 0, sizeof *entry);
    int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    struct inode *inode = inode_get(directory_of(request), fd, &entry->attr);
    if (!inode) return errno;
    entry->ino = (uintptr_t)inode;
    entry->attr_timeout = entry->entry_timeout = FOREVER;
    return 0;
}

static void parent_times(struct message *message, struct inode *parent) {
    struct stat st;
    if (local_stat(parent->fd, &st)) return;
    message->frame.parent_s = st.st_mtim.tv_sec;
    message->frame.parent_n = (uint32_t)st.st_mtim.tv_nsec;
}

static void parent2_times(struct message *message, struct inode *parent) {
    struct stat st;
    if (local_stat(parent->fd, &st)) return;
    message->frame.parent2_s = st.st_mtim.tv_sec;
    message->frame.parent2_n = (uint32_t)st.st_mtim.tv_nsec;
}

static void object_times(struct message *message, const struct stat *st) {
    message->frame.mtime_s = st->st_mtim.tv_sec;
    message->frame.mtime_n = (uint32_t)st->st_mtim.tv_nsec;
}

// Metadata of what is no regular file and no directory travels with the listing of the directories that hold it.
static uint32_t metadata_mark(const struct inode *inode) {
    return S_ISREG(inode->type) || S_ISDIR(inode->type) ? MARK_META : MARK_META | MARK_LINKED;
}

static void touch_object_of(struct operation *operation, const struct inode *parent, const struct stat *st, bool moves) {
    uint64_t key = mark_key(parent->directory->index, st->st_dev, st->st_ino);
    uint32_t flags = S_ISDIR(st->st_mode) ? MARK_LIST | (moves ? MARK_TREE : 0) : S_ISREG(st->st_mode) ? MARK_CONTENT : MARK_META;
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) flags |= MARK_LINKED;
    operation_touches(operation, parent->directory->index, key, flags);
}

// ---- init, lookup, forget ----

static void op_init(void *userdata, struct fuse_conn_info *connection) {
    UNUSED(userdata);
    connection->max_write = 1u << 20;
    connection->max_readahead = 1u << 20;
    connection->max_background = 64;
    connection->congestion_threshold = 48;
    connection->time_gran = 1;
    unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS |
                      FUSE_CAP_ASYNC_DIO | FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_EXPLICIT_INVAL_DATA;
    // No write-back cache: what is answered has been shipped. No truncation inside open: every modification has an operation of its own.
    unsigned unwanted = FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ |
                        FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_IOCTL_DIR;
    connection->want = (connection->want & ~unwanted) | (connection->capable & wanted);
}

static void op_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param entry;
    int error = look_up(request, inode_of(request, parent)->fd, name, &entry);
    if (error == ENOENT) {
        entry.entry_timeout = FOREVER;
        fuse_reply_entry(request, &entry);
    } else if (error) {
        fuse_reply_err(request, error);
    } else {
        fuse_reply_entry(request, &entry);
    }
}

static void forget(fuse_req_t request, fuse_ino_t ino, uint64_t references) {
    if (ino != FUSE_ROOT_ID) inode_forget(inode_of(request, ino), references);
}

static void op_forget(fuse_req_t request, fuse_ino_t ino, uint64_t references) {
    forget(request, ino, references);
    fuse_reply_none(request);
}

// ---- attributes ----

static void op_getattr(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    UNUSED(file);
    struct stat st;
    int error = local_stat(inode_of(request, ino)->fd, &st);
    if (error) fuse_reply_err(request, error);
    else fuse_reply_attr(request, &st, FOREVER);
}

static void op_setattr(fuse_req_t request, fuse_ino_t ino, struct stat *attr, int valid, struct fuse_file_info *file) {
    UNUSED(file);
    struct inode *inode = inode_of(request, ino);
    struct operation *operation = operation_begin(request, REPLY_ATTR);
    struct attributes wanted = {.mode = attr->st_mode, .uid = attr->st_uid, .gid = attr->st_gid, .size = attr->st_size, .atime = attr->st_atim, .mtime = attr->st_mtim};
    if (valid & FUSE_SET_ATTR_MODE) wanted.valid |= SET_MODE;
    if (valid & FUSE_SET_ATTR_UID) wanted.valid |= SET_UID;
    if (valid & FUSE_SET_ATTR_GID) wanted.valid |= SET_GID;
    if (valid & FUSE_SET_ATTR_SIZE) wanted.valid |= SET_SIZE;
    if (valid & FUSE_SET_ATTR_ATIME) wanted.valid |= SET_ATIME;
    if (valid & FUSE_SET_ATTR_MTIME) wanted.valid |= SET_MTIME;
    if (valid & FUSE_SET_ATTR_ATIME_NOW) clock_gettime(CLOCK_REALTIME, &wanted.atime);
    if (valid & FUSE_SET_ATTR_MTIME_NOW) clock_gettime(CLOCK_REALTIME, &wanted.mtime);

    operation_touches_inode(operation, inode, wanted.valid & SET_SIZE ? MARK_CONTENT : metadata_mark(inode));
    inode_lock(inode);
    int error = local_setattr(inode->fd, &wanted);
    if (!error && wanted.valid & SET_SIZE && !(wanted.valid & SET_MODE) && fuse_req_ctx(request)->uid != 0) {
        // A truncation by somebody else than root takes set-user-id away, as it does without us.
        struct stat st;
        if (local_stat(inode->fd, &st) == 0 && st.st_mode & (S_ISUID | S_ISGID)) {
            wanted.mode = st.st_mode & ~(mode_t)(S_ISUID | (st.st_mode & S_IXGRP ? S_ISGID : 0));
            if (chmod(proc_path(inode->fd).text, wanted.mode & 07777) == 0) wanted.valid |= SET_MODE;
        }
    }
    int stated = local_stat(inode->fd, &operation->attr);
    if (!error) error = stated;
    operation->entry.attr_timeout = FOREVER;
    if (!error && wanted.valid) {
        struct message message = {.frame = {.op = OP_SETATTR, .valid = wanted.valid, .mode = wanted.mode, .uid = wanted.uid, .gid = wanted.gid,
                                            .size = (uint64_t)wanted.size, .atime_s = wanted.atime.tv_sec, .atime_n = (uint32_t)wanted.atime.tv_nsec}};
        if (wanted.valid & (SET_SIZE | SET_MTIME)) message.frame.valid |= SET_MTIME;
        object_times(&message, &operation->attr);
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

static void op_readlink(fuse_req_t request, fuse_ino_t ino) {
    char target[PATH_MAX + 1];
    ssize_t size = readlinkat(inode_of(request, ino)->fd, "", target, sizeof target);
    if (size < 0) fuse_reply_err(request, errno);
    else if ((size_t)size == sizeof target) fuse_reply_err(request, ENAMETOOLONG);
    else {
        target[size] = 0;
        fuse_reply_readlink(request, target);
    }
}

// ---- names ----

// mknod, mkdir and symlink. With namespace_lock held and the listing ensured; fills the entry of the reply.
static int make_entry(struct operation *operation, struct inode *parent, const char *name, mode_t mode, dev_t rdev, const char *target) {
    const struct fuse_ctx *caller = fuse_req_ctx(operation->request);
    struct make make = {mode, caller->umask, caller->uid, caller->gid, rdev, target};
    int error = local_make(parent->fd, name, &make);
    if (!error) error = look_up(operation->request, parent->fd, name, &operation->entry);
    if (error) return error;
    touch_object_of(operation, parent, &operation->entry.attr, false);
    struct message message = {.frame = {.op = OP_MAKE, .mode = mode, .umask = make.umask, .uid = make.uid, .gid = make.gid, .rdev = rdev}, .name = name, .name2 = target};
    object_times(&message, &operation->entry.attr);
    parent_times(&message, parent);
    operation_ship(operation, &message, parent, NULL, true);
    return 0;
}

static void make_and_reply(fuse_req_t request, fuse_ino_t parent_ino, const char *name, mode_t mode, dev_t rdev, const char *target) {
    struct inode *parent = inode_of(request, parent_ino);
    struct operation *operation = operation_begin(request, REPLY_ENTRY);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    operation_binds(parent, NULL);
    int error = make_entry(operation, parent, name, mode, rdev, target);
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

static void op_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev) {
    make_and_reply(request, parent, name, mode, rdev, NULL);
}

static void op_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    make_and_reply(request, parent, name, (mode & 07777) | S_IFDIR, 0, NULL);
}

// While a resync runs: a directory that is empty here must be empty there before it is removed or replaced, and a file that keeps other names
// may be bound there to the one inode that goes.
static void entry_vanishes(const struct inode *parent, const char *name) {
    struct stat st;
    int fd = resync_active() ? openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct inode *object = fd < 0 ? NULL : inode_get(parent->directory, fd, &st);
    if (!object) return;
    if (S_ISDIR(st.st_mode)) operation_lists(object);
    else if (S_ISREG(st.st_mode) && st.st_nlink > 1) resync_again(object);
    inode_forget(object, 1);
}

static void remove_entry(fuse_req_t request, fuse_ino_t parent_ino, const char *name, enum frame_op op) {
    struct inode *parent = inode_of(request, parent_ino);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    entry_vanishes(parent, name);
    operation_binds(parent, NULL);
    int error = unlinkat(parent->fd, name, op == OP_RMDIR ? AT_REMOVEDIR : 0) ? errno : 0;
    if (!error) {
        struct message message = {.frame = {.op = (uint16_t)op}, .name = name};
        parent_times(&message, parent);
        operation_ship(operation, &message, parent, NULL, true);
    }
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

static void op_unlink(fuse_req_t request, fuse_ino_t parent, const char *name) { remove_entry(request, parent, name, OP_UNLINK); }

static void op_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name) { remove_entry(request, parent, name, OP_RMDIR); }

static void op_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name) {
    make_and_reply(request, parent, name, S_IFLNK | 0777, 0, target);
}

// A resync that runs must find what got another place; a later one must compare it there.
static void entry_moves(struct operation *operation, const struct inode *parent, int at, const char *name) {
    struct stat st;
    int fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    struct inode *object = inode_get(parent->directory, fd, &st);
    if (!object) return;
    touch_object_of(operation, parent, &st, true);
    if (resync_active()) resync_moved(object);
    inode_forget(object, 1);
}

static void op_rename(fuse_req_t request, fuse_ino_t from_ino, const char *name, fuse_ino_t to_ino, const char *new_name, unsigned flags) {
    struct inode *from = inode_of(request, from_ino), *to = inode_of(request, to_ino);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, from);
    if (to != from) operation_changes_list(operation, to);
    if (!(flags & RENAME_EXCHANGE)) entry_vanishes(to, new_name);
    operation_binds(from, to);
    entry_moves(operation, from, from->fd, name);
    if (flags & RENAME_EXCHANGE) entry_moves(operation, to, to->fd, new_name);
    int error = flags & RENAME_WHITEOUT ? EINVAL : renameat2(from->fd, name, to->fd, new_name, flags) ? errno : 0;
    if (!error) {
        struct message message = {.frame = {.op = OP_RENAME, .valid = flags}, .name = name, .name2 = new_name};
        parent_times(&message, from);
        parent2_times(&message, to);
        operation_ship(operation, &message, from, to, true);
    }
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

static void op_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent_ino, const char *name) {
    struct inode *inode = inode_of(request, ino), *parent = inode_of(request, parent_ino);
    struct operation *operation = operation_begin(request, REPLY_ENTRY);
    operation_touches_inode(operation, inode, (S_ISREG(inode->type) ? MARK_CONTENT : MARK_META) | MARK_LINKED);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    if (resync_active()) resync_moved(inode);
    operation_binds(inode, parent);
    int error = local_link(inode->fd, parent->fd, name);
    if (!error) error = look_up(request, parent->fd, name, &operation->entry);
    if (!error) {
        struct message message = {.frame = {.op = OP_LINK}, .name = name};
        parent_times(&message, parent);
        operation_ship(operation, &message, inode, parent, true);
    }
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

// ---- files ----

// What the kernel has already decided on (append, truncation) or what stands between our buffers and the file (direct) is not passed down; synchronous
// writes are made so by ourselves, on both sides at once.
static int flags_below(int flags) {
    return (flags & ~(O_APPEND | O_TRUNC | O_DIRECT | O_SYNC | O_DSYNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOATIME)) | O_NOCTTY;
}

static int open_below(struct inode *inode, struct fuse_file_info *file) {
    int fd = local_reopen(inode->fd, flags_below(file->flags));
    if (fd < 0) return errno;
    file->fh = (uint64_t)fd;
    file->keep_cache = 1;
    return 0;
}

static void op_open(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    int error = open_below(inode_of(request, ino), file);
    if (error) fuse_reply_err(request, error);
    else if (fuse_reply_open(request, file)) close((int)file->fh);
}

static void op_read(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    UNUSED(ino);
    struct fuse_bufvec buffer = FUSE_BUFVEC_INIT(size);
    buffer.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
    buffer.buf[0].fd = (int)file->fh;
    buffer.buf[0].pos = offset;
    fuse_reply_data(request, &buffer, 0);
}

// Ships `size` bytes that are in the file now, under the lock of the file.
static int ship_bytes(struct operation *operation, struct inode *inode, int fd, const char *bytes, size_t size, off_t offset, bool sync) {
    struct stat st;
    struct message message = {.frame = {.op = OP_WRITE, .flags = sync ? FRAME_SYNC : 0, .offset = (uint64_t)offset, .data_size = (uint32_t)size}, .data = bytes};
    if (fstat(fd, &st)) return errno;
    if (st.st_mode & (S_ISUID | S_ISGID) && fuse_req_ctx(operation->request)->uid != 0) {
        mode_t mode = st.st_mode & ~(mode_t)(S_ISUID | (st.st_mode & S_IXGRP ? S_ISGID : 0));
        if (mode != st.st_mode && fchmod(fd, mode & 07777) == 0) {
            message.frame.valid = SET_MODE;
            message.frame.mode = mode;
        }
    }
    object_times(&message, &st);
    operation_ship(operation, &message, inode, NULL, false);
    return 0;
}

static void op_write(fuse_req_t request, fuse_ino_t ino, const char *bytes, size_t size, off_t offset, struct fuse_file_info *file) {
    struct inode *inode = inode_of(request, ino);
    int fd = (int)file->fh, error = 0;
    bool sync = (file->flags & (O_SYNC | O_DSYNC)) != 0;
    struct operation *operation = operation_begin(request, REPLY_WRITE);
    operation_touches_inode(operation, inode, MARK_CONTENT);
    inode_lock(inode);
    ssize_t written = pwrite(fd, bytes, size, offset);
    if (written < 0) error = errno;
    else operation->written = (size_t)written;
    if (written > 0) error = ship_bytes(operation, inode, fd, bytes, (size_t)written, offset, sync);
    inode_unlock(inode);
    if (sync && !error && ((file->flags & O_SYNC) == O_SYNC ? fsync(fd) : fdatasync(fd))) error = errno;
    operation_end(operation, error);
}

static void op_release(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    UNUSED(ino);
    close((int)file->fh);
    fuse_reply_err(request, 0);
}

// Both sides at once.
static void synchronise(fuse_req_t request, struct inode *inode, int fd, bool data_only) {
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    struct message message = {.frame = {.op = OP_FSYNC, .flags = (uint16_t)(FRAME_SYNC | (data_only ? FRAME_DATASYNC : 0))}};
    inode_lock(inode);
    operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    inode_unlock(inode);
    int error = (data_only ? fdatasync(fd) : fsync(fd)) ? errno : 0;
    operation_end(operation, error);
}

static void op_fsync(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file) {
    synchronise(request, inode_of(request, ino), (int)file->fh, data_only);
}

// ---- directories ----

struct open_directory {
    DIR *entries;
    struct dirent *next;
    off_t offset;
};

static struct open_directory *open_directory_of(struct fuse_file_info *file) { return (struct open_directory *)(uintptr_t)file->fh; }

static void op_opendir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    int fd = local_reopen(inode_of(request, ino)->fd, O_RDONLY | O_DIRECTORY);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) {
        int error = errno;
        if (fd >= 0) close(fd);
        fuse_reply_err(request, error);
        return;
    }
    struct open_directory *open_directory = must(calloc(1, sizeof *open_directory));
    open_directory->entries = entries;
    file->fh = (uintptr_t)open_directory;
    if (fuse_reply_open(request, file)) {
        closedir(entries);
        free(open_directory);
    }
}

static void read_directory(fuse_req_t request, size_t size, off_t offset, struct fuse_file_info *file, bool plus) {
    struct open_directory *d = open_directory_of(file);
    char *bytes = must(malloc(size));
    size_t used = 0;
    int error = 0;
    if (offset != d->offset) {
        seekdir(d->entries, offset);
        d->next = NULL;
        d->offset = offset;
    }
    for (;;) {
        if (!d->next) {
            errno = 0;
            d->next = readdir(d->entries);
            if (!d->next) {
                error = errno;
                break;
            }
        }
        const char *name = d->next->d_name;
        struct fuse_entry_param entry = {.attr = {.st_ino = d->next->d_ino, .st_mode = (mode_t)(d->next->d_type << 12)}};
        bool looked_up = false;
        if (plus && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            struct fuse_entry_param found;
            looked_up = look_up(request, dirfd(d->entries), name, &found) == 0;
            if (looked_up) entry = found;
        }
        off_t next = d->next->d_off;
        size_t need = plus ? fuse_add_direntry_plus(request, bytes + used, size - used, name, &entry, next)
                           : fuse_add_direntry(request, bytes + used, size - used, name, &entry.attr, next);
        if (need > size - used) {
            if (looked_up) inode_forget((struct inode *)(uintptr_t)entry.ino, 1);
            break;
        }
        used += need;
        d->next = NULL;
        d->offset = next;
    }
    if (error && !used) fuse_reply_err(request, error);
    else fuse_reply_buf(request, bytes, used);
    free(bytes);
}

static void op_readdir(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    UNUSED(ino);
    read_directory(request, size, offset, file, false);
}

static void op_releasedir(fuse_req_t request, fuse_ino_t ino, struct fuse_file_info *file) {
    UNUSED(ino);
    struct open_directory *open_directory = open_directory_of(file);
    closedir(open_directory->entries);
    free(open_directory);
    fuse_reply_err(request, 0);
}

static void op_fsyncdir(fuse_req_t request, fuse_ino_t ino, int data_only, struct fuse_file_info *file) {
    synchronise(request, inode_of(request, ino), dirfd(open_directory_of(file)->entries), data_only);
}

static void op_statfs(fuse_req_t request, fuse_ino_t ino) {
    struct statvfs st;
    if (fstatvfs(inode_of(request, ino)->fd, &st)) fuse_reply_err(request, errno);
    else fuse_reply_statfs(request, &st);
}

// ---- extended attributes ----

static void op_setxattr(fuse_req_t request, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags) {
    struct inode *inode = inode_of(request, ino);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    operation_touches_inode(operation, inode, metadata_mark(inode));
    inode_lock(inode);
    int error = local_setxattr(inode->fd, name, value, size, flags);
    if (!error) {
        struct message message = {.frame = {.op = OP_SETXATTR, .data_size = (uint32_t)size}, .name = name, .data = value};
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

static void op_getxattr(fuse_req_t request, fuse_ino_t ino, const char *name, size_t size) {
    char *value = size ? must(malloc(size)) : NULL;
    ssize_t got = getxattr(proc_path(inode_of(request, ino)->fd).text, name, value, size);
    if (got < 0) fuse_reply_err(request, errno);
    else if (size) fuse_reply_buf(request, value, (size_t)got);
    else fuse_reply_xattr(request, (size_t)got);
    free(value);
}

static void op_listxattr(fuse_req_t request, fuse_ino_t ino, size_t size) {
    char *names = size ? must(malloc(size)) : NULL;
    ssize_t got = listxattr(proc_path(inode_of(request, ino)->fd).text, names, size);
    if (got < 0) fuse_reply_err(request, errno);
    else if (size) fuse_reply_buf(request, names, (size_t)got);
    else fuse_reply_xattr(request, (size_t)got);
    free(names);
}

static void op_removexattr(fuse_req_t request, fuse_ino_t ino, const char *name) {
    struct inode *inode = inode_of(request, ino);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    operation_touches_inode(operation, inode, metadata_mark(inode));
    inode_lock(inode);
    int error = local_removexattr(inode->fd, name);
    if (!error) {
        struct message message = {.frame = {.op = OP_REMOVEXATTR}, .name = name};
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

// ---- create, and the newer operations ----

static void op_create(fuse_req_t request, fuse_ino_t parent_ino, const char *name, mode_t mode, struct fuse_file_info *file) {
    struct inode *parent = inode_of(request, parent_ino);
    struct operation *operation = operation_begin(request, REPLY_CREATE);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    operation_binds(parent, NULL);
    int error = make_entry(operation, parent, name, (mode & 07777) | S_IFREG, 0, NULL);
    pthread_rwlock_unlock(&namespace_lock);
    if (error == EEXIST && !(file->flags & O_EXCL)) error = look_up(request, parent->fd, name, &operation->entry);
    if (!error) {
        operation->file = *file;
        error = open_below(inode_of(request, operation->entry.ino), &operation->file);
        if (error) inode_forget(inode_of(request, operation->entry.ino), 1);
    }
    operation_end(operation, error);
}

static void op_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets) {
    for (size_t i = 0; i < count; i++) forget(request, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(request);
}

static void op_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *file) {
    struct inode *inode = inode_of(request, ino);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    operation_touches_inode(operation, inode, MARK_CONTENT);
    inode_lock(inode);
    int error = fallocate((int)file->fh, mode, offset, length) ? errno : 0;
    struct stat st;
    if (!error && fstat((int)file->fh, &st) == 0) {
        struct message message = {.frame = {.op = OP_FALLOCATE, .mode = (uint32_t)mode, .offset = (uint64_t)offset, .size = (uint64_t)length}};
        object_times(&message, &st);
        operation_ship(operation, &message, inode, NULL, false);
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

static void op_readdirplus(fuse_req_t request, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file) {
    UNUSED(ino);
    read_directory(request, size, offset, file, true);
}

// Copied here and shipped as a write, one megabyte at a time: the peer's source may be another object by then.
static void op_copy_file_range(fuse_req_t request, fuse_ino_t source, off_t source_offset, struct fuse_file_info *source_file, fuse_ino_t ino,
                               off_t offset, struct fuse_file_info *file, size_t size, int flags) {
    UNUSED(source);
    UNUSED(flags);
    struct inode *inode = inode_of(request, ino);
    struct operation *operation = operation_begin(request, REPLY_WRITE);
    operation_touches_inode(operation, inode, MARK_CONTENT);
    size_t room = size < FRAME_DATA_LIMIT ? size : FRAME_DATA_LIMIT;
    char *bytes = must(malloc(room ? room : 1));
    int error = 0;
    ssize_t got = pread((int)source_file->fh, bytes, room, source_offset);
    if (got < 0) error = errno;
    inode_lock(inode);
    ssize_t written = got > 0 ? pwrite((int)file->fh, bytes, (size_t)got, offset) : 0;
    if (written < 0) error = errno;
    else operation->written = (size_t)written;
    if (written > 0) error = ship_bytes(operation, inode, (int)file->fh, bytes, (size_t)written, offset, false);
    inode_unlock(inode);
    free(bytes);
    operation_end(operation, error);
}

static void op_lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *file) {
    UNUSED(ino);
    off_t found = lseek((int)file->fh, offset, whence);
    if (found < 0) fuse_reply_err(request, errno);
    else fuse_reply_lseek(request, found);
}

// No flush: nothing waits for a close. No locks: the kernel keeps them on this node. No ioctl: nothing that could not be replicated.
const struct fuse_lowlevel_ops fuse_operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .create = op_create,
    .forget_multi = op_forget_multi,
    .fallocate = op_fallocate,
    .readdirplus = op_readdirplus,
    .copy_file_range = op_copy_file_range,
    .lseek = op_lseek,
};
