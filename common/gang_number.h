/*
 * gang_number.h - a gang's number as people read it: which start of the coordinator, and which gang
 * since then, "3.17". Thread: any (pure).
 *
 *     printf("gang " GANG_NUMBER, GANG_NUMBER_ARGS(number));
 */
#ifndef CLOISTER_COMMON_GANG_NUMBER_H
#define CLOISTER_COMMON_GANG_NUMBER_H

#include <inttypes.h>

#define GANG_NUMBER_BITS         32u /* below those of the start */
#define GANG_NUMBER              "%" PRIu32 ".%" PRIu32
#define GANG_NUMBER_ARGS(number) (uint32_t)((number) >> GANG_NUMBER_BITS), (uint32_t)(number)

#endif
