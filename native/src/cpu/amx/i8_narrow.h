/* Integer products under scales of groups: linear_i8.c's narrow way. */
#ifndef GATUN_AMX_I8_NARROW_H
#define GATUN_AMX_I8_NARROW_H

#include "cpu/amx/i8_bytes.h"
#include "cpu/avx512/epilogue.h"

/* Rows and panels whose sums a worker keeps while it goes through K. */
enum { SUM_ROWS = 512, RUN_PANELS = 16, SUM_BYTES = SUM_ROWS * GATUN_PANEL * 4 };

/* The codes of k0 .. k1-1 of a panel, with the scales among them. */
static inline read_ahead weights_ahead(const gatun_packed *p, int64_t panel, int64_t k0, int64_t k1) {
    if (panel >= p->panels || k0 >= p->k) {
        return (read_ahead){NULL, NULL};
    }
    const uint8_t *from = gatun_packed_group(p, panel, 0);
    k1 = k1 < p->groups * p->group ? k1 : p->groups * p->group;
    if (p->groups > 1) {
        return (read_ahead){from + k0 / p->group * p->group_stride, from + tiles_of(k1, p->group) * p->group_stride};
    }
    const bool plain = p->form == GATUN_FORM_PLAIN;
    const int64_t row = GATUN_PANEL * gatun_plain_size(p->matrix.encoding);
    return (read_ahead){from + (plain ? k0 * row : gatun_panel_code_bytes(p->form, k0)),
                        from + (plain ? k1 * row : gatun_panel_code_bytes(p->form, k1))};
}

/* Which of the panels' runs comes after this one. */
static inline read_ahead next_ahead(const gatun_packed *p, const x_area *a, int64_t tile_k, int64_t tile, int64_t panel,
                                    int64_t panel0, int64_t panel1) {
    const bool same = panel + 1 < panel1;
    const int64_t next = same ? tile : tile + a->run;
    return weights_ahead(p, same ? panel + 1 : panel0, next * tile_k, (next + a->run) * tile_k);
}

/* Adds the integer sums of `units` units, scaled, to the floats [16 rows][32 outputs] of half a panel. */
GATUN_INLINE void add_scaled(const bool block, const bool with_sums, int64_t units, const int32_t *sums,
                             const float *scales, const float *numbers, int64_t numbers_stride, float *floats) {
    __m512 f[TILE_ROWS];
    GATUN_UNROLL for (int r = 0; r < TILE_ROWS; r++) { f[r] = _mm512_load_ps(floats + r * GATUN_PANEL); }
    for (int64_t unit = 0; unit < units; unit++, sums += TILE_SUMS, scales += SCALES, numbers += numbers_stride) {
        const __m512 scale = _mm512_load_ps(scales);
        const float *x_sums = numbers + (block ? TILE_ROWS : 0);
        GATUN_UNROLL for (int r = 0; r < TILE_ROWS; r++) {
            __m512 v = _mm512_cvtepi32_ps(_mm512_load_si512(sums + r * TILE_ROWS));
            if (with_sums) {
                v = _mm512_fnmadd_ps(_mm512_load_ps(scales + GATUN_PANEL), _mm512_set1_ps(x_sums[r]), v);
            }
            f[r] = _mm512_fmadd_ps(v, block ? _mm512_mul_ps(scale, _mm512_set1_ps(numbers[r])) : scale, f[r]);
            if (with_sums) {
                __m512 x_sum = _mm512_set1_ps(block ? x_sums[r] * numbers[r] : x_sums[r]);
                f[r] = _mm512_fmadd_ps(_mm512_load_ps(scales + 2 * GATUN_PANEL), x_sum, f[r]);
            }
        }
    }
    GATUN_UNROLL for (int r = 0; r < TILE_ROWS; r++) { _mm512_store_ps(floats + r * GATUN_PANEL, f[r]); }
}

/* A run of whole units of a panel, for up to FLOAT_TILES tiles of rows. */
typedef struct narrow_run {
    const amx_plan *plan;
    const uint8_t *w[MOST_RUN]; /* each tile's weights, both halves */
    int64_t tile, tiles, row_tile, rows;
    const float *scales;
    const void *area;
    int32_t *sums; /* two buffers [HELD_SUMS][16][16] */
    float *floats;
} narrow_run;

/* What four tiles of sums are made of: one or two units for one or two tiles of rows, or one unit for up to four. */
typedef struct narrow_step {
    const uint8_t *w[2];      /* of the held tiles, the half's */
    const uint8_t *x, *lower; /* of the first and of the third tile of rows */
    int64_t x_stride[2];      /* from one tile to the next, along K and along the rows */
    int64_t rows, units, unit, row;
    int64_t half;
} narrow_step;

static int64_t step_rows(const amx_plan *plan) { return plan->unit_tiles == 1 ? 2 : HELD_SUMS; }

/* Step number `index` of a run: halves within held tiles, rows within halves. */
GATUN_INLINE narrow_step step_at(const narrow_run *j, int64_t index) {
    const amx_plan *plan = j->plan;
    const int64_t rows = step_rows(plan), of_half = tiles_of(j->rows, rows);
    const int64_t row = index % of_half * rows, half = index / of_half % 2, from = index / of_half / 2 * HELD;
    const int64_t tiles = j->tiles - from < HELD ? j->tiles - from : HELD;
    const int64_t bytes = x_tile_bytes(&plan->x), row_tile = j->row_tile + row;
    const uint8_t *area = (const uint8_t *)j->area + head_bytes(plan);
    narrow_step s = {.w = {j->w[from] + 64 * half, j->w[from + tiles - 1] + 64 * half},
                     .x = area + x_offset(&plan->x, row_tile, j->tile + from),
                     .lower = area + x_offset(&plan->x, row_tile + 2, j->tile + from),
                     .x_stride = {x_stride(&plan->x, row_tile), bytes},
                     .rows = j->rows - row < rows ? j->rows - row : rows,
                     .units = tiles / plan->unit_tiles,
                     .unit = from / plan->unit_tiles,
                     .row = row,
                     .half = half};
    return s;
}

#define NARROW_X(tile, address) _tile_loadd(tile, address, row_bytes)
/* The products of a step whose weights and first two tiles of x are there; `next` is loaded behind them. */
GATUN_INLINE void narrow_products(const int kind, const narrow_run *j, const narrow_step *s, const narrow_step *next) {
    const x_area *a = &j->plan->x;
    const int64_t row_bytes = 4 * a->steps, along = s->x_stride[0];
    _tile_zero(0);
    TILE_DOT(kind, 0, 4, 6);
    if (j->plan->unit_tiles == 1) {
        const uint8_t *x = s->x + s->x_stride[1]; /* the second tile of rows */
        if (s->units > 1) {
            _tile_zero(1);
            TILE_DOT(kind, 1, 5, 7);
        }
        if (s->rows > 1) {
            NARROW_X(4, x);
            _tile_zero(2);
            TILE_DOT(kind, 2, 4, 6);
            if (s->units > 1) {
                NARROW_X(5, x + along);
                _tile_zero(3);
                TILE_DOT(kind, 3, 5, 7);
            }
        }
    } else {
        TILE_DOT(kind, 0, 5, 7);
#define NARROW_ROW(c, x, stride)                                                                                       \
    NARROW_X(4, x);                                                                                                    \
    _tile_zero(c);                                                                                                     \
    TILE_DOT(kind, c, 4, 6);                                                                                           \
    NARROW_X(5, (x) + (stride));                                                                                       \
    TILE_DOT(kind, c, 5, 7)
        if (s->rows > 1) {
            NARROW_ROW(1, s->x + s->x_stride[1], along);
        }
        if (s->rows > 2) {
            NARROW_ROW(2, s->lower, x_stride(a, j->row_tile + s->row + 2));
        }
        if (s->rows > 3) {
            NARROW_ROW(3, s->lower + s->x_stride[1], along);
        }
    }
    if (next->w[0] != s->w[0]) {
        _tile_loadd(6, next->w[0], 128);
        _tile_loadd(7, next->w[1], 128);
    }
    NARROW_X(4, next->x);
    NARROW_X(5, next->x + (next->w[0] != next->w[1] ? next->x_stride[0] : 0));
}

/* Loads that follow a store of tiles may wait for it (tiles.h): so the next step's tiles are loaded and the last one's
 * sums are scaled, while the products are made, before these are stored. */
GATUN_INLINE void narrow_rows(const int kind, const bool block, const bool with_sums, const narrow_run *j) {
    const amx_plan *plan = j->plan;
    const int64_t row_bytes = 4 * plan->x.steps;
    const int64_t steps = tiles_of(j->tiles, HELD) * 2 * tiles_of(j->rows, step_rows(plan));
    narrow_step s = step_at(j, 0), before = s;
    tiles_fence();
    _tile_loadd(6, s.w[0], 128);
    _tile_loadd(7, s.w[1], 128);
    NARROW_X(4, s.x);
    NARROW_X(5, s.x + (s.w[0] != s.w[1] ? s.x_stride[0] : 0));
    for (int64_t index = 0; index <= steps; index++) {
        const narrow_step next = index + 1 < steps ? step_at(j, index + 1) : s;
        int32_t *sums = j->sums + index % 2 * HELD_SUMS * TILE_SUMS;
        if (index < steps) {
            narrow_products(kind, j, &s, &next);
        }
        for (int64_t r = 0; index > 0 && r < before.rows; r++) {
            const int64_t row = before.row + r;
            add_scaled(block, with_sums, before.units,
                       j->sums + ((index + 1) % 2 * HELD_SUMS + r * (plan->unit_tiles == 1 ? 2 : 1)) * TILE_SUMS,
                       j->scales + before.unit * SCALES + 16 * before.half,
                       unit_numbers(plan, j->area, j->tile / plan->unit_tiles + before.unit, j->row_tile + row),
                       plan->x.row_tiles * numbers_of(plan),
                       j->floats + row * TILE_ROWS * GATUN_PANEL + 16 * before.half);
        }
        tiles_fence();
        if (index < steps) {
            _tile_stored(0, sums, 64);
            _tile_stored(1, sums + TILE_SUMS, 64);
            _tile_stored(2, sums + 2 * TILE_SUMS, 64);
            _tile_stored(3, sums + 3 * TILE_SUMS, 64);
        }
        tiles_fence();
        before = s;
        s = next;
    }
}

#define NARROW(kind, block, with_sums)                                                                                 \
    static void narrow_##kind##_##block##_##with_sums(const narrow_run *j) { narrow_rows(kind, block, with_sums, j); }
NARROW(SIGNED_BYTES, 0, 0)
NARROW(SIGNED_BYTES, 0, 1)
NARROW(SIGNED_BYTES, 1, 0)
NARROW(SIGNED_BYTES, 1, 1)
NARROW(UNSIGNED_BYTES, 0, 0)
NARROW(UNSIGNED_BYTES, 0, 1)
NARROW(UNSIGNED_BYTES, 1, 0)
NARROW(UNSIGNED_BYTES, 1, 1)
typedef void narrow_kernel(const narrow_run *j);
#define NARROW_OF(kind)                                                                                                \
    {                                                                                                                  \
        {narrow_##kind##_0_0, narrow_##kind##_0_1}, { narrow_##kind##_1_0, narrow_##kind##_1_1 }                       \
    }
static narrow_kernel *const NARROW_KERNELS[2][2][2] = {NARROW_OF(SIGNED_BYTES), NARROW_OF(UNSIGNED_BYTES)};

/* A worker's scratch: sums of RUN_PANELS panels | decoded bytes | tile sums (narrow) | scales. */
typedef struct amx_scratch {
    uint8_t *sums, *decoded;
    int32_t *tile_sums;
    float *scales;
    int64_t bytes;
} amx_scratch;

static amx_scratch cut_scratch(const amx_plan *plan, uint8_t *scratch) {
    int64_t decoded = RUN_PANELS * SUM_BYTES, tile_sums = decoded + plan->x.run * plan->x.steps * 128;
    int64_t scales = tile_sums + (plan->wide ? 0 : 2 * HELD_SUMS * TILE_SUMS * 4);
    return (amx_scratch){scratch, scratch + decoded, (int32_t *)(void *)(scratch + tile_sums),
                         (float *)(void *)(scratch + scales), scales + MOST_RUN * SCALES * 4};
}

/* A run of units. */
static void units_run(const gatun_linear_task *t, const amx_plan *plan, const amx_scratch *s, int64_t panel,
                      int64_t tile, int64_t row0, int64_t row1, uint8_t *sums, read_ahead *ahead) {
    const int64_t unit0 = tile / plan->unit_tiles, padded = plan->unit_tiles * plan->x.steps;
    narrow_run j = {.plan = plan,
                    .tile = tile,
                    .tiles = x_run(&plan->x, tile),
                    .scales = s->scales,
                    .area = t->x,
                    .sums = s->tile_sums};
    const int64_t units = j.tiles / plan->unit_tiles;
    for (int64_t unit = 0; unit < units; unit++) {
        const uint8_t *w = unit_codes(t->packed, &plan->i8, panel, unit0 + unit);
        if (!plan->direct) {
            uint8_t *decoded = s->decoded + unit * padded * 128;
            decode_steps(plan, w, i8_unit_steps(&plan->i8, unit0 + unit), padded, decoded);
            w = decoded;
        }
        for (int64_t i = 0; i < plan->unit_tiles; i++) {
            j.w[unit * plan->unit_tiles + i] = w + i * plan->x.steps * 128;
        }
    }
    whole_scales(t->packed, plan, panel, unit0, unit0 + units, s->scales);
    const int64_t row_tiles = tiles_of(row1 - row0, TILE_ROWS);
    for (int64_t row = 0; row < row_tiles; row += FLOAT_TILES) {
        j.row_tile = row0 / TILE_ROWS + row;
        j.rows = row_tiles - row < FLOAT_TILES ? row_tiles - row : FLOAT_TILES;
        j.floats = (float *)(void *)sums + row * TILE_ROWS * GATUN_PANEL;
        NARROW_KERNELS[plan->bytes.is_unsigned][plan->i8.block][plan->with_sums](&j);
        read_some(ahead, 32);
    }
}

static void finish_narrow(const gatun_linear_task *t, const amx_plan *plan, int64_t panel, int64_t row0, int64_t rows,
                          uint8_t *sums) {
    float *floats = (float *)(void *)sums;
    for (int64_t i = 0; !plan->i8.block && i < 2 * rows; i++) {
        __m512 scale = _mm512_set1_ps(((const float *)t->x)[row0 + i / 2]);
        _mm512_store_ps(floats + 16 * i, _mm512_mul_ps(scale, _mm512_load_ps(floats + 16 * i)));
    }
    store_tile(t, row0, rows, panel, floats);
}

static void run_narrow(const gatun_linear_task *t, const amx_plan *plan) {
    const amx_scratch s = cut_scratch(plan, t->scratch);
    tiles_configure(plan->x.steps);
    const int64_t tile_k = 4 * tiles_of(plan->i8.unit_steps, plan->unit_tiles); /* but for what is padded */
    int64_t row1, panel1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        const int64_t row_tiles = tiles_of(row1 - row0, TILE_ROWS);
        for (int64_t panel0 = t->panel0; panel0 < t->panel1; panel0 = panel1) {
            panel1 = panel0 + RUN_PANELS < t->panel1 ? panel0 + RUN_PANELS : t->panel1;
            for (int64_t panel = panel0; panel < panel1; panel++) {
                memset(s.sums + (panel - panel0) * SUM_BYTES, 0, (size_t)(row_tiles * TILE_ROWS * GATUN_PANEL * 4));
            }
            for (int64_t tile = 0; tile < plan->x.tiles; tile += plan->x.run) {
                for (int64_t panel = panel0; panel < panel1; panel++) {
                    read_ahead ahead = next_ahead(t->packed, &plan->x, tile_k, tile, panel, panel0, panel1);
                    units_run(t, plan, &s, panel, tile, row0, row1, s.sums + (panel - panel0) * SUM_BYTES, &ahead);
                }
            }
            for (int64_t panel = panel0; panel < panel1; panel++) {
                finish_narrow(t, plan, panel, row0, row1 - row0, s.sums + (panel - panel0) * SUM_BYTES);
            }
        }
    }
    tiles_release();
}

#endif
