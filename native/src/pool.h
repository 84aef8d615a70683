/* pool.h: what pool.c, adopt.c and lease.c share. Nothing else includes it.
 *
 * Who guards what
 *   mutex          frames, promised, leases, stats, last_error, record; and record writes of
 *                  frames that are not FILLING (dc_pool_write_dirty)
 *   nobody         layout and fd: constant while the pool is open
 *   a lease        payload, record, ids and sums of the frame it is filling; it may read payload,
 *                  key and sums of each frame it has pinned, since a sealed frame does not change
 */
#ifndef DC_POOL_H
#define DC_POOL_H

#include <pthread.h>

#include "dovecote.h"
#include "frames.h"
#include "layout.h"

struct dovecote_pool {
    pthread_mutex_t mutex;
    dc_layout layout;
    dc_frames frames;
    int fd;
    int last_error;            /* errno of the last ERR_IO */
    uint64_t promised;         /* <= dc_frames_available(&frames), always */
    uint64_t leases;           /* open ones */
    dovecote_pool_stats stats; /* its counters only; the rest is filled in when asked for */
    uint8_t *record;           /* [record_bytes] */
};

static inline void dc_pool_lock(dovecote_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
}
static inline void dc_pool_unlock(dovecote_pool *pool) {
    pthread_mutex_unlock(&pool->mutex);
}

/* Whether a cached frame can become a leased one, or one more frame be promised, with every promise
 * still kept. */
static inline bool dc_pool_can_spare(const dovecote_pool *pool) {
    return pool->promised < dc_frames_available(&pool->frames);
}

#endif
