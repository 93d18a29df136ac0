// Every object of the replicated trees, by several threads: a directory is read once, its entries are asked for their state, and those below it go
// to whoever is idle. Excluded names and other file systems are left out.
#pragma once
#include "common.h"

struct walked {
    const struct directory *directory;
    int parent;       // descriptor of the directory that holds it
    uint64_t parent_key;
    const char *name; // "" for the root itself (parent is the root then)
    const struct stat *st;
};

// Called by any of the threads, for a directory before what is below it. False: the walk ends.
typedef bool walk_visit(const struct walked *object, void *context);
bool walk_trees(unsigned threads, walk_visit *visit, void *context); // false: it was ended, or something could not be read
