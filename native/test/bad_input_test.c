/* What is refused, with which status: matrices that do not hold together, packed blocks with a changed header, and
 * names of instruction sets that there are not. Nothing may be read out of bounds on the way. */
#include <stdlib.h>

#include "matrices.h"

static void refuse(const gatun_matrix *m, gatun_status expected, const char *what) {
    gatun_status status = gatun_matrix_check(m, false);
    CHECK(status == expected, "%s: %s (%s)", what, gatun_status_string(status), gatun_last_error());
    CHECK(status == GATUN_OK || gatun_last_error()[0] != 0, "%s: no message", what);
    float out[64 * 64];
    CHECK(gatun_dequantize(m, 0, m->n < 0 ? 0 : m->n, out, GATUN_F32, m->k < 0 ? 0 : m->k, GATUN_ISA_BEST, 1) !=
              GATUN_OK,
          "%s was dequantized", what);
    int64_t size = -1;
    gatun_packed_size(m, &size); /* must not crash */
    gatun_pack(m, out, sizeof out, 1);
}

#define REFUSE(status, change)                                                                                         \
    do {                                                                                                               \
        gatun_matrix bad = m;                                                                                          \
        bad.change;                                                                                                    \
        refuse(&bad, status, #change);                                                                                 \
    } while (0)

static void bad_matrices(void) {
    random_state r = {11};
    gatun_matrix m;
    CHECK(random_matrix(&r, GATUN_U4, 0, 33, 64, PER_GROUP, 32, WITH_ZEROS | WITH_OFFSETS, GATUN_F16, GATUN_F32, &m),
          "u4");
    CHECK_STATUS(GATUN_OK, gatun_matrix_check(&m, true));
    REFUSE(GATUN_INVALID_ARGUMENT, n = -1);
    REFUSE(GATUN_INVALID_ARGUMENT, k = -1);
    REFUSE(GATUN_INVALID_ARGUMENT, n = INT64_MAX / 32);
    REFUSE(GATUN_INVALID_ARGUMENT, k = INT64_MAX);
    REFUSE(GATUN_UNSUPPORTED, encoding = 7);
    REFUSE(GATUN_UNSUPPORTED, encoding = GATUN_F8_E8M0);
    REFUSE(GATUN_INVALID_ARGUMENT, code_order = 8);
    REFUSE(GATUN_INVALID_ARGUMENT, code_order = -1);
    REFUSE(GATUN_INVALID_ARGUMENT, code_row_stride = 31);
    REFUSE(GATUN_INVALID_ARGUMENT, code_row_stride = -32);
    REFUSE(GATUN_INVALID_ARGUMENT, code_row_stride = INT64_MAX);
    REFUSE(GATUN_BUFFER_TOO_SMALL, code_row_stride = 33);
    REFUSE(GATUN_INVALID_ARGUMENT, codes = NULL);
    REFUSE(GATUN_BUFFER_TOO_SMALL, codes_size = m.codes_size - 1);
    REFUSE(GATUN_BUFFER_TOO_SMALL, scales_size = m.scales_size - 1);
    REFUSE(GATUN_INVALID_ARGUMENT, scales = NULL);
    REFUSE(GATUN_BUFFER_TOO_SMALL, zeros_size = 0);
    REFUSE(GATUN_BUFFER_TOO_SMALL, offsets_size = -1);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_type = GATUN_I8);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_type = GATUN_U8);
    REFUSE(GATUN_INVALID_ARGUMENT, zero_type = GATUN_F8_E4M3);
    REFUSE(GATUN_INVALID_ARGUMENT, offset_type = GATUN_U8);
    REFUSE(GATUN_INVALID_ARGUMENT, offset_sign = 0);
    REFUSE(GATUN_INVALID_ARGUMENT, block_rows = 0);
    REFUSE(GATUN_INVALID_ARGUMENT, block_cols = -32);
    REFUSE(GATUN_INVALID_ARGUMENT, flat_block = -1);
    REFUSE(GATUN_BUFFER_TOO_SMALL, flat_block = 1);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_row_stride = INT64_MAX);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_col_stride = -1);
    REFUSE(GATUN_BUFFER_TOO_SMALL, scale_col_stride = 2);
    REFUSE(GATUN_INVALID_ARGUMENT, arithmetic = GATUN_U4);
    REFUSE(GATUN_INVALID_ARGUMENT, result = GATUN_NONE);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_order = 3);
    REFUSE(GATUN_INVALID_ARGUMENT, rotation = 2);
    REFUSE(GATUN_INVALID_ARGUMENT, rotation = 256);
    REFUSE(GATUN_INVALID_ARGUMENT, codebook_size = 64);
    REFUSE(GATUN_INVALID_ARGUMENT, row_scales_size = 8);
    REFUSE(GATUN_INVALID_ARGUMENT, column_groups_size = 256);
    free_matrix(&m);

    CHECK(random_matrix(&r, GATUN_U4, 0, 5, 64, PER_GROUP, 32, WITH_GROUPS | WITH_CODEBOOK, GATUN_F32, GATUN_F32, &m),
          "groups");
    CHECK_STATUS(GATUN_OK, gatun_matrix_check(&m, false));
    int32_t *groups = (int32_t *)(void *)m.column_groups, kept = groups[7];
    groups[7] = -1;
    refuse(&m, GATUN_INVALID_ARGUMENT, "a negative column group");
    groups[7] = 1000;
    refuse(&m, GATUN_BUFFER_TOO_SMALL, "a column group beyond the scales");
    groups[7] = kept;
    REFUSE(GATUN_BUFFER_TOO_SMALL, column_groups_size = 255);
    REFUSE(GATUN_BUFFER_TOO_SMALL, codebook_size = 63);
    free_matrix(&m);

    CHECK(random_matrix(&r, GATUN_Q4_0, 0, 5, 64, PER_TENSOR, 0, 0, GATUN_NONE, GATUN_F32, &m), "q4_0");
    REFUSE(GATUN_INVALID_ARGUMENT, k = 65);
    REFUSE(GATUN_INVALID_ARGUMENT, scale_type = GATUN_F32);
    free_matrix(&m);
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_matrix_check(NULL, false));
}

/* Multiplies when the header still holds together after the change: it must then stay within the block. */
static void try_block(void *packed, int64_t size, const float *x, float *y) {
    if (gatun_packed_check(packed, size) != GATUN_OK) {
        return;
    }
    int64_t bytes;
    const gatun_packed *h = (const gatun_packed *)packed;
    if (h->k > 64 || h->n > 64 || gatun_linear_workspace(packed, size, 1, GATUN_COMPUTE_F32, 1, &bytes) != GATUN_OK) {
        return;
    }
    void *workspace = buffer(bytes, 0);
    gatun_linear(packed, size, x, GATUN_F32, 64, 1, y, GATUN_F32, 64, NULL, NULL, 0, 0, NULL, 0, GATUN_COMPUTE_F32,
                 GATUN_ISA_BEST, 1, workspace, bytes);
    free(workspace);
}

static void changed_headers(int32_t encoding, int32_t cut, int32_t with) {
    random_state r = {13};
    gatun_matrix m;
    CHECK(random_matrix(&r, encoding, 0, 40, 64, cut, 32, with, GATUN_F16, GATUN_F32, &m), "matrix");
    int64_t size;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    guarded block = guard(size);
    float *x = (float *)buffer(256, 0), *y = (float *)buffer(256, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, block.data, size, 1));
    for (int64_t short_size = 0; short_size < size; short_size += short_size < 1024 ? 1 : 64) {
        CHECK(gatun_packed_check(block.data, short_size) != GATUN_OK, "%lld of %lld bytes", (long long)short_size,
              (long long)size);
    }
    uint8_t *bytes = (uint8_t *)block.data;
    for (size_t at = 0; at < sizeof(gatun_packed); at++) {
        static const uint8_t flips[] = {1, 2, 8, 0x40, 0x80, 0xFF};
        for (size_t f = 0; f < sizeof flips; f++) {
            bytes[at] ^= flips[f];
            try_block(block.data, size, x, y);
            bytes[at] ^= flips[f];
        }
    }
    for (int32_t i = 0; i < 20000; i++) { /* two changes at once */
        int64_t a = random_below(&r, sizeof(gatun_packed)), b = random_below(&r, sizeof(gatun_packed));
        uint8_t old_a = bytes[a], old_b = bytes[b];
        bytes[a] = (uint8_t)random_bits(&r);
        bytes[b] = (uint8_t)random_bits(&r);
        try_block(block.data, size, x, y);
        bytes[b] = old_b;
        bytes[a] = old_a;
    }
    CHECK_STATUS(GATUN_OK, gatun_packed_check(block.data, size));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_packed_check(NULL, size));
    ((gatun_packed *)block.data)->version++;
    CHECK_STATUS(GATUN_CORRUPT, gatun_packed_check(block.data, size));
    free(x);
    free(y);
    unguard(&block);
    free_matrix(&m);
}

static void bad_linear_arguments(void) {
    random_state r = {17};
    gatun_matrix m;
    CHECK(random_matrix(&r, GATUN_I8, 0, 40, 64, PER_ROW, 0, 0, GATUN_F32, GATUN_F32, &m), "i8");
    int64_t size, bytes;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *p = buffer(size, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, p, size, 1));
    CHECK_STATUS(GATUN_OK, gatun_linear_workspace(p, size, 2, GATUN_COMPUTE_F32, 1, &bytes));
    void *w = buffer(bytes, 0);
    float *x = (float *)buffer(512, 0), *y = (float *)buffer(512, 0);
#define LINEAR(x_, xt, ldx, rows, y_, yt, ldy, act, comb, other, ldo, comp, isa_, threads, w_, bytes_)                 \
    gatun_linear(p, size, x_, xt, ldx, rows, y_, yt, ldy, NULL, NULL, act, comb, other, ldo, comp, isa_, threads, w_,  \
                 bytes_)
    const gatun_status bad = GATUN_INVALID_ARGUMENT;
    CHECK_STATUS(GATUN_OK, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(NULL, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, NULL, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 16, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 63, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, -1, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, INT64_MAX, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, INT64_MAX, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 39, 0, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 4, 0, NULL, 0, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 3, y, 64, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 1, NULL, 64, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 1, y, 63, 1, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 5, 0, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 9, 1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, -1, w, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, NULL, bytes));
    CHECK_STATUS(bad, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 0, 1, (uint8_t *)w + 8, bytes));
    CHECK_STATUS(GATUN_BUFFER_TOO_SMALL, LINEAR(x, 1, 64, 2, y, 1, 64, 0, 0, NULL, 0, 1, 1, 1, w, 64));
    free(p);
    free(w);
    free(x);
    free(y);
    free_matrix(&m);
}

static void isa_names(void) {
    int32_t isa = -1;
    CHECK(setenv("GATUN_ISA", "sse9", 1) == 0, "setenv");
    CHECK_STATUS(GATUN_NO_ISA, gatun_isa_default(&isa));
    CHECK_STATUS(GATUN_NO_ISA, gatun_isa_check(GATUN_ISA_BEST));
    CHECK(strstr(gatun_last_error(), "sse9") != NULL, "%s", gatun_last_error());
    CHECK(gatun_kernel_find(GATUN_OP_CONVERT, 0, GATUN_F32, GATUN_ISA_BEST) == -1, "a kernel for sse9");
    for (int32_t i = GATUN_ISA_SCALAR; i <= GATUN_ISA_NEON; i++) {
        setenv("GATUN_ISA", gatun_isa_name(i), 1);
        gatun_status status = gatun_isa_check(i);
        CHECK_STATUS(status, gatun_isa_default(&isa));
        CHECK(status == GATUN_OK || status == GATUN_NO_ISA, "%s", gatun_status_string(status));
        CHECK(isa == i, "%s became %d", gatun_isa_name(i), isa);
        float one = 1, two = 0;
        CHECK_STATUS(status, gatun_convert(&one, GATUN_F32, &two, GATUN_F32, 1, 0, GATUN_ISA_BEST, 1));
    }
    unsetenv("GATUN_ISA");
    CHECK_STATUS(GATUN_OK, gatun_isa_default(&isa));
    CHECK_STATUS(GATUN_OK, gatun_isa_check(isa));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_isa_check(99));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_isa_default(NULL));
    CHECK(gatun_isa_check(GATUN_ISA_AVX2) != GATUN_OK || gatun_isa_check(GATUN_ISA_NEON) != GATUN_OK, "both");
}

static void table_is_sound(void) {
    CHECK(gatun_kernel_count() > 100, "%d kernels", gatun_kernel_count());
    for (int32_t i = 0; i < gatun_kernel_count(); i++) {
        gatun_kernel k;
        char end[32];
        CHECK_STATUS(GATUN_OK, gatun_kernel_at(i, &k));
        snprintf(end, sizeof end, "%s__%s", gatun_encoding_name(k.encoding), gatun_isa_name(k.isa));
        size_t name = strlen(k.name), tail = strlen(end);
        CHECK(name > tail && strcmp(k.name + name - tail, end) == 0, "%s does not end in %s", k.name, end);
        CHECK((k.operation == GATUN_OP_LINEAR) == (k.compute != 0), "%s has compute %d", k.name, k.compute);
    }
    gatun_kernel k;
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_kernel_at(gatun_kernel_count(), &k));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT, gatun_kernel_at(-1, &k));
    CHECK(gatun_kernel_find(GATUN_OP_LINEAR, GATUN_COMPUTE_F32, 9999, GATUN_ISA_SCALAR) == -1, "9999");
}

int main(void) {
    bad_matrices();
    changed_headers(GATUN_NF4, FLAT, WITH_NESTED);
    changed_headers(GATUN_I8, PER_ROW, WITH_ZEROS);
    changed_headers(GATUN_U4, PER_GROUP, WITH_GROUPS);
    changed_headers(GATUN_F32, PER_ROW, 0);
    bad_linear_arguments();
    isa_names();
    table_is_sound();
    return finish();
}
