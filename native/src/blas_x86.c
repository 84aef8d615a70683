/* blas_x86.c: the skinny product with AVX2 and with AVX-512.
 *
 * A tile is DC_BLAS_TILE rows of W times some rows of X; all its sums stay in registers while k
 * runs. Each sum adds its products in one order, whatever the tile, the band or the thread (B3 of
 * blas.c). No state. Rows are read with masks, so that nothing past their end is touched. */
#include "blas_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <stdint.h>
#include <string.h>

#define TARGET_256 __attribute__((target("avx2,fma")))
#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define INLINE __attribute__((always_inline)) static inline

/* Stores `count` sums of one row of C, which is not read where beta is 0: it may hold NaN. */
static inline void put(const dc_blas_job *job, size_t row, size_t out, const float *sums,
                       size_t count) {
    float *c = job->c + row * job->c_stride + out;
    float alpha = job->alpha;
    float beta = job->beta;
    for (size_t i = 0; i < count; i++) {
        c[i] = beta == 0.0f ? alpha * sums[i] : alpha * sums[i] + beta * c[i];
    }
}

/* The hardware's prefetchers lose each row at its end and at each page: asking for the next tile's
 * line takes a single thread from 12 to 27 GB/s. Prefetching past the end of W is harmless. */
INLINE void fetch_ahead(const float *weights, size_t row) {
    if (row == 0) { /* a second pass finds them fetched */
        __builtin_prefetch(weights);
    }
}

TARGET_512 INLINE __mmask16 lanes_512(size_t left) {
    return (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1u);
}

/* Adds up each of four registers: lane i of the result is the sum of v[i]. */
TARGET_256 INLINE __m128 sums_256(const __m256 *v) {
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

TARGET_512 INLINE __m128 sums_512(const __m512 *v) {
    __m256 half[DC_BLAS_TILE];
#pragma GCC unroll 4
    for (size_t t = 0; t < DC_BLAS_TILE; t++) {
        half[t] = _mm256_add_ps(_mm512_castps512_ps256(v[t]), _mm512_extractf32x8_ps(v[t], 1));
    }
    return sums_256(half);
}

/* `tile` rows of W from `out` on, times rows [row, row + rows) of X. `tile` and `rows` are
 * constants where this is inlined, so that the sums live in registers. */
TARGET_512 INLINE void tile_512(const dc_blas_job *job, size_t out, size_t tile, size_t row,
                                size_t rows) {
    const float *w = job->w + out * job->w_stride;
    const float *x = job->x + row * job->x_stride;
    size_t w_stride = job->w_stride;
    size_t x_stride = job->x_stride;
    __m512 sums[6][DC_BLAS_TILE];
#pragma GCC unroll 6
    for (size_t m = 0; m < rows; m++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < DC_BLAS_TILE; t++) {
            sums[m][t] = _mm512_setzero_ps();
        }
    }
    for (size_t k = 0; k < job->length; k += 16) {
        __mmask16 some = lanes_512(job->length - k);
        __m512 weights[DC_BLAS_TILE];
#pragma GCC unroll 4
        for (size_t t = 0; t < tile; t++) {
            weights[t] = _mm512_maskz_loadu_ps(some, w + t * w_stride + k);
            fetch_ahead(w + (t + DC_BLAS_TILE) * w_stride + k, row);
        }
#pragma GCC unroll 6
        for (size_t m = 0; m < rows; m++) {
            __m512 inputs = _mm512_maskz_loadu_ps(some, x + m * x_stride + k);
#pragma GCC unroll 4
            for (size_t t = 0; t < tile; t++) {
                sums[m][t] = _mm512_fmadd_ps(weights[t], inputs, sums[m][t]);
            }
        }
    }
#pragma GCC unroll 6
    for (size_t m = 0; m < rows; m++) {
        float four[DC_BLAS_TILE];
        _mm_storeu_ps(four, sums_512(sums[m]));
        put(job, row + m, out, four, tile);
    }
}

TARGET_256 INLINE __m256i lanes_256(size_t left) {
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(left < 8 ? left : 8)), index);
}

TARGET_256 INLINE void tile_256(const dc_blas_job *job, size_t out, size_t tile, size_t row,
                                size_t rows) {
    const float *w = job->w + out * job->w_stride;
    const float *x = job->x + row * job->x_stride;
    size_t w_stride = job->w_stride;
    size_t x_stride = job->x_stride;
    __m256 sums[2][DC_BLAS_TILE];
#pragma GCC unroll 2
    for (size_t m = 0; m < rows; m++) {
#pragma GCC unroll 4
        for (size_t t = 0; t < DC_BLAS_TILE; t++) {
            sums[m][t] = _mm256_setzero_ps();
        }
    }
    for (size_t k = 0; k < job->length; k += 8) {
        __m256i some = lanes_256(job->length - k);
        __m256 weights[DC_BLAS_TILE];
#pragma GCC unroll 4
        for (size_t t = 0; t < tile; t++) {
            weights[t] = _mm256_maskload_ps(w + t * w_stride + k, some);
            fetch_ahead(w + (t + DC_BLAS_TILE) * w_stride + k, row);
        }
#pragma GCC unroll 2
        for (size_t m = 0; m < rows; m++) {
            __m256 inputs = _mm256_maskload_ps(x + m * x_stride + k, some);
#pragma GCC unroll 4
            for (size_t t = 0; t < tile; t++) {
                sums[m][t] = _mm256_fmadd_ps(weights[t], inputs, sums[m][t]);
            }
        }
    }
#pragma GCC unroll 2
    for (size_t m = 0; m < rows; m++) {
        float four[DC_BLAS_TILE];
        _mm_storeu_ps(four, sums_256(sums[m]));
        put(job, row + m, out, four, tile);
    }
}

/* One function for each number of inputs. They pass FIRST and then SECOND at a time: the sums, four
 * weights and an input fit 32 (16) registers, and the second pass finds the weights in the cache.
 */
#define DEFINE_RUN(NAME, TARGET, TILE_FN, ROWS, FIRST, SECOND)                  \
    TARGET static void NAME(const dc_blas_job *job, size_t start, size_t end) { \
        for (; start + DC_BLAS_TILE <= end; start += DC_BLAS_TILE) {            \
            size_t row = 0;                                                     \
            for (; row + FIRST <= ROWS; row += FIRST) {                         \
                TILE_FN(job, start, DC_BLAS_TILE, row, FIRST);                  \
            }                                                                   \
            if (SECOND > 0) {                                                   \
                TILE_FN(job, start, DC_BLAS_TILE, row, SECOND);                 \
            }                                                                   \
        }                                                                       \
        for (; start < end; start++) {                                          \
            for (size_t row = 0; row < ROWS; row++) {                           \
                TILE_FN(job, start, 1, row, 1);                                 \
            }                                                                   \
        }                                                                       \
    }

DEFINE_RUN(run_512_1, TARGET_512, tile_512, 1, 1, 0)
DEFINE_RUN(run_512_2, TARGET_512, tile_512, 2, 2, 0)
DEFINE_RUN(run_512_3, TARGET_512, tile_512, 3, 3, 0)
DEFINE_RUN(run_512_4, TARGET_512, tile_512, 4, 4, 0)
DEFINE_RUN(run_512_5, TARGET_512, tile_512, 5, 5, 0)
DEFINE_RUN(run_512_6, TARGET_512, tile_512, 6, 6, 0)
DEFINE_RUN(run_512_7, TARGET_512, tile_512, 7, 4, 3)
DEFINE_RUN(run_512_8, TARGET_512, tile_512, 8, 4, 0)
DEFINE_RUN(run_256_1, TARGET_256, tile_256, 1, 1, 0)
DEFINE_RUN(run_256_2, TARGET_256, tile_256, 2, 2, 0)
DEFINE_RUN(run_256_3, TARGET_256, tile_256, 3, 2, 1)
DEFINE_RUN(run_256_4, TARGET_256, tile_256, 4, 2, 0)
DEFINE_RUN(run_256_5, TARGET_256, tile_256, 5, 2, 1)
DEFINE_RUN(run_256_6, TARGET_256, tile_256, 6, 2, 0)
DEFINE_RUN(run_256_7, TARGET_256, tile_256, 7, 2, 1)
DEFINE_RUN(run_256_8, TARGET_256, tile_256, 8, 2, 0)

/* More inputs than that go FIRST at a time past a tile, whose weights stay in the nearest cache;
 * and BLOCK at a time past the whole band, so that they stay in the next one. What is left of them
 * goes as if it were alone. */
#define BLOCK 48
#define DEFINE_MANY(NAME, FEW, TARGET, TILE_FN, FIRST)                          \
    TARGET static void NAME(const dc_blas_job *job, size_t start, size_t end) { \
        size_t whole = job->rows / FIRST * FIRST;                               \
        size_t tiled = start + (end - start) / DC_BLAS_TILE * DC_BLAS_TILE;     \
        for (size_t block = 0; block < whole; block += BLOCK) {                 \
            size_t last = whole - block < BLOCK ? whole : block + BLOCK;        \
            for (size_t out = start; out < tiled; out += DC_BLAS_TILE) {        \
                for (size_t row = block; row < last; row += FIRST) {            \
                    TILE_FN(job, out, DC_BLAS_TILE, row, FIRST);                \
                }                                                               \
            }                                                                   \
        }                                                                       \
        for (size_t out = tiled; out < end; out++) {                            \
            for (size_t row = 0; row < whole; row++) {                          \
                TILE_FN(job, out, 1, row, 1);                                   \
            }                                                                   \
        }                                                                       \
        if (whole < job->rows) {                                                \
            dc_blas_job rest = *job;                                            \
            rest.rows -= whole;                                                 \
            rest.x += whole * job->x_stride;                                    \
            rest.c += whole * job->c_stride;                                    \
            FEW[rest.rows - 1](&rest, start, end);                              \
        }                                                                       \
    }

#define FEW(BITS)                                                    \
    {run_##BITS##_1, run_##BITS##_2, run_##BITS##_3, run_##BITS##_4, \
     run_##BITS##_5, run_##BITS##_6, run_##BITS##_7, run_##BITS##_8}

static dc_blas_run *const few_512[] = FEW(512);
static dc_blas_run *const few_256[] = FEW(256);

DEFINE_MANY(run_512_many, few_512, TARGET_512, tile_512, 6)
DEFINE_MANY(run_256_many, few_256, TARGET_256, tile_256, 2)

/* One thread, GFLOP/s at 16, 64 and 512 rows: these 155, 190, 185 and 68, 71, 38; OpenBLAS with
 * AVX-512 95, 170, 210, and with AVX2 73, 103, 113. */
static const dc_blas_kernel kernel_512 = {"avx512", FEW(512), run_512_many, SIZE_MAX};
static const dc_blas_kernel kernel_256 = {"avx2", FEW(256), run_256_many, 12};

const dc_blas_kernel *dc_blas_best_kernel(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return &kernel_512;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernel_256 : NULL;
}

const dc_blas_kernel *dc_blas_kernel_named(const char *name) {
    const dc_blas_kernel *best = dc_blas_best_kernel();
    if (strcmp(name, "avx2") == 0 && best != NULL) {
        return &kernel_256;
    }
    return strcmp(name, "avx512") == 0 && best == &kernel_512 ? &kernel_512 : NULL;
}

#else

const dc_blas_kernel *dc_blas_best_kernel(void) {
    return NULL;
}

const dc_blas_kernel *dc_blas_kernel_named(const char *name) {
    (void)name;
    return NULL;
}

#endif
