/* Integer `linear` by sdot: cpu/linear_i8_lanes.inc, with the microkernel of neon/words.inc. */
#include "cpu/neon/choices.h"
#include "cpu/neon/lanes.h"

#define WORDS_I8
#include "cpu/neon/words.inc"
#define DOT(name) neon_##name##_dot
#include "cpu/linear_i8_lanes.inc"
