/*
 * gang_choose.c - which workers compute a model together that none of them has room for, and how it
 * is cut: the fewest that have room for their parts, on one host where that is possible. Parts are
 * in proportion to bandwidth (gang_share.c), or equal where that is not known or alike; where such
 * have no room, in proportion to the room that each has.
 *
 * Of the workers that have room the roomiest are taken: as a rule they have least to do. Faster
 * ones are taken instead where that brings more than an eighth and costs nothing: as many of them
 * on no more hosts, cut into as many stages, with room for their parts now, no jobs, and no part of
 * another model.
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
 * has so much less time for other models. Tries have numbers, in a fixed order, and the next look
 * goes on with the first that there was no time for: so all come up in turn, however long one
 * takes. What did not fit a moment ago is looked at again once a look has come to the end.
 */
#include "coordinator/core/gang.h"

#define WORK_MAX         SHARD_WORK_MAX
#define WORK_OF_PLACE    2048u        /* takes as long as to place a job */
#define NEED_SLACK_BYTES (128u << 10) /* that little things come to */
#define FILLED_MAX       3u /* cuts that give less and less to those who got more than they hold */

/* The tries of a layout, in their order. */
enum {
    TRY_WANTED,
    TRY_FILLED, /* with all of its cuts */
    TRY_EVEN,
    TRY_ROOM,
    TRIES,
};

struct search {
    const struct core *c;
    const struct shard_shape *shape;
    struct core_hosting *const *from;
    size_t n_from;
    enum gang_room room;
    uint64_t work;
    uint32_t first;   /* the number of the try to begin with */
    uint32_t layout;  /* times TRIES: the number of the first try of the present layout */
    uint32_t next;    /* of the try that there was no time for; 0: none yet */
    bool only_wanted; /* parts as they should be, and out of the order of tries */
};

/* How a layout is to be cut. */
struct cutting {
    const struct candidate *group;
    struct shard_request request;
    uint64_t part_bytes;                  /* to be shared out, if it could be cut anywhere */
    uint64_t room_bytes[SHARD_RANKS_MAX]; /* less what each takes beside its part */
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

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t share_bytes(const struct shard_shape *shape, const struct shard_cut *cut,
                            uint32_t rank, const struct wire_model_offer *offer)
{
    return shard_in_proportion(offer->weights_bytes, shard_cut_weights(shape, cut, rank),
                               shard_shape_weights(shape)) +
           shard_in_proportion(offer->kv_bytes, shard_cut_kv(shape, cut, rank),
                               shard_shape_kv(shape));
}

/* What the rank is reckoned to hold in this cut, and no more than what one holds in any. Numbers
 * that a worker gives away say it within a hundredth (common/shard_room.h), of stages within two:
 * so a 64th more is counted, or a 32nd, lest it hold more than was claimed. */
static uint64_t rank_need_bytes(const struct search *s, const struct gang_choice *choice,
                                const struct core_hosting *h, const struct shard_cut *cut,
                                uint32_t rank)
{
    const struct wire_model_offer *o = &h->offer;
    const uint64_t beside = gang_beside_bytes(choice->way, h, cut->n_shards, cut->n_stages, rank);
    const uint64_t most = add(share_bytes(s->shape, cut, rank, o), beside);
    const struct shard_held held =
        shard_rank_held(&o->room, s->shape, cut, rank, o->weights_bytes, o->kv_bytes);
    const uint64_t nccl = beside - o->rank_bytes;
    uint64_t need =
        add(add(held.weights_bytes, held.kv_bytes), add(held.scratch_bytes, held.exchange_bytes));

    if (o->room.every_bytes == 0)
        return most;
    if (choice->way.transport == WIRE_GANG_TRANSPORT_NCCL) /* beside it what it stands on */
        need = add(need, 2 * (o->room.told_bytes + NEED_SLACK_BYTES) *
                             shard_rank_groups(cut->n_shards, cut->n_stages, rank));
    need = add(need, need / (cut->n_stages > 1 ? 32 : 64) + NEED_SLACK_BYTES);
    need = add(need, nccl);
    return need < most ? need : most;
}

/* If it could be cut anywhere. */
static bool ideal_fits(const struct cutting *k)
{
    const uint32_t n = k->request.n_weights;
    uint64_t sum = 0;
    for (uint32_t r = 0; r < n; r++)
        sum += k->request.weights[r];
    for (uint32_t r = 0; r < n; r++) {
        if (shard_in_proportion(k->part_bytes, k->request.weights[r], sum) > k->room_bytes[r])
            return false;
    }
    return sum > 0;
}

static uint64_t cut_work(const struct search *s, const struct cutting *k)
{
    return shard_cut_work(s->shape, k->request.shards, k->request.stages);
}

/* False: a look before this one has done it, or there is no time left. */
static bool has_turn(struct search *s, const struct cutting *k, uint32_t try)
{
    const uint32_t number = s->layout * TRIES + try;
    const uint64_t work = cut_work(s, k) * (try == TRY_FILLED ? FILLED_MAX : 1);
    if (s->only_wanted)
        return s->work + work <= WORK_MAX;
    if (number < s->first || s->next != 0)
        return false;
    if (s->work == 0 || s->work + work <= WORK_MAX)
        return true;
    s->next = number;
    return false;
}

/* What the ranks need is in `choice` afterwards, 0 where no cut was made. */
static bool cut_fits(struct search *s, const struct cutting *k, struct gang_choice *choice)
{
    const struct shard_request *q = &k->request;
    struct shard_cut *cut;
    bool fits = true;
    memset(choice->need_bytes, 0, sizeof choice->need_bytes);
    if (shard_cut_new(&cut, s->shape, q, NULL) != ERR_OK)
        return false;
    s->work += cut_work(s, k);
    if (k->group[0].hosting->offer.room.every_bytes > 0) /* each rank's sums, of each layer */
        s->work += (uint64_t)q->n_weights * q->shards * s->shape->n_layers * 4;
    for (uint32_t r = 0; r < q->n_weights; r++) {
        const struct candidate *it = &k->group[r];
        choice->need_bytes[r] = rank_need_bytes(s, choice, it->hosting, cut, r);
        fits = fits && choice->need_bytes[r] <= it->room_bytes;
    }
    shard_cut_free(cut);
    return fits;
}

static bool weights_fit(struct search *s, struct cutting *k, uint32_t try, const uint64_t *weights,
                        struct gang_choice *choice)
{
    memcpy(k->request.weights, weights, k->request.n_weights * sizeof *weights);
    memset(choice->need_bytes, 0, sizeof choice->need_bytes);
    if (!ideal_fits(k))
        return false;
    return s->room == GANG_ROOM_CAPACITY || (has_turn(s, k, try) && cut_fits(s, k, choice));
}

/* A model cannot be cut anywhere: who comes to more than there is room for is offered so much less
 * in the next try. */
static bool filled_fits(struct search *s, struct cutting *k, const uint64_t *wanted,
                        struct gang_choice *choice)
{
    const uint32_t n = k->request.n_weights;
    uint64_t room[SHARD_RANKS_MAX], offered[SHARD_RANKS_MAX], sum = 0;
    memcpy(room, k->room_bytes, sizeof room);
    for (uint32_t r = 0; r < n; r++)
        sum += wanted[r];
    for (uint32_t r = 0; r < n; r++)
        offered[r] = shard_in_proportion(k->part_bytes, wanted[r], sum);
    if (s->room == GANG_ROOM_CAPACITY)
        return gang_share_fill(wanted, room, n, k->part_bytes, k->request.weights);
    if (!has_turn(s, k, TRY_FILLED))
        return false;
    for (uint32_t i = 0; i < FILLED_MAX; i++) {
        bool is_over = false;
        for (uint32_t r = 0; r < n; r++) {
            const uint64_t has = k->group[r].room_bytes, needs = choice->need_bytes[r];
            if (needs <= has)
                continue;
            const uint64_t beside = has - k->room_bytes[r];
            room[r] = shard_in_proportion(offered[r], k->room_bytes[r], needs - beside);
            is_over = true;
        }
        if ((i > 0 && !is_over) || !gang_share_fill(wanted, room, n, k->part_bytes, offered))
            return false;
        for (uint32_t r = 0; r < n; r++)
            k->request.weights[r] = offered[r] >> 10; /* no more than a weight may be */
        if (cut_fits(s, k, choice))
            return true;
    }
    return false;
}

static bool shares_fit(struct search *s, struct cutting *k, struct gang_choice *choice)
{
    const uint32_t n = k->request.n_weights;
    uint64_t bytes_per_s[SHARD_RANKS_MAX], wanted[SHARD_RANKS_MAX], even[SHARD_RANKS_MAX];
    uint64_t room[SHARD_RANKS_MAX];
    for (uint32_t r = 0; r < n; r++) {
        bytes_per_s[r] = k->group[r].hosting->worker->read_bytes_per_s;
        even[r] = 1;
        room[r] = k->room_bytes[r] >> 10;
    }
    const enum gang_speeds speeds = gang_speeds_of(bytes_per_s, n, wanted);
    choice->shares = speeds == GANG_SPEEDS_DIFFER ? GANG_SHARES_BANDWIDTH : GANG_SHARES_EVEN;
    if (weights_fit(s, k, TRY_WANTED, wanted, choice))
        return true;
    if (s->only_wanted)
        return false;
    choice->shares = GANG_SHARES_FILLED;
    if (speeds != GANG_SPEEDS_UNKNOWN && filled_fits(s, k, wanted, choice))
        return true;
    choice->shares = GANG_SHARES_EVEN;
    if (speeds == GANG_SPEEDS_DIFFER && weights_fit(s, k, TRY_EVEN, even, choice))
        return true;
    choice->shares = GANG_SHARES_ROOM;
    return weights_fit(s, k, TRY_ROOM, room, choice);
}

static bool layout_fits(struct search *s, const struct candidate *group, uint32_t n,
                        uint32_t stages, struct gang_choice *choice)
{
    /* An embedding that is the head as well is in the first stage and in the last. */
    const uint64_t twice = s->shape->tied && stages > 1 ? s->shape->embed_bytes : 0;
    struct cutting k = {.group = group,
                        .request = {.shards = n / stages, .stages = stages, .n_weights = n}};
    s->layout += !s->only_wanted;
    if (stages > s->shape->n_layers)
        return false;
    for (uint32_t r = 0; r < n; r++) {
        const struct wire_model_offer *o = &group[r].hosting->offer;
        const uint64_t whole = add(add(o->weights_bytes, o->kv_bytes), twice);
        const uint64_t beside =
            gang_beside_bytes(choice->way, group[r].hosting, k.request.shards, stages, r);
        if (beside > group[r].room_bytes)
            return false;
        k.part_bytes = whole > k.part_bytes ? whole : k.part_bytes;
        k.room_bytes[r] = group[r].room_bytes - beside;
    }
    if (!shares_fit(s, &k, choice))
        return false;
    choice->n_ranks = n;
    choice->n_stages = stages;
    for (uint32_t r = 0; r < n; r++) {
        choice->rank[r] = group[r].hosting;
        choice->weight[r] = k.request.weights[r];
        choice->room_bytes[r] = group[r].room_bytes;
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

static uint32_t hosts_of(const struct candidate *group, uint32_t n)
{
    uint32_t hosts = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool is_seen = false;
        for (uint32_t k = 0; k < i; k++)
            is_seen = is_seen || gang_on_one_host(group[k].hosting, group[i].hosting);
        hosts += !is_seen;
    }
    return hosts;
}

/* Of all together; 0: that of one is not known. */
static uint64_t bandwidth_of(const struct candidate *group, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t it = group[i].hosting->worker->read_bytes_per_s;
        if (it == 0)
            return 0;
        sum += it;
    }
    return sum;
}

/* It has jobs, or computes its part of a model for a gang whose jobs are rank 0's. */
static bool has_work(const struct core_worker *w)
{
    if (tree_count(&w->leases) > 0)
        return true;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        if (tree_entry(n, const struct core_hosting, by_worker)->gang != NULL)
            return true;
    }
    return false;
}

/* The n that read fastest, in the group's order. Who is not among its first n and has work, or says
 * nothing of its bandwidth, does not count. */
static void fastest_of(const struct candidate *group, size_t n_group, uint32_t n,
                       struct candidate *ret)
{
    bool is_taken[SHARD_RANKS_MAX] = {false};
    uint32_t n_ret = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t best = SHARD_RANKS_MAX;
        uint64_t most = 0;
        for (size_t k = 0; k < n_group; k++) {
            const struct core_worker *w = group[k].hosting->worker;
            if (is_taken[k] || (k >= n && has_work(w)) || w->read_bytes_per_s <= most)
                continue;
            best = k;
            most = w->read_bytes_per_s;
        }
        CHECK(best < SHARD_RANKS_MAX); /* the first n have all said it */
        is_taken[best] = true;
    }
    for (size_t k = 0; k < n_group; k++) {
        if (is_taken[k])
            ret[n_ret++] = group[k];
    }
}

/* Takes faster ones instead of the first n of the group, whose gang is *best, where they may be. */
static void prefer_faster(struct search *s, const struct candidate *group, size_t n_group,
                          uint32_t n, struct gang_choice *best)
{
    const uint64_t roomy = bandwidth_of(group, n);
    struct gang_choice choice = {.way = best->way};
    struct candidate fast[SHARD_RANKS_MAX];
    if (s->room != GANG_ROOM_NOW || roomy == 0)
        return;
    fastest_of(group, n_group, n, fast);
    if (bandwidth_of(fast, n) - roomy <= roomy / 8 || hosts_of(fast, n) > hosts_of(group, n))
        return;
    s->only_wanted = true;
    if (group_fits(s, fast, n, &choice) && choice.n_stages == best->n_stages)
        *best = choice;
    s->only_wanted = false;
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
                prefer_faster(s, group, n, k, best);
                break;
            }
        }
    }
}

/* Whether ranks that meet over `meets` can hold it, with NCCL or without. */
static bool choose_among(struct search *s, enum wire_gang_transport meets, bool with_nccl,
                         struct gang_choice *best)
{
    if (with_nccl)
        choose_over(s, (struct gang_way){WIRE_GANG_TRANSPORT_NCCL, meets}, best);
    choose_over(s, (struct gang_way){meets, WIRE_GANG_TRANSPORT_UNSPECIFIED}, best);
    return best->n_ranks > 0;
}

static bool choose(struct search *s, struct gang_choice *best)
{
    static const struct gang_way only[] = {{WIRE_GANG_TRANSPORT_NCCL, WIRE_GANG_TRANSPORT_SHM},
                                           {WIRE_GANG_TRANSPORT_NCCL, WIRE_GANG_TRANSPORT_UCX}};
    const bool with_nccl = !gang_without_nccl(s->c, s->from[0]->model);
    bool found = choose_among(s, WIRE_GANG_TRANSPORT_SHM, with_nccl, best) ||
                 choose_among(s, WIRE_GANG_TRANSPORT_UCX, with_nccl, best);
    for (size_t i = 0; !with_nccl && !found && i < 2; i++) { /* for want of another */
        choose_over(s, only[i], best);
        found = best->n_ranks > 0;
    }
    return found;
}

bool gang_choose(const struct core *c, struct core_hosting *const from[], size_t n_from,
                 enum gang_room room, uint32_t first, struct gang_choice *ret_choice)
{
    struct shard_shape shape;
    struct search s = {
        .c = c, .shape = &shape, .from = from, .n_from = n_from, .room = room, .first = first};
    *ret_choice = (struct gang_choice){.n_ranks = 0};
    if (n_from < 2 || shard_shape_unpack(&shape, from[0]->offer.shape.data,
                                         from[0]->offer.shape.size, NULL) != ERR_OK)
        return false;
    bool found = choose(&s, ret_choice);
    if (!found && first > 0 && s.work == 0) { /* there are fewer tries than there were */
        s.first = s.layout = 0;
        found = choose(&s, ret_choice);
    }
    ret_choice->work = s.work / WORK_OF_PLACE;
    ret_choice->next = found ? 0 : s.next;
    shard_shape_fini(&shape);
    return found;
}
