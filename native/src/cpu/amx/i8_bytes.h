/* Integer `linear` by tiles: how a weight is multiplied, x as bytes, weights as bytes (cpu/i8_plan.h has the names). */
#ifndef GATUN_AMX_I8_BYTES_H
#define GATUN_AMX_I8_BYTES_H

#include "cpu/amx/tiles.h"
#include "cpu/avx512/i8_weights.h"

enum {
    MOST_UNIT_TILES = 16, /* sums of 1024 k: those of x are exact as floats */
    MOST_RUN_UNITS = 16,
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
    int64_t parts = tiles_of(i8->group_steps, MOST_UNIT_TILES * TILE_STEPS);
    i8->unit_steps = block                      ? block_k / 4
                     : plan->wide || parts == 1 ? i8->group_steps
                                                : tiles_of(tiles_of(i8->group_steps, parts), 4) * 4; /* for PLANES */
    i8->units_per_group = tiles_of(i8->group_steps, i8->unit_steps);
    i8->units = p->groups * i8->units_per_group;
    plan->unit_tiles = tiles_of(i8->unit_steps, TILE_STEPS);
    plan->x = (x_area){.row_tiles = tiles_of(m, TILE_ROWS), .steps = tiles_of(i8->unit_steps, plan->unit_tiles)};
    plan->x.tiles = i8->units * plan->unit_tiles;
    if (plan->wide) {
        plan->x.steps = plan->unit_tiles > 1 ? TILE_STEPS : plan->x.steps;
        plan->x.run = run_tiles(plan->x.tiles, plan->x.steps);
    } else { /* half of the first-level cache for the bytes of a run */
        int64_t fit = gatun_cache_bytes(1) / 2 / (plan->unit_tiles * plan->x.steps * 128);
        fit = fit < 1 ? 1 : fit > MOST_RUN_UNITS ? MOST_RUN_UNITS : fit;
        plan->x.run = tiles_of(i8->units, tiles_of(i8->units, fit)) * plan->unit_tiles;
    }
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
    enum { nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC, magnitude = 0x0B /* of both, the larger */ };
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
    x_row to = x_row_of((uint8_t *)area + head_bytes(plan), row);
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

#endif
