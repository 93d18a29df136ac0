// The ring of unacknowledged frames, driven as the stream drives it, by requests taken from the input, over connections that break anywhere: each
// connection delivers every frame that its peer lacks once, whole and in order; what is not released stays as it was; who was told that it fits
// appends without harm.
#include "../../runtime/native/src/ring.h"
#include <stdlib.h>
#include <string.h>

#define FRAMES 4096u // of one input, at most
#define PATTERN_SIZE 251u
#define NAME_LIMIT 4096u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const struct request {
    const uint8_t *bytes;
    size_t size;
} none;

// What the model knows of one appended frame.
struct known {
    uint64_t seq, begin, end; // bytes of the stream
    struct message message;
};

static struct known frames[FRAMES];
static unsigned char data[FRAME_DATA_LIMIT + PATTERN_SIZE], piece[FRAME_DATA_LIMIT + NAME_LIMIT + sizeof(struct frame)];
static char name[NAME_LIMIT];

static struct {
    struct request input;
    struct ring *ring;
    size_t appended, released; // frames
    uint64_t seq, acknowledged;
    uint64_t sent, received; // bytes of the stream, up to where: the ring was told so, the peer has so much
    bool connected, sending;
    const unsigned char *at; // what is being sent
    size_t left, taken;
} world;

static void expect(bool what) {
    if (!what) abort();
}

static unsigned next(void) {
    if (!world.input.size) return 0;
    world.input.size--;
    return *world.input.bytes++;
}

static uint64_t stream_end(void) { return world.appended ? frames[world.appended - 1].end : 0; }

static uint64_t stream_begin(void) { return world.released < world.appended ? frames[world.released].begin : stream_end(); }

static struct known *frame_at(uint64_t byte) {
    size_t low = 0, high = world.appended;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (frames[middle].begin <= byte) low = middle;
        else high = middle;
    }
    return &frames[low];
}

// The peer takes some bytes: they are those that it lacks.
static void receive(const unsigned char *at, size_t size) {
    while (size) {
        expect(world.received < stream_end());
        const struct known *known = frame_at(world.received);
        size_t begin = (size_t)(world.received - known->begin), count = (size_t)(known->end - known->begin) - begin;
        if (count > size) count = size;
        message_write(&known->message, piece);
        expect(memcmp(at, piece + begin, count) == 0);
        world.received += count;
        at += count;
        size -= count;
    }
}

// What the ring lets go: frames that were sent whole and are acknowledged.
static void forget(void) {
    while (world.released < world.appended && frames[world.released].seq <= world.acknowledged && frames[world.released].end <= world.sent) world.released++;
}

static size_t message_of_input(struct message *message) {
    unsigned kind = next(), size = next();
    *message = (struct message){.frame = {.op = OP_WRITE, .id = kind}};
    if (kind & 1) size = size << 12 | next() << 4;
    if (size > FRAME_DATA_LIMIT) size = FRAME_DATA_LIMIT;
    message->frame.data_size = size;
    if (kind & 2) message->name = name + NAME_LIMIT - 1 - (kind & 4 ? NAME_LIMIT - 1 : next());
    return message_size(message);
}

// As many as may be appended after one look for room.
static void append_some(void) {
    size_t room = RING_RESERVE;
    if (!ring_fits(world.ring, room)) return;
    for (unsigned count = 1 + next() % 6; count && world.appended < FRAMES; count--) {
        struct known *known = &frames[world.appended];
        size_t size = message_of_input(&known->message);
        if (size > room) return;
        room -= size;
        if (known->message.frame.id % 8 != 7) world.seq++; // a heartbeat has the number of the frame before it
        known->seq = known->message.frame.seq = world.seq;
        known->message.data = data + world.appended % PATTERN_SIZE;
        known->begin = stream_end();
        known->end = known->begin + size;
        ring_append(world.ring, &known->message, world.sending);
        world.appended++;
    }
}

static void send_begins(void) {
    if (!world.connected || world.sending) return;
    world.left = ring_unsent(world.ring, &world.at);
    world.taken = 0;
    expect(world.left || world.sent == stream_end());
    world.sending = true;
}

// The peer may have it before the sender comes back.
static void send_goes_on(size_t size) {
    if (!world.sending) return;
    if (size > world.left) size = world.left;
    receive(world.at + world.taken, size);
    world.taken += size;
    world.left -= size;
}

static void send_ends(void) {
    if (!world.sending) return;
    world.sending = false;
    if (!world.taken) return;
    ring_sent(world.ring, world.taken);
    world.sent += world.taken;
    ring_release(world.ring, world.acknowledged);
    forget();
}

// Of what the peer has whole, so many frames are not applied yet.
static uint64_t applied(unsigned behind) {
    uint64_t seq = world.acknowledged;
    if (!world.appended) return seq;
    size_t last = (size_t)(frame_at(world.received) - frames);
    if (frames[last].end <= world.received) last++;
    // A number that several frames bear is acknowledged with the first of them.
    if (last > behind && frames[last - behind - 1].seq > seq) seq = frames[last - behind - 1].seq;
    return seq;
}

static void acknowledge(unsigned behind) {
    uint64_t seq = applied(behind);
    if (!world.connected || seq <= world.acknowledged) return;
    world.acknowledged = seq;
    ring_release(world.ring, seq);
    forget();
}

// The sender comes back with an error, whatever it had sent; then the stream goes on over another connection.
static void connection_breaks(void) {
    world.connected = world.sending = false;
}

static void connect_again(unsigned behind) {
    if (world.connected) return;
    world.acknowledged = applied(behind);
    world.connected = true;
    ring_rewind(world.ring, world.acknowledged);
    world.sent = UINT64_MAX;
    forget();
    world.sent = world.received = stream_begin();
}

static void check(void) {
    const struct ring *ring = world.ring;
    expect(ring->head <= ring->size && ring->end <= ring->size);
    expect(ring_used(ring) == stream_end() - stream_begin());
    if (world.connected) expect(ring_queued(ring) == stream_end() - world.sent);
    if (!ring_used(ring)) expect(ring_fits(ring, RING_RESERVE)); // else nothing would ever make room
}

static void begin(void) {
    static const size_t sizes[] = {3u << 20, 4u << 20, (4u << 20) + 4099, 16u << 20};
    static struct ring *rings[sizeof sizes / sizeof *sizes];
    size_t chosen = next() % (sizeof sizes / sizeof *sizes);
    if (!data[1]) {
        for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i % PATTERN_SIZE + 1);
        memset(name, 'n', sizeof name - 1);
    }
    if (!rings[chosen]) rings[chosen] = ring_create(sizes[chosen]);
    world.ring = rings[chosen];
    ring_reset(world.ring);
    world.appended = world.released = 0;
    world.seq = world.acknowledged = world.sent = world.received = 0;
    world.connected = true;
    world.sending = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    world.input = size > 1024 ? (struct request){bytes, 1024} : size ? (struct request){bytes, size} : none;
    begin();
    while (world.input.size) {
        switch (next() % 8) {
        case 0:
        case 1: append_some(); break;
        case 2: send_begins(); break;
        case 3: send_goes_on((size_t)next() << 12 | next()); break;
        case 4:
            send_goes_on(SIZE_MAX);
            send_ends();
            break;
        case 5: send_ends(); break;
        case 6: acknowledge(next() % 4); break;
        default:
            connection_breaks();
            if (next() % 4) connect_again(next() % 8);
            break;
        }
        check();
    }
    // In the end everything arrives.
    connect_again(0);
    for (send_ends(); world.received < stream_end(); send_ends()) {
        send_begins();
        send_goes_on(SIZE_MAX);
        acknowledge(0);
    }
    acknowledge(0);
    check();
    expect(!ring_used(world.ring));
    return 0;
}
