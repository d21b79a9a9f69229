/*
 * worker.c - workers by name: what they have, when they were last heard, what happens to their
 * leases when they come back, say goodbye, or fall silent.
 *
 * Silence first makes a worker SUSPECT (it gets nothing new), and only after the whole lease time
 * GONE (what it held goes elsewhere). One that was away because we were restarted has grace_ms.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#include <stdio.h>

static int worker_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_worker, node)->name,
                  tree_entry(b, const struct core_worker, node)->name);
}

static int hosting_compare(const struct tree_node *a, const struct tree_node *b)
{
    return strcmp(tree_entry(a, const struct core_hosting, by_worker)->model->name,
                  tree_entry(b, const struct core_hosting, by_worker)->model->name);
}

static int lease_compare(const struct tree_node *a, const struct tree_node *b)
{
    return id_compare(&tree_entry(a, const struct core_lease, node)->job->id,
                      &tree_entry(b, const struct core_lease, node)->job->id);
}

void workers_init(struct core *c)
{
    tree_init(&c->workers, worker_compare);
}

struct core_worker *worker_find(const struct core *c, const char *name)
{
    struct core_worker probe = {.name = name};
    return tree_entry(tree_find(&c->workers, &probe.node), struct core_worker, node);
}

static const struct wire_nccl no_nccl = {.version = ""};
static const struct wire_gpu no_gpu = {.uuid = "", .pci = "", .driver = "", .trouble = ""};

struct core_worker *worker_get(struct core *c, const char *name)
{
    struct core_worker *w = worker_find(c, name);
    if (w != NULL)
        return w;
    w = core_alloc(sizeof *w);
    w->name = name_intern(c, name);
    w->state = WIRE_WORKER_STATE_GONE;
    w->device = w->isa = w->build = "";
    w->gpu = no_gpu;
    w->nccl = no_nccl;
    tree_init(&w->hosting, hosting_compare);
    tree_init(&w->leases, lease_compare);
    tree_insert(&c->workers, &w->node);
    return w;
}

static void worker_forget(struct core *c, struct core_worker *w)
{
    CHECK(w->session == NULL && tree_count(&w->leases) == 0 && tree_count(&w->hosting) == 0);
    timer_clear(c, &w->timer);
    tree_remove(&c->workers, &w->node);
    name_drop(c, w->name);
    name_drop(c, w->device);
    name_drop(c, w->isa);
    name_drop(c, w->build);
    name_drop(c, w->gpu.uuid);
    name_drop(c, w->gpu.pci);
    name_drop(c, w->gpu.driver);
    name_drop(c, w->gpu.trouble);
    name_drop(c, w->nccl.version);
    free(w);
}

bool workers_make_room(struct core *c)
{
    struct core_worker *longest = NULL;
    if (tree_count(&c->workers) < LIMIT_WORKERS)
        return true;
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        struct core_worker *w = tree_entry(n, struct core_worker, node);
        if (w->state == WIRE_WORKER_STATE_GONE && w->session == NULL &&
            tree_count(&w->leases) == 0 && (longest == NULL || w->heard_ms < longest->heard_ms))
            longest = w;
    }
    if (longest != NULL)
        worker_forget(c, longest);
    return longest != NULL;
}

void workers_touch_models(struct core *c, struct core_worker *w)
{
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n))
        model_touch(c, tree_entry(n, struct core_hosting, by_worker)->model);
}

void worker_memory(struct core_worker *w, const struct wire_memory *memory)
{
    if (memory->total_bytes != 0)
        w->memory = *memory;
}

/* One at most: LIMIT_GPUS_PER_WORKER. */
void worker_gpus(struct core *c, struct core_worker *w, const struct wire_gpu *gpus, size_t n_gpus)
{
    const struct wire_gpu *gpu = n_gpus > 0 ? gpus : &no_gpu;
    struct wire_gpu now = *gpu;
    now.uuid = w->gpu.uuid;
    now.pci = w->gpu.pci;
    now.driver = w->gpu.driver;
    now.trouble = w->gpu.trouble;
    name_replace(c, &now.uuid, gpu->uuid);
    name_replace(c, &now.pci, gpu->pci);
    name_replace(c, &now.driver, gpu->driver);
    name_replace(c, &now.trouble, gpu->trouble);
    w->gpu = now;
}

/* Of the device, or what the operator lets us have of it. */
uint64_t worker_capacity_bytes(const struct core_worker *w)
{
    uint64_t total = w->memory.total_bytes, budget = w->memory.budget_bytes;
    return budget != 0 && budget < total ? budget : total;
}

uint64_t worker_claimed_bytes(const struct core_worker *w)
{
    uint64_t sum = 0;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        sum += hosting_holds_memory(h) ? hosting_need_bytes(h) : 0;
    }
    return sum;
}

/* Claims that are not yet in what the worker reports as used: loads under way. */
uint64_t worker_pending_bytes(const struct core_worker *w)
{
    uint64_t sum = 0;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        if (h->state != WIRE_MODEL_STATE_READY && hosting_holds_memory(h))
            sum += hosting_need_bytes(h);
    }
    return sum;
}

uint64_t worker_stranger_bytes(const struct core_worker *w)
{
    const struct wire_memory *m = &w->memory;
    uint64_t known = m->free_bytes + m->used_bytes;
    return m->total_bytes > known ? m->total_bytes - known : 0;
}

uint64_t worker_silent_ms(const struct core *c, const struct core_worker *w)
{
    return c->now_ms - w->heard_ms - (c->held_ms - w->heard_held_ms);
}

#define BACK_WAIT_MS     1000u
#define BACK_DOUBLED_MAX 8u /* 256 s */

void worker_gave_back(struct core *c, struct core_worker *w)
{
    if (c->now_ms < w->back_until_ms)
        return; /* of the same burst */
    uint32_t doubled = w->returns < BACK_DOUBLED_MAX ? w->returns : BACK_DOUBLED_MAX;
    w->returns++;
    w->back_until_ms = c->now_ms + ((uint64_t)BACK_WAIT_MS << doubled);
}

void worker_heard(struct core *c, struct core_worker *w)
{
    w->heard_ms = c->now_ms;
    w->heard_held_ms = c->held_ms;
    if (w->state != WIRE_WORKER_STATE_ALIVE) {
        w->state = WIRE_WORKER_STATE_ALIVE;
        workers_touch_models(c, w);
    }
    if (!tree_holds(&w->timer.node))
        timer_set(c, &w->timer, CORE_TIMER_WORKER, c->now_ms + c->config->lease_ms / 2);
}

/* Every lease goes back to the queue. */
static void leases_requeue(struct core *c, struct core_worker *w, bool died, bool left,
                           const char *why, struct core_effects *fx)
{
    struct tree_node *n;
    while ((n = tree_first(&w->leases)) != NULL) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        enum lease_fault fault = died   ? lease_fault_of_death(l)
                                 : left ? LEASE_FAULT_FULL
                                        : LEASE_FAULT_NONE;
        lease_requeue(c, l, fault, why, fx);
    }
}

void worker_lost(struct core *c, struct core_worker *w, bool died, struct core_effects *fx)
{
    bool left = !died && !w->awaited;
    w->state = WIRE_WORKER_STATE_GONE;
    w->awaited = false;
    timer_clear(c, &w->timer);
    leases_requeue(c, w, died, left, died ? "it was lost" : "it left", fx);
    struct tree_node *n;
    while ((n = tree_first(&w->hosting)) != NULL) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_worker);
        if (h->gang != NULL)
            gang_end(c, h->gang, died ? LEASE_FAULT_DEATH : LEASE_FAULT_NONE,
                     effect_printf(fx, "%s %s", w->name, died ? "was lost" : "left"), fx);
        hosting_remove(c, h);
    }
    w->memory = (struct wire_memory){0};
}

void worker_timer_fire(struct core *c, struct core_worker *w, struct core_effects *fx)
{
    uint64_t limit = w->awaited ? c->config->grace_ms : c->config->lease_ms;
    uint64_t silent_ms = worker_silent_ms(c, w), suspect_ms = c->config->lease_ms / 2;
    /* The timer is not moved by every message; it finds out here. */
    if (silent_ms < suspect_ms) {
        timer_set(c, &w->timer, CORE_TIMER_WORKER, c->now_ms + suspect_ms - silent_ms);
        return;
    }
    if (silent_ms < limit) {
        w->state = WIRE_WORKER_STATE_SUSPECT;
        workers_touch_models(c, w);
        timer_set(c, &w->timer, CORE_TIMER_WORKER, c->now_ms + limit - silent_ms);
        return;
    }
    /* Nothing can be stored: leases stay where they are until it can. */
    if (c->frozen) {
        timer_set(c, &w->timer, CORE_TIMER_WORKER, c->now_ms + c->config->lease_ms / 2);
        return;
    }
    bool died = !w->awaited;
    if (w->session != NULL)
        session_end(c, w->session, fx);
    worker_lost(c, w, died, fx);
}

/* Leases that the worker still has, under the epoch we gave it, go on; the others are not running
 * anywhere any more. What it has and should not, it is told to stop. */
static void leases_reconcile(struct core *c, struct core_worker *w, struct core_session *s,
                             const struct wire_worker_hello *hello, struct core_effects *fx)
{
    struct tree kept = w->leases;
    bool died = !w->awaited;
    tree_init(&w->leases, lease_compare);
    for (size_t i = 0; i < hello->n_leases; i++) {
        const struct wire_lease_held *held = &hello->leases[i];
        struct core_job *j = job_find(c, &held->job_id);
        struct core_lease *l = j != NULL ? j->lease : NULL;
        if (l == NULL || l->worker != w || l->epoch != held->epoch) {
            struct core_command *cmd = session_command(c, s, WIRE_COMMAND_CANCEL);
            cmd->job_id = held->job_id;
            cmd->epoch = held->epoch;
            continue;
        }
        if (tree_find(&kept, &l->node) == NULL)
            continue; /* named twice */
        tree_remove(&kept, &l->node);
        tree_insert(&w->leases, &l->node);
        lease_heard(c, l);
        if (j->state == WIRE_JOB_STATE_LEASED)
            job_move(c, j, WIRE_JOB_STATE_RUNNING);
    }
    struct tree_node *n;
    while ((n = tree_first(&kept)) != NULL) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        tree_remove(&kept, n);
        tree_insert(&w->leases, n);
        /* One that has not heard us for a lease's time stops its jobs, as it should. */
        bool at_fault = died && !lease_was_held_up(c, l);
        lease_requeue(c, l, at_fault ? lease_fault_of_death(l) : LEASE_FAULT_NONE,
                      "it came back without the job", fx);
    }
}

/* Its leases are reconciled first: a lease that goes on keeps its place on its model. */
void worker_hello(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx)
{
    const struct wire_hello *hello = &event->request->hello;
    const struct wire_worker_hello *wh = &hello->worker;
    struct core_worker *w = worker_get(c, hello->node);

    if (w->session != NULL && w->session != s)
        session_end(c, w->session, fx);
    w->session = s;
    s->worker = w;
    memcpy(w->public_key, hello->public_key, sizeof w->public_key);
    memcpy(w->key_fingerprint, event->key_fingerprint, sizeof w->key_fingerprint);
    name_replace(c, &w->device, wh->device);
    name_replace(c, &w->isa, wh->isa);
    name_replace(c, &w->build, hello->build);
    w->threads = wh->threads;
    memcpy(w->host, wh->host, sizeof w->host);
    w->transports = wh->transports;
    name_replace(c, &w->nccl.version, wh->nccl.version);
    w->nccl.controls = wh->nccl.controls;
    w->nccl.memory_bytes = wh->nccl.memory_bytes;
    w->read_bytes_per_s = wh->read_bytes_per_s < LIMIT_READ_BYTES_PER_S ? wh->read_bytes_per_s
                                                                        : LIMIT_READ_BYTES_PER_S;
    w->memory = (struct wire_memory){0};
    worker_memory(w, &wh->memory);
    worker_gpus(c, w, wh->gpus, wh->n_gpus);
    leases_reconcile(c, w, s, wh, fx);
    w->awaited = false;
    w->tokens = 0;

    /* Offers of this Hello replace the old ones. */
    struct tree_node *n = tree_first(&w->leases);
    for (; n != NULL; n = tree_above(&w->leases, n)) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        if (l->hosting != NULL) {
            l->hosting->leases--;
            l->hosting->lease_tokens -= l->load_tokens;
            l->hosting = NULL;
        }
    }
    while ((n = tree_first(&w->hosting)) != NULL) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_worker);
        gang_part(h);
        hosting_remove(c, h);
    }
    for (size_t i = 0; i < wh->n_models; i++)
        hosting_offer(c, w, &wh->models[i]);
    for (size_t i = 0; i < wh->n_status; i++) {
        struct core_hosting *h = hosting_find(w, wh->status[i].name);
        if (h != NULL)
            gang_rejoin(c, h, &wh->status[i]);
        hosting_status(c, w, &wh->status[i], fx);
    }
    gang_missed(c, w, fx);
    for (n = tree_first(&w->leases); n != NULL; n = tree_above(&w->leases, n)) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        struct core_hosting *h = hosting_find(w, l->job->model->name);
        if (h != NULL)
            lease_bind(c, l, h);
    }
    worker_heard(c, w);
    workers_touch_models(c, w);
}

void workers_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->workers.root) != NULL) {
        struct core_worker *w = tree_entry(n, struct core_worker, node);
        tree_remove(&c->workers, n);
        while ((n = w->leases.root) != NULL) {
            tree_remove(&w->leases, n);
            free(tree_entry(n, struct core_lease, node));
        }
        while ((n = w->hosting.root) != NULL) {
            struct core_hosting *h = tree_entry(n, struct core_hosting, by_worker);
            gang_part(h);
            tree_remove(&w->hosting, n);
            tree_remove(&h->model->hosts, &h->by_model);
            free((void *)(uintptr_t)h->offer.shape.data);
            free(h->error);
            free(h);
        }
        free(w);
    }
}
