/* The pool against a naive model: a list of blocks, each with its whole prefix of token ids,
 * searched from end to end. Random requests; after every operation both must agree on what was
 * found and sealed, on every count, and the pool's invariants must hold.
 *
 * What the model does not know: frames, keys, trees, lists. That the pool evicts the oldest entry
 * of its age list without looking (F3) is checked by the model looking for the oldest leaf. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "small.h"

enum { FRAMES = 12, LEASES = 3, TOKENS = 20, STEPS = 20000, SEEDS = 4 };

typedef struct {
    uint32_t ids[TOKENS]; /* from the chain's start */
    uint32_t length;      /* of ids: to the block's end */
    uint32_t start;       /* of the block */
    int leases;
    long used, born;
} node;

typedef struct {
    dovecote_lease *lease;
    row r;
    uint32_t tokens[TOKENS];
    uint32_t promised, whole; /* whole: tokens in the chain */
    int chain[TOKENS], blocks, tail;
    bool matched, ended;
} actor;

static dovecote_pool *pool;
static node *nodes[FRAMES];
static actor actors[LEASES];
static uint32_t promised;
static long now;

/* ---- the model ---- */

static uint32_t available(void) {
    uint32_t leased = 0;
    for (int i = 0; i < FRAMES; i++)
        leased += nodes[i] && nodes[i]->leases;
    return FRAMES - leased;
}

static bool starts_with(const uint32_t *ids, const uint32_t *prefix, uint32_t length) {
    return memcmp(ids, prefix, length * sizeof *ids) == 0;
}

/* The node that shares most of ids[start, end) among those that hang on ids[0, start). */
static int nearest(const uint32_t *ids, uint32_t start, uint32_t end, uint32_t *common) {
    int best = -1;
    *common = 0;
    for (int i = 0; i < FRAMES; i++) {
        const node *n = nodes[i];
        uint32_t same = 0;
        if (!n || n->start != start || !starts_with(n->ids, ids, start)) continue;
        while (start + same < n->length && start + same < end &&
               n->ids[start + same] == ids[start + same])
            same++;
        bool better = same > *common || (same && same == *common && n->born > nodes[best]->born);
        if (better) best = i;
        if (better) *common = same;
    }
    return best;
}

static int whole_block(const uint32_t *ids, uint32_t start) {
    for (int i = 0; i < FRAMES; i++)
        if (nodes[i] && nodes[i]->start == start && nodes[i]->length == start + BLOCK &&
            starts_with(nodes[i]->ids, ids, start + BLOCK))
            return i;
    return -1;
}

static bool is_leaf(const node *parent) {
    for (int i = 0; i < FRAMES; i++)
        if (nodes[i] && nodes[i]->start == parent->length && nodes[i] != parent &&
            starts_with(nodes[i]->ids, parent->ids, parent->length))
            return false;
    return true;
}

static void forget(int i) {
    free(nodes[i]);
    nodes[i] = NULL;
}

static int place(void) {
    int oldest = -1;
    for (int i = 0; i < FRAMES; i++)
        if (!nodes[i]) return i;
    for (int i = 0; i < FRAMES; i++)
        if (!nodes[i]->leases && is_leaf(nodes[i]) &&
            (oldest < 0 || nodes[i]->used < nodes[oldest]->used))
            oldest = i;
    forget(oldest);
    return oldest;
}

static bool pin(actor *a, int i, bool for_promise) {
    bool pays = for_promise && a->promised;
    if (!nodes[i]->leases && !pays && promised >= available()) return false;
    nodes[i]->leases++;
    if (pays) a->promised--, promised--;
    return true;
}

static void unpin(int i) {
    if (--nodes[i]->leases == 0) nodes[i]->used = ++now;
}

static void append(actor *a, int i, uint32_t tokens) {
    a->chain[a->blocks++] = i;
    a->whole += tokens;
}

static uint32_t model_match(actor *a, uint32_t count) {
    int i;
    uint32_t common = 0;
    while (a->whole + BLOCK <= count && (i = whole_block(a->tokens, a->whole)) >= 0 &&
           pin(a, i, true))
        append(a, i, BLOCK);
    a->tail =
        nearest(a->tokens, a->whole, count < a->whole + BLOCK ? count : a->whole + BLOCK, &common);
    if (a->tail >= 0 && pin(a, a->tail, false)) return a->whole + common;
    a->tail = -1;
    return a->whole;
}

static void supersede(const node *longer) {
    for (int i = 0; i < FRAMES; i++)
        if (nodes[i] && nodes[i]->start == longer->start && nodes[i]->length < longer->length &&
            !nodes[i]->leases && starts_with(longer->ids, nodes[i]->ids, nodes[i]->length))
            forget(i);
}

static int model_seal_block(actor *a, uint32_t tokens) {
    uint32_t end = a->whole + tokens, common = 0;
    if (a->tail >= 0) unpin(a->tail);
    a->tail = -1;
    int i = whole_block(a->tokens, a->whole);
    if (tokens < BLOCK) i = nearest(a->tokens, a->whole, end, &common);
    if (i >= 0 && (tokens == BLOCK || common == tokens)) {
        if (!pin(a, i, true)) return DOVECOTE_ERR_FULL;
        append(a, i, tokens);
        return DOVECOTE_OK;
    }
    if (!a->promised) return DOVECOTE_ERR_FULL;
    a->promised--, promised--;
    i = place();
    nodes[i] = malloc(sizeof *nodes[i]);
    *nodes[i] = (node){.length = end, .start = a->whole, .leases = 1, .born = ++now};
    memcpy(nodes[i]->ids, a->tokens, end * sizeof *a->tokens);
    supersede(nodes[i]);
    append(a, i, tokens);
    return DOVECOTE_OK;
}

static int model_seal(actor *a, uint32_t end, bool short_block) {
    int rc = DOVECOTE_OK;
    while (!rc && a->whole + BLOCK <= end)
        rc = model_seal_block(a, BLOCK);
    if (rc || !short_block || a->whole == end) return rc;
    rc = model_seal_block(a, end - a->whole);
    a->ended = rc == DOVECOTE_OK;
    return rc;
}

static void model_close(actor *a) {
    if (a->tail >= 0) unpin(a->tail);
    while (a->blocks)
        unpin(a->chain[--a->blocks]);
    promised -= a->promised;
}

/* ---- both, side by side ---- */

static void begin(actor *a) {
    uint32_t frames = (uint32_t)(rand() % 6);
    int rc = dovecote_lease_open(pool, frames, &a->lease);
    bool full = frames > available() - promised;
    CHECK(rc == (full ? DOVECOTE_ERR_FULL : DOVECOTE_OK));
    if (rc) {
        a->lease = NULL;
        return;
    }
    *a = (actor){.lease = a->lease, .promised = frames, .tail = -1};
    promised += frames;
    for (int i = 0; i < TOKENS; i++)
        a->tokens[i] = i % BLOCK < 2 ? 7 : (uint32_t)(rand() % 2);
    row_clear(&a->r);
}

static void match(actor *a) {
    uint64_t matched, valid;
    uint32_t count = (uint32_t)(rand() % (TOKENS + 1));
    CHECK(dovecote_lease_match(a->lease, NULL, a->tokens, count, &matched) == DOVECOTE_OK);
    CHECK(matched == model_match(a, count));
    CHECK(!dovecote_lease_decode(a->lease, 0, TOKENS, 0, LAYERS, a->r.planes, &valid));
    CHECK(valid == matched && row_is_exact(&a->r, a->tokens, 0, valid));
    a->matched = true;
}

static void seal(actor *a) {
    uint64_t sealed;
    uint32_t end = a->whole + 1 + (uint32_t)rand() % (TOKENS - a->whole);
    bool short_block = rand() % 3 == 0;
    row_compute(&a->r, a->tokens, 0, TOKENS);
    int rc = dovecote_lease_seal(a->lease, a->tokens + a->whole, end - a->whole, a->r.planes,
                                 short_block, &sealed);
    CHECK(rc == model_seal(a, end, short_block));
    CHECK(sealed == a->whole);
    a->matched = true;
}

static void finish(actor *a) {
    dovecote_lease_close(a->lease);
    a->lease = NULL;
    model_close(a);
}

static void step(actor *a) {
    int choice = rand() % 4;
    if (!a->lease)
        begin(a);
    else if (!a->matched && choice != 0)
        match(a);
    else if (choice && !a->ended && a->whole < TOKENS)
        seal(a);
    else
        finish(a);
}

static bool counts_agree(void) {
    dovecote_pool_stats stats = small_stats(pool);
    uint64_t leased = 0, cached = 0, tokens = 0;
    for (int i = 0; i < FRAMES; i++) {
        leased += nodes[i] && nodes[i]->leases;
        cached += nodes[i] && !nodes[i]->leases;
        tokens += nodes[i] ? nodes[i]->length - nodes[i]->start : 0;
    }
    return stats.leased == leased && stats.cached == cached && stats.tokens == tokens &&
           stats.promised == promised;
}

static void the_pool_agrees_with_a_naive_model(void) {
    pool = small_open(NULL, FRAMES);
    for (int i = 0; i < STEPS && !harness_failures; i++) {
        step(&actors[rand() % LEASES]);
        CHECK(small_is_sound(pool) && counts_agree());
        if (harness_failures) (void)fprintf(stderr, "at step %d\n", i);
    }
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.evicted_blocks > 100 && stats.shared_blocks > 100);
    CHECK(stats.superseded_blocks > 10 && stats.matched_tokens > 1000);
    for (int i = 0; i < LEASES; i++)
        if (actors[i].lease) finish(&actors[i]);
    memset(actors, 0, sizeof actors);
    for (int i = 0; i < FRAMES; i++)
        forget(i);
    small_close(pool);
}

/* `test_model SEED` replays one run. */
int main(int argc, char **argv) {
    unsigned first = argc > 1 ? (unsigned)atoi(argv[1]) : 1, last = argc > 1 ? first : SEEDS;
    for (unsigned seed = first; seed <= last && !harness_failures; seed++) {
        srand(seed);
        RUN(the_pool_agrees_with_a_naive_model);
        if (harness_failures) (void)fprintf(stderr, "seed %u\n", seed);
    }
    return SUMMARY();
}
