/*
 * What the kernels on packed 4-bit codes with warpgroup products share: a step's codes as the A operand.
 */
#ifndef GATUN_CUDA_HOPPER_DECODE_CUH
#define GATUN_CUDA_HOPPER_DECODE_CUH

#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

/* The 16 x 64 weights of a warp's tile in a step of K that lies at `u` of the ring, as bfloat16, scaled. GROUPS: scale
 * groups of a step, 1 (scales of any type) or 2 (16-bit scales), without zero points and offsets; 0: all else. */
template <int GROUPS, typename Codes, typename Lookup>
__device__ inline void decode_step(uint32_t *a, const Codes &ring, int u, const TileLinear &p, const Lookup &table,
                                   int tile, int step) {
    uint4 codes;
    float2 scales[GROUPS ? GROUPS : 1];
    uint32_t twice[GROUPS ? GROUPS : 1][2]; /* the scales of rows g and g + 8 in both halves */
    ring.codes(u, &codes);
    if (GROUPS)
        ring.scales(u, p.scale_type, scales);
#pragma unroll
    for (int i = 0; i < GROUPS; i++)
        twice[i][0] = pair_bf16(scales[i].x, scales[i].x), twice[i][1] = pair_bf16(scales[i].y, scales[i].y);
#pragma unroll
    for (int s = 0; s < 4; s++) {
        uint32_t *to = a + 4 * s;
        fragment<4>(to, &codes, s, table);
        if (GROUPS) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[i] = times_bf16(to[i], twice[GROUPS == 2 ? s / 2 : 0][i % 2]);
        } else {
            const int here = min(step, (int)p.steps - 1), within = s * p.groups_per_step / 4;
            const int group = first_group<0>(here, p.steps_per_group_inverse, p.groups_per_step) + within;
            const int at = (tile * (int)p.groups + min(group, (int)p.groups - 1)) * 8 + (int)threadIdx.x % 32 / 4;
            const float2 scale = load_scales(p.scales, p.scale_type, at);
            const float2 zero = pair_or_zero(p.zeros, at), offset = pair_or_zero(p.offsets, at);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float z = i % 2 ? zero.y : zero.x, f = i % 2 ? scale.y : scale.x, o = i % 2 ? offset.y : offset.x;
                to[i] = pair_bf16(fmaf(__uint_as_float(to[i] << 16) - z, f, o),
                                  fmaf(__uint_as_float(to[i] & 0xFFFF0000) - z, f, o));
            }
        }
    }
}

} // namespace gatun

#endif
