/* The instruction set in use: detected once, forced by name, refused where it is missing. */
#include <string.h>

#include "cpu.h"
#include "harness.h"

static void the_best_level_has_a_name(void) {
    CHECK(dovecote_cpu_override("best") == DOVECOTE_OK);
    const char *name = dovecote_cpu_name();
    CHECK(strcmp(name, "portable") == 0 || strcmp(name, "avx2") == 0 ||
          strcmp(name, "avx512") == 0 || strcmp(name, "neon") == 0);
}

static void portable_can_always_be_forced_and_undone(void) {
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
    const char *best = dovecote_cpu_name();
    CHECK(dovecote_cpu_override("portable") == DOVECOTE_OK);
    CHECK(strcmp(dovecote_cpu_name(), "portable") == 0);
    CHECK(dc_cpu_level_in_use() == DC_PORTABLE);
    CHECK(!dc_cpu_has_wide_clmul() && !dc_cpu_has_arm_crc());
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
    CHECK(strcmp(dovecote_cpu_name(), best) == 0);
}

static void what_is_unknown_or_missing_changes_nothing(void) {
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
    const char *best = dovecote_cpu_name();
    CHECK(dovecote_cpu_override("sse9") == DOVECOTE_ERR_ARGUMENT);
    CHECK(dovecote_cpu_override("") == DOVECOTE_ERR_ARGUMENT);
    CHECK(strcmp(dovecote_cpu_name(), best) == 0);
    const char *foreign = strcmp(best, "neon") == 0 ? "avx2" : "neon";
    CHECK(dovecote_cpu_override(foreign) == DOVECOTE_ERR_ARGUMENT);
    CHECK(strcmp(dovecote_cpu_name(), best) == 0);
}

static void a_level_implies_the_one_below(void) {
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
    if (strcmp(dovecote_cpu_name(), "avx512") == 0) {
        CHECK(dovecote_cpu_override("avx2") == DOVECOTE_OK);
        CHECK(strcmp(dovecote_cpu_name(), "avx2") == 0);
        CHECK(!dc_cpu_has_wide_clmul());
    }
    CHECK(dovecote_cpu_override(NULL) == DOVECOTE_OK);
}

int main(void) {
    RUN(the_best_level_has_a_name);
    RUN(portable_can_always_be_forced_and_undone);
    RUN(what_is_unknown_or_missing_changes_nothing);
    RUN(a_level_implies_the_one_below);
    return SUMMARY();
}
