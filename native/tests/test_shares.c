/* A decode that several threads share: the same values, the same end where a block is damaged, and
 * all of it by the caller where no thread or no memory can be had. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

/* 64 blocks of 68 KiB: shares of 1 MiB for four threads. */
enum { TOKENS = 32, WIDE_HEADS = 4, WIDE = 128, BLOCKS = 64, ALL = TOKENS * BLOCKS };
enum { PLANE = WIDE_HEADS * ALL * WIDE, PLANES = 4 };

static const dovecote_layer layers[2] = {{WIDE_HEADS, WIDE, WIDE}, {WIDE_HEADS, WIDE, WIDE}};
static uint32_t tokens[ALL];

typedef struct {
    float *values; /* [PLANES][WIDE_HEADS][ALL][WIDE] */
    dovecote_plane planes[PLANES];
} wide_row;

static wide_row new_row(void) {
    wide_row r = {.values = calloc(PLANES, PLANE * sizeof(float))};
    if (!r.values) exit(1);
    for (size_t i = 0; i < PLANES; i++)
        r.planes[i] = (dovecote_plane){r.values + i * PLANE, ALL * WIDE * sizeof(float), ALL};
    return r;
}

static dovecote_pool *open_wide(const char *path, uint32_t threads) {
    dovecote_pool_config config = {
        .layers = layers,
        .layer_count = 2,
        .block_tokens = TOKENS,
        .dtype = DOVECOTE_FLOAT32,
        .codec = DOVECOTE_CODEC_Q8,
        .size_bytes = (uint64_t)8 << 20,
    };
    dovecote_pool *pool;
    if (dovecote_pool_open(path, &config, &pool, NULL) != DOVECOTE_OK) exit(1);
    dovecote_pool_set_threads(pool, threads);
    return pool;
}

/* A closed pool at `path` with one chain of all blocks. */
static const char *sealed_pool(void) {
    const char *path = small_path();
    dovecote_pool *pool = open_wide(path, 1);
    dovecote_lease *lease;
    wide_row r = new_row();
    uint32_t seed = 1;
    for (size_t i = 0; i < (size_t)PLANES * PLANE; i++) {
        seed = seed * 1664525u + 1013904223u;
        r.values[i] = (float)(seed >> 8) / (1 << 24);
    }
    for (uint32_t i = 0; i < ALL; i++)
        tokens[i] = i;
    uint64_t sealed = 0;
    CHECK(dovecote_lease_open(pool, BLOCKS, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_seal(lease, tokens, ALL, r.planes, 0, &sealed) == DOVECOTE_OK);
    CHECK(sealed == ALL);
    dovecote_lease_close(lease);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_OK);
    free(r.values);
    return path;
}

/* Matches the chain, decodes it by so many threads; how many tokens are valid. */
static uint64_t restored(dovecote_pool *pool, wide_row *r) {
    dovecote_lease *lease;
    uint64_t matched = 0, valid = 0;
    CHECK(dovecote_lease_open(pool, BLOCKS, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, ALL, &matched) == DOVECOTE_OK);
    CHECK(matched == ALL);
    CHECK(dovecote_lease_decode(lease, 0, BLOCKS, 0, 2, r->planes, &valid) == DOVECOTE_OK);
    dovecote_lease_close(lease);
    CHECK(small_is_sound(pool));
    return valid;
}

static bool same(const wide_row *a, const wide_row *b, uint64_t count) {
    for (size_t i = 0; i < (size_t)PLANES * WIDE_HEADS; i++) {
        size_t at = i * ALL * WIDE;
        if (memcmp(a->values + at, b->values + at, count * WIDE * sizeof(float)) != 0) return false;
    }
    return true;
}

/* What one thread restores of the pool at `path`, and then `threads`. */
static void check_same(const char *path, uint32_t threads, uint64_t expected) {
    wide_row one = new_row(), many = new_row();
    dovecote_pool *pool = open_wide(path, threads);
    CHECK(restored(pool, &many) == expected);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.decoded_tokens == expected);
    CHECK(stats.miss_checksum + stats.miss_orphan == BLOCKS - expected / TOKENS);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_OK);
    pool = open_wide(path, 1);
    dovecote_lease *lease;
    uint64_t matched = 0, valid = 0;
    CHECK(dovecote_lease_open(pool, BLOCKS, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, ALL, &matched) == DOVECOTE_OK);
    CHECK(matched == expected);
    CHECK(dovecote_lease_decode(lease, 0, BLOCKS, 0, 2, one.planes, &valid) == DOVECOTE_OK);
    dovecote_lease_close(lease);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_OK);
    CHECK(valid == expected && same(&one, &many, expected));
    free(one.values);
    free(many.values);
}

static void threads_decode_what_one_does(void) {
    const char *path = sealed_pool();
    for (uint32_t threads = 1; threads < 40; threads = 2 * threads + 1)
        check_same(path, threads, ALL);
    small_forget();
}

/* Damages one block's payload; frames are taken in order, and lie at the file's end. */
static void damage(const char *path, uint32_t block) {
    dovecote_pool *pool = open_wide(path, 1);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_OK);
    struct stat file;
    CHECK(stat(path, &file) == 0);
    uint64_t behind = (stats.frames - block) * stats.frame_bytes;
    small_damage(path, (uint64_t)file.st_size - behind, 1);
}

static void a_damaged_block_ends_the_lease_whoever_finds_it(void) { /* P1 */
    const uint32_t damaged[][2] = {{0, 40}, {15, 16}, {16, 63}, {63, 63}, {20, 50}};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        const char *path = sealed_pool();
        damage(path, damaged[i][0]);
        if (damaged[i][1] != damaged[i][0]) damage(path, damaged[i][1]);
        check_same(path, 4, damaged[i][0] * TOKENS);
        small_forget();
    }
}

static void without_memory_for_a_thread_the_caller_does_its_share(void) {
    const char *path = sealed_pool();
    wide_row alone = new_row(), shared = new_row();
    dovecote_pool *pool = open_wide(path, 2);
    CHECK(restored(pool, &shared) == ALL);
    dovecote_lease *lease;
    uint64_t matched = 0, valid = 0;
    CHECK(dovecote_lease_open(pool, BLOCKS, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, ALL, &matched) == DOVECOTE_OK);
    fault_arm(FAULT_FAIL, 1, ENOMEM); /* the first call is for the second thread's buffer */
    CHECK(dovecote_lease_decode(lease, 0, BLOCKS, 0, 2, alone.planes, &valid) == DOVECOTE_OK);
    CHECK(fault_disarm() == 1 + 2 * BLOCKS); /* and then a read for each section */
    dovecote_lease_close(lease);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_OK);
    CHECK(valid == ALL && same(&alone, &shared, ALL));
    free(alone.values);
    free(shared.values);
    small_forget();
}

int main(void) {
    RUN(threads_decode_what_one_does);
    RUN(a_damaged_block_ends_the_lease_whoever_finds_it);
    RUN(without_memory_for_a_thread_the_caller_does_its_share);
    return SUMMARY();
}
