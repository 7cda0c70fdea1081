/* What cpu/linear_lanes.inc needs of NEON besides codec_vectors.h. */
#ifndef GATUN_NEON_LANES_H
#define GATUN_NEON_LANES_H

#include "cpu/neon/codec_vectors.h"

static inline vf v_fmadd(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
/* To the nearest whole number, ties to even. */
static inline vf whole(vf v) { return (vf)vrndnq_f32((float32x4_t)v); }
/* table[index] */
static inline vf gather(const float *table, vu index) {
    return (vf){table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
}

#endif
