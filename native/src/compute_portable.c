/* compute_portable.c: attention and the gate on vectors of four, which every processor has, with
 * products and sums rounded apart: the definition that the twins are tested against. */
#define LANES 4
#define KEYS 2
#define SQUARE 4
#define TARGET
#define FMA(a, b, c) ((a) * (b) + (c))
#define MAX(a, b) choose((a) > (b), (a), (b))
#include "compute_kernel.h"

const dc_compute_twin dc_compute_portable = {"portable", attend, swiglu};
