/*
 * gguf_internal.h - what gguf_file.c reads, gguf_parse.c fills in and gguf.c hands out. Private to
 * these three.
 */
#ifndef CLOISTER_WORKER_MODEL_GGUF_INTERNAL_H
#define CLOISTER_WORKER_MODEL_GGUF_INTERNAL_H

#include "worker/model/gguf.h"

#include <sys/stat.h>

struct gguf_key {
    struct gguf_string name;
    enum gguf_value_type type;
    enum gguf_value_type element_type; /* of arrays; otherwise the same as `type` */
    uint64_t count;                    /* elements; 1 for scalars */
    const uint8_t *value;              /* the first element, or a string's length field */
    uint64_t *strings;                 /* arrays of strings: each one's offset from `value` */
};

struct gguf {
    const uint8_t *bytes;
    uint64_t available; /* bytes in memory: all, or what was read of a file's beginning */
    uint64_t file_size;
    uint8_t *owned; /* NULL where `bytes` is borrowed */
    /* Of a file; memory has no path. */
    char *path;
    int fd; /* -1: closed */
    struct stat opened;
    struct gguf **others; /* the other files of a split model, in order; their tensors are here */
    uint32_t n_others;
    uint32_t version;
    uint32_t alignment;
    uint64_t data_offset;
    struct gguf_key *keys;
    size_t n_keys;
    uint32_t *key_order; /* indices into keys, by name */
    struct gguf_tensor *tensors;
    size_t n_tensors;
    uint32_t *tensor_order; /* indices into tensors, by name */
};

/* Fills everything from `keys` on. `*ret_short` means that the header goes on past `available`
 * but not past `file_size`: read more and parse again. On any failure the caller frees with
 * gguf_parse_free. */
enum err gguf_parse(struct gguf *g, bool *ret_short, struct errbuf *eb);
void gguf_parse_free(struct gguf *g);
/* Sorts `tensor_order`; ERR_CORRUPT where a name is there twice. */
enum err gguf_parse_order(struct gguf *g, struct errbuf *eb);

/* memcmp order, shorter first where one is the other's beginning. */
int gguf_string_compare(struct gguf_string a, struct gguf_string b);
/* 0 for strings and arrays. */
size_t gguf_value_size(enum gguf_value_type type);

#endif
