// How two nodes that share the key of the module agree on the secrets of one connection: the handshake of TLS 1.3 with an external PSK (RFC 8446, 2.2),
// with fresh Diffie-Hellman values, so that who learns the key later reads nothing of what was recorded before.
#pragma once
#include "records.h"

struct secrets {
    unsigned char mine[SECRET_SIZE], theirs[SECRET_SIZE]; // of what this end sends, and the other one
};

extern const char tls_cipher[];

enum agreement {
    AGREED,
    BROKEN_OFF, // the connection ended or went silent meanwhile, which says nothing of the other end
    REFUSED,    // the other end has another key, or is not this product
};

// On a connected descriptor that has its time limits. Not AGREED: `why` is a sentence.
enum agreement tls_agree(int fd, bool accepts, struct secrets *secrets, char *why, size_t why_size);
