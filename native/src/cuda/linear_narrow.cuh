/*
 * linear with compute type BF16 on tensor-core tiles for up to 16 rows of x: what it costs is to read the weight.
 *
 * y^T = W * x^T: a tile of 16 rows of W is the A operand of mma.m16n8k16, eight rows of x are the B operand, so that
 * one row of x costs what eight do, which is less than reading the weight. A block of 16 warps takes a tile after the
 * other; its warps share out the steps along K, each with the loads of its next ones in flight across tiles, and meet
 * in shared memory at a tile's end. The scale multiplies the sums of its group, so that a step of 64 k costs four
 * multiplications a lane and group, not one a weight; zero points and offsets multiply the sums of x over the group,
 * which one more product with ones gives.
 *
 * DIRECT: x is bfloat16 as it came, and a warp that meets the same columns in every tile keeps them in registers.
 * Otherwise x was laid out in the order of the operands.
 */
#ifndef GATUN_CUDA_LINEAR_NARROW_CUH
#define GATUN_CUDA_LINEAR_NARROW_CUH

#include "tiles.cuh"

namespace gatun {

/* The B operands of one step for eight rows of x: for each product s registers 2s and 2s + 1. */
struct StepOfX {
    uint32_t b[8];

    /* Pairs of bfloat16 at even columns of a row; zero beyond M and K. */
    __device__ void gather(const uint16_t *row, int columns, bool inside) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int at = i / 2 * 16 + i % 2 * 8;
            b[i] = inside && at < columns ? __ldg((const uint32_t *)(row + at)) : 0;
        }
    }
    __device__ void load(const uint4 *laid_out) {
        uint4 low = __ldg(laid_out), high = __ldg(laid_out + 32);
        b[0] = low.x, b[1] = low.y, b[2] = low.z, b[3] = low.w;
        b[4] = high.x, b[5] = high.y, b[6] = high.z, b[7] = high.w;
    }
};

enum { NARROW_WARPS = 16, NARROW_AHEAD = 2, NARROW_STEPS = 2, NARROW_PITCH = 17 };

constexpr int narrow_shared_bytes(int nt) { return 256 * 32 * 4 + 2 * NARROW_WARPS * nt * 8 * NARROW_PITCH * 4; }

template <int BITS, int NT, int GROUPS, bool DIRECT, bool AFFINE>
__global__ void __launch_bounds__(32 * NARROW_WARPS) linear_narrow(const __grid_constant__ TileLinear p) {
    extern __shared__ uint32_t shared[];
    constexpr int AHEAD = NARROW_AHEAD, WARPS = NARROW_WARPS, PITCH = NARROW_PITCH, COLUMNS = NT * 8;
    constexpr int WORDS = 8 * BITS; /* 16-byte words of a step */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int tiles = (int)p.tiles, steps = (int)p.steps, groups = (int)p.groups;
    /* A warp's item is two steps in a row; AHEAD of them make a round. */
    constexpr int STEPS = NARROW_STEPS, STRIDE = WARPS * STEPS;
    const int rounds = (steps + AHEAD * STRIDE - 1) / (AHEAD * STRIDE), last = rounds * AHEAD * STRIDE;
    float *sums = (float *)(shared + 256 * 32);
    const Table table(shared);

    /* Where the loads are: AHEAD items before the products. */
    int load_tile = (int)blockIdx.x, load_step = warp * STEPS, load_scale = load_tile * groups * 16 + g;
    const uint4 *load_codes = p.codes + ((int64_t)load_tile * steps + load_step) * WORDS + lane;
    const int64_t to_next_tile = ((int64_t)gridDim.x * steps - last) * WORDS;
    Step<BITS, GROUPS> item[AHEAD][STEPS];
    auto load_next = [&](Step<BITS, GROUPS> *to) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            int group = group_of<GROUPS>(load_step + i, p.steps_per_group_inverse);
            to[i].load(p, load_codes + i * WORDS, load_scale + group * 16, groups - group,
                       load_tile < tiles && load_step + i < steps);
        }
        load_step += STRIDE;
        load_codes += STRIDE * WORDS;
        if (load_step >= last) {
            load_step = warp * STEPS;
            load_tile += (int)gridDim.x;
            load_scale += (int)gridDim.x * groups * 16;
            load_codes += to_next_tile;
        }
    };
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        load_next(item[i]);

    const uint4 *laid_out = p.x + lane;
    const uint16_t *row = (const uint16_t *)p.rows.data + (int64_t)g * p.rows.ld + t * 2;
    const bool row_inside = g < p.m;
    StepOfX kept[DIRECT ? AHEAD : 1][STEPS];
    auto gather = [&](StepOfX &to, int step) { to.gather(row + step * 64, (int)p.k - step * 64 - t * 2, row_inside); };
    if (DIRECT && rounds == 1)
#pragma unroll
        for (int i = 0; i < AHEAD * STEPS; i++)
            gather(kept[DIRECT ? i / STEPS : 0][i % STEPS], i / STEPS * STRIDE + warp * STEPS + i % STEPS);

    Table::fill(shared, p.table, BITS);
    __syncthreads();

    auto multiply = [&](float(*acc)[4], const Step<BITS, GROUPS> &item, const StepOfX &direct, int step, int tile) {
        /* Two chains of products, so that one need not wait for the other's latency. */
        float part[2][NT][4] = {}, xsum[NT][4] = {};
#pragma unroll
        for (int s = 0; s < 4; s++) {
            uint32_t a[4];
            fragment<BITS>(a, item.q, s, table);
#pragma unroll
            for (int j = 0; j < NT; j++) {
                uint32_t b[2] = {direct.b[2 * s], direct.b[2 * s + 1]};
                if (!DIRECT) {
                    uint4 both = __ldg(laid_out + step * (NT * 64) + j * 64 + s / 2 * 32);
                    b[0] = s % 2 ? both.z : both.x, b[1] = s % 2 ? both.w : both.y;
                }
                mma16816(part[s % 2][j], a, b);
                if (AFFINE) {
                    const uint32_t ones[4] = {0x3F803F80, 0x3F803F80, 0x3F803F80, 0x3F803F80};
                    mma16816(xsum[j], ones, b);
                }
            }
            if (GROUPS == 4 || (GROUPS == 2 && s % 2 == 1) || s == 3) {
                const int group = GROUPS == 4 ? s : GROUPS == 2 ? s / 2 : 0;
                const float scale[2] = {item.scales.value(group, 0, p.scale_type),
                                        item.scales.value(group, 1, p.scale_type)};
                Affine<AFFINE> affine;
                if (AFFINE) {
                    int at = min(group_of<GROUPS>(step, p.steps_per_group_inverse) + group, groups - 1);
                    affine.load(p, (tile * groups + at) * 16 + g, true);
                }
#pragma unroll
                for (int j = 0; j < NT; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        float sum = GROUPS == 4 ? part[s % 2][j][e] : part[0][j][e] + part[1][j][e];
                        acc[j][e] = fmaf(sum, scale[e / 2], acc[j][e]);
                        if (AFFINE)
                            acc[j][e] =
                                fmaf(xsum[j][e], affine.offset[e / 2] - scale[e / 2] * affine.zero[e / 2], acc[j][e]);
                        part[0][j][e] = part[1][j][e] = xsum[j][e] = 0.0f;
                    }
            }
        }
    };

    int turn = 0;
    for (int tile = (int)blockIdx.x; tile < tiles; tile += (int)gridDim.x) {
        float acc[NT][4] = {};
        for (int round = 0; round < rounds; round++) {
#pragma unroll
            for (int i = 0; i < AHEAD; i++) {
#pragma unroll
                for (int u = 0; u < STEPS; u++) {
                    const int step = (round * AHEAD + i) * STRIDE + warp * STEPS + u;
                    StepOfX &direct = kept[DIRECT ? i : 0][u];
                    if (DIRECT && rounds > 1)
                        gather(direct, step);
                    if (step < steps)
                        multiply(acc, item[i][u], direct, step, tile);
                }
                load_next(item[i]);
            }
        }
        /* The two halves of `sums` take turns, so that warps may go on while others still add. */
        float *half = sums + turn * WARPS * COLUMNS * PITCH;
        turn ^= 1;
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                half[(warp * COLUMNS + j * 8 + t * 2 + e % 2) * PITCH + g + e / 2 * 8] = acc[j][e];
        __syncthreads();
        int i = (int)threadIdx.x;
        if (i < 16 * COLUMNS && i / 16 < p.m) {
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < WARPS; k++)
                sum += half[(k * COLUMNS + i / 16) * PITCH + i % 16];
            int64_t n = (int64_t)tile * 16 + i % 16;
            if (n < p.n)
                p.epilogue.store(i / 16, n, sum);
        }
    }
}

} // namespace gatun

#endif
