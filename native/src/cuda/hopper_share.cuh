/*
 * Tiles of y among the clusters of a launch so that all end together. Where whole tiles would keep only some clusters
 * busy in the last turn, the rounds of k of as many tiles as need be are divided first: each cluster gets a run of
 * them, which may begin and end within a tile. Sums of a tile whose first rounds are not its own a cluster leaves in
 * the workspace, for the cluster that has these and stores the tile.
 *
 * A cluster does what it leaves before anything else, and waits only for clusters whose blocks are started before its
 * own, so that nobody waits for a block that is not there yet.
 *
 * These kernels, and the small one before them that clears the flags, may start before what is ahead of them in the
 * stream has ended (programmatic dependent launch): until it has, they only prepare and read the weight.
 */
#ifndef GATUN_CUDA_HOPPER_SHARE_CUH
#define GATUN_CUDA_HOPPER_SHARE_CUH

#include "hopper.cuh"

namespace gatun {

__device__ inline void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void wait_for_earlier() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

/* The rounds from, .., to - 1 of a tile. */
struct Segment {
    int item, from, to;
};

struct Share {
    int items, rounds; /* tiles, and rounds of k of each */
    int clusters;      /* of the launch */
    int shared;        /* the first tiles, whose rounds are divided */
    float4 *left;      /* sums: [cluster][block][warpgroup][fours of a thread][128 threads] */
    uint32_t *ready;   /* [cluster][block][warpgroup] */

    __device__ int begin(int place) const { return shared * rounds * place / clusters; }
    __device__ int place(int cluster) const { return clusters - 1 - cluster; }
};

/* What a cluster does, one after the other. */
struct Walk {
    const Share &share;
    int at, end, whole;

    __device__ Walk(const Share &share, int cluster)
        : share(share), at(share.begin(share.place(cluster))), end(share.begin(share.place(cluster) + 1)),
          whole(share.shared + cluster) {}

    __device__ bool next(Segment *s) {
        if (at < end) {
            s->item = at / share.rounds;
            s->from = at - s->item * share.rounds;
            s->to = min(share.rounds, s->from + end - at);
            at += s->to - s->from;
            return true;
        }
        if (whole >= share.items)
            return false;
        *s = {whole, 0, share.rounds};
        whole += share.clusters;
        return true;
    }
};

/* A warpgroup's sums, left by the cluster at `place` or added to those that it left. */
template <typename T, int COUNT> struct LeftSums {
    float4 *sums;
    uint32_t *ready;
    int meet;

    /* warpgroup: of the launch. */
    __device__ LeftSums(const Share &share, int64_t warpgroup, int meet) : meet(meet) {
        sums = share.left + warpgroup * (COUNT / 4) * 128 + threadIdx.x % 128;
        ready = share.ready + warpgroup;
    }
    /* The bits of a sum as those of a float. */
    __device__ static float number(float v) { return v; }
    __device__ static float number(int32_t v) { return __int_as_float(v); }
    __device__ static T sum(float bits) {
        if constexpr (T(0.5) != T(0))
            return bits;
        else
            return __float_as_int(bits);
    }
    __device__ void leave(const T (&d)[COUNT]) const {
#pragma unroll
        for (int i = 0; i < COUNT / 4; i++)
            __stcg(&sums[i * 128],
                   make_float4(number(d[4 * i]), number(d[4 * i + 1]), number(d[4 * i + 2]), number(d[4 * i + 3])));
        __threadfence();
        warpgroup_meet(meet);
        if (threadIdx.x % 128 == 0)
            asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(ready) : "memory");
    }
    __device__ void add(T (&d)[COUNT]) const {
        if (threadIdx.x % 128 == 0) {
            uint32_t there;
            do
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(ready) : "memory");
            while (!there);
        }
        warpgroup_meet(meet);
        constexpr int AT_ONCE = 8; /* loads under way */
#pragma unroll
        for (int first = 0; first < COUNT / 4; first += AT_ONCE) {
            float4 more[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                more[i] = __ldcg(&sums[(first + i) * 128]);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                T *to = d + 4 * (first + i);
                to[0] += sum(more[i].x), to[1] += sum(more[i].y), to[2] += sum(more[i].z), to[3] += sum(more[i].w);
            }
        }
    }
};

/* Whether a warpgroup's sums of a segment are those of the whole tile, now that it has done its part of them: adds what
 * others left, or leaves them. own: which of a block's WARPGROUPS it is. */
template <int WARPGROUPS, typename T, int COUNT>
__device__ inline bool completes(const Share &share, const Segment &s, int cluster, int rank, int own, int meet,
                                 T (&d)[COUNT]) {
    int place = share.place(cluster);
    auto left = [&] { return LeftSums<T, COUNT>(share, (place * 2 + rank) * WARPGROUPS + own, meet); };
    if (s.from > 0) {
        left().leave(d);
        return false;
    }
    for (int done = s.to; done < share.rounds; done += share.begin(place + 1) - share.begin(place)) {
        place++;
        left().add(d);
    }
    return true;
}

/* ---- host ---- */

enum { SHARE_PARTS = 4 /* of a tile at most */, SHARE_FLAGS = 6 * GATUN_CUDA_SHARE_CLUSTERS * 4 /* bytes */ };

/* A launch that may start early. */
template <typename... Parameters, typename... Arguments>
inline gatun_status launch_early(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes,
                                 cudaStream_t stream, const Arguments &...arguments) {
    auto attribute = cudaFuncAttributeMaxDynamicSharedMemorySize;
    GATUN_CUDA_TRY(gatun_cuda_status(cudaFuncSetAttribute(kernel, attribute, shared_bytes), "linear"));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)blocks);
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)shared_bytes;
    config.stream = stream;
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &early;
    config.numAttrs = 1;
    return gatun_cuda_status(cudaLaunchKernelEx(&config, kernel, arguments...), "linear");
}

/* One warp, so that it finds room beside the blocks of the kernel ahead. */
static __global__ void __launch_bounds__(32) clear_flags(uint4 *flags) {
    let_next_begin();
    wait_for_earlier();
    for (int i = threadIdx.x; i < SHARE_FLAGS / 16; i += 32)
        flags[i] = make_uint4(0, 0, 0, 0);
}

/* `worth`: the rounds that must be saved, since what is left costs time as well. */
inline gatun_status share_tiles(Share *out, int64_t items, int rounds, int worth, int multiprocessors, void *workspace,
                                cudaStream_t stream) {
    const int64_t most =
        multiprocessors / 2 < GATUN_CUDA_SHARE_CLUSTERS ? multiprocessors / 2 : GATUN_CUDA_SHARE_CLUSTERS;
    const int64_t turns = (items + most - 1) / most;
    int64_t clusters = most, shared = items % most ? items % most + (items > most ? most : 0) : 0;
    if (items < most && clusters > items * SHARE_PARTS)
        clusters = items * SHARE_PARTS;
    const int64_t divided = (items - shared) / most * rounds + (shared * rounds + clusters - 1) / clusters;
    if (turns * rounds - divided < worth)
        shared = 0, clusters = items < most ? items : most;
    *out = {(int)items,           rounds, (int)clusters, (int)shared, (float4 *)((uint8_t *)workspace + SHARE_FLAGS),
            (uint32_t *)workspace};
    if (shared)
        return launch_early(clear_flags, 1, 32, 0, stream, (uint4 *)workspace);
    return GATUN_OK;
}

} // namespace gatun

#endif
