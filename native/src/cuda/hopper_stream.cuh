/*
 * What kernels have in common that stream packed 4-bit codes through a ring in shared memory and multiply them by up to
 * eight rows of x: hopper_narrow.cu (one weight) and hopper_grouped_stream.cu (experts). A stage holds a tile, or
 * STREAM_STEPS steps of one: codes, then scales. Each of STREAM_WARPS warps multiplies every sixteenth step of it.
 *
 * Codes become bfloat16 through a table of pairs in shared memory, an entry of each byte in a row of 256 bytes of which
 * each lane has its own word: one byte permutation makes the address.
 */
#ifndef GATUN_CUDA_HOPPER_STREAM_CUH
#define GATUN_CUDA_HOPPER_STREAM_CUH

#include "hopper.cuh"
#include "tiles.cuh"

namespace gatun {

enum {
    STREAM_WARPS = 16,
    STREAM_OWN = 4, /* steps of a warp in a stage */
    STREAM_STEPS = STREAM_WARPS * STREAM_OWN,
    STREAM_PITCH = 17, /* of a column of a tile's sums */
    STREAM_TABLE_BYTES = 256 * 256
};

/* By the multiplying warps: the table, from the 16 numbers that codes stand for. */
__device__ inline void stream_table(uint8_t *shared, const float *numbers) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float own = numbers[lane % 16];
#pragma unroll 4
    for (int entry = warp; entry < 256; entry += STREAM_WARPS)
        ((uint32_t *)shared)[entry * 64 + lane] =
            pair_bf16(__shfl_sync(0xFFFFFFFF, own, entry % 16), __shfl_sync(0xFFFFFFFF, own, entry / 16));
}

/*
 * By a warp: adds its steps of a stage that begins with step `from` to acc. b: the operands of x, for product s of own
 * step u registers 2s and 2s + 1 of b[u]. group_of: the first scale group of a step.
 */
template <int GROUPS, int SCALES, typename GroupOf>
__device__ inline void stream_stage(float (&acc)[4], const uint8_t *shared, const uint8_t *codes, const uint8_t *scales,
                                    const uint32_t (&b)[STREAM_OWN][8], int from, const TileLinear &p,
                                    const GroupOf &group_of) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    const int steps = (int)p.steps, groups = (int)p.groups, group_before = group_of(from);
#pragma unroll
    for (int u = 0; u < STREAM_OWN; u++) {
        const int within = u * STREAM_WARPS + warp, step = from + within;
        if (step >= steps)
            break;
        const uint4 q = *(const uint4 *)(codes + within * 512 + lane * 16);
        float part[GROUPS][4] = {};
#pragma unroll
        for (int s = 0; s < 4; s++) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) /* bytes: the lane's word, byte i, 0, 0 */
                a[i] = *(const uint32_t *)(shared + __byte_perm(word_of(q, s), lane * 4, 0x5504 | i << 4));
            mma16816(part[GROUPS == 2 ? s / 2 : 0], a, &b[u][2 * s]);
        }
#pragma unroll
        for (int i = 0; i < GROUPS; i++) {
            const int pair = (min(group_of(step) + i, groups - 1) - group_before) * 8 + g;
            float2 scale;
            if (SCALES == 4)
                scale = ((const float2 *)scales)[pair];
            else
                scale = scale_values(((const uint32_t *)scales)[pair], 0, p.scale_type);
#pragma unroll
            for (int e = 0; e < 4; e++)
                acc[e] = fmaf(part[i][e], e < 2 ? scale.x : scale.y, acc[e]);
        }
    }
}

/* Bytes of a stage, and where in it its scales begin. */
struct StreamStage {
    int bytes, scales_at;
};

template <int GROUPS, int SCALES> StreamStage stream_stage_of(const TileLinear &p) {
    const int64_t steps = p.steps < STREAM_STEPS ? p.steps : STREAM_STEPS;
    /* A stage's groups: those of its steps, and one that begins before them. */
    const int64_t in_stage = GROUPS == 2 ? 2 * steps : (steps * 64 - 1) / p.group + 2;
    const int64_t codes = steps * 512, scales = (in_stage < p.groups ? in_stage : p.groups) * 16 * SCALES;
    return {(int)((codes + scales + 127) & ~127), (int)codes};
}

} // namespace gatun

#endif
