#include "worker/model/hparams.h"

#include "common/check.h"
#include "worker/model/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 96
/* What rope_table.h can compute. */
#define ROPE_FACTOR_MAX    1e6f
#define ROPE_BASE_MAX      1e12f
#define ROPE_MAGNITUDE_MAX 1024.0f

static void key_join(char ret[KEY_BYTES], const struct model_arch *a, const char *name)
{
    int n = snprintf(ret, KEY_BYTES, "%s.%s", a->name, name);
    CHECK(n > 0 && n < KEY_BYTES);
}

/* --- keys --- */

static enum err size_check(const char *key, uint64_t value, uint32_t max, struct errbuf *eb)
{
    if (value == 0)
        return err_set(eb, ERR_INVALID, "key '%s' is 0", key);
    if (value > max)
        return err_set(eb, ERR_TOO_LARGE, "key '%s': %" PRIu64 " is over the bound of %" PRIu32,
                       key, value, max);
    return ERR_OK;
}

static enum err key_read_size(const struct gguf *g, const struct arch_key *k, const char *key,
                              uint32_t *ret, struct errbuf *eb)
{
    uint32_t value;
    enum err e = gguf_get_u32(g, key, &value, eb);
    if (e == ERR_NOT_FOUND && k->optional)
        return ERR_OK;
    if (e == ERR_OK)
        e = size_check(key, value, k->max, eb);
    if (e == ERR_OK)
        *ret = value;
    return e;
}

static bool key_is_array(const struct gguf *g, const char *key)
{
    uint64_t count;
    return gguf_get_array(g, key, GGUF_VALUE_U32, &count, NULL) == ERR_OK;
}

static uint32_t *layer_field(struct model_hparams *h, uint32_t layer, const struct arch_key *k)
{
    return (uint32_t *)(void *)((char *)&h->layer[layer] + k->field);
}

/* One number for all layers, or an array of one for each. */
static enum err key_read_layers(struct model_hparams *h, const struct gguf *g,
                                const struct arch_key *k, const char *key, struct errbuf *eb)
{
    uint64_t count;
    uint32_t value = 0;
    enum err e;

    if (!key_is_array(g, key)) {
        e = key_read_size(g, k, key, &value, eb);
        for (uint32_t i = 0; e == ERR_OK && i < h->n_layers; i++)
            *layer_field(h, i, k) = value;
        return e;
    }
    e = gguf_get_array(g, key, GGUF_VALUE_U32, &count, eb);
    if (e == ERR_OK && count != h->n_layers)
        e = err_set(eb, ERR_INVALID, "key '%s' has %" PRIu64 " numbers for %" PRIu32 " layers", key,
                    count, h->n_layers);
    for (uint32_t i = 0; e == ERR_OK && i < h->n_layers; i++) {
        int64_t number = gguf_array_int(g, key, i);
        e = number < 0 ? err_set(eb, ERR_INVALID, "key '%s' is %" PRId64, key, number)
                       : size_check(key, (uint64_t)number, k->max, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "layer %" PRIu32, i);
        *layer_field(h, i, k) = (uint32_t)number;
    }
    return e;
}

static enum err key_read_real(const struct gguf *g, const char *key, bool optional, bool or_zero,
                              float *ret, struct errbuf *eb)
{
    float value;
    enum err e = gguf_get_f32(g, key, &value, eb);
    if (e == ERR_NOT_FOUND && optional)
        return ERR_OK;
    if (e != ERR_OK)
        return e;
    if (!isfinite(value) || value < 0.0f || (value == 0.0f && !or_zero))
        return err_set(eb, ERR_INVALID, "key '%s': %g is not a finite number %s 0", key,
                       (double)value, or_zero ? "of at least" : "above");
    *ret = value;
    return ERR_OK;
}

static enum err key_must_be(const struct gguf *g, const struct arch_key *k, const char *key,
                            struct errbuf *eb)
{
    uint32_t number = 0;
    float value = 0.0f;
    enum err e = k->kind == ARCH_KEY_MUST_BE ? gguf_get_u32(g, key, &number, eb)
                                             : gguf_get_f32(g, key, &value, eb);
    if (e == ERR_NOT_FOUND)
        return ERR_OK;
    if (k->kind == ARCH_KEY_MUST_BE)
        value = (float)number;
    /* NaN is not equal to anything. */
    if (e == ERR_OK && !(value == k->value))
        return err_set(eb, ERR_UNSUPPORTED, "key '%s' is %.9g; this build computes only with %g",
                       key, (double)value, (double)k->value);
    return e;
}

static enum err key_must_be_true(const struct gguf *g, const char *key, struct errbuf *eb)
{
    bool truth;
    enum err e = gguf_get_bool(g, key, &truth, eb);
    if (e == ERR_OK && !truth)
        return err_set(eb, ERR_UNSUPPORTED, "key '%s' is false; this build has only true", key);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err key_read(struct model_hparams *h, const struct gguf *g, const struct arch_key *k,
                         struct errbuf *eb)
{
    char key[KEY_BYTES];
    void *field = (char *)h + k->field;

    key_join(key, h->arch, k->name);
    switch (k->kind) {
    case ARCH_KEY_SIZE:
        return key_read_size(g, k, key, field, eb);
    case ARCH_KEY_LAYER_SIZE:
        return key_read_layers(h, g, k, key, eb);
    case ARCH_KEY_POSITIVE:
        return key_read_real(g, key, k->optional, false, field, eb);
    case ARCH_KEY_CAP:
        return key_read_real(g, key, k->optional, true, field, eb);
    case ARCH_KEY_MUST_BE:
    case ARCH_KEY_MUST_BE_REAL:
        return key_must_be(g, k, key, eb);
    case ARCH_KEY_MUST_TRUE:
        return key_must_be_true(g, key, eb);
    case ARCH_KEY_IGNORED:
    case ARCH_KEY_RULE:
        break;
    }
    return ERR_OK;
}

static const struct arch_key *key_at(const struct model_arch *a, size_t index)
{
    return index < arch_n_common_keys ? &arch_common_keys[index]
                                      : &a->keys[index - arch_n_common_keys];
}

static size_t key_count(const struct model_arch *a)
{
    return arch_n_common_keys + a->n_keys;
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
        for (size_t k = 0; k < key_count(a) && !known; k++)
            known = gguf_string_equal(rest, key_at(a, k)->name);
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

/* --- rules: what takes more than one key --- */

static enum err rope_type_read(struct model_rope *rope, const struct model_arch *a,
                               const struct gguf *g, struct errbuf *eb)
{
    char key[KEY_BYTES], text[40];
    struct gguf_string type = {.bytes = "linear", .size = 6};
    enum err e;

    key_join(key, a, "rope.scaling.type");
    e = gguf_get_string(g, key, &type, eb);
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    if (gguf_string_equal(type, "none")) {
        rope->factor = 1.0f;
    } else if (a->yarn && gguf_string_equal(type, "yarn")) {
        rope->yarn = true;
    } else if (!gguf_string_equal(type, "linear")) {
        gguf_string_print(type, text, sizeof text);
        return err_set(eb, ERR_UNSUPPORTED, "key '%s': '%s' is not one of none, linear%s", key,
                       text, a->yarn ? ", yarn" : "");
    }
    return ERR_OK;
}

static enum err range_check(const char *key, float value, float least, float most,
                            struct errbuf *eb)
{
    if (value >= least && value <= most)
        return ERR_OK;
    return err_set(eb, ERR_INVALID, "key '%s': %g is not in %g to %g, which can be computed", key,
                   (double)value, (double)least, (double)most);
}

static enum err rope_read(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    const struct model_arch *a = h->arch;
    struct model_rope rope = {.base = a->rope_base, .factor = 1.0f, .magnitude = 1.0f};
    struct model_rope local = {.base = a->local_rope_base, .factor = 1.0f, .magnitude = 1.0f};
    const struct arch_key context = {.max = MODEL_CONTEXT_MAX, .optional = true};
    char key[KEY_BYTES];

    key_join(key, a, "rope.freq_base");
    enum err e = key_read_real(g, key, a->rope_base > 0.0f, false, &rope.base, eb);
    if (e == ERR_OK)
        e = range_check(key, rope.base, 1.0f, ROPE_BASE_MAX, eb);
    if (e == ERR_OK && a->window_period > 0) {
        key_join(key, a, "rope.freq_base_swa");
        e = key_read_real(g, key, true, false, &local.base, eb);
        if (e == ERR_OK)
            e = range_check(key, local.base, 1.0f, ROPE_BASE_MAX, eb);
    }
    if (e == ERR_OK) {
        key_join(key, a, "rope.scale_linear"); /* the name before there were types */
        e = key_read_real(g, key, true, false, &rope.factor, eb);
    }
    if (e == ERR_OK) {
        key_join(key, a, "rope.scaling.factor");
        e = key_read_real(g, key, true, false, &rope.factor, eb);
    }
    if (e == ERR_OK)
        e = range_check(key, rope.factor, 1.0f, ROPE_FACTOR_MAX, eb);
    if (e == ERR_OK)
        e = rope_type_read(&rope, a, g, eb);
    if (e == ERR_OK) {
        key_join(key, a, "rope.scaling.attn_factor");
        e = key_read_real(g, key, true, false, &rope.magnitude, eb);
    }
    if (e == ERR_OK)
        e = range_check(key, rope.magnitude, 1.0f / ROPE_MAGNITUDE_MAX, ROPE_MAGNITUDE_MAX, eb);
    rope.original_context = h->context_length;
    if (e == ERR_OK) {
        key_join(key, a, "rope.scaling.original_context_length");
        e = key_read_size(g, &context, key, &rope.original_context, eb);
    }
    if (e != ERR_OK)
        return e;
    local.magnitude = rope.magnitude;
    rope.freqs = a->parts[MODEL_PART_ROPE_FREQS] != ARCH_NEED_NOT;
    h->rope_style = a->rope_style;
    h->rope[MODEL_ROPE_GLOBAL] = rope;
    h->rope[MODEL_ROPE_LOCAL] = local;
    return ERR_OK;
}

/* Which layers have a window: by the file's pattern, one truth a layer or one period, or by the
 * architecture's period. */
static enum err windows_read(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    const struct model_arch *a = h->arch;
    char key[KEY_BYTES];
    uint32_t window = 0, period = a->window_period;
    uint64_t count = 0;
    bool truths = false, numbers = false;
    enum err e;

    if (a->window_period == 0)
        return ERR_OK;
    key_join(key, a, "attention.sliding_window");
    e = gguf_get_u32(g, key, &window, eb);
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        return e;
    key_join(key, a, "attention.sliding_window_pattern");
    truths = gguf_get_array(g, key, GGUF_VALUE_BOOL, &count, NULL) == ERR_OK;
    numbers = !truths && gguf_get_array(g, key, GGUF_VALUE_U32, &count, NULL) == ERR_OK;
    if ((truths || numbers) && count != h->n_layers)
        return err_set(eb, ERR_INVALID, "key '%s' has %" PRIu64 " elements for %" PRIu32 " layers",
                       key, count, h->n_layers);
    if (!truths && !numbers && gguf_has(g, key)) {
        e = gguf_get_u32(g, key, &period, eb);
        if (e != ERR_OK)
            return e;
    }
    for (uint32_t i = 0; i < h->n_layers; i++) {
        bool local = period == 0 || i % period < period - 1;
        if (truths)
            local = gguf_array_bool(g, key, i);
        else if (numbers)
            local = gguf_array_int(g, key, i) != 0;
        if (window > 0 && local) {
            h->layer[i].window = window;
            h->layer[i].rope = MODEL_ROPE_LOCAL;
        }
    }
    return ERR_OK;
}

static enum err heads_check(struct model_hparams *h, struct errbuf *eb)
{
    char key[KEY_BYTES];

    for (uint32_t i = 0; i < h->n_layers; i++) {
        struct model_layer_hparams *l = &h->layer[i];
        if (l->n_kv_heads == 0)
            l->n_kv_heads = l->n_heads;
        key_join(key, h->arch, "attention.head_count_kv");
        if (l->n_heads % l->n_kv_heads != 0)
            return err_set(eb, ERR_INVALID,
                           "key '%s': %" PRIu32 " key/value heads do not divide %" PRIu32
                           " heads (layer %" PRIu32 ")",
                           key, l->n_kv_heads, l->n_heads, i);
        h->n_heads_max = l->n_heads > h->n_heads_max ? l->n_heads : h->n_heads_max;
        h->n_kv_heads_max = l->n_kv_heads > h->n_kv_heads_max ? l->n_kv_heads : h->n_kv_heads_max;
        h->n_ff_max = l->n_ff > h->n_ff_max ? l->n_ff : h->n_ff_max;
    }
    return ERR_OK;
}

static enum err head_dim_check(struct model_hparams *h, const struct gguf *g, struct errbuf *eb)
{
    char key[KEY_BYTES];
    uint32_t n_heads = h->layer[0].n_heads;

    key_join(key, h->arch, "attention.head_count");
    if (h->head_dim == 0) {
        if (h->n_embd % n_heads != 0)
            return err_set(eb, ERR_INVALID,
                           "key '%s': %" PRIu32 " heads do not divide %" PRIu32
                           " elements, and there is no attention.key_length",
                           key, n_heads, h->n_embd);
        h->head_dim = h->n_embd / n_heads;
        if (h->head_dim > MODEL_HEAD_DIM_MAX)
            return err_set(eb, ERR_TOO_LARGE,
                           "key '%s': heads of %" PRIu32 " elements are over the bound of %u", key,
                           h->head_dim, MODEL_HEAD_DIM_MAX);
    }
    if (h->head_dim % 2 != 0)
        return err_set(eb, ERR_INVALID,
                       "key '%s.attention.key_length', or embedding_length over head_count: heads "
                       "of %" PRIu32 " elements; an odd number cannot turn in pairs",
                       h->arch->name, h->head_dim);

    uint32_t value_dim = h->head_dim;
    const struct arch_key value_key = {.max = MODEL_HEAD_DIM_MAX, .optional = true};
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

/* What the row says in words, as numbers. */
static void scales_set(struct model_hparams *h)
{
    const struct model_arch *a = h->arch;
    bool wide = a->wide_scale_layers > 0 && h->n_layers == a->wide_scale_layers;
    uint32_t dim = wide ? h->n_embd / h->layer[0].n_heads : h->head_dim;

    h->activation = a->activation;
    h->embed_scale = a->embed_scaled ? sqrtf((float)h->n_embd) : 1.0f;
    if (h->attention_scale == 0.0f)
        h->attention_scale = 1.0f / sqrtf((float)(dim > 0 ? dim : 1));
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

/* --- the whole --- */

enum err model_hparams_read(struct model_hparams *ret, const struct gguf *g, struct errbuf *eb)
{
    struct model_hparams h = {0};
    struct model_tensors t = {0};
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
    e = keys_check_known(h.arch, g, eb);
    for (size_t i = 0; i < key_count(h.arch) && e == ERR_OK; i++)
        e = key_read(&h, g, key_at(h.arch, i), eb);
    if (e == ERR_OK)
        e = heads_check(&h, eb);
    if (e == ERR_OK)
        e = head_dim_check(&h, g, eb);
    if (e == ERR_OK)
        e = rope_read(&h, g, eb);
    if (e == ERR_OK)
        e = windows_read(&h, g, eb);
    if (e == ERR_OK)
        e = vocab_check(&h, g, eb);
    if (e != ERR_OK)
        return e;
    scales_set(&h);
    e = model_tensors_find(&t, &h, g, eb);
    if (e != ERR_OK)
        return e;
    h.tied_embedding = t.whole.at[MODEL_PART_OUTPUT] == NULL;
    model_tensors_fini(&t);
    *ret = h;
    return ERR_OK;
}

const char *model_arch_name(const struct model_hparams *h)
{
    return h->arch->name;
}
