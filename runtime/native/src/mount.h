// Mounts: the served tree over each directory on a primary, a read-only view over it on a secondary.
#pragma once
#include "common.h"

int mount_clear_stale(bool was_protected); // what a killed process left behind
int mount_serve(void);                     // primary: all directories, with their threads. 0 or errno, nothing half done
int mount_take_over(void);                // serves what the last worker served. 0 or errno
int mount_release(int timeout_ms, bool force); // 0, or EBUSY when an application still uses a directory
void mount_close(void);                    // after a release, when nothing is left to be answered
bool mount_serving(void);
int mount_protect(void);                   // secondary: read-only
void mount_unprotect(void);
bool mount_is_protected(void); // also by a process that was killed
