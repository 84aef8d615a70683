/* blas_kernels.h: between blas.c, which shares the skinny product out, and its kernels.
 *
 * C[rows, outs] = alpha * X[rows, length] * transpose(W[outs, length]) + beta * C, row-major,
 * strides in elements. C is not read where beta is 0: it may hold NaN. */
#ifndef DC_BLAS_KERNELS_H
#define DC_BLAS_KERNELS_H

#include <stddef.h>

#define DC_BLAS_ROWS 8 /* rows of X at most */
#define DC_BLAS_TILE 4 /* rows of W at a time */

typedef struct {
    const float *x;
    const float *w;
    float *c;
    size_t rows;
    size_t outs;
    size_t length;
    size_t x_stride;
    size_t w_stride;
    size_t c_stride;
    float alpha;
    float beta;
} dc_blas_job;

/* Computes the columns [start, end) of C. */
typedef void dc_blas_run(const dc_blas_job *job, size_t start, size_t end);

/* DC_BLAS_ROWS functions, for 1, 2, ... rows of X: the best ones, or "avx2" or "avx512". NULL if
 * this processor has none. */
dc_blas_run *const *dc_blas_best_runs(void);
dc_blas_run *const *dc_blas_runs_named(const char *name);

#endif
