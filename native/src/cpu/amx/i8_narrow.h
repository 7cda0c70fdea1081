/*
 * Integer products under scales of groups: linear_i8.c's narrow way.
 *
 * A step is a unit of K for 32 rows and 32 outputs. While the processor multiplies one, the tiles of sums of the one
 * before are stored, and those of the one before that become floats, a few rows after each product: instructions that
 * come in a lump would wait, since no more than a handful of tile loads, which wait for the products, fit the
 * processor's queues. A store is read a step later for the same reason.
 */
#ifndef GATUN_AMX_I8_NARROW_H
#define GATUN_AMX_I8_NARROW_H

#include "cpu/amx/i8_bytes.h"
#include "cpu/amx/runs.h"

enum { TILE_SUMS = TILE_ROWS * 16, STEP_TILES = 4, STEP_SUMS = STEP_TILES * TILE_SUMS };

/* What a unit's sums are multiplied by and added to; null sums: nothing. */
typedef struct unit_step {
    float *sums;             /* [2][2][16][16], by tile of rows and half of the panel */
    const float *scales;     /* of the panel */
    const float *numbers[2]; /* of the rows of each tile */
    int64_t row1;            /* of the last unit: where the 32 rows that are finished end; else 0 */
} unit_step;

/* Adds the scaled sums of `rows` rows, a part of a tile's, to their floats. */
GATUN_INLINE void add_scaled(const bool block, const bool with_sums, const int rows, const unit_step *s,
                             const int32_t *units, int64_t row) {
    const int64_t tile = row / TILE_ROWS, half = tile % 2;
    const float *scales = s->scales + 16 * half, *numbers = s->numbers[tile / 2] + row % TILE_ROWS;
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
    int32_t *units; /* two steps' sums */
    float *scales;  /* of a run's units */
} narrow_own;

static int64_t run_units(const amx_plan *plan) { return plan->x.run / plan->unit_tiles; }
static int64_t narrow_scratch_bytes(const amx_plan *plan) { return 2 * STEP_SUMS * 4 + run_units(plan) * SCALES * 4; }

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
    const int64_t row_tiles = tiles_of(at.row1 - at.row0, TILE_ROWS), pairs = tiles_of(row_tiles, 2);
    const bool first = at.tile == 0, last = at.tile + x_run(a, at.tile) == a->tiles;
    const uint8_t *x = r->x + x_offset(a, at.row0 / TILE_ROWS, at.tile), *w = unit_bytes(r, plan, unit0, 0);
    float *sums = (float *)(void *)group_sums(r, at.panel);
    whole_scales(r->t->packed, plan, at.panel, unit0, unit0 + units, own->scales);
    unit_step stored = {.sums = NULL}, before = stored; /* of the step before this one, and of the one before that */
    int turn = 0;
    int64_t second = row_tiles > 1 ? x_bytes : 0; /* from the first tile of rows to the other */
    tiles_fence();
    _tile_loadd(6, w, 128);
    LOAD_X(4, x);
    _tile_loadd(7, w + 64, 128);
    LOAD_X(5, x + second);
    /* Two more steps than there are, for what the last ones leave. */
    for (int64_t pair = 0, unit = 0, step = 0; step < pairs * units + 2; step++, turn = !turn) {
        const bool real = pair < pairs;
        int32_t *to = own->units + turn * STEP_SUMS, *from = own->units + !turn * STEP_SUMS;
        unit_step now = {.sums = NULL};
        if (real) {
            const int64_t row_tile = at.row0 / TILE_ROWS + 2 * pair, row = at.row0 + pair * ROW_TILE;
            now.sums = sums + pair * STEP_SUMS;
            now.scales = own->scales + unit * SCALES;
            now.numbers[0] = unit_numbers(plan, r->t->x, unit0 + unit, row_tile);
            now.numbers[1] = now.numbers[0] + (second != 0 ? numbers_of(plan) : 0);
            if (last && unit + 1 == units) {
                now.row1 = row + ROW_TILE < at.row1 ? row + ROW_TILE : at.row1;
            }
            if (first && unit == 0) {
                memset(now.sums, 0, STEP_SUMS * 4);
            }
        }
        int64_t scaled = before.sums != NULL ? 0 : ROW_TILE * 2; /* rows of all four tiles */
#define SCALE_SOME()                                                                                                   \
    do {                                                                                                               \
        tiles_fence();                                                                                                 \
        if (scaled < ROW_TILE * 2) {                                                                                   \
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
            const bool both = second != 0, unit_end = i + 1 == plan->unit_tiles,
                       pair_end = unit_end && unit + 1 == units;
            if (real) {
                x += pair_end && pair + 1 == pairs ? 0 : second + x_bytes;
                second = pair_end && 2 * pair + 3 >= row_tiles ? 0 : second;
                w = !unit_end ? w + w_bytes : unit_bytes(r, plan, unit0, pair_end ? 0 : unit + 1);
            }
            BEGIN_SUMS(0);
            TILE_DOT(kind, 0, 4, 6);
            SCALE_SOME();
            BEGIN_SUMS(1);
            TILE_DOT(kind, 1, 4, 7);
            LOAD_X(4, x);
            SCALE_SOME();
            BEGIN_SUMS(2);
            if (both) {
                TILE_DOT(kind, 2, 5, 6);
            }
            _tile_loadd(6, w, 128);
            SCALE_SOME();
            BEGIN_SUMS(3);
            if (both) {
                TILE_DOT(kind, 3, 5, 7);
            }
            _tile_loadd(7, w + 64, 128);
            LOAD_X(5, x + second);
            SCALE_SOME();
            if (real) {
                const int64_t part = unit * plan->unit_tiles + i;
                side_work(k, r, &shares);
                if (last) {
                    outputs_ahead(r->t, at.panel, at.row0 + pair * ROW_TILE + part * shares.rows, shares.rows);
                }
                if (!first) {
                    sums_ahead((const uint8_t *)(now.sums + STEP_SUMS), part, shares.rows);
                }
            }
        }
        while (scaled < ROW_TILE * 2) {
            SCALE_SOME();
        }
#undef SCALE_SOME
#undef BEGIN_SUMS
        if (before.row1 != 0) {
            finish_some(k, r, ROW_TILE);
            const int64_t done = before.row1 - 1 - (before.row1 - 1 - at.row0) % ROW_TILE;
            r->finished = (finished_rows){.panel = at.panel, .row0 = done, .row = done, .row1 = before.row1};
            r->finished.sums = (const uint8_t *)before.sums;
        }
        before = stored;
        stored = now;
        if (real && ++unit == units) {
            unit = 0;
            pair++;
        }
    }
    finish_some(k, r, last ? ROW_TILE : 0);
}

#endif
