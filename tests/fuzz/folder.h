// The folder of a target: what lies in it is what the data plane finds when it starts. Made once, gone with the process.
#pragma once
#include "../../runtime/native/src/shared.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/dev/shm/safekit-fuzz-XXXXXX";

static void leave(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command)) return;
}

static void enter(void) {
    if (options.state_dir) return;
    if (!mkdtemp(folder)) abort();
    atexit(leave);
    options.state_dir = folder;
    options.module = "fuzz";
    if (shared_create()) abort();
    stderr = fopen("/dev/null", "we"); // what is said; a sanitizer writes to the descriptor
}

static void lay(const char *name, const uint8_t *bytes, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) abort();
    close(fd);
}
