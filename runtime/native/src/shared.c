// One memory file, mapped whole; untouched pages of it cost nothing.
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_SIZE ((size_t)1 << 30)
#define AREAS 16
#define ALIGNMENT 4096u
#define DESCRIPTORS (1u << 22)
#define WORD 64u

struct area {
    char name[24];
    uint64_t at;
    _Atomic uint64_t size; // 0 while it is being made
};

struct shared {
    uint32_t layout;
    bool takeover;
    uint64_t used;
    struct area area[AREAS];
    _Atomic uint64_t kept[DESCRIPTORS / WORD];
};

static struct shared *shared;
static int memory = -1;
static pthread_mutex_t area_lock = PTHREAD_MUTEX_INITIALIZER;

static int map(int fd) {
    void *at = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED) return errno;
    shared = at;
    memory = fd;
    return 0;
}

int shared_create(void) {
    int fd = memfd_create("safekit-rfs", MFD_CLOEXEC);
    if (fd < 0) return errno;
    int error = ftruncate(fd, MEMORY_SIZE) ? errno : map(fd);
    if (error) {
        close(fd);
        return error;
    }
    shared->layout = SHARED_LAYOUT;
    shared->used = (sizeof *shared + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    shared_keep(fd);
    return 0;
}

int shared_adopt(int fd) {
    struct stat st;
    if (fstat(fd, &st)) return errno;
    if (st.st_size != MEMORY_SIZE) return EINVAL;
    int error = map(fd);
    return error ? error : shared->layout == SHARED_LAYOUT ? 0 : EPROTO;
}

int shared_memory(void) { return memory; }

void shared_next_worker(bool follows) { shared->takeover = follows; }

bool shared_is_takeover(void) { return shared->takeover; }

void *shared_area(const char *name, size_t size) {
    pthread_mutex_lock(&area_lock);
    struct area *area = shared->area;
    while (area < shared->area + AREAS && area->size && strcmp(area->name, name) != 0) area++;
    if (area == shared->area + AREAS || (area->size && area->size != size) || shared->used + size > MEMORY_SIZE) {
        say("no shared memory for %s", name);
        abort();
    }
    if (!area->size) {
        snprintf(area->name, sizeof area->name, "%s", name);
        area->at = shared->used;
        shared->used += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        atomic_store_explicit(&area->size, size, memory_order_release);
    }
    pthread_mutex_unlock(&area_lock);
    return (unsigned char *)shared + area->at;
}

// ---- descriptors ----

void shared_keep(int fd) {
    if (fd >= 0 && (unsigned)fd < DESCRIPTORS) atomic_fetch_or(&shared->kept[(unsigned)fd / WORD], 1ull << ((unsigned)fd % WORD));
}

void shared_drop(int fd) {
    if (fd >= 0 && (unsigned)fd < DESCRIPTORS) atomic_fetch_and(&shared->kept[(unsigned)fd / WORD], ~(1ull << ((unsigned)fd % WORD)));
}

int shared_kept_next(int after) {
    for (unsigned at = (unsigned)(after + 1); at < DESCRIPTORS;) {
        uint64_t rest = atomic_load_explicit(&shared->kept[at / WORD], memory_order_relaxed) >> (at % WORD);
        if (rest) return (int)(at + (unsigned)__builtin_ctzll(rest));
        at = (at / WORD + 1) * WORD;
    }
    return -1;
}

void shared_close_others(void) {
    unsigned from = STDERR_FILENO + 1;
    for (int kept = STDERR_FILENO; (kept = shared_kept_next(kept)) >= 0; from = (unsigned)kept + 1) {
        if ((unsigned)kept > from) close_range(from, (unsigned)kept - 1, 0);
    }
    close_range(from, ~0u, 0);
}
