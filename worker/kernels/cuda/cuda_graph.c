/*
 * Graphs: the launches of a step, some ten for each layer, queued as one.
 *
 * A step's launches follow from a few numbers (struct graph_key); all else that differs between two
 * steps with the same numbers lies in device memory that the kernels read. A key is captured when
 * it is seen the second time, since the first may still take memory, and most prompts' are never
 * seen again; from then on it is replayed. Pages are counted in powers of two, so that a growing
 * context is captured some ten times in all.
 *
 * A step between whose operations ranks of a gang exchange something (may_hold) is not one graph
 * but one for each stretch between two exchanges. What a stretch launches follows from the key and
 * from the operations' arguments, among them the halves in which exchanged bytes lie, which take
 * turns. So operations are held back (cuda_held.c) until the stretch ends, and what is compared
 * then are their arguments: a stretch that came before is captured the second time, and replayed
 * from then on. One operation alone is launched as it is.
 *
 * No graph: steps in which the host has another part, and steps of more than GRAPH_ROWS rows. They
 * are prompts, whose keys hardly ever come again and whose kernels run for longer than it takes to
 * launch them.
 */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

#define GRAPH_ROWS 64u
#define GRAPHS_MAX 128u /* the one not used for longest makes room */
/* ... and so for stretches, of all steps: those of 63 of a model of 32 layers, whose halves take
 * turns. They have five to seven launches each, so that this is what 128 whole steps have. */
#define STRETCHES_MAX 8192u

struct graph_key {
    uint32_t n_rows;
    uint32_t n_results;
    uint32_t pages_most;
    bool has_runs;
    uint32_t rope_dim;
    bool has_picks;
    bool is_cut; /* into stretches */
    const float *rope[BACKEND_STEP_ROPES_MAX];
};

struct stretch {
    uint64_t *words; /* [n_words] its operations */
    uint32_t n_words;
    bool is_refused; /* there was no room for its graph */
    cudaGraphExec_t exec;
};

/* A step's: its own, or those of its stretches. */
struct graph {
    struct graph_key key;
    uint64_t used; /* when last; 0: no key here */
    cudaGraphExec_t exec;
    struct stretch *stretches; /* as they came first */
    uint32_t n_stretches, stretches_max;
    uint32_t next; /* the one that should come, in the order of before */
};

struct cuda_graphs {
    struct graph graph[GRAPHS_MAX];
    struct graph *capturing;
    struct graph *cut; /* the open step's, where it is in stretches */
    uint32_t n_stretches;
    uint64_t clock;
};

static struct graph_key graph_key_of(const struct cuda_step *step)
{
    const struct backend_step *host = &step->host;
    struct graph_key key;
    memset(&key, 0, sizeof key); /* keys are compared byte by byte */
    key.n_rows = host->rows.n_rows;
    key.n_results = host->n_results;
    key.pages_most = step->pages_most;
    key.has_runs = step->has_runs;
    key.rope_dim = host->rope_dim;
    key.has_picks = host->picks != NULL;
    key.is_cut = !host->is_fixed;
    memcpy(key.rope, host->rope, sizeof key.rope);
    return key;
}

static void exec_drop(cudaGraphExec_t exec, uint32_t n_rows)
{
    if (exec != NULL)
        CUDA_DO(cudaGraphExecDestroy(exec), "giving back the graph of %u rows", n_rows);
}

static void graph_drop(struct cuda_graphs *graphs, struct graph *g)
{
    exec_drop(g->exec, g->key.n_rows);
    for (uint32_t i = 0; i < g->n_stretches; i++) {
        exec_drop(g->stretches[i].exec, g->key.n_rows);
        free(g->stretches[i].words);
    }
    free(g->stretches);
    graphs->n_stretches -= g->n_stretches;
    if (graphs->cut == g)
        graphs->cut = NULL; /* what is left of the step is launched as it is */
    *g = (struct graph){0};
}

/* The key's graph, or a place for it. */
static struct graph *graph_find(struct cuda_graphs *graphs, const struct graph_key *key)
{
    struct graph *oldest = graphs->graph;

    for (struct graph *g = graphs->graph; g < graphs->graph + GRAPHS_MAX; g++) {
        if (g->used > 0 && memcmp(&g->key, key, sizeof *key) == 0)
            return g;
        if (g->used < oldest->used)
            oldest = g;
    }
    graph_drop(graphs, oldest);
    oldest->key = *key;
    return oldest;
}

void cuda_graphs_clear(struct cuda_backend *cuda)
{
    for (uint32_t i = 0; cuda->graphs != NULL && i < GRAPHS_MAX; i++)
        graph_drop(cuda->graphs, &cuda->graphs->graph[i]);
}

bool cuda_graphs_reserve(struct cuda_backend *cuda)
{
    if (cuda->graphs == NULL)
        cuda->graphs = calloc(1, sizeof *cuda->graphs);
    return cuda->graphs != NULL;
}

/* A graph takes some of the device's memory, how much nobody says before. Where there is no more,
 * this model's others go, once none of them runs: those of other steps, `own` being this one's. */
static cudaError_t graph_make(struct cuda_backend *cuda, const struct graph *own,
                              cudaGraph_t captured, cudaGraphExec_t *ret_exec)
{
    struct cuda_graphs *graphs = cuda->graphs;
    cudaError_t e = cudaGraphInstantiate(ret_exec, captured, 0);

    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        CUDA_DO(cudaStreamSynchronize(cuda->stream), "waiting before graphs are given back");
        for (struct graph *other = graphs->graph; other < graphs->graph + GRAPHS_MAX; other++)
            if (other != own)
                graph_drop(graphs, other);
        e = cudaGraphInstantiate(ret_exec, captured, 0);
    }
    if (e != cudaSuccess)
        *ret_exec = NULL;
    return e;
}

/* ---- stretches ------------------------------------------------------------------------------- */

static struct stretch *stretch_find(struct graph *g, const struct cuda_stretch *held)
{
    for (uint32_t i = 0; i < g->n_stretches; i++) {
        const uint32_t at = (g->next + i) % g->n_stretches;
        struct stretch *s = &g->stretches[at];
        if (s->n_words != held->n || memcmp(s->words, held->words, held->n * sizeof *s->words) != 0)
            continue;
        g->next = at + 1;
        return s;
    }
    return NULL;
}

/* Room for one more among those of all steps; false where this step has all of them. */
static bool stretches_room(struct cuda_graphs *graphs, const struct graph *own)
{
    while (graphs->n_stretches >= STRETCHES_MAX) {
        struct graph *oldest = NULL;
        for (struct graph *g = graphs->graph; g < graphs->graph + GRAPHS_MAX; g++)
            if (g != own && g->n_stretches > 0 && (oldest == NULL || g->used < oldest->used))
                oldest = g;
        if (oldest == NULL)
            return false;
        graph_drop(graphs, oldest);
    }
    return true;
}

/* Remembers what came the first time. Where that fails it stays unknown. */
static void stretch_add(struct cuda_graphs *graphs, struct graph *g,
                        const struct cuda_stretch *held)
{
    if (!stretches_room(graphs, g))
        return;
    if (g->n_stretches == g->stretches_max) {
        const uint32_t max = g->stretches_max == 0 ? 32 : 2 * g->stretches_max;
        struct stretch *grown = realloc(g->stretches, max * sizeof *grown);
        if (grown == NULL)
            return;
        g->stretches = grown;
        g->stretches_max = max;
    }
    struct stretch *s = &g->stretches[g->n_stretches];
    *s = (struct stretch){.words = malloc(held->n * sizeof *s->words), .n_words = held->n};
    if (s->words == NULL)
        return;
    memcpy(s->words, held->words, held->n * sizeof *s->words);
    g->n_stretches++;
    graphs->n_stretches++;
    g->next = g->n_stretches;
}

/* False where there is no room for its graph, even without those of other steps. */
static bool stretch_capture(struct cuda_backend *cuda, struct graph *g, struct stretch *s,
                            const struct cuda_stretch *held)
{
    const uint32_t n_ops = held->n_ops, n_rows = g->key.n_rows;
    cudaGraph_t captured = NULL;

    CUDA_DO(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
            "capturing %u operations of a step of %u rows", n_ops, n_rows);
    cuda->graphs->capturing = g;
    cuda_held_run(cuda, held);
    cuda->graphs->capturing = NULL;
    CUDA_DO(cudaStreamEndCapture(cuda->stream, &captured),
            "capturing %u operations of a step of %u rows", n_ops, n_rows);
    const cudaError_t e = graph_make(cuda, g, captured, &s->exec);
    if (e == cudaErrorMemoryAllocation)
        (void)cudaGetLastError();
    else
        CUDA_DO(e, "making a graph of %u operations of a step of %u rows", n_ops, n_rows);
    CUDA_DO(cudaGraphDestroy(captured), "giving back what was captured");
    s->is_refused = e != cudaSuccess;
    return !s->is_refused;
}

bool cuda_stretch_is_known(struct cuda_backend *cuda, const struct cuda_stretch *held)
{
    struct graph *g = cuda->graphs->cut;
    const struct stretch *s = g == NULL ? NULL : stretch_find(g, held);

    return s != NULL && (s->exec != NULL || held->n_ops == 1);
}

void cuda_stretch_queue(struct cuda_backend *cuda, const struct cuda_stretch *held)
{
    struct graph *g = cuda->graphs->cut;
    struct stretch *s = g == NULL ? NULL : stretch_find(g, held);
    const bool may_be_graph = s != NULL && held->n_ops > 1 && !s->is_refused;

    cuda_held_say(cuda, held);
    if (may_be_graph && (s->exec != NULL || stretch_capture(cuda, g, s, held))) {
        CUDA_DO(cudaGraphLaunch(s->exec, cuda->stream),
                "replaying %u operations, %s to %s, of a step of %u rows", cuda->said.n_ops,
                cuda->said.first, cuda->said.last, cuda->said.n_rows);
        return;
    }
    if (s == NULL && g != NULL)
        stretch_add(cuda->graphs, g, held);
    cuda_held_run(cuda, held);
}

static void cut_end(struct cuda_backend *cuda)
{
    cuda_held_end(cuda);
    cuda->step.is_held = false;
    cuda->graphs->cut = NULL;
}

/* ---- steps ----------------------------------------------------------------------------------- */

bool cuda_graph_begin(struct cuda_backend *cuda)
{
    const struct graph_key key = graph_key_of(&cuda->step);
    CHECK(cuda_graphs_reserve(cuda));
    struct cuda_graphs *graphs = cuda->graphs;
    if (key.n_rows > GRAPH_ROWS || !(cuda->step.host.is_fixed || cuda->step.host.may_hold))
        return false;
    struct graph *g = graph_find(graphs, &key);
    const bool is_first = g->used == 0;
    g->used = ++graphs->clock;
    if (key.is_cut) {
        graphs->cut = g;
        cuda->step.is_held = true;
        return false;
    }
    if (g->exec != NULL) {
        CUDA_DO(cudaGraphLaunch(g->exec, cuda->stream), "replaying a step of %u rows", key.n_rows);
        return true;
    }
    if (is_first)
        return false;
    /* Thread-local: other threads may be loading another model meanwhile. */
    CUDA_DO(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
            "capturing a step of %u rows", key.n_rows);
    graphs->capturing = g;
    return false;
}

bool cuda_graph_is_capturing(const struct cuda_backend *cuda)
{
    return cuda->graphs != NULL && cuda->graphs->capturing != NULL;
}

void cuda_graph_end(struct cuda_backend *cuda)
{
    struct graph *g = cuda->graphs->capturing;
    cudaGraph_t captured = NULL;

    if (cuda->step.is_held)
        cut_end(cuda);
    if (g == NULL)
        return;
    cuda->graphs->capturing = NULL;
    CUDA_DO(cudaStreamEndCapture(cuda->stream, &captured), "capturing a step of %u rows",
            g->key.n_rows);
    CUDA_DO(graph_make(cuda, g, captured, &g->exec), "making a graph of a step of %u rows",
            g->key.n_rows);
    CUDA_DO(cudaGraphDestroy(captured), "giving back what was captured");
    CUDA_DO(cudaGraphLaunch(g->exec, cuda->stream), "running a step of %u rows", g->key.n_rows);
}
