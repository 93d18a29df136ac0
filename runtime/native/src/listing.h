// Listings of directories: how they are sent, how they travel, and what comes back.
//
// A listing is all that a directory holds. Directories and files of one name travel many in a frame; everything else in a frame of its own. A
// file that may differ and of which the listing says everything (it is empty) is asked about: the secondary compares what it has with what is
// listed, and answers only what differs.
//
// The state of a file is read without its lock, beside writes. That is right: what an operation that runs at this moment touches, it touches on the
// secondary as well, and sets it to what it is here; what no operation touches is compared as it is. So "equal" is right once the operations up to
// now are applied, and "differs" costs one comparison under the lock.
#pragma once
#include "frame.h"
#include "inode.h"

#define LISTED_ASKED 32768u // besides the FRAME_* flags: answer when it differs

// One entry of OP_LIST_ENTRIES as it travels; its name with a terminating zero follows.
struct listed {
    uint64_t key, size, attributes; // attributes: see xattrs_digest()
    int64_t mtime_s;
    uint32_t mtime_n, mode, uid, gid;
    uint16_t flags, name_size;
    uint32_t reserved;
};
_Static_assert(sizeof(struct listed) == 56, "no padding on the wire");

// The entry at *at, which moves behind it. False: the end, or (with *malformed) not ours.
bool listed_next(const unsigned char **at, const unsigned char *end, struct listed *entry, const char **name, bool *malformed);

// ---- the primary ----
void listing_send(struct inode *directory); // with namespace_lock held for writing
void listing_answer(const struct message *message);
// Closes what the secondary answered, or had nothing to say to, up to `applied`. Of the resync's thread.
void listing_settle(uint64_t applied);
uint64_t listing_oldest(void);              // the frame that is waited for; 0: none
struct inode *listing_differing(void);      // a directory in which something differs: marks below it are left. Its reference is the caller's
void listing_forget(void);
