/* bench_parts: what sealing and restoring are made of, beside memcpy in the same rounds.
 *
 *     bench_parts [layers heads dim tokens codec [directory [offset]]]
 *
 * Default: 30 3 64 1888 q8 /tmp 0, SmolLM2-135M's K and V in planes that begin at a page; `offset`
 * puts them that many bytes further, as allocators do: 24 is MLX's. One line a part, each with the median of
 * its time, the bandwidth in bytes of the float32 planes (whatever the codec stores, so that lines
 * compare), and the median over the rounds of its share of memcpy's bandwidth. One thread.
 *
 *   memcpy          the planes onto other planes
 *   decode          dovecote_lease_decode of all blocks, from the page cache, checksums verified
 *     pread         its system calls alone, into the same hot buffer
 *     checksum      CRC-32C of each section, after a copy that makes it as hot as pread does
 *     codec         the decoders alone, from sections that are hot
 *   seal, new       dovecote_lease_seal into frames that were never written: the page cache has no
 *                   page for them yet
 *   seal, used      the same into frames that evicted blocks had, whose pages are there: the state
 *                   of a full pool
 *     codec         the encoders alone
 *     pwrite, new   the system calls alone, into a new file of the same size
 *     pwrite, used  and once more into the same file
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codec.h"
#include "crc.h"
#include "dovecote.h"
#include "file.h"

enum { BLOCK = 32, ROUNDS = 11, LAYERS_MAX = 64 };

enum {
    MEMCPY,
    DECODE,
    PREAD,
    CHECKSUM,
    CODEC_DECODE,
    SEAL_NEW,
    SEAL_USED,
    CODEC_ENCODE,
    PWRITE_NEW,
    PWRITE_USED,
    PARTS
};

static const char *const part_names[PARTS] = {
    "memcpy",    "decode",     "  pread", "  checksum",    "  codec",
    "seal, new", "seal, used", "  codec", "  pwrite, new", "  pwrite, used",
};

typedef struct {
    uint32_t layer_count, heads, dim, blocks, codec;
    uint32_t offset; /* in floats */
    const char *directory;
    dovecote_layer layers[LAYERS_MAX];
    dovecote_plane from[2 * LAYERS_MAX], to[2 * LAYERS_MAX];
    float *source, *target;
    uint32_t *tokens;
    uint64_t plane_bytes, dense_bytes, section_bytes, frame_bytes;
    uint8_t *frame;
    dc_section section;
    double seconds[PARTS][ROUNDS];
} bench;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(const double *values) {
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, ascending);
    return sorted[ROUNDS / 2];
}

static void require(int condition, const char *what) {
    if (condition) return;
    (void)fprintf(stderr, "bench_parts: cannot go on: %s\n", what);
    exit(1);
}

/* ---- set up ---- */

static void make_planes(bench *b, float *values, dovecote_plane *planes) {
    uint64_t head_bytes = b->plane_bytes / b->heads;
    for (uint32_t i = 0; i < 2 * b->layer_count; i++)
        planes[i] = (dovecote_plane){(uint8_t *)values + i * b->plane_bytes, head_bytes,
                                     (uint64_t)b->blocks * BLOCK};
}

static void fill(bench *b) {
    uint32_t state = 1;
    for (uint64_t i = 0; i < b->dense_bytes / sizeof(float); i++) {
        state = state * 1664525u + 1013904223u;
        b->source[i] = (float)(int32_t)state * 0x1p-30f;
    }
    memset(b->target, 1, b->dense_bytes);
}

static void set_up(bench *b, uint32_t tokens) {
    b->blocks = tokens / BLOCK;
    b->plane_bytes = (uint64_t)b->heads * b->blocks * BLOCK * b->dim * sizeof(float);
    b->dense_bytes = 2 * b->layer_count * b->plane_bytes;
    for (uint32_t i = 0; i < b->layer_count; i++)
        b->layers[i] = (dovecote_layer){b->heads, b->dim, b->dim};
    b->section = (dc_section){b->codec, DOVECOTE_FLOAT32, BLOCK, b->layers[0]};
    b->section_bytes = dc_section_bytes(&b->section);
    b->frame_bytes = (b->section_bytes + 63) / 64 * 64 * b->layer_count;
    b->frame_bytes = (b->frame_bytes + 4095) / 4096 * 4096;
    b->source = aligned_alloc(4096, b->dense_bytes + 4096);
    b->target = aligned_alloc(4096, b->dense_bytes + 4096);
    b->frame = aligned_alloc(4096, b->frame_bytes);
    b->tokens = calloc((size_t)b->blocks * BLOCK, sizeof *b->tokens);
    require(b->source && b->target && b->frame && b->tokens, "memory");
    b->source += b->offset;
    b->target += b->offset;
    fill(b);
    memset(b->frame, 0, b->frame_bytes);
    make_planes(b, b->source, b->from);
    make_planes(b, b->target, b->to);
}

static void path_of(const bench *b, const char *name, char *path) {
    (void)snprintf(path, 256, "%s/dovecote-bench-%ld.%s", b->directory, (long)getpid(), name);
    unlink(path);
}

/* ---- parts ---- */

static double time_memcpy(const bench *b) {
    double start = now();
    memcpy(b->target, b->source, b->dense_bytes);
    return now() - start;
}

static const void *run_after(const bench *b, uint32_t i, uint32_t block) {
    if (i + 1 == b->layer_count) return NULL;
    return dc_section_run(&b->section, &b->from[2 * i + 2], block * BLOCK);
}

static double time_codec(const bench *b, int encode) {
    double start = now();
    for (uint32_t block = 0; block < b->blocks; block++)
        for (uint32_t i = 0; i < b->layer_count; i++) {
            uint8_t *bytes = b->frame + (encode ? i * b->section_bytes : 0);
            if (encode)
                dc_section_encode(&b->section, &b->from[2 * i], &b->from[2 * i + 1], block * BLOCK,
                                  BLOCK, run_after(b, i, block), bytes);
            else
                dc_section_decode(&b->section, bytes, block * BLOCK, BLOCK, &b->to[2 * i],
                                  &b->to[2 * i + 1]);
        }
    return now() - start;
}

static double time_checksum(const bench *b) {
    static volatile uint32_t sink;
    double start = now();
    for (uint32_t block = 0; block < b->blocks; block++)
        for (uint32_t i = 0; i < b->layer_count; i++)
            sink = dc_crc32c(sink, b->frame, b->section_bytes);
    return now() - start;
}

static double time_pwrite(const bench *b, int fd) {
    double start = now();
    for (uint32_t block = 0; block < b->blocks; block++)
        require(pwrite(fd, b->frame, b->frame_bytes, (off_t)(block * b->frame_bytes)) ==
                    (ssize_t)b->frame_bytes,
                "pwrite");
    return now() - start;
}

static double time_pread(const bench *b, int fd) {
    double start = now();
    for (uint32_t block = 0; block < b->blocks; block++)
        for (uint32_t i = 0; i < b->layer_count; i++)
            require(pread(fd, b->frame, b->section_bytes,
                          (off_t)(block * b->frame_bytes + i * b->section_bytes)) ==
                        (ssize_t)b->section_bytes,
                    "pread");
    return now() - start;
}

static void time_file(bench *b, int round) {
    char path[256];
    path_of(b, "file", path);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    require(fd >= 0 && dc_file_allocate(fd, b->blocks * b->frame_bytes, true) == 0, "a file");
    b->seconds[PWRITE_NEW][round] = time_pwrite(b, fd);
    b->seconds[PWRITE_USED][round] = time_pwrite(b, fd);
    b->seconds[PREAD][round] = time_pread(b, fd);
    close(fd);
    unlink(path);
}

static double time_seal(bench *b, dovecote_pool *pool, uint32_t chain) {
    dovecote_lease *lease;
    uint64_t count = (uint64_t)b->blocks * BLOCK;
    b->tokens[0] = chain;
    require(dovecote_lease_open(pool, b->blocks, &lease) == DOVECOTE_OK, "a lease");
    double start = now();
    int rc = dovecote_lease_seal(lease, b->tokens, count, b->from, 0, NULL);
    double seconds = now() - start;
    require(rc == DOVECOTE_OK, dovecote_strerror(rc));
    dovecote_lease_close(lease);
    return seconds;
}

static double time_decode(bench *b, dovecote_pool *pool) {
    dovecote_lease *lease;
    uint64_t count = (uint64_t)b->blocks * BLOCK, matched, valid;
    require(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK, "a lease");
    require(dovecote_lease_match(lease, NULL, b->tokens, count, &matched) == DOVECOTE_OK, "match");
    double start = now();
    int rc = dovecote_lease_decode(lease, 0, b->blocks, 0, b->layer_count, b->to, &valid);
    double seconds = now() - start;
    require(rc == DOVECOTE_OK && valid == count, "everything decoded");
    dovecote_lease_close(lease);
    return seconds;
}

/* The pool has room for one chain and a little: the second one evicts the first. */
static void time_pool(bench *b, int round) {
    char path[256];
    dovecote_pool *pool;
    path_of(b, "pool", path);
    dovecote_pool_config config = {.layers = b->layers,
                                   .layer_count = b->layer_count,
                                   .block_tokens = BLOCK,
                                   .codec = b->codec,
                                   .size_bytes = (b->blocks + 1) * (b->frame_bytes + 4096)};
    int rc = dovecote_pool_open(path, &config, &pool, NULL);
    require(rc == DOVECOTE_OK, dovecote_strerror(rc));
    b->seconds[SEAL_NEW][round] = time_seal(b, pool, 1);
    for (uint32_t chain = 2; chain < 5; chain++)
        b->seconds[SEAL_USED][round] = time_seal(b, pool, chain);
    b->seconds[DECODE][round] = time_decode(b, pool);
    require(dovecote_pool_close(pool) == DOVECOTE_OK, "closing");
    unlink(path);
}

/* ---- report ---- */

static void report(const bench *b) {
    for (int part = 0; part < PARTS; part++) {
        double share[ROUNDS], seconds = median(b->seconds[part]);
        for (int round = 0; round < ROUNDS; round++)
            share[round] = b->seconds[MEMCPY][round] / b->seconds[part][round];
        (void)printf("%-15s %8.2f ms  %6.2f GB/s  %.2f of memcpy\n", part_names[part],
                     1e3 * seconds, (double)b->dense_bytes / seconds / 1e9, median(share));
    }
}

static uint32_t codec_of(const char *name) {
    static const char *const names[] = {"exact", "f16", "q8", "k8v4", "q4"};
    for (uint32_t codec = 0; codec < 5; codec++)
        if (strcmp(names[codec], name) == 0) return codec;
    require(0, "a codec of that name");
    return 0;
}

int main(int argc, char **argv) {
    static bench b;
    uint32_t numbers[] = {30, 3, 64, 1888};
    for (int i = 1; i < argc && i <= 4; i++)
        numbers[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
    require(numbers[0] >= 1 && numbers[0] <= LAYERS_MAX && numbers[3] >= BLOCK, "such a geometry");
    b.layer_count = numbers[0];
    b.heads = numbers[1];
    b.dim = numbers[2];
    b.codec = codec_of(argc > 5 ? argv[5] : "q8");
    b.directory = argc > 6 ? argv[6] : "/tmp";
    b.offset = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) / sizeof(float) : 0;
    require(b.offset < 1024, "an offset inside a page");
    set_up(&b, numbers[3]);
    for (int round = 0; round < ROUNDS; round++) {
        b.seconds[MEMCPY][round] = time_memcpy(&b);
        b.seconds[CODEC_ENCODE][round] = time_codec(&b, 1);
        b.seconds[CODEC_DECODE][round] = time_codec(&b, 0);
        b.seconds[CHECKSUM][round] = time_checksum(&b);
        time_file(&b, round);
        time_pool(&b, round);
    }
    report(&b);
    return 0;
}
