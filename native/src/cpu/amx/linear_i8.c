/*
 * linear_i8_<weight>__amx and linear_i8_block_<weight>__amx: x quantized to int8, integer products of tiles.
 *
 *   y[m][n] = sum over units of xs * ( ws * (sum b*q - (rest + zero) * sum q) + offset * sum q )
 *
 * The names are i8_plan.h's, but for b, the weight's byte as a tile takes it: what the code means, times `factor`, as a
 * signed byte, so that `rest`, what is left of the bias, is 0; where that does not fit, the code itself.
 *
 *   wide     One scale a row: a unit is all of K, and integer sums stay what they are until its end. Runs of K as in
 *            linear_bf16.c.
 *   narrow   Scales of groups: a unit is a group, or some 128 k of one; its sums become floats, 16 rows by 16 outputs
 *            at a time. While the processor multiplies four tiles of sums, the four before, which lie in the
 *            first-level cache, are turned to floats, 16 registers of them. That takes a multiply-add and a conversion
 *            for each 16 products' row of a unit, and a store; units of 64 k or fewer are bound by it, and those of
 *            fewer than 64 leave tiles empty besides.
 *
 * Weights of eight bits are multiplied where they lie if no tile has a rest; others become bytes in the worker's
 * scratch once for all rows.
 */
#include "cpu/amx/i8_narrow.h"
#include "cpu/amx/runs.h"
#include "cpu/kernels.h"

/* ---- wide ---- */

/* Of r->own, a plan. */
static const amx_plan *plan_of(const tile_runs *r) { return (const amx_plan *)r->own; }

static const uint8_t *direct(const tile_runs *r, const run_place *at) {
    const int64_t step = at->tile * r->a->steps;
    return plan_of(r)->direct ? unit_codes(r->t->packed, &plan_of(r)->i8, at->panel, 0) + step * 128 : NULL;
}

static void decode_words(const tile_runs *r, const run_place *at, int64_t word0, int64_t word1, uint8_t *run) {
    const amx_plan *plan = plan_of(r);
    const int64_t step = at->tile * r->a->steps + word0, left = plan->i8.group_steps - step, all = word1 - word0;
    const uint8_t *codes = unit_codes(r->t->packed, &plan->i8, at->panel, 0) + step * i8_step_bytes(plan->i8.source);
    decode_steps(plan, codes, left < 0 ? 0 : left < all ? left : all, all, run + word0 * 128);
}

static void scales(tile_runs *r, int64_t panel, float *scales) {
    whole_scales(r->t->packed, plan_of(r), panel, 0, 1, scales);
}

static inline void finish(const tile_runs *r, const finished_rows *f, int64_t rows) {
    const amx_plan *plan = plan_of(r);
    const float *x_scales = (const float *)r->t->x, *x_sums = x_scales + plan->x.row_tiles * TILE_ROWS;
    for (int64_t row = f->row; row < f->row + rows; row++) {
        const __m512 x_sum = _mm512_set1_ps(x_sums[row]);
        const __m512i rest = _mm512_set1_epi32(plan->bytes.rest * (int32_t)x_sums[row]);
        for (int h = 0; h < 2; h++) {
            const float *scales = r->scales[f->slot] + 16 * h;
            __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(finished_sums(r, f, row, h)), rest));
            if (plan->with_sums) {
                v = _mm512_fnmadd_ps(_mm512_load_ps(scales + GATUN_PANEL), x_sum, v);
            }
            v = _mm512_mul_ps(v, _mm512_load_ps(scales));
            if (plan->with_sums) {
                v = _mm512_fmadd_ps(_mm512_load_ps(scales + 2 * GATUN_PANEL), x_sum, v);
            }
            store_half(r->t, row, f->panel, h, _mm512_mul_ps(_mm512_set1_ps(x_scales[row]), v));
        }
    }
}

static const run_kernel WIDE = {direct, decode_words, scales, finish};

/* ---- the kernels ---- */

static int64_t scratch_bytes(const gatun_packed *p, bool block) {
    amx_plan plan;
    make_amx_plan(p, block, BLOCK_ROWS, &plan);
    return plan.wide ? runs_scratch_bytes(&plan.x) : cut_scratch(&plan, NULL).bytes;
}

static int64_t rows_at_once(const gatun_packed *p, bool block) {
    amx_plan plan;
    make_amx_plan(p, block, BLOCK_ROWS, &plan);
    return plan.wide ? block_rows(&plan.x) : SUM_ROWS;
}

static void run(const gatun_linear_task *t, bool block) {
    amx_plan plan;
    make_amx_plan(t->packed, block, t->m, &plan);
    if (!plan.wide) {
        run_narrow(t, &plan);
        return;
    }
    tile_runs r = tile_runs_of(t, &plan.x, &plan, (const uint8_t *)t->x + head_bytes(&plan), t->scratch);
    if (plan.bytes.is_unsigned) {
        run_all(UNSIGNED_BYTES, &WIDE, &r);
    } else {
        run_all(SIGNED_BYTES, &WIDE, &r);
    }
}

#define KERNEL(name, block)                                                                                            \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return x_bytes(p, block, m); }                     \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return fill(in, block, row0, row1, area);                                                                      \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return scratch_bytes(p, block); }                           \
    static int64_t name##_rows(const gatun_packed *p) { return rows_at_once(p, block); }                               \
    const gatun_x_layout name##_x__amx = {.row_tile = ROW_TILE,                                                        \
                                          .bytes = name##_bytes,                                                       \
                                          .fill = name##_fill,                                                         \
                                          .scratch = name##_scratch,                                                   \
                                          .least_rows = LEAST_ROWS,                                                    \
                                          .panel_run = PANEL_RUN,                                                      \
                                          .row_run = name##_rows};                                                     \
    void name##__amx(const gatun_linear_task *t) { run(t, block); }                                                    \
    bool name##_accepts__amx(const gatun_packed *p) {                                                                  \
        amx_plan plan;                                                                                                 \
        return make_amx_plan(p, block, 1, &plan);                                                                      \
    }
KERNEL(gatun_linear_i8, 0)
KERNEL(gatun_linear_i8_block, 1)
