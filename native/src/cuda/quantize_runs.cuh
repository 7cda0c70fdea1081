/*
 * What the kernels of quantize for the commonest encodings share: NF4, FP4, I8 and F8_E4M3 in float arithmetic. A run
 * is read once and held in registers as it came; its largest magnitude is found there, and it is encoded from there.
 *
 * The code of each element is the definition's, by few instructions:
 *  - the quotient v / scale from the rounded reciprocal by two residual steps, which round it correctly (Markstein,
 *    1990) where nothing overflows or underflows;
 *  - integers by adding 1.5 * 2^23, whose sum has the integer in its low bits, rounded to even;
 *  - NF4 and FP4 by a table of 32 intervals, each with at most one threshold in it.
 * Whether these hold for a run is seen from its largest magnitude and its scale; if not, the run is read again and
 * encoded by the definition.
 */
#ifndef GATUN_CUDA_QUANTIZE_RUNS_CUH
#define GATUN_CUDA_QUANTIZE_RUNS_CUH

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

/* A codebook's thresholds by intervals of the quotient, INTERVAL_STEPS a unit, -1 in the second one: none has two. */
enum { INTERVALS = 32, INTERVAL_COPIES = 16, INTERVAL_STEPS = 15 };
struct Interval {
    float threshold; /* of the interval, or one beyond it */
    uint32_t codes;  /* in the upper nibble that of numbers up to it, in the next one that of larger ones */
};

/* In bytes from the table's start; an interval's copies take 128 bytes, and 65536 + the interval is a float with its
 * units in bit 7. */
__device__ inline uint32_t interval_at(float q) {
    return __float_as_uint(__fmaf_rn(q, (float)INTERVAL_STEPS, 65536.0f + INTERVALS / 2)) & (INTERVALS - 1) << 7;
}
/* The interval of a threshold, by the same roundings. */
__host__ __device__ constexpr uint32_t interval_bit(float threshold) {
    return 1u << ((int)((INTERVAL_STEPS * (double)threshold + INTERVALS / 2) * 128 + 0.5) >> 7);
}

template <int ENCODING> struct Codebook;
template <> struct Codebook<GATUN_NF4> {
    enum { SIGNED = 0, LAST = 14 };
    __host__ __device__ static constexpr uint32_t intervals() {
        uint32_t bits = 0;
        for (float threshold : nf4_thresholds)
            bits |= interval_bit(threshold);
        return bits;
    }
    __device__ static float threshold(int i) { return nf4_thresholds[i]; }
    __device__ static uint32_t code(int i) { return i; }
};
template <> struct Codebook<GATUN_FP4> {
    enum { SIGNED = 1, LAST = 6 }; /* thresholds of magnitudes */
    __host__ __device__ static constexpr uint32_t intervals() {
        uint32_t bits = 0;
        for (float threshold : fp4_thresholds)
            bits |= interval_bit(threshold) | interval_bit(-threshold);
        return bits;
    }
    __device__ static float threshold(int i) { return fp4_thresholds[i]; }
    __device__ static uint32_t code(int i) { return fp4_order[i]; }
};

/* A copy for each lane of half a warp, so that no two of them meet in a bank. */
template <int ENCODING> struct IntervalTable {
    using Book = Codebook<ENCODING>;
    alignas(16) Interval entries[INTERVALS][INTERVAL_COPIES];

    __device__ void fill() { /* two copies at a time */
        for (uint32_t i = threadIdx.x; i < INTERVALS * INTERVAL_COPIES / 2; i += blockDim.x)
            fill(i, i / (INTERVAL_COPIES / 2));
    }
    __device__ void fill(uint32_t at_once, uint32_t interval) {
        constexpr uint32_t ALL = Book::intervals();
        const uint32_t lower = ALL & ((1u << interval) - 1);
        uint32_t before = lower; /* thresholds nearer the begin; of magnitudes, nearer zero */
        if (Book::SIGNED)
            before = interval < INTERVALS / 2 ? ALL >> interval & (0xFFFFu >> interval) & ~1u : lower >> 16;
        const int below = __popc(before);
        const int at = min(below, (int)Book::LAST);
        const Interval entry = {Book::threshold(at), Book::code(below) << 28 | Book::code(at + 1) << 24};
        ((uint4 *)entries)[at_once] =
            make_uint4(__float_as_uint(entry.threshold), entry.codes, __float_as_uint(entry.threshold), entry.codes);
    }
    /* The code before those in `word`; lane: eight times threadIdx.x % INTERVAL_COPIES. */
    __device__ uint32_t put_before(uint32_t word, float q, uint32_t lane) const {
        const Interval entry = *(const Interval *)((const char *)&entries[0][0] + (interval_at(q) | lane));
        uint32_t codes = entry.codes;
        if ((Book::SIGNED ? fabsf(q) : q) > entry.threshold)
            codes <<= 4;
        if (Book::SIGNED)
            codes |= __float_as_uint(q) & 0x80000000;
        return __funnelshift_l(codes, word, 4);
    }
};
struct NoTable {
    __device__ void fill() {}
};

/* How a run's numbers become codes. MULTIPLIES: always by the reciprocal. */
template <int ENCODING> struct Codes {
    using Table = IntervalTable<ENCODING>;
    static constexpr int BITS = 4;
    static constexpr bool MULTIPLIES = true;

    __device__ static float most(float low, float high) { return low <= -1.0f && high >= 1.0f ? 1.0001f : -1.0f; }
    template <typename E>
    __device__ static void store(const Table &table, const E &eight, const Quotient &quotient, int32_t order,
                                 uint8_t *to) {
        uint32_t lane = threadIdx.x % INTERVAL_COPIES * sizeof(Interval), word = 0;
        asm("" : "+r"(lane)); /* else every element finds it anew */
#pragma unroll
        for (int i = RUN - 1; i >= 0; i--) /* plus 0: -0 is no negative number */
            word = table.put_before(word, __fmaf_rn(eight.number(i), quotient.reciprocal, 0.0f), lane);
        if (order == GATUN_ORDER_HIGH_FIRST)
            word = (word & 0x0F0F0F0F) << 4 | (word >> 4 & 0x0F0F0F0F);
        *(uint32_t *)to = word;
    }
};

template <> struct Codes<GATUN_I8> {
    using Table = NoTable;
    static constexpr int BITS = 8;
    static constexpr bool MULTIPLIES = false;

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
    static constexpr bool MULTIPLIES = false;

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

/* A run's quotient from its largest magnitude; `writes`: stores its scale, unless that is kept. */
template <typename Kind>
__device__ inline Quotient quotient_of(const gatun_matrix &m, const gatun_quantize_rule &rule, int64_t index,
                                       uint32_t largest, bool writes) {
    Quotient q;
    float stored;
    if (rule.keep_scales) {
        q.scale = scale_at(m, index);
        stored = __fmul_rn(stored_scale(m, index), m.global_scale);
    } else {
        q.scale = stored = new_scale(__uint_as_float(largest), rule);
        if (writes)
            store_plain(m.scale_type, m.scales, index, stored);
    }
    q.multiply = rule.reciprocal || Kind::MULTIPLIES;
    q.reciprocal = __fdiv_rn(1.0f, q.multiply ? stored : q.scale);
    return q;
}

/* Short runs one after the other, which share their loads and stores; false when these are not such runs.
 * quantize_short.cu */
bool launch_short_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                       int64_t ldw, const Runs &runs, cudaStream_t stream);

} // namespace gatun

#endif
