// One primary at a time: its connection, from the greeting to the last frame. apply.c does what the frames say, workers.c in which order,
// durable.c what must reach the disk, answers.c what goes back.
#include "receive.h"
#include "apply.h"
#include "events.h"
#include "handshake.h"
#include "local.h"
#include "metrics.h"
#include "state.h"
#include "verify.h"
#include "workers.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ACK_FRAMES 32
#define ACK_BYTES (256u << 10)
#define ROOM (64u << 10)

static struct {
    pthread_mutex_t lock;
    bool running, connected;
    atomic_bool stopping;
    int listener, fd, wake[2];
    char address[96], peer_generation[GENERATION_SIZE];
    char trouble[512];
    pthread_t acceptor;
} receive = {.lock = PTHREAD_MUTEX_INITIALIZER, .listener = -1, .fd = -1};

// ---- the stream ----

void receive_failed(const struct message *message, int error) {
    char why[512];
    snprintf(why, sizeof why, "%s%s%s%s: %s", operation_name(message->frame.op), message->name ? " " : "", message->name ? message->name : "", message->name2 ? " ..." : "",
             strerror(error));
    if (error == ENOSPC || error == EDQUOT) event_send("error", "code", "disk_full", "message", "the disk of this node is full: it cannot be the secondary until there is room", (char *)NULL);
    pthread_mutex_lock(&state_lock);
    state.exact = state.lost = state.logged = false;
    state_save();
    pthread_mutex_unlock(&state_lock);
    pthread_mutex_lock(&receive.lock);
    snprintf(receive.trouble, sizeof receive.trouble, "%s", why);
    pthread_mutex_unlock(&receive.lock);
    receive_answer(OP_TROUBLE, message->frame.seq, why);
    shutdown(receive.fd, SHUT_RD);
}

static void acknowledge(void) {
    if (options.durable_ack) durable_wanted();
    else receive_acknowledge();
}

// Applies every complete frame. Returns where the rest begins, or -1 when the session must end.
static ssize_t take_frames(struct block *block, size_t at, size_t used) {
    const unsigned char *bytes = block_bytes(block);
    size_t unanswered_bytes = 0;
    int64_t read_at = metrics_now_us();
    unsigned unanswered = 0;
    struct message message;
    ssize_t size;
    while ((size = message_read(bytes + at, used - at, &message)) > 0) {
        at += (size_t)size;
        if (!workers_apply(&message, block, used - at, read_at)) return -1;
        metrics_count(message.frame.op >= OP_RESYNC_BEGIN && message.frame.op < OP_PING ? COUNT_RESYNC : COUNT_REPLICATED, (uint64_t)size);
        unanswered_bytes += (size_t)size;
        if (++unanswered == ACK_FRAMES || unanswered_bytes > ACK_BYTES) {
            acknowledge();
            unanswered = 0;
            unanswered_bytes = 0;
        }
    }
    if (unanswered) acknowledge();
    if (size < 0) {
        pthread_mutex_lock(&receive.lock);
        snprintf(receive.trouble, sizeof receive.trouble, "the primary sent a malformed frame");
        pthread_mutex_unlock(&receive.lock);
        return -1;
    }
    return (ssize_t)at;
}

// Room for the rest of a frame, behind its beginning. Bytes that workers still need stay where they are.
static struct block *make_room(struct block *block, size_t *start, size_t *used) {
    size_t left = *used - *start;
    bool shared = block_is_shared(block);
    uint32_t length = 0;
    if (left >= sizeof length) memcpy(&length, block_bytes(block) + *start, sizeof length);
    if (left || shared) {
        if (*start + length <= BLOCK_SIZE && BLOCK_SIZE - *used >= ROOM) return block;
    }
    struct block *next = shared ? block_take() : block;
    if (left) memmove(block_bytes(next), block_bytes(block) + *start, left);
    if (next != block) block_release(block);
    *start = 0;
    *used = left;
    return next;
}

static void receive_stream(int fd, char *why, size_t why_size) {
    struct block *block = block_take();
    size_t start = 0, used = 0;
    for (;;) {
        ssize_t n = recv(fd, block_bytes(block) + used, BLOCK_SIZE - used, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n < 0 && errno == EAGAIN) snprintf(why, why_size, "nothing heard from the primary for %d ms", options.silence_timeout_ms * 2);
            else snprintf(why, why_size, "%s", n ? strerror(errno) : "the primary closed the connection");
            break;
        }
        used += (size_t)n;
        metrics_count(COUNT_RECEIVED, (uint64_t)n);
        ssize_t taken = take_frames(block, start, used);
        if (taken < 0 || atomic_load(&receive.stopping)) break;
        start = (size_t)taken;
        block = make_room(block, &start, &used);
    }
    block_release(block);
}

// When no worker can fail any more.
static void tell_why(char *why, size_t why_size) {
    pthread_mutex_lock(&receive.lock);
    if (receive.stopping) snprintf(why, why_size, "this node stops being a secondary");
    else if (*receive.trouble) snprintf(why, why_size, "%s", receive.trouble);
    pthread_mutex_unlock(&receive.lock);
}

static void serve(int fd, const char *address, const char *peer_generation) {
    char why[512] = "";
    pthread_mutex_lock(&receive.lock);
    receive.fd = fd;
    receive.connected = !receive.stopping;
    receive.trouble[0] = 0;
    snprintf(receive.address, sizeof receive.address, "%s", address);
    snprintf(receive.peer_generation, sizeof receive.peer_generation, "%s", peer_generation);
    bool stopping = receive.stopping;
    pthread_mutex_unlock(&receive.lock);
    if (stopping) return;
    // A primary beats; one that says nothing for so long is gone.
    int64_t silence = (int64_t)options.silence_timeout_ms * 2;
    struct timeval limit = {.tv_sec = silence / 1000, .tv_usec = silence % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    workers_start();
    answers_begin(fd);
    event_send("primary_connected", "peer_generation", peer_generation, (char *)NULL);
    durable_begin();
    receive_stream(fd, why, sizeof why);
    workers_stop();
    tell_why(why, sizeof why);
    shutdown(fd, SHUT_RDWR);
    durable_end();
    verify_session_ends();
    objects_forget();
    reconcile_end();
    pthread_mutex_lock(&receive.lock);
    receive.connected = false;
    receive.fd = -1;
    pthread_mutex_unlock(&receive.lock);
    bool handover = durable_is_handover();
    say("primary lost: %s%s", why, handover ? " (after its handover)" : "");
    event_send("primary_lost", "reason", why, "handover", handover ? "yes" : "no", (char *)NULL);
}

static void *acceptor_main(void *unused) {
    (void)unused;
    local_thread_begin();
    for (;;) {
        struct pollfd wait[2] = {{receive.listener, POLLIN, 0}, {receive.wake[0], POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) abort();
        if (wait[1].revents) return NULL;
        if (!wait[0].revents) continue;
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int fd = accept4(receive.listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
        if (fd < 0) continue;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        char address[96] = "?";
        getnameinfo((struct sockaddr *)&from, size, address, sizeof address, NULL, 0, NI_NUMERICHOST);
        struct peer peer;
        if (handshake_accept(fd, &peer)) say("%s: refused: %s", address, peer.why);
        else serve(fd, address, peer.generation);
        close(fd);
    }
}

int receive_start(const char *address, unsigned port, char *why, size_t why_size) {
    char service[16];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int error = getaddrinfo(address, service, &hints, &found);
    if (error) {
        snprintf(why, why_size, "%s: %s", address, gai_strerror(error));
        return EINVAL;
    }
    int one = 1;
    receive.listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(receive.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    error = receive.listener < 0 || bind(receive.listener, found->ai_addr, found->ai_addrlen) || listen(receive.listener, 4) ? errno : 0;
    freeaddrinfo(found);
    if (!error && pipe2(receive.wake, O_CLOEXEC)) error = errno;
    if (error) {
        snprintf(why, why_size, "cannot listen on %s port %u: %s", address, port, strerror(error));
        if (receive.listener >= 0) close(receive.listener);
        return error;
    }
    receive.running = true;
    receive.stopping = false;
    if (pthread_create(&receive.acceptor, NULL, acceptor_main, NULL)) abort();
    return 0;
}

void receive_stop(void) {
    if (!receive.running) return;
    if (write(receive.wake[1], "", 1) != 1) abort();
    pthread_mutex_lock(&receive.lock);
    receive.stopping = true;
    if (receive.fd >= 0) shutdown(receive.fd, SHUT_RD);
    pthread_mutex_unlock(&receive.lock);
    pthread_join(receive.acceptor, NULL);
    close(receive.listener);
    close(receive.wake[0]);
    close(receive.wake[1]);
    receive.running = false;
    sync_everything();
}

void receive_get_status(struct receive_status *status) {
    bool mirror = durable_is_mirror();
    pthread_mutex_lock(&receive.lock);
    status->peer = !receive.running ? "none" : !receive.connected ? "listening" : mirror ? "mirror" : "resync";
    snprintf(status->address, sizeof status->address, "%s", receive.connected ? receive.address : "");
    snprintf(status->peer_generation, sizeof status->peer_generation, "%s", receive.peer_generation);
    pthread_mutex_unlock(&receive.lock);
    status->applied = workers_applied();
    status->durable = durable_reached();
    status->queued = workers_queued();
}
