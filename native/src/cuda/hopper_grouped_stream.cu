/*
 * Grouped linear with compute type BF16 by packed 4-bit codes on Hopper, for a few rows of x by each expert: what it
 * costs is to read the weights.
 *
 * y^T = W * x^T. The tiles of 16 rows of W of all chunks, one after the other, are divided evenly among blocks that
 * have a multiprocessor each. One thread asks the copy engine for codes and scales, a tile (or 64 steps of one) a stage
 * of a ring that fills shared memory, across the ends of chunks; 16 warps multiply, each 4 steps of a stage, and keep
 * their part of x in registers while the chunk and K allow. Their sums meet in shared memory. Codes become bfloat16 as
 * in hopper_stream.cuh.
 */
#include "grouped.cuh"
#include "hopper_stream.cuh"

namespace gatun {

enum {
    EXPERT_ROWS = GROUPED_STREAM_ROWS,
    EXPERT_SUMS = STREAM_WARPS * EXPERT_ROWS * STREAM_PITCH /* of a tile */
};

struct ExpertStream {
    const GroupedExpert *experts;
    const GroupedChunk *plan;
    int64_t chunks;
    int stages, stage_bytes; /* of the ring */
    int scales_at;           /* in a stage */
};

/* GROUPS: scale groups of a step, 1 or 2. SCALES: bytes of a scale. */
template <int GROUPS, int SCALES>
__global__ void __launch_bounds__(32 * (STREAM_WARPS + 1), 1)
    linear_stream_grouped(const __grid_constant__ TileLinear p, const __grid_constant__ ExpertStream work) {
    extern __shared__ __align__(128) uint8_t shared[];
    constexpr int WARPS = STREAM_WARPS, OWN = STREAM_OWN, STEPS = STREAM_STEPS, PITCH = STREAM_PITCH;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int steps = (int)p.steps, groups = (int)p.groups, tiles = (int)p.tiles;
    const int rounds = (steps + STEPS - 1) / STEPS;
    const int64_t all = work.plan[work.chunks].row * tiles;
    const int64_t first = all * blockIdx.x / gridDim.x, last = all * (blockIdx.x + 1) / gridDim.x;
    uint8_t *stages = shared + STREAM_TABLE_BYTES;
    float *sums = (float *)(stages + work.stages * work.stage_bytes);
    const uint32_t full = shared_address(sums + 2 * EXPERT_SUMS), empty = full + 8 * work.stages;
    auto group_of = [&](int step) { return first_group<GROUPS>(step, p.steps_per_group_inverse); };

    if (threadIdx.x == 32 * WARPS) {
        for (int i = 0; i < work.stages; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, WARPS);
        }
        barrier_fence_init();
    }
    __syncthreads();

    if (warp == WARPS) { /* copies */
        if (lane != 0)
            return;
        int stage = 0;
        uint32_t parity = 1;
        int tile = (int)(first % tiles);
        const uint8_t *codes = nullptr, *scales = nullptr;
        for (int64_t unit = first; unit < last; unit++) {
            if (unit == first || tile == 0) {
                const TileLinear &own = work.experts[work.plan[unit / tiles].expert].tiles;
                codes = (const uint8_t *)own.codes, scales = (const uint8_t *)own.scales;
            }
            for (int step = 0; step < steps; step += STEPS) {
                const int count = min(STEPS, steps - step);
                const int group = group_of(step), end = min(group_of(step + count - 1) + GROUPS, groups);
                const uint32_t at = shared_address(stages) + stage * work.stage_bytes;
                const int scale_bytes = (end - group) * 16 * SCALES;
                barrier_wait(empty + 8 * stage, parity);
                barrier_expect(full + 8 * stage, count * 512 + scale_bytes);
                copy_bytes(at, codes + ((int64_t)tile * steps + step) * 512, count * 512, full + 8 * stage);
                copy_bytes(at + work.scales_at, scales + ((int64_t)tile * groups + group) * (16 * SCALES), scale_bytes,
                           full + 8 * stage);
                if (++stage == work.stages)
                    stage = 0, parity ^= 1;
            }
            if (++tile == tiles)
                tile = 0;
        }
        return;
    }

    stream_table(shared, work.experts[0].tiles.table); /* all have the same */

    /* The B operands of this warp's steps: for each product s registers 2s and 2s + 1. */
    uint32_t b[OWN][8];
    GroupedChunk chunk = {};
    Epilogue epilogue = p.epilogue;
    auto gather = [&](int round) {
        const uint16_t *row = (const uint16_t *)p.rows.data + (chunk.row + g) * p.rows.ld;
#pragma unroll
        for (int u = 0; u < OWN; u++)
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int step = round * STEPS + u * WARPS + warp;
                const int at = step * GATUN_CUDA_STEP_K + column_of(false, false, i / 2, t, i % 2, 0);
                const uint32_t both = g < chunk.rows && at < (int)p.k ? *(const uint32_t *)(row + at) : 0;
                b[u][i] = at + 1 < (int)p.k ? both : both & 0xFFFF;
            }
    };
    asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");

    int stage = 0, buffer = 0, tile = (int)(first % tiles);
    uint32_t parity = 0;
    for (int64_t unit = first; unit < last; unit++) {
        if (unit == first || tile == 0) {
            chunk = work.plan[unit / tiles];
            epilogue.bias = work.experts[chunk.expert].bias;
            if (rounds == 1)
                gather(0);
        }
        float acc[4] = {};
        for (int round = 0; round < rounds; round++) {
            if (rounds > 1)
                gather(round);
            barrier_wait(full + 8 * stage, parity);
            const uint8_t *codes = stages + stage * work.stage_bytes, *scales = codes + work.scales_at;
            stream_stage<GROUPS, SCALES>(acc, shared, codes, scales, b, round * STEPS, p, group_of);
            __syncwarp();
            if (lane == 0)
                barrier_arrive(empty + 8 * stage);
            if (++stage == work.stages)
                stage = 0, parity ^= 1;
        }
        float *to = sums + buffer * EXPERT_SUMS + warp * EXPERT_ROWS * PITCH + g;
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (t * 2 + e % 2 < chunk.rows)
                to[(t * 2 + e % 2) * PITCH + e / 2 * 8] = acc[e];
        /* Whoever comes here twice has seen all others come once: two buffers and one barrier. */
        asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");
        const int64_t n = (int64_t)tile * 16 + threadIdx.x % 16;
        const int column = threadIdx.x / 16;
        if (column < chunk.rows && n < p.n) {
            const float *from = sums + buffer * EXPERT_SUMS + column * PITCH + threadIdx.x % 16;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++)
                sum += from[w * EXPERT_ROWS * PITCH];
            epilogue.store(chunk.row + column, n, sum);
        }
        buffer ^= 1;
        if (++tile == tiles)
            tile = 0;
    }
}

template <int GROUPS, int SCALES>
static gatun_status launch(const GroupedRows &g, const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    static_assert(32 * STREAM_WARPS >= 16 * EXPERT_ROWS, "a thread a number of y");
    ExpertStream work = {g.experts, g.plan, g.chunks, 0, 0, 0};
    const StreamStage stage = stream_stage_of<GROUPS, SCALES>(p);
    work.stage_bytes = stage.bytes, work.scales_at = stage.scales_at;
    const int rest = STREAM_TABLE_BYTES + 2 * EXPERT_SUMS * 4;
    work.stages = (device.shared_bytes - rest) / (work.stage_bytes + 16);
    const int bytes = rest + work.stages * (work.stage_bytes + 16);
    auto kernel = linear_stream_grouped<GROUPS, SCALES>;
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, bytes), "linear"));
    kernel<<<(unsigned)device.multiprocessors, 32 * (STREAM_WARPS + 1), bytes, stream>>>(p, work);
    return GATUN_OK;
}

gatun_status launch_grouped_stream(const GroupedRows &g, const TileLinear &p, const DeviceTraits &device,
                                   cudaStream_t stream) {
    if (p.groups_per_step == 2)
        return launch<2, 2>(g, p, device, stream);
    return p.scale_type == GATUN_F32 ? launch<1, 4>(g, p, device, stream) : launch<1, 2>(g, p, device, stream);
}

} // namespace gatun
