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

static void put_tensor(struct writer *w, const char *name, enum quant_type type, uint32_t cols,
                       uint32_t rows)
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
            float gain = 1.0f + 0.2f * draw(w);
            buf_append(&w->data, &gain, sizeof gain);
        }
    } else {
        put_elements(w, type, (uint64_t)cols * rows, 2.0f / sqrtf((float)cols));
    }
}

static void put_tensors(struct writer *w, const struct tiny_model *m)
{
    char name[64];
    uint32_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    struct {
        const char *name;
        uint32_t cols, rows;
    } layer[] = {
        {"attn_norm", m->n_embd, 0},      {"attn_q", m->n_embd, q},
        {"attn_k", m->n_embd, kv},        {"attn_v", m->n_embd, kv},
        {"attn_output", q, m->n_embd},    {"ffn_norm", m->n_embd, 0},
        {"ffn_gate", m->n_embd, m->n_ff}, {"ffn_up", m->n_embd, m->n_ff},
        {"ffn_down", m->n_ff, m->n_embd},
    };

    put_tensor(w, "token_embd.weight", m->embd_type, m->n_embd, TINY_MODEL_VOCAB);
    put_tensor(w, "output_norm.weight", QUANT_TYPE_F32, m->n_embd, 0);
    if (m->own_head)
        put_tensor(w, "output.weight", m->layer_type, m->n_embd, TINY_MODEL_VOCAB);
    for (uint32_t i = 0; i < m->n_layers; i++)
        for (size_t k = 0; k < sizeof layer / sizeof layer[0]; k++) {
            (void)snprintf(name, sizeof name, "blk.%u.%s.weight", i, layer[k].name);
            put_tensor(w, name, layer[k].rows == 0 ? QUANT_TYPE_F32 : m->layer_type, layer[k].cols,
                       layer[k].rows);
        }
}

void tiny_model_write(const struct tiny_model *m, char *ret_path)
{
    struct writer w = {.seed = m->seed};
    struct buf keys, file;

    buf_init(&w.header);
    buf_init(&w.data);
    buf_init(&keys);
    buf_init(&file);
    key_string(&w, &keys, "general.architecture", "llama");
    key_string(&w, &keys, "general.name", "tiny");
    key_u32(&w, &keys, "llama.block_count", m->n_layers);
    key_u32(&w, &keys, "llama.context_length", m->context);
    key_u32(&w, &keys, "llama.embedding_length", m->n_embd);
    key_u32(&w, &keys, "llama.feed_forward_length", m->n_ff);
    key_u32(&w, &keys, "llama.attention.head_count", m->n_heads);
    key_u32(&w, &keys, "llama.attention.head_count_kv", m->n_kv_heads);
    key_u32(&w, &keys, "llama.attention.key_length", m->head_dim);
    key_u32(&w, &keys, "llama.attention.value_length", m->head_dim);
    key_u32(&w, &keys, "llama.rope.dimension_count", m->head_dim);
    key_f32(&w, &keys, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
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
