/* Integer `linear` by smmla: neon/linear_i8.inc. */
#include "cpu/neon/lanes.h"

#define WORDS_MM
#define DOT(name) neon_##name##_mm
#include "cpu/neon/linear_i8.inc"
