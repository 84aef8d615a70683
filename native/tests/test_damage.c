/* Whatever byte of a pool file is damaged: a miss that is counted or a pool that does not open, and
 * never a wrong value. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "small.h"

enum { FRAMES = 8 };

static const uint32_t tokens[12] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* A closed pool at `path` whose frames 0, 1, 2 hold the chain of `tokens`. */
static const char *sealed_pool(void) {
    const char *path = small_path();
    dovecote_pool *pool = small_open(path, FRAMES);
    CHECK(small_turn(pool, tokens, 12).sealed == 12);
    small_close(pool);
    return path;
}

static void a_damaged_header_does_not_open(void) {
    const char *path = sealed_pool();
    dovecote_pool_config config = small_config(FRAMES);
    dovecote_pool *pool;
    for (uint64_t offset = 0; offset < PAGE; offset++) {
        small_damage(path, offset, 1);
        CHECK(dovecote_pool_open(path, &config, &pool, NULL) == DOVECOTE_ERR_FORMAT);
        small_damage(path, offset, 1);
    }
    pool = small_open(path, FRAMES);
    CHECK(small_look(pool, tokens, 12).exact);
    small_close(pool);
    small_forget();
}

static void a_damaged_record_is_a_miss_and_takes_its_children_along(void) { /* P1 */
    for (uint32_t frame = 0; frame < 3; frame++)
        for (uint64_t byte = 0; byte < RECORD; byte++) {
            const char *path = sealed_pool();
            small_damage(path, small_record_offset(frame) + byte, 1);
            dovecote_pool *pool = small_open(path, FRAMES);
            dovecote_pool_stats stats = small_stats(pool);
            CHECK(stats.miss_checksum == 1 && stats.miss_orphan == 2 - frame);
            CHECK(stats.cached == frame && stats.free == FRAMES - frame);
            turn t = small_turn(pool, tokens, 12);
            CHECK(t.rc == DOVECOTE_OK && t.matched == 4 * frame && t.exact && t.sealed == 12);
            small_close(pool);
            pool = small_open(path, FRAMES);
            CHECK(small_stats(pool).miss_checksum == 0 && small_look(pool, tokens, 12).exact);
            small_close(pool);
            small_forget();
        }
}

static void a_damaged_section_ends_the_lease_before_it(void) { /* P1 */
    for (uint32_t frame = 0; frame < 3; frame++)
        for (uint64_t byte = 0; byte < 1024; byte += 61) { /* 1024 bytes of sections */
            const char *path = sealed_pool();
            small_damage(path, small_frame_offset(FRAMES, frame) + byte, 1);
            dovecote_pool *pool = small_open(path, FRAMES);
            turn t = small_turn(pool, tokens, 12);
            CHECK(t.rc == DOVECOTE_OK && t.matched == 12 && t.valid == 4 * frame && t.exact);
            CHECK(t.sealed == 12 && small_is_sound(pool));
            dovecote_pool_stats stats = small_stats(pool);
            CHECK(stats.miss_checksum == 1 && stats.miss_orphan == 2 - frame);
            t = small_turn(pool, tokens, 12);
            CHECK(t.valid == 12 && t.exact);
            small_close(pool);
            small_forget();
        }
}

static void damage_in_padding_goes_unnoticed(void) {
    const char *path = sealed_pool();
    small_damage(path, small_frame_offset(FRAMES, 0) + 1024, 1);
    dovecote_pool *pool = small_open(path, FRAMES);
    turn t = small_look(pool, tokens, 12);
    CHECK(t.valid == 12 && t.exact);
    small_close(pool);
    small_forget();
}

static void a_damaged_layer_does_not_hurt_before_it_is_read(void) {
    const char *path = sealed_pool();
    small_damage(path, small_frame_offset(FRAMES, 1) + 512, 1); /* layer 1 */
    dovecote_pool *pool = small_open(path, FRAMES);
    dovecote_lease *lease;
    uint64_t matched, valid;
    row r;
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 12, &matched) == DOVECOTE_OK);
    CHECK(dovecote_lease_decode(lease, 0, 3, 0, 1, r.planes, &valid) == DOVECOTE_OK && valid == 12);
    CHECK(dovecote_lease_decode(lease, 0, 3, 1, 2, r.planes + 2, &valid) == DOVECOTE_OK);
    CHECK(valid == 4 && row_is_exact(&r, tokens, 0, 4) && dovecote_lease_tokens(lease) == 4);
    dovecote_lease_close(lease);
    small_close(pool);
    small_forget();
}

static void a_truncated_pool_does_not_open(void) {
    const char *path = sealed_pool();
    dovecote_pool_config config = small_config(0);
    dovecote_pool *pool;
    for (uint64_t size = small_size(FRAMES); size > 0; size -= 512) {
        CHECK(truncate(path, (off_t)size - 1) == 0);
        CHECK(dovecote_pool_open(path, &config, &pool, NULL) == DOVECOTE_ERR_FORMAT);
    }
    small_forget();
}

static void a_file_cut_off_while_open_is_a_miss(void) {
    const char *path = sealed_pool();
    dovecote_pool *pool = small_open(path, FRAMES);
    CHECK(truncate(path, (off_t)small_frame_offset(FRAMES, 1) + 100) == 0);
    turn t = small_look(pool, tokens, 12);
    CHECK(t.matched == 12 && t.valid == 4 && t.exact);
    CHECK(small_stats(pool).miss_io == 1 && small_stats(pool).miss_orphan == 1);
    CHECK(dovecote_pool_errno(pool) == EIO);
    small_close(pool);
    small_forget();
}

static int seal_rest(dovecote_lease *lease, const uint32_t *ids, uint64_t count, uint64_t *sealed) {
    row r;
    row_compute(&r, ids, 0, count);
    dovecote_lease_seal(lease, NULL, 0, NULL, 0, sealed);
    return dovecote_lease_seal(lease, ids + *sealed, count - *sealed, r.planes, 0, sealed);
}

/* One lease finds the damage; another keeps its chain's positions, but can seal nothing on it. */
static void a_chain_found_damaged_under_another_lease_is_doomed(void) { /* P5 */
    const uint32_t more[16] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    const char *path = sealed_pool();
    small_damage(path, small_frame_offset(FRAMES, 1), 1);
    dovecote_pool *pool = small_open(path, FRAMES);
    dovecote_lease *finder, *other;
    uint64_t matched, valid, sealed;
    row r;
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 4, &finder) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 4, &other) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(finder, NULL, more, 16, &matched) == DOVECOTE_OK && matched == 12);
    CHECK(dovecote_lease_match(other, NULL, more, 16, &matched) == DOVECOTE_OK && matched == 12);
    CHECK(dovecote_lease_decode(finder, 0, 3, 0, 2, r.planes, &valid) == DOVECOTE_OK && valid == 4);
    CHECK(small_is_sound(pool) && small_stats(pool).leased == 3);
    CHECK(seal_rest(finder, more, 16, &sealed) == DOVECOTE_OK && sealed == 16);
    CHECK(seal_rest(other, more, 16, &sealed) == DOVECOTE_ERR_IO && sealed == 12);
    CHECK(dovecote_pool_errno(pool) == EIO && small_is_sound(pool));
    CHECK(dovecote_pool_sync(pool) == DOVECOTE_OK);
    CHECK(dovecote_lease_decode(other, 0, 3, 0, 2, r.planes, &valid) == DOVECOTE_OK && valid == 4);
    CHECK(small_stats(pool).miss_checksum == 1 && small_is_sound(pool));
    CHECK(seal_rest(other, more, 16, &sealed) == DOVECOTE_OK && sealed == 16);
    dovecote_lease_close(other);
    dovecote_lease_close(finder);
    CHECK(small_stats(pool).leased == 0 && small_stats(pool).cached == 4);
    turn t = small_look(pool, more, 16);
    CHECK(t.valid == 16 && t.exact);
    small_close(pool);
    small_forget();
}

/* The lost blocks' frames stay with the other lease, so there is nothing to promise again. */
static void a_promise_is_taken_back_only_if_a_frame_is_spare(void) { /* P4 */
    const char *path = small_path();
    dovecote_pool *pool = small_open(path, 3);
    dovecote_lease *finder, *other;
    uint64_t matched, valid, sealed;
    row r;
    small_turn(pool, tokens, 12);
    small_close(pool);
    small_damage(path, small_frame_offset(3, 0), 1);
    pool = small_open(path, 3);
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 0, &other) == DOVECOTE_OK);
    CHECK(!dovecote_lease_match(other, NULL, tokens, 12, &matched) && matched == 12);
    CHECK(dovecote_lease_open(pool, 0, &finder) == DOVECOTE_OK);
    CHECK(!dovecote_lease_match(finder, NULL, tokens, 12, &matched) && matched == 12);
    CHECK(!dovecote_lease_decode(finder, 0, 3, 0, 2, r.planes, &valid) && valid == 0);
    CHECK(small_is_sound(pool) && small_stats(pool).promised == 0);
    CHECK(seal_rest(finder, tokens, 12, &sealed) == DOVECOTE_ERR_FULL && sealed == 0);
    dovecote_lease_close(other);
    dovecote_lease_close(finder);
    CHECK(small_stats(pool).free == 3);
    small_close(pool);
    small_forget();
}

int main(void) {
    RUN(a_damaged_header_does_not_open);
    RUN(a_damaged_record_is_a_miss_and_takes_its_children_along);
    RUN(a_damaged_section_ends_the_lease_before_it);
    RUN(damage_in_padding_goes_unnoticed);
    RUN(a_damaged_layer_does_not_hurt_before_it_is_read);
    RUN(a_truncated_pool_does_not_open);
    RUN(a_file_cut_off_while_open_is_a_miss);
    RUN(a_chain_found_damaged_under_another_lease_is_doomed);
    RUN(a_promise_is_taken_back_only_if_a_frame_is_spare);
    return SUMMARY();
}
