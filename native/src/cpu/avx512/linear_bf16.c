/*
 * linear_bf16_<weight>__avx512: see linear_float.inc.
 *
 * AMD's cores issue two vdpbf16ps a cycle, Intel's one in two cycles, half of what two multiply-adds do: there the
 * operands are rounded to bfloat16 and multiplied as floats.
 */
#define BF16 1
#include "cpu/avx512/linear_float.inc"

GATUN_OPERANDS(gatun_linear_bf16_dot, AS_IS)

static bool dots_are_slow(void) { return __builtin_cpu_is("intel") != 0; }

static const gatun_x_layout *layout(void) {
    return dots_are_slow() ? &gatun_linear_bf16_fma_x__avx512 : &gatun_linear_bf16_dot_x__avx512;
}
static int64_t bytes(const gatun_packed *packed, int64_t m) { return layout()->bytes(packed, m); }
static bool fill_either(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    return layout()->fill(in, row0, row1, area);
}
static int64_t scratch(const gatun_packed *packed) { return layout()->scratch(packed); }

const gatun_x_layout gatun_linear_bf16_x__avx512 = {
    .row_tile = ROW_TILE, .bytes = bytes, .fill = fill_either, .scratch = scratch};
void gatun_linear_bf16__avx512(const gatun_linear_task *task) {
    (dots_are_slow() ? gatun_linear_bf16_fma__avx512 : gatun_linear_bf16_dot__avx512)(task);
}
bool gatun_linear_bf16_accepts__avx512(const gatun_packed *packed) { return accepts(packed); }
