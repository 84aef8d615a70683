/* dovecote_pool_adopt: a pool's blocks in a pool of another size. */
#include <errno.h>
#include <string.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

static const uint32_t a[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static const uint32_t b[12] = {1, 2, 3, 4, 55, 66, 77, 88, 99, 100};
static const uint32_t c[8] = {21, 22, 23, 24, 25, 26};

/* Seven blocks; `c` was used last, then `b`, then `a`. */
static dovecote_pool *source_pool(const char *path) {
    static const uint8_t root[16] = {9};
    dovecote_pool *pool = small_open(path, 16);
    small_turn(pool, a, 12);
    small_turn(pool, b, 10);
    small_turn_under(pool, root, c, 6);
    CHECK(small_stats(pool).cached == 7);
    return pool;
}

static void a_larger_pool_takes_everything(void) {
    static const uint8_t root[16] = {9};
    dovecote_pool *source = source_pool(NULL), *target = small_open(NULL, 32);
    uint64_t copied;
    CHECK(dovecote_pool_adopt(target, source, &copied) == DOVECOTE_OK && copied == 7);
    CHECK(small_is_sound(target) && small_is_sound(source));
    small_close(source);
    CHECK(small_stats(target).cached == 7 && small_stats(target).tokens == 12 + 6 + 6);
    turn t = small_turn(target, a, 12);
    CHECK(t.valid == 12 && t.exact);
    t = small_turn(target, b, 10);
    CHECK(t.valid == 10 && t.exact);
    t = small_turn_under(target, root, c, 6);
    CHECK(t.valid == 6 && t.exact && small_look(target, c, 6).matched == 0);
    CHECK(small_stats(target).sealed_blocks == 0);
    small_close(target);
}

static void a_smaller_pool_takes_the_chains_used_last(void) {
    dovecote_pool *source = source_pool(NULL), *target = small_open(NULL, 5);
    uint64_t copied;
    CHECK(dovecote_pool_adopt(target, source, &copied) == DOVECOTE_OK && copied == 5);
    CHECK(small_is_sound(target));
    turn t = small_look(target, b, 10);
    CHECK(t.valid == 10 && t.exact);
    CHECK(small_look(target, a, 12).matched == 4);
    small_close(source);
    small_close(target);
}

static void what_was_adopted_survives_closing(void) {
    const char *path = small_path();
    dovecote_pool *source = source_pool(NULL), *target = small_open(path, 32);
    CHECK(dovecote_pool_adopt(target, source, NULL) == DOVECOTE_OK);
    small_close(source);
    small_close(target);
    target = small_open(path, 32);
    turn t = small_look(target, a, 12);
    CHECK(t.valid == 12 && t.exact && small_stats(target).miss_checksum == 0);
    small_close(target);
    small_forget();
}

static void a_damaged_block_is_left_out_with_its_children(void) {
    const char *path = small_path();
    dovecote_pool *source = source_pool(path), *target = small_open(NULL, 32);
    uint64_t copied;
    small_close(source);
    small_damage(path, small_frame_offset(16, 1), 1); /* the second block of `a` */
    source = small_open(path, 16);
    CHECK(dovecote_pool_adopt(target, source, &copied) == DOVECOTE_OK && copied == 5);
    CHECK(small_look(target, a, 12).matched == 4 && small_look(target, b, 10).matched == 10);
    small_close(source);
    small_close(target);
    small_forget();
}

static void pools_that_differ_or_are_in_use_are_refused(void) {
    dovecote_pool *source = source_pool(NULL), *target = small_open(NULL, 32), *other;
    dovecote_pool_config config = small_config(8);
    dovecote_lease *lease;
    config.fingerprint[0] ^= 1;
    CHECK(dovecote_pool_open(NULL, &config, &other, NULL) == DOVECOTE_OK);
    CHECK(dovecote_pool_adopt(other, source, NULL) == DOVECOTE_ERR_MISMATCH);
    small_close(other);
    CHECK(dovecote_pool_adopt(source, source, NULL) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_pool_adopt(source, target, NULL) == DOVECOTE_ERR_ARGUMENT); /* not empty */
    CHECK(dovecote_lease_open(source, 1, &lease) == DOVECOTE_OK);
    CHECK(dovecote_pool_adopt(target, source, NULL) == DOVECOTE_ERR_ARGUMENT);
    dovecote_lease_close(lease);
    CHECK(dovecote_pool_adopt(target, source, NULL) == DOVECOTE_OK);
    small_close(source);
    small_close(target);
}

static void a_failure_at_any_call_leaves_two_sound_pools(void) {
    dovecote_pool *source = source_pool(NULL);
    bool failed = true;
    for (long k = 1; failed; k++) {
        dovecote_pool *target = small_open(NULL, 32);
        uint64_t copied = 0;
        fault_arm(FAULT_FAIL, k, EIO);
        int rc = dovecote_pool_adopt(target, source, &copied);
        failed = fault_disarm() >= k;
        CHECK(rc == DOVECOTE_OK || rc == DOVECOTE_ERR_IO || rc == DOVECOTE_ERR_MEMORY);
        CHECK(small_is_sound(target) && small_is_sound(source));
        CHECK(small_stats(target).cached == copied);
        turn t = small_turn(target, a, 12);
        CHECK(t.rc == DOVECOTE_OK && t.exact && t.sealed == 12 && small_is_sound(target));
        small_close(target);
    }
    small_close(source);
}

int main(void) {
    RUN(a_larger_pool_takes_everything);
    RUN(a_smaller_pool_takes_the_chains_used_last);
    RUN(what_was_adopted_survives_closing);
    RUN(a_damaged_block_is_left_out_with_its_children);
    RUN(pools_that_differ_or_are_in_use_are_refused);
    RUN(a_failure_at_any_call_leaves_two_sound_pools);
    return SUMMARY();
}
