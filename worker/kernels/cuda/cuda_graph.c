/*
 * Graphs: the launches of a step, some ten for each layer, queued as one.
 *
 * A step's launches follow from a few numbers (struct graph_key); all else that differs between two
 * steps with the same numbers lies in device memory that the kernels read. A key is captured when
 * it is seen the second time, since the first may still take memory, and most prompts' are never
 * seen again; from then on it is replayed. Pages are counted in powers of two, so that a growing
 * context is captured some ten times in all.
 *
 * No graph: steps that are not fixed (the host, or another device, has a part in them), and steps
 * of more than GRAPH_ROWS rows. They are prompts, whose keys hardly ever come again and whose
 * kernels run for longer than it takes to launch them.
 */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

#define GRAPH_ROWS 64u
#define GRAPHS_MAX 128u /* the one not used for longest makes room */

struct graph_key {
    uint32_t n_rows;
    uint32_t n_results;
    uint32_t pages_most;
    bool has_runs;
    uint32_t rope_dim;
    bool has_picks;
    const float *rope[BACKEND_STEP_ROPES_MAX];
};

struct graph {
    struct graph_key key;
    uint64_t used; /* when last; 0: no key here */
    cudaGraphExec_t exec;
};

struct cuda_graphs {
    struct graph graph[GRAPHS_MAX];
    struct graph *capturing;
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
    memcpy(key.rope, host->rope, sizeof key.rope);
    return key;
}

static void graph_drop(struct graph *g)
{
    if (g->exec != NULL)
        CUDA_DO(cudaGraphExecDestroy(g->exec), "giving back the graph of %u rows", g->key.n_rows);
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
    graph_drop(oldest);
    oldest->key = *key;
    return oldest;
}

void cuda_graphs_clear(struct cuda_backend *cuda)
{
    for (uint32_t i = 0; cuda->graphs != NULL && i < GRAPHS_MAX; i++)
        graph_drop(&cuda->graphs->graph[i]);
}

bool cuda_graphs_reserve(struct cuda_backend *cuda)
{
    if (cuda->graphs == NULL)
        cuda->graphs = calloc(1, sizeof *cuda->graphs);
    return cuda->graphs != NULL;
}

/* A graph takes some of the device's memory, how much nobody says before. Where there is no more,
 * this model's others go, once none of them runs. */
static void graph_make(struct cuda_backend *cuda, struct graph *g, cudaGraph_t captured)
{
    struct cuda_graphs *graphs = cuda->graphs;
    cudaError_t e = cudaGraphInstantiate(&g->exec, captured, 0);

    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        CUDA_DO(cudaStreamSynchronize(cuda->stream), "waiting before graphs are given back");
        for (struct graph *other = graphs->graph; other < graphs->graph + GRAPHS_MAX; other++)
            if (other != g)
                graph_drop(other);
        e = cudaGraphInstantiate(&g->exec, captured, 0);
    }
    CUDA_DO(e, "making a graph of a step of %u rows", g->key.n_rows);
}

bool cuda_graph_begin(struct cuda_backend *cuda)
{
    const struct graph_key key = graph_key_of(&cuda->step);
    CHECK(cuda_graphs_reserve(cuda));
    struct cuda_graphs *graphs = cuda->graphs;
    if (key.n_rows > GRAPH_ROWS || !cuda->step.host.is_fixed)
        return false;
    struct graph *g = graph_find(graphs, &key);
    const bool is_first = g->used == 0;
    g->used = ++graphs->clock;
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

    if (g == NULL)
        return;
    cuda->graphs->capturing = NULL;
    CUDA_DO(cudaStreamEndCapture(cuda->stream, &captured), "capturing a step of %u rows",
            g->key.n_rows);
    graph_make(cuda, g, captured);
    CUDA_DO(cudaGraphDestroy(captured), "giving back what was captured");
    CUDA_DO(cudaGraphLaunch(g->exec, cuda->stream), "running a step of %u rows", g->key.n_rows);
}
