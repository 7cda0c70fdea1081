/*
 * linear with compute types F8 and I8 on Hopper for many rows of x: products of 8-bit codes of x and W.
 *
 * y = x * W^T: 64 rows of x are the A operand of a warpgroup, 128 or 256 rows of W the B operand, both in shared
 * memory, 128 k a stage. So a thread's sums belong to two rows of x, and the scales of W's blocks are the same for 64
 * columns. One warpgroup copies, the others multiply. A cluster of two blocks shares an operand, each copying half of
 * it to both.
 *
 * int32 sums are exact and stay where they are: two warpgroups with 256 rows of W, whose products always follow each
 * other. The tensor cores add e4m3 products with fewer than 24 bits, so that floats are added up outside of them after
 * each 128 k (as DeepSeek-V3 describes), which takes a warpgroup nearly as long as the products: three warpgroups, of
 * which two have products under way while one adds up.
 */
#include "hopper_share.cuh"
#include "hopper_store.cuh"
#include "tiles.cuh"

namespace gatun {

/* T: float for e4m3, int32_t for int8. */
template <typename T> struct WideCodes {
    static constexpr bool PROMOTES = sizeof(T) == 4 && T(0.5) != T(0);
    static constexpr int WARPGROUPS = PROMOTES ? 3 : 2; /* that multiply */
    static constexpr int THREADS = 128 * (1 + WARPGROUPS);
    /* A thread's: in all no more than the launch's, or warps wait for registers forever. */
    static constexpr int COPY_REGISTERS = PROMOTES ? 32 : 40, REGISTERS = PROMOTES ? 160 : 232;
    static constexpr int XT = 64 * WARPGROUPS, NT = PROMOTES ? 128 : 256; /* rows of x and W a block has of a tile */
    static constexpr bool SHARES_X = PROMOTES;                            /* the cluster; else W */
    static constexpr int X_BYTES = XT * 128, W_BYTES = NT * 128, STAGE = X_BYTES + W_BYTES;
    static constexpr int STAGES = PROMOTES ? 4 : 3, BOXES = PROMOTES ? 2 : 4; /* a warpgroup's */
    /* Of a stage: those of the rows of x, then those of each 64 rows of W. */
    static constexpr int W_SCALES = XT * 4, SCALE_BYTES = PROMOTES ? W_SCALES + 16 : 0;
    static constexpr int BYTES =
        1024 + STAGES * (STAGE + SCALE_BYTES + 16) + WARPGROUPS * BOXES * BOX_BYTES + NT * 8 + 16;
    static_assert(BYTES <= 227 << 10, "what a block may have");
    static constexpr int WORTH = 10;

    /* The first rows of x and W of a block's part of a tile. */
    __device__ static void place(const Schedule &schedule, int item, int *m0, int *n0) {
        int pair, other;
        schedule.at(item, &pair, &other);
        const int two = pair * 2 + (int)cluster_rank();
        *m0 = (SHARES_X ? other : two) * XT;
        *n0 = (SHARES_X ? two : other) * NT;
    }
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

/* The same for y that the copy engine cannot store, 16 columns at a time. */
template <typename T, int NT>
__device__ inline void store_code_sums(const T (&d)[NT / 2], T *stage, int meet, const Epilogue &e,
                                       const float2 *columns, int64_t n0, int64_t m0, int64_t n, int64_t m) {
    constexpr int COLUMNS = 16, PITCH = COLUMNS + 4;
    static_assert(64 * PITCH * 4 <= BOX_BYTES, "the stage is where the boxes are");
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, g = lane / 4, t = lane % 4;
    const int four = threadIdx.x % (COLUMNS / 4) * 4, own_row = threadIdx.x % 128 / (COLUMNS / 4);
#pragma unroll 1
    for (int c = 0; c < NT / COLUMNS; c++) {
        const int64_t column = n0 + c * COLUMNS + four;
        if (n0 + c * COLUMNS >= n)
            break;
        warpgroup_meet(meet);
#pragma unroll
        for (int part = 0; part < NT / COLUMNS; part++)
            if (part == c) /* registers have no index */
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        stage[(16 * warp + g + 8 * (e / 2)) * PITCH + 8 * j + 2 * t + e % 2] =
                            d[(part * (COLUMNS / 8) + j) * 4 + e];
        float scales[4], biases[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            scales[i] = columns[c * COLUMNS + four + i].x, biases[i] = columns[c * COLUMNS + four + i].y;
        warpgroup_meet(meet);
#pragma unroll 1
        for (int row = own_row; row < 64; row += 512 / COLUMNS)
            if (m0 + row < m) {
                const T *v = &stage[row * PITCH + four];
                e.store_four(m0 + row, column, n, make_float4((float)v[0], (float)v[1], (float)v[2], (float)v[3]),
                             scales, biases);
            }
    }
}

/* Arrives when the copies have come that this thread has asked for (copy_async). */
__device__ inline void barrier_arrive_after_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/*
 * By a warp: copies of the scales of each block of k that a cluster multiplies into the stage that its codes lie in.
 * (The copy engine is for tiles: with such crumbs beside them it keeps the tensor cores waiting. So does this warp when
 * it takes longer than the products of a block: nothing is divided in the loop.)
 */
template <typename Shape>
__device__ inline void bring_scales(const TileLinear &p, const CodesOfX &codes, const Schedule &schedule, Walk walk,
                                    uint32_t stage_scales, uint32_t full, uint32_t empty) {
    constexpr int REST = Shape::XT / 4 - 32; /* copies of 16 bytes beyond one a lane */
    static_assert(REST >= 0 && REST <= 32 && Shape::NT / 64 <= 32, "a lane copies each kind once");
    const int lane = threadIdx.x % 32;
    const bool of_x = codes.block_scales, of_rest = of_x && lane<REST, of_w = p.groups> 1 && lane < Shape::NT / 64;
    const int group_bytes = 16 * (p.scale_type == GATUN_F32 ? 4 : 2), per_group = max((int)(p.group / 128), 1);
    int stage = 0;
    uint32_t parity = 1, to = stage_scales;
    for (Segment now; walk.next(&now);) {
        int m0, n0;
        Shape::place(schedule, now.item, &m0, &n0);
        const int64_t tile = min((int64_t)n0 / 16 + 4 * lane, p.tiles - 1);
        int64_t x = now.from * codes.padded + m0 + 4 * lane;
        int64_t w = (tile * p.groups + now.from / per_group) * group_bytes;
        int left = per_group - now.from % per_group; /* blocks of the group */
#pragma unroll 1
        for (int block = now.from; block < now.to; block++) {
            barrier_wait(empty + 8 * stage, parity);
            if (of_x)
                copy_async<16>(to + 16 * lane, codes.block_scales + x);
            if (of_rest)
                copy_async<16>(to + 512 + 16 * lane, codes.block_scales + x + 128);
            if (of_w)
                copy_async<4>(to + Shape::W_SCALES + 4 * lane, (const uint8_t *)p.scales + w);
            barrier_arrive_after_copies(full + 8 * stage);
            x += codes.padded;
            if (--left == 0)
                w += group_bytes, left = per_group;
            to += Shape::SCALE_BYTES;
            if (++stage == Shape::STAGES)
                stage = 0, parity ^= 1, to = stage_scales;
        }
    }
}

template <typename T>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(WideCodes<T>::THREADS, 1)
    linear_codes_wide(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap w,
                      const __grid_constant__ CUtensorMap y, bool boxed, const __grid_constant__ TileLinear p,
                      const __grid_constant__ CodesOfX codes, Schedule schedule, const __grid_constant__ Share share) {
    using Shape = WideCodes<T>;
    constexpr int STAGES = Shape::STAGES, STAGE = Shape::STAGE, NT = Shape::NT;
    extern __shared__ uint8_t shared[];
    const uint32_t start = shared_address(shared), stages = (start + 1023) & ~1023u;
    uint8_t *first_stage = shared + (stages - start), *out = first_stage + STAGES * STAGE;
    float2 *columns =
        (float2 *)(out + Shape::WARPGROUPS * Shape::BOXES * BOX_BYTES); /* of the tile that is stored next */
    float *stage_scales = (float *)(columns + NT); /* of stage after stage; ones where they are the epilogue's */
    const bool brings_scales = Shape::PROMOTES && (codes.block_scales || p.groups > 1);
    const int32_t w_scale_type = p.groups > 1 ? p.scale_type : GATUN_F32;
    const uint32_t full = shared_address(stage_scales) + STAGES * Shape::SCALE_BYTES, empty = full + 8 * STAGES,
                   columns_full = empty + 8 * STAGES, columns_empty = columns_full + 8;
    const uint32_t rank = cluster_rank();
    const int cluster = (int)blockIdx.x / 2;
    Walk walk(share, cluster);

    let_next_begin();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, brings_scales ? 33 : 1);
            barrier_init(empty + 8 * i, 8 * Shape::WARPGROUPS); /* the multiplying warps of both blocks */
        }
        barrier_init(columns_full, 32);
        barrier_init(columns_empty, 128 * Shape::WARPGROUPS);
        barrier_fence_init();
    }
    if (Shape::PROMOTES)
        for (int i = threadIdx.x; i < STAGES * Shape::SCALE_BYTES / 4; i += Shape::THREADS)
            stage_scales[i] = 1.0f;
    __syncthreads();
    cluster_meet();
    wait_for_earlier();

    if (threadIdx.x < 128) { /* copies */
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Shape::COPY_REGISTERS));
        if (threadIdx.x / 32 == 1) {
            uint32_t parity = 1;
            for (Segment now; walk.next(&now);)
                if (now.from == 0) {
                    int m0, n0;
                    Shape::place(schedule, now.item, &m0, &n0);
                    barrier_wait(columns_empty, parity);
                    parity ^= 1;
                    look_up_columns<NT>(columns, p.epilogue, n0, p.n);
                    barrier_arrive(columns_full);
                }
        }
        if (brings_scales && threadIdx.x / 32 == 2)
            bring_scales<Shape>(p, codes, schedule, walk, shared_address(stage_scales), full, empty);
        if (threadIdx.x == 0) {
            int stage = 0;
            uint32_t parity = 1;
            for (Segment now; walk.next(&now);) {
                int m0, n0;
                Shape::place(schedule, now.item, &m0, &n0);
                for (int block = now.from; block < now.to; block++) {
                    const uint32_t at = stages + stage * STAGE, barrier = full + 8 * stage;
                    barrier_wait(empty + 8 * stage, parity);
                    barrier_expect(barrier, STAGE);
                    const uint32_t at_w = at + Shape::X_BYTES;
                    if (Shape::SHARES_X) {
                        copy_box_to_both(at + rank * (Shape::X_BYTES / 2), &x, barrier, block * 128,
                                         m0 + (int)rank * (Shape::XT / 2));
                        copy_box(at_w, &w, barrier, block * 128, n0);
                    } else {
                        copy_box(at, &x, barrier, block * 128, m0);
                        copy_box_to_both(at_w + rank * (Shape::W_BYTES / 2), &w, barrier, block * 128,
                                         n0 + (int)rank * (NT / 2));
                    }
                    if (++stage == STAGES)
                        stage = 0, parity ^= 1;
                }
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Shape::REGISTERS));
        const int lane = threadIdx.x % 32, own = threadIdx.x / 128 - 1;
        uint8_t *own_out = out + own * Shape::BOXES * BOX_BYTES;
        const Boxes<Shape::BOXES> boxes(shared_address(own_out), 1 + own);
        int stage = 0, previous = 0;
        uint32_t parity = 0, columns_parity = 0;
        for (Segment now; walk.next(&now);) {
            int m0, n0;
            Shape::place(schedule, now.item, &m0, &n0);
            m0 += 64 * own;
            const bool inside = m0 < p.m; /* the warpgroup has rows of y to do */
            auto multiply = [&](T(&products)[NT / 2], bool accumulate) {
                const uint32_t at = stages + stage * STAGE;
                const uint64_t a = operand(at + own * (64 * 128)), b = operand(at + Shape::X_BYTES);
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
            auto store = [&](T(&d)[NT / 2]) {
                if (inside ? !completes<Shape::WARPGROUPS>(share, now, cluster, (int)rank, own, 1 + own, d)
                           : now.from > 0)
                    return;
                barrier_wait(columns_full, columns_parity);
                columns_parity ^= 1;
                if (boxed && inside)
                    store_code_boxes<T, NT>(d, boxes, &y, p.epilogue, columns, n0, m0, p.n, p.m);
                else if (inside)
                    store_code_sums<T, NT>(d, (T *)own_out, 1 + own, p.epilogue, columns, n0, m0, p.n, p.m);
                barrier_arrive(columns_empty);
            };
            if constexpr (Shape::PROMOTES) {
                T part[NT / 2], sums[NT / 2] = {};
#pragma unroll 1
                for (int block = now.from; !inside && block < now.to; block++) {
                    barrier_wait(full + 8 * stage, parity);
                    if (lane < 2)
                        barrier_arrive_at(empty + 8 * stage, lane);
                    advance();
                }
                for (int block = now.from; inside && block < now.to; block++) {
                    const float *of_w = stage_scales + (stage * Shape::SCALE_BYTES + Shape::W_SCALES) / 4;
                    const float *of_x = of_w - Shape::XT + own * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
                    barrier_wait(full + 8 * stage, parity);
                    multiply(part, false);
                    float scales[NT / 64][2];
#pragma unroll
                    for (int i = 0; i < NT / 64; i++) {
                        const float scale = scale_values(__float_as_uint(of_w[i]), 0, w_scale_type).x;
                        scales[i][0] = of_x[0] * scale, scales[i][1] = of_x[8] * scale;
                    }
                    products_wait<0>();
                    hold(part);
                    __syncwarp();
                    if (lane < 2)
                        barrier_arrive_at(empty + 8 * stage, lane);
                    advance();
#pragma unroll
                    for (int i = 0; i < NT / 2; i++)
                        sums[i] = fmaf(part[i], scales[i / 32][i % 4 / 2], sums[i]);
                }
                store(sums);
            } else {
                T products[NT / 2];
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
    GATUN_CUDA_TRY(tensor_map(&w_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, p.codes, row, p.tiles * 16, row,
                              Shape::SHARES_X ? Shape::NT : Shape::NT / 2));
    GATUN_CUDA_TRY(tensor_map(&x_map, CU_TENSOR_MAP_DATA_TYPE_UINT8, x.codes, p.k, p.m, x.ld,
                              Shape::SHARES_X ? Shape::XT / 2 : Shape::XT));
    GATUN_CUDA_TRY(store_map(&y_map, p.epilogue, p.n, p.m));
    auto parts = [](int64_t rows, int64_t part) { return (int)((rows + part - 1) / part); };
    const Schedule schedule = Shape::SHARES_X ? Schedule{parts(p.n, 2 * Shape::NT), parts(p.m, Shape::XT)}
                                              : Schedule{parts(p.m, 2 * Shape::XT), parts(p.n, Shape::NT)};
    const int blocks = (int)((p.steps + 1) / 2); /* of 128 k */
    Share share;
    GATUN_CUDA_TRY(share_tiles(&share, (int64_t)schedule.pairs * schedule.m_tiles, blocks, Shape::WORTH,
                               multiprocessors, workspace, stream));
    return launch_early(linear_codes_wide<T>, 2 * share.clusters, Shape::THREADS, Shape::BYTES, stream, x_map, w_map,
                        y_map, stores_boxes(p.epilogue), p, x, schedule, share);
}

gatun_status launch_codes_wide(const TileLinear &p, const CodesOfX &x, bool integers, int multiprocessors,
                               void *workspace, cudaStream_t stream) {
    return integers ? launch<int32_t>(p, x, multiprocessors, workspace, stream)
                    : launch<float>(p, x, multiprocessors, workspace, stream);
}

} // namespace gatun
