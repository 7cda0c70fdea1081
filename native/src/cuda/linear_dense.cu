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

/* Any packed weight, an element a thread. */
__global__ void __launch_bounds__(256) dequantize_packed(const __grid_constant__ gatun_cuda_packed p, uint16_t *out) {
    int64_t column = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (column >= p.matrix.k)
        return;
    for (int64_t row = blockIdx.y; row < p.matrix.n; row += gridDim.y)
        out[row * p.matrix.k + column] = to_bf16(packed_value(p, row, column));
}

/* Tiles to rows of bfloat16: a warp a step, its 16 x 64 values through shared memory, so that it stores whole lines. */
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
    for (int64_t item = (int64_t)blockIdx.x * 8 + warp; item < items; item += (int64_t)gridDim.x * 8) {
        const int64_t tile = item / steps, step = item % steps;
        uint4 q[BITS / 4];
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            q[i] = __ldcs(p.codes + item * (8 * BITS) + 32 * i + lane);
#pragma unroll
        for (int s = 0; s < 4; s++) {
            const int64_t group = min((step * 64 + 16 * s) / p.group, p.groups - 1);
            const int64_t at = (tile * p.groups + group) * 16 + g;
            float scale[2], zero[2] = {0.0f, 0.0f}, offset[2] = {0.0f, 0.0f};
#pragma unroll
            for (int r = 0; r < 2; r++) {
                scale[r] = load_plain(p.scale_type, p.scales, at + 8 * r);
                if (p.zeros)
                    zero[r] = p.zeros[at + 8 * r];
                if (p.offsets)
                    offset[r] = p.offsets[at + 8 * r];
            }
#pragma unroll
            for (int i = 0; i < 4; i++) { /* pairs: row g or g + 8, k 2t or 2t + 8 */
                uint32_t two =
                    BITS == 4 ? word_of(q[0], s) >> 8 * i : word_of(q[s / 2], s % 2 * 2 + i / 2) >> 16 * (i % 2);
                float first = BITS == 4 ? values[(two & 15) * 32 + lane] : values[two & 255];
                float second = BITS == 4 ? values[(two >> 4 & 15) * 32 + lane] : values[two >> 8 & 255];
                stage[warp][(g + i % 2 * 8) * PITCH + s * 8 + i / 2 * 4 + t] =
                    pair_bf16(fmaf(first - zero[i % 2], scale[i % 2], offset[i % 2]),
                              fmaf(second - zero[i % 2], scale[i % 2], offset[i % 2]));
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
        dim3 grid((unsigned)((k + 255) / 256), (unsigned)(n < 65535 ? n : 65535));
        dequantize_packed<<<grid, 256, 0, stream>>>(p, w);
    }
    const void *rows_of_x = x.data;
    if (x.type != GATUN_BF16 || x.ld != k || x.multiplier) {
        round_x<<<(unsigned)((m * k + 255) / 256), 256, 0, stream>>>(x, m, k, xb);
        rows_of_x = xb;
    }
    return blas_bf16(device, rows_of_x, w, epilogue.y, epilogue.y_type, epilogue.ldy, m, n, k,
                     workspace + sizes.w_bytes + sizes.x_bytes, sizes.blas_bytes, stream);
}

} // namespace gatun
