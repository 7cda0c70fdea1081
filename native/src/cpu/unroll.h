/* Loops over a tile's rows and vectors have constant bounds once a kernel is instantiated; unrolled, their arrays live
 * in registers. */
#ifndef GATUN_UNROLL_H
#define GATUN_UNROLL_H

#define GATUN_INLINE       static inline __attribute__((always_inline))
#define GATUN_PRAGMA(text) _Pragma(#text)
#if defined(GATUN_ROLLED) /* sanitizers look at each instruction: fewer of them */
#define GATUN_UNROLL
#define GATUN_UNROLL_BY(n)
#elif defined(__clang__)
#define GATUN_UNROLL       GATUN_PRAGMA(clang loop unroll(full))
#define GATUN_UNROLL_BY(n) GATUN_PRAGMA(clang loop unroll_count(n))
#else
#define GATUN_UNROLL       GATUN_PRAGMA(GCC unroll 64)
#define GATUN_UNROLL_BY(n) GATUN_PRAGMA(GCC unroll n)
#endif

#endif
