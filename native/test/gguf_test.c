/*
 * GGUF's blocks on one instruction set: every decoder bit for bit as the definition over random bytes (scales that are
 * NaN, infinite or subnormal included), parts of rows, strides, 16-bit outputs and a factor; blocks that are quantized
 * are near what they were made of, whatever the threads. Usage: gguf_test <isa>; exit code 77 when this machine lacks
 * it.
 */
#include <math.h>

#include "encodings/codes.h"
#include "matrices.h"

#define GGUF_ENTRY(ENCODING, name, bits, unused) GATUN_##ENCODING,
static const int32_t blocks[] = {GATUN_GGUF_ENCODINGS(GGUF_ENTRY, 0)};
static const int32_t written[] = {GATUN_GGUF_WRITTEN_ENCODINGS(GGUF_ENTRY, 0)};

static int32_t isa;

/* Equal bits; NaN is NaN. */
static bool same(int32_t type, const uint8_t *a, const uint8_t *b, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float x = gatun_plain_get(type, a, i), y = gatun_plain_get(type, b, i);
        if (gatun_float_bits(x) != gatun_float_bits(y) && !(isnan(x) && isnan(y))) {
            return false;
        }
    }
    return true;
}

static void decodes_as_the_definition(random_state *r, int32_t encoding, float factor) {
    const gatun_block *block = gatun_gguf_block(encoding);
    const char *name = gatun_encoding_name(encoding);
    int64_t across = 1 + random_below(r, 5), rows = 1 + random_below(r, 6), k = across * block->elements;
    int64_t stride = random_below(r, 2) == 0 ? 0 : across * block->bytes + random_below(r, 7);
    int64_t size = (rows - 1) * (stride != 0 ? stride : across * block->bytes) + across * block->bytes;
    uint8_t *codes = (uint8_t *)buffer(size, 0);
    for (int64_t i = 0; i < size; i++) {
        codes[i] = (uint8_t)random_bits(r);
    }
    gatun_matrix m = {.n = rows,
                      .k = k,
                      .encoding = encoding,
                      .code_row_stride = stride,
                      .codes = codes,
                      .codes_size = size,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32,
                      .global_scale = factor};
    for (int32_t type = GATUN_F32; type <= GATUN_BF16; type++) {
        uint8_t *expected = (uint8_t *)buffer(rows * k * 4, 0), *found = (uint8_t *)buffer(rows * k * 4, 1);
        CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, 0, rows, expected, type, k, GATUN_ISA_SCALAR, 1));
        CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, 0, rows, found, type, k, isa, 2));
        CHECK(same(type, expected, found, rows * k), "%s as type %d", name, type);
        int32_t index = gatun_kernel_find(GATUN_OP_DEQUANTIZE, 0, encoding, isa);
        CHECK(index == gatun_last_kernel(), "%s ran kernel %d, not %d", name, gatun_last_kernel(), index);
        int64_t first = random_below(r, k), count = 1 + random_below(r, k - first);
        const gatun_kernel_row *row = gatun_table_row(index);
        row->dequantize(&m, rows - 1, first, count, found, type);
        int64_t at = ((rows - 1) * k + first) * gatun_plain_size(type);
        CHECK(same(type, expected + at, found, count), "%s from %lld", name, (long long)first);
        free(expected);
        free(found);
    }
    free(codes);
}

/* Any bytes are packed and unpacked as they are, and what is packed decodes as the definition has it. */
static void packs(random_state *r, int32_t encoding) {
    const gatun_block *block = gatun_gguf_block(encoding);
    const char *name = gatun_encoding_name(encoding);
    int64_t across = 1 + random_below(r, 3), rows = 1 + random_below(r, 70), k = across * block->elements;
    int64_t size = rows * across * block->bytes, bytes = 0;
    uint8_t *codes = (uint8_t *)buffer(size, 0), *back = (uint8_t *)buffer(size, 0x5A);
    for (int64_t i = 0; i < size; i++) {
        codes[i] = (uint8_t)random_bits(r);
    }
    gatun_matrix m = {.n = rows,
                      .k = k,
                      .encoding = encoding,
                      .codes = codes,
                      .codes_size = size,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32,
                      .global_scale = 1};
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &bytes));
    void *packed = buffer(bytes, 0xA5);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, bytes, 2));
    CHECK_STATUS(GATUN_OK, gatun_packed_check(packed, bytes));
    float *expected = (float *)buffer(4 * k, 0), *found = (float *)buffer(4 * k, 0);
    for (int64_t row = 0; row < rows; row++) {
        gatun_row_values(&m, row, 0, k, false, expected);
        gatun_packed_values((const gatun_packed *)packed, row, 0, k, false, found);
        CHECK(same(GATUN_F32, (const uint8_t *)expected, (const uint8_t *)found, k), "%s: other values packed", name);
    }
    m.codes = back;
    CHECK_STATUS(GATUN_OK, gatun_unpack(packed, bytes, &m));
    CHECK(memcmp(codes, back, (size_t)size) == 0, "%s: other bytes unpacked", name);
    free(codes);
    free(back);
    free(packed);
    free(expected);
    free(found);
}

static void quantizes(random_state *r, int32_t encoding) {
    const gatun_block *block = gatun_gguf_block(encoding);
    const char *name = gatun_encoding_name(encoding);
    int64_t rows = 7, k = 3 * block->elements, ldw = k + 5, size = rows * 3 * block->bytes;
    float *w = (float *)buffer(rows * ldw * 4, 0), *back = (float *)buffer(rows * k * 4, 0);
    for (int64_t i = 0; i < rows * ldw; i++) {
        w[i] = i / ldw == 3 ? 0.0f : random_float(r);
    }
    uint8_t *one = (uint8_t *)buffer(size, 1), *many = (uint8_t *)buffer(size, 2);
    gatun_matrix m = {.n = rows,
                      .k = k,
                      .encoding = encoding,
                      .codes = one,
                      .codes_size = size,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    gatun_quantize_rule rule = {.arithmetic = GATUN_F32};
    CHECK_STATUS(GATUN_OK, gatun_quantize(&m, &rule, w, GATUN_F32, ldw, GATUN_ISA_SCALAR, 1));
    m.codes = many;
    CHECK_STATUS(GATUN_OK, gatun_quantize(&m, &rule, w, GATUN_F32, ldw, isa, 3));
    CHECK(memcmp(one, many, (size_t)size) == 0, "%s: other bytes", name);
    CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, 0, rows, back, GATUN_F32, k, isa, 1));
    double noise = 0, signal = 0;
    for (int64_t i = 0; i < rows * k; i++) {
        float v = w[i / k * ldw + i % k];
        noise += (double)(v - back[i]) * (v - back[i]);
        signal += (double)v * v;
    }
    CHECK(noise < 0.02 * signal, "%s: relative error %g", name, sqrt(noise / signal));
    free(w);
    free(back);
    free(one);
    free(many);
}

/* Numbers that are hard to quantize, a kind a row: ties of magnitude, steps and halves between them, zeros of both
 * signs, subnormals, numbers near the largest ones, just below powers of two, infinities, NaN. */
static float hard_number(random_state *r, int64_t kind) {
    float v = random_float(r), step = (float)random_below(r, 16) - 8;
    switch (kind) {
    case 0:
        return v;
    case 1:
        return gatun_bf16_to_float(gatun_float_to_bf16(v));
    case 2:
        return step;
    case 3:
        return step + 0.5f;
    case 4:
        return random_below(r, 2) == 0 ? 0.0f : -0.0f;
    case 5:
        return v * 0x1p-130f;
    case 6:
        return v * 0x1p125f;
    case 7:
        return nextafterf(ldexpf(1, (int)random_below(r, 8) - 4), 0) * (random_below(r, 2) == 0 ? 1.0f : -1.0f);
    case 8:
        return random_below(r, 20) == 0 ? INFINITY : v;
    case 9:
        return random_below(r, 20) == 0 ? NAN : v;
    case 10:
        return fabsf(v) + 1;
    case 11:
        return (float)((int32_t)random_below(r, 255) - 127) / 127 * 0.75f;
    default:
        return random_below(r, 8) == 0 ? v * 0x1p20f : v;
    }
}

static void quantizes_as_the_definition(random_state *r, int32_t encoding, int32_t type) {
    enum { KINDS = 13 };
    const gatun_block *block = gatun_gguf_block(encoding);
    int64_t across = 1 + random_below(r, 3), k = across * block->elements, ldw = k + random_below(r, 9);
    int64_t stride = across * block->bytes + random_below(r, 5), size = KINDS * stride;
    float *from = (float *)buffer(KINDS * ldw * 4, 0);
    for (int64_t i = 0; i < KINDS * ldw; i++) {
        from[i] = hard_number(r, i / ldw);
    }
    int64_t w_size = ((KINDS - 1) * ldw + k) * gatun_plain_size(type);
    guarded w = guard(w_size), codes = guard(size - stride + across * block->bytes);
    CHECK_STATUS(GATUN_OK, gatun_convert(from, GATUN_F32, w.data, type, (KINDS - 1) * ldw + k, 0, GATUN_ISA_SCALAR, 1));
    uint8_t *expected = (uint8_t *)buffer(size, 0);
    gatun_matrix m = {.n = KINDS,
                      .k = k,
                      .encoding = encoding,
                      .code_row_stride = stride,
                      .codes = expected,
                      .codes_size = codes.size,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    gatun_quantize_rule rule = {.arithmetic = GATUN_F32};
    CHECK_STATUS(GATUN_OK, gatun_quantize(&m, &rule, w.data, type, ldw, GATUN_ISA_SCALAR, 1));
    m.codes = codes.data;
    CHECK_STATUS(GATUN_OK, gatun_quantize(&m, &rule, w.data, type, ldw, isa, 1 + (int32_t)random_below(r, 2)));
    CHECK(gatun_kernel_find(GATUN_OP_QUANTIZE, 0, encoding, isa) == gatun_last_kernel(), "another kernel ran");
    for (int64_t row = 0; row < KINDS; row++) {
        CHECK(memcmp(expected + row * stride, (uint8_t *)codes.data + row * stride, (size_t)(across * block->bytes)) ==
                  0,
              "%s: other bytes of numbers of kind %lld, type %d", gatun_encoding_name(encoding), (long long)row, type);
    }
    free(from);
    free(expected);
    unguard(&w);
    unguard(&codes);
}

/* The kernels read scales of panels by themselves: here every one of a byte, subnormal and infinite products too. */
static void multiplies_by_every_scale(void) {
    enum { ROWS = 256, BYTES = 17, K = 32 };
    uint8_t codes[ROWS * BYTES];
    float x[K] = {[5] = 1}, expected[ROWS * K], y[ROWS];
    memset(codes, 0, sizeof codes);
    for (int32_t row = 0; row < ROWS; row++) {
        codes[row * BYTES] = (uint8_t)row;
        codes[row * BYTES + 1 + 5] = 7; /* six */
    }
    gatun_matrix m = {.n = ROWS,
                      .k = K,
                      .encoding = GATUN_MXFP4,
                      .codes = codes,
                      .codes_size = sizeof codes,
                      .global_scale = 1,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, 0, ROWS, expected, GATUN_F32, K, GATUN_ISA_SCALAR, 1));
    int64_t size, bytes;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *packed = buffer(size, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, size, 1));
    CHECK_STATUS(GATUN_OK, gatun_linear_workspace(packed, size, 1, GATUN_COMPUTE_F32, 1, &bytes));
    void *workspace = buffer(bytes, 0);
    CHECK_STATUS(GATUN_OK, gatun_linear(packed, size, x, GATUN_F32, K, 1, y, GATUN_F32, ROWS, NULL, NULL, 0, 0, NULL, 0,
                                        GATUN_COMPUTE_F32, isa, 1, workspace, bytes));
    for (int32_t row = 0; row < ROWS; row++) {
        CHECK(y[row] == expected[row * K + 5], "scale %d: found %g, expected %g", row, (double)y[row],
              (double)expected[row * K + 5]);
    }
    free(workspace);
    free(packed);
}

int main(int argc, char **argv) {
    for (isa = GATUN_ISA_SCALAR; argc > 1 && isa <= GATUN_ISA_NEON && strcmp(gatun_isa_name(isa), argv[1]) != 0;
         isa++) {
    }
    if (gatun_isa_check(isa) != GATUN_OK) {
        printf("skipped: %s\n", gatun_last_error());
        return SKIPPED;
    }
    multiplies_by_every_scale();
    random_state r = {.seed = 11};
    for (int32_t round = 0; round < 40; round++) {
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
            decodes_as_the_definition(&r, blocks[i], round % 4 == 3 ? 0.75f : (float)(round & 1));
            packs(&r, blocks[i]);
        }
    }
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        quantizes(&r, written[i]);
        for (int32_t round = 0; round < 60; round++) {
            quantizes_as_the_definition(&r, written[i],
                                        round % 4 == 0   ? GATUN_F16
                                        : round % 4 == 1 ? GATUN_BF16
                                                         : GATUN_F32);
        }
    }
    return finish();
}
