/*
 * dequantize, embedding and convert.
 *
 * out[i][k] = value(row(i), k) in F32, F16 or BF16. Three kernels:
 *  - runs: a thread takes eight consecutive codes of a row (one or two words in, one or two 16-byte stores out, so that
 * a warp reads and writes whole lines) which share their scale; columns are fixed per thread, so that all index
 * arithmetic over columns is done once for the rows it walks down. Most libraries compute in float and round once, or
 * in the type that is asked for: those are a product and a conversion an element; a second instance does every rounding
 * of the definition.
 *  - blocks: the same for GGUF's blocks, one instance an encoding, so that what a run shares of a block is decoded
 * once. Where the blocks of all rows follow each other, a block of threads copies 8192 elements' worth of them at a
 * time to shared memory in words of 16 bytes, while it decodes the ones before: blocks are not aligned to more than two
 * bytes.
 *  - elements: a thread an element by the definition in matrix.cuh: any order, any width, any granularity.
 */
#include "linear.cuh"

#include <cuda_fp8.h>

namespace gatun {

enum { RUN = 8 };

/* Eight numbers in the output type, aligned to 16 bytes. The hardware's conversion gives another NaN than the
 * definition. */
__device__ inline void store_run(int32_t type, void *out, int64_t at, const float *v) {
    if (type == GATUN_F32) {
        float4 *p = (float4 *)((float *)out + at);
        __stcs(p, make_float4(v[0], v[1], v[2], v[3]));
        __stcs(p + 1, make_float4(v[4], v[5], v[6], v[7]));
        return;
    }
    uint32_t w[4];
    float sum = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
    if (is_nan(sum)) { /* one of them is, or infinities of both signs */
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = type == GATUN_F16 ? to_f16(v[2 * i]) | (uint32_t)to_f16(v[2 * i + 1]) << 16
                                     : to_bf16(v[2 * i]) | (uint32_t)to_bf16(v[2 * i + 1]) << 16;
    } else if (type == GATUN_F16) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(v[2 * i + 1]), "f"(v[2 * i]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(v[2 * i + 1]), "f"(v[2 * i]));
    }
    __stcs((uint4 *)((uint16_t *)out + at), make_uint4(w[0], w[1], w[2], w[3]));
}

/* How the codes of a run become numbers. */
enum Decode { TABLE4, INT8, UINT8, E4M3, E5M2, ANY8 };

/* The two values of a byte of 4-bit codes, in shared memory: 16 copies, so that no two lanes of half a warp meet in a
 * bank. */
struct TablePairs {
    enum { COPIES = 16 };
    float2 values[256][COPIES];

    __device__ void fill(const gatun_matrix &m, float zero) {
        __shared__ float single[16];
        if (threadIdx.x < 16)
            single[threadIdx.x] =
                (m.codebook ? m.codebook[threadIdx.x] : decode_code(m.encoding, (uint32_t)threadIdx.x)) - zero;
        __syncthreads();
        for (int i = threadIdx.x; i < 256 * COPIES; i += blockDim.x) {
            const int low = i / COPIES & 15, high = i / COPIES >> 4;
            values[i / COPIES][i % COPIES] = m.code_order == GATUN_ORDER_HIGH_FIRST
                                                 ? make_float2(single[high], single[low])
                                                 : make_float2(single[low], single[high]);
        }
        __syncthreads();
    }
};

/* lane_pairs: the lane's copy of TablePairs. */
template <Decode D>
__device__ inline void decode_run(uint2 word, int32_t encoding, const float2 *lane_pairs, float *v) {
    if constexpr (D == TABLE4) {
#pragma unroll
        for (int i = 0; i < RUN / 2; i++) { /* an entry's copies take 128 bytes: its offset is cut out in place */
            const uint32_t offset = (i == 0 ? word.x << 7 : word.x >> (8 * i - 7)) & 0x7F80;
            const float2 pair = *(const float2 *)((const char *)lane_pairs + offset);
            v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < RUN; i += 2) {
            uint32_t two = (i < 4 ? word.x : word.y) >> 8 * (i % 4);
            if (D == E4M3) {
                __half2_raw h =
                    __nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t)two, __NV_E4M3); /* exact in binary16 */
                v[i] = from_f16(h.x), v[i + 1] = from_f16(h.y);
            } else if (D == E5M2) { /* the upper half of binary16 */
                v[i] = from_f16((uint16_t)(two << 8)), v[i + 1] = from_f16((uint16_t)(two & 0xFF00));
            } else if (D == INT8) {
                v[i] = (float)(int8_t)two, v[i + 1] = (float)(int8_t)(two >> 8);
            } else if (D == UINT8) {
                v[i] = (float)(two & 255), v[i + 1] = (float)(two >> 8 & 255);
            } else {
                v[i] = decode_code(encoding, two & 255), v[i + 1] = decode_code(encoding, two >> 8 & 255);
            }
        }
    }
}

/* What a launch writes: rows row0 .. of the matrix, or those that ids name. */
struct Output {
    const int64_t *ids;
    int64_t row0, rows;
    void *data;
    int64_t ld;
    int32_t type;
    bool plain_scales; /* F32, F16 or BF16, aligned, as they are */

    /* -1 for an id outside the matrix. */
    __device__ int64_t source(int64_t i, int64_t n) const {
        int64_t row = ids ? ids[i] : row0 + i;
        return row >= 0 && row < n ? row : -1;
    }
};

/* Rows of the output that a thread walks down with their loads in flight together. */
enum { ROWS_AT_ONCE = 4 };

/* SINGLE: one rounding an element. */
template <Decode D, bool SINGLE>
__global__ void __launch_bounds__(256) dequantize_runs(const __grid_constant__ gatun_matrix m, Output out) {
    constexpr int BITS = D == TABLE4 ? 4 : 8;
    __shared__ TablePairs table[1];
    if (BITS == 4)
        table[0].fill(m, SINGLE ? (float)m.zero_point : 0.0f);
    int64_t column = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN;
    if (column >= m.k)
        return;
    const float2 *lane_pairs = &table[0].values[0][threadIdx.x % TablePairs::COPIES];
    int64_t stride = m.code_row_stride ? m.code_row_stride : m.k * BITS / 8;
    int64_t scale_column = m.flat_block ? column / m.flat_block : column / m.block_cols;
    int64_t scale_stride = m.flat_block ? m.k / m.flat_block : m.scale_row_stride;
    bool by_rows = m.flat_block || (m.scale_order == GATUN_SCALES_STRIDED && m.block_rows == 1);
    if (!m.flat_block)
        scale_column *= m.scale_col_stride;
    const uint8_t *codes = (const uint8_t *)m.codes + column * BITS / 8;

    for (int64_t first = (int64_t)blockIdx.y * ROWS_AT_ONCE; first < out.rows;
         first += (int64_t)gridDim.y * ROWS_AT_ONCE) {
        uint2 word[ROWS_AT_ONCE];
        int64_t source[ROWS_AT_ONCE], index[ROWS_AT_ONCE];
        float scale[ROWS_AT_ONCE];
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            source[r] = out.source(first + r < out.rows ? first + r : out.rows - 1, m.n);
            int64_t row = source[r] < 0 ? 0 : source[r];
            const uint8_t *p = codes + row * stride;
            word[r] = BITS == 4 ? make_uint2(__ldcs((const uint32_t *)p), 0) : __ldcs((const uint2 *)p);
            index[r] = by_rows ? row * scale_stride + scale_column : scale_index(m, row, column);
        }
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++)
            scale[r] = out.plain_scales ? round_to(m.arithmetic, load_plain(m.scale_type, m.scales, index[r]))
                                        : scale_at(m, index[r]);
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            if (first + r >= out.rows)
                break;
            float v[RUN];
            decode_run<D>(word[r], m.encoding, lane_pairs, v);
            if (SINGLE) {
#pragma unroll
                for (int i = 0; i < RUN; i++)
                    v[i] = __fmul_rn(BITS == 4 ? v[i] : __fsub_rn(v[i], (float)m.zero_point), scale[r]);
            } else {
                float zero = zero_at(m, index[r]), offset = offset_at(m, index[r]);
                for (int i = 0; i < RUN; i++) {
                    v[i] = round_to(m.arithmetic, __fmul_rn(__fsub_rn(v[i], zero), scale[r]));
                    if (m.offset_type != GATUN_NONE)
                        v[i] = round_to(m.arithmetic, __fadd_rn(v[i], offset));
                    v[i] = round_to(m.result, v[i]);
                }
            }
            if (source[r] < 0)
                for (int i = 0; i < RUN; i++)
                    v[i] = __uint_as_float(0x7FC00000);
            store_run(out.type, out.data, (first + r) * out.ld + column, v);
        }
    }
}

/* Run `run` of the block at b, before `result`: by the definition, the two commonest with wider loads. */
template <int ENCODING> __device__ inline void block_run(const uint8_t *b, int run, float *v) {
    if constexpr (ENCODING == GATUN_Q4_0) {
        const uint16_t *q = (const uint16_t *)(b + 2 + run % 2 * 8);
        const float d = from_f16(*(const uint16_t *)b);
#pragma unroll
        for (int e = 0; e < RUN; e++) {
            const int nibble = q[e / 2] >> (e % 2 * 8 + run / 2 * 4) & 15;
            v[e] = __fmul_rn((float)(nibble - 8), d);
        }
    } else if constexpr (ENCODING == GATUN_Q4_K) {
        const int sub = run / 4;
        int scale, minimum;
        k_scale_min(b + 4, sub, &scale, &minimum);
        const uint32_t both = *(const uint32_t *)b;
        const float d = __fmul_rn(from_f16((uint16_t)both), (float)scale);
        const float m = __fmul_rn(from_f16((uint16_t)(both >> 16)), (float)minimum);
        const uint32_t *q = (const uint32_t *)(b + 16 + sub / 2 * 32 + run % 4 * RUN);
        const uint32_t words[2] = {q[0] >> sub % 2 * 4, q[1] >> sub % 2 * 4};
#pragma unroll
        for (int e = 0; e < RUN; e++)
            v[e] = __fsub_rn(__fmul_rn(d, (float)(words[e / 4] >> e % 4 * 8 & 15)), m);
    } else {
#pragma unroll
        for (int e = 0; e < RUN; e++) /* or, not plus: the compiler sees what the eight share */
            v[e] = block_value(ENCODING, b, run << 3 | e);
    }
}

template <int ENCODING>
__global__ void __launch_bounds__(256) dequantize_blocks(const __grid_constant__ gatun_matrix m, Output out) {
    constexpr BlockShape shape = block_shape(ENCODING);
    int64_t column = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN;
    if (column >= m.k)
        return;
    int64_t stride = m.code_row_stride ? m.code_row_stride : m.k / shape.elements * shape.bytes;
    const uint8_t *block = (const uint8_t *)m.codes + column / shape.elements * shape.bytes;
    const int run = (int)(column % shape.elements / RUN);
#pragma unroll 2 /* two rows' loads in flight */
    for (int64_t i = blockIdx.y; i < out.rows; i += gridDim.y) {
        int64_t source = out.source(i, m.n);
        float v[RUN];
#pragma unroll
        for (int e = 0; e < RUN; e++)
            v[e] = source < 0 ? __uint_as_float(0x7FC00000)
                              : round_to(m.result, block_value(ENCODING, block + source * stride, run << 3 | e));
        store_run(out.type, out.data, i * out.ld + column, v);
    }
}

/* The same for blocks that follow each other, into rows that do: `count` elements from `codes` on. */
template <int ENCODING>
__global__ void __launch_bounds__(256)
    dequantize_stream(const uint8_t *codes, int64_t count, int32_t result, void *out, int32_t out_type) {
    constexpr BlockShape shape = block_shape(ENCODING);
    constexpr int CHUNK = 8192, BYTES = CHUNK / shape.elements * shape.bytes, WORDS = BYTES / 16;
    constexpr int OWN = (WORDS + 255) / 256;
    constexpr int UNROLL = ENCODING == GATUN_Q4_0 || ENCODING == GATUN_Q4_K ? 4 : 1; /* of what is short */
    __shared__ uint4 staged[WORDS];
    const int64_t bytes = count / shape.elements * shape.bytes, chunks = (count + CHUNK - 1) / CHUNK;
    uint4 next[OWN];
    auto load = [&](int64_t chunk) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int word = i * 256 + (int)threadIdx.x;
            const int64_t at = chunk * BYTES + word * 16LL;
            if (word >= WORDS || at >= bytes)
                continue;
            if (at + 16 <= bytes) {
                next[i] = __ldcs((const uint4 *)(codes + at));
            } else { /* the last bytes */
                uint32_t words[4] = {};
                for (int b = 0; at + b < bytes; b++)
                    words[b / 4] |= (uint32_t)codes[at + b] << b % 4 * 8;
                next[i] = make_uint4(words[0], words[1], words[2], words[3]);
            }
        }
    };
    if (blockIdx.x < chunks)
        load(blockIdx.x);
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++)
            if (i * 256 + (int)threadIdx.x < WORDS)
                staged[i * 256 + threadIdx.x] = next[i];
        __syncthreads();
        if (chunk + gridDim.x < chunks)
            load(chunk + gridDim.x);
#pragma unroll UNROLL
        for (int i = 0; i < CHUNK / (256 * RUN); i++) {
            const int element = (i * 256 + (int)threadIdx.x) * RUN;
            if (chunk * CHUNK + element >= count)
                break;
            const uint8_t *block = (const uint8_t *)staged + element / shape.elements * shape.bytes;
            float v[RUN];
            block_run<ENCODING>(block, element % shape.elements / RUN, v);
            if (result != GATUN_F32)
#pragma unroll
                for (int e = 0; e < RUN; e++)
                    v[e] = round_to(result, v[e]);
            store_run(out_type, out, chunk * CHUNK + element, v);
        }
    }
}

__global__ void __launch_bounds__(256) dequantize_elements(const __grid_constant__ gatun_matrix m, Output out) {
    int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= m.k)
        return;
    for (int64_t i = blockIdx.y; i < out.rows; i += gridDim.y) {
        int64_t row = out.source(i, m.n);
        store_number(out.type, out.data, i * out.ld + column,
                     row < 0 ? __uint_as_float(0x7FC00000) : value_at(m, row, column));
    }
}

__global__ void __launch_bounds__(256)
    convert_numbers(const void *src, int32_t src_type, void *dst, int32_t dst_type, int64_t count, bool saturate) {
    bool narrow = saturate && !is_plain(dst_type);
    float largest = narrow ? fp8_max(dst_type) : 0.0f;
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        float v = load_number(src_type, src, i);
        if (narrow && !is_nan(v))
            v = fminf(fmaxf(v, -largest), largest);
        store_number(dst_type, dst, i, v);
    }
}

/* Whether the output can be stored eight numbers at a time. */
static bool stores_runs(const gatun_matrix &m, const Output &out) {
    return m.k % RUN == 0 && out.ld % RUN == 0 && (uintptr_t)out.data % 16 == 0;
}

/* Whether eight codes from any multiple of eight on lie in one aligned word and share a scale. */
static bool has_runs(const gatun_matrix &m) {
    int bits = code_bits(m.encoding);
    if (bits != 4 && bits != 8)
        return false;
    if (m.code_order != GATUN_ORDER_LOW_FIRST && m.code_order != GATUN_ORDER_HIGH_FIRST)
        return false;
    if (m.column_groups || m.row_scales || m.rotation || (bits == 8 && m.codebook) ||
        m.scale_order == GATUN_SCALES_THEN_GLOBAL)
        return false;
    int64_t share = m.flat_block ? m.flat_block : m.block_cols;
    if (share % RUN != 0 && share < m.k)
        return false;
    if (m.flat_block && m.k % m.flat_block != 0)
        return false;
    return (uintptr_t)m.codes % bits == 0 && m.code_row_stride % bits == 0;
}

/* Whether the definition's roundings are one: the scale is rounded when it is read. */
static bool rounds_once(const gatun_matrix &m, int32_t out_type) {
    return m.offset_type == GATUN_NONE && m.zero_type == GATUN_NONE &&
           (m.arithmetic == GATUN_F32 || m.arithmetic == out_type) && (m.result == GATUN_F32 || m.result == out_type);
}

template <Decode D> static void launch_runs(const gatun_matrix &m, const Output &out, dim3 grid, cudaStream_t stream) {
    if (rounds_once(m, out.type))
        dequantize_runs<D, true><<<grid, 256, 0, stream>>>(m, out);
    else
        dequantize_runs<D, false><<<grid, 256, 0, stream>>>(m, out);
}

template <int ENCODING>
static void launch_block(const gatun_matrix &m, const Output &out, dim3 grid, int multiprocessors,
                         cudaStream_t stream) {
    constexpr BlockShape shape = block_shape(ENCODING);
    const int64_t row = m.k / shape.elements * shape.bytes;
    const uint8_t *codes = (const uint8_t *)m.codes + out.row0 * row;
    const bool follow = (m.code_row_stride == 0 || m.code_row_stride == row) && out.ld == m.k && !out.ids;
    if (follow && (uintptr_t)codes % 16 == 0)
        dequantize_stream<ENCODING>
            <<<multiprocessors * 6, 256, 0, stream>>>(codes, out.rows * m.k, m.result, out.data, out.type);
    else
        dequantize_blocks<ENCODING><<<grid, 256, 0, stream>>>(m, out);
}

static bool launch_blocks(const gatun_matrix &m, const Output &out, dim3 grid, int multiprocessors,
                          cudaStream_t stream) {
    switch (m.encoding) {
#define GATUN_BLOCK(name)                                                                                              \
    case GATUN_##name:                                                                                                 \
        launch_block<GATUN_##name>(m, out, grid, multiprocessors, stream);                                             \
        return true;
        GATUN_BLOCK(Q4_0)
        GATUN_BLOCK(Q4_1)
        GATUN_BLOCK(Q5_0)
        GATUN_BLOCK(Q5_1)
        GATUN_BLOCK(Q8_0)
        GATUN_BLOCK(Q2_K)
        GATUN_BLOCK(Q3_K)
        GATUN_BLOCK(Q4_K)
        GATUN_BLOCK(Q5_K)
        GATUN_BLOCK(Q6_K)
        GATUN_BLOCK(IQ4_NL)
        GATUN_BLOCK(IQ4_XS)
        GATUN_BLOCK(MXFP4)
        GATUN_BLOCK(NVFP4)
#undef GATUN_BLOCK
    default:
        return false;
    }
}

static gatun_status gather(int32_t operation, int32_t device, const gatun_matrix *m, Output out,
                           gatun_cuda_stream stream) {
    const char *what = operation == GATUN_OP_EMBEDDING ? "embedding" : "dequantize";
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(m, false));
    if (!is_plain(out.type) || out.ld < m->k || out.rows < 0 || (out.rows > 0 && m->k > 0 && !out.data))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "%s: found output type %d, rows %lld elements apart, %lld rows",
                               what, out.type, (long long)out.ld, (long long)out.rows);
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (out.rows == 0 || m->k == 0)
        return GATUN_OK;
    cudaStream_t raw = gatun_cuda_raw(stream);
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    auto grid = [&](int64_t threads, int64_t rows, int64_t most = 65535) {
        int64_t down = (out.rows + rows - 1) / rows;
        return dim3((unsigned)((threads + 255) / 256), (unsigned)(down < most ? down : most));
    };
    out.plain_scales = is_plain(m->scale_type) && m->global_scale == 1.0f &&
                       (uintptr_t)m->scales % (m->scale_type == GATUN_F32 ? 4 : 2) == 0;
    bool stores = stores_runs(*m, out);
    if (stores && has_runs(*m)) {
        /* Blocks that fill a table do it once: as many as run side by side. */
        int64_t across = (m->k / RUN + 255) / 256, side_by_side = (traits.multiprocessors * 8 + across - 1) / across;
        dim3 runs = grid(m->k / RUN, ROWS_AT_ONCE, code_bits(m->encoding) == 4 ? side_by_side : 65535);
        switch (m->encoding) {
        case GATUN_I8:
            launch_runs<INT8>(*m, out, runs, raw);
            break;
        case GATUN_U8:
            launch_runs<UINT8>(*m, out, runs, raw);
            break;
        case GATUN_F8_E4M3:
            launch_runs<E4M3>(*m, out, runs, raw);
            break;
        case GATUN_F8_E5M2:
            launch_runs<E5M2>(*m, out, runs, raw);
            break;
        case GATUN_F8_E4M3FNUZ:
        case GATUN_F8_E5M2FNUZ:
            dequantize_runs<ANY8, false><<<runs, 256, 0, raw>>>(*m, out);
            break;
        default:
            launch_runs<TABLE4>(*m, out, runs, raw);
            break;
        }
    } else if (!stores || !launch_blocks(*m, out, grid(m->k / RUN, 4), traits.multiprocessors, raw)) {
        dequantize_elements<<<grid(m->k, 1), 256, 0, raw>>>(*m, out);
    }
    return gatun_cuda_launched(operation, 0, m->encoding, what);
}

} // namespace gatun

using namespace gatun;

extern "C" {

gatun_status gatun_cuda_dequantize(int32_t device, const gatun_matrix *matrix, int64_t row0, int64_t rows,
                                   gatun_cuda_ptr out, int32_t out_type, int64_t ld, gatun_cuda_stream stream) {
    if (matrix && (row0 < 0 || rows < 0 || row0 > matrix->n || rows > matrix->n - row0))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "dequantize: found rows %lld to %lld + %lld, expected within 0 to %lld", (long long)row0,
                               (long long)row0, (long long)rows, (long long)matrix->n);
    return gather(GATUN_OP_DEQUANTIZE, device, matrix,
                  {nullptr, row0, rows, (void *)(uintptr_t)out, ld, out_type, false}, stream);
}

gatun_status gatun_cuda_embedding(int32_t device, const gatun_matrix *matrix, gatun_cuda_ptr ids, int64_t count,
                                  gatun_cuda_ptr out, int32_t out_type, int64_t ld, gatun_cuda_stream stream) {
    if (count > 0 && !ids)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "embedding: found a null pointer of ids");
    return gather(GATUN_OP_EMBEDDING, device, matrix,
                  {(const int64_t *)(uintptr_t)ids, 0, count, (void *)(uintptr_t)out, ld, out_type, false}, stream);
}

gatun_status gatun_cuda_convert(int32_t device, gatun_cuda_ptr src, int32_t src_type, gatun_cuda_ptr dst,
                                int32_t dst_type, int64_t count, int32_t saturate, gatun_cuda_stream stream) {
    bool fp8 = src_type >= GATUN_F8_E4M3 && src_type <= GATUN_F8_E8M0;
    bool to_fp8 = dst_type >= GATUN_F8_E4M3 && dst_type <= GATUN_F8_E8M0;
    if ((!is_plain(src_type) && !fp8) || (!is_plain(dst_type) && !to_fp8) || count < 0 || (count > 0 && (!src || !dst)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "convert: found types %d to %d, %lld numbers", src_type,
                               dst_type, (long long)count);
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (count == 0)
        return GATUN_OK;
    int64_t blocks = (count + 255) / 256;
    convert_numbers<<<(unsigned)(blocks < 8192 ? blocks : 8192), 256, 0, gatun_cuda_raw(stream)>>>(
        (const void *)(uintptr_t)src, src_type, (void *)(uintptr_t)dst, dst_type, count, saturate != 0);
    return gatun_cuda_launched(GATUN_OP_CONVERT, 0, dst_type, "convert");
}

} // extern "C"
