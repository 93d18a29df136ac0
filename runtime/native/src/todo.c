// What a resynchronisation has still to do: which objects may differ.
#include "resync_inside.h"
#include "local.h"
#include <fcntl.h>
#include <unistd.h>

#define YOUNG_GRACE_S 3600 // for clocks that differ (spec 4.9.2-3)

uint32_t todo_get(unsigned directory, uint64_t key) {
    pthread_mutex_lock(&resync.lock);
    uint32_t flags = marks_get(&resync.todo.marks, directory, key);
    pthread_mutex_unlock(&resync.lock);
    return flags;
}

uint32_t todo_take(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    uint32_t taken = marks_take(&resync.todo.marks, directory, key, flags);
    resync.taken += taken != 0;
    pthread_mutex_unlock(&resync.lock);
    return taken;
}

void todo_add(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    marks_add(&resync.todo.marks, directory, key, flags);
    pthread_mutex_unlock(&resync.lock);
}

uint32_t todo_mark(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    if (flags) marks_add(&resync.todo.marks, directory, key, flags);
    flags = marks_get(&resync.todo.marks, directory, key);
    pthread_mutex_unlock(&resync.lock);
    return flags;
}

void todo_drop(unsigned directory, uint64_t key, uint32_t flags) {
    pthread_mutex_lock(&resync.lock);
    marks_take(&resync.todo.marks, directory, key, flags);
    pthread_mutex_unlock(&resync.lock);
}

void todo_done(uint64_t files) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.files_done += files;
    pthread_mutex_unlock(&resync.lock);
}

bool resync_is_full(void) { return resync.full; }

bool resync_is_young(const struct stat *st) {
    if (st->st_ctim.tv_sec < resync.todo.since - YOUNG_GRACE_S) return false;
    return (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec >= resync.mirrored;
}

DIR *open_entries(int object) {
    int fd = local_reopen(object, O_RDONLY | O_DIRECTORY);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries && fd >= 0) close(fd);
    return entries;
}

void describe(struct frame *frame, const struct stat *st) {
    frame->mode = st->st_mode;
    frame->uid = st->st_uid;
    frame->gid = st->st_gid;
    frame->rdev = st->st_rdev;
    frame->mtime_s = st->st_mtim.tv_sec;
    frame->mtime_n = (uint32_t)st->st_mtim.tv_nsec;
}

void todo_rest(unsigned directory, uint64_t key, uint64_t from, uint64_t size) {
    pthread_mutex_lock(&resync.lock);
    zones_add(&resync.todo.zones, directory, key, zone_of(from), zone_of(size - 1));
    marks_add(&resync.todo.marks, directory, key, MARK_ZONES | MARK_REST);
    pthread_mutex_unlock(&resync.lock);
}
