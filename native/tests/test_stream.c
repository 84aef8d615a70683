/* Streaming is memcpy: each length, each place in a line on both sides, and nothing beside it. */
#include <string.h>

#include "harness.h"
#include "stream.h"

enum { LINE = 64, LONGEST = 9 * LINE, ROOM = LONGEST + 4 * LINE };

static _Alignas(LINE) unsigned char from[ROOM], to[ROOM], expected[ROOM];

static void streamed(size_t source, size_t target, size_t bytes) {
    memset(to, 0xa5, sizeof to);
    memset(expected, 0xa5, sizeof expected);
    memcpy(expected + target, from + source, bytes);
    dc_stream(to + target, from + source, bytes);
    dc_stream_end();
    CHECK(memcmp(to, expected, sizeof to) == 0);
}

static void every_length_arrives_at_every_place(void) {
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (unsigned char)(i * 7 + i / 251);
    for (size_t bytes = 0; bytes <= LONGEST; bytes += bytes < 300 ? 1 : 37)
        for (size_t target = 0; target < LINE; target++)
            streamed(target * 5 % LINE, LINE + target, bytes);
}

int main(void) {
    RUN(every_length_arrives_at_every_place);
    return SUMMARY();
}
