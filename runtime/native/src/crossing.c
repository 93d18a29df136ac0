// See crossing.h.
#include "crossing.h"
#include "local.h"
#include "select.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- judging ----

static struct inode *find(const struct inode *parent, const char *name, struct stat *st) {
    int fd = openat(parent->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    *st = (struct stat){0};
    struct inode *inode = fd < 0 ? NULL : inode_get(parent->directory, fd, st);
    if (!inode) st->st_ino = 0;
    return inode;
}

static bool same(const struct inode *parent, const char *name, const struct stat *before) {
    struct stat st;
    if (fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW)) st.st_ino = 0;
    if (!st.st_ino || !before->st_ino) return st.st_ino == before->st_ino;
    return st.st_ino == before->st_ino && st.st_dev == before->st_dev && (st.st_nlink > 1) == (before->st_nlink > 1);
}

struct sides {
    bool before, after; // excluded
};

static struct sides judge(struct inode *from, const char *name, struct inode *to, const char *new_name, mode_t type) {
    return (struct sides){select_entry(from, name, type), select_entry(to, new_name, type)};
}

static bool holds_excluded_paths(struct inode *from, const char *name, struct inode *to, const char *new_name) {
    return select_excludes_below(from->directory, from->fd, name) || select_excludes_below(to->directory, to->fd, new_name);
}

// ---- content ----

static void describe(struct frame *frame, const struct stat *st) {
    frame->mode = st->st_mode;
    frame->uid = st->st_uid;
    frame->gid = st->st_gid;
    frame->mtime_s = st->st_mtim.tv_sec;
    frame->mtime_n = (uint32_t)st->st_mtim.tv_nsec;
}

// With the file locked. False: it cannot be read.
static bool send_content(struct inode *inode) {
    int file = local_reopen(inode->fd, O_RDONLY | O_NOATIME);
    unsigned char *xattrs = NULL, *bytes = must(malloc(FRAME_DATA_LIMIT));
    size_t xattrs_size = 0;
    struct stat st;
    bool good = file >= 0 && fstat(file, &st) == 0 && xattrs_read(inode->fd, &xattrs, &xattrs_size) == 0;
    for (off_t offset = 0; good && offset < st.st_size;) {
        off_t data = lseek(file, offset, SEEK_DATA);
        if (data < 0 && errno == ENXIO) break; // a hole to the end
        if (data > offset) offset = data;
        off_t hole = lseek(file, offset, SEEK_HOLE);
        size_t size = hole > offset && hole - offset < (off_t)FRAME_DATA_LIMIT ? (size_t)(hole - offset) : FRAME_DATA_LIMIT;
        ssize_t n = pread(file, bytes, size, offset);
        if (n <= 0) {
            good = n == 0;
            break;
        }
        struct message message = {.frame = {.op = OP_WRITE, .offset = (uint64_t)offset, .data_size = (uint32_t)n}, .data = bytes};
        describe(&message.frame, &st);
        stream_send(&message, inode, false);
        offset += n;
    }
    if (good) {
        struct message meta = {.frame = {.op = OP_FILE_META, .size = (uint64_t)st.st_size, .data_size = (uint32_t)xattrs_size}, .data = xattrs};
        describe(&meta.frame, &st);
        stream_send(&meta, inode, false);
    }
    if (file >= 0) close(file);
    free(xattrs);
    free(bytes);
    return good;
}

// ---- a rename ----

static void prepare_file(struct crossing *c) {
    if (c->before.st_nlink > 1 || (c->in && !S_ISREG(c->inode->type) && !S_ISLNK(c->inode->type))) {
        c->refused = true;
        return;
    }
    if (!S_ISREG(c->inode->type)) return;
    inode_lock(c->inode);
    if (!c->in) return;
    stream_unbind(c->inode);
    select_set(c->inode, SELECTION_REPLICATED);
    c->sent = stream_bind_unnamed(c->inode);
    if (c->sent && !send_content(c->inode)) stream_lose("a file cannot be read");
}

void crossing_prepare(struct crossing *c, struct inode *from, const char *name, struct inode *to, const char *new_name, unsigned flags) {
    *c = (struct crossing){.considered = select_configured(from->directory)};
    if (!c->considered) return;
    c->inode = find(from, name, &c->before);
    struct inode *second = flags & RENAME_EXCHANGE ? find(to, new_name, &c->other) : NULL;
    if (c->inode) {
        struct sides sides = judge(from, name, to, new_name, c->inode->type);
        bool crosses = sides.before != sides.after;
        bool directory = S_ISDIR(c->inode->type), any_directory = directory;
        if (second) {
            struct sides others = judge(to, new_name, from, name, second->type);
            // Both stay where they are, or nobody moves.
            crosses = crosses || others.before != others.after || others.before != sides.before;
            any_directory = any_directory || S_ISDIR(second->type);
        }
        c->beside = !crosses && sides.before;
        if (crosses && (second || directory)) c->refused = true;
        if (!crosses && !c->beside && any_directory && holds_excluded_paths(from, name, to, new_name)) c->refused = true;
        if (crosses && !c->refused) {
            c->in = sides.before;
            c->out = sides.after;
            prepare_file(c);
        }
    }
    if (second) inode_forget(second, 1);
}

bool crossing_confirmed(struct crossing *c, const struct inode *from, const char *name, const struct inode *to, const char *new_name) {
    if (!c->considered) return true;
    if (same(from, name, &c->before) && (!c->other.st_ino || same(to, new_name, &c->other))) return true;
    pthread_rwlock_unlock(&namespace_lock);
    crossing_end(c, false);
    return false;
}

static struct message times_of(const struct inode *directory) {
    struct message message = {.frame = {.op = OP_SETATTR, .valid = SET_MTIME}};
    struct stat st;
    if (local_stat(directory->fd, &st) == 0) {
        message.frame.mtime_s = st.st_mtim.tv_sec;
        message.frame.mtime_n = (uint32_t)st.st_mtim.tv_nsec;
    }
    return message;
}

static void ship_in(struct crossing *c, struct operation *operation, struct message *rename, struct inode *to) {
    struct message message = {.frame = {.flags = FRAME_REPLACE, .parent_s = rename->frame.parent2_s, .parent_n = rename->frame.parent2_n}, .name = rename->name2};
    describe(&message.frame, &c->before);
    if (S_ISREG(c->inode->type)) {
        // All bindings were renewed meanwhile: the peer no longer knows which file it was.
        if (c->sent && !stream_is_bound(c->inode)) stream_lose("a file could not be moved to what is replicated");
        message.frame.op = OP_LINK;
        operation_ship(operation, &message, c->inode, to, true);
        return;
    }
    char target[PATH_MAX];
    ssize_t size = readlinkat(c->inode->fd, "", target, sizeof target - 1);
    target[size > 0 ? size : 0] = 0;
    message.frame.op = OP_MAKE;
    message.name2 = target;
    select_set(c->inode, SELECTION_REPLICATED);
    operation_ship(operation, &message, to, NULL, true);
}

void crossing_ship(struct crossing *c, struct operation *operation, struct message *rename, struct inode *from, struct inode *to) {
    if (!c->in && !c->out && !c->beside) {
        operation_ship(operation, rename, from, to, true);
        return;
    }
    // What changes beside the entry itself is the time of the other directory, if that is replicated at all.
    struct inode *other = c->out ? to : from;
    if (from != to) {
        struct message times = times_of(other);
        stream_send(&times, other, true);
    }
    if (c->in) {
        ship_in(c, operation, rename, to);
    } else if (c->out) {
        struct message message = {.frame = {.op = OP_UNLINK, .parent_s = rename->frame.parent_s, .parent_n = rename->frame.parent_n}, .name = rename->name};
        operation_ship(operation, &message, from, NULL, true);
        stream_unbind(c->inode);
        select_set(c->inode, SELECTION_EXCLUDED);
    } else {
        struct message times = times_of(to);
        operation_ship(operation, &times, to, NULL, true);
    }
}

void crossing_end(struct crossing *c, bool done) {
    if (!c->inode) return;
    bool locked = (c->in || c->out) && !c->refused && S_ISREG(c->inode->type);
    if (locked && c->in && !done) {
        stream_unbind(c->inode);
        select_set(c->inode, SELECTION_EXCLUDED);
    }
    if (locked) inode_unlock(c->inode);
    inode_forget(c->inode, 1);
    c->inode = NULL;
}

bool crossing_refuses_link(struct inode *inode, struct inode *parent, const char *name) {
    if (!select_configured(inode->directory)) return false;
    struct stat st;
    bool after = select_entry(parent, name, inode->type);
    if (local_stat(inode->fd, &st) == 0 && st.st_nlink == 0) {
        // A file without a name becomes what its first name says.
        if (after) select_set(inode, SELECTION_EXCLUDED);
        return false;
    }
    return select_inode(inode) != after;
}

// ---- on the secondary ----

int crossing_open_unnamed(const struct directory *directory) {
    int file = openat(directory->root, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return file;
    // A file system that has no files without names: a name that the next listing removes, should anything stop in between.
    char name[TEMPORARY_SIZE];
    return openat(directory->root, crossing_temporary(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

const char *crossing_temporary(char text[TEMPORARY_SIZE]) {
    static atomic_uint number;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    snprintf(text, TEMPORARY_SIZE, TEMPORARY_NAME "%llx-%x", (unsigned long long)t.tv_sec * 1000000000u + (unsigned long long)t.tv_nsec, atomic_fetch_add(&number, 1));
    return text;
}

int crossing_link_over(const struct directory *directory, int object, int parent, const char *name) {
    char temporary[TEMPORARY_SIZE], path[PATH_MAX];
    struct stat st;
    int error = local_stat(object, &st);
    if (error) return error;
    if (st.st_nlink > 0) { // where files without names are not known
        ssize_t size = readlink(proc_path(object).text, path, sizeof path - 1);
        path[size > 0 ? size : 0] = 0;
        const char *present = strstr(path, "/" TEMPORARY_NAME);
        return !present ? ESTALE : renameat(directory->root, present + 1, parent, name) ? errno : 0;
    }
    error = local_link(object, parent, crossing_temporary(temporary));
    if (!error && renameat(parent, temporary, parent, name)) {
        error = errno;
        unlinkat(parent, temporary, 0);
    }
    return error;
}

bool crossing_empty(const struct directory *directory, int parent, const char *name) {
    int error = errno;
    if (!select_configured(directory)) return false;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    bool only = entries != NULL;
    for (int pass = 0; only && pass < 2; pass++) {
        rewinddir(entries);
        for (struct dirent *entry; only && (entry = readdir(entries));) {
            struct stat st;
            if (!name_is_entry(entry->d_name) || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
            only = select_excludes(directory, fd, entry->d_name, st.st_mode);
            uint64_t work = 0;
            if (only && pass == 1) only = local_remove_tree(fd, entry->d_name, &work) == 0;
        }
    }
    if (only) say("%s goes, and with it what is not replicated in it", name);
    if (entries) closedir(entries);
    else if (fd >= 0) close(fd);
    errno = error;
    return only;
}
