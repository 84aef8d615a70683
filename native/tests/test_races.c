/* What another lease does between a seal's system calls, one interleaving at a time. */
#include <errno.h>
#include <string.h>

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

int main(void) {
    RUN(a_block_sealed_meanwhile_is_shared);
    RUN(a_parent_found_damaged_meanwhile_leaves_nothing_behind);
    return SUMMARY();
}
