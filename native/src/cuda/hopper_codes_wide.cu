/*
 * linear with compute types F8 and I8 on Hopper for many rows of x: products of 8-bit codes of x and W.
 *
 * y = x * W^T: 64 rows of x are the A operand of a warpgroup, 128 or 256 rows of W the B operand, both in shared
 * memory, 128 k a stage. So a thread's sums belong to two rows of x, and the scales of W's blocks are the same for 64
 * columns: adding up the products of 128 k costs one multiplication a sum, with scales that stay in registers, while
 * the products of the next 128 k are under way. One warpgroup copies, two multiply. A cluster of two blocks with other
 * rows of x shares the rows of W, each copying half of them to both.
 *
 * The tensor cores add e4m3 products with fewer than 24 bits, so that floats are added up outside of them after each
 * 128 k (as DeepSeek-V3 describes); int32 sums are exact and stay where they are.
 */
#include "hopper_share.cuh"
#include "hopper_store.cuh"
#include "tiles.cuh"

namespace gatun {

/* T: float for e4m3, int32_t for int8. */
template <typename T> struct WideCodes {
    static constexpr bool PROMOTES = sizeof(T) == 4 && T(0.5) != T(0);
    static constexpr int NT = PROMOTES ? 128 : 256; /* rows of W a tile */
    static constexpr int X_BYTES = 128 * 128, W_BYTES = NT * 128, SCALE_BYTES = PROMOTES ? 1024 : 0;
    static constexpr int STAGE = X_BYTES + W_BYTES + SCALE_BYTES, STAGES = PROMOTES ? 5 : 3;
    static constexpr int BOXES = PROMOTES ? 2 : 4; /* a warpgroup's */
    static constexpr int BYTES = 1024 + STAGES * STAGE + 2 * BOXES * BOX_BYTES + NT * 8 + 16 * STAGES + 16;
    static constexpr int WORTH = 10;
};

/* Scale and bias of each of NT columns of y from n0 on, by a warp; what lies beyond n is not stored. */
template <int NT> __device__ inline void look_up_columns(float2 *columns, const Epilogue &e, int64_t n0, int64_t n) {
    for (int i = threadIdx.x % 32; i < NT; i += 32) {
        const int64_t column = min(n0 + i, n - 1);
        columns[i] = make_float2(e.w_scales ? e.w_scale(column) : 1.0f, e.bias ? e.bias[column] : 0.0f);
    }
}

/* A warpgroup's sums of 64 rows of x from m0 on by NT rows of W from n0 on, in boxes. */
template <typename T, int NT, int COUNT>
__device__ inline void store_code_boxes(const T (&d)[NT / 2], const Boxes<COUNT> &boxes, const CUtensorMap *map,
                                        const Epilogue &e, const float2 *columns, int64_t n0, int64_t m0, int64_t n,
                                        int64_t m) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, r = lane % 8, matrix = lane / 8, t = lane % 4;
    const int64_t row = m0 + 16 * warp + lane / 4;
    const float of_x = e.x_scales && row < m ? e.x_scales[row] : 1.0f;
    const float of_x8 = e.x_scales && row + 8 < m ? e.x_scales[row + 8] : 1.0f;
    /* Rows 16 * warp + matrix % 2 * 8 + r; columns, in eights, 2 * i + matrix / 2. */
    const uint32_t own = (uint32_t)((16 * warp + matrix % 2 * 8 + r) * 128 + (matrix / 2 ^ r) * 16);
#pragma unroll
    for (int box = 0; box < NT / 64; box++) {
        if (n0 + box * 64 >= n)
            break;
        boxes.begin();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t words[4];
#pragma unroll
            for (int eight = 0; eight < 2; eight++) {
                const int j = box * 8 + 2 * i + eight;
                const float4 two = *(const float4 *)&columns[8 * j + 2 * t];
                words[2 * eight] =
                    e.pair(fmaf((float)d[4 * j] * of_x, two.x, two.y), fmaf((float)d[4 * j + 1] * of_x, two.z, two.w));
                words[2 * eight + 1] = e.pair(fmaf((float)d[4 * j + 2] * of_x8, two.x, two.y),
                                              fmaf((float)d[4 * j + 3] * of_x8, two.z, two.w));
            }
            store_matrices<false>(boxes.address(box) + (own ^ 32 * i), words[0], words[1], words[2], words[3]);
        }
        boxes.end(box, map, n0 + box * 64, m0);
    }
}

/* The same for y that the copy engine cannot store, 32 columns at a time. */
template <typename T, int NT>
__device__ inline void store_code_sums(const T (&d)[NT / 2], T *stage, int meet, const Epilogue &e,
                                       const float2 *columns, int64_t n0, int64_t m0, int64_t n, int64_t m) {
    constexpr int PITCH = 36;
    static_assert(64 * PITCH * 4 <= 2 * BOX_BYTES, "the stage is where the boxes are");
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, g = lane / 4, t = lane % 4;
    const int four = threadIdx.x % 8 * 4, own_row = threadIdx.x % 128 / 8;
#pragma unroll 1
    for (int c = 0; c < NT / 32; c++) {
        const int64_t column = n0 + c * 32 + four;
        if (n0 + c * 32 >= n)
            break;
        warpgroup_meet(meet);
#pragma unroll
        for (int part = 0; part < NT / 32; part++)
            if (part == c) /* registers have no index */
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        stage[(16 * warp + g + 8 * (e / 2)) * PITCH + 8 * j + 2 * t + e % 2] =
                            d[(part * 4 + j) * 4 + e];
        float scales[4], biases[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            scales[i] = columns[c * 32 + four + i].x, biases[i] = columns[c * 32 + four + i].y;
        warpgroup_meet(meet);
#pragma unroll 1
        for (int row = own_row; row < 64; row += 16)
            if (m0 + row < m) {
                const T *v = &stage[row * PITCH + four];
                e.store_four(m0 + row, column, n, make_float4((float)v[0], (float)v[1], (float)v[2], (float)v[3]),
                             scales, biases);
            }
    }
}

template <typename T>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)
    linear_codes_wide(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                      const __grid_constant__ CUtensorMap y, bool boxed, const __grid_constant__ TileLinear p,
                      const float *block_scales, int64_t padded, Schedule schedule,
                      const __grid_constant__ Share share) {
    using Shape = WideCodes<T>;
    constexpr int STAGES = Shape::STAGES, STAGE = Shape::STAGE, NT = Shape::NT;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), stages = (start + 1023) & ~1023u;
    uint8_t *first_stage = shared + (stages - start), *out = first_stage + STAGES * STAGE;
    float2 *columns = (float2 *)(out + 2 * Shape::BOXES * BOX_BYTES); /* of the tile that is stored next */
    const uint32_t full = shared_address(columns + NT), empty = full + 8 * STAGES, columns_full = empty + 8 * STAGES,
                   columns_empty = columns_full + 8;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2;
    /* Scales of W's blocks of k; where there is one, it is the epilogue's. */
    const bool w_scales = Shape::PROMOTES && p.groups > 1;
    const int scale_size = p.scale_type == GATUN_F32 ? 4 : 2;
    Walk walk(share, cluster);

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 16); /* the multiplying warps of both blocks */
        }
        barrier_init(columns_full, 32);
        barrier_init(columns_empty, 256);
        barrier_fence_init();
    }
    __syncthreads();
    cluster_meet();

    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x / 32 == 1) {
            uint32_t parity = 1;
            for (Segment now; walk.next(&now);)
                if (now.from == 0) {
                    int pair, n_tile;
                    schedule.at(now.item, &pair, &n_tile);
                    barrier_wait(columns_empty, parity);
                    parity ^= 1;
                    look_up_columns<NT>(columns, p.epilogue, (int64_t)n_tile * NT, p.n);
                    barrier_arrive(columns_full);
                }
        }
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            const int bytes =
                Shape::X_BYTES + Shape::W_BYTES + (block_scales ? 512 : 0) + (w_scales ? NT / 64 * 16 * scale_size : 0);
            for (Segment now; walk.next(&now);) {
                int pair, n_tile;
                schedule.at(now.item, &pair, &n_tile);
                const int row = (pair * 2 + (int)rank) * 128;
                for (int block = now.from; block < now.to; block++) {
                    const uint32_t at = stages + stage * STAGE, barrier = full + 8 * stage;
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(barrier, bytes);
                    copy_box(at, &x, barrier, block * 128, row);
                    copy_box_to_both(at + Shape::X_BYTES + rank * (Shape::W_BYTES / 2), &w, barrier, block * 128,
                                     n_tile * NT + (int)rank * (NT / 2));
                    const uint32_t scales = at + Shape::X_BYTES + Shape::W_BYTES;
                    if (block_scales)
                        copy_bytes(scales, block_scales + block * padded + row, 512, barrier);
                    if (w_scales) {
                        const int group = min(block * 128 / (int)p.group, (int)p.groups - 1);
                        for (int i = 0; i < NT / 64; i++) {
                            const int64_t tile = min(n_tile * (NT / 16) + 4 * i, (int)p.tiles - 1);
                            copy_bytes(scales + 512 + 64 * i,
                                       (const uint8_t *)p.scales + (tile * p.groups + group) * 16 * scale_size,
                                       16 * scale_size, barrier);
                        }
                    }
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        const int lane = threadIdx.x % 32, half = threadIdx.x / 128 - 1;
        uint8_t *own_out = out + half * Shape::BOXES * BOX_BYTES;
        const Boxes<Shape::BOXES> boxes(shared_address(own_out), 1 + half);
        int stage = 0, previous = 0;
        uint32_t parity = 0, columns_parity = 0;
        for (Segment now; walk.next(&now);) {
            int pair, n_tile;
            schedule.at(now.item, &pair, &n_tile);
            const int64_t m0 = (pair * 2 + (int64_t)rank) * 128 + half * 64, n0 = (int64_t)n_tile * NT;
            auto multiply = [&](T(&products)[NT / 2], bool accumulate) {
                const uint32_t at = stages + stage * STAGE;
                const uint64_t a = operand(at + half * (64 * 128)), b = operand(at + Shape::X_BYTES);
                hold(products);
                products_begin();
#pragma unroll
                for (int s = 0; s < 4; s++)
                    multiply_codes<NT>(products, a + 2 * s, b + 2 * s, s > 0 || accumulate);
                products_commit();
                hold(products);
            };
            auto advance = [&] {
                if (++stage == STAGES)
                    stage = 0, parity ^= 1;
            };
            T products[NT / 2];
            auto store = [&](T(&d)[NT / 2]) {
                if (!completes(share, now, cluster, (int)rank, half, 1 + half, d))
                    return;
                barrier_wait(columns_full, columns_parity);
                columns_parity ^= 1;
                if (boxed)
                    store_code_boxes<T, NT>(d, boxes, &y, p.epilogue, columns, n0, m0, p.n, p.m);
                else
                    store_code_sums<T, NT>(d, (T *)own_out, 1 + half, p.epilogue, columns, n0, m0, p.n, p.m);
                barrier_arrive(columns_empty);
            };
            if constexpr (Shape::PROMOTES) {
                constexpr int PARTS = NT / 64;
                /* Two blocks of products: one is added up while the next is under way. */
                T more[NT / 2], sums[NT / 2] = {};
                float2 scales[2][PARTS]; /* of rows g and g + 8 by each 64 columns */
                int done = stage;
                auto begin = [&](T(&d)[NT / 2], float2(&of)[PARTS]) {
                    barrier_wait(full + 8 * stage, parity);
                    multiply(d, false);
                    const uint8_t *at = first_stage + stage * STAGE + Shape::X_BYTES + Shape::W_BYTES;
                    const float *xs = (const float *)at + half * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
                    const float of_x = block_scales ? xs[0] : 1.0f, of_x8 = block_scales ? xs[8] : 1.0f;
#pragma unroll
                    for (int i = 0; i < PARTS; i++) {
                        const float of_w = w_scales ? load_plain(p.scale_type, at + 512 + 64 * i, 0) : 1.0f;
                        of[i] = make_float2(of_x * of_w, of_x8 * of_w);
                    }
                    advance();
                };
                auto add = [&](T(&d)[NT / 2], const float2(&of)[PARTS]) {
                    hold(d);
                    if (lane < 2)
                        barrier_arrive_at(empty + 8 * done, lane);
                    if (++done == STAGES)
                        done = 0;
#pragma unroll
                    for (int i = 0; i < NT / 2; i++)
                        sums[i] = fmaf(d[i], i % 4 < 2 ? of[i / 32].x : of[i / 32].y, sums[i]);
                };
                int block = now.from;
                begin(products, scales[0]);
                for (; block + 2 < now.to; block += 2) {
                    begin(more, scales[1]);
                    products_wait<1>();
                    add(products, scales[0]);
                    begin(products, scales[0]);
                    products_wait<1>();
                    add(more, scales[1]);
                }
                if (block + 1 < now.to) {
                    begin(more, scales[1]);
                    products_wait<1>();
                    add(products, scales[0]);
                    products_wait<0>();
                    add(more, scales[1]);
                } else {
                    products_wait<0>();
                    add(products, scales[0]);
                }
                store(sums);
            } else {
                for (int block = now.from; block < now.to; block++) {
                    barrier_wait(full + 8 * stage, parity);
                    multiply(products, block > now.from);
                    products_wait<1>();
                    if (block > now.from && lane < 2)
                        barrier_arrive_at(empty + 8 * previous, lane);
                    previous = stage;
                    advance();
                }
                products_wait<0>();
                hold(products);
                if (lane < 2)
                    barrier_arrive_at(empty + 8 * previous, lane);
                store(products);
            }
        }
        boxes.finish();
    }
    cluster_meet(); /* no block leaves while the other may still write to it */
}

template <typename T>
static gatun_status launch(const TileLinear &p, const CodesOfX &x, int multiprocessors, void *workspace,
                           cudaStream_t stream) {
    using Shape = WideCodes<T>;
    const int64_t row = p.steps * 64;
    CUtensorMap w_map, x_map, y_map;
    GATUN_CUDA_TRY(tensor_map(&w_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, p.codes, row, p.tiles * 16, row, Shape::NT / 2));
    GATUN_CUDA_TRY(tensor_map(&x_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x.codes, p.k, p.m, x.ld, 128));
    GATUN_CUDA_TRY(store_map(&y_map, p.epilogue, p.n, p.m));
    const Schedule schedule = {(int)((p.m + 255) / 256), (int)((p.n + Shape::NT - 1) / Shape::NT)};
    const int blocks = (int)((p.steps + 1) / 2); /* of 128 k */
    Share share;
    GATUN_CUDA_TRY(share_tiles(&share, (int64_t)schedule.pairs * schedule.m_tiles, blocks, Shape::WORTH,
                               multiprocessors, workspace, stream));
    auto kernel = linear_codes_wide<T>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, Shape::BYTES), "linear"));
    kernel<<<(unsigned)(2 * share.clusters), 384, Shape::BYTES, stream>>>(x_map, w_map, y_map, stores_boxes(p.epilogue),
                                                                          p, x.block_scales, x.padded, schedule, share);
    return GATUN_OK;
}

gatun_status launch_codes_wide(const TileLinear &p, const CodesOfX &x, bool integers, int multiprocessors,
                               void *workspace, cudaStream_t stream) {
    return integers ? launch<int32_t>(p, x, multiprocessors, workspace, stream)
                    : launch<float>(p, x, multiprocessors, workspace, stream);
}

} // namespace gatun
