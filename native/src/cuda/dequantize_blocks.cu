/*
 * dequantize of GGUF's blocks, one instance an encoding, so that what a run of eight elements shares of a block is
 * decoded once.
 *  - nibbles: 4-bit blocks that follow each other; a thread takes four or eight bytes of one.
 *  - stream: others that do; a block of threads copies 8192 elements' worth at a time to shared memory in words of 16
 *    bytes, while it decodes the ones before: blocks are not aligned to more than two bytes.
 *  - blocks: rows with gaps, or rows that ids name.
 */
#include <type_traits>

#include "dequantize.cuh"

namespace gatun {

enum { BOTH_HALVES = 2 };

/*
 * Blocks whose bytes hold two elements each, SPAN apart. A thread takes COUNT such bytes (four or eight) from byte `at`
 * of a block's codes on, with what scales their low (0) and their high (1) halves: `half`, or both.
 */
template <int ENCODING> struct Nibbles;
constexpr bool has_nibbles(int encoding) {
    return encoding == GATUN_Q4_0 || encoding == GATUN_Q4_1 || encoding == GATUN_Q4_K || encoding == GATUN_IQ4_NL ||
           encoding == GATUN_MXFP4 || encoding == GATUN_NVFP4;
}

/* Below the bits of 2^23 it is that much more, exactly; conversions are slow. */
__device__ inline float small_number(uint32_t v) { return __fsub_rn(__uint_as_float(v | 0x4B000000), 8388608.0f); }

/* Bytes that lie on a multiple of ALIGNMENT. */
template <int ALIGNMENT, int COUNT> __device__ inline void load_words(uint32_t (&words)[COUNT / 4], const uint8_t *q) {
    if constexpr (ALIGNMENT == 2) {
#pragma unroll
        for (int i = 0; i < COUNT / 4; i++)
            words[i] = ((const uint16_t *)q)[2 * i] | (uint32_t)((const uint16_t *)q)[2 * i + 1] << 16;
    } else if constexpr (ALIGNMENT == 4 || COUNT == 4) {
#pragma unroll
        for (int i = 0; i < COUNT / 4; i++)
            words[i] = ((const uint32_t *)q)[i];
    } else {
        const uint2 both = *(const uint2 *)q;
        words[0] = both.x, words[1] = both.y;
    }
}

/* One scale for both halves. */
struct OneScale {
    enum { ELEMENTS = 32, SPAN = 16 };
    float scale;
};

template <> struct Nibbles<GATUN_Q4_0> : OneScale {
    enum { ALIGNMENT = 2 };

    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int, const uint8_t *) {
        scale = from_f16(*(const uint16_t *)b);
        load_words<ALIGNMENT, COUNT>(words, b + 2 + at);
    }
    __device__ float value(int, float nibble) const { return __fmul_rn(__fsub_rn(nibble, 8.0f), scale); }
};

template <> struct Nibbles<GATUN_Q4_1> : OneScale {
    enum { ALIGNMENT = 4 };
    float minimum;

    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int, const uint8_t *) {
        const uint32_t both = *(const uint32_t *)b;
        scale = from_f16((uint16_t)both), minimum = from_f16((uint16_t)(both >> 16));
        load_words<ALIGNMENT, COUNT>(words, b + 4 + at);
    }
    __device__ float value(int, float nibble) const { return __fadd_rn(__fmul_rn(scale, nibble), minimum); }
};

template <> struct Nibbles<GATUN_Q4_K> {
    enum { ELEMENTS = 256, SPAN = 32, ALIGNMENT = 16 };
    float scale[2], minimum[2];

    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int half, const uint8_t *) {
        const uint4 head = *(const uint4 *)b;
        load_words<ALIGNMENT, COUNT>(words, b + 16 + at);
        /* Six bits each, as k_scale_min has them: sub-blocks 0..3 in the low bits, 4..7 in nibbles and high bits. */
        const bool later = at >= 64;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (half != BOTH_HALVES && i > 0)
                break;
            const int shift = at / 32 % 2 * 16 + (half == BOTH_HALVES ? i : half) * 8;
            const uint32_t a = head.y >> shift & 0xFF, c = head.z >> shift & 0xFF, e = head.w >> shift & 0xFF;
            const uint32_t s = later ? (e & 15) | a >> 6 << 4 : a & 63, z = later ? e >> 4 | c >> 6 << 4 : c & 63;
            scale[i] = __fmul_rn(from_f16((uint16_t)head.x), small_number(s));
            minimum[i] = __fmul_rn(from_f16((uint16_t)(head.x >> 16)), small_number(z));
        }
    }
    __device__ float value(int i, float nibble) const { return __fsub_rn(__fmul_rn(scale[i], nibble), minimum[i]); }
};

/* Blocks whose codes have their values in a table. `number`: see dequantize_nibbles. */
struct TableNibbles : OneScale {
    __device__ float value(int, float number) const { return __fmul_rn(number, scale); }
};

template <> struct Nibbles<GATUN_IQ4_NL> : TableNibbles {
    enum { ALIGNMENT = 2 };

    __device__ static float of_code(uint32_t code) { return (float)iq4_values[code]; }
    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int, const uint8_t *) {
        scale = from_f16(*(const uint16_t *)b);
        load_words<ALIGNMENT, COUNT>(words, b + 2 + at);
    }
};

/* Twice E2M1's, without a negative zero. */
__device__ inline float doubled_e2m1(uint32_t code) {
    return code == 8 ? 0.0f : 2.0f * decode_code(GATUN_F4_E2M1, code);
}

template <> struct Nibbles<GATUN_MXFP4> : TableNibbles {
    enum { ALIGNMENT = 1 };

    __device__ static float of_code(uint32_t code) { return doubled_e2m1(code); }
    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int, const uint8_t *end) {
        scale = power_of_two((int)b[0] - 128);
        /* From the words that hold the bytes; the last of those may reach beyond the codes. */
        const uint8_t *q = b + 1 + at;
        const uint32_t before = (uint32_t)(uintptr_t)q % 4, *w = (const uint32_t *)(q - before);
        uint32_t next = 0;
        if ((const uint8_t *)(w + COUNT / 4 + 1) <= end)
            next = w[COUNT / 4];
        else
            for (uint32_t i = 0; i < before; i++)
                next |= (uint32_t)q[COUNT - before + i] << 8 * i;
#pragma unroll
        for (int i = COUNT / 4 - 1; i >= 0; i--) {
            words[i] = __funnelshift_r(w[i], next, 8 * before);
            next = w[i];
        }
    }
};

template <> struct Nibbles<GATUN_NVFP4> : TableNibbles {
    enum { ELEMENTS = 64, SPAN = 8, ALIGNMENT = 4 };

    __device__ static float of_code(uint32_t code) { return doubled_e2m1(code); }
    template <int COUNT>
    __device__ void load(uint32_t (&words)[COUNT / 4], const uint8_t *b, int at, int, const uint8_t *) {
        scale = __fmul_rn(ue4m3(b[at / 8]), 0.5f);
        load_words<ALIGNMENT, COUNT>(words, b + 4 + at);
    }
};

/*
 * Blocks that follow each other, into rows that do. A thread has the bytes of COUNT elements, what it stores at once,
 * of each half (BOTH: a half's elements fill sectors by themselves) or of one, so that the lanes of a warp write whole
 * sectors.
 */
template <int ENCODING, bool BOTH, typename T> struct Pieces {
    static constexpr int COUNT = std::is_same_v<T, float> ? 4 : RUN; /* 16 bytes */
    static constexpr int THREADS = Nibbles<ENCODING>::ELEMENTS / COUNT / (BOTH ? 2 : 1);
    static constexpr int BLOCKS = 256 / THREADS, AT_ONCE = BOTH ? 4 : 8;
};

__device__ inline void store_piece(float *out, int32_t, const float (&v)[4]) {
    __stcs((float4 *)out, make_float4(v[0], v[1], v[2], v[3]));
}
__device__ inline void store_piece(uint16_t *out, int32_t type, const float (&v)[8]) { store_run(type, out, 0, v); }

template <int ENCODING, bool BOTH, typename T>
__global__ void __launch_bounds__(256)
    dequantize_nibbles(const uint8_t *codes, int64_t blocks, T *out, int32_t out_type) {
    using Part = Nibbles<ENCODING>;
    using Shape = Pieces<ENCODING, BOTH, T>;
    constexpr BlockShape shape = block_shape(ENCODING);
    constexpr int AT_ONCE = Shape::AT_ONCE, BLOCKS = Shape::BLOCKS, COUNT = Shape::COUNT, SPAN = Part::SPAN;
    const int64_t first = (int64_t)blockIdx.x * AT_ONCE * BLOCKS + threadIdx.x / Shape::THREADS;
    const int piece = (int)threadIdx.x % Shape::THREADS * COUNT; /* BOTH: of the low halves */
    const int half = BOTH ? BOTH_HALVES : piece / SPAN % 2;
    const int at = BOTH ? piece : piece / (2 * SPAN) * SPAN + piece % SPAN;
    const int element = at / SPAN * (2 * SPAN) + at % SPAN + (half == 1 ? SPAN : 0);
    constexpr bool TABLE = std::is_base_of_v<TableNibbles, Part>;
    float lane_value = 0.0f; /* of the code that is the lane's number, modulo 16 */
    if constexpr (TABLE)
        lane_value = Part::of_code(threadIdx.x % 16);
    Part own[AT_ONCE];
    uint32_t words[AT_ONCE][COUNT / 4];
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
        own[i].template load<COUNT>(words[i], codes + min(first + i * BLOCKS, blocks - 1) * shape.bytes, at, half,
                                    codes + blocks * shape.bytes);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
#pragma unroll
        for (int h = 0; h < (BOTH ? 2 : 1); h++) {
            float v[COUNT];
#pragma unroll
            for (int e = 0; e < COUNT; e++) {
                const uint32_t nibbles = words[i][e / 4] >> 4 * (BOTH ? h : half) & 0x0F0F0F0F;
                const uint32_t code = __byte_perm(nibbles, 0, 0x4440 | e % 4);
                v[e] = own[i].value(h, TABLE ? __shfl_sync(0xFFFFFFFF, lane_value, (int)code, 16) : small_number(code));
            }
            if (first + i * BLOCKS < blocks)
                store_piece(out + (first + i * BLOCKS) * shape.elements + element + h * SPAN, out_type, v);
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
        const int64_t blocks = out.rows * (m.k / shape.elements);
        auto launch = [&](auto both, auto *data) {
            constexpr bool BOTH = decltype(both)::value;
            using T = std::remove_pointer_t<decltype(data)>;
            constexpr int at_once = Pieces<ENCODING, BOTH, T>::BLOCKS * Pieces<ENCODING, BOTH, T>::AT_ONCE;
            dequantize_nibbles<ENCODING, BOTH>
                <<<(unsigned)((blocks + at_once - 1) / at_once), 256, 0, stream>>>(codes, blocks, data, out.type);
        };
        /* What is rounded once. */
        if (follow && (m.result == GATUN_F32 || m.result == out.type) &&
            (uintptr_t)codes % Nibbles<ENCODING>::ALIGNMENT == 0 && blocks < INT32_MAX) {
            if (out.type == GATUN_F32)
                launch(std::true_type(), (float *)out.data);
            else
                launch(std::bool_constant<((int)Nibbles<ENCODING>::SPAN > (int)RUN)>(), (uint16_t *)out.data);
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
