/* CRC-32C: every instruction set against known values and against one bit at a time. */
#include <stdlib.h>
#include <string.h>

#include "crc.h"
#include "dovecote.h"
#include "harness.h"

static const char *const levels[] = {"portable", "avx2", "avx512", "neon"};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))

/* The polynomial division itself. */
static uint32_t bit_by_bit(uint32_t crc, const uint8_t *bytes, size_t count) {
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) ? 0x82f63b78u : 0u);
        }
    }
    return ~crc;
}

static void fill(uint8_t *bytes, size_t count) {
    uint32_t seed = 12345;
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(seed >> 24);
    }
}

/* RFC 3720, appendix B.4, and the customary check value. */
static void known_values_hold(void) {
    uint8_t bytes[32];
    for (size_t l = 0; l < LEVELS; l++) {
        if (dovecote_cpu_override(levels[l]) != DOVECOTE_OK) {
            continue;
        }
        CHECK(dc_crc32c(0, "123456789", 9) == 0xe3069283u);
        memset(bytes, 0, sizeof(bytes));
        CHECK(dc_crc32c(0, bytes, 32) == 0x8a9136aau);
        memset(bytes, 0xff, sizeof(bytes));
        CHECK(dc_crc32c(0, bytes, 32) == 0x62a8ab43u);
        CHECK(dc_crc32c(77, bytes, 0) == 77);
    }
}

/* Up to past three long streams and two folds, at every alignment of a word. */
static void every_length_and_alignment_agrees_with_the_definition(void) {
    enum { LONGEST = 3700 };
    uint8_t *bytes = malloc(LONGEST + 64);
    CHECK(bytes != NULL);
    fill(bytes, LONGEST + 64);
    for (size_t count = 0; count <= LONGEST; count += count < 1200 ? 1 : 61) {
        size_t shift = count % 64;
        uint32_t want = bit_by_bit((uint32_t)count, bytes + shift, count);
        for (size_t l = 0; l < LEVELS; l++) {
            if (dovecote_cpu_override(levels[l]) == DOVECOTE_OK) {
                CHECK(dc_crc32c((uint32_t)count, bytes + shift, count) == want);
            }
        }
    }
    free(bytes);
}

static void a_run_may_be_checked_in_parts(void) {
    uint8_t bytes[2000];
    fill(bytes, sizeof(bytes));
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
    uint32_t whole = dovecote_crc32c(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut += 97) {
        uint32_t first = dovecote_crc32c(0, bytes, cut);
        CHECK(dovecote_crc32c(first, bytes + cut, sizeof(bytes) - cut) == whole);
    }
}

static void a_flipped_bit_is_seen(void) {
    uint8_t bytes[513];
    fill(bytes, sizeof(bytes));
    uint32_t want = dc_crc32c(0, bytes, sizeof(bytes));
    for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        CHECK(dc_crc32c(0, bytes, sizeof(bytes)) != want);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

int main(void) {
    RUN(known_values_hold);
    RUN(every_length_and_alignment_agrees_with_the_definition);
    RUN(a_run_may_be_checked_in_parts);
    RUN(a_flipped_bit_is_seen);
    return SUMMARY();
}
