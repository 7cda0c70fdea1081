/* Integer `linear` by smmla: cpu/linear_i8_lanes.inc, with the microkernel of neon/words.inc. */
#include "cpu/neon/choices.h"
#include "cpu/neon/lanes.h"

#define WORDS_MM
#include "cpu/neon/words.inc"
#define DOT(name) neon_##name##_mm
#include "cpu/linear_i8_lanes.inc"
