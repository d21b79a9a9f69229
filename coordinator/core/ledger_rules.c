/*
 * ledger_rules.c - what a job owes: RESERVE when it is accepted, and exactly one of SETTLE, VOID
 * and EXPIRE when it ends; and METER, what a device's energy counter said. Who pays for what is a
 * row of the policy table below; a change of the table is a new LEDGER_POLICY_ID.
 *
 * Policy 1: what was delivered is owed, also when the tenant cancelled or its deadline passed;
 * what the cluster failed at is not, though the record still says what was computed.
 */
#include "common/date.h"
#include "coordinator/core/state.h"

static const struct ledger_rule policy[] = {
    /* outcome                   computed  kind                   prompt  completion */
    {WIRE_JOB_STATE_DONE, true, RECORD_LEDGER_SETTLE, true, true},
    {WIRE_JOB_STATE_DONE, false, RECORD_LEDGER_SETTLE, true, true},
    {WIRE_JOB_STATE_CANCELLED, true, RECORD_LEDGER_SETTLE, true, true},
    {WIRE_JOB_STATE_CANCELLED, false, RECORD_LEDGER_VOID, false, false},
    {WIRE_JOB_STATE_EXPIRED, true, RECORD_LEDGER_SETTLE, true, true},
    {WIRE_JOB_STATE_EXPIRED, false, RECORD_LEDGER_EXPIRE, false, false},
    {WIRE_JOB_STATE_FAILED, true, RECORD_LEDGER_SETTLE, false, false},
    {WIRE_JOB_STATE_FAILED, false, RECORD_LEDGER_VOID, false, false},
    {WIRE_JOB_STATE_REJECTED, true, RECORD_LEDGER_SETTLE, false, false},
    {WIRE_JOB_STATE_REJECTED, false, RECORD_LEDGER_VOID, false, false},
};

const struct ledger_rule *ledger_rule_for(enum wire_job_state outcome, bool computed)
{
    for (size_t i = 0; i < sizeof policy / sizeof policy[0]; i++) {
        if (policy[i].outcome == outcome && policy[i].computed == computed)
            return &policy[i];
    }
    return NULL;
}

static struct record_ledger *record_add(struct core *c, const struct core_job *j,
                                        enum record_ledger_kind kind, struct core_effects *fx)
{
    struct core_effect *e = effect_add(fx, CORE_EFFECT_LEDGER);
    e->job_id = j->id;
    struct record_ledger *r = &e->ledger;
    const struct core_owner *o = j->owner;
    const struct record_learned *file = &j->model->learned;

    *r = (struct record_ledger){.kind = kind,
                                .seq = c->ledger_size++,
                                .node = c->config->node,
                                .boot_epoch = c->boot_epoch,
                                .wall_ns = c->wall_ns,
                                .mono_ns = c->mono_ns,
                                .job_id = j->id,
                                .attempt = j->attempts,
                                .tenant = o->tenant->name,
                                .project = o->project,
                                .cost_center = o->cost_center,
                                .principal = o->principal,
                                .model = j->model->name,
                                .engine_build = "",
                                .quantization = j->model->known ? file->quantization : "",
                                .worker = j->worker,
                                .shards = j->attempts > 0 ? 1 : 0,
                                .max_tokens = j->max_tokens,
                                .reserved_tokens = job_reserved_tokens(j)};
    memcpy(r->key_fingerprint, o->key_fingerprint, sizeof r->key_fingerprint);
    memcpy(r->weights_digest, file->weights_digest, sizeof r->weights_digest);
    memcpy(r->tokenizer_digest, file->tokenizer_digest, sizeof r->tokenizer_digest);
    return r;
}

void ledger_reserve(struct core *c, struct core_job *j, struct core_effects *fx)
{
    struct record_ledger *r = record_add(c, j, RECORD_LEDGER_RESERVE, fx);
    j->reserve_seq = r->seq + 1;
    j->owner->tenant->reserved_tokens += r->reserved_tokens;
    tenant_touch(c, j->owner->tenant);
}

void ledger_finish(struct core *c, struct core_job *j, struct core_effects *fx)
{
    struct core_tenant *t = j->owner->tenant;
    bool computed = j->prompt_tokens > 0 || j->tokens > 0;
    const struct ledger_rule *rule = ledger_rule_for((enum wire_job_state)j->state, computed);
    CHECK(rule != NULL && j->reserve_seq > 0 && j->settle_seq == 0);

    struct record_ledger *r = record_add(c, j, rule->kind, fx);
    const struct core_worker *w = j->worker[0] != '\0' ? worker_find(c, j->worker) : NULL;
    r->reserve_seq = j->reserve_seq;
    r->engine_build = w != NULL ? w->build : "";
    r->count_source = RECORD_COUNT_SOURCE_ENGINE;
    r->prompt_tokens = j->prompt_tokens;
    r->prompt_cached = j->prompt_cached;
    r->prompt_computed = j->prompt_computed;
    r->completion_computed = j->computed_tokens;
    r->completion_delivered = j->tokens;
    r->completion_billable = rule->bill_completion ? j->tokens : 0;
    r->policy_id = LEDGER_POLICY_ID;
    r->finish = j->finish;
    r->outcome = j->state;
    r->queue_us = j->queue_us;
    r->prefill_us = j->prefill_us;
    r->decode_us = j->decode_us;
    j->settle_seq = r->seq + 1;

    uint64_t prompt_billable = rule->bill_prompt ? j->prompt_tokens : 0;
    CHECK(t->reserved_tokens >= job_reserved_tokens(j));
    t->reserved_tokens -= job_reserved_tokens(j);
    t->settled_tokens += prompt_billable + r->completion_billable;
    tenant_touch(c, t);

    struct core_usage *u = usage_get(c, t->name, j->model->name, date_of_wall(c->wall_ns));
    u->row.jobs++;
    u->row.prompt_tokens += prompt_billable;
    u->row.prompt_cached += rule->bill_prompt ? j->prompt_cached : 0;
    u->row.completion_tokens += r->completion_billable;
    u->row.computed_tokens += j->computed_tokens;
    usage_touch(c, u);
}

/* The counter as it stands, like the reading of a meter: what was used between two records is their
 * difference, whoever was down in between. */
void ledger_meter(struct core *c, struct core_worker *w, struct core_effects *fx)
{
    if (c->config->energy_ms == 0 || (w->gpu.known & WIRE_GPU_KNOWN_ENERGY) == 0 ||
        w->gpu.uuid[0] == '\0' ||
        (w->metered_ms != 0 && c->now_ms < w->metered_ms + c->config->energy_ms))
        return;
    struct core_effect *e = effect_add(fx, CORE_EFFECT_LEDGER);
    e->ledger = (struct record_ledger){.kind = RECORD_LEDGER_METER,
                                       .seq = c->ledger_size++,
                                       .node = c->config->node,
                                       .boot_epoch = c->boot_epoch,
                                       .wall_ns = c->wall_ns,
                                       .mono_ns = c->mono_ns,
                                       .tenant = "",
                                       .project = "",
                                       .cost_center = "",
                                       .principal = "",
                                       .model = "",
                                       .engine_build = w->build,
                                       .quantization = "",
                                       .worker = w->name,
                                       .device = w->gpu.uuid,
                                       .energy_mj = w->gpu.energy_mj};
    w->metered_ms = c->now_ms;
}

uint64_t core_ledger_prompt_billable(const struct record_ledger *r)
{
    bool computed = r->prompt_tokens > 0 || r->completion_delivered > 0;
    const struct ledger_rule *rule = ledger_rule_for((enum wire_job_state)r->outcome, computed);
    return rule != NULL && rule->bill_prompt && r->kind == rule->kind ? r->prompt_tokens : 0;
}
