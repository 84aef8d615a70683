/* seal.c: from planes into frames.
 *
 *   locked     is the block there already? then pin it
 *   unlocked   encode into the lease's buffer
 *   locked     take a frame (FILLING)
 *   unlocked   write free record if the disk has an old one (P3), payload, record (P1)
 *   locked     publish; or, if another lease was faster, give the frame back and pin the other's
 *
 * A short block is not written but held in memory (held.h), unless too much is held already.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crc.h"
#include "lease.h"

/* The frame that already holds the block. A short block is held by any sibling that starts with it:
 * whatever could match the short one matches that. */
static uint32_t find_holder(const dovecote_pool *pool, const dc_block *block) {
    uint32_t common, frame;
    if (block->tokens == pool->layout.block_tokens) return dc_frames_find(&pool->frames, block);
    frame = dc_frames_nearest(&pool->frames, block, &common);
    return common == block->tokens ? frame : DC_NONE;
}

static bool parent_is_lost(const dovecote_pool *pool, const dc_block *block) {
    return block->parent != DC_NONE && pool->frames.at[block->parent].state != DC_SEALED;
}

/* Under the mutex. OK with *shared true: the block is pinned and appended. OK with false: it is for
 * the lease to write, and a frame is promised. IO: the parent was found damaged by another lease,
 * and nothing can be found below it any more. FULL. */
static int share_block(dovecote_lease *lease, const dc_block *block, bool *shared) {
    dovecote_pool *pool = lease->pool;
    *shared = false;
    if (parent_is_lost(pool, block)) {
        pool->last_error = EIO;
        return DOVECOTE_ERR_IO;
    }
    uint32_t frame = find_holder(pool, block);
    if (frame == DC_NONE) return lease->promised ? DOVECOTE_OK : DOVECOTE_ERR_FULL;
    if (!dc_lease_pin(lease, frame)) return DOVECOTE_ERR_FULL;
    dc_lease_append(lease, frame, block->tokens);
    pool->stats.shared_blocks++;
    *shared = true;
    return DOVECOTE_OK;
}

/* Where the section after that of layer i begins, or the frame ends. */
static uint64_t place_end(const dc_layout *layout, uint32_t i) {
    return i + 1 < layout->layer_count ? layout->places[i + 1].offset : layout->frame_bytes;
}

/* What is encoded after layer i of a block: the next layer at the same positions, or NULL. */
static const void *run_after(const dovecote_lease *lease, uint32_t i, const dovecote_plane *next) {
    const dc_layout *layout = &lease->pool->layout;
    if (i + 1 == layout->layer_count) return NULL;
    return dc_section_run(&layout->places[i + 1].section, next, lease->tokens);
}

static void encode_block(dovecote_lease *lease, uint32_t tokens, const dovecote_plane *planes) {
    const dc_layout *layout = &lease->pool->layout;
    for (uint32_t i = 0; i < layout->layer_count; i++, planes += 2) {
        const dc_place *place = &layout->places[i];
        uint8_t *bytes = lease->payload + place->offset;
        dc_section_encode(&place->section, &planes[0], &planes[1], lease->tokens, tokens,
                          run_after(lease, i, &planes[2]), bytes);
        memset(bytes + place->bytes, 0, place_end(layout, i) - place->offset - place->bytes);
        lease->sums[i] = dc_crc32c(0, bytes, place->bytes);
    }
}

static uint32_t take_frame(dovecote_lease *lease, const dc_block *block) {
    lease->promised--;
    lease->pool->promised--;
    return dc_frames_take(&lease->pool->frames, block);
}

static void abandon_frame(dovecote_lease *lease, uint32_t frame) {
    dc_frames_abandon(&lease->pool->frames, frame);
    lease->promised++;
    lease->pool->promised++;
}

/* Under the mutex: publishes the frame, unless another lease was faster with the same block or has
 * found the parent damaged; share_block then has the answer. */
static int finish_block(dovecote_lease *lease, const dc_block *block, uint32_t frame) {
    dovecote_pool *pool = lease->pool;
    if (parent_is_lost(pool, block) || find_holder(pool, block) != DC_NONE) {
        bool shared;
        abandon_frame(lease, frame);
        return share_block(lease, block, &shared);
    }
    dc_frames_publish(&pool->frames, frame);
    dc_lease_append(lease, frame, block->tokens);
    pool->stats.sealed_blocks++;
    return DOVECOTE_OK;
}

static int fail_block(dovecote_lease *lease, uint32_t frame, int error) {
    abandon_frame(lease, frame);
    lease->pool->last_error = error;
    lease->pool->stats.write_errors++;
    return DOVECOTE_ERR_IO;
}

/* A payload that is stored already: padding is made zero again, sums are taken anew. */
static void copy_block(dovecote_lease *lease, const uint8_t *payload) {
    const dc_layout *layout = &lease->pool->layout;
    for (uint32_t i = 0; i < layout->layer_count; i++) {
        const dc_place *place = &layout->places[i];
        uint8_t *bytes = lease->payload + place->offset;
        memcpy(bytes, payload + place->offset, place->bytes);
        memset(bytes + place->bytes, 0, place_end(layout, i) - place->offset - place->bytes);
        lease->sums[i] = dc_crc32c(0, bytes, place->bytes);
    }
}

/* Where a block's K and V come from: a row's planes, or a payload if that is not NULL. */
typedef struct {
    const dovecote_plane *planes;
    const uint8_t *payload;
} content;

/* Takes a frame, writes the encoded block into it and publishes it. */
static int write_block(dovecote_lease *lease, const dc_block *block) {
    dovecote_pool *pool = lease->pool;
    dc_pool_lock(pool);
    uint32_t frame = take_frame(lease, block);
    bool stale = pool->frames.at[frame].dirty;
    dc_pool_unlock(pool);
    uint64_t written = 0;
    int error = dc_pool_write_block(pool, frame, lease->payload, lease->record, stale, &written);
    dc_pool_lock(pool);
    pool->stats.bytes_written += written;
    int rc = error ? fail_block(lease, frame, error) : finish_block(lease, block, frame);
    dc_pool_unlock(pool);
    return rc;
}

/* Publishes the encoded block with its payload in memory. false: too much is held already, or there
 * is no memory; nothing changed then. */
static bool hold_block(dovecote_lease *lease, const dc_block *block, int *rc) {
    dovecote_pool *pool = lease->pool;
    dc_held *held = dc_held_new(lease->payload, pool->layout.frame_bytes);
    if (!held) return false;
    dc_pool_lock(pool);
    bool fits = dc_pool_make_room_to_hold(pool);
    if (fits) {
        uint32_t frame = take_frame(lease, block), before = lease->blocks;
        bool stale = pool->frames.at[frame].dirty;
        *rc = finish_block(lease, block, frame);
        bool published = lease->blocks > before && lease->chain[before] == frame;
        if (published) dc_frames_hold(&pool->frames, frame, held, stale);
        if (published) held = NULL;
    }
    dc_pool_unlock(pool);
    free(held);
    return fits;
}

/* Seals one block of ids[0, tokens) at the chain's end. After a failure the chain is as before. */
static int seal_block(dovecote_lease *lease, const uint32_t *ids, uint32_t tokens, content from) {
    dovecote_pool *pool = lease->pool;
    uint8_t key[DC_KEY_BYTES];
    dc_block block = dc_lease_block(lease, ids, tokens, key);
    bool shared;
    dc_pool_lock(pool);
    dc_lease_unpin_tail(lease);
    int rc = share_block(lease, &block, &shared);
    dc_pool_unlock(pool);
    if (rc != DOVECOTE_OK || shared) return rc;
    if (from.payload)
        copy_block(lease, from.payload);
    else
        encode_block(lease, tokens, from.planes);
    bool is_short = tokens < pool->layout.block_tokens;
    if (is_short && hold_block(lease, &block, &rc)) return rc;
    return write_block(lease, &block);
}

static int seal_blocks(dovecote_lease *lease, const uint32_t *tokens, uint64_t count,
                       const dovecote_plane *planes, int short_block) {
    uint32_t size = lease->pool->layout.block_tokens;
    content from = {planes, NULL};
    int rc = DOVECOTE_OK;
    for (; rc == DOVECOTE_OK && count >= size; tokens += size, count -= size)
        rc = seal_block(lease, tokens, size, from);
    if (rc != DOVECOTE_OK || !short_block || count == 0) return rc;
    rc = seal_block(lease, tokens, (uint32_t)count, from);
    if (rc == DOVECOTE_OK) lease->ended = true;
    return rc;
}

int dovecote_lease_seal(dovecote_lease *lease, const uint32_t *tokens, uint64_t count,
                        const dovecote_plane *planes, int short_block, uint64_t *sealed) {
    if (!lease) return DOVECOTE_ERR_ARGUMENT;
    const dc_layout *layout = &lease->pool->layout;
    uint64_t blocks = count / layout->block_tokens + (count % layout->block_tokens != 0);
    int rc = DOVECOTE_ERR_ARGUMENT;
    if (count == 0)
        rc = DOVECOTE_OK;
    else if (tokens && planes && !lease->ended && count <= UINT32_MAX &&
             dc_layout_planes_hold(layout, planes, 0, layout->layer_count, lease->tokens,
                                   lease->tokens + count))
        rc = dc_lease_make_room(lease, lease->blocks + blocks);
    if (rc == DOVECOTE_OK) rc = seal_blocks(lease, tokens, count, planes, short_block);
    if (sealed) *sealed = lease->tokens;
    return rc;
}

int dovecote_lease_write(dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
                         const uint8_t *payload) {
    if (!lease || !ids || !payload || lease->ended) return DOVECOTE_ERR_ARGUMENT;
    uint32_t size = lease->pool->layout.block_tokens;
    if (tokens == 0 || tokens > size) return DOVECOTE_ERR_ARGUMENT;
    int rc = dc_lease_make_room(lease, (uint64_t)lease->blocks + 1);
    if (rc == DOVECOTE_OK) rc = seal_block(lease, ids, tokens, (content){NULL, payload});
    if (rc == DOVECOTE_OK && tokens < size) lease->ended = true;
    return rc;
}
