/* libcloister against a coordinator that misbehaves in every way a real one can: the text comes out
 * exactly once, in order, and what cannot be mended is said in one clear line. */
#include "client/cloister.h"
#include "unit/client/fake_coordinator.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
/* For what comes in the end however slow the machine is; the test's own time limit is shorter. */
#define PATIENCE_MS 3600000u

struct rig {
    struct fake_coordinator fake;
    struct cloister *c;
    struct cloister_problem problem;
};

static void rig_connect(struct rig *r)
{
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    options.url = r->fake.url;
    options.wait_ms = PATIENCE_MS;
    options.stream_wait_ms = PATIENCE_MS;
    if (cloister_connect(&r->c, &options, &r->problem) != CLOISTER_OK)
        fail_msg("connect: %s", r->problem.text);
}

static void rig_open(struct rig *r)
{
    memset(r, 0, sizeof *r);
    fake_open(&r->fake);
    rig_connect(r);
}

static void rig_close(struct rig *r)
{
    cloister_close(r->c);
    fake_close(&r->fake);
}

static void job_make(struct cloister_job *job, struct cloister_message *message, const char *prompt)
{
    *job = (struct cloister_job)CLOISTER_JOB_INIT;
    *message = (struct cloister_message){.role = "user", .content = {prompt, strlen(prompt)}};
    job->model = "m";
    job->messages = message;
    job->n_messages = 1;
}

static void rig_submit(struct rig *r, const char *prompt, char ret_id[CLOISTER_ID_BYTES])
{
    struct cloister_job job;
    struct cloister_message message;
    job_make(&job, &message, prompt);
    cloister_id_new(ret_id);
    if (cloister_submit(r->c, ret_id, &job, NULL, &r->problem) != CLOISTER_OK)
        fail_msg("submit: %s", r->problem.text);
}

struct collected {
    struct buf text;
    uint32_t next; /* the token that must come now */
    unsigned events;
    struct cloister_event last;
    unsigned pause_ms;  /* in each event */
    unsigned enough_at; /* events; 0: never */
};

static int collect(void *arg, const struct cloister_event *event)
{
    struct collected *c = arg;
    c->events++;
    assert_int_equal(event->first, c->next);
    for (size_t i = 0; i < event->n_ids; i++)
        assert_int_equal(event->ids[i], (int32_t)(c->next + i));
    c->next += (uint32_t)event->n_ids;
    buf_append(&c->text, event->text.data, event->text.size);
    c->last = *event;
    if (c->pause_ms)
        fake_sleep_ms(c->pause_ms);
    return c->enough_at != 0 && c->events == c->enough_at;
}

static void check_text(const struct collected *c, const char *prompt, uint32_t first)
{
    struct buf want;
    buf_init(&want);
    fake_answer(prompt, first, fake_answer_tokens(prompt) - first, &want);
    assert_int_equal(c->text.size, want.size);
    assert_memory_equal(c->text.data, want.data, want.size);
    assert_int_equal(c->next, fake_answer_tokens(prompt));
    buf_fini(&want);
}

static void watch_all(struct rig *r, const char *id, const char *prompt, unsigned pause_ms)
{
    struct collected got = {.pause_ms = pause_ms};
    buf_init(&got.text);
    if (cloister_watch(r->c, id, 0, collect, &got, &r->problem) != CLOISTER_OK)
        fail_msg("watch: %s", r->problem.text);
    check_text(&got, prompt, 0);
    assert_int_equal(got.last.state, CLOISTER_STATE_DONE);
    assert_int_equal(got.last.finish, CLOISTER_FINISH_STOP);
    assert_int_equal(got.last.usage.completion_tokens, fake_answer_tokens(prompt));
    buf_fini(&got.text);
}

/* ---- an undisturbed run, and each fault by itself ---- */

static void test_each_fault_leaves_the_text_whole(void **state)
{
    (void)state;
    static const struct fake_faults table[] = {
        {0},
        {.tokens_a_watch = 1},
        {.tokens_a_watch = 3, .stale_every = 5},
        {.tokens_a_watch = 2, .stray_every = 2},
        {.tokens_a_watch = 4, .garbage_every = 4},
        {.tokens_a_watch = 1, .stale_every = 7, .stray_every = 3, .garbage_every = 11},
        {.tokens_a_watch = 5, .busy_submits = 3, .busy_retry_ms = 20},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct rig r;
        char id[CLOISTER_ID_BYTES], prompt[32];
        rig_open(&r);
        fake_set_faults(&r.fake, &table[i]);
        snprintf(prompt, sizeof prompt, "fault %zu", i);
        rig_submit(&r, prompt, id);
        watch_all(&r, id, prompt, 0);
        if (table[i].stale_every)
            assert_true(fake_counts(&r.fake).stales > 0);
        if (table[i].stray_every)
            assert_true(fake_counts(&r.fake).strays > 0);
        rig_close(&r);
    }
}

/* kill -9 of the coordinator, again and again while a stream is under way. */
struct chaos {
    struct fake_coordinator *fake;
    unsigned restarts;
    bool stop;
    pthread_mutex_t mutex;
};

static void *chaos_thread(void *arg)
{
    struct chaos *c = arg;
    for (;;) {
        pthread_mutex_lock(&c->mutex);
        bool stop = c->stop;
        pthread_mutex_unlock(&c->mutex);
        if (stop)
            return NULL;
        fake_sleep_ms(150 + c->restarts % 7 * 30);
        fake_restart(c->fake);
        c->restarts++;
    }
}

static void test_restarts_in_mid_stream(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    struct fake_faults faults = {.tokens_a_watch = 1};
    fake_set_faults(&r.fake, &faults);
    struct chaos chaos = {.fake = &r.fake, .mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    pthread_create(&thread, NULL, chaos_thread, &chaos);
    for (int round = 0; round < 3; round++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "restart %d", round);
        rig_submit(&r, prompt, id);
        watch_all(&r, id, prompt, 20);
    }
    pthread_mutex_lock(&chaos.mutex);
    chaos.stop = true;
    pthread_mutex_unlock(&chaos.mutex);
    pthread_join(thread, NULL);
    assert_true(chaos.restarts >= 3);
    assert_int_equal(fake_counts(&r.fake).jobs, 3); /* none was made twice */
    rig_close(&r);
}

struct watcher {
    struct rig *r;
    char id[CLOISTER_ID_BYTES], prompt[32];
};

static void *watcher_thread(void *arg)
{
    struct watcher *w = arg;
    struct collected got = {.pause_ms = 1};
    struct cloister_problem problem;
    buf_init(&got.text);
    if (cloister_watch(w->r->c, w->id, 0, collect, &got, &problem) != CLOISTER_OK)
        fail_msg("watch: %s", problem.text);
    check_text(&got, w->prompt, 0);
    buf_fini(&got.text);
    return NULL;
}

/* One connection, many threads: each has its own stream, and all survive the same restarts. */
static void test_many_streams_over_one_connection(void **state)
{
    (void)state;
    enum { STREAMS = 8 };
    struct rig r;
    struct watcher watchers[STREAMS];
    pthread_t threads[STREAMS], chaos_id;
    rig_open(&r);
    struct fake_faults faults = {.tokens_a_watch = 2, .stale_every = 31, .stray_every = 17};
    fake_set_faults(&r.fake, &faults);
    for (size_t i = 0; i < STREAMS; i++) {
        watchers[i].r = &r;
        snprintf(watchers[i].prompt, sizeof watchers[i].prompt, "stream %zu", i);
        rig_submit(&r, watchers[i].prompt, watchers[i].id);
    }
    struct chaos chaos = {.fake = &r.fake, .mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_create(&chaos_id, NULL, chaos_thread, &chaos);
    for (size_t i = 0; i < STREAMS; i++)
        pthread_create(&threads[i], NULL, watcher_thread, &watchers[i]);
    for (size_t i = 0; i < STREAMS; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_lock(&chaos.mutex);
    chaos.stop = true;
    pthread_mutex_unlock(&chaos.mutex);
    pthread_join(chaos_id, NULL);
    rig_close(&r);
}

/* ---- going on from a token, and stopping ---- */

static void test_watch_from_a_token(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    struct fake_faults faults = {.tokens_a_watch = 6};
    fake_set_faults(&r.fake, &faults);
    rig_submit(&r, "halfway", id);
    struct collected got = {.enough_at = 2};
    buf_init(&got.text);
    assert_int_equal(cloister_watch(r.c, id, 0, collect, &got, &r.problem),
                     CLOISTER_ERROR_CANCELLED);
    assert_int_equal(got.next, 12);
    got.enough_at = 0;
    assert_int_equal(cloister_watch(r.c, id, got.next, collect, &got, &r.problem), CLOISTER_OK);
    check_text(&got, "halfway", 0);
    buf_fini(&got.text);
    rig_close(&r);
}

static void *cancel_soon(void *arg)
{
    struct watcher *w = arg;
    struct cloister_problem problem;
    enum cloister_state state;
    fake_sleep_ms(50);
    if (cloister_cancel(w->r->c, w->id, "test", &state, &problem) != CLOISTER_OK)
        fail_msg("cancel: %s", problem.text);
    assert_int_equal(state, CLOISTER_STATE_CANCELLED);
    return NULL;
}

static void test_cancel_ends_the_watch(void **state)
{
    (void)state;
    struct rig r;
    pthread_t thread;
    struct watcher w = {.r = &r};
    rig_open(&r);
    struct fake_faults faults = {.tokens_a_watch = 2, .stop_at = 10};
    fake_set_faults(&r.fake, &faults);
    rig_submit(&r, "cancel me", w.id);
    pthread_create(&thread, NULL, cancel_soon, &w);
    struct collected got = {0};
    buf_init(&got.text);
    assert_int_equal(cloister_watch(r.c, w.id, 0, collect, &got, &r.problem), CLOISTER_OK);
    assert_int_equal(got.last.state, CLOISTER_STATE_CANCELLED);
    assert_int_equal(got.next, 10);
    pthread_join(thread, NULL);
    buf_fini(&got.text);
    rig_close(&r);
}

static void *interrupt_soon(void *arg)
{
    fake_sleep_ms(100);
    cloister_interrupt(arg);
    return NULL;
}

static void test_interrupt_ends_a_parked_watch(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    pthread_t thread;
    rig_open(&r);
    struct fake_faults faults = {.stop_at = 5};
    fake_set_faults(&r.fake, &faults);
    rig_submit(&r, "interrupt me", id);
    pthread_create(&thread, NULL, interrupt_soon, r.c);
    struct collected got = {0};
    buf_init(&got.text);
    assert_int_equal(cloister_watch(r.c, id, 0, collect, &got, &r.problem),
                     CLOISTER_ERROR_CANCELLED);
    pthread_join(thread, NULL);
    assert_int_equal(
        cloister_submit(r.c, id, &(struct cloister_job)CLOISTER_JOB_INIT, NULL, &r.problem),
        CLOISTER_ERROR_INVALID); /* no model: said before anything is sent */
    buf_fini(&got.text);
    rig_close(&r);
}

/* ---- ids ---- */

static void test_the_same_id_twice(void **state)
{
    (void)state;
    struct rig r;
    struct cloister_job job;
    struct cloister_message message;
    struct cloister_receipt receipt;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    job_make(&job, &message, "once");
    cloister_id_new(id);
    assert_int_equal(cloister_submit(r.c, id, &job, &receipt, &r.problem), CLOISTER_OK);
    assert_false(receipt.duplicate);
    assert_int_equal(receipt.queued_ahead, 3);
    assert_int_equal(cloister_submit(r.c, id, &job, &receipt, &r.problem), CLOISTER_OK);
    assert_true(receipt.duplicate);
    job.max_tokens++;
    assert_int_equal(cloister_submit(r.c, id, &job, &receipt, &r.problem), CLOISTER_ERROR_CONFLICT);
    assert_string_equal(r.problem.text, "this id has other content");
    rig_close(&r);
}

static void test_derived_ids(void **state)
{
    (void)state;
    char base[CLOISTER_ID_BYTES], a[CLOISTER_ID_BYTES], b[CLOISTER_ID_BYTES];
    cloister_id_new(base);
    assert_true(cloister_id_derive(base, "line 1", 6, a));
    assert_true(cloister_id_derive(base, "line 1", 6, b));
    assert_string_equal(a, b);
    assert_memory_equal(a, base, 12); /* the time is kept: ids stay in order of it */
    assert_true(cloister_id_derive(base, "line 2", 6, b));
    assert_string_not_equal(a, b);
    assert_int_equal(a[12], '8');
    assert_false(cloister_id_derive("no id", "x", 1, b));
}

static void test_prefixes(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    fake_add_job(&r.fake, "aaaa1000000000000000000000000001", "a");
    fake_add_job(&r.fake, "aaaa2000000000000000000000000002", "b");
    fake_add_job(&r.fake, "bbbb3000000000000000000000000003", "c");
    static const struct {
        const char *prefix;
        enum cloister_error err;
        const char *says;
    } table[] = {
        {"bbbb", CLOISTER_OK, "bbbb3000000000000000000000000003"},
        {"AAAA2", CLOISTER_OK, "aaaa2000000000000000000000000002"},
        {"aaaa1", CLOISTER_OK, "aaaa1000000000000000000000000001"},
        {"aaaa2000000000000000000000000002", CLOISTER_OK, "aaaa2000000000000000000000000002"},
        {"cccc0000000000000000000000000009", CLOISTER_OK, "cccc0000000000000000000000000009"},
        {"aaaa", CLOISTER_ERROR_CONFLICT,
         "aaaa may be any of 2 jobs: aaaa1000000000000000000000000001, "
         "aaaa2000000000000000000000000002; give more digits"},
        {"cccc", CLOISTER_ERROR_NOT_FOUND, "there is no job cccc"},
        {"aaaa3", CLOISTER_ERROR_NOT_FOUND, "there is no job aaaa3"},
        {"a", CLOISTER_ERROR_INVALID, "\"a\" is not a job id: give 2 to 32 of its hex digits"},
        {"hello", CLOISTER_ERROR_INVALID,
         "\"hello\" is not a job id: give 2 to 32 of its hex digits"},
        {"", CLOISTER_ERROR_INVALID, "\"\" is not a job id: give 2 to 32 of its hex digits"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(cloister_find_job(r.c, table[i].prefix, id, &r.problem), table[i].err);
        assert_string_equal(table[i].err == CLOISTER_OK ? id : r.problem.text, table[i].says);
    }
    rig_close(&r);
}

/* Short forms come before beginnings of ids; a whole one, or more of the end, may be given. */
static void test_short_ids(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES], short_id[CLOISTER_SHORT_ID_BYTES];
    static const char *const ids[] = {
        "01a2055700007000800000004d9f0001", "01a2055700007000800000004d9f0002",
        "01a205570000700080000000beef0000", "4d9f055700007000800000001234abcd",
        "01a205570000700080000001beef0000",
    };
    rig_open(&r);
    for (size_t i = 0; i < COUNT(ids); i++)
        fake_add_job(&r.fake, ids[i], "a");
    static const struct {
        const char *digits;
        enum cloister_error err;
        const char *says; /* the id, or the error */
    } table[] = {
        {"12", CLOISTER_OK, "4d9f055700007000800000001234abcd"},
        {"1234ABC", CLOISTER_OK, "4d9f055700007000800000001234abcd"},
        {"4d9f0001", CLOISTER_OK, "01a2055700007000800000004d9f0001"},
        {"4d9f055", CLOISTER_OK, "4d9f055700007000800000001234abcd"},
        {"cd", CLOISTER_OK, "4d9f055700007000800000001234abcd"},
        {"4ABCD", CLOISTER_OK, "4d9f055700007000800000001234abcd"},
        {"f0002", CLOISTER_OK, "01a2055700007000800000004d9f0002"},
        {"e4abcd", CLOISTER_ERROR_NOT_FOUND, "there is no job e4abcd"},
        {"00004d9f0002", CLOISTER_OK, "01a2055700007000800000004d9f0002"},
        {"0000000beef0000", CLOISTER_OK, "01a205570000700080000000beef0000"},
        {"4d9", CLOISTER_ERROR_CONFLICT,
         "4d9 may be any of 2 jobs: 4d9f0001, 4d9f0002; give more digits"},
        {"beef0000", CLOISTER_ERROR_CONFLICT,
         "beef0000 may be any of 2 jobs: 01a205570000700080000000beef0000, "
         "01a205570000700080000001beef0000; give more digits"},
        {"4d9f0003", CLOISTER_ERROR_NOT_FOUND, "there is no job 4d9f0003"},
        {"00014d9f0002", CLOISTER_ERROR_NOT_FOUND, "there is no job 00014d9f0002"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(cloister_find_job(r.c, table[i].digits, id, &r.problem), table[i].err);
        assert_string_equal(table[i].err == CLOISTER_OK ? id : r.problem.text, table[i].says);
    }
    cloister_id_short(ids[3], short_id);
    assert_string_equal(short_id, "1234abcd");
    rig_close(&r);
}

static void test_an_ambiguous_prefix_of_many(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(id, sizeof id, "abcd%028u", i);
        fake_add_job(&r.fake, id, "x");
    }
    assert_int_equal(cloister_find_job(r.c, "abcd", id, &r.problem), CLOISTER_ERROR_CONFLICT);
    assert_non_null(strstr(r.problem.text, "of 50 jobs"));
    assert_non_null(strstr(r.problem.text, ", ..."));
    rig_close(&r);
}

/* ---- what cannot be mended ---- */

static enum cloister_error try_connect(const char *url, uint64_t wait_ms, const uint8_t *pinned,
                                       struct cloister_problem *problem)
{
    struct cloister *c = NULL;
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    options.url = url;
    options.wait_ms = wait_ms;
    options.coordinator_key = pinned;
    enum cloister_error err = cloister_connect(&c, &options, problem);
    cloister_close(c);
    return err;
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct cloister_problem problem;
    struct fake_coordinator fake;
    char want[160];
    fake_open(&fake);
    fake_stop_listening(&fake);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_int_equal(try_connect(fake.url, 300, NULL, &problem), CLOISTER_ERROR_UNAVAILABLE);
    clock_gettime(CLOCK_MONOTONIC, &end);
    snprintf(want, sizeof want, "no coordinator at %s: connection refused (tried for ", fake.url);
    assert_memory_equal(problem.text, want, strlen(want));
    assert_true(problem.retryable);
    assert_true(end.tv_sec - begin.tv_sec <= 5);
    fake_close(&fake);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    struct cloister_problem problem;
    static const struct {
        const char *url, *says;
    } table[] = {
        {NULL, "no coordinator address was given"},
        {"http://x:1", "\"http://x:1\" is not an address; write tcp://HOST:PORT or "
                       "tls+tcp://HOST:PORT, such as tcp://127.0.0.1:7420"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(try_connect(table[i].url, 100, NULL, &problem), CLOISTER_ERROR_INVALID);
        assert_string_equal(problem.text, table[i].says);
    }
    struct cloister *c = NULL;
    assert_int_equal(cloister_connect(&c, &(struct cloister_options){.url = "tcp://a:1"}, &problem),
                     CLOISTER_ERROR_INVALID);
    assert_string_equal(problem.text,
                        "the options' size is not set; begin with CLOISTER_OPTIONS_INIT");
}

static void test_identity_of_the_coordinator(void **state)
{
    (void)state;
    struct cloister_problem problem;
    struct fake_coordinator fake;
    uint8_t key[32];
    fake_open(&fake);
    crypto_key_public(fake.key, key);
    assert_int_equal(try_connect(fake.url, PATIENCE_MS, key, &problem), CLOISTER_OK);
    key[0] ^= 1;
    assert_int_equal(try_connect(fake.url, PATIENCE_MS, key, &problem), CLOISTER_ERROR_REFUSED);
    assert_non_null(strstr(problem.text, "which is not the one configured"));
    fake_set_faults(&fake, &(struct fake_faults){.bad_signature = true});
    assert_int_equal(try_connect(fake.url, PATIENCE_MS, NULL, &problem), CLOISTER_ERROR_CORRUPT);
    assert_non_null(strstr(problem.text, "could not prove that it owns its key"));
    fake_set_faults(&fake, &(struct fake_faults){.never_hello = true});
    assert_int_equal(try_connect(fake.url, PATIENCE_MS, NULL, &problem), CLOISTER_ERROR_REFUSED);
    assert_string_equal(problem.text, "this key is not known here");
    fake_close(&fake);
}

static void test_a_submit_that_is_refused(void **state)
{
    (void)state;
    struct rig r;
    struct cloister_job job;
    struct cloister_message message;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    static const unsigned codes[] = {ERR_REFUSED, ERR_TOO_LARGE, ERR_NOT_FOUND, ERR_NO_SPACE};
    for (size_t i = 0; i < COUNT(codes); i++) {
        fake_set_faults(&r.fake, &(struct fake_faults){.refuse_submits_with = codes[i]});
        job_make(&job, &message, "no");
        cloister_id_new(id);
        assert_int_equal(cloister_submit(r.c, id, &job, NULL, &r.problem), codes[i]);
        assert_string_equal(r.problem.text, "not today");
    }
    /* Busy for longer than we wait: said at once, with the time to come back. */
    fake_set_faults(&r.fake,
                    &(struct fake_faults){.busy_submits = 9, .busy_retry_ms = 2 * PATIENCE_MS});
    assert_int_equal(cloister_submit(r.c, id, &job, NULL, &r.problem), CLOISTER_ERROR_BUSY);
    assert_int_equal(r.problem.retry_after_ms, 2 * PATIENCE_MS);
    assert_int_equal(cloister_watch(r.c, id, 0, collect, NULL, &r.problem),
                     CLOISTER_ERROR_NOT_FOUND);
    rig_close(&r);
}

/* A large one goes out again only to a coordinator that knows us. */
static void test_a_large_submit_is_sent_again_behind_a_hello(void **state)
{
    (void)state;
    static char large[100000];
    memset(large, 'x', sizeof large - 1);
    const struct {
        const char *prompt;
        unsigned stales;
    } table[] = {{large, 0}, {"small", 1}};
    for (size_t i = 0; i < COUNT(table); i++) {
        struct rig r;
        char id[CLOISTER_ID_BYTES];
        rig_open(&r);
        unsigned hellos = fake_counts(&r.fake).hellos;
        fake_set_faults(&r.fake, &(struct fake_faults){.lost_submits = 1});
        rig_submit(&r, table[i].prompt, id);
        assert_int_equal(fake_counts(&r.fake).stales, table[i].stales);
        assert_true(fake_counts(&r.fake).hellos > hellos);
        assert_int_equal(fake_counts(&r.fake).jobs, 1);
        rig_close(&r);
    }
}

static void test_answers_of_several_pages_are_one(void **state)
{
    (void)state;
    struct rig r;
    struct cloister_result *result;
    const struct cloister_worker *workers;
    const struct cloister_usage_report *usage;
    size_t n;
    rig_open(&r);
    unsigned before = fake_counts(&r.fake).requests;
    assert_int_equal(cloister_list_workers(r.c, &result, &workers, &n, &r.problem), CLOISTER_OK);
    assert_int_equal(n, FAKE_PAGES);
    assert_int_equal(fake_counts(&r.fake).requests, before + FAKE_PAGES);
    assert_string_equal(workers[0].name, "w1");
    assert_string_equal(workers[2].name, "w3");
    assert_string_equal(workers[2].state, "gone");
    cloister_result_free(result);
    assert_int_equal(cloister_get_usage(r.c, NULL, NULL, 0, 0, &result, &usage, &r.problem),
                     CLOISTER_OK);
    assert_int_equal(usage->n_rows, FAKE_PAGES);
    assert_int_equal(usage->n_balances, 1);
    assert_int_equal(usage->balances[0].settled_tokens, 6);
    for (unsigned i = 0; i < FAKE_PAGES; i++) {
        assert_int_equal(usage->rows[i].day, 20260101 + i);
        assert_int_equal(usage->rows[i].jobs, 1 + i);
    }
    cloister_result_free(result);
    rig_close(&r);
}

static void test_pages_that_lead_nowhere(void **state)
{
    (void)state;
    struct rig r;
    struct cloister_result *result;
    const struct cloister_worker *workers;
    const struct cloister_usage_report *usage;
    size_t n;
    rig_open(&r);
    fake_set_faults(&r.fake, &(struct fake_faults){.first_page_for_ever = true});
    assert_int_equal(cloister_list_workers(r.c, &result, &workers, &n, &r.problem),
                     CLOISTER_ERROR_CORRUPT);
    assert_string_equal(r.problem.text, "the coordinator's list of workers has no end");
    assert_int_equal(cloister_get_usage(r.c, NULL, NULL, 0, 0, &result, &usage, &r.problem),
                     CLOISTER_ERROR_CORRUPT);
    assert_string_equal(r.problem.text, "the coordinator's usage has no end");
    rig_close(&r);
}

static void test_jobs_that_are_no_jobs(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    cloister_id_new(id);
    struct cloister_message message = {.role = "user", .content = {"x", 1}};
    struct cloister_job no_size = {.model = "m"};
    struct cloister_job no_prompt = CLOISTER_JOB_INIT, two_prompts = CLOISTER_JOB_INIT;
    no_prompt.model = two_prompts.model = "m";
    two_prompts.messages = &message;
    two_prompts.n_messages = 1;
    two_prompts.text = (struct cloister_bytes){"y", 1};
    assert_int_equal(cloister_submit(r.c, id, &no_size, NULL, &r.problem), CLOISTER_ERROR_INVALID);
    assert_int_equal(cloister_submit(r.c, id, &no_prompt, NULL, &r.problem),
                     CLOISTER_ERROR_INVALID);
    assert_string_equal(r.problem.text, "the job has no prompt");
    assert_int_equal(cloister_submit(r.c, id, &two_prompts, NULL, &r.problem),
                     CLOISTER_ERROR_INVALID);
    assert_int_equal(cloister_submit(r.c, "zz", &two_prompts, NULL, NULL), CLOISTER_ERROR_INVALID);
    assert_int_equal(fake_counts(&r.fake).submits, 0);
    rig_close(&r);
}

static void test_strays_for_ever_are_an_error(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    rig_submit(&r, "strays", id);
    fake_set_faults(&r.fake, &(struct fake_faults){.stray_every = 1, .tokens_a_watch = 1});
    struct collected got = {0};
    buf_init(&got.text);
    assert_int_equal(cloister_watch(r.c, id, 0, collect, &got, &r.problem), CLOISTER_ERROR_CORRUPT);
    assert_int_equal(got.text.size, 0);
    buf_fini(&got.text);
    rig_close(&r);
}

static void test_a_failed_job_says_why(void **state)
{
    (void)state;
    struct rig r;
    char id[CLOISTER_ID_BYTES];
    rig_open(&r);
    fake_set_faults(&r.fake, &(struct fake_faults){.end_state = WIRE_JOB_STATE_FAILED});
    rig_submit(&r, "broken", id);
    struct collected got = {0};
    buf_init(&got.text);
    assert_int_equal(cloister_watch(r.c, id, 0, collect, &got, &r.problem), CLOISTER_OK);
    assert_int_equal(got.last.state, CLOISTER_STATE_FAILED);
    assert_int_equal(got.last.error, CLOISTER_ERROR_CORRUPT);
    buf_fini(&got.text);
    rig_close(&r);
}

/* A coordinator that comes up late is waited for, and the waiting is announced once. */
struct notices {
    unsigned waiting, reconnected;
};

static void on_notice(void *arg, enum cloister_notice notice, const char *text)
{
    struct notices *n = arg;
    assert_true(strlen(text) > 0);
    n->waiting += notice == CLOISTER_NOTICE_WAITING;
    n->reconnected += notice == CLOISTER_NOTICE_RECONNECTED;
}

static void *listen_late(void *arg)
{
    fake_sleep_ms(1800);
    fake_listen(arg);
    return NULL;
}

static void test_a_coordinator_that_comes_late(void **state)
{
    (void)state;
    struct rig r = {0};
    struct notices notices = {0};
    pthread_t thread;
    fake_open(&r.fake);
    fake_stop_listening(&r.fake);
    pthread_create(&thread, NULL, listen_late, &r.fake);
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    options.url = r.fake.url;
    options.wait_ms = PATIENCE_MS;
    options.on_notice = on_notice;
    options.notice_arg = &notices;
    if (cloister_connect(&r.c, &options, &r.problem) != CLOISTER_OK)
        fail_msg("connect: %s", r.problem.text);
    pthread_join(thread, NULL);
    assert_int_equal(notices.waiting, 1);
    assert_int_equal(notices.reconnected, 1);
    struct cloister_server server;
    uint8_t key[32];
    cloister_get_server(r.c, &server);
    crypto_key_public(r.fake.key, key);
    assert_string_equal(server.name, "fake");
    assert_memory_equal(server.public_key, key, sizeof key);
    rig_close(&r);
}

static void test_identity_file(void **state)
{
    (void)state;
    struct fake_coordinator fake;
    struct cloister_problem problem;
    uint8_t keys[2][32];
    char dir[] = "/tmp/cloister-client-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/client.key", dir);
    fake_open(&fake);
    for (int i = 0; i < 2; i++) {
        struct cloister *c = NULL;
        struct cloister_options options = CLOISTER_OPTIONS_INIT;
        options.url = fake.url;
        options.identity_file = path;
        assert_int_equal(cloister_connect(&c, &options, &problem), CLOISTER_OK);
        cloister_get_public_key(c, keys[i]);
        cloister_close(c);
    }
    assert_memory_equal(keys[0], keys[1], 32);
    unlink(path);
    rmdir(dir);
    fake_close(&fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_fault_leaves_the_text_whole),
        cmocka_unit_test(test_restarts_in_mid_stream),
        cmocka_unit_test(test_many_streams_over_one_connection),
        cmocka_unit_test(test_watch_from_a_token),
        cmocka_unit_test(test_cancel_ends_the_watch),
        cmocka_unit_test(test_interrupt_ends_a_parked_watch),
        cmocka_unit_test(test_the_same_id_twice),
        cmocka_unit_test(test_derived_ids),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_short_ids),
        cmocka_unit_test(test_an_ambiguous_prefix_of_many),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_identity_of_the_coordinator),
        cmocka_unit_test(test_a_submit_that_is_refused),
        cmocka_unit_test(test_answers_of_several_pages_are_one),
        cmocka_unit_test(test_pages_that_lead_nowhere),
        cmocka_unit_test(test_a_large_submit_is_sent_again_behind_a_hello),
        cmocka_unit_test(test_jobs_that_are_no_jobs),
        cmocka_unit_test(test_strays_for_ever_are_an_error),
        cmocka_unit_test(test_a_failed_job_says_why),
        cmocka_unit_test(test_a_coordinator_that_comes_late),
        cmocka_unit_test(test_identity_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
