// External synchronisation (spec 4.9.4): a copy that came by backup and restore counts from the same token as its source.
#pragma once
#include "module.h"

// Both: 0, or -1 with *failure filled. `check`: what is changed without us until the next start is looked for then, by its time of change.
int external_primary(const char *uid, bool check, struct failure *failure);
int external_secondary(const char *uid, bool check, struct failure *failure);
// At a start, the trees open: marks what changed since the token, through `dirty`. Returns whether everything could be looked at.
bool external_look(void);
