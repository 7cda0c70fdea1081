/*
 * What the translation units of libgatun share: the packed form, the kernel signatures and the services every
 * operation uses. Nothing here is exported.
 */
#ifndef GATUN_INTERNAL_H
#define GATUN_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gatun.h"

/* ---- errors ---- */
/* Records one line for the calling thread and returns `status`, so that a check reads `return gatun_fail(...)`. */
gatun_status gatun_fail(gatun_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- the packed form ----
 *
 * header | panels | source parts that the panels do not hold (nested scales), each section 64-byte aligned.
 *
 * A panel is GATUN_PANEL = 32 outputs (rows of W; the last panel is padded with zero codes and zero scales) times all
 * K. It is a run of scale groups along K; each group is
 *
 *     codes [group / 4][GATUN_STEP bytes] | scales [32] | zeros [32] (if any) | offsets [32] (if any)
 *
 * A step holds four consecutive k of the 32 outputs:
 *   4-bit  64 bytes: byte 4*o + i holds k = 4*step + i of output o in its low nibble and of output o + 16 in its high
 *          nibble, o = 0..15. One 64-byte load therefore serves vpdpbusd (mask, or permute through a table), float
 * tables (shift, vpermps: it looks at four bits only) and bfloat16 tables (vpermw). 8-bit  128 bytes: byte 64*h + 4*o +
 * i holds k = 4*step + i of output 16*h + o. plain  32 numbers (F32, F16, BF16 weights): a step is one k of the 32
 * outputs; there is one group and no scale. K is padded to a multiple of the group with code 0 (of a multiple of four
 * when one scale serves a whole row).
 *
 * A matrix whose scale blocks cannot be cut at multiples of four within every row (bitsandbytes' flattened blocks with
 * an odd K, for one) keeps its source bytes instead (GATUN_FORM_SOURCE): linear dequantizes its rows as it goes.
 * Scales, zeros and offsets keep their source type; nested ones are held as F32.
 */
enum { GATUN_PANEL = 32, GATUN_PACKED_ALIGNMENT = 64 };
enum { GATUN_FORM_CODES4 = 1, GATUN_FORM_CODES8 = 2, GATUN_FORM_SOURCE = 3, GATUN_FORM_PLAIN = 4 };

typedef struct gatun_packed {
    char magic[8]; /* "GATUNPK" and a zero */
    int32_t version;
    int32_t form;
    int64_t total_size; /* bytes, header included */
    int64_t n;
    int64_t k;
    int64_t group;        /* k per scale group in the panels, a multiple of 4; K rounded up when a row has one scale */
    int64_t groups;       /* groups along K */
    int64_t group_stride; /* bytes from a group to the next, a multiple of 64 */
    int64_t panel_stride; /* bytes from a panel to the next */
    int64_t panels;
    int64_t panels_offset;   /* from the block's start */
    int64_t scales_offset;   /* within a group */
    int64_t zeros_offset;    /* within a group; 0: none */
    int64_t offsets_offset;  /* within a group; 0: none */
    int64_t source_offset;   /* from the block's start; 0: no source section */
    int64_t source_sizes[5]; /* codes, scales, zeros, offsets, nested scales: bytes kept in the source section */
    int32_t scale_type;      /* of the panels: F32, F16, BF16, F8_E4M3, F8_E8M0 or NONE */
    int32_t zero_type;
    int32_t offset_type;
    int32_t reserved;
    gatun_matrix matrix; /* the description that was packed; its pointers are null */
} gatun_packed;

/* ---- kernel signatures ---- */

/* The 256 (8-bit) or 16 (4-bit) decoded values of an encoding; static tables. */
const float *gatun_codebook(int32_t encoding);
/* Bits of one code: 4, 8, 16 or 32; 0 for an unknown encoding. */
int32_t gatun_encoding_bits(int32_t encoding);
const char *gatun_encoding_name(int32_t encoding); /* lower case, as it stands in kernel names: "nf4", "f8_e4m3" */

/* One worker's share of `linear`: panels panel0 .. panel1-1 for all m rows. x is what the operation's prologue
 * (gatun_linear.c) made of it for this kernel: converted to the compute type, padded, laid out in row tiles. */
typedef struct gatun_linear_task {
    const gatun_packed *packed;
    const void *x;
    const float *x_scale; /* I8: one scale a row */
    int64_t m;
    void *y;
    int32_t y_type;
    int64_t ldy;
    const float *bias;
    int32_t activation;
    int32_t combine;
    const void *other;
    int64_t ld_other;
    int64_t panel0;
    int64_t panel1;
    uint8_t *scratch; /* this worker's own, 64-byte aligned */
} gatun_linear_task;
typedef void gatun_linear_kernel(const gatun_linear_task *task);

/* Elements first .. first+count-1 of row `row` as float, rounded as the matrix says (arithmetic, result). */
typedef void gatun_dequantize_kernel(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, float *out);

/* ---- services ---- */
/* The scale of the tile or flat block that (row, column) lies in, nested scales resolved, global scale applied, rounded
 * to matrix->arithmetic. */
float gatun_scale_at(const gatun_matrix *matrix, int64_t row, int64_t column);
/* Everything that could make an operation read or write out of bounds, checked once per call. */
gatun_status gatun_matrix_check(const gatun_matrix *matrix, bool writes_codes);

/* Runs body(context, worker, workers) on `workers` threads of the pool, the caller's included, and waits. */
typedef void gatun_parallel_body(void *context, int32_t worker, int32_t workers);
void gatun_parallel(int32_t workers, gatun_parallel_body *body, void *context);

#endif
