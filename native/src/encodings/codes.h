/* Where codes lie, and GGUF's blocks: what the files of this folder share. */
#ifndef GATUN_CODES_H
#define GATUN_CODES_H

#include "encodings/numbers.h"

/* The lowest bit of a code; the rest follows upwards, into the next byte where it does not fit. */
typedef struct gatun_place {
    int64_t byte;
    int32_t shift;
} gatun_place;

gatun_place gatun_code_place(const gatun_matrix *matrix, int64_t row, int64_t column);
/* The byte that a code straddles into. GPTQ's 3-bit words go on in the next row of words. */
static inline int64_t gatun_next_byte(const gatun_matrix *m, int64_t byte) {
    return m->code_order == GATUN_ORDER_WORDS_K && byte % 4 == 3 ? byte - 3 + m->n * 4 : byte + 1;
}

/* One of GGUF's block types; GATUN_BLOCK_MAX is the longest one, GATUN_ROTATION_MAX the longest rotation. */
typedef struct gatun_block {
    int32_t elements;
    int32_t bytes;
    void (*decode)(const uint8_t *block, float *values);
} gatun_block;
enum { GATUN_BLOCK_MAX = 256, GATUN_ROTATION_MAX = 4096 };

/* Null when the encoding is not one of GGUF's blocks. */
const gatun_block *gatun_gguf_block(int32_t encoding);

#endif
