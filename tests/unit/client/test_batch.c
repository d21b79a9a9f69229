/* cloister batch: every line once, whatever is interrupted where. */
#include "unit/client/fake_coordinator.h"
#include "unit/client/run.h"

#include "common/utf8.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WORDS(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

struct rig {
    struct fake_coordinator fake;
    char dir[64], in[96], out[96], state[112];
};

static void rig_open(struct rig *r)
{
    fake_open(&r->fake);
    run_home_make(r->dir);
    snprintf(r->in, sizeof r->in, "%s/in.jsonl", r->dir);
    snprintf(r->out, sizeof r->out, "%s/out.jsonl", r->dir);
    snprintf(r->state, sizeof r->state, "%s/out.jsonl.state", r->dir);
}

static void rig_close(struct rig *r)
{
    fake_close(&r->fake);
    unlink(r->in);
    unlink(r->out);
    unlink(r->state);
    run_home_remove(r->dir);
}

static void write_file(const char *path, const char *mode, const char *text)
{
    FILE *f = fopen(path, mode);
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

#define GOOD_LINE                                                                                  \
    "{\"custom_id\":\"q%u\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{"       \
    "\"model\":\"m\",\"temperature\":1,\"messages\":[{\"role\":\"user\",\"content\":\"prompt "     \
    "%u\"}]}}\n"

static void write_lines(const struct rig *r, unsigned n)
{
    struct buf text;
    buf_init(&text);
    for (unsigned i = 0; i < n; i++)
        buf_printf(&text, GOOD_LINE, i, i);
    write_file(r->in, "w", buf_str(&text));
    buf_fini(&text);
}

static void run_batch(struct rig *r, struct run *run, int code)
{
    run_start(run, r->dir, r->fake.url, NULL, NULL, WORDS("batch", r->in, "-o", r->out, "-j", "4"));
    run_wait(run);
    if (run->code != code)
        fail_msg("exit %d, not %d: %s", run->code, code, buf_str(&run->err));
}

/* Each of q0 .. qn-1 is in the output exactly once, with its own answer; errors are counted. */
static unsigned check_output(const struct rig *r, unsigned n)
{
    unsigned errors = 0;
    unsigned *seen = calloc(n + 1, sizeof *seen);
    FILE *f = fopen(r->out, "r");
    assert_non_null(f);
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while ((size = getline(&line, &capacity, f)) > 0) {
        json_error_t error;
        assert_int_equal(line[size - 1], '\n');
        json_t *v = json_loadb(line, (size_t)size, 0, &error);
        if (!v)
            fail_msg("not JSON: %s", line);
        const char *custom_id = json_string_value(json_object_get(v, "custom_id"));
        json_t *body = json_object_get(json_object_get(v, "response"), "body");
        json_t *choice = json_array_get(json_object_get(body, "choices"), 0);
        const char *text =
            json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
        unsigned number;
        if (!text) {
            errors++;
        } else if (sscanf(custom_id, "q%u", &number) == 1) {
            char prompt[32];
            struct buf want, safe;
            assert_true(number < n);
            seen[number]++;
            snprintf(prompt, sizeof prompt, "prompt %u", number);
            buf_init(&want);
            buf_init(&safe);
            fake_answer(prompt, 0, fake_answer_tokens(prompt), &want);
            utf8_append(&safe, want.data, want.size);
            assert_string_equal(text, buf_str(&safe));
            buf_fini(&want);
            buf_fini(&safe);
        }
        json_decref(v);
    }
    for (unsigned i = 0; i < n; i++)
        if (seen[i] != 1)
            fail_msg("q%u is in the output %u times", i, seen[i]);
    free(line);
    free(seen);
    fclose(f);
    return errors;
}

static void test_a_batch(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 40);
    run_batch(&r, &run, 0);
    assert_string_equal(buf_str(&run.err), "40 lines done, 0 of them before; 1950 answer tokens\n");
    run_fini(&run);
    assert_int_equal(check_output(&r, 40), 0);
    assert_int_equal(fake_counts(&r.fake).jobs, 40);
    /* Once more: nothing is left, and nobody is asked. */
    unsigned requests = fake_counts(&r.fake).requests;
    run_batch(&r, &run, 0);
    assert_non_null(strstr(buf_str(&run.err), "all 40 lines"));
    assert_int_equal(fake_counts(&r.fake).requests, requests);
    run_fini(&run);
    rig_close(&r);
}

static void test_bad_lines_are_errors_of_their_own(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 3);
    write_file(r.in, "a", "\n{not json}\n");
    write_file(r.in, "a",
               "{\"custom_id\":\"q1\",\"method\":\"POST\",\"url\":"
               "\"/v1/completions\",\"body\":{\"prompt\":\"x\"}}\n");
    write_file(r.in, "a",
               "{\"custom_id\":\"n\",\"method\":\"POST\",\"url\":"
               "\"/v1/chat/completions\",\"body\":{\"model\":\"m\",\"best_of\":2}}");
    for (int again = 0; again < 2; again++) {
        run_start(&run, r.dir, r.fake.url, NULL, NULL,
                  WORDS("batch", r.in, "-o", r.out, "--model", "m"));
        run_wait(&run);
        assert_int_equal(run.code, 7);
        assert_non_null(strstr(buf_str(&run.err), "3 lines have errors"));
        if (!again) {
            assert_non_null(strstr(buf_str(&run.err), "line 5: not JSON: "));
            assert_non_null(
                strstr(buf_str(&run.err), "line 6: the same custom_id is in line 2 already"));
            assert_non_null(
                strstr(buf_str(&run.err), "line 7: body.best_of is not supported, except as 1"));
        }
        run_fini(&run);
        assert_int_equal(check_output(&r, 3), 3);
    }
    assert_int_equal(fake_counts(&r.fake).jobs, 3);
    rig_close(&r);
}

/* kill -9 of the batch, again and again, with a coordinator that restarts too. */
static void test_killed_again_and_again(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 120);
    for (unsigned kills = 0; kills < 12; kills++) {
        fake_set_faults(&r.fake, &(struct fake_faults){.tokens_a_watch = 2, .stale_every = 97});
        run_start(&run, r.dir, r.fake.url, NULL, NULL,
                  WORDS("batch", r.in, "-o", r.out, "-j", "3"));
        /* After a number of lines that is another one each time, at no particular point of them. */
        unsigned until = fake_counts(&r.fake).submits + 3 + kills % 5;
        for (int i = 0; i < 2000 && fake_counts(&r.fake).submits < until; i++)
            fake_sleep_ms(1 + kills % 3);
        if (kills % 3 == 2)
            fake_restart(&r.fake);
        kill(run.pid, SIGKILL);
        run_wait(&run);
        assert_int_equal(run.code, 128 + SIGKILL);
        run_fini(&run);
        /* And a line that was torn by the crash. */
        write_file(r.out, "a", "{\"id\":\"batch_req_torn");
    }
    run_batch(&r, &run, 0);
    run_fini(&run);
    assert_int_equal(check_output(&r, 120), 0);
    assert_int_equal(fake_counts(&r.fake).jobs, 120);
    rig_close(&r);
}

static void test_interrupted_and_gone_on(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 10);
    fake_set_faults(&r.fake, &(struct fake_faults){.stop_at = 3});
    run_start(&run, r.dir, r.fake.url, NULL, NULL, WORDS("batch", r.in, "-o", r.out, "-j", "2"));
    for (int i = 0; i < 200 && fake_counts(&r.fake).watches < 3; i++)
        fake_sleep_ms(20);
    kill(run.pid, SIGINT);
    run_wait(&run);
    assert_int_equal(run.code, 8);
    assert_non_null(
        strstr(buf_str(&run.err), "10 of 10 lines are left, run the same command again to go on"));
    run_fini(&run);
    fake_set_faults(&r.fake, &(struct fake_faults){.busy_submits = 2, .busy_retry_ms = 30});
    run_batch(&r, &run, 0);
    run_fini(&run);
    assert_int_equal(check_output(&r, 10), 0);
    assert_int_equal(fake_counts(&r.fake).jobs, 10);
    rig_close(&r);
}

static void test_jobs_that_fail_or_are_refused(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 4);
    fake_set_faults(&r.fake, &(struct fake_faults){.refuse_submits_with = ERR_REFUSED});
    run_batch(&r, &run, 7);
    run_fini(&run);
    assert_int_equal(check_output(&r, 0), 4);
    fake_set_faults(&r.fake, &(struct fake_faults){.end_state = WIRE_JOB_STATE_FAILED});
    run_start(&run, r.dir, r.fake.url, NULL, NULL,
              WORDS("batch", r.in, "-o", r.out, "--restart", "--json"));
    run_wait(&run);
    assert_int_equal(run.code, 7);
    json_error_t error;
    json_t *v = json_loadb(buf_str(&run.out), run.out.size, 0, &error);
    assert_non_null(v);
    assert_int_equal(json_integer_value(json_object_get(v, "failed")), 4);
    json_decref(v);
    run_fini(&run);
    assert_int_equal(check_output(&r, 0), 4);
    rig_close(&r);
}

static long file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (long)st.st_size : 0;
}

/* Only what differs is named, as it was and as it is. */
static void check_other_flags(const struct rig *r)
{
    static const struct {
        const char *more[3]; /* than the batch's files */
        int code;
        const char *says;
    } table[] = {
        {{"--max-tokens", "9"}, 2, "other flags: max-tokens 256, not max-tokens 9; give those,"},
        {{"--project", "x"}, 2, "other flags: project -, not project x; give those,"},
        {{"--seed", "7"}, 2, "other flags: without seed 7; give those,"},
        {{"--seed", "7", "--restart"}, 0, ""},
        {{NULL}, 2, "other flags: seed 7, which is not given now; give those,"},
        {{"--restart"}, 0, ""},
    };
    struct run run;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *const *more = table[i].more;
        run_start(&run, r->dir, r->fake.url, NULL, NULL,
                  WORDS("batch", r->in, "-o", r->out, more[0], more[1], more[2]));
        run_wait(&run);
        if (run.code != table[i].code || !strstr(buf_str(&run.err), table[i].says))
            fail_msg("row %zu: exit %d: %s", i, run.code, buf_str(&run.err));
        run_fini(&run);
    }
}

/* What would lose or mix up answers is refused, in words that say what to do. */
static void test_refusals(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_lines(&r, 2);
    write_file(r.out, "w", "my thesis\n");
    run_batch(&r, &run, 2);
    assert_non_null(strstr(buf_str(&run.err), "is there already and belongs to no batch"));
    run_fini(&run);
    unlink(r.out);
    run_batch(&r, &run, 0);
    run_fini(&run);
    check_other_flags(&r);
    write_file(r.in, "a", "\n");
    run_batch(&r, &run, 2);
    assert_non_null(strstr(buf_str(&run.err), "is not what the batch in"));
    run_fini(&run);
    write_lines(&r, 2);
    write_file(r.out, "a", "someone else's line\n");
    run_batch(&r, &run, 2);
    assert_non_null(strstr(buf_str(&run.err), "out.jsonl:3: not a line of this program"));
    run_fini(&run);
    int fd = open(r.state, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    run_batch(&r, &run, 6);
    assert_non_null(strstr(buf_str(&run.err), "another run is writing"));
    run_fini(&run);
    close(fd);
    write_file(r.state, "w", "{\"id\":");
    run_batch(&r, &run, 2);
    assert_non_null(strstr(buf_str(&run.err), "is not the state of a batch"));
    run_fini(&run);
    /* A device may have no end to read to. */
    run_start(&run, r.dir, r.fake.url, NULL, NULL, WORDS("batch", r.in, "-o", "/dev/full"));
    run_wait(&run);
    assert_int_equal(run.code, 2);
    assert_non_null(strstr(buf_str(&run.err), "/dev/full is no regular file"));
    assert_int_not_equal(access("/dev/full.state", F_OK), 0);
    run_fini(&run);
    /* --restart would empty what is to be read. */
    run_start(&run, r.dir, r.fake.url, NULL, NULL, WORDS("batch", r.in, "-o", r.in, "--restart"));
    run_wait(&run);
    assert_int_equal(run.code, 2);
    assert_non_null(strstr(buf_str(&run.err), "in.jsonl is input and output"));
    assert_int_not_equal(file_size(r.in), 0);
    run_fini(&run);
    unlink(r.in);
    run_batch(&r, &run, 2);
    assert_non_null(strstr(buf_str(&run.err), "in.jsonl: No such file"));
    run_fini(&run);
    rig_close(&r);
}

static void test_empty_input(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    rig_open(&r);
    write_file(r.in, "w", "\n\n  \n");
    run_batch(&r, &run, 0);
    run_fini(&run);
    rig_close(&r);
}

/* Without places to go back to there is a copy of the input, and no second run of the output. */
static void test_standard_input_and_output(void **state)
{
    (void)state;
    struct rig r;
    struct run run;
    struct buf input;
    rig_open(&r);
    write_lines(&r, 20);
    buf_init(&input);
    for (unsigned i = 0; i < 20; i++)
        buf_printf(&input, GOOD_LINE, i, i);
    for (int again = 0; again < 2; again++) {
        run_start(&run, r.dir, r.fake.url, buf_str(&input), NULL, WORDS("batch", "-", "-o", r.out));
        run_wait(&run);
        assert_int_equal(run.code, 0);
        assert_non_null(strstr(buf_str(&run.err), again ? "all 20 lines" : "20 lines done"));
        run_fini(&run);
        assert_int_equal(check_output(&r, 20), 0);
    }
    buf_fini(&input);
    run_start(&run, r.dir, r.fake.url, NULL, NULL, WORDS("batch", "-", "-o", r.out));
    run_wait(&run);
    assert_int_equal(run.code, 2);
    assert_non_null(strstr(buf_str(&run.err), "standard input is not what the batch in"));
    run_fini(&run);
    unlink(r.out);
    unlink(r.state);
    run_start(&run, r.dir, r.fake.url, NULL, r.out, WORDS("batch", r.in, "-o", "-"));
    run_wait(&run);
    assert_int_equal(run.code, 0);
    assert_string_equal(buf_str(&run.err), "20 lines done, 0 of them before; 970 answer tokens\n");
    run_fini(&run);
    assert_int_equal(check_output(&r, 20), 0);
    assert_int_not_equal(access("-", F_OK), 0);
    assert_int_not_equal(access("-.state", F_OK), 0);
    static const struct {
        const char *out, *flag;
        int code;
        const char *says;
    } refusals[] = {
        {NULL, "--json", 2, "--json needs an output file"},
        {NULL, "--restart", 2, "--restart needs an output file"},
        {"/dev/full", "-v", 1, "standard output: No space left on device"},
        {"/dev/full", "-v", 1, "and lost; with an output file the batch could go on"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        run_start(&run, r.dir, r.fake.url, NULL, refusals[i].out,
                  WORDS("batch", r.in, "-o", "-", refusals[i].flag));
        run_wait(&run);
        assert_int_equal(run.code, refusals[i].code);
        if (!strstr(buf_str(&run.err), refusals[i].says))
            fail_msg("%s", buf_str(&run.err));
        run_fini(&run);
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch),
        cmocka_unit_test(test_bad_lines_are_errors_of_their_own),
        cmocka_unit_test(test_killed_again_and_again),
        cmocka_unit_test(test_interrupted_and_gone_on),
        cmocka_unit_test(test_jobs_that_fail_or_are_refused),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_empty_input),
        cmocka_unit_test(test_standard_input_and_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
