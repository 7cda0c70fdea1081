/*
 * Memory for what is read again and again and does not fit in a cache: on pages of 2 MiB a core waits less for its
 * address tables. A hint only: where the system has no such pages it gives small ones. Not taken from malloc, which has
 * no way to ask before the pages are there.
 */
#define _GNU_SOURCE /* madvise */
#include <sys/mman.h>
#include <unistd.h>

#include "gatun_internal.h"

enum { LARGE_PAGE = 2 << 20 };

/* What is mapped for a size: whole pages, and for large blocks the beginning can be moved to a large page. */
static int64_t mapped_size(int64_t size) {
    int64_t page = sysconf(_SC_PAGESIZE);
    page = size >= LARGE_PAGE ? LARGE_PAGE : page > 0 ? page : 4096;
    return (size + page - 1) / page * page;
}

gatun_status gatun_memory_allocate(int64_t size, void **memory) {
    if (memory == NULL || size < 1 || size > INT64_MAX - 4 * LARGE_PAGE) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "memory: found %s and a size of %lld, expected at least 1 byte",
                          memory == NULL ? "a null pointer" : "a pointer", (long long)size);
    }
    *memory = NULL;
    int64_t need = mapped_size(size);
    int64_t spare = need >= LARGE_PAGE ? LARGE_PAGE : 0;
    void *at = mmap(NULL, (size_t)(need + spare), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        return gatun_fail(GATUN_OUT_OF_MEMORY, "memory: found none for %lld bytes", (long long)size);
    }
    if (spare > 0) { /* what lies before and behind the aligned part goes back */
        int64_t before = (int64_t)(-(uintptr_t)at % LARGE_PAGE);
        if (before > 0) {
            (void)munmap(at, (size_t)before);
        }
        at = (uint8_t *)at + before;
        if (spare > before) {
            (void)munmap((uint8_t *)at + need, (size_t)(spare - before));
        }
#if defined(MADV_HUGEPAGE)
        (void)madvise(at, (size_t)need, MADV_HUGEPAGE);
#endif
    }
    *memory = at;
    return GATUN_OK;
}

gatun_status gatun_memory_free(void *memory, int64_t size) {
    if (memory != NULL && (size < 1 || munmap(memory, (size_t)mapped_size(size)) != 0)) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "memory: found %lld bytes that are none of ours", (long long)size);
    }
    return GATUN_OK;
}
