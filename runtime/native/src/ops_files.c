// Open files.
#include "extent.h"
#include "intent.h"
#include "local.h"
#include "operations.h"
#include "room.h"
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

// What the kernel has already decided on (append, truncation) or what stands between our buffers and the file (direct) is not passed down; synchronous
// writes are made so by ourselves, on both sides at once.
int flags_below(int flags) {
    return (flags & ~(O_TMPFILE | O_APPEND | O_TRUNC | O_DIRECT | O_SYNC | O_DSYNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOATIME)) | O_NOCTTY;
}

void opened_below(struct inode *inode, struct open_file *file, int fd) {
    shared_keep(fd);
    inode_opened(inode);
    file->handle = (uint64_t)fd;
    file->answer_flags = FOPEN_KEEP_CACHE;
}

void close_below(int fd) {
    shared_drop(fd);
    close(fd);
}

int open_below(struct inode *inode, struct open_file *file) {
    int fd = room_reopen(inode->fd, flags_below(file->flags));
    if (fd < 0) return errno;
    opened_below(inode, file, fd);
    return 0;
}

void entry_unheard(const struct entry *entry, const struct open_file *file) {
    struct inode *inode = entry->node ? inode_at(entry->node) : NULL;
    if (file) {
        inode_released(inode);
        close_below((int)file->handle);
    }
    if (inode) inode_forget(inode, 1);
}

void op_open(const struct fuse_request *request, uint64_t node, struct open_file *file) {
    struct inode *inode = inode_of(request, node);
    int error = open_below(inode, file);
    if (error) {
        reply_error(request, error);
    } else if (!reply_open(request, file)) {
        inode_released(inode);
        close_below((int)file->handle);
    }
}

void op_read(const struct fuse_request *request, size_t size, off_t offset, const struct open_file *file) {
    reply_file(request, (int)file->handle, offset, size);
}

// Ships `size` bytes that are in the file now, under the lock of the file. kills_privileges: whose write takes set-id bits away, or NULL.
static int ship_bytes(struct operation *operation, struct inode *inode, int fd, const void *bytes, size_t size, off_t offset, bool sync,
                      const struct fuse_request *kills_privileges, bool last) {
    struct stat st;
    struct message message = {.frame = {.op = OP_WRITE, .flags = sync ? FRAME_SYNC : 0, .offset = (uint64_t)offset, .data_size = (uint32_t)size}, .data = bytes};
    if (fstat(fd, &st)) return errno;
    mode_t mode = kills_privileges ? mode_without_privileges(kills_privileges, &st) : st.st_mode;
    if (mode != st.st_mode && fchmod(fd, mode & 07777) == 0) {
        message.frame.valid = SET_MODE;
        message.frame.mode = mode;
    }
    object_times(&message, &st);
    if (last) operation_ship(operation, &message, inode, NULL, false);
    else stream_send(&message, inode, false);
    return 0;
}

// A modification that failed (no space left, say) may have moved the times of the file all the same.
static void ship_times(struct operation *operation, struct inode *inode, int fd) {
    struct stat st;
    struct message message = {.frame = {.op = OP_SETATTR, .valid = SET_MTIME}};
    if (fstat(fd, &st)) return;
    object_times(&message, &st);
    operation_ship(operation, &message, inode, NULL, false);
}

// A large write is shipped in parts, so that the peer writes one while the next is written here. The last one answers for all.
#define PART ((size_t)256 << 10)

void op_write(const struct fuse_request *request, uint64_t node, const unsigned char *bytes, size_t size, off_t offset, const struct open_file *file, bool kills_privileges) {
    struct inode *inode = inode_of(request, node);
    int fd = (int)file->handle, error = 0;
    bool sync = (file->flags & (O_SYNC | O_DSYNC)) != 0;
    struct operation *operation = operation_begin(request, REPLY_WRITE);
    operation_touches_range(operation, inode, offset, (off_t)size);
    inode_lock(inode);
    bool answered = false;
    while (!answered && !error) {
        size_t done = operation->written, part = sync || size - done < 2 * PART ? size - done : PART;
        ssize_t written = pwrite(fd, bytes + done, part, offset + (off_t)done);
        if (written < 0) {
            error = errno;
            break;
        }
        operation->written += (size_t)written;
        answered = (size_t)written < part || operation->written == size;
        if (written > 0)
            error = ship_bytes(operation, inode, fd, bytes + done, (size_t)written, offset + (off_t)done, sync && answered, kills_privileges ? request : NULL, answered);
    }
    if (!answered) ship_times(operation, inode, fd); // for the parts before as well
    if (operation->written) error = 0;
    inode_unlock(inode);
    if (sync && !error && ((file->flags & O_SYNC) == O_SYNC ? fsync(fd) : fdatasync(fd))) error = errno;
    operation_end(operation, error);
}

// Once: a worker that follows may have given the number to another file before it is asked again.
void op_release(const struct fuse_request *request, uint64_t node, const struct open_file *file) {
    if (!intent_changed(request)) {
        intent_may_change(request);
        inode_released(inode_of(request, node));
        close_below((int)file->handle);
    }
    reply_error(request, 0);
}

// Both sides at once.
void op_fsync(const struct fuse_request *request, uint64_t node, bool data_only, const struct open_file *file) {
    struct inode *inode = inode_of(request, node);
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    struct message message = {.frame = {.op = OP_FSYNC, .flags = (uint16_t)(FRAME_SYNC | (data_only ? FRAME_DATASYNC : 0))}};
    inode_lock(inode);
    operation_ship(operation, &message, inode, NULL, !S_ISREG(inode->type));
    inode_unlock(inode);
    int error = (data_only ? fdatasync((int)file->handle) : fsync((int)file->handle)) ? errno : 0;
    operation_end(operation, error);
}

// The kernel says of writes and truncations whose set-id bits go, not of these: without the right of root to keep them they do.
static void kill_privileges(const struct fuse_request *request, struct inode *inode, int fd) {
    struct stat st;
    if (request->uid == 0 || fstat(fd, &st)) return;
    mode_t mode = mode_without_privileges(request, &st);
    if (mode == st.st_mode || fchmod(fd, mode & 07777)) return;
    struct message message = {.frame = {.op = OP_SETATTR, .valid = SET_MODE, .mode = mode}};
    stream_send(&message, inode, false);
}

void op_fallocate(const struct fuse_request *request, uint64_t node, int mode, off_t offset, off_t length, const struct open_file *file) {
    struct inode *inode = inode_of(request, node);
    int fd = (int)file->handle;
    struct operation *operation = operation_begin(request, REPLY_STATUS);
    // What is cut out or put in moves all that follows.
    operation_touches_range(operation, inode, offset, mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) ? 0 : length);
    inode_lock(inode);
    extent_cut(inode->dev, inode->ino);
    struct stat before, st;
    bool sized = fstat(fd, &before) == 0;
    int error = fallocate(fd, mode, offset, length) ? errno : 0;
    // What found no room half way has grown the file on ext4: the kernel above, the peer and the application all know the old size.
    if (error && sized && fstat(fd, &st) == 0 && st.st_size > before.st_size) (void)!ftruncate(fd, before.st_size);
    if (!error && fstat(fd, &st) == 0) {
        struct message message = {.frame = {.op = OP_FALLOCATE, .mode = (uint32_t)mode, .offset = (uint64_t)offset, .size = (uint64_t)length}};
        object_times(&message, &st);
        kill_privileges(request, inode, fd);
        operation_ship(operation, &message, inode, NULL, false);
    }
    if (error) ship_times(operation, inode, fd);
    inode_unlock(inode);
    operation_end(operation, error);
}

// Copied here and shipped as writes, one megabyte at a time: the peer's source may be another object by then. The last of them answers for all.
#define COPY_LIMIT ((size_t)64 << 20) // more is answered short: nobody waits for one request for seconds

void op_copy_file_range(const struct fuse_request *request, int source, off_t source_offset, uint64_t node, int target, off_t offset, size_t size) {
    struct inode *inode = inode_of(request, node);
    struct operation *operation = operation_begin(request, REPLY_WRITE);
    if (size > COPY_LIMIT) size = COPY_LIMIT;
    operation_touches_range(operation, inode, offset, (off_t)(size ? size : 1));
    int error = 0;
    for (bool last = size == 0; !last;) {
        size_t done = operation->written, wanted = size - done < SESSION_DATA_LIMIT ? size - done : SESSION_DATA_LIMIT;
        ssize_t got = pread(source, request->room, wanted, source_offset + (off_t)done);
        if (got < 0) error = errno;
        struct stat st;
        // Nothing may follow that would leave what was sent without an answer: the end of the source is known before the last part is shipped.
        last = got < (ssize_t)wanted || done + wanted == size || (fstat(source, &st) == 0 && st.st_size <= source_offset + (off_t)(done + wanted));
        if (got <= 0) break;
        inode_lock(inode);
        ssize_t written = pwrite(target, request->room, (size_t)got, offset + (off_t)done);
        if (written < 0) error = errno;
        else operation->written += (size_t)written;
        if (written < got) last = true;
        if (written > 0) error = ship_bytes(operation, inode, target, request->room, (size_t)written, offset + (off_t)done, false, request->uid ? request : NULL, last);
        inode_unlock(inode);
        if (error) break;
    }
    operation_end(operation, operation->written ? 0 : error);
}

void op_lseek(const struct fuse_request *request, off_t offset, int whence, const struct open_file *file) {
    off_t found = lseek((int)file->handle, offset, whence);
    if (found < 0) reply_error(request, errno);
    else reply_offset(request, found);
}
