/*
 * What can be checked of a matrix before a launch: sizes, products and enumerations. The device cannot refuse, so
 * nothing that would read past a part's end gets there.
 */
#include "matrix.cuh"

using namespace gatun;

static bool times(int64_t a, int64_t b, int64_t *out) { return !__builtin_mul_overflow(a, b, out); }

static gatun_status need(const char *what, const void *data, int64_t have, int64_t bytes) {
    if (have < bytes || (bytes > 0 && !data))
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL, "%s: found %lld bytes, expected at least %lld", what,
                               (long long)(data ? have : 0), (long long)bytes);
    return GATUN_OK;
}

/* Bytes of codes that shape, order and stride need; false when a product overflows or the order cannot be. */
static bool code_bytes(const gatun_matrix *m, int64_t *out) {
    BlockShape shape = block_shape(m->encoding);
    int64_t row, bits = code_bits(m->encoding);
    *out = 0;
    if (m->n == 0 || m->k == 0)
        return true;
    if (shape.elements) {
        if (m->k % shape.elements != 0 || !times(m->k / shape.elements, shape.bytes, &row))
            return false;
    } else if (m->code_order >= GATUN_ORDER_LOW_FIRST && m->code_order <= GATUN_ORDER_BITS) {
        if (m->code_order == GATUN_ORDER_BITS ? bits > 8 : bits < 8 && 8 % bits != 0)
            return false;
        if (m->code_order == GATUN_ORDER_HIGH_FIRST && bits != 4)
            return false;
        int64_t all;
        if (!times(m->k, bits, &row))
            return false;
        if (m->code_row_stride == 0) {
            if (!times(row, m->n, &all))
                return false;
            *out = all / 8 + (all % 8 != 0);
            return true;
        }
        row = row / 8 + (row % 8 != 0);
    } else if (m->code_order == GATUN_ORDER_WORDS) {
        if (bits > 8)
            return false;
        row = (m->k / (32 / bits) + (m->k % (32 / bits) != 0)) * 4;
    } else if (bits > 8) {
        return false;
    } else { /* orders that are not made of rows */
        int64_t words;
        switch (m->code_order) {
        case GATUN_ORDER_WORDS_K:
            words = bits == 3 ? (m->k + 31) / 32 * 3 : (m->k + 32 / bits - 1) / (32 / bits);
            return times(words, m->n, &words) && times(words, 4, out);
        case GATUN_ORDER_WORDS_N:
            return bits == 4 && times(m->k, (m->n + 7) / 8, &words) && times(words, 4, out);
        case GATUN_ORDER_SPLIT_ROWS: {
            int64_t width = m->block_cols < m->k ? m->block_cols : m->k, rows;
            if (8 % bits != 0 || width < 1 || m->k % width != 0 || !times(m->n, m->k / width, &rows))
                return false;
            int64_t per_byte = 8 / bits;
            return times((rows + per_byte - 1) / per_byte, width, out);
        }
        case GATUN_ORDER_TILES_8X16: {
            int64_t tiles = (m->n + 7) / 8, wide = (m->k + 127) / 128 * 512;
            int64_t step = m->code_row_stride ? m->code_row_stride : wide;
            return bits == 4 && step >= wide && times(tiles - 1, step, &words) &&
                   !__builtin_add_overflow(words, wide, out);
        }
        default:
            return false;
        }
    }
    int64_t stride = m->code_row_stride == 0 ? row : m->code_row_stride, before;
    return stride >= row && times(m->n - 1, stride, &before) && !__builtin_add_overflow(before, row, out);
}

/* How many scales the shape needs. */
static bool scale_count(const gatun_matrix *m, int64_t *out) {
    int64_t elements, rows, columns;
    *out = 0;
    if (!times(m->n, m->k, &elements))
        return false;
    if (elements == 0)
        return true;
    if (m->flat_block != 0) {
        if (m->flat_block < 0)
            return false;
        *out = (elements - 1) / m->flat_block + 1;
        return true;
    }
    if (m->block_rows < 1 || m->block_cols < 1 || m->scale_row_stride < 0 || m->scale_col_stride < 0)
        return false;
    rows = (m->n - 1) / m->block_rows;
    columns = (m->k - 1) / m->block_cols;
    if (m->scale_order == GATUN_SCALES_BLOCKED_128X4)
        return times((rows / 128 + 1) * 128, (columns + 4) / 4 * 4, out);
    return times(rows, m->scale_row_stride, &rows) && times(columns, m->scale_col_stride, &columns) &&
           !__builtin_add_overflow(rows, columns, out) && !__builtin_add_overflow(*out, 1, out);
}

static int64_t type_bytes(int32_t type) {
    return type == GATUN_NONE ? 0 : code_bits(type) / 8 + (type == GATUN_F8_E8M0);
}

gatun_status gatun_cuda_check_aligned(const char *what, std::initializer_list<gatun_cuda_operand> operands) {
    for (const gatun_cuda_operand &o : operands) {
        const uint64_t bytes = o.type == GATUN_CUDA_INT64 ? 8 : o.type == GATUN_F32 ? 4 : is_plain(o.type) ? 2 : 1;
        if (o.at % bytes != 0)
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "%s: found %s at %llx, expected a multiple of %llu", what,
                                   o.name, (unsigned long long)o.at, (unsigned long long)bytes);
    }
    return GATUN_OK;
}

gatun_status gatun_cuda_matrix_check(const gatun_matrix *m, bool writes) {
    if (!m)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "matrix: found a null pointer");
    if (m->n < 0 || m->k < 0)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "matrix: found shape %lld x %lld, expected sizes of at least 0",
                               (long long)m->n, (long long)m->k);
    bool blocks = block_shape(m->encoding).elements != 0;
    if (!blocks && code_bits(m->encoding) == 0)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "matrix: found encoding %d, expected one of codes", m->encoding);
    if (!is_plain(m->result) || (!blocks && !is_plain(m->arithmetic)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "matrix: found arithmetic %d and result %d, expected F32, F16 or BF16", m->arithmetic,
                               m->result);
    int64_t bytes;
    if (!code_bytes(m, &bytes))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "codes: found encoding %d in order %d with %lld x %lld and stride %lld, which cannot be",
                               m->encoding, m->code_order, (long long)m->n, (long long)m->k,
                               (long long)m->code_row_stride);
    GATUN_CUDA_TRY(need("codes", m->codes, m->codes_size, bytes));
    if (blocks)
        return GATUN_OK;
    int64_t count;
    if (!scale_count(m, &count))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "scales: found a granularity that cannot be");
    switch (m->scale_type) {
    case GATUN_NONE:
    case GATUN_F32:
    case GATUN_F16:
    case GATUN_BF16:
    case GATUN_F8_E4M3:
    case GATUN_F8_E8M0:
    case GATUN_U8:
        break;
    default:
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "scales: found type %d", m->scale_type);
    }
    if (m->scale_type != GATUN_NONE)
        GATUN_CUDA_TRY(need("scales", m->scales, m->scales_size, count * type_bytes(m->scale_type)));
    if (m->scale_type == GATUN_U8) {
        if (m->nested_block < 1 || !m->nested_codebook)
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "nested scales: found block %lld",
                                   (long long)m->nested_block);
        GATUN_CUDA_TRY(need("nested scales", m->nested_scales, m->nested_scales_size,
                            count == 0 ? 0 : ((count - 1) / m->nested_block + 1) * 4));
    }
    if (m->zero_type != GATUN_NONE) {
        if (type_bytes(m->zero_type) == 0)
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "zero points: found type %d", m->zero_type);
        GATUN_CUDA_TRY(need("zero points", m->zeros, m->zeros_size, count * type_bytes(m->zero_type)));
    }
    if (m->offset_type != GATUN_NONE) {
        if (!is_plain(m->offset_type))
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "offsets: found type %d", m->offset_type);
        GATUN_CUDA_TRY(need("offsets", m->offsets, m->offsets_size, count * type_bytes(m->offset_type)));
    }
    if (m->codebook)
        GATUN_CUDA_TRY(need("codebook", m->codebook, m->codebook_size, 4LL << code_bits(m->encoding)));
    if (m->column_groups)
        GATUN_CUDA_TRY(need("column groups", m->column_groups, m->column_groups_size, m->k * 4));
    if (m->row_scales)
        GATUN_CUDA_TRY(need("row scales", m->row_scales, m->row_scales_size, m->n * 4));
    if (m->rotation != 0) {
        int64_t g = m->rotation;
        while (g > 1 && g % 4 == 0)
            g /= 4;
        if (g != 1 || m->rotation > 65536 || m->k % m->rotation != 0)
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                                   "rotation: found %lld, expected a power of 4 that divides K = %lld",
                                   (long long)m->rotation, (long long)m->k);
    }
    if (writes &&
        (is_plain(m->encoding) || (m->code_order != GATUN_ORDER_LOW_FIRST && m->code_order != GATUN_ORDER_HIGH_FIRST) ||
         m->rotation || m->row_scales || m->column_groups))
        return gatun_cuda_fail(GATUN_UNSUPPORTED,
                               "quantize: found encoding %d in order %d, expected codes in row order", m->encoding,
                               m->code_order);
    return GATUN_OK;
}
