/*
 * A loop over a store that refuses something each time. The linker takes the functions below before
 * the store's; what they refuse is in the environment, so that the loop's process has it too.
 */
#include "common/clock.h"
#include "common/limits.h"
#include "proto/record.h"
#include "tests/unit/core/loop_test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define VARIABLE "CLOISTER_TEST_REFUSE"

enum err __real_store_put(struct store_txn *txn, enum store_table table, const void *key,
                          size_t key_size, const void *value, size_t value_size, struct errbuf *eb);
enum err __real_store_commit(struct store_txn *txn, struct errbuf *eb);
enum err __wrap_store_put(struct store_txn *txn, enum store_table table, const void *key,
                          size_t key_size, const void *value, size_t value_size, struct errbuf *eb);
enum err __wrap_store_commit(struct store_txn *txn, struct errbuf *eb);

static bool refuses(const char *what)
{
    const char *refused = getenv(VARIABLE);
    return refused != NULL && strcmp(refused, what) == 0;
}

static unsigned contents;         /* put in this transaction; of the committing thread */
static _Thread_local bool marked; /* this transaction says that the ledger was signed */

enum err __wrap_store_put(struct store_txn *txn, enum store_table table, const void *key,
                          size_t key_size, const void *value, size_t value_size, struct errbuf *eb)
{
    static const char bad[] = "refuse me", mark[] = "ledger_signed";
    marked |= table == STORE_TABLE_META && key_size == sizeof mark - 1 &&
              memcmp(key, mark, key_size) == 0;
    if (table == STORE_TABLE_CONTENT) {
        contents++;
        if ((refuses("text") || refuses("text, slowly")) &&
            memmem(value, value_size, bad, sizeof bad - 1) != NULL)
            return err_set(eb, ERR_TOO_LARGE, "a value is too large for this store");
    }
    if (table == STORE_TABLE_LEARNED && refuses("learned"))
        return err_set(eb, ERR_TOO_LARGE, "a model is too large for this store");
    if (table == STORE_TABLE_JOB && (refuses("expired") || refuses("ended"))) {
        struct record_job job;
        struct arena arena;
        arena_init(&arena, LIMIT_DECODE_BYTES);
        enum err err = record_job_decode(value, value_size, &arena, &job, eb);
        arena_fini(&arena);
        if (err == ERR_OK && (job.state == WIRE_JOB_STATE_EXPIRED ||
                              (job.state == WIRE_JOB_STATE_FAILED && refuses("ended"))))
            return err_set(eb, ERR_INVALID, "a job may not end in this store");
    }
    return __real_store_put(txn, table, key, key_size, value, value_size, eb);
}

static _Thread_local bool sync_fails; /* which LMDB calls: the linker takes this before libc's */

int fdatasync(int fd)
{
    if (sync_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

#define SLOW_MS 2000u

/* "disk N": the next N commits of jobs fail. "full": the first commit of jobs finds the disk full,
 * and the next commit of all, which tries whether it still is, a sync that fails. "mark": so does
 * the first commit of a checkpoint. "hang PATH": a commit of jobs hangs until there is that file.
 */
enum err __wrap_store_commit(struct store_txn *txn, struct errbuf *eb)
{
    static unsigned failed;
    const char *refused = getenv(VARIABLE);
    bool of_jobs = contents > 0;
    contents = 0;
    if (of_jobs && refused != NULL && strncmp(refused, "disk ", 5) == 0 &&
        failed < strtoul(refused + 5, NULL, 10)) {
        failed++;
        store_abort(txn);
        return err_set(eb, ERR_IO, "the disk of this store has failed");
    }
    if (of_jobs && refuses("text, slowly")) {
        const struct timespec slow = {.tv_sec = SLOW_MS / 1000};
        nanosleep(&slow, NULL);
    }
    if (of_jobs && refused != NULL && strncmp(refused, "hang ", 5) == 0) {
        const struct timespec pause = {.tv_nsec = 10000000};
        while (access(refused + 5, F_OK) != 0)
            nanosleep(&pause, NULL);
    }
    if (refuses("full") && of_jobs && failed++ == 0) {
        store_abort(txn);
        return err_set(eb, ERR_NO_SPACE, "the disk of this store is full");
    }
    sync_fails =
        (refuses("full") && !of_jobs && failed == 1) || (refuses("mark") && marked && failed == 0);
    failed += sync_fails;
    enum err err = __real_store_commit(txn, eb);
    sync_fails = marked = false;
    return err;
}

static void cluster_open(struct loop_test *k, const char *refused)
{
    assert_int_equal(setenv(VARIABLE, refused, 1), 0);
    loop_test_open(k, NULL);
}

/* As a client does: what may be asked again is. An error's text is copied. */
static enum err submit_well(struct loop_test *k, struct wire_request *submit, struct errbuf *eb)
{
    struct wire_reply reply = {0};
    struct arena arena;
    struct timespec pause = {.tv_nsec = 20000000};
    enum err err;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    for (unsigned times = 0;; times++) {
        arena_reset(&arena);
        err = loop_test_try(k, submit, &arena, &reply);
        if (err == ERR_OK || !err_retryable(err) || times == 200)
            break;
        nanosleep(&pause, NULL);
        if (loop_test_hello_try(k) == ERR_UNAVAILABLE)
            nanosleep(&pause, NULL);
    }
    if (err != ERR_OK && reply.kind == WIRE_REPLY_ERROR)
        (void)err_set(eb, err, "%s", reply.error.text);
    arena_fini(&arena);
    return err;
}

static enum wire_job_state job_state(struct loop_test *k, const struct id *job_id,
                                     struct errbuf *eb)
{
    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB, .get_job = {.job_id = *job_id}};
    struct wire_reply reply = {0};
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    enum err err = loop_test_try(k, &get, &arena, &reply);
    enum wire_job_state state = err == ERR_OK ? reply.get_job.info.state : 0;
    if (err == ERR_OK)
        (void)err_set(eb, err, "%s", reply.get_job.info.error.text);
    arena_fini(&arena);
    return state;
}

/* ---- one among many ---- */

#define CLIENTS 6u
#define JOBS    12u

struct submitter {
    struct loop_test k;
    bool bad_one;
    pthread_t thread;
    struct id accepted[JOBS];
    size_t n_accepted, n_refused;
    struct id refused;
    struct errbuf why;
};

static void *submitter_run(void *arg)
{
    static const char good[] = "Why?", bad[] = "Why? refuse me";
    struct submitter *s = arg;
    for (unsigned i = 0; i < JOBS; i++) {
        const char *text = s->bad_one && i == JOBS / 2 ? bad : good;
        struct wire_request submit = loop_test_submit((const uint8_t *)text, strlen(text));
        enum err err = submit_well(&s->k, &submit, &s->why);
        if (err == ERR_OK) {
            s->accepted[s->n_accepted++] = submit.submit.job_id;
        } else {
            s->n_refused += err == ERR_TOO_LARGE;
            s->refused = submit.submit.job_id;
        }
    }
    return NULL;
}

/* From several clients at once, so that turns hold more than one; two of them have the job that the
 * store refuses. */
static void what_cannot_be_stored_is_refused_and_the_others_go_on(void **state)
{
    static struct submitter s[CLIENTS];
    struct loop_test k;
    struct errbuf eb = {{0}};
    (void)state;
    cluster_open(&k, "text");
    for (unsigned i = 0; i < CLIENTS; i++) {
        s[i] = (struct submitter){.k = k, .bad_one = i < 2};
        loop_test_connect(&s[i].k);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&s[i].thread, NULL, submitter_run, &s[i]), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_join(s[i].thread, NULL), 0);
    loop_test_stop(&k);
    loop_test_start(&k); /* what is there is on disk */
    for (unsigned i = 0; i < CLIENTS; i++) {
        assert_int_equal(s[i].n_refused, s[i].bad_one ? 1 : 0);
        assert_int_equal(s[i].n_accepted, s[i].bad_one ? JOBS - 1 : JOBS);
        if (s[i].bad_one) {
            assert_string_equal(s[i].why.text, "what this request asks for cannot be stored: "
                                               "a value is too large for this store");
            /* Nobody but its tenant could see it, so it is asked for as that one. */
            loop_test_hello(&s[i].k);
            assert_int_equal(job_state(&s[i].k, &s[i].refused, &eb), 0);
        } else {
            loop_test_hello(&s[i].k);
        }
        for (size_t j = 0; j < s[i].n_accepted; j++)
            assert_int_equal(job_state(&s[i].k, &s[i].accepted[j], &eb), WIRE_JOB_STATE_QUEUED);
        loop_test_disconnect(&s[i].k);
    }
    loop_test_close(&k);
}

/* ---- a worker that comes back ---- */

/* What it says of itself can never be stored, and it says it again as fast as it can. Each time
 * would end everybody's session: a few times do. */
static void a_worker_that_can_never_be_stored_leaves_the_others_alone(void **state)
{
    static const struct wire_model_offer offer = {
        .name = "m", .architecture = "", .quantization = "", .chat_template = ""};
    static const struct wire_worker_hello description = {
        .models = &offer, .n_models = 1, .device = "cpu", .isa = ""};
    struct loop_test k, worker;
    struct errbuf eb = {{0}};
    unsigned lost = 0, told = 0, waits = 0;
    (void)state;
    cluster_open(&k, "learned");
    worker = k;
    loop_test_connect(&worker);
    for (unsigned times = 0; times < 30; times++) {
        enum err err = loop_test_hello_worker(&worker, &description);
        told += err == ERR_TOO_LARGE;
        waits += err == ERR_BUSY;
        struct wire_request list = {.kind = WIRE_REQUEST_LIST_WORKERS,
                                    .list_workers = {.after = ""}};
        struct wire_reply reply;
        struct arena arena;
        arena_init(&arena, LIMIT_DECODE_BYTES);
        if (loop_test_try(&k, &list, &arena, &reply) != ERR_OK) {
            lost++;
            loop_test_hello(&k);
        }
        arena_fini(&arena);
    }
    assert_int_equal(told, 3);
    assert_int_equal(waits, 27);
    assert_in_range(lost, 1, 3);
    struct wire_request submit = loop_test_submit((const uint8_t *)"Why?", 4);
    assert_err(submit_well(&k, &submit, &eb), ERR_OK, &eb);
    loop_test_disconnect(&worker);
    loop_test_close(&k);
}

/* ---- time ---- */

static struct id submit_with_deadline(struct loop_test *k, uint64_t deadline_ms)
{
    struct wire_request submit = loop_test_submit((const uint8_t *)"Why?", 4);
    struct errbuf eb = {{0}};
    submit.submit.job.deadline_ms = deadline_ms;
    assert_err(submit_well(k, &submit, &eb), ERR_OK, &eb);
    return submit.submit.job_id;
}

static void a_job_that_cannot_expire_fails(void **state)
{
    struct loop_test k;
    struct errbuf why = {{0}};
    enum wire_job_state now = 0;
    struct timespec pause = {.tv_nsec = 50000000};
    (void)state;
    cluster_open(&k, "expired");
    struct id id = submit_with_deadline(&k, 300);
    for (unsigned times = 0; now != WIRE_JOB_STATE_FAILED && times < 200; times++) {
        nanosleep(&pause, NULL);
        now = job_state(&k, &id, &why);
        if (now == 0)
            (void)loop_test_hello_try(&k);
    }
    assert_int_equal(now, WIRE_JOB_STATE_FAILED);
    assert_string_equal(why.text, "the coordinator cannot store: a job may not end in this store");
    (void)submit_with_deadline(&k, 0);
    loop_test_close(&k);
}

/* Neither way: the program ends, and what it acknowledged is there when the store lets it. */
static void what_time_must_store_and_cannot_ends_the_program(void **state)
{
    struct loop_test k;
    struct errbuf why = {{0}};
    (void)state;
    cluster_open(&k, "ended");
    struct id id = submit_with_deadline(&k, 300);
    assert_int_equal(loop_test_ended(&k), LOOP_TEST_STUCK);
    assert_int_equal(setenv(VARIABLE, "", 1), 0);
    loop_test_start(&k);
    assert_int_not_equal(job_state(&k, &id, &why), 0);
    loop_test_close(&k);
}

/* ---- disks ---- */

static void a_disk_that_recovers_costs_nobody_anything(void **state)
{
    struct loop_test k;
    (void)state;
    cluster_open(&k, "disk 4");
    (void)submit_with_deadline(&k, 0);
    loop_test_close(&k);
}

static void a_disk_that_does_not_ends_the_program(void **state)
{
    struct loop_test k;
    struct errbuf eb = {{0}};
    (void)state;
    cluster_open(&k, "disk 1000000");
    struct wire_request submit = loop_test_submit((const uint8_t *)"Why?", 4);
    struct arena arena;
    struct wire_reply reply;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    for (unsigned i = 0; i < 5; i++) {
        arena_reset(&arena);
        if (i > 0)
            loop_test_hello(&k);
        assert_int_equal(loop_test_try(&k, &submit, &arena, &reply), ERR_UNAVAILABLE);
    }
    arena_fini(&arena);
    assert_int_equal(loop_test_ended(&k), LOOP_TEST_FAILED);
    assert_int_equal(setenv(VARIABLE, "", 1), 0);
    loop_test_start(&k);
    assert_err(submit_well(&k, &submit, &eb), ERR_OK, &eb);
    loop_test_close(&k);
}

/* Until it is answered: sessions end meanwhile. */
static enum err ask_again(struct loop_test *k, struct wire_request *request)
{
    const struct timespec pause = {.tv_nsec = 100000000};
    struct wire_reply reply;
    struct arena arena;
    enum err err = ERR_OK;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    for (unsigned times = 0; times < 100; times++) {
        arena_reset(&arena);
        err = loop_test_hello_try(k);
        if (err == ERR_OK)
            err = loop_test_try(k, request, &arena, &reply);
        if (err == ERR_OK)
            break;
        nanosleep(&pause, NULL);
    }
    arena_fini(&arena);
    return err;
}

/* After a failed sync a store begins nothing more until it is opened again, whoever met it. Here it
 * was only tried whether there is room. */
static void a_disk_that_fails_while_it_is_full_is_opened_again(void **state)
{
    struct loop_test k;
    struct errbuf eb = {{0}};
    struct wire_request submit = loop_test_submit((const uint8_t *)"Why?", 4);
    struct wire_reply reply;
    struct arena arena;
    (void)state;
    cluster_open(&k, "full");
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(loop_test_try(&k, &submit, &arena, &reply), ERR_NO_SPACE);
    arena_fini(&arena);
    assert_int_equal(ask_again(&k, &submit), ERR_OK);
    assert_int_equal(job_state(&k, &submit.submit.job_id, &eb), WIRE_JOB_STATE_QUEUED);
    loop_test_close(&k);
}

/* And here nothing but a checkpoint was signed; nobody has anything to store before he has said
 * Hello, and that needs the store. */
static void a_disk_that_fails_a_checkpoint_is_opened_again(void **state)
{
    struct loop_test k;
    struct errbuf eb = {{0}};
    struct wire_request range = {.kind = WIRE_REQUEST_LEDGER_RANGE};
    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB};
    struct wire_reply reply;
    struct arena arena;
    (void)state;
    cluster_open(&k, "mark");
    get.get_job.job_id = submit_with_deadline(&k, 0);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(loop_test_try(&k, &range, &arena, &reply), ERR_IO);
    arena_fini(&arena);
    assert_int_equal(ask_again(&k, &get), ERR_OK);
    assert_int_equal(job_state(&k, &get.get_job.job_id, &eb), WIRE_JOB_STATE_QUEUED);
    loop_test_close(&k);
}

/* ---- waiting ---- */

static uint64_t cpu_ms(const struct loop_test *k)
{
    clockid_t clock;
    struct timespec used;
    assert_int_equal(clock_getcpuclockid(k->pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (uint64_t)used.tv_sec * 1000 + (uint64_t)used.tv_nsec / 1000000;
}

static void *submit_slowly(void *arg)
{
    (void)submit_with_deadline(arg, 300);
    return NULL;
}

/* A turn of one event waits for the disk, and time would have the next: it waits, too, and does not
 * ask again and again. */
static void while_turns_are_one_event_waiting_costs_nothing(void **state)
{
    struct loop_test k;
    struct errbuf why = {{0}};
    struct wire_request bad = loop_test_submit((const uint8_t *)"refuse me", 9);
    struct timespec pause = {.tv_nsec = 100000000};
    pthread_t thread;
    (void)state;
    cluster_open(&k, "text, slowly");
    assert_err(submit_well(&k, &bad, &why), ERR_TOO_LARGE, &why);
    loop_test_hello(&k);
    uint64_t cpu_before = cpu_ms(&k), began_ms = clock_mono_ms();
    assert_int_equal(pthread_create(&thread, NULL, submit_slowly, &k), 0);
    nanosleep(&pause, NULL);
    assert_int_equal(job_state(&k, &bad.submit.job_id, &why), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(clock_mono_ms() >= began_ms + SLOW_MS);
    assert_in_range(cpu_ms(&k) - cpu_before, 0, SLOW_MS / 8);
    loop_test_close(&k);
}

/* ---- a disk that hangs ---- */

struct hanging {
    struct loop_test k;
    struct wire_request submit;
    enum err err;
    _Atomic bool answered;
};

static void *submit_to_a_hanging_disk(void *arg)
{
    struct hanging *h = arg;
    struct wire_reply reply;
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    h->err = loop_test_try(&h->k, &h->submit, &arena, &reply);
    arena_fini(&arena);
    atomic_store(&h->answered, true);
    return NULL;
}

static bool status_says(struct loop_test *k, const char *words)
{
    struct wire_request ask = {.kind = WIRE_REQUEST_STATUS};
    struct wire_reply reply;
    struct arena arena;
    bool says = false;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    loop_test_ask(k, &ask, &arena, &reply);
    for (size_t i = 0; i < reply.status.n_reasons; i++)
        says |= strstr(reply.status.reasons[i], words) != NULL;
    assert_false(says && reply.status.healthy);
    arena_fini(&arena);
    return says;
}

#define ASKED_MANY 5000u /* more than a turn may take of time */
#define LISTS_MANY 40u   /* of which 32 would be a full turn */

/* What it was to keep is not acknowledged, and who comes and asks what is wrong hears it. */
static void a_disk_that_hangs_is_told_of(void **state)
{
    static struct hanging h;
    char dir[] = "/tmp/cloister-hang-XXXXXX", path[64], refused[80];
    const struct timespec pause = {.tv_nsec = 50000000};
    struct loop_test asks;
    struct errbuf eb = {{0}};
    pthread_t thread;
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/go", dir);
    (void)snprintf(refused, sizeof refused, "hang %s", path);
    cluster_open(&h.k, refused);
    h.submit = loop_test_submit((const uint8_t *)"Why?", 4);
    assert_int_equal(pthread_create(&thread, NULL, submit_to_a_hanging_disk, &h), 0);
    asks = h.k;
    loop_test_connect(&asks);
    while (!status_says(&asks, "the disk hangs"))
        nanosleep(&pause, NULL);
    for (unsigned i = 0; i < ASKED_MANY; i++)
        assert_true(status_says(&asks, "the disk hangs"));
    struct wire_request list = {.kind = WIRE_REQUEST_LIST_JOBS};
    for (unsigned i = 0; i < LISTS_MANY; i++) {
        struct wire_reply refused_list;
        struct arena listed;
        arena_init(&listed, LIMIT_DECODE_BYTES);
        assert_int_equal(loop_test_try(&asks, &list, &listed, &refused_list), ERR_BUSY);
        assert_non_null(strstr(refused_list.error.text, "disk hangs"));
        assert_true(refused_list.error.retry_after_ms > 0);
        arena_fini(&listed);
    }
    assert_true(status_says(&asks, "the disk hangs"));
    struct loop_test stranger = asks;
    struct wire_request ask = {.kind = WIRE_REQUEST_STATUS};
    struct wire_reply reply;
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    stranger.session++; /* as one that the coordinator has forgotten */
    assert_int_equal(loop_test_try(&stranger, &ask, &arena, &reply), ERR_STALE);
    arena_fini(&arena);
    assert_false(atomic_load(&h.answered));
    FILE *go = fopen(path, "w");
    assert_non_null(go);
    assert_int_equal(fclose(go), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(h.err, ERR_OK);
    assert_false(status_says(&asks, "the disk hangs"));
    assert_int_equal(job_state(&h.k, &h.submit.submit.job_id, &eb), WIRE_JOB_STATE_QUEUED);
    loop_test_disconnect(&asks);
    loop_test_close(&h.k);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[0], "loop") == 0)
        return loop_test_main(argv[1], argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_stored_is_refused_and_the_others_go_on),
        cmocka_unit_test(a_worker_that_can_never_be_stored_leaves_the_others_alone),
        cmocka_unit_test(a_job_that_cannot_expire_fails),
        cmocka_unit_test(what_time_must_store_and_cannot_ends_the_program),
        cmocka_unit_test(a_disk_that_recovers_costs_nobody_anything),
        cmocka_unit_test(a_disk_that_does_not_ends_the_program),
        cmocka_unit_test(a_disk_that_fails_while_it_is_full_is_opened_again),
        cmocka_unit_test(a_disk_that_fails_a_checkpoint_is_opened_again),
        cmocka_unit_test(while_turns_are_one_event_waiting_costs_nothing),
        cmocka_unit_test(a_disk_that_hangs_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
