/*
 * convert_table.h - how a table of fields is written: one line a field, in the order of its number.
 *
 * P is the type of protobuf-c's struct, S that of ours; the member has the same name in both. A
 * member whose type does not fit its kind does not compile. `how` is a set of enum convert_flag.
 */
#ifndef CLOISTER_PROTO_CONVERT_TABLE_H
#define CLOISTER_PROTO_CONVERT_TABLE_H

#include "proto/convert.h"

#include <stddef.h>

/* clang-format off */

/* 0 where `member` of struct type S has type `type`; else it does not compile. */
#define CONVERT_IS(S, member, type) _Generic(((S *)0)->member, type: 0)

#define CONVERT_FIELD(P, S, field, type)                                                           \
    .name = #field, .packed = offsetof(P, field),                                                  \
    .ours = offsetof(S, field) + CONVERT_IS(S, field, type)

#define CONVERT_COUNTED(P, S, field, type)                                                         \
    CONVERT_FIELD(P, S, field, type), .packed_count = offsetof(P, n_##field),                      \
    .ours_count = offsetof(S, n_##field) + CONVERT_IS(S, n_##field, size_t)

#define FIELD_U32(P, S, field)                                                                     \
    {CONVERT_FIELD(P, S, field, uint32_t), .kind = CONVERT_U32}
#define FIELD_U32_MAX(P, S, field, limit)                                                          \
    {CONVERT_FIELD(P, S, field, uint32_t), .kind = CONVERT_U32, .max = (limit), .bound = #limit}
#define FIELD_U32_HOW(P, S, field, how)                                                            \
    {CONVERT_FIELD(P, S, field, uint32_t), .kind = CONVERT_U32, .flags = (how)}
#define FIELD_U64(P, S, field)                                                                     \
    {CONVERT_FIELD(P, S, field, uint64_t), .kind = CONVERT_U64}
#define FIELD_U64_MAX(P, S, field, limit)                                                          \
    {CONVERT_FIELD(P, S, field, uint64_t), .kind = CONVERT_U64, .max = (limit), .bound = #limit}
#define FIELD_U64_HOW(P, S, field, how)                                                            \
    {CONVERT_FIELD(P, S, field, uint64_t), .kind = CONVERT_U64, .flags = (how)}
#define FIELD_BOOL(P, S, field)                                                                    \
    {CONVERT_FIELD(P, S, field, bool), .kind = CONVERT_BOOL}
#define FIELD_FLOAT(P, S, field)                                                                   \
    {CONVERT_FIELD(P, S, field, float), .kind = CONVERT_FLOAT}

/* `last` is the enum's greatest value. A uint32_t that holds an enum fits as well. */
#define FIELD_ENUM(P, S, field, last, how)                                                         \
    {CONVERT_FIELD(P, S, field, unsigned), .kind = CONVERT_ENUM, .max = (last), .flags = (how)}

/* In protobuf-c's struct only: always `value`. */
#define FIELD_CONSTANT(P, field, value)                                                            \
    {.name = #field, .kind = CONVERT_CONSTANT, .packed = offsetof(P, field), .max = (value)}

#define FIELD_STRING(P, S, field, limit, how)                                                      \
    {CONVERT_FIELD(P, S, field, const char *), .kind = CONVERT_STRING, .max = (limit),             \
     .bound = #limit, .flags = (how)}
#define FIELD_NAME(P, S, field, how)                                                               \
    FIELD_STRING(P, S, field, LIMIT_NAME_BYTES, (how) | CONVERT_NAME)

/* A struct wire_bytes. */
#define FIELD_BYTES(P, S, field, limit, how)                                                       \
    {.name = #field, .kind = CONVERT_BYTES, .packed = offsetof(P, field),                          \
     .ours = offsetof(S, field.data) + CONVERT_IS(S, field, struct wire_bytes),                    \
     .ours_count = offsetof(S, field.size), .max = (limit), .bound = #limit, .flags = (how)}
/* A pointer, and beside it its size, called <field>_size. */
#define FIELD_BYTES_PAIR(P, S, field, limit)                                                       \
    {CONVERT_FIELD(P, S, field, const uint8_t *), .kind = CONVERT_BYTES,                           \
     .ours_count = offsetof(S, field##_size) + CONVERT_IS(S, field##_size, size_t),                \
     .max = (limit), .bound = #limit}

#define FIELD_ID(P, S, field, how)                                                                 \
    {CONVERT_FIELD(P, S, field, struct id), .kind = CONVERT_FIXED, .max = sizeof(struct id),       \
     .flags = (how)}
/* uint8_t[]: a digest, a public key or a nonce. */
#define FIELD_FIXED(P, S, field, how)                                                              \
    {CONVERT_FIELD(P, S, field, uint8_t *), .kind = CONVERT_FIXED,                                 \
     .max = sizeof(((S *)0)->field), .flags = (how)}

#define FIELD_MESSAGE(P, S, field, type, table, how)                                               \
    {CONVERT_FIELD(P, S, field, type), .kind = CONVERT_MESSAGE, .message = (table), .flags = (how)}

/* Lists: `limit` elements, of `limit_each` bytes. */
#define FIELD_MESSAGES(P, S, field, type, table, limit)                                            \
    {CONVERT_COUNTED(P, S, field, const type *), .kind = CONVERT_MESSAGES, .message = (table),     \
     .max = (limit), .bound = #limit}
#define FIELD_STRINGS(P, S, field, limit, limit_each, how)                                         \
    {CONVERT_COUNTED(P, S, field, const char *const *), .kind = CONVERT_STRINGS, .max = (limit),   \
     .bound = #limit, .max_each = (limit_each), .flags = (how)}
#define FIELD_BYTES_LIST(P, S, field, limit, limit_each, how)                                      \
    {CONVERT_COUNTED(P, S, field, const struct wire_bytes *), .kind = CONVERT_BYTES_LIST,          \
     .max = (limit), .bound = #limit, .max_each = (limit_each), .flags = (how)}
#define FIELD_IDS(P, S, field, limit)                                                              \
    {CONVERT_COUNTED(P, S, field, const int32_t *), .kind = CONVERT_IDS, .max = (limit),           \
     .bound = #limit}

/* clang-format on */

#endif
