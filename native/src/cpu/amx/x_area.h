/*
 * Where x lies in its area: [run of tiles along K][pair of row tiles][tile of the run][2][16 rows][T steps], so that
 * what a run multiplies is read in order. The last pair is a single tile where their number is odd.
 */
#ifndef GATUN_AMX_X_AREA_H
#define GATUN_AMX_X_AREA_H

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
/* Bytes from a tile to the next of the same rows. */
static inline int64_t x_stride(const x_area *a, int64_t row_tile) {
    return (row_tile % 2 == 0 && row_tile + 1 == a->row_tiles ? 1 : 2) * x_tile_bytes(a);
}
/* From the area's start to a tile. */
static inline int64_t x_offset(const x_area *a, int64_t row_tile, int64_t tile) {
    int64_t first = tile - tile % a->run, bytes = x_tile_bytes(a);
    return (first * a->row_tiles + (row_tile - row_tile % 2) * x_run(a, first) + row_tile % 2) * bytes +
           (tile - first) * x_stride(a, row_tile);
}

#endif
