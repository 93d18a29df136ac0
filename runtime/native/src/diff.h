// What the next resynchronisation would copy, counted on the primary while it is alone (spec §4.9.6, rfsdiff): objects, bytes, and about how long.
#pragma once
#include "module.h"

struct diff_report {
    bool running, full; // full: no record reaches back to a mirror, everything is compared
    char failed[160];
    uint64_t files, bytes, differing, differing_bytes, directories; // differing: of `files`; directories: of which the entries are compared
    char list[4096];
    int64_t seconds, ended; // seconds: an estimate
};

int diff_start(struct failure *failure); // answers at once; the count comes as an event
void diff_stop(void);                    // waits for its end
struct diff_report diff_get(void);
