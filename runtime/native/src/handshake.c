// Challenge and response with HMAC-SHA256 over both greetings, each side under its own label, then one line of text from each side.
// Neither key nor data of the module are shown to a peer that has not proven the key.
#include "handshake.h"
#include "apply.h"
#include "frame.h"
#include "limits.h"
#include "offer.h"
#include "select.h"
#include "state.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define GREETING_MS 1500 // a stranger that says nothing holds up nobody for longer
#define HANDSHAKE_MS 5000
#define OFFER_MS 120000 // a log may take a while to be looked up
#define OFFER_LIMIT 16384

struct hello {
    char magic[8];
    uint32_t version, flags;
    unsigned char nonce[32];
};

#define HELLO_ENCRYPTED 1u
static const char magic[8] = "SKRFS\r\n";

static int refuse(struct peer *peer, const char *code, const char *why) {
    snprintf(peer->code, sizeof peer->code, "%s", code);
    snprintf(peer->why, sizeof peer->why, "%s", why);
    return -1;
}

static void prove(const char *label, const struct hello *primary, const struct hello *secondary, unsigned char out[32]) {
    unsigned char text[16 + 2 * sizeof(struct hello)] = {0};
    unsigned size = 32;
    memcpy(text, label, strlen(label));
    memcpy(text + 16, primary, sizeof *primary);
    memcpy(text + 16 + sizeof *primary, secondary, sizeof *secondary);
    HMAC(EVP_sha256(), options.key, (int)options.key_size, text, sizeof text, out, &size);
}

// An offer: size, then "key=value\n" lines.
static bool put_text(struct link *link, const char *text) {
    uint32_t size = (uint32_t)strlen(text);
    return link_put(link, &size, sizeof size) && link_put(link, text, size);
}

static bool get_text(struct link *link, char *text) {
    uint32_t size;
    if (!link_get(link, &size, sizeof size) || size >= OFFER_LIMIT || !link_get(link, text, size)) return false;
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

static int exchange_hello(struct link *link, struct hello *mine, struct hello *theirs, struct peer *peer) {
    *mine = (struct hello){.version = WIRE_VERSION, .flags = options.encryption ? HELLO_ENCRYPTED : 0};
    memcpy(mine->magic, magic, sizeof magic);
    if (getrandom(mine->nonce, sizeof mine->nonce, 0) != (ssize_t)sizeof mine->nonce) abort();
    if (!link_put(link, mine, sizeof *mine) || !link_get(link, theirs, sizeof *theirs)) return refuse(peer, "unreachable", "the other end did not answer the greeting");
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

// First one word in the clear, so that a node of another version or with another setting is told why; then everything under encryption. What was
// said in the clear is part of both proofs: nobody between the nodes can have changed it.
static int greet(struct link *link, bool accepts, struct hello *mine, struct hello *theirs, struct peer *peer) {
    link_limit(link, accepts ? GREETING_MS : HANDSHAKE_MS);
    if (exchange_hello(link, mine, theirs, peer)) return -1;
    link_limit(link, HANDSHAKE_MS);
    if ((theirs->flags ^ mine->flags) & HELLO_ENCRYPTED) {
        return refuse(peer, "encryption", mine->flags & HELLO_ENCRYPTED ? "the stream is encrypted on this node and not on the other: apply the same configuration to both"
                                                                        : "the stream is encrypted on the other node and not on this one: apply the same configuration to both");
    }
    char why[300];
    switch (mine->flags & HELLO_ENCRYPTED ? link_encrypt(link, accepts, why, sizeof why) : AGREED) {
    case AGREED: return 0;
    case BROKEN_OFF: return refuse(peer, "unreachable", why);
    case REFUSED: break;
    }
    return refuse(peer, "key", why);
}

static int prove_both(struct link *link, struct peer *peer) {
    struct hello mine, theirs;
    unsigned char proof[32], expected[32];
    if (greet(link, false, &mine, &theirs, peer)) return -1;
    prove("primary", &mine, &theirs, proof);
    if (!link_put(link, proof, sizeof proof) || !link_get(link, proof, sizeof proof)) {
        // Under encryption both have shown the key already, and who closes does not refuse it.
        if (*link_cipher(link)) return refuse(peer, "unreachable", "the connection was closed");
        return refuse(peer, "key", "the other node refused this node's key: the keys of the module differ");
    }
    prove("secondary", &mine, &theirs, expected);
    if (CRYPTO_memcmp(proof, expected, sizeof proof) != 0) return refuse(peer, "key", "the other node could not prove the key of the module");
    return 0;
}

static int ask(struct link *link, char text[OFFER_LIMIT], struct peer *peer) {
    if (!put_text(link, text) || !get_text(link, text)) return refuse(peer, "unreachable", "the other node closed the connection");
    value_of(text, "refused", peer->code, sizeof peer->code);
    value_of(text, "why", peer->why, sizeof peer->why);
    return *peer->code ? -1 : 0;
}

static bool flag_of(const char *text, const char *key) {
    char word[16];
    value_of(text, key, word, sizeof word);
    return strcmp(word, "1") == 0;
}

static uint64_t number_of(const char *text, const char *key) {
    char word[32];
    value_of(text, key, word, sizeof word);
    return strtoull(word, NULL, 10);
}

int handshake_connect(struct link *link, bool full, struct peer *peer) {
    char text[OFFER_LIMIT], directories[8192];
    unsigned char random[SESSION_SIZE / 2];
    if (prove_both(link, peer)) return -1;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) abort();
    for (size_t i = 0; i < sizeof random; i++) sprintf(peer->session + 2 * i, "%02x", random[i]);
    directories_text(directories, sizeof directories);
    pthread_mutex_lock(&state_lock);
    snprintf(text, sizeof text, "module=%s\ndirectories=%s\ngeneration=%s\nfull=%d\nsession=%s\n", options.module, directories, state.generation, full, peer->session);
    pthread_mutex_unlock(&state_lock);
    char asked[LIMITS_TEXT];
    limits_ask(asked, sizeof asked);
    strcat(text, asked);
    if (ask(link, text, peer)) return -1;
    limits_judge(asked, text);
    value_of(text, "generation", peer->generation, sizeof peer->generation);
    value_of(text, "base", peer->base, sizeof peer->base);
    value_of(text, "copy", peer->copy, sizeof peer->copy);
    peer->objects = (unsigned)number_of(text, "objects");
    peer->exact = flag_of(text, "exact");
    peer->lost = flag_of(text, "lost");
    peer->log = flag_of(text, "log");
    link_limit(link, OFFER_MS);
    if (peer->log && !offer_receive(link, &peer->named, &peer->log_whole)) return refuse(peer, "unreachable", "the other node did not tell its log to the end");
    link_limit(link, 0);
    return 0;
}

int handshake_resume(struct link *link, const char *session, uint64_t heard, uint64_t *applied, struct peer *peer) {
    char text[OFFER_LIMIT], directories[8192];
    // Both had the key when the stream began. Until the other end has proved it again, nothing is known to be its word: a connection that is cut in
    // the middle of the greeting looks like another key.
    if (prove_both(link, peer)) return refuse(peer, "unreachable", "the connection was closed");
    directories_text(directories, sizeof directories);
    snprintf(text, sizeof text, "module=%s\ndirectories=%s\nsession=%s\nresumes=1\napplied=%llu\n", options.module, directories, session, (unsigned long long)heard);
    if (ask(link, text, peer)) return -1;
    *applied = number_of(text, "applied");
    link_limit(link, 0);
    return 0;
}

int handshake_accept(struct link *link, struct peer *peer) {
    struct hello mine, theirs;
    unsigned char proof[32], expected[32];
    char text[OFFER_LIMIT], directories[8192], value[8192];
    if (greet(link, true, &mine, &theirs, peer)) return -1;
    prove("primary", &theirs, &mine, expected);
    if (!link_get(link, proof, sizeof proof)) return refuse(peer, "key", "no proof of the key");
    if (CRYPTO_memcmp(proof, expected, sizeof proof) != 0) return refuse(peer, "key", "it does not have the key of the module");
    prove("secondary", &theirs, &mine, proof);
    if (!link_put(link, proof, sizeof proof) || !get_text(link, text)) return refuse(peer, "unreachable", "the connection was closed");
    value_of(text, "generation", peer->generation, sizeof peer->generation);
    value_of(text, "session", peer->session, sizeof peer->session);
    peer->resumes = flag_of(text, "resumes");
    peer->applied = number_of(text, "applied");
    value_of(text, "module", value, sizeof value);
    if (strcmp(value, options.module) != 0) {
        snprintf(peer->why, sizeof peer->why, "module %.64s is not module %.64s", value, options.module);
        handshake_refuse(link, "refused", peer->why);
        return -1;
    }
    directories_text(directories, sizeof directories);
    value_of(text, "directories", value, sizeof value);
    if (strcmp(value, directories) != 0) {
        snprintf(peer->why, sizeof peer->why, "the replicated directories differ: %.150s there, %.150s here", value, directories);
        handshake_refuse(link, "directories", peer->why);
        return -1;
    }
    if (!peer->resumes) limits_answer(text, peer->facts, sizeof peer->facts);
    return 0;
}

void handshake_refuse(struct link *link, const char *code, const char *why) {
    char text[1024];
    snprintf(text, sizeof text, "refused=%s\nwhy=%s\n", code, why);
    put_text(link, text);
}

int handshake_welcome(struct link *link, struct peer *peer) {
    char text[OFFER_LIMIT];
    pthread_mutex_lock(&state_lock);
    bool counts = !state.inconsistent || state.partial, exact = state.exact && counts, lost = !exact && state.lost && counts;
    bool log = !exact && state.logged && counts && dirty_offer(NULL);
    snprintf(text, sizeof text, "generation=%s\nbase=%s\ncopy=%s\nexact=%d\nlost=%d\nlog=%d\nobjects=%u\n", state.generation, state.base, state.copy, exact, lost, log, objects_limit());
    pthread_mutex_unlock(&state_lock);
    strcat(text, peer->facts);
    link_limit(link, OFFER_MS);
    if (!put_text(link, text) || (log && !offer_send(link))) return refuse(peer, "unreachable", "the connection was closed");
    link_limit(link, 0);
    return 0;
}

int handshake_go_on(struct link *link, uint64_t applied) {
    char text[64];
    snprintf(text, sizeof text, "applied=%llu\n", (unsigned long long)applied);
    return put_text(link, text) ? 0 : -1;
}
