/*
 * Every encoding, once: ROW(ENCODING, name, bits, ...). The kernel table, the names and the tests expand these lists.
 */
#ifndef GATUN_ENCODING_LIST_H
#define GATUN_ENCODING_LIST_H

#define GATUN_PLAIN_ENCODINGS(ROW, ...)                                                                                \
    ROW(F32, f32, 32, __VA_ARGS__)                                                                                     \
    ROW(F16, f16, 16, __VA_ARGS__)                                                                                     \
    ROW(BF16, bf16, 16, __VA_ARGS__)

#define GATUN_F8_ENCODINGS(ROW, ...)                                                                                   \
    ROW(F8_E4M3, f8_e4m3, 8, __VA_ARGS__)                                                                              \
    ROW(F8_E5M2, f8_e5m2, 8, __VA_ARGS__)                                                                              \
    ROW(F8_E4M3FNUZ, f8_e4m3fnuz, 8, __VA_ARGS__)                                                                      \
    ROW(F8_E5M2FNUZ, f8_e5m2fnuz, 8, __VA_ARGS__)

/* Codes whose values are integers or 4-bit floats, so that an integer multiply can take them. */
#define GATUN_INT8_ENCODINGS(ROW, ...)                                                                                 \
    ROW(I8, i8, 8, __VA_ARGS__)                                                                                        \
    ROW(U8, u8, 8, __VA_ARGS__)

#define GATUN_WIDE_ENCODINGS(ROW, ...)                                                                                 \
    ROW(U5, u5, 5, __VA_ARGS__)                                                                                        \
    ROW(U6, u6, 6, __VA_ARGS__)                                                                                        \
    ROW(U7, u7, 7, __VA_ARGS__)

#define GATUN_NARROW_ENCODINGS(ROW, ...)                                                                               \
    ROW(U1, u1, 1, __VA_ARGS__)                                                                                        \
    ROW(U2, u2, 2, __VA_ARGS__)                                                                                        \
    ROW(U3, u3, 3, __VA_ARGS__)                                                                                        \
    ROW(I2, i2, 2, __VA_ARGS__)

#define GATUN_4BIT_ENCODINGS(ROW, ...)                                                                                 \
    ROW(I4, i4, 4, __VA_ARGS__)                                                                                        \
    ROW(U4, u4, 4, __VA_ARGS__)                                                                                        \
    ROW(NF4, nf4, 4, __VA_ARGS__)                                                                                      \
    ROW(FP4, fp4, 4, __VA_ARGS__)                                                                                      \
    ROW(F4_E2M1, f4_e2m1, 4, __VA_ARGS__)

/* The blocks that become panels (packed_gguf.c). */
#define GATUN_GGUF_PANEL_ENCODINGS(ROW, ...)                                                                           \
    ROW(Q4_0, q4_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q4_1, q4_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_0, q5_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_1, q5_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q8_0, q8_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q4_K, q4_k, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_K, q5_k, 0, __VA_ARGS__)                                                                                    \
    ROW(Q6_K, q6_k, 0, __VA_ARGS__)                                                                                    \
    ROW(IQ4_NL, iq4_nl, 0, __VA_ARGS__)                                                                                \
    ROW(IQ4_XS, iq4_xs, 0, __VA_ARGS__)                                                                                \
    ROW(MXFP4, mxfp4, 0, __VA_ARGS__)                                                                                  \
    ROW(NVFP4, nvfp4, 0, __VA_ARGS__)

/* Those that keep their blocks. */
#define GATUN_GGUF_SOURCE_ENCODINGS(ROW, ...)                                                                          \
    ROW(Q8_1, q8_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q2_K, q2_k, 0, __VA_ARGS__)                                                                                    \
    ROW(Q3_K, q3_k, 0, __VA_ARGS__)                                                                                    \
    ROW(Q8_K, q8_k, 0, __VA_ARGS__)                                                                                    \
    ROW(TQ1_0, tq1_0, 0, __VA_ARGS__)                                                                                  \
    ROW(TQ2_0, tq2_0, 0, __VA_ARGS__)                                                                                  \
    ROW(Q1_0, q1_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q2_0, q2_0, 0, __VA_ARGS__)

/* GGUF's blocks. Q8_1 and Q8_K hold activations in ggml, but are blocks like any other. */
#define GATUN_GGUF_ENCODINGS(ROW, ...)                                                                                 \
    GATUN_GGUF_PANEL_ENCODINGS(ROW, __VA_ARGS__)                                                                       \
    GATUN_GGUF_SOURCE_ENCODINGS(ROW, __VA_ARGS__)

/* The blocks that `quantize` writes. */
#define GATUN_GGUF_WRITTEN_ENCODINGS(ROW, ...)                                                                         \
    ROW(Q4_0, q4_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q4_1, q4_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_0, q5_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_1, q5_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q8_0, q8_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q4_K, q4_k, 0, __VA_ARGS__)                                                                                    \
    ROW(Q6_K, q6_k, 0, __VA_ARGS__)                                                                                    \
    ROW(IQ4_NL, iq4_nl, 0, __VA_ARGS__)                                                                                \
    ROW(MXFP4, mxfp4, 0, __VA_ARGS__)                                                                                  \
    ROW(NVFP4, nvfp4, 0, __VA_ARGS__)

/* Those of them that vectors make. */
#define GATUN_GGUF_VECTOR_ENCODINGS(ROW, ...)                                                                          \
    ROW(Q4_0, q4_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q4_1, q4_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_0, q5_0, 0, __VA_ARGS__)                                                                                    \
    ROW(Q5_1, q5_1, 0, __VA_ARGS__)                                                                                    \
    ROW(Q8_0, q8_0, 0, __VA_ARGS__)                                                                                    \
    ROW(IQ4_NL, iq4_nl, 0, __VA_ARGS__)                                                                                \
    ROW(MXFP4, mxfp4, 0, __VA_ARGS__)                                                                                  \
    ROW(NVFP4, nvfp4, 0, __VA_ARGS__)

/* What the panels hold in four and in eight bits. */
#define GATUN_CODES4_ENCODINGS(ROW, ...)                                                                               \
    GATUN_4BIT_ENCODINGS(ROW, __VA_ARGS__)                                                                             \
    GATUN_NARROW_ENCODINGS(ROW, __VA_ARGS__)
#define GATUN_CODES8_ENCODINGS(ROW, ...)                                                                               \
    GATUN_F8_ENCODINGS(ROW, __VA_ARGS__)                                                                               \
    GATUN_INT8_ENCODINGS(ROW, __VA_ARGS__)                                                                             \
    GATUN_WIDE_ENCODINGS(ROW, __VA_ARGS__)

/* What has codes of its own: what `quantize` writes. */
#define GATUN_CODE_ENCODINGS(ROW, ...)                                                                                 \
    GATUN_CODES8_ENCODINGS(ROW, __VA_ARGS__)                                                                           \
    GATUN_CODES4_ENCODINGS(ROW, __VA_ARGS__)

/* What a weight can be in. */
#define GATUN_WEIGHT_ENCODINGS(ROW, ...)                                                                               \
    GATUN_PLAIN_ENCODINGS(ROW, __VA_ARGS__)                                                                            \
    GATUN_CODE_ENCODINGS(ROW, __VA_ARGS__)                                                                             \
    GATUN_GGUF_ENCODINGS(ROW, __VA_ARGS__)

/* What an integer multiply takes: all but floats. */
#define GATUN_INTEGER_ENCODINGS(ROW, ...)                                                                              \
    GATUN_INT8_ENCODINGS(ROW, __VA_ARGS__)                                                                             \
    GATUN_WIDE_ENCODINGS(ROW, __VA_ARGS__)                                                                             \
    GATUN_CODES4_ENCODINGS(ROW, __VA_ARGS__)                                                                           \
    GATUN_GGUF_ENCODINGS(ROW, __VA_ARGS__)

/* Numbers that `convert` goes to and from. */
#define GATUN_NUMBER_ENCODINGS(ROW, ...)                                                                               \
    GATUN_PLAIN_ENCODINGS(ROW, __VA_ARGS__)                                                                            \
    GATUN_F8_ENCODINGS(ROW, __VA_ARGS__)                                                                               \
    ROW(F8_E8M0, f8_e8m0, 8, __VA_ARGS__)

#endif
