/* What the tests share: checks that count, random numbers that are the same everywhere, matrices with their buffers. */
#ifndef GATUN_CHECK_H
#define GATUN_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatun.h"

enum { SKIPPED = 77 }; /* the exit code that ctest shows as skipped */

static int failures;

/* Says what failed and goes on; at most 20 lines. */
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            if (failures++ < 20) {                                                                                     \
                fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                        \
                fprintf(stderr, __VA_ARGS__);                                                                          \
                fputc('\n', stderr);                                                                                   \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

#define CHECK_STATUS(expected, call)                                                                                   \
    do {                                                                                                               \
        gatun_status status_ = (call);                                                                                 \
        CHECK(status_ == (expected), "%s: %s", gatun_status_string(status_), gatun_last_error());                      \
    } while (0)

static inline int finish(void) {
    if (failures > 0) {
        fprintf(stderr, "%d checks failed\n", failures);
    }
    return failures > 0 ? 1 : 0;
}

/* splitmix64 */
typedef struct random_state {
    uint64_t seed;
} random_state;

static inline uint64_t random_bits(random_state *r) {
    uint64_t z = r->seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static inline int64_t random_below(random_state *r, int64_t n) { return (int64_t)(random_bits(r) % (uint64_t)n); }

/* Roughly normal. */
static inline float random_float(random_state *r) {
    float sum = 0;
    for (int32_t i = 0; i < 4; i++) {
        sum += (float)(random_bits(r) >> 40) * 0x1p-24f - 0.5f;
    }
    return sum * 1.7f;
}

/* 64-byte aligned and filled; ends the test when there is no memory. */
static inline void *buffer(int64_t size, int32_t fill) {
    void *p = NULL;
    if (posix_memalign(&p, 64, size > 0 ? (size_t)size : 1) != 0) {
        fprintf(stderr, "no memory for %lld bytes\n", (long long)size);
        exit(1);
    }
    memset(p, fill, size > 0 ? (size_t)size : 1);
    return p;
}

#endif
