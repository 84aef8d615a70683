/* cpu.c: detection of the instruction set, once.
 *
 * state (atomic) = KNOWN | feature bits | level. Zero means not looked at yet. Detection has no
 * side effects, so a race costs a second detection and nothing else. Any thread. */
#include "cpu.h"

#include <stdatomic.h>
#include <string.h>

#if defined(DC_X86)
#include <cpuid.h>
#elif defined(DC_ARM) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(DC_ARM) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define LEVEL_MASK 0xffu
#define HAS_WIDE_CLMUL 0x100u
#define HAS_ARM_CRC 0x200u
#define KNOWN 0x8000u

static atomic_uint state;

#if defined(DC_X86)

/* gcc and clang agree on the names of these features, but not on "f16c". */
static int has_f16c(void) {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29)) != 0;
}

static unsigned detect(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul") || !has_f16c()) {
        return KNOWN | DC_PORTABLE;
    }
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
        return KNOWN | DC_AVX2;
    }
    unsigned clmul = __builtin_cpu_supports("vpclmulqdq") ? HAS_WIDE_CLMUL : 0;
    return KNOWN | DC_AVX512 | clmul;
}

#elif defined(DC_ARM)

static int has_crc(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1ul << 7)) != 0; /* HWCAP_CRC32 */
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof(value);
    return sysctlbyname("hw.optional.armv8_crc32", &value, &size, NULL, 0) == 0 && value != 0;
#else
    return 0;
#endif
}

static unsigned detect(void) {
    return KNOWN | DC_NEON | (has_crc() ? HAS_ARM_CRC : 0);
}

#else

static unsigned detect(void) {
    return KNOWN | DC_PORTABLE;
}

#endif

static unsigned current(void) {
    unsigned seen = atomic_load_explicit(&state, memory_order_relaxed);
    if (seen != 0) {
        return seen;
    }
    seen = detect();
    atomic_store_explicit(&state, seen, memory_order_relaxed);
    return seen;
}

dc_cpu_level dc_cpu_level_in_use(void) {
    return (dc_cpu_level)(current() & LEVEL_MASK);
}

int dc_cpu_has_wide_clmul(void) {
    return (current() & HAS_WIDE_CLMUL) != 0;
}

int dc_cpu_has_arm_crc(void) {
    return (current() & HAS_ARM_CRC) != 0;
}

static const char *const level_names[] = {"portable", "neon", "avx2", "avx512"};

const char *dovecote_cpu_name(void) {
    return level_names[dc_cpu_level_in_use()];
}

/* Whether this processor, of the detected level `best`, can run `level`. */
static int can_run(unsigned level, unsigned best) {
    if (level == DC_PORTABLE) {
        return 1;
    }
    return (level == DC_NEON) == (best == DC_NEON) && level <= best;
}

/* The features that go with a forced level: none of a higher one. */
static unsigned word_for(unsigned level, unsigned detected) {
    if (level == (detected & LEVEL_MASK)) {
        return detected;
    }
    return KNOWN | level;
}

int dovecote_cpu_override(const char *name) {
    unsigned detected = detect();
    if (name == NULL || strcmp(name, "best") == 0) {
        atomic_store(&state, detected);
        return DOVECOTE_OK;
    }
    for (unsigned level = DC_PORTABLE; level <= DC_AVX512; level++) {
        if (strcmp(name, level_names[level]) == 0 && can_run(level, detected & LEVEL_MASK)) {
            atomic_store(&state, word_for(level, detected));
            return DOVECOTE_OK;
        }
    }
    return DOVECOTE_ERR_ARGUMENT;
}
