// Time, log, memory, and the descriptors of the replicated trees.
#include "common.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options options = {.ack_timeout_ms = 10000, .silence_timeout_ms = 2000, .encryption = true, .resync_threads = 3, .resync_timeout_s = 150};

int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void say(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "safekit-rfs[%s]: %s\n", options.module ? options.module : "-", line);
}

void *must(void *memory) {
    if (!memory) {
        say("out of memory");
        abort();
    }
    return memory;
}

uint64_t fnv64(const void *data, size_t size) {
    const unsigned char *at = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

// Opens every tree by its path: called while nothing of ours is mounted over it.
int open_roots(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        struct directory *directory = &options.directory[i];
        directory->root = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat st;
        if (directory->root < 0 || fstat(directory->root, &st)) {
            int error = errno;
            say("%s: %s", directory->path, strerror(error));
            close_roots();
            return error;
        }
        directory->dev = st.st_dev;
    }
    return 0;
}

void close_roots(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        if (options.directory[i].root >= 0) close(options.directory[i].root);
        options.directory[i].root = -1;
    }
}
