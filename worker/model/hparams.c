#include "worker/model/hparams.h"

#include "common/check.h"
#include "common/crypto.h"
#include "worker/model/arch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES    96
#define DIGEST_CHUNK (1u << 20)

static void key_join(char ret[KEY_BYTES], const struct model_arch *a, const char *name)
{
    int n = snprintf(ret, KEY_BYTES, "%s.%s", a->name, name);
    CHECK(n > 0 && n < KEY_BYTES);
}

/* --- keys --- */

static enum err key_read_size(const struct gguf *g, const struct arch_key *k, const char *key,
                              uint32_t *ret, struct errbuf *eb)
{
    uint32_t value;
    enum err e = gguf_get_u32(g, key, &value, eb);
    if (e == ERR_NOT_FOUND && k->optional)
        return ERR_OK;
    if (e != ERR_OK)
        return e;
    if (value == 0)
        return err_set(eb, ERR_INVALID, "key '%s' is 0", key);
    if (value > k->max)
        return err_set(eb, ERR_TOO_LARGE, "key '%s': %" PRIu32 " is over the bound of %" PRIu32,
                       key, value, k->max);
    *ret = value;
    return ERR_OK;
}

static enum err key_read_positive(const struct gguf *g, const char *key, bool optional, float *ret,
                                  struct errbuf *eb)
{
    float value;
    enum err e = gguf_get_f32(g, key, &value, eb);
    if (e == ERR_NOT_FOUND && optional)
        return ERR_OK;
    if (e != ERR_OK)
        return e;
    if (!isfinite(value) || value <= 0.0f)
        return err_set(eb, ERR_INVALID, "key '%s': %g is not a finite number above 0", key,
                       (double)value);
    *ret = value;
    return ERR_OK;
}

static enum err key_read(struct model_hparams *h, const struct gguf *g, const struct arch_key *k,
                         const char *key, struct errbuf *eb)
{
    uint32_t number;
    bool truth;
    enum err e;
    switch (k->kind) {
    case ARCH_KEY_SIZE:
        return key_read_size(g, k, key, (uint32_t *)(void *)((char *)h + k->field), eb);
    case ARCH_KEY_POSITIVE:
        return key_read_positive(g, key, k->optional, (float *)(void *)((char *)h + k->field), eb);
    case ARCH_KEY_MUST_BE:
        e = gguf_get_u32(g, key, &number, eb);
        if (e == ERR_OK && number != k->max)
            return err_set(eb, ERR_UNSUPPORTED,
                           "key '%s' is %" PRIu32 "; this build computes only with %" PRIu32, key,
                           number, k->max);
        return e == ERR_NOT_FOUND ? ERR_OK : e;
    case ARCH_KEY_MUST_TRUE:
        e = gguf_get_bool(g, key, &truth, eb);
        if (e == ERR_OK && !truth)
            return err_set(eb, ERR_UNSUPPORTED, "key '%s' is false; this build has only true", key);
        return e == ERR_NOT_FOUND ? ERR_OK : e;
    case ARCH_KEY_IGNORED:
    case ARCH_KEY_ROPE:
        break;
    }
    return ERR_OK;
}

/* A key under the architecture's prefix that is not in its table changes the model in a way
 * nobody here has thought of. */
static enum err keys_check_known(const struct model_arch *a, const struct gguf *g,
                                 struct errbuf *eb)
{
    size_t prefix = strlen(a->name);
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        struct gguf_string name = gguf_key_at(g, i, NULL, NULL, NULL);
        if (name.size <= prefix + 1 || memcmp(name.bytes, a->name, prefix) != 0 ||
            name.bytes[prefix] != '.')
            continue;
        struct gguf_string rest = {.bytes = name.bytes + prefix + 1,
                                   .size = name.size - prefix - 1};
        bool known = false;
        for (size_t k = 0; k < a->n_keys && !known; k++)
            known = gguf_string_equal(rest, a->keys[k].name);
        if (!known) {
            char text[KEY_BYTES];
            gguf_string_print(name, text, sizeof text);
            return err_set(eb, ERR_UNSUPPORTED,
                           "key '%s' is not one this build knows for %s models; without it the "
                           "answers could be wrong",
                           text, a->name);
        }
    }
    return ERR_OK;
}

static enum err rope_read(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    char key[KEY_BYTES];
    float factor = 1.0f;
    struct gguf_string type = {.bytes = "linear", .size = 6};

    key_join(key, h->arch, "rope.scale_linear"); /* the name before there were types */
    enum err e = key_read_positive(g, key, true, &factor, eb);
    if (e != ERR_OK)
        return e;
    key_join(key, h->arch, "rope.scaling.factor");
    e = key_read_positive(g, key, true, &factor, eb);
    if (e != ERR_OK)
        return e;
    key_join(key, h->arch, "rope.scaling.type");
    e = gguf_get_string(g, key, &type, eb);
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    if (gguf_string_equal(type, "none")) {
        h->rope_scale = 1.0f;
    } else if (gguf_string_equal(type, "linear")) {
        h->rope_scale = 1.0f / factor;
    } else {
        char text[40];
        gguf_string_print(type, text, sizeof text);
        return err_set(eb, ERR_UNSUPPORTED, "key '%s': '%s' is not one of none, linear", key, text);
    }
    if (!isfinite(h->rope_scale) || h->rope_scale <= 0.0f)
        return err_set(eb, ERR_INVALID, "key '%s': scaling by 1/%g leaves the float range", key,
                       (double)factor);
    return ERR_OK;
}

/* What is left to defaults, and whether the sizes go together. */
static enum err sizes_check(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    char key[KEY_BYTES];
    if (h->n_kv_heads == 0)
        h->n_kv_heads = h->n_heads;
    key_join(key, h->arch, "attention.head_count_kv");
    if (h->n_heads % h->n_kv_heads != 0)
        return err_set(eb, ERR_INVALID,
                       "key '%s': %" PRIu32 " key/value heads do not divide %" PRIu32 " heads", key,
                       h->n_kv_heads, h->n_heads);
    key_join(key, h->arch, "attention.head_count");
    if (h->head_dim == 0) {
        if (h->n_embd % h->n_heads != 0)
            return err_set(eb, ERR_INVALID,
                           "key '%s': %" PRIu32 " heads do not divide %" PRIu32
                           " elements, and there is no attention.key_length",
                           key, h->n_heads, h->n_embd);
        h->head_dim = h->n_embd / h->n_heads;
        if (h->head_dim > MODEL_HEAD_DIM_MAX)
            return err_set(eb, ERR_TOO_LARGE,
                           "key '%s': heads of %" PRIu32 " elements are over the bound of %u", key,
                           h->head_dim, MODEL_HEAD_DIM_MAX);
    }
    if (h->head_dim % 2 != 0)
        return err_set(eb, ERR_INVALID,
                       "heads of %" PRIu32
                       " elements (%s.attention.key_length, or embedding_length "
                       "over head_count): an odd number cannot turn in pairs",
                       h->head_dim, h->arch->name);

    uint32_t value_dim = h->head_dim;
    const struct arch_key value_key = {"", ARCH_KEY_SIZE, 0, MODEL_HEAD_DIM_MAX, true};
    key_join(key, h->arch, "attention.value_length");
    enum err e = key_read_size(g, &value_key, key, &value_dim, eb);
    if (e != ERR_OK)
        return e;
    if (value_dim != h->head_dim)
        return err_set(eb, ERR_UNSUPPORTED,
                       "key '%s': values of %" PRIu32 " elements beside keys of %" PRIu32, key,
                       value_dim, h->head_dim);

    key_join(key, h->arch, "rope.dimension_count");
    if (h->rope_dim == 0)
        h->rope_dim = h->head_dim;
    if (h->rope_dim % 2 != 0 || h->rope_dim > h->head_dim)
        return err_set(eb, ERR_INVALID,
                       "key '%s': %" PRIu32 " is not an even number up to the %" PRIu32
                       " elements of a head",
                       key, h->rope_dim, h->head_dim);
    return ERR_OK;
}

/* The embedding's rows decide; a key and the tokenizer's list must say the same. */
static enum err vocab_check(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, "token_embd.weight");
    if (t == NULL)
        return err_set(eb, ERR_NOT_FOUND, "tensor 'token_embd.weight' is missing");
    uint64_t rows = t->dims[1];
    if (rows > MODEL_VOCAB_MAX)
        return err_set(eb, ERR_TOO_LARGE,
                       "tensor 'token_embd.weight': %" PRIu64 " rows are over the bound of %u",
                       rows, MODEL_VOCAB_MAX);
    if (h->vocab_size != 0 && h->vocab_size != rows)
        return err_set(eb, ERR_INVALID,
                       "key '%s.vocab_size' is %" PRIu32
                       ", but tensor 'token_embd.weight' has %" PRIu64 " rows",
                       h->arch->name, h->vocab_size, rows);
    uint64_t count;
    enum err e = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_VALUE_STRING, &count, eb);
    if (e != ERR_OK)
        return e;
    if (count != rows)
        return err_set(eb, ERR_INVALID,
                       "key 'tokenizer.ggml.tokens' has %" PRIu64
                       " tokens, but tensor 'token_embd.weight' has %" PRIu64 " rows",
                       count, rows);
    h->vocab_size = (uint32_t)rows;
    return ERR_OK;
}

/* --- tensors --- */

static uint64_t dim_value(const struct model_hparams *h, enum arch_dim dim)
{
    switch (dim) {
    case ARCH_DIM_NONE:
        return 1;
    case ARCH_DIM_EMBD:
        return h->n_embd;
    case ARCH_DIM_FF:
        return h->n_ff;
    case ARCH_DIM_HEADS:
        return (uint64_t)h->n_heads * h->head_dim;
    case ARCH_DIM_KV:
        return (uint64_t)h->n_kv_heads * h->head_dim;
    case ARCH_DIM_HEAD:
        return h->head_dim;
    case ARCH_DIM_VOCAB:
        return h->vocab_size;
    case ARCH_DIM_ROPE_HALF:
        return h->rope_dim / 2;
    }
    return 0;
}

static enum err tensor_check(const struct model_hparams *h, const struct arch_tensor *a,
                             const char *name, const struct gguf_tensor *t, struct errbuf *eb)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)t->type);
    uint64_t want[2] = {dim_value(h, a->dims[0]), dim_value(h, a->dims[1])};
    if (t->dims[0] != want[0] || t->dims[1] != want[1] || t->dims[2] != 1 || t->dims[3] != 1)
        return err_set(eb, ERR_INVALID,
                       "tensor '%s' is %" PRIu64 " x %" PRIu64 " x %" PRIu64 " x %" PRIu64
                       ", but the model's sizes make it %" PRIu64 " x %" PRIu64,
                       name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], want[0], want[1]);
    if (!info->supported)
        return err_set(eb, ERR_UNSUPPORTED,
                       "tensor '%s' has type %s (id %d), which this build "
                       "has no kernels for",
                       name, info->name, (int)t->type);
    if (a->class == ARCH_CLASS_NORM && t->type != QUANT_TYPE_F32)
        return err_set(eb, ERR_UNSUPPORTED,
                       "tensor '%s' has type %s (id %d); a vector of this kind is F32", name,
                       info->name, (int)t->type);
    if (a->class == ARCH_CLASS_NORM && t->data != NULL) {
        for (uint64_t i = 0; i < want[0]; i++) {
            float value;
            memcpy(&value, t->data + i * sizeof value, sizeof value);
            bool divisor = a->dims[0] == ARCH_DIM_ROPE_HALF;
            if (!isfinite(value) || (divisor && value <= 0.0f))
                return err_set(eb, ERR_INVALID, "tensor '%s': element %" PRIu64 " is %g", name, i,
                               (double)value);
        }
    }
    return ERR_OK;
}

static enum err tensor_find(void *base, const struct model_hparams *h, const struct arch_tensor *a,
                            const char *name, const struct gguf *g, size_t *ret_found,
                            struct errbuf *eb)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    if (t == NULL && a->optional)
        return ERR_OK;
    if (t == NULL)
        return err_set(eb, ERR_NOT_FOUND, "tensor '%s' is missing", name);
    enum err e = tensor_check(h, a, name, t, eb);
    if (e != ERR_OK)
        return e;
    memcpy((char *)base + a->field, &t, sizeof t);
    *ret_found += 1;
    return ERR_OK;
}

/* Whether the tables have a place for this name, and whether the layer is one of the model's. */
static const struct arch_tensor *tensor_role(const struct model_hparams *h, struct gguf_string name,
                                             uint32_t *ret_layer)
{
    const struct model_arch *a = h->arch;
    for (size_t i = 0; i < a->n_tensors; i++) {
        if (gguf_string_equal(name, a->tensors[i].name))
            return &a->tensors[i];
    }
    for (size_t i = 0; i < a->n_layer_tensors; i++) {
        const char *tail = a->layer_tensors[i].name;
        size_t tail_size = strlen(tail);
        if (name.size < tail_size + 6 || memcmp(name.bytes, "blk.", 4) != 0 ||
            memcmp(name.bytes + name.size - tail_size, tail, tail_size) != 0 ||
            name.bytes[name.size - tail_size - 1] != '.')
            continue;
        char whole[80];
        uint32_t layer = 0;
        for (size_t d = 4; d < name.size - tail_size - 1 && d < 12; d++)
            layer = layer * 10 + (uint32_t)((unsigned char)name.bytes[d] - '0');
        (void)snprintf(whole, sizeof whole, "blk.%" PRIu32 ".%s", layer, tail);
        if (layer < h->n_layers && gguf_string_equal(name, whole)) {
            *ret_layer = layer;
            return &a->layer_tensors[i];
        }
    }
    return NULL;
}

enum err model_tensors_find(struct model_tensors *ret, const struct model_hparams *h,
                            const struct gguf *g, struct errbuf *eb)
{
    const struct model_arch *a = h->arch;
    struct model_tensors t = {0};
    size_t n_found = 0;
    enum err e = ERR_OK;
    char name[80];

    t.layers = calloc(h->n_layers, sizeof *t.layers);
    if (t.layers == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the tensors of %" PRIu32 " layers",
                       h->n_layers);
    for (size_t i = 0; i < a->n_tensors && e == ERR_OK; i++)
        e = tensor_find(&t, h, &a->tensors[i], a->tensors[i].name, g, &n_found, eb);
    for (uint32_t layer = 0; layer < h->n_layers && e == ERR_OK; layer++) {
        for (size_t i = 0; i < a->n_layer_tensors && e == ERR_OK; i++) {
            (void)snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", layer,
                           a->layer_tensors[i].name);
            e = tensor_find(&t.layers[layer], h, &a->layer_tensors[i], name, g, &n_found, eb);
        }
    }
    /* A bias, an expert or an adapter left out would change the answers without a sign. */
    for (size_t i = 0; e == ERR_OK && n_found < gguf_tensor_count(g) && i < gguf_tensor_count(g);
         i++) {
        uint32_t layer;
        struct gguf_string s = gguf_tensor_at(g, i)->name;
        if (tensor_role(h, s, &layer) == NULL) {
            gguf_string_print(s, name, sizeof name);
            e = err_set(eb, ERR_UNSUPPORTED,
                        "tensor '%s' has no place in a %s model of %" PRIu32 " layers", name,
                        a->name, h->n_layers);
        }
    }
    if (e != ERR_OK) {
        model_tensors_fini(&t);
        return e;
    }
    if (t.output == NULL)
        t.output = t.token_embd;
    *ret = t;
    return ERR_OK;
}

void model_tensors_fini(struct model_tensors *t)
{
    free(t->layers);
    *t = (struct model_tensors){0};
}

/* --- the whole --- */

enum err model_hparams_read(struct model_hparams *ret, const struct gguf *g, struct errbuf *eb)
{
    struct model_hparams h = {0};
    struct gguf_string s;
    char key[KEY_BYTES];

    enum err e = gguf_get_string(g, "general.architecture", &s, eb);
    if (e != ERR_OK)
        return e;
    h.arch = model_arch_find(s);
    if (h.arch == NULL) {
        gguf_string_print(s, key, sizeof key);
        return err_set(eb, ERR_UNSUPPORTED, "key 'general.architecture': '%s' is not one of %s",
                       key, model_arch_list());
    }
    if (gguf_has(g, "general.name")) {
        e = gguf_get_string(g, "general.name", &s, eb);
        if (e != ERR_OK)
            return e;
        gguf_string_print(s, h.name, sizeof h.name);
    }
    h.rope_style = h.arch->rope_style;
    h.rope_base = h.arch->rope_base;
    e = keys_check_known(h.arch, g, eb);
    for (size_t i = 0; i < h.arch->n_keys && e == ERR_OK; i++) {
        key_join(key, h.arch, h.arch->keys[i].name);
        e = key_read(&h, g, &h.arch->keys[i], key, eb);
    }
    if (e == ERR_OK)
        e = sizes_check(&h, g, eb);
    if (e == ERR_OK)
        e = rope_read(&h, g, eb);
    if (e == ERR_OK)
        e = vocab_check(&h, g, eb);
    if (e != ERR_OK)
        return e;

    struct model_tensors t = {0};
    e = model_tensors_find(&t, &h, g, eb);
    if (e != ERR_OK)
        return e;
    h.tied_embedding = t.output == t.token_embd;
    model_tensors_fini(&t);
    *ret = h;
    return ERR_OK;
}

const char *model_arch_name(const struct model_hparams *h)
{
    return h->arch->name;
}

enum err model_estimate_bytes(struct model_estimate *ret, const struct model_hparams *h,
                              const struct gguf *g, uint32_t kv_block_items,
                              uint32_t kv_block_bytes, struct errbuf *eb)
{
    struct model_estimate m = {0};
    if (kv_block_items == 0 || kv_block_bytes == 0 || h->head_dim % kv_block_items != 0)
        return err_set(eb, ERR_INVALID,
                       "a cache in blocks of %" PRIu32 " elements does not fit heads of %" PRIu32,
                       kv_block_items, h->head_dim);
    uint64_t *layers = calloc(h->n_layers, sizeof *layers);
    if (layers == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %" PRIu32 " layers", h->n_layers);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        uint32_t layer = UINT32_MAX;
        const struct arch_tensor *a = tensor_role(h, t->name, &layer);
        CHECK(a != NULL); /* model_hparams_read has seen every tensor */
        m.weights_bytes += t->size;
        switch (a->class) {
        case ARCH_CLASS_EMBEDDING:
            m.embedding_bytes += t->size;
            break;
        case ARCH_CLASS_ATTENTION:
            m.attention_bytes += t->size;
            break;
        case ARCH_CLASS_FFN:
            m.ffn_bytes += t->size;
            break;
        case ARCH_CLASS_NORM:
            m.norm_bytes += t->size;
            break;
        case ARCH_CLASS_OUTPUT:
            m.output_bytes += t->size;
            break;
        }
        if (layer != UINT32_MAX) {
            layers[layer] += t->size;
            if (layers[layer] > m.layer_bytes_max)
                m.layer_bytes_max = layers[layer];
        }
    }
    free(layers);
    m.kv_items_per_token = 2ull * h->n_layers * h->n_kv_heads * h->head_dim;
    m.kv_bytes_per_token = m.kv_items_per_token / kv_block_items * kv_block_bytes;
    *ret = m;
    return ERR_OK;
}

enum err model_file_digest(const char *path, uint8_t ret_digest[32], struct errbuf *eb)
{
    enum err e = ERR_OK;
    struct stat st;
    uint8_t *chunk = malloc(DIGEST_CHUNK);
    struct sha256_stream *s = sha256_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (chunk == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "%s: no memory for its digest", path);
        goto out;
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        e = err_set_errno(eb, errno, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        e = err_set(eb, ERR_INVALID, "%s: not a regular file", path);
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, chunk, DIGEST_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            e = err_set_errno(eb, errno, "%s: reading", path);
            goto out;
        }
        if (n == 0)
            break;
        sha256_update(s, chunk, (size_t)n);
    }
    sha256_finish(s, ret_digest);
    s = NULL;
out:
    sha256_free(s);
    free(chunk);
    if (fd >= 0)
        (void)close(fd);
    return e;
}
