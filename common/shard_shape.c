/* A model's shape as cuts look at it: made, packed, unpacked. */
#include "common/shard_cut.h"

#include "common/buf.h"

#include <stdlib.h>
#include <string.h>

/* Of what is said of one model; far above any, and small enough that no product passes 64 bits. */
#define HEADS_MAX   1024u
#define COLS_MAX    (1u << 20)
#define VOCAB_MAX   (1u << 24)
#define BYTES_MAX   (1ull << 42) /* of a part of a layer, of a vocabulary */
#define KV_HEAD_MAX (1ull << 50)

#define PACKED_VERSION 2u

enum err shard_shape_init(struct shard_shape *ret_shape, uint32_t n_layers, struct errbuf *eb)
{
    struct shard_shape s = {.n_layers = n_layers, .n_kinds = n_layers};

    s.kind = calloc(n_layers, sizeof *s.kind);
    s.kind_of = calloc(n_layers, sizeof *s.kind_of);
    if (s.kind == NULL || s.kind_of == NULL) {
        shard_shape_fini(&s);
        return err_set(eb, ERR_NO_MEMORY, "no memory for the shape of %u layers", n_layers);
    }
    for (uint32_t i = 0; i < n_layers; i++)
        s.kind_of[i] = (uint16_t)i;
    *ret_shape = s;
    return ERR_OK;
}

void shard_shape_fini(struct shard_shape *shape)
{
    free(shape->kind);
    free(shape->kind_of);
    *shape = (struct shard_shape){0};
}

static bool kind_equal(const struct shard_kind *a, const struct shard_kind *b)
{
    return a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
           a->n_groups == b->n_groups && a->q_bytes == b->q_bytes && a->k_bytes == b->k_bytes &&
           a->n_ffn_groups == b->n_ffn_groups && a->ff_bytes == b->ff_bytes &&
           memcmp(a->ff_end, b->ff_end, a->n_ffn_groups * sizeof a->ff_end[0]) == 0;
}

void shard_shape_join(struct shard_shape *shape)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < shape->n_layers; i++) {
        const struct shard_kind mine = shape->kind[shape->kind_of[i]];
        uint32_t k = 0;
        while (k < n && !kind_equal(&shape->kind[k], &mine))
            k++;
        if (k == n)
            shape->kind[n++] = mine;
        shape->kind_of[i] = (uint16_t)k;
    }
    shape->n_kinds = n;
}

/* ---- packed: numbers of 7 bits a byte, the lowest first, the last one without its top bit ---- */

static void put(struct buf *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    buf_append(out, bytes, n);
}

static void put_kind(struct buf *out, const struct shard_kind *k)
{
    put(out, k->n_heads);
    put(out, k->n_kv_heads);
    put(out, k->n_groups);
    put(out, k->q_bytes);
    put(out, k->k_bytes);
    put(out, k->n_ffn_groups);
    for (uint32_t g = 0; g < k->n_ffn_groups; g++)
        put(out, k->ff_end[g] - (g == 0 ? 0 : k->ff_end[g - 1]));
    put(out, k->ff_bytes);
}

enum err shard_shape_pack(const struct shard_shape *shape, size_t most, struct buf *out,
                          struct errbuf *eb)
{
    const size_t before = out->size;
    uint32_t run;

    if (shard_cut_work(shape, SHARD_RANKS_MAX, 1) > SHARD_WORK_MAX)
        return err_set(eb, ERR_TOO_LARGE, "%u layers in so many groups take too long to share out",
                       shape->n_layers);

    put(out, PACKED_VERSION);
    put(out, shape->vocab);
    put(out, shape->tied);
    put(out, shape->embed_bytes);
    put(out, shape->head_bytes);
    put(out, shape->kv_head_bytes);
    put(out, shape->n_kinds);
    for (uint32_t k = 0; k < shape->n_kinds && out->size - before <= most; k++)
        put_kind(out, &shape->kind[k]);
    /* Runs of layers that are alike. */
    put(out, shape->n_layers);
    for (uint32_t i = 0; i < shape->n_layers && out->size - before <= most; i += run) {
        for (run = 1; i + run < shape->n_layers && shape->kind_of[i + run] == shape->kind_of[i];)
            run++;
        put(out, shape->kind_of[i]);
        put(out, run);
    }
    if (out->size - before > most)
        return err_set(eb, ERR_TOO_LARGE, "%u kinds of layers take more than %zu bytes to describe",
                       shape->n_kinds, most);
    return ERR_OK;
}

struct reader {
    const uint8_t *at, *end;
    struct errbuf *eb;
    enum err err;
};

/* A number from `least` to `most`; 0 from the first fault on. */
static uint64_t get(struct reader *r, const char *what, uint64_t least, uint64_t most)
{
    uint64_t value = 0;
    unsigned shift = 0;
    bool more = true;

    for (; r->err == ERR_OK && more; shift += 7) {
        if (r->at == r->end || shift > 56)
            r->err = err_set(r->eb, ERR_INVALID, "%s: cut short or too long", what);
        else {
            value |= (uint64_t)(*r->at & 0x7f) << shift;
            more = (*r->at++ & 0x80) != 0;
        }
    }
    if (r->err == ERR_OK && (value < least || value > most))
        r->err =
            err_set(r->eb, ERR_INVALID, "%s is %llu, not %llu to %llu", what,
                    (unsigned long long)value, (unsigned long long)least, (unsigned long long)most);
    return r->err == ERR_OK ? value : 0;
}

static uint32_t get32(struct reader *r, const char *what, uint32_t least, uint32_t most)
{
    return (uint32_t)get(r, what, least, most);
}

static void get_kind(struct reader *r, struct shard_kind *k)
{
    k->n_heads = get32(r, "heads", 1, HEADS_MAX);
    k->n_kv_heads = get32(r, "KV heads", 1, HEADS_MAX);
    k->n_groups = get32(r, "groups of heads", 1, SHARD_GROUPS_MAX);
    k->q_bytes = get(r, "bytes of q", 0, BYTES_MAX);
    k->k_bytes = get(r, "bytes of k", 0, BYTES_MAX);
    if (r->err != ERR_OK)
        return;
    const uint32_t heads = k->n_heads / k->n_groups, per_kv = k->n_heads / k->n_kv_heads;
    if (k->n_heads % k->n_groups != 0 || k->n_heads % k->n_kv_heads != 0 ||
        (heads % per_kv != 0 && per_kv % heads != 0)) {
        r->err = err_set(r->eb, ERR_INVALID, "%u heads in %u groups over %u KV heads", k->n_heads,
                         k->n_groups, k->n_kv_heads);
        return;
    }
    k->n_ffn_groups = get32(r, "groups of columns", 1, SHARD_GROUPS_MAX);
    for (uint32_t g = 0, end = 0; g < k->n_ffn_groups; g++) {
        end += get32(r, "columns of a group", 1, COLS_MAX - end);
        k->ff_end[g] = end;
    }
    k->ff_bytes = get(r, "bytes of the feed-forward matrices", 0, BYTES_MAX);
}

static void get_layers(struct reader *r, struct shard_shape *s)
{
    for (uint32_t i = 0; r->err == ERR_OK && i < s->n_layers;) {
        uint16_t kind = (uint16_t)get(r, "a layer's kind", 0, s->n_kinds - 1);
        uint32_t run = get32(r, "layers of a kind", 1, s->n_layers - i);
        for (; run > 0; run--)
            s->kind_of[i++] = kind;
    }
}

enum err shard_shape_unpack(struct shard_shape *ret_shape, const uint8_t *bytes, size_t size,
                            struct errbuf *eb)
{
    struct reader r = {.at = bytes, .end = bytes + size, .eb = eb};
    struct shard_shape s = {0};

    (void)get(&r, "the form's version", PACKED_VERSION, PACKED_VERSION);
    s.vocab = get32(&r, "the vocabulary", 1, VOCAB_MAX);
    s.tied = get(&r, "whether the head is the embedding", 0, 1) == 1;
    s.embed_bytes = get(&r, "bytes of the embedding", 0, BYTES_MAX);
    s.head_bytes = get(&r, "bytes of the head", 0, BYTES_MAX);
    s.kv_head_bytes = get(&r, "bytes of a KV head", 0, KV_HEAD_MAX);
    s.n_kinds = get32(&r, "kinds of layers", 1, SHARD_LAYERS_MAX);
    if (r.err == ERR_OK) {
        s.kind = calloc(s.n_kinds, sizeof *s.kind);
        s.kind_of = calloc(SHARD_LAYERS_MAX, sizeof *s.kind_of);
        if (s.kind == NULL || s.kind_of == NULL)
            r.err = err_set(eb, ERR_NO_MEMORY, "no memory for %u kinds of layers", s.n_kinds);
    }
    for (uint32_t k = 0; r.err == ERR_OK && k < s.n_kinds; k++)
        get_kind(&r, &s.kind[k]);
    s.n_layers = get32(&r, "layers", 1, SHARD_LAYERS_MAX);
    get_layers(&r, &s);
    if (r.err == ERR_OK && shard_cut_work(&s, SHARD_RANKS_MAX, 1) > SHARD_WORK_MAX)
        r.err = err_set(eb, ERR_TOO_LARGE, "%u layers in so many groups take too long to share out",
                        s.n_layers);
    if (r.err == ERR_OK && r.at != r.end)
        r.err = err_set(eb, ERR_INVALID, "%zu bytes behind the end", (size_t)(r.end - r.at));
    if (r.err != ERR_OK) {
        shard_shape_fini(&s);
        return r.err;
    }
    *ret_shape = s;
    return ERR_OK;
}
