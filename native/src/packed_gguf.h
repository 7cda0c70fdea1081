/* GGUF blocks that become panels, as any other weight of four to six or eight bits. */
#ifndef GATUN_PACKED_GGUF_H
#define GATUN_PACKED_GGUF_H

#include "encodings/codes.h"

/* Some bits of every code of a block: of element i at byte at + i / e * bytes + i % bytes, e = 8 * bytes / bits, the
 * first of each byte's in its lowest bits. */
typedef struct gatun_plane {
    int32_t at, bytes, bits; /* bits 0: there is none */
} gatun_plane;

/* The scales and offsets of a block's groups as bytes, and the way back. */
typedef void gatun_bytes_get(const uint8_t *block, uint8_t *scales, uint8_t *offsets);
typedef void gatun_bytes_put(uint8_t *block, const uint8_t *scales, const uint8_t *offsets);

/* How one block type lies in panels. */
typedef struct gatun_gguf_panels {
    int32_t encoding;
    int32_t form;
    int32_t group;       /* k under one scale */
    int32_t scale_type;  /* of the panels */
    int32_t offset_type; /* of the panels, or NONE */
    gatun_plane low, high;
    const int8_t *table; /* 16 values; null: the code itself, */
    int32_t bias;        /* less this; of 8 bits, the signed byte */
    /* Types whose scales are bytes: groups of a block (0 for the others), where the factors of scales and offsets lie
     * in it (negative: nowhere). */
    int32_t super_groups, factor_at, offset_factor_at;
    gatun_bytes_get *get;
    gatun_bytes_put *put;
} gatun_gguf_panels;

/* Null when the matrix is none of these types, its rows are padded or a factor multiplies it: it stays a SOURCE. */
const gatun_gguf_panels *gatun_gguf_panels_of(const gatun_matrix *matrix);
/* Panels with records of scales behind their groups: the strides and offsets of a header whose group, groups and types
 * are set. */
void gatun_gguf_lay_supers(const gatun_gguf_panels *panels, int64_t code_bytes, gatun_packed *header);
void gatun_gguf_fill_table(const gatun_gguf_panels *panels, int32_t form, float *table);
/* The codes of whole blocks of a row, one a byte. */
void gatun_gguf_codes_get(const gatun_gguf_panels *panels, const gatun_matrix *matrix, int64_t row, int64_t first,
                          int64_t count, uint8_t *codes);
/* The scales and offsets of groups of a panel: to their records, or to the groups as they are made. */
void gatun_gguf_pack_parameters(const gatun_gguf_panels *panels, const gatun_matrix *matrix, const gatun_packed *packed,
                                int64_t panel, int64_t rows, int64_t group, int64_t groups, uint8_t *made);
/* The way back from panels to a row of blocks, bit for bit. */
void gatun_gguf_unpack_row(const gatun_packed *packed, const gatun_matrix *matrix, int64_t row);

#endif
