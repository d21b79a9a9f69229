#include "tests/unit/model/vectors.h"

#include "tests/unit/model/gguf_build.h"
#include "tests/unit/model/tokens_most.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void vectors_open(struct vectors *v, const char *name)
{
    char path[256];
    *v = (struct vectors){0};
    (void)snprintf(path, sizeof path, "tests/vectors/%s", name);
    v->file = fopen(path, "r");
    if (v->file == NULL)
        fail_msg("%s: not there", path);
}

bool vectors_next(struct vectors *v)
{
    json_error_t error;
    json_decref(v->object);
    v->object = NULL;
    ssize_t size = getline(&v->line, &v->line_capacity, v->file);
    if (size < 0)
        return false;
    v->line_number++;
    v->object = json_loadb(v->line, (size_t)size, JSON_ALLOW_NUL, &error);
    if (v->object == NULL)
        fail_msg("line %zu: %s", v->line_number, error.text);
    return true;
}

void vectors_close(struct vectors *v)
{
    json_decref(v->object);
    free(v->line);
    (void)fclose(v->file);
}

const char *vectors_string(const struct vectors *v, const char *key, size_t *ret_size)
{
    json_t *value = json_object_get(v->object, key);
    if (!json_is_string(value))
        fail_msg("line %zu: no string '%s'", v->line_number, key);
    *ret_size = json_string_length(value);
    return json_string_value(value);
}

bool vectors_ids_equal(const struct vectors *v, const struct tokenizer *t, const char *name)
{
    struct tokens got = {0};
    struct errbuf eb = {{0}};
    size_t size;
    const char *text = vectors_string(v, "text", &size);
    json_t *want = json_object_get(v->object, "ids");
    size_t n_want = json_array_size(want);
    enum err e = tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PLAIN, true, &got, &eb);
    bool equal = e == ERR_OK && got.count == n_want;
    size_t at = 0;
    while (at < got.count && at < n_want &&
           got.ids[at] == json_integer_value(json_array_get(want, at)))
        at++;
    equal = equal && at == n_want;
    if (!equal)
        print_error("%s line %zu: %s %s, %zu ids for %zu, other from %zu on (%d for %d): %s\n",
                    name, v->line_number, err_name(e), eb.text, got.count, n_want, at,
                    at < got.count ? got.ids[at] : -1,
                    at < n_want ? (int)json_integer_value(json_array_get(want, at)) : -1, v->line);
    assert_true(got.count <= tokens_most(t, size, TOKENIZER_SPECIAL_PLAIN));
    tokens_fini(&got);
    return equal;
}

const char *vectors_model_path(const char *variable)
{
    const char *path = getenv(variable);
    if (path == NULL || path[0] == 0) {
        print_message("skipped: %s is not set to the path of the model\n", variable);
        exit(77);
    }
    return path;
}

void vectors_patch(const struct gguf *g, const char *key, const char *string, int truth,
                   struct buf *ret_file)
{
    static const char *const keys[] = {
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.add_space_prefix",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.scores",
        "tokenizer.chat_template",
    };
    struct gguf_build b;
    gguf_build_init(&b);
    if (string != NULL)
        gguf_build_string(&b, key, string);
    else
        gguf_build_bool(&b, key, truth != 0);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint32_t number;
        bool was;
        uint64_t count;
        struct gguf_string s;
        if (strcmp(keys[i], key) == 0)
            continue;
        if (gguf_get_u32(g, keys[i], &number, NULL) == ERR_OK) {
            gguf_build_u32(&b, keys[i], number);
        } else if (gguf_get_bool(g, keys[i], &was, NULL) == ERR_OK) {
            gguf_build_bool(&b, keys[i], was);
        } else if (gguf_get_string(g, keys[i], &s, NULL) == ERR_OK) {
            (void)gguf_build_key(&b, keys[i], GGUF_VALUE_STRING);
            gguf_build_raw_string(&b.keys, s.bytes, s.size);
        } else if (gguf_get_array(g, keys[i], GGUF_VALUE_STRING, &count, NULL) == ERR_OK) {
            (void)gguf_build_key(&b, keys[i], GGUF_VALUE_ARRAY);
            gguf_build_raw_u32(&b.keys, GGUF_VALUE_STRING);
            gguf_build_raw_u64(&b.keys, count);
            for (uint64_t k = 0; k < count; k++) {
                s = gguf_array_string(g, keys[i], k);
                gguf_build_raw_string(&b.keys, s.bytes, s.size);
            }
        } else if (gguf_get_array(g, keys[i], GGUF_VALUE_I32, &count, NULL) == ERR_OK) {
            (void)gguf_build_key(&b, keys[i], GGUF_VALUE_ARRAY);
            gguf_build_raw_u32(&b.keys, GGUF_VALUE_I32);
            gguf_build_raw_u64(&b.keys, count);
            for (uint64_t k = 0; k < count; k++)
                gguf_build_raw_u32(&b.keys, (uint32_t)gguf_array_int(g, keys[i], k));
        } else if (gguf_get_array(g, keys[i], GGUF_VALUE_F32, &count, NULL) == ERR_OK) {
            (void)gguf_build_key(&b, keys[i], GGUF_VALUE_ARRAY);
            gguf_build_raw_u32(&b.keys, GGUF_VALUE_F32);
            gguf_build_raw_u64(&b.keys, count);
            for (uint64_t k = 0; k < count; k++) {
                float f = (float)gguf_array_float(g, keys[i], k);
                buf_append(&b.keys, &f, sizeof f);
            }
        }
    }
    gguf_build_finish(&b, ret_file);
    gguf_build_fini(&b);
}
