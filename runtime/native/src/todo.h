// What a resync has still to do, for the parts of it: which objects may differ, and what each of them is entitled to know of the whole.
#pragma once
#include "dirty.h"
#include "inode.h"
#include <dirent.h>

#define MARK_ASKED 256u // a file that a listing compares: its marks go, or are worked off, once the secondary answered

uint32_t todo_get(unsigned directory, uint64_t key);
uint32_t todo_take(unsigned directory, uint64_t key, uint32_t flags);
void todo_add(unsigned directory, uint64_t key, uint32_t flags);
uint32_t todo_mark(unsigned directory, uint64_t key, uint32_t flags); // what there is afterwards
void todo_rest(unsigned directory, uint64_t key, uint64_t from, uint64_t size); // a file of `size` bytes: those from `from` on, which is in no first zone
void todo_drop(unsigned directory, uint64_t key, uint32_t flags);     // nothing was done for it
void todo_done(uint64_t files); // were found equal
bool resync_is_full(void);
bool resync_is_young(const struct stat *st); // changed since what MARK_YOUNG speaks of began

DIR *open_entries(int object);
void describe(struct frame *frame, const struct stat *st);
