/* codec_x86.c: the kernels with AVX2 and with AVX-512.
 *
 * Function attributes choose the instructions, so that the file needs no compiler flags and no AVX
 * leaks into the portable path. A group with special values goes to the portable kernel, which is
 * the definition; so do group lengths that the loops do not divide. The hot lengths, 64 and 32, are
 * compiled as constants. MXCSR's default rounding (nearest even) is assumed, as everywhere in C. */
#include "codec_kernels.h"

#if defined(DC_X86)

#include <immintrin.h>
#include <string.h>

#define TARGET_256 __attribute__((target("avx2,f16c")))
#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
#define INLINE __attribute__((always_inline)) static inline
#define NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define MAGNITUDE 0x7fffffff

INLINE float float_of(uint32_t bits) {
    float value = 0;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

INLINE void put_float(uint8_t *out, float value) {
    memcpy(out, &value, sizeof(value));
}

INLINE void put_pair(uint8_t *out, uint16_t scale, uint16_t low) {
    uint32_t pair = (uint32_t)scale | (uint32_t)low << 16;
    memcpy(out, &pair, sizeof(pair));
}

/* What a q4 group's codes are computed with: the scales as stored. */
typedef struct {
    float low;
    float inverse;
} q4_step;

/* dc_q4_range with the conversion instructions; both extremes are finite float16 magnitudes. */
TARGET_256 INLINE q4_step q4_range(float smallest, float largest, uint8_t *scales) {
    uint16_t low = _cvtss_sh(smallest, NEAREST);
    low = (low & 0x7fffu) == 0 ? 0 : low;
    float range = largest - _cvtsh_ss(low);
    uint16_t scale = _cvtss_sh(range > 0.0f ? range / 15.0f : 0.0f, NEAREST);
    put_pair(scales, scale, low);
    return (q4_step){_cvtsh_ss(low), scale != 0 ? 1.0f / _cvtsh_ss(scale) : 0.0f};
}

/* Kernels of all group lengths from one of the two that matter, which it gets as a constant. */
#define DEFINE_ENCODE(TARGET, NAME, GROUPS, PORTABLE)                                      \
    TARGET static void NAME(const float *in, size_t groups, size_t length, uint8_t *codes, \
                            uint8_t *scales) {                                             \
        if (length == 64) {                                                                \
            GROUPS(in, groups, 64, codes, scales);                                         \
        } else if (length == 32) {                                                         \
            GROUPS(in, groups, 32, codes, scales);                                         \
        } else {                                                                           \
            dc_kernels_portable.PORTABLE(in, groups, length, codes, scales);               \
        }                                                                                  \
    }

#define DEFINE_DECODE(TARGET, NAME, GROUPS, PORTABLE)                                   \
    TARGET static void NAME(const uint8_t *codes, const uint8_t *scales, size_t groups, \
                            size_t length, float *out) {                                \
        if (length == 64) {                                                             \
            GROUPS(codes, scales, groups, 64, out);                                     \
        } else if (length == 32) {                                                      \
            GROUPS(codes, scales, groups, 32, out);                                     \
        } else {                                                                        \
            dc_kernels_portable.PORTABLE(codes, scales, groups, length, out);           \
        }                                                                               \
    }

/* ---- AVX2: conversions ---- */

TARGET_256 static void widen_f16_256(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
    }
    dc_kernels_portable.widen_f16(bytes + 2 * i, out + i, count - i);
}

TARGET_256 static void widen_bf16_256(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(bytes + 2 * i));
        __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
        _mm256_storeu_ps(out + i, _mm256_castsi256_ps(wide));
    }
    dc_kernels_portable.widen_bf16(bytes + 2 * i, out + i, count - i);
}

TARGET_256 static void narrow_f16_256(const float *in, void *out, size_t count) {
    const __m256 limit = _mm256_set1_ps(DC_HALF_MAX);
    const __m256 negative = _mm256_set1_ps(-DC_HALF_MAX);
    uint8_t *bytes = out;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 x = _mm256_loadu_ps(in + i);
        x = _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
        x = _mm256_min_ps(_mm256_max_ps(x, negative), limit);
        _mm_storeu_si128((__m128i *)(void *)(bytes + 2 * i), _mm256_cvtps_ph(x, NEAREST));
    }
    dc_kernels_portable.narrow_f16(in + i, bytes + 2 * i, count - i);
}

/* Upper halves rounded to even; NaN keeps its sign and payload and is made quiet. */
TARGET_256 INLINE __m256i bfloat_of_256(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
}

TARGET_256 static void narrow_bf16_256(const float *in, void *out, size_t count) {
    uint8_t *bytes = out;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256i wide = bfloat_of_256(_mm256_loadu_ps(in + i));
        __m128i halves =
            _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
        _mm_storeu_si128((__m128i *)(void *)(bytes + 2 * i), halves);
    }
    dc_kernels_portable.narrow_bf16(in + i, bytes + 2 * i, count - i);
}

/* ---- AVX2: q8 ---- */

TARGET_256 INLINE uint32_t largest_bits_256(__m256i m) {
    __m128i v = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    v = _mm_max_epu32(v, _mm_shuffle_epi32(v, _MM_SHUFFLE(1, 0, 3, 2)));
    v = _mm_max_epu32(v, _mm_shuffle_epi32(v, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(v);
}

TARGET_256 INLINE uint32_t group_bits_256(const float *in, size_t length) {
    __m256i top = _mm256_setzero_si256();
    for (size_t i = 0; i < length; i += 8) {
        __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(in + i));
        top = _mm256_max_epu32(top, _mm256_and_si256(bits, _mm256_set1_epi32(MAGNITUDE)));
    }
    return largest_bits_256(top);
}

TARGET_256 INLINE __m256i q8_codes_256(const float *in, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(in), inverse));
}

/* 32 codes; the packs work within 128-bit halves, the permutation undoes that. */
TARGET_256 INLINE void q8_store_256(const float *in, __m256 inverse, uint8_t *codes) {
    __m256i a = _mm256_packs_epi32(q8_codes_256(in, inverse), q8_codes_256(in + 8, inverse));
    __m256i b = _mm256_packs_epi32(q8_codes_256(in + 16, inverse), q8_codes_256(in + 24, inverse));
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order);
    _mm256_storeu_si256((__m256i *)(void *)codes, packed);
}

TARGET_256 INLINE void q8_encode_groups_256(const float *in, size_t groups, size_t length,
                                            uint8_t *codes, uint8_t *scales) {
    for (size_t g = 0; g < groups; g++, in += length, codes += length, scales += 4) {
        uint32_t top = group_bits_256(in, length);
        if (top > DC_Q8_MAX_BITS || top < DC_Q8_FLOOR_BITS) {
            dc_kernels_portable.q8_encode(in, 1, length, codes, scales);
            continue;
        }
        put_float(scales, float_of(top) / 127.0f);
        __m256 inverse = _mm256_set1_ps(127.0f / float_of(top));
        for (size_t i = 0; i < length; i += 32) {
            q8_store_256(in + i, inverse, codes + i);
        }
    }
}

DEFINE_ENCODE(TARGET_256, q8_encode_256, q8_encode_groups_256, q8_encode)

TARGET_256 INLINE void q8_decode_groups_256(const uint8_t *codes, const uint8_t *scales,
                                            size_t groups, size_t length, float *out) {
    for (size_t g = 0; g < groups; g++, codes += length, out += length) {
        float scale = 0;
        memcpy(&scale, scales + 4 * g, sizeof(scale));
        for (size_t i = 0; i < length; i += 8) {
            __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
            __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            _mm256_storeu_ps(out + i, _mm256_mul_ps(x, _mm256_set1_ps(scale)));
        }
    }
}

DEFINE_DECODE(TARGET_256, q8_decode_256, q8_decode_groups_256, q8_decode)

/* ---- AVX2: q4 ---- */

TARGET_256 INLINE float smallest_256(__m256 m) {
    __m128 v = _mm_min_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    v = _mm_min_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_min_ss(v, _mm_movehdup_ps(v)));
}

TARGET_256 INLINE float largest_256(__m256 m) {
    __m128 v = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}

TARGET_256 INLINE q4_step q4_group_range_256(const float *in, size_t length, uint8_t *scales) {
    __m256 smallest = _mm256_loadu_ps(in);
    __m256 largest = smallest;
    for (size_t i = 8; i < length; i += 8) {
        __m256 x = _mm256_loadu_ps(in + i);
        smallest = _mm256_min_ps(smallest, x);
        largest = _mm256_max_ps(largest, x);
    }
    return q4_range(smallest_256(smallest), largest_256(largest), scales);
}

TARGET_256 INLINE __m256i q4_codes_256(const float *in, __m256 low, __m256 inverse) {
    __m256 x = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(in), low), inverse);
    x = _mm256_min_ps(_mm256_max_ps(x, _mm256_setzero_ps()), _mm256_set1_ps(15.0f));
    return _mm256_cvtps_epi32(x);
}

/* 16 bytes from 16 elements of each half of the group. */
TARGET_256 INLINE void q4_store_256(const float *in, const float *upper, q4_step step,
                                    uint8_t *codes) {
    __m256 low = _mm256_set1_ps(step.low);
    __m256 inverse = _mm256_set1_ps(step.inverse);
    __m256i a = _mm256_or_si256(q4_codes_256(in, low, inverse),
                                _mm256_slli_epi32(q4_codes_256(upper, low, inverse), 4));
    __m256i b = _mm256_or_si256(q4_codes_256(in + 8, low, inverse),
                                _mm256_slli_epi32(q4_codes_256(upper + 8, low, inverse), 4));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
    __m128i packed =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)codes, packed);
}

TARGET_256 INLINE void q4_encode_groups_256(const float *in, size_t groups, size_t length,
                                            uint8_t *codes, uint8_t *scales) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, in += length, codes += half, scales += 4) {
        if (group_bits_256(in, length) > DC_HALF_MAX_BITS) {
            dc_kernels_portable.q4_encode(in, 1, length, codes, scales);
            continue;
        }
        q4_step step = q4_group_range_256(in, length, scales);
        for (size_t i = 0; i < half; i += 16) {
            q4_store_256(in + i, in + half + i, step, codes + i);
        }
    }
}

DEFINE_ENCODE(TARGET_256, q4_encode_256, q4_encode_groups_256, q4_encode)

TARGET_256 INLINE void q4_decode_groups_256(const uint8_t *codes, const uint8_t *scales,
                                            size_t groups, size_t length, float *out) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, codes += half, scales += 4, out += length) {
        uint16_t pair[2];
        memcpy(pair, scales, sizeof(pair));
        __m256 scale = _mm256_set1_ps(_cvtsh_ss(pair[0]));
        __m256 low = _mm256_set1_ps(_cvtsh_ss(pair[1]));
        for (size_t i = 0; i < half; i += 8) {
            __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
            __m256i both = _mm256_cvtepu8_epi32(bytes);
            __m256 a = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(15)));
            __m256 b = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 4));
            _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_mul_ps(a, scale), low));
            _mm256_storeu_ps(out + half + i, _mm256_add_ps(_mm256_mul_ps(b, scale), low));
        }
    }
}

DEFINE_DECODE(TARGET_256, q4_decode_256, q4_decode_groups_256, q4_decode)

const dc_kernels dc_kernels_avx2 = {
    .widen_f16 = widen_f16_256,
    .widen_bf16 = widen_bf16_256,
    .narrow_f16 = narrow_f16_256,
    .narrow_bf16 = narrow_bf16_256,
    .q8_encode = q8_encode_256,
    .q8_decode = q8_decode_256,
    .q4_encode = q4_encode_256,
    .q4_decode = q4_decode_256,
};

/* ---- AVX-512: conversions ---- */

TARGET_512 INLINE __mmask16 lanes(size_t left) {
    return (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
}

TARGET_512 static void widen_f16_512(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 some = lanes(count - i);
        __m256i halves = _mm256_maskz_loadu_epi16(some, bytes + 2 * i);
        _mm512_mask_storeu_ps(out + i, some, _mm512_cvtph_ps(halves));
    }
}

TARGET_512 static void widen_bf16_512(const void *in, float *out, size_t count) {
    const uint8_t *bytes = in;
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 some = lanes(count - i);
        __m256i halves = _mm256_maskz_loadu_epi16(some, bytes + 2 * i);
        __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
        _mm512_mask_storeu_ps(out + i, some, _mm512_castsi512_ps(wide));
    }
}

TARGET_512 static void narrow_f16_512(const float *in, void *out, size_t count) {
    const __m512 limit = _mm512_set1_ps(DC_HALF_MAX);
    const __m512 negative = _mm512_set1_ps(-DC_HALF_MAX);
    uint8_t *bytes = out;
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 some = lanes(count - i);
        __m512 x = _mm512_maskz_loadu_ps(some, in + i);
        x = _mm512_maskz_max_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x, negative);
        __m256i halves = _mm512_cvtps_ph(_mm512_min_ps(x, limit), NEAREST);
        _mm256_mask_storeu_epi16(bytes + 2 * i, some, halves);
    }
}

TARGET_512 INLINE __m256i bfloat_of_512(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    sum = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
}

TARGET_512 static void narrow_bf16_512(const float *in, void *out, size_t count) {
    uint8_t *bytes = out;
    for (size_t i = 0; i < count; i += 16) {
        __mmask16 some = lanes(count - i);
        __m512 x = _mm512_maskz_loadu_ps(some, in + i);
        _mm256_mask_storeu_epi16(bytes + 2 * i, some, bfloat_of_512(x));
    }
}

/* ---- AVX-512: q8 ---- */

TARGET_512 INLINE uint32_t group_bits_512(const float *in, size_t length) {
    __m512i top = _mm512_setzero_si512();
    for (size_t i = 0; i < length; i += 16) {
        __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(in + i));
        top = _mm512_max_epu32(top, _mm512_and_si512(bits, _mm512_set1_epi32(MAGNITUDE)));
    }
    return _mm512_reduce_max_epu32(top);
}

TARGET_512 INLINE void q8_encode_groups_512(const float *in, size_t groups, size_t length,
                                            uint8_t *codes, uint8_t *scales) {
    for (size_t g = 0; g < groups; g++, in += length, codes += length, scales += 4) {
        uint32_t top = group_bits_512(in, length);
        if (top > DC_Q8_MAX_BITS || top < DC_Q8_FLOOR_BITS) {
            dc_kernels_portable.q8_encode(in, 1, length, codes, scales);
            continue;
        }
        put_float(scales, float_of(top) / 127.0f);
        __m512 inverse = _mm512_set1_ps(127.0f / float_of(top));
        for (size_t i = 0; i < length; i += 16) {
            __m512i wide = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(in + i), inverse));
            _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm512_cvtepi32_epi8(wide));
        }
    }
}

DEFINE_ENCODE(TARGET_512, q8_encode_512, q8_encode_groups_512, q8_encode)

TARGET_512 INLINE void q8_decode_groups_512(const uint8_t *codes, const uint8_t *scales,
                                            size_t groups, size_t length, float *out) {
    for (size_t g = 0; g < groups; g++, codes += length, out += length) {
        float scale = 0;
        memcpy(&scale, scales + 4 * g, sizeof(scale));
        for (size_t i = 0; i < length; i += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(codes + i));
            __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
            _mm512_storeu_ps(out + i, _mm512_mul_ps(x, _mm512_set1_ps(scale)));
        }
    }
}

DEFINE_DECODE(TARGET_512, q8_decode_512, q8_decode_groups_512, q8_decode)

/* ---- AVX-512: q4 ---- */

TARGET_512 INLINE q4_step q4_group_range_512(const float *in, size_t length, uint8_t *scales) {
    __m512 smallest = _mm512_loadu_ps(in);
    __m512 largest = smallest;
    for (size_t i = 16; i < length; i += 16) {
        __m512 x = _mm512_loadu_ps(in + i);
        smallest = _mm512_min_ps(smallest, x);
        largest = _mm512_max_ps(largest, x);
    }
    return q4_range(_mm512_reduce_min_ps(smallest), _mm512_reduce_max_ps(largest), scales);
}

TARGET_512 INLINE __m512i q4_codes_512(const float *in, q4_step step) {
    __m512 x = _mm512_sub_ps(_mm512_loadu_ps(in), _mm512_set1_ps(step.low));
    x = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(step.inverse)), _mm512_setzero_ps());
    return _mm512_cvtps_epi32(_mm512_min_ps(x, _mm512_set1_ps(15.0f)));
}

TARGET_512 INLINE void q4_encode_groups_512(const float *in, size_t groups, size_t length,
                                            uint8_t *codes, uint8_t *scales) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, in += length, codes += half, scales += 4) {
        if (group_bits_512(in, length) > DC_HALF_MAX_BITS) {
            dc_kernels_portable.q4_encode(in, 1, length, codes, scales);
            continue;
        }
        q4_step step = q4_group_range_512(in, length, scales);
        for (size_t i = 0; i < half; i += 16) {
            __m512i upper = _mm512_slli_epi32(q4_codes_512(in + half + i, step), 4);
            __m512i both = _mm512_or_si512(q4_codes_512(in + i, step), upper);
            _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm512_cvtepi32_epi8(both));
        }
    }
}

DEFINE_ENCODE(TARGET_512, q4_encode_512, q4_encode_groups_512, q4_encode)

/* A group has 16 values at most: they are computed once and looked up. */
TARGET_512 INLINE __m512 q4_values(const uint8_t *scales) {
    uint16_t pair[2];
    memcpy(pair, scales, sizeof(pair));
    __m512 index = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 scaled = _mm512_mul_ps(index, _mm512_set1_ps(_cvtsh_ss(pair[0])));
    return _mm512_add_ps(scaled, _mm512_set1_ps(_cvtsh_ss(pair[1])));
}

TARGET_512 INLINE void q4_decode_groups_512(const uint8_t *codes, const uint8_t *scales,
                                            size_t groups, size_t length, float *out) {
    size_t half = length / 2;
    for (size_t g = 0; g < groups; g++, codes += half, scales += 4, out += length) {
        __m512 values = q4_values(scales);
        for (size_t i = 0; i < half; i += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(codes + i));
            __m512i both = _mm512_cvtepu8_epi32(bytes); /* the look-up reads the low 4 bits */
            _mm512_storeu_ps(out + i, _mm512_permutexvar_ps(both, values));
            __m512i upper = _mm512_srli_epi32(both, 4);
            _mm512_storeu_ps(out + half + i, _mm512_permutexvar_ps(upper, values));
        }
    }
}

DEFINE_DECODE(TARGET_512, q4_decode_512, q4_decode_groups_512, q4_decode)

const dc_kernels dc_kernels_avx512 = {
    .widen_f16 = widen_f16_512,
    .widen_bf16 = widen_bf16_512,
    .narrow_f16 = narrow_f16_512,
    .narrow_bf16 = narrow_bf16_512,
    .q8_encode = q8_encode_512,
    .q8_decode = q8_decode_512,
    .q4_encode = q4_encode_512,
    .q4_decode = q4_decode_512,
};

#else

typedef int dc_codec_x86_unused; /* a translation unit may not be empty */

#endif
