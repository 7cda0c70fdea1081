/* The codecs of cpu/codecs.inc with NEON. */
#include "cpu/neon/codec_vectors.h"

#include "cpu/kernels.h"

#define CODEC(operation) gatun_##operation##__neon
#include "cpu/codecs.inc"
