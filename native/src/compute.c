/* compute.c: shares attention and the gate out among the crew (crew.h). The numbers are made in
 * compute_kernel.h. The choice of the twin is the only state, written by tests and at first use:
 * whoever races to fill it writes the same value. */
#include "compute.h"

#include <stdatomic.h>
#include <string.h>

#include "crew.h"

#define EXPORT __attribute__((visibility("default")))

/* Multiplications that are not worth waking anybody: some 10 us. */
#define LEAST_WORK 100000
/* Blocks of a call, so that two threads end together; but no fewer queries than fill registers. */
#define WANTED_BLOCKS 8
#define GATES 8192 /* of a piece */
#define LEAST_GATES 16384

static _Atomic(const dc_compute_twin *) chosen;

static const dc_compute_twin *best_twin(void) {
    const dc_compute_twin *twin = dc_compute_avx512();
    if (twin == NULL) {
        twin = dc_compute_avx2();
    }
    return twin != NULL ? twin : &dc_compute_portable;
}

static const dc_compute_twin *twin_in_use(void) {
    const dc_compute_twin *twin = atomic_load(&chosen);
    if (twin == NULL) {
        twin = best_twin();
        atomic_store(&chosen, twin);
    }
    return twin;
}

EXPORT int dovecote_compute_override(const char *name) {
    const dc_compute_twin *known[] = {best_twin(), &dc_compute_portable, dc_compute_avx2(),
                                      dc_compute_avx512()};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (known[i] != NULL && (name == NULL || strcmp(name, known[i]->name) == 0)) {
            atomic_store(&chosen, known[i]);
            return 0;
        }
    }
    return -1;
}

/* ---- attention ---- */

typedef struct {
    const dc_attention *attention;
    const dc_compute_twin *twin;
    size_t tokens; /* of a block */
} attend_job;

/* Block-major, the last tokens first: they see the most, and nobody waits for them at the end. */
static void run_attend(const void *job, size_t start, size_t end) {
    const attend_job *mine = job;
    const dc_attention *a = mine->attention;
    size_t places = a->rows * a->kv_heads;
    size_t blocks = (a->tokens + mine->tokens - 1) / mine->tokens;
    for (size_t piece = start; piece < end; piece++) {
        size_t first = (blocks - 1 - piece / places) * mine->tokens;
        size_t last = a->tokens - first < mine->tokens ? a->tokens : first + mine->tokens;
        dc_attend_block block = {a, piece % places / a->kv_heads, piece % a->kv_heads, first, last};
        mine->twin->attend(&block);
    }
}

static int is_possible(const dc_attention *a) {
    if (a->rows == 0 || a->kv_heads == 0 || a->tokens == 0 || a->k_dim == 0 || a->v_dim == 0 ||
        a->heads == 0 || a->heads % a->kv_heads != 0 ||
        a->heads / a->kv_heads > DC_ATTEND_QUERIES * DC_ATTEND_TILE / DC_ATTEND_MAX_DIM ||
        a->k_dim > DC_ATTEND_MAX_DIM || a->v_dim > DC_ATTEND_MAX_DIM || a->tokens > a->capacity) {
        return 0;
    }
    for (size_t row = 0; row < a->rows; row++) {
        if (a->offsets[row] < 0 || (uint64_t)a->offsets[row] > a->capacity - a->tokens) {
            return 0;
        }
    }
    return 1;
}

static void store(const dc_attention *a, const dc_heads *fresh, const dc_heads *plane, size_t dim) {
    for (size_t row = 0; row < a->rows; row++) {
        for (size_t head = 0; head < a->kv_heads; head++) {
            const float *from = fresh->data + row * fresh->row + head * fresh->head;
            float *to = plane->data + (a->first_row + row) * plane->row + head * plane->head +
                        (size_t)a->offsets[row] * plane->token;
            for (size_t token = 0; token < a->tokens; token++) {
                memcpy(to + token * plane->token, from + token * fresh->token, dim * sizeof(float));
            }
        }
    }
}

/* As many as the twins have room for, and few enough that there are blocks for everybody. */
static size_t tokens_of_block(const dc_attention *a) {
    size_t group = a->heads / a->kv_heads;
    size_t dim = a->k_dim > a->v_dim ? a->k_dim : a->v_dim;
    size_t room = DC_ATTEND_QUERIES * DC_ATTEND_TILE / dim;
    size_t most = (room < DC_ATTEND_QUERIES ? room : DC_ATTEND_QUERIES) / group;
    size_t fair = a->tokens * a->rows * a->kv_heads / WANTED_BLOCKS;
    size_t least = (6 + group - 1) / group;
    size_t tokens = fair > least ? fair : least;
    return tokens < most ? tokens : most;
}

EXPORT int dovecote_attend(const dc_attention *attention) {
    const dc_attention *a = attention;
    if (!is_possible(a)) {
        return -1;
    }
    store(a, &a->keys, &a->key_plane, a->k_dim);
    store(a, &a->values, &a->value_plane, a->v_dim);
    attend_job job = {a, twin_in_use(), tokens_of_block(a)};
    size_t blocks = (a->tokens + job.tokens - 1) / job.tokens;
    size_t pieces = blocks * a->rows * a->kv_heads;
    double work = 0;
    for (size_t row = 0; row < a->rows; row++) {
        work += (double)a->heads * (double)a->tokens * (double)a->offsets[row] *
                (double)(a->k_dim + a->v_dim);
    }
    dc_crew_run(run_attend, &job, pieces, work < LEAST_WORK ? pieces : 1);
    return 0;
}

/* ---- the gate ---- */

typedef struct {
    const dc_compute_twin *twin;
    const float *gate;
    const float *up;
    float *out;
} gate_job;

static void run_gate(const void *job, size_t start, size_t end) {
    const gate_job *mine = job;
    mine->twin->swiglu(mine->gate + start, mine->up + start, mine->out + start, end - start);
}

EXPORT void dovecote_swiglu(const float *gate, const float *up, float *out, size_t count) {
    gate_job job = {twin_in_use(), gate, up, out};
    dc_crew_run(run_gate, &job, count, count < LEAST_GATES ? count : GATES);
}
