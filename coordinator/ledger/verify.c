/*
 * The check of an exported ledger: reads the file once, from the first line to the last, and
 * believes nothing in it that does not follow from the packed records and the signature.
 */
#include "coordinator/ledger/export.h"

#include "common/arena.h"
#include "common/limits.h"
#include "coordinator/ledger/base64.h"
#include "coordinator/ledger/merkle.h"
#include "coordinator/ledger/note.h"
#include "coordinator/ledger/meters.h"
#include "coordinator/ledger/reservation.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define POLICY_ID 1u /* docs/coordinator.md, what is owed */

/* A KEY record; the last one that is signed must name the key that signed. */
struct key_seen {
    uint64_t seq, line;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
};

/* A record of which it is not known yet whether the checkpoint covers it. */
struct recent {
    uint8_t leaf[SHA256_BYTES];
    /* What it adds, mod 2^64: the end of a reservation takes from what is open. */
    struct ledger_totals adds;
};

struct verifier {
    FILE *in;
    const struct ledger_verify_options *options;
    struct ledger_verify_report *report;
    struct errbuf *eb;

    char *line; /* grows to LEDGER_EXPORT_LINE_BYTES + 1 at most */
    size_t line_size, line_capacity;
    uint64_t line_number;

    struct arena arena;
    struct buf raw, again;
    struct reservations reservations;
    /* The note that was kept (size 0: none), and the tree as far as it goes. */
    struct note kept;
    struct merkle_frontier kept_tree;
    struct key_seen *keys;
    size_t n_keys;
    struct meters meters;

    /* The tree and the totals up to the first of `recent`, a ring of the newest records: which of
     * them the checkpoint covers is only known when it has been read. */
    struct merkle_frontier base;
    struct ledger_totals base_totals;
    struct recent *recent;
    size_t recent_capacity, recent_first, n_recent;
    struct ledger_totals adds; /* of the record at hand */
};

/* ---- complaints: line, seq where one is known, reason ---- */

static enum err bad_line(struct verifier *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static enum err bad_record(struct verifier *v, uint64_t seq, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static enum err complain(struct verifier *v, const char *place, const char *fmt, va_list ap)
{
    char reason[ERRBUF_BYTES];
    (void)vsnprintf(reason, sizeof reason, fmt, ap);
    v->report->bad_line = v->line_number;
    return err_set(v->eb, ERR_CORRUPT, "%s: %s", place, reason);
}

static enum err bad_line(struct verifier *v, const char *fmt, ...)
{
    char place[64];
    va_list ap;
    va_start(ap, fmt);
    (void)snprintf(place, sizeof place, "line %" PRIu64, v->line_number);
    enum err e = complain(v, place, fmt, ap);
    va_end(ap);
    return e;
}

static enum err bad_record(struct verifier *v, uint64_t seq, const char *fmt, ...)
{
    char place[64];
    va_list ap;
    va_start(ap, fmt);
    (void)snprintf(place, sizeof place, "line %" PRIu64 ", seq %" PRIu64, v->line_number, seq);
    enum err e = complain(v, place, fmt, ap);
    va_end(ap);
    return e;
}

static enum err no_memory(struct verifier *v)
{
    return err_set(v->eb, ERR_NO_MEMORY, "ledger verify: out of memory");
}

/* ---- lines ---- */

static bool line_grow(struct verifier *v)
{
    size_t capacity = v->line_capacity == 0 ? 4096 : 2 * v->line_capacity;
    if (capacity > LEDGER_EXPORT_LINE_BYTES + 1)
        capacity = LEDGER_EXPORT_LINE_BYTES + 1;
    char *line = realloc(v->line, capacity);
    if (line == NULL)
        return false;
    v->line = line;
    v->line_capacity = capacity;
    return true;
}

/* ERR_NOT_FOUND at the end of the file. The last line may lack its newline. */
static enum err line_read(struct verifier *v)
{
    size_t size = 0;
    int c;
    v->line_number++;
    while ((c = getc_unlocked(v->in)) != EOF && c != '\n') {
        if (size == LEDGER_EXPORT_LINE_BYTES)
            return bad_line(v, "longer than %u bytes", LEDGER_EXPORT_LINE_BYTES);
        if (size + 1 >= v->line_capacity && !line_grow(v))
            return no_memory(v);
        v->line[size++] = (char)c;
    }
    if (ferror(v->in))
        return err_set_errno(v->eb, errno, "ledger verify: line %" PRIu64, v->line_number);
    if (c == EOF && size == 0)
        return ERR_NOT_FOUND;
    if (size == v->line_capacity && !line_grow(v)) /* an empty first line */
        return no_memory(v);
    v->line[size] = '\0';
    v->line_size = size;
    return ERR_OK;
}

/* The line as an object, or an error. Ownership: the caller's. */
static enum err line_parse(struct verifier *v, json_t **ret_object)
{
    json_error_t error;
    json_t *object = json_loadb(v->line, v->line_size, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return bad_line(v, "not JSON: %s (byte %d)", error.text, error.position);
    if (!json_is_object(object)) {
        json_decref(object);
        return bad_line(v, "not a JSON object");
    }
    *ret_object = object;
    return ERR_OK;
}

static const char *text_member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    /* A NUL inside would hide what follows it. */
    return text != NULL && strlen(text) == json_string_length(json_object_get(object, name)) ? text
                                                                                             : NULL;
}

/* Lower-case hex only: one text for one value. */
static bool hex_member(const json_t *object, const char *name, uint8_t *ret_bytes, size_t size)
{
    char again[2 * SHA256_BYTES + 1];
    const char *text = text_member(object, name);
    if (text == NULL || !hex_decode(text, ret_bytes, size))
        return false;
    hex_encode(ret_bytes, size, again);
    return strcmp(text, again) == 0;
}

/* ---- first line ---- */

static enum err kept_read(struct verifier *v)
{
    struct errbuf why = {{0}};
    if (v->options->against == NULL)
        return ERR_OK;
    if (note_open(v->options->against, v->report->public_key, &v->kept, &why) != ERR_OK)
        return bad_line(v, "the checkpoint that was kept is not one of this ledger: %s", why.text);
    if (strcmp(v->kept.origin, v->report->origin) != 0)
        return bad_line(v, "the checkpoint that was kept is of \"%s\", the file of \"%s\"",
                        v->kept.origin, v->report->origin);
    return v->kept.size > 0 ? ERR_OK
                            : bad_line(v, "the checkpoint that was kept covers no records");
}

static enum err header_read(struct verifier *v)
{
    struct ledger_verify_report *report = v->report;
    const struct ledger_verify_options *o = v->options;
    json_t *object = NULL;

    enum err e = line_read(v);
    if (e == ERR_NOT_FOUND)
        return bad_line(v, "the file is empty");
    if (e == ERR_OK)
        e = line_parse(v, &object);
    if (e != ERR_OK)
        return e;
    const json_t *version = json_object_get(object, "cloister_ledger");
    const char *origin = text_member(object, "origin");
    if (!json_is_integer(version))
        e = bad_line(v, "not a ledger export: no \"cloister_ledger\"");
    else if (json_integer_value(version) != LEDGER_EXPORT_VERSION)
        e = bad_line(v, "an export of version %lld, this program reads %d",
                     (long long)json_integer_value(version), LEDGER_EXPORT_VERSION);
    else if (json_object_size(object) != 3 || origin == NULL || !note_origin_valid(origin) ||
             !hex_member(object, "public_key", report->public_key, ED25519_PUBLIC_BYTES))
        e = bad_line(v, "malformed header: origin and public_key are needed, and nothing else");
    else if (o->origin != NULL && strcmp(origin, o->origin) != 0)
        e = bad_line(v, "a ledger of \"%s\", not of \"%s\"", origin, o->origin);
    else if (o->public_key != NULL &&
             memcmp(o->public_key, report->public_key, ED25519_PUBLIC_BYTES) != 0)
        e = bad_line(v, "its public key is not the one that was given as trusted");
    else
        memcpy(report->origin, origin, strlen(origin) + 1);
    json_decref(object);
    return e == ERR_OK ? kept_read(v) : e;
}

/* ---- what a record may say, given those before it ---- */

/* Fields of struct ledger_totals, all of them counts of 64 bits. */
#define TOTALS_FIELDS (sizeof(struct ledger_totals) / sizeof(uint64_t))

static void totals_add(struct ledger_totals *totals, const struct ledger_totals *adds)
{
    uint64_t sum[TOTALS_FIELDS], more[TOTALS_FIELDS];
    memcpy(sum, totals, sizeof sum);
    memcpy(more, adds, sizeof more);
    for (size_t i = 0; i < TOTALS_FIELDS; i++)
        sum[i] += more[i];
    memcpy(totals, sum, sizeof sum);
}

static bool fits(uint64_t total, uint64_t value)
{
    return value <= UINT64_MAX - total;
}

/* Policy 1: what the cluster failed at is not owed, though the record says what was computed. */
static bool is_owed(uint32_t outcome)
{
    return outcome == WIRE_JOB_STATE_DONE || outcome == WIRE_JOB_STATE_CANCELLED ||
           outcome == WIRE_JOB_STATE_EXPIRED;
}

static void owner_digest(const struct record_ledger *r, uint8_t ret_digest[SHA256_BYTES])
{
    struct sha256_stream *s = sha256_new();
    sha256_update(s, r->tenant, strlen(r->tenant) + 1);
    sha256_update(s, r->model, strlen(r->model) + 1);
    sha256_finish(s, ret_digest);
}

static enum err reserve_check(struct verifier *v, const struct record_ledger *r)
{
    struct reservation reservation = {.seq = r->seq,
                                      .job_id = r->job_id,
                                      .tokens = r->reserved_tokens,
                                      .max_tokens = r->max_tokens};
    if (id_is_zero(&r->job_id) || r->tenant[0] == '\0' || r->model[0] == '\0')
        return bad_record(v, r->seq, "RESERVE without job, tenant or model");
    if (r->reserve_seq != 0)
        return bad_record(v, r->seq, "RESERVE that names a reservation (%" PRIu64 ")",
                          r->reserve_seq - 1);
    if (r->reserved_tokens < r->max_tokens)
        return bad_record(v, r->seq, "RESERVE of %" PRIu64 " tokens for max_tokens %" PRIu32,
                          r->reserved_tokens, r->max_tokens);
    if (r->prompt_tokens != 0 || r->completion_computed != 0 || r->completion_delivered != 0 ||
        r->completion_billable != 0)
        return bad_record(v, r->seq, "RESERVE that counts tokens");
    owner_digest(r, reservation.owner);
    if (!fits(v->report->read.reserved_open_tokens, reservation.tokens))
        return bad_record(v, r->seq, "the tokens reserved pass 2^64");
    if (!reservations_add(&v->reservations, &reservation))
        return no_memory(v);
    v->adds.reserves = 1;
    v->adds.open_reservations = 1;
    v->adds.reserved_open_tokens = reservation.tokens;
    return ERR_OK;
}

static enum err counts_check(struct verifier *v, const struct record_ledger *r,
                             const struct reservation *reservation)
{
    const char *kind = record_ledger_kind_name(r->kind);
    uint64_t owed;

    if (r->count_source != RECORD_COUNT_SOURCE_ENGINE)
        return bad_record(v, r->seq, "%s whose tokens were not counted by the engine", kind);
    if (r->prompt_cached > r->prompt_tokens)
        return bad_record(v, r->seq, "%s with %" PRIu64 " cached of %" PRIu64 " prompt tokens",
                          kind, r->prompt_cached, r->prompt_tokens);
    if (r->completion_delivered > r->completion_computed)
        return bad_record(v, r->seq, "%s with %" PRIu64 " tokens delivered, %" PRIu64 " computed",
                          kind, r->completion_delivered, r->completion_computed);
    if (r->completion_billable > r->completion_computed)
        return bad_record(v, r->seq, "%s with %" PRIu64 " tokens billable, %" PRIu64 " computed",
                          kind, r->completion_billable, r->completion_computed);
    if (r->kind != RECORD_LEDGER_SETTLE && r->completion_billable != 0)
        return bad_record(v, r->seq, "%s with %" PRIu64 " billable tokens: only SETTLE bills", kind,
                          r->completion_billable);
    if (r->kind == RECORD_LEDGER_SETTLE && r->policy_id != POLICY_ID)
        return bad_record(v, r->seq, "%s decided by policy %" PRIu32 ", this program knows %u",
                          kind, r->policy_id, POLICY_ID);
    if (r->completion_billable != 0 && !is_owed(r->outcome))
        return bad_record(v, r->seq, "%s with %" PRIu64 " billable tokens of a job that failed",
                          kind, r->completion_billable);
    if (r->completion_billable > reservation->max_tokens)
        return bad_record(v, r->seq, "%s with %" PRIu64 " billable tokens of max_tokens %" PRIu32,
                          kind, r->completion_billable, reservation->max_tokens);
    if (__builtin_add_overflow(r->prompt_tokens, r->completion_billable, &owed) ||
        owed > reservation->tokens)
        return bad_record(v, r->seq,
                          "%s of %" PRIu64 " prompt and %" PRIu64
                          " billable tokens, but seq %" PRIu64 " reserved %" PRIu64,
                          kind, r->prompt_tokens, r->completion_billable, reservation->seq,
                          reservation->tokens);
    return ERR_OK;
}

static enum err end_check(struct verifier *v, const struct record_ledger *r)
{
    const char *kind = record_ledger_kind_name(r->kind);
    uint8_t owner[SHA256_BYTES];

    if (r->reserve_seq == 0)
        return bad_record(v, r->seq, "%s without a reservation", kind);
    uint64_t seq = r->reserve_seq - 1;
    const struct reservation *reservation = reservations_find(&v->reservations, seq);
    if (reservation == NULL) {
        if (reservations_was_made(&v->reservations, seq))
            return bad_record(v, r->seq, "%s of seq %" PRIu64 ", which was ended before", kind,
                              seq);
        return bad_record(v, r->seq, "%s of seq %" PRIu64 ", which is no RESERVE before it", kind,
                          seq);
    }
    owner_digest(r, owner);
    if (id_compare(&r->job_id, &reservation->job_id) != 0 ||
        memcmp(owner, reservation->owner, sizeof owner) != 0)
        return bad_record(v, r->seq,
                          "%s has another job, tenant or model than its RESERVE, seq %" PRIu64,
                          kind, seq);
    if (r->reserved_tokens != reservation->tokens)
        return bad_record(v, r->seq,
                          "%s says %" PRIu64 " tokens were reserved, seq %" PRIu64
                          " reserved %" PRIu64,
                          kind, r->reserved_tokens, seq, reservation->tokens);
    enum err e = counts_check(v, r, reservation);
    if (e != ERR_OK)
        return e;
    const struct ledger_totals *read = &v->report->read;
    struct ledger_totals *adds = &v->adds;
    adds->open_reservations = UINT64_MAX; /* one less */
    adds->reserved_open_tokens = 0 - reservation->tokens;
    reservations_remove(&v->reservations, seq);
    adds->settles = r->kind == RECORD_LEDGER_SETTLE;
    adds->voids = r->kind == RECORD_LEDGER_VOID;
    adds->expires = r->kind == RECORD_LEDGER_EXPIRE;
    adds->completion_computed = r->completion_computed;
    adds->completion_delivered = r->completion_delivered;
    if (r->kind == RECORD_LEDGER_SETTLE) {
        adds->prompt_tokens = is_owed(r->outcome) ? r->prompt_tokens : 0;
        adds->completion_billable = r->completion_billable;
    }
    bool ok = fits(read->completion_computed, adds->completion_computed) &&
              fits(read->completion_delivered, adds->completion_delivered) &&
              fits(read->prompt_tokens, adds->prompt_tokens) &&
              fits(read->completion_billable, adds->completion_billable);
    return ok ? ERR_OK : bad_record(v, r->seq, "the totals pass 2^64");
}

static enum err key_check(struct verifier *v, const struct record_ledger *r)
{
    static const uint8_t none[ED25519_PUBLIC_BYTES];
    if (memcmp(r->public_key, none, sizeof none) == 0)
        return bad_record(v, r->seq, "KEY without a public key");
    struct key_seen *keys = realloc(v->keys, (v->n_keys + 1) * sizeof *keys);
    if (keys == NULL)
        return no_memory(v);
    v->keys = keys;
    keys[v->n_keys] = (struct key_seen){.seq = r->seq, .line = v->line_number};
    memcpy(keys[v->n_keys].public_key, r->public_key, sizeof r->public_key);
    v->n_keys++;
    v->adds.keys = 1;
    return ERR_OK;
}

static enum err meter_check(struct verifier *v, const struct record_ledger *r)
{
    if (r->worker[0] == '\0' || r->device[0] == '\0')
        return bad_record(v, r->seq, "METER without worker or device");
    if (!id_is_zero(&r->job_id) || r->tenant[0] != '\0' || r->reserved_tokens != 0 ||
        r->reserve_seq != 0 || r->prompt_tokens != 0 || r->completion_computed != 0 ||
        r->completion_delivered != 0 || r->completion_billable != 0)
        return bad_record(v, r->seq, "METER that names a job or tenant, or counts tokens");
    enum err e = meters_take(&v->meters, r->device, r->energy_mj, &v->adds.energy_mj);
    if (e == ERR_NO_MEMORY)
        return no_memory(v);
    if (e != ERR_OK)
        return bad_record(v, r->seq, "more than %u devices were metered", METERS_MAX);
    if (!fits(v->report->read.energy_mj, v->adds.energy_mj))
        return bad_record(v, r->seq, "the energy passes 2^64");
    v->adds.meters = 1;
    return ERR_OK;
}

static enum err rules_check(struct verifier *v, const struct record_ledger *r)
{
    uint64_t expected = v->report->read.records;
    if (r->seq < expected)
        return bad_record(v, r->seq,
                          "comes a second time or out of order, seq %" PRIu64 " is expected here",
                          expected);
    if (r->seq > expected)
        return bad_record(v, r->seq,
                          "%" PRIu64 " records are missing before it, from seq %" PRIu64 " on",
                          r->seq - expected, expected);
    if (r->schema != RECORD_LEDGER_SCHEMA)
        return bad_record(v, r->seq, "a record of schema %" PRIu32 ", this program reads %u",
                          r->schema, RECORD_LEDGER_SCHEMA);
    if (r->kind != RECORD_LEDGER_METER && (r->device[0] != '\0' || r->energy_mj != 0))
        return bad_record(v, r->seq, "%s that meters a device", record_ledger_kind_name(r->kind));
    switch (r->kind) {
    case RECORD_LEDGER_RESERVE:
        return reserve_check(v, r);
    case RECORD_LEDGER_SETTLE:
    case RECORD_LEDGER_VOID:
    case RECORD_LEDGER_EXPIRE:
        return end_check(v, r);
    case RECORD_LEDGER_KEY:
        return key_check(v, r);
    case RECORD_LEDGER_METER:
        return meter_check(v, r);
    case RECORD_LEDGER_UNSPECIFIED:
        break;
    }
    return bad_record(v, r->seq, "a record of no known kind");
}

/* ---- a record's line ---- */

/* The named fields must be those that the packed bytes give, no more, no fewer. */
static enum err fields_check(struct verifier *v, const json_t *object,
                             const struct record_ledger *record)
{
    const char *name;
    json_t *value;
    enum err e = ERR_OK;

    buf_clear(&v->again);
    e = ledger_export_decoded(&v->again, record, v->raw.data, v->raw.size, v->eb);
    if (e == ERR_CORRUPT)
        return bad_record(v, record->seq, "%s", v->eb->text);
    if (e != ERR_OK)
        return e;
    json_t *expected = json_loadb((const char *)v->again.data, v->again.size, 0, NULL);
    if (expected == NULL)
        return no_memory(v);
    json_object_foreach(expected, name, value)
    {
        json_t *there = json_object_get(object, name);
        if (e != ERR_OK || json_equal(value, there))
            continue;
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        e = bad_record(v, record->seq, "\"%s\" is %s in the packed record, but %s in the line",
                       name, text != NULL ? text : "?", there == NULL ? "not there" : "another");
        free(text);
    }
    if (e == ERR_OK && json_object_size(object) != json_object_size(expected))
        e = bad_record(v, record->seq, "the line has members that the packed record does not give");
    json_decref(expected);
    return e;
}

/* The oldest of `recent` becomes a part of the base. */
static void recent_shift(struct verifier *v)
{
    const struct recent *oldest = &v->recent[v->recent_first];
    (void)merkle_frontier_append(&v->base, oldest->leaf, NULL, NULL, NULL);
    totals_add(&v->base_totals, &oldest->adds);
    v->recent_first = (v->recent_first + 1) % v->recent_capacity;
    v->n_recent--;
}

static enum err recent_add(struct verifier *v)
{
    if (v->n_recent == LEDGER_EXPORT_UNSIGNED_MAX) {
        recent_shift(v);
    } else if (v->n_recent == v->recent_capacity) {
        size_t capacity = v->recent_capacity == 0 ? 1024 : 2 * v->recent_capacity;
        struct recent *recent = realloc(v->recent, capacity * sizeof *recent);
        if (recent == NULL)
            return no_memory(v);
        v->recent = recent; /* still in order: the ring turns only at its full size */
        v->recent_capacity = capacity;
    }
    struct recent *newest = &v->recent[(v->recent_first + v->n_recent) % v->recent_capacity];
    merkle_leaf_hash(v->raw.data, v->raw.size, newest->leaf);
    newest->adds = v->adds;
    v->n_recent++;
    return ERR_OK;
}

/* Compares roots at the record at which the note that was kept ends. */
static enum err kept_compare(struct verifier *v, const struct record_ledger *record)
{
    uint8_t leaf[SHA256_BYTES], root[SHA256_BYTES];
    char here[SHA256_HEX_BYTES], there[SHA256_HEX_BYTES];

    if (v->kept_tree.size >= v->kept.size)
        return ERR_OK;
    merkle_leaf_hash(v->raw.data, v->raw.size, leaf);
    (void)merkle_frontier_append(&v->kept_tree, leaf, NULL, NULL, NULL);
    if (v->kept_tree.size < v->kept.size)
        return ERR_OK;
    merkle_frontier_root(&v->kept_tree, root);
    if (memcmp(root, v->kept.root, sizeof root) != 0) {
        hex_encode(root, sizeof root, here);
        hex_encode(v->kept.root, sizeof v->kept.root, there);
        return bad_record(v, record->seq,
                          "the first %" PRIu64 " records give the root %s, but the checkpoint that "
                          "was kept says %s: this ledger was written anew",
                          v->kept.size, here, there);
    }
    v->report->against_records = v->kept.size;
    return ERR_OK;
}

static enum err record_take(struct verifier *v, const struct record_ledger *record)
{
    v->adds = (struct ledger_totals){.records = 1};
    enum err e = rules_check(v, record);
    if (e == ERR_OK)
        e = recent_add(v);
    if (e == ERR_OK)
        e = kept_compare(v, record);
    if (e == ERR_OK)
        totals_add(&v->report->read, &v->adds);
    return e;
}

/* Nearly every line is byte for byte as we write it: then its named fields are the packed record's
 * by comparison of text, and there is nothing to parse. False for any other line; what is wrong
 * with it, if anything, record_read finds. */
static bool line_is_ours(struct verifier *v, struct record_ledger *ret_record)
{
    static const char start[] = "\"raw\":";
    if (v->line_size < 2 || memcmp(v->line + v->line_size - 2, "\"}", 2) != 0)
        return false;
    const char *end = v->line + v->line_size - 2;
    const char *raw = memrchr(v->line, '"', v->line_size - 2);
    if (raw == NULL || (size_t)(raw - v->line) < strlen(start) ||
        memcmp(raw - strlen(start), start, strlen(start)) != 0 ||
        !base64_decode(raw + 1, (size_t)(end - raw) - 1, &v->raw))
        return false;
    arena_reset(&v->arena);
    buf_clear(&v->again);
    return record_ledger_decode(v->raw.data, v->raw.size, &v->arena, ret_record, NULL) == ERR_OK &&
           ledger_export_decoded(&v->again, ret_record, v->raw.data, v->raw.size, NULL) == ERR_OK &&
           v->again.size == v->line_size + 1 && memcmp(v->again.data, v->line, v->line_size) == 0;
}

static enum err record_read(struct verifier *v, const json_t *object)
{
    struct record_ledger record;
    const char *raw = text_member(object, "raw");

    if (raw == NULL || !base64_decode(raw, strlen(raw), &v->raw))
        return v->raw.failed ? no_memory(v) : bad_line(v, "\"raw\" is not base64");
    arena_reset(&v->arena);
    enum err e = record_ledger_decode(v->raw.data, v->raw.size, &v->arena, &record, v->eb);
    if (e == ERR_NO_MEMORY)
        return e;
    if (e != ERR_OK)
        return bad_line(v, "\"raw\": %s", v->eb->text);
    e = fields_check(v, object, &record);
    return e == ERR_OK ? record_take(v, &record) : e;
}

/* ---- last line ---- */

/* Root of the first `size` records, which `base` ends with afterwards. */
static enum err root_at(struct verifier *v, uint64_t size, uint8_t ret_root[SHA256_BYTES])
{
    if (size < v->base.size)
        return bad_line(v,
                        "the checkpoint covers %" PRIu64 " of %" PRIu64 " records, and more than "
                        "%u unsigned ones cannot be checked: export again, newly signed",
                        size, v->report->read.records, LEDGER_EXPORT_UNSIGNED_MAX);
    while (v->base.size < size)
        recent_shift(v);
    merkle_frontier_root(&v->base, ret_root);
    return ERR_OK;
}

static enum err keys_check(struct verifier *v, uint64_t size)
{
    const struct key_seen *last = NULL;
    for (size_t i = 0; i < v->n_keys; i++) {
        if (v->keys[i].seq < size)
            last = &v->keys[i];
    }
    if (last == NULL || memcmp(last->public_key, v->report->public_key, ED25519_PUBLIC_BYTES) == 0)
        return ERR_OK;
    v->line_number = last->line;
    return bad_record(v, last->seq, "names another key than the one that signed the checkpoint");
}

static enum err checkpoint_read(struct verifier *v, const json_t *object)
{
    const char *text = text_member(object, "checkpoint");
    const json_t *size = json_object_get(object, "size");
    uint8_t root[SHA256_BYTES], named_root[SHA256_BYTES];
    char here[SHA256_HEX_BYTES], there[SHA256_HEX_BYTES];
    struct note note;
    struct errbuf why = {{0}};

    if (text == NULL || json_object_size(object) != 3)
        return bad_line(v, "malformed checkpoint line: checkpoint, size and root are needed, and "
                           "nothing else");
    if (note_open(text, v->report->public_key, &note, &why) != ERR_OK)
        return bad_line(v, "%s", why.text);
    if (strcmp(note.origin, v->report->origin) != 0)
        return bad_line(v, "the checkpoint is of \"%s\", the file of \"%s\"", note.origin,
                        v->report->origin);
    if (!json_is_integer(size) || json_integer_value(size) < 0 ||
        (uint64_t)json_integer_value(size) != note.size)
        return bad_line(v, "\"size\" is not the %" PRIu64 " of the checkpoint", note.size);
    if (!hex_member(object, "root", named_root, sizeof named_root) ||
        memcmp(named_root, note.root, sizeof note.root) != 0)
        return bad_line(v, "\"root\" is not the one of the checkpoint");
    if (v->kept.size > v->report->read.records)
        return bad_line(v,
                        "the checkpoint that was kept covers %" PRIu64 " records, the file has "
                        "%" PRIu64 ": some were removed, or this is an older export",
                        v->kept.size, v->report->read.records);
    if (note.size == 0)
        return bad_line(v, "the checkpoint is over no record: nothing is signed");
    if (note.size > v->report->read.records)
        return bad_line(v,
                        "%" PRIu64 " records were signed, the file has %" PRIu64
                        ": some are missing at its end",
                        note.size, v->report->read.records);
    enum err e = root_at(v, note.size, root);
    if (e != ERR_OK)
        return e;
    memcpy(v->report->root, root, sizeof root);
    if (memcmp(root, note.root, sizeof root) != 0) {
        hex_encode(root, sizeof root, here);
        hex_encode(note.root, sizeof note.root, there);
        return bad_line(v, "the records give the root %s, but %s was signed", here, there);
    }
    e = keys_check(v, note.size);
    if (e == ERR_OK)
        v->report->verified = v->base_totals;
    return e;
}

static enum err verify(struct verifier *v)
{
    bool ended = false;
    enum err e = header_read(v);

    while (e == ERR_OK) {
        struct record_ledger record;
        json_t *object = NULL;
        e = line_read(v);
        if (e == ERR_NOT_FOUND)
            return ended ? ERR_OK
                         : bad_line(v, "no checkpoint line: the file was cut or never signed");
        if (e == ERR_OK && ended)
            e = bad_line(v, "there is a line behind the checkpoint");
        if (e == ERR_OK && line_is_ours(v, &record)) {
            e = record_take(v, &record);
            continue;
        }
        if (e == ERR_OK)
            e = line_parse(v, &object);
        if (e != ERR_OK)
            return e;
        if (json_object_get(object, "raw") != NULL) {
            e = record_read(v, object);
        } else if (json_object_get(object, "checkpoint") != NULL) {
            e = checkpoint_read(v, object);
            ended = true;
        } else {
            e = bad_line(v, "neither a record nor a checkpoint");
        }
        json_decref(object);
    }
    return e;
}

enum err ledger_verify_jsonl(FILE *in, const struct ledger_verify_options *options,
                             struct ledger_verify_report *ret_report, struct errbuf *eb)
{
    static const struct ledger_verify_options none;
    struct errbuf own = {{0}};
    struct verifier v = {.in = in,
                         .options = options != NULL ? options : &none,
                         .report = ret_report,
                         .eb = eb != NULL ? eb : &own};

    *ret_report = (struct ledger_verify_report){0};
    ret_report->key_was_given = v.options->public_key != NULL;
    arena_init(&v.arena, LIMIT_DECODE_BYTES);
    buf_init(&v.raw);
    buf_init(&v.again);
    reservations_init(&v.reservations);
    merkle_frontier_init(&v.base);
    merkle_frontier_init(&v.kept_tree);
    enum err e = verify(&v);
    if (e != ERR_OK)
        ret_report->verified = (struct ledger_totals){0};
    free(v.line);
    free(v.recent);
    free(v.keys);
    reservations_fini(&v.reservations);
    meters_fini(&v.meters);
    buf_fini(&v.again);
    buf_fini(&v.raw);
    arena_fini(&v.arena);
    return e;
}
