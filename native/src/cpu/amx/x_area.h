/* Where x lies in its area: [run of tiles along K][16 rows each][tile of the run][16 rows][T steps]. */
#ifndef GATUN_AMX_X_AREA_H
#define GATUN_AMX_X_AREA_H

#include "cpu/amx/tiles.h"

typedef struct x_area {
    int64_t row_tiles, steps; /* 16 rows each; T */
    int64_t tiles, run;       /* along K; of a run */
} x_area;

static inline int64_t x_tile_bytes(const x_area *a) { return TILE_ROWS * 4 * a->steps; }
static inline int64_t x_area_bytes(const x_area *a) { return a->row_tiles * a->tiles * x_tile_bytes(a); }
/* Tiles of the run that begins at `tile`. */
static inline int64_t x_run(const x_area *a, int64_t tile) {
    return a->tiles - tile < a->run ? a->tiles - tile : a->run;
}
/* From the area's start to a tile, and from there to the next rows' tile of the same K. */
static inline int64_t x_row_stride(const x_area *a, int64_t tile) {
    return x_run(a, tile - tile % a->run) * x_tile_bytes(a);
}
static inline int64_t x_offset(const x_area *a, int64_t row_tile, int64_t tile) {
    int64_t first = tile - tile % a->run;
    return first * a->row_tiles * x_tile_bytes(a) + row_tile * x_row_stride(a, tile) + (tile - first) * x_tile_bytes(a);
}

#endif
