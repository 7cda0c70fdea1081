/*
 * linear: y = combine(activation(x' * W^T + bias), other).
 *
 * Checks everything, chooses the kernel, lets its layout lay x out (in parallel, tiles of rows), and hands out panels
 * (and, when there are few panels, runs of rows) to the workers. Every output is computed by one kernel call from all
 * of K, so its bits do not depend on who computes it or when.
 *
 * The workspace: what x is laid out to | one scratch per worker.
 *
 * A SOURCE block has no panels. A kernel whose row says from_source gets PLAIN ones: a worker dequantizes the 32 rows
 * of a panel into its scratch, behind a header of its own, and calls the kernel for that panel.
 *
 * Integer kernels cannot take a row of x with NaN or infinity, and their layout says so. The tiles that have such a row
 * are then left to the scalar kernel, row by row.
 */
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "cpu/linear_plan.h"
#include "encodings/numbers.h"

enum { PANEL_RUNS = 8, FILL_ELEMENTS = 16384 };

static bool is_integer(int32_t compute) { return compute == GATUN_COMPUTE_I8 || compute == GATUN_COMPUTE_I8_BLOCK; }

static int64_t scratch_of(const gatun_x_layout *layout, const gatun_packed *packed) {
    return layout->scratch == NULL ? 0 : align(layout->scratch(packed));
}

static const gatun_x_layout *scalar_layout(int32_t compute) {
    return compute == GATUN_COMPUTE_I8 ? &gatun_x_scalar_i8 : &gatun_x_scalar_i8_block;
}

/* The header of a PLAIN block with one panel's rows less or more: what from_source kernels are handed. */
static gatun_status plain_header(const gatun_packed *packed, int32_t compute, int64_t n, gatun_packed *header) {
    int32_t type = compute == GATUN_COMPUTE_BF16 ? GATUN_BF16 : GATUN_F32;
    gatun_matrix m = {.n = n,
                      .k = packed->k,
                      .encoding = type,
                      .block_rows = 1,
                      .block_cols = packed->k,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32,
                      .global_scale = 1.0f};
    return gatun_packed_plan(&m, header);
}

gatun_status gatun_linear_plan_make(const gatun_packed *packed, int64_t m, int32_t compute, const gatun_kernel_row *row,
                                    gatun_linear_plan *p) {
    *p = (gatun_linear_plan){.row = row, .packed = packed};
    p->from_source = row->from_source && packed->form == GATUN_FORM_SOURCE;
    if (p->from_source) {
        gatun_status status = plain_header(packed, compute, packed->n, &p->plain);
        if (status != GATUN_OK) {
            return status;
        }
        p->packed = &p->plain;
        p->panel_bytes = p->plain.panels_offset + p->plain.panel_stride + align(packed->k * (int64_t)sizeof(float));
    }
    p->area = align(row->layout->bytes(p->packed, m));
    p->scratch = align(p->panel_bytes) + scratch_of(row->layout, p->packed);
    if (is_integer(compute) && row->info.isa != GATUN_ISA_SCALAR) {
        const gatun_x_layout *layout = scalar_layout(compute);
        p->rescue_area = align(layout->bytes(packed, 1)) + scratch_of(layout, packed);
    }
    return GATUN_OK;
}

static int64_t workspace_of(const gatun_linear_plan *p, int32_t workers) {
    return p->area + p->rescue_area + workers * p->scratch;
}

/* Shapes whose workspace could overflow 63 bits are refused before anything is multiplied. */
gatun_status gatun_linear_check_rows(const gatun_packed *packed, int64_t m) {
    if (m < 0 || m > INT64_MAX / 1024 / (packed->k + 4096)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found %lld rows of %lld, expected 0 to what memory can hold",
                          (long long)m, (long long)packed->k);
    }
    return GATUN_OK;
}

gatun_status gatun_linear_check_compute(int32_t compute) {
    if (compute < GATUN_COMPUTE_F32 || compute > GATUN_COMPUTE_I8_BLOCK) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found compute %d, expected 1 to 4", compute);
    }
    return GATUN_OK;
}

gatun_status gatun_linear_workspace(const void *packed, int64_t packed_size, int64_t m, int32_t compute,
                                    int32_t threads, int64_t *size) {
    if (size == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer for the workspace size");
    }
    *size = 0;
    const gatun_packed *h = (const gatun_packed *)packed;
    int32_t workers;
    gatun_status status = gatun_packed_header_check(packed, packed_size);
    status = status != GATUN_OK ? status : gatun_linear_check_compute(compute);
    status = status != GATUN_OK ? status : gatun_linear_check_rows(h, m);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    /* Whatever tier is asked for later has enough. */
    bool any = false;
    for (int32_t isa = GATUN_ISA_SCALAR; isa <= GATUN_ISA_NEON; isa++) {
        int32_t index = gatun_isa_usable(isa)
                            ? gatun_kernel_choose(GATUN_OP_LINEAR, compute, h->matrix.encoding, isa, h, m, NULL)
                            : -1;
        gatun_linear_plan p;
        if (index < 0) {
            continue;
        }
        status = gatun_linear_plan_make(h, m, compute, gatun_table_row(index), &p);
        if (status != GATUN_OK) {
            return status;
        }
        int64_t need = workspace_of(&p, workers);
        *size = need > *size ? need : *size;
        any = true;
    }
    return any ? GATUN_OK : GATUN_UNSUPPORTED;
}

/* ---- laying out x ---- */

void gatun_linear_fill_cut(const gatun_linear_plan *p, const gatun_linear_input *input, void *area,
                           gatun_linear_fill *f) {
    *f = (gatun_linear_fill){.layout = p->row->layout, .input = *input, .area = area};
    f->input.packed = p->packed;
    int64_t tile = f->layout->row_tile;
    f->at_once = FILL_ELEMENTS / (tile * (p->packed->k + 1)) + 1;
    f->pieces = pieces_of(pieces_of(input->m, tile), f->at_once);
}

bool gatun_linear_fill_piece(const gatun_linear_fill *f, int64_t piece) {
    int64_t row0 = piece * f->at_once * f->layout->row_tile;
    int64_t row1 = minimum(row0 + f->at_once * f->layout->row_tile, f->input.m);
    return f->layout->fill(&f->input, row0, row1, f->area);
}

typedef struct fill_job {
    gatun_linear_fill fill;
    atomic_int_least64_t next;
    atomic_bool refused;
} fill_job;

static void fill_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    fill_job *j = (fill_job *)context;
    for (int64_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->fill.pieces;) {
        if (!gatun_linear_fill_piece(&j->fill, i)) {
            atomic_store_explicit(&j->refused, true, memory_order_relaxed);
        }
    }
}

/* Whether the kernel can take all rows. */
static bool lay_out_x(const gatun_linear_plan *p, const gatun_linear_input *input, void *area, int32_t workers) {
    fill_job j = {.refused = false};
    gatun_linear_fill_cut(p, input, area, &j.fill);
    gatun_parallel((int32_t)minimum(workers, j.fill.pieces), fill_body, &j);
    return !atomic_load(&j.refused);
}

/* ---- multiplying ---- */

/* Dequantizes the rows of a panel and calls the kernel for it, as the only panel of a block. */
static void multiply_source(const gatun_linear_share *j, gatun_linear_task *t, int64_t panel, uint8_t *scratch) {
    const gatun_packed *source = j->packed;
    int64_t first = panel * GATUN_PANEL;
    int64_t count = minimum(GATUN_PANEL, source->n - first);
    gatun_packed *block = (gatun_packed *)(void *)scratch;
    if (plain_header(source, j->plan->row->info.compute, count, block) != GATUN_OK) {
        return; /* cannot be: the whole weight's header was made before */
    }
    uint8_t *to = scratch + block->panels_offset;
    float *values = (float *)(void *)(to + block->panel_stride);
    memset(to, 0, (size_t)block->panel_stride);
    for (int64_t o = 0; o < count; o++) {
        gatun_packed_values(source, first + o, 0, source->k, false, values);
        gatun_plain_panel_put(block->matrix.encoding, to, o, source->k, values);
    }
    gatun_linear_task one = *t;
    one.packed = block;
    one.panel0 = 0;
    one.panel1 = 1;
    int64_t size = gatun_plain_size(t->y_type);
    one.y = (uint8_t *)t->y + first * size;
    one.bias = t->bias == NULL ? NULL : t->bias + first;
    one.other = t->other == NULL ? NULL : (const uint8_t *)t->other + first * size;
    one.scratch = scratch + align(j->plan->panel_bytes);
    j->plan->row->linear(&one);
}

void gatun_linear_share_piece(const gatun_linear_share *j, int64_t piece, uint8_t *scratch) {
    gatun_linear_task t = j->task;
    t.panel0 = piece % j->panel_pieces * j->panels;
    t.panel1 = minimum(t.panel0 + j->panels, pieces_of(j->packed->n, GATUN_PANEL));
    t.row0 = j->row0 + piece / j->panel_pieces * j->rows;
    t.row1 = minimum(t.row0 + j->rows, j->row1);
    if (!j->plan->from_source) {
        t.scratch = scratch;
        j->plan->row->linear(&t);
        return;
    }
    for (int64_t panel = t.panel0; panel < t.panel1; panel++) {
        multiply_source(j, &t, panel, scratch);
    }
}

void gatun_linear_share_cut(gatun_linear_share *j, int64_t row0, int64_t row1, int32_t workers, int64_t shares) {
    j->row0 = row0;
    j->row1 = row1;
    int64_t panels = pieces_of(j->packed->n, GATUN_PANEL);
    int64_t wanted = workers == 1 ? 1 : pieces_of((int64_t)workers * PANEL_RUNS, shares);
    int64_t run = minimum(j->plan->row->layout->panel_run, panels / workers);
    j->panels = panels / wanted > run ? panels / wanted : run > 0 ? run : 1;
    j->panel_pieces = pieces_of(panels, j->panels);
    int64_t tile = j->plan->row->layout->row_tile;
    int64_t tiles = pieces_of(row1 - row0, tile);
    int64_t least = pieces_of(2 * (int64_t)workers, shares);
    int64_t row_runs = workers > 1 && j->panel_pieces < least ? pieces_of(least, j->panel_pieces) : 1;
    j->rows = pieces_of(tiles, minimum(row_runs, tiles)) * tile;
    if (j->plan->row->layout->row_run != NULL && !j->plan->from_source) { /* a panel is dequantized once a piece */
        j->rows = minimum(j->rows, j->plan->row->layout->row_run(j->plan->packed));
    }
    j->pieces = j->panel_pieces * pieces_of(row1 - row0, j->rows);
}

typedef struct multiply_job {
    gatun_linear_share share;
    uint8_t *scratches;
    atomic_int_least64_t next;
} multiply_job;

static void multiply_body(void *context, int32_t worker, int32_t workers) {
    (void)workers;
    multiply_job *j = (multiply_job *)context;
    uint8_t *scratch = j->scratches + worker * j->share.plan->scratch;
    for (int64_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->share.pieces;) {
        gatun_linear_share_piece(&j->share, i, scratch);
    }
}

static void multiply(multiply_job *j, int64_t row0, int64_t row1, int32_t workers) {
    if (row0 >= row1) {
        return;
    }
    gatun_linear_share_cut(&j->share, row0, row1, workers, 1);
    atomic_store(&j->next, 0);
    gatun_parallel((int32_t)minimum(workers, j->share.pieces), multiply_body, j);
}

/* ---- rows with NaN and infinity ---- */

static bool is_finite_row(const gatun_linear_input *in, int64_t row) {
    for (int64_t k = 0; k < in->packed->k; k++) {
        float v = gatun_plain_get(in->x_type, in->x, row * in->ldx + k);
        if (!isfinite(in->x_multiplier == NULL ? v : v * in->x_multiplier[k])) {
            return false;
        }
    }
    return true;
}

static void scalar_row(const gatun_linear_share *j, const gatun_linear_input *input, int64_t row, uint8_t *area) {
    int32_t compute = j->plan->row->info.compute;
    const gatun_x_layout *layout = scalar_layout(compute);
    gatun_linear_input in = *input;
    in.x = (const uint8_t *)input->x + row * input->ldx * gatun_plain_size(input->x_type);
    in.m = 1;
    layout->fill(&in, 0, 1, area);
    int64_t size = gatun_plain_size(j->task.y_type);
    gatun_linear_task t = j->task;
    t.packed = j->packed;
    t.x = area;
    t.m = 1;
    t.row1 = 1;
    t.panel1 = pieces_of(j->packed->n, GATUN_PANEL);
    t.y = (uint8_t *)t.y + row * t.ldy * size;
    t.other = t.other == NULL ? NULL : (const uint8_t *)t.other + row * t.ld_other * size;
    t.scratch = area + j->plan->rescue_area - scratch_of(layout, j->packed);
    (compute == GATUN_COMPUTE_I8 ? gatun_linear_i8__scalar : gatun_linear_i8_block__scalar)(&t);
}

/* Runs of tiles that are finite to the kernel, the rows of the others to the scalar one. */
static void multiply_around(multiply_job *j, const gatun_linear_input *input, uint8_t *area, int32_t workers) {
    int64_t tile = j->share.plan->row->layout->row_tile;
    int64_t run = 0; /* first row not done */
    for (int64_t row0 = 0; row0 < input->m; row0 += tile) {
        int64_t row1 = minimum(row0 + tile, input->m);
        bool finite = true;
        for (int64_t row = row0; row < row1 && finite; row++) {
            finite = is_finite_row(input, row);
        }
        if (finite) {
            continue;
        }
        multiply(j, run, row0, workers);
        for (int64_t row = row0; row < row1; row++) {
            scalar_row(&j->share, input, row, area);
        }
        run = row1;
    }
    multiply(j, run, input->m, workers);
}

/* ---- the operation ---- */

gatun_status gatun_linear_check_operand(const char *what, const void *data, int32_t type, int64_t rows, int64_t columns,
                                        int64_t ld) {
    if (!gatun_is_plain(type)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found %s of type %d, expected F32, F16 or BF16", what, type);
    }
    int64_t elements;
    if (ld < columns || __builtin_mul_overflow(rows, ld, &elements) || elements > INT64_MAX / 8) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "linear: found rows of %s %lld elements apart, expected at least %lld and no overflow", what,
                          (long long)ld, (long long)columns);
    }
    if (data == NULL && rows > 0 && columns > 0) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer for %s", what);
    }
    return GATUN_OK;
}

gatun_status gatun_linear_check_epilogue(int64_t n, const void *y, int32_t y_type, int64_t ldy, int64_t m,
                                         int32_t activation, int32_t combine, const void *other, int64_t ld_other) {
    if (activation < GATUN_ACTIVATION_NONE || activation > GATUN_ACTIVATION_SILU) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found activation %d, expected 0 to 3", activation);
    }
    if (combine < GATUN_COMBINE_NONE || combine > GATUN_COMBINE_MULTIPLY) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found combine %d, expected 0 to 2", combine);
    }
    if (combine == GATUN_COMBINE_NONE) {
        return GATUN_OK;
    }
    if (other == y && ld_other != ldy) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found other at y's address with another stride");
    }
    return gatun_linear_check_operand("other", other, y_type, m, n, ld_other);
}

gatun_status gatun_linear_fit_workers(int64_t fixed, int64_t each, const void *workspace, int64_t size,
                                      int32_t *workers) {
    int64_t need = fixed + *workers * each;
    if (need > 0 && (workspace == NULL || (uintptr_t)workspace % GATUN_PACKED_ALIGNMENT != 0)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found %s workspace, expected one aligned to %d bytes",
                          workspace == NULL ? "a null" : "an unaligned", GATUN_PACKED_ALIGNMENT);
    }
    while (*workers > 1 && fixed + *workers * each > size) {
        --*workers;
    }
    if (fixed + *workers * each > size) {
        return gatun_fail(GATUN_BUFFER_TOO_SMALL, "linear: found a workspace of %lld bytes, expected %lld",
                          (long long)size, (long long)need);
    }
    return GATUN_OK;
}

static gatun_status linear(const void *packed, int64_t packed_size, const void *x, int32_t x_type, int64_t ldx,
                           int64_t m, void *y, int32_t y_type, int64_t ldy, const float *bias,
                           const float *x_multiplier, float x_scale, int32_t activation, int32_t combine,
                           const void *other, int64_t ld_other, int32_t compute, int32_t isa, int32_t threads,
                           void *workspace, int64_t workspace_size) {
    const gatun_packed *h = (const gatun_packed *)packed;
    int32_t workers;
    gatun_status status = gatun_packed_header_check(packed, packed_size);
    status = status != GATUN_OK ? status : gatun_linear_check_compute(compute);
    status = status != GATUN_OK ? status : gatun_linear_check_rows(h, m);
    status = status != GATUN_OK ? status : gatun_linear_check_operand("x", x, x_type, m, h->k, ldx);
    status = status != GATUN_OK ? status : gatun_linear_check_operand("y", y, y_type, m, h->n, ldy);
    status = status != GATUN_OK
                 ? status
                 : gatun_linear_check_epilogue(h->n, y, y_type, ldy, m, activation, combine, other, ld_other);
    status = status != GATUN_OK ? status : gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    int32_t index = gatun_kernel_choose(GATUN_OP_LINEAR, compute, h->matrix.encoding, isa, h, m, NULL);
    if (index < 0) {
        return GATUN_UNSUPPORTED;
    }
    gatun_linear_plan p;
    status = gatun_linear_plan_make(h, m, compute, gatun_table_row(index), &p);
    status = status != GATUN_OK
                 ? status
                 : gatun_linear_fit_workers(p.area + p.rescue_area, p.scratch, workspace, workspace_size, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    gatun_set_last_kernel(index);
    if (m == 0 || h->n == 0) {
        return GATUN_OK;
    }
    gatun_linear_input input = {h, x, x_type, ldx, m, x_multiplier, x_scale};
    uint8_t *area = (uint8_t *)workspace;
    bool finite = lay_out_x(&p, &input, area, workers);
    multiply_job j = {.share = {.plan = &p, .packed = h}, .scratches = area + p.area + p.rescue_area};
    j.share.task = (gatun_linear_task){.packed = p.packed,
                                       .x = area,
                                       .m = m,
                                       .y = y,
                                       .y_type = y_type,
                                       .activation = activation,
                                       .ldy = ldy,
                                       .bias = bias,
                                       .other = combine == GATUN_COMBINE_NONE ? NULL : other,
                                       .ld_other = ld_other,
                                       .combine = combine};
    if (finite || p.rescue_area == 0) {
        multiply(&j, 0, m, workers);
    } else {
        multiply_around(&j, &input, area + p.area, workers);
    }
    return GATUN_OK;
}

gatun_status gatun_linear(const void *packed, int64_t packed_size, const void *x, int32_t x_type, int64_t ldx,
                          int64_t m, void *y, int32_t y_type, int64_t ldy, const float *bias, const float *x_multiplier,
                          int32_t activation, int32_t combine, const void *other, int64_t ld_other, int32_t compute,
                          int32_t isa, int32_t threads, void *workspace, int64_t workspace_size) {
    return linear(packed, packed_size, x, x_type, ldx, m, y, y_type, ldy, bias, x_multiplier, 0.0f, activation, combine,
                  other, ld_other, compute, isa, threads, workspace, workspace_size);
}

gatun_status gatun_linear_static(const void *packed, int64_t packed_size, const void *x, int32_t x_type, int64_t ldx,
                                 float x_scale, int64_t m, void *y, int32_t y_type, int64_t ldy, const float *bias,
                                 int32_t activation, int32_t combine, const void *other, int64_t ld_other, int32_t isa,
                                 int32_t threads, void *workspace, int64_t workspace_size) {
    if (!(x_scale > 0) || !isfinite(x_scale)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "linear: found a scale of x of %g, expected a positive number",
                          (double)x_scale);
    }
    return linear(packed, packed_size, x, x_type, ldx, m, y, y_type, ldy, bias, NULL, x_scale, activation, combine,
                  other, ld_other, GATUN_COMPUTE_I8, isa, threads, workspace, workspace_size);
}
