/*
 * cuda_steps FILE [--shards N] - what the CUDA backend queues for a step of a model, as JSON.
 *
 * The engine and the backend's own host part run over a device that computes nothing (emu_dry), on
 * N processes where there are N shards; rank 0 reports. So launches, shapes and exchanges are those
 * of the product, for models of which nothing is there but the header. A line for each step: rows,
 * how often the host waits for the device, launches, those that are alike as one, and what the host
 * queues where the step was there before: graphs, and launches by themselves.
 *
 * Bytes are what has to come from or go to the device's memory at least once: matrices as they are
 * packed, activations, the cache up to each row's position (once for rows of one sequence). `bus`
 * are those of exchanges, which lie in host memory. Macs are multiplications with an addition. Not
 * a test; predict_cuda.py makes times of it.
 */
#include "common/check.h"
#include "tests/cuda_emulation/emulation.h"
#include "worker/engine/forward.h"
#include "worker/engine_tool/ranks.h"
#include "worker/kernels/cuda/cuda_internal.h"
#include "worker/kernels/cuda/cuda_weight.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_BYTES ((size_t)80 << 30)
#define SEQUENCES    32u
#define DEPTH        1024u /* positions of a sequence that decodes */
#define STEP_ROWS    512u
#define PROMPT_ROWS  4096u
#define CONTEXT      (PROMPT_ROWS + KV_PAGE_TOKENS)
#define SLOTS        9u /* full contexts that the cache holds: 32 sequences of DEPTH, and some */
#define LAUNCHES_MAX 256u
#define OF_CALL_MAX  16u
/* Halves take turns: two forms of a step, each of which is run, captured and then replayed. */
#define TIMES_UNTIL_REPLAYED 6u

struct launch {
    const char *op;
    char kernel[64];
    const char *type;    /* of matrices; else "" */
    uint32_t rows, cols; /* of the first matrix; cols: of what else there is */
    uint64_t blocks, bytes, bus, macs;
    uint32_t threads, count;
    size_t shared_bytes;
};

static struct {
    struct backend_ops real;
    struct launch launches[LAUNCHES_MAX];
    uint32_t n_launches;
    bool is_open; /* an operation is under way, whose launches are */
    struct launch of_call[OF_CALL_MAX];
    uint32_t n_of_call;
    uint32_t waits;
    const uint8_t *half[2];
    size_t half_bytes;
} record;

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "cuda_steps: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* ---- recording ------------------------------------------------------------------------------- */

static void launched(void *ctx, const struct emu_launched *l)
{
    (void)ctx;
    if (!record.is_open)
        return;
    CHECK(record.n_of_call < OF_CALL_MAX);
    struct launch *to = &record.of_call[record.n_of_call++];
    *to = (struct launch){.type = "",
                          .blocks = l->blocks,
                          .threads = l->threads,
                          .shared_bytes = l->shared_bytes,
                          .count = 1};
    (void)snprintf(to->kernel, sizeof to->kernel, "%s", l->kernel);
}

static void record_begin(void)
{
    record.is_open = true;
    record.n_of_call = 0;
}

static bool launch_alike(const struct launch *a, const struct launch *b)
{
    return strcmp(a->op, b->op) == 0 && strcmp(a->kernel, b->kernel) == 0 &&
           strcmp(a->type, b->type) == 0 && a->rows == b->rows && a->cols == b->cols &&
           a->blocks == b->blocks && a->bytes == b->bytes && a->bus == b->bus &&
           a->macs == b->macs && a->threads == b->threads && a->shared_bytes == b->shared_bytes;
}

static void record_add(const struct launch *l)
{
    for (uint32_t i = 0; i < record.n_launches; i++) {
        if (launch_alike(&record.launches[i], l)) {
            record.launches[i].count++;
            return;
        }
    }
    CHECK(record.n_launches < LAUNCHES_MAX);
    record.launches[record.n_launches++] = *l;
}

/* The launches of an operation; the first has what it moves and computes. */
static void record_call(const char *op, uint32_t cols, uint64_t bytes, uint64_t bus, uint64_t macs)
{
    for (uint32_t i = 0; i < record.n_of_call; i++) {
        struct launch *l = &record.of_call[i];
        l->op = op;
        l->cols = cols;
        l->bytes = i == 0 ? bytes : 0;
        l->bus = i == 0 ? bus : 0;
        l->macs = i == 0 ? macs : 0;
        record_add(l);
    }
    record.is_open = false;
}

static bool is_exchanged(const void *at)
{
    const uint8_t *p = at;
    for (int i = 0; i < 2; i++)
        if (p >= record.half[i] && p < record.half[i] + record.half_bytes)
            return true;
    return false;
}

/* Floats and, for the next product, the same as bytes with a scale for 32. */
static uint64_t act_bytes(uint64_t count)
{
    return count + count / 32 * 4;
}

static void embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                  float scale, float *out)
{
    const uint64_t out_bytes = (uint64_t)n * w->cols * 4;
    record_begin();
    record.real.embed(b, w, ids, n, scale, out);
    record_call("embed", w->cols,
                n * weight_row_bytes(w->type, w->cols, &w->cut) +
                    (is_exchanged(out) ? 0 : out_bytes),
                is_exchanged(out) ? out_bytes : 0, 0);
}

static void norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                 float eps, struct act *out)
{
    record_begin();
    record.real.norm(b, x, n, cols, gain, eps, out);
    record_call("norm", cols, (uint64_t)n * cols * 4 + act_bytes((uint64_t)n * cols), 0, 0);
}

static void gate(struct backend *b, const float *g, const float *up, uint32_t n, uint32_t cols,
                 enum activation activation, struct act *out)
{
    record_begin();
    record.real.gate(b, g, up, n, cols, activation, out);
    record_call("gate", cols, (uint64_t)n * cols * 8 + act_bytes((uint64_t)n * cols), 0, 0);
}

static void place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n,
                  uint32_t cols, float *out)
{
    const uint64_t bytes = (uint64_t)n * cols * 4;
    record_begin();
    record.real.place(b, rows, at, n, cols, out);
    record_call("place", cols, bytes, bytes, 0);
}

static void join(struct backend *b, uint32_t n, const struct join_job *job)
{
    const uint64_t one = (uint64_t)n * job->cols * 4;
    record_begin();
    record.real.join(b, n, job);
    record_call("join", job->cols,
                one * ((job->onto != NULL ? 1u : 0u) + (is_exchanged(job->out) ? 0u : 1u)),
                one * (job->n_parts + (is_exchanged(job->out) ? 1u : 0u)), 0);
}

/* A launch for each type among the jobs, in the order in which they come. */
static void matmul(struct backend *b, const struct act *x, uint32_t n,
                   const struct matmul_job *jobs, uint32_t n_jobs)
{
    uint32_t at = 0;
    record_begin();
    record.real.matmul(b, x, n, jobs, n_jobs);
    for (uint32_t i = 0; i < n_jobs; i++) {
        const struct weight *first = jobs[i].weight;
        uint32_t before = 0;
        while (jobs[before].weight->type != first->type)
            before++;
        if (before < i)
            continue;
        CHECK(at < record.n_of_call);
        struct launch *l = &record.of_call[at++];
        l->op = "matmul";
        l->type = quant_type_info((uint32_t)first->type)->name;
        l->rows = 0;
        l->cols = first->cols;
        l->bytes = act_bytes((uint64_t)n * first->cols);
        for (uint32_t k = i; k < n_jobs; k++) {
            const struct weight *w = jobs[k].weight;
            struct sum_node nodes[SUM_GROUPS_MAX];
            if (w->type != first->type)
                continue;
            const uint64_t out = (uint64_t)n * w->rows * 4 * sum_nodes(&w->cut, nodes);
            l->rows += w->rows;
            l->bytes += backend_cuda_weight_bytes(w->type, w->rows, w->cols, &w->cut);
            l->macs += (uint64_t)n * w->rows * w->cols;
            if (is_exchanged(jobs[k].out))
                l->bus += out;
            else
                l->bytes += out * (jobs[k].accumulate ? 2 : 1);
        }
        record_add(l);
    }
    CHECK(at == record.n_of_call);
    record.is_open = false;
}

static void rope_kv(struct backend *b, const struct rope_kv_job *job)
{
    const struct kv_shape *s = &job->kv->shape;
    const uint64_t q = job->n_heads * s->head_dim_k, k = s->n_kv_heads * s->head_dim_k;
    record_begin();
    record.real.rope_kv(b, job);
    record_call("rope_kv", job->n_heads * s->head_dim_k, job->rows->n_rows * (q * 8 + k * 6 * 2), 0,
                0);
}

static void attention(struct backend *b, const struct attention_job *job)
{
    const struct kv_shape *s = &job->kv->shape;
    const struct step_rows *rows = job->rows;
    const uint64_t of_position = (uint64_t)s->n_kv_heads * (s->head_dim_k + s->head_dim_v) * 2;
    uint64_t read = 0, scores = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        scores += rows->position[i] + 1;
        if (i + 1 == rows->n_rows || rows->sequence[i + 1] != rows->sequence[i])
            read += rows->position[i] + 1;
    }
    record_begin();
    record.real.attention(b, job);
    record_call("attention", job->n_heads * s->head_dim_k,
                read * of_position +
                    (uint64_t)rows->n_rows * job->n_heads * (s->head_dim_k * 4 + s->head_dim_v),
                0, scores * job->n_heads * (s->head_dim_k + s->head_dim_v));
}

/* Nothing is held back or replayed while launches are recorded. */
static bool step_begin(struct backend *b, const struct backend_step *step)
{
    struct backend_step apart = *step;
    apart.is_fixed = apart.may_hold = false;
    return record.real.step_begin(b, &apart);
}

static enum err exchange_open(struct backend *b, void *const halves[2], size_t bytes,
                              struct exchange **ret_exchange, struct errbuf *eb)
{
    record.half[0] = halves[0];
    record.half[1] = halves[1];
    record.half_bytes = bytes;
    return record.real.exchange_open(b, halves, bytes, ret_exchange, eb);
}

static void exchange_done(struct backend *b)
{
    record.waits++;
    record.real.exchange_done(b);
}

/* Nothing reads what a matrix holds. */
static bool read_nothing(void *ctx, uint64_t at, void *to, size_t size)
{
    (void)ctx;
    (void)at;
    (void)to;
    (void)size;
    return true;
}

static enum err weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                             uint32_t *ret_failed, struct errbuf *eb)
{
    struct weight_job *empty = calloc(n_jobs + 1, sizeof *empty);
    CHECK(empty != NULL);
    memcpy(empty, jobs, n_jobs * sizeof *empty);
    for (uint32_t i = 0; i < n_jobs; i++)
        empty[i].source.read = read_nothing;
    const enum err e = record.real.weights_read(b, empty, n_jobs, ret_failed, eb);
    free(empty);
    return e;
}

/* In the place of backend_cuda_open, by the linker (--wrap). */
enum err __real_backend_cuda_open(struct backend **ret_backend,
                                  const struct backend_cuda_config *config, struct errbuf *eb);
enum err __wrap_backend_cuda_open(struct backend **ret_backend,
                                  const struct backend_cuda_config *config, struct errbuf *eb);
enum err __wrap_backend_cuda_open(struct backend **ret_backend,
                                  const struct backend_cuda_config *config, struct errbuf *eb)
{
    static struct backend_ops ops;
    const enum err e = __real_backend_cuda_open(ret_backend, config, eb);
    if (e != ERR_OK)
        return e;
    record.real = *(*ret_backend)->ops;
    ops = record.real;
    ops.weights_read = weights_read;
    ops.step_begin = step_begin;
    ops.embed = embed;
    ops.norm = norm;
    ops.place = place;
    ops.matmul = matmul;
    ops.join = join;
    ops.rope_kv = rope_kv;
    ops.attention = attention;
    ops.gate = gate;
    ops.exchange_open = exchange_open;
    ops.exchange_done = exchange_done;
    (*ret_backend)->ops = &ops;
    return ERR_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

struct queued {
    uint64_t copies, graphs, launches;
};

static struct queued queued_since(const struct emu_traffic *before)
{
    const struct emu_traffic now = emu_traffic_get();
    return (struct queued){now.copies - before->copies, now.graph_launches - before->graph_launches,
                           now.launches - before->launches};
}

static void step_print(const char *name, uint32_t shards, const struct batch_plan *plan,
                       uint64_t copies, const struct queued *again)
{
    printf("{\"step\": \"%s\", \"shards\": %u, \"rows\": %u, \"results\": %u, \"copies\": %" PRIu64
           ", \"waits\": %u, \"graphs\": %" PRIu64 ", \"single\": %" PRIu64 ", \"launches\": [",
           name, shards, plan->n_rows, plan->n_logits, copies,
           record.waits + (plan->n_logits > 0 ? 1 : 0), again->graphs, again->launches);
    for (uint32_t i = 0; i < record.n_launches; i++) {
        const struct launch *l = &record.launches[i];
        printf(
            "%s{\"op\": \"%s\", \"kernel\": \"%s\", \"type\": \"%s\", \"rows\": %u, \"cols\": %u, "
            "\"count\": %u, \"blocks\": %" PRIu64 ", \"threads\": %u, \"shared\": %zu, "
            "\"bytes\": %" PRIu64 ", \"bus\": %" PRIu64 ", \"macs\": %" PRIu64 "}",
            i == 0 ? "" : ", ", l->op, l->kernel, l->type, l->rows, l->cols, l->count, l->blocks,
            l->threads, l->shared_bytes, l->bytes, l->bus, l->macs);
    }
    printf("]}\n");
}

struct step {
    int32_t ids[STEP_ROWS];
    uint32_t position[STEP_ROWS], slot[STEP_ROWS];
    uint32_t *pages; /* [SEQUENCES][stride] */
    uint32_t stride;
};

static void step_run(struct runtime *r, const struct step *s, const char *name, uint32_t shards,
                     uint32_t n, uint32_t n_logits)
{
    const struct batch_plan plan = {.n_rows = n,
                                    .ids = s->ids,
                                    .position = s->position,
                                    .slot = s->slot,
                                    .n_logits = n_logits,
                                    .pages = s->pages,
                                    .pages_stride = s->stride};
    struct emu_traffic before = emu_traffic_get();
    const struct backend_ops *const recording = r->backend->ops;
    struct errbuf eb = {{0}};
    record.n_launches = record.waits = 0;
    if (forward_step(r, &plan, &eb) != ERR_OK)
        die(name, eb.text);
    const uint64_t copies = queued_since(&before).copies;
    /* As often as it takes until all that will be is a graph. */
    r->backend->ops = &record.real;
    for (uint32_t i = 0; i < TIMES_UNTIL_REPLAYED; i++) {
        before = emu_traffic_get();
        if (forward_step(r, &plan, &eb) != ERR_OK)
            die(name, eb.text);
    }
    r->backend->ops = recording;
    const struct queued again = queued_since(&before);
    step_print(name, shards, &plan, copies, &again);
}

static void steps_run(struct runtime *r, uint32_t shards)
{
    struct step s = {.stride = (CONTEXT + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS};
    char name[32];

    s.pages = calloc((size_t)SEQUENCES * s.stride, sizeof *s.pages);
    CHECK(s.pages != NULL);
    for (uint32_t i = 0; i < STEP_ROWS; i++)
        s.ids[i] = (int32_t)(i * 251 % r->hparams.vocab_size);
    for (uint32_t i = 0; i < SEQUENCES; i++)
        for (uint32_t k = 0; k <= DEPTH / KV_PAGE_TOKENS; k++)
            s.pages[i * s.stride + k] = i * (DEPTH / KV_PAGE_TOKENS + 1) + k;
    for (uint32_t n = 1; n <= SEQUENCES; n *= n == 1 ? 8 : 4) {
        for (uint32_t i = 0; i < n; i++) {
            s.position[i] = DEPTH - 1;
            s.slot[i] = i;
        }
        (void)snprintf(name, sizeof name, "decode %u", n);
        step_run(r, &s, name, shards, n, n);
    }
    for (uint32_t k = 0; k < s.stride; k++)
        s.pages[k] = k;
    for (uint32_t at = 0; at < PROMPT_ROWS; at += STEP_ROWS) {
        for (uint32_t i = 0; i < STEP_ROWS; i++) {
            s.position[i] = at + i;
            s.slot[i] = 0;
        }
        (void)snprintf(name, sizeof name, "prompt %u", at);
        /* A prompt of 512 tokens ends with the first step, one of 4,096 with the last. */
        step_run(r, &s, name, shards, STEP_ROWS, at == 0 || at + STEP_ROWS == PROMPT_ROWS ? 1 : 0);
    }
    free(s.pages);
}

int main(int argc, char **argv)
{
    struct engine_config config = {
        .backend = ENGINE_BACKEND_CUDA, .threads = 1, .sequences = SEQUENCES};
    struct engine_model_config model = {.context_tokens = CONTEXT, .slots = SLOTS};
    struct emu_device device = emu_device_get();
    struct runtime *r = NULL;
    struct errbuf eb = {{0}};
    struct ranks ranks;

    if (argc != 2 && (argc != 4 || strcmp(argv[2], "--shards") != 0))
        die("usage", "cuda_steps FILE [--shards N]");
    model.path = argv[1];
    model.shard.shards = argc == 4 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    if (model.shard.shards > SHARD_RANKS_MAX)
        die(argv[3], "too many shards");
    device.count = (int)SHARD_RANKS_MAX;
    device.memory_bytes = DEVICE_BYTES;
    emu_device_set(&device);
    emu_dry(launched, NULL);
    const uint32_t shards = model.shard.shards > 0 ? model.shard.shards : 1;
    if (shards == 1)
        model.shard.shards = 0;
    else
        model.shard.stages = 1;
    if (ranks_start(&ranks, &config, &model, &eb) != ERR_OK ||
        runtime_config_complete(&config, &config, &eb) != ERR_OK ||
        runtime_open(&r, &config, &model, NULL, &eb) != ERR_OK)
        die(argv[1], eb.text);
    steps_run(r, shards);
    runtime_close(r);
    ranks_join(&ranks);
    return EXIT_SUCCESS;
}
