// How far a resynchronisation is, and how much there is to do.
#include "resync_inside.h"
#include "copied.h"
#include "events.h"
#include "local.h"
#include "select.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void progress_report(void) {
    static int64_t reported;
    int64_t now = now_ms();
    if (now - reported < 1000) return;
    reported = now;
    struct progress p = resync_progress();
    char numbers[6][24];
    uint64_t values[5] = {p.files_done, p.files_total, p.bytes_done, p.bytes_total, p.rate};
    for (int i = 0; i < 5; i++) snprintf(numbers[i], sizeof numbers[i], "%llu", (unsigned long long)values[i]);
    snprintf(numbers[5], sizeof numbers[5], "%lld", (long long)p.eta);
    event_send("resync_progress", "phase", p.phase, "files_done", numbers[0], "files_total", numbers[1], "bytes_done", numbers[2], "bytes_total",
               numbers[3], "rate_bps", numbers[4], "eta_s", numbers[5], (char *)NULL);
}

static void count(int object, const struct directory *directory) {
    DIR *entries = open_entries(object);
    if (!entries) return;
    for (struct dirent *entry; !atomic_load(&resync.cancelled) && (entry = readdir(entries));) {
        struct stat st;
        if (!name_is_entry(entry->d_name) || fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) continue;
        if (S_ISREG(st.st_mode)) {
            uint64_t size = (uint64_t)st.st_size, upto = 0;
            bool known = resync.resumes && st.st_nlink == 1 && copied_have(directory->index, mark_key(directory->index, st.st_dev, st.st_ino), &upto);
            pthread_mutex_lock(&resync.lock);
            resync.progress.files_total++;
            resync.progress.bytes_total += size;
            resync.progress.files_done += known && upto == COPIED_WHOLE;
            if (known) resync.progress.bytes_done += upto < size ? upto : size;
            pthread_mutex_unlock(&resync.lock);
        } else if (S_ISDIR(st.st_mode) && st.st_dev == directory->dev) {
            int below = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                count(below, directory);
                close(below);
            }
        }
    }
    closedir(entries);
}

// Beside the comparison, which does not wait for it.
void *progress_count(void *unused) {
    (void)unused;
    for (unsigned i = 0; i < options.directories; i++) count(options.directory[i].root, &options.directory[i]);
    return NULL;
}

void progress_phase(const char *phase) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.phase = phase;
    pthread_mutex_unlock(&resync.lock);
}

struct progress resync_progress(void) {
    pthread_mutex_lock(&resync.lock);
    struct progress progress = resync.progress;
    int64_t elapsed = now_ms() - resync.began;
    pthread_mutex_unlock(&resync.lock);
    if (!progress.phase) progress.phase = "";
    // What is compared again because it changed meanwhile, or was found on the way, was in no total.
    if (progress.bytes_total < progress.bytes_done) progress.bytes_total = progress.bytes_done;
    if (progress.files_total < progress.files_done) progress.files_total = progress.files_done;
    progress.rate = elapsed > 0 ? progress.bytes_done * 1000 / (uint64_t)elapsed : 0;
    progress.eta = -1;
    if (progress.rate && progress.bytes_total >= progress.bytes_done) progress.eta = (int64_t)((progress.bytes_total - progress.bytes_done) / progress.rate);
    return progress;
}
