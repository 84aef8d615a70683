/* image.c: see image.h. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

static const dovecote_layer layers[LAYERS] = {{1, DIM, DIM}, {1, DIM, DIM}};

dovecote_pool_config image_config(const uint8_t *header) {
    dovecote_pool_config config = {.layers = layers,
                                   .layer_count = LAYERS,
                                   .block_tokens = BLOCK,
                                   .codec = dc_get32(header + 20) % 5,
                                   .dtype = dc_get32(header + 24) % 3};
    memcpy(config.fingerprint, header + 64, sizeof config.fingerprint);
    return config;
}

dc_layout image_layout(const uint8_t *header) {
    dc_layout layout;
    dovecote_pool_config config = image_config(header);
    if (dc_layout_init(&layout, &config) || dc_layout_fit(&layout, FILE_BYTES)) abort();
    if (layout.frames != FRAMES || layout.record_bytes != RECORD) abort();
    memcpy(layout.secret, header + 96, sizeof layout.secret);
    return layout;
}

/* Where a packed piece lies in the file. Pieces: header, records, frames. */
static uint8_t *place(uint8_t *file, int piece, size_t *bytes) {
    *bytes = piece == 0 ? PACKED_HEADER : piece <= FRAMES ? RECORD : SECTIONS;
    if (piece == 0) return file;
    if (piece <= FRAMES) return file + 4096 + (piece - 1) * RECORD;
    return file + 8192 + (piece - 1 - FRAMES) * 4096;
}

void image_unpack(const uint8_t *input, size_t count, uint8_t *file) {
    memset(file, 0, FILE_BYTES);
    for (int piece = 0; piece <= 2 * FRAMES && count; piece++) {
        size_t bytes;
        uint8_t *at = place(file, piece, &bytes);
        if (bytes > count) bytes = count;
        memcpy(at, input, bytes);
        input += bytes;
        count -= bytes;
    }
}

void image_pack(const uint8_t *file, uint8_t *packed) {
    static uint8_t copy[FILE_BYTES];
    memcpy(copy, file, sizeof copy);
    for (int piece = 0; piece <= 2 * FRAMES; piece++) {
        size_t bytes;
        const uint8_t *at = place(copy, piece, &bytes);
        memcpy(packed, at, bytes);
        packed += bytes;
    }
}
