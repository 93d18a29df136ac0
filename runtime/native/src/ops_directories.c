// Open directories: plain descriptors, read with getdents64 itself, so that nothing about them has to be remembered between two requests.
#include "local.h"
#include "operations.h"
#include "room.h"
#include "shared.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void op_opendir(const struct fuse_request *request, uint64_t node, struct open_file *file) {
    int fd = room_reopen(inode_of(request, node)->fd, O_RDONLY | O_DIRECTORY);
    file->handle = (uint64_t)fd;
    shared_keep(fd);
    if (fd < 0) reply_error(request, errno);
    else if (!reply_open(request, file)) close_below(fd);
}

#define READ_LIMIT 32768u // of entries as the file system below gives them
#define SMALLEST 24u      // such an entry, with a name of one byte
#define REPLY_SMALLEST_PLUS (sizeof(struct fuse_entry_out) + 32)
#define LARGEST 280u

// As much is read as fits into the reply whatever the names are: a position inside what was read would have to be found again.
void op_readdir(const struct fuse_request *request, size_t size, off_t offset, const struct open_file *file, bool plus) {
    int fd = (int)file->handle;
    unsigned char entries[READ_LIMIT] __attribute__((aligned(8)));
    if (size > SESSION_DATA_LIMIT) size = SESSION_DATA_LIMIT;
    size_t room = plus ? size * SMALLEST / REPLY_SMALLEST_PLUS : size * SMALLEST / 32, used = 0;
    if (room < LARGEST) room = LARGEST;
    if (room > READ_LIMIT) room = READ_LIMIT;
    if (lseek(fd, 0, SEEK_CUR) != offset && lseek(fd, offset, SEEK_SET) < 0) {
        reply_error(request, errno);
        return;
    }
    ssize_t got = getdents64(fd, entries, room);
    if (got < 0) {
        reply_error(request, errno);
        return;
    }
    for (ssize_t at = 0; at < got;) {
        const struct dirent64 *one = (const void *)(entries + at);
        struct entry entry = {0};
        bool dots = one->d_name[0] == '.' && (!one->d_name[1] || (one->d_name[1] == '.' && !one->d_name[2]));
        size_t put;
        if (plus) {
            if (!dots) look_up(request, fd, one->d_name, &entry);
            put = put_entry_plus(request->room + used, size - used, one->d_name, &entry, one->d_ino, one->d_type, one->d_off);
        } else {
            put = put_entry(request->room + used, size - used, one->d_name, one->d_ino, one->d_type, one->d_off);
        }
        if (!put) {
            if (entry.node) inode_forget(inode_of(request, entry.node), 1);
            break;
        }
        used += put;
        at += one->d_reclen;
    }
    reply_bytes(request, request->room, used);
}
