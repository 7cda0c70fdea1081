/*
 * Numbers on the device: the plain types, the 8-bit floats and the codebooks, to the bit what the CPU's definitions
 * give. The intrinsics that round NaN or overflow differently are not used.
 */
#ifndef GATUN_CUDA_NUMBERS_CUH
#define GATUN_CUDA_NUMBERS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda_internal.h"

namespace gatun {

__device__ inline bool is_nan(float v) { return (__float_as_uint(v) & 0x7FFFFFFF) > 0x7F800000; }

/* binary16 bits, to nearest even; NaN is 0x7E00 with the sign. */
__device__ inline uint16_t to_f16(float v) {
    if (is_nan(v))
        return (uint16_t)(0x7E00 | (__float_as_uint(v) >> 16 & 0x8000));
    return __half_as_ushort(__float2half_rn(v));
}

/* bfloat16 bits, to nearest even; every NaN is 0x7FC0. */
__device__ inline uint16_t to_bf16(float v) {
    if (is_nan(v))
        return 0x7FC0;
    uint32_t bits = __float_as_uint(v);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

__device__ inline float from_f16(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

__device__ inline float from_bf16(uint16_t bits) { return __uint_as_float((uint32_t)bits << 16); }

__device__ inline float round_to(int32_t type, float v) {
    switch (type) {
    case GATUN_F16:
        return from_f16(to_f16(v));
    case GATUN_BF16:
        return from_bf16(to_bf16(v));
    default:
        return v;
    }
}

/* What sets the four 8-bit float formats apart. */
struct Fp8 {
    int mantissa;
    int bias;
    int largest; /* code of the largest finite magnitude */
    bool fnuz;   /* one NaN, 0x80; no negative zero */
};

__host__ __device__ inline Fp8 fp8_of(int32_t encoding) {
    switch (encoding) {
    case GATUN_F8_E5M2:
        return {2, 15, 0x7B, false};
    case GATUN_F8_E4M3FNUZ:
        return {3, 8, 0x7F, true};
    case GATUN_F8_E5M2FNUZ:
        return {2, 16, 0x7F, true};
    default:
        return {3, 7, 0x7E, false};
    }
}

__device__ inline float power_of_two(int exponent) { /* -149 .. 127 */
    return exponent >= -126 ? __uint_as_float((uint32_t)(exponent + 127) << 23)
                            : __uint_as_float(1u << (exponent + 149));
}

__device__ inline float fp8_decode(int32_t encoding, uint32_t code) {
    if (encoding == GATUN_F8_E8M0)
        return code == 255 ? __uint_as_float(0x7FC00000) : power_of_two((int)code - 127);
    Fp8 f = fp8_of(encoding);
    int magnitude = code & 0x7F;
    bool negative = code & 0x80;
    if (f.fnuz ? code == 0x80 : magnitude > f.largest) {
        bool infinite = encoding == GATUN_F8_E5M2 && magnitude == 0x7C;
        return infinite ? __uint_as_float(negative ? 0xFF800000 : 0x7F800000) : __uint_as_float(0x7FC00000);
    }
    int exponent = magnitude >> f.mantissa;
    int fraction = magnitude & ((1 << f.mantissa) - 1);
    int significand = exponent == 0 ? fraction : fraction | 1 << f.mantissa;
    float value = (float)significand * power_of_two(max(1, exponent) - f.bias - f.mantissa);
    return negative ? -value : value;
}

/* To nearest even, subnormals included; overflow as PyTorch's cast. */
__device__ inline uint32_t fp8_encode(int32_t encoding, float v) {
    uint32_t bits = __float_as_uint(v);
    if (encoding == GATUN_F8_E8M0) {
        uint32_t exponent = bits >> 23 & 0xFF;
        if (exponent == 0xFF)
            return 0xFF;
        bool half = bits & 0x400000, more = bits & 0x3FFFFF;
        return half && (more || exponent > 0) ? exponent + 1 : exponent;
    }
    Fp8 f = fp8_of(encoding);
    uint32_t sign = bits >> 24 & 0x80;
    if (is_nan(v))
        return f.fnuz ? 0x80 : sign | 0x7F;
    int magnitude = f.largest + 1;
    if ((bits & 0x7FFFFFFF) != 0x7F800000) {
        int exponent = max((int)(bits >> 23 & 0xFF) - 127, 1 - f.bias);
        /* In units of the last place the number is an integer after rounding; a carry moves on into the exponent. */
        int shift = f.mantissa - exponent;
        double scaled = fabs((double)v) * __longlong_as_double((long long)(shift + 1023) << 52);
        int units = (int)fmin(rint(scaled), 1e6);
        magnitude = min(f.largest + 1, ((exponent + f.bias - 1) << f.mantissa) + units);
    }
    if (magnitude > f.largest)
        return f.fnuz ? 0x80 : sign | (uint32_t)magnitude;
    return f.fnuz && magnitude == 0 ? 0 : sign | (uint32_t)magnitude;
}

__device__ inline float fp8_max(int32_t encoding) {
    return encoding == GATUN_F8_E8M0 ? power_of_two(127) : fp8_decode(encoding, (uint32_t)fp8_of(encoding).largest);
}

/* One number of a plain, 8-bit float or 8-bit integer array; the array need not be aligned for its type. */
__device__ inline float load_number(int32_t type, const void *base, int64_t index) {
    const uint8_t *p = (const uint8_t *)base;
    switch (type) {
    case GATUN_F32: {
        p += 4 * index;
        uint32_t bits =
            ((uintptr_t)p & 3) == 0 ? *(const uint32_t *)p : p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
        return __uint_as_float(bits);
    }
    case GATUN_F16:
    case GATUN_BF16: {
        p += 2 * index;
        uint16_t bits = ((uintptr_t)p & 1) == 0 ? *(const uint16_t *)p : (uint16_t)(p[0] | p[1] << 8);
        return type == GATUN_F16 ? from_f16(bits) : from_bf16(bits);
    }
    case GATUN_I8:
        return (float)(int8_t)p[index];
    case GATUN_U8:
        return (float)p[index];
    case GATUN_NONE:
        return 1.0f;
    default:
        return fp8_decode(type, p[index]);
    }
}

/* F32, F16 or BF16, aligned: what hot kernels load and store, without the code for all other types. */
__device__ inline float load_plain(int32_t type, const void *base, int64_t index) {
    if (type == GATUN_F32)
        return ((const float *)base)[index];
    uint16_t bits = ((const uint16_t *)base)[index];
    return type == GATUN_F16 ? from_f16(bits) : from_bf16(bits);
}

__device__ inline void store_plain(int32_t type, void *base, int64_t index, float v) {
    if (type == GATUN_F32)
        ((float *)base)[index] = v;
    else
        ((uint16_t *)base)[index] = type == GATUN_F16 ? to_f16(v) : to_bf16(v);
}

/* The array must be aligned for its type. */
__device__ inline void store_number(int32_t type, void *base, int64_t index, float v) {
    switch (type) {
    case GATUN_F32:
        ((float *)base)[index] = v;
        break;
    case GATUN_F16:
        ((uint16_t *)base)[index] = to_f16(v);
        break;
    case GATUN_BF16:
        ((uint16_t *)base)[index] = to_bf16(v);
        break;
    default:
        ((uint8_t *)base)[index] = (uint8_t)fp8_encode(type, v);
        break;
    }
}

/* bitsandbytes' NF4 and FP4 and OCP's E2M1; sources in gatun.h. */
__constant__ const float nf4_values[16] = {-1.0f,
                                           -0.6961928009986877f,
                                           -0.5250730514526367f,
                                           -0.39491748809814453f,
                                           -0.28444138169288635f,
                                           -0.18477343022823334f,
                                           -0.09105003625154495f,
                                           0.0f,
                                           0.07958029955625534f,
                                           0.16093020141124725f,
                                           0.24611230194568634f,
                                           0.33791524171829224f,
                                           0.44070982933044434f,
                                           0.5626170039176941f,
                                           0.7229568362236023f,
                                           1.0f};
__constant__ constexpr float nf4_thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};
__constant__ const float fp4_magnitudes[8] = {
    0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f, 0.3333333432674408f, 0.5f, 0.1666666716337204f, 0.25f};
__constant__ constexpr float fp4_thresholds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                                  0.4166667f,  0.583333f,  0.8333333f};
__constant__ const uint8_t fp4_order[8] = {0, 1, 6, 7, 4, 5, 2, 3}; /* codes by rising magnitude */
__constant__ const float e2m1_magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
__constant__ const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* The value of an unsigned code. */
__device__ inline float decode_code(int32_t encoding, uint32_t code) {
    switch (encoding) {
    case GATUN_I8:
        return (float)(int8_t)code;
    case GATUN_I4:
        return (float)((int)(code ^ 8) - 8);
    case GATUN_I2:
        return (float)((int)(code ^ 2) - 2);
    case GATUN_U1:
    case GATUN_U2:
    case GATUN_U3:
    case GATUN_U4:
    case GATUN_U5:
    case GATUN_U6:
    case GATUN_U7:
    case GATUN_U8:
        return (float)code;
    case GATUN_NF4:
        return nf4_values[code];
    case GATUN_FP4:
        return code < 8 ? fp4_magnitudes[code] : -fp4_magnitudes[code - 8];
    case GATUN_F4_E2M1:
        return code < 8 ? e2m1_magnitudes[code] : -e2m1_magnitudes[code - 8];
    default:
        return fp8_decode(encoding, code);
    }
}

__device__ inline uint32_t encode_integer(float v, float low, float high) {
    return (uint32_t)(int)fminf(fmaxf(is_nan(v) ? 0.0f : rintf(v), low), high);
}

/* How many thresholds lie strictly below. */
__device__ inline uint32_t count_below(float v, const float *thresholds, int count) {
    uint32_t below = 0;
    for (int i = 0; i < count; i++)
        below += v > thresholds[i];
    return below;
}

/* To nearest, ties to the even code, saturating. */
__device__ inline uint32_t e2m1_encode(float v) {
    uint32_t sign = __float_as_uint(v) >> 28 & 8;
    float x = fabsf(v);
    if (is_nan(v))
        return sign | 7;
    uint32_t code = (x > 0.25f) + (x >= 0.75f) + (x > 1.25f) + (x >= 1.75f) + (x > 2.5f) + (x >= 3.5f) + (x > 5.0f);
    return sign | code;
}

/* The unsigned code of a value: integers to nearest even and clamped, floats by their own cast, NF4 and FP4 by
 * bitsandbytes' thresholds. */
__device__ inline uint32_t encode_code(int32_t encoding, float v) {
    switch (encoding) {
    case GATUN_I8:
        return encode_integer(v, -128.0f, 127.0f) & 0xFF;
    case GATUN_U8:
        return encode_integer(v, 0.0f, 255.0f);
    case GATUN_I4:
        return encode_integer(v, -8.0f, 7.0f) & 0xF;
    case GATUN_I2:
        return encode_integer(v, -2.0f, 1.0f) & 3;
    case GATUN_U1:
        return encode_integer(v, 0.0f, 1.0f);
    case GATUN_U2:
        return encode_integer(v, 0.0f, 3.0f);
    case GATUN_U3:
        return encode_integer(v, 0.0f, 7.0f);
    case GATUN_U4:
        return encode_integer(v, 0.0f, 15.0f);
    case GATUN_U5:
        return encode_integer(v, 0.0f, 31.0f);
    case GATUN_U6:
        return encode_integer(v, 0.0f, 63.0f);
    case GATUN_U7:
        return encode_integer(v, 0.0f, 127.0f);
    case GATUN_NF4:
        return count_below(v, nf4_thresholds, 15);
    case GATUN_FP4:
        return fp4_order[count_below(fabsf(v), fp4_thresholds, 7)] | (v < 0.0f ? 8u : 0u);
    case GATUN_F4_E2M1:
        return e2m1_encode(v);
    default:
        return fp8_encode(encoding, v);
    }
}

} // namespace gatun

#endif
