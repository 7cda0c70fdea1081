/*
 * Several `linear` kernels of one tier behind one row of the table, for <isa>/linear.c: which one runs depends on the
 * processor's extensions and on what a kernel accepts.
 */
#ifndef GATUN_LINEAR_CHOICE_H
#define GATUN_LINEAR_CHOICE_H

#include "gatun_internal.h"

enum { CHOICE_ROW_TILE = 24 }; /* whole tiles of all of them */

typedef struct linear_choice {
    const gatun_x_layout *x;
    gatun_linear_kernel *run;
    gatun_linear_accepts *accepts;
} linear_choice;

typedef struct featured_choice {
    const char *feature; /* that the kernel needs; null: always there */
    const linear_choice *linear;
} featured_choice;

/* The float kernels of cpu/linear_lanes.inc. */
#define LANES_CHOICE(name, isa)                                                                                        \
    {                                                                                                                  \
        &gatun_linear_lanes_##name##_x__##isa, gatun_linear_lanes_##name##__##isa,                                     \
            gatun_linear_lanes_##name##_accepts__##isa                                                                 \
    }

/* The first of `count` choices whose feature is there and that accepts the weight, or the last. */
static inline const linear_choice *choose_linear(const featured_choice *choices, int32_t count, const gatun_packed *p) {
    int32_t i = 0;
    while (i < count - 1 && !((choices[i].feature == NULL || gatun_cpu_has(choices[i].feature)) &&
                              p->form != GATUN_FORM_SOURCE && choices[i].linear->accepts(p))) {
        i++;
    }
    return choices[i].linear;
}

/* The kernel of a row, which chooses among name_choices; it takes what the last of them, the float one, takes. */
#define CHOSEN(name, packed)                                                                                           \
    choose_linear(name##_choices, (int32_t)(sizeof name##_choices / sizeof name##_choices[0]), packed)
#define CHOSEN_KERNEL(name, isa)                                                                                       \
    static int64_t name##_bytes(const gatun_packed *p, int64_t m) { return CHOSEN(name, p)->x->bytes(p, m); }          \
    static bool name##_fill(const gatun_linear_input *in, int64_t row0, int64_t row1, void *area) {                    \
        return CHOSEN(name, in->packed)->x->fill(in, row0, row1, area);                                                \
    }                                                                                                                  \
    static int64_t name##_scratch(const gatun_packed *p) { return CHOSEN(name, p)->x->scratch(p); }                    \
    const gatun_x_layout gatun_linear_##name##_x__##isa = {                                                            \
        .row_tile = CHOICE_ROW_TILE, .bytes = name##_bytes, .fill = name##_fill, .scratch = name##_scratch};           \
    void gatun_linear_##name##__##isa(const gatun_linear_task *t) { CHOSEN(name, t->packed)->run(t); }                 \
    bool gatun_linear_##name##_accepts__##isa(const gatun_packed *p) {                                                 \
        return gatun_linear_lanes_##name##_accepts__##isa(p);                                                          \
    }

#endif
