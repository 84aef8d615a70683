/* compute.h: what a transformer's layer needs beside matrix products, for float32 on a CPU.
 *
 * Exported by the same library as the BLAS (setup.py), which is loaded with ctypes: attention over K
 * and V that stay where they are, and the gate of a gated feed-forward. MLX computes exponentials
 * one at a time, 12 to 15 ns each; attention over 1,800 positions is little else.
 *
 * C1 What a query's result is depends on its own numbers, K and V and its position: neither on the
 *    other queries of a call, nor on how many there are, nor on threads. So a chunk's boundaries and
 *    a batch's rows change no bit.
 * C2 NaN and infinity come out as NaN or infinity.
 * C3 Nothing is allocated and no state kept. The caller owns everything, and nothing is read or
 *    written after the return.
 *
 * Any thread; two calls may run at once if neither writes what the other touches. */
#ifndef DC_COMPUTE_H
#define DC_COMPUTE_H

#include <stddef.h>
#include <stdint.h>

#define DC_ATTEND_MAX_DIM 256

/* A 4-d array of floats [rows, heads, tokens, dim], dim without gaps; strides in elements. */
typedef struct {
    float *data;
    size_t row;
    size_t head;
    size_t token;
} dc_heads;

/* softmax(scale * q . k) v for each query, over the positions up to its own.
 *
 * In row r (of `rows`) the `tokens` new tokens stand at the positions [offsets[r], offsets[r] +
 * tokens). Their K and V (`keys`, `values`) are first copied to these positions of row
 * `first_row + r` of the planes; then query t sees the positions [0, offsets[r] + t]. Query head h
 * sees the kv head h / (heads / kv_heads). */
typedef struct {
    dc_heads queries; /* [rows, heads, tokens, k_dim] */
    dc_heads keys;    /* [rows, kv_heads, tokens, k_dim] */
    dc_heads values;  /* [rows, kv_heads, tokens, v_dim] */
    dc_heads key_plane;
    dc_heads value_plane;
    dc_heads out; /* [rows, heads, tokens, v_dim]; overlaps nothing else */
    const int64_t *offsets;
    size_t rows;
    size_t heads;
    size_t kv_heads; /* divides heads */
    size_t tokens;
    size_t k_dim;
    size_t v_dim;
    size_t first_row;
    size_t capacity; /* positions of a plane's row */
    float scale;
} dc_attention;

/* Returns 0; -1 if a shape is not possible (nothing was written): a size of 0, a dim beyond
 * DC_ATTEND_MAX_DIM, heads that kv_heads does not divide, a token past the capacity. */
int dovecote_attend(const dc_attention *attention);

/* out[i] = gate[i] / (1 + exp(-gate[i])) * up[i] for i in [0, count). */
void dovecote_swiglu(const float *gate, const float *up, float *out, size_t count);

/* Forces "portable", "avx2" or "avx512", or the best one (NULL). For tests: not while anything
 * runs. Returns 0, or -1 if this processor lacks it. */
int dovecote_compute_override(const char *name);

/* ---- between compute.c, which shares the work out, and its twins ---- */

/* Queries of one kv head that go past K and V together, and positions at a time. */
#define DC_ATTEND_QUERIES 96
#define DC_ATTEND_TILE 64

/* A block of tokens of one row and one kv head. */
typedef struct {
    const dc_attention *attention;
    size_t row;
    size_t kv_head;
    size_t start; /* tokens [start, end) */
    size_t end;
} dc_attend_block;

typedef struct {
    const char *name;
    void (*attend)(const dc_attend_block *block);
    void (*swiglu)(const float *gate, const float *up, float *out, size_t count);
} dc_compute_twin;

extern const dc_compute_twin dc_compute_portable;
/* NULL where the processor lacks it. */
const dc_compute_twin *dc_compute_avx2(void);
const dc_compute_twin *dc_compute_avx512(void);

#endif
