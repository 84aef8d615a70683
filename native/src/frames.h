/* frames.h: what the pool knows of its frames, in memory. No system calls and no locks: the pool's
 * mutex guards every function here.
 *
 * States of a frame
 *
 *            take             publish            unpin (last)
 *    FREE ---------> FILLING --------> SEALED  --------------> SEALED
 *     ^                 |            under lease <------------ cached
 *     |    abandon      |                 |          pin        |  |
 *     +<----------------+                 | drop                |  |
 *     |       unpin (last)                v                     |  |
 *     +<------------------------------- DOOMED                  |  |
 *     +<--------------------------------------------------------+  |
 *     |                  drop, supersede                           |
 *     +<-----------------------------------------------------------+
 *                        take (evicts)
 *
 * Lists: every FREE frame is in the free list. Every cached frame (SEALED, no lease) is in the age
 * list. Every SEALED frame is in the index and in the tree; FILLING and DOOMED ones are in neither,
 * so nobody can find them.
 *
 * Invariants
 *   F1 leased + cached + free = count (P4). FILLING and DOOMED frames count as leased.
 *   F2 A frame under a lease has a parent under at least as many leases: leases pin whole chains.
 *   F3 In the age list a parent is younger than its children, since unpinning goes from a chain's
 *      end to its start. With F2 the oldest entry is therefore a leaf without a lease: eviction
 *      takes it without looking (P5).
 *   F4 A free frame is `dirty` as long as the disk may still have a block's record for it; a sealed
 *      one, as long as its recency there is out of date or, with `held` set, its payload is not there.
 *   F5 A pinned frame's parent is pinned. With F3 the oldest frame of the age list that is not
 *      pinned is therefore a leaf, too: what is cached below it would be older and not pinned.
 *   F6 Every frame of the age list older than `victim` is pinned; DC_NONE: all of them are.
 */
#ifndef DC_FRAMES_H
#define DC_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "held.h"
#include "index.h"

enum { DC_FREE, DC_FILLING, DC_SEALED, DC_DOOMED };

typedef struct {
    uint8_t key[DC_KEY_BYTES];
    uint8_t parent_key[DC_KEY_BYTES]; /* a first block's is the root of its chain */
    uint64_t generation;              /* how often the frame was freed (P3) */
    uint64_t sequence;                /* recency: larger is younger */
    uint32_t parent;                  /* tree, as frame numbers; DC_NONE for a first block */
    uint32_t child;                   /* its first child */
    uint32_t next, prev;              /* siblings, or first blocks */
    uint32_t older, younger;          /* age list; the free list uses `older` */
    uint32_t depth;                   /* blocks before this one in its chain */
    uint32_t leases;                  /* leases that pin it; 1 while FILLING */
    uint32_t first_id;                /* its first token id: most siblings differ there */
    uint16_t tokens;                  /* 1 to block_tokens; fewer is a short block */
    uint8_t state;
    bool dirty;
    dc_held *held; /* the payload that is not on disk, or NULL; constant while leased */
    bool pinned;   /* SEALED, and to be evicted last; see dc_frames_set_pinned */
} dc_frame;

typedef struct {
    dc_frame *at;
    uint32_t *ids;  /* [count][block_tokens] */
    uint32_t *sums; /* [count][layers]: CRC-32C of each section */
    uint32_t count, block_tokens, layers;
    uint32_t first_free, roots, oldest, youngest;
    uint32_t victim; /* where the search for the oldest frame that is not pinned begins (F6) */
    uint32_t free, cached, leased, pinned;
    uint64_t tokens;   /* in SEALED and DOOMED frames */
    uint64_t sequence; /* the largest one given out */
    uint64_t evicted, superseded;
    dc_index index;
    dc_held_list held;
} dc_frames;

/* What makes a block this block and no other. Pointers are borrowed for the call. */
typedef struct {
    uint32_t parent;      /* DC_NONE for a first block */
    const uint8_t *above; /* the parent's key, or the root */
    const uint8_t *key;   /* its own */
    const uint32_t *ids;  /* [tokens] */
    const uint32_t *sums; /* [layers]; only dc_frames_take reads it */
    uint32_t depth;
    uint32_t tokens;
} dc_block;

/* All frames free. DOVECOTE_ERR_MEMORY leaves nothing to free. */
int dc_frames_init(dc_frames *frames, uint32_t count, uint32_t block_tokens, uint32_t layers);
void dc_frames_free(dc_frames *frames);

static inline uint32_t *dc_frames_ids(const dc_frames *frames, uint32_t frame) {
    return frames->ids + (uint64_t)frame * frames->block_tokens;
}

static inline uint32_t *dc_frames_sums(const dc_frames *frames, uint32_t frame) {
    return frames->sums + (uint64_t)frame * frames->layers;
}

/* Frames that a lease can be promised. */
static inline uint32_t dc_frames_available(const dc_frames *frames) {
    return frames->free + frames->cached;
}

/* The sealed frame that holds just this block, or DC_NONE. Compares parent and token ids (P2). */
uint32_t dc_frames_find(const dc_frames *frames, const dc_block *block);

/* Among the children of block->parent (or the first blocks of its root) the one that shares the
 * longest prefix, *common >= 1, with block->ids. DC_NONE if none shares a token. Ignores the key.
 */
uint32_t dc_frames_nearest(const dc_frames *frames, const dc_block *block, uint32_t *common);

/* A frame to fill with the block: a free one, or else the oldest cached one that is not pinned, or
 * else the oldest pinned one, evicted. Needs dc_frames_available() > 0. It is FILLING, and its caller's alone until published or abandoned. */
uint32_t dc_frames_take(dc_frames *frames, const dc_block *block);
void dc_frames_abandon(dc_frames *frames, uint32_t frame);

/* Makes the block findable, under the caller's lease. The parent must be SEALED. Frees short blocks
 * that it supersedes, unless a lease holds them. */
void dc_frames_publish(dc_frames *frames, uint32_t frame);

/* Makes the published frame the owner of its payload, which is not on disk. `stale`: another block's
 * record may be. */
void dc_frames_hold(dc_frames *frames, uint32_t frame, dc_held *held, bool stale);

/* The payload is on disk now, and the record too. The frame is under no lease. */
void dc_frames_let_go(dc_frames *frames, uint32_t frame);

void dc_frames_pin(dc_frames *frames, uint32_t frame);

/* The last unpin makes a sealed frame the youngest, a doomed one free. */
void dc_frames_unpin(dc_frames *frames, uint32_t frame);

/* The child of `parent` (DC_NONE: the first block) that has this key, or DC_NONE. */
uint32_t dc_frames_child(const dc_frames *frames, uint32_t parent, const uint8_t *key);

/* Pins a sealed frame, whose parent must be pinned (F5). */
void dc_frames_set_pinned(dc_frames *frames, uint32_t frame);

/* Unpins every frame. */
void dc_frames_clear_pinned(dc_frames *frames);

/* Takes the frame and all below it out of reach; those under a lease become DOOMED, the others
 * FREE. Returns how many frames that were. */
uint32_t dc_frames_drop(dc_frames *frames, uint32_t frame);

/* Builds free list, index, tree and age list anew from what the frames themselves say: state (FREE
 * or SEALED, no leases), keys, depth, tokens, sequence, ids. That may be anything, loops and
 * duplicates included; only 1 <= tokens <= block_tokens is taken for granted. *orphans is the
 * number of frames dropped since their parent is not there. Needs an empty index.
 * DOVECOTE_ERR_MEMORY: nothing was built or changed. */
int dc_frames_restore(dc_frames *frames, uint32_t *orphans);

/* Verifies the invariants above and every link, in O(frames). DOVECOTE_ERR_BROKEN. */
int dc_frames_check(const dc_frames *frames);

#endif
