// The primary's half of a resynchronisation. See resync.c for the rule that makes it right under live writes.
#pragma once
#include "frame.h"
#include "inode.h"
#include <stdatomic.h>

struct progress {
    const char *phase; // "" when there is none
    uint64_t files_done, files_total, bytes_done, bytes_total, rate;
    int64_t eta;
    uint64_t directories; // read, each time
};

// `doubtful`: the peer was primary, or lost its memory: it may lack what nobody here changed.
// `resumes`: the peer has an unfinished full resync that this node remembers (copied.h).
void resync_prepare(bool full, bool doubtful, bool resumes); // before the stream begins; decides what to compare
void resync_arm(void);          // between operations: the first frame of the stream
int resync_run(void);           // starts the thread, once the stream has begun
bool resync_active(void);
void resync_cancel(void);
void resync_join(void);

// With namespace_lock held for writing: a change may only be shipped below directories that are equal on the peer.
void resync_ensure_parents(const struct directory *directory, const char *path);
void resync_ensure_listed(struct inode *directory);
void resync_moved(struct inode *object); // got another name: the walk may have passed its new place

void resync_again(struct inode *file);   // loses one of its names: what was compared may have been the inode behind that name only

void resync_answer(const struct message *message);
bool resync_has_answers(void);
struct progress resync_progress(void);
