// An encrypted link, driven by requests taken from the input, over a cable that delivers in pieces of any size and may change what it carries: what
// comes out is what went in, from its beginning on, whatever sizes the two ends ask for; behind a changed byte nothing comes out any more.
#include "../../runtime/native/src/link.c"
#include <stdlib.h>
#include <string.h>

#define PENDING_LIMIT (100u << 10) // less than the socket of a cable holds
#define SENT_LIMIT (1u << 20)      // of one input
#define PATTERN 65521u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static unsigned char pattern[PATTERN + SENT_LIMIT], cable[SENT_LIMIT * 2], received[SENT_LIMIT];

static struct {
    const uint8_t *input;
    size_t size;
    struct link *from, *to;
    int from_cable, to_cable;
    size_t sent, taken, carried, delivered; // bytes: of the application, and of the wire
    bool forged;
} world;

static void expect(bool what) {
    if (!what) abort();
}

static unsigned next(void) {
    if (!world.size) return 0;
    world.size--;
    return *world.input++;
}

static size_t next_size(size_t limit) {
    size_t size = next() | (size_t)next() << 8;
    if (next() & 1) size *= 4;
    return size < limit ? size : limit;
}

static struct link *open_end(int pair[2], const unsigned char mine[SECRET_SIZE], const unsigned char theirs[SECRET_SIZE]) {
    expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    struct link *link = link_open(pair[0]);
    link->out.records = records_open(mine, true);
    link->in.records = records_open(theirs, false);
    link->out.sealed = must(malloc(records_room(SEALED_PIECE)));
    link->in.bytes = must(malloc(RECEIVE_BUFFER));
    link->encrypted = true;
    return link;
}

static void sends(void) {
    size_t size = next_size(SENT_LIMIT - world.sent);
    while (size && world.carried - world.delivered + size < PENDING_LIMIT) {
        ssize_t sent = link_send(world.from, pattern + world.sent, size);
        expect(sent > 0 && (size_t)sent <= size);
        world.sent += (size_t)sent;
        size -= (size_t)sent;
        for (ssize_t n; (n = recv(world.from_cable, cable + world.carried, sizeof cable - world.carried, 0)) > 0;) world.carried += (size_t)n;
    }
}

// False: nothing came out.
static bool takes(size_t size) {
    if (!size || size > sizeof received) return false;
    ssize_t n = link_receive(world.to, received, size);
    if (n <= 0) {
        expect(n < 0 && (errno == EAGAIN || (errno == EBADMSG && world.forged)));
        return false;
    }
    expect((size_t)n <= size && world.taken + (size_t)n <= world.sent);
    expect(memcmp(received, pattern + world.taken, (size_t)n) == 0);
    world.taken += (size_t)n;
    return true;
}

static void delivers(size_t size) {
    if (size > world.carried - world.delivered) size = world.carried - world.delivered;
    ssize_t n = size ? send(world.to_cable, cable + world.delivered, size, MSG_NOSIGNAL) : 0;
    if (n > 0) world.delivered += (size_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const unsigned char secrets[2][SECRET_SIZE] = {{1}, {2}};
    int one[2], other[2];
    for (size_t i = 0; !pattern[1] && i < sizeof pattern; i++) pattern[i] = (unsigned char)(i % PATTERN * 31 + i / 251 + 1);
    memset(&world, 0, sizeof world);
    world.input = bytes;
    world.size = size;
    world.from = open_end(one, secrets[0], secrets[1]);
    world.to = open_end(other, secrets[1], secrets[0]);
    world.from_cable = one[1];
    world.to_cable = other[1];
    for (unsigned turns = 0; world.size && turns < 512; turns++) {
        switch (next() % 8) {
        case 0:
        case 1: sends(); break;
        case 2:
        case 3: delivers(next_size(SIZE_MAX)); break;
        case 4:
        case 5: takes(next_size(SENT_LIMIT)); break;
        case 6: records_renew(world.from->out.records); break;
        default: {
            size_t left = world.carried - world.delivered, at = next_size(SIZE_MAX);
            if (at >= left) break;
            cable[world.delivered + at] ^= (unsigned char)(1u << next() % 8);
            world.forged = true;
        }
        }
    }
    do delivers(SIZE_MAX);
    while (takes(sizeof received) || (!world.forged && world.delivered < world.carried));
    expect(world.forged || world.taken == world.sent);
    link_close(world.from);
    link_close(world.to);
    close(world.from_cable);
    close(world.to_cable);
    return 0;
}
