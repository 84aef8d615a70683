/* layout.c: see layout.h. Bytes in, bytes out; no system calls, no state. */
#include "layout.h"

#include <string.h>

#include "bytes.h"
#include "crc.h"
#include "fault.h"
#include "hash.h"

#define SECTION_ALIGN 64u
#define RECORD_ALIGN 64u
#define RECORD_HEAD 64u
#define HEADER_HEAD 256u
#define LAYERS_MAX 1024u
/* Elements of K and V a token and layer: keeps every product below far from 64 bits. */
#define WIDTH_MAX ((uint64_t)1 << 24)
#define FRAMES_MAX (DC_NONE - 1)

static const uint8_t magic[8] = {'D', 'O', 'V', 'E', 'C', 'O', 'T', 'E'};

/* ---- geometry ---- */

static bool config_is_sound(const dovecote_pool_config *config) {
    return config->layers && config->layer_count >= 1 && config->layer_count <= LAYERS_MAX &&
           config->block_tokens >= 1 && config->block_tokens <= DC_BLOCK_TOKENS_MAX &&
           config->dtype <= DOVECOTE_BFLOAT16 && config->codec <= DOVECOTE_CODEC_Q4 &&
           config->size_bytes <= INT64_MAX;
}

/* Lays out one section after the other. Returns false for a layer the codec cannot store. */
static bool place_sections(dc_layout *layout, const dovecote_layer *layers) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < layout->layer_count; i++) {
        dc_place *place = &layout->places[i];
        uint64_t dims = (uint64_t)layers[i].k_dim + layers[i].v_dim;
        if (dims > WIDTH_MAX || layers[i].kv_heads > WIDTH_MAX) return false;
        if (dims * layers[i].kv_heads > WIDTH_MAX) return false;
        place->section =
            (dc_section){layout->codec, layout->dtype, layout->block_tokens, layers[i]};
        place->bytes = dc_section_bytes(&place->section);
        place->offset = offset;
        if (place->bytes == 0) return false;
        offset += dc_round_up(place->bytes, SECTION_ALIGN);
    }
    layout->frame_bytes = dc_round_up(offset, DC_PAGE);
    return true;
}

int dc_layout_init(dc_layout *layout, const dovecote_pool_config *config) {
    *layout = (dc_layout){0};
    if (!config_is_sound(config)) return DOVECOTE_ERR_ARGUMENT;
    layout->layer_count = config->layer_count;
    layout->block_tokens = config->block_tokens;
    layout->dtype = config->dtype;
    layout->codec = config->codec;
    memcpy(layout->fingerprint, config->fingerprint, sizeof layout->fingerprint);
    layout->header_bytes =
        (uint32_t)dc_round_up(HEADER_HEAD + 12 * (uint64_t)layout->layer_count, DC_PAGE);
    layout->record_bytes = (uint32_t)dc_round_up(
        RECORD_HEAD + 4 * ((uint64_t)layout->block_tokens + layout->layer_count), RECORD_ALIGN);
    layout->places = dc_alloc(layout->layer_count, sizeof *layout->places);
    if (!layout->places) return DOVECOTE_ERR_MEMORY;
    if (place_sections(layout, config->layers)) return DOVECOTE_OK;
    dc_layout_free(layout);
    return DOVECOTE_ERR_ARGUMENT;
}

void dc_layout_free(dc_layout *layout) {
    free(layout->places);
    layout->places = NULL;
}

bool dc_layout_is_like(const dc_layout *layout, const dc_layout *other) {
    if (layout->layer_count != other->layer_count || layout->dtype != other->dtype ||
        layout->block_tokens != other->block_tokens || layout->codec != other->codec ||
        memcmp(layout->fingerprint, other->fingerprint, sizeof layout->fingerprint) != 0)
        return false;
    for (uint32_t i = 0; i < layout->layer_count; i++) {
        const dovecote_layer *a = &layout->places[i].section.layer;
        const dovecote_layer *b = &other->places[i].section.layer;
        if (a->kv_heads != b->kv_heads || a->k_dim != b->k_dim || a->v_dim != b->v_dim)
            return false;
    }
    return true;
}

static void set_frames(dc_layout *layout, uint32_t frames) {
    layout->frames = frames;
    layout->frames_offset = dc_round_up(dc_record_offset(layout, frames), DC_PAGE);
    layout->file_bytes = dc_frame_offset(layout, frames);
}

int dc_layout_fit(dc_layout *layout, uint64_t size_bytes) {
    if (size_bytes < layout->header_bytes) return DOVECOTE_ERR_ARGUMENT;
    uint64_t frames =
        (size_bytes - layout->header_bytes) / (layout->frame_bytes + layout->record_bytes);
    set_frames(layout, frames < FRAMES_MAX ? (uint32_t)frames : FRAMES_MAX);
    if (layout->frames && layout->file_bytes > size_bytes) /* by the table's padding */
        set_frames(layout, layout->frames - 1);
    layout->asked_bytes = size_bytes;
    return layout->frames ? DOVECOTE_OK : DOVECOTE_ERR_ARGUMENT;
}

/* Whether positions [first, last) of one side of a layer lie inside the plane, heads apart. */
static bool plane_holds(const dovecote_plane *plane, const dc_section *section, uint32_t dim,
                        uint64_t first, uint64_t last) {
    uint64_t element = section->dtype == DOVECOTE_FLOAT32 ? 4 : 2;
    if (dim == 0 || first >= last) return true;
    if (!plane->data || plane->capacity < last) return false;
    return section->layer.kv_heads == 1 || plane->head_stride / (dim * element) >= last - first;
}

bool dc_layout_planes_hold(const dc_layout *layout, const dovecote_plane *planes, uint32_t start,
                           uint32_t end, uint64_t first, uint64_t last) {
    for (uint32_t i = start; i < end; i++, planes += 2) {
        const dc_section *section = &layout->places[i].section;
        if (!plane_holds(&planes[0], section, section->layer.k_dim, first, last)) return false;
        if (!plane_holds(&planes[1], section, section->layer.v_dim, first, last)) return false;
    }
    return true;
}

/* ---- header ---- */

void dc_header_write(const dc_layout *layout, uint8_t *bytes) {
    memset(bytes, 0, layout->header_bytes);
    memcpy(bytes, magic, sizeof magic);
    dc_put32(bytes + 8, DOVECOTE_FORMAT_VERSION);
    dc_put32(bytes + 16, layout->header_bytes);
    dc_put32(bytes + 20, layout->codec);
    dc_put32(bytes + 24, layout->dtype);
    dc_put32(bytes + 28, layout->block_tokens);
    dc_put32(bytes + 32, layout->layer_count);
    dc_put32(bytes + 36, layout->frames);
    dc_put64(bytes + 40, layout->frame_bytes);
    dc_put64(bytes + 48, layout->file_bytes);
    dc_put64(bytes + 56, layout->asked_bytes);
    memcpy(bytes + 64, layout->fingerprint, sizeof layout->fingerprint);
    memcpy(bytes + 96, layout->secret, sizeof layout->secret);
    for (uint32_t i = 0; i < layout->layer_count; i++) {
        const dovecote_layer *layer = &layout->places[i].section.layer;
        uint8_t *at = bytes + HEADER_HEAD + 12 * i;
        dc_put32(at, layer->kv_heads);
        dc_put32(at + 4, layer->k_dim);
        dc_put32(at + 8, layer->v_dim);
    }
    dc_put32(bytes + 12, dc_crc32c(0, bytes + 16, layout->header_bytes - 16));
}

static bool header_is_intact(const uint8_t *bytes, uint64_t count) {
    if (count < DC_PAGE || memcmp(bytes, magic, sizeof magic) != 0) return false;
    if (dc_get32(bytes + 8) != DOVECOTE_FORMAT_VERSION) return false;
    uint32_t size = dc_get32(bytes + 16);
    if (size % DC_PAGE || size < DC_PAGE || size > DC_HEADER_MAX || size > count) return false;
    return dc_get32(bytes + 12) == dc_crc32c(0, bytes + 16, size - 16);
}

int dc_header_read(dc_layout *layout, const uint8_t *bytes, uint64_t count, uint64_t file_bytes) {
    if (!header_is_intact(bytes, count)) return DOVECOTE_ERR_FORMAT;
    if (dc_get64(bytes + 48) != file_bytes) return DOVECOTE_ERR_FORMAT; /* cut off, or grown */
    memcpy(layout->secret, bytes + 96, sizeof layout->secret);
    layout->asked_bytes = dc_get64(bytes + 56);
    set_frames(layout, dc_get32(bytes + 36));
    /* What this build would have written must be what is there: one comparison for geometry, codec,
     * fingerprint and every derived size. */
    uint8_t expected[DC_HEADER_MAX];
    dc_header_write(layout, expected);
    if (dc_get32(bytes + 16) != layout->header_bytes) return DOVECOTE_ERR_MISMATCH;
    if (memcmp(bytes, expected, layout->header_bytes) != 0) return DOVECOTE_ERR_MISMATCH;
    bool fits = layout->frames >= 1 && layout->frames <= file_bytes / layout->frame_bytes;
    return fits ? DOVECOTE_OK : DOVECOTE_ERR_FORMAT;
}

/* ---- records ---- */

static void finish_record(const dc_layout *layout, uint8_t *bytes) {
    dc_put32(bytes, dc_crc32c(0, bytes + 4, layout->record_bytes - 4));
}

void dc_record_write_free(const dc_layout *layout, const dc_frames *frames, uint32_t f,
                          uint8_t *bytes) {
    memset(bytes, 0, layout->record_bytes);
    dc_put64(bytes + 48, frames->at[f].generation);
    finish_record(layout, bytes);
}

void dc_record_write(const dc_layout *layout, const dc_frames *frames, uint32_t f, uint8_t *bytes) {
    const dc_frame *frame = &frames->at[f];
    uint8_t *ids = bytes + RECORD_HEAD, *sums = ids + 4 * layout->block_tokens;
    memset(bytes, 0, layout->record_bytes);
    dc_put32(bytes + 4, 1);
    dc_put32(bytes + 8, frame->tokens);
    dc_put32(bytes + 12, frame->depth);
    memcpy(bytes + 16, frame->key, DC_KEY_BYTES);
    memcpy(bytes + 32, frame->parent_key, DC_KEY_BYTES);
    dc_put64(bytes + 48, frame->generation);
    dc_put64(bytes + 56, frame->sequence);
    for (uint32_t i = 0; i < layout->block_tokens; i++)
        dc_put32(ids + 4 * i, dc_frames_ids(frames, f)[i]);
    for (uint32_t i = 0; i < layout->layer_count; i++)
        dc_put32(sums + 4 * i, dc_frames_sums(frames, f)[i]);
    finish_record(layout, bytes);
}

static bool all_zero(const uint8_t *bytes, uint32_t count) {
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

bool dc_record_read(const dc_layout *layout, dc_frames *frames, uint32_t f, const uint8_t *bytes) {
    dc_frame *frame = &frames->at[f];
    const uint8_t *ids = bytes + RECORD_HEAD, *sums = ids + 4 * layout->block_tokens;
    frame->state = DC_FREE;
    if (all_zero(bytes, layout->record_bytes)) return true;
    frame->dirty = true;
    if (dc_get32(bytes) != dc_crc32c(0, bytes + 4, layout->record_bytes - 4)) return false;
    uint32_t state = dc_get32(bytes + 4), tokens = dc_get32(bytes + 8);
    bool sound = state == 0 || (state == 1 && tokens >= 1 && tokens <= layout->block_tokens &&
                                dc_get64(bytes + 56) <= INT64_MAX);
    if (!sound) return false;
    frame->dirty = false;
    frame->generation = dc_get64(bytes + 48);
    if (state == 0) return true;
    frame->state = DC_SEALED;
    frame->tokens = (uint16_t)tokens;
    frame->depth = dc_get32(bytes + 12);
    memcpy(frame->key, bytes + 16, DC_KEY_BYTES);
    memcpy(frame->parent_key, bytes + 32, DC_KEY_BYTES);
    frame->sequence = dc_get64(bytes + 56);
    for (uint32_t i = 0; i < layout->block_tokens; i++)
        dc_frames_ids(frames, f)[i] = dc_get32(ids + 4 * i);
    for (uint32_t i = 0; i < layout->layer_count; i++)
        dc_frames_sums(frames, f)[i] = dc_get32(sums + 4 * i);
    return true;
}
