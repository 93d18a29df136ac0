// Names that change between the replicated and the excluded part of a directory (select.h).
//
// A file that comes in arrives at the peer whole and in one step: its content goes to a file without a name there, which then takes its place. One
// that goes out is removed there. What cannot be done in one step answers EXDEV, as between two file systems, and whoever moves files copies then:
// directories (and those with an excluded path below), files of several names, special files that come in, an exchange across, links across.
#pragma once
#include "stream.h"

struct crossing {
    bool considered; // a selection is configured
    bool refused;    // EXDEV
    bool in, out, beside; // to the replicated part, out of it, within the excluded part
    bool sent;            // its content is at the peer
    struct inode *inode;  // what moves; a regular file that crosses is locked
    struct stat before, other; // of both names; st_ino 0: nothing there
};

// Before namespace_lock is taken: judges, takes the lock of a file that crosses, and sends the content of one that comes in.
void crossing_prepare(struct crossing *crossing, struct inode *from, const char *name, struct inode *to, const char *new_name, unsigned flags);
// With namespace_lock held for writing. False: the names mean something else by now, everything was undone and the lock is free.
bool crossing_confirmed(struct crossing *crossing, const struct inode *from, const char *name, const struct inode *to, const char *new_name);
void crossing_ship(struct crossing *crossing, struct operation *operation, struct message *rename, struct inode *from, struct inode *to);
void crossing_end(struct crossing *crossing, bool done);
bool crossing_refuses_link(struct inode *inode, struct inode *parent, const char *name); // with namespace_lock held for writing

// ---- on the secondary ----
#define TEMPORARY_SIZE 64
int crossing_open_unnamed(const struct directory *directory); // -1 with errno
const char *crossing_temporary(char text[TEMPORARY_SIZE]);    // a name that nothing has
int crossing_link_over(const struct directory *directory, int object, int parent, const char *name); // 0 or an errno
// Removes what is excluded in a directory that goes. False, errno as it was: it holds something else too.
bool crossing_empty(const struct directory *directory, int parent, const char *name);
