/* GGUF blocks that become panels: one code table and one scale per 32 weights, as any other 4- or 8-bit weight. */
#ifndef GATUN_PACKED_GGUF_H
#define GATUN_PACKED_GGUF_H

#include "encodings/codes.h"

/* How one block type lies in panels. */
typedef struct gatun_gguf_panels {
    int32_t encoding;
    int32_t form;
    int32_t scale_type;  /* of the panels */
    int32_t offset_type; /* of the panels, or NONE */
    int32_t codes_at;    /* the first byte of the codes in a block */
    const int8_t *table; /* 16 values; null: the 256 of a signed byte */
} gatun_gguf_panels;

enum { GATUN_GGUF_PANEL_GROUP = 32 };

/* Null when the matrix is none of these types, its rows are padded or a factor multiplies it: it stays a SOURCE. */
const gatun_gguf_panels *gatun_gguf_panels_of(const gatun_matrix *matrix);
void gatun_gguf_fill_table(const gatun_gguf_panels *panels, float *table);
/* A row of blocks to the panel that it lies in, and back, bit for bit. */
void gatun_gguf_pack_row(const gatun_matrix *matrix, gatun_packed *packed, int64_t row);
void gatun_gguf_unpack_row(const gatun_packed *packed, const gatun_matrix *matrix, int64_t row);

#endif
