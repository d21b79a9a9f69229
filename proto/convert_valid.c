/*
 * convert_valid.c - the checks that a table can state (lengths, ranges, enums, UTF-8), and how a
 * refusal names its place.
 */
#include "proto/convert_internal.h"

#include "common/check.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PLACE_TEXT_BYTES 192

static size_t place_format(const struct convert_place *place, char text[PLACE_TEXT_BYTES])
{
    if (place == NULL)
        return 0;
    size_t used = place_format(place->outer, text);
    int n = 0;
    if (place->name[0] != '\0' && used < PLACE_TEXT_BYTES)
        n = snprintf(text + used, PLACE_TEXT_BYTES - used, "%s%s", used > 0 ? "." : "",
                     place->name);
    used += (size_t)n;
    n = 0;
    if (place->index != CONVERT_NO_INDEX && used < PLACE_TEXT_BYTES)
        n = snprintf(text + used, PLACE_TEXT_BYTES - used, "[%zu]", place->index);
    used += (size_t)n;
    return used < PLACE_TEXT_BYTES ? used : PLACE_TEXT_BYTES;
}

enum err convert_refuse(const struct convert_place *place, enum err code, const char *field,
                        const char *fmt, ...)
{
    char where[PLACE_TEXT_BYTES] = "";
    char what[ERRBUF_BYTES];
    struct convert_place last = {
        .outer = place,
        .name = field != NULL ? field : "",
        .index = CONVERT_NO_INDEX,
    };
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    (void)place_format(&last, where);
    return err_set(place->eb, code, "%s%s%s", where, where[0] != '\0' ? ": " : "", what);
}

const struct convert_case *convert_choice_find(const struct convert_choice *choice, int value)
{
    for (size_t i = 0; i < choice->n_cases; i++)
        if (choice->cases[i].value == value)
            return &choice->cases[i];
    return NULL;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static bool field_is_default(const struct convert_field *f, const void *ours)
{
    const void *at = convert_at(ours, f->ours);
    const char *text;

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        return *(const uint32_t *)at == 0;
    case CONVERT_U64:
        return *(const uint64_t *)at == 0;
    case CONVERT_BOOL:
        return !*(const bool *)at;
    case CONVERT_FLOAT:
        return *(const float *)at == 0.0f;
    case CONVERT_CONSTANT:
        return true;
    case CONVERT_STRING:
        text = convert_load_pointer(at);
        return text == NULL || text[0] == '\0';
    case CONVERT_FIXED:
        return all_zero(at, (size_t)f->max);
    case CONVERT_MESSAGE:
        return convert_is_default(f->message, at);
    case CONVERT_BYTES:
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS:
        return *(const size_t *)convert_at(ours, f->ours_count) == 0;
    }
    return true;
}

bool convert_is_default(const struct convert_message *message, const void *ours)
{
    for (size_t i = 0; i < message->n_fields; i++)
        if (!field_is_default(&message->fields[i], ours))
            return false;
    return true;
}

static enum err string_valid(const struct convert_field *f, const char *text, uint64_t max,
                             const struct convert_place *place)
{
    if (text == NULL)
        text = "";
    if ((f->flags & CONVERT_PROSE) && place->sending)
        return ERR_OK;
    size_t size = strnlen(text, (size_t)max + 1);
    if (size > max)
        return convert_refuse(place, ERR_TOO_LARGE, NULL, "longer than %s (%" PRIu64 " bytes)",
                              f->bound, max);
    if (size == 0) {
        if (f->flags & CONVERT_REQUIRED)
            return convert_refuse(place, ERR_INVALID, NULL, "empty");
        return ERR_OK;
    }
    if ((f->flags & CONVERT_NAME) && (text[0] == ' ' || text[size - 1] == ' '))
        return convert_refuse(place, ERR_INVALID, NULL, "a name begins or ends with a space");
    while (size > 0) {
        const char *feed = f->flags & CONVERT_LINES ? memchr(text, '\n', size) : NULL;
        size_t line = feed != NULL ? (size_t)(feed - text) : size;
        if (!utf8_is_plain(text, line))
            return convert_refuse(place, ERR_INVALID, NULL, "not UTF-8 without control characters");
        line += feed != NULL;
        text += line;
        size -= line;
    }
    return ERR_OK;
}

static enum err count_valid(const struct convert_field *f, const void *items, size_t count,
                            const struct convert_place *place)
{
    CHECK(items != NULL || count == 0);
    if (count > f->max)
        return convert_refuse(place, ERR_TOO_LARGE, NULL, "%zu is over %s (%" PRIu64 ")", count,
                              f->bound, f->max);
    if (count == 0 && (f->flags & CONVERT_REQUIRED))
        return convert_refuse(place, ERR_INVALID, NULL, "empty");
    return ERR_OK;
}

static enum err list_valid(const struct convert_field *f, const void *items, size_t count,
                           struct convert_place *place)
{
    enum err err = ERR_OK;

    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        place->index = i;
        switch ((enum convert_kind)f->kind) {
        case CONVERT_MESSAGES:
            err = convert_validate(f->message, convert_at(items, i * f->message->size), place);
            break;
        case CONVERT_STRINGS:
            err = string_valid(f, ((const char *const *)items)[i], f->max_each, place);
            break;
        case CONVERT_BYTES_LIST: {
            const struct wire_bytes *each = (const struct wire_bytes *)items + i;
            CHECK(each->data != NULL || each->size == 0);
            if (each->size > f->max_each)
                err = convert_refuse(place, ERR_TOO_LARGE, NULL,
                                     "%zu bytes are over the bound of %" PRIu64, each->size,
                                     f->max_each);
            else if (each->size == 0 && (f->flags & CONVERT_REQUIRED_EACH))
                err = convert_refuse(place, ERR_INVALID, NULL, "empty");
            break;
        }
        case CONVERT_IDS:
            if (((const int32_t *)items)[i] < 0)
                err = convert_refuse(place, ERR_INVALID, NULL, "negative");
            break;
        default:
            CHECK(false && "a list");
        }
    }
    return err;
}

static enum err number_valid(const struct convert_field *f, uint64_t value,
                             const struct convert_place *place)
{
    if (f->max != 0 && value > f->max) {
        if (f->kind == CONVERT_ENUM)
            return convert_refuse(place, ERR_INVALID, NULL, "%" PRIu64 " is not one of its values",
                                  value);
        return convert_refuse(place, ERR_TOO_LARGE, NULL, "%" PRIu64 " is over %s (%" PRIu64 ")",
                              value, f->bound, f->max);
    }
    if (value == 0 && (f->flags & CONVERT_REQUIRED))
        return convert_refuse(place, ERR_INVALID, NULL, "missing");
    return ERR_OK;
}

static enum err field_valid(const struct convert_field *f, const void *ours,
                            const struct convert_place *outer)
{
    const void *at = convert_at(ours, f->ours);
    struct convert_place place = {
        .outer = outer,
        .name = f->name,
        .index = CONVERT_NO_INDEX,
        .sending = outer->sending,
        .eb = outer->eb,
    };
    enum err err;

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        return number_valid(f, *(const uint32_t *)at, &place);
    case CONVERT_U64:
        return number_valid(f, *(const uint64_t *)at, &place);
    case CONVERT_BOOL:
    case CONVERT_CONSTANT:
        return ERR_OK;
    case CONVERT_FLOAT:
        if (!isfinite(*(const float *)at))
            return convert_refuse(&place, ERR_INVALID, NULL, "not a finite number");
        return ERR_OK;
    case CONVERT_STRING:
        return string_valid(f, convert_load_pointer(at), f->max, &place);
    case CONVERT_FIXED:
        if ((f->flags & CONVERT_REQUIRED) && all_zero(at, (size_t)f->max))
            return convert_refuse(&place, ERR_INVALID, NULL, "missing");
        return ERR_OK;
    case CONVERT_MESSAGE:
        if (!convert_is_default(f->message, at))
            return convert_validate(f->message, at, &place);
        if (f->flags & CONVERT_REQUIRED)
            return convert_refuse(&place, ERR_INVALID, NULL, "missing");
        return ERR_OK;
    case CONVERT_BYTES:
        return count_valid(f, convert_load_pointer(at),
                           *(const size_t *)convert_at(ours, f->ours_count), &place);
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS: {
        const void *items = convert_load_pointer(at);
        size_t count = *(const size_t *)convert_at(ours, f->ours_count);
        err = count_valid(f, items, count, &place);
        return err != ERR_OK ? err : list_valid(f, items, count, &place);
    }
    }
    CHECK(false && "a kind of field");
    return ERR_INTERNAL;
}

enum err convert_validate(const struct convert_message *message, const void *ours,
                          const struct convert_place *place)
{
    for (size_t i = 0; i < message->n_fields; i++) {
        enum err err = field_valid(&message->fields[i], ours, place);
        if (err != ERR_OK)
            return err;
    }
    const struct convert_choice *choice = message->choice;
    if (choice != NULL) {
        int value = *(const int *)convert_at(ours, choice->ours_case);
        const struct convert_case *one = convert_choice_find(choice, value);
        if (one == NULL)
            return convert_refuse(place, ERR_INVALID, choice->name,
                                  "missing, or of a kind that this version does not know");
        struct convert_place inner = {
            .outer = place,
            .name = one->name,
            .index = CONVERT_NO_INDEX,
            .sending = place->sending,
            .eb = place->eb,
        };
        enum err err = convert_validate(one->message, convert_at(ours, choice->ours_union), &inner);
        if (err != ERR_OK)
            return err;
    }
    return message->check != NULL ? message->check(ours, place) : ERR_OK;
}
