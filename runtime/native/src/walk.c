// A queue of directories, as descriptors as long as there are few of them, shared by the threads.
#include "walk.h"
#include "local.h"
#include "marks.h"
#include "frame.h"
#include "select.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES_SIZE (64u << 10)
#define OPEN_LIMIT 4096u // directories that wait with a descriptor; more than that are walked by who found them

struct waiting {
    struct waiting *next;
    const struct directory *directory;
    int fd;
};

struct walk {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct waiting *first;
    unsigned waiting, busy, threads;
    atomic_bool failed;
    walk_visit *visit;
    void *context;
};

struct linux_entry {
    uint64_t ino, off;
    uint16_t size;
    uint8_t type;
    char name[];
};

static void read_directory(struct walk *walk, const struct directory *directory, int fd);

static void go_below(struct walk *walk, const struct directory *directory, int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    if (fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR) atomic_store(&walk->failed, true);
        return;
    }
    pthread_mutex_lock(&walk->lock);
    bool queue = walk->waiting < OPEN_LIMIT;
    if (queue) {
        struct waiting *one = must(malloc(sizeof *one));
        *one = (struct waiting){walk->first, directory, fd};
        walk->first = one;
        walk->waiting++;
        pthread_cond_signal(&walk->changed);
    }
    pthread_mutex_unlock(&walk->lock);
    if (!queue) read_directory(walk, directory, fd);
}

static void read_directory(struct walk *walk, const struct directory *directory, int fd) {
    unsigned char *bytes = must(malloc(ENTRIES_SIZE));
    struct stat st;
    uint64_t key = fstat(fd, &st) ? 0 : mark_key(directory->index, st.st_dev, st.st_ino);
    for (long used; !atomic_load(&walk->failed) && (used = syscall(SYS_getdents64, fd, bytes, ENTRIES_SIZE)) != 0;) {
        if (used < 0) {
            atomic_store(&walk->failed, true);
            break;
        }
        for (long at = 0; at < used && !atomic_load(&walk->failed);) {
            const struct linux_entry *entry = (const struct linux_entry *)(const void *)(bytes + at);
            at += entry->size;
            if (!name_is_entry(entry->name) || fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW)) continue;
            if (select_excludes(directory, fd, entry->name, st.st_mode)) continue;
            if (S_ISDIR(st.st_mode) && st.st_dev != directory->dev) continue;
            struct walked object = {directory, fd, key, entry->name, &st};
            if (!walk->visit(&object, walk->context)) atomic_store(&walk->failed, true);
            else if (S_ISDIR(st.st_mode)) go_below(walk, directory, fd, entry->name);
        }
    }
    free(bytes);
    close(fd);
}

static void *walker(void *argument) {
    struct walk *walk = argument;
    pthread_mutex_lock(&walk->lock);
    for (;;) {
        while (!walk->first && walk->busy) pthread_cond_wait(&walk->changed, &walk->lock);
        struct waiting *one = walk->first;
        if (!one) break; // nobody reads, nothing waits: this was all
        walk->first = one->next;
        walk->waiting--;
        walk->busy++;
        pthread_mutex_unlock(&walk->lock);
        read_directory(walk, one->directory, one->fd);
        free(one);
        pthread_mutex_lock(&walk->lock);
        if (--walk->busy == 0) pthread_cond_broadcast(&walk->changed);
    }
    pthread_mutex_unlock(&walk->lock);
    return NULL;
}

bool walk_trees(unsigned threads, walk_visit *visit, void *context) {
    struct walk walk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .visit = visit, .context = context};
    pthread_t thread[64];
    for (unsigned i = 0; i < options.directories; i++) {
        const struct directory *directory = &options.directory[i];
        struct stat st;
        if (fstat(directory->root, &st)) return false;
        struct walked root = {directory, directory->root, mark_key(i, st.st_dev, st.st_ino), "", &st};
        if (!visit(&root, context)) return false;
        go_below(&walk, directory, directory->root, ".");
    }
    unsigned started = 0;
    while (started + 1 < threads && started < 64 && pthread_create(&thread[started], NULL, walker, &walk) == 0) started++;
    walker(&walk);
    for (unsigned i = 0; i < started; i++) pthread_join(thread[i], NULL);
    return !atomic_load(&walk.failed);
}
