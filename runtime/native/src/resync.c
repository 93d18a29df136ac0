// Makes the secondary equal while applications write.
//
// `todo` holds what may differ; a full resync starts with the roots marked MARK_TREE. The rule:
//  1. From the first frame on every modification is shipped. None is answered by the peer yet, and all are marked dirty as well.
//  2. Before an object is named to the peer, every directory on its path is equal there (listing: names, types, links); before a name changes,
//     its directory is. Whoever needs it sends the listing: the walk, or the operation that came first. A listing is read and enqueued
//     under namespace_lock, so it has one exact place in the stream.
//  3. A file is compared zone by zone. The digest is enqueued under the lock of the file; a zone that differs is read again and enqueued under
//     the same lock. A live write before the digest is in it, one after it arrives after it. Where one zone after the other differs it is sent at once.
// So at the end of the walk everything either was compared at its place in the stream or was changed on both sides by it: both trees are
// equal after the last frame, and an application never waited for more than one zone or one listing.
#include "resync.h"
#include "activity.h"
#include "copied.h"
#include "events.h"
#include "local.h"
#include "dirty.h"
#include "listing.h"
#include "select.h"
#include "state.h"
#include "stream.h"
#include "throttle.h"
#include "todo.h"
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CHECKS 512  // 64 MiB
#define ALL_DIFFER 16u // answers in a row: what follows is sent without a question ...
#define ASK_EVERY 16u  // ... but for every one of so many pieces, so that it is noticed where that ends
#define ANSWERS 8u  // that are worked off before it is looked what is done
#define PIECE (128u << 10) // what one digest speaks for, and what is copied when it differs
#define SMALL_FILE 16384
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define NOTE_BYTES (1u << 20) // of a large file, between two things to be remembered of an unfinished copy
#define YOUNG_GRACE_S 3600 // for clocks that differ (spec 4.9.2-3)

struct check {
    uint64_t seq;
    struct inode *inode;
    off_t offset;
    size_t size;
    bool differs; // as the secondary said
};

struct differing {
    struct differing *next;
    uint64_t seq;
};

struct moved {
    struct moved *next;
    struct inode *inode;
};

static struct {
    pthread_mutex_t lock;
    atomic_bool active, cancelled;
    bool full, doubtful, resumes, redo, again, running, everywhere; // everywhere: nobody knows where to look, the whole tree is walked
    size_t linked_seen, taken; // taken: how often something of `todo` was done
    struct dirty_set todo, added; // added: what a search of links adds to the dirty set
    struct differing *differing, **differing_last;
    struct moved *moved;
    pthread_t thread;
    struct progress progress;
    int64_t began;
    int64_t mirrored; // nanoseconds: what is older is not young, whatever the clock of the node that crashed says
    // of the thread only
    struct check checks[CHECKS];
    size_t first_check, check_count;
    unsigned differ_in_a_row, unasked;
} resync = {.lock = PTHREAD_MUTEX_INITIALIZER, .differing_last = &resync.differing};

static unsigned char zone[ZONE_SIZE]; // of the thread

bool resync_active(void) { return atomic_load(&resync.active); }

uint32_t todo_get(unsigned directory, uint64_t key) {
    pthread_mutex_lock(&resync.lock);
    uint32_t flags = marks_get(&resync.todo.marks, directory, key);
    pthread_mutex_unlock(&resync.lock);
    return flags;
}

uint32_t todo_take(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    uint32_t taken = marks_take(&resync.todo.marks, directory, key, flags);
    resync.taken += taken != 0;
    pthread_mutex_unlock(&resync.lock);
    return taken;
}

void todo_add(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    marks_add(&resync.todo.marks, directory, key, flags);
    pthread_mutex_unlock(&resync.lock);
}

// ---- what is left to do ----

uint32_t todo_mark(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    if (flags) marks_add(&resync.todo.marks, directory, key, flags);
    flags = marks_get(&resync.todo.marks, directory, key);
    pthread_mutex_unlock(&resync.lock);
    return flags;
}

void todo_drop(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    marks_take(&resync.todo.marks, directory, key, flags);
    pthread_mutex_unlock(&resync.lock);
}

void todo_done(uint64_t files) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.files_done += files;
    pthread_mutex_unlock(&resync.lock);
}

bool resync_is_full(void) { return resync.full; }

bool resync_is_young(const struct stat *st) {
    if (st->st_ctim.tv_sec < resync.todo.since - YOUNG_GRACE_S) return false;
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec >= resync.mirrored;
}

DIR *open_entries(int object) {
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries && fd >= 0) close(fd);
    return entries;
}

void describe(struct frame *frame, const struct stat *st) {
    frame->mode = st->st_mode;
    frame->uid = st->st_uid;
    frame->gid = st->st_gid;
    frame->rdev = st->st_rdev;
    frame->mtime_s = st->st_mtim.tv_sec;
    frame->mtime_n = (uint32_t)st->st_mtim.tv_nsec;
}

void todo_rest(unsigned directory, uint64_t key, uint64_t from, uint64_t size) {
    pthread_mutex_lock(&resync.lock);
    zones_add(&resync.todo.zones, directory, key, zone_of(from), zone_of(size - 1));
    marks_add(&resync.todo.marks, directory, key, MARK_ZONES | MARK_REST);
    pthread_mutex_unlock(&resync.lock);
}

// ---- directories that must be equal ----

void resync_ensure_listed(struct inode *inode) {
    if (!(todo_get(inode->directory->index, inode_key(inode)) & (MARK_LIST | MARK_TREE))) return;
    listing_send(inode);
    // It has no mark any more that would lead a walk to what is marked below it.
    if (!resync.everywhere) resync_moved(inode);
}

void resync_ensure_parents(const struct directory *directory, const char *path) {
    resync_ensure_listed(inode_root(directory->index));
    int at = dup(directory->root);
    char name[NAME_MAX + 1];
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
        int below = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = below;
        struct stat st;
        struct inode *inode = below < 0 ? NULL : inode_get(directory, dup(below), &st);
        if (!inode) continue;
        resync_ensure_listed(inode);
        inode_forget(inode, 1);
    }
    if (at >= 0) close(at);
}

void resync_moved(struct inode *object) {
    uint32_t flags = todo_get(object->directory->index, inode_key(object));
    if (!S_ISDIR(object->type) && !(flags & (MARK_BYTES | MARK_META))) return;
    struct stat st;
    struct inode *again = inode_get(object->directory, fcntl(object->fd, F_DUPFD_CLOEXEC, 3), &st);
    if (!again) return;
    struct moved *moved = must(malloc(sizeof *moved));
    pthread_mutex_lock(&resync.lock);
    *moved = (struct moved){resync.moved, again};
    resync.moved = moved;
    pthread_mutex_unlock(&resync.lock);
}

void resync_again(struct inode *file) {
    todo_add(file->directory->index, inode_key(file), MARK_CONTENT);
    stream_unbind(file);
    resync_moved(file);
}

// ---- files ----

static off_t next_data(int file, off_t offset, off_t end) {
    off_t data = lseek(file, offset, SEEK_DATA);
    if (data < 0) data = errno == ENXIO ? end : offset;
    return data < end ? data : end;
}

static void send_hole(struct inode *inode, off_t offset, off_t end, const struct stat *st) {
    struct message message = {.frame = {.op = OP_ZONE_HOLE, .offset = (uint64_t)offset, .size = (uint64_t)(end - offset)}};
    describe(&message.frame, st);
    stream_send(&message, inode, false);
}

// Bytes that are no hole, as they are now. Returns how many there were, -1 when they cannot be read. `differs`: the secondary need not compare them.
static ssize_t send_bytes(struct inode *inode, int file, off_t offset, size_t size, const struct stat *st, bool differs) {
    ssize_t n = pread(file, zone, size, offset);
    if (n <= 0) return n;
    struct message message = {.frame = {.op = OP_ZONE_DATA, .offset = (uint64_t)offset, .size = (uint64_t)n, .data_size = (uint32_t)n}, .data = zone};
    describe(&message.frame, st);
    if (differs) message.frame.flags |= FRAME_DIFFERS;
    stream_send(&message, inode, false);
    return n;
}

// What is there now, holes as holes: it may have become one since the zone was compared. `differs`: the secondary compared it.
static void send_zone(struct inode *inode, int file, off_t offset, size_t size, bool differs) {
    struct stat st;
    uint64_t sent = 0;
    inode_lock(inode);
    bool readable = fstat(file, &st) == 0;
    off_t end = readable && st.st_size < offset + (off_t)size ? st.st_size : offset + (off_t)size;
    while (readable && offset < end) {
        off_t data = next_data(file, offset, end);
        if (data > offset) {
            send_hole(inode, offset, data, &st);
            offset = data;
            continue;
        }
        off_t hole = lseek(file, offset, SEEK_HOLE);
        if (hole <= offset || hole > end) hole = end;
        ssize_t n = send_bytes(inode, file, offset, (size_t)(hole - offset), &st, differs);
        if (n <= 0) {
            readable = n == 0;
            break;
        }
        offset += n;
        sent += (uint64_t)n;
    }
    inode_unlock(inode);
    if (!readable) stream_lose("a file cannot be read");
    throttle_turn(sent, &resync.cancelled); // not under the lock: no application waits for it
}

static struct check *find_check(uint64_t seq) {
    size_t first = 0, last = resync.check_count;
    while (first < last) {
        size_t middle = (first + last) / 2;
        struct check *check = &resync.checks[(resync.first_check + middle) % CHECKS];
        if (check->seq == seq) return check;
        if (check->seq < seq) first = middle + 1;
        else last = middle;
    }
    return NULL;
}

// Of an unfinished copy: what is on the secondary's disk by now is remembered. A peer that is lost got nothing of what was "sent" since.
static void settle_copied(uint64_t durable) {
    if (!resync.full) return;
    uint64_t sent = stream_sequence(), compared = resync.check_count ? resync.checks[resync.first_check].seq : UINT64_MAX;
    if (stream_connected() && !atomic_load(&resync.cancelled)) copied_settle(compared, sent, durable);
}

// `flags`: what was done of it. Less than what is missing says nothing of the whole.
static void note_copied(const struct inode *inode, uint32_t flags, uint64_t upto) {
    if (!resync.full || !(flags & (MARK_CONTENT | MARK_REST)) || atomic_load(&resync.cancelled)) return;
    copied_note(inode->directory->index, inode_key(inode), upto, stream_sequence());
    static unsigned notes; // of small files several at once; a part of a large one is worth a record of its own
    if (++notes % 64 && upto == COPIED_WHOLE) return;
    struct stream_status status;
    stream_get_status(&status);
    settle_copied(status.durable);
}

static struct differing *take_differing(void) {
    pthread_mutex_lock(&resync.lock);
    struct differing *one = resync.differing;
    if (one) {
        resync.differing = one->next;
        if (!resync.differing) resync.differing_last = &resync.differing;
    }
    pthread_mutex_unlock(&resync.lock);
    return one;
}

// Answers about several files do not come in the order of the questions.
static uint64_t oldest_differing(void) {
    uint64_t oldest = UINT64_MAX;
    pthread_mutex_lock(&resync.lock);
    for (const struct differing *one = resync.differing; one; one = one->next) {
        if (one->seq < oldest) oldest = one->seq;
    }
    pthread_mutex_unlock(&resync.lock);
    return oldest;
}

static void send_differing(struct differing *one) {
    struct check *check = find_check(one->seq);
    int file = check ? local_reopen(check->inode->fd, O_RDONLY | O_NOATIME) : -1;
    if (check && file < 0) stream_lose("a file cannot be read");
    if (check) check->differs = true;
    if (file >= 0) {
        send_zone(check->inode, file, check->offset, check->size, true);
        close(file);
    }
    free(one);
}

// Sends what the secondary said differs, and forgets the checks that it answered: an answer is here before the acknowledgement of its frame.
static void take_answers(bool wait) {
    for (;;) {
        struct stream_status status;
        unsigned taken = 0;
        stream_get_status(&status);
        for (struct differing *one; taken < ANSWERS && (one = take_differing()); taken++) send_differing(one);
        uint64_t open = oldest_differing();
        for (; resync.check_count; resync.check_count--) {
            const struct check *oldest = &resync.checks[resync.first_check];
            if (oldest->seq > status.applied || oldest->seq >= open) break;
            resync.differ_in_a_row = oldest->differs ? resync.differ_in_a_row + 1 : 0;
            inode_forget(oldest->inode, 1);
            resync.first_check = (resync.first_check + 1) % CHECKS;
        }
        settle_copied(status.durable);
        listing_settle(status.applied);
        if (taken) continue;
        uint64_t check = resync.check_count ? resync.checks[resync.first_check].seq : UINT64_MAX, listed = listing_oldest();
        if (!wait || (!resync.check_count && !listed) || atomic_load(&resync.cancelled)) return;
        stream_wait_applied(listed && listed < check ? listed : check, 1000);
        if (resync.check_count < CHECKS / 2) wait = false;
    }
}

static void send_check(struct inode *inode, int file, off_t offset, size_t size) {
    ssize_t n = pread(file, zone, size, offset);
    if (n <= 0) return;
    XXH128_hash_t digest = XXH3_128bits(zone, (size_t)n);
    struct message message = {.frame = {.op = OP_ZONE_CHECK, .offset = (uint64_t)offset, .size = (uint64_t)n, .data_size = sizeof digest}, .data = &digest};
    uint64_t seq = stream_send(&message, inode, false);
    if (!seq) return;
    struct stat st;
    struct inode *again = inode_get(inode->directory, fcntl(inode->fd, F_DUPFD_CLOEXEC, 3), &st);
    if (again) resync.checks[(resync.first_check + resync.check_count++) % CHECKS] = (struct check){seq, again, offset, (size_t)n, false};
}

// A digest costs both nodes a reading of the piece and the piece a second one: where everything differs it is sent at once.
static bool is_asked(void) { return resync.differ_in_a_row < ALL_DIFFER || ++resync.unasked % ASK_EVERY == 0; }

// One step under the lock of the file: a hole, or at most one piece. Returns the offset to go on with, -1 at the end of the file. *sent: bytes of
// the file that went without a question.
static off_t compare_step(struct inode *inode, int file, off_t offset, off_t limit, uint64_t *sent) {
    off_t next = -1;
    struct stat st;
    bool readable = true;
    *sent = 0;
    inode_lock(inode);
    if (fstat(file, &st) == 0 && offset < st.st_size) {
        off_t data = next_data(file, offset, limit < st.st_size ? limit : st.st_size);
        if (data > offset) {
            send_hole(inode, offset, data, &st);
            next = data;
        } else {
            off_t end = (offset / PIECE + 1) * PIECE;
            if (end > limit) end = limit;
            off_t hole = lseek(file, offset, SEEK_HOLE);
            if (hole > offset && hole < end) end = hole;
            if (end > st.st_size) end = st.st_size;
            next = end;
            if (is_asked()) {
                send_check(inode, file, offset, (size_t)(end - offset));
            } else {
                ssize_t n = send_bytes(inode, file, offset, (size_t)(end - offset), &st, true);
                readable = n >= 0;
                if (n > 0) *sent = (uint64_t)n, next = offset + n;
            }
        }
    }
    inode_unlock(inode);
    if (!readable) stream_lose("a file cannot be read");
    return next;
}

static void compare_range(struct inode *inode, int file, uint32_t flags, off_t offset, off_t limit) {
    off_t noted = offset;
    while (offset >= 0 && offset < limit && !atomic_load(&resync.cancelled)) {
        uint64_t sent;
        off_t next = compare_step(inode, file, offset, limit, &sent);
        pthread_mutex_lock(&resync.lock);
        if (next > offset) resync.progress.bytes_done += (uint64_t)(next - offset);
        pthread_mutex_unlock(&resync.lock);
        if (next >= noted + NOTE_BYTES) note_copied(inode, flags, (uint64_t)(noted = next));
        throttle_turn(sent, &resync.cancelled);
        take_answers(resync.check_count == CHECKS);
        offset = next;
    }
}

// The next run of zones that are to be compared, from *zone on. False: no more. They stay in the set: another name of the file may come by.
static bool next_zones(struct inode *inode, uint32_t flags, uint64_t *zone, uint64_t end, uint64_t *run_end) {
    uint64_t key = inode_key(inode);
    unsigned directory = inode->directory->index;
    pthread_mutex_lock(&resync.lock);
    if (*zone > 0 || !(flags & MARK_HEAD)) *zone = zones_next(&resync.todo.zones, directory, key, *zone, end);
    if (*zone != NO_ZONE) {
        *run_end = *zone + 1;
        while (*run_end < end && zones_have(&resync.todo.zones, directory, key, *run_end, *run_end)) ++*run_end;
    }
    pthread_mutex_unlock(&resync.lock);
    return *zone != NO_ZONE;
}

static void compare_zones(struct inode *inode, int file, uint32_t flags, off_t size) {
    uint64_t end = zone_of((uint64_t)size - 1) + 1, run_end;
    for (uint64_t zone = 0; zone < end && next_zones(inode, flags, &zone, end, &run_end); zone = run_end)
        compare_range(inode, file, flags, (off_t)zone_start(zone), (off_t)zone_start(run_end));
}

static void synchronise_file(struct inode *inode) {
    uint32_t flags = todo_take(inode->directory->index, inode_key(inode), MARK_BYTES | MARK_META | MARK_REST);
    if (!flags) return;
    int file = local_reopen(inode->fd, O_RDONLY | O_NOATIME);
    if (file < 0) return;
    struct stat st;
    unsigned char *xattrs = NULL;
    size_t size = 0;
    inode_lock(inode);
    int error = xattrs_read(inode->fd, &xattrs, &size);
    if (!error && fstat(file, &st) == 0) {
        struct message message = {.frame = {.op = OP_FILE_META, .size = (uint64_t)st.st_size, .data_size = (uint32_t)size}, .data = xattrs};
        describe(&message.frame, &st);
        stream_send(&message, inode, false);
    }
    free(xattrs);
    inode_unlock(inode);
    if (error) stream_lose("extended attributes of a file cannot be read");
    // The bytes of marked zones are known; of a file that is marked whole only now.
    if (flags & MARK_CONTENT && !resync.full) {
        pthread_mutex_lock(&resync.lock);
        resync.progress.bytes_total += (uint64_t)st.st_size;
        pthread_mutex_unlock(&resync.lock);
    }
    if (flags & MARK_BYTES && st.st_size > 0) {
        if (st.st_size <= SMALL_FILE) send_zone(inode, file, 0, SMALL_FILE, false);
        else if (flags & MARK_CONTENT || options.resync_whole) compare_range(inode, file, flags, 0, INT64_MAX);
        else compare_zones(inode, file, flags, st.st_size);
    }
    close(file);
    if (st.st_nlink == 1) note_copied(inode, flags, COPIED_WHOLE);
    pthread_mutex_lock(&resync.lock);
    resync.progress.files_done++;
    if (st.st_size <= SMALL_FILE) resync.progress.bytes_done += (uint64_t)st.st_size;
    pthread_mutex_unlock(&resync.lock);
}

// ---- the walk ----

static void report(void) {
    static int64_t reported;
    int64_t now = now_ms();
    if (now - reported < 1000) return;
    reported = now;
    struct progress p = resync_progress();
    char numbers[6][24];
    uint64_t values[5] = {p.files_done, p.files_total, p.bytes_done, p.bytes_total, p.rate};
    for (int i = 0; i < 5; i++) snprintf(numbers[i], sizeof numbers[i], "%llu", (unsigned long long)values[i]);
    snprintf(numbers[5], sizeof numbers[5], "%lld", (long long)p.eta);
    event_send("resync_progress", "phase", p.phase, "files_done", numbers[0], "files_total", numbers[1], "bytes_done", numbers[2], "bytes_total",
               numbers[3], "rate_bps", numbers[4], "eta_s", numbers[5], (char *)NULL);
}

static void look_again(void);

// Where an entry tells the number of another inode than the file itself, of a lower layer for one.
static bool entries_may_lie(int directory) {
    struct statfs about;
    return fstatfs(directory, &about) || about.f_type == OVERLAYFS_SUPER_MAGIC;
}

// This directory; with `whole` what is below it too: what is marked, and everything when the whole tree is walked. A file of which a listing asked is
// left to the answer.
static void walk(struct inode *inode, bool whole) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.directories += whole;
    pthread_mutex_unlock(&resync.lock);
    const struct directory *directory = inode->directory;
    if (todo_get(directory->index, inode_key(inode)) & (MARK_LIST | MARK_TREE | MARK_META)) {
        pthread_rwlock_wrlock(&namespace_lock);
        listing_send(inode);
        pthread_rwlock_unlock(&namespace_lock);
        throttle_turn(0, &resync.cancelled);
    }
    DIR *entries = open_entries(inode->fd);
    if (!entries) return;
    bool lie = entries_may_lie(dirfd(entries));
    for (struct dirent *entry; !atomic_load(&resync.cancelled) && (entry = readdir(entries));) {
        struct stat st;
        bool maybe_directory = entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
        if (!name_is_entry(entry->d_name) || (!maybe_directory && entry->d_type != DT_REG) || (!whole && entry->d_type == DT_DIR)) continue;
        if (!maybe_directory || !resync.everywhere) {
            uint32_t flags = todo_get(directory->index, (uint64_t)entry->d_ino);
            if (!flags && lie) {
                // An inode of a lower layer has a key of another kind: ask the file itself.
                if (fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
                flags = todo_get(directory->index, mark_key(directory->index, st.st_dev, st.st_ino));
            }
            if (!flags || (flags & MARK_ASKED && !maybe_directory)) continue;
        }
        int object = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct inode *below = object < 0 ? NULL : inode_get(directory, object, &st);
        if (!below) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) {
            inode_forget(below, 1);
            continue;
        }
        if (S_ISDIR(below->type) && whole) walk(below, true);
        else if (S_ISREG(below->type)) synchronise_file(below);
        inode_forget(below, 1);
        report();
    }
    closedir(entries);
    if (!whole) return;
    take_answers(false);
    look_again();
}

// Where a listing found something different.
static void look_again(void) {
    for (struct inode *directory; !atomic_load(&resync.cancelled) && (directory = listing_differing());) {
        walk(directory, false);
        inode_forget(directory, 1);
    }
}

// Where something is marked.
static void visit_places(void) {
    for (size_t i = 0; i < resync.todo.places && !atomic_load(&resync.cancelled); i++) {
        struct stat st;
        const struct place *place = &resync.todo.place[i];
        int object = place_open(place);
        struct inode *inode = object < 0 ? NULL : inode_get(&options.directory[place->directory], object, &st);
        if (!inode) continue; // removed: the directory that held it is marked
        char *path = inode_path(inode);
        if (path && S_ISDIR(inode->type)) walk(inode, true);
        free(path);
        inode_forget(inode, 1);
    }
}

static void count(int object, const struct directory *directory) {
    DIR *entries = open_entries(object);
    if (!entries) return;
    for (struct dirent *entry; !atomic_load(&resync.cancelled) && (entry = readdir(entries));) {
        struct stat st;
        if (!name_is_entry(entry->d_name) || fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) continue;
        if (S_ISREG(st.st_mode)) {
            uint64_t size = (uint64_t)st.st_size, upto = 0;
            bool known = resync.resumes && st.st_nlink == 1 && copied_have(directory->index, mark_key(directory->index, st.st_dev, st.st_ino), &upto);
            pthread_mutex_lock(&resync.lock);
            resync.progress.files_total++;
            resync.progress.bytes_total += size;
            resync.progress.files_done += known && upto == COPIED_WHOLE;
            if (known) resync.progress.bytes_done += upto < size ? upto : size;
            pthread_mutex_unlock(&resync.lock);
        } else if (S_ISDIR(st.st_mode) && st.st_dev == directory->dev) {
            int below = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                count(below, directory);
                close(below);
            }
        }
    }
    closedir(entries);
}

// Beside the comparison, which does not wait for it.
static void *count_main(void *unused) {
    (void)unused;
    for (unsigned i = 0; i < options.directories; i++) count(options.directory[i].root, &options.directory[i]);
    return NULL;
}

// A file of several names below a directory that moved: its other names, wherever they are, must be listed with it. Then, with `marks` complete:
// directories that hold an object of which all names must be listed again.
static void search_links(int object, const struct directory *directory, uint64_t key, struct mark_set *marks, bool below_moved, bool complete) {
    DIR *entries = open_entries(object);
    if (!entries) return;
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct stat st;
        if (!name_is_entry(entry->d_name) || fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) continue;
        uint64_t mine = mark_key(directory->index, st.st_dev, st.st_ino);
        if (!S_ISDIR(st.st_mode) && !complete && below_moved && st.st_nlink > 1) {
            marks_add(marks, directory->index, mine, MARK_LINKED);
            marks_add(&resync.added.marks, directory->index, mine, MARK_LINKED);
        }
        uint32_t flags = marks_get(marks, directory->index, mine);
        struct place place;
        if (complete && flags & MARK_LINKED && marks_add(&resync.added.marks, directory->index, key, MARK_LIST)) {
            if (place_make(directory->index, object, &place)) dirty_set_place(&resync.added, &place);
            else resync.added.unplaced = true;
        }
        if (!S_ISDIR(st.st_mode) || st.st_dev != directory->dev) continue;
        int below = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0) {
            search_links(below, directory, mine, marks, below_moved || flags & MARK_TREE, complete);
            close(below);
        }
    }
    closedir(entries);
}

static struct inode *take_moved(void) {
    pthread_mutex_lock(&resync.lock);
    struct moved *moved = resync.moved;
    if (moved) resync.moved = moved->next;
    pthread_mutex_unlock(&resync.lock);
    struct inode *inode = moved ? moved->inode : NULL;
    free(moved);
    return inode;
}

static void mark_everything(uint32_t below) {
    for (unsigned i = 0; i < options.directories; i++) todo_add(i, inode_key(inode_root(i)), MARK_LIST | below);
}

static void set_phase(const char *phase) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.phase = phase;
    pthread_mutex_unlock(&resync.lock);
}

// True when the last walk found nothing to do, and then no later change of a name needs a listing any more.
static bool finished(size_t taken_before) {
    while (!atomic_load(&resync.cancelled) && (resync.check_count || listing_oldest())) {
        take_answers(true);
        look_again();
    }
    uint64_t last = stream_sequence();
    while (!atomic_load(&resync.cancelled) && !stream_wait_applied(last, 1000)) take_answers(false);
    pthread_rwlock_wrlock(&namespace_lock);
    bool asked = listing_oldest() != 0; // by an operation, since then
    pthread_mutex_lock(&resync.lock);
    bool done = !asked && !resync.moved && !resync.differing && !resync.redo && !resync.again && resync.taken == taken_before;
    resync.again = false;
    if (done) atomic_store(&resync.active, false);
    pthread_mutex_unlock(&resync.lock);
    pthread_rwlock_unlock(&namespace_lock);
    return done;
}

static bool enter_mirror(void) {
    // Marked zones end behind the end of a file, and what is marked may be gone: now it is known how much it was.
    pthread_mutex_lock(&resync.lock);
    resync.progress.bytes_total = resync.progress.bytes_done;
    pthread_mutex_unlock(&resync.lock);
    // What was copied is on both disks before anybody waits for it.
    set_phase("sync");
    if (stream_barrier(BARRIER_FLUSH, NULL)) return false;
    for (unsigned i = 0; i < options.directories; i++) syncfs(options.directory[i].root);
    set_phase("barrier");
    char base[BASE_SIZE];
    base_create(base);
    struct moment began = moment_now(); // what is changed from here on is newer
    if (!stream_switch() || stream_barrier(BARRIER_MIRROR, base)) return false;
    for (unsigned i = 0; i < options.directories; i++) syncfs(options.directory[i].root);
    pthread_mutex_lock(&state_lock);
    memcpy(state.base, base, sizeof state.base);
    state.mirrored = began;
    bool saved = state_save() == 0;
    pthread_mutex_unlock(&state_lock);
    if (!saved) {
        stream_lose("the record of this node cannot be written");
        return false;
    }
    if (!stream_enter_mirror()) return false;
    struct progress p = resync_progress();
    say("in mirror: %llu directories read, %llu files compared", (unsigned long long)p.directories, (unsigned long long)p.files_done);
    event_send("in_mirror", (char *)NULL);
    return true;
}

static void *resync_main(void *unused) {
    (void)unused;
    pthread_t counter;
    bool counting = resync.full && pthread_create(&counter, NULL, count_main, NULL) == 0;
    set_phase("copy");
    resync.differ_in_a_row = resync.unasked = 0;
    throttle_begin();
    size_t taken;
    do {
        pthread_mutex_lock(&resync.lock);
        bool redo = resync.redo;
        resync.redo = false;
        taken = resync.taken;
        pthread_mutex_unlock(&resync.lock);
        if (redo) {
            while (!atomic_load(&resync.cancelled) && (resync.check_count || listing_oldest())) take_answers(true);
            say("the secondary lacked what it should have had: everything is compared");
            pthread_rwlock_wrlock(&namespace_lock);
            resync.full = resync.everywhere = true;
            struct message begin = {.frame = {.op = OP_RESYNC_BEGIN, .flags = FRAME_FULL}};
            stream_send(&begin, NULL, true);
            mark_everything(MARK_TREE);
            pthread_rwlock_unlock(&namespace_lock);
        }
        if (!resync.everywhere) visit_places();
        for (unsigned i = 0; resync.everywhere && i < options.directories && !atomic_load(&resync.cancelled); i++) walk(inode_root(i), true);
        for (struct inode *inode; (inode = take_moved());) {
            if (S_ISDIR(inode->type)) walk(inode, true);
            else if (S_ISREG(inode->type)) synchronise_file(inode);
            inode_forget(inode, 1);
        }
    } while (!atomic_load(&resync.cancelled) && !finished(taken));
    copied_close(!atomic_load(&resync.cancelled) && enter_mirror());
    throttle_end();
    for (; resync.check_count; resync.check_count--) {
        inode_forget(resync.checks[resync.first_check].inode, 1);
        resync.first_check = (resync.first_check + 1) % CHECKS;
    }
    for (struct inode *inode; (inode = take_moved());) inode_forget(inode, 1);
    listing_forget();
    set_phase("");
    if (counting) pthread_join(counter, NULL);
    return NULL;
}

// ---- from outside ----

void resync_prepare(bool full, bool doubtful, bool resumes) {
    resync.doubtful = doubtful || resumes;
    resync.resumes = resumes;
    dirty_set_clear(&resync.added);
    resync.full = full;
    if (full) return;
    struct dirty_set set = {0};
    resync.linked_seen = dirty_linked();
    if (!resync.linked_seen) return;
    dirty_snapshot(&set);
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < options.directories; i++)
            search_links(options.directory[i].root, &options.directory[i], inode_key(inode_root(i)), &set.marks, false, pass == 1);
    }
    dirty_set_clear(&set);
}

// Nothing runs that modifies. What the secondary counts from is of no use any more: from here on the dirty set says what was changed since this copy
// began, and the copy is remembered under the name of that base.
static void begin_copy(void) {
    pthread_mutex_lock(&state_lock);
    base_create(state.base);
    bool saved = state_save() == 0;
    pthread_mutex_unlock(&state_lock);
    dirty_restart();
    dirty_track();
    activity_rebase();
    if (saved) copied_begin();
    else copied_close(true);
}

void resync_arm(void) {
    dirty_set_clear(&resync.todo);
    listing_forget();
    resync.redo = resync.again = false;
    resync.first_check = resync.check_count = 0;
    while (resync.differing) {
        struct differing *next = resync.differing->next;
        free(resync.differing);
        resync.differing = next;
    }
    resync.differing_last = &resync.differing;
    // A link that was made after the search for links: everything, rather than a second search.
    if (!resync.full && (!dirty_usable() || dirty_linked() != resync.linked_seen)) resync.full = true;
    if (resync.full && !(resync.resumes && dirty_usable())) {
        begin_copy();
        mark_everything(MARK_TREE);
    } else if (resync.full) {
        dirty_snapshot(&resync.todo);
        mark_everything(MARK_COPIED);
    } else {
        dirty_snapshot(&resync.todo);
        for (size_t i = 0; i < resync.added.marks.size; i++) {
            const struct mark *mark = &resync.added.marks.slot[i];
            if (mark->flags & MARK_ANY) marks_add(&resync.todo.marks, mark->directory, mark->key, mark->flags & MARK_ANY);
        }
        for (size_t i = 0; i < resync.added.places; i++) dirty_set_place(&resync.todo, &resync.added.place[i]);
    }
    resync.everywhere = resync.full || resync.todo.unplaced || resync.added.unplaced;
    resync.mirrored = state_mirrored_at();
    struct progress progress = {.phase = resync.full ? "scan" : "copy", .files_total = resync.full ? 0 : dirty_count(), .bytes_total = resync.full ? 0 : dirty_bytes()};
    pthread_mutex_lock(&resync.lock); // somebody may ask at this moment
    resync.began = now_ms();
    resync.progress = progress;
    pthread_mutex_unlock(&resync.lock);
    atomic_store(&resync.cancelled, false);
    struct message begin = {.frame = {.op = OP_RESYNC_BEGIN, .flags = resync.full ? FRAME_FULL : 0}, .name = resync.full ? state.base : NULL};
    stream_send(&begin, NULL, true);
    atomic_store(&resync.active, true);
}

int resync_run(void) {
    int error = pthread_create(&resync.thread, NULL, resync_main, NULL);
    resync.running = !error;
    return error;
}

void resync_cancel(void) {
    atomic_store(&resync.cancelled, true);
    atomic_store(&resync.active, false);
}

void resync_join(void) {
    if (resync.running) pthread_join(resync.thread, NULL);
    resync.running = false;
}

void resync_answer(const struct message *message) {
    if (message->frame.op == OP_LIST_DIFFERS) {
        listing_answer(message);
        return;
    }
    char kind;
    unsigned directory;
    unsigned long long key;
    bool created = message->frame.op == OP_CREATED;
    // Names that share an inode ('l') may lie anywhere: everything is compared rather than searched for.
    if (created && resync.doubtful && message->name && sscanf(message->name, "%c %u %llu", &kind, &directory, &key) == 3 && kind != 'l' && directory < options.directories) {
        uint32_t flags = kind == 'd' ? MARK_LIST | MARK_TREE : MARK_CONTENT;
        dirty_touch(&(struct touch){directory, flags, key, 0, 0});
        pthread_mutex_lock(&resync.lock);
        marks_add(&resync.todo.marks, directory, key, flags);
        resync.again = true;
        pthread_mutex_unlock(&resync.lock);
        return;
    }
    pthread_mutex_lock(&resync.lock);
    if (created) {
        copied_forget(); // what it was said to have it does not have
        resync.redo = true;
    } else {
        struct differing *one = must(malloc(sizeof *one));
        *one = (struct differing){NULL, message->frame.seq};
        *resync.differing_last = one;
        resync.differing_last = &one->next;
    }
    pthread_mutex_unlock(&resync.lock);
}

bool resync_has_answers(void) {
    pthread_mutex_lock(&resync.lock);
    bool some = resync.differing != NULL;
    pthread_mutex_unlock(&resync.lock);
    return some;
}

struct progress resync_progress(void) {
    pthread_mutex_lock(&resync.lock);
    struct progress progress = resync.progress;
    int64_t elapsed = now_ms() - resync.began;
    pthread_mutex_unlock(&resync.lock);
    if (!progress.phase) progress.phase = "";
    // What is compared again because it changed meanwhile, or was found on the way, was in no total.
    if (progress.bytes_total < progress.bytes_done) progress.bytes_total = progress.bytes_done;
    if (progress.files_total < progress.files_done) progress.files_total = progress.files_done;
    progress.rate = elapsed > 0 ? progress.bytes_done * 1000 / (uint64_t)elapsed : 0;
    progress.eta = -1;
    if (progress.rate && progress.bytes_total >= progress.bytes_done) progress.eta = (int64_t)((progress.bytes_total - progress.bytes_done) / progress.rate);
    return progress;
}
