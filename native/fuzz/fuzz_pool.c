/* fuzz_pool: any bytes as a pool file. The pool opens or refuses; either way nothing is read or
 * written outside, its invariants hold, and what a match restores is what a sound record and a
 * payload with the right checksum say, read from the bytes by the independent eyes below (P1, P2).
 *
 * Every byte of a pool is under a checksum, and every key under a secret hash: plain mutations get
 * no further than the first comparison. So the mutator signs, by choice, what it has changed:
 * header, payload checksums, keys, records. Inputs that nobody signed are fuzzed, too.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "crc.h"
#include "hash.h"
#include "image.h"

#define REQUIRE(condition)                                                \
    do {                                                                  \
        if (!(condition)) {                                               \
            (void)fprintf(stderr, "fuzz_pool: not so: " #condition "\n"); \
            abort();                                                      \
        }                                                                 \
    } while (0)

enum { RECORDS_AT = 4096, FRAMES_AT = 8192, IDS_AT = 64, SUMS_AT = IDS_AT + 4 * BLOCK };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- signing ---- */

enum { SIGN_HEADER = 1, SIGN_SUMS = 2, SIGN_KEYS = 4, SIGN_RECORDS = 8 };

static uint8_t *record_of(uint8_t *file, uint32_t f) {
    return file + RECORDS_AT + f * RECORD;
}

static void sign_sums(const dc_layout *layout, uint8_t *file, uint32_t f) {
    const uint8_t *frame = file + FRAMES_AT + f * 4096;
    for (uint32_t i = 0; i < LAYERS; i++) {
        const dc_place *section = &layout->places[i];
        uint32_t sum = dc_crc32c(0, frame + section->offset, section->bytes);
        dc_put32(record_of(file, f) + SUMS_AT + 4 * i, sum);
    }
}

/* The key that the record's ids have under the record's own parent key; its children follow. */
static void sign_key(const dc_layout *layout, uint8_t *file, uint32_t f) {
    uint8_t *record = record_of(file, f), old[DC_KEY_BYTES];
    uint32_t ids[BLOCK], tokens = dc_get32(record + 8);
    for (uint32_t i = 0; i < BLOCK; i++)
        ids[i] = dc_get32(record + IDS_AT + 4 * i);
    memcpy(old, record + 16, sizeof old);
    dc_block_key(layout->secret, record + 32, ids, tokens < BLOCK ? tokens : BLOCK, record + 16);
    for (uint32_t child = 0; child < FRAMES; child++)
        if (child != f && memcmp(record_of(file, child) + 32, old, sizeof old) == 0)
            memcpy(record_of(file, child) + 32, record + 16, DC_KEY_BYTES);
}

static void sign(uint8_t *file, unsigned what) {
    dc_layout layout = image_layout(file);
    for (uint32_t f = 0; f < FRAMES; f++)
        if (what & SIGN_SUMS) sign_sums(&layout, file, f);
    for (uint32_t depth = 0; depth < FRAMES && what & SIGN_KEYS; depth++) /* parents first */
        for (uint32_t f = 0; f < FRAMES; f++)
            if (dc_get32(record_of(file, f) + 12) == depth) sign_key(&layout, file, f);
    for (uint32_t f = 0; f < FRAMES && what & SIGN_RECORDS; f++)
        dc_put32(record_of(file, f), dc_crc32c(0, record_of(file, f) + 4, RECORD - 4));
    if (what & SIGN_HEADER) dc_header_write(&layout, file);
    dc_layout_free(&layout);
}

/* ---- mutating ---- */

/* A piece of one record over that of another: keys, parents, depths that exist. */
static void cross(uint8_t *file, unsigned seed) {
    static const uint32_t starts[] = {4, 8, 12, 16, 32, 48, 56, IDS_AT, SUMS_AT};
    static const uint32_t sizes[] = {4, 4, 4, 16, 16, 8, 8, 4 * BLOCK, 4 * LAYERS};
    unsigned field = seed % 9, to = seed / 9 % FRAMES, from = seed / 54 % FRAMES;
    uint8_t piece[16];
    memcpy(piece, record_of(file, from) + starts[field], sizes[field]);
    memcpy(record_of(file, to) + starts[field], piece, sizes[field]);
    if (field == 3) memcpy(record_of(file, to) + 32, piece, DC_KEY_BYTES); /* a child of it */
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static uint8_t file[FILE_BYTES];
    if (max_size < PACKED) return LLVMFuzzerMutate(data, size, max_size);
    if (size && data[0] == 0 && seed % 8) return LLVMFuzzerMutate(data, size, max_size);
    if (seed % 64 == 1) return LLVMFuzzerMutate(data, size, max_size);
    size_t packed = size ? size - 1 : 0;
    if (seed % 4 || packed == 0) packed = LLVMFuzzerMutate(data + 1, packed, PACKED - 1);
    image_unpack(data + 1, packed, file);
    if (seed % 4 == 0) cross(file, seed / 4);
    unsigned what = (seed >> 8) % 4 ? SIGN_HEADER | SIGN_SUMS | SIGN_KEYS | SIGN_RECORDS
                                    : SIGN_HEADER | ((seed >> 10) & 14);
    if ((seed >> 14) % 64 != 0) sign(file, what);
    data[0] = 1;
    image_pack(file, data + 1);
    return PACKED;
}

/* ---- looking at the bytes ---- */

typedef struct {
    uint8_t file[FILE_BYTES];
    dc_layout layout;
    void *planes[2 * LAYERS], *expected[2];
    dovecote_plane plane[2 * LAYERS], expected_plane[2];
    size_t element, plane_bytes;
} world;

static bool record_is_sound(const world *w, uint32_t f) {
    const uint8_t *record = w->file + RECORDS_AT + f * RECORD;
    return dc_get32(record) == dc_crc32c(0, record + 4, RECORD - 4) && dc_get32(record + 4) == 1;
}

/* Whether frame f has a sound record of ids[0, count), or of more that begins so. */
static bool frame_explains_ids(const world *w, uint32_t f, const uint32_t *ids, uint32_t count) {
    const uint8_t *record = w->file + RECORDS_AT + f * RECORD;
    if (!record_is_sound(w, f) || dc_get32(record + 8) < count) return false;
    for (uint32_t i = 0; i < count; i++)
        if (dc_get32(record + IDS_AT + 4 * i) != ids[i]) return false;
    return true;
}

/* Whether the payload of such a frame, with every checksum right, decodes to what the planes hold
 * at `start`. */
static bool frame_explains(const world *w, uint32_t f, const uint32_t *ids, uint32_t start,
                           uint32_t count) {
    const uint8_t *record = w->file + RECORDS_AT + f * RECORD;
    const uint8_t *frame = w->file + FRAMES_AT + f * 4096;
    if (!frame_explains_ids(w, f, ids + start, count)) return false;
    for (uint32_t i = 0; i < LAYERS; i++) {
        const dc_place *place = &w->layout.places[i];
        const uint8_t *bytes = frame + place->offset;
        if (dc_crc32c(0, bytes, place->bytes) != dc_get32(record + SUMS_AT + 4 * i)) return false;
        dc_section_decode(&place->section, bytes, start, count, &w->expected_plane[0],
                          &w->expected_plane[1]);
        for (uint32_t side = 0; side < 2; side++) {
            size_t at = start * DIM * w->element, bytes_there = count * DIM * w->element;
            if (memcmp((uint8_t *)w->expected[side] + at, (uint8_t *)w->planes[2 * i + side] + at,
                       bytes_there) != 0)
                return false;
        }
    }
    return true;
}

/* Every restored block is one that the bytes have. */
static void require_explained(const world *w, const uint32_t *ids, uint64_t valid) {
    for (uint32_t start = 0; start < valid; start += BLOCK) {
        uint32_t count = valid - start < BLOCK ? (uint32_t)valid - start : BLOCK;
        bool explained = false;
        for (uint32_t f = 0; f < FRAMES && !explained; f++)
            explained = frame_explains(w, f, ids, start, count);
        REQUIRE(explained);
    }
}

/* ---- living on it ---- */

static void make_world(world *w) {
    w->layout = image_layout(w->file);
    w->element = w->layout.dtype == DOVECOTE_FLOAT32 ? 4 : 2;
    w->plane_bytes = CAPACITY * DIM * w->element; /* not a byte more: the sanitizer watches */
    for (int i = 0; i < 2 * LAYERS + 2; i++) {
        void *bytes = malloc(w->plane_bytes);
        REQUIRE(bytes);
        memset(bytes, 0x3c, w->plane_bytes);
        dovecote_plane plane = {bytes, w->plane_bytes, CAPACITY};
        if (i < 2 * LAYERS) {
            w->planes[i] = bytes;
            w->plane[i] = plane;
        } else {
            w->expected[i - 2 * LAYERS] = bytes;
            w->expected_plane[i - 2 * LAYERS] = plane;
        }
    }
}

static void end_world(world *w) {
    for (int i = 0; i < 2 * LAYERS; i++)
        free(w->planes[i]);
    free(w->expected[0]);
    free(w->expected[1]);
    dc_layout_free(&w->layout);
}

/* The frames of the chain that ends in frame `f`, the last one first, as far as records link it;
 * their number. */
static uint32_t path_of(const world *w, uint32_t f, uint32_t *path) {
    uint32_t length = 0;
    for (; f < FRAMES && length < FRAMES; length++) {
        const uint8_t *record = w->file + RECORDS_AT + f * RECORD;
        path[length] = f;
        for (f = 0; f < FRAMES; f++)
            if (memcmp(w->file + RECORDS_AT + f * RECORD + 16, record + 32, DC_KEY_BYTES) == 0)
                break;
    }
    return length;
}

/* The ids of that chain; their number. */
static uint32_t chain_of(const world *w, uint32_t f, uint32_t *ids) {
    uint32_t path[FRAMES], length = path_of(w, f, path), count = 0;
    while (length) {
        const uint8_t *record = w->file + RECORDS_AT + path[--length] * RECORD;
        uint32_t tokens = dc_get32(record + 8);
        for (uint32_t i = 0; i < BLOCK && i < tokens; i++)
            ids[count++] = dc_get32(record + IDS_AT + 4 * i);
    }
    return count;
}

/* What is read as it is stored is what some sound record of those ids has, bit by bit. */
static void read_blocks(dovecote_lease *lease, const world *w) {
    uint32_t ids[BLOCK], tokens;
    uint8_t *payload = malloc(w->layout.frame_bytes);
    REQUIRE(payload);
    for (uint32_t block = 0;
         dovecote_lease_read(lease, block, ids, &tokens, payload) == DOVECOTE_OK; block++) {
        bool there = false;
        REQUIRE(tokens >= 1 && tokens <= BLOCK);
        for (uint32_t f = 0; f < FRAMES && !there; f++)
            there = frame_explains_ids(w, f, ids, tokens) &&
                    memcmp(payload, w->file + FRAMES_AT + f * 4096, w->layout.frame_bytes) == 0;
        REQUIRE(there);
    }
    free(payload);
}

/* What a request does, on ids[0, count): restore, look twice, and seal what is new. */
static void use_pool(dovecote_pool *pool, const world *w, const uint32_t *ids, uint32_t count,
                     int sealing) {
    dovecote_lease *lease;
    uint64_t matched, valid, sealed = 0;
    if (dovecote_lease_open(pool, count / BLOCK + 1, &lease) != DOVECOTE_OK) return;
    REQUIRE(dovecote_lease_match(lease, NULL, ids, count, &matched) == DOVECOTE_OK);
    REQUIRE(matched <= count);
    dovecote_lease_prefetch(lease);
    REQUIRE(dovecote_lease_decode(lease, 0, 1, 0, 1, w->plane, &valid) == DOVECOTE_OK);
    REQUIRE(dovecote_lease_decode(lease, 0, UINT32_MAX, 0, LAYERS, w->plane, &valid) ==
            DOVECOTE_OK);
    REQUIRE(valid <= matched && valid == dovecote_lease_tokens(lease));
    require_explained(w, ids, valid);
    read_blocks(lease, w);
    REQUIRE(dovecote_pool_check(pool) == DOVECOTE_OK);
    uint64_t whole = valid / BLOCK * BLOCK;
    if (sealing) (void)dovecote_lease_seal(lease, ids + whole, count - whole, w->plane, 1, &sealed);
    REQUIRE(sealed <= count);
    dovecote_lease_close(lease);
    REQUIRE(dovecote_pool_check(pool) == DOVECOTE_OK);
}

static void take_a_turn(dovecote_pool *pool, const world *w, const uint32_t *ids, uint32_t count) {
    use_pool(pool, w, ids, count, 1);
}

/* The chain by its keys, as somebody would have noted it; `keys` has room for FRAMES of them. */
static dovecote_chain note_chain(const world *w, uint32_t f, uint8_t *keys) {
    uint32_t path[FRAMES], blocks = path_of(w, f, path);
    uint32_t last = dc_get32(w->file + RECORDS_AT + f * RECORD + 8);
    for (uint32_t i = 0; i < blocks; i++)
        memcpy(keys + i * DC_KEY_BYTES, w->file + RECORDS_AT + path[blocks - 1 - i] * RECORD + 16,
               DC_KEY_BYTES);
    return (dovecote_chain){
        keys, blocks, (uint64_t)(blocks - 1) * BLOCK + (last >= 1 && last < BLOCK ? last : BLOCK)};
}

/* What is leased of a noted chain can be read, and is written anew into a pool of its own kind. */
static void copy_chain(dovecote_pool *pool, dovecote_pool *other, const world *w,
                       const dovecote_chain *chain) {
    dovecote_lease *lease, *copy;
    uint64_t tokens = 0;
    uint32_t ids[BLOCK], count;
    if (dovecote_lease_open(pool, chain->blocks, &lease) != DOVECOTE_OK) return;
    REQUIRE(dovecote_lease_open(other, chain->blocks, &copy) == DOVECOTE_OK);
    uint8_t *payload = malloc(w->layout.frame_bytes);
    REQUIRE(payload && dovecote_lease_hold(lease, chain, &tokens) == DOVECOTE_OK);
    REQUIRE(tokens <= chain->tokens && tokens == dovecote_lease_tokens(lease));
    for (uint32_t block = 0; dovecote_lease_read(lease, block, ids, &count, payload) == DOVECOTE_OK;
         block++) {
        int rc = dovecote_lease_write(copy, ids, count, payload);
        REQUIRE(rc == DOVECOTE_OK);
    }
    free(payload);
    REQUIRE(dovecote_lease_tokens(copy) == dovecote_lease_tokens(lease));
    dovecote_lease_close(copy);
    dovecote_lease_close(lease);
    REQUIRE(dovecote_pool_check(pool) == DOVECOTE_OK && dovecote_pool_check(other) == DOVECOTE_OK);
}

/* What the book of agents does with a chain: look, pin, export and import, at last drop. */
static void keep_book(dovecote_pool *pool, dovecote_pool *other, const world *w, uint32_t f) {
    uint8_t keys[FRAMES * DC_KEY_BYTES];
    dovecote_chain chain = note_chain(w, f, keys);
    dovecote_chain_stats stats;
    uint64_t wanted;
    uint32_t freed, left;
    REQUIRE(dovecote_chain_look(pool, &chain, f, &stats) == DOVECOTE_OK);
    REQUIRE(stats.tokens <= chain.tokens && stats.own_blocks <= stats.blocks);
    REQUIRE(dovecote_pool_pin(pool, &chain, 1, f, &wanted) == DOVECOTE_OK);
    REQUIRE(wanted == stats.blocks && dovecote_pool_check(pool) == DOVECOTE_OK);
    copy_chain(pool, other, w, &chain);
    REQUIRE(dovecote_pool_flush_held(pool, f, f, &left) == DOVECOTE_OK);
    if (f % 3) return;
    REQUIRE(dovecote_chain_look(pool, &chain, 0, &stats) == DOVECOTE_OK);
    REQUIRE(dovecote_chain_drop(pool, &chain, 0, &freed) == DOVECOTE_OK);
    REQUIRE(freed >= stats.own_blocks && dovecote_pool_check(pool) == DOVECOTE_OK);
}

static dovecote_pool *memory_pool(const world *w, uint64_t size_bytes) {
    dovecote_pool_config config = image_config(w->file);
    dovecote_pool *pool = NULL;
    config.size_bytes = size_bytes;
    REQUIRE(dovecote_pool_open(NULL, &config, &pool, NULL) == DOVECOTE_OK);
    return pool;
}

/* A pool of half the frames takes over what fits, and what it took is what was there. */
static void resize(dovecote_pool *pool, const world *w) {
    dovecote_pool *smaller = memory_pool(w, FRAMES_AT + FRAMES / 2 * 4096);
    uint32_t ids[CAPACITY];
    uint64_t copied;
    dovecote_verified verified;
    REQUIRE(dovecote_pool_adopt(smaller, pool, &copied) == DOVECOTE_OK && copied <= FRAMES / 2);
    REQUIRE(dovecote_pool_check(smaller) == DOVECOTE_OK);
    REQUIRE(dovecote_pool_verify(smaller, 0, FRAMES, &verified) == DOVECOTE_OK);
    REQUIRE(verified.damaged == 0 && verified.checked == copied);
    for (uint32_t f = 0; f < FRAMES; f++)
        use_pool(smaller, w, ids, chain_of(w, f, ids), 0);
    REQUIRE(dovecote_pool_close(smaller) == DOVECOTE_OK);
}

/* Reads the file as it is now: what later turns find must be explained by that. */
static void look_again(world *w, dovecote_pool *pool, int fd) {
    REQUIRE(!pool || dovecote_pool_sync(pool) == DOVECOTE_OK);
    REQUIRE(pread(fd, w->file, FILE_BYTES, 0) == FILE_BYTES);
}

static void live_on(world *w, dovecote_pool *pool, int fd) {
    uint32_t ids[CAPACITY];
    dovecote_verified verified;
    dovecote_pool *other = memory_pool(w, FRAMES_AT + 3 * FRAMES * 4096);
    REQUIRE(dovecote_pool_check(pool) == DOVECOTE_OK);
    resize(pool, w);
    for (uint32_t f = 0; f < FRAMES; f++) {
        uint32_t count = chain_of(w, f, ids);
        take_a_turn(pool, w, ids, count);
        look_again(w, pool, fd);
        ids[count / 2] ^= f & 1 ? 1 : 0; /* every second one goes another way */
        if (count < CAPACITY) ids[count++] = 7 + f;
        take_a_turn(pool, w, ids, count);
        look_again(w, pool, fd);
        keep_book(pool, other, w, f);
        look_again(w, pool, fd);
    }
    REQUIRE(dovecote_pool_verify(pool, 0, FRAMES, &verified) == DOVECOTE_OK);
    REQUIRE(dovecote_pool_check(pool) == DOVECOTE_OK);
    REQUIRE(dovecote_pool_close(other) == DOVECOTE_OK);
}

static dovecote_pool *open_image(const world *w, int fd) {
    char path[32];
    dovecote_pool *pool = NULL;
    dovecote_pool_config config = image_config(w->file);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = dovecote_pool_open(path, &config, &pool, NULL);
    REQUIRE(rc == DOVECOTE_OK || rc == DOVECOTE_ERR_FORMAT || rc == DOVECOTE_ERR_MISMATCH);
    return pool;
}

/* The input as a file; false if it is not as long as a pool of ours, and cannot open. */
static int file_of(world *w, const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz_pool", MFD_CLOEXEC);
    size_t bytes = FILE_BYTES;
    REQUIRE(fd >= 0);
    if (data[0] == 1) {
        image_unpack(data + 1, size - 1, w->file);
    } else {
        bytes = size - 1 < FILE_BYTES ? size - 1 : FILE_BYTES;
        memset(w->file, 0, FILE_BYTES);
        memcpy(w->file, data + 1, bytes);
    }
    REQUIRE(pwrite(fd, w->file, bytes, 0) == (ssize_t)bytes);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static world w;
    if (size == 0) return 0;
    int fd = file_of(&w, data, size);
    make_world(&w);
    dovecote_pool *pool = open_image(&w, fd);
    if (pool) {
        live_on(&w, pool, fd);
        REQUIRE(dovecote_pool_close(pool) == DOVECOTE_OK);
        look_again(&w, NULL, fd);
        pool = open_image(&w, fd); /* what was made of it is a pool, too */
        REQUIRE(pool);
        live_on(&w, pool, fd);
        REQUIRE(dovecote_pool_close(pool) == DOVECOTE_OK);
    }
    end_world(&w);
    close(fd);
    return 0;
}
