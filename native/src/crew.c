/* crew.c: a caller and its workers, for jobs of tens of microseconds.
 *
 * A worker spins briefly for the next job (a decode step has hundreds, tens of microseconds apart)
 * and then sleeps.
 *
 * Globals: cblas has no handle, so the crew is the process's own.
 *
 * B1 A worker touches crew.job only between active++ (having then seen open) and active--.
 * B2 crew.job changes only under crew.owner, with open == 0 and active == 0.
 * B3 Who does a piece changes nothing in it: results do not depend on the number of threads.
 * B4 No thread starts before the first job that wants one, and a forked child starts anew.
 *
 * Any thread may call. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "crew.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_WORKERS 63
/* A pause is 40 to 140 cycles: some 30 us, longer than most gaps between the jobs of a step. */
#define WORKER_SPINS 2000
#define CALLER_SPINS 2000

typedef struct {
    dc_crew_work *work;
    const void *job;
    size_t count;
    size_t grain;
} crew_job;

static struct {
    pthread_mutex_t owner; /* held while a job uses the crew */
    pthread_once_t once;
    atomic_uint call; /* changes with each job; what workers spin and sleep on */
    atomic_uint sleepers;
    atomic_int open;    /* pieces may be claimed */
    atomic_int active;  /* workers that may be reading job */
    atomic_size_t next; /* first piece that nobody has claimed */
    crew_job job;
    int workers;       /* running ones; under owner */
    atomic_int wanted; /* workers: one less than the threads of a job */
} crew = {.owner = PTHREAD_MUTEX_INITIALIZER, .once = PTHREAD_ONCE_INIT};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void claim(const crew_job *job) {
    for (;;) {
        size_t start = atomic_fetch_add(&crew.next, job->grain);
        if (start >= job->count) {
            return;
        }
        size_t end = job->count - start < job->grain ? job->count : start + job->grain;
        job->work(job->job, start, end);
    }
}

/* Returns once crew.call is no longer `seen`. */
static unsigned next_call(unsigned seen) {
    for (int spins = 0; spins < WORKER_SPINS; spins++) {
        unsigned call = atomic_load(&crew.call);
        if (call != seen) {
            return call;
        }
        pause_briefly();
    }
    atomic_fetch_add(&crew.sleepers, 1);
    while (atomic_load(&crew.call) == seen) {
        (void)syscall(SYS_futex, &crew.call, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    atomic_fetch_sub(&crew.sleepers, 1);
    return atomic_load(&crew.call);
}

static void *be_worker(void *number) {
    int mine = (int)(size_t)number;
    for (unsigned seen = 0;;) {
        seen = next_call(seen);
        if (mine >= atomic_load(&crew.wanted)) {
            continue;
        }
        atomic_fetch_add(&crew.active, 1);
        if (atomic_load(&crew.open)) {
            claim(&crew.job);
        }
        atomic_fetch_sub(&crew.active, 1);
    }
    return NULL;
}

/* The child of a fork has its parent's memory, but none of its workers (B4). */
static void forget_workers(void) {
    pthread_mutex_init(&crew.owner, NULL);
    atomic_store(&crew.call, 0);
    atomic_store(&crew.sleepers, 0);
    atomic_store(&crew.open, 0);
    atomic_store(&crew.active, 0);
    crew.workers = 0;
}

static void watch_forks(void) {
    (void)pthread_atfork(NULL, NULL, forget_workers);
}

/* Under owner. A thread that cannot be had is done without. Signals are for the program's threads.
 */
static void start_workers(void) {
    sigset_t all;
    sigset_t before;
    if (crew.workers >= atomic_load(&crew.wanted)) {
        return;
    }
    (void)pthread_once(&crew.once, watch_forks);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew.workers < atomic_load(&crew.wanted)) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, be_worker, (void *)(size_t)crew.workers) != 0) {
            atomic_store(&crew.wanted, crew.workers);
            break;
        }
        pthread_detach(thread);
        crew.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Under owner. */
static void run_with_crew(const crew_job *job) {
    start_workers();
    crew.job = *job;
    atomic_store(&crew.next, 0);
    atomic_store(&crew.open, 1);
    atomic_fetch_add(&crew.call, 1);
    if (atomic_load(&crew.sleepers) != 0) {
        (void)syscall(SYS_futex, &crew.call, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    claim(job);
    atomic_store(&crew.open, 0);
    for (int spins = 0; atomic_load(&crew.active) != 0; spins++) {
        if (spins < CALLER_SPINS) {
            pause_briefly();
        } else {
            sched_yield(); /* a worker lost its processor inside a piece */
        }
    }
}

void dc_crew_run(dc_crew_work *work, const void *job, size_t count, size_t grain) {
    if (atomic_load(&crew.wanted) == 0 || count <= grain ||
        pthread_mutex_trylock(&crew.owner) != 0) {
        work(job, 0, count);
        return;
    }
    crew_job mine = {work, job, count, grain};
    run_with_crew(&mine);
    pthread_mutex_unlock(&crew.owner);
}

void dc_crew_set_threads(int threads) {
    int workers = threads < 1 ? 0 : threads - 1;
    atomic_store(&crew.wanted, workers > MAX_WORKERS ? MAX_WORKERS : workers);
}

int dc_crew_threads(void) {
    return atomic_load(&crew.wanted) + 1;
}
