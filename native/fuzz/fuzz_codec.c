/* fuzz_codec: any bytes as one side of a section. Decoding reads and writes nothing outside, encoding
 * what was decoded neither, and every instruction set of this processor gives the same bytes.
 *
 * An input is a shape of 7 bytes (codec, dtype, side, heads, dim, tokens, start), then the section's
 * bytes; what is missing is zeros.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "codec.h"

#define REQUIRE(condition)                                                 \
    do {                                                                   \
        if (!(condition)) {                                                \
            (void)fprintf(stderr, "fuzz_codec: not so: " #condition "\n"); \
            abort();                                                       \
        }                                                                  \
    } while (0)

enum { SHAPE_BYTES = 7 };

static const char *const levels[] = {"portable", "neon", "avx2", "avx512"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint32_t codec, dtype, side, heads, dim, tokens, start;
    uint64_t bytes, plane_bytes, capacity;
} shape;

static shape shape_of(const uint8_t *data) {
    shape s = {.codec = data[0] % 5,
               .dtype = data[1] % 3,
               .side = data[2] % 2,
               .heads = 1 + data[3] % 3,
               .dim = data[4] % 2 ? 1 + data[4] % 150u : 32 + data[4] / 2 % 4 * 32u,
               .tokens = 1 + data[5] % 9,
               .start = data[6] % 3};
    s.bytes = dovecote_codec_plane_bytes(s.codec, s.dtype, s.side, s.heads, s.dim, s.tokens);
    s.capacity = s.start + s.tokens;
    s.plane_bytes = s.heads * s.capacity * s.dim * (s.dtype == DOVECOTE_FLOAT32 ? 4 : 2);
    return s;
}

/* Buffers are exactly as long as they must be: the sanitizer sees each byte too far. */
static uint8_t *exactly(uint64_t bytes) {
    uint8_t *buffer = malloc(bytes);
    REQUIRE(buffer);
    memset(buffer, 0x5a, bytes);
    return buffer;
}

static dovecote_plane plane_of(const shape *s, uint8_t *values) {
    return (dovecote_plane){values, s->plane_bytes / s->heads, s->capacity};
}

static void decode_and_encode(const shape *s, const uint8_t *section, uint8_t *values,
                              uint8_t *again) {
    dovecote_plane plane = plane_of(s, values);
    REQUIRE(dovecote_codec_decode(s->codec, s->dtype, s->side, s->heads, s->dim, section, s->start,
                                  s->tokens, &plane) == DOVECOTE_OK);
    REQUIRE(dovecote_codec_encode(s->codec, s->dtype, s->side, s->heads, s->dim, &plane, s->start,
                                  s->tokens, again) == DOVECOTE_OK);
}

/* Positions before `start` are nobody's to write. */
static void require_untouched(const shape *s, const uint8_t *values) {
    uint64_t head = s->plane_bytes / s->heads, before = head / s->capacity * s->start;
    for (uint32_t h = 0; h < s->heads; h++)
        for (uint64_t i = 0; i < before; i++)
            REQUIRE(values[h * head + i] == 0x5a);
}

static bool is_nan(const shape *s, const uint8_t *element) {
    uint32_t bits = s->dtype == DOVECOTE_FLOAT32 ? dc_get32(element)
                                                 : (uint32_t)element[0] | (uint32_t)element[1] << 8;
    if (s->dtype == DOVECOTE_FLOAT32) return (bits & 0x7fffffffu) > 0x7f800000u;
    return (bits & 0x7fffu) > (s->dtype == DOVECOTE_FLOAT16 ? 0x7c00u : 0x7f80u);
}

/* The same bytes; or both NaN, since C leaves open which of two NaN their sum is. Only bytes that no
 * encoder writes, q4 scales that are NaN, come to that. */
static bool are_same(const shape *s, const uint8_t *a, const uint8_t *b) {
    uint64_t element = s->dtype == DOVECOTE_FLOAT32 ? 4 : 2;
    for (uint64_t i = 0; i < s->plane_bytes; i += element)
        if (memcmp(a + i, b + i, element) != 0 && !(is_nan(s, a + i) && is_nan(s, b + i)))
            return false;
    return true;
}

static void compare_levels(const shape *s, const uint8_t *section) {
    uint8_t *values[2] = {exactly(s->plane_bytes), exactly(s->plane_bytes)};
    uint8_t *again[2] = {exactly(s->bytes), exactly(s->bytes)};
    REQUIRE(dovecote_cpu_override("portable") == DOVECOTE_OK);
    decode_and_encode(s, section, values[0], again[0]);
    require_untouched(s, values[0]);
    for (size_t i = 1; i < sizeof levels / sizeof *levels; i++) {
        if (dovecote_cpu_override(levels[i]) != DOVECOTE_OK) continue;
        decode_and_encode(s, section, values[1], again[1]);
        REQUIRE(are_same(s, values[0], values[1]));
        REQUIRE(memcmp(again[0], again[1], s->bytes) == 0);
    }
    for (int i = 0; i < 2; i++) {
        free(values[i]);
        free(again[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < SHAPE_BYTES) return 0;
    shape s = shape_of(data);
    REQUIRE(s.bytes > 0);
    uint8_t *section = exactly(s.bytes);
    size -= SHAPE_BYTES;
    memset(section, 0, s.bytes);
    memcpy(section, data + SHAPE_BYTES, size < s.bytes ? size : s.bytes);
    compare_levels(&s, section);
    free(section);
    return 0;
}
