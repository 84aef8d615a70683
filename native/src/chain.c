/* chain.c: chains by their keys, for those who noted them: what is left, pins, dropping.
 *
 *   keys    | k0 | k1 | k2 | k3 | k4 |        as noted when the chain was last used
 *   cached  | f0 | f1 | f2 |  gone            a prefix: eviction takes leaves (P5)
 *   shared  |--- n --|                        others noted them too: never dropped here
 *   own               | f2 |                  no other block hangs on it
 *
 * A short last block may have been superseded by a longer one that starts with its tokens. That one
 * is found by hashing the start of each block at its place. It holds the chain's tokens, but is
 * somebody else's: it is looked at and pinned, never dropped or read.
 */
#include <string.h>

#include "hash.h"
#include "lease.h"

static bool is_sound(const dovecote_pool *pool, const dovecote_chain *chain) {
    uint64_t size = pool->layout.block_tokens;
    if (!chain || (chain->blocks && !chain->keys) || chain->blocks == DC_NONE) return false;
    return (chain->tokens + size - 1) / size == chain->blocks;
}

/* Tokens of the chain in its block i. */
static uint32_t tokens_in(const dovecote_pool *pool, const dovecote_chain *chain, uint32_t i) {
    uint64_t left = chain->tokens - (uint64_t)i * pool->layout.block_tokens;
    return left < pool->layout.block_tokens ? (uint32_t)left : pool->layout.block_tokens;
}

static uint32_t exact_block(const dovecote_pool *pool, const dovecote_chain *chain, uint32_t i,
                            uint32_t parent) {
    return dc_frames_child(&pool->frames, parent, chain->keys + (size_t)i * DC_KEY_BYTES);
}

/* The block whose first `tokens` ids have this key, DC_NONE if there is none under `parent`. */
static uint32_t superseder(const dovecote_pool *pool, uint32_t parent, const uint8_t *key,
                           uint32_t tokens) {
    const dc_frames *frames = &pool->frames;
    uint32_t f = parent == DC_NONE ? frames->roots : frames->at[parent].child;
    for (; f != DC_NONE; f = frames->at[f].next) {
        uint8_t start[DC_KEY_BYTES];
        if (frames->at[f].tokens < tokens) continue;
        dc_block_key(pool->layout.secret, frames->at[f].parent_key, dc_frames_ids(frames, f),
                     tokens, start);
        if (memcmp(start, key, DC_KEY_BYTES) == 0) break;
    }
    return f;
}

/* The frame that holds the chain's block i, *exact if it is that block and no longer one. */
static uint32_t find_block(const dovecote_pool *pool, const dovecote_chain *chain, uint32_t i,
                           uint32_t parent, bool *exact) {
    uint32_t tokens = tokens_in(pool, chain, i), f = exact_block(pool, chain, i, parent);
    *exact = f != DC_NONE;
    if (*exact || tokens == pool->layout.block_tokens) return f;
    return superseder(pool, parent, chain->keys + (size_t)i * DC_KEY_BYTES, tokens);
}

/* The last of the chain's blocks that is there, DC_NONE if none is; *blocks is how many are. */
static uint32_t last_block(const dovecote_pool *pool, const dovecote_chain *chain,
                           uint32_t *blocks) {
    uint32_t last = DC_NONE, i = 0;
    for (; i < chain->blocks; i++) {
        uint32_t f = exact_block(pool, chain, i, last);
        if (f == DC_NONE) break;
        last = f;
    }
    *blocks = i;
    return last;
}

/* Of `blocks` blocks that end in frame `last`: those past the first `shared` on which nothing but
 * the chain itself hangs. */
static uint32_t count_own(const dovecote_pool *pool, uint32_t last, uint32_t blocks,
                          uint32_t shared) {
    const dc_frames *frames = &pool->frames;
    uint32_t below = DC_NONE, own = 0, f = last;
    for (; blocks > shared; blocks--, own++) {
        uint32_t child = frames->at[f].child;
        if (child != below) break;
        if (child != DC_NONE && frames->at[child].next != DC_NONE) break;
        below = f;
        f = frames->at[f].parent;
    }
    return own;
}

int dovecote_chain_look(dovecote_pool *pool, const dovecote_chain *chain, uint32_t shared,
                        dovecote_chain_stats *out) {
    if (!pool || !out || !is_sound(pool, chain)) return DOVECOTE_ERR_ARGUMENT;
    dovecote_chain_stats stats = {0};
    uint32_t last = DC_NONE; /* that is the chain's own block, and no longer one */
    bool exact = true;
    dc_pool_lock(pool);
    for (uint32_t i = 0; i < chain->blocks; i++) {
        uint32_t f = find_block(pool, chain, i, last, &exact);
        if (f == DC_NONE) break;
        stats.tokens += tokens_in(pool, chain, i);
        stats.blocks++;
        stats.pinned_blocks += pool->frames.at[f].pinned;
        stats.superseded = !exact; /* only the last block can be */
        if (exact) last = f;
    }
    stats.own_blocks = count_own(pool, last, stats.blocks - stats.superseded, shared);
    dc_pool_unlock(pool);
    *out = stats;
    return DOVECOTE_OK;
}

int dovecote_chain_drop(dovecote_pool *pool, const dovecote_chain *chain, uint32_t shared,
                        uint32_t *freed) {
    if (!pool || !is_sound(pool, chain)) return DOVECOTE_ERR_ARGUMENT;
    dc_frames *frames = &pool->frames;
    uint32_t blocks, count = 0;
    dc_pool_lock(pool);
    uint32_t f = last_block(pool, chain, &blocks);
    for (; blocks > shared; blocks--, count++) {
        uint32_t parent = frames->at[f].parent;
        if (frames->at[f].child != DC_NONE || frames->at[f].leases) break;
        dc_frames_drop(frames, f);
        f = parent;
    }
    dc_pool_unlock(pool);
    if (freed) *freed = count;
    return DOVECOTE_OK;
}

/* Returns how many frames more than are pinned already the chain asks for. */
static uint64_t pin_chain(dovecote_pool *pool, const dovecote_chain *chain, uint64_t limit) {
    dc_frames *frames = &pool->frames;
    uint64_t wanted = 0;
    bool exact;
    for (uint32_t i = 0, f = DC_NONE; i < chain->blocks; i++) {
        f = find_block(pool, chain, i, f, &exact);
        if (f == DC_NONE) break;
        if (frames->at[f].pinned) continue;
        wanted++;
        /* Once the limit is reached nothing more is pinned, so no child without its parent (F5). */
        if (frames->pinned < limit) dc_frames_set_pinned(frames, f);
    }
    return wanted;
}

int dovecote_pool_pin(dovecote_pool *pool, const dovecote_chain *chains, uint32_t count,
                      uint64_t limit, uint64_t *wanted) {
    if (!pool || !wanted || (count && !chains)) return DOVECOTE_ERR_ARGUMENT;
    for (uint32_t i = 0; i < count; i++)
        if (!is_sound(pool, &chains[i])) return DOVECOTE_ERR_ARGUMENT;
    uint64_t sum = 0;
    dc_pool_lock(pool);
    dc_frames_clear_pinned(&pool->frames);
    for (uint32_t i = 0; i < count; i++)
        sum += pin_chain(pool, &chains[i], limit);
    dc_pool_unlock(pool);
    *wanted = sum;
    return DOVECOTE_OK;
}

/* ---- leases by keys ---- */

uint32_t dovecote_lease_keys(const dovecote_lease *lease, uint8_t *keys, uint32_t room) {
    if (lease->blocks > room) return lease->blocks;
    for (uint32_t i = 0; i < lease->blocks; i++)
        memcpy(keys + (size_t)i * DC_KEY_BYTES, lease->pool->frames.at[lease->chain[i]].key,
               DC_KEY_BYTES);
    return lease->blocks;
}

void dovecote_lease_root(const dovecote_lease *lease, uint8_t *root) {
    memcpy(root, lease->root, DC_KEY_BYTES);
}

/* Locked. false if a block could not be pinned. */
static bool pin_blocks(dovecote_lease *lease, const dovecote_chain *chain) {
    const dovecote_pool *pool = lease->pool;
    for (uint32_t i = 0, f = DC_NONE; i < chain->blocks; i++) {
        f = exact_block(pool, chain, i, f);
        if (f == DC_NONE) break;
        const dc_frame *frame = &pool->frames.at[f];
        if (frame->tokens != tokens_in(pool, chain, i)) break;
        if (!dc_lease_pin(lease, f)) return false;
        if (i == 0) memcpy(lease->root, frame->parent_key, DC_KEY_BYTES);
        dc_lease_append(lease, f, frame->tokens);
    }
    return true;
}

int dovecote_lease_hold(dovecote_lease *lease, const dovecote_chain *chain, uint64_t *tokens) {
    if (!lease || !tokens || !is_sound(lease->pool, chain)) return DOVECOTE_ERR_ARGUMENT;
    if (lease->was_matched || lease->blocks) return DOVECOTE_ERR_ARGUMENT;
    int rc = dc_lease_make_room(lease, chain->blocks);
    if (rc != DOVECOTE_OK) return rc;
    dc_pool_lock(lease->pool);
    if (pin_blocks(lease, chain)) {
        lease->was_matched = true;
        lease->matched = lease->blocks;
        lease->ended = lease->tokens % lease->pool->layout.block_tokens != 0;
        *tokens = lease->tokens;
    } else {
        dc_lease_unpin_from(lease, 0);
        lease->tokens = 0;
        memset(lease->tip, 0, DC_KEY_BYTES);
        rc = DOVECOTE_ERR_FULL;
    }
    dc_pool_unlock(lease->pool);
    return rc;
}
