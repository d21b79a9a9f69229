/*
 * clock.h - the two clocks. Durations and deadlines use the monotonic one, which begins anew with
 * the machine; the wall clock is recorded, and compared only where a restart turns recorded moments
 * into monotonic ones. Thread: any.
 */
#ifndef CLOISTER_COMMON_CLOCK_H
#define CLOISTER_COMMON_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
uint64_t clock_wall_ns(void); /* since 1970-01-01T00:00:00Z */

/* RFC 3339 in UTC with milliseconds, "2026-01-31T12:00:00.123Z". */
#define CLOCK_TEXT_BYTES 32
void clock_format(uint64_t wall_ns, char ret_text[CLOCK_TEXT_BYTES]);

#endif
