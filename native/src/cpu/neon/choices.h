/* The kernels of one instruction set extension, for neon/linear.c to choose from. */
#ifndef GATUN_NEON_CHOICES_H
#define GATUN_NEON_CHOICES_H

#include "cpu/linear_choice.h"

extern const linear_choice neon_i8_dot, neon_i8_block_dot, neon_i8_mm, neon_i8_block_mm, neon_bf16_dot;

#endif
