// What the files of a resynchronisation share: its state, and the steps that more than one of them takes. For nobody else.
// resync.c begins and ends one, resync_walk.c finds what may differ, resync_copy.c compares and sends files, resync_progress.c says how far it is,
// todo.c keeps what is left to do.
#pragma once
#include "resync.h"
#include "todo.h"

// An answer of the secondary: what the frame `seq` asked about differs.
struct differing {
    struct differing *next;
    uint64_t seq;
};

struct moved {
    struct moved *next;
    struct inode *inode;
};

extern struct resync {
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
} resync;

// ---- resync_walk.c ----
void walk(struct inode *inode, bool whole); // this directory; with `whole` what is below it too
void walk_again(void);                      // where a listing found something different
void walk_places(void);                     // where something is marked
void walk_links(void);                      // before the stream begins: fills resync.added
struct inode *moved_take(void);             // NULL: none. Its reference is the caller's

// ---- resync_copy.c: of the thread only ----
void copy_forget(void);                     // of an earlier resync
void copy_begin(void);
void copy_file(struct inode *inode);        // what is marked of it
bool copy_asks(void);                       // a digest is not answered yet
// Sends what the secondary said differs, and forgets the checks that it answered. `wait`: until a place for another check is free.
void copy_take_answers(bool wait);

// ---- resync_progress.c ----
void progress_phase(const char *phase);
void progress_report(void); // at most once a second
void *progress_count(void *unused); // a thread: counts all that there is
