#include "client/cli/text.h"

#include "common/utf8.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct text_range {
    uint32_t first, last;
};

static bool text_in_ranges(uint32_t code, const struct text_range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

/* The blocks that matter for aligning a table, after Unicode 15's EastAsianWidth.txt and the Mn and
 * Me categories; libc's wcwidth would need the right locale to be set. */
static size_t text_code_columns(uint32_t code)
{
    static const struct text_range none[] = {
        {0x0300, 0x036F}, {0x0483, 0x0489},   {0x0591, 0x05BD},  {0x0610, 0x061A},
        {0x064B, 0x065F}, {0x0E31, 0x0E31},   {0x0E34, 0x0E3A},  {0x1AB0, 0x1AFF},
        {0x1DC0, 0x1DFF}, {0x200B, 0x200D},   {0x20D0, 0x20FF},  {0xFE00, 0xFE0F},
        {0xFE20, 0xFE2F}, {0x1F3FB, 0x1F3FF}, {0xE0100, 0xE01EF}};
    static const struct text_range two[] = {
        {0x1100, 0x115F},   {0x231A, 0x231B},  {0x23E9, 0x23EC},   {0x2614, 0x2615},
        {0x26A1, 0x26A1},   {0x2705, 0x2705},  {0x2728, 0x2728},   {0x2E80, 0x303E},
        {0x3041, 0x33FF},   {0x3400, 0x4DBF},  {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},
        {0xA960, 0xA97F},   {0xAC00, 0xD7A3},  {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},
        {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF},
        {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
    if (text_in_ranges(code, none, sizeof none / sizeof *none))
        return 0;
    return text_in_ranges(code, two, sizeof two / sizeof *two) ? 2 : 1;
}

size_t text_columns(const char *text)
{
    size_t size = strlen(text), columns = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        size_t n = utf8_decode(text + i, size - i, &code);
        columns += n ? text_code_columns(code) : 1;
        i += n ? n : 1;
    }
    return columns;
}

unsigned text_terminal_columns(unsigned fallback)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
        return fallback;
    return size.ws_col;
}

void text_sink_init(struct text_sink *sink, FILE *file, bool safe)
{
    *sink = (struct text_sink){.file = file, .safe = safe, .at_line_start = true};
}

static bool text_sink_put(struct text_sink *sink, const void *bytes, size_t size)
{
    if (size == 0)
        return true;
    sink->at_line_start = ((const char *)bytes)[size - 1] == '\n';
    return fwrite(bytes, 1, size, sink->file) == size && fflush(sink->file) == 0;
}

bool text_sink_write(struct text_sink *sink, const void *bytes, size_t size)
{
    if (!sink->safe)
        return text_sink_put(sink, bytes, size);
    struct buf whole, safe;
    buf_init(&whole);
    buf_init(&safe);
    buf_append(&whole, sink->held, sink->n_held);
    buf_append(&whole, bytes, size);
    size_t tail = 0;
    if (!utf8_tail_unfinished(buf_str(&whole), whole.size, &tail))
        tail = 0;
    utf8_append_safe(&safe, buf_str(&whole), whole.size - tail, true);
    memcpy(sink->held, buf_str(&whole) + whole.size - tail, tail);
    sink->n_held = tail;
    bool ok = !whole.failed && !safe.failed && text_sink_put(sink, buf_str(&safe), safe.size);
    buf_fini(&whole);
    buf_fini(&safe);
    return ok;
}

bool text_sink_end(struct text_sink *sink)
{
    if (!sink->safe)
        return fflush(sink->file) == 0;
    struct buf safe;
    buf_init(&safe);
    utf8_append_safe(&safe, sink->held, sink->n_held, true);
    sink->n_held = 0;
    bool ok = text_sink_put(sink, buf_str(&safe), safe.size);
    buf_fini(&safe);
    if (!sink->at_line_start)
        ok = text_sink_put(sink, "\n", 1) && ok;
    return ok;
}
