/* compute_avx2.c: attention and the gate on vectors of eight. */
#include "compute.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define LANES 8
#define KEYS 2
#define SQUARE 6
#define TARGET __attribute__((target("avx2,fma")))
#define FMA(a, b, c) ((floats)_mm256_fmadd_ps((a), (b), (c)))
#define MAX(a, b) ((floats)_mm256_max_ps((a), (b)))
#include "compute_kernel.h"

static const dc_compute_twin twin = {"avx2", attend, swiglu};

const dc_compute_twin *dc_compute_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &twin : NULL;
}

#else

const dc_compute_twin *dc_compute_avx2(void) {
    return NULL;
}

#endif
