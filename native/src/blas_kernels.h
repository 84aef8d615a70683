/* blas_kernels.h: between blas.c, which shares the skinny product out, and its kernels.
 *
 * C[rows, outs] = alpha * X[rows, length] * transpose(W[outs, length]) + beta * C, row-major,
 * strides in elements. C is not read where beta is 0: it may hold NaN. */
#ifndef DC_BLAS_KERNELS_H
#define DC_BLAS_KERNELS_H

#include <stddef.h>

#define DC_BLAS_FEW 8  /* rows of X that have functions of their own */
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

/* An element's sum is added up in one order, whatever function, tile or number of rows. */
typedef struct {
    const char *name;
    dc_blas_run *few[DC_BLAS_FEW]; /* for 1, 2, ... rows of X */
    dc_blas_run *many;             /* for more */
    size_t most_rows;              /* from here on OpenBLAS is faster */
} dc_blas_kernel;

/* The best one, or "avx2" or "avx512". NULL if this processor has none, or not that one. */
const dc_blas_kernel *dc_blas_best_kernel(void);
const dc_blas_kernel *dc_blas_kernel_named(const char *name);

#endif
