/*
 * fuzz_config: any bytes as a configuration file. What is refused says where; what is accepted
 * keeps to its table.
 */
#include "common/check.h"
#include "common/config.h"
#include "common/utf8.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct model {
    const char *name;
    int64_t slots;
};

struct values {
    const char *url, *title;
    int64_t count;
    bool flag;
    double share;
    uint64_t wait_ms, memory;
    int level;
    struct config_list labels, models;
    struct {
        const char *ca_file;
    } tls;
};

static const char *const levels[] = {"error", "warn", NULL};
static const struct config_key tls_keys[] = {{.name = "ca_file",
                                              .type = CONFIG_STRING,
                                              .required = true,
                                              .check = config_check_absolute_path},
                                             {0}};
static const struct config_key model_keys[] = {{.name = "name",
                                                .type = CONFIG_STRING,
                                                .offset = offsetof(struct model, name),
                                                .required = true,
                                                .check = config_check_name},
                                               {.name = "slots",
                                                .type = CONFIG_INT,
                                                .offset = offsetof(struct model, slots),
                                                .fallback = "8",
                                                .min = 1,
                                                .max = 64},
                                               {0}};
static const struct config_key keys[] = {
    {.name = "url",
     .type = CONFIG_STRING,
     .offset = offsetof(struct values, url),
     .check = config_check_url},
    {.name = "title", .type = CONFIG_STRING, .offset = offsetof(struct values, title), .max = 20},
    {.name = "count",
     .type = CONFIG_INT,
     .offset = offsetof(struct values, count),
     .min = -5,
     .max = 5000000000},
    {.name = "flag", .type = CONFIG_BOOL, .offset = offsetof(struct values, flag)},
    {.name = "share",
     .type = CONFIG_FLOAT,
     .offset = offsetof(struct values, share),
     .float_min = 0,
     .float_max = 1},
    {.name = "wait",
     .type = CONFIG_DURATION,
     .offset = offsetof(struct values, wait_ms),
     .fallback = "30s",
     .min = 1,
     .max = 3600000},
    {.name = "memory", .type = CONFIG_SIZE, .offset = offsetof(struct values, memory)},
    {.name = "level",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct values, level),
     .names = levels},
    {.name = "labels", .type = CONFIG_STRINGS, .offset = offsetof(struct values, labels), .max = 3},
    {.name = "models",
     .type = CONFIG_GROUPS,
     .offset = offsetof(struct values, models),
     .keys = model_keys,
     .element_bytes = sizeof(struct model),
     .unique = "name",
     .max = 4},
    {.name = "tls", .type = CONFIG_GROUP, .offset = offsetof(struct values, tls), .keys = tls_keys},
    {0}};

/* libconfig 1.5 forgets a string that a syntax error follows: 64 bytes, once, in a program that
 * then ends with the error. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so";
}

static void check_text(const char *text, size_t most)
{
    CHECK(!text || (strlen(text) <= most && utf8_is_plain(text, strlen(text))));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    struct values v;
    struct errbuf eb = {0};
    if (config_load_memory(&c, keys, &v, sizeof v, (const char *)data, size, "f", &eb) != ERR_OK) {
        CHECK(strncmp(eb.text, "f:", 2) == 0);
        CHECK(c == NULL);
        return 0;
    }
    check_text(v.url, CONFIG_STRING_BYTES);
    check_text(v.title, 20);
    CHECK(v.count >= -5 && v.count <= 5000000000);
    CHECK(v.share >= 0 && v.share <= 1);
    CHECK(v.wait_ms >= 1 && v.wait_ms <= 3600000);
    CHECK(v.level >= 0 && v.level < 2);
    CHECK(v.labels.count <= 3 && v.models.count <= 4);
    CHECK(!v.tls.ca_file || v.tls.ca_file[0] == '/');
    for (size_t i = 0; i < v.models.count; i++) {
        const struct model *m = (const struct model *)v.models.items + i;
        check_text(m->name, 128);
        CHECK(m->name && m->slots >= 1 && m->slots <= 64);
    }
    config_free(c);
    return 0;
}
