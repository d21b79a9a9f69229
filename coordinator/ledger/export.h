/*
 * export.h - the ledger as a file, and the check of such a file by itself.
 *
 * JSONL, one object a line. First {"cloister_ledger":1,"origin":...,"public_key":hex}; then a line
 * a record {"seq":n,"kind":"SETTLE",...every field by name...,"raw":base64 of the packed bytes};
 * last {"checkpoint":signed note,"size":n,"root":hex}. Auditors need nothing else: `raw` is what
 * was hashed, the named fields are checked against it. docs/ledger.md describes every field.
 *
 * Needs no coordinator, store or worker: `cloister ledger verify` is this on a laptop.
 *
 * Ownership: out parameters only. Thread: any.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_EXPORT_H
#define CLOISTER_COORDINATOR_LEDGER_EXPORT_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LEDGER_EXPORT_VERSION 1

/* Each appends one line; a refused allocation, or text that is not UTF-8, sets out->failed. */
void ledger_export_header(struct buf *out, const char *origin,
                          const uint8_t public_key[ED25519_PUBLIC_BYTES]);
/* `record`: the packed bytes. ERR_CORRUPT where they are not a canonical record. */
enum err ledger_export_record(struct buf *out, const void *record, size_t size, struct errbuf *eb);
/* The same where `record` was decoded from `bytes` already. */
struct record_ledger;
enum err ledger_export_decoded(struct buf *out, const struct record_ledger *record,
                               const void *bytes, size_t size, struct errbuf *eb);
/* Nothing for an empty note: a ledger that was never signed has no such line. */
void ledger_export_checkpoint(struct buf *out, const char *note);

/* Most bytes of one line, and most records that may follow the last signed one. */
#define LEDGER_EXPORT_LINE_BYTES   (1u << 20)
#define LEDGER_EXPORT_UNSIGNED_MAX (1u << 16)

struct ledger_verify_options {
    /* A key the auditor already trusts; NULL: the one in the file (said so in the report). */
    const uint8_t *public_key;
    const char *origin; /* expected, or NULL */
    /* A signed note of this ledger that was kept, or NULL: the file must begin with what it covers.
     * This is what shows that the holder of the signing key did not write the log anew. */
    const char *against;
};

/* What a run of records adds up to, from the first one on. */
struct ledger_totals {
    uint64_t records;
    uint64_t reserves, settles, voids, expires, keys, meters;
    uint64_t prompt_tokens;        /* of SETTLE records whose outcome owes its prompt */
    uint64_t completion_billable;  /* of SETTLE records */
    uint64_t completion_delivered; /* of all records that end a reservation */
    uint64_t completion_computed;  /* ... */
    uint64_t open_reservations;    /* made, and not ended within these records */
    uint64_t reserved_open_tokens; /* of these */
    uint64_t energy_mj;            /* between the first and the last METER of each device */
};

struct ledger_verify_report {
    /* The records under the checkpoint: these totals are what is proven. None after an error. */
    struct ledger_totals verified;
    /* All records of the file. Those behind the checkpoint agree with themselves, but whoever had
     * the file in hand could have written them: they prove nothing. */
    struct ledger_totals read;
    uint64_t against_records;   /* covered by the note that was kept, and the same; 0: none given */
    uint8_t root[SHA256_BYTES]; /* of the records under the checkpoint */
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    char origin[256];
    bool key_was_given;
    uint64_t bad_line; /* 1-based line of the first fault, 0 where there is none */
};

/* Recomputes everything: canonical bytes, named fields against them, dense seq, each reservation
 * ended at most once and by a record that fits it, totals, leaf hashes, root, signature. A
 * checkpoint over no record signs nothing and is refused.
 * ERR_CORRUPT names line, seq and reason. The report is filled either way; after an error it says
 * what was read up to there and nothing in it is proven. Memory: a bit a record, about 100 bytes an
 * open reservation, 48 bytes a KEY record, 40 bytes a metered device, 144 bytes for each of the
 * last LEDGER_EXPORT_UNSIGNED_MAX records. */
enum err ledger_verify_jsonl(FILE *in, const struct ledger_verify_options *options,
                             struct ledger_verify_report *ret_report, struct errbuf *eb);

#endif
