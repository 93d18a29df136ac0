// The control socket. A line is words separated by spaces; the first names the message, every other is key=value in percent-encoding.
// One thread for each connection; one request, one answer; a connection that said "subscribe" gets events until it closes.
#include "diff.h"
#include "events.h"
#include "extent.h"
#include "external.h"
#include "dirty.h"
#include "metrics.h"
#include "module.h"
#include "receive.h"
#include "resync.h"
#include "shared.h"
#include "state.h"
#include "stream.h"
#include "throttle.h"
#include "takeover.h"
#include "verify.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS 32
#define LINE 16384
#define WORDS 12

struct line {
    char text[LINE];
    size_t used;
};

struct request {
    const char *word;
    const char *key[WORDS], *value[WORDS];
    unsigned words;
};

static struct {
    pthread_mutex_t lock;
    int listener, subscriber[CLIENTS], wake[2];
    unsigned clients;
    bool exiting;
} control = {.lock = PTHREAD_MUTEX_INITIALIZER, .listener = -1};

// The connections, for the next worker: controllers see nothing of a take-over but an interrupted command.
struct client {
    int fd; // 0: free
    bool subscribed, busy;
};

static struct {
    int listener;
    struct client client[CLIENTS];
} *kept;

// ---- lines ----

static void put_word(struct line *line, const char *word) {
    int n = snprintf(line->text + line->used, sizeof line->text - line->used, "%s", word);
    line->used += (size_t)n;
}

static void put_value(struct line *line, const char *key, const char *value) {
    if (line->used + strlen(key) + 3 * strlen(value) + 4 > sizeof line->text) return;
    line->used += (size_t)sprintf(line->text + line->used, " %s=", key);
    for (const unsigned char *at = (const unsigned char *)value; *at; at++) {
        if (*at <= ' ' || *at == '%' || *at == '=' || *at == 127) line->used += (size_t)sprintf(line->text + line->used, "%%%02X", *at);
        else line->text[line->used++] = (char)*at;
    }
    line->text[line->used] = 0;
}

static void put_number(struct line *line, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_value(line, key, text);
}

static void put_flag(struct line *line, const char *key, bool value) { put_value(line, key, value ? "yes" : "no"); }

static void send_line(int fd, struct line *line) {
    line->text[line->used++] = '\n';
    // Never waits for a controller: what does not fit into its socket is lost with it.
    if (send(fd, line->text, line->used, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)line->used) shutdown(fd, SHUT_RDWR);
}

static void decode(char *text) {
    char *to = text;
    for (char *from = text; *from; from++) {
        unsigned code;
        if (*from == '%' && sscanf(from + 1, "%2x", &code) == 1) {
            *to++ = (char)code;
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
}

static void parse(char *text, struct request *request) {
    char *rest = NULL;
    *request = (struct request){.word = strtok_r(text, " \n", &rest)};
    for (char *word; request->words < WORDS && (word = strtok_r(NULL, " \n", &rest));) {
        char *equal = strchr(word, '=');
        if (!equal) continue;
        *equal = 0;
        decode(equal + 1);
        request->key[request->words] = word;
        request->value[request->words++] = equal + 1;
    }
}

static const char *value_of(const struct request *request, const char *key) {
    for (unsigned i = 0; i < request->words; i++) {
        if (strcmp(request->key[i], key) == 0) return request->value[i];
    }
    return "";
}

static bool flag_of(const struct request *request, const char *key) { return strcmp(value_of(request, key), "yes") == 0; }

// ---- events ----

void event_send(const char *name, ...) {
    struct line line = {.used = 0};
    put_word(&line, "event");
    put_value(&line, "name", name);
    va_list pairs;
    va_start(pairs, name);
    for (const char *key; (key = va_arg(pairs, const char *));) {
        const char *value = va_arg(pairs, const char *);
        put_value(&line, key, value);
    }
    va_end(pairs);
    pthread_mutex_lock(&control.lock);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct line copy = line;
        if (control.subscriber[i] > 0) send_line(control.subscriber[i], &copy);
    }
    pthread_mutex_unlock(&control.lock);
}

// ---- requests ----

static long memory_kb(void) {
    long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) return 0;
    if (fscanf(file, "%*d %ld", &resident) != 1) resident = 0;
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void put_status(struct line *line) {
    const char *role = module_role();
    struct stream_status stream;
    struct receive_status receive;
    struct progress progress = resync_progress();
    bool secondary = strcmp(role, "secondary") == 0;
    stream_get_status(&stream);
    receive_get_status(&receive);
    put_value(line, "module", options.module);
    put_value(line, "role", role);
    put_value(line, "peer", secondary ? receive.peer : stream.peer);
    put_value(line, "peer_address", secondary ? receive.address : stream.address);
    put_value(line, "peer_generation", secondary ? receive.peer_generation : stream.peer_generation);
    put_number(line, "applied", (int64_t)(secondary ? receive.applied : stream.applied));
    put_number(line, "durable", (int64_t)(secondary ? receive.durable : stream.durable));
    put_number(line, "held", stream.held);
    put_number(line, "pending", stream.pending);
    pthread_mutex_lock(&state_lock);
    put_value(line, "generation", state.generation);
    put_value(line, "published", state.published);
    put_value(line, "base", state.base);
    put_flag(line, "inconsistent", state.inconsistent);
    put_flag(line, "clean", state.clean);
    put_flag(line, "exact", state.exact);
    pthread_mutex_unlock(&state_lock);
    bool primary = strcmp(role, "primary") == 0;
    put_value(line, "tracking", !primary ? "off" : dirty_usable() ? "on" : "unusable");
    put_number(line, "dirty", primary ? (int64_t)dirty_count() : 0);
    put_value(line, "phase", progress.phase);
    put_number(line, "files_done", (int64_t)progress.files_done);
    put_number(line, "files_total", (int64_t)progress.files_total);
    put_number(line, "bytes_done", (int64_t)progress.bytes_done);
    put_number(line, "bytes_total", (int64_t)progress.bytes_total);
    put_number(line, "rate_bps", (int64_t)progress.rate);
    put_number(line, "eta_s", progress.eta);
    put_number(line, "memory_kb", memory_kb());
    put_number(line, "pid", getpid());
}

// What this process measured, whatever its role is. Rates are per second over the last three seconds; a percentile is the upper bound of its
// bucket, bucket i of a histogram counts times below 2^i microseconds.
static void put_stats(struct line *line) {
    put_number(line, "resync_directories_count", (int64_t)resync_progress().directories);
    static const struct {
        enum histogram histogram;
        const char *name;
    } times[] = {{TIME_LOCAL, "local"}, {TIME_WIRE, "wire"}, {TIME_PEER, "apply"}, {TIME_SYNC, "sync"}};
    struct stream_status stream;
    struct receive_status receive;
    struct peer_times peer = metrics_peer();
    struct throttle_status throttle = throttle_get_status();
    stream_get_status(&stream);
    receive_get_status(&receive);
    bool secondary = strcmp(module_role(), "secondary") == 0, primary = strcmp(module_role(), "primary") == 0;
    put_value(line, "role", module_role());
    put_number(line, "sent_bytes", (int64_t)metrics_total(COUNT_SENT));
    put_number(line, "received_bytes", (int64_t)metrics_total(COUNT_RECEIVED));
    put_number(line, "rep_bytes", (int64_t)metrics_total(COUNT_REPLICATED));
    put_number(line, "resync_sent_bytes", secondary ? 0 : (int64_t)metrics_total(COUNT_RESYNC));
    put_number(line, "resync_received_bytes", secondary ? (int64_t)metrics_total(COUNT_RESYNC) : 0);
    put_number(line, "rep_bandwidth_bytes", (int64_t)metrics_rate(COUNT_REPLICATED));
    put_number(line, "rei_bandwidth_bytes", (int64_t)metrics_rate(COUNT_RESYNC));
    put_number(line, "netout_bandwidth_bytes", (int64_t)metrics_rate(COUNT_SENT));
    put_number(line, "netin_bandwidth_bytes", (int64_t)metrics_rate(COUNT_RECEIVED));
    put_number(line, "operations_count", (int64_t)metrics_total(COUNT_OPERATIONS));
    put_number(line, "acknowledgements_count", (int64_t)metrics_total(COUNT_ACKNOWLEDGEMENTS));
    put_number(line, "resumed_count", (int64_t)metrics_total(COUNT_RESUMED));
    put_number(line, "queue_count", secondary ? receive.queued : stream.pending);
    put_number(line, "held_count", stream.held);
    put_number(line, "hole_searches_count", (int64_t)extent_searches());
    put_number(line, "pending_bytes", (int64_t)stream.queued);
    put_number(line, "throttle_pause_percent", throttle.pause_percent);
    put_number(line, "throttle_window_bytes", (int64_t)throttle.window);
    put_number(line, "throttle_quiet_us", (int64_t)throttle.quiet_us);
    put_number(line, "throttle_latency_us", (int64_t)throttle.latency_us);
    put_number(line, "dirty_count", primary ? (int64_t)dirty_count() : 0);
    put_number(line, "dirty_bytes", primary ? (int64_t)dirty_bytes() : 0);
    put_number(line, "peer_p50_us", (int64_t)(secondary ? metrics_percentile(TIME_PEER, 50) : peer.p50_us));
    put_number(line, "peer_p99_us", (int64_t)(secondary ? metrics_percentile(TIME_PEER, 99) : peer.p99_us));
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char key[64], buckets[HISTOGRAM_BUCKETS * 21];
        snprintf(key, sizeof key, "%s_p50_us", times[i].name);
        put_number(line, key, (int64_t)metrics_percentile(times[i].histogram, 50));
        snprintf(key, sizeof key, "%s_p99_us", times[i].name);
        put_number(line, key, (int64_t)metrics_percentile(times[i].histogram, 99));
        snprintf(key, sizeof key, "%s_histogram", times[i].name);
        metrics_buckets(times[i].histogram, buckets, sizeof buckets);
        put_value(line, key, buckets);
    }
    put_number(line, "memory_bytes", memory_kb() * 1024);
}

static int run_connect(const struct request *request, struct line *line, struct failure *failure) {
    bool incremental;
    char reason[160], peer_generation[GENERATION_SIZE];
    int result = module_connect(value_of(request, "host"), value_of(request, "port"), value_of(request, "generation"), flag_of(request, "full"), &incremental,
                                reason, sizeof reason, peer_generation, sizeof peer_generation, failure);
    if (result) return result;
    put_flag(line, "incremental", incremental);
    put_value(line, "reason", reason);
    put_value(line, "peer_generation", peer_generation);
    event_send("connected", "incremental", incremental ? "yes" : "no", "reason", reason, "peer_generation", peer_generation, (char *)NULL);
    return 0;
}

static int run_verify(const struct request *request, struct failure *failure) {
    unsigned flags = (strcmp(value_of(request, "content"), "no") == 0 ? VERIFY_METADATA : 0) | (flag_of(request, "repair") ? VERIFY_REPAIR : 0) |
                     (flag_of(request, "full-speed") ? VERIFY_FULL_SPEED : 0) | (flag_of(request, "cancel") ? VERIFY_CANCEL : 0);
    return verify_command(flags, (unsigned)atoi(value_of(request, "limit")), failure);
}

static int put_verify_report(struct line *line) {
    struct verify_report report = verify_report_get();
    put_flag(line, "running", report.running);
    put_flag(line, "equal", report.ended && !report.differing && !*report.failed);
    put_number(line, "differing_files", (int64_t)report.differing);
    put_number(line, "differing_bytes", (int64_t)report.differing_bytes);
    put_number(line, "files", (int64_t)report.files);
    put_number(line, "files_total", (int64_t)report.files_total);
    put_number(line, "bytes", (int64_t)report.bytes);
    put_number(line, "bytes_total", (int64_t)report.bytes_total);
    put_number(line, "seconds", report.seconds);
    put_number(line, "ended", report.ended);
    put_value(line, "failed", report.failed);
    put_value(line, "list", report.list);
    return 0;
}

static int put_diff_report(struct line *line) {
    struct diff_report report = diff_get();
    put_flag(line, "running", report.running);
    put_flag(line, "equal", report.ended && !report.differing && !report.directories && !*report.failed);
    put_flag(line, "full", report.full);
    put_number(line, "differing_files", (int64_t)report.differing);
    put_number(line, "differing_bytes", (int64_t)report.differing_bytes);
    put_number(line, "files", (int64_t)report.files);
    put_number(line, "bytes", (int64_t)report.bytes);
    put_number(line, "directories", (int64_t)report.directories);
    put_number(line, "seconds", report.seconds);
    put_number(line, "ended", report.ended);
    put_value(line, "failed", report.failed);
    put_value(line, "list", report.list);
    return 0;
}

static int set_limit(const struct request *request, struct failure *failure) {
    const char *text = value_of(request, "bandwidth");
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (!*text || *end || value > 1000000000) {
        snprintf(failure->code, sizeof failure->code, "value");
        snprintf(failure->message, sizeof failure->message, "bandwidth: %.64s, expected KB/s, 0 for no limit", text);
        return -1;
    }
    __atomic_store_n(&options.resync_bandwidth, (unsigned)value, __ATOMIC_RELAXED);
    return 0;
}

static int run(const struct request *request, struct line *line, struct failure *failure) {
    const char *word = request->word ? request->word : "";
    const char *generation = value_of(request, "generation");
    if (strlen(generation) >= GENERATION_SIZE || strchr(generation, '\n')) {
        snprintf(failure->code, sizeof failure->code, "value");
        snprintf(failure->message, sizeof failure->message, "generation: at most %d characters on one line", GENERATION_SIZE - 1);
        return -1;
    }
    if (strcmp(word, "status") == 0) return put_status(line), 0;
    if (strcmp(word, "stats") == 0) return put_stats(line), 0;
    if (strcmp(word, "primary") == 0) return module_primary(generation, flag_of(request, "force"), failure);
    if (strcmp(word, "connect") == 0) return run_connect(request, line, failure);
    if (strcmp(word, "disconnect") == 0) return module_disconnect(failure);
    if (strcmp(word, "alone") == 0) return module_alone(generation, flag_of(request, "leave"), failure);
    if (strcmp(word, "publish") == 0) return module_publish(generation, failure);
    if (strcmp(word, "secondary") == 0)
        return module_secondary(value_of(request, "address"), (unsigned)atoi(value_of(request, "port")), generation, flag_of(request, "clean"), failure);
    if (strcmp(word, "handover") == 0) return module_handover(atoi(value_of(request, "timeout")), failure);
    if (strcmp(word, "idle") == 0) return module_idle(flag_of(request, "force"), failure);
    if (strcmp(word, "external-primary") == 0) return external_primary(value_of(request, "uid"), strcmp(value_of(request, "check"), "no") != 0, failure);
    if (strcmp(word, "external-secondary") == 0) return external_secondary(value_of(request, "uid"), strcmp(value_of(request, "check"), "no") != 0, failure);
    if (strcmp(word, "verify") == 0) return run_verify(request, failure);
    if (strcmp(word, "verify-result") == 0) return put_verify_report(line);
    if (strcmp(word, "diff") == 0) return diff_start(failure);
    if (strcmp(word, "diff-result") == 0) return put_diff_report(line);
    if (strcmp(word, "limit") == 0) return set_limit(request, failure);
    if (strcmp(word, "exit") == 0) return module_idle(flag_of(request, "force"), failure);
    snprintf(failure->code, sizeof failure->code, "unknown");
    snprintf(failure->message, sizeof failure->message, "unknown command %.64s", word);
    return -1;
}

static void answer(int fd, const struct request *request) {
    struct line line = {.used = 0};
    struct failure failure = {0};
    put_word(&line, "ok");
    if (run(request, &line, &failure)) {
        line.used = 0;
        put_word(&line, "error");
        put_value(&line, "code", failure.code);
        put_value(&line, "message", failure.message);
    } else if (request->word && strcmp(request->word, "exit") == 0) {
        send_line(fd, &line);
        control_end();
        return;
    }
    send_line(fd, &line);
}

static bool subscribe(int fd, bool on) {
    bool done = false;
    struct line line = {.used = 0};
    put_word(&line, "ok");
    pthread_mutex_lock(&control.lock);
    if (on) send_line(fd, &line); // before the first event, and none is missed after it
    for (unsigned i = 0; i < CLIENTS && !done; i++) {
        if (control.subscriber[i] == (on ? 0 : fd)) {
            control.subscriber[i] = on ? fd : 0;
            done = true;
        }
    }
    pthread_mutex_unlock(&control.lock);
    return done;
}

static void *client_main(void *argument) {
    struct client *client = argument;
    int fd = client->fd;
    char text[LINE];
    size_t used = 0;
    for (;;) {
        ssize_t n = recv(fd, text + used, sizeof text - 1 - used, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        used += (size_t)n;
        text[used] = 0;
        for (char *end; (end = strchr(text, '\n'));) {
            struct request request;
            *end = 0;
            parse(text, &request);
            if (request.word && strcmp(request.word, "subscribe") == 0) {
                client->subscribed = client->subscribed || subscribe(fd, true);
            } else {
                client->busy = true;
                answer(fd, &request);
                client->busy = false;
            }
            size_t eaten = (size_t)(end + 1 - text);
            memmove(text, end + 1, used - eaten + 1);
            used -= eaten;
        }
        if (used == sizeof text - 1) break;
    }
    if (client->subscribed) subscribe(fd, false);
    client->subscribed = false;
    shared_drop(fd);
    pthread_mutex_lock(&control.lock);
    client->fd = 0;
    control.clients--;
    pthread_mutex_unlock(&control.lock);
    close(fd);
    return NULL;
}

static bool serve_client(struct client *client) {
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 512u << 10);
    int error = pthread_create(&thread, &small, client_main, client);
    pthread_attr_destroy(&small);
    return !error;
}

static void add_client(int fd) {
    struct client *client = NULL;
    pthread_mutex_lock(&control.lock);
    for (unsigned i = 0; i < CLIENTS && !client; i++) {
        if (!kept->client[i].fd) client = &kept->client[i];
    }
    if (client) {
        *client = (struct client){.fd = fd};
        control.clients++;
        shared_keep(fd);
    }
    pthread_mutex_unlock(&control.lock);
    if (client && serve_client(client)) return;
    if (client) client->fd = 0;
    close(fd);
}

// What a worker that died left. The threads begin later.
static void take_clients_over(void) {
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *client = &kept->client[i];
        if (!client->fd) continue;
        control.clients++;
        if (client->subscribed) control.subscriber[i] = client->fd;
        if (!client->busy) continue;
        struct line line = {.used = 0};
        client->busy = false;
        put_word(&line, "error");
        put_value(&line, "code", "interrupted");
        put_value(&line, "message", "the data plane died, another goes on: ask again");
        send_line(client->fd, &line);
    }
}

// ---- the socket ----

int control_open(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    kept = shared_area("control", sizeof *kept);
    if (takeover_of_primary()) {
        control.listener = kept->listener;
        take_clients_over();
        return pipe2(control.wake, O_CLOEXEC) ? errno : 0;
    }
    if (strlen(options.control) >= sizeof address.sun_path) return ENAMETOOLONG;
    strcpy(address.sun_path, options.control);
    control.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control.listener < 0) return errno;
    if (connect(control.listener, (struct sockaddr *)&address, sizeof address) == 0) return EADDRINUSE; // another process lives
    close(control.listener);
    control.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(options.control);
    mode_t before = umask(0177);
    int error = bind(control.listener, (struct sockaddr *)&address, sizeof address) || listen(control.listener, 16) ? errno : 0;
    umask(before);
    if (!error && pipe2(control.wake, O_CLOEXEC)) error = errno;
    kept->listener = control.listener;
    shared_keep(control.listener);
    return error;
}

void control_end(void) {
    if (write(control.wake[1], "", 1) != 1) abort();
}

void control_run(void) {
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (kept->client[i].fd && !serve_client(&kept->client[i])) abort();
    }
    for (;;) {
        struct pollfd wait[2] = {{control.listener, POLLIN, 0}, {control.wake[0], POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR) abort();
        if (wait[1].revents & POLLIN) break;
        if (!(wait[0].revents & POLLIN)) continue;
        int fd = accept4(control.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) add_client(fd);
    }
    unlink(options.control);
}
