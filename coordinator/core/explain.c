/*
 * explain.c - why a job waits, or why it went where it went: each candidate with its numbers and
 * the predicate that it failed. A waiting job is judged again now; for the others the decision
 * was kept, the newest CORE_DECISIONS of them since the start. Where it is not, that is said, with
 * what is stored of the job, and for one that runs the workers are judged as they are now.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#include <stdio.h>

static void decision_clear(struct core *c, struct core_decision *d)
{
    for (size_t i = 0; i < d->n_candidates; i++) {
        name_drop(c, d->candidates[i].worker);
        free((void *)(uintptr_t)d->candidates[i].detail);
    }
    free(d->candidates);
    *d = (struct core_decision){0};
}

static struct wire_candidate candidate_of(const struct placement_row *row, const char *detail)
{
    return (struct wire_candidate){.worker = row->hosting->worker->name,
                                   .predicate = row->predicate != NULL ? row->predicate : "",
                                   .detail = detail,
                                   .need_bytes = row->need_bytes,
                                   .free_bytes = row->free_bytes,
                                   .unclaimed_bytes = row->unclaimed_bytes,
                                   .queued_tokens = row->queued_tokens,
                                   .tokens_per_s = row->tokens_per_s,
                                   .load_ms = row->load_ms,
                                   .cost_ms = row->cost_ms};
}

/* What a row that failed nothing would have meant. */
static const char *row_detail(const struct placement_row *row)
{
    if (row->predicate != NULL)
        return row->detail;
    if (row->ready && row->hosting->gang != NULL)
        return "loaded, as the first rank of a gang";
    if (row->ready)
        return "loaded";
    if (row->loading)
        return "loading";
    return row->evict ? "fits once idle models are unloaded" : "fits, not loaded yet";
}

void explain_keep(struct core *c, struct core_job *j, const struct placement_row *rows,
                  size_t n_rows, size_t chosen)
{
    if (c->decisions == NULL)
        c->decisions = core_alloc(CORE_DECISIONS * sizeof(struct core_decision));
    uint32_t slot = c->next_decision;
    c->next_decision = (slot + 1) % CORE_DECISIONS;
    struct core_decision *d = &c->decisions[slot];
    decision_clear(c, d);
    d->job_id = j->id;
    d->wall_ns = c->wall_ns;
    d->n_considered = n_rows;
    d->candidates = core_alloc(CORE_DECISION_CANDIDATES * sizeof(struct wire_candidate));
    /* The chosen one first, so that a cut never loses it. */
    for (size_t i = 0; i <= n_rows && d->n_candidates < CORE_DECISION_CANDIDATES; i++) {
        size_t at = i == 0 ? chosen : i - 1;
        if (i > 0 && at == chosen)
            continue;
        if (at >= n_rows)
            break;
        const char *detail = row_detail(&rows[at]);
        size_t size = strlen(detail) + 1;
        char *copy = core_alloc(size);
        memcpy(copy, detail, size);
        struct wire_candidate *out = &d->candidates[d->n_candidates++];
        *out = candidate_of(&rows[at], copy);
        out->worker = name_intern(c, out->worker);
        out->chosen = at == chosen;
    }
    j->decision = slot + 1;
}

/* All workers with the model, as they are now. */
static struct wire_candidate *candidates_now(const struct core *c, const struct core_job *j,
                                             struct core_effects *fx, size_t *ret_n)
{
    const struct core_model *m = j->model;
    size_t n_hosts = tree_count(&m->hosts), n = 0;
    struct wire_candidate *out = effect_alloc(fx, n_hosts, sizeof(struct wire_candidate));
    for (struct tree_node *t = tree_first(&m->hosts); t != NULL && n < LIMIT_CANDIDATES;
         t = tree_above(&m->hosts, t)) {
        struct placement_row row;
        placement_judge(c, j, tree_entry(t, struct core_hosting, by_model), &row);
        out[n] = candidate_of(&row, effect_text(fx, row_detail(&row)));
        out[n].chosen = j->lease != NULL && j->lease->hosting == row.hosting;
        n++;
    }
    *ret_n = n;
    return out;
}

/* Decisions are not stored, and only so many are kept. */
static void explain_forgotten(const struct core *c, const struct core_job *j,
                              struct wire_explain_reply *r, struct core_effects *fx)
{
    const char *state = wire_job_state_name((enum wire_job_state)j->state);
    const char *why =
        j->decision == 0
            ? effect_printf(fx,
                            "it was decided before the coordinator started, %llu s ago, and "
                            "decisions are not stored",
                            (unsigned long long)((c->now_ms - c->started_ms) / 1000))
            : effect_printf(fx, "the newest %u decisions are kept, and it is older",
                            CORE_DECISIONS);
    const char *now = "";
    if (j->lease != NULL) {
        r->candidates = candidates_now(c, j, fx, &r->n_candidates);
        now = "; the workers are shown as they are now";
    }
    r->summary = effect_printf(
        fx, "%s on %s, attempt %u, %u of at most %u tokens; why there is not known any more: %s%s",
        state, j->worker, (unsigned)j->attempts, j->tokens, j->max_tokens, why, now);
}

/* The one that is on its way, or what became of the last. */
static const char *gang_of_waiting(const struct core *c, const struct core_model *m,
                                   struct core_effects *fx)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->gang != NULL)
            return gang_text(h->gang, fx);
    }
    if (m->gang_over == NULL)
        return "";
    if (m->gang_after_ms <= c->now_ms || m->gang_failures == 0)
        return effect_text(fx, m->gang_over);
    return effect_printf(fx, "%s; the next one is tried in %llu ms", m->gang_over,
                         (unsigned long long)(m->gang_after_ms - c->now_ms));
}

static void explain_queued(struct core *c, const struct core_job *j, struct wire_explain_reply *r,
                           struct core_effects *fx)
{
    const struct core_model *m = j->model;
    size_t n_hosts = tree_count(&m->hosts), n = 0;
    struct wire_candidate *out = effect_alloc(fx, n_hosts, sizeof(struct wire_candidate));
    const struct core_hosting *closest = NULL;
    uint64_t best_ms = UINT64_MAX;
    bool best_ready = false;
    char last[240] = "";

    for (struct tree_node *t = tree_first(&m->hosts); t != NULL && n < LIMIT_CANDIDATES;
         t = tree_above(&m->hosts, t)) {
        struct core_hosting *h = tree_entry(t, struct core_hosting, by_model);
        struct placement_row row;
        placement_judge(c, j, h, &row);
        out[n++] = candidate_of(&row, effect_text(fx, row_detail(&row)));
        if (row.predicate != NULL) {
            (void)snprintf(last, sizeof last, "%s: %s: %s", h->worker->name, row.predicate,
                           row.detail);
            continue;
        }
        if (row.cost_ms < best_ms) {
            best_ms = row.cost_ms;
            best_ready = row.ready;
            closest = h;
        }
    }
    r->candidates = out;
    r->n_candidates = n;
    r->gang = gang_of_waiting(c, m, fx);
    r->decided_wall_ns = c->wall_ns;
    r->queued_ahead = queue_ahead(j);
    if (n == 0)
        r->summary = effect_printf(fx, "waits: no worker that is connected has model %s", m->name);
    else if (closest == NULL)
        r->summary = effect_printf(fx, "waits: none of %zu workers with model %s can take it (%s)",
                                   n, m->name, last);
    else if (r->queued_ahead > 0)
        r->summary =
            effect_printf(fx, "waits behind %u jobs for model %s", r->queued_ahead, m->name);
    else if (!best_ready)
        r->summary = effect_printf(fx, "waits for model %s to be loaded on %s, about %llu ms",
                                   m->name, closest->worker->name, (unsigned long long)best_ms);
    else
        r->summary = effect_printf(fx, "next: %s will take it", closest->worker->name);
}

static void explain_placed(const struct core *c, const struct core_job *j,
                           struct wire_explain_reply *r, struct core_effects *fx)
{
    const struct core_decision *d = j->decision != 0 ? &c->decisions[j->decision - 1] : NULL;
    const struct core_hosting *h = j->lease != NULL ? j->lease->hosting : NULL;
    r->gang = h != NULL && h->gang != NULL ? gang_text(h->gang, fx) : "";
    const char *state = wire_job_state_name((enum wire_job_state)j->state);
    if (d != NULL && id_compare(&d->job_id, &j->id) != 0)
        d = NULL;
    if (j->worker[0] == '\0') {
        r->summary = effect_printf(fx, "%s; it was never given to a worker", state);
        return;
    }
    if (d == NULL) {
        explain_forgotten(c, j, r, fx);
        return;
    }
    struct wire_candidate *out = effect_alloc(fx, d->n_candidates, sizeof(struct wire_candidate));
    for (size_t i = 0; i < d->n_candidates; i++) {
        out[i] = d->candidates[i];
        out[i].detail = effect_text(fx, d->candidates[i].detail);
    }
    r->candidates = out;
    r->n_candidates = d->n_candidates;
    r->decided_wall_ns = d->wall_ns;
    r->summary = effect_printf(
        fx, "%s on %s, attempt %u: least expected time to the first token, %llu ms, of %zu workers",
        state, j->worker, (unsigned)j->attempts, (unsigned long long)d->candidates[0].cost_ms,
        d->n_considered);
}

void explain_step(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx)
{
    const struct core_job *j = job_find(c, &event->request->explain.job_id);
    if (j == NULL || !session_may_see(s, j)) {
        reply_error(fx, event, ERR_NOT_FOUND, 0, "no such job");
        return;
    }
    struct core_effect *e = reply_to(fx, event);
    struct wire_explain_reply *r = &e->reply.reply.explain;
    *r = (struct wire_explain_reply){
        .state = (enum wire_job_state)j->state, .summary = "", .gang = ""};
    if (j->state == WIRE_JOB_STATE_QUEUED)
        explain_queued(c, j, r, fx);
    else
        explain_placed(c, j, r, fx);
}

void explain_free(struct core *c)
{
    for (uint32_t i = 0; c->decisions != NULL && i < CORE_DECISIONS; i++)
        decision_clear(c, &c->decisions[i]);
    free(c->decisions);
}
