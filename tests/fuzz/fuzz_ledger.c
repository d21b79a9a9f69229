/*
 * Anything as an exported ledger, as a checkpoint and as a packed record: read to its end or
 * refused with a line and a reason. What is accepted as a record is exported and taken apart again.
 */
#include "common/check.h"
#include "coordinator/ledger/export.h"
#include "coordinator/ledger/note.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_file(const uint8_t *data, size_t size)
{
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    FILE *in = fmemopen((void *)(uintptr_t)data, size, "r");
    CHECK(in != NULL);
    enum err e = ledger_verify_jsonl(in, NULL, &report, &eb);
    fclose(in);
    CHECK(e == ERR_OK || e == ERR_CORRUPT);
    CHECK(e == ERR_OK ? report.bad_line == 0 && report.verified.records <= report.read.records
                      : report.bad_line > 0 && eb.text[0] != '\0');
}

static void as_note(const uint8_t *data, size_t size)
{
    static const uint8_t public_key[ED25519_PUBLIC_BYTES] = {1};
    struct note note;
    struct buf out;
    char *text = malloc(size + 1);
    CHECK(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    if (note_parse(text, &note, NULL) == ERR_OK)
        CHECK(note_origin_valid(note.origin));
    CHECK(note_open(text, public_key, &note, NULL) == ERR_CORRUPT);
    buf_init(&out);
    ledger_export_checkpoint(&out, text);
    buf_fini(&out);
    free(text);
}

static void as_record(const uint8_t *data, size_t size)
{
    struct buf out;
    buf_init(&out);
    if (ledger_export_record(&out, data, size, NULL) == ERR_OK)
        CHECK(out.size > 0 && out.data[out.size - 1] == '\n');
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    as_file(data, size);
    as_note(data, size);
    as_record(data, size);
    return 0;
}
