#include "common/config_scan.h"

#include "common/config.h"
#include "common/units.h"
#include "common/utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct scan {
    const char *text;
    size_t size;
    size_t at;
    int line;
    unsigned depth;
    const char *name;
    size_t n_names, wanted; /* of settings, and which of them is asked for */
    const char *found;
    size_t found_size;
    struct buf *out;
    struct errbuf *eb;
};

#define SCAN_NUMBER_BYTES 64u

static enum err scan_fail(struct scan *s, int line, const char *reason)
{
    return err_set(s->eb, ERR_INVALID, "%s:%d: %s", s->name, line, reason);
}

static char scan_peek(const struct scan *s, size_t ahead)
{
    return s->at + ahead < s->size ? s->text[s->at + ahead] : 0;
}

static void scan_take(struct scan *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s->text[s->at + i] == '\n')
            s->line++;
    buf_append(s->out, s->text + s->at, n);
    s->at += n;
}

static enum err scan_line_comment(struct scan *s)
{
    while (s->at < s->size && scan_peek(s, 0) != '\n')
        scan_take(s, 1);
    return ERR_OK;
}

static enum err scan_block_comment(struct scan *s)
{
    int line = s->line;
    scan_take(s, 2);
    while (s->at < s->size) {
        if (scan_peek(s, 0) == '*' && scan_peek(s, 1) == '/') {
            scan_take(s, 2);
            return ERR_OK;
        }
        scan_take(s, 1);
    }
    return scan_fail(s, line, "this comment is never closed; end it with */");
}

static enum err scan_string(struct scan *s)
{
    int line = s->line;
    scan_take(s, 1);
    for (;;) {
        char c = scan_peek(s, 0);
        if (s->at >= s->size || c == '\n')
            return scan_fail(s, line, "this string is never closed; end it with \"");
        if (c == '"')
            break;
        if (c != '\\') {
            scan_take(s, 1);
            continue;
        }
        char escaped = scan_peek(s, 1);
        if (escaped == 0 || !strchr("nrtf\\\"x", escaped))
            return scan_fail(s, s->line,
                             "unknown escape in a string; \\n \\r \\t \\f \\\\ \\\" and \\xHH are "
                             "the ones there are");
        if (escaped == 'x') {
            if (!strspn((char[2]){scan_peek(s, 2)}, "0123456789abcdefABCDEF") ||
                !strspn((char[2]){scan_peek(s, 3)}, "0123456789abcdefABCDEF"))
                return scan_fail(s, s->line, "\\x in a string needs two hex digits");
            if (scan_peek(s, 2) == '0' && scan_peek(s, 3) == '0')
                return scan_fail(s, s->line, "a string cannot hold \\x00");
            scan_take(s, 4);
        } else {
            scan_take(s, 2);
        }
    }
    scan_take(s, 1);
    return ERR_OK;
}

static enum err scan_number(struct scan *s)
{
    char text[SCAN_NUMBER_BYTES];
    size_t n = 0;
    /* A sign belongs to the number at its start and behind an exponent's letter. */
    while (s->at + n < s->size && n < sizeof text - 1) {
        char c = scan_peek(s, n);
        bool sign = (c == '+' || c == '-') &&
                    (n == 0 || ((text[n - 1] == 'e' || text[n - 1] == 'E') && text[1] != 'x'));
        if (!sign && !strspn((char[2]){c}, "0123456789abcdefxABCDEFXL."))
            break;
        text[n++] = c;
    }
    text[n] = 0;
    if (n == sizeof text - 1)
        return scan_fail(s, s->line, "this number is too long");
    size_t digits = n;
    while (digits > 0 && text[digits - 1] == 'L')
        digits--;
    if (n - digits > 2)
        return scan_fail(s, s->line, "this is not a number");
    text[digits] = 0;

    const char *body = text + (text[0] == '+' || text[0] == '-');
    bool hex = body[0] == '0' && (body[1] == 'x' || body[1] == 'X');
    bool decimal = !hex && strspn(body, "0123456789") == strlen(body);
    int64_t integer;
    double real;
    if (hex) {
        size_t length = strspn(body + 2, "0123456789abcdefABCDEF");
        if (body != text || length == 0 || body[2 + length])
            return scan_fail(s, s->line, "this is not a hexadecimal number");
        if (length > 15)
            return scan_fail(s, s->line, "this number is too large");
    } else if (decimal) {
        if (*body == 0)
            return scan_fail(s, s->line, "a sign without a number");
        if (body[0] == '0' && body[1])
            return scan_fail(s, s->line, "a number does not begin with 0");
        if (!units_int_parse(text[0] == '+' ? body : text, &integer))
            return scan_fail(s, s->line, "this number does not fit 64 bits");
    } else if (digits != n || !units_float_parse(text[0] == '+' ? body : text, &real)) {
        return scan_fail(s, s->line,
                         "this is not a number; a value with a unit is written as a string: "
                         "\"30s\", \"8GiB\"");
    }
    buf_append(s->out, text, digits);
    if (hex || decimal)
        buf_append_byte(s->out, 'L');
    s->at += n;
    return ERR_OK;
}

/* A setting's, where it is neither `true` nor `false`. */
static enum err scan_name(struct scan *s)
{
    const char *name = s->text + s->at;
    while (s->at < s->size) {
        char c = scan_peek(s, 0);
        bool in_name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-' || c == '*';
        if (!in_name)
            break;
        scan_take(s, 1);
    }
    size_t size = (size_t)(s->text + s->at - name);
    bool is_value = (size == 4 && strncasecmp(name, "true", size) == 0) ||
                    (size == 5 && strncasecmp(name, "false", size) == 0);
    if (!is_value && s->n_names++ == s->wanted) {
        s->found = name;
        s->found_size = size;
    }
    return ERR_OK;
}

static enum err scan_token(struct scan *s)
{
    char c = scan_peek(s, 0), next = scan_peek(s, 1);
    if (c == '#' || (c == '/' && next == '/'))
        return scan_line_comment(s);
    if (c == '/' && next == '*')
        return scan_block_comment(s);
    if (c == '"')
        return scan_string(s);
    if ((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')
        return scan_number(s);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*')
        return scan_name(s);
    if (c == '@')
        return scan_fail(s, s->line, "@include is not supported: a configuration is one file");
    if (c == '{' || c == '(' || c == '[') {
        if (++s->depth > CONFIG_DEPTH)
            return scan_fail(s, s->line, "groups and lists are nested too deep");
    } else if (c == '}' || c == ')' || c == ']') {
        if (s->depth == 0)
            return scan_fail(s, s->line, "a bracket is closed that was never opened");
        s->depth--;
    } else if (!c || !strchr(" \t\r\n=:;,", c)) {
        return scan_fail(s, s->line, "this character cannot stand here");
    }
    scan_take(s, 1);
    return ERR_OK;
}

/* One pass for what may stand nowhere, so that the tokens need not look for it. */
static enum err scan_characters(struct scan *s)
{
    int line = 1;
    for (size_t i = 0; i < s->size;) {
        uint32_t code;
        size_t n = utf8_decode(s->text + i, s->size - i, &code);
        if (n == 0)
            return scan_fail(s, line, "the file is not UTF-8 here");
        if (code == '\n')
            line++;
        else if (utf8_is_control(code) && code != '\t' && code != '\r')
            return scan_fail(s, line, "a control character stands here");
        i += n;
    }
    return ERR_OK;
}

enum err config_scan(const char *text, size_t size, const char *name, struct buf *out,
                     struct errbuf *eb)
{
    if (size > CONFIG_FILE_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "%s: larger than the %u bytes a configuration may have",
                       name, CONFIG_FILE_BYTES);
    struct scan s = {.text = text,
                     .size = size,
                     .line = 1,
                     .name = name,
                     .wanted = SIZE_MAX,
                     .out = out,
                     .eb = eb};
    enum err err = scan_characters(&s);
    while (err == ERR_OK && s.at < s.size)
        err = scan_token(&s);
    if (err == ERR_OK && s.depth > 0)
        err = scan_fail(&s, s.line, "the file ends inside a group or list: a bracket is missing");
    /* An empty text is an empty configuration, and libconfig still wants a string. */
    if (err == ERR_OK)
        buf_append_byte(out, '\n');
    if (err == ERR_OK && out->failed)
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory to read it", name);
    return err;
}

void config_scan_name(const char *text, size_t size, size_t index, char *ret_name,
                      size_t name_bytes)
{
    struct buf out;
    buf_init(&out);
    struct scan s = {.text = text, .size = size, .name = "", .wanted = index, .out = &out};
    while (s.found == NULL && s.at < s.size && scan_token(&s) == ERR_OK) {
    }
    (void)snprintf(ret_name, name_bytes, "%.*s", (int)s.found_size, s.found ? s.found : "");
    buf_fini(&out);
}
