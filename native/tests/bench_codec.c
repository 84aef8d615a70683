/* bench_codec: GB/s of memcpy, the checksum, and each codec on each instruction set, one line each.
 *
 *     bench_codec [layers heads dim tokens]      default: 30 3 64 1890, SmolLM2-135M's K and V
 *
 * Bytes are those of the float32 planes, whatever the codec stores, so that every line compares
 * with memcpy of the same planes. Encoding and decoding go block by block, section by section, as a
 * pool does it. Each figure is the median of several rounds, and memcpy is measured inside each
 * round. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec.h"
#include "crc.h"

enum { BLOCK = 32, ROUNDS = 9 };

typedef struct {
    uint32_t layers;
    uint32_t heads;
    uint32_t dim;
    uint32_t tokens;
    size_t plane_bytes; /* one side of one layer */
    uint8_t *planes;    /* K then V of each layer */
    uint8_t *copy;
    uint8_t *frames;
} bench;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof(values[0]), ascending);
    return values[ROUNDS / 2];
}

static size_t total(const bench *b) {
    return 2 * (size_t)b->layers * b->plane_bytes;
}

static void fill(bench *b) {
    uint32_t seed = 1;
    float *values = (float *)(void *)b->planes;
    for (size_t i = 0; i < total(b) / sizeof(float); i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(int32_t)seed * 0x1p-30f;
    }
    memset(b->copy, 1, total(b));
}

static dovecote_plane plane_of(const bench *b, uint8_t *base, size_t index) {
    size_t head = (size_t)b->tokens * b->dim * sizeof(float);
    return (dovecote_plane){base + index * b->plane_bytes, head, b->tokens};
}

/* All blocks of all layers, in the pool's order: a frame after another. */
static void convert(const bench *b, const dc_section *section, int encode) {
    uint8_t *bytes = b->frames;
    for (uint32_t start = 0; start < b->tokens; start += BLOCK) {
        uint32_t count = b->tokens - start < BLOCK ? b->tokens - start : BLOCK;
        for (uint32_t layer = 0; layer < b->layers; layer++) {
            uint8_t *base = encode ? b->planes : b->copy;
            dovecote_plane k = plane_of(b, base, 2 * (size_t)layer);
            dovecote_plane v = plane_of(b, base, 2 * (size_t)layer + 1);
            if (encode) {
                dc_section_encode(section, &k, &v, start, count, NULL, bytes);
            } else {
                dc_section_decode(section, bytes, start, count, &k, &v);
            }
            bytes += dc_section_bytes(section);
        }
    }
}

static double seconds_of_memcpy(const bench *b) {
    double start = now();
    memcpy(b->copy, b->planes, total(b));
    return now() - start;
}

static double seconds_of_convert(const bench *b, const dc_section *section, int encode) {
    double start = now();
    convert(b, section, encode);
    return now() - start;
}

static double seconds_of_crc(const bench *b) {
    static volatile uint32_t sink;
    double start = now();
    sink = dc_crc32c(sink, b->planes, total(b));
    return now() - start;
}

static void report(const bench *b, const char *what, const char *level, double *spent,
                   double *copying) {
    double seconds = median(spent);
    double bytes = (double)total(b);
    (void)printf("%-14s %-9s %7.2f GB/s %8.2f ms  memcpy %6.2f GB/s  ratio %.2f\n", what, level,
                 bytes / seconds / 1e9, seconds * 1e3, bytes / median(copying) / 1e9,
                 copying[ROUNDS / 2] / seconds);
}

static void measure_codec(const bench *b, uint32_t codec, const char *name, const char *level) {
    dovecote_layer shape = {b->heads, b->dim, b->dim};
    dc_section section = {codec, DOVECOTE_FLOAT32, BLOCK, shape};
    double spent[2][ROUNDS];
    double copying[ROUNDS];
    char what[32];
    convert(b, &section, 1);
    for (int round = 0; round < ROUNDS; round++) {
        copying[round] = seconds_of_memcpy(b);
        spent[1][round] = seconds_of_convert(b, &section, 1);
        spent[0][round] = seconds_of_convert(b, &section, 0);
    }
    (void)snprintf(what, sizeof(what), "encode %s", name);
    report(b, what, level, spent[1], copying);
    (void)snprintf(what, sizeof(what), "decode %s", name);
    report(b, what, level, spent[0], copying);
}

static void measure_crc(const bench *b, const char *level) {
    double spent[ROUNDS];
    double copying[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        copying[round] = seconds_of_memcpy(b);
        spent[round] = seconds_of_crc(b);
    }
    report(b, "crc32c", level, spent, copying);
}

static void measure_level(const bench *b, const char *level) {
    static const char *const names[] = {"exact", "f16", "q8", "k8v4", "q4"};
    measure_crc(b, level);
    for (uint32_t codec = 0; codec < 5; codec++) {
        measure_codec(b, codec, names[codec], level);
    }
}

static int allocate(bench *b) {
    b->plane_bytes = (size_t)b->heads * b->tokens * b->dim * sizeof(float);
    size_t blocks = ((size_t)b->tokens + BLOCK - 1) / BLOCK;
    size_t frames = 2 * blocks * BLOCK * b->layers * b->heads * b->dim * sizeof(float);
    b->planes = aligned_alloc(64, (total(b) + 63) / 64 * 64);
    b->copy = aligned_alloc(64, (total(b) + 63) / 64 * 64);
    b->frames = aligned_alloc(64, (frames + 63) / 64 * 64);
    return b->planes != NULL && b->copy != NULL && b->frames != NULL;
}

int main(int argc, char **argv) {
    static const char *const levels[] = {"avx512", "avx2", "neon", "portable"};
    bench b = {.layers = 30, .heads = 3, .dim = 64, .tokens = 1890};
    uint32_t *const fields[] = {&b.layers, &b.heads, &b.dim, &b.tokens};
    for (int i = 1; i < argc && i <= 4; i++) {
        *fields[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
    }
    if (!allocate(&b)) {
        (void)fprintf(stderr, "not enough memory\n");
        return 1;
    }
    fill(&b);
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (dovecote_cpu_override(levels[i]) == DOVECOTE_OK) {
            measure_level(&b, levels[i]);
        }
    }
    free(b.planes);
    free(b.copy);
    free(b.frames);
    return 0;
}
