/*
 * quantize_*__scalar: scale and codes of one block after the other, as gatun_quantize_rule says. Every operation is
 * rounded to the rule's arithmetic.
 */
#include "cpu/kernels.h"
#include "encodings/numbers.h"

enum { PIECE = 512 };

/* `rows` runs of `columns` elements, a row of w apart, that share a scale. Flat blocks run on over the ends of rows. */
typedef struct block {
    int64_t row;
    int64_t column;
    int64_t rows;
    int64_t columns;
} block;

static block block_at(const gatun_matrix *m, int64_t index) {
    if (m->flat_block != 0) {
        int64_t first = index * m->flat_block;
        int64_t left = m->n * m->k - first;
        return (block){first / m->k, first % m->k, 1, left < m->flat_block ? left : m->flat_block};
    }
    int64_t across = (m->k - 1) / m->block_cols + 1;
    int64_t row = index / across * m->block_rows;
    int64_t column = index % across * m->block_cols;
    int64_t rows = m->n - row < m->block_rows ? m->n - row : m->block_rows;
    int64_t columns = m->k - column < m->block_cols ? m->k - column : m->block_cols;
    return (block){row, column, rows, columns};
}

/* The next run of a block that lies in one row: `done` elements of its current row are behind. */
static int64_t piece_of(const gatun_matrix *m, const block *b, int64_t done, int64_t *row, int64_t *column) {
    *row += (b->column + done) / m->k;
    *column = (b->column + done) % m->k;
    int64_t take = b->columns - done;
    take = take < m->k - *column ? take : m->k - *column;
    return take < PIECE ? take : PIECE;
}

static float value_at(const gatun_quantize_task *t, int64_t row, int64_t column) {
    return gatun_round(t->rule->arithmetic, gatun_plain_get(t->w_type, t->w, row * t->ldw + column));
}

/* The largest magnitude; NaN when there is one, as Java's max has it. */
static float largest_of(const gatun_quantize_task *t, const block *b) {
    float largest = 0.0f;
    for (int64_t r = 0; r < b->rows; r++) {
        for (int64_t done = 0; done < b->columns;) {
            int64_t row = b->row + r, column;
            int64_t take = piece_of(t->matrix, b, done, &row, &column);
            for (int64_t i = 0; i < take; i++) {
                float v = fabsf(value_at(t, row, column + i));
                largest = v > largest || isnan(v) ? v : largest;
            }
            done += take;
        }
    }
    return largest;
}

static float clamp(const gatun_quantize_rule *rule, float q) {
    return q < rule->code_min ? rule->code_min : q > rule->code_max ? rule->code_max : q;
}

static void quantize_block(const gatun_quantize_task *t, const block *b) {
    const gatun_matrix *m = t->matrix;
    const gatun_quantize_rule *rule = t->rule;
    float scale, stored;
    if (rule->keep_scales != 0) {
        scale = gatun_scale_at(m, b->row, b->column);
        /* With stored scales of a wider type the library takes the reciprocal before it rounds. */
        stored = gatun_stored_scale_at(m, b->row, b->column) * m->global_scale;
    } else {
        float divided = gatun_round(rule->arithmetic, largest_of(t, b) / rule->divisor);
        scale = divided > rule->scale_floor || isnan(divided) ? divided : rule->scale_floor;
        stored = scale;
        gatun_plain_put(m->scale_type, m->scales, gatun_scale_index(m, b->row, b->column), scale);
    }
    bool multiply = rule->reciprocal != 0 || m->encoding == GATUN_NF4 || m->encoding == GATUN_FP4;
    float reciprocal = gatun_round(rule->arithmetic, 1.0f / stored);
    bool fixed = scale == 0.0f && rule->zero_code >= 0;
    uint8_t codes[PIECE];
    for (int64_t r = 0; r < b->rows; r++) {
        for (int64_t done = 0; done < b->columns;) {
            int64_t row = b->row + r, column;
            int64_t take = piece_of(m, b, done, &row, &column);
            for (int64_t i = 0; i < take; i++) {
                float v = value_at(t, row, column + i);
                float q = gatun_round(rule->arithmetic, multiply ? v * reciprocal : v / scale);
                codes[i] = fixed ? (uint8_t)rule->zero_code : gatun_encode(m->encoding, clamp(rule, q));
            }
            gatun_codes_put(m, row, column, take, codes);
            done += take;
        }
    }
}

void gatun_quantize__scalar(const gatun_quantize_task *task) {
    for (int64_t i = task->block0; i < task->block1; i++) {
        block b = block_at(task->matrix, i);
        quantize_block(task, &b);
    }
}
