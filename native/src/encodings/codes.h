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

/* IQ4_NL's and IQ4_XS's values; E2M1's, doubled so that they are integers. */
extern const int8_t gatun_iq4_values[16], gatun_e2m1_doubled[16];
/* Half of 2^(code - 127), since the values are doubled; 255 is no NaN here. */
static inline float gatun_half_of_e8m0(uint32_t code) {
    return gatun_bits_float(code < 2 ? 0x00200000u << code : (code - 1) << 23);
}
float gatun_half_of_ue4m3(uint8_t code);
/* The scale of NVFP4 that is nearest. */
uint8_t gatun_ue4m3_of(float value);

/* The numbers of one block to its bytes; false when this type is not written. */
bool gatun_gguf_encode(int32_t encoding, const float *x, uint8_t *block);

/* What the decoded numbers of a matrix of blocks are multiplied by: most descriptions leave it unset. */
static inline float gatun_gguf_factor(const gatun_matrix *m) { return m->global_scale == 0 ? 1.0f : m->global_scale; }
static inline int64_t gatun_gguf_stride(const gatun_matrix *m, const gatun_block *block) {
    return m->code_row_stride != 0 ? m->code_row_stride : m->k / block->elements * block->bytes;
}

/* Null when the encoding is not one of GGUF's blocks. */
const gatun_block *gatun_gguf_block(int32_t encoding);

#endif
