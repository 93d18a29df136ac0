// Asking is dear, so it is done at most once a second, and from three quarters of the limit on.
#include "room.h"
#include "local.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define EVERY_MS 1000

static int caches = -1;
static atomic_int high = 1 << 19;
static _Atomic int64_t asked;

static void read_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) atomic_store(&high, (int)(limit.rlim_cur / 4 * 3));
}

void room_open(void) {
    caches = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    read_limit();
}

static void ask(void) {
    int64_t now = now_ms(), last = atomic_load(&asked);
    if (now - last < EVERY_MS || !atomic_compare_exchange_strong(&asked, &last, now)) return;
    read_limit();
    if (caches < 0 || pwrite(caches, "2", 1, 0) != 1) say("most descriptors are in use, and the kernel cannot be asked to forget: %s", strerror(errno));
}

void room_watch(int fd) {
    if (fd > atomic_load_explicit(&high, memory_order_relaxed)) ask();
}

void room_wait(void) {
    ask();
    struct timespec pause = {.tv_nsec = 25 * 1000000};
    nanosleep(&pause, NULL);
}

int room_reopen(int object, int flags) {
    int fd;
    for (unsigned tries = 0; (fd = local_reopen(object, flags)) < 0 && errno == EMFILE && tries < ROOM_TRIES; tries++) room_wait();
    return fd;
}
