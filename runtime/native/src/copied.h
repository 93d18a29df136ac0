// What a full resynchronisation has done so far, so that an interrupted one goes on where it was.
//
// A full resync begins a copy: a name for it becomes the base that this node's dirty set counts from, and the secondary keeps the same name
// until it is a mirror or may have changed otherwise. What is remembered of a file is true when
//  - everything that was sent for it up to some byte is durable on the secondary, and
//  - the file was not modified since the copy began, or the dirty set says where.
// The memory is a log beside the dirty set: appended, each record with a check, believed only for the copy and the boot of the machine that it
// names. To lose it costs a comparison, nothing else. Hard links are not remembered: which names share a file is compared each time.
#pragma once
#include "common.h"

#define COPIED_WHOLE UINT64_MAX

void copied_begin(void);    // of the copy state.base: nothing is done yet
bool copied_open(void);     // goes on with the copy state.base. False: nothing is known of it
void copied_forget(void);   // the secondary lacks what it should have: any thread
void copied_close(bool done); // done: the memory is of no use any more
bool copied_have(unsigned directory, uint64_t key, uint64_t *upto); // bytes from the beginning of a file
size_t copied_files(void);  // whole ones that were known when it was opened

// Of the thread that copies. `seq`: of the last frame that was sent for it.
void copied_note(unsigned directory, uint64_t key, uint64_t upto, uint64_t seq);
// `compared`: the digests of every frame before it are answered, and what differed was sent; the last frame of that is `sent`.
void copied_settle(uint64_t compared, uint64_t sent, uint64_t durable);
