// The least that any synchronous replicator pays on this machine: each write goes over one TCP connection of the loopback, in order, to a process that
// writes it and says so; beside it the same write is done here. No file system of ours stands in front, nothing is remembered, nothing is compared.
//
//   bound random|fsync|sequential DIRECTORY PEER_DIRECTORY BLOCK JOBS BYTES SECONDS
//       JOBS files of BYTES/JOBS bytes, JOBS writes on their way at a time; random and fsync run for SECONDS, sequential until the files are full
//   bound copy FILE PEER_FILE BLOCK
//       one file: read here, sent, written there, synced: what a resynchronisation of it costs at least
//
// Prints {"operations": N, "bytes": N, "seconds": S}.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS 64
#define ROOM (4u << 20)

struct request {
    uint64_t offset;
    uint32_t size;
    uint16_t job, sync;
};

static struct {
    const char *mode, *directory, *peer;
    size_t block, bytes;
    int jobs;
    double seconds;
    uint64_t operations, done;
} run;

static int file[JOBS];

static void fail(const char *what) {
    fprintf(stderr, "bound: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void send_all(int fd, const void *bytes, size_t size, int flags) {
    for (const char *at = bytes; size;) {
        ssize_t n = send(fd, at, size, flags | MSG_NOSIGNAL);
        if (n <= 0) fail("send");
        at += n;
        size -= (size_t)n;
    }
}

static void write_all(int fd, const char *bytes, size_t size, uint64_t offset) {
    while (size) {
        ssize_t n = pwrite(fd, bytes, size, (off_t)offset);
        if (n <= 0) fail("pwrite");
        bytes += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
}

// Full of data before the measurement, or new where the measurement fills them.
static void open_files(const char *directory) {
    static const char some[1 << 16] = {1};
    int fresh = strcmp(run.mode, "sequential") == 0;
    size_t size = run.bytes / (size_t)run.jobs;
    for (int i = 0; i < run.jobs; i++) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/bound.%d", directory, i);
        file[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0600);
        if (file[i] < 0 || fstat(file[i], &st)) fail(path);
        for (size_t at = (size_t)st.st_size; !fresh && at < size; at += sizeof some) write_all(file[i], some, sizeof some, at);
    }
}

static void open_copy(const char *path, int flags) {
    file[0] = open(path, flags | O_CLOEXEC, 0600);
    if (file[0] < 0) fail(path);
}

// ---- the peer: one answer for each request, in its order ----

static void serve(int listener) {
    char *bytes = malloc(ROOM);
    char answers[ROOM / sizeof(struct request)] = {0};
    int one = 1, fd = accept(listener, NULL, NULL);
    size_t used = 0;
    if (fd < 0 || !bytes) fail("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (run.jobs) open_files(run.peer);
    else open_copy(run.peer, O_WRONLY | O_CREAT | O_TRUNC);
    send_all(fd, answers, 1, 0);
    for (ssize_t n; (n = recv(fd, bytes + used, ROOM - used, 0)) > 0;) {
        used += (size_t)n;
        size_t at = 0, answered = 0;
        struct request request;
        while (used - at >= sizeof request) {
            memcpy(&request, bytes + at, sizeof request);
            if (used - at < sizeof request + request.size) break;
            write_all(file[request.job], bytes + at + sizeof request, request.size, request.offset);
            if (request.sync && fdatasync(file[request.job])) fail("fdatasync");
            at += sizeof request + request.size;
            answered++;
        }
        if (answered) send_all(fd, answers, answered, 0);
        memmove(bytes, bytes + at, used - at);
        used -= at;
    }
    exit(0);
}

// ---- the application's side ----

static int dial(const struct sockaddr_in *address) {
    char ready;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address)) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (recv(fd, &ready, 1, 0) != 1) fail("the peer");
    return fd;
}

// Until no more than `left` requests wait for their answer.
static void await_answers(int fd, uint64_t left) {
    char answers[4096];
    while (run.operations - run.done > left) {
        ssize_t n = recv(fd, answers, sizeof answers, 0);
        if (n <= 0) fail("the peer");
        run.done += (uint64_t)n;
    }
}

static void send_block(int fd, const struct request *request, const char *bytes) {
    send_all(fd, request, sizeof *request, request->size ? MSG_MORE : 0);
    send_all(fd, bytes, request->size, 0);
    run.operations++;
}

static void write_blocks(int fd, char *bytes) {
    uint64_t random = 88172645463325252u, jobs = (uint64_t)run.jobs, blocks = run.bytes / jobs / run.block;
    int sequential = strcmp(run.mode, "sequential") == 0, sync = strcmp(run.mode, "fsync") == 0;
    double end = now() + run.seconds;
    for (uint64_t i = 0; sequential ? i < blocks * jobs : now() < end; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint64_t block = sequential ? i / jobs : random % blocks;
        struct request request = {block * run.block, (uint32_t)run.block, (uint16_t)(i % jobs), (uint16_t)sync};
        send_block(fd, &request, bytes);
        write_all(file[request.job], bytes, run.block, request.offset);
        if (sync && fdatasync(file[request.job])) fail("fdatasync");
        await_answers(fd, jobs - 1);
    }
    await_answers(fd, 0);
}

static void copy_blocks(int fd, char *bytes) {
    struct request request = {0};
    for (ssize_t n; (n = pread(file[0], bytes, run.block, (off_t)request.offset)) > 0; request.offset += (uint64_t)n) {
        request.size = (uint32_t)n;
        send_block(fd, &request, bytes);
        await_answers(fd, 16);
    }
    request.size = 0;
    request.sync = 1;
    send_block(fd, &request, bytes);
    await_answers(fd, 0);
    run.bytes = request.offset;
}

int main(int count, char **argument) {
    int copies = count == 5 && strcmp(argument[1], "copy") == 0;
    if (!copies && count != 8) {
        fprintf(stderr, "usage: bound random|fsync|sequential DIRECTORY PEER_DIRECTORY BLOCK JOBS BYTES SECONDS\n       bound copy FILE PEER_FILE BLOCK\n");
        return 2;
    }
    run.mode = argument[1];
    run.directory = argument[2];
    run.peer = argument[3];
    run.block = strtoull(argument[4], NULL, 10);
    run.jobs = copies ? 0 : atoi(argument[5]);
    run.bytes = copies ? 0 : strtoull(argument[6], NULL, 10);
    run.seconds = copies ? 0 : atof(argument[7]);
    char *bytes = malloc(run.block);
    if (!bytes || !run.block || run.block > ROOM / 2 || run.jobs < 0 || run.jobs > JOBS || (!copies && (run.jobs < 1 || run.bytes / (size_t)run.jobs < run.block))) {
        fprintf(stderr, "bound: a block of at most %u bytes, 1 to %d jobs, a block for each\n", ROOM / 2, JOBS);
        return 2;
    }
    memset(bytes, 1, run.block);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    pid_t peer = fork();
    if (peer < 0) fail("fork");
    if (!peer) {
        setsid(); // as another node
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener);
    }
    if (copies) open_copy(run.directory, O_RDONLY);
    else open_files(run.directory);
    int fd = dial(&address);
    double began = now();
    if (copies) copy_blocks(fd, bytes);
    else write_blocks(fd, bytes);
    double seconds = now() - began;
    close(fd);
    printf("{\"operations\": %llu, \"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)run.operations,
           (unsigned long long)(copies ? run.bytes : run.operations * run.block), seconds);
    int status;
    waitpid(peer, &status, 0);
    return status ? 1 : 0;
}
