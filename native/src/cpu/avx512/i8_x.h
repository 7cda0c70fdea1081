/*
 * Laying x out for integer `linear`, a tile of rows at once (i8_plan.h has the layout).
 *
 * Sixteen k of four rows are sixteen dwords of four k each after packing 32 to 16 to 8 bits: a 128-bit lane has one
 * step's dwords of the four rows side by side. Two such vectors, lanes interleaved, are two steps of eight rows.
 */
#ifndef GATUN_AVX512_I8_X_H
#define GATUN_AVX512_I8_X_H

#include "cpu/avx512/x.h"
#include "cpu/i8_plan.h"

/* What a tile's rows are multiplied by to become integers: 1 / scale, 0 where the scale is. */
typedef struct x_scales {
    float scale[8], reciprocal[8];
    bool small; /* some 1 / scale is no number */
} x_scales;

/* Scales of rows whose largest magnitudes are given as bits; `fixed`: all have that one. */
GATUN_INLINE x_scales x_scales_of(__m256i largest, float fixed) {
    x_scales s;
    __m256 scale =
        fixed != 0 ? _mm256_set1_ps(fixed) : _mm256_div_ps(_mm256_castsi256_ps(largest), _mm256_set1_ps(127.0f));
    __mmask8 some = _mm256_cmp_ps_mask(scale, _mm256_setzero_ps(), _CMP_NEQ_UQ);
    __m256 reciprocal = _mm256_maskz_div_ps(some, _mm256_set1_ps(1), scale);
    s.small = _mm256_cmp_ps_mask(reciprocal, _mm256_set1_ps(FLT_MAX), _CMP_NLE_UQ) != 0;
    _mm256_storeu_ps(s.scale, scale);
    _mm256_storeu_ps(s.reciprocal, reciprocal);
    return s;
}

/* The largest number of each of eight vectors. */
GATUN_INLINE __m256i largest_of_each(__m512i v[8]) {
    __m512i four[4], two[2];
    GATUN_UNROLL for (int i = 0; i < 4; i++) {
        four[i] = _mm512_max_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                   _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    }
    GATUN_UNROLL for (int i = 0; i < 2; i++) { /* four rows in each lane */
        two[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(four[2 * i], four[2 * i + 1]),
                                  _mm512_unpackhi_epi64(four[2 * i], four[2 * i + 1]));
    }
    __m512i lanes =
        _mm512_max_epi32(_mm512_shuffle_i64x2(two[0], two[1], 0x88), _mm512_shuffle_i64x2(two[0], two[1], 0xDD));
    lanes = _mm512_max_epi32(lanes, _mm512_shuffle_i64x2(lanes, lanes, 0xB1));
    return _mm512_castsi512_si256(_mm512_shuffle_i64x2(lanes, lanes, 0x08));
}

/* The largest magnitudes in k0 .. k1-1 of a tile's first `rows` rows, as bits, whose order is theirs; zeros for the
 * others. */
GATUN_INLINE __m256i largest_of_rows(const bool usual, const int R, const gatun_linear_input *in, int64_t row,
                                     int64_t rows, int64_t k0, int64_t k1) {
    const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
    __m512i largest[8];
    GATUN_UNROLL for (int r = 0; r < 8; r++) {
        largest[r] = _mm512_setzero_si512();
        for (int64_t k = k0; r < R && r < rows && k < k1; k += 16) {
            __m512i v = _mm512_castps_si512(x_floats(usual, in, row + r, k, k1));
            largest[r] = _mm512_max_epi32(largest[r], _mm512_and_si512(v, magnitude));
        }
    }
    return largest_of_each(largest);
}

/* Sixteen k of a tile's rows from k on, zeros from `end` on, as bytes: steps 0, 1 and 2, 3 of eight rows, of which
 * those that are none are zeros. To nearest, ties to even, as if by division: products with the reciprocal are as good
 * unless they come near a tie, since they are off by no more than 127 * 3 * 2^-24. */
GATUN_INLINE void quantize_rows(const bool usual, const int R, const gatun_linear_input *in, int64_t row, int64_t rows,
                                int64_t k, int64_t end, const x_scales *s, __m512i out[2]) {
    enum { nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC, magnitude = 0x0B /* of both, the larger */ };
    __m512 most = _mm512_setzero_ps(); /* the largest distance to an integer */
    __m512i q[8];
    GATUN_UNROLL for (int r = 0; r < 8; r++) {
        q[r] = _mm512_setzero_si512();
        if (r < R && r < rows) {
            __m512 v = _mm512_mul_ps(x_floats(usual, in, row + r, k, end), _mm512_set1_ps(s->reciprocal[r]));
            q[r] = _mm512_cvtps_epi32(v);
            most = _mm512_range_ps(most, _mm512_reduce_ps(v, nearest), magnitude);
        }
    }
    if (s->small || _mm512_cmp_ps_mask(most, _mm512_set1_ps(0.4999f), _CMP_NLT_UQ) != 0) {
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            if (r < rows && s->scale[r] != 0) {
                __m512 v = x_floats(usual, in, row + r, k, end);
                q[r] = _mm512_cvtps_epi32(_mm512_div_ps(v, _mm512_set1_ps(s->scale[r])));
            }
        }
    }
    __m512i half[2];
    GATUN_UNROLL for (int i = 0; i < 2; i++) {
        half[i] = 4 * i >= R ? _mm512_setzero_si512()
                             : _mm512_packs_epi16(_mm512_packs_epi32(q[4 * i], q[4 * i + 1]),
                                                  _mm512_packs_epi32(q[4 * i + 2], q[4 * i + 3]));
    }
    out[0] = _mm512_permutex2var_epi64(half[0], _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), half[1]);
    out[1] = _mm512_permutex2var_epi64(half[0], _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), half[1]);
}

/* The first `count` of four steps of eight rows to [step][R]. */
GATUN_INLINE void store_steps(const int R, const __m512i steps[2], int64_t count, int32_t *to) {
    GATUN_UNROLL for (int i = 0; i < 4; i++) {
        if (R == 8 && i % 2 == 0) {
            _mm512_mask_storeu_epi32(to + 8 * i, first_lanes(8 * (count - i)), steps[i / 2]);
        } else if (R != 8 && i < count) {
            __m256i one =
                i % 2 == 0 ? _mm512_castsi512_si256(steps[i / 2]) : _mm512_extracti64x4_epi64(steps[i / 2], 1);
            _mm256_mask_storeu_epi32(to + i * R, (__mmask8)((1 << R) - 1), one);
        }
    }
}

/* A tile of R rows, of which the last may be none. False when one holds a NaN or an infinity. */
GATUN_INLINE bool fill_tile(const bool usual, const int R, const gatun_linear_input *in, const i8_plan *plan,
                            int64_t row, void *area) {
    const __mmask8 tile = (__mmask8)((1 << R) - 1);
    const __m256i infinity = _mm256_set1_epi32(0x7F800000);
    const int64_t k_end = in->packed->k, rows = in->m - row < R ? in->m - row : R;
    x_scales scales = {.small = false};
    if (!plan->block) {
        __m256i largest = largest_of_rows(usual, R, in, row, rows, 0, k_end);
        if (_mm256_cmpge_epi32_mask(largest, infinity) != 0) {
            return false;
        }
        scales = x_scales_of(largest, in->x_scale);
        _mm256_mask_storeu_ps((float *)area + row, tile, _mm256_loadu_ps(scales.scale));
    }
    int32_t *x = NULL;
    int64_t k = 0;
    for (int64_t unit = 0; unit < plan->units; unit++) {
        x = unit % plan->piece == 0 ? i8_tile(plan, area, row, R, unit) : x;
        const int64_t steps = i8_unit_steps(plan, unit), end = k + 4 * steps < k_end ? k + 4 * steps : k_end;
        if (plan->block && k < k_end) {
            int64_t k0 = k / I8_X_BLOCK * I8_X_BLOCK;
            int64_t k1 = k0 + I8_X_BLOCK < k_end ? k0 + I8_X_BLOCK : k_end;
            __m256i largest = largest_of_rows(usual, R, in, row, rows, k0, k1);
            if (_mm256_cmpge_epi32_mask(largest, infinity) != 0) {
                return false;
            }
            scales = x_scales_of(largest, 0);
        }
        __m512i total = _mm512_setzero_si512();
        for (int64_t s = 0; s < steps; s += 4) {
            __m512i four[2];
            quantize_rows(usual, R, in, row, rows, k + 4 * s, end, &scales, four);
            total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), four[0]);
            total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), four[1]);
            store_steps(R, four, steps - s, x + s * R);
        }
        k += 4 * steps;
        x += steps * R;
        __m256i sum = _mm256_add_epi32(_mm512_castsi512_si256(total), _mm512_extracti64x4_epi64(total, 1));
        _mm256_mask_storeu_epi32(x, tile, _mm256_mullo_epi32(sum, _mm256_set1_epi32(-plan->bias)));
        x += R;
        if (plan->block) {
            _mm256_mask_storeu_ps(x, tile, _mm256_loadu_ps(scales.scale));
            x += R;
        }
        if (plan->with_sums) {
            _mm256_mask_storeu_ps(x, tile, _mm256_cvtepi32_ps(sum));
            x += R;
        }
    }
    return true;
}

GATUN_INLINE bool fill_tiles(const bool usual, const gatun_linear_input *in, const i8_plan *plan, int64_t row0,
                             int64_t row1, void *area) {
    bool finite = true;
    int64_t rows;
    for (int64_t row = row0; row < row1; row += rows) {
        rows = i8_tile_rows(in->m, row);
        bool numbers = rows == 8   ? fill_tile(usual, 8, in, plan, row, area)
                       : rows == 6 ? fill_tile(usual, 6, in, plan, row, area)
                       : rows == 4 ? fill_tile(usual, 4, in, plan, row, area)
                       : rows == 2 ? fill_tile(usual, 2, in, plan, row, area)
                                   : fill_tile(usual, 1, in, plan, row, area);
        finite = finite && numbers;
    }
    return finite;
}

static bool fill(const gatun_linear_input *in, bool block, int64_t row0, int64_t row1, void *area) {
    i8_plan plan;
    i8_make_plan(in->packed, block, in->m, &plan);
    return x_is_usual(in) ? fill_tiles(true, in, &plan, row0, row1, area)
                          : fill_tiles(false, in, &plan, row0, row1, area);
}

#endif
