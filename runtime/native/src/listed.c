// How the entries of a listing travel.
#include "listing.h"
#include <string.h>

bool listed_next(const unsigned char **at, const unsigned char *end, struct listed *entry, const char **name, bool *malformed) {
    *malformed = false;
    if (*at == end) return false;
    *malformed = true;
    if ((size_t)(end - *at) < sizeof *entry) return false;
    memcpy(entry, *at, sizeof *entry);
    *name = (const char *)*at + sizeof *entry;
    if (!entry->name_size || entry->name_size > (size_t)(end - *at) - sizeof *entry) return false;
    if (strnlen(*name, entry->name_size) + 1u != entry->name_size || !name_is_entry(*name)) return false;
    *malformed = false;
    *at += sizeof *entry + entry->name_size;
    return true;
}
