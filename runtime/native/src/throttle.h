// What a resynchronisation takes of this machine, of the wire and of the secondary while applications work.
//
// Nothing of it is taken under a lock: the thread that copies calls throttle_turn() between two pieces, and waits there.
//  - The window: bytes that the secondary has not acknowledged. Small while applications work, so that their frames and their syncs find short
//    queues; large when they rest.
//  - The pause: a share of the time that the last piece took, between nothing and a fifth of it. It grows while modifications of applications
//    take longer than they did before the resync, and shrinks when they do not. Never more than that: it is the floor. A resync
//    beside the busiest application is to keep half of its rate, and that application takes its part of the machine besides.
//  - options.resync_bandwidth: each copied byte buys its time.
#pragma once
#include "common.h"
#include <stdatomic.h>

struct throttle_status {
    unsigned pause_percent; // of the time at work
    uint64_t window, quiet_us, latency_us; // bytes; mean of what applications wait for, before the resync and in it
};

void throttle_begin(void);                                // of a resync
void throttle_end(void);
void throttle_latency(int64_t microseconds, bool synced); // of one modification of an application, from its request to its answer
// `copied`: bytes sent since the last turn. Returns when more may be sent, or when `cancelled`.
void throttle_turn(uint64_t copied, const atomic_bool *cancelled);
struct throttle_status throttle_get_status(void);
