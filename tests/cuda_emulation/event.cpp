/* event.cpp - events: markers in streams, what waits for them, and how captures fork and join. */
#include "tests/cuda_emulation/stream.h"

#include <set>

static std::set<struct CUevent_st *> events;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (event == NULL || (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0)
        return api.end(cudaErrorInvalidValue);
    *event = new CUevent_st();
    (*event)->flags = flags;
    events.insert(*event);
    return api.end(cudaSuccess);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    emu_api api(__func__);
    if (events.erase(event) == 0)
        return api.end(cudaErrorInvalidResourceHandle);
    delete event;
    return api.end(api.error);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (events.count(event) == 0 || stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    emu_traffic_now.records++;
    event->graph = stream->graph;
    event->marker = NULL;
    if (stream->graph != NULL) {
        event->captured_stream = stream;
        event->captured = stream->captured;
        return api.end(cudaSuccess);
    }
    event->marker = std::make_shared<struct emu_marker>(emu_marker{stream, false, 0});
    struct emu_work work = {};
    work.kind = EMU_WORK_RECORD;
    work.marker = event->marker;
    emu_stream_add(stream, work);
    return api.end(cudaSuccess);
}

/* The work of a capture stands in one order that holds to every dependency, so nothing is recorded
 * of a wait but that the streams belong together. */
static cudaError_t wait_captured(struct CUstream_st *stream, const struct CUevent_st *event)
{
    if (event->graph == NULL)
        return cudaErrorStreamCaptureIsolation;
    struct CUstream_st *other = emu_stream_of(event->captured_stream);
    if (other == NULL || other->graph != event->graph)
        return cudaErrorCapturedEvent; /* of a capture that has ended */
    if (stream->graph != NULL && stream->graph != event->graph)
        return cudaErrorStreamCaptureMerge;
    if (stream->graph == NULL) {
        stream->graph = event->graph;
        stream->mode = other->mode;
        stream->captured = event->captured;
        stream->joined = false;
    } else if (event->captured >= other->captured) {
        other->joined = true;
    }
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned int)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (events.count(event) == 0 || stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (event->graph != NULL || stream->graph != NULL)
        return api.end(wait_captured(stream, event));
    if (event->marker == NULL)
        return api.end(cudaSuccess);
    struct emu_work work = {};
    work.kind = EMU_WORK_WAIT;
    work.marker = event->marker;
    emu_stream_add(stream, work);
    return api.end(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (events.count(event) == 0)
        return api.end(cudaErrorInvalidResourceHandle);
    if (event->graph != NULL)
        return api.end(cudaErrorCapturedEvent);
    if (event->marker != NULL)
        emu_stream_reach(event->marker);
    return api.end(emu_device_error());
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (events.count(event) == 0)
        return api.end(cudaErrorInvalidResourceHandle);
    if (event->graph != NULL)
        return api.end(cudaErrorCapturedEvent);
    if (event->graph != NULL)
        return api.end(cudaErrorCapturedEvent);
    if (event->marker == NULL || event->marker->reached)
        return api.end(cudaSuccess);
    emu_stream_step(event->marker->stream);
    if (emu_device_error() != cudaSuccess)
        return api.end(emu_device_error());
    return api.end(event->marker->reached ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (events.count(start) == 0 || events.count(end) == 0 || ms == NULL ||
        ((start->flags | end->flags) & cudaEventDisableTiming) != 0 || start->marker == NULL ||
        end->marker == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (!start->marker->reached || !end->marker->reached)
        return api.end(cudaErrorNotReady);
    *ms = (float)(end->marker->ms - start->marker->ms);
    return api.end(cudaSuccess);
}
