/* What people and programs get to see: nothing of a peer's can move a cursor, tables line up, JSON
 * is JSON whatever a model wrote. */
#include "client/cli/output.h"
#include "client/cli/progress.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

#include "common/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void test_safe_text(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        bool keep_lines;
        const char *out;
    } table[] = {
        {"plain", false, "plain"},
        {"h\xC3\xA9llo \xF0\x9F\x99\x82", false, "h\xC3\xA9llo \xF0\x9F\x99\x82"},
        {"\x1b[2J\x1b]0;x\x07", false, "\\x1b[2J\\x1b]0;x\\x07"},
        {"a\nb\tc", false, "a\\x0ab\\x09c"},
        {"a\nb\tc\r", true, "a\nb\tc\\x0d"},
        {"\xC2\x9B"
         "31m",
         false, "\\x9b31m"}, /* C1 CSI */
        {"\xE2\x80\xAE"
         "evil",
         false, "\\u202eevil"}, /* right-to-left override */
        {"\xE2\x81\xA6x\xE2\x80\xA8", false, "\\u2066x\\u2028"},
        {"\xFF\xC3(", false, "\xEF\xBF\xBD\xEF\xBF\xBD("},
        {"\xF4\x90\x80\x80", false, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\x7F", false, "\\x7f"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct buf out;
        buf_init(&out);
        utf8_append_safe(&out, table[i].in, strlen(table[i].in), table[i].keep_lines);
        assert_string_equal(buf_str(&out), table[i].out);
        buf_fini(&out);
    }
}

static void read_back(FILE *f, struct buf *out)
{
    char chunk[256];
    size_t n;
    rewind(f);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
}

/* A stream cut at every byte: a file gets the bytes, a terminal whole characters. */
static void test_sink(void **state)
{
    (void)state;
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82\x1b[0m\xFFz\xE2\x82";
    for (size_t piece = 1; piece < sizeof text; piece++) {
        for (int safe = 0; safe < 2; safe++) {
            struct text_sink sink;
            struct buf got;
            FILE *f = tmpfile();
            assert_non_null(f);
            buf_init(&got);
            text_sink_init(&sink, f, safe);
            for (size_t at = 0; at < sizeof text - 1; at += piece) {
                size_t left = sizeof text - 1 - at;
                assert_true(text_sink_write(&sink, text + at, left < piece ? left : piece));
            }
            assert_true(text_sink_end(&sink));
            read_back(f, &got);
            assert_string_equal(buf_str(&got),
                                safe ? "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x99\x82\\x1b[0m\xEF\xBF\xBDz"
                                       "\xEF\xBF\xBD\n"
                                     : text);
            buf_fini(&got);
            fclose(f);
        }
    }
}

static void test_columns(void **state)
{
    (void)state;
    assert_int_equal(text_columns("abc"), 3);
    assert_int_equal(text_columns("h\xC3\xA9"), 2);
    assert_int_equal(text_columns("\xE4\xB8\xAD\xE6\x96\x87"), 4); /* wide */
    assert_int_equal(text_columns("e\xCC\x81"), 1);                /* combining */
    assert_int_equal(text_columns("\xF0\x9F\x99\x82"), 2);
}

static void table_sample(struct table *t)
{
    static const char *const heads[] = {"NAME", ">SIZE", "WHY", NULL};
    table_init(t, heads);
    table_text(t, "one");
    table_size(t, 8ull << 30);
    table_text(t, "because it is what there is");
    table_text(t, "\xE4\xB8\xAD\xE6\x96\x87\x1b");
    table_count(t, 1234567);
    table_text(t, "");
}

static void test_table(void **state)
{
    (void)state;
    static const struct {
        unsigned columns;
        const char *out;
    } table[] = {
        {0, "NAME           SIZE  WHY\n"
            "one        8.00 GiB  because it is what there is\n"
            "\xE4\xB8\xAD\xE6\x96\x87\\x1b  1,234,567  -\n"},
        {40, "NAME           SIZE  WHY\n"
             "one        8.00 GiB  because it is what\xE2\x80\xA6\n"
             "\xE4\xB8\xAD\xE6\x96\x87\\x1b  1,234,567  -\n"},
        {10, "NAME           SIZE  WHY\n"
             "one        8.00 GiB  because it \xE2\x80\xA6\n"
             "\xE4\xB8\xAD\xE6\x96\x87\\x1b  1,234,567  -\n"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct table t;
        struct buf out;
        buf_init(&out);
        table_sample(&t);
        table_print(&t, table[i].columns, "none", &out);
        assert_string_equal(buf_str(&out), table[i].out);
        table_fini(&t);
        buf_fini(&out);
    }
    static const char *const heads[] = {"NAME", NULL};
    struct table t;
    struct buf out;
    buf_init(&out);
    table_init(&t, heads);
    table_print(&t, 80, "nothing there", &out);
    assert_string_equal(buf_str(&out), "nothing there\n");
    table_fini(&t);
    buf_fini(&out);
}

static void check_json(json_t *value, const char *want)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(7));
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
    json_decref(value);
}

static void test_json_values(void **state)
{
    (void)state;
    check_json(output_text("a\"\\\x1b\n", 5), "\"a\\\"\\\\\\u001B\\n\"");
    check_json(output_text("\xC3\xA9\xFFz", 4), "\"\xC3\xA9\xEF\xBF\xBDz\"");
    check_json(output_text("a\0b", 3), "\"a\\u0000b\"");
    check_json(output_count(9007199254740992ull), "9007199254740992");
    check_json(output_count(UINT64_MAX), "\"18446744073709551615\"");
    check_json(output_time(0), "null");
    check_json(output_time(1700000000123000000ull), "\"2023-11-14T22:13:20.123Z\"");
    check_json(output_hex((const uint8_t *)"\xDE\xAD", 2), "\"dead\"");
}

static void test_json_job(void **state)
{
    (void)state;
    struct cloister_job_info info = {.id = "0190",
                                     .model = "m",
                                     .tenant = "t",
                                     .worker = "",
                                     .project = "",
                                     .cost_center = "",
                                     .state = CLOISTER_STATE_FAILED,
                                     .job_class = CLOISTER_CLASS_BATCH,
                                     .error = CLOISTER_ERROR_CORRUPT,
                                     .error_text = "bad \x1b",
                                     .reserve_record = 1,
                                     .finish = CLOISTER_FINISH_ERROR};
    json_t *v = output_job_info(&info);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "state")), "failed");
    assert_string_equal(json_string_value(json_object_get(v, "finish")), "error");
    assert_int_equal(json_integer_value(json_object_get(v, "reserve_record")), 0);
    assert_true(json_is_null(json_object_get(v, "settle_record")));
    assert_string_equal(json_string_value(json_object_get(json_object_get(v, "error"), "code")),
                        "corrupt");
    json_decref(v);
    struct cloister_job job = CLOISTER_JOB_INIT;
    struct cloister_message message = {.role = "user", .content = {"hi\xFF", 3}};
    job.messages = &message;
    job.n_messages = 1;
    job.sampling.temperature = 0.7f;
    job.sampling.seed = UINT64_MAX;
    v = output_job(&job);
    assert_non_null(v);
    json_t *sampling = json_object_get(v, "sampling");
    assert_string_equal(json_string_value(json_object_get(sampling, "seed")),
                        "18446744073709551615");
    assert_true(json_is_array(json_object_get(json_object_get(v, "prompt"), "messages")));
    json_decref(v);
}

static void test_progress(void **state)
{
    (void)state;
    static const struct {
        struct progress_now now;
        unsigned columns;
        const char *text;
    } table[] = {
        {{.done = 100, .now_ms = 1000},
         200,
         "[##..................] 100/1000 10 %  0.0 lines/s  0 tokens/s"},
        {{.done = 200, .tokens = 5000, .now_ms = 11000},
         200,
         "[####................] 200/1000 20 %  10.0 lines/s  500 tokens/s  1 min 20 s left"},
        {{.done = 1000, .failed = 2, .tokens = 10, .now_ms = 2000},
         200,
         "[####################] 1000/1000 100 %  900.0 lines/s  10 tokens/s, 2 with errors"},
        {{.done = 200, .now_ms = 11000}, 30, "[####................] 200/10"},
    };
    struct progress p = {.total = 1000, .done_before = 100, .began_ms = 1000};
    for (size_t i = 0; i < COUNT(table); i++) {
        char text[PROGRESS_TEXT_BYTES];
        progress_format(&p, &table[i].now, table[i].columns, text);
        assert_string_equal(text, table[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safe_text),   cmocka_unit_test(test_sink),
        cmocka_unit_test(test_columns),     cmocka_unit_test(test_table),
        cmocka_unit_test(test_json_values), cmocka_unit_test(test_json_job),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
