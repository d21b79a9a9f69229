/*
 * The exported file and its check: what a good file says, and that every way of bending it is
 * named by line and seq. Files are made by hand here, and signed by a signer who would sign
 * anything, so that a rule that is broken is found by its check and not by the signature.
 */
#include "tests/unit/ledger/ledger_test.h"

#include "coordinator/ledger/export.h"
#include "coordinator/ledger/merkle.h"
#include "coordinator/ledger/note.h"
#include "proto/wire.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char origin[] = "cloister.example/ledger";

struct file {
    struct crypto_key *key;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    struct merkle_frontier tree;
    struct buf text;
};

static void file_open(struct file *f)
{
    struct errbuf eb = {{0}};
    *f = (struct file){0};
    assert_err(crypto_key_new(&f->key, &eb), ERR_OK, &eb);
    crypto_key_public(f->key, f->public_key);
    ledger_export_header(&f->text, origin, f->public_key);
}

/* The record as it is, seq and schema included. */
static void file_record(struct file *f, const struct record_ledger *record)
{
    struct errbuf eb = {{0}};
    uint8_t leaf[SHA256_BYTES];
    struct buf packed;

    buf_init(&packed);
    assert_err(record_ledger_encode(record, &packed, &eb), ERR_OK, &eb);
    merkle_leaf_hash(packed.data, packed.size, leaf);
    assert_int_equal(merkle_frontier_append(&f->tree, leaf, NULL, NULL, NULL), ERR_OK);
    assert_err(ledger_export_decoded(&f->text, record, packed.data, packed.size, &eb), ERR_OK, &eb);
    buf_fini(&packed);
}

/* With the number that comes next. */
static void file_append(struct file *f, struct record_ledger record)
{
    record.seq = f->tree.size;
    record.schema = RECORD_LEDGER_SCHEMA;
    file_record(f, &record);
}

static void file_note(struct file *f, char ret_text[NOTE_TEXT_BYTES])
{
    struct errbuf eb = {{0}};
    struct note note = {0};
    memcpy(note.origin, origin, sizeof origin);
    note.size = f->tree.size;
    merkle_frontier_root(&f->tree, note.root);
    assert_err(note_sign(&note, f->key, ret_text, &eb), ERR_OK, &eb);
}

static void file_checkpoint(struct file *f)
{
    char text[NOTE_TEXT_BYTES];
    file_note(f, text);
    ledger_export_checkpoint(&f->text, text);
}

static void file_close(struct file *f)
{
    crypto_key_free(f->key);
    buf_fini(&f->text);
}

/* RESERVE 0, RESERVE 1, SETTLE of 1, SETTLE of 0, and the checkpoint: lines 2 to 6. */
static void file_small(struct file *f)
{
    file_open(f);
    file_append(f, ledger_test_reserve(0));
    file_append(f, ledger_test_reserve(1));
    file_append(f, ledger_test_settle(1, 1));
    file_append(f, ledger_test_settle(0, 0));
    file_checkpoint(f);
}

static enum err verify_text(const char *text, size_t size,
                            const struct ledger_verify_options *options,
                            struct ledger_verify_report *ret_report, struct errbuf *eb)
{
    FILE *in = size > 0 ? fmemopen((void *)(uintptr_t)text, size, "r") : fopen("/dev/null", "r");
    assert_non_null(in);
    enum err e = ledger_verify_jsonl(in, options, ret_report, eb);
    fclose(in);
    return e;
}

static void assert_refused(const char *name, const struct buf *text,
                           const struct ledger_verify_options *options, uint64_t line,
                           const char *reason)
{
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    enum err e = verify_text(buf_str(text), text->size, options, &report, &eb);
    if (e != ERR_CORRUPT || report.bad_line != line || strstr(eb.text, reason) == NULL)
        fail_msg("%s: %s at line %llu: \"%s\"; expected line %llu: \"%s\"", name, err_name(e),
                 (unsigned long long)report.bad_line, eb.text, (unsigned long long)line, reason);
}

/* ---- good files ---- */

static void good_file_is_read_to_its_totals(void **state)
{
    (void)state;
    struct file f;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    uint8_t root[SHA256_BYTES];

    file_small(&f);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    merkle_frontier_root(&f.tree, root);
    assert_memory_equal(report.root, root, sizeof root);
    assert_memory_equal(report.public_key, f.public_key, sizeof report.public_key);
    assert_string_equal(report.origin, origin);
    assert_int_equal(report.read.records, 4);
    assert_int_equal(report.verified.records, 4);
    assert_int_equal(report.verified.reserves, 2);
    assert_int_equal(report.verified.settles, 2);
    assert_int_equal(report.verified.open_reservations, 0);
    assert_int_equal(report.verified.prompt_tokens, 40 + 41);
    assert_int_equal(report.verified.completion_billable, 120);
    assert_int_equal(report.verified.completion_computed, 60 + 61);
    assert_int_equal(report.verified.completion_delivered, 120);
    assert_int_equal(report.bad_line, 0);
    assert_false(report.key_was_given);

    struct ledger_verify_options options = {.public_key = f.public_key, .origin = origin};
    assert_err(verify_text(buf_str(&f.text), f.text.size, &options, &report, &eb), ERR_OK, &eb);
    assert_true(report.key_was_given);
    /* A file whose last newline was lost says the same. */
    assert_err(verify_text(buf_str(&f.text), f.text.size - 1, NULL, &report, &eb), ERR_OK, &eb);
    file_close(&f);
}

static void ledger_of_a_store_verifies_with_an_unsigned_tail(void **state)
{
    (void)state;
    struct ledger_test t;
    struct buf out;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    uint8_t root[SHA256_BYTES];

    buf_init(&out);
    ledger_test_open(&t, STORE_TEST_MEM);
    ledger_test_fill(&t, 0, 40);
    ledger_root(t.ledger, root);
    assert_err(ledger_checkpoint_sign(t.ledger, &eb), ERR_OK, &eb);
    struct record_ledger open = ledger_test_reserve(77);
    ledger_test_fill(&t, 40, 8);
    ledger_test_append(&t, &open, 1);
    ledger_test_export(&t, &out);
    assert_err(verify_text(buf_str(&out), out.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.read.records, 97);
    assert_int_equal(report.verified.records, 80);
    assert_memory_equal(report.root, root, sizeof root);
    assert_int_equal(report.verified.reserves, 40);
    assert_int_equal(report.verified.settles, 30);
    assert_int_equal(report.verified.voids, 10);
    assert_int_equal(report.verified.open_reservations, 0);
    assert_int_equal(report.verified.reserved_open_tokens, 0);
    assert_int_equal(report.read.reserves, 49);
    assert_int_equal(report.read.settles, 36);
    assert_int_equal(report.read.voids, 12);
    assert_int_equal(report.read.open_reservations, 1);
    assert_int_equal(report.read.reserved_open_tokens, 150 + 77 % 7);
    ledger_test_close(&t);
    buf_fini(&out);
}

static void line_names_every_field(void **state)
{
    (void)state;
    struct file f;
    json_error_t error;
    file_small(&f);
    const char *line = strchr(strchr(strchr(buf_str(&f.text), '\n') + 1, '\n') + 1, '\n') + 1;
    json_t *o = json_loadb(line, strcspn(line, "\n"), 0, &error);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "seq")), 2);
    assert_string_equal(json_string_value(json_object_get(o, "kind")), "SETTLE");
    assert_string_equal(json_string_value(json_object_get(o, "tenant")), "légal \"x\"");
    assert_string_equal(json_string_value(json_object_get(o, "seed")), "18446744073709551614");
    assert_string_equal(json_string_value(json_object_get(o, "finish")), "stop");
    assert_string_equal(json_string_value(json_object_get(o, "outcome")), "done");
    assert_string_equal(json_string_value(json_object_get(o, "count_source")), "ENGINE");
    assert_string_equal(json_string_value(json_object_get(o, "prompt_hash")), "");
    assert_int_equal(json_string_length(json_object_get(o, "output_hash")), 64);
    assert_int_equal(json_integer_value(json_object_get(o, "reserve_seq")), 2);
    assert_int_equal(json_object_size(o), 43); /* 42 fields and raw */
    json_decref(o);
    file_close(&f);
}

/* Somebody who has the file, but not the key, adds a job that was never run. */
static void records_behind_the_checkpoint_are_in_no_total_that_is_verified(void **state)
{
    (void)state;
    struct file f;
    char note[NOTE_TEXT_BYTES];
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};

    file_open(&f);
    file_append(&f, ledger_test_reserve(0));
    file_append(&f, ledger_test_reserve(1));
    file_append(&f, ledger_test_settle(1, 1));
    file_note(&f, note);
    file_append(&f, ledger_test_settle(0, 0));
    file_append(&f, ledger_test_reserve(2));
    file_append(&f, ledger_test_settle(2, 4));
    ledger_export_checkpoint(&f.text, note);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.records, 3);
    assert_int_equal(report.verified.reserves, 2);
    assert_int_equal(report.verified.settles, 1);
    assert_int_equal(report.verified.open_reservations, 1);
    assert_int_equal(report.verified.reserved_open_tokens, 150);
    assert_int_equal(report.verified.prompt_tokens, 41);
    assert_int_equal(report.verified.completion_billable, 60);
    assert_int_equal(report.verified.completion_computed, 61);
    assert_int_equal(report.verified.completion_delivered, 60);
    assert_int_equal(report.read.records, 6);
    assert_int_equal(report.read.settles, 3);
    assert_int_equal(report.read.open_reservations, 0);
    assert_int_equal(report.read.prompt_tokens, 40 + 41 + 42);
    assert_int_equal(report.read.completion_billable, 180);
    file_close(&f);
}

static void checkpoint_over_nothing_signs_nothing(void **state)
{
    (void)state;
    struct file f;
    char note[NOTE_TEXT_BYTES];
    file_open(&f);
    file_note(&f, note);
    ledger_export_checkpoint(&f.text, note);
    assert_refused("empty ledger", &f.text, NULL, 2, "over no record: nothing is signed");
    file_close(&f);
    file_open(&f);
    file_note(&f, note);
    file_append(&f, ledger_test_reserve(0));
    ledger_export_checkpoint(&f.text, note);
    assert_refused("all records behind it", &f.text, NULL, 3, "over no record: nothing is signed");
    file_close(&f);
}

/* What `cloister usage` bills: the record of a job that failed says what was computed, and owes
 * nothing. */
static void prompts_are_billed_by_outcome(void **state)
{
    (void)state;
    static const struct {
        uint32_t outcome;
        bool owed;
    } cases[] = {
        {WIRE_JOB_STATE_DONE, true},      {WIRE_JOB_STATE_CANCELLED, true},
        {WIRE_JOB_STATE_EXPIRED, true},   {WIRE_JOB_STATE_FAILED, false},
        {WIRE_JOB_STATE_REJECTED, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file f;
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        struct record_ledger r = ledger_test_settle(0, 0);
        r.outcome = cases[i].outcome;
        r.completion_billable = cases[i].owed ? 60 : 0;
        file_open(&f);
        file_append(&f, ledger_test_reserve(0));
        file_append(&f, r);
        file_checkpoint(&f);
        assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
        assert_int_equal(report.verified.prompt_tokens, cases[i].owed ? 40 : 0);
        assert_int_equal(report.verified.completion_billable, cases[i].owed ? 60 : 0);
        assert_int_equal(report.verified.completion_computed, 60);
        file_close(&f);
    }
}

/* Reservations in an order of their own, many open at once, each ended once. */
static void many_reservations_are_followed(void **state)
{
    (void)state;
    enum { JOBS = 3000 };
    struct file f;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    uint64_t seed = 5, *open = calloc(JOBS, sizeof *open), *job = calloc(JOBS, sizeof *job);
    size_t n_open = 0, made = 0;
    uint64_t prompt = 0, billable = 0, computed = 0;

    assert_true(open != NULL && job != NULL);
    file_open(&f);
    while (made < JOBS || n_open > 0) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if (made < JOBS && (n_open == 0 || (seed >> 60) < 9)) {
            open[n_open] = f.tree.size;
            job[n_open++] = made;
            file_append(&f, ledger_test_reserve(made++));
        } else {
            size_t i = (size_t)(seed >> 20) % n_open;
            struct record_ledger r = ledger_test_settle(job[i], open[i]);
            prompt += r.prompt_tokens;
            billable += r.completion_billable;
            computed += r.completion_computed;
            file_append(&f, r);
            open[i] = open[--n_open];
            job[i] = job[n_open];
        }
    }
    file_checkpoint(&f);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.settles, JOBS);
    assert_int_equal(report.verified.open_reservations, 0);
    assert_int_equal(report.verified.prompt_tokens, prompt);
    assert_int_equal(report.verified.completion_billable, billable);
    assert_int_equal(report.verified.completion_computed, computed);
    file_close(&f);
    free(open);
    free(job);
}

/* ---- records that break a rule, well signed ---- */

static struct record_ledger key_record(const uint8_t public_key[ED25519_PUBLIC_BYTES])
{
    struct record_ledger r = {.kind = RECORD_LEDGER_KEY,
                              .node = "c",
                              .tenant = "",
                              .project = "",
                              .cost_center = "",
                              .principal = "",
                              .model = "",
                              .engine_build = "",
                              .quantization = "",
                              .worker = ""};
    memcpy(r.public_key, public_key, sizeof r.public_key);
    return r;
}

struct rule_case {
    const char *name;
    /* Changes the record of line 4, seq 2: the SETTLE of job 1 in file_small. */
    void (*bend)(struct record_ledger *r);
    const char *reason;
};

#define BEND(name, statement)                                                                      \
    static void bend_##name(struct record_ledger *r)                                               \
    {                                                                                              \
        statement;                                                                                 \
    }
BEND(no_reservation, r->reserve_seq = 0)
BEND(future, r->reserve_seq = 4)
BEND(itself, r->reserve_seq = 3)
BEND(job, r->job_id.bytes[3] ^= 1)
BEND(tenant, r->tenant = "another")
BEND(model, r->model = "another")
BEND(reserved, r->reserved_tokens += 1)
BEND(source, r->count_source = RECORD_COUNT_SOURCE_UNSPECIFIED)
BEND(cached, r->prompt_cached = r->prompt_tokens + 1)
BEND(delivered, r->completion_delivered = r->completion_computed + 1)
BEND(billable, r->completion_billable = r->completion_computed + 1)
BEND(billable_max, (r->completion_computed = 101, r->completion_billable = 101))
BEND(prompt, (r->prompt_tokens = 95))
BEND(prompt_huge, (r->prompt_tokens = INT64_MAX))
BEND(void_bills, r->kind = RECORD_LEDGER_VOID)
BEND(expire_bills, r->kind = RECORD_LEDGER_EXPIRE)
BEND(failed_bills, r->outcome = WIRE_JOB_STATE_FAILED)
BEND(policy, r->policy_id = 2)
BEND(schema, r->schema = 2)
BEND(late, r->seq = 3)
BEND(early, r->seq = 1)
BEND(second_reserve, (r->kind = RECORD_LEDGER_RESERVE))
BEND(key_empty, (r->kind = RECORD_LEDGER_KEY))

static void broken_rules_are_named_by_line_and_seq(void **state)
{
    (void)state;
    static const struct rule_case cases[] = {
        {"settle without reserve", bend_no_reservation,
         "line 4, seq 2: SETTLE without a reservation"},
        {"reserve that comes later", bend_future,
         "line 4, seq 2: SETTLE of seq 3, which is no RESERVE"},
        {"its own reserve", bend_itself, "line 4, seq 2: SETTLE of seq 2, which is no RESERVE"},
        {"another job", bend_job, "another job, tenant or model than its RESERVE, seq 1"},
        {"another tenant", bend_tenant, "another job, tenant or model"},
        {"another model", bend_model, "another job, tenant or model"},
        {"another reserved amount", bend_reserved,
         "says 152 tokens were reserved, seq 1 reserved 151"},
        {"not counted by the engine", bend_source, "not counted by the engine"},
        {"more cached than there are", bend_cached, "42 cached of 41 prompt tokens"},
        {"more delivered than computed", bend_delivered, "62 tokens delivered, 61 computed"},
        {"more billable than computed", bend_billable, "62 tokens billable, 61 computed"},
        {"more billable than max_tokens", bend_billable_max,
         "101 billable tokens of max_tokens 100"},
        {"more owed than reserved", bend_prompt,
         "95 prompt and 60 billable tokens, but seq 1 reserved 151"},
        {"sum beyond 64 bits", bend_prompt_huge, "but seq 1 reserved 151"},
        {"void that bills", bend_void_bills, "VOID with 60 billable tokens"},
        {"expire that bills", bend_expire_bills, "EXPIRE with 60 billable tokens"},
        {"failure that bills", bend_failed_bills, "60 billable tokens of a job that failed"},
        {"policy of the future", bend_policy, "decided by policy 2, this program knows 1"},
        {"schema of the future", bend_schema, "a record of schema 2"},
        {"gap", bend_late, "line 4, seq 3: 1 records are missing before it, from seq 2 on"},
        {"number used before", bend_early,
         "line 4, seq 1: comes a second time or out of order, seq 2"},
        {"reserve that names one", bend_second_reserve, "RESERVE that names a reservation (1)"},
        {"key record without a key", bend_key_empty, "KEY without a public key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file f;
        struct record_ledger r = ledger_test_settle(1, 1);
        file_open(&f);
        file_append(&f, ledger_test_reserve(0));
        file_append(&f, ledger_test_reserve(1));
        r.seq = 2;
        r.schema = RECORD_LEDGER_SCHEMA;
        cases[i].bend(&r);
        file_record(&f, &r);
        file_append(&f, ledger_test_settle(0, 0));
        file_checkpoint(&f);
        assert_refused(cases[i].name, &f.text, NULL, 4, cases[i].reason);
        file_close(&f);
    }
}

static void reservation_is_ended_once(void **state)
{
    (void)state;
    struct file f;
    file_open(&f);
    file_append(&f, ledger_test_reserve(0));
    file_append(&f, ledger_test_settle(0, 0));
    struct record_ledger again = ledger_test_settle(0, 0);
    again.kind = RECORD_LEDGER_VOID;
    again.completion_billable = 0;
    file_append(&f, again);
    file_checkpoint(&f);
    assert_refused("double end", &f.text, NULL, 4,
                   "line 4, seq 2: VOID of seq 0, which was ended before");
    file_close(&f);
}

static void reserve_must_make_sense(void **state)
{
    (void)state;
    static const char *const reasons[] = {"without job, tenant or model", "of 99 tokens for",
                                          "counts tokens"};
    for (int i = 0; i < 3; i++) {
        struct file f;
        struct record_ledger r = ledger_test_reserve(0);
        if (i == 0)
            r.tenant = "";
        if (i == 1)
            r.reserved_tokens = 99;
        if (i == 2)
            r.completion_computed = 1;
        file_open(&f);
        file_append(&f, r);
        file_checkpoint(&f);
        assert_refused(reasons[i], &f.text, NULL, 2, reasons[i]);
        file_close(&f);
    }
}

static void key_record_must_name_the_signer(void **state)
{
    (void)state;
    uint8_t other[ED25519_PUBLIC_BYTES];
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    struct file f;

    memset(other, 7, sizeof other);
    file_open(&f);
    file_append(&f, key_record(other)); /* a key of the past */
    file_append(&f, key_record(f.public_key));
    file_append(&f, ledger_test_reserve(0));
    file_checkpoint(&f);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.keys, 2);
    file_close(&f);

    file_open(&f);
    file_append(&f, key_record(f.public_key));
    file_append(&f, key_record(other));
    file_append(&f, ledger_test_reserve(0));
    file_checkpoint(&f);
    assert_refused("key of another", &f.text, NULL, 3,
                   "line 3, seq 1: names another key than the one that signed");
    file_close(&f);
}

/* ---- files that were changed after signing ---- */

/* `f`'s text as lines, to be put together in another way. */
struct lines {
    const char *start[16];
    size_t size[16];
    size_t n;
};

static struct lines lines_of(const struct buf *text)
{
    struct lines l = {.n = 0};
    for (const char *p = buf_str(text); *p != '\0'; p += l.size[l.n++]) {
        l.start[l.n] = p;
        l.size[l.n] = strcspn(p, "\n") + 1;
    }
    return l;
}

static void lines_missing_doubled_or_moved_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int order[8]; /* lines of file_small by number; 0 ends */
        uint64_t line;
        const char *reason;
    } cases[] = {
        {"no header", {2, 3, 4, 5, 6}, 1, "not a ledger export"},
        {"first record missing", {1, 3, 4, 5, 6}, 2, "seq 1: 1 records are missing before it"},
        {"record missing",
         {1, 2, 3, 5, 6},
         4,
         "seq 3: 1 records are missing before it, from seq 2"},
        {"last record missing", {1, 2, 3, 4, 6}, 5, "4 records were signed, the file has 3"},
        {"record doubled", {1, 2, 3, 3, 4, 5, 6}, 4, "seq 1: comes a second time"},
        {"last record doubled", {1, 2, 3, 4, 5, 5, 6}, 6, "seq 3: comes a second time"},
        {"records swapped", {1, 3, 2, 4, 5, 6}, 2, "seq 1: 1 records are missing"},
        {"no checkpoint",
         {1, 2, 3, 4, 5},
         6,
         "no checkpoint line: the file was cut or never signed"},
        {"header only", {1}, 2, "no checkpoint line"},
        {"two checkpoints", {1, 2, 3, 4, 5, 6, 6}, 7, "there is a line behind the checkpoint"},
        {"record behind the checkpoint", {1, 2, 3, 4, 6, 5}, 5, "4 records were signed"},
        {"two headers", {1, 1, 2, 3, 4, 5, 6}, 2, "neither a record nor a checkpoint"},
    };
    struct file f;
    file_small(&f);
    struct lines l = lines_of(&f.text);
    assert_int_equal(l.n, 6);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text;
        buf_init(&text);
        for (int k = 0; k < 8 && cases[i].order[k] != 0; k++)
            buf_append(&text, l.start[cases[i].order[k] - 1], l.size[cases[i].order[k] - 1]);
        assert_refused(cases[i].name, &text, NULL, cases[i].line, cases[i].reason);
        buf_fini(&text);
    }
    struct buf empty;
    buf_init(&empty);
    assert_refused("empty file", &empty, NULL, 1, "the file is empty");
    file_close(&f);
}

/* Replaces the first `from` in line `line` by `to`. */
static void line_edit(const struct buf *text, size_t line, const char *from, const char *to,
                      struct buf *out)
{
    struct lines l = lines_of(text);
    for (size_t i = 0; i < l.n; i++) {
        const char *at = i + 1 == line ? memmem(l.start[i], l.size[i], from, strlen(from)) : NULL;
        if (i + 1 == line)
            assert_non_null(at);
        if (at == NULL) {
            buf_append(out, l.start[i], l.size[i]);
            continue;
        }
        buf_append(out, l.start[i], (size_t)(at - l.start[i]));
        buf_append_str(out, to);
        at += strlen(from);
        buf_append(out, at, (size_t)(l.start[i] + l.size[i] - at));
    }
}

static void edited_lines_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t line;
        const char *from, *to;
        const char *reason;
    } cases[] = {
        {"count", 4, "\"completion_billable\":60", "\"completion_billable\":50",
         "line 4, seq 2: \"completion_billable\" is 60 in the packed record, but another in the "
         "line"},
        {"real for integer", 4, "\"completion_billable\":60", "\"completion_billable\":60.0",
         "\"completion_billable\" is 60"},
        {"tenant", 3, "\\\"x\\\"", "y", "\"tenant\" is \"légal \\\"x\\\"\" in the packed record"},
        {"seq", 3, "\"seq\":1", "\"seq\":7", "seq 1: \"seq\" is 1 in the packed record"},
        {"field renamed", 3,
         "\"worker\":", "\"Worker\":", "\"worker\" is \"\" in the packed record, but not there"},
        {"field added", 3, "{", "{\"note\":\"paid\",",
         "members that the packed record does not give"},
        {"member twice", 3, "{", "{\"seq\":1,", "duplicate"},
        {"raw is not base64", 3, "\"raw\":\"", "\"raw\":\"*", "\"raw\" is not base64"},
        {"raw in URL letters", 2, "\"raw\":\"", "\"raw\":\"_-", "\"raw\" is not base64"},
        {"raw is no text", 3, "\"raw\":\"", "\"raw\":1,\"x\":\"", "\"raw\" is not base64"},
        {"not JSON", 3, "{", "", "not JSON"},
        {"not an object", 3, "{", "[{", "not JSON"},
        {"blank line", 3, "{", "\n{", "not JSON"},
        {"version", 1, "\"cloister_ledger\":1", "\"cloister_ledger\":2",
         "an export of version 2, this program reads 1"},
        {"origin", 1, "cloister.example", "cloister.exampel", "not signed by the key"},
        {"header with more", 1, "{", "{\"a\":1,", "malformed header"},
        {"checkpoint size", 6, "\"size\":4", "\"size\":3",
         "\"size\" is not the 4 of the checkpoint"},
        {"checkpoint with more", 6, "{", "{\"a\":1,", "malformed checkpoint line"},
    };
    struct file f;
    file_small(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text;
        buf_init(&text);
        line_edit(&f.text, cases[i].line, cases[i].from, cases[i].to, &text);
        /* A changed origin shows where the signature is: in the last line. */
        bool at_end = strcmp(cases[i].name, "origin") == 0;
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        enum err e = verify_text(buf_str(&text), text.size, NULL, &report, &eb);
        (void)e;
        assert_refused(cases[i].name, &text, NULL, at_end ? 6 : cases[i].line,
                       at_end ? "the checkpoint is of \"cloister.example/ledger\""
                              : cases[i].reason);
        buf_fini(&text);
    }
    file_close(&f);
}

/* A record replaced whole, named fields and raw agreeing, all rules kept: the root tells. */
static void forged_record_gives_another_root(void **state)
{
    (void)state;
    struct file f, forged;
    struct buf text;

    file_small(&f);
    file_open(&forged);
    file_append(&forged, ledger_test_reserve(0));
    file_append(&forged, ledger_test_reserve(1));
    struct record_ledger r = ledger_test_settle(1, 1);
    r.completion_billable = 10;
    file_append(&forged, r);
    struct lines good = lines_of(&f.text), bad = lines_of(&forged.text);
    buf_init(&text);
    for (size_t i = 0; i < good.n; i++) {
        bool swap = i == 3;
        buf_append(&text, swap ? bad.start[i] : good.start[i], swap ? bad.size[i] : good.size[i]);
    }
    assert_refused("forged", &text, NULL, 6, "the records give the root");
    buf_fini(&text);
    file_close(&f);
    file_close(&forged);
}

static void trusted_key_and_origin_are_asked_for(void **state)
{
    (void)state;
    struct file f;
    uint8_t other[ED25519_PUBLIC_BYTES] = {1};
    file_small(&f);
    struct ledger_verify_options key = {.public_key = other};
    assert_refused("key", &f.text, &key, 1, "not the one that was given as trusted");
    struct ledger_verify_options name = {.origin = "someone.else"};
    assert_refused("origin", &f.text, &name, 1, "not of \"someone.else\"");
    file_close(&f);
}

/* Who kept a checkpoint sees that the ledger still begins with what it covered. */
static void ledger_is_compared_with_a_checkpoint_that_was_kept(void **state)
{
    (void)state;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    char kept[NOTE_TEXT_BYTES], rewritten[NOTE_TEXT_BYTES], later[NOTE_TEXT_BYTES];
    char foreign[NOTE_TEXT_BYTES], empty[NOTE_TEXT_BYTES];
    struct file f, anew, other;

    file_open(&f);
    file_note(&f, empty);
    file_append(&f, ledger_test_reserve(0));
    file_append(&f, ledger_test_reserve(1));
    file_note(&f, kept);
    file_append(&f, ledger_test_settle(1, 1));
    file_checkpoint(&f);

    /* The same key signs another beginning; a longer log; another key. */
    file_open(&anew);
    crypto_key_free(anew.key);
    anew.key = f.key;
    file_append(&anew, ledger_test_reserve(0));
    file_append(&anew, ledger_test_reserve(2));
    file_note(&anew, rewritten);
    file_append(&anew, ledger_test_reserve(3));
    file_append(&anew, ledger_test_reserve(4));
    file_note(&anew, later);
    file_open(&other);
    file_append(&other, ledger_test_reserve(0));
    file_note(&other, foreign);

    struct ledger_verify_options options = {.against = kept};
    assert_err(verify_text(buf_str(&f.text), f.text.size, &options, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.against_records, 2);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.against_records, 0);

    options.against = rewritten;
    assert_refused("written anew", &f.text, &options, 3, "this ledger was written anew");
    options.against = later;
    assert_refused("cut", &f.text, &options, 5, "covers 4 records, the file has 3");
    options.against = foreign;
    assert_refused("another key", &f.text, &options, 1, "is not one of this ledger");
    options.against = empty;
    assert_refused("empty", &f.text, &options, 1, "covers no records");
    options.against = "no note";
    assert_refused("no note", &f.text, &options, 1, "is not one of this ledger");
    anew.key = NULL;
    file_close(&anew);
    file_close(&other);
    file_close(&f);
}

static void file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct file f;
    file_small(&f);
    for (size_t size = 0; size < f.text.size - 1; size++) {
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        enum err e = verify_text(buf_str(&f.text), size, NULL, &report, &eb);
        if (e != ERR_CORRUPT || report.bad_line == 0)
            fail_msg("cut after %zu bytes: %s", size, err_name(e));
    }
    file_close(&f);
}

/* Whether both texts hold the same JSON, line by line. */
static bool same_json(const char *a, const char *b)
{
    while (*a != '\0' || *b != '\0') {
        size_t size_a = strcspn(a, "\n"), size_b = strcspn(b, "\n");
        json_t *x = json_loadb(a, size_a, 0, NULL), *y = json_loadb(b, size_b, 0, NULL);
        bool same = x != NULL && y != NULL && json_equal(x, y);
        json_decref(x);
        json_decref(y);
        if (!same)
            return false;
        a += size_a + (a[size_a] == '\n');
        b += size_b + (b[size_b] == '\n');
    }
    return true;
}

static void every_flipped_bit_is_found_or_changes_nothing(void **state)
{
    (void)state;
    struct file f;
    size_t harmless = 0;

    file_open(&f);
    file_append(&f, ledger_test_reserve(1));
    file_append(&f, ledger_test_settle(1, 0));
    file_checkpoint(&f);
    char *text = strdup(buf_str(&f.text));
    assert_non_null(text);
    for (size_t i = 0; i < f.text.size; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct ledger_verify_report report;
            struct errbuf eb = {{0}};
            text[i] = (char)(text[i] ^ (1 << bit));
            enum err e = verify_text(text, f.text.size, NULL, &report, &eb);
            if (e == ERR_OK && !same_json(text, buf_str(&f.text)))
                fail_msg("byte %zu bit %u (now '%c') went unnoticed", i, bit, text[i]);
            assert_true(e == ERR_OK || e == ERR_CORRUPT);
            assert_true(e == ERR_OK || (report.bad_line > 0 && eb.text[0] != '\0'));
            harmless += e == ERR_OK;
            text[i] = (char)(text[i] ^ (1 << bit));
        }
    }
    print_message("%zu bits flipped, %zu of them without meaning\n", f.text.size * 8, harmless);
    free(text);
    file_close(&f);
}

/* ---- bounds ---- */

static void endless_line_is_refused(void **state)
{
    (void)state;
    struct file f;
    file_small(&f);
    struct lines l = lines_of(&f.text);
    struct buf text;
    buf_init(&text);
    buf_append(&text, l.start[0], l.size[0]);
    for (size_t i = 0; i < LEDGER_EXPORT_LINE_BYTES + 10; i++)
        buf_append_byte(&text, ' ');
    assert_refused("long line", &text, NULL, 2, "longer than 1048576 bytes");
    buf_fini(&text);
    file_close(&f);
}

static void nested_json_is_refused(void **state)
{
    (void)state;
    struct file f;
    file_small(&f);
    struct lines l = lines_of(&f.text);
    struct buf text;
    buf_init(&text);
    buf_append(&text, l.start[0], l.size[0]);
    for (size_t i = 0; i < 500000; i++)
        buf_append_byte(&text, '[');
    assert_refused("deep", &text, NULL, 2, "not JSON");
    buf_fini(&text);
    file_close(&f);
}

/* More records than the ring of unsigned leaves holds: a checkpoint in its reach is checked, one
 * before it is refused as too old. */
static void long_unsigned_tail_is_bounded(void **state)
{
    (void)state;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    char reachable[NOTE_TEXT_BYTES], early[NOTE_TEXT_BYTES];
    const uint64_t total = LEDGER_EXPORT_UNSIGNED_MAX + 1000;
    struct file f;

    file_open(&f);
    struct record_ledger reserve = ledger_test_reserve(1);
    for (uint64_t i = 0; i < total; i++) {
        if (i == 500)
            file_note(&f, early);
        if (i == 2000)
            file_note(&f, reachable);
        file_append(&f, reserve);
    }
    size_t records_size = f.text.size;
    ledger_export_checkpoint(&f.text, reachable);
    assert_err(verify_text(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.records, 2000);
    assert_int_equal(report.read.records, total);
    f.text.size = records_size;
    ledger_export_checkpoint(&f.text, early);
    assert_refused("old checkpoint", &f.text, NULL, total + 2, "covers 500 of 66536 records");
    file_close(&f);
}

static void record_that_is_not_canonical_is_not_exported(void **state)
{
    (void)state;
    struct buf out;
    struct errbuf eb = {{0}};
    buf_init(&out);
    assert_err(ledger_export_record(&out, "\xff\xff", 2, &eb), ERR_CORRUPT, &eb);
    assert_err(ledger_export_record(&out, "", 0, &eb), ERR_CORRUPT, &eb);
    assert_int_equal(out.size, 0);
    ledger_export_checkpoint(&out, "");
    assert_int_equal(out.size, 0);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file_is_read_to_its_totals),
        cmocka_unit_test(ledger_of_a_store_verifies_with_an_unsigned_tail),
        cmocka_unit_test(records_behind_the_checkpoint_are_in_no_total_that_is_verified),
        cmocka_unit_test(checkpoint_over_nothing_signs_nothing),
        cmocka_unit_test(prompts_are_billed_by_outcome),
        cmocka_unit_test(line_names_every_field),
        cmocka_unit_test(many_reservations_are_followed),
        cmocka_unit_test(broken_rules_are_named_by_line_and_seq),
        cmocka_unit_test(reservation_is_ended_once),
        cmocka_unit_test(reserve_must_make_sense),
        cmocka_unit_test(key_record_must_name_the_signer),
        cmocka_unit_test(lines_missing_doubled_or_moved_are_found),
        cmocka_unit_test(edited_lines_are_found),
        cmocka_unit_test(forged_record_gives_another_root),
        cmocka_unit_test(trusted_key_and_origin_are_asked_for),
        cmocka_unit_test(ledger_is_compared_with_a_checkpoint_that_was_kept),
        cmocka_unit_test(file_cut_anywhere_is_refused),
        cmocka_unit_test(every_flipped_bit_is_found_or_changes_nothing),
        cmocka_unit_test(endless_line_is_refused),
        cmocka_unit_test(nested_json_is_refused),
        cmocka_unit_test(long_unsigned_tail_is_bounded),
        cmocka_unit_test(record_that_is_not_canonical_is_not_exported),
    };
    return cmocka_run_group_tests_name("ledger export", tests, NULL, NULL);
}
