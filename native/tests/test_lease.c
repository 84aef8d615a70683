/* Leases: matching to the token, sharing, sealing, decoding. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "small.h"

/* 0 1 2 3 | 4 5 6 7 | ... */
static void count_up(uint32_t *tokens, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i;
}

static void a_sealed_chain_comes_back_exactly(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12];
    count_up(tokens, 12);
    turn first = small_turn(pool, tokens, 12);
    CHECK(first.rc == DOVECOTE_OK && first.matched == 0 && first.sealed == 12);
    CHECK(small_is_sound(pool));
    turn again = small_turn(pool, tokens, 12);
    CHECK(again.matched == 12 && again.valid == 12 && again.exact && again.sealed == 12);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.sealed_blocks == 3 && stats.cached == 3 && stats.free == 5 && stats.leased == 0);
    CHECK(stats.tokens == 12 && stats.matched_tokens == 12 && stats.decoded_tokens == 12);
    small_close(pool);
}

static void a_short_block_is_found_to_the_token(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[16];
    count_up(tokens, 16);
    CHECK(small_turn(pool, tokens, 7).sealed == 7);
    turn longer = small_look(pool, tokens, 16);
    CHECK(longer.matched == 7 && longer.exact);
    turn shorter = small_look(pool, tokens, 6);
    CHECK(shorter.matched == 6 && shorter.exact);
    small_close(pool);
}

static void a_prompt_that_diverges_inside_a_block_keeps_the_common_part(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12], other[12];
    count_up(tokens, 12);
    count_up(other, 12);
    other[6] = 99;
    small_turn(pool, tokens, 12);
    turn t = small_turn(pool, other, 12);
    CHECK(t.matched == 6 && t.valid == 6 && t.exact && t.sealed == 12);
    CHECK(small_is_sound(pool));
    CHECK(small_look(pool, tokens, 12).matched == 12);
    turn back = small_look(pool, other, 12);
    CHECK(back.matched == 12 && back.exact);
    CHECK(small_stats(pool).cached == 5); /* the first block is shared */
    small_close(pool);
}

static void a_prompt_may_diverge_in_its_first_block(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[8], other[8];
    count_up(tokens, 8);
    count_up(other, 8);
    other[2] = 99;
    small_turn(pool, tokens, 8);
    turn t = small_look(pool, other, 8);
    CHECK(t.matched == 2 && t.exact);
    other[0] = 98;
    CHECK(small_look(pool, other, 8).matched == 0);
    small_close(pool);
}

static void the_best_of_several_children_is_taken(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t a[8] = {0, 1, 2, 3, 4, 90, 91, 92}, b[8] = {0, 1, 2, 3, 4, 5, 6, 93};
    uint32_t c[8] = {0, 1, 2, 3, 4, 5, 94, 95}, asked[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    small_turn(pool, a, 8);
    small_turn(pool, b, 8);
    small_turn(pool, c, 8);
    turn t = small_look(pool, asked, 8);
    CHECK(t.matched == 7 && t.exact);
    small_close(pool);
}

static void a_longer_block_supersedes_the_short_one_it_continues(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12];
    count_up(tokens, 12);
    small_turn(pool, tokens, 5);
    small_turn(pool, tokens, 7);
    CHECK(small_stats(pool).superseded_blocks == 1 && small_stats(pool).cached == 2);
    turn t = small_turn(pool, tokens, 12);
    CHECK(t.matched == 7 && t.exact && t.sealed == 12);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.superseded_blocks == 2 && stats.cached == 3 && stats.free == 5);
    CHECK(stats.tokens == 12);
    small_close(pool);
}

static void a_short_block_that_a_longer_one_starts_with_is_not_written(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[8];
    count_up(tokens, 8);
    small_turn(pool, tokens, 8);
    turn t = small_turn(pool, tokens, 6);
    CHECK(t.sealed == 6 && t.rc == DOVECOTE_OK);
    CHECK(small_stats(pool).sealed_blocks == 2 && small_stats(pool).cached == 2);
    CHECK(small_stats(pool).shared_blocks == 1);
    small_close(pool);
}

static void chains_under_different_roots_never_share(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[6];
    uint8_t root[16] = {1}, other[16] = {2};
    count_up(tokens, 6);
    small_turn_under(pool, root, tokens, 6);
    CHECK(small_turn_under(pool, other, tokens, 6).matched == 0);
    CHECK(small_look(pool, tokens, 6).matched == 0);
    CHECK(small_turn_under(pool, root, tokens, 6).matched == 6);
    CHECK(small_stats(pool).cached == 4);
    small_close(pool);
}

static void two_leases_that_compute_the_same_block_share_one_frame(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *a, *b;
    uint32_t tokens[8];
    uint64_t matched, sealed;
    uint8_t tip_a[16], tip_b[16];
    row r;
    count_up(tokens, 8);
    row_compute(&r, tokens, 0, 8);
    CHECK(dovecote_lease_open(pool, 2, &a) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 2, &b) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(a, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 0);
    CHECK(dovecote_lease_match(b, NULL, tokens, 8, &matched) == DOVECOTE_OK && matched == 0);
    CHECK(dovecote_lease_seal(a, tokens, 8, r.planes, 0, &sealed) == DOVECOTE_OK && sealed == 8);
    CHECK(dovecote_lease_seal(b, tokens, 8, r.planes, 0, &sealed) == DOVECOTE_OK && sealed == 8);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.sealed_blocks == 2 && stats.shared_blocks == 2 && stats.leased == 2);
    CHECK(stats.promised == 0 && small_is_sound(pool));
    dovecote_lease_tip(a, tip_a);
    dovecote_lease_tip(b, tip_b);
    CHECK(memcmp(tip_a, tip_b, 16) == 0);
    dovecote_lease_close(a);
    CHECK(small_stats(pool).leased == 2 && small_is_sound(pool));
    dovecote_lease_close(b);
    CHECK(small_stats(pool).leased == 0 && small_stats(pool).cached == 2);
    small_close(pool);
}

static void tokens_and_tip_follow_the_chain(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *lease;
    uint32_t tokens[11];
    uint64_t matched, sealed;
    uint8_t tip[16], zeros[16] = {0}, first[16];
    row r;
    count_up(tokens, 11);
    row_compute(&r, tokens, 0, 11);
    small_turn(pool, tokens, 6);
    CHECK(dovecote_lease_open(pool, 3, &lease) == DOVECOTE_OK);
    dovecote_lease_tip(lease, tip);
    CHECK(memcmp(tip, zeros, 16) == 0 && dovecote_lease_tokens(lease) == 0);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 11, &matched) == DOVECOTE_OK);
    CHECK(matched == 6 && dovecote_lease_tokens(lease) == 6);
    dovecote_lease_tip(lease, first);
    CHECK(memcmp(first, zeros, 16) != 0);
    CHECK(dovecote_lease_seal(lease, NULL, 0, NULL, 0, &sealed) == DOVECOTE_OK && sealed == 4);
    CHECK(dovecote_lease_seal(lease, tokens + 4, 3, r.planes, 0, &sealed) == DOVECOTE_OK);
    CHECK(sealed == 4 &&
          dovecote_lease_tokens(lease) == 6); /* nothing was sealed: the tail stays */
    CHECK(dovecote_lease_seal(lease, tokens + 4, 7, r.planes, 1, &sealed) == DOVECOTE_OK);
    CHECK(sealed == 11 && dovecote_lease_tokens(lease) == 11);
    dovecote_lease_tip(lease, tip);
    CHECK(memcmp(tip, first, 16) != 0);
    CHECK(dovecote_lease_seal(lease, tokens, 1, r.planes, 1, &sealed) == DOVECOTE_ERR_ARGUMENT);
    CHECK(sealed == 11);
    dovecote_lease_close(lease);
    small_close(pool);
}

static void decoding_a_layer_range_touches_nothing_else(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *lease;
    uint32_t tokens[12];
    uint64_t matched, valid;
    row r, untouched;
    count_up(tokens, 12);
    small_turn(pool, tokens, 12);
    row_clear(&r);
    row_clear(&untouched);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 10, &matched) == DOVECOTE_OK && matched == 10);
    CHECK(dovecote_lease_decode(lease, 1, 2, 1, 2, r.planes + 2, &valid) == DOVECOTE_OK);
    CHECK(valid == 10 && memcmp(r.values, untouched.values, sizeof r.values / 2) == 0);
    CHECK(dovecote_lease_decode(lease, 0, 1, 0, 2, r.planes, &valid) == DOVECOTE_OK);
    CHECK(dovecote_lease_decode(lease, 1, 9, 0, 1, r.planes, &valid) == DOVECOTE_OK);
    CHECK(dovecote_lease_decode(lease, 2, 9, 1, 2, r.planes + 2, &valid) == DOVECOTE_OK);
    CHECK(valid == 10 && row_is_exact(&r, tokens, 0, 10) && !row_is_exact(&r, tokens, 10, 11));
    CHECK(small_stats(pool).decoded_tokens == 10);
    dovecote_lease_close(lease);
    small_close(pool);
}

/* A ring of two blocks in its second lap: its planes begin with position 8. */
static void planes_that_begin_later_hold_the_later_positions(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *lease;
    uint32_t tokens[16];
    uint64_t matched, valid;
    float ring[2 * LAYERS][HEADS][2 * BLOCK][DIM];
    dovecote_plane planes[2 * LAYERS];
    row r;
    count_up(tokens, 16);
    small_turn(pool, tokens, 16);
    row_clear(&r);
    row_compute(&r, tokens, 8, 16);
    memset(ring, 0, sizeof ring);
    for (int p = 0; p < 2 * LAYERS; p++)
        planes[p] = (dovecote_plane){.data = (void *)((uintptr_t)ring[p] - 8 * DIM * sizeof(float)),
                                     .head_stride = sizeof ring[p][0],
                                     .capacity = 16};
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 16, &matched) == DOVECOTE_OK && matched == 16);
    CHECK(dovecote_lease_decode(lease, 1, 4, 0, LAYERS, planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_decode(lease, 2, 4, 0, LAYERS, planes, &valid) == DOVECOTE_OK);
    CHECK(valid == 16);
    for (int p = 0; p < 2 * LAYERS; p++)
        for (int h = 0; h < HEADS; h++)
            CHECK(memcmp(ring[p][h], r.values[p][h][8], sizeof ring[p][h]) == 0);
    dovecote_lease_close(lease);
    small_close(pool);
}

static void planes_that_are_too_small_are_refused(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *lease;
    uint32_t tokens[8];
    uint64_t matched, valid, sealed;
    row r;
    count_up(tokens, 8);
    small_turn(pool, tokens, 8);
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 8, &matched) == DOVECOTE_OK);
    r.planes[1].capacity = 7;
    CHECK(dovecote_lease_decode(lease, 0, 2, 0, 1, r.planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_decode(lease, 0, 1, 0, 1, r.planes, &valid) == DOVECOTE_OK);
    r.planes[1].capacity = 8;
    r.planes[0].head_stride = 8 * DIM * 4 - 1;
    CHECK(dovecote_lease_decode(lease, 0, 2, 0, 1, r.planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    r.planes[0].data = NULL;
    CHECK(dovecote_lease_decode(lease, 0, 1, 0, 1, r.planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_decode(lease, 0, 1, 0, 3, r.planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_decode(lease, 1, 0, 0, 1, r.planes, &valid) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_seal(lease, tokens, 4, r.planes, 0, &sealed) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 8, &matched) == DOVECOTE_ERR_ARGUMENT);
    dovecote_lease_close(lease);
    small_close(pool);
}

static void nothing_asked_for_is_nothing_found(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    dovecote_lease *lease;
    uint32_t tokens[4];
    uint64_t matched, valid;
    row r;
    count_up(tokens, 4);
    small_turn(pool, tokens, 4);
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, NULL, 1, &matched) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_match(lease, NULL, NULL, 0, &matched) == DOVECOTE_OK && matched == 0);
    CHECK(!dovecote_lease_decode(lease, 0, 1, 0, LAYERS, r.planes, &valid) && valid == 0);
    CHECK(!dovecote_lease_decode(lease, 7, 9, 0, LAYERS, r.planes, &valid) && valid == 0);
    dovecote_lease_prefetch(lease);
    dovecote_lease_close(lease);
    small_close(pool);
}

/* A lease's buffer serves decoding before it serves sealing; none of that may reach the file. */
static void padding_is_zero_whatever_was_decoded_before(void) {
    const dovecote_layer layers[2] = {{1, 1, 1}, {HEADS, DIM, DIM}}; /* 32 bytes, then 512 */
    const char *path = small_path();
    dovecote_pool_config config = small_config(4);
    dovecote_pool *pool;
    uint32_t tokens[8];
    uint8_t bytes[32], zeros[32] = {0};
    config.layers = layers;
    count_up(tokens, 8);
    CHECK(dovecote_pool_open(path, &config, &pool, NULL) == DOVECOTE_OK);
    small_turn(pool, tokens, 4);
    turn t = small_turn(pool, tokens, 8);
    CHECK(t.valid == 4 && t.sealed == 8);
    small_close(pool);
    int fd = open(path, O_RDONLY);
    for (uint32_t frame = 0; frame < 2; frame++) {
        CHECK(pread(fd, bytes, 32, (off_t)small_frame_offset(4, frame) + 32) == 32);
        CHECK(memcmp(bytes, zeros, 32) == 0);
        CHECK(pread(fd, bytes, 32, (off_t)small_frame_offset(4, frame) + 64 + 512) == 32);
        CHECK(memcmp(bytes, zeros, 32) == 0);
    }
    close(fd);
    small_forget();
}

int main(void) {
    RUN(a_sealed_chain_comes_back_exactly);
    RUN(a_short_block_is_found_to_the_token);
    RUN(a_prompt_that_diverges_inside_a_block_keeps_the_common_part);
    RUN(a_prompt_may_diverge_in_its_first_block);
    RUN(the_best_of_several_children_is_taken);
    RUN(a_longer_block_supersedes_the_short_one_it_continues);
    RUN(a_short_block_that_a_longer_one_starts_with_is_not_written);
    RUN(chains_under_different_roots_never_share);
    RUN(two_leases_that_compute_the_same_block_share_one_frame);
    RUN(tokens_and_tip_follow_the_chain);
    RUN(decoding_a_layer_range_touches_nothing_else);
    RUN(planes_that_begin_later_hold_the_later_positions);
    RUN(planes_that_are_too_small_are_refused);
    RUN(nothing_asked_for_is_nothing_found);
    RUN(padding_is_zero_whatever_was_decoded_before);
    return SUMMARY();
}
