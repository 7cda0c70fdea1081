/*
 * linear with compute types F8 and I8 on Hopper: products of 8-bit codes of W and x, sums in float or int32, scales in
 * the epilogue or, for scales of 128 k, where each block's sums are added up. By one weight (hopper_codes.cu), or by
 * several (hopper_grouped_codes.cu).
 *
 * y^T = W * x^T as in hopper_fused.cuh, here with both operands in shared memory, 128 k a stage: a block's 128 rows of
 * W, and rows of x of which each block of a cluster copies half to both. One warpgroup copies, two multiply 64 rows of
 * W each.
 *
 * The tensor cores add e4m3 products with fewer than 24 bits, so that floats are added up outside of them after each
 * 128 k (as DeepSeek-V3 describes); int32 sums are exact and stay where they are.
 */
#ifndef GATUN_CUDA_HOPPER_CODES_CUH
#define GATUN_CUDA_HOPPER_CODES_CUH

#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

/* T: float for e4m3, int32_t for int8. MT: rows of x a tile. */
template <typename T, int MT> struct Codes {
    static constexpr bool PROMOTES = sizeof(T) == 4 && T(0.5) != T(0);
    static constexpr int W_BYTES = 128 * 128, X_BYTES = MT * 128, SCALE_BYTES = PROMOTES ? 1024 : 0;
    static constexpr int STAGE = W_BYTES + X_BYTES + SCALE_BYTES, STAGES = MT == 256   ? 4
                                                                           : MT == 192 ? 5
                                                                           : MT == 128 ? 6
                                                                                       : 8;
    static constexpr int BYTES = 1024 + STAGES * STAGE + 2 * STAGE_BYTES + 16 * STAGES;
};

/* A tile of y: 256 rows of W, of which each block of a cluster has half, by rows m0 to m - 1 of x, up to MT of them,
 * whose codes are those from x_row on. */
struct CodesPlace {
    int pair, x_row;
    int64_t m0, m;
    const CUtensorMap *w;
    const void *scales; /* of W */
    const float *bias;
};

/* The tiles of one weight. */
struct OneWeightCodes {
    CUtensorMap w;
    Schedule schedule;
    int rows; /* of x a tile */

    /* The tile of this index; false: there are no more. */
    __device__ bool at(int item, const TileLinear &p, CodesPlace *place) const {
        if (item >= schedule.items())
            return false;
        int m_tile;
        schedule.at(item, &place->pair, &m_tile);
        place->x_row = m_tile * rows;
        place->m0 = place->x_row, place->m = p.m;
        place->w = &w, place->scales = p.scales, place->bias = p.epilogue.bias;
        return true;
    }
};

/* Work: OneWeightCodes, or what else knows the tiles; p is what all of them have in common. */
template <typename T, int MT, typename Work>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    linear_codes(const __grid_constant__ CUtensorMap x, const __grid_constant__ TileLinear p,
                 const __grid_constant__ Work work, const float *block_scales, int64_t padded) {
    using Shape = Codes<T, MT>;
    constexpr int STAGES = Shape::STAGES, STAGE = Shape::STAGE;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), stages = (start + 1023) & ~1023u;
    uint8_t *first_stage = shared + (stages - start), *sums_memory = first_stage + STAGES * STAGE;
    const uint32_t full = shared_address(sums_memory) + 2 * STAGE_BYTES, empty = full + 8 * STAGES;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2;
    const int blocks = ((int)p.steps + 1) / 2; /* of 128 k */

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 16); /* the multiplying warps of both blocks */
        }
        barrier_fence_init();
    }
    __syncthreads();
    cluster_meet();

    CodesPlace now, next; /* the tile after `now` is looked up while that is multiplied */
    int item = cluster;
    bool more = work.at(item, p, &next);
    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            const int bytes = Shape::W_BYTES + Shape::X_BYTES + (block_scales ? MT * 4 : 0);
            while (more) {
                now = next;
                more = work.at(item += clusters, p, &next);
                for (int block = 0; block < blocks; block++) {
                    const uint32_t at = stages + stage * STAGE, barrier = full + 8 * stage;
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(barrier, bytes);
                    copy_box(at, now.w, barrier, block * 128, (now.pair * 2 + (int)rank) * 128);
                    copy_box_to_both(at + Shape::W_BYTES + rank * (Shape::X_BYTES / 2), &x, barrier, block * 128,
                                     now.x_row + (int)rank * (MT / 2));
                    if (block_scales)
                        copy_bytes(at + Shape::W_BYTES + Shape::X_BYTES, block_scales + block * padded + now.x_row,
                                   MT * 4, barrier);
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int lane = threadIdx.x % 32, half = threadIdx.x / 128 - 1, t = lane % 4;
        const int warp = half * 4 + threadIdx.x % 128 / 32;
        const int groups = (int)p.groups, tiles = (int)p.tiles;
        int stage = 0, previous = 0;
        uint32_t parity = 0;
        while (more) {
            now = next;
            more = work.at(item += clusters, p, &next);
            const int64_t n0 = (now.pair * 2 + (int64_t)rank) * 128 + half * 64;
            const uint32_t tile = (uint32_t)min((now.pair * 2 + (int)rank) * 8 + warp, tiles - 1);
            Epilogue epilogue = p.epilogue;
            epilogue.bias = now.bias;
            if (groups == 1)
                epilogue.w_scales = now.scales;
            auto multiply = [&](T(&products)[MT / 2], bool accumulate) {
                const uint32_t at = stages + stage * STAGE;
                const uint64_t a = operand(at + half * (64 * 128)), b = operand(at + Shape::W_BYTES);
                hold(products);
                products_begin();
#pragma unroll
                for (int s = 0; s < 4; s++)
                    multiply_codes<MT>(products, a + 2 * s, b + 2 * s, s > 0 || accumulate);
                products_commit();
                hold(products);
            };
            auto advance = [&] {
                if (++stage == STAGES)
                    stage = 0, parity ^= 1;
            };
            float *to = (float *)(sums_memory + half * STAGE_BYTES);
            if constexpr (Shape::PROMOTES) {
                float products[MT / 2], sums[MT / 2] = {};
                auto add = [&](float2 scale) {
                    if (block_scales) {
                        const float2 *xs =
                            (const float2 *)(first_stage + stage * STAGE + Shape::W_BYTES + Shape::X_BYTES) + t;
#pragma unroll
                        for (int j = 0; j < MT / 8; j++) {
                            const float2 of_x = xs[4 * j];
                            sums[4 * j] = fmaf(products[4 * j], scale.x * of_x.x, sums[4 * j]);
                            sums[4 * j + 1] = fmaf(products[4 * j + 1], scale.x * of_x.y, sums[4 * j + 1]);
                            sums[4 * j + 2] = fmaf(products[4 * j + 2], scale.y * of_x.x, sums[4 * j + 2]);
                            sums[4 * j + 3] = fmaf(products[4 * j + 3], scale.y * of_x.y, sums[4 * j + 3]);
                        }
                    } else {
#pragma unroll
                        for (int i = 0; i < MT / 2; i++)
                            sums[i] = fmaf(products[i], i % 4 < 2 ? scale.x : scale.y, sums[i]);
                    }
                };
                /* Scales of W's rows g and g + 8: in the epilogue where there is one group. */
                auto scale_of = [&](int block) {
                    if (groups == 1)
                        return make_float2(1.0f, 1.0f);
                    const int group = min(block * 128 / (int)p.group, groups - 1);
                    return load_scales(now.scales, p.scale_type, (tile * groups + (uint32_t)group) * 8 + lane / 4);
                };
                for (int block = 0; block < blocks; block++) {
                    const float2 scale = scale_of(block);
                    barrier_wait(full + 8 * stage, parity);
                    multiply(products, false);
                    products_wait<0>();
                    hold(products);
                    add(scale);
                    __syncwarp(); /* the other lanes have read their scales too */
                    if (lane < 2)
                        barrier_arrive_at(empty + 8 * stage, lane);
                    advance();
                }
                store_sums<MT>(sums, to, 1 + half, epilogue, n0, now.m0, p.n, now.m);
            } else {
                T products[MT / 2];
                for (int block = 0; block < blocks; block++) {
                    barrier_wait(full + 8 * stage, parity);
                    multiply(products, block > 0);
                    products_wait<1>();
                    if (block > 0 && lane < 2)
                        barrier_arrive_at(empty + 8 * previous, lane);
                    previous = stage;
                    advance();
                }
                products_wait<0>();
                hold(products);
                if (lane < 2)
                    barrier_arrive_at(empty + 8 * previous, lane);
                store_sums<MT>(products, to, 1 + half, epilogue, n0, now.m0, p.n, now.m);
            }
        }
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

/* How the copy engine reads the codes of W. */
inline gatun_status codes_map(CUtensorMap *map, const TileLinear &p) {
    const int64_t row = p.steps * 64;
    return tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, p.codes, row, p.tiles * 16, row, 128);
}

/* `rows`: those of the codes of x; `tiles`: of y, more than there can be are none. */
template <typename T, int MT, typename Work>
gatun_status launch_codes_tiles(const TileLinear &p, const CodesOfX &x, int64_t rows, const Work &work, int64_t tiles,
                                int multiprocessors, cudaStream_t stream) {
    using Shape = Codes<T, MT>;
    CUtensorMap x_map;
    GATUN_CUDA_TRY(tensor_map(&x_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x.codes, p.k, rows, x.ld, MT / 2));
    const int64_t clusters = tiles < multiprocessors / 2 ? tiles : multiprocessors / 2;
    auto kernel = linear_codes<T, MT, Work>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, Shape::BYTES), "linear"));
    kernel<<<(unsigned)(2 * clusters), 384, Shape::BYTES, stream>>>(x_map, p, work, x.block_scales, x.padded);
    return GATUN_OK;
}

} // namespace gatun

#endif
