/*
 * date.h - the calendar, as a pure function: no clock is read here. Thread: any.
 */
#ifndef CLOISTER_COMMON_DATE_H
#define CLOISTER_COMMON_DATE_H

#include <stdint.h>

/* yyyymmdd in UTC of a moment in nanoseconds since 1970-01-01T00:00:00Z. */
uint32_t date_of_wall(uint64_t wall_ns);

#endif
