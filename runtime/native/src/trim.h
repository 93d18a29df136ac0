// Keeps the number of known objects below what this process may hold open: the kernel is asked to forget files that nobody uses.
#pragma once

void trim_wanted(void); // one more object is known; may wait a little when the kernel knows far too much
void trim_stop(void);   // before the mounts go
