/* SIGKILL instead of the k-th system call, for every k, while a pool is given another size (P7):
 * its blocks are adopted by a new pool beside it, which is then renamed over it. Whatever the moment,
 * the name stands for the old pool or the new one, whole, and every hit is exact. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "faults.h"
#include "file.h"
#include "harness.h"
#include "small.h"

enum { OLD = 8, PROMPTS = 3 };

static const uint32_t prompts[PROMPTS][12] = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
    {1, 2, 3, 4, 55, 66},
    {21, 22, 23, 24, 25, 26, 27, 28},
};
static const uint64_t lengths[PROMPTS] = {10, 6, 8};
static char beside[128];

static void fill(const char *path) {
    dovecote_pool *pool = small_open(path, OLD);
    for (int i = 0; i < PROMPTS; i++)
        CHECK(small_turn(pool, prompts[i], lengths[i]).sealed == lengths[i]);
    small_close(pool);
}

/* What Pool.open does in Python (opening.py, _resize): source locked until its name is gone. */
static void resize(const char *path, uint32_t frames) {
    dovecote_pool *source = small_open(path, 0), *target = small_open(beside, frames);
    if (dovecote_pool_adopt(target, source, NULL) || dovecote_pool_sync(target)) _exit(1);
    if (dc_file_rename(beside, path)) _exit(1);
    small_close(source);
    small_close(target);
}

static bool resize_and_die(const char *path, uint32_t frames, enum fault_kind kind, long k) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        fault_arm(kind, k, 0);
        resize(path, frames);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

/* The tokens found of all prompts in whatever pool the name stands for. */
static uint64_t verify(const char *path, uint32_t frames) {
    uint64_t found = 0;
    dovecote_pool *pool = small_open(path, 0);
    uint64_t there = small_stats(pool).frames;
    CHECK(there == OLD || there == frames);
    CHECK(small_is_sound(pool));
    for (int i = 0; i < PROMPTS; i++) {
        turn t = small_look(pool, prompts[i], lengths[i]);
        CHECK(t.rc == DOVECOTE_OK && t.exact && t.valid == t.matched);
        found += t.valid;
    }
    CHECK(small_stats(pool).miss_checksum == 0 && small_stats(pool).miss_orphan == 0);
    small_close(pool);
    return found;
}

static void remove_leftovers(void) {
    char fresh[136];
    (void)snprintf(fresh, sizeof fresh, "%s.new", beside);
    unlink(beside);
    unlink(fresh);
}

static void kill_at_every_call(uint32_t frames, enum fault_kind kind, uint64_t least) {
    bool killed = true;
    long k = 1;
    for (; killed; k++) {
        const char *path = small_path();
        (void)snprintf(beside, sizeof beside, "%s.resizing", path);
        fill(path);
        killed = resize_and_die(path, frames, kind, k);
        CHECK(verify(path, frames) >= least);
        remove_leftovers();
        CHECK(!resize_and_die(path, frames, FAULT_COUNT, 0)); /* the next start has its way */
        CHECK(verify(path, frames) >= least);
        remove_leftovers();
        small_forget();
    }
    CHECK(k > 30);
}

static void a_kill_while_growing_loses_nothing(void) { /* P7 */
    kill_at_every_call(2 * OLD, FAULT_KILL, 24);
}

static void a_kill_inside_a_write_while_growing_loses_nothing(void) { /* P1, P7 */
    kill_at_every_call(2 * OLD, FAULT_TEAR, 24);
}

static void a_kill_while_shrinking_loses_what_does_not_fit(void) { /* P7 */
    kill_at_every_call(3, FAULT_KILL, 8);
}

int main(void) {
    RUN(a_kill_while_growing_loses_nothing);
    RUN(a_kill_inside_a_write_while_growing_loses_nothing);
    RUN(a_kill_while_shrinking_loses_what_does_not_fit);
    return SUMMARY();
}
