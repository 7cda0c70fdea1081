/*
 * Grouped linear: y[r] = combine(activation(x'[r] * W_e^T + bias_e), other[r]) for the rows r of expert e.
 *
 * Each expert that has rows is planned and cut as linear.c does it, with a kernel and a layout of x for its own number
 * of rows; then the pieces of all experts are one list, first those of laying x out, then those of multiplying. So no
 * thread waits for the others at an expert's end, however few rows it has.
 *
 * The workspace: a group for each expert with rows | what its x is laid out to, one after the other | one scratch per
 * worker. An expert whose integer kernel cannot take one of its rows (NaN, infinity) is left to gatun_linear.
 */
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "cpu/linear_plan.h"
#include "encodings/numbers.h"

/* An expert that has rows. */
typedef struct group {
    const gatun_expert *expert;
    int64_t row0;
    int64_t rows;
    int32_t kernel;
    atomic_bool refused;
    gatun_linear_plan plan;
    gatun_linear_fill fill;
    gatun_linear_share share;
    int64_t fill_end; /* in the list of all pieces */
    int64_t share_end;
} group;

/* What all experts need together. */
typedef struct need {
    int64_t groups;
    int64_t areas;
    int64_t scratch; /* of a worker */
    int64_t least;   /* for the expert that needs most, alone and with one worker */
} need;

typedef struct job {
    group *groups;
    int64_t pieces;
    uint8_t *scratches;
    int64_t scratch;
    atomic_int_least64_t next;
} job;

static const gatun_packed *header(const gatun_expert *e) { return (const gatun_packed *)e->packed; }

/* Experts of one shape, and offsets that do not descend. */
static gatun_status check(const gatun_expert *experts, int64_t count, const int64_t *offsets) {
    if (count < 1 || experts == NULL || offsets == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT,
                          "grouped linear: found %lld experts or a null pointer, expected at least 1 and offsets",
                          (long long)count);
    }
    for (int64_t e = 0; e < count; e++) {
        gatun_status status = gatun_packed_header_check(experts[e].packed, experts[e].packed_size);
        if (status != GATUN_OK) {
            return status;
        }
        const gatun_packed *h = header(&experts[e]), *first = header(experts);
        if (h->n != first->n || h->k != first->k) {
            return gatun_fail(GATUN_INVALID_ARGUMENT,
                              "grouped linear: found expert %lld of %lld x %lld, expected %lld x %lld as the first",
                              (long long)e, (long long)h->n, (long long)h->k, (long long)first->n, (long long)first->k);
        }
        if (offsets[0] != 0 || offsets[e + 1] < offsets[e]) {
            return gatun_fail(GATUN_INVALID_ARGUMENT,
                              "grouped linear: found offsets that begin at %lld and go from %lld to %lld, expected 0 "
                              "and no descent",
                              (long long)offsets[0], (long long)offsets[e], (long long)offsets[e + 1]);
        }
    }
    return gatun_linear_check_rows(header(experts), offsets[count]);
}

/* Plans the experts that have rows, on one tier: into `groups` or, when that is null, only to see what they need. */
static gatun_status plan(const gatun_expert *experts, int64_t count, const int64_t *offsets, int32_t compute,
                         int32_t isa, group *groups, need *n) {
    *n = (need){0};
    for (int64_t e = 0; e < count; e++) {
        int64_t rows = offsets[e + 1] - offsets[e];
        if (rows == 0) {
            continue;
        }
        group alone;
        group *g = groups == NULL ? &alone : &groups[n->groups];
        const gatun_packed *h = header(&experts[e]);
        int32_t index = gatun_kernel_choose(GATUN_OP_LINEAR, compute, h->matrix.encoding, isa, h, rows, NULL);
        if (index < 0) {
            return GATUN_UNSUPPORTED;
        }
        g->expert = &experts[e];
        g->row0 = offsets[e];
        g->rows = rows;
        g->kernel = index;
        atomic_init(&g->refused, false);
        gatun_status status = gatun_linear_plan_make(h, rows, compute, gatun_table_row(index), &g->plan);
        if (status != GATUN_OK) {
            return status;
        }
        int64_t single = g->plan.area + g->plan.rescue_area + g->plan.scratch;
        n->groups++;
        n->areas += g->plan.area;
        n->scratch = g->plan.scratch > n->scratch ? g->plan.scratch : n->scratch;
        n->least = single > n->least ? single : n->least;
    }
    return GATUN_OK;
}

static int64_t table_of(const need *n) { return align(n->groups * (int64_t)sizeof(group)); }

/* All that does not depend on the workers; behind the table enough for one expert alone, too. */
static int64_t fixed(const need *n) { return table_of(n) + (n->areas > n->least ? n->areas : n->least); }

gatun_status gatun_linear_grouped_workspace(const gatun_expert *experts, int64_t count, const int64_t *offsets,
                                            int32_t compute, int32_t threads, int64_t *size) {
    if (size == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "grouped linear: found a null pointer for the workspace size");
    }
    *size = 0;
    int32_t workers;
    gatun_status status = check(experts, count, offsets);
    status = status != GATUN_OK ? status : gatun_linear_check_compute(compute);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    if (status != GATUN_OK) {
        return status;
    }
    /* Whatever tier is asked for later has enough. */
    bool any = false;
    for (int32_t isa = GATUN_ISA_SCALAR; isa <= GATUN_ISA_NEON; isa++) {
        need n;
        status = gatun_isa_usable(isa) ? plan(experts, count, offsets, compute, isa, NULL, &n) : GATUN_UNSUPPORTED;
        if (status == GATUN_UNSUPPORTED) {
            continue;
        }
        if (status != GATUN_OK) {
            return status;
        }
        int64_t bytes = fixed(&n) + workers * n.scratch;
        *size = bytes > *size ? bytes : *size;
        any = true;
    }
    return any ? GATUN_OK : GATUN_UNSUPPORTED;
}

static void fill_body(void *context, int32_t worker, int32_t workers) {
    (void)worker, (void)workers;
    job *j = (job *)context;
    group *g = j->groups;
    for (int64_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->pieces;) {
        while (i >= g->fill_end) {
            g++;
        }
        if (!gatun_linear_fill_piece(&g->fill, i - (g->fill_end - g->fill.pieces))) {
            atomic_store_explicit(&g->refused, true, memory_order_relaxed);
        }
    }
}

static void share_body(void *context, int32_t worker, int32_t workers) {
    (void)workers;
    job *j = (job *)context;
    group *g = j->groups;
    uint8_t *scratch = j->scratches + worker * j->scratch;
    for (int64_t i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->pieces;) {
        while (i >= g->share_end) {
            g++;
        }
        gatun_linear_share_piece(&g->share, i - (g->share_end - g->share.pieces), scratch);
    }
}

static void run(job *j, gatun_parallel_body *body, int64_t pieces, int32_t workers) {
    j->pieces = pieces;
    atomic_store(&j->next, 0);
    gatun_parallel((int32_t)minimum(workers, pieces), body, j);
}

/* An operation's operands, as they were handed in. */
typedef struct operands {
    const void *x;
    int32_t x_type;
    int32_t y_type;
    int64_t ldx;
    void *y;
    int64_t ldy;
    int32_t activation;
    int32_t combine;
    const void *other;
    int64_t ld_other;
} operands;

static const void *x_of(const group *g, const operands *o) {
    return (const uint8_t *)o->x + g->row0 * o->ldx * gatun_plain_size(o->x_type);
}

static void *y_of(const group *g, const operands *o) {
    return (uint8_t *)o->y + g->row0 * o->ldy * gatun_plain_size(o->y_type);
}

static const void *other_of(const group *g, const operands *o) {
    int64_t size = gatun_plain_size(o->y_type);
    return o->combine == GATUN_COMBINE_NONE ? NULL : (const uint8_t *)o->other + g->row0 * o->ld_other * size;
}

/* Cuts the work of laying out the group's x, and says what multiplying it is. */
static void prepare(group *g, const operands *o, uint8_t *area) {
    const gatun_packed *h = header(g->expert);
    gatun_linear_input input = {.packed = h,
                                .x = x_of(g, o),
                                .x_type = o->x_type,
                                .ldx = o->ldx,
                                .m = g->rows,
                                .x_multiplier = g->expert->x_multiplier};
    gatun_linear_fill_cut(&g->plan, &input, area, &g->fill);
    g->share = (gatun_linear_share){.plan = &g->plan, .packed = h};
    g->share.task = (gatun_linear_task){.packed = g->plan.packed,
                                        .x = area,
                                        .m = g->rows,
                                        .y = y_of(g, o),
                                        .y_type = o->y_type,
                                        .activation = o->activation,
                                        .ldy = o->ldy,
                                        .bias = g->expert->bias,
                                        .other = other_of(g, o),
                                        .ld_other = o->ld_other,
                                        .combine = o->combine};
}

static bool is_refused(const group *g) { return g->plan.rescue_area != 0 && atomic_load(&g->refused); }

static void multiply(group *groups, const need *n, const operands *o, uint8_t *areas, uint8_t *scratches,
                     int32_t workers) {
    int64_t fills = 0, shares = 0;
    for (group *g = groups; g < groups + n->groups; g++) {
        prepare(g, o, areas);
        fills += g->fill.pieces;
        g->fill_end = fills;
        areas += g->plan.area;
    }
    job j = {.groups = groups, .scratches = scratches, .scratch = n->scratch};
    run(&j, fill_body, fills, workers);
    for (group *g = groups; g < groups + n->groups; g++) {
        if (!is_refused(g)) {
            gatun_linear_share_cut(&g->share, 0, g->rows, workers, n->groups);
        }
        shares += g->share.pieces;
        g->share_end = shares;
    }
    run(&j, share_body, shares, workers);
}

gatun_status gatun_linear_grouped(const gatun_expert *experts, int64_t count, const int64_t *offsets, const void *x,
                                  int32_t x_type, int64_t ldx, void *y, int32_t y_type, int64_t ldy, int32_t activation,
                                  int32_t combine, const void *other, int64_t ld_other, int32_t compute, int32_t isa,
                                  int32_t threads, void *workspace, int64_t workspace_size) {
    gatun_status status = check(experts, count, offsets);
    if (status != GATUN_OK) {
        return status;
    }
    int64_t m = offsets[count], outputs = header(experts)->n, inputs = header(experts)->k;
    const operands o = {.x = x,
                        .x_type = x_type,
                        .y_type = y_type,
                        .ldx = ldx,
                        .y = y,
                        .ldy = ldy,
                        .activation = activation,
                        .combine = combine,
                        .other = other,
                        .ld_other = ld_other};
    int32_t workers;
    need n;
    status = gatun_linear_check_compute(compute);
    status = status != GATUN_OK ? status : gatun_linear_check_operand("x", x, x_type, m, inputs, ldx);
    status = status != GATUN_OK ? status : gatun_linear_check_operand("y", y, y_type, m, outputs, ldy);
    status = status != GATUN_OK
                 ? status
                 : gatun_linear_check_epilogue(outputs, y, y_type, ldy, m, activation, combine, other, ld_other);
    status = status != GATUN_OK ? status : gatun_isa_resolve(isa, &isa);
    status = status != GATUN_OK ? status : gatun_workers(threads, &workers);
    status = status != GATUN_OK ? status : plan(experts, count, offsets, compute, isa, NULL, &n);
    status = status != GATUN_OK ? status
                                : gatun_linear_fit_workers(fixed(&n), n.scratch, workspace, workspace_size, &workers);
    if (status != GATUN_OK || m == 0) {
        return status;
    }
    group *groups = (group *)workspace;
    status = plan(experts, count, offsets, compute, isa, groups, &n);
    if (status != GATUN_OK) {
        return status;
    }
    uint8_t *areas = (uint8_t *)workspace + table_of(&n);
    if (outputs > 0) {
        multiply(groups, &n, &o, areas, (uint8_t *)workspace + fixed(&n), workers);
    }
    for (const group *g = groups; g < groups + n.groups && status == GATUN_OK; g++) {
        gatun_set_last_kernel(g->kernel);
        if (is_refused(g)) {
            status =
                gatun_linear(g->expert->packed, g->expert->packed_size, x_of(g, &o), x_type, ldx, g->rows, y_of(g, &o),
                             y_type, ldy, g->expert->bias, g->expert->x_multiplier, activation, combine,
                             other_of(g, &o), ld_other, compute, isa, workers, areas, workspace_size - table_of(&n));
        }
    }
    return status;
}
