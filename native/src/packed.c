/*
 * The packed form: how big it is, how a matrix gets into it and back, and whether a block's header holds together. The
 * header is a function of the matrix's description, so a block is checked by working its header out anew.
 */
#include "packed_gguf.h"

enum { PIECE = 512 };
static const char magic[8] = "GATUNPK";

static int64_t align(int64_t size) {
    return (size + GATUN_PACKED_ALIGNMENT - 1) / GATUN_PACKED_ALIGNMENT * GATUN_PACKED_ALIGNMENT;
}

static int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/* Whether the numbers of a plain matrix are its values: nothing is scaled, shifted or rounded. */
static bool is_bare(const gatun_matrix *m) {
    bool exact = (m->arithmetic == GATUN_F32 || m->arithmetic == m->encoding) &&
                 (m->result == GATUN_F32 || m->result == m->encoding);
    return exact && m->scale_type == GATUN_NONE && m->zero_type == GATUN_NONE && m->offset_type == GATUN_NONE &&
           m->zero_point == 0 && m->global_scale == 1.0f;
}

/* The weights of a row that share a scale, if they can be cut at multiples of four; 0: they cannot. */
static int64_t group_of(const gatun_matrix *m) {
    int64_t whole = round_up(m->k, 4);
    if (m->flat_block != 0) {
        if (m->k != 0 && m->flat_block % m->k == 0) {
            return whole;
        }
        return m->k % m->flat_block == 0 && m->flat_block % 4 == 0 ? m->flat_block : 0;
    }
    if (m->block_cols >= m->k) {
        return whole;
    }
    return m->block_cols % 4 == 0 ? m->block_cols : 0;
}

static int32_t form_of(const gatun_matrix *m, int64_t group) {
    const gatun_gguf_panels *gguf = gatun_gguf_panels_of(m);
    if (gguf != NULL) {
        return gguf->form;
    }
    if (gatun_is_gguf(m->encoding) || m->column_groups_size != 0 || m->row_scales_size != 0 || m->rotation > 1) {
        return GATUN_FORM_SOURCE;
    }
    if (gatun_is_plain(m->encoding)) {
        return is_bare(m) ? GATUN_FORM_PLAIN : GATUN_FORM_SOURCE;
    }
    /* Kernels multiply by one scale, which differs from two by no more than a float's rounding. */
    if (group == 0 || (m->scale_order == GATUN_SCALES_THEN_GLOBAL && m->arithmetic != GATUN_F32)) {
        return GATUN_FORM_SOURCE;
    }
    return gatun_encoding_bits(m->encoding) <= 4 ? GATUN_FORM_CODES4 : GATUN_FORM_CODES8;
}

/* How many scales the matrix is cut into. */
static int64_t blocks_of(const gatun_matrix *m) {
    if (m->flat_block != 0) {
        return (m->n * m->k - 1) / m->flat_block + 1;
    }
    return ((m->n - 1) / m->block_rows + 1) * ((m->k - 1) / m->block_cols + 1);
}

/* Whether a buffer holds what the panels do not: nested scales, and what lies between codes or scales (the ends of rows
 * and words), which is kept with them so that unpack gives it back. */
static bool has_more_than_panels(const gatun_matrix *m, int32_t part, int64_t size) {
    switch (part) {
    case GATUN_PART_CODES:
        if (gatun_is_gguf(m->encoding)) {
            return false; /* rows that are padded are no panels */
        }
        return m->n * m->k * gatun_encoding_bits(m->encoding) % 8 != 0 ||
               size != m->n * m->k * gatun_encoding_bits(m->encoding) / 8;
    case GATUN_PART_SCALES:
        return m->scale_type == GATUN_U8 || size != blocks_of(m) * gatun_number_size(m->scale_type);
    case GATUN_PART_ZEROS:
        return size != blocks_of(m) * gatun_number_size(m->zero_type);
    case GATUN_PART_OFFSETS:
        return size != blocks_of(m) * gatun_number_size(m->offset_type);
    case GATUN_PART_NESTED_CODEBOOK:
    case GATUN_PART_NESTED_SCALES:
        return true;
    default: /* the codebook is the table */
        return false;
    }
}

/* The description alone: what must be equal for two matrices to be packed alike. */
static gatun_matrix description(const gatun_matrix *m, const int64_t sizes[GATUN_PARTS]) {
    gatun_matrix d = *m;
    d.codes = d.scales = d.zeros = d.offsets = NULL;
    d.nested_codebook = d.nested_scales = d.codebook = d.row_scales = NULL;
    d.column_groups = NULL;
    d.codes_size = sizes[GATUN_PART_CODES];
    d.scales_size = sizes[GATUN_PART_SCALES];
    d.zeros_size = sizes[GATUN_PART_ZEROS];
    d.offsets_size = sizes[GATUN_PART_OFFSETS];
    d.nested_scales_size = sizes[GATUN_PART_NESTED_SCALES];
    d.codebook_size = sizes[GATUN_PART_CODEBOOK];
    d.column_groups_size = sizes[GATUN_PART_COLUMN_GROUPS];
    d.row_scales_size = sizes[GATUN_PART_ROW_SCALES];
    return d;
}

/* Groups, panels and where the sections lie. Widths in bytes are at most 2^3 times the elements, which do not overflow
 * (gatun_codes_size looked), but padding can: -1. */
static int64_t lay_panels(gatun_packed *h, const gatun_matrix *m, int64_t group) {
    int64_t codes, stride = 0, size;
    h->panels = m->n / GATUN_PANEL + (m->n % GATUN_PANEL != 0);
    if (h->form == GATUN_FORM_PLAIN) {
        h->group = round_up(m->k, 2);
        h->groups = m->k == 0 ? 0 : 1;
        codes = h->group * GATUN_PANEL * gatun_plain_size(m->encoding);
    } else {
        h->group = group == 0 ? 4 : group;
        h->groups = m->k / h->group + (m->k % h->group != 0);
        codes = gatun_panel_code_bytes(h->form, h->group);
    }
    const gatun_gguf_panels *gguf = gatun_gguf_panels_of(m);
    h->scale_type = gguf != NULL ? gguf->scale_type : m->scale_type == GATUN_U8 ? GATUN_F32 : m->scale_type;
    h->zero_type = m->zero_type;
    h->offset_type = gguf != NULL ? gguf->offset_type : m->offset_type;
    if (gguf != NULL && gguf->super_groups != 0) {
        gatun_gguf_lay_supers(gguf, codes, h);
        bool fits = !__builtin_mul_overflow(h->panel_stride, h->panels, &size);
        return fits ? size : -1;
    }
    const int64_t scales = GATUN_PANEL * gatun_panel_number_size(h->scale_type);
    const int64_t zeros = GATUN_PANEL * gatun_panel_number_size(h->zero_type);
    const int64_t own = scales + zeros + GATUN_PANEL * gatun_panel_number_size(h->offset_type);
    const bool apart = own % GATUN_PACKED_ALIGNMENT != 0; /* two groups' are a multiple: numbers have whole bytes */
    h->group_stride = codes + (apart ? 0 : own);
    bool fits = !__builtin_mul_overflow(h->group_stride, h->groups, &stride);
    if (apart) {
        h->supers_offset = stride;
        h->super_groups = 2;
        h->super_scale_bytes = own;
        h->super_stride = 2 * own;
        fits = fits && !__builtin_add_overflow(stride, (h->groups + 1) / 2 * h->super_stride, &stride);
    }
    const int64_t first = apart ? h->supers_offset : codes;
    h->scales_offset = h->scale_type != GATUN_NONE ? first : 0;
    h->zeros_offset = h->zero_type != GATUN_NONE ? first + scales : 0;
    h->offsets_offset = h->offset_type != GATUN_NONE ? first + scales + zeros : 0;
    h->panel_stride = stride;
    return fits && !__builtin_mul_overflow(stride, h->panels, &size) ? size : -1;
}

gatun_status gatun_packed_plan(const gatun_matrix *m, gatun_packed *h) {
    int64_t sizes[GATUN_PARTS];
    gatun_status status = gatun_matrix_sizes(m, sizes);
    if (status != GATUN_OK) {
        return status;
    }
    if (m->n > INT64_MAX / 4096 || m->k > INT64_MAX / 4096) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "pack: found shape %lld x %lld, which is too large", (long long)m->n,
                          (long long)m->k);
    }
    if (m->column_groups_size != 0) { /* how many scales there are depends on the groups */
        sizes[GATUN_PART_SCALES] = m->scales_size;
        sizes[GATUN_PART_ZEROS] = m->zeros_size;
        sizes[GATUN_PART_OFFSETS] = m->offsets_size;
        sizes[GATUN_PART_NESTED_SCALES] = m->nested_scales_size;
    }
    memset(h, 0, sizeof *h);
    memcpy(h->magic, magic, sizeof h->magic);
    h->version = GATUN_PACKED_VERSION;
    h->n = m->n;
    h->k = m->k;
    h->matrix = description(m, sizes);
    const gatun_gguf_panels *gguf = gatun_gguf_panels_of(m);
    int64_t group = gguf != NULL ? gguf->group : group_of(m);
    h->form = form_of(m, group);
    bool keep[GATUN_PARTS];
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        h->has |= sizes[part] > 0 ? 1 << part : 0;
        keep[part] = sizes[part] > 0 && (h->form == GATUN_FORM_SOURCE || has_more_than_panels(m, part, sizes[part]));
    }
    int64_t at = align((int64_t)sizeof *h);
    if (h->form != GATUN_FORM_SOURCE) {
        if (h->form != GATUN_FORM_PLAIN) {
            h->table_offset = at;
            at += gatun_panel_table_size(h->form) * (int64_t)sizeof(float);
        }
        int64_t panels = lay_panels(h, m, group);
        h->panels_offset = at;
        if (panels < 0 || __builtin_add_overflow(at, panels, &at)) {
            return gatun_fail(GATUN_INVALID_ARGUMENT, "pack: found a shape whose packed size overflows");
        }
    }
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        if (keep[part]) {
            h->part_offsets[part] = at;
            h->part_sizes[part] = sizes[part];
            if (sizes[part] > INT64_MAX - 64 || __builtin_add_overflow(at, align(sizes[part]), &at)) {
                return gatun_fail(GATUN_INVALID_ARGUMENT, "pack: found parts whose packed size overflows");
            }
        }
    }
    h->total_size = at;
    return GATUN_OK;
}

gatun_status gatun_packed_size(const gatun_matrix *matrix, int64_t *size) {
    if (matrix == NULL || size == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "packed size: found a null pointer");
    }
    gatun_packed h;
    gatun_status status = gatun_packed_plan(matrix, &h);
    *size = status == GATUN_OK ? h.total_size : 0;
    return status;
}

/* ---- numbers and buffers ---- */

static int64_t plain_index(int32_t encoding, int64_t o, int64_t k) {
    return encoding == GATUN_F32 ? k * GATUN_PANEL + o : k / 2 * (2 * GATUN_PANEL) + 2 * o + k % 2;
}

/* Number `index` of an array to number `to` of another of the same type. */
static void copy_number(int32_t type, const void *from, int64_t index, void *to, int64_t at) {
    size_t size = (size_t)gatun_number_size(type);
    memcpy((uint8_t *)to + at * (int64_t)size, (const uint8_t *)from + index * (int64_t)size, size);
}

void gatun_plain_panel_put(int32_t type, void *panel, int64_t o, int64_t k, const float *values) {
    for (int64_t i = 0; i < k; i++) {
        gatun_plain_put(type, panel, plain_index(type, o, i), values[i]);
    }
}

static const uint8_t *plain_row(const gatun_matrix *m, int64_t row) {
    int64_t size = gatun_plain_size(m->encoding);
    return (const uint8_t *)m->codes + (m->code_row_stride == 0 ? row * m->k * size : row * m->code_row_stride);
}

void gatun_matrix_buffers(const gatun_matrix *m, const void *buffers[GATUN_PARTS]) {
    const void *all[GATUN_PARTS] = {m->codes,         m->scales,   m->zeros,         m->offsets,   m->nested_codebook,
                                    m->nested_scales, m->codebook, m->column_groups, m->row_scales};
    memcpy(buffers, all, sizeof all);
}

gatun_status gatun_packed_block_check(const void *packed, int64_t size, int64_t need) {
    if (packed == NULL || (uintptr_t)packed % GATUN_PACKED_ALIGNMENT != 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "packed weight: found %s, expected an address that is a multiple of %d",
                          packed == NULL ? "a null pointer" : "an unaligned one", GATUN_PACKED_ALIGNMENT);
    }
    if (size < need) {
        return gatun_fail(GATUN_BUFFER_TOO_SMALL, "packed weight: found %lld bytes, expected %lld", (long long)size,
                          (long long)need);
    }
    return GATUN_OK;
}

/* ---- check ---- */

gatun_status gatun_packed_header_check(const void *packed, int64_t packed_size) {
    gatun_status status = gatun_packed_block_check(packed, packed_size, (int64_t)sizeof(gatun_packed));
    if (status != GATUN_OK) {
        return status;
    }
    const gatun_packed *h = (const gatun_packed *)packed;
    if (memcmp(h->magic, magic, sizeof magic) != 0) {
        return gatun_fail(GATUN_CORRUPT, "packed weight: found another beginning, expected %s", magic);
    }
    if (h->version != GATUN_PACKED_VERSION) {
        return gatun_fail(GATUN_CORRUPT, "packed weight: found version %d, expected %d: it has to be packed anew",
                          h->version, GATUN_PACKED_VERSION);
    }
    gatun_packed expected;
    if (gatun_packed_plan(&h->matrix, &expected) != GATUN_OK || memcmp(&expected, h, sizeof expected) != 0) {
        return gatun_fail(GATUN_CORRUPT, "packed weight: found a header whose sizes and offsets do not go together");
    }
    if (h->total_size > packed_size) {
        return gatun_fail(GATUN_BUFFER_TOO_SMALL, "packed weight: found %lld bytes, expected %lld",
                          (long long)packed_size, (long long)h->total_size);
    }
    if (h->matrix.column_groups_size != 0) {
        gatun_matrix source = gatun_packed_source(h);
        if (gatun_matrix_check(&source, false) != GATUN_OK) {
            return gatun_fail(GATUN_CORRUPT, "packed weight: found a column group beyond the scales");
        }
    }
    return GATUN_OK;
}

gatun_status gatun_packed_check(const void *packed, int64_t packed_size) {
    return gatun_packed_header_check(packed, packed_size);
}

gatun_status gatun_packed_is(const gatun_matrix *matrix, const void *packed, int64_t packed_size) {
    gatun_status status = gatun_matrix_check(matrix, false);
    status = status != GATUN_OK ? status : gatun_packed_header_check(packed, packed_size);
    gatun_packed expected;
    status = status != GATUN_OK ? status : gatun_packed_plan(matrix, &expected);
    if (status != GATUN_OK) {
        return status;
    }
    const gatun_packed *h = (const gatun_packed *)packed;
    return memcmp(&expected, h, sizeof expected) == 0
               ? GATUN_OK
               : gatun_fail(GATUN_INVALID_ARGUMENT,
                            "packed weight: found %lld x %lld %s of another description, expected %lld x %lld %s",
                            (long long)h->n, (long long)h->k, gatun_encoding_name(h->matrix.encoding),
                            (long long)matrix->n, (long long)matrix->k, gatun_encoding_name(matrix->encoding));
}

int32_t gatun_packed_version(void) { return GATUN_PACKED_VERSION; }

gatun_matrix gatun_packed_source(const gatun_packed *h) {
    const uint8_t *at[GATUN_PARTS];
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        at[part] = h->part_sizes[part] > 0 ? (const uint8_t *)h + h->part_offsets[part] : NULL;
    }
    gatun_matrix m = h->matrix;
    m.codes = (void *)at[GATUN_PART_CODES];
    m.scales = (void *)at[GATUN_PART_SCALES];
    m.zeros = (void *)at[GATUN_PART_ZEROS];
    m.offsets = (void *)at[GATUN_PART_OFFSETS];
    m.nested_codebook = (const float *)(const void *)at[GATUN_PART_NESTED_CODEBOOK];
    m.nested_scales = (const float *)(const void *)at[GATUN_PART_NESTED_SCALES];
    m.codebook = (const float *)(const void *)at[GATUN_PART_CODEBOOK];
    m.column_groups = (const int32_t *)(const void *)at[GATUN_PART_COLUMN_GROUPS];
    m.row_scales = (const float *)(const void *)at[GATUN_PART_ROW_SCALES];
    return m;
}

/* ---- unpack ---- */

/* A part that is kept as it came has been copied whole. */
static bool is_kept(const gatun_packed *h, int32_t part) { return h->part_sizes[part] > 0; }

static void unpack_row(gatun_packed *h, const gatun_matrix *m, int64_t row) {
    int64_t o = row % GATUN_PANEL;
    int32_t shift = o < 16 ? 0 : 4;
    uint8_t codes[PIECE];
    for (int64_t g = 0; g < h->groups; g++) {
        const uint8_t *in = gatun_packed_group(h, row / GATUN_PANEL, g);
        const uint8_t *own = gatun_packed_parameters(h, row / GATUN_PANEL, g).own;
        int64_t first = g * h->group;
        int64_t end = first + h->group < m->k ? first + h->group : m->k;
        for (int64_t k = first; k < end && !is_kept(h, GATUN_PART_CODES); k += PIECE) {
            int64_t count = end - k < PIECE ? end - k : PIECE;
            for (int64_t i = 0; i < count; i++) {
                uint8_t byte = in[gatun_panel_code_byte(h->form, o, k - first + i)];
                codes[i] = h->form == GATUN_FORM_CODES4 ? byte >> shift & 15 : byte;
            }
            gatun_codes_put(m, row, k, count, codes);
        }
        int64_t index = gatun_parameter_index(m, row, first);
        if (m->scale_type != GATUN_NONE && !is_kept(h, GATUN_PART_SCALES)) {
            copy_number(m->scale_type, own + h->scales_offset, o, m->scales, gatun_scale_index(m, row, first));
        }
        if (m->zero_type != GATUN_NONE && !is_kept(h, GATUN_PART_ZEROS)) {
            copy_number(m->zero_type, own + h->zeros_offset, o, m->zeros, index);
        }
        if (m->offset_type != GATUN_NONE && !is_kept(h, GATUN_PART_OFFSETS)) {
            copy_number(m->offset_type, own + h->offsets_offset, o, m->offsets, index);
        }
    }
}

static void unpack_plain(gatun_packed *h, const gatun_matrix *m, int64_t row) {
    const uint8_t *in = (const uint8_t *)h + h->panels_offset + row / GATUN_PANEL * h->panel_stride;
    uint8_t *to = (uint8_t *)m->codes + (plain_row(m, row) - (const uint8_t *)m->codes);
    for (int64_t k = 0; k < m->k; k++) {
        copy_number(m->encoding, in, plain_index(m->encoding, row % GATUN_PANEL, k), to, k);
    }
}

gatun_status gatun_unpack(const void *packed, int64_t packed_size, const gatun_matrix *out) {
    gatun_status status = gatun_packed_header_check(packed, packed_size);
    if (status != GATUN_OK) {
        return status;
    }
    gatun_packed *h = (gatun_packed *)packed; /* read only */
    if (out == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "unpack: found a null matrix");
    }
    /* Column groups are output here: the description is compared before they are there to be checked. */
    gatun_packed described;
    gatun_matrix wanted = *out;
    if (h->matrix.column_groups_size != 0) {
        wanted.scales_size = h->matrix.scales_size;
        wanted.zeros_size = h->matrix.zeros_size;
        wanted.offsets_size = h->matrix.offsets_size;
        wanted.nested_scales_size = h->matrix.nested_scales_size;
    }
    status = gatun_packed_plan(&wanted, &described);
    if (status == GATUN_OK && memcmp(&described, h, sizeof described) != 0) {
        status = gatun_fail(GATUN_INVALID_ARGUMENT,
                            "unpack: found a description of %lld x %lld %s, expected that of the %lld x %lld %s packed",
                            (long long)out->n, (long long)out->k, gatun_encoding_name(out->encoding), (long long)h->n,
                            (long long)h->k, gatun_encoding_name(h->matrix.encoding));
    }
    const void *buffers[GATUN_PARTS];
    gatun_matrix_buffers(out, buffers);
    const int64_t have[GATUN_PARTS] = {
        out->codes_size,         out->scales_size,   out->zeros_size,         out->offsets_size,   1024,
        out->nested_scales_size, out->codebook_size, out->column_groups_size, out->row_scales_size};
    const int64_t need[GATUN_PARTS] = {h->matrix.codes_size,
                                       h->matrix.scales_size,
                                       h->matrix.zeros_size,
                                       h->matrix.offsets_size,
                                       (h->has >> GATUN_PART_NESTED_CODEBOOK & 1) != 0 ? 1024 : 0,
                                       h->matrix.nested_scales_size,
                                       h->matrix.codebook_size,
                                       h->matrix.column_groups_size,
                                       h->matrix.row_scales_size};
    for (int32_t part = 0; status == GATUN_OK && part < GATUN_PARTS; part++) {
        if (need[part] > 0 && (buffers[part] == NULL || have[part] < need[part])) {
            status = gatun_fail(GATUN_BUFFER_TOO_SMALL, "unpack: found %lld bytes for part %d, expected %lld",
                                (long long)(buffers[part] == NULL ? 0 : have[part]), part, (long long)need[part]);
        }
    }
    if (status != GATUN_OK) {
        return status;
    }
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        if (h->part_sizes[part] > 0) {
            memcpy((void *)buffers[part], (const uint8_t *)h + h->part_offsets[part], (size_t)h->part_sizes[part]);
        }
    }
    if (h->table_offset != 0 && out->codebook != NULL) {
        memcpy((void *)out->codebook, gatun_packed_table(h), (size_t)h->matrix.codebook_size);
    }
    for (int64_t row = 0; h->form != GATUN_FORM_SOURCE && row < h->n; row++) {
        if (h->form == GATUN_FORM_PLAIN && !is_kept(h, GATUN_PART_CODES)) {
            unpack_plain(h, out, row);
        } else if (gatun_is_gguf(h->matrix.encoding)) {
            gatun_gguf_unpack_row(h, out, row);
        } else if (h->form != GATUN_FORM_PLAIN) {
            unpack_row(h, out, row);
        }
    }
    gatun_set_last_kernel(gatun_kernel_find(GATUN_OP_UNPACK, 0, out->encoding, GATUN_ISA_SCALAR));
    return GATUN_OK;
}

/* ---- values ---- */

int64_t gatun_panel_number_size(int32_t type) {
    return type == GATUN_HALF_UE4M3 || type == GATUN_HALF_E8M0 ? 1 : gatun_number_size(type);
}

float gatun_panel_number(int32_t type, const void *data, int64_t index) {
    const uint8_t *bytes = (const uint8_t *)data;
    return type == GATUN_HALF_UE4M3  ? gatun_half_of_ue4m3(bytes[index])
           : type == GATUN_HALF_E8M0 ? gatun_half_of_e8m0(bytes[index])
                                     : gatun_number_get(type, data, index);
}

static void panel_values(const gatun_packed *h, int64_t n, int64_t k0, int64_t count, bool integers, float *out) {
    const gatun_matrix *m = &h->matrix;
    int64_t o = n % GATUN_PANEL;
    int32_t arithmetic = integers ? GATUN_F32 : m->arithmetic;
    float global = gatun_round(m->arithmetic, m->global_scale);
    bool then_global = m->scale_order == GATUN_SCALES_THEN_GLOBAL;
    bool rounded = integers && (m->encoding == GATUN_NF4 || m->encoding == GATUN_FP4) && m->codebook_size == 0;
    const float *table = gatun_packed_table(h);
    for (int64_t done = 0; done < count;) {
        int64_t at = (k0 + done) % h->group;
        int64_t take = h->group - at < count - done ? h->group - at : count - done;
        const uint8_t *in = gatun_packed_group(h, n / GATUN_PANEL, (k0 + done) / h->group);
        gatun_parameters at_group = gatun_packed_parameters(h, n / GATUN_PANEL, (k0 + done) / h->group);
        const uint8_t *own = at_group.own;
        float scale = h->scale_type == GATUN_NONE ? 1.0f : gatun_panel_number(h->scale_type, own + h->scales_offset, o);
        float zero = h->zero_type == GATUN_NONE ? (float)m->zero_point
                                                : gatun_number_get(h->zero_type, own + h->zeros_offset, o);
        float offset =
            h->offset_type == GATUN_NONE ? 0.0f : gatun_number_get(h->offset_type, own + h->offsets_offset, o);
        if (at_group.factors != NULL) {
            scale *= gatun_number_get(h->factor_type, at_group.factors, o);
            offset *= h->offset_type == GATUN_NONE
                          ? 1.0f
                          : gatun_number_get(h->factor_type, at_group.factors, GATUN_PANEL + o);
        }
        offset = m->offset_sign < 0 ? -offset : offset;
        scale = gatun_round(m->arithmetic, scale);
        scale = m->global_scale == 1.0f || then_global ? scale : gatun_round(m->arithmetic, scale * global);
        for (int64_t i = 0; i < take; i++) {
            float code = table[gatun_panel_code(h->form, in, o, at + i)];
            code = rounded ? rintf(code * 127.0f) / 127.0f : code;
            float value = gatun_round(arithmetic, (code - zero) * scale);
            value = then_global ? gatun_round(arithmetic, value * global) : value;
            value = h->offset_type == GATUN_NONE ? value : gatun_round(arithmetic, value + offset);
            out[done + i] = integers ? value : gatun_round(m->result, value);
        }
        done += take;
    }
}

void gatun_packed_values(const gatun_packed *h, int64_t n, int64_t k0, int64_t count, bool integers, float *out) {
    if (h->form == GATUN_FORM_SOURCE) {
        gatun_matrix source = gatun_packed_source(h);
        gatun_row_values(&source, n, k0, count, integers, out);
    } else if (h->form == GATUN_FORM_PLAIN) {
        const uint8_t *panel = gatun_packed_group(h, n / GATUN_PANEL, 0);
        for (int64_t i = 0; i < count; i++) {
            out[i] =
                gatun_plain_get(h->matrix.encoding, panel, plain_index(h->matrix.encoding, n % GATUN_PANEL, k0 + i));
        }
    } else {
        panel_values(h, n, k0, count, integers, out);
    }
}
