// The log of the dirty set on the disk: whatever lies there, reading it ends with a set in memory that can be written and read again, and a log
// that does not end in order is not believed.
#include "../../runtime/native/src/dirty.c"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    enter();
    strcpy(state.base, "00112233445566778899aabbccddeeff");
    lay_log("rfs.dirty", bytes, size);
    bool believed = dirty_recover(true);
    if (dirty_begin(true)) abort();
    bool kept = state.base[0] != 0;
    if (believed && !kept) abort();
    size_t count = dirty_count();
    // What is in memory now was written again, whole.
    if (dirty_close()) abort();
    if (kept && (dirty_begin(true) || !state.base[0] || dirty_count() != count)) abort();
    if (kept && dirty_close()) abort();
    return 0;
}
