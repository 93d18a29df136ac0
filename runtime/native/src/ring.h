// The frames that the peer has not acknowledged yet, in the order of the stream: what is sent again after a broken connection.
//
// Frames lie whole, one behind the other; at the end of the room the ring goes on at its beginning, and earlier where it can, so that a stream
// that is acknowledged quickly stays in the processor's cache. Offsets, no pointers: the memory may be shared with the next process.
// Not thread safe: the owner has a lock.
#pragma once
#include "frame.h"

#define RING_RESERVE (1536u << 10) // more than the longest frame and what binds its objects: what may be appended where ring_fits() said so

struct ring {
    uint64_t size, head, tail, sent, end; // offsets; end: of what lies before a wrap
    uint64_t appended, sent_total, released; // bytes since the reset
    uint32_t wrapped, unused;
    unsigned char bytes[];
};

struct ring *ring_create(size_t size);
void ring_reset(struct ring *ring);
bool ring_fits(const struct ring *ring, size_t size);
// `busy`: somebody sends from the ring at this moment, nothing may move.
void ring_append(struct ring *ring, const struct message *message, bool busy);
size_t ring_unsent(struct ring *ring, const unsigned char **bytes); // one piece
void ring_sent(struct ring *ring, size_t size);
void ring_release(struct ring *ring, uint64_t applied); // the peer has everything up to this sequence number
void ring_rewind(struct ring *ring, uint64_t applied);  // and everything behind it is to be sent again
size_t ring_used(const struct ring *ring);
size_t ring_queued(const struct ring *ring); // not sent yet
