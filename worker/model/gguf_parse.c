/*
 * gguf_parse.c - the header and the tensor table, read with a cursor that cannot leave the bytes
 * it was given.
 */
#include "worker/model/gguf_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define GGUF_MAGIC     0x46554747u /* "GGUF" */
#define GGUF_ALIGNMENT 32u

/* Smallest encodings, to refuse a count that the file cannot hold before allocating for it. */
#define GGUF_KEY_BYTES_MIN    (8u + 1u + 4u + 1u)
#define GGUF_TENSOR_BYTES_MIN (8u + 1u + 4u + 8u + 4u + 8u)

#define NAME_PRINT_BYTES (GGUF_NAME_BYTES_MAX + 4) /* a whole tensor name, never cut */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "numbers are copied as they lie in the file, which is little endian");

struct cursor {
    const uint8_t *bytes;
    uint64_t available;
    uint64_t file_size;
    uint64_t at;
    bool ran_short;
    struct errbuf *eb;
};

/* Moves past `size` bytes and returns where they begin, NULL where they are not all there. */
static const uint8_t *cursor_take(struct cursor *c, uint64_t size, const char *what)
{
    if (size > c->file_size - c->at) {
        err_set(c->eb, ERR_CORRUPT,
                "byte %" PRIu64 ": %s needs %" PRIu64 " bytes, but the file ends after %" PRIu64,
                c->at, what, size, c->file_size - c->at);
        return NULL;
    }
    if (size > c->available - c->at) {
        c->ran_short = true;
        return NULL;
    }
    const uint8_t *p = c->bytes + c->at;
    c->at += size;
    return p;
}

static bool cursor_u32(struct cursor *c, const char *what, uint32_t *ret)
{
    const uint8_t *p = cursor_take(c, 4, what);
    if (p == NULL)
        return false;
    memcpy(ret, p, 4);
    return true;
}

static bool cursor_u64(struct cursor *c, const char *what, uint64_t *ret)
{
    const uint8_t *p = cursor_take(c, 8, what);
    if (p == NULL)
        return false;
    memcpy(ret, p, 8);
    return true;
}

static bool cursor_string(struct cursor *c, const char *what, struct gguf_string *ret)
{
    uint64_t size;
    if (!cursor_u64(c, what, &size))
        return false;
    const uint8_t *p = cursor_take(c, size, what);
    if (p == NULL)
        return false;
    *ret = (struct gguf_string){.bytes = (const char *)p, .size = (size_t)size};
    return true;
}

/* Keys and tensor names go into messages, file names and comparisons with C strings, so they are
 * printable ASCII: a NUL inside one would let two different names look alike. */
static bool cursor_name(struct cursor *c, const char *what, uint64_t size_max,
                        struct gguf_string *ret)
{
    uint64_t start = c->at;
    if (!cursor_string(c, what, ret))
        return false;
    if (ret->size == 0 || ret->size > size_max) {
        err_set(c->eb, ERR_CORRUPT,
                "byte %" PRIu64 ": %s of %zu bytes; 1 to %" PRIu64 " are allowed", start, what,
                ret->size, size_max);
        return false;
    }
    for (size_t i = 0; i < ret->size; i++) {
        unsigned char byte = (unsigned char)ret->bytes[i];
        if (byte < 0x21 || byte > 0x7e) {
            err_set(c->eb, ERR_CORRUPT,
                    "byte %" PRIu64 ": %s holds the byte 0x%02x; names are visible ASCII",
                    start + 8 + i, what, byte);
            return false;
        }
    }
    return true;
}

size_t gguf_value_size(enum gguf_value_type type)
{
    switch (type) {
    case GGUF_VALUE_U8:
    case GGUF_VALUE_I8:
    case GGUF_VALUE_BOOL:
        return 1;
    case GGUF_VALUE_U16:
    case GGUF_VALUE_I16:
        return 2;
    case GGUF_VALUE_U32:
    case GGUF_VALUE_I32:
    case GGUF_VALUE_F32:
        return 4;
    case GGUF_VALUE_U64:
    case GGUF_VALUE_I64:
    case GGUF_VALUE_F64:
        return 8;
    case GGUF_VALUE_STRING:
    case GGUF_VALUE_ARRAY:
        break;
    }
    return 0;
}

int gguf_string_compare(struct gguf_string a, struct gguf_string b)
{
    size_t size = a.size < b.size ? a.size : b.size;
    int order = size > 0 ? memcmp(a.bytes, b.bytes, size) : 0;
    if (order != 0)
        return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

/* Prefixes the message with the key's name; ran_short carries no message. */
static enum err key_failed(struct cursor *c, const struct gguf_key *k)
{
    if (c->ran_short)
        return ERR_CORRUPT;
    char name[80];
    gguf_string_print(k->name, name, sizeof name);
    return err_prefix(c->eb, ERR_CORRUPT, "key '%s'", name);
}

static enum err parse_value_type(struct cursor *c, const struct gguf_key *k, const char *what,
                                 enum gguf_value_type *ret)
{
    uint32_t type;
    uint64_t start = c->at;
    if (!cursor_u32(c, what, &type))
        return key_failed(c, k);
    if (type > GGUF_VALUE_F64) {
        err_set(c->eb, ERR_CORRUPT, "byte %" PRIu64 ": %s %" PRIu32 " is not one of 0 to 12", start,
                what, type);
        return key_failed(c, k);
    }
    *ret = (enum gguf_value_type)type;
    return ERR_OK;
}

static enum err parse_bools(struct cursor *c, const struct gguf_key *k)
{
    for (uint64_t i = 0; i < k->count; i++) {
        if (k->value[i] > 1) {
            err_set(c->eb, ERR_CORRUPT, "byte %" PRIu64 ": a bool is 0 or 1, not %u",
                    (uint64_t)(k->value - c->bytes) + i, k->value[i]);
            return key_failed(c, k);
        }
    }
    return ERR_OK;
}

static enum err parse_array(struct cursor *c, struct gguf_key *k)
{
    enum err e = parse_value_type(c, k, "element type", &k->element_type);
    if (e != ERR_OK)
        return e;
    if (k->element_type == GGUF_VALUE_ARRAY) {
        err_set(c->eb, ERR_UNSUPPORTED, "byte %" PRIu64 ": arrays of arrays are not read", c->at);
        (void)key_failed(c, k);
        return ERR_UNSUPPORTED;
    }
    uint64_t start = c->at;
    if (!cursor_u64(c, "element count", &k->count))
        return key_failed(c, k);
    size_t element = gguf_value_size(k->element_type);
    uint64_t least = element > 0 ? element : 8;
    if (k->count > (c->file_size - c->at) / least) {
        err_set(c->eb, ERR_CORRUPT,
                "byte %" PRIu64 ": %" PRIu64 " elements do not fit the %" PRIu64
                " bytes that are left of the file",
                start, k->count, c->file_size - c->at);
        return key_failed(c, k);
    }
    if (element > 0) {
        k->value = cursor_take(c, k->count * element, "array");
        if (k->value == NULL)
            return key_failed(c, k);
        return k->element_type == GGUF_VALUE_BOOL ? parse_bools(c, k) : ERR_OK;
    }
    /* The least that the strings can take is known to be in memory before the table of their
     * offsets is made, so that the table is never larger than what was read. */
    if (k->count * 8 > c->available - c->at) {
        c->ran_short = true;
        return ERR_CORRUPT;
    }
    k->value = c->bytes + c->at;
    if (k->count == 0)
        return ERR_OK;
    k->strings = malloc(k->count * sizeof *k->strings);
    if (k->strings == NULL)
        return err_set(c->eb, ERR_NO_MEMORY, "no memory for %" PRIu64 " strings", k->count);
    uint64_t first = c->at;
    for (uint64_t i = 0; i < k->count; i++) {
        struct gguf_string s;
        k->strings[i] = c->at - first;
        if (!cursor_string(c, "string", &s)) {
            if (!c->ran_short)
                err_prefix(c->eb, ERR_CORRUPT, "element %" PRIu64, i);
            return key_failed(c, k);
        }
    }
    return ERR_OK;
}

static enum err parse_key(struct cursor *c, struct gguf_key *k)
{
    if (!cursor_name(c, "key", GGUF_KEY_BYTES_MAX, &k->name))
        return ERR_CORRUPT;
    enum err e = parse_value_type(c, k, "value type", &k->type);
    if (e != ERR_OK)
        return e;
    k->element_type = k->type;
    k->count = 1;
    if (k->type == GGUF_VALUE_ARRAY)
        return parse_array(c, k);
    if (k->type == GGUF_VALUE_STRING) {
        struct gguf_string s;
        uint64_t start = c->at;
        if (!cursor_string(c, "string", &s))
            return key_failed(c, k);
        k->value = c->bytes + start;
        return ERR_OK;
    }
    k->value = cursor_take(c, gguf_value_size(k->type), "value");
    if (k->value == NULL)
        return key_failed(c, k);
    return k->type == GGUF_VALUE_BOOL ? parse_bools(c, k) : ERR_OK;
}

static enum err parse_tensor(struct cursor *c, struct gguf_tensor *t)
{
    char name[NAME_PRINT_BYTES];
    uint64_t start = c->at;
    uint32_t type;
    if (!cursor_name(c, "tensor name", GGUF_NAME_BYTES_MAX, &t->name))
        return ERR_CORRUPT;
    gguf_string_print(t->name, name, sizeof name);
    if (!cursor_u32(c, "dimension count", &t->n_dims))
        goto torn;
    if (t->n_dims < 1 || t->n_dims > GGUF_DIMS_MAX)
        return err_set(c->eb, ERR_CORRUPT,
                       "tensor '%s', byte %" PRIu64 ": %" PRIu32 " dimensions; 1 to %d are allowed",
                       name, c->at - 4, t->n_dims, GGUF_DIMS_MAX);
    uint64_t items = 1;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        t->dims[i] = 1;
        if (i >= t->n_dims)
            continue;
        if (!cursor_u64(c, "dimension", &t->dims[i]))
            goto torn;
        if (t->dims[i] == 0)
            return err_set(c->eb, ERR_CORRUPT,
                           "tensor '%s', byte %" PRIu64 ": dimension %" PRIu32 " is 0", name,
                           c->at - 8, i);
        if (__builtin_mul_overflow(items, t->dims[i], &items) || items > INT64_MAX / 16)
            return err_set(c->eb, ERR_CORRUPT,
                           "tensor '%s', byte %" PRIu64 ": its dimensions multiply past 2^59", name,
                           c->at - 8);
    }
    if (!cursor_u32(c, "type", &type))
        goto torn;
    const struct quant_type_info *info = quant_type_info(type);
    if (info == NULL)
        return err_set(c->eb, ERR_UNSUPPORTED,
                       "tensor '%s', byte %" PRIu64 ": type %" PRIu32 " is not known", name,
                       c->at - 4, type);
    if (info->block_items == 0)
        return err_set(c->eb, ERR_UNSUPPORTED,
                       "tensor '%s', byte %" PRIu64 ": type %" PRIu32
                       " (%s) was retired; convert the model again",
                       name, c->at - 4, type, info->name);
    if (t->dims[0] % info->block_items != 0)
        return err_set(c->eb, ERR_CORRUPT,
                       "tensor '%s', byte %" PRIu64 ": rows of %" PRIu64
                       " elements are not whole %s blocks of %" PRIu32,
                       name, start, t->dims[0], info->name, info->block_items);
    t->type = (enum quant_type)type;
    if (!cursor_u64(c, "offset", &t->offset))
        goto torn;
    t->size = items / info->block_items * info->block_bytes;
    return ERR_OK;
torn:
    return c->ran_short ? ERR_CORRUPT : err_prefix(c->eb, ERR_CORRUPT, "tensor '%s'", name);
}

static int key_order_compare(const void *a, const void *b, void *keys)
{
    const struct gguf_key *k = keys;
    return gguf_string_compare(k[*(const uint32_t *)a].name, k[*(const uint32_t *)b].name);
}

static int tensor_order_compare(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    return gguf_string_compare(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static int tensor_offset_compare(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    uint64_t x = t[*(const uint32_t *)a].offset;
    uint64_t y = t[*(const uint32_t *)b].offset;
    return x < y ? -1 : x > y;
}

static uint32_t *order_new(size_t count)
{
    uint32_t *order = malloc((count > 0 ? count : 1) * sizeof *order);
    for (size_t i = 0; order != NULL && i < count; i++)
        order[i] = (uint32_t)i;
    return order;
}

static enum err parse_keys(struct gguf *g, struct cursor *c)
{
    for (size_t i = 0; i < g->n_keys; i++) {
        enum err e = parse_key(c, &g->keys[i]);
        if (e != ERR_OK)
            return e;
    }
    g->key_order = order_new(g->n_keys);
    if (g->key_order == NULL)
        return err_set(c->eb, ERR_NO_MEMORY, "no memory for the table of keys");
    qsort_r(g->key_order, g->n_keys, sizeof *g->key_order, key_order_compare, g->keys);
    for (size_t i = 1; i < g->n_keys; i++) {
        const struct gguf_key *k = &g->keys[g->key_order[i]];
        if (gguf_string_compare(g->keys[g->key_order[i - 1]].name, k->name) == 0) {
            char name[80];
            gguf_string_print(k->name, name, sizeof name);
            return err_set(c->eb, ERR_CORRUPT, "key '%s' is there twice", name);
        }
    }
    return ERR_OK;
}

static enum err parse_alignment(struct gguf *g, struct errbuf *eb)
{
    g->alignment = GGUF_ALIGNMENT;
    if (!gguf_has(g, "general.alignment"))
        return ERR_OK;
    enum err e = gguf_get_u32(g, "general.alignment", &g->alignment, eb);
    if (e != ERR_OK)
        return e;
    if (g->alignment < 8 || g->alignment > GGUF_ALIGNMENT_MAX ||
        (g->alignment & (g->alignment - 1)) != 0)
        return err_set(eb, ERR_CORRUPT,
                       "key 'general.alignment': %" PRIu32
                       " is not a power of two between 8 and %u",
                       g->alignment, GGUF_ALIGNMENT_MAX);
    return ERR_OK;
}

/* Every tensor inside the data section, aligned, and on bytes of its own. */
static enum err parse_check_data(struct gguf *g, struct errbuf *eb)
{
    uint64_t data_size = g->file_size > g->data_offset ? g->file_size - g->data_offset : 0;
    char name[NAME_PRINT_BYTES];
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        gguf_string_print(t->name, name, sizeof name);
        if (t->offset % g->alignment != 0)
            return err_set(eb, ERR_CORRUPT,
                           "tensor '%s': offset %" PRIu64 " is not a multiple of %" PRIu32, name,
                           t->offset, g->alignment);
        if (t->offset > data_size || t->size > data_size - t->offset)
            return err_set(eb, ERR_CORRUPT,
                           "tensor '%s': %" PRIu64 " bytes at %" PRIu64
                           " of the data section, which has %" PRIu64 "%s",
                           name, t->size, t->offset, data_size,
                           t->offset <= data_size ? " (is the file cut short?)" : "");
    }
    uint32_t *order = g->tensor_order;
    qsort_r(order, g->n_tensors, sizeof *order, tensor_offset_compare, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct gguf_tensor *a = &g->tensors[order[i - 1]];
        const struct gguf_tensor *b = &g->tensors[order[i]];
        if (b->offset - a->offset < a->size) {
            char other[NAME_PRINT_BYTES];
            gguf_string_print(a->name, name, sizeof name);
            gguf_string_print(b->name, other, sizeof other);
            return err_set(eb, ERR_CORRUPT,
                           "tensors '%s' and '%s' share bytes of the data section: %" PRIu64
                           " bytes at %" PRIu64 ", and the other at %" PRIu64,
                           name, other, a->size, a->offset, b->offset);
        }
    }
    return ERR_OK;
}

enum err gguf_parse_order(struct gguf *g, struct errbuf *eb)
{
    qsort_r(g->tensor_order, g->n_tensors, sizeof *g->tensor_order, tensor_order_compare,
            g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[g->tensor_order[i]];
        if (gguf_string_compare(g->tensors[g->tensor_order[i - 1]].name, t->name) == 0) {
            char name[NAME_PRINT_BYTES];
            gguf_string_print(t->name, name, sizeof name);
            return err_set(eb, ERR_CORRUPT, "tensor '%s' is there twice", name);
        }
    }
    return ERR_OK;
}

static enum err parse_tensors(struct gguf *g, struct cursor *c)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        enum err e = parse_tensor(c, &g->tensors[i]);
        if (e != ERR_OK)
            return e;
    }
    g->data_offset = (c->at + g->alignment - 1) / g->alignment * g->alignment;
    g->tensor_order = order_new(g->n_tensors);
    if (g->tensor_order == NULL)
        return err_set(c->eb, ERR_NO_MEMORY, "no memory for the table of tensors");
    enum err e = parse_check_data(g, c->eb);
    if (e != ERR_OK)
        return e;
    e = gguf_parse_order(g, c->eb);
    if (e != ERR_OK)
        return e;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        t->offset += g->data_offset;
        t->data = g->owned != NULL ? NULL : g->bytes + t->offset;
    }
    return ERR_OK;
}

static enum err parse_count(struct cursor *c, const char *what, uint64_t max, uint64_t least,
                            size_t *ret)
{
    uint64_t count;
    uint64_t start = c->at;
    if (!cursor_u64(c, what, &count))
        return ERR_CORRUPT;
    if (count > (c->file_size - c->at) / least)
        return err_set(c->eb, ERR_CORRUPT,
                       "byte %" PRIu64 ": %s %" PRIu64 " does not fit the file's %" PRIu64 " bytes",
                       start, what, count, c->file_size);
    if (count > max)
        return err_set(c->eb, ERR_TOO_LARGE,
                       "byte %" PRIu64 ": %s %" PRIu64 " is over the bound of %" PRIu64, start,
                       what, count, max);
    *ret = (size_t)count;
    return ERR_OK;
}

enum err gguf_parse(struct gguf *g, bool *ret_short, struct errbuf *eb)
{
    struct cursor c = {
        .bytes = g->bytes, .available = g->available, .file_size = g->file_size, .eb = eb};
    uint32_t magic;
    enum err e = ERR_CORRUPT;
    size_t n_keys = 0;
    size_t n_tensors = 0;

    if (!cursor_u32(&c, "the magic number", &magic))
        goto out;
    if (magic != GGUF_MAGIC) {
        e = err_set(eb, ERR_CORRUPT,
                    "byte 0: this is not a GGUF file (it begins %02x %02x %02x %02x)", g->bytes[0],
                    g->bytes[1], g->bytes[2], g->bytes[3]);
        goto out;
    }
    if (!cursor_u32(&c, "the version", &g->version))
        goto out;
    if (g->version != 2 && g->version != 3) {
        bool swapped = (g->version & 0xffffu) == 0 && g->version != 0;
        e = err_set(eb, ERR_UNSUPPORTED, "byte 4: GGUF version %" PRIu32 "%s; 2 and 3 are read",
                    swapped ? __builtin_bswap32(g->version) : g->version,
                    swapped ? " in big-endian order" : "");
        goto out;
    }
    e = parse_count(&c, "tensor count", GGUF_TENSORS_MAX, GGUF_TENSOR_BYTES_MIN, &n_tensors);
    if (e != ERR_OK)
        goto out;
    e = parse_count(&c, "key count", GGUF_KEYS_MAX, GGUF_KEY_BYTES_MIN, &n_keys);
    if (e != ERR_OK)
        goto out;
    g->keys = calloc(n_keys > 0 ? n_keys : 1, sizeof *g->keys);
    g->tensors = calloc(n_tensors > 0 ? n_tensors : 1, sizeof *g->tensors);
    if (g->keys == NULL || g->tensors == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for %zu keys and %zu tensors", n_keys, n_tensors);
        goto out;
    }
    g->n_keys = n_keys;
    g->n_tensors = n_tensors;
    e = parse_keys(g, &c);
    if (e != ERR_OK)
        goto out;
    e = parse_alignment(g, eb);
    if (e != ERR_OK)
        goto out;
    e = parse_tensors(g, &c);
out:
    *ret_short = e != ERR_OK && c.ran_short;
    return e;
}

void gguf_parse_free(struct gguf *g)
{
    for (size_t i = 0; g->keys != NULL && i < g->n_keys; i++)
        free(g->keys[i].strings);
    free(g->keys);
    free(g->tensors);
    free(g->key_order);
    free(g->tensor_order);
    g->keys = NULL;
    g->tensors = NULL;
    g->key_order = NULL;
    g->tensor_order = NULL;
    g->n_keys = 0;
    g->n_tensors = 0;
}
