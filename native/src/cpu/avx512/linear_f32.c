/* linear_f32_<weight>__avx512: see linear_float.inc. */
#define BF16 0
#include "cpu/avx512/linear_float.inc"

const gatun_x_layout gatun_linear_f32_x__avx512 = {ROW_TILE, x_bytes, fill, scratch_bytes};
void gatun_linear_f32__avx512(const gatun_linear_task *task) { run(task); }
bool gatun_linear_f32_accepts__avx512(const gatun_packed *packed) { return accepts(packed); }
