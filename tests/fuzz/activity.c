// The activity log on the disk, which a crash cuts anywhere: whatever lies there, reading it ends, and what it names is something that can be.
#include "../../runtime/native/src/activity.c"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void take(const struct touch *touch, const struct place *place) {
    if (touch && (touch->flags & ~MARK_ANY || touch->directory >= DIRECTORY_LIMIT)) abort();
    if (place && (place->size > HANDLE_LIMIT || place->directory >= DIRECTORY_LIMIT)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    enter();
    strcpy(state.base, "00112233445566778899aabbccddeeff");
    lay_log("rfs.activity", bytes, size);
    int64_t written_at;
    bool alone;
    activity_recover(take, &written_at, &alone);
    return 0;
}
