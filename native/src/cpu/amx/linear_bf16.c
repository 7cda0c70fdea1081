/*
 * linear_bf16_<weight>__amx: x and dequantized weights as bfloat16, float sums by tdpbf16ps.
 *
 *   y[m][n] = sum over k of x[m][k] * w[n][k],   w = (table[code] - zero) * scale + offset
 *
 * A run of K, half of the first-level cache, of a panel is dequantized to words [word][32] in the worker's scratch
 * (avx512/float_weights.inc), where bfloat16 panels lie so already; tiles of it are multiplied by all rows of x before
 * the next run. Sums wait in scratch. A worker goes through K with several panels at a time, so that a run of x, which
 * comes from the second-level cache, is used by all of them. tdpbf16ps takes subnormals for zero, as vdpbf16ps does.
 */
#define BF16 1
#include "cpu/amx/tiles.h"
#include "cpu/avx512/epilogue.h"
#include "cpu/kernels.h"

#include "cpu/avx512/float_weights.inc"

static x_area area_of(const gatun_packed *p, int64_t m, float_plan *plan) {
    make_plan(p, AS_IS, m > FUSED_ROWS ? m : FUSED_ROWS + 1, plan);
    x_area a = {.row_tiles = tiles_of(m, TILE_ROWS), .steps = TILE_STEPS};
    a.tiles = tiles_of(plan->words, TILE_STEPS);
    a.run = gatun_cache_bytes(1) / 2 / (TILE_STEPS * 128);
    a.run = a.run < 1 ? 1 : a.run > a.tiles ? a.tiles : a.run;
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
        x_row to = x_row_of(a, area, row);
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
    x_area a = area_of(p, SUM_ROWS, &plan);
    return RUN_PANELS * SUM_BYTES + a.run * TILE_STEPS * 128;
}

/* The words of a run of tiles, dequantized or where they lie. */
static const uint8_t *weights(const gatun_packed *p, const float_plan *plan, const float_table *table, int64_t panel,
                              int64_t tile, int64_t count, uint8_t *decoded) {
    int64_t word0 = tile * TILE_STEPS, all = count * TILE_STEPS;
    int64_t word1 = word0 + all < plan->words ? word0 + all : plan->words;
    if (plan->direct && word1 - word0 == all) {
        return gatun_packed_group(p, panel, 0) + word0 * 128;
    }
    decode(p, plan, table, panel, word0, word1, (uint32_t *)(void *)decoded);
    memset(decoded + (word1 - word0) * 128, 0, (size_t)((all - (word1 - word0)) * 128));
    return decoded;
}

static void finish(const gatun_linear_task *t, const float_plan *plan, int64_t row0, int64_t rows, int64_t panel,
                   float *sums) {
    if (plan->scale_after) {
        gatun_parameters at = gatun_packed_parameters(t->packed, panel, 0);
        for (int h = 0; h < 2; h++) {
            __m512 scale = load_scale(t->packed, at, h);
            for (int64_t r = 0; r < rows; r++) {
                float *sum = sums + r * GATUN_PANEL + 16 * h;
                _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), scale));
            }
        }
    }
    store_tile(t, row0, rows, panel, sums);
}

void gatun_linear_bf16__amx(const gatun_linear_task *t) {
    float_plan plan;
    const x_area a = area_of(t->packed, t->m, &plan);
    const float_table table = load_table(t->packed, &plan);
    uint8_t *decoded = t->scratch + RUN_PANELS * SUM_BYTES;
    tiles_configure(TILE_STEPS);
    int64_t row1, panel1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        for (int64_t panel0 = t->panel0; panel0 < t->panel1; panel0 = panel1) {
            panel1 = panel0 + RUN_PANELS < t->panel1 ? panel0 + RUN_PANELS : t->panel1;
            for (int64_t tile = 0; tile < a.tiles; tile += a.run) {
                for (int64_t panel = panel0; panel < panel1; panel++) {
                    const uint8_t *w = weights(t->packed, &plan, &table, panel, tile, x_run(&a, tile), decoded);
                    read_ahead ahead = next_ahead(t->packed, &a, 2 * TILE_STEPS, tile, panel, panel0, panel1);
                    const uint8_t *x = (const uint8_t *)t->x + x_offset(&a, row0 / TILE_ROWS, tile);
                    tile_run(BFLOATS, t, &a, panel, tile, row0, row1, x, w, t->scratch + (panel - panel0) * SUM_BYTES,
                             &ahead);
                }
            }
            for (int64_t panel = panel0; panel < panel1; panel++) {
                finish(t, &plan, row0, row1 - row0, panel,
                       (float *)(void *)(t->scratch + (panel - panel0) * SUM_BYTES));
            }
        }
    }
    tiles_release();
}

bool gatun_linear_bf16_accepts__amx(const gatun_packed *p) {
    float_plan plan;
    return p->form == GATUN_FORM_SOURCE || make_plan(p, AS_IS, 1, &plan);
}

const gatun_x_layout gatun_linear_bf16_x__amx = {.row_tile = ROW_TILE,
                                                 .bytes = x_bytes,
                                                 .fill = fill,
                                                 .scratch = scratch_bytes,
                                                 .least_rows = LEAST_ROWS,
                                                 .panel_run = RUN_PANELS};
