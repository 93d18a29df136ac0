// The objects that the kernel knows of, on the primary: one O_PATH descriptor each.
#pragma once
#include "dirty.h"
#include <stdatomic.h>

struct inode {
    struct inode *next;
    uint32_t index; // in the shared table, and with its generation the name that the kernel knows
    const struct directory *directory;
    uint64_t references; // of the kernel and of the resync
    dev_t dev;
    ino_t ino;
    mode_t type; // S_IFMT
    int fd;
    bool cool;             // nobody asked for it since trim.c last looked
    atomic_uint opened;    // how often it is open
    unsigned char selection; // enum selection; select.h
    pthread_mutex_t lock; // regular files: held from the local modification to its place in the stream. All else: namespace_lock
    uint64_t remote_id;   // its name on the wire ...
    uint64_t bound;       // ... as long as this equals the stream's generation of bindings
    size_t path_size;     // of a directory, with what is above it, ...
    uint64_t path_turn;   // ... when so many names had been moved; with namespace_lock held for writing
};

// Held for writing by every change of a name, and by every change of an object that is no regular file.
extern pthread_rwlock_t namespace_lock;

void inodes_open(void);                 // makes the roots
void inodes_take_over(void);            // what the last worker knew
uint64_t inode_node(const struct inode *inode);
struct inode *inode_at(uint64_t node);  // NULL: none of ours
void inodes_close(void);                // forgets everything
struct inode *inode_root(unsigned directory);
// Takes `fd` (O_PATH) over and counts a reference. NULL with errno: EXDEV for another file system mounted below.
struct inode *inode_get(const struct directory *directory, int fd, struct stat *st);
struct inode *inode_keep(struct inode *inode); // counts one more reference
void inode_forget(struct inode *inode, uint64_t references);
// Regular files by their own lock, everything else by the namespace. Returns what inode_unlock() needs.
void inode_lock(struct inode *inode);
void inode_unlock(struct inode *inode);
uint64_t inode_key(const struct inode *inode);
// Whether what gets this name can still be named by a path: to the peer it is.
bool inode_name_fits(struct inode *parent, const char *name); // with namespace_lock held for writing
void inode_names_move(void);                                  // a directory gets another path; the same
// Path inside its directory ("" for the root), allocated. NULL with errno; ENOENT: it has no name any more.
char *inode_path(struct inode *inode);
char *inode_known_path(const struct inode *inode); // the same without a search for another of its names
size_t inodes_known(void);
// Up to `room` files that nobody has open and nobody asked for lately; each counts one more reference.
size_t inodes_cold(struct inode **cold, size_t room);
void inode_opened(struct inode *inode);
void inode_released(struct inode *inode);
// The directory that holds it, or that it is: a resync will look there. 0, ENOENT: it has no name and nothing needs to be found, or an error.
int inode_place(struct inode *inode, struct place *place);
