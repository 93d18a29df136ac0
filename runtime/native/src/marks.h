// Sets of objects that differ, or may differ, from the peer's copy. An object is named by its inode, so a renamed directory keeps its marks.
#pragma once
#include "common.h"

#define MARK_META 1u    // owner, mode, times, extended attributes
#define MARK_CONTENT 2u // the bytes, all of them (and everything of MARK_META)
#define MARK_LIST 4u    // the entries of a directory
#define MARK_TREE 8u    // everything below a directory that got another place
#define MARK_LINKED 16u // a file of several names that gained or changed one: all of them must be listed again
#define MARK_HEAD 32u   // of the bytes the first zone (and everything of MARK_META)
#define MARK_ZONES 64u  // of the bytes what the set of zones says (and everything of MARK_META)
#define MARK_YOUNG 128u // a directory: also what in it is young, the bytes too
#define MARK_COPIED 512u // a directory, while a resync goes on with an interrupted copy: everything below it but what was copied (copied.h)
#define MARK_REST 1024u // a file then: its zones are all that was not copied, and what was changed since
#define MARK_BYTES (MARK_CONTENT | MARK_HEAD | MARK_ZONES)
#define MARK_ANY 255u

struct mark {
    uint32_t directory, flags;
    uint64_t key;
};

struct mark_set {
    struct mark *slot;
    size_t used, size;
};

uint64_t mark_key(unsigned directory, dev_t dev, ino_t ino);
bool marks_add(struct mark_set *set, uint32_t directory, uint64_t key, uint32_t flags); // true when that was news
uint32_t marks_get(const struct mark_set *set, uint32_t directory, uint64_t key);
uint32_t marks_take(struct mark_set *set, uint32_t directory, uint64_t key, uint32_t flags); // clears; returns what was set of them
void marks_copy(struct mark_set *to, const struct mark_set *from);
void marks_clear(struct mark_set *set);
