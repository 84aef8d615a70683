/* lease.c: matching, decoding and sealing the chain of one running request.
 *
 *   chain   | whole | whole | whole | ... | whole or short |      pinned, in position order
 *             \____ matched ____/ \______ sealed ________/
 *   tail                        | c tokens |                      pinned until the first seal
 *
 * The tail is the best child of the last matched block: a short block, or one that goes another way
 * after c tokens. It is decoded, but not part of the chain: sealing starts after the last whole
 * block, so the tail's tokens come back as part of a block of the lease's own.
 *
 * Promises: pool->promised is the sum of lease->promised over all leases, and never exceeds the free
 * and cached frames. Each step keeps that:
 *   open            promised += n         only if that many are left
 *   pin, cached     available -= 1        together with promised -= 1, or only if one is spare
 *   take            available -= 1        together with promised -= 1
 *   unpin, abandon  available += 1 or 0
 *
 * Thread rule: a lease is its thread's own. The pool's mutex is held for moving through the tree and
 * the lists, never while payload is read, written, checked, encoded or decoded.
 */
#include <errno.h>
#include <string.h>

#include "crc.h"
#include "fault.h"
#include "file.h"
#include "hash.h"
#include "pool.h"

struct dovecote_lease {
    dovecote_pool *pool;
    uint32_t promised;
    uint32_t *chain;      /* frame numbers */
    uint32_t blocks;      /* in the chain */
    uint32_t room;        /* entries allocated */
    uint32_t matched;     /* the first ones of the chain: those that decode reads */
    uint32_t tail;        /* or DC_NONE */
    uint32_t tail_tokens; /* c */
    uint64_t tokens;      /* in the chain, without the tail */
    uint8_t root[DC_KEY_BYTES];
    uint8_t tip[DC_KEY_BYTES]; /* key of the chain's last block, zeros if it is empty */
    bool was_matched;
    bool ended; /* by a short block */
    uint8_t *payload; /* [frame_bytes]: a frame to seal, or one section to decode */
    uint8_t *record;  /* [record_bytes] */
    uint32_t *sums;   /* [layer_count] */
};

/* ---- chain ---- */

static int make_room(dovecote_lease *lease, uint64_t blocks) {
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

/* The frame is pinned. */
static void append(dovecote_lease *lease, uint32_t frame, uint32_t tokens) {
    lease->chain[lease->blocks++] = frame;
    lease->tokens += tokens;
    memcpy(lease->tip, lease->pool->frames.at[frame].key, DC_KEY_BYTES);
}

/* The block of ids[0, tokens) at the chain's end; `key` gets its key. */
static dc_block block_after(const dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
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

static void unpin_tail(dovecote_lease *lease) {
    if (lease->tail != DC_NONE) dc_frames_unpin(&lease->pool->frames, lease->tail);
    lease->tail = DC_NONE;
    lease->tail_tokens = 0;
}

/* Unpins from the chain's end, so that parents become younger than their children (F3). */
static void unpin_from(dovecote_lease *lease, uint32_t block) {
    unpin_tail(lease);
    while (lease->blocks > block)
        dc_frames_unpin(&lease->pool->frames, lease->chain[--lease->blocks]);
}

void dovecote_lease_close(dovecote_lease *lease) {
    if (!lease) return;
    dovecote_pool *pool = lease->pool;
    dc_pool_lock(pool);
    uint32_t last = lease->tail;
    if (last == DC_NONE && lease->blocks) last = lease->chain[lease->blocks - 1];
    unpin_from(lease, 0);
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

/* Pins a sealed frame in place of one the lease was promised, if it has a promise left. false if
 * that would break another lease's promise: then nothing changed. */
static bool pin_for_promise(dovecote_lease *lease, uint32_t frame) {
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
        dc_block block = block_after(lease, tokens, size, key);
        uint32_t frame = dc_frames_find(&lease->pool->frames, &block);
        if (frame == DC_NONE || !pin_for_promise(lease, frame)) return;
        append(lease, frame, size);
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
    int rc = make_room(lease, count / pool->layout.block_tokens);
    if (rc != DOVECOTE_OK) return rc;
    if (root) memcpy(lease->root, root, DC_KEY_BYTES);
    lease->was_matched = true;
    dc_pool_lock(pool);
    match_whole_blocks(lease, tokens, count);
    match_tail(lease, tokens + lease->tokens, count - lease->tokens);
    lease->matched = lease->blocks;
    *matched = dovecote_lease_tokens(lease);
    pool->stats.matched_tokens += *matched;
    dc_pool_unlock(pool);
    return DOVECOTE_OK;
}

/* ---- decode ---- */

/* Blocks that decode reads: the matched ones, then the tail. */
static uint32_t readable_blocks(const dovecote_lease *lease) {
    return lease->matched + (lease->tail != DC_NONE);
}

static uint32_t readable_frame(const dovecote_lease *lease, uint32_t block) {
    return block < lease->matched ? lease->chain[block] : lease->tail;
}

static uint64_t readable_tokens(const dovecote_lease *lease, uint32_t blocks) {
    uint64_t size = lease->pool->layout.block_tokens;
    if (blocks <= lease->matched) return blocks * size;
    return lease->matched * size + lease->tail_tokens;
}

void dovecote_lease_prefetch(dovecote_lease *lease) {
    const dc_layout *layout = &lease->pool->layout;
    for (uint32_t block = 0; block < readable_blocks(lease); block++)
        dc_file_read_ahead(lease->pool->fd, dc_frame_offset(layout, readable_frame(lease, block)),
                           layout->frame_bytes);
}

/* Whether positions [0, end) of one side of a layer lie inside the plane. */
static bool plane_holds(const dovecote_plane *plane, const dc_section *section, uint32_t dim,
                        uint64_t end) {
    uint64_t element = section->dtype == DOVECOTE_FLOAT32 ? 4 : 2;
    if (dim == 0 || end == 0) return true;
    if (!plane->data || plane->capacity < end) return false;
    return section->layer.kv_heads == 1 || plane->head_stride / (dim * element) >= end;
}

static bool planes_hold(const dc_layout *layout, const dovecote_plane *planes, uint32_t start,
                        uint32_t end, uint64_t tokens) {
    for (uint32_t i = start; i < end; i++, planes += 2) {
        const dc_section *section = &layout->places[i].section;
        if (!plane_holds(&planes[0], section, section->layer.k_dim, tokens)) return false;
        if (!plane_holds(&planes[1], section, section->layer.v_dim, tokens)) return false;
    }
    return true;
}

/* Layers [start, end) of one block. Each section is checked while the read has left it in the
 * cache, and decoded from there. false if the block cannot be had: *error is errno, 0 for a checksum. */
static bool decode_block(dovecote_lease *lease, uint32_t block, uint32_t start, uint32_t end,
                         const dovecote_plane *planes, int *error) {
    const dovecote_pool *pool = lease->pool;
    uint32_t frame = readable_frame(lease, block);
    const uint32_t *sums = dc_frames_sums(&pool->frames, frame);
    uint64_t position = (uint64_t)block * pool->layout.block_tokens;
    uint32_t tokens = (uint32_t)(readable_tokens(lease, block + 1) - position);
    for (uint32_t i = start; i < end; i++, planes += 2) {
        const dc_place *place = &pool->layout.places[i];
        uint8_t *bytes = lease->payload; /* the same few pages for each section: they stay hot */
        *error = dc_file_read(pool->fd, dc_frame_offset(&pool->layout, frame) + place->offset,
                              bytes, place->bytes);
        if (*error) return false;
        if (dc_crc32c(0, bytes, place->bytes) != sums[i]) return false;
        dc_section_decode(&place->section, bytes, position, tokens, &planes[0], &planes[1]);
    }
    return true;
}

/* The lease's own account after it lost its chain's blocks from `block` on. */
static void shorten(dovecote_lease *lease, uint32_t block) {
    lease->tokens = (uint64_t)block * lease->pool->layout.block_tokens;
    lease->matched = block;
    lease->ended = false;
    memset(lease->tip, 0, DC_KEY_BYTES);
    if (block) memcpy(lease->tip, lease->pool->frames.at[lease->chain[block - 1]].key, DC_KEY_BYTES);
}

/* Ends the lease before `block`, whose frame could not be had, and takes back one promise for each
 * block of its chain that it loses, as far as frames are spare. `error` is 0 for a checksum. */
static void cut(dovecote_lease *lease, uint32_t block, int error) {
    dovecote_pool *pool = lease->pool;
    dc_frames *frames = &pool->frames;
    uint32_t frame = readable_frame(lease, block), lost = lease->blocks - block;
    if (frames->at[frame].state == DC_SEALED) { /* no other lease has dropped it already */
        *(error ? &pool->stats.miss_io : &pool->stats.miss_checksum) += 1;
        pool->stats.miss_orphan += dc_frames_drop(frames, frame) - 1;
    }
    if (error) pool->last_error = error;
    unpin_from(lease, block);
    if (lost) shorten(lease, block);
    for (; lost && dc_pool_can_spare(pool); lost--) {
        lease->promised++;
        pool->promised++;
    }
}

static void count_decoded(const dovecote_lease *lease, uint32_t start, uint32_t end,
                          uint32_t layer_start, uint32_t layer_end) {
    const dc_layout *layout = &lease->pool->layout;
    dovecote_pool_stats *stats = &lease->pool->stats;
    for (uint32_t i = layer_start; i < layer_end; i++)
        stats->bytes_read += (end - start) * layout->places[i].bytes;
    if (layer_end == layout->layer_count) /* blocks come a few layers at a time */
        stats->decoded_tokens += readable_tokens(lease, end) - readable_tokens(lease, start);
}

int dovecote_lease_decode(dovecote_lease *lease, uint32_t block_start, uint32_t block_end,
                          uint32_t layer_start, uint32_t layer_end, const dovecote_plane *planes,
                          uint64_t *valid) {
    if (!lease || !planes || !valid || block_start > block_end) return DOVECOTE_ERR_ARGUMENT;
    dovecote_pool *pool = lease->pool;
    const dc_layout *layout = &pool->layout;
    if (layer_start > layer_end || layer_end > layout->layer_count) return DOVECOTE_ERR_ARGUMENT;
    if (block_end > readable_blocks(lease)) block_end = readable_blocks(lease);
    if (block_start < block_end &&
        !planes_hold(layout, planes, layer_start, layer_end, readable_tokens(lease, block_end)))
        return DOVECOTE_ERR_ARGUMENT;
    uint32_t block = block_start;
    int error = 0;
    for (; block < block_end; block++)
        if (!decode_block(lease, block, layer_start, layer_end, planes, &error)) break;
    dc_pool_lock(pool);
    if (block > block_start)
        count_decoded(lease, block_start, block, layer_start, layer_end);
    if (block < block_end) cut(lease, block, error);
    dc_pool_unlock(pool);
    *valid = dovecote_lease_tokens(lease);
    return DOVECOTE_OK;
}

/* ---- seal ---- */

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
    if (!pin_for_promise(lease, frame)) return DOVECOTE_ERR_FULL;
    append(lease, frame, block->tokens);
    pool->stats.shared_blocks++;
    *shared = true;
    return DOVECOTE_OK;
}

/* Where the section after that of layer i begins, or the frame ends. */
static uint64_t place_end(const dc_layout *layout, uint32_t i) {
    return i + 1 < layout->layer_count ? layout->places[i + 1].offset : layout->frame_bytes;
}

static void encode_block(dovecote_lease *lease, uint32_t tokens, const dovecote_plane *planes) {
    const dc_layout *layout = &lease->pool->layout;
    for (uint32_t i = 0; i < layout->layer_count; i++, planes += 2) {
        const dc_place *place = &layout->places[i];
        uint8_t *bytes = lease->payload + place->offset;
        dc_section_encode(&place->section, &planes[0], &planes[1], lease->tokens, tokens, bytes);
        memset(bytes + place->bytes, 0, place_end(layout, i) - place->offset - place->bytes);
        lease->sums[i] = dc_crc32c(0, bytes, place->bytes);
    }
}

/* Frees the old record if the disk may still have one (P3), then payload, then record (P1). Returns
 * an errno value. */
static int write_block(dovecote_lease *lease, uint32_t frame) {
    const dovecote_pool *pool = lease->pool;
    const dc_layout *layout = &pool->layout;
    uint64_t record_offset = dc_record_offset(layout, frame);
    int error = 0;
    if (pool->frames.at[frame].dirty) {
        dc_record_write_free(layout, &pool->frames, frame, lease->record);
        error = dc_file_write(pool->fd, record_offset, lease->record, layout->record_bytes);
    }
    if (!error)
        error = dc_file_write(pool->fd, dc_frame_offset(layout, frame), lease->payload,
                              layout->frame_bytes);
    if (error) return error;
    dc_record_write(layout, &pool->frames, frame, lease->record);
    return dc_file_write(pool->fd, record_offset, lease->record, layout->record_bytes);
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

/* Under the mutex, after writing: publishes the frame, unless another lease was faster with the same
 * block or has found the parent damaged; share_block then has the answer. */
static int finish_block(dovecote_lease *lease, const dc_block *block, uint32_t frame) {
    dovecote_pool *pool = lease->pool;
    pool->stats.bytes_written += pool->layout.frame_bytes + pool->layout.record_bytes;
    if (parent_is_lost(pool, block) || find_holder(pool, block) != DC_NONE) {
        bool shared;
        abandon_frame(lease, frame);
        return share_block(lease, block, &shared);
    }
    dc_frames_publish(&pool->frames, frame);
    append(lease, frame, block->tokens);
    pool->stats.sealed_blocks++;
    return DOVECOTE_OK;
}

static int fail_block(dovecote_lease *lease, uint32_t frame, int error) {
    abandon_frame(lease, frame);
    lease->pool->last_error = error;
    lease->pool->stats.write_errors++;
    return DOVECOTE_ERR_IO;
}

/* Seals one block of ids[0, tokens) at the chain's end. After a failure the chain is as before. */
static int seal_block(dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
                      const dovecote_plane *planes) {
    dovecote_pool *pool = lease->pool;
    uint8_t key[DC_KEY_BYTES];
    dc_block block = block_after(lease, ids, tokens, key);
    bool shared;
    dc_pool_lock(pool);
    unpin_tail(lease);
    int rc = share_block(lease, &block, &shared);
    dc_pool_unlock(pool);
    if (rc != DOVECOTE_OK || shared) return rc;
    encode_block(lease, tokens, planes);
    dc_pool_lock(pool);
    uint32_t frame = take_frame(lease, &block);
    dc_pool_unlock(pool);
    int error = write_block(lease, frame);
    dc_pool_lock(pool);
    rc = error ? fail_block(lease, frame, error) : finish_block(lease, &block, frame);
    dc_pool_unlock(pool);
    return rc;
}

static int seal_blocks(dovecote_lease *lease, const uint32_t *tokens, uint64_t count,
                       const dovecote_plane *planes, int short_block) {
    uint32_t size = lease->pool->layout.block_tokens;
    int rc = DOVECOTE_OK;
    for (; rc == DOVECOTE_OK && count >= size; tokens += size, count -= size)
        rc = seal_block(lease, tokens, size, planes);
    if (rc != DOVECOTE_OK || !short_block || count == 0) return rc;
    rc = seal_block(lease, tokens, (uint32_t)count, planes);
    if (rc == DOVECOTE_OK) lease->ended = true;
    return rc;
}

int dovecote_lease_seal(dovecote_lease *lease, const uint32_t *tokens, uint64_t count,
                        const dovecote_plane *planes, int short_block, uint64_t *sealed) {
    if (!lease) return DOVECOTE_ERR_ARGUMENT;
    const dc_layout *layout = &lease->pool->layout;
    uint64_t blocks = count / layout->block_tokens + (count % layout->block_tokens != 0);
    int rc = DOVECOTE_ERR_ARGUMENT;
    if (count == 0) rc = DOVECOTE_OK;
    else if (tokens && planes && !lease->ended && count <= UINT32_MAX &&
             planes_hold(layout, planes, 0, layout->layer_count, lease->tokens + count))
        rc = make_room(lease, lease->blocks + blocks);
    if (rc == DOVECOTE_OK) rc = seal_blocks(lease, tokens, count, planes, short_block);
    if (sealed) *sealed = lease->tokens;
    return rc;
}
