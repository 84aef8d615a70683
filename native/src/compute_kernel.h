/* compute_kernel.h: the definition of attention and of the gate, compiled once for each width.
 *
 * Whoever includes it defines first: LANES (floats of a vector), KEYS (vectors of a tile's positions,
 * or of an output, that stay in registers), TARGET (the function attribute), FMA(a, b, c), MAX(a, b)
 * and SQUARE (queries at a time).
 *
 *              positions ->                      Of a block (96 queries at most) the queries go by
 *            +----------+----------+--           SQUARE past a tile of 64 positions. K of the tile
 *   queries  | s = q.k  |          |             is transposed first, so that a vector holds one
 *            +----------+----------+--           number of several positions; V is used in place.
 *              tile 0     tile 1                 The softmax is the running one: m is the largest
 *                                                score so far, l the sum of 2^(s - m), o the sum of
 *   2^(s - m) v; all three are scaled down when a tile brings a larger m (Milakov and Gimelshein,
 *   arXiv:1805.02867). Tiles begin at multiples of 64, whatever the chunk: C1 of compute.h.
 *
 * Only static inline functions and types: units with different TARGETs include it. */
#include <math.h>
#include <string.h>

#include "compute.h"

#define INLINE __attribute__((always_inline)) static inline
#define TILE DC_ATTEND_TILE
#define TILE_VECTORS (TILE / LANES)

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t uints __attribute__((vector_size(LANES * 4)));
typedef float floats_at __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float four __attribute__((vector_size(16)));
typedef float four_at __attribute__((vector_size(16), aligned(4), may_alias));

TARGET INLINE floats get(const float *from) {
    return *(const floats_at *)from;
}

TARGET INLINE void put(float *to, floats value) {
    *(floats_at *)to = value;
}

TARGET INLINE floats splat(float value) {
    return (floats){0} + value;
}

TARGET INLINE floats choose(ints mask, floats yes, floats no) {
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

/* 2^x for x <= 127; 0 below -126; NaN for NaN. Relative error below 2e-7. */
TARGET INLINE floats power_of_two(floats x) {
    const floats magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    floats shifted = x + magic;
    floats rest = x - (shifted - magic);
    /* 2^r on [-0.5, 0.5]: the series of exp(r log 2) to the sixth term. */
    floats sum = splat(1.5403530e-4f);
    sum = FMA(sum, rest, splat(1.3333558e-3f));
    sum = FMA(sum, rest, splat(9.6181291e-3f));
    sum = FMA(sum, rest, splat(5.5504109e-2f));
    sum = FMA(sum, rest, splat(2.4022651e-1f));
    sum = FMA(sum, rest, splat(6.9314718e-1f));
    sum = FMA(sum, rest, splat(1.0f));
    /* The integer is in the low bits of `shifted`: into the exponent with it. A product, so that
     * NaN stays NaN. */
    ints exponent = (ints)(((uints)shifted << 23) + 0x3f800000u);
    floats power = sum * (floats)exponent;
    return choose(x < splat(-126.0f), splat(0.0f), power);
}

TARGET INLINE float sum_of(floats v) {
    float lanes[LANES];
    put(lanes, v);
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            lanes[i] += lanes[i + width];
        }
    }
    return lanes[0];
}

TARGET INLINE float max_of(floats v) {
    float lanes[LANES];
    put(lanes, v);
    for (size_t width = LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++) {
            lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
        }
    }
    return lanes[0];
}

/* ---- attention ---- */

/* K of `count` positions as packed[dim][TILE]; zeros past them. */
TARGET INLINE void pack(const float *keys, size_t stride, size_t count, size_t dim, float *packed) {
    size_t whole = count / 4 * 4;
    size_t even = dim / 4 * 4;
    for (size_t j = 0; j < whole; j += 4) {
        const float *key = keys + j * stride;
        for (size_t d = 0; d < even; d += 4) {
            four a = *(const four_at *)(key + d);
            four b = *(const four_at *)(key + stride + d);
            four c = *(const four_at *)(key + 2 * stride + d);
            four e = *(const four_at *)(key + 3 * stride + d);
            four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
            four ce = __builtin_shufflevector(c, e, 0, 4, 1, 5);
            four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            four ce_high = __builtin_shufflevector(c, e, 2, 6, 3, 7);
            float *to = packed + d * TILE + j;
            *(four_at *)to = __builtin_shufflevector(ab, ce, 0, 1, 4, 5);
            *(four_at *)(to + TILE) = __builtin_shufflevector(ab, ce, 2, 3, 6, 7);
            *(four_at *)(to + 2 * TILE) = __builtin_shufflevector(ab_high, ce_high, 0, 1, 4, 5);
            *(four_at *)(to + 3 * TILE) = __builtin_shufflevector(ab_high, ce_high, 2, 3, 6, 7);
        }
        for (size_t d = even; d < dim; d++) {
            for (size_t i = 0; i < 4; i++) {
                packed[d * TILE + j + i] = key[i * stride + d];
            }
        }
    }
    for (size_t d = 0; d < dim && whole < TILE; d++) {
        for (size_t j = whole; j < TILE; j++) {
            packed[d * TILE + j] = j < count ? keys[j * stride + d] : 0.0f;
        }
    }
}

/* scores[n][TILE] of n queries [n][dim]. `n` is a constant where this is inlined. */
TARGET INLINE void score(const float *queries, size_t dim, size_t n, const float *packed,
                         float *scores) {
    for (size_t first = 0; first < TILE; first += KEYS * LANES) {
        floats sums[SQUARE][KEYS];
#pragma GCC unroll 8
        for (size_t m = 0; m < n; m++) {
#pragma GCC unroll 4
            for (size_t i = 0; i < KEYS; i++) {
                sums[m][i] = splat(0.0f);
            }
        }
        for (size_t d = 0; d < dim; d++) {
            floats keys[KEYS];
#pragma GCC unroll 4
            for (size_t i = 0; i < KEYS; i++) {
                keys[i] = get(packed + d * TILE + first + i * LANES);
            }
#pragma GCC unroll 8
            for (size_t m = 0; m < n; m++) {
                floats query = splat(queries[m * dim + d]);
#pragma GCC unroll 4
                for (size_t i = 0; i < KEYS; i++) {
                    sums[m][i] = FMA(query, keys[i], sums[m][i]);
                }
            }
        }
#pragma GCC unroll 8
        for (size_t m = 0; m < n; m++) {
#pragma GCC unroll 4
            for (size_t i = 0; i < KEYS; i++) {
                put(scores + m * TILE + first + i * LANES, sums[m][i]);
            }
        }
    }
}

/* out[n][dim] += weights[n][TILE] . V, `width` vectors of V's dim from `first` on. `n` and `width`
 * are constants where this is inlined. */
TARGET INLINE void mix_some(const float *weights, size_t n, size_t count, const float *values,
                            size_t stride, float *out, size_t dim, size_t first, size_t width) {
    floats sums[SQUARE][KEYS];
#pragma GCC unroll 8
    for (size_t m = 0; m < n; m++) {
#pragma GCC unroll 4
        for (size_t i = 0; i < width; i++) {
            sums[m][i] = get(out + m * dim + first + i * LANES);
        }
    }
    for (size_t j = 0; j < count; j++) {
        floats value[KEYS];
#pragma GCC unroll 4
        for (size_t i = 0; i < width; i++) {
            value[i] = get(values + j * stride + first + i * LANES);
        }
#pragma GCC unroll 8
        for (size_t m = 0; m < n; m++) {
            floats weight = splat(weights[m * TILE + j]);
#pragma GCC unroll 4
            for (size_t i = 0; i < width; i++) {
                sums[m][i] = FMA(weight, value[i], sums[m][i]);
            }
        }
    }
#pragma GCC unroll 8
    for (size_t m = 0; m < n; m++) {
#pragma GCC unroll 4
        for (size_t i = 0; i < width; i++) {
            put(out + m * dim + first + i * LANES, sums[m][i]);
        }
    }
}

TARGET INLINE void mix(const float *weights, size_t n, size_t count, const float *values,
                       size_t stride, float *out, size_t dim) {
    size_t first = 0;
    for (; first + KEYS * LANES <= dim; first += KEYS * LANES) {
        mix_some(weights, n, count, values, stride, out, dim, first, KEYS);
    }
    for (; first + LANES <= dim; first += LANES) {
        mix_some(weights, n, count, values, stride, out, dim, first, 1);
    }
    for (; first < dim; first++) {
        for (size_t m = 0; m < n; m++) {
            float sum = out[m * dim + first];
            for (size_t j = 0; j < count; j++) {
                sum += weights[m * TILE + j] * values[j * stride + first];
            }
            out[m * dim + first] = sum;
        }
    }
}

/* The running softmax of one query: scores become weights; positions from `limit` on get none. */
TARGET INLINE void weigh(float *scores, size_t limit, float *most, float *total, float *out,
                         size_t dim) {
    floats s[TILE_VECTORS];
    floats best = splat(-INFINITY);
    ints lane;
    for (int i = 0; i < LANES; i++) {
        lane[i] = i;
    }
    for (size_t i = 0; i < TILE_VECTORS; i++) {
        s[i] = get(scores + i * LANES);
        if (limit < (i + 1) * LANES) {
            s[i] = choose(lane + (int)(i * LANES) < (int)limit, s[i], splat(-INFINITY));
        }
        best = MAX(s[i], best);
    }
    float highest = max_of(best);
    if (highest > *most) {
        float less = power_of_two(splat(*most - highest))[0];
        *most = highest;
        *total *= less;
        for (size_t d = 0; d < dim; d++) {
            out[d] *= less;
        }
    }
    floats sum = splat(0.0f);
    for (size_t i = 0; i < TILE_VECTORS; i++) {
        floats weight = power_of_two(s[i] - *most);
        put(scores + i * LANES, weight);
        sum += weight;
    }
    *total += sum_of(sum);
}

/* `n` queries past one tile. `limits[m]`: how many of its positions query m sees. */
#define CASE(N)                                                                             \
    case N:                                                                                 \
        score(queries, k_dim, N, packed, scores);                                           \
        for (size_t m = 0; m < N; m++) {                                                    \
            see(scores + m * TILE, limits[m], most + m, total + m, out + m * v_dim, v_dim); \
        }                                                                                   \
        mix(scores, N, limits[N - 1], values, stride, out, v_dim);                          \
        return;

TARGET INLINE void see(float *scores, size_t limit, float *most, float *total, float *out,
                       size_t dim) {
    if (limit == 0) {
        memset(scores, 0, TILE * sizeof(float));
    } else {
        weigh(scores, limit, most, total, out, dim);
    }
}

TARGET static void pass(const float *queries, size_t k_dim, size_t n, const size_t *limits,
                        const float *packed, const float *values, size_t stride, size_t v_dim,
                        float *most, float *total, float *out) {
    float scores[SQUARE * TILE];
    switch (n) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if SQUARE > 4
        CASE(5)
        CASE(6)
#endif
    default:
        return;
    }
}

/* What a block keeps while positions go by: query (token, head in group) is token-major. */
typedef struct {
    float queries[DC_ATTEND_QUERIES * DC_ATTEND_TILE];
    float out[DC_ATTEND_QUERIES * DC_ATTEND_TILE];
    float most[DC_ATTEND_QUERIES];
    float total[DC_ATTEND_QUERIES];
    float packed[DC_ATTEND_MAX_DIM * DC_ATTEND_TILE];
} scratch;

TARGET static void attend(const dc_attend_block *block) {
    const dc_attention *a = block->attention;
    size_t group = a->heads / a->kv_heads;
    size_t count = (block->end - block->start) * group;
    size_t offset = (size_t)a->offsets[block->row];
    /* Scores are powers of two: log2(e) goes into the queries, with the scale. */
    float scale = a->scale * 1.44269504088896340736f;
    scratch kept;
    for (size_t q = 0; q < count; q++) {
        const float *query = a->queries.data + block->row * a->queries.row +
                             (block->kv_head * group + q % group) * a->queries.head +
                             (block->start + q / group) * a->queries.token;
        for (size_t d = 0; d < a->k_dim; d++) {
            kept.queries[q * a->k_dim + d] = query[d] * scale;
        }
        kept.most[q] = -INFINITY;
        kept.total[q] = 0.0f;
    }
    memset(kept.out, 0, count * a->v_dim * sizeof(float));

    size_t row = a->first_row + block->row;
    const float *keys =
        a->key_plane.data + row * a->key_plane.row + block->kv_head * a->key_plane.head;
    const float *values =
        a->value_plane.data + row * a->value_plane.row + block->kv_head * a->value_plane.head;
    size_t seen = offset + block->end;
    for (size_t first = 0; first < seen; first += TILE) {
        size_t here = seen - first < TILE ? seen - first : TILE;
        pack(keys + first * a->key_plane.token, a->key_plane.token, here, a->k_dim, kept.packed);
        for (size_t q = 0; q < count; q += SQUARE) {
            size_t n = count - q < SQUARE ? count - q : SQUARE;
            size_t limits[SQUARE];
            for (size_t m = 0; m < n; m++) {
                size_t visible = offset + block->start + (q + m) / group + 1;
                size_t ahead = visible > first ? visible - first : 0;
                limits[m] = ahead < TILE ? ahead : TILE;
            }
            if (limits[n - 1] == 0) {
                continue;
            }
            pass(kept.queries + q * a->k_dim, a->k_dim, n, limits, kept.packed,
                 values + first * a->value_plane.token, a->value_plane.token, a->v_dim,
                 kept.most + q, kept.total + q, kept.out + q * a->v_dim);
        }
    }

    for (size_t q = 0; q < count; q++) {
        float *out = a->out.data + block->row * a->out.row +
                     (block->kv_head * group + q % group) * a->out.head +
                     (block->start + q / group) * a->out.token;
        for (size_t d = 0; d < a->v_dim; d++) {
            out[d] = kept.out[q * a->v_dim + d] / kept.total[q];
        }
    }
}

/* ---- the gate ---- */

TARGET INLINE floats gated(floats gate, floats up) {
    floats x = gate * splat(-1.44269504088896340736f);
    x = choose(x > splat(126.0f), splat(126.0f), x);
    return gate / (splat(1.0f) + power_of_two(x)) * up;
}

TARGET static void swiglu(const float *gate, const float *up, float *out, size_t count) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        put(out + i, gated(get(gate + i), get(up + i)));
    }
    if (i < count) {
        float gates[LANES] = {0};
        float ups[LANES] = {0};
        memcpy(gates, gate + i, (count - i) * sizeof(float));
        memcpy(ups, up + i, (count - i) * sizeof(float));
        put(gates, gated(get(gates), get(ups)));
        memcpy(out + i, gates, (count - i) * sizeof(float));
    }
}
