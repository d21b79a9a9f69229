/*
 * runtime_weights.h - a model's tensors, or a rank's share of them, from its file to a backend.
 *
 * Matrices are read together, in pieces, so that no thread waits for another at the end of each and
 * no matrix is in memory twice. Of a share, only the bytes are read that belong to it. Every scale
 * and element is looked at on its way: what is no finite number is refused by tensor, row and byte.
 *
 * Thread: the runtime's owner; the backend's threads read.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_WEIGHTS_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_WEIGHTS_H

#include "worker/engine/runtime.h"

/* Fills r->whole, r->layers and r->head. ERR_CANCELLED soon after *stop (NULL: never) is true;
 * ERR_CORRUPT where the file was cut short or written to meanwhile; ERR_INVALID; ERR_NO_MEMORY.
 * What was loaded before an error is the runtime's to free. */
enum err runtime_weights_load(struct runtime *r, const struct gguf *g,
                              const struct runtime_shape *shape, const atomic_bool *stop,
                              struct errbuf *eb);

/* A vector's values as a whole in host memory, checked; the caller frees them. */
enum err runtime_vector_read(const struct gguf *g, enum model_part part,
                             const struct gguf_tensor *t, float **ret_host, struct errbuf *eb);

#endif
