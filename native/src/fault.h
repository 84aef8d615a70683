/* fault.h: the one seam through which tests make the outside world fail.
 *
 * Every system call (file.c) and every allocation (dc_alloc) asks dc_fault() first. In a normal
 * build it is the constant 0 and the compiler removes it. A build with -DDC_FAULTS takes it from
 * tests/faults.c, which fails, shortens or kills at the k-th call.
 */
#ifndef DC_FAULT_H
#define DC_FAULT_H

#include <stdint.h>
#include <stdlib.h>

#ifdef DC_FAULTS
/* 0: go on; otherwise the errno to fail with. `count` (NULL for calls that transfer nothing) may be
 * lowered to shorten a transfer. */
int dc_fault(size_t *count);
#else
static inline int dc_fault(size_t *count) {
    (void)count;
    return 0;
}
#endif

/* Zeroed memory for `count` elements, at least one; free with free(). NULL if there is none. */
static inline void *dc_alloc(uint64_t count, size_t size) {
    if (count > SIZE_MAX / size || dc_fault(NULL)) return NULL;
    return calloc(count ? (size_t)count : 1, size);
}

#endif
