/* dc_frames_restore on tables that nobody wrote with good intent: duplicates, loops, wrong depths,
 * short parents. Records may say anything; what comes out is a sound tree. */
#include <stdlib.h>
#include <string.h>

#include "dovecote.h"
#include "frames.h"
#include "harness.h"

enum { FRAMES = 12, BLOCK = 4 };

static dc_frames frames;

static void begin(void) {
    CHECK(dc_frames_init(&frames, FRAMES, BLOCK, 1) == DOVECOTE_OK);
}

/* Frame f says: my key is `key`, my parent's `above`. */
static void claim(uint32_t f, uint8_t key, uint8_t above, uint32_t depth, uint32_t tokens) {
    dc_frame *frame = &frames.at[f];
    memset(frame->key, key, DC_KEY_BYTES);
    memset(frame->parent_key, above, DC_KEY_BYTES);
    frame->depth = depth;
    frame->tokens = (uint16_t)tokens;
    frame->sequence = f;
    frame->state = DC_SEALED;
    for (uint32_t i = 0; i < tokens; i++)
        dc_frames_ids(&frames, f)[i] = key;
}

static void end(uint32_t sealed, uint32_t expected_orphans) {
    uint32_t orphans;
    CHECK(dc_frames_restore(&frames, &orphans) == DOVECOTE_OK);
    CHECK(dc_frames_check(&frames) == DOVECOTE_OK);
    CHECK(orphans == expected_orphans);
    CHECK(frames.cached == sealed && frames.free == FRAMES - sealed);
    dc_frames_free(&frames);
}

static void a_chain_is_restored_from_its_records(void) {
    begin();
    claim(3, 1, 0, 0, BLOCK);
    claim(1, 2, 1, 1, BLOCK);
    claim(2, 3, 2, 2, 1);
    end(3, 0);
}

static void a_parent_is_as_young_as_its_youngest_descendant(void) {
    begin();
    claim(1, 1, 0, 0, BLOCK);
    claim(9, 2, 1, 1, BLOCK);
    claim(5, 3, 0, 0, BLOCK);
    uint32_t orphans;
    CHECK(dc_frames_restore(&frames, &orphans) == DOVECOTE_OK);
    CHECK(dc_frames_check(&frames) == DOVECOTE_OK);
    CHECK(frames.oldest == 5 && frames.youngest == 1 && frames.at[1].older == 9);
    dc_frames_free(&frames);
}

static void loops_are_dropped(void) {
    begin();
    claim(0, 1, 2, 1, BLOCK); /* 1 hangs on 2, 2 on 1 */
    claim(1, 2, 1, 2, BLOCK);
    claim(2, 3, 3, 1, BLOCK); /* 3 on itself */
    claim(3, 4, 4, 0, BLOCK); /* a root that names itself is just a root */
    end(1, 3);
}

static void orphans_take_their_subtrees_along(void) {
    begin();
    claim(0, 2, 1, 1, BLOCK);
    claim(1, 3, 2, 2, BLOCK);
    claim(2, 4, 2, 2, BLOCK);
    claim(3, 5, 4, 3, 2);
    claim(4, 6, 0, 0, BLOCK);
    end(1, 4);
}

static void a_wrong_depth_or_a_short_parent_makes_an_orphan(void) {
    begin();
    claim(0, 1, 0, 0, BLOCK);
    claim(1, 2, 1, 2, BLOCK);
    claim(2, 3, 0, 0, BLOCK - 1);
    claim(3, 4, 3, 1, BLOCK);
    claim(4, 5, 1, UINT32_MAX, BLOCK);
    end(2, 3);
}

static void duplicates_are_harmless(void) {
    begin();
    for (uint32_t f = 0; f < 6; f++)
        claim(f, 1, 0, 0, BLOCK);
    for (uint32_t f = 6; f < FRAMES; f++)
        claim(f, 2, 1, 1, BLOCK);
    end(FRAMES, 0);
}

/* Two blocks under one key, as a collision or a forged file would have them. */
static void a_hit_needs_equal_token_ids(void) { /* P2 */
    const uint32_t ids[BLOCK] = {9, 9, 9, 9}, wanted[BLOCK] = {9, 9, 9, 8};
    uint8_t key[DC_KEY_BYTES], above[DC_KEY_BYTES] = {0}, salted[DC_KEY_BYTES] = {1};
    uint32_t orphans;
    begin();
    claim(0, 9, 0, 0, BLOCK);
    claim(1, 9, 0, 0, BLOCK);
    dc_frames_ids(&frames, 1)[3] = 8;
    CHECK(dc_frames_restore(&frames, &orphans) == DOVECOTE_OK);
    memset(key, 9, sizeof key);
    dc_block block = {.parent = DC_NONE, .above = above, .key = key, .ids = ids, .tokens = BLOCK};
    CHECK(dc_frames_find(&frames, &block) == 0);
    block.ids = wanted;
    CHECK(dc_frames_find(&frames, &block) == 1);
    dc_frames_ids(&frames, 1)[3] = 7;
    CHECK(dc_frames_find(&frames, &block) == DC_NONE);
    block.ids = ids;
    block.above = salted;
    CHECK(dc_frames_find(&frames, &block) == DC_NONE);
    block.above = above;
    block.parent = 1;
    CHECK(dc_frames_find(&frames, &block) == DC_NONE);
    dc_frames_free(&frames);
}

static void every_way_of_freeing_bumps_the_generation(void) { /* P3 */
    const uint32_t ids[BLOCK] = {1, 2, 3, 4}, sums[1] = {0};
    uint8_t key[DC_KEY_BYTES] = {5}, above[DC_KEY_BYTES] = {0};
    dc_block block = {DC_NONE, above, key, ids, sums, 0, BLOCK};
    begin();
    uint32_t f = dc_frames_take(&frames, &block);
    dc_frames_abandon(&frames, f);
    CHECK(frames.at[f].generation == 1 && frames.at[f].dirty);
    CHECK(dc_frames_take(&frames, &block) == f);
    dc_frames_publish(&frames, f);
    CHECK(!frames.at[f].dirty && dc_frames_check(&frames) == DOVECOTE_OK);
    CHECK(dc_frames_drop(&frames, f) == 1); /* doomed: still under a lease */
    CHECK(frames.at[f].generation == 1 && frames.leased == 1);
    dc_frames_unpin(&frames, f);
    CHECK(frames.at[f].generation == 2 && frames.at[f].dirty && frames.free == FRAMES);
    CHECK(dc_frames_check(&frames) == DOVECOTE_OK);
    dc_frames_free(&frames);
}

static void any_table_restores_to_a_sound_tree_and_empties_again(void) {
    for (int round = 0; round < 3000; round++) {
        begin();
        for (uint32_t f = 0; f < FRAMES; f++) {
            if (rand() % 8 == 0) continue;
            claim(f, (uint8_t)(rand() % 6), (uint8_t)(rand() % 6), (uint32_t)(rand() % 4),
                  1 + (uint32_t)(rand() % BLOCK));
            frames.at[f].sequence = (uint64_t)(rand() % 5);
        }
        uint32_t orphans;
        CHECK(dc_frames_restore(&frames, &orphans) == DOVECOTE_OK);
        CHECK(dc_frames_check(&frames) == DOVECOTE_OK);
        while (frames.cached) {
            uint32_t f = frames.oldest;
            CHECK(frames.at[f].child == DC_NONE); /* F3 */
            CHECK(dc_frames_drop(&frames, f) == 1);
            CHECK(dc_frames_check(&frames) == DOVECOTE_OK);
        }
        dc_frames_free(&frames);
    }
}

int main(void) {
    srand(1);
    RUN(a_chain_is_restored_from_its_records);
    RUN(a_parent_is_as_young_as_its_youngest_descendant);
    RUN(loops_are_dropped);
    RUN(orphans_take_their_subtrees_along);
    RUN(a_wrong_depth_or_a_short_parent_makes_an_orphan);
    RUN(duplicates_are_harmless);
    RUN(a_hit_needs_equal_token_ids);
    RUN(every_way_of_freeing_bumps_the_generation);
    RUN(any_table_restores_to_a_sound_tree_and_empties_again);
    return SUMMARY();
}
