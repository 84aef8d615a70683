/* Promises and eviction: what a lease was promised it gets, and only cached frames make room. */
#include <string.h>

#include "harness.h"
#include "small.h"

static dovecote_pool *pool;

static void chain(uint32_t *tokens, uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = first + i;
}

static uint64_t cached_of(uint32_t first, uint32_t count) {
    uint32_t tokens[CAPACITY];
    chain(tokens, first, count);
    return small_look(pool, tokens, count).matched;
}

static int keep(uint32_t first, uint32_t count) {
    uint32_t tokens[CAPACITY];
    chain(tokens, first, count);
    turn t = small_turn(pool, tokens, count);
    CHECK(t.rc != DOVECOTE_OK || t.sealed == count);
    CHECK(small_is_sound(pool));
    return t.rc;
}

static int seal(dovecote_lease *lease, const uint32_t *tokens, uint64_t count, uint64_t *sealed) {
    row r;
    row_compute(&r, tokens, 0, count);
    dovecote_lease_seal(lease, NULL, 0, NULL, 0, sealed);
    int rc = dovecote_lease_seal(lease, tokens + *sealed, count - *sealed, r.planes, 0, sealed);
    CHECK(small_is_sound(pool));
    return rc;
}

static void the_least_recently_used_leaf_goes_first(void) { /* P5 */
    pool = small_open(NULL, 4);
    keep(100, 8);
    keep(200, 8);
    CHECK(cached_of(100, 8) == 8); /* now 200 is the older chain */
    keep(300, 4);
    CHECK(small_stats(pool).evicted_blocks == 1);
    CHECK(cached_of(200, 8) == 4 && cached_of(100, 8) == 8);
    small_close(pool);
}

static void a_parent_used_later_than_its_child_outlives_younger_chains(void) { /* P5 */
    pool = small_open(NULL, 3);
    keep(100, 8);
    keep(200, 4);
    CHECK(cached_of(100, 4) == 4); /* ages: the child of 100, then 200, then 100 */
    keep(300, 4);
    keep(400, 4);
    uint32_t tokens[8];
    chain(tokens, 100, 8);
    CHECK(small_look(pool, tokens, 8).matched == 4);
    CHECK(cached_of(200, 4) == 0);
    small_close(pool);
}

static void a_leased_frame_is_never_evicted(void) { /* P5 */
    pool = small_open(NULL, 3);
    uint32_t tokens[8];
    uint64_t matched;
    dovecote_lease *lease;
    chain(tokens, 100, 8);
    keep(100, 8);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 8);
    for (uint32_t first = 200; first < 1000; first += 100)
        CHECK(keep(first, 4) == DOVECOTE_OK);
    CHECK(keep(1000, 8) == DOVECOTE_ERR_FULL);
    CHECK(cached_of(100, 8) == 8);
    dovecote_lease_close(lease);
    CHECK(keep(1000, 8) == DOVECOTE_OK);
    small_close(pool);
}

static void no_more_frames_are_promised_than_can_be_had(void) { /* P4 */
    pool = small_open(NULL, 4);
    dovecote_lease *a, *b, *c;
    CHECK(dovecote_lease_open(pool, 5, &a) == DOVECOTE_ERR_FULL);
    CHECK(dovecote_lease_open(pool, UINT32_MAX, &a) == DOVECOTE_ERR_FULL);
    CHECK(dovecote_lease_open(pool, 3, &a) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 2, &b) == DOVECOTE_ERR_FULL);
    CHECK(dovecote_lease_open(pool, 1, &b) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 0, &c) == DOVECOTE_OK);
    CHECK(small_stats(pool).promised == 4 && small_stats(pool).leases == 3);
    CHECK(dovecote_pool_close(pool) == DOVECOTE_ERR_ARGUMENT);
    dovecote_lease_close(a);
    CHECK(small_stats(pool).promised == 1);
    dovecote_lease_close(b);
    dovecote_lease_close(c);
    dovecote_lease_close(NULL);
    small_close(pool);
}

static void a_lease_seals_as_many_blocks_as_it_was_promised(void) {
    pool = small_open(NULL, 4);
    dovecote_lease *lease;
    uint32_t tokens[12];
    uint64_t sealed;
    chain(tokens, 0, 12);
    keep(100, 16);
    CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
    CHECK(seal(lease, tokens, 12, &sealed) == DOVECOTE_ERR_FULL && sealed == 8);
    CHECK(seal(lease, tokens, 12, &sealed) == DOVECOTE_ERR_FULL && sealed == 8);
    dovecote_lease_close(lease);
    CHECK(cached_of(0, 12) == 8 && cached_of(100, 16) == 8);
    small_close(pool);
}

static void a_match_gives_back_what_it_need_not_fill(void) {
    pool = small_open(NULL, 4);
    dovecote_lease *lease;
    uint32_t tokens[12];
    uint64_t matched;
    chain(tokens, 0, 12);
    keep(0, 8);
    CHECK(dovecote_lease_open(pool, 3, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 12, &matched) == DOVECOTE_OK && matched == 8);
    CHECK(small_stats(pool).promised == 1 && small_stats(pool).leased == 2);
    CHECK(small_is_sound(pool));
    dovecote_lease_close(lease);
    small_close(pool);
}

static void a_match_never_breaks_another_leases_promise(void) {
    pool = small_open(NULL, 3);
    dovecote_lease *holder, *reader;
    uint32_t tokens[8], other[8];
    uint64_t matched, sealed;
    chain(tokens, 0, 8);
    chain(other, 50, 8);
    keep(0, 8);
    CHECK(dovecote_lease_open(pool, 2, &holder) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 0, &reader) == DOVECOTE_OK);
    /* Three frames can be had and two are promised: one may be pinned, whole block or tail. */
    CHECK(dovecote_lease_match(reader, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 4);
    CHECK(small_is_sound(pool));
    CHECK(seal(holder, other, 8, &sealed) == DOVECOTE_OK && sealed == 8);
    dovecote_lease_close(reader);
    dovecote_lease_close(holder);
    small_close(pool);
}

static void a_tail_is_left_out_if_no_frame_is_spare(void) {
    pool = small_open(NULL, 2);
    dovecote_lease *lease;
    uint32_t tokens[8];
    uint64_t matched, sealed;
    chain(tokens, 0, 8);
    keep(0, 6);
    CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 4);
    CHECK(seal(lease, tokens, 8, &sealed) == DOVECOTE_OK && sealed == 8);
    dovecote_lease_close(lease);
    CHECK(cached_of(0, 8) == 8);
    small_close(pool);
}

static void a_tail_held_by_another_lease_costs_nothing(void) {
    pool = small_open(NULL, 3);
    dovecote_lease *first, *second;
    uint32_t tokens[8];
    uint64_t matched;
    chain(tokens, 0, 8);
    keep(0, 6);
    CHECK(dovecote_lease_open(pool, 1, &first) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(first, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 6);
    CHECK(dovecote_lease_open(pool, 1, &second) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(second, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 6);
    CHECK(small_is_sound(pool));
    dovecote_lease_close(first);
    CHECK(small_is_sound(pool));
    dovecote_lease_close(second);
    small_close(pool);
}

static void evicting_frees_the_frame_for_just_one_block(void) { /* P3 */
    pool = small_open(NULL, 2);
    for (uint32_t first = 0; first < 4000; first += 100) {
        CHECK(keep(first, 7) == DOVECOTE_OK);
        CHECK(cached_of(first, 7) == 7);
    }
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.sealed_blocks == 80 && stats.evicted_blocks == 78 && stats.cached == 2);
    small_close(pool);
}

int main(void) {
    RUN(the_least_recently_used_leaf_goes_first);
    RUN(a_parent_used_later_than_its_child_outlives_younger_chains);
    RUN(a_leased_frame_is_never_evicted);
    RUN(no_more_frames_are_promised_than_can_be_had);
    RUN(a_lease_seals_as_many_blocks_as_it_was_promised);
    RUN(a_match_gives_back_what_it_need_not_fill);
    RUN(a_match_never_breaks_another_leases_promise);
    RUN(a_tail_is_left_out_if_no_frame_is_spare);
    RUN(a_tail_held_by_another_lease_costs_nothing);
    RUN(evicting_frees_the_frame_for_just_one_block);
    return SUMMARY();
}
