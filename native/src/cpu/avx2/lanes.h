/* What cpu/linear_lanes.inc needs of AVX2 and FMA besides codec_vectors.h. */
#ifndef GATUN_AVX2_LANES_H
#define GATUN_AVX2_LANES_H

#include "cpu/avx2/codec_vectors.h"

static inline vf v_fmadd(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
/* To the nearest whole number, ties to even. */
static inline vf whole(vf v) { return (vf)_mm256_round_ps((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* table[index] */
static inline vf gather(const float *table, vu index) { return (vf)_mm256_i32gather_ps(table, (__m256i)index, 4); }

#endif
