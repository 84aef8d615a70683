/* held.c: see held.h. */
#include "held.h"

#include <string.h>

#include "fault.h"

dc_held *dc_held_new(const uint8_t *payload, uint64_t bytes) {
    dc_held *held = dc_alloc(sizeof *held + bytes, 1);
    if (held) memcpy(held->payload, payload, bytes);
    return held;
}

void dc_held_append(dc_held_list *list, dc_held *held, uint32_t frame, bool stale) {
    held->number = ++list->given;
    held->frame = frame;
    held->stale = stale;
    held->older = list->youngest;
    held->younger = NULL;
    if (list->youngest)
        list->youngest->younger = held;
    else
        list->oldest = held;
    list->youngest = held;
    list->count++;
}

void dc_held_free(dc_held_list *list, dc_held *held) {
    if (held->older)
        held->older->younger = held->younger;
    else
        list->oldest = held->younger;
    if (held->younger)
        held->younger->older = held->older;
    else
        list->youngest = held->older;
    list->count--;
    free(held);
}

void dc_held_free_all(dc_held_list *list) {
    while (list->oldest)
        dc_held_free(list, list->oldest);
}
