// What the data plane knows after a restart: one small file, replaced whole. The log of the dirty set lies beside it (dirty.h).
#pragma once
#include "dirty.h"

// When something was, by the clock of times of change (which never runs ahead of them), and how far that clock is from the time since the boot: it
// tells when the clock was set in between.
struct moment {
    int64_t at, ahead; // nanoseconds; at 0: not known
};

struct moment moment_now(void);

struct state {
    char role[16];                // idle | primary | secondary: what it was when this was written
    char base[BASE_SIZE];         // the last mirror that this copy counts from; empty: none
    char generation[GENERATION_SIZE], published[GENERATION_SIZE];
    char boot_id[64];
    char copy[BASE_SIZE]; // of an unfinished full resync onto this copy: what was durable once is there (copied.h); empty: it must begin anew
    bool clean;        // the role was left in order
    bool exact;        // this copy holds the base, and since then nothing but what its primary sent
    bool inconsistent; // a resync onto this copy was begun and not finished
    bool partial;      // ... of what changed since the base: it can be gone on with
    bool lost;         // as exact, but for what was in the memory of the machine
    struct moment mirrored; // when the base began, if that was in this boot: what was changed before it is the same in every copy that counts from it
    int64_t watched;   // nanoseconds; 0: not. The copy is a backup of that moment: what was changed since is looked for at the next start
    bool resumed;      // of this process only: the resync that runs goes on with `copy`
    bool logged;       // it was primary: what else differs from the base is in the log of the dirty set
};

extern struct state state; // guarded by state_lock
extern pthread_mutex_t state_lock;

int state_load(bool *was_secondary); // reads, and draws the consequences of an unclean end or of a reboot
int64_t state_mirrored_at(void); // when the base began; 0: not known, or the clock was set since then
bool state_is_doubtful(void); // this copy is neither its base nor compared whole: something of it may be known to nobody
int state_save(void);           // durable when it returns 0; call with state_lock held
void base_create(char base[BASE_SIZE]);
