// The mounts are made with mount(2) itself: no helper program, and the descriptor of /dev/fuse is ours.
#include "mount.h"
#include "fuse_ops.h"
#include "inode.h"
#include "local.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define THREADS 12

struct session {
    struct fuse_session *fuse;
    struct directory *directory;
    pthread_t thread[THREADS];
    unsigned threads;
    bool mounted;
    atomic_bool greeted, can_kill_privileges;
};

static struct session session[DIRECTORY_LIMIT];
static bool serving, protecting[DIRECTORY_LIMIT];

// ---- the descriptor ----

// libfuse 3.14 does not know FUSE_HANDLE_KILLPRIV_V2. Without it the kernel asks for security.capability before every single write, so the answer
// to INIT gets this one flag here: set-user-id bits are cleared by our own write and setattr, capabilities by the underlying file system.
static ssize_t fuse_read(int fd, void *bytes, size_t size, void *userdata) {
    struct session *one = userdata;
    ssize_t n = read(fd, bytes, size);
    if (n >= (ssize_t)(sizeof(struct fuse_in_header) + 16) && !one->greeted) {
        const struct fuse_in_header *header = bytes;
        const struct fuse_init_in *init = (const void *)(header + 1);
        if (header->opcode == FUSE_INIT) one->can_kill_privileges = init->flags & FUSE_HANDLE_KILLPRIV_V2;
    }
    return n;
}

static ssize_t fuse_write(int fd, struct iovec *parts, int count, void *userdata) {
    struct session *one = userdata;
    if (!one->greeted && count == 2 && parts[1].iov_len >= 16) {
        struct fuse_init_out *init = parts[1].iov_base;
        if (one->can_kill_privileges) init->flags |= FUSE_HANDLE_KILLPRIV_V2;
        one->greeted = true;
    }
    return writev(fd, parts, count);
}

static const struct fuse_custom_io descriptor_io = {.read = fuse_read, .writev = fuse_write};

static void *serve_main(void *argument) {
    struct session *one = argument;
    struct fuse_buf buffer = {0};
    local_thread_begin();
    for (;;) {
        int n = fuse_session_receive_buf(one->fuse, &buffer);
        if (n == -EINTR || n == -EAGAIN) continue;
        if (n <= 0) break; // unmounted
        fuse_session_process_buf(one->fuse, &buffer);
    }
    free(buffer.mem);
    return NULL;
}

// ---- primary ----

static int mount_one(struct session *one) {
    struct directory *directory = one->directory;
    char name[] = "safekit-rfs", *arguments[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, arguments);
    one->greeted = one->mounted = false;
    one->threads = 0;
    one->fuse = fuse_session_new(&args, &fuse_operations, sizeof fuse_operations, directory);
    fuse_opt_free_args(&args);
    if (!one->fuse) return ENOMEM;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        say("/dev/fuse: %s (is the module fuse loaded, and may this container use it?)", strerror(error));
        return error;
    }
    if (fuse_session_custom_io(one->fuse, &descriptor_io, fd)) {
        close(fd);
        return EINVAL;
    }
    struct statvfs under;
    unsigned long flags = 0;
    if (fstatvfs(directory->root, &under) == 0) {
        // What the administrator forbade on the file system below stays forbidden.
        if (under.f_flag & ST_NOSUID) flags |= MS_NOSUID;
        if (under.f_flag & ST_NODEV) flags |= MS_NODEV;
        if (under.f_flag & ST_NOEXEC) flags |= MS_NOEXEC;
        if (under.f_flag & ST_NOATIME) flags |= MS_NOATIME;
    }
    char mount_options[160], source[128];
    snprintf(mount_options, sizeof mount_options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd);
    snprintf(source, sizeof source, "safekit:%s", options.module);
    if (mount(source, directory->path, "fuse.safekit", flags, mount_options)) return errno;
    one->mounted = true;
    for (unsigned i = 0; i < THREADS; i++) {
        if (pthread_create(&one->thread[i], NULL, serve_main, one)) return EAGAIN;
        one->threads++;
    }
    return 0;
}

static void join_threads(struct session *one) {
    for (unsigned i = 0; i < one->threads; i++) pthread_join(one->thread[i], NULL);
    one->threads = 0;
}

static void finish_one(struct session *one) {
    join_threads(one);
    if (one->fuse) fuse_session_destroy(one->fuse);
    memset(one, 0, sizeof *one);
}

int mount_serve(void) {
    inodes_open();
    int error = 0;
    for (unsigned i = 0; i < options.directories && !error; i++) {
        session[i].directory = &options.directory[i];
        error = mount_one(&session[i]);
        if (error) say("cannot mount over %s: %s", options.directory[i].path, strerror(error));
    }
    serving = true;
    if (error) {
        mount_release(0, true);
        mount_close();
    }
    return error;
}

bool mount_serving(void) { return serving; }

// An unmount that is not forced waits for applications and writes back what they changed through mappings.
int mount_release(int timeout_ms, bool force) {
    int64_t end = now_ms() + timeout_ms;
    if (!serving) return 0;
    for (unsigned i = options.directories; i-- > 0;) {
        struct session *one = &session[i];
        int error = 0;
        while (one->mounted) {
            error = umount2(one->directory->path, UMOUNT_NOFOLLOW) ? errno : 0;
            if (!error || error == EINVAL || error == ENOENT) {
                one->mounted = false;
                break;
            }
            if (now_ms() >= end) break;
            struct timespec pause = {.tv_nsec = 20 * 1000000};
            nanosleep(&pause, NULL);
        }
        if (one->mounted && !force) {
            // Those that were unmounted already are served again: nothing half done.
            for (unsigned j = i + 1; j < options.directories; j++) {
                finish_one(&session[j]);
                session[j].directory = &options.directory[j];
                int again = mount_one(&session[j]);
                if (again) say("cannot mount over %s again: %s", options.directory[j].path, strerror(again));
            }
            return EBUSY;
        }
        if (one->mounted) {
            // What applications still wait for fails now; their open files answer an error from here on.
            umount2(one->directory->path, MNT_FORCE | UMOUNT_NOFOLLOW);
            umount2(one->directory->path, MNT_DETACH | UMOUNT_NOFOLLOW);
            one->mounted = false;
        }
    }
    for (unsigned i = 0; i < options.directories; i++) join_threads(&session[i]);
    return 0;
}

void mount_close(void) {
    for (unsigned i = 0; i < options.directories; i++) finish_one(&session[i]);
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

void mount_unprotect(void) {
    for (unsigned i = 0; i < options.directories; i++) {
        // Readers keep what they opened; the next open finds the ordinary directory.
        if (protecting[i] && umount2(options.directory[i].path, MNT_DETACH | UMOUNT_NOFOLLOW))
            say("cannot remove the protection of %s: %s", options.directory[i].path, strerror(errno));
        protecting[i] = false;
    }
}

// ---- what a killed process left ----

// The mount on top of `path`: 'f' a served tree of ours, 'r' a read-only view of a file system that is writable elsewhere, 0 anything else.
static char kind_on_top(const char *path) {
    FILE *table = fopen("/proc/self/mountinfo", "re");
    if (!table) return 0;
    char *line = NULL, kind = 0;
    size_t room = 0;
    while (getline(&line, &room, table) > 0) {
        char point[4096], mount_flags[256], type[64], super[512];
        char *separator = strstr(line, " - ");
        if (!separator || sscanf(line, "%*d %*d %*s %*s %4095s %255s", point, mount_flags) != 2) continue;
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
        if (strcmp(type, "fuse.safekit") == 0) kind = 'f';
        else kind = strncmp(mount_flags, "ro", 2) == 0 && strncmp(super, "rw", 2) == 0 ? 'r' : 0;
    }
    free(line);
    fclose(table);
    return kind;
}

int mount_clear_stale(bool was_protected) {
    for (unsigned i = 0; i < options.directories; i++) {
        const char *path = options.directory[i].path;
        for (char kind; (kind = kind_on_top(path)) == 'f' || (kind == 'r' && was_protected);) {
            say("removing what an earlier process left mounted over %s", path);
            if (kind == 'f') umount2(path, MNT_FORCE | UMOUNT_NOFOLLOW);
            if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL) {
                say("cannot remove it: %s", strerror(errno));
                return errno;
            }
            if (kind == 'r') break;
        }
    }
    return 0;
}
