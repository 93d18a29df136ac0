// The durable record of the data plane.
#include "state.h"
#include "takeover.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_SET_NS 20000000 // more than a coarse clock lags: it was set

struct state state = {.role = "idle", .clean = true};
pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;

static int replace_file(const char *name, const char *text, size_t size) {
    char path[4096], temporary[4096];
    snprintf(path, sizeof path, "%s/%s", options.state_dir, name);
    snprintf(temporary, sizeof temporary, "%s/%s.new", options.state_dir, name);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return errno;
    int error = write(fd, text, size) != (ssize_t)size || fsync(fd) ? (errno ? errno : EIO) : 0;
    close(fd);
    if (!error && rename(temporary, path)) error = errno;
    int folder = open(options.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!error && (folder < 0 || fsync(folder))) error = errno;
    if (folder >= 0) close(folder);
    return error;
}

static void read_boot_id(char *out, size_t size) {
    snprintf(out, size, "%s", options.boot_id ? options.boot_id : "");
    if (options.boot_id) return;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file) return;
    if (fgets(out, (int)size, file)) out[strcspn(out, "\n")] = 0;
    fclose(file);
}

void base_create(char base[BASE_SIZE]) {
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) abort();
    for (int i = 0; i < 16; i++) snprintf(base + 2 * i, 3, "%02x", random[i]);
}

static size_t state_text(char *text, size_t size) {
    int used = snprintf(text, size, "safekit-rfs 1\nrole=%s\nbase=%s\ncopy=%s\ngeneration=%s\npublished=%s\nboot_id=%s\nclean=%d\nexact=%d\ninconsistent=%d\npartial=%d\nlost=%d\nlogged=%d\nwatched=%lld\nmirrored=%lld\nahead=%lld\n",
                        state.role, state.base, state.copy, state.generation, state.published, state.boot_id, state.clean, state.exact, state.inconsistent,
                        state.partial, state.lost, state.logged, (long long)state.watched, (long long)state.mirrored.at, (long long)state.mirrored.ahead);
    used += snprintf(text + used, size - (size_t)used, "check=%016llx\n", (unsigned long long)fnv64(text, (size_t)used));
    return (size_t)used;
}

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct moment moment_now(void) {
    struct moment moment = {.at = clock_ns(CLOCK_REALTIME_COARSE)};
    // Two clocks that are read one after the other, as near to each other as this thread is let.
    int64_t nearest = INT64_MAX;
    for (int i = 0; i < 16 && nearest > 100000; i++) {
        int64_t before = clock_ns(CLOCK_BOOTTIME), wall = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_BOOTTIME);
        if (after - before >= nearest) continue;
        nearest = after - before;
        moment.ahead = wall - before;
    }
    return moment;
}

int64_t state_mirrored_at(void) {
    int64_t ahead = moment_now().ahead;
    pthread_mutex_lock(&state_lock);
    struct moment mirrored = state.mirrored;
    pthread_mutex_unlock(&state_lock);
    int64_t set = ahead > mirrored.ahead ? ahead - mirrored.ahead : mirrored.ahead - ahead;
    return mirrored.at && set < CLOCK_SET_NS ? mirrored.at - CLOCK_SET_NS : 0;
}

// What was copied before an interruption counts as known to nobody: a listing says what of it is not there.
bool state_is_doubtful(void) {
    pthread_mutex_lock(&state_lock);
    bool doubtful = (state.partial && !state.exact) || state.resumed;
    pthread_mutex_unlock(&state_lock);
    return doubtful;
}

int state_save(void) {
    char text[4096];
    int error = replace_file("rfs.state", text, state_text(text, sizeof text));
    if (error) say("%s/rfs.state: %s", options.state_dir, strerror(error));
    return error;
}

static void take_line(const char *line) {
    if (strncmp(line, "watched=", 8) == 0) state.watched = strtoll(line + 8, NULL, 10);
    if (strncmp(line, "mirrored=", 9) == 0) state.mirrored.at = strtoll(line + 9, NULL, 10);
    if (strncmp(line, "ahead=", 6) == 0) state.mirrored.ahead = strtoll(line + 6, NULL, 10);
    struct {
        const char *key;
        char *text;
        size_t size;
        bool *flag;
    } fields[] = {
        {"role=", state.role, sizeof state.role, NULL},
        {"base=", state.base, sizeof state.base, NULL},
        {"copy=", state.copy, sizeof state.copy, NULL},
        {"generation=", state.generation, sizeof state.generation, NULL},
        {"published=", state.published, sizeof state.published, NULL},
        {"boot_id=", state.boot_id, sizeof state.boot_id, NULL},
        {"clean=", NULL, 0, &state.clean},
        {"exact=", NULL, 0, &state.exact},
        {"inconsistent=", NULL, 0, &state.inconsistent},
        {"partial=", NULL, 0, &state.partial},
        {"lost=", NULL, 0, &state.lost},
        {"logged=", NULL, 0, &state.logged},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t n = strlen(fields[i].key);
        if (strncmp(line, fields[i].key, n) != 0) continue;
        if (fields[i].flag) *fields[i].flag = line[n] == '1';
        else snprintf(fields[i].text, fields[i].size, "%s", line + n);
    }
}

int state_load(bool *was_secondary) {
    char path[4096], text[8192] = "";
    snprintf(path, sizeof path, "%s/rfs.state", options.state_dir);
    FILE *file = fopen(path, "re");
    if (!file && errno != ENOENT) return errno;
    size_t size = 0;
    if (file) {
        size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        char *check = strstr(text, "\ncheck="); // a line of its own: a generation may say anything
        char expected[40];
        if (check) check++;
        if (check) snprintf(expected, sizeof expected, "check=%016llx\n", (unsigned long long)fnv64(text, (size_t)(check - text)));
        if (!check || strcmp(check, expected) != 0 || size != (size_t)(check - text) + strlen(expected)) {
            say("%s is damaged: this copy counts as inconsistent", path);
            state.inconsistent = true;
        } else {
            for (char *line = text, *next; (next = strchr(line, '\n')); line = next + 1) {
                *next = 0;
                take_line(line);
            }
        }
    }
    char boot_id[64];
    read_boot_id(boot_id, sizeof boot_id);
    if (strcmp(state.boot_id, boot_id) != 0) state.mirrored = (struct moment){0};
    *was_secondary = strcmp(state.role, "secondary") == 0 && !state.clean;
    if (strcmp(state.role, "primary") == 0 && !state.clean) {
        // What was on its way when the process ended is known to the log alone.
        state.logged = dirty_recover(strcmp(state.boot_id, boot_id) == 0);
        if (!state.logged) state.base[0] = 0;
        state.exact = state.lost = false;
    }
    if (strcmp(state.role, "secondary") == 0 && !state.clean && strcmp(state.boot_id, boot_id) != 0) {
        // The memory of the machine is gone, and with it what was acknowledged and not yet on disk.
        state.lost = state.lost || state.exact;
        state.exact = false;
    }
    if (state.inconsistent && !state.partial) state.exact = state.lost = false;
    if (takeover_of_primary()) return 0; // it stays what it is
    snprintf(state.role, sizeof state.role, "idle");
    snprintf(state.boot_id, sizeof state.boot_id, "%s", boot_id);
    return state_save();
}
