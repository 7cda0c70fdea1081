/*
 * gatun_bench_codecs: what `quantize` and `dequantize` reach beside a copy, for every encoding with codes.
 *
 *   gatun_bench_codecs [threads] [MiB of floats] [encodings, comma separated] [libggml-base.so [libggml-cpu.so]]
 *
 * Bytes read plus bytes written a second, as a share of what a copy past the caches moves in rounds in between. ggml's
 * functions of the same block, where its libraries are given, run on as many threads. The numbers are random ones
 * rounded to bfloat16, as those of checkpoints are. GATUN_ISA chooses the instruction set of our own.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatun.h"
#include "rounds.h"

enum { COLUMNS = 4096, PIECE = 65536 };

typedef struct kind {
    const char *name;
    int32_t encoding;
    double bytes; /* of codes and scales, a number */
    int64_t group;
    float divisor, code_min, code_max;
    bool ours; /* written by gatun_quantize */
} kind;

#define BLOCK(name, ENCODING, bytes, elements, written)                                                                \
    { name, GATUN_##ENCODING, (double)(bytes) / (elements), 0, 1, 0, 0, written }
static const kind KINDS[] = {
    {"i8", GATUN_I8, 1 + 4.0 / COLUMNS, COLUMNS, 127, -128, 127, true},
    {"f8_e4m3", GATUN_F8_E4M3, 1 + 4.0 / COLUMNS, COLUMNS, 448, -448, 448, true},
    {"f8_e5m2", GATUN_F8_E5M2, 1 + 4.0 / COLUMNS, COLUMNS, 57344, -57344, 57344, true},
    {"i4", GATUN_I4, 0.5 + 4.0 / 128, 128, 7, -8, 7, true},
    {"nf4", GATUN_NF4, 0.5 + 4.0 / 64, 64, 1, -1, 1, true},
    {"fp4", GATUN_FP4, 0.5 + 4.0 / 64, 64, 1, -1, 1, true},
    {"f4_e2m1", GATUN_F4_E2M1, 0.5 + 4.0 / 32, 32, 6, -6, 6, true},
    BLOCK("q4_0", Q4_0, 18, 32, true),
    BLOCK("q4_1", Q4_1, 20, 32, true),
    BLOCK("q5_0", Q5_0, 22, 32, true),
    BLOCK("q5_1", Q5_1, 24, 32, true),
    BLOCK("q8_0", Q8_0, 34, 32, true),
    BLOCK("mxfp4", MXFP4, 17, 32, true),
    BLOCK("nvfp4", NVFP4, 36, 64, true),
    BLOCK("iq4_nl", IQ4_NL, 18, 32, true),
    BLOCK("iq4_xs", IQ4_XS, 136, 256, false),
    BLOCK("q2_k", Q2_K, 84, 256, false),
    BLOCK("q3_k", Q3_K, 110, 256, false),
    BLOCK("q4_k", Q4_K, 144, 256, false),
    BLOCK("q5_k", Q5_K, 176, 256, false),
    BLOCK("q6_k", Q6_K, 210, 256, false),
    BLOCK("tq1_0", TQ1_0, 54, 256, false),
    BLOCK("tq2_0", TQ2_0, 66, 256, false),
    BLOCK("q1_0", Q1_0, 18, 128, false),
    BLOCK("q2_0", Q2_0, 18, 64, false),
};
enum { KINDS_COUNT = sizeof KINDS / sizeof KINDS[0] };

static bool is_block(const kind *k) { return k->group == 0; }

static void *memory(int64_t size) {
    void *p = gatun_probe_allocate(size);
    if (p == NULL) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)size);
        exit(1);
    }
    return p;
}

/* ---- ggml's functions, which work on one thread: ours of probe.h share the rows ---- */

typedef void ggml_quantize(const float *x, void *y, int64_t k);
typedef void ggml_dequantize(const void *x, float *y, int64_t k);

typedef struct peer_job {
    ggml_quantize *quantize;
    ggml_dequantize *dequantize;
    float *numbers;
    uint8_t *codes;
    int64_t count;
    double bytes;
} peer_job;

static void peer_part(void *context, int32_t worker, int32_t workers) {
    const peer_job *j = context;
    int64_t pieces = j->count / PIECE, end = pieces * (worker + 1) / workers;
    for (int64_t i = pieces * worker / workers; i < end; i++) {
        uint8_t *codes = j->codes + (int64_t)((double)(i * PIECE) * j->bytes);
        if (j->quantize != NULL) {
            j->quantize(j->numbers + i * PIECE, codes, PIECE);
        } else {
            j->dequantize(codes, j->numbers + i * PIECE, PIECE);
        }
    }
}

static void *libraries[2];

/* The fastest that it has: of its CPU library, else the plain one. */
static void *peer_function(const char *before, const char *name, const char *after) {
    char symbol[64];
    snprintf(symbol, sizeof symbol, "%s%s%s", before, name, after);
    for (char *c = symbol + strlen(before); *c != 0; c++) {
        *c = strncmp(c, "_k", 3) == 0 ? *c : (char)tolower(*c);
    }
    char *k = strstr(symbol, "_k");
    if (k != NULL && (k[2] == 0 || k[2] == '_') && strchr(name, 'q') == name) {
        k[1] = 'K';
    }
    for (int i = 1; i >= 0; i--) {
        void *found = libraries[i] == NULL ? NULL : dlsym(libraries[i], symbol);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

/* ---- one encoding ---- */

typedef struct data {
    float *numbers, *other;
    int64_t count;
    int32_t threads;
} data;

static gatun_matrix matrix_of(const kind *k, int64_t count, void *codes, float *scales) {
    gatun_matrix m = {.n = count / COLUMNS,
                      .k = COLUMNS,
                      .encoding = k->encoding,
                      .codes = codes,
                      .codes_size = 2 * count,
                      .arithmetic = GATUN_F32,
                      .result = GATUN_F32};
    if (!is_block(k)) {
        m.global_scale = 1;
        m.offset_sign = 1;
        m.scale_type = GATUN_F32;
        m.scales = scales;
        m.block_rows = 1;
        m.block_cols = k->group;
        m.scale_row_stride = COLUMNS / k->group;
        m.scale_col_stride = 1;
        m.scales_size = count / k->group * 4;
    }
    return m;
}

static void expect_ok(gatun_status status) {
    if (status != GATUN_OK) {
        fprintf(stderr, "%s: %s\n", gatun_status_string(status), gatun_last_error());
        exit(1);
    }
}

typedef struct rates {
    double ours, peer, copy, plain_copy; /* GB a second */
    const char *kernel;
} rates;

/* Rounds by turns; everything but the copies moves `bytes`. */
static rates measure(const data *d, const kind *k, const gatun_matrix *m, bool quantize, peer_job *peer) {
    rates r = {.kernel = ""};
    const double bytes = (double)d->count * (4 + k->bytes), start = now_seconds();
    const gatun_quantize_rule rule = {.arithmetic = GATUN_F32,
                                      .divisor = k->divisor,
                                      .code_min = k->code_min,
                                      .code_max = k->code_max,
                                      .reciprocal = 1,
                                      .zero_code = -1};
    for (int round = 0; round < 3 || (round < 2000 && now_seconds() - start < 0.8); round++) {
        double rate = gatun_probe_copy(d->other, d->numbers, 4 * d->count, 1, d->threads, 1);
        r.copy = rate > r.copy ? rate : r.copy;
        rate = round < 3 ? gatun_probe_copy(d->other, d->numbers, 4 * d->count, 0, d->threads, 1) : 0;
        r.plain_copy = rate > r.plain_copy ? rate : r.plain_copy;
        double before = now_seconds();
        if (quantize) {
            expect_ok(gatun_quantize(m, &rule, d->numbers, GATUN_F32, COLUMNS, GATUN_ISA_BEST, d->threads));
        } else {
            expect_ok(gatun_dequantize(m, 0, m->n, d->other, GATUN_F32, COLUMNS, GATUN_ISA_BEST, d->threads));
        }
        rate = bytes / (now_seconds() - before) * 1e-9;
        r.ours = rate > r.ours ? rate : r.ours;
        gatun_kernel kernel;
        expect_ok(gatun_kernel_at(gatun_last_kernel(), &kernel));
        r.kernel = kernel.name;
        if (peer != NULL && (round < 3 || r.peer > 1)) {
            double seconds = best_round(peer_part, peer, d->threads, 1);
            rate = seconds > 0 ? bytes / seconds * 1e-9 : 0;
            r.peer = rate > r.peer ? rate : r.peer;
        }
        if (now_seconds() - start > 4) {
            break; /* a search of K-quants */
        }
    }
    return r;
}

static void print(const kind *k, const char *what, const rates *r) {
    printf("| %s | %s | %s | %.1f | %.1f | %.0f %% | %.0f %% |", k->name, what, r->kernel, r->ours,
           r->ours * 4 / (4 + k->bytes), 100 * r->ours / r->copy, 100 * r->ours / r->plain_copy);
    if (r->peer > 0) {
        printf(" %.1f | %.2f |\n", r->peer * 4 / (4 + k->bytes), r->ours / r->peer);
    } else {
        printf(" – | – |\n");
    }
    fflush(stdout);
}

static void run(const data *d, const kind *k) {
    uint8_t *codes = memory(2 * d->count); /* more than any encoding needs */
    float *scales = memory(d->count + 4096);
    gatun_matrix m = matrix_of(k, d->count, codes, scales);
    peer_job peer = {.numbers = d->numbers, .codes = codes, .count = d->count, .bytes = k->bytes};
    peer.quantize = is_block(k) ? (ggml_quantize *)peer_function("quantize_row_", k->name, "") : NULL;
    if (k->ours) {
        rates r = measure(d, k, &m, true, peer.quantize != NULL ? &peer : NULL);
        print(k, "quantize", &r);
    } else {
        memset(codes, 0x35, (size_t)(2 * d->count)); /* whatever it means, it takes as long */
    }
    peer.quantize = NULL;
    peer.numbers = d->other;
    peer.dequantize = is_block(k) ? (ggml_dequantize *)peer_function("dequantize_row_", k->name, "") : NULL;
    rates r = measure(d, k, &m, false, peer.dequantize != NULL ? &peer : NULL);
    print(k, "dequantize", &r);
    gatun_probe_free(codes);
    gatun_probe_free(scales);
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
    data d = {.threads = count > 1 ? atoi(arguments[1]) : 2, .count = (count > 2 ? atoll(arguments[2]) : 512) << 18};
    if (d.threads < 1 || d.threads > 1024 || d.count < 1 << 18) {
        fprintf(stderr, "usage: %s [threads] [MiB] [encodings] [libggml-base.so [libggml-cpu.so]]\n", arguments[0]);
        return 2;
    }
    for (int i = 4; i < count && i < 6; i++) {
        libraries[i - 4] = dlopen(arguments[i], RTLD_NOW | RTLD_GLOBAL);
        if (libraries[i - 4] == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    }
    expect_ok(gatun_threads_set(d.threads, 200));
    d.numbers = memory(4 * d.count);
    d.other = memory(4 * d.count);
    uint32_t state = 1;
    for (int64_t i = 0; i < d.count; i++) {
        float v = 0;
        for (int j = 0; j < 2; j++) {
            state = state * 1664525u + 1013904223u;
            v += (float)(int32_t)state * 0x1p-33f;
        }
        uint32_t bits;
        memcpy(&bits, &v, 4);
        bits &= 0xFFFF0000;
        memcpy(d.numbers + i, &bits, 4);
    }
    printf("%d threads, %lld MiB of floats\n\n", d.threads, (long long)(d.count >> 18));
    printf("| encoding | operation | kernel | GB/s moved | GB/s of floats | of a streaming copy | of memcpy "
           "| ggml, GB/s of floats | times ggml |\n|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < KINDS_COUNT; i++) {
        if (is_chosen(count > 3 ? arguments[3] : "", KINDS[i].name)) {
            run(&d, &KINDS[i]);
        }
    }
    return 0;
}
