#include "tests/sim/sim.h"

#include "common/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TROUBLE_MS 30000u  /* faults happen until here */
#define LIMIT_MS   600000u /* and by here everything must have ended */

/* splitmix64 (Steele, Lea, Flood, 2014). */
uint64_t sim_random(struct sim *s)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    return sim_random(s) % n;
}

bool sim_chance(struct sim *s, uint32_t per_million)
{
    return sim_below(s, 1000000) < per_million && !s->calm;
}

uint64_t sim_ms(const struct sim *s)
{
    return s->now_ns / SIM_MS;
}

void sim_mix(struct sim *s, uint64_t x)
{
    s->trace = (s->trace ^ x) * 0x9e3779b97f4a7c15u;
    s->trace ^= s->trace >> 29;
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;
    if (s->failure[0] != '\0')
        return;
    va_start(ap, fmt);
    (void)vsnprintf(s->failure, sizeof s->failure, fmt, ap);
    va_end(ap);
}

/* ---- events, a binary heap by time ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_post(struct sim *s, uint64_t in_ns, struct sim_event event)
{
    event.at_ns = s->now_ns + in_ns;
    event.order = s->order++;
    if (s->n_heap == s->cap_heap) {
        s->cap_heap = s->cap_heap == 0 ? 256 : s->cap_heap * 2;
        s->heap = realloc(s->heap, s->cap_heap * sizeof *s->heap);
        CHECK(s->heap != NULL);
    }
    size_t i = s->n_heap++;
    while (i > 0 && before(&event, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = event;
}

static struct sim_event event_take(struct sim *s)
{
    struct sim_event top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= s->n_heap)
            break;
        if (k + 1 < s->n_heap && before(&s->heap[k + 1], &s->heap[k]))
            k++;
        if (!before(&s->heap[k], &last))
            break;
        s->heap[i] = s->heap[k];
        i = k;
    }
    s->heap[i] = last;
    return top;
}

void sim_wake(struct sim *s, struct sim_actor *a, uint64_t in_ms)
{
    sim_post(s, in_ms * SIM_MS, (struct sim_event){.kind = SIM_WAKE, .actor = a->index});
}

/* ---- messages ---- */

static void send_copy(struct sim *s, const struct sim_event *like, const struct buf *bytes)
{
    struct sim_event e = *like;
    if (sim_chance(s, s->faults.lost))
        return;
    e.bytes = malloc(bytes->size + 1);
    CHECK(e.bytes != NULL);
    memcpy(e.bytes, bytes->data, bytes->size);
    e.size = bytes->size;
    sim_post(s, 100000 + sim_below(s, 3 * SIM_MS), e);
}

void sim_call(struct sim *s, struct sim_actor *a, uint32_t slot, struct wire_request *request,
              uint32_t timeout_ms)
{
    struct sim_call *call = &a->calls[slot];
    struct errbuf eb = {{0}};
    struct buf bytes;
    CHECK(!call->under_way);
    request->session = a->peer.session;
    for (size_t i = 0; i < sizeof request->request_id.bytes; i++)
        request->request_id.bytes[i] = (uint8_t)sim_random(s);
    *call = (struct sim_call){.under_way = true,
                              .number = ++s->next_number,
                              .request_id = request->request_id,
                              .kind = request->kind,
                              .deadline_ns = s->now_ns + (uint64_t)timeout_ms * SIM_MS};
    buf_init(&bytes);
    if (wire_request_encode(request, &bytes, &eb) != ERR_OK)
        sim_fail(s, "%s could not pack request %d: %s", a->name, (int)request->kind, eb.text);
    struct sim_event like = {
        .kind = SIM_REQUEST, .actor = a->index, .slot = slot, .number = call->number};
    send_copy(s, &like, &bytes);
    if (sim_chance(s, s->faults.doubled))
        send_copy(s, &like, &bytes);
    buf_fini(&bytes);
}

static void reply_arrived(struct sim *s, const struct sim_event *e)
{
    struct sim_actor *a = &s->actors[e->actor];
    struct sim_call *call = &a->calls[e->slot];
    struct errbuf eb = {{0}};
    struct wire_reply reply;
    struct arena arena;
    if (!call->under_way || call->number != e->number)
        return;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    if (wire_reply_decode(e->bytes, e->size, &arena, &reply, &eb) != ERR_OK)
        sim_fail(s, "%s got a reply that does not decode: %s", a->name, eb.text);
    else if (id_compare(&reply.request_id, &call->request_id) != 0)
        sim_fail(s, "%s got a reply to another request", a->name);
    call->under_way = false;
    if (s->failure[0] == '\0')
        a->ops->answered(s, a, e->slot, &reply);
    arena_fini(&arena);
}

/* Actors wake all the time anyhow: a call that is overdue is found then. */
static void calls_expire(struct sim *s, struct sim_actor *a)
{
    for (uint32_t i = 0; i < SIM_SLOTS; i++) {
        if (a->calls[i].under_way && s->now_ns >= a->calls[i].deadline_ns) {
            a->calls[i].under_way = false;
            a->ops->answered(s, a, i, NULL);
        }
    }
}

void sim_hello(struct sim *s, struct sim_actor *a, uint32_t slot, const uint8_t *challenge,
               const struct wire_hello *like)
{
    struct wire_request request = {.kind = WIRE_REQUEST_HELLO, .hello = *like};
    struct wire_hello *hello = &request.hello;
    uint8_t signature[ED25519_SIGN_BYTES];
    struct buf bytes;
    buf_init(&bytes);
    hello->node = a->name;
    hello->build = "sim";
    hello->tenant = like->tenant != NULL ? like->tenant : "";
    crypto_key_public(a->key, hello->public_key);
    memset(hello->nonce, 1, sizeof hello->nonce);
    if (hello->worker.device == NULL)
        hello->worker.device = hello->worker.isa = "";
    if (challenge != NULL) {
        wire_hello_signed_bytes(challenge, a->peer.session, hello, &bytes);
        CHECK(crypto_sign(a->key, bytes.data, bytes.size, signature, NULL) == ERR_OK);
        hello->signature = (struct wire_bytes){.data = signature, .size = sizeof signature};
    } else {
        a->peer = (struct sim_peer){0};
        hello->worker = (struct wire_worker_hello){.device = "", .isa = ""};
    }
    buf_fini(&bytes);
    sim_call(s, a, slot, &request, 2000);
}

/* ---- one run ---- */

static void event_run(struct sim *s, struct sim_event *e)
{
    struct sim_actor *a = &s->actors[e->actor];
    sim_mix(s, e->at_ns ^ (uint64_t)e->kind << 56 ^ (uint64_t)e->actor << 48);
    switch (e->kind) {
    case SIM_REQUEST:
        coordinator_request(s, e);
        break;
    case SIM_REPLY:
        reply_arrived(s, e);
        break;
    case SIM_WAKE:
        calls_expire(s, a);
        a->ops->wake(s, a);
        break;
    case SIM_TURN:
        if (e->number == s->incarnation)
            coordinator_turn(s);
        break;
    case SIM_COMMITTED:
        if (e->number == s->incarnation)
            coordinator_committed(s);
        break;
    case SIM_RESTART:
        coordinator_restart(s);
        break;
    case SIM_SPACE:
        if (e->number == s->incarnation)
            coordinator_space(s);
        break;
    }
    free(e->bytes);
}

static void faults_draw(struct sim *s)
{
    struct sim_faults *f = &s->faults;
    /* Each seed has some kinds of trouble and not others: combinations find more than everything
     * at once. */
    *f = (struct sim_faults){
        .lost = sim_below(s, 2) ? (uint32_t)sim_below(s, 100000) : 0,
        .doubled = sim_below(s, 2) ? (uint32_t)sim_below(s, 100000) : 0,
        .crash_before = sim_below(s, 2) ? (uint32_t)sim_below(s, 100000) : 0,
        .crash_after = sim_below(s, 2) ? (uint32_t)sim_below(s, 100000) : 0,
        .no_space = sim_below(s, 3) == 0 ? (uint32_t)sim_below(s, 40000) : 0,
        .slow = sim_below(s, 3) == 0 ? (uint32_t)sim_below(s, 40000) : 0,
        .worker_dies = sim_below(s, 2) ? (uint32_t)sim_below(s, 10000) : 0,
        .worker_hangs = sim_below(s, 2) ? (uint32_t)sim_below(s, 8000) : 0,
        .worker_leaves = sim_below(s, 3) == 0 ? (uint32_t)sim_below(s, 8000) : 0,
        .engine_fails = sim_below(s, 3) == 0 ? (uint32_t)sim_below(s, 10000) : 0,
        .forgets = sim_below(s, 2) ? (uint32_t)sim_below(s, 20000) : 0,
    };
    /* Some have trouble at the coordinator alone: workers may not be blamed for it. */
    if (s->seed % 8 == 0) {
        f->lost = f->worker_dies = f->worker_hangs = f->engine_fails = f->forgets = 0;
        f->slow = 20000;
    }
}

/* The last one takes two workers at least. */
static void jobs_draw(struct sim *s, uint32_t n_workers, uint32_t n_clients)
{
    s->n_jobs = 8 + (uint32_t)sim_below(s, SIM_JOBS_MAX - 8);
    for (uint32_t i = 0; i < s->n_jobs; i++) {
        struct sim_job *j = &s->jobs[i];
        j->client = (uint32_t)sim_below(s, n_clients);
        j->model = (uint32_t)sim_below(s, n_workers > 1 ? SIM_MODELS : SIM_MODELS - 1);
        j->seed = sim_random(s);
        j->max_tokens = 1 + (uint32_t)sim_below(s, SIM_TOKENS_MAX);
        j->start_ns = sim_below(s, 10000) * SIM_MS;
        j->will_cancel = sim_below(s, 8) == 0;
        j->cancel_after = (uint32_t)sim_below(s, j->max_tokens);
        j->cancel_on_disconnect = sim_below(s, 8) == 0;
        j->deadline_ms = sim_below(s, 8) == 0 ? 1 + sim_below(s, 20000) : 0;
        for (size_t k = 0; k < sizeof j->id.bytes; k++)
            j->id.bytes[k] = (uint8_t)sim_random(s);
    }
}

static void gpus_draw(struct sim *s, uint32_t n_workers)
{
    if (sim_below(s, 2) == 0)
        return;
    for (uint32_t i = 0; i < n_workers; i++) {
        (void)snprintf(s->gpus[i].uuid, sizeof s->gpus[i].uuid, "GPU-%u",
                       i > 0 && sim_below(s, 6) == 0 ? i - 1 : i);
        s->gpus[i].has_nccl = sim_below(s, 8) != 0;
    }
}

static void actors_open(struct sim *s, uint32_t n_workers, uint32_t n_clients)
{
    s->n_workers = n_workers;
    s->n_actors = n_workers + n_clients;
    for (uint32_t i = 0; i < s->n_actors; i++) {
        struct sim_actor *a = &s->actors[i];
        bool is_worker = i < n_workers;
        a->index = i;
        (void)snprintf(a->name, sizeof a->name, "%s-%u", is_worker ? "worker" : "client",
                       is_worker ? i : i - n_workers);
        CHECK(crypto_key_new(&a->key, NULL) == ERR_OK);
        if (is_worker)
            worker_open(s, a);
        else
            client_open(s, a);
        sim_wake(s, a, sim_below(s, 100));
    }
}

bool sim_run(struct sim *s, uint64_t seed)
{
    *s = (struct sim){.seed = seed, .random = seed, .now_ns = 1000ull * 1000 * SIM_MS};
    uint64_t start_ns = s->now_ns;
    s->wall_base_ns = 1800000000000000000u;
    faults_draw(s);
    uint32_t n_workers = 1 + (uint32_t)sim_below(s, 3), n_clients = 1 + (uint32_t)sim_below(s, 3);
    jobs_draw(s, n_workers, n_clients);
    for (uint32_t i = 0; i < s->n_jobs; i++)
        s->jobs[i].start_ns += start_ns;
    gpus_draw(s, n_workers);
    coordinator_open(s);
    actors_open(s, n_workers, n_clients);

    while (s->failure[0] == '\0' && !clients_over(s)) {
        uint64_t tick_ns = coordinator_tick_ns(s);
        if (s->now_ns - start_ns > (uint64_t)TROUBLE_MS * SIM_MS)
            s->calm = true;
        if (s->now_ns - start_ns > (uint64_t)LIMIT_MS * SIM_MS) {
            sim_fail(s, "something hangs: not all jobs have ended after %u s", LIMIT_MS / 1000);
            break;
        }
        if (s->n_heap == 0 || tick_ns <= s->heap[0].at_ns) {
            CHECK(tick_ns != UINT64_MAX);
            if (tick_ns > s->now_ns)
                s->now_ns = tick_ns;
            coordinator_tick(s);
            continue;
        }
        struct sim_event e = event_take(s);
        s->now_ns = e.at_ns;
        event_run(s, &e);
    }
    if (s->failure[0] == '\0')
        check_end(s);
    return s->failure[0] == '\0';
}

void sim_fini(struct sim *s)
{
    for (size_t i = 0; i < s->n_heap; i++)
        free(s->heap[i].bytes);
    free(s->heap);
    for (uint32_t i = 0; i < s->n_actors; i++) {
        if (i < s->n_workers)
            worker_close(&s->actors[i]);
        else
            client_close(&s->actors[i]);
        crypto_key_free(s->actors[i].key);
    }
    coordinator_close(s);
}

/* ---- the models, and what everybody agrees that they say ---- */

const char *const sim_model_names[SIM_MODELS] = {"alpha", "beta", "gamma"};

uint32_t sim_model_index(const char *name)
{
    uint32_t i = 0;
    while (strcmp(sim_model_names[i], name) != 0)
        CHECK(++i < SIM_MODELS);
    return i;
}

static uint64_t token_hash(uint64_t seed, uint64_t at)
{
    uint64_t z = seed + at * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int32_t token_id(uint64_t seed, uint32_t at)
{
    return (int32_t)(token_hash(seed, at) % 50000);
}

size_t token_text(uint64_t seed, uint32_t at, char ret_text[SIM_TEXT_PER_TOKEN])
{
    return (size_t)snprintf(ret_text, SIM_TEXT_PER_TOKEN, "%x ",
                            (unsigned)(token_hash(seed, at) % 0xffff));
}

uint32_t token_count(uint64_t seed, uint32_t max_tokens, enum wire_finish *ret_finish)
{
    uint32_t stop = (uint32_t)(token_hash(seed, 1000000) % (2 * SIM_TOKENS_MAX));
    *ret_finish = stop < max_tokens ? WIRE_FINISH_STOP : WIRE_FINISH_LENGTH;
    return stop < max_tokens ? stop : max_tokens;
}

uint32_t prompt_count(uint64_t seed)
{
    return 1 + (uint32_t)(token_hash(seed, 2000000) % 20);
}
