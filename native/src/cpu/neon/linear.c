/*
 * linear_<compute>_<weight>__neon: the best of the kernels that this processor has instructions for. float and what has
 * no integer form are multiplied as floats; int8 by smmla (i8mm) or sdot (dotprod), bfloat16 by bfdot.
 */
#include "cpu/kernels.h"
#include "cpu/neon/choice.h"

#define LANES_OF(name)                                                                                                 \
    {                                                                                                                  \
        &gatun_linear_lanes_##name##_x__neon, gatun_linear_lanes_##name##__neon,                                       \
            gatun_linear_lanes_##name##_accepts__neon                                                                  \
    }
static const neon_linear i8_lanes = LANES_OF(i8), i8_block_lanes = LANES_OF(i8_block), bf16_lanes = LANES_OF(bf16);

/* The first of `count` choices whose feature is there and that accepts the weight, or the last. */
typedef struct choice {
    const char *feature; /* null: always there */
    const neon_linear *linear;
} choice;

static const neon_linear *choose(const choice *choices, int32_t count, const gatun_packed *p) {
    int32_t i = 0;
    while (i < count - 1 &&
           !(gatun_cpu_has(choices[i].feature) && p->form != GATUN_FORM_SOURCE && choices[i].linear->accepts(p))) {
        i++;
    }
    return choices[i].linear;
}

static const choice i8_choices[] = {{"i8mm", &neon_i8_mm}, {"asimddp", &neon_i8_dot}, {NULL, &i8_lanes}};
static const choice i8_block_choices[] = {
    {"i8mm", &neon_i8_block_mm}, {"asimddp", &neon_i8_block_dot}, {NULL, &i8_block_lanes}};
static const choice bf16_choices[] = {{"bf16", &neon_bf16_dot}, {NULL, &bf16_lanes}};

#define CHOSEN(name, packed) choose(name##_choices, (int32_t)(sizeof name##_choices / sizeof name##_choices[0]), packed)
#define KERNEL(name)                                                                                                   \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return CHOSEN(name, p)->x->bytes(p, m); }          \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return CHOSEN(name, in->packed)->x->fill(in, row0, row1, area);                                                \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return CHOSEN(name, p)->x->scratch(p); }                    \
    const gatun_x_layout gatun_linear_##name##_x__neon = {                                                             \
        .row_tile = NEON_ROW_TILE, .bytes = name##_bytes, .fill = name##_fill, .scratch = name##_scratch};             \
    void gatun_linear_##name##__neon(const gatun_linear_task *t) { CHOSEN(name, t->packed)->run(t); }                  \
    bool gatun_linear_##name##_accepts__neon(const gatun_packed *p) {                                                  \
        return gatun_linear_lanes_##name##_accepts__neon(p);                                                           \
    }
KERNEL(i8)
KERNEL(i8_block)
KERNEL(bf16)
