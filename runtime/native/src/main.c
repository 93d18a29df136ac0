// safekit-rfs: the data plane of one replicated module. Arguments, key, signals; everything else is commanded over the control socket.
#include "common.h"
#include "events.h"
#include "limits.h"
#include "module.h"
#include "mount.h"
#include "select.h"
#include "room.h"
#include "shared.h"
#include "state.h"
#include "stream.h"
#include "supervisor.h"
#include "takeover.h"
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARGUMENTS 4096

static void usage(FILE *out) {
    fprintf(out, "usage: safekit-rfs --module NAME --control SOCKET --state-dir DIR --key-file FILE --directory DIR [--name NAME]\n"
                 "                   [--exclude-path RELATIVE] [--exclude-name [!]EXPRESSION] [--directory ...]\n"
                 "                   [--ack-timeout MILLISECONDS] [--silence-timeout MILLISECONDS] [--async second|none]\n"
                 "                   [--encryption on|off] [--source ADDRESS]\n"
                 "                   [--zone-size BYTES] [--resync-threads NUMBER] [--resync-bandwidth KB/s] [--resync-timeout SECONDS]\n"
                 "                   [--resync-commit ZONES] [--namespace-policy 0|4] [--boot-id TEXT]\n"
                 "       safekit-rfs --config FILE          one argument per line\n");
}

static int wrong(const char *option, const char *value, const char *expected) {
    fprintf(stderr, "safekit-rfs: %s %s: %s\n", option, value, expected);
    return 2;
}

static int take_resync_option(int option, const char *text) {
    static const struct {
        int option;
        const char *name, *expected;
        unsigned long least, most;
    } known[] = {{'z', "--zone-size", "expected 65536 to 1073741824 bytes", 65536, 1ul << 30},
                 {'T', "--resync-threads", "expected 1 to 64", 1, 64},
                 {'B', "--resync-bandwidth", "expected KB/s, 0 for no limit", 0, 1000000000},
                 {'O', "--resync-timeout", "expected 1 to 86400 seconds", 1, 86400},
                 {'C', "--resync-commit", "expected zones, 0 for none", 0, 1000000},
                 {'M', "--namespace-policy", "expected 0 or 4", 0, 4}};
    size_t i = 0;
    while (known[i].option != option) i++;
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (!*text || *end || value < known[i].least || value > known[i].most || (option == 'M' && value != 0 && value != 4))
        return wrong(known[i].name, text, known[i].expected);
    switch (option) {
    case 'z':
        for (options.zone_size = ZONE_SIZE_MIN; options.zone_size < value && options.zone_size < ZONE_SIZE_MAX;) options.zone_size *= 2;
        break;
    case 'T': options.resync_threads = (unsigned)value; break;
    case 'B': options.resync_bandwidth = (unsigned)value; break;
    case 'O': options.resync_timeout_s = (unsigned)value; break;
    case 'C': break; // the secondary commits what it got every second (durable.c)
    default: options.resync_whole = value == 0;
    }
    return 0;
}

static int take_arguments(int count, char **arguments) {
    static const struct option known[] = {{"module", 1, NULL, 'm'},    {"control", 1, NULL, 'c'}, {"state-dir", 1, NULL, 's'},   {"key-file", 1, NULL, 'k'},
                                          {"directory", 1, NULL, 'd'}, {"name", 1, NULL, 'n'},    {"ack-timeout", 1, NULL, 't'}, {"async", 1, NULL, 'a'},
                                          {"silence-timeout", 1, NULL, 'q'}, {"exclude-path", 1, NULL, 'P'}, {"exclude-name", 1, NULL, 'N'},
                                          {"zone-size", 1, NULL, 'z'}, {"resync-threads", 1, NULL, 'T'}, {"resync-bandwidth", 1, NULL, 'B'},
                                          {"resync-timeout", 1, NULL, 'O'}, {"resync-commit", 1, NULL, 'C'}, {"namespace-policy", 1, NULL, 'M'},
                                          {"boot-id", 1, NULL, 'b'}, {"encryption", 1, NULL, 'e'}, {"source", 1, NULL, 'f'},
                                          {"help", 0, NULL, 'h'},      {NULL, 0, NULL, 0}};
    optind = 1;
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        struct directory *last = options.directories ? &options.directory[options.directories - 1] : NULL;
        switch (option) {
        case 'm': options.module = optarg; break;
        case 'c': options.control = optarg; break;
        case 's': options.state_dir = optarg; break;
        case 'k': options.key_file = optarg; break;
        case 't':
        case 'q': {
            int value = atoi(optarg);
            if (value < 500 || value > 3600000) return wrong(option == 't' ? "--ack-timeout" : "--silence-timeout", optarg, "expected 500 to 3600000 milliseconds");
            *(option == 't' ? &options.ack_timeout_ms : &options.silence_timeout_ms) = value;
            break;
        }
        case 'a':
            options.durable_ack = strcmp(optarg, "none") == 0;
            if (!options.durable_ack && strcmp(optarg, "second") != 0) return wrong("--async", optarg, "expected second or none");
            break;
        case 'd': {
            if (options.directories == DIRECTORY_LIMIT) return wrong("--directory", optarg, "too many directories");
            char *real = realpath(optarg, NULL);
            struct directory *directory = &options.directory[options.directories];
            *directory = (struct directory){.path = real ? real : optarg, .name = optarg, .index = options.directories++, .root = -1};
            break;
        }
        case 'n':
            if (!last) return wrong("--name", optarg, "must follow a --directory");
            last->name = optarg;
            break;
        case 'P':
        case 'N': {
            const char *name = option == 'P' ? "--exclude-path" : "--exclude-name";
            if (!last) return wrong(name, optarg, "must follow a --directory");
            const char *why = option == 'P' ? select_add_path(last->index, optarg) : select_add_name(last->index, optarg);
            if (why) return wrong(name, optarg, why);
            break;
        }
        case 'b': options.boot_id = optarg; break;
        case 'f': options.source = optarg; break;
        case 'e':
            options.encryption = strcmp(optarg, "on") == 0;
            if (!options.encryption && strcmp(optarg, "off") != 0) return wrong("--encryption", optarg, "expected on or off");
            break;
        case 'z':
        case 'T':
        case 'B':
        case 'O':
        case 'C':
        case 'M':
            if (take_resync_option(option, optarg)) return 2;
            break;
        case 'h': usage(stdout); exit(0);
        default: usage(stderr); return 2;
        }
    }
    if (optind < count) return wrong("argument", arguments[optind], "not expected");
    if (!options.module || !options.control || !options.state_dir || !options.key_file || !options.directories) {
        usage(stderr);
        return 2;
    }
    return 0;
}

// What this process writes for itself must not go through its own mount: it would wait for itself.
static int check_places(void) {
    const char *places[] = {options.state_dir, options.control};
    for (unsigned i = 0; i < 2; i++) {
        char *copy = must(strdup(places[i])), *real = realpath(i ? dirname(copy) : copy, NULL);
        bool inside = false;
        for (unsigned d = 0; real && d < options.directories; d++) {
            size_t size = strlen(options.directory[d].path);
            inside = inside || (strncmp(real, options.directory[d].path, size) == 0 && (real[size] == '/' || !real[size]));
        }
        free(copy);
        free(real);
        if (inside) return wrong(i ? "--control" : "--state-dir", places[i], "must not lie in a replicated directory");
    }
    return 0;
}

static int read_config(const char *path, char *program) {
    static char *arguments[ARGUMENTS];
    int count = 0;
    FILE *file = fopen(path, "re");
    if (!file) return wrong("--config", path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    arguments[count++] = program;
    while (count < ARGUMENTS - 1 && getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (*line) arguments[count++] = must(strdup(line));
    }
    free(line);
    fclose(file);
    return take_arguments(count, arguments);
}

static int read_key(void) {
    FILE *file = fopen(options.key_file, "re");
    if (!file) return wrong("--key-file", options.key_file, strerror(errno));
    options.key_size = fread(options.key, 1, sizeof options.key, file);
    fclose(file);
    if (options.key_size < 16) return wrong("--key-file", options.key_file, "expected at least 16 bytes");
    return 0;
}

static void *signals_main(void *argument) {
    int number;
    sigwait(argument, &number);
    say("signal %d: stopping", number);
    control_end();
    return NULL;
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "--layout") == 0) return atoi(arguments[2]) == (int)SHARED_LAYOUT ? 0 : 1; // an older one asks
    int error = count == 3 && strcmp(arguments[1], "--config") == 0 ? read_config(arguments[2], arguments[0]) : take_arguments(count, arguments);
    if (!error) error = read_key();
    if (!error) error = check_places();
    if (error) return error;

    supervisor_run(arguments);
    // Few arenas: the memory of a data plane matters more than the last bit of parallel allocation.
    mallopt(M_ARENA_MAX, 4);
    struct rlimit files = {1u << 20, 1u << 20};
    if (setrlimit(RLIMIT_NOFILE, &files)) {
        getrlimit(RLIMIT_NOFILE, &files);
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    static sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    // The end of this process must not take OpenSSL down under threads that still use it, nor forget what it keeps for them.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
    // The kernel must not wait for our own mount when it looks for memory for us. Older kernels and containers may refuse: then it may.
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);

    mkdir(options.state_dir, 0700);
    takeover_open();
    if (takeover_of_primary()) shared_close_others();
    if ((error = control_open())) {
        say("%s: %s", options.control, error == EADDRINUSE ? "another safekit-rfs serves this module" : strerror(error));
        return 1;
    }
    bool was_secondary = false;
    if ((error = state_load(&was_secondary))) {
        say("%s: %s", options.state_dir, strerror(error));
        return 1;
    }
    if (takeover_of_primary()) {
        if ((error = module_take_over())) {
            say("cannot take over: %s", strerror(error));
            return 1;
        }
    } else if (select_changed()) {
        // What was excluded then and is not now was never compared.
        pthread_mutex_lock(&state_lock);
        state.base[0] = state.copy[0] = 0;
        state.exact = state.lost = state.logged = false;
        state_save();
        pthread_mutex_unlock(&state_lock);
    }
    if (!takeover_of_primary()) {
        if (mount_clear_stale(was_secondary)) return 1;
        module_keeps_protection();
    }
    limits_begin();
    if (takeover_of_primary()) event_send("resumed", "reason", "one of its processes was killed", (char *)NULL);
    room_open();
    pthread_t signals;
    if (pthread_create(&signals, NULL, signals_main, &set)) abort();
    pthread_detach(signals); // another request may end us: nobody waits for a signal
    supervisor_watch();
    control_run();
    struct failure failure;
    stream_refuse();
    if (module_idle(false, &failure) && module_idle(true, &failure)) say("%s", failure.message);
    supervisor_stopping();
    return 0;
}
