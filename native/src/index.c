/* index.c: see index.h. Removal shifts later entries back instead of leaving tombstones, so the
 * table never degrades however long a pool lives. */
#include "index.h"

#include "bytes.h"
#include "dovecote.h"
#include "fault.h"

int dc_index_init(dc_index *index, uint32_t frames) {
    uint64_t slots = 8;
    while (slots < 2 * (uint64_t)frames)
        slots *= 2;
    index->slots = dc_alloc(slots, sizeof *index->slots);
    if (!index->slots) return DOVECOTE_ERR_MEMORY;
    index->mask = slots - 1;
    index->count = 0;
    for (uint64_t i = 0; i < slots; i++)
        index->slots[i] = DC_NONE;
    return DOVECOTE_OK;
}

void dc_index_free(dc_index *index) {
    free(index->slots);
    index->slots = NULL;
}

uint64_t dc_index_start(const dc_index *index, const uint8_t *key) {
    return dc_get64(key) & index->mask;
}

uint32_t dc_index_next(const dc_index *index, uint64_t *slot) {
    uint32_t frame = index->slots[*slot];
    *slot = (*slot + 1) & index->mask;
    return frame;
}

void dc_index_insert(dc_index *index, const uint8_t *key, uint32_t frame) {
    uint64_t slot = dc_index_start(index, key);
    while (index->slots[slot] != DC_NONE)
        slot = (slot + 1) & index->mask;
    index->slots[slot] = frame;
    index->count++;
}

/* Knuth 6.4, algorithm R: an entry moves into the hole unless its home lies cyclically in
 * (hole, slot], where a probe for it would no longer pass the hole. */
void dc_index_remove(dc_index *index, dc_key_of *key_of, const void *frames, uint32_t frame) {
    uint64_t hole = dc_index_start(index, key_of(frames, frame));
    while (index->slots[hole] != frame)
        hole = (hole + 1) & index->mask;
    for (uint64_t slot = (hole + 1) & index->mask; index->slots[slot] != DC_NONE;
         slot = (slot + 1) & index->mask) {
        uint64_t home = dc_index_start(index, key_of(frames, index->slots[slot]));
        if (((slot - home) & index->mask) < ((slot - hole) & index->mask)) continue;
        index->slots[hole] = index->slots[slot];
        hole = slot;
    }
    index->slots[hole] = DC_NONE;
    index->count--;
}
