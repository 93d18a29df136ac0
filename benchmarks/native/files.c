// What an application does with many small files, one thread.
//
//   files use DIRECTORY COUNT                 creates COUNT files of 4 KiB in a new folder, asks for each, removes each; prints operations per second of each step
//   files tree DIRECTORY FOLDERS COUNT        FOLDERS folders of COUNT empty files each, all with the same times: the same tree wherever it is called
//   files look DIRECTORY FOLDERS COUNT        asks for each file of such a tree; prints files per second
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct timespec when[2] = {{1700000000, 0}, {1700000000, 0}};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    fprintf(stderr, "files: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char path[8192];

static const char *file_name(const char *folder, int number) {
    snprintf(path, sizeof path, "%s/f%d", folder, number);
    return path;
}

static void use(const char *directory, int count) {
    static char folder[4096];
    static const char some[4096] = {1};
    struct stat st;
    snprintf(folder, sizeof folder, "%s/files.%d", directory, (int)getpid());
    if (mkdir(folder, 0755)) fail(folder);
    double began = now();
    for (int i = 0; i < count; i++) {
        int fd = open(file_name(folder, i), O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || write(fd, some, sizeof some) != sizeof some || close(fd)) fail(path);
    }
    double created = now();
    for (int i = 0; i < count; i++) {
        if (stat(file_name(folder, i), &st)) fail(path);
    }
    double asked = now();
    for (int i = 0; i < count; i++) {
        if (unlink(file_name(folder, i))) fail(path);
    }
    double removed = now();
    if (rmdir(folder)) fail(folder);
    printf("{\"create\": %.1f, \"stat\": %.1f, \"unlink\": %.1f}\n", count / (created - began), count / (asked - created), count / (removed - asked));
}

static void tree(const char *directory, int folders, int count) {
    char folder[4000], name[32];
    for (int i = 0; i < folders; i++) {
        snprintf(folder, sizeof folder, "%s/d%d", directory, i);
        if (mkdir(folder, 0755)) fail(folder);
        int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (at < 0) fail(folder);
        for (int j = 0; j < count; j++) {
            snprintf(name, sizeof name, "f%d", j);
            if (mknodat(at, name, S_IFREG | 0644, 0) || utimensat(at, name, when, 0)) fail(folder);
        }
        if (futimens(at, when) || close(at)) fail(folder);
    }
    if (utimensat(AT_FDCWD, directory, when, 0)) fail(directory);
    printf("{\"tree\": %d}\n", folders * count);
}

static void look(const char *directory, int folders, int count) {
    char folder[4000];
    struct stat st;
    double began = now();
    for (int i = 0; i < folders; i++) {
        snprintf(folder, sizeof folder, "%s/d%d", directory, i);
        for (int j = 0; j < count; j++) {
            if (stat(file_name(folder, j), &st)) fail(path);
        }
    }
    printf("{\"look\": %.1f}\n", (double)folders * count / (now() - began));
}

int main(int count, char **argument) {
    umask(022);
    if (count == 4 && strcmp(argument[1], "use") == 0) use(argument[2], atoi(argument[3]));
    else if (count == 5 && strcmp(argument[1], "tree") == 0) tree(argument[2], atoi(argument[3]), atoi(argument[4]));
    else if (count == 5 && strcmp(argument[1], "look") == 0) look(argument[2], atoi(argument[3]), atoi(argument[4]));
    else {
        fprintf(stderr, "usage: files use DIRECTORY COUNT | files tree|look DIRECTORY FOLDERS COUNT\n");
        return 2;
    }
    return 0;
}
