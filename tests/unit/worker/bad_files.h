/*
 * bad_files.h - files that must be refused: each is a tiny file that loads, with one thing changed.
 *
 * A row of the table names the change, the file's fate and what the message must say: the place
 * (byte, key, tensor, element) and the reason. bad_file_build makes the file.
 *
 * Ownership: constants; the caller frees what bad_file_build made. Thread: any.
 */
#ifndef CLOISTER_TESTS_UNIT_WORKER_BAD_FILES_H
#define CLOISTER_TESTS_UNIT_WORKER_BAD_FILES_H

#include "common/buf.h"
#include "common/err.h"
#include "worker/kernels/quant_type.h"

#include <stddef.h>
#include <stdint.h>

enum bad_part {
    BAD_PART_HEADER,
    BAD_PART_KEYS,
    BAD_PART_TENSORS,
    BAD_PART_DATA,
    BAD_PART_TOKENIZER,
    BAD_PART_COUNT,
};

enum bad_change {
    BAD_CHANGE_NONE,
    /* Bytes of the finished file, `size` of `bits` at `at`, counted from: */
    BAD_CHANGE_FILE,   /* its beginning */
    BAD_CHANGE_SIZE,   /* where the length of the name of `name` stands, a key or tensor */
    BAD_CHANGE_BEHIND, /* the end of that name: of a key its type, of a tensor its dimensions */
    BAD_CHANGE_DATA,   /* the data of the tensor `name` */
    /* The file ends there. */
    BAD_CHANGE_CUT_FILE,
    BAD_CHANGE_CUT_BEHIND,
    BAD_CHANGE_CUT_DATA,
    /* A key or tensor in the place of that of this name. */
    BAD_CHANGE_DROP, /* none */
    BAD_CHANGE_U32,
    BAD_CHANGE_I32,
    BAD_CHANGE_F32,
    BAD_CHANGE_BOOL,
    BAD_CHANGE_STRING,
    BAD_CHANGE_STRINGS,
    BAD_CHANGE_I32S,
    BAD_CHANGE_F32S,
    BAD_CHANGE_TENSOR,
    BAD_CHANGE_TWICE_KEY, /* beside the one that is there */
    BAD_CHANGE_TWICE_TENSOR,
};

enum bad_when {
    BAD_WHEN_HEADER,  /* whoever looks at the file without loading it is told */
    BAD_WHEN_LOADING, /* only who loads it can find out */
};

struct bad_file {
    enum bad_part part;
    const char *what;
    enum err code;
    const char *says; /* part of the message */

    enum bad_change change;
    const char *name;
    uint64_t at, bits;
    uint32_t size;
    double number;
    const char *text;
    const char *const *texts;
    const int32_t *ids;
    const float *floats;
    size_t count; /* of texts, ids or floats */
    uint64_t dims[2];
    uint32_t type; /* of the tensor put */

    enum bad_when when;
    enum quant_type matrices; /* of the file */
    bool spm;                 /* a SentencePiece vocabulary instead of byte-level BPE */
};

extern const struct bad_file bad_files[];
extern const size_t bad_file_count;

/* The file, initialised here. Where `bad` has BAD_CHANGE_NONE, it is one that loads. */
void bad_file_build(const struct bad_file *bad, struct buf *ret_file);

#endif
