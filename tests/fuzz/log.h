// A log of records in the folder, of which the first byte of the input says whether its checksums are right. The log's own file is included before.
#pragma once
#include "folder.h"
#include <stddef.h>

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

static void lay_log(const char *name, const uint8_t *bytes, size_t size) {
    static uint8_t copy[65536];
    size_t used = size ? size - 1 : 0;
    if (used) memcpy(copy, bytes + 1, used);
    if (size && bytes[0] & 1) seal(copy, used);
    lay(name, copy, used);
}
