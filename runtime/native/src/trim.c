// One descriptor for each object that the kernel knows of, and the kernel forgets only when memory is short: long before that a tree of many files
// would leave no descriptor for anything else. So above HIGH per cent of the limit the names of files that nobody has open and nobody asked for
// lately are taken out of the kernel's cache, until LOW per cent are left; the next question for one of them asks us again.
//
// The kernel waits for the directory of such a name; whoever has that directory waits for us. So only the thread of this file asks it, without a lock.
#include "trim.h"
#include "inode.h"
#include "session.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define HIGH 60u
#define LOW 50u
#define HURRY 85u
#define BATCH 256u
#define REST_MS 5

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    pthread_t thread;
    bool runs, ending;
    size_t limit;
} trim = {.lock = PTHREAD_MUTEX_INITIALIZER, .wanted = PTHREAD_COND_INITIALIZER};

static size_t share(unsigned per_cent) { return trim.limit / 100 * per_cent; }

// Asks the kernel to forget the name of a file. Nothing is lost when that does not succeed.
static void forget_name(struct inode *inode) {
    char *path = inode_known_path(inode);
    if (!path || !*path) {
        free(path);
        return;
    }
    char *name = strrchr(path, '/');
    if (name) *name++ = 0;
    struct stat st;
    int fd = openat(inode->directory->root, name ? path : ".", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct inode *parent = fd < 0 ? NULL : inode_get(inode->directory, fd, &st);
    if (parent) {
        session_invalidate_entry(inode->directory, inode_node(parent), name ? name : path);
        inode_forget(parent, 1);
    }
    free(path);
}

static void rest(long milliseconds) {
    struct timespec pause = {.tv_nsec = milliseconds * 1000000};
    nanosleep(&pause, NULL);
}

static void *trim_main(void *unused) {
    (void)unused;
    struct inode *cold[BATCH];
    pthread_mutex_lock(&trim.lock);
    while (!trim.ending) {
        size_t known = inodes_known();
        if (known <= share(HIGH)) {
            pthread_cond_wait(&trim.wanted, &trim.lock);
            continue;
        }
        // What is asked now is forgotten a little later: so much, and no more before it was counted again.
        for (size_t surplus = known - share(LOW); surplus && !trim.ending;) {
            size_t found = inodes_cold(cold, surplus < BATCH ? surplus : BATCH);
            pthread_mutex_unlock(&trim.lock);
            for (size_t i = 0; i < found; i++) {
                forget_name(cold[i]);
                inode_forget(cold[i], 1);
            }
            pthread_mutex_lock(&trim.lock);
            if (!found) break;
            surplus -= found;
        }
        pthread_mutex_unlock(&trim.lock);
        rest(REST_MS);
        pthread_mutex_lock(&trim.lock);
    }
    pthread_mutex_unlock(&trim.lock);
    return NULL;
}

void trim_wanted(void) {
    size_t known = inodes_known();
    if (known < 1024) return; // no limit is so low, and the root directories are made before anything runs
    pthread_mutex_lock(&trim.lock);
    if (!trim.limit) {
        struct rlimit files;
        trim.limit = getrlimit(RLIMIT_NOFILE, &files) ? 1024 : (size_t)files.rlim_cur;
    }
    if (known > share(HIGH)) {
        if (!trim.runs && !trim.ending) trim.runs = pthread_create(&trim.thread, NULL, trim_main, NULL) == 0;
        pthread_cond_signal(&trim.wanted);
    }
    bool hurry = known > share(HURRY);
    pthread_mutex_unlock(&trim.lock);
    if (hurry) rest(1);
}

void trim_stop(void) {
    pthread_mutex_lock(&trim.lock);
    bool runs = trim.runs;
    trim.ending = true;
    pthread_cond_signal(&trim.wanted);
    pthread_mutex_unlock(&trim.lock);
    if (runs) pthread_join(trim.thread, NULL);
    pthread_mutex_lock(&trim.lock);
    trim.runs = trim.ending = false;
    pthread_mutex_unlock(&trim.lock);
}
