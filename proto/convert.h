/*
 * convert.h - from protobuf-c's structs to ours and back, driven by tables.
 *
 * A message is a table of fields: where each lies in protobuf-c's struct and in ours, and what it
 * may hold. One validation runs on our struct before encoding and after decoding, so that both
 * sides refuse the same things. The tables are in wire_tables*.c and record_tables.c; this file
 * knows protobuf-c, but no generated code.
 *
 * Absence: proto3 hides it, so an optional message whose fields are all default is left out when
 * packing, and a message that is left out reads as all default.
 *
 * Thread: any.
 */
#ifndef CLOISTER_PROTO_CONVERT_H
#define CLOISTER_PROTO_CONVERT_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum convert_kind {
    CONVERT_U32 = 1,    /* uint32_t both sides */
    CONVERT_U64,        /* uint64_t both sides */
    CONVERT_BOOL,       /* protobuf_c_boolean; bool */
    CONVERT_FLOAT,      /* float both sides; finite */
    CONVERT_ENUM,       /* int-sized both sides; 0 .. max */
    CONVERT_CONSTANT,   /* uint32_t in protobuf-c's struct only, always `max` */
    CONVERT_STRING,     /* char *; const char * */
    CONVERT_BYTES,      /* ProtobufCBinaryData; pointer at `ours`, size_t at `ours_count` */
    CONVERT_FIXED,      /* ProtobufCBinaryData; `max` bytes in place; all zero stands for empty */
    CONVERT_MESSAGE,    /* pointer; struct in place */
    CONVERT_MESSAGES,   /* array of pointers; array of structs */
    CONVERT_STRINGS,    /* array of char * both sides */
    CONVERT_BYTES_LIST, /* array of ProtobufCBinaryData; array of struct wire_bytes */
    CONVERT_IDS,        /* array of int32_t both sides; none negative */
};

enum convert_flag {
    CONVERT_REQUIRED = 1,      /* not zero, not empty, not left out */
    CONVERT_REQUIRED_EACH = 2, /* list: no empty element */
    CONVERT_NAME = 4,          /* string: neither begins nor ends with a space */
    CONVERT_LINES = 8,         /* string: line feeds are allowed */
    /* String for people: encoding replaces what is not plain and cuts what is too long, because an
     * explanation must arrive; decoding refuses both. */
    CONVERT_PROSE = 16,
};

struct convert_message;

struct convert_field {
    const char *name; /* as in the .proto file */
    const struct convert_message *message;
    const char *bound; /* what `max` is called, for errors */
    uint64_t max;      /* value; bytes of a string; elements of a list */
    uint64_t max_each; /* bytes of one element of a list of strings or bytes */
    uint8_t kind;      /* enum convert_kind */
    uint8_t flags;     /* enum convert_flag */
    /* Offsets in the structs; the counts of lists and the size of bytes lie elsewhere. */
    uint16_t packed, packed_count, ours, ours_count;
};

/* One of several messages, told apart by an int: protobuf-c's case is the field's number, and so
 * is ours. All cases of protobuf-c's union are pointers, all of ours begin at one offset. */
struct convert_case {
    int value;
    const char *name;
    const struct convert_message *message;
};

struct convert_choice {
    const char *name; /* as in the .proto file */
    const struct convert_case *cases;
    size_t n_cases;
    uint16_t packed_case, packed_union, ours_case, ours_union;
};

/* Where an error is: a chain of names up to the whole message. */
struct convert_place {
    const struct convert_place *outer;
    const char *name;
    size_t index;      /* in a list, or CONVERT_NO_INDEX */
    bool sending;      /* encoding */
    struct errbuf *eb; /* may be NULL */
};
#define CONVERT_NO_INDEX SIZE_MAX

/* What no single field can say. `ours` is the struct; its fields are valid already. */
typedef enum err convert_check_fn(const void *ours, const struct convert_place *place);

struct convert_message {
    const ProtobufCMessageDescriptor *descriptor;
    const struct convert_field *fields;
    size_t n_fields;
    const struct convert_choice *choice; /* or NULL */
    convert_check_fn *check;             /* or NULL */
    size_t size;                         /* of our struct */
};

/* Returns `code` with "<path>.<field>: <text>"; `field` may be NULL. */
enum err convert_refuse(const struct convert_place *place, enum err code, const char *field,
                        const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Appends the packed message to `out`, untouched on error. `name` begins every path and may be
 * empty; `cap` is called `cap_name`. */
enum err convert_encode(const struct convert_message *message, const char *name, const void *ours,
                        size_t cap, const char *cap_name, struct buf *out, struct errbuf *eb);
/* Fills `ret_ours` (message->size bytes), untouched on error. Pointers in it lie in `arena`. */
enum err convert_decode(const struct convert_message *message, const char *name, const void *bytes,
                        size_t size, struct arena *arena, void *ret_ours, struct errbuf *eb);

#endif
