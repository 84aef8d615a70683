/* Requests of several threads on one small pool, with another thread that looks and syncs. Under
 * TSan this is also the proof that what is read outside the mutex is nobody's to write. */
#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"
#include "small.h"

enum { THREADS = 4, TURNS = 300, FRAMES = 24 };

static dovecote_pool *pool;
static atomic_int failures, running;

static uint32_t next(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* Few different tokens, so that threads meet on the same blocks. */
static uint32_t invent(uint32_t *seed, uint32_t *tokens) {
    uint32_t count = 1 + next(seed) % 16;
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i < 4 ? 0 : next(seed) % 2;
    return count;
}

static void *serve(void *argument) {
    uint32_t seed = (uint32_t)(uintptr_t)argument, tokens[16];
    for (int i = 0; i < TURNS; i++) {
        uint32_t count = invent(&seed, tokens);
        turn t = small_turn(pool, tokens, count);
        if (t.rc != DOVECOTE_OK || !t.exact || t.sealed != count) atomic_fetch_add(&failures, 1);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *watch(void *argument) {
    while (atomic_load(&running)) {
        if (!small_is_sound(pool)) atomic_fetch_add(&failures, 1);
        if (dovecote_pool_sync(pool) != DOVECOTE_OK) atomic_fetch_add(&failures, 1);
    }
    return argument;
}

static void run_threads(void *(*body)(void *)) {
    pthread_t threads[THREADS + 1];
    atomic_store(&running, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, body, (void *)(i + 1)) == 0);
    CHECK(pthread_create(&threads[THREADS], NULL, watch, NULL) == 0);
    for (int i = 0; i <= THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&failures) == 0);
}

static void threads_share_a_pool_and_restore_exactly(void) {
    const char *path = small_path();
    pool = small_open(path, FRAMES);
    run_threads(serve);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.leased == 0 && stats.promised == 0 && stats.evicted_blocks > 0);
    CHECK(stats.miss_checksum == 0 && stats.miss_io == 0 && stats.write_errors == 0);
    small_close(pool);
    small_forget();
}

/* All threads seal the same eight blocks at once: whoever is late shares (P4). */
static void *seal_the_same(void *argument) {
    uint32_t tokens[32];
    for (uint32_t round = 0; round < 20; round++) {
        dovecote_lease *lease;
        uint64_t sealed;
        row r;
        for (uint32_t i = 0; i < 32; i++)
            tokens[i] = 1000 * round + i;
        row_compute(&r, tokens, 0, 32);
        if (dovecote_lease_open(pool, 8, &lease)) atomic_fetch_add(&failures, 1);
        if (dovecote_lease_seal(lease, tokens, 32, r.planes, 0, &sealed) || sealed != 32)
            atomic_fetch_add(&failures, 1);
        dovecote_lease_close(lease);
        if (!small_look(pool, tokens, 32).exact) atomic_fetch_add(&failures, 1);
    }
    atomic_fetch_sub(&running, 1);
    return argument;
}

static void threads_that_seal_the_same_blocks_share_them(void) {
    pool = small_open(NULL, 8 * THREADS);
    run_threads(seal_the_same);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.sealed_blocks + stats.shared_blocks == 20 * 8 * THREADS);
    CHECK(stats.leased == 0 && stats.promised == 0);
    small_close(pool);
}

int main(void) {
    RUN(threads_share_a_pool_and_restore_exactly);
    RUN(threads_that_seal_the_same_blocks_share_them);
    return SUMMARY();
}
