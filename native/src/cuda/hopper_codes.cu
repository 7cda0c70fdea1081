/*
 * linear with compute types F8 and I8 on Hopper: products of 8-bit codes of W and x, sums in float or int32, scales in
 * the epilogue or, for scales of 128 k, where each block's sums are added up.
 *
 * y^T = W * x^T as in hopper_fused.cu, here with both operands in shared memory, 128 k a stage: a block's 128 rows of
 * W, and rows of x of which each block of a cluster copies half to both. One warpgroup copies, two multiply 64 rows of
 * W each.
 *
 * The tensor cores add e4m3 products with fewer than 24 bits, so that floats are added up outside of them after each
 * 128 k (as DeepSeek-V3 describes); int32 sums are exact and stay where they are.
 */
#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

/* T: float for e4m3, int32_t for int8. MT: rows of x a tile. */
template <typename T, int MT> struct Codes {
    static constexpr bool PROMOTES = sizeof(T) == 4 && T(0.5) != T(0);
    static constexpr int W_BYTES = 128 * 128, X_BYTES = MT * 128, SCALE_BYTES = PROMOTES ? 1024 : 0;
    static constexpr int STAGE = W_BYTES + X_BYTES + SCALE_BYTES, STAGES = MT == 256 ? 4 : MT == 192 ? 5 : 8;
    static constexpr int BYTES = 1024 + STAGES * STAGE + 2 * STAGE_BYTES + 16 * STAGES;
};

template <typename T, int MT>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    linear_codes(const __grid_constant__ CUtensorMap w, const __grid_constant__ CUtensorMap x,
                 const __grid_constant__ TileLinear p, const float *block_scales, int64_t padded, Schedule schedule) {
    using Shape = Codes<T, MT>;
    constexpr int STAGES = Shape::STAGES, STAGE = Shape::STAGE;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), stages = (start + 1023) & ~1023u;
    uint8_t *first_stage = shared + (stages - start), *sums_memory = first_stage + STAGES * STAGE;
    const uint32_t full = shared_address(sums_memory) + 2 * STAGE_BYTES, empty = full + 8 * STAGES;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2, items = schedule.items();
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

    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            const int bytes = Shape::W_BYTES + Shape::X_BYTES + (block_scales ? MT * 4 : 0);
            for (int item = cluster; item < items; item += clusters) {
                int pair, m_tile;
                schedule.at(item, &pair, &m_tile);
                for (int block = 0; block < blocks; block++) {
                    const uint32_t at = stages + stage * STAGE, barrier = full + 8 * stage;
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(barrier, bytes);
                    copy_box(at, &w, barrier, block * 128, (pair * 2 + (int)rank) * 128);
                    copy_box_to_both(at + Shape::W_BYTES + rank * (Shape::X_BYTES / 2), &x, barrier, block * 128,
                                     m_tile * MT + (int)rank * (MT / 2));
                    if (block_scales)
                        copy_bytes(at + Shape::W_BYTES + Shape::X_BYTES, block_scales + block * padded + m_tile * MT,
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
        for (int item = cluster; item < items; item += clusters) {
            int pair, m_tile;
            schedule.at(item, &pair, &m_tile);
            const int64_t n0 = (pair * 2 + (int64_t)rank) * 128 + half * 64, m0 = (int64_t)m_tile * MT;
            const uint32_t tile = (uint32_t)min((pair * 2 + (int)rank) * 8 + warp, tiles - 1);
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
                    return load_scales(p.scales, p.scale_type, (tile * groups + (uint32_t)group) * 8 + lane / 4);
                };
                for (int block = 0; block < blocks; block++) {
                    const float2 scale = scale_of(block);
                    barrier_wait(full + 8 * stage, parity);
                    multiply(products, false);
                    products_wait<0>();
                    hold(products);
                    add(scale);
                    if (lane < 2)
                        barrier_arrive_at(empty + 8 * stage, lane);
                    advance();
                }
                store_sums<MT>(sums, to, 1 + half, p.epilogue, n0, m0, p.n, p.m);
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
                store_sums<MT>(products, to, 1 + half, p.epilogue, n0, m0, p.n, p.m);
            }
        }
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

template <typename T, int MT>
static gatun_status launch(const TileLinear &p, const CodesOfX &x, int multiprocessors, cudaStream_t stream) {
    using Shape = Codes<T, MT>;
    const int64_t row = p.steps * 64;
    CUtensorMap w_map, x_map;
    GATUN_CUDA_TRY(tensor_map(&w_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, p.codes, row, p.tiles * 16, row, 128));
    GATUN_CUDA_TRY(tensor_map(&x_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x.codes, p.k, p.m, x.ld, MT / 2));
    Schedule schedule = {(int)((p.tiles + 15) / 16), (int)((p.m + MT - 1) / MT)};
    int64_t clusters = (int64_t)schedule.pairs * schedule.m_tiles;
    if (clusters > multiprocessors / 2)
        clusters = multiprocessors / 2;
    auto kernel = linear_codes<T, MT>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, Shape::BYTES), "linear"));
    kernel<<<(unsigned)(2 * clusters), 384, Shape::BYTES, stream>>>(w_map, x_map, p, x.block_scales, x.padded,
                                                                    schedule);
    return GATUN_OK;
}

gatun_status launch_codes(const TileLinear &p, const CodesOfX &x, bool integers, int multiprocessors,
                          cudaStream_t stream) {
    if (integers)
        return p.m <= 64 ? launch<int32_t, 64>(p, x, multiprocessors, stream)
                         : launch<int32_t, 256>(p, x, multiprocessors, stream);
    return p.m <= 64 ? launch<float, 64>(p, x, multiprocessors, stream)
                     : launch<float, 192>(p, x, multiprocessors, stream);
}

} // namespace gatun
