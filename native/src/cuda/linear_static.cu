/*
 * linear of calibrated layers: x is rounded with a scale that is known beforehand, as gatun_round_static does it, and y
 * is too if the layer says so.
 *
 * Codes of x that the kernels of compute types I8 and F8 take (integers; e4m3 by weights that are 8-bit floats) are
 * multiplied as codes, with the one scale for all of x; of all else the rounded numbers, as floats.
 */
#include <cuda_fp8.h>

#include "rows.cuh"

namespace gatun {

/* Code and value of a number of x_type; NaN stays NaN. */
struct Rounder {
    int32_t encoding, type;
    bool reciprocal;
    float factor, scale, low, high;

    Rounder() = default;
    /* The device finds what depends on its own roundings. */
    __device__ Rounder(const gatun_cuda_rounding &r, int32_t type)
        : encoding(r.encoding), type(type), reciprocal(r.reciprocal != 0), scale(r.scale) {
        factor = reciprocal ? round_to(type, __fdiv_rn(1.0f, scale)) : scale;
        high = encoding == GATUN_I8 ? 127.0f : fp8_max(encoding);
        low = encoding == GATUN_I8 ? -128.0f : -high;
    }
    /* Before it is encoded. */
    __device__ float quotient(float v) const {
        const float q = round_to(type, reciprocal ? __fmul_rn(v, factor) : __fdiv_rn(v, factor));
        return is_nan(q) ? q : fminf(fmaxf(q, low), high);
    }
    __device__ uint32_t code(float q) const {
        if (encoding == GATUN_F8_E4M3)
            return __nv_cvt_float_to_fp8(q, __NV_SATFINITE, __NV_E4M3);
        return encode_code(encoding, q);
    }
    __device__ float value(float v) const {
        const float q = quotient(v);
        return is_nan(q) ? q : __fmul_rn(decode_code(encoding, code(q)), scale);
    }
};

/* Eight numbers of x times the multiplier, rounded to its type. */
__device__ inline void load_rounded(const XRows &x, int64_t row, int64_t column, int64_t k, float *v) {
    load_run(x, row, column, k, v);
    if (x.multiplier)
#pragma unroll
        for (int i = 0; i < RUN; i++)
            v[i] = round_to(x.type, v[i]);
}

/* x as codes, a block of threads a row; the scale of a row with NaN is NaN. `pitch`: bytes from row to row of them. */
__global__ void __launch_bounds__(256)
    round_to_codes(XRows x, int64_t k, gatun_cuda_rounding rounding, uint8_t *codes, int64_t pitch, float *scales) {
    const Rounder round(rounding, x.type);
    const int64_t row = blockIdx.x;
    bool nan = false;
    for (int64_t column = threadIdx.x * RUN; column < pitch; column += 256 * RUN) {
        float v[RUN];
        load_rounded(x, row, column, k, v);
        uint32_t words[2] = {};
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            const float q = round.quotient(v[i]);
            nan |= is_nan(q);
            words[i / 4] |= (is_nan(q) ? 0 : round.code(q)) << 8 * (i % 4);
        }
        *(uint2 *)(codes + row * pitch + column) = make_uint2(words[0], words[1]);
    }
    nan = __syncthreads_or(nan);
    if (threadIdx.x == 0)
        scales[row] = nan ? __uint_as_float(0x7FC00000) : round.scale;
}

/* x as rounded floats without gaps. */
__global__ void __launch_bounds__(256) round_to_floats(XRows x, int64_t k, gatun_cuda_rounding rounding, float *out) {
    const Rounder round(rounding, x.type);
    const int64_t row = blockIdx.x;
    for (int64_t column = threadIdx.x * RUN; column < k; column += 256 * RUN) {
        float v[RUN];
        load_rounded(x, row, column, k, v);
        for (int i = 0; i < RUN && column + i < k; i++)
            out[row * k + column + i] = round.value(v[i]);
    }
}

/* Sums of y's type without gaps, rounded; then what the epilogue does. */
__global__ void __launch_bounds__(256)
    round_sums(const void *sums, int64_t n, gatun_cuda_rounding rounding, Epilogue epilogue) {
    const Rounder round(rounding, epilogue.y_type);
    const int64_t row = blockIdx.x;
    for (int64_t column = threadIdx.x; column < n; column += 256) {
        const float v = round_to(epilogue.y_type, round.value(load_plain(epilogue.y_type, sums, row * n + column)));
        epilogue.store(row, column, v);
    }
}

static bool can_round(const gatun_cuda_rounding *r) {
    const bool known = r->encoding == GATUN_I8 || (r->encoding >= GATUN_F8_E4M3 && r->encoding <= GATUN_F8_E5M2FNUZ);
    return known && r->scale > 0.0f && r->scale <= 3.4028235e38f;
}

/* The compute type that codes of x are multiplied with; F32: they are not. */
static int32_t compute_of(const gatun_cuda_packed &p, const gatun_cuda_rounding &x) {
    const int32_t compute = x.encoding == GATUN_I8        ? (int32_t)GATUN_COMPUTE_I8
                            : x.encoding == GATUN_F8_E4M3 ? (int32_t)GATUN_COMPUTE_F8
                                                          : (int32_t)GATUN_COMPUTE_F32;
    return compute != GATUN_COMPUTE_F32 && takes_codes(p, compute) ? compute : GATUN_COMPUTE_F32;
}

/* The parts of the workspace. */
struct StaticSpace {
    int64_t pitch; /* of a row of codes */
    int64_t x, scales, sums, rest;
    int64_t total() const { return x + scales + sums + rest; }
};

static gatun_status space_of(const gatun_cuda_packed &p, int64_t m, int32_t compute, int32_t sums_type,
                             StaticSpace *out) {
    const bool codes = compute != GATUN_COMPUTE_F32;
    out->pitch = (p.matrix.k + 15) / 16 * 16;
    out->x = aligned_bytes(codes ? m * out->pitch : m * p.matrix.k * 4);
    out->scales = codes ? aligned_bytes(m * 4) : 0;
    out->sums = sums_type ? aligned_bytes(m * p.matrix.n * (sums_type == GATUN_F32 ? 4 : 2)) : 0;
    return gatun_cuda_linear_workspace(&p, m, compute, &out->rest);
}

} // namespace gatun

using namespace gatun;

extern "C" {

gatun_status gatun_cuda_linear_static_workspace(const gatun_cuda_packed *packed, const gatun_cuda_rounding *x_rounding,
                                                const gatun_cuda_rounding *y_rounding, int32_t y_type, int64_t m,
                                                int64_t *size) {
    if (!packed || !x_rounding || !size || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or %lld rows", (long long)m);
    StaticSpace space;
    GATUN_CUDA_TRY(space_of(*packed, m, compute_of(*packed, *x_rounding), y_rounding ? y_type : 0, &space));
    *size = space.total();
    return GATUN_OK;
}

gatun_status gatun_cuda_linear_static(int32_t device, const gatun_cuda_packed *packed,
                                      const gatun_cuda_rounding *x_rounding, const gatun_cuda_rounding *y_rounding,
                                      gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr y,
                                      int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier,
                                      int32_t activation, int32_t combine, gatun_cuda_ptr other, int64_t ld_other,
                                      gatun_cuda_ptr workspace, int64_t workspace_size, gatun_cuda_stream stream) {
    if (!packed || !packed->block || !x_rounding || !x || !y || !is_plain(x_type) || !is_plain(y_type) || m < 1 ||
        ldx < packed->matrix.k || ldy < packed->matrix.n ||
        (combine != GATUN_COMBINE_NONE && (!other || ld_other < packed->matrix.n)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "linear: found a null pointer or %lld rows of x of type %d %lld apart, of y of type %d "
                               "%lld apart",
                               (long long)m, x_type, (long long)ldx, y_type, (long long)ldy);
    if (!can_round(x_rounding) || (y_rounding && !can_round(y_rounding)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "linear: found a rounding to encoding %d with scale %g, expected I8 or an 8-bit float",
                               x_rounding->encoding, (double)x_rounding->scale);
    const int32_t compute = compute_of(*packed, *x_rounding);
    StaticSpace space;
    GATUN_CUDA_TRY(space_of(*packed, m, compute, y_rounding ? y_type : 0, &space));
    if (workspace_size < space.total() || !workspace || workspace % GATUN_CUDA_ALIGNMENT)
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "linear: found a workspace of %lld bytes, expected %lld, aligned to 256",
                               (long long)workspace_size, (long long)space.total());
    GATUN_CUDA_TRY(gatun_cuda_check_aligned("linear", {{"x", x, x_type},
                                                       {"y", y, y_type},
                                                       {"other", other, y_type},
                                                       {"x_multiplier", x_multiplier, GATUN_F32},
                                                       {"bias", bias, GATUN_F32}}));
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (packed->matrix.n == 0)
        return GATUN_OK;

    const XRows rows = {(const void *)(uintptr_t)x, x_type, ldx, (const float *)(uintptr_t)x_multiplier};
    const cudaStream_t raw = gatun_cuda_raw(stream);
    const gatun_cuda_ptr scales = workspace + space.x, sums = scales + space.scales, rest = sums + space.sums;
    const int64_t k = packed->matrix.k, n = packed->matrix.n;
    const gatun_cuda_ptr to = y_rounding ? sums : y;
    const int64_t ld_to = y_rounding ? n : ldy;
    const int32_t first_activation = y_rounding ? (int32_t)GATUN_ACTIVATION_NONE : activation;
    const int32_t first_combine = y_rounding ? (int32_t)GATUN_COMBINE_NONE : combine;
    if (compute != GATUN_COMPUTE_F32) {
        round_to_codes<<<(unsigned)m, 256, 0, raw>>>(rows, k, *x_rounding, (uint8_t *)(uintptr_t)workspace, space.pitch,
                                                     (float *)(uintptr_t)scales);
        GATUN_CUDA_TRY(gatun_cuda_linear_codes(device, packed, workspace, x_rounding->encoding, space.pitch, m, scales,
                                               1, 0, to, y_type, ld_to, bias, first_activation, first_combine, other,
                                               ld_other, compute, rest, space.rest, stream));
    } else {
        round_to_floats<<<(unsigned)m, 256, 0, raw>>>(rows, k, *x_rounding, (float *)(uintptr_t)workspace);
        GATUN_CUDA_TRY(gatun_cuda_linear(device, packed, workspace, GATUN_F32, k, m, to, y_type, ld_to, bias, 0,
                                         first_activation, first_combine, other, ld_other, compute, rest, space.rest,
                                         stream));
    }
    if (y_rounding) {
        Epilogue epilogue = {};
        epilogue.y = (void *)(uintptr_t)y;
        epilogue.ldy = ldy;
        epilogue.y_type = y_type;
        epilogue.activation = activation;
        epilogue.combine = combine;
        epilogue.other = (const void *)(uintptr_t)other;
        epilogue.ld_other = ld_other;
        round_sums<<<(unsigned)m, 256, 0, raw>>>((const void *)(uintptr_t)sums, n, *y_rounding, epilogue);
    }
    return gatun_cuda_launched(GATUN_OP_LINEAR, compute, packed->matrix.encoding, "linear");
}

} // extern "C"
