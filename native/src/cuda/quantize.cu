/*
 * quantize: numbers to codes and scales by a gatun_quantize_rule, with the CPU's bytes.
 *
 * A scale's elements are found by a team of threads: the largest magnitude first, then the codes.
 *  - runs: the elements lie one after the other in a row or in the flattened tensor; a team of 1 to 32 lanes, or a
 * whole block of threads, each with eight elements at a time in registers, so that w is read once.
 *  - general: any tile: scales in one kernel (a block of threads a scale, or atomics when one scale serves the whole
 * matrix), codes in a second one, a thread per 32-bit word of codes, so that no two threads meet in a byte.
 */
#include <cuda_fp8.h>

#include "matrix.cuh"

namespace gatun {

/* Which of NF4's values is nearest, by bitsandbytes' thresholds: a search of four steps, the last two through a table
 * in shared memory that holds one copy a lane. */
struct Nf4Thresholds {
    float values[16][32];

    __device__ void fill() {
        for (int i = threadIdx.x; i < 15 * 32; i += blockDim.x)
            values[i / 32][i % 32] = nf4_thresholds[i / 32];
    }
    __device__ uint32_t search(float v) const {
        const char *lane = (const char *)&values[0][threadIdx.x % 32];
        constexpr int ROW = 32 * sizeof(float);
        bool upper = v > 0.03979014977812767f;
        int at = upper ? 8 * ROW : 0;
        at += v > (upper ? 0.3893125355243683f : -0.33967943489551544f) ? 4 * ROW : 0;
        at += v > *(const float *)(lane + at + ROW) ? 2 * ROW : 0;
        at += v > *(const float *)(lane + at) ? ROW : 0;
        return (uint32_t)at / ROW;
    }
};

/* One copy for all encodings and kernels: most elements never come here. */
__device__ __noinline__ uint32_t encode_any(int32_t encoding, float v) { return encode_code(encoding, v); }

/* v / scale or v * (1 / scale), clamped and encoded. ENCODING: known when the kernel is compiled, with F32 arithmetic;
 * 0: any. */
template <int ENCODING> struct Encoder {
    int32_t encoding, arithmetic, zero_code;
    bool multiply;
    float low, high;
    const Nf4Thresholds *nf4;

    __device__ Encoder(const gatun_matrix &m, const gatun_quantize_rule &rule, const Nf4Thresholds *thresholds)
        : encoding(ENCODING ? ENCODING : m.encoding), arithmetic(ENCODING ? GATUN_F32 : rule.arithmetic),
          zero_code(rule.zero_code), multiply(rule.reciprocal || m.encoding == GATUN_NF4 || m.encoding == GATUN_FP4),
          low(rule.code_min), high(rule.code_max), nf4(thresholds) {}

    /* The sign of a NaN is in the code. A processor keeps an operand's, and makes a negative one of 0/0 and 0 *
     * infinity; this device makes a positive one of everything. */
    __device__ static float as_processors(float q, float v, float other) {
        return q == q ? q : v != v ? v : other != other ? other : -q;
    }
    __device__ float reciprocal(float stored) const { return round_to(arithmetic, __fdiv_rn(1.0f, stored)); }
    __device__ uint32_t operator()(float v, float scale, float reciprocal) const {
        if (scale == 0.0f && zero_code >= 0)
            return (uint32_t)zero_code;
        float q = multiply ? __fmul_rn(v, reciprocal) : __fdiv_rn(v, scale);
        /* Before it is rounded: bfloat16 has one NaN, of neither sign. */
        q = round_to(arithmetic, as_processors(q, v, multiply ? reciprocal : scale));
        q = q < low ? low : q > high ? high : q;
        if (ENCODING == GATUN_NF4)
            return nf4->search(q);
        return encode_any(encoding, q);
    }
    /* Codes of a whole run. Where the code is an integer or an 8-bit float, the product with the reciprocal lies within
     * two units of the last place of the quotient: unless a rounding boundary may lie between them, it gives the code
     * without a division. */
    __device__ void run(const float *v, float scale, float reciprocal, uint32_t *code) const {
        bool sure = !(scale == 0.0f) && reciprocal < 0x1p126f;
        if (ENCODING == GATUN_NF4 && low <= -1.0f && high >= 1.0f && sure) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                code[i] = nf4->search(__fmul_rn(v[i], reciprocal));
            return;
        }
        if (ENCODING == GATUN_I8) {
            const float most = fminf(fminf(-low, high), 127.0f) + 0.49f,
                        round = 12582912.0f; /* 1.5 * 2^23: the sum's low bits are the integer */
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float q = __fmul_rn(v[i], reciprocal), sum = __fadd_rn(q, round);
                sure &= fabsf(q) <= most && fabsf(__fsub_rn(q, __fsub_rn(sum, round))) < 0.4999f;
                code[i] = __float_as_uint(sum) & 0xFF;
            }
            if (sure)
                return;
        }
        if (ENCODING == GATUN_F8_E4M3 && sure) {
            const float most = fminf(fminf(-low, high), 448.0f);
#pragma unroll
            for (int i = 0; i < 8; i += 2) {
                float a = __fmul_rn(v[i], reciprocal), b = __fmul_rn(v[i + 1], reciprocal);
                sure &= fabsf(a) <= most && fabsf(b) <= most;
                const float below = multiply ? 1.0f : 1.0f - 0x1p-21f, above = multiply ? 1.0f : 1.0f + 0x1p-21f;
                uint32_t two = __nv_cvt_float2_to_fp8x2(make_float2(a * below, b * below), __NV_SATFINITE, __NV_E4M3);
                sure &= two == __nv_cvt_float2_to_fp8x2(make_float2(a * above, b * above), __NV_SATFINITE, __NV_E4M3);
                code[i] = two & 255, code[i + 1] = two >> 8;
            }
            if (sure)
                return;
        }
        for (int i = 0; i < 8; i++)
            code[i] = (*this)(v[i], scale, reciprocal);
    }
};

__device__ inline float new_scale(float largest, const gatun_quantize_rule &rule) {
    float scale = round_to(rule.arithmetic, __fdiv_rn(largest, rule.divisor));
    return scale < rule.scale_floor ? rule.scale_floor : scale; /* NaN stays */
}

/* The bits of a magnitude compare like the magnitude, with NaN above all. */
__device__ inline uint32_t magnitude(float v) { return __float_as_uint(v) & 0x7FFFFFFF; }

enum { RUN = 8 };

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

/* Codes first .. first+count-1 of the stream at `codes`; `first` is even, so the bytes are this thread's alone. */
template <int BITS>
__device__ inline void store_run(uint8_t *codes, int64_t first, int count, int32_t order, const uint32_t *c) {
    if (BITS == 8) {
        if (count == RUN && ((uintptr_t)(codes + first) & 7) == 0) {
            *(uint2 *)(codes + first) =
                make_uint2(c[0] | c[1] << 8 | c[2] << 16 | c[3] << 24, c[4] | c[5] << 8 | c[6] << 16 | c[7] << 24);
            return;
        }
        for (int i = 0; i < count; i++)
            codes[first + i] = (uint8_t)c[i];
        return;
    }
    int high = order == GATUN_ORDER_HIGH_FIRST ? 4 : 0;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < RUN; i++)
        word |= (i < count ? c[i] : 0) << ((4 * i) ^ high);
    uint8_t *p = codes + first / 2;
    if (count == RUN && ((uintptr_t)p & 3) == 0)
        *(uint32_t *)p = word;
    else
        for (int i = 0; i < (count + 1) / 2; i++)
            p[i] = (uint8_t)(word >> 8 * i);
}

struct Runs {
    int64_t length;  /* elements that share a scale */
    int64_t per_row; /* runs of a row; of a flattened tensor, all of them */
    int64_t row_length;
    int64_t count;
};

/* TEAM threads a run (32 at most: lanes of a warp; else the block), CHUNKS x TEAM x RUN >= length. */
template <int BITS, int ENCODING, int TEAM, int CHUNKS>
__global__ void __launch_bounds__(256) quantize_runs(const __grid_constant__ gatun_matrix m, gatun_quantize_rule rule,
                                                     const void *w, int32_t w_type, int64_t ldw, Runs runs) {
    __shared__ uint32_t largest_of[8];
    __shared__ Nf4Thresholds thresholds;
    if (ENCODING == GATUN_NF4) {
        thresholds.fill();
        __syncthreads();
    }
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
    Encoder<ENCODING> encode(m, rule, &thresholds);

    float v[CHUNKS][RUN];
    uint32_t largest = 0;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int64_t at = ((int64_t)c * TEAM + member) * RUN;
        int count = whole ? RUN : (int)max((int64_t)0, min((int64_t)RUN, length - at));
        load_run(w_type, w, row * ldw + start + at, count, ENCODING ? GATUN_F32 : rule.arithmetic, v[c]);
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
        encode.run(v[c], scale, reciprocal, code);
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
    Encoder<0> encode(m, rule, nullptr);
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

template <int BITS, int ENCODING>
static void launch_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                        int64_t ldw, const Runs &runs, cudaStream_t stream) {
    int64_t l = runs.length;
    auto grid = [&](int team) { return (unsigned)((runs.count * team + 255) / 256); };
#define GATUN_RUNS(team, chunks)                                                                                       \
    quantize_runs<BITS, ENCODING, team, chunks><<<grid(team), 256, 0, stream>>>(m, rule, w, w_type, ldw, runs)
    /* What a run costs beside its elements is shared by as many elements as registers hold. Encodings that are not
     * known when this is compiled are the rare ones: two shapes are enough for them. */
    if constexpr (ENCODING != 0) {
        if (l <= 8 * RUN)
            return GATUN_RUNS(2, 4);
        if (l <= 32 * RUN)
            return GATUN_RUNS(8, 4);
        if (l > 4 * 32 * RUN && l <= 2 * 256 * RUN)
            return GATUN_RUNS(256, 2);
    }
    if (l <= 4 * 32 * RUN)
        GATUN_RUNS(32, 4);
    else
        GATUN_RUNS(256, 8);
#undef GATUN_RUNS
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
    if (contiguous && runs.length <= 256 * 8 * RUN) {
        int32_t known = rule.arithmetic == GATUN_F32 ? m.encoding : 0;
        switch (known) {
#define GATUN_ENCODING(bits, name)                                                                                     \
    case GATUN_##name:                                                                                                 \
        launch_runs<bits, GATUN_##name>(m, rule, w, w_type, ldw, runs, stream);                                        \
        break;
            GATUN_ENCODING(4, NF4)
            GATUN_ENCODING(8, I8)
            GATUN_ENCODING(8, F8_E4M3)
#undef GATUN_ENCODING
        default:
            launch_runs<BITS, 0>(m, rule, w, w_type, ldw, runs, stream);
            break;
        }
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
