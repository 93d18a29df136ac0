// The record on the disk: whatever lies there, reading it ends, and a record that is damaged is never the ground for serving or for a short resync.
#include "../../runtime/native/src/state.h"
#include "folder.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void forget(void) {
    memset(&state, 0, sizeof state);
    strcpy(state.role, "idle");
    state.clean = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    enter();
    // The checksum is right in half of the inputs: a reader that only compares checksums is no reader.
    bool sealed = size && bytes[0] & 1;
    char text[65536 + 64];
    size_t used = size ? size - 1 : 0;
    if (used) memcpy(text, bytes + 1, used);
    if (sealed) used += (size_t)snprintf(text + used, 64, "check=%016llx\n", (unsigned long long)fnv64(text, used));
    lay("rfs.state", (const uint8_t *)text, used);
    forget();
    bool was_secondary, damaged;
    if (state_load(&was_secondary)) abort();
    if (!memchr(state.base, 0, sizeof state.base) || !memchr(state.generation, 0, sizeof state.generation)) abort();
    damaged = state.inconsistent;
    if (damaged && state.exact) abort();
    // What was drawn from it is on the disk: a second start draws the same.
    struct state first = state;
    forget();
    if (state_load(&was_secondary)) abort();
    if (state.inconsistent != damaged || state.exact != first.exact || strcmp(state.base, first.base) != 0) abort();
    return 0;
}
