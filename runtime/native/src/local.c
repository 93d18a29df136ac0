// Modifications of a local tree, by descriptor. See local.h.
#include "local.h"
#include "frame.h"
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef SYS_listxattrat
#define SYS_listxattrat 465 // the same for every architecture
#endif

// The umask of this thread alone, as it is now: most requests come with the same one.
static _Thread_local struct {
    bool own;
    mode_t now;
} mask;

void local_thread_begin(void) {
    mask.own = unshare(CLONE_FS) == 0;
    if (mask.own) umask(mask.now = 022);
}

static void mask_set(mode_t wanted) {
    if (!mask.own || mask.now != wanted) {
        mode_t before = umask(wanted);
        if (!mask.own) mask.now = before;
        else mask.now = wanted;
    }
}

// What else this thread makes is not for others, but for us.
static void mask_reset(void) {
    if (!mask.own) umask(mask.now);
    else if (mask.now & 0700) umask(mask.now = 022);
}

struct proc_path proc_path(int object) {
    struct proc_path path;
    snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", object);
    return path;
}

int local_reopen(int object, int flags) { return open(proc_path(object).text, flags | O_CLOEXEC); }

int local_stat(int object, struct stat *st) {
    return fstatat(object, "", st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? errno : 0;
}

// The kernel of the underlying file system applies umask and default ACL, as it would for the application itself.
int local_make(int parent, const char *name, const struct make *make) {
    mode_t type = make->mode & S_IFMT;
    mask_set(make->umask);
    int result, error = 0;
    if (type == S_IFDIR) {
        result = mkdirat(parent, name, make->mode & 07777);
    } else if (type == S_IFLNK) {
        result = symlinkat(make->target, parent, name);
    } else {
        result = mknodat(parent, name, make->mode, make->rdev);
    }
    if (result) error = errno;
    mask_reset();
    if (error) return error;

    struct stat st, above;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) || fstatat(parent, "", &above, AT_EMPTY_PATH)) {
        error = errno;
    } else {
        gid_t gid = above.st_mode & S_ISGID ? st.st_gid : make->gid;
        if ((st.st_uid != make->uid || st.st_gid != gid) && fchownat(parent, name, make->uid, gid, AT_SYMLINK_NOFOLLOW)) {
            error = errno;
        } else if (type != S_IFDIR && type != S_IFLNK && (st.st_mode & (S_ISUID | S_ISGID)) && fchmodat(parent, name, st.st_mode & 07777, 0)) {
            error = errno; // chown took these bits away
        }
    }
    if (error) unlinkat(parent, name, type == S_IFDIR ? AT_REMOVEDIR : 0);
    return error;
}

static int give_away(int file, int parent, const struct make *make) {
    struct stat st, above;
    if (fstat(file, &st)) return errno;
    if (st.st_uid == make->uid && st.st_gid == make->gid) return 0;
    if (local_stat(parent, &above)) return errno;
    gid_t gid = above.st_mode & S_ISGID ? st.st_gid : make->gid;
    if ((st.st_uid != make->uid || st.st_gid != gid) && fchown(file, make->uid, gid)) return errno;
    return st.st_mode & (S_ISUID | S_ISGID) && fchmod(file, st.st_mode & 07777) ? errno : 0; // chown took these bits away
}

int local_create(int parent, const char *name, const struct make *make, int flags) {
    mask_set(make->umask);
    int file = openat(parent, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, make->mode & 07777), error = file < 0 ? errno : 0;
    mask_reset();
    if (!error && (error = give_away(file, parent, make))) {
        unlinkat(parent, name, 0);
        close(file);
    }
    errno = error;
    return error ? -1 : file;
}

int local_tmpfile(int parent, const struct make *make) {
    mask_set(make->umask);
    int file = openat(parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, make->mode & 07777), error = file < 0 ? errno : 0;
    mask_reset();
    if (!error && (error = give_away(file, parent, make))) close(file);
    errno = error;
    return error ? -1 : file;
}

int local_setattr(int object, const struct attributes *a) {
    struct proc_path path = proc_path(object);
    if (a->valid & SET_SIZE && truncate(path.text, a->size)) return errno; // first: it is what may fail
    if (a->valid & (SET_UID | SET_GID)) {
        uid_t uid = a->valid & SET_UID ? a->uid : (uid_t)-1;
        gid_t gid = a->valid & SET_GID ? a->gid : (gid_t)-1;
        if (fchownat(object, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) return errno;
    }
    if (a->valid & SET_MODE && chmod(path.text, a->mode & 07777)) return errno;
    if (a->valid & (SET_ATIME | SET_MTIME)) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
        if (a->valid & SET_ATIME) times[0] = a->atime;
        if (a->valid & SET_MTIME) times[1] = a->mtime;
        if (utimensat(AT_FDCWD, path.text, times, 0)) return errno;
    }
    return 0;
}

// One consistent answer of the kernel, whatever is renamed meanwhile.
bool local_path(int root, int object, char path[4096]) {
    char above[4096];
    ssize_t above_size = readlink(proc_path(root).text, above, sizeof above - 1);
    ssize_t size = readlink(proc_path(object).text, path, 4095);
    if (above_size <= 0 || size <= 0 || size >= 4095) return false;
    if (above_size == 1) above_size = 0; // the root of a mount space of its own
    path[size] = 0;
    if (size < above_size || strncmp(path, above, (size_t)above_size) != 0 || (path[above_size] && path[above_size] != '/')) return false;
    const char *inside = path + above_size;
    while (*inside == '/') inside++;
    memmove(path, inside, strlen(inside) + 1);
    return true;
}

int local_set_times(int object, int64_t mtime_s, uint32_t mtime_n) {
    struct timespec times[2] = {{0, UTIME_OMIT}, {mtime_s, mtime_n}};
    if (utimensat(object, "", times, AT_EMPTY_PATH) == 0) return 0;
    if (errno != EINVAL) return errno;
    return utimensat(AT_FDCWD, proc_path(object).text, times, 0) ? errno : 0; // before Linux 5.8
}

int local_link(int object, int parent, const char *name) {
    return linkat(AT_FDCWD, proc_path(object).text, parent, name, AT_SYMLINK_FOLLOW) ? errno : 0;
}

int local_setxattr(int object, const char *name, const void *value, size_t size, int flags) {
    return setxattr(proc_path(object).text, name, value, size, flags) ? errno : 0;
}

int local_removexattr(int object, const char *name) { return removexattr(proc_path(object).text, name) ? errno : 0; }

// A hole where the file system can; zeros where it cannot.
int local_punch(int file, off_t offset, off_t size) {
    if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size) == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
    static const unsigned char zeros[65536];
    struct stat st;
    if (fstat(file, &st)) return errno;
    if (size > st.st_size - offset) size = st.st_size - offset; // zeros would make the file longer, a hole does not
    while (size > 0) {
        ssize_t n = pwrite(file, zeros, size < (off_t)sizeof zeros ? (size_t)size : sizeof zeros, offset);
        if (n < 0) return errno;
        offset += n;
        size -= n;
    }
    return 0;
}

int local_remove_tree(int parent, const char *name, uint64_t *work) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) {
        ++*work;
        return 0;
    }
    if (errno != EISDIR) return errno;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    DIR *entries = fdopendir(fd);
    if (!entries) {
        int error = errno;
        close(fd);
        return error;
    }
    int error = 0;
    struct dirent *entry;
    while (!error && (errno = 0, entry = readdir(entries))) {
        if (name_is_entry(entry->d_name)) error = local_remove_tree(dirfd(entries), entry->d_name, work);
    }
    closedir(entries);
    if (!error && unlinkat(parent, name, AT_REMOVEDIR)) error = errno;
    ++*work;
    return error;
}

// Names whose meaning belongs to the node, not to the data.
static bool xattr_is_replicated(const char *name) {
    return strcmp(name, "security.selinux") != 0 && strcmp(name, "security.ima") != 0 && strcmp(name, "security.evm") != 0;
}

static int xattr_names(const char *path, char **names, size_t *size) {
    *names = NULL;
    *size = 0;
    ssize_t need = listxattr(path, NULL, 0);
    if (need <= 0) return need < 0 && errno != EOPNOTSUPP ? errno : 0;
    *names = must(malloc((size_t)need));
    ssize_t got = listxattr(path, *names, (size_t)need);
    if (got < 0) return errno;
    *size = (size_t)got;
    return 0;
}

int xattrs_read(int object, unsigned char **block, size_t *size) {
    struct proc_path path = proc_path(object);
    char *names;
    size_t names_size;
    *block = NULL;
    *size = 0;
    int error = xattr_names(path.text, &names, &names_size);
    for (char *name = names; !error && name < names + names_size; name += strlen(name) + 1) {
        if (!xattr_is_replicated(name)) continue;
        unsigned char value[65536];
        ssize_t got = getxattr(path.text, name, value, sizeof value);
        if (got < 0) {
            if (errno == ENODATA) continue;
            error = errno;
            break;
        }
        size_t name_size = strlen(name) + 1;
        uint32_t value_size = (uint32_t)got;
        *block = must(realloc(*block, *size + name_size + sizeof value_size + value_size));
        memcpy(*block + *size, name, name_size);
        memcpy(*block + *size + name_size, &value_size, sizeof value_size);
        memcpy(*block + *size + name_size + sizeof value_size, value, value_size);
        *size += name_size + sizeof value_size + value_size;
    }
    free(names);
    if (error) {
        free(*block);
        *block = NULL;
        *size = 0;
    }
    return error;
}

// Steps through a block. Returns false at its end or at the first thing that does not fit.
static bool xattr_next(const unsigned char **at, const unsigned char *end, const char **name, const unsigned char **value, uint32_t *size) {
    if (*at >= end) return false;
    size_t name_size = strnlen((const char *)*at, (size_t)(end - *at)) + 1;
    if (name_size + sizeof *size > (size_t)(end - *at)) return false;
    *name = (const char *)*at;
    memcpy(size, *at + name_size, sizeof *size);
    *value = *at + name_size + sizeof *size;
    if (*size > (size_t)(end - *value)) return false;
    *at = *value + *size;
    return true;
}

// What listxattr() says of an entry; -1 with errno.
static ssize_t names_of_entry(int parent, const char *name, char *names, size_t size) {
    static atomic_bool refused; // by a kernel before 6.13
    if (!atomic_load(&refused)) {
        long got = syscall(SYS_listxattrat, parent, name, AT_SYMLINK_NOFOLLOW, names, size);
        if (got >= 0 || (errno != ENOSYS && errno != EPERM)) return got;
        atomic_store(&refused, true);
    }
    char path[sizeof(struct proc_path) + 257];
    snprintf(path, sizeof path, "%s/%s", proc_path(parent).text, name);
    return llistxattr(path, names, size);
}

int xattrs_digest(int parent, const char *name, uint64_t *digest) {
    char names[1024];
    *digest = 0;
    ssize_t got = names_of_entry(parent, name, names, sizeof names);
    if (got == 0 || (got < 0 && errno == EOPNOTSUPP)) return 0;
    if (got < 0 && errno != ERANGE) return errno;
    int object = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (object < 0) return errno;
    unsigned char *block;
    size_t size;
    int error = xattrs_read(object, &block, &size);
    close(object);
    const char *one;
    const unsigned char *value;
    uint32_t value_size;
    for (const unsigned char *at = block, *from = block; !error && xattr_next(&at, block + size, &one, &value, &value_size); from = at)
        *digest += XXH3_64bits(from, (size_t)(at - from));
    free(block);
    return error;
}

int xattrs_apply(int object, const unsigned char *block, size_t size) {
    struct proc_path path = proc_path(object);
    char *names;
    size_t names_size;
    const char *name;
    const unsigned char *value;
    uint32_t value_size;
    int error = xattr_names(path.text, &names, &names_size);
    for (char *mine = names; !error && mine < names + names_size; mine += strlen(mine) + 1) {
        bool wanted = !xattr_is_replicated(mine);
        for (const unsigned char *at = block; !wanted && xattr_next(&at, block + size, &name, &value, &value_size);)
            wanted = strcmp(name, mine) == 0;
        if (!wanted && removexattr(path.text, mine) && errno != ENODATA) error = errno;
    }
    free(names);
    for (const unsigned char *at = block; !error && xattr_next(&at, block + size, &name, &value, &value_size);) {
        unsigned char present[65536];
        ssize_t got = getxattr(path.text, name, present, sizeof present);
        if (got == (ssize_t)value_size && memcmp(present, value, value_size) == 0) continue;
        if (setxattr(path.text, name, value, value_size, 0)) error = errno;
    }
    return error;
}
