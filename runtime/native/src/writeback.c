#include "writeback.h"
#include "common.h"
#include <fcntl.h>

#define WORTH_IT (64u << 10)  // small files are left to the next sync: space for them is better found together
#define ON_THE_WAY 16u        // ranges of one thread that the disk may still have before it

// A descriptor may have been closed and given to another file meanwhile: then that one is written back, which harms nobody.
struct range {
    int file;
    off_t offset;
    off_t size;
};

static _Thread_local struct range started[ON_THE_WAY];
static _Thread_local unsigned next;

bool writeback_range(int file, off_t offset, size_t size) {
    if (size < WORTH_IT) return false;
    sync_file_range(file, offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
    struct range *oldest = &started[next++ % ON_THE_WAY];
    if (oldest->size) sync_file_range(oldest->file, oldest->offset, oldest->size, SYNC_FILE_RANGE_WAIT_BEFORE);
    *oldest = (struct range){file, offset, (off_t)size};
    return true;
}
