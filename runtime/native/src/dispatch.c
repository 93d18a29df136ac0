// Takes a request apart. The kernel is trusted for the meaning of what it sends, not for its length.
#include "dispatch.h"
#include "intent.h"
#include "operations.h"
#include <errno.h>
#include <string.h>

// What is left of a request. A part that is not there makes `broken`, and is read as zeros or as an empty name.
struct parts {
    const unsigned char *at, *end;
    bool broken;
};

static const void *take(struct parts *parts, size_t size) {
    static const uint64_t zeros[16];
    if ((size_t)(parts->end - parts->at) < size) {
        parts->broken = true;
        return zeros;
    }
    const unsigned char *at = parts->at;
    parts->at += size;
    return at;
}

static const char *take_name(struct parts *parts) {
    const unsigned char *zero = memchr(parts->at, 0, (size_t)(parts->end - parts->at));
    if (!zero) {
        parts->broken = true;
        return "";
    }
    const char *name = (const char *)parts->at;
    parts->at = zero + 1;
    return name;
}

// As the kernel defines it since FUSE 7.39.
struct statx_in {
    uint32_t getattr_flags, reserved;
    uint64_t handle;
    uint32_t flags, mask;
};

#define TAKE(type) ((const struct type *)take(&parts, sizeof(struct type)))

static struct open_file opened(uint64_t handle, uint32_t flags) { return (struct open_file){.handle = handle, .flags = (int)flags}; }

static void forget_many(const struct fuse_request *request, struct parts parts) {
    const struct fuse_batch_forget_in *in = TAKE(fuse_batch_forget_in);
    for (uint32_t i = 0; i < in->count && !parts.broken; i++) {
        const struct fuse_forget_one *one = TAKE(fuse_forget_one);
        if (!parts.broken) op_forget(request, one->nodeid, one->nlookup);
    }
}

// ---- names ----

static bool dispatch_name(struct fuse_request *request, struct parts parts) {
    uint64_t node = request->node;
    switch (request->opcode) {
    case FUSE_LOOKUP: {
        const char *name = take_name(&parts);
        if (!parts.broken) op_lookup(request, node, name);
        break;
    }
    case FUSE_SYMLINK: {
        const char *name = take_name(&parts), *target = take_name(&parts);
        if (!parts.broken) op_symlink(request, target, node, name);
        break;
    }
    case FUSE_MKNOD: {
        const struct fuse_mknod_in *in = TAKE(fuse_mknod_in);
        const char *name = take_name(&parts);
        request->umask = in->umask;
        if (!parts.broken) op_mknod(request, node, name, in->mode, in->rdev);
        break;
    }
    case FUSE_MKDIR: {
        const struct fuse_mkdir_in *in = TAKE(fuse_mkdir_in);
        const char *name = take_name(&parts);
        request->umask = in->umask;
        if (!parts.broken) op_mkdir(request, node, name, in->mode);
        break;
    }
    case FUSE_UNLINK: {
        const char *name = take_name(&parts);
        if (!parts.broken) op_unlink(request, node, name);
        break;
    }
    case FUSE_RMDIR: {
        const char *name = take_name(&parts);
        if (!parts.broken) op_rmdir(request, node, name);
        break;
    }
    case FUSE_RENAME: {
        const struct fuse_rename_in *in = TAKE(fuse_rename_in);
        const char *name = take_name(&parts), *new_name = take_name(&parts);
        if (!parts.broken) op_rename(request, node, name, in->newdir, new_name, 0);
        break;
    }
    case FUSE_RENAME2: {
        const struct fuse_rename2_in *in = TAKE(fuse_rename2_in);
        const char *name = take_name(&parts), *new_name = take_name(&parts);
        if (!parts.broken) op_rename(request, node, name, in->newdir, new_name, in->flags);
        break;
    }
    case FUSE_LINK: {
        const struct fuse_link_in *in = TAKE(fuse_link_in);
        const char *name = take_name(&parts);
        if (!parts.broken) op_link(request, in->oldnodeid, node, name);
        break;
    }
    default: { // FUSE_CREATE, FUSE_TMPFILE
        const struct fuse_create_in *in = TAKE(fuse_create_in);
        const char *name = take_name(&parts);
        struct open_file file = opened(0, in->flags);
        request->umask = in->umask;
        if (parts.broken) break;
        if (request->opcode == FUSE_CREATE) op_create(request, node, name, in->mode, &file);
        else op_tmpfile(request, node, in->mode, &file);
    }
    }
    return !parts.broken;
}

// ---- open files ----

static bool dispatch_file(const struct fuse_request *request, struct parts parts) {
    uint64_t node = request->node;
    switch (request->opcode) {
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
        struct open_file file = opened(0, TAKE(fuse_open_in)->flags);
        if (parts.broken) break;
        if (request->opcode == FUSE_OPEN) op_open(request, node, &file);
        else op_opendir(request, node, &file);
        break;
    }
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: {
        const struct fuse_read_in *in = TAKE(fuse_read_in);
        struct open_file file = opened(in->fh, in->flags);
        if (parts.broken) break;
        if (request->opcode == FUSE_READ) op_read(request, in->size, (off_t)in->offset, &file);
        else op_readdir(request, in->size, (off_t)in->offset, &file, request->opcode == FUSE_READDIRPLUS);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *in = TAKE(fuse_write_in);
        struct open_file file = opened(in->fh, in->flags);
        const unsigned char *bytes = take(&parts, in->size);
        if (!parts.broken) op_write(request, node, bytes, in->size, (off_t)in->offset, &file, in->write_flags & FUSE_WRITE_KILL_SUIDGID);
        break;
    }
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: {
        struct open_file file = opened(TAKE(fuse_release_in)->fh, 0);
        if (parts.broken) break;
        op_release(request, node, &file);
        break;
    }
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: {
        const struct fuse_fsync_in *in = TAKE(fuse_fsync_in);
        struct open_file file = opened(in->fh, 0);
        if (!parts.broken) op_fsync(request, node, in->fsync_flags & FUSE_FSYNC_FDATASYNC, &file);
        break;
    }
    case FUSE_FALLOCATE: {
        const struct fuse_fallocate_in *in = TAKE(fuse_fallocate_in);
        struct open_file file = opened(in->fh, 0);
        if (!parts.broken) op_fallocate(request, node, (int)in->mode, (off_t)in->offset, (off_t)in->length, &file);
        break;
    }
    case FUSE_COPY_FILE_RANGE:
    case OPCODE_COPY_FILE_RANGE_64: {
        const struct fuse_copy_file_range_in *in = TAKE(fuse_copy_file_range_in);
        if (!parts.broken) op_copy_file_range(request, (int)in->fh_in, (off_t)in->off_in, in->nodeid_out, (int)in->fh_out, (off_t)in->off_out, in->len);
        break;
    }
    default: { // FUSE_LSEEK
        const struct fuse_lseek_in *in = TAKE(fuse_lseek_in);
        struct open_file file = opened(in->fh, 0);
        if (!parts.broken) op_lseek(request, (off_t)in->offset, (int)in->whence, &file);
    }
    }
    return !parts.broken;
}

// ---- attributes ----

static bool dispatch_attribute(const struct fuse_request *request, struct parts parts) {
    uint64_t node = request->node;
    switch (request->opcode) {
    case FUSE_GETATTR: op_getattr(request, node); break;
    case OPCODE_STATX: {
        const struct statx_in *in = TAKE(statx_in);
        if (!parts.broken) op_statx(request, node, in->flags, in->mask);
        break;
    }
    case FUSE_SETATTR: {
        const struct fuse_setattr_in *in = TAKE(fuse_setattr_in);
        if (!parts.broken) op_setattr(request, node, in);
        break;
    }
    case FUSE_READLINK: op_readlink(request, node); break;
    case FUSE_STATFS: op_statfs(request, node); break;
    case FUSE_SETXATTR: {
        const struct fuse_setxattr_in *in = TAKE(fuse_setxattr_in);
        const char *name = take_name(&parts);
        const void *value = take(&parts, in->size);
        if (!parts.broken) op_setxattr(request, node, name, value, in->size, (int)in->flags, in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID);
        break;
    }
    case FUSE_GETXATTR: {
        const struct fuse_getxattr_in *in = TAKE(fuse_getxattr_in);
        const char *name = take_name(&parts);
        if (!parts.broken) op_getxattr(request, node, name, in->size);
        break;
    }
    case FUSE_LISTXATTR: {
        const struct fuse_getxattr_in *in = TAKE(fuse_getxattr_in);
        if (!parts.broken) op_listxattr(request, node, in->size);
        break;
    }
    default: { // FUSE_REMOVEXATTR
        const char *name = take_name(&parts);
        if (!parts.broken) op_removexattr(request, node, name);
    }
    }
    return !parts.broken;
}

void dispatch(struct fuse_request *request, const unsigned char *bytes, size_t size) {
    const struct fuse_in_header *header = (const void *)bytes;
    request->opcode = header->opcode;
    request->unique = header->unique;
    request->node = header->nodeid;
    request->uid = header->uid;
    request->gid = header->gid;
    request->pid = (pid_t)header->pid;
    struct parts parts = {.at = bytes + sizeof *header, .end = bytes + size};
    bool whole = true;
    if (header->opcode != FUSE_FORGET && header->opcode != FUSE_BATCH_FORGET && header->nodeid && !inode_of(request, header->nodeid)) {
        reply_error(request, ESTALE);
        return;
    }
    switch (header->opcode) {
    case FUSE_LOOKUP:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_TMPFILE:
        if (header->opcode != FUSE_LOOKUP) intent_begin(request);
        whole = dispatch_name(request, parts);
        break;
    case FUSE_OPEN:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_COPY_FILE_RANGE:
    case OPCODE_COPY_FILE_RANGE_64:
        if (header->opcode == FUSE_RELEASE || header->opcode == FUSE_RELEASEDIR) intent_begin(request);
        whole = dispatch_file(request, parts);
        break;
    case FUSE_GETATTR:
    case OPCODE_STATX:
    case FUSE_SETATTR:
    case FUSE_READLINK:
    case FUSE_STATFS:
    case FUSE_SETXATTR:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_REMOVEXATTR:
        if (header->opcode == FUSE_SETXATTR || header->opcode == FUSE_REMOVEXATTR) intent_begin(request);
        whole = dispatch_attribute(request, parts);
        break;
    case FUSE_FORGET: {
        const struct fuse_forget_in *in = TAKE(fuse_forget_in);
        if (!parts.broken) op_forget(request, request->node, in->nlookup);
        return;
    }
    case FUSE_BATCH_FORGET: forget_many(request, parts); return;
    case FUSE_DESTROY: reply_error(request, 0); return;
    // No flush: nothing waits for a close. No locks: the kernel keeps them on this node. No ioctl: nothing that could not be replicated. No interrupt:
    // what began on both sides is finished on both sides. The kernel remembers this answer.
    default: reply_error(request, ENOSYS);
    }
    if (!whole) {
        say("the kernel sent a malformed request of kind %u", header->opcode);
        reply_error(request, EIO);
    }
}
