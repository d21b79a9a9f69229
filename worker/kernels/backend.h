/*
 * backend.h - the operations of a forward pass, one table of functions per kind of device.
 *
 * ref/ is the oracle, written to be read; cpu/ (AVX2, AVX-512) gives the same bits, and so must
 * whatever is added. What the bits are is said here, operation by operation, and once more as code
 * in ref/. Nothing but the inputs decides them: not the number of rows in the call, nor threads,
 * nor instruction set.
 *
 * Pointers named `float *` or `struct act *` are the backend's own memory (device memory on a
 * GPU): made by buffer_new / act_new, read and written by other code only through buffer_read and
 * buffer_write. Row-major, contiguous, 64-byte aligned. What ranks of a gang hand each other is the
 * one exception: it lies in host memory, see exchange_open.
 *
 * Matrix product, for a weight of `rows` x `cols` and quantized type: activations are quantized
 * per (token, block of 32) as d = amax / 127, q = rint(x * (127 / amax)) half to even, all 0 where
 * amax is 0 (and where amax is below 127 / FLT_MAX, or not finite: a block with an infinity or a
 * NaN in it says nothing). A block's integer sums isum = sum(qw * qx), sx = sum(qx) are exact;
 * types with a scale for each 16 columns multiply the sums of both halves with theirs, as
 * integers, before they are added (docs/numerics.md). With dw = d, or d * scale where 32 columns
 * share one, the float part is acc = fmaf(dw * dx, (float)isum, acc), then, for types with a
 * minimum, acc = fmaf(m, dx * (float)sx, acc), blocks ascending within a leaf of 8 blocks, each
 * leaf from +0; leaves are added ascending within a group, from the first leaf; groups by a fixed
 * tree over their index (sum_group_tree); which blocks a group has says struct sum_cut. F32, F16
 * and BF16 weights: 32 lanes by index modulo 32, fmaf ascending within a lane, then a halving tree
 * over the lanes; groups as above.
 *
 * Ownership: what a *_new or *_load returns is freed by its partner before the backend is closed.
 * Thread: one owner thread per backend; operations use the backend's own threads inside.
 */
#ifndef CLOISTER_WORKER_KERNELS_BACKEND_H
#define CLOISTER_WORKER_KERNELS_BACKEND_H

#include "common/device_stream.h"
#include "common/err.h"
#include "worker/kernels/pick.h"
#include "worker/kernels/quant_type.h"
#include "worker/kernels/sum_order.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_PAGE_TOKENS 32u /* positions in one page of the KV cache */

struct backend;
struct weight;   /* one matrix in the backend's own layout */
struct act;      /* activations of one step, quantized and, where asked for, float */
struct kv;       /* the paged KV cache of one model */
struct exchange; /* host memory that ranks of a gang hand each other something in */

enum kv_type { KV_TYPE_F16 = 0, KV_TYPE_Q8_0 = 1 };

enum activation { ACTIVATION_SILU = 0, ACTIVATION_GELU_TANH = 1 };

enum rope_style {
    ROPE_STYLE_PAIRS = 0,  /* rotates (2i, 2i + 1): llama as GGUF stores it */
    ROPE_STYLE_HALVES = 1, /* rotates (i, i + dim / 2): NeoX, qwen2, gemma */
};

/* Rows of one step: which token stands where. Arrays are host memory, borrowed for the call. */
struct step_rows {
    uint32_t n_rows;
    const uint32_t *position; /* [n_rows] absolute position in its sequence */
    const uint32_t *sequence; /* [n_rows] row of page_table */
    /* [sequence][position / KV_PAGE_TOKENS] = page id; pages for every position up to and
     * including the row's own are there. */
    const uint32_t *page_table;
    uint32_t page_table_stride;
};

/* A weight that holds only some groups of its matrix gives the sums of its nodes (sum_nodes), one
 * [n][out_stride] behind another, without bias and not accumulated; `join` adds up those of all
 * shards. */
struct matmul_job {
    const struct weight *weight;
    float *out;          /* [n][out_stride], columns 0 .. rows - 1 are written */
    uint32_t out_stride; /* floats */
    size_t
        node_stride; /* floats from one node's sums to the next one's; of a whole matrix: unused */
    const float *bias; /* [rows], added last, or NULL */
    bool accumulate;   /* out = out + result instead of out = result (residual) */
};

/* The sums of one node, wherever they lie. */
struct join_part {
    const float *at; /* [n][stride] */
    size_t stride;   /* floats */
};

/* The rest of a matrix product that shards have computed in parts: the sums of all nodes of the
 * matrix, added in the order of `joins` (sum_joins). Bias, residual and the result's bits are those
 * of `matmul` with the whole matrix. `cols` may be any range of the result's columns. One part and
 * nothing to join is a copy. */
struct join_job {
    const struct join_part *part; /* [n_parts], host memory */
    uint32_t n_parts;             /* at most SUM_GROUPS_MAX */
    const struct sum_join *joins; /* host memory */
    uint32_t n_joins;
    uint32_t cols;
    float *out; /* [n][out_stride] */
    size_t out_stride;
    const float *bias; /* [cols] or NULL */
    const float *onto; /* [n][out_stride], which the result is added to: `out` itself, or rows that
                        * stay as they are; NULL: nothing */
};

struct attention_job {
    struct kv *kv;
    uint32_t layer;
    const struct step_rows *rows;
    const float *q; /* [n_rows][n_heads * head_dim], after RoPE */
    uint32_t n_heads;
    /* Query heads that share a KV head, and how many of the first one's are not here: head h reads
     * KV head (skip + h) / group. A shard may begin and end in the middle of a group. */
    uint32_t group; /* 0: n_heads / n_kv_heads */
    uint32_t skip;
    float scale;     /* on q * k, applied to q before the products */
    uint32_t window; /* 0: all positions up to the row's own; else only the last `window` of them */
    float softcap;   /* 0: none */
    struct act *out; /* [n_rows][n_heads * head_dim_v] */
};

struct rope_kv_job {
    struct kv *kv;
    uint32_t layer;
    const struct step_rows *rows;
    float *q; /* [n_rows][n_heads * head_dim], rotated in place */
    float *k; /* [n_rows][n_kv_heads * head_dim], rotated, then written to the cache */
    const float *v;
    const float *q_norm; /* [head_dim] gains: each head is normed (`norm`) before it is rotated; */
    const float *k_norm; /* NULL: it is not */
    float norm_eps;
    uint32_t n_heads;
    uint32_t rope_dim; /* the first rope_dim elements of a head are rotated, the rest pass */
    enum rope_style style;
    const float *table; /* host: [position][rope_dim / 2][2] = cos, sin (rope_table.h) */
};

/* Where the bytes of a matrix come from while it is packed. `read` is called from any of the
 * backend's threads, several at once, for pieces of whole rows that together are the matrix, each
 * once; `at` counts from the matrix's first byte, in rows of weight_row_bytes. False ends the
 * loading: what failed is the source's to say. */
struct weight_source {
    bool (*read)(void *ctx, uint64_t at, void *to, size_t size);
    void *ctx;
};

/* A matrix to read from its source. */
struct weight_job {
    enum quant_type type;
    uint32_t rows;
    uint32_t cols;      /* those of the groups that are here */
    struct sum_cut cut; /* how it is summed, and which of its groups are here */
    struct weight_source source;
    struct weight **ret_weight;
};

struct kv_shape {
    uint32_t n_layers;
    uint32_t n_kv_heads;
    uint32_t head_dim_k;
    uint32_t head_dim_v;
    enum kv_type type;
    uint32_t n_pages;
};

/* What the operations of a model's steps take room for inside the backend. */
#define BACKEND_ROOM_CACHES_MAX 16u
struct backend_room {
    uint32_t rows_max;      /* of a step */
    uint32_t cols_max;      /* of a row that is normed or gated */
    uint32_t groups_max;    /* of a matrix */
    uint32_t pages_max;     /* of a sequence */
    uint32_t sequences_max; /* of a step */
    uint32_t rope_dim;      /* of a step's tables, and their number */
    uint32_t n_ropes;
    uint64_t results_max; /* floats that the host reads of a step, in so many pieces */
    uint32_t pieces_max;
    uint32_t n_caches;
    struct backend_room_cache {
        uint32_t n_heads; /* the most of a layer that reads it */
        uint32_t group;   /* the most of these that share a KV head */
        uint32_t n_kv_heads;
        uint32_t head_dim_k, head_dim_v;
    } cache[BACKEND_ROOM_CACHES_MAX];
};

/* Task number `task` of some that are shared out; `thread` is 0 .. threads() - 1. */
typedef void backend_task(void *ctx, uint32_t task, uint32_t thread);

/* A step as a whole, for backends that bring what it needs to a device at once, and replay what
 * they were asked before. Arrays are host memory, borrowed until step_end, rope tables beyond that.
 */
#define BACKEND_STEP_ROPES_MAX 2u
struct backend_piece {
    const float *at; /* a buffer, or a piece of one */
    size_t count;    /* floats */
};
struct backend_step {
    const int32_t *ids; /* [rows.n_rows] what is embedded */
    struct step_rows rows;
    uint32_t n_results;
    const struct pick *picks; /* [n_results] what `pick` is called with; NULL: it is not called */
    const struct backend_piece *pieces; /* [n_pieces] what the host will look at afterwards */
    uint32_t n_pieces;
    const float *rope[BACKEND_STEP_ROPES_MAX]; /* tables that rope_kv is called with; NULL: none */
    uint32_t rope_dim;
    /* The step's operations take no arrays but these, nothing is read or written between them, and
     * which there are follows from the numbers above: it may be replayed. */
    bool is_fixed;
    /* Others write what operations read, and read what they write, at no other time than between an
     * exchange_done or `submit` and the operation that follows: a stretch of operations may be held
     * back until the next of these, or step_end, and replayed where it is one of before. Arrays but
     * these are read during the call. */
    bool may_hold;
};

struct backend_ops {
    const char *name; /* "scalar", "avx2", "avx512", "amx", "cuda sm_90" */

    void (*close)(struct backend *b);

    /* Copies and repacks matrices as files have them, in pieces, so that no matrix is in memory
     * twice and the threads share out small matrices like the pieces of large ones. All, or on an
     * error none, *ret_failed being the job at fault. ERR_UNSUPPORTED names the type; ERR_INVALID:
     * no rows or columns, columns of a quantized type that are no multiple of its block, a cut that
     * cannot be or has other columns; ERR_NO_MEMORY the bytes wanted; ERR_IO where a piece could
     * not be read. */
    enum err (*weights_read)(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                             uint32_t *ret_failed, struct errbuf *eb);
    void (*weight_free)(struct backend *b, struct weight *w);

    float *(*buffer_new)(struct backend *b, size_t count); /* NULL when memory is refused */
    void (*buffer_free)(struct backend *b, float *buffer);
    void (*buffer_write)(struct backend *b, float *buffer, const float *host, size_t count);
    void (*buffer_read)(struct backend *b, const float *buffer, float *host, size_t count);
    /* The buffer where the host can read it: in place, or, where that is not in its memory, as a
     * copy that the backend keeps until its next operation. */
    const float *(*buffer_host)(struct backend *b, const float *buffer, size_t count);

    /* Runs task(ctx, i, thread) for i = 0 .. n - 1 on the backend's host threads, the caller's
     * among them, and returns when all are done. For work of a step that is no operation. */
    void (*share)(struct backend *b, backend_task *task, void *ctx, uint32_t n);
    uint32_t (*threads)(const struct backend *b); /* at most so many tasks run at once */

    /* Room for `rows_max` rows of `cols_max`; `keep_float` for weights of a float type. NULL when
     * memory is refused. */
    struct act *(*act_new)(struct backend *b, uint32_t rows_max, uint32_t cols_max,
                           bool keep_float);
    void (*act_free)(struct backend *b, struct act *a);

    enum err (*kv_new)(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                       struct errbuf *eb);
    void (*kv_free)(struct backend *b, struct kv *kv);

    /* Takes all the room that operations within these bounds need, so that no step fails for want
     * of memory and `memory` says what will be held. Without it they take room as they go, and end
     * the process where there is none. ERR_NO_MEMORY. */
    enum err (*reserve)(struct backend *b, const struct backend_room *room, struct errbuf *eb);

    /* A step is announced, its operations are called, and it ends; then its results can be read
     * with buffer_host, by several threads and without waiting, until the next step begins.
     * Operations outside a step give the same bits. True: the backend has done all of the step by
     * itself, by replaying operations that it has seen before for a step of this shape; what was
     * called then must be what would be called now, but for the contents of the arrays. Call
     * nothing then but step_end. */
    bool (*step_begin)(struct backend *b, const struct backend_step *step);
    void (*step_end)(struct backend *b);

    /* out[i] = row ids[i] of w, dequantized, times `scale` (1 passes bits through). Every id is a
     * row of w. */
    void (*embed)(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                  float scale, float *out);
    /* y = (x * r) * gain, r = 1 / sqrtf(sum / cols + eps); the sum of squares in 16 lanes by index,
     * fmaf ascending, then a halving tree. Written to `out` (quantized, and float where it keeps
     * that). */
    void (*norm)(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                 float eps, struct act *out);
    /* out = out + y, y of x as above: the norm behind a branch of the residual. */
    void (*norm_add)(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                     const float *gain, float eps, float *out);
    /* x = cap * nm_tanh(x / cap), in place; cap > 0. */
    void (*softcap)(struct backend *b, float *x, size_t count, float cap);
    /* Of each of n rows of logits what the host wants for drawing from it (pick.h): ret_picked is
     * `struct picked` [n], of which those fields are written that the row's kind has. NULL where
     * the host reads rows in place: it finds all of that as it draws. */
    void (*pick)(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                 const struct pick *picks, float *ret_picked);
    /* Quantizes x as it is. */
    void (*quantize)(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out);
    /* out[at[i]] = rows[i], each of `cols` floats: rows that another shard embedded. */
    void (*place)(struct backend *b, const float *rows, const uint32_t *at, uint32_t n,
                  uint32_t cols, float *out);
    /* All jobs share the input `x` of n rows; rows of the outputs are independent of n. Where a
     * weight holds some groups, x has their columns only. */
    void (*matmul)(struct backend *b, const struct act *x, uint32_t n,
                   const struct matmul_job *jobs, uint32_t n_jobs);
    void (*join)(struct backend *b, uint32_t n, const struct join_job *job);
    /* Heads are normed where there are gains; then (x, y) becomes (fmaf(x, cos, -(y * sin)),
     * fmaf(y, cos, x * sin)). */
    void (*rope_kv)(struct backend *b, const struct rope_kv_job *job);
    /* Per (row, head), page by page ascending: scores s_j (d ascending, fmaf, from +0; a NaN counts
     * as -infinity), with a softcap c: c * nm_tanh(s_j / c); page maximum m, e_j = nm_exp(s_j - m),
     * sum of e_j (16 lanes by index, tree), values fmaf over j ascending; pages merged ascending:
     * with (M, S, O) so far and (m, s, o) of the page, M' = max(M, m), a = nm_exp(M - M'), b =
     * nm_exp(m - M'), S' = fmaf(s, b, S * a), O' = fmaf(o, b, O * a). At the end O / S. Positions
     * outside the window are not touched, pages without one inside are not read. K and V are
     * always read back through the cache's type. */
    void (*attention)(struct backend *b, const struct attention_job *job);
    /* out = act(gate) * up, quantized. */
    void (*gate)(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
                 enum activation activation, struct act *out);

    /* What ranks of a gang hand each other lies in two halves of host memory that other processes,
     * or a network, read and write (worker/coll); a rank has such a pair for each coll that it is
     * of, on pages of its own. `embed`, `matmul` and `join` may write there, `place` and `join`
     * read there: they take pointers into it where they take buffers. exchange_open says where a
     * pair lies, before the first of them; exchange_close that no more will come, before it is gone
     * (NULL is allowed, and may be what exchange_open gave). exchange_done returns when everything
     * that operations write to any pair has been written, and what they read there was read, as
     * step_end does: it is called before this rank's part is handed over, and others may write then
     * where parts were read before. A backend in host memory has nothing to do for any of them; a
     * device registers the halves, so that its kernels reach them, or stages copies. exchange_open
     * is NULL where a backend does neither: it computes no shards. */
    enum err (*exchange_open)(struct backend *b, void *const halves[2], size_t bytes,
                              struct exchange **ret_exchange, struct errbuf *eb);
    void (*exchange_done)(struct backend *b);
    void (*exchange_close)(struct backend *b, struct exchange *exchange);
    /* All operations called so far are on their way when it returns, which does not wait for them:
     * before others queue something behind them (`stream`), or are waited for. */
    void (*submit)(struct backend *b);
    /* From here to the end of an open step `submit` only says where a stretch ends; queue_next puts
     * the first stretch that is not there yet on the stream, so that others can queue something of
     * theirs in between: one call for each submit, and one more for what is behind the last. False,
     * and nothing changes: the step's operations are not held back. Where is_known, queue_next only
     * repeats what is on the device already: it takes no memory and waits for nothing. NULL where
     * `stream` is. */
    bool (*put_off)(struct backend *b);
    bool (*is_known)(struct backend *b);
    void (*queue_next)(struct backend *b);
    /* The queue of the device that operations are put on, for a transport that moves bytes from
     * device to device: what ranks hand each other is the device's memory then, and no exchange is
     * opened. Valid until close. NULL: operations are done when they return. */
    enum err (*stream)(struct backend *b, struct device_stream *ret_stream, struct errbuf *eb);

    /* Bytes now held for weights, KV, and everything else (buffers, activations, scratch). */
    void (*memory)(const struct backend *b, uint64_t *ret_weights, uint64_t *ret_kv,
                   uint64_t *ret_scratch);

    /* One row as the next operation sees it: ret_q[cols], ret_scales[one per block of 32], and,
     * unless NULL (allowed only where `a` keeps floats otherwise), ret_float[cols]. */
    void (*act_read)(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                     int8_t *ret_q, float *ret_scales, float *ret_float);
};

struct backend {
    const struct backend_ops *ops;
};

enum backend_isa {
    BACKEND_ISA_AUTO = 0, /* the best that cpuid and the OS allow */
    BACKEND_ISA_SCALAR = 1,
    BACKEND_ISA_AVX2 = 2,   /* AVX2, FMA, F16C */
    BACKEND_ISA_AVX512 = 3, /* AVX-512 F, BW, VL, VNNI */
    BACKEND_ISA_AMX = 4,    /* these, AMX-TILE and AMX-INT8 */
};

struct backend_cpu_config {
    enum backend_isa isa;
    uint32_t threads; /* 0: backend_threads_auto; scalar always has one */
};

/* One per core this process may use, at most LIMIT_WORKER_THREADS. */
uint32_t backend_threads_auto(void);

struct backend_cuda_config {
    uint32_t device;  /* index among the GPUs that CUDA shows this process */
    uint32_t threads; /* of the host, for `share` and loading; 0: backend_threads_auto */
};

/* ERR_UNSUPPORTED: this build has no CUDA backend, or the GPU is older than what it has code for.
 * ERR_UNAVAILABLE: no such GPU, no driver. The process ends with this code where the GPU faults
 * while it computes (an illegal address, an uncorrectable memory error): CUDA answers nothing any
 * more then, and only another process can go on. */
#define BACKEND_EXIT_DEVICE 5
enum err backend_cuda_open(struct backend **ret_backend, const struct backend_cuda_config *config,
                           struct errbuf *eb);
/* What CUDA is reckoned to take of a device for a process, beside what its backends count: the
 * context with the kernels' code, told to be up to half a gigabyte on an H100; local memory, 1 KB
 * for each thread that can run (budgets.txt: the stack of the large products), 2,048 on each of 132
 * multiprocessors, 277 MB; and graphs, for which that leaves about a quarter of a gigabyte. Not
 * measured on a GPU. */
#define BACKEND_CUDA_OWN_BYTES ((uint64_t)1 << 30)
/* What that backend holds, as backend_cpu_weight_bytes and those below it say it of the CPU's:
 * bytes on the device. 0 where this build has none. */
uint64_t backend_cuda_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                   const struct sum_cut *cut);
uint64_t backend_cuda_kv_page_bytes(const struct kv_shape *shape);
uint64_t backend_cuda_buffer_bytes(size_t count);
uint64_t backend_cuda_act_bytes(uint32_t rows_max, uint32_t cols_max, bool keep_float);
uint64_t backend_cuda_room_bytes(const struct backend_room *room);

/* ERR_UNSUPPORTED where the machine lacks the forced instruction set, naming what it lacks. */
enum err backend_cpu_open(struct backend **ret_backend, const struct backend_cpu_config *config,
                          struct errbuf *eb);

/* "auto", "scalar", "avx2", "avx512", "amx": by enum backend_isa, ends with NULL. */
extern const char *const backend_isa_names[];
bool backend_isa_parse(const char *text, enum backend_isa *ret_isa);
bool backend_isa_available(enum backend_isa isa);
/* AUTO as what it stands for on this machine; the others as they are. */
enum backend_isa backend_isa_resolve(enum backend_isa isa);

/* Bytes of a row as weights_read takes it. Of a weight that holds some groups of a matrix of
 * super-blocks: the super-blocks that have columns of these. 0 for an unsupported type. */
uint64_t weight_row_bytes(enum quant_type type, uint32_t cols, const struct sum_cut *cut);
/* Where in a row of the whole matrix those bytes begin. */
uint64_t weight_row_begin(enum quant_type type, const struct sum_cut *cut);
/* Bytes that weights_read will hold for such a matrix, padding included: exact for avx2 and avx512;
 * scalar holds the file's own bytes, which are never more. */
uint64_t backend_cpu_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                  const struct sum_cut *cut);
uint64_t backend_kv_page_bytes(const struct kv_shape *shape); /* one page id over all layers */
/* What `memory` counts as scratch for a buffer, for an act, and for what was reserved; exact. */
uint64_t backend_buffer_bytes(size_t count);
uint64_t backend_act_bytes(enum backend_isa isa, uint32_t rows_max, uint32_t cols_max,
                           bool keep_float);
uint64_t backend_room_bytes(enum backend_isa isa, uint32_t threads,
                            const struct backend_room *room);
/* Of what is reserved, the part that goes by how many heads there are, in a cache such as the
 * room's first: whichever is more, head_bytes for each query head, or where pages are shared out
 * row_bytes for each head and row, of `rows` rows, or as many as times KV heads are fewer than
 * `units` where that is not 0; no more than `most`, or than one row takes. */
struct backend_heads_room {
    uint64_t head_bytes, row_bytes, most;
    uint32_t rows, units;
};
struct backend_heads_room backend_heads_room(enum backend_isa isa, uint32_t threads,
                                             const struct backend_room *room);
struct backend_heads_room backend_cuda_heads_room(const struct backend_room *room);
/* What kv_new refuses of a shape, on any backend, without asking for memory. */
enum err backend_kv_check(const struct kv_shape *shape, struct errbuf *eb);

/* How a matrix that may be split along K is summed: from its shape alone. Of attention output,
 * `cols` being n_heads * head_dim, a group is the columns of one query head or some, such that KV
 * heads end where groups do, or the other way round; of feed-forward down, whole leaves. */
struct sum_cut backend_cut_attention(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim);
struct sum_cut backend_cut_ffn(uint32_t cols);

#endif
