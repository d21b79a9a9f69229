/*
 * vectors.h - the .jsonl files of tests/vectors, a line at a time, and the models they were made
 * with. Ownership: vectors_close frees the last line as well. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_MODEL_VECTORS_H
#define CLOISTER_TESTS_UNIT_MODEL_VECTORS_H

#include "worker/model/tokenizer.h"

#include <jansson.h>
#include <stdio.h>

struct vectors {
    FILE *file;
    char *line;
    size_t line_capacity;
    json_t *object;
    size_t line_number; /* of `object`, from 1 */
};

/* `name` is a file of tests/vectors; the tests run in the repository's root. */
void vectors_open(struct vectors *v, const char *name);
bool vectors_next(struct vectors *v); /* false at the end; a bad line fails the test */
void vectors_close(struct vectors *v);

const char *vectors_string(const struct vectors *v, const char *key, size_t *ret_size);

/* Encodes the line's "text" as plain text and compares with "ids"; says where they part. */
bool vectors_ids_equal(const struct vectors *v, const struct tokenizer *t, const char *name);

/* The path in an environment variable; ends the process with 77 ("skipped") where it is unset. */
const char *vectors_model_path(const char *variable);

/* The bytes of a file with one key's string or bool put in place of the old one, of any length:
 * the tensors are left out. The result is a vocabulary-only GGUF. */
void vectors_patch(const struct gguf *g, const char *key, const char *string, int truth,
                   struct buf *ret_file);

#endif
