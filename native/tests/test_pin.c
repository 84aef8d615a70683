/* Pins: evicted last, bounded, and in nobody's way. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "small.h"

/* Tokens start, start + 1, ... */
static uint32_t *run_of(uint32_t start) {
    static uint32_t tokens[CAPACITY];
    for (uint32_t i = 0; i < CAPACITY; i++)
        tokens[i] = start + i;
    return tokens;
}

static uint64_t pin(dovecote_pool *pool, const noted *chains, uint32_t count, uint64_t limit) {
    dovecote_chain given[4];
    uint64_t wanted = 99;
    for (uint32_t i = 0; i < count; i++)
        given[i] = small_chain(&chains[i]);
    CHECK(dovecote_pool_pin(pool, given, count, limit, &wanted) == DOVECOTE_OK);
    CHECK(small_is_sound(pool));
    return wanted;
}

static void a_pinned_chain_outlives_younger_ones(void) { /* P5 */
    dovecote_pool *pool = small_open(NULL, 6);
    noted n = small_noted_turn(pool, run_of(100), 10);
    CHECK(pin(pool, &n, 1, 3) == 3 && small_stats(pool).pinned == 3);
    for (uint32_t i = 2; i < 12; i++) {
        CHECK(small_turn(pool, run_of(100 * i), 8).sealed == 8);
        CHECK(small_is_sound(pool));
    }
    turn t = small_look(pool, run_of(100), 10);
    CHECK(t.valid == 10 && t.exact && small_stats(pool).pinned == 3);
    small_close(pool);
}

static void without_a_pin_it_is_evicted_as_ever(void) {
    dovecote_pool *pool = small_open(NULL, 6);
    noted n = small_noted_turn(pool, run_of(100), 10);
    pin(pool, &n, 1, 3);
    CHECK(small_turn(pool, run_of(200), 12).sealed == 12);
    CHECK(pin(pool, NULL, 0, 3) == 0 && small_stats(pool).pinned == 0);
    CHECK(small_turn(pool, run_of(300), 12).sealed == 12);
    CHECK(small_look(pool, run_of(100), 10).matched == 0); /* the oldest again */
    CHECK(small_look(pool, run_of(200), 12).matched == 12);
    small_close(pool);
}

static void pins_are_bounded_from_the_chain_s_start_on(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    noted chains[2] = {small_noted_turn(pool, run_of(100), 12),
                       small_noted_turn(pool, run_of(200), 8)};
    CHECK(pin(pool, chains, 2, 2) == 5 && small_stats(pool).pinned == 2);
    CHECK(small_turn(pool, run_of(300), 24).sealed == 24);
    CHECK(small_look(pool, run_of(100), 12).matched == 8);
    CHECK(small_look(pool, run_of(200), 8).matched == 0);
    CHECK(pin(pool, chains, 2, 0) == 2 && small_stats(pool).pinned == 0);
    small_close(pool);
}

static void a_pool_full_of_pins_admits_a_new_chain(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    noted chains[2] = {small_noted_turn(pool, run_of(100), 8),
                       small_noted_turn(pool, run_of(200), 8)};
    CHECK(pin(pool, chains, 2, 4) == 4 && small_stats(pool).pinned == 4);
    turn t = small_turn(pool, run_of(300), 8);
    CHECK(t.rc == DOVECOTE_OK && t.sealed == 8 && small_is_sound(pool));
    CHECK(small_stats(pool).pinned == 2); /* the older one fell, leaf first */
    CHECK(small_look(pool, run_of(200), 8).matched == 8);
    CHECK(small_turn(pool, run_of(400), 8).sealed == 8); /* in place of the one without a pin */
    CHECK(small_look(pool, run_of(200), 8).matched == 8);
    small_close(pool);
}

static void promises_do_not_ask_for_pins(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    noted n = small_noted_turn(pool, run_of(100), 16);
    dovecote_lease *lease;
    pin(pool, &n, 1, 4);
    CHECK(dovecote_lease_open(pool, 4, &lease) == DOVECOTE_OK);
    CHECK(small_is_sound(pool));
    dovecote_lease_close(lease);
    small_close(pool);
}

static void a_lease_and_a_pin_are_independent(void) {
    dovecote_pool *pool = small_open(NULL, 4);
    noted n = small_noted_turn(pool, run_of(100), 8);
    dovecote_lease *lease;
    uint64_t matched;
    CHECK(dovecote_lease_open(pool, 0, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_match(lease, NULL, run_of(100), 8, &matched) == 0 && matched == 8);
    pin(pool, &n, 1, 2);
    CHECK(small_stats(pool).leased == 2 && small_stats(pool).pinned == 2);
    pin(pool, NULL, 0, 2);
    CHECK(small_stats(pool).leased == 2);
    pin(pool, &n, 1, 2);
    dovecote_lease_close(lease);
    CHECK(small_is_sound(pool) && small_stats(pool).pinned == 2);
    CHECK(small_turn(pool, run_of(200), 16).rc == DOVECOTE_OK);
    CHECK(small_is_sound(pool) && small_stats(pool).pinned == 0);
    small_close(pool);
}

static void a_longer_block_takes_over_the_pin_of_the_short_one(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    noted n = small_noted_turn(pool, run_of(100), 6);
    pin(pool, &n, 1, 4);
    CHECK(small_turn(pool, run_of(100), 8).sealed == 8);
    CHECK(small_stats(pool).superseded_blocks == 1 && small_stats(pool).pinned == 2);
    CHECK(small_turn(pool, run_of(200), 24).sealed == 24);
    CHECK(small_look(pool, run_of(100), 6).matched == 6);
    CHECK(pin(pool, &n, 1, 4) == 2); /* and keeps it when pins are made anew */
    small_close(pool);
}

static void a_dropped_chain_takes_its_pins_along(void) {
    dovecote_pool *pool = small_open(NULL, 8);
    noted n = small_noted_turn(pool, run_of(100), 8);
    pin(pool, &n, 1, 4);
    const dovecote_chain chain = small_chain(&n);
    CHECK(dovecote_chain_drop(pool, &chain, 0, NULL) == DOVECOTE_OK);
    CHECK(small_is_sound(pool) && small_stats(pool).pinned == 0);
    small_close(pool);
}

/* Whatever is used, pinned and evicted in whatever order: P4, F3, F5 and F6 hold. */
static void any_order_of_turns_and_pins_is_sound(void) {
    static noted chains[6];
    srand(11);
    for (int round = 0; round < 40; round++) {
        dovecote_pool *pool = small_open(NULL, 10);
        memset(chains, 0, sizeof chains);
        for (int step = 0; step < 60; step++) {
            uint32_t which = (uint32_t)rand() % 6;
            if (rand() % 3) {
                uint64_t count = 1 + (uint64_t)(rand() % 20);
                /* Three families of two, which have their beginnings in common. */
                chains[which] = small_noted_turn(pool, run_of(100 * (which / 2)), count);
            } else {
                uint64_t limit = (uint64_t)(rand() % 8);
                pin(pool, &chains[which], 1 + (uint32_t)(which < 3) * (uint32_t)(rand() % 4),
                    limit);
                CHECK(small_stats(pool).pinned <= limit);
            }
            CHECK(small_is_sound(pool));
        }
        small_close(pool);
    }
}

int main(void) {
    RUN(a_pinned_chain_outlives_younger_ones);
    RUN(without_a_pin_it_is_evicted_as_ever);
    RUN(pins_are_bounded_from_the_chain_s_start_on);
    RUN(a_pool_full_of_pins_admits_a_new_chain);
    RUN(promises_do_not_ask_for_pins);
    RUN(a_lease_and_a_pin_are_independent);
    RUN(a_longer_block_takes_over_the_pin_of_the_short_one);
    RUN(a_dropped_chain_takes_its_pins_along);
    RUN(any_order_of_turns_and_pins_is_sound);
    return SUMMARY();
}
