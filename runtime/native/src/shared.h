// What survives the death of a worker: memory, by name, and which descriptors the next worker goes on with. The supervisor and the workers share one
// table of descriptors, so that a number means the same to all of them (see supervisor.h).
//
// Whatever lies here is written so that its reader may trust it after any instruction of its writer was the last: first the content, then the word
// that says that it counts.
#pragma once
#include "common.h"

#define SHARED_LAYOUT 1u // raised with every change of what lies here: another layout cannot be taken over

int shared_create(void);               // 0 or errno; before anything else of this file
int shared_adopt(int memory);          // the memory of an earlier program
int shared_memory(void);               // its descriptor
void shared_next_worker(bool follows); // in a new worker, before its first thread

// Zeros at the first call with this name, the content that the last worker left after a take-over. The address differs from worker to worker: no pointers.
void *shared_area(const char *name, size_t size);
bool shared_is_takeover(void); // this worker follows one that died while it served

// A descriptor that the next worker needs; all others are closed for it.
void shared_keep(int fd);
void shared_drop(int fd);
void shared_close_others(void);
int shared_kept_next(int after); // the lowest kept descriptor above this one, -1: none. Safe in a signal handler
