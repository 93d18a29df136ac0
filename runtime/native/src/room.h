// Room for descriptors. Every object that the kernel remembers is one here, and there are a million of them: before they are used up the kernel is
// asked to forget what nobody uses, and the threads that serve it close them.
#pragma once

#define ROOM_TRIES 40u

int room_reopen(int object, int flags); // local_reopen(), patiently
void room_open(void);     // at the start, while there are descriptors
void room_watch(int fd);  // the one that was opened last: its number says how many there are
void room_wait(void);     // there are none left; for a while
