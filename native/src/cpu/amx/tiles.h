/*
 * AMX tiles as `linear` uses them, and the product that both its kernels are made of.
 *
 * A step is four bytes of every output: four k of int8, or a pair of bfloat16. A tile of x has 16 rows of T steps, one
 * of weights T steps of 16 outputs of a panel, [step][16 outputs][4 bytes] with 128 bytes from step to step, and one of
 * sums 16 rows of 16 outputs. A product of two takes 16 cycles whatever T, so T is 16 wherever a scale reaches so far.
 *
 * x lies in tiles, [run of tiles along K][16 rows each][tile][16 rows][T steps]: what a run multiplies is read in
 * order.
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

#include "cpu/unroll.h"
#include "gatun_internal.h"

enum { TILE_ROWS = 16, TILE_STEPS = 16, LEAST_ROWS = 16, ROW_TILE = 2 * TILE_ROWS };
enum { SUM_ROWS = 512, RUN_PANELS = 4 }; /* whose sums a worker keeps while it goes through K */

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

static inline int64_t tiles_of(int64_t count, int64_t size) { return count / size + (count % size != 0); }

enum { SIGNED_BYTES, UNSIGNED_BYTES, BFLOATS }; /* the weights; x is signed or bfloat16 */

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

/*
 * Adds `count` tiles of K to the sums [32 rows][32 outputs], or [16][32] unless `two`; `first`: there are none yet.
 * Tiles of sums 0 .. 3, x 4 and 5, weights 6 and 7: each is used twice, so that loads take half of the time that the
 * products do, and four products that do not wait for each other hide their latency. x1 holds the second 16 rows.
 */
GATUN_INLINE void tile_block(const int kind, const bool two, bool first, int64_t steps, int64_t count,
                             const uint8_t *x0, const uint8_t *x1, const uint8_t *w, void *sums) {
    enum { ROW = GATUN_PANEL * 4, LOWER = TILE_ROWS * ROW };
    const int64_t x_bytes = TILE_ROWS * 4 * steps, w_bytes = 128 * steps;
    uint8_t *to = (uint8_t *)sums;
    tiles_fence();
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, to, ROW);
        _tile_loadd(1, to + 64, ROW);
        if (two) {
            _tile_loadd(2, to + LOWER, ROW);
            _tile_loadd(3, to + LOWER + 64, ROW);
        }
    }
    for (int64_t i = 0; i < count; i++, x0 += x_bytes, x1 += x_bytes, w += w_bytes) {
        _tile_loadd(6, w, 128);
        _tile_loadd(4, x0, 4 * steps);
        TILE_DOT(kind, 0, 4, 6);
        _tile_loadd(7, w + 64, 128);
        TILE_DOT(kind, 1, 4, 7);
        if (two) {
            _tile_loadd(5, x1, 4 * steps);
            TILE_DOT(kind, 2, 5, 6);
            TILE_DOT(kind, 3, 5, 7);
        }
    }
    _tile_stored(0, to, ROW);
    _tile_stored(1, to + 64, ROW);
    if (two) {
        _tile_stored(2, to + LOWER, ROW);
        _tile_stored(3, to + LOWER + 64, ROW);
    }
    tiles_fence();
}

/* The same for `rows` tiles of rows, which lie x_stride bytes apart, and their sums [rows * 16][32]. */
GATUN_INLINE void tile_rows_block(const int kind, bool first, int64_t steps, int64_t count, const uint8_t *x,
                                  int64_t x_stride, int64_t rows, const uint8_t *w, uint8_t *sums) {
    enum { PAIR = 2 * TILE_ROWS * GATUN_PANEL * 4 };
    for (; rows >= 2; rows -= 2, x += 2 * x_stride, sums += PAIR) {
        tile_block(kind, true, first, steps, count, x, x + x_stride, w, sums);
    }
    if (rows > 0) {
        tile_block(kind, false, first, steps, count, x, x, w, sums);
    }
}

#endif
