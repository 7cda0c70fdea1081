/* linear_i8_<weight>__avx2 and linear_i8_block_<weight>__avx2: by integers where the weight has them, else as floats.
 */
#include "cpu/avx2/choices.h"
#include "cpu/kernels.h"

static const linear_choice i8_lanes = LANES_CHOICE(i8, avx2), i8_block_lanes = LANES_CHOICE(i8_block, avx2);
static const featured_choice i8_choices[] = {{NULL, &avx2_i8}, {NULL, &i8_lanes}};
static const featured_choice i8_block_choices[] = {{NULL, &avx2_i8_block}, {NULL, &i8_block_lanes}};

CHOSEN_KERNEL(i8, avx2)
CHOSEN_KERNEL(i8_block, avx2)
