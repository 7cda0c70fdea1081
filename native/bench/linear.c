/*
 * gatun_bench_linear: what `linear` reaches on machines without a JVM, beside the multipliers' peak in the same run.
 *
 *   gatun_bench_linear [M,M,...] [threads,threads,...] [N] [K] [kinds, comma separated] [MiB of cold weights]
 *
 * For each kind of weight, M and thread count: the peak's and the layer's rounds by turns, the best of each. GATUN_ISA
 * chooses the instruction set of both. The weights are random; up to 8 rows they come from memory: each call takes
 * another of copies that are together so large (0: they lie in one place), and the rate at which memory is read is
 * measured in between, over all of them.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatun.h"
#include "rounds.h"

typedef struct kind {
    const char *name;
    int32_t encoding, scale_type, compute, peak;
    int64_t group; /* 0: a row has one scale */
} kind;

static const kind KINDS[] = {
    {"i8 row", GATUN_I8, GATUN_F32, GATUN_COMPUTE_I8, PROBE_I8, 0},
    {"q8_0", GATUN_Q8_0, GATUN_NONE, GATUN_COMPUTE_I8, PROBE_I8, 32},
    {"i4 row", GATUN_I4, GATUN_F32, GATUN_COMPUTE_I8, PROBE_I8, 0},
    {"i4 g128", GATUN_I4, GATUN_F16, GATUN_COMPUTE_I8, PROBE_I8, 128},
    {"i4 g64", GATUN_I4, GATUN_F16, GATUN_COMPUTE_I8, PROBE_I8, 64},
    {"q4_0", GATUN_Q4_0, GATUN_NONE, GATUN_COMPUTE_I8, PROBE_I8, 32},
    {"q4_0", GATUN_Q4_0, GATUN_NONE, GATUN_COMPUTE_I8_BLOCK, PROBE_I8, 32},
    {"q4_k", GATUN_Q4_K, GATUN_NONE, GATUN_COMPUTE_I8, PROBE_I8, 32},
    {"nf4 g64", GATUN_NF4, GATUN_F32, GATUN_COMPUTE_BF16, PROBE_BF16, 64},
    {"q4_0", GATUN_Q4_0, GATUN_NONE, GATUN_COMPUTE_BF16, PROBE_BF16, 32},
    {"f8 row", GATUN_F8_E4M3, GATUN_F32, GATUN_COMPUTE_BF16, PROBE_BF16, 0},
    {"iq4_nl", GATUN_IQ4_NL, GATUN_NONE, GATUN_COMPUTE_I8, PROBE_I8, 32},
    {"mxfp4", GATUN_MXFP4, GATUN_NONE, GATUN_COMPUTE_I8_BLOCK, PROBE_I8, 32},
    {"q6_k", GATUN_Q6_K, GATUN_NONE, GATUN_COMPUTE_I8, PROBE_I8, 16},
    {"nf4 f32", GATUN_NF4, GATUN_F32, GATUN_COMPUTE_F32, PROBE_F32, 64},
    {"f8 f32", GATUN_F8_E4M3, GATUN_F32, GATUN_COMPUTE_F32, PROBE_F32, 0},
    {"q4_0 f32", GATUN_Q4_0, GATUN_NONE, GATUN_COMPUTE_F32, PROBE_F32, 32},
    {"q8_0 f32", GATUN_Q8_0, GATUN_NONE, GATUN_COMPUTE_F32, PROBE_F32, 32},
    {"q4_k f32", GATUN_Q4_K, GATUN_NONE, GATUN_COMPUTE_F32, PROBE_F32, 32},
    {"q6_k f32", GATUN_Q6_K, GATUN_NONE, GATUN_COMPUTE_F32, PROBE_F32, 16},
    {"bf16", GATUN_BF16, GATUN_NONE, GATUN_COMPUTE_BF16, PROBE_BF16, 0},
    {"f32", GATUN_F32, GATUN_NONE, GATUN_COMPUTE_F32, PROBE_F32, 0},
};
enum { KINDS_COUNT = sizeof KINDS / sizeof KINDS[0], MOST = 16, COLD_ROWS = 8 };

static void *memory(int64_t size) {
    void *p = NULL;
    if (posix_memalign(&p, 4096, (size_t)(size + 4096)) != 0) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)size);
        exit(1);
    }
    memset(p, 0, (size_t)(size + 4096));
    return p;
}

static uint32_t random_bits(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void expect_ok(gatun_status status) {
    if (status != GATUN_OK) {
        fprintf(stderr, "%s: %s\n", gatun_status_string(status), gatun_last_error());
        exit(1);
    }
}

/* Ordinary numbers of a type, whatever it is: no bit pattern here is NaN or infinite. */
static void *numbers(int32_t type, int64_t count) {
    float *from = (float *)memory(4 * count);
    for (int64_t i = 0; i < count; i++) {
        from[i] = (float)((int32_t)(random_bits() & 0xFFFF) - 0x8000) / 0x8000;
    }
    if (type == GATUN_F32) {
        return from;
    }
    void *to = memory(2 * count);
    expect_ok(gatun_convert(from, GATUN_F32, to, type, count, 0, GATUN_ISA_BEST, 1));
    free(from);
    return to;
}

/* The packed weight of a kind. */
static void *pack(const kind *w, int64_t n, int64_t k, int64_t *size) {
    gatun_matrix m = {.n = n,
                      .k = k,
                      .encoding = w->encoding,
                      .scale_type = w->scale_type,
                      .block_rows = 1,
                      .block_cols = w->group == 0 ? k : w->group,
                      .scale_row_stride = w->group == 0 ? 1 : k / w->group,
                      .scale_col_stride = 1,
                      .global_scale = 1,
                      .offset_sign = 1,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    bool plain = w->encoding == GATUN_F32 || w->encoding == GATUN_BF16;
    m.codes_size = n * k * 4; /* as much as any encoding needs */
    m.codes = plain ? numbers(w->encoding, n * k) : memory(m.codes_size);
    for (int64_t i = 0; !plain && i < m.codes_size; i++) {
        ((uint8_t *)m.codes)[i] = (uint8_t)(random_bits() & 0x3B);
    }
    for (int64_t block = 0; w->encoding == GATUN_MXFP4 && block < n * k / 32; block++) {
        /* A block begins with its scale, a power of two: those bits would make numbers that are next to zero. */
        ((uint8_t *)m.codes)[block * (1 + 32 / 2)] = (uint8_t)(120 + random_bits() % 8);
    }
    if (w->scale_type != GATUN_NONE) {
        m.scales_size = n * m.scale_row_stride * (w->scale_type == GATUN_F32 ? 4 : 2);
        m.scales = numbers(w->scale_type, n * m.scale_row_stride);
    }
    if (w->encoding >= GATUN_Q4_0) {
        m.block_cols = k;
        m.scale_row_stride = m.scale_col_stride = 0;
    }
    expect_ok(gatun_packed_size(&m, size));
    void *packed = memory(*size);
    expect_ok(gatun_pack(&m, packed, *size, 0));
    free(m.codes);
    free(m.scales);
    return packed;
}

/* A packed weight, and copies of it one behind the other. */
typedef struct weight {
    const kind *kind;
    uint8_t *copies;
    int64_t size, stride, count, n, k;
} weight;

static weight copies_of(const kind *w, int64_t n, int64_t k, int64_t cold) {
    weight of = {.kind = w, .n = n, .k = k};
    void *packed = pack(w, n, k, &of.size);
    of.stride = (of.size + 4095) / 4096 * 4096;
    of.count = cold / of.stride + 1;
    of.copies = gatun_probe_allocate(of.stride * of.count);
    if (of.copies == NULL) {
        fprintf(stderr, "no memory for %lld copies\n", (long long)of.count);
        exit(1);
    }
    for (int64_t i = 0; i < of.count; i++) {
        memcpy(of.copies + i * of.stride, packed, (size_t)of.size);
    }
    free(packed);
    return of;
}

static void measure(const weight *w, int64_t m, int32_t threads, const void *x, void *y) {
    const int32_t compute = w->kind->compute;
    const bool cold = w->count > 1 && m <= COLD_ROWS;
    int64_t need;
    expect_ok(gatun_linear_workspace(w->copies, w->size, m, compute, threads, &need));
    void *workspace = memory(need);
    double best = INFINITY, peak = 0, read = 0;
    const double start = now_seconds();
    for (int round = 0; round < 3 || (round < 400 && now_seconds() - start < 0.5); round++) {
        if (round % 4 == 0) {
            double now = gatun_probe_peak(w->kind->peak, threads, 1);
            peak = now > peak ? now : peak;
        }
        if (cold && round % 64 == 0) {
            double now = gatun_probe_read(w->copies, w->stride * w->count / 4096 * 4096, threads, 1);
            read = now > read ? now : read;
        }
        const uint8_t *packed = w->copies + (cold ? round % w->count : 0) * w->stride;
        double before = now_seconds();
        expect_ok(gatun_linear(packed, w->size, x, GATUN_F32, w->k, m, y, GATUN_F32, w->n, NULL, NULL,
                               GATUN_ACTIVATION_NONE, GATUN_COMBINE_NONE, NULL, 0, compute, GATUN_ISA_BEST, threads,
                               workspace, need));
        double seconds = now_seconds() - before;
        best = seconds < best ? seconds : best;
    }
    gatun_kernel kernel;
    expect_ok(gatun_kernel_at(gatun_last_kernel(), &kernel));
    double rate = 2.0 * (double)m * (double)w->n * (double)w->k / best * 1e-9, bytes = (double)w->size / best * 1e-9;
    printf("| %s | %s | %lld | %d | %.3f | %.0f | %.0f | %.1f %% | %.1f |", w->kind->name, kernel.name, (long long)m,
           threads, best * 1e3, rate, peak, peak > 0 ? 100 * rate / peak : 0, bytes);
    if (read > 0) {
        printf(" %.1f | %.1f %% |\n", read, 100 * bytes / read);
    } else {
        printf(" | |\n");
    }
    fflush(stdout);
    free(workspace);
}

static bool is_chosen(const char *names, const char *name) {
    size_t length = strlen(name);
    for (const char *at = strstr(names, name); at != NULL; at = strstr(at + 1, name)) {
        if ((at == names || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) {
            return true;
        }
    }
    return names[0] == 0;
}

static int list(const char *text, int64_t *out) {
    int count = 0;
    for (char *end; *text != 0 && count < MOST; text = *end == ',' ? end + 1 : end) {
        int64_t value = strtoll(text, &end, 10);
        if (end == text || value < 1) {
            fprintf(stderr, "found \"%s\", expected numbers from 1 on, separated by commas\n", text);
            exit(2);
        }
        out[count++] = value;
    }
    return count;
}

int main(int count, char **arguments) {
    int64_t rows[MOST], threads[MOST], n = 4096, k = 4096, largest = 0;
    int row_counts = list(count > 1 ? arguments[1] : "1,8,64,512", rows);
    int thread_counts = list(count > 2 ? arguments[2] : "1,2", threads);
    if (count > 3) {
        list(arguments[3], &n);
    }
    if (count > 4) {
        list(arguments[4], &k);
    }
    k = (k + 255) / 256 * 256; /* blocks of GGUF are whole */
    for (int i = 0; i < row_counts; i++) {
        largest = rows[i] > largest ? rows[i] : largest;
    }
    void *x = numbers(GATUN_F32, largest * k), *y = memory(4 * largest * n);
    printf("%s\nN = %lld, K = %lld; I8 peak: %s, BF16: %s, F32: %s\n\n", gatun_cpu_features(), (long long)n,
           (long long)k, gatun_probe_peak_name(PROBE_I8), gatun_probe_peak_name(PROBE_BF16),
           gatun_probe_peak_name(PROBE_F32));
    printf("| weight | kernel | M | threads | ms | GOP/s | peak GOP/s | share | weight GB/s | read GB/s | share |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < KINDS_COUNT; i++) {
        if (!is_chosen(count > 5 ? arguments[5] : "", KINDS[i].name)) {
            continue;
        }
        weight w = copies_of(&KINDS[i], n, k, (count > 6 ? strtoll(arguments[6], NULL, 10) : 384) << 20);
        for (int t = 0; t < thread_counts; t++) {
            expect_ok(gatun_threads_set((int32_t)threads[t], 200));
            for (int r = 0; r < row_counts; r++) {
                measure(&w, rows[r], (int32_t)threads[t], x, y);
            }
        }
        gatun_probe_free(w.copies);
    }
    return 0;
}
