/* Codes of 32 rows into the steps of a panel (gatun_internal.h has its layout). */
#ifndef GATUN_PACK_CODES_H
#define GATUN_PACK_CODES_H

#include "packed_gguf.h"

/* k that are turned at once, and at most between two writes to the packed block. */
enum { GATUN_RUN = 16, GATUN_PIECE = 256 };

/* How codes lie in a row, `bytes` bytes with `elements` codes after the other. */
typedef struct gatun_code_layout {
    int32_t elements, bytes; /* a multiple of sixteen, GATUN_PIECE at most */
    gatun_plane low, high;
    bool high_first; /* planes of one byte: the first of two codes is the high one */
} gatun_code_layout;

/* Sixteen k: where each row has them from a piece's first byte on, and where their steps go from another on. */
typedef struct gatun_run {
    int32_t low, low_shift, high, high_shift;
    int32_t to;
} gatun_run;

/* Sixteen k a run from 32 rows that all lie alike to the steps of a form. */
typedef void gatun_put_runs(const uint8_t *const rows[GATUN_PANEL], const gatun_run *runs, int64_t count, uint8_t *out);

/* Where a group's parameters are made, to be written at the header's offsets from there: in its record, or in the group
 * itself, `made` being the first of the groups that are made at once and this one number `index` of them. */
static inline uint8_t *gatun_own_made(const gatun_packed *h, int64_t panel, int64_t group, int64_t index,
                                      uint8_t *made) {
    return h->supers_offset != 0 ? (uint8_t *)(uintptr_t)gatun_packed_parameters(h, panel, group).own
                                 : made + index * h->group_stride;
}

/* Numbers of `size` bytes, `count` of them from 32 rows where they follow each other, to `count` arrays of 32 that are
 * `stride` bytes apart. */
void gatun_put_numbers(int64_t size, const uint8_t *const rows[GATUN_PANEL], int64_t count, uint8_t *to,
                       int64_t stride);

/* Codes that are bytes. */
extern const gatun_code_layout gatun_byte_layout;
/* Whether the codes of a matrix lie so that vectors can take them from there. */
bool gatun_code_layout_of(const gatun_matrix *matrix, gatun_code_layout *layout);
/* Null: there is none for this form of this layout. */
gatun_put_runs *gatun_put_runs_of(int32_t form, const gatun_code_layout *layout);
/* Run number `index` of a piece in this layout. */
gatun_run gatun_run_at(const gatun_code_layout *layout, int64_t index);

#endif
