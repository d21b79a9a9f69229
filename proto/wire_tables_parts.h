/*
 * wire_tables_parts.h - what the tables of requests (wire_tables_request.c) and of replies
 * (wire_tables_reply.c) share: messages that both are made of (wire_tables.c), and short names for
 * the rows.
 */
#ifndef CLOISTER_PROTO_WIRE_TABLES_PARTS_H
#define CLOISTER_PROTO_WIRE_TABLES_PARTS_H

#include "proto/wire_tables.h"

#define P(message) Cloister__##message
#define W(message) struct wire_##message
#define MUST       CONVERT_REQUIRED
#define MUST_EACH  CONVERT_REQUIRED_EACH
#define COUNT(a)   (sizeof(a) / sizeof((a)[0]))
#define TABLE(m)                                                                                   \
    .descriptor = &cloister__##m##__descriptor, .fields = m##_fields,                              \
    .n_fields = COUNT(m##_fields), .size = sizeof(struct wire_##m)

extern const struct convert_message wire_model_offer_table;
extern const struct convert_message wire_memory_table;
extern const struct convert_message wire_gpu_table;
extern const struct convert_message wire_model_status_table;
extern const struct convert_message wire_work_usage_table;
extern const struct convert_message wire_error_table;

#endif
