/* The codecs: sizes, error bounds, special values, short blocks, argument checks. Everything runs
 * on every instruction set that the processor has; test_codec_twins.c compares these bit by bit. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "codec_kernels.h"
#include "harness.h"

static const char *const levels[] = {"portable", "avx2", "avx512", "neon"};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))

static uint32_t seed = 1;

/* In [-scale, scale). */
static float any_float(float scale) {
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f * scale;
}

/* One head of `dim`, one token: encoded and decoded again. */
static void through(uint32_t codec, const float *in, float *out, uint32_t dim) {
    uint8_t bytes[4096 + 64];
    float source[1024];
    memcpy(source, in, dim * sizeof(float));
    dovecote_plane from = {source, 0, 1};
    dovecote_plane to = {out, 0, 1};
    CHECK(dovecote_codec_plane_bytes(codec, DOVECOTE_FLOAT32, 0, 1, dim, 1) <= sizeof(bytes));
    CHECK(dovecote_codec_encode(codec, 0, 0, 1, dim, &from, 0, 1, bytes) == DOVECOTE_OK);
    CHECK(dovecote_codec_decode(codec, 0, 0, 1, dim, bytes, 0, 1, &to) == DOVECOTE_OK);
}

static uint64_t token_bytes(uint32_t codec, uint32_t layers, uint32_t heads, uint32_t dim) {
    dc_section section = {codec, DOVECOTE_FLOAT16, 32, {heads, dim, dim}};
    CHECK(dc_section_bytes(&section) % 4 == 0);
    return layers * dc_section_bytes(&section) / 32;
}

static void sections_have_the_documented_sizes(void) {
    CHECK(token_bytes(DOVECOTE_CODEC_EXACT, 30, 3, 64) == 23040);
    CHECK(token_bytes(DOVECOTE_CODEC_F16, 30, 3, 64) == 23040);
    CHECK(token_bytes(DOVECOTE_CODEC_Q8, 30, 3, 64) == 12240);
    CHECK(token_bytes(DOVECOTE_CODEC_K8V4, 30, 3, 64) == 9360);
    CHECK(token_bytes(DOVECOTE_CODEC_Q4, 30, 3, 64) == 6480);
    CHECK(token_bytes(DOVECOTE_CODEC_Q8, 32, 8, 128) == 69632);
    CHECK(token_bytes(DOVECOTE_CODEC_K8V4, 32, 8, 128) == 53248);
    CHECK(token_bytes(DOVECOTE_CODEC_Q4, 32, 8, 128) == 36864);
    CHECK(token_bytes(DOVECOTE_CODEC_Q4, 48, 8, 256) == 110592);
}

static void odd_shapes_have_groups_too(void) {
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_Q8, 0, 0, 1, 96, 1) == 96 + 3 * 4);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_Q8, 0, 0, 1, 80, 1) == 80 + 4);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_Q8, 0, 0, 1, 5, 1) == 8 + 4);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_Q4, 0, 0, 1, 5, 2) == 8 + 8);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_F16, 1, 0, 1, 3, 1) == 8);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_Q8, 0, 0, 1, 1030, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_EXACT, 0, 0, 1, 1030, 1) == 4120);
    CHECK(dovecote_codec_plane_bytes(DOVECOTE_CODEC_F16, 0, 0, 1, 1030, 1) == 2060);
    CHECK(dovecote_codec_plane_bytes(5, 0, 0, 1, 64, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 3, 0, 1, 64, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 2, 1, 64, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 0, 0, 64, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 0, 1, 0, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 0, 1, 64, 0) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 0, 5000, 64, 1) == 0);
    CHECK(dovecote_codec_plane_bytes(0, 0, 0, 4096, 65536, 1048576) == 1ull << 50);
}

static float amax_of(const float *in, uint32_t count) {
    float amax = 0;
    for (uint32_t i = 0; i < count; i++) {
        amax = fmaxf(amax, fabsf(in[i]));
    }
    return amax;
}

static void errors_stay_within_half_a_step(void) {
    static const uint32_t dims[] = {1, 2, 3, 5, 16, 32, 33, 48, 64, 80, 96, 128, 1024};
    float in[1024];
    float out[1024];
    for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
        for (uint32_t i = 0; i < dims[d]; i++) {
            in[i] = any_float(4.0f);
        }
        float amax = amax_of(in, dims[d]);
        through(DOVECOTE_CODEC_Q8, in, out, dims[d]);
        for (uint32_t i = 0; i < dims[d]; i++) {
            CHECK(fabsf(out[i] - in[i]) <= amax / 254.0f * 1.0001f);
        }
        through(DOVECOTE_CODEC_Q4, in, out, dims[d]);
        for (uint32_t i = 0; i < dims[d]; i++) {
            CHECK(fabsf(out[i] - in[i]) <= 2.0f * amax / 30.0f * 1.01f + amax * 0x1p-10f);
        }
        through(DOVECOTE_CODEC_EXACT, in, out, dims[d]);
        CHECK(memcmp(in, out, dims[d] * sizeof(float)) == 0);
    }
}

/* ---- special values ---- */

static void zeros_stay_positive_zeros_in_the_grouped_forms(void) {
    float in[64] = {0};
    float out[64];
    const float zeros[64] = {0};
    in[3] = -0.0f;
    for (uint32_t codec = DOVECOTE_CODEC_Q8; codec <= DOVECOTE_CODEC_Q4; codec++) {
        memset(out, 0xff, sizeof(out));
        through(codec, in, out, 64);
        CHECK(memcmp(out, zeros, sizeof(zeros)) == 0);
    }
    through(DOVECOTE_CODEC_F16, in, out, 64);
    CHECK(memcmp(out, in, sizeof(in)) == 0);
}

static void a_group_too_small_for_its_scale_becomes_zeros(void) {
    float in[64] = {0};
    float out[64];
    static const float small[] = {0x1p-149f, 0x1p-127f, 3e-37f, 0x1.fffffep-101f};
    for (size_t s = 0; s < sizeof(small) / sizeof(small[0]); s++) {
        in[7] = -small[s];
        through(DOVECOTE_CODEC_Q8, in, out, 64);
        CHECK(out[7] == 0.0f);
        through(DOVECOTE_CODEC_Q4, in, out, 64);
        CHECK(out[7] == 0.0f);
    }
    in[7] = 0x1p-100f;
    through(DOVECOTE_CODEC_Q8, in, out, 64);
    CHECK(fabsf(out[7] - in[7]) <= in[7] * 0x1p-22f);
}

static void infinities_become_the_largest_finite_magnitude(void) {
    float in[64] = {1.0f, -3.0f, INFINITY, -INFINITY};
    float out[64];
    through(DOVECOTE_CODEC_Q8, in, out, 64);
    CHECK(out[1] < -2.99f && out[1] > -3.01f && out[2] == -out[1] && out[3] == out[1]);
    through(DOVECOTE_CODEC_Q4, in, out, 64);
    CHECK(fabsf(out[2] - 3.0f) < 0.25f && fabsf(out[3] + 3.0f) < 0.25f);
    through(DOVECOTE_CODEC_F16, in, out, 64);
    CHECK(out[2] == 65504.0f && out[3] == -65504.0f);
    for (size_t i = 0; i < 64; i++) {
        in[i] = INFINITY;
    }
    through(DOVECOTE_CODEC_Q8, in, out, 64);
    CHECK(out[0] == 0.0f && out[63] == 0.0f);
    through(DOVECOTE_CODEC_EXACT, in, out, 64);
    CHECK(memcmp(in, out, sizeof(in)) == 0);
}

static void nan_becomes_zero_and_harms_no_other_value(void) {
    float in[64];
    float out[64];
    for (size_t i = 0; i < 64; i++) {
        in[i] = (float)i - 20.0f;
    }
    in[9] = NAN;
    in[10] = -NAN;
    through(DOVECOTE_CODEC_F16, in, out, 64);
    CHECK(out[9] == 0.0f && out[10] == 0.0f && out[11] == in[11]);
    through(DOVECOTE_CODEC_Q8, in, out, 64);
    CHECK(out[9] == 0.0f && out[10] == 0.0f && fabsf(out[11] - in[11]) < 0.2f);
    through(DOVECOTE_CODEC_Q4, in, out, 64);
    CHECK(fabsf(out[9]) < 2.2f && fabsf(out[11] - in[11]) < 2.2f);
    through(DOVECOTE_CODEC_EXACT, in, out, 64);
    CHECK(memcmp(in, out, sizeof(in)) == 0);
}

static void an_outlier_costs_its_own_group_only(void) {
    float in[128];
    float out[128];
    for (size_t i = 0; i < 128; i++) {
        in[i] = any_float(1.0f);
    }
    in[5] = 1.0e38f;
    through(DOVECOTE_CODEC_Q8, in, out, 128);
    CHECK(fabsf(out[5] / in[5] - 1.0f) < 1e-6f && out[6] == 0.0f);
    for (size_t i = 64; i < 128; i++) {
        CHECK(fabsf(out[i] - in[i]) < 1.0f / 253.0f);
    }
    through(DOVECOTE_CODEC_Q4, in, out, 128);
    CHECK(fabsf(out[5] - 65504.0f) < 50.0f);
    for (size_t i = 64; i < 128; i++) {
        CHECK(fabsf(out[i] - in[i]) < 0.07f);
    }
}

static void the_largest_floats_stay_finite(void) {
    float in[64] = {FLT_MAX, -FLT_MAX, 1.0f};
    float out[64];
    through(DOVECOTE_CODEC_Q8, in, out, 64);
    CHECK(fabsf(out[0] / 0x1p127f - 1.0f) < 1e-6f && out[1] == -out[0] && out[2] == 0.0f);
    through(DOVECOTE_CODEC_F16, in, out, 64);
    CHECK(out[0] == 65504.0f && out[1] == -65504.0f && out[2] == 1.0f);
}

/* ---- planes ---- */

enum { HEADS = 3, DIM = 64, CAPACITY = 40, BLOCK = 16 };

static void a_short_block_leaves_zeros_behind_it(void) {
    static float data[HEADS * CAPACITY * DIM];
    static uint8_t bytes[2 * HEADS * BLOCK * DIM * 4];
    for (size_t i = 0; i < HEADS * CAPACITY * DIM; i++) {
        data[i] = 1.0f + any_float(0.5f);
    }
    dovecote_plane plane = {data, CAPACITY * DIM * sizeof(float), CAPACITY};
    for (uint32_t codec = 0; codec <= DOVECOTE_CODEC_Q4; codec++) {
        dc_section section = {codec, DOVECOTE_FLOAT32, BLOCK, {HEADS, DIM, DIM}};
        uint64_t size = dc_section_bytes(&section);
        memset(bytes, 0xee, sizeof(bytes));
        dc_section_encode(&section, &plane, &plane, 7, 0, NULL, bytes);
        for (uint64_t i = 0; i < size; i++) {
            CHECK(bytes[i] == 0);
        }
        CHECK(size == sizeof(bytes) || bytes[size] == 0xee);
        dc_section_encode(&section, &plane, &plane, 7, 5, NULL, bytes);
        uint64_t head = dovecote_codec_plane_bytes(codec, 0, 0, 1, DIM, BLOCK);
        CHECK(bytes[0] != 0 || bytes[1] != 0);
        CHECK(codec == DOVECOTE_CODEC_Q4 || bytes[head / BLOCK * 5 + DIM / 4] == 0);
    }
}

/* Elements of any type are compared as the floats that they stand for. */
static float element(const void *data, uint32_t dtype, size_t i) {
    uint32_t bits = 0;
    uint16_t half = 0;
    float value = 0;
    if (dtype == DOVECOTE_FLOAT32) {
        return ((const float *)data)[i];
    }
    half = ((const uint16_t *)data)[i];
    if (dtype == DOVECOTE_FLOAT16) {
        return dc_float_from_half(half);
    }
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void put_element(void *data, uint32_t dtype, size_t i, float value) {
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    if (dtype == DOVECOTE_FLOAT32) {
        ((float *)data)[i] = value;
    } else if (dtype == DOVECOTE_FLOAT16) {
        ((uint16_t *)data)[i] = dc_half_from_float(value);
    } else {
        ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
    }
}

static float tolerance(uint32_t codec) {
    static const float of[] = {0.0f, 0x1p-11f, 1.1f / 254.0f, 2.2f / 30.0f, 2.2f / 30.0f};
    return of[codec] + (codec == 0 ? 0.0f : 0x1p-8f);
}

/* Positions [start, start + tokens) come back where they were, and no other byte changes. */
static void round_trip(uint32_t codec, uint32_t dtype, uint64_t start, uint32_t tokens) {
    static float source[HEADS * CAPACITY * DIM];
    static float target[HEADS * CAPACITY * DIM];
    static uint8_t bytes[HEADS * BLOCK * DIM * 4];
    size_t size = dtype == DOVECOTE_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
    memset(target, 0x55, sizeof(target));
    float untouched = element(target, dtype, 0);
    for (size_t i = 0; i < HEADS * CAPACITY * DIM; i++) {
        put_element(source, dtype, i, any_float(1.0f));
    }
    dovecote_plane from = {source, CAPACITY * DIM * size, CAPACITY};
    dovecote_plane to = {target, CAPACITY * DIM * size, CAPACITY};
    CHECK(!dovecote_codec_encode(codec, dtype, 1, HEADS, DIM, &from, start, tokens, bytes));
    CHECK(!dovecote_codec_decode(codec, dtype, 1, HEADS, DIM, bytes, start, tokens, &to));
    for (size_t i = 0; i < HEADS * CAPACITY * DIM; i++) {
        size_t position = i / DIM % CAPACITY;
        int inside = position >= start && position < start + tokens;
        float got = element(target, dtype, i);
        float want = inside ? element(source, dtype, i) : untouched;
        CHECK(fabsf(got - want) <= (inside ? tolerance(codec) : 0.0f));
    }
}

static void every_codec_and_type_fills_its_positions_only(void) {
    for (uint32_t codec = 0; codec <= DOVECOTE_CODEC_Q4; codec++) {
        for (uint32_t dtype = 0; dtype <= DOVECOTE_BFLOAT16; dtype++) {
            round_trip(codec, dtype, 0, BLOCK);
            round_trip(codec, dtype, CAPACITY - 1, 1);
            round_trip(codec, dtype, 11, 7);
        }
    }
}

static void halves_and_wider_types_agree_through_f16(void) {
    for (uint32_t bits = 0; bits <= 0xffff; bits++) {
        float value = dc_float_from_half((uint16_t)bits);
        uint16_t back = dc_half_from_float(value);
        uint16_t want = (uint16_t)bits;
        if (isnan(value)) {
            want = 0;
        } else if (isinf(value)) {
            want = (uint16_t)((bits & 0x8000u) | 0x7bffu);
        }
        CHECK(back == want);
    }
    CHECK(dc_half_from_float(65519.0f) == 0x7bff && dc_half_from_float(1e30f) == 0x7bff);
    CHECK(dc_half_from_float(1.0f + 0x1p-11f) == 0x3c00);
    CHECK(dc_half_from_float(1.0f + 3 * 0x1p-11f) == 0x3c02);
    CHECK(dc_half_from_float(0x1p-25f) == 0 && dc_half_from_float(0x1.8p-25f) == 1);
    CHECK(dc_half_from_float(0x1.ff8p-15f) == 0x3ff && dc_half_from_float(0x1.ffcp-15f) == 0x400);
}

static void arguments_are_checked(void) {
    float data[2 * 4 * DIM] = {0};
    uint8_t bytes[2 * 4 * DIM * 4];
    dovecote_plane plane = {data, 4 * DIM * sizeof(float), 4};
    dovecote_plane none = {NULL, 4 * DIM * sizeof(float), 4};
    dovecote_plane close = {data, 3 * DIM * sizeof(float), 4};
    dovecote_plane odd = {(uint8_t *)data + 1, 4 * DIM * sizeof(float), 3};
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &plane, 0, 4, bytes) == DOVECOTE_OK);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &plane, 1, 4, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &plane, UINT64_MAX, 4, bytes) ==
          DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &none, 0, 4, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, NULL, 0, 4, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &close, 0, 4, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &odd, 0, 3, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(2, 0, 0, 2, DIM, &plane, 0, 4, NULL) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_encode(9, 0, 0, 2, DIM, &plane, 0, 4, bytes) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_decode(2, 0, 0, 2, DIM, bytes, 1, 4, &plane) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_codec_decode(2, 0, 0, 2, DIM, NULL, 0, 4, &plane) == DOVECOTE_ERR_ARGUMENT);
}

int main(void) {
    for (size_t l = 0; l < LEVELS; l++) {
        if (dovecote_cpu_override(levels[l]) != DOVECOTE_OK) {
            continue;
        }
        RUN(sections_have_the_documented_sizes);
        RUN(odd_shapes_have_groups_too);
        RUN(errors_stay_within_half_a_step);
        RUN(zeros_stay_positive_zeros_in_the_grouped_forms);
        RUN(a_group_too_small_for_its_scale_becomes_zeros);
        RUN(infinities_become_the_largest_finite_magnitude);
        RUN(nan_becomes_zero_and_harms_no_other_value);
        RUN(an_outlier_costs_its_own_group_only);
        RUN(the_largest_floats_stay_finite);
        RUN(a_short_block_leaves_zeros_behind_it);
        RUN(every_codec_and_type_fills_its_positions_only);
        RUN(halves_and_wider_types_agree_through_f16);
        RUN(arguments_are_checked);
    }
    return SUMMARY();
}
