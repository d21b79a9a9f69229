/*
 * One model on the engines of several hosts, over libucx: ranks are processes, in network
 * namespaces of their own with cables to a switch. As shards or as stages they answer as one engine
 * does, and when a cable is pulled, or a host's process ends, every engine fails the model with the
 * reason.
 *
 *   test_engine_gang_hosts loopback|netns
 *
 * loopback: on one host, over its own network. Skipped, saying why, where libucx or namespaces are
 * not to be had.
 */
#include "tests/unit/coll/crew.h"
#include "tests/unit/coll/netns.h"
#include "tests/unit/engine/tiny_model.h"
#include "worker/engine/engine.h"
#include "worker/engine/gang.h"

#include "common/check.h"
#include "common/clock.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   1u
#define TOLD_NS 3000000000u /* silence (1.5 s) and a busy machine */

enum step { STEP_APART = 1, STEP_CABLED = 2, STEP_ANSWERED = 3 };

static bool is_netns;

/* In memory that all processes share. */
struct answered {
    int32_t ids[16];
    size_t n_ids;
    uint8_t sha256[32];
};

struct play {
    char path[64];
    uint32_t shards, stages;
    struct answered *answered;
};

/* ---- an engine, in a process that runs no test --------------------------------------------- */

struct host {
    struct engine *engine;
    sem_t news;
};

static void host_notify(void *arg)
{
    struct host *h = arg;
    CHECK(sem_post(&h->news) == 0);
}

static void host_open(struct host *h)
{
    const struct engine_config config = {
        .threads = 1, .step_tokens = 24, .sequences = 2, .notify = host_notify, .notify_arg = h};
    struct errbuf eb = {{0}};
    CHECK(sem_init(&h->news, 0, 0) == 0);
    CHECK(engine_open(&h->engine, &config, &eb) == ERR_OK);
}

static void host_close(struct host *h)
{
    engine_close(h->engine);
    CHECK(sem_destroy(&h->news) == 0);
}

/* False where nothing is said for a minute. */
static bool host_next(struct host *h, struct engine_event *ret_event)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += 60;
    while (!engine_poll(h->engine, ret_event))
        if (sem_timedwait(&h->news, &until) != 0)
            return false;
    return true;
}

static enum err host_load(struct host *h, const struct play *play, const struct gang_config *gang,
                          struct errbuf *eb)
{
    struct engine_model_config model = {.path = play->path, .context_tokens = 128, .slots = 2};
    struct engine_event ev;
    if (gang != NULL) {
        model.shard.shards = play->shards;
        model.shard.stages = play->stages;
        model.rank = gang->coll.rank;
        model.gang = gang;
    }
    enum err e = engine_load(h->engine, MODEL, &model, eb);
    if (e != ERR_OK)
        return e;
    if (!host_next(h, &ev))
        return err_set(eb, ERR_TIMEOUT, "the engine said nothing for a minute");
    return ev.kind == ENGINE_EVENT_MODEL_READY ? ERR_OK
                                               : err_set(eb, ev.error, "%s", ev.error_text);
}

static enum err host_answer(struct host *h, struct answered *ret, struct errbuf *eb)
{
    static const char text[] = "a text that is longer than one page of the cache, and then some";
    const struct engine_job job = {
        .job_id = 1,
        .model_id = MODEL,
        .prompt_kind = ENGINE_PROMPT_TEXT,
        .text = text,
        .text_size = sizeof text - 1,
        .max_tokens = sizeof ret->ids / sizeof ret->ids[0],
        .sampling = sampling_default(),
        .ignore_end = true,
        .want_logits_digest = true,
    };
    struct engine_event ev = {.kind = ENGINE_EVENT_STARTED};
    enum err e = engine_submit(h->engine, &job, eb);
    while (e == ERR_OK && ev.kind != ENGINE_EVENT_FINISHED) {
        if (!host_next(h, &ev))
            return err_set(eb, ERR_TIMEOUT, "the engine said nothing for a minute");
        if (ev.kind == ENGINE_EVENT_MODEL_FAILED)
            return err_set(eb, ev.error, "%s", ev.error_text);
        for (size_t i = 0; ev.kind != ENGINE_EVENT_STARTED && i < ev.n_ids; i++)
            ret->ids[ret->n_ids++] = ev.ids[i];
    }
    memcpy(ret->sha256, ev.logits_sha256, sizeof ret->sha256);
    return e == ERR_OK && ev.finish == ENGINE_FINISH_ERROR
               ? err_set(eb, ev.error, "%s", ev.error_text)
               : e;
}

/* ---- a rank -------------------------------------------------------------------------------- */

static void wait_for_step(struct crew_report *report, uint32_t step)
{
    const uint64_t until = crew_soon(60000);
    while (atomic_load(&report->steps) < step) {
        CHECK(clock_mono_ns() < until);
        (void)usleep(5000);
    }
}

/* Rank 0's host is the switch as well. */
static void connect_host(struct crew_rank *g)
{
    struct crew_report *report = &g->gang->report[g->rank];
    CHECK(netns_move_out() == 0);
    if (g->rank == 0)
        CHECK(netns_run("ip link add switch0 type bridge forward_delay 0", 0, 0) == 0);
    atomic_store(&report->steps, STEP_APART);
    wait_for_step(report, STEP_CABLED);
    for (uint32_t k = 1; g->rank == 0 && k < g->gang->n_ranks; k++)
        CHECK(netns_run("ip link set port%u master switch0 up", k, 0) == 0);
    if (g->rank > 0)
        CHECK(netns_run("ip link set cable%u name cable0 && ip link set cable0 up", g->rank, 0) ==
              0);
    else
        CHECK(netns_run("ip link set switch0 up", 0, 0) == 0);
    CHECK(netns_run(g->rank == 0 ? "ip addr add 10.78.0.%u/24 dev switch0"
                                 : "ip addr add 10.78.0.%u/24 dev cable0",
                    g->rank + 1, 0) == 0);
    /* A cable carries when both its ends are up. */
    while (netns_run(g->rank == 0 ? "ip link show switch0 | grep -q LOWER_UP"
                                  : "ip link show cable0 | grep -q LOWER_UP",
                     0, 0) != 0)
        (void)usleep(10000);
}

/* Answers as rank 0, or follows; then waits for the gang's end, and reports it. */
static enum err far_apart(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct play *play = arg;
    struct crew_report *report = &g->gang->report[g->rank];
    const struct gang_config gang = {
        .coll = g->config, .meet_ms = 60000, .load_ms = 60000, .wait_ms = 30000};
    struct engine_event ev;
    struct host h;
    if (is_netns)
        connect_host(g);
    host_open(&h);
    enum err e = host_load(&h, play, &gang, eb);
    if (e == ERR_OK && g->rank == 0)
        e = host_answer(&h, play->answered, eb);
    if (e == ERR_OK) {
        atomic_store(&report->steps, STEP_ANSWERED);
        if (!host_next(&h, &ev))
            e = err_set(eb, ERR_TIMEOUT, "the engine said nothing for a minute");
        else if (ev.kind == ENGINE_EVENT_MODEL_FAILED)
            e = err_set(eb, ev.error, "%s", ev.error_text);
    }
    host_close(&h);
    return e;
}

/* ---- the test ------------------------------------------------------------------------------ */

static void lay_cables(struct crew *gang)
{
    crew_reach(gang, COLL_RANKS_MAX, STEP_APART);
    for (uint32_t k = 1; k < gang->n_ranks; k++) {
        char command[128];
        (void)snprintf(command, sizeof command,
                       "ip link add port%u netns %%u type veth peer name cable%u netns %%u", k, k);
        if (netns_run(command, (unsigned)gang->pid[0], (unsigned)gang->pid[k]) != 0) {
            crew_fini(gang);
            netns_skip("no cable (veth) is to be had here");
        }
    }
    for (uint32_t r = 0; r < gang->n_ranks; r++)
        atomic_store(&gang->report[r].steps, STEP_CABLED);
}

static void assert_all_told(struct crew *gang, uint32_t gone, uint64_t since_ns)
{
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        const struct crew_report *report = &gang->report[r];
        if (r == gone)
            continue;
        if (report->e != ERR_UNAVAILABLE || strstr(report->eb.text, "rank ") == NULL)
            fail_msg("rank %u: %s: %s", r, err_name(report->e), report->eb.text);
        if (report->ended_ns > since_ns + TOLD_NS)
            fail_msg("rank %u was told after %llu ms", r,
                     (unsigned long long)((report->ended_ns - since_ns) / 1000000u));
    }
}

/* Each rank in turn is lost. */
static void hosts_answer_as_one(uint32_t stages, uint32_t shards)
{
    const uint32_t n_ranks = stages * shards;
    const struct tiny_model tiny = tiny_model_default();
    struct answered one = {.n_ids = 0};
    struct errbuf eb = {{0}};
    struct play play = {.stages = stages, .shards = shards};
    struct host h;

    tiny_model_write(&tiny, play.path);
    play.answered = mmap(NULL, sizeof *play.answered, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(play.answered != MAP_FAILED);
    host_open(&h);
    if (host_load(&h, &play, NULL, &eb) != ERR_OK || host_answer(&h, &one, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    host_close(&h);
    for (uint32_t gone = 0; gone < n_ranks; gone++) {
        struct crew gang;
        memset(play.answered, 0, sizeof *play.answered);
        crew_init(&gang, COLL_TRANSPORT_UCX, n_ranks, far_apart, &play);
        gang.silence_ms = 0; /* the default */
        crew_start(&gang);
        if (is_netns)
            lay_cables(&gang);
        assert_true(crew_carry(&gang));
        crew_reach(&gang, COLL_RANKS_MAX, STEP_ANSWERED);
        assert_int_equal(play.answered->n_ids, one.n_ids);
        assert_memory_equal(play.answered, &one, sizeof one);
        const uint64_t since = clock_mono_ns();
        uint32_t dead = gone;
        if (is_netns && gone > 0) {
            /* A cable is pulled; the process at its other end lives, and fails likewise. */
            char command[128];
            (void)snprintf(command, sizeof command, "nsenter -t %u -n ip link set cable0 down",
                           (unsigned)gang.pid[gone]);
            assert_int_equal(netns_run(command, 0, 0), 0);
            dead = n_ranks;
        } else {
            crew_kill(&gang, gone);
        }
        assert_true(crew_wait(&gang, 30000));
        assert_all_told(&gang, dead, since);
        crew_fini(&gang);
    }
    (void)munmap(play.answered, sizeof *play.answered);
    assert_int_equal(unlink(play.path), 0);
}

static void three_shards_answer_as_one(void **state)
{
    (void)state;
    hosts_answer_as_one(1, 3);
}

static void two_stages_of_two_shards_answer_as_one(void **state)
{
    (void)state;
    hosts_answer_as_one(2, 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_shards_answer_as_one),
        cmocka_unit_test(two_stages_of_two_shards_answer_as_one),
    };
    if (argc != 2 || (strcmp(argv[1], "loopback") != 0 && strcmp(argv[1], "netns") != 0)) {
        fprintf(stderr, "usage: %s loopback|netns\n", argv[0]);
        return 2;
    }
    is_netns = strcmp(argv[1], "netns") == 0;
    if (!crew_has_transport(COLL_TRANSPORT_UCX))
        return 77;
    if (is_netns)
        netns_require();
    return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
