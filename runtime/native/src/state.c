// The durable record and the log of the dirty set.
//
// Invariant: the log is believed only when it is closed by its end record and names the base of the record. A process or a machine that ended
// otherwise leaves a log without end, and the next resync compares everything.
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

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
    out[0] = 0;
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
    int used = snprintf(text, size, "safekit-rfs 1\nrole=%s\nbase=%s\ngeneration=%s\npublished=%s\nboot_id=%s\nclean=%d\nexact=%d\ninconsistent=%d\n",
                        state.role, state.base, state.generation, state.published, state.boot_id, state.clean, state.exact, state.inconsistent);
    used += snprintf(text + used, size - (size_t)used, "check=%016llx\n", (unsigned long long)fnv64(text, (size_t)used));
    return (size_t)used;
}

int state_save(void) {
    char text[4096];
    int error = replace_file("rfs.state", text, state_text(text, sizeof text));
    if (error) say("%s/rfs.state: %s", options.state_dir, strerror(error));
    return error;
}

static void take_line(const char *line) {
    struct {
        const char *key;
        char *text;
        size_t size;
        bool *flag;
    } fields[] = {
        {"role=", state.role, sizeof state.role, NULL},
        {"base=", state.base, sizeof state.base, NULL},
        {"generation=", state.generation, sizeof state.generation, NULL},
        {"published=", state.published, sizeof state.published, NULL},
        {"boot_id=", state.boot_id, sizeof state.boot_id, NULL},
        {"clean=", NULL, 0, &state.clean},
        {"exact=", NULL, 0, &state.exact},
        {"inconsistent=", NULL, 0, &state.inconsistent},
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
        char *check = strstr(text, "check=");
        char expected[40];
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
    *was_secondary = strcmp(state.role, "secondary") == 0 && !state.clean;
    if (strcmp(state.role, "primary") == 0 && !state.clean) {
        // What was on its way when the process ended is known to nobody.
        state.base[0] = 0;
        state.exact = false;
    }
    if (strcmp(state.role, "secondary") == 0 && !state.clean && strcmp(state.boot_id, boot_id) != 0) {
        // The memory of the machine is gone, and with it what was acknowledged and not yet on disk.
        state.exact = false;
    }
    if (state.inconsistent) state.exact = false;
    snprintf(state.role, sizeof state.role, "idle");
    snprintf(state.boot_id, sizeof state.boot_id, "%s", boot_id);
    return state_save();
}

// ---- the dirty set ----

struct record {
    uint32_t kind, directory, flags, zero;
    uint64_t key, check;
};
enum { RECORD_BEGIN = 0x42, RECORD_MARK, RECORD_END };

static struct {
    pthread_mutex_t lock;
    struct mark_set set;
    size_t count, linked;
    int log;
    bool usable;
} dirty = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

static struct record record_make(uint32_t kind, uint32_t directory, uint32_t flags, uint64_t key) {
    struct record record = {.kind = kind, .directory = directory, .flags = flags, .key = key};
    record.check = fnv64(&record, offsetof(struct record, check));
    return record;
}

static bool record_append(const struct record *record) { return dirty.log >= 0 && write(dirty.log, record, sizeof *record) == (ssize_t)sizeof *record; }

static int log_path(char *path, size_t size) { return snprintf(path, size, "%s/rfs.dirty", options.state_dir); }

// Reads a log that was closed in order. Returns false when there is none that can be believed.
static bool log_read(const char *path) {
    FILE *file = fopen(path, "re");
    if (!file) return false;
    struct record record;
    bool begun = false, ended = false;
    while (!ended && fread(&record, sizeof record, 1, file) == 1) {
        if (record.check != fnv64(&record, offsetof(struct record, check))) break;
        if (record.kind == RECORD_BEGIN) begun = record.key == fnv64(state.base, strlen(state.base));
        if (!begun) break;
        if (record.kind == RECORD_MARK && marks_add(&dirty.set, record.directory, record.key, record.flags)) dirty.count++;
        if (record.kind == RECORD_MARK && record.flags & (MARK_LINKED | MARK_TREE)) dirty.linked++;
        ended = record.kind == RECORD_END;
    }
    fclose(file);
    return ended;
}

// With dirty.lock held: an empty log that counts from the base of the record.
static int log_create(void) {
    char path[4096];
    log_path(path, sizeof path);
    if (dirty.log >= 0) close(dirty.log);
    dirty.log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    struct record record = record_make(RECORD_BEGIN, 0, 0, fnv64(state.base, strlen(state.base)));
    dirty.usable = record_append(&record) && state.base[0];
    if (dirty.log < 0) return errno;
    for (size_t i = 0; i < dirty.set.size; i++) {
        const struct mark *mark = &dirty.set.slot[i];
        if (!(mark->flags & MARK_ANY)) continue;
        record = record_make(RECORD_MARK, mark->directory, mark->flags & MARK_ANY, mark->key);
        if (!record_append(&record)) dirty.usable = false;
    }
    return 0;
}

int dirty_begin(bool keep) {
    char path[4096];
    log_path(path, sizeof path);
    pthread_mutex_lock(&dirty.lock);
    marks_clear(&dirty.set);
    dirty.count = dirty.linked = 0;
    if (!keep || !log_read(path)) {
        marks_clear(&dirty.set);
        dirty.count = dirty.linked = 0;
        if (keep) state.base[0] = 0;
    }
    int error = log_create();
    pthread_mutex_unlock(&dirty.lock);
    if (error) say("%s: %s", path, strerror(error));
    return error;
}

void dirty_mark(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&dirty.lock);
    if ((marks_get(&dirty.set, directory, key) & flags) != flags) {
        if (!marks_get(&dirty.set, directory, key)) dirty.count++;
        marks_add(&dirty.set, directory, key, flags);
        if (flags & (MARK_LINKED | MARK_TREE)) dirty.linked++;
        struct record record = record_make(RECORD_MARK, directory, flags, key);
        if (dirty.usable && !record_append(&record)) {
            dirty.usable = false;
            say("%s/rfs.dirty cannot be written: the next resync compares everything", options.state_dir);
        }
    }
    pthread_mutex_unlock(&dirty.lock);
}

int dirty_restart(void) {
    pthread_mutex_lock(&dirty.lock);
    marks_clear(&dirty.set);
    dirty.count = dirty.linked = 0;
    int error = log_create();
    pthread_mutex_unlock(&dirty.lock);
    return error;
}

int dirty_close(void) {
    pthread_mutex_lock(&dirty.lock);
    int error = 0;
    if (dirty.log >= 0) {
        struct record record = record_make(RECORD_END, 0, 0, 0);
        if (dirty.usable && (!record_append(&record) || fsync(dirty.log))) error = errno ? errno : EIO;
        close(dirty.log);
    }
    dirty.log = -1;
    pthread_mutex_unlock(&dirty.lock);
    return error;
}

bool dirty_usable(void) {
    pthread_mutex_lock(&dirty.lock);
    bool usable = dirty.usable;
    pthread_mutex_unlock(&dirty.lock);
    return usable;
}

size_t dirty_count(void) {
    pthread_mutex_lock(&dirty.lock);
    size_t count = dirty.count;
    pthread_mutex_unlock(&dirty.lock);
    return count;
}

size_t dirty_linked(void) {
    pthread_mutex_lock(&dirty.lock);
    size_t linked = dirty.linked;
    pthread_mutex_unlock(&dirty.lock);
    return linked;
}

void dirty_snapshot(struct mark_set *set) {
    pthread_mutex_lock(&dirty.lock);
    marks_copy(set, &dirty.set);
    pthread_mutex_unlock(&dirty.lock);
}
