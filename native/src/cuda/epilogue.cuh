/*
 * What linear does with a sum before it is stored: y = combine(activation(sum + bias), other).
 */
#ifndef GATUN_CUDA_EPILOGUE_CUH
#define GATUN_CUDA_EPILOGUE_CUH

#include "numbers.cuh"

namespace gatun {

/* Where the scale of a row of a tile lies among its group's, and which row a slot belongs to. */
__host__ __device__ inline int64_t scale_slot(int64_t row) { return row % 8 * 2 + row / 8 % 2; }
__host__ __device__ inline int64_t slot_row(int64_t slot) { return slot / 2 + slot % 2 * 8; }

struct Epilogue {
    void *y;
    int64_t ldy;
    const float *bias;
    const void *other;
    int64_t ld_other;
    int32_t y_type;
    int32_t activation;
    int32_t combine;
    /* What products of codes are multiplied by, or null: a scale a row of x, one a row of W (as packed). */
    const float *x_scales;
    const void *w_scales;
    int32_t w_scale_type;

    __device__ float w_scale(int64_t n) const {
        return load_plain(w_scale_type, w_scales, n / 16 * 16 + scale_slot(n));
    }

    /* A sum that was scaled and has its bias. */
    __device__ float finish(int64_t m, int64_t n, float v) const {
        switch (activation) {
        case GATUN_ACTIVATION_GELU:
            v = 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
            break;
        case GATUN_ACTIVATION_GELU_TANH:
            v = 0.5f * v * (1.0f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
            break;
        case GATUN_ACTIVATION_SILU:
            v = v / (1.0f + expf(-v));
            break;
        default:
            break;
        }
        if (combine != GATUN_COMBINE_NONE) {
            float with = load_plain(y_type, other, m * ld_other + n);
            v = combine == GATUN_COMBINE_ADD ? v + with : v * with;
        }
        return v;
    }
    __device__ void store(int64_t m, int64_t n, float sum) const {
        if (x_scales)
            sum *= x_scales[m];
        if (w_scales)
            sum *= w_scale(n);
        store_plain(y_type, y, m * ldy + n, finish(m, n, bias ? sum + bias[n] : sum));
    }

    /* Scales of W and biases of four columns from n on, those below `end`: of a thread that stores the same columns of
     * many rows. */
    __device__ void columns(int64_t n, int64_t end, float *scales, float *biases) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
            scales[i] = 1.0f, biases[i] = 0.0f;
        if (w_scales)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i < end)
                    scales[i] = w_scale(n + i);
        if (bias)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i < end)
                    biases[i] = bias[n + i];
    }

    /* Two numbers of y in a word; which NaN does not matter here. */
    __device__ uint32_t pair(float low, float high) const {
        uint32_t w;
        if (y_type == GATUN_F16)
            asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
        else
            asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
        return w;
    }

    /* Four columns from n on, those below `end`; scales and biases: see `columns`. */
    __device__ void store_four(int64_t m, int64_t n, int64_t end, float4 sums, const float *scales,
                               const float *biases) const {
        const float of_x = x_scales ? x_scales[m] : 1.0f;
        float v[4] = {fmaf(sums.x * of_x, scales[0], biases[0]), fmaf(sums.y * of_x, scales[1], biases[1]),
                      fmaf(sums.z * of_x, scales[2], biases[2]), fmaf(sums.w * of_x, scales[3], biases[3])};
        if (activation != GATUN_ACTIVATION_NONE || combine != GATUN_COMBINE_NONE) {
#pragma unroll 1
            for (int i = 0; i < 4; i++) { /* a turn of the four, so that they stay in registers */
                float done = n + i < end ? finish(m, n + i, v[0]) : 0.0f;
                v[0] = v[1], v[1] = v[2], v[2] = v[3], v[3] = done;
            }
        }
        const int64_t at = m * ldy + n;
        const int size = y_type == GATUN_F32 ? 4 : 2;
        if (n + 4 <= end && (((uintptr_t)y + at * size) & (4 * size - 1)) == 0) {
            if (y_type == GATUN_F32)
                *(float4 *)((float *)y + at) = make_float4(v[0], v[1], v[2], v[3]);
            else
                *(uint2 *)((uint16_t *)y + at) = make_uint2(pair(v[0], v[1]), pair(v[2], v[3]));
            return;
        }
        for (int i = 0; i < 4; i++)
            if (n + i < end)
                store_plain(y_type, y, at + i, v[i]);
    }
};

} // namespace gatun

#endif
