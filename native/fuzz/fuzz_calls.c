/* fuzz_calls: any sequence of calls on a sound pool. Its invariants hold after each, and whatever is
 * restored is what the model computed for those ids (P2), also where bytes of the file were flipped
 * under the open pool (P1): by match, by noted keys, after an export and an import, a resize, a
 * reopening.
 *
 * Each call takes two bytes of the input: what to do, and with which lease, chain and length. The
 * "model" is tests/small.h: K and V are a hash of the ids up to their position. Ids are few, so that
 * chains meet.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "small.h"

#define REQUIRE(condition)                                                 \
    do {                                                                   \
        if (!(condition)) {                                                \
            (void)fprintf(stderr, "fuzz_calls: not so: %s\n", #condition); \
            abort();                                                       \
        }                                                                  \
    } while (0)

enum { FRAMES = 10, LEASES = 3, NOTES = 6, LONGEST = 24, CALLS = 64, KEY = 16 };

typedef struct {
    dovecote_lease *lease;
    uint32_t ids[LONGEST]; /* what it was asked for */
    uint32_t count;
    bool is_held; /* by keys: its ids are those of the note */
} request;

typedef struct {
    uint8_t keys[LONGEST / BLOCK * KEY];
    uint32_t ids[LONGEST];
    uint32_t blocks;
    uint64_t tokens;
} note;

typedef struct {
    int fd;
    dovecote_pool *pool;
    request requests[LEASES];
    note notes[NOTES];
    row row;
} world;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static dovecote_chain chain_of(const note *n) {
    return (dovecote_chain){n->keys, n->blocks, n->tokens};
}

static void open_pool(world *w) {
    char path[32];
    dovecote_pool_config config = small_config(FRAMES);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", w->fd);
    REQUIRE(dovecote_pool_open(path, &config, &w->pool, NULL) == DOVECOTE_OK);
}

/* A pool that exists as a file without a name, for damage and reopening. */
static void make_pool(world *w) {
    char path[64];
    (void)snprintf(path, sizeof path, "/dev/shm/fuzz-calls-%ld", (long)getpid());
    unlink(path);
    dovecote_pool *made = small_open(path, FRAMES);
    REQUIRE(dovecote_pool_close(made) == DOVECOTE_OK);
    FILE *file = fopen(path, "r+b");
    REQUIRE(file);
    w->fd = dup(fileno(file));
    REQUIRE(w->fd >= 0 && fclose(file) == 0 && unlink(path) == 0);
}

/* ---- requests ---- */

static void end(request *r) {
    dovecote_lease_close(r->lease);
    *r = (request){0};
}

static void end_all(world *w) {
    for (int i = 0; i < LEASES; i++)
        end(&w->requests[i]);
}

static void require_exact(world *w, request *r) {
    uint64_t valid, before = dovecote_lease_tokens(r->lease);
    row_clear(&w->row);
    REQUIRE(dovecote_lease_decode(r->lease, 0, UINT32_MAX, 0, LAYERS, w->row.planes, &valid) ==
            DOVECOTE_OK);
    REQUIRE(valid <= before && valid == dovecote_lease_tokens(r->lease));
}

static void begin(world *w, request *r, uint8_t what) {
    static const uint8_t roots[2][KEY] = {{0}, {1, 2, 3}};
    uint64_t matched, valid;
    if (r->lease) end(r);
    r->count = what % (LONGEST + 1);
    for (uint32_t i = 0; i < r->count; i++)
        r->ids[i] = 1 + (i * 7 + (i >= what % 11 ? what / 64 : 0)) % 3;
    if (dovecote_lease_open(w->pool, what / 32 + 1, &r->lease) != DOVECOTE_OK) return;
    REQUIRE(dovecote_lease_match(r->lease, roots[what >> 7], r->ids, r->count, &matched) ==
            DOVECOTE_OK);
    REQUIRE(matched <= r->count);
    row_clear(&w->row);
    REQUIRE(dovecote_lease_decode(r->lease, 0, UINT32_MAX, 0, LAYERS, w->row.planes, &valid) ==
            DOVECOTE_OK);
    REQUIRE(valid <= matched && row_is_exact(&w->row, r->ids, 0, valid));
}

static void seal(world *w, request *r, uint8_t what) {
    uint64_t sealed = 0, end_at = what % (r->count + 1);
    if (!r->lease || r->is_held) return;
    REQUIRE(dovecote_lease_seal(r->lease, NULL, 0, NULL, 0, &sealed) == DOVECOTE_OK);
    if (end_at < sealed) return;
    row_compute(&w->row, r->ids, 0, r->count);
    (void)dovecote_lease_seal(r->lease, r->ids + sealed, end_at - sealed, w->row.planes, what >> 7,
                              &sealed);
    REQUIRE(sealed <= r->count);
}

/* ---- chains by keys ---- */

static void take_note(const request *r, note *n) {
    if (!r->lease) return;
    uint32_t blocks = dovecote_lease_keys(r->lease, n->keys, LONGEST / BLOCK);
    uint64_t tokens = dovecote_lease_tokens(r->lease);
    REQUIRE(blocks <= LONGEST / BLOCK);
    n->blocks = blocks;
    n->tokens = tokens < (uint64_t)blocks * BLOCK ? tokens : (uint64_t)blocks * BLOCK;
    memcpy(n->ids, r->ids, sizeof n->ids);
}

static void hold(world *w, request *r, const note *n) {
    dovecote_chain chain = chain_of(n);
    uint64_t tokens = 0;
    if (r->lease) end(r);
    if (dovecote_lease_open(w->pool, n->blocks, &r->lease) != DOVECOTE_OK) return;
    memcpy(r->ids, n->ids, sizeof r->ids);
    r->count = (uint32_t)n->tokens;
    r->is_held = true;
    REQUIRE(dovecote_lease_hold(r->lease, &chain, &tokens) == DOVECOTE_OK);
    REQUIRE(tokens <= n->tokens && tokens == dovecote_lease_tokens(r->lease));
    require_exact(w, r);
    REQUIRE(row_is_exact(&w->row, r->ids, 0, dovecote_lease_tokens(r->lease) / BLOCK * BLOCK));
}

/* Blocks as they are stored, read and written into another pool, restore to the same rows there. */
static void export_to_another(const request *r, uint8_t what) {
    uint32_t ids[BLOCK], tokens, written = 0;
    uint8_t root[KEY], payload[PAGE];
    dovecote_lease *copy;
    uint64_t matched;
    if (!r->lease) return;
    dovecote_pool *other = small_open(NULL, 1 + what % FRAMES);
    REQUIRE(dovecote_lease_open(other, 1 + what % FRAMES, &copy) == DOVECOTE_OK);
    dovecote_lease_root(r->lease, root);
    REQUIRE(dovecote_lease_match(copy, root, NULL, 0, &matched) == DOVECOTE_OK);
    for (uint32_t block = 0;
         dovecote_lease_read(r->lease, block, ids, &tokens, payload) == DOVECOTE_OK; block++) {
        REQUIRE(memcmp(ids, r->ids + block * BLOCK, tokens * sizeof *ids) == 0);
        int rc = dovecote_lease_write(copy, ids, tokens, payload);
        REQUIRE(rc == DOVECOTE_OK || rc == DOVECOTE_ERR_FULL);
        if (rc == DOVECOTE_OK) written += tokens;
        if (rc == DOVECOTE_ERR_FULL) break;
    }
    REQUIRE(dovecote_lease_tokens(copy) == written);
    dovecote_lease_close(copy);
    REQUIRE(small_is_sound(other));
    small_close(other);
}

static void look_and_drop(world *w, const note *n, uint8_t what) {
    dovecote_chain chain = chain_of(n);
    dovecote_chain_stats stats;
    uint32_t freed;
    uint64_t wanted;
    REQUIRE(dovecote_chain_look(w->pool, &chain, what % 4, &stats) == DOVECOTE_OK);
    REQUIRE(stats.own_blocks <= stats.blocks && stats.tokens <= chain.tokens);
    if (what & 64) REQUIRE(dovecote_chain_drop(w->pool, &chain, what % 4, &freed) == DOVECOTE_OK);
    if (!(what & 128)) return;
    dovecote_chain chains[NOTES];
    for (int i = 0; i < NOTES; i++)
        chains[i] = chain_of(&w->notes[i]);
    REQUIRE(dovecote_pool_pin(w->pool, chains, NOTES, what % FRAMES, &wanted) == DOVECOTE_OK);
}

/* ---- the pool ---- */

static void flush(world *w, uint8_t what) {
    dovecote_verified verified;
    uint32_t left;
    uint64_t mark = dovecote_pool_held_mark(w->pool);
    switch (what % 3) {
    case 0:
        REQUIRE(dovecote_pool_flush(w->pool) == DOVECOTE_OK);
        break;
    case 1:
        REQUIRE(dovecote_pool_flush_held(w->pool, mark - mark % 3, what % 4, &left) == DOVECOTE_OK);
        break;
    default:
        REQUIRE(dovecote_pool_verify(w->pool, what % FRAMES, what / FRAMES, &verified) ==
                DOVECOTE_OK);
    }
}

static void flip_a_byte(const world *w, uint8_t what) {
    uint8_t byte;
    off_t at = (off_t)small_frame_offset(FRAMES, what % FRAMES) + what * 5;
    REQUIRE(pread(w->fd, &byte, 1, at) == 1);
    byte ^= 0x20;
    REQUIRE(pwrite(w->fd, &byte, 1, at) == 1);
}

static void reopen(world *w) {
    end_all(w);
    REQUIRE(dovecote_pool_close(w->pool) == DOVECOTE_OK);
    open_pool(w);
}

/* A smaller or larger pool takes over; keys go on naming what it took. */
static void resize(world *w, uint8_t what) {
    uint64_t copied;
    dovecote_verified verified;
    end_all(w);
    dovecote_pool *kept = w->pool, *other = small_open(NULL, 1 + what % (2 * FRAMES));
    REQUIRE(dovecote_pool_adopt(other, kept, &copied) == DOVECOTE_OK && small_is_sound(other));
    REQUIRE(dovecote_pool_verify(other, 0, UINT32_MAX, &verified) == DOVECOTE_OK);
    REQUIRE(verified.damaged == 0 && verified.checked == copied);
    w->pool = other;
    for (int i = 0; i < NOTES; i++)
        hold(w, &w->requests[0], &w->notes[i]);
    end_all(w);
    w->pool = kept;
    small_close(other);
}

static void call(world *w, uint8_t verb, uint8_t what) {
    request *r = &w->requests[verb / 16 % LEASES];
    note *n = &w->notes[verb / 16 % NOTES];
    switch (verb % 16) {
    case 0:
    case 1:
        begin(w, r, what);
        break;
    case 2:
    case 3:
    case 4:
        seal(w, r, what);
        break;
    case 5:
        end(r);
        break;
    case 6:
    case 7:
        take_note(r, &w->notes[what % NOTES]);
        break;
    case 8:
        hold(w, r, &w->notes[what % NOTES]);
        break;
    case 9:
        export_to_another(r, what);
        break;
    case 10:
    case 11:
        look_and_drop(w, n, what);
        break;
    case 12:
        flush(w, what);
        break;
    case 13:
        flip_a_byte(w, what);
        break;
    case 14:
        reopen(w);
        break;
    default:
        resize(w, what);
    }
    REQUIRE(small_is_sound(w->pool));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static world w;
    w = (world){0};
    make_pool(&w);
    open_pool(&w);
    for (size_t i = 0; i + 1 < size && i < 2 * CALLS; i += 2)
        call(&w, data[i], data[i + 1]);
    end_all(&w);
    REQUIRE(dovecote_pool_close(w.pool) == DOVECOTE_OK);
    close(w.fd);
    return 0;
}
