/* The end of `linear` for the 32 outputs of a panel: y = combine(activation(sum + bias), other), stored as y_type. */
#ifndef GATUN_AVX2_EPILOGUE_H
#define GATUN_AVX2_EPILOGUE_H

#include "cpu/avx2/vectors.h"

#define VECTOR                __m256
#define V(op)                 _mm256_##op##_ps
#define V_SET(c)              _mm256_set1_ps(c)
#define V_MIN(a, b)           _mm256_min_ps(a, b)
#define V_MAX(a, b)           _mm256_max_ps(a, b)
#define V_ROUND(a)            _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_ABS(a)              _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a)
#define V_LESS(a, b, yes, no) _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#define V_SCALE(a, n)         scale_by_power(a, n)

/* a * 2^n in two steps, since n may be beyond one exponent's reach. */
GATUN_INLINE __m256 scale_by_power(__m256 a, __m256 n) {
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    const __m256i bias = _mm256_set1_epi32(127);
    a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

#include "cpu/activation.inc"

/* Rows of sums [row][32]; the numbers beyond N are left out by way of buffers. */
static inline void store_tile(const gatun_linear_task *t, int64_t row, int64_t rows, int64_t panel, const float *sums) {
    int64_t size = gatun_plain_size(t->y_type);
    for (int64_t r = row; r < row + rows; r++, sums += GATUN_PANEL) {
        for (int64_t o = 0; o < GATUN_PANEL; o += 8) {
            int64_t n = panel * GATUN_PANEL + o;
            int64_t count = t->packed->n - n < 8 ? t->packed->n - n : 8;
            if (count <= 0) {
                break;
            }
            float buffer[8] = {0};
            uint8_t *y = (uint8_t *)t->y + (r * t->ldy + n) * size;
            __m256 v = _mm256_loadu_ps(sums + o);
            if (t->bias != NULL) {
                memcpy(buffer, t->bias + n, (size_t)(4 * count));
                v = _mm256_add_ps(v, _mm256_loadu_ps(buffer));
            }
            if (t->activation != GATUN_ACTIVATION_NONE) {
                v = activate(t->activation, v);
            }
            if (t->combine != GATUN_COMBINE_NONE) {
                memcpy(buffer, (const uint8_t *)t->other + (r * t->ld_other + n) * size, (size_t)(size * count));
                __m256 other = load_plain(t->y_type, buffer);
                v = t->combine == GATUN_COMBINE_ADD ? _mm256_add_ps(v, other) : _mm256_mul_ps(v, other);
            }
            if (count == 8) {
                store_plain(t->y_type, y, v);
            } else {
                store_plain(t->y_type, buffer, v);
                memcpy(y, buffer, (size_t)(size * count));
            }
        }
    }
}

#endif
