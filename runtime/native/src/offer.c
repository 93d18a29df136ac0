// Both ends of an offer. The target looks for what its log names in the directories where it lies; the source for the same paths. What has another
// name on one side is found all the same: a directory that got or lost a name is itself in the log of the side where that happened.
#include "offer.h"
#include "frame.h"
#include "local.h"
#include "select.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRY_LIMIT (4u << 20)
#define LAST 0xffffu

struct entry {
    uint16_t directory, path_size; // LAST: no more, `flags` says whether this was all
    uint32_t flags;
    uint64_t offset, size;
    int64_t since;
};
_Static_assert(sizeof(struct entry) == 32, "no padding on the wire");

struct sending {
    struct link *link;
    const struct dirty_set *set;
};

static bool put_entry(const struct sending *to, unsigned directory, const char *path, uint32_t flags, uint64_t offset, uint64_t size) {
    struct entry entry = {(uint16_t)directory, (uint16_t)strlen(path), flags, offset, size, to->set->since};
    return link_put(to->link, &entry, sizeof entry) && link_put(to->link, path, entry.path_size);
}

static bool put_object(const struct sending *to, unsigned directory, uint64_t key, const char *path, uint32_t flags) {
    if (!put_entry(to, directory, path, flags & ~(MARK_HEAD | MARK_ZONES), 0, 0)) return false;
    if (flags & MARK_CONTENT) return true;
    if (flags & MARK_HEAD && !put_entry(to, directory, path, MARK_META, 0, zone_start(1))) return false;
    // No zone is beyond this: a file cannot be larger.
    uint64_t end = flags & MARK_ZONES ? zone_of(16ull << 40) : 0;
    for (uint64_t zone = 0; (zone = zones_next(&to->set->zones, directory, key, zone, end)) != NO_ZONE;) {
        uint64_t first = zone;
        while (zone < end && zones_have(&to->set->zones, directory, key, zone, zone)) zone++;
        if (!put_entry(to, directory, path, MARK_META, zone_start(first), zone_start(zone) - zone_start(first))) return false;
    }
    return true;
}

// The path of a directory inside its replicated directory, in `path` of PATH_MAX bytes. False: it is not there any more.
static bool path_of(const struct directory *directory, int object, char *path) {
    char root[PATH_MAX];
    ssize_t root_size = readlink(proc_path(directory->root).text, root, sizeof root), size = readlink(proc_path(object).text, path, PATH_MAX - 1);
    if (root_size < 0 || size < 0) return false;
    path[size] = 0;
    if (root_size == 1) root_size = 0;
    if (size < root_size || strncmp(path, root, (size_t)root_size) != 0 || (path[root_size] && path[root_size] != '/')) return false;
    const char *inside = path + root_size;
    while (*inside == '/') inside++;
    memmove(path, inside, strlen(inside) + 1);
    return true;
}

// What is marked of a directory and of its entries; with `below` of the whole tree under it.
static bool put_directory(const struct sending *to, const struct directory *directory, int fd, const char *path, bool below) {
    struct stat st;
    bool sent = true;
    DIR *entries = fdopendir(fd);
    if (!entries) {
        close(fd);
        return true;
    }
    if (fstat(fd, &st) == 0) {
        uint64_t key = mark_key(directory->index, st.st_dev, st.st_ino);
        uint32_t flags = marks_get(&to->set->marks, directory->index, key);
        if (flags) sent = put_object(to, directory->index, key, path, flags);
    }
    for (struct dirent *entry; sent && (entry = readdir(entries));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || select_excludes(directory, fd, entry->d_name, st.st_mode)) continue;
        uint64_t key = mark_key(directory->index, st.st_dev, st.st_ino);
        uint32_t flags = marks_get(&to->set->marks, directory->index, key);
        bool deeper = below && S_ISDIR(st.st_mode) && st.st_dev == directory->dev;
        if (!flags && !deeper) continue;
        char *name = NULL;
        if (asprintf(&name, "%s%s%s", path, *path ? "/" : "", entry->d_name) < 0) abort();
        int inside = deeper && strlen(name) < PATH_MAX ? openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
        if (inside >= 0) sent = put_directory(to, directory, inside, name, true);
        else if (strlen(name) < PATH_MAX && flags) sent = put_object(to, directory->index, key, name, flags);
        free(name);
    }
    closedir(entries);
    return sent;
}

static bool put_place(const struct sending *to, const struct place *place) {
    const struct directory *directory = &options.directory[place->directory];
    char path[PATH_MAX];
    int object = place_open(place);
    if (object < 0) return true; // removed: the directory that held it is in the log as well
    int fd = path_of(directory, object, path) ? local_reopen(object, O_RDONLY | O_DIRECTORY) : -1;
    close(object);
    return fd < 0 || put_directory(to, directory, fd, path, false);
}

// Where nobody could say where it lies.
static bool put_tree(const struct sending *to, const struct directory *directory) {
    int fd = openat(directory->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || put_directory(to, directory, fd, "", true);
}

bool offer_send(struct link *link) {
    struct dirty_set set = {0};
    struct sending to = {link, &set};
    bool whole = dirty_offer(&set), sent = true;
    for (unsigned i = 0; whole && set.unplaced && sent && i < options.directories; i++) sent = put_tree(&to, &options.directory[i]);
    for (size_t i = 0; whole && !set.unplaced && sent && i < set.places; i++) sent = put_place(&to, &set.place[i]);
    struct entry last = {LAST, 0, whole, 0, 0, 0};
    sent = sent && link_put(link, &last, sizeof last);
    dirty_set_clear(&set);
    return sent;
}

// An object of this node by its path; no symbolic link on the way is followed. `parent` gets the directory that holds it.
static int open_path(const struct directory *directory, const char *path, int *parent) {
    int at = openat(directory->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    *parent = -1;
    while (at >= 0 && *path) {
        char name[NAME_MAX + 1];
        size_t size = strcspn(path, "/");
        if (size > NAME_MAX) break;
        memcpy(name, path, size);
        name[size] = 0;
        path += size + (path[size] == '/');
        if (*parent >= 0) close(*parent);
        *parent = at;
        at = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    }
    return at;
}

static void take_entry(struct dirty_set *set, const struct entry *entry, const char *path) {
    const struct directory *directory = &options.directory[entry->directory];
    struct stat st;
    struct place place;
    int parent, object = open_path(directory, path, &parent);
    if (object >= 0 && local_stat(object, &st) == 0 && (!S_ISDIR(st.st_mode) || st.st_dev == directory->dev)) {
        uint64_t key = mark_key(directory->index, st.st_dev, st.st_ino);
        uint32_t flags = entry->flags & MARK_ANY;
        if (entry->size) {
            uint64_t first = zone_of(entry->offset), last = zone_of(entry->offset + entry->size - 1);
            zones_add(&set->zones, directory->index, key, first, last);
            flags |= MARK_ZONES | (first == 0 ? MARK_HEAD : 0);
        }
        if (!S_ISDIR(st.st_mode)) flags &= ~(MARK_LIST | MARK_TREE | MARK_YOUNG);
        if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) flags |= MARK_META;
        marks_add(&set->marks, directory->index, key, flags ? flags : MARK_META);
        if (!place_make(directory->index, S_ISDIR(st.st_mode) || parent < 0 ? object : parent, &place)) set->unplaced = true;
        else dirty_set_place(set, &place);
        if (parent >= 0 && S_ISDIR(st.st_mode) && place_make(directory->index, parent, &place)) dirty_set_place(set, &place);
    }
    if (object >= 0) close(object);
    if (parent >= 0) close(parent);
    if (entry->since && (!set->since || entry->since < set->since)) set->since = entry->since;
}

bool offer_receive(struct link *link, struct dirty_set *set, bool *whole) {
    char path[PATH_MAX];
    struct entry entry;
    for (unsigned entries = 0; entries < ENTRY_LIMIT; entries++) {
        if (!link_get(link, &entry, sizeof entry)) return false;
        if (entry.directory == LAST) {
            *whole = entry.flags == 1;
            return true;
        }
        if (entry.directory >= options.directories || entry.path_size >= sizeof path || !link_get(link, path, entry.path_size)) return false;
        path[entry.path_size] = 0;
        if (entry.size && entry.offset + entry.size < entry.offset) return false;
        if (entry.size > 1ull << 50 || entry.offset > 1ull << 50) entry = (struct entry){entry.directory, entry.path_size, MARK_CONTENT, 0, 0, entry.since};
        if (strlen(path) == entry.path_size && path_is_inside(path)) take_entry(set, &entry, path);
    }
    *whole = false;
    return true;
}
