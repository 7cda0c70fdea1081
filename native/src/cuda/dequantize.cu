/*
 * dequantize, embedding and convert.
 *
 * out[i][k] = value(row(i), k) in F32, F16 or BF16. Kernels:
 *  - runs: a thread takes eight consecutive codes of a row (one or two words in, one or two 16-byte stores out, so that
 * a warp reads and writes whole lines) which share their scale; columns are fixed per thread, so that all index
 * arithmetic over columns is done once for the rows it walks down. Most libraries compute in float and round once, or
 * in the type that is asked for: those are a product and a conversion an element; a second instance does every rounding
 * of the definition.
 *  - plain: the same for what lies without gaps, with as little as possible beside loads and stores.
 *  - blocks: GGUF's, in dequantize_blocks.cu.
 *  - elements: a thread an element by the definition in matrix.cuh: any order, any width, any granularity.
 */
#include <cuda_fp8.h>

#include "dequantize.cuh"

namespace gatun {

/* How the codes of a run become numbers. */
enum Decode { TABLE4, INT8, UINT8, E4M3, E5M2, ANY8 };

/* What decode_run wants of a lane. */
__device__ inline float lane_value(const gatun_matrix &m, float zero) {
    const uint32_t code = threadIdx.x % 16;
    return (m.codebook ? m.codebook[code] : decode_code(m.encoding, code)) - zero;
}

/* own: of 4-bit codes, the value of the lane's number, modulo 16. Whole warps come here together. */
template <Decode D> __device__ inline void decode_run(uint2 word, const gatun_matrix &m, float own, float *v) {
    if constexpr (D == TABLE4) {
        const uint32_t codes =
            m.code_order == GATUN_ORDER_HIGH_FIRST ? (word.x & 0x0F0F0F0F) << 4 | (word.x >> 4 & 0x0F0F0F0F) : word.x;
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = __shfl_sync(0xFFFFFFFF, own, codes >> 4 * i, 16);
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
                v[i] = decode_code(m.encoding, two & 255), v[i + 1] = decode_code(m.encoding, two >> 8 & 255);
            }
        }
    }
}

/* Rows of the output that a thread walks down with their loads in flight together. */
enum { ROWS_AT_ONCE = 4 };

/* SINGLE: one rounding an element. */
template <Decode D, bool SINGLE>
__global__ void __launch_bounds__(256) dequantize_runs(const __grid_constant__ gatun_matrix m, Output out) {
    constexpr int BITS = D == TABLE4 ? 4 : 8;
    const float own = BITS == 4 ? lane_value(m, SINGLE ? (float)m.zero_point : 0.0f) : 0.0f;
    int64_t column = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN;
    const bool inside = column < m.k; /* the others are there for what warps do together */
    if (!inside) {
        if (BITS == 8)
            return;
        column = 0;
    }
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
            decode_run<D>(word[r], m, own, v);
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
            if (BITS == 8 || inside)
                store_run(out.type, out.data, (first + r) * out.ld + column, v);
        }
    }
}

/* The same with one rounding for codes that follow each other, into rows that do, where the scales do too, each of
 * RUN << share elements: as little as possible beside loads and stores. */
template <Decode D>
__global__ void __launch_bounds__(256)
    dequantize_plain(const __grid_constant__ gatun_matrix m, int64_t row0, int64_t runs, int share, Output out) {
    constexpr int BITS = D == TABLE4 ? 4 : 8, AT_ONCE = 32 / BITS;
    const float own = BITS == 4 ? lane_value(m, (float)m.zero_point) : 0.0f;
    const int64_t before = row0 * (m.k / RUN), first = (int64_t)blockIdx.x * (256 * AT_ONCE) + threadIdx.x;
    uint2 word[AT_ONCE];
    float scale[AT_ONCE];
    int64_t at[AT_ONCE];
#pragma unroll
    for (int r = 0; r < AT_ONCE; r++) {
        at[r] = min(first + r * 256, runs - 1) + before;
        word[r] = BITS == 4 ? make_uint2(__ldcs((const uint32_t *)m.codes + at[r]), 0)
                            : __ldcs((const uint2 *)m.codes + at[r]);
    }
    if (m.scale_type == GATUN_F32)
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++)
            scale[r] = ((const float *)m.scales)[at[r] >> share];
    else
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            const uint16_t bits = ((const uint16_t *)m.scales)[at[r] >> share];
            scale[r] = m.scale_type == GATUN_F16 ? from_f16(bits) : from_bf16(bits);
        }
#pragma unroll
    for (int r = 0; r < AT_ONCE; r++) {
        float v[RUN];
        decode_run<D>(word[r], m, own, v);
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = __fmul_rn(BITS == 4 ? v[i] : __fsub_rn(v[i], (float)m.zero_point), scale[r]);
        if (first + r * 256 < runs)
            store_run(out.type, out.data, (first + r * 256) * RUN, v);
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

/* Binary logarithm of the runs that share a scale, for dequantize_plain; -1: it cannot. */
static int plain_share(const gatun_matrix &m, const Output &out) {
    const int64_t share = m.flat_block ? m.flat_block : m.block_cols < m.k ? m.block_cols : m.k, runs = share / RUN;
    const bool follow = (m.code_row_stride == 0 || m.code_row_stride == m.k * code_bits(m.encoding) / 8) &&
                        out.ld == m.k && !out.ids && out.rows * m.k / RUN < (int64_t)INT32_MAX * 256;
    const bool scales =
        m.flat_block || (m.block_rows == 1 && m.scale_order == GATUN_SCALES_STRIDED && m.k % share == 0 &&
                         m.scale_row_stride == m.k / share && (m.scale_col_stride == 1 || share == m.k));
    if (!follow || !scales || !out.plain_scales || !rounds_once(m, out.type) || (runs & (runs - 1)) != 0 ||
        (m.arithmetic != GATUN_F32 && m.arithmetic != m.scale_type))
        return -1;
    int logarithm = 0;
    while (1LL << logarithm < runs)
        logarithm++;
    return logarithm;
}

template <Decode D> static void launch_runs(const gatun_matrix &m, const Output &out, dim3 grid, cudaStream_t stream) {
    const int share = plain_share(m, out), at_once = 256 * (D == TABLE4 ? 8 : 4);
    if (share >= 0) {
        const int64_t runs = out.rows * (m.k / RUN);
        dequantize_plain<D>
            <<<(unsigned)((runs + at_once - 1) / at_once), 256, 0, stream>>>(m, out.row0, runs, share, out);
        return;
    }
    if (rounds_once(m, out.type))
        dequantize_runs<D, true><<<grid, 256, 0, stream>>>(m, out);
    else
        dequantize_runs<D, false><<<grid, 256, 0, stream>>>(m, out);
}

static gatun_status gather(int32_t operation, int32_t device, const gatun_matrix *m, Output out,
                           gatun_cuda_stream stream) {
    const char *what = operation == GATUN_OP_EMBEDDING ? "embedding" : "dequantize";
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(m, false));
    if (!is_plain(out.type) || out.ld < m->k || out.rows < 0 || (out.rows > 0 && m->k > 0 && !out.data))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "%s: found output type %d, rows %lld elements apart, %lld rows",
                               what, out.type, (long long)out.ld, (long long)out.rows);
    GATUN_CUDA_TRY(gatun_cuda_check_aligned(what, {{"out", (gatun_cuda_ptr)(uintptr_t)out.data, out.type},
                                                   {"ids", (gatun_cuda_ptr)(uintptr_t)out.ids, GATUN_CUDA_INT64}}));
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (out.rows == 0 || m->k == 0)
        return GATUN_OK;
    cudaStream_t raw = gatun_cuda_raw(stream);
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    auto grid = [&](int64_t threads, int64_t rows) {
        int64_t down = (out.rows + rows - 1) / rows;
        return dim3((unsigned)((threads + 255) / 256), (unsigned)(down < 65535 ? down : 65535));
    };
    out.plain_scales = is_plain(m->scale_type) && m->global_scale == 1.0f &&
                       (uintptr_t)m->scales % (m->scale_type == GATUN_F32 ? 4 : 2) == 0;
    bool stores = stores_runs(*m, out);
    if (stores && has_runs(*m)) {
        dim3 runs = grid(m->k / RUN, ROWS_AT_ONCE);
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
    GATUN_CUDA_TRY(gatun_cuda_check_aligned("convert", {{"src", src, src_type}, {"dst", dst, dst_type}}));
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (count == 0)
        return GATUN_OK;
    int64_t blocks = (count + 255) / 256;
    convert_numbers<<<(unsigned)(blocks < 8192 ? blocks : 8192), 256, 0, gatun_cuda_raw(stream)>>>(
        (const void *)(uintptr_t)src, src_type, (void *)(uintptr_t)dst, dst_type, count, saturate != 0);
    return gatun_cuda_launched(GATUN_OP_CONVERT, 0, dst_type, "convert");
}

} // extern "C"
