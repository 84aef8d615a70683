/* dovecote.h: the whole public C API of the cache core.
 *
 * A pool is one preallocated file of equal frames; each frame holds one block: `block_tokens`
 * consecutive tokens of one prefix, with the K and V of all layers. Blocks form chains (a tree:
 * equal prefixes share their blocks). A running request holds a lease: a pinned chain, plus a
 * reserve of frames it may still fill.
 *
 * What this header knows: bytes, tokens, frames. What it does not: models, agents, HTTP.
 *
 * Conventions
 *   - Functions return DOVECOTE_OK (0) or a negative dovecote_status; results go through `out`
 *     parameters, which are written only on success unless their comment says otherwise.
 *   - Ranges are half open: [start, end).
 *   - A pool may be called from any thread: one mutex guards its index, and payload bytes are read
 *     and written outside that mutex, under a lease. A lease belongs to one thread at a time.
 *   - No function prints, aborts or exits. There are no globals but the CPU feature word (cpu.h).
 *
 * Invariants (P1-P8 are those of docs/architecture.md; tests cite them by number)
 *   P1 A record is written only after its payload. A record or payload whose checksum fails is a
 *      miss, is counted, and its frame is freed.
 *   P2 A hit compares token ids, not only keys.
 *   P3 A sealed frame is immutable until it is freed. Freeing bumps its generation.
 *   P4 leased + cached + free = frames, at any time (dovecote_pool_check).
 *   P5 A leased frame is never evicted. A child is evicted before its parent, least recently used
 *      leaf first; pinned ones only when no other is left.
 *   P7 SIGKILL between any two system calls leaves a pool that opens, and whose every hit is exact.
 *   P8 A pool opens only for the fingerprint it was made with.
 */
#ifndef DOVECOTE_H
#define DOVECOTE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DOVECOTE_FINGERPRINT_BYTES 32
#define DOVECOTE_KEY_BYTES 16
#define DOVECOTE_FORMAT_VERSION 1

/* cdef-begin: what follows, up to cdef-end, is read by build_ffi.py. No macros in it. */

typedef enum {
    DOVECOTE_OK = 0,
    DOVECOTE_ERR_ARGUMENT = -1, /* a parameter breaks its contract; nothing changed */
    DOVECOTE_ERR_MEMORY = -2,   /* an allocation failed; nothing changed */
    DOVECOTE_ERR_IO = -3,       /* a system call failed; errno is kept for dovecote_pool_errno */
    DOVECOTE_ERR_FULL = -4,     /* fewer frames can be promised than asked for; nothing changed */
    DOVECOTE_ERR_FORMAT = -5,   /* not a pool, another format version, or a damaged header */
    DOVECOTE_ERR_MISMATCH = -6, /* a sound pool of another fingerprint, geometry or codec */
    DOVECOTE_ERR_BUSY = -7,     /* another process (or this one) has the pool open */
    DOVECOTE_ERR_BROKEN = -8    /* dovecote_pool_check found an invariant broken */
} dovecote_status;

/* The element type of the K and V that the model computes with. */
typedef enum { DOVECOTE_FLOAT32 = 0, DOVECOTE_FLOAT16 = 1, DOVECOTE_BFLOAT16 = 2 } dovecote_dtype;

/* How K and V are stored in a frame. See src/codec.h for what each one does to special values. */
typedef enum {
    DOVECOTE_CODEC_EXACT = 0, /* the model's own bytes */
    DOVECOTE_CODEC_F16 = 1,
    DOVECOTE_CODEC_Q8 = 2,
    DOVECOTE_CODEC_K8V4 = 3,
    DOVECOTE_CODEC_Q4 = 4
} dovecote_codec;

/* The K and V of one layer: [kv_heads, tokens, k_dim] and [kv_heads, tokens, v_dim]. */
typedef struct {
    uint32_t kv_heads;
    uint32_t k_dim;
    uint32_t v_dim;
} dovecote_layer;

/* One side (K or V) of one layer of one row, dense, as the model keeps it: the element of head h,
 * position t, dimension d lies at data + h * head_stride + (t * dim + d) * sizeof(dtype).
 * Nothing but the positions that a call is about is touched: data may point in front of the memory
 * where that begins with a later position, and a stride may be short of the positions before. */
typedef struct {
    void *data;           /* position 0 of head 0; borrowed for the call only */
    uint64_t head_stride; /* bytes from one head to the next */
    uint64_t capacity;    /* positions that each head has room for */
} dovecote_plane;

typedef struct {
    const dovecote_layer *layers; /* layer_count entries, copied */
    uint32_t layer_count;         /* 1 to 1024 */
    uint32_t block_tokens;        /* 1 to 256 */
    uint32_t dtype;               /* dovecote_dtype */
    uint32_t codec;               /* dovecote_codec */
    uint8_t fingerprint[32];
    uint64_t size_bytes; /* the file's size; 0: keep an existing file's own */
} dovecote_pool_config;

typedef struct dovecote_pool dovecote_pool;
typedef struct dovecote_lease dovecote_lease;

/* A snapshot. Counters start at zero when the pool is opened. */
typedef struct {
    uint64_t frames;   /* all frames: leased + cached + free (P4) */
    uint64_t leased;   /* frames under at least one lease, those being filled included */
    uint64_t cached;   /* sealed frames under none: evictable */
    uint64_t free;     /* frames that hold nothing */
    uint64_t pinned;   /* sealed frames that are evicted last; leased and cached ones */
    uint64_t promised; /* frames promised to leases and not yet filled; at most cached + free */
    uint64_t frame_bytes;
    uint64_t file_bytes;
    uint64_t held_bytes;        /* memory of the short blocks that are not on disk yet */
    uint64_t leases;            /* open leases */
    uint64_t tokens;            /* tokens in sealed frames */
    uint64_t matched_tokens;    /* tokens that matches found */
    uint64_t decoded_tokens;    /* tokens that decodes restored */
    uint64_t sealed_blocks;     /* blocks that became findable, short ones included */
    uint64_t shared_blocks;     /* seals that found their block already there */
    uint64_t evicted_blocks;    /* blocks that made room for others */
    uint64_t superseded_blocks; /* short blocks replaced by a longer one */
    uint64_t bytes_written;     /* payload and record bytes */
    uint64_t bytes_read;        /* payload bytes read back */
    uint64_t miss_checksum;     /* frames dropped since record or payload failed its checksum */
    uint64_t miss_orphan;       /* frames dropped since the block they hang on is gone */
    uint64_t miss_io;           /* frames dropped since reading them failed */
    uint64_t write_errors;      /* seals that failed */
} dovecote_pool_stats;

/* ---- pool ---- */

/* Opens the pool at `path`, or makes it (mode 0600, its full size allocated at once, so that a full
 * disk is an error here and never later). `path` NULL: a memory-only pool, gone when closed.
 * A new pool takes as many frames as fit into size_bytes; its file may be a little shorter. It is
 * made as `path` with ".new" appended, then renamed; one that a kill left behind is used again.
 * Holds an exclusive lock on the file until closed.
 * Errors: ARGUMENT (also when not one frame fits), MEMORY, IO (*os_error is errno), FORMAT,
 * MISMATCH (also when size_bytes is not 0 and neither the file's size nor what it was made with),
 * BUSY. After an error no file that existed before has changed, and a file that did not exist is
 * removed again. `os_error` may be NULL. */
int dovecote_pool_open(const char *path, const dovecote_pool_config *config, dovecote_pool **out,
                       int *os_error);

/* Writes what only memory knows: the short blocks that seals have left there (see
 * dovecote_lease_seal; but for those that an open lease has pinned), recency of use, freed frames.
 * A kill costs what was not flushed, and nothing else. Goes on after an error; what could not be
 * written stays in memory. Errors: IO. */
int dovecote_pool_flush(dovecote_pool *pool);

/* A point in the order in which short blocks came into memory: now. */
uint64_t dovecote_pool_held_mark(dovecote_pool *pool);

/* Writes of the short blocks that are in memory since before the mark at most `limit`, the oldest
 * first, but for those that an open lease has pinned. *left is how many of them remain to be
 * written. With marks taken at intervals a kill costs only what is younger, also when the pool is
 * never idle. Errors: ARGUMENT; IO, and what could not be written stays in memory. */
int dovecote_pool_flush_held(dovecote_pool *pool, uint64_t mark, uint32_t limit, uint32_t *left);

/* Flushes, and waits until everything is on disk. Nothing depends on it but what a power cut can
 * cost. Errors: IO. */
int dovecote_pool_sync(dovecote_pool *pool);

/* Flushes as far as that succeeds, closes the pool and frees it. Every
 * lease must have been closed before: otherwise ARGUMENT, and the pool stays open. NULL is allowed.
 */
int dovecote_pool_close(dovecote_pool *pool);

/* errno of the last ERR_IO on this pool, 0 if there was none. */
int dovecote_pool_errno(dovecote_pool *pool);

void dovecote_pool_get_stats(dovecote_pool *pool, dovecote_pool_stats *out);

/* How many threads one dovecote_lease_decode may use, the caller's included; 1 unless told. They are
 * started for a call that has work enough, and end with it. More than 16 count as
 * 16. Call it before the first lease is opened. */
void dovecote_pool_set_threads(dovecote_pool *pool, uint32_t threads);

/* Verifies P4 and every link of the tree, index, LRU list and free list. Does not change anything
 * and reads no payload. Errors: BROKEN. */
int dovecote_pool_check(dovecote_pool *pool);

typedef struct {
    uint32_t checked;    /* frames whose payload was read */
    uint32_t damaged;    /* of those: they failed or could not be read, and were dropped */
    uint32_t next_frame; /* where the next slice begins; after the last one, the pool's frames */
} dovecote_verified;

/* Reads the payload of the sealed frames among [first_frame, first_frame + frames) and checks it,
 * for an operator who wants to know before a request does. A damaged frame is dropped with all that
 * hangs on it, and counted as in dovecote_lease_decode. Other calls go on meanwhile: no frame is
 * pinned, and one that is freed during its reading is left out. Does not count as use; what is in
 * memory only is not read. Errors: ARGUMENT (first_frame is past the pool's end), MEMORY. */
int dovecote_pool_verify(dovecote_pool *pool, uint32_t first_frame, uint32_t frames,
                         dovecote_verified *out);

/* Copies the blocks of `source` into the empty `target` until one of them is exhausted, most
 * recently used chains first, parents before children. Both must have equal geometry, codec, dtype
 * and fingerprint, otherwise MISMATCH, and no open leases. Blocks that fail their checksum are left
 * out. This is how a pool changes its size: the target takes over the source's secret, and with it
 * the keys. `copied_blocks` may be NULL. Other calls on either pool wait. Errors: ARGUMENT (leases,
 * target not empty), MISMATCH, MEMORY, IO; after IO the blocks copied so far are in the target, and
 * its file may not open again; after MEMORY it is empty. */
int dovecote_pool_adopt(dovecote_pool *target, dovecote_pool *source, uint64_t *copied_blocks);

/* ---- lease ---- */

/* Reserves `frames` frames: the lease can seal that many blocks, whatever happens elsewhere.
 * Nothing is evicted yet: the promise is kept by counting. Errors: ARGUMENT, FULL, MEMORY. */
int dovecote_lease_open(dovecote_pool *pool, uint32_t frames, dovecote_lease **out);

/* Finds the longest cached prefix of tokens[0, count) and pins its blocks, to the token: whole
 * blocks first, then the common part of the best child (a short block, or one that diverges): the
 * tail. Each whole block found gives one promised frame back; the tail does not, since its tokens
 * will be sealed again. What could only be pinned by breaking another lease's promise is not
 * matched. At most once per lease, before any seal. `root` (16 bytes, NULL for zeros) separates
 * tenants: chains under different roots never share. A lease that never matches seals under the
 * root of zeros. *matched is the number of tokens found (0 to count). Errors: ARGUMENT, MEMORY. */
int dovecote_lease_match(dovecote_lease *lease, const uint8_t *root, const uint32_t *tokens,
                         uint64_t count, uint64_t *matched);

/* Asks the operating system to read the matched frames ahead. Does not wait for the disk. */
void dovecote_lease_prefetch(dovecote_lease *lease);

/* Reads, verifies and decodes the matched blocks [block_start, block_end) of the layers
 * [layer_start, layer_end) into planes: K then V of each layer, 2 * (layer_end - layer_start)
 * entries, each with capacity for every token written. Block i starts at position i * block_tokens;
 * the tail, if there is one, is the last block. A block past the matched ones is ignored.
 * A block that fails its checksum or cannot be read is dropped with all that hangs on it, counted,
 * and the lease ends before it: *valid is the number of tokens that the lease still covers (as
 * dovecote_lease_tokens), and positions from *valid on hold nothing of use. Its promise is taken
 * back if frames allow; if they do not, later seals may return FULL. Errors: ARGUMENT (nothing was
 * written). */
int dovecote_lease_decode(dovecote_lease *lease, uint32_t block_start, uint32_t block_end,
                          uint32_t layer_start, uint32_t layer_end, const dovecote_plane *planes,
                          uint64_t *valid);

/* Encodes and seals the blocks that follow the chain's last whole block. The chain is the matched
 * whole blocks, then the sealed ones, without the tail: with W tokens in it, tokens[0, count) are
 * the ids of positions [W, W + count), and planes (K then V of every layer) hold their K and V at
 * those positions of the row. After a match, W is *matched rounded down to whole blocks; after a
 * seal, W is *sealed. As many whole blocks as count has are sealed, and, if `short_block` is not 0,
 * the rest as a short block, which ends the chain: a further seal is an ARGUMENT error unless count
 * is 0. A block that the pool already holds (same parent, same ids; for a short block also a longer
 * one that starts with it) is pinned instead of written. A short block stays in memory, since a
 * longer one is likely to supersede it: dovecote_pool_flush writes it, and so does whatever makes
 * the short blocks in memory more than 64 MiB. The first block tried lets go of the tail. *sealed (may be NULL) is written even after an error: the number of tokens in the chain,
 * W's new value; with count 0 it only tells W. Errors: ARGUMENT, MEMORY, FULL (the promise is used
 * up), IO (also with EIO, without a try, if another lease has found a block of this chain damaged:
 * then nothing can hang on it any more). Blocks sealed before the error stay, a promise unused by
 * it too. */
int dovecote_lease_seal(dovecote_lease *lease, const uint32_t *tokens, uint64_t count,
                        const dovecote_plane *planes, int short_block, uint64_t *sealed);

/* Tokens that the lease covers: those of the chain, and of the tail as long as it is held. So it is
 * *matched after a match, and *sealed after a seal that tried a block. The tip is the key of the
 * chain's last block, never of the tail: 16 zero bytes while the chain is empty. */
uint64_t dovecote_lease_tokens(const dovecote_lease *lease);
void dovecote_lease_tip(const dovecote_lease *lease, uint8_t *key);

/* Unpins the chain (now the most recently used one), gives unused promises back, frees the lease.
 * NULL is allowed. */
void dovecote_lease_close(dovecote_lease *lease);

/* Writes the keys of the chain's blocks, without the tail, in order into keys[room][16]: what names
 * it for as long as the pool has this secret. Returns how many blocks the chain has; if that is
 * more than `room`, nothing is written. */
uint32_t dovecote_lease_keys(const dovecote_lease *lease, uint8_t *keys, uint32_t room);

/* The root that the chain hangs on: the one of the match, or of the chain held. 16 bytes. */
void dovecote_lease_root(const dovecote_lease *lease, uint8_t *root);

/* ---- chains by their keys ---- */

/* A chain that somebody noted: its keys as dovecote_lease_keys gave them, and how many tokens of it
 * are meant, of which (blocks - 1) * block_tokens lie before the last block. Whatever was evicted
 * since, what is left of it is a prefix. Keys say where to look and decide nothing about hits. */
typedef struct {
    const uint8_t *keys; /* [blocks][16], borrowed for the call */
    uint32_t blocks;
    uint64_t tokens;
} dovecote_chain;

typedef struct {
    uint64_t tokens;        /* those of the chain that are cached, also in a longer last block */
    uint32_t blocks;        /* frames that hold them */
    uint32_t own_blocks;    /* of those: what dovecote_chain_drop would free if nothing is leased */
    uint32_t pinned_blocks; /* of those */
    uint32_t superseded;    /* 1 if the last of those is a longer block in place of a short one */
} dovecote_chain_stats;

/* What the pool has of a chain. The first `shared` blocks count as somebody else's, too; of the
 * others, those on which another chain hangs. Does not count as use. Errors: ARGUMENT. */
int dovecote_chain_look(dovecote_pool *pool, const dovecote_chain *chain, uint32_t shared,
                        dovecote_chain_stats *out);

/* Frees the chain's blocks from its end on, up to the first that is among the first `shared`, that
 * another chain hangs on, or that is leased. *freed (may be NULL) is their number. The payload
 * stays in the file until another block takes the frame. Errors: ARGUMENT. */
int dovecote_chain_drop(dovecote_pool *pool, const dovecote_chain *chain, uint32_t shared,
                        uint32_t *freed);

/* Makes the cached blocks of these chains the pinned ones, instead of all that were: the first
 * chain from its start on, then the next, until `limit` frames are pinned. *wanted is how many it
 * would have taken. Pins are not kept in the file. Errors: ARGUMENT. */
int dovecote_pool_pin(dovecote_pool *pool, const dovecote_chain *chains, uint32_t count,
                      uint64_t limit, uint64_t *wanted);

/* Instead of a match: leases what the pool has of the chain, so that it can be read. A last block
 * that holds more than the chain's tokens is left out. *tokens is what it came to. Errors:
 * ARGUMENT; MEMORY; FULL if blocks could only be leased by breaking another lease's promise: then
 * none is. */
int dovecote_lease_hold(dovecote_lease *lease, const dovecote_chain *chain, uint64_t *tokens);

/* Reads and verifies one matched or held block as it is stored: ids[block_tokens], zeros from
 * *tokens on, and payload[frame_bytes]. Errors: ARGUMENT; IO if it cannot be had (errno is 0 for a
 * checksum): then it is dropped and the lease ends before it, as in dovecote_lease_decode. */
int dovecote_lease_read(dovecote_lease *lease, uint32_t block, uint32_t *ids, uint32_t *tokens,
                        uint8_t *payload);

/* Seals ids[0, tokens) with a payload that dovecote_lease_read gave, in a pool of the same geometry
 * and codec; that it is their K and V is the caller's word. One block, short if tokens is less than
 * block_tokens. Otherwise as dovecote_lease_seal. Errors: the same. */
int dovecote_lease_write(dovecote_lease *lease, const uint32_t *ids, uint32_t tokens,
                         const uint8_t *payload);

/* ---- codec, checksum, processor: for tests and benchmarks ---- */

/* Bytes that one side of one layer takes in a frame: `tokens` tokens of `heads` x `dim`.
 * `side` 0 is K, 1 is V. 0 if the codec cannot store that shape. */
uint64_t dovecote_codec_plane_bytes(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                                    uint32_t dim, uint32_t tokens);

/* Encodes or decodes positions [start, start + tokens) of one plane. `bytes` has plane_bytes bytes.
 * Errors: ARGUMENT. */
int dovecote_codec_encode(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                          uint32_t dim, const dovecote_plane *plane, uint64_t start,
                          uint32_t tokens, uint8_t *bytes);
int dovecote_codec_decode(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                          uint32_t dim, const uint8_t *bytes, uint64_t start, uint32_t tokens,
                          const dovecote_plane *plane);

uint32_t dovecote_crc32c(uint32_t crc, const void *bytes, uint64_t count);

/* The instruction set in use: "portable", "avx2", "avx512" or "neon". */
const char *dovecote_cpu_name(void);

/* Forces an instruction set by that name, or the best one with NULL or "best".
 * Errors: ARGUMENT (unknown, or this processor lacks it). For tests: not while a pool is in use. */
int dovecote_cpu_override(const char *name);

/* A constant English sentence for a status. */
const char *dovecote_strerror(int status);

/* cdef-end */

#ifdef __cplusplus
}
#endif
#endif
