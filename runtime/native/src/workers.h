// The order in which a secondary applies the frames of a stream.
//
// Names change in the order of the stream, in the thread that reads it. What concerns one regular file keeps its order per file, and different
// files do not wait for each other: a file belongs to one worker by its inode. While little is behind it a frame is applied by the reading
// thread itself: a hand-off costs more than a small write.
// workers_applied() counts without gaps: every frame up to it is applied.
#pragma once
#include "frame.h"

#define BLOCK_SIZE (2u << 20)

// Received bytes. Frames that wait for a worker keep their block.
struct block;
struct block *block_take(void); // waits while too many are kept
void block_release(struct block *block);
bool block_is_shared(const struct block *block);
unsigned char *block_bytes(struct block *block);

void workers_start(void); // of a new session
void workers_stop(void);  // everything handed out is applied (or the session failed) when it returns
// From the reading thread. `behind`: received bytes that wait behind this frame. False: the session must end.
bool workers_apply(const struct message *message, struct block *block, size_t behind, int64_t read_at);
void workers_drain(void);         // everything read so far is applied
uint64_t workers_applied(void);   // no gaps
bool workers_failed(void);        // after it nothing counts as applied any more
bool workers_idle(void);          // nothing is handed out
unsigned workers_queued(void);    // frames that were handed out and not applied yet
void workers_resume(uint64_t applied); // the next frame is applied + 1
unsigned char *workers_scratch(void);  // ZONE_SIZE bytes of this thread
