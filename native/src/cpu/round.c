/*
 * round: y = code * scale with code = encode(clamp(x * multiplier / scale)), the rounding of a calibrated layer.
 *
 * A piece of a row is widened to floats, quantized and dequantized as if it were a weight of one row and one scale, by
 * the codec kernels of the instruction set. Pieces are read whole before they are written: y may be x.
 */
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "encodings/numbers.h"

enum { PIECE = 2048 };

typedef struct round_job {
    gatun_quantize_kernel *quantize;
    gatun_dequantize_kernel *dequantize;
    gatun_matrix matrix; /* without shape and codes */
    gatun_quantize_rule rule;
    const uint8_t *x;
    int32_t x_type, y_type;
    int64_t ldx, ldy, columns, row_pieces, pieces;
    uint8_t *y;
    const float *multiplier;
    atomic_int_least64_t next;
} round_job;

static void round_piece(const round_job *j, int64_t row, int64_t column, int64_t count) {
    float values[PIECE];
    uint8_t codes[PIECE];
    for (int64_t i = 0; i < count; i++) {
        values[i] = gatun_plain_get(j->x_type, j->x, row * j->ldx + column + i);
    }
    for (int64_t i = 0; j->multiplier != NULL && i < count; i++) {
        values[i] = gatun_round(j->x_type, values[i] * j->multiplier[column + i]);
    }
    gatun_matrix m = j->matrix;
    m.n = m.block_rows = 1;
    m.k = m.block_cols = m.codes_size = count;
    m.codes = codes;
    gatun_quantize_task task = {
        .matrix = &m, .rule = &j->rule, .w = values, .w_type = GATUN_F32, .ldw = count, .block1 = 1};
    j->quantize(&task);
    uint8_t *y = j->y + (row * j->ldy + column) * gatun_plain_size(j->y_type);
    j->dequantize(&m, 0, 0, count, y, j->y_type);
    for (int64_t i = 0; m.encoding == GATUN_I8 && i < count; i++) { /* integers have no NaN */
        if (isnan(values[i])) {
            gatun_plain_put(j->y_type, y, i, values[i]);
        }
    }
}

static void round_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    round_job *j = (round_job *)context;
    for (int64_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->pieces;) {
        int64_t column = i % j->row_pieces * PIECE;
        round_piece(j, i / j->row_pieces, column, j->columns - column < PIECE ? j->columns - column : PIECE);
    }
}

static gatun_status check_numbers(const char *what, const void *data, int32_t type, int64_t rows, int64_t columns,
                                  int64_t ld) {
    int64_t elements;
    if (!gatun_is_plain(type)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "round: found %s of type %d, expected F32, F16 or BF16", what, type);
    }
    if (rows < 0 || columns < 0 || ld < columns || __builtin_mul_overflow(rows, ld, &elements) ||
        elements > INT64_MAX / 8) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "round: found %lld rows of %lld in %s, %lld apart, expected no overlap and no overflow",
                          (long long)rows, (long long)columns, what, (long long)ld);
    }
    if (data == NULL && rows > 0 && columns > 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "round: found a null pointer for %s", what);
    }
    return GATUN_OK;
}

gatun_status gatun_round_static(const void *x, int32_t x_type, int64_t ldx, int64_t rows, int64_t columns,
                                const float *x_multiplier, void *y, int32_t y_type, int64_t ldy, int32_t encoding,
                                float scale, int32_t reciprocal, int32_t isa, int32_t threads) {
    int32_t workers;
    gatun_status status = check_numbers("x", x, x_type, rows, columns, ldx);
    status = status != GATUN_OK ? status : check_numbers("y", y, y_type, rows, columns, ldy);
    if (status != GATUN_OK) {
        return status;
    }
    bool f8 = gatun_is_f8(encoding) && encoding != GATUN_F8_E8M0;
    if ((!f8 && encoding != GATUN_I8) || !(scale > 0) || !isfinite(scale)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "round: found encoding %d and scale %g, expected I8 or an 8-bit float and a positive number",
                          encoding, (double)scale);
    }
    status = gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    float largest = f8 ? gatun_f8_max(encoding) : 127.0f;
    round_job j = {.matrix = {.encoding = encoding,
                              .scale_type = GATUN_F32,
                              .scales = &scale,
                              .scales_size = sizeof scale,
                              .global_scale = 1.0f,
                              .arithmetic = GATUN_F32,
                              .result = GATUN_F32},
                   .rule = {.arithmetic = x_type,
                            .reciprocal = reciprocal,
                            .divisor = largest,
                            .code_min = f8 ? -largest : -128.0f,
                            .code_max = largest,
                            .keep_scales = 1,
                            .zero_code = -1},
                   .x = (const uint8_t *)x,
                   .x_type = x_type,
                   .y_type = y_type,
                   .ldx = ldx,
                   .ldy = ldy,
                   .columns = columns,
                   .row_pieces = (columns + PIECE - 1) / PIECE,
                   .y = (uint8_t *)y,
                   .multiplier = x_multiplier};
    gatun_matrix shape = j.matrix; /* what the kernels are asked about */
    shape.n = shape.block_rows = 1;
    shape.k = shape.block_cols = columns < PIECE ? columns : PIECE;
    int32_t quantize = gatun_kernel_choose(GATUN_OP_QUANTIZE, 0, encoding, isa, NULL, 0, &shape);
    int32_t dequantize = gatun_kernel_choose(GATUN_OP_DEQUANTIZE, 0, encoding, isa, NULL, 0, &shape);
    if (quantize < 0 || dequantize < 0) {
        return GATUN_UNSUPPORTED;
    }
    j.quantize = gatun_table_row(quantize)->quantize;
    j.dequantize = gatun_table_row(dequantize)->dequantize;
    j.pieces = rows * j.row_pieces;
    gatun_parallel(j.pieces < workers ? (int32_t)j.pieces : workers, round_body, &j);
    gatun_set_last_kernel(quantize);
    return GATUN_OK;
}
