/*
 * What the kernels that quantize rows of x share.
 */
#ifndef GATUN_CUDA_ROWS_CUH
#define GATUN_CUDA_ROWS_CUH

#include "linear.cuh"

namespace gatun {

enum { RUN = 8 };

/* A part of a workspace, with what keeps the next one aligned. */
inline int64_t aligned_bytes(int64_t bytes) {
    return (bytes + GATUN_CUDA_ALIGNMENT - 1) / GATUN_CUDA_ALIGNMENT * GATUN_CUDA_ALIGNMENT;
}

/* Eight numbers of a row of x, zeros beyond K. */
__device__ inline void load_run(const XRows &x, int64_t row, int64_t column, int64_t k, float *v) {
    const int64_t at = row * x.ld + column;
    if (x.type != GATUN_F32 && column + RUN <= k && (((uintptr_t)x.data + 2 * at) & 15) == 0) {
        const uint4 q = *(const uint4 *)((const uint16_t *)x.data + at);
        const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            const uint16_t bits = (uint16_t)(words[i / 2] >> 16 * (i % 2));
            v[i] = x.type == GATUN_F16 ? from_f16(bits) : from_bf16(bits);
        }
    } else {
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = column + i < k ? load_number(x.type, x.data, at + i) : 0.0f;
    }
    if (x.multiplier)
#pragma unroll
        for (int i = 0; i < RUN; i++)
            if (column + i < k)
                v[i] *= x.multiplier[column + i];
}

} // namespace gatun

#endif
