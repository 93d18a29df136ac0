// Which entries of a replicated directory are replicated (spec §3.6, notreplicated). What is excluded stays local on both nodes: never shipped, listed,
// compared, removed or counted. Rules:
//  1. A relative path excludes that entry and all below it. It names a place: what is renamed to it becomes excluded.
//  2. An extended regular expression excludes every entry, of whatever kind, of which the name matches, and all below it.
//  3. An expression after `!` turns this round for what is no directory: only what matches (one of them) is replicated. Directories stay
//     replicated, for nothing below them could be otherwise.
//  4. A directory never changes sides (EXDEV, as between two file systems), so only a file's own name can make it change; see crossing.h.
//  5. An excluded entry lives as long as its directory: when a directory goes, so does what the other node has below it.
#pragma once
#include "frame.h"
#include "inode.h"

enum selection { SELECTION_UNKNOWN, SELECTION_REPLICATED, SELECTION_EXCLUDED }; // inode->selection

// While options are read. NULL, or what was expected.
const char *select_add_path(unsigned directory, const char *path);
const char *select_add_name(unsigned directory, const char *expression);

bool select_configured(const struct directory *directory);
// An entry of a directory that is replicated itself. `parent`: any descriptor of it; `type`: the entry's st_mode.
bool select_excludes(const struct directory *directory, int parent, const char *name, mode_t type);
bool select_excludes_path(const struct directory *directory, const char *path, mode_t type); // relative, from the root on
bool select_excludes_below(const struct directory *directory, int parent, const char *name); // some path below this entry is excluded
bool select_entry(struct inode *parent, const char *name, mode_t type); // the same for any parent
bool select_inode(struct inode *inode); // whether it is excluded
bool select_orphan(struct inode *inode); // has names, and none that is replicated: it is excluded from now on
void select_set(struct inode *inode, enum selection selection);

// What an operation may ship. False: nothing of it concerns the peer. A change of an excluded entry of a replicated directory becomes the new times
// of that directory.
bool select_ships(struct message *message, struct inode **object, struct inode **second);

void select_text(const struct directory *directory, char *text, size_t size); // the same on both nodes, or they may not talk
bool select_changed(void); // since the last run; remembers what is configured now
