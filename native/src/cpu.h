/* cpu.h: which instruction set the twins of a routine may use.
 *
 * The answer is found once and kept in one atomic word, the only global of this library: whoever
 * races to fill it writes the same value. dovecote_cpu_override changes it for tests. */
#ifndef DC_CPU_H
#define DC_CPU_H

#include "dovecote.h"

#if defined(__x86_64__)
#define DC_X86 1
#elif defined(__aarch64__)
#define DC_ARM 1
#endif

/* Ordered: a processor of a level also has the levels of its own architecture below it. */
typedef enum { DC_PORTABLE = 0, DC_NEON = 1, DC_AVX2 = 2, DC_AVX512 = 3 } dc_cpu_level;

/* AVX2 stands for AVX2, F16C, FMA and SSE4.2; AVX512 for F, BW, DQ and VL on top of these. */
dc_cpu_level dc_cpu_level_in_use(void);

/* Whether the processor has carry-less multiplication on 512-bit registers (VPCLMULQDQ), or on
 * arm64 the CRC instructions. Never true while "portable" is forced. */
int dc_cpu_has_wide_clmul(void);
int dc_cpu_has_arm_crc(void);

#endif
