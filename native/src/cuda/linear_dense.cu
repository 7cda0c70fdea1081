/*
 * linear with compute type BF16 for many rows of x: the weight is dequantized to bfloat16 once and multiplied as a
 * dense matrix by cuBLASLt.
 */
#include "tiles.cuh"

namespace gatun {

static int64_t align_up(int64_t v) {
    return (v + GATUN_CUDA_ALIGNMENT - 1) / GATUN_CUDA_ALIGNMENT * GATUN_CUDA_ALIGNMENT;
}

/* Dequantized weights and x in bfloat16, for the dense product. */
struct Dense {
    int64_t w_bytes, x_bytes, blas_bytes;
    int64_t total() const { return w_bytes + x_bytes + blas_bytes; }
};

static Dense dense_of(const gatun_cuda_packed &p, int64_t m) {
    return {align_up(p.matrix.n * p.matrix.k * 2), align_up(m * p.matrix.k * 2), 32 << 20};
}

__global__ void __launch_bounds__(256) round_x(XRows x, int64_t m, int64_t k, uint16_t *out) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= m * k)
        return;
    float v = load_number(x.type, x.data, at / k * x.ld + at % k);
    out[at] = to_bf16(x.multiplier ? v * x.multiplier[at % k] : v);
}

/* Packed codes to rows of bfloat16: a warp a step of a tile, its 16 x 64 values through shared memory, so that it
 * stores whole lines. */
template <int BITS>
__global__ void __launch_bounds__(256) dequantize_tiles(const __grid_constant__ TileLinear p, uint16_t *out) {
    constexpr int PITCH =
        36; /* words of a row of 64: 16 bytes more, so that the eight rows of a store differ in banks */
    __shared__ float values[BITS == 4 ? 16 * 32 : 256];
    __shared__ uint32_t stage[8][16 * PITCH];
    for (int i = threadIdx.x; i < (int)(sizeof values / 4); i += 256)
        values[i] = p.table[BITS == 4 ? i / 32 : i];
    __syncthreads();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int64_t steps = p.steps, items = p.tiles * steps;
    const CodeLoads<BITS, true> loads(p, lane);
    for (int64_t item = (int64_t)blockIdx.x * 8 + warp; item < items; item += (int64_t)gridDim.x * 8) {
        const int64_t tile = item / steps, step = item % steps;
        uint4 q[BITS / 4];
        loads.load(q, loads.first + tile * loads.tile_bytes() + step * loads.STEP_BYTES);
#pragma unroll
        for (int s = 0; s < 4; s++) {
            /* 4 bits: the k of product s; 8 bits: those of lane t. */
            const int first = BITS == 4 ? 16 * s : 16 * t;
            const int64_t group = min((step * 64 + first) / p.group, p.groups - 1);
            const uint32_t pair = (uint32_t)(tile * p.groups + group) * 8 + g;
            const float2 scale = load_scales(p.scales, p.scale_type, pair);
            const float2 zero = pair_or_zero(p.zeros, pair), offset = pair_or_zero(p.offsets, pair);
#pragma unroll
            for (int i = 0; i < 4; i++) { /* pairs of row g (even) or g + 8 */
                const bool odd = i % 2;
                uint32_t two = BITS == 4 ? word_of(q[0], s) >> 8 * i : word_of(q[i % 2], s) >> 16 * (i / 2);
                float first_value = BITS == 4 ? values[(two & 15) * 32 + lane] : values[two & 255];
                float second_value = BITS == 4 ? values[(two >> 4 & 15) * 32 + lane] : values[two >> 8 & 255];
                const float z = odd ? zero.y : zero.x, f = odd ? scale.y : scale.x, o = odd ? offset.y : offset.x;
                stage[warp][(g + i % 2 * 8) * PITCH + column_of(BITS == 8, false, s, t, i / 2, 0) / 2] =
                    pair_bf16(fmaf(first_value - z, f, o), fmaf(second_value - z, f, o));
            }
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int64_t row = tile * 16 + i * 4 + lane / 8, column = step * 64 + lane % 8 * 8;
            if (row < p.n && column < p.k) /* K is a multiple of eight here */
                *(uint4 *)(out + row * p.k + column) =
                    *(const uint4 *)&stage[warp][(i * 4 + lane / 8) * PITCH + lane % 8 * 4];
        }
        __syncwarp();
    }
}

int64_t dense_bytes(const gatun_cuda_packed &p, int64_t m) { return dense_of(p, m).total(); }

gatun_status linear_dense(int32_t device, const gatun_cuda_packed &p, const TileLinear *tiles, const XRows &x,
                          int64_t m, const Epilogue &epilogue, uint8_t *workspace, cudaStream_t stream) {
    int64_t n = p.matrix.n, k = p.matrix.k;
    Dense sizes = dense_of(p, m);
    uint16_t *w = (uint16_t *)workspace, *xb = (uint16_t *)(workspace + sizes.w_bytes);
    if (tiles) {
        int64_t items = (tiles->tiles * tiles->steps + 7) / 8;
        dim3 grid((unsigned)(items < 132 * 64 ? items : 132 * 64));
        if (p.form == GATUN_CUDA_FORM_CODES4)
            dequantize_tiles<4><<<grid, 256, 0, stream>>>(*tiles, w);
        else
            dequantize_tiles<8><<<grid, 256, 0, stream>>>(*tiles, w);
    } else {
        GATUN_CUDA_TRY(gatun_cuda_dequantize(device, &p.matrix, 0, n, (gatun_cuda_ptr)(uintptr_t)w, GATUN_BF16, k,
                                             (gatun_cuda_stream)(uintptr_t)stream));
    }
    const void *rows_of_x = x.data;
    if (x.type != GATUN_BF16 || x.ld != k || x.multiplier) {
        round_x<<<(unsigned)((m * k + 255) / 256), 256, 0, stream>>>(x, m, k, xb);
        rows_of_x = xb;
    }
    DenseProduct d = {rows_of_x, k, w, k, epilogue.y, epilogue.ldy, epilogue.y_type, m, n, k, nullptr, nullptr, false};
    return blas_product(device, d, workspace + sizes.w_bytes + sizes.x_bytes, sizes.blas_bytes, stream);
}

} // namespace gatun
