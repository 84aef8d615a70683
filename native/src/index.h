/* index.h: from a block's key to the frames that carry it.
 *
 * Open addressing with linear probing over frame numbers; at most half full, so a probe is short.
 * A key may occur more than once (a hostile or a twice-written file), so a look-up goes on to the
 * next frame of the key until the caller is content: keys only propose, token ids decide (P2).
 *
 *   slot = key mod slots     | - | 7 | 12 | 3 | - | - | ...      - is DC_NONE
 *
 * The keys themselves stay in the frames. Keys are SipHash output, and so their own hash.
 * Thread rule: the pool's mutex.
 */
#ifndef DC_INDEX_H
#define DC_INDEX_H

#include <stdint.h>

#define DC_NONE UINT32_MAX
#define DC_KEY_BYTES 16

typedef struct {
    uint32_t *slots;
    uint64_t mask;  /* slots - 1; slots is a power of two */
    uint32_t count; /* frames in the index */
} dc_index;

/* Reads the key of a frame; `frames` is the caller's own table. */
typedef const uint8_t *dc_key_of(const void *frames, uint32_t frame);

/* Room for `frames` frames. DOVECOTE_ERR_MEMORY leaves nothing to free. */
int dc_index_init(dc_index *index, uint32_t frames);
void dc_index_free(dc_index *index);

void dc_index_insert(dc_index *index, const uint8_t *key, uint32_t frame);

/* The frame must be in the index. */
void dc_index_remove(dc_index *index, dc_key_of *key_of, const void *frames, uint32_t frame);

/* Frames whose key may equal `key`: *slot starts at dc_index_start and is moved on. DC_NONE ends.
 */
uint64_t dc_index_start(const dc_index *index, const uint8_t *key);
uint32_t dc_index_next(const dc_index *index, uint64_t *slot);

#endif
