/*
 * sim_worker.c - a worker as the protocol sees one: loads models, makes tokens, reports what is not
 * acknowledged, dies, hangs past its lease, gives jobs back. Which job gets its next token when is
 * for the engine's own batching core to say, with a cache so small that it preempts.
 */
#include "tests/sim/sim_worker.h"

#include "common/check.h"
#include "common/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_HELLO, SLOT_PULL, SLOT_REPORT, SLOT_GOODBYE };

#define STEP_MS 20u

/* Two steps of the batch in a wake at most. */
static const struct batch_config batch_config = {
    .slots = 6,
    .waiting_max = 12,
    .pages = 32,
    .page_tokens = 8,
    .context_tokens = 256,
    .step_tokens = 48,
    .chunk_tokens = 32,
    .beside_tokens = 24,
    .logits_rows = 6,
    .headroom_pages = 0,
    .pass_max = 4,
    .plans_max = 1,
};

static void worker_reset(struct sim_worker *w)
{
    batch_free(w->batch);
    *w = (struct sim_worker){.alive = true};
    CHECK(batch_new(&w->batch, &batch_config, NULL) == ERR_OK);
    models_reset(w);
}

void worker_open(struct sim *s, struct sim_actor *a)
{
    (void)s;
    a->ops = &sim_worker_ops;
    a->own = calloc(1, sizeof(struct sim_worker));
    CHECK(a->own != NULL);
    worker_reset(a->own);
}

void worker_close(struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    batch_free(w->batch);
    free(w);
}

/* Number of them; none or one. */
static size_t gpu_now(const struct sim *s, const struct sim_actor *a, struct wire_gpu *ret_gpu)
{
    const char *uuid = s->gpus[a->index].uuid;
    *ret_gpu = (struct wire_gpu){.uuid = uuid, .pci = "", .driver = "", .trouble = ""};
    return uuid[0] != '\0';
}

/* What it measures, each time a little different. In some clusters one does not know it, in some
 * one lies. */
static uint64_t bandwidth_now(const struct sim *s, const struct sim_actor *a)
{
    static const uint64_t all[][3] = {{0, 0, 0},
                                      {20000000000, 20000000000, 0},
                                      {20000000000, 20000000000, 20000000000},
                                      {30000000000, 10000000000, 20000000000},
                                      {10000000000, 30000000000, 30000000000},
                                      {1, 20000000000, LIMIT_READ_BYTES_PER_S / 2}};
    const uint64_t it = all[s->seed % (sizeof all / sizeof all[0])][a->index % 3];
    return it + it / 64 * (sim_ms(s) % 3);
}

static void hello(struct sim *s, struct sim_actor *a, const uint8_t *challenge)
{
    static const struct wire_nccl nccl = {"2.27.7", 1u << WIRE_GANG_TRANSPORT_SHM, SIM_NCCL_BYTES};
    const bool has_nccl = s->gpus[a->index].has_nccl;
    struct sim_worker *w = a->own;
    struct wire_gpu gpu;
    struct wire_model_offer offers[SIM_MODELS];
    struct wire_model_status status[SIM_MODELS];
    struct wire_lease_held held[SIM_LEASES];
    size_t n = 0;
    models_offer(offers);
    models_status(w, status);
    for (uint32_t i = 0; i < SIM_LEASES; i++) {
        const struct sim_lease *l = &w->leases[i];
        if (l->used)
            held[n++] =
                (struct wire_lease_held){.job_id = l->job_id, .epoch = l->epoch, .tokens = l->made};
    }
    struct wire_hello like = {
        .role = WIRE_ROLE_WORKER,
        .worker = {.models = offers,
                   .n_models = SIM_MODELS,
                   .memory = models_memory(w),
                   .device = "cpu",
                   .host = "one host of all",
                   .transports = 1u << WIRE_GANG_TRANSPORT_SHM |
                                 (has_nccl ? 1u << WIRE_GANG_TRANSPORT_NCCL : 0),
                   .nccl = has_nccl ? nccl : (struct wire_nccl){.version = ""},
                   .gpus = &gpu,
                   .n_gpus = gpu_now(s, a, &gpu),
                   .isa = "scalar",
                   .threads = 1,
                   .read_bytes_per_s = bandwidth_now(s, a),
                   .leases = held,
                   .n_leases = n,
                   .status = status,
                   .n_status = SIM_MODELS}};
    sim_hello(s, a, SLOT_HELLO, challenge, &like);
}

/* ---- commands ---- */

static struct sim_lease *lease_find(struct sim_worker *w, const struct id *job_id)
{
    for (uint32_t i = 0; i < SIM_LEASES; i++) {
        if (w->leases[i].used && id_compare(&w->leases[i].job_id, job_id) == 0)
            return &w->leases[i];
    }
    return NULL;
}

static void lease_end(struct sim_worker *w, struct sim_lease *l)
{
    if (l->seq != NULL)
        batch_remove(w->batch, l->seq);
    l->seq = NULL;
}

static void lease_forget(struct sim_worker *w, struct sim_lease *l)
{
    lease_end(w, l);
    l->used = false;
}

/* Its model is not there, or not any more: the job goes back. */
static void lease_lost(struct sim_worker *w, struct sim_lease *l)
{
    lease_end(w, l);
    l->over = true;
    l->finish = WIRE_FINISH_ERROR;
    l->error = ERR_UNAVAILABLE;
}

/* The line may be full: then the job goes back. */
static void lease_begin(struct sim_worker *w, struct sim_lease *l)
{
    int32_t ids[256];
    enum wire_finish finish;
    uint32_t n_prompt = prompt_count(l->seed), n_ids = n_prompt + l->made;
    uint32_t end = token_count(l->seed, l->max_tokens, &finish);
    struct batch_job job = {
        .owner = l,
        .ids = ids,
        .n_ids = n_ids,
        .n_limit = n_prompt + end,
        .logits_from = n_ids - 1,
        .job_class = (uint32_t)(l->seed % 3),
        .space = 1 + l->seed % 2,
    };

    if (l->made >= end) {
        l->over = true;
        l->finish = finish;
        return;
    }
    CHECK(n_ids <= sizeof ids / sizeof ids[0]);
    for (uint32_t i = 0; i < n_prompt; i++)
        ids[i] = (int32_t)(l->seed % 5); /* of five texts */
    for (uint32_t i = 0; i < l->made; i++)
        ids[n_prompt + i] = token_id(l->seed, i);
    if (batch_add(w->batch, &job, &l->seq, NULL) != ERR_OK) {
        l->over = true;
        l->finish = WIRE_FINISH_ERROR;
        l->error = ERR_BUSY;
    }
}

static void run_take(struct sim *s, struct sim_actor *a, const struct wire_command_run *run)
{
    struct sim_worker *w = a->own;
    struct sim_lease *l = lease_find(w, &run->job_id);
    if (l != NULL && l->epoch >= run->epoch)
        return;
    for (uint32_t i = 0; i < SIM_LEASES && l == NULL; i++)
        l = w->leases[i].used ? NULL : &w->leases[i];
    CHECK(l != NULL);
    lease_end(w, l);
    *l = (struct sim_lease){.used = true,
                            .job_id = run->job_id,
                            .model = sim_model_index(run->job.model),
                            .epoch = run->epoch,
                            .seed = run->job.sampling.seed,
                            .max_tokens = run->job.max_tokens,
                            .resumed = (uint32_t)run->n_resume_ids,
                            .made = (uint32_t)run->n_resume_ids,
                            .acked = (uint32_t)run->n_resume_ids};
    uint32_t text = 0;
    for (uint32_t i = 0; i < run->n_resume_ids; i++) {
        char piece[SIM_TEXT_PER_TOKEN];
        text += (uint32_t)token_text(l->seed, i, piece);
        if (run->resume_ids[i] != token_id(l->seed, i))
            sim_fail(s, "a job goes on from token %u that was never made so", i);
    }
    if (text != run->resume_text_bytes)
        sim_fail(s, "a job goes on behind %u bytes of text, it has %u", run->resume_text_bytes,
                 text);
    if (models_can_run(s, a, l->model))
        lease_begin(w, l);
    else
        lease_lost(w, l);
}

static void command_take(struct sim *s, struct sim_actor *a, const struct wire_command *c)
{
    struct sim_worker *w = a->own;
    struct sim_lease *l;
    switch (c->kind) {
    case WIRE_COMMAND_LOAD:
        models_load(s, a, &c->load);
        break;
    case WIRE_COMMAND_UNLOAD:
        models_unload(w, c->unload.model);
        break;
    case WIRE_COMMAND_MEET:
        sim_fail(s, "%s is to meet others, and gave no address", a->name);
        break;
    case WIRE_COMMAND_RUN:
        run_take(s, a, &c->run);
        break;
    case WIRE_COMMAND_CANCEL:
        l = lease_find(w, &c->cancel.job_id);
        if (l != NULL && l->epoch == c->cancel.epoch)
            lease_forget(w, l);
        break;
    }
}

/* ---- work ---- */

static void lease_trouble(struct sim *s, struct sim_worker *w, struct sim_lease *l)
{
    if (l->over || !sim_chance(s, s->faults.engine_fails))
        return;
    lease_end(w, l);
    l->over = true;
    l->finish = WIRE_FINISH_ERROR;
    l->error = sim_below(s, 2) ? ERR_INTERNAL : ERR_BUSY;
}

static void batch_step(struct sim *s, struct sim_worker *w)
{
    struct batch_plan plan;
    int32_t drawn[16];
    struct sim_lease *done[16];
    uint32_t n_done = 0;

    while (batch_admit(w->batch) != NULL)
        continue;
    if (!batch_plan_step(w->batch, &plan))
        return;
    CHECK(plan.n_logits <= 16);
    for (uint32_t i = 0; i < plan.n_logits; i++) {
        struct sim_lease *l = batch_owner(plan.logits_seq[i]);
        uint32_t n_ids;
        (void)batch_ids(l->seq, &n_ids);
        if (!plan.draw[i])
            continue;
        if (n_ids != prompt_count(l->seed) + l->made)
            sim_fail(s, "a batch draws token %u of a job that has %u",
                     n_ids - prompt_count(l->seed), l->made);
        drawn[i] = token_id(l->seed, l->made++);
        done[n_done++] = l;
    }
    batch_commit(w->batch, drawn);
    for (uint32_t i = 0; i < n_done; i++) {
        struct sim_lease *l = done[i];
        if (!batch_full(l->seq))
            continue;
        (void)token_count(l->seed, l->max_tokens, &l->finish);
        l->over = true;
        lease_end(w, l);
    }
}

static void report(struct sim *s, struct sim_actor *a)
{
    static int32_t ids[SIM_LEASES][SIM_TOKENS_MAX + 8];
    static char texts[SIM_LEASES][(SIM_TOKENS_MAX + 8) * SIM_TEXT_PER_TOKEN];
    struct sim_worker *w = a->own;
    struct wire_lease_progress progress[SIM_LEASES];
    struct wire_model_status status[SIM_MODELS];
    size_t n = 0;
    for (uint32_t i = 0; i < SIM_LEASES; i++) {
        struct sim_lease *l = &w->leases[i];
        if (!l->used)
            continue;
        uint32_t end = l->made;
        /* Not always everything: frames are cut anywhere. */
        if (end > l->acked + 1 && sim_below(s, 4) == 0)
            end = l->acked + 1 + (uint32_t)sim_below(s, end - l->acked);
        size_t text = 0;
        for (uint32_t k = l->acked; k < end; k++) {
            ids[n][k - l->acked] = token_id(l->seed, k);
            text += token_text(l->seed, k, &texts[n][text]);
        }
        bool last = l->over && end == l->made;
        progress[n] = (struct wire_lease_progress){
            .job_id = l->job_id,
            .epoch = l->epoch,
            .first = l->acked,
            .ids = ids[n],
            .n_ids = end - l->acked,
            .text = {.data = (const uint8_t *)texts[n], .size = text},
            .usage = {.prompt_tokens = prompt_count(l->seed),
                      .prompt_computed = prompt_count(l->seed),
                      .resumed_tokens = l->resumed,
                      .completion_tokens = l->made},
            .finish = last ? l->finish : WIRE_FINISH_UNSPECIFIED,
            .error = {.code = last ? (uint32_t)l->error : 0, .text = ""}};
        l->over_sent = last;
        n++;
    }
    models_status(w, status);
    struct wire_gpu gpu;
    struct wire_request request = {.kind = WIRE_REQUEST_REPORT,
                                   .report = {.leases = progress,
                                              .n_leases = n,
                                              .models = status,
                                              .n_models = SIM_MODELS,
                                              .memory = models_memory(w),
                                              .gpus = &gpu,
                                              .n_gpus = gpu_now(s, a, &gpu)}};
    w->reported_ns = s->now_ns;
    sim_call(s, a, SLOT_REPORT, &request, 1000);
}

static void report_acked(struct sim *s, struct sim_worker *w, const struct wire_report_reply *r)
{
    (void)s;
    for (size_t i = 0; i < r->n_leases; i++) {
        struct sim_lease *l = lease_find(w, &r->leases[i].job_id);
        if (l == NULL || l->epoch != r->leases[i].epoch)
            continue;
        if (r->leases[i].fenced) {
            lease_forget(w, l);
            continue;
        }
        if (r->leases[i].next > l->made) {
            sim_fail(s, "token %u is acknowledged, %u were made", r->leases[i].next, l->made);
            return;
        }
        if (r->leases[i].next > l->acked)
            l->acked = r->leases[i].next;
        if (l->over_sent && l->acked == l->made)
            lease_forget(w, l);
    }
}

/* ---- life ---- */

static void calls_forget(struct sim_actor *a)
{
    for (uint32_t i = 0; i < SIM_SLOTS; i++)
        a->calls[i].under_way = false;
    a->peer = (struct sim_peer){0};
}

static bool trouble(struct sim *s, struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    if (w->hanging && s->now_ns >= w->hang_until_ns)
        w->hanging = false;
    if (w->hanging)
        return true;
    if (sim_chance(s, s->faults.worker_dies)) {
        calls_forget(a);
        worker_reset(w);
        w->retry_ns = s->now_ns + sim_below(s, 5000) * SIM_MS;
    }
    if (sim_chance(s, s->faults.worker_hangs)) {
        w->hanging = true;
        w->hang_until_ns = s->now_ns + sim_below(s, 6000) * SIM_MS;
        return true;
    }
    if (a->peer.established && sim_chance(s, s->faults.worker_leaves))
        w->leaving = true;
    return false;
}

static void leave(struct sim *s, struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    struct wire_request request = {.kind = WIRE_REQUEST_GOODBYE, .goodbye = {.reason = "sim"}};
    if (a->calls[SLOT_GOODBYE].under_way)
        return;
    sim_call(s, a, SLOT_GOODBYE, &request, 500);
    for (uint32_t i = 0; i < SIM_LEASES; i++)
        lease_forget(w, &w->leases[i]);
}

static void worker_wake(struct sim *s, struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    sim_wake(s, a, STEP_MS);
    if (trouble(s, a) || s->now_ns < w->retry_ns)
        return;
    models_step(s, a);
    /* Its jobs go on elsewhere by now, for all it knows. */
    bool cut_off = s->now_ns - w->heard_ns > s->config.lease_ms * SIM_MS;
    for (uint32_t i = 0; i < SIM_LEASES; i++) {
        if (w->leases[i].used && (cut_off || sim_chance(s, s->faults.forgets)))
            lease_forget(w, &w->leases[i]);
        if (w->leases[i].used)
            lease_trouble(s, w, &w->leases[i]);
        if (w->leases[i].used && !w->leases[i].over && !models_can_run(s, a, w->leases[i].model))
            lease_lost(w, &w->leases[i]);
    }
    for (uint64_t n = sim_below(s, 3); n > 0; n--)
        batch_step(s, w);
    if (!a->peer.established) {
        if (!a->calls[SLOT_HELLO].under_way)
            hello(s, a, NULL);
        return;
    }
    if (w->leaving) {
        leave(s, a);
        return;
    }
    if (!a->calls[SLOT_PULL].under_way) {
        struct wire_request request = {
            .kind = WIRE_REQUEST_PULL,
            .pull = {.acked_command = w->acked_command, .wait_ms = 5000}};
        sim_call(s, a, SLOT_PULL, &request, 7000);
    }
    if (!a->calls[SLOT_REPORT].under_way)
        report(s, a);
}

/* An answer to what was asked in an old session is none. */
static void session_forget(struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    w->acked_command = 0;
    a->peer = (struct sim_peer){0};
    a->calls[SLOT_PULL].under_way = a->calls[SLOT_REPORT].under_way = false;
}

static void worker_answered(struct sim *s, struct sim_actor *a, uint32_t slot,
                            const struct wire_reply *reply)
{
    struct sim_worker *w = a->own;
    if (reply != NULL)
        w->heard_ns = s->now_ns;
    if (slot == SLOT_GOODBYE) {
        worker_reset(w);
        calls_forget(a);
        w->retry_ns = s->now_ns + sim_below(s, 3000) * SIM_MS;
        return;
    }
    if (reply == NULL) {
        if (slot == SLOT_HELLO || s->now_ns - w->heard_ns > s->config.lease_ms * SIM_MS)
            session_forget(a);
        return;
    }
    if (reply->kind == WIRE_REPLY_ERROR) {
        if (reply->error.code == ERR_STALE || slot == SLOT_HELLO) {
            session_forget(a);
            w->retry_ns = s->now_ns + 100 * SIM_MS;
        }
        return;
    }
    switch (slot) {
    case SLOT_HELLO:
        a->peer.session = reply->session;
        if (reply->hello.established) {
            a->peer.established = true;
            w->acked_command = 0;
        } else {
            hello(s, a, reply->hello.challenge);
        }
        break;
    case SLOT_PULL:
        for (size_t i = 0; i < reply->pull.n_commands; i++) {
            const struct wire_command *c = &reply->pull.commands[i];
            if (c->seq <= w->acked_command)
                continue;
            w->acked_command = c->seq;
            command_take(s, a, c);
        }
        break;
    default:
        report_acked(s, w, &reply->report);
        break;
    }
}

const struct sim_actor_ops sim_worker_ops = {.wake = worker_wake, .answered = worker_answered};
