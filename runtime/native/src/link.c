// An SSL object is not for two threads at once, so its descriptor does not block: whoever would have to wait does so outside of the lock.
// No tickets and no renegotiation: after the handshake both directions carry records of data only, which the kernel can encrypt where it knows TLS.
#include "link.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TLS_READ_BUFFER (256u << 10)
#define TLS_PIECE (64u << 10) // encrypted under the lock at once

struct link {
    int fd, limit_ms;
    SSL *ssl;
    pthread_mutex_t lock;
    char cipher[64];
};

struct link *link_open(int fd) {
    struct link *link = must(calloc(1, sizeof *link));
    int one = 1;
    link->fd = fd;
    pthread_mutex_init(&link->lock, NULL);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    return link;
}

void link_close(struct link *link) {
    if (!link) return;
    SSL_free(link->ssl);
    close(link->fd);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

void link_break(struct link *link) { shutdown(link->fd, SHUT_RDWR); }

void link_break_reading(struct link *link) { shutdown(link->fd, SHUT_RD); }

void link_limit(struct link *link, int milliseconds) {
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    link->limit_ms = milliseconds;
    setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

const char *link_cipher(const struct link *link) { return link->cipher; }

// ---- encryption ----

static void secret(unsigned char out[32]) {
    static const unsigned char label[] = "replication: secret of TLS 1.3";
    unsigned size = 32;
    HMAC(EVP_sha256(), options.key, (int)options.key_size, label, sizeof label - 1, out, &size);
}

static SSL_SESSION *make_session(SSL *ssl) {
    unsigned char key[32];
    secret(key);
    // AES-128-GCM: the fastest where the processor helps, and what every kernel with TLS knows.
    static const unsigned char aes128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    if (session && cipher && SSL_SESSION_set1_master_key(session, key, sizeof key) && SSL_SESSION_set_cipher(session, cipher) &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
        return session;
    SSL_SESSION_free(session);
    return NULL;
}

static const unsigned char identity[] = "safekit";

static int offer_secret(SSL *ssl, const EVP_MD *digest, const unsigned char **id, size_t *id_size, SSL_SESSION **session) {
    (void)digest;
    *session = make_session(ssl);
    *id = identity;
    *id_size = sizeof identity - 1;
    return *session != NULL;
}

static int find_secret(SSL *ssl, const unsigned char *id, size_t id_size, SSL_SESSION **session) {
    *session = NULL;
    if (id_size != sizeof identity - 1 || memcmp(id, identity, id_size) != 0) return 1;
    *session = make_session(ssl);
    return *session != NULL;
}

static SSL_CTX *context(void) {
    static SSL_CTX *made;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!made) {
        SSL_CTX *fresh = must(SSL_CTX_new(TLS_method()));
        SSL_CTX_set_min_proto_version(fresh, TLS1_3_VERSION);
        SSL_CTX_set_ciphersuites(fresh, "TLS_AES_128_GCM_SHA256");
        SSL_CTX_set_options(fresh, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_ENABLE_KTLS);
        SSL_CTX_set_num_tickets(fresh, 0);
        SSL_CTX_set_session_cache_mode(fresh, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_mode(fresh, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
        SSL_CTX_set_read_ahead(fresh, 1);
        SSL_CTX_set_default_read_buffer_len(fresh, TLS_READ_BUFFER);
        SSL_CTX_set_psk_use_session_callback(fresh, offer_secret);
        SSL_CTX_set_psk_find_session_callback(fresh, find_secret);
        made = fresh;
    }
    pthread_mutex_unlock(&lock);
    return made;
}

// Waits until the connection can go on. False: the limit has passed, or it broke.
static bool wait_for(const struct link *link, int error, int limit_ms) {
    struct pollfd wait = {link->fd, error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN, 0};
    for (;;) {
        int ready = poll(&wait, 1, limit_ms ? limit_ms : -1);
        if (ready > 0) return true;
        if (ready < 0 && errno == EINTR) continue;
        if (!ready) errno = EAGAIN;
        return false;
    }
}

bool link_encrypt(struct link *link, bool accepts, char *why, size_t why_size) {
    int limit_ms = link->limit_ms;
    fcntl(link->fd, F_SETFL, fcntl(link->fd, F_GETFL) | O_NONBLOCK);
    link->ssl = must(SSL_new(context()));
    SSL_set_fd(link->ssl, link->fd);
    for (;;) {
        ERR_clear_error();
        int done = accepts ? SSL_accept(link->ssl) : SSL_connect(link->ssl);
        if (done == 1) break;
        int error = SSL_get_error(link->ssl, done);
        if ((error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) && wait_for(link, error, limit_ms)) continue;
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        snprintf(why, why_size, "encryption could not begin (%s): the keys of the module differ, or the other end is not this product", reason ? reason : "connection closed");
        ERR_clear_error();
        return false;
    }
    bool sends = BIO_get_ktls_send(SSL_get_wbio(link->ssl)), receives = BIO_get_ktls_recv(SSL_get_rbio(link->ssl));
    snprintf(link->cipher, sizeof link->cipher, "%s %s%s", SSL_get_version(link->ssl), SSL_get_cipher_name(link->ssl), sends && receives ? " in the kernel" : "");
    return true;
}

// ---- bytes ----

static ssize_t send_encrypted(struct link *link, const void *bytes, size_t size) {
    for (;;) {
        size_t done = 0;
        pthread_mutex_lock(&link->lock);
        ERR_clear_error();
        int result = SSL_write_ex(link->ssl, bytes, size < TLS_PIECE ? size : TLS_PIECE, &done);
        int error = result ? 0 : SSL_get_error(link->ssl, result);
        pthread_mutex_unlock(&link->lock);
        if (result) return (ssize_t)done;
        if ((error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) || !wait_for(link, error, link->limit_ms)) return -1;
    }
}

static ssize_t receive_encrypted(struct link *link, void *bytes, size_t size) {
    for (;;) {
        size_t done = 0;
        pthread_mutex_lock(&link->lock);
        ERR_clear_error();
        int result = SSL_read_ex(link->ssl, bytes, size, &done);
        int error = result ? 0 : SSL_get_error(link->ssl, result);
        // What is decrypted already comes in one step with it.
        while (result && done < size && SSL_pending(link->ssl)) {
            size_t more = 0;
            if (!SSL_read_ex(link->ssl, (char *)bytes + done, size - done, &more)) break;
            done += more;
        }
        pthread_mutex_unlock(&link->lock);
        if (result) return (ssize_t)done;
        if (error == SSL_ERROR_ZERO_RETURN) return 0;
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            errno = ECONNRESET;
            return -1;
        }
        if (!wait_for(link, error, link->limit_ms)) return -1;
    }
}

ssize_t link_send(struct link *link, const void *bytes, size_t size) {
    if (link->ssl) return send_encrypted(link, bytes, size);
    for (;;) {
        ssize_t n = send(link->fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        return n > 0 ? n : -1;
    }
}

ssize_t link_receive(struct link *link, void *bytes, size_t size) {
    if (link->ssl) return receive_encrypted(link, bytes, size);
    for (;;) {
        ssize_t n = recv(link->fd, bytes, size, 0);
        if (n < 0 && errno == EINTR) continue;
        return n;
    }
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
