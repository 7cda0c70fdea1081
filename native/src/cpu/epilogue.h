/* What `linear` does with a sum before it is stored, one number at a time; the SIMD kernels have their own for whole
 * vectors and use this one for what is left. */
#ifndef GATUN_EPILOGUE_H
#define GATUN_EPILOGUE_H

#include "encodings/numbers.h"

static inline double gatun_activate(int32_t activation, double v) {
    switch (activation) {
    case GATUN_ACTIVATION_GELU:
        return v * (1 + erf(v * 0.70710678118654752440)) / 2;
    case GATUN_ACTIVATION_GELU_TANH:
        return v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v))) / 2;
    case GATUN_ACTIVATION_SILU:
        return v / (1 + exp(-v));
    default:
        return v;
    }
}

/* Stores combine(activation(sum + bias), other) as y[row][n], with one rounding. */
static inline void gatun_epilogue_store(const gatun_linear_task *t, int64_t row, int64_t n, double sum) {
    if (t->bias != NULL) {
        sum += (double)t->bias[n];
    }
    double value = gatun_activate(t->activation, sum);
    if (t->combine != GATUN_COMBINE_NONE) {
        double other = (double)gatun_plain_get(t->y_type, t->other, row * t->ld_other + n);
        value = t->combine == GATUN_COMBINE_ADD ? value + other : value * other;
    }
    gatun_plain_put(t->y_type, t->y, row * t->ldy + n,
                    t->y_type == GATUN_F32 ? (float)value : gatun_round_to_odd(value));
}

#endif
