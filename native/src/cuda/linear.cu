/*
 * The operation `linear`, its choice of kernel, and the kernel table.
 */
#include <cstdio>

#include "linear.cuh"

namespace gatun {

/* Rows of x from which a dense product of dequantized weights is faster than the tiles. */
enum { DENSE_ROWS = 128 };

static bool has_tiles(const gatun_cuda_packed &p) {
    return p.form == GATUN_CUDA_FORM_CODES4 || p.form == GATUN_CUDA_FORM_CODES8;
}

/* ---- the table ---- */

struct Row {
    int32_t operation, compute;
    const char *operation_name, *compute_name;
};
static const Row rows[] = {
    {GATUN_OP_QUANTIZE, 0, "quantize", ""},
    {GATUN_OP_DEQUANTIZE, 0, "dequantize", ""},
    {GATUN_OP_EMBEDDING, 0, "embedding", ""},
    {GATUN_OP_PACK, 0, "pack", ""},
    {GATUN_OP_UNPACK, 0, "unpack", ""},
    {GATUN_OP_LINEAR, GATUN_COMPUTE_F32, "linear", "_f32"},
    {GATUN_OP_LINEAR, GATUN_COMPUTE_BF16, "linear", "_bf16"},
    {GATUN_OP_CONVERT, 0, "convert", ""},
};
struct Column {
    int32_t encoding;
    const char *name;
};
static const Column columns[] = {
    {GATUN_F32, "f32"},
    {GATUN_F16, "f16"},
    {GATUN_BF16, "bf16"},
    {GATUN_F8_E4M3, "f8_e4m3"},
    {GATUN_F8_E5M2, "f8_e5m2"},
    {GATUN_F8_E4M3FNUZ, "f8_e4m3fnuz"},
    {GATUN_F8_E5M2FNUZ, "f8_e5m2fnuz"},
    {GATUN_F8_E8M0, "f8_e8m0"},
    {GATUN_I8, "i8"},
    {GATUN_U8, "u8"},
    {GATUN_U1, "u1"},
    {GATUN_U2, "u2"},
    {GATUN_U3, "u3"},
    {GATUN_U5, "u5"},
    {GATUN_U6, "u6"},
    {GATUN_U7, "u7"},
    {GATUN_I2, "i2"},
    {GATUN_I4, "i4"},
    {GATUN_U4, "u4"},
    {GATUN_NF4, "nf4"},
    {GATUN_FP4, "fp4"},
    {GATUN_F4_E2M1, "f4_e2m1"},
    {GATUN_Q4_0, "q4_0"},
    {GATUN_Q4_1, "q4_1"},
    {GATUN_Q5_0, "q5_0"},
    {GATUN_Q5_1, "q5_1"},
    {GATUN_Q8_0, "q8_0"},
    {GATUN_Q8_1, "q8_1"},
    {GATUN_Q2_K, "q2_k"},
    {GATUN_Q3_K, "q3_k"},
    {GATUN_Q4_K, "q4_k"},
    {GATUN_Q5_K, "q5_k"},
    {GATUN_Q6_K, "q6_k"},
    {GATUN_Q8_K, "q8_k"},
    {GATUN_IQ4_NL, "iq4_nl"},
    {GATUN_IQ4_XS, "iq4_xs"},
    {GATUN_TQ1_0, "tq1_0"},
    {GATUN_TQ2_0, "tq2_0"},
    {GATUN_MXFP4, "mxfp4"},
    {GATUN_NVFP4, "nvfp4"},
    {GATUN_Q1_0, "q1_0"},
    {GATUN_Q2_0, "q2_0"},
};
enum { ROWS = sizeof rows / sizeof rows[0], COLUMNS = sizeof columns / sizeof columns[0] };

static bool exists(const Row &row, int32_t encoding) {
    bool fp8 = encoding >= GATUN_F8_E4M3 && encoding <= GATUN_F8_E8M0;
    int bits = code_bits(encoding);
    switch (row.operation) {
    case GATUN_OP_CONVERT:
        return is_plain(encoding) || fp8;
    case GATUN_OP_QUANTIZE:
        return bits == 4 || bits == 8;
    default:
        return encoding != GATUN_F8_E8M0;
    }
}

struct Table {
    gatun_cuda_kernel kernels[ROWS * COLUMNS];
    char names[ROWS * COLUMNS][48];
    int count = 0;

    Table() {
        for (const Row &row : rows)
            for (const Column &column : columns) {
                if (!exists(row, column.encoding))
                    continue;
                snprintf(names[count], sizeof names[count], "%s%s_%s__sm80", row.operation_name, row.compute_name,
                         column.name);
                kernels[count] = {row.operation, row.compute, column.encoding, 80, names[count]};
                count++;
            }
    }
    int find(int32_t operation, int32_t compute, int32_t encoding) const {
        for (int i = 0; i < count; i++)
            if (kernels[i].operation == operation && kernels[i].compute == compute && kernels[i].encoding == encoding)
                return i;
        return -1;
    }
};

static const Table &table() {
    static const Table made;
    return made;
}

static thread_local int32_t last_kernel = -1;

/* ---- linear ---- */

/* The dense product stores y itself, so it serves calls without an epilogue. */
static bool takes_dense(const gatun_cuda_packed &p, int64_t m, int64_t k, const Epilogue &e) {
    return m >= DENSE_ROWS && !e.bias && e.activation == GATUN_ACTIVATION_NONE && e.combine == GATUN_COMBINE_NONE &&
           k % 8 == 0 && p.matrix.n % 8 == 0 && gatun_cuda_blas_check() == GATUN_OK;
}

static TileLinear tiles_of(const gatun_cuda_packed &packed, const XRows &x, int64_t m, const Epilogue &epilogue) {
    const uint8_t *block = (const uint8_t *)(uintptr_t)packed.block;
    auto part = [&](int64_t offset) { return offset ? (const float *)(block + offset) : nullptr; };
    uint64_t steps_per_group = (uint64_t)packed.group / GATUN_CUDA_STEP_K;
    TileLinear p = {};
    p.codes = (const uint4 *)(block + packed.codes_offset);
    p.scales = block + packed.scales_offset;
    p.zeros = part(packed.zeros_offset);
    p.offsets = part(packed.offsets_offset);
    p.table = (const float *)(block + packed.table_offset);
    p.rows = x;
    p.n = packed.matrix.n;
    p.k = packed.matrix.k;
    p.m = m;
    p.tiles = packed.tiles;
    p.steps = packed.steps;
    p.group = packed.group;
    p.groups = packed.groups;
    p.steps_per_group_inverse = steps_per_group > 1 ? (uint32_t)((1ULL << 32) / steps_per_group + 1) : 0;
    p.scale_type = packed.scale_type;
    p.epilogue = epilogue;
    return p;
}

} // namespace gatun

using namespace gatun;

gatun_status gatun_cuda_launched(int32_t operation, int32_t compute, int32_t encoding, const char *what) {
    GATUN_CUDA_TRY(gatun_cuda_status(cudaGetLastError(), what));
    last_kernel = table().find(operation, compute, encoding);
    return GATUN_OK;
}

extern "C" {

int32_t gatun_cuda_kernel_count(void) { return table().count; }

gatun_status gatun_cuda_kernel_at(int32_t index, gatun_cuda_kernel *out) {
    if (!out || index < 0 || index >= table().count)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "kernel: found index %d, expected 0 to %d", index,
                               table().count - 1);
    *out = table().kernels[index];
    return GATUN_OK;
}

int32_t gatun_cuda_last_kernel(void) { return last_kernel; }

gatun_status gatun_cuda_linear_workspace(const gatun_cuda_packed *packed, int64_t m, int32_t compute, int64_t *size) {
    if (!packed || !size || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or %lld rows", (long long)m);
    *size = 0;
    if (compute != GATUN_COMPUTE_BF16)
        return GATUN_OK;
    int64_t tiles = has_tiles(*packed) ? tile_x_bytes(m, packed->steps) : 0;
    int64_t dense = m >= DENSE_ROWS && gatun_cuda_blas_check() == GATUN_OK ? dense_bytes(*packed, m) : 0;
    *size = tiles > dense ? tiles : dense;
    return GATUN_OK;
}

gatun_status gatun_cuda_linear(int32_t device, const gatun_cuda_packed *packed, gatun_cuda_ptr x, int32_t x_type,
                               int64_t ldx, int64_t m, gatun_cuda_ptr y, int32_t y_type, int64_t ldy,
                               gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier, int32_t activation, int32_t combine,
                               gatun_cuda_ptr other, int64_t ld_other, int32_t compute, gatun_cuda_ptr workspace,
                               int64_t workspace_size, gatun_cuda_stream stream) {
    if (!packed || !packed->block || !x || !y)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer");
    int64_t n = packed->matrix.n, k = packed->matrix.k;
    if (!is_plain(x_type) || !is_plain(y_type) || m < 1 || ldx < k || ldy < n ||
        (combine != GATUN_COMBINE_NONE && (!other || ld_other < n)))
        return gatun_cuda_fail(
            GATUN_INVALID_ARGUMENT,
            "linear: found x of type %d with rows %lld apart, y of type %d with rows %lld apart, %lld rows", x_type,
            (long long)ldx, y_type, (long long)ldy, (long long)m);
    if (compute != GATUN_COMPUTE_F32 && compute != GATUN_COMPUTE_BF16)
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: no kernel with compute type %d", compute);
    int64_t needed = 0;
    GATUN_CUDA_TRY(gatun_cuda_linear_workspace(packed, m, compute, &needed));
    if (workspace_size < needed || (needed > 0 && (!workspace || workspace % GATUN_CUDA_ALIGNMENT)))
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "linear: found a workspace of %lld bytes, expected %lld, aligned to 256",
                               (long long)workspace_size, (long long)needed);
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (n == 0)
        return GATUN_OK;
    cudaStream_t raw = gatun_cuda_raw(stream);
    XRows rows_of_x = {(const void *)(uintptr_t)x, x_type, ldx, (const float *)(uintptr_t)x_multiplier};
    Epilogue epilogue = {
        (void *)(uintptr_t)y, ldy,    (const float *)(uintptr_t)bias, (const void *)(uintptr_t)other, ld_other, y_type,
        activation,           combine};
    uint8_t *scratch = (uint8_t *)(uintptr_t)workspace;
    bool tiles = has_tiles(*packed);
    TileLinear tiled = {};
    if (tiles)
        tiled = tiles_of(*packed, rows_of_x, m, epilogue);
    if (compute == GATUN_COMPUTE_BF16 && k > 0 && takes_dense(*packed, m, k, epilogue)) {
        GATUN_CUDA_TRY(linear_dense(device, *packed, tiles ? &tiled : nullptr, rows_of_x, m, epilogue, scratch, raw));
    } else if (compute == GATUN_COMPUTE_BF16 && tiles) {
        int multiprocessors = 0;
        GATUN_CUDA_TRY(gatun_cuda_status(
            cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "linear"));
        int bits = packed->form == GATUN_CUDA_FORM_CODES4 ? 4 : 8;
        GATUN_CUDA_TRY(launch_linear_tiles(tiled, bits, (uint32_t *)scratch, multiprocessors, raw));
    } else {
        int32_t operands = compute == GATUN_COMPUTE_BF16 ? GATUN_BF16 : GATUN_F32;
        GATUN_CUDA_TRY(launch_linear_f32(*packed, rows_of_x, m, operands, epilogue, raw));
    }
    return gatun_cuda_launched(GATUN_OP_LINEAR, compute, packed->matrix.encoding, "linear");
}

} // extern "C"
