/*
 * submit.c - a job comes in, or is refused with the number that it would have broken; and is
 * cancelled.
 */
#include "common/nearest.h"
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#include <stdio.h>

/* The most tokens that the prompt can become by what the model's workers say of its tokenizer and
 * template. No prompt is longer than the longest context there can be. */
uint32_t prompt_tokens_bound(const struct core_model *m, const struct wire_job *job)
{
    if (job->prompt_kind == WIRE_PROMPT_KIND_IDS)
        return (uint32_t)job->n_prompt_ids;
    const struct prompt_rate rate = model_prompt_rate(m);
    uint64_t bytes = job->text.size;
    for (size_t i = 0; i < job->n_messages; i++)
        bytes += job->messages[i].content.size;
    uint64_t n = rate.per_job + (uint64_t)rate.per_message * job->n_messages +
                 (bytes * rate.per_kib + 1023) / 1024;
    return n < LIMIT_CONTEXT_TOKENS ? (uint32_t)n : LIMIT_CONTEXT_TOKENS;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

#define NAMES_SHOWN 8u

static void refuse_unknown_model(struct core *c, const struct core_event *event, const char *name,
                                 struct core_effects *fx)
{
    const struct core_model *near[NAMES_SHOWN];
    size_t distance[NAMES_SHOWN];
    unsigned n = 0, known = 0;
    for (struct tree_node *t = tree_first(&c->models); t != NULL; t = tree_above(&c->models, t)) {
        const struct core_model *m = tree_entry(t, const struct core_model, node);
        if (!m->known && !m->expected)
            continue;
        size_t d = nearest_distance(name, m->name);
        unsigned at = n < NAMES_SHOWN ? n++ : NAMES_SHOWN;
        known++;
        while (at > 0 && distance[at - 1] > d) {
            if (at < NAMES_SHOWN) {
                near[at] = near[at - 1];
                distance[at] = distance[at - 1];
            }
            at--;
        }
        if (at < NAMES_SHOWN) {
            near[at] = m;
            distance[at] = d;
        }
    }
    char list[768] = "";
    size_t used = 0;
    for (unsigned i = 0; i < n && used + 2 + strlen(near[i]->name) < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "",
                                 near[i]->name);
    if (known == 0)
        reply_error(fx, event, ERR_NOT_FOUND, 0,
                    "no model %s: no worker has offered any model yet; start one, or list the "
                    "model in expected_models",
                    name);
    else
        reply_error(fx, event, ERR_NOT_FOUND, 0, "no model %s; known: %s%s", name, list,
                    known > n ? ", ..." : "");
}

#define MEMBERS_WAIT_MS 5000u

/* What the workers that have the model could at most do for a job. */
struct model_reach {
    uint32_t hosts;
    uint32_t context_tokens;
    bool has_template;
    uint64_t need_bytes;     /* where it is closest to fitting */
    uint64_t capacity_bytes; /* there */
    bool fits;               /* an empty worker could hold it, or several together */
    bool may_fit;            /* they could with others, who are not here now */
};

/* They were here once, or may be on their way back from before a restart of ours. */
static bool others_may_come(const struct core *c)
{
    if (c->boot_epoch > 1 && c->now_ms < c->started_ms + c->config->grace_ms)
        return true;
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        if (tree_entry(n, const struct core_worker, node)->session == NULL)
            return true;
    }
    return false;
}

static void model_reach(const struct core *c, const struct core_model *m,
                        struct model_reach *ret_reach)
{
    struct model_reach r = {0};
    for (struct tree_node *t = tree_first(&m->hosts); t != NULL; t = tree_above(&m->hosts, t)) {
        const struct core_hosting *h = tree_entry(t, const struct core_hosting, by_model);
        uint64_t capacity = worker_capacity_bytes(h->worker);
        if (!h->same_file)
            continue;
        r.hosts++;
        if (h->offer.context_tokens > r.context_tokens)
            r.context_tokens = h->offer.context_tokens;
        r.has_template = r.has_template || h->offer.chat_template[0] != '\0';
        r.may_fit = r.may_fit || gang_can_have(c, h);
        r.fits = r.fits || capacity == 0 || hosting_need_bytes(h) <= capacity;
        if (r.need_bytes == 0 || capacity > r.capacity_bytes) {
            r.need_bytes = hosting_need_bytes(h);
            r.capacity_bytes = capacity;
        }
    }
    /* A gang that was there once comes again when its members do. */
    r.may_fit = r.may_fit && others_may_come(c);
    r.fits = r.fits || m->gang_worked || gang_is_possible(c, m, false);
    if (r.hosts == 0) { /* nobody is here to ask: what was learned, or the benefit of the doubt */
        r.fits = true;
        r.context_tokens = m->known ? m->learned.context_tokens : 0;
        r.has_template = !m->known || m->learned.chat_template[0] != '\0';
    }
    if (r.context_tokens == 0)
        r.context_tokens = LIMIT_CONTEXT_TOKENS;
    *ret_reach = r;
}

/* Refusals that no waiting can change. */
static bool job_is_possible(const struct core_event *event, const struct core_model *m,
                            const struct model_reach *reach, struct core_effects *fx)
{
    const struct wire_job *job = &event->request->submit.job;
    if (!reach->fits) {
        reply_error(fx, event, reach->may_fit ? ERR_UNAVAILABLE : ERR_TOO_LARGE,
                    reach->may_fit ? MEMBERS_WAIT_MS : 0,
                    "model %s needs %llu bytes loaded; the largest of the %u workers that have "
                    "its file can give %llu, and they cannot hold it together",
                    m->name, (unsigned long long)reach->need_bytes, reach->hosts,
                    (unsigned long long)reach->capacity_bytes);
        return false;
    }
    if (job->prompt_kind == WIRE_PROMPT_KIND_CHAT && !reach->has_template) {
        reply_error(fx, event, ERR_UNSUPPORTED, 0,
                    "model %s has no chat template that is known here: send text instead of "
                    "messages",
                    m->name);
        return false;
    }
    uint64_t ids = job->prompt_kind == WIRE_PROMPT_KIND_IDS ? job->n_prompt_ids : 1;
    uint64_t want = ids + (job->max_tokens > 0 ? job->max_tokens : 1);
    if (want > reach->context_tokens) {
        reply_error(fx, event, ERR_TOO_LARGE, 0,
                    "prompt and max_tokens are at least %llu tokens, the context of %s is %u",
                    (unsigned long long)want, m->name, reach->context_tokens);
        return false;
    }
    return true;
}

static bool queue_has_room(struct core *c, const struct core_event *event,
                           const struct core_model *m, uint64_t load, struct core_effects *fx)
{
    const struct core_config *k = c->config;
    uint64_t queued = c->count[WIRE_JOB_STATE_QUEUED];
    if (queued >= k->queue_jobs_max) {
        reply_error(fx, event, ERR_BUSY,
                    rate_retry_after_ms(c, c->queued_tokens / (queued + 1) + 1),
                    "the queue is full: %llu jobs wait, the limit is %llu",
                    (unsigned long long)queued, (unsigned long long)k->queue_jobs_max);
        return false;
    }
    if (c->queued_tokens + load > k->queue_tokens_max && queued > 0) {
        reply_error(fx, event, ERR_BUSY,
                    rate_retry_after_ms(c, c->queued_tokens + load - k->queue_tokens_max),
                    "the queue is full: %llu tokens wait and this job has up to %llu, the limit "
                    "is %llu",
                    (unsigned long long)c->queued_tokens, (unsigned long long)load,
                    (unsigned long long)k->queue_tokens_max);
        return false;
    }
    uint64_t age_ms = queue_oldest_ms(c, m);
    if (age_ms > k->queue_age_max_ms) {
        reply_error(fx, event, ERR_BUSY, rate_retry_after_ms(c, c->queued_tokens),
                    "the oldest job for model %s has waited for %llu s, the limit is %llu s",
                    m->name, (unsigned long long)(age_ms / 1000),
                    (unsigned long long)(k->queue_age_max_ms / 1000));
        return false;
    }
    return true;
}

static bool budget_allows(const struct core_event *event, const struct core_tenant *t,
                          uint64_t tokens, struct core_effects *fx)
{
    uint64_t used = t->reserved_tokens + t->settled_tokens;
    if (t->budget_tokens == 0 || (used <= t->budget_tokens && tokens <= t->budget_tokens - used))
        return true;
    reply_error(fx, event, ERR_REFUSED, 0,
                "tenant %s: this job reserves up to %llu tokens; of its budget of %llu, %llu are "
                "used and %llu reserved",
                t->name, (unsigned long long)tokens, (unsigned long long)t->budget_tokens,
                (unsigned long long)t->settled_tokens, (unsigned long long)t->reserved_tokens);
    return false;
}

static void job_accept(struct core *c, const struct core_event *event, struct core_session *s,
                       struct core_model *m, uint32_t bound, uint32_t max_tokens,
                       struct core_effects *fx)
{
    const struct wire_submit *submit = &event->request->submit;
    const struct wire_job *job = &submit->job;
    struct core_owner owner = {.tenant = s->tenant,
                               .principal = s->node_name,
                               .project = job->project,
                               .cost_center = job->cost_center};
    memcpy(owner.key_fingerprint, s->key_fingerprint, sizeof owner.key_fingerprint);

    struct core_job *j = job_new(c, &submit->job_id, owner_hold(c, &owner));
    memcpy(j->content_digest, event->content_digest, sizeof j->content_digest);
    j->model = m;
    m->jobs++;
    j->submit_order = c->next_order++;
    j->submitted_wall_ns = c->wall_ns;
    j->submitted_ms = j->watched_ms = c->now_ms;
    if (job->deadline_ms != 0) {
        j->deadline_ms = c->now_ms + job->deadline_ms;
        j->deadline_wall_ns = c->wall_ns + job->deadline_ms * 1000000u;
    }
    j->prompt_bound = bound;
    j->max_tokens = max_tokens;
    j->job_class = (uint8_t)job->job_class;
    j->priority = (uint8_t)job->priority;
    j->flags = job->cancel_on_disconnect ? CORE_JOB_CANCEL_ON_DISCONNECT : 0;
    j->state = WIRE_JOB_STATE_QUEUED;
    c->count[j->state]++;
    queue_insert(c, j);
    job_timer_set(c, j);
    job_touch(c, j, CORE_JOB_DIRTY);

    struct core_effect *content = effect_add(fx, CORE_EFFECT_PUT_CONTENT);
    content->job_id = j->id;
    content->content = event->packed_job;
    ledger_reserve(c, j, fx);

    struct core_effect *e = reply_to(fx, event);
    e->reply.reply.submit = (struct wire_submit_reply){
        .job_id = j->id, .state = WIRE_JOB_STATE_QUEUED, .queued_ahead = queue_ahead(j)};
}

void submit_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx)
{
    const struct wire_submit *submit = &event->request->submit;
    const struct wire_job *job = &submit->job;
    struct core_job *have = job_find(c, &submit->job_id);

    if (have != NULL) {
        if (!session_may_see(s, have) ||
            memcmp(have->content_digest, event->content_digest, sizeof have->content_digest) != 0) {
            reply_error(fx, event, ERR_CONFLICT, 0,
                        "this job id is taken by a job with other content");
            return;
        }
        struct core_effect *e = reply_to(fx, event);
        e->reply.reply.submit =
            (struct wire_submit_reply){.job_id = have->id,
                                       .state = (enum wire_job_state)have->state,
                                       .duplicate = true,
                                       .queued_ahead = queue_ahead(have)};
        return;
    }
    if (c->frozen) {
        reply_error(fx, event, c->frozen_code, 5000, "%s", c->frozen_text);
        return;
    }
    if (c->stopping) {
        reply_error(fx, event, ERR_UNAVAILABLE, 2000, "the coordinator is shutting down");
        return;
    }
    struct core_model *m = model_find(c, job->model);
    if (m == NULL || (!m->known && !m->expected)) {
        refuse_unknown_model(c, event, job->model, fx);
        return;
    }
    struct model_reach reach;
    model_reach(c, m, &reach);
    if (!job_is_possible(event, m, &reach, fx))
        return;

    uint32_t bound = prompt_tokens_bound(m, job);
    uint32_t max_tokens = job->max_tokens;
    if (max_tokens == 0) {
        uint32_t ids = job->prompt_kind == WIRE_PROMPT_KIND_IDS ? bound : 1;
        max_tokens = least(c->config->default_max_tokens, reach.context_tokens - ids);
    }
    uint64_t tokens = (uint64_t)bound + max_tokens;
    if (!queue_has_room(c, event, m, tokens, fx) || !budget_allows(event, s->tenant, tokens, fx))
        return;
    job_accept(c, event, s, m, bound, max_tokens, fx);
}

void cancel_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx)
{
    const struct wire_cancel *cancel = &event->request->cancel;
    struct core_job *j = job_find(c, &cancel->job_id);
    if (j == NULL || !session_may_see(s, j)) {
        reply_error(fx, event, ERR_NOT_FOUND, 0, "no such job");
        return;
    }
    if (!job_is_ended(j)) {
        if (c->frozen) {
            reply_error(fx, event, c->frozen_code, 5000, "%s", c->frozen_text);
            return;
        }
        /* At once, with what was metered so far: whatever the worker still sends is fenced. */
        if (j->lease != NULL)
            lease_stop(c, j->lease);
        job_end(c, j, WIRE_JOB_STATE_CANCELLED, WIRE_FINISH_CANCELLED, ERR_CANCELLED,
                cancel->reason[0] != '\0' ? cancel->reason : "cancelled by the client", fx);
    }
    struct core_effect *e = reply_to(fx, event);
    e->reply.reply.cancel = (struct wire_cancel_reply){.state = (enum wire_job_state)j->state};
}
