#include "worker/residency.h"

#include "common/log.h"

#include <inttypes.h>
#include <stdio.h>

static bool is_there(const struct catalogue_model *m)
{
    return m->state == WIRE_MODEL_STATE_LOADING || m->state == WIRE_MODEL_STATE_READY;
}

/* Nothing of it is in the engine any more. */
static void model_out(struct catalogue_model *m, enum wire_model_state state, const char *error)
{
    m->state = state;
    m->weights_bytes = m->kv_bytes = m->scratch_bytes = m->exchange_bytes = 0;
    (void)snprintf(m->error, sizeof m->error, "%s", error);
    rendezvous_close(m->rendezvous);
    m->rendezvous = NULL;
    if (state == WIRE_MODEL_STATE_AVAILABLE)
        m->place = (struct gang_place){0};
}

static void model_failed(struct catalogue_model *m, const char *text)
{
    model_out(m, WIRE_MODEL_STATE_FAILED, text);
    m->failures++;
    log_error("model %s: %s", m->name, text);
}

static void model_lost(struct catalogue_model *m, const char *text)
{
    char gang[GANG_TEXT_BYTES];

    log_warn("model %s: gang %s with %s has ended: %s", m->name, gang_text(m->place.gang, gang),
             m->place.with, text);
    model_out(m, WIRE_MODEL_STATE_AVAILABLE, text);
}

static void model_gone(struct catalogue_model *m)
{
    char gang[GANG_TEXT_BYTES];

    if (m->place.gang != 0)
        log_info("model %s: rank %u has left gang %s", m->name, m->place.rank,
                 gang_text(m->place.gang, gang));
    else
        log_info("model %s unloaded", m->name);
    model_out(m, WIRE_MODEL_STATE_AVAILABLE, "");
}

const struct gang_place *residency_place(const struct catalogue_model *m)
{
    return m->state == WIRE_MODEL_STATE_AVAILABLE ? &m->asked : &m->place;
}

/* ---- in ---- */

static enum err share_load(struct residency *r, struct catalogue_model *m, struct errbuf *eb)
{
    struct engine_model_config config = m->config;
    struct gang_config gang;
    enum err e = ERR_OK;

    if (m->offer.gang_settings[0] == '\0')
        return err_set(eb, ERR_UNSUPPORTED, "this worker computes whole models only");
    e = gang_offer_covers(r->gangs, m->place.transport, m->place.control, eb);
    if (e != ERR_OK)
        return e;
    gang_place_apply(&m->place, r->build, r->gangs, &config, &gang);
    if (gang_place_meets_over(&m->place) == COLL_TRANSPORT_UCX) {
        e = rendezvous_open(&m->rendezvous, m->place.rank, m->place.n_ranks, r->notify,
                            r->notify_arg, eb);
        if (e != ERR_OK)
            return e;
        gang.coll.rendezvous = rendezvous_of(m->rendezvous);
    }
    return engine_load(r->engine, (uint32_t)(m - r->catalogue->models), &config, eb);
}

static void model_start(struct residency *r, struct catalogue_model *m,
                        const struct gang_place *place)
{
    char gang[GANG_TEXT_BYTES], shares[GANG_SHARES_TEXT_BYTES];
    struct errbuf eb = {{0}};
    enum err e;

    m->place = *place;
    m->error[0] = '\0';
    if (place->gang != 0) {
        log_info("model %s: rank %u of %u of gang %s with %s over %s, stages %u, shards %u, %s",
                 m->name, place->rank, place->n_ranks, gang_text(place->gang, gang), place->with,
                 coll_transport_name(place->transport), place->stages,
                 place->n_ranks / place->stages, gang_shares_text(place, shares));
        e = share_load(r, m, &eb);
    } else {
        log_info("loading model %s", m->name);
        e = engine_load(r->engine, (uint32_t)(m - r->catalogue->models), &m->config, &eb);
    }
    if (e == ERR_OK)
        m->state = WIRE_MODEL_STATE_LOADING;
    else
        model_failed(m, eb.text);
}

/* Where the engine says that there is no such model its load has failed, or its gang has ended, and
 * that event is under way: it is on its way out all the same. */
static void model_leave(struct residency *r, struct catalogue_model *m)
{
    struct errbuf eb = {{0}};

    if (m->unloading)
        return;
    if (engine_unload(r->engine, (uint32_t)(m - r->catalogue->models), &eb) != ERR_OK)
        log_info("model %s: %s", m->name, eb.text);
    m->unloading = true;
}

void residency_load(struct residency *r, struct catalogue_model *m, const struct gang_place *place)
{
    const bool is_same = is_there(m) && gang_place_same(&m->place, place);

    if (place->gang != 0 && gang_place_same(&m->asked, place))
        return; /* said again; or over, and then it stays so */
    m->asked = *place;
    if (is_there(m) && !is_same)
        model_leave(r, m);
    m->load_again = m->unloading;
    if (m->unloading)
        m->next = *place;
    else if (!is_same)
        model_start(r, m, place);
}

/* ---- out ---- */

void residency_unload(struct residency *r, struct catalogue_model *m)
{
    m->load_again = false;
    if (is_there(m))
        model_leave(r, m);
    else if (m->state == WIRE_MODEL_STATE_AVAILABLE || m->place.gang != 0)
        model_out(m, WIRE_MODEL_STATE_AVAILABLE, "");
}

/* ---- what the engine says ---- */

static void model_ready(struct catalogue_model *m, const struct engine_event *ev)
{
    m->failures = 0;
    rendezvous_close(m->rendezvous);
    m->rendezvous = NULL;
    if (m->unloading) /* the load was quicker; nobody is to count on it any more */
        return;
    m->state = WIRE_MODEL_STATE_READY;
    m->weights_bytes = ev->weights_bytes;
    m->kv_bytes = ev->kv_bytes;
    m->scratch_bytes = ev->scratch_bytes;
    m->exchange_bytes = ev->exchange_bytes;
    m->load_ms = ev->load_ms;
    log_info("model %s ready after %" PRIu64
             " ms: weights %.1f MB, KV %.1f MB, scratch %.1f MB, exchange %.1f MB",
             m->name, ev->load_ms, (double)ev->weights_bytes / 1e6, (double)ev->kv_bytes / 1e6,
             (double)ev->scratch_bytes / 1e6, (double)ev->exchange_bytes / 1e6);
}

void residency_event(struct residency *r, const struct engine_event *ev)
{
    struct catalogue_model *m = &r->catalogue->models[ev->model_id];

    if (ev->kind == ENGINE_EVENT_MODEL_READY) {
        model_ready(m, ev);
        return;
    }
    if (ev->kind == ENGINE_EVENT_MODEL_GONE)
        model_gone(m);
    else if (m->place.gang == 0 || !gang_ended_elsewhere(ev->error))
        model_failed(m, ev->error_text);
    else if (m->unloading)
        model_gone(m); /* it was told to go anyway */
    else
        model_lost(m, ev->error_text);
    m->unloading = false;
    if (m->load_again) {
        m->load_again = false;
        model_start(r, m, &m->next);
    }
}

/* ---- meeting over ucx ---- */

void residency_meet(struct catalogue_model *m, const struct wire_command_meet *meet)
{
    char gang[GANG_TEXT_BYTES];
    struct errbuf eb = {{0}};

    if (m->rendezvous == NULL || m->place.gang != meet->gang)
        (void)err_set(&eb, ERR_STALE, "it is not met from here");
    else if (rendezvous_meet(m->rendezvous, meet->addresses, meet->n_addresses, &eb) == ERR_OK)
        return;
    log_info("model %s: addresses of gang %s are passed over: %s", m->name,
             gang_text(meet->gang, gang), eb.text);
}

bool residency_has_news(struct residency *r)
{
    bool has_news = false;
    for (size_t i = 0; i < r->catalogue->count; i++) {
        struct rendezvous *rendezvous = r->catalogue->models[i].rendezvous;
        if (rendezvous != NULL && rendezvous_has_news(rendezvous))
            has_news = true;
    }
    return has_news;
}

size_t residency_addresses(struct residency *r, struct wire_gang_address *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < r->catalogue->count; i++) {
        const struct catalogue_model *m = &r->catalogue->models[i];
        struct wire_bytes mine;
        if (m->rendezvous != NULL && rendezvous_says(m->rendezvous, &mine))
            ret[n++] = (struct wire_gang_address){
                .gang = m->place.gang, .rank = m->place.rank, .address = mine};
    }
    return n;
}

void residency_fini(struct residency *r)
{
    for (size_t i = 0; i < r->catalogue->count; i++) {
        rendezvous_close(r->catalogue->models[i].rendezvous);
        r->catalogue->models[i].rendezvous = NULL;
    }
}
