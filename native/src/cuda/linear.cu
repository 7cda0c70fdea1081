/*
 * The operation `linear`, its choice of kernel, and the kernel table.
 */
#include <cstdio>

#include "linear.cuh"

namespace gatun {

/* Rows of x from which a dense product of dequantized weights is faster than the tiles; without tiles it always is. */
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
    {GATUN_OP_LINEAR, GATUN_COMPUTE_I8, "linear", "_i8"},
    {GATUN_OP_LINEAR, GATUN_COMPUTE_F8, "linear", "_f8"},
    {GATUN_OP_LINEAR, GATUN_COMPUTE_F8_BLOCK, "linear", "_f8_block"},
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
    case GATUN_OP_LINEAR:
        if (row.compute != GATUN_COMPUTE_F32 && row.compute != GATUN_COMPUTE_BF16)
            return codes_multiply(row.compute, encoding);
        return encoding != GATUN_F8_E8M0;
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

/* The dense product stores y itself, so it serves calls without an epilogue; of bfloat16 it makes no binary16. */
static bool takes_dense(const gatun_cuda_packed &p, int64_t m, const Epilogue &e, const DeviceTraits &traits) {
    bool fused = traits.hopper && p.form == GATUN_CUDA_FORM_CODES4;
    return !fused && (m >= DENSE_ROWS || !has_tiles(p)) && !e.bias && e.activation == GATUN_ACTIVATION_NONE &&
           e.combine == GATUN_COMBINE_NONE && e.y_type != GATUN_F16 && e.ldy % 8 == 0 && (uintptr_t)e.y % 16 == 0 &&
           p.matrix.k % 8 == 0 && p.matrix.n % 8 == 0 && gatun_cuda_blas_check() == GATUN_OK;
}

TileLinear tiles_of(const gatun_cuda_packed &packed, const XRows &x, int64_t m, const Epilogue &epilogue) {
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
    p.steps_per_group_inverse = (uint32_t)((1ULL << 31) / (steps_per_group > 1 ? steps_per_group : 1) + 1);
    p.groups_per_step = packed.group % GATUN_CUDA_STEP_K == 0 ? 1 : GATUN_CUDA_STEP_K / (int)packed.group;
    p.scale_type = packed.scale_type;
    p.epilogue = epilogue;
    return p;
}

Epilogue epilogue_of(gatun_cuda_ptr y, int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, int32_t activation,
                     int32_t combine, gatun_cuda_ptr other, int64_t ld_other) {
    Epilogue e = {};
    e.y = (void *)(uintptr_t)y;
    e.ldy = ldy;
    e.y_type = y_type;
    e.bias = (const float *)(uintptr_t)bias;
    e.activation = activation;
    e.combine = combine;
    e.other = (const void *)(uintptr_t)other;
    e.ld_other = ld_other;
    return e;
}

/* What calls with x of any kind have in common. */
static gatun_status check(int32_t device, const gatun_cuda_packed &p, int64_t m, const Epilogue &e, int32_t compute,
                          gatun_cuda_ptr workspace, int64_t workspace_size) {
    int64_t n = p.matrix.n;
    if (!e.y || !is_plain(e.y_type) || m < 1 || e.ldy < n ||
        (e.combine != GATUN_COMBINE_NONE && (!e.other || e.ld_other < n)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found %lld rows, y of type %d with rows %lld apart",
                               (long long)m, e.y_type, (long long)e.ldy);
    auto address = [](const void *p) { return (gatun_cuda_ptr)(uintptr_t)p; };
    GATUN_CUDA_TRY(gatun_cuda_check_aligned(
        "linear",
        {{"y", address(e.y), e.y_type}, {"bias", address(e.bias), GATUN_F32}, {"other", address(e.other), e.y_type}}));
    int64_t needed = 0;
    GATUN_CUDA_TRY(gatun_cuda_linear_workspace(&p, m, compute, &needed));
    if (workspace_size < needed || (needed > 0 && (!workspace || workspace % GATUN_CUDA_ALIGNMENT)))
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "linear: found a workspace of %lld bytes, expected %lld, aligned to 256",
                               (long long)workspace_size, (long long)needed);
    return gatun_cuda_use(device);
}

/* In the order of Way. */
static const char *const ways[] = {
    "general: decodes each element of the weight by its definition, for every encoding",
    "narrow: up to 16 rows of x, for which reading the weight is what costs; sums are scaled",
    "wide: 64 rows of x at a time, by weights that are decoded and scaled on the way to the tensor cores",
    "hopper_narrow: one or two rows of x by 4-bit codes that the copy engine streams through shared memory",
    "hopper_held: three to 16 rows of x, which warps hold in registers, by 4-bit codes that the copy engine streams"
    " through shared memory",
    "hopper_few: up to 64 rows of x by 4-bit codes, K halved between two blocks of a cluster, so that every"
    " multiprocessor reads the weight",
    "hopper_fused: up to 64 rows of x by 4-bit codes that are decoded on the way to warpgroup products",
    "hopper_wide: many rows of x by 4-bit codes that are decoded on the way to warpgroup products, in tiles that all"
    " multiprocessors share",
    "dense: the weight is dequantized once and multiplied by cuBLASLt, which serves many rows of x, or any where the "
    "weight has no tiles; without an epilogue",
    "cuBLASLt: e4m3 codes with scales of rows, many rows of x without an epilogue",
    "hopper_codes: bytes by bytes on Hopper's tensor cores, scaled as the sums are stored",
    "widened: codes of x and of the weight as bfloat16, 16 rows of x at a time",
    "general: codes of x by each element of the weight in floats",
};

static Way way_of(const gatun_cuda_packed &packed, const TileLinear &tiled, int32_t compute,
                  const DeviceTraits &traits) {
    if (takes_codes(packed, compute))
        return codes_way(packed, tiled, compute, traits);
    if (compute == GATUN_COMPUTE_BF16 && packed.matrix.k > 0 && takes_dense(packed, tiled.m, tiled.epilogue, traits))
        return Way::DENSE;
    if (compute == GATUN_COMPUTE_BF16 && has_tiles(packed))
        return tiles_way(tiled, packed.form == GATUN_CUDA_FORM_CODES4 ? 4 : 8, traits);
    return Way::GENERAL;
}

static gatun_status run(int32_t device, const gatun_cuda_packed &packed, const XRows &x, const GivenX *given, int64_t m,
                        const Epilogue &epilogue, int32_t compute, uint8_t *scratch, cudaStream_t stream) {
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    const TileLinear tiled = tiles_of(packed, x, m, epilogue);
    switch (way_of(packed, tiled, compute, traits)) {
    case Way::CODES_DENSE:
    case Way::HOPPER_CODES:
    case Way::CODES_WIDENED:
    case Way::CODES_GENERAL:
        return linear_codes(device, packed, tiled, given, compute, scratch, stream);
    case Way::DENSE:
        return linear_dense(device, packed, has_tiles(packed) ? &tiled : nullptr, x, m, epilogue, scratch, stream);
    case Way::GENERAL:
        return launch_linear_f32(packed, x, m, compute == GATUN_COMPUTE_BF16 ? GATUN_BF16 : GATUN_F32, epilogue,
                                 stream);
    default:
        return launch_linear_tiles(tiled, packed.form == GATUN_CUDA_FORM_CODES4 ? 4 : 8, (uint32_t *)scratch, device,
                                   stream);
    }
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

gatun_status gatun_cuda_linear_way(const gatun_matrix *matrix, int32_t device, int64_t m, int32_t compute,
                                   int32_t plain, const char **way) {
    if (!way || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or %lld rows", (long long)m);
    GATUN_CUDA_TRY(gatun_cuda_matrix_check(matrix, false));
    gatun_cuda_packed packed;
    plan_packed(*matrix, &packed);
    if (compute != GATUN_COMPUTE_F32 && compute != GATUN_COMPUTE_BF16 && !takes_codes(packed, compute))
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: no kernel with compute type %d for encoding %d", compute,
                               matrix->encoding);
    DeviceTraits traits = {132, 227 << 10, GATUN_CUDA_HOPPER != 0}; /* an H100's */
    if (device >= 0)
        GATUN_CUDA_TRY(device_traits(device, &traits));
    Epilogue epilogue = {};
    epilogue.activation = plain ? GATUN_ACTIVATION_NONE : GATUN_ACTIVATION_SILU;
    epilogue.ldy = matrix->n;
    *way = ways[(int)way_of(packed, tiles_of(packed, {}, m, epilogue), compute, traits)];
    return GATUN_OK;
}

gatun_status gatun_cuda_linear_workspace(const gatun_cuda_packed *packed, int64_t m, int32_t compute, int64_t *size) {
    if (!packed || !size || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or %lld rows", (long long)m);
    *size = 0;
    if (takes_codes(*packed, compute))
        *size = codes_bytes(*packed, m);
    if (compute != GATUN_COMPUTE_BF16)
        return GATUN_OK;
    int64_t tiles = has_tiles(*packed) ? tile_x_bytes(m, packed->steps) : 0;
    if (packed->form == GATUN_CUDA_FORM_CODES4 && m > 64)
        tiles += GATUN_CUDA_SHARE_BYTES;
    const bool many = m >= DENSE_ROWS || !has_tiles(*packed);
    int64_t dense = many && gatun_cuda_blas_check() == GATUN_OK ? dense_bytes(*packed, m) : 0;
    *size = tiles > dense ? tiles : dense;
    return GATUN_OK;
}

gatun_status gatun_cuda_linear(int32_t device, const gatun_cuda_packed *packed, gatun_cuda_ptr x, int32_t x_type,
                               int64_t ldx, int64_t m, gatun_cuda_ptr y, int32_t y_type, int64_t ldy,
                               gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier, int32_t activation, int32_t combine,
                               gatun_cuda_ptr other, int64_t ld_other, int32_t compute, gatun_cuda_ptr workspace,
                               int64_t workspace_size, gatun_cuda_stream stream) {
    if (!packed || !packed->block || !x || !is_plain(x_type) || ldx < packed->matrix.k)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or x of type %d, rows %lld apart",
                               x_type, (long long)ldx);
    if (compute != GATUN_COMPUTE_F32 && compute != GATUN_COMPUTE_BF16 && !takes_codes(*packed, compute))
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "linear: no kernel with compute type %d for encoding %d", compute,
                               packed->matrix.encoding);
    Epilogue epilogue = epilogue_of(y, y_type, ldy, bias, activation, combine, other, ld_other);
    GATUN_CUDA_TRY(check(device, *packed, m, epilogue, compute, workspace, workspace_size));
    GATUN_CUDA_TRY(gatun_cuda_check_aligned("linear", {{"x", x, x_type}, {"x_multiplier", x_multiplier, GATUN_F32}}));
    if (packed->matrix.n == 0)
        return GATUN_OK;
    XRows rows_of_x = {(const void *)(uintptr_t)x, x_type, ldx, (const float *)(uintptr_t)x_multiplier};
    GATUN_CUDA_TRY(run(device, *packed, rows_of_x, nullptr, m, epilogue, compute, (uint8_t *)(uintptr_t)workspace,
                       gatun_cuda_raw(stream)));
    return gatun_cuda_launched(GATUN_OP_LINEAR, compute, packed->matrix.encoding, "linear");
}

gatun_status gatun_cuda_linear_codes(int32_t device, const gatun_cuda_packed *packed, gatun_cuda_ptr x, int32_t x_type,
                                     int64_t ldx, int64_t m, gatun_cuda_ptr x_scales, int64_t scale_row_stride,
                                     int64_t scale_col_stride, gatun_cuda_ptr y, int32_t y_type, int64_t ldy,
                                     gatun_cuda_ptr bias, int32_t activation, int32_t combine, gatun_cuda_ptr other,
                                     int64_t ld_other, int32_t compute, gatun_cuda_ptr workspace,
                                     int64_t workspace_size, gatun_cuda_stream stream) {
    if (!packed || !packed->block || !x || !x_scales || ldx < packed->matrix.k)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or rows of x %lld apart",
                               (long long)ldx);
    const bool blocks = compute == GATUN_COMPUTE_F8_BLOCK;
    if (!takes_codes(*packed, compute) || x_type != (compute == GATUN_COMPUTE_I8 ? GATUN_I8 : GATUN_F8_E4M3))
        return gatun_cuda_fail(GATUN_UNSUPPORTED,
                               "linear: no kernel with compute type %d for encoding %d and x of type %d", compute,
                               packed->matrix.encoding, x_type);
    if (scale_row_stride < 0 || scale_col_stride < 0 || (!blocks && scale_col_stride != 0))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found scales of x %lld and %lld apart",
                               (long long)scale_row_stride, (long long)scale_col_stride);
    Epilogue epilogue = epilogue_of(y, y_type, ldy, bias, activation, combine, other, ld_other);
    GATUN_CUDA_TRY(check(device, *packed, m, epilogue, compute, workspace, workspace_size));
    GATUN_CUDA_TRY(gatun_cuda_check_aligned("linear", {{"scales of x", x_scales, GATUN_F32}}));
    if (packed->matrix.n == 0)
        return GATUN_OK;
    GivenX given = {(const void *)(uintptr_t)x,
                    x_type,
                    ldx,
                    (const float *)(uintptr_t)x_scales,
                    blocks ? (int64_t)GATUN_CUDA_BLOCK_K : 0,
                    scale_row_stride,
                    scale_col_stride};
    GATUN_CUDA_TRY(run(device, *packed, {}, &given, m, epilogue, compute, (uint8_t *)(uintptr_t)workspace,
                       gatun_cuda_raw(stream)));
    return gatun_cuda_launched(GATUN_OP_LINEAR, compute, packed->matrix.encoding, "linear");
}

} // extern "C"
