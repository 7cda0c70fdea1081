/*
 * Blocks of 32 weights with one scale (Q4_0, Q4_1, Q8_0, IQ4_NL, MXFP4) are what the panels hold already: codes, a
 * table of what they mean, a scale (and an offset) per group. Packing moves bits only, so that unpack gives the blocks
 * back.
 */
#include "packed_gguf.h"

static const int8_t signed_nibbles[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
static const int8_t unsigned_nibbles[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static const gatun_gguf_panels types[] = {
    {GATUN_Q4_0, GATUN_FORM_CODES4, GATUN_F16, GATUN_NONE, 2, signed_nibbles},
    {GATUN_Q4_1, GATUN_FORM_CODES4, GATUN_F16, GATUN_F16, 4, unsigned_nibbles},
    {GATUN_Q8_0, GATUN_FORM_CODES8, GATUN_F16, GATUN_NONE, 2, NULL},
    {GATUN_IQ4_NL, GATUN_FORM_CODES4, GATUN_F16, GATUN_NONE, 2, gatun_iq4_values},
    /* 2^(e - 128) is a bfloat16 for every e */
    {GATUN_MXFP4, GATUN_FORM_CODES4, GATUN_BF16, GATUN_NONE, 1, gatun_e2m1_doubled},
};

const gatun_gguf_panels *gatun_gguf_panels_of(const gatun_matrix *m) {
    bool bare = m->global_scale == 1.0f && m->zero_point == 0 && m->arithmetic == GATUN_F32;
    for (size_t i = 0; bare && i < sizeof types / sizeof types[0]; i++) {
        if (types[i].encoding == m->encoding) {
            int64_t row = m->k / GATUN_GGUF_PANEL_GROUP * gatun_gguf_block(m->encoding)->bytes;
            return m->code_row_stride == 0 || m->code_row_stride == row ? &types[i] : NULL;
        }
    }
    return NULL;
}

void gatun_gguf_fill_table(const gatun_gguf_panels *panels, float *table) {
    int32_t count = panels->table != NULL ? 16 : 256;
    for (int32_t i = 0; i < count; i++) {
        table[i] = panels->table != NULL ? (float)panels->table[i] : (float)(int8_t)i;
    }
}

/* MXFP4's exponent as the bfloat16 that it means, and back. */
static uint16_t bf16_of_exponent(uint8_t e) { return (uint16_t)(gatun_float_bits(gatun_half_of_e8m0(e)) >> 16); }
static uint8_t exponent_of_bf16(uint16_t bits) {
    return (uint8_t)(bits == bf16_of_exponent(0) ? 0 : bits == bf16_of_exponent(1) ? 1 : (bits >> 7) + 1);
}

static uint8_t *panel_group(const gatun_packed *h, int64_t row, int64_t group) {
    return (uint8_t *)(uintptr_t)gatun_packed_group(h, row / GATUN_PANEL, group);
}

static uint8_t *block_at(const gatun_matrix *m, int64_t row, int64_t group) {
    const gatun_block *block = gatun_gguf_block(m->encoding);
    return (uint8_t *)m->codes + row * gatun_gguf_stride(m, block) + group * block->bytes;
}

void gatun_gguf_pack_row(const gatun_matrix *m, gatun_packed *h, int64_t row) {
    const gatun_gguf_panels *p = gatun_gguf_panels_of(m);
    int64_t o = row % GATUN_PANEL;
    int32_t shift = o < 16 ? 0 : 4;
    for (int64_t g = 0; g < h->groups; g++) {
        const uint8_t *block = block_at(m, row, g);
        uint8_t *out = panel_group(h, row, g);
        for (int64_t k = 0; k < GATUN_GGUF_PANEL_GROUP; k++) {
            uint8_t *at = out + gatun_panel_code_byte(h->form, o, k);
            if (p->form == GATUN_FORM_CODES4) {
                int32_t code = block[p->codes_at + k % 16] >> (k < 16 ? 0 : 4) & 15;
                *at = (uint8_t)(*at | code << shift);
            } else {
                *at = block[p->codes_at + k];
            }
        }
        uint16_t scale = p->encoding == GATUN_MXFP4 ? bf16_of_exponent(block[0]) : gatun_load_u16(block);
        memcpy(out + h->scales_offset + 2 * o, &scale, sizeof scale);
        if (p->offset_type != GATUN_NONE) {
            memcpy(out + h->offsets_offset + 2 * o, block + 2, 2);
        }
    }
}

void gatun_gguf_unpack_row(const gatun_packed *h, const gatun_matrix *m, int64_t row) {
    const gatun_gguf_panels *p = gatun_gguf_panels_of(m);
    int64_t o = row % GATUN_PANEL;
    int32_t shift = o < 16 ? 0 : 4;
    for (int64_t g = 0; g < h->groups; g++) {
        uint8_t *block = block_at(m, row, g);
        const uint8_t *in = panel_group(h, row, g);
        for (int64_t k = 0; p->form == GATUN_FORM_CODES8 && k < GATUN_GGUF_PANEL_GROUP; k++) {
            block[p->codes_at + k] = in[gatun_panel_code_byte(h->form, o, k)];
        }
        for (int64_t k = 0; p->form == GATUN_FORM_CODES4 && k < 16; k++) {
            int32_t low = in[gatun_panel_code_byte(h->form, o, k)] >> shift & 15;
            int32_t high = in[gatun_panel_code_byte(h->form, o, k + 16)] >> shift & 15;
            block[p->codes_at + k] = (uint8_t)(low | high << 4);
        }
        uint16_t scale = gatun_load_u16(in + h->scales_offset + 2 * o);
        if (p->encoding == GATUN_MXFP4) {
            block[0] = exponent_of_bf16(scale);
        } else {
            memcpy(block, &scale, sizeof scale);
        }
        if (p->offset_type != GATUN_NONE) {
            memcpy(block + 2, in + h->offsets_offset + 2 * o, 2);
        }
    }
}
