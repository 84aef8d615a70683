/* lease.c: opening, matching and closing leases. See lease.h for the picture and the promises. */
#include "lease.h"

#include <string.h>

#include "fault.h"
#include "hash.h"

/* ---- chain ---- */

int dc_lease_make_room(dovecote_lease *lease, uint64_t blocks) {
    if (blocks <= lease->room) return DOVECOTE_OK;
    if (blocks >= DC_NONE) return DOVECOTE_ERR_ARGUMENT;
    uint64_t room = blocks + lease->room;
    uint32_t *chain = dc_alloc(room, sizeof *chain);
    if (!chain) return DOVECOTE_ERR_MEMORY;
    if (lease->blocks) memcpy(chain, lease->chain, lease->blocks * sizeof *chain);
    free(lease->chain);
    lease->chain = chain;
    lease->room = room < DC_NONE ? (uint32_t)room : DC_NONE;
    return DOVECOTE_OK;
}

void dc_lease_append(dovecote_lease *lease, uint32_t frame, uint32_t tokens) {
    lease->chain[lease->blocks++] = frame;
    lease->tokens += tokens;
    memcpy(lease->tip, lease->pool->frames.at[frame].key, DC_KEY_BYTES);
}

dc_block dc_lease_block(const dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
                        uint8_t *key) {
    const uint8_t *above = lease->blocks ? lease->tip : lease->root;
    dc_block block = {.parent = lease->blocks ? lease->chain[lease->blocks - 1] : DC_NONE,
                      .above = above,
                      .key = key,
                      .ids = ids,
                      .sums = lease->sums,
                      .depth = lease->blocks,
                      .tokens = tokens};
    dc_block_key(lease->pool->layout.secret, above, ids, tokens, key);
    return block;
}

/* ---- open and close ---- */

static void free_lease(dovecote_lease *lease) {
    free(lease->chain);
    free(lease->payload);
    free(lease->record);
    free(lease->sums);
    free(lease);
}

int dovecote_lease_open(dovecote_pool *pool, uint32_t frames, dovecote_lease **out) {
    if (!pool || !out) return DOVECOTE_ERR_ARGUMENT;
    const dc_layout *layout = &pool->layout;
    dovecote_lease *lease = dc_alloc(1, sizeof *lease);
    if (!lease) return DOVECOTE_ERR_MEMORY;
    lease->pool = pool;
    lease->tail = DC_NONE;
    lease->payload = dc_alloc(layout->frame_bytes, 1);
    lease->record = dc_alloc(layout->record_bytes, 1);
    lease->sums = dc_alloc(layout->layer_count, sizeof *lease->sums);
    int rc = lease->payload && lease->record && lease->sums ? DOVECOTE_OK : DOVECOTE_ERR_MEMORY;
    dc_pool_lock(pool);
    if (frames > dc_frames_available(&pool->frames) - pool->promised) rc = DOVECOTE_ERR_FULL;
    if (rc == DOVECOTE_OK) {
        lease->promised = frames;
        pool->promised += frames;
        pool->leases++;
        *out = lease;
    }
    dc_pool_unlock(pool);
    if (rc != DOVECOTE_OK) free_lease(lease);
    return rc;
}

void dc_lease_unpin_tail(dovecote_lease *lease) {
    if (lease->tail != DC_NONE) dc_frames_unpin(&lease->pool->frames, lease->tail);
    lease->tail = DC_NONE;
    lease->tail_tokens = 0;
}

/* Unpins from the chain's end, so that parents become younger than their children (F3). */
void dc_lease_unpin_from(dovecote_lease *lease, uint32_t block) {
    dc_lease_unpin_tail(lease);
    while (lease->blocks > block)
        dc_frames_unpin(&lease->pool->frames, lease->chain[--lease->blocks]);
}

void dovecote_lease_close(dovecote_lease *lease) {
    if (!lease) return;
    dovecote_pool *pool = lease->pool;
    dc_pool_lock(pool);
    uint32_t last = lease->tail;
    if (last == DC_NONE && lease->blocks) last = lease->chain[lease->blocks - 1];
    dc_lease_unpin_from(lease, 0);
    /* The end of a chain carries its recency to disk; see dc_frames_restore. */
    if (last != DC_NONE) pool->frames.at[last].dirty = true;
    pool->promised -= lease->promised;
    pool->leases--;
    dc_pool_unlock(pool);
    free_lease(lease);
}

uint64_t dovecote_lease_tokens(const dovecote_lease *lease) {
    return lease->tokens + lease->tail_tokens;
}

void dovecote_lease_tip(const dovecote_lease *lease, uint8_t *key) {
    memcpy(key, lease->tip, DC_KEY_BYTES);
}

/* ---- match ---- */

bool dc_lease_pin(dovecote_lease *lease, uint32_t frame) {
    dovecote_pool *pool = lease->pool;
    bool cached = pool->frames.at[frame].leases == 0;
    if (cached && !lease->promised && !dc_pool_can_spare(pool)) return false;
    dc_frames_pin(&pool->frames, frame);
    if (lease->promised) {
        lease->promised--;
        pool->promised--;
    }
    return true;
}

static void match_whole_blocks(dovecote_lease *lease, const uint32_t *tokens, uint64_t count) {
    uint32_t size = lease->pool->layout.block_tokens;
    uint8_t key[DC_KEY_BYTES];
    for (; count >= size; tokens += size, count -= size) {
        dc_block block = dc_lease_block(lease, tokens, size, key);
        uint32_t frame = dc_frames_find(&lease->pool->frames, &block);
        if (frame == DC_NONE || !dc_lease_pin(lease, frame)) return;
        dc_lease_append(lease, frame, size);
    }
}

/* A tail takes a frame away without giving a promise back: the lease will fill a frame of its own
 * for these tokens. So it is left out if no frame is spare. */
static void match_tail(dovecote_lease *lease, const uint32_t *tokens, uint64_t count) {
    dovecote_pool *pool = lease->pool;
    uint32_t size = pool->layout.block_tokens, common;
    dc_block block = {.parent = lease->blocks ? lease->chain[lease->blocks - 1] : DC_NONE,
                      .above = lease->blocks ? lease->tip : lease->root,
                      .ids = tokens,
                      .tokens = count < size ? (uint32_t)count : size};
    uint32_t frame = dc_frames_nearest(&pool->frames, &block, &common);
    if (frame == DC_NONE) return;
    if (pool->frames.at[frame].leases == 0 && !dc_pool_can_spare(pool)) return;
    dc_frames_pin(&pool->frames, frame);
    lease->tail = frame;
    lease->tail_tokens = common;
}

int dovecote_lease_match(dovecote_lease *lease, const uint8_t *root, const uint32_t *tokens,
                         uint64_t count, uint64_t *matched) {
    if (!lease || !matched || (count && !tokens)) return DOVECOTE_ERR_ARGUMENT;
    if (lease->was_matched || lease->blocks) return DOVECOTE_ERR_ARGUMENT;
    dovecote_pool *pool = lease->pool;
    int rc = dc_lease_make_room(lease, count / pool->layout.block_tokens);
    if (rc != DOVECOTE_OK) return rc;
    if (root) memcpy(lease->root, root, DC_KEY_BYTES);
    lease->was_matched = true;
    dc_pool_lock(pool);
    match_whole_blocks(lease, tokens, count);
    if (count > lease->tokens) match_tail(lease, tokens + lease->tokens, count - lease->tokens);
    lease->matched = lease->blocks;
    *matched = dovecote_lease_tokens(lease);
    pool->stats.matched_tokens += *matched;
    dc_pool_unlock(pool);
    return DOVECOTE_OK;
}
