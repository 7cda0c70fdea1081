/*
 * One instance of the kernels on tiles: GATUN_TILE_BITS codes with GATUN_TILE_GROUPS scale groups a step. The build
 * compiles this file once for every pair, side by side, since they take long.
 */
#include "linear_narrow.cuh"
#include "linear_wide.cuh"

namespace gatun {

template <typename Kernel>
static gatun_status launch(Kernel kernel, const TileLinear &p, dim3 grid, int threads, int bytes, cudaStream_t stream) {
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, bytes), "linear"));
    kernel<<<grid, threads, bytes, stream>>>(p);
    return GATUN_OK;
}

template <int BITS, int NT, int GROUPS, bool DIRECT, bool AFFINE>
static gatun_status narrow(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    int64_t blocks = p.tiles < multiprocessors ? p.tiles : multiprocessors;
    return launch(linear_narrow<BITS, NT, GROUPS, DIRECT, AFFINE>, p, dim3((unsigned)blocks), 32 * NARROW_WARPS,
                  narrow_shared_bytes(NT), stream);
}

template <int BITS, int GROUPS, bool AFFINE> static gatun_status wide(const TileLinear &p, cudaStream_t stream) {
    constexpr int tiles = WIDE_WN * WIDE_RT, NT = 8;
    dim3 grid((unsigned)((p.tiles + tiles - 1) / tiles), (unsigned)((p.m + 8 * NT - 1) / (8 * NT)));
    return launch(linear_wide<BITS, NT, GROUPS, AFFINE>, p, grid, 32 * WIDE_WN * WIDE_WK, wide_shared_bytes(NT),
                  stream);
}

template <int BITS, int GROUPS, bool AFFINE>
static gatun_status pick(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    if (tile_columns(p.m) > 2)
        return wide<BITS, GROUPS, AFFINE>(p, stream);
    return p.x ? narrow<BITS, 2, GROUPS, false, AFFINE>(p, multiprocessors, stream)
               : narrow<BITS, 1, GROUPS, true, AFFINE>(p, multiprocessors, stream);
}

template <int BITS, int GROUPS>
gatun_status launch_tiles(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    return p.zeros || p.offsets ? pick<BITS, GROUPS, true>(p, multiprocessors, stream)
                                : pick<BITS, GROUPS, false>(p, multiprocessors, stream);
}

template gatun_status launch_tiles<GATUN_TILE_BITS, GATUN_TILE_GROUPS>(const TileLinear &, int, cudaStream_t);

} // namespace gatun
