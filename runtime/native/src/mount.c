// Which directory is mounted when, and how it is left. See session.h for the mount of a primary itself.
#include "mount.h"
#include "inode.h"
#include "session.h"
#include "trim.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

static bool serving, mounted[DIRECTORY_LIMIT], protecting[DIRECTORY_LIMIT];

struct top {
    char kind; // 'f' a served tree of ours, 'r' a read-only view of a file system that is writable elsewhere, 0 anything else
    unsigned major, minor;
};

// The mount on top of `path`.
static struct top mount_on_top(const char *path) {
    struct top top = {0};
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table) return top;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, table) > 0) {
        char point[4096], mount_flags[256], type[64], super[512];
        unsigned major, minor;
        char *separator = strstr(line, " - ");
        if (!separator || sscanf(line, "%*d %*d %u:%u %*s %4095s %255s", &major, &minor, point, mount_flags) != 4) continue;
        if (sscanf(separator, " - %63s %*s %511s", type, super) != 2) continue;
        for (char *from = point, *to = point;; from++) { // \040 and its like
            unsigned code;
            if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
                *to++ = (char)code;
                from += 3;
            } else if (!(*to++ = *from)) {
                break;
            }
        }
        if (strcmp(point, path) != 0) continue;
        top = (struct top){0, major, minor};
        if (strcmp(type, "fuse.safekit") == 0) top.kind = 'f';
        else if (strncmp(mount_flags, "ro", 2) == 0 && strncmp(super, "rw", 2) == 0) top.kind = 'r';
    }
    free(line);
    fclose(table);
    return top;
}

// ---- primary ----

#define READ_AHEAD_KIB 2048u

static FILE *read_ahead_of(unsigned major, unsigned minor, const char *how) {
    char path[80];
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
    return fopen(path, how);
}

// The kernel reads 128 KiB ahead of a FUSE mount and more ahead of most disks. Here as far as on the disk below, and far enough for several requests
// of the largest kind to be on their way at once. Where this may not be set, reads are slower and nothing else.
static void read_ahead(const struct directory *directory) {
    unsigned below = 0;
    FILE *file = read_ahead_of(major(directory->dev), minor(directory->dev), "re");
    if (file) {
        if (fscanf(file, "%u", &below) != 1) below = 0;
        fclose(file);
    }
    struct top top = mount_on_top(directory->path);
    file = top.kind == 'f' ? read_ahead_of(top.major, top.minor, "we") : NULL;
    if (!file) return;
    fprintf(file, "%u", below > READ_AHEAD_KIB ? below : READ_AHEAD_KIB);
    fclose(file);
}

static int mount_one(unsigned i) {
    const struct directory *directory = &options.directory[i];
    struct statvfs under;
    unsigned long flags = 0;
    if (fstatvfs(directory->root, &under) == 0) {
        // What the administrator forbade on the file system below stays forbidden.
        if (under.f_flag & ST_NOSUID) flags |= MS_NOSUID;
        if (under.f_flag & ST_NODEV) flags |= MS_NODEV;
        if (under.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
        if (under.f_flag & ST_NOATIME) flags |= MS_NOATIME;
    }
    int error = session_begin(directory, flags);
    mounted[i] = !error;
    if (!error) read_ahead(directory);
    return error;
}

int mount_serve(void) {
    inodes_open();
    int error = 0;
    for (unsigned i = 0; i < options.directories && !error; i++) {
        error = mount_one(i);
        if (error) say("cannot mount over %s: %s", options.directory[i].path, strerror(error));
    }
    serving = true;
    if (error) {
        mount_release(0, true);
        mount_close();
    }
    return error;
}

int mount_take_over(void) {
    int error = 0;
    for (unsigned i = 0; i < options.directories && !error; i++) {
        error = session_take_over(&options.directory[i]);
        mounted[i] = true;
    }
    serving = true;
    return error;
}

bool mount_serving(void) { return serving; }

// An unmount that is not forced waits for applications and writes back what they changed through mappings.
int mount_release(int timeout_ms, bool force) {
    int64_t end = now_ms() + timeout_ms;
    if (!serving) return 0;
    for (unsigned i = options.directories; i-- > 0;) {
        const char *path = options.directory[i].path;
        int error = 0;
        while (mounted[i]) {
            error = umount2(path, UMOUNT_NOFOLLOW) ? errno : 0;
            if (!error || error == EINVAL || error == ENOENT) {
                mounted[i] = false;
                break;
            }
            if (now_ms() >= end) break;
            struct timespec pause = {.tv_nsec = 20 * 1000000};
            nanosleep(&pause, NULL);
        }
        if (mounted[i] && !force) {
            // Those that were unmounted already are served again: nothing half done.
            trim_stop();
            for (unsigned j = i + 1; j < options.directories; j++) {
                session_end(&options.directory[j]);
                int again = mount_one(j);
                if (again) say("cannot mount over %s again: %s", options.directory[j].path, strerror(again));
            }
            return EBUSY;
        }
        if (mounted[i]) {
            // What applications still wait for fails now; their open files answer an error from here on.
            umount2(path, MNT_FORCE | UMOUNT_NOFOLLOW);
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
            mounted[i] = false;
        }
    }
    for (unsigned i = 0; i < options.directories; i++) session_join(&options.directory[i]);
    return 0;
}

void mount_close(void) {
    trim_stop();
    for (unsigned i = 0; i < options.directories; i++) session_end(&options.directory[i]);
    serving = false;
}

// ---- secondary ----

int mount_protect(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        const char *path = options.directory[i].path;
        struct statvfs under;
        unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY;
        if (fstatvfs(options.directory[i].root, &under) == 0) {
            if (under.f_flag & ST_NOSUID) flags |= MS_NOSUID;
            if (under.f_flag & ST_NODEV) flags |= MS_NODEV;
            if (under.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
        }
        int error = mount(path, path, NULL, MS_BIND, NULL) ? errno : 0;
        if (!error) {
            protecting[i] = true;
            if (mount(NULL, path, NULL, flags, NULL)) error = errno;
        }
        if (error) {
            say("cannot protect %s: %s", path, strerror(error));
            mount_unprotect();
            return error;
        }
    }
    return 0;
}

bool mount_is_protected(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        if (protecting[i]) return true;
    }
    return false;
}

void mount_unprotect(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        // Readers keep what they opened; the next open finds the ordinary directory.
        if (protecting[i] && umount2(options.directory[i].path, MNT_DETACH | UMOUNT_NOFOLLOW))
            say("cannot remove the protection of %s: %s", options.directory[i].path, strerror(errno));
        protecting[i] = false;
    }
}

// ---- what a killed process left ----

int mount_clear_stale(bool was_protected) {
    for (unsigned i = 0; i < options.directories; i++) {
        const char *path = options.directory[i].path;
        char kind;
        while ((kind = mount_on_top(path).kind) == 'f') {
            say("removing what an earlier process left mounted over %s", path);
            umount2(path, MNT_FORCE | UMOUNT_NOFOLLOW);
            if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL) {
                say("cannot remove it: %s", strerror(errno));
                return errno;
            }
        }
        protecting[i] = kind == 'r' && was_protected; // stays until a role is taken or refused
    }
    return 0;
}
