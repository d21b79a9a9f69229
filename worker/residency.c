#include "worker/residency.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdio.h>

static void model_failed(struct catalogue_model *m, const char *text)
{
    m->state = WIRE_MODEL_STATE_FAILED;
    m->weights_bytes = m->kv_bytes = m->scratch_bytes = 0;
    m->failures++;
    (void)snprintf(m->error, sizeof m->error, "%s", text);
    log_error("model %s: %s", m->name, text);
}

void residency_load(struct engine *engine, struct catalogue *c, struct catalogue_model *m)
{
    struct errbuf eb = {{0}};

    m->load_again = m->unloading;
    if (m->state == WIRE_MODEL_STATE_LOADING || m->state == WIRE_MODEL_STATE_READY)
        return;
    if (engine_load(engine, (uint32_t)(m - c->models), &m->config, &eb) != ERR_OK) {
        model_failed(m, eb.text);
        return;
    }
    m->state = WIRE_MODEL_STATE_LOADING;
    log_info("loading model %s", m->name);
}

void residency_unload(struct engine *engine, struct catalogue *c, struct catalogue_model *m)
{
    struct errbuf eb = {{0}};

    m->load_again = false;
    if (m->unloading ||
        (m->state != WIRE_MODEL_STATE_LOADING && m->state != WIRE_MODEL_STATE_READY))
        return;
    if (engine_unload(engine, (uint32_t)(m - c->models), &eb) != ERR_OK)
        log_warn("model %s: %s", m->name,
                 eb.text); /* its load has failed: the event is under way */
    else
        m->unloading = true;
}

static void model_ready(struct catalogue_model *m, const struct engine_event *ev)
{
    m->failures = 0;
    if (m->unloading) /* the load was quicker; nobody is to count on it any more */
        return;
    m->state = WIRE_MODEL_STATE_READY;
    m->weights_bytes = ev->weights_bytes;
    m->kv_bytes = ev->kv_bytes;
    m->scratch_bytes = ev->scratch_bytes;
    m->load_ms = ev->load_ms;
    log_info("model %s ready after %" PRIu64 " ms: weights %.1f MB, KV %.1f MB, scratch %.1f MB",
             m->name, ev->load_ms, (double)ev->weights_bytes / 1e6, (double)ev->kv_bytes / 1e6,
             (double)ev->scratch_bytes / 1e6);
}

static void model_gone(struct catalogue_model *m)
{
    m->state = WIRE_MODEL_STATE_AVAILABLE;
    m->weights_bytes = m->kv_bytes = m->scratch_bytes = 0;
    log_info("model %s unloaded", m->name);
}

void residency_event(struct engine *engine, struct catalogue *c, const struct engine_event *ev)
{
    struct catalogue_model *m = &c->models[ev->model_id];

    if (ev->kind == ENGINE_EVENT_MODEL_READY) {
        model_ready(m, ev);
        return;
    }
    if (ev->kind == ENGINE_EVENT_MODEL_FAILED)
        model_failed(m, ev->error_text);
    else
        model_gone(m);
    m->unloading = false;
    if (m->load_again)
        residency_load(engine, c, m);
}
