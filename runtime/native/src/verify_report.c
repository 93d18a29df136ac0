// What a comparison has found so far: counts, the list of what differs, progress once a second. The same on both nodes.
#include "events.h"
#include "local.h"
#include "verify.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define LISTED 10000u // all are counted
#define RECENT 300u   // of them are searched for what differs in one more way

struct listed {
    uint64_t key;
    unsigned directory;
    uint32_t what;
    char *path;
};

static struct {
    pthread_mutex_t lock;
    struct verify_report now;
    struct mark_set seen; // one object may differ in several ways, and is one
    struct listed *list;
    size_t listed, room;
    int64_t began, told;
} report = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void forget_list(void) {
    for (size_t i = 0; i < report.listed; i++) free(report.list[i].path);
    free(report.list);
    report.list = NULL;
    report.listed = report.room = 0;
    marks_clear(&report.seen);
}

bool verify_report_begin(bool metadata_only, uint64_t files_total, uint64_t bytes_total) {
    pthread_mutex_lock(&report.lock);
    bool free_now = !report.now.running;
    if (free_now) {
        report.now = (struct verify_report){.running = true, .files_total = files_total, .bytes_total = bytes_total};
        forget_list();
        report.began = report.told = now_ms();
    }
    pthread_mutex_unlock(&report.lock);
    if (free_now) say("comparing both copies%s", metadata_only ? ", metadata only" : "");
    return free_now;
}

void verify_report_totals(uint64_t files, uint64_t bytes) {
    pthread_mutex_lock(&report.lock);
    report.now.files_total = files;
    report.now.bytes_total = bytes;
    pthread_mutex_unlock(&report.lock);
}

static void number(char text[24], uint64_t value) { snprintf(text, 24, "%llu", (unsigned long long)value); }

void verify_report_done(uint64_t files, uint64_t bytes) {
    char text[5][24];
    int64_t now = now_ms();
    pthread_mutex_lock(&report.lock);
    report.now.files += files;
    report.now.bytes += bytes;
    bool tell = report.now.running && now - report.told >= 1000;
    if (tell) report.told = now;
    struct verify_report copy = report.now;
    pthread_mutex_unlock(&report.lock);
    if (!tell) return;
    number(text[0], copy.files);
    number(text[1], copy.files_total);
    number(text[2], copy.bytes);
    number(text[3], copy.bytes_total);
    number(text[4], copy.differing);
    event_send("verify_progress", "files_done", text[0], "files_total", text[1], "bytes_done", text[2], "bytes_total", text[3], "differing_files", text[4], (char *)NULL);
}

void verify_list_path(FILE *list, const char *directory, const char *path) {
    const char *parts[] = {directory, *path ? "/" : "", path};
    for (int i = 0; i < 3; i++) {
        for (const unsigned char *at = (const unsigned char *)parts[i]; *at; at++) {
            if (*at < ' ' || *at == '\\' || *at == 127) fprintf(list, "\\%03o", *at);
            else fputc(*at, list);
        }
    }
}

// One line: the path, a tabulator, what differs.
static void list_line(FILE *list, const char *directory, const char *path, uint32_t what) {
    static const char *const words[] = {"missing", "extra", "kind", "owner", "mode", "time", "size", "links", "target", "attributes", "content"};
    verify_list_path(list, directory, path);
    char separator = '\t';
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (!(what & 1u << i)) continue;
        fprintf(list, "%c%s", separator, words[i]);
        separator = ',';
    }
    fputc('\n', list);
}

void verify_report_difference(unsigned directory, uint64_t key, const char *path, uint32_t what, uint64_t bytes) {
    if (directory >= options.directories) return;
    pthread_mutex_lock(&report.lock);
    if (report.now.running) {
        bool news = marks_add(&report.seen, directory, key, MARK_META);
        report.now.differing += news;
        report.now.differing_bytes += bytes;
        size_t oldest = report.listed > RECENT ? report.listed - RECENT : 0, at = report.listed;
        while (!news && at > oldest && (report.list[at - 1].key != key || report.list[at - 1].directory != directory)) at--;
        if (!news && at > oldest) {
            report.list[at - 1].what |= what;
        } else if (news && report.listed < LISTED) {
            if (report.listed == report.room) {
                report.room = report.room ? report.room * 2 : 64;
                report.list = must(realloc(report.list, report.room * sizeof *report.list));
            }
            report.list[report.listed++] = (struct listed){key, directory, what, must(strdup(path))};
        }
    }
    pthread_mutex_unlock(&report.lock);
}

static bool write_list(char path[PATH_MAX]) {
    char temporary[PATH_MAX];
    snprintf(path, PATH_MAX, "%.4000s/verify.list", options.state_dir);
    snprintf(temporary, PATH_MAX, "%.4000s/verify.list.new", options.state_dir);
    FILE *file = fopen(temporary, "we");
    if (!file) return false;
    for (size_t i = 0; i < report.listed; i++) list_line(file, options.directory[report.list[i].directory].name, report.list[i].path, report.list[i].what);
    bool written = fflush(file) == 0;
    fclose(file);
    return written && rename(temporary, path) == 0;
}

void verify_report_end(bool cancelled, const char *failed) {
    char path[PATH_MAX], text[5][24];
    pthread_mutex_lock(&report.lock);
    bool was_running = report.now.running;
    if (was_running) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        report.now.running = false;
        report.now.cancelled = cancelled;
        report.now.seconds = (now_ms() - report.began) / 1000;
        report.now.ended = t.tv_sec;
        snprintf(report.now.failed, sizeof report.now.failed, "%s", cancelled ? "cancelled" : failed);
        if (report.listed && write_list(path)) snprintf(report.now.list, sizeof report.now.list, "%s", path);
        forget_list();
    }
    struct verify_report copy = report.now;
    pthread_mutex_unlock(&report.lock);
    if (!was_running) return;
    number(text[0], copy.differing);
    number(text[1], copy.differing_bytes);
    number(text[2], copy.files);
    number(text[3], copy.bytes);
    number(text[4], (uint64_t)copy.seconds);
    say("compared %s files: %s differ%s%s", text[2], text[0], *copy.failed ? ", not finished: " : "", copy.failed);
    event_send("verify_ended", "equal", !copy.differing && !*copy.failed ? "yes" : "no", "differing_files", text[0], "differing_bytes", text[1], "files", text[2],
               "bytes", text[3], "seconds", text[4], "failed", copy.failed, "list", copy.list, (char *)NULL);
}

struct verify_report verify_report_get(void) {
    pthread_mutex_lock(&report.lock);
    struct verify_report copy = report.now;
    pthread_mutex_unlock(&report.lock);
    return copy;
}

// The sum of the digests of all of them: a file system lists them in the order that it likes.
void verify_attributes(int object, unsigned char digest[16]) {
    unsigned char *block = NULL;
    XXH128_hash_t sum = {0, 0};
    size_t size = 0;
    memset(digest, 0, 16);
    if (xattrs_read(object, &block, &size)) return;
    for (size_t at = 0; at < size;) {
        uint32_t value_size;
        size_t name_size = strlen((char *)block + at) + 1;
        memcpy(&value_size, block + at + name_size, sizeof value_size);
        size_t whole = name_size + sizeof value_size + value_size;
        XXH128_hash_t one = XXH3_128bits(block + at, whole);
        sum.low64 += one.low64;
        sum.high64 += one.high64;
        at += whole;
    }
    free(block);
    memcpy(digest, &sum, 16);
}
