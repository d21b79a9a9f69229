/*
 * sim_coordinator.c - the coordinator of the simulation: what the loop does with threads and a
 * disk, done here with events, and a crash before or after any commit.
 */
#include "tests/sim/sim.h"

#include "common/check.h"
#include "coordinator/loop_apply.h"
#include "coordinator/loop_fill.h"
#include "coordinator/loop_prepare.h"
#include "coordinator/loop_restore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void turn_reset(struct sim_turn *t)
{
    arena_reset(&t->arena);
    core_effects_init(&t->effects, &t->arena);
    t->n_events = 0;
}

static void ledger_reopen(struct sim *s)
{
    struct errbuf eb = {{0}};
    struct ledger_config config = {
        .origin = "sim/ledger", .key = s->key, .checkpoint_path = s->checkpoint_path};
    ledger_close(s->ledger);
    s->ledger = NULL;
    if (ledger_open(&s->ledger, s->store, &config, &eb) != ERR_OK)
        sim_fail(s, "ledger does not open again: %s", eb.text);
}

static struct core *core_again(struct sim *s)
{
    struct errbuf eb = {{0}};
    struct core *core = NULL;
    uint64_t jobs;
    if (restore_core(s->store, s->ledger, &s->config, s->boot_epoch, s->now_ns,
                     s->wall_base_ns + s->now_ns, &core, &jobs, &eb) != ERR_OK)
        sim_fail(s, "restore: %s", eb.text);
    return core;
}

static void cores_restore(struct sim *s)
{
    s->restores++;
    s->core = core_again(s);
    s->shadow = core_again(s);
    for (int i = 0; i < 2; i++)
        turn_reset(&s->turns[i]);
    turn_reset(&s->shadow_turn);
    s->gathering = &s->turns[0];
    s->committing = NULL;
    s->turn_set = false;
    if (s->core != NULL && s->shadow != NULL &&
        core_state_hash(s->core) != core_state_hash(s->shadow))
        sim_fail(s, "two restores of one store differ");
}

static void cores_free(struct sim *s)
{
    core_free(s->core);
    core_free(s->shadow);
    s->core = s->shadow = NULL;
    s->incarnation++;
}

static void boot(struct sim *s)
{
    struct errbuf eb = {{0}};
    ledger_reopen(s);
    if (s->failure[0] == '\0' &&
        restore_boot(s->store, s->ledger, "sim", s->key, s->now_ns, s->wall_base_ns + s->now_ns,
                     &s->boot_epoch, &eb) != ERR_OK)
        sim_fail(s, "boot: %s", eb.text);
    if (s->failure[0] == '\0')
        cores_restore(s);
}

void coordinator_open(struct sim *s)
{
    core_config_defaults(&s->config);
    s->config.node = "sim";
    s->config.heartbeat_ms = 200;
    s->config.lease_ms = 2000;
    s->config.grace_ms = 3000;
    s->config.residency_ms = 2000;
    s->config.load_retry_ms = 1000;
    s->config.disconnect_ms = 5000;
    s->config.gang_split = (enum core_gang_split)sim_below(s, 4);
    s->config.worker_leases_max = 1 + (uint32_t)sim_below(s, 8);
    s->config.retain_ended_jobs = 1000;
    s->tenants[0] =
        (struct core_tenant_config){.name = "tight", .budget_tokens = 200 + sim_below(s, 2000)};
    s->config.tenants = s->tenants;
    s->config.n_tenants = 1;
    CHECK(crypto_key_new(&s->key, NULL) == ERR_OK);
    crypto_key_public(s->key, s->config.public_key);
    CHECK(store_open_mem(&s->store, NULL) == ERR_OK);
    (void)snprintf(s->checkpoint_path, sizeof s->checkpoint_path, "/tmp/cloister-sim-%d-%llx",
                   (int)getpid(), (unsigned long long)s->seed);
    for (int i = 0; i < 2; i++)
        arena_init(&s->turns[i].arena, SIZE_MAX / 4);
    arena_init(&s->shadow_turn.arena, SIZE_MAX / 4);
    boot(s);
}

void coordinator_close(struct sim *s)
{
    core_free(s->core);
    core_free(s->shadow);
    ledger_close(s->ledger);
    store_close(s->store);
    crypto_key_free(s->key);
    for (int i = 0; i < 2; i++)
        arena_fini(&s->turns[i].arena);
    arena_fini(&s->shadow_turn.arena);
    (void)unlink(s->checkpoint_path);
}

/* ---- replies ---- */

static void reply_post(struct sim *s, struct sim_pending *p, const struct wire_reply *reply)
{
    struct errbuf eb = {{0}};
    struct buf bytes;
    buf_init(&bytes);
    if (wire_reply_encode(reply, &bytes, &eb) != ERR_OK)
        sim_fail(s, "a reply of kind %d does not pack: %s", reply->kind, eb.text);
    if (!sim_chance(s, s->faults.lost)) {
        struct sim_event e = {
            .kind = SIM_REPLY, .actor = p->actor, .slot = p->slot, .number = p->number};
        e.bytes = malloc(bytes.size + 1);
        CHECK(e.bytes != NULL);
        memcpy(e.bytes, bytes.data, bytes.size);
        e.size = bytes.size;
        sim_post(s, 100000 + sim_below(s, 3 * SIM_MS), e);
    }
    buf_fini(&bytes);
    p->used = false;
}

static void replies_send(struct sim *s, struct sim_turn *turn)
{
    struct fill_context context = {
        .store = s->store, .ledger = s->ledger, .key = s->key, .origin = "sim/ledger"};
    struct store_txn *txn;
    CHECK(store_begin(s->store, false, &txn, NULL) == ERR_OK);
    for (struct core_effect *e = turn->effects.first; e != NULL; e = e->next) {
        struct errbuf eb = {{0}};
        if (e->kind != CORE_EFFECT_REPLY)
            continue;
        struct sim_pending *p = &s->pending[e->reply.tag];
        if (!p->used || id_compare(&p->request_id, &e->reply.reply.request_id) != 0) {
            sim_fail(s, "a request was answered twice");
            break;
        }
        if (fill_reply(&context, txn, e, &turn->arena, &eb) != ERR_OK) {
            sim_fail(s, "a reply could not be completed: %s", eb.text);
            break;
        }
        reply_post(s, p, &e->reply.reply);
    }
    store_abort(txn);
    turn_reset(turn);
}

static void pending_fail(struct sim *s, enum err code)
{
    for (size_t i = 0; i < sizeof s->pending / sizeof s->pending[0]; i++) {
        struct sim_pending *p = &s->pending[i];
        struct wire_reply reply = {.session = p->session,
                                   .request_id = p->request_id,
                                   .kind = WIRE_REPLY_ERROR,
                                   .error = {.code = (uint32_t)code, .text = "storing failed"}};
        if (p->used)
            reply_post(s, p, &reply);
    }
}

/* ---- events ---- */

/* The shadow gets the same event from its own copy of everything, and its effects are dropped. */
static void shadow_step(struct sim *s, const struct core_event *event, const void *bytes,
                        size_t size)
{
    struct core_event again = *event;
    if (event->kind == CORE_EVENT_REQUEST) {
        struct errbuf eb = {{0}};
        struct wire_request *request = arena_alloc(&s->shadow_turn.arena, sizeof *request);
        CHECK(request != NULL);
        CHECK(prepare_request(s->shadow, bytes, size, &s->shadow_turn.arena, request, &again,
                              &eb) == ERR_OK);
        again.mono_ns = event->mono_ns;
        again.wall_ns = event->wall_ns;
        again.held_back = event->held_back;
        again.tag = event->tag;
        memcpy(again.random, event->random, sizeof again.random);
    }
    core_step(s->shadow, &again, &s->shadow_turn.effects);
}

static void step(struct sim *s, struct core_event *event, const void *bytes, size_t size)
{
    event->mono_ns = s->now_ns;
    event->held_back =
        s->committing != NULL && s->now_ns - s->commit_ns > s->config.lease_ms * SIM_MS / 8;
    event->wall_ns = s->wall_base_ns + s->now_ns;
    core_step(s->core, event, &s->gathering->effects);
    s->gathering->n_events++;
    shadow_step(s, event, bytes, size);
}

static void step_plain(struct sim *s, enum core_event_kind kind, const char *reason)
{
    struct core_event event = {.kind = kind, .reason = reason, .code = ERR_NO_SPACE};
    step(s, &event, NULL, 0);
}

static void turn_schedule(struct sim *s)
{
    if (s->turn_set || s->committing != NULL)
        return;
    s->turn_set = true;
    sim_post(s, sim_below(s, 2 * SIM_MS),
             (struct sim_event){.kind = SIM_TURN, .number = s->incarnation});
}

void coordinator_request(struct sim *s, const struct sim_event *e)
{
    struct errbuf eb = {{0}};
    struct core_event event;
    struct sim_pending *p = NULL;
    size_t tag;
    if (s->core == NULL)
        return; /* nobody listens */
    for (tag = 1; tag < sizeof s->pending / sizeof s->pending[0] && p == NULL; tag++)
        p = s->pending[tag].used ? NULL : &s->pending[tag];
    CHECK(p != NULL);
    tag--;
    struct wire_request *request = arena_alloc(&s->gathering->arena, sizeof *request);
    CHECK(request != NULL);
    enum err err =
        prepare_request(s->core, e->bytes, e->size, &s->gathering->arena, request, &event, &eb);
    if (err != ERR_OK) {
        sim_fail(s, "a request does not decode: %s", eb.text);
        return;
    }
    *p = (struct sim_pending){.used = true,
                              .actor = e->actor,
                              .slot = e->slot,
                              .number = e->number,
                              .session = request->session,
                              .request_id = request->request_id};
    event.tag = tag;
    for (size_t i = 0; i < sizeof event.random / sizeof event.random[0]; i++)
        event.random[i] = sim_random(s);
    step(s, &event, e->bytes, e->size);
    turn_schedule(s);
}

uint64_t coordinator_tick_ns(const struct sim *s)
{
    if (s->core == NULL)
        return UINT64_MAX;
    return core_next_ms(s->core) * SIM_MS;
}

void coordinator_tick(struct sim *s)
{
    step_plain(s, CORE_EVENT_TICK, NULL);
    turn_schedule(s);
}

/* ---- turns, commits, crashes ---- */

static void crash(struct sim *s)
{
    s->crashes++;
    cores_free(s);
    memset(s->pending, 0, sizeof s->pending);
    sim_post(s, (10 + sim_below(s, 4000)) * SIM_MS, (struct sim_event){.kind = SIM_RESTART});
}

void coordinator_restart(struct sim *s)
{
    boot(s);
}

void coordinator_turn(struct sim *s)
{
    struct sim_turn *turn = s->gathering;
    s->turn_set = false;
    if (s->committing != NULL)
        return;
    step_plain(s, CORE_EVENT_TURN_END, NULL);
    if (turn->effects.n_persist != s->shadow_turn.effects.n_persist ||
        turn->effects.n_replies != s->shadow_turn.effects.n_replies ||
        core_state_hash(s->core) != core_state_hash(s->shadow))
        sim_fail(s, "the same events led to two states");
    turn_reset(&s->shadow_turn);
    check_effects(s, &turn->effects);
    if (turn->effects.n_persist == 0) {
        replies_send(s, turn);
        return;
    }
    s->committing = turn;
    s->gathering = turn == &s->turns[0] ? &s->turns[1] : &s->turns[0];
    /* Now and then for longer than a lease. */
    uint64_t takes_ms = sim_chance(s, s->faults.slow) ? sim_below(s, 3 * s->config.lease_ms) : 1;
    s->commit_ns = s->now_ns;
    sim_post(s, takes_ms * SIM_MS + sim_below(s, 15 * SIM_MS),
             (struct sim_event){.kind = SIM_COMMITTED, .number = s->incarnation});
}

static void no_space(struct sim *s)
{
    s->freezes++;
    pending_fail(s, ERR_NO_SPACE);
    cores_free(s);
    ledger_reopen(s);
    if (s->failure[0] != '\0')
        return;
    cores_restore(s);
    step_plain(s, CORE_EVENT_FREEZE, "the simulated disk is full");
    turn_schedule(s);
    sim_post(s, (100 + sim_below(s, 3000)) * SIM_MS,
             (struct sim_event){.kind = SIM_SPACE, .number = s->incarnation});
}

void coordinator_space(struct sim *s)
{
    step_plain(s, CORE_EVENT_UNFREEZE, NULL);
    turn_schedule(s);
}

void coordinator_committed(struct sim *s)
{
    struct errbuf eb = {{0}};
    struct sim_turn *turn = s->committing;
    if (sim_chance(s, s->faults.crash_before)) {
        crash(s);
        return;
    }
    if (sim_chance(s, s->faults.no_space)) {
        no_space(s);
        return;
    }
    if (apply_effects(s->store, s->ledger, &turn->effects, NULL, &eb) != ERR_OK) {
        sim_fail(s, "commit: %s", eb.text);
        return;
    }
    s->commits++;
    s->committing = NULL;
    if (sim_chance(s, s->faults.crash_after)) {
        crash(s);
        return;
    }
    replies_send(s, turn);
    if (s->gathering->n_events > 0)
        turn_schedule(s);
}
