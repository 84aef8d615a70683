/* hash.h: the keys of blocks.
 *
 *   key = SipHash-2-4-128(secret, parent key (16 bytes) | token ids (u32 little-endian each))
 *
 * The secret is the pool's own, so nobody can prepare two prompts whose keys collide. A collision
 * would still only cost a miss, since a hit compares token ids (P2).
 */
#ifndef DC_HASH_H
#define DC_HASH_H

#include <stddef.h>
#include <stdint.h>

#define DC_BLOCK_TOKENS_MAX 256

/* SipHash-2-4 with 128 bits of output (Aumasson and Bernstein; github.com/veorq/SipHash). */
void dc_siphash(const uint8_t secret[16], const uint8_t *bytes, size_t count, uint8_t out[16]);

/* The key of a block of `count` <= DC_BLOCK_TOKENS_MAX tokens under `parent`, which is the parent
 * block's key, or the root for a chain's first block. */
void dc_block_key(const uint8_t secret[16], const uint8_t parent[16], const uint32_t *ids,
                  uint32_t count, uint8_t out[16]);

#endif
