/*
 * How a product is planned and cut into pieces: what linear.c (one weight) and grouped.c (a weight for each run of
 * rows) share.
 */
#ifndef GATUN_LINEAR_PLAN_H
#define GATUN_LINEAR_PLAN_H

#include "gatun_internal.h"

static inline int64_t align(int64_t size) { return (size + 63) / 64 * 64; }
static inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pieces_of(int64_t count, int64_t size) { return count / size + (count % size != 0); }

/* How a product is carried out: the same for every worker. It may point into itself. */
typedef struct gatun_linear_plan {
    const gatun_kernel_row *row;
    const gatun_packed *packed; /* what the kernel and its layout see */
    gatun_packed plain;         /* from_source: the header of a PLAIN weight of the same shape */
    bool from_source;
    int64_t area;        /* bytes of x's */
    int64_t panel_bytes; /* from_source: header and panel */
    int64_t scratch;     /* bytes of a worker */
    int64_t rescue_area; /* integer kernels: for a row that the scalar kernel does instead */
} gatun_linear_plan;

gatun_status gatun_linear_plan_make(const gatun_packed *packed, int64_t m, int32_t compute, const gatun_kernel_row *row,
                                    gatun_linear_plan *p);

/* Shapes whose workspace could overflow 63 bits are refused before anything is multiplied. */
gatun_status gatun_linear_check_rows(const gatun_packed *packed, int64_t m);
gatun_status gatun_linear_check_compute(int32_t compute);
gatun_status gatun_linear_check_operand(const char *what, const void *data, int32_t type, int64_t rows, int64_t columns,
                                        int64_t ld);
gatun_status gatun_linear_check_epilogue(int64_t n, const void *y, int32_t y_type, int64_t ldy, int64_t m,
                                         int32_t activation, int32_t combine, const void *other, int64_t ld_other);
/* The workers that a workspace of `fixed` bytes and `each` a worker has room for; the pool may have grown since it was
 * sized. */
gatun_status gatun_linear_fit_workers(int64_t fixed, int64_t each, const void *workspace, int64_t size,
                                      int32_t *workers);

/* Laying x out, in pieces. */
typedef struct gatun_linear_fill {
    const gatun_x_layout *layout;
    gatun_linear_input input;
    void *area;
    int64_t at_once; /* tiles of a piece */
    int64_t pieces;
} gatun_linear_fill;

void gatun_linear_fill_cut(const gatun_linear_plan *p, const gatun_linear_input *input, void *area,
                           gatun_linear_fill *f);
/* Whether the kernel can take these rows. */
bool gatun_linear_fill_piece(const gatun_linear_fill *f, int64_t piece);

/* Multiplying, in pieces. */
typedef struct gatun_linear_share {
    const gatun_linear_plan *plan;
    const gatun_packed *packed; /* as it was handed in */
    gatun_linear_task task;     /* without its ranges and scratch */
    int64_t row0;               /* all that is to be done, row0 at a tile */
    int64_t row1;
    int64_t panels; /* of a piece */
    int64_t rows;   /* of a piece */
    int64_t panel_pieces;
    int64_t pieces;
} gatun_linear_share;

/* A few runs of panels a worker, of all shares that the workers have together; runs of rows as well when there are too
 * few panels for that, or the kernel wants them, so that a worker keeps to the same rows of x while there are panels.
 */
void gatun_linear_share_cut(gatun_linear_share *j, int64_t row0, int64_t row1, int32_t workers, int64_t shares);
void gatun_linear_share_piece(const gatun_linear_share *j, int64_t piece, uint8_t *scratch);

#endif
