#include "tests/unit/proto/walk.h"

#include "common/check.h"
#include "proto/convert_internal.h"
#include "proto/wire.h"

#include <stdio.h>
#include <string.h>

/* ---- comparing ---- */

static const char *text_of(const char *text)
{
    return text != NULL ? text : "";
}

static bool bytes_equal(struct wire_bytes a, struct wire_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static struct wire_bytes bytes_at(const struct convert_field *f, const void *ours)
{
    return (struct wire_bytes){
        .data = convert_load_pointer(convert_at(ours, f->ours)),
        .size = *(const size_t *)convert_at(ours, f->ours_count),
    };
}

static bool list_equal(const struct convert_field *f, const void *a, const void *b, size_t count,
                       const char **inner)
{
    for (size_t i = 0; i < count; i++) {
        switch ((enum convert_kind)f->kind) {
        case CONVERT_MESSAGES:
            *inner = walk_difference(f->message, convert_at(a, i * f->message->size),
                                     convert_at(b, i * f->message->size));
            if (*inner != NULL)
                return false;
            break;
        case CONVERT_STRINGS:
            if (strcmp(((const char *const *)a)[i], ((const char *const *)b)[i]) != 0)
                return false;
            break;
        case CONVERT_BYTES_LIST:
            if (!bytes_equal(((const struct wire_bytes *)a)[i], ((const struct wire_bytes *)b)[i]))
                return false;
            break;
        default:
            CHECK(f->kind == CONVERT_IDS);
            if (((const int32_t *)a)[i] != ((const int32_t *)b)[i])
                return false;
        }
    }
    return true;
}

static bool field_equal(const struct convert_field *f, const void *a, const void *b,
                        const char **inner)
{
    const void *at_a = convert_at(a, f->ours);
    const void *at_b = convert_at(b, f->ours);

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        return *(const uint32_t *)at_a == *(const uint32_t *)at_b;
    case CONVERT_U64:
        return *(const uint64_t *)at_a == *(const uint64_t *)at_b;
    case CONVERT_BOOL:
        return *(const bool *)at_a == *(const bool *)at_b;
    case CONVERT_FLOAT:
        return *(const float *)at_a == *(const float *)at_b;
    case CONVERT_CONSTANT:
        return true;
    case CONVERT_STRING:
        return strcmp(text_of(convert_load_pointer(at_a)), text_of(convert_load_pointer(at_b))) ==
               0;
    case CONVERT_BYTES:
        return bytes_equal(bytes_at(f, a), bytes_at(f, b));
    case CONVERT_FIXED:
        return memcmp(at_a, at_b, (size_t)f->max) == 0;
    case CONVERT_MESSAGE:
        *inner = walk_difference(f->message, at_a, at_b);
        return *inner == NULL;
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS: {
        size_t count = *(const size_t *)convert_at(a, f->ours_count);
        return count == *(const size_t *)convert_at(b, f->ours_count) &&
               list_equal(f, convert_load_pointer(at_a), convert_load_pointer(at_b), count, inner);
    }
    }
    return false;
}

const char *walk_difference(const struct convert_message *message, const void *a, const void *b)
{
    for (size_t i = 0; i < message->n_fields; i++) {
        const char *inner = NULL;
        if (!field_equal(&message->fields[i], a, b, &inner))
            return inner != NULL ? inner : message->fields[i].name;
    }
    const struct convert_choice *choice = message->choice;
    if (choice == NULL)
        return NULL;
    int value = *(const int *)convert_at(a, choice->ours_case);
    if (value != *(const int *)convert_at(b, choice->ours_case))
        return choice->name;
    return walk_difference(convert_choice_find(choice, value)->message,
                           convert_at(a, choice->ours_union), convert_at(b, choice->ours_union));
}

/* ---- completeness ---- */

const char *walk_missing(const struct convert_message *message)
{
    static char what[128];
    const ProtobufCMessageDescriptor *d = message->descriptor;
    const size_t n_cases = message->choice != NULL ? message->choice->n_cases : 0;

    if (d->n_fields != message->n_fields + n_cases) {
        (void)snprintf(what, sizeof what, "%s: %u fields, %zu in the table", d->name, d->n_fields,
                       message->n_fields + n_cases);
        return what;
    }
    for (size_t i = 0; i < d->n_fields; i++) {
        const struct convert_message *below = NULL;
        const char *name;
        if (i < message->n_fields) {
            name = message->fields[i].name;
            below = message->fields[i].message;
        } else {
            const struct convert_case *one = &message->choice->cases[i - message->n_fields];
            name = one->name;
            below = one->message;
            if ((uint32_t)one->value != d->fields[i].id)
                name = "another number";
        }
        if (strcmp(name, d->fields[i].name) != 0) {
            (void)snprintf(what, sizeof what, "%s.%s: the table says %s", d->name,
                           d->fields[i].name, name);
            return what;
        }
        const char *missing = below != NULL ? walk_missing(below) : NULL;
        if (missing != NULL)
            return missing;
    }
    return NULL;
}

/* ---- random values ---- */

uint64_t walk_next(struct walk_random *r)
{
    /* splitmix64 */
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Small numbers often, bounds sometimes. */
static uint64_t number_below(struct walk_random *r, uint64_t max)
{
    switch (walk_next(r) % 4) {
    case 0:
        return max;
    case 1:
        return walk_next(r) % (max < 4 ? max + 1 : 4);
    default:
        return max == UINT64_MAX ? walk_next(r) : walk_next(r) % (max + 1);
    }
}

static char *random_text(struct walk_random *r, uint64_t max, bool required)
{
    static const char *const letters[] = {
        "a", "Z", "0", "-", "\303\251", "\342\202\254", "\360\237\230\200"};
    size_t cap = (size_t)number_below(r, max < 200 ? max : 200);
    char *text = arena_alloc(r->arena, cap + 5);
    size_t size = 0;
    CHECK(text != NULL);
    for (;;) {
        const char *letter = letters[walk_next(r) % (sizeof letters / sizeof letters[0])];
        if (size + strlen(letter) > cap)
            break;
        memcpy(text + size, letter, strlen(letter) + 1);
        size += strlen(letter);
    }
    if (size == 0 && required)
        memcpy(text, "x", 2);
    return text;
}

static struct wire_bytes random_bytes(struct walk_random *r, uint64_t max, bool required)
{
    size_t size = (size_t)number_below(r, max < 300 ? max : 300);
    if (size == 0 && required)
        size = 1;
    uint8_t *bytes = arena_alloc(r->arena, size);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)walk_next(r);
    return (struct wire_bytes){.data = bytes, .size = size};
}

static void fill_list(struct walk_random *r, const struct convert_field *f, void *ours)
{
    bool each = (f->flags & CONVERT_REQUIRED_EACH) != 0;
    size_t count = (size_t)(walk_next(r) % (f->max < 4 ? f->max + 1 : 4));
    size_t size = f->kind == CONVERT_MESSAGES     ? f->message->size
                  : f->kind == CONVERT_STRINGS    ? sizeof(char *)
                  : f->kind == CONVERT_BYTES_LIST ? sizeof(struct wire_bytes)
                                                  : sizeof(int32_t);
    unsigned char *items = arena_alloc_array(r->arena, count, size);
    CHECK(items != NULL);
    for (size_t i = 0; i < count; i++) {
        void *item = items + i * size;
        if (f->kind == CONVERT_MESSAGES)
            walk_fill(r, f->message, item);
        else if (f->kind == CONVERT_STRINGS)
            convert_store_pointer(item, random_text(r, f->max_each, each));
        else if (f->kind == CONVERT_BYTES_LIST)
            *(struct wire_bytes *)item = random_bytes(r, f->max_each, each);
        else
            *(int32_t *)item = (int32_t)(walk_next(r) >> 33);
    }
    convert_store_pointer(convert_at_mut(ours, f->ours), count > 0 ? items : NULL);
    *(size_t *)convert_at_mut(ours, f->ours_count) = count;
}

static void fill_field(struct walk_random *r, const struct convert_field *f, void *ours)
{
    void *at = convert_at_mut(ours, f->ours);
    bool required = (f->flags & CONVERT_REQUIRED) != 0;
    uint64_t number;
    struct wire_bytes bytes;

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        number = number_below(r, f->max != 0 ? f->max : UINT32_MAX);
        *(uint32_t *)at = number == 0 && required ? 1 : (uint32_t)number;
        break;
    case CONVERT_U64:
        number = number_below(r, f->max != 0 ? f->max : UINT64_MAX);
        *(uint64_t *)at = number == 0 && required ? 1 : number;
        break;
    case CONVERT_BOOL:
        *(bool *)at = walk_next(r) % 2 != 0;
        break;
    case CONVERT_FLOAT: /* within every range that a check knows */
        *(float *)at = (float)(1 + walk_next(r) % 255) / 256.0f;
        break;
    case CONVERT_CONSTANT:
        break;
    case CONVERT_STRING:
        convert_store_pointer(at, random_text(r, f->max, required));
        break;
    case CONVERT_BYTES:
        bytes = random_bytes(r, f->max, required);
        convert_store_pointer(at, bytes.data);
        *(size_t *)convert_at_mut(ours, f->ours_count) = bytes.size;
        break;
    case CONVERT_FIXED:
        for (size_t i = 0; i < f->max; i++)
            ((uint8_t *)at)[i] = (uint8_t)(walk_next(r) | 1);
        if (!required && walk_next(r) % 4 == 0)
            memset(at, 0, (size_t)f->max);
        break;
    case CONVERT_MESSAGE:
        if (required || walk_next(r) % 4 != 0)
            walk_fill(r, f->message, at);
        break;
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS:
        fill_list(r, f, ours);
        break;
    }
}

void walk_fill(struct walk_random *r, const struct convert_message *message, void *ret_ours)
{
    for (size_t i = 0; i < message->n_fields; i++)
        fill_field(r, &message->fields[i], ret_ours);
    const struct convert_choice *choice = message->choice;
    if (choice == NULL)
        return;
    const struct convert_case *one = &choice->cases[walk_next(r) % choice->n_cases];
    *(int *)convert_at_mut(ret_ours, choice->ours_case) = one->value;
    walk_fill(r, one->message, convert_at_mut(ret_ours, choice->ours_union));
}
