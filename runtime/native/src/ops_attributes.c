// Attributes, extended attributes, links' targets, and the file system as a whole.
#include "extent.h"
#include "intent.h"
#include "local.h"
#include "operations.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

void op_getattr(const struct fuse_request *request, uint64_t node) {
    struct stat st;
    int error = local_stat(inode_of(request, node)->fd, &st);
    if (error) reply_error(request, error);
    else reply_attr(request, &st);
}

// Asked for where the time of birth is wanted.
void op_statx(const struct fuse_request *request, uint64_t node, unsigned flags, unsigned mask) {
    struct statx attr;
    int how = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | ((int)flags & (AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC));
    if (statx(inode_of(request, node)->fd, "", how, mask | STATX_BASIC_STATS, &attr)) reply_error(request, errno);
    else reply_statx(request, &attr);
}

#define CAPABILITY_FSETID 4

// The request names one group and no right; the others of the caller are asked for only here, where it is rare.
static bool caller_keeps_group(const struct fuse_request *request, gid_t gid) {
    if (request->gid == gid) return true;
    char text[4096];
    snprintf(text, sizeof text, "/proc/%d/status", (int)request->pid);
    FILE *file = fopen(text, "re");
    if (!file) return request->uid == 0;
    bool keeps = false;
    while (!keeps && fgets(text, sizeof text, file)) {
        if (strncmp(text, "CapEff:", 7) == 0) keeps = strtoull(text + 7, NULL, 16) >> CAPABILITY_FSETID & 1;
        if (strncmp(text, "Groups:", 7) != 0) continue;
        for (char *at = text + 7, *end; !keeps; at = end) {
            unsigned long group = strtoul(at, &end, 10);
            if (end == at) break;
            keeps = group == gid;
        }
    }
    fclose(file);
    return keeps;
}

mode_t mode_without_privileges(const struct fuse_request *request, const struct stat *st) {
    mode_t gone = S_ISUID;
    if (st->st_mode & S_ISGID && (st->st_mode & S_IXGRP || !caller_keeps_group(request, st->st_gid))) gone |= S_ISGID;
    return st->st_mode & ~gone;
}

static struct attributes attributes_of(const struct fuse_setattr_in *in) {
    struct attributes wanted = {.mode = in->mode,
                                .uid = in->uid,
                                .gid = in->gid,
                                .size = (off_t)in->size,
                                .atime = {(time_t)in->atime, (long)in->atimensec},
                                .mtime = {(time_t)in->mtime, (long)in->mtimensec}};
    if (in->valid & FATTR_MODE) wanted.valid |= SET_MODE;
    if (in->valid & FATTR_UID) wanted.valid |= SET_UID;
    if (in->valid & FATTR_GID) wanted.valid |= SET_GID;
    if (in->valid & FATTR_SIZE) wanted.valid |= SET_SIZE;
    if (in->valid & FATTR_ATIME) wanted.valid |= SET_ATIME;
    if (in->valid & FATTR_MTIME) wanted.valid |= SET_MTIME;
    if (in->valid & FATTR_ATIME_NOW) clock_gettime(CLOCK_REALTIME, &wanted.atime);
    if (in->valid & FATTR_MTIME_NOW) clock_gettime(CLOCK_REALTIME, &wanted.mtime);
    return wanted;
}

// A file that gets shorter differs from its new end to its old one, also when it grows again. What a write adds to it meanwhile marks itself.
static void touch_what_is_cut(struct operation *operation, struct inode *inode, off_t size) {
    struct stat st;
    if (local_stat(inode->fd, &st)) operation_touches_inode(operation, inode, MARK_CONTENT);
    else if (size < st.st_size) operation_touches_range(operation, inode, size, st.st_size - size);
}

// Set-id bits go when somebody without the right to keep them truncates, and whenever a file gets an owner, the same one too: the kernel then asks for
// nothing at all. (It says of every change of owner that they go; where root's stay is decided here.)
static bool takes_privileges(const struct fuse_setattr_in *in, const struct attributes *wanted, const struct inode *inode) {
    if (wanted->valid & SET_MODE || S_ISDIR(inode->type) || S_ISLNK(inode->type)) return false;
    return in->valid & FATTR_KILL_SUIDGID || wanted->valid & (SET_UID | SET_GID) || !wanted->valid;
}

void op_setattr(const struct fuse_request *request, uint64_t node, const struct fuse_setattr_in *in) {
    struct inode *inode = inode_of(request, node);
    struct operation *operation = operation_begin(request, REPLY_ATTR);
    struct attributes wanted = attributes_of(in);
    struct stat *st = &operation->entry.attr;
    operation_touches_inode(operation, inode, metadata_mark(inode));
    if (wanted.valid & SET_SIZE) touch_what_is_cut(operation, inode, wanted.size);
    inode_lock(inode);
    int error = 0;
    if (takes_privileges(in, &wanted, inode) && !(error = local_stat(inode->fd, st)) && st->st_mode & (S_ISUID | S_ISGID)) {
        wanted.mode = mode_without_privileges(request, st);
        wanted.valid |= SET_MODE; // on both sides, whatever the change of owner itself makes of them
    }
    if (wanted.valid & SET_SIZE) extent_cut(inode->dev, inode->ino);
    if (!error) error = local_setattr(inode->fd, &wanted);
    int stated = local_stat(inode->fd, st);
    if (!error) error = stated;
    if (!error && wanted.valid) {
        struct message message = {.frame = {.op = OP_SETATTR, .valid = wanted.valid, .mode = wanted.mode, .uid = wanted.uid, .gid = wanted.gid,
                                            .size = (uint64_t)wanted.size, .atime_s = wanted.atime.tv_sec, .atime_n = (uint32_t)wanted.atime.tv_nsec}};
        if (wanted.valid & (SET_SIZE | SET_MTIME)) message.frame.valid |= SET_MTIME;
        object_times(&message, st);
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

void op_readlink(const struct fuse_request *request, uint64_t node) {
    ssize_t size = readlinkat(inode_of(request, node)->fd, "", (char *)request->room, PATH_MAX + 1);
    if (size < 0) reply_error(request, errno);
    else if (size > PATH_MAX) reply_error(request, ENAMETOOLONG);
    else reply_bytes(request, request->room, (size_t)size);
}

void op_statfs(const struct fuse_request *request, uint64_t node) {
    struct statvfs st;
    if (fstatvfs(inode_of(request, node)->fd, &st)) reply_error(request, errno);
    else reply_statfs(request, &st);
}

// ---- extended attributes ----

// Who sets an access ACL without belonging to the group of the file loses the set-group-id bit.
static void kill_group(struct message *message, struct inode *inode) {
    struct stat st;
    if (local_stat(inode->fd, &st) || !(st.st_mode & S_ISGID) || chmod(proc_path(inode->fd).text, st.st_mode & 07777 & ~(mode_t)S_ISGID)) return;
    stream_send(message, inode, !S_ISREG(inode->type));
    *message = (struct message){.frame = {.op = OP_SETATTR, .valid = SET_MODE, .mode = st.st_mode & ~(mode_t)S_ISGID}};
}

static bool has_xattr(const struct inode *inode, const char *name) { return getxattr(proc_path(inode->fd).text, name, NULL, 0) >= 0; }

void op_setxattr(const struct fuse_request *request, uint64_t node, const char *name, const void *value, size_t size, int flags, bool kills_group) {
    struct inode *inode = inode_of(request, node);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    operation_touches_inode(operation, inode, metadata_mark(inode));
    inode_lock(inode);
    if (flags & XATTR_CREATE && !has_xattr(inode, name)) intent_may_change(request);
    int error = local_setxattr(inode->fd, name, value, size, flags);
    if (error == EEXIST && intent_changed(request)) error = local_setxattr(inode->fd, name, value, size, 0);
    if (!error) {
        struct message message = {.frame = {.op = OP_SETXATTR, .data_size = (uint32_t)size}, .name = name, .data = value};
        if (kills_group) kill_group(&message, inode);
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}

static void reply_xattr(const struct fuse_request *request, ssize_t got, size_t asked) {
    if (got < 0) reply_error(request, errno);
    else if (asked) reply_bytes(request, request->room, (size_t)got);
    else reply_size(request, (size_t)got);
}

void op_getxattr(const struct fuse_request *request, uint64_t node, const char *name, size_t size) {
    char wanted[XATTR_NAME_MAX + 1]; // the room for the value may hold the end of the name
    if (strlen(name) >= sizeof wanted) {
        reply_error(request, ERANGE);
        return;
    }
    strcpy(wanted, name);
    if (size > XATTR_SIZE_MAX) size = XATTR_SIZE_MAX;
    reply_xattr(request, getxattr(proc_path(inode_of(request, node)->fd).text, wanted, request->room, size), size);
}

void op_listxattr(const struct fuse_request *request, uint64_t node, size_t size) {
    if (size > XATTR_LIST_MAX) size = XATTR_LIST_MAX;
    reply_xattr(request, listxattr(proc_path(inode_of(request, node)->fd).text, (char *)request->room, size), size);
}

void op_removexattr(const struct fuse_request *request, uint64_t node, const char *name) {
    struct inode *inode = inode_of(request, node);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    operation_touches_inode(operation, inode, metadata_mark(inode));
    inode_lock(inode);
    if (has_xattr(inode, name)) intent_may_change(request);
    int error = local_removexattr(inode->fd, name);
    if (error == ENODATA && intent_changed(request)) error = 0;
    if (!error) {
        struct message message = {.frame = {.op = OP_REMOVEXATTR}, .name = name};
        operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    }
    inode_unlock(inode);
    operation_end(operation, error);
}
