// Mounts, descriptors and threads of the FUSE protocol.
//
// A thread reads a request into its own buffer, placed so that the bytes of a write begin on a page: they go to the file from where the kernel put
// them. The head of a write is 80 bytes; every other request begins at the same place.
#include "session.h"
#include "dispatch.h"
#include "intent.h"
#include "local.h"
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096u
#define HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define BUFFER_SIZE (PAGE + SESSION_DATA_LIMIT + PAGE)
#define THREADS_AT_FIRST 2u
#define THREADS 12u
#define THREADS_OF_MANY 4u // when a module has more than four directories
#define GREETING_MS 10000
#define NOTIFY_RESEND 7
_Static_assert(HEAD == 80, "the bytes of a write follow 80 bytes of head");

struct channel {
    struct session *session;
    int fd;
    bool running;
    pthread_t thread;
};

// There is always a thread that waits for the next request: whoever takes the last place of that kind starts another one, up to the limit. A module
// that does little keeps few buffers.
static struct session {
    const struct directory *directory;
    struct channel channel[THREADS];
    atomic_uint channels;
    atomic_int waiting;
} sessions[DIRECTORY_LIMIT];
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;

// What the next worker must know.
static struct {
    bool can_resend;
    unsigned channels[DIRECTORY_LIMIT];
    int fd[DIRECTORY_LIMIT][THREADS];
} *kept;

static unsigned char *buffer_new(void) {
    // All there from the beginning: a page that had to be found while the worker is being killed would cost the request its answer.
    void *buffer = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    // And never shared with a clone: its first byte after that would need another page.
    if (buffer != MAP_FAILED && madvise(buffer, BUFFER_SIZE, MADV_DONTFORK)) say("a buffer cannot be kept to this process: %s", strerror(errno));
    return must(buffer == MAP_FAILED ? NULL : buffer);
}

// The next request, at PAGE - HEAD of the buffer. 0: the mount is gone.
static size_t receive(int fd, unsigned char *buffer) {
    for (;;) {
        ssize_t n = read(fd, buffer + PAGE - HEAD, BUFFER_SIZE - (PAGE - HEAD));
        if (n >= (ssize_t)sizeof(struct fuse_in_header)) return (size_t)n;
        // ENOENT: the request was taken back before it was read.
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
        return 0;
    }
}

static void add_thread(struct session *session);

static void *serve_main(void *argument) {
    struct channel *channel = argument;
    struct session *session = channel->session;
    unsigned char *buffer = buffer_new();
    local_thread_begin();
    for (size_t size; (size = receive(channel->fd, buffer));) {
        struct fuse_request request = {.directory = session->directory, .fd = channel->fd, .room = buffer + PAGE};
        if (atomic_fetch_sub(&session->waiting, 1) == 1) add_thread(session);
        dispatch(&request, buffer + PAGE - HEAD, size);
        atomic_fetch_add(&session->waiting, 1);
    }
    munmap(buffer, BUFFER_SIZE);
    return NULL;
}

// ---- the greeting ----

// No write-back cache: what is answered has been shipped. No truncation inside open: every modification has an operation of its own. Locks stay with
// the kernel of this node. Set-user-id bits are taken away by our own write and setattr (KILLPRIV_V2 says when), so the kernel need not ask for
// security.capability before every write.
#define WANTED                                                                                                                                                  \
    ((uint64_t)(FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |      \
                FUSE_POSIX_ACL | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT) | \
     FUSE_HAS_RESEND)

static int greet(int fd) {
    union {
        struct fuse_in_header header;
        unsigned char bytes[FUSE_MIN_READ_BUFFER];
    } in;
    struct pollfd wait = {fd, POLLIN, 0};
    int ready = poll(&wait, 1, GREETING_MS);
    if (ready <= 0) return ready ? errno : ETIMEDOUT;
    // The kernel refuses a buffer that could not hold a request of the largest kind, unless nothing was agreed yet.
    ssize_t n = read(fd, in.bytes, sizeof in.bytes);
    if (n < 0) return errno;
    struct fuse_init_in init = {0};
    if ((size_t)n < sizeof in.header + 16 || in.header.opcode != FUSE_INIT) return EPROTO;
    memcpy(&init, &in.header + 1, (size_t)n - sizeof in.header < sizeof init ? (size_t)n - sizeof in.header : sizeof init);
    if (init.major != FUSE_KERNEL_VERSION || init.minor < 31) {
        say("the kernel speaks FUSE %u.%u, needed is %u.31 or newer", init.major, init.minor, FUSE_KERNEL_VERSION);
        return EPROTO;
    }
    kept->can_resend = init.flags & FUSE_INIT_EXT && (uint64_t)init.flags2 << 32 & FUSE_HAS_RESEND;
    uint64_t offered = init.flags | (init.flags & FUSE_INIT_EXT ? (uint64_t)init.flags2 << 32 : 0), agreed = offered & WANTED;
    struct {
        struct fuse_out_header header;
        struct fuse_init_out init;
    } out = {.header = {.len = sizeof out, .unique = in.header.unique},
             .init = {.major = FUSE_KERNEL_VERSION,
                      .minor = init.minor < FUSE_KERNEL_MINOR_VERSION ? init.minor : FUSE_KERNEL_MINOR_VERSION,
                      .max_readahead = init.max_readahead < SESSION_DATA_LIMIT ? init.max_readahead : SESSION_DATA_LIMIT,
                      .flags = (uint32_t)agreed,
                      .flags2 = (uint32_t)(agreed >> 32),
                      .max_background = 64,
                      .congestion_threshold = 48,
                      .max_write = SESSION_DATA_LIMIT,
                      .max_pages = SESSION_DATA_LIMIT / PAGE,
                      .time_gran = 1}};
    return write(fd, &out, sizeof out) == (ssize_t)sizeof out ? 0 : errno;
}

// ---- the life of a mount ----

// With `adding` held.
static int add_channel(struct session *session, int fd) {
    unsigned at = session->channels, directory = session->directory->index;
    struct channel *channel = &session->channel[at];
    *channel = (struct channel){.session = session, .fd = fd};
    shared_keep(fd);
    kept->fd[directory][at] = fd;
    kept->channels[directory] = at + 1;
    session->channels = at + 1;
    atomic_fetch_add(&session->waiting, 1);
    int error = pthread_create(&channel->thread, NULL, serve_main, channel);
    channel->running = !error;
    if (error) atomic_fetch_sub(&session->waiting, 1);
    return error;
}

static int clone_descriptor(int fd) {
    int copy = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    uint32_t from = (uint32_t)fd;
    if (copy < 0 || ioctl(copy, FUSE_DEV_IOC_CLONE, &from) == 0) return copy;
    int error = errno;
    close(copy);
    errno = error;
    return -1;
}

static unsigned threads_limit(void) { return options.directories > 4 ? THREADS_OF_MANY : THREADS; }

// What cannot be added now is tried again when nobody waits the next time.
static void add_thread(struct session *session) {
    pthread_mutex_lock(&adding);
    int copy = session->waiting > 0 || session->channels >= threads_limit() ? -1 : clone_descriptor(session->channel[0].fd);
    if (copy >= 0) add_channel(session, copy);
    pthread_mutex_unlock(&adding);
}

static void prepare(void) {
    kept = shared_area("session", sizeof *kept);
    intents_open();
}

bool session_can_resend(void) { return kept && kept->can_resend; }

int session_begin(const struct directory *directory, unsigned long mount_flags) {
    struct session *session = &sessions[directory->index];
    prepare();
    char mount_options[160], source[128];
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        say("/dev/fuse: %s (is the module fuse loaded, and may this container use it?)", strerror(error));
        return error;
    }
    snprintf(mount_options, sizeof mount_options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd);
    snprintf(source, sizeof source, "safekit:%s", options.module);
    if (mount(source, directory->path, "fuse.safekit", mount_flags, mount_options)) {
        int error = errno;
        close(fd);
        return error;
    }
    *session = (struct session){.directory = directory};
    int error = greet(fd);
    pthread_mutex_lock(&adding);
    if (error) close(fd);
    else error = add_channel(session, fd);
    while (!error && session->channels < THREADS_AT_FIRST) {
        int copy = clone_descriptor(fd);
        error = copy < 0 ? errno : add_channel(session, copy);
    }
    pthread_mutex_unlock(&adding);
    if (error) {
        umount2(directory->path, MNT_FORCE | UMOUNT_NOFOLLOW);
        umount2(directory->path, MNT_DETACH | UMOUNT_NOFOLLOW);
        session_end(directory);
    }
    return error;
}

int session_take_over(const struct directory *directory) {
    struct session *session = &sessions[directory->index];
    prepare();
    unsigned channels = kept->channels[directory->index];
    *session = (struct session){.directory = directory};
    // Before the first of our threads: what it has in hand would be sent again as well.
    struct fuse_out_header again = {.len = sizeof again, .error = NOTIFY_RESEND};
    int error = channels && write(kept->fd[directory->index][0], &again, sizeof again) < 0 && errno != ENODEV && errno != EPERM ? errno : 0;
    pthread_mutex_lock(&adding);
    while (!error && session->channels < channels) error = add_channel(session, kept->fd[directory->index][session->channels]);
    pthread_mutex_unlock(&adding);
    return error;
}

void session_join(const struct directory *directory) {
    struct session *session = &sessions[directory->index];
    for (unsigned i = 0; i < session->channels; i++) {
        if (session->channel[i].running) pthread_join(session->channel[i].thread, NULL);
        session->channel[i].running = false;
    }
}

void session_end(const struct directory *directory) {
    struct session *session = &sessions[directory->index];
    session_join(directory);
    kept->channels[directory->index] = 0;
    for (unsigned i = 0; i < session->channels; i++) {
        shared_drop(session->channel[i].fd);
        close(session->channel[i].fd);
    }
    *session = (struct session){0};
}

// ---- notices to the kernel ----

static int notify(const struct directory *directory, int code, const void *fixed, size_t fixed_size, const char *name) {
    const struct session *session = &sessions[directory->index];
    if (!session->channels) return ENOTCONN;
    size_t name_size = name ? strlen(name) + 1 : 0;
    struct fuse_out_header header = {.len = (uint32_t)(sizeof header + fixed_size + name_size), .error = code};
    struct iovec parts[3] = {{&header, sizeof header}, {(void *)(uintptr_t)fixed, fixed_size}, {(void *)(uintptr_t)name, name_size}};
    return writev(session->channel[0].fd, parts, name ? 3 : 2) < 0 && errno != ENOENT ? errno : 0;
}

int session_invalidate_inode(const struct directory *directory, uint64_t node) {
    struct fuse_notify_inval_inode_out out = {.ino = node};
    return notify(directory, FUSE_NOTIFY_INVAL_INODE, &out, sizeof out, NULL);
}

int session_invalidate_entry(const struct directory *directory, uint64_t parent, const char *name) {
    struct fuse_notify_inval_entry_out out = {.parent = parent, .namelen = (uint32_t)strlen(name)};
    return notify(directory, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof out, name);
}
