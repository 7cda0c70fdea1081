/*
 * linear with compute type BF16 on packed 4-bit codes for 17 and more rows of x, on Hopper's warpgroup products.
 *
 * y^T = W * x^T: 64 rows of W are the A operand, in registers, where their codes become bfloat16 and are scaled; up to
 * 256 rows of x are the B operand, in shared memory. Tiles of 16 rows lie as a warp's share of that A operand, so codes
 * go through a ring in shared memory that each lane fills for itself, several steps of 64 k ahead. A block is one
 * warpgroup that only starts copies of x and two that multiply 64 rows of W each; a cluster of two blocks with other
 * rows of W shares x, each copying half of it to both. While the products of a step are under way, the operands of the
 * next are decoded. Blocks stay and take tile after tile, so that copies run on while a tile is stored.
 *
 * The idea of decoding in registers beside asynchronous copies is Marlin's (Frantar et al., 2024); that of giving
 * warpgroups roles is CUTLASS's.
 */
#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

/* MT: rows of x a tile; KS: parts of K, each with two warpgroups of its own. */
template <int MT, int KS, int GROUPS> struct Fused {
    static constexpr int X_BYTES = MT * 128, STAGES = MT == 256 ? 4 : 6;
    static constexpr int AHEAD = MT == 256 ? 4 : 8; /* steps of a part whose codes are on their way */
    static constexpr int THREADS = 128 + 256 * KS;
    /* A thread's: in all no more than the launch's, or warps wait for registers forever. */
    static constexpr int COPY_REGISTERS = KS == 1 ? 40 : 24, REGISTERS = KS == 1 ? 232 : 112;
    static constexpr int RING_BYTES = AHEAD * Ring<4, GROUPS>::STEP_BYTES;                        /* a warp's */
    static constexpr int PART_BYTES = KS == 1 || MT * 256 < STAGE_BYTES ? STAGE_BYTES : MT * 256; /* two warpgroups' */
    static constexpr int BYTES =
        1024 + STAGES * X_BYTES + TABLE_BYTES + 8 * KS * RING_BYTES + 2 * PART_BYTES + 16 * STAGES;
};

__device__ inline uint32_t times_bf16(uint32_t a, uint32_t b) {
    __nv_bfloat162 product = __hmul2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
    return *(const uint32_t *)&product;
}

/* GROUPS: scale groups of a step, 1 (scales of any type) or 2 (16-bit scales), without zero points and offsets; 0: all
 * else. */
template <int MT, int KS, int GROUPS>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(Fused<MT, KS, GROUPS>::THREADS, 1)
    linear_fused(const __grid_constant__ CUtensorMap x, const __grid_constant__ TileLinear p, Schedule schedule) {
    using Shape = Fused<MT, KS, GROUPS>;
    constexpr int STAGES = Shape::STAGES, AHEAD = Shape::AHEAD, X_BYTES = Shape::X_BYTES;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), xs = (start + 1023) & ~1023u; /* what swizzles is aligned to 1 KiB */
    uint8_t *after_x = shared + (xs - start) + STAGES * X_BYTES;
    uint32_t *table_memory = (uint32_t *)after_x;
    uint8_t *rings = after_x + TABLE_BYTES, *parts = rings + 8 * KS * Shape::RING_BYTES;
    const uint32_t full = shared_address(parts) + 2 * Shape::PART_BYTES, empty = full + 8 * STAGES;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2, items = schedule.items();
    const int real_steps = (int)p.steps;
    /* Steps of a part; those past the last multiply zeros. */
    const int steps = (real_steps + KS * AHEAD - 1) / (KS * AHEAD) * AHEAD;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 16); /* the warps of a part, of both blocks */
        }
        barrier_fence_init();
    }
    Table::fill(table_memory, p.table, 4);
    __syncthreads();
    cluster_meet();

    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Shape::COPY_REGISTERS));
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            for (int item = cluster; item < items; item += clusters) {
                int pair, m_tile;
                schedule.at(item, &pair, &m_tile);
                const int row = m_tile * MT + (int)rank * (MT / 2);
                for (int step = 0; step < steps * KS; step++) {
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(full + 8 * stage, X_BYTES);
                    copy_box_to_both(xs + stage * X_BYTES + rank * (X_BYTES / 2), &x, full + 8 * stage, step * 64, row);
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Shape::REGISTERS));
        const int lane = threadIdx.x % 32, half = (threadIdx.x / 128 - 1) % 2,
                  part = KS == 1 ? 0 : (threadIdx.x / 128 - 1) / 2;
        const int warp = half * 4 + threadIdx.x % 128 / 32; /* of the tiles of the block */
        const int groups = (int)p.groups, tiles = (int)p.tiles;
        const int groups_per_step = GROUPS ? GROUPS : p.groups_per_step;
        const Table table(table_memory);
        const CodeLoads<4, GROUPS == 1> loads(p, lane);
        const Ring<4, GROUPS> ring(rings + (threadIdx.x / 32 - 4) * Shape::RING_BYTES, lane);
        auto tile_of = [&](int item) { /* tiles past the last one are not stored */
                                       int pair, m_tile;
                                       schedule.at(item, &pair, &m_tile);
                                       return min((pair * 2 + (int)rank) * 8 + warp, tiles - 1);
        };

        const uint8_t *load_from = nullptr; /* of the round of loads that begins at load_step */
        int load_step = 0, load_scale = 0;
        auto load_round = [&](int tile, int base) {
            load_step = base * KS + part;
            load_from = loads.first + tile * loads.tile_bytes() + load_step * loads.STEP_BYTES;
            load_scale = tile * groups * 8 + lane / 4;
        };
        auto load = [&](int u, bool more) {
            if (more)
                ring.copy(u, loads, load_from + u * KS * loads.STEP_BYTES, p.scales, p.scale_type,
                          load_scale + first_group<GROUPS>(load_step + u * KS, p.steps_per_group_inverse) * 8);
            copies_commit();
        };
        auto decode = [&](uint32_t *a, int u, int tile, int step) {
            uint4 codes;
            float2 scales[GROUPS ? GROUPS : 1];
            uint32_t twice[GROUPS ? GROUPS : 1][2]; /* the scales of rows g and g + 8 in both halves */
            ring.codes(u, &codes);
            if (GROUPS)
                ring.scales(u, p.scale_type, scales);
#pragma unroll
            for (int i = 0; i < GROUPS; i++)
                twice[i][0] = pair_bf16(scales[i].x, scales[i].x), twice[i][1] = pair_bf16(scales[i].y, scales[i].y);
#pragma unroll
            for (int s = 0; s < 4; s++) {
                uint32_t *to = a + 4 * s;
                fragment<4>(to, &codes, s, table);
                if (GROUPS) {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        to[i] = times_bf16(to[i], twice[GROUPS == 2 ? s / 2 : 0][i % 2]);
                } else {
                    const int here = min(step * KS + part, real_steps - 1), within = s * groups_per_step / 4;
                    const int group = first_group<0>(here, p.steps_per_group_inverse, groups_per_step) + within;
                    const int at = (tile * groups + min(group, groups - 1)) * 8 + lane / 4;
                    const float2 scale = load_scales(p.scales, p.scale_type, at);
                    const float2 zero = pair_or_zero(p.zeros, at), offset = pair_or_zero(p.offsets, at);
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const float z = i % 2 ? zero.y : zero.x, f = i % 2 ? scale.y : scale.x,
                                    o = i % 2 ? offset.y : offset.x;
                        to[i] = pair_bf16(fmaf(__uint_as_float(to[i] << 16) - z, f, o),
                                          fmaf(__uint_as_float(to[i] & 0xFFFF0000) - z, f, o));
                    }
                }
            }
        };

        int stage = part, previous = 0, tile = 0;
        uint32_t parity = 0;
        if (cluster < items) {
            tile = tile_of(cluster);
            load_round(tile, 0);
#pragma unroll
            for (int u = 0; u < AHEAD; u++)
                load(u, true);
        }
        for (int item = cluster; item < items; item += clusters) {
            float sums[MT / 2];
            uint32_t a[2][16];
            int next_tile = tile;
            for (int base = 0; base < steps; base += AHEAD) {
                /* Codes are loaded a round ahead, in the last round those of the next item. */
                int next_base = base + AHEAD;
                bool more = true;
                if (next_base == steps) {
                    next_base = 0;
                    more = item + clusters < items;
                    if (more)
                        next_tile = tile_of(item + clusters);
                }
                load_round(next_tile, next_base);
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    const int step = base + u;
                    copies_wait<AHEAD - 1>();
                    decode(a[u % 2], u, tile, step);
                    load(u, more);
                    barrier_wait(full + 8 * stage, parity);
                    hold(sums);
                    products_begin();
                    const uint64_t b = operand(xs + stage * X_BYTES);
#pragma unroll
                    for (int s = 0; s < 4; s++)
                        multiply_bf16<MT>(sums, a[u % 2] + 4 * s, b + 2 * s, step > 0 || s > 0);
                    products_commit();
                    hold(sums);
                    products_wait<1>();
                    if (step > 0 && lane < 2)
                        barrier_arrive_at(empty + 8 * previous, lane);
                    previous = stage;
                    stage += KS;
                    if (stage >= STAGES)
                        stage -= STAGES, parity ^= 1;
                }
            }
            products_wait<0>();
            hold(sums);
            if (lane < 2)
                barrier_arrive_at(empty + 8 * previous, lane);
            if (KS > 1) { /* the second part hands its sums to the first */
                float4 *to = (float4 *)(parts + half * Shape::PART_BYTES) + threadIdx.x % 128;
                if (part == 1)
#pragma unroll
                    for (int i = 0; i < MT / 8; i++)
                        to[i * 128] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
                two_warpgroups_meet(3 + half);
                if (part == 0)
#pragma unroll
                    for (int i = 0; i < MT / 8; i++) {
                        const float4 more_sums = to[i * 128];
                        sums[4 * i] += more_sums.x, sums[4 * i + 1] += more_sums.y;
                        sums[4 * i + 2] += more_sums.z, sums[4 * i + 3] += more_sums.w;
                    }
            }
            int pair, m_tile;
            schedule.at(item, &pair, &m_tile);
            if (part == 0)
                store_sums<MT>(sums, (float *)(parts + half * Shape::PART_BYTES), 1 + half, p.epilogue,
                               (pair * 2 + (int64_t)rank) * 128 + half * 64, (int64_t)m_tile * MT, p.n, p.m);
            if (KS > 1)
                two_warpgroups_meet(3 + half);
            tile = next_tile;
        }
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

template <int MT, int KS, int GROUPS>
static gatun_status launch(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    using Shape = Fused<MT, KS, GROUPS>;
    CUtensorMap x;
    GATUN_CUDA_TRY(tensor_map(&x, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, p.rows.data, p.k, p.m, p.rows.ld * 2, MT / 2));
    Schedule schedule = {(int)((p.tiles + 15) / 16), (int)((p.m + MT - 1) / MT)};
    int64_t clusters = (int64_t)schedule.pairs * schedule.m_tiles;
    if (clusters > multiprocessors / 2)
        clusters = multiprocessors / 2;
    auto kernel = linear_fused<MT, KS, GROUPS>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, Shape::BYTES), "linear"));
    kernel<<<(unsigned)(2 * clusters), Shape::THREADS, Shape::BYTES, stream>>>(x, p, schedule);
    return GATUN_OK;
}

template <int GROUPS> static gatun_status pick(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    if (p.m <= 16)
        return launch<16, 2, GROUPS>(p, multiprocessors, stream);
    if (p.m <= 64)
        return launch<64, 2, GROUPS>(p, multiprocessors, stream);
    if (p.m <= 128 && GROUPS == 1)
        return launch<128, 1, GROUPS == 1>(p, multiprocessors, stream);
    return launch<256, 1, GROUPS>(p, multiprocessors, stream);
}

gatun_status launch_fused(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    const bool affine = p.zeros || p.offsets;
    if (p.groups_per_step == 1 && !affine)
        return pick<1>(p, multiprocessors, stream);
    if (p.groups_per_step == 2 && !affine && p.scale_type != GATUN_F32)
        return pick<2>(p, multiprocessors, stream);
    return pick<0>(p, multiprocessors, stream);
}

} // namespace gatun
