/* blas.c: a BLAS for MLX's CPU backend on Linux, as a shared library of its own.
 *
 * libmlx.so of the Linux wheel imports cblas_sgemm, cblas_dgemm and cblas_cgemm from a reference
 * BLAS that it bundles, which is some sixty times slower than OpenBLAS. This library exports the
 * same three names; loaded into the global scope before libmlx.so, it is the one that the loader
 * finds. It hands every call on to OpenBLAS (scipy-openblas32), but for one shape:
 *
 *   row-major  C[M, N] = alpha * X[M, K] * transpose(W[N, K]) + beta * C,   M <= 8
 *
 * which is what a linear layer asks for with few rows. OpenBLAS repacks all of W at every such
 * call; here each weight is streamed once, past all inputs.
 *
 *          k ->
 *   W  +---------+  tile: 4 rows of W times M rows of X, sums in registers
 *      |=========|
 *   n  |=========|  band: the tiles that a thread claims at a time
 *
 * Bands are claimed from one counter, so a worker that is late costs nothing: the caller takes its
 * bands. A worker spins briefly for the next call (a decode step makes hundreds, tens of
 * microseconds apart) and then sleeps.
 *
 * Globals: cblas has no handle, so this library has state: the OpenBLAS entry points (written once
 * by dovecote_blas_open, before anything can call), call counters, and the crew.
 *
 * B1 A worker touches crew.job only between active++ (having then seen open) and active--.
 * B2 crew.job changes only under crew.owner, with open == 0 and active == 0.
 * B3 One thread computes an element, in one order: results do not depend on the number of threads.
 * B4 No thread starts before the first call that wants one, and a forked child starts anew.
 *
 * Any thread may call. Who finds the crew busy computes alone. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blas_kernels.h"

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

/* ---- the skinny product ---- */

/* Of W, that a thread claims at a time: some 10 us. A third of it cost 5 to 15 % (more starts
 * without prefetched rows). */
#define BAND_BYTES 163840

typedef struct {
    dc_blas_job product;
    size_t band; /* rows of W */
    dc_blas_run *run;
} skinny_job;

/* NULL: no skinny kernel, everything goes to OpenBLAS. Written by open and by tests. */
static dc_blas_run *const *runs;

/* ---- the crew ---- */

#define MAX_WORKERS 63
/* A pause is 40 to 140 cycles: some 30 us, longer than most gaps between the products of a step. */
#define WORKER_SPINS 2000
#define CALLER_SPINS 2000

static struct {
    pthread_mutex_t owner; /* held while a product uses the crew */
    atomic_uint call;      /* changes with each product; what workers spin and sleep on */
    atomic_uint sleepers;
    atomic_int open;    /* bands may be claimed */
    atomic_int active;  /* workers that may be reading job */
    atomic_size_t next; /* first row of W that nobody has claimed */
    skinny_job job;
    int workers;       /* running ones; under owner */
    atomic_int wanted; /* workers: one less than the threads of a product */
} crew = {.owner = PTHREAD_MUTEX_INITIALIZER};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void claim_bands(const skinny_job *job) {
    for (;;) {
        size_t start = atomic_fetch_add(&crew.next, job->band);
        if (start >= job->product.outs) {
            return;
        }
        size_t end = start + job->band < job->product.outs ? start + job->band : job->product.outs;
        job->run(&job->product, start, end);
    }
}

/* Returns once crew.call is no longer `seen`. */
static unsigned next_call(unsigned seen) {
    for (int spins = 0; spins < WORKER_SPINS; spins++) {
        unsigned call = atomic_load(&crew.call);
        if (call != seen) {
            return call;
        }
        pause_briefly();
    }
    atomic_fetch_add(&crew.sleepers, 1);
    while (atomic_load(&crew.call) == seen) {
        (void)syscall(SYS_futex, &crew.call, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    atomic_fetch_sub(&crew.sleepers, 1);
    return atomic_load(&crew.call);
}

static void *work(void *unused) {
    (void)unused;
    for (unsigned seen = 0;;) {
        seen = next_call(seen);
        atomic_fetch_add(&crew.active, 1);
        if (atomic_load(&crew.open)) {
            claim_bands(&crew.job);
        }
        atomic_fetch_sub(&crew.active, 1);
    }
    return NULL;
}

/* Under owner. A thread that cannot be had is done without. Signals are for the program's threads.
 */
static void start_workers(void) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew.workers < atomic_load(&crew.wanted)) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, NULL) != 0) {
            atomic_store(&crew.wanted, crew.workers);
            break;
        }
        pthread_detach(thread);
        crew.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Under owner. */
static void run_with_crew(const skinny_job *job) {
    start_workers();
    crew.job = *job;
    atomic_store(&crew.next, 0);
    atomic_store(&crew.open, 1);
    atomic_fetch_add(&crew.call, 1);
    if (atomic_load(&crew.sleepers) != 0) {
        (void)syscall(SYS_futex, &crew.call, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    claim_bands(job);
    atomic_store(&crew.open, 0);
    for (int spins = 0; atomic_load(&crew.active) != 0; spins++) {
        if (spins < CALLER_SPINS) {
            pause_briefly();
        } else {
            sched_yield(); /* a worker lost its processor inside a band */
        }
    }
}

static void run_job(const skinny_job *job) {
    if (atomic_load(&crew.wanted) == 0 || job->product.outs <= job->band ||
        pthread_mutex_trylock(&crew.owner) != 0) {
        job->run(&job->product, 0, job->product.outs);
        return;
    }
    run_with_crew(job);
    pthread_mutex_unlock(&crew.owner);
}

/* The child of a fork has its parent's memory, but none of its workers (B4). */
static void forget_workers(void) {
    pthread_mutex_init(&crew.owner, NULL);
    atomic_store(&crew.call, 0);
    atomic_store(&crew.sleepers, 0);
    atomic_store(&crew.open, 0);
    atomic_store(&crew.active, 0);
    crew.workers = 0;
}

/* ---- exported ---- */

/* Whole cache lines of C, so that two threads seldom write to one; whole tiles at least. */
static size_t band_of(size_t length) {
    size_t rows = BAND_BYTES / (length * sizeof(float) + 1);
    if (rows >= 16) {
        return rows / 16 * 16;
    }
    return rows < DC_BLAS_TILE ? DC_BLAS_TILE : rows / DC_BLAS_TILE * DC_BLAS_TILE;
}

/* Returns 0, having done nothing, if the call is of another shape. */
static int multiply_skinny(int order, int trans_a, int trans_b, const dc_blas_job *product) {
    if (runs == NULL || order != ROW_MAJOR || trans_a != NO_TRANSPOSE || trans_b != TRANSPOSE ||
        product->rows == 0 || product->rows > DC_BLAS_ROWS || product->outs == 0 ||
        product->length == 0) {
        return 0;
    }
    skinny_job job = {*product, band_of(product->length), runs[product->rows - 1]};
    run_job(&job);
    atomic_fetch_add_explicit(&skinny_calls, 1, memory_order_relaxed);
    return 1;
}

EXPORT void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                        const float *a, int lda, const float *b, int ldb, float beta, float *c,
                        int ldc) {
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    int sane = m >= 0 && n >= 0 && k >= 0 && lda >= k && ldb >= k && ldc >= n;
    dc_blas_job product = {.x = a, .w = b, .c = c, .alpha = alpha, .beta = beta};
    product.rows = (size_t)m;
    product.outs = (size_t)n;
    product.length = (size_t)k;
    product.x_stride = (size_t)lda;
    product.w_stride = (size_t)ldb;
    product.c_stride = (size_t)ldc;
    if (!sane || !multiply_skinny(order, trans_a, trans_b, &product)) {
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

/* Products asked for since the library was loaded, and those that the skinny kernel answered. */
EXPORT uint64_t dovecote_blas_calls(void) {
    return atomic_load(&calls);
}

EXPORT uint64_t dovecote_blas_skinny_calls(void) {
    return atomic_load(&skinny_calls);
}

/* Threads that a product may use, the caller's included; 0 before dovecote_blas_open. */
EXPORT int dovecote_blas_threads(void) {
    return openblas.sgemm == NULL ? 0 : atomic_load(&crew.wanted) + 1;
}

/* Forces the skinny kernel "avx2" or "avx512", none ("openblas"), or the best one (NULL). For tests
 * and benchmarks: not while products run. Returns 0, or -1 if this processor lacks it. */
EXPORT int dovecote_blas_override(const char *name) {
    if (name == NULL) {
        runs = dc_blas_best_runs();
        return 0;
    }
    dc_blas_run *const *chosen = dc_blas_runs_named(name);
    if (chosen == NULL && strcmp(name, "openblas") != 0) {
        return -1;
    }
    runs = chosen;
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
    int used = threads < 1 ? 1 : threads;
    set_threads(used);
    atomic_store(&crew.wanted, used - 1 > MAX_WORKERS ? MAX_WORKERS : used - 1);
    runs = dc_blas_best_runs();
    pthread_atfork(NULL, NULL, forget_workers);
    openblas.sgemm = sgemm;
    return 0;
}
