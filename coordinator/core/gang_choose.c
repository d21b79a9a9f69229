/*
 * gang_choose.c - which workers compute a model together that none of them has room for, and how it
 * is cut: the fewest that have room for their parts, on one host where that is possible. Parts are
 * equal where they fit, else in proportion to the room that each has.
 *
 * Shards wait for each other twice in each layer, stages once for each border, and then only
 * for what comes before: shards make a token sooner where the way between them is short. Where it
 * is not (GPUs on several hosts: a layer takes them no longer than the way does) the model is cut
 * into stages from host to host, and into shards within each. Stages share out the KV pool in full,
 * so they may have room where shards have not.
 *
 * NCCL takes memory of each GPU for itself, and wants a GPU for each rank: it is taken where as few
 * workers have room for that too.
 *
 * A cut of a large model takes milliseconds to work out, so it is only done where the parts would
 * fit if a model could be cut anywhere, no more often in a look than WORK_MAX allows, and the turn
 * has so much less time for other models.
 */
#include "coordinator/core/state.h"

#define WORK_MAX      SHARD_WORK_MAX
#define WORK_OF_PLACE 2048u /* takes as long as to place a job */

struct search {
    const struct core *c;
    const struct shard_shape *shape;
    struct core_hosting *const *from;
    size_t n_from;
    enum gang_room room;
    uint64_t work, work_max;
};

struct candidate {
    struct core_hosting *hosting;
    uint64_t room_bytes;
};

static uint64_t room_of(const struct core *c, const struct core_worker *w, enum gang_room room)
{
    switch (room) {
    case GANG_ROOM_NOW:
        return worker_room_bytes(w);
    case GANG_ROOM_EVICTED:
        return worker_room_bytes(w) + worker_leaving_bytes(w) + worker_evictable_bytes(c, w);
    case GANG_ROOM_EMPTIED:
        return worker_emptied_bytes(w);
    case GANG_ROOM_CAPACITY:
        break;
    }
    return worker_capacity_bytes(w);
}

/* NCCL wants a GPU for each: of those on one, the roomiest. False where that is another one. */
static bool gpu_is_its(struct candidate *group, size_t *n, const struct candidate *it)
{
    for (size_t k = 0; k < *n; k++) {
        if (!gang_on_one_gpu(group[k].hosting, it->hosting))
            continue;
        if (group[k].room_bytes >= it->room_bytes)
            return false;
        memmove(&group[k], &group[k + 1], (--*n - k) * sizeof *group);
        break;
    }
    return true;
}

/* Those that can be in a gang with `first`, the roomiest first, then by name. */
static size_t group_of(const struct search *s, const struct core_hosting *first,
                       struct gang_way way, struct candidate *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_from; i++) {
        if (!gang_way_joins(way, first, s->from[i]))
            continue;
        const struct candidate it = {s->from[i], room_of(s->c, s->from[i]->worker, s->room)};
        if (way.transport == WIRE_GANG_TRANSPORT_NCCL && !gpu_is_its(ret, &n, &it))
            continue;
        size_t at = n < SHARD_RANKS_MAX ? n++ : SHARD_RANKS_MAX;
        for (; at > 0 && ret[at - 1].room_bytes < it.room_bytes; at--) {
            if (at < SHARD_RANKS_MAX)
                ret[at] = ret[at - 1];
        }
        if (at < SHARD_RANKS_MAX)
            ret[at] = it;
    }
    return n;
}

static uint64_t share_bytes(const struct shard_shape *shape, const struct shard_cut *cut,
                            uint32_t rank, const struct wire_model_offer *offer)
{
    return shard_in_proportion(offer->weights_bytes, shard_cut_weights(shape, cut, rank),
                               shard_shape_weights(shape)) +
           shard_in_proportion(offer->kv_bytes, shard_cut_kv(shape, cut, rank),
                               shard_shape_kv(shape));
}

/* What rank r takes beside its share. */
static uint64_t beside_bytes(const struct gang_choice *choice, const struct shard_request *request,
                             const struct candidate *group, uint32_t r)
{
    return gang_beside_bytes(choice->way, group[r].hosting, request->shards, request->stages, r);
}

/* If it could be cut anywhere. An embedding that is the head as well is in the first stage and in
 * the last. */
static bool ideal_fits(const struct shard_shape *shape, const struct shard_request *request,
                       const struct candidate *group, const struct gang_choice *choice)
{
    const uint64_t twice = shape->tied && request->stages > 1 ? shape->embed_bytes : 0;
    uint64_t sum = 0;
    for (uint32_t r = 0; r < request->n_weights; r++)
        sum += request->weights[r];
    for (uint32_t r = 0; r < request->n_weights; r++) {
        const struct wire_model_offer *o = &group[r].hosting->offer;
        const uint64_t part =
            shard_in_proportion(o->weights_bytes + o->kv_bytes + twice, request->weights[r], sum);
        const uint64_t beside = beside_bytes(choice, request, group, r);
        if (beside > group[r].room_bytes || part > group[r].room_bytes - beside)
            return false;
    }
    return sum > 0 && request->stages <= shape->n_layers;
}

static bool cut_fits(struct search *s, const struct shard_request *request,
                     const struct candidate *group, struct gang_choice *choice)
{
    struct shard_cut *cut;
    bool fits = ideal_fits(s->shape, request, group, choice);
    if (!fits || s->room == GANG_ROOM_CAPACITY)
        return fits;
    const uint64_t work = shard_cut_work(s->shape, request->shards, request->stages);
    if (s->work + work > s->work_max || shard_cut_new(&cut, s->shape, request, NULL) != ERR_OK)
        return false;
    s->work += work;
    for (uint32_t r = 0; r < request->n_weights; r++) {
        choice->need_bytes[r] = share_bytes(s->shape, cut, r, &group[r].hosting->offer) +
                                beside_bytes(choice, request, group, r);
        fits = fits && choice->need_bytes[r] <= group[r].room_bytes;
    }
    shard_cut_free(cut);
    return fits;
}

static bool layout_fits(struct search *s, const struct candidate *group, uint32_t n,
                        uint32_t stages, struct gang_choice *choice)
{
    struct shard_request request = {.shards = n / stages, .stages = stages, .n_weights = n};
    for (uint32_t r = 0; r < n; r++)
        request.weights[r] = 1;
    if (!cut_fits(s, &request, group, choice)) {
        for (uint32_t r = 0; r < n; r++) {
            const uint64_t beside = beside_bytes(choice, &request, group, r);
            const uint64_t room = group[r].room_bytes;
            request.weights[r] = room > beside ? (room - beside) >> 10 : 0;
        }
        if (!cut_fits(s, &request, group, choice))
            return false;
    }
    choice->n_ranks = n;
    choice->n_stages = stages;
    for (uint32_t r = 0; r < n; r++) {
        choice->rank[r] = group[r].hosting;
        choice->weight[r] = request.weights[r];
    }
    return true;
}

/* The group with those of a host beside each other, hosts by their roomiest. Returns the number of
 * hosts where each has as many of them; 0: they have not. */
static uint32_t by_host(const struct candidate *group, uint32_t n, struct candidate *ret)
{
    uint32_t hosts = 0, filled = 0, each = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool is_seen = false;
        for (uint32_t k = 0; k < i; k++)
            is_seen = is_seen || gang_on_one_host(group[k].hosting, group[i].hosting);
        if (is_seen)
            continue;
        const uint32_t before = filled;
        ret[filled++] = group[i];
        for (uint32_t k = i + 1; k < n; k++) {
            if (gang_on_one_host(group[k].hosting, group[i].hosting))
                ret[filled++] = group[k];
        }
        if (hosts++ == 0)
            each = filled;
        else if (filled - before != each)
            each = 0;
    }
    return each > 0 && hosts * each == n ? hosts : 0;
}

/* The numbers of stages that are tried, the best first; 0 ends them. `hosts`: 0 where they have not
 * as many of the group each. */
static void layouts_of(const struct search *s, const struct candidate *group, uint32_t n,
                       uint32_t hosts, uint32_t ret[4])
{
    const bool far = hosts != 1 && group[0].hosting->worker->gpu.uuid[0] != '\0';
    const uint32_t stages = hosts > 1 ? hosts : n;
    uint32_t count = 0;
    memset(ret, 0, 4 * sizeof *ret);
    switch (s->c->config->gang_split) {
    case CORE_GANG_SPLIT_SHARDS:
        ret[0] = 1;
        break;
    case CORE_GANG_SPLIT_STAGES:
        ret[0] = n;
        break;
    case CORE_GANG_SPLIT_HOSTS:
        ret[0] = hosts > 0 ? hosts : n;
        break;
    case CORE_GANG_SPLIT_AUTO:
        if (!far)
            ret[count++] = 1;
        ret[count++] = stages;
        if (stages < n)
            ret[count++] = n;
        if (far)
            ret[count++] = 1;
        break;
    }
}

static bool group_fits(struct search *s, const struct candidate *group, uint32_t n,
                       struct gang_choice *choice)
{
    struct candidate ordered[SHARD_RANKS_MAX];
    uint32_t layouts[4];
    layouts_of(s, group, n, by_host(group, n, ordered), layouts);
    for (uint32_t i = 0; i < 4 && layouts[i] != 0; i++) {
        if (layout_fits(s, layouts[i] > 1 ? ordered : group, n, layouts[i], choice))
            return true;
    }
    return false;
}

/* Fewer than *choice has, or any where it has none. */
static void choose_over(struct search *s, struct gang_way way, struct gang_choice *best)
{
    for (size_t i = 0; i < s->n_from; i++) {
        struct candidate group[SHARD_RANKS_MAX];
        struct gang_choice choice = {.way = way};
        /* It joins nobody so, or was of the group of one before it. */
        bool is_out = !gang_way_joins(way, s->from[i], s->from[i]);
        for (size_t k = 0; k < i && !is_out; k++)
            is_out = gang_way_joins(way, s->from[k], s->from[i]);
        if (is_out)
            continue;
        size_t n = group_of(s, s->from[i], way, group);
        size_t most = n < s->c->config->gang_workers_max ? n : s->c->config->gang_workers_max;
        if (best->n_ranks > 0 && most >= best->n_ranks)
            most = best->n_ranks - 1;
        for (uint32_t k = 2; k <= most; k++) {
            if (group_fits(s, group, k, &choice)) {
                *best = choice;
                break;
            }
        }
    }
}

/* Whether ranks that meet over `meets` can hold it, with NCCL or without. What is tried first may
 * not use up the time for the others. */
static bool choose_among(struct search *s, enum wire_gang_transport meets, bool with_nccl,
                         struct gang_choice *best)
{
    s->work_max = s->work + (WORK_MAX - s->work) / 2;
    if (with_nccl)
        choose_over(s, (struct gang_way){WIRE_GANG_TRANSPORT_NCCL, meets}, best);
    s->work_max = WORK_MAX;
    choose_over(s, (struct gang_way){meets, WIRE_GANG_TRANSPORT_UNSPECIFIED}, best);
    return best->n_ranks > 0;
}

bool gang_choose(const struct core *c, struct core_hosting *const from[], size_t n_from,
                 enum gang_room room, struct gang_choice *ret_choice)
{
    static const struct gang_way only[] = {{WIRE_GANG_TRANSPORT_NCCL, WIRE_GANG_TRANSPORT_SHM},
                                           {WIRE_GANG_TRANSPORT_NCCL, WIRE_GANG_TRANSPORT_UCX}};
    struct shard_shape shape;
    struct search s = {c, &shape, from, n_from, room, 0, 0};
    *ret_choice = (struct gang_choice){.n_ranks = 0};
    if (n_from < 2 || shard_shape_unpack(&shape, from[0]->offer.shape.data,
                                         from[0]->offer.shape.size, NULL) != ERR_OK)
        return false;
    const bool with_nccl = !gang_without_nccl(c, from[0]->model);
    bool found = choose_among(&s, WIRE_GANG_TRANSPORT_SHM, with_nccl, ret_choice) ||
                 choose_among(&s, WIRE_GANG_TRANSPORT_UCX, with_nccl, ret_choice);
    for (size_t i = 0; !with_nccl && !found && i < 2; i++) { /* for want of another */
        choose_over(&s, only[i], ret_choice);
        found = ret_choice->n_ranks > 0;
    }
    ret_choice->work = s.work / WORK_OF_PLACE;
    shard_shape_fini(&shape);
    return found;
}
