// Makes the secondary equal while applications write.
//
// `todo` holds what may differ; a full resync starts with the roots marked MARK_TREE. The rule:
//  1. From the first frame on every modification is shipped. None is answered by the peer yet, and all are marked dirty as well.
//  2. Before an object is named to the peer, every directory on its path is equal there (listing: names, types, links); before a name changes,
//     its directory is. Whoever needs it sends the listing: the walk, or the operation that came first. A listing is read and enqueued
//     under namespace_lock, so it has one exact place in the stream.
//  3. A file is compared zone by zone. The digest is enqueued under the lock of the file; a zone that differs is read again and enqueued under
//     the same lock. A live write before the digest is in it, one after it arrives after it. Where one zone after the other differs it is sent at once.
// So at the end of the walk everything either was compared at its place in the stream or was changed on both sides by it: both trees are
// equal after the last frame, and an application never waited for more than one zone or one listing.
#include "resync_inside.h"
#include "activity.h"
#include "copied.h"
#include "events.h"
#include "listing.h"
#include "state.h"
#include "stream.h"
#include "throttle.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct resync resync = {.lock = PTHREAD_MUTEX_INITIALIZER, .differing_last = &resync.differing};

bool resync_active(void) { return atomic_load(&resync.active); }

static void mark_everything(uint32_t below) {
    for (unsigned i = 0; i < options.directories; i++) todo_add(i, inode_key(inode_root(i)), MARK_LIST | below);
}

// True when the last walk found nothing to do, and then no later change of a name needs a listing any more.
static bool finished(size_t taken_before) {
    while (!atomic_load(&resync.cancelled) && (copy_asks() || listing_oldest())) {
        copy_take_answers(true);
        walk_again();
    }
    uint64_t last = stream_sequence();
    while (!atomic_load(&resync.cancelled) && !stream_wait_applied(last, 1000)) copy_take_answers(false);
    pthread_rwlock_wrlock(&namespace_lock);
    bool asked = listing_oldest() != 0; // by an operation, since then
    pthread_mutex_lock(&resync.lock);
    bool done = !asked && !resync.moved && !resync.differing && !resync.redo && !resync.again && resync.taken == taken_before;
    resync.again = false;
    if (done) atomic_store(&resync.active, false);
    pthread_mutex_unlock(&resync.lock);
    pthread_rwlock_unlock(&namespace_lock);
    return done;
}

static bool enter_mirror(void) {
    // Marked zones end behind the end of a file, and what is marked may be gone: now it is known how much it was.
    pthread_mutex_lock(&resync.lock);
    resync.progress.bytes_total = resync.progress.bytes_done;
    pthread_mutex_unlock(&resync.lock);
    // What was copied is on both disks before anybody waits for it.
    progress_phase("sync");
    if (stream_barrier(BARRIER_FLUSH, NULL)) return false;
    for (unsigned i = 0; i < options.directories; i++) syncfs(options.directory[i].root);
    progress_phase("barrier");
    char base[BASE_SIZE];
    base_create(base);
    struct moment began = moment_now(); // what is changed from here on is newer
    if (!stream_switch() || stream_barrier(BARRIER_MIRROR, base)) return false;
    for (unsigned i = 0; i < options.directories; i++) syncfs(options.directory[i].root);
    pthread_mutex_lock(&state_lock);
    memcpy(state.base, base, sizeof state.base);
    state.mirrored = began;
    bool saved = state_save() == 0;
    pthread_mutex_unlock(&state_lock);
    if (!saved) {
        stream_lose("the record of this node cannot be written");
        return false;
    }
    if (!stream_enter_mirror()) return false;
    struct progress p = resync_progress();
    say("in mirror: %llu directories read, %llu files compared", (unsigned long long)p.directories, (unsigned long long)p.files_done);
    event_send("in_mirror", (char *)NULL);
    return true;
}

static void *resync_main(void *unused) {
    (void)unused;
    pthread_t counter;
    bool counting = resync.full && pthread_create(&counter, NULL, progress_count, NULL) == 0;
    progress_phase("copy");
    copy_begin();
    throttle_begin();
    size_t taken;
    do {
        pthread_mutex_lock(&resync.lock);
        bool redo = resync.redo;
        resync.redo = false;
        taken = resync.taken;
        pthread_mutex_unlock(&resync.lock);
        if (redo) {
            while (!atomic_load(&resync.cancelled) && (copy_asks() || listing_oldest())) copy_take_answers(true);
            say("the secondary lacked what it should have had: everything is compared");
            pthread_rwlock_wrlock(&namespace_lock);
            resync.full = resync.everywhere = true;
            struct message begin = {.frame = {.op = OP_RESYNC_BEGIN, .flags = FRAME_FULL}};
            stream_send(&begin, NULL, true);
            mark_everything(MARK_TREE);
            pthread_rwlock_unlock(&namespace_lock);
        }
        if (!resync.everywhere) walk_places();
        for (unsigned i = 0; resync.everywhere && i < options.directories && !atomic_load(&resync.cancelled); i++) walk(inode_root(i), true);
        for (struct inode *inode; (inode = moved_take());) {
            if (S_ISDIR(inode->type)) walk(inode, true);
            else if (S_ISREG(inode->type)) copy_file(inode);
            inode_forget(inode, 1);
        }
    } while (!atomic_load(&resync.cancelled) && !finished(taken));
    copied_close(!atomic_load(&resync.cancelled) && enter_mirror());
    throttle_end();
    copy_forget();
    for (struct inode *inode; (inode = moved_take());) inode_forget(inode, 1);
    listing_forget();
    progress_phase("");
    if (counting) pthread_join(counter, NULL);
    return NULL;
}

// ---- from outside ----

void resync_prepare(bool full, bool doubtful, bool resumes) {
    resync.doubtful = doubtful || resumes;
    resync.resumes = resumes;
    dirty_set_clear(&resync.added);
    resync.full = full;
    if (!full) walk_links();
}

// Nothing runs that modifies. What the secondary counts from is of no use any more: from here on the dirty set says what was changed since this copy
// began, and the copy is remembered under the name of that base.
static void begin_copy(void) {
    pthread_mutex_lock(&state_lock);
    base_create(state.base);
    bool saved = state_save() == 0;
    pthread_mutex_unlock(&state_lock);
    dirty_restart();
    dirty_track();
    activity_rebase();
    if (saved) copied_begin();
    else copied_close(true);
}

void resync_arm(void) {
    dirty_set_clear(&resync.todo);
    listing_forget();
    resync.redo = resync.again = false;
    copy_forget();
    while (resync.differing) {
        struct differing *next = resync.differing->next;
        free(resync.differing);
        resync.differing = next;
    }
    resync.differing_last = &resync.differing;
    // A link that was made after the search for links: everything, rather than a second search.
    if (!resync.full && (!dirty_usable() || dirty_linked() != resync.linked_seen)) resync.full = true;
    if (resync.full && !(resync.resumes && dirty_usable())) {
        begin_copy();
        mark_everything(MARK_TREE);
    } else if (resync.full) {
        dirty_snapshot(&resync.todo);
        mark_everything(MARK_COPIED);
    } else {
        dirty_snapshot(&resync.todo);
        for (size_t i = 0; i < resync.added.marks.size; i++) {
            const struct mark *mark = &resync.added.marks.slot[i];
            if (mark->flags & MARK_ANY) marks_add(&resync.todo.marks, mark->directory, mark->key, mark->flags & MARK_ANY);
        }
        for (size_t i = 0; i < resync.added.places; i++) dirty_set_place(&resync.todo, &resync.added.place[i]);
    }
    resync.everywhere = resync.full || resync.todo.unplaced || resync.added.unplaced;
    resync.mirrored = state_mirrored_at();
    struct progress progress = {.phase = resync.full ? "scan" : "copy", .files_total = resync.full ? 0 : dirty_count(), .bytes_total = resync.full ? 0 : dirty_bytes()};
    pthread_mutex_lock(&resync.lock); // somebody may ask at this moment
    resync.began = now_ms();
    resync.progress = progress;
    pthread_mutex_unlock(&resync.lock);
    atomic_store(&resync.cancelled, false);
    struct message begin = {.frame = {.op = OP_RESYNC_BEGIN, .flags = resync.full ? FRAME_FULL : 0}, .name = resync.full ? state.base : NULL};
    stream_send(&begin, NULL, true);
    atomic_store(&resync.active, true);
}

int resync_run(void) {
    int error = pthread_create(&resync.thread, NULL, resync_main, NULL);
    resync.running = !error;
    return error;
}

void resync_cancel(void) {
    atomic_store(&resync.cancelled, true);
    atomic_store(&resync.active, false);
}

void resync_join(void) {
    if (resync.running) pthread_join(resync.thread, NULL);
    resync.running = false;
}

void resync_answer(const struct message *message) {
    if (message->frame.op == OP_LIST_DIFFERS) {
        listing_answer(message);
        return;
    }
    char kind;
    unsigned directory;
    unsigned long long key;
    bool created = message->frame.op == OP_CREATED;
    // Names that share an inode ('l') may lie anywhere: everything is compared rather than searched for.
    if (created && resync.doubtful && message->name && sscanf(message->name, "%c %u %llu", &kind, &directory, &key) == 3 && kind != 'l' && directory < options.directories) {
        uint32_t flags = kind == 'd' ? MARK_LIST | MARK_TREE : MARK_CONTENT;
        dirty_touch(&(struct touch){directory, flags, key, 0, 0});
        pthread_mutex_lock(&resync.lock);
        marks_add(&resync.todo.marks, directory, key, flags);
        resync.again = true;
        pthread_mutex_unlock(&resync.lock);
        return;
    }
    pthread_mutex_lock(&resync.lock);
    if (created) {
        copied_forget(); // what it was said to have it does not have
        resync.redo = true;
    } else {
        struct differing *one = must(malloc(sizeof *one));
        *one = (struct differing){NULL, message->frame.seq};
        *resync.differing_last = one;
        resync.differing_last = &one->next;
    }
    pthread_mutex_unlock(&resync.lock);
}

bool resync_has_answers(void) {
    pthread_mutex_lock(&resync.lock);
    bool some = resync.differing != NULL;
    pthread_mutex_unlock(&resync.lock);
    return some;
}
