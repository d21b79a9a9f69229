/* Numbers with units and UTF-8, as tables. */
#include "common/units.h"
#include "common/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

static void test_duration_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint64_t ms;
    } table[] = {
        {"0", true, 0},
        {"0s", true, 0},
        {"500ms", true, 500},
        {"30s", true, 30000},
        {"5m", true, 300000},
        {"2h", true, 7200000},
        {"1d", true, 86400000},
        {"", false, 0},
        {"30", false, 0},
        {"s", false, 0},
        {"-1s", false, 0},
        {"1.5s", false, 0},
        {" 1s", false, 0},
        {"1s ", false, 0},
        {"1 s", false, 0},
        {"1h30m", false, 0},
        {"1S", false, 0},
        {"+1s", false, 0},
        {"0x10s", false, 0},
        {"1min", false, 0},
        {"99999999999999999999s", false, 0},
        {"18446744073709551615ms", true, UINT64_MAX},
        {"18446744073709551615s", false, 0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        uint64_t ms = 77;
        assert_int_equal(units_duration_parse(table[i].text, &ms), table[i].ok);
        assert_int_equal(ms, table[i].ok ? table[i].ms : 77);
    }
}

static void test_size_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        uint64_t bytes;
    } table[] = {
        {"0", true, 0},
        {"4096B", true, 4096},
        {"64KiB", true, 65536},
        {"8GiB", true, 8ull << 30},
        {"1TiB", true, 1ull << 40},
        {"5kB", true, 5000},
        {"3MB", true, 3000000},
        {"2GB", true, 2000000000},
        {"1TB", true, 1000000000000},
        {"8", false, 0},
        {"8G", false, 0},
        {"8gib", false, 0},
        {"8 GiB", false, 0},
        {"-8GiB", false, 0},
        {"", false, 0},
        {"16777216TiB", false, 0},
        {"16777215TiB", true, 16777215ull << 40},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        uint64_t bytes = 77;
        assert_int_equal(units_size_parse(table[i].text, &bytes), table[i].ok);
        assert_int_equal(bytes, table[i].ok ? table[i].bytes : 77);
    }
}

static void test_int_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } table[] = {
        {"0", true, 0},
        {"-5", true, -5},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"", false, 0},
        {"-", false, 0},
        {"+1", false, 0},
        {"1 ", false, 0},
        {"1e3", false, 0},
        {"0x1", false, 0},
        {"--1", false, 0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        int64_t value = 77;
        assert_int_equal(units_int_parse(table[i].text, &value), table[i].ok);
        assert_int_equal(value, table[i].ok ? table[i].value : 77);
    }
}

static void test_float_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        double value;
    } table[] = {
        {"0", true, 0},      {"0.7", true, 0.7},  {"-1.5", true, -1.5}, {"1e-3", true, 1e-3},
        {".5", true, 0.5},   {"", false, 0},      {"nan", false, 0},    {"inf", false, 0},
        {"1e999", false, 0}, {"0x1p3", false, 0}, {"1,5", false, 0},    {"0.5f", false, 0},
        {" 1", false, 0},    {"+1", false, 0},    {"-", false, 0},      {"1.2.3", false, 0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        double value = 77;
        assert_int_equal(units_float_parse(table[i].text, &value), table[i].ok);
        assert_true(value == (table[i].ok ? table[i].value : 77));
    }
}

static void test_shares_parse(void **state)
{
    static const struct {
        const char *text;
        size_t count; /* 0: refused */
        uint64_t shares[3];
    } table[] = {
        {"3,1", 2, {3, 1}},
        {"7", 1, {7}},
        {"80GiB,24GiB,0", 3, {80ull << 30, 24ull << 30, 0}},
        {"18446744073709551615", 1, {UINT64_MAX}},
        {"", 0, {0}},
        {",", 0, {0}},
        {"3,", 0, {0}},
        {",3", 0, {0}},
        {"3,,1", 0, {0}},
        {"3, 1", 0, {0}},
        {"3;1", 0, {0}},
        {"-3,1", 0, {0}},
        {"1.5,1", 0, {0}},
        {"18446744073709551616,1", 0, {0}},
        {"1,2,3,4", 0, {0}},
        {"00000000000000000000000000000000000000000000000001", 0, {0}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        uint64_t shares[3] = {0};
        size_t count = 0;
        assert_int_equal(units_shares_parse(table[i].text, 3, shares, &count), table[i].count > 0);
        assert_int_equal(count, table[i].count);
        for (size_t k = 0; k < count; k++)
            assert_true(shares[k] == table[i].shares[k]);
    }
}

static void test_bias_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        int32_t id;
        float bias;
    } table[] = {
        {"0:1", true, 0, 1},      {"50256:-100", true, 50256, -100},
        {"7:0.5", true, 7, 0.5f}, {"2147483647:1", true, INT32_MAX, 1},
        {"", false, 0, 0},        {"7", false, 0, 0},
        {"7:", false, 0, 0},      {":1", false, 0, 0},
        {"-1:1", false, 0, 0},    {"2147483648:1", false, 0, 0},
        {"7:1:2", false, 0, 0},   {"99999999999999999999:1", false, 0, 0},
        {"7: 1", false, 0, 0},    {"7:nan", false, 0, 0},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        int32_t id = 77;
        float bias = 77;
        assert_int_equal(units_bias_parse(table[i].text, &id, &bias), table[i].ok);
        assert_int_equal(id, table[i].ok ? table[i].id : 77);
        assert_true(bias == (table[i].ok ? table[i].bias : 77));
    }
}

static void test_formats(void **state)
{
    (void)state;
    char text[UNITS_TEXT_BYTES];
    static const struct {
        uint64_t bytes;
        const char *people, *exact;
    } sizes[] = {
        {0, "0 B", "0B"},
        {512, "512 B", "512B"},
        {1023, "1.00 KiB", "1023B"},
        {65536, "64.0 KiB", "64KiB"},
        {97617920, "93.1 MiB", "95330KiB"},
        {8ull << 30, "8.00 GiB", "8GiB"},
        {UINT64_MAX, "16.0 EiB", "18446744073709551615B"},
    };
    for (size_t i = 0; i < COUNT(sizes); i++) {
        units_size_format(sizes[i].bytes, text);
        assert_string_equal(text, sizes[i].people);
        units_size_write(sizes[i].bytes, text);
        assert_string_equal(text, sizes[i].exact);
    }
    static const struct {
        uint64_t ms;
        const char *people, *exact;
    } durations[] = {
        {0, "0 ms", "0s"},
        {950, "950 ms", "950ms"},
        {12345, "12.3 s", "12345ms"},
        {60000, "1 min 00 s", "1m"},
        {245000, "4 min 05 s", "245s"},
        {12000000, "3 h 20 min", "200m"},
        {1051200000, "12 d 4 h", "292h"},
    };
    for (size_t i = 0; i < COUNT(durations); i++) {
        units_duration_format(durations[i].ms, text);
        assert_string_equal(text, durations[i].people);
        units_duration_write(durations[i].ms, text);
        assert_string_equal(text, durations[i].exact);
    }
    static const struct {
        uint64_t count;
        const char *text;
    } counts[] = {{0, "0"}, {999, "999"}, {1000, "1,000"}, {1234567, "1,234,567"}};
    for (size_t i = 0; i < COUNT(counts); i++) {
        units_count_format(counts[i].count, text);
        assert_string_equal(text, counts[i].text);
    }
}

/* Every code point there is, and every number that is none. */
static void test_utf8_all_code_points(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x120000; code++) {
        uint8_t b[4];
        size_t n;
        if (code < 0x80) {
            b[0] = (uint8_t)code;
            n = 1;
        } else if (code < 0x800) {
            b[0] = (uint8_t)(0xC0 | code >> 6);
            b[1] = (uint8_t)(0x80 | (code & 0x3F));
            n = 2;
        } else if (code < 0x10000) {
            b[0] = (uint8_t)(0xE0 | code >> 12);
            b[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
            b[2] = (uint8_t)(0x80 | (code & 0x3F));
            n = 3;
        } else {
            b[0] = (uint8_t)(0xF0 | code >> 18);
            b[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
            b[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
            b[3] = (uint8_t)(0x80 | (code & 0x3F));
            n = 4;
        }
        bool legal = code < 0x110000 && !(code >= 0xD800 && code <= 0xDFFF);
        uint32_t got = 0;
        assert_int_equal(utf8_decode(b, n, &got), legal ? n : 0);
        if (legal)
            assert_int_equal(got, code);
        /* Every cut of a legal sequence is an unfinished tail and not valid. */
        for (size_t cut = 1; legal && cut < n; cut++) {
            size_t tail = 0;
            assert_int_equal(utf8_decode(b, cut, &got), 0);
            assert_true(utf8_tail_unfinished(b, cut, &tail));
            assert_int_equal(tail, cut);
            assert_int_equal(utf8_bad_length(b, cut), cut);
        }
    }
}

/* The Unicode Standard 15, table 3-8: how many bytes one replacement stands for. */
static void test_utf8_bad_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size, bad;
    } table[] = {
        {"\xC0\xAF", 2, 1},
        {"\xE0\x80\xBF", 3, 1},
        {"\xF0\x81\x82\x41", 4, 1},
        {"\xED\xA0\x80", 3, 1},
        {"\xF4\x91\x92\x93", 4, 1},
        {"\xFF\x41", 2, 1},
        {"\x80\x42", 2, 1},
        {"\xE1\x80\xE2", 3, 2},
        {"\xF1\x91\xBF\x41", 4, 3},
        {"\xF4\x90\x80\x80", 4, 1},
        {"\xC3(", 2, 1},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        uint32_t code;
        assert_int_equal(utf8_decode(table[i].bytes, table[i].size, &code), 0);
        assert_int_equal(utf8_bad_length(table[i].bytes, table[i].size), table[i].bad);
    }
    size_t tail;
    assert_false(utf8_tail_unfinished("plain", 5, &tail));
    assert_false(utf8_tail_unfinished("\xC3\xA9", 2, &tail));
    assert_false(utf8_tail_unfinished("a\x80", 2, &tail));
    assert_true(utf8_tail_unfinished("ab\xF0\x9F\x98", 5, &tail));
    assert_int_equal(tail, 3);
    assert_true(utf8_is_plain("h\xC3\xA9llo", 6));
    assert_false(utf8_is_plain("a\x1b[2J", 5));
    assert_false(utf8_is_plain("a\xE2\x80\xAE", 4)); /* right-to-left override */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duration_parse),
        cmocka_unit_test(test_size_parse),
        cmocka_unit_test(test_int_parse),
        cmocka_unit_test(test_float_parse),
        cmocka_unit_test(test_shares_parse),
        cmocka_unit_test(test_bias_parse),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_utf8_all_code_points),
        cmocka_unit_test(test_utf8_bad_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
