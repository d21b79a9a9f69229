/*
 * record_tables.h - the messages of proto/record.proto as tables for convert.h.
 */
#ifndef CLOISTER_PROTO_RECORD_TABLES_H
#define CLOISTER_PROTO_RECORD_TABLES_H

#include "proto/convert.h"

extern const struct convert_message record_job_table;
extern const struct convert_message record_chunk_table;
extern const struct convert_message record_usage_table;
extern const struct convert_message record_balance_table;
extern const struct convert_message record_learned_table;
extern const struct convert_message record_ledger_table;

#endif
