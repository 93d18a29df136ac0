// Who follows whom. See supervisor.h.
#include "supervisor.h"
#include "shared.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// The runtime of the thread sanitizer knows nothing of a clone: such a program has one process.
#ifdef __SANITIZE_THREAD__
#define SUPERVISED 0
#else
#define SUPERVISED 1
#endif

#define RESUME "SAFEKIT_RFS_RESUME"
#define SHORT_LIFE_MS 100
#define SHORT_LIVES 8 // so many workers one after another that die at once: it is no accident

static struct {
    atomic_bool serving, stopping;
    atomic_int supervisor;
    atomic_uint short_lives;
    _Atomic int64_t begun;
} *life;

static char **program_arguments, **resume_environment;
static const char *program;
extern char **environ;

// A fork that shares the table of descriptors.
static pid_t clone_sharing(void) { return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL); }

static int descriptor_of(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

// Whether another worker may follow the one that died. Safe in a process that was cloned from one of many threads.
static bool goes_on(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (atomic_load(&life->stopping) || !atomic_load(&life->serving)) return false;
    if (now - atomic_load(&life->begun) > SHORT_LIFE_MS) atomic_store(&life->short_lives, 0);
    return atomic_fetch_add(&life->short_lives, 1) < SHORT_LIVES;
}

// ---- the supervisor ----

// Whether the program that is installed now understands the shared memory: it is asked.
static bool program_fits(void) {
    char layout[16];
    int status = 0;
    snprintf(layout, sizeof layout, "%u", SHARED_LAYOUT);
    pid_t asked = fork();
    if (!asked) {
        execl(program, program, "--layout", layout, (char *)NULL);
        _exit(127);
    }
    return asked > 0 && waitpid(asked, &status, 0) == asked && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// The kept descriptors go on to the next program. Nothing but this process may share their table any more.
static void become_next_program(const char *path) {
    for (int fd = -1; (fd = shared_kept_next(fd)) >= 0;) fcntl(fd, F_SETFD, 0);
    execve(path, program_arguments, resume_environment);
}

static int wait_for_worker(pid_t worker, const sigset_t *signals, bool *upgrade) {
    *upgrade = false;
    for (;;) {
        int status, number = sigwaitinfo(signals, NULL);
        if (number == SIGTERM || number == SIGINT) kill(worker, SIGTERM);
        if (number == SIGHUP) {
            *upgrade = atomic_load(&life->serving) && program_fits();
            if (*upgrade) kill(worker, SIGKILL); // to applications it is a pause
            else say("%s cannot go on where this program is: stop and start the module", program);
        }
        if (number == SIGCHLD && waitpid(worker, &status, WNOHANG) == worker) return status;
    }
}

static void resume_prepare(char **arguments) {
    static char text[48];
    size_t count = 0;
    snprintf(text, sizeof text, RESUME "=%d", shared_memory());
    while (environ[count]) count++;
    resume_environment = must(calloc(count + 2, sizeof *resume_environment));
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(environ[i], RESUME "=", sizeof RESUME) != 0) resume_environment[used++] = environ[i];
    }
    resume_environment[used] = text;
    program_arguments = arguments;
    program = strchr(arguments[0], '/') ? arguments[0] : "/proc/self/exe";
}

void supervisor_run(char **arguments) {
    const char *resume = getenv(RESUME);
    int error = resume ? shared_adopt(atoi(resume)) : shared_create();
    if (error) {
        say("the shared memory: %s", strerror(error));
        exit(1);
    }
    life = shared_area("supervisor", sizeof *life);
    resume_prepare(arguments);
    bool follows = resume != NULL;
    if (!SUPERVISED) {
        shared_next_worker(follows);
        return;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    for (;; follows = true) {
        atomic_store(&life->supervisor, getpid());
        pid_t worker = clone_sharing();
        if (worker < 0) {
            say("no worker: %s", strerror(errno));
            exit(1);
        }
        if (!worker) {
            shared_next_worker(follows);
            atomic_store(&life->begun, now_ms());
            return;
        }
        bool upgrade;
        int status = wait_for_worker(worker, &signals, &upgrade);
        if (upgrade && WIFSIGNALED(status)) {
            say("another program goes on: %s", program);
            become_next_program(program);
            say("%s: %s", program, strerror(errno));
        }
        if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !atomic_load(&life->serving))) _exit(WEXITSTATUS(status));
        if (!goes_on()) {
            say("the worker died (%s %d)", WIFSIGNALED(status) ? "signal" : "code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
            _exit(1);
        }
        say("the worker died (%s %d): another goes on", WIFSIGNALED(status) ? "signal" : "code", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
}

// ---- the worker's side ----

// In a clone of a worker of many threads, whose locks nobody will ever release: only what is safe in a signal handler.
static void stand_by(int worker) {
    struct pollfd wait = {worker, POLLIN, 0};
    while (poll(&wait, 1, -1) < 1) {}
    if (!goes_on()) _exit(atomic_load(&life->stopping) ? 0 : 1);
    become_next_program("/proc/self/exe");
    _exit(1);
}

static void *watch_main(void *unused) {
    (void)unused;
    int self = descriptor_of(getpid());
    pid_t supervisor = atomic_load(&life->supervisor);
    int watched = getppid() == supervisor ? descriptor_of(supervisor) : -1;
    if (self < 0) return NULL; // an old kernel: nobody watches the supervisor
    for (;;) {
        struct pollfd wait = {watched, POLLIN, 0};
        if (watched >= 0 && poll(&wait, 1, -1) < 0) continue;
        if (watched >= 0) close(watched);
        waitpid(supervisor, NULL, WNOHANG); // one that was made here
        if (atomic_load(&life->stopping)) return NULL;
        say("the supervisor died: another takes its place");
        supervisor = clone_sharing();
        if (!supervisor) stand_by(self);
        if (supervisor < 0) {
            say("no supervisor: %s", strerror(errno));
            return NULL;
        }
        watched = descriptor_of(supervisor);
    }
}

void supervisor_watch(void) {
    if (!SUPERVISED) return;
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 128u << 10);
    if (pthread_create(&thread, &small, watch_main, NULL)) abort();
    pthread_attr_destroy(&small);
}

void supervisor_serving(bool serving) { atomic_store(&life->serving, serving); }

void supervisor_stopping(void) { atomic_store(&life->stopping, true); }
