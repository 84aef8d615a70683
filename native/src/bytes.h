/* bytes.h: little-endian integers in byte arrays. Every integer on disk goes through these, so that
 * a pool file means the same on every machine and no struct is ever dumped. */
#ifndef DC_BYTES_H
#define DC_BYTES_H

#include <stdint.h>

static inline void dc_put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline void dc_put64(uint8_t *at, uint64_t value) {
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static inline uint32_t dc_get32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t dc_get64(const uint8_t *at) {
    return (uint64_t)dc_get32(at) | (uint64_t)dc_get32(at + 4) << 32;
}

/* `unit` is a power of two. The caller has bounded `value` far below the type's end. */
static inline uint64_t dc_round_up(uint64_t value, uint64_t unit) {
    return (value + unit - 1) & ~(unit - 1);
}

#endif
