/*
 * gatun.h: the whole CPU ABI of Gatun, kernels for quantized inference.
 *
 * Rules that hold for every function here:
 *  - Fixed-width types only. Every function that can fail returns a gatun_status; gatun_last_error() then holds one
 *    line of detail for the calling thread.
 *  - The caller owns every byte. Nothing is allocated on the data path; sizes are asked for, buffers are handed in.
 *  - Nothing here ends the process. There is no mutable global state but the thread pool.
 *  - x is M x K, W is N x K, y is M x N, all row-major; y = x * W^T + bias.
 *
 * The Java bindings are generated from this file (see bindings/README.md): any change here is followed by a new run.
 */
#ifndef GATUN_H
#define GATUN_H

#include <stdint.h>

#if defined(__GNUC__)
#define GATUN_API __attribute__((visibility("default")))
#else
#define GATUN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a signature, a struct, a number below or the packed form changes its meaning. */
#define GATUN_ABI_VERSION 1

typedef int32_t gatun_status;
enum {
    GATUN_OK = 0,
    GATUN_INVALID_ARGUMENT = 1, /* a null pointer, a negative size, a number out of range */
    GATUN_UNSUPPORTED = 2,      /* no kernel in the table does this */
    GATUN_NO_ISA = 3,           /* the machine lacks the instruction set that was asked for */
    GATUN_BUFFER_TOO_SMALL = 4, /* codes, scales, workspace, packed block or output is shorter than the shape needs */
    GATUN_CORRUPT = 5,          /* a packed block whose header does not hold together */
    GATUN_OUT_OF_MEMORY = 6,
    GATUN_NO_DEVICE = 7,
    GATUN_INTERNAL = 8
};

/* How one number or one weight code is stored. */
typedef int32_t gatun_encoding;
enum {
    GATUN_NONE = 0,
    /* plain numbers */
    GATUN_F32 = 1,
    GATUN_F16 = 2,
    GATUN_BF16 = 3,
    /* 8-bit floats */
    GATUN_F8_E4M3 = 16, /* e4m3fn: no infinities, 0x7F and 0xFF are NaN */
    GATUN_F8_E5M2 = 17,
    GATUN_F8_E4M3FNUZ = 18,
    GATUN_F8_E5M2FNUZ = 19,
    GATUN_F8_E8M0 = 20, /* scales only: 2^(code-127), 0xFF is NaN */
    /* 8-bit integers */
    GATUN_I8 = 32,
    GATUN_U8 = 33,
    /* Unsigned codes of few bits, 0 .. 2^bits-1; signed ones are these with a zero point. */
    GATUN_U1 = 40,
    GATUN_U2 = 41,
    GATUN_U3 = 42,
    GATUN_U5 = 43,
    GATUN_U6 = 44,
    GATUN_U7 = 45,
    GATUN_I2 = 46, /* two's complement, -2..1 */
    /* 4-bit codes: each is a row of the codebook table */
    GATUN_I4 = 48, /* two's complement nibble, -8..7 */
    GATUN_U4 = 49, /* 0..15 */
    GATUN_NF4 = 50,
    GATUN_FP4 = 51, /* bitsandbytes' FP4, not E2M1 */
    GATUN_F4_E2M1 = 52,
    /* GGUF's self-contained blocks (codes and scales together): 128 + ggml's type number */
    GATUN_Q4_0 = 130,
    GATUN_Q4_1 = 131,
    GATUN_Q5_0 = 134,
    GATUN_Q5_1 = 135,
    GATUN_Q8_0 = 136,
    GATUN_Q8_1 = 137,
    GATUN_Q2_K = 138,
    GATUN_Q3_K = 139,
    GATUN_Q4_K = 140,
    GATUN_Q5_K = 141,
    GATUN_Q6_K = 142,
    GATUN_Q8_K = 143,
    GATUN_IQ4_NL = 148,
    GATUN_IQ4_XS = 151,
    GATUN_TQ1_0 = 162,
    GATUN_TQ2_0 = 163,
    GATUN_MXFP4 = 167,
    GATUN_NVFP4 = 168,
    GATUN_Q1_0 = 169,
    GATUN_Q2_0 = 170
};

/*
 * How the codes lie. b is the encoding's bits, w = 32 / b (rounded down) the codes of a 32-bit word. Code i of a byte
 * or word is at bits b*i unless said otherwise. code_row_stride counts from one row of codes to the next, for
 * TILES_8X16 from one row of tiles; WORDS_K, WORDS_N and SPLIT_ROWS have none.
 */
enum {
    GATUN_ORDER_LOW_FIRST =
        0, /* row-major stream of bytes, 8 / b codes each (whole bytes for 8 bits, blocks for GGUF) */
    GATUN_ORDER_HIGH_FIRST = 1, /* the same, first code of a byte in its highest bits (4 bits only) */
    GATUN_ORDER_BITS = 2,       /* each row a little-endian stream of bits: code k at bits b*k (MLX) */
    GATUN_ORDER_WORDS = 3,      /* each row 32-bit words of w codes along K (compressed-tensors) */
    GATUN_ORDER_WORDS_K = 4,    /* words of w codes along K stored [ceil(K/w)][N]; 3 bits: 32 codes in 3 words (GPTQ) */
    GATUN_ORDER_WORDS_N = 5,    /* words of 8 codes along N stored [K][N/8], columns in slots 0,4,1,5,2,6,3,7 (AWQ) */
    GATUN_ORDER_SPLIT_ROWS = 6, /* the rows of the [N*K/c, c] view, c = block_cols, split in 8/b runs; one code of each
                                   run shares a byte, the first run in the lowest bits (quanto) */
    GATUN_ORDER_TILES_8X16 = 7  /* tensor-core tiles of 8 rows and 16 columns (torchao's tile-packed int4) */
};

/* How the scales lie, and in what order they are multiplied by. */
enum {
    GATUN_SCALES_STRIDED = 0,
    GATUN_SCALES_BLOCKED_128X4 = 1, /* cuBLAS tiles: 128 rows x 4 scales in 512 bytes (ComfyUI's nvfp4 and mxfp8) */
    GATUN_SCALES_THEN_GLOBAL = 2    /* strided; the code times its own scale is rounded to `arithmetic` before it is
                                       multiplied by global_scale (bitsandbytes' LLM.int8()) */
};

enum {
    GATUN_OP_QUANTIZE = 1,
    GATUN_OP_DEQUANTIZE = 2,
    GATUN_OP_PACK = 3,
    GATUN_OP_UNPACK = 4,
    GATUN_OP_LINEAR = 5,
    GATUN_OP_EMBEDDING = 6,
    GATUN_OP_CONVERT = 7
};

/* What the multiply of `linear` is done in. */
enum {
    GATUN_COMPUTE_F32 = 1,     /* weights dequantized exactly, float products and sums */
    GATUN_COMPUTE_BF16 = 2,    /* x and dequantized weight rounded to bfloat16, float sums */
    GATUN_COMPUTE_I8 = 3,      /* x quantized per row (absmax/127, ties to even), integer products per scale block */
    GATUN_COMPUTE_I8_BLOCK = 4 /* the same, but x quantized per 32 consecutive k, as ggml's engine does */
};

/* What `linear` does with a sum before it is stored: y = combine(activation(x * W^T + bias), other). */
enum {
    GATUN_ACTIVATION_NONE = 0,
    GATUN_ACTIVATION_GELU = 1,      /* v * (1 + erf(v / sqrt 2)) / 2 */
    GATUN_ACTIVATION_GELU_TANH = 2, /* its tanh approximation */
    GATUN_ACTIVATION_SILU = 3       /* v / (1 + exp(-v)) */
};
enum { GATUN_COMBINE_NONE = 0, GATUN_COMBINE_ADD = 1, GATUN_COMBINE_MULTIPLY = 2 };

enum {
    GATUN_ISA_BEST = 0,
    GATUN_ISA_SCALAR = 1,
    GATUN_ISA_AVX2 = 2,
    GATUN_ISA_AVX512 = 3,
    GATUN_ISA_AMX = 4,
    GATUN_ISA_NEON = 5
};

/*
 * One weight matrix as it lies in memory: all that is needed to dequantize it. Filled once, at load time.
 *
 *   value(n, k) = round_result( round_arith( (decode(code) - zero) * scale' ) + offset )
 *
 * scale' is the scale rounded to `arithmetic`; the product and the sum are each rounded to `arithmetic` (F32, F16 or
 * BF16, as the format's own library computes), the result once more to `result`. The offset step is skipped when there
 * are no offsets.
 *
 * With row_scales (ComfyUI's asym_w4a8_int8) the product is rounded to an integer, ties to even, clamped to +-127,
 * multiplied by row_scales[n], and that rounded to `result`. With a rotation (ComfyUI's convrot) each run of G values
 * is then multiplied by H = kron(H4, H4, ...) / sqrt(G), H4 = [[1,1,1,-1],[1,1,-1,1],[1,-1,1,1],[-1,1,1,1]], its sums
 * made in double and rounded to float, before `result`. GGUF's blocks carry their own scales: everything but n, k,
 * codes, code_row_stride, arithmetic (F32) and result is unset.
 *
 * Granularity: with flat_block != 0, one scale per flat_block consecutive elements of the flattened row-major tensor
 * (rows may straddle a block) at index (n*K + k) / flat_block. Otherwise one scale per block_rows x block_cols tile, at
 * index (n / block_rows) * scale_row_stride + (k / block_cols) * scale_col_stride (in elements). Per tensor is a tile
 * of N x K, per channel 1 x K, per group 1 x g. Zeros and offsets use the same index.
 *
 * Nested scales (scale_type U8 with nested_codebook): scale = nested_codebook[u8] * nested_scales[index/nested_block]
 * + nested_offset, multiply and add rounded separately to float.
 */
typedef struct gatun_matrix {
    int64_t n; /* rows: output features */
    int64_t k; /* columns: input features */
    int32_t encoding;
    int32_t code_order;      /* GATUN_ORDER_* */
    int64_t code_row_stride; /* bytes from a row of codes to the next; 0: the flattened code stream, no padding */
    void *codes;
    int64_t codes_size; /* bytes */
    int32_t scale_type; /* F32, F16, BF16, F8_E4M3, F8_E8M0, U8 (nested), or NONE: every scale is 1 */
    int32_t zero_type;  /* I8, U8, F32, F16, BF16 or NONE: zero_point holds for every code */
    void *scales;
    int64_t scales_size; /* bytes */
    void *zeros;
    int64_t zeros_size;
    void *offsets; /* added after scaling */
    int64_t offsets_size;
    int32_t offset_type; /* F32, F16, BF16 or NONE */
    int32_t offset_sign; /* +1 or -1: whether the stored offset is added or subtracted */
    int64_t block_rows;
    int64_t block_cols;
    int64_t flat_block;
    int64_t scale_row_stride;
    int64_t scale_col_stride;
    const float *nested_codebook; /* 256 floats */
    const float *nested_scales;
    int64_t nested_scales_size; /* bytes */
    int64_t nested_block;
    float nested_offset;
    float global_scale; /* multiplies every scale (rounded to `arithmetic`); 1 when the format has none */
    int32_t zero_point;
    int32_t arithmetic;  /* F32, F16 or BF16 */
    int32_t result;      /* F32, F16 or BF16 */
    int32_t scale_order; /* GATUN_SCALES_* */
    /* What few formats have; null or 0 where there is none. */
    const float *codebook;        /* 2^bits floats: what a code means, instead of the encoding's own values */
    int64_t codebook_size;        /* bytes */
    const int32_t *column_groups; /* K numbers: the scale column of each k, instead of k / block_cols (GPTQ's g_idx) */
    int64_t column_groups_size;   /* bytes */
    const float *row_scales;      /* N floats: see `value` */
    int64_t row_scales_size;      /* bytes */
    int64_t rotation; /* G, a power of 4: each G values of a row are multiplied by the Hadamard matrix H_G */
} gatun_matrix;

/*
 * How `quantize` gets from numbers to codes, as the format's own library does it. Everything is done in `arithmetic`,
 * each operation rounded to it.
 *
 *   scale = max(absmax / divisor, scale_floor)           unless keep_scales: then the scales are read, not written
 *   code  = encode( clamp( reciprocal ? v * (1/scale) : v / scale, code_min, code_max ) )
 *
 * Integers round to nearest even, floats by their own cast; NF4 and FP4 by bitsandbytes' thresholds on v * (1/scale).
 */
typedef struct gatun_quantize_rule {
    int32_t arithmetic; /* F32, F16 or BF16 */
    int32_t reciprocal; /* 1: multiply by the rounded reciprocal; 0: divide */
    float divisor;      /* 127, 448, 1 ... */
    float scale_floor;  /* 0: none */
    float code_min;
    float code_max;
    int32_t keep_scales; /* 1: use the scales in the matrix */
    int32_t zero_code;   /* code for every element of a block whose scale is 0; -1: encode the quotient, NaN included */
} gatun_quantize_rule;

/* One row of the kernel table. */
typedef struct gatun_kernel {
    int32_t operation;
    int32_t compute; /* GATUN_COMPUTE_*; 0 where the operation has none */
    int32_t encoding;
    int32_t isa;
    const char *name; /* <operation>_<activation>_<weight>__<isa>, a static string */
} gatun_kernel;

/* ---- library ---- */
GATUN_API int32_t gatun_abi_version(void);
GATUN_API const char *gatun_version(void);
GATUN_API const char *gatun_status_string(gatun_status status);
/* One line about the calling thread's last failure; never null, empty when there was none. Valid until its next call.
 */
GATUN_API const char *gatun_last_error(void);

/* ---- processor and kernels ---- */
/* Space-separated features found through CPUID and XGETBV, or HWCAP; a static string. */
GATUN_API const char *gatun_cpu_features(void);
/* OK, or GATUN_NO_ISA with the missing features in gatun_last_error(). */
GATUN_API gatun_status gatun_isa_check(int32_t isa);
GATUN_API const char *gatun_isa_name(int32_t isa);
/* The ISA that GATUN_ISA_BEST means: the environment's GATUN_ISA if set, else the best one; fails on an unknown name
 * or an ISA that this machine lacks. */
GATUN_API gatun_status gatun_isa_default(int32_t *isa);
GATUN_API int32_t gatun_kernel_count(void);
GATUN_API gatun_status gatun_kernel_at(int32_t index, gatun_kernel *out);
/* The table index of the kernel that would run on `isa`, or the best tier below it; -1 when there is none. */
GATUN_API int32_t gatun_kernel_find(int32_t operation, int32_t compute, int32_t encoding, int32_t isa);
/* The table index of the kernel that the calling thread's last operation ran; -1 before the first. */
GATUN_API int32_t gatun_last_kernel(void);

/* ---- threads: one pool ---- */
/* Sets the number of threads (the caller's included) that an operation may use, 1..1024, and the spin time in
 * microseconds before an idle thread sleeps. Waits for running operations. */
GATUN_API gatun_status gatun_threads_set(int32_t threads, int32_t spin_us);
GATUN_API int32_t gatun_threads(void);

/* ---- codecs: bit-exact on every ISA ---- */
/* In all of them `isa` is GATUN_ISA_BEST or one tier, `threads` 0 (the pool's size) or a number. */

/* dst[i] = src[i] between F32, F16, BF16 and the 8-bit floats. Rounds to nearest even. saturate: 1 clamps finite and
 * infinite values to the target's largest finite one (8-bit floats only), 0 converts as PyTorch's cast does. */
GATUN_API gatun_status gatun_convert(const void *src, int32_t src_type, void *dst, int32_t dst_type, int64_t count,
                                     int32_t saturate, int32_t isa, int32_t threads);
/* Rows row0 .. row0+rows-1 as out_type (F32, F16, BF16); ld: elements from one output row to the next, >= K. */
GATUN_API gatun_status gatun_dequantize(const gatun_matrix *matrix, int64_t row0, int64_t rows, void *out,
                                        int32_t out_type, int64_t ld, int32_t isa, int32_t threads);
/* Row ids[i] to output row i. An id outside 0..N-1 is GATUN_INVALID_ARGUMENT and nothing is written. */
GATUN_API gatun_status gatun_embedding(const gatun_matrix *matrix, const int64_t *ids, int64_t count, void *out,
                                       int32_t out_type, int64_t ld, int32_t isa, int32_t threads);
/* Fills matrix->codes and, unless keep_scales, matrix->scales (F32, F16 or BF16) from the N x K numbers w. */
GATUN_API gatun_status gatun_quantize(const gatun_matrix *matrix, const gatun_quantize_rule *rule, const void *w,
                                      int32_t w_type, int64_t ldw, int32_t isa, int32_t threads);

/* How far a matrix is from the numbers that it was made of. Of `rows` rows from row0 on, W' as dequantize gives it in
 * F32, w the same rows of numbers (F32, F16 or BF16, ldw elements apart):
 *   sums[0] = sum of w^2, sums[1] = sum of (w' - w)^2, sums[2] = the largest |w' - w|, of NaN too
 * in doubles, the first two to 1e-6 of themselves. Runs on the calling thread: whoever has many rows calls it from
 * several, and adds in an order of its own.
 */
GATUN_API gatun_status gatun_deviation(const gatun_matrix *matrix, int64_t row0, int64_t rows, const void *w,
                                       int32_t w_type, int64_t ldw, double *sums, int32_t isa);

/* ---- packed weights ---- */
/* A packed weight is one block: self-describing, relocatable, 64-byte aligned. */
GATUN_API gatun_status gatun_packed_size(const gatun_matrix *matrix, int64_t *size);
GATUN_API gatun_status gatun_pack(const gatun_matrix *matrix, void *packed, int64_t packed_size, int32_t threads);
/* Checks the header against the block's size: what a block mapped from disk must pass before it is used. */
GATUN_API gatun_status gatun_packed_check(const void *packed, int64_t packed_size);
/* Whether a block, from another process for one, is what gatun_pack makes of such a matrix: GATUN_OK when its header is
 * the same to the last bit. Codes and scales are compared with nothing. */
GATUN_API gatun_status gatun_packed_is(const gatun_matrix *matrix, const void *packed, int64_t packed_size);
/* Raised whenever a block means something else than before: those that were written to disk are then of no use. */
GATUN_API int32_t gatun_packed_version(void);
/* Memory for packed weights and other large blocks: zeros, 64-byte aligned, on large pages where the system has them,
 * which are read faster. It is given back with its size. Not for the data path. */
GATUN_API gatun_status gatun_memory_allocate(int64_t size, void **memory);
GATUN_API gatun_status gatun_memory_free(void *memory, int64_t size);
/* The inverse of pack, bit for bit: writes codes, scales, zeros, offsets and nested parts into the buffers of `out`,
 * whose description (shape, encoding, orders, types, granularity) must be the one that was packed. */
GATUN_API gatun_status gatun_unpack(const void *packed, int64_t packed_size, const gatun_matrix *out);

/* ---- linear ---- */
/* Bytes of 64-byte-aligned scratch that gatun_linear needs for up to m rows. */
GATUN_API gatun_status gatun_linear_workspace(const void *packed, int64_t packed_size, int64_t m, int32_t compute,
                                              int32_t threads, int64_t *size);
/*
 * y = combine(activation(x' * W^T + bias), other) with x'[m][k] = x[m][k] * x_multiplier[k].
 *
 * ldx, ldy and ld_other in elements; x_type and y_type F32, F16 or BF16. bias: N floats or null. x_multiplier: K floats
 * or null. other: M x N numbers of y_type, or null with GATUN_COMBINE_NONE; it may be y itself (same address and
 * stride). y must not overlap x. Same machine, thread count and input: same bits.
 */
GATUN_API gatun_status gatun_linear(const void *packed, int64_t packed_size, const void *x, int32_t x_type, int64_t ldx,
                                    int64_t m, void *y, int32_t y_type, int64_t ldy, const float *bias,
                                    const float *x_multiplier, int32_t activation, int32_t combine, const void *other,
                                    int64_t ld_other, int32_t compute, int32_t isa, int32_t threads, void *workspace,
                                    int64_t workspace_size);

/* ---- grouped linear: runs of rows, each with a weight of its own (mixture of experts) ---- */

/* One of the weights. */
typedef struct gatun_expert {
    const void *packed;
    int64_t packed_size;
    const float *bias;         /* N floats or null */
    const float *x_multiplier; /* K floats or null */
} gatun_expert;

/* Bytes of 64-byte-aligned scratch that gatun_linear_grouped needs for these offsets. */
GATUN_API gatun_status gatun_linear_grouped_workspace(const gatun_expert *experts, int64_t count,
                                                      const int64_t *offsets, int32_t compute, int32_t threads,
                                                      int64_t *size);
/*
 * gatun_linear of rows offsets[e] .. offsets[e+1]-1 of x, y and other with expert e, for all of them at once: threads
 * share the pieces of all experts. Every row comes out as gatun_linear of its expert's rows gives it, bit for bit.
 *
 * offsets: count + 1 numbers from 0 on, none smaller than the one before; the last is M. Experts without rows are not
 * looked at by kernels, but all must have the same N and K.
 */
GATUN_API gatun_status gatun_linear_grouped(const gatun_expert *experts, int64_t count, const int64_t *offsets,
                                            const void *x, int32_t x_type, int64_t ldx, void *y, int32_t y_type,
                                            int64_t ldy, int32_t activation, int32_t combine, const void *other,
                                            int64_t ld_other, int32_t compute, int32_t isa, int32_t threads,
                                            void *workspace, int64_t workspace_size);

/* ---- static activations: layers whose scales were found by calibration ---- */
/*
 * Rounds rows x columns numbers with a scale that is known beforehand:
 *
 *   y = code * scale,  code = encode(clamp(reciprocal ? v * (1/scale) : v / scale)),  v = x[r][c] * x_multiplier[c]
 *
 * v, 1/scale and the quotient are each rounded to x_type; codes are clamped to -128 .. 127 or to the 8-bit float's
 * largest finite number, so that infinity becomes that; NaN stays NaN. encoding: I8 or an 8-bit float. scale > 0.
 * x_multiplier: `columns` floats or null. y may be x when type and stride are the same.
 */
GATUN_API gatun_status gatun_round_static(const void *x, int32_t x_type, int64_t ldx, int64_t rows, int64_t columns,
                                          const float *x_multiplier, void *y, int32_t y_type, int64_t ldy,
                                          int32_t encoding, float scale, int32_t reciprocal, int32_t isa,
                                          int32_t threads);
/*
 * gatun_linear with GATUN_COMPUTE_I8 on an x of multiples of x_scale, at most 128 of them, as gatun_round_static gives
 * it: every row's scale is x_scale instead of absmax/127, and no row is looked at to find it.
 */
GATUN_API gatun_status gatun_linear_static(const void *packed, int64_t packed_size, const void *x, int32_t x_type,
                                           int64_t ldx, float x_scale, int64_t m, void *y, int32_t y_type, int64_t ldy,
                                           const float *bias, int32_t activation, int32_t combine, const void *other,
                                           int64_t ld_other, int32_t isa, int32_t threads, void *workspace,
                                           int64_t workspace_size);

#ifdef __cplusplus
}
#endif

#endif
