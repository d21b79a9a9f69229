#include "tests/unit/core/stored_test.h"

#include "coordinator/loop_apply.h"
#include "coordinator/loop_restore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void ledger_again(struct stored_test *k)
{
    struct errbuf eb = {{0}};
    struct ledger_config config = {
        .origin = "test/ledger", .key = k->key, .checkpoint_path = k->checkpoint};
    assert_err(ledger_open(&k->ledger, k->store.store, &config, &eb), ERR_OK, &eb);
    assert_err(restore_boot(k->store.store, k->ledger, "test", k->key, 0, 0, &k->boot_epoch, &eb),
               ERR_OK, &eb);
}

static void core_again(struct stored_test *k)
{
    struct errbuf eb = {{0}};
    uint64_t jobs;
    assert_err(restore_core(k->store.store, k->ledger, &k->t.config, k->boot_epoch,
                            k->t.now_ms * 1000000, 1800000000000000000u, &k->t.core, &jobs, &eb),
               ERR_OK, &eb);
    core_test_begin(&k->t);
}

void stored_test_open(struct stored_test *k)
{
    memset(k, 0, sizeof *k);
    core_test_init(&k->t);
    store_test_open(&k->store, STORE_TEST_LMDB, 256u << 20);
    (void)snprintf(k->checkpoint, sizeof k->checkpoint, "%s/checkpoint", k->store.dir);
    assert_int_equal(crypto_key_new(&k->key, NULL), ERR_OK);
    ledger_again(k);
    core_again(k);
}

void stored_test_stop(struct stored_test *k)
{
    core_free(k->t.core);
    k->t.core = NULL;
    ledger_close(k->ledger);
    k->ledger = NULL;
    store_close(k->store.store);
    k->store.store = NULL;
}

void stored_test_start(struct stored_test *k)
{
    struct store_lmdb_config config = {.path = k->store.path, .map_bytes = 256u << 20};
    struct errbuf eb = {{0}};
    assert_err(store_open_lmdb(&k->store.store, &config, &eb), ERR_OK, &eb);
    ledger_again(k);
    core_again(k);
}

void stored_test_close(struct stored_test *k)
{
    core_test_fini(&k->t);
    ledger_close(k->ledger);
    crypto_key_free(k->key);
    store_test_close(&k->store);
}

/* What the loop does at the end of a turn. */
void stored_test_commit(struct stored_test *k)
{
    struct errbuf eb = {{0}};
    assert_err(apply_effects(k->store.store, k->ledger, &k->t.effects, NULL, &eb), ERR_OK, &eb);
}

/* Steps a request, commits its turn, fills its reply; the reply went through a frame. */
enum err stored_test_try(struct stored_test *k, struct wire_request *request,
                         struct wire_reply *ret_reply, struct fill_context *context,
                         struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    struct buf packed, frame;
    buf_init(&packed);
    buf_init(&frame);
    core_test_begin(&k->t);
    uint64_t tag = core_test_step(&k->t, request);
    core_test_end(&k->t);
    for (struct core_effect *e = k->t.effects.first; e != NULL; e = e->next) {
        if (e->kind != CORE_EFFECT_PUT_CONTENT)
            continue;
        assert_err(wire_job_encode(&request->submit.job, &packed, eb), ERR_OK, eb);
        e->content = (struct wire_bytes){packed.data, packed.size};
    }
    stored_test_commit(k);
    *context = (struct fill_context){
        .store = k->store.store, .ledger = k->ledger, .key = k->key, .origin = "test/ledger"};
    struct core_effect *reply = (struct core_effect *)(uintptr_t)core_test_reply(&k->t, tag);
    assert_non_null(reply);
    assert_err(store_begin(k->store.store, false, &txn, eb), ERR_OK, eb);
    enum err err = fill_reply(context, txn, reply, &k->t.arena, eb);
    store_abort(txn);
    if (err == ERR_OK) {
        assert_err(wire_reply_encode(&reply->reply.reply, &frame, eb), ERR_OK, eb);
        assert_true(frame.size <= LIMIT_FRAME_BYTES);
        const char *copy = arena_copy(&k->t.arena, (const char *)frame.data, frame.size);
        assert_err(wire_reply_decode(copy, frame.size, &k->t.arena, ret_reply, eb), ERR_OK, eb);
    }
    buf_fini(&frame);
    buf_fini(&packed);
    return err;
}

struct wire_reply stored_test_ask(struct stored_test *k, struct wire_request *request)
{
    struct wire_reply reply = {0};
    struct fill_context context;
    struct errbuf eb = {{0}};
    assert_err(stored_test_try(k, request, &reply, &context, &eb), ERR_OK, &eb);
    if (reply.kind == WIRE_REPLY_ERROR)
        fail_msg("%s", reply.error.text);
    return reply;
}

/* A worker with model "m" loaded, for answers of up to 200,000 tokens. */
uint64_t stored_test_worker(struct stored_test *k, const char *name)
{
    const struct core_test_worker w = {.name = name,
                                       .key = (uint8_t)name[0],
                                       .total_bytes = 8 * CORE_TEST_GB,
                                       .models = {"m"},
                                       .weights_bytes = {CORE_TEST_GB},
                                       .ready = {true},
                                       .context_tokens = 200000};
    uint64_t session = core_test_worker(&k->t, &w);
    assert_int_not_equal(session, 0);
    stored_test_commit(k);
    return session;
}

void stored_test_submit(struct stored_test *k, uint64_t client, uint8_t job, uint32_t max_tokens)
{
    struct wire_request request = core_test_submit(client, job, "m", max_tokens);
    request.submit.job.sampling =
        (struct wire_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7};
    (void)stored_test_ask(k, &request);
}

/* Token i of every answer, and what it adds to the text. */
int32_t stored_test_token(uint32_t i)
{
    return (int32_t)(i * 2654435761u % 250000u);
}

char stored_test_text(uint32_t i)
{
    return (char)('a' + i % 23);
}

/* Tokens [first, first + n) of a job in one report. */
void stored_test_report(struct stored_test *k, uint64_t worker, uint8_t job, uint64_t epoch,
                        uint32_t first, uint32_t n, enum wire_finish finish)
{
    int32_t *ids = calloc(n, sizeof *ids);
    uint8_t *text = calloc(n, 1);
    assert_non_null(ids);
    assert_non_null(text);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = stored_test_token(first + i);
        text[i] = (uint8_t)stored_test_text(first + i);
    }
    struct wire_lease_progress progress = {
        .job_id = core_test_id(job),
        .epoch = epoch,
        .first = first,
        .ids = ids,
        .n_ids = n,
        .text = {.data = text, .size = n},
        .usage = {.prompt_tokens = 10, .prompt_computed = 10, .completion_tokens = first + n},
        .finish = finish,
        .error = {.text = ""}};
    struct wire_request request = {.kind = WIRE_REQUEST_REPORT,
                                   .session = worker,
                                   .report = {.leases = &progress, .n_leases = 1}};
    struct wire_reply reply = stored_test_ask(k, &request);
    assert_int_equal(reply.report.leases[0].next, first + n);
    assert_false(reply.report.leases[0].fenced);
    free(ids);
    free(text);
}

/* Time passes with nobody there; what it led to is stored. */
void stored_test_wait(struct stored_test *k, uint64_t ms)
{
    core_test_wait(&k->t, ms);
    stored_test_commit(k);
}
