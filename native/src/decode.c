/* decode.c: from the matched frames back into planes.
 *
 * Section by section: read, verify, decode, so that each is still in the processor's cache when it
 * is verified and decoded. No lock while that happens: the frames are pinned, and a sealed frame
 * does not change (P3). A frame that cannot be had is dropped from the pool and ends the lease
 * before it (P1).
 *
 * One core does not fill the memory's bandwidth: a large decode is cut into shares of consecutive
 * blocks, one for each thread. Which block could not be had is the same however many there are.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "crc.h"
#include "fault.h"
#include "file.h"
#include "lease.h"

/* Stored bytes for which a thread is started: decoding them takes some 250 us, and starting it 30. */
#define LEAST_SHARE ((uint64_t)1 << 20)

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
    for (uint32_t block = 0; block < readable_blocks(lease); block++) {
        uint32_t frame = readable_frame(lease, block);
        if (!lease->pool->frames.at[frame].held)
            dc_file_read_ahead(lease->pool->fd, dc_frame_offset(layout, frame),
                               layout->frame_bytes);
    }
}

/* What one thread does of a decode: the blocks [start, end) of its layers, one after the other. */
typedef struct {
    const dovecote_lease *lease;
    const dovecote_plane *planes; /* of the layers [layer_start, layer_end) */
    uint32_t layer_start;
    uint32_t layer_end;
    uint32_t start;
    uint32_t end;
    uint8_t *bytes; /* room for a section: the same few pages for each, so that they stay hot */
    uint32_t done;  /* `end`, or the first block that could not be had */
    int error;      /* of that block: errno, 0 for a checksum */
    pthread_t thread;
} share;

/* One section of a pinned frame, from memory if it is held there. */
static const uint8_t *read_section(share *s, uint32_t frame, const dc_place *place) {
    const dovecote_pool *pool = s->lease->pool;
    const dc_held *held = pool->frames.at[frame].held;
    if (held) return held->payload + place->offset;
    s->error = dc_file_read(pool->fd, dc_frame_offset(&pool->layout, frame) + place->offset,
                            s->bytes, place->bytes);
    return s->bytes;
}

/* Each section is checked while the read has left it in the cache, and decoded from there. false
 * if the block cannot be had. */
static bool decode_block(share *s, uint32_t block) {
    const dovecote_pool *pool = s->lease->pool;
    const dovecote_plane *planes = s->planes;
    uint32_t frame = readable_frame(s->lease, block);
    const uint32_t *sums = dc_frames_sums(&pool->frames, frame);
    uint64_t position = (uint64_t)block * pool->layout.block_tokens;
    uint32_t tokens = (uint32_t)(readable_tokens(s->lease, block + 1) - position);
    for (uint32_t i = s->layer_start; i < s->layer_end; i++, planes += 2) {
        const dc_place *place = &pool->layout.places[i];
        dc_section_expect(&place->section, position, tokens, &planes[0], &planes[1]);
        const uint8_t *bytes = read_section(s, frame, place);
        if (s->error) return false;
        if (dc_crc32c(0, bytes, place->bytes) != sums[i]) return false;
        dc_section_decode(&place->section, bytes, position, tokens, &planes[0], &planes[1]);
    }
    return true;
}

static void *decode_share(void *argument) {
    share *s = argument;
    for (s->done = s->start; s->done < s->end; s->done++)
        if (!decode_block(s, s->done)) break;
    return NULL;
}

/* Threads that are worth starting for so many blocks, and a section's largest size. */
static uint32_t threads_for(const share *all, uint64_t *section_bytes) {
    const dovecote_pool *pool = all->lease->pool;
    uint32_t blocks = all->end - all->start, threads = pool->threads;
    uint64_t bytes = 0;
    *section_bytes = 0;
    for (uint32_t i = all->layer_start; i < all->layer_end; i++) {
        uint64_t one = pool->layout.places[i].bytes;
        bytes += blocks * one;
        if (one > *section_bytes) *section_bytes = one;
    }
    if (threads > blocks) threads = blocks;
    if (threads > bytes / LEAST_SHARE) threads = (uint32_t)(bytes / LEAST_SHARE);
    return threads ? threads : 1;
}

/* Has a thread do the share, in memory of its own. false, and nothing changed, if one of the two
 * cannot be had. */
static bool start_share(share *s, uint64_t section_bytes) {
    uint8_t *callers = s->bytes;
    s->bytes = dc_alloc(section_bytes, 1);
    if (s->bytes && !pthread_create(&s->thread, NULL, decode_share, s)) return true;
    free(s->bytes);
    s->bytes = callers;
    return false;
}

/* Decodes `all`, and leaves in it how far that came. The first share is the caller's, and so is one
 * for which there is no memory or no thread. */
static void decode_shares(share *all) {
    share shares[DC_MAX_THREADS];
    bool started[DC_MAX_THREADS] = {false};
    uint64_t section_bytes;
    uint32_t count = threads_for(all, &section_bytes), blocks = all->end - all->start;
    for (uint32_t i = 0; i < count; i++) {
        shares[i] = *all;
        shares[i].start = all->start + (uint32_t)((uint64_t)blocks * i / count);
        shares[i].end = all->start + (uint32_t)((uint64_t)blocks * (i + 1) / count);
        if (i) started[i] = start_share(&shares[i], section_bytes);
    }
    for (uint32_t i = 0; i < count; i++)
        if (!started[i]) decode_share(&shares[i]);
    for (uint32_t i = 0; i < count; i++) {
        if (!started[i]) continue;
        pthread_join(shares[i].thread, NULL);
        free(shares[i].bytes);
    }
    uint32_t last = 0;
    while (last + 1 < count && shares[last].done == shares[last].end)
        last++;
    all->done = shares[last].done;
    all->error = shares[last].error;
}

/* The lease's own account after it lost its chain's blocks from `block` on. */
static void shorten(dovecote_lease *lease, uint32_t block) {
    lease->tokens = (uint64_t)block * lease->pool->layout.block_tokens;
    lease->matched = block;
    lease->ended = false;
    memset(lease->tip, 0, DC_KEY_BYTES);
    if (block)
        memcpy(lease->tip, lease->pool->frames.at[lease->chain[block - 1]].key, DC_KEY_BYTES);
}

/* Ends the lease before `block`, whose frame could not be had, and takes back one promise for each
 * block of its chain that it loses, as far as frames are spare. `error` is 0 for a checksum. */
static void cut(dovecote_lease *lease, uint32_t block, int error) {
    dovecote_pool *pool = lease->pool;
    const dc_frames *frames = &pool->frames;
    uint32_t frame = readable_frame(lease, block), lost = lease->blocks - block;
    /* Unless another lease has dropped it already. */
    if (frames->at[frame].state == DC_SEALED) dc_pool_drop_damaged(pool, frame, error);
    if (error) pool->last_error = error;
    dc_lease_unpin_from(lease, block);
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
        !dc_layout_planes_hold(layout, planes, layer_start, layer_end,
                               (uint64_t)block_start * layout->block_tokens,
                               readable_tokens(lease, block_end)))
        return DOVECOTE_ERR_ARGUMENT;
    share all = {
        .lease = lease,
        .planes = planes,
        .layer_start = layer_start,
        .layer_end = layer_end,
        .start = block_start,
        .end = block_end > block_start ? block_end : block_start,
        .bytes = lease->payload,
    };
    decode_shares(&all);
    dc_pool_lock(pool);
    if (all.done > all.start) count_decoded(lease, all.start, all.done, layer_start, layer_end);
    if (all.done < all.end) cut(lease, all.done, all.error);
    dc_pool_unlock(pool);
    *valid = dovecote_lease_tokens(lease);
    return DOVECOTE_OK;
}

/* The whole frame and each section's checksum. false as decode_block. */
static bool read_block(const dovecote_lease *lease, uint32_t frame, uint8_t *payload, int *error) {
    const dovecote_pool *pool = lease->pool;
    *error = dc_pool_read_frame(pool, frame, payload);
    return !*error && dc_pool_payload_is_sound(pool, payload, dc_frames_sums(&pool->frames, frame));
}

int dovecote_lease_read(dovecote_lease *lease, uint32_t block, uint32_t *ids, uint32_t *tokens,
                        uint8_t *payload) {
    if (!lease || !ids || !tokens || !payload || block >= lease->matched)
        return DOVECOTE_ERR_ARGUMENT;
    dovecote_pool *pool = lease->pool;
    const dc_frames *frames = &pool->frames;
    uint32_t frame = lease->chain[block];
    int error = 0;
    bool sound = read_block(lease, frame, payload, &error);
    if (sound) {
        memcpy(ids, dc_frames_ids(frames, frame), frames->block_tokens * sizeof *ids);
        *tokens = frames->at[frame].tokens;
    }
    dc_pool_lock(pool);
    if (sound) pool->stats.bytes_read += pool->layout.frame_bytes;
    if (!sound) cut(lease, block, error);
    if (!sound) pool->last_error = error;
    dc_pool_unlock(pool);
    return sound ? DOVECOTE_OK : DOVECOTE_ERR_IO;
}
