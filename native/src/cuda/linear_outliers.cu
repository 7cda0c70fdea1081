/*
 * LLM.int8()'s product. x is rounded to binary16; a column of x with a magnitude of `threshold` or more in any row is
 * an outlier column. The rest of a row is rounded to x * (127 / absmax), absmax being the row's largest magnitude below
 * the threshold, and multiplied in integers; outlier columns are multiplied as they are, by the codes of W, in floats.
 * Source: bitsandbytes' MatMul8bitLt.
 *
 * find_outliers (a block of threads a row): absmax, and a mark for each outlier column; list_outliers: the marked ones
 * in order, and how many; round_rest: codes of x. The integers' product goes to floats (gatun_cuda_linear_codes), some
 * rows at a time so that these stay in the L2, and add_outliers adds the rest on tensor cores, 16 columns a step, which
 * it gathers from W and x as they lie: 64 rows of x by 128 rows of W a block, 32 by 32 a warp. How many outliers there
 * are, the host does not learn.
 */
#include <cuda_fp16.h>

#include "rows.cuh"

namespace gatun {

enum { CHUNK_ROWS = 1024, LIST_THREADS = 1024 };

__device__ inline void load_halves(const XRows &x, int64_t row, int64_t column, int64_t k, float *v) {
    load_run(x, row, column, k, v);
#pragma unroll
    for (int i = 0; i < RUN; i++)
        v[i] = round_to(GATUN_F16, v[i]);
}

/* A row with NaN has the scale NaN. */
__global__ void __launch_bounds__(256)
    find_outliers(XRows x, int64_t k, float threshold, uint8_t *marks, float *scales, float *absmax) {
    __shared__ float largest_of[8];
    const int64_t row = blockIdx.x;
    float largest = 0.0f;
    bool nan = false;
    for (int64_t column = threadIdx.x * RUN; column < k; column += 256 * RUN) {
        float v[RUN];
        load_halves(x, row, column, k, v);
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            const float magnitude = fabsf(v[i]);
            nan |= is_nan(v[i]);
            if (magnitude >= threshold)
                marks[column + i] = 1; /* several rows may: all write the same */
            else
                largest = fmaxf(largest, magnitude);
        }
    }
    for (int step = 16; step > 0; step /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFF, largest, step));
    if (threadIdx.x % 32 == 0)
        largest_of[threadIdx.x / 32] = largest;
    nan = __syncthreads_or(nan);
    if (threadIdx.x != 0)
        return;
    for (float other : largest_of)
        largest = fmaxf(largest, other);
    absmax[row] = largest;
    scales[row] = nan ? __uint_as_float(0x7FC00000) : __fdiv_rn(largest, 127.0f);
}

/* list[0]: how many, then the columns; one block. */
__global__ void __launch_bounds__(LIST_THREADS) list_outliers(const uint8_t *marks, int64_t k, int32_t *list) {
    __shared__ int counts[LIST_THREADS / 32];
    const int64_t own = (k + LIST_THREADS - 1) / LIST_THREADS, first = threadIdx.x * own, last = min(first + own, k);
    int count = 0;
    for (int64_t i = first; i < last; i++)
        count += marks[i];
    int before = count; /* then of the lanes up to this one, then of all threads before it */
    for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(0xFFFFFFFF, before, step);
        if ((int)threadIdx.x % 32 >= step)
            before += lower;
    }
    if (threadIdx.x % 32 == 31)
        counts[threadIdx.x / 32] = before;
    __syncthreads();
    before -= count;
    for (int w = 0; w < (int)threadIdx.x / 32; w++)
        before += counts[w];
    if (threadIdx.x == LIST_THREADS - 1)
        list[0] = before + count;
    for (int64_t i = first; i < last; i++)
        if (marks[i])
            list[1 + before++] = (int32_t)i;
}

/* Codes of x, 0 in outlier columns. */
__global__ void __launch_bounds__(256) round_rest(XRows x, int64_t k, float threshold, const uint8_t *marks,
                                                  const float *absmax, uint8_t *codes, int64_t pitch) {
    const int64_t row = blockIdx.x;
    const float factor = absmax[row] > 0.0f ? __fdiv_rn(127.0f, absmax[row]) : 0.0f;
    for (int64_t column = threadIdx.x * RUN; column < pitch; column += 256 * RUN) {
        float v[RUN];
        load_halves(x, row, column, k, v);
        uint32_t words[2] = {};
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            const bool apart = !(fabsf(v[i]) < threshold) || (column + i < k && marks[column + i]);
            const int code = apart ? 0 : (int)rintf(__fmul_rn(v[i], factor));
            words[i / 4] |= (uint32_t)(code & 255) << 8 * (i % 4);
        }
        *(uint2 *)(codes + row * pitch + column) = make_uint2(words[0], words[1]);
    }
}

__device__ inline void mma_halves(float *c, const uint32_t *a, const uint32_t *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* W's codes, rows of `pitch` bytes, and its scales as packed. */
struct PackedBytes {
    const int8_t *codes;
    int64_t pitch;
    const void *scales;
    int32_t scale_type;
    int64_t n, k;
};

enum { ADD_M = 64, ADD_N = 128, ADD_K = 16 };
enum { ADD_PITCH = ADD_K + 8, SUM_PITCH = ADD_N + 4 }; /* so that eight rows differ in banks */

__global__ void __launch_bounds__(256)
    add_outliers(XRows x, PackedBytes w, int64_t m, const int32_t *list, const float *sums, Epilogue epilogue) {
    __shared__ __align__(16) uint16_t xs[ADD_M][ADD_PITCH], ws[ADD_N][ADD_PITCH];
    __shared__ __align__(16) float apart[ADD_M][SUM_PITCH];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int warp_m = warp % 2 * 32, warp_n = warp / 2 * 32;
    const int64_t n0 = (int64_t)blockIdx.x * ADD_N, m0 = (int64_t)blockIdx.y * ADD_M;
    const int count = list[0];
    float acc[2][4][4] = {};
    const int own = threadIdx.x % ADD_K, own_row = threadIdx.x / ADD_K; /* column and first row that a thread gathers */
    constexpr int APART = 256 / ADD_K;
    for (int first = 0; first < count; first += ADD_K) {
        const int64_t column = first + own < count ? list[1 + first + own] : -1;
        const float factor = column >= 0 && x.multiplier ? x.multiplier[column] : 1.0f;
        uint16_t of_x[ADD_M / APART];
        int8_t of_w[ADD_N / APART];
#pragma unroll
        for (int i = 0; i < ADD_M / APART; i++) {
            const int64_t row = m0 + own_row + i * APART;
            of_x[i] = to_f16(column >= 0 && row < m ? load_plain(x.type, x.data, row * x.ld + column) * factor : 0.0f);
        }
#pragma unroll
        for (int i = 0; i < ADD_N / APART; i++) {
            const int64_t n = n0 + own_row + i * APART;
            of_w[i] = column >= 0 && n < w.n ? w.codes[n * w.pitch + column] : (int8_t)0;
        }
        __syncthreads(); /* the step before has been read */
#pragma unroll
        for (int i = 0; i < ADD_M / APART; i++)
            xs[own_row + i * APART][own] = of_x[i];
#pragma unroll
        for (int i = 0; i < ADD_N / APART; i++)
            ws[own_row + i * APART][own] = __half_as_ushort(__int2half_rn(of_w[i]));
        __syncthreads();
        uint32_t a[2][4], b[4][2];
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[r][i] = *(const uint32_t *)&xs[warp_m + r * 16 + g + i % 2 * 8][2 * t + i / 2 * 8];
#pragma unroll
        for (int c = 0; c < 4; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                b[c][i] = *(const uint32_t *)&ws[warp_n + c * 8 + g][2 * t + i * 8];
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                mma_halves(acc[r][c], a[r], b[c]);
    }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++)
            *(float2 *)&apart[warp_m + r / 2 * 16 + g + r % 2 * 8][warp_n + c * 8 + 2 * t] =
                make_float2(acc[r / 2][c][r % 2 * 2], acc[r / 2][c][r % 2 * 2 + 1]);
    __syncthreads();
    /* A warp a row: four columns a lane. */
    const int four = lane * 4;
    const int64_t n = n0 + four;
    if (n >= w.n)
        return;
    float scales[4] = {}, ones[4], biases[4];
    epilogue.columns(n, w.n, ones, biases);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (n + i < w.n)
            scales[i] = load_plain(w.scale_type, w.scales, (n + i) / 16 * 16 + scale_slot(n + i));
#pragma unroll 4
    for (int row = warp; row < ADD_M && m0 + row < m; row += 8) {
        const float *from = sums + (m0 + row) * w.n + n;
        float v[4] = {};
        if (w.n % 4 == 0)
            *(float4 *)v = *(const float4 *)from;
        else
            for (int i = 0; i < 4 && n + i < w.n; i++)
                v[i] = from[i];
        const float4 more = *(const float4 *)&apart[row][four];
        const float4 all = make_float4(fmaf(more.x, scales[0], v[0]), fmaf(more.y, scales[1], v[1]),
                                       fmaf(more.z, scales[2], v[2]), fmaf(more.w, scales[3], v[3]));
        epilogue.store_four(m0 + row, n, w.n, all, ones, biases);
    }
}

/* The parts of the workspace. */
struct OutlierSpace {
    int64_t pitch; /* of a row of codes */
    int64_t marks, list, scales, absmax, codes, sums, rest;
    int64_t total() const { return marks + list + scales + absmax + codes + sums + rest; }
};

static gatun_status space_of(const gatun_cuda_packed &p, int64_t m, OutlierSpace *out) {
    const int64_t rows = m < CHUNK_ROWS ? m : (int64_t)CHUNK_ROWS;
    out->pitch = (p.matrix.k + 15) / 16 * 16;
    out->marks = aligned_bytes(p.matrix.k);
    out->list = aligned_bytes((p.matrix.k + 1) * 4);
    out->scales = out->absmax = aligned_bytes(m * 4);
    out->codes = aligned_bytes(m * out->pitch);
    out->sums = aligned_bytes(rows * p.matrix.n * 4);
    return gatun_cuda_linear_workspace(&p, rows, GATUN_COMPUTE_I8, &out->rest);
}

static bool takes_outliers(const gatun_cuda_packed &p) {
    return p.form == GATUN_CUDA_FORM_CODES8 && p.matrix.encoding == GATUN_I8 && p.groups == 1 && !p.zeros_offset &&
           !p.offsets_offset && p.matrix.zero_point == 0 && takes_codes(p, GATUN_COMPUTE_I8);
}

} // namespace gatun

using namespace gatun;

extern "C" {

gatun_status gatun_cuda_linear_outliers_workspace(const gatun_cuda_packed *packed, int64_t m, int64_t *size) {
    if (!packed || !size || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "linear: found a null pointer or %lld rows", (long long)m);
    OutlierSpace space;
    GATUN_CUDA_TRY(space_of(*packed, m, &space));
    *size = space.total();
    return GATUN_OK;
}

gatun_status gatun_cuda_linear_outliers(int32_t device, const gatun_cuda_packed *packed, float threshold,
                                        gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr y,
                                        int32_t y_type, int64_t ldy, gatun_cuda_ptr bias, gatun_cuda_ptr x_multiplier,
                                        int32_t activation, int32_t combine, gatun_cuda_ptr other, int64_t ld_other,
                                        gatun_cuda_ptr workspace, int64_t workspace_size, gatun_cuda_stream stream) {
    if (!packed || !packed->block || !x || !y || !is_plain(x_type) || !is_plain(y_type) || m < 1 ||
        ldx < packed->matrix.k || ldy < packed->matrix.n || !(threshold > 0.0f) ||
        (combine != GATUN_COMBINE_NONE && (!other || ld_other < packed->matrix.n)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "linear: found a null pointer, a threshold of %g, or %lld rows of x of type %d %lld "
                               "apart, of y of type %d %lld apart",
                               (double)threshold, (long long)m, x_type, (long long)ldx, y_type, (long long)ldy);
    if (!takes_outliers(*packed))
        return gatun_cuda_fail(GATUN_UNSUPPORTED,
                               "linear: outliers are taken apart from codes of I8 with a scale a row, found encoding "
                               "%d with %lld scales a row",
                               packed->matrix.encoding, (long long)packed->groups);
    OutlierSpace space;
    GATUN_CUDA_TRY(space_of(*packed, m, &space));
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
    const int64_t n = packed->matrix.n, k = packed->matrix.k;
    if (n == 0)
        return GATUN_OK;

    const cudaStream_t raw = gatun_cuda_raw(stream);
    uint8_t *part = (uint8_t *)(uintptr_t)workspace;
    auto next = [&](int64_t bytes) {
        uint8_t *at = part;
        part += bytes;
        return at;
    };
    uint8_t *marks = next(space.marks);
    int32_t *list = (int32_t *)next(space.list);
    float *scales = (float *)next(space.scales), *absmax = (float *)next(space.absmax);
    uint8_t *codes = next(space.codes);
    float *sums = (float *)next(space.sums);
    auto address = [](const void *p) { return (gatun_cuda_ptr)(uintptr_t)p; };

    XRows rows = {(const void *)(uintptr_t)x, x_type, ldx, (const float *)(uintptr_t)x_multiplier};
    GATUN_CUDA_TRY(gatun_cuda_status(cudaMemsetAsync(marks, 0, (size_t)space.marks, raw), "linear"));
    find_outliers<<<(unsigned)m, 256, 0, raw>>>(rows, k, threshold, marks, scales, absmax);
    list_outliers<<<1, LIST_THREADS, 0, raw>>>(marks, k, list);
    round_rest<<<(unsigned)m, 256, 0, raw>>>(rows, k, threshold, marks, absmax, codes, space.pitch);

    const uint8_t *block = (const uint8_t *)(uintptr_t)packed->block;
    const PackedBytes w = {(const int8_t *)(block + packed->codes_offset),
                           packed->steps * GATUN_CUDA_STEP_K,
                           block + packed->scales_offset,
                           packed->scale_type,
                           n,
                           k};
    const int x_size = x_type == GATUN_F32 ? 4 : 2, y_size = y_type == GATUN_F32 ? 4 : 2;
    for (int64_t first = 0; first < m; first += CHUNK_ROWS) {
        const int64_t count = m - first < CHUNK_ROWS ? m - first : (int64_t)CHUNK_ROWS;
        GATUN_CUDA_TRY(gatun_cuda_linear_codes(device, packed, address(codes + first * space.pitch), GATUN_I8,
                                               space.pitch, count, address(scales + first), 1, 0, address(sums),
                                               GATUN_F32, n, 0, GATUN_ACTIVATION_NONE, GATUN_COMBINE_NONE, 0, n,
                                               GATUN_COMPUTE_I8, address(part), space.rest, stream));
        Epilogue epilogue = {};
        epilogue.y = (void *)(uintptr_t)(y + (uint64_t)(first * ldy * y_size));
        epilogue.ldy = ldy;
        epilogue.y_type = y_type;
        epilogue.bias = (const float *)(uintptr_t)bias;
        epilogue.activation = activation;
        epilogue.combine = combine;
        epilogue.other = other ? (const void *)(uintptr_t)(other + (uint64_t)(first * ld_other * y_size)) : nullptr;
        epilogue.ld_other = ld_other;
        XRows part_of_x = rows;
        part_of_x.data = (const uint8_t *)rows.data + first * ldx * x_size;
        dim3 grid((unsigned)((n + ADD_N - 1) / ADD_N), (unsigned)((count + ADD_M - 1) / ADD_M));
        add_outliers<<<grid, 256, 0, raw>>>(part_of_x, w, count, list, sums, epilogue);
    }
    return gatun_cuda_launched(GATUN_OP_LINEAR, GATUN_COMPUTE_I8, packed->matrix.encoding, "linear");
}

} // extern "C"
