// A token is a base like any other: both copies name it, and what is changed from then on is in the dirty set.
#include "external.h"
#include "activity.h"
#include "beside.h"
#include "state.h"
#include "stream.h"
#include "walk.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define UID_LIMIT 24

static int fail(struct failure *failure, const char *code, const char *message) {
    snprintf(failure->code, sizeof failure->code, "%s", code);
    snprintf(failure->message, sizeof failure->message, "%s", message);
    return -1;
}

static int read_token(const char *uid, char base[BASE_SIZE], struct failure *failure) {
    size_t size = strlen(uid);
    if (!size || size > UID_LIMIT) return fail(failure, "value", "uid: 1 to 24 characters");
    XXH128_hash_t hash = XXH3_128bits_withSeed(uid, size, 0x5afe);
    snprintf(base, BASE_SIZE, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    return 0;
}

// The clock of times of change: it never runs ahead of them.
static int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// With state_lock held.
static void take_base(const char *base, int64_t watched) {
    beside_drop();
    memcpy(state.base, base, BASE_SIZE);
    state.exact = true;
    state.inconsistent = state.partial = state.lost = state.logged = false;
    state.copy[0] = 0;
    state.watched = watched;
    state.mirrored = (struct moment){0};
}

static char served_base[BASE_SIZE];

// While nothing is being changed: what changes from here on is marked.
static void rebase(void) {
    pthread_mutex_lock(&state_lock);
    take_base(served_base, 0);
    state.exact = false;
    state_save();
    pthread_mutex_unlock(&state_lock);
    dirty_restart();
    dirty_track();
    activity_rebase();
}

int external_primary(const char *uid, bool check, struct failure *failure) {
    char base[BASE_SIZE];
    if (read_token(uid, base, failure)) return -1;
    if (strcmp(module_role(), "secondary") == 0) return fail(failure, "state", "this node is the secondary: only a primary that is alone, or a stopped one, is copied");
    if (strcmp(module_role(), "primary") == 0) {
        memcpy(served_base, base, sizeof base);
        if (!stream_between_operations(rebase)) return fail(failure, "state", "a secondary is connected, or answers are held");
        return 0;
    }
    pthread_mutex_lock(&state_lock);
    bool refused = state.inconsistent;
    if (!refused) take_base(base, check ? clock_ns() : 0);
    int error = refused ? 0 : state_save();
    pthread_mutex_unlock(&state_lock);
    if (refused) return fail(failure, "inconsistent", "the copy on this node is an unfinished resynchronisation");
    return error ? fail(failure, "record", "the record of this node cannot be written") : 0;
}

int external_secondary(const char *uid, bool check, struct failure *failure) {
    char base[BASE_SIZE];
    if (read_token(uid, base, failure)) return -1;
    if (strcmp(module_role(), "idle") != 0) return fail(failure, "state", "this node is running: what was restored is named while the module is stopped");
    pthread_mutex_lock(&state_lock);
    take_base(base, check ? clock_ns() : 0);
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    return error ? fail(failure, "record", "the record of this node cannot be written") : 0;
}

static bool look(const struct walked *object, void *since) {
    struct place place;
    if ((int64_t)object->st->st_ctim.tv_sec * 1000000000 + object->st->st_ctim.tv_nsec < *(int64_t *)since) return true;
    uint32_t flags = S_ISDIR(object->st->st_mode) ? MARK_LIST | MARK_META : S_ISREG(object->st->st_mode) ? MARK_CONTENT : MARK_META | MARK_LINKED;
    if (S_ISREG(object->st->st_mode) && object->st->st_nlink > 1) flags |= MARK_LINKED;
    struct touch touch = {object->directory->index, flags, mark_key(object->directory->index, object->st->st_dev, object->st->st_ino), 0, 0};
    dirty_touch(&touch);
    dirty_place(place_make(object->directory->index, object->parent, &place) ? &place : NULL);
    return true;
}

bool external_look(void) {
    pthread_mutex_lock(&state_lock);
    int64_t since = state.watched;
    state.watched = 0;
    pthread_mutex_unlock(&state_lock);
    if (!since) return true;
    bool whole = walk_trees(options.resync_threads, look, &since);
    say("changed since the backup: %zu objects", dirty_count());
    return whole;
}
