#include "tests/unit/engine/tiny_model.h"

#include "common/buf.h"
#include "common/check.h"
#include "worker/kernels/half.h"
#include "worker/kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT 32u

const char tiny_model_chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

struct tiny_model tiny_model_default(void)
{
    return (struct tiny_model){
        .n_layers = 2,
        .n_embd = 64,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .n_ff = 96,
        .context = 256,
        .layer_type = QUANT_TYPE_Q8_0,
        .embd_type = QUANT_TYPE_Q8_0,
        .chat_template = tiny_model_chatml,
        .seed = 1,
    };
}

/* --- shapes --- */

/* Layers, heads, KV heads and their size; then what is special. */
#define SHAPE(shape_name, arch_name, layers, heads, kv_heads, dim, ...)                            \
    {                                                                                              \
        .name = (shape_name), .model = {                                                           \
            .arch = (arch_name),                                                                   \
            .n_layers = (layers),                                                                  \
            .n_embd = 64,                                                                          \
            .n_heads = (heads),                                                                    \
            .n_kv_heads = (kv_heads),                                                              \
            .head_dim = (dim),                                                                     \
            .n_ff = 96,                                                                            \
            .context = 256,                                                                        \
            .layer_type = QUANT_TYPE_F32,                                                          \
            .embd_type = QUANT_TYPE_F32,                                                           \
            .seed = 3,                                                                             \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define GEMMA3 .head_norms = true, .post_norms = true, .rope_base = 1e6f

/* clang-format off */
static const struct {
    const char *name;
    struct tiny_model model;
} shapes[] = {
    SHAPE("llama", "llama", 3, 4, 2, 32, .rope_base = 5e4f),
    SHAPE("llama-3.1", "llama", 3, 4, 2, 32, .rope_freqs = true, .own_head = true,
          .rope_base = 5e5f),
    SHAPE("llama-biases", "llama", 3, 4, 2, 32, .qkv_bias = true, .other_bias = true),
    SHAPE("llama-linear", "llama", 3, 4, 2, 32, .rope_scaling = "linear", .rope_factor = 4.0f),
    SHAPE("llama-yarn", "llama", 3, 4, 2, 32, .rope_scaling = "yarn", .rope_factor = 4.0f,
          .rope_context = 64),
    SHAPE("llama-layers", "llama", 3, 4, 2, 32, .heads_of = {4, 2, 6}, .kv_heads_of = {2, 1, 2},
          .ff_of = {96, 64, 160}),
    SHAPE("qwen2", "qwen2", 3, 4, 2, 16, .qkv_bias = true, .rope_base = 1e6f, .own_head = true),
    SHAPE("qwen2-yarn", "qwen2", 3, 4, 2, 16, .qkv_bias = true, .rope_base = 1e6f,
          .rope_scaling = "yarn", .rope_factor = 8.0f, .rope_context = 128,
          .rope_magnitude = 0.9f),
    SHAPE("qwen3", "qwen3", 3, 4, 2, 32, .head_norms = true, .rope_base = 1e6f),
    SHAPE("gemma3", "gemma3", 7, 4, 2, 32, GEMMA3, .window = 24),
    SHAPE("gemma3-4b", "gemma3", 7, 4, 2, 32, GEMMA3, .window = 24, .window_period = 3,
          .local_base = 2e4f, .rope_scaling = "linear", .rope_factor = 8.0f,
          .logit_softcap = 5.0f),
    SHAPE("gemma3-27b", "gemma3", 62, 4, 2, 32, GEMMA3, .window = 24),
    SHAPE("gemma3-pattern", "gemma3", 3, 4, 2, 32, GEMMA3, .window = 40, .window_of = "101"),
    SHAPE("gemma3-no-window", "gemma3", 3, 4, 1, 32, GEMMA3),
    SHAPE("gemma3-softcap", "gemma3", 3, 4, 2, 32, GEMMA3, .window = 24, .window_period = 2,
          .attention_scale = 0.25f, .attention_softcap = 3.0f),
};
/* clang-format on */

size_t tiny_model_shape_count(void)
{
    return sizeof shapes / sizeof shapes[0];
}

const char *tiny_model_shape_name(size_t index)
{
    return shapes[index].name;
}

bool tiny_model_shape(const char *name, struct tiny_model *ret_model)
{
    for (size_t i = 0; i < tiny_model_shape_count(); i++)
        if (strcmp(shapes[i].name, name) == 0) {
            *ret_model = shapes[i].model;
            return true;
        }
    return false;
}

/* --- the file --- */

struct writer {
    struct buf header, data;
    uint64_t n_keys, n_tensors;
    uint32_t seed, drawn;
};

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_string(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    buf_append_str(b, text);
}

static void key_u32(struct writer *w, struct buf *keys, const char *key, uint32_t value)
{
    put_string(keys, key);
    put_u32(keys, 4);
    put_u32(keys, value);
    w->n_keys++;
}

static void key_f32(struct writer *w, struct buf *keys, const char *key, float value)
{
    put_string(keys, key);
    put_u32(keys, 6);
    buf_append(keys, &value, sizeof value);
    w->n_keys++;
}

static void key_string(struct writer *w, struct buf *keys, const char *key, const char *value)
{
    put_string(keys, key);
    put_u32(keys, 8);
    put_string(keys, value);
    w->n_keys++;
}

static void key_array(struct writer *w, struct buf *keys, const char *key, uint32_t type,
                      uint64_t count)
{
    put_string(keys, key);
    put_u32(keys, 9);
    put_u32(keys, type);
    put_u64(keys, count);
    w->n_keys++;
}

/* GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on. */
static void byte_text(unsigned byte, char *ret_text)
{
    unsigned code = 0, moved = 0;

    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code = printable ? b : 256 + moved;
        moved += !printable;
    }
    if (code < 0x80) {
        ret_text[0] = (char)code;
        ret_text[1] = 0;
    } else {
        ret_text[0] = (char)(0xC0 | code >> 6);
        ret_text[1] = (char)(0x80 | (code & 63));
        ret_text[2] = 0;
    }
}

static const char *const merges[] = {"t h", "h e", "i n"};
static const char *const merged[] = {"th", "he", "in"};
static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>",
                                       "<|extra|>"};

static void put_tokenizer(struct writer *w, struct buf *keys)
{
    char text[4];

    key_string(w, keys, "tokenizer.ggml.model", "gpt2");
    key_string(w, keys, "tokenizer.ggml.pre", "smollm");
    key_array(w, keys, "tokenizer.ggml.tokens", 8, TINY_MODEL_VOCAB);
    for (unsigned b = 0; b < 256; b++) {
        byte_text(b, text);
        put_string(keys, text);
    }
    for (size_t i = 0; i < 3; i++)
        put_string(keys, merged[i]);
    for (size_t i = 0; i < 5; i++)
        put_string(keys, specials[i]);
    key_array(w, keys, "tokenizer.ggml.token_type", 5, TINY_MODEL_VOCAB);
    for (uint32_t i = 0; i < TINY_MODEL_VOCAB; i++)
        put_u32(keys, i < 259 ? 1 : 3);
    key_array(w, keys, "tokenizer.ggml.merges", 8, 3);
    for (size_t i = 0; i < 3; i++)
        put_string(keys, merges[i]);
    key_u32(w, keys, "tokenizer.ggml.bos_token_id", 259);
    key_u32(w, keys, "tokenizer.ggml.eos_token_id", TINY_MODEL_EOS);
}

/* Uniform in [-1, 1). */
static float draw(struct writer *w)
{
    return (float)(int32_t)philox_token_word(w->seed, 0, w->drawn++) * 0x1p-31f;
}

static void put_half(struct buf *b, float value)
{
    uint16_t bits = half_from_float(value);
    buf_append(b, &bits, sizeof bits);
}

/* `count` elements of about the given size. */
static void put_elements(struct writer *w, enum quant_type type, uint64_t count, float size)
{
    switch (type) {
    case QUANT_TYPE_F32:
        for (uint64_t i = 0; i < count; i++) {
            float v = draw(w) * size;
            buf_append(&w->data, &v, sizeof v);
        }
        break;
    case QUANT_TYPE_F16:
        for (uint64_t i = 0; i < count; i++)
            put_half(&w->data, draw(w) * size);
        break;
    case QUANT_TYPE_Q8_0:
        for (uint64_t block = 0; block < count / 32; block++) {
            put_half(&w->data, (1.0f + 0.5f * draw(w)) * size / 127.0f);
            for (int i = 0; i < 32; i++)
                buf_append_byte(&w->data, (uint8_t)(int8_t)(draw(w) * 127.0f));
        }
        break;
    case QUANT_TYPE_Q4_1:
        for (uint64_t block = 0; block < count / 32; block++) {
            put_half(&w->data, 2.0f * size / 15.0f);
            put_half(&w->data, -size * (1.0f + 0.1f * draw(w)));
            for (int i = 0; i < 16; i++)
                buf_append_byte(&w->data, (uint8_t)philox_token_word(w->seed, 1, w->drawn++));
        }
        break;
    default:
        CHECK(false);
    }
}

/* Vectors (no rows) are `middle`, give or take `size`. */
static void put_tensor_like(struct writer *w, const char *name, enum quant_type type, uint32_t cols,
                            uint32_t rows, float middle, float size)
{
    uint32_t n_dims = rows == 0 ? 1 : 2;

    while (w->data.size % ALIGNMENT != 0)
        buf_append_byte(&w->data, 0);
    put_string(&w->header, name);
    put_u32(&w->header, n_dims);
    put_u64(&w->header, cols);
    if (rows != 0)
        put_u64(&w->header, rows);
    put_u32(&w->header, (uint32_t)type);
    put_u64(&w->header, w->data.size);
    w->n_tensors++;
    if (rows == 0) {
        for (uint32_t i = 0; i < cols; i++) {
            float gain = middle + size * draw(w);
            buf_append(&w->data, &gain, sizeof gain);
        }
    } else {
        put_elements(w, type, (uint64_t)cols * rows, 2.0f / sqrtf((float)cols));
    }
}

static void put_tensor(struct writer *w, const char *name, enum quant_type type, uint32_t cols,
                       uint32_t rows)
{
    put_tensor_like(w, name, type, cols, rows, 1.0f, 0.2f);
}

static uint32_t of_layer(const uint32_t *list, uint32_t layer, uint32_t otherwise)
{
    return layer < TINY_MODEL_LAYERS_MAX && list[layer] != 0 ? list[layer] : otherwise;
}

static void put_layer(struct writer *w, const struct tiny_model *m, uint32_t layer)
{
    char name[64];
    uint32_t q = of_layer(m->heads_of, layer, m->n_heads) * m->head_dim;
    uint32_t kv = of_layer(m->kv_heads_of, layer, m->n_kv_heads) * m->head_dim;
    uint32_t ff = of_layer(m->ff_of, layer, m->n_ff);
    const struct {
        const char *name;
        uint32_t cols, rows;
        bool is_there, bias;
    } parts[] = {
        {"attn_norm.weight", m->n_embd, 0, true, false},
        {"attn_q.weight", m->n_embd, q, true, false},
        {"attn_k.weight", m->n_embd, kv, true, false},
        {"attn_v.weight", m->n_embd, kv, true, false},
        {"attn_output.weight", q, m->n_embd, true, false},
        {"ffn_norm.weight", m->n_embd, 0, true, false},
        {"ffn_gate.weight", m->n_embd, ff, true, false},
        {"ffn_up.weight", m->n_embd, ff, true, false},
        {"ffn_down.weight", ff, m->n_embd, true, false},
        {"attn_q.bias", q, 0, m->qkv_bias, true},
        {"attn_k.bias", kv, 0, m->qkv_bias, true},
        {"attn_v.bias", kv, 0, m->qkv_bias, true},
        {"attn_output.bias", m->n_embd, 0, m->other_bias, true},
        {"ffn_gate.bias", ff, 0, m->other_bias, true},
        {"ffn_up.bias", ff, 0, m->other_bias, true},
        {"ffn_down.bias", m->n_embd, 0, m->other_bias, true},
        {"attn_q_norm.weight", m->head_dim, 0, m->head_norms, false},
        {"attn_k_norm.weight", m->head_dim, 0, m->head_norms, false},
        {"post_attention_norm.weight", m->n_embd, 0, m->post_norms, false},
        {"post_ffw_norm.weight", m->n_embd, 0, m->post_norms, false},
    };

    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        if (!parts[k].is_there)
            continue;
        (void)snprintf(name, sizeof name, "blk.%u.%s", layer, parts[k].name);
        put_tensor_like(w, name, parts[k].rows == 0 ? QUANT_TYPE_F32 : m->layer_type, parts[k].cols,
                        parts[k].rows, parts[k].bias ? 0.0f : 1.0f, parts[k].bias ? 0.3f : 0.2f);
    }
}

static void put_tensors(struct writer *w, const struct tiny_model *m)
{
    put_tensor(w, "token_embd.weight", m->embd_type, m->n_embd, TINY_MODEL_VOCAB);
    put_tensor(w, "output_norm.weight", QUANT_TYPE_F32, m->n_embd, 0);
    if (m->own_head)
        put_tensor(w, "output.weight", m->layer_type, m->n_embd, TINY_MODEL_VOCAB);
    for (uint32_t i = 0; i < m->n_layers; i++)
        put_layer(w, m, i);
    if (m->rope_freqs)
        put_tensor_like(w, "rope_freqs.weight", QUANT_TYPE_F32, m->head_dim / 2, 0, 2.5f, 1.5f);
}

/* A key of the architecture: "llama.block_count". */
static const char *of_arch(const struct tiny_model *m, const char *name, char ret[96])
{
    (void)snprintf(ret, 96, "%s.%s", m->arch == NULL ? "llama" : m->arch, name);
    return ret;
}

static void arch_u32(struct writer *w, struct buf *keys, const struct tiny_model *m,
                     const char *name, uint32_t value)
{
    char key[96];
    key_u32(w, keys, of_arch(m, name, key), value);
}

static void arch_f32(struct writer *w, struct buf *keys, const struct tiny_model *m,
                     const char *name, float value)
{
    char key[96];
    if (value != 0.0f)
        key_f32(w, keys, of_arch(m, name, key), value);
}

static void arch_layers(struct writer *w, struct buf *keys, const struct tiny_model *m,
                        const char *name, const uint32_t *list, uint32_t otherwise)
{
    char key[96];

    if (list[0] == 0) {
        arch_u32(w, keys, m, name, otherwise);
        return;
    }
    key_array(w, keys, of_arch(m, name, key), 4, m->n_layers);
    for (uint32_t i = 0; i < m->n_layers; i++)
        put_u32(keys, list[i]);
}

static void put_arch_keys(struct writer *w, struct buf *keys, const struct tiny_model *m)
{
    char key[96];

    arch_u32(w, keys, m, "block_count", m->n_layers);
    arch_u32(w, keys, m, "context_length", m->context);
    arch_u32(w, keys, m, "embedding_length", m->n_embd);
    arch_layers(w, keys, m, "feed_forward_length", m->ff_of, m->n_ff);
    arch_layers(w, keys, m, "attention.head_count", m->heads_of, m->n_heads);
    arch_layers(w, keys, m, "attention.head_count_kv", m->kv_heads_of, m->n_kv_heads);
    arch_u32(w, keys, m, "attention.key_length", m->head_dim);
    arch_u32(w, keys, m, "attention.value_length", m->head_dim);
    arch_u32(w, keys, m, "rope.dimension_count", m->head_dim);
    arch_f32(w, keys, m, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (m->window != 0)
        arch_u32(w, keys, m, "attention.sliding_window", m->window);
    if (m->window_period != 0)
        arch_u32(w, keys, m, "attention.sliding_window_pattern", m->window_period);
    if (m->window_of != NULL) {
        key_array(w, keys, of_arch(m, "attention.sliding_window_pattern", key), 7,
                  strlen(m->window_of));
        for (const char *c = m->window_of; *c != 0; c++)
            buf_append_byte(keys, *c == '1');
    }
    arch_f32(w, keys, m, "rope.freq_base", m->rope_base);
    arch_f32(w, keys, m, "rope.freq_base_swa", m->local_base);
    if (m->rope_scaling != NULL)
        key_string(w, keys, of_arch(m, "rope.scaling.type", key), m->rope_scaling);
    arch_f32(w, keys, m, "rope.scaling.factor", m->rope_factor);
    arch_f32(w, keys, m, "rope.scaling.attn_factor", m->rope_magnitude);
    if (m->rope_context != 0)
        arch_u32(w, keys, m, "rope.scaling.original_context_length", m->rope_context);
    arch_f32(w, keys, m, "attention.scale", m->attention_scale);
    arch_f32(w, keys, m, "attn_logit_softcapping", m->attention_softcap);
    arch_f32(w, keys, m, "final_logit_softcapping", m->logit_softcap);
}

void tiny_model_write(const struct tiny_model *m, char *ret_path)
{
    struct writer w = {.seed = m->seed};
    struct buf keys, file;

    buf_init(&w.header);
    buf_init(&w.data);
    buf_init(&keys);
    buf_init(&file);
    key_string(&w, &keys, "general.architecture", m->arch == NULL ? "llama" : m->arch);
    key_string(&w, &keys, "general.name", "tiny");
    put_arch_keys(&w, &keys, m);
    put_tokenizer(&w, &keys);
    if (m->chat_template != NULL)
        key_string(&w, &keys, "tokenizer.chat_template", m->chat_template);
    put_tensors(&w, m);

    buf_append_str(&file, "GGUF");
    put_u32(&file, 3);
    put_u64(&file, w.n_tensors);
    put_u64(&file, w.n_keys);
    buf_append(&file, keys.data, keys.size);
    buf_append(&file, w.header.data, w.header.size);
    while (file.size % ALIGNMENT != 0)
        buf_append_byte(&file, 0);
    buf_append(&file, w.data.data, w.data.size);
    CHECK(!file.failed && !keys.failed && !w.header.failed && !w.data.failed);

    (void)snprintf(ret_path, 64, "/tmp/cloister-tiny-XXXXXX");
    int fd = mkstemp(ret_path);
    CHECK(fd >= 0 && write(fd, file.data, file.size) == (ssize_t)file.size && close(fd) == 0);
    buf_fini(&w.header);
    buf_fini(&w.data);
    buf_fini(&keys);
    buf_fini(&file);
}
