#include "tests/unit/core/core_test.h"

#include <string.h>

void core_test_init(struct core_test *t)
{
    *t = (struct core_test){.now_ms = 1000000, .random = 1};
    core_config_defaults(&t->config);
    t->config.node = "test";
    t->config.build = "test";
    arena_init(&t->arena, SIZE_MAX / 4);
}

void core_test_open(struct core_test *t)
{
    t->core = core_new(&t->config);
    assert_int_equal(
        core_restore_end(t->core, t->now_ms * 1000000, 1800000000000000000u, 1, 1, NULL), ERR_OK);
    core_test_begin(t);
}

void core_test_start(struct core_test *t)
{
    core_test_init(t);
    core_test_open(t);
}

void core_test_start_pair(struct core_test *t, uint64_t *ret_worker, uint64_t *ret_client)
{
    core_test_start(t);
    uint64_t worker = core_test_ready_worker(t, "w");
    if (ret_worker != NULL)
        *ret_worker = worker;
    *ret_client = core_test_client(t, "c", "", 2);
}

void core_test_start_job(struct core_test *t, uint64_t *ret_worker, uint64_t *ret_client)
{
    core_test_start_pair(t, ret_worker, ret_client);
    assert_int_equal(core_test_submit_ask(t, *ret_client, 1, "m", 20), ERR_OK);
}

void core_test_fini(struct core_test *t)
{
    core_free(t->core);
    arena_fini(&t->arena);
}

void core_test_begin(struct core_test *t)
{
    arena_reset(&t->arena);
    core_effects_init(&t->effects, &t->arena);
}

static void step(struct core_test *t, struct core_event *event)
{
    event->mono_ns = t->now_ms * 1000000;
    event->wall_ns = 1800000000000000000u + t->now_ms * 1000000;
    core_step(t->core, event, &t->effects);
}

uint64_t core_test_step(struct core_test *t, struct wire_request *request)
{
    static const uint8_t packed[4] = "job";
    struct core_event event = {.kind = CORE_EVENT_REQUEST,
                               .tag = ++t->tag,
                               .connection = t->connection,
                               .request = request};
    struct wire_request *kept = arena_alloc(&t->arena, sizeof *kept);
    assert_non_null(kept);
    *kept = *request;
    kept->request_id = core_test_id((uint8_t)t->tag);
    event.request = kept;
    event.hello_verified = true;
    for (size_t i = 0; i < 5; i++)
        event.random[i] = t->random++;
    if (kept->kind == WIRE_REQUEST_HELLO)
        event.key_fingerprint[0] = kept->hello.public_key[0];
    if (kept->kind == WIRE_REQUEST_SUBMIT) {
        event.packed_job = (struct wire_bytes){.data = packed, .size = sizeof packed};
        event.content_digest[0] = (uint8_t)kept->submit.job.max_tokens;
    }
    step(t, &event);
    return event.tag;
}

void core_test_end(struct core_test *t)
{
    struct core_event event = {.kind = CORE_EVENT_TURN_END};
    step(t, &event);
}

void core_test_wait(struct core_test *t, uint64_t ms)
{
    uint64_t until = t->now_ms + ms;
    core_test_begin(t);
    while (t->now_ms < until) {
        uint64_t next = core_next_ms(t->core);
        struct core_event event = {.kind = CORE_EVENT_TICK};
        t->now_ms = next <= t->now_ms ? t->now_ms : next < until ? next : until;
        step(t, &event);
        core_test_end(t);
    }
}

void core_test_wait_alive(struct core_test *t, uint64_t worker, uint64_t ms)
{
    struct wire_request beat = {.kind = WIRE_REQUEST_REPORT, .session = worker};
    for (uint64_t passed = 0; passed < ms; passed += 1000) {
        core_test_wait(t, 1000);
        (void)core_test_ask(t, &beat);
    }
}

const struct core_effect *core_test_reply(const struct core_test *t, uint64_t tag)
{
    for (const struct core_effect *e = t->effects.first; e != NULL; e = e->next) {
        if (e->kind == CORE_EFFECT_REPLY && e->reply.tag == tag)
            return e;
    }
    return NULL;
}

const struct core_effect *core_test_find(const struct core_test *t, enum core_effect_kind kind)
{
    const struct core_effect *e = t->effects.first;
    while (e != NULL && e->kind != kind)
        e = e->next;
    return e;
}

size_t core_test_count(const struct core_test *t, enum core_effect_kind kind)
{
    size_t n = 0;
    for (const struct core_effect *e = t->effects.first; e != NULL; e = e->next)
        n += e->kind == kind;
    return n;
}

const struct wire_reply *core_test_ask(struct core_test *t, struct wire_request *request)
{
    core_test_begin(t);
    uint64_t tag = core_test_step(t, request);
    core_test_end(t);
    const struct core_effect *e = core_test_reply(t, tag);
    return e != NULL ? &e->reply.reply : NULL;
}

void core_test_expect_error(const struct wire_reply *reply, enum err code, const char *part)
{
    assert_non_null(reply);
    assert_int_equal(reply->kind, WIRE_REPLY_ERROR);
    if (reply->error.code != (uint32_t)code || strstr(reply->error.text, part) == NULL)
        fail_msg("want error %s with \"%s\", got %s: %s", err_name(code), part,
                 err_name((enum err)reply->error.code), reply->error.text);
}

static uint64_t hello_twice(struct core_test *t, struct wire_request *request)
{
    const struct wire_reply *reply;
    request->hello.build = "test";
    request->hello.signature = (struct wire_bytes){0};
    reply = core_test_ask(t, request);
    assert_non_null(reply);
    assert_int_equal(reply->kind, WIRE_REQUEST_HELLO);
    assert_false(reply->hello.established);
    request->session = reply->session;
    request->hello.signature = (struct wire_bytes){.data = request->hello.nonce, .size = 64};
    reply = core_test_ask(t, request);
    assert_non_null(reply);
    return reply->kind == WIRE_REQUEST_HELLO && reply->hello.established ? reply->session : 0;
}

uint64_t core_test_client(struct core_test *t, const char *name, const char *tenant, uint8_t key)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_HELLO,
        .hello = {.role = WIRE_ROLE_CLIENT, .node = name, .tenant = tenant}};
    request.hello.public_key[0] = key;
    return hello_twice(t, &request);
}

uint64_t core_test_worker(struct core_test *t, const struct core_test_worker *worker)
{
    const struct wire_gpu gpu = {.uuid = worker->gpu_uuid != NULL ? worker->gpu_uuid : "GPU-1",
                                 .pci = "",
                                 .driver = "",
                                 .trouble = ""};
    struct wire_model_offer offers[4];
    struct wire_model_status status[4];
    size_t n = 0;
    uint64_t used = 0;
    for (; n < 4 && worker->models[n] != NULL; n++) {
        offers[n] = (struct wire_model_offer){
            .name = worker->models[n],
            .architecture = "llama",
            .quantization = worker->quantization != NULL ? worker->quantization : "Q4_1",
            .context_tokens = worker->context_tokens > 0 ? worker->context_tokens : 1000,
            .weights_bytes = worker->weights_bytes[n],
            .kv_bytes = worker->kv_bytes,
            .chat_template = "",
            .gang_settings = worker->gang_settings != NULL ? worker->gang_settings : "",
            .prompt_tokens_per_job = 64,
            .prompt_tokens_per_message = 16,
            .prompt_tokens_per_kib = 1024,
            .shape = worker->shape,
            .rank_bytes = worker->rank_bytes,
            .room = worker->room};
        memcpy(offers[n].weights_digest, worker->models[n], 1);
        if (worker->digest != 0)
            offers[n].weights_digest[0] = worker->digest;
        status[n] = (struct wire_model_status){
            .name = worker->models[n],
            .error = "",
            .state = worker->ready[n] ? WIRE_MODEL_STATE_READY : WIRE_MODEL_STATE_AVAILABLE,
            .decode_tokens_per_s = worker->ready[n] ? 100 : 0};
        used += worker->ready[n] ? worker->weights_bytes[n] : 0;
    }
    struct wire_request request = {
        .kind = WIRE_REQUEST_HELLO,
        .hello = {.role = WIRE_ROLE_WORKER,
                  .node = worker->name,
                  .tenant = "",
                  .worker = {.models = offers,
                             .n_models = n,
                             .status = status,
                             .n_status = n,
                             .leases = worker->leases,
                             .n_leases = worker->n_leases,
                             .memory = {.total_bytes = worker->total_bytes,
                                        .free_bytes = worker->free_bytes,
                                        .used_bytes = used},
                             .device = "cpu",
                             .isa = "scalar"}}};
    request.hello.public_key[0] = worker->key;
    memset(request.hello.worker.host, worker->host, sizeof request.hello.worker.host);
    request.hello.worker.transports = worker->transports;
    request.hello.worker.read_bytes_per_s = worker->read_bytes_per_s;
    request.hello.worker.nccl = worker->nccl;
    if (worker->nccl.version == NULL)
        request.hello.worker.nccl.version = "";
    request.hello.worker.gpus = &gpu;
    request.hello.worker.n_gpus = worker->has_gpu;
    if (worker->status != NULL) {
        request.hello.worker.status = worker->status;
        request.hello.worker.n_status = worker->n_status;
    }
    return hello_twice(t, &request);
}

static uint64_t worker_of_m(struct core_test *t, const char *name, bool ready)
{
    struct core_test_worker worker = {.name = name,
                                      .key = 1,
                                      .total_bytes = 8 * CORE_TEST_GB,
                                      .free_bytes = (ready ? 7 : 8) * CORE_TEST_GB,
                                      .models = {"m"},
                                      .weights_bytes = {CORE_TEST_GB},
                                      .ready = {ready}};
    return core_test_worker(t, &worker);
}

uint64_t core_test_ready_worker(struct core_test *t, const char *name)
{
    return worker_of_m(t, name, true);
}

uint64_t core_test_cold_worker(struct core_test *t, const char *name)
{
    return worker_of_m(t, name, false);
}

struct id core_test_id(uint8_t n)
{
    struct id id = {{0}};
    id.bytes[15] = n;
    return id;
}

struct wire_request core_test_submit(uint64_t session, uint8_t n, const char *model,
                                     uint32_t max_tokens)
{
    static const int32_t prompt[10];
    return (struct wire_request){.kind = WIRE_REQUEST_SUBMIT,
                                 .session = session,
                                 .submit = {.job_id = core_test_id(n),
                                            .job = {.model = model,
                                                    .prompt_kind = WIRE_PROMPT_KIND_IDS,
                                                    .prompt_ids = prompt,
                                                    .n_prompt_ids = 10,
                                                    .max_tokens = max_tokens,
                                                    .job_class = WIRE_JOB_CLASS_STANDARD,
                                                    .project = "",
                                                    .cost_center = ""}}};
}

enum err core_test_submit_ask(struct core_test *t, uint64_t session, uint8_t n, const char *model,
                              uint32_t max_tokens)
{
    struct wire_request request = core_test_submit(session, n, model, max_tokens);
    const struct wire_reply *reply = core_test_ask(t, &request);
    assert_non_null(reply);
    return reply->kind == WIRE_REPLY_ERROR ? (enum err)reply->error.code : ERR_OK;
}

struct wire_pull_reply core_test_pull(struct core_test *t, uint64_t session, uint64_t acked)
{
    struct wire_request request = {.kind = WIRE_REQUEST_PULL,
                                   .session = session,
                                   .pull = {.acked_command = acked, .wait_ms = 1000}};
    const struct wire_reply *reply = core_test_ask(t, &request);
    if (reply == NULL)
        return (struct wire_pull_reply){0};
    assert_int_equal(reply->kind, WIRE_REQUEST_PULL);
    return reply->pull;
}

struct wire_lease_ack core_test_report(struct core_test *t, uint64_t session, uint8_t job,
                                       uint64_t epoch, uint32_t first, uint32_t n,
                                       enum wire_finish finish, enum err error)
{
    int32_t ids[256] = {0};
    uint8_t text[256];
    memset(text, 'x', sizeof text);
    assert_true(n <= 256);
    struct wire_lease_progress progress = {
        .job_id = core_test_id(job),
        .epoch = epoch,
        .first = first,
        .ids = ids,
        .n_ids = n,
        .text = {.data = text, .size = n},
        .usage = {.prompt_tokens = 10, .prompt_computed = 10, .completion_tokens = first + n},
        .finish = finish,
        .error = {.code = (uint32_t)error, .text = "because"}};
    struct wire_request request = {.kind = WIRE_REQUEST_REPORT,
                                   .session = session,
                                   .report = {.leases = &progress, .n_leases = 1}};
    const struct wire_reply *reply = core_test_ask(t, &request);
    assert_non_null(reply);
    assert_int_equal(reply->kind, WIRE_REQUEST_REPORT);
    assert_int_equal(reply->report.n_leases, 1);
    return reply->report.leases[0];
}

struct wire_job_info core_test_job(struct core_test *t, uint64_t session, uint8_t n)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_GET_JOB, .session = session, .get_job = {.job_id = core_test_id(n)}};
    const struct wire_reply *reply = core_test_ask(t, &request);
    assert_non_null(reply);
    assert_int_equal(reply->kind, WIRE_REQUEST_GET_JOB);
    return reply->get_job.info;
}

const struct wire_explain_reply *core_test_explain(struct core_test *t, uint64_t session, uint8_t n)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = session, .explain = {.job_id = core_test_id(n)}};
    const struct wire_reply *reply = core_test_ask(t, &request);
    assert_non_null(reply);
    assert_int_equal(reply->kind, WIRE_REQUEST_EXPLAIN);
    return &reply->explain;
}

const struct wire_reply *core_test_cancel(struct core_test *t, uint64_t session, uint8_t n)
{
    struct wire_request request = {.kind = WIRE_REQUEST_CANCEL,
                                   .session = session,
                                   .cancel = {.job_id = core_test_id(n), .reason = ""}};
    return core_test_ask(t, &request);
}

const struct record_ledger *core_test_ledger(const struct core_test *t)
{
    assert_int_equal(core_test_count(t, CORE_EFFECT_LEDGER), 1);
    return &core_test_find(t, CORE_EFFECT_LEDGER)->ledger;
}
