// Changes that were made beside the mount: in the ordinary directory of a stopped node, or through a descriptor that somebody opened before.
//
// When a role is left in order the moment is kept. Who takes a role later looks for objects of which the change time is newer: the primary marks them
// dirty, a secondary writes them into the log that it offers to its primary; so they are compared by the next resync, and nothing else is (spec §4.9.2,
// files changed while the product was stopped). The change time cannot be set by anybody, and a clock that was set back hides changes: then only a
// comparison finds them (verify.h). A role that was not left in order is the matter of the logs.
#pragma once
#include "common.h"

void beside_left(int64_t moment_ns);  // with the roots open: the role is left, and nothing of ours changed anything after the moment
int64_t beside_moment(void);          // now; what is changed after it returned is told from what was changed before
void beside_drop(void);               // what is known of the moment: another copy lies there, or nobody could reach it meanwhile
void beside_primary(bool wait);       // the directories are served, the dirty set counts; in a very large tree it goes on by itself
bool beside_wait(int timeout_ms);     // false: it still looks
void beside_stop(void);               // waits for its end
void beside_secondary(void);          // the directories are protected; with state.exact and state.logged as they were left
void beside_writers(void);            // says who has files of the directories open for writing since before
