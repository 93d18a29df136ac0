// A fuzzer for one function, LLVMFuzzerTestOneInput(): guided by coverage (gcc -fsanitize-coverage=trace-pc calls us at every block), it keeps
// what reaches something new and changes it again. Bounded in time, repeatable by its seed. The same targets run under libFuzzer where there is one.
//
// usage: PROGRAM SECONDS SEED FOLDER [FILE...]   FOLDER: what is found goes there as new-* and, when the process dies of it, stays as `last`
//        PROGRAM 0 0 FOLDER FILE...              runs the files only
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SIZE_LIMIT 65536u
#define KEPT_LIMIT 4096u
#define MAP_SIZE 8192u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
void __sanitizer_cov_trace_pc(void);

static struct kept {
    uint8_t *bytes;
    size_t size;
} kept[KEPT_LIMIT];
static size_t kept_count, new_count;
static uint8_t seen[MAP_SIZE], now[MAP_SIZE];
static uintptr_t before;
static uint64_t random_state;
static uint8_t *last; // mapped from a file: it survives us. The first 8 bytes are the size.

// An edge is where we are and where we came from.
__attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc(void) {
    uintptr_t at = (uintptr_t)__builtin_return_address(0);
    at ^= at >> 13;
    now[(at ^ before) % MAP_SIZE] = 1;
    before = at >> 1;
}

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t below(size_t limit) { return limit ? (size_t)(next_random() % limit) : 0; }

// True when it reached something that nothing before it reached.
static int run(const uint8_t *bytes, size_t size) {
    memset(now, 0, sizeof now);
    before = 0;
    uint64_t header = size;
    memcpy(last, &header, sizeof header);
    memcpy(last + sizeof header, bytes, size);
    uint8_t *exact = malloc(size ? size : 1); // so that a read behind the end is seen
    memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    int news = 0;
    for (size_t i = 0; i < MAP_SIZE; i++) {
        if (now[i] && !seen[i]) seen[i] = 1, news = 1;
    }
    return news;
}

static void keep(const uint8_t *bytes, size_t size) {
    if (kept_count == KEPT_LIMIT) return;
    struct kept *one = &kept[kept_count++];
    one->size = size;
    one->bytes = malloc(size ? size : 1);
    memcpy(one->bytes, bytes, size);
}

static size_t change(uint8_t *bytes, size_t size) {
    static const uint64_t interesting[] = {0, 1, 7, 16, 32, 64, 127, 128, 255, 256, 4096, 32767, 65535, 1u << 20, 0x7fffffff, 0xffffffff, UINT64_MAX};
    size_t width, from, count, at = below(size ? size : 1);
    uint64_t value;
    switch (below(8)) {
    case 0:
        if (size) bytes[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (size) bytes[at] = (uint8_t)next_random();
        break;
    case 2: // a number of 1, 2, 4 or 8 bytes
        width = (size_t)1 << below(4);
        value = interesting[below(sizeof interesting / sizeof *interesting)] + below(3) - 1;
        if (size >= width) memcpy(bytes + below(size - width + 1), &value, width);
        break;
    case 3: // the size of what is there
        value = size - below(size < 16 ? size + 1 : 16);
        width = (size_t)1 << (1 + below(2));
        if (size >= width) memcpy(bytes + below(size - width + 1), &value, width);
        break;
    case 4: // shorter
        count = below(size + 1);
        at = below(size - count + 1);
        memmove(bytes + at, bytes + at + count, size - at - count);
        return size - count;
    case 5: // something of itself once more
        count = below(size + 1);
        if (size + count > SIZE_LIMIT) break;
        from = below(size - count + 1);
        memmove(bytes + at + count, bytes + at, size - at);
        memmove(bytes + at, bytes + (from < at ? from : (from + count < size ? from + count : size)), count);
        return size + count;
    case 6: // something of another one
        if (kept_count) {
            const struct kept *other = &kept[below(kept_count)];
            count = below(other->size + 1);
            from = below(other->size - count + 1);
            if (at + count > SIZE_LIMIT) break;
            memcpy(bytes + at, other->bytes + from, count);
            return at + count > size ? at + count : size;
        }
        break;
    default: // longer
        count = 1 + below(64);
        if (size + count > SIZE_LIMIT) break;
        memmove(bytes + at + count, bytes + at, size - at);
        memset(bytes + at, below(2) ? 0 : (int)(uint8_t)next_random(), count);
        return size + count;
    }
    return size;
}

static void store(const char *folder, const uint8_t *bytes, size_t size) {
    char path[4096];
    snprintf(path, sizeof path, "%s/new-%05zu", folder, new_count++);
    FILE *file = fopen(path, "we");
    if (!file) return;
    fwrite(bytes, 1, size, file);
    fclose(file);
}

int main(int count, char **words) {
    static uint8_t bytes[SIZE_LIMIT];
    if (count < 4) return 2;
    double seconds = strtod(words[1], NULL);
    random_state = strtoull(words[2], NULL, 10) * 2654435761u + 1;
    char path[4096];
    snprintf(path, sizeof path, "%s/last", words[3]);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, SIZE_LIMIT + 8)) return 2;
    last = mmap(NULL, SIZE_LIMIT + 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (last == MAP_FAILED) return 2;
    for (int i = 4; i < count; i++) {
        FILE *file = fopen(words[i], "re");
        if (!file) return 2;
        size_t size = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        run(bytes, size);
        keep(bytes, size);
    }
    if (!kept_count) keep((const uint8_t *)"", 0);
    struct timespec begun, present;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    size_t runs = 0;
    for (double spent = 0; spent < seconds; runs++) {
        const struct kept *one = &kept[below(kept_count)];
        size_t size = one->size;
        memcpy(bytes, one->bytes, size);
        for (size_t changes = 1 + below(4); changes; changes--) size = change(bytes, size);
        if (run(bytes, size)) {
            keep(bytes, size);
            store(words[3], bytes, size);
        }
        clock_gettime(CLOCK_MONOTONIC, &present);
        spent = (double)(present.tv_sec - begun.tv_sec) + (double)(present.tv_nsec - begun.tv_nsec) / 1e9;
    }
    size_t edges = 0;
    for (size_t i = 0; i < MAP_SIZE; i++) edges += seen[i];
    printf("%zu runs, %zu inputs kept, %zu edges\n", runs, kept_count, edges);
    return 0;
}
