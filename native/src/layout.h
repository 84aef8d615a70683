/* layout.h: where everything lies in a pool file, and the bytes of its header and records.
 *
 *   | header | record 0 | record 1 | ... | zeros to 4096 | frame 0 | frame 1 | ... |
 *
 * All integers are little-endian. All offsets derive from the geometry, the codec and the frame
 * count, so nothing in a file is ever followed as a pointer.
 *
 * Header: 256 + 12 * layers bytes, zeros up to a multiple of 4096
 *
 *   OFFSET  SIZE  MEANING
 *        0     8  magic "DOVECOTE"
 *        8     4  format version, 1
 *       12     4  CRC-32C of bytes 16 to the header's end
 *       16     4  header's size in bytes, a multiple of 4096
 *       20     4  codec (dovecote_codec)
 *       24     4  dtype (dovecote_dtype)
 *       28     4  tokens in a block
 *       32     4  layers
 *       36     4  frames
 *       40     8  bytes in a frame
 *       48     8  the file's size
 *       56     8  the size that was asked for; the file is at most that long
 *       64    32  fingerprint of the model (P8)
 *       96    16  secret of the keys, random
 *      112   144  zeros
 *      256    12  layer 0: KV heads, dimensions of K, dimensions of V; then layer 1, ...
 *
 * Record: 64 + 4 * block_tokens + 4 * layers bytes, zeros up to a multiple of 64. A record of zeros
 * only, as a new file has them, is a free one.
 *
 *   OFFSET  SIZE  MEANING
 *        0     4  CRC-32C of bytes 4 to the record's end
 *        4     4  state: 0 free, 1 sealed
 *        8     4  tokens: 1 to block_tokens, fewer in a short block
 *       12     4  depth: blocks before it in its chain
 *       16    16  key
 *       32    16  the parent's key; at depth 0 the chain's root
 *       48     8  generation: how often the frame was freed
 *       56     8  sequence: recency of use, larger is younger; below 2^63
 *       64     4  token id 0, ..., zeros from `tokens` on
 *        .     4  CRC-32C of layer 0's section, of layer 1's, ...
 *
 * Frame: one section (see codec.h) a layer, each padded with zeros to a multiple of 64; zeros up to
 * a multiple of 4096. A section's padding is not part of its checksum.
 *
 * The token ids lie in the record rather than in the frame: opening reads the whole table in one
 * sweep, and from then on a match touches memory only.
 */
#ifndef DC_LAYOUT_H
#define DC_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "codec.h"
#include "dovecote.h"
#include "frames.h"

#define DC_PAGE 4096u
#define DC_HEADER_MAX (4 * DC_PAGE) /* 256 + 12 * 1024 layers, in pages */

typedef struct {
    dc_section section;
    uint64_t offset; /* in the frame */
    uint64_t bytes;
} dc_place;

typedef struct {
    dc_place *places; /* [layer_count] */
    uint32_t layer_count, block_tokens, dtype, codec;
    uint8_t fingerprint[DOVECOTE_FINGERPRINT_BYTES];
    uint8_t secret[16];
    uint64_t frame_bytes;
    uint32_t header_bytes, record_bytes;
    uint32_t frames;
    uint64_t frames_offset, file_bytes, asked_bytes;
} dc_layout;

/* Everything that follows from the geometry alone. ARGUMENT, MEMORY; nothing to free then. */
int dc_layout_init(dc_layout *layout, const dovecote_pool_config *config);
void dc_layout_free(dc_layout *layout);

/* Whether frames of one can be copied into the other as they are. */
bool dc_layout_is_like(const dc_layout *layout, const dc_layout *other);

/* Whether planes (K then V) of the layers [start, end) hold the positions [first, last), each head
 * apart from the next. */
bool dc_layout_planes_hold(const dc_layout *layout, const dovecote_plane *planes, uint32_t start,
                           uint32_t end, uint64_t first, uint64_t last);

/* As many frames as fit into `size_bytes`. ARGUMENT if none does. */
int dc_layout_fit(dc_layout *layout, uint64_t size_bytes);

/* Writes header_bytes bytes. */
void dc_header_write(const dc_layout *layout, uint8_t *bytes);

/* Takes secret, frame count and sizes from the first `count` bytes of a file of `file_bytes`.
 * FORMAT; MISMATCH if it is sound but for other data than `layout` was initialised with. */
int dc_header_read(dc_layout *layout, const uint8_t *bytes, uint64_t count, uint64_t file_bytes);

static inline uint64_t dc_record_offset(const dc_layout *layout, uint32_t frame) {
    return layout->header_bytes + (uint64_t)frame * layout->record_bytes;
}

static inline uint64_t dc_frame_offset(const dc_layout *layout, uint32_t frame) {
    return layout->frames_offset + (uint64_t)frame * layout->frame_bytes;
}

/* The record of a frame with a block in it, or of one that is free. Both write record_bytes bytes.
 */
void dc_record_write(const dc_layout *layout, const dc_frames *frames, uint32_t frame,
                     uint8_t *bytes);
void dc_record_write_free(const dc_layout *layout, const dc_frames *frames, uint32_t frame,
                          uint8_t *bytes);

/* Makes the frame SEALED or FREE by its record. false: the record is damaged, the frame is FREE. */
bool dc_record_read(const dc_layout *layout, dc_frames *frames, uint32_t frame,
                    const uint8_t *bytes);

#endif
