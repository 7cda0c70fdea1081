/*
 * Every encoding of at most 8 bits as a table of what its codes mean, and the way back. NF4 and FP4 are bitsandbytes'
 * tables and thresholds (csrc/kernels.cu), E2M1 is OCP's.
 */
#include "encodings/list.h"
#include "encodings/numbers.h"

/* Tables that the compiler works out: VALUE(code) for 2^n codes. */
#define CODES_4(VALUE, c)  VALUE((c)), VALUE((c) + 1), VALUE((c) + 2), VALUE((c) + 3)
#define CODES_16(VALUE, c) CODES_4(VALUE, c), CODES_4(VALUE, (c) + 4), CODES_4(VALUE, (c) + 8), CODES_4(VALUE, (c) + 12)
#define CODES_64(VALUE, c)                                                                                             \
    CODES_16(VALUE, c), CODES_16(VALUE, (c) + 16), CODES_16(VALUE, (c) + 32), CODES_16(VALUE, (c) + 48)
#define CODES_256(VALUE)                                                                                               \
    { CODES_64(VALUE, 0), CODES_64(VALUE, 64), CODES_64(VALUE, 128), CODES_64(VALUE, 192) }

/* 2^e and 2^-e for e = 0 .. 127, in two steps since a shift takes 63. */
#define POWER_UP(e)   (((e) < 64 ? 1.0f : 0x1p64f) * (float)(1ull << ((e)&63)))
#define POWER_DOWN(e) (((e) < 64 ? 1.0f : 0x1p-64f) / (float)(1ull << ((e)&63)))
#define POWER(e)      ((e) < 0 ? POWER_DOWN((e) < 0 ? -(e) : 0) : POWER_UP((e) < 0 ? 0 : (e)))

/* An 8-bit float: significand times a power of two; subnormals have the exponent of the smallest normal number. */
#define F8_MAGNITUDE(c, mantissa, bias)                                                                                \
    ((((c)&0x7F) >> (mantissa)) == 0 ? (float)((c)&0x7F) * POWER(1 - (bias) - (mantissa))                              \
                                     : (float)(((c) & ((1 << (mantissa)) - 1)) | 1 << (mantissa)) *                    \
                                           POWER((((c)&0x7F) >> (mantissa)) - (bias) - (mantissa)))
#define F8_VALUE(c, mantissa, bias) ((c)&0x80 ? -F8_MAGNITUDE(c, mantissa, bias) : F8_MAGNITUDE(c, mantissa, bias))
#define E4M3(c)                     (((c)&0x7F) == 0x7F ? NAN : F8_VALUE(c, 3, 7))
#define E5M2(c)                     (((c)&0x7F) > 0x7C ? NAN : (c) == 0x7C ? INFINITY : (c) == 0xFC ? -INFINITY : F8_VALUE(c, 2, 15))
#define E4M3FNUZ(c)                 ((c) == 0x80 ? NAN : F8_VALUE(c, 3, 8))
#define E5M2FNUZ(c)                 ((c) == 0x80 ? NAN : F8_VALUE(c, 2, 16))
#define E8M0(c)                     ((c) == 0xFF ? NAN : POWER((c)-127))
#define SIGNED(c)                   ((c) < 128 ? (float)(c) : (float)((c)-256))
#define UNSIGNED(c)                 ((float)(c))

static const float f8_e4m3[256] = CODES_256(E4M3);
static const float f8_e5m2[256] = CODES_256(E5M2);
static const float f8_e4m3fnuz[256] = CODES_256(E4M3FNUZ);
static const float f8_e5m2fnuz[256] = CODES_256(E5M2FNUZ);
static const float f8_e8m0[256] = CODES_256(E8M0);
static const float i8[256] = CODES_256(SIGNED);
static const float unsigned_codes[256] = CODES_256(UNSIGNED); /* of any width up to 8 bits */
static const float i4[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
static const float i2[4] = {0, 1, -2, -1};

static const float nf4[16] = {-1.0f,
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
static const float nf4_thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784181118011f};

static const float fp4[16] = {0.0f,
                              0.0052083334885537624f,
                              0.6666666865348816f,
                              1.0f,
                              0.3333333432674408f,
                              0.5f,
                              0.1666666716337204f,
                              0.25f,
                              -0.0f,
                              -0.0052083334885537624f,
                              -0.6666666865348816f,
                              -1.0f,
                              -0.3333333432674408f,
                              -0.5f,
                              -0.1666666716337204f,
                              -0.25f};
static const float fp4_thresholds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                        0.4166667f,  0.583333f,  0.8333333f};
/* FP4's codes by rising magnitude. */
static const uint8_t fp4_order[8] = {0, 1, 6, 7, 4, 5, 2, 3};

static const float f4_e2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                  -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

const float *gatun_codebook(int32_t encoding) {
    switch (encoding) {
    case GATUN_F8_E4M3:
        return f8_e4m3;
    case GATUN_F8_E5M2:
        return f8_e5m2;
    case GATUN_F8_E4M3FNUZ:
        return f8_e4m3fnuz;
    case GATUN_F8_E5M2FNUZ:
        return f8_e5m2fnuz;
    case GATUN_F8_E8M0:
        return f8_e8m0;
    case GATUN_I8:
        return i8;
    case GATUN_I4:
        return i4;
    case GATUN_I2:
        return i2;
    case GATUN_NF4:
        return nf4;
    case GATUN_FP4:
        return fp4;
    case GATUN_F4_E2M1:
        return f4_e2m1;
    case GATUN_U1:
    case GATUN_U2:
    case GATUN_U3:
    case GATUN_U4:
    case GATUN_U5:
    case GATUN_U6:
    case GATUN_U7:
    case GATUN_U8:
        return unsigned_codes;
    default:
        return NULL;
    }
}

/* How many of the rising thresholds lie strictly below; none below NaN. */
static int32_t above(float value, const float *thresholds, int32_t count) {
    int32_t n = 0;
    while (n < count && value > thresholds[n]) {
        n++;
    }
    return n;
}

static int32_t integer(float value, int32_t min, int32_t max) {
    if (isnan(value)) {
        return 0 < min ? min : 0;
    }
    float rounded = rintf(value);
    return rounded <= (float)min ? min : rounded >= (float)max ? max : (int32_t)rounded;
}

/* To nearest, ties to the even code, saturating; NaN becomes the largest magnitude, as comparisons leave it. */
static int32_t e2m1(float value) {
    int32_t sign = (int32_t)(gatun_float_bits(value) >> 28 & 8);
    float x = fabsf(value);
    int32_t code = 0;
    while (code < 7) {
        float middle = (f4_e2m1[code] + f4_e2m1[code + 1]) / 2;
        if (x < middle || (x == middle && (code & 1) == 0)) {
            break;
        }
        code++;
    }
    return sign | code;
}

uint8_t gatun_encode(int32_t encoding, float value) {
    switch (encoding) {
    case GATUN_NF4:
        return (uint8_t)above(value, nf4_thresholds, 15);
    case GATUN_FP4:
        return (uint8_t)(fp4_order[above(fabsf(value), fp4_thresholds, 7)] | (value < 0 ? 8 : 0));
    case GATUN_F4_E2M1:
        return (uint8_t)e2m1(value);
    case GATUN_I8:
    case GATUN_I4:
    case GATUN_I2: {
        int32_t half = 1 << (gatun_encoding_bits(encoding) - 1);
        return (uint8_t)(integer(value, -half, half - 1) & (2 * half - 1));
    }
    default:
        if (gatun_is_f8(encoding)) {
            return gatun_f8_encode(encoding, value);
        }
        return (uint8_t)integer(value, 0, (1 << gatun_encoding_bits(encoding)) - 1);
    }
}
