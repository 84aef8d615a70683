/* adopt.c: copying one pool's blocks into an empty one, which is how a pool changes its size.
 *
 * Payload and keys move as they are: the target takes over the source's secret. The source's age
 * list is walked from its youngest frame: parents are younger than their children (F3), so they
 * come first, and when the target is full it holds the chains used last. The target's table is
 * filled first and linked in one go at the end, as after opening a file.
 */
#include <string.h>

#include "fault.h"
#include "file.h"
#include "hash.h"
#include "pool.h"

typedef struct {
    dovecote_pool *target, *source;
    uint32_t *placed; /* [source frames]: the target's frame, or DC_NONE */
    uint8_t *payload; /* [frame_bytes] */
    uint32_t copied;  /* target frames [0, copied) are filled */
} copying;

/* Reads and verifies one frame. A frame that cannot be had is left out, and with it, since it stays
 * unplaced, all that hangs on it. */
static bool read_frame(const copying *copy, uint32_t from) {
    const dovecote_pool *source = copy->source;
    if (dc_pool_read_frame(source, from, copy->payload)) return false;
    return dc_pool_payload_is_sound(source, copy->payload, dc_frames_sums(&source->frames, from));
}

static void describe_copy(const copying *copy, uint32_t from, uint32_t to) {
    const dc_frames *old = &copy->source->frames, *new = &copy->target->frames;
    const dc_frame *source = &old->at[from];
    dc_frame *target = &new->at[to];
    const uint8_t *above =
        source->parent == DC_NONE ? source->parent_key : new->at[copy->placed[source->parent]].key;
    memcpy(dc_frames_ids(new, to), dc_frames_ids(old, from), old->block_tokens * sizeof *old->ids);
    memcpy(dc_frames_sums(new, to), dc_frames_sums(old, from), old->layers * sizeof *old->sums);
    memcpy(target->parent_key, above, DC_KEY_BYTES);
    target->depth = source->depth;
    target->tokens = source->tokens;
    target->sequence = source->sequence;
    dc_block_key(copy->target->layout.secret, above, dc_frames_ids(new, to), target->tokens,
                 target->key);
}

/* Free record if need be, payload, record: as in sealing (P1, P3). Returns an errno value. */
static int write_frame(copying *copy, uint32_t to) {
    dovecote_pool *target = copy->target;
    const dc_layout *layout = &target->layout;
    uint64_t record_offset = dc_record_offset(layout, to);
    int error = 0;
    if (target->frames.at[to].dirty) {
        dc_record_write_free(layout, &target->frames, to, target->record);
        error = dc_file_write(target->fd, record_offset, target->record, layout->record_bytes);
    }
    target->frames.at[to].dirty = true; /* until the record is there */
    if (!error)
        error = dc_file_write(target->fd, dc_frame_offset(layout, to), copy->payload,
                              layout->frame_bytes);
    if (error) return error;
    dc_record_write(layout, &target->frames, to, target->record);
    error = dc_file_write(target->fd, record_offset, target->record, layout->record_bytes);
    target->frames.at[to].dirty = error != 0;
    return error;
}

static int copy_blocks(copying *copy) {
    const dc_frames *old = &copy->source->frames;
    dc_frames *new = &copy->target->frames;
    for (uint32_t f = old->youngest; f != DC_NONE && copy->copied < new->count;
         f = old->at[f].older) {
        uint32_t parent = old->at[f].parent, to = copy->copied;
        if (parent != DC_NONE && copy->placed[parent] == DC_NONE) continue;
        if (!read_frame(copy, f)) continue;
        describe_copy(copy, f, to);
        int error = write_frame(copy, to);
        if (error) {
            copy->target->last_error = error;
            copy->target->stats.write_errors++;
            return DOVECOTE_ERR_IO;
        }
        new->at[to].state = DC_SEALED;
        copy->placed[f] = to;
        copy->copied++;
    }
    return DOVECOTE_OK;
}

/* The blocks copied so far become findable. If that fails the target is empty again. */
static int link_copies(copying *copy) {
    dc_frames *frames = &copy->target->frames;
    const dc_layout *layout = &copy->target->layout;
    uint32_t orphans;
    int rc = dc_frames_restore(frames, &orphans);
    if (rc == DOVECOTE_OK) {
        copy->target->stats.bytes_written +=
            copy->copied * (layout->frame_bytes + layout->record_bytes);
        return rc;
    }
    while (copy->copied) {
        frames->at[--copy->copied].state = DC_FREE;
        frames->at[copy->copied].dirty = true;
    }
    return rc;
}

/* The target takes the source's secret, so that keys somebody noted go on naming the same chains.
 */
static int take_secret(dovecote_pool *target, const dovecote_pool *source) {
    uint8_t header[DC_HEADER_MAX], *secret = target->layout.secret;
    uint8_t before[sizeof target->layout.secret];
    memcpy(before, secret, sizeof before);
    memcpy(secret, source->layout.secret, sizeof before);
    dc_header_write(&target->layout, header);
    int error = dc_file_write(target->fd, 0, header, target->layout.header_bytes);
    if (!error) return DOVECOTE_OK;
    memcpy(secret, before, sizeof before);
    target->last_error = error;
    return DOVECOTE_ERR_IO;
}

static int copy_all(dovecote_pool *target, dovecote_pool *source, uint64_t *copied_blocks) {
    copying copy = {.target = target, .source = source};
    int rc = DOVECOTE_ERR_MEMORY;
    copy.placed = dc_alloc(source->frames.count, sizeof *copy.placed);
    copy.payload = dc_alloc(source->layout.frame_bytes, 1);
    if (!copy.placed || !copy.payload) goto done;
    for (uint32_t f = 0; f < source->frames.count; f++)
        copy.placed[f] = DC_NONE;
    rc = take_secret(target, source);
    if (rc != DOVECOTE_OK) goto done;
    rc = copy_blocks(&copy);
    int linked = link_copies(&copy);
    if (rc == DOVECOTE_OK) rc = linked;
    if (copied_blocks) *copied_blocks = copy.copied;
done:
    free(copy.placed);
    free(copy.payload);
    return rc;
}

/* By address, so that two calls with the pools exchanged cannot wait for each other. */
static void lock_both(dovecote_pool *a, dovecote_pool *b) {
    bool ordered = (uintptr_t)a < (uintptr_t)b;
    dc_pool_lock(ordered ? a : b);
    dc_pool_lock(ordered ? b : a);
}

int dovecote_pool_adopt(dovecote_pool *target, dovecote_pool *source, uint64_t *copied_blocks) {
    if (!target || !source || target == source) return DOVECOTE_ERR_ARGUMENT;
    if (!dc_layout_is_like(&target->layout, &source->layout)) return DOVECOTE_ERR_MISMATCH;
    lock_both(target, source);
    int rc = DOVECOTE_ERR_ARGUMENT;
    if (!target->leases && !source->leases && target->frames.free == target->frames.count)
        rc = copy_all(target, source, copied_blocks);
    dc_pool_unlock(target);
    dc_pool_unlock(source);
    return rc;
}
