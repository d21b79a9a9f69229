/*
 * Steps of a sharded model on emulated GPUs, of which what lies between two exchanges is a graph:
 * logits are the CPU's, bit for bit, while rows, lengths and pages of sequences change, and a step
 * whose like was seen before is as many graphs as it has stretches.
 *
 *   test_cuda_stretches TRANSPORT SHARDS STAGES
 *
 * Ranks are processes; what is counted is rank 0's.
 */
#include "common/check.h"
#include "tests/cuda_emulation/emulation.h"
#include "tests/unit/engine/tiny_model.h"
#include "worker/engine/forward.h"
#include "worker/engine_tool/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS    4u
#define CONTEXT  256u
#define STRIDE   (CONTEXT / KV_PAGE_TOKENS)
#define ROWS_MAX 96u
/* Halves take turns, so that each step has two forms; each is run, and captured. */
#define FORMS 2u
/* Steps until both of a step that is new are. */
#define NEW (2 * FORMS)

static struct {
    struct runtime *cpu, *gpu;
    uint32_t shards, stages, layers; /* layers: of rank 0 */
    uint32_t length[SLOTS];
    uint32_t pages[SLOTS * STRIDE];
    uint32_t n_pages; /* taken so far */
    bool is_put_off;  /* ranks exchange from device to device, in one stage */
} world;

struct counted {
    uint64_t graphs, launches;
    uint64_t marks; /* on the stream, behind copies and where NCCL is waited for */
};

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* A sequence begins anew, on pages that nobody has. */
static void begin(uint32_t slot)
{
    world.length[slot] = 0;
    for (uint32_t i = 0; i < STRIDE; i++)
        world.pages[slot * STRIDE + i] = world.n_pages++;
    CHECK(world.n_pages <= world.gpu->kv_pages);
}

static void compute(struct runtime *r, const char *what, const struct batch_plan *plan)
{
    struct errbuf eb = {{0}};
    enum err e = forward_step(r, plan, &eb);
    if (e == ERR_OK && forward_owes_logits(r, plan))
        e = forward_collect(r, plan, &eb);
    if (e != ERR_OK)
        die(what, eb.text);
}

/* Rows of one sequence, or one row of each of `n` sequences from `slot` on; the last `n_logits`
 * have logits. */
static struct counted step(const char *what, uint32_t slot, uint32_t n, bool is_run,
                           uint32_t n_logits)
{
    int32_t ids[ROWS_MAX];
    uint32_t position[ROWS_MAX], slots[ROWS_MAX];
    const size_t bytes = world.cpu->hparams.vocab_size * sizeof(float);

    CHECK(n <= ROWS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = is_run ? slot : (slot + i) % SLOTS;
        position[i] = world.length[slots[i]]++;
        ids[i] = (int32_t)((position[i] * 31 + slots[i] * 7 + 5) % world.cpu->hparams.vocab_size);
        CHECK(position[i] < CONTEXT);
    }
    const struct batch_plan plan = {.n_rows = n,
                                    .ids = ids,
                                    .position = position,
                                    .slot = slots,
                                    .n_logits = n_logits,
                                    .pages = world.pages,
                                    .pages_stride = STRIDE};
    const struct emu_traffic before = emu_traffic_get();
    compute(world.gpu, what, &plan);
    const struct emu_traffic after = emu_traffic_get();
    compute(world.cpu, what, &plan);
    for (uint32_t i = 0; i < n_logits; i++)
        if (memcmp(forward_logits(world.cpu, i), forward_logits(world.gpu, i), bytes) != 0)
            die(what, "other logits than on the CPU");
    return (struct counted){after.graph_launches - before.graph_launches,
                            after.launches - before.launches, after.records - before.records};
}

/* What rank 0 queues of a step that was there before. One stage: from norm to the product whose
 * sums are exchanged, of each matrix that is cut, and from the last joining to the head; beside
 * them it embeds, has rows placed by each shard, and takes the others' logits, one by one or, from
 * two on, as a graph. Of several stages this one ends with a joining, and hands rows on; logits
 * come later. A stage by itself is one stretch. */
static struct counted stretches(void)
{
    const uint32_t logits_of = world.stages == 1 ? world.shards - 1 : world.shards;
    struct counted most = {.graphs = logits_of > 1, .launches = logits_of == 1};

    if (world.shards == 1) {
        most.graphs++;
    } else {
        most.graphs += 2 * world.layers + (world.stages == 1 ? 1 : 0);
        most.launches += 1 + world.shards + (world.stages == 1 ? 0 : 1);
    }
    most.launches += world.stages == 1 ? 0 : 1;
    /* The step itself, what is embedded, what is placed from each shard, and two waits: for what is
     * embedded, and for all the rest. */
    most.marks = 2 + world.shards + 2;
    return most;
}

static void check_replay(const char *what, struct counted c)
{
    const struct counted most = stretches();
    char why[128];

    (void)snprintf(why, sizeof why,
                   "%llu graphs and %llu launches instead of %llu and at most %llu",
                   (unsigned long long)c.graphs, (unsigned long long)c.launches,
                   (unsigned long long)most.graphs, (unsigned long long)most.launches);
    if (c.graphs != most.graphs || c.launches > most.launches)
        die(what, why);
    (void)snprintf(why, sizeof why, "%llu marks instead of %llu", (unsigned long long)c.marks,
                   (unsigned long long)most.marks);
    if (world.is_put_off && c.marks > most.marks)
        die(what, why);
}

/* `times` steps of one row of each of so many sequences. From `new_until` on they were all there
 * before. */
static void decode(const char *what, uint32_t slot, uint32_t n, uint32_t times, uint32_t new_until)
{
    for (uint32_t t = 0; t < times; t++) {
        const struct counted c = step(what, slot, n, false, n);
        if (t >= new_until)
            check_replay(what, c);
        else if (t == 0 && new_until == NEW && c.graphs > 0)
            die(what, "a graph of what was never there");
    }
}

/* A step of as many rows is another one where its longest sequence has more pages, in powers of
 * two: not so among those that are called alike here. */
static void steps_run(void)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        begin(slot);
    if (step("a long prompt", 0, 70, true, 1).graphs != 0)
        die("a long prompt", "is a graph");
    decode("one row", 0, 1, 8, NEW);
    for (uint32_t t = 0; t < NEW + 3; t++) {
        const struct counted c = step("a short prompt", 1, 3, true, 1);
        if (t >= NEW)
            check_replay("a short prompt", c);
    }
    decode("two rows", 0, 2, 7, NEW);
    decode("one row again", 0, 1, 3, 0);
    /* Begins on pages that another has filled. */
    memcpy(&world.pages[2 * STRIDE], &world.pages[0], 2 * sizeof world.pages[0]);
    world.length[2] = 2 * KV_PAGE_TOKENS;
    (void)step("behind a prefix", 2, 5, true, 1);
    decode("three rows", 0, 3, 6, NEW);
    /* Gives its pages back, and is computed again on others. */
    const uint32_t length = world.length[0];
    begin(0);
    (void)step("after a preemption", 0, 60, true, 1);
    (void)step("after a preemption", 0, length - 60, true, 1);
    decode("three rows again, on other pages", 0, 3, 3, 0);
    decode("two rows again, of others", 1, 2, 3, 0);
}

static void steps_run_without_room(void)
{
    /* Of the first that is captured; then there is some, since others have gone. */
    emu_inject_call("cudaGraphInstantiate", 1, cudaErrorMemoryAllocation, false);
    decode("four rows, without room at first", 0, 4, NEW + 3, NEW);
    decode("one row, which has gone", 0, 1, 6, NEW);
    begin(3);
    /* None at all: what is not captured by now is launched, also when there would be room. */
    (void)step("five rows", 3, 5, true, 1);
    emu_inject_always("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    for (uint32_t t = 0; t + 1 < NEW; t++)
        if (step("five rows, without room", 3, 5, true, 1).graphs != 0)
            die("five rows", "a graph without room");
    emu_inject_clear();
    if (step("five rows, refused before", 3, 5, true, 1).graphs != 0)
        die("five rows", "tried again");
    decode("one row, which has gone too", 0, 1, 6, NEW);
}

/* Logits that come later are a step of their own, whose graphs may be those that go. */
static void stages_run_without_room(void)
{
    emu_inject_always("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    decode("four rows, without room", 0, 4, 3, 3);
    emu_inject_clear();
    decode("two rows, with room again", 0, 2, NEW + 3, NEW);
}

static void model_open(struct runtime **ret, const struct engine_config *given,
                       const struct engine_model_config *model)
{
    struct engine_config config;
    struct errbuf eb = {{0}};

    if (runtime_config_complete(given, &config, &eb) != ERR_OK ||
        runtime_open(ret, &config, model, NULL, &eb) != ERR_OK)
        die("loading", eb.text);
}

int main(int argc, char **argv)
{
    struct engine_config gpu = {.backend = ENGINE_BACKEND_CUDA, .threads = 1, .sequences = 8};
    const struct engine_config cpu = {.threads = 1, .sequences = 8};
    struct tiny_model tiny = tiny_model_default();
    struct gang_config gang = {0};
    struct emu_device device = emu_device_get();
    struct errbuf eb = {{0}};
    struct ranks ranks;
    char path[64];

    if (argc != 4 || !coll_transport_parse(argv[1], &gang.coll.transport))
        die("usage", "test_cuda_stretches TRANSPORT SHARDS STAGES");
    world.shards = (uint32_t)atoi(argv[2]);
    world.stages = (uint32_t)atoi(argv[3]);
    world.is_put_off = gang.coll.transport == COLL_TRANSPORT_NCCL && world.stages == 1;
    if (coll_transport_available(gang.coll.transport, &eb) != ERR_OK) {
        (void)fprintf(stderr, "skipped: %s\n", eb.text);
        return 77;
    }
    tiny.n_layers = 4;
    tiny.n_ff = 1024; /* something for each shard */
    tiny_model_write(&tiny, path);
    device.count = 4;
    emu_device_set(&device);
    const struct engine_model_config whole = {.path = path, .context_tokens = CONTEXT, .slots = 8};
    struct engine_model_config model = whole;
    model.shard.shards = world.shards;
    model.shard.stages = world.stages;
    model.gang = &gang;
    if (ranks_start(&ranks, &gpu, &model, &eb) != ERR_OK)
        die("starting", eb.text);
    model_open(&world.gpu, &gpu, &model);
    model_open(&world.cpu, &cpu, &whole);
    world.layers = shard_run_count(world.gpu->shard->layers);
    steps_run();
    if (world.stages == 1)
        steps_run_without_room();
    else
        stages_run_without_room();
    runtime_close(world.gpu);
    runtime_close(world.cpu);
    ranks_join(&ranks);
    (void)unlink(path);
    const struct counted most = stretches();
    printf("%s, %u shards, %u stages: %llu graphs and up to %llu launches a step\n", argv[1],
           world.shards, world.stages, (unsigned long long)most.graphs,
           (unsigned long long)most.launches);
    return EXIT_SUCCESS;
}
