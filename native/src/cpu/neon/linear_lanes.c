/* The float kernels of cpu/linear_lanes.inc with NEON. */
#include "cpu/neon/lanes.h"

#define LINEAR(name) gatun_linear_lanes_##name##__neon
#include "cpu/linear_lanes.inc"
