/*
 * The handful of AMX intrinsics that libgatun uses, in plain C, so that the logic around them is tested on machines
 * without AMX, under sanitizers too. What the processor answers with an exception fails the test here.
 */
#ifndef GATUN_AMX_EMULATED_H
#define GATUN_AMX_EMULATED_H

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct emulated_tiles {
    int configured;
    uint16_t bytes[8];
    uint8_t rows[8];
    uint8_t data[8][16][64];
} emulated_tiles;

static _Thread_local emulated_tiles emulated;

static inline void emulated_expect(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "AMX: %s\n", what);
        exit(1);
    }
}

static inline void emulated_config(const void *memory) {
    const uint8_t *config = (const uint8_t *)memory;
    emulated_expect(config[0] == 1 && config[1] == 0, "palette 1 and start row 0");
    memset(&emulated, 0, sizeof emulated);
    emulated.configured = 1;
    memcpy(emulated.bytes, config + 16, sizeof emulated.bytes);
    memcpy(emulated.rows, config + 48, sizeof emulated.rows);
    for (int t = 0; t < 8; t++) {
        emulated_expect(emulated.bytes[t] <= 64 && emulated.rows[t] <= 16 &&
                            (emulated.bytes[t] == 0) == (emulated.rows[t] == 0),
                        "1 to 64 bytes and 1 to 16 rows, or neither");
    }
}

static inline void emulated_zero(int t) {
    emulated_expect(emulated.configured && emulated.rows[t] != 0, "tiles are configured");
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
}

static inline void emulated_load(int t, const void *base, int64_t stride) {
    emulated_zero(t);
    for (int r = 0; r < emulated.rows[t]; r++) {
        memcpy(emulated.data[t][r], (const uint8_t *)base + r * stride, emulated.bytes[t]);
    }
}

static inline void emulated_store(int t, void *base, int64_t stride) {
    emulated_expect(emulated.configured && emulated.rows[t] != 0, "tiles are configured");
    for (int r = 0; r < emulated.rows[t]; r++) {
        memcpy((uint8_t *)base + r * stride, emulated.data[t][r], emulated.bytes[t]);
    }
}

static inline void emulated_shapes(int c, int a, int b) {
    emulated_expect(emulated.configured && emulated.rows[c] != 0 && emulated.rows[c] == emulated.rows[a] &&
                        emulated.bytes[c] == emulated.bytes[b] && emulated.bytes[a] == 4 * emulated.rows[b],
                    "tiles whose shapes go together");
}

static inline void emulated_bytes_dot(int c, int a, int b, int b_is_signed) {
    emulated_shapes(c, a, b);
    for (int m = 0; m < emulated.rows[c]; m++) {
        for (int n = 0; n < emulated.bytes[c] / 4; n++) {
            int32_t sum;
            memcpy(&sum, emulated.data[c][m] + 4 * n, 4);
            for (int i = 0; i < emulated.bytes[a]; i++) {
                uint8_t byte = emulated.data[b][i / 4][4 * n + i % 4];
                sum += (int8_t)emulated.data[a][m][i] * (b_is_signed ? (int8_t)byte : byte);
            }
            memcpy(emulated.data[c][m] + 4 * n, &sum, 4);
        }
    }
}

/* Subnormal operands count as zero. */
static inline float emulated_bfloat(const uint8_t *from) {
    uint32_t bits = (uint32_t)(from[0] | from[1] << 8) << 16;
    bits = (bits & 0x7F800000) == 0 ? bits & 0x80000000 : bits;
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

static inline void emulated_bfloat_dot(int c, int a, int b) {
    emulated_shapes(c, a, b);
    for (int m = 0; m < emulated.rows[c]; m++) {
        for (int n = 0; n < emulated.bytes[c] / 4; n++) {
            float sum;
            memcpy(&sum, emulated.data[c][m] + 4 * n, 4);
            for (int i = 0; i < emulated.bytes[a]; i += 2) {
                sum +=
                    emulated_bfloat(emulated.data[a][m] + i) * emulated_bfloat(emulated.data[b][i / 4] + 4 * n + i % 4);
            }
            memcpy(emulated.data[c][m] + 4 * n, &sum, 4);
        }
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_loadconfig(memory)            emulated_config(memory)
#define _tile_release()                     (emulated.configured = 0)
#define _tile_zero(t)                       emulated_zero(t)
#define _tile_loadd(t, base, stride)        emulated_load(t, base, stride)
#define _tile_stream_loadd(t, base, stride) emulated_load(t, base, stride)
#define _tile_stored(t, base, stride)       emulated_store(t, base, stride)
#define _tile_dpbssd(c, a, b)               emulated_bytes_dot(c, a, b, 1)
#define _tile_dpbsud(c, a, b)               emulated_bytes_dot(c, a, b, 0)
#define _tile_dpbf16ps(c, a, b)             emulated_bfloat_dot(c, a, b)

#endif
