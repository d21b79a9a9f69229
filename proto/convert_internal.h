/*
 * convert_internal.h - what convert.c and convert_valid.c share: reading a member by its offset,
 * and validation of a whole message.
 */
#ifndef CLOISTER_PROTO_CONVERT_INTERNAL_H
#define CLOISTER_PROTO_CONVERT_INTERNAL_H

#include "proto/convert.h"
#include "proto/wire.h"

#include <string.h>

static inline const void *convert_at(const void *base, size_t offset)
{
    return (const unsigned char *)base + offset;
}

static inline void *convert_at_mut(void *base, size_t offset)
{
    return (unsigned char *)base + offset;
}

/* Pointers of any type, through memcpy: their types differ, their representation does not. */
static inline const void *convert_load_pointer(const void *at)
{
    const void *p;
    memcpy(&p, at, sizeof p);
    return p;
}

static inline void convert_store_pointer(void *at, const void *p)
{
    memcpy(at, &p, sizeof p);
}

/* NULL where no case has this value. */
const struct convert_case *convert_choice_find(const struct convert_choice *choice, int value);

/* Nothing in it differs from what an absent message reads as. Not for messages with a choice. */
bool convert_is_default(const struct convert_message *message, const void *ours);

enum err convert_validate(const struct convert_message *message, const void *ours,
                          const struct convert_place *place);

#endif
