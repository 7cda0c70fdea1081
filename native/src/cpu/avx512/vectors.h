/*
 * What every AVX-512 kernel shares: sixteen numbers of any plain or scale type to and from float, the scales of a
 * packed group, and the cutting of rows of x into tiles.
 */
#ifndef GATUN_AVX512_VECTORS_H
#define GATUN_AVX512_VECTORS_H

#include <immintrin.h>

#include "cpu/unroll.h"
#include "gatun_internal.h"

static inline __mmask16 first_lanes(int64_t count) {
    return count >= 16 ? (__mmask16)0xFFFF : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

/* Numbers index .. index + 15 of an array of F32, F16 or BF16; lanes outside the mask are 0 and not read. */
GATUN_INLINE __m512 load_plain(int32_t type, const void *data, int64_t index, __mmask16 mask) {
    if (type == GATUN_F32) {
        return _mm512_maskz_loadu_ps(mask, (const float *)data + index);
    }
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)data + index);
    if (type == GATUN_F16) {
        return _mm512_cvtph_ps(half);
    }
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* To nearest even, subnormals kept; every NaN is 0x7FC0. (vcvtneps2bf16 would flush subnormals.) */
static inline __m256i float_to_bf16(__m512 v) {
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FC00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

static inline void store_plain(int32_t type, void *data, int64_t index, __mmask16 mask, __m512 v) {
    if (type == GATUN_F32) {
        _mm512_mask_storeu_ps((float *)data + index, mask, v);
    } else {
        __m256i half = type == GATUN_F16 ? _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT) : float_to_bf16(v);
        _mm256_mask_storeu_epi16((uint16_t *)data + index, mask, half);
    }
}

/* Rounded to a plain type and back. */
GATUN_INLINE __m512 round_plain(int32_t type, __m512 v) {
    if (type == GATUN_F16) {
        return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    if (type == GATUN_BF16) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(float_to_bf16(v)), 16));
    }
    return v;
}

/* E4M3 is binary16 shifted: same fraction, exponents 8 apart, subnormals included; its NaN needs a hand. */
GATUN_INLINE __m512 e4m3_to_float(__m128i codes) {
    __m256i wide = _mm256_cvtepu8_epi16(codes);
    __m256i low = _mm256_and_si256(wide, _mm256_set1_epi16(0x7F));
    __m256i sign = _mm256_slli_epi16(_mm256_andnot_si256(_mm256_set1_epi16(0x7F), wide), 8);
    __mmask16 nan = _mm256_cmpeq_epi16_mask(low, _mm256_set1_epi16(0x7F));
    __m512 v = _mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(low, 7), sign));
    v = _mm512_mul_ps(v, _mm512_set1_ps(256));
    return _mm512_mask_mov_ps(v, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7FC00000)));
}

/* 2^(code - 127): the code is the exponent, but for 0, a subnormal, and 255, which is NaN. */
GATUN_INLINE __m512 e8m0_to_float(__m128i codes) {
    __m512i wide = _mm512_cvtepu8_epi32(codes);
    __m512i bits = _mm512_slli_epi32(wide, 23);
    bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(wide, wide), _mm512_set1_epi32(0x00400000));
    __mmask16 nan = _mm512_cmpeq_epi32_mask(wide, _mm512_set1_epi32(255));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7FC00000)));
}

/* 2^(code - 128): 0 and 1 are subnormal, and 255 is no NaN. */
GATUN_INLINE __m512 half_e8m0_to_float(__m128i codes) {
    __m512i wide = _mm512_cvtepu8_epi32(codes);
    __m512i bits = _mm512_slli_epi32(_mm512_sub_epi32(wide, _mm512_set1_epi32(1)), 23);
    __mmask16 small = _mm512_cmplt_epu32_mask(wide, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(bits, small, _mm512_set1_epi32(0x00200000), wide));
}

/* Half of an e4m3 without its sign; 0x7F is zero and 0xFF is 240, as NVFP4's blocks have it. */
GATUN_INLINE __m512 half_ue4m3_to_float(__m128i codes) {
    __m128i magnitude = _mm_and_si128(codes, _mm_set1_epi8(0x7F));
    __m512 v = _mm512_mul_ps(e4m3_to_float(magnitude), _mm512_set1_ps(0.5f));
    v = _mm512_mask_mov_ps(v, _mm_cmpeq_epi8_mask(codes, _mm_set1_epi8(0x7F)), _mm512_setzero_ps());
    return _mm512_mask_mov_ps(v, _mm_cmpeq_epi8_mask(codes, _mm_set1_epi8(-1)), _mm512_set1_ps(240));
}

/* Sixteen scales, zeros or offsets of a panel's group, from output 16 * half on. */
GATUN_INLINE __m512 load_parameter(int32_t type, const uint8_t *data, int half) {
    switch (type) {
    case GATUN_F32:
    case GATUN_F16:
    case GATUN_BF16:
        return load_plain(type, data, 16 * half, 0xFFFF);
    case GATUN_F8_E4M3:
        return e4m3_to_float(_mm_loadu_si128((const __m128i *)data + half));
    case GATUN_F8_E8M0:
        return e8m0_to_float(_mm_loadu_si128((const __m128i *)data + half));
    case GATUN_HALF_UE4M3:
        return half_ue4m3_to_float(_mm_loadu_si128((const __m128i *)data + half));
    case GATUN_HALF_E8M0:
        return half_e8m0_to_float(_mm_loadu_si128((const __m128i *)data + half));
    case GATUN_I8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)data + half)));
    case GATUN_U8:
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)data + half)));
    default:
        return _mm512_set1_ps(1);
    }
}

/* The scales of a group as they multiply: stored and with the global scale, each rounded to the matrix's arithmetic. */
GATUN_INLINE __m512 load_scale(const gatun_packed *p, gatun_parameters at, int half) {
    const gatun_matrix *m = &p->matrix;
    __m512 scale =
        p->scales_offset == 0 ? _mm512_set1_ps(1) : load_parameter(p->scale_type, at.own + p->scales_offset, half);
    scale =
        at.factors == NULL ? scale : _mm512_mul_ps(scale, load_plain(p->factor_type, at.factors, 16 * half, 0xFFFF));
    if (m->arithmetic != GATUN_F32) {
        scale = round_plain(m->arithmetic, scale);
    }
    if (m->global_scale != 1) {
        __m512 global = round_plain(m->arithmetic, _mm512_set1_ps(m->global_scale));
        scale = round_plain(m->arithmetic, _mm512_mul_ps(scale, global));
    }
    return scale;
}

GATUN_INLINE __m512 load_zero(const gatun_packed *p, gatun_parameters at, int half) {
    return p->zeros_offset == 0 ? _mm512_set1_ps((float)p->matrix.zero_point)
                                : load_parameter(p->zero_type, at.own + p->zeros_offset, half);
}

/* With its sign; 0 when there are no offsets. */
GATUN_INLINE __m512 load_offset(const gatun_packed *p, gatun_parameters at, int half) {
    if (p->offsets_offset == 0) {
        return _mm512_setzero_ps();
    }
    __m512 offset = load_parameter(p->offset_type, at.own + p->offsets_offset, half);
    if (at.factors != NULL) {
        offset = _mm512_mul_ps(offset, load_plain(p->factor_type, at.factors, GATUN_PANEL + 16 * half, 0xFFFF));
    }
    return p->matrix.offset_sign < 0 ? _mm512_sub_ps(_mm512_setzero_ps(), offset) : offset;
}

/* Prefetches the lines that no step asks for: what follows the codes, which end at `end`, in a group `ahead` bytes
 * further on, or the next record of scales behind all groups. */
GATUN_INLINE void prefetch_numbers(const gatun_packed *p, gatun_parameters at, const uint8_t *end, int64_t group,
                                   int64_t ahead) {
    if (p->supers_offset == 0) {
        for (const uint8_t *line = end; line < at.own + p->group_stride; line += 64) {
            _mm_prefetch((const char *)line + ahead, _MM_HINT_T0);
        }
        return;
    }
    _mm_prefetch((const char *)at.own + p->scales_offset + p->super_stride, _MM_HINT_T0);
    if (at.factors != NULL) {
        _mm_prefetch((const char *)at.factors + p->super_stride + group % 2 * 64, _MM_HINT_T0);
    }
}

/* The codes of step s, 0 .. 3, of sixteen k of CODES5 (bits 1) or CODES6 (bits 2): bytes of outputs 0-15 and 16-31. */
GATUN_INLINE void plane_codes(const int bits, const uint8_t *codes, const int s, __m512i out[2]) {
    const __m512i low_nibbles = _mm512_set1_epi8(0x0F), mask = _mm512_set1_epi8(bits == 1 ? 0x1F : 0x3F);
    __m512i low = _mm512_loadu_si512(codes + 64 * s);
    __m512i high = _mm512_loadu_si512(codes + 256 + (bits == 2 ? s / 2 * 64 : 0));
    GATUN_UNROLL for (int h = 0; h < 2; h++) {
        const int at = bits * ((bits == 1 ? 2 * s : 2 * (s % 2)) + h);
        __m512i fifth =
            at <= 4 ? _mm512_slli_epi16(high, (unsigned)(4 - at)) : _mm512_srli_epi16(high, (unsigned)(at - 4));
        __m512i nibbles = h == 0 ? low : _mm512_srli_epi16(low, 4); /* 0xCA: a ? b : c */
        out[h] = _mm512_and_si512(_mm512_ternarylogic_epi32(low_nibbles, nibbles, fifth, 0xCA), mask);
    }
}

#endif
