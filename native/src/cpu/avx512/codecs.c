/* The codecs of cpu/codecs.inc with AVX-512. */
#include "cpu/avx512/codec_vectors.h"

#include "cpu/kernels.h"

#define CODEC(operation) gatun_##operation##__avx512
#include "cpu/codecs.inc"
