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

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors ---- */
/* Records one line for the calling thread and returns `status`, so that a check reads `return gatun_fail(...)`. */
gatun_status gatun_fail(gatun_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- the packed form ----
 *
 * header | table | panels | parts of the source that the panels do not hold, each section 64-byte aligned.
 *
 * The table is what a code means: 16 floats (CODES4), 64 (CODES5, CODES6) or 256 (CODES8), the encoding's own or the
 * matrix's codebook.
 *
 * A panel is GATUN_PANEL = 32 outputs (rows of W; the last panel is padded with zero codes and zero scales) times all
 * K. It is a run of scale groups along K; each group is
 *
 *     codes [group / 4][step bytes] | scales [32] | zeros [32] (if any) | offsets [32] (if any)
 *
 * A step holds four consecutive k of the 32 outputs:
 *   CODES4  64 bytes: byte 4*o + i holds k = 4*step + i of output o in its low nibble and of output o + 16 in its high
 *           nibble, o = 0..15. One 64-byte load therefore serves vpdpbusd (mask, or permute through a table), float
 *           tables (shift, vpermps: it looks at four bits only) and bfloat16 tables (vpermw).
 *   CODES8  128 bytes: byte 64*h + 4*o + i holds k = 4*step + i of output 16*h + o.
 *   CODES5, CODES6   the four low bits of four steps as CODES4 has them, 256 bytes, then their high bits: 64 bytes of
 *           one bit a code or twice 64 of two. Byte 4*o + i of them has, from its lowest bits on, k = 4*step + i of
 *           outputs o and o + 16 of the first step, of the second step, and so on.
 * K is padded to a multiple of the group with code 0 (of a multiple of four when one scale serves a whole row).
 *
 * Where what a group has besides its codes is no multiple of 64 bytes (scales that are bytes), or its scale is a byte
 * times a number that several groups share (K-quants), that lies behind all groups of the panel, one record for each
 * run of super_groups groups:
 *
 *     scale factors [32], offset factors [32] (if any), both F16 | for each group: scales [32] | zeros [32] (if any) |
 *     offsets [32] (if any)
 *
 * A group's scale is then its byte times its factor (if there is one), and so is its offset.
 *
 *   PLAIN   F32: a step is one k: 32 floats. F16, BF16: a step is two k: number 2*o + i holds k = 2*step + i of output
 *           o (what vdpbf16ps takes); K is padded to a multiple of two with zeros. There is one group and no scale.
 *
 * Narrower codes (U1 .. U3, I2) are widened to CODES4 and U5 .. U7 to CODES8. Scales, zeros and offsets keep their
 * source type; nested scales are resolved to F32 in the panels and kept as they came in the parts. So are codes and
 * scales with gaps between them (rows or words with room to spare), which unpack gives back as they were.
 *
 * A matrix whose scale blocks cannot be cut at multiples of four within every row (bitsandbytes' flattened blocks with
 * an odd K, for one), or with column groups, row scales, a rotation or GGUF blocks that packed_gguf.c does not take
 * apart, keeps its source bytes instead (SOURCE): `linear` dequantizes its rows, a panel at a time, and multiplies by
 * that PLAIN panel.
 */
enum { GATUN_PANEL = 32, GATUN_PACKED_ALIGNMENT = 64, GATUN_PACKED_VERSION = 3 };
enum {
    GATUN_FORM_CODES4 = 1,
    GATUN_FORM_CODES8 = 2,
    GATUN_FORM_SOURCE = 3,
    GATUN_FORM_PLAIN = 4,
    GATUN_FORM_CODES5 = 5,
    GATUN_FORM_CODES6 = 6
};
/* Scale types of panels only, a byte each: half of an e4m3 whose sign is not looked at, half of an e8m0 that is no NaN
 * (gatun_half_of_ue4m3, gatun_half_of_e8m0). */
enum { GATUN_HALF_UE4M3 = 512, GATUN_HALF_E8M0 = 513 };

/* The buffers a matrix may have, in the order in which they lie in a packed block. */
enum {
    GATUN_PART_CODES,
    GATUN_PART_SCALES,
    GATUN_PART_ZEROS,
    GATUN_PART_OFFSETS,
    GATUN_PART_NESTED_CODEBOOK,
    GATUN_PART_NESTED_SCALES,
    GATUN_PART_CODEBOOK,
    GATUN_PART_COLUMN_GROUPS,
    GATUN_PART_ROW_SCALES,
    GATUN_PARTS
};

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
    int64_t panels_offset;             /* from the block's start */
    int64_t table_offset;              /* from the block's start; 0: none */
    int64_t scales_offset;             /* see gatun_parameters; 0: none, every scale is 1 */
    int64_t zeros_offset;              /* 0: none */
    int64_t offsets_offset;            /* 0: none */
    int64_t supers_offset;             /* of the records, within a panel; 0: parameters lie in their groups */
    int64_t super_stride;              /* bytes from a record to the next */
    int64_t super_groups;              /* a power of two */
    int64_t super_scale_bytes;         /* of a group in a record */
    int64_t part_offsets[GATUN_PARTS]; /* from the block's start; 0: not kept */
    int64_t part_sizes[GATUN_PARTS];   /* bytes */
    int32_t scale_type; /* of the panels: a matrix's but U8, or I8 or U8 with factors, or one of the halves */
    int32_t zero_type;
    int32_t offset_type;
    int32_t factor_type; /* of the records' factors: F16 or NONE */
    int32_t has;         /* bit 1 << GATUN_PART_x: the matrix had that buffer */
    gatun_matrix matrix; /* the description that was packed; its pointers are null */
} gatun_packed;

/* ---- encodings ---- */
/* The 2^bits decoded values of an encoding by unsigned code; static tables. Null for plain numbers and GGUF blocks. */
const float *gatun_codebook(int32_t encoding);
/* Bits of one code or number: 1 .. 8, 16 or 32; 0 for GGUF blocks and unknown encodings. */
int32_t gatun_encoding_bits(int32_t encoding);
/* Lower case, as it stands in kernel names: "nf4", "f8_e4m3"; null when unknown. */
const char *gatun_encoding_name(int32_t encoding);
bool gatun_is_plain(int32_t encoding); /* F32, F16, BF16 */
bool gatun_is_gguf(int32_t encoding);

/* ---- linear kernels ---- */

/* What `linear` was given. */
typedef struct gatun_linear_input {
    const gatun_packed *packed;
    const void *x;
    int32_t x_type;
    int64_t ldx;
    int64_t m;
    const float *x_multiplier; /* K floats or null */
    float x_scale;             /* I8: every row's, x being multiples of it; 0: each row has its own, absmax / 127 */
} gatun_linear_input;

/* How a kernel wants x: each kernel row names one of these. The operation calls `fill` in parallel for tiles of
 * `row_tile` rows (the last one shorter), each of which writes its own part of one area of `bytes` bytes. */
typedef struct gatun_x_layout {
    int64_t row_tile;
    int64_t (*bytes)(const gatun_packed *packed, int64_t m); /* of the area */
    /* False: the kernel cannot take one of these rows (integer kernels: NaN or infinity); it will not be asked to. */
    bool (*fill)(const gatun_linear_input *input, int64_t row0, int64_t row1, void *area);
    int64_t (*scratch)(const gatun_packed *packed); /* bytes a worker needs besides; null: none */
    int64_t least_rows;                             /* fewer rows of x are left to the tier below; 0: none are */
    int64_t panel_run; /* panels that a worker should get at once where there are so many; 0: one */
    int64_t (*row_run)(const gatun_packed *packed); /* rows, a multiple of row_tile; null: all of them */
} gatun_x_layout;

/* One worker's share of `linear`: outputs of panels panel0 .. panel1-1 for rows row0 .. row1-1 of x. row0 is a multiple
 * of the layout's row_tile. The kernel does the epilogue too (gatun_epilogue.h has the scalar one). */
typedef struct gatun_linear_task {
    const gatun_packed *packed;
    const void *x; /* the area that the layout filled */
    int64_t m;     /* all rows: what the area was laid out for */
    int64_t row0;
    int64_t row1;
    int64_t panel0;
    int64_t panel1;
    void *y; /* row 0, output 0 */
    int32_t y_type;
    int32_t activation;
    int64_t ldy;
    const float *bias;
    const void *other;
    int64_t ld_other;
    int32_t combine;
    uint8_t *scratch; /* this worker's own, 64-byte aligned */
} gatun_linear_task;
typedef void gatun_linear_kernel(const gatun_linear_task *task);
/* Whether a kernel can do this packed weight (form, scale types, arithmetic ...); K and N are never a reason. */
typedef bool gatun_linear_accepts(const gatun_packed *packed);

/* ---- codec kernels ---- */

/* Elements first .. first+count-1 of row `row` as out_type, rounded as the matrix says (arithmetic, result). */
typedef void gatun_dequantize_kernel(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, void *out,
                                     int32_t out_type);
typedef void gatun_convert_kernel(const void *src, int32_t src_type, void *dst, int32_t dst_type, int64_t count,
                                  bool saturate);
/* Adds to sums[0] w^2, to sums[1] (restored - w)^2; sums[2] grows to the largest |restored - w|. */
typedef void gatun_deviation_kernel(const void *w, int32_t w_type, const float *restored, int64_t count, double *sums);

typedef struct gatun_quantize_task {
    const gatun_matrix *matrix;
    const gatun_quantize_rule *rule;
    const void *w;
    int32_t w_type;
    int64_t ldw;
    int64_t block0; /* scale blocks block0 .. block1-1: flat blocks, or tiles in row-major order */
    int64_t block1;
} gatun_quantize_task;
typedef void gatun_quantize_kernel(const gatun_quantize_task *task);
/* Whether a codec kernel takes this matrix; those without one take all that gatun_matrix_check lets pass. */
typedef bool gatun_codec_accepts(const gatun_matrix *matrix);

/* ---- the table (cpu/dispatch.c) ---- */
typedef struct gatun_kernel_row {
    gatun_kernel info;
    gatun_linear_kernel *linear;
    const gatun_x_layout *layout;
    gatun_linear_accepts *linear_accepts; /* null: everything */
    bool from_source; /* a kernel for PLAIN panels (F32, or BF16 with that compute) that gets SOURCE blocks as such */
    gatun_dequantize_kernel *dequantize; /* of `embedding` too */
    gatun_convert_kernel *convert;
    gatun_deviation_kernel *deviation; /* in the rows of `convert` */
    gatun_quantize_kernel *quantize;
    gatun_codec_accepts *codec_accepts; /* null: everything */
} gatun_kernel_row;

const gatun_kernel_row *gatun_table_row(int32_t index);
/* Resolves GATUN_ISA_BEST and checks what was asked for. */
gatun_status gatun_isa_resolve(int32_t isa, int32_t *resolved);
/* Whether the processor has one of gatun_cpu_features(). */
bool gatun_cpu_has(const char *name);
/* Whether this library and this machine have it. */
bool gatun_isa_usable(int32_t isa);
/* The first row on `isa` or the best tier below it that accepts the packed weight and so many rows of x (linear) or the
 * matrix (codecs; either may be null); -1 with an error recorded. */
int32_t gatun_kernel_choose(int32_t operation, int32_t compute, int32_t encoding, int32_t isa,
                            const gatun_packed *packed, int64_t rows, const gatun_matrix *matrix);
void gatun_set_last_kernel(int32_t index);

/* ---- matrices ---- */
/* The index of the zero point and offset of an element, and of its scale, which may lie in another order. */
int64_t gatun_parameter_index(const gatun_matrix *matrix, int64_t row, int64_t column);
int64_t gatun_scale_index(const gatun_matrix *matrix, int64_t row, int64_t column);
/* How many elements from this one to the row's end at most share its scale. */
int64_t gatun_scale_run(const gatun_matrix *matrix, int64_t row, int64_t column);
/* The scale of the tile or flat block that (row, column) lies in, nested scales resolved, rounded to
 * matrix->arithmetic; the global scale is applied unless it comes later (GATUN_SCALES_THEN_GLOBAL). */
float gatun_scale_at(const gatun_matrix *matrix, int64_t row, int64_t column);
/* The same of the scale with this index. */
float gatun_scale_of(const gatun_matrix *matrix, int64_t index);
float gatun_stored_scale_at(const gatun_matrix *matrix, int64_t row, int64_t column);
float gatun_zero_at(const gatun_matrix *matrix, int64_t row, int64_t column);
float gatun_offset_at(const gatun_matrix *matrix, int64_t row, int64_t column); /* with its sign; 0 when none */
/* Everything that could make an operation read or write out of bounds, checked once per call. */
gatun_status gatun_matrix_check(const gatun_matrix *matrix, bool writes_codes);
/* The same for a description without buffers: shape, types, granularity. Gives the bytes that each part needs. */
gatun_status gatun_matrix_sizes(const gatun_matrix *matrix, int64_t sizes[GATUN_PARTS]);

/* Elements first .. first+count-1 of a row as float: the definition of `dequantize`. `integers`: without the roundings
 * to arithmetic and result and without the rotation, NF4's and FP4's table rounded to n/127: what the I8 computes
 * multiply by (they rotate x instead). */
void gatun_row_values(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, bool integers, float *out);
/* Multiplies `size` values, a power of 4, by kron(H4, H4, ...) / sqrt(size), in double and rounded once. */
void gatun_rotate(float *values, int64_t size);
/* The unsigned codes of a run of a row, one a byte, and the way back (other codes in shared bytes are kept). */
void gatun_codes_get(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, uint8_t *codes);
void gatun_codes_put(const gatun_matrix *matrix, int64_t row, int64_t first, int64_t count, const uint8_t *codes);
/* Bytes of codes that the shape needs; -1: an overflow or an order that this encoding cannot have. */
int64_t gatun_codes_size(const gatun_matrix *matrix);

/* ---- packed blocks ---- */
/* Checks the header without looking at the data: what every call does. */
gatun_status gatun_packed_header_check(const void *packed, int64_t packed_size);
/* Whether there is an aligned block of at least `need` bytes. */
gatun_status gatun_packed_block_check(const void *packed, int64_t packed_size, int64_t need);
/* The buffers of a matrix, by part. */
void gatun_matrix_buffers(const gatun_matrix *matrix, const void *buffers[GATUN_PARTS]);
/* The header of a matrix's packed block; only its description is looked at. */
gatun_status gatun_packed_plan(const gatun_matrix *matrix, gatun_packed *header);
/* Row o of a PLAIN panel of F32, F16 or BF16 from floats. */
void gatun_plain_panel_put(int32_t type, void *panel, int64_t o, int64_t k, const float *values);
/* The matrix of a SOURCE block with its pointers set into the block. */
gatun_matrix gatun_packed_source(const gatun_packed *packed);
/* A scale of the panels, which may have a type that no matrix has, and its bytes. */
int64_t gatun_panel_number_size(int32_t type);
float gatun_panel_number(int32_t type, const void *data, int64_t index);
/* Weights k0 .. k0+count-1 of output n from any form. */
void gatun_packed_values(const gatun_packed *packed, int64_t n, int64_t k0, int64_t count, bool integers, float *out);
static inline const float *gatun_packed_table(const gatun_packed *packed) {
    return (const float *)((const uint8_t *)packed + packed->table_offset);
}
/* Bytes of the codes of `k` k, a multiple of four (CODES5, CODES6: of sixteen). */
static inline int64_t gatun_panel_code_bytes(int32_t form, int64_t k) {
    switch (form) {
    case GATUN_FORM_CODES4:
        return 16 * k;
    case GATUN_FORM_CODES5:
        return 20 * k;
    case GATUN_FORM_CODES6:
        return 24 * k;
    default:
        return 32 * k;
    }
}
static inline int64_t gatun_panel_table_size(int32_t form) {
    return form == GATUN_FORM_CODES4 ? 16 : form == GATUN_FORM_CODES8 ? 256 : 64;
}
/* Where code k of output o lies in its group: the byte; of CODES4, in its low nibble for o < 16, else its high one. */
static inline int64_t gatun_panel_code_byte(int32_t form, int64_t o, int64_t k) {
    return form == GATUN_FORM_CODES4 ? k / 4 * 64 + o % 16 * 4 + k % 4 : k / 4 * 128 + o / 16 * 64 + o % 16 * 4 + k % 4;
}
/* Where the high bits of code k of output o lie, for CODES5 and CODES6. */
static inline int64_t gatun_panel_high_byte(int32_t form, int64_t o, int64_t k, int32_t *shift) {
    int64_t bits = form == GATUN_FORM_CODES5 ? 1 : 2, field = k % 16 / 4 * 2 + o / 16;
    *shift = (int32_t)(field % (8 / bits) * bits);
    return k / 16 * gatun_panel_code_bytes(form, 16) + 256 + field / (8 / bits) * 64 + o % 16 * 4 + k % 4;
}
static inline int64_t gatun_panel_low_byte(int32_t form, int64_t o, int64_t k) {
    return form == GATUN_FORM_CODES4 || form == GATUN_FORM_CODES8
               ? gatun_panel_code_byte(form, o, k)
               : k / 16 * gatun_panel_code_bytes(form, 16) + gatun_panel_code_byte(GATUN_FORM_CODES4, o, k % 16);
}
/* Code k of output o of a group, and the way into codes that are zero. */
static inline int32_t gatun_panel_code(int32_t form, const uint8_t *group, int64_t o, int64_t k) {
    int32_t shift, low = group[gatun_panel_low_byte(form, o, k)];
    low = form == GATUN_FORM_CODES8 ? low : low >> (o < 16 ? 0 : 4) & 15;
    if (form != GATUN_FORM_CODES5 && form != GATUN_FORM_CODES6) {
        return low;
    }
    const int64_t at = gatun_panel_high_byte(form, o, k, &shift);
    const int32_t high = group[at] >> shift;
    return low | (high & (form == GATUN_FORM_CODES5 ? 1 : 3)) << 4;
}
static inline void gatun_panel_code_put(int32_t form, uint8_t *group, int64_t o, int64_t k, int32_t code) {
    int32_t shift, low = form == GATUN_FORM_CODES8 ? code : (code & 15) << (o < 16 ? 0 : 4);
    group[gatun_panel_low_byte(form, o, k)] |= (uint8_t)low;
    if (form == GATUN_FORM_CODES5 || form == GATUN_FORM_CODES6) {
        int64_t at = gatun_panel_high_byte(form, o, k, &shift);
        group[at] |= (uint8_t)(code >> 4 << shift);
    }
}
static inline const uint8_t *gatun_packed_group(const gatun_packed *packed, int64_t panel, int64_t group) {
    return (const uint8_t *)packed + packed->panels_offset + panel * packed->panel_stride +
           group * packed->group_stride;
}
/* Where a group's parameters lie: scales_offset, zeros_offset and offsets_offset count from `own`, offset factors
 * from 32 numbers after the scale factors; null: there are no factors. */
typedef struct gatun_parameters {
    const uint8_t *own, *factors;
} gatun_parameters;
static inline gatun_parameters gatun_packed_parameters(const gatun_packed *p, int64_t panel, int64_t group) {
    if (p->supers_offset == 0) {
        return (gatun_parameters){gatun_packed_group(p, panel, group), NULL};
    }
    const uint8_t *record = gatun_packed_group(p, panel, 0) +
                            (group >> __builtin_ctzll((unsigned long long)p->super_groups)) * p->super_stride;
    return (gatun_parameters){record + (group & (p->super_groups - 1)) * p->super_scale_bytes,
                              p->factor_type == GATUN_NONE ? NULL : record + p->supers_offset};
}

/* ---- threads ---- */
/* Runs body(context, worker, workers) for worker = 0 .. workers-1 on the pool's threads, the caller's included, and
 * waits. The bodies must not wait for each other: one thread may run several of them. */
typedef void gatun_parallel_body(void *context, int32_t worker, int32_t workers);
void gatun_parallel(int32_t workers, gatun_parallel_body *body, void *context);
/* The number of workers for a call's `threads` argument: 0 is the pool's size, and more than that is not to be had. */
gatun_status gatun_workers(int32_t threads, int32_t *workers);

#ifdef __cplusplus
}
#endif

#endif
