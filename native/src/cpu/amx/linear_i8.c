/*
 * linear_i8_<weight>__amx and linear_i8_block_<weight>__amx: x quantized to int8, integer products of tiles.
 *
 *   y[m][n] = sum over units of xs * ( ws * (sum b*q - (rest + zero) * sum q) + offset * sum q )
 *
 * The names are i8_plan.h's, but for b, the weight's byte as a tile takes it: what the code means, times `factor`, as a
 * signed byte, so that `rest`, what is left of the bias, is 0; where that does not fit, the code itself.
 *
 *   wide     One scale a row: a unit is all of K, and integer sums stay what they are until its end. Runs of K
 *            as runs.h says.
 *   narrow   Scales of groups: a unit is a group, or a part of a large one; its sums become floats (i8_narrow.h). That
 *            takes a conversion, a multiply-add and a store for every 16 sums of a unit, as long as two products for
 *            all 256; units of fewer than 64 k leave tiles empty besides.
 *
 * Weights of eight bits are multiplied where they lie if no tile has a rest; others become bytes in the worker's
 * scratch once for all rows.
 */
#include "cpu/amx/i8_narrow.h"
#include "cpu/amx/runs.h"
#include "cpu/kernels.h"

/* Of r->own, whatever else there is. */
static const amx_plan *plan_of(const tile_runs *r) { return (const amx_plan *)r->own; }

static const uint8_t *direct(const tile_runs *r, const run_place *at) {
    const amx_plan *plan = plan_of(r);
    const int64_t unit = at->tile / plan->unit_tiles, step = at->tile % plan->unit_tiles * r->a->steps;
    return plan->direct ? unit_codes(r->t->packed, &plan->i8, at->panel, unit) + step * 128 : NULL;
}

static void decode_words(const tile_runs *r, const run_place *at, int64_t word0, int64_t word1, uint8_t *run) {
    const amx_plan *plan = plan_of(r);
    const int64_t padded = plan->unit_tiles * r->a->steps, start = at->tile * r->a->steps;
    for (int64_t word = word0, count; word < word1; word += count) {
        const int64_t unit = (start + word) / padded, step = (start + word) % padded;
        const int64_t left = i8_unit_steps(&plan->i8, unit) - step;
        const uint8_t *codes = unit_codes(r->t->packed, &plan->i8, at->panel, unit);
        count = padded - step < word1 - word ? padded - step : word1 - word;
        decode_steps(plan, codes + step * i8_step_bytes(plan->i8.source),
                     left < 0       ? 0
                     : left < count ? left
                                    : count,
                     count, run + word * 128);
    }
}

/* ---- wide ---- */

static void wide_scales(tile_runs *r, int64_t panel, float *scales) {
    whole_scales(r->t->packed, plan_of(r), panel, 0, 1, scales);
}

static inline void wide_finish(const tile_runs *r, const finished_rows *f, int64_t rows) {
    const amx_plan *plan = plan_of(r);
    const float *x_scales = (const float *)r->t->x, *x_sums = x_scales + plan->x.row_tiles * TILE_ROWS;
    for (int64_t row = f->row; row < f->row + rows; row++) {
        const __m512 x_sum = _mm512_set1_ps(x_sums[row]);
        const __m512i rest = _mm512_set1_epi32(plan->bytes.rest * (int32_t)x_sums[row]);
        for (int h = 0; h < 2; h++) {
            const float *scales = r->scales[f->slot] + 16 * h;
            __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(finished_sums(f, row, h), rest));
            if (plan->with_sums) {
                v = _mm512_fnmadd_ps(_mm512_load_ps(scales + GATUN_PANEL), x_sum, v);
            }
            v = _mm512_mul_ps(v, _mm512_load_ps(scales));
            if (plan->with_sums) {
                v = _mm512_fmadd_ps(_mm512_load_ps(scales + 2 * GATUN_PANEL), x_sum, v);
            }
            store_half(r, row, f->panel, h, _mm512_mul_ps(_mm512_set1_ps(x_scales[row]), v));
        }
    }
}

static const run_kernel WIDE = {direct, decode_words, wide_scales, wide_finish};
static void wide_signed(tile_runs *r) { run_products(SIGNED_BYTES, &WIDE, r); }
static void wide_unsigned(tile_runs *r) { run_products(UNSIGNED_BYTES, &WIDE, r); }

/* ---- narrow ---- */

static inline void narrow_finish(const tile_runs *r, const finished_rows *f, int64_t rows) {
    for (int64_t row = f->row; row < f->row + rows; row++) {
        const __m512 scale = _mm512_set1_ps(plan_of(r)->i8.block ? 1 : ((const float *)r->t->x)[row]);
        for (int h = 0; h < 2; h++) {
            store_half(r, row, f->panel, h, _mm512_mul_ps(scale, _mm512_castsi512_ps(finished_sums(f, row, h))));
        }
    }
}

static const run_kernel NARROW = {direct, decode_words, NULL, narrow_finish};
/* By signedness of the weights, form of x's scales, sums of x, rows scaled after a product. */
#define UNITS(kind, block, with_sums, share)                                                                           \
    static void units_##kind##_##block##_##with_sums##_##share(tile_runs *r) {                                         \
        unit_products(kind, block, with_sums, share, &NARROW, r);                                                      \
    }
#define UNITS_OF(kind)                                                                                                 \
    UNITS(kind, 0, 0, 16)                                                                                              \
    UNITS(kind, 0, 0, 8)                                                                                               \
    UNITS(kind, 0, 0, 4)                                                                                               \
    UNITS(kind, 0, 1, 16) UNITS(kind, 0, 1, 8) UNITS(kind, 0, 1, 4) UNITS(kind, 1, 0, 16) UNITS(kind, 1, 1, 16)
UNITS_OF(SIGNED_BYTES)
UNITS_OF(UNSIGNED_BYTES)

/* Rows that have to be scaled after each product, a power of two: of 32 in a unit's products. */
static run_multiply *narrow_products(const amx_plan *plan) {
#define UNITS_BY_SHARE(kind, with_sums)                                                                                \
    (plan->i8.block          ? units_##kind##_1_##with_sums##_16                                                       \
     : plan->unit_tiles == 1 ? units_##kind##_0_##with_sums##_16                                                       \
     : plan->unit_tiles < 4  ? units_##kind##_0_##with_sums##_8                                                        \
                             : units_##kind##_0_##with_sums##_4)
    if (plan->bytes.is_unsigned) {
        return plan->with_sums ? UNITS_BY_SHARE(UNSIGNED_BYTES, 1) : UNITS_BY_SHARE(UNSIGNED_BYTES, 0);
    }
    return plan->with_sums ? UNITS_BY_SHARE(SIGNED_BYTES, 1) : UNITS_BY_SHARE(SIGNED_BYTES, 0);
}

/* ---- the kernels ---- */

static int64_t scratch_bytes(const gatun_packed *p, bool block) {
    amx_plan plan;
    make_amx_plan(p, block, BLOCK_ROWS, &plan);
    return runs_scratch_bytes(&plan.x) + (plan.wide ? 0 : narrow_scratch_bytes(&plan));
}

static int64_t rows_at_once(const gatun_packed *p, bool block) {
    amx_plan plan;
    make_amx_plan(p, block, BLOCK_ROWS, &plan);
    return block_rows(&plan.x);
}

static void run(const gatun_linear_task *t, bool block) {
    narrow_own own;
    amx_plan *plan = &own.plan;
    make_amx_plan(t->packed, block, t->m, plan);
    own.units = (int32_t *)(void *)(t->scratch + runs_scratch_bytes(&plan->x));
    own.scales = (float *)(void *)(own.units + STEPS * STEP_SUMS);
    tile_runs r = tile_runs_of(t, &plan->x, &own, (const uint8_t *)t->x + head_bytes(plan), t->scratch);
    run_multiply *wide = plan->bytes.is_unsigned ? wide_unsigned : wide_signed;
    run_all(plan->wide ? wide : narrow_products(plan), plan->wide ? &WIDE : &NARROW, &r);
}

#define KERNEL(name, block)                                                                                            \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return x_bytes(p, block, m); }                     \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return fill(in, block, row0, row1, area);                                                                      \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return scratch_bytes(p, block); }                           \
    static int64_t name##_rows(const gatun_packed *p) { return rows_at_once(p, block); }                               \
    const gatun_x_layout name##_x__amx = {.row_tile = TILE_ROWS,                                                       \
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
