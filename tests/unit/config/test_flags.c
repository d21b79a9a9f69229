/* Command lines as tables: what is taken, what is refused and with which words. */
#include "common/flags.h"
#include "common/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define WORDS_MOST   16

struct global {
    bool json, verbose;
    const char *url;
};
struct own {
    uint64_t count, wait_ms, memory_bytes;
    double heat;
    struct flag_texts stops;
    const char *kind, *url;
    uint32_t day;
    bool has_count;
};

static const char *const kinds[] = {"red", "green", NULL};
static const struct flag global_flags[] = {
    {.name = "json", .type = FLAG_SWITCH, .offset = offsetof(struct global, json), .help = "J."},
    {.name = "verbose",
     .letter = 'v',
     .type = FLAG_SWITCH,
     .offset = offsetof(struct global, verbose),
     .help = "V."},
    {.name = "url",
     .letter = 'u',
     .type = FLAG_TEXT,
     .argument = "URL",
     .offset = offsetof(struct global, url),
     .help = "U."},
    {0}};
static const struct flag own_flags[] = {
    {.name = "count",
     .letter = 'n',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = offsetof(struct own, count),
     .given = offsetof(struct own, has_count),
     .min = 1,
     .max = 10,
     .help = "How many, with a help text that is long enough to be wrapped twice over "
             "the lines of a terminal of the usual width."},
    {.name = "heat",
     .type = FLAG_FLOAT,
     .argument = "T",
     .offset = offsetof(struct own, heat),
     .float_min = 0,
     .float_max = 2,
     .help = "H."},
    {.name = "stop",
     .type = FLAG_TEXTS,
     .argument = "TEXT",
     .offset = offsetof(struct own, stops),
     .max = 2,
     .help = "S."},
    {.name = "kind",
     .type = FLAG_CHOICE,
     .argument = "KIND",
     .offset = offsetof(struct own, kind),
     .choices = kinds,
     .help = "K."},
    {.name = "wait",
     .letter = 'w',
     .type = FLAG_DURATION,
     .argument = "TIME",
     .offset = offsetof(struct own, wait_ms),
     .min = 0,
     .max = 60000,
     .help = "W."},
    {.name = "memory",
     .type = FLAG_SIZE,
     .argument = "SIZE",
     .offset = offsetof(struct own, memory_bytes),
     .min = 0,
     .max = 1ull << 40,
     .help = "M."},
    {.name = "day",
     .type = FLAG_DAY,
     .argument = "DAY",
     .offset = offsetof(struct own, day),
     .help = "D."},
    {0}};
static const struct flag_set global_sets[] = {{.flags = global_flags}, {0}};
static const struct flag_set own_sets[] = {{.flags = own_flags}, {0}};

struct parsed {
    struct global global;
    struct own own;
    char *words[WORDS_MOST];
    int n_operands;
    struct errbuf eb;
};

static enum err parse(struct parsed *p, const char *const *words, bool stop)
{
    int n = 0;
    memset(p, 0, sizeof *p);
    for (; words[n]; n++)
        p->words[n] = (char *)words[n];
    struct flag_target targets[] = {{own_sets, &p->own}, {global_sets, &p->global}};
    return flags_parse(p->words, n, targets, 2, stop, &p->n_operands, &p->eb);
}

static void test_everything_that_is_taken(void **state)
{
    (void)state;
    struct parsed p;
    static const char *const words[] = {"one",    "--count", "3",       "--heat=0.5",
                                        "--stop", "a",       "--stop=", "two",
                                        "-vw30s", "--",      "--json",  NULL};
    assert_int_equal(parse(&p, words, false), ERR_OK);
    assert_int_equal(p.own.count, 3);
    assert_true(p.own.has_count);
    assert_true(p.own.heat == 0.5);
    assert_int_equal(p.own.stops.count, 2);
    assert_string_equal(p.own.stops.items[0], "a");
    assert_string_equal(p.own.stops.items[1], "");
    assert_true(p.global.verbose);
    assert_false(p.global.json);
    assert_int_equal(p.own.wait_ms, 30000);
    assert_int_equal(p.n_operands, 3);
    assert_string_equal(p.words[0], "one");
    assert_string_equal(p.words[1], "two");
    assert_string_equal(p.words[2], "--json");

    static const char *const more[] = {"-n",       "10",          "-",     "--kind",
                                       "green",    "-utcp://a:1", "--day", "2024-02-29",
                                       "--memory", "2GiB",        NULL};
    assert_int_equal(parse(&p, more, false), ERR_OK);
    assert_int_equal(p.own.count, 10);
    assert_string_equal(p.own.kind, "green");
    assert_string_equal(p.global.url, "tcp://a:1");
    assert_int_equal(p.own.day, 20240229);
    assert_int_equal(p.own.memory_bytes, 2ull << 30);
    assert_int_equal(p.n_operands, 1);
    assert_string_equal(p.words[0], "-");
}

/* Flags before a command belong to the program, those behind it wait for the command's table. */
static void test_stop_at_the_first_operand(void **state)
{
    (void)state;
    struct parsed p;
    static const char *const words[] = {"--json", "submit", "--nonsense", "x", NULL};
    assert_int_equal(parse(&p, words, true), ERR_OK);
    assert_true(p.global.json);
    assert_int_equal(p.n_operands, 3);
    assert_string_equal(p.words[1], "--nonsense");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *words[4], *says;
    } table[] = {
        {{"--cuont", "3"}, "unknown flag --cuont; the nearest one is --count"},
        {{"--jsno"}, "unknown flag --jsno; the nearest one is --json"},
        {{"-x"}, "unknown flag -x"},
        {{"-vx"}, "unknown flag -x"},
        {{"--count"}, "--count needs a value: N"},
        {{"-n"}, "--count needs a value: N"},
        {{"--count", "0"}, "--count: 0 is out of range; it may be 1 to 10"},
        {{"--count", "11"}, "--count: 11 is out of range; it may be 1 to 10"},
        {{"--count", "3x"}, "--count: \"3x\" is not a whole number"},
        {{"--count", "-3"}, "--count: \"-3\" is not a whole number"},
        {{"--count", " 3"}, "--count: \" 3\" is not a whole number"},
        {{"--count", "0x3"}, "--count: \"0x3\" is not a whole number"},
        {{"--count="}, "--count: \"\" is not a whole number"},
        {{"--count=99999999999999999999"},
         "--count: \"99999999999999999999\" is not a whole number"},
        {{"--count=2", "-n3"}, "--count is given twice"},
        {{"--heat", "hot"}, "--heat: \"hot\" is not a number"},
        {{"--heat", "nan"}, "--heat: \"nan\" is not a number"},
        {{"--heat", "2.01"}, "--heat: 2.01 is out of range; it may be 0 to 2"},
        {{"--heat=-1"}, "--heat: -1 is out of range; it may be 0 to 2"},
        {{"--wait", "30"},
         "--wait: \"30\" is not a duration with its unit, such as 30s, 500ms, 5m or 2h"},
        {{"--wait", "2m"}, "--wait: 2m is out of range; it may be 0s to 1m"},
        {{"--memory", "8"}, "--memory: \"8\" is not a size with its unit, such as 512MiB or 8GiB"},
        {{"--memory", "2TiB"}, "--memory: 2TiB is out of range; it may be 0B to 1TiB"},
        {{"--kind", "blue"}, "--kind: \"blue\" is not one of red, green"},
        {{"--day", "2026-02-29"}, "--day: \"2026-02-29\" is not a day; write 2026-01-31"},
        {{"--day", "2026-1-1"}, "--day: \"2026-1-1\" is not a day; write 2026-01-31"},
        {{"--day", "2026-13-01"}, "--day: \"2026-13-01\" is not a day; write 2026-01-31"},
        {{"--json=yes"}, "--json takes no value"},
        {{"--json", "--json"}, "--json is given twice"},
        {{"--stop=a", "--stop=b", "--stop=c"}, "--stop: given more than 2 times"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct parsed p;
        const char *words[5] = {0};
        memcpy(words, table[i].words, sizeof table[i].words);
        assert_int_equal(parse(&p, words, false), ERR_INVALID);
        assert_string_equal(p.eb.text, table[i].says);
    }
}

static void test_describe_wraps(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out);
    flags_describe(own_sets, 80, &out);
    const char *want =
        "  -n, --count N               How many, with a help text that is long enough to\n"
        "                              be wrapped twice over the lines of a terminal of\n"
        "                              the usual width.\n"
        "      --heat T                H.\n";
    assert_memory_equal(buf_str(&out), want, strlen(want));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_that_is_taken),
        cmocka_unit_test(test_stop_at_the_first_operand),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_describe_wraps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
