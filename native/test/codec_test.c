/*
 * The codecs of one instruction set against the scalar ones, bit for bit, and those against plain arithmetic: every
 * code of 8 bits, every half float, ties, subnormals, infinities, NaN; every tail length against guard pages. Usage:
 * codec_test <isa>.
 */
#include <math.h>

#include "cpu/cache.h"
#include "encodings/numbers.h"
#include "matrices.h"

static int32_t isa;
static char ran[1024]; /* by table row */

static void note(void) {
    int32_t index = gatun_last_kernel();
    CHECK(index >= 0 && index < (int32_t)sizeof ran, "kernel %d ran", index);
    if (index >= 0 && index < (int32_t)sizeof ran) {
        ran[index] = 1;
    }
}

#define NUMBER_ENTRY(ENCODING, name, bits, unused) GATUN_##ENCODING,
static const int32_t numbers[] = {GATUN_NUMBER_ENCODINGS(NUMBER_ENTRY, 0)};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };
static const int32_t plain_types[3] = {GATUN_F32, GATUN_F16, GATUN_BF16};

/* ---- the scalar definition against something else ---- */

/* The code whose value is nearest; of two equally near the even one. */
static int32_t nearest_f8(int32_t type, double magnitude) {
    int32_t best = 0;
    double distance = INFINITY;
    for (int32_t code = 0; code < 128; code++) {
        double value = (double)gatun_f8_decode(type, code);
        if (!isfinite(value)) {
            continue;
        }
        double d = fabs(value - magnitude);
        if (d < distance || (d == distance && code % 2 == 0)) {
            best = code;
            distance = d;
        }
    }
    return best;
}

static void check_f8(random_state *r) {
    for (int32_t type = GATUN_F8_E4M3; type <= GATUN_F8_E5M2FNUZ; type++) {
        for (int32_t code = 0; code < 256; code++) {
            float value = gatun_codebook(type)[code], decoded = gatun_f8_decode(type, code);
            CHECK(memcmp(&value, &decoded, 4) == 0 || (isnan(value) && isnan(decoded)), "type %d code %d", type, code);
            if (!isnan(value)) {
                CHECK(gatun_f8_encode(type, value) == code, "type %d: %d becomes %d", type, code,
                      gatun_f8_encode(type, value));
            }
        }
        for (int32_t i = 0; i < 20000; i++) {
            float v = gatun_bits_float((uint32_t)(random_bits(r) & 0x7FFFFFFF));
            v = i % 2 == 0 ? fabsf(random_float(r)) * ldexpf(1.0f, (int)random_below(r, 24) - 16) : v;
            if (v < gatun_f8_max(type)) {
                CHECK(gatun_f8_encode(type, v) == nearest_f8(type, (double)v), "type %d: %a", type, (double)v);
            }
        }
        for (int32_t code = 0; code < 127; code++) { /* ties, and the numbers beside them */
            double a = (double)gatun_f8_decode(type, code), b = (double)gatun_f8_decode(type, code + 1);
            if (isfinite(b) && !isnan(b)) {
                float tie = (float)((a + b) / 2);
                CHECK(gatun_f8_encode(type, tie) == code + code % 2, "type %d tie %d", type, code);
                CHECK(gatun_f8_encode(type, nextafterf(tie, 0)) == code, "type %d below tie %d", type, code);
                CHECK(gatun_f8_encode(type, nextafterf(tie, INFINITY)) == code + 1, "type %d above %d", type, code);
            }
        }
    }
    CHECK(gatun_f8_encode(GATUN_F8_E4M3, 464.0f) == 0x7E && gatun_f8_encode(GATUN_F8_E4M3, 465.0f) == 0x7F, "e4m3");
    CHECK(gatun_f8_encode(GATUN_F8_E5M2, 61440.0f) == 0x7C && gatun_f8_encode(GATUN_F8_E5M2, -INFINITY) == 0xFC,
          "e5m2");
    CHECK(gatun_f8_encode(GATUN_F8_E4M3FNUZ, -1e-9f) == 0 && gatun_f8_encode(GATUN_F8_E4M3FNUZ, 248.0f) == 0x80,
          "fnuz");
}

static void check_halves(random_state *r) {
#if defined(__FLT16_MAX__)
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t half = (uint16_t)bits;
        _Float16 native;
        memcpy(&native, &half, 2);
        float value = (float)native, ours = gatun_f16_to_float(half);
        CHECK(memcmp(&value, &ours, 4) == 0 || (isnan(value) && isnan(ours)), "half %04x", half);
        for (int32_t step = -1; step <= 1; step++) { /* around the middle between it and the next */
            float v = isnan(value) ? NAN : gatun_bits_float(gatun_float_bits(value) + 0x1000u + (uint32_t)step);
            native = (_Float16)v;
            uint16_t expected, got = gatun_float_to_f16(v);
            memcpy(&expected, &native, 2);
            CHECK(isnan(v) ? (got & 0x7FFF) == 0x7E00 : got == expected, "%a: %04x instead of %04x", (double)v, got,
                  expected);
        }
    }
#endif
    for (int32_t i = 0; i < 100000; i++) {
        float v = gatun_bits_float((uint32_t)random_bits(r));
        float rounded = gatun_bf16_to_float(gatun_float_to_bf16(v));
        float low = gatun_bits_float(gatun_float_bits(v) & 0xFFFF0000), high;
        high = gatun_bits_float((gatun_float_bits(v) & 0xFFFF0000) + 0x10000);
        if (isfinite(v) && isfinite(high)) {
            double d = fabs((double)rounded - (double)v);
            CHECK(d <= fabs((double)low - (double)v) && d <= fabs((double)high - (double)v), "bf16 of %a", (double)v);
        }
    }
    CHECK(gatun_float_to_bf16(-NAN) == 0x7FC0, "bf16 NaN");
}

/* ---- convert ---- */

/* Numbers of a type: all codes, all halves, or floats of every kind. */
static int64_t inputs_of(random_state *r, int32_t type, void **out) {
    int64_t size = gatun_number_size(type);
    int64_t count = size == 1 ? 256 : 65536;
    uint8_t *data = (uint8_t *)buffer(count * size, 0);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)i;
        if (size == 4) {
            uint32_t half = (uint32_t)random_below(r, 65536) << 16;
            static const uint32_t low[4] = {0, 0x8000, 0x7FFF, 0x1000};
            bits = i % 3 == 0   ? (uint32_t)random_bits(r)
                   : i % 3 == 1 ? half | low[i % 4]
                                : gatun_float_bits(random_float(r));
        }
        memcpy(data + i * size, &bits, (size_t)size);
    }
    *out = data;
    return count;
}

static void check_convert(random_state *r) {
    for (int32_t s = 0; s < NUMBERS; s++) {
        void *src;
        int64_t count = inputs_of(r, numbers[s], &src);
        for (int32_t d = 0; d < NUMBERS; d++) {
            int64_t src_size = gatun_number_size(numbers[s]), dst_size = gatun_number_size(numbers[d]);
            for (int32_t saturate = 0; saturate < 2; saturate++) {
                void *a = buffer(count * dst_size, 1), *b = buffer(count * dst_size, 2);
                CHECK_STATUS(GATUN_OK,
                             gatun_convert(src, numbers[s], a, numbers[d], count, saturate, GATUN_ISA_SCALAR, 1));
                CHECK_STATUS(GATUN_OK, gatun_convert(src, numbers[s], b, numbers[d], count, saturate, isa, 0));
                note();
                CHECK(memcmp(a, b, (size_t)(count * dst_size)) == 0, "convert %d to %d, saturate %d", numbers[s],
                      numbers[d], saturate);
                for (int64_t n = 0; n <= 130; n++) { /* every tail, at the end of a page */
                    guarded in = guard_copy((uint8_t *)src + (count - n) * src_size, n * src_size);
                    guarded out = guard(n * dst_size);
                    CHECK_STATUS(GATUN_OK,
                                 gatun_convert(in.data, numbers[s], out.data, numbers[d], n, saturate, isa, 1));
                    CHECK(memcmp(out.data, (uint8_t *)a + (count - n) * dst_size, (size_t)(n * dst_size)) == 0,
                          "convert %d to %d, %lld numbers", numbers[s], numbers[d], (long long)n);
                    unguard(&in);
                    unguard(&out);
                }
                free(a);
                free(b);
            }
        }
        free(src);
    }
}

/* ---- dequantize and embedding ---- */

static void dequantize_both(random_state *r, gatun_matrix *m, int32_t type) {
    int64_t size = gatun_plain_size(type), ld = m->k + random_below(r, 3);
    int64_t bytes = m->n == 0 ? 0 : ((m->n - 1) * ld + m->k) * size;
    guarded a = guard(bytes), b = guard(bytes);
    CHECK_STATUS(GATUN_OK, gatun_dequantize(m, 0, m->n, a.data, type, ld, GATUN_ISA_SCALAR, 1));
    CHECK_STATUS(GATUN_OK, gatun_dequantize(m, 0, m->n, b.data, type, ld, isa, 2));
    note();
    int32_t index = gatun_last_kernel();
    gatun_kernel kernel = {0};
    gatun_kernel_at(index, &kernel);
    CHECK(memcmp(a.data, b.data, (size_t)bytes) == 0, "%s to %d, %lld x %lld", kernel.name, type, (long long)m->n,
          (long long)m->k);
    if (m->n > 0) {
        int64_t ids[3] = {m->n - 1, 0, random_below(r, m->n)};
        guarded rows = guard(3 * m->k * size);
        CHECK_STATUS(GATUN_OK, gatun_embedding(m, ids, 3, rows.data, type, m->k, isa, 1));
        note();
        for (int32_t i = 0; i < 3; i++) {
            CHECK(memcmp((uint8_t *)rows.data + i * m->k * size, (uint8_t *)a.data + ids[i] * ld * size,
                         (size_t)(m->k * size)) == 0,
                  "embedding of %s", kernel.name);
        }
        unguard(&rows);
    }
    unguard(&a);
    unguard(&b);
}

/* Equal but for the order of the sum and its parts that are floats, or no numbers both. */
static bool same_sum(double a, double b) { return a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= 1e-6 * fabs(a); }

/* Sums of deviations against those of what dequantize gives, one number after the other. */
static void deviation_both(random_state *r, const gatun_matrix *m, int32_t type) {
    int64_t size = gatun_plain_size(type), ldw = m->k + random_below(r, 3), row0 = random_below(r, m->n + 1);
    int64_t rows = m->n - row0, count = rows == 0 ? 0 : (rows - 1) * ldw + m->k;
    guarded w = guard(count * size), floats = guard(rows * m->k * 4);
    float unit =
        ldexpf(3.0f, 80 * ((int)random_below(r, 6) / 4 - (int)random_below(r, 6) / 4)); /* squares out of range */
    for (int64_t i = 0; i < count; i++) {
        gatun_plain_put(type, w.data, i, random_float(r) * unit);
    }
    CHECK_STATUS(GATUN_OK, gatun_dequantize(m, row0, rows, floats.data, GATUN_F32, m->k, GATUN_ISA_SCALAR, 1));
    double expected[3] = {0, 0, 0}, found[3] = {1, 2, 3};
    for (int64_t i = 0; i < rows * m->k; i++) {
        float before = gatun_plain_get(type, w.data, i / m->k * ldw + i % m->k);
        float distance = fabsf(((const float *)floats.data)[i] - before);
        double difference = (double)((const float *)floats.data)[i] - (double)before;
        expected[0] += (double)before * (double)before;
        expected[1] += difference * difference;
        expected[2] = (double)distance > expected[2] || isnan(distance) ? (double)distance : expected[2];
    }
    CHECK_STATUS(GATUN_OK, gatun_deviation(m, row0, rows, w.data, type, ldw, found, isa));
    for (int32_t i = 0; i < 3; i++) {
        CHECK(same_sum(expected[i], found[i]), "deviation of %d, sum %d: %g, expected %g", m->encoding, i, found[i],
              expected[i]);
    }
    unguard(&w);
    unguard(&floats);
}

static void dequantize(random_state *r, int32_t encoding, int32_t order, int64_t n, int64_t k, int32_t cut,
                       int64_t group, int32_t with, int32_t scale_type, int32_t arithmetic) {
    gatun_matrix m;
    if (!random_matrix(r, encoding, order, n, k, cut, group, with, scale_type, arithmetic, &m)) {
        return;
    }
    if (gatun_encoding_bits(encoding) == 8) { /* all codes, NaN and infinities too */
        for (int64_t i = 0; i < m.codes_size && i < 256; i++) {
            ((uint8_t *)m.codes)[i] = (uint8_t)i;
        }
    }
    void *codes = m.codes, *scales = m.scales;
    guarded guarded_codes = guard_copy(codes, m.codes_size), guarded_scales = guard_copy(scales, m.scales_size);
    m.codes = guarded_codes.data;
    m.scales = scales == NULL ? NULL : guarded_scales.data;
    for (int32_t t = 0; t < 3; t++) {
        dequantize_both(r, &m, plain_types[t]);
        deviation_both(r, &m, plain_types[t]);
    }
    unguard(&guarded_codes);
    unguard(&guarded_scales);
    m.codes = codes;
    m.scales = scales;
    free_matrix(&m);
}

static void check_dequantize(random_state *r) {
    for (int32_t e = 0; e < WEIGHT_ENCODINGS; e++) {
        int32_t encoding = weight_encodings[e], bits = gatun_encoding_bits(encoding);
        int32_t order = bits == 3 || (bits > 4 && bits < 8) ? GATUN_ORDER_BITS : GATUN_ORDER_LOW_FIRST;
        if (gatun_is_gguf(encoding)) {
            dequantize(r, encoding, 0, 3, 512, PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32);
            continue;
        }
        for (int64_t k = 1; k <= 130; k++) { /* every tail */
            dequantize(r, encoding, order, 2, k, PER_ROW, 0, 0, GATUN_F32, GATUN_F32);
        }
        for (int64_t k = 60; k <= 520; k += 92) {
            for (int32_t a = 0; a < 3; a++) {
                dequantize(r, encoding, order, 5, k, PER_GROUP, 32, 0, GATUN_F16, plain_types[a]);
                dequantize(r, encoding, order, 5, k, FLAT, 64, WITH_NESTED, GATUN_NONE, plain_types[a]);
                dequantize(r, encoding, order, 5, k, PER_GROUP, 16, WITH_OFFSETS, GATUN_BF16, plain_types[a]);
                dequantize(r, encoding, order, 5, k, PER_ROW, 0, WITH_THEN_GLOBAL, GATUN_F32, plain_types[a]);
                dequantize(r, encoding, order, 5, k, PER_GROUP, 7, WITH_ZEROS, GATUN_F32, plain_types[a]);
                dequantize(r, encoding, order, 5, k, PER_TILE, 128, WITH_CODEBOOK, GATUN_F32, plain_types[a]);
                dequantize(r, encoding, GATUN_ORDER_HIGH_FIRST, 5, k, FLAT, 64, 0, GATUN_F32, plain_types[a]);
            }
            dequantize(r, encoding, order, 200, k, PER_GROUP, 16, WITH_SWIZZLE, GATUN_F8_E4M3, GATUN_BF16);
            dequantize(r, encoding, GATUN_ORDER_WORDS_N, 40, k, PER_GROUP, 32, 0, GATUN_F16, GATUN_F32);
        }
    }
}

/* ---- quantize ---- */

static void quantize_both(random_state *r, const gatun_matrix *m, const gatun_quantize_rule *rule, int32_t w_type,
                          float special) {
    int64_t ldw = m->k + random_below(r, 3), size = gatun_plain_size(w_type);
    int64_t count = m->n == 0 ? 0 : (m->n - 1) * ldw + m->k;
    guarded w = guard(count * size);
    for (int64_t i = 0; i < count; i++) {
        float v = random_float(r) * ldexpf(1.0f, (int)random_below(r, 6));
        v = i % 97 < 2 || (special != 0 && i / ldw == 0) ? 0.0f : v;
        gatun_plain_put(w_type, w.data, i, special != 0 && i == count - 1 ? special : v);
    }
    guarded codes[2], scales[2];
    for (int32_t i = 0; i < 2; i++) {
        codes[i] = guard(m->codes_size);
        scales[i] = guard_copy(m->scales, m->scales_size);
        gatun_matrix out = *m;
        out.codes = codes[i].data;
        out.scales = scales[i].data;
        CHECK_STATUS(GATUN_OK,
                     gatun_quantize(&out, rule, w.data, w_type, ldw, i == 0 ? GATUN_ISA_SCALAR : isa, 1 + 2 * i));
        if (i == 1) {
            note();
        }
    }
    gatun_kernel kernel = {0};
    gatun_kernel_at(gatun_last_kernel(), &kernel);
    CHECK(memcmp(scales[0].data, scales[1].data, (size_t)m->scales_size) == 0, "%s: scales", kernel.name);
    CHECK(memcmp(codes[0].data, codes[1].data, (size_t)m->codes_size) == 0, "%s: codes, %lld x %lld", kernel.name,
          (long long)m->n, (long long)m->k);
    for (int32_t i = 0; i < 2; i++) {
        unguard(&codes[i]);
        unguard(&scales[i]);
    }
    unguard(&w);
}

static void quantize(random_state *r, int32_t encoding, int32_t order, int64_t n, int64_t k, int32_t cut, int64_t group,
                     int32_t scale_type, int32_t arithmetic) {
    gatun_matrix m;
    if (!random_matrix(r, encoding, order, n, k, cut, group, 0, scale_type, arithmetic, &m)) {
        return;
    }
    float max = gatun_is_f8(encoding)                            ? gatun_f8_max(encoding)
                : encoding == GATUN_NF4 || encoding == GATUN_FP4 ? 1.0f
                : encoding == GATUN_F4_E2M1                      ? 6.0f
                                            : (float)((1 << gatun_encoding_bits(encoding)) / 2 - 1);
    max = max < 1 ? 1 : max;
    gatun_quantize_rule rule = {.arithmetic = arithmetic,
                                .reciprocal = (int32_t)random_below(r, 2),
                                .divisor = max,
                                .scale_floor = random_below(r, 2) == 0 ? 0.0f : 1e-6f,
                                .code_min = -max,
                                .code_max = max,
                                .keep_scales = random_below(r, 4) == 0,
                                .zero_code = (int32_t)random_below(r, 2) - 1};
    for (int32_t t = 0; t < 3; t++) {
        quantize_both(r, &m, &rule, plain_types[t], 0);
    }
    quantize_both(r, &m, &rule, GATUN_F32, NAN);
    quantize_both(r, &m, &rule, GATUN_F32, INFINITY);
    free_matrix(&m);
}

#define CODE_ENTRY(ENCODING, name, bits, unused) GATUN_##ENCODING,
static const int32_t code_encodings[] = {GATUN_CODE_ENCODINGS(CODE_ENTRY, 0)};

static const int32_t block_encodings[] = {GATUN_GGUF_WRITTEN_ENCODINGS(CODE_ENTRY, 0)};

static void check_quantize(random_state *r) {
    for (size_t e = 0; e < sizeof block_encodings / sizeof block_encodings[0]; e++) {
        quantize(r, block_encodings[e], GATUN_ORDER_LOW_FIRST, 3, 512, PER_TENSOR, 0, GATUN_NONE, GATUN_F32);
    }
    for (size_t e = 0; e < sizeof code_encodings / sizeof code_encodings[0]; e++) {
        int32_t encoding = code_encodings[e], bits = gatun_encoding_bits(encoding);
        int32_t order = 8 % bits != 0 ? GATUN_ORDER_BITS : GATUN_ORDER_LOW_FIRST;
        for (int64_t k = 1; k <= 70; k++) {
            quantize(r, encoding, order, 3, k, PER_ROW, 0, GATUN_F32, GATUN_F32);
        }
        for (int64_t k = 64; k <= 640; k += 64) {
            for (int32_t a = 0; a < 3; a++) {
                quantize(r, encoding, order, 9, k, PER_GROUP, 32, GATUN_F16, plain_types[a]);
                quantize(r, encoding, order, 9, k - 1, FLAT, 64, GATUN_F32, plain_types[a]);
                quantize(r, encoding, GATUN_ORDER_HIGH_FIRST, 9, k, FLAT, 64, GATUN_F32, plain_types[a]);
            }
            quantize(r, encoding, order, 9, k, PER_TENSOR, 0, GATUN_F32, GATUN_F32);
            quantize(r, encoding, order, 9, k, PER_TILE, 48, GATUN_F32, GATUN_F32);
            quantize(r, encoding, GATUN_ORDER_SPLIT_ROWS, 8, k, PER_GROUP, 32, GATUN_F32, GATUN_F32);
        }
    }
}

/* ---- outputs that the caches do not keep ---- */

static void check_large(random_state *r) {
    enum { K = 1027 };
    const int64_t rows = gatun_cache_bytes(3) / 4 / (2 * K) + 3, ld = K + 2;
    if (rows > 1 << 18) {
        return; /* more than a gigabyte */
    }
    gatun_matrix m;
    CHECK(random_matrix(r, GATUN_I8, GATUN_ORDER_LOW_FIRST, rows, K, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, &m), "I8");
    uint16_t *all = (uint16_t *)buffer(rows * ld * 2, 1), *one = (uint16_t *)buffer(K * 2, 0);
    CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, 0, rows, all + 1, GATUN_BF16, ld, isa, 2));
    for (int64_t row = 0; row < rows; row++) {
        CHECK_STATUS(GATUN_OK, gatun_dequantize(&m, row, 1, one, GATUN_BF16, K, isa, 1));
        CHECK(memcmp(all + 1 + row * ld, one, K * 2) == 0, "row %lld", (long long)row);
        CHECK(row == rows - 1 || all[1 + row * ld + K] == 0x0101, "behind row %lld", (long long)row);
    }
    free(all);
    free(one);
    free_matrix(&m);
}

int main(int count, char **arguments) {
    isa = isa_argument(count, arguments);
    if (gatun_kernel_find(GATUN_OP_CONVERT, 0, GATUN_F8_E4M3, isa) ==
            gatun_kernel_find(GATUN_OP_CONVERT, 0, GATUN_F8_E4M3, GATUN_ISA_SCALAR) &&
        isa != GATUN_ISA_SCALAR) {
        printf("skipped: %s has no codecs of its own\n", gatun_isa_name(isa));
        return SKIPPED;
    }
    random_state r = {5};
    if (isa == GATUN_ISA_SCALAR) {
        check_f8(&r);
        check_halves(&r);
    }
    check_convert(&r);
    check_dequantize(&r);
    check_quantize(&r);
    check_large(&r);
    int32_t kernels = 0;
    for (int32_t i = 0; i < gatun_kernel_count(); i++) {
        gatun_kernel k;
        CHECK_STATUS(GATUN_OK, gatun_kernel_at(i, &k));
        bool codec = k.operation == GATUN_OP_CONVERT || k.operation == GATUN_OP_DEQUANTIZE ||
                     k.operation == GATUN_OP_EMBEDDING || k.operation == GATUN_OP_QUANTIZE;
        if (codec && k.isa == isa) {
            kernels++;
            CHECK(ran[i] != 0, "%s was never run", k.name);
        }
    }
    printf("%s: %d kernels\n", gatun_isa_name(isa), kernels);
    return finish();
}
