/*
 * linear_i8_<weight>__avx512 and linear_i8_block_<weight>__avx512: x quantized to int8, integer products by vpdpbusd.
 * The formula, the units and the layout of x are i8_plan.h's.
 *
 * Register plan of a tile (i8_tile.h) of R = 8 rows x 32 outputs (R = 1, 2, 4, 6 likewise): 2R integer accumulators, 2
 * of weight bytes, one broadcast of four k of x. A step is one or two loads of weights, R broadcast loads and 2R dots.
 * The 2R float accumulators of eight rows do not all fit beside them: some lie on the stack, where the multiply-add of
 * a unit's end takes them from. The unit's start value -bias * sum q is where the integers begin, so a zero point costs
 * nothing. Where conversion, scale and the dots share two ports, units of 32 k can reach 8 / (8 + 2) of the dots' peak
 * with one scale of x a row, 8 / (8 + 3) with one per 32 k, and 8 / (8 + 4) with offsets as well.
 *
 *   RAW4     low nibbles: (w ^ flip) & 0x0F; high nibbles stay where they are, (w ^ flip) & 0xF0: one ternary operation
 *            each, no shift; their sums come out 16 times too large, which the scale of that half takes back exactly
 *   TABLE4   vpermb ignores an index's upper two bits, and the table lies there four times: no mask
 *   RAW8     w ^ flip
 *   PLANES   low nibbles and high bits lie apart: a shift, a blend and a mask
 *   DECODED  what decode_units() made of any of these in the worker's scratch: bytes and float scales. From the third
 *            tile of rows on this is cheaper than decoding anew: on cores where 512-bit logic shares its ports with the
 *            dots, three operations of decoding are a fifth of a step. The tiles fetch the codes of the next piece
 *            meanwhile.
 *
 * The idea of starting at the zero point and of decoding nibbles in place came from measuring which operations are free
 * beside the dots; dense int8 libraries reach the peak, block-scaled ones lose it to their scales.
 */
#include "cpu/avx512/epilogue.h"
#include "cpu/avx512/i8_tile.h"
#include "cpu/avx512/i8_x.h"
#include "cpu/kernels.h"

/* ---- weights ---- */

/* Where a unit's codes lie; behind the last one's, where a panel's groups end. */
static inline const uint8_t *unit_codes(const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit) {
    int64_t in_group = unit % plan->units_per_group;
    return gatun_packed_group(p, panel, unit / plan->units_per_group) +
           in_group * plan->unit_steps * i8_step_bytes(plan->source);
}

/* Codes of units unit0 .. unit1-1 to bytes [steps][128]. */
GATUN_INLINE void decode_source(int source, const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0,
                                int64_t unit1, uint8_t *out) {
    __m512i constant = weight_constant(plan);
    const int64_t step_bytes = i8_step_bytes(source);
    const int span = source == I8_PLANES5 || source == I8_PLANES6 ? 4 : 1;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const uint8_t *codes = unit_codes(p, plan, panel, unit);
        int64_t steps = i8_unit_steps(plan, unit);
        for (int64_t s = 0; s < steps; s += span, codes += span * step_bytes) {
            GATUN_UNROLL for (int i = 0; i < span; i++, out += 128) {
                __m512i bytes[2];
                weight_bytes(source, codes, i, constant, bytes);
                if (source == I8_RAW4) {
                    bytes[1] = _mm512_srli_epi16(bytes[1], 4);
                }
                _mm512_store_si512(out, bytes[0]);
                _mm512_store_si512(out + 64, bytes[1]);
            }
        }
    }
}

static void decode_units(const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0, int64_t unit1,
                         uint8_t *out) {
    switch (plan->source) {
    case I8_RAW4:
        decode_source(I8_RAW4, p, plan, panel, unit0, unit1, out);
        break;
    case I8_TABLE4:
        decode_source(I8_TABLE4, p, plan, panel, unit0, unit1, out);
        break;
    case I8_PLANES5:
        decode_source(I8_PLANES5, p, plan, panel, unit0, unit1, out);
        break;
    case I8_PLANES6:
        decode_source(I8_PLANES6, p, plan, panel, unit0, unit1, out);
        break;
    default:
        decode_source(I8_RAW8, p, plan, panel, unit0, unit1, out);
        break;
    }
}

/* ---- the loops around it ---- */

enum { SUM_ROWS = 512 }; /* whose sums wait for the next piece */

/* A worker's scratch: sums [SUM_ROWS + I8_TILE][32], decoded bytes and scales of a piece. */
typedef struct i8_scratch {
    float *sums;
    uint8_t *decoded;
    float *scales;
} i8_scratch;

enum { SUMS_BYTES = (SUM_ROWS + I8_TILE) * GATUN_PANEL * 4 };

static int64_t decoded_bytes(const i8_plan *plan) { return plan->piece * plan->unit_steps * 128; }

static i8_scratch cut_scratch(const i8_plan *plan, uint8_t *scratch) {
    uint8_t *decoded = scratch + SUMS_BYTES;
    return (i8_scratch){(float *)scratch, decoded, (float *)(decoded + decoded_bytes(plan))};
}

/* Any number of rows: a plan for few rows has a larger piece, but decodes nothing. */
static int64_t scratch_bytes(const gatun_packed *p, bool block) {
    i8_plan plan;
    i8_make_plan(p, block, SUM_ROWS, &plan);
    return SUMS_BYTES + decoded_bytes(&plan) + plan.piece * SCALES * 4;
}

static void finish_tile(const gatun_linear_task *t, const i8_plan *plan, int64_t row, int64_t rows, int64_t panel,
                        float *sums) {
    rows = row + rows > t->m ? t->m - row : rows;
    if (!plan->block) {
        const float *scales = (const float *)t->x;
        for (int64_t i = 0; i < 2 * rows; i++) {
            __m512 scale = _mm512_set1_ps(scales[row + i / 2]);
            _mm512_store_ps(sums + 16 * i, _mm512_mul_ps(scale, _mm512_load_ps(sums + 16 * i)));
        }
    }
    store_tile(t, row, rows, panel, sums);
}

/* Codes that the tiles of a piece fetch while they multiply, so that the next piece's decoding does not wait. */
typedef struct coming_codes {
    const uint8_t *codes;
    int64_t bytes, fetched;
} coming_codes;

static coming_codes codes_after(const gatun_linear_task *t, const i8_plan *plan, int64_t panel, int64_t unit) {
    panel += unit == plan->units;
    unit = unit == plan->units ? 0 : unit;
    if (panel == t->panel1) {
        return (coming_codes){.bytes = 0};
    }
    int64_t unit1 = unit + plan->piece < plan->units ? unit + plan->piece : plan->units;
    const uint8_t *codes = unit_codes(t->packed, plan, panel, unit);
    return (coming_codes){.codes = codes, .bytes = unit_codes(t->packed, plan, panel, unit1) - codes};
}

/* Units of a panel for rows row0 .. row1-1, decoded once for all tiles. */
static void run_decoded(const gatun_linear_task *t, const i8_plan *plan, int64_t panel, int64_t row0, int64_t row1) {
    i8_scratch s = cut_scratch(plan, t->scratch);
    decoded_kernel *full = decoded_tile(plan, I8_TILE);
    int64_t rows, unit1;
    for (int64_t unit = 0; unit < plan->units; unit = unit1) {
        unit1 = unit + plan->piece < plan->units ? unit + plan->piece : plan->units;
        decode_units(t->packed, plan, panel, unit, unit1, s.decoded);
        unit_scales(t->packed, plan, panel, unit, unit1, s.scales);
        coming_codes coming = codes_after(t, plan, panel, unit1);
        const int32_t *x = i8_tile(plan, t->x, row0, I8_TILE, unit);
        const int64_t row_words = i8_words_before(plan, unit1) - i8_words_before(plan, unit);
        float *sums = s.sums;
        for (int64_t row = row0; row < row1; row += rows, x += rows * row_words, sums += rows * GATUN_PANEL) {
            rows = i8_tile_rows(t->m, row);
            decoded_kernel *kernel = rows == I8_TILE ? full : decoded_tile(plan, rows);
            const uint8_t *ahead = coming.fetched < coming.bytes ? coming.codes + coming.fetched : s.decoded;
            kernel(plan, x, s.decoded, s.scales, ahead, unit, unit1, sums);
            coming.fetched += (unit1 - unit) * plan->unit_steps * FETCH_STEP;
            if (unit1 == plan->units) {
                finish_tile(t, plan, row, rows, panel, sums);
            }
        }
    }
}

/* One or two tiles: codes and scales as they lie. */
static void run_fused(const gatun_linear_task *t, const i8_plan *plan, int64_t panel, int64_t row0, int64_t row1) {
    int64_t rows;
    for (int64_t row = row0; row < row1; row += rows) {
        rows = i8_tile_rows(t->m, row);
        float *sums = (float *)t->scratch;
        const int32_t *x = i8_tile(plan, t->x, row, rows, 0);
        packed_tile(plan, rows)(plan, x, t->packed, panel, sums);
        finish_tile(t, plan, row, rows, panel, sums);
    }
}

static void run(const gatun_linear_task *t, bool block) {
    i8_plan plan;
    i8_make_plan(t->packed, block, t->m, &plan);
    /* Runs of rows as long as each other: each decodes the weights. */
    const int64_t rows = t->row1 - t->row0, runs = (rows + SUM_ROWS - 1) / SUM_ROWS;
    const int64_t run_rows = runs <= 1 ? SUM_ROWS : ((rows + runs - 1) / runs + I8_TILE - 1) / I8_TILE * I8_TILE;
    int64_t row1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + run_rows < t->row1 ? row0 + run_rows : t->row1;
        for (int64_t panel = t->panel0; panel < t->panel1; panel++) {
            if (t->m > I8_FUSED_ROWS) {
                run_decoded(t, &plan, panel, row0, row1);
            } else {
                run_fused(t, &plan, panel, row0, row1);
            }
        }
    }
}

#define KERNEL(name, block)                                                                                            \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return i8_x_bytes(p, block, m); }                  \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return fill(in, block, row0, row1, area);                                                                      \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return scratch_bytes(p, block); }                           \
    const gatun_x_layout name##_x__avx512 = {                                                                          \
        .row_tile = I8_ROW_TILE, .bytes = name##_bytes, .fill = name##_fill, .scratch = name##_scratch};               \
    void name##__avx512(const gatun_linear_task *t) { run(t, block); }                                                 \
    bool name##_accepts__avx512(const gatun_packed *p) {                                                               \
        i8_plan plan;                                                                                                  \
        return i8_make_plan(p, block, 1, &plan);                                                                       \
    }
KERNEL(gatun_linear_i8, 0)
KERNEL(gatun_linear_i8_block, 1)
