/*
 * linear with compute type BF16 on packed 4-bit codes for up to 64 rows of x by one weight: see hopper_fused.cuh.
 */
#include "hopper_fused.cuh"

namespace gatun {

template <int MT, int GROUPS>
static gatun_status launch(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    const OneWeight work = {{(int)((p.tiles + 15) / 16), (int)((p.m + MT - 1) / MT)}, MT};
    const int64_t tiles = (int64_t)work.schedule.pairs * work.schedule.m_tiles;
    return launch_fused_tiles<MT, 2, GROUPS>(p, p.m, work, tiles, multiprocessors, stream);
}

template <int GROUPS> static gatun_status pick(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    return p.m <= 16 ? launch<16, GROUPS>(p, multiprocessors, stream) : launch<64, GROUPS>(p, multiprocessors, stream);
}

gatun_status launch_fused(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    const bool affine = p.zeros || p.offsets;
    if (p.groups_per_step == 1 && !affine)
        return pick<1>(p, multiprocessors, stream);
    if (p.groups_per_step == 2 && !affine && p.scale_type != GATUN_F32)
        return pick<2>(p, multiprocessors, stream);
    return pick<0>(p, multiprocessors, stream);
}

} // namespace gatun
