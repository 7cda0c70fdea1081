/* Declarations of every kernel that the lists in <isa>/kernels.inc name: one list an instruction set. */
#ifndef GATUN_KERNELS_H
#define GATUN_KERNELS_H

#include "gatun_internal.h"

gatun_dequantize_kernel gatun_dequantize__scalar;
gatun_convert_kernel gatun_convert__scalar;
gatun_deviation_kernel gatun_deviation__scalar;
gatun_quantize_kernel gatun_quantize__scalar, gatun_quantize_gguf__scalar;
gatun_linear_kernel gatun_linear_f32__scalar, gatun_linear_bf16__scalar, gatun_linear_i8__scalar,
    gatun_linear_i8_block__scalar;
gatun_linear_accepts gatun_linear_i8_accepts__scalar;
extern const gatun_x_layout gatun_x_scalar_f32, gatun_x_scalar_bf16, gatun_x_scalar_i8, gatun_x_scalar_i8_block;

/* The codecs of an instruction set with vectors. */
#define GATUN_CODECS(isa)                                                                                              \
    gatun_dequantize_kernel gatun_dequantize__##isa, gatun_dequantize_gguf__##isa;                                     \
    gatun_codec_accepts gatun_dequantize_accepts__##isa;                                                               \
    gatun_convert_kernel gatun_convert__##isa;                                                                         \
    gatun_deviation_kernel gatun_deviation__##isa;                                                                     \
    gatun_quantize_kernel gatun_quantize__##isa, gatun_quantize_gguf__##isa;                                           \
    gatun_codec_accepts gatun_quantize_accepts__##isa;

GATUN_CODECS(avx2)
GATUN_CODECS(avx512)
GATUN_CODECS(neon)

/* A linear kernel, its layout of x and what it accepts. */
#define GATUN_LINEAR_KERNEL(name, isa)                                                                                 \
    gatun_linear_kernel name##__##isa;                                                                                 \
    gatun_linear_accepts name##_accepts__##isa;                                                                        \
    extern const gatun_x_layout name##_x__##isa;

GATUN_LINEAR_KERNEL(gatun_linear_lanes_f32, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_bf16, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_i8, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_i8_block, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_i8, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_i8_block, avx2)
GATUN_LINEAR_KERNEL(gatun_linear_f32, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_bf16, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_bf16_fma, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_bf16_dot, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_i8_fma, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_i8_block_fma, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_i8, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_i8_block, avx512)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_f32, neon)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_bf16, neon)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_i8, neon)
GATUN_LINEAR_KERNEL(gatun_linear_lanes_i8_block, neon)
GATUN_LINEAR_KERNEL(gatun_linear_bf16, neon)
GATUN_LINEAR_KERNEL(gatun_linear_i8, neon)
GATUN_LINEAR_KERNEL(gatun_linear_i8_block, neon)
GATUN_LINEAR_KERNEL(gatun_linear_bf16, amx)
GATUN_LINEAR_KERNEL(gatun_linear_i8, amx)
GATUN_LINEAR_KERNEL(gatun_linear_i8_block, amx)

#endif
