/* The blocks of cpu/blocks.inc with AVX-512. */
#include "cpu/avx512/codec_vectors.h"

#define BLOCKS(operation) gatun_##operation##_gguf__avx512
#include "cpu/blocks.inc"
