/*
 * linear with compute type BF16 on packed 4-bit codes for up to eight rows of x, on Hopper: what it costs is to read
 * the weight. Chosen for one and two; hopper_held.cu has the others.
 *
 * y^T = W * x^T as in linear_narrow.cuh. A block has the multiprocessor to itself: one thread asks the copy engine for
 * codes and scales, a tile (or 64 steps of one) a stage of a ring that fills shared memory, so that from the first
 * microsecond on as much is on its way as has room; 16 warps multiply, each 4 steps of a stage. A warp keeps its part
 * of x in registers from tile to tile where K allows. The warps' sums meet in shared memory.
 *
 * The kernel may start before the one ahead of it in the stream has ended (programmatic dependent launch): until it has
 * waited for that it reads the packed weight only, which a memset completes (see pack).
 */
#include "hopper_stream.cuh"

namespace gatun {

struct StreamPlan {
    int stages, stage_bytes; /* of the ring */
    int scales_at;           /* in a stage */
    int slots;               /* tiles whose sums have room, twice */
};

/* GROUPS: scale groups of a step, 1 or 2. SCALES: bytes of a scale. */
template <int GROUPS, int SCALES>
__global__ void __launch_bounds__(32 * (STREAM_WARPS + 1), 1)
    linear_stream(const __grid_constant__ TileLinear p, const __grid_constant__ StreamPlan plan) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr int PITCH = STREAM_PITCH, OWN = STREAM_OWN, WARPS = STREAM_WARPS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int steps = (int)p.steps, groups = (int)p.groups, m = (int)p.m;
    const int first = (int)(p.tiles * blockIdx.x / gridDim.x), last = (int)(p.tiles * (blockIdx.x + 1) / gridDim.x);
    const int rounds = (steps + STREAM_STEPS - 1) / STREAM_STEPS;
    uint8_t *stages = shared + STREAM_TABLE_BYTES;
    float *sums = (float *)(stages + plan.stages * plan.stage_bytes);
    const int half = plan.slots * WARPS * m * PITCH; /* floats of one of the two buffers of sums */
    const uint32_t full = shared_address(sums + 2 * half), empty = full + 8 * plan.stages;
    auto group_of = [&](int step) { return first_group<GROUPS>(step, p.steps_per_group_inverse); };

    if (threadIdx.x == 32 * WARPS) {
        for (int i = 0; i < plan.stages; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, WARPS);
        }
        barrier_fence_init();
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");

    if (warp == WARPS) { /* copies */
        if (lane != 0)
            return;
        int stage = 0;
        uint32_t parity = 1;
        for (int tile = first; tile < last; tile++)
            for (int round = 0; round < rounds; round++) {
                const int step = round * STREAM_STEPS, count = min(STREAM_STEPS, steps - step);
                const int group = group_of(step), end = min(group_of(step + count - 1) + GROUPS, groups);
                const uint32_t at = shared_address(stages) + stage * plan.stage_bytes;
                const int scale_bytes = (end - group) * 16 * SCALES;
                barrier_wait(empty + 8 * stage, parity);
                barrier_expect(full + 8 * stage, count * 512 + scale_bytes);
                copy_bytes(at, (const uint8_t *)p.codes + ((int64_t)tile * steps + step) * 512, count * 512,
                           full + 8 * stage);
                copy_bytes(at + plan.scales_at,
                           (const uint8_t *)p.scales + ((int64_t)tile * groups + group) * (16 * SCALES), scale_bytes,
                           full + 8 * stage);
                if (++stage == plan.stages)
                    stage = 0, parity ^= 1;
            }
        return;
    }

    stream_table(shared, p.table);
    asm volatile("griddepcontrol.wait;" ::: "memory");

    /* The B operands of this warp's steps: for each product s registers 2s and 2s + 1. */
    uint32_t b[OWN][8];
    const uint16_t *row = (const uint16_t *)p.rows.data + (int64_t)g * p.rows.ld;
    auto gather = [&](int round) {
#pragma unroll
        for (int u = 0; u < OWN; u++)
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int step = round * STREAM_STEPS + u * WARPS + warp;
                const int at = step * GATUN_CUDA_STEP_K + column_of(false, false, i / 2, t, i % 2, 0);
                /* No __ldg: the compiler may move that up past the wait. */
                b[u][i] = g < m && at < (int)p.k ? *(const uint32_t *)(row + at) : 0;
            }
    };
    if (rounds == 1)
        gather(0);
    asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");

    int stage = 0, slot = 0, buffer = 0;
    uint32_t parity = 0;
    for (int tile = first; tile < last; tile++) {
        float acc[4] = {};
        for (int round = 0; round < rounds; round++) {
            if (rounds > 1)
                gather(round);
            barrier_wait(full + 8 * stage, parity);
            const uint8_t *codes = stages + stage * plan.stage_bytes, *scales = codes + plan.scales_at;
            stream_stage<GROUPS, SCALES>(acc, shared, codes, scales, b, round * STREAM_STEPS, p, group_of);
            __syncwarp();
            if (lane == 0)
                barrier_arrive(empty + 8 * stage);
            if (++stage == plan.stages)
                stage = 0, parity ^= 1;
        }
        float *to = sums + buffer * half + (slot * WARPS + warp) * m * PITCH + g;
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (t * 2 + e % 2 < m)
                to[(t * 2 + e % 2) * PITCH + e / 2 * 8] = acc[e];
        if (++slot < plan.slots && tile + 1 < last)
            continue;
        /* Whoever comes here twice has seen all others come once: two buffers and one barrier. */
        asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");
        for (int i = (int)threadIdx.x; i < slot * m * 16; i += 32 * WARPS) {
            const int of = i / (16 * m), column = i / 16 % m;
            const float *from = sums + buffer * half + (of * WARPS * m + column) * PITCH + i % 16;
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < WARPS; k++)
                sum += from[k * m * PITCH];
            const int64_t n = (int64_t)(tile + 1 - slot + of) * 16 + i % 16;
            if (n < p.n)
                p.epilogue.store(column, n, sum);
        }
        slot = 0;
        buffer ^= 1;
    }
}

template <int GROUPS, int SCALES>
static gatun_status launch(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    StreamPlan plan = {};
    const int64_t blocks = p.tiles < device.multiprocessors ? p.tiles : device.multiprocessors;
    const int64_t own = (p.tiles + blocks - 1) / blocks;
    const StreamStage stage = stream_stage_of<GROUPS, SCALES>(p);
    plan.stage_bytes = stage.bytes, plan.scales_at = stage.scales_at;
    const int64_t tile_sums = 2 * STREAM_WARPS * p.m * STREAM_PITCH * 4, room = 32 << 10;
    plan.slots = (int)(own * tile_sums <= room ? own : tile_sums >= room ? 1 : room / tile_sums);
    const int64_t rest = plan.slots * tile_sums + STREAM_TABLE_BYTES;
    plan.stages = (int)((device.shared_bytes - rest) / (plan.stage_bytes + 16));
    const int64_t all = own * ((p.steps + STREAM_STEPS - 1) / STREAM_STEPS);
    if (plan.stages > all)
        plan.stages = (int)all;
    const int64_t bytes = rest + (int64_t)plan.stages * (plan.stage_bytes + 16);
    auto kernel = linear_stream<GROUPS, SCALES>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, (int)bytes), "linear"));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3(32 * (STREAM_WARPS + 1));
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = 1;
    return gatun_cuda_status(cudaLaunchKernelEx(&config, kernel, p, plan), "linear");
}

gatun_status launch_narrow(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    if (p.groups_per_step == 2)
        return launch<2, 2>(p, device, stream);
    return p.scale_type == GATUN_F32 ? launch<1, 4>(p, device, stream) : launch<1, 2>(p, device, stream);
}

} // namespace gatun
