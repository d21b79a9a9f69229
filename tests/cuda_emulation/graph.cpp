/* graph.cpp - graphs: captured work that is queued again as a whole. */
#include "tests/cuda_emulation/stream.h"

#include <set>

static std::set<struct CUgraphExec_st *> execs;

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *pGraphExec, cudaGraph_t graph, unsigned long long)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (pGraphExec == NULL || graph == NULL)
        return api.end(cudaErrorInvalidValue);
    *pGraphExec = new CUgraphExec_st();
    (*pGraphExec)->work = graph->work;
    execs.insert(*pGraphExec);
    return api.end(cudaSuccess);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *numNodes)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    /* How many there are is told; what they are is not. */
    if (graph == NULL || numNodes == NULL || nodes != NULL)
        return api.end(cudaErrorInvalidValue);
    *numNodes = graph->work.size();
    return api.end(cudaSuccess);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graphExec, cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (execs.count(graphExec) == 0 || stream == NULL)
        return api.end(cudaErrorInvalidValue);
    emu_traffic_now.graph_launches++;
    for (const struct emu_work &work : graphExec->work)
        emu_stream_add(stream, work);
    return api.end(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graphExec)
{
    emu_api api(__func__);
    if (execs.erase(graphExec) == 0)
        return api.end(cudaErrorInvalidValue);
    delete graphExec;
    return api.end(api.error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    emu_api api(__func__);
    if (graph == NULL)
        return api.end(cudaErrorInvalidValue);
    delete graph;
    return api.end(api.error);
}
