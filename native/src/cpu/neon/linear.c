/*
 * linear_<compute>_<weight>__neon: the best of the kernels that this processor has instructions for. float and what has
 * no integer form are multiplied as floats; int8 by smmla (i8mm) or sdot (dotprod), bfloat16 by bfdot.
 */
#include "cpu/kernels.h"
#include "cpu/neon/choices.h"

static const linear_choice i8_lanes = LANES_CHOICE(i8, neon), i8_block_lanes = LANES_CHOICE(i8_block, neon),
                           bf16_lanes = LANES_CHOICE(bf16, neon);
static const featured_choice i8_choices[] = {{"i8mm", &neon_i8_mm}, {"asimddp", &neon_i8_dot}, {NULL, &i8_lanes}};
static const featured_choice i8_block_choices[] = {
    {"i8mm", &neon_i8_block_mm}, {"asimddp", &neon_i8_block_dot}, {NULL, &i8_block_lanes}};
static const featured_choice bf16_choices[] = {{"bf16", &neon_bf16_dot}, {NULL, &bf16_lanes}};

CHOSEN_KERNEL(i8, neon)
CHOSEN_KERNEL(i8_block, neon)
CHOSEN_KERNEL(bf16, neon)
