/*
 * AMX tiles as `linear` uses them, and the product that both its kernels are made of.
 *
 * A step is four bytes of every output: four k of int8, or a pair of bfloat16. A tile of x has 16 rows of T steps, one
 * of weights T steps of 16 outputs of a panel, [step][16 outputs][4 bytes] with 128 bytes from step to step, and one of
 * sums 16 rows of 16 outputs. A product of two takes 16 cycles whatever T, so T is 16 wherever a scale reaches so far.
 *
 * What was measured, on Sapphire Rapids: tile registers are not renamed, so that a load into one waits for the product
 * that reads it, and sums that begin anew for the one that wrote them (52 cycles); a load takes 9 cycles from the
 * first-level cache, so x is prefetched into it; a store takes 16.
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

/* Sums are tiles 0 .. x-1, rows of x tiles x .. w-1, weights the rest. */
static inline void tiles_configure(int x, int w, int64_t steps) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64)));
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = (uint16_t)(t >= x && t < w ? 4 * steps : 64);
        config.rows[t] = (uint8_t)(t >= w ? steps : 16);
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

GATUN_INLINE void prefetch_x(const uint8_t *x, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 256) {
        GATUN_UNROLL for (int i = 0; i < 256; i += 64) { _mm_prefetch((const char *)x + line + i, _MM_HINT_T0); }
    }
}

/*
 * Adds `count` tiles of K to the sums [32 rows][32 outputs], or [16][32] unless `two`; `first`: there are none yet.
 * Tiles of sums 0 .. 3, x 4 and 5, weights 6 and 7: each is used twice, so that loads take half of the time that the
 * products do.
 */
GATUN_INLINE void tile_block(const int kind, const bool two, bool first, int64_t steps, int64_t count, const uint8_t *x,
                             const uint8_t *w, uint8_t *sums, read_ahead *ahead) {
    enum { ROW = GATUN_PANEL * 4, LOWER = TILE_ROWS * ROW };
    const int64_t x_bytes = TILE_ROWS * 4 * steps, w_bytes = 128 * steps, pair = two ? 2 * x_bytes : x_bytes;
    tiles_fence();
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, ROW);
        _tile_loadd(1, sums + 64, ROW);
        if (two) {
            _tile_loadd(2, sums + LOWER, ROW);
            _tile_loadd(3, sums + LOWER + 64, ROW);
        }
    }
    for (int64_t i = 0; i < count; i++, x += pair, w += w_bytes) {
        _tile_loadd(6, w, 128);
        _tile_loadd(4, x, 4 * steps);
        TILE_DOT(kind, 0, 4, 6);
        _tile_loadd(7, w + 64, 128);
        TILE_DOT(kind, 1, 4, 7);
        if (two) {
            _tile_loadd(5, x + x_bytes, 4 * steps);
            TILE_DOT(kind, 2, 5, 6);
            TILE_DOT(kind, 3, 5, 7);
        }
        prefetch_x(x + 2 * pair, pair);
        read_some(ahead, 2);
    }
    _tile_stored(0, sums, ROW);
    _tile_stored(1, sums + 64, ROW);
    if (two) {
        _tile_stored(2, sums + LOWER, ROW);
        _tile_stored(3, sums + LOWER + 64, ROW);
    }
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
    const int64_t count = x_run(a, tile), part = tile / a->run, parts = tiles_of(a->tiles, a->run);
    for (int64_t row = row0; row < row1; row += ROW_TILE, sums += ROW_TILE * GATUN_PANEL * 4) {
        outputs_ahead(t, panel, row, ROW_TILE, part, parts);
        if (row1 - row > TILE_ROWS) {
            tile_block(kind, true, tile == 0, a->steps, count, x, w, sums, ahead);
        } else {
            tile_block(kind, false, tile == 0, a->steps, count, x, w, sums, ahead);
        }
        x += 2 * count * x_tile_bytes(a);
    }
}

#endif
