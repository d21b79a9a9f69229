/*
 * cuda_internal.h - the CUDA backend's own structures and what its host files share. C11, internal
 * to cuda/ and its tests.
 *
 * Files: cuda_backend.c opens and has the table of operations; cuda_error.c says what went wrong;
 * cuda_memory.c counts device memory, has buffers, and brings small arrays to the device;
 * cuda_exchange.c lets kernels reach what ranks of a gang hand each other; cuda_step.c has steps,
 * cuda_graph.c their graphs, cuda_held.c operations that are held back for these; cuda_act.c,
 * cuda_rows.c, cuda_kv.c, cuda_attention.c and cuda_room.c are the host side of operations,
 * cuda_weight.c and cuda_matmul.c that of matrices.
 * The kernels and their launchers are in the .cu files, declared in kernels.h and products.h.
 *
 * Everything an operation does is queued on one stream and returns at once, or is held back to be
 * queued with others (cuda_submit). Results are waited for in step_end, buffer_read, buffer_host,
 * exchange_done and act_read, and nowhere else.
 *
 * Errors. A call that fails while something is loaded or made is returned (cuda_error). Inside an
 * operation there is nobody to return it to, and a device that has faulted answers nothing any
 * more: the process says what failed and ends with BACKEND_EXIT_DEVICE (CUDA_DO, cuda_fail).
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_CUDA_INTERNAL_H
#define CLOISTER_WORKER_KERNELS_CUDA_CUDA_INTERNAL_H

#include "worker/kernels/cuda/cuda_types.h"
#include "worker/kernels/cuda/kv_layout.h"
#include "worker/kernels/cuda/launch.h"
#include "worker/kernels/host.h"
#include "worker/kernels/pool.h"
#include "worker/kernels/shape.h"

#include <cuda_runtime_api.h>

/* ---- memory ---------------------------------------------------------------------------------- */

enum cuda_memory { CUDA_MEMORY_WEIGHTS, CUDA_MEMORY_KV, CUDA_MEMORY_SCRATCH };

struct cuda_allocation {
    void *at;
    uint64_t bytes; /* as counted */
    enum cuda_memory memory;
};

/* Pinned host memory, and an event behind the last copy from or to it. */
struct cuda_pinned {
    uint8_t *at;
    size_t bytes;
    cudaEvent_t used;
    bool is_used; /* `used` was recorded */
};

/* ---- steps ----------------------------------------------------------------------------------- */

struct cuda_graphs;   /* cuda_graph.c */
struct cuda_cut;      /* cuda_held.c */
struct step_sequence; /* cuda_step.c */

/* A step as the device sees it: one block of device memory, filled by one copy from pinned memory.
 * Where it lies does not change from step to step, so that a graph can be replayed over it. */
struct cuda_step {
    bool is_open;
    struct backend_step host; /* as step_begin was given it; arrays are the caller's */
    bool has_runs;            /* some rows of a sequence stand one behind another */
    bool is_held;             /* operations are held back until cuda_submit */
    uint32_t pages_most; /* pages that a row of the step may have, at most; rounded up to a power
                            of two, so that steps of one graph agree */
    /* device */
    const struct cuda_row *rows;
    const int32_t *ids;
    const struct pick *picks;
    const float
        *rope[BACKEND_STEP_ROPES_MAX]; /* [n_rows][rope_dim], of each of the step's tables */
    const uint32_t *pages;
};

/* Operations of a step that are held back: cuda_held.c. */
struct cuda_held {
    uint64_t *words; /* [n], room for max */
    uint32_t n, max;
    uint32_t n_ops, last; /* of the stretch that has not ended */
    /* Those that have, where they are put off. */
    bool is_put_off;
    struct cuda_cut *cuts; /* [n_cuts], room for cuts_max */
    uint32_t n_cuts, cuts_max;
    uint32_t next; /* to be queued */
};

/* One of them. */
struct cuda_stretch {
    const uint64_t *words; /* [n] */
    uint32_t n;
    uint32_t n_ops, last;
};

/* The stretch that was queued last, for what is said where it fails. */
struct cuda_said {
    const char *first, *last; /* its operations; NULL: none was */
    uint32_t n_ops, n_rows;
};

struct cuda_backend {
    struct host_backend host; /* counters are of device memory only */
    struct backend_ops ops;
    struct pool *pool;
    int device;
    uint32_t multiprocessors; /* what a launch should fill */
    cudaStream_t stream;

    struct cuda_allocation *allocations;
    size_t n_allocations, allocations_max;

    /* Small arrays of operations outside a step (cuda_input). */
    struct cuda_pinned input;
    uint8_t *input_device;
    size_t input_bytes;

    struct cuda_step step;
    struct cuda_pinned step_pinned[2]; /* one is filled while the other may still be copied */
    uint32_t step_turn;
    struct step_sequence *sequences; /* [sequences_max] of the step that is put together */
    uint32_t sequences_max;
    uint8_t *step_device;
    size_t step_bytes;
    struct cuda_graphs *graphs;
    struct cuda_held held;
    struct cuda_said said;

    /* What step_end brought, and what buffer_host brings: pieces, one behind another. */
    struct cuda_pinned result;
    struct backend_piece *results; /* [n_results], device addresses; room for results_max */
    uint32_t n_results, results_max;

    uint32_t n_exchanges; /* open */
    cudaEvent_t marked;   /* of cuda_stream; NULL: nobody asked for it */

    /* Room of operations; grows, and once reserved does not. */
    bool reserved;
    float *attention; /* partials of pages, and float rows before they are quantized */
    size_t attention_count;
};

struct act {
    uint32_t rows_max;
    uint32_t cols_max;
    struct cuda_act device;
};

struct kv {
    struct kv_shape shape;
    struct cuda_kv device; /* of layer 0 */
};

/* ---- errors: cuda_error.c ---- */

/* True where the device answers no call any more until the process has ended. */
bool cuda_is_sticky(cudaError_t e);

/* "text: cudaErrorMemoryAllocation (out of memory)" with ERR_NO_MEMORY, ERR_UNAVAILABLE or
 * ERR_INTERNAL. Ends the process where the error is sticky. */
enum err cuda_error(struct errbuf *eb, cudaError_t e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Logs "CUDA: norm of 3 rows of 576: cudaErrorLaunchFailure (...)" and ends the process with
 * BACKEND_EXIT_DEVICE. fmt says operation and shape. */
_Noreturn void cuda_fail(cudaError_t e, const char *kernel, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Inside an operation: a runtime call, or a launch, that must succeed. What follows is a format
 * with operation and shape; it is looked at only when the call fails. */
#define CUDA_DO(call, ...)                                                                         \
    do {                                                                                           \
        const cudaError_t cuda_do_error = (call);                                                  \
        if (__builtin_expect(cuda_do_error != cudaSuccess, 0))                                     \
            cuda_fail(cuda_do_error, NULL, __VA_ARGS__);                                           \
    } while (0)
#define CUDA_DO_LAUNCH(launch, ...)                                                                \
    do {                                                                                           \
        const struct cuda_launched cuda_do_launched = (launch);                                    \
        if (__builtin_expect(cuda_do_launched.error != cudaSuccess, 0))                            \
            cuda_fail(cuda_do_launched.error, cuda_do_launched.kernel, __VA_ARGS__);               \
    } while (0)

/* ---- memory: cuda_memory.c ---- */

/* Makes the backend's device the calling thread's: first in whatever may be called from a thread
 * that did not open the backend, or has entered another since. cuda_enter ends the process where
 * that fails. */
cudaError_t cuda_choose(const struct cuda_backend *cuda);
void cuda_enter(const struct cuda_backend *cuda);

/* What is counted for so many bytes of device memory. */
uint64_t cuda_held_bytes(uint64_t bytes);
/* Aligned to 256 bytes, not cleared. On an error *ret_memory is NULL; its message is of `what`. */
enum err cuda_alloc(struct cuda_backend *cuda, enum cuda_memory memory, uint64_t bytes,
                    const char *what, void **ret_memory, struct errbuf *eb);
/* Waits for the work queued before it; takes NULL. */
void cuda_free(struct cuda_backend *cuda, void *memory);

/* Grows to at least so many bytes, contents lost; waits for what still uses it. */
enum err cuda_pinned_grow(struct cuda_pinned *pinned, size_t bytes, struct errbuf *eb);
void cuda_pinned_wait(struct cuda_pinned *pinned);
void cuda_pinned_mark(struct cuda_backend *cuda, struct cuda_pinned *pinned);
void cuda_pinned_free(struct cuda_pinned *pinned);

/* A host array of an operation (ids, places) where kernels can read it: the step's copy of it,
 * where it lies within the step's own arrays, else a copy made now. Valid for the launches that
 * follow, up to the next cuda_input. */
const void *cuda_input(struct cuda_backend *cuda, const void *host, size_t bytes);

float *cuda_buffer_new(struct backend *b, size_t count);
void cuda_buffer_free(struct backend *b, float *buffer);
void cuda_buffer_write(struct backend *b, float *buffer, const float *host, size_t count);
void cuda_buffer_read(struct backend *b, const float *buffer, float *host, size_t count);
const float *cuda_buffer_host(struct backend *b, const float *buffer, size_t count);

/* ---- what ranks exchange: cuda_exchange.c ---- */

enum err cuda_exchange_open(struct backend *b, void *const halves[2], size_t bytes,
                            struct exchange **ret_exchange, struct errbuf *eb);
void cuda_exchange_done(struct backend *b);
void cuda_exchange_close(struct backend *b, struct exchange *exchange);
/* cuda_stream.c */
enum err cuda_stream(struct backend *b, struct device_stream *ret_stream, struct errbuf *eb);

/* ---- operations ---- */

struct act *cuda_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float);
void cuda_act_free(struct backend *b, struct act *a);
void cuda_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                   int8_t *ret_q, float *ret_scales, float *ret_float);

bool cuda_step_begin(struct backend *b, const struct backend_step *step);
void cuda_step_end(struct backend *b);
/* Rows on the device, as a launch needs them and as it is planned. */
struct cuda_step_rows {
    struct cuda_rows rows;
    const float *rope; /* [rows of the step][rope_dim], or NULL where no table was asked for */
    uint32_t pages_most;
    bool has_runs;
};
/* The open step's, where there is one, of which these must be some, else uploaded now. `table`: of
 * rope_kv, or NULL. */
struct cuda_step_rows cuda_step_rows(struct cuda_backend *cuda, const struct step_rows *rows,
                                     const float *table, uint32_t rope_dim);
/* Where everything is in the block of a step: rows, ids, n_ropes tables, picks, page ids. */
struct cuda_step_layout {
    uint64_t ids_at, rope_at, rope_bytes, picks_at, pages_at, bytes;
};
struct cuda_step_layout cuda_step_layout(uint32_t n_rows, uint32_t n_ropes, uint32_t rope_dim,
                                         uint32_t n_picks, uint64_t n_pages);
enum err cuda_step_reserve(struct cuda_backend *cuda, uint64_t bytes, struct errbuf *eb);
/* ... and on the host for its results and what keeps track of it. */
enum err cuda_step_lists_reserve(struct cuda_backend *cuda, const struct backend_room *room,
                                 struct errbuf *eb);
void cuda_step_fini(struct cuda_backend *cuda);

/* cuda_graph.c: true where the step was replayed; else it is perhaps being captured, or its
 * operations are held back, and it runs when cuda_graph_end is called. */
bool cuda_graph_begin(struct cuda_backend *cuda);
bool cuda_graphs_reserve(struct cuda_backend *cuda);
bool cuda_graph_is_capturing(const struct cuda_backend *cuda);
void cuda_graph_end(struct cuda_backend *cuda);
void cuda_graphs_clear(struct cuda_backend *cuda);
/* Queues a stretch: as a graph, or one by one; whether that only repeats what was queued before:
 * the replay of a graph, or a single operation. */
void cuda_stretch_queue(struct cuda_backend *cuda, const struct cuda_stretch *s);
bool cuda_stretch_is_known(struct cuda_backend *cuda, const struct cuda_stretch *s);

/* cuda_held.c: entries of backend_ops. */
void cuda_submit(struct backend *b);
bool cuda_put_off(struct backend *b);
bool cuda_is_known(struct backend *b);
void cuda_queue_next(struct backend *b);
/* Queues what is held back; nothing may be put off. */
void cuda_held_flush(struct cuda_backend *cuda);
/* ... and all that was put off, at the end of a step. */
void cuda_held_end(struct cuda_backend *cuda);
/* Room for the first; runs a stretch, operation by operation; says in cuda->said what it is. */
bool cuda_held_reserve(struct cuda_backend *cuda);
void cuda_held_run(struct cuda_backend *cuda, const struct cuda_stretch *s);
void cuda_held_say(struct cuda_backend *cuda, const struct cuda_stretch *s);
void cuda_held_fini(struct cuda_backend *cuda);
/* The entries of backend_ops: the operations below, now or held back. */
void cuda_hold_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                     float scale, float *out);
void cuda_hold_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                    float eps, struct act *out);
void cuda_hold_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                        const float *gain, float eps, float *out);
void cuda_hold_softcap(struct backend *b, float *x, size_t count, float cap);
void cuda_hold_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                    const struct pick *picks, float *ret_picked);
void cuda_hold_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                        struct act *out);
void cuda_hold_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n,
                     uint32_t cols, float *out);
void cuda_hold_matmul(struct backend *b, const struct act *x, uint32_t n,
                      const struct matmul_job *jobs, uint32_t n_jobs);
void cuda_hold_join(struct backend *b, uint32_t n, const struct join_job *job);
void cuda_hold_rope_kv(struct backend *b, const struct rope_kv_job *job);
void cuda_hold_attention(struct backend *b, const struct attention_job *job);
void cuda_hold_gate(struct backend *b, const float *gate, const float *up, uint32_t n,
                    uint32_t cols, enum activation activation, struct act *out);

void cuda_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out);
void cuda_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
               float eps, struct act *out);
void cuda_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                   float eps, float *out);
void cuda_softcap(struct backend *b, float *x, size_t count, float cap);
void cuda_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
               const struct pick *picks, float *ret_picked);
void cuda_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n, uint32_t cols,
                float *out);
void cuda_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
               enum activation activation, struct act *out);

enum err cuda_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                     struct errbuf *eb);
void cuda_kv_free(struct backend *b, struct kv *kv);
struct cuda_kv cuda_kv_layer(const struct kv *kv, uint32_t layer);
void cuda_rope_kv(struct backend *b, const struct rope_kv_job *job);
void cuda_attention(struct backend *b, const struct attention_job *job);

/* Floats that attention of such a layer takes at most. */
uint64_t cuda_attention_floats(const struct backend_room_cache *cache, uint32_t rows_max,
                               uint32_t pages_max);
uint32_t cuda_power_of_two(uint32_t n); /* the least that is not below n */
enum err cuda_reserve(struct backend *b, const struct backend_room *room, struct errbuf *eb);

/* ---- matrices ---- */

enum err cuda_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                           uint32_t *ret_failed, struct errbuf *eb);
void cuda_weight_free(struct backend *b, struct weight *w);
/* What products want to know of the device, and want it to allow: once, when it is opened. */
enum err cuda_products_prepare(struct cuda_backend *cuda, struct errbuf *eb);
void cuda_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                float scale, float *out);
void cuda_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                 uint32_t n_jobs);
void cuda_join(struct backend *b, uint32_t n, const struct join_job *job);

#endif
