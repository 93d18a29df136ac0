// Replies to the kernel: each is written whole, by one writev, to the descriptor that its request came from.
// Names and attributes are valid for ever: nobody but this mount changes them.
#include "intent.h"
#include "session.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FOREVER (1u << 30) // seconds

static bool send_reply(const struct fuse_request *request, int error, const void *one, size_t one_size, const void *two, size_t two_size) {
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + one_size + two_size), .error = -error, .unique = request->unique};
    struct iovec parts[3] = {{&header, sizeof header}, {(void *)(uintptr_t)one, one_size}, {(void *)(uintptr_t)two, two_size}};
    for (;;) {
        if (writev(request->fd, parts, two_size ? 3 : one_size ? 2 : 1) >= 0) {
            intent_end(request);
            return true;
        }
        if (errno != EINTR && errno != EAGAIN) break;
    }
    int why = errno;
    intent_end(request);
    // ENOENT: the connection was aborted. ENODEV: unmounted. Else the kernel did not like the reply: the application must not wait for ever.
    if (why == ENOENT || why == ENODEV || why == EPERM) return false;
    say("the kernel refused the reply to a request of kind %u: %s", request->opcode, strerror(why));
    struct fuse_out_header apology = {.len = sizeof apology, .error = -EIO, .unique = request->unique};
    if (write(request->fd, &apology, sizeof apology) < 0) say("and its error as well: %s", strerror(errno));
    return false;
}

static void put_attr(struct fuse_attr *out, const struct stat *st) {
    *out = (struct fuse_attr){.ino = st->st_ino,
                              .size = (uint64_t)st->st_size,
                              .blocks = (uint64_t)st->st_blocks,
                              .atime = (uint64_t)st->st_atim.tv_sec,
                              .mtime = (uint64_t)st->st_mtim.tv_sec,
                              .ctime = (uint64_t)st->st_ctim.tv_sec,
                              .atimensec = (uint32_t)st->st_atim.tv_nsec,
                              .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
                              .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
                              .mode = st->st_mode,
                              .nlink = (uint32_t)st->st_nlink,
                              .uid = st->st_uid,
                              .gid = st->st_gid,
                              .rdev = (uint32_t)st->st_rdev,
                              .blksize = (uint32_t)st->st_blksize};
}

static void put_node(struct fuse_entry_out *out, const struct entry *entry) {
    *out = (struct fuse_entry_out){.nodeid = entry->node, .entry_valid = FOREVER, .attr_valid = FOREVER};
    if (entry->node) put_attr(&out->attr, &entry->attr);
}

static void put_open(struct fuse_open_out *out, const struct open_file *file) {
    *out = (struct fuse_open_out){.fh = file->handle, .open_flags = file->answer_flags};
}

bool reply_error(const struct fuse_request *request, int error) { return send_reply(request, error, NULL, 0, NULL, 0); }

bool reply_bytes(const struct fuse_request *request, const void *bytes, size_t size) { return send_reply(request, 0, bytes, size, NULL, 0); }

bool reply_file(const struct fuse_request *request, int file, off_t offset, size_t size) {
    if (size > SESSION_DATA_LIMIT) size = SESSION_DATA_LIMIT;
    size_t used = 0;
    while (used < size) {
        ssize_t n = pread(file, request->room + used, size - used, offset + (off_t)used);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && !used) return reply_error(request, errno);
        if (n <= 0) break;
        used += (size_t)n;
    }
    return reply_bytes(request, request->room, used);
}

bool reply_entry(const struct fuse_request *request, const struct entry *entry) {
    struct fuse_entry_out out;
    put_node(&out, entry);
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_create(const struct fuse_request *request, const struct entry *entry, const struct open_file *file) {
    struct fuse_entry_out out;
    struct fuse_open_out open_out;
    put_node(&out, entry);
    put_open(&open_out, file);
    return send_reply(request, 0, &out, sizeof out, &open_out, sizeof open_out);
}

bool reply_attr(const struct fuse_request *request, const struct stat *attr) {
    struct fuse_attr_out out = {.attr_valid = FOREVER};
    put_attr(&out.attr, attr);
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

// As the kernel defines them since FUSE 7.39.
struct time_out {
    int64_t seconds;
    uint32_t nanoseconds, reserved;
};

struct statx_out {
    uint64_t valid_s;
    uint32_t valid_ns, flags;
    uint64_t spare[2];
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, unused;
    uint64_t ino, size, blocks, attributes_mask;
    struct time_out atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t unused2[14];
};
_Static_assert(sizeof(struct statx_out) == 32 + 256, "the layout of the kernel");

static struct time_out put_time(struct statx_timestamp t) { return (struct time_out){.seconds = t.tv_sec, .nanoseconds = t.tv_nsec}; }

bool reply_statx(const struct fuse_request *request, const struct statx *attr) {
    struct statx_out out = {.valid_s = FOREVER,
                            .mask = attr->stx_mask,
                            .blksize = attr->stx_blksize,
                            .nlink = attr->stx_nlink,
                            .uid = attr->stx_uid,
                            .gid = attr->stx_gid,
                            .mode = attr->stx_mode,
                            .ino = attr->stx_ino,
                            .size = attr->stx_size,
                            .blocks = attr->stx_blocks,
                            .atime = put_time(attr->stx_atime),
                            .btime = put_time(attr->stx_btime),
                            .ctime = put_time(attr->stx_ctime),
                            .mtime = put_time(attr->stx_mtime),
                            .rdev_major = attr->stx_rdev_major,
                            .rdev_minor = attr->stx_rdev_minor};
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_open(const struct fuse_request *request, const struct open_file *file) {
    struct fuse_open_out out;
    put_open(&out, file);
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_write(const struct fuse_request *request, size_t written) {
    struct fuse_write_out out = {.size = (uint32_t)written};
    uint64_t whole = written;
    if (request->opcode == OPCODE_COPY_FILE_RANGE_64) return send_reply(request, 0, &whole, sizeof whole, NULL, 0);
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_statfs(const struct fuse_request *request, const struct statvfs *st) {
    struct fuse_statfs_out out = {.st = {.blocks = st->f_blocks,
                                         .bfree = st->f_bfree,
                                         .bavail = st->f_bavail,
                                         .files = st->f_files,
                                         .ffree = st->f_ffree,
                                         .bsize = (uint32_t)st->f_bsize,
                                         .namelen = (uint32_t)st->f_namemax,
                                         .frsize = (uint32_t)st->f_frsize}};
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_size(const struct fuse_request *request, size_t size) {
    struct fuse_getxattr_out out = {.size = (uint32_t)size};
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

bool reply_offset(const struct fuse_request *request, off_t offset) {
    struct fuse_lseek_out out = {.offset = (uint64_t)offset};
    return send_reply(request, 0, &out, sizeof out, NULL, 0);
}

// ---- listings ----

static size_t put_name(unsigned char *out, const char *name, uint64_t ino, uint32_t type, off_t next) {
    size_t length = strlen(name), size = FUSE_NAME_OFFSET + length;
    struct fuse_dirent head = {.ino = ino, .off = (uint64_t)next, .namelen = (uint32_t)length, .type = type};
    memcpy(out, &head, FUSE_NAME_OFFSET);
    memcpy(out + FUSE_NAME_OFFSET, name, length);
    memset(out + size, 0, FUSE_REC_ALIGN(size) - size);
    return FUSE_REC_ALIGN(size);
}

size_t put_entry(unsigned char *out, size_t room, const char *name, uint64_t ino, uint32_t type, off_t next) {
    if (FUSE_REC_ALIGN(FUSE_NAME_OFFSET + strlen(name)) > room) return 0;
    return put_name(out, name, ino, type, next);
}

size_t put_entry_plus(unsigned char *out, size_t room, const char *name, const struct entry *entry, uint64_t ino, uint32_t type, off_t next) {
    struct fuse_entry_out node;
    if (sizeof node + FUSE_REC_ALIGN(FUSE_NAME_OFFSET + strlen(name)) > room) return 0;
    put_node(&node, entry);
    memcpy(out, &node, sizeof node);
    return sizeof node + put_name(out + sizeof node, name, ino, type, next);
}
