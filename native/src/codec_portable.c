/* codec_portable.c: the definition of the codecs' arithmetic (codec.h states it in words).
 *
 * No invariants beyond the kernels' contract; no state; any thread. The twins are tested against
 * these functions, so clarity comes before speed here. */
#include "codec_kernels.h"

#include <string.h>

static uint32_t bits_of(float value) {
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits) {
    float value = 0;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Rounds |value| < 2^22 to the nearest integer, ties to even: at 1.5 * 2^23 the last place is 1.
 * (rintf is a call into libm where the baseline has no instruction for it.) */
static float round_even(float value) {
    const float anchor = 12582912.0f;
    return (value + anchor) - anchor;
}

/* ---- float16 and bfloat16 ---- */

/* Rounds a magnitude below 2^-14 to the denormal halves, multiples of 2^-24. */
static uint16_t denormal_half(uint32_t magnitude) {
    return (uint16_t)round_even(float_of(magnitude) * 0x1p24f);
}

uint16_t dc_half_from_float(float value) {
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > DC_INFINITY_BITS) {
        return 0;
    }
    if (magnitude >= DC_HALF_MAX_BITS) {
        return (uint16_t)(sign | 0x7bffu);
    }
    if (magnitude < 0x38800000u) { /* 2^-14 */
        return (uint16_t)(sign | denormal_half(magnitude));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float dc_float_from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t fraction = half & 0x3ffu;
    if (exponent == 0) {
        return float_of(sign | bits_of((float)fraction * 0x1p-24f));
    }
    if (exponent == 31) { /* a NaN comes out quiet, as the processors' instructions have it */
        uint32_t quiet = fraction != 0 ? 0x400000u : 0;
        return float_of(sign | DC_INFINITY_BITS | quiet | fraction << 13);
    }
    return float_of(sign | (exponent + 112u) << 23 | fraction << 13);
}

static uint16_t bfloat_from_float(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > DC_INFINITY_BITS) {
        return (uint16_t)((bits >> 16) | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static uint16_t half_at(const void *in, size_t i) {
    uint16_t half = 0;
    memcpy(&half, (const uint8_t *)in + i * sizeof(half), sizeof(half));
    return half;
}

static void put_half(void *out, size_t i, uint16_t half) {
    memcpy((uint8_t *)out + i * sizeof(half), &half, sizeof(half));
}

static void widen_f16(const void *in, float *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = dc_float_from_half(half_at(in, i));
    }
}

static void widen_bf16(const void *in, float *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = float_of((uint32_t)half_at(in, i) << 16);
    }
}

static void narrow_f16(const float *in, void *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        put_half(out, i, dc_half_from_float(in[i]));
    }
}

static void narrow_bf16(const float *in, void *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        put_half(out, i, bfloat_from_float(in[i]));
    }
}

/* ---- what q8 and q4 share ---- */

/* The largest finite magnitude of a group; magnitudes order as their bits do. */
static float finite_amax(const float *in, size_t length) {
    uint32_t largest = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t magnitude = bits_of(in[i]) & 0x7fffffffu;
        if (magnitude < DC_INFINITY_BITS && magnitude > largest) {
            largest = magnitude;
        }
    }
    return float_of(largest);
}

/* NaN becomes 0, and what lies beyond +-limit becomes +-limit. */
static float settle(float value, float limit) {
    if (value != value) {
        return 0.0f;
    }
    if (value > limit) {
        return limit;
    }
    return value < -limit ? -limit : value;
}

/* ---- q8 ---- */

static void q8_encode_group(const float *in, size_t length, uint8_t *codes, uint8_t *scales) {
    float amax = settle(finite_amax(in, length), DC_Q8_MAX);
    if (amax < DC_Q8_FLOOR) {
        memset(codes, 0, length);
        memset(scales, 0, sizeof(float));
        return;
    }
    float scale = amax / 127.0f;
    float inverse = 127.0f / amax;
    for (size_t i = 0; i < length; i++) {
        codes[i] = (uint8_t)(int8_t)round_even(settle(in[i], amax) * inverse);
    }
    memcpy(scales, &scale, sizeof(scale));
}

static void q8_encode(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales) {
    for (size_t g = 0; g < groups; g++) {
        q8_encode_group(in + g * length, length, codes + g * length, scales + g * 4);
    }
}

static void q8_decode(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out) {
    for (size_t g = 0; g < groups; g++) {
        float scale = 0;
        memcpy(&scale, scales + g * 4, sizeof(scale));
        for (size_t i = 0; i < length; i++) {
            out[g * length + i] = (float)(int8_t)codes[g * length + i] * scale;
        }
    }
}

/* ---- q4 ---- */

static uint16_t positive_zero(uint16_t half) {
    return (half & 0x7fffu) == 0 ? 0 : half;
}

void dc_q4_range(float smallest, float largest, uint16_t *scale, uint16_t *low) {
    *low = positive_zero(dc_half_from_float(smallest));
    float range = largest - dc_float_from_half(*low);
    *scale = dc_half_from_float(range > 0.0f ? range / 15.0f : 0.0f);
}

static uint8_t q4_code(float value, float low, float inverse) {
    float code = (value - low) * inverse;
    if (code > 15.0f) {
        code = 15.0f;
    }
    return (uint8_t)round_even(code > 0.0f ? code : 0.0f);
}

static void q4_encode_group(const float *in, size_t length, uint8_t *codes, uint8_t *scales) {
    float limit = settle(finite_amax(in, length), DC_HALF_MAX);
    float smallest = limit;
    float largest = -limit;
    for (size_t i = 0; i < length; i++) {
        float value = settle(in[i], limit);
        smallest = value < smallest ? value : smallest;
        largest = value > largest ? value : largest;
    }
    uint16_t pair[2];
    dc_q4_range(smallest, largest, &pair[0], &pair[1]);
    float scale = dc_float_from_half(pair[0]);
    float low = dc_float_from_half(pair[1]);
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    size_t half = (length + 1) / 2;
    memset(codes, 0, half);
    for (size_t i = 0; i < length; i++) {
        uint8_t code = q4_code(settle(in[i], limit), low, inverse);
        codes[i % half] |= (uint8_t)(i < half ? code : code << 4);
    }
    memcpy(scales, pair, sizeof(pair));
}

static void q4_encode(const float *in, size_t groups, size_t length, uint8_t *codes,
                      uint8_t *scales) {
    size_t code_bytes = (length + 1) / 2;
    for (size_t g = 0; g < groups; g++) {
        q4_encode_group(in + g * length, length, codes + g * code_bytes, scales + g * 4);
    }
}

static void q4_decode_group(const uint8_t *codes, const uint8_t *scales, size_t length,
                            float *out) {
    uint16_t pair[2];
    memcpy(pair, scales, sizeof(pair));
    float scale = dc_float_from_half(pair[0]);
    float low = dc_float_from_half(pair[1]);
    size_t half = (length + 1) / 2;
    for (size_t i = 0; i < length; i++) {
        unsigned code = i < half ? codes[i] & 15u : codes[i - half] >> 4;
        float part = (float)code * scale;
        out[i] = part + low;
    }
}

static void q4_decode(const uint8_t *codes, const uint8_t *scales, size_t groups, size_t length,
                      float *out) {
    size_t code_bytes = (length + 1) / 2;
    for (size_t g = 0; g < groups; g++) {
        q4_decode_group(codes + g * code_bytes, scales + g * 4, length, out + g * length);
    }
}

const dc_kernels dc_kernels_portable = {
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .q8_encode = q8_encode,
    .q8_decode = q8_decode,
    .q4_encode = q4_encode,
    .q4_decode = q4_decode,
};
