/*
 * Grouped linear with compute types I8, F8 and F8_BLOCK by 8-bit codes on Hopper: the tiles of all experts are those of
 * one launch of hopper_codes.cuh. A tile is 256 rows of an expert's W by a chunk of its rows of x, which the plan
 * names.
 */
#include "grouped.cuh"
#include "hopper_codes.cuh"

namespace gatun {

struct ExpertCodes {
    const GroupedExpert *experts;
    const GroupedChunk *plan;
    int chunks, rows, pairs; /* rows of x a chunk; of 128 rows of W, in each chunk */

    __device__ bool at(int item, const TileLinear &, CodesPlace *place) const {
        const int at = item / pairs;
        if (at >= chunks)
            return false;
        const GroupedChunk chunk = plan[at];
        if (chunk.expert < 0) /* so are all that follow */
            return false;
        const GroupedExpert &expert = experts[chunk.expert];
        place->pair = item - at * pairs;
        place->x_row = at * rows;
        place->m0 = chunk.row, place->m = chunk.row + chunk.rows;
        place->w = &expert.w, place->scales = expert.tiles.scales, place->bias = expert.bias;
        return true;
    }
};

gatun_status describe_codes(GroupedExpert *expert) { return codes_map(&expert->w, expert->tiles); }

template <typename T, int MT>
static gatun_status launch(const GroupedRows &g, const TileLinear &p, const CodesOfX &x, int multiprocessors,
                           cudaStream_t stream) {
    const ExpertCodes work = {g.experts, g.plan, (int)g.chunks, MT, (int)((p.tiles + 15) / 16)};
    return launch_codes_tiles<T, MT>(p, x, g.chunks * MT, work, g.chunks * work.pairs, multiprocessors, stream);
}

gatun_status launch_grouped_codes(const GroupedRows &g, const TileLinear &p, const CodesOfX &x, bool integers,
                                  int multiprocessors, cudaStream_t stream) {
    if (g.chunk_rows == 64)
        return integers ? launch<int32_t, 64>(g, p, x, multiprocessors, stream)
                        : launch<float, 64>(g, p, x, multiprocessors, stream);
    if (integers)
        return launch<int32_t, 128>(g, p, x, multiprocessors, stream);
    return g.chunk_rows == 128 ? launch<float, 128>(g, p, x, multiprocessors, stream)
                               : launch<float, 192>(g, p, x, multiprocessors, stream);
}

} // namespace gatun
