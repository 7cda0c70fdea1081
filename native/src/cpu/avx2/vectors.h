/* What every AVX2 kernel shares: eight numbers of any plain type to and from float, and the scales of a packed group.
 */
#ifndef GATUN_AVX2_VECTORS_H
#define GATUN_AVX2_VECTORS_H

#include <immintrin.h>
#include <string.h>

#include "cpu/unroll.h"
#include "encodings/numbers.h"

GATUN_INLINE __m256 bf16_to_float(__m128i half) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* To nearest even in the upper halves; every NaN is 0x7FC0. */
GATUN_INLINE __m256 round_to_bf16(__m256 v) {
    __m256i bits = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    rounded = _mm256_and_si256(rounded, _mm256_set1_epi32((int32_t)0xFFFF0000));
    __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    return _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)), nan);
}

GATUN_INLINE __m256 round_plain(int32_t type, __m256 v) {
    switch (type) {
    case GATUN_F16:
        return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    case GATUN_BF16:
        return round_to_bf16(v);
    default:
        return v;
    }
}

/* Eight numbers, all of them there. */
GATUN_INLINE __m256 load_plain(int32_t type, const void *data) {
    switch (type) {
    case GATUN_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)data));
    case GATUN_BF16:
        return bf16_to_float(_mm_loadu_si128((const __m128i *)data));
    default:
        return _mm256_loadu_ps((const float *)data);
    }
}

GATUN_INLINE void store_plain(int32_t type, void *data, __m256 v) {
    if (type == GATUN_F32) {
        _mm256_storeu_ps((float *)data, v);
    } else if (type == GATUN_F16) {
        _mm_storeu_si128((__m128i *)data, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    } else {
        __m256i high = _mm256_srli_epi32(_mm256_castps_si256(round_to_bf16(v)), 16);
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
        _mm_storeu_si128((__m128i *)data, _mm256_castsi256_si128(packed));
    }
}

/* Eight scales, zeros or offsets of a group from number `first` on. */
static inline __m256 load_parameter(int32_t type, const uint8_t *data, int64_t first) {
    if (gatun_is_plain(type)) {
        return load_plain(type, data + first * gatun_plain_size(type));
    }
    float values[8];
    for (int64_t i = 0; i < 8; i++) {
        values[i] = gatun_panel_number(type, data, first + i);
    }
    return _mm256_loadu_ps(values);
}

/* As they multiply: stored and global scale, each rounded to the matrix's arithmetic. */
static inline __m256 load_scale(const gatun_packed *p, gatun_parameters at, int64_t first) {
    const gatun_matrix *m = &p->matrix;
    __m256 scale =
        p->scales_offset == 0 ? _mm256_set1_ps(1) : load_parameter(p->scale_type, at.own + p->scales_offset, first);
    scale = at.factors == NULL ? scale : _mm256_mul_ps(scale, load_parameter(p->factor_type, at.factors, first));
    scale = round_plain(m->arithmetic, scale);
    if (m->global_scale != 1) {
        __m256 global = round_plain(m->arithmetic, _mm256_set1_ps(m->global_scale));
        scale = round_plain(m->arithmetic, _mm256_mul_ps(scale, global));
    }
    return scale;
}

static inline __m256 load_zero(const gatun_packed *p, gatun_parameters at, int64_t first) {
    return p->zeros_offset == 0 ? _mm256_set1_ps((float)p->matrix.zero_point)
                                : load_parameter(p->zero_type, at.own + p->zeros_offset, first);
}

static inline __m256 load_offset(const gatun_packed *p, gatun_parameters at, int64_t first) {
    if (p->offsets_offset == 0) {
        return _mm256_setzero_ps();
    }
    __m256 offset = load_parameter(p->offset_type, at.own + p->offsets_offset, first);
    if (at.factors != NULL) {
        offset = _mm256_mul_ps(offset, load_parameter(p->factor_type, at.factors, GATUN_PANEL + first));
    }
    return p->matrix.offset_sign < 0 ? _mm256_sub_ps(_mm256_setzero_ps(), offset) : offset;
}

#endif
