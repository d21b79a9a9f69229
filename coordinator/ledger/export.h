/*
 * export.h - the ledger as a file, and the check of such a file by itself.
 *
 * JSONL, one object a line. First {"cloister_ledger":1,"origin":...,"public_key":hex}; then a line
 * a record {"seq":n,"kind":"SETTLE",...every field by name...,"raw":base64 of the packed bytes};
 * last {"checkpoint":signed note,"size":n,"root":hex}. Auditors need nothing else: `raw` is what
 * was hashed, the named fields are checked against it.
 *
 * Needs no coordinator, store or worker: `cloister ledger verify` is this on a laptop.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_EXPORT_H
#define CLOISTER_COORDINATOR_LEDGER_EXPORT_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void ledger_export_header(struct buf *out, const char *origin,
                          const uint8_t public_key[ED25519_PUBLIC_BYTES]);
/* `record`: the packed bytes. ERR_CORRUPT where they are not a canonical record. */
enum err ledger_export_record(struct buf *out, const void *record, size_t size, struct errbuf *eb);
void ledger_export_checkpoint(struct buf *out, const char *note);

struct ledger_verify_options {
    /* A key the auditor already trusts; NULL: the one in the file (said so in the report). */
    const uint8_t *public_key;
    const char *origin; /* expected, or NULL */
};

struct ledger_verify_report {
    uint64_t records;
    uint64_t signed_records; /* covered by the checkpoint */
    uint64_t reserves, settles, voids, expires, open_reservations;
    uint64_t prompt_tokens, completion_billable, completion_computed;
    uint8_t root[SHA256_BYTES];
    char origin[256];
    bool key_was_given;
    uint64_t bad_line; /* 1-based line of the first fault, 0 where there is none */
};

/* Recomputes everything: canonical bytes, named fields against them, dense seq, each reservation
 * ended at most once and by a record that fits it, totals, leaf hashes, root, signature.
 * ERR_CORRUPT names line, seq and reason. Bounded memory. */
enum err ledger_verify_jsonl(FILE *in, const struct ledger_verify_options *options,
                             struct ledger_verify_report *ret_report, struct errbuf *eb);

#endif
