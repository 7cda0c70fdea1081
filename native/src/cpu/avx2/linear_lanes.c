/* The float kernels of cpu/linear_lanes.inc with AVX2 and FMA; there is no bfloat16 and no fast integer product. */
#include "cpu/avx2/lanes.h"

#define LINEAR(name) gatun_linear_##name##__avx2
#include "cpu/linear_lanes.inc"
