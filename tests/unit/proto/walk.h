/*
 * walk.h - structs compared, and made at random, over the tables of proto/convert.h: every field of
 * every message, so that a test need not name them.
 */
#ifndef CLOISTER_TESTS_UNIT_PROTO_WALK_H
#define CLOISTER_TESTS_UNIT_PROTO_WALK_H

#include "common/arena.h"
#include "proto/convert.h"

#include <stdbool.h>
#include <stdint.h>

/* A name of the first field that differs, or NULL. NULL strings equal empty ones. */
const char *walk_difference(const struct convert_message *message, const void *a, const void *b);

struct walk_random {
    uint64_t state; /* the seed */
    struct arena *arena;
};

uint64_t walk_next(struct walk_random *r);
/* Fills `ret_ours` (zeroed) with values that are valid field by field. What no single field can say
 * (a prompt that fits its kind, ...) is the caller's to put right. */
void walk_fill(struct walk_random *r, const struct convert_message *message, void *ret_ours);

/* Every field of the .proto's message has its line in the table, in order; and so below. NULL, or
 * what is missing. */
const char *walk_missing(const struct convert_message *message);

#endif
