/*
 * Packing: 32 rows of W at a time become a panel (gatun_internal.h has its layout).
 *
 * A step of a panel is the four bytes that each of 32 rows has for it, one row after the other: so packing is turning
 * 4 x 4 numbers of 32 bits round, sixteen bytes of four rows at once. Codes of fewer than eight bits are made bytes
 * first, a chunk of every row, and put together when they have been turned. Vectors are the compiler's own, so that
 * this file serves every instruction set.
 */
#include "packed_gguf.h"

enum { STEPS = 4, RUN = 4 * STEPS, CHUNK = 256 }; /* steps and k that are turned at once; k made bytes at once */

static int64_t align(int64_t size) {
    return (size + GATUN_PACKED_ALIGNMENT - 1) / GATUN_PACKED_ALIGNMENT * GATUN_PACKED_ALIGNMENT;
}

typedef uint32_t four __attribute__((vector_size(16)));

static four load(const uint8_t *from) {
    four v;
    memcpy(&v, from, sizeof v);
    return v;
}

/* Sixteen k of 32 rows of bytes as [half of the rows][step][row][k % 4]. */
static void turn(const uint8_t *const rows[GATUN_PANEL], int64_t k, uint8_t out[2][STEPS][64]) {
    for (int32_t o = 0; o < GATUN_PANEL; o += 4) {
        four a = load(rows[o] + k), b = load(rows[o + 1] + k), c = load(rows[o + 2] + k), d = load(rows[o + 3] + k);
        four ab01 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab23 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
        four cd01 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd23 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
        four steps[STEPS] = {
            __builtin_shufflevector(ab01, cd01, 0, 1, 4, 5), __builtin_shufflevector(ab01, cd01, 2, 3, 6, 7),
            __builtin_shufflevector(ab23, cd23, 0, 1, 4, 5), __builtin_shufflevector(ab23, cd23, 2, 3, 6, 7)};
        for (int32_t s = 0; s < STEPS; s++) {
            memcpy(out[o / 16][s] + o % 16 * 4, &steps[s], sizeof steps[s]);
        }
    }
}

/* The first `steps` of four turned steps to where a group has them. */
static inline __attribute__((always_inline)) void put_steps(int32_t form, uint8_t (*turned)[STEPS][64], int64_t steps,
                                                            uint8_t *restrict to) {
    if (form != GATUN_FORM_CODES4 && form != GATUN_FORM_CODES5 && form != GATUN_FORM_CODES6) {
        for (int64_t s = 0; s < steps; s++) {
            memcpy(to + 128 * s, turned[0][s], 64);
            memcpy(to + 128 * s + 64, turned[1][s], 64);
        }
        return;
    }
    for (int64_t s = 0; s < steps; s++) {
        for (int32_t i = 0; i < 64; i++) {
            to[64 * s + i] = (uint8_t)((turned[0][s][i] & 15) | turned[1][s][i] << 4);
        }
    }
    if (form == GATUN_FORM_CODES4) {
        return;
    }
    const int32_t bits = form == GATUN_FORM_CODES5 ? 1 : 2;
    const uint64_t mask = 0x0101010101010101u * ((1u << bits) - 1);
    for (int32_t field = 0; field < 2 * STEPS; field++) { /* as gatun_panel_high_byte() numbers them */
        uint8_t *high = to + 256 + field * bits / 8 * 64;
        for (int32_t i = 0; i < 64; i += 8) {
            uint64_t codes, before;
            memcpy(&codes, turned[field % 2][field / 2] + i, sizeof codes);
            memcpy(&before, high + i, sizeof before);
            before |= (codes >> 4 & mask) << field * bits % 8;
            memcpy(high + i, &before, sizeof before);
        }
    }
}

/* `count` bytes of 32 rows, from `k` on, to a run of steps that are zero. */
static inline __attribute__((always_inline)) void put_form(int32_t form, const uint8_t *const rows[GATUN_PANEL],
                                                           int64_t k, int64_t count, uint8_t *to) {
    uint8_t turned[2][STEPS][64];
    int64_t done = 0;
    for (; done + RUN <= count; done += RUN, to += gatun_panel_code_bytes(form, RUN)) {
        turn(rows, k + done, turned);
        put_steps(form, turned, STEPS, to);
    }
    if (done < count) {
        uint8_t last[GATUN_PANEL][RUN] = {{0}};
        const uint8_t *last_rows[GATUN_PANEL];
        for (int32_t o = 0; o < GATUN_PANEL; o++) {
            memcpy(last[o], rows[o] + k + done, (size_t)(count - done));
            last_rows[o] = last[o];
        }
        turn(last_rows, 0, turned);
        put_steps(form, turned, (count - done + 3) / 4, to);
    }
}

static void put_run(int32_t form, const uint8_t *const rows[GATUN_PANEL], int64_t k, int64_t count, uint8_t *to) {
    switch (form) {
    case GATUN_FORM_CODES4:
        put_form(GATUN_FORM_CODES4, rows, k, count, to);
        break;
    case GATUN_FORM_CODES5:
        put_form(GATUN_FORM_CODES5, rows, k, count, to);
        break;
    case GATUN_FORM_CODES6:
        put_form(GATUN_FORM_CODES6, rows, k, count, to);
        break;
    default:
        put_form(GATUN_FORM_CODES8, rows, k, count, to);
    }
}

/* ---- codes ---- */

typedef struct pack_job {
    const gatun_matrix *matrix;
    gatun_packed *packed;
    const gatun_gguf_panels *gguf; /* or null */
    int64_t chunk;                 /* k made bytes at once: whole groups and blocks, or part of one group */
} pack_job;

static uint8_t *group_at(const gatun_packed *h, int64_t panel, int64_t group) {
    return (uint8_t *)(uintptr_t)gatun_packed_group(h, panel, group);
}

/* Bytes of 32 rows from k on, which begin at k0 of the matrix, to the groups that they are of. */
static void put_groups(const gatun_packed *h, int64_t panel, const uint8_t *const rows[GATUN_PANEL], int64_t k0,
                       int64_t count) {
    for (int64_t k = 0, take; k < count; k += take) {
        int64_t group = (k0 + k) / h->group, within = (k0 + k) % h->group;
        take = h->group - within < count - k ? h->group - within : count - k;
        put_run(h->form, rows, k, take, group_at(h, panel, group) + gatun_panel_code_bytes(h->form, within));
    }
}

static void pack_codes(const pack_job *j, int64_t panel, int64_t rows) {
    const gatun_matrix *m = j->matrix;
    static const uint8_t none[CHUNK];
    uint8_t codes[GATUN_PANEL][CHUNK];
    const uint8_t *at[GATUN_PANEL];
    for (int32_t o = 0; o < GATUN_PANEL; o++) {
        at[o] = o < rows ? codes[o] : none;
    }
    for (int64_t k = 0; k < m->k; k += j->chunk) {
        int64_t count = m->k - k < j->chunk ? m->k - k : j->chunk;
        for (int64_t o = 0; o < rows; o++) {
            if (j->gguf != NULL) {
                gatun_gguf_codes_get(j->gguf, m, panel * GATUN_PANEL + o, k, count, codes[o]);
            } else {
                gatun_codes_get(m, panel * GATUN_PANEL + o, k, count, codes[o]);
            }
        }
        put_groups(j->packed, panel, at, k, count);
    }
}

/* A step of plain numbers is four bytes of each output too: one float, or two numbers of 16 bits. */
static void pack_plain(const gatun_matrix *m, const gatun_packed *h, int64_t panel, int64_t rows) {
    int64_t row_bytes = m->k * gatun_plain_size(m->encoding);
    int64_t stride = m->code_row_stride == 0 ? row_bytes : m->code_row_stride;
    static const uint8_t none[CHUNK];
    const uint8_t *at[GATUN_PANEL];
    for (int64_t k = 0; k < row_bytes; k += CHUNK) {
        for (int64_t o = 0; o < GATUN_PANEL; o++) {
            at[o] = o < rows ? (const uint8_t *)m->codes + (panel * GATUN_PANEL + o) * stride + k : none;
        }
        int64_t count = row_bytes - k < CHUNK ? row_bytes - k : CHUNK;
        put_run(GATUN_FORM_PLAIN, at, 0, count, group_at(h, panel, 0) + 32 * k);
    }
}

/* ---- scales, zeros and offsets ---- */

/* Numbers of a type, and where row o of the panel has that of group g: index[o] + g * step. */
typedef struct numbers {
    int32_t type;
    const uint8_t *data;
    int64_t index[GATUN_PANEL];
    int64_t step;
} numbers;

static void pack_numbers(const numbers *n, const gatun_packed *h, int64_t panel, int64_t rows, int64_t offset) {
    const int64_t size = gatun_number_size(n->type);
    for (int64_t g = 0; g < h->groups; g++) {
        uint8_t *to = group_at(h, panel, g) + offset;
        const uint8_t *from = n->data + g * n->step * size;
        for (int64_t o = 0; size == 4 && o < rows; o++) {
            memcpy(to + 4 * o, from + 4 * n->index[o], 4);
        }
        for (int64_t o = 0; size == 2 && o < rows; o++) {
            memcpy(to + 2 * o, from + 2 * n->index[o], 2);
        }
        for (int64_t o = 0; size == 1 && o < rows; o++) {
            to[o] = from[n->index[o]];
        }
    }
}

typedef int64_t index_function(const gatun_matrix *matrix, int64_t row, int64_t column);

/* Groups are whole scale blocks (group_of() in packed.c saw to it), so that a row's indices are evenly apart. */
static numbers find_numbers(int32_t type, const void *data, index_function *index, const gatun_matrix *m,
                            const gatun_packed *h, int64_t panel, int64_t rows) {
    numbers n = {.type = type, .data = (const uint8_t *)data};
    for (int64_t o = 0; o < rows; o++) {
        n.index[o] = index(m, panel * GATUN_PANEL + o, 0);
    }
    n.step = h->groups > 1 ? index(m, panel * GATUN_PANEL, h->group) - n.index[0] : 0;
    return n;
}

/* Scales that are not stored as they multiply, or not in rows. */
static void pack_scales_singly(const gatun_matrix *m, const gatun_packed *h, int64_t panel, int64_t rows) {
    int64_t size = gatun_number_size(h->scale_type);
    for (int64_t g = 0; g < h->groups; g++) {
        uint8_t *to = group_at(h, panel, g) + h->scales_offset;
        for (int64_t o = 0; o < rows; o++) {
            int64_t row = panel * GATUN_PANEL + o, k = g * h->group;
            if (m->scale_type == GATUN_U8) {
                gatun_plain_put(GATUN_F32, to, o, gatun_stored_scale_at(m, row, k));
            } else {
                const uint8_t *from = (const uint8_t *)m->scales + gatun_scale_index(m, row, k) * size;
                memcpy(to + o * size, from, (size_t)size);
            }
        }
    }
}

static void pack_parameters(const gatun_matrix *m, const gatun_packed *h, int64_t panel, int64_t rows) {
    numbers n;
    if (m->scale_type == GATUN_U8 || (m->scale_type != GATUN_NONE && m->scale_order == GATUN_SCALES_BLOCKED_128X4)) {
        pack_scales_singly(m, h, panel, rows);
    } else if (m->scale_type != GATUN_NONE) {
        n = find_numbers(m->scale_type, m->scales, gatun_scale_index, m, h, panel, rows);
        pack_numbers(&n, h, panel, rows, h->scales_offset);
    }
    if (m->zero_type != GATUN_NONE) {
        n = find_numbers(m->zero_type, m->zeros, gatun_parameter_index, m, h, panel, rows);
        pack_numbers(&n, h, panel, rows, h->zeros_offset);
    }
    if (m->offset_type != GATUN_NONE) {
        n = find_numbers(m->offset_type, m->offsets, gatun_parameter_index, m, h, panel, rows);
        pack_numbers(&n, h, panel, rows, h->offsets_offset);
    }
}

/* ---- the operation ---- */

static void pack_body(void *context, int32_t worker, int32_t workers) {
    const pack_job *j = (const pack_job *)context;
    gatun_packed *h = j->packed;
    for (int64_t panel = worker; panel < h->panels; panel += workers) {
        memset(group_at(h, panel, 0), 0, (size_t)h->panel_stride);
        int64_t left = h->n - panel * GATUN_PANEL;
        int64_t rows = left < GATUN_PANEL ? left : GATUN_PANEL;
        if (h->form == GATUN_FORM_PLAIN) {
            pack_plain(j->matrix, h, panel, rows);
            continue;
        }
        pack_codes(j, panel, rows);
        for (int64_t o = 0; j->gguf != NULL && o < rows; o++) {
            gatun_gguf_pack_parameters(j->gguf, j->matrix, h, panel * GATUN_PANEL + o);
        }
        if (j->gguf == NULL) {
            pack_parameters(j->matrix, h, panel, rows);
        }
    }
}

static void fill_table(const gatun_matrix *m, gatun_packed *h) {
    float *table = (float *)((uint8_t *)h + h->table_offset);
    if (gatun_is_gguf(m->encoding)) {
        gatun_gguf_fill_table(gatun_gguf_panels_of(m), h->form, table);
        return;
    }
    size_t entries = (size_t)gatun_panel_table_size(h->form);
    size_t count = (size_t)1 << gatun_encoding_bits(m->encoding);
    memset(table, 0, entries * sizeof *table);
    memcpy(table, m->codebook != NULL ? m->codebook : gatun_codebook(m->encoding), count * sizeof *table);
}

static int64_t chunk_of(const gatun_matrix *m, const gatun_packed *h) {
    const gatun_block *block = gatun_gguf_block(m->encoding);
    int64_t unit = block != NULL ? block->elements : h->group;
    return unit < 1 || unit > CHUNK ? CHUNK : CHUNK / unit * unit;
}

gatun_status gatun_pack(const gatun_matrix *matrix, void *packed, int64_t packed_size, int32_t threads) {
    gatun_status status = gatun_matrix_check(matrix, false);
    gatun_packed h;
    status = status != GATUN_OK ? status : gatun_packed_plan(matrix, &h);
    status = status != GATUN_OK ? status : gatun_packed_block_check(packed, packed_size, h.total_size);
    int32_t workers;
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    gatun_packed *block = (gatun_packed *)packed;
    memset(block, 0, (size_t)align((int64_t)sizeof h));
    *block = h;
    if (h.table_offset != 0) {
        fill_table(matrix, block);
    }
    pack_job j = {matrix, block, gatun_gguf_panels_of(matrix), chunk_of(matrix, &h)};
    gatun_parallel(h.panels < workers ? (int32_t)h.panels : workers, pack_body, &j);
    const void *buffers[GATUN_PARTS];
    gatun_matrix_buffers(matrix, buffers);
    for (int32_t part = 0; part < GATUN_PARTS; part++) {
        if (h.part_sizes[part] > 0) {
            uint8_t *to = (uint8_t *)packed + h.part_offsets[part];
            int64_t size = h.part_sizes[part];
            memcpy(to, buffers[part], (size_t)size);
            memset(to + size, 0, (size_t)(align(size) - size));
        }
    }
    gatun_set_last_kernel(gatun_kernel_find(GATUN_OP_PACK, 0, matrix->encoding, GATUN_ISA_SCALAR));
    return GATUN_OK;
}
