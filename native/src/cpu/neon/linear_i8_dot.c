/* Integer `linear` by sdot: neon/linear_i8.inc. */
#include "cpu/neon/lanes.h"

#define WORDS_I8
#define DOT(name) neon_##name##_dot
#include "cpu/neon/linear_i8.inc"
