/*
 * watch.c - clients that wait for tokens. A poll is answered as soon as there are tokens behind
 * `first` or the job is over, else when its time is up. Tokens are in the store before they leave.
 */
#include "coordinator/core/state.h"

#define WATCHES_MAX 262144u

static void watch_reply(const struct core_job *j, uint64_t tag, uint64_t session,
                        const struct id *request_id, uint32_t first, struct core_effects *fx)
{
    struct core_effect *e = reply_add(fx, tag, session, request_id, WIRE_REQUEST_WATCH);
    bool over = job_is_ended(j);
    struct wire_watch_reply *r = &e->reply.reply.watch;
    *r = (struct wire_watch_reply){
        .job_id = j->id,
        .state = (enum wire_job_state)j->state,
        .first = first,
        .end = over,
        .finish = over ? (enum wire_finish)j->finish : WIRE_FINISH_UNSPECIFIED,
        .error = {.code = j->error_code,
                  .text = j->error_text != NULL ? effect_text(fx, j->error_text) : ""}};
    job_usage(j, &r->usage);
    /* At the end there may be text behind the last token. */
    if (j->tokens > first || over) {
        e->reply.fill = CORE_FILL_TOKENS;
        e->reply.tokens = j->tokens;
    }
}

static void watch_free(struct core *c, struct core_watch *w)
{
    struct core_watch **at = &w->job->watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    timer_clear(c, &w->timer);
    c->n_parked--;
    free(w);
}

static void watch_answer(struct core *c, struct core_watch *w, struct core_effects *fx)
{
    struct core_job *j = w->job;
    watch_reply(j, w->tag, w->session, &w->request_id, w->first, fx);
    watch_free(c, w);
    j->watched_ms = c->now_ms;
    if (j->watches == NULL && !job_is_ended(j) && (j->flags & CORE_JOB_CANCEL_ON_DISCONNECT) != 0)
        job_timer_set(c, j);
}

void watch_answer_all(struct core *c, struct core_job *j, bool even_without_news,
                      struct core_effects *fx)
{
    for (struct core_watch *w = j->watches, *next; w != NULL; w = next) {
        next = w->next;
        if (even_without_news || job_is_ended(j) || j->tokens > w->first)
            watch_answer(c, w, fx);
    }
}

void watch_timer_fire(struct core *c, struct core_watch *w, struct core_effects *fx)
{
    watch_answer(c, w, fx);
}

void watch_step(struct core *c, const struct core_event *event, struct core_session *s,
                struct core_effects *fx)
{
    const struct wire_watch *watch = &event->request->watch;
    struct core_job *j = job_find(c, &watch->job_id);
    if (j == NULL || !session_may_see(s, j)) {
        reply_error(fx, event, ERR_NOT_FOUND, 0, "no such job");
        return;
    }
    if (watch->first > j->tokens) {
        reply_error(fx, event, ERR_INVALID, 0,
                    "the job has %u tokens: it cannot be watched from token %u on", j->tokens,
                    watch->first);
        return;
    }
    j->watched_ms = c->now_ms;
    for (struct core_watch *w = j->watches, *next; w != NULL; w = next) {
        next = w->next;
        if (w->session == event->request->session) /* given up by the client */
            watch_answer(c, w, fx);
    }
    bool at_once = watch->first < j->tokens || job_is_ended(j) || watch->wait_ms == 0 ||
                   c->stopping || c->n_parked >= WATCHES_MAX;
    if (at_once) {
        watch_reply(j, event->tag, event->request->session, &event->request->request_id,
                    watch->first, fx);
    } else {
        struct core_watch *w = core_alloc(sizeof *w);
        w->job = j;
        w->tag = event->tag;
        w->session = event->request->session;
        w->request_id = event->request->request_id;
        w->first = watch->first;
        w->next = j->watches;
        j->watches = w;
        c->n_parked++;
        timer_set(c, &w->timer, CORE_TIMER_WATCH, c->now_ms + watch->wait_ms);
    }
    if (!job_is_ended(j) && (j->flags & CORE_JOB_CANCEL_ON_DISCONNECT) != 0)
        job_timer_set(c, j);
}

/* At the end of the core: timers and other watches may be gone already. */
void watches_free(struct core_job *j)
{
    while (j->watches != NULL) {
        struct core_watch *w = j->watches;
        j->watches = w->next;
        free(w);
    }
}
