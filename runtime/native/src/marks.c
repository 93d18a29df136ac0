// A hash table with open addressing. Marks are never removed one by one, only their flags are cleared.
#include "marks.h"
#include <stdlib.h>
#include <string.h>

uint64_t mark_key(unsigned directory, dev_t dev, ino_t ino) {
    // Files of an overlay may carry the device of a lower layer; everything else lies on the directory's own.
    if (dev == options.directory[directory].dev) return (uint64_t)ino;
    uint64_t pair[2] = {(uint64_t)dev, (uint64_t)ino};
    return fnv64(pair, sizeof pair);
}

static struct mark *find(const struct mark_set *set, uint32_t directory, uint64_t key) {
    if (!set->size) return NULL;
    size_t at = (size_t)((key * 0x9E3779B97F4A7C15u) ^ directory) & (set->size - 1);
    while (set->slot[at].flags && (set->slot[at].key != key || set->slot[at].directory != directory)) at = (at + 1) & (set->size - 1);
    return &set->slot[at];
}

#define PRESENT 0x80000000u // keeps a slot of which all flags were taken

bool marks_add(struct mark_set *set, uint32_t directory, uint64_t key, uint32_t flags) {
    if ((set->used + 1) * 4 > set->size * 3) {
        size_t kept = 0;
        for (size_t i = 0; i < set->size; i++) kept += (set->slot[i].flags & ~PRESENT) != 0;
        // Where most were taken there is room enough without them.
        struct mark_set grown = {.size = !set->size ? 1024 : kept * 2 < set->size ? set->size : set->size * 2};
        grown.slot = must(calloc(grown.size, sizeof *grown.slot));
        for (size_t i = 0; i < set->size; i++) {
            if (!(set->slot[i].flags & ~PRESENT)) continue;
            *find(&grown, set->slot[i].directory, set->slot[i].key) = set->slot[i];
            grown.used++;
        }
        free(set->slot);
        *set = grown;
    }
    struct mark *mark = find(set, directory, key);
    if (!mark->flags) {
        *mark = (struct mark){directory, PRESENT, key};
        set->used++;
    }
    bool news = (mark->flags & flags) != flags;
    mark->flags |= flags;
    return news;
}

uint32_t marks_get(const struct mark_set *set, uint32_t directory, uint64_t key) {
    const struct mark *mark = find(set, directory, key);
    return mark ? mark->flags & ~PRESENT : 0;
}

uint32_t marks_take(struct mark_set *set, uint32_t directory, uint64_t key, uint32_t flags) {
    struct mark *mark = find(set, directory, key);
    if (!mark) return 0;
    uint32_t taken = mark->flags & flags;
    mark->flags &= ~flags;
    return taken;
}

void marks_copy(struct mark_set *to, const struct mark_set *from) {
    marks_clear(to);
    if (!from->size) return;
    *to = *from;
    to->slot = must(malloc(from->size * sizeof *from->slot));
    memcpy(to->slot, from->slot, from->size * sizeof *from->slot);
}

void marks_clear(struct mark_set *set) {
    free(set->slot);
    *set = (struct mark_set){0};
}
