/*
 * quantize for NF4, FP4, I8 and F8_E4M3 in runs of 32 to 1024 elements, a power of two, that lie one after the other,
 * in W, in the codes and among the scales: bitsandbytes' blocks, groups of rows without gaps.
 *
 * A warp takes CHUNKS x 256 elements, each chunk by whole lines: lane l has eight elements of run l / TEAM of every
 * chunk, or of a run of PER chunks. What a run costs besides its elements (largest magnitude, scale, reciprocal,
 * checks) is done for all runs of the warp at once, by a lane each: a reduction halves the chunks that a lane looks
 * after as it doubles the lanes that have been looked at.
 */
#include "quantize_runs.cuh"

namespace gatun {

/* For each of CHUNKS magnitudes (of 16-bit types, two in each) of TEAM lanes, the largest; that of chunk c is left in
 * lanes c * TEAM / CHUNKS and up. */
template <int TYPE, int TEAM, int CHUNKS> __device__ inline uint32_t spread_largest(uint32_t *v) {
    auto larger = [](uint32_t a, uint32_t b) { return TYPE == GATUN_F32 ? max(a, b) : __vmaxu2(a, b); };
#pragma unroll
    for (int step = TEAM / 2, left = CHUNKS; step > 0; step /= 2) {
        if (left > 1) {
            left /= 2;
            const bool upper = threadIdx.x & step;
#pragma unroll
            for (int i = 0; i < CHUNKS / 2; i++)
                if (i < left) {
                    const uint32_t mine = upper ? v[i + left] : v[i], others = upper ? v[i] : v[i + left];
                    v[i] = larger(mine, __shfl_xor_sync(0xFFFFFFFF, others, step));
                }
        } else {
            v[0] = larger(v[0], __shfl_xor_sync(0xFFFFFFFF, v[0], step));
        }
    }
    return v[0];
}

enum { SHORT_WARPS = 8 };

/* elements: of all runs, the last of which may be shorter. */
template <int ENCODING, int TYPE, int TEAM, int CHUNKS, int PER>
__global__ void __launch_bounds__(32 * SHORT_WARPS, TYPE == GATUN_F32 ? 3 : 4)
    quantize_short(const __grid_constant__ gatun_matrix m, const __grid_constant__ gatun_quantize_rule rule,
                   const void *w, int64_t elements, int64_t runs) {
    constexpr int RUNS = CHUNKS / PER; /* of a team */
    static_assert(RUNS <= TEAM && (PER == 1 || TEAM == 32), "a lane looks after one run, a warp has whole runs");
    using Kind = Codes<ENCODING>;
    constexpr int LENGTH = TEAM * RUN * PER, CHUNK_RUNS = 32 / TEAM, OWNERS = TEAM / RUNS, CHUNK = 32 * RUN;
    constexpr int SIZE = TYPE == GATUN_F32 ? 4 : 2;
    __shared__ typename Kind::Table table;
    const int lane = threadIdx.x % 32, member = lane % TEAM;
    const int64_t first = ((int64_t)blockIdx.x * SHORT_WARPS + threadIdx.x / 32) * (RUNS * CHUNK_RUNS);
    const int64_t start = first * LENGTH + lane * RUN;
    const int left = (int)max((int64_t)0, min(elements - start, (int64_t)CHUNKS * CHUNK));
    const uint8_t *from = (const uint8_t *)w + start * SIZE;

    Eight<TYPE> eights[CHUNKS];
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        if (c * CHUNK < left)
            eights[c].load(from + c * CHUNK * SIZE);
        else
            eights[c].clear();
    table.fill();
    if (Kind::BITS == 4)
        __syncthreads();

    uint32_t largest[RUNS] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        eights[c].find_largest(largest[c / PER]);
    const uint32_t own = Eight<TYPE>::largest_bits(spread_largest<TYPE, TEAM, RUNS>(largest));
    const int64_t run = first + member / OWNERS * CHUNK_RUNS + lane / TEAM;
    Quotient quotient = {};
    bool holds = true;
    if (run < runs) {
        quotient = quotient_of<Kind>(m, rule, run, own, member % OWNERS == 0);
        holds = quotient.holds(__uint_as_float(own), Kind::most(rule.code_min, rule.code_max));
    }
    const uint32_t unsure = ~__ballot_sync(0xFFFFFFFF, holds);
    const uint32_t unsure_of_team = unsure >> (lane - member);
    uint8_t *codes = (uint8_t *)m.codes + start * Kind::BITS / 8;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int owner = lane - member + c / PER * OWNERS;
        Quotient of_run = {0.0f, __shfl_sync(0xFFFFFFFF, quotient.reciprocal, owner), true};
        if (!Kind::MULTIPLIES) {
            of_run.scale = __shfl_sync(0xFFFFFFFF, quotient.scale, owner);
            of_run.multiply = rule.reciprocal;
        }
        if (c * CHUNK < left && !(unsure_of_team & 1u << c / PER * OWNERS))
            Kind::store(table, eights[c], of_run, m.code_order, codes + c * CHUNK * Kind::BITS / 8);
    }
    if (unsure == 0)
        return;
#pragma unroll 1
    for (int r = 0; r < RUNS; r++) {
        const int owner = lane - member + r * OWNERS;
        const float scale = __shfl_sync(0xFFFFFFFF, quotient.scale, owner);
        const float reciprocal = __shfl_sync(0xFFFFFFFF, quotient.reciprocal, owner);
        const int64_t at = start + r * PER * CHUNK - member * RUN;
        if (at < elements && unsure >> owner & 1)
            encode_by_definition<Kind::BITS>(m, rule, w, TYPE, at, min((int64_t)LENGTH, elements - at),
                                             (uint8_t *)m.codes + at * Kind::BITS / 8, member, TEAM, scale, reciprocal);
    }
}

template <int ENCODING, int TYPE>
static bool launch(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int64_t length,
                   int64_t elements, int64_t runs, cudaStream_t stream) {
    constexpr int CHUNKS = TYPE == GATUN_F32 ? 4 : 8;
    auto grid = [&](int team, int runs_of_team) {
        const int64_t block = SHORT_WARPS * runs_of_team * 32 / team;
        return (unsigned)((runs + block - 1) / block);
    };
#define GATUN_SHORT(team, chunks, per)                                                                                 \
    quantize_short<ENCODING, TYPE, team, chunks, per>                                                                  \
        <<<grid(team, chunks / per), 32 * SHORT_WARPS, 0, stream>>>(m, rule, w, elements, runs)
    switch (length) {
    case 4 * RUN:
        GATUN_SHORT(4, 4, 1);
        return true;
    case 8 * RUN:
        GATUN_SHORT(8, CHUNKS, 1);
        return true;
    case 16 * RUN:
        GATUN_SHORT(16, CHUNKS, 1);
        return true;
    case 32 * RUN:
        GATUN_SHORT(32, CHUNKS, 1);
        return true;
    case 64 * RUN:
        GATUN_SHORT(32, CHUNKS, 2);
        return true;
    case 128 * RUN:
        GATUN_SHORT(32, CHUNKS, 4);
        return true;
    default:
        return false;
    }
#undef GATUN_SHORT
}

template <int ENCODING>
static bool launch(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                   int64_t length, int64_t elements, int64_t runs, cudaStream_t stream) {
    switch (w_type) {
    case GATUN_F32:
        return launch<ENCODING, GATUN_F32>(m, rule, w, length, elements, runs, stream);
    case GATUN_F16:
        return launch<ENCODING, GATUN_F16>(m, rule, w, length, elements, runs, stream);
    default:
        return launch<ENCODING, GATUN_BF16>(m, rule, w, length, elements, runs, stream);
    }
}

bool launch_short_runs(const gatun_matrix &m, const gatun_quantize_rule &rule, const void *w, int32_t w_type,
                       int64_t ldw, const Runs &runs, cudaStream_t stream) {
    const bool follow =
        m.flat_block || (ldw == m.k && runs.row_length % runs.length == 0 &&
                         (m.code_row_stride == 0 || m.code_row_stride == m.k * code_bits(m.encoding) / 8) &&
                         m.scale_row_stride == runs.per_row && (m.scale_col_stride == 1 || runs.per_row == 1));
    if (!follow)
        return false;
    const int64_t elements = m.n * m.k;
    switch (m.encoding) {
    case GATUN_NF4:
        return launch<GATUN_NF4>(m, rule, w, w_type, runs.length, elements, runs.count, stream);
    case GATUN_FP4:
        return launch<GATUN_FP4>(m, rule, w, w_type, runs.length, elements, runs.count, stream);
    case GATUN_I8:
        return launch<GATUN_I8>(m, rule, w, w_type, runs.length, elements, runs.count, stream);
    case GATUN_F8_E4M3:
        return launch<GATUN_F8_E4M3>(m, rule, w, w_type, runs.length, elements, runs.count, stream);
    default:
        return false;
    }
}

} // namespace gatun
