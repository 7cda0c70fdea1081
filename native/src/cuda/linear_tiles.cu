/*
 * x for the kernels on packed codes; linear_narrow.cuh and linear_wide.cuh have them, linear_tiles_instance.cu launches
 * them.
 */
#include <mutex>

#include "grouped.cuh"
#include "tiles.cuh"

namespace gatun {

/* Two consecutive numbers of a row of x as bfloat16; zero beyond M and K. */
__device__ static uint32_t pair_of_x(const XRows &x, int64_t m, int64_t k, int64_t row, int64_t column) {
    float v[2] = {0.0f, 0.0f};
    if (row < m)
        for (int i = 0; i < 2; i++)
            if (column + i < k) {
                v[i] = load_number(x.type, x.data, row * x.ld + column + i);
                if (x.multiplier)
                    v[i] *= x.multiplier[column + i];
            }
    return to_bf16(v[0]) | (uint32_t)to_bf16(v[1]) << 16;
}

/* x as bfloat16 in the order of the B fragments: [chunk of 8*NT rows][step][NT][half][lane][16 bytes]. */
__global__ void __launch_bounds__(256) lay_out(XRows x, int64_t m, int64_t k, int64_t steps, int nt, bool bytes,
                                               bool groups, uint32_t *out, int64_t words) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= words)
        return;
    int word = (int)(at % 4), lane = (int)(at / 4 % 32), half = (int)(at / 128 % 2);
    int64_t tile = at / 256 % nt, step = at / 256 / nt % steps, chunk = at / 256 / nt / steps;
    int column = column_of(bytes, groups, half * 2 + word / 2, lane % 4, word % 2, 0);
    out[at] = pair_of_x(x, m, k, (chunk * nt + tile) * 8 + lane / 4, step * 64 + column);
}

/* x as rows of pairs of bfloat16. */
__global__ void __launch_bounds__(256) round_pairs(XRows x, int64_t m, int64_t k, int64_t pairs, uint32_t *out) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at < m * pairs)
        out[at] = pair_of_x(x, m, k, at / pairs, at % pairs * 2);
}

/* The same for chunks of rows, each with a multiplier of its own: [chunk][step][NT][half][lane][16 bytes]. */
__global__ void __launch_bounds__(256)
    lay_out_chunk(XRows x, const GroupedExpert *experts, const GroupedChunk *chunks, int64_t k, int64_t steps, int nt,
                  bool bytes, bool groups, uint32_t *out, int64_t words) {
    const GroupedChunk chunk = chunks[blockIdx.y];
    const int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (chunk.expert < 0 || at >= words)
        return;
    x.multiplier = experts[chunk.expert].multiplier;
    const int word = (int)(at % 4), lane = (int)(at / 4 % 32), half = (int)(at / 128 % 2);
    const int64_t tile = at / 256 % nt, step = at / 256 / nt;
    const int column = column_of(bytes, groups, half * 2 + word / 2, lane % 4, word % 2, 0);
    out[blockIdx.y * words + at] =
        pair_of_x(x, chunk.row + chunk.rows, k, chunk.row + tile * 8 + lane / 4, step * 64 + column);
}

static unsigned blocks_of(int64_t threads) { return (unsigned)((threads + 255) / 256); }

int64_t tile_x_bytes(int64_t m, int64_t steps) { return (m + 63) / 64 * 64 * steps * 128; }

const uint4 *lay_out_x(const TileLinear &p, int nt, bool bytes, bool groups, uint32_t *workspace, cudaStream_t stream) {
    int64_t words = (p.m + 8 * nt - 1) / (8 * nt) * p.steps * nt * 256;
    lay_out<<<blocks_of(words), 256, 0, stream>>>(p.rows, p.m, p.k, p.steps, nt, bytes, groups, workspace, words);
    return (const uint4 *)workspace;
}

const uint4 *lay_out_chunks(const GroupedRows &g, bool bytes, bool groups, uint32_t *workspace, cudaStream_t stream) {
    const int nt = g.chunk_rows / 8;
    const int64_t words = g.steps * nt * 256;
    lay_out_chunk<<<dim3(blocks_of(words), (unsigned)g.chunks), 256, 0, stream>>>(g.x, g.experts, g.plan, g.k, g.steps,
                                                                                  nt, bytes, groups, workspace, words);
    return (const uint4 *)workspace;
}

XRows rows_of_pairs(const TileLinear &p, uint32_t *workspace, cudaStream_t stream) {
    const XRows &x = p.rows;
    if (x.type == GATUN_BF16 && !x.multiplier && x.ld % 2 == 0 && (uintptr_t)x.data % 4 == 0 && p.k % 2 == 0)
        return x;
    int64_t pairs = (p.k + 1) / 2;
    round_pairs<<<blocks_of(p.m * pairs), 256, 0, stream>>>(x, p.m, p.k, pairs, workspace);
    return {workspace, GATUN_BF16, 2 * pairs, nullptr};
}

XRows rows_to_copy(const TileLinear &p, uint32_t *workspace, cudaStream_t stream) {
    const XRows &x = p.rows;
    if (x.type == GATUN_BF16 && !x.multiplier && x.ld % 8 == 0 && (uintptr_t)x.data % 16 == 0 && p.k % 8 == 0)
        return x;
    int64_t pairs = (p.k + 7) / 8 * 4;
    round_pairs<<<blocks_of(p.m * pairs), 256, 0, stream>>>(x, p.m, p.k, pairs, workspace);
    return {workspace, GATUN_BF16, 2 * pairs, nullptr};
}

gatun_status device_traits(int32_t device, DeviceTraits *out) {
    static std::mutex mutex;
    static DeviceTraits known[64];
    std::lock_guard<std::mutex> lock(mutex);
    DeviceTraits found = device < 64 ? known[device] : DeviceTraits{};
    if (found.multiprocessors == 0) {
        int major = 0, minor = 0;
        auto ask = [&](int *to, cudaDeviceAttr what) {
            return gatun_cuda_status(cudaDeviceGetAttribute(to, what, device), "device");
        };
        GATUN_CUDA_TRY(ask(&found.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin));
        GATUN_CUDA_TRY(ask(&major, cudaDevAttrComputeCapabilityMajor));
        GATUN_CUDA_TRY(ask(&minor, cudaDevAttrComputeCapabilityMinor));
        GATUN_CUDA_TRY(ask(&found.multiprocessors, cudaDevAttrMultiProcessorCount));
        found.hopper = GATUN_CUDA_HOPPER && major == 9 && minor == 0;
        if (device < 64)
            known[device] = found;
    }
    *out = found;
    return GATUN_OK;
}

Way tiles_way(const TileLinear &p, int bits, const DeviceTraits &traits) {
    if (traits.hopper && bits == 4) {
        const bool affine = p.zeros || p.offsets, two = p.groups_per_step == 2 && p.scale_type != GATUN_F32;
        const bool scales_sums = !affine && (p.groups_per_step == 1 || two);
        if (p.m <= 2 && scales_sums)
            return Way::HOPPER_NARROW;
        /* More than eight rows of x that do not fit the registers would come from the L2 for each tile. */
        if ((p.m <= 8 || (p.m <= 16 && p.steps <= GATUN_CUDA_HELD_STEPS)) && scales_sums)
            return Way::HOPPER_HELD;
        if (p.m > 64)
            return Way::HOPPER_WIDE;
        /* A cluster of two blocks takes its part of W at once. Beyond 16 rows of x the warps of a block have to share K
         * too, or the fused kernel is faster. A short K is not worth adding up the sums of two blocks. */
        const bool few_fits = p.steps >= 16 && p.tiles <= (p.m > 16 ? 4 : 8) * (int64_t)traits.multiprocessors;
        if (p.m > 8 && p.m <= 64 && few_fits && scales_sums)
            return Way::HOPPER_FEW;
        /* Up to 16 rows cost reading the weight, which takes all multiprocessors. */
        const bool fused_fills = p.tiles / 8 >= traits.multiprocessors * 3 / 4;
        if (p.m > 16 || (p.m > 8 && fused_fills))
            return Way::HOPPER_FUSED;
    }
    return p.m > 16 ? Way::WIDE : Way::NARROW;
}

gatun_status launch_linear_tiles(const TileLinear &p, int bits, uint32_t *workspace, int32_t device,
                                 cudaStream_t stream) {
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
#if GATUN_CUDA_HOPPER
    TileLinear copied = p;
    switch (tiles_way(p, bits, traits)) {
    case Way::HOPPER_NARROW:
        copied.rows = rows_of_pairs(p, workspace, stream);
        return launch_narrow(copied, traits, stream);
    case Way::HOPPER_HELD:
        copied.rows = rows_to_copy(p, workspace, stream);
        return launch_held(copied, traits, stream);
    case Way::HOPPER_FEW:
        copied.rows = rows_to_copy(p, workspace, stream);
        return launch_few(copied, traits, stream);
    case Way::HOPPER_FUSED:
        copied.rows = rows_to_copy(p, workspace, stream);
        return launch_fused(copied, traits.multiprocessors, stream);
    case Way::HOPPER_WIDE:
        copied.rows = rows_to_copy(p, workspace, stream);
        return launch_wide(copied, traits.multiprocessors, (uint8_t *)workspace + tile_x_bytes(p.m, p.steps), stream);
    default:
        break;
    }
#endif
    return bits == 4 ? launch_tiles<4>(p, workspace, traits, stream) : launch_tiles<8>(p, workspace, traits, stream);
}

} // namespace gatun
