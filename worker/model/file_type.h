/*
 * file_type.h - how a model's weights are quantized, in one word for people.
 *
 * What the file itself says (`general.file_type`) is how it was made and what it is known by: a
 * Q4_K_M of a small model may hold more bytes of Q8_0 than of Q4_K. Where it says nothing, or a
 * number that is not in the table, it is the type that holds most of the bytes. Nothing is decided
 * by it.
 *
 * Thread: any.
 */
#ifndef CLOISTER_WORKER_MODEL_FILE_TYPE_H
#define CLOISTER_WORKER_MODEL_FILE_TYPE_H

#include "worker/model/gguf.h"

/* "Q4_K_M", "Q8_0"; "unknown" where no type has a name. Never the file's own bytes; at most 11. */
const char *model_file_type_name(const struct gguf *g);

#endif
