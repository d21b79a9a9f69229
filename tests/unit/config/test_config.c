/* The configuration reader: what it takes, what it refuses and with which words. */
#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

struct demo_tls {
    const char *ca_file, *cert_file;
};
struct demo_model {
    const char *name, *path;
    int64_t slots;
};
struct demo {
    const char *url, *title;
    int64_t workers;
    bool strict;
    double share;
    uint64_t wait_ms, memory;
    int level;
    struct config_list labels, models;
    struct demo_tls tls;
    struct {
        int64_t depth;
    } queue;
};

static const char *const levels[] = {"error", "warn", "info", NULL};
static const struct config_key tls_keys[] = {{.name = "ca_file",
                                              .type = CONFIG_STRING,
                                              .offset = offsetof(struct demo_tls, ca_file),
                                              .required = true,
                                              .example = "/etc/cloister/ca.pem",
                                              .check = config_check_absolute_path,
                                              .help = "Authorities."},
                                             {.name = "cert_file",
                                              .type = CONFIG_STRING,
                                              .offset = offsetof(struct demo_tls, cert_file),
                                              .help = "Our certificate.",
                                              .example = "/etc/cloister/cert.pem"},
                                             {0}};
static const struct config_key model_keys[] = {{.name = "name",
                                                .type = CONFIG_STRING,
                                                .offset = offsetof(struct demo_model, name),
                                                .required = true,
                                                .example = "smollm2",
                                                .check = config_check_name,
                                                .help = "Its name."},
                                               {.name = "path",
                                                .type = CONFIG_STRING,
                                                .offset = offsetof(struct demo_model, path),
                                                .required = true,
                                                .example = "/srv/a.gguf",
                                                .help = "Its file."},
                                               {.name = "slots",
                                                .type = CONFIG_INT,
                                                .offset = offsetof(struct demo_model, slots),
                                                .fallback = "8",
                                                .min = 1,
                                                .max = 64,
                                                .help = "Jobs at once."},
                                               {0}};
static const struct config_key queue_keys[] = {
    {.name = "depth", .type = CONFIG_INT, .offset = 0, .fallback = "100", .min = 1, .max = 1000},
    {0}};
static const struct config_key keys[] = {
    {.name = "url",
     .type = CONFIG_STRING,
     .offset = offsetof(struct demo, url),
     .fallback = "tcp://127.0.0.1:7420",
     .check = config_check_url,
     .help = "Where it is."},
    {.name = "title",
     .type = CONFIG_STRING,
     .offset = offsetof(struct demo, title),
     .max = 20,
     .example = "my \"own\" \\",
     .help = "Free text."},
    {.name = "workers",
     .type = CONFIG_INT,
     .offset = offsetof(struct demo, workers),
     .fallback = "2",
     .min = 1,
     .max = 5000000000},
    {.name = "strict",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct demo, strict),
     .fallback = "true"},
    {.name = "share",
     .type = CONFIG_FLOAT,
     .offset = offsetof(struct demo, share),
     .fallback = "0.5",
     .float_min = 0,
     .float_max = 1},
    {.name = "wait",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct demo, wait_ms),
     .fallback = "30s",
     .min = 1000,
     .max = 3600000},
    {.name = "memory",
     .type = CONFIG_SIZE,
     .offset = offsetof(struct demo, memory),
     .fallback = "8GiB",
     .min = 1 << 20,
     .max = 1ll << 40},
    {.name = "level",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct demo, level),
     .fallback = "info",
     .names = levels},
    {.name = "labels",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct demo, labels),
     .min = 0,
     .max = 3,
     .example = "rack 7"},
    {.name = "models",
     .type = CONFIG_GROUPS,
     .offset = offsetof(struct demo, models),
     .keys = model_keys,
     .element_bytes = sizeof(struct demo_model),
     .unique = "name",
     .max = 4,
     .help = "A help text that is long enough to be wrapped over more than one line of the example "
             "file, so that the wrapping is seen to put every word somewhere."},
    {.name = "tls", .type = CONFIG_GROUP, .offset = offsetof(struct demo, tls), .keys = tls_keys},
    {.name = "queue",
     .type = CONFIG_GROUP,
     .offset = offsetof(struct demo, queue),
     .keys = queue_keys},
    {0}};

static enum err read_text(struct config **c, struct demo *d, const char *text, struct errbuf *eb)
{
    return config_load_memory(c, keys, d, sizeof *d, text, strlen(text), "demo.cfg", eb);
}

static void test_defaults(void **state)
{
    (void)state;
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(read_text(&c, &d, "", &eb), ERR_OK);
    assert_string_equal(d.url, "tcp://127.0.0.1:7420");
    assert_null(d.title);
    assert_int_equal(d.workers, 2);
    assert_true(d.strict);
    assert_true(d.share == 0.5);
    assert_int_equal(d.wait_ms, 30000);
    assert_int_equal(d.memory, 8ull << 30);
    assert_int_equal(d.level, 2);
    assert_int_equal(d.labels.count, 0);
    assert_int_equal(d.models.count, 0);
    assert_null(d.tls.ca_file);
    assert_int_equal(d.queue.depth, 100);
    config_free(c);
}

static void test_everything_set(void **state)
{
    (void)state;
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(read_text(&c, &d,
                               "url = \"tls+tcp://c.example:7\"; # why\n"
                               "title = \"a\" \" b \\\"\xC3\xA9\\\"\";\n"
                               "workers = 5000000000; strict = false; share = 1; // end\n"
                               "wait = \"500m\"" /* replaced below */ "\n",
                               &eb),
                     ERR_INVALID);
    assert_string_equal(eb.text,
                        "demo.cfg:4: wait: \"500m\" is out of range; it may be \"1s\" to \"1h\"");
    assert_int_equal(read_text(&c, &d,
                               "url = \"tls+tcp://c.example:7\"; # why\n"
                               "title = \"a\" \" b \\\"\xC3\xA9\\\"\";\n"
                               "workers = 0xFF; strict = false; share = 1; // end\n"
                               "/* a comment\n of two lines */ wait : \"5m\"\nmemory = \"2MiB\"\n"
                               "level = \"warn\" labels = [\"x\", \"y\"];\n"
                               "models = ( { name = \"a\"; path = \"/a\"; slots = 3; },\n"
                               "           { name = \"b\"; path = \"/b\"; } );\n"
                               "tls = { ca_file = \"/ca\"; };\nqueue : { depth = 7 }\n",
                               &eb),
                     ERR_OK);
    assert_string_equal(d.url, "tls+tcp://c.example:7");
    assert_string_equal(d.title, "a b \"\xC3\xA9\"");
    assert_int_equal(d.workers, 255);
    assert_false(d.strict);
    assert_true(d.share == 1);
    assert_int_equal(d.wait_ms, 300000);
    assert_int_equal(d.memory, 2 << 20);
    assert_int_equal(d.level, 1);
    assert_int_equal(d.labels.count, 2);
    assert_string_equal(((const char *const *)d.labels.items)[1], "y");
    const struct demo_model *models = d.models.items;
    assert_int_equal(d.models.count, 2);
    assert_string_equal(models[0].name, "a");
    assert_int_equal(models[0].slots, 3);
    assert_string_equal(models[1].path, "/b");
    assert_int_equal(models[1].slots, 8);
    assert_string_equal(d.tls.ca_file, "/ca");
    assert_int_equal(d.queue.depth, 7);

    assert_int_equal(config_fail(c, &eb, "models.[1].path", "no such %s", "file"), ERR_INVALID);
    assert_string_equal(eb.text, "demo.cfg:9: models.[1].path: no such file");
    assert_int_equal(config_fail(c, &eb, "title.none", "?"), ERR_INVALID);
    assert_string_equal(eb.text, "demo.cfg: title.none: ?");
    config_free(c);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } table[] = {
        /* unknown keys */
        {"\nulr = \"x\";", "demo.cfg:2: ulr: unknown key; the nearest valid one is \"url\""},
        {"Workers = 1;", "demo.cfg:1: Workers: unknown key; the nearest valid one is \"workers\""},
        {"queue = {\n dpeth = 1; };",
         "demo.cfg:2: queue.dpeth: unknown key; the nearest valid one is \"depth\""},
        {"ca_file = \"/x\";", "demo.cfg:1: ca_file: unknown key here; did you mean tls.ca_file?"},
        {"slots = 1;", "demo.cfg:1: slots: unknown key here; did you mean models[].slots?"},
        {"models = ({name=\"a\";path=\"/a\";},\n{nam=\"b\";});",
         "demo.cfg:2: models[1].nam: unknown key; the nearest valid one is \"name\""},
        /* wrong types */
        {"url = 5;", "demo.cfg:1: url: this must be a string, \"...\", not a whole number"},
        {"workers = \"2\";", "demo.cfg:1: workers: this must be a whole number, not a string"},
        {"workers = 2.0;",
         "demo.cfg:1: workers: this must be a whole number, not a number with a fraction"},
        {"strict = 1;", "demo.cfg:1: strict: this must be true or false, not a whole number"},
        {"share = \"1\";", "demo.cfg:1: share: this must be a number, not a string"},
        {"wait = 30;", "demo.cfg:1: wait: this must be a duration with its unit as a string, such "
                       "as \"30s\", \"500ms\", \"5m\" or \"2h\", not a whole number"},
        {"queue = ( );", "demo.cfg:1: queue: this must be a group, { ... }, not a list ( ... )"},
        {"models = { };",
         "demo.cfg:1: models: this must be a list of groups, ( { ... }, { ... } ), "
         "not a group { ... }"},
        {"models = (\n 5 );", "demo.cfg:2: models[0]: this must be a group, { ... }, not a whole "
                              "number"},
        {"labels = (\"a\",\n 5);",
         "demo.cfg:2: labels[1]: this must be a string, \"...\", not a whole number"},
        /* impossible values */
        {"workers = 0;", "demo.cfg:1: workers: 0 is out of range; it may be 1 to 5000000000"},
        {"workers = 5000000001;",
         "demo.cfg:1: workers: 5000000001 is out of range; it may be 1 to 5000000000"},
        {"workers = -3;", "demo.cfg:1: workers: -3 is out of range; it may be 1 to 5000000000"},
        {"share = 1.5;", "demo.cfg:1: share: 1.5 is out of range; it may be 0 to 1"},
        {"wait = \"30 s\";",
         "demo.cfg:1: wait: \"30 s\" is not a duration with its unit as a string, such as \"30s\", "
         "\"500ms\", \"5m\" or \"2h\""},
        {"memory = \"8G\";", "demo.cfg:1: memory: \"8G\" is not a size with its unit as a string, "
                             "such as \"512MiB\" or \"8GiB\""},
        {"memory = \"1KiB\";",
         "demo.cfg:1: memory: \"1KiB\" is out of range; it may be \"1MiB\" to \"1TiB\""},
        {"level = \"loud\";",
         "demo.cfg:1: level: \"loud\" is not one of \"error\", \"warn\", \"info\""},
        {"title = \"123456789012345678901\";",
         "demo.cfg:1: title: is 21 bytes long; it may be 0 to 20"},
        {"title = \"a\\nb\";", "demo.cfg:1: title: must be UTF-8 text without control characters"},
        {"title = \"\\xFF\";", "demo.cfg:1: title: must be UTF-8 text without control characters"},
        {"labels = (\"a\",\"b\",\"c\",\"d\");",
         "demo.cfg:1: labels: has 4 elements; it may have 0 to 3"},
        {"url = \"http://x:1\";",
         "demo.cfg:1: url: \"http://x:1\" is not an address; write tcp://HOST:PORT or "
         "tls+tcp://HOST:PORT, such as tcp://127.0.0.1:7420"},
        {"url = \"tcp://x:007420\";",
         "demo.cfg:1: url: \"tcp://x:007420\" is not an address; write tcp://HOST:PORT or "
         "tls+tcp://HOST:PORT, such as tcp://127.0.0.1:7420"},
        {"tls = { ca_file = \"ca.pem\"; };",
         "demo.cfg:1: tls.ca_file: \"ca.pem\" must be an absolute path, beginning with /"},
        /* duplicates, missing keys */
        {"url = \"tcp://a:1\";\nurl = \"tcp://a:1\";",
         "demo.cfg:2: the key \"url\" is there twice in its group"},
        {"url = \"tcp://a:1\"; # title = \"c\"\nmodels = ({name=\"true\";path=\"/a\";},\n"
         "{name = \"b\"; name = \"c\"; path = \"/b\";});",
         "demo.cfg:3: the key \"name\" is there twice in its group"},
        {"strict = True; level = \"info\"; strict = false; level = \"warn\";",
         "demo.cfg:1: the key \"strict\" is there twice in its group"},
        {"models = ({name=\"a\";path=\"/a\";},\n{name=\"a\";path=\"/b\";});",
         "demo.cfg:2: models[1]: name \"a\" is there twice (first in line 1)"},
        {"models = (\n{name=\"a\";});",
         "demo.cfg:2: models[0]: the required key \"path\" is missing: Its file."},
        {"tls = { };", "demo.cfg:1: tls: the required key \"ca_file\" is missing: Authorities."},
        /* what the first pass refuses, each of which libconfig would take or follow */
        {"workers = 99999999999999999999;", "demo.cfg:1: this number does not fit 64 bits"},
        {"workers = 0x1FFFFFFFFFFFFFFFF;", "demo.cfg:1: this number is too large"},
        {"share = 1e999;", "demo.cfg:1: this is not a number; a value with a unit is written as a "
                           "string: \"30s\", \"8GiB\""},
        {"wait = 30s;", "demo.cfg:1: syntax error here or just before; a setting is NAME = VALUE;"},
        {"\nwait = \n\n\n",
         "demo.cfg:2: syntax error here or just before; a setting is NAME = VALUE;"},
        {"workers = 007;", "demo.cfg:1: a number does not begin with 0"},
        {"\n/* never closed", "demo.cfg:2: this comment is never closed; end it with */"},
        {"title = \"never closed", "demo.cfg:1: this string is never closed; end it with \""},
        {"title = \"a\\x00b\";", "demo.cfg:1: a string cannot hold \\x00"},
        {"title = \"a\\q\";",
         "demo.cfg:1: unknown escape in a string; \\n \\r \\t \\f \\\\ \\\" and "
         "\\xHH are the ones there are"},
        {"@include \"/etc/passwd\"\n",
         "demo.cfg:1: @include is not supported: a configuration is one file"},
        {"a = ((((((((((((((((()))))))))))))))));",
         "demo.cfg:1: groups and lists are nested too deep"},
        {"queue = { depth = 1;", "demo.cfg:1: the file ends inside a group or list: a bracket is "
                                 "missing"},
        {"}", "demo.cfg:1: a bracket is closed that was never opened"},
        {"workers = 1;\x01", "demo.cfg:1: a control character stands here"},
        {"\n# \xFF\n", "demo.cfg:2: the file is not UTF-8 here"},
        {"workers ! 1;", "demo.cfg:1: this character cannot stand here"},
        {"workers 1;", "demo.cfg:1: syntax error here or just before; a setting is NAME = VALUE;"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct config *c = NULL;
        struct demo d = {.workers = 77};
        struct errbuf eb = {0};
        assert_int_equal(read_text(&c, &d, table[i].text, &eb), ERR_INVALID);
        assert_string_equal(eb.text, table[i].message);
        assert_null(c);
        assert_int_equal(d.workers, 77);
    }
}

/* A '@' inside a string or a comment is only a character. */
static void test_include_look_alikes(void **state)
{
    (void)state;
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(read_text(&c, &d, "# @include \"x\"\ntitle = \"@include \\\"x\\\"\";\n", &eb),
                     ERR_OK);
    assert_string_equal(d.title, "@include \"x\"");
    config_free(c);
}

static void test_too_large(void **state)
{
    (void)state;
    char *text = malloc(CONFIG_FILE_BYTES + 2);
    assert_non_null(text);
    memset(text, '\n', CONFIG_FILE_BYTES + 1);
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(
        config_load_memory(&c, keys, &d, sizeof d, text, CONFIG_FILE_BYTES + 1, "x", &eb),
        ERR_TOO_LARGE);
    assert_int_equal(config_load_memory(&c, keys, &d, sizeof d, text, CONFIG_FILE_BYTES, "x", &eb),
                     ERR_OK);
    config_free(c);
    free(text);
}

/* What --example-config prints is read back, with the defaults it shows; and so is a version of it
 * with every commented key switched on. */
static void test_describe_reads_back(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text);
    config_describe(keys, "Demo configuration.", &text);
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(read_text(&c, &d, buf_str(&text), &eb), ERR_OK);
    assert_int_equal(d.workers, 2);
    assert_int_equal(d.models.count, 0);
    config_free(c);

    struct buf all;
    buf_init(&all);
    for (size_t i = 0; i < text.size; i++) {
        bool key = text.data[i] == '#' && text.data[i + 1] != ' ';
        if (!key)
            buf_append_byte(&all, text.data[i]);
    }
    if (read_text(&c, &d, buf_str(&all), &eb) != ERR_OK)
        fail_msg("%s in\n%s", eb.text, buf_str(&all));
    assert_int_equal(d.models.count, 1);
    assert_string_equal(((const struct demo_model *)d.models.items)->name, "smollm2");
    assert_string_equal(d.title, "my \"own\" \\");
    assert_string_equal(d.tls.cert_file, "/etc/cloister/cert.pem");
    assert_int_equal(d.labels.count, 1);
    config_free(c);
    for (size_t line = 0, i = 0; i < text.size; i++, line++) {
        if (text.data[i] == '\n')
            line = (size_t)-1;
        assert_true(line == (size_t)-1 || line < 100);
    }
    buf_fini(&all);
    buf_fini(&text);
}

static void test_files(void **state)
{
    (void)state;
    struct config *c;
    struct demo d;
    struct errbuf eb = {0};
    assert_int_equal(config_load_file(&c, keys, &d, sizeof d, "/nonexistent/x.cfg", &eb),
                     ERR_NOT_FOUND);
    assert_string_equal(eb.text, "/nonexistent/x.cfg: No such file or directory");
    assert_int_equal(config_load_file(&c, keys, &d, sizeof d, "/", &eb), ERR_IO);
    char path[] = "/tmp/cloister-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "workers = 9;\n", 13), 13);
    close(fd);
    assert_int_equal(config_load_file(&c, keys, &d, sizeof d, path, &eb), ERR_OK);
    assert_int_equal(d.workers, 9);
    config_free(c);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),  cmocka_unit_test(test_everything_set),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_include_look_alikes),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_describe_reads_back),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
