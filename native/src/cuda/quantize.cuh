/*
 * What the kernels of quantize share: scales, and the code of a number by the definition.
 */
#ifndef GATUN_CUDA_QUANTIZE_CUH
#define GATUN_CUDA_QUANTIZE_CUH

#include "matrix.cuh"

namespace gatun {

enum { RUN = 8 };

/* Elements that share a scale and lie one after the other, in rows of W or in the flattened tensor. */
struct Runs {
    int64_t length;     /* elements that share a scale */
    int64_t per_row;    /* runs of a row; of a flattened tensor, all of them */
    int64_t row_length; /* the last run of a row may be shorter */
    int64_t count;
};

/* One copy for all encodings and kernels. */
static __device__ __noinline__ uint32_t encode_any(int32_t encoding, float v) { return encode_code(encoding, v); }

/* v / scale or v * (1 / scale), clamped and encoded. */
struct Encoder {
    int32_t encoding, arithmetic, zero_code;
    bool multiply;
    float low, high;

    __device__ Encoder(const gatun_matrix &m, const gatun_quantize_rule &rule)
        : encoding(m.encoding), arithmetic(rule.arithmetic), zero_code(rule.zero_code),
          multiply(rule.reciprocal || m.encoding == GATUN_NF4 || m.encoding == GATUN_FP4), low(rule.code_min),
          high(rule.code_max) {}

    /* The sign of a NaN is in the code. A processor keeps an operand's, and makes a negative one of 0/0 and 0 *
     * infinity; this device makes a positive one of everything. */
    __device__ static float as_processors(float q, float v, float other) {
        return q == q ? q : v != v ? v : other != other ? other : -q;
    }
    __device__ float reciprocal(float stored) const { return round_to(arithmetic, __fdiv_rn(1.0f, stored)); }
    __device__ uint32_t operator()(float v, float scale, float reciprocal) const {
        if (scale == 0.0f && zero_code >= 0)
            return (uint32_t)zero_code;
        float q = round_to(arithmetic, multiply ? __fmul_rn(v, reciprocal) : __fdiv_rn(v, scale));
        if (arithmetic != GATUN_BF16) /* which has one NaN, and that is positive */
            q = as_processors(q, v, multiply ? reciprocal : scale);
        q = q < low ? low : q > high ? high : q;
        return encode_any(encoding, q);
    }
};

__device__ inline float new_scale(float largest, const gatun_quantize_rule &rule) {
    float scale;
    if (rule.divisor == 1.0f) /* short runs do not want to wait for a division */
        scale = is_nan(largest) ? __uint_as_float(0x7FFFFFFF) : largest;
    else
        scale = __fdiv_rn(largest, rule.divisor);
    scale = round_to(rule.arithmetic, scale);
    return scale < rule.scale_floor ? rule.scale_floor : scale; /* NaN stays */
}

/* The bits of a magnitude compare like the magnitude, with NaN above all. */
__device__ inline uint32_t magnitude(float v) { return __float_as_uint(v) & 0x7FFFFFFF; }

/* Codes first .. first+count-1 of the stream at `codes`; `first` is even, so the bytes are this thread's alone. */
template <int BITS>
__device__ inline void store_run(uint8_t *codes, int64_t first, int count, int32_t order, const uint32_t *c) {
    if (BITS == 8) {
        for (int i = 0; i < count; i++)
            codes[first + i] = (uint8_t)c[i];
        return;
    }
    int high = order == GATUN_ORDER_HIGH_FIRST ? 4 : 0;
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < RUN; i++)
        word |= (i < count ? c[i] : 0) << ((4 * i) ^ high);
    for (int i = 0; i < (count + 1) / 2; i++)
        codes[first / 2 + i] = (uint8_t)(word >> 8 * i);
}

/* The commonest encodings in runs that lie aligned: false when these are not such runs. quantize_runs.cu */
bool launch_aligned_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                         int64_t ldw, const Runs &runs, cudaStream_t stream);

} // namespace gatun

#endif
