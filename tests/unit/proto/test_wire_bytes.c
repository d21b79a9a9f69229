/* What messages look like as bytes: those that protoc makes, and the same message back. */
#include "common/arena.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "proto/wire.h"
#include "proto/wire_tables.h"
#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum err message_encode(bool is_request, const void *ours, struct buf *out,
                               struct errbuf *eb)
{
    return is_request ? wire_request_encode(ours, out, eb) : wire_reply_encode(ours, out, eb);
}

union message {
    struct wire_request request;
    struct wire_reply reply;
};

static enum err message_decode(bool is_request, const struct buf *bytes, struct arena *arena,
                               union message *ret_message, struct errbuf *eb)
{
    return is_request
               ? wire_request_decode(bytes->data, bytes->size, arena, &ret_message->request, eb)
               : wire_reply_decode(bytes->data, bytes->size, arena, &ret_message->reply, eb);
}

static const struct convert_message *message_table(bool is_request)
{
    return is_request ? &wire_request_table : &wire_reply_table;
}

/* ---- golden bytes: what protoc makes of golden/messages.txt ---- */

static void tables_name_every_field(void **state)
{
    (void)state;
    const char *missing = walk_missing(&wire_request_table);
    if (missing == NULL)
        missing = walk_missing(&wire_reply_table);
    if (missing != NULL)
        print_message("%s\n", missing);
    assert_null(missing);
}

static void golden_check(bool is_request, const char *name, const void *ours)
{
    union message decoded;
    struct errbuf eb = {{0}};
    struct buf golden, packed;
    struct arena arena;

    buf_init(&golden);
    buf_init(&packed);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    golden_read(name, &golden);
    if (message_encode(is_request, ours, &packed, &eb) != ERR_OK ||
        message_decode(is_request, &golden, &arena, &decoded, &eb) != ERR_OK)
        fail_msg("%s: %s", name, eb.text);
    assert_int_equal(packed.size, golden.size);
    assert_memory_equal(packed.data, golden.data, golden.size);
    const char *differs = walk_difference(message_table(is_request), ours, &decoded);
    if (differs != NULL)
        fail_msg("%s: %s differs", name, differs);
    arena_fini(&arena);
    buf_fini(&packed);
    buf_fini(&golden);
}

static void golden_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sample_requests; i++)
        golden_check(true, sample_requests[i].name, &sample_requests[i].request);
}

static void golden_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sample_replies; i++)
        golden_check(false, sample_replies[i].name, &sample_replies[i].reply);
}

static void every_kind_has_a_golden_message(void **state)
{
    (void)state;
    assert_int_equal(n_sample_requests, wire_request_table.choice->n_cases);
    assert_int_equal(n_sample_replies, wire_reply_table.choice->n_cases);
    for (size_t i = 0; i < n_sample_requests; i++)
        assert_int_equal(sample_requests[i].request.kind,
                         wire_request_table.choice->cases[i].value);
    for (size_t i = 0; i < n_sample_replies; i++)
        assert_int_equal(sample_replies[i].reply.kind, wire_reply_table.choice->cases[i].value);
}

static void a_job_alone_is_the_same_bytes(void **state)
{
    const struct wire_job *job = &sample_requests[4].request.submit.job;
    struct wire_job back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf alone, whole;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&alone);
    buf_init(&whole);
    golden_read("request_submit", &whole);
    assert_int_equal(wire_job_encode(job, &alone, &eb), ERR_OK);
    assert_non_null(memmem(whole.data, whole.size, alone.data, alone.size));
    assert_int_equal(wire_job_decode(alone.data, alone.size, &arena, &back, &eb), ERR_OK);
    assert_null(walk_difference(&wire_job_table, job, &back));
    buf_clear(&whole);
    assert_int_equal(wire_sampling_encode(&job->sampling, &whole, &eb), ERR_OK);
    assert_non_null(memmem(alone.data, alone.size, whole.data, whole.size));
    assert_int_equal(wire_job_decode("\x0a\x01m", 3, &arena, &back, &eb), ERR_INVALID);
    assert_string_equal(eb.text, "job.prompt_kind: missing");
    buf_fini(&whole);
    buf_fini(&alone);
    arena_fini(&arena);
}

static void logprobs_have_the_same_fields_again(void **state)
{
    static const struct wire_token_logprob top[] = {{7, -0.5f, {(const uint8_t *)"\0\377", 2}},
                                                    {2147483647, -9999.0f, {NULL, 0}}};
    const struct wire_token_logprobs ours = {{1, -1.25f, {(const uint8_t *)"a", 1}}, top, 2};
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } bad[] = {
        {"", 0, "logprobs.drawn: missing"},
        {"\012\006\010\200\200\200\200\010", 8, "logprobs.drawn.id: 2147483648 is over INT32_MAX"},
        {"\012\005\025\000\000\200\177", 7, "logprobs.drawn.logprob: not a finite"},
        {"\012", 1, "logprobs"},
    };
    struct wire_token_logprobs back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf packed;

    (void)state;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&packed);
    assert_int_equal(wire_token_logprobs_encode(&ours, &packed, &eb), ERR_OK);
    struct wire_bytes bytes = {packed.data, packed.size};
    assert_int_equal(wire_token_logprobs_decode(&bytes, &arena, &back, &eb), ERR_OK);
    assert_null(walk_difference(&wire_token_logprobs_table, &ours, &back));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bytes = (struct wire_bytes){(const uint8_t *)bad[i].bytes, bad[i].size};
        enum err err = wire_token_logprobs_decode(&bytes, &arena, &back, &eb);
        if (err == ERR_OK || strncmp(eb.text, bad[i].says, strlen(bad[i].says)) != 0)
            fail_msg("row %zu (%s): %d %s", i, bad[i].says, (int)err, eb.text);
    }
    buf_fini(&packed);
    arena_fini(&arena);
}

/* ---- random messages, made valid where no single field can say what is ---- */

static void job_repair(struct walk_random *r, struct wire_job *job)
{
    job->priority %= 10;
    if (job->sampling.repetition_penalty < 0.01f)
        job->sampling.repetition_penalty += 0.01f;
    job->logprobs = job->logprobs || job->top_logprobs > 0;
    for (size_t i = 0; i < job->sampling.n_logit_bias; i++)
        ((struct wire_logit_bias *)job->sampling.logit_bias)[i].id = (uint32_t)i * 7;
    switch (job->prompt_kind) {
    case WIRE_PROMPT_KIND_CHAT:
        if (job->n_messages == 0) {
            static const struct wire_chat_message one[] = {{.role = "user"}};
            job->messages = one;
            job->n_messages = 1;
        }
        job->text.size = 0;
        job->n_prompt_ids = 0;
        break;
    case WIRE_PROMPT_KIND_TEXT:
        if (job->text.size == 0)
            job->text = (struct wire_bytes){(const uint8_t *)"text", 4};
        job->n_messages = 0;
        job->n_prompt_ids = 0;
        break;
    default:
        if (job->n_prompt_ids == 0) {
            int32_t *ids = arena_alloc_array(r->arena, 1, sizeof *ids);
            job->prompt_ids = ids;
            job->n_prompt_ids = 1;
        }
        job->n_messages = 0;
        job->text.size = 0;
    }
}

static void signature_repair(struct walk_random *r, struct wire_bytes *signature)
{
    signature->size = walk_next(r) % 2 == 0 ? 0 : ED25519_SIGN_BYTES;
    signature->data = arena_alloc(r->arena, ED25519_SIGN_BYTES);
}

static void shape_repair(const struct wire_model_offer *offer)
{
    static const uint8_t shape[] = {2, 32, 1, 64, 64, 8, 1, 1, 1, 1, 10, 10, 1, 32, 20, 1, 0, 1};
    struct wire_bytes *bytes = (struct wire_bytes *)&offer->shape;

    *bytes =
        bytes->size % 2 == 0 ? (struct wire_bytes){0} : (struct wire_bytes){shape, sizeof shape};
}

static void statuses_repair(const struct wire_model_status *statuses, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct wire_model_status *s = (struct wire_model_status *)&statuses[i];
        s->gang = s->ranks == 0 ? 0 : s->gang | 1;
        s->rank = s->ranks == 0 ? 0 : s->rank % s->ranks;
    }
}

static void place_repair(struct wire_gang_place *p)
{
    p->gang = p->n_members == 0 ? 0 : p->gang | 1;
    p->rank = p->n_members == 0 ? p->rank : p->rank % (uint32_t)p->n_members;
    p->stages = 1;
    p->transport = p->control == WIRE_GANG_TRANSPORT_UNSPECIFIED ? WIRE_GANG_TRANSPORT_SHM
                                                                 : WIRE_GANG_TRANSPORT_NCCL;
}

static void request_repair(struct walk_random *r, struct wire_request *request)
{
    switch (request->kind) {
    case WIRE_REQUEST_HELLO: {
        struct wire_hello *hello = &request->hello;
        signature_repair(r, &hello->signature);
        if (hello->role == WIRE_ROLE_CLIENT || hello->signature.size == 0)
            hello->worker = (struct wire_worker_hello){0};
        else if (hello->worker.device == NULL)
            hello->worker.device = "cpu";
        for (size_t i = 0; i < hello->worker.n_models; i++)
            shape_repair(&hello->worker.models[i]);
        statuses_repair(hello->worker.status, hello->worker.n_status);
        break;
    }
    case WIRE_REQUEST_REPORT:
        statuses_repair(request->report.models, request->report.n_models);
        for (size_t i = 0; i < request->report.n_leases; i++) {
            struct wire_lease_progress *p =
                (struct wire_lease_progress *)&request->report.leases[i];
            p->first %= LIMIT_MAX_TOKENS - 4;
            p->finish = p->error.code != 0 ? WIRE_FINISH_ERROR : p->finish % WIRE_FINISH_ERROR;
            p->n_text_sizes = 0;
            p->n_logprobs = p->n_logprobs < p->n_ids ? 0 : p->n_ids;
        }
        break;
    case WIRE_REQUEST_SUBMIT:
        job_repair(r, &request->submit.job);
        break;
    case WIRE_REQUEST_LIST_JOBS:
        request->list_jobs.states &= 0x1fe;
        request->list_jobs.after.size = request->list_jobs.after.size == ID_BYTES ? ID_BYTES : 0;
        break;
    case WIRE_REQUEST_USAGE:
        request->usage.day_from = request->usage.day_from % 2 ? 20250228 : 0;
        request->usage.day_to = request->usage.day_to % 2 ? 20250301 : 0;
        break;
    default:
        break;
    }
}

static void reply_repair(struct walk_random *r, struct wire_reply *reply)
{
    switch (reply->kind) {
    case WIRE_REQUEST_HELLO:
        signature_repair(r, &reply->hello.signature);
        reply->hello.challenge[0] = 1;
        break;
    case WIRE_REQUEST_PULL:
        for (size_t i = 0; i < reply->pull.n_commands; i++) {
            struct wire_command *command = (struct wire_command *)&reply->pull.commands[i];
            command->seq = command->seq % 1000 + 1000 * (i + 1);
            if (command->kind == WIRE_COMMAND_RUN)
                job_repair(r, &command->run.job);
            if (command->kind == WIRE_COMMAND_LOAD)
                place_repair(&command->load.place);
        }
        break;
    case WIRE_REQUEST_LIST_WORKERS:
        for (size_t i = 0; i < reply->list_workers.n_workers; i++)
            statuses_repair(reply->list_workers.workers[i].models,
                            reply->list_workers.workers[i].n_models);
        break;
    case WIRE_REQUEST_LIST_MODELS:
        for (size_t i = 0; i < reply->list_models.n_models; i++)
            shape_repair(&reply->list_models.models[i].offer);
        break;
    case WIRE_REQUEST_GET_JOB:
        job_repair(r, &reply->get_job.job);
        break;
    case WIRE_REQUEST_WATCH:
        reply->watch.first %= LIMIT_MAX_TOKENS - 4;
        reply->watch.n_logprobs =
            reply->watch.n_logprobs < reply->watch.n_ids ? 0 : reply->watch.n_ids;
        reply->watch.end = reply->watch.end && wire_job_state_is_end(reply->watch.state);
        break;
    default:
        break;
    }
}

/* What a seed makes comes back the same, and packs to the same bytes again. */
static void round_trip_check(bool is_request, uint64_t seed, const void *ours, struct arena *arena)
{
    union message back;
    struct errbuf eb = {{0}};
    struct buf packed, again;

    buf_init(&packed);
    buf_init(&again);
    if (message_encode(is_request, ours, &packed, &eb) != ERR_OK ||
        message_decode(is_request, &packed, arena, &back, &eb) != ERR_OK ||
        message_encode(is_request, &back, &again, &eb) != ERR_OK)
        fail_msg("seed %u: %s", (unsigned)seed, eb.text);
    const char *differs = walk_difference(message_table(is_request), ours, &back);
    if (differs != NULL)
        fail_msg("seed %u: %s differs", (unsigned)seed, differs);
    assert_int_equal(packed.size, again.size);
    assert_memory_equal(packed.data, again.data, again.size);
    buf_fini(&again);
    buf_fini(&packed);
}

static void random_messages_survive_the_round_trip(void **state)
{
    struct arena arena;
    (void)state;

    arena_init(&arena, 4 * LIMIT_DECODE_BYTES);
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct walk_random r = {.state = seed, .arena = &arena};
        struct wire_request request = {0};
        struct wire_reply reply = {0};

        arena_reset(&arena);
        walk_fill(&r, &wire_request_table, &request);
        request_repair(&r, &request);
        round_trip_check(true, seed, &request, &arena);
        walk_fill(&r, &wire_reply_table, &reply);
        reply_repair(&r, &reply);
        round_trip_check(false, seed, &reply, &arena);
    }
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_name_every_field),
        cmocka_unit_test(every_kind_has_a_golden_message),
        cmocka_unit_test(golden_requests),
        cmocka_unit_test(golden_replies),
        cmocka_unit_test(a_job_alone_is_the_same_bytes),
        cmocka_unit_test(logprobs_have_the_same_fields_again),
        cmocka_unit_test(random_messages_survive_the_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
