#include "extent.h"
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#define TURNS 256u // files that share one only ask once more than they must

static atomic_uint turns[TURNS];
static atomic_ullong searches;

static atomic_uint *turn_of(dev_t dev, ino_t ino) { return &turns[(((uint64_t)ino + (uint64_t)dev) * 0x9E3779B97F4A7C15u >> 32) % TURNS]; }

void extent_cut(dev_t dev, ino_t ino) { atomic_fetch_add(turn_of(dev, ino), 1); }

bool extent_has(const struct extent *known, off_t at) { return at >= known->from && at < known->to && known->turn == atomic_load(turn_of(known->dev, known->ino)); }

off_t extent_end(struct extent *known, int file, off_t at) {
    if (extent_has(known, at)) return known->to;
    unsigned turn = atomic_load(turn_of(known->dev, known->ino));
    off_t hole = lseek(file, at, SEEK_HOLE);
    atomic_fetch_add_explicit(&searches, 1, memory_order_relaxed);
    known->from = at;
    known->to = hole > at ? hole : at;
    known->turn = turn;
    return hole;
}

off_t extent_data(const struct extent *known, int file, off_t at, off_t end) {
    if (extent_has(known, at)) return at < end ? at : end;
    off_t data = lseek(file, at, SEEK_DATA);
    atomic_fetch_add_explicit(&searches, 1, memory_order_relaxed);
    if (data < 0) data = errno == ENXIO ? end : at;
    return data < end ? data : end;
}

uint64_t extent_searches(void) { return atomic_load_explicit(&searches, memory_order_relaxed); }
