/* What cpu/codecs.inc needs of AVX-512: 16 numbers at a time. */
#ifndef GATUN_AVX512_CODEC_VECTORS_H
#define GATUN_AVX512_CODEC_VECTORS_H

#include <immintrin.h>

#include "encodings/numbers.h"

enum { LANES = 16 };
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint64_t vu64 __attribute__((vector_size(64)));
typedef double vd __attribute__((vector_size(64)));
/* Sixteen bytes, and the same as wider numbers. */
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef uint32_t w4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef float f4 __attribute__((vector_size(16)));

/* The first and the last eight as doubles. */
static inline vd low_doubles(vf v) { return (vd)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)); }
static inline vd high_doubles(vf v) {
    return (vd)_mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((__m512)v), 1)));
}
static inline vf f16_load(const void *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline void f16_store(void *p, vf v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline vf f16_round(vf v) {
    return (vf)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* Halves that come as the low 16 bits of each number. */
static inline vf f16_from_low(vu v) { return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v)); }
static inline vu u16_load(const void *p) { return (vu)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
static inline void u16_store(void *p, vu v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v)); }
static inline vu u8_load(const void *p) { return (vu)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline void u8_store(void *p, vu v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v)); }
/* LANES codes of four bits from the start of a byte on, each in the low four bits of a number. */
static inline vu nibbles_load(const void *p, bool high_first) {
    __m512i b = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));
    return (vu)(high_first ? _mm512_or_si512(_mm512_srli_epi64(b, 4), _mm512_slli_epi64(b, 32))
                           : _mm512_or_si512(b, _mm512_slli_epi64(b, 28)));
}
static inline vi s8_load(const void *p) { return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
/* LANES signed bytes, widened to 16 bits, shifted and masked there, as halves. */
static inline vf f16_from_bytes(const void *p, int shift, int mask) {
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), shift);
    return (vf)_mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((int16_t)mask)));
}
static inline vf fused(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
/* The low byte of each 64 bits. */
static inline void u64_store_low(void *p, vu64 v) { _mm_storel_epi64((__m128i *)p, _mm512_cvtepi64_epi8((__m512i)v)); }
/* table[index % 16] */
static inline vf look_up(const float *table, vu index) {
    return (vf)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}
/* To the nearest integer, ties to even; of NaN the low eight bits are 0. */
static inline vi nearest(vf v) { return (vi)_mm512_cvtps_epi32((__m512)v); }
static inline float largest_lane(vf v) { return _mm512_reduce_max_ps((__m512)v); }
/* table[index], index < 16 */
static inline b16 look_up_bytes(b16 table, b16 index) { return (b16)_mm_shuffle_epi8((__m128i)table, (__m128i)index); }
/* LANES of sixteen signed bytes from number `first` on. */
static inline vf s8_float(b16 bytes, int first) {
    (void)first; /* they are all that there are */
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32((__m128i)bytes));
}
/* Toward zero; what an integer cannot hold is its smallest. */
static inline vi truncated(vf v) { return (vi)_mm512_cvttps_epi32((__m512)v); }
/* The sign of each lane, from bit 0 on. */
static inline uint32_t lane_bits(vi v) { return _mm512_movepi32_mask((__m512i)v); }
static inline vf smaller(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vf larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vi smaller_i(vi a, vi b) { return (vi)_mm512_min_epi32((__m512i)a, (__m512i)b); }
static inline vi larger_i(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
/* Whether a NaN is in one of them. */
static inline bool has_nan(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) != 0; }
static inline vi upward(vf v) {
    return (vi)_mm512_cvt_roundps_epi32((__m512)v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
}
static inline __m512 larger_of_pairs(__m512 a, __m512 b) {
    return _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}
/* The largest number of each of four vectors. */
static inline f4 four_largest(const vf v[4]) {
    __m512 even = larger_of_pairs((__m512)v[0], (__m512)v[2]), odd = larger_of_pairs((__m512)v[1], (__m512)v[3]);
    __m512 four = larger_of_pairs(even, odd);
    __m256 two = _mm256_max_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
    return (f4)_mm_max_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
}
static inline void four_halves(f4 v, uint16_t halves[4]) {
    _mm_storel_epi64((__m128i *)halves, _mm_cvtps_ph((__m128)v, _MM_FROUND_TO_NEAREST_INT));
}
/* Adds `step` where v is above a threshold; `at_nan`: where it is NaN, too. */
static inline vu add_above(vu count, uint32_t step, vf v, vf threshold, bool at_nan) {
    __mmask16 more = at_nan ? _mm512_cmp_ps_mask((__m512)v, (__m512)threshold, _CMP_NLE_UQ)
                            : _mm512_cmp_ps_mask((__m512)v, (__m512)threshold, _CMP_GT_OQ);
    return (vu)_mm512_mask_add_epi32((__m512i)count, more, (__m512i)count, _mm512_set1_epi32((int32_t)step));
}

#endif
