/* The kernels of one instruction set extension, for neon/linear.c to choose from. */
#ifndef GATUN_NEON_CHOICE_H
#define GATUN_NEON_CHOICE_H

#include "gatun_internal.h"

enum { NEON_ROW_TILE = 24 }; /* whole tiles of all of them */

typedef struct neon_linear {
    const gatun_x_layout *x;
    gatun_linear_kernel *run;
    gatun_linear_accepts *accepts;
} neon_linear;

extern const neon_linear neon_i8_dot, neon_i8_block_dot, neon_i8_mm, neon_i8_block_mm, neon_bf16_dot;

#endif
