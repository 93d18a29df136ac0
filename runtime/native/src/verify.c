// The primary's half of a comparison. See verify.h for what makes it exact.
#include "verify.h"
#include "events.h"
#include "extent.h"
#include "local.h"
#include "receive.h"
#include "resync.h"
#include "select.h"
#include "state.h"
#include "stream.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define BATCH_NAMES 256u
#define BATCH_BYTES (512u << 10)
#define WINDOW 64u          // pieces on their way
#define PAUSE_LIMIT_MS 200

struct suspicion { // a name that only the secondary has, perhaps
    struct suspicion *next;
    unsigned directory;
    char path[];
};

static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    bool joinable;
    atomic_bool running, stopped, lost;
    unsigned flags, limit_kbps;
    struct suspicion *suspicions;
    // of the thread only
    struct mark_set seen; // files of several names
    uint64_t piece[WINDOW];
    unsigned pieces;
    int64_t paused_at, began;
    uint64_t read;
} verify = {.lock = PTHREAD_MUTEX_INITIALIZER};

static unsigned char zone[ZONE_SIZE]; // of the thread

static bool ended(void) { return atomic_load(&verify.stopped) || atomic_load(&verify.lost); }

bool verify_active(void) { return atomic_load(&verify.running); } // asked with the lock of the stream held

// ---- pace ----

static void pause_ms(int64_t ms) {
    if (ms <= 0) return;
    if (ms > PAUSE_LIMIT_MS) ms = PAUSE_LIMIT_MS;
    struct timespec t = {.tv_nsec = ms * 1000000};
    nanosleep(&t, NULL);
}

// Rests as long as it worked, keeps to the limit, and does not run ahead of the secondary.
static void pace(uint64_t seq, uint64_t bytes) {
    verify.read += bytes;
    uint64_t *place = &verify.piece[verify.pieces++ % WINDOW];
    while (*place && !ended() && !stream_wait_applied(*place, 100) && stream_connected()) continue;
    *place = seq;
    int64_t now = now_ms(), worked = now - verify.paused_at;
    if (!(verify.flags & VERIFY_FULL_SPEED) && worked >= 4) {
        pause_ms(worked);
        verify.paused_at = now_ms();
    }
    while (verify.limit_kbps && !ended()) {
        int64_t due = verify.began + (int64_t)(verify.read / verify.limit_kbps), left = due - now_ms();
        if (left <= 0) break;
        pause_ms(left);
        verify.paused_at = now_ms();
    }
}

static void send_piece(struct message *message, struct inode *inode, bool named, uint64_t *seq) {
    if (ended()) return;
    *seq = stream_send(message, inode, named);
}

// ---- names ----

struct names {
    char **name;
    size_t used, room;
};

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool read_names(int object, struct names *names) {
    *names = (struct names){0};
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY | O_NOATIME);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) {
        if (fd >= 0) close(fd);
        return false;
    }
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!name_is_entry(entry->d_name)) continue;
        if (names->used == names->room) {
            names->room = names->room ? names->room * 2 : 64;
            names->name = must(realloc(names->name, names->room * sizeof *names->name));
        }
        names->name[names->used++] = must(strdup(entry->d_name));
    }
    closedir(entries);
    if (names->used) qsort(names->name, names->used, sizeof *names->name, by_name);
    return true;
}

static void free_names(struct names *names) {
    for (size_t i = 0; i < names->used; i++) free(names->name[i]);
    free(names->name);
}

// With namespace_lock held. Returns the bytes used, 0: not replicated, or gone.
static size_t describe(const struct directory *directory, int parent, const char *name, unsigned char *out) {
    struct stat st;
    char target[PATH_MAX] = "";
    struct verify_record record = {.name_size = (uint16_t)(strlen(name) + 1), .target_size = 1};
    int object = *name ? openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : dup(parent);
    if (object < 0 || local_stat(object, &st)) st.st_mode = 0;
    bool known = st.st_mode && !(S_ISDIR(st.st_mode) && st.st_dev != directory->dev) && !(*name && select_excludes(directory, parent, name, st.st_mode));
    if (known) {
        record.key = mark_key(directory->index, st.st_dev, st.st_ino);
        record.mode = st.st_mode;
        record.links = S_ISDIR(st.st_mode) ? 0 : (uint32_t)st.st_nlink;
        if (S_ISREG(st.st_mode)) {
            record.size = (uint64_t)st.st_size;
        } else {
            record.rdev = st.st_rdev;
            record.uid = st.st_uid;
            record.gid = st.st_gid;
            record.mtime_s = st.st_mtim.tv_sec;
            record.mtime_n = (uint32_t)st.st_mtim.tv_nsec;
            if (!S_ISLNK(st.st_mode)) verify_attributes(object, record.attributes);
        }
        if (S_ISLNK(st.st_mode)) {
            ssize_t size = readlinkat(object, "", target, sizeof target - 1);
            target[size > 0 ? size : 0] = 0;
            record.target_size = (uint16_t)(strlen(target) + 1);
        }
    }
    if (object >= 0) close(object);
    if (!known) return 0;
    memcpy(out, &record, sizeof record);
    memcpy(out + sizeof record, name, record.name_size);
    memcpy(out + sizeof record + record.name_size, target, record.target_size);
    return sizeof record + record.name_size + record.target_size;
}

static void send_names(struct inode *inode, const struct names *names, bool itself) {
    unsigned char *bytes = must(malloc(BATCH_BYTES + 8192));
    size_t from = 0;
    do {
        size_t used = 0, at = from;
        uint64_t seq = 0;
        pthread_rwlock_wrlock(&namespace_lock);
        if (itself && !from) used = describe(inode->directory, inode->fd, "", bytes);
        for (; at < names->used && at - from < BATCH_NAMES && used < BATCH_BYTES; at++) used += describe(inode->directory, inode->fd, names->name[at], bytes + used);
        struct message message = {.frame = {.op = OP_VERIFY_NAMES, .id2 = inode_key(inode), .data_size = (uint32_t)used, .valid = inode->directory->index}, .data = bytes};
        if (from) message.name = names->name[from - 1];
        if (at < names->used) message.name2 = names->name[at - 1];
        send_piece(&message, inode, true, &seq);
        pthread_rwlock_unlock(&namespace_lock);
        pace(seq, used);
        from = at;
    } while (from < names->used && !ended());
    free(bytes);
}

// ---- files ----

static struct message of_file(enum frame_op op, const struct inode *inode, off_t offset, size_t size) {
    return (struct message){.frame = {.op = (uint16_t)op, .id2 = inode_key(inode), .valid = inode->directory->index, .offset = (uint64_t)offset, .size = (uint64_t)size}};
}

// One step under the lock of the file: a hole, or at most one zone. Returns the offset to go on with, -1 at the end.
static off_t send_zone(struct inode *inode, int file, off_t offset, struct extent *known) {
    off_t next = -1;
    uint64_t seq = 0, bytes = 0;
    struct stat st;
    inode_lock(inode);
    if (fstat(file, &st) == 0 && offset < st.st_size) {
        off_t data = extent_data(known, file, offset, st.st_size);
        if (data > offset) {
            struct message hole = of_file(OP_VERIFY_HOLE, inode, offset, (size_t)(data - offset));
            send_piece(&hole, inode, false, &seq);
            next = data;
        } else {
            off_t end = (offset / ZONE_SIZE + 1) * ZONE_SIZE, hole = extent_end(known, file, offset);
            if (hole > offset && hole < end) end = hole;
            if (end > st.st_size) end = st.st_size;
            ssize_t n = pread(file, zone, (size_t)(end - offset), offset);
            if (n > 0) {
                XXH128_hash_t digest = XXH3_128bits(zone, (size_t)n);
                struct message check = of_file(OP_VERIFY_ZONE, inode, offset, (size_t)n);
                check.frame.data_size = sizeof digest;
                check.data = &digest;
                send_piece(&check, inode, false, &seq);
                bytes = (uint64_t)n;
                next = offset + n;
            }
        }
    }
    inode_unlock(inode);
    pace(seq, bytes);
    verify_report_done(0, next > offset ? (uint64_t)(next - offset) : 0);
    return next;
}

static void send_file(struct inode *inode) {
    struct stat st;
    unsigned char attributes[16];
    uint64_t seq = 0;
    inode_lock(inode);
    bool known = !local_stat(inode->fd, &st) && st.st_nlink > 0;
    if (known) {
        verify_attributes(inode->fd, attributes);
        struct message message = of_file(OP_VERIFY_FILE, inode, 0, (size_t)st.st_size);
        message.frame.mode = st.st_mode;
        message.frame.uid = st.st_uid;
        message.frame.gid = st.st_gid;
        message.frame.mtime_s = st.st_mtim.tv_sec;
        message.frame.mtime_n = (uint32_t)st.st_mtim.tv_nsec;
        message.frame.data_size = sizeof attributes;
        message.data = attributes;
        send_piece(&message, inode, false, &seq);
    }
    inode_unlock(inode);
    if (!known || !seq) return;
    int file = verify.flags & VERIFY_METADATA || st.st_size == 0 ? -1 : local_reopen(inode->fd, O_RDONLY | O_NOATIME);
    struct extent data = {.dev = inode->dev, .ino = inode->ino};
    for (off_t offset = 0; file >= 0 && offset >= 0 && !ended();) offset = send_zone(inode, file, offset, &data);
    if (file >= 0) close(file);
    pace(seq, 0);
    verify_report_done(1, 0);
}

// ---- the walk ----

static void look_again(void);

static void send_tree(struct inode *inode, bool root) {
    struct names names;
    bool was_bound = stream_is_bound(inode);
    if (!read_names(inode->fd, &names)) return;
    send_names(inode, &names, root);
    for (size_t i = 0; i < names.used && !ended(); i++) {
        struct stat st;
        int object = openat(inode->fd, names.name[i], O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct inode *below = object < 0 ? NULL : inode_get(inode->directory, object, &st);
        if (!below) continue;
        bool wanted = (S_ISDIR(below->type) || S_ISREG(below->type)) && !select_excludes(inode->directory, inode->fd, names.name[i], st.st_mode);
        if (wanted && S_ISREG(below->type) && st.st_nlink > 1) wanted = marks_add(&verify.seen, inode->directory->index, inode_key(below), MARK_META);
        if (wanted && S_ISDIR(below->type)) {
            send_tree(below, false);
        } else if (wanted) {
            bool bound = stream_is_bound(below);
            send_file(below);
            if (!bound) stream_unbind(below); // what only the comparison named is not kept open there
        }
        inode_forget(below, 1);
    }
    free_names(&names);
    if (!was_bound && !root) stream_unbind(inode);
    look_again();
}

static void count(int object, const struct directory *directory, uint64_t *files, uint64_t *bytes) {
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY | O_NOATIME);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries && fd >= 0) close(fd);
    if (!entries) return;
    for (struct dirent *entry; !ended() && (entry = readdir(entries));) {
        struct stat st;
        if (!name_is_entry(entry->d_name) || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (select_excludes(directory, fd, entry->d_name, st.st_mode)) continue;
        if (S_ISREG(st.st_mode)) {
            ++*files;
            *bytes += (uint64_t)st.st_size;
        } else if (S_ISDIR(st.st_mode) && st.st_dev == directory->dev) {
            int below = openat(fd, entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                count(below, directory, files, bytes);
                close(below);
            }
        }
    }
    closedir(entries);
}

// ---- names that only the secondary has ----

static struct suspicion *take_suspicion(void) {
    pthread_mutex_lock(&verify.lock);
    struct suspicion *one = verify.suspicions;
    if (one) verify.suspicions = one->next;
    pthread_mutex_unlock(&verify.lock);
    return one;
}

static struct inode *find_directory(const struct directory *directory, const char *path) {
    int at = dup(directory->root);
    char name[NAME_MAX + 1];
    while (at >= 0 && *path) {
        size_t size = strcspn(path, "/");
        snprintf(name, sizeof name, "%.*s", (int)size, path);
        path += size + (path[size] == '/');
        int below = openat(at, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = below;
    }
    struct stat st;
    return at < 0 ? NULL : inode_get(directory, at, &st);
}

static void look_again(void) {
    for (struct suspicion *one; (one = take_suspicion());) {
        const struct directory *directory = &options.directory[one->directory];
        char *slash = strrchr(one->path, '/');
        const char *name = slash ? slash + 1 : one->path;
        if (slash) *slash = 0;
        uint64_t seq = 0;
        struct stat st;
        struct inode *parent = NULL;
        pthread_rwlock_wrlock(&namespace_lock);
        if (!ended()) parent = find_directory(directory, slash ? one->path : "");
        if (parent && fstatat(parent->fd, name, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT) {
            struct message message = {.frame = {.op = OP_VERIFY_ABSENT, .id2 = inode_key(parent), .valid = directory->index}, .name = name};
            send_piece(&message, parent, true, &seq);
        }
        pthread_rwlock_unlock(&namespace_lock);
        if (parent) inode_forget(parent, 1);
        if (seq) pace(seq, 0);
        free(one);
    }
}

// ---- from the secondary ----

static void mark_for_repair(const struct frame *f) {
    if (f->valid >= options.directories) return;
    uint32_t what = f->mode, type = f->umask & S_IFMT;
    if (what & DIFFERS_EXTRA) {
        dirty_mark(f->valid, f->id2, MARK_LIST);
    } else {
        dirty_mark(f->valid, f->size, S_ISDIR(type) ? MARK_LIST | MARK_META | (what & DIFFERS_MISSING ? MARK_TREE : 0) : S_ISREG(type) ? MARK_CONTENT | MARK_META : MARK_META);
        if (what & (DIFFERS_MISSING | DIFFERS_KIND | DIFFERS_LINKS | DIFFERS_TARGET) || (!S_ISREG(type) && !S_ISDIR(type))) dirty_mark(f->valid, f->id2, MARK_LIST);
    }
}

void verify_answer(const struct message *message) {
    const struct frame *f = &message->frame;
    const char *path = message->name ? message->name : "";
    struct failure failure;
    switch (f->op) {
    case OP_VERIFY_ASK:
        if (verify_command(f->flags, f->valid, &failure)) say("the secondary asked for a comparison: %s", failure.message);
        return;
    case OP_VERIFY_DIFFERS:
        verify_report_difference(f->valid, f->size, path, f->mode, f->offset);
        pthread_mutex_lock(&verify.lock);
        bool repair = verify.flags & VERIFY_REPAIR;
        pthread_mutex_unlock(&verify.lock);
        if (repair) mark_for_repair(f);
        return;
    case OP_VERIFY_SUSPECT: {
        if (f->valid >= options.directories || !path_is_inside(path) || !*path) return;
        struct suspicion *one = must(malloc(sizeof *one + strlen(path) + 1));
        one->directory = f->valid;
        strcpy(one->path, path);
        pthread_mutex_lock(&verify.lock);
        one->next = verify.suspicions;
        verify.suspicions = one;
        pthread_mutex_unlock(&verify.lock);
        return;
    }
    default: return;
    }
}

// ---- the life of a comparison ----

static void settle(uint64_t seq) {
    while (seq && !ended() && !stream_wait_applied(seq, 100) && stream_connected()) continue;
}

static void *verify_main(void *unused) {
    (void)unused;
    uint64_t files = 0, bytes = 0, seq = 0;
    stream_tentative(true);
    for (unsigned i = 0; i < options.directories; i++) count(options.directory[i].root, &options.directory[i], &files, &bytes);
    verify_report_totals(files, bytes);
    struct message begin = {.frame = {.op = OP_VERIFY_BEGIN, .flags = (uint16_t)verify.flags, .size = files, .offset = bytes}};
    send_piece(&begin, NULL, true, &seq);
    verify.began = verify.paused_at = now_ms();
    for (unsigned i = 0; i < options.directories && !ended(); i++) send_tree(inode_root(i), true);
    settle(stream_sequence());
    look_again();
    bool cancelled = atomic_load(&verify.stopped);
    struct message end = {.frame = {.op = OP_VERIFY_END, .flags = cancelled ? VERIFY_CANCEL : 0}};
    seq = atomic_load(&verify.lost) ? 0 : stream_send(&end, NULL, true);
    while (seq && !atomic_load(&verify.lost) && !stream_wait_applied(seq, 100) && stream_connected()) continue;
    bool lost = atomic_load(&verify.lost) || !seq || !stream_connected();
    atomic_store(&verify.running, false);
    for (struct suspicion *one; (one = take_suspicion());) free(one);
    marks_clear(&verify.seen);
    verify_report_end(cancelled, lost ? "the connection was lost" : "");
    return NULL;
}

static int refuse(struct failure *failure, const char *code, const char *message) {
    snprintf(failure->code, sizeof failure->code, "%s", code);
    snprintf(failure->message, sizeof failure->message, "%s", message);
    return -1;
}

static int begin(unsigned flags, unsigned limit_kbps, struct failure *failure) {
    if (flags & VERIFY_CANCEL) {
        atomic_store(&verify.stopped, true);
        return 0;
    }
    pthread_mutex_lock(&verify.lock);
    int result = 0;
    if (atomic_load(&verify.running)) result = refuse(failure, "busy", "both copies are being compared already");
    else if (stream_answers() != ANSWER_PEER) result = refuse(failure, "state", "only copies that are in mirror can be compared");
    if (!result && verify.joinable) pthread_join(verify.thread, NULL);
    if (!result && !verify_report_begin(flags & VERIFY_METADATA, 0, 0)) result = refuse(failure, "busy", "both copies are being compared already");
    if (!result) {
        verify.flags = flags;
        verify.limit_kbps = limit_kbps;
        atomic_store(&verify.stopped, false);
        atomic_store(&verify.lost, false);
        verify.pieces = 0;
        verify.read = 0;
        memset(verify.piece, 0, sizeof verify.piece);
        verify.joinable = true;
        atomic_store(&verify.running, true);
        if (pthread_create(&verify.thread, NULL, verify_main, NULL)) abort();
    }
    pthread_mutex_unlock(&verify.lock);
    return result;
}

int verify_command(unsigned flags, unsigned limit_kbps, struct failure *failure) {
    const char *role = module_role();
    if (strcmp(role, "primary") == 0) return begin(flags, limit_kbps, failure);
    struct receive_status status;
    receive_get_status(&status);
    if (strcmp(role, "secondary") != 0 || strcmp(status.peer, "mirror") != 0) return refuse(failure, "state", "only copies that are in mirror can be compared");
    if (verify_report_get().running && !(flags & VERIFY_CANCEL)) return refuse(failure, "busy", "both copies are being compared already");
    struct message ask = {.frame = {.op = OP_VERIFY_ASK, .flags = (uint16_t)flags, .valid = limit_kbps}};
    receive_send(&ask);
    return 0;
}

void verify_lost(void) {
    pthread_mutex_lock(&verify.lock);
    atomic_store(&verify.lost, true);
    pthread_mutex_unlock(&verify.lock);
}

void verify_join(void) {
    pthread_mutex_lock(&verify.lock);
    bool joinable = verify.joinable;
    verify.joinable = false;
    pthread_mutex_unlock(&verify.lock);
    if (joinable) pthread_join(verify.thread, NULL);
}
