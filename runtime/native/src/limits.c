// See limits.h. The properties of a file system are tried on a file without a name, which leaves no trace. Owners are looked up in the files of this
// node (/etc/passwd, /etc/group): what a directory service knows is the same on both nodes, and asking one could take longer than a handshake may.
#include "limits.h"
#include "events.h"
#include "local.h"
#include "module.h"
#include "select.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OWNERS 64u
#define OWNER_SCAN_ENTRIES 2000u
#define OWNER_SCAN_MS 100
#define WATCH_S 5
#define CLOCK_NS 1000000000ll
#define SAID 64u

// ---- what this node is ----

struct file_system {
    char type[24];
    uint64_t size, free, used, inodes, inodes_free; // bytes; what root may use
    int attributes, lists, holes, folds, large, nanoseconds; // 1: yes, 0: no, -1: not known
    unsigned name_max;
};

static const char *type_name(uint64_t type, char number[24]) {
    static const struct {
        uint64_t magic;
        const char *name;
    } known[] = {{0xEF53, "ext4"}, {0x58465342, "xfs"}, {0x9123683E, "btrfs"}, {0x01021994, "tmpfs"}, {0x794C7630, "overlay"}, {0x6969, "nfs"}, {0x2FC12FC1, "zfs"},
                 {0xF2F52010, "f2fs"}, {0x4D44, "vfat"}, {0x2011BAB0, "exfat"}, {0x65735546, "fuse"}, {0x5346544E, "ntfs"}, {0x52654973, "reiserfs"}, {0x3153464A, "jfs"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].magic == type) return known[i].name;
    }
    snprintf(number, 24, "0x%llx", (unsigned long long)type);
    return number;
}

static void try_on_a_file(int root, struct file_system *fs) {
    int file = openat(root, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (file < 0) return;
    struct timespec times[2] = {{0, UTIME_OMIT}, {1000000000, 123456789}};
    struct stat st;
    fs->attributes = fsetxattr(file, "user.safekit", "1", 1, 0) == 0 || errno == ENOSPC;
    char value[8];
    fs->lists = fgetxattr(file, "system.posix_acl_access", value, sizeof value) >= 0 || errno == ENODATA;
    fs->holes = ftruncate(file, 1 << 20) == 0 && fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536) == 0;
    fs->large = ftruncate(file, 8ll << 40) == 0; // 8 TiB
    fs->nanoseconds = futimens(file, times) == 0 && fstat(file, &st) == 0 && st.st_mtim.tv_nsec == 123456789;
    close(file);
}

static struct file_system look(const struct directory *directory) {
    struct file_system fs = {.attributes = -1, .lists = -1, .holes = -1, .large = -1, .nanoseconds = -1};
    struct statfs st;
    struct statvfs sv;
    char number[24];
    int flags = 0;
    if (fstatfs(directory->root, &st) || fstatvfs(directory->root, &sv)) return fs;
    snprintf(fs.type, sizeof fs.type, "%s", type_name((uint64_t)(uint32_t)st.f_type, number));
    fs.size = sv.f_blocks * sv.f_frsize;
    fs.free = sv.f_bfree * sv.f_frsize;
    fs.used = fs.size - fs.free;
    fs.inodes = sv.f_files;
    fs.inodes_free = sv.f_ffree;
    fs.name_max = (unsigned)sv.f_namemax;
    fs.folds = (ioctl(directory->root, FS_IOC_GETFLAGS, &flags) == 0 && flags & FS_CASEFOLD_FL) || strcmp(fs.type, "vfat") == 0 || strcmp(fs.type, "exfat") == 0;
    try_on_a_file(directory->root, &fs);
    return fs;
}

static void put_file_system(char *text, size_t size, unsigned index, const struct file_system *fs) {
    size_t used = strlen(text);
    snprintf(text + used, size - used, "fs%u=%s %llu %llu %llu %llu %llu %d %d %d %d %d %d %u\n", index, fs->type, (unsigned long long)fs->size, (unsigned long long)fs->free,
             (unsigned long long)fs->used, (unsigned long long)fs->inodes, (unsigned long long)fs->inodes_free, fs->attributes, fs->lists, fs->holes, fs->folds, fs->large,
             fs->nanoseconds, fs->name_max);
}

static const char *line_of(const char *text, const char *key) {
    size_t size = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, key, size) == 0 && line[size] == '=') return line + size + 1;
    }
    return NULL;
}

static bool get_file_system(const char *text, unsigned index, struct file_system *fs) {
    char key[16];
    unsigned long long size, free_bytes, used, inodes, inodes_free;
    snprintf(key, sizeof key, "fs%u", index);
    const char *line = line_of(text, key);
    *fs = (struct file_system){0};
    if (!line || sscanf(line, "%23s %llu %llu %llu %llu %llu %d %d %d %d %d %d %u", fs->type, &size, &free_bytes, &used, &inodes, &inodes_free, &fs->attributes, &fs->lists,
                        &fs->holes, &fs->folds, &fs->large, &fs->nanoseconds, &fs->name_max) != 13)
        return false;
    fs->size = size;
    fs->free = free_bytes;
    fs->used = used;
    fs->inodes = inodes;
    fs->inodes_free = inodes_free;
    return true;
}

// ---- owners ----

struct owners {
    unsigned user[OWNERS], group[OWNERS];
    size_t users, groups;
    unsigned entries;
    int64_t until;
};

static void add(unsigned *list, size_t *count, unsigned id) {
    for (size_t i = 0; i < *count; i++) {
        if (list[i] == id) return;
    }
    if (*count < OWNERS) list[(*count)++] = id;
}

// The upper part of a tree is enough to learn whose it is, and a large tree must not delay a connection.
static void scan_owners(struct owners *owners, const struct directory *directory, int object, unsigned depth) {
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY | O_NOATIME);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries && fd >= 0) close(fd);
    if (!entries) return;
    for (struct dirent *entry; owners->entries < OWNER_SCAN_ENTRIES && (owners->entries % 64 || now_ms() < owners->until) && (entry = readdir(entries));) {
        struct stat st;
        owners->entries++;
        if (!name_is_entry(entry->d_name) || fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || select_excludes(directory, fd, entry->d_name, st.st_mode)) continue;
        add(owners->user, &owners->users, st.st_uid);
        add(owners->group, &owners->groups, st.st_gid);
        if (!S_ISDIR(st.st_mode) || st.st_dev != directory->dev || depth == 0) continue;
        int below = openat(fd, entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0) {
            scan_owners(owners, directory, below, depth - 1);
            close(below);
        }
    }
    closedir(entries);
}

static bool name_is_plain(const char *name) { return *name && !strpbrk(name, " \n:,"); }

// The name of a number, or the number of a name, in the files of this node.
static bool name_of(bool group, unsigned id, char *name, size_t size) {
    FILE *file = fopen(group ? "/etc/group" : "/etc/passwd", "re");
    bool found = false;
    while (file && !found) {
        const struct passwd *user = group ? NULL : fgetpwent(file);
        const struct group *one = group ? fgetgrent(file) : NULL;
        if (!user && !one) break;
        found = user ? user->pw_uid == id : one->gr_gid == id;
        if (found) snprintf(name, size, "%s", user ? user->pw_name : one->gr_name);
    }
    if (file) fclose(file);
    return found && name_is_plain(name);
}

static bool number_of(bool group, const char *name, unsigned *id) {
    FILE *file = fopen(group ? "/etc/group" : "/etc/passwd", "re");
    bool found = false;
    while (file && !found) {
        const struct passwd *user = group ? NULL : fgetpwent(file);
        const struct group *one = group ? fgetgrent(file) : NULL;
        if (!user && !one) break;
        found = strcmp(user ? user->pw_name : one->gr_name, name) == 0;
        if (found) *id = user ? user->pw_uid : one->gr_gid;
    }
    if (file) fclose(file);
    return found;
}

static void put_owners(char *text, size_t size, const char *key, bool group, const unsigned *ids, size_t count) {
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, size - used, "%s=", key);
    for (size_t i = 0; i < count && used + 300 < size; i++) {
        char name[256];
        if (name_of(group, ids[i], name, sizeof name)) used += (size_t)snprintf(text + used, size - used, "%u:%s,", ids[i], name);
    }
    snprintf(text + used, size - used, "\n");
}

// Of each `number:name` that the primary uses: what the number is called here, and which number the name has here.
static void answer_owners(const char *asked, char *text, size_t size, const char *key, bool group) {
    const char *line = line_of(asked, key);
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, size - used, "%s=", key);
    while (line && *line && *line != '\n' && used + 600 < size) {
        unsigned id, mine = 0;
        char name[256], called[256] = "";
        int eaten = 0;
        if (sscanf(line, "%u:%255[^,\n],%n", &id, name, &eaten) != 2 || !eaten) break;
        line += eaten;
        bool known = number_of(group, name, &mine);
        if (known && mine == id) continue;
        if (!name_of(group, id, called, sizeof called)) called[0] = 0;
        char number[16] = "-";
        if (known) snprintf(number, sizeof number, "%u", mine);
        used += (size_t)snprintf(text + used, size - used, "%u:%s:%s:%s,", id, name, number, *called ? called : "-");
    }
    snprintf(text + used, size - used, "\n");
}

// ---- the exchange ----

static void put_clock(char *text, size_t size) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    size_t used = strlen(text);
    snprintf(text + used, size - used, "clock=%lld\n", (long long)t.tv_sec * CLOCK_NS + t.tv_nsec);
}

static void put_file_systems(char *text, size_t size) {
    text[0] = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        struct file_system fs = look(&options.directory[i]);
        if (*fs.type) put_file_system(text, size, i, &fs);
    }
}

void limits_ask(char *text, size_t size) {
    struct owners owners = {.until = now_ms() + OWNER_SCAN_MS};
    put_file_systems(text, size);
    for (unsigned i = 0; i < options.directories; i++) scan_owners(&owners, &options.directory[i], options.directory[i].root, 8);
    put_owners(text, size, "users", false, owners.user, owners.users);
    put_owners(text, size, "groups", true, owners.group, owners.groups);
    put_clock(text, size);
}

void limits_answer(const char *asked, char *text, size_t size) {
    put_file_systems(text, size);
    answer_owners(asked, text, size, "users", false);
    answer_owners(asked, text, size, "groups", true);
    put_clock(text, size);
}

// ---- judging ----

static struct {
    pthread_mutex_t lock;
    uint64_t said[SAID], now[SAID]; // sentences, by their digest: before, and in this round
    size_t said_count, now_count;
} warnings = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void warn(const char *code, const char *subject, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void warn(const char *code, const char *subject, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    uint64_t key = fnv64(code, strlen(code)) * 31 + fnv64(subject, strlen(subject)); // figures change, the trouble is the same
    bool known = false;
    for (size_t i = 0; i < warnings.said_count; i++) known = known || warnings.said[i] == key;
    if (warnings.now_count < SAID) warnings.now[warnings.now_count++] = key;
    if (known) return;
    say("%s", message);
    event_send("warning", "code", code, "message", message, (char *)NULL);
}

static double gib(uint64_t bytes) { return (double)bytes / (1 << 30); }

static unsigned percent_free(const struct file_system *fs) { return fs->size ? (unsigned)(fs->free * 100 / fs->size) : 100; }

static void judge_space(const char *name, const struct file_system *mine, const struct file_system *theirs) {
    if (theirs->size < mine->used)
        warn("peer_space", name, "%s: the file system of the other node has %.1f GiB, and %.1f GiB are used here: the copy does not fit", name, gib(theirs->size), gib(mine->used));
    else if (mine->used > theirs->used && mine->used - theirs->used > theirs->free)
        warn("peer_space", name, "%s: the other node has %.1f GiB free, and may need %.1f GiB more to be equal", name, gib(theirs->free), gib(mine->used - theirs->used));
    else if (percent_free(theirs) < 10 && theirs->free < mine->free)
        warn("peer_space", name, "%s: the disk of the other node is fuller than this one: %u %% free there, %u %% here; when it is full that node stops being the secondary", name,
             percent_free(theirs), percent_free(mine));
    if (theirs->inodes && mine->inodes && theirs->inodes_free < mine->inodes_free && theirs->inodes_free * 20 < theirs->inodes)
        warn("peer_inodes", name, "%s: the other node has room for %llu more files only", name, (unsigned long long)theirs->inodes_free);
}

static void judge_features(const char *name, const struct file_system *mine, const struct file_system *theirs) {
    const struct {
        const char *what;
        bool lacks;
    } features[] = {
        {"extended attributes", mine->attributes == 1 && theirs->attributes == 0},
        {"access control lists", mine->lists == 1 && theirs->lists == 0},
        {"holes in files", mine->holes == 1 && theirs->holes == 0},
        {"files of 8 TiB", mine->large == 1 && theirs->large == 0},
        {"times in nanoseconds", mine->nanoseconds == 1 && theirs->nanoseconds == 0},
        {"names of the same length", theirs->name_max < mine->name_max},
        {"names that differ in upper and lower case", !mine->folds && theirs->folds},
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        char subject[512];
        snprintf(subject, sizeof subject, "%.400s %s", name, features[i].what);
        if (features[i].lacks)
            warn("peer_file_system", subject, "%s: the file system of the other node (%s) does not have what this one (%s) has: %s", name, theirs->type, mine->type, features[i].what);
    }
}

static void judge_owners(const char *answered, const char *key, const char *kind) {
    const char *line = line_of(answered, key);
    while (line && *line && *line != '\n') {
        unsigned id;
        char name[256], number[16], called[256], subject[600];
        int eaten = 0;
        if (sscanf(line, "%u:%255[^:]:%15[^:]:%255[^,],%n", &id, name, number, called, &eaten) != 4 || !eaten) return;
        line += eaten;
        snprintf(subject, sizeof subject, "%s %u", kind, id);
        if (strcmp(number, "-") != 0)
            warn("owners", subject, "%s %s has number %u on this node and number %s on the other: owners are replicated as numbers", kind, name, id, number);
        else if (strcmp(called, "-") != 0)
            warn("owners", subject, "number %u is %s %s on this node and %s %s on the other: owners are replicated as numbers", id, kind, name, kind, called);
        else
            warn("owners", subject, "%s %s (number %u) owns files here and does not exist on the other node", kind, name, id);
    }
}

static void judge_clock(const char *asked, const char *answered) {
    const char *mine = line_of(asked, "clock"), *theirs = line_of(answered, "clock");
    if (!mine || !theirs) return;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    long long sent = atoll(mine), there = atoll(theirs), now = (long long)t.tv_sec * CLOCK_NS + t.tv_nsec;
    // It was read somewhere between the question and its answer.
    long long difference = there > now ? there - now : sent > there ? sent - there : 0;
    if (difference > CLOCK_NS)
        warn("clock", "clock", "the clock of the other node is %.1f s %s this one's: logs and times of files will not agree", (double)difference / CLOCK_NS, there > now ? "ahead of" : "behind");
}

void limits_judge(const char *asked, const char *answered) {
    pthread_mutex_lock(&warnings.lock);
    warnings.now_count = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        struct file_system mine, theirs;
        if (!get_file_system(asked, i, &mine) || !get_file_system(answered, i, &theirs)) continue;
        judge_space(options.directory[i].name, &mine, &theirs);
        judge_features(options.directory[i].name, &mine, &theirs);
    }
    judge_owners(answered, "users", "user");
    judge_owners(answered, "groups", "group");
    judge_clock(asked, answered);
    memcpy(warnings.said, warnings.now, sizeof warnings.said);
    warnings.said_count = warnings.now_count;
    pthread_mutex_unlock(&warnings.lock);
}

// ---- one node ----

static void watch_space(void) {
    static bool said[DIRECTORY_LIMIT];
    for (unsigned i = 0; i < options.directories; i++) {
        struct statvfs st;
        if (options.directory[i].root < 0 || fstatvfs(options.directory[i].root, &st) || !st.f_blocks) continue;
        unsigned left = (unsigned)(st.f_bavail * 100 / st.f_blocks);
        if (left >= 7) said[i] = false; // said once on the way down
        if (left >= 5 || said[i]) continue;
        said[i] = true;
        char message[512];
        bool secondary = strcmp(module_role(), "secondary") == 0;
        snprintf(message, sizeof message, "%.200s: the file system is nearly full, %.2f GiB are left%s", options.directory[i].name, gib(st.f_bavail * st.f_frsize),
                 secondary ? "; when nothing is left this node stops being the secondary" : "");
        say("%s", message);
        event_send("warning", "code", "disk_space", "message", message, (char *)NULL);
    }
}

static void *watch_main(void *unused) {
    (void)unused;
    for (;;) {
        struct timespec pause = {.tv_sec = WATCH_S};
        nanosleep(&pause, NULL);
        module_with_directories(watch_space);
    }
    return NULL;
}

void limits_begin(void) {
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128u << 10);
    if (pthread_create(&thread, &small, watch_main, NULL) == 0) pthread_detach(thread);
    pthread_attr_destroy(&small);
}
