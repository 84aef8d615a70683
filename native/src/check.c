/* check.c: dc_frames_check, the invariants of frames.h as code. Reads only. */
#include <string.h>

#include "dovecote.h"
#include "frames.h"

static bool in_index(const dc_frames *frames, uint32_t f) {
    uint64_t slot = dc_index_start(&frames->index, frames->at[f].key);
    uint32_t found;
    while ((found = dc_index_next(&frames->index, &slot)) != DC_NONE)
        if (found == f) return true;
    return false;
}

static bool parent_is_sound(const dc_frames *frames, const dc_frame *frame) {
    if (frame->parent == DC_NONE) return frame->depth == 0;
    if (frame->parent >= frames->count) return false;
    const dc_frame *parent = &frames->at[frame->parent];
    if (parent->leases < frame->leases) return false;   /* F2 */
    if (frame->pinned && !parent->pinned) return false; /* F5 */
    if (!frame->leases && !parent->leases && parent->sequence < frame->sequence) return false;
    return parent->state == DC_SEALED && parent->tokens == frames->block_tokens &&
           parent->depth + 1 == frame->depth &&
           memcmp(parent->key, frame->parent_key, DC_KEY_BYTES) == 0;
}

/* `f` hangs in its parent's list of children, from both sides. */
static bool siblings_are_sound(const dc_frames *frames, uint32_t f) {
    const dc_frame *frame = &frames->at[f];
    uint32_t first = frame->parent == DC_NONE ? frames->roots : frames->at[frame->parent].child;
    if (frame->prev == DC_NONE ? first != f : frames->at[frame->prev].next != f) return false;
    if (frame->next == DC_NONE) return true;
    const dc_frame *next = &frames->at[frame->next];
    return next->prev == f && next->parent == frame->parent && next->state == DC_SEALED;
}

static bool sealed_is_sound(const dc_frames *frames, uint32_t f) {
    const dc_frame *frame = &frames->at[f];
    return frame->tokens && frame->tokens <= frames->block_tokens &&
           (frame->child == DC_NONE || frames->at[frame->child].parent == f) &&
           parent_is_sound(frames, frame) && siblings_are_sound(frames, f) && in_index(frames, f);
}

/* F6 */
static bool victim_is_sound(const dc_frames *frames) {
    uint32_t f = frames->oldest, seen = 0;
    for (; f != frames->victim && f != DC_NONE && seen < frames->count; seen++) {
        if (!frames->at[f].pinned) return false;
        f = frames->at[f].younger;
    }
    return f == frames->victim;
}

static bool ages_are_sound(const dc_frames *frames) {
    uint32_t seen = 0, younger = DC_NONE, f = frames->youngest;
    for (; f != DC_NONE && seen < frames->count; younger = f, f = frames->at[f].older, seen++) {
        const dc_frame *frame = &frames->at[f];
        if (frame->state != DC_SEALED || frame->leases || frame->younger != younger) return false;
        if (younger != DC_NONE && frame->sequence > frames->at[younger].sequence) return false;
    }
    return f == DC_NONE && younger == frames->oldest && seen == frames->cached;
}

static bool free_list_is_sound(const dc_frames *frames) {
    uint32_t seen = 0, f = frames->first_free;
    for (; f != DC_NONE && seen < frames->count; f = frames->at[f].older, seen++)
        if (frames->at[f].state != DC_FREE) return false;
    return f == DC_NONE && seen == frames->free;
}

int dc_frames_check(const dc_frames *frames) {
    uint32_t leased = 0, sealed = 0, free_count = 0, pinned = 0;
    uint64_t tokens = 0;
    for (uint32_t f = 0; f < frames->count; f++) {
        const dc_frame *frame = &frames->at[f];
        if (frame->state == DC_SEALED && !sealed_is_sound(frames, f)) return DOVECOTE_ERR_BROKEN;
        sealed += frame->state == DC_SEALED;
        free_count += frame->state == DC_FREE;
        if (frame->pinned && frame->state != DC_SEALED) return DOVECOTE_ERR_BROKEN;
        pinned += frame->pinned;
        leased += frame->state != DC_FREE && frame->leases;
        if (frame->state == DC_SEALED || frame->state == DC_DOOMED) tokens += frame->tokens;
    }
    bool sound = leased == frames->leased && free_count == frames->free &&
                 leased + frames->cached + free_count == frames->count && /* P4 */
                 sealed == frames->index.count && tokens == frames->tokens &&
                 pinned == frames->pinned && victim_is_sound(frames) && ages_are_sound(frames) &&
                 free_list_is_sound(frames);
    return sound ? DOVECOTE_OK : DOVECOTE_ERR_BROKEN;
}
