/* Every quantized type is read as llama.cpp reads it: blocks and values in
 * tests/vectors/dequantize.jsonl. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The next `digits` hex digits, most significant first. */
static uint32_t hex_word(const char *text, size_t digits)
{
    char word[9] = {0};
    memcpy(word, text, digits);
    char *end;
    uint32_t value = (uint32_t)strtoul(word, &end, 16);
    assert_true(*end == '\0');
    return value;
}

/* The blocks as one row of a matrix, which every backend embeds. */
static void compare_values(const struct fixture *f, enum quant_type type, const uint8_t *row,
                           const float *expected, uint32_t cols)
{
    const char *name = quant_type_info((uint32_t)type)->name;
    float *actual = malloc(cols * sizeof *actual);
    assert_non_null(actual);
    for (size_t i = 0; i <= f->n_others; i++) {
        struct backend *b = i == 0 ? f->ref : f->others[i - 1].backend;
        struct weight *w;
        struct errbuf eb = {0};
        const int32_t id = 0;
        if (matrix_load(b, type, row, 1, cols, NULL, &w, &eb) != ERR_OK)
            fail_msg("%s", eb.text);
        b->ops->embed(b, w, &id, 1, 1.0f, actual);
        fixture_same(name, i == 0 ? "scalar" : f->others[i - 1].name, expected, actual, cols);
        b->ops->weight_free(b, w);
    }
    free(actual);
}

static void test_values_are_those_of_llama_cpp(void **state)
{
    const struct fixture *f = *state;
    FILE *file = fopen("tests/vectors/dequantize.jsonl", "r");
    assert_non_null(file);
    size_t lines = 0;
    json_t *line;
    while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        const enum quant_type type =
            (enum quant_type)json_integer_value(json_object_get(line, "type"));
        const struct quant_type_info *info = quant_type_info((uint32_t)type);
        const char *blocks = json_string_value(json_object_get(line, "blocks"));
        const char *values = json_string_value(json_object_get(line, "values"));
        assert_true(info != NULL && blocks != NULL && values != NULL);
        assert_string_equal(info->name, json_string_value(json_object_get(line, "name")));
        size_t bytes = strlen(blocks) / 2;
        uint32_t cols = (uint32_t)(bytes / info->block_bytes * info->block_items);
        assert_int_equal(strlen(values), (size_t)8 * cols);
        uint8_t *row = malloc(bytes);
        float *expected = malloc(cols * sizeof *expected);
        assert_true(row != NULL && expected != NULL);
        for (size_t i = 0; i < bytes; i++)
            row[i] = (uint8_t)hex_word(blocks + 2 * i, 2);
        for (size_t k = 0; k < cols; k++) {
            uint32_t bits = hex_word(values + 8 * k, 8);
            memcpy(expected + k, &bits, sizeof bits);
        }
        compare_values(f, type, row, expected, cols);
        free(row);
        free(expected);
        json_decref(line);
        lines++;
    }
    (void)fclose(file);
    /* All but F32, F16 and BF16. */
    assert_int_equal(lines, fixture_n_types - 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_those_of_llama_cpp),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
