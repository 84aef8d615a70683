/* level.c: DOVECOTE_TEST_CPU=portable makes every test program start with that instruction set
 * forced (dovecote_cpu_override); tests that go through all of them still do. */
#include <stdio.h>
#include <stdlib.h>

#include "dovecote.h"

__attribute__((constructor)) static void force_the_level_asked_for(void) {
    const char *name = getenv("DOVECOTE_TEST_CPU");
    if (!name || dovecote_cpu_override(name) == DOVECOTE_OK) return;
    (void)fprintf(stderr, "DOVECOTE_TEST_CPU=%s: this processor lacks it\n", name);
    _Exit(1);
}
