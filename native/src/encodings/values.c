/*
 * From codes to numbers, one path for every layout: codes of a run of a row to bytes, through the codebook, zero point,
 * scale and offset with the matrix's roundings; then, for the few formats that have them, row scales and the rotation.
 */
#include "encodings/codes.h"

enum { PIECE = 512 };

int64_t gatun_parameter_index(const gatun_matrix *m, int64_t row, int64_t column) {
    if (m->flat_block != 0) {
        return (row * m->k + column) / m->flat_block;
    }
    int64_t c = m->column_groups != NULL ? m->column_groups[column] : column / m->block_cols;
    return row / m->block_rows * m->scale_row_stride + c * m->scale_col_stride;
}

int64_t gatun_scale_index(const gatun_matrix *m, int64_t row, int64_t column) {
    if (m->scale_order != GATUN_SCALES_BLOCKED_128X4) {
        return gatun_parameter_index(m, row, column);
    }
    int64_t r = row / m->block_rows, c = column / m->block_cols;
    int64_t tiles = ((m->k - 1) / m->block_cols + 4) / 4;
    return (r / 128 * tiles + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4;
}

int64_t gatun_scale_run(const gatun_matrix *m, int64_t row, int64_t column) {
    int64_t left = m->k - column;
    int64_t run;
    if (m->flat_block != 0) {
        run = m->flat_block - (row * m->k + column) % m->flat_block;
    } else if (m->column_groups != NULL) {
        run = 1;
        while (run < left && m->column_groups[column + run] == m->column_groups[column]) {
            run++;
        }
    } else {
        run = m->block_cols - column % m->block_cols;
    }
    return run < left ? run : left;
}

static float stored_scale(const gatun_matrix *m, int64_t index) {
    if (m->nested_codebook == NULL) {
        return gatun_number_get(m->scale_type, m->scales, index);
    }
    float product =
        gatun_load_f32((const uint8_t *)m->nested_codebook + 4 * (int64_t)((const uint8_t *)m->scales)[index]) *
        gatun_load_f32((const uint8_t *)m->nested_scales + 4 * (index / m->nested_block));
    return product + m->nested_offset;
}

float gatun_stored_scale_at(const gatun_matrix *m, int64_t row, int64_t column) {
    return m->scale_type == GATUN_NONE ? 1.0f : stored_scale(m, gatun_scale_index(m, row, column));
}

float gatun_scale_of(const gatun_matrix *m, int64_t index) {
    float stored = gatun_round(m->arithmetic, m->scale_type == GATUN_NONE ? 1.0f : stored_scale(m, index));
    if (m->global_scale == 1.0f || m->scale_order == GATUN_SCALES_THEN_GLOBAL) {
        return stored;
    }
    return gatun_round(m->arithmetic, stored * gatun_round(m->arithmetic, m->global_scale));
}

float gatun_scale_at(const gatun_matrix *m, int64_t row, int64_t column) {
    return gatun_scale_of(m, m->scale_type == GATUN_NONE ? 0 : gatun_scale_index(m, row, column));
}

float gatun_zero_at(const gatun_matrix *m, int64_t row, int64_t column) {
    if (m->zero_type == GATUN_NONE) {
        return (float)m->zero_point;
    }
    return gatun_number_get(m->zero_type, m->zeros, gatun_parameter_index(m, row, column));
}

float gatun_offset_at(const gatun_matrix *m, int64_t row, int64_t column) {
    if (m->offset_type == GATUN_NONE) {
        return 0.0f;
    }
    float value = gatun_number_get(m->offset_type, m->offsets, gatun_parameter_index(m, row, column));
    return m->offset_sign < 0 ? -value : value;
}

/* What the codes of a run mean, before zero point and scale. */
static void decode(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, bool integers, float *out) {
    if (gatun_is_plain(m->encoding)) {
        int64_t size = gatun_plain_size(m->encoding);
        const uint8_t *data = (const uint8_t *)m->codes;
        data += m->code_row_stride == 0 ? row * m->k * size : row * m->code_row_stride;
        for (int64_t i = 0; i < count; i++) {
            out[i] = gatun_plain_get(m->encoding, data, first + i);
        }
        return;
    }
    const float *values = m->codebook != NULL ? m->codebook : gatun_codebook(m->encoding);
    bool rounded = integers && (m->encoding == GATUN_NF4 || m->encoding == GATUN_FP4) && m->codebook == NULL;
    uint8_t codes[PIECE];
    gatun_codes_get(m, row, first, count, codes);
    for (int64_t i = 0; i < count; i++) {
        float value = gatun_load_f32(values + codes[i]);
        out[i] = rounded ? rintf(value * 127.0f) / 127.0f : value;
    }
}

/* A product to the nearest integer of -127 .. 127, as row scales take it; NaN stays. */
static float whole(float product) {
    float rounded = rintf(product);
    return rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded;
}

/* (code - zero) * scale + offset of a run that shares them. */
static void scale_run(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, bool integers, float *v) {
    float zero = gatun_zero_at(m, row, first);
    float scale = gatun_scale_at(m, row, first);
    float offset = gatun_offset_at(m, row, first);
    int32_t arithmetic = integers ? GATUN_F32 : m->arithmetic;
    for (int64_t i = 0; i < count; i++) {
        v[i] = gatun_round(arithmetic, (v[i] - zero) * scale);
    }
    if (m->scale_order == GATUN_SCALES_THEN_GLOBAL) {
        float global = gatun_round(m->arithmetic, m->global_scale);
        for (int64_t i = 0; i < count; i++) {
            v[i] = gatun_round(arithmetic, v[i] * global);
        }
    }
    if (m->row_scales != NULL) {
        float row_scale = gatun_load_f32(m->row_scales + row);
        for (int64_t i = 0; i < count; i++) {
            v[i] = gatun_round(integers ? GATUN_F32 : m->result, whole(v[i]) * row_scale);
        }
    }
    for (int64_t i = 0; m->offset_type != GATUN_NONE && i < count; i++) {
        v[i] = gatun_round(arithmetic, v[i] + offset);
    }
}

static void gguf_values(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, float *out) {
    const gatun_block *block = gatun_gguf_block(m->encoding);
    const int64_t start = row * gatun_gguf_stride(m, block); /* codes may be null where nothing is asked for */
    float values[GATUN_BLOCK_MAX];
    for (int64_t done = 0; done < count;) {
        const uint8_t *data = (const uint8_t *)m->codes + start;
        int64_t at = (first + done) % block->elements;
        int64_t take = block->elements - at < count - done ? block->elements - at : count - done;
        block->decode(data + (first + done) / block->elements * block->bytes, values);
        memcpy(out + done, values + at, (size_t)take * sizeof *out);
        done += take;
    }
    float factor = gatun_gguf_factor(m);
    for (int64_t i = 0; factor != 1.0f && i < count; i++) {
        out[i] *= factor;
    }
}

/* Everything up to the rotation. */
static void unrotated(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, bool integers, float *out) {
    if (gatun_is_gguf(m->encoding)) {
        gguf_values(m, row, first, count, out);
        return;
    }
    for (int64_t done = 0; done < count;) {
        int64_t run = gatun_scale_run(m, row, first + done);
        run = run < count - done ? run : count - done;
        run = run < PIECE ? run : PIECE;
        decode(m, row, first + done, run, integers, out + done);
        scale_run(m, row, first + done, run, integers, out + done);
        done += run;
    }
}

void gatun_rotate(float *v, int64_t size) {
    double d[GATUN_ROTATION_MAX];
    for (int64_t i = 0; i < size; i++) {
        d[i] = (double)v[i];
    }
    for (int64_t step = 1; step < size; step *= 4) {
        for (int64_t i = 0; i < size; i++) {
            if (i / step % 4 != 0) {
                continue;
            }
            double a = d[i], b = d[i + step], c = d[i + 2 * step], e = d[i + 3 * step];
            d[i] = a + b + c - e;
            d[i + step] = a + b - c + e;
            d[i + 2 * step] = a - b + c + e;
            d[i + 3 * step] = -a + b + c + e;
        }
    }
    double factor = 1 / sqrt((double)size);
    for (int64_t i = 0; i < size; i++) {
        v[i] = (float)(d[i] * factor);
    }
}

static void rotated(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, float *out) {
    float group[GATUN_ROTATION_MAX];
    for (int64_t done = 0; done < count;) {
        int64_t at = (first + done) % m->rotation;
        int64_t take = m->rotation - at < count - done ? m->rotation - at : count - done;
        unrotated(m, row, first + done - at, m->rotation, false, group);
        gatun_rotate(group, m->rotation);
        memcpy(out + done, group + at, (size_t)take * sizeof *out);
        done += take;
    }
}

void gatun_row_values(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, bool integers, float *out) {
    if (m->rotation > 1 && !integers) {
        rotated(m, row, first, count, out);
    } else {
        unrotated(m, row, first, count, integers, out);
    }
    if (!integers && m->result != GATUN_F32) {
        for (int64_t i = 0; i < count; i++) {
            out[i] = gatun_round(m->result, out[i]);
        }
    }
}
