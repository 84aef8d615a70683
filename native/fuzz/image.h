/* image.h: a small pool file as bytes in memory, for the fuzz targets and their seeds.
 *
 * An input of fuzz_pool is one byte, the form, and then
 *
 *   form 0   the file itself: any bytes, any length
 *   form 1   what of a file is not padding, packed, so that nearly every mutation means something:
 *
 *            | header[PACKED_HEADER] | record 0 | ... | record 5 | frame 0's sections | ... |
 *
 * What is missing at an input's end is zeros. The geometry is fixed but for codec and dtype, which
 * are taken from the header's own fields.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"

enum {
    BLOCK = 4,
    LAYERS = 2,
    DIM = 8,
    FRAMES = 6,
    CAPACITY = (FRAMES + 1) * BLOCK,
    PACKED_HEADER = 256 + 12 * LAYERS,
    RECORD = 128,
    SECTIONS = 512, /* of one frame at most: exact, float32 */
    PACKED = 1 + PACKED_HEADER + FRAMES * (RECORD + SECTIONS),
    FILE_BYTES = 4096 + 4096 + FRAMES * 4096,
};

/* The configuration whose pool has such a header. */
dovecote_pool_config image_config(const uint8_t *header);

/* The same as a layout of FRAMES frames; dc_layout_free. Aborts if memory is short. */
dc_layout image_layout(const uint8_t *header);

/* form 1 to the FILE_BYTES of a file, and back. `input` and `packed` begin after the form. */
void image_unpack(const uint8_t *input, size_t count, uint8_t *file);
void image_pack(const uint8_t *file, uint8_t *packed);

#endif
