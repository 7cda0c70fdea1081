/* The peak of the AMX multiplier, and whether this process may use it. */
#ifndef GATUN_PROBE_PEAK_AMX_H
#define GATUN_PROBE_PEAK_AMX_H

#include <stdint.h>

int32_t has_amx(void);
/* Runs tdpbssd or tdpbf16ps on full tiles as often as the other loops do a step; PEAK_AMX_STEP operations of bytes,
 * half of them of bfloat16, a step. */
enum { PEAK_AMX_STEP = 2 * 16 * 16 * 64 / 16 };
void i8_amx(void);
void bf16_amx(void);

#endif
