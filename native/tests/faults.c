/* faults.c: dc_fault() for tests. Atomic, since threads share it; armed by one thread at a time. */
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fault.h"

static atomic_int armed = FAULT_COUNT;
static atomic_long calls, chosen;
static atomic_int failure;
static void (*meeting)(void);

void fault_arm(enum fault_kind kind, long k, int error) {
    atomic_store(&calls, 0);
    atomic_store(&chosen, k);
    atomic_store(&failure, error);
    atomic_store(&armed, kind);
}

void fault_meet(long k, void (*other)(void)) {
    meeting = other;
    fault_arm(FAULT_MEET, k, 0);
}

long fault_disarm(void) {
    atomic_store(&armed, FAULT_COUNT);
    return atomic_load(&calls);
}

static void die(void) {
    (void)kill(getpid(), SIGKILL);
    for (;;)
        (void)pause();
}

int dc_fault(size_t *count) {
    long call = atomic_fetch_add(&calls, 1) + 1, k = atomic_load(&chosen);
    switch (atomic_load(&armed)) {
    case FAULT_FAIL:
        return call == k ? atomic_load(&failure) : 0;
    case FAULT_FROM:
        return call >= k ? atomic_load(&failure) : 0;
    case FAULT_KILL:
        if (call == k) die();
        return 0;
    case FAULT_TEAR:
        if (call > k) die();
        if (call == k && count && *count > 1) *count /= 2;
        return 0;
    case FAULT_MEET:
        if (call != k) return 0;
        fault_disarm();
        meeting();
        return 0;
    case FAULT_SHORT:
        if (count && *count > (size_t)k) *count = (size_t)k;
        return count && call % 2 ? EINTR : 0;
    default:
        return 0;
    }
}
