/* linear_f32_<weight>__avx512, and what else is best done by multiply-adds: see linear_float.inc. */
#define BF16 0
#include "cpu/avx512/linear_float.inc"

GATUN_OPERANDS(gatun_linear_f32, AS_IS)
GATUN_OPERANDS(gatun_linear_bf16_fma, ROUNDED)
GATUN_OPERANDS(gatun_linear_i8_fma, QUANTIZED)
GATUN_OPERANDS(gatun_linear_i8_block_fma, QUANTIZED_BLOCK)

bool gatun_linear_f32_accepts__avx512(const gatun_packed *packed) { return accepts(packed); }

/* Blocks that have to be dequantized anyway; their values are the integers' own. */
static bool accepts_blocks(const gatun_packed *p) {
    return p->form == GATUN_FORM_SOURCE && gatun_is_gguf(p->matrix.encoding) && p->matrix.arithmetic == GATUN_F32 &&
           p->matrix.result == GATUN_F32 && p->k != 0;
}
bool gatun_linear_i8_fma_accepts__avx512(const gatun_packed *packed) { return accepts_blocks(packed); }
bool gatun_linear_i8_block_fma_accepts__avx512(const gatun_packed *packed) { return accepts_blocks(packed); }
