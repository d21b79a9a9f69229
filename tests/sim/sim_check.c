/*
 * sim_check.c - what must hold, read from the store and the exported ledger alone: nothing here
 * asks the core.
 */
#include "tests/sim/sim.h"

#include "common/check.h"
#include "coordinator/ledger/export.h"
#include "coordinator/loop_apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where no worker and no message is ever lost, nothing can have ended a worker: however long a
 * commit takes, and however often the coordinator dies. */
static bool workers_are_well(const struct sim_faults *f)
{
    return f->lost == 0 && f->worker_dies == 0 && f->worker_hangs == 0 && f->engine_fails == 0 &&
           f->forgets == 0;
}

/* No moment at which more is promised than there is, or somebody is blamed who did nothing. */
void check_effects(struct sim *s, const struct core_effects *effects)
{
    bool well = workers_are_well(&s->faults);
    for (const struct core_effect *e = effects->first; e != NULL; e = e->next) {
        if (well && e->kind == CORE_EFFECT_PUT_JOB && e->job.deaths > 0)
            sim_fail(s, "a job is said to have ended a worker, but none ended");
        if (e->kind != CORE_EFFECT_PUT_BALANCE || strcmp(e->balance.tenant, "tight") != 0)
            continue;
        uint64_t used = e->balance.reserved_tokens + e->balance.settled_tokens;
        if (used > s->tenants[0].budget_tokens)
            sim_fail(s, "%llu tokens are used or reserved of a budget of %llu",
                     (unsigned long long)used, (unsigned long long)s->tenants[0].budget_tokens);
    }
}

struct totals {
    struct sim *s;
    struct arena arena;
    uint64_t jobs, tokens, computed, billable, prompt;
    uint64_t chunk_tokens;
    uint64_t reserved, settled;
    uint64_t usage_completion, usage_prompt, usage_computed;
    struct buf jsonl;
};

static struct sim_job *job_of(struct sim *s, const struct id *id)
{
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        if (id_compare(&s->jobs[i].id, id) == 0)
            return &s->jobs[i];
    }
    return NULL;
}

static bool job_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct totals *t = arg;
    struct record_job r;
    (void)key;
    (void)key_size;
    CHECK(record_job_decode(value.data, value.size, &t->arena, &r, NULL) == ERR_OK);
    const struct sim_job *j = job_of(t->s, &r.job_id);
    if (j == NULL || j->refused)
        sim_fail(t->s, "a job is stored that was never accepted");
    else if (r.state < WIRE_JOB_STATE_DONE)
        sim_fail(t->s, "a job is over for its client and in state %u in the store", r.state);
    else if ((enum wire_job_state)r.state != j->state || r.tokens != j->n_ids)
        sim_fail(t->s, "a job is in state %u with %u tokens in the store, %d and %u at its client",
                 r.state, r.tokens, (int)j->state, j->n_ids);
    else if (r.reserve_seq == 0 || r.settle_seq <= r.reserve_seq)
        sim_fail(t->s, "a job's ledger records are %llu and %llu",
                 (unsigned long long)r.reserve_seq, (unsigned long long)r.settle_seq);
    else if (r.computed_tokens < r.tokens)
        sim_fail(t->s, "a job has more tokens than were computed");
    t->jobs++;
    t->tokens += r.tokens;
    t->computed += r.computed_tokens;
    return t->s->failure[0] == '\0';
}

static bool chunk_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct totals *t = arg;
    struct record_chunk r;
    (void)key;
    (void)key_size;
    CHECK(record_chunk_decode(value.data, value.size, &t->arena, &r, NULL) == ERR_OK);
    t->chunk_tokens += r.n_ids;
    return true;
}

static bool balance_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct totals *t = arg;
    struct record_balance r;
    (void)key;
    (void)key_size;
    CHECK(record_balance_decode(value.data, value.size, &t->arena, &r, NULL) == ERR_OK);
    t->reserved += r.reserved_tokens;
    t->settled += r.settled_tokens;
    return true;
}

static bool usage_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct totals *t = arg;
    struct record_usage r;
    (void)key;
    (void)key_size;
    CHECK(record_usage_decode(value.data, value.size, &t->arena, &r, NULL) == ERR_OK);
    t->usage_completion += r.completion_tokens;
    t->usage_prompt += r.prompt_tokens;
    t->usage_computed += r.computed_tokens;
    return true;
}

static bool ledger_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct totals *t = arg;
    struct errbuf eb = {{0}};
    (void)key;
    (void)key_size;
    if (ledger_export_record(&t->jsonl, value.data, value.size, &eb) != ERR_OK)
        sim_fail(t->s, "a ledger record does not export: %s", eb.text);
    return t->s->failure[0] == '\0';
}

/* The auditor's own check, over the file that an auditor would get. */
static void ledger_check(struct sim *s, struct totals *t)
{
    struct ledger_verify_options options = {.origin = "sim/ledger"};
    struct ledger_verify_report report;
    struct errbuf eb = {{0}};
    char note[LEDGER_NOTE_BYTES];
    if (ledger_checkpoint_sign(s->ledger, &eb) != ERR_OK)
        sim_fail(s, "checkpoint: %s", eb.text);
    (void)ledger_checkpoint_read(s->ledger, note);
    ledger_export_checkpoint(&t->jsonl, note);
    FILE *in = fmemopen(t->jsonl.data, t->jsonl.size, "r");
    CHECK(in != NULL);
    if (ledger_verify_jsonl(in, &options, &report, &eb) != ERR_OK)
        sim_fail(s, "the ledger does not verify: %s", eb.text);
    else if (report.verified.open_reservations != 0)
        sim_fail(s, "%llu reservations never ended",
                 (unsigned long long)report.verified.open_reservations);
    else if (report.verified.reserves != t->jobs)
        sim_fail(s, "%llu jobs, %llu reservations", (unsigned long long)t->jobs,
                 (unsigned long long)report.verified.reserves);
    else if (report.verified.completion_delivered != t->tokens ||
             report.verified.completion_computed != t->computed)
        sim_fail(s,
                 "the ledger has %llu tokens delivered and %llu computed, the jobs %llu and %llu",
                 (unsigned long long)report.verified.completion_delivered,
                 (unsigned long long)report.verified.completion_computed,
                 (unsigned long long)t->tokens, (unsigned long long)t->computed);
    else if (report.verified.completion_billable != t->usage_completion ||
             report.verified.prompt_tokens != t->usage_prompt || t->usage_computed != t->computed)
        sim_fail(s, "usage and ledger differ");
    (void)fclose(in);
}

void check_end(struct sim *s)
{
    static const uint8_t from[1] = {0};
    struct totals t = {.s = s};
    struct store_txn *txn;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    uint64_t accepted = 0, delivered = 0;

    arena_init(&t.arena, SIZE_MAX / 4);
    buf_init(&t.jsonl);
    crypto_key_public(s->key, public_key);
    ledger_export_header(&t.jsonl, "sim/ledger", public_key);
    CHECK(store_begin(s->store, false, &txn, NULL) == ERR_OK);
    CHECK(store_scan(txn, STORE_TABLE_JOB, from, 1, job_visit, &t, NULL) == ERR_OK);
    CHECK(store_scan(txn, STORE_TABLE_CHUNK, from, 1, chunk_visit, &t, NULL) == ERR_OK);
    CHECK(store_scan(txn, STORE_TABLE_BALANCE, from, 1, balance_visit, &t, NULL) == ERR_OK);
    CHECK(store_scan(txn, STORE_TABLE_USAGE, from, 1, usage_visit, &t, NULL) == ERR_OK);
    CHECK(store_scan(txn, STORE_TABLE_LEDGER, from, 1, ledger_visit, &t, NULL) == ERR_OK);
    store_abort(txn);

    for (uint32_t i = 0; i < s->n_jobs; i++) {
        accepted += s->jobs[i].accepted;
        delivered += s->jobs[i].n_ids;
    }
    if (t.jobs != accepted)
        sim_fail(s, "%llu jobs were accepted, %llu are stored", (unsigned long long)accepted,
                 (unsigned long long)t.jobs);
    if (t.chunk_tokens != t.tokens || t.tokens != delivered)
        sim_fail(s, "%llu tokens in chunks, %llu in jobs, %llu at clients",
                 (unsigned long long)t.chunk_tokens, (unsigned long long)t.tokens,
                 (unsigned long long)delivered);
    if (t.reserved != 0)
        sim_fail(s, "%llu tokens stay reserved for ever", (unsigned long long)t.reserved);
    if (t.settled != t.usage_completion + t.usage_prompt)
        sim_fail(s, "balances have %llu tokens settled, usage %llu", (unsigned long long)t.settled,
                 (unsigned long long)(t.usage_completion + t.usage_prompt));
    if (s->failure[0] == '\0')
        ledger_check(s, &t);
    arena_fini(&t.arena);
    buf_fini(&t.jsonl);
}
