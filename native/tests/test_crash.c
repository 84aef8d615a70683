/* SIGKILL instead of the k-th system call, for every k, and after a k-th call that moved only half
 * its bytes (P7): the pool opens, its invariants hold, and every hit is exact. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults.h"
#include "harness.h"
#include "small.h"

enum { FRAMES = 4, PROMPTS = 5 };

static const uint32_t prompts[PROMPTS][10] = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},  {1, 2, 3, 4, 5, 6, 70, 80, 90},
    {11, 12, 13, 14, 15, 16},         {11, 12, 13, 14, 15, 16, 17, 18, 19},
    {1, 2, 3, 4, 5, 6, 7, 8, 19, 20},
};
static const uint64_t lengths[PROMPTS] = {10, 9, 6, 9, 10};

/* The life of a server: more prompts than frames, so blocks are shared, superseded and evicted. */
static void live(dovecote_pool *pool) {
    for (int i = 0; i < PROMPTS; i++) {
        (void)small_turn(pool, prompts[i], lengths[i]);
        if (i == 2) (void)dovecote_pool_sync(pool);
    }
}

static void serve(const char *path) {
    dovecote_pool *pool = small_open(path, FRAMES);
    live(pool);
    small_close(pool);
}

/* true if the child was killed, false if it ended before its k-th call. */
static bool serve_and_die(const char *path, enum fault_kind kind, long k) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        fault_arm(kind, k, 0);
        serve(path);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

static uint64_t verify(const char *path) {
    uint64_t found = 0;
    dovecote_pool *pool = small_open(path, FRAMES);
    CHECK(small_is_sound(pool));
    for (int i = 0; i < PROMPTS; i++) {
        turn t = small_look(pool, prompts[i], lengths[i]);
        CHECK(t.rc == DOVECOTE_OK && t.exact && t.valid == t.matched);
        found += t.valid;
    }
    for (int i = 0; i < PROMPTS; i++) {
        turn t = small_turn(pool, prompts[i], lengths[i]);
        CHECK(t.rc == DOVECOTE_OK && t.exact && t.sealed == lengths[i] && small_is_sound(pool));
    }
    small_close(pool);
    return found;
}

static void kill_at_every_call(enum fault_kind kind) {
    uint64_t found = 0;
    bool killed = true;
    long k = 1;
    for (; killed; k++) {
        const char *path = small_path();
        killed = serve_and_die(path, kind, k);
        found += verify(path);
        killed = serve_and_die(path, kind, k) || killed; /* now on a full pool */
        found += verify(path);
        small_forget();
    }
    CHECK(k > 40 && found > 0);
}

static void a_kill_between_any_two_calls_costs_no_more_than_misses(void) { /* P7 */
    kill_at_every_call(FAULT_KILL);
}

static void a_kill_inside_any_write_costs_no_more_than_misses(void) { /* P1, P7 */
    kill_at_every_call(FAULT_TEAR);
}

static void the_life_that_is_killed_shares_supersedes_and_evicts(void) {
    dovecote_pool *pool = small_open(NULL, FRAMES);
    live(pool);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.matched_tokens > 0 && stats.superseded_blocks > 0 && stats.evicted_blocks > 0);
    small_close(pool);
}

int main(void) {
    RUN(the_life_that_is_killed_shares_supersedes_and_evicts);
    RUN(a_kill_between_any_two_calls_costs_no_more_than_misses);
    RUN(a_kill_inside_any_write_costs_no_more_than_misses);
    return SUMMARY();
}
