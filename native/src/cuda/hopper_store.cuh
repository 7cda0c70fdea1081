/*
 * The end of a tile through Hopper's copy engine: 16-bit numbers of y go to shared memory as matrices of 8 x 8, and
 * from there in boxes of 64 columns while the next tile is multiplied.
 */
#ifndef GATUN_CUDA_HOPPER_STORE_CUH
#define GATUN_CUDA_HOPPER_STORE_CUH

#include "hopper.cuh"

namespace gatun {

enum { BOX_ROWS = 64, BOX_BYTES = BOX_ROWS * 128 };

/* Whether the copy engine can store y: 16-bit numbers in rows 16 bytes aligned that need no more than scales and bias.
 */
inline bool stores_boxes(const Epilogue &e) {
    return e.y_type != GATUN_F32 && e.activation == GATUN_ACTIVATION_NONE && e.combine == GATUN_COMBINE_NONE &&
           e.ldy % 8 == 0 && (uintptr_t)e.y % 16 == 0;
}

/* y for the boxes; one of nothing where the copy engine cannot store it. */
inline gatun_status store_map(CUtensorMap *map, const Epilogue &e, int64_t n, int64_t m) {
    *map = CUtensorMap{};
    if (!stores_boxes(e))
        return GATUN_OK;
    return tensor_map(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, e.y, n, m, e.ldy * 2, BOX_ROWS);
}

/* Four matrices of 8 x 8 numbers of 16 bits, each lane the address of a row of one; TRANSPOSED: of a column. */
template <bool TRANSPOSED>
__device__ inline void store_matrices(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    if (TRANSPOSED)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a),
                     "r"(b), "r"(c), "r"(d)
                     : "memory");
    else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b),
                     "r"(c), "r"(d)
                     : "memory");
}

/*
 * A warpgroup's boxes on their way out of shared memory, COUNT of them in turns. All of its threads call `begin`, write
 * box `address(i)` as the copy engine's swizzle wants it, and call `end`; thread 0 of the warpgroup does the copying.
 */
template <int COUNT> struct Boxes {
    uint32_t memory; /* 1 KiB aligned */
    int meet;        /* the warpgroup's barrier */
    bool first;

    __device__ Boxes(uint32_t memory, int meet) : memory(memory), meet(meet), first(threadIdx.x % 128 == 0) {}

    __device__ uint32_t address(int i) const { return memory + i % COUNT * BOX_BYTES; }
    /* Until the box written COUNT boxes ago has been read. */
    __device__ void begin() const {
        if (first)
            asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(COUNT - 1) : "memory");
        warpgroup_meet(meet);
    }
    __device__ void end(int i, const CUtensorMap *y, int64_t n, int64_t m) const {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        warpgroup_meet(meet);
        if (first) {
            asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(y),
                         "r"((int)n), "r"((int)m), "r"(address(i))
                         : "memory");
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        }
    }
    /* Before shared memory goes away. */
    __device__ void finish() const {
        if (first)
            asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
};

} // namespace gatun

#endif
