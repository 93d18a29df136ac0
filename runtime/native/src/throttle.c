#include "throttle.h"
#include "metrics.h"
#include "stream.h"
#include <unistd.h>

#define WINDOW_BUSY (1u << 20)
#define WINDOW_IDLE (6u << 20) // a part of the ring: what applications append always finds room
#define INTERVAL_US 50000
#define IDLE_US 250000    // an application that modified nothing for so long rests
#define PAUSE_MOST 20u    // percent: the floor. Applications take their part of the machine besides, and that is most of what the rate loses
#define TOO_LONG 125u     // percent of what it takes in quiet: the pause grows above it ...
#define AS_IN_QUIET 110u  // ... and shrinks below
#define NAP_US 1000       // less is not worth a sleep

// Modifications that are synced wait for the disk, others do not: each kind is compared with its own kind.
enum kind { PLAIN, SYNCED, KINDS };

static struct {
    atomic_bool running;
    atomic_ullong sum[KINDS], count[KINDS]; // since the last look
    atomic_llong last;                      // when an application modified something
    atomic_uint quiet[KINDS];               // microseconds: moving mean without a resync; 0: not known
    atomic_uint pause, latency;
    atomic_ullong window;
    // of the thread that copies
    int64_t looked, worked_since, debt, paced, owed; // owed: bytes
} throttle;

void throttle_latency(int64_t microseconds, bool synced) {
    enum kind kind = synced ? SYNCED : PLAIN;
    atomic_store_explicit(&throttle.last, metrics_now_us(), memory_order_relaxed);
    if (atomic_load_explicit(&throttle.running, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&throttle.sum[kind], (uint64_t)microseconds, memory_order_relaxed);
        atomic_fetch_add_explicit(&throttle.count[kind], 1, memory_order_relaxed);
        return;
    }
    // Two that meet may lose one of both: it is a mean.
    unsigned before = atomic_load_explicit(&throttle.quiet[kind], memory_order_relaxed), now = (unsigned)(microseconds < 10000000 ? microseconds : 10000000);
    atomic_store_explicit(&throttle.quiet[kind], before ? (unsigned)(((uint64_t)before * 63 + now) / 64) : now ? now : 1, memory_order_relaxed);
}

static bool applications_work(int64_t now) {
    int64_t last = atomic_load_explicit(&throttle.last, memory_order_relaxed);
    return last && now - last < IDLE_US;
}

void throttle_begin(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        atomic_store(&throttle.sum[kind], 0);
        atomic_store(&throttle.count[kind], 0);
    }
    throttle.looked = throttle.worked_since = metrics_now_us();
    throttle.debt = throttle.owed = 0;
    throttle.paced = throttle.looked;
    bool busy = applications_work(throttle.looked);
    atomic_store(&throttle.pause, busy ? PAUSE_MOST : 0);
    atomic_store(&throttle.window, busy ? WINDOW_BUSY : WINDOW_IDLE);
    atomic_store(&throttle.latency, 0);
    atomic_store(&throttle.running, true);
}

void throttle_end(void) { atomic_store(&throttle.running, false); }

// How much longer applications wait than in quiet, in percent; 0: none did, or nobody knows.
static unsigned slowness(void) {
    unsigned slow = 0;
    uint64_t mean = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t sum = atomic_exchange(&throttle.sum[kind], 0), count = atomic_exchange(&throttle.count[kind], 0);
        unsigned quiet = atomic_load(&throttle.quiet[kind]);
        if (!count) continue;
        mean = sum / count; // the synced ones say it last: they are the long ones
        unsigned percent = quiet ? (unsigned)(mean * 100 / quiet) : 100;
        if (percent > slow) slow = percent;
    }
    if (mean) atomic_store(&throttle.latency, (unsigned)mean);
    return slow;
}

static void look(int64_t now) {
    if (now - throttle.looked < INTERVAL_US) return;
    throttle.looked = now;
    unsigned slow = slowness(), pause = atomic_load(&throttle.pause);
    if (!applications_work(now)) pause = 0;
    else if (slow > TOO_LONG) pause = pause * 2 + 10;
    else if (slow && slow < AS_IN_QUIET) pause -= pause > 5 ? 5 : pause;
    atomic_store(&throttle.pause, pause < PAUSE_MOST ? pause : PAUSE_MOST);
    atomic_store(&throttle.window, applications_work(now) ? WINDOW_BUSY : WINDOW_IDLE);
}

static int64_t rest(int64_t now, int64_t until, const atomic_bool *cancelled) {
    while (now < until && !atomic_load(cancelled)) {
        usleep((useconds_t)(until - now < 50000 ? until - now : 50000));
        now = metrics_now_us();
    }
    return now;
}

// Each copy owes its time, by the rate of the moment; at most a quarter of a second is saved up.
static int64_t pace(uint64_t copied, int64_t now, const atomic_bool *cancelled) {
    throttle.owed += (int64_t)copied;
    for (;;) {
        int64_t rate = (int64_t)__atomic_load_n(&options.resync_bandwidth, __ATOMIC_RELAXED) << 10, gone = now - throttle.paced;
        throttle.paced = now;
        if (!rate) throttle.owed = 0;
        throttle.owed -= gone * rate / 1000000;
        if (throttle.owed < -rate / 4) throttle.owed = -rate / 4;
        if (throttle.owed <= 0 || atomic_load(cancelled)) return now;
        int64_t missing = throttle.owed * 1000000 / rate;
        now = rest(now, now + (missing < 50000 ? missing + 1 : 50000), cancelled);
    }
}

void throttle_turn(uint64_t copied, const atomic_bool *cancelled) {
    int64_t now = metrics_now_us();
    throttle.debt += (now - throttle.worked_since) * (int64_t)atomic_load(&throttle.pause) / 100;
    if (throttle.debt >= NAP_US) {
        int64_t from = now;
        now = rest(now, now + throttle.debt, cancelled);
        throttle.debt -= now - from;
    }
    stream_wait_window((size_t)atomic_load(&throttle.window));
    now = pace(copied, metrics_now_us(), cancelled);
    throttle.worked_since = now;
    look(now);
}

struct throttle_status throttle_get_status(void) {
    bool running = atomic_load(&throttle.running);
    unsigned quiet = atomic_load(&throttle.quiet[SYNCED]);
    return (struct throttle_status){running ? atomic_load(&throttle.pause) : 0, running ? atomic_load(&throttle.window) : 0,
                                    quiet ? quiet : atomic_load(&throttle.quiet[PLAIN]), running ? atomic_load(&throttle.latency) : 0};
}
