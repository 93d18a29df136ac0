// Two processes that share one table of descriptors: a worker that does everything, and a supervisor that does nothing but see it die. What the worker
// had open stays open, so that another worker goes on where it died: applications wait some milliseconds and see no error.
// The worker sees the supervisor die as well, and makes another: one that lends its place to a new program when the worker dies.
#pragma once
#include "common.h"

// SIGHUP to the supervisor of a primary: the program that is installed now goes on in its place, if it knows this layout of the shared memory.

// Returns in the worker. In the supervisor it returns never: it ends with its last worker.
void supervisor_run(char **arguments);
void supervisor_watch(void);             // in the worker: watches the supervisor from here on
void supervisor_serving(bool serving);   // whether a worker that dies is to be followed by another
void supervisor_stopping(void);          // the worker ends on purpose
