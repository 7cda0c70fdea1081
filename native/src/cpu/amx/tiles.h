/*
 * AMX tiles as `linear` uses them, and the product that both its kernels are made of.
 *
 * A step is four bytes of every output: four k of int8, or a pair of bfloat16. A tile of x has 16 rows of T steps, one
 * of weights T steps of 16 outputs of a panel, [step][16 outputs][4 bytes] with 128 bytes from step to step, and one of
 * sums 16 rows of 16 outputs. A product of two takes 16 cycles whatever T, so T is 16 wherever a scale reaches so far.
 *
 * What was measured, on Sapphire Rapids: tile registers are not renamed, so that a load into one waits for the product
 * that reads it, and sums that begin anew for the product that made the last ones (52 cycles) and for their store; a
 * load takes 9 cycles and a store 16; x from the second-level cache costs a tenth, and prefetching it more than that.
 *
 * A thread configures its tiles before its first product and releases them after its last: their 8 KiB would otherwise
 * be saved and restored with every switch of threads from then on.
 */
#ifndef GATUN_AMX_TILES_H
#define GATUN_AMX_TILES_H

#ifdef GATUN_AMX_EMULATED /* by native/test, for machines without AMX */
#include "amx_emulated.h"
#else
#include <immintrin.h>
#endif
#include <string.h>

#include "cpu/amx/x_area.h"
#include "cpu/cache.h"
#include "cpu/unroll.h"

enum { LEAST_ROWS = 16, ROW_TILE = 2 * TILE_ROWS };
/* Rows and panels whose sums a worker keeps while it goes through K: 1 MiB of the second-level cache, where a run of x
 * lies beside them until all panels have used it. */
enum { SUM_ROWS = 512, RUN_PANELS = 16, SUM_BYTES = SUM_ROWS * GATUN_PANEL * 4 };

/* The intrinsics do not tell the compiler that they read and write memory. */
static inline void tiles_fence(void) { __asm__ volatile("" ::: "memory"); }

/* Sums are tiles 0 .. 3, x 4 and 5, weights 6 and 7. */
static inline void tiles_configure(int64_t steps) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64)));
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = (uint16_t)(t == 4 || t == 5 ? 4 * steps : 64);
        config.rows[t] = (uint8_t)(t >= 6 ? steps : 16);
    }
    tiles_fence();
    _tile_loadconfig(&config);
}

static inline void tiles_release(void) { _tile_release(); }

enum { SIGNED_BYTES, UNSIGNED_BYTES, BFLOATS }; /* the weights; x is signed or bfloat16 */

/* Tiles have to be written as digits. */
#define TILE_DOT(kind, c, x, w)                                                                                        \
    do {                                                                                                               \
        if ((kind) == SIGNED_BYTES) {                                                                                  \
            _tile_dpbssd(c, x, w);                                                                                     \
        } else if ((kind) == UNSIGNED_BYTES) {                                                                         \
            _tile_dpbsud(c, x, w);                                                                                     \
        } else {                                                                                                       \
            _tile_dpbf16ps(c, x, w);                                                                                   \
        }                                                                                                              \
    } while (0)

/* Memory that will be read later, brought to the second-level cache a few lines at a time. */
typedef struct read_ahead {
    const uint8_t *next, *end;
} read_ahead;

GATUN_INLINE void read_some(read_ahead *a, int lines) {
    for (int i = 0; i < lines && a->next < a->end; i++, a->next += 64) {
        _mm_prefetch((const char *)a->next, _MM_HINT_T1);
    }
}

#define TILE_SUMS_ROW (GATUN_PANEL * 4)

/*
 * Adds `count` tiles of K to the sums [32 rows][32 outputs] of `pairs` pairs of row tiles, x of which lies in one
 * stretch; `first`: there are none yet. Tiles of sums 0 .. 3, x 4 and 5, weights 6 and 7: each is used twice, so that
 * loads take half of the time that the products do.
 *
 * Beginning and storing four tiles of sums was measured to take as long as 30 products. The cause is thought to be that
 * loads wait for a store before them whose data are not there yet when they agree in the last 12 bits of the address;
 * four tiles of sums are 4 KiB, so every load does. The next pair's first tiles are therefore loaded before the sums
 * are stored, and each sum is loaded as soon as its tile is stored.
 */
GATUN_INLINE void tile_pairs(const int kind, const bool first, int64_t steps, int64_t count, int64_t pairs,
                             const uint8_t *x, const uint8_t *w, uint8_t *sums, read_ahead *ahead) {
    enum { LOWER = TILE_ROWS * TILE_SUMS_ROW, PAIR = 2 * LOWER };
    const int64_t x_bytes = TILE_ROWS * 4 * steps, w_bytes = 128 * steps;
    const uint8_t *last = x + (pairs * count - 1) * 2 * x_bytes, *at = w;
#define FIRST_SUMS(tile, from)                                                                                         \
    do {                                                                                                               \
        if (first) {                                                                                                   \
            _tile_zero(tile);                                                                                          \
        } else {                                                                                                       \
            _tile_loadd(tile, from, TILE_SUMS_ROW);                                                                    \
        }                                                                                                              \
    } while (0)
    tiles_fence();
    _tile_loadd(6, at, 128);
    _tile_loadd(4, x, 4 * steps);
    _tile_loadd(7, at + 64, 128);
    _tile_loadd(5, x + x_bytes, 4 * steps);
    FIRST_SUMS(0, sums);
    FIRST_SUMS(1, sums + 64);
    FIRST_SUMS(2, sums + LOWER);
    FIRST_SUMS(3, sums + LOWER + 64);
    for (int64_t pair = 0; pair < pairs; pair++) {
        for (int64_t i = 0; i < count; i++) {
            TILE_DOT(kind, 0, 4, 6);
            TILE_DOT(kind, 1, 4, 7);
            TILE_DOT(kind, 2, 5, 6);
            TILE_DOT(kind, 3, 5, 7);
            x = x < last ? x + 2 * x_bytes : x;
            at = i + 1 < count ? at + w_bytes : w;
            _tile_loadd(4, x, 4 * steps);
            _tile_loadd(6, at, 128);
            _tile_loadd(7, at + 64, 128);
            _tile_loadd(5, x + x_bytes, 4 * steps);
            read_some(ahead, 2);
        }
        uint8_t *next = pair + 1 < pairs ? sums + PAIR : sums;
        _tile_stored(0, sums, TILE_SUMS_ROW);
        FIRST_SUMS(0, next);
        _tile_stored(1, sums + 64, TILE_SUMS_ROW);
        FIRST_SUMS(1, next + 64);
        _tile_stored(2, sums + LOWER, TILE_SUMS_ROW);
        FIRST_SUMS(2, next + LOWER);
        _tile_stored(3, sums + LOWER + 64, TILE_SUMS_ROW);
        FIRST_SUMS(3, next + LOWER + 64);
        sums = next;
    }
    tiles_fence();
}

/* The same for a last tile of rows that has no other. */
GATUN_INLINE void tile_single(const int kind, const bool first, int64_t steps, int64_t count, const uint8_t *x,
                              const uint8_t *w, uint8_t *sums) {
    tiles_fence();
    FIRST_SUMS(0, sums);
    FIRST_SUMS(1, sums + 64);
    for (int64_t i = 0; i < count; i++, x += TILE_ROWS * 4 * steps, w += 128 * steps) {
        _tile_loadd(4, x, 4 * steps);
        _tile_loadd(6, w, 128);
        TILE_DOT(kind, 0, 4, 6);
        _tile_loadd(7, w + 64, 128);
        TILE_DOT(kind, 1, 4, 7);
    }
    _tile_stored(0, sums, TILE_SUMS_ROW);
    _tile_stored(1, sums + 64, TILE_SUMS_ROW);
    tiles_fence();
}

/* The codes of k0 .. k1-1 of a panel, with the scales among them. */
static inline read_ahead weights_ahead(const gatun_packed *p, int64_t panel, int64_t k0, int64_t k1) {
    if (panel >= p->panels || k0 >= p->k) {
        return (read_ahead){NULL, NULL};
    }
    const uint8_t *from = gatun_packed_group(p, panel, 0);
    k1 = k1 < p->groups * p->group ? k1 : p->groups * p->group;
    if (p->groups > 1) {
        return (read_ahead){from + k0 / p->group * p->group_stride, from + tiles_of(k1, p->group) * p->group_stride};
    }
    const bool plain = p->form == GATUN_FORM_PLAIN;
    const int64_t row = GATUN_PANEL * gatun_plain_size(p->matrix.encoding);
    return (read_ahead){from + (plain ? k0 * row : gatun_panel_code_bytes(p->form, k0)),
                        from + (plain ? k1 * row : gatun_panel_code_bytes(p->form, k1))};
}

/* Which of the panels' runs comes after this one. */
static inline read_ahead next_ahead(const gatun_packed *p, const x_area *a, int64_t tile_k, int64_t tile, int64_t panel,
                                    int64_t panel0, int64_t panel1) {
    const bool same = panel + 1 < panel1;
    const int64_t next = same ? tile : tile + a->run;
    return weights_ahead(p, same ? panel + 1 : panel0, next * tile_k, (next + a->run) * tile_k);
}

/* The lines of y that `rows` rows of a panel will be written to, a part of them each time. */
static inline void outputs_ahead(const gatun_linear_task *t, int64_t panel, int64_t row, int64_t rows, int64_t part,
                                 int64_t parts) {
    const int64_t size = gatun_plain_size(t->y_type);
    for (int64_t r = row + part; r < row + rows && r < t->row1; r += parts) {
        const char *y = (const char *)t->y + (r * t->ldy + panel * GATUN_PANEL) * size;
        _mm_prefetch(y, _MM_HINT_T1);
        _mm_prefetch(y + 32 * size - 1, _MM_HINT_T1);
    }
}

/* A run of K of a panel for rows row0 .. row1-1: x of the first of them, weights, sums. */
GATUN_INLINE void tile_run(const int kind, const gatun_linear_task *t, const x_area *a, int64_t panel, int64_t tile,
                           int64_t row0, int64_t row1, const uint8_t *x, const uint8_t *w, uint8_t *sums,
                           read_ahead *ahead) {
    const int64_t count = x_run(a, tile), row_tiles = tiles_of(row1 - row0, TILE_ROWS), pairs = row_tiles / 2;
    outputs_ahead(t, panel, row0, row1 - row0, tile / a->run, tiles_of(a->tiles, a->run));
    if (pairs > 0 && tile == 0) {
        tile_pairs(kind, true, a->steps, count, pairs, x, w, sums, ahead);
    } else if (pairs > 0) {
        tile_pairs(kind, false, a->steps, count, pairs, x, w, sums, ahead);
    }
    x += 2 * pairs * count * x_tile_bytes(a);
    sums += pairs * ROW_TILE * TILE_SUMS_ROW;
    if (row_tiles % 2 != 0 && tile == 0) {
        tile_single(kind, true, a->steps, count, x, w, sums);
    } else if (row_tiles % 2 != 0) {
        tile_single(kind, false, a->steps, count, x, w, sums);
    }
}

#endif
