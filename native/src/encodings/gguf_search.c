/*
 * Q4_K: x = d*scale*q - dmin*minimum with 8 scales and minima of 6 bits; Q6_K: x = d*scale*q with 16 scales of 8 bits.
 * Three steps: for each run the best real scale (and minimum), by least squares for codes at a number of spacings; then
 * the binary16 factors and the small integers; then alternately the integers around the present ones and the factors by
 * least squares, while that helps. All in double and in the order of the Java definition (Q4KSearch, Q6KSearch), so
 * that both give the same bytes.
 */
#include "encodings/gguf_search.h"

enum { ROUNDS = 4, TENTHS = 12, ALL = 256 };

static float to_half(double v) { return gatun_f16_to_float(gatun_float_to_f16((float)v)); }

static void put_half(uint8_t *at, float value) {
    uint16_t half = gatun_float_to_f16(value);
    memcpy(at, &half, sizeof half);
}

/* A number to the nearest integer of low .. high, ties to even; NaN stays. Adding 1.5 * 2^52 leaves no room for a
 * fraction, which rounds as rint does without calling it. */
static inline double whole(double v, double low, double high) {
    double c = v > high ? high : v < low ? low : v;
    return (c + 0x1.8p52) - 0x1.8p52;
}

static inline int32_t code_of(double v, double low, double high) {
    double r = whole(v, low, high);
    return isnan(r) ? 0 : (int32_t)r;
}

/* ---- Q4_K ---- */

typedef struct q4_k {
    int32_t scale[8];
    int32_t minimum[8];
    int32_t q[ALL];
    float d;
    float dmin;
} q4_k;

/* The best real scale and minimum of a run of 32. */
static void q4_k_real(const float *x, double *scale, double *minimum) {
    double low = 0, high = -INFINITY;
    *scale = *minimum = 0;
    for (int32_t i = 0; i < 32; i++) {
        low = isnan(x[i]) || x[i] < low ? x[i] : low;
        high = isnan(x[i]) || x[i] > high ? x[i] : high;
    }
    if (!(high > low)) { /* all the same and not positive, or not a number */
        *minimum = -low;
        return;
    }
    double least = INFINITY;
    for (int32_t t = -TENTHS; t <= TENTHS; t++) {
        double per_unit = (15 + 0.1 * t) / (high - low);
        double sum_q = 0, sum_qq = 0, sum_x = 0, sum_qx = 0, sum_xx = 0;
        for (int32_t i = 0; i < 32; i++) {
            double code = whole((x[i] - low) * per_unit, 0, 15);
            sum_q += code;
            sum_qq += code * code;
            sum_x += x[i];
            sum_qx += code * x[i];
            sum_xx += (double)x[i] * x[i];
        }
        if (sum_qq == 0) {
            continue;
        }
        double determinant = 32 * sum_qq - sum_q * sum_q;
        double a = (32 * sum_qx - sum_q * sum_x) / determinant;
        double m = (sum_q * sum_qx - sum_qq * sum_x) / determinant;
        if (!(determinant > 0 && m >= 0)) { /* minima are not negative: the best line through zero */
            a = sum_qx / sum_qq;
            m = 0;
        }
        double error = sum_xx + a * a * sum_qq + 32 * m * m - 2 * a * sum_qx + 2 * m * sum_x - 2 * a * m * sum_q;
        if (error < least && a > 0) {
            least = error;
            *scale = a;
            *minimum = m;
        }
    }
}

static double q4_k_codes(const float *x, float step, float base, int32_t *codes) {
    double per_step = step == 0 ? 0 : 1.0 / step;
    double error = 0;
    for (int32_t i = 0; i < 32; i++) {
        double v = x[i];
        codes[i] = code_of((v + base) * per_step, 0, 15);
        double difference = step * (float)codes[i] - base - v;
        error += difference * difference;
    }
    return error;
}

/* The best 6-bit numbers and codes near the present ones; gives the squared error. */
static double q4_k_around(const float *x, q4_k *k) {
    double total = 0;
    int32_t codes[32];
    for (int32_t s = 0; s < 8; s++) {
        double least = INFINITY;
        int32_t scale = k->scale[s], minimum = k->minimum[s];
        for (int32_t a = scale > 0 ? scale - 1 : 0; a <= scale + 1 && a <= 63; a++) {
            for (int32_t m = minimum > 0 ? minimum - 1 : 0; m <= minimum + 1 && m <= 63; m++) {
                double error = q4_k_codes(x + 32 * s, k->d * (float)a, k->dmin * (float)m, codes);
                if (error < least) {
                    least = error;
                    k->scale[s] = a;
                    k->minimum[s] = m;
                    memcpy(k->q + 32 * s, codes, sizeof codes);
                }
            }
        }
        total += least;
    }
    return total;
}

/* The best factors for the codes and 6-bit numbers. */
static void q4_k_factors(const float *x, q4_k *k) {
    double aa = 0, am = 0, mm = 0, ax = 0, mx = 0;
    for (int32_t i = 0; i < ALL; i++) {
        double a = k->scale[i / 32] * k->q[i];
        double m = k->minimum[i / 32];
        aa += a * a;
        am += a * m;
        mm += m * m;
        ax += a * x[i];
        mx += m * x[i];
    }
    double determinant = aa * mm - am * am;
    if (determinant > 0) {
        k->d = to_half((ax * mm - am * mx) / determinant);
        k->dmin = to_half((am * ax - aa * mx) / determinant);
    } else if (aa > 0) {
        k->d = to_half(ax / aa);
    }
}

void gatun_search_q4_k(const float *x, uint8_t *b) {
    q4_k best = {.d = 0};
    double scale[8], minimum[8], largest_scale = 0, largest_minimum = 0;
    for (int32_t s = 0; s < 8; s++) {
        q4_k_real(x + 32 * s, &scale[s], &minimum[s]);
        largest_scale = isnan(scale[s]) || scale[s] > largest_scale ? scale[s] : largest_scale;
        largest_minimum = isnan(minimum[s]) || minimum[s] > largest_minimum ? minimum[s] : largest_minimum;
    }
    best.d = to_half(largest_scale / 63);
    best.dmin = to_half(largest_minimum / 63);
    for (int32_t s = 0; s < 8; s++) {
        best.scale[s] = best.d == 0 ? 0 : code_of(scale[s] / best.d, 0, 63);
        best.minimum[s] = best.dmin == 0 ? 0 : code_of(minimum[s] / best.dmin, 0, 63);
    }
    double least = q4_k_around(x, &best);
    for (int32_t round = 0; round < ROUNDS; round++) {
        q4_k other = best;
        q4_k_factors(x, &other);
        double error = q4_k_around(x, &other);
        if (!(error < least)) {
            break;
        }
        least = error;
        best = other;
    }
    put_half(b, best.d);
    put_half(b + 2, best.dmin);
    for (int32_t s = 0; s < 4; s++) {
        b[4 + s] = (uint8_t)(best.scale[s] | best.scale[s + 4] >> 4 << 6);
        b[8 + s] = (uint8_t)(best.minimum[s] | best.minimum[s + 4] >> 4 << 6);
        b[12 + s] = (uint8_t)((best.scale[s + 4] & 15) | (best.minimum[s + 4] & 15) << 4);
    }
    for (int32_t i = 0; i < 128; i++) {
        int32_t low = i / 32 * 64 + i % 32;
        b[16 + i] = (uint8_t)(best.q[low] | best.q[low + 32] << 4);
    }
}

/* ---- Q6_K ---- */

typedef struct q6_k {
    int32_t scale[16];
    int32_t q[ALL];
    float d;
} q6_k;

/* The best real scale of a run of 16; its sign is such that the largest number is negative. */
static double q6_k_real(const float *x) {
    double largest = 0, most = 0, scale = 0;
    for (int32_t i = 0; i < 16; i++) {
        largest = fabs((double)x[i]) > fabs(largest) ? x[i] : largest;
    }
    if (largest == 0) {
        return 0;
    }
    for (int32_t t = -TENTHS; t <= TENTHS; t++) {
        double per_unit = -(32 + 0.1 * t) / largest;
        double sum_qq = 0, sum_qx = 0;
        for (int32_t i = 0; i < 16; i++) {
            double code = whole(x[i] * per_unit, -32, 31);
            sum_qq += code * code;
            sum_qx += code * x[i];
        }
        /* The best scale for these codes takes sum_qx^2 / sum_qq off the squared error. */
        if (sum_qq > 0 && sum_qx * sum_qx > most * sum_qq) {
            most = sum_qx * sum_qx / sum_qq;
            scale = sum_qx / sum_qq;
        }
    }
    return scale;
}

static double q6_k_codes(const float *x, float step, int32_t *codes) {
    double per_step = step == 0 ? 0 : 1.0 / step;
    double error = 0;
    for (int32_t i = 0; i < 16; i++) {
        double v = x[i];
        codes[i] = code_of(v * per_step, -32, 31);
        double difference = step * (float)codes[i] - v;
        error += difference * difference;
    }
    return error;
}

static double q6_k_around(const float *x, q6_k *k) {
    double total = 0;
    int32_t codes[16];
    for (int32_t s = 0; s < 16; s++) {
        double least = INFINITY;
        int32_t scale = k->scale[s];
        for (int32_t a = scale > -128 ? scale - 1 : -128; a <= scale + 1 && a <= 127; a++) {
            double error = q6_k_codes(x + 16 * s, k->d * (float)a, codes);
            if (error < least) {
                least = error;
                k->scale[s] = a;
                memcpy(k->q + 16 * s, codes, sizeof codes);
            }
        }
        total += least;
    }
    return total;
}

static void q6_k_factor(const float *x, q6_k *k) {
    double aa = 0, ax = 0;
    for (int32_t i = 0; i < ALL; i++) {
        double a = k->scale[i / 16] * k->q[i];
        aa += a * a;
        ax += a * x[i];
    }
    if (aa > 0) {
        k->d = to_half(ax / aa);
    }
}

void gatun_search_q6_k(const float *x, uint8_t *b) {
    q6_k best = {.d = 0};
    double scale[16], largest = 0;
    for (int32_t s = 0; s < 16; s++) {
        scale[s] = q6_k_real(x + 16 * s);
        largest = fabs(scale[s]) > fabs(largest) ? scale[s] : largest;
    }
    /* The largest scale gets the code that reaches farthest, -128. */
    best.d = to_half(largest / -128);
    for (int32_t s = 0; s < 16; s++) {
        best.scale[s] = best.d == 0 ? 0 : code_of(scale[s] / best.d, -128, 127);
    }
    double least = q6_k_around(x, &best);
    for (int32_t round = 0; round < ROUNDS; round++) {
        q6_k other = best;
        q6_k_factor(x, &other);
        double error = q6_k_around(x, &other);
        if (!(error < least)) {
            break;
        }
        least = error;
        best = other;
    }
    for (int32_t half = 0; half < 2; half++) {
        for (int32_t l = 0; l < 32; l++) {
            const int32_t *q = best.q + 128 * half + l;
            int32_t q1 = q[0] + 32, q2 = q[32] + 32, q3 = q[64] + 32, q4 = q[96] + 32;
            b[64 * half + l] = (uint8_t)((q1 & 15) | (q3 & 15) << 4);
            b[64 * half + 32 + l] = (uint8_t)((q2 & 15) | (q4 & 15) << 4);
            b[128 + 32 * half + l] = (uint8_t)(q1 >> 4 | q2 >> 4 << 2 | q3 >> 4 << 4 | q4 >> 4 << 6);
        }
    }
    for (int32_t s = 0; s < 16; s++) {
        b[192 + s] = (uint8_t)best.scale[s];
    }
    put_half(b + 208, best.d);
}
