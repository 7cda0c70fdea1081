/*
 * linear_f32_<weight>__avx2 and linear_bf16_<weight>__avx2: y[m][n] = sum over k of x[m][k] * w[n][k] by float
 * fused multiply-add. AVX2 has no bfloat16 product: both operands are rounded to it, and then multiplied as floats.
 *
 * linear_i8_<weight>__avx2 and linear_i8_block_<weight>__avx2 are the same with x as integers times their scale, and
 * with weights as the integer computes have them: not rounded, NF4's and FP4's table in 127ths.
 *
 * A piece of K of a panel (half of the first-level cache) is dequantized to [k][32] floats, as the definition rounds
 * it; x lies in tiles of rows, piece by piece, [k][R]. Register plan: 6 rows x 16 outputs: 12 sums, 2 of weights, 1
 * broadcast; the two halves of a panel are two passes over the piece. Fewer rows have 2 chains of sums.
 *
 * Codes of 4 bits are looked up by two vpermps (8 entries each) and a blend on the index's fourth bit; integers of 8
 * bits are widened, 8-bit floats and codes of 5 and 6 bits gathered from their table.
 */
#include "cpu/avx2/epilogue.h"
#include "cpu/cache.h"
#include "cpu/kernels.h"

enum { TILE = 6, ROW_TILE = 24, SUM_ROWS = 504 };
enum { TABLE4, TABLE8, INTEGERS8, PLANES, PLAIN };
enum { AS_IS, ROUNDED, QUANTIZED, QUANTIZED_BLOCK, X_BLOCK = 32 }; /* what is done to the operands first */

typedef struct float_plan {
    int source;
    int32_t flip; /* INTEGERS8: value = (code ^ flip) - flip */
    int operands;
    float table4[16];
    int64_t k, piece; /* padded K; k of a piece */
} float_plan;

static bool make_plan(const gatun_packed *p, int operands, float_plan *plan) {
    *plan = (float_plan){.source = PLAIN, .operands = operands, .k = p->k};
    if (p->k == 0 || p->form == GATUN_FORM_SOURCE) {
        return false;
    }
    if (p->form != GATUN_FORM_PLAIN) {
        plan->k = p->groups * p->group;
        plan->source = p->form == GATUN_FORM_CODES4 ? TABLE4 : p->form == GATUN_FORM_CODES8 ? TABLE8 : PLANES;
    }
    bool in_127ths = operands >= QUANTIZED && p->matrix.codebook_size == 0 &&
                     (p->matrix.encoding == GATUN_NF4 || p->matrix.encoding == GATUN_FP4);
    for (int32_t c = 0; plan->source == TABLE4 && c < 16; c++) {
        float value = gatun_packed_table(p)[c];
        plan->table4[c] = in_127ths ? rintf(value * 127.0f) / 127.0f : value;
    }
    for (int32_t flip = 0; plan->source == TABLE8 && flip <= 128; flip += 128) {
        bool same = true;
        for (int32_t c = 0; c < 256; c++) {
            same = same && gatun_packed_table(p)[c] == (float)((c ^ flip) - flip);
        }
        plan->source = same ? INTEGERS8 : TABLE8;
        plan->flip = flip;
    }
    int64_t fit = gatun_cache_bytes(1) / 2 / (4 * GATUN_PANEL) / X_BLOCK * X_BLOCK;
    plan->piece = fit < plan->k ? fit : plan->k;
    return true;
}

static int64_t tile_rows(int64_t m, int64_t row) {
    int64_t left = m - row;
    return left > 4 ? TILE : left == 3 ? 4 : left;
}

static float *tile_of(const float_plan *plan, const void *area, int64_t m, int64_t row, int64_t k) {
    int64_t left = plan->k - k;
    return (float *)(uintptr_t)area + (m + TILE) * k + row * (left < plan->piece ? left : plan->piece);
}

static int64_t x_bytes(const gatun_packed *p, int64_t m) {
    float_plan plan;
    make_plan(p, AS_IS, &plan);
    return 4 * (m + TILE) * plan.k;
}

/* Eight of a row's numbers from k on; zeros beyond its end. */
static __m256 load_x(const gatun_linear_input *in, int64_t row, int64_t k) {
    int64_t size = gatun_plain_size(in->x_type);
    int64_t count = in->packed->k - k < 8 ? in->packed->k - k : 8;
    float v[8] = {0}, factors[8] = {0};
    memcpy(v, (const uint8_t *)in->x + (row * in->ldx + k) * size, (size_t)(count * size));
    if (in->x_multiplier == NULL) {
        return load_plain(in->x_type, v);
    }
    memcpy(factors, in->x_multiplier + k, (size_t)(4 * count));
    return _mm256_mul_ps(load_plain(in->x_type, v), _mm256_loadu_ps(factors));
}

/* The scale of k0 .. k1-1 of a row, absmax / 127 unless one is given; 0 where there is nothing to quantize: zeros
 * alone, or NaN or infinity. */
static float x_scale(const gatun_linear_input *in, int64_t row, int64_t k0, int64_t k1) {
    __m256 largest = _mm256_setzero_ps(), finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (int64_t k = k0; k < k1; k += 8) {
        __m256 v = V_ABS(load_x(in, row, k));
        finite = _mm256_and_ps(finite, _mm256_cmp_ps(v, _mm256_set1_ps(INFINITY), _CMP_LT_OQ));
        largest = _mm256_max_ps(largest, v);
    }
    float eight[8], most = 0;
    _mm256_storeu_ps(eight, largest);
    for (int i = 0; i < 8; i++) {
        most = eight[i] > most ? eight[i] : most;
    }
    return _mm256_movemask_ps(finite) != 255 ? 0 : in->x_scale != 0 ? in->x_scale : most / 127.0f;
}

static __m256 quantized(__m256 v, float scale) {
    __m256 by = _mm256_set1_ps(scale);
    return scale == 0 ? v : _mm256_mul_ps(V_ROUND(_mm256_div_ps(v, by)), by);
}

static bool fill(const gatun_linear_input *in, int operands, int64_t row0, int64_t row1, void *area) {
    float_plan plan;
    make_plan(in->packed, operands, &plan);
    int64_t rows, k_end = in->packed->k;
    for (int64_t first = row0; first < row1; first += rows) {
        rows = tile_rows(in->m, first);
        for (int64_t k0 = 0; k0 < plan.k; k0 += plan.piece) {
            float *x = tile_of(&plan, area, in->m, first, k0);
            int64_t count = plan.k - k0 < plan.piece ? plan.k - k0 : plan.piece;
            memset(x, 0, (size_t)(4 * rows * count)); /* for what is beyond M and K */
            for (int64_t r = 0; r < rows && first + r < in->m; r++) {
                float scale = operands == QUANTIZED ? x_scale(in, first + r, 0, k_end) : 0;
                for (int64_t k = k0; k < k0 + count && k < k_end; k += 8) {
                    __m256 eight = load_x(in, first + r, k);
                    if (operands == QUANTIZED_BLOCK && k % X_BLOCK == 0) {
                        scale = x_scale(in, first + r, k, k_end - k < X_BLOCK ? k_end : k + X_BLOCK);
                    }
                    float v[8];
                    _mm256_storeu_ps(v, operands == ROUNDED ? round_to_bf16(eight) : quantized(eight, scale));
                    for (int64_t i = 0; i < 8 && k + i < k0 + count; i++) {
                        x[(k - k0 + i) * rows + r] = v[i];
                    }
                }
            }
        }
    }
    return true;
}

/* ---- weights ---- */

typedef struct group_values {
    __m256 scale[4], zero[4], offset[4];
    bool offsets;
    int32_t arithmetic, result;
} group_values;

/* Eight of the table's sixteen floats by the lowest four bits of each index. */
GATUN_INLINE __m256 lookup4(__m256 low, __m256 high, __m256i index) {
    __m256 fourth = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), fourth);
}

/* Outputs 8q .. 8q+7 of k of a group of CODES5 or CODES6. */
GATUN_INLINE __m256i plane_codes(int32_t form, const uint8_t *group, int64_t k, int q) {
    int32_t shift;
    const uint8_t *low = group + gatun_panel_low_byte(form, 8 * q, k / 4 * 4);
    const uint8_t *high = group + gatun_panel_high_byte(form, 8 * q, k / 4 * 4, &shift);
    int at = 8 * (int)(k % 4);
    __m256i nibbles = _mm256_srl_epi32(_mm256_loadu_si256((const __m256i *)low), _mm_cvtsi32_si128(at + 4 * (q / 2)));
    __m256i rest = _mm256_srl_epi32(_mm256_loadu_si256((const __m256i *)high), _mm_cvtsi32_si128(at + shift));
    rest = _mm256_and_si256(rest, _mm256_set1_epi32(form == GATUN_FORM_CODES5 ? 1 : 3));
    return _mm256_or_si256(_mm256_and_si256(nibbles, _mm256_set1_epi32(15)), _mm256_slli_epi32(rest, 4));
}

/* Outputs 8q .. 8q+7 of k = 4 * step + i; `table` is the float table. */
GATUN_INLINE __m256 lookup(int source, const float_plan *plan, const float *table, const uint8_t *step, int q, int i) {
    if (source == TABLE4) {
        __m256i codes = _mm256_loadu_si256((const __m256i *)step + q % 2);
        __m256i index = _mm256_srli_epi32(codes, 8 * i + 4 * (q / 2));
        return lookup4(_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8), index);
    }
    __m256i codes = _mm256_loadu_si256((const __m256i *)step + q);
    __m256i code = _mm256_and_si256(_mm256_srli_epi32(codes, 8 * i), _mm256_set1_epi32(255));
    if (source == TABLE8) {
        return _mm256_i32gather_ps(table, code, 4);
    }
    __m256i flip = _mm256_set1_epi32(plan->flip);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_xor_si256(code, flip), flip));
}

GATUN_INLINE void decode_codes(int source, const gatun_packed *p, const float_plan *plan, int64_t panel, int64_t k0,
                               int64_t k1, float *out) {
    const gatun_matrix *m = &p->matrix;
    const float *table = source == TABLE4 ? plan->table4 : gatun_packed_table(p);
    const int64_t step_bytes = source == TABLE4 ? 64 : 128; /* planes are addressed by k */
    group_values g = {.offsets = p->offsets_offset != 0, .arithmetic = m->arithmetic, .result = m->result};
    bool rounded = plan->operands < QUANTIZED && (m->arithmetic != GATUN_F32 || m->result != GATUN_F32);
    for (int64_t k = k0; k < k1; k += 4, out += 4 * GATUN_PANEL) {
        const uint8_t *group = gatun_packed_group(p, panel, k / p->group);
        if (k == k0 || k % p->group == 0) {
            gatun_parameters at = gatun_packed_parameters(p, panel, k / p->group);
            for (int q = 0; q < 4; q++) {
                g.scale[q] = load_scale(p, at, 8 * q);
                g.zero[q] = load_zero(p, at, 8 * q);
                g.offset[q] = load_offset(p, at, 8 * q);
            }
        }
        const uint8_t *step = group + k % p->group / 4 * step_bytes;
        _mm_prefetch((const char *)step + 2048, _MM_HINT_T0);
        GATUN_UNROLL for (int i = 0; i < 4; i++) {
            GATUN_UNROLL for (int q = 0; q < 4; q++) {
                __m256 v = source == PLANES
                               ? _mm256_i32gather_ps(table, plane_codes(p->form, group, k % p->group + i, q), 4)
                               : lookup(source, plan, table, step, q, i);
                v = _mm256_mul_ps(_mm256_sub_ps(v, g.zero[q]), g.scale[q]);
                v = rounded ? round_plain(g.arithmetic, v) : v;
                if (g.offsets) {
                    v = _mm256_add_ps(v, g.offset[q]);
                    v = rounded ? round_plain(g.arithmetic, v) : v;
                }
                v = rounded ? round_plain(g.result, v) : v;
                _mm256_storeu_ps(out + 32 * i + 8 * q, plan->operands == ROUNDED ? round_to_bf16(v) : v);
            }
        }
    }
}

static void decode_plain(const gatun_packed *p, const float_plan *plan, int64_t panel, int64_t k0, int64_t k1,
                         float *out) {
    const uint8_t *from = gatun_packed_group(p, panel, 0);
    for (int64_t k = k0; k < k1; k++) {
        for (int q = 0; q < 4; q++, out += 8) {
            __m256 v;
            if (p->matrix.encoding == GATUN_F32) {
                v = _mm256_loadu_ps((const float *)(const void *)from + 32 * k + 8 * q);
            } else { /* pairs of neighbouring k */
                __m256i pairs = _mm256_loadu_si256((const __m256i *)(from + k / 2 * 128) + q);
                __m256i half =
                    k % 2 == 0 ? _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF)) : _mm256_srli_epi32(pairs, 16);
                __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(half, half), 0x08);
                __m128i eight = _mm256_castsi256_si128(packed);
                v = p->matrix.encoding == GATUN_F16 ? _mm256_cvtph_ps(eight) : bf16_to_float(eight);
            }
            _mm256_storeu_ps(out, plan->operands == ROUNDED ? round_to_bf16(v) : v);
        }
    }
}

static void decode(const gatun_packed *p, const float_plan *plan, int64_t panel, int64_t k0, int64_t k1, float *out) {
    switch (plan->source) {
    case TABLE4:
        decode_codes(TABLE4, p, plan, panel, k0, k1, out);
        break;
    case TABLE8:
        decode_codes(TABLE8, p, plan, panel, k0, k1, out);
        break;
    case INTEGERS8:
        decode_codes(INTEGERS8, p, plan, panel, k0, k1, out);
        break;
    case PLANES:
        decode_codes(PLANES, p, plan, panel, k0, k1, out);
        break;
    default:
        decode_plain(p, plan, panel, k0, k1, out);
    }
}

/* ---- the microkernel ---- */

/* Adds `count` k of weights w [k][32] to sums [R][32]. */
GATUN_INLINE void tile(const int R, const float *x, const float *w, int64_t count, float *sums) {
    const int chains = R <= 2 ? 2 : 1;
    for (int half = 0; half < 2; half++, w += 16, sums += 16) {
        __m256 c[2][TILE][2];
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            GATUN_UNROLL for (int v = 0; v < 2; v++) {
                c[0][r][v] = _mm256_loadu_ps(sums + 32 * r + 8 * v);
                c[1][r][v] = _mm256_setzero_ps();
            }
        }
        int64_t k = 0;
        for (; k + 4 <= count; k += 4) {
            GATUN_UNROLL for (int i = 0; i < 4; i++) {
                __m256 first = _mm256_loadu_ps(w + 32 * (k + i)), second = _mm256_loadu_ps(w + 32 * (k + i) + 8);
                GATUN_UNROLL for (int r = 0; r < R; r++) {
                    __m256 one = _mm256_broadcast_ss(x + (k + i) * R + r);
                    c[i % chains][r][0] = _mm256_fmadd_ps(first, one, c[i % chains][r][0]);
                    c[i % chains][r][1] = _mm256_fmadd_ps(second, one, c[i % chains][r][1]);
                }
            }
        }
        for (; k < count; k++) {
            GATUN_UNROLL for (int r = 0; r < R; r++) {
                __m256 one = _mm256_broadcast_ss(x + k * R + r);
                c[0][r][0] = _mm256_fmadd_ps(_mm256_loadu_ps(w + 32 * k), one, c[0][r][0]);
                c[0][r][1] = _mm256_fmadd_ps(_mm256_loadu_ps(w + 32 * k + 8), one, c[0][r][1]);
            }
        }
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            GATUN_UNROLL for (int v = 0; v < 2; v++) {
                __m256 sum = chains == 2 ? _mm256_add_ps(c[0][r][v], c[1][r][v]) : c[0][r][v];
                _mm256_storeu_ps(sums + 32 * r + 8 * v, sum);
            }
        }
    }
}

typedef void tile_kernel(const float *x, const float *w, int64_t count, float *sums);
#define TILE_OF(R)                                                                                                     \
    static void tile_##R(const float *x, const float *w, int64_t count, float *sums) { tile(R, x, w, count, sums); }
TILE_OF(1)
TILE_OF(2)
TILE_OF(4)
TILE_OF(6)
static tile_kernel *const TILES[] = {[1] = tile_1, [2] = tile_2, [4] = tile_4, [6] = tile_6};

static int64_t scratch_bytes(const gatun_packed *p) {
    float_plan plan;
    make_plan(p, AS_IS, &plan);
    return 4 * GATUN_PANEL * (SUM_ROWS + TILE + plan.piece);
}

static void run(const gatun_linear_task *t, int operands) {
    float_plan plan;
    make_plan(t->packed, operands, &plan);
    float *sums = (float *)(void *)t->scratch;
    float *decoded = sums + (SUM_ROWS + TILE) * GATUN_PANEL;
    bool direct = operands != ROUNDED && plan.source == PLAIN && t->packed->matrix.encoding == GATUN_F32;
    int64_t row1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        for (int64_t panel = t->panel0; panel < t->panel1; panel++) {
            memset(sums, 0, (size_t)(4 * GATUN_PANEL * (row1 - row0 + TILE)));
            for (int64_t k = 0; k < plan.k; k += plan.piece) {
                int64_t end = k + plan.piece < plan.k ? k + plan.piece : plan.k;
                const float *w = decoded;
                if (direct) {
                    w = (const float *)(const void *)gatun_packed_group(t->packed, panel, 0) + 32 * k;
                } else {
                    decode(t->packed, &plan, panel, k, end, decoded);
                }
                int64_t rows;
                for (int64_t row = row0; row < row1; row += rows) {
                    rows = tile_rows(t->m, row);
                    float *tile_sums = sums + (row - row0) * GATUN_PANEL;
                    TILES[rows](tile_of(&plan, t->x, t->m, row, k), w, end - k, tile_sums);
                    if (end == plan.k) {
                        store_tile(t, row, row + rows < t->m ? rows : t->m - row, panel, tile_sums);
                    }
                }
            }
        }
    }
}

/* SOURCE blocks come dequantized: their values are the integer computes' own only where nothing is rounded. */
static bool accepts(const gatun_packed *p, int operands) {
    bool exact =
        gatun_is_gguf(p->matrix.encoding) && p->matrix.arithmetic == GATUN_F32 && p->matrix.result == GATUN_F32;
    bool integers = gatun_linear_i8_accepts__scalar(p) && (p->form != GATUN_FORM_SOURCE || exact);
    return p->k != 0 && (operands < QUANTIZED || integers);
}

#define KERNEL(name, operands)                                                                                         \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return fill(in, operands, row0, row1, area);                                                                   \
    }                                                                                                                  \
    const gatun_x_layout name##_x__avx2 = {                                                                            \
        .row_tile = ROW_TILE, .bytes = x_bytes, .fill = name##_fill, .scratch = scratch_bytes};                        \
    void name##__avx2(const gatun_linear_task *t) { run(t, operands); }                                                \
    bool name##_accepts__avx2(const gatun_packed *p) { return accepts(p, operands); }
KERNEL(gatun_linear_f32, AS_IS)
KERNEL(gatun_linear_bf16, ROUNDED)
KERNEL(gatun_linear_i8, QUANTIZED)
KERNEL(gatun_linear_i8_block, QUANTIZED_BLOCK)
