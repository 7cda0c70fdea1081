/*
 * Peaks of the multipliers. A loop holds sixteen independent sums, enough to hide the latency of an instruction that
 * issues twice a cycle and takes up to eight; nothing is loaded or stored. The empty asm statement ends what the
 * compiler knows of a sum, so that it can neither drop the loop nor take an instruction out of it.
 */
#include <stdlib.h>
#include <strings.h>

#include "peak_amx.h"
#include "rounds.h"

enum { SUMS = 16, LOOPS = 1 << 14 };

#define KEEP(v, constraint) __asm__ volatile("" : "+" constraint(v))

/* One function a kind: `type` sums start from `zero`, each step is `step` on the sum s and the operands a and b. */
#define PEAK_LOOP(name, target_flags, type, operand, zero, one, step, constraint)                                      \
    __attribute__((target(target_flags))) static void name(void) {                                                     \
        type sums[SUMS];                                                                                               \
        operand a = one, b = one;                                                                                      \
        KEEP(a, constraint);                                                                                           \
        KEEP(b, constraint);                                                                                           \
        for (int i = 0; i < SUMS; i++) {                                                                               \
            sums[i] = zero;                                                                                            \
        }                                                                                                              \
        for (int loop = 0; loop < LOOPS; loop++) {                                                                     \
            _Pragma("GCC unroll 16") for (int i = 0; i < SUMS; i++) {                                                  \
                type s = sums[i];                                                                                      \
                s = step;                                                                                              \
                KEEP(s, constraint);                                                                                   \
                sums[i] = s;                                                                                           \
            }                                                                                                          \
        }                                                                                                              \
    }

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

PEAK_LOOP(f32_avx512, "avx512f", __m512, __m512, _mm512_setzero_ps(), _mm512_set1_ps(0.5f), _mm512_fmadd_ps(a, b, s),
          "v")
PEAK_LOOP(f32_avx2, "avx2,fma", __m256, __m256, _mm256_setzero_ps(), _mm256_set1_ps(0.5f), _mm256_fmadd_ps(a, b, s),
          "x")
PEAK_LOOP(i8_avx512, "avx512f,avx512vnni", __m512i, __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1),
          _mm512_dpbusd_epi32(s, a, b), "v")
/* Two instructions, the first of which would be the same every time. */
#define PAIRS_STEP                                                                                                     \
    __extension__({                                                                                                    \
        KEEP(a, "x");                                                                                                  \
        _mm256_add_epi16(s, _mm256_maddubs_epi16(a, b));                                                               \
    })
PEAK_LOOP(i8_avx2, "avx2", __m256i, __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1), PAIRS_STEP, "x")
PEAK_LOOP(i8_avxvnni, "avx2,avxvnni", __m256i, __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1),
          _mm256_dpbusd_avx_epi32(s, a, b), "x")
#define BF16_STEP _mm512_dpbf16_ps(s, (__m512bh)a, (__m512bh)b)
PEAK_LOOP(bf16_avx512, "avx512f,avx512bf16", __m512, __m512i, _mm512_setzero_ps(), _mm512_set1_epi16(0x3F00), BF16_STEP,
          "v")

#define HAS(feature) (__builtin_cpu_supports(feature) != 0)

/* Not every compiler knows this one by name. It needs the same state of the operating system as AVX2. */
static int has_avxvnni(void) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return HAS("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#elif defined(__aarch64__)
#include <arm_neon.h>

PEAK_LOOP(f32_neon, "arch=armv8-a", float32x4_t, float32x4_t, vdupq_n_f32(0), vdupq_n_f32(0.5f), vfmaq_f32(s, a, b),
          "w")
#endif

typedef struct peak {
    int32_t kind;
    const char *name;
    double operations; /* of one step */
    peak_loop *loop;
} peak;

/* Whether GATUN_ISA, which holds for libgatun too, names a tier below. */
static int below(const char *tier) {
    static const char *const tiers[] = {"scalar", "avx2", "avx512", "amx"};
    const char *forced = getenv("GATUN_ISA");
    int is_below = 0;
    for (int i = 0; forced != NULL && i < 4 && strcasecmp(tiers[i], tier) != 0; i++) {
        is_below = is_below || strcasecmp(forced, tiers[i]) == 0;
    }
    return is_below;
}

/* The widest instruction that this processor has for a kind; a null loop when there is none. */
static peak find(int32_t kind) {
#if defined(__x86_64__)
    if (kind == PROBE_I8 && !below("amx") && has_amx()) {
        return (peak){kind, "amx tdpbssd", PEAK_AMX_STEP, i8_amx};
    }
    if (kind == PROBE_BF16 && !below("amx") && has_amx()) {
        return (peak){kind, "amx tdpbf16ps", PEAK_AMX_STEP / 2, bf16_amx};
    }
    if (kind == PROBE_F32 && !below("avx512") && HAS("avx512f")) {
        return (peak){kind, "avx512 vfmadd231ps", 2 * 16, f32_avx512};
    }
    if (kind == PROBE_F32 && HAS("avx2") && HAS("fma")) {
        return (peak){kind, "avx2 vfmadd231ps", 2 * 8, f32_avx2};
    }
    if (kind == PROBE_I8 && !below("avx512") && HAS("avx512vnni")) {
        return (peak){kind, "avx512 vpdpbusd", 2 * 64, i8_avx512};
    }
    if (kind == PROBE_I8 && !below("avx512") && has_avxvnni()) { /* the tier that is asked for has none */
        return (peak){kind, "avx2 vpdpbusd", 2 * 32, i8_avxvnni};
    }
    if (kind == PROBE_I8 && HAS("avx2")) {
        return (peak){kind, "avx2 vpmaddubsw, vpaddw", 2 * 32, i8_avx2};
    }
    if (kind == PROBE_BF16 && !below("avx512") && HAS("avx512bf16")) {
        return (peak){kind, "avx512 vdpbf16ps", 2 * 32, bf16_avx512};
    }
#elif defined(__aarch64__)
    if (kind == PROBE_F32) {
        return (peak){kind, "neon fmla", 2 * 4, f32_neon};
    }
#endif
    return (peak){kind, "", 0, 0};
}

const char *gatun_probe_peak_name(int32_t kind) { return find(kind).name; }

static void run(void *context, int32_t worker, int32_t workers) {
    (void)worker;
    (void)workers;
    const peak *p = context;
    for (int i = 0; i < 16; i++) {
        p->loop();
    }
}

double gatun_probe_peak(int32_t kind, int32_t threads, int32_t rounds) {
    peak p = find(kind);
    if (!p.loop) {
        return 0;
    }
    double seconds = best_round(run, &p, threads, rounds);
    return seconds > 0 ? p.operations * SUMS * LOOPS * 16 * threads / seconds * 1e-9 : 0;
}
