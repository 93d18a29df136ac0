// Compares both copies while applications write, exactly.
//
// What is compared at the primary is read and enqueued under the lock of the object, so it has one place in the ordered stream; the secondary compares when
// it gets there. Whatever was changed before is in both, whatever is changed later in none. Three kinds of frames:
//  - NAMES: some names of a directory, read under namespace_lock, with all that belongs to a name, and the metadata of what is no regular file.
//  - FILE, ZONE, HOLE: of one regular file its metadata, the digest of a zone, the place of a hole, each read under its lock.
//  - ABSENT: a name that the secondary has and NAMES did not tell. NAMES walks over a list that was read before, so this alone is only a suspicion; the
//    primary looks again under the lock and asks once more.
// Nothing is repaired. With `repair` what differs is marked dirty: the next resync compares and copies it.
#pragma once
#include "frame.h"
#include "marks.h"
#include "module.h"
#include <stdio.h>

// What differs, in frame.mode of OP_VERIFY_DIFFERS.
enum difference {
    DIFFERS_MISSING = 1,  // not on the secondary
    DIFFERS_EXTRA = 2,    // only there
    DIFFERS_KIND = 4,
    DIFFERS_OWNER = 8,
    DIFFERS_MODE = 16,
    DIFFERS_TIME = 32,
    DIFFERS_SIZE = 64,
    DIFFERS_LINKS = 128,
    DIFFERS_TARGET = 256, // of a symbolic link; device of a special file
    DIFFERS_ATTRIBUTES = 512,
    DIFFERS_CONTENT = 1024,
};

#define VERIFY_METADATA 1u // of `flags` in BEGIN and ASK: no content
#define VERIFY_REPAIR 2u
#define VERIFY_FULL_SPEED 4u // no pauses between the pieces
#define VERIFY_CANCEL 8u

struct verify_record { // of NAMES: followed by name and target, both with their zero
    uint64_t key, rdev, size;
    int64_t mtime_s;
    uint32_t mtime_n, mode, uid, gid, links;
    uint16_t name_size, target_size;
    unsigned char attributes[16];
};

struct verify_report {
    bool running, cancelled;
    char failed[160];
    uint64_t files, files_total, bytes, bytes_total, differing, differing_bytes;
    char list[4096]; // path of the file that names what differs
    int64_t seconds, ended; // ended: seconds since 1970; 0: never
};

// ---- commands ----
int verify_command(unsigned flags, unsigned limit_kbps, struct failure *failure); // answers at once; what was found comes as an event

// ---- primary ----
void verify_answer(const struct message *message); // what the secondary says
bool verify_active(void);
void verify_lost(void); // the peer is gone: ends it
void verify_join(void);

// ---- secondary ----
int verify_apply(const struct message *message);
void verify_session_ends(void);

// ---- both: verify_report.c ----
bool verify_report_begin(bool metadata_only, uint64_t files_total, uint64_t bytes_total); // false: one runs already
void verify_report_totals(uint64_t files, uint64_t bytes);
void verify_report_done(uint64_t files, uint64_t bytes);
void verify_report_difference(unsigned directory, uint64_t key, const char *path, uint32_t what, uint64_t bytes);
void verify_report_end(bool cancelled, const char *failed);
struct verify_report verify_report_get(void);
void verify_list_path(FILE *list, const char *directory, const char *path); // what would break a line in octal
void verify_attributes(int object, unsigned char digest[16]); // of the extended attributes, whatever their order
