/*
 * Grouped linear: rows of x that are sorted by expert, by weights of one shape. One launch multiplies all of them;
 * where the runs of rows begin is read on the device.
 *
 * Weights whose codes lie in tiles of one kind are multiplied with compute BF16 by Hopper's kernel (hopper_grouped.cu),
 * or by those for few rows of x by few experts (linear_narrow.cuh) and for more (linear_wide.cuh), all others by the
 * one for every form (linear_f32.cu); with compute I8, F8 and F8_BLOCK x becomes codes first.
 */
#include "grouped.cuh"
#include "rows.cuh"

namespace gatun {

enum { PLAN_THREADS = 1024 };

/* Chunks of `chunk_rows` rows: of one run after the other, those left over empty, then one more whose row is the number
 * of those that are not. One block. Offsets that do not hold together lead nowhere outside of 0 to m. */
__global__ void __launch_bounds__(PLAN_THREADS)
    plan_chunks(const int64_t *offsets, int64_t count, int64_t m, int chunk_rows, int64_t chunks, GroupedChunk *plan) {
    __shared__ int64_t totals[PLAN_THREADS / 32];
    for (int64_t i = threadIdx.x; i < chunks; i += PLAN_THREADS)
        plan[i] = {-1, 0, 0};
    __syncthreads();
    auto row_of = [&](int64_t expert) { return min(max(offsets[expert], (int64_t)0), m); };
    int64_t placed = 0; /* chunks of the experts before these */
    for (int64_t base = 0; base < count; base += PLAN_THREADS) {
        const int64_t expert = base + threadIdx.x;
        int64_t first = 0, rows = 0;
        if (expert < count) {
            first = row_of(expert);
            rows = max(row_of(expert + 1) - first, (int64_t)0);
        }
        const int64_t own = (rows + chunk_rows - 1) / chunk_rows;
        int64_t before = own; /* of the lanes up to this one, then of all threads before it */
        for (int step = 1; step < 32; step *= 2) {
            const int64_t lower = __shfl_up_sync(0xFFFFFFFF, before, step);
            if ((int)threadIdx.x % 32 >= step)
                before += lower;
        }
        if (threadIdx.x % 32 == 31)
            totals[threadIdx.x / 32] = before;
        __syncthreads();
        before += placed - own;
        for (int w = 0; w < PLAN_THREADS / 32; w++) {
            if (w < (int)threadIdx.x / 32)
                before += totals[w];
            placed += totals[w];
        }
        for (int64_t i = 0; i < own && before + i < chunks; i++)
            plan[before + i] = {(int32_t)expert, (int32_t)min((int64_t)chunk_rows, rows - i * chunk_rows),
                                first + i * chunk_rows};
        __syncthreads();
    }
    if (threadIdx.x == 0)
        plan[chunks] = {-1, 0, min(placed, chunks)};
}

/* x times the multipliers of its rows' experts, in floats without gaps. */
__global__ void __launch_bounds__(256)
    multiply_rows(XRows x, const GroupedExpert *experts, const GroupedChunk *chunks, int64_t k, float *out) {
    const GroupedChunk chunk = chunks[blockIdx.y];
    const int64_t column = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (chunk.expert < 0 || column >= k)
        return;
    const float *multiplier = experts[chunk.expert].multiplier;
    const float factor = multiplier ? multiplier[column] : 1.0f;
    for (int64_t row = chunk.row; row < chunk.row + chunk.rows; row++)
        out[row * k + column] = __fmul_rn(load_number(x.type, x.data, row * x.ld + column), factor);
}

static bool is_codes(int32_t compute) {
    return compute == GATUN_COMPUTE_I8 || compute == GATUN_COMPUTE_F8 || compute == GATUN_COMPUTE_F8_BLOCK;
}

/* Whether one launch of Hopper's kernels takes both: beside one layout of the tiles they have one table of codes. */
static bool are_alike(const gatun_cuda_packed &a, const gatun_cuda_packed &b) {
    return a.form == b.form && a.group == b.group && a.scale_type == b.scale_type &&
           a.matrix.encoding == b.matrix.encoding && a.matrix.codebook_size == 0 && b.matrix.codebook_size == 0 &&
           a.matrix.zero_point == b.matrix.zero_point && !a.zeros_offset == !b.zeros_offset &&
           !a.offsets_offset == !b.offsets_offset;
}

/* The compute types of Hopper's kernels for a weight, as bits. */
static int32_t hopper_computes(const gatun_cuda_packed &p) {
    int32_t computes = p.form == GATUN_CUDA_FORM_CODES4 ? 1 << GATUN_COMPUTE_BF16 : 0;
    for (int32_t compute = GATUN_COMPUTE_I8; compute <= GATUN_COMPUTE_F8_BLOCK; compute++)
        if (is_codes(compute) && takes_codes(p, compute) && multiplies_bytes(p, compute))
            computes |= 1 << compute;
    return computes;
}

/* Rows of a chunk: a tile of y should have about those of an expert. */
static int hopper_rows(const gatun_cuda_group &g, int64_t m, int32_t compute) {
    const int64_t each = m / (g.count < m ? g.count : m);
    if (is_codes(compute))
        return each <= 32 ? 64 : each <= 256 || compute == GATUN_COMPUTE_I8 ? 128 : 192;
    const bool streams = !g.affine && (g.group % GATUN_CUDA_STEP_K == 0 ||
                                       (g.group == GATUN_CUDA_STEP_K / 2 && g.scale_type != GATUN_F32));
    const bool large = g.tiles * g.steps >= 16 << 10; /* 8 MiB of codes */
    if (streams && large && each <= 4)
        return GROUPED_STREAM_ROWS;
    return each <= 8 ? 16 : each <= 32 ? 64 : each < 128 ? 128 : 256;
}

/* The parts of the workspace. */
struct GroupedSpace {
    bool hopper; /* its kernels multiply */
    int chunk_rows;
    int64_t chunks, row; /* `row`: elements of a row of codes */
    int64_t plan, multiplied, x, scales, block_scales, codes;
    int64_t total() const { return plan + multiplied + x + scales + block_scales + codes; }
};

static GroupedSpace space_of(const gatun_cuda_group &g, int64_t m, int32_t compute) {
    GroupedSpace s = {};
    const bool tiles = compute == GATUN_COMPUTE_BF16 && g.form != GATUN_CUDA_FORM_SOURCE;
    s.hopper = g.hopper & 1 << compute;
    s.chunk_rows = s.hopper                                   ? hopper_rows(g, m, compute)
                   : tiles && m <= g.count * GROUPED_FEW_ROWS ? GROUPED_FEW_ROWS
                                                              : GROUPED_ROWS;
    s.chunks = m / s.chunk_rows + (g.count < m ? g.count : m); /* every run may leave a part of one over */
    s.plan = aligned_bytes((s.chunks + 1) * (int64_t)sizeof(GroupedChunk));
    const int64_t steps = (g.k + GATUN_CUDA_STEP_K - 1) / GATUN_CUDA_STEP_K;
    s.row = steps * GATUN_CUDA_STEP_K;
    if (s.hopper && is_codes(compute)) {
        s.scales = aligned_bytes(m * 4);
        s.block_scales = aligned_bytes((steps + 1) / 2 * s.chunks * s.chunk_rows * 4);
        s.codes = aligned_bytes(s.chunks * s.chunk_rows * s.row);
        return s;
    }
    if (g.multiplies && (s.hopper || is_codes(compute)))
        s.multiplied = aligned_bytes(m * g.k * 4);
    if (s.hopper) {
        s.x = aligned_bytes(m * ((g.k + 7) / 8 * 8) * 2);
    } else if (tiles) {
        s.x = aligned_bytes(s.chunks * s.chunk_rows * steps * GATUN_CUDA_STEP_K * 2);
    } else if (is_codes(compute)) {
        s.scales = aligned_bytes(m * 4);
        s.codes = aligned_bytes(m * s.row * 2);
    }
    return s;
}

static gatun_status multiply_hopper(const gatun_cuda_group &group, const GroupedRows &g, const GroupedSpace &space,
                                    int32_t compute, uint8_t *workspace, const DeviceTraits &traits,
                                    cudaStream_t stream) {
#if GATUN_CUDA_HOPPER
    gatun_cuda_packed common = {};
    common.matrix.n = g.n, common.matrix.k = g.k;
    common.tiles = g.tiles, common.steps = g.steps, common.group = group.group;
    common.groups = (g.k + group.group - 1) / group.group;
    common.scale_type = group.scale_type;
    TileLinear p = tiles_of(common, g.x, g.m, g.epilogue);
    if (compute == GATUN_COMPUTE_BF16) {
        p.rows = rows_to_copy(p, (uint32_t *)workspace, stream);
        return g.chunk_rows == GROUPED_STREAM_ROWS ? launch_grouped_stream(g, p, traits, stream)
                                                   : launch_grouped_fused(g, p, traits.multiprocessors, stream);
    }
    float *row_scales = (float *)workspace, *block_scales = (float *)(workspace + space.scales);
    uint8_t *codes = workspace + space.scales + space.block_scales;
    quantize_chunks(g, compute, codes, space.row, row_scales, block_scales, stream);
    const bool blocks = compute == GATUN_COMPUTE_F8_BLOCK;
    p.epilogue.x_scales = blocks ? nullptr : row_scales;
    p.epilogue.w_scale_type = p.scale_type; /* where there is one scale a row, each expert has its own */
    const CodesOfX x = {codes, space.row, blocks ? block_scales : nullptr, g.chunks * g.chunk_rows};
    return launch_grouped_codes(g, p, x, compute == GATUN_COMPUTE_I8, traits.multiprocessors, stream);
#else
    return GATUN_UNSUPPORTED;
#endif
}

} // namespace gatun

using namespace gatun;

extern "C" {

gatun_status gatun_cuda_group_size(int64_t count, int64_t *size) {
    if (!size || count < 1 || count > INT32_MAX)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "grouped linear: found %lld experts", (long long)count);
    *size = count * (int64_t)sizeof(GroupedExpert);
    return GATUN_OK;
}

gatun_status gatun_cuda_group_pack(int32_t device, const gatun_cuda_expert *experts, int64_t count,
                                   gatun_cuda_ptr block, int64_t block_size, gatun_cuda_group *group,
                                   gatun_cuda_stream stream) {
    int64_t size = 0;
    GATUN_CUDA_TRY(gatun_cuda_group_size(count, &size));
    if (!experts || !group || !block || block % GATUN_CUDA_ALIGNMENT || block_size < size)
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "grouped linear: found a block of %lld bytes, expected %lld, aligned to 256",
                               (long long)block_size, (long long)size);
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    gatun_cuda_group g = {};
    g.count = count;
    g.block = block;
    for (int64_t e = 0; e < count; e++) {
        const gatun_cuda_packed *p = experts[e].packed;
        if (!p || !p->block)
            return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "grouped linear: found no weight for expert %lld",
                                   (long long)e);
        if (e == 0) {
            g.n = p->matrix.n, g.k = p->matrix.k;
            g.encoding = p->matrix.encoding, g.form = p->form;
            g.tiles = p->tiles, g.steps = p->steps, g.group = p->group;
        }
        const gatun_cuda_packed &first = *experts[0].packed;
        if (p->matrix.n != g.n || p->matrix.k != g.k)
            return gatun_cuda_fail(
                GATUN_INVALID_ARGUMENT,
                "grouped linear: found expert %lld of %lld x %lld, expected %lld x %lld as the first", (long long)e,
                (long long)p->matrix.n, (long long)p->matrix.k, (long long)g.n, (long long)g.k);
        if (p->form != first.form || p->group != first.group || p->matrix.encoding != first.matrix.encoding)
            g.form = GATUN_CUDA_FORM_SOURCE;
        if (e == 0)
            g.codes = INT32_MAX, g.scale_type = p->scale_type, g.hopper = traits.hopper ? hopper_computes(*p) : 0;
        g.hopper &= are_alike(first, *p) ? hopper_computes(*p) : 0;
        for (int32_t compute = GATUN_COMPUTE_I8; compute <= GATUN_COMPUTE_F8_BLOCK; compute++)
            if (!takes_codes(*p, compute))
                g.codes &= ~(1 << compute);
        g.multiplies |= experts[e].x_multiplier != 0;
        g.affine |= p->zeros_offset != 0 || p->offsets_offset != 0;
    }
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    GroupedExpert *on_device = (GroupedExpert *)(uintptr_t)block;
    for (int64_t e = 0; e < count; e++) {
        GroupedExpert expert = {};
        expert.packed = *experts[e].packed;
        if (expert.packed.form != GATUN_CUDA_FORM_SOURCE)
            expert.tiles = tiles_of(expert.packed, {}, 0, {});
#if GATUN_CUDA_HOPPER
        if (g.hopper & ~(1 << GATUN_COMPUTE_BF16))
            GATUN_CUDA_TRY(describe_codes(&expert));
#endif
        expert.bias = (const float *)(uintptr_t)experts[e].bias;
        expert.multiplier = (const float *)(uintptr_t)experts[e].x_multiplier;
        /* Memory that is not page-locked has been read when this returns. */
        GATUN_CUDA_TRY(gatun_cuda_status(
            cudaMemcpyAsync(on_device + e, &expert, sizeof expert, cudaMemcpyHostToDevice, gatun_cuda_raw(stream)),
            "grouped linear"));
    }
    *group = g;
    return GATUN_OK;
}

gatun_status gatun_cuda_linear_grouped_workspace(const gatun_cuda_group *group, int64_t m, int32_t compute,
                                                 int64_t *size) {
    if (!group || !size || m < 1)
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT, "grouped linear: found a null pointer or %lld rows",
                               (long long)m);
    *size = space_of(*group, m, compute).total();
    return GATUN_OK;
}

gatun_status gatun_cuda_linear_grouped(int32_t device, const gatun_cuda_group *group, gatun_cuda_ptr offsets,
                                       gatun_cuda_ptr x, int32_t x_type, int64_t ldx, int64_t m, gatun_cuda_ptr y,
                                       int32_t y_type, int64_t ldy, int32_t activation, int32_t combine,
                                       gatun_cuda_ptr other, int64_t ld_other, int32_t compute,
                                       gatun_cuda_ptr workspace, int64_t workspace_size, gatun_cuda_stream stream) {
    if (!group || !group->block || !offsets || !x || !y || !is_plain(x_type) || !is_plain(y_type) || m < 1 ||
        ldx < group->k || ldy < group->n || (combine != GATUN_COMBINE_NONE && (!other || ld_other < group->n)))
        return gatun_cuda_fail(GATUN_INVALID_ARGUMENT,
                               "grouped linear: found a null pointer, %lld rows of x of type %d %lld apart, of y of "
                               "type %d %lld apart",
                               (long long)m, x_type, (long long)ldx, y_type, (long long)ldy);
    const bool codes = is_codes(compute);
    if ((compute != GATUN_COMPUTE_F32 && compute != GATUN_COMPUTE_BF16 && !codes) ||
        (codes && !(group->codes & 1 << compute)))
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "grouped linear: no kernel with compute type %d for encoding %d",
                               compute, group->encoding);
    const GroupedSpace space = space_of(*group, m, compute);
    if (workspace_size < space.total() || !workspace || workspace % GATUN_CUDA_ALIGNMENT)
        return gatun_cuda_fail(GATUN_BUFFER_TOO_SMALL,
                               "grouped linear: found a workspace of %lld bytes, expected %lld, aligned to 256",
                               (long long)workspace_size, (long long)space.total());
    if (space.chunks > 65535)
        return gatun_cuda_fail(GATUN_UNSUPPORTED, "grouped linear: found %lld rows of %lld experts, expected fewer",
                               (long long)m, (long long)group->count);
    GATUN_CUDA_TRY(gatun_cuda_check_aligned(
        "grouped linear",
        {{"x", x, x_type}, {"y", y, y_type}, {"other", other, y_type}, {"offsets", offsets, GATUN_CUDA_INT64}}));
    GATUN_CUDA_TRY(gatun_cuda_use(device));
    if (group->n == 0)
        return GATUN_OK;

    const cudaStream_t raw = gatun_cuda_raw(stream);
    uint8_t *scratch = (uint8_t *)(uintptr_t)workspace;
    GroupedChunk *plan = (GroupedChunk *)scratch;
    GroupedRows g = {(const GroupedExpert *)(uintptr_t)group->block,
                     plan,
                     space.chunks,
                     space.chunk_rows,
                     m,
                     group->n,
                     group->k,
                     group->tiles,
                     group->steps,
                     group->group % GATUN_CUDA_STEP_K == 0,
                     group->affine != 0,
                     group->count < m ? group->count : m,
                     {(const void *)(uintptr_t)x, x_type, ldx, nullptr},
                     epilogue_of(y, y_type, ldy, 0, activation, combine, other, ld_other)};
    plan_chunks<<<1, PLAN_THREADS, 0, raw>>>((const int64_t *)(uintptr_t)offsets, group->count, m, space.chunk_rows,
                                             space.chunks, plan);
    uint8_t *part = scratch + space.plan;
    if (space.multiplied) {
        dim3 grid((unsigned)((group->k + 255) / 256), (unsigned)space.chunks);
        multiply_rows<<<grid, 256, 0, raw>>>(g.x, g.experts, plan, group->k, (float *)part);
        g.x = {part, GATUN_F32, group->k, nullptr};
        part += space.multiplied;
    }
    DeviceTraits traits;
    GATUN_CUDA_TRY(device_traits(device, &traits));
    if (space.hopper) {
        GATUN_CUDA_TRY(multiply_hopper(*group, g, space, compute, part, traits, raw));
    } else if (codes) {
        float *scales = (float *)part;
        uint16_t *widened = (uint16_t *)(part + space.scales);
        quantize_widened(g.x, m, group->k, compute, widened, space.row, scales, raw);
        g.x = {widened, GATUN_BF16, space.row, nullptr};
        g.epilogue.x_scales = compute == GATUN_COMPUTE_F8_BLOCK ? nullptr : scales;
        GATUN_CUDA_TRY(launch_grouped_f32(g, GATUN_I8, raw));
    } else if (compute == GATUN_COMPUTE_BF16 && group->form != GATUN_CUDA_FORM_SOURCE) {
        GATUN_CUDA_TRY(group->form == GATUN_CUDA_FORM_CODES4 ? launch_grouped<4>(g, traits, (uint32_t *)part, raw)
                                                             : launch_grouped<8>(g, traits, (uint32_t *)part, raw));
    } else {
        GATUN_CUDA_TRY(launch_grouped_f32(g, compute == GATUN_COMPUTE_BF16 ? GATUN_BF16 : GATUN_F32, raw));
    }
    return gatun_cuda_launched(GATUN_OP_LINEAR, compute, group->encoding, "grouped linear");
}

} // extern "C"
