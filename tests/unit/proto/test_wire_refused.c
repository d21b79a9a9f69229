/* What encoding refuses, and where the error says it is. Decoding has the same checks. */
#include "common/buf.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "proto/wire.h"

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
static const int32_t stop_tokens[LIMIT_STOP_TOKENS + 1] = {1};
static const struct wire_logit_bias biases_far[] = {{1, 2.0f}, {2, 101.0f}};
static const struct wire_logit_bias biases_twice[] = {{7, 2.0f}, {7, 1.0f}};
static const struct wire_logit_bias biases_id[] = {{2147483648u, 2.0f}};
static const struct wire_logit_bias biases_many[LIMIT_LOGIT_BIASES + 1];

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
CHANGE(temperature_high, JOB.sampling.temperature = 100.5f)
CHANGE(typical_low, JOB.sampling.typical_p = -0.5f)
CHANGE(typical_high, JOB.sampling.typical_p = 1.5f)
CHANGE(bias_far, JOB.sampling.logit_bias = biases_far; JOB.sampling.n_logit_bias = 2)
CHANGE(bias_twice, JOB.sampling.logit_bias = biases_twice; JOB.sampling.n_logit_bias = 2)
CHANGE(bias_id, JOB.sampling.logit_bias = biases_id; JOB.sampling.n_logit_bias = 1)
CHANGE(bias_many, JOB.sampling.logit_bias = biases_many;
       JOB.sampling.n_logit_bias = LIMIT_LOGIT_BIASES + 1)
CHANGE(repetition_high, JOB.sampling.repetition_penalty = 101.0f)
CHANGE(stop_tokens_many, JOB.stop_tokens = stop_tokens; JOB.n_stop_tokens = LIMIT_STOP_TOKENS + 1)
CHANGE(stop_token_negative, JOB.stop_tokens = ids_negative; JOB.n_stop_tokens = 2)
CHANGE(logprobs_many, JOB.logprobs = true; JOB.top_logprobs = LIMIT_TOP_LOGPROBS + 1)
CHANGE(logprobs_not_asked, JOB.top_logprobs = 2)
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
CHANGE(hello_worker_fast, (worker_hello(request), HELLO.worker.isa = HELLO.worker.nccl.version = "",
                           HELLO.worker.read_bytes_per_s = 1000000000000001))
CHANGE(hello_worker_fastest,
       (worker_hello(request), HELLO.worker.isa = HELLO.worker.nccl.version = "",
        HELLO.worker.read_bytes_per_s = 1000000000000000))

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

static const struct wire_lease_progress progress_few_logprobs[] = {
    {.job_id = {{1}}, .ids = sizes, .n_ids = 2, .logprobs = stops_empty, .n_logprobs = 1}};

static void report_of(struct wire_request *request, const struct wire_lease_progress *lease)
{
    request->kind = WIRE_REQUEST_REPORT;
    request->report = (struct wire_report){.leases = lease, .n_leases = 1};
}

CHANGE(report_error_alone, report_of(request, progress_error_alone))
CHANGE(report_finish_alone, report_of(request, progress_finish_alone))
CHANGE(report_far, report_of(request, progress_far))
CHANGE(report_sizes, report_of(request, progress_sizes))
CHANGE(report_few_logprobs, report_of(request, progress_few_logprobs))
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
CHANGE(list_short, (list_of(request), LISTING.id_short = bytes_of("five!")))
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

static void shape_of(struct wire_request *request, const uint8_t *bytes, size_t size)
{
    static struct wire_model_offer offer = {.name = "m"};
    worker_hello(request);
    offer.shape = (struct wire_bytes){bytes, size};
    request->hello.worker.models = &offer;
    request->hello.worker.n_models = 1;
}
static const uint8_t shape_good[] = {2, 32, 1, 64, 64, 8, 1, 1, 1, 1, 10, 10, 1, 32, 20, 1, 0, 1};
static const uint8_t shape_heads[] = {2, 32, 1, 64, 64, 8, 1, 3, 2};
static const uint8_t shape_zeros[LIMIT_SHAPE_BYTES + 1];
CHANGE(shape_plain, shape_of(request, shape_good, sizeof shape_good))
CHANGE(shape_short, shape_of(request, shape_good, sizeof shape_good - 1))
CHANGE(shape_odd, shape_of(request, shape_heads, sizeof shape_heads))
CHANGE(shape_version, shape_of(request, shape_zeros, 20))
CHANGE(shape_long, shape_of(request, shape_zeros, sizeof shape_zeros))

static const struct {
    void (*change)(struct wire_request *request);
    enum err err;
    const char *says;
} refusals[] = {
    {shape_plain, ERR_OK, ""},
    {shape_short, ERR_INVALID, "hello.worker.models[0].shape: layers of a kind: cut short"},
    {shape_odd, ERR_INVALID, "hello.worker.models[0].shape: groups of heads: cut short"},
    {shape_version, ERR_INVALID, "hello.worker.models[0].shape: the form's version is 0"},
    {shape_long, ERR_TOO_LARGE, "hello.worker.models[0].shape: 4097 is over LIMIT_SHAPE_BYTES"},
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
    {temperature_low, ERR_INVALID, "submit.job.sampling.temperature: -0.1 is not within 0 .. 100"},
    {temperature_nan, ERR_INVALID, "submit.job.sampling.temperature: not a finite"},
    {temperature_infinite, ERR_INVALID, "submit.job.sampling.temperature: not a finite"},
    {top_p_zero, ERR_INVALID, "submit.job.sampling.top_p"},
    {top_p_high, ERR_INVALID, "submit.job.sampling.top_p"},
    {min_p_one, ERR_INVALID, "submit.job.sampling.min_p"},
    {min_p_low, ERR_INVALID, "submit.job.sampling.min_p"},
    {repetition_zero, ERR_INVALID, "submit.job.sampling.repetition_penalty"},
    {temperature_high, ERR_INVALID, "submit.job.sampling.temperature: 100.5 is not within 0 .."},
    {typical_low, ERR_INVALID, "submit.job.sampling.typical_p: -0.5 is not within 0 .. 1"},
    {typical_high, ERR_INVALID, "submit.job.sampling.typical_p: 1.5 is not within 0 .. 1"},
    {bias_far, ERR_INVALID, "submit.job.sampling.logit_bias[1].bias: 101 is not within -100"},
    {bias_twice, ERR_INVALID, "submit.job.sampling.logit_bias: token 7 does not come after 7"},
    {bias_id, ERR_TOO_LARGE, "submit.job.sampling.logit_bias[0].id: 2147483648 is over INT32_MAX"},
    {bias_many, ERR_TOO_LARGE, "submit.job.sampling.logit_bias: 1025 is over LIMIT_LOGIT_BIASES"},
    {repetition_high, ERR_INVALID, "submit.job.sampling.repetition_penalty: 101 is not within"},
    {stop_tokens_many, ERR_TOO_LARGE, "submit.job.stop_tokens: 65 is over LIMIT_STOP_TOKENS"},
    {stop_token_negative, ERR_INVALID, "submit.job.stop_tokens[1]: negative"},
    {logprobs_many, ERR_TOO_LARGE, "submit.job.top_logprobs: 21 is over LIMIT_TOP_LOGPROBS"},
    {logprobs_not_asked, ERR_INVALID, "submit.job.top_logprobs: 2, but logprobs are not asked"},
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
    {hello_worker_fast, ERR_TOO_LARGE,
     "hello.worker.read_bytes_per_s: 1000000000000001 is over LIMIT_READ_BYTES_PER_S"},
    {hello_worker_fastest, ERR_OK, ""},
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
    {report_few_logprobs, ERR_INVALID, "report.leases[0].logprobs: 1 are not those of 2 ids"},
    {report_negative_sizes, ERR_INVALID, "report.leases[0].text_sizes[0]: negative"},
    {list_plain, ERR_OK, ""},
    {list_states, ERR_INVALID, "list_jobs.states: 0x200"},
    {list_after, ERR_INVALID, "list_jobs.after: 5 bytes, not 16"},
    {list_limit, ERR_TOO_LARGE, "list_jobs.limit: 1001 is over LIMIT_LIST_ROWS"},
    {list_short, ERR_TOO_LARGE, "list_jobs.id_short: 5 is over ID_SHORT_BYTES"},
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

static void replies_are_checked_too(void **state)
{
    static const struct wire_command twice[] = {
        {.seq = 2, .kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}},
        {.seq = 2, .kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}},
    };
    static const struct wire_command zero[] = {{.kind = WIRE_COMMAND_LOAD, .load = {.model = "m"}}};
    static const struct wire_command strange[] = {{.seq = 1}};
    static const struct wire_gang_member two[] = {{"a", 1}, {"b", 1}};
#define LOAD_AT(...)                                                                               \
    {                                                                                              \
        {                                                                                          \
            .seq = 1, .kind = WIRE_COMMAND_LOAD, .load = {.model = "m", .place = {__VA_ARGS__} }   \
        }                                                                                          \
    }
    static const struct wire_command nobody[] = LOAD_AT(.gang = 1, .stages = 1, .transport = 1);
    static const struct wire_command third[] =
        LOAD_AT(.gang = 1, .rank = 2, .stages = 1, .transport = 1, .members = two, .n_members = 2);
    static const struct wire_command odd[] =
        LOAD_AT(.gang = 1, .stages = 3, .transport = 1, .members = two, .n_members = 2);
    static const struct wire_command no_way[] =
        LOAD_AT(.gang = 1, .stages = 1, .members = two, .n_members = 2);
    static const struct wire_command on_nothing[] =
        LOAD_AT(.gang = 1, .stages = 1, .transport = 3, .members = two, .n_members = 2);
    static const struct wire_command on_itself[] =
        LOAD_AT(.gang = 1, .stages = 1, .transport = 3, .members = two, .n_members = 2,
                .control = 3);
    static const struct wire_command on_another[] =
        LOAD_AT(.gang = 1, .stages = 1, .transport = 2, .members = two, .n_members = 2,
                .control = 1);
    static const struct wire_command unknown_way[] =
        LOAD_AT(.gang = 1, .stages = 1, .transport = 4, .members = two, .n_members = 2);
    static const struct wire_command no_gang[] = LOAD_AT(.members = two, .n_members = 2);
    static const struct wire_model_status apart[] = {
        {.name = "m", .state = WIRE_MODEL_STATE_READY, .ranks = 2}};
    static const struct wire_model_status beyond[] = {
        {.name = "m", .state = WIRE_MODEL_STATE_READY, .gang = 1, .rank = 2, .ranks = 2}};
    static const struct wire_worker_info strays[] = {
        {.name = "w", .state = WIRE_WORKER_STATE_ALIVE, .models = apart, .n_models = 1},
        {.name = "w", .state = WIRE_WORKER_STATE_ALIVE, .models = beyond, .n_models = 1}};
    static const struct {
        struct wire_reply reply;
        const char *says;
    } rows[] = {
        {{.kind = WIRE_REQUEST_PULL, .pull = {twice, 2}},
         "pull.commands: seq 2 does not come after"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {zero, 1}}, "pull.commands[0].seq: missing"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {strange, 1}}, "pull.commands[0].what: missing"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {nobody, 1}},
         "pull.commands[0].load.place.rank: 0 of 0 members"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {third, 1}},
         "pull.commands[0].load.place.rank: 2 of 2 members"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {odd, 1}},
         "pull.commands[0].load.place.stages: 3 of 2 members"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {no_way, 1}},
         "pull.commands[0].load.place.transport: missing"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {on_nothing, 1}},
         "pull.commands[0].load.place.control: missing, though the transport stands on one"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {on_itself, 1}},
         "pull.commands[0].load.place.control: 3 is"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {on_another, 1}},
         "pull.commands[0].load.place.control: given, though the transport stands on none"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {unknown_way, 1}},
         "pull.commands[0].load.place.transport: 4 is"},
        {{.kind = WIRE_REQUEST_PULL, .pull = {no_gang, 1}},
         "pull.commands[0].load.place.gang: missing, but there are members"},
        {{.kind = WIRE_REQUEST_LIST_WORKERS, .list_workers = {.workers = strays, .n_workers = 1}},
         "list_workers.workers[0].models[0].ranks: 2 ranks of gang 0"},
        {{.kind = WIRE_REQUEST_LIST_WORKERS,
          .list_workers = {.workers = strays + 1, .n_workers = 1}},
         "list_workers.workers[0].models[0].rank: 2 of 2"},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encode_refuses_with_the_place),
        cmocka_unit_test(replies_are_checked_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
