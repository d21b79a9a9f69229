#include "worker/gang_place.h"

#include "common/check.h"
#include "common/gang_number.h"
#include "worker/gang_offer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* They only bound what hangs: a rank that is gone is known at once. */
#define MEET_MS      30000u
#define MEET_NCCL_MS 120000u /* it finds out how the machine is wired, and loads its kernels */
#define LOAD_MS      3600000u
#define WAIT_MS      10000u

static const enum coll_transport transport_of[] = {
    [WIRE_GANG_TRANSPORT_SHM] = COLL_TRANSPORT_SHM,
    [WIRE_GANG_TRANSPORT_UCX] = COLL_TRANSPORT_UCX,
    [WIRE_GANG_TRANSPORT_NCCL] = COLL_TRANSPORT_NCCL,
};

bool gang_place_same(const struct gang_place *a, const struct gang_place *z)
{
    return a->gang == z->gang && memcmp(a->group, z->group, sizeof a->group) == 0;
}

void gang_place_of(const struct wire_gang_place *from, struct gang_place *ret_place)
{
    struct gang_place p = {.gang = from->gang};

    if (from->gang != 0) {
        CHECK(from->n_members <= SHARD_RANKS_MAX);
        p.rank = from->rank;
        p.n_ranks = (uint32_t)from->n_members;
        p.stages = from->stages;
        p.transport = transport_of[from->transport];
        p.control = transport_of[from->control];
        memcpy(p.group, from->group, sizeof p.group);
        (void)snprintf(p.leader, sizeof p.leader, "%s", from->members[0].worker);
        size_t at = 0;
        for (uint32_t k = 0; k < p.n_ranks; k++) {
            p.weights[k] = from->members[k].weight;
            if (at < sizeof p.with)
                at += (size_t)snprintf(p.with + at, sizeof p.with - at, "%s%s", k > 0 ? ", " : "",
                                       from->members[k].worker);
        }
    }
    *ret_place = p;
}

void gang_place_apply(const struct gang_place *place, const char *build,
                      const struct gang_offer *offer, struct engine_model_config *model,
                      struct gang_config *ret_gang)
{
    const bool is_nccl = place->transport == COLL_TRANSPORT_NCCL;

    *ret_gang = (struct gang_config){
        .coll = {.transport = place->transport,
                 .control = place->control,
                 .epoch = place->gang,
                 .rank = place->rank,
                 .n_ranks = place->n_ranks,
                 .build = build},
        .meet_ms = is_nccl ? MEET_NCCL_MS : MEET_MS,
        .load_ms = LOAD_MS,
        .wait_ms = WAIT_MS,
        .nccl_bytes = is_nccl ? offer->nccl_bytes : 0,
    };
    memcpy(ret_gang->coll.group, place->group, sizeof ret_gang->coll.group);
    memcpy(ret_gang->coll.host, offer->host, sizeof ret_gang->coll.host);
    model->shard = (struct shard_request){.shards = place->n_ranks / place->stages,
                                          .stages = place->stages,
                                          .n_weights = place->n_ranks};
    memcpy(model->shard.weights, place->weights, sizeof model->shard.weights);
    model->rank = place->rank;
    model->gang = ret_gang;
}

enum coll_transport gang_place_meets_over(const struct gang_place *place)
{
    return place->transport == COLL_TRANSPORT_NCCL ? place->control : place->transport;
}

bool gang_ended_elsewhere(enum err e)
{
    return e == ERR_UNAVAILABLE || e == ERR_TIMEOUT || e == ERR_CANCELLED || e == ERR_STALE;
}

const char *gang_shares_text(const struct gang_place *place, char ret_text[GANG_SHARES_TEXT_BYTES])
{
    double sum = 0;
    bool is_even = true;
    size_t at = 0;

    for (uint32_t k = 0; k < place->n_ranks; k++) {
        sum += (double)place->weights[k];
        is_even = is_even && place->weights[k] == place->weights[0];
    }
    (void)snprintf(ret_text, GANG_SHARES_TEXT_BYTES, "even shares");
    for (uint32_t k = 0; k < place->n_ranks && !is_even; k++)
        at += (size_t)snprintf(ret_text + at, GANG_SHARES_TEXT_BYTES - at, "%s%.0f %%",
                               k > 0 ? ", " : "shares ", (double)place->weights[k] * 100 / sum);
    return ret_text;
}

const char *gang_text(uint64_t gang, char ret_text[GANG_TEXT_BYTES])
{
    (void)snprintf(ret_text, GANG_TEXT_BYTES, GANG_NUMBER, GANG_NUMBER_ARGS(gang));
    return ret_text;
}
