/* The program as a user runs it: what it prints, where, and with which exit code. */
#include "unit/client/fake_coordinator.h"
#include "unit/client/run.h"

#include "common/utf8.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define WORDS(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

struct rig {
    struct fake_coordinator fake;
    char home[64];
};

static void rig_open(struct rig *r)
{
    fake_open(&r->fake);
    run_home_make(r->home);
}

static void rig_close(struct rig *r)
{
    fake_close(&r->fake);
    run_home_remove(r->home);
}

static void do_run(struct rig *r, struct run *run, const char *input, const char *const *words)
{
    run_start(run, r->home, r->fake.url, input, NULL, words);
    run_wait(run);
}

static void check_exit(const struct run *run, int code)
{
    if (run->code != code)
        fail_msg("exit %d, not %d: %s", run->code, code, buf_str(&run->err));
}

static void whole_answer(const char *prompt, struct buf *out)
{
    buf_init(out);
    fake_answer(prompt, 0, fake_answer_tokens(prompt), out);
}

static void check_out_is_answer(const struct run *run, const char *prompt)
{
    struct buf want;
    whole_answer(prompt, &want);
    assert_int_equal(run->out.size, want.size);
    assert_memory_equal(run->out.data, want.data, want.size);
    buf_fini(&want);
}

static json_t *parse_out(const struct run *run)
{
    json_error_t error;
    json_t *value = json_loadb(buf_str(&run->out), run->out.size, 0, &error);
    if (!value)
        fail_msg("not JSON: %s: %s", error.text, buf_str(&run->out));
    return value;
}

static void test_submit_prints_the_very_bytes(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    fake_set_faults(&r.fake, &(struct fake_faults){.tokens_a_watch = 1});
    const struct {
        const char *const *words;
        const char *input, *prompt;
    } table[] = {
        {WORDS("submit", "why"), NULL, "why"},
        {WORDS("submit", "--model", "m", "why not"), NULL, "why not"},
        {WORDS("submit", "-"), "from stdin", "from stdin"},
        {WORDS("submit", "--raw", "-"), "raw", "raw"},
        {WORDS("submit", "--file", "-"), "a file of no name", "a file of no name"},
        {WORDS("submit", "--system", "be brief", "--", "-dashes"), NULL, "-dashes"},
        {WORDS("--wait", "9s", "submit", "--temperature", "0.5", "--stop", "x", "warm"), NULL,
         "warm"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        do_run(&r, &run, table[i].input, table[i].words);
        check_exit(&run, 0);
        check_out_is_answer(&run, table[i].prompt);
        assert_string_equal(buf_str(&run.err), "");
        run_fini(&run);
    }
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/cloister/client.key", r.home);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    rig_close(&r);
}

static void test_submit_json(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    struct buf want, text;
    rig_open(&r);
    do_run(&r, &run, NULL, WORDS("submit", "--json", "--temperature", "1", "jay"));
    check_exit(&run, 0);
    json_t *v = parse_out(&run);
    whole_answer("jay", &want);
    buf_init(&text);
    utf8_append(&text, want.data, want.size);
    assert_string_equal(json_string_value(json_object_get(v, "text")), buf_str(&text));
    assert_int_equal(json_array_size(json_object_get(v, "ids")), fake_answer_tokens("jay"));
    assert_string_equal(json_string_value(json_object_get(v, "finish")), "stop");
    assert_string_equal(json_string_value(json_object_get(v, "state")), "done");
    assert_true(json_is_integer(json_object_get(v, "seed")));
    assert_true(json_is_null(json_object_get(v, "error")));
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(v, "usage"), "prompt_tokens")), 7);
    json_decref(v);
    buf_fini(&want);
    buf_fini(&text);
    run_fini(&run);
    rig_close(&r);
}

static void test_detach_watch_cancel(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    char id[64];
    rig_open(&r);
    do_run(&r, &run, NULL, WORDS("submit", "--detach", "later"));
    check_exit(&run, 0);
    assert_int_equal(run.out.size, 33);
    snprintf(id, sizeof id, "%.32s", buf_str(&run.out));
    run_fini(&run);
    do_run(&r, &run, NULL, WORDS("watch", id));
    check_exit(&run, 0);
    check_out_is_answer(&run, "later");
    run_fini(&run);
    do_run(&r, &run, NULL, WORDS("jobs"));
    check_exit(&run, 0);
    assert_null(strstr(buf_str(&run.out), id));
    assert_non_null(strstr(buf_str(&run.out), id + 24));
    run_fini(&run);
    memmove(id, id + 24, 9); /* what the table shows does, and the beginning of it */
    do_run(&r, &run, NULL, WORDS("watch", "--json", id));
    check_exit(&run, 0);
    run_fini(&run);
    id[4] = 0;
    do_run(&r, &run, NULL, WORDS("watch", "--json", id));
    check_exit(&run, 0);
    run_fini(&run);
    do_run(&r, &run, NULL, WORDS("cancel", id));
    check_exit(&run, 0);
    assert_non_null(strstr(buf_str(&run.out), " cancelled\n"));
    run_fini(&run);
    do_run(&r, &run, NULL, WORDS("watch", "--json", id));
    check_exit(&run, 8);
    json_t *v = parse_out(&run);
    assert_string_equal(json_string_value(json_object_get(v, "finish")), "cancelled");
    json_decref(v);
    run_fini(&run);
    rig_close(&r);
}

static void test_exit_codes(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    const struct {
        struct fake_faults faults;
        const char *const *words;
        int code;
        const char *says;
    } table[] = {
        {{0}, WORDS("status"), 0, ""},
        {{.refuse_submits_with = ERR_REFUSED}, WORDS("submit", "x"), 4, "cloister: not today\n"},
        {{.refuse_submits_with = ERR_TOO_LARGE}, WORDS("submit", "x"), 4, "cloister: not today\n"},
        {{.refuse_submits_with = ERR_NOT_FOUND},
         WORDS("submit", "x"),
         3,
         "cloister: not today; `cloister jobs` and `cloister models` list what there is\n"},
        {{.busy_submits = 99, .busy_retry_ms = 90000},
         WORDS("submit", "x"),
         6,
         "cloister: the queue is full: 9 of 9 jobs; try again in 90 s, or let --wait do it\n"},
        {{.end_state = WIRE_JOB_STATE_FAILED},
         WORDS("submit", "x"),
         7,
         "failed: the worker's file is broken\n"},
        {{.end_state = WIRE_JOB_STATE_EXPIRED}, WORDS("submit", "x"), 7, "expired: "},
        {{.never_hello = true}, WORDS("status"), 4, "cloister: this key is not known here\n"},
        {{0}, WORDS("watch", "00112233445566778899aabbccddeeff"), 3, "no such job"},
        {{0}, WORDS("watch", "0011"), 3, "there is no job 0011"},
        {{0}, WORDS("watch", "hello"), 2, "is not a job id"},
        {{0}, WORDS("watch"), 2, "missing operands; write: cloister watch [FLAGS] JOB\n"},
        {{0}, WORDS("wacth"), 2, "there is no command \"wacth\"; the nearest one is \"watch\""},
        {{0}, WORDS("frobnicate"), 2, "there is no command \"frobnicate\" (see cloister --help)\n"},
        {{0}, WORDS("status", "now"), 2, "too many operands; write: cloister status [FLAGS]\n"},
        {{0}, WORDS("submit", "--modle", "m", "x"), 2, "the nearest one is --model"},
        {{0}, WORDS("submit", ""), 2, "the prompt is empty"},
        {{0}, WORDS("submit"), 2, "no prompt; "},
        {{0}, WORDS("submit", "-", "--file", "-"), 2, "standard input can be read once"},
        {{0}, WORDS("submit", "--file", "/nonexistent"), 2, "/nonexistent: No such file"},
        {{0}, WORDS("submit", "--raw", "--system", "a", "b"), 2, "--raw leaves no place"},
        {{0}, WORDS("jobs", "--state", "lost"), 2, "--state: \"lost\" is none"},
        {{0},
         WORDS("usage", "--from", "2026-02-01", "--to", "2026-01-01"),
         2,
         "--from is after --to"},
        {{0}, WORDS("ledger", "verify", "/nonexistent"), 2, "/nonexistent: No such file"},
        {{0},
         WORDS("ledger", "verify", "--against", "/nonexistent", "-"),
         2,
         "--against: /nonexistent: No such file"},
        {{0},
         WORDS("ledger", "verify", "--against", "/dev/null", "-"),
         2,
         "--against: /dev/null is neither a signed note nor an export"},
        {{0}, WORDS("models", "plan"), 2, "write: cloister models plan [FLAGS] MODEL\n"},
        {{0}, WORDS("models", "plan", "m", "--split", "3;1"), 2, "'3;1' is no list"},
        {{0},
         WORDS("models", "plan", "m", "--split", "3,1,2", "--stages", "2"),
         2,
         "3 parts for 2 stages"},
        {{0}, WORDS("models", "plan", "m", "--shards", "17"), 2, "--shards"},
        {{0}, WORDS("models", "plan", "x"), 3, "no worker has a model x"},
        {{0}, WORDS("models", "plan", "m"), 3, "no worker that is here says how m may be cut"},
        {{0}, WORDS("models", "x"), 2, "too many operands"},
        {{0}, WORDS("ledger"), 2, "ledger needs a second word, and \"\" is none of them"},
        {{0}, WORDS("ledger", "exprot"), 2, "\"exprot\" is none of them; see cloister help ledger"},
        {{0}, WORDS("--identity", "/nonexistent/key", "status"), 2, "/nonexistent/key: No such"},
        {{0}, WORDS("--identity", "", "status"), 2, "--identity: the path is empty\n"},
        {{0}, WORDS("--url", "nonsense", "status"), 2, "--url: \"nonsense\" is not an address"},
        {{0}, WORDS("--url", "tls+tcp://a:1", "status"), 2, "needs the group tls"},
        {{0}, WORDS("--config", "/nonexistent", "status"), 2, "/nonexistent: No such file"},
        {{0}, WORDS("completion", "tcsh"), 2, "there is one for bash, zsh and fish"},
        {{0}, WORDS("batch", "in.jsonl"), 2, "--output is missing"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        fake_set_faults(&r.fake, &table[i].faults);
        do_run(&r, &run, NULL, table[i].words);
        check_exit(&run, table[i].code);
        if (!strstr(buf_str(&run.err), table[i].says))
            fail_msg("case %zu says: %s", i, buf_str(&run.err));
        /* One line, whatever is wrong. */
        if (table[i].code != 0)
            assert_ptr_equal(strchr(buf_str(&run.err), '\n'), buf_str(&run.err) + run.err.size - 1);
        run_fini(&run);
    }
    rig_close(&r);
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    fake_stop_listening(&r.fake);
    do_run(&r, &run, NULL, WORDS("status", "--wait", "200ms"));
    check_exit(&run, 5);
    assert_non_null(strstr(buf_str(&run.err), ": connection refused (tried for "));
    assert_non_null(strstr(buf_str(&run.err), "is it running"));
    run_fini(&run);
    rig_close(&r);
}

static void test_standard_output_that_is_full(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    run_start(&run, r.home, r.fake.url, NULL, "/dev/full", WORDS("submit", "x"));
    run_wait(&run);
    check_exit(&run, 1);
    assert_non_null(strstr(buf_str(&run.err), "standard output: No space left on device"));
    run_fini(&run);
    run_start(&run, r.home, r.fake.url, NULL, "/dev/full", WORDS("workers", "--help"));
    run_wait(&run);
    check_exit(&run, 1);
    run_fini(&run);
    /* A closed one must not become the number of a connection, which the answer would go to. */
    const char *const *closed[] = {WORDS("submit", "x"), WORDS("jobs", "--json"), WORDS("--help")};
    for (size_t i = 0; i < COUNT(closed); i++) {
        run_start(&run, r.home, r.fake.url, NULL, "", closed[i]);
        run_wait(&run);
        check_exit(&run, 1);
        assert_non_null(strstr(buf_str(&run.err), "standard output: Bad file descriptor"));
        run_fini(&run);
    }
    rig_close(&r);
}

static void test_interrupt_cancels(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    fake_set_faults(&r.fake, &(struct fake_faults){.stop_at = 5});
    run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("submit", "long"));
    for (int i = 0; i < 200 && fake_counts(&r.fake).watches < 2; i++)
        fake_sleep_ms(20);
    kill(run.pid, SIGINT);
    run_wait(&run);
    check_exit(&run, 8);
    assert_true(fake_is_cancelled(&r.fake, 0));
    assert_non_null(strstr(buf_str(&run.err), "was cancelled after 5 tokens"));
    struct buf want;
    buf_init(&want);
    fake_answer("long", 0, 5, &want);
    assert_int_equal(run.out.size, want.size);
    assert_memory_equal(run.out.data, want.data, want.size);
    buf_fini(&want);
    run_fini(&run);

    /* With nobody to hear the cancel, the second Ctrl-C leaves at once. */
    run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("submit", "--wait", "60s", "longer"));
    for (int i = 0; i < 200 && fake_counts(&r.fake).jobs < 2; i++)
        fake_sleep_ms(20);
    fake_sleep_ms(100);
    fake_stop_listening(&r.fake);
    kill(run.pid, SIGINT);
    fake_sleep_ms(200);
    kill(run.pid, SIGINT);
    run_wait(&run);
    check_exit(&run, 130);
    run_fini(&run);

    /* A coordinator that cancels the job and is gone before it says so keeps nobody for long. */
    fake_listen(&r.fake);
    fake_set_faults(&r.fake, &(struct fake_faults){.stop_at = 5, .late_cancel = true});
    size_t jobs = fake_counts(&r.fake).jobs;
    char path[128];
    snprintf(path, sizeof path, "%s/cloister/client.cfg", r.home);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("wait = \"1s\"; stream_wait = \"1h\";", f);
    fclose(f);
    run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("submit", "gone"));
    for (int i = 0; i < 200 && fake_counts(&r.fake).jobs == jobs; i++)
        fake_sleep_ms(20);
    fake_sleep_ms(100);
    kill(run.pid, SIGINT);
    for (int i = 0; i < 200 && !fake_is_cancelled(&r.fake, jobs); i++)
        fake_sleep_ms(20);
    fake_stop_listening(&r.fake);
    run_wait(&run);
    check_exit(&run, 8);
    assert_non_null(strstr(buf_str(&run.err), "look again with: cloister watch "));
    run_fini(&run);
    unlink(path);
    fake_set_faults(&r.fake, &(struct fake_faults){.stop_at = 5});

    /* Ctrl-C in watch ends the watching, not the job. */
    fake_listen(&r.fake);
    char id[ID_TEXT_BYTES];
    unsigned watches = fake_counts(&r.fake).watches;
    fake_job_id(&r.fake, 1, id);
    run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("watch", id));
    for (int i = 0; i < 200 && fake_counts(&r.fake).watches < watches + 2; i++)
        fake_sleep_ms(20);
    kill(run.pid, SIGINT);
    run_wait(&run);
    check_exit(&run, 8);
    assert_false(fake_is_cancelled(&r.fake, 1));
    run_fini(&run);
    rig_close(&r);
}

static void test_restart_under_a_running_submit(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    for (unsigned round = 0; round < 4; round++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "again %u", round);
        fake_set_faults(&r.fake,
                        &(struct fake_faults){.tokens_a_watch = 1, .stop_at = 10 + round * 3});
        run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("submit", prompt));
        unsigned watches = fake_counts(&r.fake).watches;
        for (int i = 0; i < 200 && fake_counts(&r.fake).watches < watches + 5 + round * 2; i++)
            fake_sleep_ms(10);
        fake_restart(&r.fake);
        fake_set_faults(&r.fake, &(struct fake_faults){.tokens_a_watch = 3});
        run_wait(&run);
        check_exit(&run, 0);
        check_out_is_answer(&run, prompt);
        run_fini(&run);
    }
    assert_int_equal(fake_counts(&r.fake).jobs, 4);
    rig_close(&r);
}

/* The job says nothing new, so that there is a pause before each poll, and the connection goes in
 * one. What comes first on the next one is a Hello, not a poll in a session that is over: it would
 * have waited for that connection in silence, and for half a minute where there is none. */
static void test_a_connection_lost_between_polls(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    for (unsigned round = 0; round < 3; round++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "pause %u", round);
        fake_set_faults(&r.fake, &(struct fake_faults){.stop_at = 5});
        run_start(&run, r.home, r.fake.url, NULL, NULL, WORDS("submit", prompt));
        unsigned watches = fake_counts(&r.fake).watches;
        for (int i = 0; i < 1000 && fake_counts(&r.fake).watches < watches + 3; i++)
            fake_sleep_ms(20);
        fake_stop_listening(&r.fake);
        fake_sleep_ms(300); /* polls are nearer to each other */
        fake_set_faults(&r.fake, &(struct fake_faults){0});
        fake_listen(&r.fake);
        run_wait(&run);
        check_exit(&run, 0);
        check_out_is_answer(&run, prompt);
        run_fini(&run);
    }
    assert_int_equal(fake_counts(&r.fake).stales, 0);
    rig_close(&r);
}

static void test_jobs_pages(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    for (unsigned i = 0; i < 30; i++) {
        char id[ID_TEXT_BYTES];
        snprintf(id, sizeof id, "abcd%028u", i);
        fake_add_job(&r.fake, id, "x");
    }
    do_run(&r, &run, NULL, WORDS("jobs", "--json", "--limit", "25"));
    check_exit(&run, 0);
    json_t *v = parse_out(&run);
    assert_int_equal(json_array_size(json_object_get(v, "jobs")), 25);
    assert_true(json_is_true(json_object_get(v, "more")));
    json_decref(v);
    run_fini(&run);
    do_run(&r, &run, NULL, WORDS("jobs"));
    check_exit(&run, 0);
    assert_memory_equal(buf_str(&run.out), "JOB  ", 5);
    run_fini(&run);
    rig_close(&r);
}

static void test_configuration(void **state)
{
    (void)state;
    struct rig r;
    struct run run, again;
    char path[160];
    rig_open(&r);
    /* The example is a configuration, and says where the coordinator is. */
    do_run(&r, &run, NULL, WORDS("--print-config"));
    check_exit(&run, 0);
    snprintf(path, sizeof path, "%s/example.cfg", r.home);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(run.out.data, 1, run.out.size, f);
    fclose(f);
    do_run(&r, &again, NULL, WORDS("--check-config", "--config", path));
    check_exit(&again, 0);
    run_fini(&again);
    run_fini(&run);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "tenant = \"a\";\nwiat = \"3s\";\n");
    fclose(f);
    do_run(&r, &run, NULL, WORDS("--check-config", "--config", path));
    check_exit(&run, 2);
    char want[320];
    snprintf(want, sizeof want,
             "cloister: %s:2: wiat: unknown key; the nearest valid one is \"wait\"\n", path);
    assert_string_equal(buf_str(&run.err), want);
    run_fini(&run);
    unlink(path);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_submit_prints_the_very_bytes),
        cmocka_unit_test(test_submit_json),
        cmocka_unit_test(test_detach_watch_cancel),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_standard_output_that_is_full),
        cmocka_unit_test(test_interrupt_cancels),
        cmocka_unit_test(test_restart_under_a_running_submit),
        cmocka_unit_test(test_a_connection_lost_between_polls),
        cmocka_unit_test(test_jobs_pages),
        cmocka_unit_test(test_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
