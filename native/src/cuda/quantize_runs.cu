/*
 * quantize for what is quantized most: NF4, FP4, I8 and F8_E4M3 in float arithmetic, scales of runs (a row, a group, a
 * block of the flattened tensor) whose eights of elements are aligned. A team of threads a run: some lanes of a warp,
 * or a block of threads for long runs. Short runs are taken several at a time, so that enough loads are under way.
 */
#include "quantize_runs.cuh"

namespace gatun {

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
    if (Kind::BITS == 4)
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
        quotient[r] = quotient_of<Kind>(m, rule, index, largest, member == 0);
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
    if (l <= 16 * 2 * RUN)
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
    if (launch_short_runs(m, rule, w, w_type, ldw, runs, stream))
        return true;
    switch (m.encoding) {
    case GATUN_NF4:
        return launch<GATUN_NF4>(m, rule, w, w_type, ldw, runs, stream);
    case GATUN_FP4:
        return launch<GATUN_FP4>(m, rule, w, w_type, ldw, runs, stream);
    case GATUN_I8:
        return launch<GATUN_I8>(m, rule, w, w_type, ldw, runs, stream);
    case GATUN_F8_E4M3:
        return launch<GATUN_F8_E4M3>(m, rule, w, w_type, ldw, runs, stream);
    default:
        return false;
    }
}

} // namespace gatun
