/*
 * What the kernels on tensor-core tiles share: decoding a step of codes into the A operands of mma.m16n8k16, and its
 * scales.
 *
 * Codes become bfloat16 through a table in shared memory that holds one copy a lane, so that no two lanes meet in a
 * bank; for 4 bits the entry of a byte is the pair of its two codes.
 */
#ifndef GATUN_CUDA_TILES_CUH
#define GATUN_CUDA_TILES_CUH

#include "linear.cuh"

namespace gatun {

__device__ inline void mma16816(float *c, const uint32_t *a, const uint32_t *b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t pair_bf16(float low, float high) {
    uint32_t w;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
    return w;
}

/* 256 entries of 32 copies, 128 bytes an entry. Addresses are those of shared memory, not generic ones, and an entry's
 * offset is cut out of the codes in place: a shift, a mask and the load for each pair of weights. */
struct Table {
    uint32_t base; /* of the table */
    uint32_t lane; /* 4 * lane */

    __device__ Table(const uint32_t *shared)
        : base((uint32_t)__cvta_generic_to_shared(shared)), lane(threadIdx.x % 32 * 4) {}

    __device__ static void fill(uint32_t *shared, const float *table, int bits) {
        for (int i = threadIdx.x; i < 256 * 32; i += blockDim.x) {
            int entry = i / 32;
            shared[i] = bits == 4 ? pair_bf16(table[entry & 15], table[entry >> 4]) : pair_bf16(table[entry], 0.0f);
        }
    }
    /* The entry of byte i of the word. */
    __device__ uint32_t of_byte(uint32_t word, int i) const {
        uint32_t offset = ((i == 0 ? word << 7 : word >> (8 * i - 7)) & 0x7F80) | lane, entry;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(entry) : "r"(base + offset));
        return entry;
    }
};

__device__ inline uint32_t word_of(const uint4 &q, int i) { return i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w; }

/* The A fragment of product s: for each of four pairs two consecutive k as bfloat16. */
template <int BITS> __device__ inline void fragment(uint32_t *a, const uint4 *q, int s, Table table) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (BITS == 4) {
            a[i] = table.of_byte(word_of(q[0], s), i);
        } else {
            uint32_t word = word_of(q[s / 2], s % 2 * 2 + i / 2);
            a[i] = __byte_perm(table.of_byte(word, i % 2 * 2), table.of_byte(word, i % 2 * 2 + 1), 0x5410);
        }
    }
}

/* The scales of rows g and g + 8 of a tile for the groups of one step, as they lie in memory. */
template <int GROUPS> struct Scales {
    uint32_t bits[GROUPS][2];

    __device__ void load(int group, const void *scales, int32_t type, int at, bool there) {
        bits[group][0] = bits[group][1] = 0;
        if (!there)
            return;
        if (type == GATUN_F32) {
            bits[group][0] = __ldg((const uint32_t *)scales + at);
            bits[group][1] = __ldg((const uint32_t *)scales + at + 8);
        } else {
            bits[group][0] = __ldg((const uint16_t *)scales + at);
            bits[group][1] = __ldg((const uint16_t *)scales + at + 8);
        }
    }
    /* Without a branch: a shift for bfloat16 and float, a conversion for binary16. */
    __device__ float value(int group, int row, int32_t type) const {
        uint32_t b = bits[group][row];
        float shifted = __uint_as_float(b << (type == GATUN_BF16 ? 16 : 0)), half = from_f16((uint16_t)b);
        return type == GATUN_F16 ? half : shifted;
    }
};

/* Index of the first scale group of a step; several steps may share one. */
template <int GROUPS> __device__ inline int group_of(int step, uint32_t steps_per_group_inverse) {
    if (GROUPS > 1)
        return step * GROUPS;
    return steps_per_group_inverse ? (int)__umulhi((uint32_t)step, steps_per_group_inverse) : step;
}

/* What a warp loads of a step of one tile. */
template <int BITS, int GROUPS> struct Step {
    uint4 q[BITS / 4];
    Scales<GROUPS> scales;

    /* codes: this lane's first; scale: index of row g's of the step's first group; groups: how many there are from it
     * on. */
    __device__ void load(const TileLinear &p, const uint4 *codes, int scale, int groups, bool inside) {
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            q[i] = inside ? __ldcs(codes + 32 * i) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < GROUPS; i++) /* a group beyond the last one belongs to columns beyond K */
            scales.load(i, p.scales, p.scale_type, scale + 16 * i, inside && (GROUPS == 1 || i < groups));
    }
};

/* Zero points and offsets of rows g and g + 8, or none. */
template <bool AFFINE> struct Affine {
    float zero[2] = {0.0f, 0.0f}, offset[2] = {0.0f, 0.0f};

    __device__ void load(const TileLinear &p, int at, bool inside) {
        if constexpr (AFFINE) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (inside && p.zeros)
                    zero[i] = __ldg(p.zeros + at + 8 * i);
                if (inside && p.offsets)
                    offset[i] = __ldg(p.offsets + at + 8 * i);
            }
        }
    }
};

} // namespace gatun

#endif
