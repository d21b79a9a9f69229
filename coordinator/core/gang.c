/*
 * gang.c - workers that compute one model together: formed when a job waits for a model that no
 * worker alone has room for, ended when the first member has left, whatever took it.
 *
 * Jobs go to rank 0's worker, whose lease is the gang's. The others hold memory and compute what
 * rank 0 tells them; what they have claimed is theirs until they say that it is back. A gang's
 * number is never used again, also after a restart: a rank of an older one finds nobody, and what
 * it says is taken for what it is.
 *
 * Gangs are not stored. After a restart of ours the workers say which ranks they have.
 */
#include "common/gang_number.h"
#include "common/sha256.h"
#include "coordinator/core/gang.h"

#include <stdio.h>

#define LOOK_MS       1000u  /* between looks that found none */
#define LOOK_OLD_MS   10000u /* one that stopped so long ago is begun anew */
#define AGAIN_MS      1000u
#define AGAIN_DOUBLED 5u /* 32 s */

static int gang_compare(const struct tree_node *a, const struct tree_node *b)
{
    uint64_t x = tree_entry(a, const struct core_gang, node)->number;
    uint64_t y = tree_entry(b, const struct core_gang, node)->number;
    return (x > y) - (x < y);
}

void gangs_init(struct core *c)
{
    tree_init(&c->gangs, gang_compare);
}

static void gang_free(struct core *c, struct core_gang *g)
{
    tree_remove(&c->gangs, &g->node);
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        free((void *)(uintptr_t)g->rank[r].address.data);
        if (g->rank[r].worker != NULL)
            name_drop(c, g->rank[r].worker);
    }
    free(g->why);
    free(g);
}

void gangs_free(struct core *c)
{
    struct tree_node *n;
    while ((n = c->gangs.root) != NULL)
        gang_free(c, tree_entry(n, struct core_gang, node));
}

struct core_gang *gang_find(const struct core *c, uint64_t number)
{
    struct core_gang probe = {.number = number};
    return tree_entry(tree_find(&c->gangs, &probe.node), struct core_gang, node);
}

static struct core_gang *gang_new(struct core *c, struct core_model *m, uint64_t number,
                                  uint32_t n_ranks, uint32_t n_stages, const char *why)
{
    struct core_gang *g = core_alloc(sizeof *g);
    size_t size = strlen(why) + 1;
    g->number = number;
    g->model = m;
    g->n_ranks = n_ranks;
    g->n_stages = n_stages;
    g->why = core_alloc(size);
    memcpy(g->why, why, size);
    tree_insert(&c->gangs, &g->node);
    return g;
}

static void rank_join(struct core *c, struct core_gang *g, uint32_t rank, struct core_hosting *h,
                      uint64_t share_bytes)
{
    struct core_gang_rank *r = &g->rank[rank];
    if (r->worker == NULL)
        r->worker = name_intern(c, h->worker->name);
    r->hosting = h;
    h->gang = g;
    h->rank = rank;
    h->share_bytes = share_bytes;
}

/* ---- what is said of it ---- */

static const char *layout_text(const struct core_gang *g, struct core_effects *fx)
{
    if (g->n_stages <= 1)
        return "";
    if (g->n_stages == g->n_ranks)
        return effect_printf(fx, ", %u stages", g->n_stages);
    return effect_printf(fx, ", %u stages of %u shards", g->n_stages, g->n_ranks / g->n_stages);
}

const char *gang_text(const struct core_gang *g, struct core_effects *fx)
{
    const char *names = "", *way = gang_way_name(g->way);
    for (uint32_t r = 0; r < g->n_ranks; r++)
        names = effect_printf(fx, "%s%s%s", names, r > 0 ? ", " : "",
                              g->rank[r].worker != NULL ? g->rank[r].worker : "(not back yet)");
    return effect_printf(fx, GANG_NUMBER " of %s%s%s%s: %s", GANG_NUMBER_ARGS(g->number), names,
                         layout_text(g, fx), way[0] != '\0' ? " over " : "", way, g->why);
}

void gang_place(const struct core_gang *g, const struct core_worker *w, struct core_effects *fx,
                struct wire_gang_place *ret_place)
{
    struct wire_gang_member *members = effect_alloc(fx, g->n_ranks, sizeof *members);
    struct wire_gang_place p = {.gang = g->number,
                                .stages = g->n_stages,
                                .transport = g->way.transport,
                                .members = members,
                                .n_members = g->n_ranks,
                                .control = g->way.control};
    memcpy(p.group, g->group, sizeof p.group);
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        members[r] = (struct wire_gang_member){g->rank[r].worker, g->rank[r].weight};
        if (g->rank[r].hosting != NULL && g->rank[r].hosting->worker == w)
            p.rank = r;
    }
    *ret_place = p;
}

/* ---- forming ---- */

static double megabytes(uint64_t bytes)
{
    return (double)bytes / 1e6;
}

static const char *why_of(const struct core *c, const struct core_model *m,
                          const struct gang_choice *choice, struct core_effects *fx)
{
    const struct core_hosting *roomiest = NULL;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->same_file && (roomiest == NULL || worker_capacity_bytes(h->worker) >
                                                     worker_capacity_bytes(roomiest->worker)))
            roomiest = h;
    }
    return effect_printf(fx,
                         "%s takes %.1f MB, more than any worker with its file can give (%s: %.1f "
                         "MB)%s; %s",
                         m->name, megabytes(hosting_need_bytes(roomiest)), roomiest->worker->name,
                         megabytes(worker_capacity_bytes(roomiest->worker)),
                         gang_way_why(c, choice, fx), gang_shares_text(choice, fx));
}

/* By which its ranks find each other: a digest of what is random and was said to each member alone.
 * A member learns nothing from it of the others', nor of any other gang's. */
static void group_set(struct core_gang *g)
{
    uint8_t said[sizeof g->number + SHARD_RANKS_MAX * CORE_CHALLENGE_BYTES], digest[SHA256_BYTES];
    size_t size = sizeof g->number;
    for (unsigned i = 0; i < sizeof g->number; i++)
        said[i] = (uint8_t)(g->number >> (8 * i));
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        memcpy(said + size, g->rank[r].hosting->worker->session->challenge, CORE_CHALLENGE_BYTES);
        size += CORE_CHALLENGE_BYTES;
    }
    sha256(said, size, digest);
    memcpy(g->group, digest, sizeof g->group);
}

static void gang_form(struct core *c, struct core_model *m, const struct gang_choice *choice,
                      struct core_effects *fx)
{
    const uint64_t number = c->boot_epoch << GANG_NUMBER_BITS | ++c->gang_number;
    struct core_gang *g =
        gang_new(c, m, number, choice->n_ranks, choice->n_stages, why_of(c, m, choice, fx));
    g->way = choice->way;
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        struct core_hosting *h = choice->rank[r];
        g->rank[r].weight = choice->weight[r];
        g->rank[r].need_bytes = choice->need_bytes[r];
        rank_join(c, g, r, h, choice->need_bytes[r]);
        struct core_command *cmd = session_command(c, h->worker->session, WIRE_COMMAND_LOAD);
        cmd->model = name_intern(c, m->name);
        cmd->epoch = number;
        h->load_asked = true;
        h->asked_ms = c->now_ms;
    }
    group_set(g);
}

/* A worker that was just killed is not noticed before it has been silent for long; one that a gang
 * is formed with must have been heard as lately as it should be. */
static bool is_heard(const struct core *c, const struct core_worker *w)
{
    return worker_silent_ms(c, w) <= c->config->heartbeat_ms + c->config->heartbeat_ms / 2;
}

bool gang_can_have(const struct core *c, const struct core_hosting *h)
{
    return c->config->gang_workers_max >= 2 && h->same_file && h->offer.gang_settings[0] != '\0' &&
           h->offer.shape.size > 0;
}

static bool can_join(const struct core *c, const struct core_hosting *h)
{
    return gang_can_have(c, h) && h->gang == NULL && h->worker->session != NULL && !h->load_asked &&
           !h->unload_asked && h->state != WIRE_MODEL_STATE_READY &&
           h->state != WIRE_MODEL_STATE_LOADING;
}

static bool is_chosen(const struct gang_choice *choice, const struct core_hosting *h)
{
    for (uint32_t r = 0; choice != NULL && r < choice->n_ranks; r++) {
        if (choice->rank[r] == h)
            return true;
    }
    return false;
}

/* Workers that are being emptied for it, but not chosen, go on as before. */
static void room_give_up(struct core *c, const struct core_model *m,
                         const struct gang_choice *choice)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_model);
        if (h->worker->making_room != m || is_chosen(choice, h))
            continue;
        worker_room_clear(c, h->worker);
    }
}

void gang_members_give_up(struct core *c, const struct core_model *m)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_model);
        if (h->worker->making_room == m && hosting_need_bytes(h) > worker_emptied_bytes(h->worker))
            worker_room_clear(c, h->worker);
    }
}

static void room_ask(struct core *c, const struct core_model *m, const struct gang_choice *choice)
{
    room_give_up(c, m, choice);
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        choice->rank[r]->worker->making_room = m;
        choice->rank[r]->worker->room_bytes = choice->need_bytes[r];
    }
}

enum look {
    LOOK_NONE,
    LOOK_FOUND,
    LOOK_STOPPED, /* for want of time; the next one goes on from there */
};

/* One that stopped is gone on with, by the room that it had come to. */
static enum look look(struct core *c, struct core_model *m, struct core_hosting *const from[],
                      size_t n_from, enum gang_room room, struct gang_choice *ret_choice)
{
    const bool is_under_way = m->gang_look.next != 0;
    if (is_under_way && room < m->gang_look.room)
        return LOOK_NONE;
    const uint32_t first = is_under_way && room == m->gang_look.room ? m->gang_look.next : 0;
    bool found = gang_choose(c, from, n_from, room, first, ret_choice);
    c->place_work += ret_choice->work;
    m->gang_look.room = room;
    m->gang_look.next = ret_choice->next;
    m->gang_look.at_ms = c->now_ms;
    return found ? LOOK_FOUND : ret_choice->next != 0 ? LOOK_STOPPED : LOOK_NONE;
}

/* Workers are emptied for a job that has waited for long. */
static bool may_empty(const struct core *c, const struct core_job *j)
{
    return c->now_ms >= j->submitted_ms + c->config->residency_ms;
}

bool gang_try(struct core *c, struct core_job *j, const struct placement_row *rows, size_t n_rows,
              uint32_t reach, struct core_effects *fx)
{
    struct core_model *m = j->model;
    struct core_hosting **from = effect_alloc(fx, n_rows, sizeof *from);
    struct gang_choice choice;
    size_t n_from = 0;
    if (c->config->gang_workers_max < 2 || c->now_ms < m->gang_after_ms)
        return false;
    for (size_t i = 0; i < n_rows; i++) {
        struct core_hosting *h = rows[i].hosting;
        if (rows[i].predicate == NULL || strcmp(rows[i].predicate, "memory") != 0 ||
            h->offer.context_tokens > reach)
            continue;
        /* One that will have room for all of it is waited for. */
        if (rows[i].need_bytes <= worker_emptied_bytes(h->worker)) {
            gang_members_give_up(c, m);
            return false;
        }
        if (can_join(c, h) && is_heard(c, h->worker))
            from[n_from++] = h;
    }
    if (c->now_ms >= m->gang_look.at_ms + LOOK_OLD_MS ||
        (m->gang_look.room == GANG_ROOM_EMPTIED && !may_empty(c, j)))
        m->gang_look.next = 0;
    enum look found = look(c, m, from, n_from, GANG_ROOM_NOW, &choice);
    if (found == LOOK_FOUND) {
        gang_form(c, m, &choice, fx);
        return true;
    }
    /* Nothing is unloaded before it is known that it has to be. */
    if (found == LOOK_NONE)
        found = look(c, m, from, n_from, GANG_ROOM_EVICTED, &choice);
    if (found == LOOK_FOUND) {
        for (uint32_t r = 0; r < choice.n_ranks; r++)
            worker_evict(c, choice.rank[r]->worker, choice.need_bytes[r], fx);
        return true;
    }
    if (found == LOOK_STOPPED) {
        m->gang_after_ms = c->now_ms + LOOK_MS;
        return true;
    }
    if (!may_empty(c, j)) {
        m->gang_after_ms = n_from >= 2 ? c->now_ms + LOOK_MS : m->gang_after_ms;
        return false;
    }
    for (size_t i = 0; i < n_from;) {
        const struct core_model *other = from[i]->worker->making_room;
        if (other != NULL && other != m)
            from[i] = from[--n_from];
        else
            i++;
    }
    m->gang_after_ms = n_from >= 2 ? c->now_ms + LOOK_MS : m->gang_after_ms;
    found = look(c, m, from, n_from, GANG_ROOM_EMPTIED, &choice);
    if (found == LOOK_FOUND)
        room_ask(c, m, &choice);
    else if (found == LOOK_NONE)
        room_give_up(c, m, NULL);
    return found != LOOK_NONE;
}

bool gang_is_possible(const struct core *c, const struct core_model *m, bool only_hopeful)
{
    struct core_hosting *from[LIMIT_CANDIDATES];
    struct gang_choice choice;
    size_t n_from = 0;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL && n_from < LIMIT_CANDIDATES;
         n = tree_above(&m->hosts, n)) {
        struct core_hosting *h = tree_entry(n, struct core_hosting, by_model);
        /* One that was formed already is possible. */
        if (h->gang != NULL)
            return true;
        if (gang_can_have(c, h) && !(only_hopeful && hosting_is_given_up(c, h)))
            from[n_from++] = h;
    }
    return gang_choose(c, from, n_from, GANG_ROOM_CAPACITY, 0, &choice);
}

/* ---- meeting ---- */

void gang_address(struct core *c, struct core_worker *w, const struct wire_gang_address *address)
{
    struct core_gang *g = gang_find(c, address->gang);
    if (g == NULL || address->rank >= g->n_ranks || g->has_met)
        return;
    struct core_gang_rank *r = &g->rank[address->rank];
    if (r->hosting == NULL || r->hosting->worker != w)
        return;
    if (r->address.size == 0) {
        uint8_t *bytes = core_alloc(address->address.size);
        memcpy(bytes, address->address.data, address->address.size);
        r->address = (struct wire_bytes){bytes, address->address.size};
    }
    for (uint32_t i = 0; i < g->n_ranks; i++) {
        if (g->rank[i].address.size == 0 || g->rank[i].hosting == NULL ||
            g->rank[i].hosting->worker->session == NULL)
            return;
    }
    g->has_met = true;
    for (uint32_t i = 0; i < g->n_ranks; i++) {
        struct core_command *cmd =
            session_command(c, g->rank[i].hosting->worker->session, WIRE_COMMAND_MEET);
        cmd->model = name_intern(c, g->model->name);
        cmd->epoch = g->number;
    }
}

const struct wire_bytes *gang_addresses(const struct core_gang *g, struct core_effects *fx)
{
    struct wire_bytes *out = effect_alloc(fx, g->n_ranks, sizeof *out);
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        uint8_t *bytes = effect_alloc(fx, g->rank[r].address.size, 1);
        memcpy(bytes, g->rank[r].address.data, g->rank[r].address.size);
        out[r] = (struct wire_bytes){bytes, g->rank[r].address.size};
    }
    return out;
}

/* ---- ending ---- */

static enum lease_fault fault_of(const struct core_lease *l, enum lease_fault fault)
{
    if (fault == LEASE_FAULT_DEATH)
        return lease_fault_of_death(l);
    return l->job->state == WIRE_JOB_STATE_RUNNING || l->handed ? fault : LEASE_FAULT_NONE;
}

static void leases_move(struct core *c, const struct core_hosting *h, enum lease_fault fault,
                        const char *why, struct core_effects *fx)
{
    struct tree *leases = &h->worker->leases;
    for (struct tree_node *n = tree_first(leases), *next; n != NULL; n = next) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        next = tree_above(leases, n);
        if (l->hosting != h)
            continue;
        lease_stop(c, l);
        lease_requeue(c, l, fault_of(l, fault), why, fx);
    }
}

/* The next one is tried at once where this one has worked; where it never came together, later,
 * and later each time. */
static void end_note(struct core *c, const struct core_gang *g, const char *why)
{
    struct core_model *m = g->model;
    size_t size = strlen(why) + 1;
    free(m->gang_over);
    m->gang_over = core_alloc(size);
    memcpy(m->gang_over, why, size);
    if (g->has_worked)
        return;
    room_give_up(c, m, NULL);
    m->gang_after_ms = c->now_ms + ((uint64_t)AGAIN_MS << m->gang_failures);
    m->gang_failures += m->gang_failures < AGAIN_DOUBLED;
    if (g->number > m->gang_failed)
        m->gang_failed = g->number;
}

void gang_token(struct core_gang *g)
{
    struct core_model *m = g->model;
    if (g->has_worked)
        return;
    g->has_worked = m->gang_worked = true;
    /* Beside an older one, which works on, newer ones may fail again and again. */
    if (g->number > m->gang_failed)
        m->gang_failures = 0;
    gang_nccl_worked(g);
}

static bool is_grace_over(const struct core *c)
{
    return c->now_ms > c->started_ms + c->config->grace_ms;
}

static bool is_earlier(const struct core *c, uint64_t number)
{
    return number >> GANG_NUMBER_BITS < c->boot_epoch;
}

static void over_note(struct core *c, uint64_t number)
{
    if (is_earlier(c, number) && !is_grace_over(c) && c->n_gangs_over < CORE_GANGS_OVER_MAX)
        c->gangs_over[c->n_gangs_over++] = number;
}

/* Of an earlier boot, and it may still be whole. Where more have ended than can be kept in mind,
 * none is believed any more. */
static bool may_come_back(const struct core *c, uint64_t number)
{
    for (size_t i = 0; i < c->n_gangs_over; i++) {
        if (c->gangs_over[i] == number)
            return false;
    }
    return is_earlier(c, number) && !is_grace_over(c) && c->n_gangs_over < CORE_GANGS_OVER_MAX;
}

void gang_end(struct core *c, struct core_gang *g, enum lease_fault fault, const char *what,
              struct core_effects *fx)
{
    struct core_hosting *first = g->rank[0].hosting;
    const char *why =
        effect_printf(fx, "gang " GANG_NUMBER " ended: %s", GANG_NUMBER_ARGS(g->number), what);
    end_note(c, g, why);
    if (g->way.transport == WIRE_GANG_TRANSPORT_NCCL && !g->has_worked && fault != LEASE_FAULT_NONE)
        gang_nccl_failed(c, g);
    over_note(c, g->number);
    if (first != NULL)
        leases_move(c, first, fault, why, fx);
    for (uint32_t r = 0; r < g->n_ranks; r++) {
        struct core_hosting *h = g->rank[r].hosting;
        if (h == NULL)
            continue;
        h->gang = NULL;
        if (hosting_holds_memory(h) && h->worker->session != NULL)
            hosting_unload(c, h);
        else if (!hosting_holds_memory(h))
            h->share_bytes = 0;
        workers_touch_models(c, h->worker);
    }
    model_touch(c, g->model);
    gang_free(c, g);
}

void gang_status(struct core *c, struct core_hosting *h, struct core_effects *fx)
{
    const struct wire_model_status *s = &h->status;
    struct core_gang *g = h->gang;
    bool holds = s->state == WIRE_MODEL_STATE_READY || s->state == WIRE_MODEL_STATE_LOADING;
    if (g == NULL) {
        /* What it has is of a gang that is over: what it was told of that, it has not heard. */
        if (s->gang != 0 && holds && !h->unload_asked && !h->load_asked)
            hosting_unload(c, h);
        else if (!holds && !h->load_asked && !h->unload_asked)
            h->share_bytes = 0;
        return;
    }
    if (s->gang == g->number && holds) {
        uint64_t bytes = s->weights_bytes + s->kv_bytes + s->scratch_bytes + s->exchange_bytes;
        bool *is_guessed = &g->rank[h->rank].is_guessed;
        if (s->state == WIRE_MODEL_STATE_READY && bytes > 0 &&
            (*is_guessed || (bytes >= h->share_bytes / 2 && bytes / 2 <= h->share_bytes))) {
            h->share_bytes = bytes;
            *is_guessed = false;
        }
        return;
    }
    /* It has not taken the command yet. */
    if (s->gang != g->number && h->load_asked)
        return;
    const char *what = s->gang == g->number && s->state == WIRE_MODEL_STATE_FAILED
                           ? "could not load its share"
                           : "left it";
    gang_end(c, g, LEASE_FAULT_RETURN,
             effect_printf(fx, "%s %s%s%s", h->worker->name, what, h->error != NULL ? ": " : "",
                           h->error != NULL ? h->error : ""),
             fx);
}

/* ---- members that come back ---- */

void gang_part(struct core_hosting *h)
{
    if (h->gang == NULL)
        return;
    h->gang->rank[h->rank].hosting = NULL;
    h->gang = NULL;
}

void gangs_expire(struct core *c, struct core_effects *fx)
{
    if (c->frozen || !is_grace_over(c))
        return;
    c->n_gangs_over = 0;
    for (struct tree_node *n = tree_first(&c->gangs), *next; n != NULL; n = next) {
        struct core_gang *g = tree_entry(n, struct core_gang, node);
        bool is_whole = true;
        next = tree_above(&c->gangs, n);
        if (!is_earlier(c, g->number))
            return; /* and so are all behind it */
        for (uint32_t r = 0; r < g->n_ranks; r++)
            is_whole = is_whole && g->rank[r].hosting != NULL;
        if (!is_whole)
            gang_end(c, g, LEASE_FAULT_NONE, "not all of its workers came back", fx);
    }
}

/* How it was cut, and what its ranks talk over, the workers do not say: the most that it may take,
 * lest what others are given is this rank's. Shares need not be even: all but a little of the model
 * may be one rank's. */
static uint64_t share_guess(const struct core_gang *g, const struct core_hosting *h, uint32_t rank)
{
    const uint64_t part = hosting_need_bytes(h);
    const uint64_t beside = gang_beside_bytes_max(h, g->n_ranks, rank);
    return beside > UINT64_MAX - part ? UINT64_MAX : part + beside;
}

void gang_rejoin(struct core *c, struct core_hosting *h, const struct wire_model_status *s)
{
    if (s->gang == 0 || h->gang != NULL ||
        (s->state != WIRE_MODEL_STATE_READY && s->state != WIRE_MODEL_STATE_LOADING))
        return;
    struct core_gang *g = gang_find(c, s->gang);
    if (g == NULL) {
        if (!may_come_back(c, s->gang) || !h->same_file)
            return; /* it ended while the worker was away */
        g = gang_new(c, h->model, s->gang, s->ranks, 0, "formed before the coordinator started");
    }
    if (g->model != h->model || !h->same_file || g->n_ranks != s->ranks ||
        g->rank[s->rank].hosting != NULL ||
        (g->rank[s->rank].worker != NULL && strcmp(g->rank[s->rank].worker, h->worker->name) != 0))
        return;
    /* What it was told in its last session may be lost: it says where it is once more. */
    free((void *)(uintptr_t)g->rank[s->rank].address.data);
    g->rank[s->rank].address = (struct wire_bytes){NULL, 0};
    g->has_met = false;
    uint64_t bytes = s->weights_bytes + s->kv_bytes + s->scratch_bytes + s->exchange_bytes;
    if (bytes == 0)
        bytes = g->rank[s->rank].need_bytes;
    g->rank[s->rank].is_guessed = bytes == 0;
    rank_join(c, g, s->rank, h, bytes != 0 ? bytes : share_guess(g, h, s->rank));
}

void gang_missed(struct core *c, struct core_worker *w, struct core_effects *fx)
{
    for (struct tree_node *n = tree_first(&c->gangs), *next; n != NULL; n = next) {
        struct core_gang *g = tree_entry(n, struct core_gang, node);
        next = tree_above(&c->gangs, n);
        for (uint32_t r = 0; r < g->n_ranks; r++) {
            if (g->rank[r].hosting != NULL || g->rank[r].worker == NULL ||
                strcmp(g->rank[r].worker, w->name) != 0)
                continue;
            gang_end(c, g, LEASE_FAULT_RETURN,
                     effect_printf(fx, "%s came back without its share", w->name), fx);
            break;
        }
    }
}
