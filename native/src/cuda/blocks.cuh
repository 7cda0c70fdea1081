/*
 * GGUF's blocks on the device: the value of one element, by ggml's layouts and float arithmetic.
 */
#ifndef GATUN_CUDA_BLOCKS_CUH
#define GATUN_CUDA_BLOCKS_CUH

#include "numbers.cuh"

namespace gatun {

struct BlockShape {
    int elements;
    int bytes;
};

/* {0, 0} for what is no block encoding. */
__host__ __device__ constexpr BlockShape block_shape(int32_t encoding) {
    switch (encoding) {
    case GATUN_Q4_0:
        return {32, 18};
    case GATUN_Q4_1:
        return {32, 20};
    case GATUN_Q5_0:
        return {32, 22};
    case GATUN_Q5_1:
        return {32, 24};
    case GATUN_Q8_0:
        return {32, 34};
    case GATUN_Q8_1:
        return {32, 36};
    case GATUN_Q2_K:
        return {256, 84};
    case GATUN_Q3_K:
        return {256, 110};
    case GATUN_Q4_K:
        return {256, 144};
    case GATUN_Q5_K:
        return {256, 176};
    case GATUN_Q6_K:
        return {256, 210};
    case GATUN_Q8_K:
        return {256, 292};
    case GATUN_IQ4_NL:
        return {32, 18};
    case GATUN_IQ4_XS:
        return {256, 136};
    case GATUN_TQ1_0:
        return {256, 54};
    case GATUN_TQ2_0:
        return {256, 66};
    case GATUN_MXFP4:
        return {32, 17};
    case GATUN_NVFP4:
        return {64, 36};
    case GATUN_Q1_0:
        return {128, 18};
    case GATUN_Q2_0:
        return {64, 18};
    default:
        return {0, 0};
    }
}

__device__ inline float block_half(const uint8_t *p) { return from_f16((uint16_t)(p[0] | p[1] << 8)); }

/* Element i of 32 whose halves share bytes: i in the low nibbles, i + 16 in the high ones. */
__device__ inline int split_nibble(const uint8_t *q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

/* Scale and minimum of sub-block j of Q4_K and Q5_K, six bits each. */
__device__ inline void k_scale_min(const uint8_t *s, int j, int *scale, int *minimum) {
    *scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
}

__device__ inline float affine(float scale, int q, float minimum) {
    return __fadd_rn(__fmul_rn(scale, (float)q), minimum);
}

/* ggml's unsigned e4m3, 0 for 0x7F. */
__device__ inline float ue4m3(uint32_t code) {
    code &= 0x7F; /* exponent and mantissa lie as in a float whose exponent is 120 less */
    return code == 0x7F ? 0.0f : __fmul_rn(__uint_as_float(code << 20), 0x1p120f);
}

__device__ inline float trit_value(uint32_t byte, int n) {
    const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (float)((int)((uint8_t)(byte * powers[n]) * 3u >> 8) - 1);
}

/* Element i of the block at b. */
__device__ inline float block_value(int32_t encoding, const uint8_t *b, int i) {
    switch (encoding) {
    case GATUN_Q4_0:
        return __fmul_rn((float)(split_nibble(b + 2, i) - 8), block_half(b));
    case GATUN_Q4_1:
        return affine(block_half(b), split_nibble(b + 4, i), block_half(b + 2));
    case GATUN_Q5_0: {
        int q = split_nibble(b + 6, i) | (b[2 + i / 8] >> i % 8 & 1) << 4;
        return __fmul_rn((float)(q - 16), block_half(b));
    }
    case GATUN_Q5_1: {
        int q = split_nibble(b + 8, i) | (b[4 + i / 8] >> i % 8 & 1) << 4;
        return affine(block_half(b), q, block_half(b + 2));
    }
    case GATUN_Q8_0:
        return __fmul_rn((float)(int8_t)b[2 + i], block_half(b));
    case GATUN_Q8_1:
        return __fmul_rn((float)(int8_t)b[4 + i], block_half(b));
    case GATUN_Q8_K:
        return __fmul_rn(load_number(GATUN_F32, b, 0), (float)(int8_t)b[4 + i]);
    case GATUN_Q2_K: {
        int q = b[16 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        uint32_t s = b[i / 16];
        float scale = __fmul_rn(block_half(b + 80), (float)(s & 15));
        float minimum = __fmul_rn(block_half(b + 82), (float)(s >> 4));
        return __fsub_rn(__fmul_rn(scale, (float)q), minimum);
    }
    case GATUN_Q3_K: {
        int sub = i / 16, low = b[96 + sub % 8], high = b[104 + sub % 4];
        int scale = ((sub < 8 ? low & 15 : low >> 4) | (high >> sub / 4 * 2 & 3) << 4) - 32;
        int q = b[32 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        q -= b[i % 32] >> i / 32 & 1 ? 0 : 4;
        return __fmul_rn(__fmul_rn(block_half(b + 108), (float)scale), (float)q);
    }
    case GATUN_Q4_K:
    case GATUN_Q5_K: {
        int sub = i / 32, scale, minimum;
        k_scale_min(b + 4, sub, &scale, &minimum);
        const uint8_t *qs = b + (encoding == GATUN_Q4_K ? 16 : 48);
        int q = qs[sub / 2 * 32 + i % 32] >> sub % 2 * 4 & 15;
        if (encoding == GATUN_Q5_K)
            q |= (b[16 + i % 32] >> sub & 1) << 4;
        float d = __fmul_rn(block_half(b), (float)scale), m = __fmul_rn(block_half(b + 2), (float)minimum);
        return __fsub_rn(__fmul_rn(d, (float)q), m);
    }
    case GATUN_Q6_K: {
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        int low = b[64 * half + l + quarter % 2 * 32] >> quarter / 2 * 4 & 15;
        int q = (low | (b[128 + 32 * half + l] >> quarter * 2 & 3) << 4) - 32;
        float scale = __fmul_rn(block_half(b + 208), (float)(int8_t)b[192 + 8 * half + 2 * quarter + l / 16]);
        return __fmul_rn(scale, (float)q);
    }
    case GATUN_IQ4_NL:
        return __fmul_rn(block_half(b), (float)iq4_values[split_nibble(b + 2, i)]);
    case GATUN_IQ4_XS: {
        int sub = i / 32, high = (b[2] | b[3] << 8) >> 2 * sub & 3;
        int scale = ((b[4 + sub / 2] >> sub % 2 * 4 & 15) | high << 4) - 32;
        return __fmul_rn(__fmul_rn(block_half(b), (float)scale),
                         (float)iq4_values[split_nibble(b + 8 + 16 * sub, i % 32)]);
    }
    case GATUN_TQ1_0: {
        float t = i < 160   ? trit_value(b[i % 32], i / 32)
                  : i < 240 ? trit_value(b[32 + (i - 160) % 16], (i - 160) / 16)
                            : trit_value(b[48 + (i - 240) % 4], (i - 240) / 4);
        return __fmul_rn(t, block_half(b + 52));
    }
    case GATUN_TQ2_0: {
        int q = b[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        return __fmul_rn((float)(q - 1), block_half(b + 64));
    }
    case GATUN_MXFP4: {
        int q = split_nibble(b + 1, i);
        /* The table is doubled, so the exponent is one less: 2^(e-128). */
        float doubled = 2.0f * decode_code(GATUN_F4_E2M1, (uint32_t)q);
        return __fmul_rn(q == 8 ? 0.0f : doubled, power_of_two((int)b[0] - 128));
    }
    case GATUN_NVFP4: {
        int sub = i / 16, j = i % 16;
        int q = j < 8 ? b[4 + 8 * sub + j] & 15 : b[4 + 8 * sub + j - 8] >> 4;
        float doubled = q == 8 ? 0.0f : 2.0f * decode_code(GATUN_F4_E2M1, (uint32_t)q);
        return __fmul_rn(doubled, __fmul_rn(ue4m3(b[sub]), 0.5f));
    }
    case GATUN_Q1_0: {
        float d = block_half(b);
        return b[2 + i / 8] >> i % 8 & 1 ? d : -d;
    }
    case GATUN_Q2_0:
        return __fmul_rn((float)((b[2 + i / 4] >> i % 4 * 2 & 3) - 1), block_half(b));
    default:
        return 0.0f;
    }
}

} // namespace gatun

#endif
