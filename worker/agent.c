#include "worker/agent.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/notify.h"
#include "worker/lease.h"
#include "worker/residency.h"
#include "worker/run_job.h"
#include "worker/session.h"
#include "worker/spaces.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define AGENT_TICK_MS          50u
#define AGENT_REPORT_BYTES_MAX (8u << 20)
#define AGENT_GOODBYE_MS       1500u

_Static_assert(AGENT_REPORT_BYTES_MAX >= 2 * LEASE_CHUNK_BYTES_MAX, "any chunk goes into a report");

struct agent {
    const struct agent_config *config;
    struct engine *engine;
    struct residency residency;
    struct session *session;
    struct lease_table leases;
    struct spaces spaces;
    int epoll_fd, wake_fd, signal_fd, timer_fd;
    struct device_now device; /* as last read; what is packed points into it */
    struct wire_gpu gpu;
    bool models_changed;
    bool stopping;
    bool lost;
    uint64_t stop_at_ms;
};

/* Engine's thread. */
static void agent_wake(void *arg)
{
    const struct agent *a = arg;
    uint64_t one = 1;
    if (write(a->wake_fd, &one, sizeof one) < 0)
        return; /* full counter: awake already */
}

/* ---- commands ---- */

static void lease_start(struct agent *a, struct lease *l)
{
    struct catalogue_model *m = &a->config->catalogue->models[l->model_id];
    struct errbuf eb = {{0}};

    if (m->state == WIRE_MODEL_STATE_FAILED) {
        (void)err_set(&eb, ERR_UNAVAILABLE, "model %s did not load: %s", m->name, m->error);
        lease_end(l, WIRE_FINISH_ERROR, ERR_UNAVAILABLE, eb.text);
        return;
    }
    if (m->state == WIRE_MODEL_STATE_AVAILABLE) {
        (void)err_set(&eb, ERR_UNAVAILABLE, "model %s: %s", m->name,
                      m->error[0] != '\0' ? m->error : "it was unloaded");
        lease_end(l, WIRE_FINISH_ERROR, ERR_UNAVAILABLE, eb.text);
        return;
    }
    if (m->place.rank > 0 && !m->unloading) {
        (void)err_set(&eb, ERR_UNAVAILABLE, "model %s: %s is rank %u of its gang; jobs go to %s",
                      m->name, a->config->node, m->place.rank, m->place.leader);
        lease_end(l, WIRE_FINISH_ERROR, ERR_UNAVAILABLE, eb.text);
        return;
    }
    if (m->state != WIRE_MODEL_STATE_READY)
        return; /* waits for MODEL_READY */
    enum err e = run_job_submit(a->engine, l, spaces_of(&a->spaces, l->run.tenant), &eb);
    if (e == ERR_BUSY)
        return; /* the engine is full: the next tick tries again */
    if (e != ERR_OK) {
        lease_end(l, WIRE_FINISH_ERROR, e, eb.text);
        return;
    }
    l->state = LEASE_STATE_ACTIVE;
    lease_release_content(l);
}

static void leases_start(struct agent *a)
{
    for (size_t i = 0; i < a->leases.count; i++) {
        if (a->leases.leases[i]->state == LEASE_STATE_WAITING)
            lease_start(a, a->leases.leases[i]);
    }
}

static void lease_drop(struct agent *a, struct lease *l)
{
    if (l->state == LEASE_STATE_ACTIVE)
        engine_cancel(a->engine, l->engine_id);
    lease_remove(&a->leases, l);
}

static struct catalogue_model *model_of_command(struct agent *a, const char *name, const char *what)
{
    struct catalogue_model *m = catalogue_find(a->config->catalogue, name);
    if (m == NULL)
        log_warn("asked to %s model %s, which is not served here", what, name);
    a->models_changed = true;
    return m;
}

static void model_load(struct agent *a, const struct wire_command_load *load)
{
    struct catalogue_model *m = model_of_command(a, load->model, "load");
    struct gang_place place;
    if (m == NULL)
        return;
    gang_place_of(&load->place, &place);
    residency_load(&a->residency, m, &place);
}

static void model_unload(struct agent *a, const char *name)
{
    struct catalogue_model *m = model_of_command(a, name, "unload");
    if (m != NULL)
        residency_unload(&a->residency, m);
}

static void model_meet(struct agent *a, const struct wire_command_meet *meet)
{
    struct catalogue_model *m = model_of_command(a, meet->model, "meet the others of");
    if (m != NULL)
        residency_meet(m, meet);
}

static void job_run(struct agent *a, const struct wire_command_run *run)
{
    struct catalogue_model *m = catalogue_find(a->config->catalogue, run->job.model);
    struct errbuf eb = {{0}};
    struct lease *l = lease_find(&a->leases, &run->job_id);

    if (l != NULL && l->epoch >= run->epoch)
        return; /* said again */
    if (l != NULL)
        lease_drop(a, l); /* an older lease of the same job: fenced */
    /* An unknown model gets a lease too, so that the refusal goes back as the job's end. */
    uint32_t model_id = m != NULL ? (uint32_t)(m - a->config->catalogue->models) : 0;
    enum err e = lease_add(&a->leases, run, model_id, &l, &eb);
    if (e != ERR_OK) {
        log_warn("a job could not be taken: %s", eb.text);
        session_restart(a->session, clock_mono_ms(), "a job could not be taken");
        return;
    }
    if (m == NULL) {
        (void)err_set(&eb, ERR_NOT_FOUND, "model %s is not served by %s", run->job.model,
                      a->config->node);
        lease_end(l, WIRE_FINISH_ERROR, ERR_NOT_FOUND, eb.text);
        return;
    }
    /* Of a gang that has ended, the whole is not what was wanted, and might not fit. */
    if (m->state == WIRE_MODEL_STATE_AVAILABLE && m->asked.gang == 0)
        model_load(a, &(struct wire_command_load){.model = m->name});
    lease_start(a, l);
}

static void agent_command(void *arg, const struct wire_command *command)
{
    struct agent *a = arg;
    struct lease *l;

    switch (command->kind) {
    case WIRE_COMMAND_LOAD:
        model_load(a, &command->load);
        break;
    case WIRE_COMMAND_UNLOAD:
        model_unload(a, command->unload.model);
        break;
    case WIRE_COMMAND_RUN:
        job_run(a, &command->run);
        break;
    case WIRE_COMMAND_CANCEL:
        l = lease_find(&a->leases, &command->cancel.job_id);
        if (l != NULL && l->epoch == command->cancel.epoch)
            lease_drop(a, l);
        break;
    case WIRE_COMMAND_MEET:
        model_meet(a, &command->meet);
        break;
    }
}

/* ---- engine events ---- */

static const enum wire_finish wire_finish_of[] = {
    [ENGINE_FINISH_NONE] = WIRE_FINISH_UNSPECIFIED,
    [ENGINE_FINISH_STOP] = WIRE_FINISH_STOP,
    [ENGINE_FINISH_LENGTH] = WIRE_FINISH_LENGTH,
    [ENGINE_FINISH_CANCELLED] = WIRE_FINISH_CANCELLED,
    [ENGINE_FINISH_ERROR] = WIRE_FINISH_ERROR,
};

static void usage_take(struct lease *l, const struct engine_usage *u)
{
    l->usage = (struct wire_work_usage){.prompt_tokens = u->prompt_tokens,
                                        .prompt_cached = u->prompt_cached,
                                        .prompt_computed = u->prompt_computed,
                                        .resumed_tokens = u->resumed_tokens,
                                        .completion_tokens = u->completion_tokens,
                                        .queue_us = u->queue_us,
                                        .prefill_us = u->prefill_us,
                                        .decode_us = u->decode_us};
}

static void job_event(struct agent *a, const struct engine_event *ev)
{
    struct lease *l = lease_find_engine(&a->leases, ev->job_id);
    struct errbuf eb = {{0}};

    if (l == NULL || l->state == LEASE_STATE_ENDED)
        return; /* dropped meanwhile, or ended by an error of ours */
    usage_take(l, &ev->usage);
    l->changed = true;
    if (ev->kind == ENGINE_EVENT_STARTED)
        return;
    enum err e = run_job_output(l, ev, &eb);
    if (e != ERR_OK) {
        log_error("job output: %s", eb.text);
        engine_cancel(a->engine, l->engine_id);
        lease_end(l, WIRE_FINISH_ERROR, e, eb.text);
    } else if (ev->kind == ENGINE_EVENT_FINISHED) {
        lease_end(l, wire_finish_of[ev->finish], ev->error, ev->error_text);
    }
}

static void engine_events_take(struct agent *a)
{
    struct engine_event ev;
    while (engine_poll(a->engine, &ev)) {
        if (ev.kind == ENGINE_EVENT_STARTED || ev.kind == ENGINE_EVENT_TOKENS ||
            ev.kind == ENGINE_EVENT_FINISHED) {
            job_event(a, &ev);
            continue;
        }
        a->models_changed = true;
        residency_event(&a->residency, &ev);
    }
}

/* ---- what the coordinator is told ---- */

static uint64_t models_bytes(const struct catalogue *c)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->count; i++)
        sum += c->models[i].weights_bytes + c->models[i].kv_bytes + c->models[i].scratch_bytes +
               c->models[i].exchange_bytes;
    return sum;
}

#define SAME_BIT(name) _Static_assert((int)NVML_KNOWN_##name == (int)WIRE_GPU_KNOWN_##name, #name)
SAME_BIT(PROCESSES);
SAME_BIT(OWN_BYTES);
SAME_BIT(UTILIZATION);
SAME_BIT(POWER);
SAME_BIT(ENERGY);
SAME_BIT(TEMPERATURE);
SAME_BIT(ECC);

static void gpu_fill(struct agent *a)
{
    const struct nvml_identity *id = device_gpu(a->config->device);
    const struct gpu_now *now = &a->device.gpu;
    const struct nvml_reading *r = &now->reading;
    a->gpu = (struct wire_gpu){.uuid = id->uuid,
                               .pci = id->pci,
                               .driver = id->driver,
                               .known = r->known,
                               .utilization_percent = r->utilization_percent,
                               .power_mw = r->power_mw,
                               .energy_mj = r->energy_mj,
                               .temperature_c = r->temperature_c,
                               .ecc_uncorrected = r->ecc_uncorrected,
                               .xid = now->xid,
                               .stranger_processes = r->other_processes,
                               .stranger_process_bytes = r->other_bytes,
                               .trouble = now->trouble};
}

static void device_fill(struct agent *a, struct wire_memory *ret_memory,
                        const struct wire_gpu **ret_gpus, size_t *ret_n_gpus)
{
    struct errbuf eb = {{0}};

    *ret_memory = (struct wire_memory){0};
    *ret_gpus = NULL;
    *ret_n_gpus = 0;
    if (device_read(a->config->device, models_bytes(a->config->catalogue), &a->device, &eb) !=
        ERR_OK) {
        log_warn("%s", eb.text);
        return;
    }
    ret_memory->total_bytes = a->device.total_bytes;
    ret_memory->free_bytes = a->device.free_bytes;
    ret_memory->used_bytes = a->device.used_bytes;
    ret_memory->budget_bytes = a->config->memory_budget_bytes;
    if (ret_memory->budget_bytes == 0 && a->device.kept_bytes > 0)
        ret_memory->budget_bytes = a->device.total_bytes - a->device.kept_bytes;
    if (a->device.has_gpu) {
        gpu_fill(a);
        *ret_gpus = &a->gpu;
        *ret_n_gpus = 1;
    }
}

static enum err models_fill(const struct agent *a, struct arena *arena,
                            const struct wire_model_status **ret_status, size_t *ret_n)
{
    const struct catalogue *c = a->config->catalogue;
    struct wire_model_status *status = arena_alloc_array(arena, c->count, sizeof *status);

    if (status == NULL)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < c->count; i++) {
        const struct catalogue_model *m = &c->models[i];
        const struct gang_place *place = residency_place(m);
        struct engine_load_now load = {0};
        if (m->state == WIRE_MODEL_STATE_READY)
            engine_load_read(a->engine, (uint32_t)i, &load);
        status[i] = (struct wire_model_status){
            .name = m->name,
            .state = m->state,
            .error = m->error,
            .weights_bytes = m->weights_bytes,
            .kv_bytes = m->kv_bytes,
            .scratch_bytes = m->scratch_bytes,
            .load_ms = m->load_ms,
            .running = load.running,
            .waiting = load.waiting,
            .queued_tokens = load.queued_tokens,
            .prefill_tokens_per_s = load.prefill_tokens_per_s,
            .decode_tokens_per_s = load.decode_tokens_per_s,
            .kv_pages_free = load.kv_pages_free,
            .kv_pages = load.kv_pages,
            .failures = m->failures,
            .gang = place->gang,
            .rank = place->rank,
            .ranks = place->n_ranks,
            .exchange_bytes = m->exchange_bytes,
        };
    }
    *ret_status = status;
    *ret_n = c->count;
    return ERR_OK;
}

static enum err agent_hello(void *arg, struct arena *arena, struct wire_worker_hello *ret_hello)
{
    struct agent *a = arg;
    const struct catalogue *c = a->config->catalogue;
    struct wire_worker_hello h = {.device = device_name(a->config->device),
                                  .isa = engine_isa_name(a->engine),
                                  .threads = a->config->engine.threads,
                                  .transports = a->config->gangs.transports,
                                  .read_bytes_per_s = a->config->read_bytes_per_s,
                                  .nccl = {.version = a->config->gangs.nccl_version,
                                           .controls = a->config->gangs.controls,
                                           .memory_bytes = a->config->gangs.nccl_bytes}};

    struct wire_model_offer *offers = arena_alloc_array(arena, c->count, sizeof *offers);
    struct wire_lease_held *held = arena_alloc_array(arena, a->leases.count, sizeof *held);
    if (offers == NULL || held == NULL)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < c->count; i++)
        offers[i] = c->models[i].offer;
    for (size_t i = 0; i < a->leases.count; i++) {
        const struct lease *l = a->leases.leases[i];
        held[i] =
            (struct wire_lease_held){.job_id = l->job_id, .epoch = l->epoch, .tokens = l->tokens};
    }
    h.models = offers;
    h.n_models = c->count;
    h.leases = held;
    h.n_leases = a->leases.count;
    _Static_assert(sizeof h.host == COLL_HOST_BYTES, "one host");
    memcpy(h.host, a->config->gangs.host, sizeof h.host);
    device_fill(a, &h.memory, &h.gpus, &h.n_gpus);
    enum err e = models_fill(a, arena, &h.status, &h.n_status);
    if (e == ERR_OK)
        *ret_hello = h;
    return e;
}

static enum err addresses_fill(struct agent *a, struct arena *arena, struct wire_report *report)
{
    struct wire_gang_address *all =
        arena_alloc_array(arena, a->config->catalogue->count, sizeof *all);
    if (all == NULL)
        return ERR_NO_MEMORY;
    report->addresses = all;
    report->n_addresses = residency_addresses(&a->residency, all);
    return ERR_OK;
}

static void agent_up(void *arg)
{
    struct agent *a = arg;
    /* What the coordinator committed of earlier reports is not known: all is said again. */
    lease_report_failed(&a->leases);
    a->models_changed = true;
}

static bool agent_report(void *arg, bool heartbeat, struct arena *arena,
                         struct wire_report *ret_report)
{
    struct agent *a = arg;

    if (!heartbeat && !a->models_changed && !lease_any_changed(&a->leases))
        return false;
    if (lease_report_fill(&a->leases, heartbeat, AGENT_REPORT_BYTES_MAX, arena, ret_report) !=
            ERR_OK ||
        models_fill(a, arena, &ret_report->models, &ret_report->n_models) != ERR_OK ||
        addresses_fill(a, arena, ret_report) != ERR_OK) {
        log_error("no memory for a report");
        lease_report_failed(&a->leases);
        return false;
    }
    device_fill(a, &ret_report->memory, &ret_report->gpus, &ret_report->n_gpus);
    a->models_changed = false;
    return true;
}

static void agent_report_answered(void *arg, const struct wire_report_reply *reply)
{
    struct agent *a = arg;
    for (size_t i = 0; i < reply->n_leases; i++) {
        struct lease *l = lease_find(&a->leases, &reply->leases[i].job_id);
        bool fenced;
        if (l != NULL && lease_acknowledge(l, &reply->leases[i], &fenced))
            lease_drop(a, l);
    }
}

static void agent_report_lost(void *arg)
{
    struct agent *a = arg;
    lease_report_failed(&a->leases);
    a->models_changed = true;
}

static const struct session_ops agent_session_ops = {
    .hello = agent_hello,
    .up = agent_up,
    .command = agent_command,
    .report = agent_report,
    .report_answered = agent_report_answered,
    .report_lost = agent_report_lost,
};

/* ---- the loop ---- */

/* Nobody renewed our leases: by now the coordinator gives the jobs to others, and what we still
 * compute would be thrown away. */
static void leases_fence(struct agent *a, uint64_t now_ms)
{
    uint64_t lease_ms = session_lease_ms(a->session);
    if (a->leases.count == 0 || lease_ms == 0 || session_heard_ms(a->session) == 0 ||
        now_ms - session_heard_ms(a->session) <= lease_ms)
        return;
    log_warn("coordinator not heard for %" PRIu64 " ms: %zu leases are over", lease_ms,
             a->leases.count);
    while (a->leases.count > 0)
        lease_drop(a, a->leases.leases[a->leases.count - 1]);
    /* It may be the coordinator that stood still: then it still counts on us. */
    session_restart(a->session, now_ms, "its leases are over");
}

static void stop_begin(struct agent *a, const char *why)
{
    a->stopping = true;
    a->stop_at_ms = clock_mono_ms() + AGENT_GOODBYE_MS;
    notify_state("STOPPING=1");
    session_goodbye(a->session, why);
}

/* Nothing that was begun on it will end: what it held goes elsewhere at once. */
static void device_check(struct agent *a, struct errbuf *eb)
{
    struct device_now now;
    if (a->lost || device_read(a->config->device, 0, &now, eb) != ERR_OK || !now.has_gpu ||
        !now.gpu.lost)
        return;
    a->lost = true;
    (void)err_set(eb, ERR_LOST, "the GPU is lost: %s", now.gpu.trouble);
    log_error("%s; %zu jobs go back to the coordinator", eb->text, a->leases.count);
    stop_begin(a, eb->text);
}

static void signal_take(struct agent *a)
{
    struct signalfd_siginfo info;
    while (read(a->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            continue;
        if (a->stopping) { /* asked twice: at once */
            a->stop_at_ms = 0;
            continue;
        }
        log_info("stopping: %zu jobs go back to the coordinator", a->leases.count);
        stop_begin(a, "stopped by its operator");
    }
}

static void counter_drain(int fd)
{
    uint64_t n;
    while (read(fd, &n, sizeof n) > 0) {
    }
}

static enum err fds_open(struct agent *a, struct errbuf *eb)
{
    struct itimerspec tick = {.it_interval.tv_nsec = AGENT_TICK_MS * 1000000L,
                              .it_value.tv_nsec = AGENT_TICK_MS * 1000000L};
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    a->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (a->epoll_fd < 0 || a->wake_fd < 0 || a->signal_fd < 0 || a->timer_fd < 0 ||
        timerfd_settime(a->timer_fd, 0, &tick, NULL) != 0)
        return err_set_errno(eb, errno, "event loop");
    const int fds[] = {a->wake_fd, a->signal_fd, a->timer_fd};
    for (size_t i = 0; i < 3; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fds[i]};
        if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fds[i], &ev) != 0)
            return err_set_errno(eb, errno, "event loop");
    }
    return ERR_OK;
}

static void agent_turn(struct agent *a, struct errbuf *eb)
{
    struct epoll_event events[4];
    int n = epoll_wait(a->epoll_fd, events, 4, -1);

    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == a->signal_fd)
            signal_take(a);
        else
            counter_drain(events[i].data.fd);
    }
    uint64_t now_ms = clock_mono_ms();
    device_check(a, eb);
    engine_events_take(a);
    if (residency_has_news(&a->residency))
        a->models_changed = true;
    session_run(a->session, now_ms);
    leases_start(a);
    leases_fence(a, now_ms);
}

enum err agent_run(const struct agent_config *config, struct errbuf *eb)
{
    struct agent a = {
        .config = config, .epoll_fd = -1, .wake_fd = -1, .signal_fd = -1, .timer_fd = -1};
    struct engine_config engine_config = config->engine;

    lease_table_init(&a.leases);
    spaces_init(&a.spaces, config->prefix_cache);
    enum err e = fds_open(&a, eb);
    if (e != ERR_OK)
        goto out;
    engine_config.notify = agent_wake;
    engine_config.notify_arg = &a;
    e = engine_open(&a.engine, &engine_config, eb);
    if (e != ERR_OK)
        goto out;
    a.residency = (struct residency){.engine = a.engine,
                                     .catalogue = config->catalogue,
                                     .build = config->build,
                                     .gangs = &config->gangs,
                                     .notify = agent_wake,
                                     .notify_arg = &a};
    struct session_config session_config = {.endpoint = config->coordinator,
                                            .node = config->node,
                                            .key = config->key,
                                            .coordinator_key = config->coordinator_key,
                                            .ops = &agent_session_ops,
                                            .ops_arg = &a,
                                            .wake_fd = a.wake_fd};
    e = session_open(&a.session, &session_config, eb);
    if (e != ERR_OK)
        goto out;
    device_wake(config->device, a.wake_fd);
    log_info("worker %s: device %s, %s kernels, %zu models, coordinator %s", config->node,
             device_name(config->device), engine_isa_name(a.engine), config->catalogue->count,
             config->coordinator.url);
    notify_state("READY=1");
    while (!a.stopping || (!session_said_goodbye(a.session) && clock_mono_ms() < a.stop_at_ms))
        agent_turn(&a, eb);
    if (a.lost)
        e = ERR_LOST;
out:
    device_wake(config->device, -1);
    session_close(a.session);
    if (e != ERR_LOST) {
        engine_close(a.engine);
        if (a.engine != NULL)
            residency_fini(&a.residency);
    }
    lease_table_fini(&a.leases);
    spaces_fini(&a.spaces);
    const int fds[] = {a.epoll_fd, a.wake_fd, a.signal_fd, a.timer_fd};
    for (size_t i = 0; i < 4; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return e;
}
