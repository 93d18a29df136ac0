// Who is at the other end, and what its copy counts from: version, mutual proof of the key, and the two offers.
#pragma once
#include "dirty.h"

struct peer {
    char generation[GENERATION_SIZE], base[64];
    bool exact;             // its copy is the base and nothing else
    bool lost;              // the same, but for what it held in memory
    bool log;               // it was primary: its own log names what else differs ...
    bool log_whole;
    struct dirty_set named; // ... as objects of this node; cleared by whoever connects
    char code[24], why[400]; // of a refusal
};

int handshake_connect(int fd, bool full, struct peer *peer); // primary: 0, or the reason in *peer
int handshake_accept(int fd, struct peer *peer);             // secondary
