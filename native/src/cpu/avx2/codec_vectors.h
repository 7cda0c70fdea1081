/* What cpu/codecs.inc needs of AVX2 and F16C: 8 numbers at a time. */
#ifndef GATUN_AVX2_CODEC_VECTORS_H
#define GATUN_AVX2_CODEC_VECTORS_H

#include <immintrin.h>

#include "encodings/numbers.h"

enum { LANES = 8 };
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
typedef uint64_t vu64 __attribute__((vector_size(32)));

static inline vf f16_load(const void *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline void f16_store(void *p, vf v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf f16_round(vf v) { return (vf)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT)); }
/* The low 16 bits of each number, in order. */
static inline __m128i low_halves(vu v) {
    __m256i masked = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xFFFF));
    __m256i packed = _mm256_packus_epi32(masked, masked);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
static inline vf f16_from_low(vu v) { return (vf)_mm256_cvtph_ps(low_halves(v)); }
static inline vu u16_load(const void *p) { return (vu)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline void u16_store(void *p, vu v) { _mm_storeu_si128((__m128i *)p, low_halves(v)); }
static inline vu u8_load(const void *p) { return (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
static inline void u8_store(void *p, vu v) {
    __m128i halves = low_halves(v & 0xFF);
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(halves, halves));
}
/* Each of LANES / 2 bytes twice. */
static inline vu u8_load_twice(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    __m128i b = _mm_cvtsi32_si128(bytes);
    return (vu)_mm256_cvtepu8_epi32(_mm_unpacklo_epi8(b, b));
}
/* The low byte of each 64 bits. */
static inline void u64_store_low(void *p, vu64 v) {
    uint8_t bytes[4] = {(uint8_t)v[0], (uint8_t)v[1], (uint8_t)v[2], (uint8_t)v[3]};
    memcpy(p, bytes, sizeof bytes);
}
/* table[index % 16] */
static inline vf look_up(const float *table, vu index) {
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), (__m256i)index);
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), (__m256i)index);
    return (vf)_mm256_blendv_ps(low, high, (__m256)(index << 28));
}
/* To the nearest integer, ties to even. */
static inline vi nearest(vf v) { return (vi)_mm256_cvtps_epi32((__m256)v); }
static inline float largest_lane(vf v) {
    float largest = v[0];
    for (int32_t i = 1; i < LANES; i++) {
        largest = v[i] > largest ? v[i] : largest;
    }
    return largest;
}

#endif
