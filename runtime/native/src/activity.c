// A table of hot entries that operations look at without a lock, and its log.
//
// Every entry carries the epoch in which it was touched last; every operation the epoch in which it began. The cooler ends an epoch, waits until
// its last operation was shipped, makes a barrier, and takes out what was not touched since: an operation that finds an entry hot either keeps
// it so (it moves its epoch on) or is one that the barrier covers.
// Locks: activity.lock is taken inside stream.lock, the lock of the dirty set inside activity.lock.
#include "activity.h"
#include "state.h"
#include "stream.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS (1u << 16)
#define PROBES 32u
#define HOT_ZONE (4u << 20)
#define HOT_ZONES 4096u        // 16 GiB: beyond half of it the oldest cool
#define HOT_LIMIT (SLOTS / 2)  // with what is young
#define RANGE_ZONES 16u        // a longer range counts as the whole file
#define COOL_MS 10000          // also when there is room: what a crash leaves in doubt is read again
#define TICK_MS 250
#define LOG_RECORDS (256u << 10)
#define RESERVED (4 << 20) // bytes that the log has on the disk before it needs them, so that a full disk does not end it

enum { RECORD_BEGIN = 0x62, RECORD_HOT, RECORD_PLACE, RECORD_ALONE, RECORD_OVERFLOW, RECORD_UNPLACED };

struct record {
    uint16_t kind, directory;
    uint32_t flags;
    uint64_t key, offset, size, check;
};

static struct {
    atomic_ullong tag[SLOTS], epoch[SLOTS];
    struct touch *touch; // guarded by the lock
    unsigned char *young;
    atomic_ullong now, inside[2];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum activity_mode mode;
    unsigned turns; // of the mode
    size_t zones, count;
    struct dirty_set places;
    int log;
    bool usable, running, ending, syncing, says_alone;
    bool rewriting, failed; // another log is being written beside the one that counts; it could not be
    bool overflow;           // the table was full: what is in the log is not everything, until a barrier ...
    uint64_t overflow_epoch; // ... of this epoch or a later one
    uint64_t appended, synced, durable;
    size_t records;
    pthread_t cooler;
} activity = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .log = -1, .now = 1};

// ---- the table ----

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

static uint64_t tag_of(const struct touch *touch, uint64_t what) {
    return mix(mix(mix(touch->key) + what) + touch->directory) | 1;
}

#define WHAT_FLAGS (1ull << 63)
static uint64_t what_is_whole(void) { return WHAT_FLAGS | MARK_CONTENT; }

// The entry of an object that was made while its directory was hot.
static uint64_t what_is_young(const struct touch *touch) { return touch->flags & MARK_LIST ? WHAT_FLAGS | MARK_LIST : what_is_whole(); }

// The slot that holds the tag and is hot; SLOTS: none.
static unsigned find(uint64_t tag) {
    for (unsigned i = 0; i < PROBES; i++) {
        unsigned at = ((unsigned)(tag >> 40) + i) & (SLOTS - 1);
        if (atomic_load(&activity.tag[at]) == tag && atomic_load(&activity.epoch[at])) return at;
    }
    return SLOTS;
}

static bool keep_hot(uint64_t tag, uint64_t epoch) {
    unsigned at = find(tag);
    if (at == SLOTS) return false;
    unsigned long long seen = atomic_load(&activity.epoch[at]);
    while (seen && seen < epoch) {
        if (atomic_compare_exchange_weak(&activity.epoch[at], &seen, epoch)) break;
    }
    // Cooled meanwhile, and perhaps taken by another: an entry of a later epoch than the one that was seen.
    return seen && atomic_load(&activity.tag[at]) == tag;
}

struct span {
    uint64_t first, last; // hot zones; or one word for flags
};

static struct span span_of(const struct touch *touch) {
    uint32_t flags = touch->flags;
    if (flags & MARK_CONTENT || !touch->size) return (struct span){WHAT_FLAGS | flags, WHAT_FLAGS | flags};
    struct span span = {touch->offset / HOT_ZONE, (touch->offset + (touch->size - 1)) / HOT_ZONE};
    if (span.last - span.first >= RANGE_ZONES) span.first = span.last = what_is_whole();
    return span;
}

bool activity_is_hot(const struct touch *touch, uint64_t epoch) {
    if (atomic_load(&activity.tag[0]) == UINT64_MAX) return true; // overflown: everything counts as hot
    struct span span = span_of(touch);
    for (uint64_t what = span.first;; what++) {
        if (!keep_hot(tag_of(touch, what), epoch) && !keep_hot(tag_of(touch, what_is_young(touch)), epoch)) return false;
        if (what >= span.last) return true;
    }
}

uint64_t activity_enter(void) {
    for (;;) {
        uint64_t epoch = atomic_load(&activity.now);
        atomic_fetch_add(&activity.inside[epoch & 1], 1);
        if (atomic_load(&activity.now) == epoch) return epoch;
        atomic_fetch_sub(&activity.inside[epoch & 1], 1);
    }
}

void activity_leave(uint64_t epoch) { atomic_fetch_sub(&activity.inside[epoch & 1], 1); }

// ---- the log ----

static void log_path(char *path, size_t size, bool fresh) { snprintf(path, size, "%s/rfs.activity%s", options.state_dir, fresh ? ".new" : ""); }

static uint64_t base_check(void) { return fnv64(state.base, strlen(state.base)); }

static bool append(const void *bytes, size_t size) { return activity.log >= 0 && write(activity.log, bytes, size) == (ssize_t)size; }

static struct record record_make(uint16_t kind, const struct touch *touch) {
    struct record record = {.kind = kind};
    if (touch) {
        record.directory = (uint16_t)touch->directory;
        record.flags = touch->flags;
        record.key = touch->key;
        record.offset = touch->offset;
        record.size = touch->size;
    }
    record.check = fnv64(&record, offsetof(struct record, check));
    return record;
}

// In doubt the next resync compares everything: a log that cannot be written must not be found.
static void give_up(void) {
    char path[4096];
    log_path(path, sizeof path, false);
    if (activity.usable) say("%s cannot be written: after a crash the next resync compares everything", path);
    activity.usable = false;
    unlink(path);
}

static void not_written(void) {
    if (activity.rewriting) activity.failed = true;
    else give_up();
}

static void put(uint16_t kind, const struct touch *touch) {
    struct record record = record_make(kind, touch);
    if ((activity.usable || activity.rewriting) && !append(&record, sizeof record)) not_written();
    activity.appended++;
    activity.records++;
}

static void put_place(const struct place *place) {
    struct {
        struct record record;
        struct place place;
    } both = {record_make(RECORD_PLACE, NULL), *place};
    if ((activity.usable || activity.rewriting) && !append(&both, sizeof both)) not_written();
    activity.appended++;
    activity.records += 3;
}

// What is hot, whole, in a new file that takes the place of the log when all of it is on the disk.
static bool write_fresh(const char *fresh, const char *path) {
    activity.log = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    activity.failed = activity.log < 0;
    activity.rewriting = true;
    if (!activity.failed) (void)!fallocate(activity.log, FALLOC_FL_KEEP_SIZE, 0, RESERVED); // not every file system can
    activity.records = 0;
    struct touch base = {.key = base_check()};
    put(RECORD_BEGIN, &base);
    for (size_t i = 0; i < activity.places.places; i++) put_place(&activity.places.place[i]);
    if (activity.places.unplaced) put(RECORD_UNPLACED, NULL);
    for (unsigned at = 0; at < SLOTS; at++) {
        if (atomic_load(&activity.epoch[at])) put(RECORD_HOT, &activity.touch[at]);
    }
    if (activity.mode == ACTIVITY_ALONE) put(RECORD_ALONE, NULL);
    activity.rewriting = false;
    int folder = open(options.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool written = !activity.failed && fsync(activity.log) == 0 && folder >= 0 && rename(fresh, path) == 0 && fsync(folder) == 0;
    if (folder >= 0) close(folder);
    if (written) return true;
    if (activity.log >= 0) close(activity.log);
    activity.log = -1;
    unlink(fresh);
    return false;
}

// With the lock held, and nobody syncing. `counts`: the log so far is as right as the new one, only longer. It stays where there is no room for both;
// one that does not count makes room.
static void rewrite(bool counts) {
    char path[4096], fresh[4096];
    log_path(path, sizeof path, false);
    log_path(fresh, sizeof fresh, true);
    counts = counts && activity.usable;
    int before = activity.log;
    size_t records = activity.records;
    bool written = state.base[0] && write_fresh(fresh, path);
    if (!written && counts && state.base[0]) {
        activity.log = before;
        activity.records = records;
        return;
    }
    if (before >= 0) close(before);
    if (!written) {
        activity.log = -1;
        unlink(path);
        written = state.base[0] && write_fresh(fresh, path);
    }
    if (!written && state.base[0]) activity.usable = true; // for give_up() to say so
    if (!written && state.base[0]) give_up();
    activity.usable = written;
    activity.says_alone = activity.mode == ACTIVITY_ALONE;
    activity.synced = activity.appended;
}

// With the lock held; leaves it for the disk. Whoever finds nobody syncing syncs for all.
static void wait_synced(uint64_t wanted) {
    while (activity.usable && activity.synced < wanted) {
        if (activity.syncing) {
            pthread_cond_wait(&activity.changed, &activity.lock);
            continue;
        }
        activity.syncing = true;
        uint64_t upto = activity.appended;
        int log = activity.log;
        pthread_mutex_unlock(&activity.lock);
        bool failed = fdatasync(log) != 0;
        pthread_mutex_lock(&activity.lock);
        activity.syncing = false;
        activity.synced = upto;
        if (failed) give_up();
        pthread_cond_broadcast(&activity.changed);
    }
}

// ---- hotter ----

static void insert(const struct touch *touch, uint64_t what, uint64_t epoch, bool young) {
    uint64_t tag = tag_of(touch, what);
    if (keep_hot(tag, epoch)) return;
    for (unsigned i = 0; i < PROBES && activity.count < HOT_LIMIT; i++) {
        unsigned at = ((unsigned)(tag >> 40) + i) & (SLOTS - 1);
        if (at == 0 || atomic_load(&activity.epoch[at])) continue;
        activity.touch[at] = *touch;
        activity.young[at] = young;
        atomic_store(&activity.tag[at], tag);
        atomic_store(&activity.epoch[at], epoch);
        activity.count++;
        activity.zones += !young;
        return;
    }
    if (activity.overflow) return;
    // Nobody waits for a barrier: until the next one a crash means that everything is compared.
    activity.overflow = true;
    put(RECORD_OVERFLOW, NULL);
    atomic_store(&activity.tag[0], UINT64_MAX);
}

void activity_heat(const struct touch *touch, uint64_t epoch, bool young, const struct place *place) {
    struct span span = span_of(touch);
    pthread_mutex_lock(&activity.lock);
    if (!activity.running) {
        pthread_mutex_unlock(&activity.lock);
        return;
    }
    if (!place && !activity.places.unplaced) {
        activity.places.unplaced = true;
        put(RECORD_UNPLACED, NULL);
    } else if (place && place->size <= HANDLE_LIMIT && dirty_set_place(&activity.places, place)) {
        put_place(place);
    }
    // What was begun in mirror and is shipped after its end is marked without a place.
    if (activity.mode == ACTIVITY_ALONE && (!place || place->size <= HANDLE_LIMIT)) dirty_place(place);
    struct touch hot[RANGE_ZONES];
    unsigned entries = 0;
    for (uint64_t what = span.first; what <= span.last && entries < RANGE_ZONES; what++) {
        struct touch *one = &hot[entries++];
        *one = *touch;
        if (what & WHAT_FLAGS && what == what_is_whole()) one->flags |= MARK_CONTENT;
        one->offset = what & WHAT_FLAGS ? 0 : what * HOT_ZONE;
        one->size = what & WHAT_FLAGS ? 0 : HOT_ZONE;
        put(RECORD_HOT, one);
    }
    uint64_t mine = activity.appended;
    if (!young) wait_synced(mine);
    for (unsigned i = 0; i < entries; i++) insert(&hot[i], span.first + i, epoch, young);
    if (activity.zones > HOT_ZONES / 2 || activity.count > HOT_LIMIT * 3 / 4) pthread_cond_broadcast(&activity.changed);
    pthread_mutex_unlock(&activity.lock);
}

// ---- cooler ----

static void wait_ms(int64_t ms) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ms % 1000 * 1000000;
    until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&activity.changed, &activity.lock, &until);
}

// Nothing that began up to the epoch is in doubt behind it. With the lock held, which it leaves meanwhile. False: not reached.
static bool barrier(void) {
    enum activity_mode mode = activity.mode;
    unsigned turns = activity.turns;
    if (mode == ACTIVITY_SWITCHING) return false;
    if (mode == ACTIVITY_ALONE && !activity.says_alone) {
        activity.says_alone = true;
        put(RECORD_ALONE, NULL);
    }
    wait_synced(activity.appended);
    pthread_mutex_unlock(&activity.lock);
    bool reached = true;
    uint64_t seq = 0;
    if (mode == ACTIVITY_ALONE) {
        reached = dirty_sync() == 0;
    } else {
        seq = stream_sequence();
        for (unsigned i = 0; i < options.directories; i++) reached = syncfs(options.directory[i].root) == 0 && reached;
    }
    pthread_mutex_lock(&activity.lock);
    while (reached && !activity.ending && activity.turns == turns && mode == ACTIVITY_MIRROR && activity.durable < seq) wait_ms(TICK_MS);
    return reached && !activity.ending && activity.turns == turns;
}

static void cool(uint64_t epoch) {
    for (unsigned at = 0; at < SLOTS; at++) {
        unsigned long long seen = atomic_load(&activity.epoch[at]);
        if (!seen || seen > epoch || !atomic_compare_exchange_strong(&activity.epoch[at], &seen, 0)) continue;
        activity.count--;
        activity.zones -= !activity.young[at];
    }
    bool rare = (activity.usable || !state.base[0]) && !activity.overflow && activity.records < LOG_RECORDS && activity.records < 1024 + 2 * activity.count;
    if (rare || activity.syncing) return;
    if (activity.overflow && atomic_load(&activity.tag[0])) {
        // From here on the table is asked again. Who passed it until now is behind the next barrier at the latest.
        if (activity.count < HOT_LIMIT / 2) atomic_store(&activity.tag[0], 0);
        activity.overflow_epoch = atomic_load(&activity.now);
        return;
    }
    if (activity.overflow && epoch < activity.overflow_epoch) return;
    activity.overflow = false;
    if (!activity.count) dirty_set_clear(&activity.places);
    rewrite(true);
}

static void *cooler_main(void *unused) {
    (void)unused;
    int64_t cooled = now_ms();
    pthread_mutex_lock(&activity.lock);
    while (!activity.ending) {
        wait_ms(TICK_MS);
        bool full = activity.zones > HOT_ZONES / 2 || activity.count > HOT_LIMIT / 2 || activity.overflow;
        if (activity.ending || !activity.count || (!full && now_ms() - cooled < COOL_MS)) continue;
        uint64_t epoch = atomic_load(&activity.now);
        atomic_store(&activity.now, epoch + 1);
        while (!activity.ending && atomic_load(&activity.inside[epoch & 1])) wait_ms(10);
        if (barrier()) cool(epoch);
        cooled = now_ms();
    }
    pthread_mutex_unlock(&activity.lock);
    return NULL;
}

// ---- from outside ----

int activity_begin(void) {
    pthread_mutex_lock(&activity.lock);
    if (!activity.touch) activity.touch = must(calloc(SLOTS, sizeof *activity.touch));
    if (!activity.young) activity.young = must(calloc(SLOTS, 1));
    for (unsigned at = 0; at < SLOTS; at++) {
        atomic_store(&activity.tag[at], 0);
        atomic_store(&activity.epoch[at], 0);
    }
    activity.count = activity.zones = 0;
    activity.mode = ACTIVITY_ALONE;
    activity.overflow = activity.ending = false;
    activity.running = true;
    dirty_set_clear(&activity.places);
    rewrite(false);
    pthread_mutex_unlock(&activity.lock);
    return pthread_create(&activity.cooler, NULL, cooler_main, NULL);
}

void activity_end(bool in_order) {
    char path[4096];
    pthread_mutex_lock(&activity.lock);
    bool running = activity.running;
    activity.ending = true;
    pthread_cond_broadcast(&activity.changed);
    pthread_mutex_unlock(&activity.lock);
    if (!running) return;
    pthread_join(activity.cooler, NULL);
    pthread_mutex_lock(&activity.lock);
    activity.running = false;
    close(activity.log);
    activity.log = -1;
    log_path(path, sizeof path, false);
    if (in_order) unlink(path);
    dirty_set_clear(&activity.places);
    pthread_mutex_unlock(&activity.lock);
}

void activity_mode(enum activity_mode mode) {
    pthread_mutex_lock(&activity.lock);
    activity.mode = mode;
    activity.turns++;
    if (mode == ACTIVITY_ALONE) activity.durable = 0; // the next connection counts anew
    // A log that counts from the new base. What is hot stays so.
    while (mode == ACTIVITY_MIRROR && activity.running && activity.syncing) pthread_cond_wait(&activity.changed, &activity.lock);
    if (mode == ACTIVITY_MIRROR && activity.running) rewrite(false);
    pthread_cond_broadcast(&activity.changed);
    pthread_mutex_unlock(&activity.lock);
}

void activity_rebase(void) {
    pthread_mutex_lock(&activity.lock);
    while (activity.running && activity.syncing) pthread_cond_wait(&activity.changed, &activity.lock);
    if (activity.running) rewrite(false);
    pthread_mutex_unlock(&activity.lock);
}

void activity_durable(uint64_t seq) {
    pthread_mutex_lock(&activity.lock);
    activity.durable = seq;
    pthread_cond_broadcast(&activity.changed);
    pthread_mutex_unlock(&activity.lock);
}

void activity_doubt(void) {
    pthread_mutex_lock(&activity.lock);
    for (unsigned at = 0; activity.running && at < SLOTS; at++) {
        if (atomic_load(&activity.epoch[at])) dirty_doubt(&activity.touch[at]);
    }
    dirty_doubt_places(&activity.places, activity.overflow);
    pthread_mutex_unlock(&activity.lock);
}

size_t activity_count(void) {
    pthread_mutex_lock(&activity.lock);
    size_t count = activity.count;
    pthread_mutex_unlock(&activity.lock);
    return count;
}

bool activity_recover(void (*take)(const struct touch *touch, const struct place *place), int64_t *written_at, bool *alone) {
    char path[4096];
    struct stat st;
    struct record record;
    struct place place;
    bool begun = false, whole = true;
    log_path(path, sizeof path, false);
    FILE *file = fopen(path, "re");
    if (!file) return false;
    *written_at = fstat(fileno(file), &st) ? 0 : st.st_mtim.tv_sec;
    *alone = false;
    while (fread(&record, sizeof record, 1, file) == 1 && record.check == fnv64(&record, offsetof(struct record, check))) {
        struct touch touch = {record.directory, record.flags, record.key, record.offset, record.size};
        if (record.kind == RECORD_BEGIN) begun = record.key == base_check();
        if (!begun) break;
        if (record.kind == RECORD_ALONE) *alone = true;
        if (record.kind == RECORD_OVERFLOW) whole = false;
        if (record.kind == RECORD_UNPLACED) take(NULL, NULL);
        if (record.kind == RECORD_HOT && (touch.flags & ~MARK_ANY || touch.directory >= DIRECTORY_LIMIT)) break; // not written by us
        if (record.kind == RECORD_HOT) take(&touch, NULL);
        if (record.kind != RECORD_PLACE) continue;
        if (fread(&place, sizeof place, 1, file) != 1 || place.check != (uint32_t)fnv64(place.bytes, sizeof place.bytes)) break;
        take(NULL, place.size > HANDLE_LIMIT || place.directory >= DIRECTORY_LIMIT ? NULL : &place);
    }
    fclose(file);
    return begun && whole;
}
