/*
 * gguf_build.h - GGUF files made in memory, good ones and bad ones, for tests.
 *
 * Keys and tensors are put one after the other; gguf_build_finish joins them. A key or tensor
 * whose name is in `skip` is left out when a builder of a whole model comes to it, so that a test
 * can put its own in its place. The fields after `skip` overrule what the header would say.
 *
 * Ownership: gguf_build_fini frees. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_MODEL_GGUF_BUILD_H
#define CLOISTER_TESTS_UNIT_MODEL_GGUF_BUILD_H

#include "common/buf.h"
#include "worker/model/gguf.h"

#define GGUF_BUILD_SKIP_MAX 12

struct gguf_build {
    struct buf keys;
    struct buf tensors;
    struct buf data;
    uint64_t n_keys;
    uint64_t n_tensors;
    uint32_t alignment; /* of the data; 32 unless changed before the first tensor */
    const char *skip[GGUF_BUILD_SKIP_MAX];
    uint32_t magic;
    uint32_t version;
    uint64_t n_keys_more; /* added to the counts in the header */
    uint64_t n_tensors_more;
};

void gguf_build_init(struct gguf_build *b);
void gguf_build_fini(struct gguf_build *b);

/* A key's name and type; the value is up to the caller. False where the name is to be skipped. */
bool gguf_build_key(struct gguf_build *b, const char *name, uint32_t type);
void gguf_build_raw_u32(struct buf *to, uint32_t value);
void gguf_build_raw_u64(struct buf *to, uint64_t value);
void gguf_build_raw_string(struct buf *to, const char *text, size_t size);

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t value);
void gguf_build_i32(struct gguf_build *b, const char *key, int32_t value);
void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t value);
void gguf_build_f32(struct gguf_build *b, const char *key, float value);
void gguf_build_bool(struct gguf_build *b, const char *key, uint8_t value);
void gguf_build_string(struct gguf_build *b, const char *key, const char *text);
void gguf_build_strings(struct gguf_build *b, const char *key, const char *const *texts, size_t n);
void gguf_build_i32s(struct gguf_build *b, const char *key, const int32_t *values, size_t n);
void gguf_build_f32s(struct gguf_build *b, const char *key, const float *values, size_t n);

/* A tensor with data of a fixed pattern: small numbers for F32, zeros with d = 1 otherwise. */
void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint64_t dim0,
                       uint64_t dim1);
/* Tensors of layer `layer`, "blk.N." before their names: vectors in F32, matrices of `type`. */
struct gguf_build_shape {
    const char *name;
    uint64_t dims[2]; /* a vector has 0 rows */
};
void gguf_build_layer(struct gguf_build *b, unsigned layer, const struct gguf_build_shape *shapes,
                      size_t n_shapes, uint32_t type);
/* Only the table's entry, as it is said. */
void gguf_build_tensor_entry(struct gguf_build *b, const char *name, uint32_t n_dims,
                             const uint64_t *dims, uint32_t type, uint64_t offset);

/* The file. `ret` is initialised here. */
void gguf_build_finish(const struct gguf_build *b, struct buf *ret);

/* GPT-2's alphabet: what each byte is written as in a byte-level BPE vocabulary, NUL-terminated. */
void gguf_build_alphabet(char ret_texts[256][4]);

/* A byte-level BPE vocabulary: BUILD_BPE_TOKENS tokens, see the .c file. `pre` as in the file. */
#define BUILD_BPE_TOKENS 268
enum { /* its ids past the 256 bytes */
       BUILD_ID_HE = 256,
       BUILD_ID_LL,
       BUILD_ID_HELL,
       BUILD_ID_HELLO,
       BUILD_ID_SPACE_HELLO,
       BUILD_ID_XX,
       BUILD_ID_XXXX,
       BUILD_ID_SPACES,
       BUILD_ID_BOS,   /* <|begin|>, control */
       BUILD_ID_START, /* <|im_start|>, control */
       BUILD_ID_END,   /* <|im_end|>, control */
       BUILD_ID_USER,  /* <tool>, user-defined */
};
void gguf_build_bpe(struct gguf_build *b, const char *pre);
/* A SentencePiece vocabulary with byte tokens: <unk> <s> </s>, 256 bytes, then words. */
void gguf_build_spm(struct gguf_build *b);
/* A whole llama model of two layers over gguf_build_bpe's vocabulary: 32 wide, 4 heads over 2,
 * 64 in the middle, matrices of `type`, tied. */
void gguf_build_model(struct gguf_build *b, uint32_t type);
/* Of that model the keys, the vocabulary among them; and the two layers. */
void gguf_build_model_keys(struct gguf_build *b);
void gguf_build_model_layers(struct gguf_build *b, uint32_t type);

#endif
