// Sets of zones: the parts of files that differ, or may differ, from the peer's copy. A bit per zone, in blocks that exist only where a bit is
// set: a file of 20 GiB with 50 changed zones costs at most 50 blocks of 80 bytes, one that changed everywhere one bit per zone.
//
// Zones grow with the position, not with the file, so that none changes its borders when a file grows: 128 KiB in the first 256 MiB, 1 MiB up to
// 16 GiB, 8 MiB behind; options.zone_size bounds them all.
#pragma once
#include "common.h"

#define ZONE_SIZE_MIN (64u << 10)
#define ZONE_SIZE_MAX (8u << 20)
#define NO_ZONE UINT64_MAX
#define ZONE_BLOCK 512u // zones

struct zone_block {
    uint64_t key;
    uint32_t directory, number; // directory + 1; 0: an empty slot
    uint64_t bits[ZONE_BLOCK / 64];
};

struct zone_set {
    struct zone_block *slot;
    size_t used, size;
};

uint64_t zone_of(uint64_t offset);
uint64_t zone_start(uint64_t zone); // its first byte; zone_start(zone + 1) is its end
bool zones_add(struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last); // true when one of them was news
bool zones_have(const struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last); // all of them
uint64_t zones_next(const struct zone_set *set, uint32_t directory, uint64_t key, uint64_t zone, uint64_t end); // first one in [zone, end), or NO_ZONE
void zones_take(struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last);
void zones_copy(struct zone_set *to, const struct zone_set *from);
void zones_clear(struct zone_set *set);
