// The secondary's half of a resynchronisation: makes listings equal, compares zones, writes what differs.
#include "extent.h"
#include "listing.h"
#include "local.h"
#include "receive.h"
#include "select.h"
#include "state.h"
#include "workers.h"
#include "writeback.h"
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A file with several names on the primary (`key`) and the one inode that stands for it here.
struct claim {
    struct claim *by_key, *by_inode;
    uint64_t key;
    unsigned directory;
    dev_t dev;
    ino_t ino;
    int object;
};

#define CLAIM_BUCKETS 4096
static struct {
    int fd; // of the directory being listed, -1: none
    unsigned directory;
    char **name;
    size_t names, room;
    uint64_t work;
    struct claim *by_key[CLAIM_BUCKETS], *by_inode[CLAIM_BUCKETS];
} listing = {.fd = -1};

static void forget_names(void) {
    for (size_t i = 0; i < listing.names; i++) free(listing.name[i]);
    free(listing.name);
    listing.name = NULL;
    listing.names = listing.room = 0;
    if (listing.fd >= 0) close(listing.fd);
    listing.fd = -1;
}

void reconcile_end(void) {
    forget_names();
    for (unsigned i = 0; i < CLAIM_BUCKETS; i++) {
        while (listing.by_key[i]) {
            struct claim *claim = listing.by_key[i];
            listing.by_key[i] = claim->by_key;
            close(claim->object);
            free(claim);
        }
        listing.by_inode[i] = NULL;
    }
}

static struct claim *claim_by_key(uint64_t key) {
    struct claim *claim = listing.by_key[key % CLAIM_BUCKETS];
    while (claim && (claim->key != key || claim->directory != listing.directory)) claim = claim->by_key;
    return claim;
}

static struct claim *claim_by_inode(const struct stat *st) {
    struct claim *claim = listing.by_inode[st->st_ino % CLAIM_BUCKETS];
    while (claim && (claim->ino != st->st_ino || claim->dev != st->st_dev)) claim = claim->by_inode;
    return claim;
}

static int claim_add(uint64_t key, const char *name) {
    struct stat st;
    int object = openat(listing.fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (object < 0 || local_stat(object, &st)) return errno;
    struct claim *claim = must(calloc(1, sizeof *claim));
    *claim = (struct claim){listing.by_key[key % CLAIM_BUCKETS], listing.by_inode[st.st_ino % CLAIM_BUCKETS], key, listing.directory, st.st_dev, st.st_ino, object};
    listing.by_key[key % CLAIM_BUCKETS] = listing.by_inode[st.st_ino % CLAIM_BUCKETS] = claim;
    return 0;
}

static int begin_listing(const struct message *message) {
    forget_names();
    int object = receive_object(message->frame.id);
    if (object < 0) return ESTALE;
    listing.fd = local_reopen(object, O_RDONLY | O_DIRECTORY);
    if (listing.fd < 0) return errno;
    listing.directory = message->frame.valid;
    return 0;
}

static void remember_name(const char *name) {
    if (listing.names == listing.room) {
        listing.room = listing.room ? listing.room * 2 : 64;
        listing.name = must(realloc(listing.name, listing.room * sizeof *listing.name));
    }
    listing.name[listing.names++] = must(strdup(name));
}

// Whether what is here under this name is another kind of thing.
static bool is_other(const struct stat *st, const struct message *message) {
    const struct frame *f = &message->frame;
    if ((st->st_mode & S_IFMT) != (f->mode & S_IFMT)) return true;
    if ((S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) && st->st_rdev != f->rdev) return true;
    if (!S_ISLNK(st->st_mode)) return false;
    char target[PATH_MAX];
    ssize_t size = readlinkat(listing.fd, message->name, target, sizeof target);
    return size < 0 || !message->name2 || (size_t)size != strlen(message->name2) || memcmp(target, message->name2, (size_t)size) != 0;
}

static int create_entry(const struct message *message) {
    const struct frame *f = &message->frame;
    if (S_ISDIR(f->mode)) return mkdirat(listing.fd, message->name, 0700) ? errno : 0;
    if (S_ISLNK(f->mode)) return !message->name2 || symlinkat(message->name2, listing.fd, message->name) ? errno : 0;
    return mknodat(listing.fd, message->name, (f->mode & S_IFMT) | 0600, f->rdev) ? errno : 0;
}

// Owner, extended attributes, mode, times, in the order in which one does not undo the other.
static int set_metadata(int object, const struct message *message) {
    const struct frame *f = &message->frame;
    struct stat st;
    int error = local_stat(object, &st);
    if (!error && (st.st_uid != f->uid || st.st_gid != f->gid) && fchownat(object, "", f->uid, f->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) error = errno;
    if (!error && !S_ISLNK(f->mode)) error = xattrs_apply(object, message->data, f->data_size);
    if (!error && !S_ISLNK(f->mode)) error = local_stat(object, &st);
    if (!error && !S_ISLNK(f->mode) && (st.st_mode & 07777) != (f->mode & 07777) && chmod(proc_path(object).text, f->mode & 07777)) error = errno;
    // What is equal keeps its time of change as well: nothing of it goes to the disk.
    if (error || (st.st_mtim.tv_sec == f->mtime_s && st.st_mtim.tv_nsec == f->mtime_n)) return error;
    return local_set_times(object, f->mtime_s, f->mtime_n);
}

static void tell_created(char kind, const struct frame *f) {
    char what[64];
    snprintf(what, sizeof what, "%c %u %llu", kind, listing.directory, (unsigned long long)f->size);
    receive_answer(OP_CREATED, f->seq, what);
}

// *kept: what was here under this name stays, and is as `st` says.
static int list_entry(const struct message *message, struct stat *st, bool *kept) {
    const struct frame *f = &message->frame;
    if (listing.fd < 0 || !name_is_entry(message->name)) return EPROTO;
    remember_name(message->name);
    receive_worked();
    bool here = fstatat(listing.fd, message->name, st, AT_SYMLINK_NOFOLLOW) == 0;
    struct claim *claim = f->flags & FRAME_CLAIM ? claim_by_key(f->size) : NULL;
    struct stat claimed;
    if (claim && local_stat(claim->object, &claimed) == 0 && claimed.st_nlink == 0) {
        // Its last name here was removed by the stream while it has others on the primary: it will be compared again.
        claim->directory = DIRECTORY_LIMIT;
        claim = NULL;
    }
    bool replace = here && is_other(st, message), linked = !S_ISDIR(f->mode) && !(f->flags & FRAME_FULL) && (f->flags & FRAME_CLAIM || (here && st->st_nlink > 1));
    // A copy that was served may have other names of a file than its source, and a listing shows only those of one directory.
    if (linked && state_is_doubtful() && (!here || f->offset != st->st_nlink)) tell_created('l', f);
    if (here && !replace && !S_ISDIR(f->mode)) {
        struct claim *other = claim_by_inode(st);
        if (claim) replace = other != claim;
        else if (f->flags & FRAME_CLAIM) replace = other || (f->flags & FRAME_LINKED && st->st_nlink > 1);
        // One name there, several here: whatever else has this inode here will be compared on its own.
        else replace = st->st_nlink > 1 && (other || f->flags & FRAME_FULL || !S_ISREG(f->mode));
    }
    int error = 0;
    if (replace) {
        error = local_remove_tree(listing.fd, message->name, &listing.work);
        here = false;
    }
    *kept = here && !claim;
    if (!error && !here) {
        if (claim) {
            error = local_link(claim->object, listing.fd, message->name);
        } else {
            error = create_entry(message);
            if ((S_ISREG(f->mode) || S_ISDIR(f->mode)) && !(f->flags & FRAME_FULL)) tell_created(S_ISDIR(f->mode) ? 'd' : 'f', f);
        }
    }
    if (!error && !claim && f->flags & FRAME_CLAIM) error = claim_add(f->size, message->name);
    if (error || S_ISREG(f->mode) || S_ISDIR(f->mode)) return error;
    int object = openat(listing.fd, message->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (object < 0) return errno;
    error = set_metadata(object, message);
    close(object);
    return error;
}

static int list_one(const struct message *message) {
    struct stat st;
    bool kept;
    return list_entry(message, &st, &kept);
}

// Whether a file is all that the listing says of it. An empty one, that is: of its bytes the listing says nothing.
static bool is_as_listed(const struct stat *st, const struct listed *entry, const char *name) {
    uint64_t attributes;
    return S_ISREG(st->st_mode) && st->st_nlink == 1 && st->st_size == 0 && entry->size == 0 && st->st_mode == entry->mode && st->st_uid == entry->uid &&
           st->st_gid == entry->gid && st->st_mtim.tv_sec == entry->mtime_s && st->st_mtim.tv_nsec == entry->mtime_n &&
           xattrs_digest(listing.fd, name, &attributes) == 0 && attributes == entry->attributes;
}

static int list_entries(const struct message *message) {
    static uint16_t differing[FRAME_DATA_LIMIT / sizeof(struct listed)]; // of the thread that reads the stream
    const unsigned char *at = message->data, *end = at + message->frame.data_size;
    struct listed entry;
    const char *name;
    bool malformed;
    unsigned questions = 0, differ = 0;
    int error = 0;
    while (!error && listed_next(&at, end, &entry, &name, &malformed)) {
        struct message one = {.frame = {.op = OP_LIST_ENTRY, .flags = entry.flags & FRAME_FULL, .seq = message->frame.seq, .size = entry.key, .offset = 1,
                                        .mode = entry.mode, .uid = entry.uid, .gid = entry.gid, .mtime_s = entry.mtime_s, .mtime_n = entry.mtime_n},
                              .name = name};
        struct stat st;
        bool kept = false;
        if (!S_ISREG(entry.mode) && !S_ISDIR(entry.mode)) return EPROTO;
        error = list_entry(&one, &st, &kept);
        if (!(entry.flags & LISTED_ASKED)) continue;
        if (!kept || !is_as_listed(&st, &entry, name)) differing[differ++] = (uint16_t)questions;
        questions++;
    }
    if (!error && malformed) error = EPROTO;
    if (error || !differ) return error;
    struct message answer = {.frame = {.op = OP_LIST_DIFFERS, .seq = message->frame.seq, .data_size = (uint32_t)(differ * sizeof *differing)}, .data = differing};
    receive_send(&answer);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int end_listing(const struct message *message) {
    if (listing.fd < 0) return EPROTO;
    if (listing.names) qsort(listing.name, listing.names, sizeof *listing.name, by_name);
    int fd = dup(listing.fd), error = 0;
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) return errno;
    rewinddir(entries);
    for (struct dirent *entry; !error && (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (!name_is_entry(name) || (listing.names && bsearch(&name, listing.name, listing.names, sizeof *listing.name, by_name))) continue;
        struct stat st;
        if (fstatat(listing.fd, name, &st, AT_SYMLINK_NOFOLLOW) || select_excludes(&options.directory[listing.directory], listing.fd, name, st.st_mode)) continue;
        error = local_remove_tree(listing.fd, name, &listing.work);
        receive_worked();
    }
    closedir(entries);
    if (!error) error = set_metadata(listing.fd, message);
    forget_names();
    return error;
}

static int file_meta(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id);
    struct stat st;
    if (object < 0) return ESTALE;
    int error = local_stat(object, &st);
    if (!error && st.st_size != (off_t)f->size) {
        receive_cut(f->id);
        if (truncate(proc_path(object).text, (off_t)f->size)) error = errno;
    }
    return error ? error : set_metadata(object, message);
}

static int restore_time(int file, const struct frame *f) {
    struct timespec times[2] = {{0, UTIME_OMIT}, {f->mtime_s, f->mtime_n}};
    return futimens(file, times) ? errno : 0;
}

// Whether this copy holds what a frame says: the bytes themselves, or a digest of `size` bytes. What a frame speaks of has no hole at its
// source: a copy with a hole there is not the same, not even as zeros, and need not be read.
static int range_is_equal(int file, const struct message *message, size_t size, bool *equal) {
    unsigned char *present = workers_scratch();
    off_t offset = (off_t)message->frame.offset, hole = extent_end(receive_extent(message->frame.id), file, offset);
    *equal = false;
    if (hole >= 0 && hole < offset + (off_t)size) return 0;
    ssize_t n = pread(file, present, size, offset);
    if (n < 0) return errno;
    if (n != (ssize_t)size) return 0;
    if (message->frame.op == OP_ZONE_CHECK) {
        XXH128_hash_t digest = XXH3_128bits(present, size);
        *equal = message->frame.data_size == sizeof digest && memcmp(&digest, message->data, sizeof digest) == 0;
    } else {
        *equal = memcmp(present, message->data, size) == 0;
    }
    return 0;
}

static int zone_check(const struct message *message) {
    const struct frame *f = &message->frame;
    bool equal = false;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    if (f->size > ZONE_SIZE) return EPROTO;
    error = range_is_equal(file, message, f->size, &equal);
    if (!error && !equal) receive_answer(OP_ZONE_DIFFERS, f->seq, NULL);
    return error;
}

static int zone_data(const struct message *message) {
    const struct frame *f = &message->frame;
    bool equal = false;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    if (!(f->flags & FRAME_DIFFERS)) error = range_is_equal(file, message, f->data_size, &equal);
    if (error || equal) return error;
    for (size_t done = 0; done < f->data_size;) {
        ssize_t n = pwrite(file, (const char *)message->data + done, f->data_size - done, (off_t)(f->offset + done));
        if (n <= 0) return n ? errno : EIO;
        done += (size_t)n;
    }
    if (!writeback_range(file, (off_t)f->offset, f->data_size)) receive_wrote(f->data_size);
    return restore_time(file, f);
}

static int zone_hole(const struct message *message) {
    const struct frame *f = &message->frame;
    int error = 0, file = receive_file(f->id, &error);
    if (file < 0) return error;
    struct stat st;
    if (fstat(file, &st)) return errno;
    off_t data = lseek(file, (off_t)f->offset, SEEK_DATA), end = (off_t)(f->offset + f->size);
    if ((data < 0 && errno == ENXIO) || data >= end) return 0;
    if (end >= st.st_size) end = (end / st.st_blksize + 1) * st.st_blksize; // the last block goes whole, not only its bytes
    receive_cut(f->id);
    error = local_punch(file, (off_t)f->offset, end - (off_t)f->offset);
    return error ? error : restore_time(file, f);
}

int reconcile(const struct message *message) {
    switch (message->frame.op) {
    case OP_LIST_BEGIN: return begin_listing(message);
    case OP_LIST_ENTRY: return list_one(message);
    case OP_LIST_ENTRIES: return list_entries(message);
    case OP_LIST_END: return end_listing(message);
    case OP_FILE_META: return file_meta(message);
    case OP_ZONE_CHECK: return zone_check(message);
    case OP_ZONE_DATA: return zone_data(message);
    case OP_ZONE_HOLE: return zone_hole(message);
    default: return EPROTO;
    }
}
