/* compute_avx512.c: attention and the gate on vectors of sixteen. */
#include "compute.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define LANES 16
#define KEYS 4
#define SQUARE 6
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define FMA(a, b, c) ((floats)_mm512_fmadd_ps((a), (b), (c)))
#define MAX(a, b) ((floats)_mm512_max_ps((a), (b)))
#include "compute_kernel.h"

static const dc_compute_twin twin = {"avx512", attend, swiglu};

const dc_compute_twin *dc_compute_avx512(void) {
    __builtin_cpu_init();
    int all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return all ? &twin : NULL;
}

#else

const dc_compute_twin *dc_compute_avx512(void) {
    return NULL;
}

#endif
