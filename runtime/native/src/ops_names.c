// Operations on names, and what all operations share. A modifying one has always the same shape: begin, say what it touches, lock, apply here, ship
// the result, unlock, end; the answer goes out when nobody is awaited any more.
#include "crossing.h"
#include "intent.h"
#include "local.h"
#include "operations.h"
#include "resync.h"
#include "room.h"
#include "select.h"
#include "trim.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct inode *inode_of(const struct fuse_request *request, uint64_t node) {
    return node == FUSE_ROOT_ID ? inode_root(request->directory->index) : inode_at(node);
}

int look_up(const struct fuse_request *request, int parent, const char *name, struct entry *entry) {
    entry->node = 0;
    int fd;
    for (unsigned tries = 0; (fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)) < 0 && errno == EMFILE && tries < ROOM_TRIES; tries++) room_wait();
    if (fd < 0) return errno;
    room_watch(fd);
    struct inode *inode = inode_get(request->directory, fd, &entry->attr);
    if (!inode) return errno;
    entry->node = inode_node(inode);
    trim_wanted();
    return 0;
}

void parent_times(struct message *message, const struct inode *parent) {
    struct stat st;
    if (local_stat(parent->fd, &st)) return;
    message->frame.parent_s = st.st_mtim.tv_sec;
    message->frame.parent_n = (uint32_t)st.st_mtim.tv_nsec;
}

static void parent2_times(struct message *message, const struct inode *parent) {
    struct stat st;
    if (local_stat(parent->fd, &st)) return;
    message->frame.parent2_s = st.st_mtim.tv_sec;
    message->frame.parent2_n = (uint32_t)st.st_mtim.tv_nsec;
}

void object_times(struct message *message, const struct stat *st) {
    message->frame.mtime_s = st->st_mtim.tv_sec;
    message->frame.mtime_n = (uint32_t)st->st_mtim.tv_nsec;
}

// Metadata of what is no regular file and no directory travels with the listing of the directories that hold it.
uint32_t metadata_mark(const struct inode *inode) {
    return S_ISREG(inode->type) || S_ISDIR(inode->type) ? MARK_META : MARK_META | MARK_LINKED;
}

static void touch_object_of(struct operation *operation, struct inode *parent, const struct stat *st, bool moves) {
    uint64_t key = mark_key(parent->directory->index, st->st_dev, st->st_ino);
    uint32_t flags = S_ISDIR(st->st_mode) ? MARK_LIST | (moves ? MARK_TREE : 0) : S_ISREG(st->st_mode) ? MARK_CONTENT : MARK_META;
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) flags |= MARK_LINKED;
    operation_touches_entry(operation, parent, key, flags);
}

// ---- lookup, forget ----

void op_lookup(const struct fuse_request *request, uint64_t parent, const char *name) {
    struct entry entry;
    int error = look_up(request, inode_of(request, parent)->fd, name, &entry);
    // What does not exist is remembered by the kernel as well.
    if (error && error != ENOENT) reply_error(request, error);
    else reply_entry(request, &entry);
}

void op_forget(const struct fuse_request *request, uint64_t node, uint64_t references) {
    if (node != FUSE_ROOT_ID) inode_forget(inode_of(request, node), references);
}

// ---- names ----

// Here, for the caller; a regular file open as `flags` say. Made already by this request, by a worker that died before it answered: nobody has seen
// it, and it may not have its owner yet.
static int make_here(const struct fuse_request *caller, const struct inode *parent, const char *name, const struct make *make, int flags, int *file) {
    bool again = caller->again;
    for (unsigned tries = 0;; tries++) {
        int error;
        if (file) error = (*file = local_create(parent->fd, name, make, flags)) < 0 ? errno : 0;
        else error = local_make(parent->fd, name, make);
        if (error == EMFILE && tries < ROOM_TRIES) {
            room_wait();
        } else if (error == EEXIST && again && intent_made(caller, parent->fd, name) && !unlinkat(parent->fd, name, S_ISDIR(make->mode) ? AT_REMOVEDIR : 0)) {
            again = false;
        } else {
            return error;
        }
    }
}

// mknod, mkdir, symlink and create. With namespace_lock held and the listing ensured; fills the entry of the reply.
static int make_entry(struct operation *operation, struct inode *parent, const char *name, const struct make *make, int flags, int *file) {
    const struct fuse_request *caller = &operation->request;
    int error = inode_name_fits(parent, name) ? make_here(caller, parent, name, make, flags, file) : ENAMETOOLONG;
    if (error) return error;
    error = look_up(caller, parent->fd, name, &operation->entry);
    if (error) { // nobody has seen it
        unlinkat(parent->fd, name, S_ISDIR(make->mode) ? AT_REMOVEDIR : 0);
        if (file) close(*file);
        return error;
    }
    if (!select_entry(parent, name, make->mode)) touch_object_of(operation, parent, &operation->entry.attr, false);
    struct message message = {.frame = {.op = OP_MAKE, .mode = make->mode, .umask = make->umask, .uid = make->uid, .gid = make->gid, .rdev = make->rdev},
                              .name = name, .name2 = make->target};
    object_times(&message, &operation->entry.attr);
    parent_times(&message, parent);
    if (S_ISREG(make->mode) || S_ISDIR(make->mode)) operation->made = inode_of(caller, operation->entry.node);
    operation_ship(operation, &message, parent, NULL, true);
    return 0;
}

static void make_and_reply(const struct fuse_request *request, uint64_t parent_node, const char *name, mode_t mode, dev_t rdev, const char *target) {
    struct inode *parent = inode_of(request, parent_node);
    struct operation *operation = operation_begin(request, REPLY_ENTRY);
    struct make make = {mode, request->umask, request->uid, request->gid, rdev, target};
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    operation_binds(parent, NULL);
    int error = make_entry(operation, parent, name, &make, 0, NULL);
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

void op_mknod(const struct fuse_request *request, uint64_t parent, const char *name, mode_t mode, dev_t rdev) {
    make_and_reply(request, parent, name, mode, rdev, NULL);
}

void op_mkdir(const struct fuse_request *request, uint64_t parent, const char *name, mode_t mode) {
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

static void remove_entry(const struct fuse_request *request, uint64_t parent_node, const char *name, enum frame_op op) {
    struct inode *parent = inode_of(request, parent_node);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    entry_vanishes(parent, name);
    operation_binds(parent, NULL);
    int error = unlinkat(parent->fd, name, op == OP_RMDIR ? AT_REMOVEDIR : 0) ? errno : 0;
    if (error == ENOENT && request->again) error = 0;
    if (!error) {
        struct message message = {.frame = {.op = (uint16_t)op}, .name = name};
        parent_times(&message, parent);
        operation_ship(operation, &message, parent, NULL, true);
    }
    pthread_rwlock_unlock(&namespace_lock);
    operation_end(operation, error);
}

void op_unlink(const struct fuse_request *request, uint64_t parent, const char *name) { remove_entry(request, parent, name, OP_UNLINK); }

void op_rmdir(const struct fuse_request *request, uint64_t parent, const char *name) { remove_entry(request, parent, name, OP_RMDIR); }

void op_symlink(const struct fuse_request *request, const char *target, uint64_t parent, const char *name) {
    make_and_reply(request, parent, name, S_IFLNK | 0777, 0, target);
}

// A resync that runs must find what got another place; a later one must compare it there.
static void entry_moves(struct operation *operation, struct inode *parent, int at, const char *name) {
    struct stat st;
    int fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct inode *object = fd < 0 ? NULL : inode_get(parent->directory, fd, &st);
    if (!object || S_ISDIR(st.st_mode)) inode_names_move();
    if (!object) return;
    touch_object_of(operation, parent, &st, true);
    if (resync_active()) resync_moved(object);
    inode_forget(object, 1);
}

// Notes which object gets the new name, and sees whether a worker that died had given it already.
static bool rename_was_done(const struct fuse_request *request, const struct inode *from, const char *name, const struct inode *to, const char *new_name) {
    struct stat st;
    if (request->again && fstatat(to->fd, new_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && intent_moved(request, &st)) return true;
    if (fstatat(from->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) intent_object(request, &st);
    return false;
}

void op_rename(const struct fuse_request *request, uint64_t from_node, const char *name, uint64_t to_node, const char *new_name, unsigned flags) {
    struct inode *from = inode_of(request, from_node), *to = inode_of(request, to_node);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    struct crossing crossing;
    do { // with what was judged still in its place
        crossing_prepare(&crossing, from, name, to, new_name, flags);
        pthread_rwlock_wrlock(&namespace_lock);
    } while (!crossing_confirmed(&crossing, from, name, to, new_name));
    operation_changes_list(operation, from);
    if (to != from) operation_changes_list(operation, to);
    if (!(flags & RENAME_EXCHANGE)) entry_vanishes(to, new_name);
    operation_binds(from, to);
    entry_moves(operation, from, from->fd, name);
    if (flags & RENAME_EXCHANGE) entry_moves(operation, to, to->fd, new_name);
    // What a union file system wants left where the name was would be another thing on each side.
    int error = flags & RENAME_WHITEOUT ? EINVAL : crossing.refused ? EXDEV : !inode_name_fits(to, new_name) ? ENAMETOOLONG : 0;
    if (!error && !rename_was_done(&operation->request, from, name, to, new_name) && renameat2(from->fd, name, to->fd, new_name, flags)) error = errno;
    if (!error) {
        struct message message = {.frame = {.op = OP_RENAME, .valid = flags}, .name = name, .name2 = new_name};
        parent_times(&message, from);
        parent2_times(&message, to);
        crossing_ship(&crossing, operation, &message, from, to);
    }
    pthread_rwlock_unlock(&namespace_lock);
    crossing_end(&crossing, !error);
    operation_end(operation, error);
}

void op_link(const struct fuse_request *request, uint64_t node, uint64_t parent_node, const char *name) {
    struct inode *inode = inode_of(request, node), *parent = inode_of(request, parent_node);
    struct operation *operation = operation_begin(request, REPLY_ENTRY);
    struct stat st;
    bool nameless = S_ISREG(inode->type) && local_stat(inode->fd, &st) == 0 && st.st_nlink == 0;
    operation_touches_inode(operation, inode, (S_ISREG(inode->type) ? MARK_CONTENT : MARK_META) | MARK_LINKED);
    if (nameless) inode_lock(inode);
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    if (resync_active()) resync_moved(inode);
    if (nameless) operation_binds(parent, NULL);
    else operation_binds(inode, parent);
    int error = crossing_refuses_link(inode, parent, name) ? EXDEV : inode_name_fits(parent, name) ? local_link(inode->fd, parent->fd, name) : ENAMETOOLONG;
    if (error == EEXIST && request->again && fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == inode->ino && st.st_dev == inode->dev) error = 0;
    if (!error) error = look_up(request, parent->fd, name, &operation->entry);
    if (!error && nameless) {
        ship_whole(operation, inode, parent, name);
    } else if (!error) {
        struct message message = {.frame = {.op = OP_LINK}, .name = name};
        parent_times(&message, parent);
        operation_ship(operation, &message, inode, parent, true);
    }
    pthread_rwlock_unlock(&namespace_lock);
    if (nameless) inode_unlock(inode);
    operation_end(operation, error);
}

void op_create(const struct fuse_request *request, uint64_t parent_node, const char *name, mode_t mode, struct open_file *file) {
    struct inode *parent = inode_of(request, parent_node);
    struct operation *operation = operation_begin(request, REPLY_CREATE);
    struct make make = {(mode & 07777) | S_IFREG, request->umask, request->uid, request->gid, 0, NULL};
    int fd;
    operation->file = *file;
    pthread_rwlock_wrlock(&namespace_lock);
    operation_changes_list(operation, parent);
    operation_binds(parent, NULL);
    int error = make_entry(operation, parent, name, &make, flags_below(file->flags), &fd);
    if (!error) opened_below(inode_of(request, operation->entry.node), &operation->file, fd);
    operation->opened = !error;
    pthread_rwlock_unlock(&namespace_lock);
    if (error == EEXIST && !(file->flags & O_EXCL) && !(error = look_up(request, parent->fd, name, &operation->entry))) {
        struct inode *inode = inode_of(request, operation->entry.node);
        error = open_below(inode, &operation->file);
        operation->opened = !error;
    }
    operation_end(operation, error);
}
