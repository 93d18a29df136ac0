// The few words about a primary that must survive its worker.
#include "takeover.h"
#include "session.h"
#include "shared.h"
#include "supervisor.h"
#include <stdatomic.h>

static struct {
    atomic_bool serving, mirror, connected;
    int root[DIRECTORY_LIMIT];
    dev_t dev[DIRECTORY_LIMIT];
} *kept;

void takeover_open(void) { kept = shared_area("takeover", sizeof *kept); }

bool takeover_of_primary(void) { return shared_is_takeover() && atomic_load(&kept->serving); }

bool takeover_mirrored(void) { return takeover_of_primary() && atomic_load(&kept->mirror); }

bool takeover_had_peer(void) { return takeover_of_primary() && atomic_load(&kept->connected); }

void takeover_roots(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        options.directory[i].root = kept->root[i];
        options.directory[i].dev = kept->dev[i];
    }
}

void takeover_begin_serving(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        kept->root[i] = options.directory[i].root;
        kept->dev[i] = options.directory[i].dev;
        shared_keep(kept->root[i]);
    }
    atomic_store(&kept->serving, true);
    // Where the kernel cannot send requests again they would never be answered: better a clean end, as without all this.
    supervisor_serving(session_can_resend());
}

void takeover_end_serving(void) {
    supervisor_serving(false);
    atomic_store(&kept->serving, false);
    for (unsigned i = 0; i < options.directories; i++) shared_drop(kept->root[i]);
}

void takeover_note_mirror(bool mirror) { atomic_store(&kept->mirror, mirror); }

void takeover_note_connected(bool connected) { atomic_store(&kept->connected, connected); }
