/* blas.c: a BLAS for MLX's CPU backend on Linux, as a shared library of its own.
 *
 * libmlx.so of the Linux wheel imports cblas_sgemm, cblas_dgemm and cblas_cgemm from a reference
 * BLAS that it bundles, which is some sixty times slower than OpenBLAS. This library exports the
 * same three names; loaded into the global scope before libmlx.so, it is the one that the loader
 * finds. Double and complex products go to OpenBLAS (scipy-openblas32) as they are. A row-major
 *
 *   C[M, N] = alpha * X[M, K] * op(W) + beta * C
 *
 * in float32 is cut into bands of columns of C, and the crew (crew.h) computes them:
 *
 *          k ->
 *   W  +---------+  op(W) = transpose(W[N, K]), as a linear layer asks for: our own kernel, which
 *      |=========|  streams each row of W once, past all inputs. OpenBLAS repacks all of W at every
 *   n  |=========|  call, and its sums depend on M. With AVX2 this is so for few rows only.
 *      |---------|  Otherwise: a call of OpenBLAS for each band.
 *
 * OpenBLAS itself runs on one thread. Its own threads spin while they wait for one another, and with
 * a second busy process on the machine they wait for a thread that does not run.
 *
 * Globals: cblas has no handle, so this library has state: the OpenBLAS entry points (written once
 * by dovecote_blas_open, before anything can call) and call counters.
 *
 * One thread computes an element, in one order, and bands do not depend on the number of threads:
 * neither do results.
 *
 * Any thread may call. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "blas_kernels.h"
#include "crew.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- OpenBLAS ---- */

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 }; /* as cblas.h numbers them */

typedef void sgemm_fn(int, int, int, int, int, int, float, const float *, int, const float *, int,
                      float, float *, int);
typedef void dgemm_fn(int, int, int, int, int, int, double, const double *, int, const double *,
                      int, double, double *, int);
typedef void cgemm_fn(int, int, int, int, int, int, const void *, const void *, int, const void *,
                      int, const void *, void *, int);
typedef void set_threads_fn(int);

static struct {
    sgemm_fn *sgemm;
    dgemm_fn *dgemm;
    cgemm_fn *cgemm;
} openblas;

static atomic_uint_fast64_t calls;
static atomic_uint_fast64_t skinny_calls;

/* ---- the product of a linear layer ---- */

/* Of W, that a thread claims at a time: some 10 us. A third of it cost 5 to 15 % (more starts
 * without prefetched rows). */
#define BAND_BYTES 163840

typedef struct {
    dc_blas_job product;
    dc_blas_run *run;
} linear_job;

/* NULL: everything goes to OpenBLAS. Written by open and by tests. */
static const dc_blas_kernel *kernel;

static void run_linear(const void *job, size_t start, size_t end) {
    const linear_job *linear = job;
    linear->run(&linear->product, start, end);
}

/* Whole cache lines of C, so that two threads seldom write to one; whole tiles at least. */
static size_t band_of(size_t length) {
    size_t rows = BAND_BYTES / (length * sizeof(float) + 1);
    if (rows >= 16) {
        return rows / 16 * 16;
    }
    return rows < DC_BLAS_TILE ? DC_BLAS_TILE : rows / DC_BLAS_TILE * DC_BLAS_TILE;
}

/* Returns 0, having done nothing, if the call is of another shape. */
static int multiply_linear(int order, int trans_a, int trans_b, const dc_blas_job *product) {
    if (kernel == NULL || order != ROW_MAJOR || trans_a != NO_TRANSPOSE || trans_b != TRANSPOSE ||
        product->rows == 0 || product->rows > kernel->most_rows || product->outs == 0 ||
        product->length == 0) {
        return 0;
    }
    size_t rows = product->rows;
    linear_job job = {*product, rows <= DC_BLAS_FEW ? kernel->few[rows - 1] : kernel->many};
    dc_crew_run(run_linear, &job, product->outs, band_of(product->length));
    atomic_fetch_add_explicit(&skinny_calls, 1, memory_order_relaxed);
    return 1;
}

/* ---- any other product ---- */

/* A product's columns in six bands, so that threads end together; but OpenBLAS packs X once a band:
 * 96 columns cost 5 to 10 %, 256 cost 3. */
#define WIDE_BANDS 6
#define LEAST_BAND 96
#define MOST_BAND 384
/* Products with less work than that are not worth waking anybody: some 20 us. */
#define WIDE_LEAST (1u << 21)

typedef struct {
    dc_blas_job product;
    int trans_a;
    int trans_b;
    size_t band;
} wide_job;

static size_t wide_band_of(size_t columns) {
    size_t band = columns / WIDE_BANDS / 32 * 32;
    if (band < LEAST_BAND) {
        return LEAST_BAND;
    }
    return band < MOST_BAND ? band : MOST_BAND;
}

static void run_wide(const void *job, size_t start, size_t end) {
    const wide_job *wide = job;
    const dc_blas_job *p = &wide->product;
    for (size_t n = start; n < end; n += wide->band) {
        size_t columns = end - n < wide->band ? end - n : wide->band;
        const float *w = p->w + (wide->trans_b == TRANSPOSE ? n * p->w_stride : n);
        openblas.sgemm(ROW_MAJOR, wide->trans_a, wide->trans_b, (int)p->rows, (int)columns,
                       (int)p->length, p->alpha, p->x, (int)p->x_stride, w, (int)p->w_stride,
                       p->beta, p->c + n, (int)p->c_stride);
    }
}

/* Returns 0, having done nothing, if the call is too small or not understood. */
static int multiply_wide(int order, int trans_a, int trans_b, const dc_blas_job *product) {
    int known = (trans_a == NO_TRANSPOSE || trans_a == TRANSPOSE) &&
                (trans_b == NO_TRANSPOSE || trans_b == TRANSPOSE);
    if (order != ROW_MAJOR || !known ||
        (double)product->rows * (double)product->outs * (double)product->length < WIDE_LEAST) {
        return 0;
    }
    wide_job job = {*product, trans_a, trans_b, wide_band_of(product->outs)};
    dc_crew_run(run_wide, &job, product->outs, job.band);
    return 1;
}

/* ---- exported ---- */

EXPORT void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                        const float *a, int lda, const float *b, int ldb, float beta, float *c,
                        int ldc) {
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    int positive = m > 0 && n > 0 && k > 0 && lda > 0 && ldb > 0 && ldc >= n;
    int plain = positive && lda >= k && ldb >= k;
    dc_blas_job product = {.x = a, .w = b, .c = c, .alpha = alpha, .beta = beta};
    product.rows = (size_t)m;
    product.outs = (size_t)n;
    product.length = (size_t)k;
    product.x_stride = (size_t)lda;
    product.w_stride = (size_t)ldb;
    product.c_stride = (size_t)ldc;
    if (!(plain && multiply_linear(order, trans_a, trans_b, &product)) &&
        !(positive && multiply_wide(order, trans_a, trans_b, &product))) {
        openblas.sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    }
}

EXPORT void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
                        const double *a, int lda, const double *b, int ldb, double beta, double *c,
                        int ldc) {
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    openblas.dgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

EXPORT void cblas_cgemm(int order, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
                        const void *a, int lda, const void *b, int ldb, const void *beta, void *c,
                        int ldc) {
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    openblas.cgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Products asked for since the library was loaded, and those that our own kernel answered. */
EXPORT uint64_t dovecote_blas_calls(void) {
    return atomic_load(&calls);
}

EXPORT uint64_t dovecote_blas_skinny_calls(void) {
    return atomic_load(&skinny_calls);
}

/* Threads that a product may use, the caller's included; 0 before dovecote_blas_open. */
EXPORT int dovecote_blas_threads(void) {
    return openblas.sgemm == NULL ? 0 : dc_crew_threads();
}

/* Forces the kernel "avx2" or "avx512", none ("openblas"), or the best one (NULL). For tests
 * and benchmarks: not while products run. Returns 0, or -1 if this processor lacks it. */
EXPORT int dovecote_blas_override(const char *name) {
    const dc_blas_kernel *chosen =
        name == NULL ? dc_blas_best_kernel() : dc_blas_kernel_named(name);
    if (name != NULL && chosen == NULL && strcmp(name, "openblas") != 0) {
        return -1;
    }
    kernel = chosen;
    return 0;
}

/* ISO C has no conversion from an object pointer to a function pointer; POSIX promises this one. */
static int find(void *library, const char *name, void *pointer) {
    void *symbol = dlsym(library, name);
    memcpy(pointer, &symbol, sizeof(symbol));
    return symbol != NULL;
}

/* Loads OpenBLAS from `openblas_path` and uses `threads` threads, the caller's included. To be
 * called once, before anything can call the names above (load this library into the global scope
 * after it). Returns 0; -1 if the library cannot be loaded; -2 if it lacks a name. Later calls
 * change nothing. */
EXPORT int dovecote_blas_open(const char *openblas_path, int threads) {
    static const char *const names[] = {"scipy_cblas_sgemm", "scipy_cblas_dgemm",
                                        "scipy_cblas_cgemm", "scipy_openblas_set_num_threads"};
    if (openblas.sgemm != NULL) {
        return 0;
    }
    void *library = dlopen(openblas_path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return -1;
    }
    sgemm_fn *sgemm = NULL;
    set_threads_fn *set_threads = NULL;
    if (!find(library, names[0], &sgemm) || !find(library, names[1], &openblas.dgemm) ||
        !find(library, names[2], &openblas.cgemm) || !find(library, names[3], &set_threads)) {
        dlclose(library);
        return -2;
    }
    set_threads(1);
    dc_crew_set_threads(threads);
    kernel = dc_blas_best_kernel();
    openblas.sgemm = sgemm;
    return 0;
}
