/*
 * What the kernels of dequantize share: where they write, and how.
 */
#ifndef GATUN_CUDA_DEQUANTIZE_CUH
#define GATUN_CUDA_DEQUANTIZE_CUH

#include "linear.cuh"

namespace gatun {

enum { RUN = 8 };

/* Eight numbers in the output type, aligned to 16 bytes. The hardware's conversion gives another NaN than the
 * definition. */
__device__ inline void store_run(int32_t type, void *out, int64_t at, const float *v) {
    if (type == GATUN_F32) {
        float4 *p = (float4 *)((float *)out + at);
        __stcs(p, make_float4(v[0], v[1], v[2], v[3]));
        __stcs(p + 1, make_float4(v[4], v[5], v[6], v[7]));
        return;
    }
    uint32_t w[4];
    float sum = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
    if (is_nan(sum)) { /* one of them is, or infinities of both signs */
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = type == GATUN_F16 ? to_f16(v[2 * i]) | (uint32_t)to_f16(v[2 * i + 1]) << 16
                                     : to_bf16(v[2 * i]) | (uint32_t)to_bf16(v[2 * i + 1]) << 16;
    } else if (type == GATUN_F16) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(v[2 * i + 1]), "f"(v[2 * i]));
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++)
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(v[2 * i + 1]), "f"(v[2 * i]));
    }
    __stcs((uint4 *)((uint16_t *)out + at), make_uint4(w[0], w[1], w[2], w[3]));
}

/* What a launch writes: rows row0 .. of the matrix, or those that ids name. */
struct Output {
    const int64_t *ids;
    int64_t row0, rows;
    void *data;
    int64_t ld;
    int32_t type;
    bool plain_scales; /* F32, F16 or BF16, aligned, as they are */

    /* -1 for an id outside the matrix. */
    __device__ int64_t source(int64_t i, int64_t n) const {
        int64_t row = ids ? ids[i] : row0 + i;
        return row >= 0 && row < n ? row : -1;
    }
};

/* GGUF's blocks; false for what is none. dequantize_blocks.cu */
bool launch_blocks(const gatun_matrix &m, const Output &out, dim3 grid, int multiprocessors, cudaStream_t stream);

} // namespace gatun

#endif
