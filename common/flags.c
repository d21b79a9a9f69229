#include "common/flags.h"

#include "common/buf.h"
#include "common/nearest.h"
#include "common/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct flag_found {
    const struct flag *flag;
    char *values;
};

#define FLAGS_SEEN_MOST 128u

struct flags_parser {
    const struct flag_target *targets;
    size_t n_targets;
    const struct flag *seen[FLAGS_SEEN_MOST];
    size_t n_seen;
    struct errbuf *eb;
};

static bool flags_find(const struct flags_parser *p, const char *name, size_t size, char letter,
                       struct flag_found *ret_found)
{
    for (size_t t = 0; t < p->n_targets; t++) {
        for (const struct flag_set *set = p->targets[t].sets; set && set->flags; set++) {
            for (const struct flag *f = set->flags; f->type != FLAG_NONE; f++) {
                bool same = letter ? f->letter == letter
                                   : strlen(f->name) == size && memcmp(f->name, name, size) == 0;
                if (!same)
                    continue;
                ret_found->flag = f;
                ret_found->values = (char *)p->targets[t].values + set->offset;
                return true;
            }
        }
    }
    return false;
}

static const char *flags_nearest(const struct flags_parser *p, const char *name)
{
    const char *best = "help";
    size_t best_distance = NEAREST_FAR;
    for (size_t t = 0; t < p->n_targets; t++) {
        for (const struct flag_set *set = p->targets[t].sets; set && set->flags; set++) {
            for (const struct flag *f = set->flags; f->type != FLAG_NONE; f++) {
                size_t distance = nearest_distance(name, f->name);
                if (distance < best_distance) {
                    best = f->name;
                    best_distance = distance;
                }
            }
        }
    }
    return best;
}

bool flag_day_parse(const char *text, uint32_t *ret_day)
{
    static const unsigned days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (strlen(text) != 10 || text[4] != '-' || text[7] != '-')
        return false;
    unsigned part[3] = {0};
    for (size_t i = 0, which = 0; i < 10; i++) {
        if (i == 4 || i == 7) {
            which++;
            continue;
        }
        if (text[i] < '0' || text[i] > '9')
            return false;
        part[which] = part[which] * 10 + (unsigned)(text[i] - '0');
    }
    unsigned year = part[0], month = part[1], day = part[2];
    if (year < 1970 || month < 1 || month > 12)
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day < 1 || day > days[month - 1] + (month == 2 && leap))
        return false;
    *ret_day = year * 10000 + month * 100 + day;
    return true;
}

/* How the numbers of a type are read and written. */
struct flag_number {
    bool (*parse)(const char *text, uint64_t *ret_value);
    void (*write)(uint64_t value, char ret_text[UNITS_TEXT_BYTES]);
    const char *what;
};

static void flag_uint_write(uint64_t value, char ret_text[UNITS_TEXT_BYTES])
{
    snprintf(ret_text, UNITS_TEXT_BYTES, "%" PRIu64, value);
}

static const struct flag_number *flag_number(enum flag_type type)
{
    static const struct flag_number uint = {units_uint_parse, flag_uint_write, "a whole number"};
    static const struct flag_number duration = {units_duration_parse, units_duration_write,
                                                "a duration with its unit, such as 30s, 500ms, "
                                                "5m or 2h"};
    static const struct flag_number size = {units_size_parse, units_size_write,
                                            "a size with its unit, such as 512MiB or 8GiB"};
    return type == FLAG_DURATION ? &duration : type == FLAG_SIZE ? &size : &uint;
}

static enum err flag_store_number(const struct flag *f, const char *text, uint64_t *ret_value,
                                  struct errbuf *eb)
{
    const struct flag_number *number = flag_number(f->type);
    uint64_t value;
    if (!number->parse(text, &value))
        return err_set(eb, ERR_INVALID, "--%s: \"%.64s\" is not %s", f->name, text, number->what);
    if ((f->min != 0 || f->max != 0) && (value < f->min || value > f->max)) {
        char low[UNITS_TEXT_BYTES], high[UNITS_TEXT_BYTES];
        number->write(f->min, low);
        number->write(f->max, high);
        return err_set(eb, ERR_INVALID, "--%s: %.64s is out of range; it may be %s to %s", f->name,
                       text, low, high);
    }
    *ret_value = value;
    return ERR_OK;
}

static enum err flag_store_float(const struct flag *f, const char *text, double *ret_value,
                                 struct errbuf *eb)
{
    double value;
    if (!units_float_parse(text, &value))
        return err_set(eb, ERR_INVALID, "--%s: \"%.64s\" is not a number", f->name, text);
    if ((f->float_min != 0 || f->float_max != 0) && (value < f->float_min || value > f->float_max))
        return err_set(eb, ERR_INVALID, "--%s: %.64s is out of range; it may be %g to %g", f->name,
                       text, f->float_min, f->float_max);
    *ret_value = value;
    return ERR_OK;
}

static enum err flag_store(const struct flag_found *found, const char *text, struct errbuf *eb)
{
    const struct flag *f = found->flag;
    void *field = found->values + f->offset;
    switch (f->type) {
    case FLAG_SWITCH:
        *(bool *)field = true;
        break;
    case FLAG_TEXT:
        *(const char **)field = text;
        break;
    case FLAG_TEXTS: {
        struct flag_texts *texts = field;
        if (texts->count == FLAG_TEXTS_MOST || (f->max > 0 && texts->count == f->max))
            return err_set(eb, ERR_INVALID, "--%s: given more than %" PRIu64 " times", f->name,
                           f->max > 0 ? f->max : FLAG_TEXTS_MOST);
        texts->items[texts->count++] = text;
        break;
    }
    case FLAG_UINT:
    case FLAG_DURATION:
    case FLAG_SIZE:
        return flag_store_number(f, text, field, eb);
    case FLAG_FLOAT:
        return flag_store_float(f, text, field, eb);
    case FLAG_DAY:
        if (!flag_day_parse(text, field))
            return err_set(eb, ERR_INVALID, "--%s: \"%.64s\" is not a day; write 2026-01-31",
                           f->name, text);
        break;
    case FLAG_CHOICE:
        for (size_t i = 0; f->choices[i]; i++) {
            if (strcmp(f->choices[i], text) == 0) {
                *(const char **)field = f->choices[i];
                return ERR_OK;
            }
        }
        err_set(eb, ERR_INVALID, "--%s: \"%.64s\" is not one of", f->name, text);
        for (size_t i = 0; f->choices[i]; i++) {
            size_t used = strlen(eb->text);
            snprintf(eb->text + used, sizeof eb->text - used, "%s %s", i ? "," : "", f->choices[i]);
        }
        return ERR_INVALID;
    case FLAG_NONE:
        break;
    }
    return ERR_OK;
}

/* Stores one flag; `attached` is what stood behind '=' (or NULL), `next` the following word (or
 * NULL). ret_used_next tells whether that was its value. */
static enum err flags_take(struct flags_parser *p, const struct flag_found *found,
                           const char *attached, const char *next, bool *ret_used_next)
{
    const struct flag *f = found->flag;
    *ret_used_next = false;
    if (f->type != FLAG_TEXTS) {
        for (size_t i = 0; i < p->n_seen; i++)
            if (p->seen[i] == f)
                return err_set(p->eb, ERR_INVALID, "--%s is given twice", f->name);
        if (p->n_seen < FLAGS_SEEN_MOST)
            p->seen[p->n_seen++] = f;
    }
    const char *value = attached;
    if (f->type == FLAG_SWITCH) {
        if (attached)
            return err_set(p->eb, ERR_INVALID, "--%s takes no value", f->name);
    } else if (!value) {
        if (!next)
            return err_set(p->eb, ERR_INVALID, "--%s needs a value: %s", f->name, f->argument);
        value = next;
        *ret_used_next = true;
    }
    if (f->given)
        *(bool *)(found->values + f->given) = true;
    return flag_store(found, value, p->eb);
}

static enum err flags_long(struct flags_parser *p, const char *word, const char *next,
                           bool *ret_used_next)
{
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t size = equals ? (size_t)(equals - name) : strlen(name);
    struct flag_found found;
    if (!flags_find(p, name, size, 0, &found)) {
        char copy[NEAREST_FAR];
        snprintf(copy, sizeof copy, "%.*s", (int)(size < sizeof copy ? size : sizeof copy - 1),
                 name);
        return err_set(p->eb, ERR_INVALID, "unknown flag --%s; the nearest one is --%s", copy,
                       flags_nearest(p, copy));
    }
    return flags_take(p, &found, equals ? equals + 1 : NULL, next, ret_used_next);
}

/* "-v", "-o FILE", "-oFILE", "-vh". */
static enum err flags_short(struct flags_parser *p, const char *word, const char *next,
                            bool *ret_used_next)
{
    for (const char *letter = word + 1; *letter; letter++) {
        struct flag_found found;
        if (!flags_find(p, NULL, 0, *letter, &found))
            return err_set(p->eb, ERR_INVALID, "unknown flag -%c", *letter);
        bool is_switch = found.flag->type == FLAG_SWITCH;
        const char *attached = !is_switch && letter[1] ? letter + 1 : NULL;
        enum err err = flags_take(p, &found, attached, next, ret_used_next);
        if (err != ERR_OK || !is_switch)
            return err;
    }
    return ERR_OK;
}

enum err flags_parse(char **words, int n_words, const struct flag_target *targets, size_t n_targets,
                     bool stop_at_operand, int *ret_operands, struct errbuf *eb)
{
    struct flags_parser p = {.targets = targets, .n_targets = n_targets, .eb = eb};
    int operands = 0;
    bool only_operands = false;
    for (int i = 0; i < n_words; i++) {
        char *word = words[i];
        const char *next = i + 1 < n_words ? words[i + 1] : NULL;
        bool used_next = false;
        enum err err = ERR_OK;
        /* "-" alone is an operand: standard input. */
        if (only_operands || word[0] != '-' || !word[1]) {
            words[operands++] = word;
            only_operands = only_operands || stop_at_operand;
            continue;
        }
        if (strcmp(word, "--") == 0)
            only_operands = true;
        else if (word[1] == '-')
            err = flags_long(&p, word, next, &used_next);
        else
            err = flags_short(&p, word, next, &used_next);
        if (err != ERR_OK)
            return err;
        i += used_next;
    }
    *ret_operands = operands;
    return ERR_OK;
}

/* How much of the text fits a line: up to a blank, or the first word where that alone is longer. */
static size_t line_size(const char *text, size_t columns)
{
    size_t size = strlen(text);
    if (size <= columns)
        return size;
    for (size = columns; size > 0 && text[size] != ' ';)
        size--;
    return size > 0 ? size : strcspn(text, " ");
}

void flags_wrap(const char *text, size_t indent, size_t columns, size_t at, struct buf *out)
{
    while (*text) {
        for (; at < indent; at++)
            buf_append_byte(out, ' ');
        size_t size = line_size(text, columns - indent);
        buf_append(out, text, size);
        buf_append_byte(out, '\n');
        text += size;
        text += strspn(text, " ");
        at = 0;
    }
}

void flags_describe(const struct flag_set *sets, unsigned columns, struct buf *out)
{
    enum { INDENT = 30 };
    for (const struct flag_set *set = sets; set && set->flags; set++) {
        for (const struct flag *f = set->flags; f->type != FLAG_NONE; f++) {
            char head[96];
            char letter[8] = "    ";
            if (f->letter)
                snprintf(letter, sizeof letter, "-%c, ", f->letter);
            int n = snprintf(head, sizeof head, "  %s--%s%s%s", letter, f->name,
                             f->argument ? " " : "", f->argument ? f->argument : "");
            buf_append_str(out, head);
            size_t at = (size_t)n;
            if (at + 2 > INDENT) {
                buf_append_byte(out, '\n');
                at = 0;
            }
            flags_wrap(f->help, INDENT, columns > INDENT + 20 ? columns : INDENT + 50, at, out);
        }
    }
}
