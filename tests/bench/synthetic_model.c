/*
 * synthetic_model FILE [options]: a qwen2 file of any shape and type with random weights, for
 * measuring shapes that no small model has. cloister-engine and llama.cpp load it.
 *
 *     --layers 6 --embd 1536 --ff 8960 --heads 12 --kv-heads 2    the layers of Qwen2 1.5B
 *     --vocab 32000     tokens; with 6 layers the head then has the share of the work that it has
 *                       in the whole model (28 layers, 151,936 tokens)
 *     --of 28           layers of the model these stand for: types that differ between layers are
 *                       taken evenly from all of its layers
 *     --context 8192 --seed 1
 *     --type Q4_K_M     what llama-quantize would call the file; --list prints all
 *     --untied          the head is a matrix of its own
 *     --empty           the header, and zeros that take no room on the disk: for what is reckoned
 *                       from headers
 *
 * Types that mix others (Q4_K_M and its like) mix them as llama.cpp's quantizer does
 * (src/llama-quant.cpp, llama_tensor_get_type_impl). The quants are random bits, scales are such
 * that a matrix keeps the size of what it multiplies: no number overflows, and it says nothing.
 */
#include "common/check.h"
#include "tests/unit/model/gguf_build.h"
#include "worker/kernels/half.h"
#include "worker/kernels/quant_block.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- which tensor has which type --- */

/* Layers that take the better type of two. */
enum layers {
    LAYERS_ALL,
    LAYERS_MORE_BITS, /* the first and last eighth, and every third between */
    LAYERS_FIRST_2,
    LAYERS_FIRST_8TH,
    LAYERS_FIRST_16TH,
    LAYERS_OF_4_QUERIES, /* all, where four or more heads share a key/value head */
};

struct choice {
    enum layers layers;
    enum quant_type better, other;
};

static const struct mix {
    const char *name;
    enum quant_type base, head; /* head: of the embedding, which is the head as well */
    struct choice v, down;
    enum quant_type output; /* of attention */
} mixes[] = {
#define PLAIN(type, its_head)                                                                      \
    {                                                                                              \
#type, QUANT_TYPE_##type, QUANT_TYPE_##its_head,                                           \
            {LAYERS_ALL, QUANT_TYPE_##type, QUANT_TYPE_##type },                                   \
             {LAYERS_ALL, QUANT_TYPE_##type, QUANT_TYPE_##type }, QUANT_TYPE_##type                \
    }
    PLAIN(F32, F32),
    PLAIN(F16, F16),
    PLAIN(BF16, BF16),
    PLAIN(Q4_0, Q6_K),
    PLAIN(Q4_1, Q6_K),
    PLAIN(Q5_0, Q6_K),
    PLAIN(Q5_1, Q6_K),
    PLAIN(Q8_0, Q8_0),
    PLAIN(Q6_K, Q6_K),
    PLAIN(MXFP4, Q8_0),
#undef PLAIN
    {"Q2_K",
     QUANT_TYPE_Q2_K,
     QUANT_TYPE_Q6_K,
     {LAYERS_OF_4_QUERIES, QUANT_TYPE_Q4_K, QUANT_TYPE_Q3_K},
     {LAYERS_ALL, QUANT_TYPE_Q3_K, QUANT_TYPE_Q3_K},
     QUANT_TYPE_Q3_K},
    {"Q3_K_M",
     QUANT_TYPE_Q3_K,
     QUANT_TYPE_Q6_K,
     {LAYERS_FIRST_2, QUANT_TYPE_Q5_K, QUANT_TYPE_Q4_K},
     {LAYERS_FIRST_16TH, QUANT_TYPE_Q5_K, QUANT_TYPE_Q4_K},
     QUANT_TYPE_Q4_K},
    {"Q4_K_M",
     QUANT_TYPE_Q4_K,
     QUANT_TYPE_Q6_K,
     {LAYERS_MORE_BITS, QUANT_TYPE_Q6_K, QUANT_TYPE_Q4_K},
     {LAYERS_MORE_BITS, QUANT_TYPE_Q6_K, QUANT_TYPE_Q4_K},
     QUANT_TYPE_Q4_K},
    {"Q5_K_M",
     QUANT_TYPE_Q5_K,
     QUANT_TYPE_Q6_K,
     {LAYERS_MORE_BITS, QUANT_TYPE_Q6_K, QUANT_TYPE_Q5_K},
     {LAYERS_MORE_BITS, QUANT_TYPE_Q6_K, QUANT_TYPE_Q5_K},
     QUANT_TYPE_Q5_K},
    {"IQ4_NL",
     QUANT_TYPE_IQ4_NL,
     QUANT_TYPE_Q6_K,
     {LAYERS_OF_4_QUERIES, QUANT_TYPE_Q5_K, QUANT_TYPE_IQ4_NL},
     {LAYERS_FIRST_8TH, QUANT_TYPE_Q5_K, QUANT_TYPE_IQ4_NL},
     QUANT_TYPE_IQ4_NL},
    {"IQ4_XS",
     QUANT_TYPE_IQ4_XS,
     QUANT_TYPE_Q6_K,
     {LAYERS_OF_4_QUERIES, QUANT_TYPE_Q5_K, QUANT_TYPE_IQ4_XS},
     {LAYERS_FIRST_8TH, QUANT_TYPE_Q5_K, QUANT_TYPE_IQ4_XS},
     QUANT_TYPE_IQ4_XS},
};

struct shape {
    uint32_t layers, embd, ff, heads, kv_heads, vocab, of, context, seed;
    const struct mix *mix;
    bool untied, empty;
};

static enum quant_type choose(const struct choice *c, const struct shape *s, uint32_t layer)
{
    uint32_t n = s->of;
    uint32_t i = (uint32_t)((uint64_t)layer * n / s->layers);
    bool better = false;

    switch (c->layers) {
    case LAYERS_ALL:
        better = true;
        break;
    case LAYERS_MORE_BITS:
        better = i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
        break;
    case LAYERS_FIRST_2:
        better = i < 2;
        break;
    case LAYERS_FIRST_8TH:
        better = i < n / 8;
        break;
    case LAYERS_FIRST_16TH:
        better = i < n / 16;
        break;
    case LAYERS_OF_4_QUERIES:
        better = s->heads / s->kv_heads >= 4;
        break;
    }
    return better ? c->better : c->other;
}

/* --- random blocks --- */

struct random {
    uint64_t state;
};

/* SplitMix64. */
static uint64_t random_word(struct random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void random_bytes(struct random *r, void *to, size_t size)
{
    uint8_t *at = to;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = random_word(r);
        memcpy(at + i, &word, size - i < 8 ? size - i : 8);
    }
}

/* Uniform in [-1, 1). */
static float random_unit(struct random *r)
{
    return (float)(int32_t)(uint32_t)random_word(r) * 0x1p-31f;
}

/* The root mean square of a block's weights over its d, quants and sub-scales being any bits that
 * random_block leaves. Types whose quants do not stand around 0 (or not quite) have scales of
 * either sign instead, or a minimum that moves them there. */
static float block_rms(enum quant_type type)
{
    switch (type) {
    case QUANT_TYPE_Q4_0:
    case QUANT_TYPE_Q4_1:
        return 4.6f;
    case QUANT_TYPE_Q5_0:
    case QUANT_TYPE_Q5_1:
        return 9.2f;
    case QUANT_TYPE_Q8_0:
        return 74.0f;
    case QUANT_TYPE_Q2_K:
        return 1.12f * 11.7f;
    case QUANT_TYPE_Q3_K:
        return 2.3f * 18.5f;
    case QUANT_TYPE_Q4_K:
        return 4.6f * 48.4f;
    case QUANT_TYPE_Q5_K:
        return 9.2f * 48.4f;
    case QUANT_TYPE_Q6_K:
        return 18.5f * 74.0f;
    case QUANT_TYPE_IQ4_NL:
        return 66.0f;
    case QUANT_TYPE_IQ4_XS:
        return 66.0f * 18.5f;
    case QUANT_TYPE_MXFP4:
        return 5.9f;
    default:
        return 0.577f;
    }
}

/* 6-bit scales of 32 to 63, each with itself as its minimum, in the 12 bytes of Q4_K and Q5_K: the
 * first four pairs in the low 6 bits of bytes 0 .. 7; of the others the low halves in bytes 8 ..
 * 11, bits 4 and 5 on top of bytes 0 .. 7. */
static void scales_k4(struct random *r, uint8_t scales[12])
{
    uint8_t s[8];
    random_bytes(r, s, sizeof s);
    for (int i = 0; i < 8; i++)
        s[i] = (uint8_t)(32 | (s[i] & 31));
    for (int i = 0; i < 4; i++) {
        scales[i] = scales[i + 4] = (uint8_t)(s[i] | (s[i + 4] >> 4) << 6);
        scales[i + 8] = (uint8_t)((s[i + 4] & 15) | (s[i + 4] & 15) << 4);
    }
}

static void put_half(uint8_t *block, size_t at, float value)
{
    uint16_t half = half_from_float(value);
    memcpy(block + at, &half, sizeof half);
}

#define D(kind)        offsetof(struct block_##kind, d)
#define MIN(kind, min) offsetof(struct block_##kind, min)

/* One block of weights whose root mean square is about `rms`. */
static void random_block(struct random *r, enum quant_type type, float rms, uint8_t *block)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    float d = rms / block_rms(type) * (1.0f + 0.25f * random_unit(r));
    float either = random_word(r) & 1 ? d : -d;

    if (info->block_items > 1)
        random_bytes(r, block, info->block_bytes);
    switch (type) {
    case QUANT_TYPE_F32: {
        float value = random_unit(r) * rms / block_rms(type);
        memcpy(block, &value, sizeof value);
        break;
    }
    case QUANT_TYPE_F16:
        put_half(block, 0, random_unit(r) * rms / block_rms(type));
        break;
    case QUANT_TYPE_BF16: {
        float value = random_unit(r) * rms / block_rms(type);
        memcpy(block, (const uint8_t *)&value + 2, 2);
        break;
    }
    case QUANT_TYPE_Q4_0:
    case QUANT_TYPE_Q5_0:
    case QUANT_TYPE_Q8_0:
    case QUANT_TYPE_IQ4_NL:
        put_half(block, D(q4_0), either); /* the first two bytes in all of them */
        break;
    case QUANT_TYPE_Q4_1:
        put_half(block, D(q4_1), d);
        put_half(block, MIN(q4_1, m), -7.5f * d);
        break;
    case QUANT_TYPE_Q5_1:
        put_half(block, D(q5_1), d);
        put_half(block, MIN(q5_1, m), -15.5f * d);
        break;
    case QUANT_TYPE_Q2_K:
        for (int i = 0; i < 16; i++) {
            uint8_t s = 8 | (block[i] & 7);
            block[i] = (uint8_t)(s | s << 4);
        }
        put_half(block, D(q2_k), d);
        put_half(block, MIN(q2_k, dmin), 1.5f * d);
        break;
    case QUANT_TYPE_Q3_K:
        put_half(block, D(q3_k), d);
        break;
    case QUANT_TYPE_Q4_K:
        scales_k4(r, block + offsetof(struct block_q4_k, scales));
        put_half(block, D(q4_k), d);
        put_half(block, MIN(q4_k, dmin), 7.5f * d);
        break;
    case QUANT_TYPE_Q5_K:
        scales_k4(r, block + offsetof(struct block_q5_k, scales));
        put_half(block, D(q5_k), d);
        put_half(block, MIN(q5_k, dmin), 15.5f * d);
        break;
    case QUANT_TYPE_Q6_K:
        put_half(block, D(q6_k), d);
        break;
    case QUANT_TYPE_IQ4_XS:
        put_half(block, D(iq4_xs), d);
        break;
    case QUANT_TYPE_MXFP4:
        block[offsetof(struct block_mxfp4, e)] = (uint8_t)(128 + lrintf(log2f(d)));
        break;
    }
}

/* --- the file --- */

struct tensor {
    char name[64];
    enum quant_type type;
    uint32_t cols, rows;  /* rows 0: a vector */
    float middle, spread; /* of a vector */
};

struct tensors {
    struct tensor *at;
    size_t count;
};

static void add(struct tensors *t, const char *name, enum quant_type type, uint32_t cols,
                uint32_t rows, float middle, float spread)
{
    t->at = realloc(t->at, (t->count + 1) * sizeof *t->at);
    CHECK(t->at != NULL);
    t->at[t->count] = (struct tensor){
        .type = type, .cols = cols, .rows = rows, .middle = middle, .spread = spread};
    (void)snprintf(t->at[t->count++].name, sizeof t->at->name, "%s", name);
}

static void list_tensors(const struct shape *s, struct tensors *t)
{
    const struct mix *m = s->mix;
    uint32_t dim = s->embd / s->heads, kv = s->kv_heads * dim;

    add(t, "token_embd.weight", s->untied ? m->base : m->head, s->embd, s->vocab, 0, 0);
    if (s->untied)
        add(t, "output.weight", m->head, s->embd, s->vocab, 0, 0);
    add(t, "output_norm.weight", QUANT_TYPE_F32, s->embd, 0, 1, 0.1f);
    for (uint32_t i = 0; i < s->layers; i++) {
        const struct {
            const char *name;
            enum quant_type type;
            uint32_t cols, rows;
        } parts[] = {
            {"attn_norm.weight", QUANT_TYPE_F32, s->embd, 0},
            {"attn_q.weight", m->base, s->embd, s->embd},
            {"attn_q.bias", QUANT_TYPE_F32, s->embd, 0},
            {"attn_k.weight", m->base, s->embd, kv},
            {"attn_k.bias", QUANT_TYPE_F32, kv, 0},
            {"attn_v.weight", choose(&m->v, s, i), s->embd, kv},
            {"attn_v.bias", QUANT_TYPE_F32, kv, 0},
            {"attn_output.weight", m->output, s->embd, s->embd},
            {"ffn_norm.weight", QUANT_TYPE_F32, s->embd, 0},
            {"ffn_gate.weight", m->base, s->embd, s->ff},
            {"ffn_up.weight", m->base, s->embd, s->ff},
            {"ffn_down.weight", choose(&m->down, s, i), s->ff, s->embd},
        };
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
            char name[64];
            bool bias = strstr(parts[k].name, ".bias") != NULL;
            (void)snprintf(name, sizeof name, "blk.%u.%s", i, parts[k].name);
            add(t, name, parts[k].type, parts[k].cols, parts[k].rows, bias ? 0 : 1, 0.1f);
        }
    }
}

static void put_keys(struct gguf_build *b, const struct shape *s)
{
    gguf_build_string(b, "general.architecture", "qwen2");
    gguf_build_string(b, "general.name", "synthetic");
    gguf_build_u32(b, "qwen2.block_count", s->layers);
    gguf_build_u32(b, "qwen2.context_length", s->context);
    gguf_build_u32(b, "qwen2.embedding_length", s->embd);
    gguf_build_u32(b, "qwen2.feed_forward_length", s->ff);
    gguf_build_u32(b, "qwen2.attention.head_count", s->heads);
    gguf_build_u32(b, "qwen2.attention.head_count_kv", s->kv_heads);
    gguf_build_f32(b, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_build_f32(b, "qwen2.rope.freq_base", 1e6f);
}

/* Token i is a byte, a pair of bytes or three: of its last one the number, and of those before it
 * the token. */
struct spelling {
    uint32_t before, last;
};

#define PAIRS_END  (256u + 256u * 256u)
#define VOCAB_MOST (1u << 20)

static struct spelling spell(uint32_t i)
{
    if (i < PAIRS_END)
        return (struct spelling){(i - 256) / 256, (i - 256) % 256};
    return (struct spelling){256 + (i - PAIRS_END) / 256, (i - PAIRS_END) % 256};
}

/* Bytes, then pairs of bytes, then as many threes as it takes, then one control token. */
static void put_vocabulary(struct gguf_build *b, uint32_t vocab)
{
    char bytes[256][4];
    uint32_t pairs = vocab - 257;
    char(*texts)[16] = calloc(vocab, sizeof *texts), (*merges)[16] = calloc(pairs + 1, 16);
    const char **list = calloc(vocab, sizeof *list);
    int32_t *types = calloc(vocab, sizeof *types);

    CHECK(texts != NULL && merges != NULL && list != NULL && types != NULL);
    gguf_build_alphabet(bytes);
    for (uint32_t i = 0; i < vocab; i++) {
        if (i < 256) {
            (void)snprintf(texts[i], sizeof texts[i], "%s", bytes[i]);
        } else {
            const struct spelling of = spell(i);
            const char *before = texts[of.before], *last = bytes[of.last];
            (void)snprintf(texts[i], sizeof texts[i], "%.7s%s", before, last);
            if (i - 256 < pairs)
                (void)snprintf(merges[i - 256], sizeof merges[0], "%.7s %s", before, last);
        }
        list[i] = i + 1 == vocab ? "<|endoftext|>" : texts[i];
        types[i] = i + 1 == vocab ? 3 : 1;
    }
    gguf_build_string(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(b, "tokenizer.ggml.pre", "qwen2");
    gguf_build_strings(b, "tokenizer.ggml.tokens", list, vocab);
    gguf_build_i32s(b, "tokenizer.ggml.token_type", types, vocab);
    for (uint32_t i = 0; i < pairs; i++)
        list[i] = merges[i];
    gguf_build_strings(b, "tokenizer.ggml.merges", list, pairs);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", vocab - 1);
    gguf_build_u32(b, "tokenizer.ggml.padding_token_id", vocab - 1);
    free(texts);
    free(merges);
    free(list);
    free(types);
}

static uint64_t row_bytes(const struct tensor *t)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)t->type);
    if (t->cols % info->block_items != 0) {
        fprintf(stderr, "synthetic_model: %s: rows of %u elements are not whole %s blocks of %u\n",
                t->name, t->cols, info->name, info->block_items);
        exit(1);
    }
    return (uint64_t)t->cols / info->block_items * info->block_bytes;
}

/* Returns the size of the data behind the header. */
static uint64_t put_entries(struct gguf_build *b, const struct tensors *tensors)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        const struct tensor *t = &tensors->at[i];
        const uint64_t dims[2] = {t->cols, t->rows};
        gguf_build_tensor_entry(b, t->name, t->rows == 0 ? 1 : 2, dims, (uint32_t)t->type, offset);
        offset += row_bytes(t) * (t->rows == 0 ? 1 : t->rows);
        offset = (offset + b->alignment - 1) / b->alignment * b->alignment;
    }
    return offset;
}

/* The same bytes whatever other tensors there are. */
static void write_tensor(const struct tensor *t, uint32_t seed, FILE *to)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)t->type);
    struct random r = {.state = seed};
    uint64_t size = row_bytes(t), written = 0;
    uint8_t *row = malloc(size);

    CHECK(row != NULL);
    for (const char *c = t->name; *c != 0; c++)
        r.state = r.state * 1099511628211u + (uint8_t)*c;
    for (uint32_t i = 0; i < (t->rows == 0 ? 1 : t->rows); i++) {
        for (uint32_t k = 0; k < t->cols / info->block_items; k++) {
            if (t->rows == 0) {
                float value = t->middle + t->spread * random_unit(&r);
                memcpy(row + k * sizeof value, &value, sizeof value);
            } else {
                random_block(&r, t->type, 1.0f / sqrtf((float)t->cols),
                             row + k * info->block_bytes);
            }
        }
        written += fwrite(row, 1, size, to);
    }
    for (; written % 32 != 0; written++)
        (void)fputc(0, to);
    free(row);
}

static bool write_model(const struct shape *s, const char *path)
{
    struct tensors tensors = {0};
    struct gguf_build b;
    struct buf header;
    FILE *to = fopen(path, "wbe");

    if (to == NULL)
        return false;
    list_tensors(s, &tensors);
    gguf_build_init(&b);
    put_keys(&b, s);
    put_vocabulary(&b, s->vocab);
    uint64_t size = put_entries(&b, &tensors);
    gguf_build_finish(&b, &header);
    (void)fwrite(header.data, 1, header.size, to);
    for (size_t i = 0; i < tensors.count && !s->empty; i++)
        write_tensor(&tensors.at[i], s->seed, to);
    bool failed = fflush(to) != 0 || ferror(to) != 0;
    if (s->empty && !failed)
        failed = ftruncate(fileno(to), (off_t)(header.size + size)) != 0;
    free(tensors.at);
    buf_fini(&header);
    gguf_build_fini(&b);
    return fclose(to) == 0 && !failed;
}

/* --- the command line --- */

static uint32_t number(const char *option, const char *text, uint32_t least, uint32_t most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || value < least || value > most) {
        fprintf(stderr, "synthetic_model: --%s %s: %u to %u are allowed\n", option, text, least,
                most);
        exit(2);
    }
    return (uint32_t)value;
}

static const struct mix *mix_find(const char *name)
{
    for (size_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++)
        if (strcmp(mixes[i].name, name) == 0)
            return &mixes[i];
    fprintf(stderr, "synthetic_model: no type %s; --list prints those there are\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    struct shape s = {.layers = 6,
                      .embd = 1536,
                      .ff = 8960,
                      .heads = 12,
                      .kv_heads = 2,
                      .vocab = 32000,
                      .of = 28,
                      .context = 8192,
                      .seed = 1,
                      .mix = mix_find("Q4_K_M")};
    const struct {
        const char *name;
        uint32_t *value;
        uint32_t least, most;
    } numbers[] = {
        {"layers", &s.layers, 1, 1024},
        {"embd", &s.embd, 32, 1u << 17},
        {"ff", &s.ff, 32, 1u << 20},
        {"heads", &s.heads, 1, 1024},
        {"kv-heads", &s.kv_heads, 1, 1024},
        {"vocab", &s.vocab, 300, VOCAB_MOST},
        {"of", &s.of, 1, 1024},
        {"context", &s.context, 2, 1u << 27},
        {"seed", &s.seed, 0, UINT32_MAX},
    };
    enum { NUMBERS = sizeof numbers / sizeof numbers[0], TYPE = NUMBERS, LIST, UNTIED, EMPTY };
    struct option options[NUMBERS + 5] = {{0}};
    int c;

    for (int i = 0; i < NUMBERS; i++)
        options[i] = (struct option){numbers[i].name, required_argument, NULL, i};
    options[NUMBERS] = (struct option){"type", required_argument, NULL, TYPE};
    options[NUMBERS + 1] = (struct option){"list", no_argument, NULL, LIST};
    options[NUMBERS + 2] = (struct option){"untied", no_argument, NULL, UNTIED};
    options[NUMBERS + 3] = (struct option){"empty", no_argument, NULL, EMPTY};
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == LIST) {
            for (size_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++)
                puts(mixes[i].name);
            return 0;
        }
        s.untied = s.untied || c == UNTIED;
        s.empty = s.empty || c == EMPTY;
        if (c == TYPE)
            s.mix = mix_find(optarg);
        else if (c >= 0 && c < NUMBERS)
            *numbers[c].value = number(numbers[c].name, optarg, numbers[c].least, numbers[c].most);
        else if (c != UNTIED && c != EMPTY)
            return 2;
    }
    if (optind + 1 != argc || s.embd % s.heads != 0 || s.heads % s.kv_heads != 0) {
        fputs("usage: synthetic_model FILE [options at the top of its source]; heads divide the "
              "width, kv-heads the heads\n",
              stderr);
        return 2;
    }
    if (!write_model(&s, argv[optind])) {
        perror(argv[optind]);
        return 1;
    }
    return 0;
}
