/*
 * samples.h - the messages of golden/messages.txt as C structs, each field with a value of its own.
 */
#ifndef CLOISTER_TESTS_UNIT_PROTO_SAMPLES_H
#define CLOISTER_TESTS_UNIT_PROTO_SAMPLES_H

#include "common/buf.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <stddef.h>

struct sample_request {
    const char *name; /* of the file golden/<name>.hex */
    struct wire_request request;
};

struct sample_reply {
    const char *name;
    struct wire_reply reply;
};

extern const struct sample_request sample_requests[];
extern const size_t n_sample_requests;
extern const struct sample_reply sample_replies[];
extern const size_t n_sample_replies;

extern const struct record_job sample_record_job;
extern const struct record_chunk sample_record_chunk;
extern const struct record_usage sample_record_usage;
extern const struct record_balance sample_record_balance;
extern const struct record_learned sample_record_learned;
extern const struct record_ledger sample_record_ledger;

/* Reads golden/<name>.hex (the working directory is the repository's root). */
void golden_read(const char *name, struct buf *ret_bytes);

#endif
