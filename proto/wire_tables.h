/*
 * wire_tables.h - the messages of proto/cloister.proto as tables for convert.h: where each field
 * lies and what it may hold.
 */
#ifndef CLOISTER_PROTO_WIRE_TABLES_H
#define CLOISTER_PROTO_WIRE_TABLES_H

#include "proto/convert.h"

extern const struct convert_message wire_request_table;
extern const struct convert_message wire_reply_table;
extern const struct convert_message wire_job_table;
extern const struct convert_message wire_sampling_table;
extern const struct convert_message wire_token_logprobs_table;

/* What no single field can say (wire_checks.c). */
convert_check_fn wire_hello_check;
convert_check_fn wire_model_offer_check;
convert_check_fn wire_model_status_check;
convert_check_fn wire_gang_place_check;
convert_check_fn wire_hello_reply_check;
convert_check_fn wire_logit_bias_check;
convert_check_fn wire_sampling_check;
convert_check_fn wire_job_check;
convert_check_fn wire_pull_reply_check;
convert_check_fn wire_lease_progress_check;
convert_check_fn wire_watch_reply_check;
convert_check_fn wire_list_jobs_check;
convert_check_fn wire_usage_check;

#endif
