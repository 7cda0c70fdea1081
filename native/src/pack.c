/*
 * Packing: 32 rows of W at a time become a panel (gatun_internal.h has its layout), a piece of whole groups or of one
 * long group at a time. A piece is made in the first-level cache, its codes where they lie if vectors can take them
 * from there (pack_codes.c), else from bytes that are read for it, and then what its groups have besides; and is
 * written where it belongs, past the caches where the whole is larger than they are.
 */
#include "pack_codes.h"

#include "cpu/stream.h"

static int64_t align(int64_t size) {
    return (size + GATUN_PACKED_ALIGNMENT - 1) / GATUN_PACKED_ALIGNMENT * GATUN_PACKED_ALIGNMENT;
}

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

enum {
    RUNS = GATUN_PIECE / GATUN_RUN,
    MADE = 12 << 10,                   /* bytes of a piece, at most */
    BEYOND = 128 * (GATUN_RUN / 4 - 1) /* that the last run of a group may write besides, zeros */
};

typedef struct pack_job {
    const gatun_matrix *matrix;
    gatun_packed *packed;
    const gatun_gguf_panels *gguf;   /* or null */
    int64_t k, group, groups;        /* as the header's, in codes; PLAIN: in bytes */
    int64_t piece;                   /* codes of a piece: of whole groups, or of part of one */
    gatun_code_layout layout;        /* of the rows */
    gatun_put_runs *direct, *spread; /* from the rows (or null), and from bytes */
    gatun_run direct_runs[RUNS], spread_runs[RUNS];
    bool streams;
} pack_job;

/* Where row o of a panel has the number of group 0, and the bytes to that of the next; of no bytes: there are none. */
typedef struct numbers {
    int64_t size, step;
    const uint8_t *at[GATUN_PANEL];
} numbers;

/* What is looked up once for 32 rows; the last panel may have fewer. */
typedef struct panel_source {
    int64_t index, rows;
    const uint8_t *codes[GATUN_PANEL]; /* where codes are taken from as they lie */
    numbers scales, zeros, offsets;
} panel_source;

/* k .. k+count-1 of a panel, `have` of which the matrix has: the last group may be longer than what is left. */
typedef struct piece {
    const panel_source *panel;
    int64_t k, count, have;
    int64_t group, ends; /* the first group, and how many end here */
    int64_t start;       /* bytes of that group that are before this piece */
    uint8_t *made;
} piece;

static uint8_t *group_at(const gatun_packed *h, int64_t panel, int64_t group) {
    return (uint8_t *)(uintptr_t)gatun_packed_group(h, panel, group);
}

/* ---- codes ---- */

/* The first byte of a row whose codes lie one after the other. */
static const uint8_t *row_at(const pack_job *j, int64_t row) {
    const gatun_matrix *m = j->matrix;
    const uint8_t *codes = (const uint8_t *)m->codes;
    if (j->gguf != NULL) {
        return codes + row * gatun_gguf_stride(m, gatun_gguf_block(m->encoding));
    }
    if (j->packed->form == GATUN_FORM_PLAIN) {
        return codes + row * (m->code_row_stride == 0 ? j->k : m->code_row_stride);
    }
    return codes + gatun_code_place(m, row, 0).byte;
}

/* Some of a row's codes, one a byte: of whole groups and blocks. */
static void get_bytes(const pack_job *j, int64_t row, int64_t k, int64_t count, uint8_t *to) {
    if (j->gguf != NULL) {
        gatun_gguf_codes_get(j->gguf, j->matrix, row, k, count, to);
    } else if (j->packed->form == GATUN_FORM_PLAIN) {
        memcpy(to, row_at(j, row) + k, (size_t)count);
    } else {
        gatun_codes_get(j->matrix, row, k, count, to);
    }
}

static void put_spread(const pack_job *j, const piece *p) {
    uint8_t codes[GATUN_PANEL][GATUN_PIECE];
    const uint8_t *rows[GATUN_PANEL];
    /* Groups of whole runs at once; others singly, since a run writes zeros beyond its group. */
    const bool together = j->group > j->piece || j->group % GATUN_RUN == 0;
    uint8_t *to = p->made;
    for (int64_t done = 0, take; done < p->have; done += take, to += j->packed->group_stride) {
        take = together ? p->have : minimum(j->group, p->have - done);
        const int64_t runs = (take + GATUN_RUN - 1) / GATUN_RUN;
        for (int64_t o = 0; o < GATUN_PANEL; o++) {
            const int64_t have = o < p->panel->rows ? take : 0;
            rows[o] = codes[o];
            if (have > 0) {
                get_bytes(j, p->panel->index * GATUN_PANEL + o, p->k + done, have, codes[o]);
            }
            memset(codes[o] + have, 0, (size_t)(runs * GATUN_RUN - have));
        }
        j->spread(rows, j->spread_runs, runs, to);
    }
}

static void put_codes(const pack_job *j, const piece *p) {
    if (j->direct == NULL || p->panel->rows < GATUN_PANEL || p->have % GATUN_RUN != 0) {
        put_spread(j, p);
        return;
    }
    const uint8_t *rows[GATUN_PANEL];
    const int64_t before = p->k / j->layout.elements * j->layout.bytes;
    for (int64_t o = 0; o < GATUN_PANEL; o++) {
        rows[o] = p->panel->codes[o] + before;
    }
    j->direct(rows, j->direct_runs, p->have / GATUN_RUN, p->made);
}

/* ---- scales, zeros and offsets ---- */

/* Where the header's offsets count from for group number g of a piece. */
static uint8_t *own_at(const pack_job *j, const piece *p, int64_t g) {
    const gatun_packed *h = j->packed;
    return gatun_own_made(h, p->panel->index, p->group + g, g, p->made) - (h->supers_offset == 0 ? p->start : 0);
}

/* Numbers of the groups that end in a piece, `offset` bytes from where each has its own. */
static void put_numbers(const pack_job *j, const piece *p, const numbers *n, int64_t offset) {
    const int64_t rows = p->panel->rows;
    if (rows == GATUN_PANEL && n->size > 0 && n->step == n->size) {
        const uint8_t *at[GATUN_PANEL];
        for (int64_t o = 0; o < GATUN_PANEL; o++) {
            at[o] = n->at[o] + p->group * n->step;
        }
        const gatun_packed *h = j->packed; /* records of two groups, which have no factors, are evenly apart too */
        const int64_t stride = h->supers_offset != 0 ? h->super_scale_bytes : h->group_stride;
        gatun_put_numbers(n->size, at, p->ends, own_at(j, p, 0) + offset, stride);
        return;
    }
    for (int64_t g = 0; g < p->ends; g++) {
        uint8_t *to = own_at(j, p, g) + offset;
        const int64_t skip = (p->group + g) * n->step;
        for (int64_t o = 0; n->size == 4 && o < rows; o++) {
            memcpy(to + 4 * o, n->at[o] + skip, 4);
        }
        for (int64_t o = 0; n->size == 2 && o < rows; o++) {
            memcpy(to + 2 * o, n->at[o] + skip, 2);
        }
        for (int64_t o = 0; n->size == 1 && o < rows; o++) {
            to[o] = n->at[o][skip];
        }
    }
}

typedef int64_t index_function(const gatun_matrix *matrix, int64_t row, int64_t column);

/* Groups are whole scale blocks (group_of() in packed.c saw to it), so that a row's indices are evenly apart. */
static void find_numbers(const pack_job *j, const panel_source *p, int32_t type, const void *data,
                         index_function *index, numbers *n) {
    const gatun_matrix *m = j->matrix;
    const int64_t row = p->index * GATUN_PANEL;
    n->size = gatun_number_size(type);
    for (int64_t o = 0; n->size > 0 && o < p->rows; o++) {
        n->at[o] = (const uint8_t *)data + index(m, row + o, 0) * n->size;
    }
    n->step = n->size > 0 && j->groups > 1 ? (index(m, row, j->group) - index(m, row, 0)) * n->size : 0;
}

/* Scales that are not stored as they multiply, or not in rows. */
static bool has_single_scales(const gatun_matrix *m) {
    return m->scale_type == GATUN_U8 || (m->scale_type != GATUN_NONE && m->scale_order == GATUN_SCALES_BLOCKED_128X4);
}

static void put_scales_singly(const pack_job *j, const piece *p) {
    const gatun_matrix *m = j->matrix;
    const gatun_packed *h = j->packed;
    int64_t size = gatun_number_size(h->scale_type);
    for (int64_t g = 0; g < p->ends; g++) {
        uint8_t *to = own_at(j, p, g) + h->scales_offset;
        for (int64_t o = 0; o < p->panel->rows; o++) {
            int64_t row = p->panel->index * GATUN_PANEL + o, k = (p->group + g) * j->group;
            if (m->scale_type == GATUN_U8) {
                gatun_plain_put(GATUN_F32, to, o, gatun_stored_scale_at(m, row, k));
            } else {
                const uint8_t *from = (const uint8_t *)m->scales + gatun_scale_index(m, row, k) * size;
                memcpy(to + o * size, from, (size_t)size);
            }
        }
    }
}

static void put_parameters(const pack_job *j, const piece *p) {
    const gatun_packed *h = j->packed;
    if (has_single_scales(j->matrix)) {
        put_scales_singly(j, p);
    } else {
        put_numbers(j, p, &p->panel->scales, h->scales_offset);
    }
    put_numbers(j, p, &p->panel->zeros, h->zeros_offset);
    put_numbers(j, p, &p->panel->offsets, h->offsets_offset);
}

/* ---- panels ---- */

static void find_panel(const pack_job *j, int64_t index, panel_source *p) {
    const gatun_matrix *m = j->matrix;
    p->index = index;
    p->rows = minimum(GATUN_PANEL, j->packed->n - index * GATUN_PANEL);
    for (int64_t o = 0; j->direct != NULL && o < p->rows; o++) {
        p->codes[o] = row_at(j, index * GATUN_PANEL + o);
    }
    find_numbers(j, p, has_single_scales(m) ? GATUN_NONE : m->scale_type, m->scales, gatun_scale_index, &p->scales);
    find_numbers(j, p, m->zero_type, m->zeros, gatun_parameter_index, &p->zeros);
    find_numbers(j, p, m->offset_type, m->offsets, gatun_parameter_index, &p->offsets);
}

/* The piece that begins at k. */
static piece piece_at(const pack_job *j, const panel_source *panel, int64_t k, uint8_t *made) {
    piece p = {.panel = panel, .k = k, .group = k / j->group, .made = made};
    const int64_t within = k - p.group * j->group;
    const int64_t end = j->group > j->piece ? (p.group + 1) * j->group : minimum(j->groups * j->group, k + j->piece);
    p.count = minimum(end - k, j->piece);
    p.have = j->k < k ? 0 : minimum(p.count, j->k - k);
    p.start = gatun_panel_code_bytes(j->packed->form, within);
    p.ends = k + p.count < end ? 0 : (p.count + within) / j->group;
    return p;
}

static void pack_piece(const pack_job *j, const piece *p) {
    const gatun_packed *h = j->packed;
    const int64_t size = p->ends > 0 ? p->ends * h->group_stride - p->start : gatun_panel_code_bytes(h->form, p->count);
    if (p->panel->rows < GATUN_PANEL || p->have < p->count) {
        memset(p->made, 0, (size_t)size);
    }
    put_codes(j, p);
    if (j->gguf != NULL) {
        gatun_gguf_pack_parameters(j->gguf, j->matrix, h, p->panel->index, p->panel->rows, p->group, p->ends, p->made);
    } else if (p->ends > 0) {
        put_parameters(j, p);
    }
    uint8_t *to = group_at(h, p->panel->index, p->group) + p->start;
    if (j->streams) {
        gatun_stream(to, p->made, size);
    } else {
        memcpy(to, p->made, (size_t)size);
    }
}

static void pack_body(void *context, int32_t worker, int32_t workers) {
    const pack_job *j = (const pack_job *)context;
    const gatun_packed *h = j->packed;
    _Alignas(64) uint8_t made[MADE + BEYOND];
    panel_source p;
    for (int64_t index = worker; index < h->panels; index += workers) {
        find_panel(j, index, &p);
        if (h->supers_offset != 0) {
            memset(group_at(h, index, 0) + h->supers_offset, 0, (size_t)(h->panel_stride - h->supers_offset));
        }
        for (int64_t k = 0; k < j->groups * j->group;) {
            const piece at = piece_at(j, &p, k, made);
            pack_piece(j, &at);
            k += at.count;
        }
    }
    if (j->streams) {
        gatun_stream_end();
    }
}

/* ---- the operation ---- */

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

/* How the panels of a header are made; the matrix has some, and they are not empty. */
static void plan(pack_job *j) {
    const gatun_packed *h = j->packed;
    const int64_t size = h->form == GATUN_FORM_PLAIN ? gatun_plain_size(h->matrix.encoding) : 1;
    j->k = h->k * size;
    j->group = h->group * size;
    j->groups = h->groups;
    const gatun_block *block = gatun_gguf_block(h->matrix.encoding);
    const int64_t unit = block != NULL ? block->elements : j->group;
    j->piece = GATUN_PIECE;
    if (j->group <= GATUN_PIECE) {
        const int64_t most = minimum(GATUN_PIECE / j->group, MADE / h->group_stride) * j->group;
        j->piece = most < unit ? unit : most / unit * unit;
    }
    const bool whole_runs = h->groups == 1 || j->group % GATUN_RUN == 0;
    j->direct =
        whole_runs && gatun_code_layout_of(j->matrix, &j->layout) ? gatun_put_runs_of(h->form, &j->layout) : NULL;
    j->spread = gatun_put_runs_of(h->form, &gatun_byte_layout);
    const int64_t group_runs = (j->group + GATUN_RUN - 1) / GATUN_RUN;
    for (int64_t r = 0; r < RUNS; r++) {
        j->spread_runs[r] = gatun_run_at(&gatun_byte_layout, r);
        if (j->direct != NULL) {
            j->direct_runs[r] = gatun_run_at(&j->layout, r);
        }
        const int64_t in_group = r % group_runs * gatun_panel_code_bytes(h->form, GATUN_RUN);
        const int64_t to = r / group_runs * h->group_stride + in_group;
        j->spread_runs[r].to = j->direct_runs[r].to = (int32_t)to;
    }
    j->streams = gatun_streams(h->total_size);
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
    if (h.panels > 0 && h.groups > 0) {
        pack_job j = {.matrix = matrix, .packed = block, .gguf = gatun_gguf_panels_of(matrix)};
        plan(&j);
        gatun_parallel(h.panels < workers ? (int32_t)h.panels : workers, pack_body, &j);
    }
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
