#include "tests/unit/ledger/export_file.h"

#include <stdio.h>
#include <string.h>

void export_file_open(struct export_file *f)
{
    struct errbuf eb = {{0}};
    *f = (struct export_file){0};
    assert_err(crypto_key_new(&f->key, &eb), ERR_OK, &eb);
    crypto_key_public(f->key, f->public_key);
    ledger_export_header(&f->text, EXPORT_ORIGIN, f->public_key);
}

void export_file_record(struct export_file *f, const struct record_ledger *record)
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

void export_file_append(struct export_file *f, struct record_ledger record)
{
    record.seq = f->tree.size;
    record.schema = RECORD_LEDGER_SCHEMA;
    export_file_record(f, &record);
}

void export_file_note(struct export_file *f, char ret_text[NOTE_TEXT_BYTES])
{
    struct errbuf eb = {{0}};
    struct note note = {0};
    memcpy(note.origin, EXPORT_ORIGIN, sizeof EXPORT_ORIGIN);
    note.size = f->tree.size;
    merkle_frontier_root(&f->tree, note.root);
    assert_err(note_sign(&note, f->key, ret_text, &eb), ERR_OK, &eb);
}

void export_file_checkpoint(struct export_file *f)
{
    char text[NOTE_TEXT_BYTES];
    export_file_note(f, text);
    ledger_export_checkpoint(&f->text, text);
}

void export_file_close(struct export_file *f)
{
    crypto_key_free(f->key);
    buf_fini(&f->text);
}

void export_file_small(struct export_file *f)
{
    export_file_open(f);
    export_file_append(f, ledger_test_reserve(0));
    export_file_append(f, ledger_test_reserve(1));
    export_file_append(f, ledger_test_settle(1, 1));
    export_file_append(f, ledger_test_settle(0, 0));
    export_file_checkpoint(f);
}

enum err export_verify(const char *text, size_t size, const struct ledger_verify_options *options,
                       struct ledger_verify_report *ret_report, struct errbuf *eb)
{
    FILE *in = size > 0 ? fmemopen((void *)(uintptr_t)text, size, "r") : fopen("/dev/null", "r");
    assert_non_null(in);
    enum err e = ledger_verify_jsonl(in, options, ret_report, eb);
    fclose(in);
    return e;
}

void export_assert_refused(const char *name, const struct buf *text,
                           const struct ledger_verify_options *options, uint64_t line,
                           const char *reason)
{
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    enum err e = export_verify(buf_str(text), text->size, options, &report, &eb);
    if (e != ERR_CORRUPT || report.bad_line != line || strstr(eb.text, reason) == NULL)
        fail_msg("%s: %s at line %llu: \"%s\"; expected line %llu: \"%s\"", name, err_name(e),
                 (unsigned long long)report.bad_line, eb.text, (unsigned long long)line, reason);
}

struct export_lines export_lines_of(const struct buf *text)
{
    struct export_lines l = {.n = 0};
    for (const char *p = buf_str(text); *p != '\0'; p += l.size[l.n++]) {
        l.start[l.n] = p;
        l.size[l.n] = strcspn(p, "\n") + 1;
    }
    return l;
}
