/* The microkernels of integer `linear`: linear_i8.c says what they are made of. */
#ifndef GATUN_AVX512_I8_TILE_H
#define GATUN_AVX512_I8_TILE_H

#include "cpu/avx512/i8_weights.h"

/* Bytes that x is prefetched ahead: about a third-level latency; bytes of coming codes fetched beside a decoded step.
 */
enum { X_AHEAD = 2048, FETCH_STEP = 32 };

/* `count` steps; even and odd ones have their own sums if there are two chains. What decoded ones fetch: `ahead`. */
GATUN_INLINE void dots(const int R, const int source, const int count, const int chains, const int32_t *x,
                       const uint8_t *codes, const uint8_t *ahead, __m512i constant, __m512i c[2][8][2]) {
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
        if (source == I8_DECODED && s % 2 == 0) {
            _mm_prefetch((const char *)ahead + s * FETCH_STEP, _MM_HINT_T1);
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

/* What a unit's sums are multiplied by, and what is subtracted from them before and added afterwards, both per sum of
 * x. The numbers of both halves. */
typedef struct unit_numbers {
    __m512 scale[2], zero[2], offset[2];
} unit_numbers;

GATUN_INLINE unit_numbers numbers_decoded(const bool with_sums, const i8_plan *plan, const float *scales) {
    unit_numbers n;
    GATUN_UNROLL for (int h = 0; h < 2; h++) {
        n.scale[h] = _mm512_load_ps(scales + 16 * h);
        n.zero[h] = with_sums && plan->zeros ? _mm512_load_ps(scales + 32 + 16 * h) : _mm512_setzero_ps();
        n.offset[h] = with_sums && plan->offsets ? _mm512_load_ps(scales + 64 + 16 * h) : _mm512_setzero_ps();
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

/* What a kernel knows of the steps of its units: nothing, that they are whole runs of eight, or how many they are. */
enum { ANY_STEPS = 0, EIGHTS = 1 };

/* Integer sums of a unit of `steps` steps; x is at the first. */
GATUN_INLINE void unit_sums(const int R, const int source, const int known, int64_t steps, const int32_t *x,
                            const uint8_t *codes, const uint8_t *ahead, __m512i constant, __m512i c[8][2]) {
    const int chains = R <= 2 ? 2 : 1; /* short tiles would wait for their own sums */
    const int64_t step_bytes = i8_step_bytes(source);
    __m512i sums[2][8][2];
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        __m512i start = _mm512_set1_epi32(x[steps * R + r]);
        sums[0][r][0] = start;
        sums[0][r][1] = source == I8_RAW4 ? _mm512_slli_epi32(start, 4) : start;
        sums[1][r][0] = sums[1][r][1] = _mm512_setzero_si512();
    }
    if (known > EIGHTS) {
        dots(R, source, known, chains, x, codes, ahead, constant, sums);
    } else {
        int64_t s = 0;
        for (; s + 8 <= steps; s += 8, codes += 8 * step_bytes, ahead += 8 * FETCH_STEP) {
            dots(R, source, 8, chains, x + s * R, codes, ahead, constant, sums);
        }
        for (; known == ANY_STEPS && s + 4 <= steps; s += 4, codes += 4 * step_bytes, ahead += 4 * FETCH_STEP) {
            dots(R, source, 4, chains, x + s * R, codes, ahead, constant, sums);
        }
        const bool planes = source == I8_PLANES5 || source == I8_PLANES6; /* come in fours */
        for (; known == ANY_STEPS && !planes && s < steps; s++, codes += step_bytes, ahead += FETCH_STEP) {
            dots(R, source, 1, 1, x + s * R, codes, ahead, constant, sums);
        }
    }
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) {
            c[r][h] = chains == 2 ? _mm512_add_epi32(sums[0][r][h], sums[1][r][h]) : sums[0][r][h];
        }
    }
}

/* f += xs * (scale * (sum - zero * sum q) + offset * sum q); x is at the unit's x scales or float sums. */
GATUN_INLINE void add_unit(const int R, const bool block, const bool with_sums, const i8_plan *plan, const int32_t *x,
                           const unit_numbers *n, __m512i c[8][2], __m512 f[8][2]) {
    const float *x_scales = (const float *)x, *x_sums = x_scales + (block ? R : 0);
    __m512 v[8][2];
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) { v[r][h] = _mm512_cvtepi32_ps(c[r][h]); }
    }
    if (with_sums && plan->zeros) {
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            GATUN_UNROLL for (int h = 0; h < 2; h++) {
                v[r][h] = _mm512_fnmadd_ps(n->zero[h], _mm512_set1_ps(x_sums[r]), v[r][h]);
            }
        }
    }
    if (with_sums && plan->offsets) {
        GATUN_UNROLL for (int r = 0; r < R; r++) {
            GATUN_UNROLL for (int h = 0; h < 2; h++) {
                __m512 sum = _mm512_set1_ps(x_sums[r]);
                __m512 before = block ? _mm512_mul_ps(n->offset[h], sum) : _mm512_fmadd_ps(n->offset[h], sum, f[r][h]);
                v[r][h] = _mm512_fmadd_ps(v[r][h], n->scale[h], before);
                f[r][h] = block ? _mm512_fmadd_ps(v[r][h], _mm512_set1_ps(x_scales[r]), f[r][h]) : v[r][h];
            }
        }
        return;
    }
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) {
            __m512 scale = block ? _mm512_mul_ps(n->scale[h], _mm512_set1_ps(x_scales[r])) : n->scale[h];
            f[r][h] = _mm512_fmadd_ps(v[r][h], scale, f[r][h]);
        }
    }
}

/* Adds decoded units unit0 .. unit1-1 of a panel to sums [R][32], which the first one starts; x begins at unit0. */
GATUN_INLINE void tile_decoded(const int R, const bool block, const bool with_sums, const int known,
                               const i8_plan *plan, const int32_t *x, const uint8_t *codes, const float *scales,
                               const uint8_t *ahead, int64_t unit0, int64_t unit1, float *sums) {
    __m512 f[8][2];
    GATUN_UNROLL for (int i = 0; i < 2 * R; i++) {
        f[i / 2][i % 2] = unit0 == 0 ? _mm512_setzero_ps() : _mm512_load_ps(sums + 16 * i);
    }
    for (int64_t unit = unit0; unit < unit1; unit++, scales += SCALES) {
        int64_t steps = known > EIGHTS ? known : known == EIGHTS ? plan->unit_steps : i8_unit_steps(plan, unit);
        __m512i c[8][2];
        unit_sums(R, I8_DECODED, known, steps, x, codes, ahead, _mm512_setzero_si512(), c);
        x += (steps + 1) * R;
        unit_numbers n = numbers_decoded(with_sums, plan, scales);
        add_unit(R, block, with_sums, plan, x, &n, c, f);
        x += R * (block + with_sums);
        codes += steps * 128;
        ahead += steps * FETCH_STEP;
    }
    GATUN_UNROLL for (int i = 0; i < 2 * R; i++) { _mm512_store_ps(sums + 16 * i, f[i / 2][i % 2]); }
}

/* The sums of all units of a panel from codes as they are packed. */
GATUN_INLINE void tile_packed(const int R, const int source, const bool block, const int known, const i8_plan *plan,
                              const int32_t *x, const gatun_packed *p, int64_t panel, float *sums) {
    const __m512i constant = weight_constant(plan);
    const int kind = scale_kind(p);
    /* The sums are `factor` and, in a half that was not shifted down, 16 times too large. */
    const float high = source == I8_RAW4 ? 16 * plan->factor : plan->factor;
    const __m512 times[2] = {_mm512_set1_ps(plan->factor), _mm512_set1_ps(high)};
    __m512 f[8][2];
    GATUN_UNROLL for (int r = 0; r < R; r++) { f[r][0] = f[r][1] = _mm512_setzero_ps(); }
    for (int64_t group = 0; group < p->groups; group++) {
        const uint8_t *codes = gatun_packed_group(p, panel, group);
        gatun_parameters at = gatun_packed_parameters(p, panel, group);
        int64_t steps;
        for (int64_t s = 0; s < plan->group_steps; s += steps) {
            const int64_t left = plan->group_steps - s;
            steps = known > EIGHTS ? known : left < plan->unit_steps ? left : plan->unit_steps;
            __m512i c[8][2];
            unit_sums(R, source, known, steps, x, codes, codes, constant, c);
            x += (steps + 1) * R;
            unit_numbers n = numbers_of_kind(kind, p, plan, at, times);
            add_unit(R, block, true, plan, x, &n, c, f);
            x += R * (block + plan->with_sums);
            codes += steps * i8_step_bytes(source);
        }
        prefetch_numbers(p, at, codes, group, AHEAD);
    }
    GATUN_UNROLL for (int r = 0; r < R; r++) {
        GATUN_UNROLL for (int h = 0; h < 2; h++) {
            _mm512_store_ps(sums + r * 32 + 16 * h, _mm512_div_ps(f[r][h], times[h]));
        }
    }
}

/* Kernels of decoded units: for full tiles of the usual lengths of units, and for all others. */
typedef void decoded_kernel(const i8_plan *plan, const int32_t *x, const uint8_t *codes, const float *scales,
                            const uint8_t *ahead, int64_t unit0, int64_t unit1, float *sums);

#define DECODED(R, block, with_sums, known)                                                                            \
    static void decoded_##R##_##block##_##with_sums##_##known(                                                         \
        const i8_plan *plan, const int32_t *x, const uint8_t *codes, const float *scales, const uint8_t *ahead,        \
        int64_t unit0, int64_t unit1, float *sums) {                                                                   \
        tile_decoded(R, block, with_sums, known, plan, x, codes, scales, ahead, unit0, unit1, sums);                   \
    }
#define DECODED_OF(R, known)                                                                                           \
    DECODED(R, 0, 0, known) DECODED(R, 0, 1, known) DECODED(R, 1, 0, known) DECODED(R, 1, 1, known)
#define DECODED_ROW(R, known)                                                                                          \
    {                                                                                                                  \
        {decoded_##R##_0_0_##known, decoded_##R##_0_1_##known}, {                                                      \
            decoded_##R##_1_0_##known, decoded_##R##_1_1_##known                                                       \
        }                                                                                                              \
    }
DECODED_OF(1, ANY_STEPS)
DECODED_OF(2, ANY_STEPS)
DECODED_OF(4, ANY_STEPS)
DECODED_OF(6, ANY_STEPS)
DECODED_OF(8, ANY_STEPS)
DECODED_OF(8, EIGHTS)
DECODED_OF(8, 4)
DECODED_OF(8, 8)

static decoded_kernel *decoded_tile(const i8_plan *plan, int64_t rows) {
    static decoded_kernel *const any[9][2][2] = {[1] = DECODED_ROW(1, ANY_STEPS),
                                                 [2] = DECODED_ROW(2, ANY_STEPS),
                                                 [4] = DECODED_ROW(4, ANY_STEPS),
                                                 [6] = DECODED_ROW(6, ANY_STEPS),
                                                 [8] = DECODED_ROW(8, ANY_STEPS)};
    static decoded_kernel *const known[3][2][2] = {DECODED_ROW(8, 4), DECODED_ROW(8, 8), DECODED_ROW(8, EIGHTS)};
    int64_t steps = plan->unit_steps;
    if (rows != 8 || plan->group_steps % steps != 0 || (steps != 4 && steps % 8 != 0)) {
        return any[rows][plan->block][plan->with_sums];
    }
    return known[steps == 4 ? 0 : steps == 8 ? 1 : 2][plan->block][plan->with_sums];
}

/* Kernels of packed units, by rows, source and a scale of x per block; for full tiles also of units of eight steps. */
typedef void packed_kernel(const i8_plan *plan, const int32_t *x, const gatun_packed *p, int64_t panel, float *sums);

#define PACKED(R, source, block, known)                                                                                \
    static void packed_##R##_##source##_##block##_##known(const i8_plan *plan, const int32_t *x,                       \
                                                          const gatun_packed *p, int64_t panel, float *sums) {         \
        tile_packed(R, source, block, known, plan, x, p, panel, sums);                                                 \
    }
#define PACKED_BOTH(R, source, known) PACKED(R, source, 0, known) PACKED(R, source, 1, known)
#define PACKED_OF(R, known)                                                                                            \
    PACKED_BOTH(R, I8_RAW4, known)                                                                                     \
    PACKED_BOTH(R, I8_TABLE4, known)                                                                                   \
    PACKED_BOTH(R, I8_RAW8, known) PACKED_BOTH(R, I8_PLANES5, known) PACKED_BOTH(R, I8_PLANES6, known)
#define PACKED_ROW(R, source, known)                                                                                   \
    { packed_##R##_##source##_0_##known, packed_##R##_##source##_1_##known }
#define PACKED_ROWS(R, known)                                                                                          \
    {                                                                                                                  \
        PACKED_ROW(R, I8_RAW4, known), PACKED_ROW(R, I8_TABLE4, known), PACKED_ROW(R, I8_RAW8, known),                 \
            PACKED_ROW(R, I8_PLANES5, known), PACKED_ROW(R, I8_PLANES6, known)                                         \
    }
PACKED_OF(1, ANY_STEPS)
PACKED_OF(2, ANY_STEPS)
PACKED_OF(4, ANY_STEPS)
PACKED_OF(6, ANY_STEPS)
PACKED_OF(8, ANY_STEPS)
PACKED_OF(8, 8)

static packed_kernel *packed_tile(const i8_plan *plan, int64_t rows) {
    static packed_kernel *const any[9][I8_DECODED][2] = {[1] = PACKED_ROWS(1, ANY_STEPS),
                                                         [2] = PACKED_ROWS(2, ANY_STEPS),
                                                         [4] = PACKED_ROWS(4, ANY_STEPS),
                                                         [6] = PACKED_ROWS(6, ANY_STEPS),
                                                         [8] = PACKED_ROWS(8, ANY_STEPS)};
    static packed_kernel *const eight_steps[I8_DECODED][2] = PACKED_ROWS(8, 8);
    bool eight = rows == 8 && plan->unit_steps == 8 && plan->group_steps % 8 == 0;
    return eight ? eight_steps[plan->source][plan->block] : any[rows][plan->source][plan->block];
}

#endif
