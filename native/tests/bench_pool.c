/* bench_pool: what the pool itself costs, beside what it moves.
 *
 *     bench_pool [directory]      default: /tmp; needs 450 MB there
 *
 * Times are medians of several rounds. "hot": the file is in the page cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dovecote.h"

enum { BLOCK = 32, ROUNDS = 9, PROMPT = 32768, MANY = 100000 };

static char path[256];

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *seconds) {
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    return seconds[ROUNDS / 2];
}

static void require(int rc) {
    if (rc == DOVECOTE_OK) return;
    (void)fprintf(stderr, "bench_pool: %s\n", dovecote_strerror(rc));
    exit(1);
}

typedef struct {
    dovecote_layer layers[30];
    dovecote_plane planes[60];
    dovecote_pool_config config;
    uint32_t *tokens;
    uint64_t dense_bytes; /* K and V of PROMPT tokens */
} model;

static void make_model(model *m, uint32_t layers, uint32_t heads, uint32_t dim, uint32_t codec,
                       uint64_t tokens) {
    uint64_t head = tokens * dim * sizeof(float);
    m->config = (dovecote_pool_config){
        .layers = m->layers, .layer_count = layers, .block_tokens = BLOCK, .codec = codec};
    for (uint32_t i = 0; i < layers; i++)
        m->layers[i] = (dovecote_layer){heads, dim, dim};
    for (uint32_t i = 0; i < 2 * layers; i++) {
        float *values = malloc(heads * head);
        for (uint64_t j = 0; j < heads * tokens * dim; j++)
            values[j] = (float)(j * 7919 % 1000);
        m->planes[i] = (dovecote_plane){values, head, tokens};
    }
    m->dense_bytes = 2 * layers * heads * head;
    m->tokens = malloc(PROMPT * sizeof *m->tokens);
    for (uint32_t i = 0; i < PROMPT; i++)
        m->tokens[i] = i * 2654435761u >> 8;
}

static void free_model(model *m) {
    for (uint32_t i = 0; i < 2 * m->config.layer_count; i++)
        free(m->planes[i].data);
    free(m->tokens);
}

static dovecote_pool *open_pool(model *m, uint64_t size_bytes) {
    dovecote_pool *pool = NULL;
    m->config.size_bytes = size_bytes;
    require(dovecote_pool_open(path, &m->config, &pool, NULL));
    return pool;
}

/* Opening a lease for `count` tokens, matching, closing. */
static void time_matching(dovecote_pool *pool, const model *m, uint64_t count) {
    double opening[ROUNDS], matching[ROUNDS], closing[ROUNDS];
    uint64_t matched = 0;
    for (int i = 0; i < ROUNDS; i++) {
        dovecote_lease *lease;
        double start = now();
        require(dovecote_lease_open(pool, (uint32_t)(count / BLOCK), &lease));
        opening[i] = now() - start;
        start = now();
        require(dovecote_lease_match(lease, NULL, m->tokens, count, &matched));
        matching[i] = now() - start;
        start = now();
        dovecote_lease_close(lease);
        closing[i] = now() - start;
    }
    double blocks = (double)(matched / BLOCK);
    (void)printf("match %lu tokens: %.0f us (%.0f ns a block), lease open %.1f us, close %.0f us "
                 "(%.0f ns a block)\n",
                 (unsigned long)matched, 1e6 * median(matching), 1e9 * median(matching) / blocks,
                 1e6 * median(opening), 1e6 * median(closing), 1e9 * median(closing) / blocks);
}

/* 100,000 frames in chains of 32,768 tokens; then opening them. */
static void time_opening(void) {
    static model m;
    double opening[ROUNDS];
    make_model(&m, 1, 1, 8, DOVECOTE_CODEC_EXACT, PROMPT);
    dovecote_pool *pool = open_pool(&m, 4096 + (uint64_t)MANY * (4096 + 256));
    for (uint32_t chain = 0; chain < MANY / (PROMPT / BLOCK); chain++) {
        dovecote_lease *lease;
        m.tokens[0] = chain;
        require(dovecote_lease_open(pool, PROMPT / BLOCK, &lease));
        require(dovecote_lease_seal(lease, m.tokens, PROMPT, m.planes, 0, NULL));
        dovecote_lease_close(lease);
    }
    time_matching(pool, &m, PROMPT);
    for (int i = 0; i < ROUNDS; i++) {
        require(dovecote_pool_close(pool));
        double start = now();
        pool = open_pool(&m, 0);
        opening[i] = now() - start;
    }
    dovecote_pool_stats stats;
    dovecote_pool_get_stats(pool, &stats);
    (void)printf("open %lu frames, %lu sealed: %.1f ms hot\n", (unsigned long)stats.frames,
                 (unsigned long)stats.cached, 1e3 * median(opening));
    double start = now();
    require(dovecote_pool_check(pool));
    (void)printf("check: %.1f ms\n", 1e3 * (now() - start));
    require(dovecote_pool_close(pool));
    unlink(path);
    free_model(&m);
}

/* SmolLM2-135M's K and V of 1,888 tokens: 59 blocks, sealed into a fresh pool and decoded back. */
static void time_moving(uint32_t codec, const char *name) {
    static model m;
    enum { TOKENS = 59 * BLOCK };
    double sealing[ROUNDS], decoding[ROUNDS];
    uint64_t count;
    make_model(&m, 30, 3, 64, codec, TOKENS);
    for (int i = 0; i < ROUNDS; i++) {
        dovecote_pool *pool = open_pool(&m, 160000000);
        dovecote_lease *lease;
        require(dovecote_lease_open(pool, 59, &lease));
        double start = now();
        require(dovecote_lease_seal(lease, m.tokens, TOKENS, m.planes, 0, NULL));
        sealing[i] = now() - start;
        dovecote_lease_close(lease);
        require(dovecote_lease_open(pool, 0, &lease));
        require(dovecote_lease_match(lease, NULL, m.tokens, TOKENS, &count));
        start = now();
        require(dovecote_lease_decode(lease, 0, 59, 0, 30, m.planes, &count));
        decoding[i] = now() - start;
        dovecote_lease_close(lease);
        require(dovecote_pool_close(pool));
        unlink(path);
    }
    double giga = (double)m.dense_bytes / 1e9;
    (void)printf("%-5s seal %.2f ms (%.1f GB/s), decode %.2f ms (%.1f GB/s), both of float32\n",
                 name, 1e3 * median(sealing), giga / median(sealing), 1e3 * median(decoding),
                 giga / median(decoding));
    free_model(&m);
}

int main(int argc, char **argv) {
    (void)snprintf(path, sizeof path, "%s/dovecote-bench.pool", argc > 1 ? argv[1] : "/tmp");
    unlink(path);
    time_opening();
    time_moving(DOVECOTE_CODEC_EXACT, "exact");
    time_moving(DOVECOTE_CODEC_F16, "f16");
    time_moving(DOVECOTE_CODEC_Q8, "q8");
    time_moving(DOVECOTE_CODEC_Q4, "q4");
    return 0;
}
