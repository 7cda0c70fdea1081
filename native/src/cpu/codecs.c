/*
 * The operations convert, dequantize, embedding, quantize and deviation: they check their arguments, choose the kernel
 * and share the work among threads. Each thread takes pieces of its own of the output, so the bits do not depend on
 * timing.
 */
#include <stdatomic.h>

#include "cpu/stream.h"
#include "encodings/codes.h"

/* Work is handed out in pieces of about this many elements: large enough that handing out costs nothing. */
enum { PIECE = 32768 };

/* Pieces that the workers take one after the other. */
typedef struct pieces {
    atomic_int_least64_t next;
    int64_t count;
} pieces;

static bool take(pieces *p, int64_t *index) {
    *index = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
    return *index < p->count;
}

/* Not more workers than pieces. */
static int32_t useful(int32_t workers, int64_t count) { return count < workers ? (int32_t)count : workers; }

enum { STREAM_BYTES = 8192 }; /* that are made in the first-level cache before they are sent to memory */

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* The bytes of rows x columns numbers with a stride of ld; -1: overflow. */
static int64_t extent(int64_t rows, int64_t columns, int64_t ld, int64_t size) {
    int64_t elements;
    if (rows == 0 || columns == 0) {
        return 0;
    }
    if (__builtin_mul_overflow(rows - 1, ld, &elements) || __builtin_add_overflow(elements, columns, &elements) ||
        __builtin_mul_overflow(elements, size, &elements)) {
        return -1;
    }
    return elements;
}

static gatun_status check_operand(const char *operation, const char *what, const void *data, int32_t type, int64_t rows,
                                  int64_t columns, int64_t ld) {
    if (!gatun_is_plain(type)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "%s: found %s of type %d, expected F32, F16 or BF16", operation, what,
                          type);
    }
    if (ld < columns || extent(rows, columns, ld, 4) < 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "%s: found %lld rows of %s %lld elements apart, expected at least %lld and no overflow",
                          operation, (long long)rows, what, (long long)ld, (long long)columns);
    }
    if (data == NULL && rows != 0 && columns != 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "%s: found a null pointer for %s", operation, what);
    }
    return GATUN_OK;
}

/* ---- convert ---- */

typedef struct convert_job {
    pieces pieces;
    gatun_convert_kernel *kernel;
    const uint8_t *src;
    int32_t src_type;
    int32_t dst_type;
    uint8_t *dst;
    int64_t count;
    bool saturate;
} convert_job;

static void convert_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    convert_job *j = (convert_job *)context;
    int64_t src_size = gatun_number_size(j->src_type), dst_size = gatun_number_size(j->dst_type);
    for (int64_t i; take(&j->pieces, &i);) {
        int64_t first = i * PIECE;
        j->kernel(j->src + first * src_size, j->src_type, j->dst + first * dst_size, j->dst_type,
                  minimum(PIECE, j->count - first), j->saturate);
    }
}

gatun_status gatun_convert(const void *src, int32_t src_type, void *dst, int32_t dst_type, int64_t count,
                           int32_t saturate, int32_t isa, int32_t threads) {
    if ((!gatun_is_plain(src_type) && !gatun_is_f8(src_type)) ||
        (!gatun_is_plain(dst_type) && !gatun_is_f8(dst_type))) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "convert: found types %d to %d, expected F32, F16, BF16 or 8-bit floats", src_type, dst_type);
    }
    if (count < 0 || count > INT64_MAX / 4 || (count > 0 && (src == NULL || dst == NULL))) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "convert: found a count of %lld or a null pointer", (long long)count);
    }
    int32_t workers;
    gatun_status status = gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    int32_t index = gatun_kernel_choose(GATUN_OP_CONVERT, 0, dst_type, isa, NULL, 0, NULL);
    if (index < 0) {
        return GATUN_UNSUPPORTED;
    }
    convert_job j = {.pieces = {.count = (count + PIECE - 1) / PIECE},
                     .kernel = gatun_table_row(index)->convert,
                     .src = (const uint8_t *)src,
                     .src_type = src_type,
                     .dst = (uint8_t *)dst,
                     .dst_type = dst_type,
                     .count = count,
                     .saturate = saturate != 0};
    gatun_parallel(useful(workers, j.pieces.count), convert_body, &j);
    gatun_set_last_kernel(index);
    return GATUN_OK;
}

/* ---- dequantize and embedding ---- */

typedef struct rows_job {
    pieces pieces;
    gatun_dequantize_kernel *kernel;
    const gatun_matrix *matrix;
    const int64_t *ids; /* null: rows row0 .. */
    int64_t row0;
    int64_t rows;
    uint8_t *out;
    int32_t out_type;
    int64_t ld;
    int64_t columns;      /* of a piece */
    int64_t row_pieces;   /* pieces of a row when a row is longer than a piece */
    int64_t rows_at_once; /* rows of a piece otherwise */
    bool streams;
} rows_job;

/* Numbers of a row through a buffer and past the caches. */
static void stream_row(const rows_job *j, int64_t row, int64_t first, int64_t count, uint8_t *out) {
    _Alignas(64) uint8_t made[STREAM_BYTES];
    const int64_t size = gatun_plain_size(j->out_type), at_once = STREAM_BYTES / size;
    for (int64_t done = 0; done < count; done += at_once) {
        int64_t some = minimum(at_once, count - done);
        j->kernel(j->matrix, row, first + done, some, made, j->out_type);
        gatun_stream(out + done * size, made, some * size);
    }
}

static void rows_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    rows_job *j = (rows_job *)context;
    int64_t size = gatun_plain_size(j->out_type);
    for (int64_t i; take(&j->pieces, &i);) {
        int64_t first = i % j->row_pieces * j->columns;
        int64_t from = i / j->row_pieces * j->rows_at_once;
        int64_t to = minimum(from + j->rows_at_once, j->rows);
        for (int64_t r = from; r < to; r++) {
            int64_t row = j->ids != NULL ? j->ids[r] : j->row0 + r;
            int64_t count = minimum(j->columns, j->matrix->k - first);
            uint8_t *out = j->out + (r * j->ld + first) * size;
            if (j->streams) {
                stream_row(j, row, first, count, out);
            } else {
                j->kernel(j->matrix, row, first, count, out, j->out_type);
            }
        }
    }
    if (j->streams) {
        gatun_stream_end();
    }
}

/* The arguments have been checked. */
static gatun_status run_rows(int32_t operation, rows_job *j, int32_t isa, int32_t threads) {
    int32_t workers;
    gatun_status status = gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    int32_t index = gatun_kernel_choose(operation, 0, j->matrix->encoding, isa, NULL, 0, j->matrix);
    if (index < 0) {
        return GATUN_UNSUPPORTED;
    }
    j->kernel = gatun_table_row(index)->dequantize;
    int64_t k = j->matrix->k;
    if (k > 0 && j->rows > 0) {
        j->columns = PIECE;
        j->row_pieces = (k + PIECE - 1) / PIECE;
        j->rows_at_once = j->row_pieces > 1 ? 1 : (PIECE + k - 1) / k;
        j->pieces.count = (j->rows + j->rows_at_once - 1) / j->rows_at_once * j->row_pieces;
        j->streams = gatun_streams(j->rows * k * gatun_plain_size(j->out_type));
        gatun_parallel(useful(workers, j->pieces.count), rows_body, j);
    }
    gatun_set_last_kernel(index);
    return GATUN_OK;
}

gatun_status gatun_dequantize(const gatun_matrix *matrix, int64_t row0, int64_t rows, void *out, int32_t out_type,
                              int64_t ld, int32_t isa, int32_t threads) {
    gatun_status status = gatun_matrix_check(matrix, false);
    if (status != GATUN_OK) {
        return status;
    }
    if (row0 < 0 || rows < 0 || row0 > matrix->n || rows > matrix->n - row0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "dequantize: found rows %lld to %lld + %lld, expected within 0 to %lld", (long long)row0,
                          (long long)row0, (long long)rows, (long long)matrix->n);
    }
    status = check_operand("dequantize", "output", out, out_type, rows, matrix->k, ld);
    if (status != GATUN_OK) {
        return status;
    }
    rows_job j = {.matrix = matrix, .row0 = row0, .rows = rows, .out = (uint8_t *)out, .out_type = out_type, .ld = ld};
    return run_rows(GATUN_OP_DEQUANTIZE, &j, isa, threads);
}

gatun_status gatun_embedding(const gatun_matrix *matrix, const int64_t *ids, int64_t count, void *out, int32_t out_type,
                             int64_t ld, int32_t isa, int32_t threads) {
    gatun_status status = gatun_matrix_check(matrix, false);
    if (status != GATUN_OK) {
        return status;
    }
    if (count < 0 || (ids == NULL && count > 0)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "embedding: found %lld ids or a null pointer", (long long)count);
    }
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= matrix->n) {
            return gatun_fail(GATUN_INVALID_ARGUMENT, "embedding: found id %lld at index %lld, expected 0 to %lld",
                              (long long)ids[i], (long long)i, (long long)matrix->n - 1);
        }
    }
    status = check_operand("embedding", "output", out, out_type, count, matrix->k, ld);
    if (status != GATUN_OK) {
        return status;
    }
    rows_job j = {.matrix = matrix, .ids = ids, .rows = count, .out = (uint8_t *)out, .out_type = out_type, .ld = ld};
    return run_rows(GATUN_OP_EMBEDDING, &j, isa, threads);
}

/* ---- quantize ---- */

typedef struct quantize_job {
    pieces pieces;
    gatun_quantize_kernel *kernel;
    gatun_quantize_task task; /* block0 and block1 are each piece's own */
    int64_t blocks;
    int64_t at_once; /* blocks of a piece */
} quantize_job;

static void quantize_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    quantize_job *j = (quantize_job *)context;
    for (int64_t i; take(&j->pieces, &i);) {
        gatun_quantize_task task = j->task;
        task.block0 = i * j->at_once;
        task.block1 = minimum(task.block0 + j->at_once, j->blocks);
        j->kernel(&task);
    }
}

/* Whether every piece of `at_once` blocks has bytes of codes for itself, so that pieces can be written at once. */
static bool separable(const gatun_matrix *m, int64_t at_once) {
    if (m->code_order > GATUN_ORDER_WORDS) {
        return false;
    }
    int64_t bits = gatun_encoding_bits(m->encoding);
    int64_t unit = m->code_order == GATUN_ORDER_WORDS ? 32 / bits : 8; /* codes that may share a byte */
    if (bits == 8) {
        unit = 1;
    }
    if (m->flat_block != 0) {
        return m->code_row_stride == 0 && m->code_order <= GATUN_ORDER_BITS &&
               m->flat_block % unit * at_once % unit == 0;
    }
    bool rows_apart = m->code_row_stride != 0 || m->code_order == GATUN_ORDER_WORDS || m->k % unit == 0;
    return rows_apart && (m->block_cols % unit == 0 || m->block_cols >= m->k);
}

static gatun_status check_rule(const gatun_matrix *m, const gatun_quantize_rule *rule) {
    if (rule == NULL || !gatun_is_plain(rule->arithmetic)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "quantize: found %s, expected a rule with arithmetic F32, F16 or BF16",
                          rule == NULL ? "a null rule" : "another arithmetic");
    }
    if (gatun_is_gguf(m->encoding)) {
        return GATUN_OK; /* each type has a rule of its own */
    }
    if (rule->zero_code < -1 || rule->zero_code >= 1 << gatun_encoding_bits(m->encoding)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "quantize: found zero code %d, expected -1 or a code",
                          rule->zero_code);
    }
    if (rule->keep_scales == 0 && !gatun_is_plain(m->scale_type)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "quantize: found scales of type %d, expected F32, F16 or BF16 to be written", m->scale_type);
    }
    if (m->codebook != NULL || m->column_groups != NULL || m->row_scales != NULL || m->rotation > 1) {
        return gatun_fail(GATUN_UNSUPPORTED,
                          "quantize: found a codebook, column groups, row scales or a rotation, expected none");
    }
    return GATUN_OK;
}

/* Cuts a matrix that is not empty into pieces of whole blocks that can be written at once. */
static void cut(quantize_job *j) {
    const gatun_matrix *m = j->task.matrix;
    const gatun_block *gguf = gatun_gguf_block(m->encoding);
    if (gguf != NULL) {
        j->blocks = m->n * (m->k / gguf->elements);
        j->at_once = PIECE / gguf->elements;
    } else {
        bool flat = m->flat_block != 0;
        int64_t block = flat ? m->flat_block : minimum(m->block_rows, m->n) * minimum(m->block_cols, m->k);
        j->blocks = flat ? (m->n * m->k - 1) / m->flat_block + 1
                         : ((m->n - 1) / m->block_rows + 1) * ((m->k - 1) / m->block_cols + 1);
        /* A multiple of eight blocks, so that pieces share no byte of codes whatever the block. */
        j->at_once = (PIECE / block + 8) / 8 * 8;
        if (!separable(m, j->at_once)) {
            j->at_once = j->blocks;
        }
    }
    j->pieces.count = (j->blocks + j->at_once - 1) / j->at_once;
}

gatun_status gatun_quantize(const gatun_matrix *matrix, const gatun_quantize_rule *rule, const void *w, int32_t w_type,
                            int64_t ldw, int32_t isa, int32_t threads) {
    gatun_status status = gatun_matrix_check(matrix, true);
    status = status != GATUN_OK ? status : check_rule(matrix, rule);
    status = status != GATUN_OK ? status : check_operand("quantize", "input", w, w_type, matrix->n, matrix->k, ldw);
    int32_t workers;
    status = status != GATUN_OK ? status : gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    const gatun_matrix *m = matrix;
    int32_t index = gatun_kernel_choose(GATUN_OP_QUANTIZE, 0, m->encoding, isa, NULL, 0, m);
    if (index < 0) {
        return GATUN_UNSUPPORTED;
    }
    if (m->n > 0 && m->k > 0) {
        quantize_job j = {.kernel = gatun_table_row(index)->quantize,
                          .task = {.matrix = m, .rule = rule, .w = w, .w_type = w_type, .ldw = ldw}};
        cut(&j);
        gatun_parallel(useful(workers, j.pieces.count), quantize_body, &j);
    }
    gatun_set_last_kernel(index);
    return GATUN_OK;
}

/* ---- deviation ---- */

/* Numbers that are dequantized at once: few enough to stay in the first cache until they are compared. */
enum { COMPARED = 2048 };

gatun_status gatun_deviation(const gatun_matrix *matrix, int64_t row0, int64_t rows, const void *w, int32_t w_type,
                             int64_t ldw, double *sums, int32_t isa) {
    gatun_status status = gatun_matrix_check(matrix, false);
    if (status == GATUN_OK && (row0 < 0 || rows < 0 || row0 > matrix->n || rows > matrix->n - row0 || sums == NULL)) {
        return gatun_fail(
            GATUN_INVALID_ARGUMENT,
            "deviation: found rows %lld to %lld + %lld or no place for the sums, expected within 0 to %lld",
            (long long)row0, (long long)row0, (long long)rows, (long long)matrix->n);
    }
    status = status != GATUN_OK ? status : check_operand("deviation", "input", w, w_type, rows, matrix->k, ldw);
    status = status != GATUN_OK ? status : gatun_isa_resolve(isa, &isa);
    if (status != GATUN_OK) {
        return status;
    }
    int32_t decode = gatun_kernel_choose(GATUN_OP_DEQUANTIZE, 0, matrix->encoding, isa, NULL, 0, matrix);
    int32_t compare = gatun_kernel_choose(GATUN_OP_CONVERT, 0, w_type, isa, NULL, 0, NULL);
    if (decode < 0 || compare < 0) {
        return GATUN_UNSUPPORTED;
    }
    float restored[COMPARED];
    int64_t size = gatun_plain_size(w_type);
    sums[0] = sums[1] = sums[2] = 0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t first = 0; first < matrix->k; first += COMPARED) {
            int64_t count = minimum(COMPARED, matrix->k - first);
            gatun_table_row(decode)->dequantize(matrix, row0 + r, first, count, restored, GATUN_F32);
            gatun_table_row(compare)->deviation((const uint8_t *)w + (r * ldw + first) * size, w_type, restored, count,
                                                sums);
        }
    }
    gatun_set_last_kernel(decode);
    return GATUN_OK;
}
