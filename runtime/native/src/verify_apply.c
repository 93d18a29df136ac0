// The secondary's half of a comparison: compares what the primary read at the same place of the stream, and answers what differs. Nothing here ever
// changes the tree or ends the session: an object that is not here differs, and that is all.
#include "local.h"
#include "receive.h"
#include "select.h"
#include "verify.h"
#include "workers.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static struct {
    bool began;
    char **name; // of the directory that is compared
    size_t names;
} check; // of the thread that reads the stream

static void forget_names(void) {
    for (size_t i = 0; i < check.names; i++) free(check.name[i]);
    free(check.name);
    check.name = NULL;
    check.names = 0;
}

static bool path_of(int object, unsigned directory, const char *name, char path[PATH_MAX]) {
    if (!local_path(options.directory[directory].root, object, path)) return false;
    size_t used = strlen(path);
    return snprintf(path + used, PATH_MAX - used, "%s%s", used && *name ? "/" : "", name) < (int)(PATH_MAX - used);
}

static void differs(enum frame_op op, uint64_t seq, unsigned directory, uint64_t key, uint64_t parent, uint32_t what, mode_t type, const char *path, uint64_t bytes) {
    struct message message = {.frame = {.op = (uint16_t)op, .seq = seq, .valid = directory, .size = key, .id2 = parent, .mode = what, .umask = type, .offset = bytes}, .name = path};
    receive_send(&message);
    if (op == OP_VERIFY_DIFFERS) verify_report_difference(directory, key, path, what, bytes);
}

// ---- names ----

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void read_names(int object) {
    forget_names();
    size_t room = 0;
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY | O_NOATIME);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) {
        if (fd >= 0) close(fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!name_is_entry(entry->d_name)) continue;
        if (check.names == room) {
            room = room ? room * 2 : 64;
            check.name = must(realloc(check.name, room * sizeof *check.name));
        }
        check.name[check.names++] = must(strdup(entry->d_name));
    }
    closedir(entries);
    if (check.names) qsort(check.name, check.names, sizeof *check.name, by_name);
}

static uint32_t compare_record(const struct verify_record *record, int parent, const char *name, const char *target, const struct directory *directory) {
    struct stat st;
    int object = *name ? openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : dup(parent);
    if (object < 0) return DIFFERS_MISSING;
    uint32_t what = 0;
    if (local_stat(object, &st)) what = DIFFERS_MISSING;
    else if ((st.st_mode & S_IFMT) != (record->mode & S_IFMT)) what = DIFFERS_KIND;
    // Names that are not replicated may share a file with one that is.
    else if (!S_ISDIR(st.st_mode) && st.st_nlink != record->links && !select_configured(directory)) what = DIFFERS_LINKS;
    if (!what && !S_ISREG(st.st_mode)) {
        char mine[PATH_MAX] = "";
        unsigned char attributes[16] = {0};
        if (S_ISLNK(st.st_mode)) {
            ssize_t size = readlinkat(object, "", mine, sizeof mine - 1);
            mine[size > 0 ? size : 0] = 0;
        } else {
            verify_attributes(object, attributes);
        }
        bool device = S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode);
        if (strcmp(mine, target) != 0 || (device && st.st_rdev != record->rdev)) what |= DIFFERS_TARGET;
        if (st.st_uid != record->uid || st.st_gid != record->gid) what |= DIFFERS_OWNER;
        if (!S_ISLNK(st.st_mode) && (st.st_mode & 07777) != (record->mode & 07777)) what |= DIFFERS_MODE;
        if (st.st_mtim.tv_sec != record->mtime_s || (uint32_t)st.st_mtim.tv_nsec != record->mtime_n) what |= DIFFERS_TIME;
        if (memcmp(attributes, record->attributes, sizeof attributes) != 0) what |= DIFFERS_ATTRIBUTES;
    }
    close(object);
    return what;
}

static int apply_names(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id);
    if (f->valid >= options.directories) return EPROTO;
    if (object < 0) return 0; // told with the names of the directory above
    const struct directory *directory = &options.directory[f->valid];
    if (!message->name) read_names(object);
    const unsigned char *at = message->data, *end = at + f->data_size;
    size_t mine = 0;
    while (message->name && mine < check.names && strcmp(check.name[mine], message->name) <= 0) mine++;
    char path[PATH_MAX];
    const char *last = NULL;
    do {
        struct verify_record record;
        const char *name = NULL, *target;
        if (at < end) {
            if ((size_t)(end - at) < sizeof record) return EPROTO;
            memcpy(&record, at, sizeof record);
            at += sizeof record;
            if ((size_t)(end - at) < (size_t)record.name_size + record.target_size || !record.name_size || !record.target_size) return EPROTO;
            name = (const char *)at;
            target = name + record.name_size;
            if (strnlen(name, record.name_size) + 1 != record.name_size || strnlen(target, record.target_size) + 1 != record.target_size) return EPROTO;
            if (*name && !name_is_entry(name)) return EPROTO;
            at += record.name_size + record.target_size;
            uint32_t what = compare_record(&record, object, name, target, directory);
            if (what && path_of(object, f->valid, name, path))
                differs(OP_VERIFY_DIFFERS, f->seq, f->valid, record.key, f->id2, what, record.mode, path, what & (DIFFERS_MISSING | DIFFERS_KIND) ? record.size : 0);
            if (!*name) continue;
        }
        // What lies here between the name before and this one, or the end of the range.
        last = name ? name : message->name2;
        for (; mine < check.names && (!last || strcmp(check.name[mine], last) < 0); mine++) {
            struct stat st;
            if (fstatat(object, check.name[mine], &st, AT_SYMLINK_NOFOLLOW) || select_excludes(directory, object, check.name[mine], st.st_mode)) continue;
            if (S_ISDIR(st.st_mode) && st.st_dev != directory->dev) continue;
            if (path_of(object, f->valid, check.name[mine], path)) differs(OP_VERIFY_SUSPECT, f->seq, f->valid, 0, f->id2, DIFFERS_EXTRA, st.st_mode, path, 0);
        }
        if (name && mine < check.names && strcmp(check.name[mine], name) == 0) mine++;
        if (!name) break;
    } while (true);
    if (!message->name2) forget_names();
    return 0;
}

static int apply_absent(const struct message *message) {
    const struct frame *f = &message->frame;
    int object = receive_object(f->id);
    struct stat st;
    char path[PATH_MAX];
    if (f->valid >= options.directories || !name_is_entry(message->name)) return EPROTO;
    if (object < 0 || fstatat(object, message->name, &st, AT_SYMLINK_NOFOLLOW)) return 0;
    if (select_excludes(&options.directory[f->valid], object, message->name, st.st_mode) || !path_of(object, f->valid, message->name, path)) return 0;
    differs(OP_VERIFY_DIFFERS, f->seq, f->valid, fnv64(path, strlen(path)), f->id2, DIFFERS_EXTRA, st.st_mode, path, 0);
    return 0;
}

// ---- files ----

static void file_differs(const struct frame *f, int object, uint32_t what, uint64_t bytes) {
    char path[PATH_MAX];
    if (path_of(object, f->valid, "", path)) differs(OP_VERIFY_DIFFERS, f->seq, f->valid, f->id2, 0, what, S_IFREG, path, bytes);
}

static int apply_file(const struct message *message) {
    const struct frame *f = &message->frame;
    struct stat st;
    int object = receive_object(f->id);
    if (f->data_size != 16 || f->valid >= options.directories) return EPROTO;
    // What is missing or another kind of thing was told with the names of its directory.
    if (object < 0 || local_stat(object, &st) || !S_ISREG(st.st_mode)) return 0;
    unsigned char attributes[16];
    uint32_t what = 0;
    verify_attributes(object, attributes);
    if (st.st_uid != f->uid || st.st_gid != f->gid) what |= DIFFERS_OWNER;
    if ((st.st_mode & 07777) != (f->mode & 07777)) what |= DIFFERS_MODE;
    if (st.st_mtim.tv_sec != f->mtime_s || (uint32_t)st.st_mtim.tv_nsec != f->mtime_n) what |= DIFFERS_TIME;
    if ((uint64_t)st.st_size != f->size) what |= DIFFERS_SIZE;
    if (memcmp(attributes, message->data, sizeof attributes) != 0) what |= DIFFERS_ATTRIBUTES;
    if (what) file_differs(f, object, what, 0);
    verify_report_done(1, 0);
    return 0;
}

static bool zone_is_equal(int file, const struct message *message) {
    const struct frame *f = &message->frame;
    unsigned char *bytes = workers_scratch();
    ssize_t n = pread(file, bytes, f->size, (off_t)f->offset);
    if (n != (ssize_t)f->size) return false;
    XXH128_hash_t digest = XXH3_128bits(bytes, (size_t)n);
    return f->data_size == sizeof digest && memcmp(&digest, message->data, sizeof digest) == 0;
}

// What is a hole there may be zeros here.
static bool hole_is_empty(int file, const struct frame *f) {
    unsigned char *bytes = workers_scratch();
    off_t end = (off_t)(f->offset + f->size);
    for (off_t at = lseek(file, (off_t)f->offset, SEEK_DATA); at >= 0 && at < end;) {
        ssize_t n = pread(file, bytes, (size_t)(end - at < (off_t)ZONE_SIZE ? end - at : (off_t)ZONE_SIZE), at);
        if (n <= 0) break;
        if (bytes[0] || memcmp(bytes, bytes + 1, (size_t)n - 1) != 0) return false;
        receive_worked();
        at = lseek(file, at + n, SEEK_DATA);
    }
    return true;
}

static int apply_range(const struct message *message) {
    const struct frame *f = &message->frame;
    struct stat st;
    int object = receive_object(f->id), error = 0;
    if (f->valid >= options.directories || !f->size || (f->op == OP_VERIFY_ZONE && f->size > ZONE_SIZE)) return EPROTO;
    if (object < 0 || local_stat(object, &st) || !S_ISREG(st.st_mode)) return 0;
    int file = receive_file(f->id, &error);
    if (file < 0 || !(f->op == OP_VERIFY_ZONE ? zone_is_equal(file, message) : hole_is_empty(file, f))) file_differs(f, object, DIFFERS_CONTENT, f->size);
    verify_report_done(0, f->size);
    return 0;
}

// ---- all ----

int verify_apply(const struct message *message) {
    const struct frame *f = &message->frame;
    switch (f->op) {
    case OP_VERIFY_BEGIN: check.began = verify_report_begin(f->flags & VERIFY_METADATA, f->size, f->offset); return 0;
    case OP_VERIFY_NAMES: return apply_names(message);
    case OP_VERIFY_ABSENT: return apply_absent(message);
    case OP_VERIFY_FILE: return apply_file(message);
    case OP_VERIFY_ZONE:
    case OP_VERIFY_HOLE: return apply_range(message);
    case OP_VERIFY_END:
        if (check.began) verify_report_end(f->flags & VERIFY_CANCEL, "");
        check.began = false;
        return 0;
    default: return EPROTO;
    }
}

void verify_session_ends(void) {
    forget_names();
    if (check.began) verify_report_end(false, "the connection was lost");
    check.began = false;
}
