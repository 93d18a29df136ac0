// One frame of the stream, applied to the tree of the secondary; and the objects that frames name by number.
#pragma once
#include "extent.h"
#include "frame.h"
#include <stdatomic.h>

#define OBJECTS 16385

// What a primary bound to a number. Whoever still has to apply something to it holds a reference: the number may mean something else by then.
struct object {
    atomic_uint references;
    const struct directory *directory;
    int path, file; // O_PATH; opened for reading and writing: the same number, -1: not yet
    dev_t dev;
    ino_t ino;
    mode_t type; // S_IFMT
    struct extent known;
};

struct object *object_find(uint64_t id); // borrowed; of the thread that reads the stream
struct object *object_keep(struct object *object);
void object_release(struct object *object);
void objects_forget(void);
unsigned objects_limit(void); // how many numbers a primary may use

// 0 or an errno. `object`: what the number of the frame meant when the frame was read; NULL: look it up now.
int apply(const struct message *message, struct object *object);
// Whether a frame concerns the bytes and attributes of one regular file and nothing else: then only the order per file matters.
bool apply_is_of_one_file(const struct message *message, const struct object *object);
const char *operation_name(unsigned op);
