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

#include "tiles.cuh"

namespace gatun {

enum { WIDE_WN = 4, WIDE_WK = 2, WIDE_RT = 2, WIDE_STAGES = 3, WIDE_PITCH = 17 };

constexpr int wide_shared_bytes(int nt) {
    int stages = 256 * 32 * 4 + WIDE_STAGES * WIDE_WK * nt * 1024;
    int sums = WIDE_WN * WIDE_WK * WIDE_RT * nt * 8 * WIDE_PITCH * 4;
    return stages > sums ? stages : sums;
}

__device__ inline void copy_async(uint4 *to, const uint4 *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from));
}

template <int BITS, int NT, int GROUPS, bool AFFINE>
__global__ void __launch_bounds__(32 * WIDE_WN * WIDE_WK) linear_wide(const __grid_constant__ TileLinear p) {
    extern __shared__ uint32_t shared[];
    constexpr int WN = WIDE_WN, WK = WIDE_WK, RT = WIDE_RT, STAGES = WIDE_STAGES, PITCH = WIDE_PITCH, COLUMNS = NT * 8;
    constexpr int WORDS = 8 * BITS, AHEAD = 2;
    constexpr int X_WORDS = WK * NT * 64; /* 16-byte words of a stage */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_k = warp % WK, warp_n = warp / WK;
    const int g = lane / 4, t = lane % 4;
    const int tiles = (int)p.tiles, steps = (int)p.steps, groups = (int)p.groups;
    const int rounds = (steps + WK - 1) / WK;
    const int tile = ((int)blockIdx.x * WN + warp_n) * RT;
    const int64_t m0 = (int64_t)blockIdx.y * COLUMNS;
    const uint4 *x = p.x + (int64_t)blockIdx.y * steps * NT * 64;
    uint4 *stages = (uint4 *)(shared + 256 * 32);
    const Table table(shared);

    auto fetch_x = [&](int round) {
        int words = min(WK, steps - round * WK) * NT * 64;
        if (round < rounds)
            for (int i = threadIdx.x; i < words; i += 32 * WN * WK)
                copy_async(stages + round % STAGES * X_WORDS + i, x + (int64_t)round * X_WORDS + i);
        asm volatile("cp.async.commit_group;");
    };
    Step<BITS, GROUPS> item[AHEAD][RT];
    auto load = [&](Step<BITS, GROUPS> *to, int round) {
        int step = round * WK + warp_k, group = group_of<GROUPS>(step, p.steps_per_group_inverse);
#pragma unroll
        for (int r = 0; r < RT; r++)
            to[r].load(p, p.codes + ((int64_t)(tile + r) * steps + step) * WORDS + lane,
                       ((tile + r) * groups + group) * 16 + g, groups - group, tile + r < tiles && step < steps);
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++)
        fetch_x(i);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load(item[i], i);
    Table::fill(shared, p.table, BITS);

    float acc[RT][NT][4] = {};
    for (int base = 0; base < rounds; base += AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int round = base + i;
            if (round >= rounds)
                break;
            asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
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
                        const int group = GROUPS == 4 ? s : GROUPS == 2 ? s / 2 : 0;
#pragma unroll
                        for (int r = 0; r < RT; r++) {
                            uint32_t *to = a[s % 2][r];
                            fragment<BITS>(to, item[i][r].q, s, table);
                            Affine<AFFINE> affine;
                            if (AFFINE) {
                                int at = min(group_of<GROUPS>(step, p.steps_per_group_inverse) + group, groups - 1);
                                affine.load(p, ((tile + r) * groups + at) * 16 + g, tile + r < tiles);
                            }
#pragma unroll
                            for (int e = 0; e < 4; e++) {
                                float scale = item[i][r].scales.value(group, e % 2, p.scale_type);
                                float first = __uint_as_float(to[e] << 16),
                                      second = __uint_as_float(to[e] & 0xFFFF0000);
                                if (AFFINE)
                                    to[e] = pair_bf16(fmaf(first - affine.zero[e % 2], scale, affine.offset[e % 2]),
                                                      fmaf(second - affine.zero[e % 2], scale, affine.offset[e % 2]));
                                else
                                    to[e] = pair_bf16(first * scale, second * scale);
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
            load(item[i], round + AHEAD);
        }
    }
    asm volatile("cp.async.wait_all;");
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
        if (m0 + column >= p.m)
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

} // namespace gatun

#endif
