// Files: compared zone by zone, and sent where they differ. The rule that makes it right under live writes stands in resync.c.
#include "resync_inside.h"
#include "copied.h"
#include "extent.h"
#include "listing.h"
#include "local.h"
#include "stream.h"
#include "throttle.h"
#define XXH_INLINE_ALL
#include <xxhash.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECKS 512  // 64 MiB
#define ALL_DIFFER 16u // answers in a row: what follows is sent without a question ...
#define ASK_EVERY 16u  // ... but for every one of so many pieces, so that it is noticed where that ends
#define ANSWERS 8u  // that are worked off before it is looked what is done
#define PIECE (128u << 10) // what one digest speaks for, and what is copied when it differs
#define SMALL_FILE 16384
#define NOTE_BYTES (1u << 20) // of a large file, between two things to be remembered of an unfinished copy

struct check {
    uint64_t seq;
    struct inode *inode;
    off_t offset;
    size_t size;
    bool differs; // as the secondary said
};

static struct {
    struct check check[CHECKS]; // what is asked and not answered, in the order of the stream
    size_t first, count;
    unsigned differ_in_a_row, unasked;
    struct known {
        struct inode *of;
        struct extent extent;
    } compared, differed; // two places: the answers come back far behind the questions, maybe of the file before
} copy;

static unsigned char zone[ZONE_SIZE];

// What is known of the data of this file; of another one nothing any more.
static struct extent *known_of(struct known *known, struct inode *inode) {
    if (known->of != inode) {
        if (known->of) inode_forget(known->of, 1);
        known->of = inode ? inode_keep(inode) : NULL;
        known->extent = inode ? (struct extent){.dev = inode->dev, .ino = inode->ino} : (struct extent){0};
    }
    return &known->extent;
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
    struct extent *known = known_of(&copy.differed, inode);
    inode_lock(inode);
    bool readable = fstat(file, &st) == 0;
    off_t end = readable && st.st_size < offset + (off_t)size ? st.st_size : offset + (off_t)size;
    while (readable && offset < end) {
        off_t data = extent_data(known, file, offset, end);
        if (data > offset) {
            send_hole(inode, offset, data, &st);
            offset = data;
            continue;
        }
        off_t hole = extent_end(known, file, offset);
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
    size_t first = 0, last = copy.count;
    while (first < last) {
        size_t middle = (first + last) / 2;
        struct check *check = &copy.check[(copy.first + middle) % CHECKS];
        if (check->seq == seq) return check;
        if (check->seq < seq) first = middle + 1;
        else last = middle;
    }
    return NULL;
}

// Of an unfinished copy: what is on the secondary's disk by now is remembered. A peer that is lost got nothing of what was "sent" since.
static void settle_copied(uint64_t durable) {
    if (!resync.full) return;
    uint64_t sent = stream_sequence(), compared = copy.count ? copy.check[copy.first].seq : UINT64_MAX;
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
void copy_take_answers(bool wait) {
    for (;;) {
        struct stream_status status;
        unsigned taken = 0;
        stream_get_status(&status);
        for (struct differing *one; taken < ANSWERS && (one = take_differing()); taken++) send_differing(one);
        uint64_t open = oldest_differing();
        for (; copy.count; copy.count--) {
            const struct check *oldest = &copy.check[copy.first];
            if (oldest->seq > status.applied || oldest->seq >= open) break;
            copy.differ_in_a_row = oldest->differs ? copy.differ_in_a_row + 1 : 0;
            inode_forget(oldest->inode, 1);
            copy.first = (copy.first + 1) % CHECKS;
        }
        settle_copied(status.durable);
        listing_settle(status.applied);
        if (taken) continue;
        uint64_t check = copy.count ? copy.check[copy.first].seq : UINT64_MAX, listed = listing_oldest();
        if (!wait || (!copy.count && !listed) || atomic_load(&resync.cancelled)) return;
        stream_wait_applied(listed && listed < check ? listed : check, 1000);
        if (copy.count < CHECKS / 2) wait = false;
    }
}

static void send_check(struct inode *inode, int file, off_t offset, size_t size) {
    ssize_t n = pread(file, zone, size, offset);
    if (n <= 0) return;
    XXH128_hash_t digest = XXH3_128bits(zone, (size_t)n);
    struct message message = {.frame = {.op = OP_ZONE_CHECK, .offset = (uint64_t)offset, .size = (uint64_t)n, .data_size = sizeof digest}, .data = &digest};
    uint64_t seq = stream_send(&message, inode, false);
    if (seq) copy.check[(copy.first + copy.count++) % CHECKS] = (struct check){seq, inode_keep(inode), offset, (size_t)n, false};
}

// A digest costs both nodes a reading of the piece and the piece a second one: where everything differs it is sent at once.
static bool is_asked(void) { return copy.differ_in_a_row < ALL_DIFFER || ++copy.unasked % ASK_EVERY == 0; }

// One step under the lock of the file: a hole, or at most one piece. Returns the offset to go on with, -1 at the end of the file. *sent: bytes of
// the file that went without a question.
static off_t compare_step(struct inode *inode, int file, off_t offset, off_t limit, uint64_t *sent) {
    off_t next = -1;
    struct stat st;
    bool readable = true;
    *sent = 0;
    struct extent *known = known_of(&copy.compared, inode);
    inode_lock(inode);
    if (fstat(file, &st) == 0 && offset < st.st_size) {
        off_t data = extent_data(known, file, offset, limit < st.st_size ? limit : st.st_size);
        if (data > offset) {
            send_hole(inode, offset, data, &st);
            next = data;
        } else {
            off_t end = (offset / PIECE + 1) * PIECE;
            if (end > limit) end = limit;
            off_t hole = extent_end(known, file, offset);
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
        copy_take_answers(copy.count == CHECKS);
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

void copy_file(struct inode *inode) {
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

bool copy_asks(void) { return copy.count != 0; }

void copy_begin(void) { copy.differ_in_a_row = copy.unasked = 0; }

void copy_forget(void) {
    known_of(&copy.compared, NULL);
    known_of(&copy.differed, NULL);
    for (; copy.count; copy.count--) {
        inode_forget(copy.check[copy.first].inode, 1);
        copy.first = (copy.first + 1) % CHECKS;
    }
    copy.first = 0;
}
