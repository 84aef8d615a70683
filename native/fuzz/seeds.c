/* seeds: the corpora that fuzzing starts from, made by the code under test.
 *
 *     seeds DIRECTORY        writes DIRECTORY/pool/..., DIRECTORY/codec/... and DIRECTORY/calls/...
 *
 * Real pools of every codec and dtype, with shared, short and diverging blocks, in both forms of
 * image.h; and for the codecs one input a codec, dtype and side. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "image.h"

static void require(int condition, const char *what) {
    if (condition) return;
    perror(what);
    exit(1);
}

static void write_seed(const char *directory, const char *corpus, const char *name,
                       const uint8_t *bytes, size_t count) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s/%s", directory, corpus, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    require(fd >= 0 && write(fd, bytes, count) == (ssize_t)count, path);
    close(fd);
}

static void seal_chain(dovecote_pool *pool, const uint32_t *ids, uint32_t count) {
    static float values[CAPACITY * DIM];
    dovecote_plane planes[2 * LAYERS];
    dovecote_lease *lease;
    for (uint32_t i = 0; i < CAPACITY * DIM; i++)
        values[i] = (float)i / 3.0f;
    for (int i = 0; i < 2 * LAYERS; i++)
        planes[i] = (dovecote_plane){values, sizeof values, CAPACITY};
    require(dovecote_lease_open(pool, FRAMES, &lease) == DOVECOTE_OK, "a lease");
    require(dovecote_lease_seal(lease, ids, count, planes, 1, NULL) == DOVECOTE_OK, "seal");
    dovecote_lease_close(lease);
}

static void write_pool(const char *directory, uint32_t codec, uint32_t dtype) {
    static uint8_t input[1 + FILE_BYTES];
    static const uint32_t chains[3][10] = {
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {1, 2, 3, 4, 5, 60}, {11, 12, 13, 14, 15}};
    uint8_t header[PACKED_HEADER] = {0};
    char path[4096], name[64];
    dovecote_pool *pool;
    dc_put32(header + 20, codec);
    dc_put32(header + 24, dtype);
    dovecote_pool_config config = image_config(header);
    config.size_bytes = FILE_BYTES;
    (void)snprintf(path, sizeof path, "%s/seed.pool", directory);
    unlink(path);
    require(dovecote_pool_open(path, &config, &pool, NULL) == DOVECOTE_OK, path);
    seal_chain(pool, chains[0], 10);
    seal_chain(pool, chains[1], 6);
    seal_chain(pool, chains[2], 5);
    require(dovecote_pool_close(pool) == DOVECOTE_OK, "closing");
    int fd = open(path, O_RDONLY);
    require(fd >= 0 && read(fd, input + 1, FILE_BYTES) == FILE_BYTES, path);
    close(fd);
    unlink(path);
    (void)snprintf(name, sizeof name, "raw-%u-%u", codec, dtype);
    if (codec == 0) write_seed(directory, "pool", name, input, sizeof input);
    static uint8_t packed[PACKED];
    packed[0] = 1;
    image_pack(input + 1, packed + 1);
    (void)snprintf(name, sizeof name, "packed-%u-%u", codec, dtype);
    write_seed(directory, "pool", name, packed, sizeof packed);
}

static void write_codec(const char *directory, uint32_t codec, uint32_t dtype) {
    uint8_t input[7 + 600];
    char name[64];
    for (uint8_t side = 0; side < 2; side++)
        for (uint8_t dim = 0; dim < 6; dim++) {
            const uint8_t shape[7] = {(uint8_t)codec, (uint8_t)dtype, side, 1, dim, 3, 1};
            memcpy(input, shape, sizeof shape);
            for (size_t i = sizeof shape; i < sizeof input; i++)
                input[i] = (uint8_t)(i * 37);
            (void)snprintf(name, sizeof name, "%u-%u-%u-%u", codec, dtype, side, dim);
            write_seed(directory, "codec", name, input, sizeof input);
        }
}

/* Long inputs of fuzz_calls, to which chance alone takes its time. */
static void write_calls(const char *directory) {
    uint8_t input[128];
    char name[64];
    uint32_t state = 1;
    for (int seed = 0; seed < 32; seed++) {
        for (size_t i = 0; i < sizeof input; i++) {
            state = state * 1664525u + 1013904223u;
            input[i] = (uint8_t)(state >> 24);
        }
        (void)snprintf(name, sizeof name, "%d", seed);
        write_seed(directory, "calls", name, input, sizeof input);
    }
}

int main(int argc, char **argv) {
    char path[4096];
    require(argc == 2, "usage: seeds DIRECTORY");
    static const char *const corpora[] = {"", "pool", "codec", "calls"};
    for (int i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", argv[1], corpora[i]);
        (void)mkdir(path, 0755);
    }
    for (uint32_t codec = 0; codec < 5; codec++)
        for (uint32_t dtype = 0; dtype < 3; dtype++) {
            write_pool(argv[1], codec, dtype);
            write_codec(argv[1], codec, dtype);
        }
    write_calls(argv[1]);
    return 0;
}
