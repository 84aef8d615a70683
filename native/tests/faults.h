/* faults.h: what the k-th system call or allocation does. They are numbered from 1, over all
 * threads, from fault_arm() on. src/fault.h is the seam in the code itself. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>

enum fault_kind {
    FAULT_COUNT, /* nothing: only count */
    FAULT_FAIL,  /* the k-th call fails */
    FAULT_FROM,  /* the k-th call and all after it fail */
    FAULT_KILL,  /* SIGKILL instead of the k-th call */
    FAULT_TEAR,  /* the k-th call moves half its bytes; SIGKILL instead of the one after it */
    FAULT_MEET,  /* before the k-th call, what fault_meet() was given runs */
    FAULT_SHORT, /* every transfer moves at most k bytes, and every second call is interrupted */
};

void fault_arm(enum fault_kind kind, long k, int error);

/* Arms FAULT_MEET: `other` stands for a thread that gets in between. Its own calls are not counted.
 */
void fault_meet(long k, void (*other)(void));

/* Calls since fault_arm. Ends the faults. */
long fault_disarm(void);

#endif
