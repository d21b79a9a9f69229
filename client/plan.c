/* How a model would be cut for several workers: worked out here, from the shape that a worker which
 * has it told the coordinator. */
#include "client/query.h"

#include "common/shard_room.h"

#include <string.h>

static void span_add(uint32_t span[2], struct shard_run run, bool first)
{
    uint32_t n = shard_run_count(run);
    span[0] = first || n < span[0] ? n : span[0];
    span[1] = first || n > span[1] ? n : span[1];
}

static void plan_rank(const struct shard_shape *shape, const struct shard_room *room,
                      const struct shard_cut *cut, uint32_t rank,
                      const struct cloister_model *model, struct cloister_shard *ret_shard)
{
    const struct shard_rank_cut *r = &cut->rank[rank];
    const struct shard_run rows = shard_run_count(r->head) > 0 ? r->head : r->embed;
    struct cloister_shard s = {.rank = rank,
                               .stage = r->stage,
                               .layers = {r->layers.first, r->layers.end},
                               .vocabulary = {rows.first, rows.end}};

    for (uint32_t i = r->layers.first; i < r->layers.end; i++) {
        span_add(s.heads, r->layer[i].heads, i == r->layers.first);
        span_add(s.kv_heads, r->layer[i].kv_heads, i == r->layers.first);
        span_add(s.ffn_columns, r->layer[i].ff, i == r->layers.first);
    }
    /* What the worker's own layout adds to the file's bytes, it adds to each share. */
    const struct shard_held held =
        shard_rank_held(room, shape, cut, rank, model->weights_bytes, model->kv_bytes);
    s.weights_bytes = held.weights_bytes;
    s.kv_bytes = held.kv_bytes;
    s.scratch_bytes = held.scratch_bytes;
    s.exchange_bytes = held.exchange_bytes;
    *ret_shard = s;
}

static enum err plan_request(uint32_t shards, uint32_t stages, const uint64_t *weights,
                             size_t n_weights, struct shard_request *ret_request,
                             struct cloister_problem *problem)
{
    struct shard_request r = {.shards = shards, .stages = stages};

    if (n_weights > SHARD_RANKS_MAX)
        return problem_set(problem, ERR_INVALID, "%zu weights; %u are the most", n_weights,
                           SHARD_RANKS_MAX);
    for (size_t i = 0; i < n_weights; i++)
        r.weights[i] = weights[i];
    r.n_weights = (uint32_t)n_weights;
    *ret_request = r;
    return ERR_OK;
}

static enum err plan_make(struct cloister_result *result, const struct wire_model_info *info,
                          const struct shard_request *request,
                          const struct cloister_plan **ret_plan, struct cloister_problem *problem)
{
    const struct wire_bytes *bytes = &info->offer.shape;
    struct shard_shape shape;
    struct shard_cut *cut = NULL;
    struct cloister_plan *plan;
    struct cloister_shard *ranks;
    struct errbuf eb = {{0}};
    enum err err = shard_shape_unpack(&shape, bytes->data, bytes->size, &eb);

    if (err != ERR_OK)
        return problem_set(problem, err, "%s", eb.text);
    err = shard_cut_new(&cut, &shape, request, &eb);
    if (err != ERR_OK) {
        shard_shape_fini(&shape);
        return problem_set(problem, err, "%s", eb.text);
    }
    plan = query_rows(result, 1, sizeof *plan, &err, problem);
    ranks = err == ERR_OK ? query_rows(result, cut->n_ranks, sizeof *ranks, &err, problem) : NULL;
    if (err == ERR_OK) {
        *plan = (struct cloister_plan){.shards = cut->n_shards,
                                       .stages = cut->n_stages,
                                       .ranks = ranks,
                                       .n_ranks = cut->n_ranks,
                                       .model = query_model(info)};
        memcpy(plan->digest, cut->digest, sizeof plan->digest);
        for (uint32_t r = 0; r < cut->n_ranks; r++)
            plan_rank(&shape, &info->offer.room, cut, r, &plan->model, &ranks[r]);
        *ret_plan = plan;
    }
    shard_cut_free(cut);
    shard_shape_fini(&shape);
    return err;
}

enum cloister_error cloister_plan_model(struct cloister *c, const char *model, uint32_t shards,
                                        uint32_t stages, const uint64_t *weights, size_t n_weights,
                                        struct cloister_result **ret_result,
                                        const struct cloister_plan **ret_plan,
                                        struct cloister_problem *problem)
{
    struct cloister_result *result = NULL;
    struct wire_reply reply;
    struct wire_request request = {.kind = WIRE_REQUEST_LIST_MODELS,
                                   .list_models = {.model = model}};
    struct shard_request wanted;
    enum err err = plan_request(shards, stages, weights, n_weights, &wanted, problem);

    if (err == ERR_OK && model[0] == '\0')
        err = problem_set(problem, ERR_INVALID, "a model without a name");
    if (err == ERR_OK)
        err = query_call(c, &request, &result, &reply, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    if (reply.list_models.n_models != 1 ||
        strcmp(reply.list_models.models[0].offer.name, model) != 0)
        err = problem_set(problem, ERR_NOT_FOUND, "no worker has a model %s", model);
    else if (reply.list_models.models[0].offer.shape.size == 0)
        err = problem_set(problem, ERR_NOT_FOUND, "no worker that is here says how %s may be cut",
                          model);
    else
        err = plan_make(result, &reply.list_models.models[0], &wanted, ret_plan, problem);
    if (err != ERR_OK) {
        cloister_result_free(result);
        return (enum cloister_error)err;
    }
    *ret_result = result;
    return CLOISTER_OK;
}
