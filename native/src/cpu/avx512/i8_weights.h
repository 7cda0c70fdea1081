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

/* How a panel's scales become floats, for a switch that a loop over units takes the same way every time. */
enum { SCALE_ANY, SCALE_F32, SCALE_F16, SCALE_BF16, SCALE_U8, SCALE_I8 };
static int scale_kind(const gatun_packed *p) {
    if (p->scales_offset == 0 || p->matrix.arithmetic != GATUN_F32 || p->matrix.global_scale != 1) {
        return SCALE_ANY;
    }
    switch (p->scale_type) {
    case GATUN_F32:
        return SCALE_F32;
    case GATUN_F16:
        return SCALE_F16;
    case GATUN_BF16:
        return SCALE_BF16;
    case GATUN_U8:
        return SCALE_U8;
    case GATUN_I8:
        return SCALE_I8;
    default:
        return SCALE_ANY;
    }
}

/* The scales of a group's outputs 16 * half to 16 * half + 15. Bytes have factors. */
GATUN_INLINE __m512 scale_of(int kind, const gatun_packed *p, gatun_parameters at, int half) {
    const uint8_t *scales = at.own + p->scales_offset;
    switch (kind) {
    case SCALE_F32:
        return load_parameter(GATUN_F32, scales, half);
    case SCALE_F16:
        return load_parameter(GATUN_F16, scales, half);
    case SCALE_BF16:
        return load_parameter(GATUN_BF16, scales, half);
    case SCALE_U8:
        return _mm512_mul_ps(load_parameter(GATUN_U8, scales, half), load_parameter(GATUN_F16, at.factors, half));
    case SCALE_I8:
        return _mm512_mul_ps(load_parameter(GATUN_I8, scales, half), load_parameter(GATUN_F16, at.factors, half));
    default:
        return load_scale(p, at, half);
    }
}

/* The scales of units unit0 .. unit1-1 for a tile of decoded codes: [unit][32 scales / factor, 32 zeros * factor, 32
 * offsets]. */
GATUN_INLINE void scales_of_kind(int kind, const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0,
                                 int64_t unit1, float *out) {
    const __m512 factor = _mm512_set1_ps(plan->factor), inverse = _mm512_set1_ps(1 / plan->factor);
    const bool power_of_two = plan->factor != 127;
    for (int64_t unit = unit0; unit < unit1; unit++, out += SCALES) {
        gatun_parameters at = gatun_packed_parameters(p, panel, unit / plan->units_per_group);
        for (int h = 0; h < 2; h++) {
            __m512 scale = scale_of(kind, p, at, h);
            if (plan->zeros) {
                _mm512_store_ps(out + 32 + 16 * h, _mm512_mul_ps(load_zero(p, at, h), factor));
            }
            if (plan->offsets) {
                _mm512_store_ps(out + 64 + 16 * h, load_offset(p, at, h));
            }
            _mm512_store_ps(out + 16 * h, power_of_two ? _mm512_mul_ps(scale, inverse) : _mm512_div_ps(scale, factor));
        }
    }
}

static void unit_scales(const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0, int64_t unit1,
                        float *out) {
    switch (scale_kind(p)) {
    case SCALE_F32:
        scales_of_kind(SCALE_F32, p, plan, panel, unit0, unit1, out);
        break;
    case SCALE_F16:
        scales_of_kind(SCALE_F16, p, plan, panel, unit0, unit1, out);
        break;
    case SCALE_U8:
        scales_of_kind(SCALE_U8, p, plan, panel, unit0, unit1, out);
        break;
    case SCALE_I8:
        scales_of_kind(SCALE_I8, p, plan, panel, unit0, unit1, out);
        break;
    default:
        scales_of_kind(SCALE_ANY, p, plan, panel, unit0, unit1, out);
    }
}

#endif
