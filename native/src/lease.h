/* lease.h: what lease.c (open, match, close), decode.c and seal.c share. Nothing else includes it.
 *
 *   chain   | whole | whole | whole | ... | whole or short |      pinned, in position order
 *             \____ matched ____/ \______ sealed ________/
 *   tail                        | c tokens |                      pinned until the first seal
 *
 * The tail is the best child of the last matched block: a short block, or one that goes another way
 * after c tokens. It is decoded, but not part of the chain: sealing starts after the last whole
 * block, so the tail's tokens come back as part of a block of the lease's own.
 *
 * Promises: pool->promised is the sum of lease->promised over all leases, and never exceeds the
 * frames that can be had (free or cached). Each step keeps that:
 *
 *   open             promised += n      only if that many can be had and are not promised
 *   pin, of cached   available -= 1     with promised -= 1, or only if one is spare
 *   take             available -= 1     with promised -= 1
 *   abandon          available += 1     with promised += 1
 *   unpin            available += 1     or 0, if another lease has the frame too
 *
 * Thread rule: a lease is its thread's own. The pool's mutex is held for moving through the tree
 * and the lists, never while payload is read, written, checked, encoded or decoded. Functions here
 * marked "locked" are called under it.
 */
#ifndef DC_LEASE_H
#define DC_LEASE_H

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
    bool ended;       /* by a short block */
    uint8_t *payload; /* [frame_bytes]: a frame to seal, or one section to decode */
    uint8_t *record;  /* [record_bytes] */
    uint32_t *sums;   /* [layer_count] */
};

/* Makes room in the chain. MEMORY, ARGUMENT: nothing changed. */
int dc_lease_make_room(dovecote_lease *lease, uint64_t blocks);

/* Locked. Puts a pinned frame at the chain's end; there is room. */
void dc_lease_append(dovecote_lease *lease, uint32_t frame, uint32_t tokens);

/* The block of ids[0, tokens) at the end of the chain; `key` gets its key. Borrows all three. */
dc_block dc_lease_block(const dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
                        uint8_t *key);

/* Locked. Pins a sealed frame in place of one the lease was promised, if it has a promise left.
 * false if that would break another lease's promise: then nothing changed. */
bool dc_lease_pin(dovecote_lease *lease, uint32_t frame);

/* Locked. Lets go of the tail, and of the chain from `block` on. */
void dc_lease_unpin_tail(dovecote_lease *lease);
void dc_lease_unpin_from(dovecote_lease *lease, uint32_t block);

#endif
