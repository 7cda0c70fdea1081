/* What cpu/lanes.inc and cpu/codecs.inc need of NEON: 4 numbers at a time. */
#ifndef GATUN_NEON_CODEC_VECTORS_H
#define GATUN_NEON_CODEC_VECTORS_H

#include <arm_neon.h>

#include "encodings/numbers.h"

enum { LANES = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef uint64_t vu64 __attribute__((vector_size(16)));
typedef double vd __attribute__((vector_size(16)));
/* Sixteen bytes, and the same as wider numbers. */
typedef uint8_t b16 __attribute__((vector_size(16)));
typedef uint16_t h8 __attribute__((vector_size(16)));
typedef uint32_t w4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef float f4 __attribute__((vector_size(16)));

/* The first and the last two as doubles. */
static inline vd low_doubles(vf v) { return (vd)vcvt_f64_f32(vget_low_f32((float32x4_t)v)); }
static inline vd high_doubles(vf v) { return (vd)vcvt_high_f64_f32((float32x4_t)v); }
static inline vf f16_load(const void *p) {
    uint16x4_t bits;
    memcpy(&bits, p, sizeof bits);
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
static inline void f16_store(void *p, vf v) {
    uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v));
    memcpy(p, &bits, sizeof bits);
}
static inline vf f16_round(vf v) { return (vf)vcvt_f32_f16(vcvt_f16_f32((float32x4_t)v)); }
/* The low 16 bits of each number, in order. */
static inline uint16x4_t low_halves(vu v) { return vmovn_u32((uint32x4_t)v); }
static inline vf f16_from_low(vu v) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(low_halves(v))); }
static inline vu u16_load(const void *p) {
    uint16x4_t halves;
    memcpy(&halves, p, sizeof halves);
    return (vu)vmovl_u16(halves);
}
static inline void u16_store(void *p, vu v) {
    uint16x4_t halves = low_halves(v);
    memcpy(p, &halves, sizeof halves);
}
static inline vu u8_load(const void *p) {
    uint8_t b[4];
    memcpy(b, p, sizeof b);
    return (vu){b[0], b[1], b[2], b[3]};
}
static inline void u8_store(void *p, vu v) {
    uint8_t b[4] = {(uint8_t)v[0], (uint8_t)v[1], (uint8_t)v[2], (uint8_t)v[3]};
    memcpy(p, b, sizeof b);
}
/* LANES codes of four bits from the start of a byte on, each in the low four bits of a number. */
static inline vu nibbles_load(const void *p, bool high_first) {
    const uint8_t *b = (const uint8_t *)p;
    return high_first ? (vu){b[0] >> 4, b[0], b[1] >> 4, b[1]} : (vu){b[0], b[0] >> 4, b[1], b[1] >> 4};
}
static inline vi s8_load(const void *p) { return (vi)(u8_load(p) << 24) >> 24; }
/* LANES signed bytes, widened to 16 bits, shifted and masked there, as halves. */
static inline vf f16_from_bytes(const void *p, int shift, int mask) {
    uint64_t low = 0;
    memcpy(&low, p, 4);
    int16x4_t wide = vshl_s16(vget_low_s16(vmovl_s8(vcreate_s8(low))), vdup_n_s16((int16_t)shift));
    uint16x4_t bits = vand_u16(vreinterpret_u16_s16(wide), vdup_n_u16((uint16_t)mask));
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
static inline vf fused(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
/* The low byte of each 64 bits. */
static inline void u64_store_low(void *p, vu64 v) {
    uint8_t b[2] = {(uint8_t)v[0], (uint8_t)v[1]};
    memcpy(p, b, sizeof b);
}
/* table[index % 16]: the four bytes of each number are looked up among the table's 64. */
static inline vf look_up(const float *table, vu index) {
    uint8x16x4_t bytes = vld1q_u8_x4((const uint8_t *)table);
    vu places = (index & 15) * 0x04040404u + 0x03020100u;
    return (vf)vqtbl4q_u8(bytes, (uint8x16_t)places);
}
/* To the nearest integer, ties to even; of NaN the low eight bits are 0. */
static inline vi nearest(vf v) { return (vi)vcvtnq_s32_f32((float32x4_t)v); }
static inline float largest_lane(vf v) {
    float largest = v[0];
    for (int32_t i = 1; i < LANES; i++) {
        largest = v[i] > largest ? v[i] : largest;
    }
    return largest;
}
/* table[index], index < 16 */
static inline b16 look_up_bytes(b16 table, b16 index) { return (b16)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index); }
/* LANES of sixteen signed bytes from number `first` on. */
static inline vf s8_float(b16 bytes, int first) {
    int8x8_t eight = first < 8 ? vget_low_s8((int8x16_t)bytes) : vget_high_s8((int8x16_t)bytes);
    int16x8_t halves = vmovl_s8(eight);
    return (vf)vcvtq_f32_s32(vmovl_s16(first % 8 == 0 ? vget_low_s16(halves) : vget_high_s16(halves)));
}
/* Toward zero; what an integer cannot hold is its smallest. */
static inline vi truncated(vf v) {
    uint32x4_t fits = vcaltq_f32((float32x4_t)v, vdupq_n_f32(0x1p31f));
    return (vi)vbslq_s32(fits, vcvtq_s32_f32((float32x4_t)v), vdupq_n_s32(INT32_MIN));
}
/* The sign of each lane, from bit 0 on. */
static inline uint32_t lane_bits(vi v) {
    const vi shifts = {-31, -30, -29, -28};
    return vaddvq_u32(vshlq_u32((uint32x4_t)v & 0x80000000, (int32x4_t)shifts));
}
static inline vf smaller(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vf larger(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vi smaller_i(vi a, vi b) { return (vi)vminq_s32((int32x4_t)a, (int32x4_t)b); }
static inline vi larger_i(vi a, vi b) { return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b); }
/* Whether a NaN is in one of them. */
static inline bool has_nan(vf a, vf b) {
    return vminvq_u32(
               vandq_u32(vceqq_f32((float32x4_t)a, (float32x4_t)a), vceqq_f32((float32x4_t)b, (float32x4_t)b))) == 0;
}
static inline vi upward(vf v) { return (vi)vcvtpq_s32_f32((float32x4_t)v); }
/* The largest number of each of four vectors. */
static inline f4 four_largest(const vf v[4]) {
    float32x4_t low = vpmaxq_f32((float32x4_t)v[0], (float32x4_t)v[1]);
    return (f4)vpmaxq_f32(low, vpmaxq_f32((float32x4_t)v[2], (float32x4_t)v[3]));
}
static inline void four_halves(f4 v, uint16_t halves[4]) {
    uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v));
    memcpy(halves, &bits, sizeof bits);
}
/* Adds `step` where v is above a threshold; `at_nan`: where it is NaN, too. */
static inline vu add_above(vu count, uint32_t step, vf v, vf threshold, bool at_nan) {
    vi more = at_nan ? ~(vi)(v <= threshold) : (vi)(v > threshold);
    return count + ((vu)more & step);
}

#endif
