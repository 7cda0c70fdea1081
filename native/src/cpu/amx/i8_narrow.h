/*
 * Integer products under scales of groups: linear_i8.c's narrow way.
 *
 * A step is a unit of K for 16 rows and 32 outputs. While the processor multiplies one, the tiles of sums of the one
 * before are stored, and those of the fourth before become floats, a few rows after each product: instructions that
 * come in a lump would wait, since no more than a handful of tile loads, which wait for the products, fit the
 * processor's queues. A store is read three steps later for the same reason.
 */
#ifndef GATUN_AMX_I8_NARROW_H
#define GATUN_AMX_I8_NARROW_H

#include "cpu/amx/i8_bytes.h"
#include "cpu/amx/runs.h"

enum { TILE_SUMS = TILE_ROWS * 16, STEP_ROWS = 2 * TILE_ROWS, STEP_SUMS = 2 * TILE_SUMS, STEPS = 4 };

/* What a unit's sums are multiplied by and added to; null sums: nothing. */
typedef struct unit_step {
    float *sums;          /* [2][16][16], by half of the panel */
    const float *scales;  /* of the panel */
    const float *numbers; /* of the rows */
    int64_t row1;         /* of the last unit: where the 16 rows that are finished end; else 0 */
} unit_step;

/* Adds the scaled sums of `rows` rows, a part of a tile's, to their floats; `row` counts those of both tiles. */
GATUN_INLINE void add_scaled(const bool block, const bool with_sums, const int rows, const unit_step *s,
                             const int32_t *units, int64_t row) {
    const float *scales = s->scales + 16 * (row / TILE_ROWS), *numbers = s->numbers + row % TILE_ROWS;
    const float *x_sums = numbers + (block ? TILE_ROWS : 0);
    const __m512 scale = _mm512_load_ps(scales);
    float *sums = s->sums + row * 16;
    units += row * 16;
    GATUN_UNROLL for (int r = 0; r < rows; r++) {
        __m512 v = _mm512_cvtepi32_ps(_mm512_load_si512(units + 16 * r)), f = _mm512_load_ps(sums + 16 * r);
        if (with_sums) {
            v = _mm512_fnmadd_ps(_mm512_load_ps(scales + GATUN_PANEL), _mm512_set1_ps(x_sums[r]), v);
        }
        f = _mm512_fmadd_ps(v, block ? _mm512_mul_ps(scale, _mm512_set1_ps(numbers[r])) : scale, f);
        if (with_sums) {
            __m512 x_sum = _mm512_set1_ps(block ? x_sums[r] * numbers[r] : x_sums[r]);
            f = _mm512_fmadd_ps(_mm512_load_ps(scales + 2 * GATUN_PANEL), x_sum, f);
        }
        _mm512_store_ps(sums + 16 * r, f);
    }
}

/* Where a worker of the narrow way has what the wide one has not, behind the scratch of that. */
typedef struct narrow_own {
    amx_plan plan;
    int32_t *units; /* the last steps' sums */
    float *scales;  /* of a run's units */
} narrow_own;

static int64_t run_units(const amx_plan *plan) { return plan->x.run / plan->unit_tiles; }
static int64_t narrow_scratch_bytes(const amx_plan *plan) {
    return STEPS * STEP_SUMS * 4 + run_units(plan) * SCALES * 4;
}

/* The bytes of a unit of the run; beyond its end, the last one's. */
GATUN_INLINE const uint8_t *unit_bytes(const tile_runs *r, const amx_plan *plan, int64_t unit0, int64_t unit) {
    return plan->direct ? unit_codes(r->t->packed, &plan->i8, r->at.panel, unit0 + unit)
                        : r->w + unit * plan->unit_tiles * r->a->steps * 128;
}

/* As run_products(), but that sums are stored and scaled after each unit; `share`: rows after a product. */
GATUN_INLINE void unit_products(const int kind, const bool block, const bool with_sums, const int share,
                                const run_kernel *k, tile_runs *r) {
    const narrow_own *own = (const narrow_own *)r->own;
    const amx_plan *plan = &own->plan;
    const x_area *a = r->a;
    const run_place at = r->at;
    const int64_t unit0 = at.tile / plan->unit_tiles, units = x_run(a, at.tile) / plan->unit_tiles;
    const run_shares shares = shares_of(r);
    const int64_t x_bytes = x_tile_bytes(a), row_bytes = 4 * a->steps, w_bytes = 128 * a->steps;
    const int64_t row_tiles = tiles_of(at.row1 - at.row0, TILE_ROWS);
    const bool first = at.tile == 0, last = at.tile + x_run(a, at.tile) == a->tiles;
    const uint8_t *x = r->x + x_offset(a, at.row0 / TILE_ROWS, at.tile), *w = unit_bytes(r, plan, unit0, 0);
    float *sums = (float *)(void *)group_sums(r, at.panel);
    whole_scales(r->t->packed, plan, at.panel, unit0, unit0 + units, own->scales);
    const int64_t numbers_count = (block + with_sums) * TILE_ROWS;
    const float *numbers = unit_numbers(plan, r->t->x, unit0, at.row0 / TILE_ROWS);
    unit_step begun[STEPS] = {{.sums = NULL}};
    tiles_fence();
    LOAD_X(2, x);
    _tile_loadd(3, w, 128);
    /* As many steps more than there are as the last ones need until they are scaled. */
    for (int64_t tile = 0, unit = 0, step = 0; step < row_tiles * units + STEPS; step++) {
        const bool real = tile < row_tiles;
        const int slot = (int)(step % STEPS);
        int32_t *from = own->units + slot * STEP_SUMS, *to = own->units + (slot + STEPS - 1) % STEPS * STEP_SUMS;
        const unit_step before = begun[slot];
        unit_step now = {.sums = NULL};
        if (real) {
            const int64_t row = at.row0 + tile * TILE_ROWS;
            now.sums = sums + tile * STEP_SUMS;
            now.scales = own->scales + unit * SCALES;
            now.numbers = numbers + (unit * a->row_tiles + tile) * numbers_count;
            if (last && unit + 1 == units) {
                now.row1 = row + TILE_ROWS < at.row1 ? row + TILE_ROWS : at.row1;
            }
            if (first && unit == 0) {
                memset(now.sums, 0, STEP_SUMS * 4);
            }
        }
        begun[slot] = now;
        int64_t scaled = before.sums != NULL ? 0 : STEP_ROWS;
#define SCALE_SOME()                                                                                                   \
    do {                                                                                                               \
        tiles_fence();                                                                                                 \
        if (scaled < STEP_ROWS) {                                                                                      \
            add_scaled(block, with_sums, share, &before, from, scaled);                                                \
            scaled += share;                                                                                           \
        }                                                                                                              \
        tiles_fence();                                                                                                 \
    } while (0)
#define BEGIN_SUMS(tile)                                                                                               \
    do {                                                                                                               \
        if (i == 0) {                                                                                                  \
            _tile_stored(tile, to + (tile)*TILE_SUMS, 64);                                                             \
            _tile_zero(tile);                                                                                          \
        }                                                                                                              \
    } while (0)
        for (int64_t i = 0; i < (real ? plan->unit_tiles : 1); i++) {
            const bool unit_end = i + 1 == plan->unit_tiles, tile_end = unit_end && unit + 1 == units;
            const uint8_t *half = w + 64;
            if (real) {
                x += tile_end && tile + 1 == row_tiles ? 0 : x_bytes;
                w = !unit_end ? w + w_bytes : unit_bytes(r, plan, unit0, tile_end ? 0 : unit + 1);
            }
            BEGIN_SUMS(0);
            TILE_DOT(kind, 0, 2, 3);
            _tile_loadd(3, half, 128);
            SCALE_SOME();
            BEGIN_SUMS(1);
            TILE_DOT(kind, 1, 2, 3);
            LOAD_X(2, x);
            _tile_loadd(3, w, 128);
            SCALE_SOME();
            const int64_t done = unit * plan->unit_tiles + i;
            if (real && (done % 2 != 0 || tile_end)) {
                side_work(k, r, &shares);
                if (!first) {
                    sums_ahead((const uint8_t *)(now.sums + STEP_SUMS), done / 2, shares.rows);
                }
            }
        }
        while (scaled < STEP_ROWS) {
            SCALE_SOME();
        }
#undef SCALE_SOME
#undef BEGIN_SUMS
        if (before.row1 != 0) {
            finish_some(k, r, TILE_ROWS);
            const int64_t done = before.row1 - 1 - (before.row1 - 1 - at.row0) % TILE_ROWS;
            r->finished = (finished_rows){.panel = at.panel, .row0 = done, .row = done, .row1 = before.row1};
            r->finished.sums = (const uint8_t *)before.sums;
        }
        if (real && ++unit == units) {
            unit = 0;
            tile++;
        }
    }
    finish_some(k, r, last ? TILE_ROWS : 0);
}

#endif
