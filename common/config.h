/*
 * config.h - configuration files in libconfig's syntax, read through a table of keys.
 *
 * A program describes its keys once, in a table of `struct config_key` that ends with an all-zero
 * entry. The reader fills the program's struct from it, the example file is printed from it, and
 * nothing that the table does not name is accepted. Each error is one line that begins with
 * FILE:LINE: an unknown key (with the nearest valid one), a wrong type, a value out of range (with
 * the range), a duplicate, a missing required key.
 *
 * Deliberately not supported: libconfig's @include (a file is one file), octal or hexadecimal
 * strings, NUL. Bounds: CONFIG_FILE_BYTES, CONFIG_DEPTH.
 *
 *     struct demo { const char *url; uint64_t wait_ms; struct config_list models; };
 *     static const struct config_key model_keys[] = {
 *         {.name = "name", .type = CONFIG_STRING, .offset = offsetof(struct model, name),
 *          .required = true, .example = "smollm2", .help = "What jobs call it."},
 *         {0}};
 *     static const struct config_key keys[] = {
 *         {.name = "url", .type = CONFIG_STRING, .offset = offsetof(struct demo, url),
 *          .fallback = "tcp://127.0.0.1:7420", .check = config_check_url, .help = "..."},
 *         {.name = "wait", .type = CONFIG_DURATION, .offset = offsetof(struct demo, wait_ms),
 *          .fallback = "30s", .min = 1000, .max = 3600000, .help = "..."},
 *         {.name = "models", .type = CONFIG_GROUPS, .offset = offsetof(struct demo, models),
 *          .keys = model_keys, .element_bytes = sizeof(struct model), .unique = "name",
 *          .max = 64, .help = "..."},
 *         {0}};
 *
 * Ownership: strings and lists in the filled struct belong to the `struct config`; config_free
 * ends them. Thread: any, each object one owner.
 */
#ifndef CLOISTER_COMMON_CONFIG_H
#define CLOISTER_COMMON_CONFIG_H

#include "common/buf.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_BYTES   (1u << 20)
#define CONFIG_DEPTH        16u
#define CONFIG_STRING_BYTES 4096u /* where a key sets no .max */

enum config_type {
    CONFIG_NONE = 0, /* ends a table */
    CONFIG_STRING,   /* const char *; .min and .max are bytes; without a default: NULL */
    CONFIG_INT,      /* int64_t; .min .. .max */
    CONFIG_BOOL,     /* bool; default "true" or "false" */
    CONFIG_FLOAT,    /* double; .float_min .. .float_max */
    CONFIG_DURATION, /* uint64_t milliseconds; "30s" in the file; .min and .max in ms */
    CONFIG_SIZE,     /* uint64_t bytes; "8GiB" in the file; .min and .max in bytes */
    CONFIG_ENUM,     /* int, the index of the name in .names */
    CONFIG_STRINGS,  /* struct config_list of const char *; .min and .max are counts */
    CONFIG_GROUP,    /* the struct itself, with .keys relative to it; { ... } in the file */
    CONFIG_GROUPS,   /* struct config_list of .element_bytes each; ( {...}, ... ) in the file */
};

struct config_list {
    const void *items; /* NULL where empty */
    size_t count;
};

/* Looks at a value the reader has accepted by type and range; ERR_INVALID with the reason alone
 * (the reader puts place and key before it). `value` points to the stored field. */
typedef enum err config_check_fn(const void *value, struct errbuf *eb);

struct config_key {
    const char *name; /* within its group */
    enum config_type type;
    size_t offset;        /* of the field in the struct of its group */
    const char *help;     /* sentences; wrapped into the example file's comment */
    const char *fallback; /* default, written as in the file but without quotes; NULL: none */
    const char *example;  /* shown where there is no default */
    bool required;        /* inside a group: where that group is there */
    /* Bounds, inclusive; both 0: only the type's own. */
    int64_t min, max;
    double float_min, float_max;
    const char *const *names;      /* CONFIG_ENUM: ends with NULL */
    const struct config_key *keys; /* CONFIG_GROUP, CONFIG_GROUPS */
    size_t element_bytes;          /* CONFIG_GROUPS */
    const char *unique; /* CONFIG_GROUPS: string key that may not repeat among the elements */
    config_check_fn *check;
};

struct config;

/* Fills ret_values (struct_bytes of it; zeroed first, then defaults, then the text). Outputs are
 * untouched on error. `name` stands for the file in messages. ERR_INVALID, ERR_TOO_LARGE,
 * ERR_NO_MEMORY. */
enum err config_load_memory(struct config **ret_config, const struct config_key *keys,
                            void *ret_values, size_t struct_bytes, const char *text, size_t size,
                            const char *name, struct errbuf *eb);
/* As above from a file; also ERR_NOT_FOUND (no such file) and ERR_IO. */
enum err config_load_file(struct config **ret_config, const struct config_key *keys,
                          void *ret_values, size_t struct_bytes, const char *path,
                          struct errbuf *eb);
void config_free(struct config *c);

/* For rules between keys, after reading: ERR_INVALID with FILE:LINE of `path` before the text.
 * Paths are libconfig's: "tls.ca_file", "models.[2].path". A path that is not in the file gives
 * the file alone. */
enum err config_fail(const struct config *c, struct errbuf *eb, const char *path, const char *fmt,
                     ...) __attribute__((format(printf, 4, 5)));

/* A file with every key, its help, type, range and default: the ones with a default or `required`
 * are set, the others (and optional groups with required keys) are comments. It reads back through
 * the same table. */
void config_describe(const struct config_key *keys, const char *title, struct buf *out);

/* Checks that many keys share. */
enum err config_check_absolute_path(const void *value, struct errbuf *eb);
/* tcp://HOST:PORT or tls+tcp://HOST:PORT, port 0 allowed only for config_check_listen_url. */
enum err config_check_url(const void *value, struct errbuf *eb);
enum err config_check_listen_url(const void *value, struct errbuf *eb);
/* 1 .. LIMIT_NAME_BYTES of letters, digits and "-_.:@/+": names of nodes, models, tenants. */
enum err config_check_name(const void *value, struct errbuf *eb);
/* An Ed25519 public key: 64 hex digits. */
enum err config_check_key_hex(const void *value, struct errbuf *eb);

#endif
