// The activity log: what may differ between the two copies, or between memory and disk, at any moment. Small, bounded, always on.
//
// Before a modification begins, its zone of 4 MiB (or its directory) is in the log on disk: written and synced once, when it becomes hot. It
// cools after a barrier behind which nothing of it is in doubt any more: in mirror everything up to it is durable on both sides, alone the log
// of the dirty set is on disk with it. So after a crash, of the process or of the machine, the log names all that the dirty set does not.
//
// A new object is logged without waiting for the disk: its directory is hot, and whoever compares that directory after a loss of power compares
// what is young in it as well (MARK_YOUNG).
#pragma once
#include "dirty.h"

enum activity_mode {
    ACTIVITY_ALONE,     // changes are marked: an entry cools with the log of the dirty set
    ACTIVITY_SWITCHING, // nothing cools
    ACTIVITY_MIRROR,    // an entry cools when both sides are durable
};

int activity_begin(void); // a primary begins. The log of an earlier process was taken over by dirty_recover() before
void activity_end(bool in_order);
uint64_t activity_enter(void);          // an operation begins ...
void activity_leave(uint64_t epoch);    // ... and is shipped, or failed
bool activity_is_hot(const struct touch *touch, uint64_t epoch); // no lock, no system call
// Makes it hot; durable when it returns, except what is young. `place` NULL: it cannot be told where it lies.
void activity_heat(const struct touch *touch, uint64_t epoch, bool young, const struct place *place);
void activity_mode(enum activity_mode mode);
void activity_rebase(void);             // state.base is another one
void activity_durable(uint64_t seq);    // the peer: everything up to it is on its disk
// Everything that is hot, in the dirty set of what the peer may have lost with its memory.
void activity_doubt(void);
// The log that a process left which did not end in order. False: there is none, or it does not name everything.
bool activity_recover(void (*take)(const struct touch *touch, const struct place *place), int64_t *written_at, bool *alone);
size_t activity_count(void);
