// The table of known objects and their paths.
#include "inode.h"
#include "local.h"
#include "dirty.h"
#include "select.h"
#include "shared.h"
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

#define BUCKETS (1u << 16)
static struct inode *bucket[BUCKETS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct inode *roots[DIRECTORY_LIMIT];
static atomic_size_t known;
pthread_rwlock_t namespace_lock = PTHREAD_RWLOCK_INITIALIZER;

static unsigned hash(const struct directory *directory, dev_t dev, ino_t ino) {
    return (unsigned)((((uint64_t)ino + directory->index * 7919u + (uint64_t)dev) * 0x9E3779B97F4A7C15u) >> 48) & (BUCKETS - 1);
}

// ---- what the next worker must know ----

#define RECORDS (1u << 21)
#define ROOT_RECORDS 2u // the numbers 0 and 1 mean nothing and the root to the kernel

// A record counts while it has references. Its place is used again with another generation.
struct record {
    _Atomic uint64_t references;
    uint64_t dev, ino;
    uint32_t directory, generation;
    int32_t fd;
    uint32_t type;
};

struct table {
    uint32_t used; // records that were ever used
    struct record record[RECORDS];
};

static struct table *table;
static struct inode *by_index[RECORDS];
static uint32_t *vacant; // places that can be used again
static size_t vacants, vacants_room;

static void vacate(uint32_t index) {
    if (vacants == vacants_room) {
        vacants_room = vacants_room ? vacants_room * 2 : 1024;
        vacant = must(realloc(vacant, vacants_room * sizeof *vacant));
    }
    vacant[vacants++] = index;
}

static bool record_make(struct inode *inode) {
    if (!vacants && table->used == RECORDS) return false;
    inode->index = vacants ? vacant[--vacants] : table->used++;
    struct record *record = &table->record[inode->index];
    shared_keep(inode->fd);
    record->dev = inode->dev;
    record->ino = inode->ino;
    record->directory = inode->directory->index;
    record->generation++;
    record->fd = inode->fd;
    record->type = inode->type;
    by_index[inode->index] = inode;
    atomic_store_explicit(&record->references, inode->references, memory_order_release);
    return true;
}

static void record_count(const struct inode *inode) {
    atomic_store_explicit(&table->record[inode->index].references, inode->references, memory_order_release);
}

static void record_drop(const struct inode *inode) {
    record_count(inode);
    by_index[inode->index] = NULL;
    shared_drop(inode->fd);
    vacate(inode->index);
}

uint64_t inode_node(const struct inode *inode) { return (uint64_t)table->record[inode->index].generation << 32 | (inode->index + ROOT_RECORDS); }

struct inode *inode_at(uint64_t node) {
    uint32_t index = (uint32_t)node - ROOT_RECORDS;
    if (index >= RECORDS || table->record[index].generation != node >> 32) return NULL;
    return by_index[index];
}

static void bucket_add(struct inode *inode) {
    struct inode **first = &bucket[hash(inode->directory, inode->dev, inode->ino)];
    pthread_mutex_init(&inode->lock, NULL);
    inode->next = *first;
    *first = inode;
    atomic_fetch_add(&known, 1);
}

static void open_table(void) { table = shared_area("inodes", sizeof *table); }

void inodes_open(void) {
    open_table();
    for (unsigned i = 0; i < options.directories; i++) {
        struct stat st;
        int fd = openat(options.directory[i].root, ".", O_PATH | O_CLOEXEC);
        roots[i] = inode_get(&options.directory[i], fd, &st);
        if (!roots[i]) abort();
    }
}

void inodes_take_over(void) {
    open_table();
    struct stat st[DIRECTORY_LIMIT] = {0};
    for (unsigned i = 0; i < options.directories; i++) {
        if (fstat(options.directory[i].root, &st[i])) abort();
    }
    for (uint32_t i = 0; i < table->used; i++) {
        const struct record *record = &table->record[i];
        uint64_t references = atomic_load_explicit(&record->references, memory_order_acquire);
        if (!references) {
            vacate(i);
            continue;
        }
        struct inode *inode = must(calloc(1, sizeof *inode));
        *inode = (struct inode){.index = i, .directory = &options.directory[record->directory], .references = references, .dev = record->dev, .ino = record->ino, .type = record->type, .fd = record->fd};
        bucket_add(inode);
        by_index[i] = inode;
        if (st[record->directory].st_ino == inode->ino && st[record->directory].st_dev == inode->dev) roots[record->directory] = inode;
    }
}

void inodes_close(void) {
    pthread_mutex_lock(&table_lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (bucket[i]) {
            struct inode *inode = bucket[i];
            bucket[i] = inode->next;
            inode->references = 0;
            record_drop(inode);
            close(inode->fd);
            pthread_mutex_destroy(&inode->lock);
            free(inode);
        }
    }
    atomic_store(&known, 0);
    memset(roots, 0, sizeof roots);
    pthread_mutex_unlock(&table_lock);
}

struct inode *inode_root(unsigned directory) { return roots[directory]; }

struct inode *inode_get(const struct directory *directory, int fd, struct stat *st) {
    int error = local_stat(fd, st);
    if (!error && S_ISDIR(st->st_mode) && st->st_dev != directory->dev) error = EXDEV;
    if (error) {
        close(fd);
        errno = error;
        return NULL;
    }
    unsigned at = hash(directory, st->st_dev, st->st_ino);
    pthread_mutex_lock(&table_lock);
    struct inode *inode = bucket[at];
    while (inode && (inode->ino != st->st_ino || inode->dev != st->st_dev || inode->directory != directory)) inode = inode->next;
    if (inode) {
        inode->references++;
        record_count(inode);
        inode->cool = false;
        // Another name of the same file may be the one that lasts: keep the latest. The number of the descriptor stays.
        if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) dup3(fd, inode->fd, O_CLOEXEC);
        close(fd);
    } else {
        inode = must(calloc(1, sizeof *inode));
        *inode = (struct inode){.directory = directory, .references = 1, .dev = st->st_dev, .ino = st->st_ino, .type = st->st_mode & S_IFMT, .fd = fd};
        if (record_make(inode)) {
            bucket_add(inode);
        } else {
            close(fd);
            free(inode);
            inode = NULL;
            errno = ENFILE;
        }
    }
    pthread_mutex_unlock(&table_lock);
    return inode;
}

struct inode *inode_keep(struct inode *inode) {
    pthread_mutex_lock(&table_lock);
    inode->references++;
    record_count(inode);
    pthread_mutex_unlock(&table_lock);
    return inode;
}

void inode_forget(struct inode *inode, uint64_t references) {
    pthread_mutex_lock(&table_lock);
    inode->references -= references;
    if (inode->references) {
        record_count(inode);
        pthread_mutex_unlock(&table_lock);
        return;
    }
    struct inode **link = &bucket[hash(inode->directory, inode->dev, inode->ino)];
    while (*link != inode) link = &(*link)->next;
    *link = inode->next;
    record_drop(inode);
    atomic_fetch_sub(&known, 1);
    pthread_mutex_unlock(&table_lock);
    stream_unbind(inode);
    close(inode->fd);
    pthread_mutex_destroy(&inode->lock);
    free(inode);
}

// ---- what nobody uses ----

size_t inodes_known(void) { return atomic_load(&known); }

size_t inodes_cold(struct inode **cold, size_t room) {
    static unsigned hand;
    size_t found = 0;
    pthread_mutex_lock(&table_lock);
    // Twice round: who is not asked for between two visits is cold.
    for (unsigned visited = 0; visited < 2 * BUCKETS && found < room; visited++) {
        hand = (hand + 1) & (BUCKETS - 1);
        for (struct inode *inode = bucket[hand]; inode && found < room; inode = inode->next) {
            if (S_ISDIR(inode->type) || atomic_load(&inode->opened)) continue;
            if (inode->cool) {
                inode->references++;
                cold[found++] = inode;
            }
            inode->cool = true;
        }
    }
    pthread_mutex_unlock(&table_lock);
    return found;
}

void inode_opened(struct inode *inode) { atomic_fetch_add(&inode->opened, 1); }

// A count that a worker before this one began is not known here.
void inode_released(struct inode *inode) {
    unsigned opened = inode ? atomic_load(&inode->opened) : 0;
    while (opened && !atomic_compare_exchange_weak(&inode->opened, &opened, opened - 1)) continue;
}

void inode_lock(struct inode *inode) {
    if (S_ISREG(inode->type)) pthread_mutex_lock(&inode->lock);
    else pthread_rwlock_wrlock(&namespace_lock);
}

void inode_unlock(struct inode *inode) {
    if (S_ISREG(inode->type)) pthread_mutex_unlock(&inode->lock);
    else pthread_rwlock_unlock(&namespace_lock);
}

uint64_t inode_key(const struct inode *inode) { return mark_key(inode->directory->index, inode->dev, inode->ino); }

static ssize_t descriptor_path(int fd, char *path) {
    ssize_t size = readlink(proc_path(fd).text, path, PATH_MAX - 1);
    if (size < 0) return -1;
    if (size >= PATH_MAX - 1) {
        errno = ENAMETOOLONG;
        return -1;
    }
    path[size] = 0;
    return size;
}

static uint64_t path_turn = 1;

void inode_names_move(void) { path_turn++; }

// What is remembered is believed where much room is left: only above the mount something can move without our knowing.
bool inode_name_fits(struct inode *parent, const char *name) {
    char path[PATH_MAX];
    size_t more = strlen(name) + sizeof " (deleted)";
    if (parent->path_turn == path_turn && parent->path_size + more < PATH_MAX / 2) return true;
    ssize_t size = descriptor_path(parent->fd, path);
    if (size < 0) return false;
    parent->path_size = (size_t)size;
    parent->path_turn = path_turn;
    return (size_t)size + more < PATH_MAX;
}

// Looks for any name of a file whose known name was removed while others remain. Rare, and slow on a large tree.
static char *search(int directory, const struct inode *inode, const char *prefix) {
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (!entries) {
        if (fd >= 0) close(fd);
        return NULL;
    }
    char *found = NULL;
    for (struct dirent *entry; !found && (entry = readdir(entries));) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN && entry->d_ino != inode->ino) continue;
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || select_excludes(inode->directory, fd, entry->d_name, st.st_mode)) continue;
        char *path = NULL;
        if (asprintf(&path, "%s%s%s", prefix, *prefix ? "/" : "", entry->d_name) < 0) abort();
        if (st.st_ino == inode->ino && st.st_dev == inode->dev) {
            found = path;
            break;
        }
        if (S_ISDIR(st.st_mode) && st.st_dev == inode->directory->dev) {
            int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) {
                found = search(below, inode, path);
                close(below);
            }
        }
        free(path);
    }
    closedir(entries);
    return found;
}

char *inode_known_path(const struct inode *inode) {
    char root[PATH_MAX], path[PATH_MAX];
    ssize_t root_size = descriptor_path(inode->directory->root, root);
    ssize_t size = descriptor_path(inode->fd, path);
    if (root_size < 0 || size < 0) return NULL;
    if (root_size == 1) root_size = 0; // the root of a mount space of its own
    struct stat st;
    if (size < root_size || strncmp(path, root, (size_t)root_size) != 0 || (path[root_size] != '/' && path[root_size])) return NULL;
    const char *inside = path + root_size;
    while (*inside == '/') inside++;
    int error = *inside ? fstatat(inode->directory->root, inside, &st, AT_SYMLINK_NOFOLLOW) : fstat(inode->directory->root, &st);
    return !error && st.st_ino == inode->ino && st.st_dev == inode->dev ? must(strdup(inside)) : NULL;
}

char *inode_path(struct inode *inode) {
    struct stat st;
    errno = 0;
    char *known = inode_known_path(inode);
    if (known && !select_excludes_path(inode->directory, known, inode->type)) return known;
    free(known);
    if (!known && errno == ENAMETOOLONG) return NULL;
    if (local_stat(inode->fd, &st) || st.st_nlink == 0 || S_ISDIR(st.st_mode)) {
        errno = ENOENT;
        return NULL;
    }
    char *found = search(inode->directory->root, inode, "");
    int fresh = found ? openat(inode->directory->root, found, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (fresh >= 0) {
        // The next question finds the name that lasts. The number of the descriptor stays.
        dup3(fresh, inode->fd, O_CLOEXEC);
        close(fresh);
    }
    errno = ENOENT;
    return found;
}

// A rename at this moment does no harm: it remembers both of its directories itself.
int inode_place(struct inode *inode, struct place *place) {
    unsigned directory = inode->directory->index;
    if (S_ISDIR(inode->type)) return place_make(directory, inode->fd, place) ? 0 : EOPNOTSUPP;
    char *path = inode_path(inode);
    if (!path) return errno ? errno : ENOENT;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    int parent = slash ? openat(inode->directory->root, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : inode->directory->root;
    bool made = parent >= 0 && place_make(directory, parent, place);
    if (slash && parent >= 0) close(parent);
    free(path);
    return made ? 0 : EOPNOTSUPP;
}
