/* What one can ask: each query is one request, its answer copied field by field into the public
 * structs, which lie in the same arena as the decoded reply. */
#include "client/connection.h"
#include "client/digits.h"
#include "client/query.h"

#include "common/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cloister_result_free(struct cloister_result *result)
{
    while (result) {
        struct cloister_result *next = result->next;
        arena_fini(&result->arena);
        free(result);
        result = next;
    }
}

enum err query_call(struct cloister *c, struct wire_request *request,
                    struct cloister_result **ret_result, struct wire_reply *ret_reply,
                    struct cloister_problem *problem)
{
    struct cloister_result *result = calloc(1, sizeof *result);
    if (!result)
        return problem_set(problem, ERR_NO_MEMORY, "no memory for the answer");
    /* Room for the reply and for its copy in the public form. */
    arena_init(&result->arena, 2 * (size_t)LIMIT_DECODE_BYTES);
    enum err err = connection_call(c, request, CONNECTION_CALL_TIMEOUT_MS, c->wait_ms,
                                   &result->arena, ret_reply, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return err;
    }
    *ret_result = result;
    return ERR_OK;
}

void *query_rows(struct cloister_result *result, size_t count, size_t bytes, enum err *err,
                 struct cloister_problem *problem)
{
    void *rows = *err == ERR_OK ? arena_alloc_array(&result->arena, count, bytes) : NULL;
    if (!rows && *err == ERR_OK)
        *err = problem_set(problem, ERR_NO_MEMORY, "no memory for the answer");
    return rows;
}

/* An answer of several pages: what it has in all lies in the first result, the pages in those
 * behind it. */
struct query_pages {
    struct cloister_result *whole, *last;
    struct wire_reply *replies;
    size_t count;
};

#define PAGES_BYTES_MAX ((size_t)4 << 30)

/* A page more; what it has stays where it is until cloister_result_free(whole). */
static enum err query_page(struct cloister *c, struct query_pages *p, struct wire_request *request,
                           const struct wire_reply **ret_reply, struct cloister_problem *problem)
{
    struct cloister_result *result;
    if (!p->whole) {
        p->whole = p->last = calloc(1, sizeof *p->whole);
        if (!p->whole)
            return problem_set(problem, ERR_NO_MEMORY, "no memory for the answer");
        arena_init(&p->whole->arena, PAGES_BYTES_MAX);
    }
    struct wire_reply *replies = realloc(p->replies, (p->count + 1) * sizeof *replies);
    if (!replies)
        return problem_set(problem, ERR_NO_MEMORY, "no memory for the answer");
    p->replies = replies;
    enum err err = query_call(c, request, &result, &replies[p->count], problem);
    if (err != ERR_OK)
        return err;
    p->last->next = result;
    p->last = result;
    *ret_reply = &replies[p->count++];
    return ERR_OK;
}

/* The caller has the whole, or on an error nothing. */
static struct cloister_result *query_pages_end(struct query_pages *p, enum err err)
{
    free(p->replies);
    if (err == ERR_OK)
        return p->whole;
    cloister_result_free(p->whole);
    return NULL;
}

/* ---- jobs ---- */

static void job_info_from_wire(const struct wire_job_info *w, struct cloister_job_info *ret_info)
{
    *ret_info = (struct cloister_job_info){
        .model = w->model,
        .tenant = w->tenant,
        .worker = w->worker,
        .project = w->project,
        .cost_center = w->cost_center,
        .state = (enum cloister_state)w->state,
        .job_class = (enum cloister_class)w->job_class,
        .priority = w->priority,
        .submitted_wall_ns = w->submitted_wall_ns,
        .started_wall_ns = w->started_wall_ns,
        .ended_wall_ns = w->ended_wall_ns,
        .attempts = w->attempts,
        .max_tokens = w->max_tokens,
        .queued_ahead = w->queued_ahead,
        .reserved_tokens = w->reserved_tokens,
        .finish = (enum cloister_finish)w->finish,
        .error = (enum cloister_error)w->error.code,
        .error_text = w->error.text ? w->error.text : "",
        .reserve_record = w->reserve_seq,
        .settle_record = w->settle_seq,
    };
    usage_from_wire(&w->usage, &ret_info->usage);
    id_format(&w->job_id, ret_info->id);
}

static struct wire_bytes digits_bytes(const struct digits *d)
{
    return (struct wire_bytes){.data = d->bytes, .size = d->count / 2};
}

/* What a query says of ids. */
struct jobs_ids {
    struct digits prefix, short_prefix, ending;
    struct id after;
};

/* What the query asks for, as the wire says it; points into `ids`. */
static enum err jobs_query_to_wire(const struct cloister_jobs_query *query, struct jobs_ids *ids,
                                   struct wire_list_jobs *ret_list,
                                   struct cloister_problem *problem)
{
    const size_t short_digits = CLOISTER_SHORT_ID_BYTES - 1;
    *ids = (struct jobs_ids){0};
    if (query->limit == 0 || query->limit > LIMIT_LIST_ROWS)
        return problem_set(problem, ERR_INVALID, "%u rows a page; it may be 1 to %u", query->limit,
                           LIMIT_LIST_ROWS);
    if (query->prefix && !digits_parse(query->prefix, 2 * ID_BYTES, false, &ids->prefix))
        return problem_set(problem, ERR_INVALID, "\"%.40s\" does not begin a job id (hex digits)",
                           query->prefix);
    if (query->short_prefix &&
        !digits_parse(query->short_prefix, short_digits, false, &ids->short_prefix))
        return problem_set(problem, ERR_INVALID,
                           "\"%.40s\" does not begin a short job id (up to %zu hex digits)",
                           query->short_prefix, short_digits);
    if (query->ending && !digits_parse(query->ending, 2 * ID_BYTES, true, &ids->ending))
        return problem_set(problem, ERR_INVALID, "\"%.40s\" does not end a job id (hex digits)",
                           query->ending);
    if (query->after && argument_id(query->after, &ids->after, problem) != ERR_OK)
        return ERR_INVALID;
    *ret_list = (struct wire_list_jobs){.tenant = query->tenant ? query->tenant : "",
                                        .model = query->model ? query->model : "",
                                        .states = query->states,
                                        .limit = query->limit,
                                        .id_prefix = digits_bytes(&ids->prefix),
                                        .id_short = digits_bytes(&ids->short_prefix),
                                        .id_end = digits_bytes(&ids->ending),
                                        .newest_first = query->newest_first};
    if (query->after)
        ret_list->after = (struct wire_bytes){.data = ids->after.bytes, .size = ID_BYTES};
    return ERR_OK;
}

static bool job_fits(const struct cloister_job_info *job, const struct jobs_ids *ids)
{
    const char *end = job->id + CLOISTER_ID_BYTES - 1;
    const char *short_id = job->id + CLOISTER_ID_BYTES - CLOISTER_SHORT_ID_BYTES;
    return memcmp(job->id, ids->prefix.text, ids->prefix.count) == 0 &&
           memcmp(short_id, ids->short_prefix.text, ids->short_prefix.count) == 0 &&
           memcmp(end - ids->ending.count, ids->ending.text, ids->ending.count) == 0;
}

enum cloister_error cloister_list_jobs(struct cloister *c, const struct cloister_jobs_query *query,
                                       struct cloister_result **ret_result,
                                       const struct cloister_job_info **ret_jobs,
                                       size_t *ret_n_jobs, bool *ret_more,
                                       struct cloister_problem *problem)
{
    struct cloister_jobs_query q = {0};
    struct wire_request request = {.kind = WIRE_REQUEST_LIST_JOBS};
    struct jobs_ids ids;
    /* Programs built with an older header have a shorter query. */
    if (query->size < offsetof(struct cloister_jobs_query, short_prefix))
        return (enum cloister_error)problem_set(
            problem, ERR_INVALID,
            "the query's size is not set; begin with CLOISTER_JOBS_QUERY_INIT");
    memcpy(&q, query, query->size < sizeof q ? query->size : sizeof q);
    enum err err = jobs_query_to_wire(&q, &ids, &request.list_jobs, problem);
    /* Pages may come empty, when the coordinator looked at many jobs and none was it. */
    while (err == ERR_OK) {
        struct cloister_result *result = NULL;
        struct wire_reply reply;
        err = query_call(c, &request, &result, &reply, problem);
        if (err != ERR_OK)
            break;
        const struct wire_list_jobs_reply *r = &reply.list_jobs;
        size_t n = 0;
        struct cloister_job_info *jobs = query_rows(result, r->n_jobs, sizeof *jobs, &err, problem);
        for (size_t i = 0; err == ERR_OK && i < r->n_jobs; i++) {
            job_info_from_wire(&r->jobs[i], &jobs[n]);
            n += job_fits(&jobs[n], &ids);
        }
        bool goes_on = r->more && !id_is_zero(&r->next);
        if (err == ERR_OK && (n > 0 || !goes_on)) {
            *ret_result = result;
            *ret_jobs = jobs;
            *ret_n_jobs = n;
            *ret_more = goes_on;
            return CLOISTER_OK;
        }
        ids.after = r->next;
        request.list_jobs.after = (struct wire_bytes){.data = ids.after.bytes, .size = ID_BYTES};
        cloister_result_free(result);
    }
    return (enum cloister_error)err;
}

static const struct cloister_job *job_from_wire(struct cloister_result *result,
                                                const struct wire_job *w, enum err *err,
                                                struct cloister_problem *problem)
{
    struct cloister_job *job = query_rows(result, 1, sizeof *job, err, problem);
    struct cloister_message *messages =
        query_rows(result, w->n_messages, sizeof *messages, err, problem);
    struct cloister_bytes *stops = query_rows(result, w->n_stops, sizeof *stops, err, problem);
    struct cloister_logit_bias *biases =
        query_rows(result, w->sampling.n_logit_bias, sizeof *biases, err, problem);
    if (*err != ERR_OK)
        return NULL;
    for (size_t i = 0; i < w->n_messages; i++)
        messages[i] = (struct cloister_message){
            .role = w->messages[i].role,
            .content = {w->messages[i].content.data, w->messages[i].content.size}};
    for (size_t i = 0; i < w->sampling.n_logit_bias; i++)
        biases[i] = (struct cloister_logit_bias){.id = (int32_t)w->sampling.logit_bias[i].id,
                                                 .bias = w->sampling.logit_bias[i].bias};
    for (size_t i = 0; i < w->n_stops; i++)
        stops[i] = (struct cloister_bytes){w->stops[i].data, w->stops[i].size};
    *job = (struct cloister_job){
        .size = sizeof *job,
        .model = w->model,
        .messages = messages,
        .n_messages = w->n_messages,
        .text = {w->text.data, w->text.size},
        .prompt_ids = w->prompt_ids,
        .n_prompt_ids = w->n_prompt_ids,
        .sampling = {.temperature = w->sampling.temperature,
                     .top_k = w->sampling.top_k,
                     .top_p = w->sampling.top_p,
                     .min_p = w->sampling.min_p,
                     .repetition_penalty = w->sampling.repetition_penalty,
                     .presence_penalty = w->sampling.presence_penalty,
                     .frequency_penalty = w->sampling.frequency_penalty,
                     .seed = w->sampling.seed},
        .max_tokens = w->max_tokens,
        .stops = stops,
        .n_stops = w->n_stops,
        .job_class = (enum cloister_class)w->job_class,
        .priority = w->priority,
        .deadline_ms = w->deadline_ms,
        .cancel_on_disconnect = w->cancel_on_disconnect,
        .project = w->project,
        .cost_center = w->cost_center,
        .typical_p = w->sampling.typical_p,
        .logit_bias = biases,
        .n_logit_bias = w->sampling.n_logit_bias,
        .stop_tokens = w->stop_tokens,
        .n_stop_tokens = w->n_stop_tokens,
        .logprobs = w->logprobs,
        .top_logprobs = w->top_logprobs,
    };
    return job;
}

enum cloister_error cloister_get_job(struct cloister *c, const char *id,
                                     struct cloister_result **ret_result,
                                     const struct cloister_job_info **ret_info,
                                     const struct cloister_job **ret_job,
                                     struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_GET_JOB};
    enum err err = argument_id(id, &request.get_job.job_id, problem);
    if (err == ERR_OK)
        err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    struct cloister_job_info *info = query_rows(result, 1, sizeof *info, &err, problem);
    const struct cloister_job *job = job_from_wire(result, &reply.get_job.job, &err, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    job_info_from_wire(&reply.get_job.info, info);
    *ret_result = result;
    *ret_info = info;
    if (ret_job)
        *ret_job = job;
    return CLOISTER_OK;
}

enum cloister_error cloister_explain(struct cloister *c, const char *id,
                                     struct cloister_result **ret_result,
                                     const struct cloister_explanation **ret_explanation,
                                     struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_EXPLAIN};
    enum err err = argument_id(id, &request.explain.job_id, problem);
    if (err == ERR_OK)
        err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    const struct wire_explain_reply *w = &reply.explain;
    struct cloister_explanation *e = query_rows(result, 1, sizeof *e, &err, problem);
    struct cloister_candidate *rows =
        query_rows(result, w->n_candidates, sizeof *rows, &err, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    for (size_t i = 0; i < w->n_candidates; i++) {
        const struct wire_candidate *from = &w->candidates[i];
        rows[i] = (struct cloister_candidate){.worker = from->worker,
                                              .chosen = from->chosen,
                                              .predicate = from->predicate,
                                              .detail = from->detail,
                                              .need_bytes = from->need_bytes,
                                              .free_bytes = from->free_bytes,
                                              .unclaimed_bytes = from->unclaimed_bytes,
                                              .queued_tokens = from->queued_tokens,
                                              .tokens_per_s = from->tokens_per_s,
                                              .load_ms = from->load_ms,
                                              .cost_ms = from->cost_ms};
    }
    *e = (struct cloister_explanation){.state = (enum cloister_state)w->state,
                                       .summary = w->summary,
                                       .queued_ahead = w->queued_ahead,
                                       .decided_wall_ns = w->decided_wall_ns,
                                       .candidates = rows,
                                       .n_candidates = w->n_candidates,
                                       .gang = w->gang};
    *ret_result = result;
    *ret_explanation = e;
    return CLOISTER_OK;
}

/* ---- the cluster ---- */

static void worker_model_from_wire(const struct wire_model_status *from,
                                   struct cloister_worker_model *ret_model)
{
    *ret_model = (struct cloister_worker_model){.name = from->name,
                                                .state = wire_model_state_name(from->state),
                                                .error = from->error,
                                                .weights_bytes = from->weights_bytes,
                                                .kv_bytes = from->kv_bytes,
                                                .scratch_bytes = from->scratch_bytes,
                                                .load_ms = from->load_ms,
                                                .running = from->running,
                                                .waiting = from->waiting,
                                                .queued_tokens = from->queued_tokens,
                                                .prefill_tokens_per_s = from->prefill_tokens_per_s,
                                                .decode_tokens_per_s = from->decode_tokens_per_s,
                                                .kv_pages_free = from->kv_pages_free,
                                                .kv_pages = from->kv_pages,
                                                .gang = from->gang,
                                                .rank = from->rank,
                                                .ranks = from->ranks,
                                                .exchange_bytes = from->exchange_bytes};
}

static enum err worker_from_wire(struct cloister_result *result,
                                 const struct wire_worker_info *from,
                                 struct cloister_worker *ret_worker,
                                 struct cloister_problem *problem)
{
    enum err err = ERR_OK;
    struct cloister_worker_model *models =
        query_rows(result, from->n_models, sizeof *models, &err, problem);
    if (err != ERR_OK)
        return err;
    for (size_t j = 0; j < from->n_models; j++)
        worker_model_from_wire(&from->models[j], &models[j]);
    *ret_worker = (struct cloister_worker){
        .name = from->name,
        .state = wire_worker_state_name(from->state),
        .device = from->device,
        .isa = from->isa,
        .build = from->build,
        .threads = from->threads,
        .memory = {.total_bytes = from->memory.total_bytes,
                   .free_bytes = from->memory.free_bytes,
                   .budget_bytes = from->memory.budget_bytes,
                   .used_bytes = from->memory.used_bytes},
        .claimed_bytes = from->claimed_bytes,
        .stranger_bytes = from->stranger_bytes,
        .models = models,
        .n_models = from->n_models,
        .leases = from->leases,
        .seen_ms = from->seen_ms,
        .tokens = from->tokens,
        .read_bytes_per_s = from->read_bytes_per_s,
    };
    memcpy(ret_worker->key_fingerprint, from->key_fingerprint, sizeof ret_worker->key_fingerprint);
    ret_worker->gpu = (struct cloister_gpu){.uuid = "", .pci = "", .driver = "", .trouble = ""};
    if (from->n_gpus > 0) {
        const struct wire_gpu *gpu = &from->gpus[0];
        ret_worker->gpu = (struct cloister_gpu){
            .uuid = gpu->uuid,
            .pci = gpu->pci,
            .driver = gpu->driver,
            .known = gpu->known,
            .utilization_percent = gpu->utilization_percent,
            .temperature_c = gpu->temperature_c,
            .power_mw = gpu->power_mw,
            .energy_mj = gpu->energy_mj,
            .ecc_uncorrected = gpu->ecc_uncorrected,
            .xid = gpu->xid,
            .stranger_processes = gpu->stranger_processes,
            .stranger_process_bytes = gpu->stranger_process_bytes,
            .trouble = gpu->trouble,
        };
    }
    return ERR_OK;
}

enum cloister_error cloister_list_workers(struct cloister *c, struct cloister_result **ret_result,
                                          const struct cloister_worker **ret_workers,
                                          size_t *ret_n_workers, struct cloister_problem *problem)
{
    struct query_pages pages = {0};
    struct wire_request request = {.kind = WIRE_REQUEST_LIST_WORKERS,
                                   .list_workers = {.after = ""}};
    const struct wire_reply *page = NULL;
    struct cloister_worker *workers = NULL;
    size_t n = 0, at = 0;
    enum err err;
    do {
        err = query_page(c, &pages, &request, &page, problem);
        if (err != ERR_OK)
            break;
        const struct wire_list_workers_reply *w = &page->list_workers;
        n += w->n_workers;
        const char *last = w->n_workers > 0 ? w->workers[w->n_workers - 1].name : "";
        if (w->more && strcmp(last, request.list_workers.after) <= 0)
            err = problem_set(problem, ERR_CORRUPT, "the coordinator's list of workers has no end");
        request.list_workers.after = last;
    } while (err == ERR_OK && page->list_workers.more);
    if (err == ERR_OK)
        workers = query_rows(pages.whole, n, sizeof *workers, &err, problem);
    for (size_t i = 0; i < pages.count && err == ERR_OK; i++) {
        const struct wire_list_workers_reply *w = &pages.replies[i].list_workers;
        for (size_t j = 0; j < w->n_workers && err == ERR_OK; j++)
            err = worker_from_wire(pages.whole, &w->workers[j], &workers[at++], problem);
    }
    struct cloister_result *result = query_pages_end(&pages, err);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    *ret_result = result;
    *ret_workers = workers;
    *ret_n_workers = n;
    return CLOISTER_OK;
}

struct cloister_model query_model(const struct wire_model_info *from)
{
    const struct wire_model_offer *offer = &from->offer;
    struct cloister_model m = {.name = offer->name,
                               .architecture = offer->architecture,
                               .quantization = offer->quantization,
                               .chat_template = offer->chat_template,
                               .parameters = offer->parameters,
                               .file_bytes = offer->file_bytes,
                               .context_tokens = offer->context_tokens,
                               .weights_bytes = offer->weights_bytes,
                               .kv_bytes = offer->kv_bytes,
                               .scratch_bytes = offer->scratch_bytes,
                               .workers = from->workers,
                               .loading = from->loading,
                               .ready = from->ready,
                               .running = from->running,
                               .waiting = from->waiting};
    memcpy(m.weights_digest, offer->weights_digest, sizeof m.weights_digest);
    memcpy(m.tokenizer_digest, offer->tokenizer_digest, sizeof m.tokenizer_digest);
    return m;
}

enum cloister_error cloister_list_models(struct cloister *c, struct cloister_result **ret_result,
                                         const struct cloister_model **ret_models,
                                         size_t *ret_n_models, struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_LIST_MODELS, .list_models = {.model = ""}};
    enum err err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    size_t n = reply.list_models.n_models;
    struct cloister_model *models = query_rows(result, n, sizeof *models, &err, problem);
    for (size_t i = 0; err == ERR_OK && i < n; i++)
        models[i] = query_model(&reply.list_models.models[i]);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    *ret_result = result;
    *ret_models = models;
    *ret_n_models = n;
    return CLOISTER_OK;
}

/* ---- accounts ---- */

static enum err usage_report(const struct query_pages *pages,
                             const struct cloister_usage_report **ret_report,
                             struct cloister_problem *problem)
{
    enum err err = ERR_OK;
    const struct wire_usage_reply *first = &pages->replies[0].usage;
    size_t n = 0, at = 0;
    for (size_t i = 0; i < pages->count; i++)
        n += pages->replies[i].usage.n_rows;
    struct cloister_usage_report *report =
        query_rows(pages->whole, 1, sizeof *report, &err, problem);
    struct cloister_usage_row *rows = query_rows(pages->whole, n, sizeof *rows, &err, problem);
    struct cloister_balance *balances =
        query_rows(pages->whole, first->n_balances, sizeof *balances, &err, problem);
    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < pages->count; i++) {
        const struct wire_usage_reply *w = &pages->replies[i].usage;
        for (size_t j = 0; j < w->n_rows; j++)
            rows[at++] =
                (struct cloister_usage_row){.tenant = w->rows[j].tenant,
                                            .model = w->rows[j].model,
                                            .day = w->rows[j].day,
                                            .jobs = w->rows[j].jobs,
                                            .prompt_tokens = w->rows[j].prompt_tokens,
                                            .prompt_cached = w->rows[j].prompt_cached,
                                            .completion_tokens = w->rows[j].completion_tokens,
                                            .computed_tokens = w->rows[j].computed_tokens};
    }
    for (size_t i = 0; i < first->n_balances; i++)
        balances[i] =
            (struct cloister_balance){.tenant = first->balances[i].tenant,
                                      .budget_tokens = first->balances[i].budget_tokens,
                                      .reserved_tokens = first->balances[i].reserved_tokens,
                                      .settled_tokens = first->balances[i].settled_tokens};
    *report = (struct cloister_usage_report){
        .rows = rows, .n_rows = n, .balances = balances, .n_balances = first->n_balances};
    *ret_report = report;
    return ERR_OK;
}

/* Behind where it began. */
static bool usage_page_leads_on(const struct wire_usage *want, const struct wire_usage_reply *page)
{
    int order = strcmp(page->next_tenant, want->after_tenant);
    if (order == 0)
        order = strcmp(page->next_model, want->after_model);
    return page->next_day != 0 && (order > 0 || (order == 0 && page->next_day > want->after_day));
}

enum cloister_error cloister_get_usage(struct cloister *c, const char *tenant, const char *model,
                                       uint32_t day_from, uint32_t day_to,
                                       struct cloister_result **ret_result,
                                       const struct cloister_usage_report **ret_report,
                                       struct cloister_problem *problem)
{
    struct query_pages pages = {0};
    struct wire_request request = {.kind = WIRE_REQUEST_USAGE,
                                   .usage = {.tenant = tenant ? tenant : "",
                                             .model = model ? model : "",
                                             .day_from = day_from,
                                             .day_to = day_to,
                                             .after_tenant = "",
                                             .after_model = ""}};
    const struct wire_reply *page = NULL;
    enum err err;
    do {
        err = query_page(c, &pages, &request, &page, problem);
        if (err != ERR_OK)
            break;
        const struct wire_usage_reply *w = &page->usage;
        if (w->more && !usage_page_leads_on(&request.usage, w))
            err = problem_set(problem, ERR_CORRUPT, "the coordinator's usage has no end");
        request.usage.after_tenant = w->next_tenant;
        request.usage.after_model = w->next_model;
        request.usage.after_day = w->next_day;
    } while (err == ERR_OK && page->usage.more);
    if (err == ERR_OK)
        err = usage_report(&pages, ret_report, problem);
    struct cloister_result *result = query_pages_end(&pages, err);
    if (err == ERR_OK)
        *ret_result = result;
    return (enum cloister_error)err;
}

enum cloister_error cloister_get_ledger(struct cloister *c, uint64_t first, uint32_t limit,
                                        struct cloister_result **ret_result,
                                        const struct cloister_ledger_page **ret_page,
                                        struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_LEDGER_RANGE,
                                   .ledger_range = {.first = first, .limit = limit}};
    enum err err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    const struct wire_ledger_range_reply *w = &reply.ledger_range;
    struct cloister_ledger_page *page = query_rows(result, 1, sizeof *page, &err, problem);
    struct cloister_bytes *records =
        query_rows(result, w->n_records, sizeof *records, &err, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    for (size_t i = 0; i < w->n_records; i++)
        records[i] = (struct cloister_bytes){w->records[i].data, w->records[i].size};
    *page = (struct cloister_ledger_page){.first = w->first,
                                          .records = records,
                                          .n_records = w->n_records,
                                          .ledger_size = w->size,
                                          .checkpoint = w->checkpoint,
                                          .origin = w->origin};
    memcpy(page->public_key, w->public_key, sizeof page->public_key);
    *ret_result = result;
    *ret_page = page;
    return CLOISTER_OK;
}

enum cloister_error cloister_get_status(struct cloister *c, struct cloister_result **ret_result,
                                        const struct cloister_status **ret_status,
                                        struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_STATUS};
    enum err err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    struct cloister_status *s = query_rows(result, 1, sizeof *s, &err, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    const struct wire_status_reply *w = &reply.status;
    *s = (struct cloister_status){
        .coordinator = w->coordinator,
        .build = w->build,
        .uptime_ms = w->uptime_ms,
        .healthy = w->healthy,
        .reasons = w->reasons,
        .n_reasons = w->n_reasons,
        .queued = w->queued,
        .leased = w->leased,
        .running = w->running,
        .ended = w->ended,
        .queued_tokens = w->queued_tokens,
        .workers_alive = w->workers_alive,
        .workers_known = w->workers_known,
        .oldest_queued_ms = w->oldest_queued_ms,
        .oldest_running_idle_ms = w->oldest_running_idle_ms,
        .store_used_bytes = w->store_used_bytes,
        .store_map_bytes = w->store_map_bytes,
        .ledger_size = w->ledger_size,
        .checkpoint_size = w->checkpoint_size,
        .commits = w->commits,
        .commit_us_median = w->commit_us_median,
        .commit_us_max = w->commit_us_max,
        .admission_open = w->admission_open,
        .requests = w->requests,
        .parked = w->parked,
        .stale_reports = w->stale_reports,
        .refused = w->refused,
        .dropped = w->dropped,
    };
    *ret_result = result;
    *ret_status = s;
    return CLOISTER_OK;
}
