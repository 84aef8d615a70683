/* Short blocks in memory: what they save, and what a kill costs (P7). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 4, BIG_DIM = 1 << 16, BIG_FRAME = 2 * BIG_DIM * 4 * BLOCK };

static const uint32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static const uint32_t other[6] = {51, 52, 53, 54, 55, 56};

static uint64_t written(dovecote_pool *pool) {
    return small_stats(pool).bytes_written;
}

static void a_chain_that_grows_writes_each_block_once(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    for (uint64_t count = 1; count <= 12; count++) {
        turn t = small_turn(pool, ids, count);
        CHECK(t.rc == DOVECOTE_OK && t.matched == count - 1 && t.exact && t.sealed == count);
        CHECK(written(pool) == count / BLOCK * (PAGE + RECORD) && small_is_sound(pool));
        CHECK(small_stats(pool).held_bytes == (count % BLOCK ? PAGE : 0));
    }
    CHECK(small_stats(pool).superseded_blocks == 9);
    small_close(pool);
}

static void a_flush_writes_a_short_block_once(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    small_turn(pool, ids, 6);
    CHECK(written(pool) == PAGE + RECORD);
    CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK);
    uint64_t once = written(pool);
    CHECK(once >= 2 * (PAGE + RECORD) && small_stats(pool).held_bytes == 0);
    CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK && written(pool) == once);
    turn t = small_look(pool, ids, 12);
    CHECK(t.matched == 6 && t.valid == 6 && t.exact);
    small_close(pool);
}

static uint32_t flush_held(dovecote_pool *pool, uint64_t mark, uint32_t limit) {
    uint32_t left = 99;
    CHECK(dovecote_pool_flush_held(pool, mark, limit, &left) == DOVECOTE_OK &&
          small_is_sound(pool));
    return left;
}

static void a_mark_tells_old_short_blocks_from_new_ones(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    uint64_t start = dovecote_pool_held_mark(pool);
    small_turn(pool, ids, 2);
    uint64_t mark = dovecote_pool_held_mark(pool);
    small_turn(pool, other, 3);
    CHECK(flush_held(pool, start, 9) == 0 && written(pool) == 0);
    CHECK(flush_held(pool, mark, 0) == 1 && written(pool) == 0);
    CHECK(flush_held(pool, mark, 9) == 0 && written(pool) == PAGE + RECORD);
    CHECK(small_stats(pool).held_bytes == PAGE);
    CHECK(flush_held(pool, UINT64_MAX, 9) == 0 && small_stats(pool).held_bytes == 0);
    CHECK(small_look(pool, ids, 2).exact && small_look(pool, other, 3).exact);
    CHECK(dovecote_pool_flush_held(pool, 0, 0, NULL) == DOVECOTE_ERR_ARGUMENT);
    small_close(pool);
}

static void old_short_blocks_are_written_a_few_at_a_time(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    for (uint32_t i = 0; i < 3; i++)
        small_turn(pool, &ids[3 * i], 2);
    CHECK(flush_held(pool, UINT64_MAX, 2) == 1);
    CHECK(flush_held(pool, UINT64_MAX, 2) == 0 && small_stats(pool).held_bytes == 0);
    small_close(pool);
}

static void a_short_block_under_a_lease_is_not_waited_for(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    dovecote_lease *lease;
    uint64_t matched;
    small_turn(pool, ids, 2);
    CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, ids, 12, &matched) == DOVECOTE_OK && matched == 2);
    CHECK(flush_held(pool, UINT64_MAX, 9) == 0 && small_stats(pool).held_bytes == PAGE);
    dovecote_lease_close(lease);
    CHECK(flush_held(pool, UINT64_MAX, 9) == 0 && small_stats(pool).held_bytes == 0);
    small_close(pool);
}

static void an_old_short_block_that_cannot_be_written_stays(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    uint32_t left = 99;
    small_turn(pool, ids, 2);
    fault_arm(FAULT_FROM, 1, ENOSPC);
    CHECK(dovecote_pool_flush_held(pool, UINT64_MAX, 9, &left) == DOVECOTE_ERR_IO && left == 99);
    fault_disarm();
    CHECK(dovecote_pool_errno(pool) == ENOSPC && small_stats(pool).held_bytes == PAGE);
    CHECK(small_look(pool, ids, 2).exact && flush_held(pool, UINT64_MAX, 9) == 0);
    small_close(pool);
}

/* Runs `work` in a process that dies without closing its pool, which stays reachable: no leak. */
static dovecote_pool *volatile left_open;

static void and_die(const char *path, void (*work)(dovecote_pool *)) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        left_open = small_open(path, FRAMES);
        work(left_open);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void keep_six(dovecote_pool *pool) {
    small_turn(pool, ids, 6);
}

static void keep_six_and_flush(dovecote_pool *pool) {
    small_turn(pool, ids, 6);
    (void)dovecote_pool_flush(pool);
}

static void a_kill_costs_the_short_blocks_that_were_not_flushed(void) { /* P7 */
    void (*const works[])(dovecote_pool *) = {keep_six, keep_six_and_flush};
    for (int i = 0; i < 2; i++) {
        const char *path = small_path();
        and_die(path, works[i]);
        dovecote_pool *pool = small_open(path, FRAMES);
        turn t = small_look(pool, ids, 12);
        CHECK(t.matched == (i ? 6 : 4) && t.valid == t.matched && t.exact);
        small_close(pool);
        small_forget();
    }
}

static void closing_writes_short_blocks(void) {
    const char *path = small_path();
    for (uint64_t found = 0; found <= 6; found += 6) {
        dovecote_pool *pool = small_open(path, FRAMES);
        turn t = small_turn(pool, ids, 6);
        CHECK(t.matched == found && t.valid == found && t.exact);
        small_close(pool);
    }
    small_forget();
}

static void fill_and_hold(dovecote_pool *pool) {
    for (uint32_t first = 100; first < 100 + 10 * FRAMES; first += 10) {
        uint32_t tokens[BLOCK] = {first, first + 1, first + 2, first + 3};
        small_turn(pool, tokens, BLOCK);
    }
    small_turn(pool, other, 2); /* evicts the first of them */
}

static void a_kill_brings_back_what_a_short_block_in_memory_had_evicted(void) { /* P7 */
    const char *path = small_path();
    const uint32_t first[BLOCK] = {100, 101, 102, 103};
    and_die(path, fill_and_hold);
    dovecote_pool *pool = small_open(path, FRAMES);
    turn t = small_look(pool, first, BLOCK);
    CHECK(t.valid == BLOCK && t.exact && small_look(pool, other, 2).matched == 0);
    fill_and_hold(pool);
    CHECK(small_look(pool, first, BLOCK).matched == 0);
    small_close(pool);
    pool = small_open(path, FRAMES);
    CHECK(small_look(pool, first, BLOCK).matched == 0);
    t = small_look(pool, other, 2);
    CHECK(t.valid == 2 && t.exact);
    small_close(pool);
    small_forget();
}

static void a_flush_leaves_out_what_a_lease_uses(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    dovecote_lease *lease;
    uint64_t matched, valid;
    row r;
    small_turn(pool, ids, 6);
    row_clear(&r);
    CHECK(dovecote_lease_open(pool, 1, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, ids, 12, &matched) == DOVECOTE_OK && matched == 6);
    CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK && small_stats(pool).held_bytes == PAGE);
    CHECK(dovecote_lease_decode(lease, 0, 9, 0, LAYERS, r.planes, &valid) == DOVECOTE_OK);
    CHECK(valid == 6 && row_is_exact(&r, ids, 0, 6));
    dovecote_lease_close(lease);
    CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK && small_stats(pool).held_bytes == 0);
    small_close(pool);
}

static void a_flush_that_fails_loses_nothing(void) {
    for (long k = 1; k <= 2; k++) { /* payload, record */
        dovecote_pool *pool = small_open(NULL, FRAMES);
        small_turn(pool, other, 2);
        fault_arm(FAULT_FROM, k, ENOSPC);
        CHECK(dovecote_pool_flush(pool) == DOVECOTE_ERR_IO && dovecote_pool_errno(pool) == ENOSPC);
        fault_disarm();
        CHECK(small_stats(pool).write_errors == 1 && small_stats(pool).held_bytes == PAGE);
        turn t = small_look(pool, other, 6);
        CHECK(t.valid == 2 && t.exact && small_is_sound(pool));
        CHECK(dovecote_pool_flush(pool) == DOVECOTE_OK && small_stats(pool).held_bytes == 0);
        CHECK(small_look(pool, other, 6).exact);
        small_close(pool);
    }
}

static void without_memory_a_short_block_is_written(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    dovecote_lease *lease;
    uint64_t sealed;
    row r;
    row_compute(&r, other, 0, 2);
    CHECK(dovecote_lease_open(pool, 1, &lease) == DOVECOTE_OK);
    fault_arm(FAULT_FAIL, 2, ENOMEM); /* the first call makes room in the chain */
    CHECK(dovecote_lease_seal(lease, other, 2, r.planes, 1, &sealed) == DOVECOTE_OK);
    fault_disarm();
    dovecote_lease_close(lease);
    CHECK(sealed == 2 && written(pool) == PAGE + RECORD && small_stats(pool).held_bytes == 0);
    small_close(pool);
}

static void no_more_than_64_MiB_are_held(void) {
    const dovecote_layer layer = {1, BIG_DIM, BIG_DIM};
    dovecote_pool_config config = small_config(FRAMES);
    uint64_t limit = (uint64_t)64 << 20, most = limit / BIG_FRAME;
    float *values = calloc((size_t)BIG_DIM * BLOCK, sizeof *values);
    dovecote_plane planes[2] = {{values, 0, BLOCK}, {values, 0, BLOCK}};
    dovecote_pool *pool;
    config.layers = &layer;
    config.layer_count = 1;
    config.size_bytes = 2 * limit;
    CHECK(values && dovecote_pool_open(NULL, &config, &pool, NULL) == DOVECOTE_OK);
    for (uint32_t i = 0; i < most + 3; i++) {
        dovecote_lease *lease;
        uint32_t token = 1000 + i;
        CHECK(dovecote_lease_open(pool, 1, &lease) == DOVECOTE_OK);
        CHECK(dovecote_lease_seal(lease, &token, 1, planes, 1, NULL) == DOVECOTE_OK);
        dovecote_lease_close(lease);
        CHECK(small_stats(pool).held_bytes <= limit);
    }
    CHECK(small_stats(pool).held_bytes == limit);
    CHECK(written(pool) >= 3 * (uint64_t)BIG_FRAME && written(pool) < 4 * (uint64_t)BIG_FRAME);
    small_close(pool);
    free(values);
}

int main(void) {
    RUN(a_chain_that_grows_writes_each_block_once);
    RUN(a_flush_writes_a_short_block_once);
    RUN(a_mark_tells_old_short_blocks_from_new_ones);
    RUN(old_short_blocks_are_written_a_few_at_a_time);
    RUN(a_short_block_under_a_lease_is_not_waited_for);
    RUN(an_old_short_block_that_cannot_be_written_stays);
    RUN(a_kill_costs_the_short_blocks_that_were_not_flushed);
    RUN(closing_writes_short_blocks);
    RUN(a_kill_brings_back_what_a_short_block_in_memory_had_evicted);
    RUN(a_flush_leaves_out_what_a_lease_uses);
    RUN(a_flush_that_fails_loses_nothing);
    RUN(without_memory_a_short_block_is_written);
    RUN(no_more_than_64_MiB_are_held);
    return SUMMARY();
}
