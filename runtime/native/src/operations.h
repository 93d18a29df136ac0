// The operations of the file system that applications see on a primary: one function each. They answer by a reply_*() of session.h, now or later.
// ops_names.c: whatever makes or changes a name. ops_nameless.c: files without one. ops_files.c: open files. ops_directories.c: open directories. ops_attributes.c: the rest.
#pragma once
#include "inode.h"
#include "session.h"
#include "stream.h"

void op_lookup(const struct fuse_request *request, uint64_t parent, const char *name);
void op_forget(const struct fuse_request *request, uint64_t node, uint64_t references); // no reply
void op_mknod(const struct fuse_request *request, uint64_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(const struct fuse_request *request, uint64_t parent, const char *name, mode_t mode);
void op_unlink(const struct fuse_request *request, uint64_t parent, const char *name);
void op_rmdir(const struct fuse_request *request, uint64_t parent, const char *name);
void op_symlink(const struct fuse_request *request, const char *target, uint64_t parent, const char *name);
void op_rename(const struct fuse_request *request, uint64_t from, const char *name, uint64_t to, const char *new_name, unsigned flags);
void op_link(const struct fuse_request *request, uint64_t node, uint64_t parent, const char *name);
void op_tmpfile(const struct fuse_request *request, uint64_t parent, mode_t mode, struct open_file *file);
void op_create(const struct fuse_request *request, uint64_t parent, const char *name, mode_t mode, struct open_file *file);

void op_open(const struct fuse_request *request, uint64_t node, struct open_file *file);
void op_read(const struct fuse_request *request, size_t size, off_t offset, const struct open_file *file);
void op_write(const struct fuse_request *request, uint64_t node, const unsigned char *bytes, size_t size, off_t offset, const struct open_file *file, bool kills_privileges);
void op_release(const struct fuse_request *request, uint64_t node, const struct open_file *file);
void op_fsync(const struct fuse_request *request, uint64_t node, bool data_only, const struct open_file *file); // of a file or a directory
void op_fallocate(const struct fuse_request *request, uint64_t node, int mode, off_t offset, off_t length, const struct open_file *file);
void op_copy_file_range(const struct fuse_request *request, int source, off_t source_offset, uint64_t node, int target, off_t offset, size_t size);
void op_lseek(const struct fuse_request *request, off_t offset, int whence, const struct open_file *file);

void op_opendir(const struct fuse_request *request, uint64_t node, struct open_file *file);
void op_readdir(const struct fuse_request *request, size_t size, off_t offset, const struct open_file *file, bool plus);

void op_getattr(const struct fuse_request *request, uint64_t node);
void op_statx(const struct fuse_request *request, uint64_t node, unsigned flags, unsigned mask);
void op_setattr(const struct fuse_request *request, uint64_t node, const struct fuse_setattr_in *in);
void op_readlink(const struct fuse_request *request, uint64_t node);
void op_statfs(const struct fuse_request *request, uint64_t node);
void op_setxattr(const struct fuse_request *request, uint64_t node, const char *name, const void *value, size_t size, int flags, bool kills_group);
void op_getxattr(const struct fuse_request *request, uint64_t node, const char *name, size_t size);
void op_listxattr(const struct fuse_request *request, uint64_t node, size_t size);
void op_removexattr(const struct fuse_request *request, uint64_t node, const char *name);

// ---- what they share ----
struct inode *inode_of(const struct fuse_request *request, uint64_t node);
int look_up(const struct fuse_request *request, int parent, const char *name, struct entry *entry); // counts a reference of the kernel when it returns 0
void parent_times(struct message *message, const struct inode *parent);
void object_times(struct message *message, const struct stat *st);
uint32_t metadata_mark(const struct inode *inode);
// The mode that is left when the caller, who has not the right to keep them, writes to a file with set-id bits.
mode_t mode_without_privileges(const struct fuse_request *request, const struct stat *st);
// A file without a name got its first one: the peer, which does not know it, gets it whole. With its lock and namespace_lock held.
void ship_whole(struct operation *operation, struct inode *inode, struct inode *parent, const char *name);
void close_below(int fd);
// The kernel was not told of it: the reference that it would have, and its open file (or NULL), are given back.
void entry_unheard(const struct entry *entry, const struct open_file *file);
int open_below(struct inode *inode, struct open_file *file);
int flags_below(int flags);
void opened_below(struct inode *inode, struct open_file *file, int fd); // `fd` is the file, open
