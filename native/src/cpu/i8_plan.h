/*
 * Integer `linear`: what all instruction sets agree on.
 *
 *   y[m][n] = sum over units of xs * ( ws * (sum u*q - (bias + zero) * sum q) + offset * sum q )
 *
 * q: x as int8, xs its scale (one a row, or one per 32 k). u: the weight's code as an unsigned byte, the code itself or
 * its entry in a table of integers; u - bias is `factor` times what the code means, so ws is the group's scale /
 * factor. Zero (times factor) and offset are there only where groups have their own; a zero point that all share is in
 * bias. A unit is a run of k under one ws and one xs, short enough for 32-bit sums: that is where integers become
 * floats.
 *
 * x is laid out in tiles of rows, within a tile by unit; R rows have
 *
 *     q [unit steps][R] dwords of four k | start [R] = -bias * sum q | xs [R] (block form) | sum q [R] as float (with
 * zeros or offsets)
 */
#ifndef GATUN_I8_PLAN_H
#define GATUN_I8_PLAN_H

#include <math.h>
#include <string.h>

#include "cpu/cache.h"
#include "gatun_internal.h"

enum { I8_RAW4, I8_TABLE4, I8_RAW8, I8_PLANES5, I8_PLANES6, I8_DECODED }; /* where a kernel's bytes come from */
enum {
    I8_X_BLOCK = 32,
    I8_MAX_UNIT = 512, /* k; its sums fit 32 bits many times over */
    I8_TILE = 8,       /* rows of a full tile */
    I8_ROW_TILE = 24,  /* where the operation may cut rows */
    I8_FUSED_ROWS = 16 /* up to here the codes are decoded anew for each tile */
};

typedef struct i8_plan {
    int source;
    bool block;          /* one scale of x per 32 k, not per row */
    bool zeros, offsets; /* a group has its own */
    bool with_sums;      /* either: they need sum q */
    uint8_t flip;        /* RAW4, RAW8: what the code is XORed with to become u */
    int32_t bias;
    float factor;
    uint8_t table[16]; /* TABLE4: u by code */
    int64_t group_steps, unit_steps, units_per_group, units;
    int64_t piece; /* units that are decoded at once */
    int64_t m;
} i8_plan;

/* Rows of the tile that starts at `row`: a kernel exists for each of these heights. */
static inline int64_t i8_tile_rows(int64_t m, int64_t row) {
    int64_t left = m - row;
    return left >= I8_TILE - 1 ? I8_TILE : left == 3 ? 4 : left == 5 ? 6 : left;
}

static inline int64_t i8_gcd(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Integers u - bias = factor * value for all 16 codes; factor 127 rounds (NF4 and FP4 only). */
static inline bool i8_integer_table(const gatun_packed *p, i8_plan *plan) {
    const float *values = gatun_packed_table(p);
    bool rounded = p->matrix.encoding == GATUN_NF4 || p->matrix.encoding == GATUN_FP4;
    static const float factors[] = {1, 2, 127};
    for (int f = rounded ? 2 : 0; f < (rounded ? 3 : 2); f++) {
        bool exact = true;
        for (int c = 0; c < 16; c++) {
            float scaled = values[c] * factors[f];
            float integer = rintf(scaled);
            exact = exact && (rounded || scaled == integer) && fabsf(integer) <= 127;
            plan->table[c] = (uint8_t)(exact ? (int32_t)integer + 128 : 0);
        }
        if (exact) {
            plan->source = I8_TABLE4;
            plan->bias = 128;
            plan->factor = factors[f];
            return true;
        }
    }
    return false;
}

/* Whether the codes are the integers 0 .. count-1 (flip 0) or two's complement (flip count / 2). */
static inline bool i8_plain_codes(const gatun_packed *p, int count, i8_plan *plan) {
    const float *values = gatun_packed_table(p);
    for (int flip = 0; flip < count; flip += count / 2) {
        bool same = true;
        for (int c = 0; c < count; c++) {
            same = same && values[c] == (float)((c ^ flip) - flip);
        }
        if (same) {
            plan->flip = (uint8_t)flip;
            plan->bias = flip;
            plan->factor = 1;
            return true;
        }
    }
    return false;
}

/* Whether the codes are integers above some bias. */
static inline bool i8_biased_codes(const gatun_packed *p, i8_plan *plan) {
    const float *values = gatun_packed_table(p);
    bool same = fabsf(values[0]) <= 128;
    for (int64_t c = 0; c < gatun_panel_table_size(p->form); c++) {
        same = same && values[c] == values[0] + (float)c;
    }
    plan->bias = same ? -(int32_t)values[0] : 0;
    plan->factor = 1;
    return same;
}

/* False when the integer kernels cannot do this weight. */
static inline bool i8_make_plan(const gatun_packed *p, bool block, int64_t m, i8_plan *plan) {
    memset(plan, 0, sizeof *plan);
    plan->block = block;
    if (p->group == 0 || p->matrix.codebook_size != 0) {
        return false; /* K = 0, or a codebook of the matrix's own: it has no integers */
    }
    int bits = gatun_encoding_bits(p->matrix.encoding); /* 0 for GGUF's blocks, which use all codes of their form */
    int codes = bits != 0 ? 1 << bits : p->form == GATUN_FORM_CODES4 ? 16 : 256;
    if (p->form == GATUN_FORM_CODES4 && i8_plain_codes(p, codes, plan)) {
        plan->source = I8_RAW4;
    } else if (p->form == GATUN_FORM_CODES8 && i8_plain_codes(p, codes, plan)) {
        plan->source = I8_RAW8;
    } else if (p->form == GATUN_FORM_CODES5 && i8_biased_codes(p, plan)) {
        plan->source = I8_PLANES5;
    } else if (p->form == GATUN_FORM_CODES6 && i8_biased_codes(p, plan)) {
        plan->source = I8_PLANES6;
    } else if (p->form != GATUN_FORM_CODES4 || !i8_integer_table(p, plan)) {
        return false;
    }
    plan->zeros = p->zeros_offset != 0;
    plan->offsets = p->offsets_offset != 0;
    plan->with_sums = plan->zeros || plan->offsets;
    if (p->zeros_offset == 0) {
        float zero = (float)p->matrix.zero_point * plan->factor;
        if (fabsf(zero) > 128) {
            return false; /* 32-bit sums might overflow */
        }
        plan->bias += (int32_t)zero;
    }
    int64_t unit = block ? i8_gcd(p->group, I8_X_BLOCK) : p->group < I8_MAX_UNIT ? p->group : I8_MAX_UNIT;
    plan->group_steps = p->group / 4;
    plan->unit_steps = unit / 4;
    plan->units_per_group = (p->group + unit - 1) / unit;
    plan->units = p->groups * plan->units_per_group;
    /* Half of the first-level cache for decoded weights leaves room for a tile of x. */
    int64_t fit = gatun_cache_bytes(1) / 2 / (plan->unit_steps * 4 * GATUN_PANEL);
    plan->piece = m <= I8_FUSED_ROWS || fit > plan->units ? plan->units : fit < 1 ? 1 : fit;
    plan->m = m;
    return true;
}

/*
 * Weights as signed bytes b, for multipliers that take those: y's sum of u*q - bias * sum q is one of b*q - rest * sum
 * q. b is u less `taken`, all of the bias where that fits, so that rest is 0. RAW8: the byte as it lies, which a bias
 * of less than 128 makes an unsigned one.
 */
typedef struct i8_signed {
    bool is_unsigned; /* RAW8 */
    int32_t taken, rest;
    int8_t table[16]; /* RAW4, TABLE4: b by code */
} i8_signed;

static inline i8_signed i8_signed_bytes(const i8_plan *plan) {
    i8_signed bytes = {.is_unsigned = plan->source == I8_RAW8 && plan->flip == 0};
    if (plan->source == I8_RAW8) {
        bytes.taken = plan->flip;
        bytes.rest = plan->bias - bytes.taken;
        return bytes;
    }
    bool planes = plan->source == I8_PLANES5 || plan->source == I8_PLANES6;
    int32_t u[16], lowest = planes ? 0 : 255, highest = plan->source == I8_PLANES5 ? 31 : planes ? 63 : 0;
    for (int c = 0; c < 16; c++) {
        u[c] = plan->source == I8_TABLE4 ? plan->table[c] : c ^ plan->flip;
        lowest = !planes && u[c] < lowest ? u[c] : lowest;
        highest = !planes && u[c] > highest ? u[c] : highest;
    }
    bool fits = lowest - plan->bias >= -128 && highest - plan->bias <= 127;
    bytes.taken = fits ? plan->bias : plan->source == I8_TABLE4 ? 128 : 0;
    bytes.rest = plan->bias - bytes.taken;
    for (int c = 0; c < 16 && !planes; c++) {
        bytes.table[c] = (int8_t)(u[c] - bytes.taken);
    }
    return bytes;
}

/* Bytes of a step's codes; of planes, a fourth of what four steps take. */
static inline int64_t i8_step_bytes(int source) {
    return source == I8_RAW4 || source == I8_TABLE4 ? 64 : source == I8_PLANES5 ? 80 : source == I8_PLANES6 ? 96 : 128;
}

static inline int64_t i8_unit_steps(const i8_plan *plan, int64_t unit) {
    int64_t first = unit % plan->units_per_group * plan->unit_steps;
    int64_t left = plan->group_steps - first;
    return left < plan->unit_steps ? left : plan->unit_steps;
}

/* Dwords of x that a row takes for the units before this one. */
static inline int64_t i8_words_before(const i8_plan *plan, int64_t unit) {
    return unit / plan->units_per_group * plan->group_steps + unit % plan->units_per_group * plan->unit_steps +
           unit * (1 + plan->block + plan->with_sums);
}

/* ---- the prepared x: row scales, then piece by piece the tiles ---- */
static inline int64_t i8_padded_rows(int64_t m) { return (m + I8_TILE + 63) / 64 * 64; }
/* Where the tile of `rows` rows from `row` on has the unit. */
static inline int32_t *i8_tile(const i8_plan *plan, const void *area, int64_t row, int64_t rows, int64_t unit) {
    int64_t unit0 = unit - unit % plan->piece;
    int64_t unit1 = unit0 + plan->piece < plan->units ? unit0 + plan->piece : plan->units;
    int64_t before = i8_words_before(plan, unit0);
    int32_t *tiles =
        (int32_t *)((uintptr_t)area + (uintptr_t)(4 * i8_padded_rows(plan->m))) + (plan->m + I8_TILE) * before;
    return tiles + row * (i8_words_before(plan, unit1) - before) + rows * (i8_words_before(plan, unit) - before);
}
static inline int64_t i8_x_bytes(const gatun_packed *p, bool block, int64_t m) {
    i8_plan plan;
    i8_make_plan(p, block, m, &plan);
    return 4 * i8_padded_rows(m) + 4 * (m + I8_TILE) * i8_words_before(&plan, plan.units);
}

#endif
