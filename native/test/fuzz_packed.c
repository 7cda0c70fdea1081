/*
 * libFuzzer target: any bytes as a packed block, and any bytes as a matrix's description. What passes the checks must
 * be usable without a step out of bounds. Built with clang and -DGATUN_FUZZ=ON.
 */
#include "check.h"
#include "gatun_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_packed(const uint8_t *data, int64_t size) {
    void *packed = buffer(size, 0);
    memcpy(packed, data, (size_t)size);
    int64_t bytes;
    if (gatun_packed_check(packed, size) == GATUN_OK &&
        gatun_linear_workspace(packed, size, 1, GATUN_COMPUTE_F32, 1, &bytes) == GATUN_OK && bytes < 1 << 24) {
        const gatun_packed *h = (const gatun_packed *)packed;
        void *workspace = buffer(bytes, 0);
        float *x = (float *)buffer(4 * h->k, 0), *y = (float *)buffer(4 * h->n, 0);
        gatun_linear(packed, size, x, GATUN_F32, h->k, 1, y, GATUN_F32, h->n, NULL, NULL, 0, 0, NULL, 0,
                     GATUN_COMPUTE_F32, GATUN_ISA_BEST, 1, workspace, bytes);
        free(x);
        free(y);
        free(workspace);
    }
    free(packed);
}

/* The pointers of the description are replaced by buffers of the sizes that it names. */
static void try_matrix(const uint8_t *data, size_t size) {
    gatun_matrix m;
    memset(&m, 0, sizeof m);
    memcpy(&m, data, size < sizeof m ? size : sizeof m);
    int64_t *sizes[] = {&m.codes_size,         &m.scales_size,   &m.zeros_size,         &m.offsets_size,
                        &m.nested_scales_size, &m.codebook_size, &m.column_groups_size, &m.row_scales_size};
    void *buffers[8];
    for (int32_t i = 0; i < 8; i++) {
        *sizes[i] = *sizes[i] < 0 ? 0 : *sizes[i] % 4096;
        buffers[i] = *sizes[i] == 0 ? NULL : buffer(*sizes[i], 1);
    }
    void *nested = buffer(1024, 0);
    m.codes = buffers[0];
    m.scales = buffers[1];
    m.zeros = buffers[2];
    m.offsets = buffers[3];
    m.nested_scales = (const float *)buffers[4];
    m.codebook = (const float *)buffers[5];
    m.column_groups = (const int32_t *)buffers[6];
    m.row_scales = (const float *)buffers[7];
    m.nested_codebook = m.scale_type == GATUN_U8 ? (const float *)nested : NULL;
    int64_t packed_size;
    if (gatun_matrix_check(&m, false) == GATUN_OK && m.n * m.k < 1 << 16 &&
        gatun_packed_size(&m, &packed_size) == GATUN_OK && packed_size < 1 << 22) {
        float *out = (float *)buffer(4 * m.n * m.k, 0);
        gatun_dequantize(&m, 0, m.n, out, GATUN_F32, m.k, GATUN_ISA_BEST, 1);
        void *packed = buffer(packed_size, 0);
        if (gatun_pack(&m, packed, packed_size, 1) == GATUN_OK && gatun_packed_check(packed, packed_size) != GATUN_OK) {
            __builtin_trap();
        }
        free(packed);
        free(out);
    }
    for (int32_t i = 0; i < 8; i++) {
        free(buffers[i]);
    }
    free(nested);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0 && data[0] % 2 == 0) {
        try_packed(data + 1, (int64_t)size - 1);
    } else if (size > 0) {
        try_matrix(data + 1, size - 1);
    }
    return 0;
}
