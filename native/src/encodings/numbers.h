/*
 * Plain numbers in memory: F32, F16 and BF16, little-endian and not necessarily aligned, and their roundings (to
 * nearest even, as PyTorch casts).
 */
#ifndef GATUN_NUMBERS_H
#define GATUN_NUMBERS_H

#include <math.h>
#include <string.h>

#include "gatun_internal.h"

static inline uint32_t gatun_float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float gatun_bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t gatun_load_u16(const void *at) {
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline uint32_t gatun_load_u32(const void *at) {
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline float gatun_load_f32(const void *at) { return gatun_bits_float(gatun_load_u32(at)); }

static inline float gatun_f16_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = half & 0x7FFF;
    if (magnitude >= 0x7C00) { /* infinity; NaN keeps its payload and becomes quiet */
        uint32_t payload = (magnitude & 0x3FF) << 13;
        return gatun_bits_float(sign | 0x7F800000 | payload | (payload != 0 ? 0x400000 : 0));
    }
    if (magnitude >= 0x0400) {
        return gatun_bits_float(sign | ((magnitude << 13) + (112u << 23)));
    }
    float value = (float)magnitude * 0x1p-24f;
    return sign != 0 ? -value : value;
}

/* NaN is 0x7E00 with the sign; from 65520 on infinite. */
static inline uint16_t gatun_float_to_f16(float value) {
    uint32_t bits = gatun_float_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) {
        return (uint16_t)(sign | 0x7E00);
    }
    if (magnitude >= 0x477FF000) {
        return (uint16_t)(sign | 0x7C00);
    }
    if (magnitude >= 0x38800000) { /* normal: round the low 13 bits away; a carry moves on into the exponent */
        return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13));
    }
    /* Subnormal: adding one half puts the last place of binary16 at the last place of the sum. */
    float shifted = gatun_bits_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (gatun_float_bits(shifted) - 0x3F000000));
}

static inline float gatun_bf16_to_float(uint16_t bits) { return gatun_bits_float((uint32_t)bits << 16); }

/* Every NaN is 0x7FC0. */
static inline uint16_t gatun_float_to_bf16(float value) {
    uint32_t bits = gatun_float_bits(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return 0x7FC0;
    }
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Rounded to a plain type and back. */
static inline float gatun_round(int32_t type, float value) {
    switch (type) {
    case GATUN_F16:
        return gatun_f16_to_float(gatun_float_to_f16(value));
    case GATUN_BF16:
        return gatun_bf16_to_float(gatun_float_to_bf16(value));
    default:
        return value;
    }
}

/* A float that rounds on to any 16-bit type as the double itself would: what lies between two floats becomes the one
 * with the odd last bit, so that no tie is made. */
static inline float gatun_round_to_odd(double value) {
    float near = (float)value;
    if ((double)near == value || isnan(value)) {
        return near;
    }
    uint32_t bits = gatun_float_bits(near);
    if (fabs((double)near) > fabs(value)) {
        bits--;
    }
    return gatun_bits_float(bits | 1);
}

/* Number `index` of an array of F32, F16 or BF16. */
static inline float gatun_plain_get(int32_t type, const void *data, int64_t index) {
    const uint8_t *bytes = (const uint8_t *)data;
    switch (type) {
    case GATUN_F16:
        return gatun_f16_to_float(gatun_load_u16(bytes + 2 * index));
    case GATUN_BF16:
        return gatun_bf16_to_float(gatun_load_u16(bytes + 2 * index));
    default:
        return gatun_load_f32(bytes + 4 * index);
    }
}

static inline void gatun_plain_put(int32_t type, void *data, int64_t index, float value) {
    uint8_t *bytes = (uint8_t *)data;
    if (type == GATUN_F32) {
        memcpy(bytes + 4 * index, &value, sizeof value);
        return;
    }
    uint16_t half = type == GATUN_F16 ? gatun_float_to_f16(value) : gatun_float_to_bf16(value);
    memcpy(bytes + 2 * index, &half, sizeof half);
}

static inline int64_t gatun_plain_size(int32_t type) { return type == GATUN_F32 ? 4 : 2; }

/* Number `index` of an array of plain numbers, 8-bit floats or 8-bit integers. */
float gatun_number_get(int32_t type, const void *data, int64_t index);
/* Bytes of such a number; 0 when it is none. */
int64_t gatun_number_size(int32_t type);

/* The 8-bit floats. Overflow as PyTorch casts: e4m3fn to NaN with the sign, e5m2 to infinity, fnuz to its one NaN. */
bool gatun_is_f8(int32_t encoding); /* E8M0 included */
float gatun_f8_max(int32_t encoding);
uint8_t gatun_f8_encode(int32_t encoding, float value);
float gatun_f8_decode(int32_t encoding, int32_t code);

/* The unsigned code of a number: integers to nearest even and clamped (NaN is 0), floats by their own cast, NF4 and FP4
 * by bitsandbytes' thresholds (NaN is the code that no threshold lifts, 0). */
uint8_t gatun_encode(int32_t encoding, float value);

#endif
