/*
 * gatun_bench_pack: how fast weights are packed, and how much larger they become.
 *
 *   gatun_bench_pack [threads] [N] [K] [weights, comma separated]
 *
 * GB of source (codes, scales and zero points) a second, beside a copy of as many bytes with plain stores in rounds in
 * between; and the packed bytes beyond the source's, in percent.
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
    int32_t encoding, scale_type, zero_type;
    int64_t group;           /* 0: a row has one scale */
    int32_t bytes, elements; /* of codes */
} kind;

#define BLOCK(name, ENCODING, bytes, elements)                                                                         \
    { name, GATUN_##ENCODING, GATUN_NONE, GATUN_NONE, 0, bytes, elements }
static const kind KINDS[] = {
    {"f32", GATUN_F32, GATUN_NONE, GATUN_NONE, 0, 4, 1},
    {"bf16", GATUN_BF16, GATUN_NONE, GATUN_NONE, 0, 2, 1},
    {"i8 row", GATUN_I8, GATUN_F32, GATUN_NONE, 0, 1, 1},
    {"f8 row", GATUN_F8_E4M3, GATUN_F32, GATUN_NONE, 0, 1, 1},
    {"i4 row", GATUN_I4, GATUN_F32, GATUN_NONE, 0, 1, 2},
    {"i4 g32", GATUN_I4, GATUN_F16, GATUN_NONE, 32, 1, 2},
    {"i4 g128", GATUN_I4, GATUN_F16, GATUN_NONE, 128, 1, 2},
    {"u4 g32 zeros", GATUN_U4, GATUN_BF16, GATUN_BF16, 32, 1, 2},
    {"u4 g64 zeros u8", GATUN_U4, GATUN_F16, GATUN_U8, 64, 1, 2},
    {"u4 g128 zeros u8", GATUN_U4, GATUN_F16, GATUN_U8, 128, 1, 2},
    {"nf4 g64", GATUN_NF4, GATUN_F32, GATUN_NONE, 64, 1, 2},
    {"fp4 g64", GATUN_FP4, GATUN_F32, GATUN_NONE, 64, 1, 2},
    {"f4_e2m1 g16 f8_e4m3", GATUN_F4_E2M1, GATUN_F8_E4M3, GATUN_NONE, 16, 1, 2},
    {"f4_e2m1 g32 f8_e8m0", GATUN_F4_E2M1, GATUN_F8_E8M0, GATUN_NONE, 32, 1, 2},
    {"f8 g32 f8_e8m0", GATUN_F8_E4M3, GATUN_F8_E8M0, GATUN_NONE, 32, 1, 1},
    BLOCK("q4_0", Q4_0, 18, 32),
    BLOCK("q4_1", Q4_1, 20, 32),
    BLOCK("q5_0", Q5_0, 22, 32),
    BLOCK("q5_1", Q5_1, 24, 32),
    BLOCK("q8_0", Q8_0, 34, 32),
    BLOCK("q2_k", Q2_K, 84, 256),
    BLOCK("q3_k", Q3_K, 110, 256),
    BLOCK("q4_k", Q4_K, 144, 256),
    BLOCK("q5_k", Q5_K, 176, 256),
    BLOCK("q6_k", Q6_K, 210, 256),
    BLOCK("iq4_nl", IQ4_NL, 18, 32),
    BLOCK("iq4_xs", IQ4_XS, 136, 256),
    BLOCK("mxfp4", MXFP4, 17, 32),
    BLOCK("nvfp4", NVFP4, 36, 64),
    BLOCK("tq1_0", TQ1_0, 54, 256),
    BLOCK("tq2_0", TQ2_0, 66, 256),
    BLOCK("q1_0", Q1_0, 18, 128),
    BLOCK("q2_0", Q2_0, 18, 64),
};
enum { KINDS_COUNT = sizeof KINDS / sizeof KINDS[0] };

static void *memory(int64_t size) {
    void *p = gatun_probe_allocate((size + 4095) / 4096 * 4096);
    if (p == NULL) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)size);
        exit(1);
    }
    return p;
}

static void expect_ok(gatun_status status) {
    if (status != GATUN_OK) {
        fprintf(stderr, "%s: %s\n", gatun_status_string(status), gatun_last_error());
        exit(1);
    }
}

static int64_t number_bytes(int32_t type) {
    switch (type) {
    case GATUN_NONE:
        return 0;
    case GATUN_F32:
        return 4;
    case GATUN_F16:
    case GATUN_BF16:
        return 2;
    default:
        return 1;
    }
}

static gatun_matrix matrix_of(const kind *w, int64_t n, int64_t k) {
    const bool bare = w->scale_type == GATUN_NONE;
    const int64_t groups = bare ? 0 : w->group == 0 ? 1 : (k + w->group - 1) / w->group;
    gatun_matrix m = {.n = n,
                      .k = k,
                      .encoding = w->encoding,
                      .codes_size = n * (k * w->bytes / w->elements),
                      .scale_type = w->scale_type,
                      .scales_size = n * groups * number_bytes(w->scale_type),
                      .zero_type = w->zero_type,
                      .zeros_size = n * groups * number_bytes(w->zero_type),
                      .block_rows = 1,
                      .block_cols = w->group == 0 ? k : w->group,
                      .scale_row_stride = groups,
                      .scale_col_stride = bare ? 0 : 1,
                      .global_scale = 1,
                      .offset_sign = 1,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    m.codes = memory(m.codes_size); /* whatever they mean, they take as long */
    m.scales = bare ? NULL : memory(m.scales_size);
    m.zeros = w->zero_type == GATUN_NONE ? NULL : memory(m.zeros_size);
    return m;
}

static void measure(const kind *w, int64_t n, int64_t k, int32_t threads) {
    gatun_matrix m = matrix_of(w, n, k);
    int64_t source = m.codes_size + m.scales_size + m.zeros_size, size;
    expect_ok(gatun_packed_size(&m, &size));
    void *packed = memory(size);
    double best = INFINITY, copy = 0;
    const double start = now_seconds();
    for (int round = 0; round < 3 || (round < 200 && now_seconds() - start < 0.5); round++) {
        double rate = gatun_probe_copy(packed, m.codes, m.codes_size < size ? m.codes_size : size, 0, threads, 1) / 2;
        copy = rate > copy ? rate : copy;
        double before = now_seconds();
        expect_ok(gatun_pack(&m, packed, size, threads));
        double seconds = now_seconds() - before;
        best = seconds < best ? seconds : best;
    }
    double rate = (double)source / best * 1e-9;
    printf("| %s | %.1f | %.0f %% | %.1f | %.1f | %.1f %% |\n", w->name, rate, 100 * rate / copy, (double)source * 1e-6,
           (double)size * 1e-6, 100 * ((double)size / (double)source - 1));
    fflush(stdout);
    gatun_probe_free(packed);
    gatun_probe_free(m.codes);
    gatun_probe_free(m.scales);
    gatun_probe_free(m.zeros);
}

static bool is_chosen(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = strstr(list, name); at != NULL; at = strstr(at + 1, name)) {
        if ((at == list || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) {
            return true;
        }
    }
    return list[0] == 0 || strcmp(list, "all") == 0;
}

int main(int count, char **arguments) {
    int32_t threads = count > 1 ? atoi(arguments[1]) : 2;
    int64_t n = count > 2 ? atoll(arguments[2]) : 14336, k = count > 3 ? atoll(arguments[3]) : 4096;
    if (threads < 1 || threads > 1024 || n < 1 || k < 256 || k % 256 != 0) {
        fprintf(stderr, "usage: %s [threads] [N] [K, a multiple of 256] [weights]\n", arguments[0]);
        return 2;
    }
    expect_ok(gatun_threads_set(threads, 200));
    printf("%d threads, N = %lld, K = %lld\n\n", threads, (long long)n, (long long)k);
    printf("| weight | GB/s of source | of memcpy | source MB | packed MB | larger by |\n|---|---|---|---|---|---|\n");
    for (int i = 0; i < KINDS_COUNT; i++) {
        if (is_chosen(count > 4 ? arguments[4] : "", KINDS[i].name)) {
            measure(&KINDS[i], n, k, threads);
        }
    }
    return 0;
}
