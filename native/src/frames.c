/* frames.c: see frames.h. Lists are linked by frame numbers, so the whole table is three arrays. No
 * function recurses: a chain may be as long as the pool. */
#include "frames.h"

#include <string.h>

#include "dovecote.h"
#include "fault.h"

/* ---- the table ---- */

static void reset_lists(dc_frames *frames) {
    frames->first_free = frames->roots = frames->oldest = frames->youngest = DC_NONE;
    frames->victim = DC_NONE;
    frames->free = frames->cached = frames->leased = frames->pinned = 0;
    frames->tokens = 0;
}

static void push_free(dc_frames *frames, uint32_t f) {
    frames->at[f].state = DC_FREE;
    frames->at[f].older = frames->first_free;
    frames->first_free = f;
    frames->free++;
}

int dc_frames_init(dc_frames *frames, uint32_t count, uint32_t block_tokens, uint32_t layers) {
    *frames = (dc_frames){.count = count, .block_tokens = block_tokens, .layers = layers};
    frames->at = dc_alloc(count, sizeof *frames->at);
    frames->ids = dc_alloc(count, block_tokens * sizeof *frames->ids);
    frames->sums = dc_alloc(count, layers * sizeof *frames->sums);
    if (!frames->at || !frames->ids || !frames->sums) goto fail;
    if (dc_index_init(&frames->index, count) != DOVECOTE_OK) goto fail;
    reset_lists(frames);
    for (uint32_t f = count; f-- > 0;)
        push_free(frames, f);
    return DOVECOTE_OK;
fail:
    dc_frames_free(frames);
    return DOVECOTE_ERR_MEMORY;
}

void dc_frames_free(dc_frames *frames) {
    free(frames->at);
    free(frames->ids);
    free(frames->sums);
    dc_index_free(&frames->index);
    dc_held_free_all(&frames->held);
    *frames = (dc_frames){0};
}

static const uint8_t *key_of(const void *at, uint32_t f) {
    return ((const dc_frame *)at)[f].key;
}

/* ---- age list ---- */

static bool in_age_list(const dc_frames *frames, uint32_t f) {
    return frames->youngest == f || frames->at[f].younger != DC_NONE;
}

static void age_push_youngest(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    frame->older = frames->youngest;
    frame->younger = DC_NONE;
    if (frames->youngest == DC_NONE)
        frames->oldest = f;
    else
        frames->at[frames->youngest].younger = f;
    frames->youngest = f;
    if (frames->victim == DC_NONE) frames->victim = f;
    frames->cached++;
}

static void age_push_oldest(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    frame->younger = frames->oldest;
    frame->older = DC_NONE;
    if (frames->oldest == DC_NONE)
        frames->youngest = f;
    else
        frames->at[frames->oldest].older = f;
    frames->oldest = frames->victim = f;
    frames->cached++;
}

static void age_remove(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    if (frames->victim == f) frames->victim = frame->younger;
    if (frame->older == DC_NONE)
        frames->oldest = frame->younger;
    else
        frames->at[frame->older].younger = frame->younger;
    if (frame->younger == DC_NONE)
        frames->youngest = frame->older;
    else
        frames->at[frame->younger].older = frame->older;
    frame->older = frame->younger = DC_NONE;
    frames->cached--;
}

/* ---- tree ---- */

static uint32_t *first_child_of(dc_frames *frames, uint32_t parent) {
    return parent == DC_NONE ? &frames->roots : &frames->at[parent].child;
}

static void tree_link(dc_frames *frames, uint32_t f, uint32_t parent) {
    dc_frame *frame = &frames->at[f];
    uint32_t *first = first_child_of(frames, parent);
    frame->parent = parent;
    frame->prev = DC_NONE;
    frame->next = *first;
    if (*first != DC_NONE) frames->at[*first].prev = f;
    *first = f;
}

static void tree_unlink(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    if (frame->prev == DC_NONE)
        *first_child_of(frames, frame->parent) = frame->next;
    else
        frames->at[frame->prev].next = frame->next;
    if (frame->next != DC_NONE) frames->at[frame->next].prev = frame->prev;
    frame->parent = frame->next = frame->prev = DC_NONE;
}

/* ---- look-up ---- */

static bool holds(const dc_frames *frames, uint32_t f, const dc_block *block) {
    const dc_frame *frame = &frames->at[f];
    return frame->tokens == block->tokens && frame->parent == block->parent &&
           memcmp(frame->key, block->key, DC_KEY_BYTES) == 0 &&
           memcmp(frame->parent_key, block->above, DC_KEY_BYTES) == 0 &&
           memcmp(dc_frames_ids(frames, f), block->ids, block->tokens * sizeof(uint32_t)) == 0;
}

uint32_t dc_frames_find(const dc_frames *frames, const dc_block *block) {
    uint64_t slot = dc_index_start(&frames->index, block->key);
    uint32_t f;
    while ((f = dc_index_next(&frames->index, &slot)) != DC_NONE)
        if (holds(frames, f, block)) break;
    return f;
}

uint32_t dc_frames_child(const dc_frames *frames, uint32_t parent, const uint8_t *key) {
    /* Most blocks have one child, and it lies beside them: no way through the index then. */
    uint32_t f = parent == DC_NONE ? DC_NONE : frames->at[parent].child;
    if (f != DC_NONE && memcmp(frames->at[f].key, key, DC_KEY_BYTES) == 0) return f;
    uint64_t slot = dc_index_start(&frames->index, key);
    while ((f = dc_index_next(&frames->index, &slot)) != DC_NONE) {
        const dc_frame *frame = &frames->at[f];
        if (frame->parent == parent && memcmp(frame->key, key, DC_KEY_BYTES) == 0) break;
    }
    return f;
}

static uint32_t common_prefix(const uint32_t *a, const uint32_t *b, uint32_t count) {
    uint32_t i = 0;
    while (i < count && a[i] == b[i])
        i++;
    return i;
}

uint32_t dc_frames_nearest(const dc_frames *frames, const dc_block *block, uint32_t *common) {
    bool first_block = block->parent == DC_NONE;
    uint32_t best = DC_NONE, f = first_block ? frames->roots : frames->at[block->parent].child;
    *common = 0;
    for (; block->tokens && f != DC_NONE; f = frames->at[f].next) {
        const dc_frame *frame = &frames->at[f];
        if (frame->first_id != block->ids[0]) continue;
        if (first_block && memcmp(frame->parent_key, block->above, DC_KEY_BYTES) != 0) continue;
        uint32_t limit = frame->tokens < block->tokens ? frame->tokens : block->tokens;
        uint32_t same = common_prefix(dc_frames_ids(frames, f), block->ids, limit);
        if (same <= *common) continue;
        *common = same;
        best = f;
    }
    return best;
}

/* ---- pins ---- */

void dc_frames_set_pinned(dc_frames *frames, uint32_t f) {
    if (frames->at[f].pinned) return;
    frames->at[f].pinned = true;
    frames->pinned++;
}

static void unset_pinned(dc_frames *frames, uint32_t f) {
    if (!frames->at[f].pinned) return;
    frames->at[f].pinned = false;
    frames->pinned--;
}

void dc_frames_clear_pinned(dc_frames *frames) {
    for (uint32_t f = 0; frames->pinned && f < frames->count; f++)
        unset_pinned(frames, f);
    frames->victim = frames->oldest;
}

/* ---- states ---- */

static void release(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    frame->generation++;
    frame->dirty = !frame->held || frame->held->stale;
    if (frame->held) dc_held_free(&frames->held, frame->held);
    frame->held = NULL;
    push_free(frames, f);
}

/* SEALED and without children, to DOOMED or FREE. */
static void remove_leaf(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    dc_index_remove(&frames->index, key_of, frames->at, f);
    tree_unlink(frames, f);
    unset_pinned(frames, f);
    if (frame->leases) {
        frame->state = DC_DOOMED;
        return;
    }
    age_remove(frames, f);
    frames->tokens -= frame->tokens;
    release(frames, f);
}

uint32_t dc_frames_drop(dc_frames *frames, uint32_t top) {
    uint32_t f = top, dropped = 0;
    for (bool more = true; more; dropped++) {
        while (frames->at[f].child != DC_NONE)
            f = frames->at[f].child;
        uint32_t parent = frames->at[f].parent;
        more = f != top;
        remove_leaf(frames, f);
        f = parent;
    }
    return dropped;
}

/* Each frame is passed over once until pins change or it is used again (F6). */
static void evict_oldest(dc_frames *frames) {
    while (frames->victim != DC_NONE && frames->at[frames->victim].pinned)
        frames->victim = frames->at[frames->victim].younger;
    /* A leaf either way: by F2, F3 and F5. */
    remove_leaf(frames, frames->victim == DC_NONE ? frames->oldest : frames->victim);
    frames->evicted++;
}

static void describe(dc_frames *frames, uint32_t f, const dc_block *block) {
    dc_frame *frame = &frames->at[f];
    uint32_t *ids = dc_frames_ids(frames, f);
    memcpy(frame->key, block->key, DC_KEY_BYTES);
    memcpy(frame->parent_key, block->above, DC_KEY_BYTES);
    frame->depth = block->depth;
    frame->tokens = (uint16_t)block->tokens;
    frame->first_id = block->ids[0];
    memset(ids, 0, frames->block_tokens * sizeof *ids);
    memcpy(ids, block->ids, block->tokens * sizeof *ids);
    memcpy(dc_frames_sums(frames, f), block->sums, frames->layers * sizeof *block->sums);
}

uint32_t dc_frames_take(dc_frames *frames, const dc_block *block) {
    if (frames->first_free == DC_NONE) evict_oldest(frames);
    uint32_t f = frames->first_free;
    dc_frame *frame = &frames->at[f];
    frames->first_free = frame->older;
    frames->free--;
    frames->leased++;
    frame->state = DC_FILLING;
    frame->leases = 1;
    frame->sequence = ++frames->sequence;
    frame->parent = block->parent; /* a note for publish; linked only then */
    frame->child = frame->next = frame->prev = frame->older = frame->younger = DC_NONE;
    describe(frames, f, block);
    return f;
}

void dc_frames_abandon(dc_frames *frames, uint32_t f) {
    frames->leased--;
    frames->at[f].leases = 0;
    release(frames, f);
}

/* A short block whose ids a longer sibling starts with can never be the better match. */
static void supersede(dc_frames *frames, uint32_t f) {
    const dc_frame *longer = &frames->at[f];
    uint32_t next, sibling = *first_child_of(frames, longer->parent);
    for (; sibling != DC_NONE; sibling = next) {
        const dc_frame *other = &frames->at[sibling];
        next = other->next;
        if (other->leases || other->tokens >= longer->tokens || other->child != DC_NONE) continue;
        if (other->first_id != longer->first_id) continue;
        if (memcmp(other->parent_key, longer->parent_key, DC_KEY_BYTES) != 0) continue;
        if (common_prefix(dc_frames_ids(frames, sibling), dc_frames_ids(frames, f), other->tokens) <
            other->tokens)
            continue;
        if (other->pinned) dc_frames_set_pinned(frames, f); /* it holds the pinned chain's end */
        remove_leaf(frames, sibling);
        frames->superseded++;
    }
}

void dc_frames_publish(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    frame->state = DC_SEALED;
    frame->dirty = false;
    frames->tokens += frame->tokens;
    dc_index_insert(&frames->index, frame->key, f);
    tree_link(frames, f, frame->parent);
    supersede(frames, f);
}

void dc_frames_hold(dc_frames *frames, uint32_t f, dc_held *held, bool stale) {
    frames->at[f].held = held;
    frames->at[f].dirty = true;
    dc_held_append(&frames->held, held, f, stale);
}

void dc_frames_let_go(dc_frames *frames, uint32_t f) {
    dc_held_free(&frames->held, frames->at[f].held);
    frames->at[f].held = NULL;
    frames->at[f].dirty = false;
}

void dc_frames_pin(dc_frames *frames, uint32_t f) {
    if (frames->at[f].leases++) return;
    age_remove(frames, f);
    frames->leased++;
}

void dc_frames_unpin(dc_frames *frames, uint32_t f) {
    dc_frame *frame = &frames->at[f];
    if (--frame->leases) return;
    frames->leased--;
    if (frame->state == DC_DOOMED) {
        frames->tokens -= frame->tokens;
        release(frames, f);
        return;
    }
    frame->sequence = ++frames->sequence;
    age_push_youngest(frames, f);
}

/* ---- restoring ---- */

typedef struct {
    uint64_t sequence;
    uint32_t frame;
} age;

static int younger_first(const void *a, const void *b) {
    uint64_t left = ((const age *)a)->sequence, right = ((const age *)b)->sequence;
    return (left < right) - (left > right);
}

static uint32_t find_parent(const dc_frames *frames, const dc_frame *frame) {
    uint64_t slot = dc_index_start(&frames->index, frame->parent_key);
    uint32_t p;
    while ((p = dc_index_next(&frames->index, &slot)) != DC_NONE) {
        const dc_frame *parent = &frames->at[p];
        if (memcmp(parent->key, frame->parent_key, DC_KEY_BYTES) == 0 &&
            parent->tokens == frames->block_tokens && parent->depth + 1 == frame->depth)
            break; /* depth falls by one from child to parent, so no loop can form */
    }
    return p;
}

/* Collects the sealed frames with their ages and puts the others in the free list. */
static uint32_t sort_out(dc_frames *frames, age *ages) {
    uint32_t sealed = 0;
    reset_lists(frames);
    for (uint32_t f = frames->count; f-- > 0;) {
        dc_frame *frame = &frames->at[f];
        frame->child = frame->older = frame->younger = DC_NONE;
        frame->pinned = false;
        if (frame->state != DC_SEALED) {
            push_free(frames, f);
            continue;
        }
        frame->first_id = dc_frames_ids(frames, f)[0];
        frames->tokens += frame->tokens;
        if (frame->sequence > frames->sequence) frames->sequence = frame->sequence;
        dc_index_insert(&frames->index, frame->key, f);
        ages[sealed++] = (age){frame->sequence, f};
    }
    return sealed;
}

/* Puts the frames into the age list. A frame is as young as its youngest descendant (F3): only the
 * end of a chain is recorded on disk when it is used, its parents follow from the tree. */
static void restore_ages(dc_frames *frames, age *ages, uint32_t count, uint32_t *path) {
    qsort(ages, count, sizeof *ages, younger_first);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = 0, f = ages[i].frame;
        for (; f != DC_NONE && !in_age_list(frames, f); f = frames->at[f].parent)
            path[length++] = f;
        while (length) {
            f = path[--length];
            frames->at[f].sequence = ages[i].sequence;
            age_push_oldest(frames, f);
        }
    }
}

static uint32_t drop_orphans(dc_frames *frames) {
    uint32_t dropped = 0;
    for (uint32_t f = 0; f < frames->count; f++) {
        const dc_frame *frame = &frames->at[f];
        if (frame->state == DC_SEALED && frame->depth && frame->parent == DC_NONE)
            dropped += dc_frames_drop(frames, f);
    }
    return dropped;
}

int dc_frames_restore(dc_frames *frames, uint32_t *orphans) {
    age *ages = dc_alloc(frames->count, sizeof *ages);
    uint32_t *path = dc_alloc(frames->count, sizeof *path);
    int rc = DOVECOTE_ERR_MEMORY;
    if (!ages || !path) goto done;
    uint32_t sealed = sort_out(frames, ages);
    for (uint32_t i = 0; i < sealed; i++) {
        uint32_t f = ages[i].frame;
        const dc_frame *frame = &frames->at[f];
        tree_link(frames, f, frame->depth ? find_parent(frames, frame) : DC_NONE);
    }
    restore_ages(frames, ages, sealed, path);
    *orphans = drop_orphans(frames);
    rc = DOVECOTE_OK;
done:
    free(ages);
    free(path);
    return rc;
}
