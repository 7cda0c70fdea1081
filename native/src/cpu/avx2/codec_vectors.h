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
typedef double vd __attribute__((vector_size(32)));
/* Sixteen bytes, and the same as wider numbers. */
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef uint32_t w4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef float f4 __attribute__((vector_size(16)));

/* The first and the last four as doubles. */
static inline vd low_doubles(vf v) { return (vd)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)); }
static inline vd high_doubles(vf v) { return (vd)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)); }
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
/* LANES codes of four bits from the start of a byte on, each in the low four bits of a number. */
static inline vu nibbles_load(const void *p, bool high_first) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    __m256i b = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(bytes));
    return (vu)(high_first ? _mm256_or_si256(_mm256_srli_epi64(b, 4), _mm256_slli_epi64(b, 32))
                           : _mm256_or_si256(b, _mm256_slli_epi64(b, 28)));
}
static inline vi s8_load(const void *p) { return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
/* LANES signed bytes, widened to 16 bits, shifted and masked there, as halves. */
static inline vf f16_from_bytes(const void *p, int shift, int mask) {
    __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), shift);
    return (vf)_mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16((int16_t)mask)));
}
static inline vf fused(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
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
/* To the nearest integer, ties to even; of NaN the low eight bits are 0. */
static inline vi nearest(vf v) { return (vi)_mm256_cvtps_epi32((__m256)v); }
static inline float largest_lane(vf v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
/* table[index], index < 16 */
static inline b16 look_up_bytes(b16 table, b16 index) { return (b16)_mm_shuffle_epi8((__m128i)table, (__m128i)index); }
/* LANES of sixteen signed bytes from number `first` on. */
static inline vf s8_float(b16 bytes, int first) {
    __m128i some = first == 0 ? (__m128i)bytes : _mm_srli_si128((__m128i)bytes, 8);
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(some));
}
/* Toward zero; what an integer cannot hold is its smallest. */
static inline vi truncated(vf v) { return (vi)_mm256_cvttps_epi32((__m256)v); }
/* The sign of each lane, from bit 0 on. */
static inline uint32_t lane_bits(vi v) { return (uint32_t)_mm256_movemask_ps((__m256)v); }
static inline vf smaller(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vf larger(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vi smaller_i(vi a, vi b) { return (vi)_mm256_min_epi32((__m256i)a, (__m256i)b); }
static inline vi larger_i(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
/* Whether a NaN is in one of them. */
static inline bool has_nan(vf a, vf b) {
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q)) != 0;
}
static inline vi upward(vf v) { return (vi)_mm256_cvttps_epi32(_mm256_ceil_ps((__m256)v)); }
static inline __m256 larger_of_pairs(__m256 a, __m256 b) {
    return _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
}
/* The largest number of each of four vectors. */
static inline f4 four_largest(const vf v[4]) {
    __m256 even = larger_of_pairs((__m256)v[0], (__m256)v[2]), odd = larger_of_pairs((__m256)v[1], (__m256)v[3]);
    __m256 two = larger_of_pairs(even, odd);
    return (f4)_mm_max_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
}
static inline void four_halves(f4 v, uint16_t halves[4]) {
    _mm_storel_epi64((__m128i *)halves, _mm_cvtps_ph((__m128)v, _MM_FROUND_TO_NEAREST_INT));
}
/* Adds `step` where v is above a threshold; `at_nan`: where it is NaN, too. */
static inline vu add_above(vu count, uint32_t step, vf v, vf threshold, bool at_nan) {
    vi more = at_nan ? ~(vi)(v <= threshold) : (vi)(v > threshold);
    return count + ((vu)more & step);
}

#endif
