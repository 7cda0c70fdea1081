/*
 * linear with compute type BF16 on tensor-core tiles for 17 and more rows of x, 64 at a time.
 *
 * y^T = W * x^T as in linear_narrow.cuh. Here x is the larger traffic, so a block shares it: eight warps, four along N
 * with two tiles each and two along K, step through K together; x, laid out in the order of the operands, comes through
 * a ring of stages in shared memory. At this many rows it is cheaper to scale the weights, in float with one rounding,
 * than the sums.
 */
#ifndef GATUN_CUDA_LINEAR_WIDE_CUH
#define GATUN_CUDA_LINEAR_WIDE_CUH

#include "grouped.cuh"
#include "tiles.cuh"

namespace gatun {

enum { WIDE_WN = 4, WIDE_WK = 2, WIDE_RT = 2, WIDE_STAGES = 3, WIDE_PITCH = 17 };

constexpr int wide_shared_bytes(int nt) {
    int stages = 256 * 32 * 4 + WIDE_STAGES * WIDE_WK * nt * 1024;
    int sums = WIDE_WN * WIDE_WK * WIDE_RT * nt * 8 * WIDE_PITCH * 4;
    return stages > sums ? stages : sums;
}

/* Rows m0 to m - 1 of x and y, up to 8 * NT of them, which x has in order. GROUPS: 1: a step has one scale group, else
 * 0. */
template <int BITS, int NT, int GROUPS>
__device__ __forceinline__ void multiply_wide(const TileLinear &p, const uint4 *x, int64_t m0, int64_t m) {
    extern __shared__ uint32_t shared[];
    constexpr int WN = WIDE_WN, WK = WIDE_WK, RT = WIDE_RT, STAGES = WIDE_STAGES, PITCH = WIDE_PITCH, COLUMNS = NT * 8;
    constexpr int AHEAD = 2;
    constexpr int X_WORDS = WK * NT * 64; /* 16-byte words of a stage */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_k = warp % WK, warp_n = warp / WK;
    const int g = lane / 4, t = lane % 4;
    const int tiles = (int)p.tiles, steps = (int)p.steps, groups = (int)p.groups;
    const int rounds = (steps + WK - 1) / WK;
    const int tile = ((int)blockIdx.x * WN + warp_n) * RT;
    uint4 *stages = (uint4 *)(shared + 256 * 32);

    auto fetch_x = [&](int round) {
        int words = min(WK, steps - round * WK) * NT * 64;
        if (round < rounds)
            for (int i = threadIdx.x; i < words; i += 32 * WN * WK)
                copy_async<16>((uint32_t)__cvta_generic_to_shared(stages + round % STAGES * X_WORDS + i),
                               x + (int64_t)round * X_WORDS + i);
        copies_commit();
    };
    uint4 codes[AHEAD][RT][BITS / 4];
    float2 scales[AHEAD][RT];
    const CodeLoads<BITS, GROUPS == 1> loads(p, lane);
    const int groups_per_step = GROUPS ? GROUPS : p.groups_per_step;
    /* Of row g of the scale group that product s of a step is in. */
    auto scale_at = [&](int r, int step, int s) {
        int group = first_group<GROUPS>(step, p.steps_per_group_inverse, groups_per_step) + s * groups_per_step / 4;
        return (min(tile + r, tiles - 1) * groups + min(group, groups - 1)) * 8 + g;
    };
    auto load = [&](int i, int round) {
        const int step = round * WK + warp_k;
        if (step >= steps)
            return;
#pragma unroll
        for (int r = 0; r < RT; r++) { /* tiles past the last one are not stored */
            loads.load(codes[i][r],
                       loads.first + min(tile + r, tiles - 1) * loads.tile_bytes() + step * loads.STEP_BYTES);
            scales[i][r] = load_scales(p.scales, p.scale_type, scale_at(r, step, 0));
        }
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        fetch_x(i);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load(i, i);
    Table::fill(shared, p.table, BITS);
    __syncthreads();
    const Table table(shared);
    const bool affine = p.zeros || p.offsets;

    float acc[RT][NT][4] = {};
    for (int base = 0; base < rounds; base += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int round = base + i;
            if (round >= rounds)
                break;
            copies_wait<STAGES - 2>();
            __syncthreads();
            fetch_x(round + STAGES - 1);
            const int step = round * WK + warp_k;
            if (step < steps) {
                const uint4 *xs = stages + round % STAGES * X_WORDS + warp_k * NT * 64 + lane;
#pragma unroll
                for (int pair = 0; pair < 2; pair++) { /* products 2 * pair and 2 * pair + 1 share a word of x */
                    uint32_t a[2][RT][4];
#pragma unroll
                    for (int s = 2 * pair; s < 2 * pair + 2; s++) {
#pragma unroll
                        for (int r = 0; r < RT; r++) {
                            uint32_t *to = a[s % 2][r];
                            fragment<BITS>(to, codes[i][r], s, table);
                            if (GROUPS == 0 && s > 0)
                                scales[i][r] = load_scales(p.scales, p.scale_type, scale_at(r, step, s));
                            const float2 scale = scales[i][r];
                            float2 zero = make_float2(0.0f, 0.0f), offset = zero;
                            if (affine) {
                                const int at = scale_at(r, step, s);
                                zero = pair_or_zero(p.zeros, at), offset = pair_or_zero(p.offsets, at);
                            }
#pragma unroll
                            for (int e = 0; e < 4; e++) {
                                const float factor = e % 2 ? scale.y : scale.x;
                                const float first = __uint_as_float(to[e] << 16),
                                            second = __uint_as_float(to[e] & 0xFFFF0000);
                                if (affine) {
                                    const float z = e % 2 ? zero.y : zero.x, o = e % 2 ? offset.y : offset.x;
                                    to[e] = pair_bf16(fmaf(first - z, factor, o), fmaf(second - z, factor, o));
                                } else {
                                    to[e] = pair_bf16(first * factor, second * factor);
                                }
                            }
                        }
                    }
#pragma unroll
                    for (int j = 0; j < NT; j++) {
                        uint4 both = xs[j * 64 + pair * 32];
                        const uint32_t b[2][2] = {{both.x, both.y}, {both.z, both.w}};
#pragma unroll
                        for (int s = 0; s < 2; s++)
#pragma unroll
                            for (int r = 0; r < RT; r++)
                                mma16816(acc[r][j], a[s][r], b[s]);
                    }
                }
            }
            load(i, round + AHEAD);
        }
    }
    copies_wait<0>();
    __syncthreads(); /* the sums take the place of table and stages */
    float *sums = (float *)shared;
#pragma unroll
    for (int r = 0; r < RT; r++)
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int column = j * 8 + t * 2 + e % 2;
                sums[(((warp_n * RT + r) * WK + warp_k) * COLUMNS + column) * PITCH + g + e / 2 * 8] = acc[r][j][e];
            }
    __syncthreads();
    constexpr int ROWS = WN * RT * 16;
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += 32 * WN * WK) {
        int row = i % ROWS, column = i / ROWS;
        if (m0 + column >= m)
            break;
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < WK; k++)
            sum += sums[((row / 16 * WK + k) * COLUMNS + column) * PITCH + row % 16];
        int64_t n = (int64_t)blockIdx.x * ROWS + row;
        if (n < p.n)
            p.epilogue.store(m0 + column, n, sum);
    }
}

template <int BITS, int NT, int GROUPS>
__global__ void __launch_bounds__(32 * WIDE_WN * WIDE_WK) linear_wide(const __grid_constant__ TileLinear p) {
    multiply_wide<BITS, NT, GROUPS>(p, p.x + (int64_t)blockIdx.y * p.steps * NT * 64, (int64_t)blockIdx.y * NT * 8,
                                    p.m);
}

/* The same for chunks of rows, each with a weight of its own; x: of one chunk after the other. */
template <int BITS, int NT, int GROUPS>
__global__ void __launch_bounds__(32 * WIDE_WN * WIDE_WK)
    linear_wide_grouped(const GroupedExpert *experts, const GroupedChunk *chunks, const uint4 *x, Epilogue epilogue) {
    __shared__ TileLinear p;
    const GroupedChunk chunk = chunks[blockIdx.y];
    if (chunk.expert < 0)
        return;
    if (threadIdx.x == 0) {
        p = experts[chunk.expert].tiles;
        p.epilogue = epilogue;
        p.epilogue.bias = experts[chunk.expert].bias;
    }
    __syncthreads();
    multiply_wide<BITS, NT, GROUPS>(p, x + (int64_t)blockIdx.y * p.steps * NT * 64, chunk.row, chunk.row + chunk.rows);
}

} // namespace gatun

#endif
