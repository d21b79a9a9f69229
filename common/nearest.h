/* nearest.h - what somebody may have meant: the edit distance of names. Thread: any. */
#ifndef CLOISTER_COMMON_NEAREST_H
#define CLOISTER_COMMON_NEAREST_H

#include <stddef.h>

#define NEAREST_FAR 64u /* the distance of names that are too long to compare */

/* Optimal string alignment: insertions, deletions, changes and swapped neighbours count 1 each. */
size_t nearest_distance(const char *a, const char *b);

#endif
