/* Integer `linear` by vpmaddubsw: cpu/linear_i8_lanes.inc, with the microkernel of avx2/words.inc. */
#include "cpu/avx2/choices.h"
#include "cpu/avx2/lanes.h"
#include "cpu/avx2/words.inc"

#define DOT(name) avx2_##name
#include "cpu/linear_i8_lanes.inc"
