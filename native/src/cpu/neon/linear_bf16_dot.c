/*
 * linear_bf16_<weight>__neon by bfdot: x and weights rounded to bfloat16, words of two neighbouring k.
 *
 * x lies in tiles of four rows, [word][4]. A piece of K of a panel is dequantized to floats and then to words
 * [word][32] in the worker's scratch; sums wait there from piece to piece.
 */
#include "cpu/neon/lanes.h"

#define WORDS_BF16
#include "cpu/lanes_operands.inc"
#include "cpu/neon/choices.h"
#include "cpu/neon/words.inc"

enum { SUM_ROWS = 504, SUM_FLOATS = (SUM_ROWS + WORD_ROWS) * GATUN_PANEL };

static int64_t words_of(int64_t k) { return (k + 1) / 2; }

/* Two floats as they are rounded, the first in the lower half. */
static uint32_t word(float first, float second) {
    return gatun_float_bits(gatun_round(GATUN_BF16, first)) >> 16 |
           (gatun_float_bits(gatun_round(GATUN_BF16, second)) & 0xFFFF0000);
}

static int64_t x_bytes(const gatun_packed *p, int64_t m) {
    float_plan plan;
    make_plan(p, AS_IS, &plan);
    return (m + WORD_ROWS - 1) / WORD_ROWS * WORD_ROWS * words_of(plan.k) * 4;
}

static bool fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {
    float_plan plan;
    make_plan(in->packed, AS_IS, &plan);
    const int64_t words = words_of(plan.k);
    for (int64_t row = row0; row < (row1 + WORD_ROWS - 1) / WORD_ROWS * WORD_ROWS; row++) {
        uint32_t *x = (uint32_t *)area + row / WORD_ROWS * WORD_ROWS * words + row % WORD_ROWS;
        for (int64_t i = 0; i < words; i++) {
            bool there = row < row1 && 2 * i < in->packed->k;
            vf v = there ? load_x(in, row, 2 * i) : (vf){0};
            x[i * WORD_ROWS] = word(v[0], v[1]);
        }
    }
    return true;
}

static int64_t scratch_bytes(const gatun_packed *p) {
    float_plan plan;
    make_plan(p, AS_IS, &plan);
    return 4 * (SUM_FLOATS + GATUN_PANEL * (plan.piece + 1) + GATUN_PANEL * words_of(plan.piece));
}

static void run(const gatun_linear_task *t) {
    float_plan plan;
    make_plan(t->packed, AS_IS, &plan);
    float *sums = (float *)(void *)t->scratch, *decoded = sums + SUM_FLOATS;
    uint32_t *w = (uint32_t *)(void *)(decoded + GATUN_PANEL * (plan.piece + 1));
    const int64_t x_words = words_of(plan.k);
    int64_t row1;
    for (int64_t row0 = t->row0; row0 < t->row1; row0 = row1) {
        row1 = row0 + SUM_ROWS < t->row1 ? row0 + SUM_ROWS : t->row1;
        for (int64_t panel = t->panel0; panel < t->panel1; panel++) {
            memset(sums, 0, (size_t)(4 * SUM_FLOATS));
            for (int64_t k = 0; k < plan.k; k += plan.piece) {
                const int64_t end = k + plan.piece < plan.k ? k + plan.piece : plan.k, words = words_of(end - k);
                decode(t->packed, &plan, panel, k, end, decoded);
                memset(decoded + GATUN_PANEL * (end - k), 0, 4 * GATUN_PANEL);
                for (int64_t i = 0; i < words * GATUN_PANEL; i++) {
                    const float *pair = decoded + i / GATUN_PANEL * 2 * GATUN_PANEL + i % GATUN_PANEL;
                    w[i] = word(pair[0], pair[GATUN_PANEL]);
                }
                for (int64_t row = row0; row < row1; row += WORD_ROWS) {
                    const uint32_t *x = (const uint32_t *)t->x + row * x_words + k / 2 * WORD_ROWS;
                    add_words(x, w, words, NULL, sums + (row - row0) * GATUN_PANEL);
                }
            }
            store_tile(t, row0, row1 - row0, panel, sums);
        }
    }
}

static bool accepts(const gatun_packed *p) { return p->k != 0; }

static const gatun_x_layout x_layout = {
    .row_tile = CHOICE_ROW_TILE, .bytes = x_bytes, .fill = fill, .scratch = scratch_bytes};
const linear_choice neon_bf16_dot = {&x_layout, run, accepts};
