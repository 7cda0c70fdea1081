/* The blocks of cpu/blocks.inc with NEON. */
#include "cpu/neon/codec_vectors.h"

#define BLOCKS(operation) gatun_##operation##_gguf__neon
#include "cpu/blocks.inc"
