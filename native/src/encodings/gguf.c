/*
 * GGUF's block types, decoded to float: ggml's layouts (ggml-quants.c) and order of operations. All products are float
 * products; d, m and dmin are binary16.
 */
#include "encodings/codes.h"

static float half_at(const uint8_t *at) { return gatun_f16_to_float(gatun_load_u16(at)); }

const int8_t gatun_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* E2M1 doubled, so that it is integers. */
const int8_t gatun_e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* The nibbles of a block: byte j holds element j in its low half and element j + count in its high one. */
static void split_nibbles(const uint8_t *codes, int32_t count, const int8_t *values, float scale, float *out) {
    for (int32_t j = 0; j < count; j++) {
        out[j] = (float)values[codes[j] & 15] * scale;
        out[j + count] = (float)values[codes[j] >> 4] * scale;
    }
}

static void q4_0(const uint8_t *b, float *out) {
    static const int8_t values[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    split_nibbles(b + 2, 16, values, half_at(b), out);
}

static void q4_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    for (int32_t j = 0; j < 16; j++) {
        out[j] = (float)(b[4 + j] & 15) * d + m;
        out[j + 16] = (float)(b[4 + j] >> 4) * d + m;
    }
}

/* The fifth bit of element i is bit i of a word. */
static int32_t five_bits(const uint8_t *codes, uint32_t high, int32_t i) {
    int32_t low = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
    return low | (int32_t)(high >> i & 1) << 4;
}

static void q5_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    uint32_t high = gatun_load_u32(b + 2);
    for (int32_t i = 0; i < 32; i++) {
        out[i] = (float)(five_bits(b + 6, high, i) - 16) * d;
    }
}

static void q5_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high = gatun_load_u32(b + 4);
    for (int32_t i = 0; i < 32; i++) {
        out[i] = (float)five_bits(b + 8, high, i) * d + m;
    }
}

static void signed_bytes(const uint8_t *codes, int32_t count, float d, float *out) {
    for (int32_t i = 0; i < count; i++) {
        out[i] = (float)(int8_t)codes[i] * d;
    }
}

static void q8_0(const uint8_t *b, float *out) { signed_bytes(b + 2, 32, half_at(b), out); }
static void q8_1(const uint8_t *b, float *out) { signed_bytes(b + 4, 32, half_at(b), out); }
static void q8_k(const uint8_t *b, float *out) { signed_bytes(b + 4, 256, gatun_load_f32(b), out); }

/* 16 runs of 16; each has a scale and a minimum of four bits. */
static void q2_k(const uint8_t *b, float *out) {
    const uint8_t *scales = b, *codes = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int32_t i = 0; i < 256; i++) {
        int32_t half = i / 128, plane = i % 128 / 32, byte = i % 32;
        uint8_t sc = scales[i / 16];
        float dl = d * (float)(sc & 15), ml = dmin * (float)(sc >> 4);
        out[i] = dl * (float)(codes[32 * half + byte] >> (2 * plane) & 3) - ml;
    }
}

/* 16 runs of 16 with signed 6-bit scales: four low bits in scales[0..7], two high ones in scales[8..11]. */
static void q3_k(const uint8_t *b, float *out) {
    const uint8_t *high = b, *codes = b + 32, *scales = b + 96;
    float d = half_at(b + 108);
    for (int32_t i = 0; i < 256; i++) {
        int32_t half = i / 128, plane = i % 128 / 32, byte = i % 32, run = i / 16;
        int32_t low = run < 8 ? scales[run] & 15 : scales[run - 8] >> 4;
        int32_t scale = (low | (scales[8 + run % 4] >> (2 * (run / 4)) & 3) << 4) - 32;
        int32_t q =
            (codes[32 * half + byte] >> (2 * plane) & 3) - ((high[byte] >> (4 * half + plane) & 1) != 0 ? 0 : 4);
        out[i] = d * (float)scale * (float)q;
    }
}

/* Eight 6-bit scales and minimums in 12 bytes. */
static void scale_min(const uint8_t *s, int32_t j, float *scale, float *min) {
    if (j < 4) {
        *scale = (float)(s[j] & 63);
        *min = (float)(s[j + 4] & 63);
    } else {
        *scale = (float)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *min = (float)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* Q4_K and, with the fifth bits, Q5_K: eight runs of 32; runs 2p and 2p+1 are the low and high nibbles of 32 bytes. */
static void k_runs(const uint8_t *b, const uint8_t *fifth, const uint8_t *codes, float *out) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int32_t run = 0; run < 8; run++) {
        float scale, min;
        scale_min(b + 4, run, &scale, &min);
        float dl = d * scale, ml = dmin * min;
        for (int32_t l = 0; l < 32; l++) {
            int32_t q = codes[run / 2 * 32 + l] >> (run % 2 * 4) & 15;
            if (fifth != NULL) {
                q |= (fifth[l] >> run & 1) << 4;
            }
            out[32 * run + l] = dl * (float)q - ml;
        }
    }
}

static void q4_k(const uint8_t *b, float *out) { k_runs(b, NULL, b + 16, out); }
static void q5_k(const uint8_t *b, float *out) { k_runs(b, b + 16, b + 48, out); }

/* 16 runs of 16 with int8 scales; four low bits in nibbles, two high ones in qh. */
static void q6_k(const uint8_t *b, float *out) {
    float d = half_at(b + 208);
    for (int32_t i = 0; i < 256; i++) {
        int32_t half = i / 128, quarter = i % 128 / 32, l = i % 32;
        int32_t low = b[64 * half + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        int32_t high = b[128 + 32 * half + l] >> (2 * quarter) & 3;
        int8_t scale = (int8_t)b[192 + i / 16];
        out[i] = d * (float)scale * (float)((low | high << 4) - 32);
    }
}

static void iq4_nl(const uint8_t *b, float *out) { split_nibbles(b + 2, 16, gatun_iq4_values, half_at(b), out); }

static void iq4_xs(const uint8_t *b, float *out) {
    float d = half_at(b);
    uint32_t high = gatun_load_u16(b + 2);
    for (int32_t run = 0; run < 8; run++) {
        int32_t scale = (b[4 + run / 2] >> (run % 2 * 4) & 15) | (int32_t)(high >> (2 * run) & 3) << 4;
        split_nibbles(b + 8 + 16 * run, 16, gatun_iq4_values, d * (float)(scale - 32), out + 32 * run);
    }
}

/* A byte holds five base-3 digits as a fraction of 256: digit n is the integer part of 3 * (the byte * 3^n mod 256). */
static float trit(uint8_t byte, int32_t n) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t shifted = (uint8_t)(byte * power[n]);
    return (float)((shifted * 3 >> 8) - 1);
}

static void tq1_0(const uint8_t *b, float *out) {
    static const struct { int32_t first, bytes, digits; } parts[3] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    float d = half_at(b + 52);
    for (int32_t p = 0; p < 3; p++) {
        for (int32_t n = 0; n < parts[p].digits; n++) {
            for (int32_t j = 0; j < parts[p].bytes; j++) {
                *out++ = trit(b[parts[p].first + j], n) * d;
            }
        }
    }
}

static void tq2_0(const uint8_t *b, float *out) {
    float d = half_at(b + 64);
    for (int32_t i = 0; i < 256; i++) {
        out[i] = (float)((b[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3) - 1) * d;
    }
}

static void mxfp4(const uint8_t *b, float *out) {
    split_nibbles(b + 1, 16, gatun_e2m1_doubled, gatun_half_of_e8m0(b[0]), out);
}

/* Half of an unsigned e4m3 scale: 0x7F is zero; otherwise the highest bit is not looked at, and 0xFF is no NaN. */
float gatun_half_of_ue4m3(uint8_t code) {
    if (code == 0x7F) {
        return 0.0f;
    }
    return (code & 0x7F) == 0x7F ? 240.0f : gatun_codebook(GATUN_F8_E4M3)[code & 0x7F] * 0.5f;
}

/* Four runs of 16, each with a scale. */
static void nvfp4(const uint8_t *b, float *out) {
    for (int32_t run = 0; run < 4; run++) {
        split_nibbles(b + 4 + 8 * run, 8, gatun_e2m1_doubled, gatun_half_of_ue4m3(b[run]), out + 16 * run);
    }
}

static void q1_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int32_t i = 0; i < 128; i++) {
        out[i] = (b[2 + i / 8] >> (i % 8) & 1) != 0 ? d : -d;
    }
}

static void q2_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int32_t i = 0; i < 64; i++) {
        out[i] = (float)((b[2 + i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
    }
}

const gatun_block *gatun_gguf_block(int32_t encoding) {
    static const struct {
        int32_t encoding;
        gatun_block block;
    } blocks[] = {
        {GATUN_Q4_0, {32, 18, q4_0}},     {GATUN_Q4_1, {32, 20, q4_1}},       {GATUN_Q5_0, {32, 22, q5_0}},
        {GATUN_Q5_1, {32, 24, q5_1}},     {GATUN_Q8_0, {32, 34, q8_0}},       {GATUN_Q8_1, {32, 36, q8_1}},
        {GATUN_Q2_K, {256, 84, q2_k}},    {GATUN_Q3_K, {256, 110, q3_k}},     {GATUN_Q4_K, {256, 144, q4_k}},
        {GATUN_Q5_K, {256, 176, q5_k}},   {GATUN_Q6_K, {256, 210, q6_k}},     {GATUN_Q8_K, {256, 292, q8_k}},
        {GATUN_IQ4_NL, {32, 18, iq4_nl}}, {GATUN_IQ4_XS, {256, 136, iq4_xs}}, {GATUN_TQ1_0, {256, 54, tq1_0}},
        {GATUN_TQ2_0, {256, 66, tq2_0}},  {GATUN_MXFP4, {32, 17, mxfp4}},     {GATUN_NVFP4, {64, 36, nvfp4}},
        {GATUN_Q1_0, {128, 18, q1_0}},    {GATUN_Q2_0, {64, 18, q2_0}},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        if (blocks[i].encoding == encoding) {
            return &blocks[i].block;
        }
    }
    return NULL;
}
