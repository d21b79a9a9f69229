#include "common/utf8.h"

/* For a lead byte: how many bytes follow and which values the first of them may have. */
struct utf8_lead {
    size_t follow;
    uint8_t low, high;
};

static bool utf8_lead(uint8_t byte, struct utf8_lead *ret_lead)
{
    *ret_lead = (struct utf8_lead){.follow = 0, .low = 0x80, .high = 0xBF};
    if (byte >= 0xC2 && byte <= 0xDF) {
        ret_lead->follow = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
        ret_lead->follow = 2;
        if (byte == 0xE0)
            ret_lead->low = 0xA0;
        if (byte == 0xED)
            ret_lead->high = 0x9F;
    } else if (byte >= 0xF0 && byte <= 0xF4) {
        ret_lead->follow = 3;
        if (byte == 0xF0)
            ret_lead->low = 0x90;
        if (byte == 0xF4)
            ret_lead->high = 0x8F;
    } else {
        return false;
    }
    return true;
}

/* Bytes of the sequence that are there and right; ret_whole: the length it should have. */
static size_t utf8_match(const uint8_t *p, size_t size, size_t *ret_whole)
{
    struct utf8_lead lead;
    *ret_whole = 1;
    if (size == 0 || !utf8_lead(p[0], &lead))
        return 0;
    *ret_whole = lead.follow + 1;
    size_t have = 1;
    while (have <= lead.follow && have < size) {
        uint8_t low = have == 1 ? lead.low : 0x80;
        uint8_t high = have == 1 ? lead.high : 0xBF;
        if (p[have] < low || p[have] > high)
            break;
        have++;
    }
    return have;
}

size_t utf8_decode(const void *bytes, size_t size, uint32_t *ret_code)
{
    const uint8_t *p = bytes;
    if (size == 0)
        return 0;
    if (p[0] < 0x80) {
        *ret_code = p[0];
        return 1;
    }
    size_t whole;
    if (utf8_match(p, size, &whole) != whole)
        return 0;
    uint32_t code = p[0] & (0xFFu >> (whole + 1));
    for (size_t i = 1; i < whole; i++)
        code = code << 6 | (p[i] & 0x3Fu);
    *ret_code = code;
    return whole;
}

size_t utf8_bad_length(const void *bytes, size_t size)
{
    size_t whole;
    size_t have = utf8_match(bytes, size, &whole);
    return have > 0 ? have : 1;
}

bool utf8_tail_unfinished(const void *bytes, size_t size, size_t *ret_tail)
{
    const uint8_t *p = bytes;
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        const uint8_t *lead = p + size - back;
        if (*lead >= 0x80 && *lead <= 0xBF)
            continue;
        size_t whole;
        size_t have = utf8_match(lead, back, &whole);
        if (have != back || have == whole)
            return false;
        *ret_tail = back;
        return true;
    }
    return false;
}

bool utf8_is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x2028 || code == 0x2029 ||
           code == 0x200E || code == 0x200F || (code >= 0x202A && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069) || code == 0x061C || code == 0xFEFF;
}

bool utf8_is_plain(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        size_t n = utf8_decode(p + i, size - i, &code);
        if (n == 0 || utf8_is_control(code))
            return false;
        i += n;
    }
    return true;
}

enum utf8_controls { UTF8_CONTROLS_KEEP, UTF8_CONTROLS_KEEP_LINES, UTF8_CONTROLS_ESCAPE };

static bool utf8_is_kept(uint32_t code, enum utf8_controls controls)
{
    return controls == UTF8_CONTROLS_KEEP || !utf8_is_control(code) ||
           (controls == UTF8_CONTROLS_KEEP_LINES && (code == '\n' || code == '\t'));
}

static void utf8_append_controls(struct buf *out, const char *p, size_t size,
                                 enum utf8_controls controls)
{
    for (size_t i = 0; i < size;) {
        uint32_t code;
        size_t n = utf8_decode(p + i, size - i, &code);
        if (n == 0) {
            buf_append(out, "\xEF\xBF\xBD", 3);
            i += utf8_bad_length(p + i, size - i);
            continue;
        }
        if (utf8_is_kept(code, controls))
            buf_append(out, p + i, n);
        else
            buf_printf(out, code < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)code);
        i += n;
    }
}

void utf8_append(struct buf *out, const void *bytes, size_t size)
{
    utf8_append_controls(out, bytes, size, UTF8_CONTROLS_KEEP);
}

void utf8_append_safe(struct buf *out, const void *bytes, size_t size, bool keep_lines)
{
    utf8_append_controls(out, bytes, size,
                         keep_lines ? UTF8_CONTROLS_KEEP_LINES : UTF8_CONTROLS_ESCAPE);
}
