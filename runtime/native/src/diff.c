// One walk over the tree with the dirty set beside it. Nothing is locked: applications go on, and what they change meanwhile may be counted or not.
#include "diff.h"
#include "dirty.h"
#include "events.h"
#include "local.h"
#include "select.h"
#include "state.h"
#include "stream.h"
#include "verify.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTED 10000u
#define SAMPLE_BYTES (32u << 20)
#define SAMPLE_MS 300
#define FILES_PER_SECOND 5000 // that a resync opens, compares and closes
#define USUAL_RATE (100u << 20)

static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    bool joinable;
    atomic_bool stopped;
    struct diff_report now;
    // of the thread only
    struct dirty_set set;
    struct mark_set seen; // files of several names
    bool full;
    FILE *list;
    unsigned listed;
    uint64_t sampled;
    int64_t sampled_ms, told;
} diff = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void number(char text[24], uint64_t value) { snprintf(text, 24, "%llu", (unsigned long long)value); }

static void tell(void) {
    int64_t now = now_ms();
    if (now - diff.told < 1000) return;
    diff.told = now;
    struct diff_report copy = diff_get();
    char text[2][24];
    number(text[0], copy.files);
    number(text[1], copy.bytes);
    event_send("diff_progress", "files_done", text[0], "bytes_done", text[1], (char *)NULL);
}

static uint64_t differing_bytes(unsigned directory, uint64_t key, uint32_t flags, uint64_t size) {
    if (diff.full || flags & MARK_CONTENT) return size;
    uint64_t bytes = 0, end = size ? zone_of(size - 1) + 1 : 0;
    for (uint64_t zone = 0; zone < end; zone++) {
        if (zone > 0 || !(flags & MARK_HEAD)) zone = flags & MARK_ZONES ? zones_next(&diff.set.zones, directory, key, zone, end) : NO_ZONE;
        if (zone == NO_ZONE || zone >= end) break;
        uint64_t last = zone_start(zone + 1) < size ? zone_start(zone + 1) : size;
        bytes += last - zone_start(zone);
    }
    return bytes;
}

// How fast this disk gives what will be copied.
static void sample(int parent, const char *name) {
    if (diff.sampled >= SAMPLE_BYTES || diff.sampled_ms >= SAMPLE_MS) return;
    int file = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    if (file < 0) return;
    static unsigned char bytes[1 << 20];
    int64_t began = now_ms();
    for (ssize_t n; diff.sampled < SAMPLE_BYTES && now_ms() - began < SAMPLE_MS && (n = read(file, bytes, sizeof bytes)) > 0;) diff.sampled += (uint64_t)n;
    diff.sampled_ms += now_ms() - began;
    close(file);
}

static void count_file(const struct directory *directory, int parent, const char *name, const struct stat *st, const char *path) {
    uint64_t key = mark_key(directory->index, st->st_dev, st->st_ino), size = (uint64_t)st->st_size;
    if (st->st_nlink > 1 && !marks_add(&diff.seen, directory->index, key, MARK_META)) return;
    uint32_t flags = marks_get(&diff.set.marks, directory->index, key);
    bool differs = diff.full || flags & (MARK_BYTES | MARK_META);
    uint64_t bytes = differs ? differing_bytes(directory->index, key, flags, size) : 0;
    if (bytes) sample(parent, name);
    if (differs && diff.list && diff.listed++ < LISTED) verify_list_path(diff.list, directory->name, path), fprintf(diff.list, "\t%s\n", bytes ? "content" : "attributes");
    pthread_mutex_lock(&diff.lock);
    diff.now.files++;
    diff.now.bytes += size;
    diff.now.differing += differs;
    diff.now.differing_bytes += bytes;
    pthread_mutex_unlock(&diff.lock);
}

static void walk(const struct directory *directory, int object, uint64_t key, char *path, size_t used) {
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY | O_NOATIME);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries && fd >= 0) close(fd);
    if (!entries) return;
    if (diff.full || marks_get(&diff.set.marks, directory->index, key) & (MARK_LIST | MARK_TREE)) {
        pthread_mutex_lock(&diff.lock);
        diff.now.directories++;
        pthread_mutex_unlock(&diff.lock);
    }
    for (struct dirent *entry; !atomic_load(&diff.stopped) && (entry = readdir(entries));) {
        struct stat st;
        const char *name = entry->d_name;
        if (!name_is_entry(name) || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) || select_excludes(directory, fd, name, st.st_mode)) continue;
        int more = snprintf(path + used, PATH_MAX - used, "%s%s", used ? "/" : "", name);
        if (more < 0 || (size_t)more >= PATH_MAX - used) continue;
        if (S_ISREG(st.st_mode)) {
            count_file(directory, fd, name, &st, path);
        } else if (S_ISDIR(st.st_mode) && st.st_dev == directory->dev) {
            int below = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                walk(directory, below, mark_key(directory->index, st.st_dev, st.st_ino), path, used + (size_t)more);
                close(below);
            }
        }
        tell();
    }
    path[used] = 0;
    closedir(entries);
}

static void finish(const char *list) {
    char text[6][24];
    pthread_mutex_lock(&diff.lock);
    struct diff_report *now = &diff.now;
    uint64_t rate = diff.sampled && diff.sampled_ms ? diff.sampled * 1000 / (uint64_t)diff.sampled_ms : USUAL_RATE;
    if (rate > USUAL_RATE) rate = USUAL_RATE; // what a network gives
    uint64_t limit = (uint64_t)__atomic_load_n(&options.resync_bandwidth, __ATOMIC_RELAXED) << 10;
    if (limit && rate > limit) rate = limit;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    now->running = false;
    now->full = diff.full;
    now->seconds = (int64_t)(now->differing_bytes / (rate ? rate : 1) + now->differing / FILES_PER_SECOND + 1);
    if (!now->differing && !now->directories) now->seconds = 0;
    now->ended = t.tv_sec;
    if (atomic_load(&diff.stopped)) snprintf(now->failed, sizeof now->failed, "the role was left");
    if (now->differing) snprintf(now->list, sizeof now->list, "%s", list);
    struct diff_report copy = *now;
    pthread_mutex_unlock(&diff.lock);
    uint64_t values[6] = {copy.differing, copy.differing_bytes, copy.files, copy.bytes, copy.directories, (uint64_t)copy.seconds};
    for (int i = 0; i < 6; i++) number(text[i], values[i]);
    event_send("diff_ended", "equal", !copy.differing && !copy.directories && !*copy.failed ? "yes" : "no", "differing_files", text[0], "differing_bytes", text[1], "files", text[2],
               "bytes", text[3], "directories", text[4], "seconds", text[5], "full", copy.full ? "yes" : "no", "failed", copy.failed, "list", copy.list, (char *)NULL);
}

static void *diff_main(void *unused) {
    (void)unused;
    char path[PATH_MAX] = "", list[PATH_MAX];
    marks_clear(&diff.seen);
    snprintf(list, sizeof list, "%.4000s/diff.list", options.state_dir);
    dirty_snapshot(&diff.set);
    pthread_mutex_lock(&state_lock);
    // In mirror nothing is written down and nothing differs.
    diff.full = stream_answers() != ANSWER_PEER && (!state.base[0] || !dirty_usable());
    pthread_mutex_unlock(&state_lock);
    diff.sampled = 0;
    diff.sampled_ms = 0;
    diff.listed = 0;
    diff.list = fopen(list, "we");
    for (unsigned i = 0; i < options.directories; i++) {
        const struct directory *directory = &options.directory[i];
        struct stat st;
        if (fstat(directory->root, &st) == 0) walk(directory, directory->root, mark_key(i, st.st_dev, st.st_ino), path, 0);
    }
    if (diff.list) fclose(diff.list);
    dirty_set_clear(&diff.set);
    marks_clear(&diff.seen);
    finish(list);
    return NULL;
}

int diff_start(struct failure *failure) {
    int result = 0;
    pthread_mutex_lock(&diff.lock);
    if (strcmp(module_role(), "primary") != 0) {
        snprintf(failure->code, sizeof failure->code, "role");
        snprintf(failure->message, sizeof failure->message, "this node is %s, only a primary knows what would be copied", module_role());
        result = -1;
    } else if (diff.now.running) {
        snprintf(failure->code, sizeof failure->code, "busy");
        snprintf(failure->message, sizeof failure->message, "it is being counted already");
        result = -1;
    } else {
        if (diff.joinable) pthread_join(diff.thread, NULL);
        diff.now = (struct diff_report){.running = true};
        atomic_store(&diff.stopped, false);
        diff.joinable = true;
        if (pthread_create(&diff.thread, NULL, diff_main, NULL)) abort();
    }
    pthread_mutex_unlock(&diff.lock);
    return result;
}

void diff_stop(void) {
    atomic_store(&diff.stopped, true);
    pthread_mutex_lock(&diff.lock);
    bool joinable = diff.joinable;
    diff.joinable = false;
    pthread_mutex_unlock(&diff.lock);
    if (joinable) pthread_join(diff.thread, NULL);
}

struct diff_report diff_get(void) {
    pthread_mutex_lock(&diff.lock);
    struct diff_report copy = diff.now;
    pthread_mutex_unlock(&diff.lock);
    return copy;
}
