/*
 * Numbers to GGUF's blocks. Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4 and NVFP4 give ggml's own bytes (the reference
 * quantizers of ggml-quants.c without an importance matrix); Q4_K and Q6_K are searched (gguf_search.c).
 */
#include "encodings/gguf_search.h"

static void put_half(uint8_t *at, float value) {
    uint16_t half = gatun_float_to_f16(value);
    memcpy(at, &half, sizeof half);
}

/* What does not fit in an int is its smallest, as x86 converts. */
static int32_t truncated(float v) { return fabsf(v) < 0x1p31f ? (int32_t)v : INT32_MIN; }

/* The low nibbles of 2 * half codes: the first half in the low nibbles of the bytes. */
static void put_nibbles(const int32_t *codes, int32_t half, uint8_t *out) {
    for (int32_t j = 0; j < half; j++) {
        out[j] = (uint8_t)((codes[j] & 15) | (codes[j + half] & 15) << 4);
    }
}

static void put_fifth_bits(const int32_t *codes, uint8_t *out) {
    uint32_t bits = 0;
    for (int32_t j = 0; j < 32; j++) {
        bits |= (uint32_t)(codes[j] >> 4 & 1) << j;
    }
    memcpy(out, &bits, sizeof bits);
}

static float reciprocal_of(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/* Q4_0 (half 8) and Q5_0 (16): the number of largest magnitude, the first of them, gets the code -half. */
static void encode_signed(const float *x, int32_t half, uint8_t *b) {
    float largest = 0.0f, with_sign = 0.0f;
    for (int32_t j = 0; j < 32; j++) {
        if (largest < fabsf(x[j])) {
            largest = fabsf(x[j]);
            with_sign = x[j];
        }
    }
    float d = with_sign / (float)-half;
    float reciprocal = reciprocal_of(d);
    int32_t codes[32];
    for (int32_t j = 0; j < 32; j++) {
        int32_t code = (int8_t)truncated(x[j] * reciprocal + ((float)half + 0.5f));
        codes[j] = code < 2 * half - 1 ? code : 2 * half - 1;
    }
    put_half(b, d);
    if (half == 16) {
        put_fifth_bits(codes, b + 2);
    }
    put_nibbles(codes, 16, half == 16 ? b + 6 : b + 2);
}

/* Q4_1 (15 steps) and Q5_1 (31): from the smallest number to the largest. */
static void encode_ranged(const float *x, int32_t steps, uint8_t *b) {
    float min = 0x1.fffffep127f, max = -0x1.fffffep127f;
    for (int32_t j = 0; j < 32; j++) {
        min = x[j] < min ? x[j] : min;
        max = x[j] > max ? x[j] : max;
    }
    float d = (max - min) / (float)steps;
    float reciprocal = reciprocal_of(d);
    int32_t codes[32];
    for (int32_t j = 0; j < 32; j++) {
        int32_t code = truncated((x[j] - min) * reciprocal + 0.5f);
        int32_t small = (int8_t)code;
        codes[j] = steps == 31 ? code : small < 15 ? small : 15;
    }
    put_half(b, d);
    put_half(b + 2, min);
    if (steps == 31) {
        put_fifth_bits(codes, b + 4);
    }
    put_nibbles(codes, 16, steps == 31 ? b + 8 : b + 4);
}

static void encode_q8_0(const float *x, uint8_t *b) {
    float largest = 0.0f;
    for (int32_t j = 0; j < 32; j++) {
        largest = largest > fabsf(x[j]) ? largest : fabsf(x[j]);
    }
    float d = largest / 127.0f;
    float reciprocal = reciprocal_of(d);
    put_half(b, d);
    for (int32_t j = 0; j < 32; j++) {
        /* to nearest, halves away from zero; exact in double */
        float v = x[j] * reciprocal;
        double away = (double)v + (v < 0.0f ? -0.5 : 0.5);
        b[2 + j] = fabsf(v) < 0x1p31f ? (uint8_t)(int32_t)away : 0;
    }
}

static float largest_of(const float *x, int32_t count) {
    float largest = 0.0f;
    for (int32_t j = 0; j < count; j++) {
        largest = largest < fabsf(x[j]) ? fabsf(x[j]) : largest;
    }
    return largest;
}

/* The first of the values that is nearest: ties go to the smaller code, toward zero. */
static int32_t search_e2m1(float x, float d) {
    int32_t best = 0;
    float least = fabsf((float)gatun_e2m1_doubled[0] * d - x);
    for (int32_t i = 1; i < 16; i++) {
        float error = fabsf((float)gatun_e2m1_doubled[i] * d - x);
        if (error < least) {
            best = i;
            least = error;
        }
    }
    return best;
}

/* The same for `count` numbers, by the middles between values: they and the distances to the two values beside them are
 * exact unless values overflow or numbers are far beyond them. */
static void nearest_e2m1(const float *x, int32_t count, float d, int32_t *codes) {
    static const float middles[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};
    if (!(largest_of(x, count) <= 16.0f * d) || d == 0.0f || d > 0x1p124f) {
        for (int32_t j = 0; j < count; j++) {
            codes[j] = search_e2m1(x[j], d);
        }
        return;
    }
    for (int32_t j = 0; j < count; j++) {
        codes[j] = 0;
    }
    for (int32_t i = 0; i < 7; i++) {
        float middle = middles[i] * d;
        for (int32_t j = 0; j < count; j++) {
            codes[j] += fabsf(x[j]) > middle;
        }
    }
    for (int32_t j = 0; j < count; j++) {
        codes[j] |= ((x[j] < 0.0f) & (codes[j] > 0)) ? 8 : 0;
    }
}

static void encode_mxfp4(const float *x, uint8_t *b) {
    float largest = largest_of(x, 32);
    /* The logarithm is one of floats: just below a power of two it may round up to it. */
    float logarithm = (float)log2((double)largest);
    b[0] = largest > 0.0f ? (uint8_t)truncated(floorf(logarithm) - 2.0f + 127.0f) : 0;
    float d = gatun_half_of_e8m0(b[0]);
    int32_t codes[32];
    nearest_e2m1(x, 32, d, codes);
    put_nibbles(codes, 16, b + 1);
}

/* Unsigned e4m3, halves up; from 256 on 0x7E. */
uint8_t gatun_ue4m3_of(float value) {
    if (!(value > 0.0f)) {
        return 0;
    }
    float x = value < 448.0f ? value : 448.0f;
    uint32_t bits = gatun_float_bits(x);
    int32_t exponent = (int32_t)(bits >> 23) - 127 + 7;
    if (exponent <= 0) {
        int32_t code = (int32_t)(x * 512.0f + 0.5f);
        return (uint8_t)(code < 7 ? code : 7);
    }
    if (exponent >= 15) {
        return 0x7E;
    }
    /* A carry out of the fraction moves on into the exponent by itself. */
    uint32_t code = ((uint32_t)exponent << 3 | (bits >> 20 & 7)) + (bits >> 19 & 1);
    return code >= 15 << 3 ? 0x7E : (uint8_t)code;
}

static void encode_nvfp4(const float *x, uint8_t *b) {
    for (int32_t run = 0; run < 4; run++) {
        const float *v = x + 16 * run;
        b[run] = gatun_ue4m3_of(largest_of(v, 16) / 6.0f);
        float d = gatun_half_of_ue4m3(b[run]);
        int32_t codes[16];
        nearest_e2m1(v, 16, d, codes);
        put_nibbles(codes, 8, b + 4 + 8 * run);
    }
}

/* ---- IQ4_NL ---- */

/* The code of the nearest value; of two as near, the upper one. */
static int32_t nearest_iq4(float v) {
    int32_t above = 1;
    while (above < 15 && (float)gatun_iq4_values[above] <= v) {
        above++;
    }
    return v - (float)gatun_iq4_values[above - 1] < (float)gatun_iq4_values[above] - v ? above - 1 : above;
}

/* Sums of w*v*x and w*v*v, w = x*x, over the values nearest to the numbers times a reciprocal. */
static void iq4_sums(const float *x, float reciprocal, float *products, float *squares) {
    *products = *squares = 0.0f;
    for (int32_t j = 0; j < 32; j++) {
        float value = (float)gatun_iq4_values[nearest_iq4(reciprocal * x[j])];
        float weighted = x[j] * x[j] * value;
        *products += weighted * x[j];
        *squares += weighted * value;
    }
}

/* By least squares with the weights x*x for the codes at a number of spacings, of which the best is taken. */
static float iq4_scale(const float *x) {
    float largest = 0.0f, with_sign = 0.0f, products, squares;
    for (int32_t j = 0; j < 32; j++) {
        if (fabsf(x[j]) > largest) {
            largest = fabsf(x[j]);
            with_sign = x[j];
        }
    }
    if (largest < 1e-15f) {
        return 0.0f;
    }
    iq4_sums(x, 1.0f / (-with_sign / (float)gatun_iq4_values[0]), &products, &squares);
    float d = products / squares, best = d * products;
    for (int32_t step = -7; step <= 7; step++) {
        iq4_sums(x, (float)(step + gatun_iq4_values[0]) / with_sign, &products, &squares);
        if (squares > 0.0f && products * products > best * squares) {
            d = products / squares;
            best = d * products;
        }
    }
    return d;
}

static void encode_iq4_nl(const float *x, uint8_t *b) {
    float d = iq4_scale(x), reciprocal = reciprocal_of(d);
    int32_t codes[32];
    for (int32_t j = 0; j < 32; j++) {
        codes[j] = nearest_iq4(reciprocal * x[j]);
    }
    put_half(b, d);
    put_nibbles(codes, 16, b + 2);
}

bool gatun_gguf_encode(int32_t encoding, const float *x, uint8_t *block) {
    switch (encoding) {
    case GATUN_Q4_0:
        encode_signed(x, 8, block);
        return true;
    case GATUN_Q5_0:
        encode_signed(x, 16, block);
        return true;
    case GATUN_Q4_1:
        encode_ranged(x, 15, block);
        return true;
    case GATUN_Q5_1:
        encode_ranged(x, 31, block);
        return true;
    case GATUN_Q8_0:
        encode_q8_0(x, block);
        return true;
    case GATUN_IQ4_NL:
        encode_iq4_nl(x, block);
        return true;
    case GATUN_MXFP4:
        encode_mxfp4(x, block);
        return true;
    case GATUN_NVFP4:
        encode_nvfp4(x, block);
        return true;
    case GATUN_Q4_K:
        gatun_search_q4_k(x, block);
        return true;
    case GATUN_Q6_K:
        gatun_search_q6_k(x, block);
        return true;
    default:
        return false;
    }
}
