/* The blocks of cpu/blocks.inc with AVX2. */
#include "cpu/avx2/codec_vectors.h"

#define BLOCKS(operation) gatun_##operation##_gguf__avx2
#include "cpu/blocks.inc"
