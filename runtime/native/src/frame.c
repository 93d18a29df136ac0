// Encoding and checking of frames. Nothing that comes from the network is used before it passed here.
#include "frame.h"
#include <string.h>

static size_t name_size(const char *name) { return name ? strlen(name) + 1 : 0; }

size_t message_size(const struct message *message) {
    return sizeof message->frame + name_size(message->name) + name_size(message->name2) + message->frame.data_size;
}

struct frame message_head(const struct message *message) {
    struct frame frame = message->frame;
    frame.name_size = (uint16_t)name_size(message->name);
    frame.name2_size = (uint16_t)name_size(message->name2);
    frame.length = (uint32_t)message_size(message);
    return frame;
}

void message_write(const struct message *message, unsigned char *out) {
    struct frame frame = message_head(message);
    memcpy(out, &frame, sizeof frame);
    out += sizeof frame;
    if (frame.name_size) memcpy(out, message->name, frame.name_size);
    out += frame.name_size;
    if (frame.name2_size) memcpy(out, message->name2, frame.name2_size);
    out += frame.name2_size;
    if (frame.data_size) memcpy(out, message->data, frame.data_size);
}

ssize_t message_read(const unsigned char *bytes, size_t size, struct message *message) {
    if (size < sizeof message->frame) return 0;
    memcpy(&message->frame, bytes, sizeof message->frame);
    const struct frame *frame = &message->frame;
    if (frame->data_size > FRAME_DATA_LIMIT) return -1;
    size_t length = sizeof *frame + frame->name_size + frame->name2_size + frame->data_size;
    if (frame->length != length) return -1;
    if (size < length) return 0;
    const char *at = (const char *)bytes + sizeof *frame;
    message->name = frame->name_size ? at : NULL;
    if (frame->name_size && strnlen(at, frame->name_size) + 1 != frame->name_size) return -1;
    at += frame->name_size;
    message->name2 = frame->name2_size ? at : NULL;
    if (frame->name2_size && strnlen(at, frame->name2_size) + 1 != frame->name2_size) return -1;
    message->data = at + frame->name2_size;
    return (ssize_t)length;
}

bool name_is_entry(const char *name) {
    return name && *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

bool path_is_inside(const char *path) {
    if (!path || *path == '/') return false;
    for (const char *at = path; *at;) {
        size_t size = strcspn(at, "/");
        if (size == 2 && at[0] == '.' && at[1] == '.') return false;
        at += size;
        while (*at == '/') at++;
    }
    return true;
}
