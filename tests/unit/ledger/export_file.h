/*
 * export_file.h - exported files made by hand, and signed by a signer who would sign anything, so
 * that a rule that is broken is found by its check and not by the signature.
 *
 * Ownership: export_file_close frees. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_LEDGER_EXPORT_FILE_H
#define CLOISTER_TESTS_UNIT_LEDGER_EXPORT_FILE_H

#include "tests/unit/ledger/ledger_test.h"

#include "coordinator/ledger/export.h"
#include "coordinator/ledger/merkle.h"
#include "coordinator/ledger/note.h"

#define EXPORT_ORIGIN "cloister.example/ledger"

struct export_file {
    struct crypto_key *key;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    struct merkle_frontier tree;
    struct buf text;
};

void export_file_open(struct export_file *f);
void export_file_close(struct export_file *f);
/* The record as it is, seq and schema included. */
void export_file_record(struct export_file *f, const struct record_ledger *record);
/* With the number that comes next. */
void export_file_append(struct export_file *f, struct record_ledger record);
void export_file_note(struct export_file *f, char ret_text[NOTE_TEXT_BYTES]);
void export_file_checkpoint(struct export_file *f);
/* RESERVE 0, RESERVE 1, SETTLE of 1, SETTLE of 0, and the checkpoint: lines 2 to 6. */
void export_file_small(struct export_file *f);

enum err export_verify(const char *text, size_t size, const struct ledger_verify_options *options,
                       struct ledger_verify_report *ret_report, struct errbuf *eb);
/* Fails where the text is not refused as corrupt at this line, for this reason. */
void export_assert_refused(const char *name, const struct buf *text,
                           const struct ledger_verify_options *options, uint64_t line,
                           const char *reason);

/* A text as lines, to be put together in another way. */
struct export_lines {
    const char *start[16];
    size_t size[16];
    size_t n;
};
struct export_lines export_lines_of(const struct buf *text);

#endif
