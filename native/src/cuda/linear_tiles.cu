/*
 * Lays x out for the kernels on tiles and picks their instance; linear_narrow.cuh and linear_wide.cuh have them.
 */
#include "linear.cuh"

namespace gatun {

/* x as bfloat16 in the order of the B fragments: [chunk of 8*NT rows][step][NT][half][lane][16 bytes], zeros beyond M
 * and K. */
__global__ void __launch_bounds__(256)
    lay_out_x(const void *x, int32_t x_type, int64_t ldx, int64_t m, int64_t k, const float *multiplier, int64_t steps,
              int nt, uint32_t *out, int64_t words) {
    int64_t at = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= words)
        return;
    int word = (int)(at % 4), lane = (int)(at / 4 % 32), half = (int)(at / 128 % 2);
    int64_t tile = at / 256 % nt, step = at / 256 / nt % steps, chunk = at / 256 / nt / steps;
    int64_t row = (chunk * nt + tile) * 8 + lane / 4;
    int64_t column = step * 64 + (half * 2 + word / 2) * 16 + word % 2 * 8 + lane % 4 * 2;
    float v[2] = {0.0f, 0.0f};
    if (row < m)
        for (int i = 0; i < 2; i++)
            if (column + i < k) {
                v[i] = load_number(x_type, x, row * ldx + column + i);
                if (multiplier)
                    v[i] *= multiplier[column + i];
            }
    out[at] = to_bf16(v[0]) | (uint32_t)to_bf16(v[1]) << 16;
}

/* Rows of x, in eights, that a launch takes at once. */
int tile_columns(int64_t m) { return m <= 16 ? 2 : 8; }

int64_t tile_x_bytes(int64_t m, int64_t steps) {
    int nt = tile_columns(m);
    return (m + 8 * nt - 1) / (8 * nt) * steps * nt * 1024;
}

template <int BITS> static gatun_status launch_bits(const TileLinear &p, int multiprocessors, cudaStream_t stream) {
    if (p.group == 16)
        return launch_tiles<BITS, 4>(p, multiprocessors, stream);
    if (p.group == 32)
        return launch_tiles<BITS, 2>(p, multiprocessors, stream);
    return launch_tiles<BITS, 1>(p, multiprocessors, stream);
}

gatun_status launch_linear_tiles(TileLinear p, int bits, uint32_t *workspace, int multiprocessors,
                                 cudaStream_t stream) {
    /* Eight rows of bfloat16 pairs are read as they came. */
    const XRows &x = p.rows;
    bool direct = p.m <= 8 && x.type == GATUN_BF16 && !x.multiplier && x.ld % 2 == 0 && (uintptr_t)x.data % 4 == 0 &&
                  p.k % 2 == 0;
    if (!direct) {
        int64_t words = tile_x_bytes(p.m, p.steps) / 4;
        lay_out_x<<<(unsigned)((words + 255) / 256), 256, 0, stream>>>(x.data, x.type, x.ld, p.m, p.k, x.multiplier,
                                                                       p.steps, tile_columns(p.m), workspace, words);
        p.x = (const uint4 *)workspace;
    }
    return bits == 4 ? launch_bits<4>(p, multiprocessors, stream) : launch_bits<8>(p, multiprocessors, stream);
}

} // namespace gatun
