/*
 * What this processor can do: CPUID for what it has, XGETBV for what the operating system saves (x86-64), HWCAP
 * (aarch64). Both are asked for, since a register state that is not saved makes its instructions unusable.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gatun_internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

enum feature {
    SSE3,
    AVX,
    AVX2,
    FMA,
    F16C,
    BMI2,
    AVX_VNNI,
    AVX512F,
    AVX512BW,
    AVX512CD,
    AVX512DQ,
    AVX512VL,
    AVX512_VNNI,
    AVX512_VBMI,
    AVX512_VBMI2,
    AVX512_BF16,
    AVX512_FP16,
    AMX_TILE,
    AMX_INT8,
    AMX_BF16,
    ASIMD,
    ASIMDHP,
    ASIMDDP,
    I8MM,
    BF16,
    FEATURES
};

static const char *const feature_names[FEATURES] = {
    "sse3",         "avx",         "avx2",        "fma",      "f16c",     "bmi2",        "avx_vnni",
    "avx512f",      "avx512bw",    "avx512cd",    "avx512dq", "avx512vl", "avx512_vnni", "avx512_vbmi",
    "avx512_vbmi2", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",    "asimd",
    "asimdhp",      "asimddp",     "i8mm",        "bf16",
};

#define BIT(feature) ((uint64_t)1 << (feature))

/* What each tier's files are compiled for; cmake/IsaFlags.cmake has the flags. */
static const struct {
    const char *name;
    uint64_t needs;
    bool built;
} tiers[] = {
    [GATUN_ISA_SCALAR] = {"scalar", 0, true},
    [GATUN_ISA_AVX2] = {"avx2", BIT(AVX) | BIT(AVX2) | BIT(FMA) | BIT(F16C) | BIT(BMI2), GATUN_HAVE_AVX2},
    [GATUN_ISA_AVX512] = {"avx512",
                          BIT(AVX2) | BIT(FMA) | BIT(F16C) | BIT(BMI2) | BIT(AVX512F) | BIT(AVX512BW) | BIT(AVX512CD) |
                              BIT(AVX512DQ) | BIT(AVX512VL) | BIT(AVX512_VNNI) | BIT(AVX512_VBMI) | BIT(AVX512_BF16),
                          GATUN_HAVE_AVX512},
    [GATUN_ISA_AMX] = {"amx",
                       BIT(AVX512F) | BIT(AVX512BW) | BIT(AVX512CD) | BIT(AVX512DQ) | BIT(AVX512VL) | BIT(AVX512_VNNI) |
                           BIT(AVX512_VBMI) | BIT(AVX512_BF16) | BIT(AMX_TILE) | BIT(AMX_INT8) | BIT(AMX_BF16),
                       GATUN_HAVE_AMX},
    [GATUN_ISA_NEON] = {"neon", BIT(ASIMD), GATUN_HAVE_NEON},
};
enum { TIERS = sizeof tiers / sizeof tiers[0] };

static uint64_t found;
static char features_text[512];

#if defined(__x86_64__)
static uint64_t if_bit(uint32_t reg, int32_t bit, enum feature feature) {
    return (reg >> bit & 1) != 0 ? BIT(feature) : 0;
}

static uint64_t xgetbv0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux hands out the tile registers' memory on request only. */
static bool amx_permitted(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM_ = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

static uint64_t probe(void) {
    uint32_t a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0) {
        return 0;
    }
    uint64_t f = if_bit(c, 0, SSE3);
    bool osxsave = (c >> 27 & 1) != 0;
    uint64_t saved = osxsave ? xgetbv0() : 0;
    bool ymm = (saved & 0x6) == 0x6;
    bool zmm = (saved & 0xE6) == 0xE6;
    bool tiles = (saved & 0x60000) == 0x60000;
    if (!ymm) {
        return f;
    }
    f |= if_bit(c, 28, AVX) | if_bit(c, 12, FMA) | if_bit(c, 29, F16C);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) {
        return f;
    }
    uint32_t sub_leaves = a;
    f |= if_bit(b, 5, AVX2) | if_bit(b, 8, BMI2);
    if (zmm) {
        f |= if_bit(b, 16, AVX512F) | if_bit(b, 17, AVX512DQ) | if_bit(b, 28, AVX512CD) | if_bit(b, 30, AVX512BW) |
             if_bit(b, 31, AVX512VL) | if_bit(c, 1, AVX512_VBMI) | if_bit(c, 6, AVX512_VBMI2) |
             if_bit(c, 11, AVX512_VNNI) | if_bit(d, 23, AVX512_FP16);
    }
    uint64_t amx = if_bit(d, 22, AMX_BF16) | if_bit(d, 24, AMX_TILE) | if_bit(d, 25, AMX_INT8);
    if (tiles && amx != 0 && amx_permitted()) {
        f |= amx;
    }
#ifdef GATUN_AMX_EMULATED /* by native/test */
    f |= BIT(AMX_TILE) | BIT(AMX_INT8) | BIT(AMX_BF16);
#endif
    if (sub_leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) {
        f |= if_bit(a, 4, AVX_VNNI);
        if (zmm) {
            f |= if_bit(a, 5, AVX512_BF16);
        }
    }
    return f;
}
#elif defined(__aarch64__) && defined(__linux__)
static uint64_t probe(void) {
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    uint64_t f = 0;
    f |= (caps >> 1 & 1) != 0 ? BIT(ASIMD) : 0;
    f |= (caps >> 10 & 1) != 0 ? BIT(ASIMDHP) : 0;
    f |= (caps >> 20 & 1) != 0 ? BIT(ASIMDDP) : 0;
    f |= (caps2 >> 13 & 1) != 0 ? BIT(I8MM) : 0;
    f |= (caps2 >> 14 & 1) != 0 ? BIT(BF16) : 0;
    return f;
}
#else
static uint64_t probe(void) { return 0; }
#endif

/* The names of a set of features, separated by spaces. */
static void names_of(uint64_t set, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int32_t i = 0; i < FEATURES; i++) {
        if ((set & BIT(i)) != 0 && used < size) {
            used += (size_t)snprintf(text + used, size - used, "%s%s", used == 0 ? "" : " ", feature_names[i]);
        }
    }
}

static void probe_once(void) {
    found = probe();
    names_of(found, features_text, sizeof features_text);
}

static uint64_t features(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, probe_once);
    return found;
}

bool gatun_cpu_has(const char *name) {
    int32_t i = 0;
    while (i < FEATURES && strcmp(feature_names[i], name) != 0) {
        i++;
    }
    return i < FEATURES && (features() & BIT(i)) != 0;
}

const char *gatun_cpu_features(void) {
    features();
    return features_text;
}

const char *gatun_isa_name(int32_t isa) {
    return isa == GATUN_ISA_BEST ? "best" : isa > 0 && isa < TIERS ? tiers[isa].name : "unknown";
}

gatun_status gatun_isa_check(int32_t isa) {
    if (isa == GATUN_ISA_BEST) {
        int32_t resolved;
        return gatun_isa_default(&resolved);
    }
    if (isa < 0 || isa >= TIERS) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "isa: found %d, expected 0 to %d", isa, TIERS - 1);
    }
    if (!tiers[isa].built) {
        return gatun_fail(GATUN_NO_ISA, "isa %s: this library was built without it", tiers[isa].name);
    }
    uint64_t missing = tiers[isa].needs & ~features();
    if (missing != 0) {
        char text[512];
        names_of(missing, text, sizeof text);
        return gatun_fail(GATUN_NO_ISA, "isa %s: this machine lacks %s", tiers[isa].name, text);
    }
    return GATUN_OK;
}

bool gatun_isa_usable(int32_t isa) { return tiers[isa].built && (tiers[isa].needs & ~features()) == 0; }

gatun_status gatun_isa_default(int32_t *isa) {
    if (isa == NULL) {
        return gatun_fail(GATUN_INVALID_ARGUMENT, "isa: found a null pointer");
    }
    const char *forced = getenv("GATUN_ISA");
    if (forced != NULL && forced[0] != 0) {
        for (int32_t i = 1; i < TIERS; i++) {
            if (strcasecmp(forced, tiers[i].name) == 0) {
                *isa = i;
                return gatun_isa_check(i);
            }
        }
        return gatun_fail(GATUN_NO_ISA, "GATUN_ISA: found \"%.40s\", expected scalar, avx2, avx512, amx or neon",
                          forced);
    }
    *isa = GATUN_ISA_SCALAR;
    for (int32_t i = GATUN_ISA_SCALAR; i < TIERS; i++) {
        if (gatun_isa_usable(i)) {
            *isa = i;
        }
    }
    return GATUN_OK;
}

gatun_status gatun_isa_resolve(int32_t isa, int32_t *resolved) {
    if (isa == GATUN_ISA_BEST) {
        return gatun_isa_default(resolved);
    }
    *resolved = isa;
    return gatun_isa_check(isa);
}
