// Counters without locks; the samples for the rates are taken by whichever thread beats.
#include "metrics.h"
#include <stdatomic.h>
#include <stdio.h>

#define SAMPLES 16
#define SAMPLE_MS 250
#define RATE_MS 3000

struct sample {
    int64_t at;
    uint64_t total[COUNTERS];
};

static struct {
    atomic_ullong total[COUNTERS], bucket[HISTOGRAMS][HISTOGRAM_BUCKETS], peer_p50, peer_p99;
    pthread_mutex_t lock;
    struct sample sample[SAMPLES];
    unsigned next;
} metrics = {.lock = PTHREAD_MUTEX_INITIALIZER};

int64_t metrics_now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void metrics_count(enum counter counter, uint64_t amount) { atomic_fetch_add_explicit(&metrics.total[counter], amount, memory_order_relaxed); }

uint64_t metrics_total(enum counter counter) { return atomic_load_explicit(&metrics.total[counter], memory_order_relaxed); }

void metrics_time(enum histogram histogram, int64_t microseconds) {
    unsigned bucket = microseconds <= 0 ? 0 : 64 - (unsigned)__builtin_clzll((unsigned long long)microseconds);
    if (bucket >= HISTOGRAM_BUCKETS) bucket = HISTOGRAM_BUCKETS - 1;
    atomic_fetch_add_explicit(&metrics.bucket[histogram][bucket], 1, memory_order_relaxed);
}

void metrics_sample(void) {
    int64_t now = now_ms();
    pthread_mutex_lock(&metrics.lock);
    const struct sample *last = &metrics.sample[(metrics.next + SAMPLES - 1) % SAMPLES];
    if (now - last->at >= SAMPLE_MS) {
        struct sample *sample = &metrics.sample[metrics.next++ % SAMPLES];
        sample->at = now;
        for (unsigned i = 0; i < COUNTERS; i++) sample->total[i] = metrics_total((enum counter)i);
    }
    pthread_mutex_unlock(&metrics.lock);
}

uint64_t metrics_rate(enum counter counter) {
    int64_t now = now_ms(), from = 0;
    uint64_t before = 0;
    metrics_sample();
    pthread_mutex_lock(&metrics.lock);
    for (unsigned i = 0; i < SAMPLES; i++) {
        const struct sample *sample = &metrics.sample[i];
        if (sample->at && now - sample->at <= RATE_MS && (!from || sample->at < from)) {
            from = sample->at;
            before = sample->total[counter];
        }
    }
    pthread_mutex_unlock(&metrics.lock);
    uint64_t grown = metrics_total(counter) - before;
    return from && now > from ? grown * 1000 / (uint64_t)(now - from) : 0;
}

uint64_t metrics_percentile(enum histogram histogram, unsigned percent) {
    uint64_t count[HISTOGRAM_BUCKETS], all = 0, seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) all += count[i] = atomic_load_explicit(&metrics.bucket[histogram][i], memory_order_relaxed);
    if (!all) return 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += count[i];
        if (seen * 100 >= all * percent) return 1ull << i;
    }
    return 1ull << (HISTOGRAM_BUCKETS - 1);
}

void metrics_buckets(enum histogram histogram, char *text, size_t size) {
    unsigned last = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (atomic_load_explicit(&metrics.bucket[histogram][i], memory_order_relaxed)) last = i;
    }
    size_t used = 0;
    for (unsigned i = 0; i <= last && used + 24 < size; i++) {
        int n = snprintf(text + used, size - used, "%s%llu", i ? "," : "", atomic_load_explicit(&metrics.bucket[histogram][i], memory_order_relaxed));
        used += (size_t)n;
    }
}

void metrics_peer_said(uint64_t p50_us, uint64_t p99_us) {
    atomic_store(&metrics.peer_p50, p50_us);
    atomic_store(&metrics.peer_p99, p99_us);
}

struct peer_times metrics_peer(void) { return (struct peer_times){atomic_load(&metrics.peer_p50), atomic_load(&metrics.peer_p99)}; }
