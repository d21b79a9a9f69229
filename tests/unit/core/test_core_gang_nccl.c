/* Gangs of GPUs: who computes over NCCL, what it stands on, and what becomes of one that fails. */
#include "tests/unit/core/gang_test.h"

#include <stdio.h>
#include <string.h>

#define GB CORE_TEST_GB

#define ALL (GANG_SHM | GANG_UCX | GANG_NCCL)

/* What is not said: on a host 1, of 4 GB, NCCL 2.27.7 on whatever else it has, half a gigabyte. */
struct gpu {
    const char *name;
    double gb, nccl_gb;
    uint8_t host;
    uint32_t transports, controls;
    const char *uuid, *version; /* "": none */
    bool is_cpu;
};

static struct core_test_worker gpu_hello(const struct gpu *g)
{
    static char uuid[16];
    const struct gang_member m = {
        g->name,   g->gb > 0 ? g->gb : 4, g->host != 0 ? g->host : 1, g->transports, NULL,
        !g->is_cpu};
    struct core_test_worker w = gang_member_hello(&m);
    (void)snprintf(uuid, sizeof uuid, "GPU-%.8s", g->name);
    w.gpu_uuid = g->uuid != NULL ? g->uuid : uuid;
    w.nccl = (struct wire_nccl){
        .version = g->version != NULL ? g->version : "2.27.7",
        .controls = g->controls != 0 ? g->controls : g->transports & (GANG_SHM | GANG_UCX),
        .memory_bytes = (uint64_t)((g->nccl_gb > 0 ? g->nccl_gb : 0.5) * GB)};
    return w;
}

static void over_what_they_talk(void **state)
{
    enum { NONE = WIRE_GANG_TRANSPORT_UNSPECIFIED, SHM = WIRE_GANG_TRANSPORT_SHM };
    enum { UCX = WIRE_GANG_TRANSPORT_UCX, NCCL = WIRE_GANG_TRANSPORT_NCCL };
    static const struct {
        const char *what;
        struct gpu gpus[4];
        const char *gang; /* names by rank; NULL: none */
        int transport, control;
        uint32_t stages;
        const char *says, *not_said; /* of the gang; NULL: nothing is looked for */
    } table[] = {
        {"GPUs of one host",
         {{.name = "a", .transports = ALL}, {.name = "b", .transports = ALL}},
         "ab",
         NCCL,
         SHM,
         1,
         "of a, b over nccl: m takes 6442.5 MB, more than any worker with its file can give (a: "
         "4295.0 MB); nccl: each has a GPU of its own and NCCL 2.27.7, which stands on shm; 536.9 "
         "MB are kept for each group of ranks; even shares, the bandwidth of a is not known: a "
         "3768.7 MB, b 3768.7 MB",
         NULL},
        {"what is said to be kept is what the one that keeps most does",
         {{.name = "a", .transports = ALL, .nccl_gb = 0.25}, {.name = "b", .transports = ALL}},
         "ab",
         NCCL,
         SHM,
         1,
         "; 536.9 MB are kept for each group of ranks; even shares, the bandwidth of a is not "
         "known: a 3500.3 MB, b 3768.7 MB",
         NULL},
        {"and what is too much",
         {{.name = "a", .transports = ALL, .nccl_gb = 0.25},
          {.name = "b", .transports = ALL, .nccl_gb = 3.5}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: with the 3758.1 MB that it takes of each GPU",
         NULL},
        {"of two hosts: stages, in three groups each",
         {{.name = "a", .transports = ALL, .nccl_gb = 0.25},
          {.name = "b", .transports = ALL, .nccl_gb = 0.25, .host = 2}},
         "ab",
         NCCL,
         UCX,
         2,
         "2 stages over nccl: ",
         NULL},
        {"it needs no other transport but to stand on",
         {{.name = "a", .transports = GANG_NCCL, .controls = GANG_SHM},
          {.name = "b", .transports = GANG_NCCL, .controls = GANG_SHM}},
         "ab",
         NCCL,
         SHM,
         1,
         "which stands on shm",
         NULL},
        {"two on one GPU",
         {{.name = "a", .transports = ALL, .uuid = "GPU-7"},
          {.name = "b", .transports = ALL, .uuid = "GPU-7"}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: a and b are on one GPU; even shares, the bandwidth of a is not known: ",
         NULL},
        {"two on one GPU, and one on another",
         {{.name = "a", .transports = ALL, .uuid = "GPU-7"},
          {.name = "b", .transports = ALL, .uuid = "GPU-7"},
          {.name = "c", .transports = ALL}},
         "ac",
         NCCL,
         SHM,
         1,
         NULL,
         NULL},
        {"of those on one GPU the roomier",
         {{.name = "a", .transports = ALL, .uuid = "GPU-7"},
          {.name = "b", .transports = ALL, .uuid = "GPU-7", .gb = 4.5},
          {.name = "c", .transports = ALL}},
         "bc",
         NCCL,
         SHM,
         1,
         NULL,
         NULL},
        {"only two on one GPU, and nothing but NCCL",
         {{.name = "a", .transports = GANG_NCCL, .controls = GANG_SHM, .uuid = "GPU-7"},
          {.name = "b", .transports = GANG_NCCL, .controls = GANG_SHM, .uuid = "GPU-7"}},
         NULL,
         NONE,
         NONE,
         0,
         NULL,
         NULL},
        {"one that does not offer it",
         {{.name = "a", .transports = ALL}, {.name = "b", .transports = GANG_SHM | GANG_UCX}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: b does not offer it; even shares, the bandwidth of a is not known: ",
         NULL},
        {"one that does not say which",
         {{.name = "a", .transports = ALL}, {.name = "b", .transports = ALL, .version = ""}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: b does not offer it; even shares, the bandwidth of a is not known: ",
         NULL},
        {"another release",
         {{.name = "a", .transports = ALL}, {.name = "b", .transports = ALL, .version = "2.18.1"}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: a has NCCL 2.27.7, b has 2.18.1; even shares, the bandwidth of a is not "
         "known: ",
         NULL},
        {"releases that differ where their names are long",
         {{.name = "a", .transports = ALL, .version = "2.27.7+cuda12.9-of-a-vendor-1"},
          {.name = "b", .transports = ALL, .version = "2.27.7+cuda12.9-of-a-vendor-2"}},
         "ab",
         SHM,
         NONE,
         1,
         "a has NCCL 2.27.7+cuda12.9-of-a-vendor-1, b has 2.27.7+cuda12.9-of-a-vendor-2; ",
         NULL},
        {"another release, and one more of the first",
         {{.name = "a", .transports = ALL},
          {.name = "b", .transports = ALL, .version = "2.18.1"},
          {.name = "c", .transports = ALL}},
         "ac",
         NCCL,
         SHM,
         1,
         NULL,
         NULL},
        {"hosts of which one has nothing for it to stand on",
         {{.name = "a", .transports = ALL},
          {.name = "b", .transports = ALL, .controls = GANG_SHM, .host = 2}},
         "ab",
         UCX,
         NONE,
         2,
         "; not over nccl: of b it cannot stand on ucx; even shares, the bandwidth of a is not "
         "known: ",
         NULL},
        {"hosts, and nothing but shared memory for it to stand on",
         {{.name = "a", .transports = GANG_NCCL, .controls = GANG_SHM},
          {.name = "b", .transports = GANG_NCCL, .controls = GANG_SHM, .host = 2}},
         NULL,
         NONE,
         NONE,
         0,
         NULL,
         NULL},
        {"no room for what it takes itself",
         {{.name = "a", .transports = ALL, .nccl_gb = 1.5},
          {.name = "b", .transports = ALL, .nccl_gb = 1.5}},
         "ab",
         SHM,
         NONE,
         1,
         "; not over nccl: with the 1610.6 MB that it takes of each GPU for each group of ranks so "
         "few have no room; even shares, the bandwidth of a is not known: a 3231.8 MB",
         NULL},
        {"room for one group, so shards where there would be stages",
         {{.name = "a", .transports = ALL, .nccl_gb = 0.8},
          {.name = "b", .transports = ALL, .nccl_gb = 0.8, .host = 2}},
         "ab",
         NCCL,
         UCX,
         1,
         "of a, b over nccl: ",
         NULL},
        {"room with three, where two do without it",
         {{.name = "a", .transports = ALL, .gb = 3.2, .nccl_gb = 0.9},
          {.name = "b", .transports = ALL, .gb = 3.2, .nccl_gb = 0.9},
          {.name = "c", .transports = ALL, .gb = 3.2, .nccl_gb = 0.9}},
         "ab",
         SHM,
         NONE,
         1,
         "so few have no room",
         NULL},
        {"one that takes more than can be counted",
         {{.name = "a", .transports = ALL, .nccl_gb = 17179869183.0},
          {.name = "b", .transports = ALL, .host = 2, .nccl_gb = 17179869183.0}},
         "ab",
         UCX,
         NONE,
         2,
         "so few have no room",
         NULL},
        {"a worker without a GPU has none, whatever it says",
         {{.name = "a", .transports = ALL, .is_cpu = true},
          {.name = "b", .transports = ALL, .is_cpu = true}},
         "ab",
         SHM,
         NONE,
         1,
         "of a, b over shm",
         "nccl"},
        {"transports of another day",
         {{.name = "a", .transports = GANG_SHM | 1u << 9, .version = ""},
          {.name = "b", .transports = GANG_SHM | 1u << 9, .version = ""}},
         "ab",
         SHM,
         NONE,
         1,
         NULL,
         NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t session[4] = {0};
        char got[8] = "";
        core_test_start(&t);
        for (size_t k = 0; k < 4 && table[i].gpus[k].name != NULL; k++) {
            const struct core_test_worker w = gpu_hello(&table[i].gpus[k]);
            session[k] = core_test_worker(&t, &w);
        }
        uint64_t client = core_test_client(&t, "c", "", 2);
        enum err err = core_test_submit_ask(&t, client, 1, "m", 20);
        if (err != (table[i].gang != NULL ? ERR_OK : ERR_TOO_LARGE))
            fail_msg("%s: %d", table[i].what, (int)err);
        for (size_t k = 0; k < 4 && session[k] != 0; k++) {
            struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
            if (pull.n_commands == 0)
                continue;
            const struct wire_gang_place *p = &pull.commands[0].load.place;
            got[p->rank] = table[i].gpus[k].name[0];
            if ((int)p->transport != table[i].transport || (int)p->control != table[i].control ||
                p->stages != table[i].stages)
                fail_msg("%s: transport %d on %d, %u stages", table[i].what, (int)p->transport,
                         (int)p->control, p->stages);
        }
        if (strcmp(got, table[i].gang != NULL ? table[i].gang : "") != 0)
            fail_msg("%s: %s", table[i].what, got);
        if (table[i].gang != NULL) {
            const char *said = core_test_explain(&t, client, 1)->gang;
            if ((table[i].says != NULL && strstr(said, table[i].says) == NULL) ||
                (table[i].not_said != NULL && strstr(said, table[i].not_said) != NULL))
                fail_msg("%s: %s", table[i].what, said);
        }
        core_test_fini(&t);
    }
}

/* ---- where it fails ---- */

struct pair {
    struct core_test t;
    uint64_t worker[2], client, acked[2];
    uint64_t gang;
    uint32_t transports; /* beside NCCL */
};

static void pair_hello(struct pair *p, uint32_t i)
{
    const struct gpu g = {
        .name = i == 0 ? "a" : "b", .transports = p->transports | GANG_NCCL, .controls = GANG_SHM};
    const struct core_test_worker w = gpu_hello(&g);
    p->worker[i] = core_test_worker(&p->t, &w);
    p->acked[i] = 0;
}

static void pair_start(struct pair *p, uint32_t transports)
{
    *p = (struct pair){.transports = transports};
    core_test_start(&p->t);
    for (uint32_t i = 0; i < 2; i++)
        pair_hello(p, i);
    p->client = core_test_client(&p->t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&p->t, p->client, 1, "m", 20), ERR_OK);
}

/* Over what they are told to load it now; UNSPECIFIED: they are not. */
static enum wire_gang_transport pair_told(struct pair *p)
{
    enum wire_gang_transport told = WIRE_GANG_TRANSPORT_UNSPECIFIED;
    for (uint32_t i = 0; i < 2; i++) {
        const struct wire_pull_reply pull = core_test_pull(&p->t, p->worker[i], p->acked[i]);
        for (size_t k = 0; k < pull.n_commands; k++) {
            p->acked[i] = pull.commands[k].seq;
            if (pull.commands[k].kind != WIRE_COMMAND_LOAD)
                continue;
            p->gang = pull.commands[k].load.place.gang;
            told = pull.commands[k].load.place.transport;
        }
    }
    return told;
}

static void pair_says(struct pair *p, enum wire_model_state state, const char *error)
{
    for (uint32_t i = 0; i < 2; i++) {
        const struct wire_gpu gpu = {
            .uuid = i == 0 ? "GPU-a" : "GPU-b", .pci = "", .driver = "", .trouble = ""};
        const struct wire_model_status status =
            gang_status_of(state, (struct gang_share){p->gang, i, 2}, error);
        struct wire_request report = {
            .kind = WIRE_REQUEST_REPORT,
            .session = p->worker[i],
            .report = {.models = &status, .n_models = 1, .gpus = &gpu, .n_gpus = 1}};
        assert_int_equal(core_test_ask(&p->t, &report)->kind, WIRE_REQUEST_REPORT);
    }
}

static void pair_fails(struct pair *p)
{
    pair_says(p, WIRE_MODEL_STATE_LOADING, "");
    pair_says(p, WIRE_MODEL_STATE_AVAILABLE, "meeting: rank 1: NCCL: unhandled system error");
}

/* Waits for the next one, which both hear of; seconds that it took. */
static uint32_t pair_again(struct pair *p, enum wire_gang_transport *ret_told)
{
    for (uint32_t s = 1; s <= 60; s++) {
        pair_says(p, WIRE_MODEL_STATE_AVAILABLE, "");
        core_test_wait(&p->t, 1000);
        *ret_told = pair_told(p);
        if (*ret_told != WIRE_GANG_TRANSPORT_UNSPECIFIED)
            return s;
    }
    fail_msg("none within a minute");
    return 0;
}

static void what_fails_over_nccl_twice_is_tried_without_it(void **state)
{
    enum wire_gang_transport told;
    struct pair p;
    (void)state;
    pair_start(&p, GANG_SHM);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    pair_fails(&p);
    assert_non_null(strstr(core_test_explain(&p.t, p.client, 1)->gang,
                           "ended: a left it: meeting: rank 1: NCCL: unhandled system error"));
    (void)pair_again(&p, &told);
    assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
    pair_fails(&p);
    (void)pair_again(&p, &told);
    assert_int_equal(told, WIRE_GANG_TRANSPORT_SHM);
    const char *gang = core_test_explain(&p.t, p.client, 1)->gang;
    assert_non_null(strstr(gang, "; not over nccl: gangs over it ended 2 times in a row before a "
                                 "token, and for 10 minutes from then they are formed without it; "
                                 "even shares, the bandwidth of a is not known: "));
    pair_says(&p, WIRE_MODEL_STATE_READY, "");
    (void)pair_told(&p);
    (void)core_test_report(&p.t, p.worker[0], 1, 1, 0, 20, WIRE_FINISH_LENGTH, ERR_OK);
    assert_int_equal(core_test_job(&p.t, p.client, 1).state, WIRE_JOB_STATE_DONE);

    /* Ten minutes later the next gang is over NCCL again. */
    pair_says(&p, WIRE_MODEL_STATE_AVAILABLE, "the engine was started anew");
    for (uint32_t s = 0; s < 600; s++) {
        pair_says(&p, WIRE_MODEL_STATE_AVAILABLE, "");
        core_test_wait(&p.t, 1000);
    }
    assert_int_equal(core_test_submit_ask(&p.t, p.client, 2, "m", 20), ERR_OK);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    core_test_fini(&p.t);
}

static void a_token_over_nccl_forgets_what_failed(void **state)
{
    enum wire_gang_transport told;
    struct pair p;
    (void)state;
    pair_start(&p, GANG_SHM);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    pair_fails(&p);
    (void)pair_again(&p, &told);
    assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
    pair_says(&p, WIRE_MODEL_STATE_READY, "");
    (void)pair_told(&p);
    (void)core_test_report(&p.t, p.worker[0], 1, 1, 0, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    for (uint32_t failures = 0; failures < 2; failures++) {
        pair_fails(&p);
        (void)pair_again(&p, &told);
        assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
    }
    core_test_fini(&p.t);
}

/* NCCL may end the process that it is in; which it was, nobody says. */
static void a_rank_that_dies_before_a_token_counts(void **state)
{
    enum wire_gang_transport told = WIRE_GANG_TRANSPORT_NCCL;
    struct pair p;
    (void)state;
    pair_start(&p, GANG_SHM);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
        pair_says(&p, WIRE_MODEL_STATE_LOADING, "");
        for (uint32_t k = 0; k < 2; k++) /* both come again with nothing */
            pair_hello(&p, k);
        (void)pair_again(&p, &told);
    }
    assert_int_equal(told, WIRE_GANG_TRANSPORT_SHM);
    core_test_fini(&p.t);
}

/* It is nothing that NCCL did where a worker says goodbye. */
static void who_leaves_in_peace_does_not_count(void **state)
{
    enum wire_gang_transport told;
    struct pair p;
    (void)state;
    pair_start(&p, GANG_SHM);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    for (uint32_t i = 0; i < 4; i++) {
        struct wire_request bye = {
            .kind = WIRE_REQUEST_GOODBYE, .session = p.worker[1], .goodbye = {.reason = "stopped"}};
        pair_says(&p, WIRE_MODEL_STATE_LOADING, "");
        (void)core_test_ask(&p.t, &bye);
        pair_hello(&p, 1);
        (void)pair_again(&p, &told);
        assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
    }
    core_test_fini(&p.t);
}

static void with_nothing_but_nccl_it_is_tried_later_and_later(void **state)
{
    enum wire_gang_transport told;
    struct pair p;
    (void)state;
    pair_start(&p, 0);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    for (uint32_t i = 0; i < 7; i++) {
        pair_fails(&p);
        const uint32_t seconds = pair_again(&p, &told);
        assert_int_equal(told, WIRE_GANG_TRANSPORT_NCCL);
        assert_true(seconds >= (i < 5 ? 1u << i : 32u));
    }
    core_test_fini(&p.t);
}

/* ---- beside one that works ---- */

/* a and b compute job 1, and have no pages for another: c and d are to have job 2, and never can.
 */
struct four {
    struct core_test t;
    uint64_t worker[4], acked[4], client;
    struct gang_share share[4];
    enum wire_gang_transport told; /* c and d, last */
};
static const char *const four_name[] = {"a", "b", "c", "d"};

static void four_start(struct four *f)
{
    *f = (struct four){.acked = {0}};
    core_test_start(&f->t);
    for (uint32_t i = 0; i < 4; i++) {
        const struct gpu g = {.name = four_name[i], .transports = ALL};
        const struct core_test_worker w = gpu_hello(&g);
        f->worker[i] = core_test_worker(&f->t, &w);
    }
    f->client = core_test_client(&f->t, "c", "", 4);
    assert_int_equal(core_test_submit_ask(&f->t, f->client, 1, "m", 200), ERR_OK);
}

static void four_pull(struct four *f)
{
    f->told = WIRE_GANG_TRANSPORT_UNSPECIFIED;
    for (uint32_t i = 0; i < 4; i++) {
        const struct wire_pull_reply pull = core_test_pull(&f->t, f->worker[i], f->acked[i]);
        for (size_t k = 0; k < pull.n_commands; k++) {
            const struct wire_command *command = &pull.commands[k];
            f->acked[i] = command->seq;
            if (command->kind != WIRE_COMMAND_LOAD)
                continue;
            f->share[i] =
                (struct gang_share){command->load.place.gang, command->load.place.rank, 2};
            f->told = i >= 2 ? command->load.place.transport : f->told;
        }
    }
}

static void four_says(struct four *f, uint32_t i, struct wire_model_status status)
{
    char uuid[16];
    (void)snprintf(uuid, sizeof uuid, "GPU-%s", four_name[i]);
    const struct wire_gpu gpu = {.uuid = uuid, .pci = "", .driver = "", .trouble = ""};
    struct wire_request report = {
        .kind = WIRE_REQUEST_REPORT,
        .session = f->worker[i],
        .report = {.models = &status, .n_models = 1, .gpus = &gpu, .n_gpus = 1}};
    assert_int_equal(core_test_ask(&f->t, &report)->kind, WIRE_REQUEST_REPORT);
}

static void four_second(struct four *f, uint32_t pages_free)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct wire_model_status ready = gang_status_of(WIRE_MODEL_STATE_READY, f->share[i], "");
        ready.kv_pages = 10;
        ready.kv_pages_free = pages_free;
        ready.waiting = pages_free == 0;
        four_says(f, i, ready);
    }
    for (uint32_t i = 2; i < 4; i++) {
        if (f->share[i].gang != 0)
            four_says(f, i, gang_status_of(WIRE_MODEL_STATE_LOADING, f->share[i], ""));
        four_says(f, i,
                  gang_status_of(WIRE_MODEL_STATE_AVAILABLE, f->share[i],
                                 f->share[i].gang != 0 ? "meeting: rank 1: NCCL: x" : ""));
        f->share[i] = (struct gang_share){0, 0, 0};
    }
    core_test_wait(&f->t, 1000);
    four_pull(f);
}

static void what_works_does_not_hide_what_never_does(void **state)
{
    static const uint32_t first_tokens[] = {1, 12}; /* seconds: before the others failed, behind */
    enum wire_gang_transport told[64];
    (void)state;
    for (size_t i = 0; i < sizeof first_tokens / sizeof first_tokens[0]; i++) {
        struct four f;
        uint32_t made = 0, n_told = 0;
        four_start(&f);
        four_pull(&f);
        assert_int_not_equal(f.share[0].gang, 0);
        for (uint32_t s = 0; s < 60; s++) {
            four_second(&f, s < 3 ? 10 : 0);
            if (f.told != WIRE_GANG_TRANSPORT_UNSPECIFIED)
                told[n_told++] = f.told;
            const uint32_t new = s >= first_tokens[i];
            (void)core_test_report(&f.t, f.worker[0], 1, 1, made, new, WIRE_FINISH_UNSPECIFIED,
                                   ERR_OK);
            made += new;
            if (s == 3)
                assert_int_equal(core_test_submit_ask(&f.t, f.client, 2, "m", 20), ERR_OK);
        }
        assert_int_equal(core_test_job(&f.t, f.client, 1).state, WIRE_JOB_STATE_RUNNING);
        /* Later and later: at once, and 1, 2, 4, 8 and 16 s after the one before. */
        if (n_told < 5 || n_told > 6)
            fail_msg("%u gangs in a minute", n_told);
        for (uint32_t k = 0; k < n_told; k++)
            assert_int_equal(told[k], k < 2 ? WIRE_GANG_TRANSPORT_NCCL : WIRE_GANG_TRANSPORT_SHM);
        core_test_fini(&f.t);
    }
}

/* ---- what is claimed ---- */

static uint64_t claimed(struct core_test *t, uint64_t client, const char *worker)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
    const struct wire_list_workers_reply *r = &core_test_ask(t, &request)->list_workers;
    for (size_t i = 0; i < r->n_workers; i++) {
        if (strcmp(r->workers[i].name, worker) == 0)
            return r->workers[i].claimed_bytes;
    }
    fail_msg("no worker %s", worker);
    return 0;
}

static void a_rank_that_comes_back_while_it_loads_keeps_its_claim(void **state)
{
    struct pair p;
    (void)state;
    pair_start(&p, GANG_SHM);
    assert_int_equal(pair_told(&p), WIRE_GANG_TRANSPORT_NCCL);
    pair_says(&p, WIRE_MODEL_STATE_LOADING, "");
    const uint64_t before = claimed(&p.t, p.client, "b");
    const struct wire_model_status has =
        gang_status_of(WIRE_MODEL_STATE_LOADING, (struct gang_share){p.gang, 1, 2}, "");
    const struct gpu g = {
        .name = "b", .transports = p.transports | GANG_NCCL, .controls = GANG_SHM};
    struct core_test_worker w = gpu_hello(&g);
    w.status = &has;
    w.n_status = 1;
    p.worker[1] = core_test_worker(&p.t, &w);
    assert_true(before > 3 * GB);
    assert_int_equal(claimed(&p.t, p.client, "b"), before);
    core_test_fini(&p.t);
}

/* Of a gang of before nobody says how it is cut or what it is over. */
static void a_rank_of_before_is_claimed_with_the_most_that_it_may_take(void **state)
{
    static const struct {
        const char *what;
        struct gpu gpu;
        uint32_t rank, ranks, groups; /* of the layout that has most of them */
    } table[] = {
        {"two stages, or shards", {.name = "a", .transports = ALL}, 1, 2, 3},
        {"two stages of two shards", {.name = "a", .transports = ALL}, 2, 4, 4},
        {"three stages", {.name = "a", .transports = ALL}, 1, 3, 3},
        {"it does not talk so", {.name = "a", .transports = GANG_SHM | GANG_UCX}, 1, 2, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct gang_share share = {3, table[i].rank, table[i].ranks}; /* of an earlier boot */
        const uint64_t part = 6 * GB + GB / 100; /* shares need not be even */
        struct wire_model_status has = gang_status_of(WIRE_MODEL_STATE_LOADING, share, "");
        struct core_test_worker w = gpu_hello(&table[i].gpu);
        struct core_test t;
        w.status = &has;
        w.n_status = 1;
        core_test_start(&t);
        const uint64_t worker = core_test_worker(&t, &w);
        const uint64_t client = core_test_client(&t, "c", "", 2);
        if (claimed(&t, client, "a") != part + table[i].groups * (GB / 2))
            fail_msg("%s: %llu", table[i].what, (unsigned long long)claimed(&t, client, "a"));
        /* What was only guessed gives way to what it says, however far from it that is. */
        has = gang_status_of(WIRE_MODEL_STATE_READY, share, "");
        has.weights_bytes = GB / 4;
        gang_says(&t, worker, has);
        assert_int_equal(claimed(&t, client, "a"), GB / 4);
        /* And that, from then on, to nothing that cannot be. */
        has.weights_bytes = 100 * GB;
        gang_says(&t, worker, has);
        assert_int_equal(claimed(&t, client, "a"), GB / 4);
        core_test_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_what_they_talk),
        cmocka_unit_test(what_fails_over_nccl_twice_is_tried_without_it),
        cmocka_unit_test(a_token_over_nccl_forgets_what_failed),
        cmocka_unit_test(a_rank_that_dies_before_a_token_counts),
        cmocka_unit_test(who_leaves_in_peace_does_not_count),
        cmocka_unit_test(with_nothing_but_nccl_it_is_tried_later_and_later),
        cmocka_unit_test(what_works_does_not_hide_what_never_does),
        cmocka_unit_test(a_rank_that_comes_back_while_it_loads_keeps_its_claim),
        cmocka_unit_test(a_rank_of_before_is_claimed_with_the_most_that_it_may_take),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
