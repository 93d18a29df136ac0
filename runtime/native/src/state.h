// What the data plane knows after a restart: one small file, replaced whole, and the log of the dirty set beside it.
#pragma once
#include "marks.h"

struct state {
    char role[16];                // idle | primary | secondary: what it was when this was written
    char base[BASE_SIZE];         // the last mirror that this copy counts from; empty: none
    char generation[GENERATION_SIZE], published[GENERATION_SIZE];
    char boot_id[64];
    bool clean;        // the role was left in order
    bool exact;        // this copy holds the base, and since then nothing but what its primary sent
    bool inconsistent; // a resync onto this copy was begun and not finished
};

extern struct state state; // guarded by state_lock
extern pthread_mutex_t state_lock;

int state_load(bool *was_secondary); // reads, and draws the consequences of an unclean end or of a reboot
int state_save(void);           // durable when it returns 0; call with state_lock held
void base_create(char base[BASE_SIZE]);

// The dirty set of a primary counts from state.base. Every mark is in the log before the modification begins.
int dirty_begin(bool keep);     // keep: go on with the log that was closed in order, if it counts from state.base
void dirty_mark(unsigned directory, uint64_t key, uint32_t flags);
int dirty_restart(void);        // empty again: a mirror was reached
int dirty_close(void);          // in order: the log can be used by the next start
bool dirty_usable(void);        // false: a mark could not be kept; only a full comparison is right
size_t dirty_count(void);
size_t dirty_linked(void);          // how many marks said MARK_LINKED or MARK_TREE since dirty_begin or dirty_restart
void dirty_snapshot(struct mark_set *set);
