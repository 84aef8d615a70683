/* codec.h: one layer's K and V between the model's dense planes and a frame's bytes.
 *
 * A section is what one layer takes in a frame:
 *
 *   | K codes [heads][tokens][k_dim] | K scales | V codes [heads][tokens][v_dim] | V scales |
 *
 * `tokens` is always the block's full length: a short block leaves the rest of each part zero, so
 * that every section of a pool has one size and offsets need no table. The portable functions in
 * codec.c are the definition; codec_x86.c and codec_arm.c hold twins that give the same bytes.
 *
 * Forms. A codec gives each side one of four forms (k8v4: K as q8, V as q4):
 *
 *   form   codes of a token     scales of a token    a value is
 *   raw    dim elements         none                 the model's own bytes
 *   f16    dim float16          none                 float16
 *   q8     dim int8             1 float32 a group    code * scale,          scale = amax / 127
 *   q4     half a byte each     2 float16 a group    low + code * scale,    code in [0, 15]
 *
 * A group is 64 elements along the head dim; 32 where dim is no multiple of 64; the whole dim (up
 * to 1,024) where it is no multiple of 32 either. A q4 group of g elements is (g + 1) / 2 bytes:
 * byte j holds element j in its low half and element j + (g + 1) / 2 in its high half; its scales
 * are scale, then low. Each codes part is padded with zeros to a multiple of 4 bytes. Everything is
 * little-endian. Limits: heads <= 4,096, dim <= 65,536, tokens <= 1,048,576.
 *
 * Arithmetic is float32, rounding to nearest even, each operation rounded for itself: compile with
 * -ffp-contract=off. (q4's code * scale has 15 significant bits, so decoding would survive fusing.)
 *
 *   q8 encode   scale = amax / 127, code = rint(x * (127 / amax)); amax = largest finite |x|
 *   q4 encode   low = float16(smallest x), scale = float16(max(largest x - low, 0) / 15),
 *               code = rint(clamp((x - low) * (1 / scale), 0, 15))
 *
 * Special values
 *   - raw keeps every bit, NaN included. f16 of a float16 model is raw.
 *   - f16: NaN becomes 0; what lies beyond 65504, infinities too, becomes 65504 with its sign.
 *   - q8, q4: NaN becomes 0 before anything else. An infinity counts as the largest finite
 *     magnitude of its group, with its sign (0 if there is none). Values are first clamped to
 *     +-65504 (q4) and +-2^127 (q8, so that 127 * scale is finite).
 *   - q8: a group whose amax is below 2^-100 is stored as zeros, scale included. So 127 / amax
 *     never overflows, and no scale or product is a denormal: the bytes do not depend on the
 *     processor's flush-to-zero mode. Smaller values beside larger ones become 0 by rounding.
 *   - q4: a scale that rounds to 0 stores codes of 0: the group decodes to low. Zero is always +0.
 *   - A huge outlier costs its own group its precision and no other group anything: a value is
 *     off by amax / 254 at most in q8, by scale / 2 plus the float16 error of low in q4.
 *   - Decoded values beyond what a float16 destination can hold become 65504 with their sign.
 */
#ifndef DC_CODEC_H
#define DC_CODEC_H

#include "dovecote.h"

typedef struct {
    uint32_t codec; /* dovecote_codec */
    uint32_t dtype; /* dovecote_dtype */
    uint32_t block_tokens;
    dovecote_layer layer;
} dc_section;

/* Bytes of a section, a multiple of 4. 0 if the codec cannot store that shape. */
uint64_t dc_section_bytes(const dc_section *section);

/* Where position `start` of k's first head lies: what encoding from there on reads first. NULL if
 * the codec cannot store the section. */
const void *dc_section_run(const dc_section *section, const dovecote_plane *k, uint64_t start);

/* Encodes positions [start, start + count) of k and v; count <= block_tokens. Writes every byte of
 * the section (zeros past count). `next` is the dc_section_run of what is encoded after this, which
 * is then on its way into the cache, or NULL. */
void dc_section_encode(const dc_section *section, const dovecote_plane *k, const dovecote_plane *v,
                       uint64_t start, uint32_t count, const void *next, uint8_t *bytes);

/* Asks for the first and last line of each run that dc_section_decode with the same arguments will
 * write: it reads them, since a run shares them with others, and looks up their pages (stream.h). */
void dc_section_expect(const dc_section *section, uint64_t start, uint32_t count,
                       const dovecote_plane *k, const dovecote_plane *v);

/* Decodes the first `count` tokens of a section to positions [start, start + count) of k and v. */
void dc_section_decode(const dc_section *section, const uint8_t *bytes, uint64_t start,
                       uint32_t count, const dovecote_plane *k, const dovecote_plane *v);

#endif
