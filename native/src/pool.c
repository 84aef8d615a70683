/* pool.c: opening, closing and looking at a pool.
 *
 * A new pool's file comes to be under its path plus ".new", complete and synced, and is then
 * renamed: whatever the moment of a kill, the path names nothing or a whole pool (P7). A ".new"
 * file that a kill left behind is used again by the next attempt.
 *
 * Locks: the file's lock is taken before anything in it is read or changed. Between opening a name
 * and locking the file another process may have renamed it, hence dc_file_is_at after each lock.
 */
#include "pool.h"

#include <errno.h>
#include <string.h>

#include "crc.h"
#include "fault.h"
#include "file.h"

/* Bytes of the block table read at a time when opening. */
#define TABLE_CHUNK ((uint32_t)1 << 20)

static int io_error(dovecote_pool *pool, int error) {
    pool->last_error = error;
    return DOVECOTE_ERR_IO;
}

/* ---- life of the handle ---- */

static void pool_free(dovecote_pool *pool) {
    if (!pool) return;
    dc_file_close(pool->fd);
    dc_frames_free(&pool->frames);
    dc_layout_free(&pool->layout);
    free(pool->record);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

static int pool_new(const dovecote_pool_config *config, dovecote_pool **out) {
    dovecote_pool *pool = dc_alloc(1, sizeof *pool);
    if (!pool) return DOVECOTE_ERR_MEMORY;
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        free(pool);
        return DOVECOTE_ERR_MEMORY;
    }
    pool->fd = -1;
    pool->threads = 1;
    int rc = dc_layout_init(&pool->layout, config);
    if (rc != DOVECOTE_OK) goto fail;
    rc = DOVECOTE_ERR_MEMORY;
    pool->record = dc_alloc(pool->layout.record_bytes, 1);
    if (!pool->record) goto fail;
    *out = pool;
    return DOVECOTE_OK;
fail:
    pool_free(pool);
    return rc;
}

/* The frame count is known by now. */
static int make_frames(dovecote_pool *pool) {
    const dc_layout *layout = &pool->layout;
    return dc_frames_init(&pool->frames, layout->frames, layout->block_tokens, layout->layer_count);
}

/* ---- making a pool ---- */

/* Gives the open file its size and header. */
static int fill_new_file(dovecote_pool *pool, bool reserved) {
    uint8_t header[DC_HEADER_MAX];
    int error = dc_file_random(pool->layout.secret, sizeof pool->layout.secret);
    if (!error) error = dc_file_allocate(pool->fd, pool->layout.file_bytes, reserved);
    if (error) return io_error(pool, error);
    dc_header_write(&pool->layout, header);
    error = dc_file_write(pool->fd, 0, header, pool->layout.header_bytes);
    return error ? io_error(pool, error) : DOVECOTE_OK;
}

static int make_unnamed(dovecote_pool *pool) {
    int rc = make_frames(pool);
    if (rc != DOVECOTE_OK) return rc;
    int error = dc_file_make_unnamed(&pool->fd);
    return error ? io_error(pool, error) : fill_new_file(pool, false);
}

/* Locks the open file. BUSY also if `path` no longer names it. */
static int lock_at(dovecote_pool *pool, const char *path) {
    bool is_at = false;
    int error = dc_file_lock(pool->fd);
    if (error == EWOULDBLOCK) return DOVECOTE_ERR_BUSY;
    if (!error) error = dc_file_is_at(pool->fd, path, &is_at);
    if (error) return io_error(pool, error);
    return is_at ? DOVECOTE_OK : DOVECOTE_ERR_BUSY;
}

/* Opens and locks `fresh`, the name a new pool has until it is complete. The look at `path` comes
 * after the lock: whoever else made a pool there had to hold it. */
static int claim_fresh(dovecote_pool *pool, const char *path, const char *fresh) {
    int error = dc_file_make(fresh, &pool->fd);
    if (error) return io_error(pool, error);
    int rc = lock_at(pool, fresh);
    if (rc != DOVECOTE_OK) return rc;
    error = dc_file_exists(path);
    if (error == ENOENT) return DOVECOTE_OK;
    dc_file_remove(fresh);
    return error ? io_error(pool, error) : DOVECOTE_ERR_BUSY;
}

/* Puts the complete file under its name. After a failure neither name exists. */
static int commit_fresh(dovecote_pool *pool, const char *path, const char *fresh) {
    const char *name = fresh;
    int error = dc_file_sync(pool->fd);
    if (!error) error = dc_file_rename(fresh, path);
    if (!error) {
        name = path;
        error = dc_file_sync_parent(path);
    }
    if (!error) return DOVECOTE_OK;
    dc_file_remove(name);
    return io_error(pool, error);
}

static int make_file(dovecote_pool *pool, const char *path) {
    size_t length = strlen(path);
    char *fresh = dc_alloc(length + sizeof ".new", 1);
    if (!fresh) return DOVECOTE_ERR_MEMORY;
    memcpy(fresh, path, length);
    memcpy(fresh + length, ".new", sizeof ".new");
    int rc = make_frames(pool);
    if (rc != DOVECOTE_OK) goto done;
    rc = claim_fresh(pool, path, fresh);
    if (rc != DOVECOTE_OK) goto done;
    rc = fill_new_file(pool, true);
    if (rc != DOVECOTE_OK)
        dc_file_remove(fresh);
    else
        rc = commit_fresh(pool, path, fresh);
done:
    free(fresh);
    return rc;
}

/* ---- opening a pool ---- */

static int read_header(dovecote_pool *pool, uint64_t size_bytes) {
    uint8_t header[DC_HEADER_MAX];
    uint64_t file_bytes;
    int error = dc_file_size(pool->fd, &file_bytes);
    if (error) return io_error(pool, error);
    uint64_t count = file_bytes < sizeof header ? file_bytes : sizeof header;
    error = dc_file_read(pool->fd, 0, header, count);
    if (error) return io_error(pool, error);
    int rc = dc_header_read(&pool->layout, header, count, file_bytes);
    if (rc != DOVECOTE_OK) return rc;
    bool same =
        size_bytes == 0 || size_bytes == file_bytes || size_bytes == pool->layout.asked_bytes;
    return same ? DOVECOTE_OK : DOVECOTE_ERR_MISMATCH;
}

static int read_table(dovecote_pool *pool) {
    const dc_layout *layout = &pool->layout;
    uint32_t chunk = TABLE_CHUNK / layout->record_bytes, f = 0;
    uint8_t *bytes = dc_alloc(chunk, layout->record_bytes);
    if (!bytes) return DOVECOTE_ERR_MEMORY;
    int error = 0;
    while (!error && f < layout->frames) {
        uint32_t count = layout->frames - f < chunk ? layout->frames - f : chunk;
        error = dc_file_read(pool->fd, dc_record_offset(layout, f), bytes,
                             (uint64_t)count * layout->record_bytes);
        for (uint32_t i = 0; !error && i < count; i++, f++)
            if (!dc_record_read(layout, &pool->frames, f, bytes + (size_t)i * layout->record_bytes))
                pool->stats.miss_checksum++;
    }
    free(bytes);
    return error ? io_error(pool, error) : DOVECOTE_OK;
}

/* The file is open as pool->fd. Reads only. */
static int load_file(dovecote_pool *pool, const char *path, uint64_t size_bytes) {
    uint32_t orphans = 0;
    int rc = lock_at(pool, path);
    if (rc == DOVECOTE_OK) rc = read_header(pool, size_bytes);
    if (rc == DOVECOTE_OK) rc = make_frames(pool);
    if (rc == DOVECOTE_OK) rc = read_table(pool);
    if (rc == DOVECOTE_OK) rc = dc_frames_restore(&pool->frames, &orphans);
    pool->stats.miss_orphan = orphans;
    return rc;
}

static int open_file(dovecote_pool *pool, const char *path, uint64_t size_bytes) {
    int error = dc_file_open(path, &pool->fd);
    if (!error) return load_file(pool, path, size_bytes);
    pool->fd = -1;
    if (error == EINVAL) return DOVECOTE_ERR_FORMAT;
    if (error != ENOENT) return io_error(pool, error);
    int rc = dc_layout_fit(&pool->layout, size_bytes);
    return rc == DOVECOTE_OK ? make_file(pool, path) : rc;
}

int dovecote_pool_open(const char *path, const dovecote_pool_config *config, dovecote_pool **out,
                       int *os_error) {
    dovecote_pool *pool = NULL;
    if (os_error) *os_error = 0;
    if (!config || !out) return DOVECOTE_ERR_ARGUMENT;
    int rc = pool_new(config, &pool);
    if (rc != DOVECOTE_OK) return rc;
    if (path)
        rc = open_file(pool, path, config->size_bytes);
    else
        rc = dc_layout_fit(&pool->layout, config->size_bytes);
    if (rc == DOVECOTE_OK && !path) rc = make_unnamed(pool);
    if (rc == DOVECOTE_OK) {
        *out = pool;
        return rc;
    }
    if (os_error) *os_error = pool->last_error;
    pool_free(pool);
    return rc;
}

/* ---- closing ---- */

int dc_pool_read_frame(const dovecote_pool *pool, uint32_t frame, uint8_t *payload) {
    const dc_layout *layout = &pool->layout;
    const dc_held *held = pool->frames.at[frame].held;
    if (!held)
        return dc_file_read(pool->fd, dc_frame_offset(layout, frame), payload, layout->frame_bytes);
    memcpy(payload, held->payload, layout->frame_bytes);
    return 0;
}

bool dc_pool_payload_is_sound(const dovecote_pool *pool, const uint8_t *payload,
                              const uint32_t *sums) {
    const dc_layout *layout = &pool->layout;
    for (uint32_t i = 0; i < layout->layer_count; i++) {
        const dc_place *place = &layout->places[i];
        if (dc_crc32c(0, payload + place->offset, place->bytes) != sums[i]) return false;
    }
    return true;
}

void dc_pool_drop_damaged(dovecote_pool *pool, uint32_t frame, int error) {
    *(error ? &pool->stats.miss_io : &pool->stats.miss_checksum) += 1;
    pool->stats.miss_orphan += dc_frames_drop(&pool->frames, frame) - 1;
}

int dc_pool_write_block(const dovecote_pool *pool, uint32_t frame, const uint8_t *payload,
                        uint8_t *record, bool stale, uint64_t *written) {
    const dc_layout *layout = &pool->layout;
    uint64_t record_offset = dc_record_offset(layout, frame);
    int error = 0;
    if (stale) {
        dc_record_write_free(layout, &pool->frames, frame, record);
        error = dc_file_write(pool->fd, record_offset, record, layout->record_bytes);
        *written += layout->record_bytes;
    }
    if (!error)
        error =
            dc_file_write(pool->fd, dc_frame_offset(layout, frame), payload, layout->frame_bytes);
    if (error) return error;
    dc_record_write(layout, &pool->frames, frame, record);
    *written += layout->frame_bytes + layout->record_bytes;
    return dc_file_write(pool->fd, record_offset, record, layout->record_bytes);
}

/* Puts on disk what was held in memory. After an error it still is. Returns an errno value. */
static int write_held(dovecote_pool *pool, uint32_t f) {
    dc_held *held = pool->frames.at[f].held;
    int error = dc_pool_write_block(pool, f, held->payload, pool->record, held->stale,
                                    &pool->stats.bytes_written);
    if (error) {
        held->stale = true; /* whatever is there now */
        pool->stats.write_errors++;
        return error;
    }
    dc_frames_let_go(&pool->frames, f);
    return 0;
}

bool dc_pool_make_room_to_hold(dovecote_pool *pool) {
    const dc_frames *frames = &pool->frames;
    if ((frames->held.count + 1) * pool->layout.frame_bytes <= DC_HELD_MAX_BYTES) return true;
    for (dc_held *held = frames->held.oldest; held; held = held->younger)
        if (!frames->at[held->frame].leases) return write_held(pool, held->frame) == 0;
    return false;
}

/* Returns an errno value. */
static int write_record(dovecote_pool *pool, uint32_t f) {
    const dc_layout *layout = &pool->layout;
    pool->stats.bytes_written += layout->record_bytes;
    if (pool->frames.at[f].state == DC_SEALED)
        dc_record_write(layout, &pool->frames, f, pool->record);
    else
        dc_record_write_free(layout, &pool->frames, f, pool->record);
    return dc_file_write(pool->fd, dc_record_offset(layout, f), pool->record, layout->record_bytes);
}

static int write_frame(dovecote_pool *pool, uint32_t f) {
    dc_frame *frame = &pool->frames.at[f];
    if (frame->held) return frame->leases ? 0 : write_held(pool, f);
    int error = write_record(pool, f);
    frame->dirty = error != 0;
    return error;
}

/* Brings the disk up to date: short blocks that no lease uses, recency of chains, freed frames.
 * Under the mutex, so that no frame can be taken and filled meanwhile. Goes on after an error, and
 * returns the first one. */
static int write_dirty(dovecote_pool *pool) {
    int first_error = 0;
    for (uint32_t f = 0; f < pool->frames.count; f++) {
        const dc_frame *frame = &pool->frames.at[f];
        if (frame->state == DC_FILLING || !frame->dirty) continue;
        int error = write_frame(pool, f);
        if (error && !first_error) first_error = error;
    }
    return first_error;
}

int dovecote_pool_flush(dovecote_pool *pool) {
    if (!pool) return DOVECOTE_ERR_ARGUMENT;
    dc_pool_lock(pool);
    int error = write_dirty(pool);
    int rc = error ? io_error(pool, error) : DOVECOTE_OK;
    dc_pool_unlock(pool);
    return rc;
}

uint64_t dovecote_pool_held_mark(dovecote_pool *pool) {
    dc_pool_lock(pool);
    uint64_t given = pool->frames.held.given;
    dc_pool_unlock(pool);
    return given;
}

int dovecote_pool_flush_held(dovecote_pool *pool, uint64_t mark, uint32_t limit, uint32_t *left) {
    if (!pool || !left) return DOVECOTE_ERR_ARGUMENT;
    uint32_t waiting = 0;
    int error = 0;
    dc_pool_lock(pool);
    dc_held *held = pool->frames.held.oldest, *younger;
    for (; !error && held && held->number <= mark; held = younger) {
        younger = held->younger;
        if (pool->frames.at[held->frame].leases) continue;
        if (limit == 0) waiting++;
        if (limit == 0) continue;
        limit--;
        error = write_held(pool, held->frame);
    }
    int rc = error ? io_error(pool, error) : DOVECOTE_OK;
    dc_pool_unlock(pool);
    if (rc == DOVECOTE_OK) *left = waiting;
    return rc;
}

int dovecote_pool_sync(dovecote_pool *pool) {
    int rc = dovecote_pool_flush(pool);
    if (rc == DOVECOTE_ERR_ARGUMENT) return rc;
    int error = dc_file_sync(pool->fd);
    if (!error || rc != DOVECOTE_OK) return rc;
    dc_pool_lock(pool);
    rc = io_error(pool, error);
    dc_pool_unlock(pool);
    return rc;
}

int dovecote_pool_close(dovecote_pool *pool) {
    if (!pool) return DOVECOTE_OK;
    dc_pool_lock(pool);
    bool in_use = pool->leases > 0;
    if (!in_use) write_dirty(pool); /* if it fails, recency is lost and nothing else */
    dc_pool_unlock(pool);
    if (in_use) return DOVECOTE_ERR_ARGUMENT;
    pool_free(pool);
    return DOVECOTE_OK;
}

/* ---- looking ---- */

int dovecote_pool_errno(dovecote_pool *pool) {
    dc_pool_lock(pool);
    int error = pool->last_error;
    dc_pool_unlock(pool);
    return error;
}

void dovecote_pool_set_threads(dovecote_pool *pool, uint32_t threads) {
    pool->threads = !threads ? 1 : threads < DC_MAX_THREADS ? threads : DC_MAX_THREADS;
}

void dovecote_pool_get_stats(dovecote_pool *pool, dovecote_pool_stats *out) {
    dc_pool_lock(pool);
    const dc_frames *frames = &pool->frames;
    *out = pool->stats;
    out->frames = frames->count;
    out->leased = frames->leased;
    out->cached = frames->cached;
    out->free = frames->free;
    out->pinned = frames->pinned;
    out->promised = pool->promised;
    out->frame_bytes = pool->layout.frame_bytes;
    out->file_bytes = pool->layout.file_bytes;
    out->leases = pool->leases;
    out->held_bytes = frames->held.count * pool->layout.frame_bytes;
    out->tokens = frames->tokens;
    out->evicted_blocks = frames->evicted;
    out->superseded_blocks = frames->superseded;
    dc_pool_unlock(pool);
}

int dovecote_pool_check(dovecote_pool *pool) {
    dc_pool_lock(pool);
    int rc = dc_frames_check(&pool->frames);
    if (pool->promised > dc_frames_available(&pool->frames)) rc = DOVECOTE_ERR_BROKEN;
    dc_pool_unlock(pool);
    return rc;
}
