/*
 * What the kernels on packed codes share: decoding a step of codes into the A operands of mma.m16n8k16, and its scales.
 *
 * Codes become bfloat16 through a table in shared memory that holds one copy a lane, so that no two lanes meet in a
 * bank; for 4 bits the entry of a byte is the pair of its two codes.
 *
 * A product may take its k in any order, as long as x comes in the same: `column_of` says which k an operand's slot is.
 * 8-bit codes lie in rows, so a lane's slots are the bytes that one load brings: 16 of a row where a whole step shares
 * a scale, else 4.
 */
#ifndef GATUN_CUDA_TILES_CUH
#define GATUN_CUDA_TILES_CUH

#include "linear.cuh"

namespace gatun {

/* Not volatile: the compiler may move products and look-ups past each other. */
__device__ inline void mma16816(float *c, const uint32_t *a, const uint32_t *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t pair_bf16(float low, float high) {
    uint32_t w;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
    return w;
}

__device__ inline uint32_t times_bf16(uint32_t a, uint32_t b) {
    __nv_bfloat162 product = __hmul2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
    return *(const uint32_t *)&product;
}

/* 256 entries of 32 copies, 128 bytes an entry. Addresses are those of shared memory, not generic ones, and an entry's
 * offset is cut out of the codes in place: a shift, a mask and the load for each pair of weights. */
enum { TABLE_BYTES = 256 * 32 * 4 };

struct Table {
    uint32_t base; /* of the table */
    uint32_t lane; /* 4 * lane */

    /* A warp an entry at a time; for 4 bits its lanes hold the values and pass them on. */
    __device__ static void fill(uint32_t *shared, const float *table, int bits) {
        const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
        const float own = table[lane % 16];
#pragma unroll 4
        for (int entry = threadIdx.x / 32; entry < 256; entry += warps)
            shared[entry * 32 + lane] = bits == 4 ? pair_bf16(__shfl_sync(0xFFFFFFFF, own, entry % 16),
                                                              __shfl_sync(0xFFFFFFFF, own, entry / 16))
                                                  : pair_bf16(table[entry], 0.0f);
    }
    /* After the barrier that follows `fill`: no look-up moves up past this. */
    __device__ explicit Table(const uint32_t *shared)
        : base((uint32_t)__cvta_generic_to_shared(shared)), lane(threadIdx.x % 32 * 4) {
        asm volatile("" : "+r"(base)::"memory");
    }
    /* The entry of byte i of the word. */
    __device__ uint32_t of_byte(uint32_t word, int i) const {
        uint32_t offset = ((i == 0 ? word << 7 : word >> (8 * i - 7)) & 0x7F80) | lane, entry;
        asm("ld.shared.b32 %0, [%1];" : "=r"(entry) : "r"(base + offset));
        return entry;
    }
};

/* The same with 256 bytes an entry, so that an entry's offset is one permutation of bytes away; the second half of each
 * is for something else. */
enum { SPACED_TABLE_BYTES = 2 * TABLE_BYTES };

struct SpacedTable {
    uint32_t base; /* of the table */
    uint32_t lane; /* 4 * lane */

    /* For 4 bits: a warp an entry at a time, whose lanes hold the values and pass them on. */
    __device__ static void fill(uint32_t *shared, const float *table) {
        const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
        const float own = table[lane % 16];
#pragma unroll 4
        for (int entry = threadIdx.x / 32; entry < 256; entry += warps)
            shared[entry * 64 + lane] =
                pair_bf16(__shfl_sync(0xFFFFFFFF, own, entry % 16), __shfl_sync(0xFFFFFFFF, own, entry / 16));
    }
    __device__ explicit SpacedTable(const uint32_t *shared)
        : base((uint32_t)__cvta_generic_to_shared(shared)), lane(threadIdx.x % 32 * 4) {
        asm volatile("" : "+r"(base)::"memory");
    }
    __device__ uint32_t of_byte(uint32_t word, int i) const {
        uint32_t entry;
        asm("ld.shared.b32 %0, [%1];" : "=r"(entry) : "r"(base + __byte_perm(word, lane, 0x5504 | i << 4)));
        return entry;
    }
};

__device__ inline uint32_t word_of(const uint4 &q, int i) { return i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w; }

/* The k, within a step, of element e of register h of lane t's operands of product s. */
__host__ __device__ inline int column_of(bool bytes, bool groups, int s, int t, int h, int e) {
    if (!bytes)
        return 16 * s + 8 * h + 2 * t + e;
    return (groups ? 16 * s + 4 * t : 16 * t + 4 * s) + 2 * h + e;
}

/* The A fragment of product s: for each of four pairs two k as bfloat16. */
template <int BITS, typename Lookup>
__device__ inline void fragment(uint32_t *a, const uint4 *q, int s, const Lookup &table) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (BITS == 4) {
            a[i] = table.of_byte(word_of(q[0], s), i);
        } else {
            uint32_t word = word_of(q[i % 2], s);
            a[i] = __byte_perm(table.of_byte(word, i / 2 * 2), table.of_byte(word, i / 2 * 2 + 1), 0x5410);
        }
    }
}

/* ---- copies to shared memory that registers do not wait for ---- */

template <int BYTES> __device__ inline void copy_async(uint32_t to, const void *from) {
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES) : "memory");
}
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most PENDING of the groups committed last are under way. */
template <int PENDING> __device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* The scales of rows g and g + 8 as numbers: two of a row's type, in one word when that has 16 bits. */
__device__ inline float2 scale_values(uint32_t first, uint32_t second, int32_t type) {
    if (type == GATUN_F32)
        return make_float2(__uint_as_float(first), __uint_as_float(second));
    if (type == GATUN_F16)
        return __half22float2(*(const __half2 *)&first);
    return make_float2(__uint_as_float(first << 16), __uint_as_float(first & 0xFFFF0000));
}

/* pair: of the slots of the tile, from the first tile on. */
__device__ inline float2 load_scales(const void *scales, int32_t type, uint32_t pair) {
    if (type == GATUN_F32)
        return __ldg((const float2 *)scales + pair);
    return scale_values(__ldg((const uint32_t *)scales + pair), 0, type);
}

/* Index of the first scale group of a step; several steps may share one. */
template <int GROUPS>
__device__ inline int first_group(int step, uint32_t steps_per_group_inverse, int groups_per_step = GROUPS) {
    if (GROUPS > 1 || (GROUPS == 0 && groups_per_step > 1))
        return step * groups_per_step;
    return (int)__umulhi(2 * (uint32_t)step, steps_per_group_inverse);
}

/* A number in rows g and g + 8: zero points or offsets, or none. */
__device__ inline float2 pair_or_zero(const float *from, uint32_t pair) {
    return from ? __ldg((const float2 *)from + pair) : make_float2(0.0f, 0.0f);
}

/* How a lane reads the codes of a step of a tile. BITS 8: WIDE loads of 16 bytes of a row, else 4 x 4. Kernels read up
 * to GATUN_CUDA_SLACK bytes past the last codes and scales and multiply what they find by zeros: pack clears these. */
template <int BITS, bool WIDE> struct CodeLoads {
    const uint8_t *first; /* this lane's first byte of step 0 of tile 0 */
    int64_t row;          /* bytes from row to row, 8 bits only */

    static constexpr int STEP_BYTES = BITS == 4 ? 512 : 64;

    __device__ CodeLoads(const TileLinear &p, int lane)
        : first((const uint8_t *)p.codes +
                (BITS == 4 ? lane * 16 : lane / 4 * p.steps * 64 + lane % 4 * (WIDE ? 16 : 4))),
          row(p.steps * 64) {}

    __device__ int64_t tile_bytes() const { return BITS == 4 ? row * 8 : row * 16; }

    /* `from`: `first` plus the tile and the step. */
    __device__ void load(uint4 *q, const uint8_t *from) const {
#pragma unroll
        for (int i = 0; i < BITS / 4; i++) {
            const uint8_t *r = from + i * 8 * row;
            if (BITS == 4 || WIDE)
                q[i] = __ldcs((const uint4 *)r);
            else
                q[i] = make_uint4(__ldg((const uint32_t *)r), __ldg((const uint32_t *)(r + 16)),
                                  __ldg((const uint32_t *)(r + 32)), __ldg((const uint32_t *)(r + 48)));
        }
    }
    /* The same to a lane's places in shared memory, 512 bytes apart. */
    __device__ void copy(uint32_t to, const uint8_t *from) const {
#pragma unroll
        for (int i = 0; i < BITS / 4; i++) {
            const uint8_t *r = from + i * 8 * row;
            if (BITS == 4 || WIDE)
                copy_async<16>(to + 512 * i, r);
            else
#pragma unroll
                for (int w = 0; w < 4; w++)
                    copy_async<4>(to + 512 * i + 4 * w, r + 16 * w);
        }
    }
};

/*
 * A ring of steps on their way from global to shared memory, a warp's own: each lane copies what it will read, so that
 * no other thread need be waited for. Loads into registers would share the few counters that a warp has for loads under
 * way, and waiting for the oldest would mean waiting for the youngest.
 *
 * GROUPS: scales that are copied beside the codes: of one group a step, any type, or of two of 16 bits; 0: none. PITCH:
 * the bytes from one piece of 128 bytes to the next.
 */
template <int BITS, int GROUPS, int PITCH = 128> struct Ring {
    static_assert(BITS == 4 || PITCH == 128, "codes of 8 bits lie in one piece");
    /* Where byte i lies. */
    __host__ __device__ static constexpr int at(int i) { return i / 128 * PITCH + i % 128; }
    static constexpr int STEP_BYTES = (128 * BITS + (GROUPS ? 256 : 0)) / 128 * PITCH;

    const uint8_t *memory;
    uint32_t address;
    int lane;

    /* memory: the warp's. */
    __device__ Ring(uint8_t *memory, int lane)
        : memory(memory), address((uint32_t)__cvta_generic_to_shared(memory)), lane(lane) {}

    __device__ void copy(int slot, const CodeLoads<BITS, GROUPS == 1> &loads, const uint8_t *from, const void *scales,
                         int32_t type, uint32_t pair) const {
        const uint32_t to = address + slot * STEP_BYTES;
        loads.copy(to + at(lane * 16), from);
        const uint32_t to_scales = to + at(128 * BITS) + at(lane * 8);
        if (GROUPS == 1 && type == GATUN_F32)
            copy_async<8>(to_scales, (const uint2 *)scales + pair);
        else
#pragma unroll
            for (int i = 0; i < GROUPS; i++)
                copy_async<4>(to_scales + 4 * i, (const uint32_t *)scales + pair + 8 * i);
    }
    __device__ void codes(int slot, uint4 *q) const {
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            q[i] = *(const uint4 *)(memory + slot * STEP_BYTES + 512 * i + at(lane * 16));
    }
    /* Of group 0 .. GROUPS-1 of the step. */
    __device__ void scales(int slot, int32_t type, float2 *values) const {
        const uint2 words = *(const uint2 *)(memory + slot * STEP_BYTES + at(128 * BITS) + at(lane * 8));
        values[0] = scale_values(words.x, words.y, type);
        if (GROUPS == 2)
            values[GROUPS - 1] = scale_values(words.y, 0, type);
    }
};

} // namespace gatun

#endif
