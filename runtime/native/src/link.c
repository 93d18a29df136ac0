// Sending and receiving share nothing, so neither waits for the other: plain, both are one call of the kernel; encrypted, each has its own keys
// and its own buffer beside that call.
#include "link.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define SEALED_PIECE (64u << 10) // the other end opens it while the next one is sealed
#define RECEIVE_BUFFER (256u << 10)

struct link {
    int fd;
    bool encrypted;
    struct {
        struct records *records;
        unsigned char *sealed;
    } out;
    struct {
        struct records *records;
        unsigned char *bytes;  // records, as they came
        size_t start, used;
        unsigned char *opened; // what the last caller had no room for
        size_t left;
        bool ended;
    } in;
};

struct link *link_open(int fd) {
    struct link *link = must(calloc(1, sizeof *link));
    int one = 1;
    link->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    return link;
}

void link_close(struct link *link) {
    if (!link) return;
    records_close(link->out.records);
    records_close(link->in.records);
    free(link->out.sealed);
    free(link->in.bytes);
    close(link->fd);
    free(link);
}

void link_break(struct link *link) { shutdown(link->fd, SHUT_RDWR); }

void link_break_reading(struct link *link) { shutdown(link->fd, SHUT_RD); }

void link_limit(struct link *link, int milliseconds) {
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

enum agreement link_encrypt(struct link *link, bool accepts, char *why, size_t why_size) {
    struct secrets secrets;
    enum agreement agreement = tls_agree(link->fd, accepts, &secrets, why, why_size);
    if (agreement != AGREED) return agreement;
    link->out.records = records_open(secrets.mine, true);
    link->in.records = records_open(secrets.theirs, false);
    OPENSSL_cleanse(&secrets, sizeof secrets);
    link->out.sealed = must(malloc(records_room(SEALED_PIECE)));
    link->in.bytes = must(malloc(RECEIVE_BUFFER));
    link->encrypted = true;
    return AGREED;
}

const char *link_cipher(const struct link *link) { return link->encrypted ? tls_cipher : ""; }

// ---- bytes ----

static ssize_t receive_some(int fd, void *bytes, size_t size) {
    for (;;) {
        ssize_t n = recv(fd, bytes, size, 0);
        if (n < 0 && errno == EINTR) continue;
        return n;
    }
}

static bool send_all(int fd, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

ssize_t link_send(struct link *link, const void *bytes, size_t size) {
    if (link->encrypted) {
        if (size > SEALED_PIECE) size = SEALED_PIECE;
        return send_all(link->fd, link->out.sealed, records_seal(link->out.records, bytes, size, link->out.sealed)) ? (ssize_t)size : -1;
    }
    for (;;) {
        ssize_t n = send(link->fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        return n > 0 ? n : -1;
    }
}

static size_t give_left(struct link *link, void *bytes, size_t size) {
    if (!link->in.left) return 0;
    if (size > link->in.left) size = link->in.left;
    memcpy(bytes, link->in.opened, size);
    link->in.opened += size;
    link->in.left -= size;
    return size;
}

// Opens every record that is there and for whose content there is room; the first one in any case, where it lies. -1: not of the other node.
static ssize_t open_records(struct link *link, unsigned char *bytes, size_t size) {
    size_t done = give_left(link, bytes, size);
    while (!link->in.ended && !link->in.left) {
        unsigned char *record = link->in.bytes + link->in.start, *content = bytes + done;
        ssize_t length = records_next(record, link->in.used - link->in.start);
        if (length < 0) return -1;
        if (!length) break;
        bool fits = records_content((size_t)length) <= size - done;
        if (!fits && done) break;
        if (!fits) content = record + RECORD_HEADER;
        size_t carried;
        switch (records_unseal(link->in.records, record, (size_t)length, content, &carried)) {
        case OPENED_FORGED: return -1;
        case OPENED_END: link->in.ended = true; break;
        case OPENED_RENEW: records_renew(link->out.records); break;
        case OPENED_NOTHING:
        case OPENED_DATA: break;
        }
        link->in.start += (size_t)length;
        if (fits) {
            done += carried;
        } else {
            link->in.opened = content;
            link->in.left = carried;
            done += give_left(link, bytes, size);
        }
    }
    return (ssize_t)done;
}

static ssize_t receive_encrypted(struct link *link, void *bytes, size_t size) {
    for (;;) {
        ssize_t opened = open_records(link, bytes, size);
        if (opened > 0) return opened;
        if (opened < 0) {
            errno = EBADMSG;
            return -1;
        }
        if (link->in.ended) return 0;
        // Nothing complete is left, so the beginning of a record moves for nothing but a few bytes.
        memmove(link->in.bytes, link->in.bytes + link->in.start, link->in.used - link->in.start);
        link->in.used -= link->in.start;
        link->in.start = 0;
        ssize_t n = receive_some(link->fd, link->in.bytes + link->in.used, RECEIVE_BUFFER - link->in.used);
        if (n <= 0) return n;
        link->in.used += (size_t)n;
    }
}

ssize_t link_receive(struct link *link, void *bytes, size_t size) {
    return link->encrypted ? receive_encrypted(link, bytes, size) : receive_some(link->fd, bytes, size);
}

bool link_put(struct link *link, const void *bytes, size_t size) {
    for (const char *at = bytes; size;) {
        ssize_t n = link_send(link, at, size);
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

bool link_get(struct link *link, void *bytes, size_t size) {
    for (char *at = bytes; size;) {
        ssize_t n = link_receive(link, at, size);
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

// ---- dialling ----

static int dial_one(const struct addrinfo *to, int milliseconds) {
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
    if (fd < 0) return -1;
    if (options.source && *options.source) {
        struct addrinfo hints = {.ai_family = to->ai_family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *source = NULL;
        if (getaddrinfo(options.source, NULL, &hints, &source) == 0) {
            if (bind(fd, source->ai_addr, source->ai_addrlen)) error = errno;
            freeaddrinfo(source);
        }
    }
    struct pollfd wait = {fd, POLLOUT, 0};
    socklen_t size = sizeof error;
    if (!error) {
        if (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS) error = errno;
        else if (poll(&wait, 1, milliseconds) <= 0) error = ETIMEDOUT;
        else getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (!error) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        return fd;
    }
    close(fd);
    errno = error;
    return -1;
}

int link_dial(const char *host, const char *port, int milliseconds, char *why, size_t why_size) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int error = getaddrinfo(host, port, &hints, &found), fd = -1;
    if (error) {
        snprintf(why, why_size, "%s: %s", host, gai_strerror(error));
        errno = EHOSTUNREACH;
        return -1;
    }
    errno = ECONNREFUSED;
    for (const struct addrinfo *to = found; to && fd < 0; to = to->ai_next) fd = dial_one(to, milliseconds);
    error = errno;
    freeaddrinfo(found);
    if (fd < 0) snprintf(why, why_size, "cannot connect to %s port %s: %s", host, port, strerror(error));
    errno = error;
    return fd;
}
