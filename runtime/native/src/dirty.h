// The dirty set of a primary: what differs from the last mirror, object by object and zone by zone, and where to look for it. Every mark is in
// the log before the modification begins, so that the set survives the process.
#pragma once
#include "marks.h"
#include "zones.h"

// What an operation is about to change.
struct touch {
    uint32_t directory, flags; // MARK_*; a range of bytes without MARK_CONTENT
    uint64_t key, offset, size;
};

// A directory that holds, or is, something marked. By its handle: a rename changes nothing, and a resync needs no walk to find it.
#define HANDLE_LIMIT 64
struct place {
    uint32_t directory;
    int32_t type; // of the handle
    uint32_t size, check;
    unsigned char bytes[HANDLE_LIMIT];
};

struct dirty_set {
    struct mark_set marks;
    struct zone_set zones;
    struct mark_set placed; // keys of the directories in `place`
    struct place *place;
    size_t places, room;
    bool unplaced; // something is marked of which nobody knows where it lies
    int64_t since; // seconds: when what MARK_YOUNG speaks of began, by the clock of the node that crashed
};

void dirty_set_clear(struct dirty_set *set);
bool dirty_set_place(struct dirty_set *set, const struct place *place); // true when that was news
void dirty_set_copy(struct dirty_set *to, const struct dirty_set *from);
int place_open(const struct place *place); // O_PATH, or -1: the directory is gone
bool place_make(unsigned directory, int object, struct place *place); // object: descriptor of a directory

// What the logs say of a process that did not end in order: this one and the activity log become one log that was closed in order. False: they
// name not everything.
bool dirty_recover(bool same_boot);
bool dirty_offer(struct dirty_set *set); // of a secondary: the log of its time as primary, if it counts from state.base
int dirty_begin(bool keep); // keep: go on with the log that was closed in order, if it counts from state.base
// Marks, before the modification begins. True when the object had no mark: dirty_place() it as well.
bool dirty_touch(const struct touch *touch);
void dirty_place(const struct place *place); // NULL: it cannot be told
void dirty_mark(unsigned directory, uint64_t key, uint32_t flags);
// What the peer has and may lose with its memory; part of the set when it did.
void dirty_doubt(const struct touch *touch);
void dirty_doubt_places(const struct dirty_set *places, bool everything);
void dirty_admit_places(void); // what is marked without a place lies in one of these
bool dirty_admit_doubts(void); // false: it may have lost anything
void dirty_admit(const struct dirty_set *set); // what the peer's own log names
int dirty_sync(void);           // every mark so far is on disk
int dirty_restart(void);        // empty again, and nothing is marked from here on: a mirror was reached
void dirty_track(void);         // out of the mirror: what is changed from here on is marked
int dirty_close(void);          // in order: the log can be used by the next start
bool dirty_usable(void);        // false: a mark could not be kept; only a full comparison is right
size_t dirty_count(void);       // objects
uint64_t dirty_bytes(void);     // at most: whole zones
size_t dirty_linked(void);      // how many marks said MARK_LINKED or MARK_TREE since dirty_begin or dirty_restart
void dirty_snapshot(struct dirty_set *set);
