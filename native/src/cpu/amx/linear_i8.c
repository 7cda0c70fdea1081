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
#include "cpu/amx/tiles.h"
#include "cpu/avx512/epilogue.h"
#include "cpu/avx512/i8_weights.h"
#include "cpu/kernels.h"

enum {
    HELD = 2,            /* tiles of weights in registers (narrow) */
    HELD_SUMS = 4,       /* tiles of sums */
    MOST_RUN = 12,       /* tiles along K of a run */
    TILE_SUMS = 256,     /* 16 x 16 */
    BLOCK_ROWS = 4,      /* tiles of rows whose floats stay in the first-level cache (narrow) */
    LEAST_GROUP = 16,    /* k; smaller groups leave tiles too empty */
    MOST_WIDE_K = 65536, /* 255 * 128 * K fits 32 bits */
};

typedef struct amx_plan {
    i8_plan i8; /* with units of its own */
    x_area x;
    i8_signed bytes;
    bool wide;
    bool direct; /* bytes are multiplied where they lie */
    bool with_sums;
    int64_t unit_tiles;
} amx_plan;

static bool make_amx_plan(const gatun_packed *p, bool block, int64_t m, amx_plan *plan) {
    memset(plan, 0, sizeof *plan);
    i8_plan *i8 = &plan->i8;
    if (!i8_make_plan(p, block, m, i8)) {
        return false;
    }
    plan->bytes = i8_signed_bytes(i8);
    plan->with_sums = i8->with_sums || plan->bytes.rest != 0;
    plan->wide = p->groups == 1 && !block && p->group <= MOST_WIDE_K;
    int64_t block_k = p->groups == 1 ? I8_X_BLOCK : i8_gcd(p->group, I8_X_BLOCK);
    int64_t parts = tiles_of(i8->group_steps, HELD * TILE_STEPS);
    i8->unit_steps = block                      ? block_k / 4
                     : plan->wide || parts == 1 ? i8->group_steps
                                                : tiles_of(tiles_of(i8->group_steps, parts), 4) * 4; /* for PLANES */
    i8->units_per_group = tiles_of(i8->group_steps, i8->unit_steps);
    i8->units = p->groups * i8->units_per_group;
    plan->unit_tiles = tiles_of(i8->unit_steps, TILE_STEPS);
    plan->x = (x_area){.row_tiles = tiles_of(m, TILE_ROWS), .steps = tiles_of(i8->unit_steps, plan->unit_tiles)};
    plan->x.tiles = i8->units * plan->unit_tiles;
    if (plan->wide && plan->unit_tiles > 1) {
        plan->x.steps = TILE_STEPS;
    }
    /* Half of the first-level cache for the bytes of a run. */
    int64_t fit = gatun_cache_bytes(1) / 2 / (plan->x.steps * 128);
    fit = fit < MOST_RUN ? fit : MOST_RUN;
    plan->x.run = fit < HELD ? HELD : fit / HELD * HELD;
    plan->x.run = plan->x.run > plan->x.tiles ? plan->x.tiles : plan->x.run;
    plan->direct = i8->source == I8_RAW8 && i8->group_steps % i8->unit_steps == 0 &&
                   i8->unit_steps == plan->unit_tiles * plan->x.steps;
    return p->groups == 1 || p->group >= LEAST_GROUP;
}

/* ---- x: scales of the rows, sums of the rows (wide), tiles, then for each unit and tile of rows its numbers ---- */

static int64_t head_bytes(const amx_plan *plan) { return 2 * 4 * plan->x.row_tiles * TILE_ROWS; }
static int64_t numbers_of(const amx_plan *plan) {
    return plan->wide ? 0 : (plan->i8.block ? TILE_ROWS : 0) + (plan->with_sums ? TILE_ROWS : 0);
}
/* scales of 16 rows (block) | sums of 16 rows (with_sums) */
static float *unit_numbers(const amx_plan *plan, const void *area, int64_t unit, int64_t row_tile) {
    uintptr_t at = (uintptr_t)area + (uintptr_t)(head_bytes(plan) + x_area_bytes(&plan->x));
    return (float *)at + (unit * plan->x.row_tiles + row_tile) * numbers_of(plan);
}

static int64_t x_bytes(const gatun_packed *p, bool block, int64_t m) {
    amx_plan plan;
    make_amx_plan(p, block, m, &plan);
    return head_bytes(&plan) + x_area_bytes(&plan.x) + 4 * plan.i8.units * plan.x.row_tiles * numbers_of(&plan);
}

/* x_absmax() by integers, whose order is that of the magnitudes; INFINITY or more when there is a NaN or an infinity.
 */
GATUN_INLINE float largest_of(const bool usual, const gatun_linear_input *in, int64_t row, int64_t k0, int64_t k1) {
    const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
    __m512i largest[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int64_t k = k0; k < k1; k += 32) {
        GATUN_UNROLL for (int i = 0; i < 2; i++) {
            __m512i v = _mm512_castps_si512(x_floats(usual, in, row, k + 16 * i, k1));
            largest[i] = _mm512_max_epi32(largest[i], _mm512_and_si512(v, magnitude));
        }
    }
    __m128i most = _mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_max_epi32(largest[0], largest[1])));
    return _mm_cvtss_f32(_mm_castsi128_ps(most));
}

/* `steps` steps of a row from k on as bytes, zeros from `end` on: what quantize_x does, a tile's row at once. */
GATUN_INLINE __m512i quantize_steps(const bool usual, const gatun_linear_input *in, int64_t row, int64_t k, int64_t end,
                                    int64_t steps, float scale, float reciprocal) {
    const int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC, magnitude = 0x0B; /* of both, the larger */
    const __m512 factor = _mm512_set1_ps(reciprocal);
    __m512 most = _mm512_setzero_ps(); /* the largest distance to an integer */
    __m512i q[4];
    GATUN_UNROLL for (int i = 0; i < 4; i++) {
        q[i] = _mm512_setzero_si512();
        if (i < 2 || steps > 8) {
            __m512 v = _mm512_mul_ps(x_floats(usual, in, row, k + 16 * i, end), factor);
            q[i] = _mm512_cvtps_epi32(v);
            most = _mm512_range_ps(most, _mm512_reduce_ps(v, nearest), magnitude);
        }
    }
    if (_mm512_cmp_ps_mask(most, _mm512_set1_ps(0.4999f), _CMP_NLT_UQ) != 0 || !(reciprocal <= FLT_MAX)) {
        __m128i parts[4];
        GATUN_UNROLL for (int i = 0; i < 4; i++) {
            parts[i] = quantize_x(x_floats(usual, in, row, k + 16 * i, end), scale);
        }
        return _mm512_maskz_loadu_epi32((__mmask16)((1u << steps) - 1), parts);
    }
    /* Dwords of four k: lane by lane of q[0], q[1], q[2], q[3]. */
    const __m512i lanes = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_maskz_permutexvar_epi32((__mmask16)((1u << steps) - 1), order, lanes);
}

/* False when the row holds a NaN or an infinity. */
GATUN_INLINE bool fill_row(const bool usual, const gatun_linear_input *in, const amx_plan *plan, int64_t row,
                           void *area) {
    const int64_t k_end = in->packed->k, steps = plan->x.steps, row_tile = row / TILE_ROWS, r = row % TILE_ROWS;
    x_row to = x_row_of(&plan->x, (uint8_t *)area + head_bytes(plan), row);
    float scale = largest_of(usual, in, row, 0, k_end);
    if (!(scale < INFINITY)) {
        return false;
    }
    scale = in->x_scale != 0 ? in->x_scale : scale / 127.0f;
    ((float *)area)[row] = scale;
    float reciprocal = 1 / scale;
    int64_t k = 0;
    for (int64_t unit = 0; unit < plan->i8.units; unit++) {
        int64_t unit_end = k + 4 * i8_unit_steps(&plan->i8, unit);
        int64_t end = unit_end < k_end ? unit_end : k_end;
        if (plan->i8.block && k < k_end) {
            int64_t k0 = k / I8_X_BLOCK * I8_X_BLOCK;
            int64_t k1 = k0 + I8_X_BLOCK < k_end ? k0 + I8_X_BLOCK : k_end;
            scale = largest_of(usual, in, row, k0, k1) / 127.0f;
            reciprocal = 1 / scale;
        }
        __m512i total = _mm512_setzero_si512();
        for (int64_t tile = 0; tile < plan->unit_tiles; tile++) {
            __m512i q = quantize_steps(usual, in, row, k + 4 * tile * steps, end, steps, scale, reciprocal);
            total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), q);
            _mm512_mask_storeu_epi32(x_row_next(&plan->x, &to), (__mmask16)((1u << steps) - 1), q);
        }
        k = unit_end;
        float sum = (float)_mm512_reduce_add_epi32(total);
        if (plan->wide) {
            ((float *)area)[plan->x.row_tiles * TILE_ROWS + row] = sum;
            continue;
        }
        float *numbers = unit_numbers(plan, area, unit, row_tile) + r;
        if (plan->i8.block) {
            *numbers = scale;
            numbers += TILE_ROWS;
        }
        if (plan->with_sums) {
            *numbers = sum;
        }
    }
    return true;
}

GATUN_INLINE bool fill_rows(const bool usual, const gatun_linear_input *in, const amx_plan *plan, int64_t row0,
                            int64_t row1, void *area) {
    bool finite = true;
    for (int64_t row = row0; row < row1; row++) {
        finite = fill_row(usual, in, plan, row, area) && finite;
    }
    return finite;
}

/* Rows that are none: zeros. */
static void fill_nothing(const amx_plan *plan, int64_t row, void *area) {
    const int64_t row_tile = row / TILE_ROWS, r = row % TILE_ROWS, bytes = 4 * plan->x.steps;
    ((float *)area)[row] = ((float *)area)[plan->x.row_tiles * TILE_ROWS + row] = 0;
    for (int64_t tile = 0; tile < plan->x.tiles; tile++) {
        memset((uint8_t *)area + head_bytes(plan) + x_offset(&plan->x, row_tile, tile) + r * bytes, 0, (size_t)bytes);
    }
    for (int64_t unit = 0; unit < plan->i8.units; unit++) {
        for (int64_t i = r; i < numbers_of(plan); i += TILE_ROWS) {
            unit_numbers(plan, area, unit, row_tile)[i] = 0;
        }
    }
}

static bool fill(const gatun_linear_input *in, bool block, int64_t row0, int64_t row1, void *area) {
    amx_plan plan;
    make_amx_plan(in->packed, block, in->m, &plan);
    const bool finite =
        x_is_usual(in) ? fill_rows(true, in, &plan, row0, row1, area) : fill_rows(false, in, &plan, row0, row1, area);
    for (int64_t row = row1; row % TILE_ROWS != 0; row++) {
        fill_nothing(&plan, row, area);
    }
    return finite;
}

/* ---- weights ---- */

/* `steps` steps of codes to bytes [step][128], and zeros up to `padded` steps. */
GATUN_INLINE void decode_source_steps(const int source, const amx_plan *plan, const uint8_t *codes, int64_t steps,
                                      int64_t padded, uint8_t *out) {
    const int64_t step_bytes = i8_step_bytes(source);
    const int span = source == I8_PLANES5 || source == I8_PLANES6 ? 4 : 1;
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)plan->bytes.table));
    const __m512i bias = _mm512_set1_epi8((char)plan->bytes.taken);
    for (int64_t s = 0; s < steps; s += span, codes += span * step_bytes) {
        GATUN_UNROLL for (int i = 0; i < span; i++, out += 128) {
            __m512i bytes[2];
            _mm_prefetch((const char *)codes + i * step_bytes + AHEAD, _MM_HINT_T0);
            weight_bytes(source, codes, i, table, bytes);
            if (span == 4) {
                bytes[0] = _mm512_sub_epi8(bytes[0], bias);
                bytes[1] = _mm512_sub_epi8(bytes[1], bias);
            }
            _mm512_store_si512(out, bytes[0]);
            _mm512_store_si512(out + 64, bytes[1]);
        }
    }
    memset(out, 0, (size_t)((padded - steps) * 128));
}

static void decode_steps(const amx_plan *plan, const uint8_t *codes, int64_t steps, int64_t padded, uint8_t *out) {
    switch (plan->i8.source) {
    case I8_RAW8: /* as they are */
        decode_source_steps(I8_DECODED, plan, codes, steps, padded, out);
        break;
    case I8_PLANES5:
        decode_source_steps(I8_PLANES5, plan, codes, steps, padded, out);
        break;
    case I8_PLANES6:
        decode_source_steps(I8_PLANES6, plan, codes, steps, padded, out);
        break;
    default: /* any four bits are a table */
        decode_source_steps(I8_TABLE4, plan, codes, steps, padded, out);
    }
}

static const uint8_t *unit_codes(const gatun_packed *p, const i8_plan *i8, int64_t panel, int64_t unit) {
    return gatun_packed_group(p, panel, unit / i8->units_per_group) +
           unit % i8->units_per_group * i8->unit_steps * i8_step_bytes(i8->source);
}

/* unit_scales() with whole zeros and offsets where sums are multiplied by them. */
static void whole_scales(const gatun_packed *p, const amx_plan *plan, int64_t panel, int64_t unit0, int64_t unit1,
                         float *out) {
    unit_scales(p, &plan->i8, panel, unit0, unit1, out);
    for (int64_t unit = unit0; plan->with_sums && unit < unit1; unit++, out += SCALES) {
        for (int64_t o = 0; o < GATUN_PANEL; o++) {
            out[GATUN_PANEL + o] =
                (plan->i8.zeros ? out[GATUN_PANEL + o] : 0) + (plan->wide ? 0 : (float)plan->bytes.rest);
            out[2 * GATUN_PANEL + o] = plan->i8.offsets ? out[2 * GATUN_PANEL + o] : 0;
        }
    }
}

/* ---- narrow ---- */

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

/* A run of whole units of a panel, for up to BLOCK_ROWS tiles of rows. */
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

/* ---- the loops around them ---- */

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

static int64_t scratch_bytes(const gatun_packed *p, bool block) {
    amx_plan plan;
    make_amx_plan(p, block, SUM_ROWS, &plan);
    return cut_scratch(&plan, NULL).bytes;
}

/* A run of the one unit. */
static void wide_run(const gatun_linear_task *t, const amx_plan *plan, const amx_scratch *s, int64_t panel,
                     int64_t tile, int64_t row0, int64_t row1, uint8_t *sums, read_ahead *ahead) {
    const int64_t steps = plan->x.steps, all = x_run(&plan->x, tile) * steps;
    const int64_t left = plan->i8.group_steps - tile * steps;
    const uint8_t *x = (const uint8_t *)t->x + head_bytes(plan) + x_offset(&plan->x, row0 / TILE_ROWS, tile);
    const uint8_t *w = unit_codes(t->packed, &plan->i8, panel, 0) + tile * steps * i8_step_bytes(plan->i8.source);
    if (!plan->direct) {
        decode_steps(plan, w, left < all ? left : all, all, s->decoded);
        w = s->decoded;
    }
    if (plan->bytes.is_unsigned) {
        tile_run(UNSIGNED_BYTES, t, &plan->x, panel, tile, row0, row1, x, w, sums, ahead);
    } else {
        tile_run(SIGNED_BYTES, t, &plan->x, panel, tile, row0, row1, x, w, sums, ahead);
    }
}

/* The integer sums of the one unit to floats, in their place. */
static void scale_wide(const gatun_linear_task *t, const amx_plan *plan, const amx_scratch *s, int64_t panel,
                       int64_t row0, int64_t rows, uint8_t *sums) {
    whole_scales(t->packed, plan, panel, 0, 1, s->scales);
    const float *x_sums = (const float *)t->x + plan->x.row_tiles * TILE_ROWS + row0;
    for (int64_t r = 0; r < rows; r++) {
        const __m512 x_sum = _mm512_set1_ps(x_sums[r]);
        const __m512i rest = _mm512_set1_epi32(plan->bytes.rest * (int32_t)x_sums[r]);
        for (int64_t h = 0; h < 2; h++) {
            int32_t *at = (int32_t *)(void *)(sums + (r * 2 + h) * 64);
            const float *scales = s->scales + 16 * h;
            __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(at), rest));
            if (plan->with_sums) {
                v = _mm512_fnmadd_ps(_mm512_load_ps(scales + GATUN_PANEL), x_sum, v);
            }
            v = _mm512_mul_ps(v, _mm512_load_ps(scales));
            if (plan->with_sums) {
                v = _mm512_fmadd_ps(_mm512_load_ps(scales + 2 * GATUN_PANEL), x_sum, v);
            }
            _mm512_store_ps(at, v);
        }
    }
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
    outputs_ahead(t, panel, row0, row1 - row0, tile / plan->x.run, tiles_of(plan->x.tiles, plan->x.run));
    const int64_t row_tiles = tiles_of(row1 - row0, TILE_ROWS);
    for (int64_t row = 0; row < row_tiles; row += BLOCK_ROWS) {
        j.row_tile = row0 / TILE_ROWS + row;
        j.rows = row_tiles - row < BLOCK_ROWS ? row_tiles - row : BLOCK_ROWS;
        j.floats = (float *)(void *)sums + row * TILE_ROWS * GATUN_PANEL;
        NARROW_KERNELS[plan->bytes.is_unsigned][plan->i8.block][plan->with_sums](&j);
        read_some(ahead, 32);
    }
}

static void finish(const gatun_linear_task *t, const amx_plan *plan, const amx_scratch *s, int64_t panel, int64_t row0,
                   int64_t rows, uint8_t *sums) {
    float *floats = (float *)(void *)sums;
    if (plan->wide) {
        scale_wide(t, plan, s, panel, row0, rows, sums);
    }
    for (int64_t i = 0; !plan->i8.block && i < 2 * rows; i++) {
        __m512 scale = _mm512_set1_ps(((const float *)t->x)[row0 + i / 2]);
        _mm512_store_ps(floats + 16 * i, _mm512_mul_ps(scale, _mm512_load_ps(floats + 16 * i)));
    }
    store_tile(t, row0, rows, panel, floats);
}

static void run(const gatun_linear_task *t, bool block) {
    amx_plan plan;
    make_amx_plan(t->packed, block, t->m, &plan);
    const amx_scratch s = cut_scratch(&plan, t->scratch);
    tiles_configure(plan.x.steps);
    const int64_t tile_k = 4 * tiles_of(plan.i8.unit_steps, plan.unit_tiles); /* but for what is padded */
    int64_t row1, panel1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        const int64_t row_tiles = tiles_of(row1 - row0, TILE_ROWS);
        for (int64_t panel0 = t->panel0; panel0 < t->panel1; panel0 = panel1) {
            panel1 = panel0 + RUN_PANELS < t->panel1 ? panel0 + RUN_PANELS : t->panel1;
            for (int64_t panel = panel0; !plan.wide && panel < panel1; panel++) {
                memset(s.sums + (panel - panel0) * SUM_BYTES, 0, (size_t)(row_tiles * TILE_ROWS * GATUN_PANEL * 4));
            }
            for (int64_t tile = 0; tile < plan.x.tiles; tile += plan.x.run) {
                for (int64_t panel = panel0; panel < panel1; panel++) {
                    read_ahead ahead = next_ahead(t->packed, &plan.x, tile_k, tile, panel, panel0, panel1);
                    (plan.wide ? wide_run : units_run)(t, &plan, &s, panel, tile, row0, row1,
                                                       s.sums + (panel - panel0) * SUM_BYTES, &ahead);
                }
            }
            for (int64_t panel = panel0; panel < panel1; panel++) {
                finish(t, &plan, &s, panel, row0, row1 - row0, s.sums + (panel - panel0) * SUM_BYTES);
            }
        }
    }
    tiles_release();
}

#define KERNEL(name, block)                                                                                            \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return x_bytes(p, block, m); }                     \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return fill(in, block, row0, row1, area);                                                                      \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return scratch_bytes(p, block); }                           \
    const gatun_x_layout name##_x__amx = {.row_tile = ROW_TILE,                                                        \
                                          .bytes = name##_bytes,                                                       \
                                          .fill = name##_fill,                                                         \
                                          .scratch = name##_scratch,                                                   \
                                          .least_rows = LEAST_ROWS,                                                    \
                                          .panel_run = RUN_PANELS};                                                    \
    void name##__amx(const gatun_linear_task *t) { run(t, block); }                                                    \
    bool name##_accepts__amx(const gatun_packed *p) {                                                                  \
        amx_plan plan;                                                                                                 \
        return make_amx_plan(p, block, 1, &plan);                                                                      \
    }
KERNEL(gatun_linear_i8, 0)
KERNEL(gatun_linear_i8_block, 1)
