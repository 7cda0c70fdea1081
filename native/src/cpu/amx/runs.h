/*
 * Products whose sums stay what they are along all of K, for linear_bf16.c and for integers with one scale a row.
 *
 * A worker goes through its rows in blocks, through a block's panels in groups, through K of a group in runs. The
 * weights of a run of a panel, two thirds of the first-level cache, are multiplied by all rows of the block, 16 at a
 * time; sums wait in the second-level cache for the next run. Either x of a block lies in the second-level cache for
 * good, or a run of x does until all panels of a group have used it.
 *
 * Everything else is done between the products, a little after each four, while the processor multiplies: the next
 * run's weights are dequantized or fetched, sums are fetched, and the rows that were finished last are scaled and
 * stored.
 */
#ifndef GATUN_AMX_RUNS_H
#define GATUN_AMX_RUNS_H

#include "cpu/amx/tiles.h"
#include "cpu/avx512/epilogue.h"

enum { BLOCK_ROWS = 512, DECODE_WORDS = 8, SUMS_BYTES = TILE_ROWS * GATUN_PANEL * 4 };

/* A run of K of a panel, of the group panel0 .. panel1-1, for rows row0 .. row1-1. */
typedef struct run_place {
    int64_t row0, row1, panel0, panel1, panel, tile;
} run_place;

/* Rows whose sums are to be scaled and stored. */
typedef struct finished_rows {
    int64_t panel, row0, row, row1;
    const uint8_t *sums; /* [2][16][16], by half of the panel */
    int slot;            /* 0 or 1: whose scales */
} finished_rows;

typedef struct tile_runs tile_runs;
/* What the two users have of their own. */
typedef struct run_kernel {
    /* Where the run's weights lie as tiles; null: they have to be decoded. */
    const uint8_t *(*direct)(const tile_runs *r, const run_place *at);
    /* Words word0 .. word1-1 of the run to [word][32 outputs]. */
    void (*decode)(const tile_runs *r, const run_place *at, int64_t word0, int64_t word1, uint8_t *run);
    void (*scales)(tile_runs *r, int64_t panel, float *scales); /* for `finish`; null where it needs none */
    /* y of `rows` rows from f->row on. */
    void (*finish)(const tile_runs *r, const finished_rows *f, int64_t rows);
} run_kernel;

struct tile_runs {
    const void *own;
    const gatun_linear_task *t;
    const x_area *a;
    const uint8_t *x; /* tiles */
    int64_t block_rows, group_panels;
    bool streams;  /* y */
    uint8_t *sums; /* [group panels][block rows][32] */
    uint8_t *done; /* of the last 16 rows */
    uint8_t *decoded[2];
    run_place at, next;
    const uint8_t *w; /* the run's */
    uint8_t *decode_to;
    int64_t decode_at, decode_end, decode_due; /* words of the next run; due: 1/256 */
    read_ahead ahead;
    finished_rows finished;
    float scales[2][3 * GATUN_PANEL] __attribute__((aligned(64)));
};

static int64_t run_bytes(const x_area *a) { return a->run * a->steps * 128; }

/* Rows of x whose K fits half of the second-level cache; many fewer than a block are not worth it. */
static int64_t resident_rows(const x_area *a) {
    int64_t rows = gatun_cache_bytes(2) / 2 / (a->tiles * a->steps * 4 + 1) / TILE_ROWS * TILE_ROWS;
    return rows > BLOCK_ROWS ? BLOCK_ROWS : rows < BLOCK_ROWS / 2 ? 0 : rows;
}
static int64_t group_panels(const x_area *a) {
    int64_t panels = gatun_cache_bytes(2) / 4 / (BLOCK_ROWS * GATUN_PANEL * 4);
    return resident_rows(a) > 0 || panels < 1 ? 1 : panels;
}
static int64_t block_rows(const x_area *a) { return resident_rows(a) > 0 ? resident_rows(a) : BLOCK_ROWS; }

static int64_t runs_scratch_bytes(const x_area *a) {
    return group_panels(a) * block_rows(a) * GATUN_PANEL * 4 + SUMS_BYTES + 2 * run_bytes(a);
}

/*
 * Whether y goes past the caches: its rows are written 32 outputs at a time, so that nothing of a y that is larger than
 * the second-level cache would still be there for whoever reads it, and each line would be read before it is written.
 */
static bool streams_outputs(const gatun_linear_task *t) {
    return t->y_type == GATUN_F32 && t->m * t->packed->n * 4 > gatun_cache_bytes(2) && (uintptr_t)t->y % 64 == 0 &&
           t->ldy % 16 == 0;
}

static tile_runs tile_runs_of(const gatun_linear_task *t, const x_area *a, const void *own, const void *x,
                              uint8_t *scratch) {
    tile_runs r = {.own = own, .t = t, .a = a, .x = (const uint8_t *)x, .done = scratch};
    r.streams = streams_outputs(t);
    r.block_rows = block_rows(a);
    r.group_panels = group_panels(a);
    r.decoded[0] = scratch + SUMS_BYTES;
    r.decoded[1] = r.decoded[0] + run_bytes(a);
    r.sums = r.decoded[1] + run_bytes(a);
    return r;
}

/* False after the last run. */
static bool next_place(const tile_runs *r, run_place *p) {
    if (++p->panel < p->panel1) {
        return true;
    }
    p->panel = p->panel0;
    p->tile += r->a->run;
    if (p->tile < r->a->tiles) {
        return true;
    }
    p->tile = 0;
    p->panel0 = p->panel1;
    if (p->panel0 == r->t->panel1) {
        p->panel0 = r->t->panel0;
        p->row0 = p->row1;
        p->row1 = p->row0 + r->block_rows < r->t->row1 ? p->row0 + r->block_rows : r->t->row1;
    }
    p->panel1 = p->panel0 + r->group_panels < r->t->panel1 ? p->panel0 + r->group_panels : r->t->panel1;
    p->panel = p->panel0;
    return p->row0 < p->row1;
}

/* A vector of the sums of a finished row. */
static inline __m512i finished_sums(const finished_rows *f, int64_t row, int h) {
    return _mm512_load_si512(f->sums + h * 1024 + (row - f->row0) * 64);
}

/* Where the sums of the first rows of a block wait. */
static inline uint8_t *group_sums(const tile_runs *r, int64_t panel) {
    return r->sums + (panel - r->at.panel0) * r->block_rows * GATUN_PANEL * 4;
}

GATUN_INLINE void store_half(const tile_runs *r, int64_t row, int64_t panel, int h, __m512 sums) {
    const gatun_linear_task *t = r->t;
    const int64_t n = panel * GATUN_PANEL + 16 * h;
    const __mmask16 mask = first_lanes(t->packed->n - n);
    if (r->streams && mask == 0xFFFF) {
        _mm512_stream_ps((float *)t->y + row * t->ldy + n, outputs_of(t, row, n, mask, sums));
    } else if (mask != 0) {
        store_outputs(t, row, n, mask, sums);
    }
}

GATUN_INLINE void finish_some(const run_kernel *k, tile_runs *r, int64_t rows) {
    finished_rows *f = &r->finished;
    if (f->row < f->row1) {
        rows = f->row1 - f->row < rows ? f->row1 - f->row : rows;
        k->finish(r, f, rows);
        f->row += rows;
    }
}

GATUN_INLINE void decode_until(const run_kernel *k, tile_runs *r, int64_t word) {
    if (r->decode_at < word) {
        k->decode(r, &r->next, r->decode_at, word, r->decode_to);
        r->decode_at = word;
    }
}

/* What is done after each four products besides. */
typedef struct run_shares {
    int64_t rows, decode; /* of 16; in 1/256 words */
    int lines;
} run_shares;

static run_shares shares_of(const tile_runs *r) {
    const int64_t parts = tiles_of(x_run(r->a, r->at.tile), 2);
    const int64_t all = tiles_of(r->at.row1 - r->at.row0, TILE_ROWS) * parts;
    return (run_shares){.rows = tiles_of(TILE_ROWS, parts),
                        .decode = tiles_of((r->decode_end - r->decode_at) * 256, all),
                        .lines = (int)tiles_of((r->ahead.end - r->ahead.next) / 64, all)};
}

GATUN_INLINE void side_work(const run_kernel *k, tile_runs *r, const run_shares *shares) {
    finish_some(k, r, shares->rows);
    r->decode_due += shares->decode;
    if (r->decode_due >= 256 * DECODE_WORDS && r->decode_at + DECODE_WORDS <= r->decode_end) {
        decode_until(k, r, r->decode_at + DECODE_WORDS);
        r->decode_due -= 256 * DECODE_WORDS;
    }
    read_some(&r->ahead, shares->lines);
}

/* A part of 16 rows' sums, to the first-level cache. */
static inline void sums_ahead(const uint8_t *sums, int64_t part, int64_t rows) {
    for (int64_t row = part * rows; row < (part + 1) * rows && row < TILE_ROWS; row++) {
        _mm_prefetch((const char *)sums + 128 * row, _MM_HINT_T0);
        _mm_prefetch((const char *)sums + 128 * row + 64, _MM_HINT_T0);
    }
}

#define LOAD_X(tile, from) _tile_stream_loadd(tile, from, row_bytes)

/*
 * The products of r->at. What the next product takes is loaded right behind the one that uses the last of it; at the
 * end of 16 rows, before their sums are stored: loads behind a store may wait for it. x is read once a run, past the
 * weights in the first-level cache (tileloaddt1).
 */
GATUN_INLINE void run_products(const int kind, const run_kernel *k, tile_runs *r) {
    const x_area *a = r->a;
    const run_place at = r->at;
    const int64_t count = x_run(a, at.tile), x_bytes = x_tile_bytes(a), row_bytes = 4 * a->steps;
    const int64_t row_tiles = tiles_of(at.row1 - at.row0, TILE_ROWS);
    const bool first = at.tile == 0, last = at.tile + count == a->tiles;
    const run_shares shares = shares_of(r);
    const uint8_t *x = r->x + x_offset(a, at.row0 / TILE_ROWS, at.tile), *w = r->w;
    uint8_t *sums = group_sums(r, at.panel);
    const int slot = !r->finished.slot;
    if (last) {
        k->scales(r, at.panel, r->scales[slot]);
    }
#define FIRST_SUMS(tile, from)                                                                                         \
    do {                                                                                                               \
        if (first) {                                                                                                   \
            _tile_zero(tile);                                                                                          \
        } else {                                                                                                       \
            _tile_loadd(tile, (from) + 1024 * (tile), 64);                                                             \
        }                                                                                                              \
    } while (0)
    tiles_fence();
    LOAD_X(2, x);
    _tile_loadd(3, w, 128);
    FIRST_SUMS(0, sums);
    FIRST_SUMS(1, sums);
    for (int64_t tile = 0; tile < row_tiles; tile++, sums += SUMS_BYTES) {
        const int64_t row = at.row0 + tile * TILE_ROWS;
        const bool more = tile + 1 < row_tiles;
        for (int64_t i = 0; i < count; i++) {
            const bool end = i + 1 == count;
            TILE_DOT(kind, 0, 2, 3);
            _tile_loadd(3, w + 64, 128);
            TILE_DOT(kind, 1, 2, 3);
            x += end && !more ? 0 : x_bytes;
            w = end ? r->w : w + 128 * a->steps;
            LOAD_X(2, x);
            _tile_loadd(3, w, 128);
            if (i % 2 != 0 || end) {
                tiles_fence();
                side_work(k, r, &shares);
                if (!first) {
                    sums_ahead(sums + SUMS_BYTES, i / 2, shares.rows);
                }
                tiles_fence();
            }
        }
        uint8_t *to = last ? r->done : sums, *next = more ? sums + SUMS_BYTES : sums;
        _tile_stored(0, to, 64);
        FIRST_SUMS(0, next);
        _tile_stored(1, to + 1024, 64);
        FIRST_SUMS(1, next);
        tiles_fence();
        if (last) {
            int64_t end = row + TILE_ROWS < at.row1 ? row + TILE_ROWS : at.row1;
            r->finished = (finished_rows){at.panel, row, row, end, r->done, slot};
        }
    }
#undef FIRST_SUMS
}

/* The products of r->at. */
typedef void run_multiply(tile_runs *r);

static void run_all(run_multiply *const multiply, const run_kernel *k, tile_runs *r) {
    const gatun_linear_task *t = r->t;
    r->next = (run_place){.row1 = t->row0, .panel = t->panel1, .panel1 = t->panel1, .tile = r->a->tiles};
    bool more = t->panel0 < t->panel1 && t->row0 < t->row1 && next_place(r, &r->next);
    if (!more) {
        return;
    }
    tiles_configure(r->a->steps);
    r->decode_to = r->decoded[0];
    bool decodes = k->direct(r, &r->next) == NULL;
    r->decode_end = decodes ? x_run(r->a, r->next.tile) * r->a->steps : 0;
    while (more) {
        decode_until(k, r, r->decode_end);
        r->at = r->next;
        r->w = decodes ? r->decode_to : k->direct(r, &r->at);
        more = next_place(r, &r->next);
        const int64_t words = more ? x_run(r->a, r->next.tile) * r->a->steps : 0;
        const uint8_t *next = more ? k->direct(r, &r->next) : NULL;
        decodes = more && next == NULL;
        r->decode_to = r->decoded[r->decode_to == r->decoded[0]];
        r->decode_at = r->decode_due = 0;
        r->decode_end = decodes ? words : 0;
        r->ahead = (read_ahead){next, next == NULL ? NULL : next + words * 128};
        multiply(r);
    }
    tiles_release();
    finish_some(k, r, TILE_ROWS);
    if (r->streams) {
        _mm_sfence();
    }
}

#endif
