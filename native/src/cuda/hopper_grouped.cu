/*
 * Grouped linear with compute type BF16 by packed 4-bit codes on Hopper: the tiles of all experts are those of one
 * launch of hopper_fused.cuh. A tile is 256 rows of an expert's W by a chunk of its rows of x, which the plan names.
 */
#include "grouped.cuh"
#include "hopper_fused.cuh"

namespace gatun {

struct ExpertTiles {
    const GroupedExpert *experts;
    const GroupedChunk *plan;
    int chunks, pairs; /* of 128 rows of W, in each chunk */

    /* All of them have the first one's. */
    __device__ const float *table(const TileLinear &) const { return experts[0].tiles.table; }

    __device__ bool at(int item, const TileLinear &, Place *place) const {
        const int at = item / pairs;
        if (at >= chunks)
            return false;
        const GroupedChunk chunk = plan[at];
        if (chunk.expert < 0) /* so are all that follow */
            return false;
        const GroupedExpert &expert = experts[chunk.expert];
        place->pair = item - at * pairs;
        place->m0 = chunk.row, place->m = chunk.row + chunk.rows;
        place->codes = (const uint8_t *)expert.tiles.codes, place->scales = expert.tiles.scales;
        place->zeros = expert.tiles.zeros, place->offsets = expert.tiles.offsets, place->bias = expert.bias;
        return true;
    }
};

template <int MT, int KS>
static gatun_status launch(const GroupedRows &g, const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    const ExpertTiles work = {g.experts, g.plan, (int)g.chunks, (int)((p.tiles + 15) / 16)};
    const int64_t tiles = g.chunks * work.pairs;
    if (p.groups_per_step == 1 && !g.affine)
        return launch_fused_tiles<MT, KS, 1>(p, p.m, work, tiles, multiprocessors, stream);
    if (p.groups_per_step == 2 && !g.affine && p.scale_type != GATUN_F32)
        return launch_fused_tiles<MT, KS, 2>(p, p.m, work, tiles, multiprocessors, stream);
    return launch_fused_tiles<MT, KS, 0>(p, p.m, work, tiles, multiprocessors, stream);
}

gatun_status launch_grouped_fused(const GroupedRows &g, const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    switch (g.chunk_rows) {
    case 16:
        return launch<16, 2>(g, p, multiprocessors, stream);
    case 64:
        return launch<64, 2>(g, p, multiprocessors, stream);
    case 128:
        return launch<128, 1>(g, p, multiprocessors, stream);
    default:
        return launch<256, 1>(g, p, multiprocessors, stream);
    }
}

} // namespace gatun
