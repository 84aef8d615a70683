/* verify.c: reading frames for no other reason than to know whether they are sound.
 *
 *   locked     is the frame sealed and on disk? note its generation and sums
 *   unlocked   read and check
 *   locked     if it failed: is it still that block (P3)? then drop it (P1)
 *
 * No lease: pinning one frame would mean pinning its chain (F2), for each of its frames anew. A
 * frame may therefore be freed and filled again while it is read. Then its generation has changed,
 * and what was read says nothing.
 */
#include <string.h>

#include "fault.h"
#include "file.h"
#include "pool.h"

typedef struct {
    uint64_t generation;
    uint8_t *payload; /* [frame_bytes] */
    uint32_t *sums;   /* [layer_count] */
} reading;

/* Locked. Whether a sound disk has this block. A payload held in memory is not there yet. */
static bool is_on_disk(const dovecote_pool *pool, uint32_t f) {
    const dc_frame *frame = &pool->frames.at[f];
    return frame->state == DC_SEALED && !frame->held;
}

/* false if there is nothing to read. */
static bool begin(dovecote_pool *pool, uint32_t f, reading *note) {
    dc_pool_lock(pool);
    bool there = is_on_disk(pool, f);
    note->generation = pool->frames.at[f].generation;
    memcpy(note->sums, dc_frames_sums(&pool->frames, f),
           pool->layout.layer_count * sizeof *note->sums);
    dc_pool_unlock(pool);
    return there;
}

/* Counts what came of the reading. `error` is an errno value, 0 for a checksum. */
static void end(dovecote_pool *pool, uint32_t f, const reading *note, int error, bool sound,
                dovecote_verified *out) {
    dc_pool_lock(pool);
    bool same = is_on_disk(pool, f) && pool->frames.at[f].generation == note->generation;
    if (!error) pool->stats.bytes_read += pool->layout.frame_bytes;
    if (same) out->checked++;
    if (same && !sound) {
        out->damaged++;
        if (error) pool->last_error = error;
        dc_pool_drop_damaged(pool, f, error);
    }
    dc_pool_unlock(pool);
}

static void verify_frame(dovecote_pool *pool, uint32_t f, reading *note, dovecote_verified *out) {
    if (!begin(pool, f, note)) return;
    uint64_t offset = dc_frame_offset(&pool->layout, f);
    int error = dc_file_read(pool->fd, offset, note->payload, pool->layout.frame_bytes);
    bool sound = !error && dc_pool_payload_is_sound(pool, note->payload, note->sums);
    end(pool, f, note, error, sound, out);
}

int dovecote_pool_verify(dovecote_pool *pool, uint32_t first_frame, uint32_t frames,
                         dovecote_verified *out) {
    if (!pool || !out || first_frame > pool->frames.count) return DOVECOTE_ERR_ARGUMENT;
    uint32_t left = pool->frames.count - first_frame, count = frames < left ? frames : left;
    reading note = {0};
    note.payload = dc_alloc(pool->layout.frame_bytes, 1);
    note.sums = dc_alloc(pool->layout.layer_count, sizeof *note.sums);
    int rc = note.payload && note.sums ? DOVECOTE_OK : DOVECOTE_ERR_MEMORY;
    dovecote_verified verified = {.next_frame = first_frame + count};
    for (uint32_t i = 0; rc == DOVECOTE_OK && i < count; i++)
        verify_frame(pool, first_frame + i, &note, &verified);
    if (rc == DOVECOTE_OK) *out = verified;
    free(note.payload);
    free(note.sums);
    return rc;
}
