/*
 * sim_models.c - the models of a simulated worker. Two are too large to be there at once; the third
 * is too large for any worker: two that are empty, or three, have it together, over shared memory
 * or, where they have GPUs, over NCCL, which takes memory of its own and fails now and then.
 */
#include "tests/sim/sim_worker.h"

#include "common/buf.h"
#include "common/check.h"
#include "tests/sim/even_shape.h"

#include <stdio.h>
#include <string.h>

#define GB         (1ull << 30)
#define CAPACITY   (8 * GB)
#define RANK_BYTES (GB / 64)
#define MEET_MS    5000u
#define LOST_MS    600u /* until a rank that is gone is noticed */

static const uint64_t weights[SIM_MODELS] = {5 * GB, 5 * GB, 12 * GB};

static uint64_t share_bytes(uint32_t model, const struct wire_gang_place *place)
{
    struct shard_request request = {.shards = (uint32_t)place->n_members / place->stages,
                                    .stages = place->stages,
                                    .n_weights = (uint32_t)place->n_members};
    struct shard_shape shape;
    struct shard_cut *cut;
    for (size_t r = 0; r < place->n_members; r++)
        request.weights[r] = place->members[r].weight;
    even_shape_make(&shape);
    CHECK(shard_cut_new(&cut, &shape, &request, NULL) == ERR_OK);
    uint64_t bytes = shard_in_proportion(
        weights[model], shard_cut_weights(&shape, cut, place->rank), shard_shape_weights(&shape));
    shard_cut_free(cut);
    shard_shape_fini(&shape);
    if (place->transport == WIRE_GANG_TRANSPORT_NCCL)
        bytes += SIM_NCCL_BYTES * shard_rank_groups(request.shards, request.stages, place->rank);
    return bytes + RANK_BYTES;
}

static void model_drop(struct sim_worker *w, uint32_t i, const char *error)
{
    struct sim_model *m = &w->models[i];
    *m = (struct sim_model){.state = WIRE_MODEL_STATE_AVAILABLE, .last = m->last};
    (void)snprintf(m->error, sizeof m->error, "%s", error);
}

void models_reset(struct sim_worker *w)
{
    for (uint32_t i = 0; i < SIM_MODELS; i++)
        w->models[i] = (struct sim_model){.state = WIRE_MODEL_STATE_AVAILABLE};
}

struct wire_memory models_memory(const struct sim_worker *w)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < SIM_MODELS; i++)
        used += w->models[i].state == WIRE_MODEL_STATE_READY ? w->models[i].bytes : 0;
    return (struct wire_memory){
        .total_bytes = CAPACITY, .free_bytes = CAPACITY - used, .used_bytes = used};
}

void models_offer(struct wire_model_offer *ret_offers)
{
    static struct buf packed;
    buf_fini(&packed);
    even_shape_pack(&packed);
    for (uint32_t i = 0; i < SIM_MODELS; i++) {
        ret_offers[i] = (struct wire_model_offer){.name = sim_model_names[i],
                                                  .architecture = "sim",
                                                  .quantization = "Q8_0",
                                                  .file_bytes = weights[i],
                                                  .context_tokens = 512,
                                                  .weights_bytes = weights[i],
                                                  .chat_template = "",
                                                  .prompt_tokens_per_job = 64,
                                                  .prompt_tokens_per_message = 16,
                                                  .prompt_tokens_per_kib = 1024,
                                                  .shape = {packed.data, packed.size},
                                                  .gang_settings = "sim",
                                                  .rank_bytes = RANK_BYTES};
        memset(ret_offers[i].weights_digest, (int)i + 1, sizeof ret_offers[i].weights_digest);
        memset(ret_offers[i].tokenizer_digest, (int)i + 1, sizeof ret_offers[i].tokenizer_digest);
    }
}

void models_status(const struct sim_worker *w, struct wire_model_status *ret_status)
{
    for (uint32_t i = 0; i < SIM_MODELS; i++) {
        const struct sim_model *m = &w->models[i];
        bool ready = m->state == WIRE_MODEL_STATE_READY;
        bool gone = m->state == WIRE_MODEL_STATE_AVAILABLE;
        ret_status[i] = (struct wire_model_status){.name = sim_model_names[i],
                                                   .state = m->state,
                                                   .error = m->error,
                                                   .weights_bytes = ready ? m->bytes : 0,
                                                   .load_ms = ready ? 300 : 0,
                                                   .decode_tokens_per_s = ready ? 100 : 0,
                                                   .gang = gone ? m->last.gang : m->gang,
                                                   .rank = gone ? m->last.rank : m->rank,
                                                   .ranks = gone ? m->last.ranks : m->ranks};
    }
}

void models_unload(struct sim_worker *w, const char *name)
{
    model_drop(w, sim_model_index(name), "");
}

static const struct sim_gpu *gpu_of(const struct sim *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_workers; i++) {
        if (strcmp(s->actors[i].name, name) == 0)
            return &s->gpus[i];
    }
    return NULL;
}

/* Each has offered it, and none shares a GPU with another. */
static void nccl_check(struct sim *s, const struct wire_gang_place *p)
{
    for (size_t r = 0; r < p->n_members; r++) {
        const struct sim_gpu *gpu = gpu_of(s, p->members[r].worker);
        if (gpu == NULL || !gpu->has_nccl)
            sim_fail(s, "%s, which has no NCCL, is rank %zu of a gang over it",
                     p->members[r].worker, r);
        for (size_t q = 0; q < r && gpu != NULL; q++) {
            const struct sim_gpu *other = gpu_of(s, p->members[q].worker);
            if (other != NULL && strcmp(other->uuid, gpu->uuid) == 0)
                sim_fail(s, "ranks %zu and %zu of a gang over NCCL are on %s", q, r, gpu->uuid);
        }
    }
    s->nccl_ranks++;
}

/* What was asked last counts. */
void models_load(struct sim *s, struct sim_actor *a, const struct wire_command_load *load)
{
    struct sim_worker *w = a->own;
    const struct wire_gang_place *p = &load->place;
    uint32_t i = sim_model_index(load->model);
    struct sim_model *m = &w->models[i];
    if (m->state != WIRE_MODEL_STATE_AVAILABLE && m->gang == p->gang)
        return;
    *m = (struct sim_model){.state = WIRE_MODEL_STATE_LOADING,
                            .bytes = p->gang != 0 ? share_bytes(i, p) : weights[i],
                            .ready_ns = s->now_ns + (100 + sim_below(s, 500)) * SIM_MS,
                            .gang = p->gang,
                            .rank = p->rank,
                            .ranks = (uint32_t)p->n_members,
                            .is_nccl = p->transport == WIRE_GANG_TRANSPORT_NCCL,
                            .last = {p->gang, p->rank, (uint32_t)p->n_members}};
    if (m->is_nccl)
        nccl_check(s, p);
    for (size_t r = 1; r < p->n_members; r++)
        s->uneven_ranks += p->members[r].weight != p->members[0].weight;
    for (size_t r = 0; r < p->n_members; r++)
        (void)snprintf(m->members[r], sizeof m->members[r], "%s", p->members[r].worker);
    if (p->gang != 0 && strcmp(m->members[p->rank], a->name) != 0)
        sim_fail(s, "%s was told to be rank %u, which is %s", a->name, p->rank,
                 m->members[p->rank]);
    if (models_memory(w).free_bytes < m->bytes)
        sim_fail(s, "%s was told to load %s with %llu bytes free", a->name, load->model,
                 (unsigned long long)models_memory(w).free_bytes);
}

static uint32_t ranks_here(const struct sim *s, const struct sim_model *m, uint32_t model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_workers; i++) {
        const struct sim_worker *w = s->actors[i].own;
        n += w->models[model].gang == m->gang;
    }
    return n;
}

static void gang_step(struct sim *s, struct sim_worker *w, uint32_t i)
{
    struct sim_model *m = &w->models[i];
    bool all = ranks_here(s, m, i) == m->ranks;
    if (!m->has_met && all && m->is_nccl && sim_chance(s, 100000)) {
        model_drop(w, i, "meeting: rank 0: NCCL: unhandled system error");
    } else if (!m->has_met) {
        m->has_met = all;
        if (!all && s->now_ns > m->ready_ns + (uint64_t)MEET_MS * SIM_MS)
            model_drop(w, i, "not all ranks came");
    } else if (!all && m->over_ns == 0) {
        m->over_ns = s->now_ns + sim_below(s, LOST_MS) * SIM_MS + 1;
    } else if (m->over_ns != 0 && s->now_ns >= m->over_ns) {
        model_drop(w, i, "another rank is gone");
    }
}

void models_step(struct sim *s, struct sim_actor *a)
{
    struct sim_worker *w = a->own;
    for (uint32_t i = 0; i < SIM_MODELS; i++) {
        struct sim_model *m = &w->models[i];
        if (m->gang != 0)
            gang_step(s, w, i);
        if (m->state == WIRE_MODEL_STATE_LOADING && s->now_ns >= m->ready_ns &&
            (m->gang == 0 || m->has_met))
            m->state = WIRE_MODEL_STATE_READY;
    }
}

bool models_can_run(struct sim *s, const struct sim_actor *a, uint32_t model)
{
    const struct sim_model *m = &((const struct sim_worker *)a->own)->models[model];
    if (m->gang != 0 && m->rank != 0)
        sim_fail(s, "%s got a job for %s, of which it is rank %u", a->name, sim_model_names[model],
                 m->rank);
    return m->state == WIRE_MODEL_STATE_READY || (weights[model] <= CAPACITY && m->gang == 0);
}
