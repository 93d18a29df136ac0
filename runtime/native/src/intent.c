// The records of the requests that are being served.
#include "intent.h"
#include "shared.h"
#include <fcntl.h>
#include <stdatomic.h>

#define INTENTS 2048u // more requests than that at once are served without a record

struct intent {
    _Atomic uint64_t number; // of the request, 0: free
    uint32_t directory;
    int64_t seconds;
    uint32_t nanoseconds;
    uint64_t dev;
    _Atomic uint64_t ino; // counts with its dev
};

static struct intent *intents;

void intents_open(void) { intents = shared_area("intents", INTENTS * sizeof *intents); }

static struct intent *intent_of(const struct fuse_request *request) { return &intents[request->intent - 1]; }

static unsigned first_place(uint64_t number, unsigned directory) { return (unsigned)((number * 0x9E3779B97F4A7C15u >> 40) + directory * 31u) % INTENTS; }

static bool find(struct fuse_request *request, uint64_t number) {
    for (unsigned i = 0; i < INTENTS; i++) {
        if (atomic_load(&intents[i].number) != number || intents[i].directory != request->directory->index) continue;
        request->intent = i + 1;
        return true;
    }
    return false;
}

void intent_begin(struct fuse_request *request) {
    uint64_t number = request->unique & ~REQUEST_SENT_AGAIN;
    if (request->unique & REQUEST_SENT_AGAIN && find(request, number)) {
        request->again = true;
        return;
    }
    // Times of files come from the same coarse clock.
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    unsigned place = first_place(number, request->directory->index);
    for (unsigned tries = 0; tries < 64; tries++, place = (place + 1) % INTENTS) {
        uint64_t none = 0;
        struct intent *one = &intents[place];
        if (atomic_load(&one->number) || !atomic_compare_exchange_strong(&one->number, &none, ~0ull)) continue;
        one->directory = request->directory->index;
        one->seconds = now.tv_sec;
        one->nanoseconds = (uint32_t)now.tv_nsec;
        one->dev = 0;
        atomic_store(&one->ino, 0);
        atomic_store(&one->number, number);
        request->intent = place + 1;
        return;
    }
}

void intent_end(const struct fuse_request *request) {
    if (request->intent) atomic_store(&intent_of(request)->number, 0);
}

void intent_object(const struct fuse_request *request, const struct stat *st) {
    if (!request->intent) return;
    struct intent *one = intent_of(request);
    atomic_store(&one->ino, 0);
    one->dev = st->st_dev;
    atomic_store(&one->ino, st->st_ino);
}

void intent_may_change(const struct fuse_request *request) { intent_object(request, &(struct stat){.st_ino = ~(ino_t)0}); }

bool intent_changed(const struct fuse_request *request) { return request->again && intent_of(request)->ino == ~0ull; }

bool intent_moved(const struct fuse_request *request, const struct stat *st) {
    return request->again && intent_of(request)->ino == st->st_ino && intent_of(request)->dev == st->st_dev;
}

bool intent_made(const struct fuse_request *request, int parent, const char *name) {
    struct statx attr;
    if (!request->again || statx(parent, name, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &attr) || !(attr.stx_mask & STATX_BTIME)) return false;
    const struct intent *one = intent_of(request);
    return attr.stx_btime.tv_sec > one->seconds || (attr.stx_btime.tv_sec == one->seconds && attr.stx_btime.tv_nsec >= one->nanoseconds);
}
