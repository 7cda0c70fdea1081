/*
 * Hopper's own instructions as functions: barriers in shared memory, the tensor copy engine, products of a warpgroup
 * (wgmma). Sources that include this are compiled for sm_90a alone.
 *
 * Operands in shared memory lie as the copy engine writes them with its 128-byte swizzle: rows of 128 bytes along k,
 * eight rows a kilobyte.
 */
#ifndef GATUN_CUDA_HOPPER_CUH
#define GATUN_CUDA_HOPPER_CUH

#include <cuda.h>

#include "linear.cuh"

namespace gatun {

__device__ inline uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- clusters of two blocks ---- */

__device__ inline uint32_t cluster_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ inline void cluster_meet() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/* ---- barriers in shared memory ---- */

__device__ inline void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ inline void barrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void barrier_expect(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ inline void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ inline void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

/* Arrives at the same barrier of a block of the cluster: what this thread read may be written again. Nothing that it
 * wrote is published, so a fence of the whole GPU is not asked for. */
__device__ inline void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
                 "r"(rank)
                 : "memory");
}

/* The threads of one warpgroup meet; id 1 and on. */
__device__ inline void warpgroup_meet(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }

__device__ inline void two_warpgroups_meet(int id) { asm volatile("bar.sync %0, 256;" ::"r"(id) : "memory"); }

/* ---- the copy engine ---- */

/* A box of a matrix into the shared memory of both blocks of the cluster at the same place, counted by each one's
 * barrier. Beyond the matrix: zeros. */
__device__ inline void copy_box_to_both(uint32_t to, const CUtensorMap *map, uint32_t barrier, int column, int row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(column), "r"(row), "h"((uint16_t)3)
                 : "memory");
}

__device__ inline void copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int column, int row) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(column), "r"(row)
                 : "memory");
}

/* A run of bytes; both ends and the size are multiples of 16. */
__device__ inline void copy_bytes(uint32_t to, const void *from, int bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

/* ---- products of a warpgroup ---- */

/* An operand of rows of 128 bytes, swizzled; rows of eight are 1024 bytes apart. `at`: shared address. */
__device__ inline uint64_t operand(uint32_t at) {
    return (uint64_t)(at >> 4 & 0x3FFF) | 1ULL << 16 | 64ULL << 32 | 1ULL << 62;
}

__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until at most PENDING of the groups committed last are under way. */
template <int PENDING> __device__ inline void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
/* Keeps the compiler from moving the sums of products under way. */
template <typename T, int COUNT> __device__ inline void hold(T (&d)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if constexpr (sizeof(T) == 4 && T(0.5) != T(0))
            asm volatile("" : "+f"(d[i])::"memory");
        else
            asm volatile("" : "+r"(d[i])::"memory");
}

#define GATUN_D8  "%0, %1, %2, %3, %4, %5, %6, %7"
#define GATUN_D16 GATUN_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define GATUN_D32                                                                                                      \
    GATUN_D16 ", "                                                                                                     \
              "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GATUN_D64                                                                                                      \
    GATUN_D32 ", "                                                                                                     \
              "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
              "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GATUN_D96                                                                                                      \
    GATUN_D64 ", "                                                                                                     \
              "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                       \
              "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define GATUN_D128                                                                                                     \
    GATUN_D96 ", "                                                                                                     \
              "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "           \
              "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define GATUN_S8(c, d, i)                                                                                              \
    c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define GATUN_S16(c, d, i)  GATUN_S8(c, d, i), GATUN_S8(c, d, i + 8)
#define GATUN_S32(c, d, i)  GATUN_S16(c, d, i), GATUN_S16(c, d, i + 16)
#define GATUN_SUMS8(c, d)   GATUN_S8(c, d, 0)
#define GATUN_SUMS16(c, d)  GATUN_S16(c, d, 0)
#define GATUN_SUMS32(c, d)  GATUN_S32(c, d, 0)
#define GATUN_SUMS64(c, d)  GATUN_SUMS32(c, d), GATUN_S32(c, d, 32)
#define GATUN_SUMS96(c, d)  GATUN_SUMS64(c, d), GATUN_S32(c, d, 64)
#define GATUN_SUMS128(c, d) GATUN_SUMS96(c, d), GATUN_S32(c, d, 96)

/* 64 rows of a (registers) times N rows of b, 16 k. */
#define GATUN_BF16(n, sums, a0, a1, a2, a3, b, more)                                                                   \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #more ", 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" GATUN_D##sums                            \
                 "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b ", p, 1, 1, 0;\n}"                                \
                 : GATUN_SUMS##sums("+f", d)                                                                           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_operand), "r"((int)accumulate))

template <int N>
__device__ inline void multiply_bf16(float (&d)[N / 2], const uint32_t *a, uint64_t b_operand, bool accumulate) {
    if constexpr (N == 16)
        GATUN_BF16(16, 8, 8, 9, 10, 11, 12, 13);
    else if constexpr (N == 32)
        GATUN_BF16(32, 16, 16, 17, 18, 19, 20, 21);
    else if constexpr (N == 64)
        GATUN_BF16(64, 32, 32, 33, 34, 35, 36, 37);
    else if constexpr (N == 128)
        GATUN_BF16(128, 64, 64, 65, 66, 67, 68, 69);
    else
        GATUN_BF16(256, 128, 128, 129, 130, 131, 132, 133);
}

/* 64 rows of a times N rows of b, 32 k of 8-bit codes, both in shared memory. */
#define GATUN_E4M3(n, sums, a, b, more)                                                                                \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #more ", 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k32.f32.e4m3.e4m3 {" GATUN_D##sums "}, %" #a ", %" #b         \
                                                                                            ", p, 1, 1;\n}"            \
                 : GATUN_SUMS##sums("+f", d)                                                                           \
                 : "l"(a_operand), "l"(b_operand), "r"((int)accumulate))
#define GATUN_I8(n, sums, a, b, more)                                                                                  \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #more ", 0;\n"                                                   \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k32.s32.s8.s8 {" GATUN_D##sums "}, %" #a ", %" #b ", p;\n}"   \
                 : GATUN_SUMS##sums("+r", d)                                                                           \
                 : "l"(a_operand), "l"(b_operand), "r"((int)accumulate))

template <int N>
__device__ inline void multiply_codes(float (&d)[N / 2], uint64_t a_operand, uint64_t b_operand, bool accumulate) {
    if constexpr (N == 64)
        GATUN_E4M3(64, 32, 32, 33, 34);
    else if constexpr (N == 128)
        GATUN_E4M3(128, 64, 64, 65, 66);
    else
        GATUN_E4M3(192, 96, 96, 97, 98);
}
template <int N>
__device__ inline void multiply_codes(int32_t (&d)[N / 2], uint64_t a_operand, uint64_t b_operand, bool accumulate) {
    if constexpr (N == 64)
        GATUN_I8(64, 32, 32, 33, 34);
    else if constexpr (N == 128)
        GATUN_I8(128, 64, 64, 65, 66);
    else
        GATUN_I8(256, 128, 128, 129, 130);
}

/* ---- the end of a tile ---- */

enum { STAGE_COLUMNS = 32, STAGE_PITCH = 68, STAGE_BYTES = STAGE_COLUMNS * STAGE_PITCH * 4 };

/* A warpgroup's sums of 64 rows of W from n0 on by MT rows of x from m0 on, through its `stage` in shared memory, so
 * that rows of y are written in runs of 64. `meet`: the warpgroup's barrier. */
template <int MT, typename T>
__device__ inline void store_sums(const T (&d)[MT / 2], float *stage, int meet, const Epilogue &epilogue, int64_t n0,
                                  int64_t m0, int64_t n, int64_t m) {
    constexpr int COLUMNS = MT < STAGE_COLUMNS ? MT : STAGE_COLUMNS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32, g = lane / 4, t = lane % 4;
    const int four = threadIdx.x % 16 * 4, own_row = threadIdx.x % 128 / 16;
    float scales[4], biases[4];
    epilogue.columns(n0 + four, n, scales, biases);
    /* One copy of the code for all parts: what runs once a tile comes from far away, and its length is its cost. */
#pragma unroll 1
    for (int c = 0; c < MT / COLUMNS; c++) {
        const int64_t first = m0 + c * COLUMNS;
        if (first >= m)
            break;
        warpgroup_meet(meet);
#pragma unroll
        for (int part = 0; part < MT / COLUMNS; part++)
            if (part == c) /* registers have no index */
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        stage[(8 * j + 2 * t + e % 2) * STAGE_PITCH + 16 * warp + g + e / 2 * 8] =
                            (float)d[(part * (COLUMNS / 8) + j) * 4 + e];
        warpgroup_meet(meet);
#pragma unroll 2
        for (int row = own_row; row < COLUMNS; row += 8)
            if (first + row < m)
                epilogue.store_four(first + row, n0 + four, n, *(const float4 *)&stage[row * STAGE_PITCH + four],
                                    scales, biases);
    }
}

/* Rows of `row_bytes` bytes as the copy engine reads them: boxes of 128 bytes by `box_rows` rows, swizzled. hopper.cu
 */
gatun_status tensor_map(CUtensorMap *map, CUtensorMapDataType type, const void *base, int64_t columns, int64_t rows,
                        int64_t row_bytes, int box_rows);

/* Which tile a cluster computes: pairs of 128 rows of W by tiles of x, up to 16 of these side by side so that what they
 * share of W stays in the L2. */
struct Schedule {
    int pairs, m_tiles;

    __device__ int items() const { return pairs * m_tiles; }
    __device__ void at(int item, int *pair, int *m_tile) const {
        const int wide = 16, band = item / (wide * pairs), first = band * wide;
        const int here = min(wide, m_tiles - first), within = item - band * wide * pairs;
        *pair = within / here;
        *m_tile = first + within % here;
    }
};

} // namespace gatun

#endif
