/*
 * Where a code lies: every order of gatun.h as one small function from (row, column) to a place, and the two loops that
 * read and write a run of a row through it. Rows of whole bytes or nibbles have loops of their own, since they are what
 * nearly every file holds.
 */
#include "encodings/codes.h"

/* Code number `index` of a stream of codes of `bits` bits that never straddle a byte. */
static gatun_place in_bytes(int64_t index, int32_t bits) {
    int32_t per_byte = 8 / bits;
    return (gatun_place){index / per_byte, (int32_t)(index % per_byte) * bits};
}

static gatun_place place_low_first(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    if (m->code_row_stride == 0) {
        return in_bytes(row * m->k + column, bits);
    }
    gatun_place p = in_bytes(column, bits);
    p.byte += row * m->code_row_stride;
    return p;
}

static gatun_place place_high_first(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    gatun_place p = place_low_first(m, row, column, bits);
    p.shift = 8 - bits - p.shift;
    return p;
}

static gatun_place place_bits(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    int64_t bit = (m->code_row_stride == 0 ? row * m->k + column : column) * bits;
    return (gatun_place){row * m->code_row_stride + bit / 8, (int32_t)(bit % 8)};
}

static gatun_place place_words(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    int64_t per_word = 32 / bits;
    int64_t stride = m->code_row_stride != 0 ? m->code_row_stride : (m->k + per_word - 1) / per_word * 4;
    int64_t bit = column % per_word * bits;
    return (gatun_place){row * stride + column / per_word * 4 + bit / 8, (int32_t)(bit % 8)};
}

/* GPTQ: words along K, one row of N words after the other. 3 bits: 32 codes in three rows of words, as a stream. */
static gatun_place place_words_k(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    if (bits == 3) {
        int64_t bit = column * 3;
        return (gatun_place){bit / 32 * m->n * 4 + row * 4 + bit % 32 / 8, (int32_t)(bit % 8)};
    }
    int64_t per_word = 32 / bits;
    int64_t bit = column % per_word * bits;
    return (gatun_place){(column / per_word * m->n + row) * 4 + bit / 8, (int32_t)(bit % 8)};
}

/* AWQ: 8 rows of W in the nibbles of a word, N / 8 words (rounded up) a column. */
static gatun_place place_words_n(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    static const int32_t slot[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    int32_t bit = slot[row % 8] * bits;
    return (gatun_place){(column * ((m->n + 7) / 8) + row / 8) * 4 + bit / 8, bit % 8};
}

/* quanto: the tensor as rows of block_cols codes; row r shares its bytes with rows r + R, r + 2R ... */
static gatun_place place_split_rows(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    int64_t element = row * m->k + column;
    int64_t rows = m->n * m->k / m->block_cols;
    int64_t runs = 8 / bits;
    int64_t run_rows = (rows + runs - 1) / runs;
    int64_t r = element / m->block_cols;
    return (gatun_place){r % run_rows * m->block_cols + element % m->block_cols, (int32_t)(r / run_rows) * bits};
}

/*
 * torchao's tile-packed int4: words [N/8][K/128][32 lanes][4]. Lane l of a tile holds row l/4; its word j holds the
 * 16-column tiles 2j and 2j+1 of the 128 columns; of each it has columns 2*(l%4) + {0, 1, 8, 9}, and the eight codes
 * v0 .. v7 of a word lie in the order v0 v2 v4 v6 v1 v3 v5 v7. The row stride is that of eight rows (K may be padded).
 */
enum { TILE_BYTES = 512 };
static gatun_place place_tiles(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits) {
    static const int32_t slot[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    int64_t outer = column / 128;
    int64_t tile = column % 128 / 16;
    int64_t within = column % 16;
    int64_t lane = row % 8 * 4 + within % 8 / 2;
    int64_t v = tile % 2 * 4 + within / 8 * 2 + within % 2;
    int64_t stride = m->code_row_stride != 0 ? m->code_row_stride : (m->k + 127) / 128 * TILE_BYTES;
    int32_t bit = slot[v] * bits;
    return (gatun_place){row / 8 * stride + outer * TILE_BYTES + (lane * 4 + tile / 2) * 4 + bit / 8, bit % 8};
}

typedef gatun_place place_function(const gatun_matrix *m, int64_t row, int64_t column, int32_t bits);

/* By GATUN_ORDER_*. */
static place_function *const places[] = {
    place_low_first, place_high_first, place_bits,       place_words,
    place_words_k,   place_words_n,    place_split_rows, place_tiles,
};

gatun_place gatun_code_place(const gatun_matrix *m, int64_t row, int64_t column) {
    return places[m->code_order](m, row, column, gatun_encoding_bits(m->encoding));
}

/* Products and sums in which an overflow makes everything after it -1. */
static int64_t times(int64_t a, int64_t b) {
    int64_t product;
    return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product) ? -1 : product;
}

static int64_t plus(int64_t a, int64_t b) {
    int64_t sum;
    return a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum) ? -1 : sum;
}

static int64_t pieces(int64_t count, int64_t size) { return count < 0 ? -1 : count / size + (count % size != 0); }

/* Bytes of a row of codes, of words, of tiles: whatever the row stride of the order counts from one to the next. */
static int64_t row_bytes(const gatun_matrix *m, int32_t bits) {
    const gatun_block *block = gatun_gguf_block(m->encoding);
    if (block != NULL) {
        return m->k % block->elements != 0 ? -1 : times(m->k / block->elements, block->bytes);
    }
    switch (m->code_order) {
    case GATUN_ORDER_WORDS:
        return times(pieces(m->k, 32 / bits), 4);
    case GATUN_ORDER_WORDS_K:
        return times(m->n, 4);
    case GATUN_ORDER_WORDS_N:
        return times(pieces(m->n, 8), 4);
    case GATUN_ORDER_SPLIT_ROWS:
        return m->block_cols;
    case GATUN_ORDER_TILES_8X16:
        return times(pieces(m->k, 128), TILE_BYTES);
    default:
        return pieces(times(m->k, bits), 8);
    }
}

/* How many of them there are. */
static int64_t row_count(const gatun_matrix *m, int32_t bits) {
    switch (m->code_order) {
    case GATUN_ORDER_WORDS_K:
        return bits == 3 ? times(pieces(m->k, 32), 3) : pieces(m->k, 32 / bits);
    case GATUN_ORDER_WORDS_N:
        return m->k;
    case GATUN_ORDER_SPLIT_ROWS:
        return pieces(m->n * m->k / m->block_cols, 8 / bits);
    case GATUN_ORDER_TILES_8X16:
        return pieces(m->n, 8);
    default:
        return m->n;
    }
}

/* Whether codes of so many bits can lie in this order with this row stride. */
static bool is_possible(const gatun_matrix *m, int32_t bits) {
    bool small = bits >= 1 && bits <= 8;
    bool divides = small && 8 % bits == 0;
    bool dense = m->code_row_stride == 0;
    switch (m->code_order) {
    case GATUN_ORDER_LOW_FIRST:
        return gatun_is_gguf(m->encoding) || divides || bits == 16 || bits == 32;
    case GATUN_ORDER_HIGH_FIRST:
    case GATUN_ORDER_TILES_8X16:
        return bits == 4;
    case GATUN_ORDER_BITS:
    case GATUN_ORDER_WORDS:
        return small;
    case GATUN_ORDER_WORDS_K:
        return small && (bits == 3 || 32 % bits == 0) && dense;
    case GATUN_ORDER_WORDS_N:
        return bits == 4 && dense;
    case GATUN_ORDER_SPLIT_ROWS:
        return divides && dense && m->flat_block == 0 && m->block_cols >= 1 && m->k % m->block_cols == 0;
    default:
        return false;
    }
}

int64_t gatun_codes_size(const gatun_matrix *m) {
    int32_t bits = gatun_encoding_bits(m->encoding);
    int64_t elements = times(m->n, m->k);
    if (elements < 0 || times(elements, 32) < 0 || m->code_row_stride < 0 || !is_possible(m, bits)) {
        return -1;
    }
    int64_t row = row_bytes(m, bits);
    if (row < 0 || elements == 0) {
        return row < 0 ? -1 : 0;
    }
    if (m->code_row_stride == 0 && m->code_order <= GATUN_ORDER_BITS && !gatun_is_gguf(m->encoding)) {
        return pieces(elements * bits, 8); /* one stream, whatever the rows */
    }
    int64_t stride = m->code_row_stride != 0 ? m->code_row_stride : row;
    return stride < row ? -1 : plus(times(row_count(m, bits) - 1, stride), row);
}

/* Whether the codes of a row follow each other in its bytes. */
static bool is_stream(const gatun_matrix *m) { return m->code_order <= GATUN_ORDER_HIGH_FIRST; }

typedef uint8_t sixteen __attribute__((vector_size(16)));

/* Nibbles from one in the middle of a byte or at its start on; `even` and `odd` are the shifts of a byte's codes. */
static void nibbles_get(const uint8_t *restrict data, bool middle, int32_t even, int64_t count,
                        uint8_t *restrict codes) {
    const int32_t odd = 4 - even;
    if (middle && count > 0) {
        *codes++ = *data++ >> odd & 15;
        count--;
    }
    int64_t i = 0;
    for (; i + 16 <= count / 2; i += 16) {
        sixteen v, two[2];
        memcpy(&v, data + i, sizeof v);
        sixteen a = v >> (uint8_t)even & 15, b = v >> (uint8_t)odd & 15;
        two[0] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        two[1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        memcpy(codes + 2 * i, two, sizeof two);
    }
    for (; i < count / 2; i++) {
        codes[2 * i] = data[i] >> even & 15;
        codes[2 * i + 1] = data[i] >> odd & 15;
    }
    if (count % 2 != 0) {
        codes[count - 1] = data[count / 2] >> even & 15;
    }
}

/* The codes of `step` bytes apart, at the same bits of each. */
static void strided_get(const uint8_t *restrict data, int64_t step, int32_t shift, uint32_t mask, int64_t count,
                        uint8_t *restrict codes) {
    for (int64_t i = 0; i < count; i++) {
        codes[i] = (uint8_t)(data[i * step] >> shift & mask);
    }
}

/* Words along K, N apart: those of one row, from the start of a word on. */
static void words_k_get(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, int32_t bits,
                        uint8_t *restrict codes) {
    const uint8_t *data = (const uint8_t *)m->codes + gatun_code_place(m, row, first).byte;
    const int64_t per_word = 32 / bits;
    for (int64_t i = 0; i < count; data += m->n * 4) {
        uint32_t word;
        memcpy(&word, data, sizeof word);
        for (int64_t j = 0; j < per_word && i < count; j++, i++, word >>= bits) {
            codes[i] = (uint8_t)(word & ((1u << bits) - 1));
        }
    }
}

void gatun_codes_get(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, uint8_t *codes) {
    int32_t bits = gatun_encoding_bits(m->encoding);
    const uint8_t *data = (const uint8_t *)m->codes;
    uint32_t mask = (1u << bits) - 1;
    bool whole_words = m->code_order == GATUN_ORDER_BITS || m->code_order == GATUN_ORDER_WORDS;
    if (bits == 8 && (is_stream(m) || whole_words)) {
        memcpy(codes, data + gatun_code_place(m, row, first).byte, (size_t)count);
        return;
    }
    if (bits == 4 && (is_stream(m) || whole_words)) {
        gatun_place p = gatun_code_place(m, row, first);
        int32_t even = m->code_order == GATUN_ORDER_HIGH_FIRST ? 4 : 0;
        nibbles_get(data + p.byte, p.shift != even, even, count, codes);
        return;
    }
    if (m->code_order == GATUN_ORDER_WORDS_K && bits != 3 && first % (32 / bits) == 0) {
        words_k_get(m, row, first, count, bits, codes);
        return;
    }
    if (m->code_order == GATUN_ORDER_WORDS_N) {
        gatun_place p = gatun_code_place(m, row, first);
        strided_get(data + p.byte, (m->n + 7) / 8 * 4, p.shift, mask, count, codes);
        return;
    }
    for (int64_t i = 0, run; m->code_order == GATUN_ORDER_SPLIT_ROWS && i < count; i += run) {
        gatun_place p = gatun_code_place(m, row, first + i);
        run = m->block_cols - (first + i) % m->block_cols; /* K is a multiple of block_cols */
        run = run < count - i ? run : count - i;
        strided_get(data + p.byte, 1, p.shift, mask, run, codes + i);
    }
    if (m->code_order == GATUN_ORDER_SPLIT_ROWS) {
        return;
    }
    place_function *place = places[m->code_order];
    for (int64_t i = 0; i < count; i++) {
        gatun_place p = place(m, row, first + i, bits);
        uint32_t v = data[p.byte];
        int32_t have = 8 - p.shift;
        v >>= p.shift;
        if (have < bits) {
            v |= (uint32_t)data[gatun_next_byte(m, p.byte)] << have;
        }
        codes[i] = (uint8_t)(v & mask);
    }
}

static void put(uint8_t *byte, int32_t shift, uint32_t mask, uint32_t code) {
    *byte = (uint8_t)((*byte & ~(mask << shift)) | code << shift);
}

void gatun_codes_put(const gatun_matrix *m, int64_t row, int64_t first, int64_t count, const uint8_t *codes) {
    int32_t bits = gatun_encoding_bits(m->encoding);
    uint8_t *data = (uint8_t *)m->codes;
    uint32_t mask = (1u << bits) - 1;
    if (bits == 8 && is_stream(m)) {
        memcpy(data + gatun_code_place(m, row, first).byte, codes, (size_t)count);
        return;
    }
    place_function *place = places[m->code_order];
    for (int64_t i = 0; i < count; i++) {
        gatun_place p = place(m, row, first + i, bits);
        int32_t have = 8 - p.shift;
        put(data + p.byte, p.shift, mask & ((1u << have) - 1), codes[i] & mask & ((1u << have) - 1));
        if (have < bits) {
            put(data + gatun_next_byte(m, p.byte), 0, mask >> have, (codes[i] & mask) >> have);
        }
    }
}
