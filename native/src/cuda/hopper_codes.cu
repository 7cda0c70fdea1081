/*
 * linear with compute types F8 and I8 on Hopper by one weight: see hopper_codes.cuh.
 */
#include "hopper_codes.cuh"

namespace gatun {

template <typename T, int MT>
static gatun_status launch(const TileLinear &p, const CodesOfX &x, int multiprocessors, cudaStream_t stream) {
    OneWeightCodes work = {{}, {(int)((p.tiles + 15) / 16), (int)((p.m + MT - 1) / MT)}, MT};
    GATUN_CUDA_TRY(codes_map(&work.w, p));
    const int64_t tiles = (int64_t)work.schedule.pairs * work.schedule.m_tiles;
    return launch_codes_tiles<T, MT>(p, x, p.m, work, tiles, multiprocessors, stream);
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
