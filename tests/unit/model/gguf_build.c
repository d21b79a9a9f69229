#include "tests/unit/model/gguf_build.h"

#include "common/check.h"

#include <stdio.h>
#include <string.h>

void gguf_build_init(struct gguf_build *b)
{
    *b = (struct gguf_build){.alignment = 32, .magic = 0x46554747u, .version = 3};
}

void gguf_build_fini(struct gguf_build *b)
{
    buf_fini(&b->keys);
    buf_fini(&b->tensors);
    buf_fini(&b->data);
}

static bool is_skipped(const struct gguf_build *b, const char *name)
{
    for (size_t i = 0; i < GGUF_BUILD_SKIP_MAX; i++) {
        if (b->skip[i] != NULL && strcmp(b->skip[i], name) == 0)
            return true;
    }
    return false;
}

void gguf_build_raw_u32(struct buf *to, uint32_t value)
{
    buf_append(to, &value, sizeof value);
}

void gguf_build_raw_u64(struct buf *to, uint64_t value)
{
    buf_append(to, &value, sizeof value);
}

void gguf_build_raw_string(struct buf *to, const char *text, size_t size)
{
    gguf_build_raw_u64(to, size);
    buf_append(to, text, size);
}

bool gguf_build_key(struct gguf_build *b, const char *name, uint32_t type)
{
    if (is_skipped(b, name))
        return false;
    gguf_build_raw_string(&b->keys, name, strlen(name));
    gguf_build_raw_u32(&b->keys, type);
    b->n_keys++;
    return true;
}

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t value)
{
    if (gguf_build_key(b, key, GGUF_VALUE_U32))
        gguf_build_raw_u32(&b->keys, value);
}

void gguf_build_i32(struct gguf_build *b, const char *key, int32_t value)
{
    if (gguf_build_key(b, key, GGUF_VALUE_I32))
        gguf_build_raw_u32(&b->keys, (uint32_t)value);
}

void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t value)
{
    if (gguf_build_key(b, key, GGUF_VALUE_U64))
        gguf_build_raw_u64(&b->keys, value);
}

void gguf_build_f32(struct gguf_build *b, const char *key, float value)
{
    if (gguf_build_key(b, key, GGUF_VALUE_F32))
        buf_append(&b->keys, &value, sizeof value);
}

void gguf_build_bool(struct gguf_build *b, const char *key, uint8_t value)
{
    if (gguf_build_key(b, key, GGUF_VALUE_BOOL))
        buf_append_byte(&b->keys, value);
}

void gguf_build_string(struct gguf_build *b, const char *key, const char *text)
{
    if (gguf_build_key(b, key, GGUF_VALUE_STRING))
        gguf_build_raw_string(&b->keys, text, strlen(text));
}

static bool array_begin(struct gguf_build *b, const char *key, uint32_t type, size_t n)
{
    if (!gguf_build_key(b, key, GGUF_VALUE_ARRAY))
        return false;
    gguf_build_raw_u32(&b->keys, type);
    gguf_build_raw_u64(&b->keys, n);
    return true;
}

void gguf_build_strings(struct gguf_build *b, const char *key, const char *const *texts, size_t n)
{
    if (!array_begin(b, key, GGUF_VALUE_STRING, n))
        return;
    for (size_t i = 0; i < n; i++)
        gguf_build_raw_string(&b->keys, texts[i], strlen(texts[i]));
}

void gguf_build_i32s(struct gguf_build *b, const char *key, const int32_t *values, size_t n)
{
    if (array_begin(b, key, GGUF_VALUE_I32, n))
        buf_append(&b->keys, values, n * sizeof *values);
}

void gguf_build_f32s(struct gguf_build *b, const char *key, const float *values, size_t n)
{
    if (array_begin(b, key, GGUF_VALUE_F32, n))
        buf_append(&b->keys, values, n * sizeof *values);
}

void gguf_build_tensor_entry(struct gguf_build *b, const char *name, uint32_t n_dims,
                             const uint64_t *dims, uint32_t type, uint64_t offset)
{
    gguf_build_raw_string(&b->tensors, name, strlen(name));
    gguf_build_raw_u32(&b->tensors, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        gguf_build_raw_u64(&b->tensors, dims[i]);
    gguf_build_raw_u32(&b->tensors, type);
    gguf_build_raw_u64(&b->tensors, offset);
    b->n_tensors++;
}

void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint64_t dim0,
                       uint64_t dim1)
{
    const struct quant_type_info *info = quant_type_info(type);
    const uint64_t dims[2] = {dim0, dim1};
    if (is_skipped(b, name))
        return;
    while (b->data.size % b->alignment != 0)
        buf_append_byte(&b->data, 0);
    gguf_build_tensor_entry(b, name, dim1 == 0 ? 1 : 2, dims, type, b->data.size);
    CHECK(info != NULL && info->block_items > 0);
    uint64_t items = dim0 * (dim1 == 0 ? 1 : dim1);
    for (uint64_t i = 0; i < items / info->block_items; i++) {
        float value = 1.0f + (float)(i % 7) / 8.0f;
        if (type == QUANT_TYPE_F32) {
            buf_append(&b->data, &value, sizeof value);
            continue;
        }
        static const uint8_t block[512] = {0x00, 0x3c}; /* f16 1.0, then zeros */
        buf_append(&b->data, block, info->block_bytes);
    }
}

void gguf_build_finish(const struct gguf_build *b, struct buf *ret)
{
    buf_init(ret);
    gguf_build_raw_u32(ret, b->magic);
    gguf_build_raw_u32(ret, b->version);
    gguf_build_raw_u64(ret, b->n_tensors + b->n_tensors_more);
    gguf_build_raw_u64(ret, b->n_keys + b->n_keys_more);
    buf_append(ret, b->keys.data, b->keys.size);
    buf_append(ret, b->tensors.data, b->tensors.size);
    if (b->n_tensors > 0) {
        while (ret->size % b->alignment != 0)
            buf_append_byte(ret, 0);
    }
    buf_append(ret, b->data.data, b->data.size);
    CHECK(!ret->failed && !b->keys.failed && !b->tensors.failed && !b->data.failed);
}

/* --- whole vocabularies and models --- */

/* From its definition and not from the code under test: the bytes that are visible stand for
 * themselves, the others for U+0100 on, in order. */
void gguf_build_alphabet(char ret_texts[256][4])
{
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; byte++) {
        bool visible = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                       (byte >= 0xae && byte <= 0xff);
        unsigned point = visible ? byte : next++;
        if (point < 0x80)
            (void)snprintf(ret_texts[byte], 4, "%c", (int)point);
        else
            (void)snprintf(ret_texts[byte], 4, "%c%c", (int)(0xc0 | point >> 6),
                           (int)(0x80 | (point & 0x3f)));
    }
}

void gguf_build_bpe(struct gguf_build *b, const char *pre)
{
    static const char *const words[] = {
        "he",   "ll",           "hell",      "hello",        "\u0120hello", "xx",
        "xxxx", "\u0120\u0120", "<|begin|>", "<|im_start|>", "<|im_end|>",  "<tool>",
    };
    static const char *const merges[] = {
        "h e", "l l", "he ll", "hell o", "\u0120 hello", "x x", "xx xx", "\u0120 \u0120",
    };
    char bytes[256][4];
    const char *texts[BUILD_BPE_TOKENS];
    int32_t types[BUILD_BPE_TOKENS];
    gguf_build_alphabet(bytes);
    for (size_t i = 0; i < BUILD_BPE_TOKENS; i++) {
        texts[i] = i < 256 ? bytes[i] : words[i - 256];
        types[i] = i >= BUILD_ID_BOS ? 3 : 1;
    }
    types[BUILD_ID_USER] = 4;
    gguf_build_string(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(b, "tokenizer.ggml.pre", pre);
    gguf_build_strings(b, "tokenizer.ggml.tokens", texts, BUILD_BPE_TOKENS);
    gguf_build_i32s(b, "tokenizer.ggml.token_type", types, BUILD_BPE_TOKENS);
    gguf_build_strings(b, "tokenizer.ggml.merges", merges, sizeof merges / sizeof merges[0]);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", BUILD_ID_BOS);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", BUILD_ID_END);
}

void gguf_build_spm(struct gguf_build *b)
{
    static const char *const words[] = {
        "\u2581", "a", "b", "ab", "\u2581ab", "abab", "\u00e9", "\u2581\u2581", "\n\n", "[USER]",
    };
    enum { WORDS = sizeof words / sizeof words[0], TOKENS = 259 + WORDS };
    char bytes[256][8];
    const char *texts[TOKENS] = {"<unk>", "<s>", "</s>"};
    int32_t types[TOKENS] = {2, 3, 3};
    float scores[TOKENS] = {0};
    for (size_t i = 0; i < 256; i++) {
        (void)snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        texts[3 + i] = bytes[i];
        types[3 + i] = 6;
    }
    for (size_t i = 0; i < WORDS; i++) {
        texts[259 + i] = words[i];
        types[259 + i] = i >= WORDS - 2 ? 4 : 1;
        scores[259 + i] = -(float)(i + 1);
    }
    gguf_build_string(b, "tokenizer.ggml.model", "llama");
    gguf_build_strings(b, "tokenizer.ggml.tokens", texts, TOKENS);
    gguf_build_f32s(b, "tokenizer.ggml.scores", scores, TOKENS);
    gguf_build_i32s(b, "tokenizer.ggml.token_type", types, TOKENS);
}

void gguf_build_layer(struct gguf_build *b, unsigned layer, const struct gguf_build_shape *shapes,
                      size_t n_shapes, uint32_t type)
{
    for (size_t i = 0; i < n_shapes; i++) {
        const struct gguf_build_shape *s = &shapes[i];
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s", layer, s->name);
        gguf_build_tensor(b, name, s->dims[1] == 0 ? QUANT_TYPE_F32 : type, s->dims[0], s->dims[1]);
    }
}

void gguf_build_model_keys(struct gguf_build *b)
{
    gguf_build_string(b, "general.architecture", "llama");
    gguf_build_string(b, "general.name", "Small \xc3\xa9");
    gguf_build_u32(b, "llama.block_count", 2);
    gguf_build_u32(b, "llama.context_length", 128);
    gguf_build_u32(b, "llama.embedding_length", 32);
    gguf_build_u32(b, "llama.feed_forward_length", 64);
    gguf_build_u32(b, "llama.attention.head_count", 4);
    gguf_build_u32(b, "llama.attention.head_count_kv", 2);
    gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_build_bpe(b, "llama-bpe");
}

void gguf_build_model_layers(struct gguf_build *b, uint32_t type)
{
    static const struct gguf_build_shape shapes[] = {
        {"attn_norm.weight", {32, 0}},    {"attn_q.weight", {32, 32}},
        {"attn_k.weight", {32, 16}},      {"attn_v.weight", {32, 16}},
        {"attn_output.weight", {32, 32}}, {"ffn_norm.weight", {32, 0}},
        {"ffn_gate.weight", {32, 64}},    {"ffn_up.weight", {32, 64}},
        {"ffn_down.weight", {64, 32}},
    };
    for (unsigned i = 0; i < 2; i++)
        gguf_build_layer(b, i, shapes, sizeof shapes / sizeof shapes[0], type);
}

void gguf_build_model(struct gguf_build *b, uint32_t type)
{
    gguf_build_model_keys(b);
    gguf_build_tensor(b, "token_embd.weight", type, 32, BUILD_BPE_TOKENS);
    gguf_build_model_layers(b, type);
    gguf_build_tensor(b, "output_norm.weight", QUANT_TYPE_F32, 32, 0);
}
