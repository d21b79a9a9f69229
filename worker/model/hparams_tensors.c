/* The tensors of a model: each found and checked against the model's sizes. */
#include "worker/model/hparams.h"

#include "worker/model/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 80

bool model_part_is_matrix(enum model_part part)
{
    return arch_parts[part].dims[1] != ARCH_DIM_NONE;
}

/* `l` is NULL for parts that are there once; theirs are no dimensions of a layer. */
static uint64_t dim_value(const struct model_hparams *h, const struct model_layer_hparams *l,
                          enum arch_dim dim)
{
    switch (dim) {
    case ARCH_DIM_NONE:
        return 1;
    case ARCH_DIM_EMBD:
        return h->n_embd;
    case ARCH_DIM_FF:
        return l->n_ff;
    case ARCH_DIM_HEADS:
        return (uint64_t)l->n_heads * h->head_dim;
    case ARCH_DIM_KV:
        return (uint64_t)l->n_kv_heads * h->head_dim;
    case ARCH_DIM_HEAD:
        return h->head_dim;
    case ARCH_DIM_VOCAB:
        return h->vocab_size;
    case ARCH_DIM_ROPE_HALF:
        return h->rope_dim / 2;
    }
    return 0;
}

enum err model_vector_check(enum model_part part, struct gguf_string name, const float *values,
                            uint64_t count, struct errbuf *eb)
{
    for (uint64_t i = 0; i < count; i++) {
        /* What the rope table can compute. */
        bool in_range = part != MODEL_PART_ROPE_FREQS ||
                        (values[i] >= MODEL_ROPE_FREQ_MIN && values[i] <= MODEL_ROPE_FREQ_MAX);
        if (!isfinite(values[i]) || !in_range) {
            char text[NAME_BYTES];
            gguf_string_print(name, text, sizeof text);
            return err_set(eb, ERR_INVALID, "tensor '%s': element %" PRIu64 " is %g", text, i,
                           (double)values[i]);
        }
    }
    return ERR_OK;
}

static enum err tensor_check(const struct model_hparams *h, const struct model_layer_hparams *l,
                             enum model_part part, const char *name, const struct gguf *g,
                             const struct gguf_tensor *t, struct errbuf *eb)
{
    const struct arch_part *a = &arch_parts[part];
    const struct quant_type_info *info = quant_type_info((uint32_t)t->type);
    uint64_t want[2] = {dim_value(h, l, a->dims[0]), dim_value(h, l, a->dims[1])};
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
    if (!model_part_is_matrix(part) && t->type != QUANT_TYPE_F32)
        return err_set(eb, ERR_UNSUPPORTED,
                       "tensor '%s' has type %s (id %d); a vector of this kind is F32", name,
                       info->name, (int)t->type);
    if (model_part_is_matrix(part) || !gguf_is_readable(g))
        return ERR_OK;
    float *values = malloc(t->size);
    if (values == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for tensor '%s'", name);
    enum err e = gguf_tensor_read(g, t, 0, values, t->size, eb);
    if (e == ERR_OK)
        e = model_vector_check(part, t->name, values, want[0], eb);
    free(values);
    return e;
}

static enum err part_find(struct model_parts *parts, const struct model_hparams *h,
                          const struct model_layer_hparams *l, enum model_part part,
                          const char *name, const struct gguf *g, size_t *ret_found,
                          struct errbuf *eb)
{
    uint8_t need = h->arch->parts[part];
    if (need == ARCH_NEED_NOT)
        return ERR_OK;
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    if (t == NULL && need == ARCH_NEED_MAY)
        return ERR_OK;
    if (t == NULL)
        return err_set(eb, ERR_NOT_FOUND, "tensor '%s' is missing", name);
    enum err e = tensor_check(h, l, part, name, g, t, eb);
    if (e != ERR_OK)
        return e;
    parts->at[part] = t;
    *ret_found += 1;
    return ERR_OK;
}

/* "blk.N.tail" with a plain N, one of the model's layers. */
static bool name_is_of_layer(struct gguf_string name, const char *tail, uint32_t n_layers)
{
    size_t tail_size = strlen(tail);
    char whole[NAME_BYTES];
    uint32_t layer = 0;

    if (name.size < tail_size + 6 || memcmp(name.bytes, "blk.", 4) != 0 ||
        memcmp(name.bytes + name.size - tail_size, tail, tail_size) != 0 ||
        name.bytes[name.size - tail_size - 1] != '.')
        return false;
    for (size_t d = 4; d < name.size - tail_size - 1 && d < 12; d++)
        layer = layer * 10 + (uint32_t)((unsigned char)name.bytes[d] - '0');
    (void)snprintf(whole, sizeof whole, "blk.%" PRIu32 ".%s", layer, tail);
    return layer < n_layers && gguf_string_equal(name, whole);
}

/* Whether the architecture has a place for this name. */
static bool tensor_is_known(const struct model_hparams *h, struct gguf_string name)
{
    for (enum model_part part = 0; part < MODEL_PART_COUNT; part++) {
        const struct arch_part *a = &arch_parts[part];
        if (h->arch->parts[part] != ARCH_NEED_NOT &&
            (a->in_layer ? name_is_of_layer(name, a->name, h->n_layers)
                         : gguf_string_equal(name, a->name)))
            return true;
    }
    return false;
}

/* A bias, an expert or an adapter left out would change the answers without a sign. */
static enum err tensors_check_known(const struct model_hparams *h, const struct gguf *g,
                                    struct errbuf *eb)
{
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        struct gguf_string s = gguf_tensor_at(g, i)->name;
        if (!tensor_is_known(h, s)) {
            char name[NAME_BYTES];
            gguf_string_print(s, name, sizeof name);
            return err_set(eb, ERR_UNSUPPORTED,
                           "tensor '%s' has no place in a %s model of %" PRIu32 " layers", name,
                           model_arch_name(h), h->n_layers);
        }
    }
    return ERR_OK;
}

enum err model_tensors_find(struct model_tensors *ret, const struct model_hparams *h,
                            const struct gguf *g, struct errbuf *eb)
{
    struct model_tensors t = {0};
    size_t n_found = 0;
    enum err e = ERR_OK;
    char name[NAME_BYTES];

    t.layers = calloc(h->n_layers, sizeof *t.layers);
    if (t.layers == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the tensors of %" PRIu32 " layers",
                       h->n_layers);
    for (enum model_part part = 0; part < MODEL_PART_COUNT && e == ERR_OK; part++) {
        if (!arch_parts[part].in_layer)
            e = part_find(&t.whole, h, NULL, part, arch_parts[part].name, g, &n_found, eb);
    }
    for (uint32_t i = 0; i < h->n_layers && e == ERR_OK; i++) {
        for (enum model_part part = 0; part < MODEL_PART_COUNT && e == ERR_OK; part++) {
            if (!arch_parts[part].in_layer)
                continue;
            (void)snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", i, arch_parts[part].name);
            e = part_find(&t.layers[i], h, &h->layer[i], part, name, g, &n_found, eb);
        }
    }
    if (e == ERR_OK && n_found < gguf_tensor_count(g))
        e = tensors_check_known(h, g, eb);
    if (e != ERR_OK) {
        model_tensors_fini(&t);
        return e;
    }
    *ret = t;
    return ERR_OK;
}

void model_tensors_fini(struct model_tensors *t)
{
    free(t->layers);
    *t = (struct model_tensors){0};
}
