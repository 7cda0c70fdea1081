/*
 * The packed form as kernels see it; cuda_internal.h says how it lies.
 */
#ifndef GATUN_CUDA_PACKED_CUH
#define GATUN_CUDA_PACKED_CUH

#include "epilogue.cuh"
#include "matrix.cuh"

namespace gatun {

struct TilePlace {
    int64_t row;
    int64_t column;
};

/* Which element code i of word `at` of the packed codes is. */
template <int BITS> __host__ __device__ inline TilePlace tile_place(int64_t at, int i, int64_t steps) {
    if (BITS == 8)
        return {at / (steps * 16), at % (steps * 16) * 4 + i};
    int64_t step = at / 128;
    int word = (int)(at % 128), lane = word / 4, product = word % 4, pair = i / 2; /* a word is a product */
    int row = lane / 4 + pair % 2 * 8;
    int column = product * 16 + lane % 4 * 2 + pair / 2 * 8 + i % 2;
    return {step / steps * GATUN_CUDA_TILE_ROWS + row, step % steps * GATUN_CUDA_STEP_K + column};
}

/* The word and the code in it that hold an element: the inverse of tile_place. */
template <int BITS>
__device__ inline uint32_t tile_code_at(const uint32_t *codes, int64_t steps, int64_t row, int64_t column) {
    if (BITS == 8)
        return ((const uint8_t *)codes)[row * steps * 64 + column];
    int r = (int)(row % 16), c = (int)(column % 64), product = c / 16, within = c % 16;
    int lane = r % 8 * 4 + within % 8 / 2, pair = r / 8 + within / 8 * 2;
    int64_t step = row / 16 * steps + column / 64;
    return codes[step * 128 + lane * 4 + product] >> (8 * pair + 4 * (within % 2)) & 15;
}

/* Calls f(pointer, bytes) for every part of a matrix that lies in memory, always in the same order. */
template <typename F> inline void for_each_part(gatun_matrix &m, F f) {
    f((const void **)&m.codes, m.codes_size);
    f((const void **)&m.scales, m.scales ? m.scales_size : 0);
    f((const void **)&m.zeros, m.zeros ? m.zeros_size : 0);
    f((const void **)&m.offsets, m.offsets ? m.offsets_size : 0);
    f((const void **)&m.nested_codebook, m.nested_codebook ? 1024 : 0);
    f((const void **)&m.nested_scales, m.nested_scales ? m.nested_scales_size : 0);
    f((const void **)&m.codebook, m.codebook ? m.codebook_size : 0);
    f((const void **)&m.column_groups, m.column_groups ? m.column_groups_size : 0);
    f((const void **)&m.row_scales, m.row_scales ? m.row_scales_size : 0);
}

/* How a matrix is to be packed: all of `out` but the block's address. pack.cu */
void plan_packed(const gatun_matrix &m, gatun_cuda_packed *out);

/* The value of an element of a packed weight, rounded as its matrix says. Not `rounded`: see unrotated_value. */
__device__ inline float packed_value(const gatun_cuda_packed &p, int64_t row, int64_t column, bool rounded = true) {
    if (p.form == GATUN_CUDA_FORM_SOURCE)
        return rounded ? value_at(p.matrix, row, column) : unrotated_value(p.matrix, row, column, false);
    const int32_t arithmetic = rounded ? p.matrix.arithmetic : (int32_t)GATUN_F32;
    const uint8_t *block = (const uint8_t *)(uintptr_t)p.block;
    const uint32_t *codes = (const uint32_t *)(block + p.codes_offset);
    uint32_t code = p.form == GATUN_CUDA_FORM_CODES4 ? tile_code_at<4>(codes, p.steps, row, column)
                                                     : tile_code_at<8>(codes, p.steps, row, column);
    int64_t at = (row / 16 * p.groups + column / p.group) * 16 + scale_slot(row);
    float v = ((const float *)(block + p.table_offset))[code];
    if (p.zeros_offset)
        v = __fsub_rn(v, ((const float *)(block + p.zeros_offset))[at]);
    v = round_to(arithmetic, __fmul_rn(v, load_number(p.scale_type, block + p.scales_offset, at)));
    if (p.offsets_offset)
        v = round_to(arithmetic, __fadd_rn(v, ((const float *)(block + p.offsets_offset))[at]));
    return rounded ? round_to(p.matrix.result, v) : v;
}

} // namespace gatun

#endif
