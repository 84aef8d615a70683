/* Looking for damage before a request meets it: what is found, what it costs the others. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 8 };

static const uint32_t ids[14] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
static const uint32_t others[32] = {70, 71, 72, 73, 74, 75, 76, 77, 78,  79, 80,
                                    81, 82, 83, 84, 85, 86, 87, 88, 89,  90, 91,
                                    92, 93, 94, 95, 96, 97, 98, 99, 100, 101};
static dovecote_pool *pool;
static bool met;

static dovecote_verified verify(uint32_t first_frame, uint32_t frames) {
    dovecote_verified v = {99, 99, 99};
    CHECK(dovecote_pool_verify(pool, first_frame, frames, &v) == DOVECOTE_OK &&
          small_is_sound(pool));
    return v;
}

/* A pool whose frames 0, 1, 2 hold a chain and frame 3 its short end; `damaged` are damaged. */
static void open_damaged(uint32_t start, uint32_t end) {
    const char *path = small_path();
    pool = small_open(path, FRAMES);
    CHECK(small_turn(pool, ids, 14).sealed == 14);
    small_close(pool);
    for (uint32_t f = start; f < end; f++)
        small_damage(path, small_frame_offset(FRAMES, f) + 100, 1);
    pool = small_open(path, FRAMES);
}

static void forget(void) {
    small_close(pool);
    small_forget();
}

static void a_sound_pool_stays_as_it_is(void) {
    open_damaged(0, 0);
    dovecote_verified v = verify(0, FRAMES);
    CHECK(v.checked == 4 && v.damaged == 0 && v.next_frame == FRAMES);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.cached == 4 && stats.miss_checksum == 0 && stats.leases == 0);
    CHECK(stats.bytes_read == 4 * PAGE && stats.bytes_written == 0);
    CHECK(small_look(pool, ids, 14).valid == 14);
    forget();
}

static void a_damaged_frame_goes_with_what_hangs_on_it(void) { /* P1 */
    for (uint32_t frame = 0; frame < 4; frame++) {
        open_damaged(frame, frame + 1);
        dovecote_verified v = verify(frame, 1);
        CHECK(v.checked == 1 && v.damaged == 1 && v.next_frame == frame + 1);
        dovecote_pool_stats stats = small_stats(pool);
        CHECK(stats.miss_checksum == 1 && stats.miss_orphan == 3 - frame && stats.cached == frame);
        CHECK(verify(0, FRAMES).damaged == 0);
        turn t = small_turn(pool, ids, 14);
        CHECK(t.matched == BLOCK * frame && t.exact && t.sealed == 14);
        forget();
    }
}

static void slices_meet_every_frame_once(void) {
    open_damaged(1, 4);
    uint32_t checked = 0, damaged = 0, slices = 0;
    for (uint32_t next = 0; next < FRAMES; slices++) {
        dovecote_verified v = verify(next, 3);
        checked += v.checked;
        damaged += v.damaged;
        next = v.next_frame;
    }
    CHECK(slices == 3 && checked == 2 && damaged == 1); /* the others went with the first */
    CHECK(small_stats(pool).free == FRAMES - 1);
    forget();
}

static void the_bounds_of_a_slice(void) {
    dovecote_verified v;
    open_damaged(0, 0);
    v = verify(FRAMES, 1);
    CHECK(v.checked == 0 && v.next_frame == FRAMES);
    v = verify(2, UINT32_MAX);
    CHECK(v.checked == 2 && v.next_frame == FRAMES);
    v = verify(2, 0);
    CHECK(v.checked == 0 && v.next_frame == 2);
    CHECK(dovecote_pool_verify(pool, FRAMES + 1, 1, &v) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_pool_verify(NULL, 0, 1, &v) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_pool_verify(pool, 0, 1, NULL) == DOVECOTE_ERR_ARGUMENT);
    forget();
}

static void a_short_block_that_only_memory_has_is_left_out(void) {
    pool = small_open(NULL, FRAMES);
    small_turn(pool, ids, 6);
    CHECK(verify(0, FRAMES).checked == 1);
    CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK && verify(0, FRAMES).checked == 2);
    small_close(pool);
}

static void damage_under_a_lease_dooms_the_frame(void) { /* P5 */
    dovecote_lease *lease;
    uint64_t matched;
    open_damaged(1, 2);
    CHECK(dovecote_lease_open(pool, 4, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, ids, 14, &matched) == DOVECOTE_OK && matched == 14);
    CHECK(verify(0, FRAMES).damaged == 1);
    CHECK(small_stats(pool).leased == 4 && small_stats(pool).cached == 0);
    CHECK(small_look(pool, ids, 14).matched == BLOCK);
    dovecote_lease_close(lease);
    CHECK(small_stats(pool).free == FRAMES - 1 && small_is_sound(pool));
    forget();
}

static void what_cannot_be_read_is_a_miss(void) {
    const char *path = small_path();
    pool = small_open(path, FRAMES);
    small_turn(pool, ids, 12);
    CHECK(truncate(path, (off_t)small_frame_offset(FRAMES, 2) + 10) == 0);
    dovecote_verified v = verify(0, FRAMES);
    CHECK(v.checked == 3 && v.damaged == 1 && small_stats(pool).miss_io == 1);
    CHECK(dovecote_pool_errno(pool) == EIO && small_look(pool, ids, 12).exact);
    forget();
}

/* Fills the pool with other blocks: each frame is freed and filled again. */
static void other_takes_every_frame(void) {
    met = true;
    CHECK(small_turn(pool, others, 32).sealed == 32);
}

/* At each call of a verification somebody else replaces all blocks: none of theirs may go. */
static void a_frame_refilled_meanwhile_is_left_alone(void) { /* P3 */
    met = true;
    for (long k = 1; met; k++) {
        dovecote_verified v;
        open_damaged(0, 1);
        met = false;
        fault_meet(k, other_takes_every_frame);
        CHECK(dovecote_pool_verify(pool, 0, FRAMES, &v) == DOVECOTE_OK);
        fault_disarm();
        CHECK(small_is_sound(pool));
        if (met) CHECK(small_look(pool, others, 32).valid == 32);
        forget();
    }
}

/* The k-th allocation or read fails: out of memory, or one miss that is counted. */
static void each_call_may_fail(void) {
    bool failed = true;
    for (long k = 1; failed; k++) {
        dovecote_verified v = {99, 99, 99};
        open_damaged(0, 0);
        fault_arm(FAULT_FAIL, k, EIO);
        int rc = dovecote_pool_verify(pool, 0, FRAMES, &v);
        failed = fault_disarm() >= k;
        CHECK(small_is_sound(pool));
        if (rc == DOVECOTE_ERR_MEMORY)
            CHECK(k <= 2 && v.checked == 99 && small_stats(pool).cached == 4);
        else
            CHECK(rc == DOVECOTE_OK && v.damaged == failed && small_stats(pool).miss_io == failed);
        CHECK(small_turn(pool, ids, 14).exact);
        forget();
    }
}

int main(void) {
    RUN(a_sound_pool_stays_as_it_is);
    RUN(a_damaged_frame_goes_with_what_hangs_on_it);
    RUN(slices_meet_every_frame_once);
    RUN(the_bounds_of_a_slice);
    RUN(a_short_block_that_only_memory_has_is_left_out);
    RUN(damage_under_a_lease_dooms_the_frame);
    RUN(what_cannot_be_read_is_a_miss);
    RUN(a_frame_refilled_meanwhile_is_left_alone);
    RUN(each_call_may_fail);
    return SUMMARY();
}
