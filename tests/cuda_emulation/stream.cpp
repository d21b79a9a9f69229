#include "tests/cuda_emulation/stream.h"

#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"

#include <algorithm>
#include <chrono>
#include <sched.h>
#include <string.h>

static struct CUstream_st legacy; /* stream 0: waits for blocking streams, and they for it */
static std::vector<struct CUstream_st *> streams; /* as they were created: a seed means the same */

static double now_ms(void)
{
    auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count();
}

static bool is_stream(const struct CUstream_st *handle)
{
    return std::find(streams.begin(), streams.end(), handle) != streams.end();
}

struct CUstream_st *emu_stream_of(cudaStream_t handle)
{
    if (handle == NULL || handle == cudaStreamLegacy)
        return &legacy;
    return is_stream(handle) ? handle : NULL;
}

/* --- What work touches of the host --- */

static uint64_t digest_of(const char *at, size_t size)
{
    uint64_t digest = size;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        digest = (digest ^ word) * 0x9e3779b97f4a7c15u;
        digest ^= digest >> 29;
    }
    for (; size > 0; at++, size--)
        digest = (digest ^ (unsigned char)*at) * 0x9e3779b97f4a7c15u;
    return digest;
}

static bool overlap(const char *a, size_t a_size, const char *b, size_t b_size)
{
    return a < b + b_size && b < a + a_size;
}

/* Whether work that is still queued writes (or, with `reads`, reads) these bytes. */
static bool is_queued_for(const char *at, size_t size, bool reads)
{
    auto in = [&](const struct CUstream_st *stream) {
        for (const struct emu_work &w : stream->work)
            if (w.kind == EMU_WORK_COPY &&
                (overlap(at, size, w.to, w.size) || (reads && overlap(at, size, w.from, w.size))))
                return true;
        return false;
    };
    for (const struct CUstream_st *stream : streams)
        if (in(stream))
            return true;
    return in(&legacy);
}

/* Until the copy has run, nothing may be written to its source and what its destination holds is no
 * promise. */
static void guard_copy(struct emu_work *w)
{
    w->guarded = emu_memory_is_pinned(w->from) && !is_queued_for(w->from, w->size, false);
    if (w->guarded)
        w->digest = digest_of(w->from, w->size);
    if (emu_memory_is_pinned(w->to) && !is_queued_for(w->to, w->size, true))
        memset(w->to, emu_schedule_poison(), w->size);
}

/* --- Running --- */

static void run_copy(const struct emu_work *w)
{
    if (w->guarded && digest_of(w->from, w->size) != w->digest) {
        char what[256];
        emu_memory_describe(w->from, what, sizeof what);
        emu_raise(
            EMU_FAULT_HOST_BUFFER, w->from,
            "%zu bytes of a pinned buffer (%s) are not what they were when their copy was queued",
            w->size, what);
    }
    memmove(w->to, w->from, w->size);
    emu_memory_copied(w->to, w->from, w->size);
}

static void run_launch(const struct emu_work *w)
{
    cudaError_t injected = emu_inject_at_launch(w->call.kernel);
    if (injected != cudaSuccess) {
        emu_device_fail(injected);
        return;
    }
    struct emu_call call = w->call;
    call.params = w->params->data();
    emu_grid_run(&call);
}

static void run(const struct emu_work *w)
{
    /* A device that has failed does nothing more; events are reached so that no wait hangs. */
    bool alive = emu_device_error() == cudaSuccess;
    emu_memory_open(true);
    switch (w->kind) {
    case EMU_WORK_COPY:
        if (alive)
            run_copy(w);
        break;
    case EMU_WORK_SET:
        if (alive) {
            memset(w->to, w->value, w->size);
            emu_memory_written(w->to, w->size);
        }
        break;
    case EMU_WORK_LAUNCH:
        if (alive)
            run_launch(w);
        break;
    case EMU_WORK_HOST:
        if (alive)
            w->function(w->data);
        break;
    case EMU_WORK_OUTSIDE:
        break; /* by run_turn */
    case EMU_WORK_RECORD:
        w->marker->reached = true;
        w->marker->ms = now_ms();
        break;
    case EMU_WORK_WAIT:
        emu_stream_reach(w->marker);
        break;
    }
}

/* A turn of what others do. It stays in line until it is done; a device that has failed does not
 * wait for it. */
static bool run_turn(struct CUstream_st *stream)
{
    struct emu_work w = stream->work.front();
    emu_memory_open(true);
    const bool is_done = emu_device_error() != cudaSuccess || w.turn(w.data);
    if (is_done)
        stream->work.pop_front();
    return is_done;
}

bool emu_stream_step(struct CUstream_st *stream)
{
    if (stream->work.empty())
        return false;
    if (stream->work.front().kind == EMU_WORK_OUTSIDE) {
        if (!run_turn(stream))
            sched_yield();
        return true;
    }
    struct emu_work w = stream->work.front();
    stream->work.pop_front();
    run(&w);
    return true;
}

void emu_stream_run_own(struct CUstream_st *stream)
{
    while (!stream->work.empty()) {
        if (stream->work.front().kind != EMU_WORK_OUTSIDE)
            emu_stream_step(stream);
        else if (!run_turn(stream))
            return;
    }
}

void emu_stream_reach(const std::shared_ptr<struct emu_marker> &marker)
{
    while (!marker->reached && emu_stream_step(marker->stream))
        continue;
}

void emu_stream_drain(struct CUstream_st *stream)
{
    while (emu_stream_step(stream))
        continue;
}

void emu_stream_drain_all(void)
{
    for (struct CUstream_st *stream : streams)
        while (!emu_schedule_chance(2) && emu_stream_step(stream))
            continue;
    emu_stream_drain(&legacy);
    for (struct CUstream_st *stream : streams)
        emu_stream_drain(stream);
}

/* --- Queueing --- */

static struct emu_work work_wait(struct CUstream_st *on)
{
    struct emu_work record = {};
    record.kind = EMU_WORK_RECORD;
    record.marker = std::make_shared<struct emu_marker>(emu_marker{on, false, 0});
    on->work.push_back(record);
    struct emu_work wait = {};
    wait.kind = EMU_WORK_WAIT;
    wait.marker = record.marker;
    return wait;
}

/* The legacy stream and blocking streams wait for each other; non-blocking streams are outside. */
static void order_with_legacy(struct CUstream_st *stream)
{
    if (stream == &legacy) {
        for (struct CUstream_st *other : streams)
            if ((other->flags & cudaStreamNonBlocking) == 0 && !other->work.empty())
                legacy.work.push_back(work_wait(other));
    } else if ((stream->flags & cudaStreamNonBlocking) == 0 && !legacy.work.empty()) {
        stream->work.push_back(work_wait(&legacy));
    }
}

void emu_stream_add(struct CUstream_st *stream, struct emu_work work)
{
    if (stream->graph != NULL) {
        stream->graph->work.push_back(work);
        stream->captured = stream->graph->work.size();
        stream->joined = false;
        return;
    }
    if (work.kind == EMU_WORK_COPY)
        guard_copy(&work);
    order_with_legacy(stream);
    stream->work.push_back(work);
    if (emu_schedule_get().order == EMU_ORDER_REVERSE)
        emu_stream_run_own(stream);
    for (struct CUstream_st *any : streams)
        while (emu_schedule_chance(4) && emu_stream_step(any))
            continue;
}

bool emu_capture_forbids(void)
{
    bool forbidden = false;
    for (struct CUstream_st *stream : streams) {
        if (stream->graph != NULL && stream->mode != cudaStreamCaptureModeRelaxed) {
            stream->invalidated = true;
            forbidden = true;
        }
    }
    return forbidden;
}

/* --- Streams --- */

static cudaError_t stream_new(cudaStream_t *ret_stream, unsigned flags)
{
    if (ret_stream == NULL || (flags & ~cudaStreamNonBlocking) != 0)
        return cudaErrorInvalidValue;
    struct CUstream_st *stream = new CUstream_st();
    stream->flags = flags;
    streams.push_back(stream);
    *ret_stream = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *pStream)
{
    emu_api api(__func__);
    return api.end(api.error != cudaSuccess ? api.error : stream_new(pStream, cudaStreamDefault));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *pStream, unsigned int flags)
{
    emu_api api(__func__);
    return api.end(api.error != cudaSuccess ? api.error : stream_new(pStream, flags));
}

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    emu_api api(__func__);
    if (!is_stream(handle))
        return api.end(cudaErrorInvalidResourceHandle);
    /* The call returns at once; what is queued still runs, and here that is now. */
    emu_stream_drain(handle);
    streams.erase(std::find(streams.begin(), streams.end(), handle));
    delete handle;
    return api.end(api.error);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (stream->graph != NULL) {
        stream->invalidated = true;
        return api.end(cudaErrorStreamCaptureUnsupported);
    }
    emu_stream_drain(stream);
    return api.end(emu_device_error());
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (stream->graph != NULL) {
        stream->invalidated = true;
        return api.end(cudaErrorStreamCaptureUnsupported);
    }
    /* A caller that polls must get on. */
    emu_stream_step(stream);
    if (emu_device_error() != cudaSuccess)
        return api.end(emu_device_error());
    return api.end(stream->work.empty() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t fn, void *userData)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL || fn == NULL)
        return api.end(cudaErrorInvalidValue);
    struct emu_work work = {};
    work.kind = EMU_WORK_HOST;
    work.function = fn;
    work.data = userData;
    emu_stream_add(stream, work);
    return api.end(cudaSuccess);
}

void emu_stream_outside(void *queue, bool (*turn)(void *), void *arg)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(static_cast<cudaStream_t>(queue));
    if (stream == NULL)
        emu_raise(EMU_FAULT_HOST_BUFFER, queue, "work of others on no stream");
    struct emu_work work = {};
    work.kind = EMU_WORK_OUTSIDE;
    work.turn = turn;
    work.data = arg;
    emu_stream_add(stream, work);
}

cudaError_t cudaDeviceSynchronize(void)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureUnsupported);
    emu_stream_drain_all();
    return api.end(emu_device_error());
}

/* --- Capture --- */

static void capture_leave(struct CUstream_st *stream)
{
    stream->graph = NULL;
    stream->is_origin = false;
    stream->invalidated = false;
    stream->captured = 0;
    stream->joined = false;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (stream == &legacy)
        return api.end(cudaErrorStreamCaptureUnsupported);
    if (stream->graph != NULL)
        return api.end(cudaErrorInvalidValue);
    stream->graph = new CUgraph_st();
    stream->is_origin = true;
    stream->mode = mode;
    return api.end(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *pGraph)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL || pGraph == NULL || stream->graph == NULL)
        return api.end(cudaErrorInvalidValue);
    if (!stream->is_origin)
        return api.end(cudaErrorStreamCaptureUnmatched);
    struct CUgraph_st *graph = stream->graph;
    cudaError_t result = stream->invalidated ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (struct CUstream_st *other : streams) {
        if (other->graph != graph)
            continue;
        if (other->invalidated)
            result = cudaErrorStreamCaptureInvalidated;
        else if (!other->is_origin && !other->joined && result == cudaSuccess)
            result = cudaErrorStreamCaptureUnjoined;
        capture_leave(other);
    }
    if (result != cudaSuccess) {
        delete graph;
        graph = NULL;
    }
    *pGraph = graph;
    return api.end(result);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *pCaptureStatus)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL || pCaptureStatus == NULL)
        return api.end(cudaErrorInvalidValue);
    *pCaptureStatus = stream->graph == NULL ? cudaStreamCaptureStatusNone
                      : stream->invalidated ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
    return api.end(cudaSuccess);
}
