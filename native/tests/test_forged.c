/* Pool files by someone who knows the format and signs what he forges: every checksum is right, and
 * any field may say anything. Such a file may hold wrong blocks; it must not do harm. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "crc.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 8 };

static const uint32_t tokens[12] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static uint8_t file[PAGE + PAGE + FRAMES * PAGE];

static void sign_header(void) {
    dc_put32(file + 12, dc_crc32c(0, file + 16, PAGE - 16));
}

static void sign_record(uint32_t frame) {
    uint8_t *record = file + small_record_offset(frame);
    dc_put32(record, dc_crc32c(0, record + 4, RECORD - 4));
}

/* A sound pool's bytes, as the ground for forgery. */
static void load(const char *path) {
    dovecote_pool *pool = small_open(path, FRAMES);
    CHECK(small_turn(pool, tokens, 11).sealed == 11);
    small_close(pool);
    int fd = open(path, O_RDONLY);
    CHECK(pread(fd, file, sizeof file, 0) == (ssize_t)sizeof file);
    close(fd);
}

static void store(const char *path) {
    int fd = open(path, O_WRONLY);
    CHECK(pwrite(fd, file, sizeof file, 0) == (ssize_t)sizeof file);
    close(fd);
}

/* Opens what is there and, if that works, lives on it. */
static int live_on(const char *path) {
    dovecote_pool_config config = small_config(0);
    dovecote_pool *pool;
    int rc = dovecote_pool_open(path, &config, &pool, NULL);
    if (rc != DOVECOTE_OK) return rc;
    CHECK(small_is_sound(pool));
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t other[8] = {5, 6, 7, i, 9, 10};
        CHECK(small_turn(pool, tokens, 12).rc == DOVECOTE_OK && small_is_sound(pool));
        CHECK(small_turn(pool, other, 6 + i % 2).rc == DOVECOTE_OK && small_is_sound(pool));
    }
    small_close(pool);
    return rc;
}

/* A value that forgers like: small, huge, or one that occurs elsewhere. */
static uint32_t invent(void) {
    static const uint32_t likely[] = {0, 1, 2, 3, 4, 5, 8, 255, 4096, UINT32_MAX, UINT32_MAX - 1};
    uint32_t choice = (uint32_t)rand() % 12;
    return choice < 11 ? likely[choice] : (uint32_t)rand();
}

static void a_forged_header_never_opens_as_something_else(void) {
    const char *path = small_path();
    load(path);
    for (uint32_t offset = 16; offset < 256 + 12 * LAYERS; offset += 4)
        for (int i = 0; i < 20; i++) {
            uint32_t kept = dc_get32(file + offset), forged = invent();
            bool secret = offset >= 96 && offset < 112; /* any secret will do */
            bool asked = offset >= 56 && offset < 64;
            dc_put32(file + offset, forged);
            sign_header();
            store(path);
            int rc = live_on(path);
            CHECK(forged == kept || secret || asked
                      ? rc == DOVECOTE_OK
                      : rc == DOVECOTE_ERR_FORMAT || rc == DOVECOTE_ERR_MISMATCH);
            dc_put32(file + offset, kept);
        }
    small_forget();
}

static void forge_record(uint32_t frame) {
    uint8_t *record = file + small_record_offset(frame);
    uint32_t field = 4 * (1 + (uint32_t)rand() % (RECORD / 4 - 1));
    if (rand() % 2) { /* a field of another record, such as its key */
        const uint8_t *source = file + small_record_offset((uint32_t)rand() % 4);
        uint32_t from = 16 * (1 + (uint32_t)rand() % 2), to = 16 * (1 + (uint32_t)rand() % 2);
        memcpy(record + to, source + from, 16);
        return;
    }
    dc_put32(record + field, invent());
}

static void a_forged_table_is_harmless(void) {
    static uint8_t sound[sizeof file];
    const char *path = small_path();
    int opened = 0;
    load(path);
    memcpy(sound, file, sizeof file);
    for (int round = 0; round < 3000; round++) {
        memcpy(file, sound, sizeof file);
        for (int i = rand() % 6; i >= 0; i--) {
            uint32_t frame = (uint32_t)rand() % FRAMES;
            forge_record(frame);
            sign_record(frame);
        }
        store(path);
        opened += live_on(path) == DOVECOTE_OK;
    }
    CHECK(opened == 3000); /* records decide over blocks, not over the pool */
    small_forget();
}

int main(void) {
    srand(1);
    RUN(a_forged_header_never_opens_as_something_else);
    RUN(a_forged_table_is_harmless);
    return SUMMARY();
}
