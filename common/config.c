#include "common/config.h"

#include "common/arena.h"
#include "common/check.h"
#include "common/config_scan.h"
#include "common/nearest.h"
#include "common/units.h"
#include "common/utf8.h"

#include <libconfig.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_PATH_BYTES 512
/* Values never take more than the text they come from, up to their containers. */
#define CONFIG_ARENA_BYTES (64u << 20)

struct config {
    config_t tree;
    struct arena arena;
    char *name;
};

/* What one group is being read with. `path` is "" at the top, else ends with '.'. */
struct config_reader {
    struct config *config;
    const struct config_key *top;
    struct errbuf *eb;
};

struct config_place {
    const struct config_reader *reader;
    const config_setting_t *setting;
    char path[CONFIG_PATH_BYTES]; /* of the setting, for people: "models[1].path" */
};

static enum err config_fail_at(const struct config_place *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int config_line(const config_setting_t *setting)
{
    while (setting && config_setting_source_line(setting) == 0)
        setting = config_setting_parent(setting);
    return setting ? (int)config_setting_source_line(setting) : 1;
}

static enum err config_fail_at(const struct config_place *p, const char *fmt, ...)
{
    struct errbuf reason = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason.text, sizeof reason.text, fmt, args);
    va_end(args);
    return err_set(p->reader->eb, ERR_INVALID, "%s:%d: %s%s%s", p->reader->config->name,
                   config_line(p->setting), p->path, p->path[0] ? ": " : "", reason.text);
}

/* ---- names ---- */

static const struct config_key *config_nearest(const struct config_key *keys, const char *name,
                                               size_t *ret_distance)
{
    const struct config_key *best = NULL;
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++) {
        size_t distance = nearest_distance(name, key->name);
        if (!best || distance < *ret_distance) {
            best = key;
            *ret_distance = distance;
        }
    }
    return best;
}

static const struct config_key *config_find(const struct config_key *keys, const char *name)
{
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

/* Where in the whole table a key of this name is; the path of the first one found. */
static bool config_find_elsewhere(const struct config_key *keys, const char *name, char *ret_path,
                                  size_t path_bytes)
{
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++) {
        if (strcmp(key->name, name) == 0) {
            snprintf(ret_path, path_bytes, "%s", name);
            return true;
        }
        char inner[CONFIG_PATH_BYTES];
        if (key->keys && config_find_elsewhere(key->keys, name, inner, sizeof inner)) {
            snprintf(ret_path, path_bytes, "%s%s.%.200s", key->name,
                     key->type == CONFIG_GROUPS ? "[]" : "", inner);
            return true;
        }
    }
    return false;
}

static enum err config_fail_unknown(const struct config_place *p, const struct config_key *keys,
                                    const char *name)
{
    size_t distance = 0;
    const struct config_key *near = config_nearest(keys, name, &distance);
    char elsewhere[CONFIG_PATH_BYTES];
    size_t far = strlen(name) / 2 > 2 ? strlen(name) / 2 : 2;
    if (near && distance > far &&
        config_find_elsewhere(p->reader->top, name, elsewhere, sizeof elsewhere))
        return config_fail_at(p, "unknown key here; did you mean %s?", elsewhere);
    return config_fail_at(p, "unknown key; the nearest valid one is \"%s\"",
                          near ? near->name : "(none)");
}

/* ---- values ---- */

static const char *config_type_text(const config_setting_t *s)
{
    switch (config_setting_type(s)) {
    case CONFIG_TYPE_GROUP:
        return "a group { ... }";
    case CONFIG_TYPE_ARRAY:
        return "an array [ ... ]";
    case CONFIG_TYPE_LIST:
        return "a list ( ... )";
    case CONFIG_TYPE_STRING:
        return "a string";
    case CONFIG_TYPE_BOOL:
        return "true or false";
    case CONFIG_TYPE_FLOAT:
        return "a number with a fraction";
    default:
        return "a whole number";
    }
}

static bool config_is_integer(const config_setting_t *s)
{
    int type = config_setting_type(s);
    return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static const char *config_wanted_text(enum config_type type)
{
    switch (type) {
    case CONFIG_STRING:
        return "a string, \"...\"";
    case CONFIG_INT:
        return "a whole number";
    case CONFIG_BOOL:
        return "true or false";
    case CONFIG_FLOAT:
        return "a number";
    case CONFIG_DURATION:
        return "a duration with its unit as a string, such as \"30s\", \"500ms\", \"5m\" or \"2h\"";
    case CONFIG_SIZE:
        return "a size with its unit as a string, such as \"512MiB\" or \"8GiB\"";
    case CONFIG_ENUM:
        return "one of its names as a string";
    case CONFIG_STRINGS:
        return "a list of strings, ( \"...\", \"...\" )";
    case CONFIG_GROUP:
        return "a group, { ... }";
    case CONFIG_GROUPS:
        return "a list of groups, ( { ... }, { ... } )";
    case CONFIG_NONE:
        break;
    }
    return "nothing";
}

static enum err config_fail_type(const struct config_place *p, const struct config_key *key)
{
    return config_fail_at(p, "this must be %s, not %s", config_wanted_text(key->type),
                          config_type_text(p->setting));
}

static bool config_in_range(const struct config_key *key, int64_t value)
{
    return (key->min == 0 && key->max == 0) || (value >= key->min && value <= key->max);
}

static enum err config_store_string(const struct config_place *p, const struct config_key *key,
                                    const char *text, const char **ret_text)
{
    size_t size = strlen(text);
    size_t most = key->max > 0 ? (size_t)key->max : CONFIG_STRING_BYTES;
    if (!utf8_is_plain(text, size))
        return config_fail_at(p, "must be UTF-8 text without control characters");
    if (size > most || size < (size_t)key->min)
        return config_fail_at(p, "is %zu bytes long; it may be %" PRId64 " to %zu", size, key->min,
                              most);
    char *copy = arena_copy(&p->reader->config->arena, text, size);
    if (!copy)
        return err_set(p->reader->eb, ERR_NO_MEMORY, "%s: no memory to keep it",
                       p->reader->config->name);
    *ret_text = copy;
    return ERR_OK;
}

static enum err config_store_int(const struct config_place *p, const struct config_key *key,
                                 int64_t value, int64_t *ret_value)
{
    if (!config_in_range(key, value))
        return config_fail_at(p, "%" PRId64 " is out of range; it may be %" PRId64 " to %" PRId64,
                              value, key->min, key->max);
    *ret_value = value;
    return ERR_OK;
}

static enum err config_store_float(const struct config_place *p, const struct config_key *key,
                                   double value, double *ret_value)
{
    bool bounded = key->float_min != 0 || key->float_max != 0;
    if (bounded && !(value >= key->float_min && value <= key->float_max))
        return config_fail_at(p, "%g is out of range; it may be %g to %g", value, key->float_min,
                              key->float_max);
    *ret_value = value;
    return ERR_OK;
}

/* Durations and sizes: text with a unit, stored as a plain count. */
static enum err config_store_measure(const struct config_place *p, const struct config_key *key,
                                     const char *text, uint64_t *ret_value)
{
    bool is_size = key->type == CONFIG_SIZE;
    uint64_t value;
    if (!(is_size ? units_size_parse(text, &value) : units_duration_parse(text, &value)))
        return config_fail_at(p, "\"%.64s\" is not %s", text, config_wanted_text(key->type));
    if (value <= INT64_MAX && config_in_range(key, (int64_t)value)) {
        *ret_value = value;
        return ERR_OK;
    }
    if (key->min == 0 && key->max == 0)
        return config_fail_at(p, "\"%.64s\" is too large", text);
    char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
    if (is_size) {
        units_size_write((uint64_t)key->min, low);
        units_size_write((uint64_t)key->max, high);
    } else {
        units_duration_write((uint64_t)key->min, low);
        units_duration_write((uint64_t)key->max, high);
    }
    return config_fail_at(p, "\"%.64s\" is out of range; it may be \"%s\" to \"%s\"", text, low,
                          high);
}

static enum err config_store_enum(const struct config_place *p, const struct config_key *key,
                                  const char *text, int *ret_value)
{
    struct buf names;
    buf_init(&names);
    for (int i = 0; key->names[i]; i++) {
        if (strcmp(key->names[i], text) == 0) {
            *ret_value = i;
            buf_fini(&names);
            return ERR_OK;
        }
        buf_printf(&names, "%s\"%s\"", i ? ", " : "", key->names[i]);
    }
    enum err err = config_fail_at(p, "\"%.64s\" is not one of %s", text, buf_str(&names));
    buf_fini(&names);
    return err;
}

static enum err config_read_group(const struct config_place *place, const struct config_key *keys,
                                  char *values);

static void config_place_element(const struct config_place *list, int index,
                                 struct config_place *ret_place)
{
    ret_place->reader = list->reader;
    ret_place->setting = config_setting_get_elem(list->setting, (unsigned)index);
    snprintf(ret_place->path, sizeof ret_place->path, "%.400s[%d]", list->path, index);
}

/* Allocates the list's items; ret_items stays NULL where it is empty. */
static enum err config_store_list(const struct config_place *p, const struct config_key *key,
                                  size_t element_bytes, char **ret_items, int *ret_count)
{
    int count = config_setting_length(p->setting);
    if (!config_in_range(key, count))
        return config_fail_at(p, "has %d elements; it may have %" PRId64 " to %" PRId64, count,
                              key->min, key->max);
    char *items = NULL;
    if (count > 0) {
        items = arena_alloc_array(&p->reader->config->arena, (size_t)count, element_bytes);
        if (!items)
            return err_set(p->reader->eb, ERR_NO_MEMORY, "%s: no memory to keep it",
                           p->reader->config->name);
    }
    *ret_items = items;
    *ret_count = count;
    return ERR_OK;
}

static enum err config_store_strings(const struct config_place *p, const struct config_key *key,
                                     struct config_list *ret_list)
{
    char *items;
    int count;
    enum err err = config_store_list(p, key, sizeof(const char *), &items, &count);
    if (err != ERR_OK)
        return err;
    struct config_key each = {.type = CONFIG_STRING};
    for (int i = 0; i < count; i++) {
        struct config_place element;
        config_place_element(p, i, &element);
        if (config_setting_type(element.setting) != CONFIG_TYPE_STRING)
            return config_fail_type(&element, &each);
        err = config_store_string(&element, &each, config_setting_get_string(element.setting),
                                  (const char **)(void *)items + i);
        if (err != ERR_OK)
            return err;
    }
    *ret_list = (struct config_list){.items = items, .count = (size_t)count};
    return ERR_OK;
}

static enum err config_check_unique(const struct config_place *list, const struct config_key *key,
                                    int count)
{
    /* Quadratic, and the file's size bounds it; lists of many thousands are refused by .max. */
    for (int i = 1; i < count; i++) {
        struct config_place place;
        config_place_element(list, i, &place);
        const char *name = NULL, *other = NULL;
        if (!config_setting_lookup_string(place.setting, key->unique, &name))
            continue;
        for (int j = 0; j < i; j++) {
            const config_setting_t *earlier = config_setting_get_elem(list->setting, (unsigned)j);
            if (config_setting_lookup_string(earlier, key->unique, &other) &&
                strcmp(name, other) == 0)
                return config_fail_at(&place, "%s \"%.128s\" is there twice (first in line %d)",
                                      key->unique, name, config_line(earlier));
        }
    }
    return ERR_OK;
}

static enum err config_store_groups(const struct config_place *p, const struct config_key *key,
                                    struct config_list *ret_list)
{
    CHECK(key->keys && key->element_bytes > 0);
    char *items;
    int count;
    enum err err = config_store_list(p, key, key->element_bytes, &items, &count);
    for (int i = 0; err == ERR_OK && i < count; i++) {
        struct config_place element;
        config_place_element(p, i, &element);
        struct config_key each = {.type = CONFIG_GROUP};
        if (!config_setting_is_group(element.setting))
            return config_fail_type(&element, &each);
        err = config_read_group(&element, key->keys, items + (size_t)i * key->element_bytes);
    }
    if (err == ERR_OK && key->unique)
        err = config_check_unique(p, key, count);
    if (err == ERR_OK)
        *ret_list = (struct config_list){.items = items, .count = (size_t)count};
    return err;
}

static enum err config_store(const struct config_place *p, const struct config_key *key,
                             void *field)
{
    const config_setting_t *s = p->setting;
    bool is_string = config_setting_type(s) == CONFIG_TYPE_STRING;
    switch (key->type) {
    case CONFIG_STRING:
        if (is_string)
            return config_store_string(p, key, config_setting_get_string(s), field);
        break;
    case CONFIG_INT:
        if (config_is_integer(s))
            return config_store_int(p, key, config_setting_get_int64(s), field);
        break;
    case CONFIG_BOOL:
        if (config_setting_type(s) == CONFIG_TYPE_BOOL) {
            *(bool *)field = config_setting_get_bool(s) != 0;
            return ERR_OK;
        }
        break;
    case CONFIG_FLOAT:
        if (config_is_integer(s))
            return config_store_float(p, key, (double)config_setting_get_int64(s), field);
        if (config_setting_type(s) == CONFIG_TYPE_FLOAT)
            return config_store_float(p, key, config_setting_get_float(s), field);
        break;
    case CONFIG_DURATION:
    case CONFIG_SIZE:
        if (is_string)
            return config_store_measure(p, key, config_setting_get_string(s), field);
        break;
    case CONFIG_ENUM:
        if (is_string)
            return config_store_enum(p, key, config_setting_get_string(s), field);
        break;
    case CONFIG_STRINGS:
        if (config_setting_is_list(s) || config_setting_is_array(s))
            return config_store_strings(p, key, field);
        break;
    case CONFIG_GROUP:
        CHECK(key->keys);
        if (config_setting_is_group(s))
            return config_read_group(p, key->keys, field);
        break;
    case CONFIG_GROUPS:
        /* "[]" is libconfig's empty array, and people write it for an empty list. */
        if (config_setting_is_list(s) ||
            (config_setting_is_array(s) && config_setting_length(s) == 0))
            return config_store_groups(p, key, field);
        break;
    case CONFIG_NONE:
        break;
    }
    return config_fail_type(p, key);
}

/* The default, by the same rules as a value from the file: a wrong one is a bug of the table. */
static enum err config_store_fallback(const struct config_place *p, const struct config_key *key,
                                      void *field)
{
    bool ok = true;
    double real;
    int64_t integer;
    switch (key->type) {
    case CONFIG_STRING:
        return config_store_string(p, key, key->fallback, field);
    case CONFIG_DURATION:
    case CONFIG_SIZE:
        return config_store_measure(p, key, key->fallback, field);
    case CONFIG_ENUM:
        return config_store_enum(p, key, key->fallback, field);
    case CONFIG_BOOL:
        ok = strcmp(key->fallback, "true") == 0 || strcmp(key->fallback, "false") == 0;
        *(bool *)field = strcmp(key->fallback, "true") == 0;
        break;
    case CONFIG_INT:
        ok = units_int_parse(key->fallback, &integer);
        return ok ? config_store_int(p, key, integer, field) : ERR_INVALID;
    case CONFIG_FLOAT:
        ok = units_float_parse(key->fallback, &real);
        return ok ? config_store_float(p, key, real, field) : ERR_INVALID;
    default:
        ok = false;
    }
    return ok ? ERR_OK : ERR_INVALID;
}

/* What a key has when neither it nor, perhaps, its group is in the file. An optional group that is
 * absent asks for nothing: `required` holds inside a group that is there. */
static enum err config_default(const struct config_place *group, const struct config_key *key,
                               void *field)
{
    if (key->type == CONFIG_GROUP) {
        for (const struct config_key *inner = key->keys; inner->type != CONFIG_NONE; inner++) {
            enum err err = config_default(group, inner, (char *)field + inner->offset);
            if (err != ERR_OK)
                return err;
        }
        return ERR_OK;
    }
    if (!key->fallback)
        return ERR_OK;
    enum err err = config_store_fallback(group, key, field);
    CHECK(err == ERR_OK || err == ERR_NO_MEMORY);
    return err;
}

static enum err config_absent(const struct config_place *group, const struct config_key *key,
                              void *field)
{
    if (key->required)
        return config_fail_at(group, "the required key \"%s\" is missing: %s", key->name,
                              key->help ? key->help : "");
    return config_default(group, key, field);
}

static enum err config_read_group(const struct config_place *place, const struct config_key *keys,
                                  char *values)
{
    int count = config_setting_length(place->setting);
    for (int i = 0; i < count; i++) {
        struct config_place here = {.reader = place->reader,
                                    .setting =
                                        config_setting_get_elem(place->setting, (unsigned)i)};
        const char *name = config_setting_name(here.setting);
        snprintf(here.path, sizeof here.path, "%.400s%s%.100s", place->path,
                 place->path[0] ? "." : "", name);
        if (!config_find(keys, name))
            return config_fail_unknown(&here, keys, name);
    }
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++) {
        struct config_place here = {.reader = place->reader};
        void *field = values + key->offset;
        here.setting = config_setting_get_member(place->setting, key->name);
        enum err err;
        if (!here.setting) {
            err = config_absent(place, key, field);
        } else {
            snprintf(here.path, sizeof here.path, "%.400s%s%s", place->path,
                     place->path[0] ? "." : "", key->name);
            err = config_store(&here, key, field);
            struct errbuf reason = {0};
            if (err == ERR_OK && key->check && key->check(field, &reason) != ERR_OK)
                err = config_fail_at(&here, "%.400s", reason.text);
        }
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

/* ---- reading ---- */

/* The last line that says anything: libconfig finds what is missing there at the end of the file.
 */
static int config_last_line(const char *text, size_t size)
{
    int line = 1;
    while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL)
        size--;
    for (size_t i = 0; i < size; i++)
        line += text[i] == '\n';
    return line;
}

static size_t config_count_names(const config_setting_t *setting)
{
    size_t n = config_setting_name(setting) != NULL;
    if (config_setting_is_aggregate(setting))
        for (int i = 0; i < config_setting_length(setting); i++)
            n += config_count_names(config_setting_get_elem(setting, (unsigned)i));
    return n;
}

/* Why libconfig refused what config_scan had passed. */
static enum err config_unreadable(const struct config *c, const char *text, size_t size,
                                  struct errbuf *eb)
{
    const char *reason = config_error_text(&c->tree);
    int line = config_error_line(&c->tree), last = config_last_line(text, size);
    line = line < last ? line : last;
    if (!reason)
        reason = "this cannot be read";
    if (strcmp(reason, "syntax error") == 0)
        reason = "syntax error here or just before; a setting is NAME = VALUE;";
    if (strcmp(reason, "duplicate setting name") != 0)
        return err_set(eb, ERR_INVALID, "%s:%d: %s", c->name, line, reason);
    /* It stopped at the first name that it did not add. */
    char name[64];
    config_scan_name(text, size, config_count_names(config_root_setting(&c->tree)), name,
                     sizeof name);
    return err_set(eb, ERR_INVALID, "%s:%d: the key \"%s\" is there twice in its group", c->name,
                   line, name);
}

enum err config_load_memory(struct config **ret_config, const struct config_key *keys,
                            void *ret_values, size_t struct_bytes, const char *text, size_t size,
                            const char *name, struct errbuf *eb)
{
    enum err err = ERR_OK;
    char *values = NULL;
    struct buf scanned;
    buf_init(&scanned);
    struct config *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory to read it", name);
    config_init(&c->tree);
    arena_init(&c->arena, CONFIG_ARENA_BYTES);
    c->name = arena_copy(&c->arena, name, strlen(name));
    values = calloc(1, struct_bytes);
    if (!c->name || !values) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory to read it", name);
        goto out;
    }
    err = config_scan(text, size, name, &scanned, eb);
    if (err != ERR_OK)
        goto out;
    if (!config_read_string(&c->tree, buf_str(&scanned))) {
        err = config_unreadable(c, text, size, eb);
        goto out;
    }
    struct config_reader reader = {.config = c, .top = keys, .eb = eb};
    struct config_place top = {.reader = &reader, .setting = config_root_setting(&c->tree)};
    err = config_read_group(&top, keys, values);
    if (err != ERR_OK)
        goto out;
    memcpy(ret_values, values, struct_bytes);
    *ret_config = c;
    c = NULL;
out:
    config_free(c);
    free(values);
    buf_fini(&scanned);
    return err;
}

enum err config_load_file(struct config **ret_config, const struct config_key *keys,
                          void *ret_values, size_t struct_bytes, const char *path,
                          struct errbuf *eb)
{
    enum err err = ERR_OK;
    struct buf text;
    buf_init(&text);
    FILE *f = fopen(path, "rbe");
    if (!f)
        return err_set_errno(eb, errno, "%s", path);
    char chunk[16384];
    size_t n;
    /* One byte past the bound is enough for the scan to refuse it. */
    while (text.size <= CONFIG_FILE_BYTES && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(&text, chunk, n);
    if (ferror(f)) {
        err = err_set_errno(eb, errno, "%s", path);
        goto out;
    }
    if (text.failed) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory to read it", path);
        goto out;
    }
    err = config_load_memory(ret_config, keys, ret_values, struct_bytes, buf_str(&text), text.size,
                             path, eb);
out:
    fclose(f);
    buf_fini(&text);
    return err;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    config_destroy(&c->tree);
    arena_fini(&c->arena);
    free(c);
}

enum err config_fail(const struct config *c, struct errbuf *eb, const char *path, const char *fmt,
                     ...)
{
    struct errbuf reason = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason.text, sizeof reason.text, fmt, args);
    va_end(args);
    const config_setting_t *s = config_lookup(&c->tree, path);
    if (!s)
        return err_set(eb, ERR_INVALID, "%s: %s: %.400s", c->name, path, reason.text);
    return err_set(eb, ERR_INVALID, "%s:%d: %s: %.400s", c->name, config_line(s), path,
                   reason.text);
}
