#include "tests/unit/ledger/ledger_test.h"

#include "coordinator/ledger/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err open_it(struct ledger_test *t, struct errbuf *eb)
{
    struct ledger_config config = {
        .origin = t->origin, .key = t->key, .checkpoint_path = t->checkpoint_path};
    return ledger_open(&t->ledger, t->store.store, &config, eb);
}

void ledger_test_open(struct ledger_test *t, enum store_test_kind kind)
{
    struct errbuf eb = {{0}};
    *t = (struct ledger_test){.origin = "cloister.example/ledger"};
    store_test_open(&t->store, kind, 64u << 20);
    store_test_dir_new(t->dir, sizeof t->dir);
    (void)snprintf(t->checkpoint_path, sizeof t->checkpoint_path, "%s/checkpoint", t->dir);
    assert_err(crypto_key_new(&t->key, &eb), ERR_OK, &eb);
    crypto_key_public(t->key, t->public_key);
    assert_err(open_it(t, &eb), ERR_OK, &eb);
}

enum err ledger_test_reopen(struct ledger_test *t, struct errbuf *eb)
{
    ledger_close(t->ledger);
    t->ledger = NULL;
    store_test_reopen(&t->store);
    return open_it(t, eb);
}

void ledger_test_close(struct ledger_test *t)
{
    ledger_close(t->ledger);
    crypto_key_free(t->key);
    store_test_close(&t->store);
    store_test_dir_remove(t->dir);
}

static struct record_ledger record_make(uint64_t job, enum record_ledger_kind kind)
{
    struct record_ledger r = {
        .kind = kind,
        .node = "coordinator-1",
        .boot_epoch = 3,
        .wall_ns = 1767225600000000000u + job * 1000000,
        .mono_ns = 1000 + job,
        .attempt = kind == RECORD_LEDGER_RESERVE ? 0 : 1,
        .tenant = job % 3 == 0 ? "research" : "légal \"x\"",
        .project = "",
        .cost_center = "4711",
        .principal = "client-7",
        .model = "smollm2-135m-instruct",
        .engine_build = "0.1.0",
        .quantization = "Q4_1",
        .shards = 1,
        .worker = kind == RECORD_LEDGER_RESERVE ? "" : "worker-2",
        .seed = UINT64_MAX - job,
        .max_tokens = 100,
        .reserved_tokens = 150 + job % 7,
        .policy_id = 1,
    };
    memset(r.job_id.bytes, (int)(job % 251 + 1), ID_BYTES);
    memcpy(r.job_id.bytes, &job, sizeof job);
    memset(r.weights_digest, 0x11, sizeof r.weights_digest);
    memset(r.key_fingerprint, 0x22, sizeof r.key_fingerprint);
    return r;
}

struct record_ledger ledger_test_reserve(uint64_t job)
{
    return record_make(job, RECORD_LEDGER_RESERVE);
}

struct record_ledger ledger_test_settle(uint64_t job, uint64_t reserve_seq)
{
    struct record_ledger r = record_make(job, RECORD_LEDGER_SETTLE);
    r.reserve_seq = reserve_seq + 1;
    r.count_source = RECORD_COUNT_SOURCE_ENGINE;
    r.prompt_tokens = 40 + job % 5;
    r.prompt_cached = job % 5;
    r.prompt_computed = 40;
    r.completion_computed = 60 + job % 11;
    r.completion_delivered = 60;
    r.completion_billable = 60;
    r.finish = 1;
    r.outcome = 4;
    r.queue_us = 17;
    r.prefill_us = 900;
    r.decode_us = 123456;
    memset(r.output_hash, (int)(job % 200 + 1), sizeof r.output_hash);
    return r;
}

struct record_ledger ledger_test_meter(const char *device, uint64_t energy_mj)
{
    return (struct record_ledger){.kind = RECORD_LEDGER_METER,
                                  .node = "c",
                                  .tenant = "",
                                  .project = "",
                                  .cost_center = "",
                                  .principal = "",
                                  .model = "",
                                  .engine_build = "0.1.0",
                                  .quantization = "",
                                  .worker = "worker-2",
                                  .device = device,
                                  .energy_mj = energy_mj};
}

struct record_ledger ledger_test_key(const uint8_t public_key[ED25519_PUBLIC_BYTES])
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

void ledger_test_append(struct ledger_test *t, struct record_ledger *records, size_t n)
{
    struct errbuf eb = {{0}};
    struct store_txn *txn = store_test_begin(t->store.store, true);
    for (size_t i = 0; i < n; i++)
        assert_err(ledger_append(t->ledger, txn, &records[i], &eb), ERR_OK, &eb);
    store_test_commit(txn);
    ledger_committed(t->ledger);
}

void ledger_test_fill(struct ledger_test *t, uint64_t first_job, uint64_t jobs)
{
    struct record_ledger *records = calloc(jobs, sizeof *records);
    assert_non_null(records);
    for (uint64_t i = 0; i < jobs; i++)
        records[i] = ledger_test_reserve(first_job + i);
    ledger_test_append(t, records, jobs);
    for (uint64_t i = 0; i < jobs; i++) {
        records[i] = ledger_test_settle(first_job + i, records[i].seq);
        if (i % 4 == 3) {
            records[i].kind = RECORD_LEDGER_VOID;
            records[i].completion_billable = 0;
        }
    }
    ledger_test_append(t, records, jobs);
    free(records);
}

void ledger_test_export(struct ledger_test *t, struct buf *out)
{
    struct errbuf eb = {{0}};
    struct ledger_range range;
    struct arena arena;
    uint64_t first = 0;
    char note[LEDGER_NOTE_BYTES];

    arena_init(&arena, 64u << 20);
    ledger_export_header(out, t->origin, t->public_key);
    do {
        arena_reset(&arena);
        assert_err(ledger_read_range(t->ledger, first, 7, 3000, &arena, &range, &eb), ERR_OK, &eb);
        for (size_t i = 0; i < range.n_records; i++)
            assert_err(ledger_export_record(out, range.records[i].data, range.records[i].size, &eb),
                       ERR_OK, &eb);
        first += range.n_records;
    } while (range.n_records > 0);
    (void)ledger_checkpoint_read(t->ledger, note);
    ledger_export_checkpoint(out, note);
    assert_false(out->failed);
    arena_fini(&arena);
}
