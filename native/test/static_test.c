/*
 * Static activations on one instruction set: gatun_round_static against its definition, and gatun_linear_static against
 * the F32 multiply of the same multiples, which are what it multiplies by.
 */
#include <string.h>

#include "check.h"
#include "encodings/numbers.h"
#include "matrices.h"

static int32_t isa;

static float rounded_as_defined(float v, int32_t type, int32_t encoding, float scale, int32_t reciprocal) {
    float largest = encoding == GATUN_I8 ? 127.0f : gatun_f8_max(encoding);
    float smallest = encoding == GATUN_I8 ? -128.0f : -largest;
    float q = gatun_round(type, reciprocal ? v * gatun_round(type, 1.0f / scale) : v / scale);
    if (isnan(q)) {
        return q;
    }
    q = q < smallest ? smallest : q > largest ? largest : q;
    q = encoding == GATUN_I8 ? rintf(q) : gatun_f8_decode(encoding, gatun_f8_encode(encoding, q));
    return q * scale;
}

static void rounds(random_state *r, int32_t type, int32_t encoding, int32_t reciprocal, int64_t columns) {
    enum { ROWS = 3 };
    int64_t ldx = columns + 2;
    float *values = (float *)random_numbers(r, GATUN_F32, ROWS * ldx, 40.0f);
    float *multiplier = (float *)random_numbers(r, GATUN_F32, columns, 1.0f);
    static const float special[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 1e30f, 1e-30f};
    for (int64_t i = 0; i < 7 && i < columns; i++) {
        values[ldx + i] = special[i];
    }
    void *x = buffer(ROWS * ldx * 4, 0);
    for (int64_t i = 0; i < ROWS * ldx; i++) {
        gatun_plain_put(type, x, i, values[i]);
    }
    for (int with = 0; with < 2; with++) {
        guarded y = guard(ROWS * columns * (int64_t)sizeof(float));
        float scale = gatun_round(type, 0.0371f);
        CHECK_STATUS(GATUN_OK, gatun_round_static(x, type, ldx, ROWS, columns, with ? multiplier : NULL, y.data,
                                                  GATUN_F32, columns, encoding, scale, reciprocal, isa, 2));
        for (int64_t row = 0; row < ROWS; row++) {
            for (int64_t c = 0; c < columns; c++) {
                float v = gatun_plain_get(type, x, row * ldx + c);
                v = with ? gatun_round(type, v * multiplier[c]) : v;
                float expected = rounded_as_defined(v, type, encoding, scale, reciprocal);
                float found = ((const float *)y.data)[row * columns + c];
                CHECK(isnan(expected) ? isnan(found) : found == expected, "%g (type %d, encoding %d): %g, not %g",
                      (double)v, type, encoding, (double)found, (double)expected);
            }
        }
        unguard(&y);
    }
    /* In place, it is the same again: multiples are rounded to themselves. */
    float *once = (float *)buffer(columns * 4, 0), *twice = (float *)buffer(columns * 4, 0);
    CHECK_STATUS(GATUN_OK, gatun_round_static(x, type, ldx, 1, columns, NULL, once, GATUN_F32, columns, encoding, 0.25f,
                                              reciprocal, isa, 1));
    memcpy(twice, once, (size_t)columns * 4);
    CHECK_STATUS(GATUN_OK, gatun_round_static(twice, GATUN_F32, columns, 1, columns, NULL, twice, GATUN_F32, columns,
                                              encoding, 0.25f, reciprocal, isa, 1));
    CHECK(memcmp(once, twice, (size_t)columns * 4) == 0, "rounded twice, it is something else");
    free(once);
    free(twice);
    free(values);
    free(multiplier);
    free(x);
}

static void multiply(const void *packed, int64_t size, const gatun_matrix *m, const float *x, float scale, int64_t rows,
                     float *y) {
    int64_t bytes;
    int32_t compute = scale == 0 ? GATUN_COMPUTE_F32 : GATUN_COMPUTE_I8;
    CHECK_STATUS(GATUN_OK, gatun_linear_workspace(packed, size, rows, compute, 2, &bytes));
    void *workspace = buffer(bytes, 0xFF);
    gatun_status status = scale == 0 ? gatun_linear(packed, size, x, GATUN_F32, m->k, rows, y, GATUN_F32, m->n, NULL,
                                                    NULL, 0, 0, NULL, 0, compute, isa, 2, workspace, bytes)
                                     : gatun_linear_static(packed, size, x, GATUN_F32, m->k, scale, rows, y, GATUN_F32,
                                                           m->n, NULL, 0, 0, NULL, 0, isa, 2, workspace, bytes);
    CHECK_STATUS(GATUN_OK, status);
    free(workspace);
}

static void multiplies(random_state *r, int32_t encoding, int32_t cut, int64_t group, int32_t with, int64_t rows,
                       bool nan) {
    enum { N = 37, K = 96 };
    gatun_matrix m;
    CHECK(random_matrix(r, encoding, GATUN_ORDER_LOW_FIRST, N, K, cut, group, with, GATUN_F32, GATUN_F32, &m), "none");
    int64_t size;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *packed = buffer(size, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, size, 1));
    const float scale = 0.006f; /* so that x reaches -128 */
    float *x = (float *)random_numbers(r, GATUN_F32, rows * K, 1.0f);
    float *y = (float *)buffer(rows * N * 4, 0), *expected = (float *)buffer(rows * N * 4, 0);
    CHECK_STATUS(GATUN_OK,
                 gatun_round_static(x, GATUN_F32, K, rows, K, NULL, x, GATUN_F32, K, GATUN_I8, scale, 0, isa, 1));
    if (nan) {
        x[K + 5] = NAN;
    }
    multiply(packed, size, &m, x, scale, rows, y);
    multiply(packed, size, &m, x, 0, rows, expected);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < rows * N; i++) {
        CHECK((isnan(y[i]) != 0) == (isnan(expected[i]) != 0), "encoding %d: %g, not %g", encoding, (double)y[i],
              (double)expected[i]);
        if (!isnan(y[i])) {
            error += ((double)y[i] - (double)expected[i]) * ((double)y[i] - (double)expected[i]);
            norm += (double)expected[i] * (double)expected[i];
        }
    }
    CHECK(sqrt(error) <= 2e-6 * sqrt((double)K) * sqrt(norm), "encoding %d, %lld rows: relative error %g", encoding,
          (long long)rows, sqrt(error / norm));
    free(packed);
    free(x);
    free(y);
    free(expected);
    free_matrix(&m);
}

static void refuses(void) {
    float x[4] = {1, 2, 3, 4};
#define ROUND(x_, type, ldx, rows, columns, encoding, scale)                                                           \
    gatun_round_static(x_, type, ldx, rows, columns, NULL, x, GATUN_F32, 4, encoding, scale, 0, isa, 1)
    CHECK_STATUS(GATUN_OK, ROUND(x, GATUN_F32, 4, 1, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_OK, ROUND(x, GATUN_F32, 4, 0, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(NULL, GATUN_F32, 4, 1, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_I8, 4, 1, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 3, 1, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 4, -1, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 4, INT64_MAX, 4, GATUN_I8, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 4, 1, 4, GATUN_I4, 1.0f));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 4, 1, 4, GATUN_F8_E8M0, 1.0f));
    static const float bad[] = {0.0f, -1.0f, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        CHECK_STATUS(GATUN_INVALID_ARGUMENT, ROUND(x, GATUN_F32, 4, 1, 4, GATUN_I8, bad[i]));
        CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_linear_static(x, 16, x, GATUN_F32, 4, bad[i], 1, x, GATUN_F32, 4,
                                                                 NULL, 0, 0, NULL, 0, isa, 1, NULL, 0));
    }
}

int main(int count, char **arguments) {
    isa = isa_argument(count, arguments);
    CHECK_STATUS(GATUN_OK, gatun_threads_set(2, 10));
    random_state r = {23};
    static const int32_t types[] = {GATUN_F32, GATUN_F16, GATUN_BF16};
    static const int32_t encodings[] = {GATUN_I8, GATUN_F8_E4M3, GATUN_F8_E5M2, GATUN_F8_E4M3FNUZ, GATUN_F8_E5M2FNUZ};
    static const int64_t columns[] = {1, 7, 64, 2049};
    for (size_t e = 0; e < 5; e++) {
        for (size_t t = 0; t < 3; t++) {
            for (size_t c = 0; c < 4; c++) {
                rounds(&r, types[t], encodings[e], 0, columns[c]);
                rounds(&r, types[t], encodings[e], 1, columns[c]);
            }
        }
    }
    static const int64_t rows[] = {2, 3, 7, 25};
    for (size_t i = 0; i < 4; i++) {
        multiplies(&r, GATUN_I8, PER_ROW, 0, 0, rows[i], false);
        multiplies(&r, GATUN_I8, PER_TENSOR, 0, 0, rows[i], i == 1);
        multiplies(&r, GATUN_U8, PER_ROW, 0, WITH_ZEROS, rows[i], false);
        multiplies(&r, GATUN_U4, PER_GROUP, 32, WITH_OFFSETS, rows[i], i == 2);
        multiplies(&r, GATUN_I4, PER_GROUP, 32, 0, rows[i], false);
    }
    refuses();
    return finish();
}
