/* The codecs of cpu/codecs.inc with AVX2. */
#include "cpu/avx2/codec_vectors.h"

#include "cpu/kernels.h"

#define CODEC(operation) gatun_##operation##__avx2
#include "cpu/codecs.inc"
