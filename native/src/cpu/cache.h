/* Sizes of this machine's data caches, from which kernels derive their blocks. */
#ifndef GATUN_CACHE_H
#define GATUN_CACHE_H

#include <stdint.h>
#include <unistd.h>

/* Bytes of one core's cache of level 1 or 2, or of the one of level 3, as the system tells; a small usual size where it
 * does not. */
static inline int64_t gatun_cache_bytes(int level) {
    static const int64_t usual[] = {0, 32 << 10, 512 << 10, 8 << 20};
    long size = -1;
#if defined(_SC_LEVEL1_DCACHE_SIZE) && defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
    static const int names[] = {0, _SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
    size = sysconf(names[level]);
#endif
    return size > 0 ? size : usual[level];
}

#endif
