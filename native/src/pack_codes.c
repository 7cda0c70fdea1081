/*
 * A step of a panel is the four bytes that each of 32 rows has for it, one row after the other: so packing is turning
 * 4 x 4 numbers of 32 bits round, sixteen bytes of four rows at once. Where two rows share the bytes of a step, o and
 * o + 16, their codes are put together before they are turned: whatever the format, sixteen k of two rows are one
 * vector, and all that differs is how it is read. Vectors are the compiler's own and 16 bytes wide, so that this file
 * serves every instruction set; wider ones would wait for memory.
 */
#include "pack_codes.h"

typedef uint8_t bytes __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(16)));
typedef uint64_t doubles __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))

INLINE bytes load(const uint8_t *from) {
    bytes v;
    memcpy(&v, from, sizeof v);
    return v;
}
INLINE bytes load_eight(const uint8_t *from) {
    uint64_t v;
    memcpy(&v, from, sizeof v);
    return (bytes)(doubles){v, 0};
}
/* 16 bytes at most, zeros behind them. */
INLINE bytes load_some(const uint8_t *from, int64_t count) {
    uint8_t some[16] = {0};
    if (count == 16 || count == 8) {
        return count == 16 ? load(from) : load_eight(from);
    }
    memcpy(some, from, (size_t)count);
    return load(some);
}
INLINE void store(uint8_t *to, bytes v) { memcpy(to, &v, sizeof v); }

/* Bits move from byte to byte: a mask has to follow, or none may be there to move. */
INLINE bytes right(bytes v, int32_t count) { return (bytes)((halves)v >> count); }
INLINE bytes left(bytes v, int32_t count) { return (bytes)((halves)v << count); }

/* The first and the second halves of two vectors, a number of `size` bytes of each by turns. */
INLINE bytes first_halves(const int32_t size, bytes a, bytes b) {
    return size == 1   ? __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
           : size == 2 ? (bytes)__builtin_shufflevector((halves)a, (halves)b, 0, 8, 1, 9, 2, 10, 3, 11)
                       : (bytes)__builtin_shufflevector((words)a, (words)b, 0, 4, 1, 5);
}
INLINE bytes second_halves(const int32_t size, bytes a, bytes b) {
    return size == 1   ? __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
           : size == 2 ? (bytes)__builtin_shufflevector((halves)a, (halves)b, 4, 12, 5, 13, 6, 14, 7, 15)
                       : (bytes)__builtin_shufflevector((words)a, (words)b, 2, 6, 3, 7);
}

/* Rows of 16 / size numbers, as many as that, become columns. */
INLINE void turn_numbers(const int32_t size, bytes *v) {
    const int32_t count = 16 / size;
    for (int32_t round = 1; round < count; round *= 2) {
        bytes w[16];
        for (int32_t i = 0; i < count / 2; i++) {
            w[2 * i] = first_halves(size, v[i], v[i + count / 2]);
            w[2 * i + 1] = second_halves(size, v[i], v[i + count / 2]);
        }
        for (int32_t i = 0; i < count; i++) {
            v[i] = w[i];
        }
    }
}
INLINE void turn(bytes v[4]) { turn_numbers(4, v); }

INLINE void put_turned(const int32_t size, const uint8_t *const rows[GATUN_PANEL], int64_t count, uint8_t *to,
                       int64_t stride) {
    const int32_t side = 16 / size;
    for (int32_t o = 0; o < GATUN_PANEL; o += side) {
        bytes v[16];
        for (int32_t i = 0; i < side; i++) {
            v[i] = load_some(rows[o + i], count * size);
        }
        turn_numbers(size, v);
        for (int32_t i = 0; i < side && i < count; i++) {
            store(to + i * stride + size * o, v[i]);
        }
    }
}

void gatun_put_numbers(int64_t size, const uint8_t *const rows[GATUN_PANEL], int64_t count, uint8_t *to,
                       int64_t stride) {
    const uint8_t *at[GATUN_PANEL];
    memcpy(at, rows, sizeof at);
    for (int64_t some; count > 0; count -= some, to += some * stride) {
        some = count < 16 / size ? count : 16 / size;
        if (size == 1) {
            put_turned(1, at, some, to, stride);
        } else if (size == 2) {
            put_turned(2, at, some, to, stride);
        } else {
            put_turned(4, at, some, to, stride);
        }
        for (int32_t o = 0; o < GATUN_PANEL; o++) {
            at[o] += some * size;
        }
    }
}

/* How sixteen codes lie in a row. */
enum {
    READ_NONE,
    READ_BYTES,      /* a byte each */
    READ_LOW_FIRST,  /* eight bytes of two, */
    READ_HIGH_FIRST, /* or the other way round */
    READ_EIGHT,      /* eight bytes with the first eight in their low nibbles */
    READ_PLANE,      /* some bits of each of sixteen bytes */
    READ_BITS        /* two bytes of a bit each */
};

/* The low nibbles of sixteen codes of row a, and above them row b's. */
INLINE bytes pair(const int32_t read, const uint8_t *a, const uint8_t *b, int32_t shift) {
    if (read == READ_BYTES || read == READ_PLANE) {
        bytes va = load(a), vb = load(b);
        return read == READ_BYTES || shift == 0 ? (va & 15) | left(vb & 15, 4) : (right(va, 4) & 15) | (vb & 0xF0);
    }
    bytes va = load_eight(a), vb = load_eight(b);
    bytes low = (va & 15) | left(vb & 15, 4), high = (right(va, 4) & 15) | (vb & 0xF0);
    if (read == READ_EIGHT) {
        return (bytes)__builtin_shufflevector((doubles)low, (doubles)high, 0, 2);
    }
    return read == READ_LOW_FIRST ? first_halves(1, low, high) : first_halves(1, high, low);
}

/* Bits 0 to 3 of a byte as the lowest bits of four bytes, and bits 4 to 7 two bits above them. */
#define SPREAD_FOUR(x) (((x)&1u) | ((x)&2u) << 7 | ((x)&4u) << 14 | ((x)&8u) << 21)
#define SPREAD(x)      (SPREAD_FOUR(x) | SPREAD_FOUR((x) >> 4) << 2)
#define SPREAD_4(x)    SPREAD(x), SPREAD((x) + 1), SPREAD((x) + 2), SPREAD((x) + 3)
#define SPREAD_16(x)   SPREAD_4(x), SPREAD_4((x) + 4), SPREAD_4((x) + 8), SPREAD_4((x) + 12)
#define SPREAD_64(x)   SPREAD_16(x), SPREAD_16((x) + 16), SPREAD_16((x) + 32), SPREAD_16((x) + 48)
static const uint32_t spread[256] = {SPREAD_64(0u), SPREAD_64(64u), SPREAD_64(128u), SPREAD_64(192u)};

/* Sixteen bits of two rows as they lie in a step of four bytes: gatun_panel_high_byte() numbers them. */
INLINE void put_bits(const uint8_t *a, const uint8_t *b, uint8_t *to) {
    const uint32_t all = (spread[a[0]] | spread[a[1]] << 4) | (spread[b[0]] << 1 | spread[b[1]] << 5);
    memcpy(to, &all, sizeof all);
}

/* What sixteen codes have above four bits. */
INLINE bytes above(const int32_t read, const int32_t bits, const uint8_t *from, int32_t shift) {
    return right(load(from), read == READ_BYTES ? 4 : shift) & (uint8_t)((1 << bits) - 1);
}

INLINE void put_runs(const int32_t form, const int32_t low, const int32_t high, const uint8_t *const rows[GATUN_PANEL],
                     const gatun_run *runs, int64_t count, uint8_t *restrict out) {
    const bool wide = form == GATUN_FORM_CODES8;
    const int32_t bits = form == GATUN_FORM_CODES5 ? 1 : 2, step = wide ? 128 : 64;
    for (int32_t four = 0; four < (wide ? 8 : 4); four++, out += 16) {
        const uint8_t *a[4], *b[4];
        for (int32_t i = 0; i < 4; i++) {
            a[i] = rows[4 * four + i];
            b[i] = wide ? NULL : rows[16 + 4 * four + i];
        }
        for (const gatun_run *run = runs; run < runs + count; run++) {
            bytes v[4];
            for (int32_t i = 0; i < 4; i++) {
                v[i] = wide ? load(a[i] + run->low) : pair(low, a[i] + run->low, b[i] + run->low, run->low_shift);
            }
            turn(v);
            for (int32_t s = 0; s < 4; s++) {
                store(out + run->to + step * s, v[s]);
            }
            if (high == READ_NONE) {
                continue;
            }
            for (int32_t i = 0; high == READ_BITS && i < 4; i++) {
                put_bits(a[i] + run->high, b[i] + run->high, out + run->to + 256 + 4 * i);
            }
            if (high == READ_BITS) {
                continue;
            }
            for (int32_t i = 0; i < 4; i++) {
                v[i] = above(high, bits, a[i] + run->high, run->high_shift) |
                       left(above(high, bits, b[i] + run->high, run->high_shift), bits);
            }
            turn(v);
            if (bits == 1) { /* as gatun_panel_high_byte() numbers them */
                store(out + run->to + 256, (v[0] | left(v[1], 2)) | (left(v[2], 4) | left(v[3], 6)));
            } else {
                store(out + run->to + 256, v[0] | left(v[1], 4));
                store(out + run->to + 320, v[2] | left(v[3], 4));
            }
        }
    }
}

/* Every way that some format has: form, low bits, high bits. */
#define WAYS(X)                                                                                                        \
    X(CODES8, BYTES, NONE)                                                                                             \
    X(CODES4, BYTES, NONE)                                                                                             \
    X(CODES4, LOW_FIRST, NONE)                                                                                         \
    X(CODES4, HIGH_FIRST, NONE)                                                                                        \
    X(CODES4, EIGHT, NONE)                                                                                             \
    X(CODES4, PLANE, NONE)                                                                                             \
    X(CODES5, BYTES, BYTES)                                                                                            \
    X(CODES5, PLANE, BITS)                                                                                             \
    X(CODES5, PLANE, PLANE)                                                                                            \
    X(CODES6, BYTES, BYTES)                                                                                            \
    X(CODES6, PLANE, PLANE)

#define WAY_FUNCTION(form, low, high)                                                                                  \
    static void put_##form##_##low##_##high(const uint8_t *const rows[GATUN_PANEL], const gatun_run *runs,             \
                                            int64_t count, uint8_t *out) {                                             \
        put_runs(GATUN_FORM_##form, READ_##low, READ_##high, rows, runs, count, out);                                  \
    }
WAYS(WAY_FUNCTION)

static int32_t read_of(const gatun_plane *plane, bool high_first) {
    if (plane->bits == 0) {
        return READ_NONE;
    }
    if (plane->bits == 8) {
        return READ_BYTES;
    }
    if (plane->bytes == 1) {
        return plane->bits == 1 ? READ_BITS : high_first ? READ_HIGH_FIRST : READ_LOW_FIRST;
    }
    return plane->bytes == 8 ? READ_EIGHT : READ_PLANE;
}

gatun_put_runs *gatun_put_runs_of(int32_t form, const gatun_code_layout *layout) {
#define WAY_ROW(form, low, high) {GATUN_FORM_##form, READ_##low, READ_##high, put_##form##_##low##_##high},
    static const struct way {
        int32_t form, low, high;
        gatun_put_runs *put;
    } ways[] = {WAYS(WAY_ROW)};
    const bool wide = form == GATUN_FORM_CODES8 || form == GATUN_FORM_PLAIN;
    const int32_t low = read_of(&layout->low, layout->high_first);
    const int32_t all = wide || form == GATUN_FORM_CODES4 ? READ_NONE : READ_BYTES; /* of codes that are bytes */
    const int32_t high = low == READ_BYTES ? all : read_of(&layout->high, false);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (ways[i].form == (wide ? GATUN_FORM_CODES8 : form) && ways[i].low == low && ways[i].high == high) {
            return ways[i].put;
        }
    }
    return NULL;
}

const gatun_code_layout gatun_byte_layout = {16, 16, {0, 16, 8}, {0}, .high_first = false};

bool gatun_code_layout_of(const gatun_matrix *m, gatun_code_layout *layout) {
    const gatun_gguf_panels *gguf = gatun_gguf_panels_of(m);
    if (gguf != NULL) {
        const gatun_block *block = gatun_gguf_block(m->encoding);
        *layout = (gatun_code_layout){block->elements, block->bytes, gguf->low, gguf->high, .high_first = false};
        return true;
    }
    *layout = gatun_byte_layout;
    const int32_t bits = gatun_encoding_bits(m->encoding);
    if (gatun_is_plain(m->encoding)) {
        return true;
    }
    if (m->code_order > GATUN_ORDER_WORDS || (bits != 4 && bits != 8)) {
        return false;
    }
    const bool high_first = m->code_order == GATUN_ORDER_HIGH_FIRST;
    const gatun_code_layout nibbles = {16, 8, {0, 1, 4}, {0}, high_first};
    *layout = bits == 4 ? nibbles : gatun_byte_layout;
    /* A stream of an odd number of nibbles a row begins every other row in the middle of a byte. */
    return bits == 8 || m->k % 2 == 0 || m->code_row_stride != 0 || m->code_order == GATUN_ORDER_WORDS;
}

static int32_t place(const gatun_plane *p, int32_t element, int32_t *shift) {
    *shift = 0;
    if (p->bits == 0) {
        return 0;
    }
    const int32_t codes = 8 * p->bytes / p->bits;
    *shift = element % codes / p->bytes * p->bits;
    return p->at + element / codes * p->bytes + (p->bytes < GATUN_RUN ? 0 : element % p->bytes);
}

gatun_run gatun_run_at(const gatun_code_layout *layout, int64_t index) {
    const int32_t block = (int32_t)index * GATUN_RUN / layout->elements * layout->bytes;
    const int32_t element = (int32_t)index * GATUN_RUN % layout->elements;
    gatun_run run = {.to = 0};
    run.low = block + place(&layout->low, element, &run.low_shift);
    run.high = block + place(&layout->high, element, &run.high_shift);
    return run;
}
