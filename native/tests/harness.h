/* harness.h: the least that a test program needs. A test is a function without arguments; CHECK
 * reports and counts a failure and goes on; the program's exit status is 1 if there was one.
 *
 *     int main(void) {
 *         RUN(a_thing_behaves);
 *         return SUMMARY();
 *     }
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdio.h>

static int harness_tests;
static int harness_failures;

#define CHECK(condition)                                                                   \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            harness_failures++;                                                            \
            (void)fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, \
                          #condition);                                                     \
        }                                                                                  \
    } while (0)

#define RUN(test)        \
    do {                 \
        harness_tests++; \
        test();          \
    } while (0)

static inline int harness_summary(const char *file) {
    (void)printf("%s: %d tests, %d failures\n", file, harness_tests, harness_failures);
    return harness_failures == 0 ? 0 : 1;
}

#define SUMMARY() harness_summary(__FILE__)

#endif
