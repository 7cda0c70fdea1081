/*
 * Where x lies in its area: [run of tiles along K][row tile][tile of the run][16 rows][T steps], so that what a run
 * multiplies is read in order.
 */
#ifndef GATUN_AMX_X_AREA_H
#define GATUN_AMX_X_AREA_H

#include "cpu/avx512/x.h"
#include "cpu/cache.h"
#include "encodings/numbers.h"

enum { TILE_ROWS = 16, TILE_STEPS = 16 };

typedef struct x_area {
    int64_t row_tiles, steps; /* 16 rows each; T */
    int64_t tiles, run;       /* along K; of a run */
} x_area;

static inline int64_t tiles_of(int64_t count, int64_t size) { return count / size + (count % size != 0); }

static inline int64_t x_tile_bytes(const x_area *a) { return TILE_ROWS * 4 * a->steps; }
static inline int64_t x_area_bytes(const x_area *a) { return a->row_tiles * a->tiles * x_tile_bytes(a); }
/* Tiles of the run that begins at `tile`. */
static inline int64_t x_run(const x_area *a, int64_t tile) {
    return a->tiles - tile < a->run ? a->tiles - tile : a->run;
}
/* From the area's start to a tile. */
static inline int64_t x_offset(const x_area *a, int64_t row_tile, int64_t tile) {
    int64_t first = tile - tile % a->run;
    return (first * a->row_tiles + row_tile * x_run(a, first) + tile - first) * x_tile_bytes(a);
}

/* Runs that are as long as each other, of two thirds of the first-level cache at most. */
static inline int64_t run_tiles(int64_t tiles, int64_t steps) {
    int64_t most = gatun_cache_bytes(1) * 2 / 3 / (steps * 128);
    most = most < 1 ? 1 : most;
    int64_t runs = tiles_of(tiles, most);
    return runs == 0 ? 1 : tiles_of(tiles, runs);
}

/* Goes along K through what the tiles have of one row. */
typedef struct x_row {
    uint8_t *tiles; /* where they begin */
    int64_t row, tile, left;
    uint8_t *next;
} x_row;

static inline x_row x_row_of(void *tiles, int64_t row) { return (x_row){.tiles = (uint8_t *)tiles, .row = row}; }
static inline uint8_t *x_row_next(const x_area *a, x_row *r) {
    if (r->left == 0) {
        r->left = x_run(a, r->tile);
        r->next = r->tiles + x_offset(a, r->row / TILE_ROWS, r->tile) + r->row % TILE_ROWS * 4 * a->steps;
    }
    uint8_t *at = r->next;
    r->next += x_tile_bytes(a);
    r->tile++;
    r->left--;
    return at;
}

#endif
