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
/* Each of LANES / 2 bytes twice. */
static inline vu u8_load_twice(const void *p) {
    __m128i b = _mm_loadl_epi64((const __m128i *)p);
    return (vu)_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(b, b));
}
/* The low byte of each 64 bits. */
static inline void u64_store_low(void *p, vu64 v) { _mm_storel_epi64((__m128i *)p, _mm512_cvtepi64_epi8((__m512i)v)); }
/* table[index % 16] */
static inline vf look_up(const float *table, vu index) {
    return (vf)_mm512_permutexvar_ps((__m512i)index, _mm512_loadu_ps(table));
}
/* To the nearest integer, ties to even. */
static inline vi nearest(vf v) { return (vi)_mm512_cvtps_epi32((__m512)v); }
static inline float largest_lane(vf v) { return _mm512_reduce_max_ps((__m512)v); }

#endif
