/* SipHash against the reference's vectors (github.com/veorq/SipHash, vectors.h: vectors_sip128, key
 * 00 to 0f, message 00, 01, ...). */
#include <string.h>

#include "harness.h"
#include "hash.h"

static const uint8_t vectors[][16] = {
    {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
     0x93},
    {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
     0x45},
    {0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff,
     0xe4},
    {0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85, 0xed,
     0x51},
};

static uint8_t secret[16];

static void siphash_gives_the_reference_vectors(void) {
    uint8_t message[64], out[16];
    for (uint8_t i = 0; i < 64; i++)
        message[i] = i;
    for (size_t n = 0; n < sizeof vectors / sizeof vectors[0]; n++) {
        dc_siphash(secret, message, n, out);
        CHECK(memcmp(out, vectors[n], 16) == 0);
    }
}

static void a_key_hashes_parent_and_little_endian_ids(void) {
    uint8_t message[24] = {0}, parent[16], key[16], expected[16];
    const uint32_t ids[2] = {0x04030201, 0xfffefdfc};
    const uint8_t bytes[8] = {1, 2, 3, 4, 0xfc, 0xfd, 0xfe, 0xff};
    memset(parent, 9, 16);
    memcpy(message, parent, 16);
    memcpy(message + 16, bytes, 8);
    dc_siphash(secret, message, 24, expected);
    dc_block_key(secret, parent, ids, 2, key);
    CHECK(memcmp(key, expected, 16) == 0);
    dc_block_key(secret, parent, ids, 1, key);
    CHECK(memcmp(key, expected, 16) != 0);
}

int main(void) {
    for (uint8_t i = 0; i < 16; i++)
        secret[i] = i;
    RUN(siphash_gives_the_reference_vectors);
    RUN(a_key_hashes_parent_and_little_endian_ids);
    return SUMMARY();
}
