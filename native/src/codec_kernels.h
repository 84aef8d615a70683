/* codec_kernels.h: the inner loops of the codecs, one table an instruction set.
 *
 * A kernel works on a contiguous run: the [tokens][dim] elements of one head. It knows nothing of
 * planes, heads or frames. Floats are aligned, everything else may lie anywhere. Every table gives
 * the same bytes; a kernel may hand what it does not handle itself (odd group lengths, groups with
 * special values) to dc_kernels_portable. */
#ifndef DC_CODEC_KERNELS_H
#define DC_CODEC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"

#define DC_HALF_MAX 65504.0f
#define DC_HALF_MAX_BITS 0x477fe000u /* *_BITS: the same as float32 bits */
#define DC_INFINITY_BITS 0x7f800000u
#define DC_Q8_FLOOR 0x1p-100f
#define DC_Q8_FLOOR_BITS 0x0d800000u
#define DC_Q8_MAX 0x1p127f
#define DC_Q8_MAX_BITS 0x7f000000u

typedef struct {
    void (*widen_f16)(const void *in, float *out, size_t count);
    void (*widen_bf16)(const void *in, float *out, size_t count);
    /* f16: NaN to 0, saturating (codec.h). bf16: as IEEE rounds, NaN stays NaN. */
    void (*narrow_f16)(const float *in, void *out, size_t count);
    void (*narrow_bf16)(const float *in, void *out, size_t count);
    /* `groups` groups of `length` elements; scales: 4 bytes a group. */
    void (*q8_encode)(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales);
    void (*q8_decode)(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out);
    void (*q4_encode)(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales);
    void (*q4_decode)(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out);
} dc_kernels;

extern const dc_kernels dc_kernels_portable;
#if defined(DC_X86)
extern const dc_kernels dc_kernels_avx2;
extern const dc_kernels dc_kernels_avx512;
#elif defined(DC_ARM)
extern const dc_kernels dc_kernels_neon;
#endif

/* Single values, for the twins' edges: float16 as the kernels above convert it. */
uint16_t dc_half_from_float(float value);
float dc_float_from_half(uint16_t half);

/* The scale and low of a q4 group from its extremes, both rounded to float16. */
void dc_q4_range(float smallest, float largest, uint16_t *scale, uint16_t *low);

#endif
