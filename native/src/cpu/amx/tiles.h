/*
 * AMX tiles as `linear` uses them.
 *
 * A step is four bytes of every output: four k of int8, or a pair of bfloat16. A tile of x has 16 rows of T steps, one
 * of weights T steps of 16 outputs of a panel, [step][16 outputs][4 bytes] with 128 bytes from step to step, and one of
 * sums 16 rows of 16 outputs. A product of two takes 16 cycles whatever T, so T is 16 wherever a scale reaches so far.
 *
 * What was measured (bench/RESULTS.md): a load takes 9 cycles, by tileloaddt1 13, a store 16; x that is loaded so
 * leaves the weights in the first-level cache. A core renames tiles as it does other registers, but where another
 * thread runs beside it, as on machines that others share, it has few to do so with, and the fewer the more tiles hold
 * something: two products of a tile of x and two of weights took 11.5 ns each with four tiles in use, 27 with all
 * eight, whatever the order; alone, 5.8 either way. So four are used, and those that are not stay as they were
 * configured.
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

enum { LEAST_ROWS = 16, PANEL_RUN = 4 };

/* The intrinsics do not tell the compiler that they read and write memory. */
static inline void tiles_fence(void) { __asm__ volatile("" ::: "memory"); }

/* Sums are tiles 0 and 1, x is 2, weights are 3. */
static inline void tiles_configure(int64_t steps) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64)));
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 4; t++) {
        config.bytes[t] = (uint16_t)(t == 2 ? 4 * steps : 64);
        config.rows[t] = (uint8_t)(t == 3 ? steps : 16);
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

#endif
