// The records of TLS 1.3 (RFC 8446, 5.2 and 7.2): one direction of one connection, in memory. Each direction has keys of its own, so that one
// thread seals while another one opens and neither waits for the other.
#pragma once
#include "common.h"

#define SECRET_SIZE 32
#define RECORD_CONTENT 16384u           // the most that one record carries
#define RECORD_HEADER 5u
#define RECORD_EXTRA 22u                // what it adds: the header, the kind of its content, a tag
#define RECORD_LIMIT (5u + 16384 + 256) // the longest that anybody may send

struct records;

struct records *records_open(const unsigned char secret[SECRET_SIZE], bool seals);
void records_close(struct records *records); // NULL: nothing

size_t records_room(size_t size); // what `size` bytes need, sealed
size_t records_seal(struct records *records, const void *bytes, size_t size, unsigned char *out);
void records_renew(struct records *records); // the next one is sealed under a new key; any thread may say so

// The first record among `size` bytes. 0: it is not complete; -1: it is none of TLS; else its length.
ssize_t records_next(const unsigned char *bytes, size_t size);
size_t records_content(size_t length); // the most that a record of this length can carry

enum opened { OPENED_DATA, OPENED_END, OPENED_RENEW, OPENED_NOTHING, OPENED_FORGED }; // renew: the other end wants a new key of this one, too
// `content`: room for records_content() bytes, or the record itself behind its header. *size: how many bytes it carried.
enum opened records_unseal(struct records *records, const unsigned char *record, size_t length, unsigned char *content, size_t *size);
