// OpenSSL does the handshake only. It reads no byte beyond it (no reading ahead), and sends none after it (no tickets): the records that follow begin
// with number 0 in both directions, under the secrets that it derived.
#include "tls.h"
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

const char tls_cipher[] = "TLSv1.3 TLS_AES_128_GCM_SHA256";
static const unsigned char identity[] = "safekit";

struct heard {
    unsigned char client[SECRET_SIZE], server[SECRET_SIZE];
    bool has_client, has_server;
};

static void secret_of_module(unsigned char out[32]) {
    static const unsigned char label[] = "replication: secret of TLS 1.3";
    unsigned size = 32;
    HMAC(EVP_sha256(), options.key, (int)options.key_size, label, sizeof label - 1, out, &size);
}

static SSL_SESSION *make_session(SSL *ssl) {
    unsigned char key[32];
    secret_of_module(key);
    // AES-128-GCM: the fastest where the processor helps.
    static const unsigned char aes128_gcm_sha256[] = {0x13, 0x01};
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, aes128_gcm_sha256);
    SSL_SESSION *session = SSL_SESSION_new();
    bool made = session && cipher && SSL_SESSION_set1_master_key(session, key, sizeof key) && SSL_SESSION_set_cipher(session, cipher) &&
                SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION);
    OPENSSL_cleanse(key, sizeof key);
    if (made) return session;
    SSL_SESSION_free(session);
    return NULL;
}

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

static bool from_hex(const char *text, unsigned char out[SECRET_SIZE]) {
    for (unsigned i = 0; i < SECRET_SIZE; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1) return false;
        out[i] = (unsigned char)byte;
    }
    return true;
}

// "LABEL RANDOM SECRET", the two in hexadecimal.
static void hear(const SSL *ssl, const char *line) {
    struct heard *heard = SSL_get_app_data(ssl);
    const char *secret = strrchr(line, ' ');
    if (!heard || !secret || strlen(++secret) != 2 * SECRET_SIZE) return;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) == 0) heard->has_client = from_hex(secret, heard->client);
    if (strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24) == 0) heard->has_server = from_hex(secret, heard->server);
}

static SSL_CTX *context(void) {
    static SSL_CTX *made;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    if (!made) {
        SSL_CTX *fresh = must(SSL_CTX_new(TLS_method()));
        SSL_CTX_set_min_proto_version(fresh, TLS1_3_VERSION);
        SSL_CTX_set_ciphersuites(fresh, "TLS_AES_128_GCM_SHA256");
        SSL_CTX_set_options(fresh, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
        SSL_CTX_clear_options(fresh, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
        SSL_CTX_set_num_tickets(fresh, 0);
        SSL_CTX_set_session_cache_mode(fresh, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_read_ahead(fresh, 0);
        SSL_CTX_set_psk_use_session_callback(fresh, offer_secret);
        SSL_CTX_set_psk_find_session_callback(fresh, find_secret);
        SSL_CTX_set_keylog_callback(fresh, hear);
        made = fresh;
    }
    pthread_mutex_unlock(&lock);
    return made;
}

// Whoever has another key is sent an alert before the connection is closed: an end without one is the end of the connection only.
static bool broke_off(const SSL *ssl, int result) {
    return SSL_get_error(ssl, result) != SSL_ERROR_SSL || ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

enum agreement tls_agree(int fd, bool accepts, struct secrets *secrets, char *why, size_t why_size) {
    struct heard heard = {0};
    SSL *ssl = must(SSL_new(context()));
    enum agreement agreement = REFUSED;
    SSL_set_app_data(ssl, &heard);
    ERR_clear_error();
    if (SSL_set_fd(ssl, fd) != 1) abort();
    int result = accepts ? SSL_accept(ssl) : SSL_connect(ssl);
    if (result == 1 && heard.has_client && heard.has_server && SSL_pending(ssl) == 0) {
        memcpy(secrets->mine, accepts ? heard.server : heard.client, SECRET_SIZE);
        memcpy(secrets->theirs, accepts ? heard.client : heard.server, SECRET_SIZE);
        agreement = AGREED;
    } else if (result != 1 && broke_off(ssl, result)) {
        snprintf(why, why_size, "the connection was closed while encryption began");
        agreement = BROKEN_OFF;
    } else {
        const char *reason = ERR_reason_error_string(ERR_peek_last_error());
        snprintf(why, why_size, "encryption could not begin (%s): the keys of the module differ, or the other end is not this product", reason ? reason : "no reason given");
    }
    ERR_clear_error();
    SSL_free(ssl);
    OPENSSL_cleanse(&heard, sizeof heard);
    return agreement;
}
