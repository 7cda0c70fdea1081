/* The rates of memory: reading, and copying with plain and with streaming stores. */
#include "rounds.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE = 64, LINES = 8 }; /* bytes of a cache line; lines that are read at once */
enum { AHEAD = 4096, LARGE_PAGE = 2 << 20 };

typedef uint64_t line __attribute__((vector_size(LINE)));

typedef struct copy {
    uint8_t *to;
    const uint8_t *from;
    int64_t size;
    int32_t streaming;
} copy;

/* The part of a worker: whole runs of LINES lines. */
static void part(int64_t size, int32_t worker, int32_t workers, int64_t *first, int64_t *end) {
    int64_t runs = size / (LINE * LINES);
    *first = runs * worker / workers * LINE * LINES;
    *end = runs * (worker + 1) / workers * LINE * LINES;
}

#if defined(__x86_64__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

/* With `ahead` the program asks for lines that many bytes before it needs them; without, the processor has to guess. */
static inline __attribute__((always_inline)) void read_ahead(const uint8_t *data, int64_t first, int64_t end,
                                                             int64_t ahead) {
    line sum[LINES] = {0};
    for (int64_t at = first; at < end; at += LINE * LINES) {
        for (int i = 0; i < LINES; i++) {
            if (ahead > 0) {
                __builtin_prefetch(data + at + LINE * i + ahead);
            }
            sum[i] ^= ((const line *)(data + at))[i];
        }
    }
    __asm__ volatile("" : : "r"(sum) : "memory"); /* somebody could look at the sums */
}

WIDE static void read_guessed(const uint8_t *data, int64_t first, int64_t end) { read_ahead(data, first, end, 0); }
WIDE static void read_asked(const uint8_t *data, int64_t first, int64_t end) { read_ahead(data, first, end, AHEAD); }

static void read_part(void *context, int32_t worker, int32_t workers) {
    const copy *c = context;
    int64_t first, end;
    part(c->size, worker, workers, &first, &end);
    (c->streaming ? read_asked : read_guessed)(c->from, first, end);
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2"))) static void stream(uint8_t *to, const uint8_t *from, int64_t size) {
    for (int64_t at = 0; at < size; at += 32) {
        _mm256_stream_si256((__m256i *)(to + at), _mm256_load_si256((const __m256i *)(from + at)));
    }
    _mm_sfence();
}

static int can_stream(void) { return __builtin_cpu_supports("avx2") != 0; }
#else
static void stream(uint8_t *to, const uint8_t *from, int64_t size) { memcpy(to, from, (size_t)size); }

static int can_stream(void) { return 0; }
#endif

static void copy_part(void *context, int32_t worker, int32_t workers) {
    const copy *c = context;
    int64_t first, end;
    part(c->size, worker, workers, &first, &end);
    if (c->streaming && can_stream()) {
        stream(c->to + first, c->from + first, end - first);
    } else {
        memcpy(c->to + first, c->from + first, (size_t)(end - first));
    }
}

static double rate(round_body *body, copy *c, int32_t threads, int32_t rounds, int passes) {
    double seconds = best_round(body, c, threads, rounds);
    int64_t moved = c->size / (LINE * LINES) * LINE * LINES;
    return seconds > 0 ? (double)moved * passes / seconds * 1e-9 : 0;
}

double gatun_probe_read(const void *data, int64_t size, int32_t threads, int32_t rounds) {
    copy guessed = {.from = data, .size = size}, asked = {.from = data, .size = size, .streaming = 1};
    double first = rate(read_part, &guessed, threads, rounds, 1), second = rate(read_part, &asked, threads, rounds, 1);
    return first > second ? first : second;
}

double gatun_probe_copy(void *to, const void *from, int64_t size, int32_t streaming, int32_t threads, int32_t rounds) {
    copy c = {.to = to, .from = from, .size = size, .streaming = streaming};
    return rate(copy_part, &c, threads, rounds, 2);
}

void *gatun_probe_allocate(int64_t size) {
    void *data = NULL;
    if (size <= 0 || posix_memalign(&data, LARGE_PAGE, (size_t)size) != 0) {
        return NULL;
    }
#if defined(MADV_HUGEPAGE)
    (void)madvise(data, (size_t)size, MADV_HUGEPAGE); /* small pages do, too */
#endif
    memset(data, 1, (size_t)size); /* pages that nobody has written to are all the same one */
    return data;
}

void gatun_probe_free(void *data) { free(data); }
