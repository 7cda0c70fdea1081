/* Rows of x for every AVX-512 `linear`. */
#ifndef GATUN_AVX512_X_H
#define GATUN_AVX512_X_H

#include <float.h>
#include <math.h>

#include "cpu/avx512/vectors.h"

/* Sixteen numbers of a row from k on, times their multipliers; zeros from `end` on. */
GATUN_INLINE __m512 load_x(const gatun_linear_input *in, int64_t row, int64_t k, int64_t end) {
    __mmask16 mask = first_lanes(end - k);
    __m512 v = load_plain(in->x_type, in->x, row * in->ldx + k, mask);
    return in->x_multiplier == NULL ? v : _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, in->x_multiplier + k));
}

/* load_x(); `usual`, a constant: of floats without multipliers. */
GATUN_INLINE __m512 x_floats(const bool usual, const gatun_linear_input *in, int64_t row, int64_t k, int64_t end) {
    return usual ? _mm512_maskz_loadu_ps(first_lanes(end - k), (const float *)in->x + row * in->ldx + k)
                 : load_x(in, row, k, end);
}
static inline bool x_is_usual(const gatun_linear_input *in) {
    return in->x_type == GATUN_F32 && in->x_multiplier == NULL;
}

/* The largest magnitude of k0 .. k1-1; *finite becomes false when there is a NaN or an infinity. */
static inline float x_absmax(const gatun_linear_input *in, int64_t row, int64_t k0, int64_t k1, bool *finite) {
    __m512 largest = _mm512_setzero_ps();
    __mmask16 ok = 0xFFFF;
    for (int64_t k = k0; k < k1; k += 16) {
        __m512 v = _mm512_abs_ps(load_x(in, row, k, k1));
        ok &= _mm512_cmp_ps_mask(v, _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
        largest = _mm512_max_ps(largest, v);
    }
    *finite = *finite && ok == 0xFFFF;
    return _mm512_reduce_max_ps(largest);
}

/* Sixteen numbers to int8, ties to even, as if by division: products with the reciprocal are as good unless they come
 * near a tie, since they are off by no more than 127 * 3 * 2^-24. */
GATUN_INLINE __m128i quantize_x(__m512 v, float scale) {
    enum { nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    const float reciprocal = 1 / scale;
    __m512 q = _mm512_mul_ps(v, _mm512_set1_ps(reciprocal));
    __m512 rest = _mm512_abs_ps(_mm512_sub_ps(q, _mm512_roundscale_ps(q, nearest)));
    if (_mm512_cmp_ps_mask(rest, _mm512_set1_ps(0.4999f), _CMP_NLT_UQ) != 0 || !(reciprocal <= FLT_MAX)) {
        q = scale == 0 ? _mm512_setzero_ps() : _mm512_div_ps(v, _mm512_set1_ps(scale));
    }
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q));
}

#endif
