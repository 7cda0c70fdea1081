/*
 * linear_i8_<weight>__avx512 and linear_i8_block_<weight>__avx512: x quantized to int8, integer products by vpdpbusd.
 * The formula, the units and the layout of x are i8_plan.h's.
 *
 * Register plan of a tile of R = 6 rows x 32 outputs (R = 1, 2, 4, 8 likewise): 2R integer and 2R float accumulators,
 * 2 of weight bytes, 2 of scales, one broadcast of four k of x. A step is one or two loads of weights, R broadcast
 * loads and 2R dots. The unit's start value -bias * sum q is where the accumulators begin, so a zero point costs
 * nothing.
 *
 *   RAW4     low nibbles: (w ^ flip) & 0x0F; high nibbles stay where they are, (w ^ flip) & 0xF0: one ternary operation
 *            each, no shift; their sums come out 16 times too large, which the scale of that half takes back exactly
 *   TABLE4   vpermb ignores an index's upper two bits, and the table lies there four times: no mask
 *   RAW8     w ^ flip
 *   PLANES   low nibbles and high bits lie apart: a shift, a blend and a mask
 *   DECODED  what decode_units() made of any of these in the worker's scratch: bytes and float scales. From the third
 *            tile of rows on this is cheaper than decoding anew: on cores where 512-bit logic shares its ports with the
 *            dots, three operations of decoding are a fifth of a step.
 *
 * The idea of starting at the zero point and of decoding nibbles in place came from measuring which operations are free
 * beside the dots; dense int8 libraries reach the peak, block-scaled ones lose it to their scales.
 */
#include "cpu/avx512/epilogue.h"
#include "cpu/avx512/i8_weights.h"
#include "cpu/avx512/x.h"
#include "cpu/kernels.h"

/* Bytes that x is prefetched ahead: about a third-level latency. */
enum { X_AHEAD = 2048 };

/* ---- x ---- */
/* False when the row holds a NaN or an infinity. */
static bool fill_row(const gatun_linear_input *in, const i8_plan *plan, int64_t row, int64_t tile_row, int64_t rows,
                     void *area) {
    int64_t k_end = in->packed->k;
    bool finite = true;
    float scale = x_absmax(in, row, 0, k_end, &finite) / 127.0f;
    scale = in->x_scale != 0 ? in->x_scale : scale;
    if (!finite) {
        return false;
    }
    ((float *)area)[row] = scale;
    int64_t k = 0;
    for (int64_t unit = 0; unit < plan->units; unit++) {
        int64_t steps = i8_unit_steps(plan, unit);
        int32_t *x = i8_tile(plan, area, tile_row, rows, unit) + (row - tile_row);
        if (plan->block && k < k_end) {
            int64_t k0 = k / I8_X_BLOCK * I8_X_BLOCK;
            int64_t k1 = k0 + I8_X_BLOCK < k_end ? k0 + I8_X_BLOCK : k_end;
            scale = x_absmax(in, row, k0, k1, &finite) / 127.0f;
        }
        __m128i total = _mm_setzero_si128();
        for (int64_t s = 0; s < steps; s += 4) {
            __m512 v = load_x(in, row, k + 4 * s, k_end);
            int64_t here = steps - s < 4 ? steps - s : 4;
            __m128i q = quantize_x(v, scale);
            q = _mm_maskz_mov_epi32((__mmask8)((1 << here) - 1), q);
            total = _mm_dpbusd_epi32(total, _mm_set1_epi8(1), q);
            int32_t four[4];
            _mm_storeu_si128((__m128i *)four, q);
            for (int64_t i = 0; i < here; i++) {
                x[(s + i) * rows] = four[i];
            }
        }
        k += 4 * steps;
        x += steps * rows;
        int32_t parts[4];
        _mm_storeu_si128((__m128i *)parts, total);
        int32_t sum = parts[0] + parts[1] + parts[2] + parts[3];
        *x = (int32_t)((uint32_t)-plan->bias * (uint32_t)sum);
        x += rows;
        if (plan->block) {
            memcpy(x, &scale, sizeof scale);
            x += rows;
        }
        if (plan->with_sums) {
            float float_sum = (float)sum;
            memcpy(x, &float_sum, sizeof float_sum);
        }
    }
    return true;
}

static bool fill(const gatun_linear_input *in, bool block, int64_t row0, int64_t row1, void *area) {
    i8_plan plan;
    i8_make_plan(in->packed, block, in->m, &plan);
    int64_t rows;
    bool finite = true;
    for (int64_t row = row0; row < row1; row += rows) {
        rows = i8_tile_rows(in->m, row);
        for (int64_t unit = 0; row + rows > in->m && unit < plan.units; unit += plan.piece) { /* rows that are none */
            int64_t end = unit + plan.piece < plan.units ? unit + plan.piece : plan.units;
            int64_t words = rows * (i8_words_before(&plan, end) - i8_words_before(&plan, unit));
            memset(i8_tile(&plan, area, row, rows, unit), 0, (size_t)(4 * words));
        }
        for (int64_t r = row; r < row + rows && r < in->m; r++) {
            finite = fill_row(in, &plan, r, row, rows, area) && finite;
        }
    }
    return finite;
}

/* ---- weights ---- */

/* Codes of units unit0 .. unit1-1 to bytes [steps][128]. */
GATUN_INLINE void decode_source(int source, const gatun_packed *p, const i8_plan *plan, int64_t panel, int64_t unit0,
                                int64_t unit1, uint8_t *out) {
    __m512i constant = weight_constant(plan);
    const int64_t step_bytes = i8_step_bytes(source);
    const int span = source == I8_PLANES5 || source == I8_PLANES6 ? 4 : 1;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        const uint8_t *group = gatun_packed_group(p, panel, unit / plan->units_per_group);
        const uint8_t *codes = group + unit % plan->units_per_group * plan->unit_steps * step_bytes;
        int64_t steps = i8_unit_steps(plan, unit);
        for (int64_t s = 0; s < steps; s += span, codes += span * step_bytes) {
            GATUN_UNROLL for (int i = 0; i < span; i++, out += 128) {
                __m512i bytes[2];
                _mm_prefetch((const char *)codes + i * step_bytes + AHEAD, _MM_HINT_T0);
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

/* ---- the microkernel ---- */

/* `count` steps; even and odd ones have their own sums if there are two chains. */
GATUN_INLINE void dots(const int R, const int source, const int count, const int chains, const int32_t *x,
                       const uint8_t *codes, __m512i constant, __m512i c[2][8][2]) {
    const int step_bytes = (int)i8_step_bytes(source);
    GATUN_UNROLL for (int s = 0; s < count; s++) {
        __m512i bytes[2];
        if (source != I8_DECODED) {
            for (int line = 0; line < step_bytes; line += 64) {
                _mm_prefetch((const char *)codes + s * step_bytes + line + AHEAD, _MM_HINT_T0);
            }
        }
        if (source == I8_DECODED && (R != 8 || s % 2 == 0)) {
            _mm_prefetch((const char *)(x + s * R) + X_AHEAD, _MM_HINT_T0);
        }
        weight_bytes(source, codes, s, constant, bytes);
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            __m512i four = _mm512_set1_epi32(x[s * R + r]);
            GATUN_UNROLL for (int h = 0; h < 2; h++) {
                c[s % chains][r][h] = _mm512_dpbusd_epi32(c[s % chains][r][h], bytes[h], four);
            }
        }
    }
}

/* Where a tile's numbers lie from unit0 on: codes and scales as decoded for it, or as they are packed. */
typedef struct tile_weights {
    const uint8_t *codes;
    const float *scales;        /* decoded */
    const gatun_packed *packed; /* otherwise */
    int64_t panel;
} tile_weights;

/* What a unit's sums are multiplied by, and what is subtracted from them before and added afterwards, both per sum of
 * x. The numbers of both halves. */
typedef struct unit_numbers {
    __m512 scale[2], zero[2], offset[2];
} unit_numbers;

GATUN_INLINE unit_numbers numbers_decoded(const i8_plan *plan, const float *scales) {
    unit_numbers n;
    GATUN_UNROLL for (int h = 0; h < 2; h++) {
        n.scale[h] = _mm512_load_ps(scales + 16 * h);
        n.zero[h] = plan->zeros ? _mm512_load_ps(scales + 32 + 16 * h) : _mm512_setzero_ps();
        n.offset[h] = plan->offsets ? _mm512_load_ps(scales + 64 + 16 * h) : _mm512_setzero_ps();
    }
    return n;
}

/* For sums that are `times` too large: so are zeros and offsets, and who asks divides the total. */
GATUN_INLINE unit_numbers numbers_packed(const int kind, const gatun_packed *p, const i8_plan *plan,
                                         gatun_parameters at, const __m512 times[2]) {
    unit_numbers n;
    GATUN_UNROLL for (int h = 0; h < 2; h++) {
        n.scale[h] = scale_of(kind, p, at, h);
        n.zero[h] = plan->zeros ? _mm512_mul_ps(load_zero(p, at, h), times[h]) : _mm512_setzero_ps();
        n.offset[h] = plan->offsets ? _mm512_mul_ps(load_offset(p, at, h), times[h]) : _mm512_setzero_ps();
    }
    return n;
}

GATUN_INLINE unit_numbers numbers_of_kind(int kind, const gatun_packed *p, const i8_plan *plan, gatun_parameters at,
                                          const __m512 times[2]) {
    switch (kind) {
    case SCALE_F32:
        return numbers_packed(SCALE_F32, p, plan, at, times);
    case SCALE_F16:
        return numbers_packed(SCALE_F16, p, plan, at, times);
    case SCALE_BF16:
        return numbers_packed(SCALE_BF16, p, plan, at, times);
    case SCALE_U8:
        return numbers_packed(SCALE_U8, p, plan, at, times);
    case SCALE_I8:
        return numbers_packed(SCALE_I8, p, plan, at, times);
    default:
        return numbers_packed(SCALE_ANY, p, plan, at, times);
    }
}

/* Adds units unit0 .. unit1-1 of a panel to sums [R][32]; x begins at unit0. From packed codes the sums are made anew.
 */
GATUN_INLINE void tile(const int R, const int source, const bool block, const i8_plan *plan, const int32_t *x,
                       const tile_weights *w, int64_t unit0, int64_t unit1, float *sums) {
    const int chains = R <= 2 ? 2 : 1; /* short tiles would wait for their own sums */
    const bool decoded = source == I8_DECODED;
    const int64_t step_bytes = i8_step_bytes(source);
    const __m512i constant = weight_constant(plan);
    const gatun_packed *p = w->packed;
    const int kind = decoded ? SCALE_ANY : scale_kind(p);
    /* The sums of packed codes are `factor` and, in a half that was not shifted down, 16 times too large. */
    const float high = source == I8_RAW4 ? 16 * plan->factor : plan->factor;
    const __m512 times[2] = {_mm512_set1_ps(plan->factor), _mm512_set1_ps(high)};
    const uint8_t *codes = w->codes;
    const float *scales = w->scales;
    __m512 f[8][2];
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) {
            f[r][h] = decoded ? _mm512_load_ps(sums + r * 32 + 16 * h) : _mm512_setzero_ps();
        }
    }
    int64_t in_group = unit0 % plan->units_per_group, group = unit0 / plan->units_per_group;
    for (int64_t unit = unit0; unit < unit1; unit++) {
        bool last = ++in_group == plan->units_per_group;
        int64_t steps = last ? plan->group_steps - (in_group - 1) * plan->unit_steps : plan->unit_steps;
        __m512i c[2][8][2];
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            __m512i start = _mm512_set1_epi32(x[steps * R + r]);
            c[0][r][0] = start;
            c[0][r][1] = source == I8_RAW4 ? _mm512_slli_epi32(start, 4) : start;
            c[1][r][0] = c[1][r][1] = _mm512_setzero_si512();
        }
        int64_t s = 0;
        for (; s + 8 <= steps; s += 8, codes += 8 * step_bytes) {
            dots(R, source, 8, chains, x + s * R, codes, constant, c);
        }
        for (; s + 4 <= steps; s += 4, codes += 4 * step_bytes) {
            dots(R, source, 4, chains, x + s * R, codes, constant, c);
        }
        for (; source != I8_PLANES5 && source != I8_PLANES6 && s < steps; s++, codes += step_bytes) {
            dots(R, source, 1, 1, x + s * R, codes, constant, c);
        }
        x += (steps + 1) * R; /* now at the unit's x scales or float sums */
        const float *x_scales = (const float *)x, *x_sums = x_scales + (block ? R : 0);
        gatun_parameters at = decoded ? (gatun_parameters){NULL, NULL} : gatun_packed_parameters(p, w->panel, group);
        unit_numbers n = decoded ? numbers_decoded(plan, scales) : numbers_of_kind(kind, p, plan, at, times);
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            GATUN_UNROLL for (int h = 0; h < 2; h++) {
                __m512i total = chains == 2 ? _mm512_add_epi32(c[0][r][h], c[1][r][h]) : c[0][r][h];
                __m512 product = _mm512_cvtepi32_ps(total);
                if (plan->zeros) {
                    product = _mm512_fnmadd_ps(n.zero[h], _mm512_set1_ps(x_sums[r]), product);
                }
                __m512 scale = block ? _mm512_mul_ps(n.scale[h], _mm512_set1_ps(x_scales[r])) : n.scale[h];
                f[r][h] = _mm512_fmadd_ps(product, scale, f[r][h]);
            }
        }
        if (plan->offsets) {
            GATUN_UNROLL for (int r = 0; r < R; r++) {
                __m512 xs = _mm512_set1_ps(block ? x_sums[r] * x_scales[r] : x_sums[r]);
                GATUN_UNROLL for (int h = 0; h < 2; h++) { f[r][h] = _mm512_fmadd_ps(n.offset[h], xs, f[r][h]); }
            }
        }
        x += R * (block + plan->with_sums);
        if (decoded) {
            scales += SCALES;
        } else if (last) {
            prefetch_numbers(p, at, codes, group, AHEAD);
            codes = gatun_packed_group(p, w->panel, group + 1);
        }
        group += last;
        in_group = last ? 0 : in_group;
    }
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) {
            float *to = sums + r * 32 + 16 * h;
            _mm512_store_ps(to, decoded ? f[r][h] : _mm512_div_ps(f[r][h], times[h]));
        }
    }
}

typedef void tile_kernel(const i8_plan *plan, const int32_t *x, const tile_weights *w, int64_t unit0, int64_t unit1,
                         float *sums);

#define TILE(R, source, block)                                                                                         \
    static void tile_##R##_##source##_##block(const i8_plan *plan, const int32_t *x, const tile_weights *w,            \
                                              int64_t unit0, int64_t unit1, float *sums) {                             \
        tile(R, source, block, plan, x, w, unit0, unit1, sums);                                                        \
    }
#define TILES_OF(R)                                                                                                    \
    TILE(R, I8_RAW4, 0)                                                                                                \
    TILE(R, I8_RAW4, 1)                                                                                                \
    TILE(R, I8_TABLE4, 0)                                                                                              \
    TILE(R, I8_TABLE4, 1)                                                                                              \
    TILE(R, I8_RAW8, 0)                                                                                                \
    TILE(R, I8_RAW8, 1)                                                                                                \
    TILE(R, I8_PLANES5, 0)                                                                                             \
    TILE(R, I8_PLANES5, 1)                                                                                             \
    TILE(R, I8_PLANES6, 0) TILE(R, I8_PLANES6, 1) TILE(R, I8_DECODED, 0) TILE(R, I8_DECODED, 1)
#define ROW_OF(R, source)                                                                                              \
    { tile_##R##_##source##_0, tile_##R##_##source##_1 }
#define ROWS_OF(R)                                                                                                     \
    {                                                                                                                  \
        ROW_OF(R, I8_RAW4), ROW_OF(R, I8_TABLE4), ROW_OF(R, I8_RAW8), ROW_OF(R, I8_PLANES5), ROW_OF(R, I8_PLANES6),    \
            ROW_OF(R, I8_DECODED)                                                                                      \
    }

TILES_OF(1)
TILES_OF(2)
TILES_OF(4)
TILES_OF(6)
TILES_OF(8)
static tile_kernel *const TILES[9][I8_DECODED + 1][2] = {
    [1] = ROWS_OF(1), [2] = ROWS_OF(2), [4] = ROWS_OF(4), [6] = ROWS_OF(6), [8] = ROWS_OF(8)};

/* ---- the loops around it ---- */

enum { SUM_ROWS = 504 }; /* whose sums wait for the next piece */

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

/* Units of a panel for rows row0 .. row1-1, decoded once for all tiles. */
static void run_decoded(const gatun_linear_task *t, const i8_plan *plan, int64_t panel, int64_t row0, int64_t row1) {
    i8_scratch s = cut_scratch(plan, t->scratch);
    int64_t rows, unit1;
    for (int64_t unit = 0; unit < plan->units; unit = unit1) {
        unit1 = unit + plan->piece < plan->units ? unit + plan->piece : plan->units;
        decode_units(t->packed, plan, panel, unit, unit1, s.decoded);
        unit_scales(t->packed, plan, panel, unit, unit1, s.scales);
        tile_weights w = {.codes = s.decoded, .scales = s.scales};
        for (int64_t row = row0; row < row1; row += rows) {
            rows = i8_tile_rows(t->m, row);
            const int32_t *x = i8_tile(plan, t->x, row, rows, unit);
            float *sums = s.sums + (row - row0) * GATUN_PANEL;
            TILES[rows][I8_DECODED][plan->block](plan, x, &w, unit, unit1, sums);
            if (unit1 == plan->units) {
                finish_tile(t, plan, row, rows, panel, sums);
            }
        }
    }
}

/* One or two tiles: codes and scales as they lie. */
static void run_fused(const gatun_linear_task *t, const i8_plan *plan, int64_t panel, int64_t row0, int64_t row1) {
    tile_weights w = {.codes = gatun_packed_group(t->packed, panel, 0), .packed = t->packed, .panel = panel};
    int64_t rows;
    for (int64_t row = row0; row < row1; row += rows) {
        rows = i8_tile_rows(t->m, row);
        float *sums = (float *)t->scratch;
        TILES[rows][plan->source][plan->block](plan, i8_tile(plan, t->x, row, rows, 0), &w, 0, plan->units, sums);
        finish_tile(t, plan, row, rows, panel, sums);
    }
}

static void run(const gatun_linear_task *t, bool block) {
    i8_plan plan;
    i8_make_plan(t->packed, block, t->m, &plan);
    int64_t row1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        for (int64_t panel = t->panel0; panel < t->panel1; panel++) {
            if (t->m > I8_FUSED_ROWS) {
                memset(t->scratch, 0, (size_t)((row1 - row0 + I8_TILE) * GATUN_PANEL * 4));
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
