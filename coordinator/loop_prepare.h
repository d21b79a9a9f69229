/*
 * loop_prepare.h - a frame becomes an event: decoded, and with what only cryptography or packing
 * can tell (signature of a Hello, digest of a Job). Thread: the core's.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_PREPARE_H
#define CLOISTER_COORDINATOR_LOOP_PREPARE_H

#include "common/arena.h"
#include "common/err.h"
#include "coordinator/core/core.h"

/* Decodes `bytes` into `arena` and fills ret_event's request and what goes with it; time, random
 * and tag are the caller's. On error ret_request tells whom to answer, as wire_request_decode. */
enum err prepare_request(const struct core *core, const void *bytes, size_t size,
                         struct arena *arena, struct wire_request *ret_request,
                         struct core_event *ret_event, struct errbuf *eb);

#endif
