/*
 * pack and unpack: a matrix into tensor-core tiles (cuda_internal.h says how they lie) and back.
 */
#include "packed.cuh"

namespace gatun {

static int64_t align_up(int64_t v) {
    return (v + GATUN_CUDA_ALIGNMENT - 1) / GATUN_CUDA_ALIGNMENT * GATUN_CUDA_ALIGNMENT;
}

/* What a GGUF block is in terms of tiles: bits of a code and elements that share a scale; 0 bits: not codes times
 * scale. */
struct TileBlock {
    int bits;
    int group;
};

__host__ __device__ static TileBlock tile_block(int32_t encoding) {
    switch (encoding) {
    case GATUN_Q4_0:
    case GATUN_Q4_1:
    case GATUN_IQ4_NL:
    case GATUN_MXFP4:
        return {4, 32};
    case GATUN_NVFP4:
        return {4, 16};
    case GATUN_Q8_0:
        return {8, 32};
    default:
        return {0, 0};
    }
}

/* Whether scales can be applied to runs of at least 16 k of one row. */
static bool has_groups(const gatun_matrix &m, int64_t *group) {
    if (m.column_groups || m.row_scales || m.rotation)
        return false;
    if (m.flat_block) {
        *group = m.flat_block < m.k ? m.flat_block : m.k;
        bool whole = m.flat_block <= m.k ? m.k % m.flat_block == 0 : m.flat_block % m.k == 0;
        return whole && (*group % 16 == 0 || *group == m.k);
    }
    *group = m.block_cols < m.k ? m.block_cols : m.k;
    return *group == m.k || *group % 16 == 0;
}

void plan_packed(const gatun_matrix &m, gatun_cuda_packed *out) {
    *out = gatun_cuda_packed{};
    out->matrix = m;
    TileBlock block = tile_block(m.encoding);
    int bits = block.bits ? block.bits : code_bits(m.encoding);
    int64_t group = block.group;
    bool tiles = m.n > 0 && m.k > 0 && (bits == 4 || bits == 8) && (block.bits || has_groups(m, &group));
    int64_t at = 0;
    if (tiles) {
        out->form = bits == 4 ? GATUN_CUDA_FORM_CODES4 : GATUN_CUDA_FORM_CODES8;
        out->tiles = (m.n + GATUN_CUDA_TILE_ROWS - 1) / GATUN_CUDA_TILE_ROWS;
        out->steps = (m.k + GATUN_CUDA_STEP_K - 1) / GATUN_CUDA_STEP_K;
        bool one = group >= m.k;
        /* The kernels know 16, 32 and multiples of 64: of others, some scales stand several times. */
        group = group % 64 == 0 ? group : group % 32 == 0 ? 32 : 16;
        out->group = one ? out->steps * GATUN_CUDA_STEP_K : group;
        out->groups = one ? 1 : (m.k + group - 1) / group;
        tiles = tiles && out->tiles * out->groups * GATUN_CUDA_TILE_ROWS < INT32_MAX / 2 && out->steps < 65536;
    }
    if (tiles) {
        bool plain16 = (m.scale_type == GATUN_F16 || m.scale_type == GATUN_BF16) &&
                       (m.arithmetic == GATUN_F32 || m.arithmetic == m.scale_type) && m.global_scale == 1.0f;
        if (block.bits && block_factor(m) != 1.0f)
            out->scale_type = GATUN_F32;
        else if (block.bits)
            out->scale_type = m.encoding == GATUN_MXFP4 || m.encoding == GATUN_NVFP4 ? GATUN_BF16 : GATUN_F16;
        else if (plain16)
            out->scale_type = m.scale_type;
        else if ((m.scale_type == GATUN_F8_E4M3 || m.scale_type == GATUN_F8_E8M0) && m.global_scale == 1.0f)
            out->scale_type = m.arithmetic == GATUN_F16 ? GATUN_F32 : GATUN_BF16; /* exact: few bits */
        else
            out->scale_type = GATUN_F32;
        int64_t scales = out->tiles * out->groups * GATUN_CUDA_TILE_ROWS;
        at = align_up((1LL << bits) * 4);
        out->codes_offset = at;
        at = align_up(at + out->tiles * out->steps * GATUN_CUDA_TILE_ROWS * GATUN_CUDA_STEP_K * bits / 8);
        out->scales_offset = at;
        at = align_up(at + scales * (out->scale_type == GATUN_F32 ? 4 : 2));
        if (!block.bits && m.zero_type != GATUN_NONE) {
            out->zeros_offset = at;
            at = align_up(at + scales * 4);
        }
        if (m.encoding == GATUN_Q4_1 || (!block.bits && m.offset_type != GATUN_NONE)) {
            out->offsets_offset = at;
            at = align_up(at + scales * 4);
        }
        at += GATUN_CUDA_SLACK; /* cleared: kernels read too far */
        out->matrix.codes = nullptr;
        out->matrix.codebook = nullptr;
        out->matrix.scales = out->matrix.zeros = out->matrix.offsets = nullptr;
        out->matrix.nested_codebook = out->matrix.nested_scales = nullptr;
    } else {
        out->form = GATUN_CUDA_FORM_SOURCE;
        at = GATUN_CUDA_ALIGNMENT; /* so that an offset of 0 means none */
        for_each_part(out->matrix, [&](const void **, int64_t size) { at = align_up(at + size); });
    }
    out->block_size = at > 0 ? at : GATUN_CUDA_ALIGNMENT;
}

/* Code, scale, zero point and offset of an element of a GGUF block that tiles can hold. */
__device__ static const uint8_t *block_of(const gatun_matrix &m, int64_t row, int64_t column) {
    BlockShape shape = block_shape(m.encoding);
    int64_t stride = m.code_row_stride ? m.code_row_stride : m.k / shape.elements * shape.bytes;
    return (const uint8_t *)m.codes + row * stride + column / shape.elements * shape.bytes;
}

__device__ static uint32_t tile_code(const gatun_matrix &m, int64_t row, int64_t column, int bits) {
    if (row >= m.n || column >= m.k)
        return 0;
    int i = (int)(column % 32);
    switch (m.encoding) {
    case GATUN_Q4_0:
    case GATUN_IQ4_NL:
        return (uint32_t)split_nibble(block_of(m, row, column) + 2, i);
    case GATUN_Q4_1:
        return (uint32_t)split_nibble(block_of(m, row, column) + 4, i);
    case GATUN_MXFP4:
        return (uint32_t)split_nibble(block_of(m, row, column) + 1, i);
    case GATUN_NVFP4: {
        int j = (int)(column % 16);
        const uint8_t *q = block_of(m, row, column) + 4 + column % 64 / 16 * 8;
        return j < 8 ? q[j] & 15u : q[j - 8] >> 4;
    }
    case GATUN_Q8_0:
        return block_of(m, row, column)[2 + i];
    default:
        return code_at(m, row, column, bits);
    }
}

__device__ static float tile_scale(const gatun_matrix &m, int64_t row, int64_t column) {
    switch (m.encoding) {
    case GATUN_Q4_0:
    case GATUN_Q4_1:
    case GATUN_IQ4_NL:
    case GATUN_Q8_0:
        return __fmul_rn(block_half(block_of(m, row, column)), block_factor(m));
    case GATUN_MXFP4:
        return __fmul_rn(power_of_two((int)block_of(m, row, column)[0] - 128), block_factor(m));
    case GATUN_NVFP4:
        return __fmul_rn(__fmul_rn(ue4m3(block_of(m, row, column)[column % 64 / 16]), 0.5f), block_factor(m));
    default: {
        float scale = scale_at(m, scale_index(m, row, column));
        return m.scale_order == GATUN_SCALES_THEN_GLOBAL ? __fmul_rn(scale, m.global_scale) : scale;
    }
    }
}

__global__ void pack_table(const __grid_constant__ gatun_matrix m, int entries, float *table) {
    int code = (int)threadIdx.x;
    if (code >= entries)
        return;
    float v;
    switch (m.encoding) {
    case GATUN_Q4_0:
        v = (float)(code - 8);
        break;
    case GATUN_Q4_1:
        v = (float)code;
        break;
    case GATUN_Q8_0:
        v = (float)(int8_t)code;
        break;
    case GATUN_IQ4_NL:
        v = (float)iq4_values[code];
        break;
    case GATUN_MXFP4:
    case GATUN_NVFP4:
        v = code == 8 ? 0.0f : 2.0f * decode_code(GATUN_F4_E2M1, (uint32_t)code);
        break;
    default:
        v = m.codebook ? m.codebook[code] : decode_code(m.encoding, (uint32_t)code);
        if (m.zero_type == GATUN_NONE)
            v -= (float)m.zero_point;
    }
    table[code] = v;
}

/* A thread a 32-bit word of tile codes. */
template <int BITS>
__global__ void __launch_bounds__(256)
    pack_codes(const __grid_constant__ gatun_matrix m, int64_t steps, int64_t words, uint32_t *out) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= words)
        return;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 32 / BITS; i++) {
        TilePlace place = tile_place<BITS>(at, i, steps);
        word |= tile_code(m, place.row, place.column, BITS) << BITS * i;
    }
    out[at] = word;
}

/* A thread a scale: its zero point and offset too. */
__global__ void __launch_bounds__(256)
    pack_scales(const __grid_constant__ gatun_matrix m, const __grid_constant__ gatun_cuda_packed p, uint8_t *block) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= p.tiles * p.groups * GATUN_CUDA_TILE_ROWS)
        return;
    int64_t row = at / (p.groups * GATUN_CUDA_TILE_ROWS) * GATUN_CUDA_TILE_ROWS + slot_row(at % GATUN_CUDA_TILE_ROWS);
    int64_t column = at / GATUN_CUDA_TILE_ROWS % p.groups * p.group;
    bool inside = row < m.n;
    store_number(p.scale_type, block + p.scales_offset, at, inside ? tile_scale(m, row, column) : 0.0f);
    if (p.zeros_offset)
        ((float *)(block + p.zeros_offset))[at] = inside ? zero_at(m, scale_index(m, row, column)) : 0.0f;
    if (p.offsets_offset) {
        float v = 0.0f;
        if (inside)
            v = m.encoding == GATUN_Q4_1 ? __fmul_rn(block_half(block_of(m, row, column) + 2), block_factor(m))
                                         : offset_at(m, scale_index(m, row, column));
        ((float *)(block + p.offsets_offset))[at] = v;
    }
}

/* Tiles back to codes in the source's order, which the caller has cleared: two codes of one word come from two threads.
 */
template <int BITS>
__global__ void __launch_bounds__(256)
    unpack_codes(const __grid_constant__ gatun_matrix m, int64_t steps, int64_t words, const uint32_t *in) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= words)
        return;
    uint32_t word = in[at];
    for (int i = 0; i < 32 / BITS; i++) {
        TilePlace place = tile_place<BITS>(at, i, steps);
        if (place.row >= m.n || place.column >= m.k)
            continue;
        int64_t bit = code_bit(m, place.row, place.column, BITS);
        uintptr_t address = (uintptr_t)m.codes + bit / 8;
        uint32_t code = word >> BITS * i & ((1u << BITS) - 1);
        atomicOr((unsigned *)(address & ~(uintptr_t)3), code << ((address & 3) * 8 + bit % 8));
    }
}

/* A thread a scale of the source: the first element that it scales says which tile scale it is. */
__global__ void __launch_bounds__(256)
    unpack_scales(const __grid_constant__ gatun_matrix m, const __grid_constant__ gatun_cuda_packed p,
                  const uint8_t *block) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= m.n * p.groups)
        return;
    int64_t row = at / p.groups, group = at % p.groups, column = group * p.group;
    int64_t index = scale_index(m, row, column);
    int64_t from = (row / 16 * p.groups + group) * 16 + scale_slot(row);
    store_number(m.scale_type, m.scales, index, load_number(p.scale_type, block + p.scales_offset, from));
}

static unsigned blocks_of(int64_t threads) { return (unsigned)((threads + 255) / 256); }

} // namespace gatun

using namespace gatun;

extern "C" {

gatun_status gatun_cuda_packed_size(const gatun_matrix *matrix, int64_t *size) {
    if (!size)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "pack: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(matrix, false));
    gatun_cuda_packed packed;
    plan_packed(*matrix, &packed);
    *size = packed.block_size;
    return GATUN_OK;
}

gatun_status gatun_cuda_pack(int32_t device, const gatun_matrix *matrix, gatun_cuda_ptr block_ptr, int64_t block_size,
                             gatun_cuda_packed *packed, gatun_cuda_stream stream) {
    if (!packed)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "pack: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(matrix, false));
    gatun_cuda_packed p;
    plan_packed(*matrix, &p);
    if (!block_ptr || block_ptr % GATUN_CUDA_ALIGNMENT || block_size < p.block_size)
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "pack: found a block of %lld bytes at %llx, expected %lld, aligned to 256",
                               (long long)block_size, (unsigned long long)block_ptr, (long long)p.block_size);
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    p.block = block_ptr;
    uint8_t *block = (uint8_t *)(uintptr_t)block_ptr;
    cudaStream_t raw = gatun_cuda_raw(stream);
    if (p.form == GATUN_CUDA_FORM_SOURCE) {
        int64_t at = GATUN_CUDA_ALIGNMENT;
        gatun_status status = GATUN_OK;
        for_each_part(p.matrix, [&](const void **part, int64_t size) {
            if (status != GATUN_OK || !*part || size == 0)
                return;
            status = gatun_cuda_status(cudaMemcpyAsync(block + at, *part, (size_t)size, cudaMemcpyDeviceToDevice, raw),
                                       "pack");
            *part = block + at;
            at = align_up(at + size);
        });
        GATUN_CUDA_TRY(status);
        *packed = p;
        return GATUN_OK;
    }
    int bits = p.form == GATUN_CUDA_FORM_CODES4 ? 4 : 8;
    int64_t words = p.tiles * p.steps * GATUN_CUDA_TILE_ROWS * GATUN_CUDA_STEP_K * bits / 32;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaMemsetAsync(block + p.block_size - GATUN_CUDA_SLACK - GATUN_CUDA_ALIGNMENT, 0,
                                                     GATUN_CUDA_SLACK + GATUN_CUDA_ALIGNMENT, raw),
                                     "pack"));
    pack_table<<<1, 256, 0, raw>>>(*matrix, 1 << bits, (float *)(block + p.table_offset));
    uint32_t *codes = (uint32_t *)(block + p.codes_offset);
    if (bits == 4)
        pack_codes<4><<<blocks_of(words), 256, 0, raw>>>(*matrix, p.steps, words, codes);
    else
        pack_codes<8><<<blocks_of(words), 256, 0, raw>>>(*matrix, p.steps, words, codes);
    pack_scales<<<blocks_of(p.tiles * p.groups * GATUN_CUDA_TILE_ROWS), 256, 0, raw>>>(*matrix, p, block);
    /* Last once more, and not by a kernel: a product that follows may begin to read before the kernel ahead of it has
     * ended. */
    GATUN_CUDA_TRY(
        gatun_cuda_status(cudaMemsetAsync(block + p.block_size - GATUN_CUDA_SLACK, 0, GATUN_CUDA_SLACK, raw), "pack"));
    GATUN_CUDA_TRY(gatun_cuda_launched(GATUN_OP_PACK, 0, matrix->encoding, "pack"));
    *packed = p;
    return GATUN_OK;
}

gatun_status gatun_cuda_unpack(int32_t device, const gatun_cuda_packed *packed, const gatun_matrix *out,
                               gatun_cuda_stream stream) {
    if (!packed || !out)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "unpack: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(out, false));
    if (out->n != packed->matrix.n || out->k != packed->matrix.k || out->encoding != packed->matrix.encoding ||
        out->code_order != packed->matrix.code_order)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "unpack: found buffers for another matrix than the one packed");
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    cudaStream_t raw = gatun_cuda_raw(stream);
    const uint8_t *block = (const uint8_t *)(uintptr_t)packed->block;
    if (packed->form == GATUN_CUDA_FORM_SOURCE) {
        gatun_matrix from = packed->matrix, to = *out;
        const void *sources[9];
        int count = 0;
        for_each_part(from, [&](const void **part, int64_t) { sources[count++] = *part; });
        int at = 0;
        gatun_status status = GATUN_OK;
        for_each_part(to, [&](const void **part, int64_t size) {
            const void *source = sources[at++];
            if (status != GATUN_OK || !source || !*part || size == 0)
                return;
            status = gatun_cuda_status(
                cudaMemcpyAsync((void *)*part, source, (size_t)size, cudaMemcpyDeviceToDevice, raw), "unpack");
        });
        return status;
    }
    if (tile_block(out->encoding).bits || packed->zeros_offset || packed->offsets_offset ||
        out->scale_type != packed->scale_type || (out->codebook && out->zero_point != 0))
        return gatun_cuda_fail(GATUN_UNSUPPORTED,
                               "unpack: found encoding %d with scales of type %d, whose parts the tiles do not keep",
                               out->encoding, out->scale_type);
    int bits = packed->form == GATUN_CUDA_FORM_CODES4 ? 4 : 8;
    int64_t words = packed->tiles * packed->steps * GATUN_CUDA_TILE_ROWS * GATUN_CUDA_STEP_K * bits / 32;
    const uint32_t *codes = (const uint32_t *)(block + packed->codes_offset);
    GATUN_CUDA_TRY(gatun_cuda_status(cudaMemsetAsync(out->codes, 0, (size_t)out->codes_size, raw), "unpack"));
    if (out->codebook)
        GATUN_CUDA_TRY(gatun_cuda_status(cudaMemcpyAsync((void *)out->codebook, block + packed->table_offset,
                                                         (size_t)4 << bits, cudaMemcpyDeviceToDevice, raw),
                                         "unpack"));
    if (bits == 4)
        unpack_codes<4><<<blocks_of(words), 256, 0, raw>>>(*out, packed->steps, words, codes);
    else
        unpack_codes<8><<<blocks_of(words), 256, 0, raw>>>(*out, packed->steps, words, codes);
    unpack_scales<<<blocks_of(out->n * packed->groups), 256, 0, raw>>>(*out, *packed, block);
    return gatun_cuda_launched(GATUN_OP_UNPACK, 0, out->encoding, "unpack");
}

} // extern "C"
