/*
 * gguf.h - a GGUF file (v2 or v3, little endian) as a table of checked views into memory, and a
 * way to read the tensors' bytes.
 *
 * The bytes are not trusted: every length, offset, count, type and string is checked against the
 * size of what was given before it is used, and again against each other (a tensor's bytes must
 * lie in the data section, not overlap another tensor, and match shape x type). What is refused
 * is refused with the byte offset, the key or tensor, and the reason: ERR_CORRUPT where the
 * structure is broken, ERR_UNSUPPORTED for versions, tensor types and nested arrays this build
 * cannot read, ERR_TOO_LARGE over a bound.
 *
 * A model may be split into files NAME-00001-of-0000N.gguf. The first has the keys; whichever is
 * opened, all are, and their tensors are one table.
 *
 * Source of the format: the GGUF specification (ggml project, docs/gguf.md); of split files:
 * llama.cpp, tools/gguf-split.
 *
 * Ownership: a `struct gguf` borrows the memory it was opened over, or owns the private copy of the
 * headers that gguf_open_file made; views die with gguf_close. Thread: read-only after open, any
 * thread; gguf_tensor_read too.
 */
#ifndef CLOISTER_WORKER_MODEL_GGUF_H
#define CLOISTER_WORKER_MODEL_GGUF_H

#include "common/err.h"
#include "worker/kernels/quant_type.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gguf_value_type {
    GGUF_VALUE_U8 = 0,
    GGUF_VALUE_I8 = 1,
    GGUF_VALUE_U16 = 2,
    GGUF_VALUE_I16 = 3,
    GGUF_VALUE_U32 = 4,
    GGUF_VALUE_I32 = 5,
    GGUF_VALUE_F32 = 6,
    GGUF_VALUE_BOOL = 7,
    GGUF_VALUE_STRING = 8,
    GGUF_VALUE_ARRAY = 9,
    GGUF_VALUE_U64 = 10,
    GGUF_VALUE_I64 = 11,
    GGUF_VALUE_F64 = 12,
};

struct gguf_string {
    const char *bytes; /* not NUL-terminated; may hold any byte */
    size_t size;
};

#define GGUF_DIMS_MAX 4

/* Bounds on what a file may ask for; each is far above any real model's. */
#define GGUF_KEYS_MAX       65536u
#define GGUF_TENSORS_MAX    65536u
#define GGUF_KEY_BYTES_MAX  65535u /* the specification's own bound */
#define GGUF_NAME_BYTES_MAX 64u    /* tensor names; the specification's own bound */
#define GGUF_ALIGNMENT_MAX  65536u
#define GGUF_HEADER_MAX     (1u << 30) /* bytes before the data section of a file on disk */
#define GGUF_FILES_MAX      512u /* of a split model; each is kept open while tensors are read */

struct gguf_tensor {
    struct gguf_string name;
    enum quant_type type;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* dims[0] runs fastest (the row length, K); unused ones are 1 */
    uint32_t file;                /* of a split model: which, from 0; 0 otherwise */
    uint64_t offset;              /* from the start of that file */
    uint64_t size;                /* bytes */
    const uint8_t *data;          /* of gguf_open_memory; NULL for files: gguf_tensor_read */
};

struct gguf;

/* Maps nothing and trusts nothing: reads what stands before the data section into private memory
 * (so that truncating the file later cannot raise SIGBUS), and checks the tensor table against the
 * file's size. With `header_only` the file is closed again; otherwise it stays open for
 * gguf_tensor_read. */
enum err gguf_open_file(struct gguf **ret_gguf, const char *path, bool header_only,
                        struct errbuf *eb);
/* Borrows `bytes` until gguf_close. Tensor data is as aligned as `bytes` is, up to the file's own
 * alignment. */
enum err gguf_open_memory(struct gguf **ret_gguf, const void *bytes, size_t size,
                          struct errbuf *eb);
void gguf_close(struct gguf *g);

/* Bytes at .. at + size - 1 of a tensor (in range: the caller's duty), from memory or from its
 * file, which was not opened header-only. ERR_CORRUPT where the file has become shorter, ERR_IO. */
enum err gguf_tensor_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t at, void *to,
                          size_t size, struct errbuf *eb);
/* The tensors can be read: of memory, and of files that are open still. */
bool gguf_is_readable(const struct gguf *g);
/* ERR_CORRUPT where a file was written to since it was opened: what was read from it may be half of
 * the one and half of the other. Of files that are open still. */
enum err gguf_check_unchanged(const struct gguf *g, struct errbuf *eb);

/* Names the files as they were when they were opened, by device, inode, size and times of change:
 * the same again means that nobody wrote to them or put others in their place. Memory has none: all
 * zero. */
#define GGUF_IDENTITY_BYTES 32
void gguf_identity(const struct gguf *g, uint8_t ret_identity[GGUF_IDENTITY_BYTES]);

/* The files of the model that `path` is of: all its parts in order, or only itself, which need be
 * no GGUF file. ERR_INVALID, ERR_CORRUPT for a part with a name or keys that cannot be.
 * Ownership: gguf_files_fini frees; a zeroed one is empty. */
struct gguf_files {
    char **paths;
    uint32_t count;
};
enum err gguf_files_find(struct gguf_files *ret_files, const char *path, struct errbuf *eb);
void gguf_files_fini(struct gguf_files *files);

uint32_t gguf_version(const struct gguf *g);
uint32_t gguf_file_count(const struct gguf *g);
uint64_t gguf_file_size(const struct gguf *g); /* of all files together */
uint64_t gguf_data_offset(const struct gguf *g);

size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t index);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name); /* or NULL */

size_t gguf_key_count(const struct gguf *g);
struct gguf_string gguf_key_at(const struct gguf *g, size_t index, enum gguf_value_type *ret_type,
                               enum gguf_value_type *ret_element_type, uint64_t *ret_count);
bool gguf_has(const struct gguf *g, const char *key);

/* ERR_NOT_FOUND where the key is missing, ERR_INVALID (with key and both types) where it has
 * another type or does not fit. Integer getters accept every integer type that holds the value,
 * float getters F32 and F64. */
enum err gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct errbuf *eb);
enum err gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct errbuf *eb);
enum err gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct errbuf *eb);
enum err gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *ret,
                         struct errbuf *eb);
/* Arrays: the element count, then elements by index (index < count is the caller's duty). An
 * integer `element_type` accepts an array of any integer type, a float one of either float type. */
enum err gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type element_type,
                        uint64_t *ret_count, struct errbuf *eb);
struct gguf_string gguf_array_string(const struct gguf *g, const char *key, uint64_t index);
int64_t gguf_array_int(const struct gguf *g, const char *key, uint64_t index);
bool gguf_array_bool(const struct gguf *g, const char *key, uint64_t index);
double gguf_array_float(const struct gguf *g, const char *key, uint64_t index);

const char *gguf_value_type_name(enum gguf_value_type type); /* "u32", "string"; "?" outside */
bool gguf_string_equal(struct gguf_string s, const char *text);
/* For messages: at most `size` - 1 bytes (`size` is 8 or more), all but printable ASCII as \xNN,
 * "..." where cut. */
void gguf_string_print(struct gguf_string s, char *ret_text, size_t size);

#endif
