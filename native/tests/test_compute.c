/* test_compute.c: attention and the gate, each twin against sums in double precision, and bit for
 * bit against itself under other chunks, batches and threads (C1, C2 of compute.h). */
#include "compute.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "crew.h"
#include "harness.h"

static const char *const twins[] = {"portable", "avx2", "avx512"};

/* Of results around 1, from scores around 2 whose sums have up to 256 terms. */
#define ALLOWED 1e-5
#define CAPACITY 300
#define MOST_ROWS 3
#define MOST_HEADS 6
#define MOST_DIM 256
#define PLANE ((size_t)(MOST_ROWS + 1) * MOST_HEADS * CAPACITY * MOST_DIM)

static float *key_plane;
static float *value_plane;
static float *key_source; /* what the new tokens' K and V are copied from: [row, head, position] */
static float *value_source;
static float *query_source;
static float *results;

static unsigned seed = 1;

static float normal(void) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        seed = seed * 1664525u + 1013904223u;
        sum += (float)(seed >> 8) / 16777216.0f;
    }
    return sum;
}

static float *filled(size_t count) {
    float *data = malloc(count * sizeof(float));
    for (size_t i = 0; data != NULL && i < count; i++) {
        data[i] = normal();
    }
    return data;
}

typedef struct {
    size_t rows;
    size_t heads;
    size_t kv_heads;
    size_t k_dim;
    size_t v_dim;
    const int64_t *offsets;
    size_t tokens;
} shape;

static dc_heads at(float *data, size_t heads, size_t positions, size_t dim) {
    return (dc_heads){data, heads * positions * dim, positions * dim, dim};
}

/* The shape's tokens, from and to the sources and results at their own positions: all rows there
 * have one offset only if rows == 1, so `offsets[0]` is where queries, K, V and results start. */
static dc_attention described(const shape *s) {
    size_t start = (size_t)s->offsets[0];
    return (dc_attention){
        .queries = at(query_source + start * s->k_dim, s->heads, CAPACITY, s->k_dim),
        .keys = at(key_source + start * s->k_dim, s->kv_heads, CAPACITY, s->k_dim),
        .values = at(value_source + start * s->v_dim, s->kv_heads, CAPACITY, s->v_dim),
        .key_plane = at(key_plane, s->kv_heads, CAPACITY, s->k_dim),
        .value_plane = at(value_plane, s->kv_heads, CAPACITY, s->v_dim),
        .out = at(results + start * s->v_dim, s->heads, CAPACITY, s->v_dim),
        .offsets = s->offsets,
        .rows = s->rows,
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .tokens = s->tokens,
        .k_dim = s->k_dim,
        .v_dim = s->v_dim,
        .first_row = 1,
        .capacity = CAPACITY,
        .scale = 0.125f,
    };
}

/* The largest difference of a result from the definition, relative to the largest V. */
static double error_of(const dc_attention *a) {
    double worst = 0;
    static double weights[CAPACITY];
    size_t group = a->heads / a->kv_heads;
    for (size_t i = 0; i < a->rows * a->heads * a->tokens; i++) {
        size_t row = i / (a->heads * a->tokens);
        size_t head = i / a->tokens % a->heads;
        size_t token = i % a->tokens;
        const float *q = a->queries.data + row * a->queries.row + head * a->queries.head +
                         token * a->queries.token;
        const float *out =
            a->out.data + row * a->out.row + head * a->out.head + token * a->out.token;
        const float *k = a->key_plane.data + (a->first_row + row) * a->key_plane.row +
                         head / group * a->key_plane.head;
        const float *v = a->value_plane.data + (a->first_row + row) * a->value_plane.row +
                         head / group * a->value_plane.head;
        size_t seen = (size_t)a->offsets[row] + token + 1;
        double most = -INFINITY;
        for (size_t j = 0; j < seen; j++) {
            weights[j] = 0;
            for (size_t d = 0; d < a->k_dim; d++) {
                weights[j] += (double)q[d] * (double)k[j * a->k_dim + d];
            }
            weights[j] *= (double)a->scale;
            most = fmax(most, weights[j]);
        }
        double total = 0;
        for (size_t j = 0; j < seen; j++) {
            weights[j] = exp(weights[j] - most);
            total += weights[j];
        }
        for (size_t d = 0; d < a->v_dim; d++) {
            double sum = 0;
            for (size_t j = 0; j < seen; j++) {
                sum += weights[j] * (double)v[j * a->v_dim + d];
            }
            double error = fabs(sum / total - (double)out[d]);
            worst = error <= worst ? worst : error; /* NaN counts */
        }
    }
    return worst;
}

static const size_t dims[][2] = {{64, 64}, {1, 1},   {3, 5},     {16, 16},  {20, 33},
                                 {72, 40}, {96, 64}, {128, 128}, {256, 256}};
static const size_t heads[][2] = {{1, 1}, {3, 1}, {6, 2}, {6, 6}, {4, 1}};

static void every_twin_agrees_with_the_definition(void) {
    static const int64_t offsets[] = {0, 1, 40, 63, 64, 127, 250};
    static const size_t tokens[] = {1, 2, 7, 44};
    for (size_t t = 0; t < sizeof(twins) / sizeof(twins[0]); t++) {
        if (dovecote_compute_override(twins[t]) != 0) {
            continue;
        }
        for (size_t i = 0; i < 9 * 5 * 7; i++) {
            int64_t offset = offsets[i % 7];
            const size_t *dim = dims[i / 35];
            const size_t *head = heads[i / 7 % 5];
            shape s = {1, head[0], head[1], dim[0], dim[1], &offset, tokens[i % 4]};
            dc_attention a = described(&s);
            CHECK(dovecote_attend(&a) == 0);
            CHECK(error_of(&a) < ALLOWED);
        }
    }
}

static void rows_of_a_batch_have_lengths_of_their_own(void) {
    static const int64_t offsets[] = {70, 3, 255};
    for (size_t t = 0; t < sizeof(twins) / sizeof(twins[0]); t++) {
        if (dovecote_compute_override(twins[t]) != 0) {
            continue;
        }
        shape s = {3, 6, 2, 64, 64, offsets, 1};
        dc_attention a = described(&s);
        CHECK(dovecote_attend(&a) == 0);
        CHECK(error_of(&a) < ALLOWED);
    }
}

/* The planes hold positions [0, 255) of rows 1 to 3; each row is asked for alone, then together. */
static void a_batch_changes_no_bit(void) {
    static const int64_t offsets[] = {70, 3, 255};
    static float together[3 * 6 * 64];
    shape s = {3, 6, 2, 64, 64, offsets, 1};
    dc_attention a = described(&s);
    CHECK(dovecote_attend(&a) == 0);
    for (size_t i = 0; i < 18; i++) {
        memcpy(together + i * 64, a.out.data + i / 6 * a.out.row + i % 6 * a.out.head, 256);
    }
    for (size_t row = 0; row < 3; row++) {
        dc_attention alone = a;
        alone.rows = 1;
        alone.first_row += row;
        alone.offsets += row;
        alone.queries.data += row * a.queries.row;
        alone.keys.data += row * a.keys.row;
        alone.values.data += row * a.values.row;
        alone.out.data = results;
        memset(results, 0, 6 * CAPACITY * 64 * sizeof(float));
        CHECK(dovecote_attend(&alone) == 0);
        for (size_t head = 0; head < 6; head++) {
            CHECK(memcmp(together + (row * 6 + head) * 64, results + head * a.out.head, 256) == 0);
        }
    }
}

static void chunks_and_threads_change_no_bit(void) {
    static float whole[6 * CAPACITY * 64];
    size_t pieces[] = {1, 8, 44, 63, 64, 107, 299};
    for (int threads = 1; threads <= 4; threads += 3) {
        dc_crew_set_threads(threads);
        for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
            memset(key_plane, 0, PLANE * sizeof(float));
            memset(value_plane, 0, PLANE * sizeof(float));
            for (size_t start = 0; start < CAPACITY; start += pieces[p]) {
                int64_t offset = (int64_t)start;
                size_t left = CAPACITY - start;
                shape s = {1, 6, 2, 64, 64, &offset, left < pieces[p] ? left : pieces[p]};
                dc_attention a = described(&s);
                CHECK(dovecote_attend(&a) == 0);
            }
            if (threads == 1 && p == 0) {
                memcpy(whole, results, sizeof(whole));
            }
            size_t same = 0;
            for (size_t i = 0; i < 6 * CAPACITY * 64; i++) {
                same += whole[i] == results[i];
            }
            CHECK(same == 6 * CAPACITY * 64);
        }
    }
    dc_crew_set_threads(2);
}

static void strides_are_followed(void) {
    /* Queries, K, V and results as [tokens, heads, dim]: what a projection writes. */
    int64_t offset = 17;
    shape s = {1, 6, 2, 64, 64, &offset, 30};
    dc_attention a = described(&s);
    a.queries = (dc_heads){query_source, 0, 64, (size_t)6 * 64};
    a.keys = (dc_heads){key_source, 0, 64, (size_t)2 * 64};
    a.values = (dc_heads){value_source, 0, 64, (size_t)2 * 64};
    a.out = (dc_heads){results, 0, 64, (size_t)6 * 64};
    CHECK(dovecote_attend(&a) == 0);
    CHECK(error_of(&a) < ALLOWED);
    const float *stored = key_plane + a.key_plane.row + a.key_plane.head + 17 * 64;
    CHECK(memcmp(stored, key_source + 64, 64 * sizeof(float)) == 0);
}

static void impossible_shapes_are_refused(void) {
    int64_t offset = CAPACITY - 3;
    shape s = {1, 6, 2, 64, 64, &offset, 4};
    dc_attention a = described(&s);
    CHECK(dovecote_attend(&a) == -1); /* past the capacity */
    offset = -1;
    CHECK(dovecote_attend(&a) == -1);
    offset = 0;
    CHECK(dovecote_attend(&a) == 0);
    a.kv_heads = 4;
    CHECK(dovecote_attend(&a) == -1);
    a.kv_heads = 2;
    a.k_dim = 257;
    CHECK(dovecote_attend(&a) == -1);
    a.k_dim = 64;
    a.tokens = 0;
    CHECK(dovecote_attend(&a) == -1);
}

static void a_number_that_is_none_comes_out(void) {
    static const float poisons[] = {NAN, INFINITY, -INFINITY};
    for (size_t t = 0; t < sizeof(twins) / sizeof(twins[0]); t++) {
        for (size_t p = 0; p < 3 && dovecote_compute_override(twins[t]) == 0; p++) {
            int64_t offset = 100;
            shape s = {1, 6, 2, 64, 64, &offset, 3};
            dc_attention a = described(&s);
            float *query = a.queries.data + 3 * a.queries.head;
            float kept = query[5];
            query[5] = poisons[p];
            CHECK(dovecote_attend(&a) == 0);
            query[5] = kept;
            CHECK(!isfinite(a.out.data[3 * a.out.head]));
            CHECK(isfinite(a.out.data[3 * a.out.head + 64]));
            CHECK(isfinite(a.out.data[2 * a.out.head]));
            float gate = poisons[p];
            float one = 1.0f;
            float out = 0.0f;
            dovecote_swiglu(&one, &gate, &out, 1);
            CHECK(!isfinite(out));
            gate = NAN;
            dovecote_swiglu(&gate, &one, &out, 1);
            CHECK(isnan(out));
        }
    }
}

/* The relative error grows with the exponent's, which is rounded before it is raised. */
static void the_gate_agrees_with_the_definition(void) {
    static float gate[40000];
    static float up[40000];
    static float out[40000];
    for (size_t i = 0; i < 40000; i++) {
        gate[i] = i < 20000 ? ((float)i - 10000.0f) / 50.0f : 4.0f * normal();
        up[i] = normal();
    }
    for (size_t t = 0; t < sizeof(twins) / sizeof(twins[0]); t++) {
        if (dovecote_compute_override(twins[t]) != 0) {
            continue;
        }
        for (size_t count = 0; count < 70; count++) {
            memset(out, 0x7f, sizeof(out));
            dovecote_swiglu(gate + 9990, up, out, count);
            for (size_t i = 0; i < count; i++) {
                double g = (double)gate[9990 + i];
                double want = g / (1 + exp(-g)) * (double)up[i];
                CHECK(fabs(want - (double)out[i]) <= 1e-6 * fabs(want));
            }
            CHECK(memcmp(out + count, out + count + 1, sizeof(float)) == 0);
        }
        dovecote_swiglu(gate, up, out, 40000);
        for (size_t i = 0; i < 40000; i++) {
            double g = (double)gate[i];
            double want = g / (1 + exp(-g)) * (double)up[i];
            CHECK(fabs(want - (double)out[i]) <= (1e-6 + 1.5e-7 * fabs(g)) * fabs(want) + 1e-30);
        }
    }
}

int main(void) {
    dc_crew_set_threads(2);
    key_plane = filled(PLANE);
    value_plane = filled(PLANE);
    key_source = filled(PLANE);
    value_source = filled(PLANE);
    query_source = filled(PLANE);
    results = filled(PLANE);
    if (key_plane == NULL || value_plane == NULL || key_source == NULL || value_source == NULL ||
        query_source == NULL || results == NULL) {
        return 1;
    }
    CHECK(dovecote_compute_override("abacus") == -1);
    RUN(every_twin_agrees_with_the_definition);
    RUN(rows_of_a_batch_have_lengths_of_their_own);
    RUN(a_number_that_is_none_comes_out);
    for (size_t t = 0; t < sizeof(twins) / sizeof(twins[0]); t++) {
        if (dovecote_compute_override(twins[t]) == 0) {
            RUN(a_batch_changes_no_bit);
            RUN(chunks_and_threads_change_no_bit);
            RUN(strides_are_followed);
        }
    }
    CHECK(dovecote_compute_override(NULL) == 0);
    RUN(impossible_shapes_are_refused);
    RUN(the_gate_agrees_with_the_definition);
    free(key_plane);
    free(value_plane);
    free(key_source);
    free(value_source);
    free(query_source);
    free(results);
    return SUMMARY();
}
