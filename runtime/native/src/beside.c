// See beside.h.
#include "beside.h"
#include "dirty.h"
#include "events.h"
#include "frame.h"
#include "local.h"
#include "select.h"
#include "state.h"
#include "walk.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRIMARY_WAIT_MS 3000   // that the start of an application may be delayed by a large tree
#define SECONDARY_WAIT_MS 3000
#define SECOND_NS 1000000000ll
#define TICK_WAIT_MS 50            // the slowest kernels tick each 10 ms

struct root {
    uint64_t ino;
    int64_t born_ns; // 0: the file system does not say
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool joinable, looking;
    atomic_bool stopped;
    // of whoever looks
    int64_t left_ns, deadline_ms;
    bool begun; // a log of this secondary
    bool secondary, unfinished;
    atomic_ullong seen, files, directories;
} beside = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

// ---- the moment ----

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

// Files are stamped by a clock that ticks some hundred times a second. What is changed within the tick of this moment would look older than it, so the
// next tick is awaited, in vain if the clock is set back meanwhile.
int64_t beside_moment(void) {
    int64_t now = read_clock(CLOCK_REALTIME);
    struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < TICK_WAIT_MS && read_clock(CLOCK_REALTIME_COARSE) <= now; i++) nanosleep(&pause, NULL);
    return now;
}

static void record_path(char path[PATH_MAX], const char *end) { snprintf(path, PATH_MAX, "%.4000s/rfs.left%s", options.state_dir, end); }

static bool look_at_root(const struct directory *directory, struct root *root) {
    struct statx st;
    if (statx(directory->root, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st)) return false;
    *root = (struct root){st.stx_ino, st.stx_mask & STATX_BTIME ? st.stx_btime.tv_sec * SECOND_NS + st.stx_btime.tv_nsec : 0};
    return true;
}

void beside_left(int64_t moment_ns) {
    char path[PATH_MAX], temporary[PATH_MAX];
    record_path(path, "");
    record_path(temporary, ".new");
    FILE *file = fopen(temporary, "we");
    if (!file) return;
    // What was not looked at to the end is looked at again.
    if (beside.unfinished && !beside.secondary) moment_ns = beside.left_ns;
    fprintf(file, "left=%lld\n", (long long)moment_ns);
    for (unsigned i = 0; i < options.directories; i++) {
        struct root root;
        if (look_at_root(&options.directory[i], &root)) fprintf(file, "root=%llu %lld %s\n", (unsigned long long)root.ino, (long long)root.born_ns, options.directory[i].name);
    }
    fputs("end\n", file);
    bool written = fflush(file) == 0 && fsync(fileno(file)) == 0;
    fclose(file);
    if (!written || rename(temporary, path)) unlink(temporary);
}

// Reads the record. False: the last role was not left in order, or never taken. *same: the directories are those that were left.
static bool take_record(int64_t *left_ns, bool *same) {
    char path[PATH_MAX], line[PATH_MAX + 100];
    record_path(path, "");
    FILE *file = fopen(path, "re");
    if (!file) return false;
    long long left = 0;
    bool ended = false;
    *same = true;
    while (fgets(line, sizeof line, file)) {
        unsigned long long ino;
        long long born;
        int at = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "left=%lld", &left) == 1) continue;
        if (strcmp(line, "end") == 0) ended = true;
        if (sscanf(line, "root=%llu %lld %n", &ino, &born, &at) != 2 || !at) continue;
        for (unsigned i = 0; i < options.directories; i++) {
            struct root root;
            if (strcmp(options.directory[i].name, line + at) != 0 || !look_at_root(&options.directory[i], &root)) continue;
            if (root.ino != ino || root.born_ns != born) *same = false;
        }
    }
    fclose(file);
    *left_ns = left;
    return ended && left > 0;
}

void beside_drop(void) {
    char path[PATH_MAX];
    record_path(path, "");
    unlink(path);
}

// ---- looking ----

// The log of this secondary is begun with the first change, if there is any. False: it cannot be written.
static bool begin_log(void) {
    pthread_mutex_lock(&beside.lock);
    if (beside.secondary && !beside.begun) {
        pthread_mutex_lock(&state_lock);
        beside.begun = dirty_begin(!state.exact) == 0;
        pthread_mutex_unlock(&state_lock);
    }
    bool begun = beside.begun || !beside.secondary;
    pthread_mutex_unlock(&beside.lock);
    return begun;
}

static void mark(unsigned directory, uint64_t key, uint32_t flags, int place_of) {
    struct touch touch = {directory, flags, key, 0, 0};
    struct place place;
    if (dirty_touch(&touch)) dirty_place(place_make(directory, place_of, &place) ? &place : NULL);
}

static bool look(const struct walked *object, void *unused) {
    (void)unused;
    const struct stat *st = object->st;
    unsigned directory = object->directory->index;
    uint64_t seen = atomic_fetch_add(&beside.seen, 1);
    if (atomic_load(&beside.stopped) || (beside.deadline_ms && seen % 64 == 63 && now_ms() > beside.deadline_ms)) return false;
    if ((int64_t)st->st_ctim.tv_sec * SECOND_NS + st->st_ctim.tv_nsec <= beside.left_ns) return true;
    if (!begin_log()) return false;
    uint64_t key = mark_key(directory, st->st_dev, st->st_ino);
    if (S_ISDIR(st->st_mode)) {
        int itself = *object->name ? openat(object->parent, object->name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : dup(object->parent);
        atomic_fetch_add(&beside.directories, 1);
        if (itself >= 0) {
            mark(directory, key, MARK_LIST | MARK_META, itself);
            close(itself);
        }
        return true;
    }
    atomic_fetch_add(&beside.files, 1);
    mark(directory, key, (S_ISREG(st->st_mode) ? MARK_CONTENT | MARK_META : MARK_META) | (st->st_nlink > 1 ? MARK_LINKED : 0), object->parent);
    // Metadata of what is no regular file travels with the listing.
    if (!S_ISREG(st->st_mode)) mark(directory, object->parent_key, MARK_LIST, object->parent);
    return true;
}

static void look_everywhere(void) {
    atomic_store(&beside.seen, 0);
    atomic_store(&beside.files, 0);
    atomic_store(&beside.directories, 0);
    beside.begun = false;
    beside.unfinished = !walk_trees(options.resync_threads, look, NULL);
    if (!beside.unfinished) beside_drop();
    uint64_t files = atomic_load(&beside.files), directories = atomic_load(&beside.directories);
    if (!files && !directories) return;
    char message[300];
    snprintf(message, sizeof message, "%llu files and %llu directories were changed while the replication was stopped: %s", (unsigned long long)files,
             (unsigned long long)directories, beside.secondary ? "they are made equal to the primary's" : "they are compared at the next synchronisation");
    say("%s", message);
    event_send("warning", "code", "changed_beside", "message", message, (char *)NULL);
}

static void confess(void) {
    beside_drop();
    const char *message = "another directory lies where the replicated one was when the replication was stopped: everything is compared at the next synchronisation";
    pthread_mutex_lock(&state_lock);
    state.base[0] = state.copy[0] = 0;
    state.exact = state.lost = state.logged = false;
    state_save();
    pthread_mutex_unlock(&state_lock);
    say("%s", message);
    event_send("warning", "code", "changed_beside", "message", message, (char *)NULL);
}

// ---- primary ----

static void *look_main(void *unused) {
    (void)unused;
    look_everywhere();
    pthread_mutex_lock(&beside.lock);
    beside.looking = false;
    pthread_cond_broadcast(&beside.changed);
    pthread_mutex_unlock(&beside.lock);
    return NULL;
}

bool beside_wait(int timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    pthread_mutex_lock(&beside.lock);
    while (beside.looking && pthread_cond_timedwait(&beside.changed, &beside.lock, &until) != ETIMEDOUT) continue;
    bool done = !beside.looking;
    pthread_mutex_unlock(&beside.lock);
    return done;
}

void beside_primary(bool wait) {
    bool same;
    beside_stop();
    beside.secondary = beside.unfinished = false;
    beside.deadline_ms = 0;
    if (!take_record(&beside.left_ns, &same)) return;
    if (!same) {
        confess();
        return;
    }
    pthread_mutex_lock(&beside.lock);
    atomic_store(&beside.stopped, false);
    beside.looking = beside.joinable = true;
    if (pthread_create(&beside.thread, NULL, look_main, NULL)) abort();
    pthread_mutex_unlock(&beside.lock);
    // From here on what applications change is found as well, and marked twice; nothing is missed.
    if (wait) beside_wait(PRIMARY_WAIT_MS);
}

void beside_stop(void) {
    atomic_store(&beside.stopped, true);
    pthread_mutex_lock(&beside.lock);
    bool joinable = beside.joinable;
    beside.joinable = false;
    pthread_mutex_unlock(&beside.lock);
    if (joinable) pthread_join(beside.thread, NULL);
}

// ---- secondary ----

void beside_secondary(void) {
    bool same;
    beside_stop();
    if (!take_record(&beside.left_ns, &same)) return;
    pthread_mutex_lock(&state_lock);
    bool counts = state.base[0] && (state.exact || state.logged) && !state.inconsistent;
    pthread_mutex_unlock(&state_lock);
    if (!same && counts) confess();
    if (!same || !counts) { // everything is compared anyway
        beside_drop();
        return;
    }
    atomic_store(&beside.stopped, false);
    beside.secondary = true;
    beside.deadline_ms = now_ms() + SECONDARY_WAIT_MS;
    look_everywhere();
    if (beside.unfinished) say("a large tree: %llu entries were looked at for changes while the replication was stopped, not all (see the comparison of both copies)", (unsigned long long)atomic_load(&beside.seen));
    beside_drop();
    if (!beside.begun) return;
    bool closed = dirty_close() == 0 && dirty_usable();
    pthread_mutex_lock(&state_lock);
    state.exact = false;
    state.copy[0] = 0;
    state.logged = closed;
    state_save();
    pthread_mutex_unlock(&state_lock);
}

// ---- who writes beside ----

// True when the descriptor `number` of a process is open for writing.
static bool is_writable(int process, const char *number) {
    char path[64], line[256];
    snprintf(path, sizeof path, "fdinfo/%.20s", number);
    int fd = openat(process, path, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file && fd >= 0) close(fd);
    unsigned flags = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "flags: %o", &flags) == 1) break;
    }
    if (file) fclose(file);
    return (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH);
}

// Whether the path is one of a file below a directory of ours, on the file system below the mount.
static bool is_ours(int process, const char *number, const char *path) {
    char descriptor[64];
    struct stat st;
    snprintf(descriptor, sizeof descriptor, "fd/%.20s", number);
    for (unsigned i = 0; i < options.directories; i++) {
        size_t size = strlen(options.directory[i].path);
        if (strncmp(path, options.directory[i].path, size) != 0 || path[size] != '/') continue;
        if (fstatat(process, descriptor, &st, 0) || !S_ISREG(st.st_mode) || st.st_dev != options.directory[i].dev || st.st_nlink == 0) continue;
        return !select_excludes_path(&options.directory[i], path + size + 1, st.st_mode);
    }
    return false;
}

static bool find_writer(int process, char found[PATH_MAX]) {
    int folder = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *descriptors = folder < 0 ? NULL : fdopendir(folder);
    if (!descriptors && folder >= 0) close(folder);
    bool some = false;
    for (struct dirent *entry; descriptors && !some && (entry = readdir(descriptors));) {
        ssize_t size = readlinkat(folder, entry->d_name, found, PATH_MAX - 1);
        if (size <= 0) continue;
        found[size] = 0;
        some = *found == '/' && is_ours(process, entry->d_name, found) && is_writable(process, entry->d_name);
    }
    if (descriptors) closedir(descriptors);
    return some;
}

// Its own kind: whoever watches this process shares its descriptors.
static bool is_data_plane(int process) {
    struct stat mine, theirs;
    return stat("/proc/self/exe", &mine) == 0 && fstatat(process, "exe", &theirs, 0) == 0 && mine.st_ino == theirs.st_ino && mine.st_dev == theirs.st_dev;
}

void beside_writers(void) {
    DIR *processes = opendir("/proc");
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        int id = atoi(entry->d_name);
        if (id <= 0) continue;
        int process = openat(dirfd(processes), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char path[PATH_MAX], name[64] = "?", message[PATH_MAX + 300];
        if (process >= 0 && !is_data_plane(process) && find_writer(process, path)) {
            int file = openat(process, "comm", O_RDONLY | O_CLOEXEC);
            ssize_t size = file < 0 ? -1 : read(file, name, sizeof name - 1);
            if (size > 0) name[size - 1] = 0;
            if (file >= 0) close(file);
            snprintf(message, sizeof message, "process %d (%s) has %.1000s open for writing since before the replication began: what it writes is not replicated; restart it", id, name, path);
            say("%s", message);
            event_send("warning", "code", "open_beside", "message", message, (char *)NULL);
        }
        if (process >= 0) close(process);
    }
    if (processes) closedir(processes);
}
