/*
 * list.c - what is there: jobs, workers, models, usage, the ledger. Nothing here changes anything.
 */
#include "coordinator/core/state.h"

/* Jobs looked at for one page. Others wait for the turn that this is a part of, and a filter may
 * find nothing among a million. */
#define LIST_LOOKED_MAX 4096u

void job_info(const struct core *c, const struct core_job *j, struct core_effects *fx,
              struct wire_job_info *ret_info)
{
    (void)c;
    *ret_info = (struct wire_job_info){
        .job_id = j->id,
        .model = j->model->name,
        .tenant = j->owner->tenant->name,
        .state = (enum wire_job_state)j->state,
        .job_class = (enum wire_job_class)j->job_class,
        .priority = j->priority,
        .submitted_wall_ns = j->submitted_wall_ns,
        .started_wall_ns = j->started_wall_ns,
        .ended_wall_ns = j->ended_wall_ns,
        .attempts = j->attempts,
        .worker = j->worker,
        .max_tokens = j->max_tokens,
        .reserved_tokens = job_reserved_tokens(j),
        .finish = (enum wire_finish)j->finish,
        .error = {.code = j->error_code,
                  .text = j->error_text != NULL ? effect_text(fx, j->error_text) : ""},
        .reserve_seq = j->reserve_seq,
        .settle_seq = j->settle_seq,
        .queued_ahead = queue_ahead(j),
        .project = j->owner->project,
        .cost_center = j->owner->cost_center,
    };
    job_usage(j, &ret_info->usage);
}

static bool job_matches(const struct core_job *j, const struct wire_list_jobs *want)
{
    return (want->states == 0 || (want->states >> j->state & 1u) != 0) &&
           (want->model[0] == '\0' || strcmp(want->model, j->model->name) == 0);
}

/* What people type is not the beginning of the id, which is the time. */
static bool end_matches(const struct core_job *j, const struct wire_list_jobs *want)
{
    const uint8_t *end = j->id.bytes + ID_BYTES;
    return (want->id_short.size == 0 ||
            memcmp(end - ID_SHORT_BYTES, want->id_short.data, want->id_short.size) == 0) &&
           (want->id_end.size == 0 ||
            memcmp(end - want->id_end.size, want->id_end.data, want->id_end.size) == 0);
}

static bool prefix_matches(const struct core_job *j, struct wire_bytes prefix)
{
    return prefix.size == 0 || memcmp(j->id.bytes, prefix.data, prefix.size) == 0;
}

/* Jobs that are looked through: where they are one tenant's, in a tree of its own, so that neither
 * the time this takes nor the ids where a page ends tell of other tenants' jobs. */
struct job_range {
    const struct tree *jobs; /* NULL: none */
    bool of_tenant;
};

static struct job_range range_for(const struct core *c, const struct core_session *s,
                                  const struct wire_list_jobs *want)
{
    const struct core_tenant *t = s->tenant;
    if (s->is_operator && want->tenant[0] == '\0')
        return (struct job_range){.jobs = &c->jobs};
    if (want->tenant[0] != '\0' && strcmp(want->tenant, t->name) != 0)
        t = s->is_operator ? tenant_find(c, want->tenant) : NULL;
    return (struct job_range){.jobs = t != NULL ? &t->jobs : NULL, .of_tenant = true};
}

static const struct core_job *range_job(const struct job_range *range, const struct tree_node *n)
{
    return range->of_tenant ? tree_entry(n, const struct core_job, of_tenant)
                            : tree_entry(n, const struct core_job, by_id);
}

/* The first job of the page: behind `after`, or at the near end of the ids with the prefix. */
static struct tree_node *list_start(const struct job_range *range,
                                    const struct wire_list_jobs *want)
{
    const struct tree *jobs = range->jobs;
    struct core_job probe = {0};
    const struct tree_node *at = range->of_tenant ? &probe.of_tenant : &probe.by_id;
    if (jobs == NULL)
        return NULL;
    if (want->after.size == ID_BYTES) {
        memcpy(probe.id.bytes, want->after.data, ID_BYTES);
        return want->newest_first ? tree_below(jobs, at) : tree_above(jobs, at);
    }
    size_t n = want->id_prefix.size;
    if (n == 0)
        return want->newest_first ? tree_last(jobs) : tree_first(jobs);
    memset(probe.id.bytes, want->newest_first ? 0xff : 0, ID_BYTES);
    memcpy(probe.id.bytes, want->id_prefix.data, n);
    if (!want->newest_first)
        return tree_at_least(jobs, at);
    struct tree_node *exact = tree_find(jobs, at);
    return exact != NULL ? exact : tree_below(jobs, at);
}

void list_jobs_step(struct core *c, const struct core_event *event, struct core_session *s,
                    struct core_effects *fx)
{
    const struct wire_list_jobs *want = &event->request->list_jobs;
    const struct job_range range = range_for(c, s, want);
    uint32_t limit =
        want->limit == 0 || want->limit > LIMIT_LIST_ROWS ? LIMIT_LIST_ROWS : want->limit;
    uint32_t room = range.jobs != NULL ? tree_count(range.jobs) : 0;
    if (room > limit)
        room = limit;
    struct wire_job_info *rows = effect_alloc(fx, room, sizeof(struct wire_job_info));
    struct core_effect *e = reply_to(fx, event);
    struct wire_list_jobs_reply *r = &e->reply.reply.list_jobs;
    struct tree_cursor at;

    *r = (struct wire_list_jobs_reply){.jobs = rows};
    tree_cursor_begin(&at, range.jobs, list_start(&range, want), want->newest_first);
    for (uint32_t looked = 0; tree_cursor_node(&at) != NULL; looked++) {
        const struct core_job *j = range_job(&range, tree_cursor_node(&at));
        if (!prefix_matches(j, want->id_prefix))
            break;
        bool matches = end_matches(j, want) && job_matches(j, want);
        if (looked == LIST_LOOKED_MAX || (matches && r->n_jobs == limit)) {
            r->more = true;
            break;
        }
        if (matches)
            job_info(c, j, fx, &rows[r->n_jobs++]);
        r->next = j->id;
        tree_cursor_next(&at);
    }
    if (!r->more)
        r->next = (struct id){{0}};
}

void get_job_step(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx)
{
    const struct core_job *j = job_find(c, &event->request->get_job.job_id);
    if (j == NULL || !session_may_see(s, j)) {
        reply_error(fx, event, ERR_NOT_FOUND, 0, "no such job");
        return;
    }
    struct core_effect *e = reply_to(fx, event);
    e->reply.fill = CORE_FILL_CONTENT;
    job_info(c, j, fx, &e->reply.reply.get_job.info);
}

#define WORKERS_MODELS_MAX  65536u     /* models of workers in one answer */
#define WORKERS_ERRORS_MAX  (4u << 20) /* text of their errors, whole */
#define WORKERS_ERROR_SHORT 64u        /* and where that is not enough */

static const char *error_clipped(struct core_effects *fx, const char *text, size_t bytes_max)
{
    size_t n = strlen(text);
    if (n > bytes_max) {
        n = bytes_max;
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) /* whole characters */
            n--;
    }
    return effect_printf(fx, "%.*s", (int)n, text);
}

static void worker_info(const struct core *c, const struct core_worker *w, size_t error_max,
                        struct core_effects *fx, struct wire_worker_info *ret_info)
{
    struct wire_model_status *models =
        effect_alloc(fx, tree_count(&w->hosting), sizeof(struct wire_model_status));
    size_t n_models = 0;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        struct wire_model_status *m = &models[n_models++];
        *m = h->status;
        m->name = h->model->name;
        m->state = h->state;
        m->error = h->error != NULL ? error_clipped(fx, h->error, error_max) : "";
    }
    *ret_info = (struct wire_worker_info){.name = w->name,
                                          .state = w->state,
                                          .device = w->device,
                                          .isa = w->isa,
                                          .build = w->build,
                                          .threads = w->threads,
                                          .memory = w->memory,
                                          .claimed_bytes = worker_claimed_bytes(w),
                                          .stranger_bytes = worker_stranger_bytes(w),
                                          .models = models,
                                          .n_models = n_models,
                                          .leases = tree_count(&w->leases),
                                          .seen_ms = c->now_ms - w->heard_ms,
                                          .tokens = w->tokens};
    memcpy(ret_info->key_fingerprint, w->key_fingerprint, sizeof ret_info->key_fingerprint);
}

void list_workers_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    size_t n_workers = 0, n_models = 0, n_bytes = 0;
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        const struct core_worker *w = tree_entry(n, const struct core_worker, node);
        n_models += tree_count(&w->hosting);
        for (struct tree_node *k = tree_first(&w->hosting); k != NULL;
             k = tree_above(&w->hosting, k)) {
            const struct core_hosting *h = tree_entry(k, const struct core_hosting, by_worker);
            n_bytes += h->error != NULL ? strlen(h->error) : 0;
        }
    }
    if (n_models > WORKERS_MODELS_MAX) {
        reply_error(fx, event, ERR_TOO_LARGE, 0,
                    "%u workers have %zu models, no more than %u fit one answer",
                    tree_count(&c->workers), n_models, WORKERS_MODELS_MAX);
        return;
    }
    size_t error_max = n_bytes <= WORKERS_ERRORS_MAX ? LIMIT_ERROR_TEXT_BYTES : WORKERS_ERROR_SHORT;
    struct core_effect *e = reply_to(fx, event);
    struct wire_worker_info *rows =
        effect_alloc(fx, tree_count(&c->workers), sizeof(struct wire_worker_info));
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n))
        worker_info(c, tree_entry(n, const struct core_worker, node), error_max, fx,
                    &rows[n_workers++]);
    e->reply.reply.list_workers =
        (struct wire_list_workers_reply){.workers = rows, .n_workers = n_workers};
}

static void model_info(const struct core_model *m, struct wire_model_info *ret_info)
{
    const struct record_learned *l = &m->learned;
    struct wire_model_info r = {.offer = {.name = m->name,
                                          .architecture = l->architecture,
                                          .quantization = l->quantization,
                                          .parameters = l->parameters,
                                          .file_bytes = l->file_bytes,
                                          .context_tokens = l->context_tokens,
                                          .weights_bytes = l->weights_bytes,
                                          .kv_bytes = l->kv_bytes,
                                          .scratch_bytes = l->scratch_bytes,
                                          .chat_template = l->chat_template,
                                          .prompt_tokens_per_job = l->prompt_tokens_per_job,
                                          .prompt_tokens_per_message = l->prompt_tokens_per_message,
                                          .prompt_tokens_per_kib = l->prompt_tokens_per_kib},
                                .running = m->leased,
                                .waiting = tree_count(&m->queue)};
    memcpy(r.offer.weights_digest, l->weights_digest, sizeof r.offer.weights_digest);
    memcpy(r.offer.tokenizer_digest, l->tokenizer_digest, sizeof r.offer.tokenizer_digest);
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (!h->same_file)
            continue;
        r.workers++;
        r.ready += h->state == WIRE_MODEL_STATE_READY;
        r.loading += h->state == WIRE_MODEL_STATE_LOADING || h->load_asked;
    }
    *ret_info = r;
}

void list_models_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    struct core_effect *e = reply_to(fx, event);
    size_t n_models = 0;
    struct wire_model_info *rows =
        effect_alloc(fx, tree_count(&c->models), sizeof(struct wire_model_info));
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n))
        model_info(tree_entry(n, const struct core_model, node), &rows[n_models++]);
    e->reply.reply.list_models =
        (struct wire_list_models_reply){.models = rows, .n_models = n_models};
}

static bool usage_matches(const struct core_usage *u, const struct core_session *s,
                          const struct wire_usage *want)
{
    return (s->is_operator || strcmp(u->tenant, s->tenant->name) == 0) &&
           (want->tenant[0] == '\0' || strcmp(want->tenant, u->tenant) == 0) &&
           (want->model[0] == '\0' || strcmp(want->model, u->model) == 0) &&
           (want->day_from == 0 || u->day >= want->day_from) &&
           (want->day_to == 0 || u->day <= want->day_to);
}

void usage_step(struct core *c, const struct core_event *event, struct core_session *s,
                struct core_effects *fx)
{
    const struct wire_usage *want = &event->request->usage;
    size_t n_match = 0;
    for (struct tree_node *n = tree_first(&c->usages); n != NULL; n = tree_above(&c->usages, n))
        n_match += usage_matches(tree_entry(n, const struct core_usage, node), s, want);
    if (n_match > LIMIT_USAGE_ROWS) {
        reply_error(fx, event, ERR_TOO_LARGE, 0,
                    "%zu rows of usage, no more than %u fit one answer: ask for fewer days, for "
                    "one tenant or for one model",
                    n_match, LIMIT_USAGE_ROWS);
        return;
    }
    struct core_effect *e = reply_to(fx, event);
    struct wire_usage_row *rows = effect_alloc(fx, n_match, sizeof(struct wire_usage_row));
    struct wire_usage_balance *balances =
        effect_alloc(fx, tree_count(&c->tenants), sizeof(struct wire_usage_balance));
    size_t n_rows = 0, n_balances = 0;

    for (struct tree_node *n = tree_first(&c->usages); n != NULL; n = tree_above(&c->usages, n)) {
        const struct core_usage *u = tree_entry(n, const struct core_usage, node);
        if (!usage_matches(u, s, want))
            continue;
        rows[n_rows++] = (struct wire_usage_row){.tenant = u->tenant,
                                                 .model = u->model,
                                                 .day = u->day,
                                                 .jobs = u->row.jobs,
                                                 .prompt_tokens = u->row.prompt_tokens,
                                                 .prompt_cached = u->row.prompt_cached,
                                                 .completion_tokens = u->row.completion_tokens,
                                                 .computed_tokens = u->row.computed_tokens};
    }
    for (struct tree_node *n = tree_first(&c->tenants); n != NULL; n = tree_above(&c->tenants, n)) {
        const struct core_tenant *t = tree_entry(n, const struct core_tenant, node);
        if ((!s->is_operator && t != s->tenant) ||
            (want->tenant[0] != '\0' && strcmp(want->tenant, t->name) != 0))
            continue;
        balances[n_balances++] = (struct wire_usage_balance){.tenant = t->name,
                                                             .budget_tokens = t->budget_tokens,
                                                             .reserved_tokens = t->reserved_tokens,
                                                             .settled_tokens = t->settled_tokens};
    }
    e->reply.reply.usage = (struct wire_usage_reply){
        .rows = rows, .n_rows = n_rows, .balances = balances, .n_balances = n_balances};
}

/* The log holds every tenant's records and only all of it verifies: operators alone read it. */
void ledger_range_step(struct core *c, const struct core_event *event, struct core_session *s,
                       struct core_effects *fx)
{
    (void)c;
    if (!s->is_operator) {
        reply_error(fx, event, ERR_REFUSED, 0,
                    "the ledger holds every tenant's records: this key is not an operator's");
        return;
    }
    struct core_effect *e = reply_to(fx, event);
    e->reply.fill = CORE_FILL_LEDGER;
    e->reply.range = event->request->ledger_range;
}
