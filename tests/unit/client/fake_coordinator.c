#include "unit/client/fake_coordinator.h"

#include "common/check.h"
#include "common/limits.h"
#include "common/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- what is answered ---- */

uint32_t fake_answer_tokens(const char *prompt)
{
    return 40 + (uint32_t)strlen(prompt) % 23;
}

/* One token a byte or two of "i=0 é i=1 é ...", so that é is cut again and again. */
void fake_answer(const char *prompt, uint32_t first, uint32_t n, struct buf *out)
{
    struct buf whole;
    buf_init(&whole);
    for (uint32_t i = 0; whole.size < 4096; i++)
        buf_printf(&whole, "%s:%u \xC3\xA9\xE2\x82\xAC ", prompt, i);
    size_t at = 0;
    for (uint32_t i = 0; i < first + n; i++) {
        size_t bytes = 1 + i % 5;
        if (i >= first)
            buf_append(out, whole.data + at, bytes);
        at += bytes;
    }
    buf_fini(&whole);
}

static struct fake_job *fake_find(struct fake_coordinator *f, const struct id *id)
{
    for (size_t i = 0; i < f->n_jobs; i++)
        if (id_compare(&f->jobs[i].id, id) == 0)
            return &f->jobs[i];
    return NULL;
}

static void fake_error(struct wire_reply *reply, enum err code, const char *text,
                       uint64_t retry_after_ms)
{
    reply->kind = WIRE_REPLY_ERROR;
    reply->error = (struct wire_error){.code = code,
                                       .text = text,
                                       .retryable = err_retryable(code),
                                       .retry_after_ms = retry_after_ms};
}

static void fake_hello(struct fake_coordinator *f, const struct wire_request *request,
                       struct wire_reply *reply, uint8_t signature[64], struct buf *scratch)
{
    const struct wire_hello *hello = &request->hello;
    struct errbuf eb = {0};
    f->counts.hellos++;
    if (f->faults.never_hello) {
        fake_error(reply, ERR_REFUSED, "this key is not known here", 0);
        return;
    }
    struct wire_hello_reply *h = &reply->hello;
    *h = (struct wire_hello_reply){.coordinator = "fake", .build = "test"};
    if (hello->signature.size == 0) {
        crypto_random(f->challenge, sizeof f->challenge);
        f->session = ++f->sessions;
        h->established = false;
    } else {
        wire_hello_signed_bytes(f->challenge, request->session, hello, scratch);
        bool good =
            request->session == f->session &&
            crypto_verify(hello->public_key, scratch->data, scratch->size, hello->signature.data);
        buf_clear(scratch);
        if (!good) {
            fake_error(reply, ERR_STALE, "say Hello again", 0);
            return;
        }
        h->established = true;
    }
    memcpy(h->challenge, f->challenge, sizeof h->challenge);
    crypto_key_public(f->key, h->public_key);
    reply->session = f->session;
    wire_hello_reply_signed_bytes(hello->nonce, reply->session, h, scratch);
    CHECK(crypto_sign(f->key, scratch->data, scratch->size, signature, &eb) == ERR_OK);
    if (f->faults.bad_signature)
        signature[7] ^= 1;
    h->signature = (struct wire_bytes){.data = signature, .size = 64};
}

static struct fake_job *fake_new_job(struct fake_coordinator *f, const struct id *id,
                                     const void *prompt, size_t size)
{
    CHECK(f->n_jobs < FAKE_JOBS_MOST);
    struct fake_job *job = &f->jobs[f->n_jobs++];
    job->id = *id;
    snprintf(job->prompt, sizeof job->prompt, "%.*s", (int)(size < 20 ? size : 20),
             (const char *)prompt);
    job->n_tokens = fake_answer_tokens(job->prompt);
    return job;
}

static void fake_submit(struct fake_coordinator *f, const struct wire_submit *submit,
                        struct wire_reply *reply)
{
    struct errbuf eb = {0};
    struct buf packed;
    f->counts.submits++;
    if (f->faults.refuse_submits_with) {
        fake_error(reply, (enum err)f->faults.refuse_submits_with, "not today", 0);
        return;
    }
    if (f->faults.busy_submits > 0) {
        f->faults.busy_submits--;
        fake_error(reply, ERR_BUSY, "the queue is full: 9 of 9 jobs", f->faults.busy_retry_ms);
        return;
    }
    buf_init(&packed);
    CHECK(wire_job_encode(&submit->job, &packed, &eb) == ERR_OK);
    struct fake_job *job = fake_find(f, &submit->job_id);
    bool duplicate = job != NULL;
    if (!job) {
        const struct wire_bytes *prompt =
            submit->job.n_messages > 0 ? &submit->job.messages[submit->job.n_messages - 1].content
                                       : &submit->job.text;
        job = fake_new_job(f, &submit->job_id, prompt->data, prompt->size);
        buf_append(&job->packed, packed.data, packed.size);
    }
    job->submits++;
    bool same =
        job->packed.size == packed.size && memcmp(job->packed.data, packed.data, packed.size) == 0;
    buf_fini(&packed);
    if (!same) {
        fake_error(reply, ERR_CONFLICT, "this id has other content", 0);
        return;
    }
    reply->submit = (struct wire_submit_reply){.job_id = submit->job_id,
                                               .state = WIRE_JOB_STATE_QUEUED,
                                               .duplicate = duplicate,
                                               .queued_ahead = 3};
}

static void fake_watch(struct fake_coordinator *f, const struct wire_watch *watch,
                       struct wire_reply *reply, struct buf *text, int32_t *ids)
{
    struct wire_watch_reply *r = &reply->watch;
    struct fake_job *job = fake_find(f, &watch->job_id);
    f->counts.watches++;
    if (!job) {
        fake_error(reply, ERR_NOT_FOUND, "no such job", 0);
        return;
    }
    uint32_t first = watch->first;
    if (f->faults.stray_every && f->counts.watches % f->faults.stray_every == 0) {
        f->counts.strays++;
        first = first >= 3 ? first - 3 : first + 1;
    }
    bool cancelled = job->cancelled && !f->faults.late_cancel;
    uint32_t last = job->n_tokens;
    if (f->faults.stop_at && f->faults.stop_at < last)
        last = f->faults.stop_at;
    uint32_t n = first < last && !cancelled ? last - first : 0;
    if (f->faults.tokens_a_watch && n > f->faults.tokens_a_watch)
        n = f->faults.tokens_a_watch;
    fake_answer(job->prompt, first, n, text);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(first + i);
    bool end = cancelled || first + n >= job->n_tokens;
    enum wire_job_state ended = f->faults.end_state ? f->faults.end_state : WIRE_JOB_STATE_DONE;
    *r = (struct wire_watch_reply){
        .job_id = job->id,
        .state = !end        ? WIRE_JOB_STATE_RUNNING
                 : cancelled ? WIRE_JOB_STATE_CANCELLED
                             : ended,
        .first = first,
        .ids = ids,
        .n_ids = n,
        .text = {.data = text->data, .size = text->size},
        .end = end,
        .finish = !end        ? WIRE_FINISH_UNSPECIFIED
                  : cancelled ? WIRE_FINISH_CANCELLED
                              : WIRE_FINISH_STOP,
        .usage = {.prompt_tokens = 7, .completion_tokens = first + n},
    };
    r->error.text = "";
    if (end && ended == WIRE_JOB_STATE_FAILED)
        r->error = (struct wire_error){.code = ERR_CORRUPT, .text = "the worker's file is broken"};
}

static void fake_job_info(const struct fake_job *job, struct wire_job_info *ret_info)
{
    *ret_info = (struct wire_job_info){.job_id = job->id,
                                       .model = "m",
                                       .tenant = "default",
                                       .state = WIRE_JOB_STATE_DONE,
                                       .job_class = WIRE_JOB_CLASS_STANDARD,
                                       .worker = "one",
                                       .max_tokens = 99,
                                       .project = "",
                                       .cost_center = ""};

    ret_info->error.text = "";
    ret_info->reserve_seq = 1;
}

/* The jobs in order of id, behind `after`, a page of `limit`. */
static void fake_list_jobs(struct fake_coordinator *f, const struct wire_list_jobs *list,
                           struct wire_reply *reply, struct wire_job_info *infos)
{
    size_t n = 0;
    struct id last = {{0}};
    bool any = list->after.size == ID_BYTES, more = false;
    if (any)
        memcpy(last.bytes, list->after.data, ID_BYTES);
    for (;;) {
        const struct fake_job *best = NULL;
        for (size_t i = 0; i < f->n_jobs; i++) {
            const struct fake_job *job = &f->jobs[i];
            if (memcmp(job->id.bytes, list->id_prefix.data ? list->id_prefix.data : last.bytes,
                       list->id_prefix.size) != 0)
                continue;
            if (list->id_short.size > 0 && memcmp(job->id.bytes + ID_BYTES - ID_SHORT_BYTES,
                                                  list->id_short.data, list->id_short.size) != 0)
                continue;
            if (list->id_end.size > 0 && memcmp(job->id.bytes + ID_BYTES - list->id_end.size,
                                                list->id_end.data, list->id_end.size) != 0)
                continue;
            if ((any && id_compare(&job->id, &last) <= 0) ||
                (best && id_compare(&job->id, &best->id) >= 0))
                continue;
            best = job;
        }
        if (!best)
            break;
        if (n == list->limit) {
            more = true;
            break;
        }
        fake_job_info(best, &infos[n++]);
        last = best->id;
        any = true;
    }
    reply->list_jobs = (struct wire_list_jobs_reply){.jobs = infos, .n_jobs = n, .more = more};
    if (more)
        reply->list_jobs.next = last;
}

/* FAKE_PAGES workers, and as many rows of usage: one a page. */
static void fake_list_workers(const char *after, struct wire_reply *reply)
{
    static const struct wire_worker_info workers[FAKE_PAGES] = {
        {.name = "w1", .state = WIRE_WORKER_STATE_ALIVE, .device = "", .isa = "", .build = ""},
        {.name = "w2", .state = WIRE_WORKER_STATE_ALIVE, .device = "", .isa = "", .build = ""},
        {.name = "w3", .state = WIRE_WORKER_STATE_GONE, .device = "", .isa = "", .build = ""}};
    size_t at = 0;
    while (at < FAKE_PAGES && strcmp(workers[at].name, after) <= 0)
        at++;
    reply->list_workers = (struct wire_list_workers_reply){
        .workers = &workers[at], .n_workers = at < FAKE_PAGES, .more = at + 1 < FAKE_PAGES};
}

static void fake_usage(uint32_t after_day, struct wire_reply *reply)
{
    static const struct wire_usage_row rows[FAKE_PAGES] = {
        {.tenant = "t", .model = "m", .day = 20260101, .jobs = 1},
        {.tenant = "t", .model = "m", .day = 20260102, .jobs = 2},
        {.tenant = "t", .model = "m", .day = 20260103, .jobs = 3}};
    static const struct wire_usage_balance balance = {.tenant = "t", .settled_tokens = 6};
    size_t at = 0;
    while (at < FAKE_PAGES && rows[at].day <= after_day)
        at++;
    bool more = at + 1 < FAKE_PAGES;
    reply->usage = (struct wire_usage_reply){.rows = &rows[at],
                                             .n_rows = at < FAKE_PAGES,
                                             .balances = &balance,
                                             .n_balances = after_day == 0,
                                             .more = more,
                                             .next_tenant = more ? "t" : "",
                                             .next_model = more ? "m" : "",
                                             .next_day = more ? rows[at].day : 0};
}

static void fake_answer_request(struct fake_coordinator *f, const struct wire_request *request,
                                struct wire_reply *reply, struct buf *text, int32_t *ids,
                                struct wire_job_info *infos)
{
    static const struct wire_model_info models[] = {{.offer = {.name = "m",
                                                               .architecture = "llama",
                                                               .quantization = "Q4_1",
                                                               .chat_template = "chatml",
                                                               .context_tokens = 2048,
                                                               .parameters = 135000000},
                                                     .workers = 1}};
    struct fake_job *job;
    switch (request->kind) {
    case WIRE_REQUEST_SUBMIT:
        fake_submit(f, &request->submit, reply);
        break;
    case WIRE_REQUEST_WATCH:
        fake_watch(f, &request->watch, reply, text, ids);
        break;
    case WIRE_REQUEST_CANCEL:
        job = fake_find(f, &request->cancel.job_id);
        if (!job) {
            fake_error(reply, ERR_NOT_FOUND, "no such job", 0);
            break;
        }
        job->cancelled = true;
        reply->cancel.state = WIRE_JOB_STATE_CANCELLED;
        break;
    case WIRE_REQUEST_LIST_JOBS:
        fake_list_jobs(f, &request->list_jobs, reply, infos);
        break;
    case WIRE_REQUEST_LIST_MODELS:
        reply->list_models = (struct wire_list_models_reply){.models = models, .n_models = 1};
        break;
    case WIRE_REQUEST_LIST_WORKERS:
        fake_list_workers(f->faults.first_page_for_ever ? "" : request->list_workers.after, reply);
        break;
    case WIRE_REQUEST_USAGE:
        fake_usage(f->faults.first_page_for_ever ? 0 : request->usage.after_day, reply);
        break;
    case WIRE_REQUEST_STATUS:
        reply->status = (struct wire_status_reply){
            .coordinator = "fake", .build = "test", .healthy = true, .admission_open = true};
        break;
    default:
        fake_error(reply, ERR_UNSUPPORTED, "the test's coordinator does not do this", 0);
    }
}

/* ---- the conversation ---- */

static void fake_on_request(void *arg, struct transport_request *r)
{
    struct fake_coordinator *f = arg;
    size_t size;
    const void *bytes = transport_request_bytes(r, &size);
    struct arena arena;
    struct buf out, text;
    struct errbuf eb = {0};
    struct wire_request request;
    struct wire_reply reply = {0};
    uint8_t signature[64];
    int32_t ids[128];
    static __thread struct wire_job_info infos[FAKE_JOBS_MOST];
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&out);
    buf_init(&text);
    CHECK(wire_request_decode(bytes, size, &arena, &request, &eb) == ERR_OK);
    pthread_mutex_lock(&f->mutex);
    f->counts.requests++;
    reply.session = request.session;
    reply.request_id = request.request_id;
    reply.kind = (int)request.kind;
    bool garbage = f->faults.garbage_every && f->counts.requests % f->faults.garbage_every == 0;
    bool stale = f->faults.stale_every && f->counts.requests % f->faults.stale_every == 0;
    if (request.kind == WIRE_REQUEST_HELLO) {
        fake_hello(f, &request, &reply, signature, &text);
    } else if (request.kind == WIRE_REQUEST_SUBMIT && f->faults.lost_submits > 0) {
        f->faults.lost_submits--;
        f->session = 0;
        fake_error(&reply, ERR_UNAVAILABLE, "starting again", 0);
    } else if (request.session != f->session || stale) {
        f->session = 0;
        f->counts.stales++;
        fake_error(&reply, ERR_STALE, "this session is over", 0);
    } else {
        fake_answer_request(f, &request, &reply, &text, ids, infos);
    }
    struct transport_server *server = f->server;
    pthread_mutex_unlock(&f->mutex);
    if (wire_reply_encode(&reply, &out, &eb) != ERR_OK) {
        fprintf(stderr, "fake coordinator: %s\n", eb.text);
        abort();
    }
    if (garbage)
        out.data[0] ^= 0xFF;
    transport_request_reply(server, r, out.data, out.size, &eb);
    buf_fini(&out);
    buf_fini(&text);
    arena_fini(&arena);
}

void fake_listen(struct fake_coordinator *f)
{
    struct errbuf eb = {0};
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%u", f->port);
    struct transport_endpoint endpoint = {.url = url};
    enum err err = ERR_OK;
    struct transport_server *server = NULL;
    /* A request may come before open returns: its callback waits here for f->server. */
    pthread_mutex_lock(&f->mutex);
    /* The port may still be closing. */
    for (int tries = 0; tries < 100; tries++) {
        err = transport_server_open(&server, &endpoint, fake_on_request, f, &eb);
        if (err == ERR_OK)
            break;
        fake_sleep_ms(20);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "fake coordinator: %s\n", eb.text);
        abort();
    }
    f->server = server;
    f->port = transport_server_port(server);
    snprintf(f->url, sizeof f->url, "tcp://127.0.0.1:%u", f->port);
    pthread_mutex_unlock(&f->mutex);
}

void fake_stop_listening(struct fake_coordinator *f)
{
    if (!f->server)
        return;
    transport_server_close(f->server);
    f->server = NULL;
    pthread_mutex_lock(&f->mutex);
    f->session = 0;
    f->counts.restarts++;
    pthread_mutex_unlock(&f->mutex);
}

void fake_restart(struct fake_coordinator *f)
{
    fake_stop_listening(f);
    fake_listen(f);
}

void fake_open(struct fake_coordinator *f)
{
    struct errbuf eb = {0};
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->mutex, NULL);
    for (size_t i = 0; i < FAKE_JOBS_MOST; i++)
        buf_init(&f->jobs[i].packed);
    CHECK(crypto_key_new(&f->key, &eb) == ERR_OK);
    fake_listen(f);
}

void fake_close(struct fake_coordinator *f)
{
    fake_stop_listening(f);
    for (size_t i = 0; i < FAKE_JOBS_MOST; i++)
        buf_fini(&f->jobs[i].packed);
    crypto_key_free(f->key);
    pthread_mutex_destroy(&f->mutex);
}

void fake_set_faults(struct fake_coordinator *f, const struct fake_faults *faults)
{
    pthread_mutex_lock(&f->mutex);
    f->faults = *faults;
    pthread_mutex_unlock(&f->mutex);
}

struct fake_counts fake_counts(struct fake_coordinator *f)
{
    pthread_mutex_lock(&f->mutex);
    struct fake_counts counts = f->counts;
    counts.jobs = f->n_jobs;
    pthread_mutex_unlock(&f->mutex);
    return counts;
}

bool fake_is_cancelled(struct fake_coordinator *f, size_t index)
{
    pthread_mutex_lock(&f->mutex);
    bool cancelled = index < f->n_jobs && f->jobs[index].cancelled;
    pthread_mutex_unlock(&f->mutex);
    return cancelled;
}

void fake_job_id(struct fake_coordinator *f, size_t index, char ret_id[ID_TEXT_BYTES])
{
    pthread_mutex_lock(&f->mutex);
    CHECK(index < f->n_jobs);
    id_format(&f->jobs[index].id, ret_id);
    pthread_mutex_unlock(&f->mutex);
}

void fake_add_job(struct fake_coordinator *f, const char *id_text, const char *prompt)
{
    struct id id;
    CHECK(id_parse(id_text, &id));
    pthread_mutex_lock(&f->mutex);
    fake_new_job(f, &id, prompt, strlen(prompt));
    pthread_mutex_unlock(&f->mutex);
}

void fake_sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000},
              NULL);
}
