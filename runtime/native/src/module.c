// What each command does, in order. The record on disk changes before what it promises begins, and after what it confesses.
#include "module.h"
#include "activity.h"
#include "beside.h"
#include "copied.h"
#include "diff.h"
#include "events.h"
#include "external.h"
#include "frame.h"
#include "handshake.h"
#include "inode.h"
#include "mount.h"
#include "receive.h"
#include "resync.h"
#include "state.h"
#include "stream.h"
#include "takeover.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_MS 5000
#define UNMOUNT_MS 5000
#define BESIDE_WAIT_MS 10000
#define PROTECTED_S 10 // for a role to be taken after a crash

static pthread_mutex_t command_lock = PTHREAD_MUTEX_INITIALIZER;
enum role { IDLE, PRIMARY, SECONDARY };
static _Atomic enum role role = IDLE;

const char *module_role(void) {
    static const char *const names[] = {"idle", "primary", "secondary"};
    return names[role];
}

static int fail(struct failure *failure, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct failure *failure, const char *code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->message, sizeof failure->message, format, arguments);
    va_end(arguments);
    snprintf(failure->code, sizeof failure->code, "%s", code);
    return -1;
}

static int save_role(const char *name, bool clean, const char *generation) {
    pthread_mutex_lock(&state_lock);
    snprintf(state.role, sizeof state.role, "%s", name);
    state.clean = clean;
    if (generation) snprintf(state.generation, sizeof state.generation, "%s", generation);
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    return error;
}

// ---- leaving a role ----

// Nothing is lost by it: what was answered is on this disk when it returns.
static void close_primary(bool equal_to_peer) {
    takeover_end_serving();
    int64_t left = beside_moment();
    beside_stop();
    stream_leave();
    stream_abandon();
    stream_stop();
    mount_close();
    inodes_close();
    for (unsigned i = 0; i < options.directories; i++) syncfs(options.directory[i].root);
    int error = dirty_close();
    activity_end(!error);
    pthread_mutex_lock(&state_lock);
    snprintf(state.role, sizeof state.role, "idle");
    if (error && !equal_to_peer) state.base[0] = 0;
    state.exact = state.base[0] && (equal_to_peer || (dirty_usable() && dirty_count() == 0));
    state.logged = !state.exact && state.base[0] && dirty_usable();
    state.lost = false;
    state.clean = true;
    state_save();
    pthread_mutex_unlock(&state_lock);
    role = IDLE;
    diff_stop();
    beside_left(left);
    close_roots();
}

static void close_secondary(void) {
    receive_stop();
    beside_left(beside_moment());
    mount_unprotect();
    close_roots();
    save_role("idle", true, NULL);
    role = IDLE;
}

static int leave_primary(int timeout_ms, bool force, struct failure *failure) {
    enum answers answers = stream_answers();
    if (answers == ANSWER_HELD && !force)
        return fail(failure, "held", "answers of applications are held: say alone, connect, or idle with force");
    bool mirror = answers == ANSWER_PEER;
    // Who forces while answers are held knows that applications cannot leave by themselves.
    if (mount_release(answers == ANSWER_HELD ? 0 : timeout_ms, force)) return fail(failure, "busy", "an application still uses a replicated directory (see lsof)");
    bool equal = mirror && stream_barrier(BARRIER_HANDOVER, NULL) == 0;
    close_primary(equal);
    return 0;
}

// ---- commands ----

int module_primary(const char *generation, bool force, struct failure *failure) {
    int result = 0;
    pthread_mutex_lock(&command_lock);
    if (role == PRIMARY) goto done;
    if (state.inconsistent && !force) {
        result = fail(failure, "inconsistent", "the copy on this node is an unfinished resynchronisation: not started from it unless forced");
        goto done;
    }
    if (role == SECONDARY) {
        close_secondary();
        beside_drop();
    }
    mount_unprotect();
    int error = open_roots();
    if (error) {
        result = fail(failure, "directory", "a replicated directory cannot be opened: %s", strerror(error));
        goto done;
    }
    pthread_mutex_lock(&state_lock);
    if (state.inconsistent) state.base[0] = 0;
    if (state.lost) state.base[0] = 0; // forced, or the register's only holder: what it lost is known to nobody
    state.inconsistent = state.partial = state.lost = false;
    state.copy[0] = 0;
    bool fresh = state.exact; // equal to the base: an empty set counts from it. Otherwise go on with the set that was closed in order
    state.exact = false;
    pthread_mutex_unlock(&state_lock);
    error = dirty_begin(!fresh);
    if (!error && !external_look()) state.base[0] = 0;
    if (!error) error = save_role("primary", false, generation);
    if (!error) error = activity_begin();
    if (!error) {
        error = mount_serve();
        if (error) {
            inodes_close();
            activity_end(dirty_close() == 0);
            save_role("idle", true, NULL);
        }
    }
    if (error) {
        close_roots();
        result = fail(failure, "mount", "cannot serve: %s", strerror(error));
        goto done;
    }
    beside_primary(true);
    beside_writers();
    role = PRIMARY;
    takeover_begin_serving();
done:
    pthread_mutex_unlock(&command_lock);
    return result;
}

int module_take_over(void) {
    bool held = takeover_mirrored(), had_peer = takeover_had_peer();
    takeover_roots();
    int error = dirty_begin(true);
    if (!error) error = save_role("primary", false, NULL);
    if (!error) error = activity_begin();
    if (error) return error;
    inodes_take_over();
    stream_take_over(held);
    takeover_note_connected(false);
    role = PRIMARY;
    error = mount_take_over();
    if (error) return error;
    beside_primary(false); // what the one before did not look at to the end
    const char *reason = "the data plane died, another goes on";
    say("%s%s", reason, held ? "; answers are held" : "");
    if (had_peer) event_send("peer_lost", "reason", reason, "held", held ? "yes" : "no", (char *)NULL);
    return 0;
}

// Why a resync cannot be incremental; NULL: it can.
static const char *why_full(bool full, const struct peer *peer) {
    if (full) return "asked for";
    if (!state.base[0] || !dirty_usable()) return "this node's record of changes does not reach back to a mirror";
    if (strcmp(state.base, peer->base) != 0) return "the copies do not count from the same mirror";
    if (peer->log && !peer->log_whole) return "the other copy was served, and its record of changes names not everything";
    if (!peer->exact && !peer->lost && !peer->log) return "the other copy may have lost or changed something since the mirror";
    return NULL;
}

int module_connect(const char *host, const char *port, const char *generation, bool full, bool *incremental, char *reason, size_t reason_size,
                   char *peer_generation, size_t peer_size, struct failure *failure) {
    int result = 0, fd;
    struct peer peer = {0};
    pthread_mutex_lock(&command_lock);
    if (role != PRIMARY) {
        result = fail(failure, "state", "this node is %s, only a primary connects", module_role());
        goto done;
    }
    if (stream_connected()) {
        result = fail(failure, "state", "a secondary is connected already");
        goto done;
    }
    stream_stop();
    if (!beside_wait(BESIDE_WAIT_MS)) {
        result = fail(failure, "unreachable", "this node still looks for what was changed while the replication was stopped");
        goto done;
    }
    char unreachable[400];
    if ((fd = link_dial(host, port, CONNECT_MS, unreachable, sizeof unreachable)) < 0) {
        result = fail(failure, "unreachable", "%s", unreachable);
        goto done;
    }
    pthread_mutex_lock(&state_lock);
    snprintf(state.generation, sizeof state.generation, "%s", generation);
    state_save();
    pthread_mutex_unlock(&state_lock);
    struct link *link = link_open(fd);
    if (handshake_connect(link, full, &peer)) {
        link_close(link);
        result = fail(failure, peer.code, "%s port %s: %s", host, port, peer.why);
        dirty_set_clear(&peer.named);
        goto done;
    }
    const char *why = why_full(full, &peer);
    if (!why && peer.log) dirty_admit(&peer.named);
    if (!why && peer.lost && !dirty_admit_doubts()) why = "the other copy may have lost anything";
    dirty_set_clear(&peer.named);
    *incremental = !why;
    snprintf(reason, reason_size, "%s", why ? why : "");
    snprintf(peer_generation, peer_size, "%s", peer.generation);
    char address[96];
    snprintf(address, sizeof address, "%.64s:%.16s", host, port);
    bool resumes = why && !full && !options.resync_whole && state.base[0] && strcmp(state.base, peer.copy) == 0 && dirty_usable() && copied_open();
    resync_prepare(why != NULL, peer.log || peer.lost, resumes);
    say("connected to %s, resynchronisation %s%s", address, why ? "full: " : "incremental", why ? why : "");
    if (resumes) say("it goes on where it was interrupted: %zu files are there already", copied_files());
    stream_start(link, host, port, &peer);
    if (resync_run()) abort();
done:
    pthread_mutex_unlock(&command_lock);
    return result;
}

int module_disconnect(struct failure *failure) {
    (void)failure;
    stream_dismiss("disconnected on request");
    pthread_mutex_lock(&command_lock);
    if (role == PRIMARY && !stream_connected()) stream_stop();
    pthread_mutex_unlock(&command_lock);
    return 0;
}

// Waits for no other command, nor for the threads of a stream that it ends: applications are waiting for this one.
int module_alone(const char *generation, bool leaves, struct failure *failure) {
    if (role != PRIMARY) return fail(failure, "state", "this node is %s, only a primary goes alone", module_role());
    pthread_mutex_lock(&state_lock);
    snprintf(state.generation, sizeof state.generation, "%s", generation);
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    if (error) return fail(failure, "record", "the record of this node cannot be written: %s", strerror(error));
    bool left = leaves && stream_answers() == ANSWER_PEER;
    if (left) stream_leave();
    if (stream_alone()) return fail(failure, "state", "the secondary is in mirror: disconnect it first");
    if (left) event_send("peer_lost", "reason", "left, because the other node is gone", "held", "no", (char *)NULL);
    return 0;
}

int module_publish(const char *generation, struct failure *failure) {
    if (role != PRIMARY || stream_answers() != ANSWER_PEER) return fail(failure, "state", "not in mirror");
    if (stream_barrier(BARRIER_PUBLISH, generation)) return fail(failure, "peer_lost", "the secondary was lost before it confirmed");
    pthread_mutex_lock(&state_lock);
    snprintf(state.published, sizeof state.published, "%s", generation);
    int error = state_save();
    pthread_mutex_unlock(&state_lock);
    return error ? fail(failure, "record", "the record of this node cannot be written: %s", strerror(error)) : 0;
}

// What was changed in it since it was restored is offered to its source as if this node had been primary.
static void look_at_restored_copy(void) {
    if (!state.watched) return;
    bool whole = dirty_begin(false) == 0 && external_look();
    bool changed = dirty_count() > 0;
    whole = dirty_close() == 0 && whole;
    pthread_mutex_lock(&state_lock);
    if (changed || !whole) {
        state.exact = false;
        state.copy[0] = 0;
    }
    state.logged = changed && whole;
    pthread_mutex_unlock(&state_lock);
}

int module_secondary(const char *address, unsigned port, const char *generation, bool clean, struct failure *failure) {
    int result = 0;
    char why[256];
    pthread_mutex_lock(&command_lock);
    if (role != IDLE) {
        result = fail(failure, "state", "this node is %s already", module_role());
        goto done;
    }
    mount_unprotect();
    int error = open_roots();
    if (error) {
        result = fail(failure, "directory", "a replicated directory cannot be opened: %s", strerror(error));
        goto done;
    }
    pthread_mutex_lock(&state_lock);
    if (!clean) {
        state.exact = state.lost = state.logged = false;
        state.copy[0] = 0;
    }
    pthread_mutex_unlock(&state_lock);
    look_at_restored_copy();
    error = mount_protect();
    if (!error) beside_secondary();
    if (error) {
        result = fail(failure, "mount", "cannot protect a replicated directory: %s", strerror(error));
    } else if (save_role("secondary", false, generation)) {
        result = fail(failure, "record", "the record of this node cannot be written");
    } else if (receive_start(address, port, why, sizeof why)) {
        save_role("idle", true, NULL);
        result = fail(failure, "port", "%s", why);
    }
    if (result) {
        mount_unprotect();
        close_roots();
        goto done;
    }
    beside_writers();
    role = SECONDARY;
done:
    pthread_mutex_unlock(&command_lock);
    return result;
}

int module_handover(int timeout_ms, struct failure *failure) {
    int result = 0;
    pthread_mutex_lock(&command_lock);
    if (role != PRIMARY || stream_answers() != ANSWER_PEER) {
        result = fail(failure, "state", "no secondary is in mirror");
    } else if (stream_barrier(BARRIER_FLUSH, NULL)) {
        result = fail(failure, "peer_lost", "the secondary was lost before everything was durable");
    } else if (mount_release(timeout_ms, false)) {
        result = fail(failure, "busy", "an application still uses a replicated directory (see lsof)");
    } else {
        bool equal = stream_answers() == ANSWER_PEER && stream_barrier(BARRIER_HANDOVER, NULL) == 0;
        close_primary(equal);
        if (!equal) result = fail(failure, "peer_lost", "unmounted, but the secondary was lost before everything was durable there");
    }
    pthread_mutex_unlock(&command_lock);
    return result;
}

int module_idle(bool force, struct failure *failure) {
    int result = 0;
    pthread_mutex_lock(&command_lock);
    if (role == SECONDARY) close_secondary();
    if (role == IDLE) mount_unprotect();
    if (role == PRIMARY) result = leave_primary(UNMOUNT_MS, force, failure);
    pthread_mutex_unlock(&command_lock);
    return result;
}

// What protected the secondary of a killed process goes on doing so until somebody says what this node is; a node that nobody wants has ordinary
// directories again.
static void *protection_main(void *unused) {
    (void)unused;
    struct timespec pause = {.tv_sec = PROTECTED_S};
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&command_lock);
    if (role == IDLE) mount_unprotect();
    pthread_mutex_unlock(&command_lock);
    return NULL;
}

void module_keeps_protection(void) {
    pthread_t thread;
    if (mount_is_protected() && pthread_create(&thread, NULL, protection_main, NULL) == 0) pthread_detach(thread);
}

void module_with_directories(void (*work)(void)) {
    if (pthread_mutex_trylock(&command_lock)) return;
    if (role != IDLE) work();
    pthread_mutex_unlock(&command_lock);
}
