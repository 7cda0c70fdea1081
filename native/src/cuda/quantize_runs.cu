/*
 * quantize for what is quantized most: NF4, I8 and F8_E4M3 in float arithmetic, scales of runs (a row, a group, a block
 * of the flattened tensor) whose eights of elements are aligned.
 *
 * A run is read once: a team of threads (some lanes of a warp, or a block of threads for long runs) holds it in
 * registers as it came, finds the largest magnitude there, and encodes it from there. Short runs are taken several at a
 * time, so that enough loads are under way.
 *
 * The code of each element is the definition's, by few instructions:
 *  - the quotient v / scale from the rounded reciprocal by two residual steps, which round it correctly (Markstein,
 *    1990) where nothing overflows or underflows;
 *  - integers by adding 1.5 * 2^23, whose sum has the integer in its low bits, rounded to even;
 *  - NF4 by a table of 32 intervals, each with at most one threshold in it.
 * Whether these hold for a run is seen from its largest magnitude and its scale; if not, the run is read again and
 * encoded by the definition.
 */
#include <cuda_fp8.h>

#include "quantize.cuh"

namespace gatun {

/* ---- elements as they lie in memory ---- */

template <int TYPE> struct Eight {
    static constexpr int WORDS = TYPE == GATUN_F32 ? 8 : 4, BYTES = 4 * WORDS;
    uint32_t words[WORDS];

    __device__ void load(const uint8_t *from) {
#pragma unroll
        for (int i = 0; i < WORDS / 4; i++) {
            const uint4 q = __ldcs((const uint4 *)from + i);
            words[4 * i] = q.x, words[4 * i + 1] = q.y, words[4 * i + 2] = q.z, words[4 * i + 3] = q.w;
        }
    }
    __device__ void clear() {
#pragma unroll
        for (uint32_t &w : words)
            w = 0;
    }
    /* Magnitudes compare like their bits: `largest` holds two halves for 16-bit types. */
    __device__ void find_largest(uint32_t &largest) const {
#pragma unroll
        for (uint32_t w : words)
            largest = TYPE == GATUN_F32 ? max(largest, w & 0x7FFFFFFF) : __vmaxu2(largest, w & 0x7FFF7FFF);
    }
    __device__ static uint32_t largest_bits(uint32_t largest) {
        if (TYPE == GATUN_F32)
            return largest;
        const uint32_t half = max(largest & 0xFFFF, largest >> 16);
        return __float_as_uint(TYPE == GATUN_F16 ? from_f16((uint16_t)half) : from_bf16((uint16_t)half));
    }
    __device__ float number(int i) const {
        if (TYPE == GATUN_F32)
            return __uint_as_float(words[i]);
        const uint32_t w = words[i / 2];
        if (TYPE == GATUN_F16)
            return from_f16((uint16_t)(w >> 16 * (i % 2)));
        return __uint_as_float(i % 2 ? w & 0xFFFF0000 : w << 16);
    }
};

/* ---- codes ---- */

/* A run's scale. `multiply`: by the rounded reciprocal; else the correctly rounded quotient. */
struct Quotient {
    float scale, reciprocal;
    bool multiply;

    __device__ float operator()(float v) const {
        float q = __fmul_rn(v, reciprocal);
        if (multiply)
            return q;
#pragma unroll
        for (int i = 0; i < 2; i++)
            q = __fmaf_rn(__fmaf_rn(-scale, q, v), reciprocal, q);
        return q;
    }
    /* Whether no element of a run whose largest magnitude this is leads out of the normal numbers, or to a quotient
     * larger than `most`; tiny elements do, and have the code of 0. */
    __device__ bool holds(float largest, float most) const {
        return scale >= 0x1p-80f && scale <= 0x1p80f && reciprocal >= 0x1p-90f && reciprocal <= 0x1p90f &&
               __fmul_rn(largest, reciprocal) <= most;
    }
};

/* NF4's intervals: NF4_STEPS a unit, the value -1 in the second one. */
enum { NF4_INTERVALS = 32, NF4_COPIES = 16, NF4_STEPS = 15 };
struct Nf4Interval {
    float threshold; /* of the interval, or infinity */
    uint32_t below;  /* thresholds in the intervals before */
};

/* In bytes from the table's start; an interval's copies take 128 bytes, and 65536 + the interval is a float with its
 * units in bit 7. */
__device__ inline uint32_t nf4_interval(float q) {
    return __float_as_uint(__fmaf_rn(q, (float)NF4_STEPS, 65536.0f + NF4_INTERVALS / 2)) & (NF4_INTERVALS - 1) << 7;
}

/* A copy for each lane of half a warp, so that no two of them meet in a bank. */
struct Nf4Table {
    Nf4Interval entries[NF4_INTERVALS][NF4_COPIES];

    __device__ void fill() {
        for (int i = threadIdx.x; i < NF4_INTERVALS * NF4_COPIES / 2; i += blockDim.x) {
            Nf4Interval *to = &entries[i / (NF4_COPIES / 2)][i % (NF4_COPIES / 2)];
            const uint32_t interval = i / (NF4_COPIES / 2) << 7;
            Nf4Interval entry = {__uint_as_float(0x7F800000), 0};
#pragma unroll
            for (float threshold : nf4_thresholds) {
                const uint32_t at = nf4_interval(threshold);
                entry.below += at < interval;
                if (at == interval)
                    entry.threshold = threshold;
            }
            to[0] = to[NF4_COPIES / 2] = entry;
        }
    }
    __device__ uint32_t encode(float q) const {
        const char *lane = (const char *)&entries[0][threadIdx.x % NF4_COPIES];
        const Nf4Interval entry = *(const Nf4Interval *)(lane + nf4_interval(q));
        return entry.below + (q > entry.threshold);
    }
};
struct NoTable {
    __device__ void fill() {}
};

template <int ENCODING> struct Codes;

template <> struct Codes<GATUN_NF4> {
    using Table = Nf4Table;
    static constexpr int BITS = 4;

    __device__ static float most(float low, float high) { return low <= -1.0f && high >= 1.0f ? 1.0001f : -1.0f; }
    template <typename E>
    __device__ static void store(const Table &table, const E &eight, const Quotient &quotient, int32_t order,
                                 uint8_t *to) {
        uint32_t word = 0;
#pragma unroll
        for (int i = RUN - 1; i >= 0; i--)
            word = word * 16 + table.encode(quotient(eight.number(i)));
        if (order == GATUN_ORDER_HIGH_FIRST)
            word = (word & 0x0F0F0F0F) << 4 | (word >> 4 & 0x0F0F0F0F);
        *(uint32_t *)to = word;
    }
};

template <> struct Codes<GATUN_I8> {
    using Table = NoTable;
    static constexpr int BITS = 8;

    __device__ static float most(float low, float high) { return floorf(fminf(fminf(-low, high), 127.0f)) + 0.49f; }
    template <typename E>
    __device__ static void store(const Table &, const E &eight, const Quotient &quotient, int32_t, uint8_t *to) {
        uint32_t words[2];
#pragma unroll
        for (int w = 0; w < 2; w++) {
            uint32_t c[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                c[i] = __float_as_uint(__fadd_rn(quotient(eight.number(4 * w + i)), 12582912.0f));
            words[w] = __byte_perm(__byte_perm(c[0], c[1], 0x0040), __byte_perm(c[2], c[3], 0x0040), 0x5410);
        }
        *(uint2 *)to = make_uint2(words[0], words[1]);
    }
};

template <> struct Codes<GATUN_F8_E4M3> {
    using Table = NoTable;
    static constexpr int BITS = 8;

    /* What is clamped to 448 and what rounds to it have the same code. */
    __device__ static float most(float low, float high) { return low <= -448.0f && high >= 448.0f ? 449.0f : -1.0f; }
    template <typename E>
    __device__ static void store(const Table &, const E &eight, const Quotient &quotient, int32_t, uint8_t *to) {
        uint32_t words[2];
#pragma unroll
        for (int w = 0; w < 2; w++) {
            float q[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float v = eight.number(4 * w + i);
                q[i] = copysignf(quotient(v), v); /* the residual of -0 is 0 */
            }
            words[w] = (uint32_t)__nv_cvt_float2_to_fp8x2(make_float2(q[0], q[1]), __NV_SATFINITE, __NV_E4M3) |
                       (uint32_t)__nv_cvt_float2_to_fp8x2(make_float2(q[2], q[3]), __NV_SATFINITE, __NV_E4M3) << 16;
        }
        *(uint2 *)to = make_uint2(words[0], words[1]);
    }
};

/* ---- the kernel ---- */

/* A member's part of a run by the definition, read from memory again. */
template <int BITS>
__device__ __noinline__ void encode_by_definition(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w,
                                                  int32_t w_type, int64_t from, int64_t length, uint8_t *codes,
                                                  int member, int team, float scale, float reciprocal) {
    const Encoder encode(m, rule);
    for (int64_t at = member * RUN; at < length; at += team * RUN) {
        uint32_t code[RUN];
        for (int i = 0; i < RUN; i++)
            code[i] = encode(load_plain(w_type, w, from + at + i), scale, reciprocal);
        store_run<BITS>(codes, at, RUN, m.code_order, code);
    }
}

/* TEAM: lanes a run, 0: the block's threads. A member holds up to CHUNKS eights of each of RUNS runs. */
template <int ENCODING, int TYPE, int TEAM, int CHUNKS, int RUNS>
__global__ void __launch_bounds__(256)
    quantize_aligned(const __grid_constant__ gatun_matrix m, const __grid_constant__ gatun_quantize_rule rule,
                     const void *w, int64_t ldw, Runs runs) {
    using Kind = Codes<ENCODING>;
    __shared__ typename Kind::Table table;
    __shared__ uint32_t largest_of[8];
    const int team = TEAM ? TEAM : (int)blockDim.x, member = (int)threadIdx.x % team;
    const int teams = TEAM ? (int)blockDim.x / TEAM : 1;
    const bool multiply = rule.reciprocal || ENCODING == GATUN_NF4;
    const uint32_t first = blockIdx.x * (uint32_t)(teams * RUNS) + threadIdx.x / (uint32_t)team;
    const int size = TYPE == GATUN_F32 ? 4 : 2;

    Eight<TYPE> eights[RUNS][CHUNKS];
    uint32_t row[RUNS], in_row[RUNS];
    int length[RUNS];
#pragma unroll
    for (int r = 0; r < RUNS; r++) { /* teams past the last run take part in what warps do together */
        const uint32_t run = min(first + r * teams, (uint32_t)runs.count - 1);
        row[r] = runs.per_row == 1 ? run : runs.per_row == runs.count ? 0 : run / (uint32_t)runs.per_row;
        in_row[r] = run - row[r] * (uint32_t)runs.per_row;
        const int64_t start = in_row[r] * runs.length;
        length[r] = (int)min(runs.length, runs.row_length - start);
        const uint8_t *from = (const uint8_t *)w + (row[r] * ldw + start) * size;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = (c * team + member) * RUN;
            if (at < length[r])
                eights[r][c].load(from + at * size);
            else
                eights[r][c].clear();
        }
    }
    auto codes_of = [&](int r) {
        const int64_t start = in_row[r] * runs.length + (m.code_row_stride ? 0 : row[r] * m.k);
        return (uint8_t *)m.codes + row[r] * m.code_row_stride + start * Kind::BITS / 8;
    };
    table.fill();
    if (ENCODING == GATUN_NF4)
        __syncthreads();
    const float most = Kind::most(rule.code_min, rule.code_max);
    Quotient quotient[RUNS];
    uint32_t unsure = 0;
#pragma unroll
    for (int r = 0; r < RUNS; r++) {
        uint32_t largest = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            eights[r][c].find_largest(largest);
        largest = Eight<TYPE>::largest_bits(largest);
#pragma unroll
        for (int step = (TEAM ? TEAM : 32) / 2; step > 0; step /= 2)
            largest = max(largest, __shfl_xor_sync(0xFFFFFFFF, largest, step));
        if (TEAM == 0 && blockDim.x > 32) { /* one run a block */
            if (threadIdx.x % 32 == 0)
                largest_of[threadIdx.x / 32] = largest;
            __syncthreads();
            for (int i = 0; i < (int)blockDim.x / 32; i++)
                largest = max(largest, largest_of[i]);
        }
        if (first + r * teams >= runs.count)
            continue;

        const int64_t index = m.flat_block ? in_row[r] : row[r] * m.scale_row_stride + in_row[r] * m.scale_col_stride;
        float stored;
        if (rule.keep_scales) {
            quotient[r].scale = scale_at(m, index);
            stored = __fmul_rn(stored_scale(m, index), m.global_scale);
        } else {
            quotient[r].scale = stored = new_scale(__uint_as_float(largest), rule);
            if (member == 0)
                store_plain(m.scale_type, m.scales, index, stored);
        }
        quotient[r].multiply = multiply;
        quotient[r].reciprocal = __fdiv_rn(1.0f, multiply ? stored : quotient[r].scale);
        if (!quotient[r].holds(__uint_as_float(largest), most)) {
            unsure |= 1 << r;
            continue;
        }
        uint8_t *codes = codes_of(r);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            const int at = (c * team + member) * RUN;
            if (at < length[r])
                Kind::store(table, eights[r][c], quotient[r], m.code_order, codes + at * Kind::BITS / 8);
        }
    }
    if (unsure == 0)
        return;
#pragma unroll
    for (int r = 0; r < RUNS; r++) /* registers have no index */
        if (unsure >> r & 1)
            encode_by_definition<Kind::BITS>(m, rule, w, TYPE, row[r] * ldw + in_row[r] * runs.length, length[r],
                                             codes_of(r), member, team, quotient[r].scale, quotient[r].reciprocal);
}

/* What a thread holds of a long run, in 64 registers. */
constexpr int long_chunks(int type) { return type == GATUN_F32 ? 8 : 16; }

template <int ENCODING, int TYPE>
static bool launch(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int64_t ldw, const Runs &runs,
                   cudaStream_t stream) {
    const int64_t l = runs.length < runs.row_length ? runs.length : runs.row_length;
    const int64_t members = (l + long_chunks(TYPE) * RUN - 1) / (long_chunks(TYPE) * RUN);
    if (members > 256)
        return false;
    auto grid = [&](int teams_times_runs) {
        return (unsigned)((runs.count + teams_times_runs - 1) / teams_times_runs);
    };
#define GATUN_RUNS(team, chunks, n)                                                                                    \
    quantize_aligned<ENCODING, TYPE, team, chunks, n><<<grid(256 / team * n), 256, 0, stream>>>(m, rule, w, ldw, runs)
    if (l <= 2 * 4 * RUN)
        GATUN_RUNS(2, 4, 2);
    else if (l <= 16 * 2 * RUN)
        GATUN_RUNS(16, 2, 4);
    else if (l <= 32 * 4 * RUN)
        GATUN_RUNS(32, 4, 2);
    else
        quantize_aligned<ENCODING, TYPE, 0, long_chunks(TYPE), 1>
            <<<(unsigned)runs.count, (unsigned)(members + 31) / 32 * 32, 0, stream>>>(m, rule, w, ldw, runs);
#undef GATUN_RUNS
    return true;
}

template <int ENCODING>
static bool launch(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type, int64_t ldw,
                   const Runs &runs, cudaStream_t stream) {
    switch (w_type) {
    case GATUN_F32:
        return launch<ENCODING, GATUN_F32>(m, rule, w, ldw, runs, stream);
    case GATUN_F16:
        return launch<ENCODING, GATUN_F16>(m, rule, w, ldw, runs, stream);
    default:
        return launch<ENCODING, GATUN_BF16>(m, rule, w, ldw, runs, stream);
    }
}

bool launch_aligned_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                         int64_t ldw, const Runs &runs, cudaStream_t stream) {
    const int bits = code_bits(m.encoding), size = w_type == GATUN_F32 ? 4 : 2;
    /* Eights of elements begin at multiples of 16 bytes, those of codes at multiples of their own size. */
    const bool aligned = runs.length % RUN == 0 && runs.row_length % RUN == 0 && (uintptr_t)w % 16 == 0 &&
                         ldw * size % 16 == 0 && (uintptr_t)m.codes % bits == 0 && m.code_row_stride % bits == 0;
    const bool plain = rule.arithmetic == GATUN_F32 && !m.column_groups &&
                       m.scale_order != GATUN_SCALES_BLOCKED_128X4 && runs.count <= INT32_MAX / 2 &&
                       (rule.keep_scales || (uintptr_t)m.scales % (m.scale_type == GATUN_F32 ? 4 : 2) == 0) &&
                       (bits == 8 || m.code_order == GATUN_ORDER_LOW_FIRST || m.code_order == GATUN_ORDER_HIGH_FIRST);
    if (!aligned || !plain)
        return false;
    switch (m.encoding) {
    case GATUN_NF4:
        return launch<GATUN_NF4>(m, rule, w, w_type, ldw, runs, stream);
    case GATUN_I8:
        return launch<GATUN_I8>(m, rule, w, w_type, ldw, runs, stream);
    case GATUN_F8_E4M3:
        return launch<GATUN_F8_E4M3>(m, rule, w, w_type, ldw, runs, stream);
    default:
        return false;
    }
}

} // namespace gatun
