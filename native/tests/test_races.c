/* What another thread or process does between two system calls, one interleaving at a time. */
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 8 };

static const uint32_t tokens[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static dovecote_pool *pool;
static const char *path;
static dovecote_lease *other;
static bool met;

static int seal(dovecote_lease *lease, uint64_t count, int short_block, uint64_t *sealed) {
    row r;
    row_compute(&r, tokens, 0, count);
    dovecote_lease_seal(lease, NULL, 0, NULL, 0, sealed);
    return dovecote_lease_seal(lease, tokens + *sealed, count - *sealed, r.planes, short_block,
                               sealed);
}

static void other_seals_the_same(void) {
    uint64_t sealed;
    met = true;
    CHECK(seal(other, 8, 0, &sealed) == DOVECOTE_OK && sealed == 8);
    CHECK(small_is_sound(pool));
}

/* At each call of one seal of two blocks the other lease seals both. */
static void a_block_sealed_meanwhile_is_shared(void) {
    met = true;
    for (long k = 1; met; k++) {
        dovecote_lease *lease;
        uint64_t sealed;
        pool = small_open(NULL, FRAMES);
        met = false;
        CHECK(dovecote_lease_open(pool, 2, &other) == DOVECOTE_OK);
        CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
        fault_meet(k, other_seals_the_same);
        CHECK(seal(lease, 8, 0, &sealed) == DOVECOTE_OK && sealed == 8);
        fault_disarm();
        CHECK(small_is_sound(pool));
        dovecote_pool_stats stats = small_stats(pool);
        CHECK(stats.leased == 2 && stats.free == FRAMES - 2 && stats.promised == (met ? 0 : 2));
        CHECK(stats.sealed_blocks == 2 && stats.shared_blocks == (met ? 2 : 0));
        dovecote_lease_close(lease);
        dovecote_lease_close(other);
        CHECK(small_look(pool, tokens, 8).exact && small_stats(pool).cached == 2);
        small_close(pool);
    }
}

static void other_finds_damage(void) {
    uint64_t valid;
    row r;
    met = true;
    row_clear(&r);
    CHECK(dovecote_lease_decode(other, 0, 1, 0, LAYERS, r.planes, &valid) == DOVECOTE_OK);
    CHECK(valid == 0 && small_is_sound(pool));
}

/* At each call of a seal on top of a damaged block the other lease finds the damage. */
static void a_parent_found_damaged_meanwhile_leaves_nothing_behind(void) {
    met = true;
    for (long k = 1; met; k++) {
        dovecote_lease *lease;
        uint64_t matched, sealed;
        path = small_path();
        pool = small_open(path, FRAMES);
        small_turn(pool, tokens, 4);
        small_close(pool);
        small_damage(path, small_frame_offset(FRAMES, 0), 1);
        pool = small_open(path, FRAMES);
        met = false;
        CHECK(dovecote_lease_open(pool, 2, &other) == DOVECOTE_OK);
        CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
        CHECK(!dovecote_lease_match(other, NULL, tokens, 8, &matched) && matched == 4);
        CHECK(!dovecote_lease_match(lease, NULL, tokens, 8, &matched) && matched == 4);
        fault_meet(k, other_finds_damage);
        int rc = seal(lease, 8, 0, &sealed);
        fault_disarm();
        CHECK(met ? rc == DOVECOTE_ERR_IO && sealed == 4 : rc == DOVECOTE_OK && sealed == 8);
        CHECK(small_is_sound(pool));
        dovecote_lease_close(lease);
        dovecote_lease_close(other);
        CHECK(small_stats(pool).cached == (met ? 0 : 2) && small_stats(pool).leased == 0);
        small_close(pool);
        small_forget();
    }
}

static void other_syncs(void) {
    met = true;
    CHECK(dovecote_pool_sync(pool) == DOVECOTE_OK);
}

/* At each call of a seal that has to evict, another thread syncs. */
static void a_sync_never_writes_over_a_frame_being_filled(void) { /* P1 */
    const uint32_t old[4] = {50, 51, 52, 53};
    met = true;
    for (long k = 1; met; k++) {
        path = small_path();
        pool = small_open(path, 1);
        small_turn(pool, old, 4);
        met = false;
        fault_meet(k, other_syncs);
        CHECK(small_turn(pool, tokens, 4).sealed == 4);
        fault_disarm();
        small_close(pool);
        pool = small_open(path, 1);
        CHECK(small_look(pool, tokens, 4).valid == 4);
        small_close(pool);
        small_forget();
    }
}

/* Another process makes the pool, keeps a block in it and closes it. */
static void other_makes_the_pool(void) {
    dovecote_pool_config config = small_config(FRAMES);
    dovecote_pool *made;
    if (dovecote_pool_open(path, &config, &made, NULL) != DOVECOTE_OK) return;
    met = true;
    CHECK(small_turn(made, tokens, 4).sealed == 4);
    small_close(made);
}

static void two_makers_of_one_pool_end_up_with_one(void) {
    dovecote_pool_config config = small_config(FRAMES);
    int busy = 0;
    for (long k = 1; k < 30; k++) {
        path = small_path();
        met = false;
        fault_meet(k, other_makes_the_pool);
        int rc = dovecote_pool_open(path, &config, &pool, NULL);
        fault_disarm();
        CHECK(rc == DOVECOTE_OK || (rc == DOVECOTE_ERR_BUSY && met));
        busy += rc == DOVECOTE_ERR_BUSY;
        if (rc != DOVECOTE_OK) pool = small_open(path, FRAMES);
        CHECK(small_look(pool, tokens, 4).valid == (met ? 4 : 0));
        small_close(pool);
        small_forget();
    }
    CHECK(busy >= 2);
}

static void other_replaces_the_pool(void) {
    CHECK(unlink(path) == 0);
    other_makes_the_pool();
}

static void a_pool_replaced_while_opening_is_not_mistaken_for_the_old_one(void) {
    enum { CALLS = 7 }; /* three allocations, then open, look, lock, look whose name it is */
    dovecote_pool_config config = small_config(FRAMES);
    for (long k = 1; k <= CALLS; k++) {
        path = small_path();
        small_close(small_open(path, FRAMES));
        fault_meet(k, other_replaces_the_pool);
        int rc = dovecote_pool_open(path, &config, &pool, NULL);
        fault_disarm();
        CHECK(rc == DOVECOTE_OK || rc == DOVECOTE_ERR_BUSY);
        if (rc != DOVECOTE_OK) pool = small_open(path, FRAMES);
        CHECK(small_look(pool, tokens, 4).valid == 4);
        small_close(pool);
        small_forget();
    }
}

int main(void) {
    RUN(a_block_sealed_meanwhile_is_shared);
    RUN(a_parent_found_damaged_meanwhile_leaves_nothing_behind);
    RUN(a_sync_never_writes_over_a_frame_being_filled);
    RUN(two_makers_of_one_pool_end_up_with_one);
    RUN(a_pool_replaced_while_opening_is_not_mistaken_for_the_old_one);
    return SUMMARY();
}
