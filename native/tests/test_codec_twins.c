/* Every instruction set against the portable definition, bit by bit: all lengths up to four
 * vectors, all alignments, all group lengths, special values among ordinary ones, and bytes that no
 * encoder would write. */
#include <math.h>
#include <string.h>

#include "codec_kernels.h"
#include "harness.h"

typedef struct {
    const char *name;
    const dc_kernels *kernels;
} twin;

static const twin twins[] = {
#if defined(DC_X86)
    {"avx2", &dc_kernels_avx2},
    {"avx512", &dc_kernels_avx512},
#elif defined(DC_ARM)
    {"neon", &dc_kernels_neon},
#endif
    {NULL, NULL},
};

enum { LONGEST = 64, GROUPS = 5, WIDEST = 1024 };

static const dc_kernels *kernels; /* under test */
static uint32_t seed;

static uint32_t any_bits(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed ^ seed >> 15;
}

/* A bit pattern at random, NaN and denormals included; halves among them hit every class. */
static float any_pattern(void) {
    uint32_t bits = any_bits() * 2654435761u;
    float value = 0;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float any_value(void) {
    return (float)(int32_t)any_bits() * 0x1p-29f;
}

/* Mostly ordinary values; every few groups one of the special ones. */
static void fill(float *in, size_t count) {
    static const float special[] = {0.0f,     -0.0f,    NAN,    INFINITY,   -INFINITY, 0x1p-149f,
                                    -1e-40f,  65504.0f, 7e4f,   -65520.0f,  3.4e38f,   0x1p-100f,
                                    0x1p-24f, 1e-8f,    -1e-8f, 0x1.8p-100f};
    static const float scales[] = {1.0f, 1e-3f, 1e-30f, 1e-38f, 1e3f, 1e5f, 1e30f, 0.0f};
    float scale = scales[any_bits() % 8];
    for (size_t i = 0; i < count; i++) {
        in[i] = any_value() * scale;
    }
    for (uint32_t n = any_bits() % 4; n > 0; n--) {
        in[any_bits() % count] = special[any_bits() % 16];
    }
}

static void narrowing_agrees_on_every_length_and_alignment(void) {
    float in[LONGEST + 16];
    uint8_t want[2 * LONGEST + 64];
    uint8_t got[2 * LONGEST + 64];
    for (size_t count = 0; count <= LONGEST; count++) {
        for (size_t shift = 0; shift < 16; shift++) {
            for (size_t i = 0; i < LONGEST + 16; i++) {
                in[i] = any_bits() % 3 ? any_value() * 1e3f : any_pattern();
            }
            memset(want, 0xaa, sizeof(want));
            memset(got, 0xaa, sizeof(got));
            dc_kernels_portable.narrow_f16(in + shift, want + shift, count);
            kernels->narrow_f16(in + shift, got + shift, count);
            CHECK(memcmp(want, got, sizeof(want)) == 0);
            dc_kernels_portable.narrow_bf16(in + shift, want + shift, count);
            kernels->narrow_bf16(in + shift, got + shift, count);
            CHECK(memcmp(want, got, sizeof(want)) == 0);
        }
    }
}

static void widening_agrees_on_every_half(void) {
    static uint16_t halves[65536];
    static float want[65536];
    static float got[65536];
    for (uint32_t i = 0; i < 65536; i++) {
        halves[i] = (uint16_t)i;
    }
    dc_kernels_portable.widen_f16(halves, want, 65536);
    kernels->widen_f16(halves, got, 65536);
    CHECK(memcmp(want, got, sizeof(want)) == 0);
    dc_kernels_portable.widen_bf16(halves, want, 65536);
    kernels->widen_bf16(halves, got, 65536);
    CHECK(memcmp(want, got, sizeof(want)) == 0);
}

static void widening_agrees_on_every_length_and_alignment(void) {
    uint8_t in[2 * LONGEST + 64];
    float want[LONGEST + 16];
    float got[LONGEST + 16];
    for (size_t count = 0; count <= LONGEST; count++) {
        for (size_t shift = 0; shift < 16; shift++) {
            for (size_t i = 0; i < sizeof(in); i++) {
                in[i] = (uint8_t)any_bits();
            }
            memset(want, 0xaa, sizeof(want));
            memset(got, 0xaa, sizeof(got));
            dc_kernels_portable.widen_f16(in + shift, want + shift % 8, count);
            kernels->widen_f16(in + shift, got + shift % 8, count);
            CHECK(memcmp(want, got, sizeof(want)) == 0);
        }
    }
}

typedef void encode_fn(const float *, size_t, size_t, uint8_t *, uint8_t *);
typedef void decode_fn(const uint8_t *, const uint8_t *, size_t, size_t, float *);

static void encodes_alike(encode_fn *definition, encode_fn *tested, size_t groups, size_t length,
                          size_t shift) {
    static float in[GROUPS * WIDEST + 16];
    static uint8_t want[GROUPS * (WIDEST + 4) + 128];
    static uint8_t got[sizeof(want)];
    memset(want, 0xaa, sizeof(want));
    memset(got, 0xaa, sizeof(got));
    for (size_t g = 0; g < groups; g++) {
        fill(in + shift % 16 + g * length, length);
    }
    size_t scales = groups * length + 40;
    definition(in + shift % 16, groups, length, want + shift, want + scales + shift % 7);
    tested(in + shift % 16, groups, length, got + shift, got + scales + shift % 7);
    CHECK(memcmp(want, got, sizeof(want)) == 0);
}

static void decodes_alike(decode_fn *definition, decode_fn *tested, size_t groups, size_t length,
                          size_t shift) {
    static uint8_t in[GROUPS * (WIDEST + 4) + 128];
    static float want[GROUPS * WIDEST + 16];
    static float got[GROUPS * WIDEST + 16];
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = (uint8_t)any_bits();
    }
    memset(want, 0xaa, sizeof(want));
    memset(got, 0xaa, sizeof(got));
    const uint8_t *scales = in + groups * length + 40 + shift % 7;
    definition(in + shift, scales, groups, length, want + shift % 16);
    tested(in + shift, scales, groups, length, got + shift % 16);
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        CHECK(memcmp(&want[i], &got[i], sizeof(float)) == 0 || (isnan(want[i]) && isnan(got[i])));
    }
}

static void groups_agree_on_every_count_length_and_alignment(void) {
    static const size_t lengths[] = {64, 32, 16, 48, 80, 1,  2,  3,   7,
                                     8,  15, 17, 31, 33, 63, 65, 1024};
    const dc_kernels *p = &dc_kernels_portable;
    for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
        for (size_t groups = 0; groups <= GROUPS; groups++) {
            for (size_t shift = 0; shift < 32; shift++) {
                encodes_alike(p->q8_encode, kernels->q8_encode, groups, lengths[l], shift);
                encodes_alike(p->q4_encode, kernels->q4_encode, groups, lengths[l], shift);
                decodes_alike(p->q8_decode, kernels->q8_decode, groups, lengths[l], shift);
                decodes_alike(p->q4_decode, kernels->q4_decode, groups, lengths[l], shift);
            }
        }
    }
}

/* Values half-way between two codes are where a fused or reordered operation would show. */
static void ties_agree(void) {
    float in[64];
    uint8_t want[64 + 4];
    uint8_t got[64 + 4];
    for (int round = 0; round < 20000; round++) {
        float step = 1.0f + (float)(any_bits() % 4096) * 0x1p-12f;
        for (size_t i = 0; i < 64; i++) {
            in[i] = ((float)(any_bits() % 254) - 126.5f) * step;
        }
        in[any_bits() % 64] = 127.0f * step;
        dc_kernels_portable.q8_encode(in, 1, 64, want, want + 64);
        kernels->q8_encode(in, 1, 64, got, got + 64);
        CHECK(memcmp(want, got, sizeof(want)) == 0);
        dc_kernels_portable.q4_encode(in, 1, 64, want, want + 32);
        kernels->q4_encode(in, 1, 64, got, got + 32);
        CHECK(memcmp(want, got, 36) == 0);
    }
}

int main(void) {
    for (const twin *t = twins; t->name != NULL; t++) {
        if (dovecote_cpu_override(t->name) != DOVECOTE_OK) {
            (void)printf("%s: not on this processor\n", t->name);
            continue;
        }
        kernels = t->kernels;
        seed = 1;
        RUN(narrowing_agrees_on_every_length_and_alignment);
        RUN(widening_agrees_on_every_half);
        RUN(widening_agrees_on_every_length_and_alignment);
        RUN(groups_agree_on_every_count_length_and_alignment);
        RUN(ties_agree);
    }
    return SUMMARY();
}
