// Borders of zones, and a hash table of blocks with open addressing. Blocks are never removed one by one, only their bits are cleared.
#include "zones.h"
#include <stdlib.h>
#include <string.h>

// Where each size begins. Every border is a multiple of every size that an option can ask for.
static const struct {
    uint64_t start, size;
} scale[] = {{0, 128u << 10}, {256ull << 20, 1u << 20}, {16ull << 30, 8u << 20}};
#define STEPS (sizeof scale / sizeof *scale)

static uint64_t step_size(size_t step) { return options.zone_size && options.zone_size < scale[step].size ? options.zone_size : scale[step].size; }

uint64_t zone_of(uint64_t offset) {
    uint64_t zone = 0;
    size_t step = 0;
    for (; step + 1 < STEPS && offset >= scale[step + 1].start; step++) zone += (scale[step + 1].start - scale[step].start) / step_size(step);
    return zone + (offset - scale[step].start) / step_size(step);
}

uint64_t zone_start(uint64_t zone) {
    for (size_t step = 0;; step++) {
        uint64_t zones = step + 1 < STEPS ? (scale[step + 1].start - scale[step].start) / step_size(step) : UINT64_MAX;
        if (zone < zones) return scale[step].start + zone * step_size(step);
        zone -= zones;
    }
}

static struct zone_block *find(const struct zone_set *set, uint32_t directory, uint64_t key, uint64_t zone) {
    if (!set->size) return NULL;
    uint32_t number = (uint32_t)(zone / ZONE_BLOCK);
    uint64_t hash = (key ^ (uint64_t)number << 40 ^ directory) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash ^ hash >> 29) & (set->size - 1);
    while (set->slot[at].directory && (set->slot[at].key != key || set->slot[at].number != number || set->slot[at].directory != directory + 1))
        at = (at + 1) & (set->size - 1);
    return &set->slot[at];
}

static void grow(struct zone_set *set) {
    struct zone_set grown = {.size = set->size ? set->size * 2 : 64, .used = set->used};
    grown.slot = must(calloc(grown.size, sizeof *grown.slot));
    for (size_t i = 0; i < set->size; i++) {
        const struct zone_block *block = &set->slot[i];
        if (block->directory) *find(&grown, block->directory - 1, block->key, (uint64_t)block->number * ZONE_BLOCK) = *block;
    }
    free(set->slot);
    *set = grown;
}

// The bits of [first, last] that lie in the word of `first`; *next is the first zone behind that word.
static uint64_t word_mask(uint64_t first, uint64_t last, uint64_t *next) {
    uint64_t end = first / 64 * 64 + 63;
    *next = end + 1;
    if (last > end) last = end;
    return (last - first == 63 ? ~0ull : (1ull << (last - first + 1)) - 1) << (first % 64);
}

bool zones_add(struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last) {
    bool news = false;
    for (uint64_t next; first <= last; first = next) {
        uint64_t mask = word_mask(first, last, &next);
        struct zone_block *block = find(set, directory, key, first);
        if (!block || !block->directory) {
            if ((set->used + 1) * 4 > set->size * 3) grow(set);
            block = find(set, directory, key, first);
            *block = (struct zone_block){.key = key, .directory = directory + 1, .number = (uint32_t)(first / ZONE_BLOCK)};
            set->used++;
        }
        uint64_t *word = &block->bits[first % ZONE_BLOCK / 64];
        news = news || (*word & mask) != mask;
        *word |= mask;
    }
    return news;
}

bool zones_have(const struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last) {
    for (uint64_t next; first <= last; first = next) {
        uint64_t mask = word_mask(first, last, &next);
        const struct zone_block *block = find(set, directory, key, first);
        if (!block || !block->directory || (block->bits[first % ZONE_BLOCK / 64] & mask) != mask) return false;
    }
    return true;
}

uint64_t zones_next(const struct zone_set *set, uint32_t directory, uint64_t key, uint64_t zone, uint64_t end) {
    while (zone < end) {
        const struct zone_block *block = find(set, directory, key, zone);
        if (!block || !block->directory) {
            zone = (zone / ZONE_BLOCK + 1) * ZONE_BLOCK;
            continue;
        }
        uint64_t word = block->bits[zone % ZONE_BLOCK / 64] >> (zone % 64);
        if (word) {
            zone += (uint64_t)__builtin_ctzll(word);
            return zone < end ? zone : NO_ZONE;
        }
        zone = (zone / 64 + 1) * 64;
    }
    return NO_ZONE;
}

void zones_take(struct zone_set *set, uint32_t directory, uint64_t key, uint64_t first, uint64_t last) {
    for (uint64_t next; first <= last; first = next) {
        uint64_t mask = word_mask(first, last, &next);
        struct zone_block *block = find(set, directory, key, first);
        if (block && block->directory) block->bits[first % ZONE_BLOCK / 64] &= ~mask;
    }
}

void zones_copy(struct zone_set *to, const struct zone_set *from) {
    zones_clear(to);
    if (!from->size) return;
    *to = *from;
    to->slot = must(malloc(from->size * sizeof *from->slot));
    memcpy(to->slot, from->slot, from->size * sizeof *from->slot);
}

void zones_clear(struct zone_set *set) {
    free(set->slot);
    *set = (struct zone_set){0};
}
