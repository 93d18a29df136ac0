// The primary's side of listings: reads a directory, sends it, and keeps in mind what it asked.
#include "listing.h"
#include "copied.h"
#include "local.h"
#include "resync.h"
#include "select.h"
#include "stream.h"
#include "todo.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_BYTES (64u << 10)
#define BATCH_ENTRIES 1024u
#define MARK_SELF (MARK_LIST | MARK_TREE | MARK_META | MARK_YOUNG | MARK_COPIED)

// What was asked by one frame.
struct asked {
    struct asked *next;
    uint64_t seq; // 0: not sent yet
    struct inode *directory;
    unsigned count;
    uint64_t key[];
};

struct told {
    struct told *next;
    uint64_t seq;
    size_t count;
    uint16_t which[];
};

struct differing {
    struct differing *next;
    struct inode *directory;
};

static struct {
    pthread_mutex_t lock;
    struct asked *asked, **asked_last;
    struct told *told;
    struct differing *differing;
    // with namespace_lock held for writing
    unsigned char bytes[BATCH_BYTES];
    uint64_t keys[BATCH_ENTRIES];
    size_t used;
    unsigned entries, questions;
} listing = {.lock = PTHREAD_MUTEX_INITIALIZER, .asked_last = &listing.asked};

// ---- many entries in a frame ----

// Before it is sent: an answer may be here before stream_send() is back.
static struct asked *remember(struct inode *directory) {
    struct asked *asked = must(malloc(sizeof *asked + listing.questions * sizeof *asked->key));
    *asked = (struct asked){.directory = inode_keep(directory), .count = listing.questions};
    memcpy(asked->key, listing.keys, listing.questions * sizeof *asked->key);
    pthread_mutex_lock(&listing.lock);
    *listing.asked_last = asked;
    listing.asked_last = &asked->next;
    pthread_mutex_unlock(&listing.lock);
    return asked;
}

static void send_batch(struct inode *directory) {
    if (!listing.entries) return;
    struct asked *asked = listing.questions ? remember(directory) : NULL;
    struct message message = {.frame = {.op = OP_LIST_ENTRIES, .data_size = (uint32_t)listing.used}, .data = listing.bytes};
    uint64_t seq = stream_send(&message, NULL, true);
    pthread_mutex_lock(&listing.lock);
    if (asked) asked->seq = seq ? seq : UINT64_MAX; // no peer: nobody will answer, and nobody waits
    pthread_mutex_unlock(&listing.lock);
    listing.used = listing.entries = listing.questions = 0;
}

static void put_in_batch(struct inode *directory, const char *name, const struct listed *entry) {
    if (listing.used + sizeof *entry + entry->name_size > BATCH_BYTES || listing.entries == BATCH_ENTRIES) send_batch(directory);
    memcpy(listing.bytes + listing.used, entry, sizeof *entry);
    memcpy(listing.bytes + listing.used + sizeof *entry, name, entry->name_size);
    listing.used += sizeof *entry + entry->name_size;
    listing.entries++;
    if (entry->flags & LISTED_ASKED) listing.keys[listing.questions++] = entry->key;
}

static struct listed listed_of(const struct stat *st, uint64_t key, uint32_t flags, const char *name) {
    return (struct listed){.key = key,
                           .size = (uint64_t)st->st_size,
                           .mtime_s = st->st_mtim.tv_sec,
                           .mtime_n = (uint32_t)st->st_mtim.tv_nsec,
                           .mode = st->st_mode,
                           .uid = st->st_uid,
                           .gid = st->st_gid,
                           .flags = flags & (MARK_CONTENT | MARK_LIST | MARK_TREE) ? FRAME_FULL : 0,
                           .name_size = (uint16_t)(strlen(name) + 1)};
}

// ---- entries with a frame of their own ----

static void send_entry(int parent, const char *name, const struct stat *st, uint64_t key, uint32_t flags) {
    mode_t type = st->st_mode & S_IFMT;
    struct message message = {.frame = {.op = OP_LIST_ENTRY, .size = key}, .name = name};
    describe(&message.frame, st);
    if (flags & (MARK_CONTENT | MARK_LIST | MARK_TREE)) message.frame.flags |= FRAME_FULL;
    if (type != S_IFDIR && st->st_nlink > 1) message.frame.flags |= FRAME_CLAIM;
    message.frame.offset = st->st_nlink;
    // When everything is listed, claims sort out which names belong together. When not, a name that is not listed may share an inode with this one.
    if (flags & MARK_LINKED && !resync_is_full()) message.frame.flags |= FRAME_LINKED;
    char target[PATH_MAX] = "";
    unsigned char *xattrs = NULL;
    if (type == S_IFLNK) {
        ssize_t size = readlinkat(parent, name, target, sizeof target - 1);
        if (size < 0) return;
        target[size] = 0;
        message.name2 = target;
    } else if (type != S_IFDIR && type != S_IFREG) {
        int object = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        size_t size = 0;
        if (object >= 0 && xattrs_read(object, &xattrs, &size) == 0) message.frame.data_size = (uint32_t)size;
        if (object >= 0) close(object);
        message.data = xattrs;
    }
    stream_send(&message, NULL, true);
    free(xattrs);
}

// ---- a directory ----

// While an interrupted copy goes on: marks what of a file was not copied. What was changed since is marked already. False: nothing of it was.
static bool mark_rest(unsigned directory, uint64_t key, const struct stat *st) {
    uint64_t upto;
    if (st->st_nlink > 1 || !copied_have(directory, key, &upto) || zone_of(upto) == 0) return false;
    if (upto < (uint64_t)st->st_size) todo_rest(directory, key, upto, (uint64_t)st->st_size);
    return true;
}

static void list_entry(struct inode *inode, int parent, const char *name, const struct stat *st, uint32_t taken) {
    const struct directory *directory = inode->directory;
    uint64_t key = mark_key(directory->index, st->st_dev, st->st_ino);
    bool is_directory = S_ISDIR(st->st_mode), is_file = S_ISREG(st->st_mode), full = taken & MARK_TREE;
    uint32_t add = 0;
    if (full && is_directory) add |= MARK_LIST | MARK_TREE;
    if (!full && taken & MARK_COPIED) {
        if (is_directory) add |= MARK_LIST | MARK_COPIED;
        else full = is_file && !mark_rest(directory->index, key, st);
    }
    if (full && is_file) add |= MARK_CONTENT;
    if (taken & MARK_YOUNG && resync_is_young(st)) add |= is_directory ? MARK_LIST | MARK_YOUNG : is_file ? MARK_CONTENT : 0;
    struct listed entry;
    // Of an empty file the listing says everything; what else is known of it is left to the comparison under its lock.
    bool ask = full && is_file && st->st_nlink == 1 && st->st_size == 0 && !todo_get(directory->index, key);
    uint64_t attributes = 0;
    if (ask) ask = xattrs_digest(parent, name, &attributes) == 0;
    uint32_t flags = todo_mark(directory->index, key, add | (ask ? MARK_ASKED : 0));
    if (!is_directory && (!is_file || st->st_nlink > 1 || flags & MARK_LINKED)) {
        send_entry(parent, name, st, key, flags);
        return;
    }
    entry = listed_of(st, key, flags, name);
    entry.attributes = attributes;
    if (ask) entry.flags |= LISTED_ASKED;
    put_in_batch(inode, name, &entry);
}

void listing_send(struct inode *inode) {
    const struct directory *directory = inode->directory;
    uint32_t taken = todo_take(directory->index, inode_key(inode), MARK_SELF);
    DIR *entries = open_entries(inode->fd);
    if (!entries) {
        if (errno != ENOENT) stream_lose("a directory cannot be read");
        return;
    }
    struct message begin = {.frame = {.op = OP_LIST_BEGIN, .valid = directory->index}};
    if (stream_send(&begin, inode, true)) {
        for (struct dirent *entry; (entry = readdir(entries));) {
            struct stat st;
            if (!name_is_entry(entry->d_name) || fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
            if (S_ISDIR(st.st_mode) && st.st_dev != directory->dev) continue; // another file system is mounted there
            if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) continue;
            list_entry(inode, dirfd(entries), entry->d_name, &st, taken);
        }
        send_batch(inode);
        struct stat st;
        unsigned char *xattrs = NULL;
        size_t size = 0;
        local_stat(inode->fd, &st);
        xattrs_read(inode->fd, &xattrs, &size);
        struct message end = {.frame = {.op = OP_LIST_END, .data_size = (uint32_t)size}, .data = xattrs};
        describe(&end.frame, &st);
        stream_send(&end, NULL, true);
        free(xattrs);
    }
    closedir(entries);
}

// ---- answers ----

void listing_answer(const struct message *message) {
    size_t count = message->frame.data_size / sizeof(uint16_t);
    struct told *told = must(malloc(sizeof *told + count * sizeof *told->which));
    *told = (struct told){.seq = message->frame.seq, .count = count};
    if (count) memcpy(told->which, message->data, count * sizeof *told->which);
    pthread_mutex_lock(&listing.lock);
    told->next = listing.told;
    listing.told = told;
    pthread_mutex_unlock(&listing.lock);
}

// With the lock held.
static struct told *take_told(uint64_t seq) {
    for (struct told **link = &listing.told; *link; link = &(*link)->next) {
        struct told *told = *link;
        if (told->seq != seq) continue;
        *link = told->next;
        return told;
    }
    return NULL;
}

static void settle(struct asked *asked, struct told *told) {
    const struct directory *directory = asked->directory->directory;
    unsigned differ = 0;
    for (size_t i = 0; told && i < told->count; i++) {
        unsigned which = told->which[i];
        if (which >= asked->count || !asked->key[which]) continue;
        todo_drop(directory->index, asked->key[which], MARK_ASKED);
        asked->key[which] = 0;
        differ++;
    }
    for (unsigned i = 0; i < asked->count; i++) {
        if (asked->key[i]) todo_drop(directory->index, asked->key[i], MARK_ASKED | MARK_CONTENT);
    }
    todo_done(asked->count - differ);
    if (differ) {
        struct differing *one = must(malloc(sizeof *one));
        pthread_mutex_lock(&listing.lock);
        *one = (struct differing){listing.differing, asked->directory};
        listing.differing = one;
        pthread_mutex_unlock(&listing.lock);
    } else {
        inode_forget(asked->directory, 1);
    }
    free(told);
    free(asked);
}

void listing_settle(uint64_t applied) {
    for (;;) {
        pthread_mutex_lock(&listing.lock);
        struct asked *asked = listing.asked;
        if (asked && (!asked->seq || asked->seq > applied)) asked = NULL;
        if (asked) {
            listing.asked = asked->next;
            if (!listing.asked) listing.asked_last = &listing.asked;
        }
        struct told *told = asked ? take_told(asked->seq) : NULL;
        pthread_mutex_unlock(&listing.lock);
        if (!asked) return;
        settle(asked, told);
    }
}

uint64_t listing_oldest(void) {
    pthread_mutex_lock(&listing.lock);
    uint64_t seq = listing.asked ? listing.asked->seq : 0;
    bool sending = listing.asked && !seq;
    pthread_mutex_unlock(&listing.lock);
    return sending ? UINT64_MAX : seq;
}

struct inode *listing_differing(void) {
    pthread_mutex_lock(&listing.lock);
    struct differing *one = listing.differing;
    if (one) listing.differing = one->next;
    pthread_mutex_unlock(&listing.lock);
    struct inode *directory = one ? one->directory : NULL;
    free(one);
    return directory;
}

void listing_forget(void) {
    for (struct inode *directory; (directory = listing_differing());) inode_forget(directory, 1);
    for (;;) {
        pthread_mutex_lock(&listing.lock);
        struct asked *asked = listing.asked;
        if (asked) listing.asked = asked->next;
        if (!listing.asked) listing.asked_last = &listing.asked;
        struct told *told = listing.told;
        if (told) listing.told = told->next;
        pthread_mutex_unlock(&listing.lock);
        if (!asked && !told) return;
        if (asked) inode_forget(asked->directory, 1);
        free(asked);
        free(told);
    }
}
