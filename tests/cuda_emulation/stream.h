/*
 * stream.h - the queues of work: what a stream has been given and has not done yet, events in it,
 * and graphs, which are work kept to be given again. runtime_*.cpp is the API over it.
 *
 * Work runs on the OS thread that waits for it, or, by the schedule, on one that happens to call.
 * All of it, kernels included, is under one lock.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_STREAM_H
#define CLOISTER_TESTS_CUDA_EMULATION_STREAM_H

#include "tests/cuda_emulation/emulation.h"

#include <cuda_runtime.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

/* A point in a stream that has been reached or not. */
struct emu_marker {
    cudaStream_t stream;
    bool reached;
    double ms; /* when */
};

enum emu_work_kind {
    EMU_WORK_COPY,
    EMU_WORK_SET,
    EMU_WORK_LAUNCH,
    EMU_WORK_HOST,
    EMU_WORK_OUTSIDE,
    EMU_WORK_RECORD,
    EMU_WORK_WAIT,
};

struct emu_work {
    enum emu_work_kind kind;
    /* COPY, SET */
    char *to;
    const char *from;
    size_t size;
    int value;
    bool guarded; /* the source is pinned, and `digest` what it was when the copy was queued */
    uint64_t digest;
    /* LAUNCH */
    struct emu_call call;
    std::shared_ptr<std::vector<std::max_align_t>> params;
    /* HOST */
    cudaHostFn_t function;
    void *data;
    /* OUTSIDE */
    bool (*turn)(void *);
    /* RECORD, WAIT */
    std::shared_ptr<struct emu_marker> marker;
};

struct CUgraph_st {
    std::vector<struct emu_work>
        work; /* as it was captured: an order that holds to all dependencies */
};

struct CUgraphExec_st {
    std::vector<struct emu_work> work;
};

struct CUstream_st {
    unsigned flags;
    std::deque<struct emu_work> work;
    /* While it is captured: */
    struct CUgraph_st *graph;
    bool is_origin; /* capture began here; other streams of it were forked from it by an event */
    bool invalidated;
    enum cudaStreamCaptureMode mode;
    size_t captured; /* work of the graph up to and with this stream's last */
    bool joined;     /* the origin has waited for all of it */
};

struct CUevent_st {
    unsigned flags;
    std::shared_ptr<struct emu_marker> marker; /* of the last record; NULL: never recorded */
    /* Recorded while captured: where. */
    struct CUgraph_st *graph;
    cudaStream_t captured_stream;
    size_t captured;
};

/* One call of the runtime API: holds the lock, counts, and says whether the call is to fail. */
class emu_api {
  public:
    explicit emu_api(const char *function);
    ~emu_api();
    emu_api(const emu_api &) = delete;
    /* Injected, or what ended the device: the call must do nothing and return end(error). */
    cudaError_t error;
    /* The call's result, kept for cudaGetLastError. */
    cudaError_t end(cudaError_t result);
};

/* The device has failed: all calls return this from now on. */
void emu_device_fail(cudaError_t error);
cudaError_t emu_device_error(void);
/* The error to inject into this launch, or cudaSuccess. */
cudaError_t emu_inject_at_launch(const char *kernel);

extern struct emu_traffic emu_traffic_now;
/* The calling thread's device. */
int emu_device_current(void);

/* The stream of a handle, NULL being the legacy stream; NULL where there is none. */
struct CUstream_st *emu_stream_of(cudaStream_t handle);
/* Gives work to a stream, or to the graph it is captured into. */
void emu_stream_add(struct CUstream_st *stream, struct emu_work work);
/* Runs all work of it, and what that waits for. */
void emu_stream_drain(struct CUstream_st *stream);
void emu_stream_drain_all(void);
void emu_stream_reach(const std::shared_ptr<struct emu_marker> &marker);
/* Runs one piece of the stream's work, or a turn of what others do; false where there is none. */
bool emu_stream_step(struct CUstream_st *stream);
/* Runs work of it up to what others have not done yet. */
void emu_stream_run_own(struct CUstream_st *stream);
/* An operation that no capture allows: true, and the captures are invalid, where one is under way
 * that forbids it. */
bool emu_capture_forbids(void);

#endif
