#include "common/arena.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "proto/wire.h"
#include "proto/wire_tables.h"
#include "tests/unit/proto/samples.h"
#include "tests/unit/proto/walk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct wire_bytes bytes_of(const char *text)
{
    return (struct wire_bytes){.data = (const uint8_t *)text, .size = strlen(text)};
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

static void golden_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sample_requests; i++) {
        const struct sample_request *sample = &sample_requests[i];
        struct wire_request decoded;
        struct errbuf eb = {{0}};
        struct buf golden, packed;
        struct arena arena;

        buf_init(&golden);
        buf_init(&packed);
        arena_init(&arena, LIMIT_DECODE_BYTES);
        golden_read(sample->name, &golden);
        if (wire_request_encode(&sample->request, &packed, &eb) != ERR_OK ||
            wire_request_decode(golden.data, golden.size, &arena, &decoded, &eb) != ERR_OK)
            fail_msg("%s: %s", sample->name, eb.text);
        assert_int_equal(packed.size, golden.size);
        assert_memory_equal(packed.data, golden.data, golden.size);
        const char *differs = walk_difference(&wire_request_table, &sample->request, &decoded);
        if (differs != NULL)
            fail_msg("%s: %s differs", sample->name, differs);
        arena_fini(&arena);
        buf_fini(&packed);
        buf_fini(&golden);
    }
}

static void golden_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_sample_replies; i++) {
        const struct sample_reply *sample = &sample_replies[i];
        struct wire_reply decoded;
        struct errbuf eb = {{0}};
        struct buf golden, packed;
        struct arena arena;

        buf_init(&golden);
        buf_init(&packed);
        arena_init(&arena, LIMIT_DECODE_BYTES);
        golden_read(sample->name, &golden);
        if (wire_reply_encode(&sample->reply, &packed, &eb) != ERR_OK ||
            wire_reply_decode(golden.data, golden.size, &arena, &decoded, &eb) != ERR_OK)
            fail_msg("%s: %s", sample->name, eb.text);
        assert_int_equal(packed.size, golden.size);
        assert_memory_equal(packed.data, golden.data, golden.size);
        const char *differs = walk_difference(&wire_reply_table, &sample->reply, &decoded);
        if (differs != NULL)
            fail_msg("%s: %s differs", sample->name, differs);
        arena_fini(&arena);
        buf_fini(&packed);
        buf_fini(&golden);
    }
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

/* ---- properties ---- */

static void job_repair(struct walk_random *r, struct wire_job *job)
{
    job->priority %= 10;
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
            job->text = bytes_of("text");
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
        break;
    }
    case WIRE_REQUEST_REPORT:
        for (size_t i = 0; i < request->report.n_leases; i++) {
            struct wire_lease_progress *p =
                (struct wire_lease_progress *)&request->report.leases[i];
            p->first %= LIMIT_MAX_TOKENS - 4;
            p->finish = p->error.code != 0 ? WIRE_FINISH_ERROR : p->finish % WIRE_FINISH_ERROR;
            p->n_text_sizes = 0;
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
        }
        break;
    case WIRE_REQUEST_GET_JOB:
        job_repair(r, &reply->get_job.job);
        break;
    case WIRE_REQUEST_WATCH:
        reply->watch.first %= LIMIT_MAX_TOKENS - 4;
        reply->watch.end = reply->watch.end && wire_job_state_is_end(reply->watch.state);
        break;
    default:
        break;
    }
}

static void random_messages_survive_the_round_trip(void **state)
{
    struct arena arena;
    struct buf packed, again;
    (void)state;

    arena_init(&arena, 4 * LIMIT_DECODE_BYTES);
    buf_init(&packed);
    buf_init(&again);
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        struct walk_random r = {.state = seed, .arena = &arena};
        struct errbuf eb = {{0}};
        struct wire_request request = {0}, request_back;
        struct wire_reply reply = {0}, reply_back;

        arena_reset(&arena);
        walk_fill(&r, &wire_request_table, &request);
        request_repair(&r, &request);
        buf_clear(&packed);
        buf_clear(&again);
        if (wire_request_encode(&request, &packed, &eb) != ERR_OK ||
            wire_request_decode(packed.data, packed.size, &arena, &request_back, &eb) != ERR_OK ||
            wire_request_encode(&request_back, &again, &eb) != ERR_OK)
            fail_msg("seed %u: %s", (unsigned)seed, eb.text);
        const char *differs = walk_difference(&wire_request_table, &request, &request_back);
        if (differs != NULL)
            fail_msg("seed %u: %s differs", (unsigned)seed, differs);
        assert_int_equal(packed.size, again.size);
        assert_memory_equal(packed.data, again.data, again.size);

        walk_fill(&r, &wire_reply_table, &reply);
        reply_repair(&r, &reply);
        buf_clear(&packed);
        if (wire_reply_encode(&reply, &packed, &eb) != ERR_OK ||
            wire_reply_decode(packed.data, packed.size, &arena, &reply_back, &eb) != ERR_OK)
            fail_msg("seed %u: %s", (unsigned)seed, eb.text);
        differs = walk_difference(&wire_reply_table, &reply, &reply_back);
        if (differs != NULL)
            fail_msg("seed %u: %s differs", (unsigned)seed, differs);
    }
    buf_fini(&again);
    buf_fini(&packed);
    arena_fini(&arena);
}

/* Damaged bytes are refused with a reason, or are another valid message: one that encoding, whose
 * checks are those of decoding, takes as well. */
static void damaged_check(bool is_request, const void *bytes, size_t size, struct arena *arena,
                          struct buf *out)
{
    struct errbuf eb = {{0}};
    struct wire_request request;
    struct wire_reply reply;

    arena_reset(arena);
    buf_clear(out);
    /* At its own size, so that a read past the end is seen. */
    uint8_t *copy = malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    uint8_t *exact = realloc(copy, size > 0 ? size : 1);
    assert_non_null(exact);
    enum err err = is_request ? wire_request_decode(exact, size, arena, &request, &eb)
                              : wire_reply_decode(exact, size, arena, &reply, &eb);
    if (err == ERR_OK)
        err = is_request ? wire_request_encode(&request, out, &eb)
                         : wire_reply_encode(&reply, out, &eb);
    else
        assert_true(eb.text[0] != '\0');
    assert_true(err == ERR_OK || out->size == 0);
    free(exact);
}

static void damaged_messages(void **state)
{
    struct walk_random r = {.state = 7};
    struct arena arena;
    struct buf golden, out;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    buf_init(&out);
    for (size_t i = 0; i < n_sample_requests + n_sample_replies; i++) {
        bool is_request = i < n_sample_requests;
        golden_read(is_request ? sample_requests[i].name
                               : sample_replies[i - n_sample_requests].name,
                    &golden);
        for (size_t size = 0; size < golden.size; size++)
            damaged_check(is_request, golden.data, size, &arena, &out);
        for (size_t bit = 0; bit < 8 * golden.size; bit++) {
            golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            damaged_check(is_request, golden.data, golden.size, &arena, &out);
            golden.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (int round = 0; round < 1000; round++) {
            struct buf many;
            buf_init(&many);
            buf_append(&many, golden.data, golden.size);
            for (int k = 0; k < 4; k++)
                many.data[walk_next(&r) % many.size] = (uint8_t)walk_next(&r);
            damaged_check(is_request, many.data, many.size, &arena, &out);
            buf_fini(&many);
        }
    }
    buf_fini(&out);
    buf_fini(&golden);
    arena_fini(&arena);
}

/* ---- what is refused, and where the error says it is ---- */

static struct wire_request submit_base(void)
{
    static const struct wire_chat_message messages[] = {{.role = "user"}, {.role = "user"}};
    return (struct wire_request){
        .request_id = {{1}},
        .kind = WIRE_REQUEST_SUBMIT,
        .submit = {.job_id = {{2}},
                   .job = {.model = "m",
                           .prompt_kind = WIRE_PROMPT_KIND_CHAT,
                           .messages = messages,
                           .n_messages = 2,
                           .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                           .job_class = WIRE_JOB_CLASS_BATCH}},
    };
}

static char long_text[LIMIT_ERROR_TEXT_BYTES + 2];
static const struct wire_chat_message messages_no_role[] = {{.role = "user"}, {.role = ""}};
static const struct wire_chat_message messages_long_role[] = {{.role = long_text}};
static const struct wire_bytes stops_empty[] = {{(const uint8_t *)"x", 1}, {NULL, 0}};
static const struct wire_bytes stops_long[] = {{(const uint8_t *)long_text, LIMIT_STOP_BYTES + 1}};
static const struct wire_bytes stops_many[LIMIT_STOP_STRINGS + 1] = {{(const uint8_t *)"x", 1}};
static const int32_t ids_negative[] = {1, -1};

#define JOB request->submit.job
#define CHANGE(name, statement)                                                                    \
    static void name(struct wire_request *request)                                                 \
    {                                                                                              \
        statement;                                                                                 \
    }

CHANGE(nothing, (void)request)
CHANGE(no_job_id, request->submit.job_id = (struct id){{0}})
CHANGE(no_request_id, request->request_id = (struct id){{0}})
CHANGE(no_kind, request->kind = WIRE_REQUEST_NONE)
CHANGE(strange_kind, request->kind = (enum wire_request_kind)99)
CHANGE(no_job, memset(&JOB, 0, sizeof JOB))
CHANGE(no_model, JOB.model = "")
CHANGE(null_model, JOB.model = NULL)
CHANGE(long_model, JOB.model = long_text)
CHANGE(model_line, JOB.model = "a\nb")
CHANGE(model_space, JOB.model = " a")
CHANGE(model_utf8, JOB.model = "a\xff")
CHANGE(no_prompt_kind, JOB.prompt_kind = WIRE_PROMPT_KIND_UNSPECIFIED)
CHANGE(strange_prompt_kind, JOB.prompt_kind = (enum wire_prompt_kind)4)
CHANGE(no_messages, JOB.n_messages = 0)
CHANGE(text_and_messages, JOB.text = bytes_of("x"))
CHANGE(text_empty, JOB.prompt_kind = WIRE_PROMPT_KIND_TEXT)
CHANGE(ids_empty, (JOB.prompt_kind = WIRE_PROMPT_KIND_IDS, JOB.n_messages = 0))
CHANGE(ids_bad, (JOB.prompt_ids = ids_negative, JOB.n_prompt_ids = 2))
CHANGE(role_empty, JOB.messages = messages_no_role)
CHANGE(role_long, (JOB.messages = messages_long_role, JOB.n_messages = 1))
CHANGE(no_sampling, memset(&JOB.sampling, 0, sizeof JOB.sampling))
CHANGE(temperature_low, JOB.sampling.temperature = -0.1f)
CHANGE(temperature_nan, JOB.sampling.temperature = NAN)
CHANGE(temperature_infinite, JOB.sampling.temperature = INFINITY)
CHANGE(top_p_zero, JOB.sampling.top_p = 0.0f)
CHANGE(top_p_high, JOB.sampling.top_p = 1.01f)
CHANGE(min_p_one, JOB.sampling.min_p = 1.0f)
CHANGE(min_p_low, JOB.sampling.min_p = -0.01f)
CHANGE(repetition_zero, JOB.sampling.repetition_penalty = 0.0f)
CHANGE(presence_high, JOB.sampling.presence_penalty = 2.01f)
CHANGE(frequency_low, JOB.sampling.frequency_penalty = -2.01f)
CHANGE(max_tokens_high, JOB.max_tokens = LIMIT_MAX_TOKENS + 1)
CHANGE(max_tokens_top, JOB.max_tokens = LIMIT_MAX_TOKENS)
CHANGE(stop_empty, (JOB.stops = stops_empty, JOB.n_stops = 2))
CHANGE(stop_long, (JOB.stops = stops_long, JOB.n_stops = 1))
CHANGE(stop_many, (JOB.stops = stops_many, JOB.n_stops = LIMIT_STOP_STRINGS + 1))
CHANGE(no_class, JOB.job_class = WIRE_JOB_CLASS_UNSPECIFIED)
CHANGE(priority_high, JOB.priority = 10)
CHANGE(deadline_far, JOB.deadline_ms = LIMIT_DEADLINE_MS + 1)
CHANGE(project_tab, JOB.project = "a\tb")
CHANGE(cost_center_bidi, JOB.cost_center = "a\342\200\256b")

static void client_hello(struct wire_request *request)
{
    request->kind = WIRE_REQUEST_HELLO;
    request->hello =
        (struct wire_hello){.role = WIRE_ROLE_CLIENT, .node = "n", .public_key = {1}, .nonce = {1}};
}

static void worker_hello(struct wire_request *request)
{
    static const uint8_t signature[ED25519_SIGN_BYTES] = {1};
    client_hello(request);
    request->hello.role = WIRE_ROLE_WORKER;
    request->hello.signature = (struct wire_bytes){signature, sizeof signature};
    request->hello.worker.device = "cpu";
}

#define HELLO request->hello
CHANGE(hello_no_role, (client_hello(request), HELLO.role = WIRE_ROLE_UNSPECIFIED))
CHANGE(hello_no_key, (client_hello(request), HELLO.public_key[0] = 0))
CHANGE(hello_no_nonce, (client_hello(request), HELLO.nonce[0] = 0))
CHANGE(hello_no_node, (client_hello(request), HELLO.node = ""))
CHANGE(hello_short_signature, (worker_hello(request), HELLO.signature.size = 63))
CHANGE(hello_client_worker, (client_hello(request), HELLO.worker.device = "cpu"))
CHANGE(hello_first_worker, (worker_hello(request), HELLO.signature.size = 0))
CHANGE(hello_second_bare, (worker_hello(request), HELLO.worker.device = ""))
CHANGE(hello_worker_no_device,
       (worker_hello(request), HELLO.worker.device = "", HELLO.worker.threads = 2))

static const struct wire_lease_progress progress_error_alone[] = {
    {.job_id = {{1}}, .error = {.code = 1}}};
static const struct wire_lease_progress progress_finish_alone[] = {
    {.job_id = {{1}}, .finish = WIRE_FINISH_ERROR}};
static const struct wire_lease_progress progress_far[] = {
    {.job_id = {{1}}, .first = LIMIT_MAX_TOKENS, .ids = ids_negative, .n_ids = 1}};

static const int32_t sizes[] = {2, 3, -1};
static const struct wire_lease_progress progress_sizes[] = {{.job_id = {{1}},
                                                             .ids = sizes,
                                                             .n_ids = 2,
                                                             .text = {(const uint8_t *)"12345", 5},
                                                             .text_sizes = sizes,
                                                             .n_text_sizes = 2}};
static const struct wire_lease_progress progress_few_sizes[] = {
    {.job_id = {{1}},
     .ids = sizes,
     .n_ids = 2,
     .text = {(const uint8_t *)"12345", 5},
     .text_sizes = sizes,
     .n_text_sizes = 1}};
static const struct wire_lease_progress progress_large_sizes[] = {
    {.job_id = {{1}},
     .ids = sizes,
     .n_ids = 2,
     .text = {(const uint8_t *)"1234", 4},
     .text_sizes = sizes,
     .n_text_sizes = 2}};
static const struct wire_lease_progress progress_negative_sizes[] = {
    {.job_id = {{1}},
     .ids = sizes,
     .n_ids = 1,
     .text = {(const uint8_t *)"1234", 4},
     .text_sizes = &sizes[2],
     .n_text_sizes = 1}};

static void report_of(struct wire_request *request, const struct wire_lease_progress *lease)
{
    request->kind = WIRE_REQUEST_REPORT;
    request->report = (struct wire_report){.leases = lease, .n_leases = 1};
}

CHANGE(report_error_alone, report_of(request, progress_error_alone))
CHANGE(report_finish_alone, report_of(request, progress_finish_alone))
CHANGE(report_far, report_of(request, progress_far))
CHANGE(report_sizes, report_of(request, progress_sizes))
CHANGE(report_few_sizes, report_of(request, progress_few_sizes))
CHANGE(report_large_sizes, report_of(request, progress_large_sizes))
CHANGE(report_negative_sizes, report_of(request, progress_negative_sizes))

static void list_of(struct wire_request *request)
{
    request->kind = WIRE_REQUEST_LIST_JOBS;
    request->list_jobs = (struct wire_list_jobs){0};
}
#define LISTING request->list_jobs
CHANGE(list_plain, list_of(request))
CHANGE(list_states, (list_of(request), LISTING.states = 1u << 9))
CHANGE(list_after, (list_of(request), LISTING.after = bytes_of("short")))
CHANGE(list_limit, (list_of(request), LISTING.limit = LIMIT_LIST_ROWS + 1))
CHANGE(list_prefix, (list_of(request), LISTING.id_prefix = bytes_of("seventeen bytes !")))

static void usage_of(struct wire_request *request, uint32_t from, uint32_t to)
{
    request->kind = WIRE_REQUEST_USAGE;
    request->usage = (struct wire_usage){.day_from = from, .day_to = to};
}
CHANGE(usage_open, usage_of(request, 0, 0))
CHANGE(usage_month, usage_of(request, 20261301, 0))
CHANGE(usage_day, usage_of(request, 0, 20260100))
CHANGE(usage_order, usage_of(request, 20260102, 20260101))
CHANGE(poll_long, (request->kind = WIRE_REQUEST_PULL,
                   request->pull = (struct wire_pull){.wait_ms = LIMIT_POLL_MS + 1}))

static const struct {
    void (*change)(struct wire_request *request);
    enum err err;
    const char *says;
} refusals[] = {
    {nothing, ERR_OK, ""},
    {no_job_id, ERR_INVALID, "submit.job_id: missing"},
    {no_request_id, ERR_INVALID, "request_id: missing"},
    {no_kind, ERR_INVALID, "body: missing"},
    {strange_kind, ERR_INVALID, "body: missing, or of a kind"},
    {no_job, ERR_INVALID, "submit.job: missing"},
    {no_model, ERR_INVALID, "submit.job.model: empty"},
    {null_model, ERR_INVALID, "submit.job.model: empty"},
    {long_model, ERR_TOO_LARGE, "submit.job.model: longer than LIMIT_NAME_BYTES"},
    {model_line, ERR_INVALID, "submit.job.model: not UTF-8 without control"},
    {model_space, ERR_INVALID, "submit.job.model: a name begins"},
    {model_utf8, ERR_INVALID, "submit.job.model: not UTF-8"},
    {no_prompt_kind, ERR_INVALID, "submit.job.prompt_kind: missing"},
    {strange_prompt_kind, ERR_INVALID, "submit.job.prompt_kind: 4 is not one of"},
    {no_messages, ERR_INVALID, "submit.job.messages: empty"},
    {text_and_messages, ERR_INVALID, "submit.job.text: given"},
    {text_empty, ERR_INVALID, "submit.job.messages: given"},
    {ids_empty, ERR_INVALID, "submit.job.prompt_ids: empty"},
    {ids_bad, ERR_INVALID, "submit.job.prompt_ids[1]: negative"},
    {role_empty, ERR_INVALID, "submit.job.messages[1].role: empty"},
    {role_long, ERR_TOO_LARGE, "submit.job.messages[0].role: longer"},
    {no_sampling, ERR_INVALID, "submit.job.sampling: missing"},
    {temperature_low, ERR_INVALID, "submit.job.sampling.temperature: -0.1 is below 0"},
    {temperature_nan, ERR_INVALID, "submit.job.sampling.temperature: not a finite"},
    {temperature_infinite, ERR_INVALID, "submit.job.sampling.temperature: not a finite"},
    {top_p_zero, ERR_INVALID, "submit.job.sampling.top_p"},
    {top_p_high, ERR_INVALID, "submit.job.sampling.top_p"},
    {min_p_one, ERR_INVALID, "submit.job.sampling.min_p"},
    {min_p_low, ERR_INVALID, "submit.job.sampling.min_p"},
    {repetition_zero, ERR_INVALID, "submit.job.sampling.repetition_penalty"},
    {presence_high, ERR_INVALID, "submit.job.sampling.presence_penalty"},
    {frequency_low, ERR_INVALID, "submit.job.sampling.frequency_penalty"},
    {max_tokens_high, ERR_TOO_LARGE, "submit.job.max_tokens: 1048577 is over LIMIT_MAX_TOKENS"},
    {max_tokens_top, ERR_OK, ""},
    {stop_empty, ERR_INVALID, "submit.job.stops[1]: empty"},
    {stop_long, ERR_TOO_LARGE, "submit.job.stops[0]: 257 bytes"},
    {stop_many, ERR_TOO_LARGE, "submit.job.stops: 17 is over LIMIT_STOP_STRINGS"},
    {no_class, ERR_INVALID, "submit.job.job_class: missing"},
    {priority_high, ERR_INVALID, "submit.job.priority: 10 is not within 0 .. 9"},
    {deadline_far, ERR_TOO_LARGE, "submit.job.deadline_ms"},
    {project_tab, ERR_INVALID, "submit.job.project: not UTF-8"},
    {cost_center_bidi, ERR_INVALID, "submit.job.cost_center: not UTF-8"},
    {client_hello, ERR_OK, ""},
    {worker_hello, ERR_OK, ""},
    {hello_no_role, ERR_INVALID, "hello.role: missing"},
    {hello_no_key, ERR_INVALID, "hello.public_key: missing"},
    {hello_no_nonce, ERR_INVALID, "hello.nonce: missing"},
    {hello_no_node, ERR_INVALID, "hello.node: empty"},
    {hello_short_signature, ERR_INVALID, "hello.signature: 63 bytes, not 64"},
    {hello_client_worker, ERR_INVALID, "hello.worker: only a worker"},
    {hello_first_worker, ERR_INVALID, "hello.worker: only a worker"},
    {hello_second_bare, ERR_INVALID, "hello.worker: missing"},
    {hello_worker_no_device, ERR_INVALID, "hello.worker.device: empty"},
    {report_error_alone, ERR_INVALID, "report.leases[0].error: an error and finish"},
    {report_finish_alone, ERR_INVALID, "report.leases[0].error: an error and finish"},
    {report_far, ERR_TOO_LARGE, "report.leases[0].ids: 1 tokens from 1048576 on"},
    {report_sizes, ERR_OK, ""},
    {report_few_sizes, ERR_INVALID, "report.leases[0].text_sizes: 1 sizes are not those of 2 ids"},
    {report_large_sizes, ERR_INVALID, "report.leases[0].text_sizes: 2 sizes are not those of 2"},
    {report_negative_sizes, ERR_INVALID, "report.leases[0].text_sizes[0]: negative"},
    {list_plain, ERR_OK, ""},
    {list_states, ERR_INVALID, "list_jobs.states: 0x200"},
    {list_after, ERR_INVALID, "list_jobs.after: 5 bytes, not 16"},
    {list_limit, ERR_TOO_LARGE, "list_jobs.limit: 1001 is over LIMIT_LIST_ROWS"},
    {list_prefix, ERR_TOO_LARGE, "list_jobs.id_prefix: 17 is over ID_BYTES"},
    {usage_open, ERR_OK, ""},
    {usage_month, ERR_INVALID, "usage.day_from: 20261301 is no day"},
    {usage_day, ERR_INVALID, "usage.day_to: 20260100 is no day"},
    {usage_order, ERR_INVALID, "usage.day_from: 20260102 is after"},
    {poll_long, ERR_TOO_LARGE, "pull.wait_ms: 30001 is over LIMIT_POLL_MS"},
};

static void encode_refuses_with_the_place(void **state)
{
    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct wire_request request = submit_base();
        struct errbuf eb = {{0}};
        struct buf out;

        refusals[i].change(&request);
        buf_init(&out);
        buf_append_str(&out, "kept");
        enum err err = wire_request_encode(&request, &out, &eb);
        if (err != refusals[i].err || strncmp(eb.text, refusals[i].says, strlen(refusals[i].says)))
            fail_msg("row %zu (%s): %d %s", i, refusals[i].says, (int)err, eb.text);
        assert_true(err == ERR_OK || strcmp(buf_str(&out), "kept") == 0);
        buf_fini(&out);
    }
}

/* What only raw bytes can say. "submit" is field 20: a2 01 <size>; its job field 2: 12 <size>. */
static void decode_refuses_with_the_place(void **state)
{
#define HEAD                                                                                       \
    "\x08\x01\x1a\x10"                                                                             \
    "0123456789abcdef"
    static const struct {
        const char *bytes;
        size_t size;
        enum err err;
        const char *says;
    } rows[] = {
#define ROW(literal, code, text) {literal, sizeof(literal) - 1, code, text}
        ROW("", ERR_UNSUPPORTED,
            "version: the peer speaks version 0 of the protocol, this build 1"),
        ROW("\x08\x02", ERR_UNSUPPORTED, "version: the peer speaks version 2"),
        ROW("\x08\x02\x12\x01", ERR_INVALID, "not a well-formed message"),
        ROW("GET / HTTP/1.1\r\n", ERR_INVALID, "not a well-formed message"),
        ROW("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ERR_INVALID, "not a well-formed"),
        ROW("\x08\x01\x1a\x0f"
            "0123456789abcde",
            ERR_INVALID, "request_id: 15 bytes, not 16"),
        ROW("\x08\x01", ERR_INVALID, "request_id: missing"),
        ROW(HEAD, ERR_INVALID, "body: missing"),
        ROW(HEAD "\xda\x06\x00", ERR_INVALID, "body: missing, or of a kind that this version"),
        ROW(HEAD "\xc2\x01\x11\x0a\x0f"
                 "0123456789abcde",
            ERR_INVALID, "get_job.job_id: 15 bytes"),
        ROW(HEAD "\x6a\x05\x0a\x03"
                 "a\0b",
            ERR_INVALID, "goodbye.reason: a NUL inside a string"),
        ROW(HEAD "\x6a\x05\x0a\x03"
                 "a\nb",
            ERR_INVALID, "goodbye.reason: not UTF-8"),
        ROW(HEAD "\x6a\x04\x0a\x03"
                 "abc",
            ERR_INVALID, "not a well-formed message"),
        ROW(HEAD "\x52\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ERR_INVALID,
            "hello.role: 4294967295 is not one of its values"),
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct wire_request request = {.session = 5};
        struct errbuf eb = {{0}};
        struct arena arena;

        arena_init(&arena, LIMIT_DECODE_BYTES);
        enum err err = wire_request_decode(rows[i].bytes, rows[i].size, &arena, &request, &eb);
        if (err != rows[i].err || strncmp(eb.text, rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("row %zu (%s): %d %s", i, rows[i].says, (int)err, eb.text);
        arena_fini(&arena);
    }
}

/* An error is answered to whom it belongs: the envelope is read though the body is refused. */
static void envelope_of_a_refused_request_is_read(void **state)
{
    struct wire_request request = {.kind = WIRE_REQUEST_PULL};
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf golden;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    golden_read("request_watch", &golden);
    golden.data[golden.size - 1] ^= 0x80; /* an unfinished varint in the body */
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb),
                     ERR_INVALID);
    assert_true(request.session == 0x1122334455667788);
    assert_memory_equal(request.request_id.bytes, "0123456789abcdef", ID_BYTES);
    assert_int_equal(request.kind, WIRE_REQUEST_PULL);

    golden_read("request_watch", &golden);
    golden.data[1] = 3; /* another version */
    request = (struct wire_request){0};
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb),
                     ERR_UNSUPPORTED);
    assert_memory_equal(request.request_id.bytes, "0123456789abcdef", ID_BYTES);
    buf_fini(&golden);
    arena_fini(&arena);
}

/* A newer peer of the same version may say more; what we do not know is passed over. */
static void unknown_fields_are_passed_over(void **state)
{
    struct wire_request request;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf golden;
    (void)state;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&golden);
    golden_read("request_pull", &golden);
    buf_append(&golden, "\xfa\x3f\x03new\xf8\x3f\x01", 9);
    assert_int_equal(wire_request_decode(golden.data, golden.size, &arena, &request, &eb), ERR_OK);
    assert_null(walk_difference(&wire_request_table, &sample_requests[1].request, &request));
    buf_fini(&golden);
    arena_fini(&arena);
}

/* A short message that would unfold to more than the arena allows is refused, and so is a long
 * one. */
static void memory_is_bounded(void **state)
{
    struct wire_request request;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf bytes;
    (void)state;

    buf_init(&bytes);
    buf_append(&bytes, HEAD "\x62\x80\x89\x7a", 20 + 4); /* report of a million empty leases */
    for (int i = 0; i < 1000000; i++)
        buf_append(&bytes, "\x0a\x00", 2);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(wire_request_decode(bytes.data, bytes.size, &arena, &request, &eb),
                     ERR_TOO_LARGE);
    assert_true(arena.used_bytes <= LIMIT_DECODE_BYTES);
    arena_fini(&arena);

    buf_clear(&bytes);
    assert_true(buf_reserve(&bytes, LIMIT_FRAME_BYTES + 1));
    memset(bytes.data, 0, LIMIT_FRAME_BYTES + 1);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    assert_int_equal(wire_request_decode(bytes.data, LIMIT_FRAME_BYTES + 1, &arena, &request, &eb),
                     ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "LIMIT_FRAME_BYTES"));
    arena_fini(&arena);
    buf_fini(&bytes);
}

/* The greatest prompt fits; one byte more does not, in one text or in several messages. */
static void prompt_bytes_are_bounded(void **state)
{
    struct wire_request request = submit_base();
    struct wire_request back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf out;
    uint8_t *text = calloc(1, LIMIT_PROMPT_BYTES + 1);
    (void)state;

    assert_non_null(text);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&out);
    request.submit.job.prompt_kind = WIRE_PROMPT_KIND_TEXT;
    request.submit.job.n_messages = 0;
    request.submit.job.text = (struct wire_bytes){text, LIMIT_PROMPT_BYTES};
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_OK);
    assert_int_equal(wire_request_decode(out.data, out.size, &arena, &back, &eb), ERR_OK);
    assert_int_equal(back.submit.job.text.size, LIMIT_PROMPT_BYTES);
    request.submit.job.text.size++;
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "submit.job.text: 8388609 is over LIMIT_PROMPT_BYTES"));

    const struct wire_chat_message halves[] = {
        {.role = "a", .content = {text, LIMIT_PROMPT_BYTES / 2}},
        {.role = "b", .content = {text, LIMIT_PROMPT_BYTES / 2 + 1}},
    };
    request.submit.job.prompt_kind = WIRE_PROMPT_KIND_CHAT;
    request.submit.job.text.size = 0;
    request.submit.job.messages = halves;
    request.submit.job.n_messages = 2;
    assert_int_equal(wire_request_encode(&request, &out, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "submit.job.messages: 8388609 bytes of text"));
    buf_fini(&out);
    arena_fini(&arena);
    free(text);
}

/* An error's text reaches the peer whatever is in it. */
static void text_for_people_is_made_fit(void **state)
{
    char text[LIMIT_ERROR_TEXT_BYTES + 100];
    struct wire_reply back;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf out;
    (void)state;

    memset(text, 'x', sizeof text);
    memcpy(text, "bad\n\xff\303", 6);
    memcpy(text + LIMIT_ERROR_TEXT_BYTES - 1, "\303\251", 2); /* cut in the middle */
    text[sizeof text - 1] = '\0';
    const struct wire_reply reply = {.kind = WIRE_REPLY_ERROR,
                                     .error = {.code = ERR_INVALID, .text = text}};
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&out);
    assert_int_equal(wire_reply_encode(&reply, &out, &eb), ERR_OK);
    assert_int_equal(wire_reply_decode(out.data, out.size, &arena, &back, &eb), ERR_OK);
    assert_int_equal(strlen(back.error.text), LIMIT_ERROR_TEXT_BYTES);
    assert_memory_equal(back.error.text, "bad???xxx", 9);
    assert_int_equal(back.error.text[LIMIT_ERROR_TEXT_BYTES - 1], '?');
    buf_fini(&out);
    arena_fini(&arena);
}

static void replies_are_checked_too(void **state)
{
    static const struct wire_command twice[] = {
        {.seq = 2, .kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}},
        {.seq = 2, .kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}},
    };
    static const struct wire_command zero[] = {{.kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}}};
    static const struct wire_command strange[] = {{.seq = 1}};
    static const struct {
        struct wire_reply reply;
        const char *says;
    } rows[] = {
        {{.kind = WIRE_REQUEST_PULL, .pull = {twice, 2}},
         "pull.commands: seq 2 does not come after"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {zero, 1}}, "pull.commands[0].seq: missing"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {strange, 1}}, "pull.commands[0].what: missing"},
        {{.kind = WIRE_REQUEST_HELLO, .hello = {.coordinator = "c"}}, "hello.challenge: missing"},
        {{.kind = WIRE_REPLY_ERROR}, "error.code: missing"},
        {{.kind = WIRE_REQUEST_WATCH,
          .watch = {.job_id = {{1}}, .state = WIRE_JOB_STATE_RUNNING, .end = true}},
         "watch.end: said of a job that is running"},
        {{.kind = WIRE_REQUEST_CANCEL}, "cancel.state: missing"},
        {{.kind = WIRE_REQUEST_GET_JOB}, "get_job.info: missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct errbuf eb = {{0}};
        struct buf out;
        buf_init(&out);
        enum err err = wire_reply_encode(&rows[i].reply, &out, &eb);
        if (err != ERR_INVALID || strncmp(eb.text, rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("row %zu (%s): %d %s", i, rows[i].says, (int)err, eb.text);
        buf_fini(&out);
    }
}

/* ---- the rest of wire.h ---- */

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

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int i = WIRE_JOB_STATE_QUEUED; i <= WIRE_JOB_STATE_EXPIRED; i++) {
        enum wire_job_state job_state = WIRE_JOB_STATE_UNSPECIFIED;
        assert_true(wire_job_state_parse(wire_job_state_name((enum wire_job_state)i), &job_state));
        assert_int_equal(job_state, i);
        assert_int_equal(wire_job_state_is_end(job_state), i >= WIRE_JOB_STATE_DONE);
    }
    for (int i = WIRE_JOB_CLASS_INTERACTIVE; i <= WIRE_JOB_CLASS_BATCH; i++) {
        enum wire_job_class job_class = WIRE_JOB_CLASS_UNSPECIFIED;
        assert_true(wire_job_class_parse(wire_job_class_name((enum wire_job_class)i), &job_class));
        assert_int_equal(job_class, i);
    }
    enum wire_job_state untouched = WIRE_JOB_STATE_DONE;
    assert_false(wire_job_state_parse("unspecified", &untouched));
    assert_false(wire_job_state_parse("Queued", &untouched));
    assert_int_equal(untouched, WIRE_JOB_STATE_DONE);
    assert_false(wire_job_state_is_end(WIRE_JOB_STATE_UNSPECIFIED));
    assert_string_equal(wire_job_state_name((enum wire_job_state)9), "unknown");
    assert_string_equal(wire_job_state_name((enum wire_job_state) - 1), "unknown");
    assert_string_equal(wire_finish_name(WIRE_FINISH_LENGTH), "length");
    assert_string_equal(wire_model_state_name(WIRE_MODEL_STATE_READY), "ready");
    assert_string_equal(wire_worker_state_name(WIRE_WORKER_STATE_GONE), "gone");
}

/* Whatever differs between two Hellos makes what is signed differ; moving a byte from one name to
 * the next does, too. */
static void no_signature_means_two_things(void **state)
{
    enum { VARIANTS = 8 };
    struct buf bytes[VARIANTS];
    struct wire_hello hello = {.role = WIRE_ROLE_WORKER, .node = "ab", .tenant = "c"};
    struct wire_hello_reply reply = {.coordinator = "ab"};
    uint8_t challenge[32] = {1};
    (void)state;

    for (size_t i = 0; i < VARIANTS; i++) {
        struct wire_hello one = hello;
        uint8_t nonce[32];
        buf_init(&bytes[i]);
        memcpy(nonce, challenge, sizeof nonce);
        if (i == 1)
            one.role = WIRE_ROLE_CLIENT;
        if (i == 2) {
            one.node = "a";
            one.tenant = "bc";
        }
        if (i == 3)
            one.public_key[31] = 1;
        if (i == 4)
            nonce[31] = 1;
        if (i == 5)
            one.tenant = "";
        if (i == 7)
            wire_hello_reply_signed_bytes(nonce, 7, &reply, &bytes[i]);
        else
            wire_hello_signed_bytes(nonce, i == 6 ? 8 : 7, &one, &bytes[i]);
        for (size_t k = 0; k < i; k++)
            assert_false(bytes[k].size == bytes[i].size &&
                         memcmp(bytes[k].data, bytes[i].data, bytes[i].size) == 0);
    }
    for (size_t i = 0; i < VARIANTS; i++)
        buf_fini(&bytes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_name_every_field),
        cmocka_unit_test(every_kind_has_a_golden_message),
        cmocka_unit_test(golden_requests),
        cmocka_unit_test(golden_replies),
        cmocka_unit_test(random_messages_survive_the_round_trip),
        cmocka_unit_test(damaged_messages),
        cmocka_unit_test(encode_refuses_with_the_place),
        cmocka_unit_test(decode_refuses_with_the_place),
        cmocka_unit_test(envelope_of_a_refused_request_is_read),
        cmocka_unit_test(unknown_fields_are_passed_over),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(prompt_bytes_are_bounded),
        cmocka_unit_test(text_for_people_is_made_fit),
        cmocka_unit_test(replies_are_checked_too),
        cmocka_unit_test(a_job_alone_is_the_same_bytes),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(no_signature_means_two_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
