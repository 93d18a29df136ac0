#include "copied.h"
#include "marks.h"
#include "state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BEGIN = 0x43, RECORD_FILE };

struct record {
    uint32_t kind, directory;
    uint64_t key, upto, check;
};
_Static_assert(sizeof(struct record) == 32, "records travel to the disk as they lie in memory");

struct note {
    uint64_t key, upto, seq;
    uint32_t directory;
};

struct part {
    struct part *next;
    uint64_t key, upto;
    unsigned directory;
};

#define WHOLE 1u
#define PART 2u
#define BATCH 256

static struct {
    pthread_mutex_t lock;
    int log;
    bool read; // the sets say what an interrupted copy did
    struct mark_set known;
    struct part *part; // few: a file that is copied at the moment of an interruption
    size_t whole;
    // of the thread that copies: notes in the order of the stream; up to `sent` everything of them is sent
    struct note *note;
    size_t first, sent, last, room;
} copied = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

static void log_path(char *path, size_t size) { snprintf(path, size, "%s/rfs.copied", options.state_dir); }

static struct record record_make(uint32_t kind, unsigned directory, uint64_t key, uint64_t upto) {
    struct record record = {.kind = kind, .directory = directory, .key = key, .upto = upto};
    record.check = fnv64(&record, offsetof(struct record, check));
    return record;
}

// Which copy, in which boot of this machine: after another one its files may be older than what the secondary got.
static struct record record_begin(void) {
    return record_make(RECORD_BEGIN, 0, fnv64(state.base, strlen(state.base)), fnv64(state.boot_id, strlen(state.boot_id)));
}

static void forget_known(void) {
    marks_clear(&copied.known);
    while (copied.part) {
        struct part *next = copied.part->next;
        free(copied.part);
        copied.part = next;
    }
    copied.whole = 0;
    copied.read = false;
}

static void close_log(void) {
    if (copied.log >= 0) close(copied.log);
    copied.log = -1;
}

static void start(void) {
    close_log();
    forget_known();
    copied.first = copied.sent = copied.last = 0;
}

void copied_begin(void) {
    char path[4096];
    log_path(path, sizeof path);
    struct record record = record_begin();
    pthread_mutex_lock(&copied.lock);
    start();
    copied.log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (copied.log < 0 || write(copied.log, &record, sizeof record) != (ssize_t)sizeof record) {
        say("%s cannot be written: an interrupted copy begins anew", path);
        close_log();
        unlink(path);
    }
    pthread_mutex_unlock(&copied.lock);
}

static struct part *part_of(unsigned directory, uint64_t key) {
    struct part *part = copied.part;
    while (part && (part->key != key || part->directory != directory)) part = part->next;
    return part;
}

static void learn(const struct record *record) {
    uint32_t before = marks_get(&copied.known, record->directory, record->key);
    if (before & WHOLE) return;
    if (record->upto == COPIED_WHOLE) {
        marks_add(&copied.known, record->directory, record->key, WHOLE);
        copied.whole++;
        return;
    }
    struct part *part = before & PART ? part_of(record->directory, record->key) : NULL;
    if (!part) {
        part = must(malloc(sizeof *part));
        *part = (struct part){copied.part, record->key, 0, record->directory};
        copied.part = part;
        marks_add(&copied.known, record->directory, record->key, PART);
    }
    if (record->upto > part->upto) part->upto = record->upto;
}

bool copied_open(void) {
    char path[4096];
    log_path(path, sizeof path);
    struct record record, begin = record_begin();
    pthread_mutex_lock(&copied.lock);
    start();
    FILE *file = fopen(path, "re");
    bool known = file && fread(&record, sizeof record, 1, file) == 1 && memcmp(&record, &begin, sizeof record) == 0;
    off_t good = sizeof record;
    while (known && fread(&record, sizeof record, 1, file) == 1) {
        if (record.check != fnv64(&record, offsetof(struct record, check)) || record.kind != RECORD_FILE || record.directory >= options.directories) break;
        learn(&record);
        good += (off_t)sizeof record;
    }
    if (file) fclose(file);
    if (known) copied.log = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    known = copied.log >= 0 && ftruncate(copied.log, good) == 0; // behind a torn record nothing would be read
    copied.read = known;
    if (!known) start();
    pthread_mutex_unlock(&copied.lock);
    return known;
}

void copied_forget(void) {
    char path[4096];
    log_path(path, sizeof path);
    pthread_mutex_lock(&copied.lock);
    close_log();
    unlink(path);
    pthread_mutex_unlock(&copied.lock);
}

void copied_close(bool done) {
    if (done) copied_forget();
    pthread_mutex_lock(&copied.lock);
    start();
    free(copied.note);
    copied.note = NULL;
    copied.room = 0;
    pthread_mutex_unlock(&copied.lock);
}

bool copied_have(unsigned directory, uint64_t key, uint64_t *upto) {
    pthread_mutex_lock(&copied.lock);
    uint32_t flags = copied.read ? marks_get(&copied.known, directory, key) : 0;
    const struct part *part = flags == PART ? part_of(directory, key) : NULL;
    *upto = flags & WHOLE ? COPIED_WHOLE : part ? part->upto : 0;
    pthread_mutex_unlock(&copied.lock);
    return flags != 0;
}

size_t copied_files(void) {
    pthread_mutex_lock(&copied.lock);
    size_t whole = copied.whole;
    pthread_mutex_unlock(&copied.lock);
    return whole;
}

void copied_note(unsigned directory, uint64_t key, uint64_t upto, uint64_t seq) {
    if (copied.last == copied.room) {
        // What is written makes room first.
        if (copied.first > copied.room / 2) {
            memmove(copied.note, copied.note + copied.first, (copied.last - copied.first) * sizeof *copied.note);
            copied.sent -= copied.first;
            copied.last -= copied.first;
            copied.first = 0;
        } else {
            copied.room = copied.room ? copied.room * 2 : 256;
            copied.note = must(realloc(copied.note, copied.room * sizeof *copied.note));
        }
    }
    copied.note[copied.last++] = (struct note){key, upto, seq, directory};
}

static void write_records(const struct record *record, size_t count) {
    pthread_mutex_lock(&copied.lock);
    if (count && copied.log >= 0 && write(copied.log, record, count * sizeof *record) != (ssize_t)(count * sizeof *record)) {
        say("%s/rfs.copied cannot be written: an interrupted copy goes on from here", options.state_dir);
        close_log();
    }
    pthread_mutex_unlock(&copied.lock);
}

void copied_settle(uint64_t compared, uint64_t sent, uint64_t durable) {
    struct record record[BATCH];
    size_t count = 0;
    for (; copied.sent < copied.last && copied.note[copied.sent].seq < compared; copied.sent++) copied.note[copied.sent].seq = sent;
    for (; copied.first < copied.sent && copied.note[copied.first].seq <= durable; copied.first++) {
        const struct note *note = &copied.note[copied.first];
        record[count++] = record_make(RECORD_FILE, note->directory, note->key, note->upto);
        if (count < BATCH) continue;
        write_records(record, count);
        count = 0;
    }
    write_records(record, count);
}
