/*
 * sim_client.c - a client: sends its jobs again until they are accepted or refused, watches each
 * from the token it has, cancels some, and compares what it got with what must come.
 */
#include "tests/sim/sim.h"

#include "common/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_HELLO, SLOT_JOB };

struct sim_client {
    uint32_t number;
    uint32_t at; /* the job that has its turn */
    uint64_t retry_ns;
};

void client_open(struct sim *s, struct sim_actor *a)
{
    struct sim_client *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->number = a->index - s->n_workers;
    a->ops = &sim_client_ops;
    a->own = c;
}

void client_close(struct sim_actor *a)
{
    free(a->own);
}

bool clients_over(const struct sim *s)
{
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        if (!s->jobs[i].over)
            return false;
    }
    return true;
}

static void hello(struct sim *s, struct sim_actor *a, const uint8_t *challenge)
{
    const struct sim_client *c = a->own;
    struct wire_hello like = {.role = WIRE_ROLE_CLIENT,
                              .tenant = c->number == 0 ? "tight" : "wide"};
    sim_hello(s, a, SLOT_HELLO, challenge, &like);
}

static void submit(struct sim *s, struct sim_actor *a, const struct sim_job *j)
{
    int32_t prompt[32] = {0};
    struct wire_request request = {
        .kind = WIRE_REQUEST_SUBMIT,
        .submit = {.job_id = j->id,
                   .job = {.model = sim_model_names[j->model],
                           .prompt_kind = WIRE_PROMPT_KIND_IDS,
                           .prompt_ids = prompt,
                           .n_prompt_ids = prompt_count(j->seed),
                           .sampling = {.top_p = 1, .repetition_penalty = 1, .seed = j->seed},
                           .max_tokens = j->max_tokens,
                           .job_class = WIRE_JOB_CLASS_STANDARD,
                           .priority = (uint32_t)(j->seed % 10),
                           .deadline_ms = j->deadline_ms,
                           .cancel_on_disconnect = j->cancel_on_disconnect,
                           .project = "",
                           .cost_center = ""}}};
    sim_call(s, a, SLOT_JOB, &request, 3000);
}

static void job_step(struct sim *s, struct sim_actor *a, struct sim_job *j)
{
    struct wire_request request;
    if (!j->accepted) {
        submit(s, a, j);
    } else if (j->will_cancel && !j->cancelled && j->n_ids >= j->cancel_after) {
        request = (struct wire_request){.kind = WIRE_REQUEST_CANCEL,
                                        .cancel = {.job_id = j->id, .reason = "sim"}};
        sim_call(s, a, SLOT_JOB, &request, 3000);
    } else {
        request =
            (struct wire_request){.kind = WIRE_REQUEST_WATCH,
                                  .watch = {.job_id = j->id, .first = j->n_ids, .wait_ms = 500}};
        sim_call(s, a, SLOT_JOB, &request, 3000);
    }
}

static struct sim_job *job_next(struct sim *s, struct sim_client *c)
{
    for (uint32_t i = 1; i <= s->n_jobs; i++) {
        uint32_t k = (c->at + i) % s->n_jobs;
        struct sim_job *j = &s->jobs[k];
        if (j->client == c->number && !j->over && s->now_ns >= j->start_ns) {
            c->at = k;
            return j;
        }
    }
    return NULL;
}

static void client_wake(struct sim *s, struct sim_actor *a)
{
    struct sim_client *c = a->own;
    sim_wake(s, a, 50);
    if (s->now_ns < c->retry_ns || a->calls[SLOT_HELLO].under_way || a->calls[SLOT_JOB].under_way)
        return;
    if (!a->peer.established) {
        hello(s, a, NULL);
        return;
    }
    struct sim_job *j = job_next(s, c);
    if (j != NULL)
        job_step(s, a, j);
}

/* The answer so far must be the beginning of the undisturbed one. */
static void answer_compare(struct sim *s, const struct sim_job *j)
{
    enum wire_finish finish;
    uint32_t whole = token_count(j->seed, j->max_tokens, &finish);
    char text[sizeof j->text];
    size_t size = 0;
    for (uint32_t i = 0; i < j->n_ids; i++) {
        if (j->ids[i] != token_id(j->seed, i))
            sim_fail(s, "token %u of a job differs from the undisturbed one", i);
        size += token_text(j->seed, i, &text[size]);
    }
    if (size != j->text_size || memcmp(text, j->text, size) != 0)
        sim_fail(s, "the text of a job differs from the undisturbed one");
    if (j->n_ids > whole)
        sim_fail(s, "a job has %u tokens, the undisturbed one %u", j->n_ids, whole);
    if (j->over && j->state == WIRE_JOB_STATE_DONE && (j->n_ids != whole || j->finish != finish))
        sim_fail(s, "a job is done with %u tokens and finish %d, the undisturbed one has %u and %d",
                 j->n_ids, (int)j->finish, whole, (int)finish);
}

static void watched(struct sim *s, struct sim_job *j, const struct wire_watch_reply *w)
{
    if (w->first != j->n_ids) {
        sim_fail(s, "asked for tokens from %u, got them from %u", j->n_ids, w->first);
        return;
    }
    if (j->n_ids + w->n_ids > SIM_TOKENS_MAX) {
        sim_fail(s, "more tokens than any job asked for");
        return;
    }
    for (size_t i = 0; i < w->n_ids; i++)
        j->ids[j->n_ids++] = w->ids[i];
    for (size_t i = 0; i < w->text.size; i++)
        j->text[j->text_size++] = w->text.data[i];
    if (w->end) {
        j->over = true;
        j->state = w->state;
        j->finish = w->finish;
        j->usage = w->usage;
        if (w->usage.completion_tokens != j->n_ids)
            sim_fail(s, "a job ended with %u tokens and says %u", j->n_ids,
                     w->usage.completion_tokens);
    }
    sim_mix(s, j->n_ids);
    answer_compare(s, j);
}

static void refused(struct sim *s, struct sim_actor *a, struct sim_job *j,
                    const struct wire_error *error)
{
    struct sim_client *c = a->own;
    switch (error->code) {
    case ERR_STALE:
        a->peer = (struct sim_peer){0};
        break;
    case ERR_REFUSED: /* the budget is used up */
        if (j->accepted || c->number != 0)
            sim_fail(s, "a job was refused: %s", error->text);
        j->over = j->refused = true;
        break;
    case ERR_TOO_LARGE: /* not all workers that would have the model together are known yet */
        if (j->model != SIM_MODELS - 1 || j->accepted)
            sim_fail(s, "a job is too large: %s", error->text);
        c->retry_ns = s->now_ns + 300 * SIM_MS;
        break;
    case ERR_BUSY:
    case ERR_UNAVAILABLE:
    case ERR_NO_SPACE:
    case ERR_NOT_FOUND: /* before any worker has offered the model */
        if (error->code == ERR_NOT_FOUND && j->accepted)
            sim_fail(s, "an accepted job is lost: %s", error->text);
        c->retry_ns = s->now_ns + 300 * SIM_MS;
        break;
    default:
        sim_fail(s, "a job got error %u: %s", error->code, error->text);
        break;
    }
}

static void client_answered(struct sim *s, struct sim_actor *a, uint32_t slot,
                            const struct wire_reply *reply)
{
    struct sim_client *c = a->own;
    if (slot == SLOT_HELLO) {
        if (reply == NULL || reply->kind == WIRE_REPLY_ERROR) {
            a->peer = (struct sim_peer){0};
            c->retry_ns = s->now_ns + 100 * SIM_MS;
            return;
        }
        a->peer.session = reply->session;
        a->peer.established = reply->hello.established;
        if (!reply->hello.established)
            hello(s, a, reply->hello.challenge);
        return;
    }
    struct sim_job *j = &s->jobs[c->at];
    if (reply == NULL)
        return;
    switch (reply->kind) {
    case WIRE_REPLY_ERROR:
        refused(s, a, j, &reply->error);
        break;
    case WIRE_REQUEST_SUBMIT:
        j->accepted = true;
        break;
    case WIRE_REQUEST_CANCEL:
        j->cancelled = true;
        if (!wire_job_state_is_end(reply->cancel.state))
            sim_fail(s, "a cancelled job goes on");
        break;
    case WIRE_REQUEST_WATCH:
        watched(s, j, &reply->watch);
        break;
    default:
        sim_fail(s, "a reply of kind %d", reply->kind);
        break;
    }
}

const struct sim_actor_ops sim_client_ops = {.wake = client_wake, .answered = client_answered};
