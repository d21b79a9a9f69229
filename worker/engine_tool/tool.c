#include "worker/engine_tool/tool.h"

#include "common/units.h"
#include "common/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void complain(const char *fmt, va_list ap)
{
    fputs("cloister-engine: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int tool_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap);
    va_end(ap);
    return TOOL_EXIT_FAILED;
}

int tool_fail_file(const char *path, const struct errbuf *eb)
{
    bool named = strncmp(eb->text, path, strlen(path)) == 0;
    return named ? tool_fail("%s", eb->text) : tool_fail("%s: %s", path, eb->text);
}

int tool_usage(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    complain(fmt, ap);
    va_end(ap);
    fputs("Try 'cloister-engine --help'.\n", stderr);
    return TOOL_EXIT_USAGE;
}

bool tool_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *ret_value)
{
    uint64_t value;

    if (!units_uint_parse(text, &value) || value < min || value > max)
        return false;
    *ret_value = (uint32_t)value;
    return true;
}

enum err tool_read_all(FILE *from, size_t max, struct buf *ret_bytes, struct errbuf *eb)
{
    char chunk[65536];
    size_t n;

    while ((n = fread(chunk, 1, sizeof chunk, from)) > 0) {
        if (ret_bytes->size + n > max)
            return err_set(eb, ERR_TOO_LARGE, "input is longer than %zu bytes", max);
        buf_append(ret_bytes, chunk, n);
        if (ret_bytes->failed)
            return err_set(eb, ERR_NO_MEMORY, "no memory for the input");
    }
    if (ferror(from))
        return err_set_errno(eb, errno, "cannot read the input");
    return ERR_OK;
}

static bool is_separator(char c)
{
    return c != 0 && strchr(" \t\r\n,[]", c) != NULL;
}

enum err tool_parse_ids(const char *text, size_t size, int32_t **ret_ids, size_t *ret_count,
                        struct errbuf *eb)
{
    int32_t *ids = malloc((size / 2 + 1) * sizeof *ids);
    size_t count = 0, at = 0;

    if (ids == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for token ids");
    while (at < size) {
        char number[16];
        size_t length = 0;
        uint32_t value;
        if (is_separator(text[at])) {
            at++;
            continue;
        }
        while (at + length < size && !is_separator(text[at + length]))
            length++;
        if (length < sizeof number)
            memcpy(number, text + at, length);
        number[length < sizeof number ? length : 0] = 0;
        if (!tool_parse_u32(number, 0, INT32_MAX, &value)) {
            free(ids);
            return err_set(eb, ERR_INVALID, "'%.*s' at byte %zu is no token id",
                           length < 20 ? (int)length : 20, text + at, at);
        }
        ids[count++] = (int32_t)value;
        at += length;
    }
    *ret_ids = ids;
    *ret_count = count;
    return ERR_OK;
}

json_t *tool_json_text(const void *bytes, size_t size)
{
    struct buf clean;
    json_t *value;

    buf_init(&clean);
    utf8_append(&clean, bytes, size);
    value = clean.failed ? NULL : json_stringn(buf_str(&clean), clean.size);
    buf_fini(&clean);
    return value;
}

json_t *tool_json_ids(const int32_t *ids, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; list != NULL && i < count; i++)
        if (json_array_append_new(list, json_integer(ids[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

int tool_finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return tool_fail("cannot write the output: %s", strerror(errno));
    return TOOL_EXIT_OK;
}

int tool_json_print(json_t *value, bool pretty)
{
    int failed = value == NULL
                     ? -1
                     : json_dumpf(value, stdout, JSON_ENCODE_ANY | (pretty ? JSON_INDENT(2) : 0));

    json_decref(value);
    fputc('\n', stdout);
    if (failed != 0 && !ferror(stdout))
        return tool_fail("no memory for the output");
    return tool_finish_output();
}
