/*
 * linear with compute type BF16 on packed 4-bit codes, on Hopper's warpgroup products: up to 64 rows of x by one weight
 * (hopper_fused.cu), or rows of x by several weights (hopper_grouped.cu).
 *
 * y^T = W * x^T: 64 rows of W are the A operand, in registers, where their codes become bfloat16 and are scaled; up to
 * MT rows of x are the B operand, in shared memory. Tiles of 16 rows lie as a warp's share of that A operand, so codes
 * go through a ring in shared memory that each lane fills for itself, several steps of 64 k ahead. A block is one
 * warpgroup that only starts copies of x and two for each of KS parts of K, which multiply 64 rows of W each; a
 * cluster of two blocks with other rows of W shares x, each copying half of it to both. While the products of a step
 * are under way, the operands of the next are decoded. Blocks stay and take tile after tile.
 *
 * The idea of decoding in registers beside asynchronous copies is Marlin's (Frantar et al., 2024); that of giving
 * warpgroups roles is CUTLASS's.
 */
#ifndef GATUN_CUDA_HOPPER_FUSED_CUH
#define GATUN_CUDA_HOPPER_FUSED_CUH

#include "hopper_decode.cuh"

namespace gatun {

/* MT: rows of x a tile. KS: parts of K, each with two warpgroups of its own; two of them decode faster, one has the
 * registers for more rows. */
template <int MT, int KS, int GROUPS> struct Fused {
    static constexpr int X_BYTES = MT * 128, STAGES = MT == 256 ? 4 : MT == 16 ? 24 : 6;
    static constexpr int AHEAD = KS == 2 ? 8 : 4; /* steps of a part whose codes are on their way */
    static constexpr int THREADS = 128 + 256 * KS;
    /* A thread's: in all no more than the launch's, or warps wait for registers forever. */
    static constexpr int COPY_REGISTERS = KS == 2 ? 24 : 40, REGISTERS = KS == 2 ? 112 : 232;
    static constexpr int RING_BYTES = AHEAD * Ring<4, GROUPS>::STEP_BYTES; /* a warp's */
    static constexpr int SUM_BYTES = KS == 2 ? MT * 256 : 0;               /* a warpgroup's */
    static constexpr int PART_BYTES = SUM_BYTES < STAGE_BYTES ? STAGE_BYTES : SUM_BYTES;
    /* With two, the second part goes on to the next tile while the first one stores. */
    static constexpr int BUFFERS = MT == 16 ? 2 : 1;
    static constexpr int BYTES =
        1024 + STAGES * X_BYTES + TABLE_BYTES + 8 * KS * RING_BYTES + 2 * BUFFERS * PART_BYTES + 16 * STAGES;
};

/* A tile of y: 256 rows of W, of which each block of a cluster has half, by rows m0 to m - 1 of x, up to MT of them. */
struct Place {
    int pair;
    int64_t m0, m;
    const uint8_t *codes;
    const void *scales;
    const float *zeros, *offsets, *bias;
};

/* The tiles of one weight. */
struct OneWeight {
    Schedule schedule;
    int rows; /* of x a tile */

    __device__ const float *table(const TileLinear &p) const { return p.table; }

    /* The tile of this index; false: there are no more. */
    __device__ bool at(int item, const TileLinear &p, Place *place) const {
        if (item >= schedule.items())
            return false;
        int m_tile;
        schedule.at(item, &place->pair, &m_tile);
        place->m0 = (int64_t)m_tile * rows, place->m = p.m;
        place->codes = (const uint8_t *)p.codes, place->scales = p.scales;
        place->zeros = p.zeros, place->offsets = p.offsets, place->bias = p.epilogue.bias;
        return true;
    }
};

/* GROUPS: scale groups of a step, 1 (scales of any type) or 2 (16-bit scales), without zero points and offsets; 0: all
 * else. Work: OneWeight, or what else knows the tiles; p is what all of them have in common. */
template <int MT, int KS, int GROUPS, typename Work>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(Fused<MT, KS, GROUPS>::THREADS, 1)
    linear_fused(const __grid_constant__ CUtensorMap x, const __grid_constant__ TileLinear p,
                 const __grid_constant__ Work work) {
    using Shape = Fused<MT, KS, GROUPS>;
    constexpr int STAGES = Shape::STAGES, AHEAD = Shape::AHEAD, X_BYTES = Shape::X_BYTES;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), xs = (start + 1023) & ~1023u; /* what swizzles is aligned to 1 KiB */
    uint8_t *after_x = shared + (xs - start) + STAGES * X_BYTES;
    uint32_t *table_memory = (uint32_t *)after_x;
    uint8_t *rings = after_x + TABLE_BYTES, *parts = rings + 8 * KS * Shape::RING_BYTES;
    const uint32_t full = shared_address(parts) + 2 * Shape::BUFFERS * Shape::PART_BYTES, empty = full + 8 * STAGES;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2;
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
    Table::fill(table_memory, work.table(p), 4);
    __syncthreads();
    cluster_meet();

    Place now, next; /* the tile after `now` is looked up while that is multiplied */
    int item = cluster;
    bool more = work.at(item, p, &next);
    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Shape::COPY_REGISTERS));
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            while (more) {
                now = next;
                more = work.at(item += clusters, p, &next);
                const int row = (int)now.m0 + (int)rank * (MT / 2);
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
        const int lane = threadIdx.x % 32, half = (threadIdx.x / 128 - 1) % 2, part = (threadIdx.x / 128 - 1) / 2;
        const int warp = half * 4 + threadIdx.x % 128 / 32; /* of the tiles of the block */
        const int groups = (int)p.groups, tiles = (int)p.tiles;
        const Table table(table_memory);
        const CodeLoads<4, GROUPS == 1> loads(p, lane);
        const Ring<4, GROUPS> ring(rings + (threadIdx.x / 32 - 4) * Shape::RING_BYTES, lane);
        auto tile_of = [&](const Place &place) { /* tiles past the last one are not stored */
                                                 return min((place.pair * 2 + (int)rank) * 8 + warp, tiles - 1);
        };

        const uint8_t *load_from = nullptr; /* of the round of loads that begins at load_step */
        const void *load_scales = nullptr;
        int load_step = 0, load_scale = 0;
        auto load_round = [&](const Place &place, int base) {
            const int tile = tile_of(place);
            load_step = base * KS + part;
            load_from = place.codes + lane * 16 + tile * loads.tile_bytes() + load_step * loads.STEP_BYTES;
            load_scales = place.scales;
            load_scale = tile * groups * 8 + lane / 4;
        };
        auto load = [&](int u, bool some) {
            if (some)
                ring.copy(u, loads, load_from + u * KS * loads.STEP_BYTES, load_scales, p.scale_type,
                          load_scale + first_group<GROUPS>(load_step + u * KS, p.steps_per_group_inverse) * 8);
            copies_commit();
        };
        int stage = part, previous = 0, buffer = 0; /* of `parts` */
        uint32_t parity = 0;
        if (more) {
            load_round(next, 0);
#pragma unroll
            for (int u = 0; u < AHEAD; u++)
                load(u, true);
        }
        while (more) {
            now = next;
            more = work.at(item += clusters, p, &next);
            const int tile = tile_of(now);
            TileLinear own = p;
            own.scales = now.scales, own.zeros = now.zeros, own.offsets = now.offsets;
            float sums[MT / 2];
            uint32_t a[2][16];
            for (int base = 0; base < steps; base += AHEAD) {
                /* Codes are loaded a round ahead, in the last round those of the next tile. */
                const bool last = base + AHEAD == steps;
                if (!last)
                    load_round(now, base + AHEAD);
                else if (more)
                    load_round(next, 0);
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    const int step = base + u;
                    copies_wait<AHEAD - 1>();
                    decode_step<GROUPS>(a[u % 2], ring, u, own, table, tile, step * KS + part);
                    load(u, more || !last);
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
            uint8_t *own_part = parts + (2 * buffer + half) * Shape::PART_BYTES;
            if constexpr (KS == 2) { /* the second part hands its sums to the first */
                float4 *to = (float4 *)own_part + threadIdx.x % 128;
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
            if (part == 0) {
                Epilogue epilogue = p.epilogue;
                epilogue.bias = now.bias;
                store_sums<MT>(sums, (float *)own_part, 1 + half, epilogue,
                               (now.pair * 2 + (int64_t)rank) * 128 + half * 64, now.m0, p.n, now.m);
            }
            if constexpr (KS == 2 && Shape::BUFFERS == 1)
                two_warpgroups_meet(3 + half);
            buffer = (buffer + 1) % Shape::BUFFERS;
        }
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

/* `rows`: those of the matrix at p.rows; `tiles`: of y, more than there can be are none. */
template <int MT, int KS, int GROUPS, typename Work>
gatun_status launch_fused_tiles(const TileLinear &p, int64_t rows, const Work &work, int64_t tiles, int multiprocessors,
                                cudaStream_t stream) {
    using Shape = Fused<MT, KS, GROUPS>;
    CUtensorMap x;
    GATUN_CUDA_TRY(tensor_map(&x, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, p.rows.data, p.k, rows, p.rows.ld * 2, MT / 2));
    const int64_t clusters = tiles < multiprocessors / 2 ? tiles : multiprocessors / 2;
    auto kernel = linear_fused<MT, KS, GROUPS, Work>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, Shape::BYTES), "linear"));
    kernel<<<(unsigned)(2 * clusters), Shape::THREADS, Shape::BYTES, stream>>>(x, p, work);
    return GATUN_OK;
}

} // namespace gatun

#endif
