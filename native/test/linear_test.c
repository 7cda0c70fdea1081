/*
 * Every `linear` kernel of one instruction set against plain double arithmetic on dequantized weights: shapes with
 * tails, all granularities, biases, activations, strides, 16-bit x and y, NaN and infinity, everything beside pages
 * that nobody may touch; and the kernel that ran is the one that the table promises. Usage: linear_test <isa>; exit
 * code 77 when this machine lacks it.
 */
#include <math.h>

#include "cpu/cache.h"
#include "encodings/numbers.h"
#include "matrices.h"

enum { THREADS = 3 };

static int32_t isa;
static char ran[1024]; /* by table row: whether a test ran it */

typedef struct variant {
    int32_t x_type, y_type;
    bool bias, multiplier, in_place;
    int32_t activation, combine;
} variant;

static double activate(int32_t activation, double v) {
    switch (activation) {
    case GATUN_ACTIVATION_GELU:
        return 0.5 * v * (1 + erf(v / sqrt(2.0)));
    case GATUN_ACTIVATION_GELU_TANH:
        return 0.5 * v * (1 + tanh(sqrt(2 / acos(-1.0)) * (v + 0.044715 * v * v * v)));
    case GATUN_ACTIVATION_SILU:
        return v / (1 + exp(-v));
    default:
        return v;
    }
}

/* x' of one row as `compute` has it, scales multiplied in. */
static void load_x(const gatun_matrix *m, const float *from, const float *multiplier, int32_t compute, double *out) {
    int64_t k = m->k;
    float *x = (float *)buffer(4 * k, 0);
    for (int64_t i = 0; i < k; i++) {
        x[i] = multiplier != NULL ? from[i] * multiplier[i] : from[i];
    }
    for (int64_t b = 0; compute >= GATUN_COMPUTE_I8 && m->rotation > 1 && b < k; b += m->rotation) {
        gatun_rotate(x + b, m->rotation);
    }
    int64_t block = compute == GATUN_COMPUTE_I8_BLOCK ? 32 : k;
    for (int64_t b = 0; b < k; b += block) {
        int64_t end = b + block < k ? b + block : k;
        float largest = 0;
        for (int64_t i = b; i < end; i++) {
            out[i] = (double)(compute == GATUN_COMPUTE_BF16 ? gatun_round(GATUN_BF16, x[i]) : x[i]);
            largest = isfinite(x[i]) ? fmaxf(largest, fabsf(x[i])) : INFINITY;
        }
        if (compute < GATUN_COMPUTE_I8 || isinf(largest)) {
            continue;
        }
        float scale = largest / 127.0f;
        for (int64_t i = b; i < end; i++) {
            out[i] = scale == 0 ? 0 : (double)rintf(x[i] / scale) * (double)scale;
        }
    }
    free(x);
}

static void load_w(const gatun_matrix *m, int64_t n, int32_t compute, float *out) {
    gatun_row_values(m, n, 0, m->k, compute >= GATUN_COMPUTE_I8, out);
    for (int64_t i = 0; compute == GATUN_COMPUTE_BF16 && i < m->k; i++) {
        out[i] = gatun_round(GATUN_BF16, out[i]);
    }
}

static void check_y(const gatun_matrix *m, const float *x, int64_t ldx, int64_t rows, int32_t compute, variant v,
                    const float *bias, const float *multiplier, const void *other, const void *y, int64_t ldy,
                    const char *kernel) {
    double *xs = (double *)buffer(8 * m->k * rows, 0);
    float *w = (float *)buffer(4 * m->k, 0);
    double error = 0, norm = 0;
    for (int64_t r = 0; r < rows; r++) {
        load_x(m, x + r * ldx, multiplier, compute, xs + r * m->k);
    }
    for (int64_t n = 0; n < m->n; n++) {
        load_w(m, n, compute, w);
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0, terms = 0;
            for (int64_t i = 0; i < m->k; i++) {
                double product = xs[r * m->k + i] * (double)w[i];
                double offset = m->offset_type == GATUN_NONE ? 0 : (double)gatun_offset_at(m, n, i);
                double apart = fabs(product) + 2 * fabs(xs[r * m->k + i] * offset); /* a code may cancel its offset */
                sum += product;
                terms += apart * apart;
            }
            double expected = activate(v.activation, v.bias ? sum + (double)bias[n] : sum);
            if (v.combine != GATUN_COMBINE_NONE) {
                double o = (double)gatun_plain_get(v.y_type, other, r * ldy + n);
                expected = v.combine == GATUN_COMBINE_ADD ? expected + o : expected * o;
            }
            double got = (double)gatun_plain_get(v.y_type, y, r * ldy + n);
            if (v.y_type == GATUN_F16 && fabs(expected) > 65000) { /* at the end of what y can hold */
                CHECK(fabs(got) > 64000, "%s: %g instead of %g", kernel, got, expected);
                continue;
            }
            if (!isfinite(expected)) {
                CHECK(isnan(expected) ? isnan(got) : got == expected, "%s: %g instead of %g", kernel, got, expected);
                continue;
            }
            CHECK(isfinite(got), "%s: %g instead of %g", kernel, got, expected);
            error += (got - expected) * (got - expected);
            norm += fmax(expected * expected, terms); /* a few sums may happen to cancel */
        }
    }
    double y_error = v.y_type == GATUN_F32 ? 0 : v.y_type == GATUN_F16 ? 0x1p-11 : 0x1p-8;
    /* BF16 kernels may round a code's value where the definition rounds its product with the scale: half a unit each.
     */
    double operands = compute == GATUN_COMPUTE_BF16 ? 0x1p-7 : 0;
    /* The tails of GELU and SiLU enlarge the sum's relative error. */
    double tails = v.activation == GATUN_ACTIVATION_NONE ? 1 : 8;
    double bound = tails * (1e-6 * sqrt((double)(m->k + 1)) + operands) + y_error;
    double smallest = v.y_type == GATUN_F16 ? 0x1p-24 * sqrt((double)(rows * m->n)) : 1e-12;
    CHECK(sqrt(error) <= bound * sqrt(norm) + smallest, "%s %lld x %lld x %lld: relative error %g, bound %g", kernel,
          (long long)rows, (long long)m->n, (long long)m->k, sqrt(error / norm), bound);
    free(xs);
    free(w);
}

static void multiply(random_state *r, const gatun_matrix *m, int64_t rows, int32_t compute, variant v, float special) {
    int64_t size, bytes;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(m, &size));
    void *packed = buffer(size, 0xFF);
    CHECK_STATUS(GATUN_OK, gatun_pack(m, packed, size, 1));
    if (compute >= GATUN_COMPUTE_I8 && m->codebook != NULL && m->row_scales == NULL) { /* has no integers */
        CHECK_STATUS(GATUN_UNSUPPORTED, gatun_linear_workspace(packed, size, rows, compute, THREADS, &bytes));
        free(packed);
        return;
    }
    int64_t ldx = m->k + random_below(r, 3), ldy = m->n + random_below(r, 3);
    float *x = (float *)random_numbers(r, GATUN_F32, rows * ldx, 1.0f);
    void *x_in = buffer(rows * ldx * 4, 0);
    for (int64_t i = 0; i < rows * ldx; i++) {
        x[i] = gatun_round(v.x_type, x[i]);
    }
    if (special != 0 && rows > 0 && m->k > 0) {
        x[rows / 2 * ldx + m->k / 2] = special;
    }
    for (int64_t i = 0; i < rows * ldx; i++) {
        gatun_plain_put(v.x_type, x_in, i, x[i]);
    }
    float *bias = (float *)random_numbers(r, GATUN_F32, m->n, 1.0f);
    float *multiplier = (float *)random_numbers(r, GATUN_F32, m->k, 1.0f);
    void *other = random_numbers(r, v.y_type, rows * ldy, 1.0f);
    int64_t y_bytes = rows * ldy * gatun_plain_size(v.y_type);
    void *y = buffer(y_bytes, 0);
    memcpy(y, other, (size_t)y_bytes);
    CHECK_STATUS(GATUN_OK, gatun_linear_workspace(packed, size, rows, compute, THREADS, &bytes));
    /* Everything ends where its last page does, or begins where its first one does. */
    bool front[7];
    for (size_t i = 0; i < sizeof front / sizeof front[0]; i++) {
        front[i] = random_below(r, 2) == 1;
    }
    int64_t x_size = gatun_plain_size(v.x_type);
    int64_t x_used = rows == 0 ? 0 : ((rows - 1) * ldx + m->k) * x_size;
    int64_t y_used = rows == 0 ? 0 : ((rows - 1) * ldy + m->n) * gatun_plain_size(v.y_type);
    guarded p = guard_copy_at(packed, size, front[0]), xs = guard_copy_at(x_in, x_used, front[1]);
    guarded ys = guard_copy_at(y, y_used, front[2]), others = guard_copy_at(other, y_used, front[3]);
    guarded biases = guard_copy_at(bias, 4 * m->n, front[4]);
    guarded multipliers = guard_copy_at(multiplier, 4 * m->k, front[5]), workspace = guard_at(bytes, front[6]);
    memset(workspace.data, 0xFF, (size_t)bytes);
    int32_t threads = 1 + (int32_t)random_below(r, THREADS);
    CHECK_STATUS(GATUN_OK,
                 gatun_linear(p.data, size, xs.data, v.x_type, ldx, rows, ys.data, v.y_type, ldy,
                              v.bias ? (const float *)biases.data : NULL,
                              v.multiplier ? (const float *)multipliers.data : NULL, v.activation, v.combine,
                              v.in_place ? ys.data : others.data, ldy, compute, isa, threads, workspace.data, bytes));
    memcpy(y, ys.data, (size_t)y_used);
    guarded *all[] = {&p, &xs, &ys, &others, &biases, &multipliers, &workspace};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        unguard(all[i]);
    }
    int32_t index = gatun_last_kernel();
    gatun_kernel kernel = {0};
    CHECK_STATUS(GATUN_OK, gatun_kernel_at(index, &kernel));
    CHECK(kernel.operation == GATUN_OP_LINEAR && kernel.compute == compute && kernel.encoding == m->encoding, "%s ran",
          kernel.name);
    ran[index] = 1;
    check_y(m, x, ldx, rows, compute, v, bias, v.multiplier ? multiplier : NULL, other, y, ldy, kernel.name);
    for (int64_t row = 0; row + 1 < rows; row++) { /* what lies between the rows is not touched */
        for (int64_t n = m->n; n < ldy; n++) {
            CHECK(gatun_plain_get(v.y_type, y, row * ldy + n) == gatun_plain_get(v.y_type, other, row * ldy + n),
                  "%s wrote past a row's end", kernel.name);
        }
    }
    free(packed);
    free(x);
    free(x_in);
    free(bias);
    free(multiplier);
    free(other);
    free(y);
}

static const variant plain = {.x_type = GATUN_F32, .y_type = GATUN_F32};

static variant random_variant(random_state *r) {
    static const int32_t types[3] = {GATUN_F32, GATUN_F16, GATUN_BF16};
    variant v = {.x_type = types[random_below(r, 3)],
                 .y_type = types[random_below(r, 3)],
                 .bias = random_below(r, 2) == 1,
                 .multiplier = random_below(r, 2) == 1,
                 .activation = (int32_t)random_below(r, 4),
                 .combine = (int32_t)random_below(r, 3)};
    v.in_place = v.combine != GATUN_COMBINE_NONE && random_below(r, 2) == 1;
    return v;
}

static void try_cut(random_state *r, int32_t encoding, int32_t compute, int64_t rows, int64_t n, int64_t k, int32_t cut,
                    int64_t group, int32_t with, int32_t scale_type, int32_t arithmetic, float special) {
    gatun_matrix m;
    int32_t bits = gatun_encoding_bits(encoding);
    int32_t order = bits == 3 || (bits > 4 && bits < 8) ? GATUN_ORDER_BITS : GATUN_ORDER_LOW_FIRST;
    if (random_matrix(r, encoding, order, n, k, cut, group, with, scale_type, arithmetic, &m)) {
        multiply(r, &m, rows, compute, plain, special);
        if (special == 0) {
            multiply(r, &m, rows, compute, random_variant(r), special);
        }
        free_matrix(&m);
    }
}

static void try_kernel(random_state *r, int32_t encoding, int32_t compute) {
    static const int64_t shapes[][3] = {{1, 1, 1},   {1, 33, 66},  {2, 64, 128}, {3, 31, 4},   {5, 40, 96},
                                        {7, 65, 37}, {13, 96, 64}, {17, 8, 256}, {33, 70, 32}, {0, 5, 8}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t rows = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        int64_t gguf_k = (k + 255) / 256 * 256;
        if (gatun_is_gguf(encoding)) {
            try_cut(r, encoding, compute, rows, n, gguf_k, PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32, 0);
            continue;
        }
        try_cut(r, encoding, compute, rows, n, k, PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_TENSOR, 0, 0, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_ROW, 0, WITH_ZEROS, GATUN_F16, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 32, 0, GATUN_F16, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 32, 0, GATUN_F8_E8M0, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 16, 0, GATUN_F8_E4M3, GATUN_BF16, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 64, WITH_ZEROS, GATUN_BF16, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 128, WITH_OFFSETS, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 7, 0, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_TILE, 32, 0, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, FLAT, 64, WITH_NESTED, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 32, WITH_CODEBOOK, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 16, WITH_ROTATION, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_ROW, 0, WITH_THEN_GLOBAL, GATUN_F32, GATUN_F32, 0);
        try_cut(r, encoding, compute, rows, n, k, PER_GROUP, 32, 0, GATUN_F32, GATUN_F32, INFINITY);
        try_cut(r, encoding, compute, rows, n, k, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, NAN);
    }
}

/* Shapes with several tiles of rows and runs of K, and with more rows than sums are kept for. */
static void try_long(random_state *r, int32_t encoding, int32_t compute) {
    static const int64_t rows[] = {16, 32, 33, 65, 130, 530}, groups[] = {32, 64, 96, 128, 260, 640};
    int64_t m = rows[random_below(r, 6)], n = 1 + random_below(r, m > 500 ? 33 : 70);
    int64_t k = 1 + random_below(r, m > 500 ? 200 : m > 100 ? 900 : 2600), group = groups[random_below(r, 6)];
    if (gatun_is_gguf(encoding)) {
        try_cut(r, encoding, compute, m, n, (k + 255) / 256 * 256, PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32, 0);
        return;
    }
    try_cut(r, encoding, compute, m, n, k, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, 0);
    try_cut(r, encoding, compute, m, n, k, PER_ROW, 0, WITH_ZEROS | WITH_OFFSETS, GATUN_F16, GATUN_F32, 0);
    try_cut(r, encoding, compute, m, n, k, PER_GROUP, group, 0, GATUN_F16, GATUN_F32, 0);
    try_cut(r, encoding, compute, m, n, k, PER_GROUP, group, WITH_ZEROS | WITH_OFFSETS, GATUN_F32, GATUN_F32, 0);
}

/* A y that is larger than a core's caches: AMX writes past them where its rows begin with a line. */
static void try_large(random_state *r, int32_t compute) {
    const int64_t n = 1040, rows = gatun_cache_bytes(2) / 4 / n + 1;
    for (int i = 0; i < 4; i++) { /* at random, rows begin so or not */
        try_cut(r, GATUN_I8, compute, rows, n, 12, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, 0);
        try_cut(r, GATUN_I8, compute, rows, n, 32, PER_GROUP, 16, 0, GATUN_F16, GATUN_F32, 0);
    }
}

int main(int count, char **arguments) {
    isa = isa_argument(count, arguments);
    CHECK_STATUS(GATUN_OK, gatun_threads_set(THREADS, 10));
    random_state r = {3};
    for (int32_t i = 0; i < gatun_kernel_count(); i++) {
        gatun_kernel k;
        CHECK_STATUS(GATUN_OK, gatun_kernel_at(i, &k));
        bool first = gatun_kernel_find(k.operation, k.compute, k.encoding, isa) == i;
        if (k.operation == GATUN_OP_LINEAR && k.isa == isa && first) {
            try_kernel(&r, k.encoding, k.compute);
            try_long(&r, k.encoding, k.compute);
            if (k.encoding == GATUN_I8 && isa == GATUN_ISA_AMX) {
                try_large(&r, k.compute);
            }
        }
    }
    int32_t kernels = 0;
    for (int32_t i = 0; i < gatun_kernel_count(); i++) {
        gatun_kernel k;
        CHECK_STATUS(GATUN_OK, gatun_kernel_at(i, &k));
        if (k.operation == GATUN_OP_LINEAR && k.isa == isa) {
            kernels++;
            CHECK(ran[i] != 0, "%s was never run", k.name);
        }
    }
    if (kernels == 0) {
        printf("skipped: %s has no linear kernels of its own\n", gatun_isa_name(isa));
        return SKIPPED;
    }
    printf("%s: %d kernels\n", gatun_isa_name(isa), kernels);
    return finish();
}
