/* What must hold before an operation touches a matrix: every size is compared with what the shape needs. */
#include "encodings/codes.h"

static int64_t times(int64_t a, int64_t b) {
    int64_t product;
    return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) ? -1 : product;
}

static int64_t plus(int64_t a, int64_t b) {
    int64_t sum;
    return a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum) ? -1 : sum;
}

static gatun_status invalid_granularity(const gatun_matrix *m) {
    return gatun_fail(
        GATUN_INVALID_ARGUMENT,
        "granularity: found tiles of %lld x %lld, flat blocks of %lld and strides %lld and %lld, expected "
        "positive sizes and indices that do not overflow",
        (long long)m->block_rows, (long long)m->block_cols, (long long)m->flat_block, (long long)m->scale_row_stride,
        (long long)m->scale_col_stride);
}

/* The largest group in column_groups; -1: one is out of range. */
static int64_t largest_group(const gatun_matrix *m) {
    int64_t largest = 0;
    for (int64_t k = 0; k < m->k; k++) {
        int32_t group;
        memcpy(&group, m->column_groups + k, sizeof group);
        if (group < 0) {
            return -1;
        }
        largest = group > largest ? group : largest;
    }
    return largest;
}

/* How many zeros and offsets the shape needs, and how many scales. */
static gatun_status parameter_count(const gatun_matrix *m, bool reads_groups, int64_t *count, int64_t *scales) {
    *count = *scales = 0;
    if (m->n == 0 || m->k == 0) {
        return GATUN_OK;
    }
    if (m->flat_block != 0) {
        if (m->flat_block < 0 || m->column_groups_size != 0 || m->scale_order == GATUN_SCALES_BLOCKED_128X4) {
            return invalid_granularity(m);
        }
        *count = *scales = (m->n * m->k - 1) / m->flat_block + 1;
        return GATUN_OK;
    }
    if (m->block_rows < 1 || m->block_cols < 1 || m->scale_row_stride < 0 || m->scale_col_stride < 0) {
        return invalid_granularity(m);
    }
    int64_t last_row = (m->n - 1) / m->block_rows;
    int64_t last_col = (m->k - 1) / m->block_cols;
    if (m->column_groups_size != 0 && reads_groups) {
        last_col = largest_group(m);
        if (last_col < 0) {
            return gatun_fail(GATUN_INVALID_ARGUMENT, "column groups: found a negative group, expected 0 or more");
        }
    }
    *count = *scales = plus(1, plus(times(last_row, m->scale_row_stride), times(last_col, m->scale_col_stride)));
    if (m->scale_order == GATUN_SCALES_BLOCKED_128X4) {
        *scales = m->column_groups_size != 0 ? -1 : times(times(last_row / 128 + 1, last_col / 4 + 1), 512);
    }
    return *count < 0 || *scales < 0 ? invalid_granularity(m) : GATUN_OK;
}

static bool is_scale_type(int32_t type) {
    return type == GATUN_NONE || gatun_is_plain(type) || type == GATUN_F8_E4M3 || type == GATUN_F8_E8M0 ||
           type == GATUN_U8;
}

static bool is_zero_type(int32_t type) {
    return type == GATUN_NONE || gatun_is_plain(type) || type == GATUN_I8 || type == GATUN_U8;
}

static gatun_status wrong_type(const char *what, int32_t type, const char *expected) {
    return gatun_fail(GATUN_INVALID_ARGUMENT, "%s: found type %d, expected %s", what, type, expected);
}

static gatun_status check_types(const gatun_matrix *m) {
    if (!gatun_is_plain(m->arithmetic) || !gatun_is_plain(m->result)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "matrix: found arithmetic %d and result %d, expected F32, F16 or BF16", m->arithmetic,
                          m->result);
    }
    if (!is_scale_type(m->scale_type)) {
        return wrong_type("scales", m->scale_type, "F32, F16, BF16, F8_E4M3, F8_E8M0, nested U8 or none");
    }
    if (!is_zero_type(m->zero_type)) {
        return wrong_type("zero points", m->zero_type, "F32, F16, BF16, I8, U8 or none");
    }
    if (m->offset_type != GATUN_NONE && !gatun_is_plain(m->offset_type)) {
        return wrong_type("offsets", m->offset_type, "F32, F16, BF16 or none");
    }
    if (m->offset_type != GATUN_NONE && m->offset_sign != 1 && m->offset_sign != -1) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "offsets: found sign %d, expected 1 or -1", m->offset_sign);
    }
    if (m->scale_order < GATUN_SCALES_STRIDED || m->scale_order > GATUN_SCALES_THEN_GLOBAL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "scales: found order %d, expected 0 to 2", m->scale_order);
    }
    return GATUN_OK;
}

static gatun_status check_rotation(const gatun_matrix *m) {
    int64_t g = m->rotation;
    if (g == 0 || g == 1) {
        return GATUN_OK;
    }
    bool power_of_4 = g > 1 && g <= GATUN_ROTATION_MAX && (g & (g - 1)) == 0 && (g & 0x5555555555555555) != 0;
    if (!power_of_4 || m->k % g != 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "rotation: found groups of %lld for K = %lld, expected a power of 4 up to %d that divides K",
                          (long long)g, (long long)m->k, GATUN_ROTATION_MAX);
    }
    return GATUN_OK;
}

/* GGUF's blocks carry their own scales: nothing but shape and codes counts. */
static gatun_status check_gguf(const gatun_matrix *m) {
    if (!gatun_is_plain(m->arithmetic) || !gatun_is_plain(m->result)) {
        return check_types(m);
    }
    if (m->scale_type != GATUN_NONE || m->zero_type != GATUN_NONE || m->offset_type != GATUN_NONE ||
        m->codebook_size != 0 || m->column_groups_size != 0 || m->row_scales_size != 0 || m->rotation > 1) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "matrix: found scales, a codebook or a rotation besides GGUF blocks, expected none");
    }
    return GATUN_OK;
}

static gatun_status sizes_of(const gatun_matrix *m, bool reads_groups, int64_t sizes[GATUN_PARTS]) {
    memset(sizes, 0, GATUN_PARTS * sizeof *sizes);
    if (m->n < 0 || m->k < 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "matrix: found shape %lld x %lld, expected sizes of at least 0",
                          (long long)m->n, (long long)m->k);
    }
    const char *name = gatun_encoding_name(m->encoding);
    if (name == NULL || m->encoding == GATUN_F8_E8M0) {
        return gatun_fail(GATUN_UNSUPPORTED, "matrix: found encoding %d, expected that of a weight", m->encoding);
    }
    sizes[GATUN_PART_CODES] = gatun_codes_size(m);
    if (sizes[GATUN_PART_CODES] < 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "matrix: found %lld x %lld codes of %s in order %d with rows %lld bytes apart, expected a "
                          "shape, an order and a stride that go together",
                          (long long)m->n, (long long)m->k, name, m->code_order, (long long)m->code_row_stride);
    }
    if (gatun_is_gguf(m->encoding)) {
        return check_gguf(m);
    }
    gatun_status status = check_types(m);
    status = status != GATUN_OK ? status : check_rotation(m);
    int64_t count = 0, scales = 0;
    status = status != GATUN_OK ? status : parameter_count(m, reads_groups, &count, &scales);
    if (status != GATUN_OK) {
        return status;
    }
    sizes[GATUN_PART_SCALES] = times(scales, gatun_number_size(m->scale_type));
    sizes[GATUN_PART_ZEROS] = times(count, gatun_number_size(m->zero_type));
    sizes[GATUN_PART_OFFSETS] = times(count, gatun_number_size(m->offset_type));
    if (m->scale_type == GATUN_U8) {
        if (m->nested_block < 1) {
            return gatun_fail(GATUN_INVALID_ARGUMENT, "nested scales: found blocks of %lld, expected at least 1",
                              (long long)m->nested_block);
        }
        sizes[GATUN_PART_NESTED_CODEBOOK] = 1024;
        sizes[GATUN_PART_NESTED_SCALES] = scales == 0 ? 0 : times((scales - 1) / m->nested_block + 1, 4);
    }
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        if (sizes[part] < 0) {
            return invalid_granularity(m);
        }
    }
    if (m->codebook_size != 0) {
        if (gatun_is_plain(m->encoding)) {
            return gatun_fail(GATUN_INVALID_ARGUMENT, "codebook: found one for plain numbers, expected none");
        }
        sizes[GATUN_PART_CODEBOOK] = (int64_t)4 << gatun_encoding_bits(m->encoding);
    }
    sizes[GATUN_PART_COLUMN_GROUPS] = m->column_groups_size != 0 ? 4 * m->k : 0;
    sizes[GATUN_PART_ROW_SCALES] = m->row_scales_size != 0 ? 4 * m->n : 0;
    return GATUN_OK;
}

gatun_status gatun_matrix_sizes(const gatun_matrix *m, int64_t sizes[GATUN_PARTS]) { return sizes_of(m, false, sizes); }

static gatun_status check_part(const char *what, const void *data, int64_t size, int64_t need) {
    if (need == 0 || (data != NULL && size >= need)) {
        return GATUN_OK;
    }
    if (data == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "%s: found a null pointer, expected %lld bytes", what,
                          (long long)need);
    }
    return gatun_fail(GATUN_BUFFER_TOO_SMALL, "%s: found %lld bytes, expected at least %lld", what, (long long)size,
                      (long long)need);
}

/* Optional buffers are there exactly when their size says so; an empty matrix has no use for them. */
static gatun_status check_optional(const gatun_matrix *m, const char *what, const void *data, int64_t size) {
    bool empty = m->n == 0 || m->k == 0;
    if (size < 0 || (data == NULL && size != 0) || (data != NULL && size == 0 && !empty)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "%s: found %s pointer with a size of %lld, expected both or none",
                          what, data == NULL ? "a null" : "a", (long long)size);
    }
    return GATUN_OK;
}

gatun_status gatun_matrix_check(const gatun_matrix *m, bool writes_codes) {
    if (m == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "matrix: found a null pointer");
    }
    gatun_status status = check_optional(m, "codebook", m->codebook, m->codebook_size);
    status = status != GATUN_OK ? status : check_optional(m, "column groups", m->column_groups, m->column_groups_size);
    status = status != GATUN_OK ? status : check_optional(m, "row scales", m->row_scales, m->row_scales_size);
    if (status == GATUN_OK && m->column_groups != NULL) {
        status = check_part("column groups", m->column_groups, m->column_groups_size, times(m->k, 4));
    }
    int64_t sizes[GATUN_PARTS];
    status = status != GATUN_OK ? status : sizes_of(m, true, sizes);
    if (status == GATUN_OK && (m->scale_type == GATUN_U8) != (m->nested_codebook != NULL)) {
        status = gatun_fail(GATUN_INVALID_ARGUMENT,
                            "scales: expected U8 codes exactly when there is a nested codebook, found otherwise");
    }
    if (status == GATUN_OK && writes_codes && gatun_is_plain(m->encoding)) {
        status = gatun_fail(GATUN_UNSUPPORTED, "quantize: found %s, expected an encoding with codes of its own",
                            gatun_encoding_name(m->encoding));
    }
    const struct {
        const char *name;
        const void *data;
        int64_t size;
    } parts[GATUN_PARTS] = {
        {"codes", m->codes, m->codes_size},
        {"scales", m->scales, m->scales_size},
        {"zero points", m->zeros, m->zeros_size},
        {"offsets", m->offsets, m->offsets_size},
        {"nested codebook", m->nested_codebook, 1024},
        {"nested scales", m->nested_scales, m->nested_scales_size},
        {"codebook", m->codebook, m->codebook_size},
        {"column groups", m->column_groups, m->column_groups_size},
        {"row scales", m->row_scales, m->row_scales_size},
    };
    for (int32_t part = 0; status == GATUN_OK && part < GATUN_PARTS; part++) {
        status = check_part(parts[part].name, parts[part].data, parts[part].size, sizes[part]);
    }
    return status;
}
