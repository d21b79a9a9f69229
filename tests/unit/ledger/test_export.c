/* The exported file and its check: what a good file says, and how much of a bad one is read. */
#include "tests/unit/ledger/export_file.h"

#include "proto/wire.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void good_file_is_read_to_its_totals(void **state)
{
    (void)state;
    struct export_file f;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    uint8_t root[SHA256_BYTES];

    export_file_small(&f);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    merkle_frontier_root(&f.tree, root);
    assert_memory_equal(report.root, root, sizeof root);
    assert_memory_equal(report.public_key, f.public_key, sizeof report.public_key);
    assert_string_equal(report.origin, EXPORT_ORIGIN);
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

    struct ledger_verify_options options = {.public_key = f.public_key, .origin = EXPORT_ORIGIN};
    assert_err(export_verify(buf_str(&f.text), f.text.size, &options, &report, &eb), ERR_OK, &eb);
    assert_true(report.key_was_given);
    /* A file whose last newline was lost says the same. */
    assert_err(export_verify(buf_str(&f.text), f.text.size - 1, NULL, &report, &eb), ERR_OK, &eb);
    export_file_close(&f);
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
    assert_err(export_verify(buf_str(&out), out.size, NULL, &report, &eb), ERR_OK, &eb);
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
    struct export_file f;
    json_error_t error;
    export_file_small(&f);
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
    export_file_close(&f);
}

/* Somebody who has the file, but not the key, adds a job that was never run. */
static void records_behind_the_checkpoint_are_in_no_total_that_is_verified(void **state)
{
    (void)state;
    struct export_file f;
    char note[NOTE_TEXT_BYTES];
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};

    export_file_open(&f);
    export_file_append(&f, ledger_test_reserve(0));
    export_file_append(&f, ledger_test_reserve(1));
    export_file_append(&f, ledger_test_settle(1, 1));
    export_file_note(&f, note);
    export_file_append(&f, ledger_test_settle(0, 0));
    export_file_append(&f, ledger_test_reserve(2));
    export_file_append(&f, ledger_test_settle(2, 4));
    ledger_export_checkpoint(&f.text, note);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
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
    export_file_close(&f);
}

static void checkpoint_over_nothing_signs_nothing(void **state)
{
    (void)state;
    struct export_file f;
    char note[NOTE_TEXT_BYTES];
    export_file_open(&f);
    export_file_note(&f, note);
    ledger_export_checkpoint(&f.text, note);
    export_assert_refused("empty ledger", &f.text, NULL, 2, "over no record: nothing is signed");
    export_file_close(&f);
    export_file_open(&f);
    export_file_note(&f, note);
    export_file_append(&f, ledger_test_reserve(0));
    ledger_export_checkpoint(&f.text, note);
    export_assert_refused("all records behind it", &f.text, NULL, 3,
                          "over no record: nothing is signed");
    export_file_close(&f);
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
        struct export_file f;
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        struct record_ledger r = ledger_test_settle(0, 0);
        r.outcome = cases[i].outcome;
        r.completion_billable = cases[i].owed ? 60 : 0;
        export_file_open(&f);
        export_file_append(&f, ledger_test_reserve(0));
        export_file_append(&f, r);
        export_file_checkpoint(&f);
        assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
        assert_int_equal(report.verified.prompt_tokens, cases[i].owed ? 40 : 0);
        assert_int_equal(report.verified.completion_billable, cases[i].owed ? 60 : 0);
        assert_int_equal(report.verified.completion_computed, 60);
        export_file_close(&f);
    }
}

/* Reservations in an order of their own, many open at once, each ended once. */
static void many_reservations_are_followed(void **state)
{
    (void)state;
    enum { JOBS = 3000 };
    struct export_file f;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    uint64_t seed = 5, *open = calloc(JOBS, sizeof *open), *job = calloc(JOBS, sizeof *job);
    size_t n_open = 0, made = 0;
    uint64_t prompt = 0, billable = 0, computed = 0;

    assert_true(open != NULL && job != NULL);
    export_file_open(&f);
    while (made < JOBS || n_open > 0) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if (made < JOBS && (n_open == 0 || (seed >> 60) < 9)) {
            open[n_open] = f.tree.size;
            job[n_open++] = made;
            export_file_append(&f, ledger_test_reserve(made++));
        } else {
            size_t i = (size_t)(seed >> 20) % n_open;
            struct record_ledger r = ledger_test_settle(job[i], open[i]);
            prompt += r.prompt_tokens;
            billable += r.completion_billable;
            computed += r.completion_computed;
            export_file_append(&f, r);
            open[i] = open[--n_open];
            job[i] = job[n_open];
        }
    }
    export_file_checkpoint(&f);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.settles, JOBS);
    assert_int_equal(report.verified.open_reservations, 0);
    assert_int_equal(report.verified.prompt_tokens, prompt);
    assert_int_equal(report.verified.completion_billable, billable);
    assert_int_equal(report.verified.completion_computed, computed);
    export_file_close(&f);
    free(open);
    free(job);
}

/* ---- bounds ---- */

static void endless_line_is_refused(void **state)
{
    (void)state;
    struct export_file f;
    export_file_small(&f);
    struct export_lines l = export_lines_of(&f.text);
    struct buf text;
    buf_init(&text);
    buf_append(&text, l.start[0], l.size[0]);
    for (size_t i = 0; i < LEDGER_EXPORT_LINE_BYTES + 10; i++)
        buf_append_byte(&text, ' ');
    export_assert_refused("long line", &text, NULL, 2, "longer than 1048576 bytes");
    buf_fini(&text);
    export_file_close(&f);
}

static void nested_json_is_refused(void **state)
{
    (void)state;
    struct export_file f;
    export_file_small(&f);
    struct export_lines l = export_lines_of(&f.text);
    struct buf text;
    buf_init(&text);
    buf_append(&text, l.start[0], l.size[0]);
    for (size_t i = 0; i < 500000; i++)
        buf_append_byte(&text, '[');
    export_assert_refused("deep", &text, NULL, 2, "not JSON");
    buf_fini(&text);
    export_file_close(&f);
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
    struct export_file f;

    export_file_open(&f);
    struct record_ledger reserve = ledger_test_reserve(1);
    for (uint64_t i = 0; i < total; i++) {
        if (i == 500)
            export_file_note(&f, early);
        if (i == 2000)
            export_file_note(&f, reachable);
        export_file_append(&f, reserve);
    }
    size_t records_size = f.text.size;
    ledger_export_checkpoint(&f.text, reachable);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.verified.records, 2000);
    assert_int_equal(report.read.records, total);
    f.text.size = records_size;
    ledger_export_checkpoint(&f.text, early);
    export_assert_refused("old checkpoint", &f.text, NULL, total + 2,
                          "covers 500 of 66536 records");
    export_file_close(&f);
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
        cmocka_unit_test(endless_line_is_refused),
        cmocka_unit_test(nested_json_is_refused),
        cmocka_unit_test(long_unsigned_tail_is_bounded),
        cmocka_unit_test(record_that_is_not_canonical_is_not_exported),
    };
    return cmocka_run_group_tests_name("ledger export", tests, NULL, NULL);
}
