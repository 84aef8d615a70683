/* held.h: short blocks that are kept in memory and not yet on disk.
 *
 *   oldest <-> ... <-> youngest        each with the frame's payload
 *
 * A chain's short block lasts until the chain goes on; then a longer one supersedes it. Written at
 * once, a whole frame a turn would be written for nothing. So its frame holds the payload in memory
 * until the block is gone, or the pool is flushed. A kill costs at most these blocks.
 *
 * Knows frame numbers and bytes. No system calls and no locks: the pool's mutex guards the list.
 * The payload of a block does not change, so a lease that pins its frame reads it without.
 */
#ifndef DC_HELD_H
#define DC_HELD_H

#include <stdbool.h>
#include <stdint.h>

typedef struct dc_held {
    struct dc_held *older, *younger;
    uint64_t number; /* how many were held before it, and it */
    uint32_t frame;
    bool stale; /* the disk may still have another block's record for the frame */
    uint8_t payload[];
} dc_held;

typedef struct {
    dc_held *oldest, *youngest;
    uint64_t count;
    uint64_t given; /* numbers given out */
} dc_held_list;

/* A copy of the payload, in no list yet; free with free(). NULL without memory. */
dc_held *dc_held_new(const uint8_t *payload, uint64_t bytes);

/* The list owns it from now on. */
void dc_held_append(dc_held_list *list, dc_held *held, uint32_t frame, bool stale);

/* Takes it out of the list and frees it. */
void dc_held_free(dc_held_list *list, dc_held *held);
void dc_held_free_all(dc_held_list *list);

#endif
