/* Chains by their keys: what is left of them, what is their own, dropping, moving between pools. */
#include <string.h>

#include "harness.h"
#include "small.h"

static void count_up(uint32_t *tokens, uint32_t count, uint32_t start) {
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = start + i;
}

static dovecote_chain_stats look(dovecote_pool *pool, noted *n, uint32_t shared) {
    dovecote_chain_stats stats = {0};
    const dovecote_chain chain = small_chain(n);
    CHECK(dovecote_chain_look(pool, &chain, shared, &stats) == DOVECOTE_OK);
    return stats;
}

static uint32_t drop(dovecote_pool *pool, noted *n, uint32_t shared) {
    uint32_t freed = 99;
    const dovecote_chain chain = small_chain(n);
    CHECK(dovecote_chain_drop(pool, &chain, shared, &freed) == DOVECOTE_OK);
    CHECK(small_is_sound(pool));
    return freed;
}

static void a_chain_is_found_by_its_keys(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[10];
    count_up(tokens, 10, 0);
    noted n = small_noted_turn(pool, tokens, 10);
    dovecote_chain_stats stats = look(pool, &n, 0);
    CHECK(n.blocks == 3 && stats.blocks == 3 && stats.tokens == 10);
    CHECK(stats.own_blocks == 3 && stats.pinned_blocks == 0 && stats.superseded == 0);
    small_close(pool);
}

static void what_is_left_of_an_evicted_chain_is_a_prefix(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    uint32_t tokens[12], other[8];
    count_up(tokens, 12, 0);
    count_up(other, 8, 50);
    noted n = small_noted_turn(pool, tokens, 12);
    small_turn(pool, other, 8);
    dovecote_chain_stats stats = look(pool, &n, 0);
    CHECK(stats.blocks == 2 && stats.tokens == 8 && stats.own_blocks == 2);
    small_close(pool);
}

static void blocks_that_others_need_are_not_its_own(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12], other[12];
    count_up(tokens, 12, 0);
    count_up(other, 12, 0);
    other[9] = 77;
    noted one = small_noted_turn(pool, tokens, 12), two = small_noted_turn(pool, other, 12);
    CHECK(look(pool, &one, 0).own_blocks == 1 && look(pool, &two, 0).own_blocks == 1);
    CHECK(look(pool, &one, 3).own_blocks == 0); /* another name for all of it */
    CHECK(drop(pool, &one, 3) == 0);
    CHECK(drop(pool, &one, 2) == 1);
    turn t = small_look(pool, other, 12);
    CHECK(t.valid == 12 && t.exact);
    CHECK(look(pool, &two, 0).own_blocks == 3); /* nobody else is left */
    CHECK(drop(pool, &two, 0) == 3 && small_stats(pool).free == 8);
    CHECK(look(pool, &two, 0).blocks == 0 && drop(pool, &two, 0) == 0);
    small_close(pool);
}

static void leased_blocks_are_not_dropped(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12];
    uint64_t matched;
    dovecote_lease *lease;
    count_up(tokens, 12, 0);
    noted n = small_noted_turn(pool, tokens, 12);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, tokens, 8, &matched) == DOVECOTE_OK);
    CHECK(drop(pool, &n, 0) == 1);
    dovecote_lease_close(lease);
    CHECK(drop(pool, &n, 0) == 2);
    small_close(pool);
}

/* The longer block is somebody else's: it is counted, and neither dropped nor read. */
static void a_superseded_end_is_found_in_the_longer_block(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[12];
    uint64_t held;
    dovecote_lease *lease;
    count_up(tokens, 12, 0);
    noted n = small_noted_turn(pool, tokens, 6);
    noted longer = small_noted_turn(pool, tokens, 12);
    CHECK(small_stats(pool).superseded_blocks == 1);
    dovecote_chain_stats stats = look(pool, &n, 0);
    CHECK(stats.blocks == 2 && stats.tokens == 6 && stats.own_blocks == 0 && stats.superseded == 1);
    CHECK(drop(pool, &n, 0) == 0);
    const dovecote_chain chain = small_chain(&n);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_hold(lease, &chain, &held) == DOVECOTE_OK && held == 4);
    dovecote_lease_close(lease);
    CHECK(look(pool, &longer, 0).own_blocks == 3);
    small_close(pool);
}

static void a_superseded_first_block_is_found_too(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[4];
    count_up(tokens, 4, 0);
    noted n = small_noted_turn(pool, tokens, 3);
    small_turn(pool, tokens, 4);
    CHECK(look(pool, &n, 0).tokens == 3);
    tokens[1] = 9;
    noted other = small_noted_turn(pool, tokens, 2);
    drop(pool, &other, 0);
    CHECK(look(pool, &other, 0).tokens == 0);
    small_close(pool);
}

/* Returns what reading the chain's blocks one by one and writing them elsewhere came to. */
static int copy(dovecote_pool *from, noted *n, dovecote_pool *to, uint64_t *tokens) {
    dovecote_lease *source, *target;
    uint32_t ids[BLOCK], count;
    uint8_t payload[PAGE];
    const dovecote_chain chain = small_chain(n);
    CHECK(dovecote_lease_open(from, 0, &source) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(to, chain.blocks, &target) == DOVECOTE_OK);
    int rc = dovecote_lease_hold(source, &chain, tokens);
    for (uint32_t i = 0; rc == DOVECOTE_OK && i < chain.blocks; i++) {
        rc = dovecote_lease_read(source, i, ids, &count, payload);
        if (rc == DOVECOTE_OK) rc = dovecote_lease_write(target, ids, count, payload);
    }
    CHECK(small_is_sound(from) && small_is_sound(to));
    dovecote_lease_close(source);
    dovecote_lease_close(target);
    return rc;
}

static void a_chain_moves_to_another_pool_block_by_block(void) {
    dovecote_pool *from = small_open(NULL, 8), *to = small_open(NULL, 8);
    uint32_t tokens[10];
    uint64_t held;
    count_up(tokens, 10, 0);
    noted n = small_noted_turn(from, tokens, 10);
    CHECK(copy(from, &n, to, &held) == DOVECOTE_OK && held == 10);
    turn t = small_look(to, tokens, 10);
    CHECK(t.valid == 10 && t.exact);
    CHECK(copy(from, &n, to, &held) == DOVECOTE_OK); /* again: all is there already */
    CHECK(small_stats(to).cached == 3 && small_stats(to).shared_blocks == 3);
    CHECK(copy(from, &n, from, &held) == DOVECOTE_OK);
    small_close(from);
    small_close(to);
}

static void a_damaged_block_is_not_read(void) { /* P1 */
    const char *path = small_path();
    dovecote_pool *from = small_open(path, 8), *to = small_open(NULL, 8);
    uint32_t tokens[10];
    uint64_t held;
    count_up(tokens, 10, 0);
    noted n = small_noted_turn(from, tokens, 10);
    small_close(from);
    small_damage(path, small_frame_offset(8, 1), 1);
    from = small_open(path, 8);
    CHECK(copy(from, &n, to, &held) == DOVECOTE_ERR_IO);
    CHECK(dovecote_pool_errno(from) == 0 && small_stats(from).miss_checksum == 1);
    CHECK(look(from, &n, 0).blocks == 1 && small_stats(to).cached == 1);
    small_close(from);
    small_close(to);
    small_forget();
}

static void holding_breaks_no_promise(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    uint32_t tokens[12];
    uint64_t held = 99;
    dovecote_lease *greedy, *lease;
    count_up(tokens, 12, 0);
    noted n = small_noted_turn(pool, tokens, 12);
    const dovecote_chain chain = small_chain(&n);
    CHECK(dovecote_lease_open(pool, 3, &greedy) == DOVECOTE_OK);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_hold(lease, &chain, &held) == DOVECOTE_ERR_FULL && held == 99);
    CHECK(small_is_sound(pool) && small_stats(pool).leased == 0);
    CHECK(dovecote_lease_tokens(lease) == 0);
    dovecote_lease_close(greedy);
    CHECK(dovecote_lease_hold(lease, &chain, &held) == DOVECOTE_OK && held == 12);
    CHECK(dovecote_lease_hold(lease, &chain, &held) == DOVECOTE_ERR_ARGUMENT);
    dovecote_lease_close(lease);
    small_close(pool);
}

static void a_held_chain_tells_its_root(void) {
    static const uint8_t under[16] = {9};
    dovecote_pool *pool = small_open(NULL, 8);
    uint32_t tokens[8];
    uint64_t count;
    uint8_t root[16];
    noted n = {.tokens = 8};
    dovecote_lease *lease;
    count_up(tokens, 8, 0);
    small_turn_under(pool, under, tokens, 8);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, under, tokens, 8, &count) == DOVECOTE_OK && count == 8);
    n.blocks = dovecote_lease_keys(lease, n.keys[0], SMALL_NOTED);
    dovecote_lease_close(lease);
    const dovecote_chain chain = small_chain(&n);
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_hold(lease, &chain, &count) == DOVECOTE_OK && count == 8);
    dovecote_lease_root(lease, root);
    CHECK(memcmp(root, under, sizeof root) == 0);
    dovecote_lease_close(lease);
    small_close(pool);
}

static void keys_go_on_naming_the_chain_in_a_resized_pool(void) {
    const char *path = small_path();
    dovecote_pool *from = small_open(NULL, 8), *to = small_open(path, 16);
    uint32_t tokens[10];
    count_up(tokens, 10, 0);
    noted n = small_noted_turn(from, tokens, 10);
    CHECK(dovecote_pool_adopt(to, from, NULL) == DOVECOTE_OK);
    CHECK(look(to, &n, 0).tokens == 10);
    small_close(to);
    to = small_open(path, 16);
    CHECK(look(to, &n, 0).tokens == 10);
    turn t = small_turn(to, tokens, 10);
    CHECK(t.valid == 10 && t.exact && small_stats(to).sealed_blocks == 0);
    small_close(to);
    small_close(from);
    small_forget();
}

static void arguments_are_checked(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    uint8_t keys[32] = {0}, payload[PAGE];
    uint32_t ids[BLOCK] = {0}, count;
    uint64_t held;
    dovecote_lease *lease;
    dovecote_chain_stats stats;
    const dovecote_chain wrong[] = {{keys, 2, 4}, {keys, 1, 5}, {NULL, 1, 4}, {keys, 0, 1}};
    CHECK(dovecote_lease_open(pool, 1, &lease) == DOVECOTE_OK);
    for (int i = 0; i < 4; i++) {
        CHECK(dovecote_chain_look(pool, &wrong[i], 0, &stats) == DOVECOTE_ERR_ARGUMENT);
        CHECK(dovecote_chain_drop(pool, &wrong[i], 0, NULL) == DOVECOTE_ERR_ARGUMENT);
        CHECK(dovecote_pool_pin(pool, &wrong[i], 1, 1, &held) == DOVECOTE_ERR_ARGUMENT);
        CHECK(dovecote_lease_hold(lease, &wrong[i], &held) == DOVECOTE_ERR_ARGUMENT);
    }
    CHECK(dovecote_lease_read(lease, 0, ids, &count, payload) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_write(lease, ids, 0, payload) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_lease_write(lease, ids, BLOCK + 1, payload) == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_chain_look(pool, &(dovecote_chain){NULL, 0, 0}, 0, &stats) == DOVECOTE_OK);
    dovecote_lease_close(lease);
    small_close(pool);
}

int main(void) {
    RUN(a_chain_is_found_by_its_keys);
    RUN(what_is_left_of_an_evicted_chain_is_a_prefix);
    RUN(blocks_that_others_need_are_not_its_own);
    RUN(leased_blocks_are_not_dropped);
    RUN(a_superseded_end_is_found_in_the_longer_block);
    RUN(a_superseded_first_block_is_found_too);
    RUN(a_chain_moves_to_another_pool_block_by_block);
    RUN(a_damaged_block_is_not_read);
    RUN(holding_breaks_no_promise);
    RUN(a_held_chain_tells_its_root);
    RUN(keys_go_on_naming_the_chain_in_a_resized_pool);
    RUN(arguments_are_checked);
    return SUMMARY();
}
