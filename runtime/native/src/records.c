#include "records.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define TAG 16u
#define NONCE 12u
// RFC 8446, 5.5: with AES-GCM a key is good for 2^24.5 records.
#define RECORDS_OF_A_KEY (1ull << 23)

enum kind { KIND_ALERT = 21, KIND_HANDSHAKE = 22, KIND_DATA = 23 };
#define KEY_UPDATE 24
#define CLOSE_NOTIFY 0

struct records {
    EVP_CIPHER_CTX *cipher;
    uint64_t number; // of the next record under this key
    atomic_bool renew;
    unsigned char secret[SECRET_SIZE], nonce[NONCE];
};

// HKDF-Expand-Label without a context, for at most one block (RFC 8446, 7.1).
static void expand(const unsigned char secret[SECRET_SIZE], const char *label, unsigned char *out, size_t size) {
    unsigned char text[64], block[SECRET_SIZE];
    unsigned block_size = sizeof block;
    size_t used = 0, label_size = strlen(label);
    text[used++] = 0;
    text[used++] = (unsigned char)size;
    text[used++] = (unsigned char)(6 + label_size);
    memcpy(text + used, "tls13 ", 6);
    memcpy(text + used + 6, label, label_size);
    used += 6 + label_size;
    text[used++] = 0; // no context
    text[used++] = 1; // the first block
    if (!HMAC(EVP_sha256(), secret, SECRET_SIZE, text, used, block, &block_size)) abort();
    memcpy(out, block, size);
    OPENSSL_cleanse(block, sizeof block);
}

static void take_key(struct records *records, int seals) {
    unsigned char key[16];
    expand(records->secret, "key", key, sizeof key);
    expand(records->secret, "iv", records->nonce, sizeof records->nonce);
    if (!EVP_CipherInit_ex(records->cipher, EVP_aes_128_gcm(), NULL, key, NULL, seals)) abort();
    OPENSSL_cleanse(key, sizeof key);
    records->number = 0;
}

static void next_key(struct records *records) {
    unsigned char next[SECRET_SIZE];
    expand(records->secret, "traffic upd", next, sizeof next);
    memcpy(records->secret, next, sizeof next);
    OPENSSL_cleanse(next, sizeof next);
    take_key(records, -1);
}

struct records *records_open(const unsigned char secret[SECRET_SIZE], bool seals) {
    struct records *records = must(calloc(1, sizeof *records));
    records->cipher = must(EVP_CIPHER_CTX_new());
    memcpy(records->secret, secret, SECRET_SIZE);
    take_key(records, seals);
    return records;
}

void records_close(struct records *records) {
    if (!records) return;
    EVP_CIPHER_CTX_free(records->cipher);
    OPENSSL_cleanse(records, sizeof *records);
    free(records);
}

size_t records_room(size_t size) {
    // One more, if the key is renewed.
    return size + (size / RECORD_CONTENT + 2) * RECORD_EXTRA + RECORD_HEADER;
}

static void begin(struct records *records, const unsigned char header[RECORD_HEADER]) {
    unsigned char nonce[NONCE];
    memcpy(nonce, records->nonce, sizeof nonce);
    for (unsigned i = 0; i < 8; i++) nonce[NONCE - 1 - i] ^= (unsigned char)(records->number >> (8 * i));
    records->number++;
    int done;
    if (!EVP_CipherInit_ex(records->cipher, NULL, NULL, NULL, nonce, -1) || !EVP_CipherUpdate(records->cipher, NULL, &done, header, RECORD_HEADER)) abort();
}

static size_t seal_one(struct records *records, enum kind kind, const void *bytes, size_t size, unsigned char *out) {
    size_t body = size + 1 + TAG;
    unsigned char header[RECORD_HEADER] = {KIND_DATA, 3, 3, (unsigned char)(body >> 8), (unsigned char)body}, type = (unsigned char)kind;
    int done;
    begin(records, header);
    memcpy(out, header, RECORD_HEADER);
    out += RECORD_HEADER;
    if (!EVP_EncryptUpdate(records->cipher, out, &done, bytes, (int)size) || !EVP_EncryptUpdate(records->cipher, out + size, &done, &type, 1) ||
        !EVP_EncryptFinal_ex(records->cipher, out + size + 1, &done) || !EVP_CIPHER_CTX_ctrl(records->cipher, EVP_CTRL_AEAD_GET_TAG, TAG, out + size + 1))
        abort();
    return RECORD_HEADER + body;
}

size_t records_seal(struct records *records, const void *bytes, size_t size, unsigned char *out) {
    const unsigned char *from = bytes;
    unsigned char *to = out;
    if (records->number >= RECORDS_OF_A_KEY || atomic_exchange_explicit(&records->renew, false, memory_order_relaxed)) {
        static const unsigned char update[] = {KEY_UPDATE, 0, 0, 1, 0};
        to += seal_one(records, KIND_HANDSHAKE, update, sizeof update, to);
        next_key(records);
    }
    while (size) {
        size_t piece = size < RECORD_CONTENT ? size : RECORD_CONTENT;
        to += seal_one(records, KIND_DATA, from, piece, to);
        from += piece;
        size -= piece;
    }
    return (size_t)(to - out);
}

void records_renew(struct records *records) { atomic_store_explicit(&records->renew, true, memory_order_relaxed); }

ssize_t records_next(const unsigned char *bytes, size_t size) {
    if (size < RECORD_HEADER) return 0;
    size_t body = (size_t)bytes[3] << 8 | bytes[4];
    if (bytes[0] != KIND_DATA || bytes[1] != 3 || bytes[2] != 3 || body < TAG + 1 || RECORD_HEADER + body > RECORD_LIMIT) return -1;
    return size < RECORD_HEADER + body ? 0 : (ssize_t)(RECORD_HEADER + body);
}

size_t records_content(size_t length) { return length - RECORD_EXTRA; }

// What is neither data nor the end: the only message that may come after the handshake is that of a new key.
static enum opened control(struct records *records, enum kind kind, const unsigned char *content, size_t size) {
    if (kind == KIND_ALERT) return size == 2 && content[1] == CLOSE_NOTIFY ? OPENED_END : OPENED_FORGED;
    if (kind != KIND_HANDSHAKE || size != 5 || content[0] != KEY_UPDATE || content[1] || content[2] || content[3] != 1 || content[4] > 1) return OPENED_FORGED;
    next_key(records);
    return content[4] ? OPENED_RENEW : OPENED_NOTHING;
}

enum opened records_unseal(struct records *records, const unsigned char *record, size_t length, unsigned char *content, size_t *size) {
    size_t carried = records_content(length);
    unsigned char type, tag[TAG];
    int done;
    *size = 0;
    memcpy(tag, record + length - TAG, TAG);
    begin(records, record);
    record += RECORD_HEADER;
    if ((carried && !EVP_DecryptUpdate(records->cipher, content, &done, record, (int)carried)) || !EVP_DecryptUpdate(records->cipher, &type, &done, record + carried, 1) ||
        !EVP_CIPHER_CTX_ctrl(records->cipher, EVP_CTRL_AEAD_SET_TAG, TAG, tag) || EVP_DecryptFinal_ex(records->cipher, tag, &done) <= 0)
        return OPENED_FORGED;
    if (type != KIND_DATA) return control(records, type, content, carried); // ours are not padded
    *size = carried;
    return OPENED_DATA;
}
