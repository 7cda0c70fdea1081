/* Stores past the caches. */
#ifndef GATUN_STREAM_H
#define GATUN_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu/cache.h"

#if defined(__x86_64__)
#include <emmintrin.h>

/* Whether an output of so many bytes goes past the caches: what takes a large part of the last one pushes out all else,
 * and every line of it would be read before it is written. */
static inline bool gatun_streams(int64_t bytes) { return bytes > gatun_cache_bytes(3) / 4; }

static inline void gatun_stream(uint8_t *to, const uint8_t *from, int64_t size) {
    int64_t head = -(intptr_t)to & 15;
    head = head < size ? head : size;
    memcpy(to, from, (size_t)head);
    int64_t i = head;
    for (; i + 16 <= size; i += 16) {
        _mm_stream_si128((__m128i *)(void *)(to + i), _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
    }
    memcpy(to + i, from + i, (size_t)(size - i));
}

/* What a thread has streamed is seen by the others after this. */
static inline void gatun_stream_end(void) { _mm_sfence(); }
#else
static inline bool gatun_streams(int64_t bytes) { return bytes < 0; }
static inline void gatun_stream(uint8_t *to, const uint8_t *from, int64_t size) { memcpy(to, from, (size_t)size); }
static inline void gatun_stream_end(void) {}
#endif

#endif
