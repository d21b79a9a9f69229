/*
 * Token ids against those of another engine, all lines of tests/vectors.
 *
 *   test_model_vectors small     vocabularies that lie beside the vectors
 *   test_model_vectors smollm2   needs CLOISTER_TEST_MODEL
 *   test_model_vectors gemma3    needs CLOISTER_TEST_GEMMA
 */
#include "tests/unit/model/vectors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *model_path;

static struct gguf *open_file(const char *path)
{
    struct gguf *g = NULL;
    struct errbuf eb = {{0}};
    if (gguf_open_file(&g, path, true, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return g;
}

static struct tokenizer *open_tokenizer(const struct gguf *g)
{
    struct tokenizer *t = NULL;
    struct errbuf eb = {{0}};
    if (tokenizer_open(&t, g, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return t;
}

/* The tokenizer of a file in which one key says something else. */
static struct tokenizer *open_patched(const struct gguf *g, const char *key, const char *string,
                                      int truth)
{
    struct buf file;
    struct gguf *patched = NULL;
    struct errbuf eb = {{0}};
    vectors_patch(g, key, string, truth, &file);
    if (gguf_open_memory(&patched, file.data, file.size, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    struct tokenizer *t = open_tokenizer(patched);
    gguf_close(patched);
    buf_fini(&file);
    return t;
}

static bool decodes_back(const struct tokenizer *t, const void *text, size_t size)
{
    struct tokens ids = {0};
    struct buf out;
    struct errbuf eb = {{0}};
    buf_init(&out);
    assert_int_equal(tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                     ERR_OK);
    for (size_t i = 0; i < ids.count; i++)
        tokenizer_decode(t, ids.ids[i], false, i == 0, &out);
    bool equal = out.size == size && memcmp(out.data, text, size) == 0;
    buf_fini(&out);
    tokens_fini(&ids);
    return equal || size == 0;
}

static void compare(const char *file, const struct tokenizer *t, size_t n_want, bool back)
{
    struct vectors v;
    size_t n = 0;
    size_t wrong = 0;
    vectors_open(&v, file);
    for (; vectors_next(&v); n++) {
        size_t size;
        const char *text = vectors_string(&v, "text", &size);
        wrong += vectors_ids_equal(&v, t, file) ? 0 : 1;
        /* U+2581 is a space to SentencePiece. */
        if (back && memmem(text, size, "\u2581", 3) == NULL && !decodes_back(t, text, size)) {
            print_error("%s line %zu does not come back\n", file, v.line_number);
            wrong++;
        }
    }
    vectors_close(&v);
    assert_int_equal(wrong, 0);
    assert_int_equal(n, n_want);
}

/* The lines of a file come by the name of their pre-tokenizer, `n_names` of them in all. */
static void compare_pre(const char *file, const char *path, size_t n_names, size_t n_want)
{
    struct gguf *g = open_file(path);
    struct tokenizer *t = NULL;
    char name[40] = "";
    struct vectors v;
    size_t n = 0;
    size_t names = 0;
    size_t wrong = 0;
    vectors_open(&v, file);
    for (; vectors_next(&v); n++) {
        size_t size;
        const char *pre = vectors_string(&v, "pre", &size);
        if (strcmp(pre, name) != 0) {
            tokenizer_close(t);
            t = open_patched(g, "tokenizer.ggml.pre", pre, 0);
            (void)snprintf(name, sizeof name, "%s", pre);
            names++;
        }
        wrong += vectors_ids_equal(&v, t, name) ? 0 : 1;
    }
    vectors_close(&v);
    tokenizer_close(t);
    gguf_close(g);
    assert_int_equal(wrong, 0);
    assert_int_equal(names, n_names);
    assert_int_equal(n, n_want);
}

static void test_small_bpe(void **state)
{
    (void)state;
    compare_pre("pretokenize_mini.jsonl", "tests/vectors/mini_bpe.gguf", 5, 2000);
}

/* A vocabulary whose ids show every place where a text was cut. */
static void test_every_split(void **state)
{
    (void)state;
    compare_pre("pretokenize_split.jsonl", "tests/vectors/mini_split.gguf", 17, 1360);
}

static void test_small_spm(void **state)
{
    (void)state;
    struct gguf *g = open_file("tests/vectors/mini_spm.gguf");
    struct tokenizer *t[2];
    struct vectors v;
    size_t n = 0;
    size_t wrong = 0;
    for (int prefix = 0; prefix < 2; prefix++)
        t[prefix] = open_patched(g, "tokenizer.ggml.add_space_prefix", NULL, prefix);
    vectors_open(&v, "tokenize_mini_spm.jsonl");
    for (; vectors_next(&v); n++) {
        int prefix = json_is_true(json_object_get(v.object, "add_space_prefix"));
        wrong += vectors_ids_equal(&v, t[prefix], prefix ? "prefix" : "no prefix") ? 0 : 1;
    }
    vectors_close(&v);
    tokenizer_close(t[0]);
    tokenizer_close(t[1]);
    gguf_close(g);
    assert_int_equal(wrong, 0);
    assert_int_equal(n, 600);
}

/* Bytes that are not UTF-8: the other engine's ids are not the measure, the bytes are. */
static void check_invalid(const struct tokenizer *t, const char *model, size_t n_least)
{
    struct vectors v;
    size_t n = 0;
    vectors_open(&v, "tokenize_invalid.jsonl");
    while (vectors_next(&v)) {
        size_t size;
        uint8_t bytes[64];
        struct tokens ids = {0};
        struct errbuf eb = {{0}};
        if (strcmp(vectors_string(&v, "model", &size), model) != 0)
            continue;
        const char *hex = vectors_string(&v, "hex", &size);
        assert_true(size / 2 <= sizeof bytes);
        for (size_t i = 0; i < size / 2; i++) {
            unsigned byte;
            assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
            bytes[i] = (uint8_t)byte;
        }
        enum err e = tokenizer_encode(t, bytes, size / 2, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb);
        if (e == ERR_OK) {
            if (!decodes_back(t, bytes, size / 2))
                fail_msg("line %zu: %s does not come back", v.line_number, hex);
        } else {
            assert_int_equal(e, ERR_INVALID);
            assert_non_null(strstr(eb.text, "no token"));
            assert_int_equal(ids.count, 0);
        }
        tokens_fini(&ids);
        n++;
    }
    vectors_close(&v);
    assert_true(n >= n_least);
}

static void test_smollm2(void **state)
{
    (void)state;
    struct gguf *g = open_file(model_path);
    struct tokenizer *t = open_tokenizer(g);
    compare("tokenize_smollm2.jsonl", t, 3000, true);
    check_invalid(t, "smollm2", 20);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_eos(t), 2);
    assert_false(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, 0) && tokenizer_is_end(t, 2) && !tokenizer_is_end(t, 1));
    assert_int_equal(tokenizer_find_special(t, "<|im_start|>"), 1);
    assert_int_equal(tokenizer_find_special(t, "the"), -1);
    assert_string_equal(tokenizer_kind(t), "bpe smollm");
    tokenizer_close(t);
    gguf_close(g);
}

/* Text with a byte that this vocabulary has no token for is refused by the place. */
static void test_smollm2_refuses_what_it_cannot_say(void **state)
{
    (void)state;
    struct gguf *g = open_file(model_path);
    struct tokenizer *t = open_tokenizer(g);
    struct vectors v;
    size_t n = 0;
    vectors_open(&v, "tokenize_smollm2_lossy.jsonl");
    for (; vectors_next(&v); n++) {
        size_t size;
        struct tokens ids = {0};
        struct errbuf eb = {{0}};
        const char *text = vectors_string(&v, "text", &size);
        assert_int_equal(tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                         ERR_INVALID);
        assert_int_equal(strncmp(eb.text, "byte ", 5), 0);
        tokens_fini(&ids);
    }
    vectors_close(&v);
    assert_int_equal(n, 24);
    tokenizer_close(t);
    gguf_close(g);
}

static void test_smollm2_pre_tokenizers(void **state)
{
    (void)state;
    compare_pre("pretokenize.jsonl", model_path, 5, 2000);
}

/* The prompts of the greedy vectors: raw ones with BOS where the file wants it. */
static void test_gemma3(void **state)
{
    (void)state;
    struct gguf *g = open_file(model_path);
    struct tokenizer *t = open_tokenizer(g);
    compare("tokenize_gemma3.jsonl", t, 1000, true);
    check_invalid(t, "gemma3", 20);
    assert_int_equal(tokenizer_bos(t), 2);
    assert_true(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, 1));
    tokenizer_close(t);
    t = open_patched(g, "tokenizer.ggml.add_space_prefix", NULL, 1);
    compare("tokenize_spm_prefix.jsonl", t, 200, false);
    tokenizer_close(t);
    gguf_close(g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest small[] = {
        cmocka_unit_test(test_small_bpe),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_small_spm),
    };
    const struct CMUnitTest smollm2[] = {
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_smollm2_refuses_what_it_cannot_say),
        cmocka_unit_test(test_smollm2_pre_tokenizers),
    };
    const struct CMUnitTest gemma3[] = {
        cmocka_unit_test(test_gemma3),
    };
    const char *which = argc > 1 ? argv[1] : "small";
    if (strcmp(which, "smollm2") == 0) {
        model_path = vectors_model_path("CLOISTER_TEST_MODEL");
        return cmocka_run_group_tests_name("vectors smollm2", smollm2, NULL, NULL);
    }
    if (strcmp(which, "gemma3") == 0) {
        model_path = vectors_model_path("CLOISTER_TEST_GEMMA");
        return cmocka_run_group_tests_name("vectors gemma3", gemma3, NULL, NULL);
    }
    return cmocka_run_group_tests_name("vectors small", small, NULL, NULL);
}
