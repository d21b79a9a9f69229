/*
 * Jobs and the store under them: the core with the real apply, fill and restore over a real file.
 * Answers longer than a frame, and answers whose stored tokens are damaged.
 */
#include "tests/unit/core/stored_test.h"

#include "coordinator/loop_apply.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Page by page, as a client reads. */
static void watch_whole(struct stored_test *k, uint64_t client, uint8_t job, uint32_t tokens)
{
    uint32_t at = 0;
    bool over = false;
    unsigned pages = 0;
    while (!over) {
        struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                     .session = client,
                                     .watch = {.job_id = core_test_id(job), .first = at}};
        struct wire_watch_reply w = stored_test_ask(k, &watch).watch;
        assert_int_equal(w.first, at);
        assert_int_equal(w.text.size, w.n_ids);
        for (size_t i = 0; i < w.n_ids; i++, at++) {
            assert_int_equal(w.ids[i], stored_test_token(at));
            assert_int_equal(w.text.data[i], stored_test_text(at));
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
    struct stored_test k;
    (void)state;
    stored_test_open(&k);
    uint64_t worker = stored_test_worker(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    stored_test_submit(&k, client, 1, 150000);
    stored_test_report(&k, worker, 1, 1, 0, 65536, WIRE_FINISH_UNSPECIFIED);
    stored_test_report(&k, worker, 1, 1, 65536, 30000, WIRE_FINISH_UNSPECIFIED);
    for (int restarts = 0; restarts < 2; restarts++) {
        if (restarts == 1) {
            stored_test_stop(&k);
            stored_test_start(&k);
            stored_test_wait(&k, k.t.config.grace_ms + 1);
        } else {
            stored_test_wait(&k, k.t.config.lease_ms + 1);
        }
        worker = stored_test_worker(&k, restarts == 0 ? "x" : "v");
        client = core_test_client(&k.t, "c", "", 2);
        struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = worker};
        struct wire_reply reply = stored_test_ask(&k, &pull);
        assert_int_equal(reply.pull.n_commands, 1);
        const struct wire_command_run *run = &reply.pull.commands[0].run;
        assert_int_equal(run->epoch, 2 + restarts);
        assert_int_equal(run->job.max_tokens, 150000);
        assert_int_equal(run->n_resume_ids, 95536);
        assert_int_equal(run->resume_text_bytes, 95536);
        for (uint32_t i = 0; i < run->n_resume_ids; i++)
            assert_int_equal(run->resume_ids[i], stored_test_token(i));
    }
    stored_test_report(&k, worker, 1, 3, 95536, 4464, WIRE_FINISH_UNSPECIFIED);
    stored_test_report(&k, worker, 1, 3, 100000, 50000, WIRE_FINISH_LENGTH);
    const struct core_effect *e = core_test_find(&k.t, CORE_EFFECT_LEDGER);
    assert_non_null(e);
    assert_int_equal(e->ledger.completion_delivered, 150000);
    watch_whole(&k, client, 1, 150000);
    stored_test_stop(&k);
    stored_test_start(&k);
    client = core_test_client(&k.t, "c", "", 2);
    watch_whole(&k, client, 1, 150000);
    stored_test_close(&k);
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
static void chunk_damage(const struct stored_test *k, uint8_t job, uint32_t first)
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

static void expect_unreadable(struct stored_test *k, struct wire_request *request, uint8_t job)
{
    struct wire_reply reply;
    struct fill_context context;
    struct errbuf eb = {{0}};
    struct id id = core_test_id(job);
    assert_err(stored_test_try(k, request, &reply, &context, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "table chunk, key 0000000000000000000000000000000"));
    assert_non_null(strstr(eb.text, ": checksum is "));
    if (request->kind == WIRE_REQUEST_PULL)
        assert_int_equal(id_compare(&context.unreadable, &id), 0);
}

/* Of two jobs behind some tokens one cannot be read: it fails with the place, the other goes on. */
static void damaged_tokens_end_their_job_and_no_other(void **state)
{
    struct stored_test k;
    (void)state;
    stored_test_open(&k);
    uint64_t worker = stored_test_worker(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    for (uint8_t job = 1; job <= 2; job++) {
        stored_test_submit(&k, client, job, 100);
        stored_test_report(&k, worker, job, 1, 0, 40, WIRE_FINISH_UNSPECIFIED);
    }
    stored_test_stop(&k);
    chunk_damage(&k, 1, 0);
    stored_test_start(&k);
    stored_test_wait(&k, k.t.config.grace_ms + 1);
    worker = stored_test_worker(&k, "v");
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
    stored_test_commit(&k);
    struct wire_job_info info = core_test_job(&k.t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_int_equal(info.error.code, ERR_CORRUPT);
    struct wire_reply reply = stored_test_ask(&k, &pull);
    assert_int_equal(reply.pull.commands[0].kind, WIRE_COMMAND_RUN);
    assert_int_equal(reply.pull.commands[0].run.job_id.bytes[15], 2);
    stored_test_report(&k, worker, 2, 2, 40, 60, WIRE_FINISH_LENGTH);
    watch_whole(&k, client, 2, 100);
    struct wire_request watch = {
        .kind = WIRE_REQUEST_WATCH, .session = client, .watch = {.job_id = core_test_id(1)}};
    expect_unreadable(&k, &watch, 1);
    stored_test_close(&k);
}

static bool count_visit(void *arg, const uint8_t *key, size_t key_size)
{
    (void)key;
    (void)key_size;
    ++*(unsigned *)arg;
    return true;
}

static unsigned rows(struct stored_test *k, enum store_table table)
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
    struct stored_test k;
    (void)state;
    stored_test_open(&k);
    k.t.config.retain_ended_jobs = 1;
    uint64_t worker = stored_test_worker(&k, "w");
    uint64_t client = core_test_client(&k.t, "c", "", 2);
    stored_test_submit(&k, client, 1, 100);
    stored_test_report(&k, worker, 1, 1, 0, 40, WIRE_FINISH_UNSPECIFIED);
    stored_test_report(&k, worker, 1, 1, 40, 60, WIRE_FINISH_LENGTH);
    stored_test_stop(&k);
    chunk_damage(&k, 1, 0);
    stored_test_start(&k);
    worker = stored_test_worker(&k, "w");
    client = core_test_client(&k.t, "c", "", 2);
    stored_test_submit(&k, client, 2, 100);
    assert_int_equal(rows(&k, STORE_TABLE_CHUNK), 2);
    stored_test_report(&k, worker, 2, 1, 0, 100, WIRE_FINISH_LENGTH);
    k.t.now_ms += 61000; /* what has just ended is kept */
    stored_test_submit(&k, client, 3, 100);
    assert_int_equal(core_test_count(&k.t, CORE_EFFECT_DELETE_JOB), 1);
    assert_int_equal(rows(&k, STORE_TABLE_CHUNK), 1);
    assert_int_equal(rows(&k, STORE_TABLE_JOB), 2);
    assert_int_equal(rows(&k, STORE_TABLE_CONTENT), 2);
    stored_test_close(&k);
}

static void what_was_learned_of_a_model_can_be_removed(void **state)
{
    struct errbuf eb = {{0}};
    struct stored_test k;
    (void)state;
    stored_test_open(&k);
    (void)stored_test_worker(&k, "w");
    assert_int_equal(rows(&k, STORE_TABLE_LEARNED), 1);
    struct core_effect forget = {.kind = CORE_EFFECT_DELETE_LEARNED, .learned = {.model = "m"}};
    struct core_effects effects = {.first = &forget, .last = &forget, .n_persist = 1};
    for (unsigned i = 0; i < 2; i++) { /* that it is not there is no reason to fail the turn */
        assert_err(apply_effects(k.store.store, k.ledger, &effects, NULL, &eb), ERR_OK, &eb);
        assert_int_equal(rows(&k, STORE_TABLE_LEARNED), 0);
    }
    stored_test_close(&k);
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
