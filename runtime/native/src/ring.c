#include "ring.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WRAP_EARLY (512u << 10)

struct ring *ring_create(size_t size) {
    struct ring *ring = mmap(NULL, sizeof *ring + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED) return must(NULL);
    ring->size = size;
    ring_reset(ring);
    return ring;
}

void ring_reset(struct ring *ring) {
    ring->head = ring->tail = ring->sent = ring->end = ring->appended = ring->sent_total = ring->released = 0;
    ring->wrapped = 0;
}

static bool fits_at_beginning(const struct ring *ring, size_t size) { return !ring->wrapped && size < ring->tail; }

bool ring_fits(const struct ring *ring, size_t size) {
    if (ring->wrapped) return ring->head + size < ring->tail;
    return ring->head + size <= ring->size || fits_at_beginning(ring, size);
}

void ring_append(struct ring *ring, const struct message *message, bool busy) {
    size_t size = message_size(message);
    if (!busy && ring->appended == ring->released) ring_reset(ring);
    // Early only where everything fits that the owner may append before it looks for room again.
    if (!ring->wrapped && (ring->head + size > ring->size || (ring->head >= WRAP_EARLY && fits_at_beginning(ring, RING_RESERVE)))) {
        ring->end = ring->head;
        ring->head = 0;
        ring->wrapped = 1;
    }
    message_write(message, ring->bytes + ring->head);
    ring->head += size;
    ring->appended += size;
}

size_t ring_unsent(struct ring *ring, const unsigned char **bytes) {
    if (ring->wrapped && ring->sent >= ring->tail) {
        if (ring->sent < ring->end) {
            *bytes = ring->bytes + ring->sent;
            return ring->end - ring->sent;
        }
        ring->sent = 0;
    }
    *bytes = ring->bytes + ring->sent;
    return ring->head - ring->sent;
}

void ring_sent(struct ring *ring, size_t size) {
    ring->sent += size;
    ring->sent_total += size;
}

void ring_release(struct ring *ring, uint64_t applied) {
    while (ring->released < ring->sent_total) {
        if (ring->wrapped && ring->tail == ring->end) {
            if (ring->sent == ring->end) ring->sent = 0;
            ring->tail = 0;
            ring->wrapped = 0;
        }
        struct frame frame;
        memcpy(&frame, ring->bytes + ring->tail, sizeof frame);
        if (frame.seq > applied || ring->released + frame.length > ring->sent_total) return;
        ring->tail += frame.length;
        ring->released += frame.length;
    }
}

void ring_rewind(struct ring *ring, uint64_t applied) {
    ring->sent_total = ring->appended; // the peer may have more than the broken connection said
    ring_release(ring, applied);
    if (ring->wrapped && ring->tail == ring->end) {
        ring->tail = 0;
        ring->wrapped = 0;
    }
    ring->sent = ring->tail;
    ring->sent_total = ring->released;
}

size_t ring_used(const struct ring *ring) { return ring->appended - ring->released; }

size_t ring_queued(const struct ring *ring) { return ring->appended - ring->sent_total; }
