/* codec_arm.c: the kernels with NEON, which every arm64 processor has.
 *
 * As in codec_x86.c, groups with special values and lengths other than 64 and 32 go to the portable
 * kernels, which are the definition. No operation here may be fused with another: vmul and vadd are
 * written apart, and the file is compiled with -ffp-contract=off as all are. */
#include "codec_kernels.h"

#if defined(DC_ARM)

#include <arm_neon.h>
#include <string.h>

#define INLINE __attribute__((always_inline)) static inline

INLINE float float_of(uint32_t bits) {
    float value = 0;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

INLINE uint16x4_t load_halves(const uint8_t *bytes) {
    return vreinterpret_u16_u8(vld1_u8(bytes));
}

INLINE void store_halves(uint8_t *bytes, uint16x4_t halves) {
    vst1_u8(bytes, vreinterpret_u8_u16(halves));
}

/* ---- conversions ---- */

static void widen_f16(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        float16x4_t halves = vreinterpret_f16_u16(load_halves(bytes + 2 * i));
        vst1q_f32(out + i, vcvt_f32_f16(halves));
    }
    dc_kernels_portable.widen_f16(bytes + 2 * i, out + i, count - i);
}

static void widen_bf16(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        uint32x4_t wide = vshll_n_u16(load_halves(bytes + 2 * i), 16);
        vst1q_f32(out + i, vreinterpretq_f32_u32(wide));
    }
    dc_kernels_portable.widen_bf16(bytes + 2 * i, out + i, count - i);
}

static void narrow_f16(const float *in, void *out, size_t count) {
    const float32x4_t limit = vdupq_n_f32(DC_HALF_MAX);
    uint8_t *bytes = out;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        float32x4_t x = vld1q_f32(in + i);
        x = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vceqq_f32(x, x)));
        x = vminq_f32(vmaxq_f32(x, vnegq_f32(limit)), limit);
        store_halves(bytes + 2 * i, vreinterpret_u16_f16(vcvt_f16_f32(x)));
    }
    dc_kernels_portable.narrow_f16(in + i, bytes + 2 * i, count - i);
}

static void narrow_bf16(const float *in, void *out, size_t count) {
    uint8_t *bytes = out;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        float32x4_t x = vld1q_f32(in + i);
        uint32x4_t bits = vreinterpretq_u32_f32(x);
        uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        uint32x4_t sum = vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff));
        uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
        sum = vbslq_u32(vceqq_f32(x, x), sum, quiet);
        store_halves(bytes + 2 * i, vshrn_n_u32(sum, 16));
    }
    dc_kernels_portable.narrow_bf16(in + i, bytes + 2 * i, count - i);
}

/* ---- q8 ---- */

INLINE uint32_t group_bits(const float *in, size_t length) {
    uint32x4_t top = vdupq_n_u32(0);
    for (size_t i = 0; i < length; i += 4) {
        uint32x4_t bits = vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(in + i)));
        top = vmaxq_u32(top, bits);
    }
    return vmaxvq_u32(top);
}

INLINE int16x4_t q8_codes(const float *in, float inverse) {
    return vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(in), inverse)));
}

INLINE void q8_encode_groups(const float *in, size_t groups, size_t length, uint8_t *codes,
                             uint8_t *scales) {
    for (size_t g = 0; g < groups; g++, in += length, codes += length, scales += 4) {
        uint32_t top = group_bits(in, length);
        if (top > DC_Q8_MAX_BITS || top < DC_Q8_FLOOR_BITS) {
            dc_kernels_portable.q8_encode(in, 1, length, codes, scales);
            continue;
        }
        float scale = float_of(top) / 127.0f;
        float inverse = 127.0f / float_of(top);
        memcpy(scales, &scale, sizeof(scale));
        for (size_t i = 0; i < length; i += 8) {
            int16x8_t wide = vcombine_s16(q8_codes(in + i, inverse), q8_codes(in + i + 4, inverse));
            vst1_u8(codes + i, vreinterpret_u8_s8(vmovn_s16(wide)));
        }
    }
}

static void q8_encode(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales) {
    if (length == 64) {
        q8_encode_groups(in, groups, 64, codes, scales);
    } else if (length == 32) {
        q8_encode_groups(in, groups, 32, codes, scales);
    } else {
        dc_kernels_portable.q8_encode(in, groups, length, codes, scales);
    }
}

INLINE void q8_decode_groups(const uint8_t *codes, const uint8_t *scales, size_t groups,
                             size_t length, float *out) {
    for (size_t g = 0; g < groups; g++, codes += length, out += length) {
        float scale = 0;
        memcpy(&scale, scales + 4 * g, sizeof(scale));
        for (size_t i = 0; i < length; i += 8) {
            int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(codes + i)));
            float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
            float32x4_t high = vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)));
            vst1q_f32(out + i, vmulq_n_f32(low, scale));
            vst1q_f32(out + i + 4, vmulq_n_f32(high, scale));
        }
    }
}

static void q8_decode(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out) {
    if (length == 64) {
        q8_decode_groups(codes, scales, groups, 64, out);
    } else if (length == 32) {
        q8_decode_groups(codes, scales, groups, 32, out);
    } else {
        dc_kernels_portable.q8_decode(codes, scales, groups, length, out);
    }
}

/* ---- q4 ---- */

typedef struct {
    float32x4_t low;
    float32x4_t inverse;
} q4_step;

INLINE q4_step q4_group_range(const float *in, size_t length, uint8_t *scales) {
    float32x4_t smallest = vld1q_f32(in);
    float32x4_t largest = smallest;
    for (size_t i = 4; i < length; i += 4) {
        float32x4_t x = vld1q_f32(in + i);
        smallest = vminq_f32(smallest, x);
        largest = vmaxq_f32(largest, x);
    }
    uint16_t pair[2];
    dc_q4_range(vminvq_f32(smallest), vmaxvq_f32(largest), &pair[0], &pair[1]);
    memcpy(scales, pair, sizeof(pair));
    float inverse = pair[0] != 0 ? 1.0f / dc_float_from_half(pair[0]) : 0.0f;
    return (q4_step){vdupq_n_f32(dc_float_from_half(pair[1])), vdupq_n_f32(inverse)};
}

INLINE uint16x4_t q4_codes(const float *in, q4_step step) {
    float32x4_t x = vmulq_f32(vsubq_f32(vld1q_f32(in), step.low), step.inverse);
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(0.0f)), vdupq_n_f32(15.0f));
    return vmovn_u32(vcvtnq_u32_f32(x));
}

INLINE void q4_encode_groups(const float *in, size_t groups, size_t length, uint8_t *codes,
                             uint8_t *scales) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, in += length, codes += half, scales += 4) {
        if (group_bits(in, length) > DC_HALF_MAX_BITS) {
            dc_kernels_portable.q4_encode(in, 1, length, codes, scales);
            continue;
        }
        q4_step step = q4_group_range(in, length, scales);
        for (size_t i = 0; i < half; i += 8) {
            const float *upper = in + half + i;
            uint16x8_t a = vcombine_u16(q4_codes(in + i, step), q4_codes(in + i + 4, step));
            uint16x8_t b = vcombine_u16(q4_codes(upper, step), q4_codes(upper + 4, step));
            vst1_u8(codes + i, vmovn_u16(vorrq_u16(a, vshlq_n_u16(b, 4))));
        }
    }
}

static void q4_encode(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales) {
    if (length == 64) {
        q4_encode_groups(in, groups, 64, codes, scales);
    } else if (length == 32) {
        q4_encode_groups(in, groups, 32, codes, scales);
    } else {
        dc_kernels_portable.q4_encode(in, groups, length, codes, scales);
    }
}

INLINE void q4_put(uint8x8_t codes, float scale, float32x4_t low, float *out) {
    uint16x8_t wide = vmovl_u8(codes);
    float32x4_t a = vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide)));
    float32x4_t b = vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide)));
    vst1q_f32(out, vaddq_f32(vmulq_n_f32(a, scale), low));
    vst1q_f32(out + 4, vaddq_f32(vmulq_n_f32(b, scale), low));
}

INLINE void q4_decode_groups(const uint8_t *codes, const uint8_t *scales, size_t groups,
                             size_t length, float *out) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, codes += half, scales += 4, out += length) {
        uint16_t pair[2];
        memcpy(pair, scales, sizeof(pair));
        float scale = dc_float_from_half(pair[0]);
        float32x4_t low = vdupq_n_f32(dc_float_from_half(pair[1]));
        for (size_t i = 0; i < half; i += 8) {
            uint8x8_t both = vld1_u8(codes + i);
            q4_put(vand_u8(both, vdup_n_u8(15)), scale, low, out + i);
            q4_put(vshr_n_u8(both, 4), scale, low, out + half + i);
        }
    }
}

static void q4_decode(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out) {
    if (length == 64) {
        q4_decode_groups(codes, scales, groups, 64, out);
    } else if (length == 32) {
        q4_decode_groups(codes, scales, groups, 32, out);
    } else {
        dc_kernels_portable.q4_decode(codes, scales, groups, length, out);
    }
}

const dc_kernels dc_kernels_neon = {
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .q8_encode = q8_encode,
    .q8_decode = q8_decode,
    .q4_encode = q4_encode,
    .q4_decode = q4_decode,
};

#else

typedef int dc_codec_arm_unused; /* a translation unit may not be empty */

#endif
