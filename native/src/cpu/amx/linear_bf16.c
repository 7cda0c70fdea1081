/*
 * linear_bf16_<weight>__amx: x and dequantized weights as bfloat16, float sums by tdpbf16ps.
 *
 *   y[m][n] = sum over k of x[m][k] * w[n][k],   w = (table[code] - zero) * scale + offset
 *
 * Words [word][32], as bfloat16 panels lie already, are dequantized (avx512/float_weights.inc) and multiplied as runs.h
 * says. tdpbf16ps takes subnormals for zero, as vdpbf16ps does.
 */
#define BF16 1
#include "cpu/amx/runs.h"
#include "cpu/kernels.h"

#include "cpu/avx512/float_weights.inc"

static x_area area_of(const gatun_packed *p, int64_t m, float_plan *plan) {
    make_plan(p, AS_IS, m > FUSED_ROWS ? m : FUSED_ROWS + 1, plan);
    x_area a = {.row_tiles = tiles_of(m, TILE_ROWS), .steps = TILE_STEPS};
    a.tiles = tiles_of(plan->words, TILE_STEPS);
    a.run = run_tiles(a.tiles, a.steps);
    return a;
}

static int64_t x_bytes(const gatun_packed *p, int64_t m) {
    float_plan plan;
    x_area a = area_of(p, m, &plan);
    return x_area_bytes(&a);
}

GATUN_INLINE void fill_rows(const bool usual, const gatun_linear_input *in, const x_area *a, const float_plan *plan,
                            int64_t row0, int64_t row1, void *area) {
    const int64_t end = tiles_of(row1, TILE_ROWS) * TILE_ROWS;
    for (int64_t row = row0; row < end; row++) {
        x_row to = x_row_of(area, row);
        for (int64_t k = 0; k < a->tiles * 2 * TILE_STEPS; k += 2 * TILE_STEPS) {
            uint8_t *at = x_row_next(a, &to);
            for (int64_t half = 0; half < 2; half++) {
                __m512 v = row < row1 ? x_floats(usual, in, row, k + 16 * half, in->packed->k) : _mm512_setzero_ps();
                _mm256_storeu_si256((__m256i *)(at + 32 * half), _mm512_castsi512_si256(x_words(plan, v)));
            }
        }
    }
}

static bool fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    float_plan plan;
    x_area a = area_of(in->packed, in->m, &plan);
    if (x_is_usual(in)) {
        fill_rows(true, in, &a, &plan, row0, row1, area);
    } else {
        fill_rows(false, in, &a, &plan, row0, row1, area);
    }
    return true;
}

static int64_t scratch_bytes(const gatun_packed *p) {
    float_plan plan;
    x_area a = area_of(p, BLOCK_ROWS, &plan);
    return runs_scratch_bytes(&a);
}

static int64_t rows_at_once(const gatun_packed *p) {
    float_plan plan;
    x_area a = area_of(p, BLOCK_ROWS, &plan);
    return block_rows(&a);
}

typedef struct own {
    float_plan plan;
    float_table table;
} own;

static const uint8_t *direct(const tile_runs *r, const run_place *at) {
    const float_plan *plan = &((const own *)r->own)->plan;
    const int64_t word0 = at->tile * TILE_STEPS, end = word0 + x_run(r->a, at->tile) * TILE_STEPS;
    return plan->direct && end <= plan->words ? gatun_packed_group(r->t->packed, at->panel, 0) + word0 * 128 : NULL;
}

static void decode_words(const tile_runs *r, const run_place *at, int64_t word0, int64_t word1, uint8_t *run) {
    const own *o = (const own *)r->own;
    const int64_t before = at->tile * TILE_STEPS, left = o->plan.words - before;
    const int64_t end = word1 < left ? word1 : left;
    if (word0 < end) {
        decode(r->t->packed, &o->plan, &o->table, at->panel, before + word0, before + end,
               (uint32_t *)(void *)(run + word0 * 128));
    }
    const int64_t none = word0 < end ? end : word0;
    memset(run + none * 128, 0, (size_t)((word1 - none) * 128));
}

static void scales(tile_runs *r, int64_t panel, float *scales) {
    gatun_parameters at = gatun_packed_parameters(r->t->packed, panel, 0);
    for (int h = 0; h < 2; h++) {
        bool after = ((const own *)r->own)->plan.scale_after;
        _mm512_store_ps(scales + 16 * h, after ? load_scale(r->t->packed, at, h) : _mm512_set1_ps(1));
    }
}

static inline void finish(const tile_runs *r, const finished_rows *f, int64_t rows) {
    const bool after = ((const own *)r->own)->plan.scale_after;
    for (int64_t row = f->row; row < f->row + rows; row++) {
        for (int h = 0; h < 2; h++) {
            __m512 v = _mm512_castsi512_ps(finished_sums(f, row, h));
            store_half(r, row, f->panel, h, after ? _mm512_mul_ps(v, _mm512_load_ps(r->scales[f->slot] + 16 * h)) : v);
        }
    }
}

static const run_kernel KERNEL = {direct, decode_words, scales, finish};
static void products(tile_runs *r) { run_products(BFLOATS, &KERNEL, r); }

void gatun_linear_bf16__amx(const gatun_linear_task *t) {
    own o;
    const x_area a = area_of(t->packed, t->m, &o.plan);
    o.table = load_table(t->packed, &o.plan);
    tile_runs r = tile_runs_of(t, &a, &o, t->x, t->scratch);
    run_all(products, &KERNEL, &r);
}

bool gatun_linear_bf16_accepts__amx(const gatun_packed *p) {
    float_plan plan;
    return p->form == GATUN_FORM_SOURCE || make_plan(p, AS_IS, 1, &plan);
}

const gatun_x_layout gatun_linear_bf16_x__amx = {.row_tile = TILE_ROWS,
                                                 .bytes = x_bytes,
                                                 .fill = fill,
                                                 .scratch = scratch_bytes,
                                                 .least_rows = LEAST_ROWS,
                                                 .panel_run = 2 * PANEL_RUN,
                                                 .row_run = rows_at_once};
