/*
 * dequantize_<block>__avx512: GGUF's blocks to numbers, sixteen at a time, with the products and sums of the definition
 * (encodings/gguf.c) in its order. A decoder writes one block; whole blocks of F32 go straight to the output, all else
 * through a buffer.
 *
 * Nibbles are split with a shift and a mask and looked up with pshufb in a table of sixteen signed bytes; bytes become
 * floats with vpmovsxbd and vcvtdq2ps.
 */
#include "cpu/avx512/vectors.h"
#include "cpu/kernels.h"
#include "encodings/codes.h"

typedef void decoder(const uint8_t *block, float *out);

static inline float half_at(const uint8_t *at) { return _cvtsh_ss(gatun_load_u16(at)); }

static inline __m128i load16(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

static inline __m512 float_of(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

/* out[i] = bytes[i] * scale */
static inline void put_scaled(float *out, __m128i bytes, __m512 scale) {
    _mm512_storeu_ps(out, _mm512_mul_ps(float_of(bytes), scale));
}

/* out[i] = bytes[i] * scale + offset, rounded twice */
static inline void put_offset(float *out, __m128i bytes, __m512 scale, __m512 offset) {
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_mul_ps(float_of(bytes), scale), offset));
}

/* out[i] = bytes[i] * scale - minimum, rounded twice */
static inline void put_reduced(float *out, __m128i bytes, __m512 scale, __m512 minimum) {
    _mm512_storeu_ps(out, _mm512_sub_ps(_mm512_mul_ps(float_of(bytes), scale), minimum));
}

static inline __m128i low_nibbles(__m128i bytes) { return _mm_and_si128(bytes, _mm_set1_epi8(15)); }
static inline __m128i high_nibbles(__m128i bytes) { return low_nibbles(_mm_srli_epi16(bytes, 4)); }

/* 32 codes by a table: the first half in the low nibbles of 16 bytes. */
static inline void split_nibbles(const uint8_t *codes, __m128i table, float scale, float *out) {
    __m128i bytes = load16(codes);
    __m512 s = _mm512_set1_ps(scale);
    put_scaled(out, _mm_shuffle_epi8(table, low_nibbles(bytes)), s);
    put_scaled(out + 16, _mm_shuffle_epi8(table, high_nibbles(bytes)), s);
}

static inline __m128i table_of(const int8_t *values) { return load16((const uint8_t *)values); }

static void q4_0(const uint8_t *b, float *out) {
    __m128i table = _mm_setr_epi8(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    split_nibbles(b + 2, table, half_at(b), out);
}

static void q4_1(const uint8_t *b, float *out) {
    __m128i bytes = load16(b + 4);
    __m512 d = _mm512_set1_ps(half_at(b)), m = _mm512_set1_ps(half_at(b + 2));
    put_offset(out, low_nibbles(bytes), d, m);
    put_offset(out + 16, high_nibbles(bytes), d, m);
}

static void q8_0(const uint8_t *b, float *out) {
    __m512 d = _mm512_set1_ps(half_at(b));
    put_scaled(out, load16(b + 2), d);
    put_scaled(out + 16, load16(b + 18), d);
}

static void iq4_nl(const uint8_t *b, float *out) { split_nibbles(b + 2, table_of(gatun_iq4_values), half_at(b), out); }

static void iq4_xs(const uint8_t *b, float *out) {
    float d = half_at(b);
    uint32_t high = gatun_load_u16(b + 2);
    for (int32_t run = 0; run < 8; run++) {
        int32_t scale = (b[4 + run / 2] >> (run % 2 * 4) & 15) | (int32_t)(high >> (2 * run) & 3) << 4;
        split_nibbles(b + 8 + 16 * run, table_of(gatun_iq4_values), d * (float)(scale - 32), out + 32 * run);
    }
}

static void mxfp4(const uint8_t *b, float *out) {
    split_nibbles(b + 1, table_of(gatun_e2m1_doubled), gatun_half_of_e8m0(b[0]), out);
}

/* Two runs of 16 from 16 bytes: each run's halves lie in the nibbles of its 8 bytes. */
static void nvfp4(const uint8_t *b, float *out) {
    for (int32_t run = 0; run < 4; run += 2) {
        __m128i bytes = load16(b + 4 + 8 * run);
        __m128i low = _mm_shuffle_epi8(table_of(gatun_e2m1_doubled), low_nibbles(bytes));
        __m128i high = _mm_shuffle_epi8(table_of(gatun_e2m1_doubled), high_nibbles(bytes));
        put_scaled(out + 16 * run, _mm_unpacklo_epi64(low, high), _mm512_set1_ps(gatun_half_of_ue4m3(b[run])));
        put_scaled(out + 16 * run + 16, _mm_unpackhi_epi64(low, high), _mm512_set1_ps(gatun_half_of_ue4m3(b[run + 1])));
    }
}

/* The eight 6-bit scales and minima of Q4_K and Q5_K as bytes, unpacked four at a time. */
static inline void scales_and_minima(const uint8_t *s, uint8_t scales[8], uint8_t minima[8]) {
    uint32_t a = gatun_load_u32(s), b = gatun_load_u32(s + 4), c = gatun_load_u32(s + 8);
    uint32_t words[4] = {a & 0x3F3F3F3F, (c & 0x0F0F0F0F) | (a >> 2 & 0x30303030), b & 0x3F3F3F3F,
                         (c >> 4 & 0x0F0F0F0F) | (b >> 2 & 0x30303030)};
    memcpy(scales, words, 8);
    memcpy(minima, words + 2, 8);
}

/* Q4_K, and Q5_K with its fifth bits: byte l of `fifth` has run s's bit at bit s. */
GATUN_INLINE void k_runs(const uint8_t *b, const uint8_t *fifth, const uint8_t *codes, float *out) {
    uint8_t scales[8], minima[8];
    scales_and_minima(b + 4, scales, minima);
    float d = half_at(b), dmin = half_at(b + 2);
    for (int32_t run = 0; run < 8; run++) {
        __m512 scale = _mm512_set1_ps(d * (float)scales[run]), minimum = _mm512_set1_ps(dmin * (float)minima[run]);
        for (int32_t half = 0; half < 2; half++) {
            __m128i bytes = load16(codes + run / 2 * 32 + 16 * half);
            __m128i q = run % 2 == 0 ? low_nibbles(bytes) : high_nibbles(bytes);
            if (fifth != NULL) {
                __m128i bit = _mm_set1_epi8((char)(1 << run));
                __mmask16 set = _mm_test_epi8_mask(load16(fifth + 16 * half), bit);
                q = _mm_mask_add_epi8(q, set, q, _mm_set1_epi8(16));
            }
            put_reduced(out + 32 * run + 16 * half, q, scale, minimum);
        }
    }
}

static void q4_k(const uint8_t *b, float *out) { k_runs(b, NULL, b + 16, out); }
static void q5_k(const uint8_t *b, float *out) { k_runs(b, b + 16, b + 48, out); }

static void q6_k(const uint8_t *b, float *out) {
    float d = half_at(b + 208);
    const int8_t *scales = (const int8_t *)b + 192;
    for (int32_t half = 0; half < 2; half++) {
        for (int32_t part = 0; part < 2; part++) { /* 16 bytes of each of the four quarters */
            const uint8_t *low = b + 64 * half + 16 * part;
            __m128i even = load16(low), odd = load16(low + 32), high = load16(b + 128 + 32 * half + 16 * part);
            __m128i two = _mm_set1_epi8(0x30);
            __m128i q[4] = {
                _mm_or_si128(low_nibbles(even), _mm_and_si128(_mm_slli_epi16(high, 4), two)),
                _mm_or_si128(low_nibbles(odd), _mm_and_si128(_mm_slli_epi16(high, 2), two)),
                _mm_or_si128(high_nibbles(even), _mm_and_si128(high, two)),
                _mm_or_si128(high_nibbles(odd), _mm_and_si128(_mm_srli_epi16(high, 2), two)),
            };
            for (int32_t quarter = 0; quarter < 4; quarter++) {
                float scale = d * (float)scales[8 * half + 2 * quarter + part];
                put_scaled(out + 128 * half + 32 * quarter + 16 * part, _mm_sub_epi8(q[quarter], _mm_set1_epi8(32)),
                           _mm512_set1_ps(scale));
            }
        }
    }
}

/* `count` numbers of a buffer to the output. NaN in F16 is the definition's: 0x7E00 with the sign. */
static void put_numbers(const float *values, int64_t count, float factor, int32_t result, void *out, int32_t out_type,
                        int64_t at) {
    for (int64_t i = 0; i < count; i += 16) {
        __mmask16 mask = first_lanes(count - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, values + i);
        if (factor != 1.0f) {
            v = _mm512_mul_ps(v, _mm512_set1_ps(factor));
        }
        v = round_plain(result, v);
        if (out_type == GATUN_F16) {
            __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            __m512i sign = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MIN));
            __m512i quiet = _mm512_or_si512(sign, _mm512_set1_epi32(0x7FC00000));
            v = _mm512_mask_mov_ps(v, nan, _mm512_castsi512_ps(quiet));
        }
        store_plain(out_type, out, at + i, mask, v);
    }
}

GATUN_INLINE void dequantize(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, void *out,
                             int32_t out_type, int32_t elements, int32_t bytes, decoder *decode) {
    const uint8_t *data = (const uint8_t *)m->codes + row * gatun_gguf_stride(m, gatun_gguf_block(m->encoding)) +
                          first / elements * bytes;
    float factor = gatun_gguf_factor(m);
    int64_t skip = first % elements;
    int64_t done = 0;
    if (out_type == GATUN_F32 && m->result == GATUN_F32 && factor == 1.0f && skip == 0) {
        for (; done + elements <= count; done += elements, data += bytes) {
            decode(data, (float *)out + done);
        }
    }
    float values[GATUN_BLOCK_MAX];
    for (; done < count; data += bytes, skip = 0) {
        int64_t take = elements - skip < count - done ? elements - skip : count - done;
        decode(data, values);
        put_numbers(values + skip, take, factor, m->result, out, out_type, done);
        done += take;
    }
}

void gatun_dequantize_gguf__avx512(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, void *out,
                                   int32_t out_type) {
#define CASE(ENCODING, elements, bytes, decode)                                                                        \
    case GATUN_##ENCODING:                                                                                             \
        dequantize(m, row, first, count, out, out_type, elements, bytes, decode);                                      \
        break;
    switch (m->encoding) {
        CASE(Q4_0, 32, 18, q4_0)
        CASE(Q4_1, 32, 20, q4_1)
        CASE(Q8_0, 32, 34, q8_0)
        CASE(Q4_K, 256, 144, q4_k)
        CASE(Q5_K, 256, 176, q5_k)
        CASE(Q6_K, 256, 210, q6_k)
        CASE(IQ4_NL, 32, 18, iq4_nl)
        CASE(IQ4_XS, 256, 136, iq4_xs)
        CASE(MXFP4, 32, 17, mxfp4)
        CASE(NVFP4, 64, 36, nvfp4)
    default:
        break;
    }
#undef CASE
}
