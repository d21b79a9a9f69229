#include "coordinator/ledger/export.h"

#include "common/arena.h"
#include "common/limits.h"
#include "coordinator/ledger/base64.h"
#include "coordinator/ledger/note.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static int dump_append(const char *bytes, size_t size, void *arg)
{
    struct buf *out = arg;
    buf_append(out, bytes, size);
    return out->failed ? -1 : 0;
}

/* Appends `object` as one line and drops it; NULL is an object that could not be made. */
static void line_append(struct buf *out, json_t *object)
{
    if (object == NULL || json_dump_callback(object, dump_append, out, JSON_COMPACT) != 0)
        out->failed = true;
    buf_append_byte(out, '\n');
    json_decref(object);
}

/* Sets a member and takes `value` over; false without memory or with text that is not UTF-8. */
static bool put(json_t *object, const char *name, json_t *value)
{
    return value != NULL && json_object_set_new_nocheck(object, name, value) == 0;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static bool put_hex(json_t *object, const char *name, const uint8_t bytes[SHA256_BYTES])
{
    char text[SHA256_HEX_BYTES];
    hex_encode(bytes, SHA256_BYTES, text);
    /* A hash that is not there is no hash of zeros. */
    return put(object, name, json_string(all_zero(bytes, SHA256_BYTES) ? "" : text));
}

void ledger_export_header(struct buf *out, const char *origin,
                          const uint8_t public_key[ED25519_PUBLIC_BYTES])
{
    _Static_assert(ED25519_PUBLIC_BYTES == SHA256_BYTES, "put_hex is for 32 bytes");
    json_t *object = json_object();
    bool ok =
        object != NULL && put(object, "cloister_ledger", json_integer(LEDGER_EXPORT_VERSION)) &&
        put(object, "origin", json_string(origin)) && put_hex(object, "public_key", public_key);
    if (!ok) {
        json_decref(object);
        object = NULL;
    }
    line_append(out, object);
}

void ledger_export_checkpoint(struct buf *out, const char *text)
{
    struct note note = {0};
    struct errbuf eb;

    if (text[0] == '\0')
        return;
    /* What cannot be read is exported as it is: it is the reader who judges. */
    (void)note_parse(text, &note, &eb);
    json_t *object = json_object();
    bool ok = object != NULL && put(object, "checkpoint", json_string(text)) &&
              put(object, "size", json_integer((json_int_t)(note.size & INT64_MAX))) &&
              put_hex(object, "root", note.root);
    if (!ok) {
        json_decref(object);
        object = NULL;
    }
    line_append(out, object);
}

/* ---- records ---- */

enum field_kind { FIELD_U32, FIELD_U64, FIELD_SEED, FIELD_TEXT, FIELD_HASH, FIELD_ID, FIELD_NAME };

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
    const char *(*value_name)(const struct record_ledger *r); /* FIELD_NAME */
    /* Only records of this kind have it; 0: all. What came later than others is not in their lines,
     * so that files of before stay as good as they were. */
    enum record_ledger_kind only;
};

static const char *kind_name(const struct record_ledger *r)
{
    return record_ledger_kind_name(r->kind);
}

static const char *count_source_name(const struct record_ledger *r)
{
    return r->count_source == RECORD_COUNT_SOURCE_ENGINE ? "ENGINE" : "";
}

static const char *finish_name(const struct record_ledger *r)
{
    return r->finish != 0 ? wire_finish_name((enum wire_finish)r->finish) : "";
}

static const char *outcome_name(const struct record_ledger *r)
{
    return r->outcome != 0 ? wire_job_state_name((enum wire_job_state)r->outcome) : "";
}

#define F(name, kind)                                                                              \
    {                                                                                              \
#name, FIELD_##kind, offsetof(struct record_ledger, name), NULL, 0                         \
    }
#define F_ONLY(name, kind, of)                                                                     \
    {                                                                                              \
#name, FIELD_##kind, offsetof(struct record_ledger, name), NULL, RECORD_LEDGER_##of        \
    }
#define F_NAME(name, name_fn)                                                                      \
    {                                                                                              \
#name, FIELD_NAME, 0, name_fn, 0                                                           \
    }

/* In the order of proto/record.proto. */
static const struct field fields[] = {
    F(seq, U64),
    F_NAME(kind, kind_name),
    F(schema, U32),
    F(node, TEXT),
    F(boot_epoch, U64),
    F(wall_ns, U64),
    F(mono_ns, U64),
    F(job_id, ID),
    F(attempt, U32),
    F(tenant, TEXT),
    F(project, TEXT),
    F(cost_center, TEXT),
    F(principal, TEXT),
    F(key_fingerprint, HASH),
    F(model, TEXT),
    F(weights_digest, HASH),
    F(tokenizer_digest, HASH),
    F(engine_build, TEXT),
    F(quantization, TEXT),
    F(shards, U32),
    F(worker, TEXT),
    F(seed, SEED),
    F(sampling_digest, HASH),
    F(max_tokens, U32),
    F(reserved_tokens, U64),
    F(reserve_seq, U64),
    F_NAME(count_source, count_source_name),
    F(prompt_tokens, U64),
    F(prompt_cached, U64),
    F(prompt_computed, U64),
    F(completion_computed, U64),
    F(completion_delivered, U64),
    F(completion_billable, U64),
    F(policy_id, U32),
    F_NAME(finish, finish_name),
    F_NAME(outcome, outcome_name),
    F(prompt_hash, HASH),
    F(output_hash, HASH),
    F(queue_us, U64),
    F(prefill_us, U64),
    F(decode_us, U64),
    F(public_key, HASH),
    F_ONLY(device, TEXT, METER),
    F_ONLY(energy_mj, U64, METER),
};

/* Records are written without building a tree of JSON values first: a ledger has millions of them.
 * The text is UTF-8 without control characters, as every decoded record's is. */
static void append_text(struct buf *out, const char *text)
{
    buf_append_byte(out, '"');
    for (size_t n; *text != '\0'; text += n) {
        n = strcspn(text, "\"\\");
        buf_append(out, text, n);
        if (text[n] != '\0') {
            buf_append_byte(out, '\\');
            buf_append_byte(out, (uint8_t)text[n++]);
        }
    }
    buf_append_byte(out, '"');
}

static void append_number(struct buf *out, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buf_append(out, digits + at, sizeof digits - at);
}

static void append_hex(struct buf *out, const uint8_t *bytes, size_t size)
{
    char text[2 * SHA256_BYTES + 1];
    buf_append_byte(out, '"');
    if (!all_zero(bytes, size)) {
        hex_encode(bytes, size, text);
        buf_append(out, text, 2 * size);
    }
    buf_append_byte(out, '"');
}

static void append_field(struct buf *out, const struct field *f, const struct record_ledger *record)
{
    const uint8_t *at = (const uint8_t *)record + f->offset;
    const char *text;
    uint64_t u64;
    uint32_t u32;

    buf_append_byte(out, '"');
    buf_append_str(out, f->name);
    buf_append(out, "\":", 2);
    switch (f->kind) {
    case FIELD_U32:
        memcpy(&u32, at, sizeof u32);
        append_number(out, u32);
        return;
    case FIELD_U64:
        memcpy(&u64, at, sizeof u64);
        append_number(out, u64);
        return;
    case FIELD_SEED:
        /* All 64 bits are in use: more than many readers of JSON keep of a number. */
        memcpy(&u64, at, sizeof u64);
        buf_append_byte(out, '"');
        append_number(out, u64);
        buf_append_byte(out, '"');
        return;
    case FIELD_TEXT:
        memcpy(&text, at, sizeof text);
        append_text(out, text);
        return;
    case FIELD_HASH:
        append_hex(out, at, SHA256_BYTES);
        return;
    case FIELD_ID:
        append_hex(out, at, ID_BYTES);
        return;
    case FIELD_NAME:
        append_text(out, f->value_name(record));
        return;
    }
}

/* A number over 2^63-1 has no place in the file; ledger_append lets none in. */
static enum err range_check(const struct record_ledger *record, struct errbuf *eb)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint64_t value;
        if (fields[i].kind != FIELD_U64)
            continue;
        memcpy(&value, (const uint8_t *)record + fields[i].offset, sizeof value);
        if (value > INT64_MAX)
            return err_set(eb, ERR_CORRUPT, "ledger record: %s of %" PRIu64 " is out of range",
                           fields[i].name, value);
    }
    return ERR_OK;
}

enum err ledger_export_decoded(struct buf *out, const struct record_ledger *record,
                               const void *bytes, size_t size, struct errbuf *eb)
{
    enum err e = range_check(record, eb);
    if (e != ERR_OK)
        return e;
    buf_append_byte(out, '{');
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].only != RECORD_LEDGER_UNSPECIFIED && fields[i].only != record->kind)
            continue;
        append_field(out, &fields[i], record);
        buf_append_byte(out, ',');
    }
    buf_append_str(out, "\"raw\":\"");
    if (buf_reserve(out, BASE64_TEXT_BYTES(size))) {
        base64_encode(bytes, size, (char *)out->data + out->size);
        out->size += BASE64_TEXT_BYTES(size) - 1;
    }
    buf_append(out, "\"}\n", 3);
    return out->failed ? err_set(eb, ERR_NO_MEMORY, "ledger export: out of memory") : ERR_OK;
}

enum err ledger_export_record(struct buf *out, const void *bytes, size_t size, struct errbuf *eb)
{
    struct record_ledger record;
    struct arena arena;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    enum err e = record_ledger_decode(bytes, size, &arena, &record, eb);
    if (e == ERR_OK)
        e = ledger_export_decoded(out, &record, bytes, size, eb);
    arena_fini(&arena);
    return e;
}
