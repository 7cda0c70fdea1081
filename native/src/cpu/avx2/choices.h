/* The integer kernels, for avx2/linear.c to choose from. */
#ifndef GATUN_AVX2_CHOICES_H
#define GATUN_AVX2_CHOICES_H

#include "cpu/linear_choice.h"

extern const linear_choice avx2_i8, avx2_i8_block;

#endif
