// What a primary remembers for the worker that follows it: its trees, and what it had promised to applications.
#pragma once
#include "common.h"

void takeover_open(void);          // at the start of a worker
bool takeover_of_primary(void);    // this worker goes on where another died
bool takeover_mirrored(void);      // ... that answered only what the peer had
void takeover_roots(void);         // of that one: the descriptors of the trees
void takeover_begin_serving(void); // everything is in place: who dies from here on is followed
void takeover_end_serving(void);
void takeover_note_mirror(bool mirror);       // answers wait for the peer, or are held for it
void takeover_note_connected(bool connected); // a peer is there, in whatever state
bool takeover_had_peer(void);
