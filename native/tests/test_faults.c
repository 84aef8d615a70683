/* The k-th system call or allocation fails, for every k: an error code, sound invariants, and
 * restored values that are exact. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 4 };

static const uint32_t prompts[4][10] = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
    {1, 2, 3, 4, 5, 6, 70, 80, 90},
    {11, 12, 13, 14, 15, 16},
    {1, 2, 3, 4, 5, 6, 7, 8, 19, 20},
};
static const uint64_t lengths[4] = {10, 9, 6, 10};

static bool is_expected(int rc) {
    return rc == DOVECOTE_OK || rc == DOVECOTE_ERR_IO || rc == DOVECOTE_ERR_MEMORY;
}

/* Four requests on a pool too small for all of them, and a sync. */
static void use(dovecote_pool *pool) {
    for (int i = 0; i < 4; i++) {
        turn t = small_turn(pool, prompts[i], lengths[i]);
        CHECK(is_expected(t.rc));
        CHECK(t.valid == 0 || t.exact);
        CHECK(small_is_sound(pool));
        CHECK(small_stats(pool).leases == 0 && small_stats(pool).promised == 0);
        if (i == 1) CHECK(is_expected(dovecote_pool_sync(pool)));
    }
}

/* Opens, uses and closes a pool with that fault armed. */
static void run(const char *path, enum fault_kind kind, long k, int error) {
    dovecote_pool_config config = small_config(FRAMES);
    dovecote_pool *pool = NULL;
    int os_error = -1;
    fault_arm(kind, k, error);
    int rc = dovecote_pool_open(path, &config, &pool, &os_error);
    CHECK(is_expected(rc));
    CHECK(rc != DOVECOTE_ERR_IO || os_error == error || os_error == ENOMEM);
    if (rc != DOVECOTE_OK) return;
    use(pool);
    CHECK(small_is_sound(pool) && dovecote_pool_close(pool) == DOVECOTE_OK);
}

/* Without faults everything works on what is left. */
static void run_clean(const char *path) {
    dovecote_pool *pool = small_open(path, FRAMES);
    for (int i = 0; i < 4; i++) {
        turn t = small_turn(pool, prompts[i], lengths[i]);
        CHECK(t.rc == DOVECOTE_OK && t.exact && t.sealed == lengths[i] && small_is_sound(pool));
        CHECK(t.valid == t.matched); /* what failed left nothing that looks like a block (P1) */
    }
    small_close(pool);
}

static void any_one_failure_is_survived(void) {
    for (int error = EIO; error; error = error == EIO ? ENOSPC : 0) {
        bool reached = true;
        long k = 1;
        for (; reached; k++) {
            const char *path = small_path();
            run(path, FAULT_FAIL, k, error);
            reached = fault_disarm() >= k;
            run_clean(path);
            run(path, FAULT_FAIL, k, error); /* now on a pool that exists */
            reached = fault_disarm() >= k || reached;
            run_clean(path);
            small_forget();
        }
        CHECK(k > 60);
    }
}

static void lasting_failure_from_any_call_on_is_survived(void) {
    bool reached = true;
    for (long k = 1; reached; k++) {
        const char *path = small_path();
        run_clean(path);
        run(path, FAULT_FROM, k, EIO);
        reached = fault_disarm() >= k;
        run_clean(path);
        small_forget();
    }
}

static void a_memory_pool_survives_any_one_failure(void) {
    bool reached = true;
    for (long k = 1; reached; k++) {
        run(NULL, FAULT_FAIL, k, ENOMEM);
        reached = fault_disarm() >= k;
    }
}

static void a_failed_open_leaves_no_file(void) {
    dovecote_pool_config config = small_config(FRAMES);
    dovecote_pool *pool;
    int rc = DOVECOTE_ERR_IO;
    for (long k = 1; rc != DOVECOTE_OK; k++) {
        struct stat st = {0};
        char fresh[96];
        const char *path = small_path();
        (void)snprintf(fresh, sizeof fresh, "%s.new", path);
        fault_arm(FAULT_FAIL, k, EIO);
        rc = dovecote_pool_open(path, &config, &pool, NULL);
        fault_disarm();
        if (rc == DOVECOTE_OK)
            small_close(pool);
        else /* a file that it could not lock is another's, for all it knows; it is empty */
            CHECK(access(path, F_OK) != 0 && (stat(fresh, &st) != 0 || st.st_size == 0));
        small_forget();
    }
}

static void short_and_interrupted_transfers_are_completed(void) {
    for (long bytes = 1; bytes < 5000; bytes = bytes * 3 + 1) {
        const char *path = small_path();
        fault_arm(FAULT_SHORT, bytes, 0);
        run_clean(path);
        run_clean(path);
        fault_disarm();
        run_clean(path);
        small_forget();
    }
}

static void a_failed_seal_keeps_its_promise(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    dovecote_lease *lease;
    uint64_t sealed;
    row r;
    row_compute(&r, prompts[0], 0, 8);
    CHECK(dovecote_lease_open(pool, 2, &lease) == DOVECOTE_OK);
    CHECK(dovecote_lease_seal(lease, prompts[0], 4, r.planes, 0, &sealed) == DOVECOTE_OK);
    fault_arm(FAULT_FROM, 2, EIO); /* the first call makes room in the chain */
    CHECK(dovecote_lease_seal(lease, prompts[0] + 4, 4, r.planes, 0, &sealed) == DOVECOTE_ERR_IO);
    fault_disarm();
    CHECK(sealed == 4 && dovecote_pool_errno(pool) == EIO && small_stats(pool).write_errors == 1);
    CHECK(dovecote_lease_seal(lease, prompts[0] + 4, 4, r.planes, 0, &sealed) == DOVECOTE_OK);
    CHECK(sealed == 8);
    dovecote_lease_close(lease);
    turn t = small_look(pool, prompts[0], 10);
    CHECK(t.valid == 8 && t.exact);
    small_close(pool);
}

/* What an export does: lease a noted chain and read it as it is stored; and an import: write it.
 * The tokens written. */
static uint64_t carry_over(dovecote_pool *from, dovecote_pool *to, const noted *n) {
    dovecote_lease *source = NULL, *target = NULL;
    dovecote_chain chain = small_chain(n);
    uint8_t payload[PAGE];
    uint32_t ids[BLOCK], count;
    uint64_t tokens = 0;
    int rc = dovecote_lease_open(from, n->blocks, &source);
    if (rc == DOVECOTE_OK) rc = dovecote_lease_open(to, n->blocks, &target);
    if (rc == DOVECOTE_OK) rc = dovecote_lease_hold(source, &chain, &tokens);
    for (uint32_t block = 0; rc == DOVECOTE_OK && tokens > (uint64_t)block * BLOCK; block++) {
        rc = dovecote_lease_read(source, block, ids, &count, payload);
        if (rc == DOVECOTE_OK) rc = dovecote_lease_write(target, ids, count, payload);
    }
    CHECK(is_expected(rc) && small_is_sound(from) && small_is_sound(to));
    uint64_t written = target ? dovecote_lease_tokens(target) : 0;
    CHECK(rc != DOVECOTE_OK || written == tokens);
    dovecote_lease_close(target);
    dovecote_lease_close(source);
    CHECK(small_stats(from).leases + small_stats(to).leases == 0);
    CHECK(small_stats(from).promised + small_stats(to).promised == 0);
    return written;
}

static void failures_of_an_export_and_an_import_are_survived(enum fault_kind kind) {
    bool reached = true;
    long k = 1;
    for (; reached; k++) {
        const char *path = small_path();
        dovecote_pool *from = small_open(NULL, FRAMES), *to = small_open(path, FRAMES);
        noted n = small_noted_turn(from, prompts[0], 10);
        CHECK(dovecote_pool_flush(from) == DOVECOTE_OK); /* the short block is read, too */
        fault_arm(kind, k, EIO);
        uint64_t written = carry_over(from, to, &n);
        reached = fault_disarm() >= k;
        turn t = small_look(to, prompts[0], 10);
        CHECK(t.valid == written && t.exact);
        CHECK(
            small_turn(from, prompts[0], 10).exact); /* a block that could not be read is a miss */
        n = small_noted_turn(from, prompts[0], 10);
        CHECK(carry_over(from, to, &n) == 10 && small_look(to, prompts[0], 10).exact);
        small_close(from);
        small_close(to);
        small_forget();
    }
    CHECK(k > 15);
}

static void any_failure_of_an_export_and_an_import_is_survived(void) {
    failures_of_an_export_and_an_import_are_survived(FAULT_FAIL);
    failures_of_an_export_and_an_import_are_survived(FAULT_FROM);
}

int main(void) {
    RUN(any_one_failure_is_survived);
    RUN(lasting_failure_from_any_call_on_is_survived);
    RUN(a_memory_pool_survives_any_one_failure);
    RUN(a_failed_open_leaves_no_file);
    RUN(short_and_interrupted_transfers_are_completed);
    RUN(a_failed_seal_keeps_its_promise);
    RUN(any_failure_of_an_export_and_an_import_is_survived);
    return SUMMARY();
}
