// Who is at the other end, and what its copy counts from: version, mutual proof of the key, and the two offers.
#pragma once
#include "common.h"

struct peer {
    char generation[GENERATION_SIZE], base[64];
    bool exact;             // its copy is the base and nothing else
    char code[24], why[400]; // of a refusal
};

int handshake_connect(int fd, bool full, struct peer *peer); // primary: 0, or the reason in *peer
int handshake_accept(int fd, struct peer *peer);             // secondary
