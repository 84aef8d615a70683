/* small.h: the smallest real pool, and a model whose K and V can be told from its tokens.
 *
 * Blocks of 4 tokens, 2 layers of 2 heads of 8 float32, codec exact. The "model" gives position t
 * the values of a hash of tokens[0, t], so a restored row is either exact for its whole prefix or
 * visibly wrong.
 */
#ifndef SMALL_H
#define SMALL_H

#include <stdbool.h>
#include <stdint.h>

#include "dovecote.h"

enum { BLOCK = 4, LAYERS = 2, HEADS = 2, DIM = 8, CAPACITY = 64, PAGE = 4096, RECORD = 128 };

typedef struct {
    float values[2 * LAYERS][HEADS][CAPACITY][DIM];
    dovecote_plane planes[2 * LAYERS];
} row;

/* A row of NaN: nothing that a test compares equal to. */
void row_clear(row *r);
/* Positions [start, end) as the model computes them. */
void row_compute(row *r, const uint32_t *tokens, uint64_t start, uint64_t end);
bool row_is_exact(const row *r, const uint32_t *tokens, uint64_t start, uint64_t end);

/* The configuration of a pool of exactly that many frames. */
dovecote_pool_config small_config(uint32_t frames);
uint64_t small_size(uint32_t frames);

/* A pool at `path` (or in memory, NULL); exits if that fails. */
dovecote_pool *small_open(const char *path, uint32_t frames);
/* Checks and closes; exits if either fails. */
void small_close(dovecote_pool *pool);
dovecote_pool_stats small_stats(dovecote_pool *pool);
/* dovecote_pool_check and promised <= cached + free. */
bool small_is_sound(dovecote_pool *pool);

/* What a request does: lease, match, decode, compute the rest, seal it all, close. */
typedef struct {
    int rc;
    uint64_t matched; /* tokens found */
    uint64_t valid;   /* tokens restored */
    uint64_t sealed;
    bool exact; /* what was restored is what the model would have computed */
} turn;

turn small_turn(dovecote_pool *pool, const uint32_t *tokens, uint64_t count);
turn small_turn_under(dovecote_pool *pool, const uint8_t *root, const uint32_t *tokens,
                      uint64_t count);
/* Matches and decodes, seals nothing. */
turn small_look(dovecote_pool *pool, const uint32_t *tokens, uint64_t count);

/* A turn whose chain is noted at its end, as an agent's is. */
enum { SMALL_NOTED = 8 };
typedef struct {
    uint8_t keys[SMALL_NOTED][16];
    uint32_t blocks;
    uint64_t tokens;
} noted;

noted small_noted_turn(dovecote_pool *pool, const uint32_t *tokens, uint64_t count);
dovecote_chain small_chain(const noted *n);

/* A path in a fresh directory; remove it with small_forget. */
const char *small_path(void);
void small_forget(void);

/* Overwrites bytes of a closed pool's file with their complement. */
void small_damage(const char *path, uint64_t offset, uint64_t count);
uint64_t small_frame_offset(uint32_t frames, uint32_t frame);
uint64_t small_record_offset(uint32_t frame);

#endif
