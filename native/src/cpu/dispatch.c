/*
 * The one table of kernels: (operation, compute, encoding, isa) -> function. Each instruction set's list is
 * <isa>/kernels.inc; a new kernel is one row there and its declaration in kernels.h. Within a tier the first row that
 * accepts a weight runs, so special kernels stand before general ones.
 */
#include "cpu/kernels.h"
#include "encodings/list.h"

#define GATUN_ROW(OPERATION, compute, ENCODING, ISA, name, ...)                                                        \
    {.info = {GATUN_OP_##OPERATION, compute, GATUN_##ENCODING, GATUN_ISA_##ISA, name}, __VA_ARGS__},

/* What the lists are written in; the first three parameters come from the encoding lists. */
#define GATUN_LINEAR_ROW(ENCODING, encoding, bits, COMPUTE, compute, ISA, isa, function, x_layout, accepts)            \
    GATUN_ROW(LINEAR, GATUN_COMPUTE_##COMPUTE, ENCODING, ISA, "linear_" #compute "_" #encoding "__" #isa,              \
              .linear = function, .layout = &x_layout, .linear_accepts = accepts)
#define GATUN_LINEAR_SOURCE_ROW(ENCODING, encoding, bits, COMPUTE, compute, ISA, isa, function, x_layout, accepts)     \
    GATUN_ROW(LINEAR, GATUN_COMPUTE_##COMPUTE, ENCODING, ISA, "linear_" #compute "_" #encoding "__" #isa,              \
              .linear = function, .layout = &x_layout, .linear_accepts = accepts, .from_source = true)
#define GATUN_DEQUANTIZE_ROW(ENCODING, encoding, bits, ISA, isa, function, accepts)                                    \
    GATUN_ROW(DEQUANTIZE, 0, ENCODING, ISA, "dequantize_" #encoding "__" #isa, .dequantize = function,                 \
              .codec_accepts = accepts)                                                                                \
    GATUN_ROW(EMBEDDING, 0, ENCODING, ISA, "embedding_" #encoding "__" #isa, .dequantize = function,                   \
              .codec_accepts = accepts)
#define GATUN_CONVERT_ROW(ENCODING, encoding, bits, ISA, isa, function)                                                \
    GATUN_ROW(CONVERT, 0, ENCODING, ISA, "convert_" #encoding "__" #isa, .convert = function,                          \
              .deviation = gatun_deviation__##isa)
#define GATUN_QUANTIZE_ROW(ENCODING, encoding, bits, ISA, isa, function, accepts)                                      \
    GATUN_ROW(QUANTIZE, 0, ENCODING, ISA, "quantize_" #encoding "__" #isa, .quantize = function,                       \
              .codec_accepts = accepts)
#define GATUN_PACK_ROW(ENCODING, encoding, bits, ISA, isa, unused)                                                     \
    GATUN_ROW(PACK, 0, ENCODING, ISA, "pack_" #encoding "__" #isa, .linear = NULL)                                     \
    GATUN_ROW(UNPACK, 0, ENCODING, ISA, "unpack_" #encoding "__" #isa, .linear = NULL)

static const gatun_kernel_row table[] = {
#include "cpu/scalar/kernels.inc"
#if GATUN_HAVE_AVX2
#include "cpu/avx2/kernels.inc"
#endif
#if GATUN_HAVE_AVX512
#include "cpu/avx512/kernels.inc"
#endif
#if GATUN_HAVE_AMX
#include "cpu/amx/kernels.inc"
#endif
#if GATUN_HAVE_NEON
#include "cpu/neon/kernels.inc"
#endif
};
enum { ROWS = sizeof table / sizeof table[0] };

static _Thread_local int32_t last_kernel = -1;

int32_t gatun_kernel_count(void) { return ROWS; }

const gatun_kernel_row *gatun_table_row(int32_t index) { return &table[index]; }

gatun_status gatun_kernel_at(int32_t index, gatun_kernel *out) {
    if (out == NULL || index < 0 || index >= ROWS) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "kernel: found index %d, expected 0 to %d and a place for the answer",
                          index, ROWS - 1);
    }
    *out = table[index].info;
    return GATUN_OK;
}

/* The tier to try after this one; 0: none. */
static int32_t tier_below(int32_t isa) {
    switch (isa) {
    case GATUN_ISA_AMX:
        return GATUN_ISA_AVX512;
    case GATUN_ISA_AVX512:
        return GATUN_ISA_AVX2;
    case GATUN_ISA_AVX2:
    case GATUN_ISA_NEON:
        return GATUN_ISA_SCALAR;
    default:
        return 0;
    }
}

static bool accepts(const gatun_kernel_row *row, const gatun_packed *packed, int64_t rows, const gatun_matrix *matrix) {
    bool linear = packed == NULL ||
                  (row->layout->least_rows <= rows && (row->linear_accepts == NULL || row->linear_accepts(packed)));
    return linear && (matrix == NULL || row->codec_accepts == NULL || row->codec_accepts(matrix));
}

static int32_t find(int32_t operation, int32_t compute, int32_t encoding, int32_t isa, const gatun_packed *packed,
                    int64_t rows, const gatun_matrix *matrix) {
    for (int32_t tier = isa; tier != 0; tier = tier_below(tier)) {
        for (int32_t i = 0; i < ROWS; i++) {
            const gatun_kernel *k = &table[i].info;
            if (k->isa == tier && k->encoding == encoding && k->operation == operation && k->compute == compute &&
                accepts(&table[i], packed, rows, matrix)) {
                return i;
            }
        }
    }
    return -1;
}

int32_t gatun_kernel_find(int32_t operation, int32_t compute, int32_t encoding, int32_t isa) {
    int32_t resolved;
    if (gatun_isa_resolve(isa, &resolved) != GATUN_OK) {
        return -1;
    }
    return find(operation, compute, encoding, resolved, NULL, 0, NULL);
}

int32_t gatun_kernel_choose(int32_t operation, int32_t compute, int32_t encoding, int32_t isa,
                            const gatun_packed *packed, int64_t rows, const gatun_matrix *matrix) {
    int32_t index = find(operation, compute, encoding, isa, packed, rows, matrix);
    if (index < 0) {
        const char *name = gatun_encoding_name(encoding);
        gatun_fail(GATUN_UNSUPPORTED, "no kernel for operation %d of %s with compute %d", operation,
                   name == NULL ? "an unknown encoding" : name, compute);
    }
    return index;
}

int32_t gatun_last_kernel(void) { return last_kernel; }

void gatun_set_last_kernel(int32_t index) { last_kernel = index; }
