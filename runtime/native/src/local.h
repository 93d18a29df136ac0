// Modifications of a local tree. Both sides use the same functions, so that the same request gives the same result.
// Objects are O_PATH descriptors. Everything returns 0 or an errno.
#pragma once
#include "common.h"

struct make {
    mode_t mode, umask;
    uid_t uid;
    gid_t gid;
    dev_t rdev;
    const char *target; // of a symbolic link
};

struct attributes {
    unsigned valid; // SET_* of frame.h
    mode_t mode;
    uid_t uid;
    gid_t gid;
    off_t size;
    struct timespec atime, mtime;
};

struct proc_path {
    char text[32];
};

void local_thread_begin(void); // before the first local_make of a thread: gives it an umask of its own
struct proc_path proc_path(int object);
int local_reopen(int object, int flags); // a descriptor, or -1 with errno
int local_stat(int object, struct stat *st);
int local_make(int parent, const char *name, const struct make *make);
int local_create(int parent, const char *name, const struct make *make, int flags); // a new regular file, open as `flags` say, or -1 with errno
int local_tmpfile(int parent, const struct make *make); // a descriptor for reading and writing, or -1 with errno
int local_setattr(int object, const struct attributes *attributes);
bool local_path(int root, int object, char path[4096]); // inside the tree of `root`; false: it has no path there
int local_set_times(int object, int64_t mtime_s, uint32_t mtime_n);
int local_link(int object, int parent, const char *name);
int local_setxattr(int object, const char *name, const void *value, size_t size, int flags);
int local_removexattr(int object, const char *name);
int local_punch(int file, off_t offset, off_t size);
int local_remove_tree(int parent, const char *name, uint64_t *work); // counts what it removed in *work

// Extended attributes as one block: name\0 u32 size value ... An object without any gives size 0.
int xattrs_read(int object, unsigned char **block, size_t *size);
// The same in one number, whatever their order; 0: none. Of an entry of a directory, without opening it where it has none.
int xattrs_digest(int parent, const char *name, uint64_t *digest);
int xattrs_apply(int object, const unsigned char *block, size_t size);
