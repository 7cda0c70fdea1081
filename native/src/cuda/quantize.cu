/*
 * quantize: numbers to codes and scales by a gatun_quantize_rule, with the CPU's bytes.
 *
 * A scale's elements are found by a team of threads: the largest magnitude first, then the codes.
 *  - runs: the elements lie one after the other in a row or in the flattened tensor; a team of 1 to 32 lanes, or a
 * whole block of threads, each with eight elements at a time in registers, so that w is read once. quantize_runs.cu has
 * a faster one for the encodings and alignments that are commonest.
 *  - general: any tile: scales in one kernel (a block of threads a scale, or atomics when one scale serves the whole
 * matrix), codes in a second one, a thread per 32-bit word of codes, so that no two threads meet in a byte.
 */
#include "quantize.cuh"

namespace gatun {

__device__ inline void load_run(int32_t type, const void *w, int64_t at, int count, int32_t arithmetic, float *v) {
    const uint8_t *p = (const uint8_t *)w + at * (type == GATUN_F32 ? 4 : 2);
    if (count == RUN && ((uintptr_t)p & 15) == 0) {
        if (type == GATUN_F32) {
            float4 a = __ldcs((const float4 *)p), b = __ldcs((const float4 *)p + 1);
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
            uint4 q = __ldcs((const uint4 *)p);
            const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int i = 0; i < RUN; i++) {
                uint16_t bits = (uint16_t)(words[i / 2] >> 16 * (i % 2));
                v[i] = type == GATUN_F16 ? from_f16(bits) : from_bf16(bits);
            }
        }
    } else {
        for (int i = 0; i < RUN; i++)
            v[i] = i < count ? load_number(type, w, at + i) : 0.0f;
    }
    if (arithmetic != GATUN_F32)
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = round_to(arithmetic, v[i]);
}

/* TEAM threads a run (32 at most: lanes of a warp; else the block), CHUNKS x TEAM x RUN >= length. */
template <int BITS, int TEAM, int CHUNKS>
__global__ void __launch_bounds__(256) quantize_runs(const __grid_constant__ gatun_matrix m, gatun_quantize_rule rule,
                                                     const void *w, int32_t w_type, int64_t ldw, Runs runs) {
    __shared__ uint32_t largest_of[8];
    int member = threadIdx.x % TEAM;
    int64_t run = ((int64_t)blockIdx.x * 256 + threadIdx.x) / TEAM;
    bool active = run < runs.count;
    if (!active)
        run = runs.count - 1; /* whole warps take part in the reductions */
    int64_t row, in_row;
    if (runs.count <= INT32_MAX) { /* a division of 64 bits costs more than all else of a short run */
        row = (uint32_t)run / (uint32_t)runs.per_row;
        in_row = (uint32_t)run % (uint32_t)runs.per_row;
    } else {
        row = run / runs.per_row;
        in_row = run % runs.per_row;
    }
    int64_t start = in_row * runs.length;
    const bool whole = runs.length == (int64_t)TEAM * CHUNKS * RUN && runs.row_length % runs.length == 0;
    int64_t length = min(runs.length, runs.row_length - start);
    const Encoder encode(m, rule);

    float v[CHUNKS][RUN];
    uint32_t largest = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int64_t at = ((int64_t)c * TEAM + member) * RUN;
        int count = whole ? RUN : (int)max((int64_t)0, min((int64_t)RUN, length - at));
        load_run(w_type, w, row * ldw + start + at, count, rule.arithmetic, v[c]);
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
#pragma unroll
        for (int i = 0; i < RUN; i++)
            largest = max(largest, magnitude(v[c][i]));
#pragma unroll
    for (int step = TEAM < 32 ? TEAM / 2 : 16; step > 0; step /= 2)
        largest = max(largest, __shfl_xor_sync(0xFFFFFFFF, largest, step));
    if (TEAM > 32) {
        if (threadIdx.x % 32 == 0)
            largest_of[threadIdx.x / 32] = largest;
        __syncthreads();
        for (int i = 0; i < TEAM / 32; i++)
            largest = max(largest, largest_of[i]);
    }
    if (!active)
        return;

    int64_t index = m.flat_block ? run : scale_index(m, row, start);
    float scale, stored;
    if (rule.keep_scales) {
        scale = scale_at(m, index);
        stored = __fmul_rn(stored_scale(m, index), m.global_scale);
    } else {
        scale = stored = new_scale(__uint_as_float(largest), rule);
        if (member == 0)
            store_number(m.scale_type, m.scales, index, scale);
    }
    float reciprocal = encode.reciprocal(stored);
    uint8_t *codes = (uint8_t *)m.codes + row * m.code_row_stride;
    int64_t first = (m.code_row_stride ? 0 : row * m.k) + start;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int64_t at = ((int64_t)c * TEAM + member) * RUN;
        int count = whole ? RUN : (int)max((int64_t)0, min((int64_t)RUN, length - at));
        if (count == 0)
            break;
        uint32_t code[RUN];
        for (int i = 0; i < RUN; i++)
            code[i] = encode(v[c][i], scale, reciprocal);
        store_run<BITS>(codes, first + at, count, m.code_order, code);
    }
}

/* The elements of scale block `b` of the general kernels. */
struct Block {
    int64_t first, rows, columns;
};

__device__ inline Block block_at(const gatun_matrix &m, int64_t b, int64_t across) {
    if (m.flat_block)
        return {b * m.flat_block, 1, min(m.flat_block, m.n * m.k - b * m.flat_block)};
    int64_t row = b / across * m.block_rows, column = b % across * m.block_cols;
    return {row * m.k + column, min(m.block_rows, m.n - row), min(m.block_cols, m.k - column)};
}

/* Largest magnitudes of `slices` parts of each block, as bits into `parts`: magnitudes compare like their bits, NaN
 * above all. */
__global__ void __launch_bounds__(256)
    quantize_largest(const __grid_constant__ gatun_matrix m, gatun_quantize_rule rule, const void *w, int32_t w_type,
                     int64_t ldw, int64_t across, uint32_t *shared_largest) {
    __shared__ uint32_t largest_of[8];
    Block block = block_at(m, blockIdx.x, across);
    uint32_t largest = 0;
    int64_t elements = block.rows * block.columns;
    for (int64_t i = (int64_t)blockIdx.y * 256 + threadIdx.x; i < elements; i += (int64_t)gridDim.y * 256) {
        int64_t at = block.first + i / block.columns * m.k + i % block.columns;
        float v = round_to(rule.arithmetic, load_number(w_type, w, at / m.k * ldw + at % m.k));
        largest = max(largest, magnitude(v));
    }
    for (int step = 16; step > 0; step /= 2)
        largest = max(largest, __shfl_xor_sync(0xFFFFFFFF, largest, step));
    if (threadIdx.x % 32 == 0)
        largest_of[threadIdx.x / 32] = largest;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < 8; i++)
        largest = max(largest, largest_of[i]);
    if (shared_largest) { /* one scale for all: several blocks of threads meet here */
        atomicMax(shared_largest, largest);
        return;
    }
    int64_t index = m.flat_block ? blockIdx.x : scale_index(m, block.first / m.k, block.first % m.k);
    store_number(m.scale_type, m.scales, index, new_scale(__uint_as_float(largest), rule));
}

__global__ void quantize_one_scale(const __grid_constant__ gatun_matrix m, gatun_quantize_rule rule,
                                   const uint32_t *largest) {
    store_number(m.scale_type, m.scales, 0, new_scale(__uint_as_float(*largest), rule));
}

/* A thread eight codes of one row that begin at a multiple of eight of the row (of the flattened tensor without a
 * stride). */
template <int BITS>
__global__ void __launch_bounds__(256)
    quantize_codes(const __grid_constant__ gatun_matrix m, gatun_quantize_rule rule, const void *w, int32_t w_type,
                   int64_t ldw, int64_t rows, int64_t row_length, int64_t per_row) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= rows * per_row)
        return;
    const Encoder encode(m, rule);
    int64_t line = at / per_row, first = at % per_row * RUN;
    int count = (int)min((int64_t)RUN, row_length - first);
    uint32_t code[RUN] = {};
    for (int i = 0; i < count; i++) {
        int64_t element = line * row_length + first + i, row = element / m.k, column = element % m.k;
        int64_t index = scale_index(m, row, column);
        float v = round_to(rule.arithmetic, load_number(w_type, w, row * ldw + column));
        float scale = scale_at(m, index), stored = __fmul_rn(stored_scale(m, index), m.global_scale);
        code[i] = encode(v, scale, encode.reciprocal(stored));
    }
    store_run<BITS>((uint8_t *)m.codes + line * m.code_row_stride, first, count, m.code_order, code);
}

template <int BITS>
static void launch_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                        int64_t ldw, const Runs &runs, cudaStream_t stream) {
    auto grid = [&](int team) { return (unsigned)((runs.count * team + 255) / 256); };
    if (runs.length <= 4 * 32 * RUN)
        quantize_runs<BITS, 32, 4><<<grid(32), 256, 0, stream>>>(m, rule, w, w_type, ldw, runs);
    else
        quantize_runs<BITS, 256, 8><<<grid(256), 256, 0, stream>>>(m, rule, w, w_type, ldw, runs);
}

template <int BITS>
static gatun_status quantize(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                             int64_t ldw, cudaStream_t stream) {
    bool flat = m.code_row_stride == 0;
    /* Runs begin at an even code, so that a byte has one writer. */
    Runs runs = {};
    bool contiguous = false;
    if (m.flat_block && ldw == m.k && flat) {
        runs = {m.flat_block, 0, m.n * m.k, (m.n * m.k - 1) / m.flat_block + 1};
        runs.per_row = runs.count;
        contiguous = m.flat_block % 2 == 0;
    } else if (!m.flat_block && m.block_rows == 1) {
        int64_t length = m.block_cols < m.k ? m.block_cols : m.k;
        runs = {length, (m.k - 1) / length + 1, m.k, 0};
        runs.count = m.n * runs.per_row;
        contiguous = (length % 2 == 0 || runs.per_row == 1) && (!flat || m.k % 2 == 0 || BITS == 8);
    }
    if (contiguous && launch_aligned_runs(m, rule, w, w_type, ldw, runs, stream))
        return GATUN_OK;
    if (contiguous && runs.length <= 256 * 8 * RUN) {
        launch_runs<BITS>(m, rule, w, w_type, ldw, runs, stream);
        return GATUN_OK;
    }
    int64_t across = m.flat_block ? 1 : (m.k - 1) / m.block_cols + 1;
    int64_t count = m.flat_block ? (m.n * m.k - 1) / m.flat_block + 1 : across * ((m.n - 1) / m.block_rows + 1);
    if (!rule.keep_scales) {
        /* The codes are written later, so their first word can hold the common maximum. */
        bool one = count == 1 && m.codes_size >= 4 && (uintptr_t)m.codes % 4 == 0;
        uint32_t *common = one ? (uint32_t *)m.codes : nullptr;
        if (one)
            GATUN_CUDA_TRY(gatun_cuda_status(cudaMemsetAsync(common, 0, 4, stream), "quantize"));
        dim3 grid((unsigned)count, one ? 1024 : 1);
        quantize_largest<<<grid, 256, 0, stream>>>(m, rule, w, w_type, ldw, across, common);
        if (one)
            quantize_one_scale<<<1, 1, 0, stream>>>(m, rule, common);
    }
    int64_t rows = flat ? 1 : m.n, length = flat ? m.n * m.k : m.k, per_row = (length + RUN - 1) / RUN;
    quantize_codes<BITS>
        <<<(unsigned)((rows * per_row + 255) / 256), 256, 0, stream>>>(m, rule, w, w_type, ldw, rows, length, per_row);
    return GATUN_OK;
}

} // namespace gatun

using namespace gatun;

extern "C" gatun_status gatun_cuda_quantize(int32_t device, const gatun_matrix *matrix, const gatun_quantize_rule *rule,
                                            gatun_cuda_ptr w, int32_t w_type, int64_t ldw, gatun_cuda_stream stream) {
    if (!rule)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "quantize: found a null pointer");
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(matrix, true));
    int bits = code_bits(matrix->encoding);
    if (bits != 4 && bits != 8)
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "quantize: no kernel for encoding %d", matrix->encoding);
    if (!is_plain(w_type) || !is_plain(rule->arithmetic) || ldw < matrix->k)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "quantize: found input type %d, arithmetic %d, rows %lld elements apart", w_type,
                               rule->arithmetic, (long long)ldw);
    if (!rule->keep_scales && !is_plain(matrix->scale_type))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "quantize: found scales of type %d, expected F32, F16 or BF16",
                               matrix->scale_type);
    GATUN_CUDA_TRY(gatun_cuda_check_aligned("quantize", {{"w", w, w_type}}));
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (matrix->n == 0 || matrix->k == 0)
        return GATUN_OK;
    if (!w)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "quantize: found a null pointer");
    const void *from = (const void *)(uintptr_t)w;
    if (bits == 4)
        GATUN_CUDA_TRY(quantize<4>(*matrix, *rule, from, w_type, ldw, gatun_cuda_raw(stream)));
    else
        GATUN_CUDA_TRY(quantize<8>(*matrix, *rule, from, w_type, ldw, gatun_cuda_raw(stream)));
    return gatun_cuda_launched(GATUN_OP_QUANTIZE, 0, matrix->encoding, "quantize");
}
