// The wire between a primary and its secondary: every message is one fixed frame followed by two names and data.
#pragma once
#include "common.h"

#define WIRE_VERSION 5u
#define FRAME_DATA_LIMIT (1u << 20)
#define ZONE_SIZE (1u << 20)
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little endian and frames travel as they lie in memory");

enum frame_op {
    // modifications, primary -> secondary, in the order of the table of FUSE operations
    OP_BIND = 1, // `name` is the path of object `id` inside directory `valid`
    OP_UNBIND,
    OP_UNBIND_ALL,
    OP_SETATTR,
    OP_MAKE, // object `id` is the parent; mode carries the type, `name2` the target of a symbolic link; what is made becomes object `id2`, unless 0
    OP_UNLINK,
    OP_RMDIR,
    OP_RENAME,
    OP_LINK,
    OP_WRITE,
    OP_FSYNC,
    OP_SETXATTR,
    OP_REMOVEXATTR,
    OP_FALLOCATE,
    // resynchronisation, primary -> secondary
    OP_RESYNC_BEGIN = 64,
    OP_LIST_BEGIN, // directory `id`: what follows up to OP_LIST_END is all that it holds
    OP_LIST_ENTRY,
    OP_LIST_END,
    OP_FILE_META,  // size, owner, mode, times, extended attributes (data) of file `id`
    OP_ZONE_CHECK, // digest (data, XXH3 of 128 bits) of a range
    OP_ZONE_DATA,
    OP_ZONE_HOLE,
    OP_LIST_ENTRIES, // many entries (data); see listing.h
    OP_BARRIER, // everything before it must be durable; `valid` says which barrier
    // comparison on line, primary -> secondary; see verify.h
    OP_VERIFY_BEGIN = 80,
    OP_VERIFY_NAMES,  // some names (data) of directory `id`: all from behind `name` up to `name2`
    OP_VERIFY_ABSENT, // directory `id` does not hold `name`
    OP_VERIFY_FILE,   // metadata of file `id`
    OP_VERIFY_ZONE,   // digest (data, XXH3 of 128 bits) of a range
    OP_VERIFY_HOLE,
    OP_VERIFY_END,
    // both ways
    OP_PING = 128, // from the primary `id` is the last acknowledgement that it has
    OP_GOODBYE,    // the sender leaves on purpose; nothing follows
    OP_ASK,        // primary: is frame `id`, applied before the connection was made again, synced? Answered by OP_DONE when it is
    // secondary -> primary
    OP_APPLIED = 160, // every frame up to `seq` that is not answered by its own OP_DONE
    OP_DONE,          // the frame `seq`: synced
    OP_DURABLE,       // every frame up to `seq` is on disk
    OP_ZONE_DIFFERS,
    OP_CREATED, // an object of a listing was missing: `name` is its kind (d, f), its directory and its key on the primary
    OP_LIST_DIFFERS, // of the files that OP_LIST_ENTRIES `seq` asked about these (data: 16 bit each, in the order of the questions) differ
    OP_TROUBLE, // the secondary leaves: `name` says why
    OP_VERIFY_ASK = 176,
    OP_VERIFY_DIFFERS, // the object `size` of directory `valid`, of which `name` is the path: `mode` says in what
    OP_VERIFY_SUSPECT, // `name` is the path of what the primary did not tell
};

enum barrier { BARRIER_MIRROR = 1, BARRIER_FLUSH, BARRIER_HANDOVER, BARRIER_PUBLISH };

#define FRAME_SYNC 1u     // durable before it is answered, by an OP_DONE of its own
#define FRAME_DATASYNC 2u // data only
#define FRAME_FULL 4u     // resync: everything is compared
#define FRAME_CLAIM 8u    // listing: the file has several names on the primary
#define FRAME_LINKED 16u  // listing: and not those that it had at the last mirror
#define FRAME_UNNAMED 32u // bind: a new file without a name yet
#define FRAME_REPLACE 64u // link, make: takes the place of what has the name, in one step

#define FRAME_TENTATIVE 128u // bind: no error when it is missing
#define FRAME_DIFFERS 256u   // zone: the secondary said so, or of all before it: nothing needs to be compared

// What the secondary calls an object for the moment before it takes its place. Never excluded from a listing, so nothing of it stays.
#define TEMPORARY_NAME ".safekit-temporary-"

struct frame {
    uint32_t length; // of everything, this frame included
    uint16_t op, flags;
    uint64_t seq, id, id2;
    uint64_t offset, size, rdev;
    int64_t mtime_s, atime_s, parent_s, parent2_s;
    uint32_t mtime_n, atime_n, parent_n, parent2_n;
    uint32_t mode, uid, gid, umask, valid;
    uint16_t name_size, name2_size; // with their terminating zero; 0: none
    uint32_t data_size, reserved;
};
_Static_assert(sizeof(struct frame) == 136, "no padding on the wire");

// A frame with its variable parts. Names are zero terminated, or NULL.
struct message {
    struct frame frame;
    const char *name, *name2;
    const void *data;
};

// SETATTR and FILE_META: which fields of the frame count
#define SET_MODE 1u
#define SET_UID 2u
#define SET_GID 4u
#define SET_SIZE 8u
#define SET_ATIME 16u
#define SET_MTIME 32u

size_t message_size(const struct message *message);
struct frame message_head(const struct message *message);               // complete: the names and the data follow it on the wire
void message_write(const struct message *message, unsigned char *out); // out has message_size() bytes
// One message at the start of `bytes`. 0: not complete yet; -1: not a frame of ours; else its length.
ssize_t message_read(const unsigned char *bytes, size_t size, struct message *message);
bool name_is_entry(const char *name); // one component, not "." nor ".."
bool path_is_inside(const char *path); // relative, no "..", may be empty
