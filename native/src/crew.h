/* crew.h: the threads that compute together.
 *
 * Between crew.c, which owns the threads, and whoever has a job for them (blas.c, compute.c). A job
 * is a range of pieces and a function that does some of them; the caller and the workers claim
 * pieces from one counter until none is left, so a worker that is late costs nothing: the others do
 * its share. One job at a time; who finds the crew busy does its job alone. */
#ifndef DC_CREW_H
#define DC_CREW_H

#include <stddef.h>

/* Does the pieces [start, end). Any thread, several at once. */
typedef void dc_crew_work(const void *job, size_t start, size_t end);

/* Does the pieces [0, count), `grain` at a time, and returns when all are done. `job` is read until
 * then. Any thread. */
void dc_crew_run(dc_crew_work *work, const void *job, size_t count, size_t grain);

/* Threads that a job may use, the caller's included; 1 unless told otherwise. Workers start with
 * the first job that wants them. Fewer than before: the rest sleeps. */
void dc_crew_set_threads(int threads);
int dc_crew_threads(void);

#endif
