/* stream.c: see stream.h. SSE2 is part of every x86-64, so nothing is chosen at run time: 16 bytes
 * at a time fill the same buffers as 64 do. Elsewhere it is memcpy. */
#include "stream.h"

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>

enum { LINE = 64, WORTHWHILE = 256 };

static void stream_line(uint8_t *to, const uint8_t *from) {
    for (int i = 0; i < LINE; i += 16) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        _mm_stream_si128((__m128i *)(void *)(to + i), part);
    }
}

void dc_stream(void *out, const void *in, size_t bytes) {
    uint8_t *to = out;
    const uint8_t *from = in;
    size_t rest = -(uintptr_t)to % LINE;
    if (bytes < WORTHWHILE) rest = bytes;
    memcpy(to, from, rest);
    for (to += rest, from += rest, bytes -= rest; bytes >= LINE; bytes -= LINE) {
        stream_line(to, from);
        to += LINE;
        from += LINE;
    }
    memcpy(to, from, bytes);
}

void dc_stream_end(void) {
    _mm_sfence();
}

#else

void dc_stream(void *out, const void *in, size_t bytes) {
    memcpy(out, in, bytes);
}

void dc_stream_end(void) {}

#endif
