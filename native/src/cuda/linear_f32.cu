/*
 * linear with compute types F32 and BF16 for every form and encoding: y = x * W^T with exact weights, or with x and the
 * weights rounded to bfloat16, float products and sums.
 *
 * A block of 256 threads computes 64 rows of W by 64 rows of x, 4 x 4 a thread, in steps of 16 k: each step decodes a
 * tile of W by the definition (packed_value) and a tile of x into shared memory. It is the path for what no faster
 * kernel takes.
 */
#include "grouped.cuh"

namespace gatun {

enum { F32_TILE = 64, F32_STEP = 16 };

/* Rows m0 to m - 1 of x and y, up to 64 of them. */
__device__ inline void multiply_f32(const gatun_cuda_packed &p, const XRows &x, int64_t m0, int64_t m, int32_t operands,
                                    const Epilogue &epilogue) {
    __shared__ float ws[F32_STEP][F32_TILE + 4];
    __shared__ float xs[F32_STEP][F32_TILE + 4];
    int64_t n0 = (int64_t)blockIdx.x * F32_TILE;
    int tn = threadIdx.x % 16 * 4, tm = threadIdx.x / 16 * 4;
    float acc[4][4] = {};
    for (int64_t k0 = 0; k0 < p.matrix.k; k0 += F32_STEP) {
        for (int i = threadIdx.x; i < F32_TILE * F32_STEP; i += 256) {
            int64_t row = i / F32_STEP, column = k0 + i % F32_STEP;
            bool inside = column < p.matrix.k;
            float w = 0.0f;
            if (inside && n0 + row < p.matrix.n)
                w = packed_value(p, n0 + row, column, operands != GATUN_I8);
            ws[i % F32_STEP][row] = round_to(operands, w);
            float v = 0.0f;
            if (inside && m0 + row < m) {
                v = load_number(x.type, x.data, (m0 + row) * x.ld + column);
                if (x.multiplier)
                    v *= x.multiplier[column];
            }
            xs[i % F32_STEP][row] = round_to(operands, v);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < F32_STEP; k++) {
            float4 w = *(const float4 *)&ws[k][tn], v = *(const float4 *)&xs[k][tm];
            const float wv[4] = {w.x, w.y, w.z, w.w}, xv[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    acc[i][j] = fmaf(xv[i], wv[j], acc[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (m0 + tm + i < m && n0 + tn + j < p.matrix.n)
                epilogue.store(m0 + tm + i, n0 + tn + j, acc[i][j]);
}

__global__ void __launch_bounds__(256)
    linear_f32(const __grid_constant__ gatun_cuda_packed p, XRows x, int64_t m, int32_t operands, Epilogue epilogue) {
    multiply_f32(p, x, (int64_t)blockIdx.y * F32_TILE, m, operands, epilogue);
}

/* The same for chunks of rows, each with a weight of its own. */
__global__ void __launch_bounds__(256) linear_f32_grouped(const GroupedExpert *experts, const GroupedChunk *chunks,
                                                          XRows x, int32_t operands, Epilogue epilogue) {
    const GroupedChunk chunk = chunks[blockIdx.y];
    if (chunk.expert < 0)
        return;
    const GroupedExpert &expert = experts[chunk.expert];
    epilogue.bias = expert.bias;
    if (operands != GATUN_I8) /* then x has it already */
        x.multiplier = expert.multiplier;
    multiply_f32(expert.packed, x, chunk.row, chunk.row + chunk.rows, operands, epilogue);
}

gatun_status launch_linear_f32(const gatun_cuda_packed &packed, const XRows &x, int64_t m, int32_t operands,
                               const Epilogue &epilogue, cudaStream_t stream) {
    int64_t down = (m + F32_TILE - 1) / F32_TILE;
    if (down > 65535)
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: found %lld rows, expected at most %d", (long long)m,
                               65535 * F32_TILE);
    dim3 grid((unsigned)((packed.matrix.n + F32_TILE - 1) / F32_TILE), (unsigned)down);
    linear_f32<<<grid, 256, 0, stream>>>(packed, x, m, operands, epilogue);
    return GATUN_OK;
}

gatun_status launch_grouped_f32(const GroupedRows &g, int32_t operands, cudaStream_t stream) {
    dim3 grid((unsigned)((g.n + F32_TILE - 1) / F32_TILE), (unsigned)g.chunks);
    linear_f32_grouped<<<grid, 256, 0, stream>>>(g.experts, g.plan, g.x, operands, g.epilogue);
    return GATUN_OK;
}

} // namespace gatun
