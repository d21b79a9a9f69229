#include "proto/convert.h"

#include "common/check.h"
#include "common/limits.h"
#include "common/utf8.h"
#include "proto/convert_internal.h"

#include <inttypes.h>
#include <string.h>

/* ---- packing: our struct to protobuf-c's, whose pointers borrow from ours ---- */

/* Text for people, made fit to be sent: cut at `max` bytes, '?' for each byte that is not plain.
 * NULL when the arena refuses. */
static const char *prose_clean(const char *text, uint64_t max, struct arena *arena)
{
    size_t size = strnlen(text, (size_t)max);
    uint32_t code;

    if (text[size] == '\0' && utf8_is_plain(text, size))
        return text;
    char *clean = arena_copy(arena, text, size);
    if (clean == NULL)
        return NULL;
    for (size_t i = 0; i < size;) {
        size_t step = utf8_decode(clean + i, size - i, &code);
        if (step == 0 || utf8_is_control(code)) {
            step = step == 0 ? 1 : step;
            memset(clean + i, '?', step);
        }
        i += step;
    }
    return clean;
}

static const char *pack_string(const struct convert_field *f, const char *text, uint64_t max,
                               struct arena *arena)
{
    if (text == NULL)
        return protobuf_c_empty_string;
    return f->flags & CONVERT_PROSE ? prose_clean(text, max, arena) : text;
}

/* Every helper that allocates returns NULL when the arena refuses. */
static void *packed_new(const struct convert_message *message, const void *ours,
                        struct arena *arena);

static bool pack_list(const struct convert_field *f, const void *items, size_t count, void *packed,
                      struct arena *arena)
{
    void *at = convert_at_mut(packed, f->packed);
    void *list;

    *(size_t *)convert_at_mut(packed, f->packed_count) = count;
    if (count == 0)
        return true;
    switch ((enum convert_kind)f->kind) {
    case CONVERT_IDS:
        convert_store_pointer(at, items);
        return true;
    case CONVERT_MESSAGES:
        list = arena_alloc_array(arena, count, sizeof(void *));
        for (size_t i = 0; list != NULL && i < count; i++) {
            void *one = packed_new(f->message, convert_at(items, i * f->message->size), arena);
            if (one == NULL)
                return false;
            ((void **)list)[i] = one;
        }
        break;
    case CONVERT_STRINGS:
        list = arena_alloc_array(arena, count, sizeof(char *));
        for (size_t i = 0; list != NULL && i < count; i++) {
            const char *text = pack_string(f, ((const char *const *)items)[i], f->max_each, arena);
            if (text == NULL)
                return false;
            ((const char **)list)[i] = text;
        }
        break;
    case CONVERT_BYTES_LIST:
        list = arena_alloc_array(arena, count, sizeof(ProtobufCBinaryData));
        for (size_t i = 0; list != NULL && i < count; i++) {
            const struct wire_bytes *each = (const struct wire_bytes *)items + i;
            ((ProtobufCBinaryData *)list)[i] =
                (ProtobufCBinaryData){.len = each->size, .data = (uint8_t *)each->data};
        }
        break;
    default:
        CHECK(false && "a list");
        return false;
    }
    convert_store_pointer(at, list);
    return list != NULL;
}

static bool pack_field(const struct convert_field *f, const void *ours, void *packed,
                       struct arena *arena)
{
    const void *from = convert_at(ours, f->ours);
    void *to = convert_at_mut(packed, f->packed);
    const char *text;
    void *sub;

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        *(uint32_t *)to = *(const uint32_t *)from;
        return true;
    case CONVERT_U64:
        *(uint64_t *)to = *(const uint64_t *)from;
        return true;
    case CONVERT_BOOL:
        *(protobuf_c_boolean *)to = *(const bool *)from;
        return true;
    case CONVERT_FLOAT:
        *(float *)to = *(const float *)from;
        return true;
    case CONVERT_CONSTANT:
        *(uint32_t *)to = (uint32_t)f->max;
        return true;
    case CONVERT_STRING:
        text = pack_string(f, convert_load_pointer(from), f->max, arena);
        convert_store_pointer(to, text);
        return text != NULL;
    case CONVERT_BYTES:
        *(ProtobufCBinaryData *)to = (ProtobufCBinaryData){
            .len = *(const size_t *)convert_at(ours, f->ours_count),
            .data = (uint8_t *)convert_load_pointer(from),
        };
        return true;
    case CONVERT_FIXED: {
        uint8_t any = 0;
        for (size_t i = 0; i < f->max; i++)
            any |= ((const uint8_t *)from)[i];
        if (any != 0)
            *(ProtobufCBinaryData *)to =
                (ProtobufCBinaryData){.len = (size_t)f->max, .data = (uint8_t *)from};
        return true;
    }
    case CONVERT_MESSAGE:
        if (convert_is_default(f->message, from))
            return true;
        sub = packed_new(f->message, from, arena);
        convert_store_pointer(to, sub);
        return sub != NULL;
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS:
        return pack_list(f, convert_load_pointer(from),
                         *(const size_t *)convert_at(ours, f->ours_count), packed, arena);
    }
    CHECK(false && "a kind of field");
    return false;
}

static void *packed_new(const struct convert_message *message, const void *ours,
                        struct arena *arena)
{
    void *packed = arena_alloc(arena, message->descriptor->sizeof_message);
    if (packed == NULL)
        return NULL;
    protobuf_c_message_init(message->descriptor, packed);
    for (size_t i = 0; i < message->n_fields; i++)
        if (!pack_field(&message->fields[i], ours, packed, arena))
            return NULL;
    const struct convert_choice *choice = message->choice;
    if (choice != NULL) {
        int value = *(const int *)convert_at(ours, choice->ours_case);
        const struct convert_case *one = convert_choice_find(choice, value);
        CHECK(one != NULL);
        void *sub = packed_new(one->message, convert_at(ours, choice->ours_union), arena);
        if (sub == NULL)
            return NULL;
        *(int *)convert_at_mut(packed, choice->packed_case) = value;
        convert_store_pointer(convert_at_mut(packed, choice->packed_union), sub);
    }
    return packed;
}

enum err convert_encode(const struct convert_message *message, const char *name, const void *ours,
                        size_t cap, const char *cap_name, struct buf *out, struct errbuf *eb)
{
    struct convert_place place = {
        .name = name, .index = CONVERT_NO_INDEX, .sending = true, .eb = eb};
    struct arena arena;
    enum err err = convert_validate(message, ours, &place);

    if (err != ERR_OK)
        return err;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    ProtobufCMessage *packed = packed_new(message, ours, &arena);
    if (packed == NULL) {
        err = convert_refuse(&place, ERR_NO_MEMORY, NULL, "no memory to pack it");
        goto out;
    }
    size_t size = protobuf_c_message_get_packed_size(packed);
    if (size > cap) {
        err = convert_refuse(&place, ERR_TOO_LARGE, NULL, "%zu bytes are over %s (%zu)", size,
                             cap_name, cap);
        goto out;
    }
    if (!buf_reserve(out, size)) {
        err = convert_refuse(&place, ERR_NO_MEMORY, NULL, "no memory for %zu bytes", size);
        goto out;
    }
    CHECK(protobuf_c_message_pack(packed, out->data + out->size) == size);
    out->size += size;
    out->data[out->size] = 0;
out:
    arena_fini(&arena);
    return err;
}

/* ---- unpacking: protobuf-c's struct, in the caller's arena, to ours, which points into it ---- */

/* Before each allocation lies its size: a string's true length, which protobuf-c does not keep. */
struct convert_block {
    size_t size;
    size_t pad;
};

_Static_assert(sizeof(struct convert_block) == 16, "keeps what follows aligned to 16 bytes");

struct convert_unpacking {
    struct arena *arena;
    bool over_cap; /* the arena's cap refused, not malloc */
};

static void *unpack_alloc(void *arg, size_t size)
{
    struct convert_unpacking *u = arg;
    struct convert_block *block = NULL;
    size_t whole;

    if (!__builtin_add_overflow(size, sizeof *block, &whole))
        block = arena_alloc(u->arena, whole);
    if (block == NULL) {
        u->over_cap = u->over_cap || size > SIZE_MAX - 64 ||
                      whole + 15 > u->arena->cap_bytes - u->arena->used_bytes;
        return NULL;
    }
    block->size = size;
    return block + 1;
}

static void unpack_free(void *arg, void *pointer)
{
    (void)arg;
    (void)pointer; /* the arena's owner frees all of it */
}

/* False where a NUL hides a part of it. */
static bool unpacked_string_is_whole(const char *text)
{
    if (text == protobuf_c_empty_string)
        return true;
    const struct convert_block *block = (const struct convert_block *)(const void *)text - 1;
    return memchr(text, '\0', block->size) == text + block->size - 1;
}

static enum err unpack_message(const struct convert_message *message, const void *packed,
                               struct arena *arena, void *ours, const struct convert_place *place);

/* What an absent message reads as: `ours` is zeroed, its strings become empty ones. */
static void message_clear(const struct convert_message *message, void *ours)
{
    for (size_t i = 0; i < message->n_fields; i++) {
        const struct convert_field *f = &message->fields[i];
        if (f->kind == CONVERT_STRING || f->kind == CONVERT_BYTES)
            convert_store_pointer(convert_at_mut(ours, f->ours), protobuf_c_empty_string);
        else if (f->kind == CONVERT_MESSAGE)
            message_clear(f->message, convert_at_mut(ours, f->ours));
    }
}

static struct wire_bytes unpack_bytes(const ProtobufCBinaryData *from)
{
    if (from->len == 0)
        return (struct wire_bytes){.data = (const uint8_t *)protobuf_c_empty_string, .size = 0};
    return (struct wire_bytes){.data = from->data, .size = from->len};
}

static enum err unpack_list(const struct convert_field *f, const void *packed, struct arena *arena,
                            void *ours, struct convert_place *place)
{
    const void *from = convert_load_pointer(convert_at(packed, f->packed));
    size_t count = *(const size_t *)convert_at(packed, f->packed_count);
    void *to = convert_at_mut(ours, f->ours);
    unsigned char *list = NULL;
    size_t each = f->kind == CONVERT_MESSAGES ? f->message->size : sizeof(struct wire_bytes);
    enum err err = ERR_OK;

    *(size_t *)convert_at_mut(ours, f->ours_count) = count;
    if (count == 0)
        return ERR_OK;
    if (f->kind == CONVERT_IDS || f->kind == CONVERT_STRINGS) {
        convert_store_pointer(to, from);
        for (size_t i = 0; f->kind == CONVERT_STRINGS && i < count; i++) {
            place->index = i;
            if (!unpacked_string_is_whole(((char *const *)from)[i]))
                return convert_refuse(place, ERR_INVALID, NULL, "a NUL inside a string");
        }
        return ERR_OK;
    }
    list = arena_alloc_array(arena, count, each);
    if (list == NULL)
        return convert_refuse(place, ERR_TOO_LARGE, NULL, "no room to unpack %zu elements", count);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        place->index = i;
        if (f->kind == CONVERT_MESSAGES)
            err =
                unpack_message(f->message, ((void *const *)from)[i], arena, list + i * each, place);
        else
            ((struct wire_bytes *)(void *)list)[i] =
                unpack_bytes((const ProtobufCBinaryData *)from + i);
    }
    convert_store_pointer(to, list);
    return err;
}

static enum err unpack_field(const struct convert_field *f, const void *packed, struct arena *arena,
                             void *ours, const struct convert_place *outer)
{
    const void *from = convert_at(packed, f->packed);
    void *to = convert_at_mut(ours, f->ours);
    struct convert_place place = {
        .outer = outer,
        .name = f->name,
        .index = CONVERT_NO_INDEX,
        .eb = outer->eb,
    };
    const ProtobufCBinaryData *data;
    const void *pointer;

    switch ((enum convert_kind)f->kind) {
    case CONVERT_U32:
    case CONVERT_ENUM:
        *(uint32_t *)to = *(const uint32_t *)from;
        return ERR_OK;
    case CONVERT_U64:
        *(uint64_t *)to = *(const uint64_t *)from;
        return ERR_OK;
    case CONVERT_BOOL:
        *(bool *)to = *(const protobuf_c_boolean *)from != 0;
        return ERR_OK;
    case CONVERT_FLOAT:
        *(float *)to = *(const float *)from;
        return ERR_OK;
    case CONVERT_CONSTANT:
        if (*(const uint32_t *)from != (uint32_t)f->max)
            return convert_refuse(&place, ERR_UNSUPPORTED, NULL,
                                  "the peer speaks version %" PRIu32
                                  " of the protocol, this build %" PRIu64,
                                  *(const uint32_t *)from, f->max);
        return ERR_OK;
    case CONVERT_STRING:
        pointer = convert_load_pointer(from);
        if (!unpacked_string_is_whole(pointer))
            return convert_refuse(&place, ERR_INVALID, NULL, "a NUL inside a string");
        convert_store_pointer(to, pointer);
        return ERR_OK;
    case CONVERT_BYTES: {
        struct wire_bytes bytes = unpack_bytes(from);
        convert_store_pointer(to, bytes.data);
        *(size_t *)convert_at_mut(ours, f->ours_count) = bytes.size;
        return ERR_OK;
    }
    case CONVERT_FIXED:
        data = from;
        if (data->len != 0 && data->len != f->max)
            return convert_refuse(&place, ERR_INVALID, NULL, "%zu bytes, not %" PRIu64, data->len,
                                  f->max);
        if (data->len != 0)
            memcpy(to, data->data, data->len);
        return ERR_OK;
    case CONVERT_MESSAGE:
        pointer = convert_load_pointer(from);
        if (pointer != NULL)
            return unpack_message(f->message, pointer, arena, to, &place);
        message_clear(f->message, to);
        return ERR_OK;
    case CONVERT_MESSAGES:
    case CONVERT_STRINGS:
    case CONVERT_BYTES_LIST:
    case CONVERT_IDS:
        return unpack_list(f, packed, arena, ours, &place);
    }
    CHECK(false && "a kind of field");
    return ERR_INTERNAL;
}

static enum err unpack_message(const struct convert_message *message, const void *packed,
                               struct arena *arena, void *ours, const struct convert_place *place)
{
    for (size_t i = 0; i < message->n_fields; i++) {
        enum err err = unpack_field(&message->fields[i], packed, arena, ours, place);
        if (err != ERR_OK)
            return err;
    }
    const struct convert_choice *choice = message->choice;
    if (choice == NULL)
        return ERR_OK;
    int value = *(const int *)convert_at(packed, choice->packed_case);
    const struct convert_case *one = convert_choice_find(choice, value);
    *(int *)convert_at_mut(ours, choice->ours_case) = one != NULL ? value : 0;
    if (one == NULL)
        return ERR_OK; /* validation refuses it */
    struct convert_place inner = {
        .outer = place,
        .name = one->name,
        .index = CONVERT_NO_INDEX,
        .eb = place->eb,
    };
    return unpack_message(one->message,
                          convert_load_pointer(convert_at(packed, choice->packed_union)), arena,
                          convert_at_mut(ours, choice->ours_union), &inner);
}

enum err convert_decode(const struct convert_message *message, const char *name, const void *bytes,
                        size_t size, struct arena *arena, void *ret_ours, struct errbuf *eb)
{
    struct convert_place place = {.name = name, .index = CONVERT_NO_INDEX, .eb = eb};
    struct convert_unpacking unpacking = {.arena = arena};
    ProtobufCAllocator allocator = {
        .alloc = unpack_alloc,
        .free = unpack_free,
        .allocator_data = &unpacking,
    };
    ProtobufCMessage *packed =
        protobuf_c_message_unpack(message->descriptor, &allocator, size, bytes);
    if (packed == NULL && unpacking.over_cap)
        return convert_refuse(&place, ERR_TOO_LARGE, NULL,
                              "unpacking it would take more than %zu bytes", arena->cap_bytes);
    if (packed == NULL)
        return convert_refuse(&place, ERR_INVALID, NULL, "not a well-formed message");

    void *ours = arena_alloc(arena, message->size);
    if (ours == NULL)
        return convert_refuse(&place, ERR_TOO_LARGE, NULL, "no room to unpack it");
    enum err err = unpack_message(message, packed, arena, ours, &place);
    if (err == ERR_OK)
        err = convert_validate(message, ours, &place);
    if (err == ERR_OK)
        memcpy(ret_ours, ours, message->size);
    return err;
}
