/* Exported files that were changed after they were signed: every way is found, by line. */
#include "tests/unit/ledger/export_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

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
    struct export_file f;
    export_file_small(&f);
    struct export_lines l = export_lines_of(&f.text);
    assert_int_equal(l.n, 6);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text;
        buf_init(&text);
        for (int k = 0; k < 8 && cases[i].order[k] != 0; k++)
            buf_append(&text, l.start[cases[i].order[k] - 1], l.size[cases[i].order[k] - 1]);
        export_assert_refused(cases[i].name, &text, NULL, cases[i].line, cases[i].reason);
        buf_fini(&text);
    }
    struct buf empty;
    buf_init(&empty);
    export_assert_refused("empty file", &empty, NULL, 1, "the file is empty");
    export_file_close(&f);
}

/* Replaces the first `from` in line `line` by `to`. */
static void line_edit(const struct buf *text, size_t line, const char *from, const char *to,
                      struct buf *out)
{
    struct export_lines l = export_lines_of(text);
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
    struct export_file f;
    export_file_small(&f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text;
        buf_init(&text);
        line_edit(&f.text, cases[i].line, cases[i].from, cases[i].to, &text);
        /* A changed origin shows where the signature is: in the last line. */
        bool at_end = strcmp(cases[i].name, "origin") == 0;
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        enum err e = export_verify(buf_str(&text), text.size, NULL, &report, &eb);
        (void)e;
        export_assert_refused(cases[i].name, &text, NULL, at_end ? 6 : cases[i].line,
                              at_end ? "the checkpoint is of \"cloister.example/ledger\""
                                     : cases[i].reason);
        buf_fini(&text);
    }
    export_file_close(&f);
}

/* A record replaced whole, named fields and raw agreeing, all rules kept: the root tells. */
static void forged_record_gives_another_root(void **state)
{
    (void)state;
    struct export_file f, forged;
    struct buf text;

    export_file_small(&f);
    export_file_open(&forged);
    export_file_append(&forged, ledger_test_reserve(0));
    export_file_append(&forged, ledger_test_reserve(1));
    struct record_ledger r = ledger_test_settle(1, 1);
    r.completion_billable = 10;
    export_file_append(&forged, r);
    struct export_lines good = export_lines_of(&f.text), bad = export_lines_of(&forged.text);
    buf_init(&text);
    for (size_t i = 0; i < good.n; i++) {
        bool swap = i == 3;
        buf_append(&text, swap ? bad.start[i] : good.start[i], swap ? bad.size[i] : good.size[i]);
    }
    export_assert_refused("forged", &text, NULL, 6, "the records give the root");
    buf_fini(&text);
    export_file_close(&f);
    export_file_close(&forged);
}

static void trusted_key_and_origin_are_asked_for(void **state)
{
    (void)state;
    struct export_file f;
    uint8_t other[ED25519_PUBLIC_BYTES] = {1};
    export_file_small(&f);
    struct ledger_verify_options key = {.public_key = other};
    export_assert_refused("key", &f.text, &key, 1, "not the one that was given as trusted");
    struct ledger_verify_options name = {.origin = "someone.else"};
    export_assert_refused("origin", &f.text, &name, 1, "not of \"someone.else\"");
    export_file_close(&f);
}

/* Who kept a checkpoint sees that the ledger still begins with what it covered. */
static void ledger_is_compared_with_a_checkpoint_that_was_kept(void **state)
{
    (void)state;
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    char kept[NOTE_TEXT_BYTES], rewritten[NOTE_TEXT_BYTES], later[NOTE_TEXT_BYTES];
    char foreign[NOTE_TEXT_BYTES], empty[NOTE_TEXT_BYTES];
    struct export_file f, anew, other;

    export_file_open(&f);
    export_file_note(&f, empty);
    export_file_append(&f, ledger_test_reserve(0));
    export_file_append(&f, ledger_test_reserve(1));
    export_file_note(&f, kept);
    export_file_append(&f, ledger_test_settle(1, 1));
    export_file_checkpoint(&f);

    /* The same key signs another beginning; a longer log; another key. */
    export_file_open(&anew);
    crypto_key_free(anew.key);
    anew.key = f.key;
    export_file_append(&anew, ledger_test_reserve(0));
    export_file_append(&anew, ledger_test_reserve(2));
    export_file_note(&anew, rewritten);
    export_file_append(&anew, ledger_test_reserve(3));
    export_file_append(&anew, ledger_test_reserve(4));
    export_file_note(&anew, later);
    export_file_open(&other);
    export_file_append(&other, ledger_test_reserve(0));
    export_file_note(&other, foreign);

    struct ledger_verify_options options = {.against = kept};
    assert_err(export_verify(buf_str(&f.text), f.text.size, &options, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.against_records, 2);
    assert_err(export_verify(buf_str(&f.text), f.text.size, NULL, &report, &eb), ERR_OK, &eb);
    assert_int_equal(report.against_records, 0);

    options.against = rewritten;
    export_assert_refused("written anew", &f.text, &options, 3, "this ledger was written anew");
    options.against = later;
    export_assert_refused("cut", &f.text, &options, 5, "covers 4 records, the file has 3");
    options.against = foreign;
    export_assert_refused("another key", &f.text, &options, 1, "is not one of this ledger");
    options.against = empty;
    export_assert_refused("empty", &f.text, &options, 1, "covers no records");
    options.against = "no note";
    export_assert_refused("no note", &f.text, &options, 1, "is not one of this ledger");
    anew.key = NULL;
    export_file_close(&anew);
    export_file_close(&other);
    export_file_close(&f);
}

static void file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct export_file f;
    export_file_small(&f);
    for (size_t size = 0; size < f.text.size - 1; size++) {
        struct ledger_verify_report report;
        struct errbuf eb = {{0}};
        enum err e = export_verify(buf_str(&f.text), size, NULL, &report, &eb);
        if (e != ERR_CORRUPT || report.bad_line == 0)
            fail_msg("cut after %zu bytes: %s", size, err_name(e));
    }
    export_file_close(&f);
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
    struct export_file f;
    size_t harmless = 0;

    export_file_open(&f);
    export_file_append(&f, ledger_test_reserve(1));
    export_file_append(&f, ledger_test_settle(1, 0));
    export_file_checkpoint(&f);
    char *text = strdup(buf_str(&f.text));
    assert_non_null(text);
    for (size_t i = 0; i < f.text.size; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct ledger_verify_report report;
            struct errbuf eb = {{0}};
            text[i] = (char)(text[i] ^ (1 << bit));
            enum err e = export_verify(text, f.text.size, NULL, &report, &eb);
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
    export_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_missing_doubled_or_moved_are_found),
        cmocka_unit_test(edited_lines_are_found),
        cmocka_unit_test(forged_record_gives_another_root),
        cmocka_unit_test(trusted_key_and_origin_are_asked_for),
        cmocka_unit_test(ledger_is_compared_with_a_checkpoint_that_was_kept),
        cmocka_unit_test(file_cut_anywhere_is_refused),
        cmocka_unit_test(every_flipped_bit_is_found_or_changes_nothing),
    };
    return cmocka_run_group_tests_name("ledger export, changed", tests, NULL, NULL);
}
