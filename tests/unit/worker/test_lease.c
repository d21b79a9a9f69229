/* The worker's bookkeeping of output: whatever happens to frames, each token reaches the
 * coordinator once, in order, with its text. */
#include "common/limits.h"
#include "worker/lease.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the coordinator does with a frame: takes what follows, passes over what it has, and says
 * where to go on. */
struct receiver {
    int32_t ids[4096];
    uint32_t count;
    char text[8192];
    size_t text_size;
    bool ended;
};

static enum err append(struct lease *l, uint32_t first, const int32_t *ids, const int32_t *sizes,
                       size_t n_ids, const void *text, size_t text_size, struct errbuf *eb)
{
    const struct lease_output output = {.first = first,
                                        .ids = ids,
                                        .text_sizes = sizes,
                                        .n_ids = n_ids,
                                        .text = text,
                                        .text_size = text_size};
    return lease_append(l, &output, eb);
}

static struct wire_command_run run_of(uint8_t job, uint64_t epoch, const int32_t *resume,
                                      size_t n_resume)
{
    struct wire_command_run run = {.epoch = epoch, .resume_ids = resume, .n_resume_ids = n_resume};
    run.job_id.bytes[0] = job;
    run.job.model = "m";
    run.job.prompt_kind = WIRE_PROMPT_KIND_TEXT;
    run.job.text = (struct wire_bytes){.data = (const uint8_t *)"hi", .size = 2};
    run.job.sampling = (struct wire_sampling){.top_p = 1, .repetition_penalty = 1};
    run.job.max_tokens = 100;
    run.job.job_class = WIRE_JOB_CLASS_STANDARD;
    run.job.project = run.job.cost_center = run.tenant = "";
    return run;
}

static struct lease *lease_new(struct lease_table *t, uint8_t job, uint64_t epoch)
{
    struct wire_command_run run = run_of(job, epoch, NULL, 0);
    struct errbuf eb = {{0}};
    struct lease *l = NULL;
    assert_int_equal(lease_add(t, &run, 0, &l, &eb), ERR_OK);
    return l;
}

static void say(struct lease *l, const char *text)
{
    struct errbuf eb = {{0}};
    int32_t ids[64], sizes[64];
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        ids[i] = text[i];
        sizes[i] = 1;
    }
    assert_int_equal(append(l, l->tokens, ids, sizes, n, text, n, &eb), ERR_OK);
}

static struct wire_lease_ack receive(struct receiver *r, const struct wire_lease_progress *p)
{
    if (p->first <= r->count && p->first + p->n_ids > r->count) {
        assert_int_equal(p->first, r->count); /* frames begin where an earlier one ended */
        assert_int_equal(p->n_text_sizes, p->n_ids);
        for (size_t i = 0; i < p->n_ids; i++)
            assert_int_equal(p->text_sizes[i], 1);
        memcpy(r->ids + r->count, p->ids, p->n_ids * sizeof *p->ids);
        memcpy(r->text + r->text_size, p->text.data, p->text.size);
        r->count += (uint32_t)p->n_ids;
        r->text_size += p->text.size;
    }
    if (p->finish != WIRE_FINISH_UNSPECIFIED && p->first + p->n_ids == r->count)
        r->ended = true;
    return (struct wire_lease_ack){.job_id = p->job_id, .epoch = p->epoch, .next = r->count};
}

static void test_a_lost_frame_is_said_again(void **state)
{
    struct lease_table t;
    struct receiver r = {0};
    struct wire_report report;
    struct arena arena;
    bool fenced;
    (void)state;

    lease_table_init(&t);
    arena_init(&arena, 1u << 20);
    struct lease *l = lease_new(&t, 1, 1);
    say(l, "abc");
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.n_leases, 1);
    /* The coordinator took it, but its answer was lost. */
    (void)receive(&r, &report.leases[0]);
    lease_report_failed(&t);
    say(l, "def");
    lease_end(l, WIRE_FINISH_STOP, ERR_OK, "");
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.leases[0].first, 0);
    assert_int_equal(report.leases[0].n_ids, 6);
    /* It passes over the first three: here it takes nothing of a frame that overlaps, and says
     * where to go on. */
    struct wire_lease_ack ack = {.job_id = l->job_id, .epoch = 1, .next = 3};
    assert_false(lease_acknowledge(l, &ack, &fenced));
    assert_true(lease_any_changed(&t));
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.leases[0].first, 3);
    ack = receive(&r, &report.leases[0]);
    assert_true(lease_acknowledge(l, &ack, &fenced));
    assert_false(fenced);
    assert_memory_equal(r.text, "abcdef", 6);
    assert_true(r.ended);
    lease_table_fini(&t);
    arena_fini(&arena);
}

static void test_each_token_says_what_it_adds(void **state)
{
    static const int32_t ids[] = {10, 11, 12, 13};
    static const int32_t sizes[] = {2, 3, 0, 1};
    struct lease_table t;
    struct wire_report report;
    struct arena arena;
    struct errbuf eb = {{0}};
    (void)state;

    lease_table_init(&t);
    arena_init(&arena, 1u << 20);
    struct lease *l = lease_new(&t, 1, 1);
    assert_int_equal(append(l, 0, ids, sizes, 1, "ab", 2, &eb), ERR_OK);
    assert_int_equal(append(l, 1, ids + 1, sizes + 1, 3, "\xf0\x9f\x99\x82", 4, &eb), ERR_OK);
    assert_int_equal(append(l, 4, NULL, NULL, 0, "tail", 4, &eb), ERR_OK);
    lease_end(l, WIRE_FINISH_STOP, ERR_OK, "");
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.leases[0].n_text_sizes, 4);
    assert_memory_equal(report.leases[0].text_sizes, sizes, sizeof sizes);
    assert_int_equal(report.leases[0].text.size, 10);
    arena_fini(&arena);
    lease_table_fini(&t);
}

/* Each with its own token, whatever frames they go out in, and counted in what a frame takes. */
static void test_logprobs_go_with_their_tokens(void **state)
{
    enum { N = 1000, SIZE = 5000 };
    static int32_t ids[N], sizes[N];
    static uint8_t bytes[N][SIZE];
    static struct wire_bytes logprobs[N];
    const struct lease_output output = {
        .ids = ids, .text_sizes = sizes, .logprobs = logprobs, .n_ids = N};
    struct lease_table t;
    struct wire_report report;
    struct errbuf eb = {{0}};
    bool over = false, fenced;
    (void)state;

    for (int i = 0; i < N; i++) {
        ids[i] = i;
        memset(bytes[i], i, SIZE);
        logprobs[i] = (struct wire_bytes){.data = bytes[i], .size = (size_t)SIZE - (size_t)i};
    }
    lease_table_init(&t);
    struct lease *l = lease_new(&t, 1, 1);
    assert_int_equal(lease_append(l, &output, &eb), ERR_OK);
    memset(bytes, 255, sizeof bytes); /* it has its own copy */
    lease_end(l, WIRE_FINISH_LENGTH, ERR_OK, "");
    uint32_t got = 0;
    for (int frames = 0; !over; frames++) {
        struct arena arena;
        arena_init(&arena, 16u << 20);
        assert_true(frames < 8);
        assert_int_equal(lease_report_fill(&t, false, 2u << 20, &arena, &report), ERR_OK);
        const struct wire_lease_progress *p = &report.leases[0];
        size_t frame = 0;
        assert_int_equal(p->first, got);
        assert_int_equal(p->n_logprobs, p->n_ids);
        for (size_t i = 0; i < p->n_ids; i++) {
            frame += p->logprobs[i].size;
            assert_int_equal(p->logprobs[i].size, SIZE - p->ids[i]);
            assert_int_equal(p->logprobs[i].data[0], (uint8_t)p->ids[i]);
        }
        assert_in_range(frame, 1, 2u << 20);
        got += (uint32_t)p->n_ids;
        struct wire_lease_ack ack = {.job_id = l->job_id, .epoch = 1, .next = got};
        over = lease_acknowledge(l, &ack, &fenced);
        arena_fini(&arena);
    }
    assert_int_equal(got, N);
    lease_table_fini(&t);
}

/* What a model makes while nobody takes it is one event, of any length. */
static void test_an_event_longer_than_a_frame_goes_out_in_several(void **state)
{
    enum { N = 2 * LIMIT_TOKENS_PER_FRAME + 3, TEXT_OF_ONE = 40 };
    struct lease_table t;
    struct wire_report report;
    struct errbuf eb = {{0}};
    bool over = false, fenced;
    int32_t *ids = calloc(N, sizeof *ids), *sizes = calloc(N, sizeof *sizes);
    char *text = malloc((size_t)N * TEXT_OF_ONE);
    (void)state;

    assert_true(ids != NULL && sizes != NULL && text != NULL);
    for (int i = 0; i < N; i++) {
        ids[i] = i;
        sizes[i] = TEXT_OF_ONE;
        memset(text + (size_t)i * TEXT_OF_ONE, 'a' + i % 26, TEXT_OF_ONE);
    }
    lease_table_init(&t);
    struct lease *l = lease_new(&t, 1, 1);
    assert_int_equal(append(l, 0, ids, sizes, N, text, (size_t)N * TEXT_OF_ONE, &eb), ERR_OK);
    lease_end(l, WIRE_FINISH_LENGTH, ERR_OK, "");
    uint32_t got = 0;
    for (int frames = 0; !over; frames++) {
        struct arena arena;
        arena_init(&arena, 16u << 20);
        assert_true(frames < 16);
        assert_int_equal(lease_report_fill(&t, false, 2 * LEASE_CHUNK_BYTES_MAX, &arena, &report),
                         ERR_OK);
        const struct wire_lease_progress *p = &report.leases[0];
        assert_int_equal(p->first, got);
        assert_in_range(p->n_ids, 1, LIMIT_TOKENS_PER_FRAME);
        assert_int_equal(p->text.size, p->n_ids * TEXT_OF_ONE);
        assert_memory_equal(p->ids, ids + got, p->n_ids * sizeof *ids);
        assert_memory_equal(p->text.data, text + (size_t)got * TEXT_OF_ONE, p->text.size);
        got += (uint32_t)p->n_ids;
        assert_int_equal(p->finish, got == N ? WIRE_FINISH_LENGTH : WIRE_FINISH_UNSPECIFIED);
        struct wire_lease_ack ack = {.job_id = p->job_id, .epoch = 1, .next = got};
        over = lease_acknowledge(l, &ack, &fenced);
        arena_fini(&arena);
    }
    assert_int_equal(got, N);
    lease_table_fini(&t);
    free(ids);
    free(sizes);
    free(text);
}

static void test_text_sizes_stay_within_the_text(void **state)
{
    static const int32_t ids[] = {1, 2};
    static const struct {
        int32_t sizes[2];
        enum err want;
    } rows[] = {
        {{2, 1}, ERR_OK}, {{2, 2}, ERR_INTERNAL}, {{4, 0}, ERR_INTERNAL}, {{-1, 3}, ERR_INTERNAL}};
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct lease_table t;
        struct errbuf eb = {{0}};
        lease_table_init(&t);
        struct lease *l = lease_new(&t, 1, 1);
        assert_int_equal(append(l, 0, ids, rows[i].sizes, 2, "abc", 3, &eb), rows[i].want);
        assert_int_equal(l->tokens, rows[i].want == ERR_OK ? 2 : 0);
        lease_table_fini(&t);
    }
}

static void test_frames_are_bounded_and_the_end_comes_last(void **state)
{
    struct lease_table t;
    struct receiver r = {0};
    struct arena arena;
    int frames = 0;
    (void)state;

    lease_table_init(&t);
    arena_init(&arena, 1u << 20);
    struct lease *l = lease_new(&t, 1, 1);
    for (int i = 0; i < 10; i++)
        say(l, "0123456789");
    lease_end(l, WIRE_FINISH_LENGTH, ERR_OK, "");
    for (bool over = false; !over; frames++) {
        struct wire_report report;
        bool fenced;
        assert_true(frames < 100);
        /* Room for two chunks of ten tokens: 10 bytes of text and 100 of ids and sizes each. */
        assert_int_equal(lease_report_fill(&t, false, 225, &arena, &report), ERR_OK);
        assert_int_equal(report.n_leases, 1);
        assert_true(report.leases[0].n_ids <= 20);
        struct wire_lease_ack ack = receive(&r, &report.leases[0]);
        over = lease_acknowledge(l, &ack, &fenced);
    }
    assert_int_equal(frames, 5);
    assert_int_equal(r.count, 100);
    assert_true(r.ended);
    lease_table_fini(&t);
    arena_fini(&arena);
}

static void test_an_end_after_the_frame_left_is_not_taken_as_said(void **state)
{
    struct lease_table t;
    struct wire_report report;
    struct arena arena;
    bool fenced;
    (void)state;

    lease_table_init(&t);
    arena_init(&arena, 1u << 20);
    struct lease *l = lease_new(&t, 1, 1);
    say(l, "abc");
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    lease_end(l, WIRE_FINISH_STOP, ERR_OK, ""); /* while the frame is under way */
    struct wire_lease_ack ack = {.job_id = l->job_id, .epoch = 1, .next = 3};
    assert_false(lease_acknowledge(l, &ack, &fenced));
    assert_true(lease_any_changed(&t));
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.leases[0].finish, WIRE_FINISH_STOP);
    assert_true(lease_acknowledge(l, &ack, &fenced));
    lease_table_fini(&t);
    arena_fini(&arena);
}

static void test_fencing_and_foreign_epochs(void **state)
{
    static const struct {
        const char *what;
        uint64_t epoch;
        bool ack_fenced;
        bool over, fenced;
    } rows[] = {
        {"our epoch, fenced", 7, true, true, true},
        {"an older epoch, fenced: not about us", 6, true, false, false},
        {"a newer epoch, not about us either", 8, false, false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct lease_table t;
        bool fenced;
        lease_table_init(&t);
        struct lease *l = lease_new(&t, 1, 7);
        say(l, "abc");
        struct wire_lease_ack ack = {
            .job_id = l->job_id, .epoch = rows[i].epoch, .fenced = rows[i].ack_fenced};
        assert_int_equal(lease_acknowledge(l, &ack, &fenced), rows[i].over);
        assert_int_equal(fenced, rows[i].fenced);
        lease_table_fini(&t);
    }
}

/* A heartbeat tells of a job that has said nothing yet, and is acknowledged like any other. */
static void test_nothing_said_is_acknowledged(void **state)
{
    struct lease_table t;
    struct wire_report report;
    struct arena arena;
    bool fenced;
    (void)state;
    lease_table_init(&t);
    arena_init(&arena, 1 << 20);
    struct lease *l = lease_new(&t, 1, 1);
    assert_int_equal(lease_report_fill(&t, true, 1000, &arena, &report), ERR_OK);
    assert_int_equal(report.n_leases, 1);
    assert_int_equal(report.leases[0].n_ids, 0);
    struct wire_lease_ack ack = {.job_id = report.leases[0].job_id, .epoch = 1};
    assert_false(lease_acknowledge(l, &ack, &fenced));
    assert_false(fenced);
    lease_table_fini(&t);
    arena_fini(&arena);
}

static void test_a_resumed_job_goes_on_behind_its_prefix(void **state)
{
    static const int32_t prefix[] = {10, 11, 12}, one[] = {1};
    struct wire_command_run run = run_of(1, 2, prefix, 3);
    struct lease_table t;
    struct wire_report report;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct lease *l = NULL;
    (void)state;

    lease_table_init(&t);
    arena_init(&arena, 1u << 20);
    assert_int_equal(lease_add(&t, &run, 0, &l, &eb), ERR_OK);
    assert_int_equal(l->tokens, 3);
    assert_int_equal(l->run.n_resume_ids, 3);
    assert_int_equal(l->run.resume_ids[2], 12);
    assert_string_equal(l->run.job.model, "m");
    /* An engine that does not go on where it should is an error, not a hole. */
    assert_int_equal(append(l, 0, prefix, one, 1, "x", 1, &eb), ERR_INTERNAL);
    assert_int_equal(append(l, 3, prefix, one, 1, "x", 1, &eb), ERR_OK);
    assert_int_equal(lease_report_fill(&t, false, 1u << 20, &arena, &report), ERR_OK);
    assert_int_equal(report.leases[0].first, 3);
    lease_table_fini(&t);
    arena_fini(&arena);
}

/* Random appends, losses, late and partial acknowledgements: the receiver's text is the sender's.
 */
static void test_nothing_is_lost_or_doubled_whatever_happens_to_frames(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 200; seed++) {
        struct lease_table t;
        struct receiver r = {0};
        char sent[2048] = "";
        bool over = false;
        unsigned x = seed * 2654435761u;

        lease_table_init(&t);
        struct lease *l = lease_new(&t, 1, 1);
        for (int step = 0; !over; step++) {
            struct wire_report report;
            struct arena arena;
            bool fenced;
            x = x * 1664525u + 1013904223u;
            assert_true(step < 10000);
            if (l->state != LEASE_STATE_ENDED) {
                static const char *const words[] = {"a", "bc", "def", ""};
                say(l, words[x >> 8 & 3]);
                strcat(sent, words[x >> 8 & 3]);
                if (step == 300)
                    lease_end(l, WIRE_FINISH_STOP, ERR_OK, "");
            }
            if ((x >> 12 & 3) == 0)
                continue; /* several chunks a frame */
            arena_init(&arena, 1u << 20);
            assert_int_equal(lease_report_fill(&t, (x >> 14 & 1) != 0, 64, &arena, &report),
                             ERR_OK);
            bool arrives = (x >> 15 & 3) != 0, answered = (x >> 17 & 3) != 0;
            if (report.n_leases == 1 && arrives) {
                /* A receiver takes the part that it does not have yet only as a whole chunk run:
                 * overlap makes it say where to go on. */
                struct wire_lease_ack ack;
                if (report.leases[0].first < r.count)
                    ack = (struct wire_lease_ack){.job_id = l->job_id, .epoch = 1, .next = r.count};
                else
                    ack = receive(&r, &report.leases[0]);
                if (answered)
                    over = lease_acknowledge(l, &ack, &fenced) && r.ended;
            }
            if (!arrives || !answered)
                lease_report_failed(&t);
            arena_fini(&arena);
        }
        assert_int_equal(r.text_size, strlen(sent));
        assert_memory_equal(r.text, sent, r.text_size);
        lease_table_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_lost_frame_is_said_again),
        cmocka_unit_test(test_each_token_says_what_it_adds),
        cmocka_unit_test(test_logprobs_go_with_their_tokens),
        cmocka_unit_test(test_an_event_longer_than_a_frame_goes_out_in_several),
        cmocka_unit_test(test_text_sizes_stay_within_the_text),
        cmocka_unit_test(test_frames_are_bounded_and_the_end_comes_last),
        cmocka_unit_test(test_an_end_after_the_frame_left_is_not_taken_as_said),
        cmocka_unit_test(test_fencing_and_foreign_epochs),
        cmocka_unit_test(test_nothing_said_is_acknowledged),
        cmocka_unit_test(test_a_resumed_job_goes_on_behind_its_prefix),
        cmocka_unit_test(test_nothing_is_lost_or_doubled_whatever_happens_to_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
