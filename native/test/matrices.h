/* Random matrices of every encoding, order and granularity, with buffers of exactly the size that they need. */
#ifndef GATUN_MATRICES_H
#define GATUN_MATRICES_H

#include "check.h"
#include "encodings/list.h"
#include "gatun_internal.h"

#define ENCODING_ENTRY(ENCODING, name, bits, unused) GATUN_##ENCODING,
static const int32_t weight_encodings[] = {GATUN_WEIGHT_ENCODINGS(ENCODING_ENTRY, 0)};
enum { WEIGHT_ENCODINGS = sizeof weight_encodings / sizeof weight_encodings[0] };

/* How a matrix is cut: see random_matrix. */
enum { PER_TENSOR, PER_ROW, PER_GROUP, PER_TILE, FLAT, CUTS };

/* What a matrix may have besides scales. */
enum {
    WITH_ZEROS = 1,
    WITH_OFFSETS = 2,
    WITH_NESTED = 4,
    WITH_CODEBOOK = 8,
    WITH_GROUPS = 16,
    WITH_ROW_SCALES = 32,
    WITH_ROTATION = 64,
    WITH_SWIZZLE = 128,
    WITH_THEN_GLOBAL = 256
};

/* Numbers of a type, in a buffer of its own. */
static inline void *random_numbers(random_state *r, int32_t type, int64_t count, float scale) {
    int64_t size = type == GATUN_F32 ? 4 : type == GATUN_F16 || type == GATUN_BF16 ? 2 : 1;
    uint8_t *out = (uint8_t *)buffer(count * size, 0);
    for (int64_t i = 0; i < count; i++) {
        float v = random_float(r) * scale;
        if (type == GATUN_I8 || type == GATUN_U8) {
            out[i] = (uint8_t)(random_bits(r) & 15);
        } else if (type == GATUN_F8_E8M0) {
            out[i] = (uint8_t)(120 + random_below(r, 8));
        } else {
            gatun_convert(&v, GATUN_F32, out + i * size, type, 1, 1, GATUN_ISA_SCALAR, 1);
        }
    }
    return out;
}

/* Codes without NaN and infinity, GGUF blocks with scales near one. */
static inline void random_codes(random_state *r, gatun_matrix *m) {
    uint8_t *codes = (uint8_t *)m->codes;
    bool plain = gatun_is_plain(m->encoding);
    for (int64_t i = 0; i < m->codes_size; i++) {
        codes[i] = (uint8_t)random_bits(r);
        if (m->encoding >= GATUN_F8_E4M3 && m->encoding <= GATUN_F8_E5M2FNUZ) {
            codes[i] &= 0xBF; /* magnitudes below 2 */
            codes[i] = codes[i] == 0x80 ? 0 : codes[i];
        }
        if (gatun_is_gguf(m->encoding)) {
            codes[i] &= 0x3B; /* no binary16 in it is infinite or NaN */
        }
    }
    if (plain) {
        int64_t size = m->encoding == GATUN_F32 ? 4 : 2;
        void *numbers = random_numbers(r, m->encoding, m->codes_size / size, 1.0f);
        memcpy(m->codes, numbers, (size_t)(m->codes_size / size * size));
        free(numbers);
    }
}

/* The matrix of an encoding, or false when these do not go together. */
static inline bool random_matrix(random_state *r, int32_t encoding, int32_t order, int64_t n, int64_t k, int32_t cut,
                                 int64_t group, int32_t with, int32_t scale_type, int32_t arithmetic, gatun_matrix *m) {
    *m = (gatun_matrix){.n = n,
                        .k = k,
                        .encoding = encoding,
                        .code_order = order,
                        .arithmetic = arithmetic,
                        .result = arithmetic,
                        .global_scale = 1.0f,
                        .offset_sign = 1,
                        .block_rows = cut == PER_TENSOR ? (n > 0 ? n : 1)
                                      : cut == PER_TILE ? 3
                                                        : 1,
                        .block_cols = cut == PER_GROUP || cut == PER_TILE ? group
                                      : k > 0                             ? k
                                                                          : 1,
                        .flat_block = cut == FLAT ? group : 0};
    if (!gatun_is_gguf(encoding)) {
        m->scale_type = (with & WITH_NESTED) != 0 ? GATUN_U8 : scale_type;
        m->zero_type = (with & WITH_ZEROS) != 0 ? GATUN_I8 : GATUN_NONE;
        m->offset_type = (with & WITH_OFFSETS) != 0 ? GATUN_F32 : GATUN_NONE;
        m->scale_col_stride = cut == PER_GROUP || cut == PER_TILE || (with & WITH_GROUPS) != 0 ? 1 : 0;
        m->scale_row_stride = cut == PER_TENSOR ? 0 : k > 0 ? (k - 1) / m->block_cols + 1 : 1;
        m->scale_order = (with & WITH_SWIZZLE) != 0 ? GATUN_SCALES_BLOCKED_128X4 : GATUN_SCALES_STRIDED;
        if ((with & WITH_THEN_GLOBAL) != 0) {
            m->scale_order = GATUN_SCALES_THEN_GLOBAL;
            m->global_scale = 1.0f / 127.0f;
        }
        m->nested_block = 5;
        m->nested_offset = 0.25f;
        m->zero_point = (int32_t)random_below(r, 3);
        m->codebook_size = (with & WITH_CODEBOOK) != 0 ? (int64_t)4 << gatun_encoding_bits(encoding) : 0;
        m->column_groups_size = (with & WITH_GROUPS) != 0 ? 4 * k : 0;
        m->row_scales_size = (with & WITH_ROW_SCALES) != 0 ? 4 * n : 0;
        m->rotation = (with & WITH_ROTATION) != 0 ? 16 : 0;
    } else if (cut != PER_TENSOR || with != 0) {
        return false;
    }
    if (gatun_is_plain(encoding)) {
        m->zero_point = 0;
    }
    int64_t sizes[GATUN_PARTS];
    if (gatun_matrix_sizes(m, sizes) != GATUN_OK) {
        return false;
    }
    m->codes_size = sizes[GATUN_PART_CODES];
    m->codes = buffer(m->codes_size, 0);
    random_codes(r, m);
    if (gatun_is_gguf(encoding)) {
        return true;
    }
    m->scales_size = sizes[GATUN_PART_SCALES];
    if (m->scale_type != GATUN_NONE) {
        int64_t size = m->scale_type == GATUN_F32 ? 4 : gatun_is_plain(m->scale_type) ? 2 : 1;
        m->scales = random_numbers(r, m->scale_type, m->scales_size / size, 0.5f);
    }
    m->zeros_size = sizes[GATUN_PART_ZEROS];
    m->zeros = m->zeros_size > 0 ? random_numbers(r, GATUN_I8, m->zeros_size, 1.0f) : NULL;
    m->offsets_size = sizes[GATUN_PART_OFFSETS];
    m->offsets = m->offsets_size > 0 ? random_numbers(r, GATUN_F32, m->offsets_size / 4, 1.0f) : NULL;
    if ((with & WITH_NESTED) != 0) {
        m->nested_codebook = (const float *)random_numbers(r, GATUN_F32, 256, 1.0f);
        m->nested_scales_size = sizes[GATUN_PART_NESTED_SCALES];
        m->nested_scales = (const float *)random_numbers(r, GATUN_F32, m->nested_scales_size / 4, 1.0f);
    }
    if ((with & WITH_CODEBOOK) != 0) {
        m->codebook = (const float *)random_numbers(r, GATUN_F32, m->codebook_size / 4, 1.0f);
    }
    if ((with & WITH_ROW_SCALES) != 0) {
        m->row_scales = (const float *)random_numbers(r, GATUN_F32, n, 1.0f);
    }
    if ((with & WITH_GROUPS) != 0) {
        int32_t *groups = (int32_t *)buffer(4 * k, 0);
        for (int64_t i = 0; i < k; i++) {
            groups[i] = (int32_t)random_below(r, (k - 1) / m->block_cols + 1);
        }
        m->column_groups = groups;
    }
    return true;
}

static inline void free_matrix(gatun_matrix *m) {
    free(m->codes);
    free(m->scales);
    free(m->zeros);
    free(m->offsets);
    free((void *)m->nested_codebook);
    free((void *)m->nested_scales);
    free((void *)m->codebook);
    free((void *)m->column_groups);
    free((void *)m->row_scales);
}

/* The same matrix, each of its buffers beside a page that nobody may touch: behind it or before it. */
static inline gatun_matrix guard_matrix(const gatun_matrix *m, bool front, guarded parts[GATUN_PARTS]) {
    const void *data[GATUN_PARTS];
    const int64_t sizes[GATUN_PARTS] = {
        m->codes_size,         m->scales_size,   m->zeros_size,         m->offsets_size,   1024,
        m->nested_scales_size, m->codebook_size, m->column_groups_size, m->row_scales_size};
    gatun_matrix_buffers(m, data);
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        parts[part] = guard_copy_at(data[part], data[part] == NULL ? 0 : sizes[part], front);
        data[part] = data[part] == NULL ? NULL : parts[part].data;
    }
    gatun_matrix g = *m;
    g.codes = (void *)data[GATUN_PART_CODES];
    g.scales = (void *)data[GATUN_PART_SCALES];
    g.zeros = (void *)data[GATUN_PART_ZEROS];
    g.offsets = (void *)data[GATUN_PART_OFFSETS];
    g.nested_codebook = (const float *)data[GATUN_PART_NESTED_CODEBOOK];
    g.nested_scales = (const float *)data[GATUN_PART_NESTED_SCALES];
    g.codebook = (const float *)data[GATUN_PART_CODEBOOK];
    g.column_groups = (const int32_t *)data[GATUN_PART_COLUMN_GROUPS];
    g.row_scales = (const float *)data[GATUN_PART_ROW_SCALES];
    return g;
}

/* A matrix of the same description with buffers of its own, all zero. */
static inline gatun_matrix empty_like(const gatun_matrix *m) {
    gatun_matrix e = *m;
    e.codes = buffer(m->codes_size, 0);
    e.scales = m->scales != NULL ? buffer(m->scales_size, 0) : NULL;
    e.zeros = m->zeros != NULL ? buffer(m->zeros_size, 0) : NULL;
    e.offsets = m->offsets != NULL ? buffer(m->offsets_size, 0) : NULL;
    e.nested_codebook = m->nested_codebook != NULL ? (const float *)buffer(1024, 0) : NULL;
    e.nested_scales = m->nested_scales != NULL ? (const float *)buffer(m->nested_scales_size, 0) : NULL;
    e.codebook = m->codebook != NULL ? (const float *)buffer(m->codebook_size, 0) : NULL;
    e.column_groups = m->column_groups != NULL ? (const int32_t *)buffer(m->column_groups_size, 0) : NULL;
    e.row_scales = m->row_scales != NULL ? (const float *)buffer(m->row_scales_size, 0) : NULL;
    return e;
}

#endif
