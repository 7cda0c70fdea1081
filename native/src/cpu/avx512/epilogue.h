/*
 * The end of `linear` for sixteen outputs of one row: y = combine(activation(sum + bias), other), stored as y_type.
 *
 *   exp   2^n * p(r), r = x - n ln 2 in two parts, |r| <= ln 2 / 2, degree 6 (Cephes' way); error below 2 ulp
 *   erf   1 - exp(-|v|^2 ...) would lose small values, so |v| < 1 has an odd polynomial and the rest Abramowitz and
 *         Stegun's 7.1.26 form refined: see gelu()
 */
#ifndef GATUN_AVX512_EPILOGUE_H
#define GATUN_AVX512_EPILOGUE_H

#include "cpu/avx512/vectors.h"

#define VECTOR                __m512
#define V(op)                 _mm512_##op##_ps
#define V_SET(c)              _mm512_set1_ps(c)
#define V_MIN(a, b)           _mm512_min_ps(a, b)
#define V_MAX(a, b)           _mm512_max_ps(a, b)
#define V_ROUND(a)            _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_SCALE(a, n)         _mm512_scalef_ps(a, n)
#define V_ABS(a)              _mm512_abs_ps(a)
#define V_LESS(a, b, yes, no) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes)
#define V_SIGN_OF(a, sign)                                                                                             \
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(a), _mm512_castps_si512(sign),                   \
                                                  _mm512_set1_epi32(INT32_MIN), 0xD8))
#include "cpu/activation.inc"

/* y of sixteen outputs of a row, as floats. */
GATUN_INLINE __m512 outputs_of(const gatun_linear_task *t, int64_t row, int64_t n, __mmask16 mask, __m512 sum) {
    if (t->bias != NULL) {
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, t->bias + n));
    }
    if (t->activation != GATUN_ACTIVATION_NONE) {
        sum = activate(t->activation, sum);
    }
    if (t->combine != GATUN_COMBINE_NONE) {
        __m512 other = load_plain(t->y_type, t->other, row * t->ld_other + n, mask);
        sum = t->combine == GATUN_COMBINE_ADD ? _mm512_add_ps(sum, other) : _mm512_mul_ps(sum, other);
    }
    return sum;
}

/* What every tile of a call stores with. */
GATUN_INLINE void store_outputs(const gatun_linear_task *t, int64_t row, int64_t n, __mmask16 mask, __m512 sum) {
    store_plain(t->y_type, t->y, row * t->ldy + n, mask, outputs_of(t, row, n, mask, sum));
}

/* Stores `rows` rows of a panel's sums, [row][32] floats. */
static inline void store_tile(const gatun_linear_task *t, int64_t row, int64_t rows, int64_t panel, const float *sums) {
    const bool as_they_are = t->y_type == GATUN_F32 && t->bias == NULL && t->activation == GATUN_ACTIVATION_NONE &&
                             t->combine == GATUN_COMBINE_NONE;
    if (as_they_are && (panel + 1) * GATUN_PANEL <= t->packed->n) {
        float *y = (float *)t->y + row * t->ldy + panel * GATUN_PANEL;
        for (int64_t r = 0; r < rows; r++, y += t->ldy) {
            _mm512_storeu_ps(y, _mm512_load_ps(sums + r * GATUN_PANEL));
            _mm512_storeu_ps(y + 16, _mm512_load_ps(sums + r * GATUN_PANEL + 16));
        }
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t h = 0; h < 2; h++) {
            int64_t n = panel * GATUN_PANEL + 16 * h;
            __mmask16 mask = first_lanes(t->packed->n - n);
            if (mask != 0) {
                store_outputs(t, row + r, n, mask, _mm512_load_ps(sums + r * GATUN_PANEL + 16 * h));
            }
        }
    }
}

#endif
