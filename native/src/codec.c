/* codec.c: planes and sections on top of the kernels (codec.h has the layout).
 *
 * A plane's part of a section:
 *
 *   | codes [heads][block_tokens][dim] | pad | scales [heads][block_tokens] |
 *
 * The [tokens][dim] elements of one head are contiguous on both sides: one run for the kernels.
 * No state, no allocation; any thread, as long as nobody writes what is read.
 *
 * C1 Encoding writes every byte of the part: zeros in the pad, and past a short block's tokens.
 * C2 A run is worked on in pieces that stay in the nearest cache: float16 and bfloat16 go through
 *    float32 there, and decoded pieces from there past the caches into the plane (stream.h).
 * C3 While a run is encoded, the one after it is asked for, piece by piece. The processor's own
 *    prefetching starts anew on each page, and a run has two or three of them.
 *    docs/decisions/0002-pool-performance.md has what both gain.
 */
#include "codec.h"

#include <string.h>

#include "codec_kernels.h"
#include "stream.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "codes and scales are stored little-endian, as this processor must be"
#endif

#define MAX_HEADS 4096u
#define MAX_DIM 65536u
#define MAX_TOKENS 1048576u
#define PIECE 1024u /* elements of the stage, and the longest group: 4 KiB of stack */
#define STEP 256u   /* elements that are encoded before more of the next run is asked for */

typedef enum { RAW, F16, Q8, Q4 } form;

/* One side of one layer, in bytes. */
typedef struct {
    form form;
    uint32_t dtype;
    uint32_t heads;
    uint32_t dim;
    uint32_t block_tokens;
    size_t group;         /* elements a group; 1 in the forms without */
    size_t element_bytes; /* of the plane */
    size_t token_codes;   /* bytes of codes of one head's token */
    size_t token_scales;
    size_t scales_at; /* offset of the scales: codes and pad */
    size_t total;
} part;

static const dc_kernels *kernels_in_use(void) {
    switch (dc_cpu_level_in_use()) {
#if defined(DC_X86)
    case DC_AVX512:
        return &dc_kernels_avx512;
    case DC_AVX2:
        return &dc_kernels_avx2;
#elif defined(DC_ARM)
    case DC_NEON:
        return &dc_kernels_neon;
#endif
    default:
        return &dc_kernels_portable;
    }
}

/* ---- layout ---- */

static form form_of(uint32_t codec, uint32_t dtype, uint32_t side) {
    switch (codec) {
    case DOVECOTE_CODEC_F16:
        return dtype == DOVECOTE_FLOAT16 ? RAW : F16;
    case DOVECOTE_CODEC_Q8:
        return Q8;
    case DOVECOTE_CODEC_K8V4:
        return side == 0 ? Q8 : Q4;
    case DOVECOTE_CODEC_Q4:
        return Q4;
    default:
        return RAW;
    }
}

static size_t group_of(uint32_t dim) {
    if (dim % 64 == 0) {
        return 64;
    }
    return dim % 32 == 0 ? 32 : dim;
}

static size_t token_codes_of(const part *p) {
    switch (p->form) {
    case RAW:
        return p->dim * p->element_bytes;
    case F16:
        return p->dim * sizeof(uint16_t);
    case Q8:
        return p->dim;
    case Q4:
        return p->dim / p->group * ((p->group + 1) / 2);
    }
    return 0;
}

static int shape_fits(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads, uint32_t dim,
                      uint32_t tokens) {
    return codec <= DOVECOTE_CODEC_Q4 && dtype <= DOVECOTE_BFLOAT16 && side <= 1 && heads >= 1 &&
           heads <= MAX_HEADS && dim >= 1 && dim <= MAX_DIM && tokens >= 1 && tokens <= MAX_TOKENS;
}

/* Returns 0, and leaves *out alone, if the codec cannot store that shape. */
static int lay_out(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads, uint32_t dim,
                   uint32_t tokens, part *out) {
    if (!shape_fits(codec, dtype, side, heads, dim, tokens)) {
        return 0;
    }
    part p = {.form = form_of(codec, dtype, side), .dtype = dtype, .heads = heads, .dim = dim};
    p.block_tokens = tokens;
    p.element_bytes = dtype == DOVECOTE_FLOAT32 ? sizeof(float) : sizeof(uint16_t);
    int grouped = p.form == Q8 || p.form == Q4;
    p.group = grouped ? group_of(dim) : 1;
    if (p.group > PIECE) {
        return 0;
    }
    p.token_codes = token_codes_of(&p);
    p.token_scales = grouped ? p.dim / p.group * 4 : 0;
    p.scales_at = ((size_t)heads * tokens * p.token_codes + 3) / 4 * 4;
    p.total = p.scales_at + (size_t)heads * tokens * p.token_scales;
    *out = p;
    return 1;
}

static uint8_t *position(const part *p, const dovecote_plane *plane, uint32_t head,
                         uint64_t start) {
    return (uint8_t *)plane->data + head * plane->head_stride + start * p->dim * p->element_bytes;
}

/* ---- one head ---- */

static void encode_floats(const part *p, const dc_kernels *k, const float *in, size_t count,
                          uint8_t *codes, uint8_t *scales) {
    switch (p->form) {
    case Q8:
        k->q8_encode(in, count / p->group, p->group, codes, scales);
        break;
    case Q4:
        k->q4_encode(in, count / p->group, p->group, codes, scales);
        break;
    default:
        k->narrow_f16(in, codes, count);
        break;
    }
}

static void decode_floats(const part *p, const dc_kernels *k, const uint8_t *codes,
                          const uint8_t *scales, size_t count, float *out) {
    switch (p->form) {
    case Q8:
        k->q8_decode(codes, scales, count / p->group, p->group, out);
        break;
    case Q4:
        k->q4_decode(codes, scales, count / p->group, p->group, out);
        break;
    default:
        k->widen_f16(codes, out, count);
        break;
    }
}

/* Bytes of codes, and of scales, that `count` elements take; count is a multiple of the group. */
static size_t codes_of(const part *p, size_t count) {
    switch (p->form) {
    case RAW:
        return count * p->element_bytes;
    case F16:
        return count * sizeof(uint16_t);
    case Q8:
        return count;
    default:
        return count / p->group * ((p->group + 1) / 2);
    }
}

static size_t scales_of(const part *p, size_t count) {
    return p->token_scales == 0 ? 0 : count / p->group * 4;
}

/* Whole groups of about `limit` elements, at most PIECE, or what is left. */
static size_t piece_of(const part *p, size_t limit, size_t left) {
    size_t piece = p->group > limit ? p->group : limit / p->group * p->group;
    return left < piece ? left : piece;
}

/* ---- pieces of a head ---- */

static void encode_piece(const part *p, const dc_kernels *k, const uint8_t *in, size_t count,
                         uint8_t *codes, uint8_t *scales) {
    float stage[PIECE];
    if (p->form == RAW) {
        memcpy(codes, in, count * p->element_bytes);
    } else if (p->dtype == DOVECOTE_FLOAT32) {
        encode_floats(p, k, (const float *)(const void *)in, count, codes, scales);
    } else {
        if (p->dtype == DOVECOTE_FLOAT16) {
            k->widen_f16(in, stage, count);
        } else {
            k->widen_bf16(in, stage, count);
        }
        encode_floats(p, k, stage, count, codes, scales);
    }
}

static void decode_piece(const part *p, const dc_kernels *k, const uint8_t *codes,
                         const uint8_t *scales, size_t count, uint8_t *out) {
    float stage[PIECE];
    uint16_t halves[PIECE];
    const void *decoded = halves;
    decode_floats(p, k, codes, scales, count, stage);
    if (p->dtype == DOVECOTE_FLOAT32) {
        decoded = stage;
    } else if (p->dtype == DOVECOTE_FLOAT16) {
        k->narrow_f16(stage, halves, count);
    } else {
        k->narrow_bf16(stage, halves, count);
    }
    dc_stream(out, decoded, count * p->element_bytes);
}

/* Asks for `count` bytes to be in the cache soon. Any address will do. */
static void ask_for(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i += 64) {
        __builtin_prefetch(bytes + i);
    }
    __builtin_prefetch(bytes + count - 1); /* and more: docs/decisions/0002 */
}

/* ---- one head ---- */

/* `next`: the run to ask for meanwhile (C3), or NULL. */
static void encode_head(const part *p, const dc_kernels *k, const uint8_t *in, const uint8_t *next,
                        size_t tokens, uint8_t *codes, uint8_t *scales) {
    size_t count = tokens * p->dim;
    for (size_t done = 0; done < count;) {
        size_t piece = piece_of(p, STEP, count - done), at = done * p->element_bytes;
        if (next != NULL) {
            ask_for(next + at, piece * p->element_bytes);
        }
        encode_piece(p, k, in + at, piece, codes, scales);
        codes += codes_of(p, piece);
        scales += scales_of(p, piece);
        done += piece;
    }
}

static void decode_head(const part *p, const dc_kernels *k, const uint8_t *codes,
                        const uint8_t *scales, size_t tokens, uint8_t *out) {
    size_t count = tokens * p->dim;
    if (p->form == RAW) {
        dc_stream(out, codes, count * p->element_bytes);
        return;
    }
    for (size_t done = 0; done < count;) {
        size_t piece = piece_of(p, PIECE, count - done);
        decode_piece(p, k, codes, scales, piece, out + done * p->element_bytes);
        codes += codes_of(p, piece);
        scales += scales_of(p, piece);
        done += piece;
    }
}

/* ---- one plane ---- */

/* `next`: the run that will be encoded after this plane's last one (C3), or NULL. */
static void encode_plane(const part *p, const dovecote_plane *plane, uint64_t start, size_t count,
                         const uint8_t *next, uint8_t *bytes) {
    const dc_kernels *k = kernels_in_use();
    size_t head_codes = p->block_tokens * p->token_codes;
    size_t head_scales = p->block_tokens * p->token_scales;
    size_t used_codes = count * p->token_codes;
    size_t used_scales = count * p->token_scales;
    for (uint32_t h = 0; h < p->heads; h++) {
        uint8_t *codes = bytes + h * head_codes;
        uint8_t *scales = bytes + p->scales_at + h * head_scales;
        const uint8_t *after = h + 1 < p->heads ? position(p, plane, h + 1, start) : next;
        encode_head(p, k, position(p, plane, h, start), after, count, codes, scales);
        memset(codes + used_codes, 0, head_codes - used_codes);
        memset(scales + used_scales, 0, head_scales - used_scales);
    }
    memset(bytes + p->heads * head_codes, 0, p->scales_at - p->heads * head_codes);
}

static void decode_plane(const part *p, const uint8_t *bytes, uint64_t start, size_t count,
                         const dovecote_plane *plane) {
    const dc_kernels *k = kernels_in_use();
    for (uint32_t h = 0; h < p->heads; h++) {
        const uint8_t *codes = bytes + h * p->block_tokens * p->token_codes;
        const uint8_t *scales = bytes + p->scales_at + h * p->block_tokens * p->token_scales;
        decode_head(p, k, codes, scales, count, position(p, plane, h, start));
    }
}

/* ---- sections ---- */

/* Returns 0 if either side cannot be stored. */
static int lay_out_sides(const dc_section *s, part *k, part *v) {
    return lay_out(s->codec, s->dtype, 0, s->layer.kv_heads, s->layer.k_dim, s->block_tokens, k) &&
           lay_out(s->codec, s->dtype, 1, s->layer.kv_heads, s->layer.v_dim, s->block_tokens, v);
}

uint64_t dc_section_bytes(const dc_section *section) {
    part k;
    part v;
    return lay_out_sides(section, &k, &v) ? (uint64_t)k.total + v.total : 0;
}

const void *dc_section_run(const dc_section *section, const dovecote_plane *k, uint64_t start) {
    part k_part;
    part v_part;
    return lay_out_sides(section, &k_part, &v_part) ? position(&k_part, k, 0, start) : NULL;
}

void dc_section_encode(const dc_section *section, const dovecote_plane *k, const dovecote_plane *v,
                       uint64_t start, uint32_t count, const void *next, uint8_t *bytes) {
    part k_part;
    part v_part;
    if (lay_out_sides(section, &k_part, &v_part)) {
        encode_plane(&k_part, k, start, count, position(&v_part, v, 0, start), bytes);
        encode_plane(&v_part, v, start, count, next, bytes + k_part.total);
    }
}

/* Asks for the lines at the edges of each head's run, to be written. Any address will do. */
static void ask_for_edges(const part *p, const dovecote_plane *plane, uint64_t start,
                          uint32_t count) {
    for (uint32_t h = 0; h < p->heads; h++) {
        const uint8_t *run = position(p, plane, h, start);
        __builtin_prefetch(run, 1);
        __builtin_prefetch(run + (size_t)count * p->dim * p->element_bytes - 1, 1);
    }
}

void dc_section_expect(const dc_section *section, uint64_t start, uint32_t count,
                       const dovecote_plane *k, const dovecote_plane *v) {
    part k_part;
    part v_part;
    if (lay_out_sides(section, &k_part, &v_part)) {
        ask_for_edges(&k_part, k, start, count);
        ask_for_edges(&v_part, v, start, count);
    }
}

void dc_section_decode(const dc_section *section, const uint8_t *bytes, uint64_t start,
                       uint32_t count, const dovecote_plane *k, const dovecote_plane *v) {
    part k_part;
    part v_part;
    if (lay_out_sides(section, &k_part, &v_part)) {
        decode_plane(&k_part, bytes, start, count, k);
        decode_plane(&v_part, bytes + k_part.total, start, count, v);
        dc_stream_end();
    }
}

/* ---- public ---- */

uint64_t dovecote_codec_plane_bytes(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                                    uint32_t dim, uint32_t tokens) {
    part p;
    return lay_out(codec, dtype, side, heads, dim, tokens, &p) ? p.total : 0;
}

/* Whether positions [start, start + tokens) lie inside every head of the plane, and heads apart. */
static int plane_holds(const part *p, const dovecote_plane *plane, uint64_t start) {
    if (plane == NULL || plane->data == NULL || start > plane->capacity ||
        p->block_tokens > plane->capacity - start) {
        return 0;
    }
    uint64_t token_bytes = (uint64_t)p->dim * p->element_bytes;
    int aligned = ((uintptr_t)plane->data | plane->head_stride) % p->element_bytes == 0;
    return aligned && (p->heads == 1 || plane->head_stride / token_bytes >= plane->capacity);
}

int dovecote_codec_encode(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                          uint32_t dim, const dovecote_plane *plane, uint64_t start,
                          uint32_t tokens, uint8_t *bytes) {
    part p;
    if (bytes == NULL || !lay_out(codec, dtype, side, heads, dim, tokens, &p) ||
        !plane_holds(&p, plane, start)) {
        return DOVECOTE_ERR_ARGUMENT;
    }
    encode_plane(&p, plane, start, tokens, NULL, bytes);
    return DOVECOTE_OK;
}

int dovecote_codec_decode(uint32_t codec, uint32_t dtype, uint32_t side, uint32_t heads,
                          uint32_t dim, const uint8_t *bytes, uint64_t start, uint32_t tokens,
                          const dovecote_plane *plane) {
    part p;
    if (bytes == NULL || !lay_out(codec, dtype, side, heads, dim, tokens, &p) ||
        !plane_holds(&p, plane, start)) {
        return DOVECOTE_ERR_ARGUMENT;
    }
    decode_plane(&p, bytes, start, tokens, plane);
    dc_stream_end();
    return DOVECOTE_OK;
}
