// What every file of the data plane shares: the replicated directories, the options of the process, time, and the log.
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#define DIRECTORY_LIMIT 32
#define GENERATION_SIZE 1280 // a generation and its ancestors: thirteen times epoch, name of a node, nonce
#define BASE_SIZE 33 // 16 random bytes in hexadecimal

// One replicated directory. `root` is the underlying tree, opened before anything was mounted over it.
struct directory {
    char *path, *name; // name: what both nodes call it; the path where nothing else is said
    unsigned index;
    int root;
    dev_t dev;
};

struct options {
    char *module, *control, *state_dir, *key_file;
    unsigned char key[64];
    size_t key_size;
    int ack_timeout_ms;     // an operation that the peer has not acknowledged
    int silence_timeout_ms; // a peer that says nothing at all, not even that it lives
    char *boot_id;          // what tells one boot of this machine from the next; NULL: the kernel's
    uint64_t zone_size;     // bytes, a power of two: the largest zone of the dirty set; 0: as zones.h says
    unsigned resync_threads, resync_bandwidth; // KB/s, 0: as fast as possible
    unsigned resync_timeout_s;                 // a peer that lives, and does not get on with a resync
    bool resync_whole;      // namespacepolicy 0: changed files whole, interrupted resyncs from their beginning
    bool encryption;  // of the stream; both nodes must say the same
    char *source;     // the address that a primary connects from; NULL: as the routes say
    bool durable_ack; // async="none": the secondary answers when the data are on its disk
    unsigned directories;
    struct directory directory[DIRECTORY_LIMIT];
};

extern struct options options;

// Names an object on this node for as long as it exists.
struct identity {
    unsigned directory;
    dev_t dev;
    ino_t ino;
};

int64_t now_ms(void); // monotonic
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *must(void *memory); // ends the process when there is no memory left
uint64_t fnv64(const void *data, size_t size);
int open_roots(void);
void close_roots(void);
