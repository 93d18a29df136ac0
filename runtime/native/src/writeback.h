// A secondary writes back what a resync brought as it comes: a sync of an application must not find megabytes of it before itself, and the
// acknowledgement of a frame says that the disk keeps up.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

bool writeback_range(int file, off_t offset, size_t size); // just written; may wait for what was written before. False: left to the next sync
