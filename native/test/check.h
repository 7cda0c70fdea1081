/* What the tests share: checks that count, random numbers that are the same everywhere, matrices with their buffers. */
#ifndef GATUN_CHECK_H
#define GATUN_CHECK_H

#include <sys/mman.h>
#include <unistd.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* A buffer whose last byte is the last of a page, or whose first one is the first of a page, with a page behind it and
 * one before it that nobody may touch. */
typedef struct guarded {
    void *map;
    size_t mapped;
    int64_t size;
    void *data;
} guarded;

static inline guarded guard_at(int64_t size, bool front) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inside = ((size_t)size + page - 1) / page * page + (size == 0 ? page : 0);
    guarded g = {.mapped = inside + 2 * page, .size = size};
    g.map = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect(g.map, page, PROT_NONE) != 0 ||
        mprotect((uint8_t *)g.map + page + inside, page, PROT_NONE) != 0) {
        fprintf(stderr, "no memory for guarded %lld bytes\n", (long long)size);
        exit(1);
    }
    g.data = (uint8_t *)g.map + page + (front ? 0 : inside - (size_t)size);
    return g;
}

static inline guarded guard(int64_t size) { return guard_at(size, false); }

static inline guarded guard_copy_at(const void *from, int64_t size, bool front) {
    guarded g = guard_at(size, front);
    if (size > 0) {
        memcpy(g.data, from, (size_t)size);
    }
    return g;
}

static inline guarded guard_copy(const void *from, int64_t size) { return guard_copy_at(from, size, false); }

static inline void unguard(guarded *g) { munmap(g->map, g->mapped); }

/* The instruction set named by the first argument; ends the test as skipped when this machine lacks it. */
static inline int32_t isa_argument(int count, char **arguments) {
    int32_t isa = GATUN_ISA_NEON;
    while (isa > 0 && (count < 2 || strcasecmp(arguments[1], gatun_isa_name(isa)) != 0)) {
        isa--;
    }
    if (isa == 0) {
        fprintf(stderr, "usage: %s <isa>\n", arguments[0]);
        exit(2);
    }
    if (gatun_isa_check(isa) != GATUN_OK) {
        printf("skipped: %s\n", gatun_last_error());
        exit(SKIPPED);
    }
    return isa;
}

#endif
