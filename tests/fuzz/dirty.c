// The log of the dirty set on the disk: whatever lies there, reading it ends with a set in memory that can be written and read again, and a log
// that does not end in order is not believed.
#include "../../runtime/native/src/dirty.c"
#include "../../runtime/native/src/shared.h"
#include <stddef.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static char folder[] = "/dev/shm/safekit-fuzz-XXXXXX";

static void leave(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command)) return;
}

// Makes every checksum right: a reader that only compares checksums is no reader.
static void seal(uint8_t *bytes, size_t size) {
    struct record record;
    struct place place;
    for (size_t at = 0; at + sizeof record <= size;) {
        memcpy(&record, bytes + at, sizeof record);
        record.kind = (uint16_t)(RECORD_BEGIN + record.kind % 8);
        if (at == 0) record.kind = RECORD_BEGIN;
        if (record.kind == RECORD_BEGIN) record.key = base_check();
        record.check = fnv64(&record, offsetof(struct record, check));
        memcpy(bytes + at, &record, sizeof record);
        at += sizeof record;
        if (record.kind != RECORD_PLACE || at + sizeof place > size) continue;
        memcpy(&place, bytes + at, sizeof place);
        place.check = (uint32_t)fnv64(place.bytes, sizeof place.bytes);
        memcpy(bytes + at, &place, sizeof place);
        at += sizeof place;
    }
}

static void put(const uint8_t *bytes, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/rfs.dirty", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (!options.state_dir) {
        if (!mkdtemp(folder)) abort();
        atexit(leave);
        options.state_dir = folder;
        options.module = "fuzz";
        if (shared_create()) abort();
        stderr = fopen("/dev/null", "we"); // what is said; a sanitizer writes to the descriptor
    }
    strcpy(state.base, "00112233445566778899aabbccddeeff");
    static uint8_t copy[65536];
    size_t used = size ? size - 1 : 0;
    if (used) memcpy(copy, bytes + 1, used);
    if (size && bytes[0] & 1) seal(copy, used);
    put(copy, used);
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
