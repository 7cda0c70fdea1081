/*
 * Four products of eight tiles that stay in their registers: no product waits for the one before, since its sums were
 * last used four products ago.
 */
#include "peak_amx.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOPS = 1 << 12 };

int32_t has_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    const unsigned tiles = 1u << 22 | 1u << 24 | 1u << 25;
    return __builtin_cpu_supports("avx512f") != 0 && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
           (edx & tiles) == tiles && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#define AMX __attribute__((target("amx-tile,amx-int8,amx-bf16")))

AMX static void configure(void) {
    uint8_t config[64] __attribute__((aligned(64)));
    memset(config, 0, sizeof config);
    config[0] = 1;
    for (int t = 0; t < 8; t++) {
        config[16 + 2 * t] = 64;
        config[48 + t] = 16;
    }
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(config);
}

#define PEAK(name, product)                                                                                            \
    AMX void name(void) {                                                                                              \
        configure();                                                                                                   \
        for (int loop = 0; loop < LOOPS; loop++) {                                                                     \
            product(0, 4, 6);                                                                                          \
            product(1, 4, 7);                                                                                          \
            product(2, 5, 6);                                                                                          \
            product(3, 5, 7);                                                                                          \
        }                                                                                                              \
        _tile_release();                                                                                               \
    }
PEAK(i8_amx, _tile_dpbssd)
PEAK(bf16_amx, _tile_dpbf16ps)
#else
int32_t has_amx(void) { return 0; }
void i8_amx(void) {}
void bf16_amx(void) {}
#endif
