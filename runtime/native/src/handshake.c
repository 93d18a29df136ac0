// Challenge and response with HMAC-SHA256 over both nonces, each side under its own label, then one line of text from each side.
// Neither key nor data of the module are shown to a peer that has not proven the key.
#include "handshake.h"
#include "frame.h"
#include "limits.h"
#include "offer.h"
#include "select.h"
#include "state.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>

#define HANDSHAKE_S 5
#define OFFER_S 120
#define OFFER_LIMIT 16384

struct hello {
    char magic[8];
    uint32_t version, reserved;
    unsigned char nonce[32];
};

static const char magic[8] = "SKRFS\r\n";

static bool put(int fd, const void *bytes, size_t size) {
    for (const char *at = bytes; size;) {
        ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool get(int fd, void *bytes, size_t size) {
    for (char *at = bytes; size;) {
        ssize_t n = recv(fd, at, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static int refuse(struct peer *peer, const char *code, const char *why) {
    snprintf(peer->code, sizeof peer->code, "%s", code);
    snprintf(peer->why, sizeof peer->why, "%s", why);
    return -1;
}

static void prove(const char *label, const struct hello *primary, const struct hello *secondary, unsigned char out[32]) {
    unsigned char text[16 + 64] = {0};
    unsigned size = 32;
    memcpy(text, label, strlen(label));
    memcpy(text + 16, primary->nonce, 32);
    memcpy(text + 48, secondary->nonce, 32);
    HMAC(EVP_sha256(), options.key, (int)options.key_size, text, sizeof text, out, &size);
}

// An offer: size, then "key=value\n" lines.
static bool put_text(int fd, const char *text) {
    uint32_t size = (uint32_t)strlen(text);
    return put(fd, &size, sizeof size) && put(fd, text, size);
}

static bool get_text(int fd, char *text) {
    uint32_t size;
    if (!get(fd, &size, sizeof size) || size >= OFFER_LIMIT || !get(fd, text, size)) return false;
    text[size] = 0;
    return strlen(text) == size;
}

static void value_of(const char *text, const char *key, char *out, size_t size) {
    out[0] = 0;
    size_t key_size = strlen(key);
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        if (!strchr(line, '\n')) return;
        if (strncmp(line, key, key_size) == 0 && line[key_size] == '=') {
            snprintf(out, size, "%.*s", (int)(strcspn(line, "\n") - key_size - 1), line + key_size + 1);
            return;
        }
    }
}

static void directories_text(char *out, size_t size) {
    out[0] = 0;
    for (unsigned i = 0; i < options.directories; i++) {
        size_t used = strlen(out);
        char selection[4096];
        select_text(&options.directory[i], selection, sizeof selection);
        snprintf(out + used, size - used, "%s%s%s", i ? ":" : "", options.directory[i].name, selection);
    }
}

static int exchange_hello(int fd, struct hello *mine, struct hello *theirs, struct peer *peer) {
    struct timeval limit = {.tv_sec = HANDSHAKE_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    *mine = (struct hello){.version = WIRE_VERSION};
    memcpy(mine->magic, magic, sizeof magic);
    if (getrandom(mine->nonce, sizeof mine->nonce, 0) != (ssize_t)sizeof mine->nonce) abort();
    if (!put(fd, mine, sizeof *mine) || !get(fd, theirs, sizeof *theirs)) return refuse(peer, "unreachable", "the other end did not answer the greeting");
    if (memcmp(theirs->magic, magic, sizeof magic) != 0) return refuse(peer, "version", "the other end is no SafeKit replication");
    if (theirs->version != WIRE_VERSION) {
        char why[128];
        snprintf(why, sizeof why, "the other node speaks version %u of the replication protocol, this one version %u", theirs->version, WIRE_VERSION);
        return refuse(peer, "version", why);
    }
    // A mirror image of our own greeting proves nothing.
    if (memcmp(theirs->nonce, mine->nonce, sizeof mine->nonce) == 0) return refuse(peer, "key", "the other end repeats our own challenge");
    return 0;
}

// A log may take a while to be looked up.
static void patient(int fd) {
    struct timeval limit = {.tv_sec = OFFER_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static void endless(int fd) {
    struct timeval none = {0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none);
}

int handshake_connect(int fd, bool full, struct peer *peer) {
    struct hello mine, theirs;
    unsigned char proof[32], expected[32];
    char text[OFFER_LIMIT], directories[8192], word[16];
    if (exchange_hello(fd, &mine, &theirs, peer)) return -1;
    prove("primary", &mine, &theirs, proof);
    if (!put(fd, proof, sizeof proof) || !get(fd, proof, sizeof proof)) return refuse(peer, "key", "the other node refused this node's key: the keys of the module differ");
    prove("secondary", &mine, &theirs, expected);
    if (CRYPTO_memcmp(proof, expected, sizeof proof) != 0) return refuse(peer, "key", "the other node could not prove the key of the module");
    directories_text(directories, sizeof directories);
    pthread_mutex_lock(&state_lock);
    snprintf(text, sizeof text, "module=%s\ndirectories=%s\ngeneration=%s\nfull=%d\n", options.module, directories, state.generation, full);
    pthread_mutex_unlock(&state_lock);
    char asked[LIMITS_TEXT];
    limits_ask(asked, sizeof asked);
    strcat(text, asked);
    if (!put_text(fd, text) || !get_text(fd, text)) return refuse(peer, "unreachable", "the other node closed the connection");
    limits_judge(asked, text);
    value_of(text, "refused", peer->code, sizeof peer->code);
    if (*peer->code) {
        value_of(text, "why", peer->why, sizeof peer->why);
        return -1;
    }
    value_of(text, "generation", peer->generation, sizeof peer->generation);
    value_of(text, "base", peer->base, sizeof peer->base);
    value_of(text, "exact", word, sizeof word);
    peer->exact = strcmp(word, "1") == 0;
    value_of(text, "lost", word, sizeof word);
    peer->lost = strcmp(word, "1") == 0;
    value_of(text, "log", word, sizeof word);
    peer->log = strcmp(word, "1") == 0;
    patient(fd);
    if (peer->log && !offer_receive(fd, get, &peer->named, &peer->log_whole)) return refuse(peer, "unreachable", "the other node did not tell its log to the end");
    endless(fd);
    return 0;
}

int handshake_accept(int fd, struct peer *peer) {
    struct hello mine, theirs;
    unsigned char proof[32], expected[32];
    char text[OFFER_LIMIT], directories[8192], value[8192];
    if (exchange_hello(fd, &mine, &theirs, peer)) return -1;
    prove("primary", &theirs, &mine, expected);
    if (!get(fd, proof, sizeof proof)) return refuse(peer, "key", "no proof of the key");
    if (CRYPTO_memcmp(proof, expected, sizeof proof) != 0) return refuse(peer, "key", "it does not have the key of the module");
    prove("secondary", &theirs, &mine, proof);
    if (!put(fd, proof, sizeof proof) || !get_text(fd, text)) return refuse(peer, "unreachable", "the connection was closed");
    value_of(text, "generation", peer->generation, sizeof peer->generation);
    value_of(text, "module", value, sizeof value);
    if (strcmp(value, options.module) != 0) {
        snprintf(peer->why, sizeof peer->why, "module %.64s is not module %.64s", value, options.module);
        snprintf(text, sizeof text, "refused=refused\nwhy=%s\n", peer->why);
        put_text(fd, text);
        return -1;
    }
    directories_text(directories, sizeof directories);
    value_of(text, "directories", value, sizeof value);
    if (strcmp(value, directories) != 0) {
        snprintf(peer->why, sizeof peer->why, "the replicated directories differ: %.150s there, %.150s here", value, directories);
        snprintf(text, sizeof text, "refused=directories\nwhy=%s\n", peer->why);
        put_text(fd, text);
        return -1;
    }
    char facts[LIMITS_TEXT];
    limits_answer(text, facts, sizeof facts);
    pthread_mutex_lock(&state_lock);
    bool counts = !state.inconsistent || state.partial, exact = state.exact && counts, lost = !exact && state.lost && counts;
    bool log = !exact && state.logged && counts && dirty_offer(NULL);
    snprintf(text, sizeof text, "generation=%s\nbase=%s\nexact=%d\nlost=%d\nlog=%d\n", state.generation, state.base, exact, lost, log);
    pthread_mutex_unlock(&state_lock);
    strcat(text, facts);
    patient(fd);
    if (!put_text(fd, text) || (log && !offer_send(fd, put))) return refuse(peer, "unreachable", "the connection was closed");
    endless(fd);
    return 0;
}
