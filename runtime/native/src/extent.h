// Where the data of a file go on without a hole, so that the file system is not asked again for every piece of them: each answer costs it a walk over
// all that lies before the next hole.
//
// Only data are remembered, never a hole: a write makes data of a hole and says nothing here. Whatever may make a hole of data says
// extent_cut(), under the lock (on a secondary: in the order) under which others ask. The file must stay open as long as something is
// remembered of it: its number is not another file's then.
#pragma once
#include "common.h"

struct extent {
    dev_t dev; // of the file, from the beginning
    ino_t ino;
    off_t from, to;
    unsigned turn;
};

void extent_cut(dev_t dev, ino_t ino);
bool extent_has(const struct extent *known, off_t at);        // known to be no hole
off_t extent_end(struct extent *known, int file, off_t at);   // the first hole from `at` on, the end of the file counts as one; -1: behind it
off_t extent_data(const struct extent *known, int file, off_t at, off_t end); // the first data from `at` on, at most `end`
uint64_t extent_searches(void);                               // how often a file system was asked
