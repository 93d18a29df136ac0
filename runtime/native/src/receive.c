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
#define RESUME_MS 1500 // a primary that lives dials again at once
#define ROOM (64u << 10)

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, connected;
    bool suspended, ending; // the connection broke; somebody else came
    bool goodbye;
    atomic_bool stopping;
    int listener, wake[2];
    struct link *link, *next; // of the session; from the acceptor
    struct peer peer;         // with `next`
    uint64_t heard;           // the last acknowledgement that the primary has, with `next`
    char session[SESSION_SIZE], address[96], peer_generation[GENERATION_SIZE];
    char trouble[512];
    pthread_t acceptor, server;
} receive = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .listener = -1};

// ---- the stream ----

void receive_failed(const struct message *message, int error) {
    char why[512];
    snprintf(why, sizeof why, "%s%s%s%s: %s", operation_name(message->frame.op), message->name ? " " : "", message->name ? message->name : "", message->name2 ? " ..." : "",
             strerror(error));
    if (error == ENOSPC || error == EDQUOT) event_send("error", "code", "disk_full", "message", "the disk of this node is full: it cannot be the secondary until there is room", (char *)NULL);
    pthread_mutex_lock(&state_lock);
    state.exact = state.lost = state.logged = false;
    state.copy[0] = 0;
    state_save();
    pthread_mutex_unlock(&state_lock);
    pthread_mutex_lock(&receive.lock);
    snprintf(receive.trouble, sizeof receive.trouble, "%s", why);
    pthread_mutex_unlock(&receive.lock);
    receive_answer(OP_TROUBLE, message->frame.seq, why);
    pthread_mutex_lock(&receive.lock);
    if (receive.link) link_break_reading(receive.link);
    pthread_mutex_unlock(&receive.lock);
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
        if (message.frame.op == OP_GOODBYE) {
            receive.goodbye = true;
            return -1;
        }
        if (!workers_apply(&message, block, used - at, read_at)) return -1;
        metrics_count(message.frame.op >= OP_RESYNC_BEGIN && message.frame.op < OP_PING ? COUNT_RESYNC : COUNT_REPLICATED, (uint64_t)size);
        // Who waits for the disk is answered then, and hears with that of all that was applied.
        if (message.frame.op == OP_FSYNC && !options.durable_ack) continue;
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

enum end { END_BROKEN, END_LEFT, END_SILENT, END_FAILED };

static enum end receive_stream(struct link *link) {
    struct block *block = block_take();
    size_t start = 0, used = 0;
    enum end end = END_BROKEN;
    for (;;) {
        ssize_t n = link_receive(link, block_bytes(block) + used, BLOCK_SIZE - used);
        if (n <= 0) {
            if (n < 0 && errno == EAGAIN) end = END_SILENT;
            break;
        }
        used += (size_t)n;
        metrics_count(COUNT_RECEIVED, (uint64_t)n);
        ssize_t taken = take_frames(block, start, used);
        if (taken < 0) end = receive.goodbye ? END_LEFT : END_FAILED;
        if (taken < 0 || atomic_load(&receive.stopping)) break;
        start = (size_t)taken;
        block = make_room(block, &start, &used);
    }
    block_release(block);
    return end;
}

// A primary whose connection broke makes another one, and the stream goes on. NULL: it did not within the limit, or somebody else came.
static struct link *wait_for_another(int64_t until) {
    workers_drain();
    answers_suspend();
    pthread_mutex_lock(&receive.lock);
    receive.suspended = true;
    pthread_cond_broadcast(&receive.changed);
    while (!receive.next && !receive.stopping && !receive.ending && !workers_failed() && now_ms() < until) {
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_nsec += 100 * 1000000;
        if (limit.tv_nsec >= 1000000000) limit.tv_sec++, limit.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&receive.changed, &receive.lock, &limit);
    }
    struct link *link = receive.next;
    receive.next = NULL;
    receive.suspended = false;
    link_close(receive.link);
    receive.link = link;
    pthread_mutex_unlock(&receive.lock);
    return link;
}

static void serve(struct link *link, const struct peer *peer) {
    char why[512] = "the primary closed the connection";
    // A primary beats; one that says nothing for so long is gone.
    int silence = options.silence_timeout_ms * 2;
    workers_start();
    answers_begin(link, false, 0);
    event_send("primary_connected", "peer_generation", peer->generation, (char *)NULL);
    durable_begin();
    while (link) {
        link_limit(link, silence);
        enum end end = receive_stream(link);
        if (end == END_SILENT) snprintf(why, sizeof why, "nothing heard from the primary for %d ms", silence);
        if (end != END_BROKEN || receive.stopping || workers_failed()) break;
        link_break(link);
        link = wait_for_another(now_ms() + (silence < RESUME_MS ? silence : RESUME_MS));
        if (link) answers_begin(link, true, receive.heard);
    }
    workers_stop();
    if (atomic_load(&receive.stopping)) receive_answer(OP_GOODBYE, 0, NULL);
    pthread_mutex_lock(&receive.lock);
    if (receive.stopping) snprintf(why, sizeof why, "this node stops being a secondary");
    else if (*receive.trouble) snprintf(why, sizeof why, "%s", receive.trouble);
    if (receive.link) link_break(receive.link);
    pthread_mutex_unlock(&receive.lock);
    answers_suspend();
    durable_end();
    verify_session_ends();
    objects_forget();
    reconcile_end();
    bool handover = durable_is_handover();
    say("primary lost: %s%s", why, handover ? " (after its handover)" : "");
    event_send("primary_lost", "reason", why, "handover", handover ? "yes" : "no", (char *)NULL);
}

// One session after the other. The links come from the acceptor.
static void *session_main(void *unused) {
    (void)unused;
    local_thread_begin();
    for (;;) {
        pthread_mutex_lock(&receive.lock);
        while (!receive.next && !receive.stopping) pthread_cond_wait(&receive.changed, &receive.lock);
        struct peer peer = receive.peer;
        receive.link = receive.next;
        receive.next = NULL;
        receive.connected = !receive.stopping;
        receive.goodbye = false;
        receive.trouble[0] = 0;
        snprintf(receive.session, sizeof receive.session, "%s", peer.session);
        snprintf(receive.peer_generation, sizeof receive.peer_generation, "%s", peer.generation);
        bool stopping = receive.stopping;
        pthread_mutex_unlock(&receive.lock);
        if (!stopping) serve(receive.link, &peer);
        pthread_mutex_lock(&receive.lock);
        link_close(receive.link);
        receive.link = NULL;
        receive.connected = false;
        receive.session[0] = 0;
        pthread_cond_broadcast(&receive.changed);
        pthread_mutex_unlock(&receive.lock);
        if (stopping) return NULL;
    }
}

// ---- who comes ----

// With the lock held: whether the stream goes on over this connection. Its present one is broken, whatever this node knows of it.
static bool goes_on(struct link *link, const struct peer *peer) {
    if (!receive.connected || strcmp(receive.session, peer->session) != 0) return false;
    if (receive.link) link_break(receive.link);
    while (receive.connected && !receive.suspended && !receive.stopping) pthread_cond_wait(&receive.changed, &receive.lock);
    if (!receive.suspended || workers_failed() || handshake_go_on(link, workers_applied())) return false;
    receive.heard = peer->applied;
    receive.next = link;
    pthread_cond_broadcast(&receive.changed);
    say("the primary made its connection again: the stream goes on behind frame %llu", (unsigned long long)workers_applied());
    return true;
}

// A stranger is named once for each address and reason, not at each attempt.
static void say_refused(const char *address, const char *why) {
    static struct {
        char address[96], why[400];
    } said[32];
    static unsigned next;
    for (unsigned i = 0; i < sizeof said / sizeof *said; i++) {
        if (strcmp(said[i].address, address) == 0 && strcmp(said[i].why, why) == 0) return;
    }
    unsigned at = next++ % (sizeof said / sizeof *said);
    snprintf(said[at].address, sizeof said[at].address, "%s", address);
    snprintf(said[at].why, sizeof said[at].why, "%s", why);
    say("%s: refused: %s (not said again)", address, why);
}

static void welcome(struct link *link, const char *address) {
    struct peer peer = {0};
    if (handshake_accept(link, &peer)) {
        say_refused(address, peer.why);
        link_close(link);
        return;
    }
    pthread_mutex_lock(&receive.lock);
    bool taken = peer.resumes && goes_on(link, &peer);
    if (!taken && !peer.resumes) {
        // Whoever is connected is not any more: there is one primary.
        receive.ending = receive.connected;
        if (receive.link) link_break(receive.link);
        if (receive.next) link_break(receive.next);
        while (receive.connected && !receive.stopping) pthread_cond_wait(&receive.changed, &receive.lock);
    }
    pthread_mutex_unlock(&receive.lock);
    if (taken) return;
    if (peer.resumes) {
        handshake_refuse(link, "session", "the secondary does not know the stream any more");
    } else if (handshake_welcome(link, &peer)) {
        say_refused(address, peer.why);
    } else {
        pthread_mutex_lock(&receive.lock);
        taken = !receive.stopping;
        if (taken) {
            receive.peer = peer;
            receive.next = link;
            receive.connected = true;
            receive.suspended = receive.ending = false;
            snprintf(receive.address, sizeof receive.address, "%s", address);
            if (*link_cipher(link)) say("%s: encrypted by %s", address, link_cipher(link));
            pthread_cond_broadcast(&receive.changed);
        }
        pthread_mutex_unlock(&receive.lock);
    }
    if (!taken) link_close(link);
}

static void *acceptor_main(void *unused) {
    (void)unused;
    for (;;) {
        struct pollfd wait[2] = {{receive.listener, POLLIN, 0}, {receive.wake[0], POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) abort();
        if (wait[1].revents) return NULL;
        if (!wait[0].revents) continue;
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int fd = accept4(receive.listener, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
        if (fd < 0) continue;
        char address[96] = "?";
        getnameinfo((struct sockaddr *)&from, size, address, sizeof address, NULL, 0, NI_NUMERICHOST);
        welcome(link_open(fd), address);
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
    receive.suspended = receive.ending = false;
    if (pthread_create(&receive.acceptor, NULL, acceptor_main, NULL) || pthread_create(&receive.server, NULL, session_main, NULL)) abort();
    return 0;
}

void receive_stop(void) {
    if (!receive.running) return;
    if (write(receive.wake[1], "", 1) != 1) abort();
    pthread_mutex_lock(&receive.lock);
    receive.stopping = true;
    if (receive.link) link_break_reading(receive.link);
    pthread_cond_broadcast(&receive.changed);
    pthread_mutex_unlock(&receive.lock);
    pthread_join(receive.acceptor, NULL);
    pthread_join(receive.server, NULL);
    link_close(receive.next);
    receive.next = NULL;
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
