// Finds what may differ: the walk of the trees, of the places where something is marked, and what must be listed before an operation.
#include "resync_inside.h"
#include "listing.h"
#include "local.h"
#include "select.h"
#include "stream.h"
#include "throttle.h"
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define OVERLAYFS_SUPER_MAGIC 0x794c7630

// ---- directories that must be equal ----

void resync_ensure_listed(struct inode *inode) {
    // Its own attributes as well: what is made in it inherits group, set-group-id and default ACL.
    if (!(todo_get(inode->directory->index, inode_key(inode)) & (MARK_LIST | MARK_TREE | MARK_META))) return;
    listing_send(inode);
    // It has no mark any more that would lead a walk to what is marked below it.
    if (!resync.everywhere) resync_moved(inode);
}

void resync_ensure_parents(const struct directory *directory, const char *path) {
    resync_ensure_listed(inode_root(directory->index));
    int at = dup(directory->root);
    char name[NAME_MAX + 1];
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
        int below = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = below;
        struct stat st;
        struct inode *inode = below < 0 ? NULL : inode_get(directory, dup(below), &st);
        if (!inode) continue;
        resync_ensure_listed(inode);
        inode_forget(inode, 1);
    }
    if (at >= 0) close(at);
}

void resync_moved(struct inode *object) {
    uint32_t flags = todo_get(object->directory->index, inode_key(object));
    if (!S_ISDIR(object->type) && !(flags & (MARK_BYTES | MARK_META))) return;
    struct moved *moved = must(malloc(sizeof *moved));
    pthread_mutex_lock(&resync.lock);
    *moved = (struct moved){resync.moved, inode_keep(object)};
    resync.moved = moved;
    pthread_mutex_unlock(&resync.lock);
}

void resync_again(struct inode *file) {
    todo_add(file->directory->index, inode_key(file), MARK_CONTENT);
    stream_unbind(file);
    resync_moved(file);
}

// Where an entry tells the number of another inode than the file itself, of a lower layer for one.
static bool entries_may_lie(int directory) {
    struct statfs about;
    return fstatfs(directory, &about) || about.f_type == OVERLAYFS_SUPER_MAGIC;
}

// This directory; with `whole` what is below it too: what is marked, and everything when the whole tree is walked. A file of which a listing asked is
// left to the answer.
void walk(struct inode *inode, bool whole) {
    pthread_mutex_lock(&resync.lock);
    resync.progress.directories += whole;
    pthread_mutex_unlock(&resync.lock);
    const struct directory *directory = inode->directory;
    if (todo_get(directory->index, inode_key(inode)) & (MARK_LIST | MARK_TREE | MARK_META)) {
        pthread_rwlock_wrlock(&namespace_lock);
        listing_send(inode);
        pthread_rwlock_unlock(&namespace_lock);
        throttle_turn(0, &resync.cancelled);
    }
    DIR *entries = open_entries(inode->fd);
    if (!entries) return;
    bool lie = entries_may_lie(dirfd(entries));
    for (struct dirent *entry; !atomic_load(&resync.cancelled) && (entry = readdir(entries));) {
        struct stat st;
        bool maybe_directory = entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
        if (!name_is_entry(entry->d_name) || (!maybe_directory && entry->d_type != DT_REG) || (!whole && entry->d_type == DT_DIR)) continue;
        if (!maybe_directory || !resync.everywhere) {
            uint32_t flags = todo_get(directory->index, (uint64_t)entry->d_ino);
            if (!flags && lie) {
                // An inode of a lower layer has a key of another kind: ask the file itself.
                if (fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
                flags = todo_get(directory->index, mark_key(directory->index, st.st_dev, st.st_ino));
            }
            if (!flags || (flags & MARK_ASKED && !maybe_directory)) continue;
        }
        int object = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct inode *below = object < 0 ? NULL : inode_get(directory, object, &st);
        if (!below) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) {
            inode_forget(below, 1);
            continue;
        }
        if (S_ISDIR(below->type) && whole) walk(below, true);
        else if (S_ISREG(below->type)) copy_file(below);
        inode_forget(below, 1);
        progress_report();
    }
    closedir(entries);
    if (!whole) return;
    copy_take_answers(false);
    walk_again();
}

// Where a listing found something different.
void walk_again(void) {
    for (struct inode *directory; !atomic_load(&resync.cancelled) && (directory = listing_differing());) {
        walk(directory, false);
        inode_forget(directory, 1);
    }
}

// Where something is marked.
void walk_places(void) {
    for (size_t i = 0; i < resync.todo.places && !atomic_load(&resync.cancelled); i++) {
        struct stat st;
        const struct place *place = &resync.todo.place[i];
        int object = place_open(place);
        struct inode *inode = object < 0 ? NULL : inode_get(&options.directory[place->directory], object, &st);
        if (!inode) continue; // removed: the directory that held it is marked
        char *path = inode_path(inode);
        if (path && S_ISDIR(inode->type)) walk(inode, true);
        free(path);
        inode_forget(inode, 1);
    }
}

// A file of several names below a directory that moved: its other names, wherever they are, must be listed with it. Then, with `marks` complete:
// directories that hold an object of which all names must be listed again.
static void search_links(int object, const struct directory *directory, uint64_t key, struct mark_set *marks, bool below_moved, bool complete) {
    DIR *entries = open_entries(object);
    if (!entries) return;
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct stat st;
        if (!name_is_entry(entry->d_name) || fstatat(dirfd(entries), entry->d_name, &st, AT_SYMLINK_NOFOLLOW)) continue;
        if (select_excludes(directory, dirfd(entries), entry->d_name, st.st_mode)) continue;
        uint64_t mine = mark_key(directory->index, st.st_dev, st.st_ino);
        if (!S_ISDIR(st.st_mode) && !complete && below_moved && st.st_nlink > 1) {
            marks_add(marks, directory->index, mine, MARK_LINKED);
            marks_add(&resync.added.marks, directory->index, mine, MARK_LINKED);
        }
        uint32_t flags = marks_get(marks, directory->index, mine);
        struct place place;
        if (complete && flags & MARK_LINKED && marks_add(&resync.added.marks, directory->index, key, MARK_LIST)) {
            if (place_make(directory->index, object, &place)) dirty_set_place(&resync.added, &place);
            else resync.added.unplaced = true;
        }
        if (!S_ISDIR(st.st_mode) || st.st_dev != directory->dev) continue;
        int below = openat(dirfd(entries), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0) {
            search_links(below, directory, mine, marks, below_moved || flags & MARK_TREE, complete);
            close(below);
        }
    }
    closedir(entries);
}

struct inode *moved_take(void) {
    pthread_mutex_lock(&resync.lock);
    struct moved *moved = resync.moved;
    if (moved) resync.moved = moved->next;
    pthread_mutex_unlock(&resync.lock);
    struct inode *inode = moved ? moved->inode : NULL;
    free(moved);
    return inode;
}

void walk_links(void) {
    struct dirty_set set = {0};
    resync.linked_seen = dirty_linked();
    if (!resync.linked_seen) return;
    dirty_snapshot(&set);
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < options.directories; i++)
            search_links(options.directory[i].root, &options.directory[i], inode_key(inode_root(i)), &set.marks, false, pass == 1);
    }
    dirty_set_clear(&set);
}
