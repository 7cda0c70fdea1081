/*
 * linear with compute type BF16 on packed 4-bit codes for three to 16 rows of x, on Hopper: what it costs is to read
 * the weight, and x on every multiprocessor.
 *
 * y^T = W * x^T as in linear_narrow.cuh. A block has the multiprocessor to itself. One thread asks the copy engine for
 * codes and scales, 32 steps of a tile a stage of a ring that fills shared memory; 16 warps multiply, each two steps of
 * a stage, by their part of x, which they hold in registers from tile to tile where K allows. Lanes load 16 bytes of a
 * row at once and then trade words: as operands want x, a load would bring four bytes from each of eight rows. Three
 * more warps add the warps' sums up and store them, beside the products of the next tiles.
 *
 * Codes become bfloat16 through a table of pairs in shared memory, an entry of each byte in a row of 256 bytes of which
 * each lane has its own word: one byte permutation makes the address. The other half of each row, a gap of 128 bytes,
 * holds sums.
 *
 * The kernel may start before the one ahead of it in the stream has ended (programmatic dependent launch): until it has
 * waited for that it reads the packed weight only, which a memset completes (see pack). It asks for x before it fills
 * the table: blocks that start last need not wait, and their time is that of the whole.
 */
#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

enum {
    HELD_WARPS = 16,
    HELD_OWN = 2, /* steps of a warp in a stage */
    HELD_STAGE = HELD_WARPS * HELD_OWN,
    HELD_STAGES = GATUN_CUDA_HELD_STEPS / HELD_STAGE, /* whose x a warp holds */
    HELD_FINISHERS = 3,
    HELD_THREADS = 32 * (HELD_WARPS + 1 + HELD_FINISHERS),
    HELD_TABLE_BYTES = 256 * 256,
    HELD_BUFFERS = 4, /* of sums of a tile, for eight rows of x */
    /* A thread's: in all no more than the launch's. */
    HELD_OTHER_REGISTERS = 64,
    HELD_REGISTERS = 104
};

struct HeldPlan {
    int stages, stage_bytes; /* of the ring */
};

/* Lane t of four gives four words of its own and gets word t of each of the four. */
__device__ static void turn_words(uint32_t *to, const uint4 &v, int t) {
    const bool high = t & 2, odd = t & 1;
    const uint32_t r0 = __shfl_xor_sync(0xFFFFFFFF, high ? v.x : v.z, 2);
    const uint32_t r1 = __shfl_xor_sync(0xFFFFFFFF, high ? v.y : v.w, 2);
    const uint32_t a0 = high ? r0 : v.x, a1 = high ? r1 : v.y, b0 = high ? v.z : r0, b1 = high ? v.w : r1;
    const uint32_t ra = __shfl_xor_sync(0xFFFFFFFF, odd ? a0 : a1, 1);
    const uint32_t rb = __shfl_xor_sync(0xFFFFFFFF, odd ? b0 : b1, 1);
    to[0] = odd ? ra : a0, to[1] = odd ? a1 : ra, to[2] = odd ? rb : b0, to[3] = odd ? b1 : rb;
}

/* NT: eights of rows of x. GROUPS: scale groups of a step, 1 or 2. TYPE: of the scales. */
template <int NT, int GROUPS, int TYPE>
__global__ void __launch_bounds__(HELD_THREADS, 1)
    linear_held(const __grid_constant__ TileLinear p, const __grid_constant__ HeldPlan plan) {
    extern __shared__ __align__(1024) uint8_t shared[];
    constexpr int WARPS = HELD_WARPS, OWN = HELD_OWN, STEPS = HELD_STAGE, HELD = HELD_STAGES;
    constexpr int SCALES = TYPE == GATUN_F32 ? 4 : 2;           /* bytes of a scale */
    constexpr int BUFFERS = HELD_BUFFERS / NT;                  /* of sums, in the gaps */
    constexpr int CHAINS = NT == 1 && GROUPS == 1 ? 2 : GROUPS; /* of products that need not wait for each other */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int steps = (int)p.steps, groups = (int)p.groups, m = (int)p.m;
    const int first = (int)(p.tiles * blockIdx.x / gridDim.x), last = (int)(p.tiles * (blockIdx.x + 1) / gridDim.x);
    auto group_of = [&](int step) { return first_group<GROUPS>(step, p.steps_per_group_inverse); };
    /* A stage: codes, scales, the barriers full and empty. */
    const uint32_t ring = shared_address(shared) + HELD_TABLE_BYTES, ring_end = ring + plan.stages * plan.stage_bytes;
    const int full = plan.stage_bytes - 16, empty = plan.stage_bytes - 8;
    const uint32_t sums_full = ring_end, sums_empty = sums_full + 8 * BUFFERS;
    /* The sums of a worker: four rows of W, from 4 * quad on, of a row of x, turned so that no lanes that store or load
     * together meet in a bank. */
    auto sums_at = [&](int buffer, int worker, int row, int quad) {
        const int pair = row / 2;
        return shared + ((buffer * WARPS + worker) * 4 * NT + pair) * 256 + 128 + (row ^ pair) % 2 * 64 +
               (quad + pair) % 4 * 16;
    };
    uint32_t stage = ring, parity = 0, buffer = 0, buffer_parity = 0;
    auto advance = [&] {
        stage += plan.stage_bytes;
        if (stage == ring_end)
            stage = ring, parity ^= 1;
    };
    auto next_buffer = [&] {
        if (++buffer == BUFFERS)
            buffer = 0, buffer_parity ^= 1;
    };

    if (threadIdx.x == 32 * WARPS) {
        for (uint32_t at = ring; at < ring_end; at += plan.stage_bytes) {
            barrier_init(at + full, 1);
            barrier_init(at + empty, WARPS);
        }
        for (int i = 0; i < BUFFERS; i++) {
            barrier_init(sums_full + 8 * i, WARPS);
            barrier_init(sums_empty + 8 * i, HELD_FINISHERS);
        }
        barrier_fence_init();
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");

    if (warp >= WARPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"((int)HELD_OTHER_REGISTERS));
        if (warp == WARPS) { /* copies */
            if (lane != 0)
                return;
            for (int tile = first; tile < last; tile++)
                for (int step = 0; step < steps; step += STEPS) {
                    const int count = min(STEPS, steps - step);
                    const int group = group_of(step), end = min(group_of(step + count - 1) + GROUPS, groups);
                    const int scale_bytes = (end - group) * 16 * SCALES;
                    barrier_wait(stage + empty, parity ^ 1);
                    barrier_expect(stage + full, count * 512 + scale_bytes);
                    copy_bytes(stage, (const uint8_t *)p.codes + ((int64_t)tile * steps + step) * 512, count * 512,
                               stage + full);
                    copy_bytes(stage + STEPS * 512,
                               (const uint8_t *)p.scales + ((int64_t)tile * groups + group) * (16 * SCALES),
                               scale_bytes, stage + full);
                    advance();
                }
            return;
        }
        asm volatile("griddepcontrol.wait;" ::: "memory");
        for (int tile = first; tile < last; tile++) {
            barrier_wait(sums_full + 8 * buffer, buffer_parity);
            for (int i = (int)threadIdx.x - 32 * (WARPS + 1); i < m * 4; i += 32 * HELD_FINISHERS) {
                float4 sum = {};
#pragma unroll
                for (int w = 0; w < WARPS; w++) {
                    const float4 more = *(const float4 *)sums_at(buffer, w, i / 4, i % 4);
                    sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
                }
                const int64_t n = (int64_t)tile * 16 + i % 4 * 4;
                float w_scales[4], biases[4];
                p.epilogue.columns(n, p.n, w_scales, biases);
                p.epilogue.store_four(i / 4, n, p.n, sum, w_scales, biases);
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive(sums_empty + 8 * buffer);
            next_buffer();
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((int)HELD_REGISTERS));

    const float own = p.table[lane % 16];
    asm volatile("griddepcontrol.wait;" ::: "memory");

    /* The B operands of this warp's steps: for each product s registers 2s and 2s + 1. */
    uint32_t b[HELD * OWN][NT][8];
    uint4 v[HELD * OWN][NT][2];
    auto ask_x = [&](int from) {
        const uint16_t *x = (const uint16_t *)p.rows.data + g * p.rows.ld;
#pragma unroll
        for (int u = 0; u < HELD * OWN; u++) {
            const int column = (from + u / OWN * STEPS + warp * OWN + u % OWN) * 64 + t * 8;
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    v[u][j][half] = make_uint4(0, 0, 0, 0);
                    /* No __ldg: the compiler may move that up past the wait. */
                    if (j * 8 + g < m && column + half * 32 < (int)p.k)
                        v[u][j][half] = *(const uint4 *)(x + j * 8 * p.rows.ld + column + half * 32);
                }
        }
    };
    auto turn_x = [&] {
#pragma unroll
        for (int u = 0; u < HELD * OWN; u++)
#pragma unroll
            for (int j = 0; j < NT; j++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    turn_words(&b[u][j][4 * half], v[u][j][half], t);
    };
    ask_x(0);
#pragma unroll 4
    for (int entry = warp; entry < 256; entry += WARPS)
        ((uint32_t *)shared)[entry * 64 + lane] =
            pair_bf16(__shfl_sync(0xFFFFFFFF, own, entry % 16), __shfl_sync(0xFFFFFFFF, own, entry / 16));
    turn_x();
    const bool holds_all = steps <= HELD * STEPS;
    asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory"); /* the table */

    for (int tile = first; tile < last; tile++) {
        float sums[NT][4] = {};
        for (int from = 0; from < steps; from += HELD * STEPS) {
            if (!holds_all && (tile > first || from > 0)) {
                ask_x(from);
                turn_x();
            }
#pragma unroll
            for (int h = 0; h < HELD; h++) {
                const int stage_step = from + h * STEPS, stage_group = group_of(stage_step);
                if (stage_step >= steps)
                    break;
                const uint8_t *codes = shared + (stage - shared_address(shared)), *scales = codes + STEPS * 512;
                barrier_wait(stage + full, parity);
#pragma unroll
                for (int u = 0; u < OWN; u++) {
                    const int step = stage_step + warp * OWN + u;
                    const uint4 q = *(const uint4 *)(codes + (warp * OWN + u) * 512 + lane * 16);
                    float part[CHAINS][NT][4] = {};
#pragma unroll
                    for (int s = 0; s < 4; s++) {
                        uint32_t a[4];
#pragma unroll
                        for (int i = 0; i < 4; i++) /* bytes: the lane's word, byte i, 0, 0 */
                            a[i] = *(const uint32_t *)(shared + __byte_perm(word_of(q, s), lane * 4, 0x5504 | i << 4));
#pragma unroll
                        for (int j = 0; j < NT; j++)
                            mma16816(part[CHAINS == 2 ? s / 2 : 0][j], a, &b[h * OWN + u][j][2 * s]);
                    }
#pragma unroll
                    for (int i = 0; i < CHAINS; i++) {
                        const int group = min(group_of(step) + (GROUPS == 2 ? i : 0), groups - 1) - stage_group;
                        float2 scale;
                        if (SCALES == 4)
                            scale = ((const float2 *)scales)[group * 8 + g];
                        else
                            scale = scale_values(((const uint32_t *)scales)[group * 8 + g], 0, TYPE);
                        if (step < steps) /* beyond K there is anything */
#pragma unroll
                            for (int j = 0; j < NT; j++)
#pragma unroll
                                for (int e = 0; e < 4; e++)
                                    sums[j][e] = fmaf(part[i][j][e], e < 2 ? scale.x : scale.y, sums[j][e]);
                    }
                }
                __syncwarp();
                if (lane == 0)
                    barrier_arrive(stage + empty);
                advance();
            }
        }
        barrier_wait(sums_empty + 8 * buffer, buffer_parity ^ 1);
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                ((float *)sums_at(buffer, warp, j * 8 + 2 * t + e % 2, g / 4 + e / 2 * 2))[g % 4] = sums[j][e];
        __syncwarp();
        if (lane == 0)
            barrier_arrive(sums_full + 8 * buffer);
        next_buffer();
    }
}

template <int NT, int GROUPS, int TYPE>
static gatun_status launch(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    HeldPlan plan = {};
    const int64_t blocks = p.tiles < device.multiprocessors ? p.tiles : device.multiprocessors;
    const int64_t steps = p.steps < HELD_STAGE ? p.steps : HELD_STAGE, own = (p.tiles + blocks - 1) / blocks;
    /* A stage's groups: those of its steps, and one that begins before them. */
    const int64_t in_stage = GROUPS == 2 ? 2 * steps : (steps * 64 - 1) / p.group + 2;
    const int64_t scales = (in_stage < p.groups ? in_stage : p.groups) * 16 * (TYPE == GATUN_F32 ? 4 : 2);
    plan.stage_bytes = (int)((HELD_STAGE * 512 + scales + 16 + 127) & ~127);
    const int64_t rest = HELD_TABLE_BYTES + 16 * HELD_BUFFERS;
    const int64_t all = own * ((p.steps + HELD_STAGE - 1) / HELD_STAGE);
    plan.stages = (int)((device.shared_bytes - rest) / plan.stage_bytes);
    if (plan.stages > all)
        plan.stages = (int)all;
    const int64_t bytes = rest + (int64_t)plan.stages * plan.stage_bytes;
    auto kernel = linear_held<NT, GROUPS, TYPE>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, (int)bytes), "linear"));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3(HELD_THREADS);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = 1;
    return gatun_cuda_status(cudaLaunchKernelEx(&config, kernel, p, plan), "linear");
}

template <int NT> static gatun_status pick(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    const bool half = p.scale_type == GATUN_F16;
    if (p.groups_per_step == 2)
        return half ? launch<NT, 2, GATUN_F16>(p, device, stream) : launch<NT, 2, GATUN_BF16>(p, device, stream);
    if (p.scale_type == GATUN_F32)
        return launch<NT, 1, GATUN_F32>(p, device, stream);
    return half ? launch<NT, 1, GATUN_F16>(p, device, stream) : launch<NT, 1, GATUN_BF16>(p, device, stream);
}

gatun_status launch_held(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    return p.m <= 8 ? pick<1>(p, device, stream) : pick<2>(p, device, stream);
}

} // namespace gatun
