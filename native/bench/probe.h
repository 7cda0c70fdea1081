/*
 * What the benchmarks ask of the machine itself: the peak of its multipliers, the rate at which it reads and copies
 * memory, and what a call costs. A library of its own, used by bench/ only; not a part of libgatun.
 */
#ifndef GATUN_PROBE_H
#define GATUN_PROBE_H

#include <stdint.h>

#if defined(__GNUC__)
#define PROBE_API __attribute__((visibility("default")))
#else
#define PROBE_API
#endif

enum { PROBE_F32 = 1, PROBE_BF16 = 2, PROBE_I8 = 3 };

/* Billions of operations (a multiplication and an addition are two) a second of dot products that never leave the
 * registers, on so many threads: the best of `rounds` of about two milliseconds. 0: the processor has no instruction
 * for it, or there are no threads to be had. */
PROBE_API double gatun_probe_peak(int32_t kind, int32_t threads, int32_t rounds);
/* Which instructions gatun_probe_peak times, such as "avx512 vpdpbusd"; empty: none. A static string. */
PROBE_API const char *gatun_probe_peak_name(int32_t kind);

/* Memory that has been written to, on large pages where the system has them; null when there is none. */
PROBE_API void *gatun_probe_allocate(int64_t size);
PROBE_API void gatun_probe_free(void *data);
/* GB (1e9 bytes) a second read from `size` bytes of 64-byte-aligned memory, each thread from its own part: the best of
 * `rounds` of a loop that only loads and of as many of one that prefetches. 0: there are no threads to be had. */
PROBE_API double gatun_probe_read(const void *data, int64_t size, int32_t threads, int32_t rounds);
/* GB a second, read and written ones added up, of a copy of `size` bytes between 64-byte-aligned memory: memcpy, or
 * with `streaming` stores that go past the caches. */
PROBE_API double gatun_probe_copy(void *to, const void *from, int64_t size, int32_t streaming, int32_t threads,
                                  int32_t rounds);

/* Nanoseconds that `count` calls of a function without arguments take from C. */
PROBE_API double gatun_probe_call(int32_t (*function)(void), int64_t count);
/* The same for gatun_linear, whose address is given, with float x and y without gaps and without extras; -1 when a call
 * fails. */
PROBE_API double gatun_probe_linear(const void *function, int64_t count, const void *packed, int64_t packed_size,
                                    const void *x, int64_t k, int64_t m, void *y, int64_t n, int32_t compute,
                                    int32_t threads, void *workspace, int64_t workspace_size);
/* The same for gatun_cuda_linear, which returns before the device is done: what it takes to give it the work. */
PROBE_API double gatun_probe_cuda_linear(const void *function, int64_t count, int32_t device, const void *packed,
                                         uint64_t x, int64_t k, int64_t m, uint64_t y, int64_t n, int32_t compute,
                                         uint64_t workspace, int64_t workspace_size, uint64_t stream);

#endif
