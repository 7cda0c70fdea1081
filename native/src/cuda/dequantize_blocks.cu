/*
 * dequantize of GGUF's blocks, one instance an encoding, so that what a run of eight elements shares of a block is
 * decoded once.
 *  - nibbles: 4-bit blocks that follow each other; a thread takes eight bytes, so two runs.
 *  - stream: others that do; a block of threads copies 8192 elements' worth at a time to shared memory in words of 16
 *    bytes, while it decodes the ones before: blocks are not aligned to more than two bytes.
 *  - blocks: rows with gaps, or rows that ids name.
 */
#include <type_traits>

#include "dequantize.cuh"

namespace gatun {

/*
 * Blocks whose bytes hold two elements each, SPAN apart: a thread takes eight such bytes, with what scales their low
 * and their high halves.
 */
template <int ENCODING> struct Nibbles;
constexpr bool has_nibbles(int encoding) {
    return encoding == GATUN_Q4_0 || encoding == GATUN_Q4_1 || encoding == GATUN_Q4_K || encoding == GATUN_IQ4_NL ||
           encoding == GATUN_MXFP4 || encoding == GATUN_NVFP4;
}

/* Below the bits of 2^23 it is that much more, exactly; conversions are slow. */
__device__ inline float small_number(uint32_t v) { return __fsub_rn(__uint_as_float(v | 0x4B000000), 8388608.0f); }

template <> struct Nibbles<GATUN_Q4_0> {
    enum { PARTS = 2, SPAN = 16, ALIGNMENT = 2 };
    uint32_t words[2];
    float scale;

    __device__ static int first(int part) { return part * RUN; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *) {
        const uint16_t *q = (const uint16_t *)(b + 2) + part * 4;
        scale = __half2float(*(const __half *)b);
        words[0] = q[0] | (uint32_t)q[1] << 16, words[1] = q[2] | (uint32_t)q[3] << 16;
    }
    __device__ float value(int, float nibble) const { return __fmul_rn(__fsub_rn(nibble, 8.0f), scale); }
};

template <> struct Nibbles<GATUN_Q4_1> {
    enum { PARTS = 2, SPAN = 16, ALIGNMENT = 4 };
    uint32_t words[2];
    float scale, minimum;

    __device__ static int first(int part) { return part * RUN; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *) {
        const uint32_t both = *(const uint32_t *)b, *q = (const uint32_t *)(b + 4) + part * 2;
        scale = from_f16((uint16_t)both), minimum = from_f16((uint16_t)(both >> 16));
        words[0] = q[0], words[1] = q[1];
    }
    __device__ float value(int, float nibble) const { return __fadd_rn(__fmul_rn(scale, nibble), minimum); }
};

template <> struct Nibbles<GATUN_Q4_K> {
    enum { PARTS = 16, SPAN = 32, ALIGNMENT = 16 };
    uint32_t words[2];
    float scale[2], minimum[2];

    __device__ static int first(int part) { return part / 4 * 64 + part % 4 * RUN; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *) {
        const uint4 head = *(const uint4 *)b;
        const uint2 q = *((const uint2 *)(b + 16) + part);
        words[0] = q.x, words[1] = q.y;
        /* Six bits each, as k_scale_min has them: sub-blocks 0..3 in the low bits, 4..7 in nibbles and high bits. */
        const int at = part / 4 % 2 * 16;
        const bool later = part >= 8;
        const uint32_t low = head.y >> at, high = head.z >> at, rest = head.w >> at;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t a = low >> 8 * i & 0xFF, c = high >> 8 * i & 0xFF, e = rest >> 8 * i & 0xFF;
            const uint32_t s = later ? (e & 15) | a >> 6 << 4 : a & 63, z = later ? e >> 4 | c >> 6 << 4 : c & 63;
            scale[i] = __fmul_rn(from_f16((uint16_t)head.x), small_number(s));
            minimum[i] = __fmul_rn(from_f16((uint16_t)(head.x >> 16)), small_number(z));
        }
    }
    __device__ float value(int half, float nibble) const {
        return __fsub_rn(__fmul_rn(scale[half], nibble), minimum[half]);
    }
};

/* Blocks whose codes have their values in a table. `number`: see dequantize_nibbles. */
struct TableNibbles {
    uint32_t words[2];
    float scale;

    __device__ float value(int, float number) const { return __fmul_rn(number, scale); }
};

template <> struct Nibbles<GATUN_IQ4_NL> : TableNibbles {
    enum { PARTS = 2, SPAN = 16, ALIGNMENT = 2 };

    __device__ static float of_code(uint32_t code) { return (float)iq4_values[code]; }
    __device__ static int first(int part) { return part * RUN; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *) {
        const uint16_t *q = (const uint16_t *)(b + 2) + part * 4;
        scale = from_f16(*(const uint16_t *)b);
        words[0] = q[0] | (uint32_t)q[1] << 16, words[1] = q[2] | (uint32_t)q[3] << 16;
    }
};

/* Twice E2M1's, without a negative zero. */
__device__ inline float doubled_e2m1(uint32_t code) {
    return code == 8 ? 0.0f : 2.0f * decode_code(GATUN_F4_E2M1, code);
}

template <> struct Nibbles<GATUN_MXFP4> : TableNibbles {
    enum { PARTS = 2, SPAN = 16, ALIGNMENT = 1 };

    __device__ static float of_code(uint32_t code) { return doubled_e2m1(code); }
    __device__ static int first(int part) { return part * RUN; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *end) {
        scale = power_of_two((int)b[0] - 128);
        /* From the words that hold the eight bytes; the last of those may reach beyond the codes. */
        const uint8_t *q = b + 1 + part * RUN;
        const uint32_t before = (uint32_t)(uintptr_t)q % 4, *w = (const uint32_t *)(q - before);
        uint32_t last = 0;
        if ((const uint8_t *)(w + 3) <= end)
            last = w[2];
        else
            for (uint32_t i = 0; i < before; i++)
                last |= (uint32_t)q[8 - before + i] << 8 * i;
        words[0] = __funnelshift_r(w[0], w[1], 8 * before), words[1] = __funnelshift_r(w[1], last, 8 * before);
    }
};

template <> struct Nibbles<GATUN_NVFP4> : TableNibbles {
    enum { PARTS = 4, SPAN = 8, ALIGNMENT = 4 };

    __device__ static float of_code(uint32_t code) { return doubled_e2m1(code); }
    __device__ static int first(int part) { return part * 16; }
    __device__ void load(const uint8_t *b, int part, const uint8_t *) {
        const uint32_t *q = (const uint32_t *)(b + 4) + part * 2;
        scale = __fmul_rn(ue4m3(b[part]), 0.5f);
        words[0] = q[0], words[1] = q[1];
    }
};

/* Blocks that follow each other, into rows that do: `parts` eights of bytes from `codes` on. HALVES: a thread takes the
 * low or the high halves of a part, so that the lanes of a warp write one eight after the other. */
template <bool HALVES> __host__ __device__ constexpr int parts_at_once() { return HALVES ? 8 : 4; }
template <int ENCODING, bool HALVES>
__global__ void __launch_bounds__(256)
    dequantize_nibbles(const uint8_t *codes, int64_t parts, int32_t result, void *out, int32_t out_type) {
    using Part = Nibbles<ENCODING>;
    constexpr BlockShape shape = block_shape(ENCODING);
    constexpr int AT_ONCE = parts_at_once<HALVES>(), EIGHTS = Part::SPAN / RUN; /* before the same parts' high halves */
    constexpr int THREADS = Part::PARTS * (HALVES ? 2 : 1), BLOCKS = 256 / THREADS;
    const int64_t first = (int64_t)blockIdx.x * AT_ONCE * BLOCKS + threadIdx.x / THREADS;
    const int at = (int)threadIdx.x % THREADS;
    const int part = HALVES ? at / (2 * EIGHTS) * EIGHTS + at % EIGHTS : at;
    constexpr bool TABLE = std::is_base_of_v<TableNibbles, Part>;
    float lane_value = 0.0f; /* of the code that is the lane's number, modulo 16 */
    if constexpr (TABLE)
        lane_value = Part::of_code(threadIdx.x % 16);
    const int64_t last = parts / Part::PARTS - 1;
    Part own[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
        own[i].load(codes + min(first + i * BLOCKS, last) * shape.bytes, part, codes + (last + 1) * shape.bytes);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        const int64_t block = first + i * BLOCKS;
#pragma unroll
        for (int h = 0; h < (HALVES ? 1 : 2); h++) {
            const int half = HALVES ? at / EIGHTS % 2 : h;
            float v[RUN];
#pragma unroll
            for (int e = 0; e < RUN; e++) {
                const uint32_t nibbles = own[i].words[e / 4] >> 4 * half & 0x0F0F0F0F;
                const uint32_t code = __byte_perm(nibbles, 0, 0x4440 | e % 4);
                const float number = TABLE ? __shfl_sync(0xFFFFFFFF, lane_value, (int)code, 16) : small_number(code);
                v[e] = own[i].value(half, number);
                if (result != GATUN_F32)
                    v[e] = round_to(result, v[e]);
            }
            if (block <= last)
                store_run(out_type, out, block * shape.elements + Part::first(part) + half * Part::SPAN, v);
        }
    }
}

template <int ENCODING>
__global__ void __launch_bounds__(256) dequantize_blocks(const __grid_constant__ gatun_matrix m, Output out) {
    constexpr BlockShape shape = block_shape(ENCODING);
    int64_t column = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * RUN;
    if (column >= m.k)
        return;
    int64_t stride = m.code_row_stride ? m.code_row_stride : m.k / shape.elements * shape.bytes;
    const uint8_t *block = (const uint8_t *)m.codes + column / shape.elements * shape.bytes;
    const int run = (int)(column % shape.elements / RUN);
    const float factor = block_factor(m);
#pragma unroll 2 /* two rows' loads in flight */
    for (int64_t i = blockIdx.y; i < out.rows; i += gridDim.y) {
        int64_t source = out.source(i, m.n);
        float v[RUN];
#pragma unroll
        for (int e = 0; e < RUN; e++)
            v[e] = source < 0
                       ? __uint_as_float(0x7FC00000)
                       : round_to(m.result,
                                  __fmul_rn(block_value(ENCODING, block + source * stride, run << 3 | e), factor));
        store_run(out.type, out.data, i * out.ld + column, v);
    }
}

/* The same for blocks that follow each other, into rows that do: `count` elements from `codes` on. */
template <int ENCODING>
__global__ void __launch_bounds__(256)
    dequantize_stream(const uint8_t *codes, int64_t count, int32_t result, void *out, int32_t out_type) {
    constexpr BlockShape shape = block_shape(ENCODING);
    constexpr int CHUNK = 8192, BYTES = CHUNK / shape.elements * shape.bytes, WORDS = BYTES / 16;
    constexpr int OWN = (WORDS + 255) / 256;
    __shared__ uint4 staged[WORDS];
    const int64_t bytes = count / shape.elements * shape.bytes, chunks = (count + CHUNK - 1) / CHUNK;
    uint4 next[OWN];
    auto load = [&](int64_t chunk) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int word = i * 256 + (int)threadIdx.x;
            const int64_t at = chunk * BYTES + word * 16LL;
            if (word >= WORDS || at >= bytes)
                continue;
            if (at + 16 <= bytes) {
                next[i] = __ldcs((const uint4 *)(codes + at));
            } else { /* the last bytes */
                uint32_t words[4] = {};
                for (int b = 0; at + b < bytes; b++)
                    words[b / 4] |= (uint32_t)codes[at + b] << b % 4 * 8;
                next[i] = make_uint4(words[0], words[1], words[2], words[3]);
            }
        }
    };
    if (blockIdx.x < chunks)
        load(blockIdx.x);
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++)
            if (i * 256 + (int)threadIdx.x < WORDS)
                staged[i * 256 + threadIdx.x] = next[i];
        __syncthreads();
        if (chunk + gridDim.x < chunks)
            load(chunk + gridDim.x);
#pragma unroll 1
        for (int i = 0; i < CHUNK / (256 * RUN); i++) {
            const int element = (i * 256 + (int)threadIdx.x) * RUN;
            if (chunk * CHUNK + element >= count)
                break;
            const uint8_t *block = (const uint8_t *)staged + element / shape.elements * shape.bytes;
            float v[RUN];
            const int run = element % shape.elements / RUN;
#pragma unroll
            for (int e = 0; e < RUN; e++) /* or, not plus: the compiler sees what the eight share */
                v[e] = round_to(result, block_value(ENCODING, block, run << 3 | e));
            store_run(out_type, out, chunk * CHUNK + element, v);
        }
    }
}

template <int ENCODING>
static void launch_block(const gatun_matrix &m, const Output &out, dim3 grid, int multiprocessors,
                         cudaStream_t stream) {
    constexpr BlockShape shape = block_shape(ENCODING);
    const int64_t row = m.k / shape.elements * shape.bytes;
    const uint8_t *codes = (const uint8_t *)m.codes + out.row0 * row;
    const bool follow =
        (m.code_row_stride == 0 || m.code_row_stride == row) && out.ld == m.k && !out.ids && block_factor(m) == 1.0f;
    if constexpr (has_nibbles(ENCODING)) {
        using Part = Nibbles<ENCODING>;
        const int64_t parts = out.rows * m.k / (2 * RUN);
        auto launch = [&](auto halves) {
            constexpr bool HALVES = decltype(halves)::value;
            const int64_t at_once = 256 * parts_at_once<HALVES>() / (HALVES ? 2 : 1);
            dequantize_nibbles<ENCODING, HALVES><<<(unsigned)((parts + at_once - 1) / at_once), 256, 0, stream>>>(
                codes, parts, m.result, out.data, out.type);
        };
        if (follow && (uintptr_t)codes % Part::ALIGNMENT == 0 && parts / 1024 < INT32_MAX) {
            if ((int)Part::SPAN == (int)RUN || out.type == GATUN_F32)
                launch(std::true_type());
            else
                launch(std::false_type());
            return;
        }
    }
    if (follow && (uintptr_t)codes % 16 == 0)
        dequantize_stream<ENCODING>
            <<<multiprocessors * 6, 256, 0, stream>>>(codes, out.rows * m.k, m.result, out.data, out.type);
    else
        dequantize_blocks<ENCODING><<<grid, 256, 0, stream>>>(m, out);
}

bool launch_blocks(const gatun_matrix &m, const Output &out, dim3 grid, int multiprocessors, cudaStream_t stream) {
    switch (m.encoding) {
#define GATUN_BLOCK(name)                                                                                              \
    case GATUN_##name:                                                                                                 \
        launch_block<GATUN_##name>(m, out, grid, multiprocessors, stream);                                             \
        return true;
        GATUN_BLOCK(Q4_0)
        GATUN_BLOCK(Q4_1)
        GATUN_BLOCK(Q5_0)
        GATUN_BLOCK(Q5_1)
        GATUN_BLOCK(Q8_0)
        GATUN_BLOCK(Q2_K)
        GATUN_BLOCK(Q3_K)
        GATUN_BLOCK(Q4_K)
        GATUN_BLOCK(Q5_K)
        GATUN_BLOCK(Q6_K)
        GATUN_BLOCK(IQ4_NL)
        GATUN_BLOCK(IQ4_XS)
        GATUN_BLOCK(MXFP4)
        GATUN_BLOCK(NVFP4)
#undef GATUN_BLOCK
    default:
        return false;
    }
}

} // namespace gatun
