/*
 * Jobs and the store under them: the core with the real apply, fill and restore over a real file.
 * Answers longer than a frame, and answers whose stored tokens are damaged.
 */
#include "tests/unit/core/core_test.h"

#include "coordinator/loop_apply.h"
#include "coordinator/loop_fill.h"
#include "coordinator/loop_restore.h"
#include "tests/unit/store/store_test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct cluster {
    struct core_test t;
    struct store_test store;
    struct ledger *ledger;
    struct crypto_key *key;
    char checkpoint[320];
    uint64_t boot_epoch;
};

static void ledger_again(struct cluster *k)
{
    struct errbuf eb = {{0}};
    struct ledger_config config = {
        .origin = "test/ledger", .key = k->key, .checkpoint_path = k->checkpoint};
    assert_err(ledger_open(&k->ledger, k->store.store, &config, &eb), ERR_OK, &eb);
    assert_err(restore_boot(k->store.store, k->ledger, "test", k->key, 0, 0, &k->boot_epoch, &eb),
               ERR_OK, &eb);
}

static void core_again(struct cluster *k)
{
    struct errbuf eb = {{0}};
    uint64_t jobs;
    assert_err(restore_core(k->store.store, k->ledger, &k->t.config, k->boot_epoch,
                            k->t.now_ms * 1000000, 1800000000000000000u, &k->t.core, &jobs, &eb),
               ERR_OK, &eb);
    core_test_begin(&k->t);
}

static void cluster_open(struct cluster *k)
{
    memset(k, 0, sizeof *k);
    core_test_init(&k->t);
    store_test_open(&k->store, STORE_TEST_LMDB, 256u << 20);
    (void)snprintf(k->checkpoint, sizeof k->checkpoint, "%s/checkpoint", k->store.dir);
    assert_int_equal(crypto_key_new(&k->key, NULL), ERR_OK);
    ledger_again(k);
    core_again(k);
}

static void cluster_stop(struct cluster *k)
{
    core_free(k->t.core);
    k->t.core = NULL;
    ledger_close(k->ledger);
    k->ledger = NULL;
    store_close(k->store.store);
    k->store.store = NULL;
}

static void cluster_start(struct cluster *k)
{
    struct store_lmdb_config config = {.path = k->store.path, .map_bytes = 256u << 20};
    struct errbuf eb = {{0}};
    assert_err(store_open_lmdb(&k->store.store, &config, &eb), ERR_OK, &eb);
    ledger_again(k);
    core_again(k);
}

static void cluster_close(struct cluster *k)
{
    core_test_fini(&k->t);
    ledger_close(k->ledger);
    crypto_key_free(k->key);
    store_test_close(&k->store);
}

/* What the loop does at the end of a turn. */
static void commit(struct cluster *k)
{
    struct errbuf eb = {{0}};
    assert_err(apply_effects(k->store.store, k->ledger, &k->t.effects, NULL, &eb), ERR_OK, &eb);
}

/* Steps a request, commits its turn, fills its reply; the reply went through a frame. */
static enum err ask(struct cluster *k, struct wire_request *request, struct wire_reply *ret_reply,
                    struct fill_context *context, struct errbuf *eb)
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
    commit(k);
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

static struct wire_reply ask_well(struct cluster *k, struct wire_request *request)
{
    struct wire_reply reply = {0};
    struct fill_context context;
    struct errbuf eb = {{0}};
    assert_err(ask(k, request, &reply, &context, &eb), ERR_OK, &eb);
    if (reply.kind == WIRE_REPLY_ERROR)
        fail_msg("%s", reply.error.text);
    return reply;
}

/* A worker with model "m" loaded, for answers of up to 200,000 tokens. */
static uint64_t worker_new(struct cluster *k, const char *name)
{
    struct wire_model_offer offer = {.name = "m",
                                     .architecture = "",
                                     .quantization = "",
                                     .chat_template = "",
                                     .context_tokens = 200000,
                                     .weights_bytes = CORE_TEST_GB};
    struct wire_model_status status = {.name = "m", .state = WIRE_MODEL_STATE_READY, .error = ""};
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_WORKER,
                                           .node = name,
                                           .tenant = "",
                                           .build = "",
                                           .worker = {.models = &offer,
                                                      .n_models = 1,
                                                      .status = &status,
                                                      .n_status = 1,
                                                      .memory = {.total_bytes = 8 * CORE_TEST_GB},
                                                      .device = "",
                                                      .isa = ""}}};
    hello.hello.public_key[0] = (uint8_t)name[0];
    hello.session = core_test_ask(&k->t, &hello)->session;
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    assert_true(core_test_ask(&k->t, &hello)->hello.established);
    commit(k);
    return hello.session;
}

static void submit(struct cluster *k, uint64_t client, uint8_t job, uint32_t max_tokens)
{
    struct wire_request request = core_test_submit(client, job, "m", max_tokens);
    request.submit.job.sampling =
        (struct wire_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7};
    (void)ask_well(k, &request);
}

/* Token i of every answer, and what it adds to the text. */
static int32_t token_at(uint32_t i)
{
    return (int32_t)(i * 2654435761u % 250000u);
}

static char text_at(uint32_t i)
{
    return (char)('a' + i % 23);
}

/* Tokens [first, first + n) of a job in one report. */
static void report(struct cluster *k, uint64_t worker, uint8_t job, uint64_t epoch, uint32_t first,
                   uint32_t n, enum wire_finish finish)
{
    int32_t *ids = calloc(n, sizeof *ids);
    uint8_t *text = calloc(n, 1);
    assert_non_null(ids);
    assert_non_null(text);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = token_at(first + i);
        text[i] = (uint8_t)text_at(first + i);
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
    struct wire_reply reply = ask_well(k, &request);
    assert_int_equal(reply.report.leases[0].next, first + n);
    assert_false(reply.report.leases[0].fenced);
    free(ids);
    free(text);
}

/* Time passes with nobody there; what it led to is stored. */
static void wait_stored(struct cluster *k, uint64_t ms)
{
    core_test_wait(&k->t, ms);
    commit(k);
}

/* Page by page, as a client reads. */
static void watch_whole(struct cluster *k, uint64_t client, uint8_t job, uint32_t tokens)
{
    uint32_t at = 0;
    bool over = false;
    unsigned pages = 0;
    while (!over) {
        struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                     .session = client,
                                     .watch = {.job_id = core_test_id(job), .first = at}};
        struct wire_watch_reply w = ask_well(k, &watch).watch;
        assert_int_equal(w.first, at);
        assert_int_equal(w.text.size, w.n_ids);
        for (size_t i = 0; i < w.n_ids; i++, at++) {
            assert_int_equal(w.ids[i], token_at(at));
            assert_int_equal(w.text.data[i], text_at(at));
        }
        over = w.end;
        assert_true(++pages < 20);
    }
    assert_int_equal(at, tokens);
}

/* Its worker dies behind 95,536 tokens, and then the coordinator; all of them go to the next one in
 * one RUN, which is more than a report or a page of a watch may bring. */
static void an_answer_longer_than_a_frame_goes_on_elsewhere(void **state)
{
    struct cluster k;
    (void)state;
    cluster_open(&k);
    uint64_t worker = worker_new(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    submit(&k, client, 1, 150000);
    report(&k, worker, 1, 1, 0, 65536, WIRE_FINISH_UNSPECIFIED);
    report(&k, worker, 1, 1, 65536, 30000, WIRE_FINISH_UNSPECIFIED);
    for (int restarts = 0; restarts < 2; restarts++) {
        if (restarts == 1) {
            cluster_stop(&k);
            cluster_start(&k);
            wait_stored(&k, k.t.config.grace_ms + 1);
        } else {
            wait_stored(&k, k.t.config.lease_ms + 1);
        }
        worker = worker_new(&k, restarts == 0 ? "x" : "v");
        client = core_test_client(&k.t, "c", "", 2);
        struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = worker};
        struct wire_reply reply = ask_well(&k, &pull);
        assert_int_equal(reply.pull.n_commands, 1);
        const struct wire_command_run *run = &reply.pull.commands[0].run;
        assert_int_equal(run->epoch, 2 + restarts);
        assert_int_equal(run->job.max_tokens, 150000);
        assert_int_equal(run->n_resume_ids, 95536);
        assert_int_equal(run->resume_text_bytes, 95536);
        for (uint32_t i = 0; i < run->n_resume_ids; i++)
            assert_int_equal(run->resume_ids[i], token_at(i));
    }
    report(&k, worker, 1, 3, 95536, 4464, WIRE_FINISH_UNSPECIFIED);
    report(&k, worker, 1, 3, 100000, 50000, WIRE_FINISH_LENGTH);
    const struct core_effect *e = core_test_find(&k.t, CORE_EFFECT_LEDGER);
    assert_non_null(e);
    assert_int_equal(e->ledger.completion_delivered, 150000);
    watch_whole(&k, client, 1, 150000);
    cluster_stop(&k);
    cluster_start(&k);
    client = core_test_client(&k.t, "c", "", 2);
    watch_whole(&k, client, 1, 150000);
    cluster_close(&k);
}

/* ---- the ledger ---- */

/* Pages of a log of 5000 records. */
static void a_checkpoint_is_signed_for_who_reads_to_the_end(void **state)
{
    static const struct {
        uint64_t first;
        uint32_t limit;
        unsigned new_records; /* of the same turn */
        uint64_t signed_size;
        bool wanted;
    } table[] = {
        {0, 0, 0, 0, false}, /* a page has at most 1000 */
        {0, 5000, 0, 4000, false},   {3999, 1000, 0, 4000, false},
        {4000, 1000, 0, 4000, true}, {4000, 999, 0, 4000, false},
        {4000, 0, 0, 5000, false}, /* it is signed */
        {4000, 0, 1, 5000, false}, /* the next page is the last */
        {4001, 0, 1, 5000, true},    {5000, 1, 0, 4999, true},
        {5000, 1, 0, 5000, false},   {UINT64_MAX, 1000, 0, 4999, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_effect records[2] = {{.kind = CORE_EFFECT_LEDGER}};
        struct core_effect page = {
            .kind = CORE_EFFECT_REPLY,
            .next = table[i].new_records > 0 ? records : NULL,
            .reply = {.fill = CORE_FILL_LEDGER,
                      .range = {.first = table[i].first, .limit = table[i].limit}}};
        struct core_effects effects = {.first = &page};
        if (fill_wants_checkpoint(&effects, 5000, table[i].signed_size) != table[i].wanted)
            fail_msg("row %zu", i);
        /* Nobody reads. */
        effects.first = table[i].new_records > 0 ? records : NULL;
        assert_false(fill_wants_checkpoint(&effects, 5000, table[i].signed_size));
    }
}

/* ---- damage ---- */

/* Flips a bit of the stored tokens of a job, wherever its chunk lies. The store is closed. */
static void chunk_damage(const struct cluster *k, uint8_t job, uint32_t first)
{
    char file[400];
    uint8_t key[APPLY_CHUNK_KEY_BYTES];
    struct stat st;
    struct id id = core_test_id(job);
    unsigned found = 0;
    apply_chunk_key(&id, first, key);
    (void)snprintf(file, sizeof file, "%s/data.mdb", k->store.path);
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size);
    assert_non_null(bytes);
    assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    for (size_t at = 2; at + sizeof key + 64 < (size_t)st.st_size; at++) {
        /* Before a key stands how long it is. */
        if (memcmp(bytes + at, key, sizeof key) != 0 || bytes[at - 2] != sizeof key ||
            bytes[at - 1] != 0)
            continue;
        /* Behind it: the seal's 12 bytes and the value. */
        bytes[at + sizeof key + 20] ^= 4;
        found++;
    }
    assert_true(found > 0);
    assert_int_equal(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    free(bytes);
    close(fd);
}

static void expect_unreadable(struct cluster *k, struct wire_request *request, uint8_t job)
{
    struct wire_reply reply;
    struct fill_context context;
    struct errbuf eb = {{0}};
    struct id id = core_test_id(job);
    assert_err(ask(k, request, &reply, &context, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "table chunk, key 0000000000000000000000000000000"));
    assert_non_null(strstr(eb.text, ": checksum is "));
    if (request->kind == WIRE_REQUEST_PULL)
        assert_int_equal(id_compare(&context.unreadable, &id), 0);
}

/* Of two jobs behind some tokens one cannot be read: it fails with the place, the other goes on. */
static void damaged_tokens_end_their_job_and_no_other(void **state)
{
    struct cluster k;
    (void)state;
    cluster_open(&k);
    uint64_t worker = worker_new(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    for (uint8_t job = 1; job <= 2; job++) {
        submit(&k, client, job, 100);
        report(&k, worker, job, 1, 0, 40, WIRE_FINISH_UNSPECIFIED);
    }
    cluster_stop(&k);
    chunk_damage(&k, 1, 0);
    cluster_start(&k);
    wait_stored(&k, k.t.config.grace_ms + 1);
    worker = worker_new(&k, "v");
    client = core_test_client(&k.t, "c", "", 2);
    struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = worker};
    expect_unreadable(&k, &pull, 1);

    struct core_event lost = {.kind = CORE_EVENT_JOB_LOST,
                              .job_id = core_test_id(1),
                              .reason = "table chunk",
                              .mono_ns = k.t.now_ms * 1000000,
                              .wall_ns = 1800000000000000000u};
    core_test_begin(&k.t);
    core_step(k.t.core, &lost, &k.t.effects);
    core_test_end(&k.t);
    commit(&k);
    struct wire_job_info info = core_test_job(&k.t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_int_equal(info.error.code, ERR_CORRUPT);
    struct wire_reply reply = ask_well(&k, &pull);
    assert_int_equal(reply.pull.commands[0].kind, WIRE_COMMAND_RUN);
    assert_int_equal(reply.pull.commands[0].run.job_id.bytes[15], 2);
    report(&k, worker, 2, 2, 40, 60, WIRE_FINISH_LENGTH);
    watch_whole(&k, client, 2, 100);
    struct wire_request watch = {
        .kind = WIRE_REQUEST_WATCH, .session = client, .watch = {.job_id = core_test_id(1)}};
    expect_unreadable(&k, &watch, 1);
    cluster_close(&k);
}

static bool count_visit(void *arg, const uint8_t *key, size_t key_size)
{
    (void)key;
    (void)key_size;
    ++*(unsigned *)arg;
    return true;
}

static unsigned rows(struct cluster *k, enum store_table table)
{
    struct errbuf eb = {{0}};
    unsigned n = 0;
    struct store_txn *txn = store_test_begin(k->store.store, false);
    assert_err(store_scan_keys(txn, table, NULL, 0, count_visit, &n, &eb), ERR_OK, &eb);
    store_abort(txn);
    return n;
}

/* Once it is the oldest of those that ended it has to go; that nobody can read it must not stop the
 * turn that removes it, and with it every turn from then on. */
static void damaged_tokens_can_be_removed(void **state)
{
    struct cluster k;
    (void)state;
    cluster_open(&k);
    k.t.config.retain_ended_jobs = 1;
    uint64_t worker = worker_new(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    submit(&k, client, 1, 100);
    report(&k, worker, 1, 1, 0, 40, WIRE_FINISH_UNSPECIFIED);
    report(&k, worker, 1, 1, 40, 60, WIRE_FINISH_LENGTH);
    cluster_stop(&k);
    chunk_damage(&k, 1, 0);
    cluster_start(&k);
    worker = worker_new(&k, "w");
    client = core_test_client(&k.t, "c", "", 2);
    submit(&k, client, 2, 100);
    assert_int_equal(rows(&k, STORE_TABLE_CHUNK), 2);
    report(&k, worker, 2, 1, 0, 100, WIRE_FINISH_LENGTH);
    k.t.now_ms += 61000; /* what has just ended is kept */
    submit(&k, client, 3, 100);
    assert_int_equal(core_test_count(&k.t, CORE_EFFECT_DELETE_JOB), 1);
    assert_int_equal(rows(&k, STORE_TABLE_CHUNK), 1);
    assert_int_equal(rows(&k, STORE_TABLE_JOB), 2);
    assert_int_equal(rows(&k, STORE_TABLE_CONTENT), 2);
    cluster_close(&k);
}

static void what_was_learned_of_a_model_can_be_removed(void **state)
{
    struct errbuf eb = {{0}};
    struct cluster k;
    (void)state;
    cluster_open(&k);
    (void)worker_new(&k, "w");
    assert_int_equal(rows(&k, STORE_TABLE_LEARNED), 1);
    struct core_effect forget = {.kind = CORE_EFFECT_DELETE_LEARNED, .learned = {.model = "m"}};
    struct core_effects effects = {.first = &forget, .last = &forget, .n_persist = 1};
    for (unsigned i = 0; i < 2; i++) { /* that it is not there is no reason to fail the turn */
        assert_err(apply_effects(k.store.store, k.ledger, &effects, NULL, &eb), ERR_OK, &eb);
        assert_int_equal(rows(&k, STORE_TABLE_LEARNED), 0);
    }
    cluster_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_longer_than_a_frame_goes_on_elsewhere),
        cmocka_unit_test(a_checkpoint_is_signed_for_who_reads_to_the_end),
        cmocka_unit_test(damaged_tokens_end_their_job_and_no_other),
        cmocka_unit_test(damaged_tokens_can_be_removed),
        cmocka_unit_test(what_was_learned_of_a_model_can_be_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
