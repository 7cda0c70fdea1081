/*
 * linear with compute types I8, F8 and F8_BLOCK: x becomes codes on the GPU, codes of W and x are multiplied, and the
 * scales of both multiply the sums.
 *
 * Products of bytes run on Hopper's tensor cores, through cuBLASLt or hopper_codes.cu. Everywhere else, for few rows of
 * x and for other granularities, codes are multiplied as bfloat16, which holds each of them exactly: the kernels of
 * BF16 for up to 16 rows, which scale sums and not weights. There F8_BLOCK rounds an element of x times its scale to
 * bfloat16.
 */
#include <cuda_fp8.h>

#include "grouped.cuh"
#include "rows.cuh"
#include "tiles.cuh"

namespace gatun {

static int64_t align_up(int64_t v) {
    return (v + GATUN_CUDA_ALIGNMENT - 1) / GATUN_CUDA_ALIGNMENT * GATUN_CUDA_ALIGNMENT;
}

enum { CHUNK_ROWS = 16, BLAS_ROWS = 128, WIDE_ROWS = 192, BLAS_BYTES = 32 << 20 };

/* What x is turned into. */
struct XCodes {
    bool integers, as_bf16; /* int8 or e4m3; each as a byte or as the bfloat16 of its value */
    void *codes;
    int64_t row; /* elements from row to row, those beyond K zeros */
    float *row_scales;
    float *block_scales; /* instead, of 128 k: [block][padded]; with as_bf16 the values are scaled and this is unused */
    int64_t padded;
    bool blocks;
    /* Of several weights: codes lie in chunks, each with room for chunk_rows of them. Null: row after row. */
    const GroupedChunk *plan;
    const GroupedExpert *experts;
    int chunk_rows;
};

__device__ static uint32_t pair_of_codes(bool integers, float a, float b) {
    if (integers)
        return ((uint32_t)(int)rintf(a) & 255) | ((uint32_t)(int)rintf(b) & 255) << 8;
    return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

__device__ static uint32_t bits_of(float v) { return __float_as_uint(v) & 0x7FFFFFFF; }

/* A block of threads a row. A row (block) with NaN or infinity gets the scale NaN, so that these reach y. */
__global__ void __launch_bounds__(256) quantize_x(XRows x, int64_t k, XCodes to) {
    __shared__ uint32_t largest_of[8];
    const int64_t to_row = blockIdx.x;
    int64_t row = to_row;
    if (to.plan) {
        const GroupedChunk chunk = to.plan[to_row / to.chunk_rows];
        const int64_t within = to_row % to.chunk_rows;
        if (chunk.expert < 0 || within >= chunk.rows)
            return;
        row = chunk.row + within;
        x.multiplier = to.experts[chunk.expert].multiplier;
    }
    const float most = to.integers ? 127.0f : 448.0f;
    float scale = 0.0f;
    if (!to.blocks) {
        uint32_t largest = 0; /* magnitudes compare like their bits, NaN above all */
        for (int64_t column = threadIdx.x * RUN; column < k; column += 256 * RUN) {
            float v[RUN];
            load_run(x, row, column, k, v);
#pragma unroll
            for (int i = 0; i < RUN; i++)
                largest = max(largest, bits_of(v[i]));
        }
        largest = __reduce_max_sync(0xFFFFFFFF, largest);
        if (threadIdx.x % 32 == 0)
            largest_of[threadIdx.x / 32] = largest;
        __syncthreads();
        for (int i = 0; i < 8; i++)
            largest = max(largest, largest_of[i]);
        scale = largest < 0x7F800000 ? __fdiv_rn(__uint_as_float(largest), most) : __uint_as_float(0x7FC00000);
        if (threadIdx.x == 0)
            to.row_scales[row] = scale;
    }
    /* 16 threads a block of 128 k; all of a warp go round together. */
    const int64_t rounded = (to.row + 256 * RUN - 1) / (256 * RUN) * (256 * RUN);
    for (int64_t column = threadIdx.x * RUN; column < rounded; column += 256 * RUN) {
        float v[RUN];
        if (column < k)
            load_run(x, row, column, k, v);
        else
            for (float &e : v)
                e = 0.0f;
        if (to.blocks) {
            uint32_t largest = 0;
#pragma unroll
            for (int i = 0; i < RUN; i++)
                largest = max(largest, bits_of(v[i]));
#pragma unroll
            for (int step = 8; step > 0; step /= 2)
                largest = max(largest, __shfl_xor_sync(0xFFFFFFFF, largest, step));
            scale = largest < 0x7F800000 ? __fdiv_rn(__uint_as_float(largest), most) : __uint_as_float(0x7FC00000);
            if (!to.as_bf16 && threadIdx.x % 16 == 0 && column < to.row)
                to.block_scales[column / GATUN_CUDA_BLOCK_K * to.padded + to_row] = scale;
        }
        if (column >= to.row)
            continue;
        uint32_t pairs[RUN / 2];
#pragma unroll
        for (int i = 0; i < RUN / 2; i++) /* a scale of 0 or NaN: codes 0 */
            pairs[i] = scale > 0.0f
                           ? pair_of_codes(to.integers, __fdiv_rn(v[2 * i], scale), __fdiv_rn(v[2 * i + 1], scale))
                           : 0;
        if (!to.as_bf16) {
            *(uint2 *)((uint8_t *)to.codes + to_row * to.row + column) =
                make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
            continue;
        }
        uint32_t words[RUN / 2];
#pragma unroll
        for (int i = 0; i < RUN / 2; i++) {
            float a, b;
            if (to.integers)
                a = (float)(int8_t)pairs[i], b = (float)(int8_t)(pairs[i] >> 8);
            else
                a = fp8_decode(GATUN_F8_E4M3, pairs[i] & 255), b = fp8_decode(GATUN_F8_E4M3, pairs[i] >> 8 & 255);
            words[i] = to.blocks ? pair_bf16(a * scale, b * scale) : pair_bf16(a, b);
        }
        *(uint4 *)((uint16_t *)to.codes + to_row * to.row + column) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/* Given codes of x as bfloat16, of its values or (with scales of blocks) those times their scales. */
__global__ void __launch_bounds__(256) widen_codes(GivenX x, int64_t m, int64_t k, int64_t row, uint16_t *out) {
    const int64_t column = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (column >= row)
        return;
    for (int64_t i = blockIdx.y; i < m; i += gridDim.y) {
        float v = column < k ? load_number(x.type, x.codes, i * x.ld + column) : 0.0f;
        if (x.scale_block)
            v *= x.scales[i * x.scale_row_stride + column / x.scale_block * x.scale_col_stride];
        out[i * row + column] = to_bf16(v);
    }
}

/* Given scales of x where the kernels look for them: tiles of 32 x 32 through shared memory, so that both sides are
 * read and written in lines. */
enum { PLACE_TILE = 32, PLACE_ROWS = 8 };
__global__ void __launch_bounds__(PLACE_TILE *PLACE_ROWS)
    place_scales(GivenX x, int64_t m, int64_t blocks, int64_t padded, float *out) {
    __shared__ float tile[PLACE_TILE][PLACE_TILE + 1];
    const int64_t block0 = (int64_t)blockIdx.y * PLACE_TILE, row0 = (int64_t)blockIdx.x * PLACE_TILE;
#pragma unroll
    for (int i = threadIdx.y; i < PLACE_TILE; i += PLACE_ROWS)
        if (row0 + i < m && block0 + threadIdx.x < blocks)
            tile[i][threadIdx.x] =
                x.scales[(row0 + i) * x.scale_row_stride + (block0 + threadIdx.x) * x.scale_col_stride];
    __syncthreads();
#pragma unroll
    for (int i = threadIdx.y; i < PLACE_TILE; i += PLACE_ROWS)
        if (row0 + threadIdx.x < m && block0 + i < blocks)
            out[(block0 + i) * padded + row0 + threadIdx.x] = tile[threadIdx.x][i];
}
static void launch_place_scales(const GivenX &x, int64_t m, int64_t blocks, int64_t padded, float *out,
                                cudaStream_t stream) {
    const dim3 grid((unsigned)((m + PLACE_TILE - 1) / PLACE_TILE), (unsigned)((blocks + PLACE_TILE - 1) / PLACE_TILE));
    place_scales<<<grid, dim3(PLACE_TILE, PLACE_ROWS), 0, stream>>>(x, m, blocks, padded, out);
}

/* W's scales of rows as a vector of floats. */
__global__ void __launch_bounds__(256) place_row_scales(TileLinear p, float *out) {
    const int64_t n = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (n < p.n)
        out[n] = load_plain(p.scale_type, p.scales, n / 16 * 16 + scale_slot(n));
}

static unsigned blocks_of(int64_t threads) { return (unsigned)((threads + 255) / 256); }

/* ---- choices ---- */

static bool is_f8(int32_t compute) { return compute == GATUN_COMPUTE_F8 || compute == GATUN_COMPUTE_F8_BLOCK; }

bool codes_multiply(int32_t compute, int32_t encoding) {
    switch (encoding) {
    case GATUN_F8_E4M3:
    case GATUN_F8_E5M2:
    case GATUN_F8_E4M3FNUZ:
    case GATUN_F8_E5M2FNUZ:
        return is_f8(compute);
    case GATUN_I8:
    case GATUN_U8:
    case GATUN_I4:
    case GATUN_U4:
    case GATUN_Q4_0:
    case GATUN_Q4_1:
    case GATUN_Q8_0:
        return compute == GATUN_COMPUTE_I8;
    default:
        return false;
    }
}

bool takes_codes(const gatun_cuda_packed &p, int32_t compute) {
    return p.matrix.rotation == 0 && p.matrix.codebook_size == 0 && codes_multiply(compute, p.matrix.encoding);
}

bool multiplies_bytes(const gatun_cuda_packed &p, int32_t compute) {
    if (p.form != GATUN_CUDA_FORM_CODES8 || p.zeros_offset || p.offsets_offset || p.matrix.zero_point != 0)
        return false;
    if (compute == GATUN_COMPUTE_I8)
        return p.matrix.encoding == GATUN_I8 && p.groups == 1;
    return p.matrix.encoding == GATUN_F8_E4M3 && (p.groups == 1 || p.group % GATUN_CUDA_BLOCK_K == 0);
}

static bool takes_bytes(const gatun_cuda_packed &p, int32_t compute, int64_t m, bool hopper) {
    return hopper && m > CHUNK_ROWS && multiplies_bytes(p, compute);
}

/* The parts of the workspace. */
struct CodesSpace {
    int64_t row; /* elements of a row of codes */
    int64_t codes, row_scales, block_scales, padded, tiles_x, w_scales, blas;
    int64_t total() const { return codes + row_scales + block_scales + tiles_x + w_scales + blas; }
};

static CodesSpace space_of(const gatun_cuda_packed &p, int64_t m, bool bytes, bool blas) {
    CodesSpace s = {};
    s.row = (p.matrix.k + GATUN_CUDA_STEP_K - 1) / GATUN_CUDA_STEP_K * GATUN_CUDA_STEP_K;
    s.codes = align_up(m * s.row * (bytes ? 1 : 2));
    s.padded = (m / GATUN_CUDA_CODES_ROWS + 2) * GATUN_CUDA_CODES_ROWS;
    s.row_scales = align_up(m * 4);
    if (bytes)
        s.block_scales = align_up((s.row + GATUN_CUDA_BLOCK_K - 1) / GATUN_CUDA_BLOCK_K * s.padded * 4);
    else
        s.tiles_x = align_up(tile_x_bytes(CHUNK_ROWS, p.steps));
    if (bytes && blas) {
        s.w_scales = align_up(p.matrix.n * 4);
        s.blas = BLAS_BYTES;
    }
    return s;
}

int64_t codes_bytes(const gatun_cuda_packed &p, int64_t m) {
    /* Which way it goes depends on the device and the epilogue: enough for all of them. */
    int64_t bytes = space_of(p, m, true, true).total(), wide = space_of(p, m, false, false).total();
    return bytes > wide ? bytes : wide;
}

/* Whether cuBLASLt multiplies the bytes: e4m3 with scales of rows, without an epilogue. */
static bool takes_dense(const TileLinear &p, bool integers, bool blocks) {
    const Epilogue &e = p.epilogue;
    return !integers && !blocks && p.m >= BLAS_ROWS && p.groups == 1 && !e.bias &&
           e.activation == GATUN_ACTIVATION_NONE && e.combine == GATUN_COMBINE_NONE && p.n % 16 == 0 && p.k % 16 == 0 &&
           gatun_cuda_blas_check() == GATUN_OK;
}

Way codes_way(const gatun_cuda_packed &packed, const TileLinear &p, int32_t compute, const DeviceTraits &traits) {
    if (takes_bytes(packed, compute, p.m, traits.hopper))
        return takes_dense(p, compute == GATUN_COMPUTE_I8, compute == GATUN_COMPUTE_F8_BLOCK) ? Way::CODES_DENSE
                                                                                              : Way::HOPPER_CODES;
    return packed.form == GATUN_CUDA_FORM_SOURCE ? Way::CODES_GENERAL : Way::CODES_WIDENED;
}

/* Whether a scale is that of 64 rows of W at least, from a multiple of 64 on, or one of a row for all K. */
static bool shares_scales(const gatun_cuda_packed &p) {
    const gatun_matrix &m = p.matrix;
    return p.groups == 1 || (!m.flat_block && (m.block_rows % 64 == 0 || m.block_rows >= m.n));
}

/* Byte products; x.codes lie as the kernels want them. `wide`: the kernels for many rows take them. */
static gatun_status multiply_bytes(int32_t device, TileLinear p, bool wide, const CodesOfX &x, const float *row_scales,
                                   bool integers, const CodesSpace &space, uint8_t *rest, const DeviceTraits &traits,
                                   cudaStream_t stream) {
    Epilogue &e = p.epilogue;
    const bool one_group = p.groups == 1;
    if (takes_dense(p, integers, x.block_scales != nullptr)) {
        float *w_scales = (float *)rest;
        place_row_scales<<<blocks_of(p.n), 256, 0, stream>>>(p, w_scales);
        DenseProduct d = {x.codes, x.ld, p.codes, p.steps * 64, e.y,      e.ldy, e.y_type,
                          p.m,     p.n,  p.k,     row_scales,   w_scales, true};
        if (blas_product(device, d, rest + space.w_scales, space.blas, stream) == GATUN_OK)
            return GATUN_OK; /* not every version has these scales */
    }
    e.x_scales = x.block_scales ? nullptr : row_scales;
    if (one_group) {
        e.w_scales = p.scales;
        e.w_scale_type = p.scale_type;
    }
#if GATUN_CUDA_HOPPER
    static_assert((int)BLAS_BYTES >= (int)GATUN_CUDA_SHARE_BYTES,
                  "what one product leaves has room where the other works");
    return wide ? launch_codes_wide(p, x, integers, traits.multiprocessors, rest, stream)
                : launch_codes(p, x, integers, traits.multiprocessors, stream);
#else
    return GATUN_UNSUPPORTED;
#endif
}

/* Products of codes as bfloat16, 16 rows at a time. */
static gatun_status multiply_widened(TileLinear p, int bits, const uint16_t *codes, int64_t row,
                                     const float *row_scales, uint32_t *scratch, const DeviceTraits &traits,
                                     cudaStream_t stream) {
    const int64_t m = p.m;
    const int size = p.epilogue.y_type == GATUN_F32 ? 4 : 2;
    for (int64_t first = 0; first < m; first += CHUNK_ROWS) {
        TileLinear part = p;
        part.m = m - first < CHUNK_ROWS ? m - first : CHUNK_ROWS;
        part.rows = {codes + first * row, GATUN_BF16, row, nullptr};
        Epilogue &e = part.epilogue;
        e.y = (uint8_t *)e.y + first * e.ldy * size;
        if (e.other)
            e.other = (const uint8_t *)e.other + first * e.ld_other * size;
        e.x_scales = row_scales ? row_scales + first : nullptr;
        GATUN_CUDA_TRY(bits == 4 ? launch_tiles<4>(part, scratch, traits, stream)
                                 : launch_tiles<8>(part, scratch, traits, stream));
    }
    return GATUN_OK;
}

void quantize_widened(const XRows &x, int64_t m, int64_t k, int32_t compute, uint16_t *codes, int64_t row,
                      float *row_scales, cudaStream_t stream) {
    XCodes to = {compute == GATUN_COMPUTE_I8,      true, codes, row, row_scales, nullptr, 0,
                 compute == GATUN_COMPUTE_F8_BLOCK};
    quantize_x<<<(unsigned)m, 256, 0, stream>>>(x, k, to);
}

void quantize_chunks(const GroupedRows &g, int32_t compute, void *codes, int64_t row, float *row_scales,
                     float *block_scales, cudaStream_t stream) {
    const int64_t rows = g.chunks * g.chunk_rows;
    XCodes to = {compute == GATUN_COMPUTE_I8,       false,  codes,     row,         row_scales, block_scales, rows,
                 compute == GATUN_COMPUTE_F8_BLOCK, g.plan, g.experts, g.chunk_rows};
    quantize_x<<<(unsigned)rows, 256, 0, stream>>>(g.x, g.k, to);
}

gatun_status linear_codes(int32_t device, const gatun_cuda_packed &packed, const TileLinear &p, const GivenX *given,
                          int32_t compute, uint8_t *workspace, cudaStream_t stream) {
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    const bool integers = compute == GATUN_COMPUTE_I8, blocks = compute == GATUN_COMPUTE_F8_BLOCK;
    const bool bytes = takes_bytes(packed, compute, p.m, traits.hopper);
    const CodesSpace space = space_of(packed, p.m, bytes, bytes);
    float *row_scales = (float *)(workspace + space.codes);
    const float *scales_of_rows = row_scales;
    float *block_scales = (float *)(workspace + space.codes + space.row_scales);
    uint8_t *rest = workspace + space.codes + space.row_scales + space.block_scales;
    CodesOfX codes = {workspace, space.row, bytes && blocks ? block_scales : nullptr, space.padded};
    if (!given) {
        XCodes to = {integers, !bytes, workspace, space.row, row_scales, block_scales, space.padded, blocks};
        quantize_x<<<(unsigned)p.m, 256, 0, stream>>>(p.rows, p.k, to);
    } else {
        const int64_t given_blocks = blocks ? (p.k + GATUN_CUDA_BLOCK_K - 1) / GATUN_CUDA_BLOCK_K : 1;
        if (bytes && given->ld % 16 == 0 && (uintptr_t)given->codes % 16 == 0) {
            codes.codes = given->codes, codes.ld = given->ld;
        } else if (bytes) {
            GATUN_CUDA_TRY(
                gatun_cuda_status(cudaMemcpy2DAsync(workspace, (size_t)space.row, given->codes, (size_t)given->ld,
                                                    (size_t)p.k, (size_t)p.m, cudaMemcpyDeviceToDevice, stream),
                                  "linear"));
        } else {
            dim3 grid(blocks_of(space.row), (unsigned)(p.m < 65535 ? p.m : 65535));
            widen_codes<<<grid, 256, 0, stream>>>(*given, p.m, p.k, space.row, (uint16_t *)workspace);
        }
        if (bytes && blocks)
            launch_place_scales(*given, p.m, given_blocks, space.padded, block_scales, stream);
        else if (!blocks && given->scale_row_stride == 1 && (uintptr_t)given->scales % 16 == 0)
            scales_of_rows = given->scales; /* as they are */
        else if (!blocks)
            launch_place_scales(*given, p.m, 1, 0, row_scales, stream);
    }
    if (packed.form == GATUN_CUDA_FORM_SOURCE) { /* codes of x by weights as they are, in floats */
        Epilogue epilogue = p.epilogue;
        epilogue.x_scales = blocks ? nullptr : scales_of_rows;
        return launch_linear_f32(packed, {workspace, GATUN_BF16, space.row, nullptr}, p.m, GATUN_I8, epilogue, stream);
    }
    if (bytes)
        return multiply_bytes(device, p, p.m > WIDE_ROWS && shares_scales(packed), codes, scales_of_rows, integers,
                              space, rest, traits, stream);
    return multiply_widened(p, packed.form == GATUN_CUDA_FORM_CODES4 ? 4 : 8, (const uint16_t *)workspace, space.row,
                            blocks ? nullptr : scales_of_rows, (uint32_t *)rest, traits, stream);
}

} // namespace gatun
