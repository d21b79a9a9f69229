/* The example file, printed from the same table the reader goes by. */
#include "common/config.h"

#include "common/units.h"

#include <inttypes.h>
#include <string.h>

#define DESCRIBE_COLUMNS 88u

struct describe {
    struct buf *out;
    unsigned depth;
    bool commented; /* inside a list that is only shown */
};

static void describe_indent(const struct describe *d)
{
    for (unsigned i = 0; i < d->depth * 4; i++)
        buf_append_byte(d->out, ' ');
}

/* A comment of whole words, each line within the columns. */
static void describe_wrap(const struct describe *d, const char *text)
{
    size_t room = DESCRIBE_COLUMNS - d->depth * 4 - 2;
    while (*text) {
        size_t n = strlen(text);
        if (n > room) {
            n = room;
            while (n > 0 && text[n] != ' ')
                n--;
            if (n == 0)
                n = strcspn(text, " ");
        }
        describe_indent(d);
        buf_append_str(d->out, "# ");
        buf_append(d->out, text, n);
        buf_append_byte(d->out, '\n');
        text += n;
        text += strspn(text, " ");
    }
}

static void describe_range(const struct config_key *key, struct buf *out)
{
    char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
    bool bounded = key->min != 0 || key->max != 0;
    switch (key->type) {
    case CONFIG_STRING:
        buf_append_str(out, "string");
        if (bounded && key->max > 0)
            buf_printf(out, " of %" PRId64 " to %" PRId64 " bytes", key->min, key->max);
        break;
    case CONFIG_INT:
        buf_append_str(out, "whole number");
        if (bounded)
            buf_printf(out, ", %" PRId64 " to %" PRId64, key->min, key->max);
        break;
    case CONFIG_BOOL:
        buf_append_str(out, "true or false");
        break;
    case CONFIG_FLOAT:
        buf_append_str(out, "number");
        if (key->float_min != 0 || key->float_max != 0)
            buf_printf(out, ", %g to %g", key->float_min, key->float_max);
        break;
    case CONFIG_DURATION:
        buf_append_str(out, "duration");
        units_duration_write((uint64_t)key->min, low);
        units_duration_write((uint64_t)key->max, high);
        if (bounded)
            buf_printf(out, ", \"%s\" to \"%s\"", low, high);
        break;
    case CONFIG_SIZE:
        buf_append_str(out, "size");
        units_size_write((uint64_t)key->min, low);
        units_size_write((uint64_t)key->max, high);
        if (bounded)
            buf_printf(out, ", \"%s\" to \"%s\"", low, high);
        break;
    case CONFIG_ENUM:
        buf_append_str(out, "one of");
        for (int i = 0; key->names[i]; i++)
            buf_printf(out, "%s \"%s\"", i ? "," : "", key->names[i]);
        break;
    case CONFIG_STRINGS:
        buf_append_str(out, "list of strings");
        break;
    case CONFIG_GROUP:
        buf_append_str(out, "group");
        break;
    case CONFIG_GROUPS:
        buf_append_str(out, "list of groups");
        if (bounded)
            buf_printf(out, ", %" PRId64 " to %" PRId64 " of them", key->min, key->max);
        break;
    case CONFIG_NONE:
        break;
    }
    buf_append_str(out, key->required ? ". Required." : ".");
}

static void describe_string(struct buf *out, const char *text)
{
    buf_append_byte(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            buf_append_byte(out, '\\');
        buf_append_byte(out, (uint8_t)*text);
    }
    buf_append_byte(out, '"');
}

static void describe_value(const struct config_key *key, struct buf *out)
{
    const char *value = key->fallback ? key->fallback : key->example ? key->example : "";
    bool bare = key->type == CONFIG_INT || key->type == CONFIG_BOOL || key->type == CONFIG_FLOAT;
    if (key->type == CONFIG_STRINGS) {
        buf_append_str(out, value[0] ? "( " : "( )");
        if (value[0]) {
            describe_string(out, value);
            buf_append_str(out, " )");
        }
    } else if (bare) {
        buf_append_str(out, value[0] ? value : key->type == CONFIG_BOOL ? "false" : "0");
    } else {
        describe_string(out, value);
    }
}

static void describe_keys(const struct describe *d, const struct config_key *keys);

static bool describe_has_required(const struct config_key *keys)
{
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++)
        if (key->required)
            return true;
    return false;
}

static void describe_open(const struct describe *d, bool commented, const char *text)
{
    describe_indent(d);
    if (commented)
        buf_append_byte(d->out, '#');
    buf_append_str(d->out, text);
}

static void describe_key(const struct describe *d, const struct config_key *key)
{
    struct buf type;
    buf_init(&type);
    describe_range(key, &type);
    if (key->help)
        describe_wrap(d, key->help);
    describe_wrap(d, buf_str(&type));
    buf_fini(&type);

    struct describe inner = {.out = d->out, .depth = d->depth + 1, .commented = d->commented};
    if (key->type == CONFIG_GROUP) {
        inner.commented = d->commented || (!key->required && describe_has_required(key->keys));
        describe_open(d, inner.commented, key->name);
        buf_append_str(d->out, " = {\n");
        describe_keys(&inner, key->keys);
        describe_open(d, inner.commented, "};\n");
    } else if (key->type == CONFIG_GROUPS) {
        /* An optional list is shown as a comment, or the example would ask for its elements. */
        inner.commented = d->commented || !key->required;
        inner.depth = d->depth + 2;
        describe_open(d, inner.commented, key->name);
        buf_append_str(d->out, " = (\n");
        struct describe element = {.out = d->out, .depth = d->depth + 1};
        describe_open(&element, inner.commented, "{\n");
        describe_keys(&inner, key->keys);
        describe_open(&element, inner.commented, "}\n");
        describe_open(d, inner.commented, ");\n");
    } else {
        describe_open(d, d->commented || !(key->fallback || key->required), key->name);
        buf_append_str(d->out, " = ");
        describe_value(key, d->out);
        buf_append_str(d->out, ";\n");
    }
}

static void describe_keys(const struct describe *d, const struct config_key *keys)
{
    for (const struct config_key *key = keys; key->type != CONFIG_NONE; key++) {
        if (key != keys)
            buf_append_byte(d->out, '\n');
        describe_key(d, key);
    }
}

void config_describe(const struct config_key *keys, const char *title, struct buf *out)
{
    struct describe d = {.out = out};
    describe_wrap(&d, title);
    buf_append_byte(out, '\n');
    describe_keys(&d, keys);
}
