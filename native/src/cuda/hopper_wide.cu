/*
 * linear with compute type BF16 on packed 4-bit codes for more than 64 rows of x, on Hopper's warpgroup products.
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
#include "hopper_decode.cuh"
#include "hopper_share.cuh"
#include "hopper_store.cuh"

namespace gatun {

enum { WIDE_BOXES = 4 };

/* MT: rows of x a tile. */
template <int MT, int GROUPS> struct Wide {
    static constexpr int X_BYTES = MT * 128, STAGES = MT == 256 ? 3 : 6;
    static constexpr int AHEAD = 4;        /* steps whose codes are on their way: a round */
    static constexpr int WORTH = 5;        /* rounds: what sharing must save, since the sums that it leaves cost time */
    using WarpRing = Ring<4, GROUPS, 256>; /* between the entries of the table */
    static constexpr int RING_BYTES = AHEAD * WarpRing::STEP_BYTES;
    static constexpr int OUT_BYTES = WIDE_BOXES * BOX_BYTES; /* a warpgroup's */
    static constexpr int BYTES = 1024 + STAGES * X_BYTES + 2 * OUT_BYTES + SPACED_TABLE_BYTES + 16 * STAGES;
    static_assert(8 * RING_BYTES <= (int)SPACED_TABLE_BYTES && BYTES <= 227 << 10, "what a block may have");
    static_assert(OUT_BYTES >= STAGE_BYTES, "what the copy engine cannot store goes the same way");
};

/* A warpgroup's sums of 64 rows of W from n0 on by MT rows of x from m0 on, in boxes. */
template <int MT>
__device__ inline void store_boxes(const float (&d)[MT / 2], const Boxes<WIDE_BOXES> &boxes, const CUtensorMap *map,
                                   const Epilogue &epilogue, int64_t n0, int64_t m0, int64_t n, int64_t m) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, r = lane % 8, matrix = lane / 8;
    const int64_t row = n0 + 16 * warp + lane / 4;
    const float bias = epilogue.bias && row < n ? epilogue.bias[row] : 0.0f;
    const float bias8 = epilogue.bias && row + 8 < n ? epilogue.bias[row + 8] : 0.0f;
    /* Rows of x matrix / 2 * 8 + r, columns of y 16 * warp + matrix % 2 * 8. */
    const uint32_t own = (uint32_t)((matrix / 2 * 8 + r) * 128 + ((2 * warp + matrix % 2) ^ r) * 16);
#pragma unroll
    for (int i = 0; i < MT / BOX_ROWS; i++) {
        if (m0 + i * BOX_ROWS >= m)
            break;
        boxes.begin();
#pragma unroll
        for (int j = 0; j < BOX_ROWS / 8; j += 2) {
            const float *v = d + (i * (BOX_ROWS / 8) + j) * 4;
            store_matrices<true>(boxes.address(i) + own + j * 1024, epilogue.pair(v[0] + bias, v[1] + bias),
                                 epilogue.pair(v[2] + bias8, v[3] + bias8), epilogue.pair(v[4] + bias, v[5] + bias),
                                 epilogue.pair(v[6] + bias8, v[7] + bias8));
        }
        boxes.end(i, map, n0, m0 + i * BOX_ROWS);
    }
}

/* GROUPS: scale groups of a step, 1 (scales of any type) or 2 (16-bit scales), without zero points and offsets; 0: all
 * else. y: null where the copy engine cannot store it. */
template <int MT, int GROUPS>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    linear_wide(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y, bool boxed,
                const __grid_constant__ TileLinear p, Schedule schedule, const __grid_constant__ Share share) {
    using Shape = Wide<MT, GROUPS>;
    constexpr int STAGES = Shape::STAGES, AHEAD = Shape::AHEAD, X_BYTES = Shape::X_BYTES;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), xs = (start + 1023) & ~1023u; /* what swizzles is aligned to 1 KiB */
    uint8_t *out = shared + (xs - start) + STAGES * X_BYTES;
    uint32_t *table_memory = (uint32_t *)(out + 2 * Shape::OUT_BYTES);
    uint8_t *rings = (uint8_t *)table_memory + 128;
    const uint32_t full = shared_address(table_memory) + SPACED_TABLE_BYTES, empty = full + 8 * STAGES;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2;
    Walk walk(share, cluster);

    let_next_begin();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 16); /* the multiplying warps of both blocks */
        }
        barrier_fence_init();
    }
    SpacedTable::fill(table_memory, p.table);
    __syncthreads();
    cluster_meet();

    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            wait_for_earlier();
            for (Segment now; walk.next(&now);) {
                int pair, m_tile;
                schedule.at(now.item, &pair, &m_tile);
                const int row = m_tile * MT + (int)rank * (MT / 2);
                for (int step = now.from * AHEAD; step < now.to * AHEAD; step++) { /* past the last one zeros */
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(full + 8 * stage, X_BYTES);
                    copy_box_to_both(xs + stage * X_BYTES + rank * (X_BYTES / 2), &x, full + 8 * stage, step * 64, row);
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int lane = threadIdx.x % 32, half = threadIdx.x / 128 - 1;
        const int warp = half * 4 + threadIdx.x % 128 / 32; /* of the tiles of the block */
        const int groups = (int)p.groups, tiles = (int)p.tiles;
        const SpacedTable table(table_memory);
        const CodeLoads<4, GROUPS == 1> loads(p, lane);
        const typename Shape::WarpRing ring(rings + warp * Shape::RING_BYTES, lane);
        uint8_t *own_out = out + half * Shape::OUT_BYTES;
        const Boxes<WIDE_BOXES> boxes(shared_address(own_out), 1 + half);
        auto tile_of = [&](int item) { /* tiles past the last one are not stored */
                                       int pair, m_tile;
                                       schedule.at(item, &pair, &m_tile);
                                       return min((pair * 2 + (int)rank) * 8 + warp, tiles - 1);
        };

        const uint8_t *load_from = nullptr; /* of the round of loads that begins at load_step */
        int load_step = 0, load_scale = 0;
        auto load_round = [&](int tile, int base) {
            load_step = base;
            load_from = loads.first + tile * loads.tile_bytes() + load_step * loads.STEP_BYTES;
            load_scale = tile * groups * 8 + lane / 4;
        };
        auto load = [&](int u, bool more) {
            if (more)
                ring.copy(u, loads, load_from + u * loads.STEP_BYTES, p.scales, p.scale_type,
                          load_scale + first_group<GROUPS>(load_step + u, p.steps_per_group_inverse) * 8);
            copies_commit();
        };
        int stage = 0, previous = 0;
        uint32_t parity = 0;
        Segment now, next;
        bool more = walk.next(&next); /* every cluster has some */
        int next_tile = tile_of(next.item);
        load_round(next_tile, next.from * AHEAD);
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            load(u, true);
        wait_for_earlier();
        while (more) {
            const int tile = next_tile;
            now = next;
            more = walk.next(&next);
            if (more)
                next_tile = tile_of(next.item);
            float sums[MT / 2];
            uint32_t a[2][16];
            for (int round = now.from; round < now.to; round++) {
                /* Codes are loaded a round ahead, in the last round those of the next segment. */
                const bool last = round + 1 == now.to;
                load_round(last ? next_tile : tile, (last ? next.from : round + 1) * AHEAD);
#pragma unroll
                for (int u = 0; u < AHEAD; u++) {
                    const bool first = u == 0 && round == now.from;
                    copies_wait<AHEAD - 1>();
                    decode_step<GROUPS>(a[u % 2], ring, u, p, table, tile, round * AHEAD + u);
                    load(u, more || !last);
                    barrier_wait(full + 8 * stage, parity);
                    hold(sums);
                    products_begin();
                    const uint64_t b = operand(xs + stage * X_BYTES);
#pragma unroll
                    for (int s = 0; s < 4; s++)
                        multiply_bf16<MT>(sums, a[u % 2] + 4 * s, b + 2 * s, !first || s > 0);
                    products_commit();
                    hold(sums);
                    products_wait<1>();
                    if (!first && lane < 2)
                        barrier_arrive_at(empty + 8 * previous, lane);
                    previous = stage;
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
            products_wait<0>();
            hold(sums);
            if (lane < 2)
                barrier_arrive_at(empty + 8 * previous, lane);
            if (!completes<2>(share, now, cluster, (int)rank, half, 1 + half, sums))
                continue;
            int pair, m_tile;
            schedule.at(now.item, &pair, &m_tile);
            const int64_t n0 = (pair * 2 + (int64_t)rank) * 128 + half * 64, m0 = (int64_t)m_tile * MT;
            if (boxed)
                store_boxes<MT>(sums, boxes, &y, p.epilogue, n0, m0, p.n, p.m);
            else
                store_sums<MT>(sums, (float *)own_out, 1 + half, p.epilogue, n0, m0, p.n, p.m);
        }
        boxes.finish();
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

template <int MT, int GROUPS>
static gatun_status launch(const TileLinear &p, int multiprocessors, void *workspace, cudaStream_t stream) {
    using Shape = Wide<MT, GROUPS>;
    CUtensorMap x, y;
    GATUN_CUDA_TRY(tensor_map(&x, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, p.rows.data, p.k, p.m, p.rows.ld * 2, MT / 2));
    GATUN_CUDA_TRY(store_map(&y, p.epilogue, p.n, p.m));
    const Schedule schedule = {(int)((p.tiles + 15) / 16), (int)((p.m + MT - 1) / MT)};
    const int rounds = (int)((p.steps + Shape::AHEAD - 1) / Shape::AHEAD);
    Share share;
    GATUN_CUDA_TRY(share_tiles(&share, (int64_t)schedule.pairs * schedule.m_tiles, rounds, Shape::WORTH,
                               multiprocessors, workspace, stream));
    return launch_early(linear_wide<MT, GROUPS>, 2 * share.clusters, 384, Shape::BYTES, stream, x, y,
                        stores_boxes(p.epilogue), p, schedule, share);
}

template <int GROUPS>
static gatun_status pick(const TileLinear &p, int multiprocessors, void *workspace, cudaStream_t stream) {
    return p.m <= 128 ? launch<128, GROUPS>(p, multiprocessors, workspace, stream)
                      : launch<256, GROUPS>(p, multiprocessors, workspace, stream);
}

gatun_status launch_wide(const TileLinear &p, int multiprocessors, void *workspace, cudaStream_t stream) {
    const bool affine = p.zeros || p.offsets;
    if (p.groups_per_step == 1 && !affine)
        return pick<1>(p, multiprocessors, workspace, stream);
    if (p.groups_per_step == 2 && !affine && p.scale_type != GATUN_F32)
        return pick<2>(p, multiprocessors, workspace, stream);
    return pick<0>(p, multiprocessors, workspace, stream);
}

} // namespace gatun
