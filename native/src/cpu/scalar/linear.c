/*
 * linear_*__scalar: the definition. y[r][n] = epilogue( sum_b x_scale[r][b] * sum_{k in b} x'[r][k] * w[n][k] ),
 * products and sums in double, four chains. W's row is decoded once and used for every row of x.
 *
 *   f32       x' = x, w = the dequantized weight, no scales
 *   bf16      both rounded to bfloat16
 *   i8        x' = x / scale to the nearest integer (ties to even), scale = absmax / 127 of the row; w unrounded
 *   i8_block  the same with a scale for each 32 k
 *
 * A codebook of a matrix's own has no integers, unless row scales make integers of its products.
 * A row (block) with NaN or infinity has no scale: it is multiplied as it is, so that they reach y.
 *
 * The x area: [m][scales of a row] floats, 64-byte aligned, then [m][K] floats.
 */
#include "cpu/epilogue.h"
#include "cpu/kernels.h"

enum { BLOCK = 32 };

static int64_t align(int64_t size) { return (size + 63) / 64 * 64; }

static int64_t block_scales(int64_t k) { return (k + BLOCK - 1) / BLOCK; }

static int64_t area_bytes(int64_t m, int64_t k, int64_t scales) {
    return align(m * scales * (int64_t)sizeof(float)) + align(m * k * (int64_t)sizeof(float));
}

static float *values_of(const void *area, int64_t m, int64_t scales) {
    return (float *)(void *)((uint8_t *)area + align(m * scales * (int64_t)sizeof(float)));
}

static int64_t plain_bytes(const gatun_packed *packed, int64_t m) { return area_bytes(m, packed->k, 0); }
static int64_t i8_bytes(const gatun_packed *packed, int64_t m) { return area_bytes(m, packed->k, 1); }
static int64_t i8_block_bytes(const gatun_packed *packed, int64_t m) {
    return area_bytes(m, packed->k, block_scales(packed->k));
}
static int64_t row_scratch(const gatun_packed *packed) { return align(packed->k * (int64_t)sizeof(float)); }

static void load_row(const gatun_linear_input *in, int64_t row, float *out) {
    for (int64_t k = 0; k < in->packed->k; k++) {
        float v = gatun_plain_get(in->x_type, in->x, row * in->ldx + k);
        out[k] = in->x_multiplier == NULL ? v : v * in->x_multiplier[k];
    }
}

static bool fill_f32(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    float *values = values_of(area, in->m, 0);
    for (int64_t row = row0; row < row1; row++) {
        load_row(in, row, values + row * in->packed->k);
    }
    return true;
}

static bool fill_bf16(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    float *values = values_of(area, in->m, 0);
    for (int64_t row = row0; row < row1; row++) {
        float *v = values + row * in->packed->k;
        load_row(in, row, v);
        for (int64_t k = 0; k < in->packed->k; k++) {
            v[k] = gatun_round(GATUN_BF16, v[k]);
        }
    }
    return true;
}

/* Turns numbers into integers; gives what they are to be multiplied by: `given` unless that is 0. */
static float quantize(float *v, int64_t count, float given) {
    float largest = 0.0f;
    for (int64_t i = 0; i < count; i++) {
        float a = fabsf(v[i]);
        if (!isfinite(a)) {
            return 1.0f;
        }
        largest = a > largest ? a : largest;
    }
    float scale = given != 0.0f ? given : largest / 127.0f;
    for (int64_t i = 0; i < count; i++) {
        v[i] = scale == 0.0f ? 0.0f : rintf(v[i] / scale);
    }
    return scale;
}

static bool fill_integers(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area, int64_t block,
                          int64_t scales) {
    int64_t k = in->packed->k;
    float *values = values_of(area, in->m, scales);
    for (int64_t row = row0; row < row1; row++) {
        float *v = values + row * k;
        float *scale = (float *)area + row * scales;
        load_row(in, row, v);
        int64_t rotation = in->packed->matrix.rotation;
        for (int64_t b = 0; rotation > 1 && b < k; b += rotation) { /* W's codes are taken as they are */
            gatun_rotate(v + b, rotation);
        }
        for (int64_t b = 0; b < scales; b++) {
            scale[b] = quantize(v + b * block, k - b * block < block ? k - b * block : block, in->x_scale);
        }
    }
    return true;
}

static bool fill_i8(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    return fill_integers(in, row0, row1, area, in->packed->k, 1);
}

static bool fill_i8_block(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    return fill_integers(in, row0, row1, area, BLOCK, block_scales(in->packed->k));
}

const gatun_x_layout gatun_x_scalar_f32 = {
    .row_tile = 1, .bytes = plain_bytes, .fill = fill_f32, .scratch = row_scratch};
const gatun_x_layout gatun_x_scalar_bf16 = {
    .row_tile = 1, .bytes = plain_bytes, .fill = fill_bf16, .scratch = row_scratch};
const gatun_x_layout gatun_x_scalar_i8 = {.row_tile = 1, .bytes = i8_bytes, .fill = fill_i8, .scratch = row_scratch};
const gatun_x_layout gatun_x_scalar_i8_block = {
    .row_tile = 1, .bytes = i8_block_bytes, .fill = fill_i8_block, .scratch = row_scratch};

static double dot(const float *x, const float *w, int64_t k) {
    double sums[4] = {0, 0, 0, 0};
    int64_t i = 0;
    for (; i + 3 < k; i += 4) {
        for (int64_t j = 0; j < 4; j++) {
            sums[j] += (double)x[i + j] * (double)w[i + j];
        }
    }
    for (; i < k; i++) {
        sums[0] += (double)x[i] * (double)w[i];
    }
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

/* `block` k share a scale of x; 0: there are none. */
static void linear(const gatun_linear_task *t, int64_t block, int64_t scales, bool integers, int32_t weight_type) {
    int64_t k = t->packed->k;
    const float *values = values_of(t->x, t->m, scales);
    float *w = (float *)(void *)t->scratch;
    int64_t end = t->panel1 * GATUN_PANEL < t->packed->n ? t->panel1 * GATUN_PANEL : t->packed->n;
    for (int64_t n = t->panel0 * GATUN_PANEL; n < end; n++) {
        gatun_packed_values(t->packed, n, 0, k, integers, w);
        for (int64_t i = 0; weight_type != GATUN_F32 && i < k; i++) {
            w[i] = gatun_round(weight_type, w[i]);
        }
        for (int64_t row = t->row0; row < t->row1; row++) {
            const float *x = values + row * k;
            const float *x_scale = (const float *)t->x + row * scales;
            double sum = scales == 0 ? dot(x, w, k) : 0;
            for (int64_t b = 0; b < scales; b++) {
                int64_t count = k - b * block < block ? k - b * block : block;
                sum += dot(x + b * block, w + b * block, count) * (double)x_scale[b];
            }
            gatun_epilogue_store(t, row, n, sum);
        }
    }
}

bool gatun_linear_i8_accepts__scalar(const gatun_packed *packed) {
    return (packed->has >> GATUN_PART_CODEBOOK & 1) == 0 || (packed->has >> GATUN_PART_ROW_SCALES & 1) != 0;
}

void gatun_linear_f32__scalar(const gatun_linear_task *t) { linear(t, 0, 0, false, GATUN_F32); }
void gatun_linear_bf16__scalar(const gatun_linear_task *t) { linear(t, 0, 0, false, GATUN_BF16); }
void gatun_linear_i8__scalar(const gatun_linear_task *t) { linear(t, t->packed->k, 1, true, GATUN_F32); }
void gatun_linear_i8_block__scalar(const gatun_linear_task *t) {
    linear(t, BLOCK, block_scales(t->packed->k), true, GATUN_F32);
}
