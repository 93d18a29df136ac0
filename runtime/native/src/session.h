// The protocol of the kernel's FUSE, spoken on /dev/fuse itself: one mount per replicated directory, one descriptor per thread, requests and replies.
// What a request means is not decided here: see operations.h.
#pragma once
#include "common.h"
#include <linux/fuse.h>
#include <sys/statvfs.h>

#define SESSION_DATA_LIMIT (1u << 20) // of one write, one read

// What the headers of the build may not know yet.
#ifndef FUSE_HAS_RESEND
#define FUSE_HAS_RESEND (1ULL << 39)
#endif
#define OPCODE_STATX 52u
#define OPCODE_COPY_FILE_RANGE_64 53u

// One request of an application. Copied into what must outlive its handler; `room` and all pointers into it do not.
struct fuse_request {
    const struct directory *directory;
    int fd; // where it came from and where the reply goes
    uint32_t opcode;
    uint64_t unique, node;
    uid_t uid;
    gid_t gid;
    pid_t pid;
    mode_t umask;         // of the caller, for what makes a name
    uint32_t intent;      // intent.h; 0: none
    bool again;           // sent a second time: the first may have been done, whole or half
    unsigned char *room;  // SESSION_DATA_LIMIT bytes for the handler, aligned to a page
};

struct entry {
    uint64_t node; // 0: the name does not exist
    struct stat attr;
};

struct open_file {
    uint64_t handle;
    int flags;             // of open(2)
    uint32_t answer_flags; // FOPEN_*
};

// ---- the life of a mount ----
int session_begin(const struct directory *directory, unsigned long mount_flags); // mounts, greets, starts the threads. 0 or errno, nothing left behind
bool session_can_resend(void); // the kernel sends again what a worker that died did not answer
int session_take_over(const struct directory *directory); // serves what the last worker served
void session_join(const struct directory *directory);                            // after the unmount: waits for the threads
void session_end(const struct directory *directory);                             // joins, closes

// ---- replies, from any thread, exactly one per request. False: the kernel does not want it any more ----
bool reply_error(const struct fuse_request *request, int error); // 0: done
bool reply_bytes(const struct fuse_request *request, const void *bytes, size_t size);
bool reply_file(const struct fuse_request *request, int file, off_t offset, size_t size); // what the file has there
bool reply_entry(const struct fuse_request *request, const struct entry *entry);
bool reply_create(const struct fuse_request *request, const struct entry *entry, const struct open_file *file);
bool reply_attr(const struct fuse_request *request, const struct stat *attr);
bool reply_statx(const struct fuse_request *request, const struct statx *attr);
bool reply_open(const struct fuse_request *request, const struct open_file *file);
bool reply_write(const struct fuse_request *request, size_t written);
bool reply_statfs(const struct fuse_request *request, const struct statvfs *st);
bool reply_size(const struct fuse_request *request, size_t size); // of an extended attribute that was not asked for itself
bool reply_offset(const struct fuse_request *request, off_t offset);
size_t put_entry(unsigned char *out, size_t room, const char *name, uint64_t ino, uint32_t type, off_t next);                // 0: does not fit
size_t put_entry_plus(unsigned char *out, size_t room, const char *name, const struct entry *entry, uint64_t ino, uint32_t type, off_t next);

// ---- what the kernel must forget, because it changed beside the mount ----
int session_invalidate_inode(const struct directory *directory, uint64_t node); // content and attributes; 0 or errno
int session_invalidate_entry(const struct directory *directory, uint64_t parent, const char *name);
