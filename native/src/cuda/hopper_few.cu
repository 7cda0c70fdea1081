/*
 * linear with compute type BF16 on packed 4-bit codes for up to 64 rows of x, on Hopper: what it costs is to read the
 * weight, and to decode it beside.
 *
 * y^T = W * x^T with warpgroup products as in hopper_fused.cuh: 64 rows of W are the A operand, in registers; rows of x
 * are the B operand, in shared memory. A cluster of two blocks takes up to 256 rows of W, and each block of it half of
 * K (a quarter or an eighth each of its warpgroups, when there are fewer rows than that for a cluster). So every
 * multiprocessor has the same share of the weight and reads a part of x that its warpgroups share.
 *
 * Each warp asks the copy engine for its own tile's codes and scales, a few steps a stage of a ring of its own, from
 * its first instruction on; one more warp asks for x. At the end each warpgroup hands its sums to the block of the
 * cluster that finishes these rows of x.
 *
 * Codes become bfloat16 through a table of pairs in shared memory, an entry of each byte in a row of 256 bytes of which
 * each lane has its own word: one byte permutation makes the address.
 *
 * The kernel may start before the one ahead of it in the stream has ended (programmatic dependent launch): until it has
 * waited for that it reads the packed weight only, which a memset completes (see pack).
 */
#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

enum { FEW_WARPS = 16, FEW_TABLE_BYTES = 256 * 256, FEW_PITCH = 68, FEW_X_BYTES = 72 << 10 };

/* Steps of a stage of codes and of x; two stages of x for four parts of K leave room for one of codes. */
__host__ __device__ constexpr int few_steps(int mt) { return mt >= 32 ? 2 : 4; }

struct FewPlan {
    int parts;                          /* of K in a block: 1, 2 or 4; the warpgroups of a part have other rows of W */
    int steps;                          /* of a part, a multiple of few_steps; those past the last multiply zeros */
    int stages, stage_bytes, scales_at; /* of a warp's ring */
    int x_stages;
    int barriers_at; /* beyond the rings and the sums that take their place */
};

/* GROUPS: scale groups of a step, 1 or 2. SCALES: bytes of a scale. MT: rows of x, at most. */
template <int MT, int GROUPS, int SCALES>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(32 * (FEW_WARPS + 1), 1)
    linear_few(const __grid_constant__ CUtensorMap x, const __grid_constant__ TileLinear p,
               const __grid_constant__ FewPlan plan) {
    extern __shared__ __align__(1024) uint8_t shared[];
    constexpr int STEPS = few_steps(MT), WARPS = FEW_WARPS, X_BYTES = MT * 128, PITCH = FEW_PITCH, HALF = MT / 2;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    const int all_steps = (int)p.steps, groups = (int)p.groups;
    const int rank = (int)cluster_rank(), cluster = (int)blockIdx.x / 2, clusters = (int)gridDim.x / 2;
    const int first = (int)(p.tiles * cluster / clusters), last = (int)(p.tiles * (cluster + 1) / clusters);
    const int most = WARPS / plan.parts; /* tiles at a time */
    const int items = (last - first + most - 1) / most;
    auto item_tile = [&](int item) { return first + (last - first) * item / items; };
    const int rounds = plan.steps / STEPS, x_stage_bytes = plan.parts * STEPS * X_BYTES;

    uint8_t *xs = shared + FEW_TABLE_BYTES, *rings = xs + plan.x_stages * x_stage_bytes;
    const uint32_t x_full = shared_address(shared) + plan.barriers_at, x_empty = x_full + 8 * plan.x_stages;
    const uint32_t full = x_empty + 8 * plan.x_stages + 8 * plan.stages * warp; /* of a warp's ring */

    const int part = (warp / 4) % plan.parts, own = warp / 4 / plan.parts * 4 + warp % 4; /* tile in the item */
    const int first_step = (rank * plan.parts + part) * plan.steps;
    uint8_t *ring = rings + warp * plan.stages * plan.stage_bytes;
    auto group_of = [&](int step) { return first_group<GROUPS>(step, p.steps_per_group_inverse); };
    /* One lane: a round's codes and scales. */
    auto load = [&](int tile, int round, int stage) {
        const int step = first_step + round * STEPS, count = min(STEPS, all_steps - step);
        if (count <= 0)
            return;
        const int group = group_of(step), end = min(group_of(step + count - 1) + GROUPS, groups);
        const uint32_t to = shared_address(ring) + stage * plan.stage_bytes, barrier = full + 8 * stage;
        const int scale_bytes = (end - group) * 16 * SCALES;
        barrier_expect(barrier, count * 512 + scale_bytes);
        copy_bytes(to, (const uint8_t *)p.codes + ((int64_t)tile * all_steps + step) * 512, count * 512, barrier);
        copy_bytes(to + plan.scales_at, (const uint8_t *)p.scales + ((int64_t)tile * groups + group) * (16 * SCALES),
                   scale_bytes, barrier);
    };
    int stage = 0;
    auto fill = [&](int item) {
        if (warp < WARPS && lane == 0 && item_tile(item) + own < item_tile(item + 1))
            for (int i = 0; i < plan.stages && i < rounds; i++)
                load(item_tile(item) + own, i, (stage + i) % plan.stages);
    };

    if (lane == 0) {
        if (warp < WARPS) {
            for (int i = 0; i < plan.stages; i++)
                barrier_init(full + 8 * i, 1);
        } else {
            asm volatile("prefetch.tensormap [%0];" ::"l"(&x) : "memory");
            for (int i = 0; i < plan.x_stages; i++) {
                barrier_init(x_full + 8 * i, 1);
                barrier_init(x_empty + 8 * i, WARPS);
            }
        }
        barrier_fence_init();
    }
    fill(0);
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    const float value = p.table[lane % 16];
#pragma unroll 4
    for (int entry = warp; entry < 256; entry += WARPS + 1)
        ((uint32_t *)shared)[entry * 64 + lane] =
            pair_bf16(__shfl_sync(0xFFFFFFFF, value, entry % 16), __shfl_sync(0xFFFFFFFF, value, entry / 16));
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");

    int x_stage = 0;
    uint32_t parity = 0, x_parity = 0;
    for (int item = 0; item < items; item++) {
        const int tile = item_tile(item) + own, end_tile = item_tile(item + 1);
        float sums[MT / 2] = {};
        if (item > 0) {
            asm volatile("fence.proxy.async;" ::: "memory");
            __syncthreads();
            fill(item);
        }
        if (warp == WARPS) {
            if (lane == 0)
                for (int round = 0; round < rounds; round++) {
                    barrier_wait(x_empty + 8 * x_stage, x_parity ^ 1);
                    barrier_expect(x_full + 8 * x_stage, x_stage_bytes);
                    for (int q = 0; q < plan.parts; q++)
                        for (int u = 0; u < STEPS; u++)
                            copy_box(shared_address(xs) + x_stage * x_stage_bytes + (q * STEPS + u) * X_BYTES, &x,
                                     x_full + 8 * x_stage,
                                     ((rank * plan.parts + q) * plan.steps + round * STEPS + u) * 64, 0);
                    if (++x_stage == plan.x_stages)
                        x_stage = 0, x_parity ^= 1;
                }
            __syncwarp();
        } else {
            uint32_t a[2][16] = {};
            int previous = 0;
            const uint32_t own_x = shared_address(xs) + part * STEPS * X_BYTES;
            for (int round = 0; round < rounds; round++) {
                const int step = first_step + round * STEPS;
                const bool inside = tile < end_tile && step < all_steps;
                const uint8_t *codes = ring + stage * plan.stage_bytes, *scales = codes + plan.scales_at;
                const int round_group = group_of(step);
                if (inside)
                    barrier_wait(full + 8 * stage, parity);
#pragma unroll
                for (int u = 0; u < STEPS; u++) {
                    uint32_t *to = a[u % 2];
                    if (inside && step + u < all_steps) {
                        const uint4 q = *(const uint4 *)(codes + u * 512 + lane * 16);
                        uint32_t twice[GROUPS][2]; /* the scales of rows g and g + 8 in both halves */
#pragma unroll
                        for (int i = 0; i < GROUPS; i++) {
                            const int pair = (min(group_of(step + u) + i, groups - 1) - round_group) * 8 + g;
                            float2 scale;
                            if (SCALES == 4)
                                scale = ((const float2 *)scales)[pair];
                            else
                                scale = scale_values(((const uint32_t *)scales)[pair], 0, p.scale_type);
                            twice[i][0] = pair_bf16(scale.x, scale.x), twice[i][1] = pair_bf16(scale.y, scale.y);
                        }
#pragma unroll
                        for (int s = 0; s < 4; s++)
#pragma unroll
                            for (int i = 0; i < 4; i++) { /* bytes: the lane's word, byte i, 0, 0 */
                                const uint32_t entry =
                                    *(const uint32_t *)(shared + __byte_perm(word_of(q, s), lane * 4, 0x5504 | i << 4));
                                to[4 * s + i] = times_bf16(entry, twice[GROUPS == 2 ? s / 2 : 0][i % 2]);
                            }
                    } else {
#pragma unroll
                        for (int i = 0; i < 16; i++)
                            to[i] = 0;
                    }
                    if (u == STEPS - 1) {
                        __syncwarp();
                        if (lane == 0 && inside && round + plan.stages < rounds)
                            load(tile, round + plan.stages, stage);
                    }
                    if (u == 0)
                        barrier_wait(x_full + 8 * x_stage, x_parity);
                    hold(sums);
                    products_begin();
                    const uint64_t b = operand(own_x + x_stage * x_stage_bytes + u * X_BYTES);
#pragma unroll
                    for (int s = 0; s < 4; s++)
                        multiply_bf16<MT>(sums, to + 4 * s, b + 2 * s, true);
                    products_commit();
                    hold(sums);
                    products_wait<1>();
                    if (u == 0 && round > 0 && lane == 0)
                        barrier_arrive(x_empty + 8 * previous);
                }
                previous = x_stage;
                if (++x_stage == plan.x_stages)
                    x_stage = 0, x_parity ^= 1;
                if (inside && ++stage == plan.stages)
                    stage = 0, parity ^= 1;
            }
            products_wait<0>();
            hold(sums);
            if (lane == 0)
                barrier_arrive(x_empty + 8 * previous);
        }

        /* The rings are free, in both blocks: [block and warpgroup][row of x][64 rows of W] of what this block
         * finishes. */
        cluster_meet();
        if (warp < WARPS) {
            uint32_t base[2]; /* of both blocks' sums */
#pragma unroll
            for (int r = 0; r < 2; r++)
                asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(base[r]) : "r"(shared_address(xs)), "r"(r));
#pragma unroll
            for (int i = 0; i < MT / 2; i++) {
                const int row = i / 4 * 8 + lane % 4 * 2 + i % 2, to = row / HALF;
                const uint32_t at =
                    ((rank * 4 + warp / 4) * HALF + row % HALF) * PITCH + warp % 4 * 16 + g + i / 2 % 2 * 8;
                asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"((to ? base[1] : base[0]) + 4 * at), "f"(sums[i])
                             : "memory");
            }
        }
        cluster_meet();
        const int fours = (end_tile - item_tile(item)) * 4;
        for (int i = (int)threadIdx.x; i < fours * HALF; i += 32 * (WARPS + 1)) {
            const int row = i / fours, four = i % fours, group = four / 16 * plan.parts;
            const int64_t n = (int64_t)item_tile(item) * 16 + four * 4;
            if (rank * HALF + row >= p.m)
                break;
            float4 sum = {};
            for (int c = 0; c < 2 * plan.parts; c++) {
                const float4 more =
                    *(const float4 *)((const float *)xs +
                                      ((c / plan.parts * 4 + group + c % plan.parts) * HALF + row) * PITCH +
                                      four % 16 * 4);
                sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
            }
            float w_scales[4], biases[4];
            p.epilogue.columns(n, p.n, w_scales, biases);
            p.epilogue.store_four(rank * HALF + row, n, p.n, sum, w_scales, biases);
        }
    }
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <int MT, int GROUPS, int SCALES>
static gatun_status launch(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    CUtensorMap x;
    GATUN_CUDA_TRY(tensor_map(&x, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, p.rows.data, p.k, p.m, p.rows.ld * 2, MT));
    FewPlan plan = {};
    const int64_t clusters = p.tiles < device.multiprocessors / 2 ? p.tiles : device.multiprocessors / 2;
    const int64_t tiles = ceil_div(p.tiles, clusters);
    plan.parts = tiles <= 4 ? 4 : tiles <= 8 ? 2 : 1;
    constexpr int STEPS = few_steps(MT);
    plan.steps = (int)(ceil_div(ceil_div(p.steps, 2 * plan.parts), STEPS) * STEPS);
    plan.scales_at = STEPS * 512;
    const int64_t in_stage = GROUPS == 2 ? 2 * STEPS : (STEPS * 64 - 1) / p.group + 2;
    plan.stage_bytes = (int)((plan.scales_at + (in_stage < p.groups ? in_stage : p.groups) * 16 * SCALES + 127) & ~127);
    const int rounds = plan.steps / STEPS;
    const int x_stage = plan.parts * STEPS * MT * 128 + 16, code_stage = FEW_WARPS * (plan.stage_bytes + 8);
    int64_t room = device.shared_bytes - FEW_TABLE_BYTES;
    plan.x_stages = (int)(FEW_X_BYTES / x_stage);
    if (plan.x_stages > rounds)
        plan.x_stages = rounds;
    if (plan.x_stages < 2)
        plan.x_stages = 2;
    plan.stages = (int)((room - plan.x_stages * x_stage) / code_stage);
    if (plan.stages > rounds)
        plan.stages = rounds;
    const int64_t in_rings =
        FEW_TABLE_BYTES + plan.x_stages * (x_stage - 16) + plan.stages * (code_stage - 8 * FEW_WARPS);
    const int64_t of_sums = FEW_TABLE_BYTES + 8 * (MT / 2) * FEW_PITCH * 4;
    plan.barriers_at = (int)(in_rings > of_sums ? in_rings : of_sums);
    const int64_t bytes = plan.barriers_at + 16 * plan.x_stages + 8 * FEW_WARPS * plan.stages;
    auto kernel = linear_few<MT, GROUPS, SCALES>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, (int)bytes), "linear"));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(2 * clusters));
    config.blockDim = dim3(32 * (FEW_WARPS + 1));
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = 1;
    return gatun_cuda_status(cudaLaunchKernelEx(&config, kernel, x, p, plan), "linear");
}

template <int GROUPS, int SCALES>
static gatun_status pick(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    if (p.m <= 16)
        return launch<16, GROUPS, SCALES>(p, device, stream);
    if (p.m <= 32)
        return launch<32, GROUPS, SCALES>(p, device, stream);
    return launch<64, GROUPS, SCALES>(p, device, stream);
}

gatun_status launch_few(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    if (p.groups_per_step == 2)
        return pick<2, 2>(p, device, stream);
    return p.scale_type == GATUN_F32 ? pick<1, 4>(p, device, stream) : pick<1, 2>(p, device, stream);
}

} // namespace gatun
