/*
 * One element of a matrix on the device, whatever its layout: the definition in gatun.h, in the same order of
 * roundings. Kernels for the common layouts take shortcuts; this serves all others, and packing.
 */
#ifndef GATUN_CUDA_MATRIX_CUH
#define GATUN_CUDA_MATRIX_CUH

#include "blocks.cuh"

namespace gatun {

/* Bits of one code; 0 for GGUF's blocks and for what is no code. */
__host__ __device__ inline int code_bits(int32_t encoding) {
    switch (encoding) {
    case GATUN_F32:
        return 32;
    case GATUN_F16:
    case GATUN_BF16:
        return 16;
    case GATUN_U1:
        return 1;
    case GATUN_U2:
    case GATUN_I2:
        return 2;
    case GATUN_U3:
        return 3;
    case GATUN_I4:
    case GATUN_U4:
    case GATUN_NF4:
    case GATUN_FP4:
    case GATUN_F4_E2M1:
        return 4;
    case GATUN_U5:
        return 5;
    case GATUN_U6:
        return 6;
    case GATUN_U7:
        return 7;
    case GATUN_I8:
    case GATUN_U8:
    case GATUN_F8_E4M3:
    case GATUN_F8_E5M2:
    case GATUN_F8_E4M3FNUZ:
    case GATUN_F8_E5M2FNUZ:
        return 8;
    default:
        return 0;
    }
}

__host__ __device__ inline bool is_plain(int32_t encoding) {
    return encoding == GATUN_F32 || encoding == GATUN_F16 || encoding == GATUN_BF16;
}

/* Where the first bit of an element's code lies, from the start of the codes. */
__device__ inline int64_t code_bit(const gatun_matrix &m, int64_t row, int64_t column, int bits) {
    int64_t stride = 8 * m.code_row_stride;
    int64_t per_word = 32 / bits;
    switch (m.code_order) {
    case GATUN_ORDER_HIGH_FIRST:
        if (bits < 8) { /* counted from the top of each byte */
            int64_t element = stride == 0 ? row * m.k + column : column;
            int64_t first = (stride == 0 ? 0 : row * stride) + element * bits;
            return (first & ~7LL) + (8 - bits) - (first & 7);
        }
        break;
    case GATUN_ORDER_WORDS: {
        int64_t words = (m.k + per_word - 1) / per_word;
        return row * (stride == 0 ? 32 * words : stride) + column / per_word * 32 + column % per_word * bits;
    }
    case GATUN_ORDER_WORDS_K:
        if (bits == 3) { /* 32 codes in 3 words; the caller asks for one bit at a time */
            int64_t bit = column % 32 * 3;
            return (column / 32 * 3 + bit / 32) * m.n * 32 + row * 32 + bit % 32;
        }
        return column / per_word * m.n * 32 + row * 32 + column % per_word * bits;
    case GATUN_ORDER_WORDS_N: {
        int64_t slot = row % 2 * 4 + row % 8 / 2; /* 0,4,1,5,2,6,3,7 */
        return column * ((m.n + 7) / 8 * 32) + row / 8 * 32 + slot * 4;
    }
    case GATUN_ORDER_SPLIT_ROWS: {
        int64_t width = m.block_cols < m.k ? m.block_cols : m.k, per_byte = 8 / bits;
        int64_t element = row * m.k + column, r = element / width, rows = m.n * m.k / width;
        int64_t run = (rows + per_byte - 1) / per_byte;
        return (r % run * width + element % width) * 8 + r / run * bits;
    }
    case GATUN_ORDER_TILES_8X16: {
        /* Lane l = 4 * (row in tile) + pair of columns holds, per two tiles of 16 columns, one word. */
        int64_t outer = column / 128, tile = column % 128 / 16, word = tile / 2;
        int within = (int)(column % 16), t = within % 8 / 2;
        int v = (int)(tile % 2) * 4 + within / 8 * 2 + within % 2; /* k0, k0+1, k0+8, k0+9, then the next tile's */
        int nibble = v % 2 * 4 + v / 2;
        int64_t lane = row % 8 * 4 + t, tiles = stride ? stride : (m.k + 127) / 128 * 4096;
        return row / 8 * tiles + ((outer * 32 + lane) * 4 + word) * 32 + nibble * 4;
    }
    default:
        break;
    }
    return stride == 0 ? (row * m.k + column) * bits : row * stride + column * bits;
}

__device__ inline uint32_t code_at(const gatun_matrix &m, int64_t row, int64_t column, int bits) {
    const uint8_t *codes = (const uint8_t *)m.codes;
    if (m.code_order == GATUN_ORDER_WORDS_K && bits == 3) {
        uint32_t code = 0;
        for (int i = 0; i < 3; i++) { /* a code may begin in one word and end in the next */
            int64_t bit = column % 32 * 3 + i;
            int64_t at = (column / 32 * 3 + bit / 32) * m.n * 32 + row * 32 + bit % 32;
            code |= (uint32_t)(codes[at / 8] >> at % 8 & 1) << i;
        }
        return code;
    }
    int64_t bit = code_bit(m, row, column, bits);
    uint32_t word = codes[bit / 8];
    if (bit % 8 + bits > 8)
        word |= (uint32_t)codes[bit / 8 + 1] << 8;
    return word >> bit % 8 & ((1u << bits) - 1);
}

/* The index of the scale, zero point and offset of an element. */
__device__ inline int64_t scale_index(const gatun_matrix &m, int64_t row, int64_t column) {
    if (m.flat_block != 0)
        return (row * m.k + column) / m.flat_block;
    int64_t r = row / m.block_rows;
    int64_t c = m.column_groups ? m.column_groups[column] : column / m.block_cols;
    if (m.scale_order == GATUN_SCALES_BLOCKED_128X4) {
        int64_t columns = ((m.k - 1) / m.block_cols + 4) / 4;
        return ((r / 128) * columns + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4;
    }
    return r * m.scale_row_stride + c * m.scale_col_stride;
}

/* The scale as stored, nested ones resolved; 1 when there is none. */
__device__ inline float stored_scale(const gatun_matrix &m, int64_t index) {
    if (m.scale_type == GATUN_NONE)
        return 1.0f;
    if (m.scale_type == GATUN_U8 && m.nested_codebook) {
        float value = m.nested_codebook[((const uint8_t *)m.scales)[index]];
        return __fadd_rn(__fmul_rn(value, load_number(GATUN_F32, m.nested_scales, index / m.nested_block)),
                         m.nested_offset);
    }
    return load_number(m.scale_type, m.scales, index);
}

__device__ inline float scale_at(const gatun_matrix &m, int64_t index) {
    float scale = round_to(m.arithmetic, stored_scale(m, index));
    if (m.global_scale == 1.0f || m.scale_order == GATUN_SCALES_THEN_GLOBAL)
        return scale;
    return round_to(m.arithmetic, __fmul_rn(scale, round_to(m.arithmetic, m.global_scale)));
}

__device__ inline float zero_at(const gatun_matrix &m, int64_t index) {
    return m.zero_type == GATUN_NONE ? (float)m.zero_point : load_number(m.zero_type, m.zeros, index);
}

__device__ inline float offset_at(const gatun_matrix &m, int64_t index) {
    float v = m.offset_type == GATUN_NONE ? 0.0f : load_number(m.offset_type, m.offsets, index);
    return m.offset_sign < 0 ? -v : v;
}

/* The code as a number, before zero point and scale. */
__device__ inline float number_at(const gatun_matrix &m, int64_t row, int64_t column) {
    if (is_plain(m.encoding)) {
        if (m.code_row_stride == 0)
            return load_number(m.encoding, m.codes, row * m.k + column);
        return load_number(m.encoding, (const uint8_t *)m.codes + row * m.code_row_stride, column);
    }
    int bits = code_bits(m.encoding);
    uint32_t code = code_at(m, row, column, bits);
    return m.codebook ? m.codebook[code] : decode_code(m.encoding, code);
}

/* What the numbers of GGUF blocks are multiplied by: most descriptions leave it unset. */
__host__ __device__ inline float block_factor(const gatun_matrix &m) {
    return m.global_scale == 0.0f ? 1.0f : m.global_scale;
}

/* Rounded to the matrix's arithmetic, before any rotation and before `result`. Not `rounded`: what a product of codes
 * multiplies, which scales sums and so rounds no weight. */
__device__ inline float unrotated_value(const gatun_matrix &m, int64_t row, int64_t column, bool rounded = true) {
    const int32_t arithmetic = rounded ? m.arithmetic : (int32_t)GATUN_F32;
    BlockShape shape = block_shape(m.encoding);
    if (shape.elements) {
        int64_t per_row = m.k / shape.elements * shape.bytes;
        int64_t stride = m.code_row_stride ? m.code_row_stride : per_row;
        const uint8_t *block = (const uint8_t *)m.codes + row * stride + column / shape.elements * shape.bytes;
        return __fmul_rn(block_value(m.encoding, block, (int)(column % shape.elements)), block_factor(m));
    }
    int64_t index = scale_index(m, row, column);
    float v = __fsub_rn(number_at(m, row, column), zero_at(m, index));
    v = round_to(arithmetic, __fmul_rn(v, scale_at(m, index)));
    if (m.scale_order == GATUN_SCALES_THEN_GLOBAL)
        v = round_to(arithmetic, __fmul_rn(v, round_to(arithmetic, m.global_scale)));
    if (m.row_scales)
        v = round_to(rounded ? m.result : (int32_t)GATUN_F32,
                     __fmul_rn(fminf(fmaxf(rintf(v), -127.0f), 127.0f), m.row_scales[row]));
    if (m.offset_type != GATUN_NONE)
        v = round_to(arithmetic, __fadd_rn(v, offset_at(m, index)));
    return v;
}

/* The value of an element, rounded to `result`. */
__device__ inline float value_at(const gatun_matrix &m, int64_t row, int64_t column) {
    if (m.rotation == 0)
        return round_to(m.result, unrotated_value(m, row, column));
    int64_t first = column / m.rotation * m.rotation;
    uint32_t at = (uint32_t)(column - first);
    double sum = 0.0;
    for (uint32_t j = 0; j < (uint32_t)m.rotation; j++) {
        /* H4 has -1 where the two base-4 digits add up to 3; H is the product over the digits. */
        int sign = 0;
        for (uint32_t a = at, b = j, g = (uint32_t)m.rotation; g > 1; g /= 4, a /= 4, b /= 4)
            sign ^= (a % 4 + b % 4) == 3;
        float v = unrotated_value(m, row, first + j);
        sum += sign ? -v : v;
    }
    return round_to(m.result, (float)(sum / sqrt((double)m.rotation)));
}

} // namespace gatun

#endif
