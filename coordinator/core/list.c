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

/* A page of workers, so that it fits a frame whatever they say of themselves. */
#define WORKERS_MAX        4096u
#define WORKERS_MODELS_MAX 16384u
#define WORKERS_ERRORS_MAX (4u << 20) /* bytes of their models' errors */

static void worker_info(const struct core *c, const struct core_worker *w, struct core_effects *fx,
                        struct wire_worker_info *ret_info)
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
        m->error = h->error != NULL ? effect_text(fx, h->error) : "";
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
                                          .tokens = w->tokens,
                                          .read_bytes_per_s = w->read_bytes_per_s};
    if (w->gpu.uuid[0] != '\0') {
        struct wire_gpu *gpu = effect_alloc(fx, 1, sizeof *gpu);
        *gpu = w->gpu;
        ret_info->gpus = gpu;
        ret_info->n_gpus = 1;
    }
    memcpy(ret_info->key_fingerprint, w->key_fingerprint, sizeof ret_info->key_fingerprint);
}

static size_t worker_error_bytes(const struct core_worker *w)
{
    size_t bytes = strlen(w->gpu.trouble);
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        bytes += h->error != NULL ? strlen(h->error) : 0;
    }
    return bytes;
}

void list_workers_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    const struct core_worker probe = {.name = event->request->list_workers.after};
    uint32_t room = tree_count(&c->workers) < WORKERS_MAX ? tree_count(&c->workers) : WORKERS_MAX;
    struct wire_worker_info *rows = effect_alloc(fx, room, sizeof(struct wire_worker_info));
    struct core_effect *e = reply_to(fx, event);
    struct wire_list_workers_reply *r = &e->reply.reply.list_workers;
    size_t n_models = 0, n_bytes = 0;

    *r = (struct wire_list_workers_reply){.workers = rows};
    for (struct tree_node *n = tree_above(&c->workers, &probe.node); n != NULL;
         n = tree_above(&c->workers, n)) {
        const struct core_worker *w = tree_entry(n, const struct core_worker, node);
        n_models += tree_count(&w->hosting);
        n_bytes += worker_error_bytes(w);
        if (r->n_workers == room ||
            (r->n_workers > 0 && (n_models > WORKERS_MODELS_MAX || n_bytes > WORKERS_ERRORS_MAX))) {
            r->more = true;
            break;
        }
        worker_info(c, w, fx, &rows[r->n_workers++]);
    }
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

/* How it may be cut, and what ranks then hold, as the first worker says it that has the file that
 * the name stands for. */
static void model_shape(const struct core_model *m, struct core_effects *fx,
                        struct wire_model_offer *ret_offer)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        const struct wire_bytes *shape = &h->offer.shape;
        if (!h->same_file || shape->size == 0)
            continue;
        uint8_t *bytes = effect_alloc(fx, shape->size, 1);
        memcpy(bytes, shape->data, shape->size);
        ret_offer->shape = (struct wire_bytes){bytes, shape->size};
        ret_offer->room = h->offer.room;
        return;
    }
}

void list_models_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    const char *only = event->request->list_models.model;
    struct core_effect *e = reply_to(fx, event);
    size_t n_models = 0;
    struct wire_model_info *rows =
        effect_alloc(fx, tree_count(&c->models), sizeof(struct wire_model_info));
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n)) {
        const struct core_model *m = tree_entry(n, const struct core_model, node);
        if (only[0] != '\0' && strcmp(only, m->name) != 0)
            continue;
        model_info(m, &rows[n_models]);
        if (only[0] != '\0')
            model_shape(m, fx, &rows[n_models].offer);
        n_models++;
    }
    e->reply.reply.list_models =
        (struct wire_list_models_reply){.models = rows, .n_models = n_models};
}

#define USAGE_LOOKED_MAX (4u * LIMIT_USAGE_ROWS) /* for one page, as of jobs */

static bool usage_matches(const struct core_usage *u, const struct wire_usage *want)
{
    return (want->model[0] == '\0' || strcmp(want->model, u->model) == 0) &&
           (want->day_from == 0 || u->day >= want->day_from) &&
           (want->day_to == 0 || u->day <= want->day_to);
}

static void usage_rows(const struct core *c, const char *tenant, const struct wire_usage *want,
                       struct core_effects *fx, struct wire_usage_reply *r)
{
    struct wire_usage_row *rows;
    struct core_usage probe = {.tenant = tenant != NULL ? tenant : "", .model = ""};
    uint32_t room =
        tree_count(&c->usages) < LIMIT_USAGE_ROWS ? tree_count(&c->usages) : LIMIT_USAGE_ROWS;
    /* Behind `after`, but never before the tenant's own: what another one has is not told. */
    if (want->after_day != 0) {
        struct core_usage after = {
            .tenant = want->after_tenant, .model = want->after_model, .day = want->after_day};
        if (strcmp(after.tenant, probe.tenant) >= 0)
            probe = after;
    }
    rows = effect_alloc(fx, room, sizeof(struct wire_usage_row));
    r->rows = rows;
    uint32_t looked = 0;
    for (struct tree_node *n = tree_above(&c->usages, &probe.node); n != NULL;
         n = tree_above(&c->usages, n)) {
        const struct core_usage *u = tree_entry(n, const struct core_usage, node);
        if (tenant != NULL && strcmp(u->tenant, tenant) != 0)
            break;
        bool matches = usage_matches(u, want);
        if (looked++ == USAGE_LOOKED_MAX || (matches && r->n_rows == room)) {
            r->more = true;
            break;
        }
        r->next_tenant = u->tenant;
        r->next_model = u->model;
        r->next_day = u->day;
        if (!matches)
            continue;
        rows[r->n_rows++] = (struct wire_usage_row){.tenant = u->tenant,
                                                    .model = u->model,
                                                    .day = u->day,
                                                    .jobs = u->row.jobs,
                                                    .prompt_tokens = u->row.prompt_tokens,
                                                    .prompt_cached = u->row.prompt_cached,
                                                    .completion_tokens = u->row.completion_tokens,
                                                    .computed_tokens = u->row.computed_tokens};
    }
    if (!r->more) {
        r->next_tenant = r->next_model = "";
        r->next_day = 0;
    }
}

static void usage_balances(const struct core *c, const struct core_session *s,
                           const struct wire_usage *want, struct core_effects *fx,
                           struct wire_usage_reply *r)
{
    struct wire_usage_balance *balances =
        effect_alloc(fx, tree_count(&c->tenants), sizeof(struct wire_usage_balance));
    r->balances = balances;
    for (struct tree_node *n = tree_first(&c->tenants); n != NULL; n = tree_above(&c->tenants, n)) {
        const struct core_tenant *t = tree_entry(n, const struct core_tenant, node);
        if ((!s->is_operator && t != s->tenant) ||
            (want->tenant[0] != '\0' && strcmp(want->tenant, t->name) != 0))
            continue;
        balances[r->n_balances++] =
            (struct wire_usage_balance){.tenant = t->name,
                                        .budget_tokens = t->budget_tokens,
                                        .reserved_tokens = t->reserved_tokens,
                                        .settled_tokens = t->settled_tokens};
    }
}

void usage_step(struct core *c, const struct core_event *event, struct core_session *s,
                struct core_effects *fx)
{
    const struct wire_usage *want = &event->request->usage;
    struct core_effect *e = reply_to(fx, event);
    struct wire_usage_reply *r = &e->reply.reply.usage;
    const char *tenant = want->tenant[0] != '\0' ? want->tenant : NULL;

    *r = (struct wire_usage_reply){.next_tenant = "", .next_model = ""};
    if (!s->is_operator && (tenant == NULL || strcmp(tenant, s->tenant->name) == 0))
        tenant = s->tenant->name;
    else if (!s->is_operator)
        return; /* nothing of another's */
    usage_rows(c, tenant, want, fx, r);
    if (want->after_day == 0)
        usage_balances(c, s, want, fx, r);
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
