/* Codes as unsigned bytes and scales as floats, for integer `linear` (cpu/i8_plan.h). */
#ifndef GATUN_AVX512_I8_WEIGHTS_H
#define GATUN_AVX512_I8_WEIGHTS_H

#include "cpu/avx512/vectors.h"
#include "cpu/i8_plan.h"

enum { SCALES = 96, AHEAD = 4608 }; /* floats of a unit; bytes prefetched ahead: about a DRAM latency */

/* Step s of codes as 32 outputs in two vectors of unsigned bytes; `constant` is the flip or the table. Planes have four
 * steps side by side. */
GATUN_INLINE void weight_bytes(int source, const uint8_t *codes, int s, __m512i constant, __m512i out[2]) {
    if (source == I8_PLANES5 || source == I8_PLANES6) {
        plane_codes(source == I8_PLANES5 ? 1 : 2, codes + s / 4 * 4 * i8_step_bytes(source), s % 4, out);
        return;
    }
    const uint8_t *w = codes + s * i8_step_bytes(source);
    __m512i first = _mm512_loadu_si512(w);
    if (source == I8_RAW4) { /* 0x28: (a ^ b) & c */
        out[0] = _mm512_ternarylogic_epi32(first, constant, _mm512_set1_epi8(0x0F), 0x28);
        out[1] = _mm512_ternarylogic_epi32(first, constant, _mm512_set1_epi8((char)0xF0), 0x28);
    } else if (source == I8_TABLE4) {
        out[0] = _mm512_permutexvar_epi8(first, constant);
        out[1] = _mm512_permutexvar_epi8(_mm512_srli_epi16(first, 4), constant);
    } else {
        __m512i second = _mm512_loadu_si512(w + 64);
        out[0] = source == I8_RAW8 ? _mm512_xor_si512(first, constant) : first;
        out[1] = source == I8_RAW8 ? _mm512_xor_si512(second, constant) : second;
    }
}

GATUN_INLINE __m512i weight_constant(const i8_plan *plan) {
    switch (plan->source) {
    case I8_RAW4:
        return _mm512_set1_epi8((char)(plan->flip * 0x11));
    case I8_TABLE4:
        return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)plan->table));
    default:
        return _mm512_set1_epi8((char)plan->flip);
    }
}

/*
 * The scales of units unit0 .. unit1-1 as a tile wants them, [unit][32 scales / factor, 32 zeros * factor, 32 offsets].
 * `shifted`: the second half belongs to sums that are 16 times too large.
 */
GATUN_INLINE void scales_of_type(int32_t type, bool plain, const gatun_packed *p, const i8_plan *plan, int64_t panel,
                                 int64_t unit0, int64_t unit1, bool shifted, float *out) {
    /* The sums are `factor` and, in the shifted half, 16 times too large. */
    const float times[2] = {plan->factor, shifted ? 16 * plan->factor : plan->factor};
    int64_t ahead = gatun_packed_parameters(p, panel, unit1 / plan->units_per_group).own -
                    gatun_packed_parameters(p, panel, unit0 / plan->units_per_group).own;
    for (int64_t unit = unit0; unit < unit1; unit++, out += SCALES) {
        gatun_parameters at = gatun_packed_parameters(p, panel, unit / plan->units_per_group);
        _mm_prefetch((const char *)at.own + p->scales_offset + ahead, _MM_HINT_T0);
        for (int h = 0; h < 2; h++) {
            __m512 scale = plain ? load_parameter(type, at.own + p->scales_offset, h) : load_scale(p, at, h);
            if (plain && at.factors != NULL) {
                scale = _mm512_mul_ps(scale, load_plain(GATUN_F16, at.factors, 16 * h, 0xFFFF));
            }
            if (plan->zeros) {
                _mm512_store_ps(out + 32 + 16 * h, _mm512_mul_ps(load_zero(p, at, h), _mm512_set1_ps(times[h])));
            }
            if (plan->offsets) {
                _mm512_store_ps(out + 64 + 16 * h, load_offset(p, at, h));
            }
            bool power_of_two = plan->factor != 127;
            _mm512_store_ps(out + 16 * h, power_of_two ? _mm512_mul_ps(scale, _mm512_set1_ps(1 / times[h]))
                                                       : _mm512_div_ps(scale, _mm512_set1_ps(times[h])));
        }
    }
}

static void unit_scales(const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0, int64_t unit1,
                        bool shifted, float *out) {
    bool plain = p->scales_offset != 0 && p->matrix.arithmetic == GATUN_F32 && p->matrix.global_scale == 1;
    if (plain && p->scale_type == GATUN_F16) {
        scales_of_type(GATUN_F16, true, p, plan, panel, unit0, unit1, shifted, out);
    } else if (plain && p->scale_type == GATUN_F32) {
        scales_of_type(GATUN_F32, true, p, plan, panel, unit0, unit1, shifted, out);
    } else if (plain && p->scale_type == GATUN_U8) {
        scales_of_type(GATUN_U8, true, p, plan, panel, unit0, unit1, shifted, out);
    } else if (plain && p->scale_type == GATUN_I8) {
        scales_of_type(GATUN_I8, true, p, plan, panel, unit0, unit1, shifted, out);
    } else {
        scales_of_type(p->scale_type, false, p, plan, panel, unit0, unit1, shifted, out);
    }
}

#endif
