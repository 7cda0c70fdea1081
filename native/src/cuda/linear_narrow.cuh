/*
 * linear with compute type BF16 on packed codes for up to 16 rows of x: what it costs is to read the weight.
 *
 * y^T = W * x^T: a tile of 16 rows of W is the A operand of mma.m16n8k16, eight rows of x are the B operand, so that
 * one row of x costs what eight do, which is less than reading the weight. A block of 16 warps takes two tiles at a
 * time, all of its tiles side by side in memory; a warp's share of them is a run of four steps along K, on its way
 * through a ring in shared memory while the one before is multiplied. The sums of all warps meet in shared memory after
 * several tiles. The scale multiplies the sums of its group, so that a step of 64 k costs four multiplications a lane
 * and group, not one a weight; zero points and offsets multiply the sums of x over the group, which one more product
 * with ones gives.
 *
 * NT = 1: up to eight rows of x, bfloat16 pairs as they came; a warp that meets the same columns in every tile keeps
 * them in registers. NT = 2: x was laid out in the order of the operands.
 */
#ifndef GATUN_CUDA_LINEAR_NARROW_CUH
#define GATUN_CUDA_LINEAR_NARROW_CUH

#include "grouped.cuh"
#include "tiles.cuh"

namespace gatun {

enum { NARROW_WARPS = 16, NARROW_STEPS = 4, NARROW_PITCH = 17 };

/* Tiles at a time. */
__host__ __device__ constexpr int narrow_tiles(int bits) { return bits == 4 ? 2 : 1; }
__host__ __device__ constexpr int narrow_ring_bytes(int bits, int groups) {
    return NARROW_STEPS * narrow_tiles(bits) * (128 * bits + (groups ? 256 : 0));
}
__host__ __device__ constexpr int narrow_sums_bytes(int64_t rows) {
    return (int)rows * NARROW_PITCH * 4;
} /* of a tile and warp */

/* The B operands of one step for eight rows of x: for each product s registers 2s and 2s + 1. */
template <int BITS, int GROUPS> struct StepOfX {
    uint32_t b[8];

    /* Pairs of bfloat16 at even columns of a row; zero beyond M and K. */
    __device__ void gather(const uint16_t *row, int columns, int t, bool inside) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int at = column_of(BITS == 8, GROUPS != 1, i / 2, t, i % 2, 0);
            b[i] = inside && at < columns ? __ldg((const uint32_t *)(row + at)) : 0;
        }
    }
};

/* The share of block blockIdx.x of gridDim.x. GROUPS: scale groups of a step, 1 (scales of any type) or 2 (16-bit
 * scales), without zero points and offsets; 0: all else. */
template <int BITS, int NT, int GROUPS>
__device__ __forceinline__ void multiply_narrow(const TileLinear &p, int slots) {
    extern __shared__ uint32_t shared[];
    constexpr int STEPS = NARROW_STEPS, TILES = narrow_tiles(BITS), PITCH = NARROW_PITCH;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, g = lane / 4, t = lane % 4;
    const int steps = (int)p.steps, groups = (int)p.groups, m = (int)p.m;
    const int first = (int)(p.tiles * blockIdx.x / gridDim.x), last = (int)(p.tiles * (blockIdx.x + 1) / gridDim.x);
    const int rounds = (steps + warps * STEPS - 1) / (warps * STEPS);
    const int groups_per_step = GROUPS ? GROUPS : p.groups_per_step;
    uint8_t *rings = (uint8_t *)shared + TABLE_BYTES;
    float *sums = (float *)(rings + warps * narrow_ring_bytes(BITS, GROUPS));

    /* Slot u * TILES + r of the ring: step u of the warp's run, tile r. */
    const Ring<BITS, GROUPS> ring(rings + warp * narrow_ring_bytes(BITS, GROUPS), lane);
    const CodeLoads<BITS, GROUPS == 1> loads(p, lane);
    const int64_t tile_bytes = loads.tile_bytes(), to_next_run = (int64_t)warps * STEPS * loads.STEP_BYTES;
    int load_tile = first, load_step = warp * STEPS;
    const uint8_t *load_from = loads.first + load_tile * tile_bytes + load_step * loads.STEP_BYTES;
    auto load = [&](int u) {
        if (load_step < steps) {
            const int group = first_group<GROUPS>(load_step + u, p.steps_per_group_inverse);
#pragma unroll
            for (int r = 0; r < TILES; r++)
                if (load_tile + r < last)
                    ring.copy(u * TILES + r, loads, load_from + r * tile_bytes + u * loads.STEP_BYTES, p.scales,
                              p.scale_type, ((load_tile + r) * groups + group) * 8 + g);
        }
        copies_commit();
    };
    auto advance = [&] {
        load_step += warps * STEPS;
        load_from += to_next_run;
        if (load_step >= rounds * warps * STEPS) {
            load_step = warp * STEPS;
            load_from += TILES * tile_bytes - rounds * to_next_run;
            load_tile += TILES;
        }
    };
#pragma unroll
    for (int u = 0; u < STEPS; u++)
        load(u);
    advance();

    const uint16_t *row = (const uint16_t *)p.rows.data + (int64_t)g * p.rows.ld;
    const bool row_inside = g < m;
    StepOfX<BITS, GROUPS> kept[NT == 1 ? STEPS : 1];
    auto gather = [&](StepOfX<BITS, GROUPS> &to, int step) {
        to.gather(row + step * 64, (int)p.k - step * 64, t, row_inside);
    };
    if (NT == 1 && rounds == 1)
#pragma unroll
        for (int u = 0; u < STEPS; u++)
            gather(kept[NT == 1 ? u : 0], warp * STEPS + u);

    Table::fill(shared, p.table, BITS);
    __syncthreads();
    const Table table(shared);

    auto multiply = [&](float(*acc)[NT][4], int u, const uint32_t *direct, int step, int tile) {
        float part[TILES][NT][4] = {}, xsum[NT][4] = {};
        uint4 codes[TILES][BITS / 4];
        float2 scales[TILES][GROUPS ? GROUPS : 1];
#pragma unroll
        for (int r = 0; r < TILES; r++) {
            ring.codes(u * TILES + r, codes[r]);
            if (GROUPS)
                ring.scales(u * TILES + r, p.scale_type, scales[r]);
        }
#pragma unroll
        for (int s = 0; s < 4; s++) {
            uint32_t a[TILES][4];
#pragma unroll
            for (int r = 0; r < TILES; r++)
                fragment<BITS>(a[r], codes[r], s, table);
#pragma unroll
            for (int j = 0; j < NT; j++) {
                uint32_t b[2];
                if (NT == 1) {
                    b[0] = direct[2 * s], b[1] = direct[2 * s + 1];
                } else {
                    uint4 both = __ldg(p.x + (step * NT + j) * 64 + s / 2 * 32 + lane);
                    b[0] = s % 2 ? both.z : both.x, b[1] = s % 2 ? both.w : both.y;
                }
#pragma unroll
                for (int r = 0; r < TILES; r++)
                    mma16816(part[r][j], a[r], b);
                if (GROUPS == 0) {
                    const uint32_t ones[4] = {0x3F803F80, 0x3F803F80, 0x3F803F80, 0x3F803F80};
                    mma16816(xsum[j], ones, b);
                }
            }
            if (((s + 1) * groups_per_step & 3) != 0)
                continue;
#pragma unroll
            for (int r = 0; r < TILES; r++) {
                float2 scale, shift = make_float2(0.0f, 0.0f);
                if (GROUPS) {
                    scale = scales[r][GROUPS == 2 ? s / 2 : 0];
                } else {
                    const int group =
                        first_group<0>(step, p.steps_per_group_inverse, groups_per_step) + s * groups_per_step / 4;
                    const int pair = (min(tile + r, last - 1) * groups + min(group, groups - 1)) * 8 + g;
                    scale = load_scales(p.scales, p.scale_type, pair);
                    const float2 zero = pair_or_zero(p.zeros, pair), offset = pair_or_zero(p.offsets, pair);
                    shift = make_float2(offset.x - scale.x * zero.x, offset.y - scale.y * zero.y);
                }
#pragma unroll
                for (int j = 0; j < NT; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        acc[r][j][e] = fmaf(part[r][j][e], e < 2 ? scale.x : scale.y, acc[r][j][e]);
                        if (GROUPS == 0)
                            acc[r][j][e] = fmaf(xsum[j][e], e < 2 ? shift.x : shift.y, acc[r][j][e]);
                        part[r][j][e] = 0.0f;
                    }
            }
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    xsum[j][e] = 0.0f;
        }
    };
    /* Sums of the `count` tiles before `tile`, over the warps. */
    auto finish = [&](int tile, int count) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < count * m * 16; i += blockDim.x) {
            const int slot = i / (16 * m), column = i / 16 % m;
            const float *from = sums + (slot * warps * m + column) * PITCH + i % 16;
            float sum = 0.0f;
            for (int k = 0; k < warps; k++)
                sum += from[k * m * PITCH];
            const int64_t n = (int64_t)(tile - count + slot) * 16 + i % 16;
            if (n < p.n)
                p.epilogue.store(column, n, sum);
        }
        __syncthreads();
    };

    int slot = 0;
    for (int tile = first; tile < last; tile += TILES) {
        float acc[TILES][NT][4] = {};
        for (int round = 0; round < rounds; round++) {
#pragma unroll
            for (int u = 0; u < STEPS; u++) {
                const int step = (round * warps + warp) * STEPS + u;
                StepOfX<BITS, GROUPS> &direct = kept[NT == 1 ? u : 0];
                if (NT == 1 && rounds > 1)
                    gather(direct, step);
                copies_wait<STEPS - 1>();
                if (step < steps)
                    multiply(acc, u, direct.b, step, tile);
                load(u);
            }
            advance();
        }
        const int here = min(TILES, last - tile);
#pragma unroll
        for (int r = 0; r < TILES; r++) {
            float *to = sums + ((slot + r) * warps + warp) * m * PITCH + g;
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int column = j * 8 + t * 2 + e % 2;
                    if (column < m && r < here)
                        to[column * PITCH + e / 2 * 8] = acc[r][j][e];
                }
        }
        slot += here;
        if (slot + TILES > slots || tile + TILES >= last) {
            finish(tile + here, slot);
            slot = 0;
        }
    }
}

template <int BITS, int NT, int GROUPS>
__global__ void __launch_bounds__(32 * NARROW_WARPS) linear_narrow(const __grid_constant__ TileLinear p, int slots) {
    multiply_narrow<BITS, NT, GROUPS>(p, slots);
}

/* Chunks of rows, each with a weight of its own; x: of one chunk after the other, as NT = 2 wants it. */
template <int BITS, int GROUPS>
__global__ void __launch_bounds__(32 * NARROW_WARPS)
    linear_narrow_grouped(const GroupedExpert *experts, const GroupedChunk *chunks, const uint4 *x, Epilogue epilogue,
                          int slots) {
    __shared__ TileLinear p;
    const GroupedChunk chunk = chunks[blockIdx.y];
    if (chunk.expert < 0)
        return;
    if (threadIdx.x == 0) {
        const int size = epilogue.y_type == GATUN_F32 ? 4 : 2;
        p = experts[chunk.expert].tiles;
        p.m = chunk.rows;
        p.x = x + (int64_t)blockIdx.y * p.steps * 2 * 64;
        epilogue.bias = experts[chunk.expert].bias;
        epilogue.y = (uint8_t *)epilogue.y + chunk.row * epilogue.ldy * size;
        if (epilogue.other)
            epilogue.other = (const uint8_t *)epilogue.other + chunk.row * epilogue.ld_other * size;
        p.epilogue = epilogue;
    }
    __syncthreads();
    multiply_narrow<BITS, 2, GROUPS>(p, slots);
}

} // namespace gatun

#endif
