// What the data plane measures of itself: bytes by kind, and times by powers of two. Every function may be called from any thread.
#pragma once
#include "common.h"

enum counter {
    COUNT_SENT,            // bytes on the wire, both roles
    COUNT_RECEIVED,
    COUNT_REPLICATED,      // bytes of applications' modifications: shipped by a primary, applied by a secondary
    COUNT_RESYNC,          // bytes of resynchronisations, likewise
    COUNT_OPERATIONS,      // modifications of applications
    COUNT_ACKNOWLEDGEMENTS,
    COUNT_RESUMED,         // connections that broke and went on without a resynchronisation
    COUNTERS
};

enum histogram {
    TIME_LOCAL, // primary: from the request to the end of the local half
    TIME_WIRE,  // primary: from the place in the stream to the peer's acknowledgement
    TIME_PEER,  // secondary: from the frame read to the frame applied
    TIME_SYNC,  // secondary: from the request to be durable to the answer
    HISTOGRAMS
};

#define HISTOGRAM_BUCKETS 26 // bucket i counts times below 2^i microseconds; the last one all else

struct peer_times {
    uint64_t p50_us, p99_us;
};

int64_t metrics_now_us(void);
void metrics_count(enum counter counter, uint64_t amount);
uint64_t metrics_total(enum counter counter);
void metrics_time(enum histogram histogram, int64_t microseconds);
void metrics_sample(void);                               // now and then, for the rates
uint64_t metrics_rate(enum counter counter);             // per second, over the last three
uint64_t metrics_percentile(enum histogram histogram, unsigned percent); // microseconds, upper bound of the bucket; 0: none
void metrics_buckets(enum histogram histogram, char *text, size_t size); // "n,n,n": counts, without the empty ones at the end
void metrics_peer_said(uint64_t p50_us, uint64_t p99_us); // the primary hears how long its secondary takes
struct peer_times metrics_peer(void);
