// Files without a name (O_TMPFILE). The peer hears of them when they get one: until then nobody but their opener can see them, and a crash loses them
// on a plain directory as well.
#include "local.h"
#include "operations.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

void op_tmpfile(const struct fuse_request *request, uint64_t parent, mode_t mode, struct open_file *file) {
    struct make make = {.mode = mode, .umask = request->umask, .uid = request->uid, .gid = request->gid};
    struct entry entry = {0};
    pthread_rwlock_rdlock(&namespace_lock); // its group is that of the directory or of the caller: what the directory says must not change meanwhile
    int fd = local_tmpfile(inode_of(request, parent)->fd, &make), made = errno;
    pthread_rwlock_unlock(&namespace_lock);
    if (fd < 0) {
        reply_error(request, made);
        return;
    }
    int object = local_reopen(fd, O_PATH), error = object < 0 ? errno : 0;
    struct inode *inode = error ? NULL : inode_get(request->directory, object, &entry.attr);
    if (!error && !inode) error = errno;
    close(fd);
    if (!error) {
        entry.node = inode_node(inode);
        error = open_below(inode, file);
        if (error) inode_forget(inode, 1);
    }
    if (error) reply_error(request, error);
    else if (!reply_create(request, &entry, file)) entry_unheard(&entry, file);
}

static bool ship_content(struct inode *inode, int file, off_t size) {
    static unsigned char part[SESSION_DATA_LIMIT]; // namespace_lock is held
    for (off_t at = 0; at < size;) {
        off_t data = lseek(file, at, SEEK_DATA);
        if (data < 0) return errno == ENXIO; // a hole up to the end
        off_t end = lseek(file, data, SEEK_HOLE);
        for (at = data; at < end;) {
            ssize_t n = pread(file, part, end - at < (off_t)sizeof part ? (size_t)(end - at) : sizeof part, at);
            if (n <= 0) return n == 0;
            struct message message = {.frame = {.op = OP_WRITE, .offset = (uint64_t)at, .data_size = (uint32_t)n}, .data = part};
            stream_send(&message, inode, true);
            at += n;
        }
    }
    return true;
}

void ship_whole(struct operation *operation, struct inode *inode, struct inode *parent, const char *name) {
    struct stat st = {0};
    unsigned char *xattrs = NULL;
    size_t xattrs_size = 0;
    int file = stream_connected() ? local_reopen(inode->fd, O_RDONLY | O_NONBLOCK) : -1;
    bool whole = file >= 0 && fstat(file, &st) == 0 && xattrs_read(inode->fd, &xattrs, &xattrs_size) == 0;
    if (whole) {
        struct message made = {.frame = {.op = OP_MAKE, .mode = st.st_mode & (S_IFMT | 0700), .uid = st.st_uid, .gid = st.st_gid}, .name = name};
        object_times(&made, &st);
        parent_times(&made, parent);
        stream_send(&made, parent, true);
        whole = ship_content(inode, file, st.st_size);
    }
    if (!whole && stream_connected()) stream_lose("a file that got its first name cannot be read");
    struct message meta = {.frame = {.op = OP_FILE_META, .mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid, .size = (uint64_t)st.st_size, .data_size = (uint32_t)xattrs_size},
                           .data = xattrs};
    if (whole) object_times(&meta, &st);
    operation_ship(operation, &meta, inode, NULL, true);
    if (file >= 0) close(file);
    free(xattrs);
}
