/* pool.h: what pool.c, adopt.c, verify.c and lease.h share. Nothing else includes it.
 *
 * Who guards what
 *   mutex          frames, promised, leases, stats, last_error, record; and record writes of
 *                  frames that are not FILLING (dc_pool_write_dirty)
 *   nobody         layout, fd and threads: constant while there are leases
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
    uint32_t threads;          /* of one decode: 1 to DC_MAX_THREADS */
};

#define DC_MAX_THREADS 16

/* Payloads held in memory (held.h) take at most that much. */
#define DC_HELD_MAX_BYTES ((uint64_t)64 << 20)

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

/* Frees the old record if the disk may still have one (`stale`; P3), then payload, then record (P1).
 * The frame is the caller's alone, or the mutex is held. `record` has record_bytes bytes to work in.
 * Adds what it wrote to *written. Returns an errno value. */
int dc_pool_write_block(const dovecote_pool *pool, uint32_t frame, const uint8_t *payload,
                        uint8_t *record, bool stale, uint64_t *written);

/* The payload of a sealed frame that nobody can change meanwhile. Returns an errno value. */
int dc_pool_read_frame(const dovecote_pool *pool, uint32_t frame, uint8_t *payload);

/* Whether each section of a frame's payload has the checksum that sums[layer_count] gives. */
bool dc_pool_payload_is_sound(const dovecote_pool *pool, const uint8_t *payload,
                              const uint32_t *sums);

/* Locked. Takes a sealed frame that could not be had out of reach, with all that hangs on it, and
 * counts that. `error` is an errno value, 0 for a checksum. */
void dc_pool_drop_damaged(dovecote_pool *pool, uint32_t frame, int error);

/* Locked. Whether one more payload may be held; writes the oldest one that no lease uses if need
 * be. */
bool dc_pool_make_room_to_hold(dovecote_pool *pool);

#endif
