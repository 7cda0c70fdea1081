/*
 * What linear does with a sum before it is stored: y = combine(activation(sum + bias), other).
 */
#ifndef GATUN_CUDA_EPILOGUE_CUH
#define GATUN_CUDA_EPILOGUE_CUH

#include "numbers.cuh"

namespace gatun {

struct Epilogue {
    void *y;
    int64_t ldy;
    const float *bias;
    const void *other;
    int64_t ld_other;
    int32_t y_type;
    int32_t activation;
    int32_t combine;

    __device__ void store(int64_t m, int64_t n, float sum) const {
        float v = bias ? sum + bias[n] : sum;
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
        store_plain(y_type, y, m * ldy + n, v);
    }
};

} // namespace gatun

#endif
