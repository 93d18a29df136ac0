// The dirty set and its log.
//
// The log is appended: a record of fixed size each, a place with its handle behind it, every one with a check. A cut at any byte leaves what is
// before it readable. Invariant: the log is believed when it names the base of the record and either is closed by its end record or was written
// in this boot of the machine while changes were tracked (every mark was written before its modification began).
#include "activity.h"
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BEGIN = 0x52, RECORD_MARK, RECORD_END, RECORD_PLACE, RECORD_TRACK, RECORD_DOUBT, RECORD_SINCE, RECORD_DOUBT_ALL };

#define ZONES_LIMIT (1u << 20) // of one range

struct record {
    uint16_t kind, directory;
    uint32_t flags;
    uint64_t key, offset, size, check;
};
_Static_assert(sizeof(struct record) == 40, "records travel to the disk as they lie in memory");

static struct {
    pthread_mutex_t lock;
    struct dirty_set set, doubts;
    size_t count, linked;
    uint64_t bytes;
    int log;
    bool usable; // the set names all that differs from the base
    bool kept;   // and so does the log
    bool creating;
    bool everything; // the peer may lose anything with its memory
} dirty = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

void dirty_set_clear(struct dirty_set *set) {
    marks_clear(&set->marks);
    marks_clear(&set->placed);
    zones_clear(&set->zones);
    free(set->place);
    *set = (struct dirty_set){0};
}

void dirty_set_copy(struct dirty_set *to, const struct dirty_set *from) {
    dirty_set_clear(to);
    marks_copy(&to->marks, &from->marks);
    marks_copy(&to->placed, &from->placed);
    zones_copy(&to->zones, &from->zones);
    to->unplaced = from->unplaced;
    to->since = from->since;
    to->places = to->room = from->places;
    if (!to->places) return;
    to->place = must(malloc(to->places * sizeof *to->place));
    memcpy(to->place, from->place, to->places * sizeof *to->place);
}

// ---- places ----

union handle {
    struct file_handle head;
    unsigned char room[sizeof(struct file_handle) + HANDLE_LIMIT];
};

// Opening by handle takes a capability that a container may lack. Where it is not to be had no place is remembered, and a resync walks.
static bool places_can_be_opened(const struct place *place) {
    static _Atomic int known[DIRECTORY_LIMIT]; // 0: not tried yet
    int answer = atomic_load(&known[place->directory]);
    if (answer) return answer > 0;
    int object = place_open(place);
    answer = object >= 0 || errno == ESTALE || errno == ENOENT ? 1 : -1;
    if (object >= 0) close(object);
    else if (answer < 0) say("directories cannot be opened by handle (%s): a resync walks the tree", strerror(errno));
    atomic_store(&known[place->directory], answer);
    return answer > 0;
}

bool place_make(unsigned directory, int object, struct place *place) {
    union handle handle = {.head = {.handle_bytes = HANDLE_LIMIT}};
    int mount;
    if (name_to_handle_at(object, "", &handle.head, &mount, AT_EMPTY_PATH)) return false;
    struct place made = {.directory = directory, .type = handle.head.handle_type, .size = handle.head.handle_bytes};
    memcpy(made.bytes, handle.head.f_handle, made.size);
    made.check = (uint32_t)fnv64(made.bytes, sizeof made.bytes);
    if (!places_can_be_opened(&made)) return false;
    *place = made;
    return true;
}

int place_open(const struct place *place) {
    union handle handle = {.head = {.handle_type = place->type, .handle_bytes = place->size}};
    if (place->directory >= options.directories || place->size > HANDLE_LIMIT) return -1;
    memcpy(handle.head.f_handle, place->bytes, place->size);
    return open_by_handle_at(options.directory[place->directory].root, &handle.head, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool dirty_set_place(struct dirty_set *set, const struct place *place) {
    uint64_t key = fnv64(place->bytes, place->size) ^ (uint64_t)(uint32_t)place->type;
    if (!marks_add(&set->placed, place->directory, key, MARK_LIST)) return false;
    if (set->places == set->room) {
        set->room = set->room ? set->room * 2 : 64;
        set->place = must(realloc(set->place, set->room * sizeof *set->place));
    }
    set->place[set->places++] = *place;
    return true;
}

// ---- the set in memory ----

static uint32_t range_flags(uint64_t first, uint64_t last) { return last == 0 ? MARK_HEAD : first == 0 ? MARK_HEAD | MARK_ZONES : MARK_ZONES; }

// True when that was news. *unknown: the object had no mark.
static bool add_mark(const struct touch *touch, bool *unknown) {
    uint32_t before = marks_get(&dirty.set.marks, touch->directory, touch->key), flags = touch->flags;
    bool news = (before & flags) != flags;
    *unknown = !before;
    if (!(flags & MARK_CONTENT) && touch->size && !(before & MARK_CONTENT)) {
        uint64_t end = touch->offset + touch->size < touch->offset ? UINT64_MAX : touch->offset + touch->size;
        uint64_t first = zone_of(touch->offset), last = zone_of(end - 1);
        // More than any file has costs more than all of it: nobody marks for minutes what the file system is about to refuse.
        bool everything = last - first >= ZONES_LIMIT;
        flags |= everything ? MARK_CONTENT : range_flags(first, last);
        news = (before & flags) != flags;
        if (!everything && last > 0 && zones_add(&dirty.set.zones, touch->directory, touch->key, first ? first : 1, last)) news = true;
        if (news && !everything) dirty.bytes += zone_start(last + 1) - zone_start(first);
    }
    // A directory that was marked below another one is looked into by its own place: its listing may be sent before anybody comes by.
    if (news && !touch->size && !(flags & MARK_CONTENT)) *unknown = true;
    if (!news) return false;
    if (!before) dirty.count++;
    marks_add(&dirty.set.marks, touch->directory, touch->key, flags);
    if (flags & (MARK_LINKED | MARK_TREE)) dirty.linked++;
    return true;
}

static void forget_everything(void) {
    dirty_set_clear(&dirty.set);
    dirty_set_clear(&dirty.doubts);
    dirty.count = dirty.linked = 0;
    dirty.everything = false;
    dirty.bytes = 0;
}

// ---- the log ----

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

static void log_path(char *path, size_t size) { snprintf(path, size, "%s/rfs.dirty", options.state_dir); }

static bool append(const void *bytes, size_t size) { return dirty.log >= 0 && write(dirty.log, bytes, size) == (ssize_t)size; }

static void append_or_confess(const void *bytes, size_t size) {
    if (!dirty.kept || append(bytes, size)) return;
    dirty.kept = false;
    // A log that lacks a mark must not be found after a crash. The set in memory still counts, and is written anew when there is room.
    if (dirty.creating) return;
    char path[4096];
    log_path(path, sizeof path);
    unlink(path);
    say("%s cannot be written: if this process ends before it can, the next resync compares everything", path);
}

// NULL: something cannot be placed.
static void append_place(const struct place *place) {
    struct {
        struct record record;
        struct place place;
    } both = {record_make(RECORD_PLACE, NULL), place ? *place : (struct place){.size = HANDLE_LIMIT + 1}};
    if (!place) both.place.check = (uint32_t)fnv64(both.place.bytes, sizeof both.place.bytes);
    append_or_confess(&both, sizeof both);
}

static uint64_t base_check(void) { return fnv64(state.base, strlen(state.base)); }

struct reading {
    bool begun, tracked, ended;
    off_t good; // up to here everything is whole
};

static bool take_record(const struct record *record, FILE *file, struct reading *reading) {
    if (record->check != fnv64(record, offsetof(struct record, check))) return false;
    if (record->kind == RECORD_BEGIN) return reading->begun = record->key == base_check();
    if (!reading->begun || reading->ended) return false;
    bool unknown;
    struct touch touch = {record->directory, record->flags, record->key, record->offset, record->size};
    struct place place;
    switch (record->kind) {
    case RECORD_DOUBT: // nobody knows any more what the peer lost
    case RECORD_MARK:
        if (touch.flags & ~MARK_ANY || touch.directory >= DIRECTORY_LIMIT) return false;
        add_mark(&touch, &unknown);
        return true;
    case RECORD_SINCE:
        if (!dirty.set.since || (int64_t)record->offset < dirty.set.since) dirty.set.since = (int64_t)record->offset;
        return true;
    case RECORD_PLACE:
        if (fread(&place, sizeof place, 1, file) != 1 || place.check != (uint32_t)fnv64(place.bytes, sizeof place.bytes)) return false;
        if (place.size > HANDLE_LIMIT) dirty.set.unplaced = true;
        else dirty_set_place(&dirty.set, &place);
        return true;
    case RECORD_DOUBT_ALL: return reading->begun = false;
    case RECORD_TRACK: return reading->tracked = true;
    case RECORD_END: return reading->ended = true;
    default: return false;
    }
}

static struct reading log_read(void) {
    char path[4096];
    struct reading reading = {0};
    struct record record;
    log_path(path, sizeof path);
    forget_everything();
    FILE *file = fopen(path, "re");
    while (file && fread(&record, sizeof record, 1, file) == 1 && take_record(&record, file, &reading)) reading.good = ftello(file);
    if (file) fclose(file);
    return reading;
}

static void log_set(const struct dirty_set *set) {
    struct record record;
    for (size_t i = 0; i < set->marks.size; i++) {
        const struct mark *mark = &set->marks.slot[i];
        if (!(mark->flags & MARK_ANY)) continue;
        struct touch touch = {mark->directory, mark->flags & MARK_ANY, mark->key, 0, 0};
        record = record_make(RECORD_MARK, &touch);
        append_or_confess(&record, sizeof record);
    }
    for (size_t i = 0; i < set->zones.size; i++) {
        const struct zone_block *block = &set->zones.slot[i];
        uint64_t begin = (uint64_t)block->number * ZONE_BLOCK, end = begin + ZONE_BLOCK;
        if (!block->directory) continue;
        for (uint64_t zone = begin; (zone = zones_next(&set->zones, block->directory - 1, block->key, zone, end)) != NO_ZONE;) {
            uint64_t first = zone;
            while (zone < end && zones_have(&set->zones, block->directory - 1, block->key, zone, zone)) zone++;
            struct touch touch = {block->directory - 1, 0, block->key, zone_start(first), zone_start(zone) - zone_start(first)};
            record = record_make(RECORD_MARK, &touch);
            append_or_confess(&record, sizeof record);
        }
    }
    for (size_t i = 0; i < set->places; i++) append_place(&set->place[i]);
    if (set->unplaced) append_place(NULL);
    struct touch since = {.offset = (uint64_t)set->since};
    record = record_make(RECORD_SINCE, &since);
    if (set->since) append_or_confess(&record, sizeof record);
}

// With dirty.lock held: a log of what is in memory that counts from the base of the record, whole on disk before it replaces the one so far.
static int log_create(bool tracked, bool ended) {
    char path[4096], fresh[4096];
    log_path(path, sizeof path);
    snprintf(fresh, sizeof fresh, "%s/rfs.dirty.new", options.state_dir);
    if (dirty.log >= 0) close(dirty.log);
    dirty.log = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    struct touch base = {.key = base_check()};
    struct record record = record_make(RECORD_BEGIN, &base);
    dirty.usable = state.base[0] != 0;
    dirty.kept = append(&record, sizeof record);
    if (dirty.log < 0) return errno;
    dirty.creating = true;
    log_set(&dirty.set);
    record = record_make(ended ? RECORD_END : RECORD_TRACK, NULL);
    if (tracked || ended) append_or_confess(&record, sizeof record);
    dirty.creating = false;
    int folder = open(options.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = !dirty.kept ? ENOSPC : folder < 0 || fsync(dirty.log) || rename(fresh, path) || fsync(folder) ? errno : 0;
    if (folder >= 0) close(folder);
    if (!error) return 0;
    dirty.kept = false;
    unlink(fresh);
    return error;
}

// Of the activity log, into the set. A range is taken as it is; a directory with what is young in it.
static void take_activity(const struct touch *touch, const struct place *place) {
    bool unknown;
    if (place) {
        dirty_set_place(&dirty.set, place);
    } else if (touch) {
        struct touch mark = *touch;
        if (mark.flags & MARK_LIST) mark.flags |= MARK_YOUNG;
        add_mark(&mark, &unknown);
    } else {
        dirty.set.unplaced = true;
    }
}

bool dirty_recover(bool same_boot) {
    char path[4096];
    int64_t written_at = 0;
    bool alone = false;
    snprintf(path, sizeof path, "%s/rfs.activity", options.state_dir);
    pthread_mutex_lock(&dirty.lock);
    struct reading reading = log_read();
    if (!reading.begun) forget_everything();
    bool active = activity_recover(take_activity, &written_at, &alone);
    bool believed = reading.ended || (active && (!alone || reading.begun)) || (reading.tracked && same_boot);
    if (active && written_at && (!dirty.set.since || written_at < dirty.set.since)) dirty.set.since = written_at;
    if (believed && !reading.ended) believed = log_create(true, true) == 0 && dirty.usable;
    if (believed) unlink(path);
    if (dirty.log >= 0) close(dirty.log);
    dirty.log = -1;
    forget_everything();
    pthread_mutex_unlock(&dirty.lock);
    return believed;
}

bool dirty_offer(struct dirty_set *set) {
    pthread_mutex_lock(&dirty.lock);
    bool whole = state.base[0] && dirty.log < 0 && log_read().ended;
    if (whole && set) dirty_set_copy(set, &dirty.set);
    if (dirty.log < 0) forget_everything();
    pthread_mutex_unlock(&dirty.lock);
    return whole;
}

// ---- from outside ----

int dirty_begin(bool keep) {
    pthread_mutex_lock(&dirty.lock);
    if (!keep || !log_read().ended) {
        forget_everything();
        if (keep) state.base[0] = 0;
    }
    int error = log_create(true, false);
    pthread_mutex_unlock(&dirty.lock);
    if (error) say("%s/rfs.dirty: %s", options.state_dir, strerror(error));
    return error;
}

bool dirty_touch(const struct touch *touch) {
    bool unknown = false;
    pthread_mutex_lock(&dirty.lock);
    if (add_mark(touch, &unknown)) {
        struct record record = record_make(RECORD_MARK, touch);
        append_or_confess(&record, sizeof record);
    }
    pthread_mutex_unlock(&dirty.lock);
    return unknown;
}

void dirty_mark(unsigned directory, uint64_t key, uint32_t flags) {
    struct touch touch = {directory, flags, key, 0, 0};
    if (dirty_touch(&touch)) dirty_place(NULL);
}

void dirty_place(const struct place *place) {
    pthread_mutex_lock(&dirty.lock);
    if (place ? dirty_set_place(&dirty.set, place) : !dirty.set.unplaced) {
        dirty.set.unplaced = dirty.set.unplaced || !place;
        append_place(place);
    }
    pthread_mutex_unlock(&dirty.lock);
}

void dirty_doubt(const struct touch *touch) {
    pthread_mutex_lock(&dirty.lock);
    marks_add(&dirty.doubts.marks, touch->directory, touch->key, touch->flags);
    if (touch->size) zones_add(&dirty.doubts.zones, touch->directory, touch->key, zone_of(touch->offset), zone_of(touch->offset + touch->size - 1));
    struct record record = record_make(RECORD_DOUBT, touch);
    append_or_confess(&record, sizeof record);
    pthread_mutex_unlock(&dirty.lock);
}

void dirty_doubt_places(const struct dirty_set *places, bool everything) {
    pthread_mutex_lock(&dirty.lock);
    for (size_t i = 0; i < places->places; i++) {
        if (dirty_set_place(&dirty.doubts, &places->place[i])) append_place(&places->place[i]);
    }
    if (places->unplaced) append_place(NULL);
    dirty.doubts.unplaced = dirty.doubts.unplaced || places->unplaced;
    struct record record = record_make(RECORD_DOUBT_ALL, NULL);
    if (everything && !dirty.everything) append_or_confess(&record, sizeof record);
    dirty.everything = dirty.everything || everything;
    pthread_mutex_unlock(&dirty.lock);
}

void dirty_admit_places(void) {
    pthread_mutex_lock(&dirty.lock);
    for (size_t i = 0; i < dirty.doubts.places; i++) dirty_set_place(&dirty.set, &dirty.doubts.place[i]);
    dirty.set.unplaced = dirty.set.unplaced || dirty.doubts.unplaced;
    pthread_mutex_unlock(&dirty.lock);
}

void dirty_admit(const struct dirty_set *set) {
    for (size_t i = 0; i < set->marks.size; i++) {
        const struct mark *mark = &set->marks.slot[i];
        struct touch touch = {mark->directory, mark->flags & MARK_ANY, mark->key, 0, 0};
        if (touch.flags) dirty_touch(&touch);
    }
    for (size_t i = 0; i < set->zones.size; i++) {
        const struct zone_block *block = &set->zones.slot[i];
        uint64_t begin = (uint64_t)block->number * ZONE_BLOCK, end = begin + ZONE_BLOCK;
        if (!block->directory) continue;
        for (uint64_t zone = begin; (zone = zones_next(&set->zones, block->directory - 1, block->key, zone, end)) != NO_ZONE; zone++) {
            struct touch touch = {block->directory - 1, MARK_META, block->key, zone_start(zone), zone_start(zone + 1) - zone_start(zone)};
            dirty_touch(&touch);
        }
    }
    for (size_t i = 0; i < set->places; i++) dirty_place(&set->place[i]);
    if (set->unplaced) dirty_place(NULL);
    pthread_mutex_lock(&dirty.lock);
    if (set->since && (!dirty.set.since || set->since < dirty.set.since)) dirty.set.since = set->since;
    struct touch since = {.offset = (uint64_t)set->since};
    struct record record = record_make(RECORD_SINCE, &since);
    if (set->since) append_or_confess(&record, sizeof record);
    pthread_mutex_unlock(&dirty.lock);
}

bool dirty_admit_doubts(void) {
    pthread_mutex_lock(&dirty.lock);
    struct dirty_set doubts = dirty.doubts;
    bool known = !dirty.everything;
    dirty.doubts = (struct dirty_set){0};
    pthread_mutex_unlock(&dirty.lock);
    dirty_admit(&doubts);
    dirty_set_clear(&doubts);
    return known;
}

int dirty_sync(void) {
    pthread_mutex_lock(&dirty.lock);
    if (dirty.usable && dirty.log >= 0 && !dirty.kept) log_create(true, false); // alone: while in mirror nobody asks
    int log = dirty.usable && dirty.kept && dirty.log >= 0 ? fcntl(dirty.log, F_DUPFD_CLOEXEC, 3) : -1;
    pthread_mutex_unlock(&dirty.lock);
    if (log < 0) return EIO;
    int error = fdatasync(log) ? errno : 0;
    close(log);
    return error;
}

int dirty_restart(void) {
    pthread_mutex_lock(&dirty.lock);
    forget_everything();
    int error = log_create(false, false);
    pthread_mutex_unlock(&dirty.lock);
    return error;
}

void dirty_track(void) {
    struct record record = record_make(RECORD_TRACK, NULL);
    pthread_mutex_lock(&dirty.lock);
    append_or_confess(&record, sizeof record);
    pthread_mutex_unlock(&dirty.lock);
}

int dirty_close(void) {
    pthread_mutex_lock(&dirty.lock);
    int error = 0;
    if (dirty.log >= 0) {
        struct record record = record_make(RECORD_END, NULL);
        if (dirty.usable && dirty.kept && (!append(&record, sizeof record) || fsync(dirty.log))) dirty.kept = false;
        if (dirty.usable && !dirty.kept) error = log_create(true, true);
        if (dirty.log >= 0) close(dirty.log);
    }
    dirty.log = -1;
    pthread_mutex_unlock(&dirty.lock);
    return error;
}

bool dirty_usable(void) {
    pthread_mutex_lock(&dirty.lock);
    bool usable = dirty.usable;
    pthread_mutex_unlock(&dirty.lock);
    return usable;
}

size_t dirty_count(void) {
    pthread_mutex_lock(&dirty.lock);
    size_t count = dirty.count;
    pthread_mutex_unlock(&dirty.lock);
    return count;
}

uint64_t dirty_bytes(void) {
    pthread_mutex_lock(&dirty.lock);
    uint64_t bytes = dirty.bytes;
    pthread_mutex_unlock(&dirty.lock);
    return bytes;
}

size_t dirty_linked(void) {
    pthread_mutex_lock(&dirty.lock);
    size_t linked = dirty.linked;
    pthread_mutex_unlock(&dirty.lock);
    return linked;
}

void dirty_snapshot(struct dirty_set *set) {
    pthread_mutex_lock(&dirty.lock);
    dirty_set_copy(set, &dirty.set);
    pthread_mutex_unlock(&dirty.lock);
}
