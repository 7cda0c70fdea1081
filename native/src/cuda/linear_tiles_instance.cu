/*
 * The kernels on packed codes of GATUN_TILE_BITS bits. The build compiles this file once for 4 and once for 8, side by
 * side, since they take long.
 */
#include "linear_narrow.cuh"
#include "linear_wide.cuh"

namespace gatun {

enum { BITS = GATUN_TILE_BITS, WIDE_NT = 8 };

template <typename Kernel, typename... Args>
static gatun_status launch(Kernel kernel, dim3 grid, int threads, int bytes, cudaStream_t stream, Args... args) {
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, bytes), "linear"));
    kernel<<<grid, threads, bytes, stream>>>(args...);
    return GATUN_OK;
}

/* How many warps, and sums of how many tiles, a block of the narrow kernel has room for. */
struct NarrowShape {
    int warps, slots, bytes;
};

template <int GROUPS> static NarrowShape narrow_shape(int64_t tiles, int64_t rows, int64_t blocks, int shared_bytes) {
    int64_t own = (tiles + blocks - 1) / blocks, bytes = 0, slots = 0;
    int warps = 2 * NARROW_WARPS;
    do { /* as many warps as shared memory has room for, then sums of as many of the block's tiles */
        warps /= 2;
        const int64_t fixed = TABLE_BYTES + warps * narrow_ring_bytes(BITS, GROUPS),
                      tile = warps * narrow_sums_bytes(rows);
        slots = (shared_bytes - fixed) / tile;
        slots = own < narrow_tiles(BITS) ? narrow_tiles(BITS) : slots < own ? slots : own;
        bytes = fixed + slots * tile;
    } while (slots < narrow_tiles(BITS) || bytes > shared_bytes);
    return {warps, (int)slots, (int)bytes};
}

template <int GROUPS> static gatun_status narrow(const TileLinear &p, const DeviceTraits &device, cudaStream_t stream) {
    const int64_t blocks = p.tiles < device.multiprocessors ? p.tiles : device.multiprocessors;
    const NarrowShape shape = narrow_shape<GROUPS>(p.tiles, p.m, blocks, device.shared_bytes);
    dim3 grid((unsigned)blocks);
    if (p.m <= 8)
        return launch(linear_narrow<BITS, 1, GROUPS>, grid, 32 * shape.warps, shape.bytes, stream, p, shape.slots);
    return launch(linear_narrow<BITS, 2, GROUPS>, grid, 32 * shape.warps, shape.bytes, stream, p, shape.slots);
}

template <int GROUPS> static gatun_status wide(const TileLinear &p, cudaStream_t stream) {
    constexpr int tiles = WIDE_WN * WIDE_RT;
    dim3 grid((unsigned)((p.tiles + tiles - 1) / tiles), (unsigned)((p.m + 8 * WIDE_NT - 1) / (8 * WIDE_NT)));
    return launch(linear_wide<BITS, WIDE_NT, GROUPS>, grid, 32 * WIDE_WN * WIDE_WK, wide_shared_bytes(WIDE_NT), stream,
                  p);
}

template <>
gatun_status launch_tiles<BITS>(TileLinear p, uint32_t *workspace, const DeviceTraits &device, cudaStream_t stream) {
    const bool affine = p.zeros || p.offsets, one = p.groups_per_step == 1;
    if (p.m > 16) {
        p.x = lay_out_x(p, WIDE_NT, BITS == 8, !one, workspace, stream);
        return one ? wide<1>(p, stream) : wide<0>(p, stream);
    }
    const bool pairs = BITS == 4 && p.groups_per_step == 2 && !affine && p.scale_type != GATUN_F32;
    if (p.m <= 8)
        p.rows = rows_of_pairs(p, workspace, stream);
    else
        p.x = lay_out_x(p, 2, BITS == 8, affine || !one, workspace, stream);
    if (one && !affine)
        return narrow<1>(p, device, stream);
    if constexpr (BITS == 4)
        if (pairs)
            return narrow<2>(p, device, stream);
    return narrow<0>(p, device, stream);
}

/* ---- several weights ---- */

template <int NT, int GROUPS>
static gatun_status grouped_wide(const GroupedRows &g, const uint4 *x, cudaStream_t stream) {
    constexpr int tiles = WIDE_WN * WIDE_RT;
    dim3 grid((unsigned)((g.tiles + tiles - 1) / tiles), (unsigned)g.chunks);
    return launch(linear_wide_grouped<BITS, NT, GROUPS>, grid, 32 * WIDE_WN * WIDE_WK, wide_shared_bytes(NT), stream,
                  g.experts, g.plan, x, g.epilogue);
}

template <int GROUPS>
static gatun_status grouped_narrow(const GroupedRows &g, const uint4 *x, const DeviceTraits &device,
                                   cudaStream_t stream) {
    /* A block a multiprocessor, if every expert has rows. */
    const int64_t most = device.multiprocessors / g.filled, blocks = most < g.tiles ? most : g.tiles;
    const int own = 4096; /* bytes of the kernel's own shared memory, and to spare */
    const NarrowShape shape = narrow_shape<GROUPS>(g.tiles, GROUPED_FEW_ROWS, blocks, device.shared_bytes - own);
    return launch(linear_narrow_grouped<BITS, GROUPS>, dim3((unsigned)blocks, (unsigned)g.chunks), 32 * shape.warps,
                  shape.bytes, stream, g.experts, g.plan, x, g.epilogue, shape.slots);
}

template <>
gatun_status launch_grouped<BITS>(const GroupedRows &g, const DeviceTraits &device, uint32_t *workspace,
                                  cudaStream_t stream) {
    constexpr int FEW = GROUPED_FEW_ROWS / 8;
    const bool few = g.chunk_rows == GROUPED_FEW_ROWS;
    /* The narrow kernel's blocks are large: it wants several multiprocessors an expert. */
    const bool narrow = few && 2 * g.filled <= device.multiprocessors, plain = g.one && !(narrow && g.affine);
    const uint4 *x = lay_out_chunks(g, BITS == 8, !plain, workspace, stream);
    if (narrow)
        return plain ? grouped_narrow<1>(g, x, device, stream) : grouped_narrow<0>(g, x, device, stream);
    if (few)
        return plain ? grouped_wide<FEW, 1>(g, x, stream) : grouped_wide<FEW, 0>(g, x, stream);
    return plain ? grouped_wide<WIDE_NT, 1>(g, x, stream) : grouped_wide<WIDE_NT, 0>(g, x, stream);
}

} // namespace gatun
