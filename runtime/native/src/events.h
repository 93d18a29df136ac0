// The control socket: requests of the daemon, and what is told to whoever listens.
#pragma once
#include "common.h"

// Pairs of key and text, ended by (char *)NULL.
void event_send(const char *name, ...) __attribute__((sentinel));
int control_open(void); // the socket, mode 0600
void control_run(void); // serves until control_end()
void control_end(void);
