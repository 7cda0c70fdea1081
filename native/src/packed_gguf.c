/*
 * Blocks that are codes of four to six or eight bits, a table of what they mean and a scale (and an offset) per group
 * become panels. Packing moves bits only, so that unpack gives the blocks back. What is 6 bits or a byte times a
 * binary16 stays so: the product would not fit in fewer bits than a float.
 *
 * Panels take as many bytes as their blocks, but for Q4_K 1.028, Q5_K 1.023, IQ4_XS 1.015 times as many (6-bit scales
 * become bytes).
 */
#include "pack_codes.h"

static const int8_t signed_nibbles[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
static const int8_t unsigned_nibbles[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Q4_K and Q5_K: scales and minima of six bits in 12 bytes; the last four of each have their two high bits above the
 * first four's. */
static void get_k(const uint8_t *block, uint8_t *scales, uint8_t *minima) {
    uint32_t s[3]; /* four bytes at once */
    memcpy(s, block + 4, sizeof s);
    const uint32_t low = 0x0F0F0F0Fu, six = 0x3F3F3F3Fu, high = 0x30303030u;
    const uint32_t scale[2] = {s[0] & six, (s[2] & low) | (s[0] >> 2 & high)};
    const uint32_t minimum[2] = {s[1] & six, (s[2] >> 4 & low) | (s[1] >> 2 & high)};
    memcpy(scales, scale, sizeof scale);
    memcpy(minima, minimum, sizeof minimum);
}
static void put_k(uint8_t *block, const uint8_t *scales, const uint8_t *minima) {
    uint8_t *s = block + 4;
    for (int32_t j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scales[j] | scales[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(minima[j] | minima[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scales[j + 4] & 15) | (minima[j + 4] & 15) << 4);
    }
}

static void get_q6_k(const uint8_t *block, uint8_t *scales, uint8_t *unused) {
    (void)unused;
    memcpy(scales, block + 192, 16);
}
static void put_q6_k(uint8_t *block, const uint8_t *scales, const uint8_t *unused) {
    (void)unused;
    memcpy(block + 192, scales, 16);
}

/* Eight scales of six bits, less 32: four low bits in nibbles, two high ones in a 16-bit word. */
static void get_iq4_xs(const uint8_t *block, uint8_t *scales, uint8_t *unused) {
    (void)unused;
    for (int32_t j = 0; j < 8; j++) {
        int32_t low = block[4 + j / 2] >> (j % 2 * 4) & 15, high = block[2 + j / 4] >> (j % 4 * 2) & 3;
        scales[j] = (uint8_t)((low | high << 4) - 32);
    }
}
static void put_iq4_xs(uint8_t *block, const uint8_t *scales, const uint8_t *unused) {
    (void)unused;
    memset(block + 2, 0, 6);
    for (int32_t j = 0; j < 8; j++) {
        int32_t scale = (uint8_t)(scales[j] + 32);
        block[4 + j / 2] |= (uint8_t)((scale & 15) << (j % 2 * 4));
        block[2 + j / 4] |= (uint8_t)(scale >> 4 << (j % 4 * 2));
    }
}

static void get_nvfp4(const uint8_t *block, uint8_t *scales, uint8_t *unused) {
    (void)unused;
    memcpy(scales, block, 4);
}
static void put_nvfp4(uint8_t *block, const uint8_t *scales, const uint8_t *unused) {
    (void)unused;
    memcpy(block, scales, 4);
}

static const gatun_gguf_panels types[] = {
    {GATUN_Q4_0, GATUN_FORM_CODES4, 32, GATUN_F16, GATUN_NONE, {2, 16, 4}, {0}, signed_nibbles, .super_groups = 0},
    {GATUN_Q4_1, GATUN_FORM_CODES4, 32, GATUN_F16, GATUN_F16, {4, 16, 4}, {0}, unsigned_nibbles, .super_groups = 0},
    {GATUN_Q5_0, GATUN_FORM_CODES5, 32, GATUN_F16, GATUN_NONE, {6, 16, 4}, {2, 1, 1}, NULL, .bias = 16},
    {GATUN_Q5_1, GATUN_FORM_CODES5, 32, GATUN_F16, GATUN_F16, {8, 16, 4}, {4, 1, 1}, NULL, .bias = 0},
    {GATUN_Q8_0, GATUN_FORM_CODES8, 32, GATUN_F16, GATUN_NONE, {2, 32, 8}, {0}, NULL, .super_groups = 0},
    {GATUN_IQ4_NL, GATUN_FORM_CODES4, 32, GATUN_F16, GATUN_NONE, {2, 16, 4}, {0}, gatun_iq4_values, .super_groups = 0},
    {GATUN_MXFP4, GATUN_FORM_CODES4, 32, GATUN_HALF_E8M0, GATUN_NONE, {1, 16, 4}, {0}, gatun_e2m1_doubled, .bias = 0},
    {GATUN_Q4_K,
     GATUN_FORM_CODES4,
     32,
     GATUN_U8,
     GATUN_U8,
     {16, 32, 4},
     {0},
     unsigned_nibbles,
     0,
     8,
     0,
     2,
     get_k,
     put_k},
    {GATUN_Q5_K, GATUN_FORM_CODES5, 32, GATUN_U8, GATUN_U8, {48, 32, 4}, {16, 32, 1}, NULL, 0, 8, 0, 2, get_k, put_k},
    {GATUN_Q6_K,
     GATUN_FORM_CODES6,
     16,
     GATUN_I8,
     GATUN_NONE,
     {0, 64, 4},
     {128, 32, 2},
     NULL,
     32,
     16,
     208,
     -1,
     get_q6_k,
     put_q6_k},
    {GATUN_IQ4_XS,
     GATUN_FORM_CODES4,
     32,
     GATUN_I8,
     GATUN_NONE,
     {8, 16, 4},
     {0},
     gatun_iq4_values,
     0,
     8,
     0,
     -1,
     get_iq4_xs,
     put_iq4_xs},
    {GATUN_NVFP4,
     GATUN_FORM_CODES4,
     16,
     GATUN_HALF_UE4M3,
     GATUN_NONE,
     {4, 8, 4},
     {0},
     gatun_e2m1_doubled,
     0,
     4,
     -1,
     -1,
     get_nvfp4,
     put_nvfp4},
};

const gatun_gguf_panels *gatun_gguf_panels_of(const gatun_matrix *m) {
    bool bare = m->global_scale == 1.0f && m->zero_point == 0 && m->arithmetic == GATUN_F32;
    for (size_t i = 0; bare && i < sizeof types / sizeof types[0]; i++) {
        if (types[i].encoding == m->encoding) {
            const gatun_block *block = gatun_gguf_block(m->encoding);
            int64_t row = m->k / block->elements * block->bytes;
            return m->code_row_stride == 0 || m->code_row_stride == row ? &types[i] : NULL;
        }
    }
    return NULL;
}

void gatun_gguf_lay_supers(const gatun_gguf_panels *p, int64_t code_bytes, gatun_packed *h) {
    int64_t factors = p->factor_at < 0 ? 0 : 2 * GATUN_PANEL * (p->offset_factor_at < 0 ? 1 : 2);
    h->factor_type = p->factor_at < 0 ? GATUN_NONE : GATUN_F16;
    h->super_groups = p->super_groups;
    h->super_scale_bytes = GATUN_PANEL * (p->offset_type == GATUN_NONE ? 1 : 2);
    h->super_stride = factors + p->super_groups * h->super_scale_bytes;
    h->group_stride = code_bytes;
    h->supers_offset = h->groups * code_bytes;
    h->scales_offset = h->supers_offset + factors;
    h->offsets_offset = p->offset_type == GATUN_NONE ? 0 : h->scales_offset + GATUN_PANEL;
    h->panel_stride = h->supers_offset + h->groups / p->super_groups * h->super_stride;
}

void gatun_gguf_fill_table(const gatun_gguf_panels *p, int32_t form, float *table) {
    for (int64_t i = 0; i < gatun_panel_table_size(form); i++) {
        int32_t code = form == GATUN_FORM_CODES8 ? (int8_t)i : (int32_t)i - p->bias;
        table[i] = (float)(p->table != NULL ? p->table[i] : code);
    }
}

static uint8_t *block_at(const gatun_matrix *m, const gatun_block *block, int64_t row, int64_t index) {
    return (uint8_t *)m->codes + row * gatun_gguf_stride(m, block) + index * block->bytes;
}

static uint64_t load_eight(const uint8_t *from) {
    uint64_t v;
    memcpy(&v, from, sizeof v);
    return v;
}
static void store_eight(uint8_t *to, uint64_t v) { memcpy(to, &v, sizeof v); }

/* Bits of a plane into codes, from bit `to` of them on (0: the codes are new), eight bytes at once. */
static inline __attribute__((always_inline)) void plane_read(const int32_t bytes, const int32_t bits, const int32_t to,
                                                             const uint8_t *restrict from, int32_t elements,
                                                             uint8_t *restrict codes) {
    const uint64_t ones = 0x0101010101010101u, mask = ones * ((1u << bits) - 1);
    for (int32_t i = 0; i < elements; from += bytes) {
        for (int32_t shift = 0; shift < 8; shift += bits, i += bytes) {
            for (int32_t j = 0; j < bytes; j += 8) {
                uint64_t v = (load_eight(from + j) >> shift & mask) << to;
                store_eight(codes + i + j, to == 0 ? v : v | load_eight(codes + i + j));
            }
        }
    }
}

/* Four bytes of one bit a code: byte j of eight keeps bit j, and what is left becomes 1. */
static void bits_read(const uint8_t *from, int32_t to, int32_t elements, uint8_t *codes) {
    const uint64_t ones = 0x0101010101010101u;
    for (int32_t i = 0; i < elements; i += 8) {
        uint64_t bits = *from++ * ones & 0x8040201008040201u;
        store_eight(codes + i, ((bits + 0x7F * ones) >> 7 & ones) << to | load_eight(codes + i));
    }
}

/* The codes of a block. The widths of planes are constants to their loops. */
static void block_codes(const gatun_gguf_panels *p, const uint8_t *block, int32_t elements, uint8_t *codes) {
    const uint8_t *low = block + p->low.at, *high = block + p->high.at;
    if (p->low.bits == 8) {
        memcpy(codes, low, (size_t)elements);
    } else if (p->low.bytes == 8) {
        plane_read(8, 4, 0, low, elements, codes);
    } else if (p->low.bytes == 16) {
        plane_read(16, 4, 0, low, elements, codes);
    } else if (p->low.bytes == 32) {
        plane_read(32, 4, 0, low, elements, codes);
    } else {
        plane_read(64, 4, 0, low, elements, codes);
    }
    if (p->high.bits == 1 && p->high.bytes == 1) {
        bits_read(high, 4, elements, codes);
    } else if (p->high.bits == 1) {
        plane_read(32, 1, 4, high, elements, codes);
    } else if (p->high.bits == 2) {
        plane_read(32, 2, 4, high, elements, codes);
    }
}
/* And back into zeros. */
static void plane_put(const gatun_plane *p, uint8_t *block, int32_t from, int32_t elements, const uint8_t *codes) {
    uint8_t *to = block + p->at;
    for (int32_t i = 0; p->bits != 0 && i < elements; to += p->bytes) {
        memset(to, 0, (size_t)p->bytes);
        for (int32_t shift = 0; shift < 8; shift += p->bits, i += p->bytes) {
            for (int32_t j = 0; j < p->bytes; j++) {
                to[j] = (uint8_t)(to[j] | (codes[i + j] >> from & ((1 << p->bits) - 1)) << shift);
            }
        }
    }
}

/* The binary16 at a block's byte to number o of an array; offsets' factors are kept negated, since minima are
 * subtracted. */
static void pack_factors(const gatun_gguf_panels *p, const uint8_t *block, int64_t o, uint8_t *factors) {
    memcpy(factors + 2 * o, block + p->factor_at, 2);
    if (p->offset_factor_at >= 0) {
        uint16_t negated = gatun_load_u16(block + p->offset_factor_at) ^ 0x8000;
        memcpy(factors + 2 * (GATUN_PANEL + o), &negated, 2);
    }
}
static void unpack_factors(const gatun_gguf_panels *p, const uint8_t *factors, int64_t o, uint8_t *block) {
    memcpy(block + p->factor_at, factors + 2 * o, 2);
    if (p->offset_factor_at >= 0) {
        uint16_t negated = gatun_load_u16(factors + 2 * (GATUN_PANEL + o)) ^ 0x8000;
        memcpy(block + p->offset_factor_at, &negated, 2);
    }
}

static uint8_t *own_of(const gatun_packed *h, int64_t row, int64_t group) {
    return (uint8_t *)(uintptr_t)gatun_packed_parameters(h, row / GATUN_PANEL, group).own;
}

static void unpack_parameters(const gatun_gguf_panels *p, const gatun_packed *h, int64_t row, int64_t group,
                              uint8_t *block) {
    int64_t o = row % GATUN_PANEL;
    const uint8_t *own = own_of(h, row, group);
    if (p->super_groups == 0) {
        const int64_t size = gatun_panel_number_size(p->scale_type);
        memcpy(block, own + h->scales_offset + size * o, (size_t)size);
        if (p->offset_type != GATUN_NONE) {
            memcpy(block + 2, own + h->offsets_offset + 2 * o, 2);
        }
        return;
    }
    uint8_t scales[16], offsets[16];
    for (int32_t j = 0; j < p->super_groups; j++, own += h->super_scale_bytes) {
        scales[j] = own[h->scales_offset + o];
        offsets[j] = p->offset_type == GATUN_NONE ? 0 : own[h->offsets_offset + o];
    }
    p->put(block, scales, offsets);
    if (p->factor_at >= 0) {
        unpack_factors(p, gatun_packed_parameters(h, row / GATUN_PANEL, group).factors, o, block);
    }
}

/* Groups of a panel that a block makes. */
static int64_t groups_of(const gatun_gguf_panels *p) { return p->super_groups == 0 ? 1 : p->super_groups; }

void gatun_gguf_codes_get(const gatun_gguf_panels *p, const gatun_matrix *m, int64_t row, int64_t first, int64_t count,
                          uint8_t *codes) {
    const gatun_block *type = gatun_gguf_block(m->encoding);
    const uint8_t *block = block_at(m, type, row, first / type->elements);
    for (int64_t i = 0; i < count; i += type->elements, block += type->bytes) {
        block_codes(p, block, type->elements, codes + i);
    }
}

/* Numbers of one or two bytes, one of each block, next to each other. */
static inline __attribute__((always_inline)) void gather(const int64_t size, const uint8_t *restrict block,
                                                         int64_t stride, const int64_t rows, uint8_t *restrict to) {
    for (int64_t o = 0; o < rows; o++, block += stride) {
        memcpy(to + size * o, block, (size_t)size);
    }
}
static void pack_numbers(int64_t size, const uint8_t *restrict block, int64_t stride, int64_t rows,
                         uint8_t *restrict to) {
    for (; rows >= 8; rows -= 8, block += 8 * stride, to += 8 * size) { /* the compiler unrolls eight */
        if (size == 1) {
            gather(1, block, stride, 8, to);
        } else {
            gather(2, block, stride, 8, to);
        }
    }
    gather(size, block, stride, rows, to);
}

/* The bytes of all groups of blocks and their factors to records. Records without factors lie so that the groups of all
 * of them are evenly apart; those with factors are one to a piece. */
static void pack_records(const gatun_gguf_panels *p, const gatun_packed *h, const uint8_t *block, int64_t block_bytes,
                         int64_t stride, int64_t panel, int64_t rows, int64_t group, int64_t groups) {
    uint8_t scales[GATUN_PANEL][16] = {{0}}, offsets[GATUN_PANEL][16] = {{0}};
    const uint8_t *scales_at[GATUN_PANEL], *offsets_at[GATUN_PANEL];
    const gatun_parameters at = gatun_packed_parameters(h, panel, group);
    for (int64_t o = 0; o < GATUN_PANEL; o++) {
        scales_at[o] = scales[o];
        offsets_at[o] = offsets[o];
    }
    for (int64_t o = 0; o < rows; o++) {
        const uint8_t *from = block + o * stride;
        if (p->factor_at >= 0) {
            pack_factors(p, from, o, (uint8_t *)(uintptr_t)at.factors);
        }
        for (int64_t g = 0; g < groups; g += p->super_groups, from += block_bytes) {
            p->get(from, scales[o] + g, offsets[o] + g);
        }
    }
    uint8_t *own = (uint8_t *)(uintptr_t)at.own;
    gatun_put_numbers(1, scales_at, groups, own + h->scales_offset, h->super_scale_bytes);
    if (p->offset_type != GATUN_NONE) {
        gatun_put_numbers(1, offsets_at, groups, own + h->offsets_offset, h->super_scale_bytes);
    }
}

void gatun_gguf_pack_parameters(const gatun_gguf_panels *p, const gatun_matrix *m, const gatun_packed *h, int64_t panel,
                                int64_t rows, int64_t group, int64_t groups, uint8_t *made) {
    const gatun_block *type = gatun_gguf_block(m->encoding);
    const int64_t stride = gatun_gguf_stride(m, type);
    const uint8_t *block = block_at(m, type, panel * GATUN_PANEL, group / groups_of(p));
    if (p->super_groups != 0) {
        pack_records(p, h, block, type->bytes, stride, panel, rows, group, groups);
        return;
    }
    const int64_t size = gatun_panel_number_size(p->scale_type);
    for (int64_t g = 0; g < groups; g++, block += type->bytes) {
        uint8_t *own = gatun_own_made(h, panel, group + g, g, made);
        pack_numbers(size, block, stride, rows, own + h->scales_offset);
        if (p->offset_type != GATUN_NONE) {
            pack_numbers(2, block + 2, stride, rows, own + h->offsets_offset);
        }
    }
}

void gatun_gguf_unpack_row(const gatun_packed *h, const gatun_matrix *m, int64_t row) {
    const gatun_gguf_panels *p = gatun_gguf_panels_of(m);
    const gatun_block *type = gatun_gguf_block(m->encoding);
    for (int64_t g = 0; g < h->groups; g += groups_of(p)) {
        uint8_t *block = block_at(m, type, row, g / groups_of(p));
        uint8_t codes[GATUN_BLOCK_MAX];
        for (int64_t i = 0; i < type->elements; i++) {
            const uint8_t *group = gatun_packed_group(h, row / GATUN_PANEL, g + i / p->group);
            codes[i] = (uint8_t)gatun_panel_code(h->form, group, row % GATUN_PANEL, i % p->group);
        }
        plane_put(&p->low, block, 0, type->elements, codes);
        plane_put(&p->high, block, 4, type->elements, codes);
        unpack_parameters(p, h, row, g, block);
    }
}
