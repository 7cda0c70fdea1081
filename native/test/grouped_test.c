/*
 * Grouped linear against gatun_linear of each expert's rows, bit for bit, on one instruction set: experts without rows,
 * one expert, ragged runs, experts of several forms and encodings, NaN and infinity, 16-bit x and y, epilogues; and
 * what is refused. linear_test holds gatun_linear to its definition. Usage: grouped_test <isa>; exit code 77 when this
 * machine lacks it.
 */
#include <math.h>

#include "encodings/numbers.h"
#include "matrices.h"

enum { THREADS = 3, MOST_EXPERTS = 9 };

static int32_t isa;

/* Experts of one shape, with what belongs to each. */
typedef struct experts {
    int64_t n, k, count;
    gatun_expert of[MOST_EXPERTS];
    guarded packed[MOST_EXPERTS];
    void *vectors[2 * MOST_EXPERTS];
} experts;

static void add(random_state *r, experts *all, int32_t encoding, int32_t cut, int64_t group) {
    gatun_matrix m;
    bool block = gatun_is_gguf(encoding);
    CHECK(random_matrix(r, encoding, GATUN_ORDER_LOW_FIRST, all->n, all->k, block ? PER_TENSOR : cut, group, 0,
                        block ? GATUN_NONE : GATUN_F32, GATUN_F32, &m),
          "no such matrix");
    int64_t size, e = all->count++;
    CHECK_STATUS(GATUN_OK, gatun_packed_size(&m, &size));
    void *packed = buffer(size, 0);
    CHECK_STATUS(GATUN_OK, gatun_pack(&m, packed, size, 1));
    all->packed[e] = guard_copy(packed, size);
    free(packed);
    free_matrix(&m);
    all->vectors[2 * e] = random_numbers(r, GATUN_F32, all->n, 1.0f);
    all->vectors[2 * e + 1] = random_numbers(r, GATUN_F32, all->k, 1.0f);
    all->of[e] =
        (gatun_expert){.packed = all->packed[e].data,
                       .packed_size = size,
                       .bias = random_below(r, 2) == 1 ? (const float *)all->vectors[2 * e] : NULL,
                       .x_multiplier = random_below(r, 2) == 1 ? (const float *)all->vectors[2 * e + 1] : NULL};
}

static void drop(experts *all) {
    for (int64_t e = 0; e < all->count; e++) {
        unguard(&all->packed[e]);
        free(all->vectors[2 * e]);
        free(all->vectors[2 * e + 1]);
    }
}

typedef struct operands {
    int32_t x_type, y_type, activation, combine;
    int64_t ldx, ldy;
    const void *x, *other;
} operands;

/* The definition: one expert after the other. */
static void one_by_one(const experts *all, const int64_t *offsets, const operands *o, int32_t compute, int32_t threads,
                       uint8_t *y) {
    int64_t x_size = gatun_plain_size(o->x_type), y_size = gatun_plain_size(o->y_type);
    for (int64_t e = 0; e < all->count; e++) {
        int64_t row = offsets[e], rows = offsets[e + 1] - row, bytes;
        CHECK_STATUS(GATUN_OK,
                     gatun_linear_workspace(all->of[e].packed, all->of[e].packed_size, rows, compute, threads, &bytes));
        void *workspace = buffer(bytes, 0);
        CHECK_STATUS(GATUN_OK, gatun_linear(all->of[e].packed, all->of[e].packed_size,
                                            (const uint8_t *)o->x + row * o->ldx * x_size, o->x_type, o->ldx, rows,
                                            y + row * o->ldy * y_size, o->y_type, o->ldy, all->of[e].bias,
                                            all->of[e].x_multiplier, o->activation, o->combine,
                                            (const uint8_t *)o->other + row * o->ldy * y_size, o->ldy, compute, isa,
                                            threads, workspace, bytes));
        free(workspace);
    }
}

static void multiply(random_state *r, const experts *all, const int64_t *offsets, int32_t compute, float special) {
    static const int32_t types[3] = {GATUN_F32, GATUN_F16, GATUN_BF16};
    operands o = {.x_type = types[random_below(r, 3)],
                  .y_type = types[random_below(r, 3)],
                  .activation = (int32_t)random_below(r, 4),
                  .combine = (int32_t)random_below(r, 3),
                  .ldx = all->k + random_below(r, 3),
                  .ldy = all->n + random_below(r, 3)};
    int64_t m = offsets[all->count], y_bytes = m * o.ldy * gatun_plain_size(o.y_type), bytes;
    void *x = random_numbers(r, o.x_type, m * o.ldx, 1.0f), *other = random_numbers(r, o.y_type, m * o.ldy, 1.0f);
    if (special != 0 && m > 0) {
        gatun_plain_put(o.x_type, x, m / 2 * o.ldx + all->k / 2, special);
    }
    o.x = x;
    o.other = other;
    int32_t threads = 1 + (int32_t)random_below(r, THREADS);
    uint8_t *expected = (uint8_t *)buffer(y_bytes, 0x5A);
    /* x, y and other end where their last page does, or begin where their first one does. */
    int64_t x_used = m == 0 ? 0 : ((m - 1) * o.ldx + all->k) * gatun_plain_size(o.x_type);
    int64_t y_used = m == 0 ? 0 : ((m - 1) * o.ldy + all->n) * gatun_plain_size(o.y_type);
    guarded xs = guard_copy_at(x, x_used, random_below(r, 2) == 1);
    guarded ys = guard_copy_at(expected, y_used, random_below(r, 2) == 1);
    guarded others = guard_copy_at(other, y_used, random_below(r, 2) == 1);
    one_by_one(all, offsets, &o, compute, threads, expected);
    CHECK_STATUS(GATUN_OK, gatun_linear_grouped_workspace(all->of, all->count, offsets, compute, threads, &bytes));
    guarded workspace = guard(bytes);
    memset(workspace.data, 0xFF, (size_t)bytes);
    CHECK_STATUS(GATUN_OK, gatun_linear_grouped(all->of, all->count, offsets, xs.data, o.x_type, o.ldx, ys.data,
                                                o.y_type, o.ldy, o.activation, o.combine, others.data, o.ldy, compute,
                                                isa, threads, workspace.data, bytes));
    CHECK(memcmp(expected, ys.data, (size_t)y_used) == 0, "%lld experts, %lld x %lld x %lld, compute %d: other bits",
          (long long)all->count, (long long)m, (long long)all->n, (long long)all->k, compute);
    guarded *guards[] = {&workspace, &xs, &ys, &others};
    for (size_t i = 0; i < sizeof guards / sizeof guards[0]; i++) {
        unguard(guards[i]);
    }
    free(x);
    free(other);
    free(expected);
}

static void try_compute(random_state *r, int32_t compute) {
    static const int64_t shapes[][2] = {{1, 1}, {33, 64}, {70, 300}, {257, 96}};
    static const int64_t runs[][MOST_EXPERTS] = {
        {5}, {0}, {1, 0, 3}, {0, 0, 2, 0}, {40, 1, 0, 17, 2, 0, 64, 3, 9}, {1, 1, 1, 1, 1, 1, 1, 1, 1}};
    static const int64_t counts[] = {1, 1, 3, 4, 9, 9};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            experts all = {.n = shapes[s][0], .k = shapes[s][1]};
            int64_t offsets[MOST_EXPERTS + 1] = {0};
            bool mixed = random_below(r, 2) == 1;
            for (int64_t e = 0; e < counts[c]; e++) {
                static const int32_t encodings[] = {GATUN_U4, GATUN_I8, GATUN_NF4, GATUN_U8};
                add(r, &all, encodings[mixed ? e % 4 : (int64_t)c % 4], random_below(r, 2) == 1 ? PER_ROW : PER_GROUP,
                    mixed ? 7 : 32);
                offsets[e + 1] = offsets[e] + runs[c][e];
            }
            multiply(r, &all, offsets, compute, 0);
            multiply(r, &all, offsets, compute, random_below(r, 2) == 1 ? NAN : INFINITY);
            drop(&all);
        }
    }
    experts blocks = {.n = 40, .k = 512};
    int64_t offsets[] = {0, 7, 7, 24};
    add(r, &blocks, GATUN_Q4_K, PER_TENSOR, 0);
    add(r, &blocks, GATUN_Q8_0, PER_TENSOR, 0);
    add(r, &blocks, GATUN_Q2_K, PER_TENSOR, 0);
    multiply(r, &blocks, offsets, compute, 0);
    drop(&blocks);
}

static void refuse(const experts *all, int64_t count, const int64_t *offsets, gatun_status expected, const char *what) {
    float x[64 * 16] = {0}, y[64 * 16] = {0};
    _Alignas(64) static uint8_t workspace[1 << 20];
    int64_t bytes;
    gatun_status status = gatun_linear_grouped(all->of, count, offsets, x, GATUN_F32, all->k, y, GATUN_F32, all->n, 0,
                                               0, NULL, 0, GATUN_COMPUTE_F32, isa, 1, workspace, sizeof workspace);
    CHECK(status == expected, "%s: %s (%s)", what, gatun_status_string(status), gatun_last_error());
    status = gatun_linear_grouped_workspace(all->of, count, offsets, GATUN_COMPUTE_F32, 1, &bytes);
    CHECK(status == expected, "%s, its workspace: %s (%s)", what, gatun_status_string(status), gatun_last_error());
}

static void try_refusals(random_state *r) {
    experts all = {.n = 16, .k = 32};
    add(r, &all, GATUN_U4, PER_ROW, 0);
    add(r, &all, GATUN_U4, PER_ROW, 0);
    refuse(&all, 2, (const int64_t[]){0, 1, 2}, GATUN_OK, "good offsets");
    refuse(&all, 0, (const int64_t[]){0}, GATUN_INVALID_ARGUMENT, "no experts");
    refuse(&all, 2, NULL, GATUN_INVALID_ARGUMENT, "no offsets");
    refuse(&all, 2, (const int64_t[]){1, 1, 2}, GATUN_INVALID_ARGUMENT, "offsets that begin at 1");
    refuse(&all, 2, (const int64_t[]){0, 2, 1}, GATUN_INVALID_ARGUMENT, "offsets that descend");
    refuse(&all, 2, (const int64_t[]){0, 1, INT64_MAX}, GATUN_INVALID_ARGUMENT, "too many rows");
    int64_t offsets[] = {0, 1, 3}, bytes;
    float x[96] = {0}, y[48] = {0};
    CHECK_STATUS(GATUN_OK, gatun_linear_grouped_workspace(all.of, 2, offsets, GATUN_COMPUTE_F32, 1, &bytes));
    guarded workspace = guard(64);
    CHECK_STATUS(GATUN_BUFFER_TOO_SMALL,
                 gatun_linear_grouped(all.of, 2, offsets, x, GATUN_F32, 32, y, GATUN_F32, 16, 0, 0, NULL, 0,
                                      GATUN_COMPUTE_F32, isa, 1, workspace.data, 64));
    CHECK_STATUS(GATUN_INVALID_ARGUMENT,
                 gatun_linear_grouped(all.of, 2, offsets, x, GATUN_F32, 31, y, GATUN_F32, 16, 0, 0, NULL, 0,
                                      GATUN_COMPUTE_F32, isa, 1, workspace.data, 64));
    unguard(&workspace);
    all.n = 17;
    add(r, &all, GATUN_U4, PER_ROW, 0);
    refuse(&all, 3, (const int64_t[]){0, 1, 2, 3}, GATUN_INVALID_ARGUMENT, "experts of several shapes");
    drop(&all);
}

int main(int count, char **arguments) {
    isa = isa_argument(count, arguments);
    CHECK_STATUS(GATUN_OK, gatun_threads_set(THREADS, 10));
    random_state r = {17};
    for (int32_t compute = GATUN_COMPUTE_F32; compute <= GATUN_COMPUTE_I8_BLOCK; compute++) {
        try_compute(&r, compute);
    }
    try_refusals(&r);
    return finish();
}
