// The parser of the wire: whatever arrives, it says "not complete", "not ours", or gives a message that lies wholly inside what arrived.
#include "../../runtime/native/src/listing.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void expect(bool what) {
    if (!what) abort();
}

static void touch(const void *from, size_t size) {
    volatile unsigned char sum = 0;
    for (size_t i = 0; i < size; i++) sum = (unsigned char)(sum + ((const unsigned char *)from)[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    for (size_t at = 0; at < size;) {
        struct message message;
        ssize_t length = message_read(bytes + at, size - at, &message);
        expect(length >= -1 && length <= (ssize_t)(size - at));
        if (length <= 0) break;
        const struct frame *frame = &message.frame;
        expect((size_t)length == frame->length && (size_t)length >= sizeof *frame);
        expect((message.name != NULL) == (frame->name_size != 0) && (message.name2 != NULL) == (frame->name2_size != 0));
        if (message.name) expect(strlen(message.name) + 1 == frame->name_size);
        if (message.name2) expect(strlen(message.name2) + 1 == frame->name2_size);
        if (frame->data_size) {
            const uint8_t *data = message.data;
            expect(data >= bytes + at + sizeof *frame && data + frame->data_size <= bytes + at + length);
            touch(data, frame->data_size);
            struct listed entry;
            const char *name;
            bool malformed;
            for (const uint8_t *from = data; listed_next(&from, data + frame->data_size, &entry, &name, &malformed);)
                expect(from <= data + frame->data_size && name_is_entry(name) && name + entry.name_size == (const char *)from);
        }
        if (message.name && name_is_entry(message.name)) expect(!strchr(message.name, '/') && *message.name && strcmp(message.name, "..") != 0);
        if (message.name && path_is_inside(message.name)) expect(*message.name != '/' && !strstr(message.name, "/../") && strncmp(message.name, "../", 3) != 0);
        // What was read can be written, and is the same again.
        unsigned char *again = malloc((size_t)length);
        expect(message_size(&message) == (size_t)length);
        message_write(&message, again);
        expect(memcmp(again, bytes + at, (size_t)length) == 0);
        free(again);
        // Less of it is not complete, never something else.
        for (size_t cut = 0; cut < (size_t)length; cut += 1 + cut / 2) expect(message_read(bytes + at, cut, &message) == 0);
        at += (size_t)length;
    }
    return 0;
}
