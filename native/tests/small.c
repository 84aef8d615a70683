/* small.c: see small.h. */
#include "small.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const dovecote_layer layers[LAYERS] = {{HEADS, DIM, DIM}, {HEADS, DIM, DIM}};

static void require(bool condition, const char *what) {
    if (condition) return;
    (void)fprintf(stderr, "cannot go on: %s\n", what);
    exit(1);
}

/* ---- rows ---- */

static void row_bind(row *r) {
    for (int i = 0; i < 2 * LAYERS; i++)
        r->planes[i] = (dovecote_plane){r->values[i], sizeof r->values[i][0], CAPACITY};
}

void row_clear(row *r) {
    float *value = &r->values[0][0][0][0];
    row_bind(r);
    for (size_t i = 0; i < sizeof r->values / sizeof *value; i++)
        value[i] = NAN;
}

static uint32_t mix(uint32_t state, uint32_t word) {
    state = (state ^ word) * 0x9e3779b1u;
    return state ^ state >> 15;
}

static uint32_t prefix_state(const uint32_t *tokens, uint64_t end) {
    uint32_t state = 1;
    for (uint64_t t = 0; t < end; t++)
        state = mix(state, tokens[t] + 1);
    return state;
}

static float value_of(uint32_t state, int plane, int head, int dim) {
    uint32_t place = (uint32_t)((plane * HEADS + head) * DIM + dim);
    return (float)(mix(state, place) >> 8) / 65536.0f - 128.0f;
}

void row_compute(row *r, const uint32_t *tokens, uint64_t start, uint64_t end) {
    row_bind(r);
    for (uint64_t t = start; t < end; t++) {
        uint32_t state = prefix_state(tokens, t + 1);
        for (int p = 0; p < 2 * LAYERS; p++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < DIM; d++)
                    r->values[p][h][t][d] = value_of(state, p, h, d);
    }
}

bool row_is_exact(const row *r, const uint32_t *tokens, uint64_t start, uint64_t end) {
    for (uint64_t t = start; t < end; t++) {
        uint32_t state = prefix_state(tokens, t + 1);
        for (int p = 0; p < 2 * LAYERS; p++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < DIM; d++)
                    if (!(fabsf(r->values[p][h][t][d] - value_of(state, p, h, d)) <= 0.0f))
                        return false;
    }
    return true;
}

/* ---- pools ---- */

uint64_t small_record_offset(uint32_t frame) {
    return PAGE + (uint64_t)frame * RECORD;
}

uint64_t small_frame_offset(uint32_t frames, uint32_t frame) {
    uint64_t table = ((uint64_t)frames * RECORD + PAGE - 1) / PAGE * PAGE;
    return PAGE + table + (uint64_t)frame * PAGE;
}

uint64_t small_size(uint32_t frames) {
    return small_frame_offset(frames, frames);
}

dovecote_pool_config small_config(uint32_t frames) {
    dovecote_pool_config config = {.layers = layers,
                                   .layer_count = LAYERS,
                                   .block_tokens = BLOCK,
                                   .dtype = DOVECOTE_FLOAT32,
                                   .codec = DOVECOTE_CODEC_EXACT,
                                   .size_bytes = frames ? small_size(frames) : 0};
    memset(config.fingerprint, 7, sizeof config.fingerprint);
    return config;
}

dovecote_pool *small_open(const char *path, uint32_t frames) {
    dovecote_pool_config config = small_config(frames);
    dovecote_pool *pool = NULL;
    int os_error;
    int rc = dovecote_pool_open(path, &config, &pool, &os_error);
    if (rc) (void)fprintf(stderr, "%s, errno %d\n", dovecote_strerror(rc), os_error);
    require(rc == DOVECOTE_OK, "dovecote_pool_open");
    return pool;
}

bool small_is_sound(dovecote_pool *pool) {
    dovecote_pool_stats stats = small_stats(pool);
    return dovecote_pool_check(pool) == DOVECOTE_OK &&
           stats.leased + stats.cached + stats.free == stats.frames &&
           stats.promised <= stats.cached + stats.free;
}

void small_close(dovecote_pool *pool) {
    require(small_is_sound(pool), "a pool's invariants before closing it");
    require(dovecote_pool_close(pool) == DOVECOTE_OK, "dovecote_pool_close");
}

dovecote_pool_stats small_stats(dovecote_pool *pool) {
    dovecote_pool_stats stats;
    dovecote_pool_get_stats(pool, &stats);
    return stats;
}

/* ---- requests ---- */

static int restore(dovecote_lease *lease, const uint8_t *root, const uint32_t *tokens,
                   uint64_t count, row *r, turn *t) {
    row_clear(r);
    t->rc = dovecote_lease_match(lease, root, tokens, count, &t->matched);
    if (t->rc) return t->rc;
    dovecote_lease_prefetch(lease);
    t->valid = t->matched;
    t->rc = dovecote_lease_decode(lease, 0, UINT32_MAX, 0, LAYERS, r->planes, &t->valid);
    t->exact = row_is_exact(r, tokens, 0, t->valid);
    return t->rc;
}

turn small_turn_under(dovecote_pool *pool, const uint8_t *root, const uint32_t *tokens,
                      uint64_t count) {
    turn t = {0};
    row r;
    dovecote_lease *lease;
    t.rc = dovecote_lease_open(pool, (uint32_t)((count + BLOCK - 1) / BLOCK), &lease);
    if (t.rc) return t;
    if (!restore(lease, root, tokens, count, &r, &t)) {
        uint64_t whole = t.valid / BLOCK * BLOCK;
        row_compute(&r, tokens, t.valid, count);
        t.rc = dovecote_lease_seal(lease, tokens + whole, count - whole, r.planes, 1, &t.sealed);
    }
    dovecote_lease_close(lease);
    return t;
}

turn small_turn(dovecote_pool *pool, const uint32_t *tokens, uint64_t count) {
    return small_turn_under(pool, NULL, tokens, count);
}

turn small_look(dovecote_pool *pool, const uint32_t *tokens, uint64_t count) {
    turn t = {0};
    row r;
    dovecote_lease *lease;
    t.rc = dovecote_lease_open(pool, 0, &lease);
    if (t.rc) return t;
    restore(lease, NULL, tokens, count, &r, &t);
    dovecote_lease_close(lease);
    return t;
}

noted small_noted_turn(dovecote_pool *pool, const uint32_t *tokens, uint64_t count) {
    noted n = {.tokens = count};
    row r;
    turn t = {0};
    dovecote_lease *lease;
    uint32_t frames = (uint32_t)((count + BLOCK - 1) / BLOCK);
    require(dovecote_lease_open(pool, frames, &lease) == DOVECOTE_OK, "dovecote_lease_open");
    require(restore(lease, NULL, tokens, count, &r, &t) == DOVECOTE_OK, "restore");
    uint64_t whole = t.valid / BLOCK * BLOCK;
    row_compute(&r, tokens, t.valid, count);
    int rc = dovecote_lease_seal(lease, tokens + whole, count - whole, r.planes, 1, &t.sealed);
    require(rc == DOVECOTE_OK && t.sealed == count, "dovecote_lease_seal");
    n.blocks = dovecote_lease_keys(lease, n.keys[0], SMALL_NOTED);
    dovecote_lease_close(lease);
    return n;
}

dovecote_chain small_chain(const noted *n) {
    return (dovecote_chain){n->keys[0], n->blocks, n->tokens};
}

/* ---- files ---- */

static char directory[64], file_path[80];

const char *small_path(void) {
    small_forget();
    (void)strcpy(directory, "/tmp/dovecote-test.XXXXXX");
    require(mkdtemp(directory) != NULL, "mkdtemp");
    (void)snprintf(file_path, sizeof file_path, "%s/pool", directory);
    return file_path;
}

void small_forget(void) {
    char fresh[96];
    if (!directory[0]) return;
    (void)snprintf(fresh, sizeof fresh, "%s.new", file_path);
    unlink(file_path);
    unlink(fresh);
    require(rmdir(directory) == 0, "a test directory holds nothing but the pool");
    directory[0] = 0;
}

void small_damage(const char *path, uint64_t offset, uint64_t count) {
    int fd = open(path, O_RDWR);
    uint8_t byte;
    for (uint64_t end = offset + count; offset < end; offset++) {
        require(pread(fd, &byte, 1, (off_t)offset) == 1, "pread");
        byte = (uint8_t)~byte;
        require(pwrite(fd, &byte, 1, (off_t)offset) == 1, "pwrite");
    }
    close(fd);
}
