#include "worker/model/gguf.h"

#include "common/check.h"
#include "worker/model/gguf_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum err gguf_open_memory(struct gguf **ret_gguf, const void *bytes, size_t size, struct errbuf *eb)
{
    struct gguf *g = calloc(1, sizeof *g);
    if (g == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    g->bytes = bytes;
    g->available = size;
    g->file_size = size;
    g->fd = -1;
    bool ran_short = false;
    uint32_t parts = 1;
    enum err e = gguf_parse(g, &ran_short, eb);
    if (e == ERR_OK && gguf_has(g, "split.count"))
        e = gguf_get_u32(g, "split.count", &parts, eb);
    if (e == ERR_OK && parts > 1)
        e = err_set(eb, ERR_UNSUPPORTED,
                    "key 'split.count' is %u: the other parts can only be found beside a file",
                    parts);
    if (e != ERR_OK) {
        gguf_close(g);
        return e;
    }
    *ret_gguf = g;
    return ERR_OK;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL)
        return;
    for (uint32_t i = 0; i < g->n_others; i++)
        gguf_close(g->others[i]);
    free(g->others);
    gguf_parse_free(g);
    if (g->fd >= 0)
        (void)close(g->fd);
    free(g->path);
    free(g->owned);
    free(g);
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

uint32_t gguf_file_count(const struct gguf *g)
{
    return 1 + g->n_others;
}

uint64_t gguf_file_size(const struct gguf *g)
{
    uint64_t size = g->file_size;
    for (uint32_t i = 0; i < g->n_others; i++)
        size += g->others[i]->file_size;
    return size;
}

uint64_t gguf_data_offset(const struct gguf *g)
{
    return g->data_offset;
}

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t index)
{
    CHECK(index < g->n_tensors);
    return &g->tensors[index];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    struct gguf_string want = {.bytes = name, .size = strlen(name)};
    size_t low = 0;
    size_t high = g->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct gguf_tensor *t = &g->tensors[g->tensor_order[middle]];
        int order = gguf_string_compare(want, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static const struct gguf_key *key_find(const struct gguf *g, const char *name)
{
    struct gguf_string want = {.bytes = name, .size = strlen(name)};
    size_t low = 0;
    size_t high = g->n_keys;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct gguf_key *k = &g->keys[g->key_order[middle]];
        int order = gguf_string_compare(want, k->name);
        if (order == 0)
            return k;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

size_t gguf_key_count(const struct gguf *g)
{
    return g->n_keys;
}

struct gguf_string gguf_key_at(const struct gguf *g, size_t index, enum gguf_value_type *ret_type,
                               enum gguf_value_type *ret_element_type, uint64_t *ret_count)
{
    CHECK(index < g->n_keys);
    const struct gguf_key *k = &g->keys[index];
    if (ret_type != NULL)
        *ret_type = k->type;
    if (ret_element_type != NULL)
        *ret_element_type = k->element_type;
    if (ret_count != NULL)
        *ret_count = k->count;
    return k->name;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return key_find(g, key) != NULL;
}

static bool type_is_integer(enum gguf_value_type type)
{
    return type <= GGUF_VALUE_I32 || type == GGUF_VALUE_U64 || type == GGUF_VALUE_I64;
}

static bool type_is_float(enum gguf_value_type type)
{
    return type == GGUF_VALUE_F32 || type == GGUF_VALUE_F64;
}

/* One integer element; u64 values past INT64_MAX come back as -1 with `*ret_large`. */
static int64_t element_int(enum gguf_value_type type, const uint8_t *p, bool *ret_large)
{
    uint64_t raw = 0;
    size_t size = gguf_value_size(type);
    memcpy(&raw, p, size);
    *ret_large = false;
    switch (type) {
    case GGUF_VALUE_I8:
        return (int8_t)raw;
    case GGUF_VALUE_I16:
        return (int16_t)raw;
    case GGUF_VALUE_I32:
        return (int32_t)raw;
    case GGUF_VALUE_U64:
        if (raw > INT64_MAX) {
            *ret_large = true;
            return -1;
        }
        break;
    default:
        break;
    }
    return (int64_t)raw;
}

static double element_float(enum gguf_value_type type, const uint8_t *p)
{
    if (type == GGUF_VALUE_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    double d;
    memcpy(&d, p, sizeof d);
    return d;
}

static enum err key_need(const struct gguf *g, const char *key, const char *wanted,
                         const struct gguf_key **ret, struct errbuf *eb)
{
    *ret = key_find(g, key);
    if (*ret == NULL)
        return err_set(eb, ERR_NOT_FOUND, "key '%s' (%s) is missing", key, wanted);
    return ERR_OK;
}

static enum err key_wrong_type(const struct gguf_key *k, const char *key, const char *wanted,
                               struct errbuf *eb)
{
    bool array = k->type == GGUF_VALUE_ARRAY;
    return err_set(eb, ERR_INVALID, "key '%s' is %s%s, not %s", key, array ? "an array of " : "",
                   gguf_value_type_name(k->element_type), wanted);
}

enum err gguf_get_u32(const struct gguf *g, const char *key, uint32_t *ret, struct errbuf *eb)
{
    const struct gguf_key *k;
    enum err e = key_need(g, key, "an integer", &k, eb);
    if (e != ERR_OK)
        return e;
    if (!type_is_integer(k->type))
        return key_wrong_type(k, key, "an integer", eb);
    bool large;
    int64_t value = element_int(k->type, k->value, &large);
    if (large || value < 0 || value > (int64_t)UINT32_MAX)
        return err_set(eb, ERR_INVALID, "key '%s': a value of type %s that is not in 0 to %u", key,
                       gguf_value_type_name(k->type), UINT32_MAX);
    *ret = (uint32_t)value;
    return ERR_OK;
}

enum err gguf_get_f32(const struct gguf *g, const char *key, float *ret, struct errbuf *eb)
{
    const struct gguf_key *k;
    enum err e = key_need(g, key, "a float", &k, eb);
    if (e != ERR_OK)
        return e;
    if (!type_is_float(k->type))
        return key_wrong_type(k, key, "a float", eb);
    *ret = (float)element_float(k->type, k->value);
    return ERR_OK;
}

enum err gguf_get_bool(const struct gguf *g, const char *key, bool *ret, struct errbuf *eb)
{
    const struct gguf_key *k;
    enum err e = key_need(g, key, "a bool", &k, eb);
    if (e != ERR_OK)
        return e;
    if (k->type != GGUF_VALUE_BOOL)
        return key_wrong_type(k, key, "a bool", eb);
    *ret = k->value[0] != 0;
    return ERR_OK;
}

/* The parser has checked that length and bytes are inside the file. */
static struct gguf_string string_at(const uint8_t *p)
{
    uint64_t size;
    memcpy(&size, p, sizeof size);
    return (struct gguf_string){.bytes = (const char *)p + sizeof size, .size = (size_t)size};
}

enum err gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *ret,
                         struct errbuf *eb)
{
    const struct gguf_key *k;
    enum err e = key_need(g, key, "a string", &k, eb);
    if (e != ERR_OK)
        return e;
    if (k->type != GGUF_VALUE_STRING)
        return key_wrong_type(k, key, "a string", eb);
    *ret = string_at(k->value);
    return ERR_OK;
}

enum err gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type element_type,
                        uint64_t *ret_count, struct errbuf *eb)
{
    char wanted[32];
    (void)snprintf(wanted, sizeof wanted, "an array of %s", gguf_value_type_name(element_type));
    const struct gguf_key *k;
    enum err e = key_need(g, key, wanted, &k, eb);
    if (e != ERR_OK)
        return e;
    bool same = k->element_type == element_type ||
                (type_is_integer(element_type) && type_is_integer(k->element_type)) ||
                (type_is_float(element_type) && type_is_float(k->element_type));
    if (k->type != GGUF_VALUE_ARRAY || !same)
        return key_wrong_type(k, key, wanted, eb);
    *ret_count = k->count;
    return ERR_OK;
}

static const struct gguf_key *array_need(const struct gguf *g, const char *key, uint64_t index)
{
    const struct gguf_key *k = key_find(g, key);
    CHECK(k != NULL && k->type == GGUF_VALUE_ARRAY && index < k->count);
    return k;
}

struct gguf_string gguf_array_string(const struct gguf *g, const char *key, uint64_t index)
{
    const struct gguf_key *k = array_need(g, key, index);
    CHECK(k->element_type == GGUF_VALUE_STRING);
    return string_at(k->value + k->strings[index]);
}

int64_t gguf_array_int(const struct gguf *g, const char *key, uint64_t index)
{
    const struct gguf_key *k = array_need(g, key, index);
    CHECK(type_is_integer(k->element_type));
    bool large;
    int64_t value =
        element_int(k->element_type, k->value + index * gguf_value_size(k->element_type), &large);
    return large ? INT64_MAX : value;
}

bool gguf_array_bool(const struct gguf *g, const char *key, uint64_t index)
{
    const struct gguf_key *k = array_need(g, key, index);
    CHECK(k->element_type == GGUF_VALUE_BOOL);
    return k->value[index] != 0;
}

double gguf_array_float(const struct gguf *g, const char *key, uint64_t index)
{
    const struct gguf_key *k = array_need(g, key, index);
    CHECK(type_is_float(k->element_type));
    return element_float(k->element_type, k->value + index * gguf_value_size(k->element_type));
}

const char *gguf_value_type_name(enum gguf_value_type type)
{
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (size_t)type < sizeof names / sizeof names[0] ? names[type] : "?";
}

bool gguf_string_equal(struct gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.bytes, text, s.size) == 0;
}

void gguf_string_print(struct gguf_string s, char *ret_text, size_t size)
{
    CHECK(size >= 8);
    size_t used = 0;
    for (size_t i = 0; i < s.size; i++) {
        unsigned char byte = (unsigned char)s.bytes[i];
        bool plain = byte >= 0x20 && byte <= 0x7e && byte != '\\';
        if (used + (plain ? 1 : 4) + strlen("...") >= size) {
            memcpy(ret_text + used, "...", 3);
            used += 3;
            break;
        }
        if (plain)
            ret_text[used++] = (char)byte;
        else
            used += (size_t)snprintf(ret_text + used, size - used, "\\x%02x", byte);
    }
    ret_text[used] = 0;
}
