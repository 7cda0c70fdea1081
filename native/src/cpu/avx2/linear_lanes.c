/* The float kernels of cpu/linear_lanes.inc with AVX2 and FMA; there is no bfloat16. */
#include "cpu/avx2/lanes.h"

#define LINEAR(name) gatun_linear_lanes_##name##__avx2
#include "cpu/linear_lanes.inc"
