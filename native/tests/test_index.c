/* The index against a plain array, with keys that collide on purpose. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "dovecote.h"
#include "harness.h"
#include "index.h"

enum { FRAMES = 64 };

static uint8_t keys[FRAMES][DC_KEY_BYTES];

static const uint8_t *key_of(const void *frames, uint32_t frame) {
    return ((const uint8_t (*)[DC_KEY_BYTES])frames)[frame];
}

static bool finds(const dc_index *index, uint32_t frame) {
    uint64_t slot = dc_index_start(index, keys[frame]);
    uint32_t found;
    while ((found = dc_index_next(index, &slot)) != DC_NONE)
        if (found == frame) return true;
    return false;
}

/* `homes` different home slots, the last ones of the table: clusters wrap around its end. */
static void churn(uint32_t homes) {
    dc_index index;
    bool present[FRAMES] = {false};
    uint32_t count = 0;
    CHECK(dc_index_init(&index, FRAMES) == DOVECOTE_OK);
    for (uint32_t f = 0; f < FRAMES; f++) {
        memset(keys[f], 0, DC_KEY_BYTES);
        keys[f][0] = (uint8_t)(index.mask - (uint32_t)rand() % homes);
    }
    for (int i = 0; i < 2000; i++) {
        uint32_t f = (uint32_t)rand() % FRAMES;
        if (present[f])
            dc_index_remove(&index, key_of, keys, f);
        else
            dc_index_insert(&index, keys[f], f);
        present[f] = !present[f];
        count += present[f] ? 1 : UINT32_MAX;
        for (uint32_t g = 0; g < FRAMES; g++)
            CHECK(finds(&index, g) == present[g]);
        CHECK(index.count == count);
    }
    dc_index_free(&index);
}

static void what_was_inserted_and_not_removed_is_found(void) {
    for (uint32_t homes = 1; homes <= 128; homes *= 2)
        churn(homes);
}

static void an_index_of_no_frames_finds_nothing(void) {
    dc_index index;
    CHECK(dc_index_init(&index, 0) == DOVECOTE_OK);
    CHECK(!finds(&index, 0));
    dc_index_free(&index);
}

int main(void) {
    srand(1);
    RUN(what_was_inserted_and_not_removed_is_found);
    RUN(an_index_of_no_frames_finds_nothing);
    return SUMMARY();
}
