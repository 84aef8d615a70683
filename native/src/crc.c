/* crc.c: CRC-32C, portable and with the processor's own instructions.
 *
 * crc_portable is the definition. The register of a CRC is linear over GF(2): a byte's contribution
 * is the exclusive or of its bits' contributions, so eight constants make a table of 256 entries
 * (row k holds the bits of a byte that k more bytes follow).
 *
 *   portable  slicing by 8 (Kounavis and Berry, 2005)
 *   avx2      three interleaved streams of the SSE4.2 instruction, whose latency is three cycles,
 *             joined by carry-less multiplication
 *   avx512    folding of four 64-byte lanes by carry-less multiplication (Gopal et al., Fast CRC
 *             Computation for Generic Polynomials Using PCLMULQDQ, Intel 2009)
 *   neon      the ARMv8 CRC instructions, where the processor has them
 *
 * The fold constants are x^(D+32) and x^(D-32) mod P, reflected and shifted left once, for a fold
 * over D bits. All functions take and give the register itself; dc_crc32c inverts it at both ends.
 */
#include "crc.h"

#include <string.h>

#include "cpu.h"

#if defined(DC_X86)
#include <immintrin.h>
#elif defined(DC_ARM)
#include <arm_acle.h>
#endif

#define BIT(n, i, value) ((((n) >> (i)) & 1u) ? (value) : 0u)
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                       \
    (BIT(n, 0, a) ^ BIT(n, 1, b) ^ BIT(n, 2, c) ^ BIT(n, 3, d) ^ BIT(n, 4, e) ^ BIT(n, 5, f) ^ \
     BIT(n, 6, g) ^ BIT(n, 7, h))
#define ROW4(n, ...)                                                                   \
    ENTRY(n, __VA_ARGS__), ENTRY((n) + 1u, __VA_ARGS__), ENTRY((n) + 2u, __VA_ARGS__), \
        ENTRY((n) + 3u, __VA_ARGS__)
#define ROW16(n, ...)                                                               \
    ROW4(n, __VA_ARGS__), ROW4((n) + 4u, __VA_ARGS__), ROW4((n) + 8u, __VA_ARGS__), \
        ROW4((n) + 12u, __VA_ARGS__)
#define ROW64(n, ...)                                                                    \
    ROW16(n, __VA_ARGS__), ROW16((n) + 16u, __VA_ARGS__), ROW16((n) + 32u, __VA_ARGS__), \
        ROW16((n) + 48u, __VA_ARGS__)
#define ROW256(...)                                                             \
    {ROW64(0u, __VA_ARGS__), ROW64(64u, __VA_ARGS__), ROW64(128u, __VA_ARGS__), \
     ROW64(192u, __VA_ARGS__)}

static const uint32_t table[8][256] = {
    ROW256(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu,
           0x417b1dbcu, 0x82f63b78u),
    ROW256(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u,
           0xff17c604u, 0xfbc3faf9u),
    ROW256(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u,
           0xc76580d9u, 0x8b277743u),
    ROW256(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu,
           0xaba65fe7u, 0x52a0c93fu),
    ROW256(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u,
           0x37516aaeu, 0x6ea2d55cu),
    ROW256(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du,
           0x0e045bebu, 0x1c08b7d6u),
    ROW256(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu,
           0x7ab7077au, 0xf56e0ef4u),
    ROW256(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u,
           0x1a00cb32u, 0x34019664u),
};

static uint32_t crc_bytes(uint32_t crc, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        crc = (crc >> 8) ^ table[0][(crc ^ bytes[i]) & 0xffu];
    }
    return crc;
}

static uint32_t crc_portable(uint32_t crc, const uint8_t *bytes, size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 |
                              (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
        crc = table[7][low & 0xffu] ^ table[6][(low >> 8) & 0xffu] ^ table[5][(low >> 16) & 0xffu] ^
              table[4][low >> 24] ^ table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^
              table[0][bytes[7]];
    }
    return crc_bytes(crc, bytes, count);
}

#if defined(DC_X86)

/* Streams of 1,024 bytes keep the joins below 2 % of the work; streams of 128 serve what is left.
 */
#define LONG_STREAM 1024u
#define SHORT_STREAM 128u
/* x^(8n-33) mod P, reflected, for n = one or two streams. */
#define OVER_LONG 0x170076fau
#define OVER_TWO_LONG 0xa51b6135u
#define OVER_SHORT 0x0d3b6092u
#define OVER_TWO_SHORT 0xb9e02b86u

__attribute__((target("sse4.2,crc32"))) static uint64_t crc_word(uint64_t crc,
                                                                 const uint8_t *bytes) {
    uint64_t word = 0;
    memcpy(&word, bytes, 8);
    return _mm_crc32_u64(crc, word);
}

/* The register `crc` moved over the bytes that `constant` stands for. */
__attribute__((target("sse4.2,crc32,pclmul"))) static uint64_t shift(uint64_t crc,
                                                                     uint64_t constant) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
                                           _mm_cvtsi64_si128((long long)constant), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Three streams of `stream` bytes at once. */
__attribute__((target("sse4.2,crc32,pclmul"))) static uint64_t
crc_triple(uint64_t crc, const uint8_t *bytes, size_t stream, uint64_t over_one,
           uint64_t over_two) {
    uint64_t second = 0;
    uint64_t third = 0;
    for (size_t i = 0; i < stream; i += 8) {
        crc = crc_word(crc, bytes + i);
        second = crc_word(second, bytes + stream + i);
        third = crc_word(third, bytes + 2 * stream + i);
    }
    return shift(crc, over_two) ^ shift(second, over_one) ^ third;
}

__attribute__((target("sse4.2,crc32,pclmul"))) static uint32_t
crc_sse42(uint32_t crc, const uint8_t *bytes, size_t count) {
    uint64_t wide = crc;
    for (; count >= 3 * LONG_STREAM; bytes += 3 * LONG_STREAM, count -= 3 * LONG_STREAM) {
        wide = crc_triple(wide, bytes, LONG_STREAM, OVER_LONG, OVER_TWO_LONG);
    }
    for (; count >= 3 * SHORT_STREAM; bytes += 3 * SHORT_STREAM, count -= 3 * SHORT_STREAM) {
        wide = crc_triple(wide, bytes, SHORT_STREAM, OVER_SHORT, OVER_TWO_SHORT);
    }
    for (; count >= 8; bytes += 8, count -= 8) {
        wide = crc_word(wide, bytes);
    }
    return crc_bytes((uint32_t)wide, bytes, count);
}

#define WIDE "crc32,avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq,pclmul,sse4.2"

/* Moves a lane over the distance that `k` stands for and adds what is there. */
__attribute__((target(WIDE))) static __m512i fold(__m512i lane, __m512i k, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lane, k, 0x00),
                                     _mm512_clmulepi64_epi128(lane, k, 0x11), next, 0x96);
}

__attribute__((target(WIDE))) static __m512i fold_constant(long long over, long long under) {
    return _mm512_broadcast_i32x4(_mm_set_epi64x(under, over));
}

/* The register after a 64-byte lane: four 16-byte parts, each congruent to what it stands for once
 * it is moved to its place, which the CRC instruction does part by part. */
__attribute__((target(WIDE))) static uint32_t crc_of_lane(__m512i lane) {
    uint64_t words[8];
    memcpy(words, &lane, sizeof(words));
    uint64_t crc = 0;
    for (size_t i = 0; i < 8; i++) {
        crc = _mm_crc32_u64(crc, words[i]);
    }
    return (uint32_t)crc;
}

/* count >= 256. Folds four lanes over 2,048 bits a turn, then one lane over 512 bits a turn. */
__attribute__((target(WIDE))) static uint32_t crc_folded(uint32_t crc, const uint8_t *bytes,
                                                         size_t count) {
    const __m512i far = fold_constant(0xdcb17aa4, 0xb9e02b86);
    const __m512i near = fold_constant(0x740eef02, 0x9e4addf8);
    __m512i first = _mm512_castsi128_si512(_mm_cvtsi32_si128((int)crc));
    first = _mm512_maskz_mov_epi32(1, first);
    __m512i a = _mm512_xor_si512(first, _mm512_loadu_si512(bytes));
    __m512i b = _mm512_loadu_si512(bytes + 64);
    __m512i c = _mm512_loadu_si512(bytes + 128);
    __m512i d = _mm512_loadu_si512(bytes + 192);
    for (bytes += 256, count -= 256; count >= 256; bytes += 256, count -= 256) {
        a = fold(a, far, _mm512_loadu_si512(bytes));
        b = fold(b, far, _mm512_loadu_si512(bytes + 64));
        c = fold(c, far, _mm512_loadu_si512(bytes + 128));
        d = fold(d, far, _mm512_loadu_si512(bytes + 192));
    }
    a = fold(fold(fold(a, near, b), near, c), near, d);
    for (; count >= 64; bytes += 64, count -= 64) {
        a = fold(a, near, _mm512_loadu_si512(bytes));
    }
    return crc_sse42(crc_of_lane(a), bytes, count);
}

static uint32_t crc_best(uint32_t crc, const uint8_t *bytes, size_t count) {
    if (dc_cpu_level_in_use() == DC_PORTABLE) {
        return crc_portable(crc, bytes, count);
    }
    if (dc_cpu_has_wide_clmul() && count >= 256) {
        return crc_folded(crc, bytes, count);
    }
    return crc_sse42(crc, bytes, count);
}

#elif defined(DC_ARM)

#if defined(__clang__)
#define ARM_CRC __attribute__((target("crc")))
#else
#define ARM_CRC __attribute__((target("+crc")))
#endif

/* The instruction's latency is short enough on the cores that run MLX (Apple's retire one a cycle)
 * for a single stream. */
ARM_CRC static uint32_t crc_arm(uint32_t crc, const uint8_t *bytes, size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word = 0;
        memcpy(&word, bytes, 8);
        crc = __crc32cd(crc, word);
    }
    return crc_bytes(crc, bytes, count);
}

static uint32_t crc_best(uint32_t crc, const uint8_t *bytes, size_t count) {
    if (dc_cpu_has_arm_crc()) {
        return crc_arm(crc, bytes, count);
    }
    return crc_portable(crc, bytes, count);
}

#else

static uint32_t crc_best(uint32_t crc, const uint8_t *bytes, size_t count) {
    return crc_portable(crc, bytes, count);
}

#endif

uint32_t dc_crc32c(uint32_t crc, const void *bytes, size_t count) {
    return ~crc_best(~crc, bytes, count);
}

uint32_t dovecote_crc32c(uint32_t crc, const void *bytes, uint64_t count) {
    return dc_crc32c(crc, bytes, (size_t)count);
}
