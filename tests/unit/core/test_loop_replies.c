/*
 * Loops in processes of their own. What replies cost: large ones that are asked for all at once are
 * all given, and never lie in memory all at once. What is accepted where two ledgers are in use
 * under one name.
 */
#include "tests/unit/core/loop_test.h"

#include "common/limits.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASKED 160u

/* The most memory that the loop's process ever had. */
static uint64_t peak_bytes(const struct loop_test *k)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)k->pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (kib == 0 && fgets(line, sizeof line, f) != NULL)
        (void)sscanf(line, "VmHWM: %llu", &kib);
    (void)fclose(f);
    assert_true(kib > 0);
    return (uint64_t)kib << 10;
}

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned answered, whole;
} replies = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_reply(void *arg, enum err err, const void *bytes, size_t size)
{
    struct wire_reply reply;
    struct arena arena;
    (void)arg;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    bool whole = err == ERR_OK && wire_reply_decode(bytes, size, &arena, &reply, NULL) == ERR_OK &&
                 reply.kind == (int)WIRE_REQUEST_GET_JOB &&
                 reply.get_job.job.text.size == LIMIT_PROMPT_BYTES;
    arena_fini(&arena);
    (void)pthread_mutex_lock(&replies.mutex);
    replies.answered++;
    replies.whole += whole;
    (void)pthread_cond_signal(&replies.changed);
    (void)pthread_mutex_unlock(&replies.mutex);
}

static void large_jobs_asked_for_at_once_come_one_after_another(void **state)
{
    (void)state;
    static struct transport_call *calls[ASKED];
    struct loop_test k;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct wire_reply reply;
    struct buf out;
    uint8_t *text = malloc(LIMIT_PROMPT_BYTES);
    assert_non_null(text);
    memset(text, 'a', LIMIT_PROMPT_BYTES);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    loop_test_open(&k, NULL);
    struct wire_request submit = loop_test_submit(text, LIMIT_PROMPT_BYTES);
    loop_test_ask(&k, &submit, &arena, &reply);
    uint64_t before = peak_bytes(&k);

    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB,
                               .session = k.session,
                               .get_job = {.job_id = submit.submit.job_id}};
    for (unsigned i = 0; i < ASKED; i++) {
        buf_init(&out);
        get.request_id = id_new();
        assert_err(wire_request_encode(&get, &out, &eb), ERR_OK, &eb);
        assert_err(transport_call_start(k.transport, out.data, out.size, LOOP_TEST_MS, on_reply,
                                        NULL, &calls[i], &eb),
                   ERR_OK, &eb);
        buf_fini(&out);
    }
    (void)pthread_mutex_lock(&replies.mutex);
    while (replies.answered < ASKED)
        (void)pthread_cond_wait(&replies.changed, &replies.mutex);
    (void)pthread_mutex_unlock(&replies.mutex);
    for (unsigned i = 0; i < ASKED; i++)
        transport_call_free(calls[i]);
    assert_int_equal(replies.whole, ASKED);
    uint64_t more = peak_bytes(&k) - before;
    print_message("%u replies of 8 MiB took %llu MiB more\n", ASKED,
                  (unsigned long long)(more >> 20));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep what is freed */
    assert_true(more < 320u << 20);
#endif
    loop_test_close(&k);
    arena_fini(&arena);
    free(text);
}

/* The newest checkpoint is signed for who reads the ledger to its end. */
static uint64_t signed_size(struct loop_test *k, struct arena *arena)
{
    struct wire_request range = {.kind = WIRE_REQUEST_LEDGER_RANGE};
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS};
    struct wire_reply reply;
    loop_test_ask(k, &range, arena, &reply);
    loop_test_hello(k);
    loop_test_ask(k, &status, arena, &reply);
    return reply.status.checkpoint_size;
}

/* The second one to sign finds the other's checkpoint, which is not of its log. */
static void two_ledgers_under_one_name_stop_accepting(void **state)
{
    (void)state;
    static const uint8_t text[] = "Why?";
    struct loop_test first, second;
    struct arena arena;
    struct wire_reply reply;
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS};
    arena_init(&arena, LIMIT_DECODE_BYTES);
    loop_test_open(&first, NULL);
    loop_test_open(&second, &first);
    struct wire_request submit = loop_test_submit(text, sizeof text - 1);
    loop_test_ask(&second, &submit, &arena, &reply);
    loop_test_ask(&second, &status, &arena, &reply);
    assert_true(reply.status.admission_open);
    assert_int_equal(signed_size(&first, &arena), 1);

    assert_int_equal(signed_size(&second, &arena), 0);
    loop_test_ask(&second, &status, &arena, &reply);
    assert_false(reply.status.healthy);
    assert_false(reply.status.admission_open);
    assert_true(reply.status.n_reasons >= 1);
    assert_non_null(
        strstr(reply.status.reasons[0], "the ledger and its last checkpoint do not agree"));
    struct wire_request another = loop_test_submit(text, sizeof text - 1);
    assert_int_equal(loop_test_try(&second, &another, &arena, &reply), ERR_FORKED);
    assert_false(reply.error.retryable);
    assert_non_null(strstr(reply.error.text, "do not agree"));
    /* What was accepted before can be read, and the first one goes on. */
    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB,
                               .get_job = {.job_id = submit.submit.job_id}};
    loop_test_ask(&second, &get, &arena, &reply);
    loop_test_ask(&first, &another, &arena, &reply);
    loop_test_ask(&first, &status, &arena, &reply);
    assert_true(reply.status.admission_open);
    loop_test_close(&second);
    loop_test_close(&first);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[0], "loop") == 0)
        return loop_test_main(argv[1], argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_jobs_asked_for_at_once_come_one_after_another),
        cmocka_unit_test(two_ledgers_under_one_name_stop_accepting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
