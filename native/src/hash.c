/* hash.c: SipHash-2-4-128 over one contiguous message. Any thread; no state. */
#include "hash.h"

#include <string.h>

#include "bytes.h"

typedef struct {
    uint64_t v0, v1, v2, v3;
} sip;

static uint64_t rotate(uint64_t word, int bits) {
    return word << bits | word >> (64 - bits);
}

static void rounds(sip *s, int count) {
    while (count--) {
        s->v0 += s->v1;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v0 = rotate(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v2 = rotate(s->v2, 32);
    }
}

static void absorb(sip *s, uint64_t word) {
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

/* The last word holds the 0 to 7 bytes left over and, on top, the message's length modulo 256. */
static uint64_t last_word(const uint8_t *rest, size_t count) {
    uint8_t word[8] = {0};
    if (count & 7) memcpy(word, rest, count & 7);
    word[7] = (uint8_t)count;
    return dc_get64(word);
}

void dc_siphash(const uint8_t secret[16], const uint8_t *bytes, size_t count, uint8_t out[16]) {
    uint64_t k0 = dc_get64(secret), k1 = dc_get64(secret + 8);
    sip s = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du ^ 0xee, k0 ^ 0x6c7967656e657261u,
             k1 ^ 0x7465646279746573u};
    size_t whole = count & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8)
        absorb(&s, dc_get64(bytes + i));
    absorb(&s, last_word(bytes + whole, count));
    s.v2 ^= 0xee;
    rounds(&s, 4);
    dc_put64(out, s.v0 ^ s.v1 ^ s.v2 ^ s.v3);
    s.v1 ^= 0xdd;
    rounds(&s, 4);
    dc_put64(out + 8, s.v0 ^ s.v1 ^ s.v2 ^ s.v3);
}

void dc_block_key(const uint8_t secret[16], const uint8_t parent[16], const uint32_t *ids,
                  uint32_t count, uint8_t out[16]) {
    uint8_t message[16 + 4 * DC_BLOCK_TOKENS_MAX];
    memcpy(message, parent, 16);
    for (uint32_t i = 0; i < count; i++)
        dc_put32(message + 16 + 4 * i, ids[i]);
    dc_siphash(secret, message, 16 + 4 * (size_t)count, out);
}
