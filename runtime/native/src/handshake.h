// Who is at the other end, and what its copy counts from: version, mutual proof of the key, and the two offers.
#pragma once
#include "dirty.h"
#include "limits.h"
#include "link.h"

#define SESSION_SIZE 33 // 16 random bytes in hexadecimal

struct peer {
    char session[SESSION_SIZE]; // of the stream that begins, or goes on
    bool resumes;               // it goes on: the primary has heard of frame `applied`
    uint64_t applied;
    unsigned objects;           // how many the secondary can keep
    char facts[LIMITS_TEXT];    // of this node, for the primary
    char generation[GENERATION_SIZE], base[64], copy[64]; // copy: of an unfinished full resync
    bool exact;             // its copy is the base and nothing else
    bool lost;              // the same, but for what it held in memory
    bool log;               // it was primary: its own log names what else differs ...
    bool log_whole;
    struct dirty_set named; // ... as objects of this node; cleared by whoever connects
    char code[24], why[400]; // of a refusal
};

// ---- primary: 0, or the reason in *peer ----
int handshake_connect(struct link *link, bool full, struct peer *peer);
// A stream whose connection broke. `heard`: the last acknowledgement here; *applied: what the secondary has.
int handshake_resume(struct link *link, const char *session, uint64_t heard, uint64_t *applied, struct peer *peer);

// ---- secondary: first who it is and what it wants, then one of the answers ----
int handshake_accept(struct link *link, struct peer *peer);
int handshake_welcome(struct link *link, struct peer *peer);         // a stream begins
int handshake_go_on(struct link *link, uint64_t applied);            // one goes on
void handshake_refuse(struct link *link, const char *code, const char *why);
